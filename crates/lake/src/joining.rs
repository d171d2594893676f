//! Putting small files together, so that whoever reads opens few: a quiet topic gets a file at each commit in which anything came.
//!
//! Files of one topic and one day become one, row group by row group, without reading a row: the same rows in the same order, in one commit that
//! changes nothing of what the table says. Of one day, so that retention is no more than a day late. Called by the sink's own work.

use std::{collections::BTreeMap, io::Write};

use bytes::Bytes;
use parquet::{
    column::writer::ColumnCloseResult,
    errors::ParquetError,
    file::{
        metadata::KeyValue,
        properties::WriterProperties,
        reader::{FileReader, SerializedFileReader},
        writer::SerializedFileWriter,
    },
};

use crate::{
    iceberg::{
        manifest::{Bound, DataFile, Entry},
        metadata::Operation,
    },
    rows,
    sink::{Covered, RANGES},
    table::{Change, Table, TableError},
};

/// A file below this is small.
const SMALL_BYTES: i64 = 32 << 20;
/// So many small files of one topic and day are put together,
const FILES_MIN: usize = 16;
/// at most so many at once.
const FILES_MAX: usize = 64;
const DAY_US: i64 = 86_400_000_000;

/// Puts small files of one topic and day together, where there are enough; whether it did.
///
/// # Errors
/// As [`TableError`] says.
pub async fn join(table: &mut Table) -> Result<bool, TableError> {
    let mut small: BTreeMap<(String, i64), Vec<Entry>> = BTreeMap::new();
    for entry in table.files().await? {
        let Some(newest) = entry.file.newest_us().filter(|_| entry.file.bytes < SMALL_BYTES) else { continue };
        small.entry((entry.file.topic.clone(), newest.div_euclid(DAY_US))).or_default().push(entry);
    }
    let Some(mut files) = small.into_values().find(|files| files.len() >= FILES_MIN) else { return Ok(false) };
    // The smallest first: what is large already is written again seldom.
    files.sort_by_key(|entry| (entry.file.bytes, entry.sequence));
    files.truncate(FILES_MAX);
    files.sort_by_key(|entry| entry.sequence);
    let mut parts = Vec::new();
    for entry in &files {
        parts.push(table.rows_of(&entry.file.path).await?);
    }
    let id = table.nonce();
    let bytes = joined(&parts)?;
    let file = DataFile {
        path: table.path_of(&id, 0),
        topic: files[0].file.topic.clone(),
        rows: files.iter().map(|entry| entry.file.rows).sum(),
        bytes: bytes.len() as i64,
        bounds: widest(&files),
    };
    table.put_rows(&file.path, bytes).await?;
    let removed = files.into_iter().map(|entry| entry.file.path).collect();
    let about = vec![("cairn.reason".to_owned(), "small files".to_owned())];
    let change = Change { id, operation: Operation::Replace, moved: Vec::new(), added: vec![file], removed, about };
    match table.commit(&change).await {
        // Somebody else replaced one of them meanwhile.
        Err(TableError::Elsewhere { .. }) => Ok(false),
        other => other.map(|()| true),
    }
}

/// The bounds of all of them together.
fn widest(files: &[Entry]) -> Vec<Bound> {
    let mut widest: Vec<Bound> = files[0].file.bounds.clone();
    for bound in &mut widest {
        let others = files.iter().flat_map(|entry| &entry.file.bounds).filter(|other| other.field == bound.field);
        for other in others.cloned().collect::<Vec<_>>() {
            if number(&other.lower) < number(&bound.lower) {
                bound.lower = other.lower;
            }
            if number(&other.upper) > number(&bound.upper) {
                bound.upper = other.upper;
            }
        }
    }
    widest
}

/// A number of four or eight bytes, as bounds have them.
fn number(bytes: &[u8]) -> i64 {
    match (<[u8; 4]>::try_from(bytes), <[u8; 8]>::try_from(bytes)) {
        (Ok(int), _) => i32::from_le_bytes(int).into(),
        (_, Ok(long)) => i64::from_le_bytes(long),
        _ => 0,
    }
}

/// One file of the row groups of all.
fn joined(parts: &[Bytes]) -> Result<Bytes, TableError> {
    let mut covers: Vec<Covered> = Vec::new();
    for part in parts {
        for covered in rows::covered(part.clone())? {
            let before = covers.iter_mut().find(|known| {
                known.to == covered.from
                    && known.partition == covered.partition
                    && known.topic == covered.topic
                    && known.topic_id == covered.topic_id
            });
            match before {
                Some(known) => known.to = covered.to,
                None => covers.push(covered),
            }
        }
    }
    let about = serde_json::to_string(&covers).unwrap_or_default();
    written(parts, about)
        .map_err(|error| TableError::Broken { reason: format!("files cannot be put together: {error}") })
}

fn written(parts: &[Bytes], about: String) -> Result<Bytes, ParquetError> {
    let mut out = Vec::new();
    let first = SerializedFileReader::new(parts[0].clone())?;
    let file = first.metadata().file_metadata();
    let properties = WriterProperties::builder()
        .set_created_by(file.created_by().unwrap_or_default().to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(RANGES.to_owned(), about)]))
        .build();
    let schema = file.schema_descr().root_schema_ptr();
    let mut writer = SerializedFileWriter::new(out.by_ref(), schema, properties.into())?;
    for part in parts {
        let reader = SerializedFileReader::new(part.clone())?;
        for group in reader.metadata().row_groups() {
            let mut copied = writer.next_row_group()?;
            for column in group.columns() {
                let close = ColumnCloseResult {
                    bytes_written: column.compressed_size().unsigned_abs(),
                    rows_written: group.num_rows().unsigned_abs(),
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: None,
                    offset_index: None,
                };
                copied.append_column(part, close)?;
            }
            copied.close()?;
        }
    }
    writer.close()?;
    Ok(out.into())
}
