//! Rows as columns, and columns as the bytes of a Parquet file.
//!
//! A [`Table`] of columns is filled row by row: texts go into one arena for each column, so that a row costs no allocation of its own. The
//! same rows give the same bytes. Called by `calls` (data sets) and `events` (the trail). Knows neither.

use std::{io, sync::Arc};

use bytes::Bytes;
use parquet::{
    basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, Int32Type, Int64Type},
    file::{
        metadata::KeyValue,
        properties::{EnabledStatistics, WriterProperties},
        writer::{SerializedColumnWriter, SerializedFileWriter},
    },
    schema::types::{ColumnPath, Type},
};

/// Rows of one row group.
const GROUP_ROWS_MAX: usize = 100_000;
/// What stands in a file as its writer.
const WRITER: &str = "cairn-lake";

/// What a column holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// UTF-8.
    Text,
    /// UTF-8 that is hardly ever the same twice, or long.
    LongText,
    /// 64 bits with a sign.
    Long,
    /// 32 bits with a sign.
    Int,
    /// Microseconds since 1970, UTC.
    Time,
    /// True or false.
    Flag,
}

/// A column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Field {
    /// Its number, by which Iceberg knows it: never used again for another.
    pub id: i32,
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether every row has it.
    pub required: bool,
    /// What it means.
    pub doc: &'static str,
}

/// The values of one column.
#[derive(Debug)]
enum Values {
    /// Texts one behind the other, and where each ends.
    Texts(Vec<u8>, Vec<usize>),
    Longs(Vec<i64>),
    Ints(Vec<i32>),
    Flags(Vec<bool>),
}

/// One column with its values; 0 stands in `levels` where a row has none.
#[derive(Debug)]
struct Column {
    field: Field,
    values: Values,
    levels: Vec<i16>,
}

/// Rows that wait to be written.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

/// A row that is being added: one value for each column, in their order.
#[derive(Debug)]
pub struct Adding<'t> {
    table: &'t mut Table,
    at: usize,
}

impl Column {
    fn new(field: Field) -> Self {
        let values = match field.kind {
            Kind::Text | Kind::LongText => Values::Texts(Vec::new(), Vec::new()),
            Kind::Long | Kind::Time => Values::Longs(Vec::new()),
            Kind::Int => Values::Ints(Vec::new()),
            Kind::Flag => Values::Flags(Vec::new()),
        };
        Self { field, values, levels: Vec::new() }
    }

    fn schema(&self) -> Result<Arc<Type>, parquet::errors::ParquetError> {
        let (physical, logical) = match self.field.kind {
            Kind::Text | Kind::LongText => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Long => (Physical::INT64, None),
            Kind::Time => {
                let logical = LogicalType::timestamp(true, TimeUnit::MICROS);
                (Physical::INT64, Some(logical))
            }
            Kind::Int => (Physical::INT32, None),
            Kind::Flag => (Physical::BOOLEAN, None),
        };
        let repetition = if self.field.required { Repetition::REQUIRED } else { Repetition::OPTIONAL };
        let builder = Type::primitive_type_builder(self.field.name, physical);
        let built =
            builder.with_repetition(repetition).with_logical_type(logical).with_id(Some(self.field.id)).build()?;
        Ok(Arc::new(built))
    }
}

impl Table {
    /// No rows of these columns.
    #[must_use]
    pub fn new(fields: &[Field]) -> Self {
        Self { columns: fields.iter().map(|field| Column::new(*field)).collect(), rows: 0, bytes: 0 }
    }

    /// How many rows there are.
    #[must_use]
    pub const fn rows(&self) -> usize {
        self.rows
    }

    /// The bytes that they take in memory, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins a row.
    pub fn add(&mut self) -> Adding<'_> {
        self.rows += 1;
        self.bytes += self.columns.len() * 10;
        Adding { table: self, at: 0 }
    }

    /// The file of all rows, with words about them in its footer.
    ///
    /// # Errors
    /// Parquet refuses.
    pub fn write(self, to: &mut (dyn io::Write + Send), about: Vec<(String, String)>) -> io::Result<()> {
        self.write_groups(to, about).map_err(io::Error::other)
    }

    fn write_groups(
        self,
        to: &mut (dyn io::Write + Send),
        about: Vec<(String, String)>,
    ) -> Result<(), parquet::errors::ParquetError> {
        let fields = self.columns.iter().map(Column::schema).collect::<Result<Vec<_>, _>>()?;
        let schema = Type::group_type_builder("row").with_fields(fields).build()?;
        let mut properties = WriterProperties::builder()
            .set_created_by(WRITER.to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_key_value_metadata(Some(about.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect()));
        for column in self.columns.iter().filter(|column| column.field.kind == Kind::LongText) {
            let path = ColumnPath::from(column.field.name);
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_statistics_enabled(path, EnabledStatistics::None);
        }
        let mut writer = SerializedFileWriter::new(to, Arc::new(schema), Arc::new(properties.build()))?;
        let mut columns: Vec<Cut> = self.columns.into_iter().map(Cut::of).collect();
        let mut left = self.rows;
        while left > 0 {
            let rows = left.min(GROUP_ROWS_MAX);
            let mut group = writer.next_row_group()?;
            for column in &mut columns {
                let mut out = group.next_column()?.expect("there are as many columns as in the schema");
                column.write(&mut out, rows)?;
                out.close()?;
            }
            group.close()?;
            left -= rows;
        }
        writer.close().map(drop)
    }
}

impl Adding<'_> {
    fn column(&mut self) -> &mut Column {
        let column = &mut self.table.columns[self.at];
        self.at += 1;
        column
    }

    /// The next value, a text.
    pub fn text(&mut self, value: Option<&str>) -> &mut Self {
        let column = self.column();
        let Values::Texts(arena, ends) = &mut column.values else { panic!("{} holds no texts", column.field.name) };
        if let Some(value) = value {
            arena.extend_from_slice(value.as_bytes());
            ends.push(arena.len());
        }
        column.levels.push(value.is_some().into());
        self.table.bytes += value.map_or(0, str::len);
        self
    }

    /// The next value, a number or a time.
    pub fn long(&mut self, value: Option<i64>) -> &mut Self {
        let column = self.column();
        let Values::Longs(longs) = &mut column.values else { panic!("{} holds no numbers", column.field.name) };
        longs.extend(value);
        column.levels.push(value.is_some().into());
        self
    }

    /// The next value, a small number.
    pub fn int(&mut self, value: Option<i32>) -> &mut Self {
        let column = self.column();
        let Values::Ints(ints) = &mut column.values else { panic!("{} holds no small numbers", column.field.name) };
        ints.extend(value);
        column.levels.push(value.is_some().into());
        self
    }

    /// The next value, true or false.
    pub fn flag(&mut self, value: Option<bool>) -> &mut Self {
        let column = self.column();
        let Values::Flags(flags) = &mut column.values else { panic!("{} holds no flags", column.field.name) };
        flags.extend(value);
        column.levels.push(value.is_some().into());
        self
    }

    /// Ends the row, which must be whole.
    pub fn end(&mut self) {
        assert_eq!(self.at, self.table.columns.len(), "a row has a value for each column");
    }
}

/// A column of which a part is written already.
struct Cut {
    is_required: bool,
    levels: Vec<i16>,
    values: CutValues,
    at: usize,
    value_at: usize,
}

enum CutValues {
    Texts(Vec<ByteArray>),
    Longs(Vec<i64>),
    Ints(Vec<i32>),
    Flags(Vec<bool>),
}

impl Cut {
    fn of(column: Column) -> Self {
        let values = match column.values {
            Values::Texts(arena, ends) => {
                let (arena, mut from) = (Bytes::from(arena), 0);
                let text = |end: usize| ByteArray::from(arena.slice(std::mem::replace(&mut from, end)..end));
                CutValues::Texts(ends.into_iter().map(text).collect())
            }
            Values::Longs(values) => CutValues::Longs(values),
            Values::Ints(values) => CutValues::Ints(values),
            Values::Flags(values) => CutValues::Flags(values),
        };
        Self { is_required: column.field.required, levels: column.levels, values, at: 0, value_at: 0 }
    }

    fn write(
        &mut self,
        out: &mut SerializedColumnWriter<'_>,
        rows: usize,
    ) -> Result<(), parquet::errors::ParquetError> {
        let levels = &self.levels[self.at..self.at + rows];
        let count = levels.iter().filter(|level| **level == 1).count();
        let (from, to) = (self.value_at, self.value_at + count);
        let levels = (!self.is_required).then_some(levels);
        match &self.values {
            CutValues::Texts(values) => out.typed::<ByteArrayType>().write_batch(&values[from..to], levels, None)?,
            CutValues::Longs(values) => out.typed::<Int64Type>().write_batch(&values[from..to], levels, None)?,
            CutValues::Ints(values) => out.typed::<Int32Type>().write_batch(&values[from..to], levels, None)?,
            CutValues::Flags(values) => out.typed::<BoolType>().write_batch(&values[from..to], levels, None)?,
        };
        (self.at, self.value_at) = (self.at + rows, to);
        Ok(())
    }
}
