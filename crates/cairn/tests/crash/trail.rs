//! The whole trail as an ordinary Kafka consumer sees it, remembered byte for byte.
//!
//! Reads with librdkafka through Kafka's port. What was once seen at an offset is kept for the life of the test, over every
//! crash: reading it again and finding something else, or nothing, is a finding (I3, I4). A [`Follower`] reads all the
//! time while Cairn runs. Must never commit an offset or write anything.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_contract::StoredEvent;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
};
use tokio::time::Instant;

const ASK_WITHIN: Duration = Duration::from_secs(30);
/// How long a follower asks a Cairn that may be dead already.
const FOLLOW_WITHIN: Duration = Duration::from_secs(3);
/// How long reading to the known end may take on a loaded machine.
const READ_WITHIN: Duration = Duration::from_secs(120);

type Place = (String, i32);

/// One record, whole.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) key: Bytes,
    pub(crate) value: Bytes,
    pub(crate) headers: Vec<(String, Bytes)>,
    pub(crate) timestamp_ms: Option<i64>,
}

/// Every record seen, by partition and offset.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trail(BTreeMap<Place, BTreeMap<i64, Record>>);

impl Trail {
    /// Takes in what another reading saw.
    pub(crate) fn merge(&mut self, other: Self, findings: &mut Vec<String>) {
        for (place, records) in other.0 {
            for (offset, record) in records {
                self.take(place.clone(), offset, record, findings);
            }
        }
    }

    fn take(&mut self, place: Place, offset: i64, record: Record, findings: &mut Vec<String>) {
        let known = self.0.entry(place.clone()).or_default().entry(offset).or_insert_with(|| record.clone());
        if *known != record {
            findings.push(format!("I3, I4: {}/{}@{offset} is not what it was", place.0, place.1));
        }
    }

    /// Reads everything that is there now, from the first offset; whatever was seen before must be in it.
    pub(crate) async fn reread(&mut self, bootstrap: &str) -> Vec<String> {
        let bootstrap = bootstrap.to_owned();
        let read = tokio::task::spawn_blocking(move || read_all(&bootstrap)).await.expect("reading does not panic");
        let mut findings = Vec::new();
        let fresh = match read {
            Ok(fresh) => fresh,
            Err(error) => return vec![format!("the trail cannot be read: {error}")],
        };
        for (place, records) in &self.0 {
            for offset in records.keys() {
                if !fresh.0.get(place).is_some_and(|fresh| fresh.contains_key(offset)) {
                    findings.push(format!("I3: {}/{}@{offset} was visible and is gone", place.0, place.1));
                }
            }
        }
        for (place, records) in &fresh.0 {
            // Without retention and compaction each offset from the first to the last holds a record.
            if let (Some((first, _)), Some((last, _))) = (records.first_key_value(), records.last_key_value())
                && (*first != 0 || last - first + 1 != records.len() as i64)
            {
                findings.push(format!("I4: {}/{} has a gap in its offsets", place.0, place.1));
            }
        }
        self.merge(fresh, &mut findings);
        findings
    }

    /// Each partition of a topic, its events in order.
    pub(crate) fn events(&self, topic: &str) -> Result<Vec<Vec<StoredEvent>>, String> {
        let partitions = self.0.iter().filter(|((name, _), _)| name == topic);
        let parse = |(offset, record): (&i64, &Record)| {
            StoredEvent::parse(record.key.clone(), &record.headers, &record.value)
                .map_err(|error| format!("{topic}@{offset}: {error}"))
        };
        partitions.map(|(_, records)| records.iter().map(parse).collect()).collect()
    }

    /// The topics in it.
    pub(crate) fn topics(&self) -> Vec<String> {
        let mut names: Vec<_> = self.0.keys().map(|(name, _)| name.clone()).collect();
        names.dedup();
        names
    }

    /// How many records.
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }
}

fn consumer(bootstrap: &str) -> Result<BaseConsumer, KafkaError> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "crash-tests")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", "20")
        .set("log_level", "0");
    config.create()
}

/// The partitions of Cairn's topics with their ends.
fn ends(consumer: &BaseConsumer, within: Duration) -> Result<BTreeMap<Place, i64>, KafkaError> {
    let metadata = consumer.fetch_metadata(None, within)?;
    let mut ends = BTreeMap::new();
    for topic in metadata.topics().iter().filter(|topic| topic.name().starts_with("mcp.")) {
        for partition in topic.partitions() {
            let (_, end) = consumer.fetch_watermarks(topic.name(), partition.id(), within)?;
            ends.insert((topic.name().to_owned(), partition.id()), end);
        }
    }
    Ok(ends)
}

fn assign(consumer: &BaseConsumer, ends: &BTreeMap<Place, i64>) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in ends.keys() {
        list.add_partition_offset(topic, *partition, Offset::Beginning)?;
    }
    consumer.assign(&list)
}

fn read_all(bootstrap: &str) -> Result<Trail, String> {
    let words = |error: KafkaError| error.to_string();
    let consumer = consumer(bootstrap).map_err(words)?;
    let mut left = ends(&consumer, ASK_WITHIN).map_err(words)?;
    assign(&consumer, &left).map_err(words)?;
    left.retain(|_, end| *end > 0);
    let (mut trail, mut findings) = (Trail::default(), Vec::new());
    let deadline = Instant::now() + READ_WITHIN;
    while !left.is_empty() {
        if Instant::now() > deadline {
            return Err(format!("not read to the end within {READ_WITHIN:?}: {left:?} left"));
        }
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let (place, offset, record) = record(&message);
        if left.get(&place).is_some_and(|end| offset + 1 >= *end) {
            left.remove(&place);
        }
        trail.take(place, offset, record, &mut findings);
    }
    if findings.is_empty() { Ok(trail) } else { Err(findings.join("; ")) }
}

fn record(message: &impl Message<Headers = rdkafka::message::BorrowedHeaders>) -> (Place, i64, Record) {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let pair = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default()))
        };
        headers.iter().map(pair).collect()
    });
    let record = Record {
        key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
        value: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        headers,
        timestamp_ms: message.timestamp().to_millis(),
    };
    ((message.topic().to_owned(), message.partition()), message.offset(), record)
}

/// A consumer that reads all the time, on a thread of its own.
pub(crate) struct Follower {
    stop: Arc<AtomicBool>,
    reading: tokio::task::JoinHandle<Result<Trail, String>>,
}

impl Follower {
    /// Reads from the beginning and on, until it is ended. Returns when it has begun, so that it sees what comes.
    pub(crate) async fn start(bootstrap: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (bootstrap, stopped) = (bootstrap.to_owned(), stop.clone());
        let (begun, began) = tokio::sync::oneshot::channel();
        let reading = tokio::task::spawn_blocking(move || follow(&bootstrap, &stopped, begun));
        // It ends without a word where Cairn is dead before anything could be seen.
        let _ = began.await;
        Self { stop, reading }
    }

    /// What it saw.
    pub(crate) async fn end(self) -> Result<Trail, String> {
        self.stop.store(true, Ordering::SeqCst);
        self.reading.await.expect("following does not panic")
    }
}

fn follow(bootstrap: &str, stop: &AtomicBool, begun: tokio::sync::oneshot::Sender<()>) -> Result<Trail, String> {
    let (mut trail, mut findings) = (Trail::default(), Vec::new());
    // Cairn may be killed before it says which partitions there are: then nothing was seen.
    let Ok(consumer) = consumer(bootstrap) else { return Ok(trail) };
    let Ok(ends) = ends(&consumer, FOLLOW_WITHIN) else { return Ok(trail) };
    if assign(&consumer, &ends).is_err() {
        return Ok(trail);
    }
    let _ = begun.send(());
    while !stop.load(Ordering::SeqCst) {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(20)) {
            let (place, offset, record) = record(&message);
            trail.take(place, offset, record, &mut findings);
        }
    }
    if findings.is_empty() { Ok(trail) } else { Err(findings.join("; ")) }
}
