//! What every backbone must do, as one suite.
//!
//! Each implementation's tests call [`run`] on a fresh, empty backbone. It panics at the first rule that is broken.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_contract::{EventRecord, Topic, topics};

use crate::{Backbone, ReadError, Slice};

/// Puts a backbone through all of it.
///
/// # Panics
/// At the first rule that is broken, with its name.
pub async fn run(backbone: Arc<dyn Backbone>) {
    topics_are_made_once(backbone.as_ref()).await;
    what_is_appended_is_read_back_byte_for_byte(backbone.as_ref()).await;
    a_read_goes_on_where_it_stopped(backbone.as_ref()).await;
    appends_do_not_mingle(&backbone).await;
    a_partition_that_is_not_is_an_error(backbone.as_ref()).await;
}

fn record(topic: Topic, key: &str, value: String) -> EventRecord {
    let headers = vec![
        ("ce_type".to_owned(), Bytes::from_static(b"io.cairn.test")),
        ("__value_schema_id".to_owned(), Bytes::from_static(&[1, 0, 255, 7])),
        ("empty".to_owned(), Bytes::new()),
    ];
    EventRecord {
        topic,
        key: Bytes::from(key.to_owned()),
        headers,
        value: Bytes::from(value),
        timestamp_ms: 1_795_521_600_123,
    }
}

/// Reads a partition from an offset until `count` records are there.
///
/// # Panics
/// Where they do not come within half a minute.
pub async fn read_until(
    backbone: &dyn Backbone,
    topic: Topic,
    partition: u32,
    from: u64,
    count: usize,
) -> Vec<(u64, EventRecord)> {
    let mut records = Vec::new();
    let mut at = from;
    for _ in 0..600 {
        let Slice { records: more, next, .. } =
            backbone.read(topic, partition, at, 1 << 20).await.expect("a partition that exists can be read");
        records.extend(more);
        at = next;
        if records.len() >= count {
            return records;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} of {count} records came", records.len());
}

async fn topics_are_made_once(backbone: &dyn Backbone) {
    backbone.ensure_topics(&topics()).await.expect("topics are made");
    backbone.ensure_topics(&topics()).await.expect("topics are checked");
    for spec in topics() {
        assert_eq!(
            backbone.partitions(spec.topic).await.expect("a topic that exists"),
            spec.partitions,
            "{}",
            spec.name
        );
    }
    let mut wrong = topics();
    wrong[0].partitions += 1;
    backbone.ensure_topics(&wrong).await.expect_err("another number of partitions is refused");
}

async fn what_is_appended_is_read_back_byte_for_byte(backbone: &dyn Backbone) {
    let from = backbone.bounds(Topic::Calls, 0).await.expect("bounds").end;
    let written: Vec<_> = (0..10).map(|n| record(Topic::Calls, "a workflow", format!("{{\"n\":{n}}}"))).collect();
    let appended = backbone.append(Topic::Calls, 0, written.clone()).await.expect("appended");
    assert!(appended.floor >= from, "the floor lies in what was there before");
    let read = read_until(backbone, Topic::Calls, 0, from, written.len()).await;
    assert_eq!(
        read.iter().map(|(_, record)| record.clone()).collect::<Vec<_>>(),
        written,
        "bytes, headers, order, time"
    );
    if let Some(offset) = appended.offset {
        assert_eq!(read[0].0, offset, "the offset that was acknowledged is the record's");
    }
    assert!(read.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets rise");
    let other = backbone.bounds(Topic::Calls, 1).await.expect("bounds");
    assert_eq!(other.start, other.end, "another partition is untouched");
}

async fn a_read_goes_on_where_it_stopped(backbone: &dyn Backbone) {
    let from = backbone.bounds(Topic::Context, 3).await.expect("bounds").end;
    for n in 0..20 {
        let value = format!("{{\"n\":{n},\"filler\":\"{}\"}}", "x".repeat(1000));
        backbone.append(Topic::Context, 3, vec![record(Topic::Context, "k", value)]).await.expect("appended");
    }
    read_until(backbone, Topic::Context, 3, from, 20).await;
    let (mut at, mut records, mut reads) = (from, 0, 0);
    while records < 20 {
        let slice = backbone.read(Topic::Context, 3, at, 4000).await.expect("read");
        assert!(!slice.records.is_empty(), "a read gives at least one record where there is one");
        assert!(slice.records.iter().all(|(offset, _)| *offset >= at), "no record before `from`");
        records += slice.records.len();
        at = slice.next;
        reads += 1;
    }
    assert_eq!(records, 20, "each record once");
    assert!(reads > 1, "a read stops near its bound");
    let tail = backbone.read(Topic::Context, 3, at, 4000).await.expect("read at the end");
    assert!(tail.records.is_empty() && tail.next == at, "at the end there is nothing, and no wait");
}

async fn appends_do_not_mingle(backbone: &Arc<dyn Backbone>) {
    let from = backbone.bounds(Topic::Sessions, 2).await.expect("bounds").end;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let backbone = backbone.clone();
        tasks.spawn(async move {
            for append in 0..5 {
                let value = |n| format!("{{\"writer\":{writer},\"append\":{append},\"n\":{n}}}");
                let records = (0..3).map(|n| record(Topic::Sessions, "k", value(n))).collect();
                backbone.append(Topic::Sessions, 2, records).await.expect("appended");
            }
        });
    }
    tasks.join_all().await;
    let read = read_until(backbone.as_ref(), Topic::Sessions, 2, from, 120).await;
    assert_eq!(read.len(), 120, "each record once");
    let mut next = [0; 8];
    for append in read.chunks(3) {
        let rows: Vec<serde_json::Value> =
            append.iter().map(|(_, record)| serde_json::from_slice(&record.value).expect("JSON")).collect();
        let writer = rows[0]["writer"].as_u64().expect("a number") as usize;
        for (n, row) in rows.iter().enumerate() {
            assert_eq!(
                (row["writer"].as_u64(), row["n"].as_u64()),
                (Some(writer as u64), Some(n as u64)),
                "one append"
            );
            assert_eq!(row["append"].as_u64(), Some(next[writer]), "a writer's order");
        }
        next[writer] += 1;
    }
}

async fn a_partition_that_is_not_is_an_error(backbone: &dyn Backbone) {
    let error = backbone.read(Topic::Policies, 9, 0, 1000).await.expect_err("partition 9 of 1");
    assert!(matches!(error, ReadError::Unknown { .. } | ReadError::Failed { .. }));
    let record = record(Topic::Policies, "k", "{}".to_owned());
    backbone.append(Topic::Policies, 9, vec![record]).await.expect_err("partition 9 of 1");
}
