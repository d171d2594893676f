//! Reading events by the Kafka protocol, without a group: what `cairn tail` and `cairn trail` stand on.
//!
//! It works the same on the embedded log and on somebody else's cluster. Every partition of the topics is assigned by hand, so
//! a reader disturbs nobody and leaves no trace. Order holds within a partition. Memory is bounded: a reader that is not asked
//! for more does not fetch more. It must never commit an offset and never create a topic.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use cairn_contract::{StoredError, StoredEvent, topics};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
};
use tokio::sync::mpsc;

use crate::kafka::{PropertyError, client_config, reading};

/// Events that wait for the caller.
const QUEUE_MAX: usize = 512;
const ASK_WITHIN: Duration = Duration::from_secs(10);

/// Where a reader begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum From {
    /// At the first record that is still kept.
    Earliest,
    /// Behind the last record: only what comes from now on.
    Tail,
    /// That many records before the end of each partition.
    Last(u64),
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

/// A stream of entries.
#[derive(Debug)]
pub struct Reader {
    entries: mpsc::Receiver<Result<Entry, ReaderError>>,
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
            let left = assign(&consumer, &options)?;
            Ok((consumer, left, options))
        });
        let opened = opened.await.expect("opening a reader does not panic");
        let (consumer, left, options) = opened.map_err(|source| ReaderError::Kafka { bootstrap, source })?;
        let (sender, entries) = mpsc::channel(QUEUE_MAX);
        let ended = tokio::task::spawn_blocking(move || pump(&consumer, left, &options, &sender));
        Ok(Self { entries, ended: Some(ended) })
    }

    /// The next entry; `None` at the end.
    ///
    /// # Errors
    /// A cluster that refuses. One that is away for a while is waited for.
    pub async fn next(&mut self) -> Option<Result<Entry, ReaderError>> {
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

fn assign(consumer: &BaseConsumer, options: &ReaderOptions) -> Result<Left, KafkaError> {
    let metadata = consumer.fetch_metadata(None, ASK_WITHIN)?;
    let (mut list, mut left) = (TopicPartitionList::new(), Left::new());
    for topic in metadata.topics().iter().filter(|topic| options.topics.iter().any(|name| name == topic.name())) {
        for partition in topic.partitions() {
            let (start, end) = consumer.fetch_watermarks(topic.name(), partition.id(), ASK_WITHIN)?;
            let from = match options.from {
                From::Earliest => start,
                From::Tail => end,
                From::Last(records) => end.saturating_sub(i64::try_from(records).unwrap_or(i64::MAX)).max(start),
            };
            list.add_partition_offset(topic.name(), partition.id(), Offset::Offset(from))?;
            if from < end {
                left.insert((topic.name().to_owned(), partition.id()), end);
            }
        }
    }
    consumer.assign(&list)?;
    Ok(left)
}

/// Runs on a thread of its own until the end, an error, or until nobody listens.
fn pump(
    consumer: &BaseConsumer,
    mut left: Left,
    options: &ReaderOptions,
    sender: &mpsc::Sender<Result<Entry, ReaderError>>,
) {
    while !(sender.is_closed() || options.until_end && left.is_empty()) {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let place = (message.topic().to_owned(), message.partition());
                let end = left.get(&place).copied();
                let past = options.until_end && end.is_none_or(|end| message.offset() >= end);
                if end.is_some_and(|end| message.offset() + 1 >= end) {
                    left.remove(&place);
                }
                if !past && sender.blocking_send(Ok(entry(&message))).is_err() {
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

fn is_transient(code: rdkafka::types::RDKafkaErrorCode) -> bool {
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
