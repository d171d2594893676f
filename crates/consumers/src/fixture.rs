//! Records and batches for the tests of this crate.

use bytes::Bytes;
use cairn_backbone::records::RawRecord;
use cairn_clock::Timestamp;
use serde_json::{Value, json};

use crate::Batch;

/// 2026-11-24.
pub(crate) const NOW_US: u64 = 1_795_521_600_000_000;
pub(crate) const DAY_US: u64 = 86_400_000_000;

/// The record of an event in partition 0 of a topic.
pub(crate) fn record(topic: &str, (id, offset): (u128, u64), type_name: &str, data: &Value, time_us: u64) -> RawRecord {
    let mut data = data.clone();
    data["contract"] = json!({ "name": type_name, "version": 1 });
    let headers = [
        ("ce_id", uuid::Uuid::from_u128(id).to_string()),
        ("ce_type", format!("io.cairn.{type_name}")),
        ("ce_source", "cairn://gateway/gw-1".to_owned()),
        ("ce_time", Timestamp::from_micros(time_us).to_string()),
    ];
    RawRecord {
        topic: topic.to_owned(),
        partition: 0,
        offset,
        timestamp_ms: 0,
        key: None,
        headers: headers.map(|(name, value)| (name.to_owned(), Bytes::from(value))).to_vec(),
        value: Some(Bytes::from(data.to_string())),
    }
}

/// A batch that begins where it says.
pub(crate) fn batch(from: Option<u64>, records: impl IntoIterator<Item = RawRecord>) -> Batch {
    let mut batch = Batch::default();
    records.into_iter().for_each(|record| batch.push(record, || ("topic-1".to_owned(), from)));
    batch
}
