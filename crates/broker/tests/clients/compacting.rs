//! Compacted topics as clients see them: of each key the newest record, at the offset that it was given, with every codec; a consumer
//! gets to the end also where nothing is left there.

use std::{collections::BTreeMap, path::Path};

use cairn_broker::Principal;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{FutureProducer, FutureRecord},
};

use super::{PATIENCE, config};
use crate::support::{Served, eager, open_log, quick};

const RECORDS: i64 = 200;
const KEYS: i64 = 10;
const FIRST_MS: i64 = 1_700_000_000_000;

/// Key and value, by offset.
type Read = BTreeMap<i64, (String, String)>;

async fn serve(folder: &Path) -> Served {
    Served::serve(open_log(eager(folder), quick()).await).await
}

fn reader(served: &Served) -> BaseConsumer {
    let mut reader = config(served);
    // The end is told by a fetch that finds nothing: it need not wait for more.
    reader.set("group.id", "reader").set("enable.partition.eof", "true").set("fetch.wait.max.ms", "10");
    reader.create().unwrap()
}

/// Everything from an offset to the end.
fn read(served: &Served, topic: &str, from: Offset) -> Read {
    let consumer = reader(served);
    let mut places = TopicPartitionList::new();
    places.add_partition_offset(topic, 0, from).unwrap();
    consumer.assign(&places).unwrap();
    let mut found = Read::new();
    loop {
        match consumer.poll(PATIENCE).expect("a record, or the end") {
            Ok(message) => {
                let text = |bytes: Option<&[u8]>| String::from_utf8(bytes.unwrap_or_default().to_vec()).unwrap();
                found.insert(message.offset(), (text(message.key()), text(message.payload())));
            }
            // It got past the last offset that there is.
            Err(KafkaError::PartitionEOF(0)) => return found,
            Err(error) => panic!("{error}"),
        }
    }
}

async fn compacted(served: &Served, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = config(served).create().unwrap();
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("min.cleanable.dirty.ratio", "0")
        .set("delete.retention.ms", "1");
    assert_eq!(admin.create_topics(&[new], &AdminOptions::new()).await.unwrap(), [Ok(topic.to_owned())]);
}

/// Writes to ten keys in turn; the last record of all and that of key 4 say that their key is gone. What must be left.
async fn write(served: &Served, topic: &str, codec: &str) -> Read {
    let mut producer: ClientConfig = config(served);
    producer.set("compression.type", codec).set("enable.idempotence", "true").set("linger.ms", "10");
    let producer: FutureProducer = producer.create().unwrap();
    let (mut newest, mut waiting) = (BTreeMap::new(), Vec::new());
    for at in 0..RECORDS {
        let key = format!("key-{}", at % KEYS);
        let is_gone = at == RECORDS - 1 || at == RECORDS - KEYS + 4;
        let value = (!is_gone).then(|| format!("value-{at}-").repeat(20));
        let mut record = FutureRecord::to(topic).key(&key).timestamp(FIRST_MS + at);
        record.payload = value.as_ref();
        waiting.push((key.clone(), value.clone(), producer.send_result(record).unwrap()));
    }
    for (key, value, delivery) in waiting {
        let offset = delivery.await.unwrap().unwrap().offset;
        newest.insert(key.clone(), (offset, value));
    }
    newest.into_iter().filter_map(|(key, (offset, value))| Some((offset, (key, value?)))).collect()
}

/// Waits until only that is left, and asks for what is gone.
async fn see(served: &Served, topic: &str, left: &Read) {
    let mut last = Read::new();
    for _ in 0..600 {
        last = read(served, topic, Offset::Beginning);
        if last == *left {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(&last, left, "{topic}");
    // Offsets are what they were, and the end is where it was, though nothing is left there.
    let ends = reader(served).fetch_watermarks(topic, 0, PATIENCE).unwrap();
    assert_eq!(ends, (0, RECORDS), "{topic}");
    let (first, last) = (left.keys().next().unwrap(), left.keys().next_back().unwrap());
    assert!(*last < RECORDS - 1 && *first > 1);
    assert_eq!(read(served, topic, Offset::Offset(1)).keys().next(), Some(first), "the next one that there is");
    assert_eq!(read(served, topic, Offset::Offset(last + 1)), Read::new(), "{topic}: past the last one");
    let consumer = reader(served);
    let mut times = TopicPartitionList::new();
    times.add_partition_offset(topic, 0, Offset::Offset(FIRST_MS + 5)).unwrap();
    let found = consumer.offsets_for_times(times, PATIENCE).unwrap();
    assert_eq!(
        found.find_partition(topic, 0).unwrap().offset(),
        Offset::Offset(*first),
        "the time of one that is gone"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_each_key_clients_read_the_newest_record_whatever_packed_it() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path()).await;
    let mut all = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("compacted-{codec}");
        compacted(&served, &topic).await;
        let left = write(&served, &topic, codec).await;
        assert_eq!(left.len(), 8);
        all.push((topic, left));
    }
    for (topic, left) in &all {
        see(&served, topic, left).await;
    }
    let stats = served.broker.log().stats();
    assert!(stats.compactions > 0 && stats.compaction_freed_bytes > stats.compacted_bytes, "{stats:?}");
    let producer: FutureProducer = config(&served).create().unwrap();
    let keyless: FutureRecord<'_, str, str> = FutureRecord::to(&all[0].0).payload("v");
    let refused = producer.send(keyless, PATIENCE).await.unwrap_err().0;
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::InvalidRecord));
    served.end().await;
    // A bucket alone.
    std::fs::remove_dir_all(folder.path().join("wal")).unwrap();
    let served = serve(folder.path()).await;
    for (topic, left) in all.iter().take(2) {
        see(&served, topic, left).await;
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_not_compacted_is_once_its_policy_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path()).await;
    let topic = "later";
    let spec = |configs: &[(&str, &str)]| {
        configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
    };
    let new = cairn_broker::TopicSpec {
        name: topic.to_owned(),
        partitions: Some(1),
        configs: spec(&[("retention.ms", "-1"), ("min.cleanable.dirty.ratio", "0"), ("delete.retention.ms", "1")]),
    };
    served.broker.create_topic(&Principal::Anonymous, new).await.unwrap();
    let left = write(&served, topic, "none").await;
    crate::support::until(|| served.broker.log().stats().wal_depth_bytes == 0).await;
    assert_eq!(read(&served, topic, Offset::Beginning).len() as i64, RECORDS);
    let admin: AdminClient<DefaultClientContext> = config(&served).create().unwrap();
    let mut to = rdkafka::admin::AlterConfig::new(rdkafka::admin::ResourceSpecifier::Topic(topic));
    to = to.set("cleanup.policy", "compact").set("min.cleanable.dirty.ratio", "0").set("delete.retention.ms", "1");
    admin.alter_configs(&[to], &AdminOptions::new()).await.unwrap()[0].as_ref().unwrap();
    see(&served, topic, &left).await;
    served.end().await;
}
