//! Manifests (which data files there are) and manifest lists (which manifests a snapshot has), as Avro.
//!
//! The table is partitioned by the identity of one text, its topic. Field ids are the specification's.

use std::{collections::HashMap, sync::LazyLock};

use apache_avro::{Reader, Schema, types::Value, writer::datum::GenericDatumWriter};
use serde_json::json;

use crate::events;

/// The field id of the one partition field.
pub const PARTITION_FIELD: i32 = 1000;

/// A file that Cairn did not write as it writes them, or that is damaged.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Avro.
    #[error("{0}")]
    Avro(#[from] apache_avro::Error),
    /// A key is missing or has another form.
    #[error("it has no readable {0}")]
    Key(&'static str),
}

/// A data file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataFile {
    /// Where it lies, as a URI.
    pub path: String,
    /// The topic of all of its rows.
    pub topic: String,
    /// Its rows.
    pub rows: i64,
    /// Its bytes.
    pub bytes: i64,
    /// The lowest and highest value of these columns, in Iceberg's form.
    pub bounds: Vec<Bound>,
}

/// The lowest and highest value of a column.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bound {
    /// The column's field id.
    pub field: i32,
    /// The lowest.
    pub lower: Vec<u8>,
    /// The highest.
    pub upper: Vec<u8>,
}

impl DataFile {
    /// The highest time of its rows, in microseconds since 1970.
    #[must_use]
    pub fn newest_us(&self) -> Option<i64> {
        let bound = self.bounds.iter().find(|bound| bound.field == events::TIME)?;
        bound.upper.as_slice().try_into().ok().map(i64::from_le_bytes)
    }
}

/// How a data file stands in a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// It was there before.
    Existing,
    /// It came with the snapshot.
    Added,
    /// It went with the snapshot.
    Deleted,
}

/// A data file in a manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// How it stands.
    pub status: Status,
    /// The snapshot that it came or went with.
    pub snapshot_id: i64,
    /// That snapshot's number, as it came.
    pub sequence: i64,
    /// The file.
    pub file: DataFile,
}

/// A manifest in a manifest list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ManifestFile {
    /// Where it lies, as a URI.
    pub path: String,
    /// Its bytes.
    pub length: i64,
    /// The number of the snapshot that it came with.
    pub sequence: i64,
    /// The lowest number of a snapshot that one of its files came with.
    pub min_sequence: i64,
    /// The snapshot that it came with.
    pub snapshot_id: i64,
    /// Files, and their rows: added,
    pub added: (i32, i64),
    /// existing,
    pub existing: (i32, i64),
    /// deleted.
    pub deleted: (i32, i64),
    /// The first and last topic in it.
    pub topics: (String, String),
}

impl ManifestFile {
    /// How many files it has that are there.
    #[must_use]
    pub const fn live(&self) -> i32 {
        self.added.0 + self.existing.0
    }
}

fn optional(name: &str, id: i32, kind: &serde_json::Value) -> serde_json::Value {
    json!({ "name": name, "type": ["null", kind], "default": null, "field-id": id })
}

fn need(name: &str, id: i32, kind: &serde_json::Value) -> serde_json::Value {
    json!({ "name": name, "type": kind, "field-id": id })
}

/// Iceberg writes maps with keys that are no texts as lists of pairs.
fn map(key: i32, value: i32, kind: &str) -> serde_json::Value {
    json!({
        "type": "array", "logicalType": "map",
        "items": {
            "type": "record", "name": format!("k{key}_v{value}"),
            "fields": [need("key", key, &json!("int")), need("value", value, &json!(kind))],
        },
    })
}

/// A schema, and its text as it stands in files: Avro's own would leave out which lists are maps.
struct Form {
    schema: Schema,
    text: String,
}

impl Form {
    fn of(told: &serde_json::Value) -> Self {
        Self { schema: Schema::parse(told).expect("the schemas of this file are schemas"), text: told.to_string() }
    }
}

static ENTRY: LazyLock<Form> = LazyLock::new(|| {
    let partition = json!({
        "type": "record", "name": "r102",
        "fields": [optional("topic", PARTITION_FIELD, &json!("string"))],
    });
    let list = |kind: &str, element: i32| json!({ "type": "array", "items": kind, "element-id": element });
    let file = json!({
        "type": "record", "name": "r2",
        "fields": [
            need("content", 134, &json!("int")),
            need("file_path", 100, &json!("string")),
            need("file_format", 101, &json!("string")),
            need("partition", 102, &partition),
            need("record_count", 103, &json!("long")),
            need("file_size_in_bytes", 104, &json!("long")),
            optional("column_sizes", 108, &map(117, 118, "long")),
            optional("value_counts", 109, &map(119, 120, "long")),
            optional("null_value_counts", 110, &map(121, 122, "long")),
            optional("nan_value_counts", 137, &map(138, 139, "long")),
            optional("lower_bounds", 125, &map(126, 127, "bytes")),
            optional("upper_bounds", 128, &map(129, 130, "bytes")),
            optional("key_metadata", 131, &json!("bytes")),
            optional("split_offsets", 132, &list("long", 133)),
            optional("equality_ids", 135, &list("int", 136)),
            optional("sort_order_id", 140, &json!("int")),
        ],
    });
    let entry = json!({
        "type": "record", "name": "manifest_entry",
        "fields": [
            need("status", 0, &json!("int")),
            optional("snapshot_id", 1, &json!("long")),
            optional("sequence_number", 3, &json!("long")),
            optional("file_sequence_number", 4, &json!("long")),
            need("data_file", 2, &file),
        ],
    });
    Form::of(&entry)
});

static LIST: LazyLock<Form> = LazyLock::new(|| {
    let summary = json!({
        "type": "record", "name": "r508",
        "fields": [
            need("contains_null", 509, &json!("boolean")),
            optional("contains_nan", 518, &json!("boolean")),
            optional("lower_bound", 510, &json!("bytes")),
            optional("upper_bound", 511, &json!("bytes")),
        ],
    });
    let list = json!({
        "type": "record", "name": "manifest_file",
        "fields": [
            need("manifest_path", 500, &json!("string")),
            need("manifest_length", 501, &json!("long")),
            need("partition_spec_id", 502, &json!("int")),
            need("content", 517, &json!("int")),
            need("sequence_number", 515, &json!("long")),
            need("min_sequence_number", 516, &json!("long")),
            need("added_snapshot_id", 503, &json!("long")),
            need("added_files_count", 504, &json!("int")),
            need("existing_files_count", 505, &json!("int")),
            need("deleted_files_count", 506, &json!("int")),
            need("added_rows_count", 512, &json!("long")),
            need("existing_rows_count", 513, &json!("long")),
            need("deleted_rows_count", 514, &json!("long")),
            optional("partitions", 507, &json!({ "type": "array", "items": summary, "element-id": 508 })),
            optional("key_metadata", 519, &json!("bytes")),
        ],
    });
    Form::of(&list)
});

/// A value of a union with null.
fn some(value: Value) -> Value {
    Value::Union(1, Box::new(value))
}

fn none() -> Value {
    Value::Union(0, Box::new(Value::Null))
}

fn record<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Record(fields.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

fn bounds_of(file: &DataFile, of: fn(&Bound) -> &Vec<u8>) -> Value {
    let pair = |bound: &Bound| record([("key", Value::Int(bound.field)), ("value", Value::Bytes(of(bound).clone()))]);
    some(Value::Array(file.bounds.iter().map(pair).collect()))
}

fn entry_of(entry: &Entry) -> Value {
    let file = &entry.file;
    let data_file = record([
        ("content", Value::Int(0)),
        ("file_path", Value::String(file.path.clone())),
        ("file_format", Value::String("PARQUET".to_owned())),
        ("partition", record([("topic", some(Value::String(file.topic.clone())))])),
        ("record_count", Value::Long(file.rows)),
        ("file_size_in_bytes", Value::Long(file.bytes)),
        ("column_sizes", none()),
        ("value_counts", none()),
        ("null_value_counts", none()),
        ("nan_value_counts", none()),
        ("lower_bounds", bounds_of(file, |bound| &bound.lower)),
        ("upper_bounds", bounds_of(file, |bound| &bound.upper)),
        ("key_metadata", none()),
        ("split_offsets", none()),
        ("equality_ids", none()),
        ("sort_order_id", some(Value::Int(0))),
    ]);
    let status = match entry.status {
        Status::Existing => 0,
        Status::Added => 1,
        Status::Deleted => 2,
    };
    record([
        ("status", Value::Int(status)),
        ("snapshot_id", some(Value::Long(entry.snapshot_id))),
        ("sequence_number", some(Value::Long(entry.sequence))),
        ("file_sequence_number", some(Value::Long(entry.sequence))),
        ("data_file", data_file),
    ])
}

/// A number as Avro writes it.
fn number(value: i64, into: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        into.push((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    into.push(rest as u8);
}

fn bytes_of(bytes: &[u8], into: &mut Vec<u8>) {
    number(bytes.len() as i64, into);
    into.extend_from_slice(bytes);
}

/// A whole Avro file: a header, and one block. What stands between blocks is no secret, so it is always the same.
fn written(form: &Form, about: &[(&str, String)], values: Vec<Value>) -> Result<Vec<u8>, ManifestError> {
    const SYNC: &[u8; 16] = b"cairn-lake block";
    let writer = GenericDatumWriter::builder(&form.schema).build()?;
    let (count, mut block) = (values.len(), Vec::new());
    for value in values {
        writer.write_value(&mut block, value)?;
    }
    let mut out = b"Obj\x01".to_vec();
    number(about.len() as i64 + 2, &mut out);
    let own = [("avro.schema", form.text.as_str()), ("avro.codec", "null")];
    for (key, value) in own.into_iter().chain(about.iter().map(|(key, value)| (*key, value.as_str()))) {
        bytes_of(key.as_bytes(), &mut out);
        bytes_of(value.as_bytes(), &mut out);
    }
    number(0, &mut out);
    out.extend_from_slice(SYNC);
    if count > 0 {
        number(count as i64, &mut out);
        bytes_of(&block, &mut out);
        out.extend_from_slice(SYNC);
    }
    Ok(out)
}

/// The bytes of a manifest; `schema` is the table's, as JSON.
///
/// # Errors
/// Avro refuses.
pub fn manifest(schema: &serde_json::Value, entries: &[Entry]) -> Result<Vec<u8>, ManifestError> {
    let about = [
        ("schema", schema.to_string()),
        ("schema-id", "0".to_owned()),
        ("partition-spec", super::metadata::partition_fields().to_string()),
        ("partition-spec-id", "0".to_owned()),
        ("format-version", "2".to_owned()),
        ("content", "data".to_owned()),
    ];
    written(&ENTRY, &about, entries.iter().map(entry_of).collect())
}

/// How a manifest stands in the list: counted from its entries.
#[must_use]
pub fn counted(path: String, length: usize, (snapshot_id, sequence): (i64, i64), entries: &[Entry]) -> ManifestFile {
    let of = |status: Status| {
        let found = entries.iter().filter(|entry| entry.status == status);
        found.fold((0, 0), |(files, rows), entry| (files + 1, rows + entry.file.rows))
    };
    let topics = entries.iter().map(|entry| entry.file.topic.as_str());
    let (first, last) = (topics.clone().min().unwrap_or_default(), topics.max().unwrap_or_default());
    let live = entries.iter().filter(|entry| entry.status != Status::Deleted);
    ManifestFile {
        path,
        length: length as i64,
        sequence,
        min_sequence: live.map(|entry| entry.sequence).min().unwrap_or(sequence),
        snapshot_id,
        added: of(Status::Added),
        existing: of(Status::Existing),
        deleted: of(Status::Deleted),
        topics: (first.to_owned(), last.to_owned()),
    }
}

/// The bytes of a manifest list.
///
/// # Errors
/// Avro refuses.
pub fn list(snapshot: (i64, Option<i64>, i64), manifests: &[ManifestFile]) -> Result<Vec<u8>, ManifestError> {
    let (id, parent, sequence) = snapshot;
    let about = [
        ("snapshot-id", id.to_string()),
        ("parent-snapshot-id", parent.map_or_else(|| "null".to_owned(), |parent| parent.to_string())),
        ("sequence-number", sequence.to_string()),
        ("format-version", "2".to_owned()),
    ];
    let value = |manifest: &ManifestFile| {
        let (first, last) = &manifest.topics;
        let summary = record([
            ("contains_null", Value::Boolean(false)),
            ("contains_nan", none()),
            ("lower_bound", some(Value::Bytes(first.as_bytes().to_vec()))),
            ("upper_bound", some(Value::Bytes(last.as_bytes().to_vec()))),
        ]);
        record([
            ("manifest_path", Value::String(manifest.path.clone())),
            ("manifest_length", Value::Long(manifest.length)),
            ("partition_spec_id", Value::Int(0)),
            ("content", Value::Int(0)),
            ("sequence_number", Value::Long(manifest.sequence)),
            ("min_sequence_number", Value::Long(manifest.min_sequence)),
            ("added_snapshot_id", Value::Long(manifest.snapshot_id)),
            ("added_files_count", Value::Int(manifest.added.0)),
            ("existing_files_count", Value::Int(manifest.existing.0)),
            ("deleted_files_count", Value::Int(manifest.deleted.0)),
            ("added_rows_count", Value::Long(manifest.added.1)),
            ("existing_rows_count", Value::Long(manifest.existing.1)),
            ("deleted_rows_count", Value::Long(manifest.deleted.1)),
            ("partitions", some(Value::Array(vec![summary]))),
            ("key_metadata", none()),
        ])
    };
    written(&LIST, &about, manifests.iter().map(value).collect())
}

/// The members of a record, by name.
struct Members(HashMap<String, Value>);

impl Members {
    fn of(value: Value, what: &'static str) -> Result<Self, ManifestError> {
        match plain(value) {
            Value::Record(fields) => Ok(Self(fields.into_iter().map(|(name, value)| (name, plain(value))).collect())),
            _ => Err(ManifestError::Key(what)),
        }
    }

    fn take(&mut self, key: &'static str) -> Result<Value, ManifestError> {
        self.0.remove(key).ok_or(ManifestError::Key(key))
    }

    fn text(&mut self, key: &'static str) -> Result<String, ManifestError> {
        match self.take(key)? {
            Value::String(text) => Ok(text),
            _ => Err(ManifestError::Key(key)),
        }
    }

    fn long(&mut self, key: &'static str) -> Result<i64, ManifestError> {
        match self.take(key)? {
            Value::Long(number) => Ok(number),
            Value::Int(number) => Ok(number.into()),
            _ => Err(ManifestError::Key(key)),
        }
    }

    fn int(&mut self, key: &'static str) -> Result<i32, ManifestError> {
        self.long(key)?.try_into().map_err(|_| ManifestError::Key(key))
    }

    /// Pairs of a field id and bytes.
    fn pairs(&mut self, key: &'static str) -> Result<Vec<(i32, Vec<u8>)>, ManifestError> {
        let Value::Array(pairs) = self.take(key)? else { return Ok(Vec::new()) };
        let pair = |value: Value| {
            let mut members = Self::of(value, key)?;
            match (members.int("key")?, members.take("value")?) {
                (field, Value::Bytes(bytes)) => Ok((field, bytes)),
                _ => Err(ManifestError::Key(key)),
            }
        };
        pairs.into_iter().map(pair).collect()
    }
}

fn plain(value: Value) -> Value {
    match value {
        Value::Union(_, inner) => *inner,
        other => other,
    }
}

/// Reads a manifest.
///
/// # Errors
/// It is none that Cairn wrote.
pub fn read_manifest(bytes: &[u8]) -> Result<Vec<Entry>, ManifestError> {
    let entry = |value: Result<Value, apache_avro::Error>| {
        let mut entry = Members::of(value?, "manifest_entry")?;
        let mut file = Members::of(entry.take("data_file")?, "data_file")?;
        let mut partition = Members::of(file.take("partition")?, "partition")?;
        let upper: HashMap<i32, Vec<u8>> = file.pairs("upper_bounds")?.into_iter().collect();
        let bound = |(field, lower): (i32, Vec<u8>)| Some(Bound { field, lower, upper: upper.get(&field)?.clone() });
        Ok(Entry {
            status: match entry.int("status")? {
                0 => Status::Existing,
                1 => Status::Added,
                2 => Status::Deleted,
                _ => return Err(ManifestError::Key("status")),
            },
            snapshot_id: entry.long("snapshot_id")?,
            sequence: entry.long("sequence_number")?,
            file: DataFile {
                path: file.text("file_path")?,
                topic: partition.text("topic")?,
                rows: file.long("record_count")?,
                bytes: file.long("file_size_in_bytes")?,
                bounds: file.pairs("lower_bounds")?.into_iter().filter_map(bound).collect(),
            },
        })
    };
    Reader::new(bytes)?.map(entry).collect()
}

/// Reads a manifest list.
///
/// # Errors
/// It is none that Cairn wrote.
pub fn read_list(bytes: &[u8]) -> Result<Vec<ManifestFile>, ManifestError> {
    let manifest = |value: Result<Value, apache_avro::Error>| {
        let mut of = Members::of(value?, "manifest_file")?;
        let Value::Array(summaries) = of.take("partitions")? else { return Err(ManifestError::Key("partitions")) };
        let summary = summaries.into_iter().next().ok_or(ManifestError::Key("partitions"))?;
        let mut summary = Members::of(summary, "partitions")?;
        let mut topic = |key: &'static str| match summary.take(key)? {
            Value::Bytes(bytes) => String::from_utf8(bytes).map_err(|_| ManifestError::Key(key)),
            _ => Err(ManifestError::Key(key)),
        };
        let topics = (topic("lower_bound")?, topic("upper_bound")?);
        Ok(ManifestFile {
            path: of.text("manifest_path")?,
            length: of.long("manifest_length")?,
            sequence: of.long("sequence_number")?,
            min_sequence: of.long("min_sequence_number")?,
            snapshot_id: of.long("added_snapshot_id")?,
            added: (of.int("added_files_count")?, of.long("added_rows_count")?),
            existing: (of.int("existing_files_count")?, of.long("existing_rows_count")?),
            deleted: (of.int("deleted_files_count")?, of.long("deleted_rows_count")?),
            topics,
        })
    };
    Reader::new(bytes)?.map(manifest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn entry(path: &str, status: Status) -> Entry {
        let bound =
            Bound { field: events::TIME, lower: 7_i64.to_le_bytes().to_vec(), upper: 9_i64.to_le_bytes().to_vec() };
        let file =
            DataFile { path: path.to_owned(), topic: "mcp.calls".to_owned(), rows: 3, bytes: 99, bounds: vec![bound] };
        Entry { status, snapshot_id: 4_711, sequence: 5, file }
    }

    #[test]
    fn manifests_and_their_lists_are_read_as_they_were_written_and_say_their_field_ids() {
        let entries =
            [entry("s3://b/a", Status::Added), entry("s3://b/b", Status::Existing), entry("s3://b/c", Status::Deleted)];
        let bytes = manifest(&json!({ "type": "struct" }), &entries).expect("written");
        assert_eq!(read_manifest(&bytes).expect("read"), entries);
        assert_eq!(entries[0].file.newest_us(), Some(9));
        let text = String::from_utf8_lossy(&bytes);
        // What other engines find columns by.
        assert!(
            text.contains("\"field-id\":134")
                && text.contains("\"logicalType\":\"map\"")
                && text.contains("\"element-id\":133")
        );
        let counted = counted("s3://b/m".to_owned(), bytes.len(), (4_711, 5), &entries);
        assert_eq!((counted.added, counted.existing, counted.deleted, counted.live()), ((1, 3), (1, 3), (1, 3), 2));
        let bytes = list((4_711, None, 5), std::slice::from_ref(&counted)).expect("written");
        assert_eq!(read_list(&bytes).expect("read"), [counted]);
        assert!(read_list(b"Obj").is_err() && read_manifest(&bytes).is_err());
    }
}
