//! The object store as clients see it: a broker that lost its local log, retention that frees, a store that is away.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use cairn_broker::batch::BatchHeader;
use cairn_clock::{Clock, Entropy};
use cairn_log::{Beginning, Log, LogOptions, OpenError, PartitionIndex};
use kafka_protocol::{
    messages::{
        ApiKey, FetchRequest, OffsetForLeaderEpochRequest, ProduceRequest, RequestKind, ResponseKind, TopicName,
        fetch_request::{FetchPartition, FetchTopic},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::PartitionProduceResponse,
    },
    protocol::StrBytes,
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord},
};

use super::{PATIENCE, config};
use crate::support::{Served, Wire, bytes_below, eager, everything, open_log, quick, until};

/// What was sent, by partition and offset as they were acknowledged.
type Sent = BTreeMap<(i32, i64), Vec<u8>>;

async fn serve(log: LogOptions) -> Served {
    Served::serve(open_log(log, quick()).await).await
}

/// Uploads nothing while a test runs.
fn unhurried(folder: &Path) -> LogOptions {
    LogOptions { upload_bytes: 1 << 30, upload_interval: Duration::from_secs(3_600), ..eager(folder) }
}

async fn create(served: &Served, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = config(served).create().unwrap();
    let mut new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (name, value) in configs {
        new = new.set(name, value);
    }
    assert_eq!(admin.create_topics(&[new], &AdminOptions::new()).await.unwrap(), [Ok(topic.to_owned())]);
}

async fn configs_of(served: &Served, topic: &str) -> BTreeMap<String, Option<String>> {
    let admin: AdminClient<DefaultClientContext> = config(served).create().unwrap();
    let described = admin.describe_configs(&[ResourceSpecifier::Topic(topic)], &AdminOptions::new()).await.unwrap();
    let described = described.into_iter().next().unwrap().unwrap();
    described.entries.into_iter().map(|entry| (entry.name, entry.value)).collect()
}

/// A producer whose batches fit the small files of these tests.
fn producer(served: &Served) -> FutureProducer {
    idempotent(served).create().unwrap()
}

fn idempotent(served: &Served) -> ClientConfig {
    let mut config = config(served);
    config.set("enable.idempotence", "true").set("linger.ms", "5").set("batch.size", "10000");
    config
}

/// Sends `count` values that begin with their number, in turn to each of the partitions.
async fn send(producer: &FutureProducer, topic: &str, partitions: i32, numbers: std::ops::Range<usize>) -> Sent {
    let mut waiting = Vec::new();
    for at in numbers {
        let value = format!("{at} {}", "payload ".repeat(at % 40)).into_bytes();
        let record = FutureRecord::<(), _>::to(topic).partition(at as i32 % partitions).payload(&value);
        waiting.push((producer.send_result(record).unwrap(), value));
    }
    let mut sent = Sent::new();
    for (delivery, value) in waiting {
        let delivery = delivery.await.unwrap().unwrap();
        assert!(sent.insert((delivery.partition, delivery.offset), value).is_none(), "an offset is given once");
    }
    sent
}

/// Everything of a topic, by librdkafka, from the first offset that is kept.
fn consume(served: &Served, topic: &str, partitions: i32) -> Sent {
    // A commit that is due would end a poll with nothing.
    let mut config = config(served);
    let consumer: BaseConsumer = config.set("group.id", "reader").set("enable.auto.commit", "false").create().unwrap();
    let (mut list, mut ends) = (TopicPartitionList::new(), BTreeMap::new());
    for partition in 0..partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, PATIENCE).unwrap();
        if high > low {
            list.add_partition_offset(topic, partition, Offset::Offset(low)).unwrap();
            ends.insert(partition, high);
        }
    }
    consumer.assign(&list).unwrap();
    let mut got = Sent::new();
    while !ends.is_empty() {
        let message = consumer.poll(PATIENCE).expect("a record").unwrap();
        let place = (message.partition(), message.offset());
        assert!(got.insert(place, message.payload().unwrap().to_vec()).is_none(), "{place:?} came twice");
        if ends.get(&place.0).is_some_and(|end| place.1 + 1 >= *end) {
            ends.remove(&place.0);
        }
    }
    got
}

fn commit(served: &Served, topic: &str, offset: i64, note: &str) {
    let consumer: BaseConsumer = config(served).set("group.id", "g").create().unwrap();
    let mut list = TopicPartitionList::new();
    let mut place = list.add_partition(topic, 0);
    place.set_offset(Offset::Offset(offset)).unwrap();
    place.set_metadata(note);
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

fn committed(served: &Served, topic: &str) -> (Offset, String) {
    let consumer: BaseConsumer = config(served).set("group.id", "g").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    let read = consumer.committed_offsets(list, PATIENCE).unwrap();
    let place = read.find_partition(topic, 0).unwrap();
    (place.offset(), place.metadata().to_owned())
}

async fn is_uploaded(served: &Served) {
    until(|| served.broker.log().stats().wal_depth_bytes == 0).await;
}

/// Lets no object be made any more. (Who runs this may be root, whom no permission stops.)
fn block(folder: &Path) -> PathBuf {
    let making = folder.join("objects/making");
    std::fs::remove_dir_all(&making).unwrap();
    std::fs::write(&making, "in the way").unwrap();
    making
}

async fn without_store(folder: &Path, what: impl AsyncFnOnce()) {
    let making = block(folder);
    what().await;
    std::fs::remove_file(&making).unwrap();
}

fn end_of(served: &Served, topic: &str, partition: u32) -> u64 {
    bounds(served, topic, partition).durable_end.get()
}

fn bounds(served: &Served, topic: &str, partition: u32) -> cairn_log::Bounds {
    let id = served.broker.topic(topic).unwrap().id;
    served.broker.log().bounds(cairn_log::StreamId::new(id, PartitionIndex::new(partition))).unwrap()
}

fn topic_name(topic: &str) -> TopicName {
    StrBytes::from_string(topic.to_owned()).into()
}

/// A stored batch as its producer sent it: the broker gives the offset, which no checksum covers.
fn unplaced(batch: &[u8]) -> Bytes {
    [&[0; 8][..], &batch[8..]].concat().into()
}

/// One batch by a request made by hand.
async fn produce(wire: &mut Wire, topic: &str, partition: i32, batch: Bytes) -> PartitionProduceResponse {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
    let data = TopicProduceData::default().with_name(topic_name(topic)).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(1_000).with_topic_data(vec![data]);
    let ResponseKind::Produce(answer) = wire.ask(ApiKey::Produce, 9, &RequestKind::Produce(request)).await else {
        panic!("not Produce")
    };
    answer.responses[0].partition_responses[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_lost_its_local_log_serves_from_objects_all_that_it_served_before() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(eager(folder.path())).await;
    assert_eq!(served.broker.log().beginning(), Beginning::New);
    create(&served, "t", 3, &[("retention.ms", "-1"), ("max.message.bytes", "90000")]).await;
    let sent = send(&producer(&served), "t", 3, 0..1_500).await;
    tokio::task::block_in_place(|| commit(&served, "t", 77, "where I was"));
    is_uploaded(&served).await;
    let (topic, configs) = (served.broker.topic("t"), configs_of(&served, "t").await);
    let mut before = Vec::new();
    for partition in 0..3 {
        before.push(everything(&served.broker, "t", partition, end_of(&served, "t", partition)).await);
    }
    served.end().await;
    std::fs::remove_dir_all(folder.path().join("wal")).unwrap();

    let served = serve(eager(folder.path())).await;
    assert!(matches!(served.broker.log().beginning(), Beginning::StoreAlone { .. }));
    assert_eq!(served.broker.topic("t"), topic, "the same id, partitions and configs");
    assert_eq!(configs_of(&served, "t").await, configs);
    assert_eq!(tokio::task::block_in_place(|| consume(&served, "t", 3)), sent);
    assert!(served.broker.log().stats().object_reads > 0, "they came from objects");
    let mut wire = Wire::connect(&served).await;
    for (partition, before) in (0..3).zip(&before) {
        let end = end_of(&served, "t", partition);
        assert_eq!(&everything(&served.broker, "t", partition, end).await, before, "not one byte is another");
        // The last five of each producer are remembered; sent again, each gets its first offset.
        for batch in before.iter().rev().take(5) {
            let header = BatchHeader::parse(batch).unwrap();
            assert!(header.producer_id >= 0, "the producer was not idempotent, so this tests nothing");
            let answer = produce(&mut wire, "t", partition as i32, unplaced(batch)).await;
            assert_eq!((answer.error_code, answer.base_offset), (0, header.base_offset));
        }
        assert_eq!(end_of(&served, "t", partition), end, "nothing was stored twice");
    }
    let place = tokio::task::block_in_place(|| committed(&served, "t"));
    assert_eq!(place, (Offset::Offset(77), "where I was".to_owned()));
    let ends: Vec<_> = (0..3).map(|partition| end_of(&served, "t", partition) as i64).collect();
    let more = send(&producer(&served), "t", 3, 1_500..1_503).await;
    assert_eq!(more.keys().copied().collect::<Vec<_>>(), [(0, ends[0]), (1, ends[1]), (2, ends[2])]);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_uploaded_is_lost_with_the_local_log_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(eager(folder.path())).await;
    create(&served, "t", 1, &[]).await;
    let kept = send(&producer(&served), "t", 1, 0..200).await;
    tokio::task::block_in_place(|| commit(&served, "t", 200, "first"));
    is_uploaded(&served).await;
    served.end().await;

    let served = serve(unhurried(folder.path())).await;
    assert_eq!(served.broker.log().beginning(), Beginning::Whole);
    let lost = send(&producer(&served), "t", 1, 200..250).await;
    assert_eq!(lost.keys().next(), Some(&(0, 200)));
    let ids = |batches: &[Bytes]| BatchHeader::parse(batches.last().unwrap()).unwrap().producer_id;
    let lost_id = ids(&everything(&served.broker, "t", 0, 250).await);
    tokio::task::block_in_place(|| commit(&served, "t", 250, "second"));
    let epoch = served.broker.log().epoch().get();
    // A clean end would upload it; that of a machine does not.
    without_store(folder.path(), async || served.end().await).await;
    std::fs::remove_dir_all(folder.path().join("wal")).unwrap();

    // The owner of the store is written there at once, whatever else is not.
    let refused = Log::open(eager(folder.path()), Clock::system(), Entropy::system()).await;
    assert!(matches!(refused, Err(OpenError::NoWriteAheadLog { epoch: lost, .. }) if lost == epoch), "{refused:?}");
    let served = serve(LogOptions { recover: true, ..eager(folder.path()) }).await;
    assert_eq!(served.broker.log().beginning(), Beginning::Recovered { epoch });
    assert_eq!(tokio::task::block_in_place(|| committed(&served, "t")), (Offset::Offset(200), "first".to_owned()));
    // A consumer that had read further can find out: its epoch ended before what it has seen.
    let mut wire = Wire::connect(&served).await;
    let partition = OffsetForLeaderPartition::default().with_leader_epoch(epoch as i32);
    let topic = OffsetForLeaderTopic::default().with_topic(topic_name("t")).with_partitions(vec![partition]);
    let request = RequestKind::OffsetForLeaderEpoch(OffsetForLeaderEpochRequest::default().with_topics(vec![topic]));
    let ResponseKind::OffsetForLeaderEpoch(answer) = wire.ask(ApiKey::OffsetForLeaderEpoch, 4, &request).await else {
        panic!("not OffsetForLeaderEpoch")
    };
    assert_eq!(answer.topics[0].partitions[0].end_offset, 200);
    let next = send(&producer(&served), "t", 1, 300..301).await;
    // What lies between may have been given out before, and is never given again.
    assert_eq!(next.keys().next(), Some(&(0, 200 + (1 << 32))));
    let mut all = kept;
    all.extend(next);
    assert_eq!(tokio::task::block_in_place(|| consume(&served, "t", 1)), all, "a consumer goes over the gap");
    // Who wrote what is lost may still be there: its producer id must be nobody else's.
    let next_id = ids(&everything(&served.broker, "t", 0, end_of(&served, "t", 0)).await);
    assert_ne!(next_id, lost_id, "a producer id was given twice");
    served.end().await;
}

async fn fetch_code(wire: &mut Wire, topic: &str, from: i64) -> (i16, i64) {
    let partition = FetchPartition::default().with_fetch_offset(from).with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default().with_topic(topic_name(topic)).with_partitions(vec![partition]);
    let request = FetchRequest::default().with_min_bytes(1).with_max_bytes(1 << 20).with_session_epoch(-1);
    let request = RequestKind::Fetch(request.with_topics(vec![wanted]));
    let ResponseKind::Fetch(answer) = wire.ask(ApiKey::Fetch, 11, &request).await else { panic!("not Fetch") };
    let partition = &answer.responses[0].partitions[0];
    (partition.error_code, partition.log_start_offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_much_leaves_disk_and_store_and_consumers_go_on_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    // First it only grows, or most of it would go before it was an object.
    let growing = LogOptions { retention_interval: Duration::from_secs(3_600), ..eager(folder.path()) };
    let served = serve(growing).await;
    create(&served, "t", 1, &[("retention.ms", "-1"), ("retention.bytes", "100000")]).await;
    let producer = producer(&served);
    let mut sent = Sent::new();
    for round in 0..40_usize {
        sent.extend(send(&producer, "t", 1, round * 200..(round + 1) * 200).await);
    }
    let written: usize = sent.values().map(Vec::len).sum();
    assert!(written > 1_000_000, "{written}");
    is_uploaded(&served).await;
    drop(producer);
    let (stats, objects) = (served.broker.log().stats(), folder.path().join("objects/data"));
    assert!(stats.objects > 20 && bytes_below(&objects) > 1_000_000, "{stats:?}");
    served.end().await;
    let served = serve(eager(folder.path())).await;
    until(|| bytes_below(&objects) < 300_000).await;
    let wal = bytes_below(&folder.path().join("wal"));
    assert!(wal <= 6 << 17, "{wal} bytes of write-ahead files after {written} came and went");
    assert!(served.broker.log().stats().objects_removed > 10, "{:?}", served.broker.log().stats());
    until(|| bounds(&served, "t", 0).bytes < 150_000).await;
    let start = bounds(&served, "t", 0).log_start.get() as i64;
    assert!(start > 4_000 && end_of(&served, "t", 0) == 8_000, "the start is {start}");

    let mut wire = Wire::connect(&served).await;
    assert_eq!(fetch_code(&mut wire, "t", start - 1).await, (1, -1), "OFFSET_OUT_OF_RANGE");
    assert_eq!(fetch_code(&mut wire, "t", start).await, (0, start));
    let first = |reset: &str| {
        let consumer: BaseConsumer = config(&served)
            .set("group.id", "g")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", reset)
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("t", 0, Offset::Offset(0)).unwrap();
        consumer.assign(&list).unwrap();
        loop {
            match consumer.poll(PATIENCE).expect("something comes") {
                Ok(message) => return Ok(message.offset()),
                Err(KafkaError::MessageConsumption(code)) => return Err(code),
                Err(_) => {}
            }
        }
    };
    assert_eq!(tokio::task::block_in_place(|| first("earliest")), Ok(start));
    let refused = tokio::task::block_in_place(|| first("error"));
    assert_eq!(refused, Err(RDKafkaErrorCode::AutoOffsetReset));
    sent.retain(|(_, offset), _| *offset >= start);
    assert_eq!(tokio::task::block_in_place(|| consume(&served, "t", 1)), sent, "what is kept is kept whole");
    served.end().await;
    // What is gone stays gone, also where the objects are all there is.
    std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
    let served = serve(eager(folder.path())).await;
    assert_eq!(bounds(&served, "t", 0).log_start.get() as i64, start);
    assert_eq!(tokio::task::block_in_place(|| consume(&served, "t", 1)), sent);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_old_goes_and_what_is_young_stays() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(eager(folder.path())).await;
    create(&served, "t", 1, &[("retention.ms", "3600000")]).await;
    let producer = producer(&served);
    let now = served.broker.topic("t").map(|_| cairn_clock::Clock::system().now().as_millis()).unwrap();
    for (age_ms, count) in [(7_200_000, 100), (0, 10)] {
        for n in 0..count {
            let value = format!("{n} {}", "x".repeat(5_000));
            let record = FutureRecord::<(), _>::to("t").partition(0).payload(&value).timestamp(now - age_ms);
            producer.send(record, PATIENCE).await.unwrap();
        }
        is_uploaded(&served).await;
    }
    let objects = folder.path().join("objects/data");
    until(|| bounds(&served, "t", 0).log_start.get() == 100).await;
    until(|| bytes_below(&objects) < 150_000).await;
    let kept = tokio::task::block_in_place(|| consume(&served, "t", 1));
    assert_eq!(kept.keys().map(|(_, offset)| *offset).collect::<Vec<_>>(), (100..110).collect::<Vec<_>>());
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_store_cannot_be_written_producers_are_slowed_down_then_refused_and_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let log = || LogOptions { wal_bytes_max: 400_000, ..eager(folder.path()) };
    let served = serve(log()).await;
    create(&served, "t", 1, &[]).await;
    let mut sent = send(&producer(&served), "t", 1, 0..100).await;
    is_uploaded(&served).await;
    let making = block(folder.path());

    let hasty: FutureProducer = idempotent(&served).set("message.timeout.ms", "3000").create().unwrap();
    let bulk = |at: usize| format!("{at} {}", "x".repeat(8_000)).into_bytes();
    let (mut at, mut was_slowed) = (100, false);
    let refused = loop {
        let value = bulk(at);
        let waited = served.broker.stats().pressure_throttled_us;
        was_slowed |= waited > 0 && served.broker.log().stats().appends_refused == 0;
        assert!(waited == 0 || served.broker.log().fill_milli() > 500, "there is room");
        match hasty.send(FutureRecord::<(), _>::to("t").partition(0).payload(&value), PATIENCE).await {
            Ok(done) => assert!(sent.insert((done.partition, done.offset), value).is_none()),
            Err((error, _)) => break error,
        }
        at += 1;
        assert!(at < 400, "far more is accepted than may wait");
    };
    assert!(matches!(refused, KafkaError::MessageProduction(RDKafkaErrorCode::MessageTimedOut)), "{refused}");
    assert!(was_slowed, "who produces is slowed down before it is refused");
    let stats = served.broker.log().stats();
    assert!(stats.store_away && stats.upload_failures > 0 && stats.appends_refused > 0, "{stats:?}");
    // Guests are refused while there is room left for what Cairn itself has to write.
    assert!(stats.wal_depth_bytes >= 350_000 && stats.wal_limit_bytes == 400_000, "{stats:?}");
    assert!(stats.wal_depth_bytes < 400_000, "{stats:?}");
    let wal = bytes_below(&folder.path().join("wal"));
    assert!(wal < 400_000 + (4 << 17), "{wal} bytes of write-ahead files");
    let mut wire = Wire::connect(&served).await;
    let batch = everything(&served.broker, "t", 0, sent.len() as u64).await.pop().unwrap();
    let mut fresh = unplaced(&batch).to_vec();
    // Another producer's, or it would be known and answered.
    fresh[43..51].copy_from_slice(&(-1_i64).to_be_bytes());
    let crc = crc32c::crc32c(&fresh[21..]);
    fresh[17..21].copy_from_slice(&crc.to_be_bytes());
    let answer = produce(&mut wire, "t", 0, fresh.into()).await;
    let said = answer.error_message.unwrap_or_default().to_string();
    assert_eq!(answer.error_code, 56, "KAFKA_STORAGE_ERROR: {said}");
    assert!(said.contains("wal_bytes_max") && said.contains("objects"), "{said}");
    // The one that its producer gave up may lie in a connection that is not read from for a while, and come after all.
    let late = bulk(at);
    let is_read = |sent: &mut Sent, served: &Served| {
        let read = tokio::task::block_in_place(|| consume(served, "t", 1));
        sent.extend(read.iter().filter(|(_, value)| **value == late).map(|(place, value)| (*place, value.clone())));
        assert_eq!(read, *sent);
    };
    is_read(&mut sent, &served); // meanwhile

    std::fs::remove_file(&making).unwrap();
    std::fs::create_dir(&making).unwrap();
    is_uploaded(&served).await;
    assert!(!served.broker.log().stats().store_away);
    sent.extend(send(&producer(&served), "t", 1, 1_000..1_100).await);
    is_read(&mut sent, &served);
    is_uploaded(&served).await;
    served.end().await;
    std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
    let served = serve(log()).await;
    assert_eq!(tokio::task::block_in_place(|| consume(&served, "t", 1)), sent, "and the objects have all of it");
    let next = send(&producer(&served), "t", 1, 2_000..2_001).await;
    assert_eq!(next.keys().next(), Some(&(0, sent.len() as i64)));
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_gone_or_damaged_is_an_error_and_all_others_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(eager(folder.path())).await;
    create(&served, "t", 1, &[("retention.ms", "-1")]).await;
    let sent = send(&producer(&served), "t", 1, 0..1_500).await;
    is_uploaded(&served).await;
    served.end().await;
    std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
    let mut objects = Vec::new();
    for epoch in std::fs::read_dir(folder.path().join("objects/data")).unwrap() {
        let names = std::fs::read_dir(epoch.unwrap().path()).unwrap();
        objects.extend(names.map(|name| name.unwrap().path()).filter(|path| path.metadata().unwrap().len() > 10_000));
    }
    objects.sort();
    let (gone, bad) = (&objects[objects.len() / 3], &objects[objects.len() / 2]);
    assert_ne!(gone, bad, "too few objects: {objects:?}");
    std::fs::remove_file(gone).unwrap();
    let mut bytes = std::fs::read(bad).unwrap();
    bytes.iter_mut().skip(200).step_by(500).for_each(|byte| *byte ^= 1);
    std::fs::write(bad, bytes).unwrap();

    let served = serve(eager(folder.path())).await;
    let mut wire = Wire::connect(&served).await;
    let (mut at, mut good, mut lost) = (0, 0, 0);
    while at < 1_500 {
        match fetch_code(&mut wire, "t", at).await.0 {
            0 => good += 1,
            2 => lost += 1, // CORRUPT_MESSAGE
            code => panic!("code {code} at {at}"),
        }
        at += 1;
    }
    assert!(good > 1_000 && lost > 10, "{good} and {lost} of {}", sent.len());
    assert!(served.broker.log().stats().read_failures >= lost);
    served.end().await;
}
