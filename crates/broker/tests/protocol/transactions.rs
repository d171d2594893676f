//! Transactions over the wire, both versions: what is aborted is seen by nobody who reads what is committed, whatever is lost between;
//! whoever is fenced gets nowhere; an end that is asked for again gets the same answer; no crash leaves one half ended.

use std::{
    collections::BTreeSet,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use cairn_broker::{BrokerOptions, batch::BatchHeader};
use cairn_log::{Append, InTransaction, LogOptions, ProducerEpoch, ProducerId, ProducerMark, Sequence, StreamId};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeProducersRequest, DescribeTransactionsRequest,
    EndTxnRequest, ListTransactionsRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
    add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction},
    describe_producers_request::TopicRequest,
    describe_transactions_response::TransactionState,
    txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic},
    write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic},
};

use super::{support::*, *};

pub(super) const ID: &str = "tx";
const GROUP: &str = "alone";
/// Versions of Produce, EndTxn and TxnOffsetCommit of a client before KIP-890, and of one after.
const OLD: (i16, i16, i16) = (10, 4, 3);
const NEW: (i16, i16, i16) = (12, 5, 5);

// ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────

fn adding(version: i16, producer: (i64, i16), topic: &str, partitions: Vec<i32>, verify: bool) -> RequestKind {
    let topic = AddPartitionsToTxnTopic::default().with_name(name(topic)).with_partitions(partitions);
    let request = AddPartitionsToTxnRequest::default();
    RequestKind::AddPartitionsToTxn(if version < 4 {
        let request = request.with_v3_and_below_transactional_id(text(ID).into()).with_v3_and_below_topics(vec![topic]);
        request.with_v3_and_below_producer_id(producer.0.into()).with_v3_and_below_producer_epoch(producer.1)
    } else {
        let one = AddPartitionsToTxnTransaction::default().with_transactional_id(text(ID).into());
        let one = one.with_producer_id(producer.0.into()).with_producer_epoch(producer.1).with_verify_only(verify);
        request.with_transactions(vec![one.with_topics(vec![topic])])
    })
}

fn ending(producer: (i64, i16), commits: bool) -> RequestKind {
    let request = EndTxnRequest::default().with_transactional_id(text(ID).into()).with_committed(commits);
    RequestKind::EndTxn(request.with_producer_id(producer.0.into()).with_producer_epoch(producer.1))
}

/// How TxnOffsetCommit of a version names the topic: the newest by its id.
fn topic_of(version: i16, id: Uuid) -> String {
    if version >= 6 { id.to_string() } else { TOPIC.to_owned() }
}

fn committing(producer: (i64, i16), offset: i64, topic: &str) -> RequestKind {
    let partition = TxnOffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic = TxnOffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    let request = TxnOffsetCommitRequest::default().with_transactional_id(text(ID).into());
    let request = request.with_group_id(text(GROUP).into()).with_topics(vec![topic]);
    RequestKind::TxnOffsetCommit(request.with_producer_id(producer.0.into()).with_producer_epoch(producer.1))
}

fn adding_offsets(producer: (i64, i16)) -> RequestKind {
    let request = AddOffsetsToTxnRequest::default().with_transactional_id(text(ID).into());
    let request = request.with_producer_id(producer.0.into()).with_producer_epoch(producer.1);
    RequestKind::AddOffsetsToTxn(request.with_group_id(text(GROUP).into()))
}

fn marking(topic: &str, producer: (i64, i16), commits: bool) -> RequestKind {
    let topic = WritableTxnMarkerTopic::default().with_name(name(topic)).with_partition_indexes(vec![0]);
    let marker = WritableTxnMarker::default().with_producer_id(producer.0.into()).with_producer_epoch(producer.1);
    let marker = marker.with_transaction_result(commits).with_topics(vec![topic]);
    RequestKind::WriteTxnMarkers(WriteTxnMarkersRequest::default().with_markers(vec![marker]))
}

fn listing(states: &[&str], pattern: Option<&str>) -> RequestKind {
    let request = ListTransactionsRequest::default().with_transactional_id_pattern(pattern.map(text));
    RequestKind::ListTransactions(request.with_state_filters(states.iter().map(|state| text(state)).collect()))
}

fn describing_producers() -> RequestKind {
    let topic = TopicRequest::default().with_name(name(TOPIC)).with_partition_indexes(vec![0]);
    RequestKind::DescribeProducers(DescribeProducersRequest::default().with_topics(vec![topic]))
}

/// One of each for the test that asks for every version.
pub(super) fn sample(key: ApiKey, version: i16, id: Uuid) -> RequestKind {
    match key {
        ApiKey::AddPartitionsToTxn => adding(version, (1, 0), TOPIC, vec![0], version >= 4),
        ApiKey::AddOffsetsToTxn => adding_offsets((1, 0)),
        ApiKey::EndTxn => ending((1, 0), true),
        ApiKey::TxnOffsetCommit => committing((1, 0), 3, &topic_of(version, id)),
        ApiKey::WriteTxnMarkers => marking(TOPIC, (1, 0), false),
        ApiKey::DescribeProducers => describing_producers(),
        ApiKey::DescribeTransactions => {
            let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![text(ID).into()]);
            RequestKind::DescribeTransactions(request)
        }
        _ => listing(&[], (version >= 2).then_some("t.*")),
    }
}

async fn begin_as(wire: &mut Wire, version: i16, id: &str, named: (i64, i16), timeout_ms: i32) -> (i16, (i64, i16)) {
    let request = InitProducerIdRequest::default().with_transactional_id(Some(text(id).into()));
    let request = request.with_transaction_timeout_ms(timeout_ms);
    let request = request.with_producer_id(named.0.into()).with_producer_epoch(named.1);
    let answer = wire.ask(ApiKey::InitProducerId, version, &RequestKind::InitProducerId(request)).await;
    let ResponseKind::InitProducerId(answer) = answer else { panic!() };
    (answer.error_code, (answer.producer_id.0, answer.producer_epoch))
}

pub(super) async fn begin(wire: &mut Wire) -> (i64, i16) {
    let (code, producer) = begin_as(wire, 4, ID, (-1, -1), 60_000).await;
    assert_eq!(code, 0);
    producer
}

async fn add(wire: &mut Wire, version: i16, producer: (i64, i16), topic: &str, partitions: &[i32]) -> Vec<i16> {
    let request = adding(version, producer, topic, partitions.to_vec(), version >= 4);
    let ResponseKind::AddPartitionsToTxn(answer) = wire.ask(ApiKey::AddPartitionsToTxn, version, &request).await else {
        panic!()
    };
    let by_transaction = answer.results_by_transaction.into_iter().flat_map(|one| one.topic_results);
    let topics = answer.results_by_topic_v3_and_below.into_iter().chain(by_transaction);
    topics.flat_map(|topic| topic.results_by_partition).map(|one| one.partition_error_code).collect()
}

pub(super) async fn end(wire: &mut Wire, version: i16, producer: (i64, i16), commits: bool) -> (i16, (i64, i16)) {
    let ResponseKind::EndTxn(answer) = wire.ask(ApiKey::EndTxn, version, &ending(producer, commits)).await else {
        panic!()
    };
    let told = (answer.producer_id.0, answer.producer_epoch);
    (answer.error_code, if version >= 5 { told } else { producer })
}

async fn put_as(
    wire: &mut Wire,
    version: i16,
    id: Option<&str>,
    producer: (i64, i16),
    sequence: i32,
    at: (i32, &str),
) -> (i16, i64) {
    let mut builder = BatchBuilder::new().producer(producer.0, producer.1, sequence).transactional();
    builder.push(1_000, Some(b"k"), Some(at.1.as_bytes()), &[]);
    let records = builder.build().unwrap().freeze();
    let RequestKind::Produce(mut request) = produce(TOPIC, Uuid::nil(), version.min(12), -1, records) else { panic!() };
    request.topic_data[0].partition_data[0].index = at.0;
    let request = request.with_transactional_id(id.map(|id| text(id).into()));
    produced(wire.ask(ApiKey::Produce, version, &RequestKind::Produce(request)).await)
}

pub(super) async fn put(wire: &mut Wire, version: i16, producer: (i64, i16), sequence: i32, at: (i32, &str)) {
    assert_eq!(put_as(wire, version, Some(ID), producer, sequence, at).await.0, 0, "{at:?}");
}

/// What a consumer of committed records makes of a partition; where what is decided ends, and where all ends.
async fn committed(wire: &mut Wire, partition: i32) -> (Vec<String>, i64, i64) {
    let (mut values, mut from) = (Vec::new(), 0);
    loop {
        let RequestKind::Fetch(mut request) = fetch(TOPIC, Uuid::nil(), 12, from, 0) else { panic!() };
        request.topics[0].partitions[0].partition = partition;
        let request = RequestKind::Fetch(request.with_isolation_level(1));
        let ResponseKind::Fetch(answer) = wire.ask(ApiKey::Fetch, 12, &request).await else { panic!() };
        let data = &answer.responses[0].partitions[0];
        assert_eq!(data.error_code, 0);
        let ends = (data.last_stable_offset, data.high_watermark);
        let mut rest = data.records.clone().unwrap();
        if rest.is_empty() {
            return (values, ends.0, ends.1);
        }
        let mut aborted = data.aborted_transactions.clone().unwrap();
        aborted.sort_by_key(|one| std::cmp::Reverse(one.first_offset));
        let mut skipped = BTreeSet::new();
        while !rest.is_empty() {
            let header = BatchHeader::parse(&rest).unwrap();
            let bytes = rest.split_to(header.total_bytes);
            let last = header.base_offset + i64::from(header.last_offset_delta);
            while aborted.last().is_some_and(|one| one.first_offset <= last) {
                skipped.insert(aborted.pop().unwrap().producer_id.0);
            }
            let records = cairn_broker::batch::decode(&bytes, 1 << 20).unwrap();
            if header.is_control() {
                skipped.remove(&header.producer_id);
            } else if !(header.is_transactional() && skipped.contains(&header.producer_id)) {
                let new = records.into_iter().filter(|record| record.offset >= from as u64);
                values.extend(new.map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap()));
            }
            from = last + 1;
        }
        assert!(from <= ends.0, "more was given out than is decided");
    }
}

pub(super) async fn described(wire: &mut Wire, id: &str) -> TransactionState {
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![text(id).into()]);
    let request = RequestKind::DescribeTransactions(request);
    let ResponseKind::DescribeTransactions(answer) = wire.ask(ApiKey::DescribeTransactions, 0, &request).await else {
        panic!()
    };
    answer.transaction_states[0].clone()
}

/// The code and the committed offset of the group.
async fn offset(wire: &mut Wire, stable: bool) -> (i16, i64) {
    let topic = OffsetFetchRequestTopic::default().with_name(name(TOPIC)).with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default().with_group_id(text(GROUP).into()).with_require_stable(stable);
    let request = RequestKind::OffsetFetch(request.with_topics(Some(vec![topic])));
    let ResponseKind::OffsetFetch(answer) = wire.ask(ApiKey::OffsetFetch, 7, &request).await else { panic!() };
    let partition = &answer.topics[0].partitions[0];
    (partition.error_code, partition.committed_offset)
}

async fn commit_offset(wire: &mut Wire, version: i16, producer: (i64, i16), offset: i64) -> i16 {
    let asked = MetadataRequestTopic::default().with_name(Some(name(TOPIC)));
    let request = RequestKind::Metadata(MetadataRequest::default().with_topics(Some(vec![asked])));
    let ResponseKind::Metadata(about) = wire.ask(ApiKey::Metadata, 12, &request).await else { panic!() };
    commit_offset_of(wire, version, producer, offset, &topic_of(version, about.topics[0].topic_id)).await
}

async fn commit_offset_of(wire: &mut Wire, version: i16, who: (i64, i16), offset: i64, topic: &str) -> i16 {
    let request = committing(who, offset, topic);
    let ResponseKind::TxnOffsetCommit(answer) = wire.ask(ApiKey::TxnOffsetCommit, version, &request).await else {
        panic!()
    };
    answer.topics[0].partitions[0].error_code
}

async fn latest(wire: &mut Wire, isolation: i8) -> i64 {
    let partition = ListOffsetsPartition::default().with_timestamp(-1);
    let topic = ListOffsetsTopic::default().with_name(name(TOPIC)).with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default().with_isolation_level(isolation).with_topics(vec![topic]);
    let answer = wire.ask(ApiKey::ListOffsets, 8, &RequestKind::ListOffsets(request)).await;
    let ResponseKind::ListOffsets(answer) = answer else { panic!() };
    answer.topics[0].partitions[0].offset
}

// ── brokers ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// The records are of 1970.
fn for_ever() -> std::collections::BTreeMap<String, String> {
    [("retention.ms".to_owned(), "-1".to_owned())].into()
}

fn impatient() -> BrokerOptions {
    let mut options = quick();
    options.limits.transaction_interval = Duration::from_millis(10);
    options
}

/// A broker in a folder of small files, that uploads at once or not at all.
async fn serve(folder: &Path, uploads: bool) -> Served {
    let log = if uploads {
        eager(folder)
    } else {
        LogOptions { upload_interval: Duration::from_secs(3_600), upload_bytes: 1 << 30, ..eager(folder) }
    };
    let served = Served::serve(open_log(log, impatient()).await).await;
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(2), configs: for_ever() };
    match served.broker.create_topic(&Principal::Internal, spec).await {
        Ok(_) | Err(cairn_broker::TopicError::Exists { .. }) => served,
        Err(error) => panic!("{error}"),
    }
}

/// What would be on the disk if the process died now.
fn crashed(folder: &Path) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            let to = to.join(path.file_name().unwrap());
            if path.is_dir() { copy(&path, &to) } else { drop(std::fs::copy(&path, &to)) }
        }
    }
    let copied = tempfile::tempdir().unwrap();
    copy(folder, copied.path());
    copied
}

/// As if the last frame of the write-ahead log had been torn by the crash.
fn tear(folder: &Path) {
    let files = std::fs::read_dir(folder.join("wal")).unwrap().map(|entry| entry.unwrap().path());
    let newest: PathBuf = files.filter(|path| path.extension().is_some_and(|kind| kind == "wal")).max().unwrap();
    let bytes = std::fs::read(&newest).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    std::fs::File::options().write(true).open(newest).unwrap().write_all_at(&[0x5a; 12], end as u64 - 12).unwrap();
}

// ── tests ───────────────────────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test(flavor = "multi_thread")]
async fn what_is_aborted_is_seen_by_nobody_who_reads_committed_whatever_is_lost_between() {
    for (version, ends, _) in [OLD, NEW] {
        let folder = tempfile::tempdir().unwrap();
        let mut served = serve(folder.path(), true).await;
        let mut wire = Wire::connect(&served).await;
        let mut who = begin(&mut wire).await;
        let mut sequence = 0;
        for (round, commits) in [true, false, true, false].into_iter().enumerate() {
            if version < 12 {
                assert_eq!(add(&mut wire, 3, who, TOPIC, &[0, 1]).await, [0, 0]);
            }
            for partition in [0, 1] {
                put(&mut wire, version, who, sequence, (partition, &format!("{commits} {round}"))).await;
            }
            sequence += 1;
            let (code, next) = end(&mut wire, ends, who, commits).await;
            assert_eq!(code, 0);
            if next != who {
                assert_eq!((ends, next), (5, (who.0, who.1 + 1)), "the epoch is bumped");
                (who, sequence) = (next, 0);
            }
        }
        if version < 12 {
            add(&mut wire, 3, who, TOPIC, &[0, 1]).await;
        }
        put(&mut wire, version, who, sequence, (0, "open")).await;
        let expected = || vec!["true 0".to_owned(), "true 2".to_owned()];
        for how in ["nothing", "restart", "store alone"] {
            for partition in [0, 1] {
                let (values, stable, ends) = committed(&mut wire, partition).await;
                assert_eq!((values, stable, ends), (expected(), 8, 8 + i64::from(partition == 0)), "{how} {partition}");
            }
            assert_eq!((latest(&mut wire, 0).await, latest(&mut wire, 1).await), (9, 8), "{how}");
            until(|| served.broker.log().stats().wal_depth_bytes == 0).await;
            served.end().await;
            if how != "nothing" {
                std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
            }
            served = serve(folder.path(), true).await;
            wire = Wire::connect(&served).await;
        }
        assert_eq!(end(&mut wire, ends, who, true).await.0, 0, "it is still known");
        let (values, stable, ends) = committed(&mut wire, 0).await;
        assert_eq!((values, stable, ends), ([expected(), vec!["open".to_owned()]].concat(), 10, 10));
        served.end().await;
    }
}

#[tokio::test]
async fn no_crash_leaves_a_transaction_half_ended_and_the_end_asked_for_again_gets_the_same_answer() {
    for (version, ends, _) in [OLD, NEW] {
        for commits in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let served = serve(folder.path(), false).await;
            let mut wire = Wire::connect(&served).await;
            let who = begin(&mut wire).await;
            let mut copies = vec![(crashed(folder.path()), false)];
            if version < 12 {
                add(&mut wire, 3, who, TOPIC, &[0, 1]).await;
                copies.push((crashed(folder.path()), false));
            }
            for partition in [0, 1] {
                put(&mut wire, version, who, 0, (partition, "v")).await;
                copies.push((crashed(folder.path()), false));
            }
            let (code, answer) = end(&mut wire, ends, who, commits).await;
            assert_eq!(code, 0);
            copies.push((crashed(folder.path()), true));
            let torn = crashed(folder.path());
            tear(torn.path());
            copies.push((torn, false));
            assert_eq!(end(&mut wire, ends, who, commits).await, (0, answer), "asked again");
            assert_eq!(end(&mut wire, ends, who, !commits).await.0, 48);
            served.end().await;
            for (at, (copy, ended)) in copies.iter().enumerate() {
                let served = serve(copy.path(), false).await;
                let mut wire = Wire::connect(&served).await;
                let state = described(&mut wire, ID).await.transaction_state.to_string();
                let (_, stable, durable) = committed(&mut wire, 0).await;
                let (_, other_stable, other) = committed(&mut wire, 1).await;
                let is_open = stable < durable || other_stable < other;
                let expected = match (ended, commits) {
                    (false, _) if is_open || state == "Ongoing" => "Ongoing",
                    (false, _) => "Empty",
                    (true, true) => "CompleteCommit",
                    (true, false) => "CompleteAbort",
                };
                assert_eq!((state.as_str(), is_open && *ended), (expected, false), "{version} {commits} {at}");
                // Whoever goes on from there ends it, and only what it had written counts.
                if *ended {
                    assert_eq!(end(&mut wire, ends, who, commits).await, (0, answer), "{version} {commits} {at}");
                } else if state == "Ongoing" {
                    let (code, next) = end(&mut wire, ends, who, commits).await;
                    assert_eq!((code, next), (0, answer), "{version} {commits} {at}");
                }
                let (values, stable, ends) = committed(&mut wire, 1).await;
                assert_eq!(stable, ends, "{version} {commits} {at}");
                assert_eq!(values.len(), usize::from(commits && other > 0), "{version} {commits} {at}");
                served.end().await;
            }
        }
    }
}

#[tokio::test]
async fn who_comes_later_with_the_same_id_fences_who_was_before_and_aborts_what_it_had_open() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path(), false).await;
    let mut wire = Wire::connect(&served).await;
    let old = begin(&mut wire).await;
    put(&mut wire, 12, old, 0, (0, "zombie")).await;
    let new = begin(&mut wire).await;
    assert_eq!(new, (old.0, old.1 + 1));
    let (values, stable, durable) = committed(&mut wire, 0).await;
    assert_eq!((values.len(), stable, durable), (0, 2, 2), "aborted at once");
    for version in [10, 11, 12] {
        assert_eq!(put_as(&mut wire, version, Some(ID), old, 1, (0, "zombie")).await.0, 47);
    }
    assert_eq!(add(&mut wire, 1, old, TOPIC, &[0]).await, [47]);
    assert_eq!(add(&mut wire, 3, old, TOPIC, &[0]).await, [90]);
    assert_eq!((end(&mut wire, 1, old, true).await.0, end(&mut wire, 5, old, true).await.0), (47, 90));
    assert_eq!(commit_offset(&mut wire, 5, old, 3).await, 47);
    let ResponseKind::AddOffsetsToTxn(answer) = wire.ask(ApiKey::AddOffsetsToTxn, 3, &adding_offsets(old)).await else {
        panic!()
    };
    assert_eq!(answer.error_code, 90);
    // A producer that goes on says who it was: only who is current, or whose answer was lost, may.
    assert_eq!(begin_as(&mut wire, 4, ID, (old.0, old.1), 60_000).await, (0, new));
    put(&mut wire, 12, new, 0, (0, "new")).await;
    assert_eq!(begin_as(&mut wire, 4, ID, (old.0, old.1), 60_000).await.0, 90);
    assert_eq!(begin_as(&mut wire, 3, ID, (old.0, old.1), 60_000).await.0, 47);
    assert_eq!(put_as(&mut wire, 12, Some(ID), (new.0 + 1, 0), 0, (0, "other")).await.0, 49);
    assert_eq!(put_as(&mut wire, 12, Some("nobody"), new, 1, (0, "other")).await.0, 49);
    assert_eq!(put_as(&mut wire, 12, None, new, 1, (0, "other")).await.0, 53, "it names no transactional id");
    assert_eq!(end(&mut wire, 5, new, true).await.0, 0);
    assert_eq!(committed(&mut wire, 0).await.0, ["new"]);
    served.end().await;
}

#[tokio::test]
async fn a_batch_is_taken_only_into_a_transaction_that_has_its_partition() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path(), false).await;
    let mut wire = Wire::connect(&served).await;
    let who = begin(&mut wire).await;
    assert_eq!(put_as(&mut wire, 10, Some(ID), who, 0, (0, "v")).await.0, 48);
    assert_eq!(put_as(&mut wire, 11, Some(ID), who, 0, (0, "v")).await.0, 120, "abort and go on");
    assert_eq!(
        (add(&mut wire, 4, who, TOPIC, &[0]).await, add(&mut wire, 5, who, TOPIC, &[0]).await),
        (vec![48], vec![120])
    );
    assert_eq!(add(&mut wire, 3, who, TOPIC, &[0]).await, [0]);
    put(&mut wire, 11, who, 0, (0, "v")).await;
    assert_eq!(put_as(&mut wire, 11, Some(ID), who, 0, (1, "v")).await.0, 120);
    put(&mut wire, 12, who, 0, (1, "v")).await;
    assert_eq!(add(&mut wire, 5, who, TOPIC, &[0, 1]).await, [0, 0]);
    // All or none: what is not there keeps the others out.
    assert_eq!(add(&mut wire, 3, who, TOPIC, &[0, 7]).await, [55, 3]);
    for topic in ["mcp.calls", "__consumer_offsets", "__transaction_state"] {
        assert_eq!(add(&mut wire, 3, who, topic, &[0]).await, [29], "{topic}");
    }
    let spec = TopicSpec { name: "__transaction_state".into(), ..TopicSpec::default() };
    assert!(served.broker.create_topic(&Principal::Anonymous, spec).await.is_err());
    // Nothing of a transaction that ended is taken, also where its epoch goes on.
    assert_eq!(end(&mut wire, 4, who, true).await.0, 0);
    assert_eq!(put_as(&mut wire, 10, Some(ID), who, 1, (0, "late")).await.0, 48);
    assert_eq!(committed(&mut wire, 0).await, (vec!["v".to_owned()], 2, 2));
    served.end().await;
}

#[tokio::test]
async fn offsets_of_a_transaction_are_seen_once_it_is_committed_and_not_before() {
    for (_, ends, commit) in [OLD, NEW, (NEW.0, NEW.1, 6)] {
        let folder = tempfile::tempdir().unwrap();
        let mut served = serve(folder.path(), false).await;
        let mut wire = Wire::connect(&served).await;
        let mut who = begin(&mut wire).await;
        let unknown = commit_offset_of(&mut wire, 6, who, 1, &Uuid::from_u128(5).to_string()).await;
        assert_eq!(unknown, 100, "an id that no topic has");
        for (commits, wanted) in [(true, 5), (false, 9)] {
            let before = offset(&mut wire, true).await;
            if commit < 5 {
                assert_eq!(
                    commit_offset(&mut wire, 3, who, wanted).await,
                    48,
                    "the group's partition is no part of it"
                );
                assert_eq!(commit_offset(&mut wire, 4, who, wanted).await, 120);
                let answer = wire.ask(ApiKey::AddOffsetsToTxn, 3, &adding_offsets(who)).await;
                assert!(matches!(answer, ResponseKind::AddOffsetsToTxn(answer) if answer.error_code == 0));
            }
            assert_eq!(commit_offset(&mut wire, commit, who, wanted).await, 0);
            for _ in 0..2 {
                assert_eq!(offset(&mut wire, false).await, before, "not before the commit");
                assert_eq!(offset(&mut wire, true).await, (88, -1));
                served.end().await;
                served = serve(folder.path(), false).await;
                wire = Wire::connect(&served).await;
            }
            let (code, next) = end(&mut wire, ends, who, commits).await;
            assert_eq!(code, 0);
            who = next;
            assert_eq!(offset(&mut wire, true).await, (0, 5));
            served.end().await;
            served = serve(folder.path(), false).await;
            wire = Wire::connect(&served).await;
            assert_eq!(offset(&mut wire, true).await, (0, 5));
        }
        served.end().await;
    }
}

#[tokio::test]
async fn a_transaction_that_takes_too_long_is_aborted_also_after_a_restart() {
    for restarts in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut served = serve(folder.path(), false).await;
        let mut wire = Wire::connect(&served).await;
        assert_eq!(begin_as(&mut wire, 4, ID, (-1, -1), 0).await.0, 50);
        assert_eq!(begin_as(&mut wire, 4, ID, (-1, -1), 900_001).await.0, 50);
        assert_eq!(begin_as(&mut wire, 4, "", (-1, -1), 1_000).await.0, 42);
        let timeout_ms = if restarts { 3_000 } else { 100 };
        let (_, who) = begin_as(&mut wire, 4, ID, (-1, -1), timeout_ms).await;
        put(&mut wire, 12, who, 0, (0, "slow")).await;
        commit_offset(&mut wire, 5, who, 7).await;
        if restarts {
            served.end().await;
            served = serve(folder.path(), false).await;
            wire = Wire::connect(&served).await;
        }
        let stream = StreamId::new(served.broker.topic(TOPIC).unwrap().id, PartitionIndex::new(0));
        until(|| served.broker.log().bounds(stream).is_ok_and(|bounds| bounds.stable_end.get() == 2)).await;
        assert_eq!(committed(&mut wire, 0).await, (Vec::new(), 2, 2));
        assert_eq!(end(&mut wire, 5, who, true).await.0, 90);
        assert_eq!(put_as(&mut wire, 12, Some(ID), who, 1, (0, "late")).await.0, 47);
        assert_eq!(offset(&mut wire, true).await, (0, -1));
        assert_eq!(described(&mut wire, ID).await.transaction_state.to_string(), "CompleteAbort");
        served.end().await;
    }
}

#[tokio::test]
async fn ids_are_bounded_in_number_and_forgotten_when_nobody_uses_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = impatient();
    options.limits.transactional_ids_max = 2;
    options.limits.transaction_partitions_max = 1;
    options.limits.transactional_id_expiration = Duration::from_secs(4);
    let served = Served::start(folder.path(), options).await;
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(2), ..TopicSpec::default() };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
    let mut wire = Wire::connect(&served).await;
    let who = begin(&mut wire).await;
    put(&mut wire, 12, who, 0, (0, "v")).await;
    assert_eq!(put_as(&mut wire, 12, Some(ID), who, 0, (1, "v")).await.0, 44);
    assert_eq!(add(&mut wire, 3, who, TOPIC, &[1]).await, [44]);
    let (code, other) = begin_as(&mut wire, 4, "other", (-1, -1), 60_000).await;
    assert_eq!(code, 0);
    assert_eq!(begin_as(&mut wire, 4, "third", (-1, -1), 60_000).await.0, 44);
    let mut state = described(&mut wire, "other").await;
    while state.error_code == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        state = described(&mut wire, "other").await;
    }
    assert_eq!(state.error_code, 105);
    let (code, again) = begin_as(&mut wire, 4, "third", (-1, -1), 60_000).await;
    assert!(code == 0 && again.0 > other.0, "another producer id");
    assert_eq!(described(&mut wire, ID).await.transaction_state.to_string(), "Ongoing", "what is open is kept");
    assert_eq!(end(&mut wire, 5, who, true).await.0, 0);
    served.end().await;
}

#[tokio::test]
async fn operators_see_transactions_and_may_abort_only_what_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path(), false).await;
    let mut wire = Wire::connect(&served).await;
    let who = begin(&mut wire).await;
    put(&mut wire, 12, who, 0, (0, "v")).await;
    put(&mut wire, 12, who, 0, (1, "v")).await;
    let state = described(&mut wire, ID).await;
    assert_eq!(
        (state.transaction_state.to_string(), state.producer_id.0, state.producer_epoch),
        ("Ongoing".to_owned(), who.0, who.1)
    );
    assert_eq!((state.topics[0].topic.to_string(), &state.topics[0].partitions[..]), (TOPIC.to_owned(), &[0, 1][..]));
    assert_eq!(state.transaction_timeout_ms, 60_000);
    assert_eq!(described(&mut wire, "nobody").await.error_code, 105);
    let mut list = async |states: &[&str], pattern, version| {
        let answer = wire.ask(ApiKey::ListTransactions, version, &listing(states, pattern)).await;
        let ResponseKind::ListTransactions(answer) = answer else { panic!() };
        let found: Vec<_> = answer.transaction_states.iter().map(|one| one.transactional_id.to_string()).collect();
        (answer.error_code, found, answer.unknown_state_filters.len())
    };
    assert_eq!(list(&[], None, 1).await, (0, vec![ID.to_owned()], 0));
    assert_eq!(list(&["Ongoing", "Odd"], Some("t."), 2).await, (0, vec![ID.to_owned()], 1));
    assert_eq!(list(&["Empty"], None, 2).await, (0, vec![], 0));
    assert_eq!(list(&[], Some("t"), 2).await, (0, vec![], 0), "the whole id");
    assert_eq!(list(&[], Some("("), 2).await.0, 128);
    let mut producers = async || {
        let answer = wire.ask(ApiKey::DescribeProducers, 0, &describing_producers()).await;
        let ResponseKind::DescribeProducers(answer) = answer else { panic!() };
        let all = answer.topics[0].partitions[0].active_producers.clone();
        all.iter().map(|one| (one.producer_id.0, one.last_sequence, one.current_txn_start_offset)).collect::<Vec<_>>()
    };
    assert_eq!(producers().await, [(who.0, 0, 0)]);
    // One that no coordinator knows of: nothing of this broker leaves such a thing.
    let stream = StreamId::new(served.broker.topic(TOPIC).unwrap().id, PartitionIndex::new(0));
    let mark = ProducerMark { id: ProducerId::new(5), epoch: ProducerEpoch::new(0), first_sequence: Sequence::new(0) };
    let mut builder = BatchBuilder::new().producer(5, 0, 0).transactional();
    builder.push(1_000, None, Some(b"hangs"), &[]);
    let append = Append {
        stream,
        records: std::num::NonZeroU32::MIN,
        max_timestamp: 1_000,
        producer: Some(mark),
        transaction: InTransaction::Yes,
        bytes: builder.build().unwrap(),
    };
    served.broker.log().append(vec![append]).await.unwrap()[0].as_ref().unwrap();
    assert_eq!(producers().await, [(5, 0, 1), (who.0, 0, 0)]);
    let mut abort = async |topic: &str, producer, commits| {
        let answer = wire.ask(ApiKey::WriteTxnMarkers, 1, &marking(topic, producer, commits)).await;
        let ResponseKind::WriteTxnMarkers(answer) = answer else { panic!() };
        answer.markers[0].topics[0].partitions[0].error_code
    };
    assert_eq!(abort(TOPIC, who, false).await, 48, "its producer ends it");
    assert_eq!(abort(TOPIC, (5, 0), true).await, 42);
    assert_eq!(abort(TOPIC, (6, 0), false).await, 48, "nothing is open");
    assert_eq!(abort("mcp.calls", (5, 0), false).await, 31);
    assert_eq!(abort(TOPIC, (5, 0), false).await, 0);
    assert_eq!(end(&mut wire, 5, who, true).await.0, 0);
    assert_eq!(committed(&mut wire, 0).await, (vec!["v".to_owned()], 4, 4));
    served.end().await;
}

#[tokio::test]
async fn clients_are_told_that_they_may_bump_epochs() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path(), false).await;
    let mut wire = Wire::connect(&served).await;
    for version in [3, 4] {
        let request = RequestKind::ApiVersions(
            ApiVersionsRequest::default().with_client_software_name(text("t")).with_client_software_version(text("1")),
        );
        let ResponseKind::ApiVersions(answer) = wire.ask(ApiKey::ApiVersions, version, &request).await else {
            panic!()
        };
        let feature = answer.finalized_features.iter().find(|one| &*one.name == "transaction.version").unwrap();
        assert_eq!((feature.max_version_level, answer.finalized_features_epoch >= 0), (2, true));
        assert_eq!(answer.supported_features.is_empty(), version < 4, "older clients take no feature that begins at 0");
    }
    served.end().await;
}

/// While the first batch of a transaction adds its partition, those behind it wait; more come when they may go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_that_are_sent_behind_the_first_of_a_transaction_are_stored_in_their_order() {
    const BATCHES: i32 = 12;
    let folder = tempfile::tempdir().expect("a folder");
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let (mut producer, mut sequence) = (begin(&mut wire).await, 0);
    for round in 0..24_u64 {
        for n in 0..BATCHES {
            let mut builder = BatchBuilder::new().producer(producer.0, producer.1, sequence + n).transactional();
            builder.push(1_000, Some(b"k"), Some(b"v"), &[]);
            let records = builder.build().unwrap().freeze();
            let RequestKind::Produce(request) = produce(TOPIC, Uuid::nil(), 12, -1, records) else { panic!() };
            let request = RequestKind::Produce(request.with_transactional_id(Some(text(ID).into())));
            wire.send(ApiKey::Produce, 12, &request).await;
            // One comes in at about the moment when those before it may go on.
            tokio::time::sleep(std::time::Duration::from_micros(100 + 40 * (round % 12))).await;
        }
        for n in 0..BATCHES {
            let frame = wire.receive_raw().await.expect("an answer");
            let (code, _) = produced(answer(ApiKey::Produce, 12, frame));
            assert_eq!(code, 0, "batch {n} of round {round}");
        }
        let (code, next) = end(&mut wire, 5, producer, round % 2 == 0).await;
        assert_eq!(code, 0);
        (sequence, producer) = if next == producer { (sequence + BATCHES, producer) } else { (0, next) };
    }
    served.end().await;
}
