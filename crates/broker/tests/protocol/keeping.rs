//! What is kept exactly: a producer's last batches, what a commit says, the size that a topic takes.

use bytes::{Bytes, BytesMut};
use cairn_broker::{
    Broker, Principal, TopicSpec,
    batch::{self, BatchBuilder},
};
use cairn_log::LogOptions;
use kafka_protocol::messages::{
    ApiKey, OffsetCommitRequest, OffsetFetchRequest, RequestKind, ResponseKind,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
};

use super::{TOPIC, admin, fetch, name, produce, produced, start, text};
use crate::support::{Served, Wire, eager, open_log, quick, until};

const OUT_OF_ORDER: i16 = 45;
const TOO_LARGE: i16 = 10;
const METADATA_TOO_LARGE: i16 = 12;
const INVALID_RECORD: i16 = 87;

fn batch_of(producer: i64, sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new().producer(producer, 0, sequence);
    for at in 0..2 {
        builder.push(1, Some(b"k"), Some(format!("{producer} {}", sequence + at).as_bytes()), &[]);
    }
    builder.build().unwrap().freeze()
}

/// What Produce answers to the n-th batch of a producer.
async fn send(wire: &mut Wire, producer: i64, nth: i32) -> (i16, i64) {
    let request = produce(TOPIC, uuid::Uuid::nil(), 9, -1, batch_of(producer, 2 * nth));
    produced(wire.ask(ApiKey::Produce, 9, &request).await)
}

/// The last five batches of each producer are known again by their sequence, and no others.
async fn know_again(served: &Served, sent: &[(i64, i32, i64)], last: i32) {
    let mut wire = Wire::connect(served).await;
    for (producer, nth, offset) in sent {
        let expected = if *nth + 5 >= last { (0, *offset) } else { (OUT_OF_ORDER, -1) };
        assert_eq!(send(&mut wire, *producer, *nth).await, expected, "batch {nth} of producer {producer}");
        assert_eq!(send(&mut wire, *producer, last + 1).await.0, OUT_OF_ORDER, "a gap");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_sent_again_gets_its_first_offset_also_after_restarts_for_the_last_five_of_each_producer() {
    for loses_local in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let log =
            || if loses_local { eager(folder.path()) } else { LogOptions::new(folder.path().into(), batch::stamp) };
        let served = Served::serve(open_log(log(), quick()).await).await;
        let configs = [("retention.ms".to_owned(), "-1".to_owned())].into();
        let spec = TopicSpec { name: TOPIC.into(), partitions: Some(1), configs };
        served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
        let mut wire = Wire::connect(&served).await;
        let mut sent = Vec::new();
        for nth in 0..7 {
            for producer in [3, 4, 5] {
                let (code, offset) = send(&mut wire, producer, nth).await;
                assert_eq!(code, 0);
                sent.push((producer, nth, offset));
            }
        }
        know_again(&served, &sent, 7).await;
        if loses_local {
            until(|| served.broker.log().stats().wal_depth_bytes == 0).await;
        }
        served.end().await;
        if loses_local {
            std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
        }
        let served = Served::serve(open_log(log(), quick()).await).await;
        know_again(&served, &sent, 7).await;
        let mut wire = Wire::connect(&served).await;
        assert_eq!(send(&mut wire, 4, 7).await, (0, 42), "nothing was stored twice");
        // A second restart, for which the first one's batches lie behind.
        served.end().await;
        let served = Served::serve(open_log(log(), quick()).await).await;
        know_again(&served, &sent.iter().copied().filter(|(producer, ..)| *producer != 4).collect::<Vec<_>>(), 7).await;
        let mut wire = Wire::connect(&served).await;
        assert_eq!(send(&mut wire, 4, 7).await, (0, 42));
        served.end().await;
    }
}

/// A batch of exactly so many bytes.
fn batch_with_bytes(bytes: usize) -> BytesMut {
    let build = |value: usize| {
        let mut builder = BatchBuilder::new();
        builder.push(1, Some(b"k"), Some(&vec![b'x'; value]), &[]);
        builder.build().unwrap()
    };
    let about = build(bytes - 80);
    let exact = build(bytes - 80 + (bytes - about.len()));
    assert_eq!(exact.len(), bytes);
    exact
}

/// The same batch, packed with zstd.
fn packed(plain: &[u8]) -> BytesMut {
    let mut out = BytesMut::from(&plain[..61]);
    out.extend_from_slice(&zstd::encode_all(&plain[61..], 1).unwrap());
    out[22] = 4;
    seal(out)
}

/// With the length and the checksum that belong to its bytes.
fn seal(mut batch: BytesMut) -> BytesMut {
    let length = batch.len() as i32 - 12;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

fn make(broker: &Broker, topic: &'static str, configs: &[(&str, &str)]) -> impl Future<Output = ()> {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let (broker, spec) = (broker.clone(), TopicSpec { name: topic.into(), partitions: Some(1), configs });
    async move { broker.create_topic(&Principal::Internal, spec).await.map(|_| ()).unwrap() }
}

#[tokio::test]
async fn a_topic_takes_batches_up_to_its_size_and_the_brokers_where_it_names_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.limits.message_bytes_max = 3_000;
    let served = Served::start(folder.path(), options).await;
    make(&served.broker, TOPIC, &[]).await;
    make(&served.broker, "small", &[("max.message.bytes", "1000")]).await;
    make(&served.broker, "large", &[("max.message.bytes", "70000")]).await;
    let mut wire = Wire::connect(&served).await;
    let mut put = async |topic: &str, records: BytesMut| {
        let request = produce(topic, uuid::Uuid::nil(), 9, -1, records.freeze());
        produced(wire.ask(ApiKey::Produce, 9, &request).await)
    };
    for (topic, most) in [(TOPIC, 3_000), ("small", 1_000), ("large", 70_000)] {
        assert_eq!(put(topic, batch_with_bytes(most)).await, (0, 0), "{topic}");
        assert_eq!(put(topic, batch_with_bytes(most + 1)).await, (TOO_LARGE, -1), "{topic}");
    }
    // What counts is what is stored: the batch as its producer packed it.
    assert_eq!(put("small", packed(&batch_with_bytes(20_000))).await, (0, 1));
    // A change counts at once, both ways.
    let mut admin = Wire::connect(&served).await;
    for (bytes, code) in [("400", TOO_LARGE), ("500", 0)] {
        let change = admin::alter("small", &[("max.message.bytes", 0, Some(bytes))], false);
        admin.ask(ApiKey::IncrementalAlterConfigs, 1, &change).await;
        assert_eq!(put("small", batch_with_bytes(500)).await.0, code);
    }
    // A reader whose share is smaller than the first batch gets on all the same.
    let RequestKind::Fetch(mut little) = fetch("large", uuid::Uuid::nil(), 12, 0, 0) else { panic!() };
    little.topics[0].partitions[0].partition_max_bytes = 10;
    let ResponseKind::Fetch(answer) = admin.ask(ApiKey::Fetch, 12, &RequestKind::Fetch(little)).await else { panic!() };
    assert_eq!(answer.responses[0].partitions[0].records.as_ref().unwrap().len(), 70_000);
    served.end().await;
}

#[tokio::test]
async fn counts_that_the_bytes_cannot_hold_are_refused_and_reserve_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    // One record of six bytes with a count of headers in five more: two billion of them.
    let record = [0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    let mut hostile = BytesMut::from(&super::batch(&["v"])[..61]);
    hostile.extend_from_slice(&[2 * record.len() as u8]);
    hostile.extend_from_slice(&record);
    let answer = wire.ask(ApiKey::Produce, 9, &produce(TOPIC, id, 9, -1, seal(hostile).freeze())).await;
    let ResponseKind::Produce(answer) = answer else { panic!() };
    let partition = &answer.responses[0].partition_responses[0];
    assert_eq!(partition.error_code, INVALID_RECORD);
    let why = partition.error_message.as_ref().unwrap();
    assert!(why.contains("header count is more than the bytes can hold"), "{why:?}");
    served.end().await;
}

/// Offset, leader epoch and metadata as a version tells them.
async fn committed(wire: &mut Wire, version: i16) -> (i64, i32, String) {
    let request = OffsetFetchRequest::default();
    let request = if version >= 8 {
        let topic = OffsetFetchRequestTopics::default().with_name(name(TOPIC)).with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default().with_group_id(text("keeper").into());
        request.with_groups(vec![group.with_topics(Some(vec![topic]))])
    } else {
        let topic = OffsetFetchRequestTopic::default().with_name(name(TOPIC)).with_partition_indexes(vec![0]);
        request.with_group_id(text("keeper").into()).with_topics(Some(vec![topic]))
    };
    let answer = wire.ask(ApiKey::OffsetFetch, version, &RequestKind::OffsetFetch(request)).await;
    let ResponseKind::OffsetFetch(answer) = answer else { panic!() };
    if version >= 8 {
        let one = &answer.groups[0].topics[0].partitions[0];
        return (one.committed_offset, one.committed_leader_epoch, one.metadata.clone().unwrap().to_string());
    }
    let one = &answer.topics[0].partitions[0];
    (one.committed_offset, one.committed_leader_epoch, one.metadata.clone().unwrap().to_string())
}

#[tokio::test]
async fn what_a_commit_says_is_given_back_in_every_version_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let commit = async |wire: &mut Wire, version: i16, offset, metadata: Option<&str>| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let partition = partition.with_committed_metadata(metadata.map(text));
        let partition = if version >= 6 { partition.with_committed_leader_epoch(1) } else { partition };
        let topic = OffsetCommitRequestTopic::default().with_name(name(TOPIC)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default().with_group_id(text("keeper").into()).with_topics(vec![topic]);
        let request = RequestKind::OffsetCommit(request.with_generation_id_or_member_epoch(-1));
        let ResponseKind::OffsetCommit(answer) = wire.ask(ApiKey::OffsetCommit, version, &request).await else {
            panic!()
        };
        answer.topics[0].partitions[0].error_code
    };
    for version in 2..=9 {
        let note = format!("where I was {version} \u{1f4cd} {}", "n".repeat(4_000));
        assert_eq!(commit(&mut wire, version, version.into(), Some(&note)).await, 0);
        for asks in 1..=9 {
            let epoch = if asks >= 5 && version >= 6 { 1 } else { -1 };
            assert_eq!(
                committed(&mut wire, asks).await,
                (version.into(), epoch, note.clone()),
                "{version}, asked {asks}"
            );
        }
        let too_long = "n".repeat(4_097);
        assert_eq!(commit(&mut wire, version, 99, Some(&too_long)).await, METADATA_TOO_LARGE);
    }
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    let mut wire = Wire::connect(&served).await;
    let (offset, epoch, note) = committed(&mut wire, 9).await;
    assert_eq!((offset, epoch, note.len()), (9, 1, 4_000 + "where I was 9 \u{1f4cd} ".len()));
    assert_eq!(commit(&mut wire, 9, 10, None).await, 0);
    assert_eq!(committed(&mut wire, 9).await, (10, 1, String::new()), "no metadata is empty metadata");
    served.end().await;
}
