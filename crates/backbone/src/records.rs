//! Raw records by the Kafka protocol: what evidence is built from and verified against, byte for byte.
//!
//! Unlike [`crate::reader`] nothing is parsed: key, headers and value are what the backbone holds, absent where they are
//! absent. It blocks, and is called on threads that may. Memory is bounded by librdkafka's queue. It must never commit an offset,
//! never create a topic and never skip a record.

pub(crate) mod topic_ids;

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::{BorrowedMessage, Headers},
    types::RDKafkaErrorCode,
};
use uuid::Uuid;

use crate::{
    kafka::{client_config, reading},
    reader::{ReaderError, is_transient},
};
use topic_ids::Way;

const ASK_WITHIN: Duration = Duration::from_secs(10);

/// A record as the backbone holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RawRecord {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The timestamp, in milliseconds since 1970; -1 where there is none.
    pub timestamp_ms: i64,
    /// The key, where there is one.
    pub key: Option<Bytes>,
    /// The headers, in order; one without a value counts as one of length 0.
    pub headers: Vec<(String, Bytes)>,
    /// The value, where there is one.
    pub value: Option<Bytes>,
}

/// A partition, with the offsets of its first kept record and behind its last one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Bounded {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The first record that is kept.
    pub start: u64,
    /// The offset after the last one.
    pub end: u64,
}

/// A reader of raw records. Every partition is assigned by hand.
pub struct Records {
    consumer: BaseConsumer,
    bootstrap: String,
    way: Option<Way>,
}

impl std::fmt::Debug for Records {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Records").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

impl Records {
    /// A reader of that cluster; nothing is asked of it yet.
    ///
    /// # Errors
    /// Properties that are wrong.
    pub fn open(bootstrap: &str, properties: &BTreeMap<String, String>) -> Result<Self, ReaderError> {
        let mut config = reading(&client_config(bootstrap, properties)?);
        config.set("isolation.level", "read_committed").set("log_level", "3");
        let way = Way::of(&config);
        let failed = |source| ReaderError::Kafka { bootstrap: bootstrap.to_owned(), source };
        let consumer = config.create().map_err(failed)?;
        Ok(Self { consumer, bootstrap: bootstrap.to_owned(), way })
    }

    /// The cluster's own id.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        self.consumer.client().fetch_cluster_id(ASK_WITHIN)
    }

    /// Each topic's id, where the cluster has ids and can be asked: librdkafka does not tell them, so a connection of our own
    /// does, with TLS and SASL PLAIN where these are configured. Empty otherwise.
    #[must_use]
    pub fn topic_ids(&self) -> BTreeMap<String, Uuid> {
        topic_ids::ask_any(&self.bootstrap, self.way.as_ref())
    }

    /// The partitions of every topic that `wanted` takes, with their bounds, in order.
    ///
    /// # Errors
    /// A cluster that does not answer.
    pub fn partitions(&self, wanted: impl Fn(&str) -> bool) -> Result<Vec<Bounded>, ReaderError> {
        let metadata = self.consumer.fetch_metadata(None, ASK_WITHIN).map_err(|source| self.failed(source))?;
        let mut found = Vec::new();
        for topic in metadata.topics().iter().filter(|topic| wanted(topic.name())) {
            for partition in topic.partitions() {
                let bounds = self.consumer.fetch_watermarks(topic.name(), partition.id(), ASK_WITHIN);
                let (start, end) = bounds.map_err(|source| self.failed(source))?;
                let number = |offset: i64| u64::try_from(offset).unwrap_or_default();
                let partition = u32::try_from(partition.id()).unwrap_or_default();
                found.push(Bounded {
                    topic: topic.name().to_owned(),
                    partition,
                    start: number(start),
                    end: number(end),
                });
            }
        }
        found.sort();
        Ok(found)
    }

    /// The bounds of one partition now.
    ///
    /// # Errors
    /// A cluster that does not answer.
    pub fn bounds(&self, topic: &str, partition: u32) -> Result<(u64, u64), ReaderError> {
        let bounds = self.consumer.fetch_watermarks(topic, partition as i32, ASK_WITHIN);
        let (start, end) = bounds.map_err(|source| self.failed(source))?;
        Ok((start.unsigned_abs(), end.unsigned_abs()))
    }

    /// The first offset of each of these partitions whose record is not older than `time_ms`, in their order; its end where
    /// none is that young.
    ///
    /// # Errors
    /// A cluster that does not answer.
    pub fn offsets_at(&self, partitions: &[Bounded], time_ms: i64) -> Result<Vec<u64>, ReaderError> {
        let mut times = TopicPartitionList::new();
        for Bounded { topic, partition, .. } in partitions {
            let at = Offset::Offset(time_ms.max(0));
            times.add_partition_offset(topic, *partition as i32, at).map_err(|source| self.failed(source))?;
        }
        let found = self.consumer.offsets_for_times(times, ASK_WITHIN).map_err(|source| self.failed(source))?;
        let of = |bounded: &Bounded| {
            let at = found.find_partition(&bounded.topic, bounded.partition as i32)?.offset().to_raw()?;
            u64::try_from(at).ok()
        };
        Ok(partitions.iter().map(|bounded| of(bounded).unwrap_or(bounded.end)).collect())
    }

    /// Reads these partitions from these offsets on, and no others.
    ///
    /// # Errors
    /// librdkafka refuses the list.
    pub fn assign<'p>(&self, from: impl IntoIterator<Item = (&'p str, u32, u64)>) -> Result<(), ReaderError> {
        let mut list = TopicPartitionList::new();
        for (topic, partition, offset) in from {
            let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
            list.add_partition_offset(topic, partition as i32, offset).map_err(|source| self.failed(source))?;
        }
        self.consumer.assign(&list).map_err(|source| self.failed(source))
    }

    /// The next record; `None` where none came within `wait`.
    ///
    /// # Errors
    /// A cluster that refuses. One that is away for a while is waited for.
    pub fn poll(&self, wait: Duration) -> Result<Option<RawRecord>, ReaderError> {
        let message = match self.consumer.poll(wait) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => return Ok(None),
            Some(Err(source)) if source.rdkafka_error_code().is_some_and(is_transient) => return Ok(None),
            Some(Err(source)) => return Err(self.failed(source)),
            Some(Ok(message)) => message,
        };
        Ok(Some(raw(&message)))
    }

    /// Where reading of a partition stands: past what was polled, and past what a transaction left unreadable.
    #[must_use]
    pub fn position(&self, topic: &str, partition: u32) -> Option<u64> {
        let list = self.consumer.position().ok()?;
        let at = list.find_partition(topic, partition as i32)?.offset().to_raw()?;
        u64::try_from(at).ok()
    }

    fn failed(&self, source: KafkaError) -> ReaderError {
        ReaderError::Kafka { bootstrap: self.bootstrap.clone(), source }
    }
}

/// A record as librdkafka gives it.
pub(crate) fn raw(message: &BorrowedMessage<'_>) -> RawRecord {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let copied = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default()))
        };
        headers.iter().map(copied).collect()
    });
    RawRecord {
        topic: message.topic().to_owned(),
        partition: message.partition().unsigned_abs(),
        offset: message.offset().unsigned_abs(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(Bytes::copy_from_slice),
        headers,
        value: message.payload().map(Bytes::copy_from_slice),
    }
}

/// Whether asking again later may help.
#[must_use]
pub fn may_pass(error: &ReaderError) -> bool {
    matches!(error, ReaderError::Kafka { source, .. } if source.rdkafka_error_code() != Some(RDKafkaErrorCode::Authentication))
}
