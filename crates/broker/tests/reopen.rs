//! What a broker still knows after it was closed and opened again.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{collections::BTreeMap, time::Duration};

use bytes::{Bytes, BytesMut};
use cairn_broker::{
    Broker, Principal, ProduceError, TopicError, TopicSpec,
    batch::{self, BatchBuilder},
};
use cairn_log::{AppendError, Offset, PartitionIndex};
use support::{bytes_below, eager, everything, open, open_log, quick, until};

const ZERO: PartitionIndex = PartitionIndex::new(0);

fn batch_of(producer: Option<(i64, i16, i32)>, values: &[&str]) -> BytesMut {
    let mut builder = BatchBuilder::new();
    if let Some((id, epoch, sequence)) = producer {
        builder = builder.producer(id, epoch, sequence);
    }
    for value in values {
        builder.push(1, Some(b"k"), Some(value.as_bytes()), &[]);
    }
    builder.build().unwrap()
}

fn spec(name: &str, configs: &[(&str, &str)]) -> TopicSpec {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    TopicSpec { name: name.into(), partitions: Some(2), configs }
}

#[tokio::test]
async fn a_batch_sent_again_after_a_restart_gets_its_first_offset_and_is_not_stored_twice() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path(), quick()).await;
    broker.create_topic(&Principal::Anonymous, spec("t", &[])).await.unwrap();
    let put = |broker: &cairn_broker::Broker, sequence, values: &'static [&'static str]| {
        let broker = broker.clone();
        async move { broker.produce(&Principal::Anonymous, "t", ZERO, batch_of(Some((77, 0, sequence)), values)).await }
    };
    assert_eq!(put(&broker, 0, &["a", "b"]).await.unwrap().get(), 0);
    assert_eq!(put(&broker, 2, &["c"]).await.unwrap().get(), 2);
    broker.close().await;
    let broker = open(folder.path(), quick()).await;
    assert_eq!(put(&broker, 0, &["a", "b"]).await.unwrap().get(), 0);
    assert_eq!(put(&broker, 2, &["c"]).await.unwrap().get(), 2);
    let gap = put(&broker, 9, &["x"]).await.unwrap_err();
    assert!(matches!(gap, ProduceError::Append(AppendError::OutOfOrderSequence { .. })), "{gap:?}");
    assert_eq!(put(&broker, 3, &["d"]).await.unwrap().get(), 3);
    let all = everything(&broker, "t", 0, 4).await;
    let records: Vec<_> = all.iter().flat_map(|bytes| batch::decode(bytes, 1 << 20).unwrap()).collect();
    let offsets: Vec<_> = records.iter().map(|record| record.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3]);
    let end = broker.fetch("t", ZERO, Offset::new(4), 1 << 20, Duration::ZERO).await.unwrap();
    assert_eq!((end.batches.len(), end.high_watermark.get()), (0, 4));
    broker.close().await;
}

#[tokio::test]
async fn topics_ids_and_configs_survive_and_a_topic_made_again_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path(), quick()).await;
    let kept = broker.create_topic(&Principal::Anonymous, spec("kept", &[("retention.ms", "5000")])).await.unwrap();
    let first = broker.create_topic(&Principal::Anonymous, spec("again", &[])).await.unwrap();
    broker.produce(&Principal::Anonymous, "again", ZERO, batch_of(None, &["old"])).await.unwrap();
    broker.delete_topic(&Principal::Anonymous, "again").await.unwrap();
    let second = broker.create_topic(&Principal::Anonymous, spec("again", &[])).await.unwrap();
    assert_ne!(first.id, second.id);
    broker.delete_topic(&Principal::Anonymous, "again").await.unwrap();
    broker.close().await;
    let broker = open(folder.path(), quick()).await;
    assert_eq!(broker.topic("kept"), Some(kept));
    assert_eq!(broker.topic("again"), None);
    broker.create_topic(&Principal::Anonymous, spec("again", &[])).await.unwrap();
    let all = broker.fetch("again", ZERO, Offset::new(0), 1 << 20, Duration::ZERO).await.unwrap();
    assert_eq!((all.batches.len(), all.high_watermark.get()), (0, 0));
    broker.close().await;
}

#[tokio::test]
async fn what_a_topic_asks_for_is_enforced() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path(), quick()).await;
    let who = Principal::Anonymous;
    broker.create_topic(&who, spec("small", &[("max.message.bytes", "100")])).await.unwrap();
    broker.create_topic(&who, spec("keyed", &[("cleanup.policy", "compact")])).await.unwrap();
    broker.create_topic(&who, spec("timed", &[("message.timestamp.type", "LogAppendTime")])).await.unwrap();
    let long = "x".repeat(200);
    let refused = broker.produce(&who, "small", ZERO, batch_of(None, &[&long])).await.unwrap_err();
    assert!(matches!(refused, ProduceError::TooLarge { most: 100, .. }));
    let mut keyless = BatchBuilder::new();
    keyless.push(1, None, Some(b"v"), &[]);
    let refused = broker.produce(&who, "keyed", ZERO, keyless.build().unwrap()).await.unwrap_err();
    assert!(matches!(refused, ProduceError::Batch(batch::BatchError::Keyless { .. })));
    broker.produce(&who, "timed", ZERO, batch_of(None, &["v"])).await.unwrap();
    let all = broker.fetch("timed", ZERO, Offset::new(0), 1 << 20, Duration::ZERO).await.unwrap();
    assert!(batch::decode(&all.batches[0], 1 << 20).unwrap()[0].timestamp > 1_000_000);
    let refused = broker.produce(&who, "__consumer_offsets", ZERO, batch_of(None, &["v"])).await.unwrap_err();
    assert!(matches!(refused, ProduceError::Denied { .. }));
    let refused = broker.create_topic(&who, spec("mcp.mine", &[])).await.unwrap_err();
    assert!(matches!(refused, TopicError::Denied { .. }));
    broker.close().await;
}

/// A record of `__consumer_offsets` as Kafka writes it: group `g`, topic `t`, partition 0.
fn commit(batch: &mut BatchBuilder, offset: i64) {
    let key = b"\0\x01\0\x01g\0\x01t\0\0\0\0";
    let mut value = b"\0\x03".to_vec();
    value.extend_from_slice(&offset.to_be_bytes());
    value.extend_from_slice(&(-1_i32).to_be_bytes());
    value.extend_from_slice(b"\0\0");
    value.extend_from_slice(&1_i64.to_be_bytes());
    batch.push(1, Some(key), Some(&value), &[]);
}

/// Records that are there, by offset.
async fn records_of(broker: &Broker, topic: &str) -> BTreeMap<u64, Bytes> {
    let (mut at, mut found) = (Offset::new(0), BTreeMap::new());
    loop {
        let fetched = broker.fetch(topic, ZERO, at, 1 << 20, Duration::ZERO).await.unwrap();
        let Some(last) = fetched.batches.last() else { return found };
        let header = batch::BatchHeader::parse(last).unwrap();
        at = Offset::new((header.base_offset + i64::from(header.last_offset_delta) + 1) as u64);
        let records = fetched.batches.iter().flat_map(|bytes| batch::decode(bytes, 1 << 20).unwrap());
        found.extend(records.map(|record| (record.offset, record.value.unwrap_or_default())));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_commits_are_compacted_and_the_last_of_each_partition_stays_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.offsets_partitions = 1;
    let broker = open_log(eager(folder.path()), options.clone()).await;
    broker.create_topic(&Principal::Anonymous, spec("t", &[])).await.unwrap();
    for round in 0..40 {
        let mut batch = BatchBuilder::new();
        (0..50).for_each(|at| commit(&mut batch, round * 50 + at));
        broker.produce(&Principal::Internal, "__consumer_offsets", ZERO, batch.build().unwrap()).await.unwrap();
    }
    let mut left = records_of(&broker, "__consumer_offsets").await;
    for _ in 0..600 {
        if left.len() == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        left = records_of(&broker, "__consumer_offsets").await;
    }
    assert_eq!(left.keys().copied().collect::<Vec<_>>(), [1_999]);
    assert_eq!(left[&1_999][2..10], 1_999_i64.to_be_bytes());
    broker.close().await;
    let broker = open_log(eager(folder.path()), options).await;
    assert_eq!(records_of(&broker, "__consumer_offsets").await, left);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_uploaded_is_served_byte_for_byte_after_the_local_log_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_log(eager(folder.path()), quick()).await;
    let who = Principal::Anonymous;
    let made = broker.create_topic(&who, spec("t", &[("retention.ms", "-1")])).await.unwrap();
    for n in 0..400_i32 {
        let value = format!("{n} {}", "x".repeat(n as usize * 3));
        let partition = PartitionIndex::new(n as u32 % 2);
        let bytes = batch_of(Some((5, 0, n / 2 * 2)), &[&value, "second"]);
        broker.produce(&who, "t", partition, bytes).await.unwrap();
    }
    let before = (everything(&broker, "t", 0, 400).await, everything(&broker, "t", 1, 400).await);
    until(|| broker.log().stats().wal_depth_bytes == 0).await;
    broker.close().await;
    std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
    let broker = open_log(eager(folder.path()), quick()).await;
    assert_eq!(broker.topic("t"), Some(made));
    let after = (everything(&broker, "t", 0, 400).await, everything(&broker, "t", 1, 400).await);
    assert_eq!(after, before);
    assert!(broker.log().stats().object_reads > 400);
    let again = broker.produce(&who, "t", ZERO, batch_of(Some((5, 0, 398)), &["a", "b"])).await.unwrap();
    assert_eq!(again.get(), 398, "a batch sent again is known by its producer's sequence");
    assert_eq!(broker.produce(&who, "t", ZERO, batch_of(Some((5, 0, 400)), &["c"])).await.unwrap().get(), 400);
    broker.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn time_retention_gives_disk_space_back() {
    let folder = tempfile::tempdir().unwrap();
    let broker = open_log(eager(folder.path()), quick()).await;
    let who = Principal::Anonymous;
    broker.create_topic(&who, spec("old", &[("retention.ms", "-1")])).await.unwrap();
    let bulk = "x".repeat(10_000);
    for _ in 0..100 {
        broker.produce(&who, "old", ZERO, batch_of(None, &[&bulk])).await.unwrap();
    }
    until(|| broker.log().stats().wal_depth_bytes == 0).await;
    let objects = folder.path().join("objects/data");
    assert!(bytes_below(&objects) > 1_000_000);
    let stream = cairn_log::StreamId::new(broker.topic("old").unwrap().id, ZERO);
    // The records are of 1970: all of them are too old now.
    let limits = cairn_log::Retention { ms: Some(60_000), bytes: None };
    broker.log().set_retention(stream, limits).await.unwrap();
    until(|| broker.log().bounds(stream).unwrap().log_start.get() == 100).await;
    until(|| bytes_below(&objects) < 50_000).await;
    let wal = bytes_below(&folder.path().join("wal"));
    assert!(wal <= 5 << 17, "{wal} bytes of write-ahead files after 1 MB came and went");
    assert_eq!(broker.produce(&who, "old", ZERO, batch_of(None, &["next"])).await.unwrap().get(), 100);
    broker.close().await;
}
