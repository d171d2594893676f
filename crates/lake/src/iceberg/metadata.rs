//! The metadata of a table: its columns, its snapshots, and what Cairn needs of its own, in the table's properties.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::manifest::PARTITION_FIELD;
use crate::{
    columns::Kind,
    events::{FIELDS, TOPIC},
};

/// Snapshots that are kept, so that whoever reads one goes on reading it.
pub const SNAPSHOTS_KEPT: usize = 50;
/// The property that holds where the table stands in each partition.
pub const POSITIONS: &str = "cairn.positions";
/// The property that holds the epoch of whoever wrote last.
pub const EPOCH: &str = "cairn.epoch";

/// What happened between two snapshots, as Iceberg names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Files were added.
    Append,
    /// Files were replaced by others with other rows.
    Overwrite,
    /// Files were removed.
    Delete,
    /// Files were replaced by others with the same rows.
    Replace,
}

impl Operation {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Overwrite => "overwrite",
            Self::Delete => "delete",
            Self::Replace => "replace",
        }
    }
}

/// One state of the table.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Snapshot {
    /// Its id.
    pub snapshot_id: i64,
    /// The one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_snapshot_id: Option<i64>,
    /// Its number, from 1.
    pub sequence_number: i64,
    /// When, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Where its manifest list lies.
    pub manifest_list: String,
    /// What came with it.
    pub summary: BTreeMap<String, String>,
    /// The columns that it was written with.
    pub schema_id: i32,
}

/// Where the table stands in a partition of a topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Stand {
    /// The topic.
    pub topic: String,
    /// Its id; empty where the cluster has none.
    pub topic_id: String,
    /// The partition.
    pub partition: u32,
    /// What comes next.
    pub next: u64,
}

/// The metadata of a table.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Metadata {
    format_version: i32,
    table_uuid: String,
    /// Where the table lies, as a URI.
    pub location: String,
    /// The newest snapshot's number.
    pub last_sequence_number: i64,
    last_updated_ms: i64,
    last_column_id: i32,
    current_schema_id: i32,
    schemas: Vec<Value>,
    default_spec_id: i32,
    partition_specs: Vec<Value>,
    last_partition_id: i32,
    default_sort_order_id: i32,
    sort_orders: Vec<Value>,
    /// What engines and Cairn want to know.
    pub properties: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    current_snapshot_id: Option<i64>,
    /// The newest snapshots.
    #[serde(default)]
    pub snapshots: Vec<Snapshot>,
    #[serde(default)]
    snapshot_log: Vec<Value>,
    #[serde(default)]
    metadata_log: Vec<Value>,
    #[serde(default)]
    refs: BTreeMap<String, Value>,
}

/// The partition spec's fields.
#[must_use]
pub fn partition_fields() -> Value {
    json!([{ "name": "topic", "transform": "identity", "source-id": TOPIC, "field-id": PARTITION_FIELD }])
}

/// The table's columns.
#[must_use]
pub fn schema() -> Value {
    let field = |field: &crate::columns::Field| {
        let kind = match field.kind {
            Kind::Text | Kind::LongText => "string",
            Kind::Long => "long",
            Kind::Int => "int",
            Kind::Time => "timestamptz",
            Kind::Flag => "boolean",
        };
        let mut told = json!({ "id": field.id, "name": field.name, "required": field.required, "type": kind });
        if !field.doc.is_empty() {
            told["doc"] = json!(field.doc);
        }
        told
    };
    json!({ "type": "struct", "schema-id": 0, "fields": FIELDS.iter().map(field).collect::<Vec<_>>() })
}

impl Metadata {
    /// A table without rows.
    #[must_use]
    pub fn new(table_uuid: String, location: String, now_ms: i64) -> Self {
        let properties = [("write.format.default", "parquet"), ("cairn.layout", "1"), (POSITIONS, "[]")];
        Self {
            format_version: 2,
            table_uuid,
            location,
            last_sequence_number: 0,
            last_updated_ms: now_ms,
            last_column_id: FIELDS.iter().map(|field| field.id).max().unwrap_or_default(),
            current_schema_id: 0,
            schemas: vec![schema()],
            default_spec_id: 0,
            partition_specs: vec![json!({ "spec-id": 0, "fields": partition_fields() })],
            last_partition_id: PARTITION_FIELD,
            default_sort_order_id: 0,
            sort_orders: vec![json!({ "order-id": 0, "fields": [] })],
            properties: properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            current_snapshot_id: None,
            snapshots: Vec::new(),
            snapshot_log: Vec::new(),
            metadata_log: Vec::new(),
            refs: BTreeMap::new(),
        }
    }

    /// Whether its columns are those that this program writes.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.format_version == 2 && self.schemas.last().is_some_and(|known| known["fields"] == schema()["fields"])
    }

    /// The newest snapshot.
    #[must_use]
    pub fn current(&self) -> Option<&Snapshot> {
        self.snapshots.iter().find(|snapshot| Some(snapshot.snapshot_id) == self.current_snapshot_id)
    }

    /// Where the table stands.
    #[must_use]
    pub fn stands(&self) -> Vec<Stand> {
        let told = self.properties.get(POSITIONS).map(String::as_str).unwrap_or("[]");
        serde_json::from_str(told).unwrap_or_default()
    }

    /// The same table with one more snapshot, that stands there; what it forgets of the oldest.
    #[must_use]
    pub fn with(mut self, snapshot: Snapshot, stands: &[Stand], epoch: u64) -> Self {
        self.last_sequence_number = snapshot.sequence_number;
        self.last_updated_ms = snapshot.timestamp_ms;
        self.current_snapshot_id = Some(snapshot.snapshot_id);
        let told = json!({ "timestamp-ms": snapshot.timestamp_ms, "snapshot-id": snapshot.snapshot_id });
        self.refs.insert("main".to_owned(), json!({ "snapshot-id": snapshot.snapshot_id, "type": "branch" }));
        self.snapshots.push(snapshot);
        self.snapshot_log.push(told);
        let surplus = self.snapshots.len().saturating_sub(SNAPSHOTS_KEPT);
        self.snapshots.drain(..surplus);
        // The log begins with the oldest that is known.
        let surplus = self.snapshot_log.len().saturating_sub(SNAPSHOTS_KEPT);
        self.snapshot_log.drain(..surplus);
        self.properties.insert(POSITIONS.to_owned(), json!(stands).to_string());
        self.properties.insert(EPOCH.to_owned(), epoch.to_string());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(number: i64) -> Snapshot {
        Snapshot {
            snapshot_id: 1_000 + number,
            parent_snapshot_id: (number > 1).then_some(999 + number),
            sequence_number: number,
            timestamp_ms: number,
            manifest_list: format!("file:///t/{number}"),
            summary: BTreeMap::from([("operation".to_owned(), "append".to_owned())]),
            schema_id: 0,
        }
    }

    #[test]
    fn a_table_says_where_it_stands_and_forgets_its_oldest_snapshots() {
        let mut table = Metadata::new("u".to_owned(), "file:///t".to_owned(), 1);
        assert!(table.is_ours() && table.current().is_none() && table.stands().is_empty());
        let stand = Stand { topic: "mcp.calls".to_owned(), topic_id: "t".to_owned(), partition: 3, next: 9 };
        for number in 1..=60 {
            table = table.with(snapshot(number), std::slice::from_ref(&stand), 7);
        }
        assert_eq!((table.snapshots.len(), table.snapshots[0].sequence_number), (SNAPSHOTS_KEPT, 11));
        assert_eq!(table.stands(), [stand]);
        let text = serde_json::to_string(&table).expect("JSON");
        let read: Metadata = serde_json::from_str(&text).expect("metadata");
        assert_eq!((read.current().expect("a snapshot").sequence_number, &read), (60, &table));
        assert!(text.contains("\"current-snapshot-id\":1060") && text.contains("\"format-version\":2"));
    }
}
