//! Reading data files back: a few columns of every row, and what the footer says. Called by retention, replays and the start.

use bytes::Bytes;
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
    schema::types::Type,
};

use crate::{
    sink::{Covered, RANGES},
    table::TableError,
};

fn broken(error: &parquet::errors::ParquetError) -> TableError {
    TableError::Broken { reason: format!("a data file of the table cannot be read: {error}") }
}

/// Gives these columns of each row, in their order; a value that is not there is [`Field::Null`].
///
/// # Errors
/// It is no file of rows, or has no such column.
pub fn each(bytes: Bytes, columns: &[&str], mut row: impl FnMut(&[Field])) -> Result<(), TableError> {
    let reader = SerializedFileReader::new(bytes).map_err(|error| broken(&error))?;
    let schema = reader.metadata().file_metadata().schema();
    let wanted = schema.get_fields().iter().filter(|field| columns.contains(&field.name())).cloned().collect();
    let wanted = Type::group_type_builder(schema.name()).with_fields(wanted).build().map_err(|error| broken(&error))?;
    for found in reader.get_row_iter(Some(wanted)).map_err(|error| broken(&error))? {
        let found = found.map_err(|error| broken(&error))?;
        let of = |column: &&str| {
            let value = found.get_column_iter().find(|(name, _)| name.as_str() == *column);
            value.map_or(Field::Null, |(_, value)| value.clone())
        };
        row(&columns.iter().map(of).collect::<Vec<_>>());
    }
    Ok(())
}

/// The offsets that a file holds all rows of.
///
/// # Errors
/// Its footer does not say.
pub fn covered(bytes: Bytes) -> Result<Vec<Covered>, TableError> {
    let reader = SerializedFileReader::new(bytes).map_err(|error| broken(&error))?;
    let about = reader.metadata().file_metadata().key_value_metadata();
    let found = about.into_iter().flatten().find(|pair| pair.key == RANGES).and_then(|pair| pair.value.as_deref());
    found.and_then(|told| serde_json::from_str(told).ok()).ok_or_else(|| TableError::Broken {
        reason: "a data file of the table does not say which offsets it holds".to_owned(),
    })
}
