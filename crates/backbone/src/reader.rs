//! Reading events by the Kafka protocol, without a group: what `cairn tail` and `cairn trail` stand on.
//!
//! It works the same on the embedded log and on somebody else's cluster. Every partition of the topics is assigned by hand, so
//! a reader disturbs nobody and leaves no trace. Order holds within a partition. Memory is bounded: a reader that is not asked
//! for more does not fetch more. It must never commit an offset and never create a topic.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use cairn_clock::{Clock, Timestamp};
use cairn_contract::{StoredError, StoredEvent, Topic, partition_for, topics};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
    metadata::Metadata,
};
use tokio::{sync::mpsc, time::Instant};

use crate::kafka::{PropertyError, client_config, reading};

/// Events that wait for the caller.
const QUEUE_MAX: usize = 512;
const ASK_WITHIN: Duration = Duration::from_secs(10);
/// A look at the ends must not keep records waiting.
const LOOK_WITHIN: Duration = Duration::from_millis(500);
/// How soon what a look found is compared with what was read again.
const AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Where a reader begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// At the first record that is still kept.
    Earliest,
    /// Behind the last record: only what comes from now on.
    Tail,
    /// That many records before the end of each partition.
    Last(u64),
    /// At the first record that is not older than this, in milliseconds since 1970.
    Since(i64),
}

/// What to read.
#[derive(Clone)]
pub struct ReaderOptions {
    /// `host:port`, several with commas.
    pub bootstrap: String,
    /// librdkafka properties, as in [`crate::KafkaOptions`].
    pub properties: BTreeMap<String, String>,
    /// The topics; those that do not exist are left out.
    pub topics: Vec<String>,
    /// Where to begin.
    pub from: From,
    /// Whether to end where the partitions ended when the reader was opened, instead of waiting for more.
    pub until_end: bool,
    /// How often to look how far the partitions go, and to say so once all of that is handed over.
    pub look_every: Option<Duration>,
    /// Of topics that are keyed by workflow only the partition in which this one's events lie.
    pub workflow: Option<String>,
}

impl ReaderOptions {
    /// Everything in Cairn's topics, from the beginning to the present end.
    #[must_use]
    pub fn all(bootstrap: impl Into<String>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            properties: BTreeMap::new(),
            topics: topics().iter().map(|spec| spec.name.to_owned()).collect(),
            from: From::Earliest,
            until_end: true,
            look_every: None,
            workflow: None,
        }
    }
}

impl std::fmt::Debug for ReaderOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReaderOptions")
            .field("bootstrap", &self.bootstrap)
            .field("topics", &self.topics)
            .field("from", &self.from)
            .field("until_end", &self.until_end)
            .finish_non_exhaustive()
    }
}

/// A record of one of the topics.
#[derive(Debug)]
pub struct Entry {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The record's timestamp, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The event, or why the record is none.
    pub event: Result<StoredEvent, StoredError>,
}

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReaderError {
    /// A property is wrong.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// The cluster does not answer, or refuses.
    #[error("{bootstrap} cannot be read: {source}; check that a backbone runs there")]
    Kafka {
        /// Where.
        bootstrap: String,
        /// What librdkafka said.
        source: KafkaError,
    },
}

/// What a reader says.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all of them are entries")]
pub enum Said {
    /// The next record.
    Entry(Entry),
    /// At this moment the partitions held nothing that was not handed over before.
    CaughtUp(Timestamp),
}

/// A stream of entries.
#[derive(Debug)]
pub struct Reader {
    entries: mpsc::Receiver<Result<Said, ReaderError>>,
    ended: Option<tokio::task::JoinHandle<()>>,
}

impl Reader {
    /// Finds the partitions and begins to read.
    ///
    /// # Errors
    /// Wrong properties, or a cluster that does not answer.
    pub async fn open(options: ReaderOptions) -> Result<Self, ReaderError> {
        let config = client_config(&options.bootstrap, &options.properties)?;
        let bootstrap = options.bootstrap.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let mut config = reading(&config);
            config.set("queued.min.messages", "1000");
            let consumer: BaseConsumer = config.create()?;
            let assigned = assign(&consumer, &options)?;
            Ok((consumer, assigned, options))
        });
        let opened = opened.await.expect("opening a reader does not panic");
        let (consumer, assigned, options) = opened.map_err(|source| ReaderError::Kafka { bootstrap, source })?;
        let (sender, entries) = mpsc::channel(QUEUE_MAX);
        let ended = tokio::task::spawn_blocking(move || pump(&consumer, assigned, &options, &sender));
        Ok(Self { entries, ended: Some(ended) })
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// A cluster that refuses. One that is away for a while is waited for.
    pub async fn next(&mut self) -> Option<Result<Entry, ReaderError>> {
        loop {
            match self.entries.recv().await? {
                Ok(Said::Entry(entry)) => return Some(Ok(entry)),
                Ok(Said::CaughtUp(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// The next entry, or that there is none; `None` at the end.
    ///
    /// # Errors
    /// A cluster that refuses. One that is away for a while is waited for, and nothing is said meanwhile.
    pub async fn next_said(&mut self) -> Option<Result<Said, ReaderError>> {
        self.entries.recv().await
    }

    /// Stops, and waits until the connections are closed.
    pub async fn close(mut self) {
        self.entries.close();
        if let Some(ended) = self.ended.take() {
            let _ = ended.await;
        }
    }
}

/// Partitions that are not read to their end yet, with that end.
type Left = HashMap<(String, i32), i64>;

/// Where each partition is read from, and to where it went at that moment.
struct Assigned {
    left: Left,
    starts: HashMap<(String, i32), i64>,
}

fn assign(consumer: &BaseConsumer, options: &ReaderOptions) -> Result<Assigned, KafkaError> {
    let metadata = consumer.fetch_metadata(None, ASK_WITHIN)?;
    let (mut list, mut left, mut starts) = (TopicPartitionList::new(), Left::new(), HashMap::new());
    let since = match options.from {
        From::Since(time) => Some(offsets_at(consumer, options, &metadata, time)?),
        From::Earliest | From::Tail | From::Last(_) => None,
    };
    for topic in metadata.topics().iter().filter(|topic| options.topics.iter().any(|name| name == topic.name())) {
        let own = options.workflow.as_deref().filter(|_| is_keyed_by_workflow(topic.name()));
        let own = own.map(|workflow| partition_for(workflow.as_bytes(), topic.partitions().len() as u32));
        let is_own = |partition: i32| own.is_none_or(|own| u32::try_from(partition) == Ok(own));
        for partition in topic.partitions().iter().filter(|partition| is_own(partition.id())) {
            let (start, end) = consumer.fetch_watermarks(topic.name(), partition.id(), ASK_WITHIN)?;
            let from = match options.from {
                From::Earliest => start,
                From::Tail => end,
                From::Last(records) => end.saturating_sub(i64::try_from(records).unwrap_or(i64::MAX)).max(start),
                From::Since(_) => {
                    let found = since.as_ref().and_then(|list| list.find_partition(topic.name(), partition.id()));
                    // Nothing that young: at the end.
                    found.and_then(|at| at.offset().to_raw()).filter(|at| *at >= 0).unwrap_or(end)
                }
            };
            list.add_partition_offset(topic.name(), partition.id(), Offset::Offset(from))?;
            starts.insert((topic.name().to_owned(), partition.id()), from);
            if from < end {
                left.insert((topic.name().to_owned(), partition.id()), end);
            }
        }
    }
    consumer.assign(&list)?;
    Ok(Assigned { left, starts })
}

/// Whether all events of one workflow lie in one partition of the topic.
fn is_keyed_by_workflow(topic: &str) -> bool {
    Topic::of_anybody(topic).is_some_and(Topic::is_by_workflow)
}

/// The partitions of the wanted topics, each with what a broker is asked about it.
fn partitions(options: &ReaderOptions, metadata: &Metadata, ask: i64) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for topic in metadata.topics().iter().filter(|topic| options.topics.iter().any(|name| name == topic.name())) {
        for partition in topic.partitions() {
            list.add_partition_offset(topic.name(), partition.id(), Offset::from_raw(ask))?;
        }
    }
    Ok(list)
}

fn offsets_at(
    consumer: &BaseConsumer,
    options: &ReaderOptions,
    metadata: &Metadata,
    time: i64,
) -> Result<TopicPartitionList, KafkaError> {
    consumer.offsets_for_times(partitions(options, metadata, time.max(0))?, ASK_WITHIN)
}

/// Looks from time to time how far the partitions go, and says so once all of that was handed over. While records keep
/// coming that is never all that there is, so each look is for what was there at its own moment.
struct Lookout {
    starts: HashMap<(String, i32), i64>,
    every: Option<Duration>,
    next: Instant,
    clock: Clock,
    /// The ends that were seen, and when, while not all of it is read yet.
    pending: Option<(Timestamp, TopicPartitionList)>,
}

impl Lookout {
    /// The moment of the last look, once everything is read that was there at it.
    fn look(&mut self, consumer: &BaseConsumer) -> Option<Timestamp> {
        let every = self.every.filter(|_| Instant::now() >= self.next)?;
        if self.pending.is_none() {
            self.next = Instant::now() + every;
            let asked = self.clock.now();
            let mut ends = consumer.assignment().ok()?;
            ends.set_all_offsets(Offset::End).ok()?;
            let ends = consumer.offsets_for_times(ends, LOOK_WITHIN).ok()?;
            if ends.elements().iter().any(|end| end.error().is_err()) {
                return None;
            }
            self.pending = Some((asked, ends));
        }
        let (asked, ends) = self.pending.as_ref()?;
        let at = consumer.position().ok()?;
        let all_read = ends.elements().iter().all(|end| {
            let place = at.find_partition(end.topic(), end.partition());
            let place = place.and_then(|place| place.offset().to_raw()).filter(|offset| *offset >= 0);
            // Nothing was read yet: then what is left begins where the assignment does.
            let read = place.or_else(|| self.starts.get(&(end.topic().to_owned(), end.partition())).copied());
            read.zip(end.offset().to_raw()).is_some_and(|(read, end)| read >= end)
        });
        let asked = *asked;
        if all_read {
            self.pending = None;
            return Some(asked);
        }
        self.next = Instant::now() + AGAIN_AFTER;
        None
    }
}

/// Runs on a thread of its own until the end, an error, or until nobody listens.
fn pump(
    consumer: &BaseConsumer,
    Assigned { mut left, starts }: Assigned,
    options: &ReaderOptions,
    sender: &mpsc::Sender<Result<Said, ReaderError>>,
) {
    let mut lookout =
        Lookout { starts, every: options.look_every, next: Instant::now(), clock: Clock::system(), pending: None };
    while !(sender.is_closed() || options.until_end && left.is_empty()) {
        if let Some(at) = lookout.look(consumer)
            && sender.blocking_send(Ok(Said::CaughtUp(at))).is_err()
        {
            return;
        }
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let place = (message.topic().to_owned(), message.partition());
                let end = left.get(&place).copied();
                let past = options.until_end && end.is_none_or(|end| message.offset() >= end);
                if end.is_some_and(|end| message.offset() + 1 >= end) {
                    left.remove(&place);
                }
                if !past && sender.blocking_send(Ok(Said::Entry(entry(&message)))).is_err() {
                    return;
                }
            }
            // Told for the topic's every partition; those that have ended have nothing left.
            Some(Err(KafkaError::PartitionEOF(_))) | None => {
                left.retain(|(topic, partition), end| position(consumer, topic, *partition).is_none_or(|at| at < *end));
            }
            Some(Err(source)) if source.rdkafka_error_code().is_some_and(is_transient) => {}
            Some(Err(source)) => {
                let bootstrap = options.bootstrap.clone();
                let _ = sender.blocking_send(Err(ReaderError::Kafka { bootstrap, source }));
                return;
            }
        }
    }
}

fn position(consumer: &BaseConsumer, topic: &str, partition: i32) -> Option<i64> {
    let list = consumer.position().ok()?;
    list.find_partition(topic, partition)?.offset().to_raw().filter(|offset| *offset >= 0)
}

/// Whether what librdkafka says passes by itself: a broker that is away for a while.
#[must_use]
pub fn is_transient(code: rdkafka::types::RDKafkaErrorCode) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::OperationTimedOut
            | Code::Resolve
            | Code::RequestTimedOut
    )
}

fn entry(message: &BorrowedMessage<'_>) -> Entry {
    let headers: Vec<_> = message.headers().map_or_else(Vec::new, |headers| {
        let pair = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), bytes::Bytes::copy_from_slice(header.value.unwrap_or_default()))
        };
        headers.iter().map(pair).collect()
    });
    let key = bytes::Bytes::copy_from_slice(message.key().unwrap_or_default());
    Entry {
        topic: message.topic().to_owned(),
        partition: message.partition() as u32,
        offset: message.offset() as u64,
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        event: StoredEvent::parse(key, &headers, message.payload().unwrap_or_default()),
    }
}
