//! Asking a cluster: topics, watermarks, reading. Everything here blocks and is called on threads that may.
//!
//! [`super::KafkaBackbone`] uses it. One consumer is kept assigned, without a group, so that reading on costs one fetch.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_contract::{EventRecord, Topic, TopicPrefix, TopicSpec};
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::ClientContext,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
    types::RDKafkaRespErr,
};

use tokio::time::Instant;

use super::KafkaOptions;
use crate::{Bounds, ReadError, Slice, TopicError};

const ASK_WITHIN: Duration = Duration::from_secs(10);

/// Complaints of a client that are read at once.
const COMPLAINTS_MAX: usize = 64;
/// Bytes of one append that a topic must take: what librdkafka sends at most by default.
const MESSAGE_BYTES_MIN: u64 = 1_000_000;

/// What librdkafka says of its connections. While the cluster is away it repeats itself, so its words are kept for whoever
/// asks and logged quietly.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    said: Arc<Mutex<Option<String>>>,
    down: Arc<AtomicBool>,
}

impl Watch {
    /// Its last complaint.
    pub(super) fn said(&self) -> Option<String> {
        self.said.lock().clone()
    }

    /// Whether all brokers went down since this was asked last.
    pub(super) fn took_down(&self) -> bool {
        self.down.swap(false, Ordering::Relaxed)
    }
}

impl ClientContext for Watch {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(?level, fac, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.down.store(true, Ordering::Relaxed);
        } else {
            *self.said.lock() = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Watch {}

/// The reading and asking side of a cluster.
pub(super) struct Cluster {
    consumer: BaseConsumer<Watch>,
    admin: AdminClient<Watch>,
    watch: Watch,
    replication: i32,
    min_insync_replicas: Option<u32>,
    prefix: TopicPrefix,
    assigned: Option<(Topic, u32, u64)>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("assigned", &self.assigned).finish_non_exhaustive()
    }
}

/// A consumer's configuration for reading without a group, told where a partition ends.
pub(crate) fn reading(config: &ClientConfig) -> ClientConfig {
    let mut config = config.clone();
    config
        .set("group.id", "cairn-reader")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("allow.auto.create.topics", "false")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.wait.max.ms", "50");
    config
}

impl Cluster {
    pub(super) fn new(config: &ClientConfig, options: &KafkaOptions) -> Result<Self, KafkaError> {
        let watch = Watch::default();
        Ok(Self {
            consumer: reading(config).create_with_context(watch.clone())?,
            admin: AdminClient::from_config_and_context(config, watch.clone())?,
            watch,
            replication: options.replication,
            min_insync_replicas: options.min_insync_replicas,
            prefix: options.prefix.clone(),
            assigned: None,
        })
    }

    /// Waits until the cluster answers.
    pub(super) fn wait(&self, within: Duration) -> Result<(), Silence> {
        let Err(source) = self.consumer.fetch_metadata(None, within) else { return Ok(()) };
        // Complaints wait in the client's queue until somebody polls.
        for _ in 0..COMPLAINTS_MAX {
            if self.assigned.is_some() || self.consumer.poll(Duration::from_millis(10)).is_none() {
                break;
            }
        }
        Err(Silence { reason: self.watch.said().unwrap_or_else(|| source.to_string()) })
    }

    pub(super) fn partitions(&self, topic: Topic) -> Result<u32, TopicError> {
        self.found(topic).map(|(partitions, _)| partitions)
    }

    /// How many partitions a topic has, and how many replicas the one with the fewest.
    fn found(&self, topic: Topic) -> Result<(u32, u32), TopicError> {
        let name = topic.name();
        let failed = |error: KafkaError| TopicError::Failed { topic: name, reason: error.to_string() };
        let metadata = self.consumer.fetch_metadata(Some(&self.prefix.name(topic)), ASK_WITHIN).map_err(failed)?;
        match metadata.topics().first() {
            Some(found) if found.error().is_none() && !found.partitions().is_empty() => {
                let replicas = found.partitions().iter().map(|partition| partition.replicas().len()).min();
                Ok((found.partitions().len() as u32, replicas.unwrap_or(0) as u32))
            }
            Some(found) if found.error() == Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED) => {
                Err(TopicError::Denied { topic: name })
            }
            _ => Err(TopicError::Unknown { topic: name }),
        }
    }

    /// Creates what is missing, and holds what is there to its spec.
    pub(super) fn ensure(&self, specs: &[TopicSpec]) -> Result<(), TopicError> {
        for spec in specs {
            let topic = spec.name;
            match self.found(spec.topic) {
                Ok((found, _)) if found != spec.partitions => {
                    return Err(TopicError::Partitions { topic, found, needed: spec.partitions });
                }
                Ok((_, replicas)) => {
                    let needed = self.replication.max(0).unsigned_abs();
                    if replicas < needed {
                        let (found, needed) = (replicas.to_string(), format!("{needed} or more"));
                        return Err(TopicError::Setting { topic, setting: "replication.factor", found, needed });
                    }
                    self.check_settings(spec, replicas)?;
                }
                Err(TopicError::Unknown { .. }) => self.create(spec)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn create(&self, spec: &TopicSpec) -> Result<(), TopicError> {
        let failed = |reason: String| TopicError::Failed { topic: spec.name, reason };
        let settings = settings(spec, self.min_insync_replicas);
        let name = self.prefix.name(spec.topic);
        let mut topic = NewTopic::new(&name, spec.partitions as i32, TopicReplication::Fixed(self.replication));
        for (name, value) in &settings {
            topic = topic.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(ASK_WITHIN)).request_timeout(Some(ASK_WITHIN));
        let results = tokio::runtime::Handle::current()
            .block_on(self.admin.create_topics([&topic], &options))
            .map_err(|error| failed(error.to_string()))?;
        match results.into_iter().next() {
            Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
            Some(Err((
                _,
                RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed,
            ))) => return Err(TopicError::Denied { topic: spec.name }),
            Some(Err((_, code))) => return Err(failed(code.to_string())),
            None => return Err(failed("the cluster gave no answer".to_owned())),
        }
        // Metadata follows the creation after a moment.
        for _ in 0..100 {
            match self.partitions(spec.topic) {
                Ok(found) if found == spec.partitions => return Ok(()),
                Ok(found) => return Err(TopicError::Partitions { topic: spec.name, found, needed: spec.partitions }),
                Err(TopicError::Unknown { .. }) => self.consumer.poll(Duration::from_millis(100)).map_or((), |_| ()),
                Err(error) => return Err(error),
            }
        }
        Err(TopicError::Unknown { topic: spec.name })
    }

    fn check_settings(&self, spec: &TopicSpec, replicas: u32) -> Result<(), TopicError> {
        let failed = |reason: String| TopicError::Failed { topic: spec.name, reason };
        let options = AdminOptions::new().request_timeout(Some(ASK_WITHIN));
        let asked = tokio::runtime::Handle::current().block_on(
            self.admin.describe_configs([&ResourceSpecifier::Topic(&self.prefix.name(spec.topic))], &options),
        );
        let mut found = asked.map_err(|error| failed(error.to_string()))?;
        let found = match found.pop() {
            Some(Ok(found)) => found,
            // A principal that may not describe can still write; what cannot be seen is not checked.
            Some(Err(code)) => {
                tracing::warn!(topic = spec.name, %code, "the topic's settings could not be checked");
                return Ok(());
            }
            None => return Ok(()),
        };
        let entries = found.entry_map();
        let value = |name: &str| entries.get(name).and_then(|entry| entry.value.clone());
        wrong_setting(spec, self.min_insync_replicas, replicas, value).map_or(Ok(()), Err)
    }

    pub(super) fn bounds(&self, topic: Topic, partition: u32) -> Result<Bounds, ReadError> {
        let failed = |error: KafkaError| read_error(topic, partition, &error);
        let (start, end) =
            self.consumer.fetch_watermarks(&self.prefix.name(topic), partition as i32, ASK_WITHIN).map_err(failed)?;
        Ok(Bounds { start: start.max(0) as u64, end: end.max(0) as u64 })
    }

    pub(super) fn read(
        &mut self,
        topic: Topic,
        partition: u32,
        from: u64,
        max_bytes: usize,
    ) -> Result<Slice, ReadError> {
        let failed = |error: KafkaError| read_error(topic, partition, &error);
        let bounds = self.bounds(topic, partition)?;
        let from = from.max(bounds.start);
        let mut slice = Slice { records: Vec::new(), next: from, end: bounds.end, start: bounds.start };
        if from >= bounds.end {
            return Ok(slice);
        }
        let name = self.prefix.name(topic);
        if self.assigned != Some((topic, partition, from)) {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(&name, partition as i32, Offset::Offset(from as i64)).map_err(failed)?;
            self.consumer.assign(&list).map_err(failed)?;
        }
        self.assigned = None;
        let mut bytes = 0;
        // Counted by time: complaints of an absence that is over may still be in the queue, any number of them.
        let mut moved = Instant::now();
        while slice.next < slice.end && (bytes == 0 || bytes < max_bytes) {
            match self.consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    let offset = message.offset() as u64;
                    if message.topic() != name || message.partition() != partition as i32 || offset < slice.next {
                        continue; // left over from an earlier assignment
                    }
                    let record = record_of(topic, &message);
                    bytes += record.value.len() + record.key.len();
                    slice.records.push((offset, record));
                    slice.next = offset + 1;
                    moved = Instant::now();
                }
                Some(Err(KafkaError::PartitionEOF(at))) if at == partition as i32 => {
                    slice.next = slice.next.max(bounds.end);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if !error.rdkafka_error_code().is_some_and(is_transient) => return Err(failed(error)),
                _ if moved.elapsed() > ASK_WITHIN => {
                    let reason = "the cluster gave no records".to_owned();
                    return Err(ReadError::Failed { topic, partition, reason });
                }
                _ => {}
            }
        }
        self.assigned = Some((topic, partition, slice.next));
        Ok(slice)
    }
}

/// A cluster that does not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct Silence {
    reason: String,
}

/// The first setting of a topic that loses events, changes them, or stops them. What the cluster does not tell is not judged.
fn wrong_setting(
    spec: &TopicSpec,
    min_insync_replicas: Option<u32>,
    replicas: u32,
    value: impl Fn(&str) -> Option<String>,
) -> Option<TopicError> {
    let number = |name: &str| value(name).and_then(|text| text.parse::<i64>().ok());
    let wrong =
        |setting, found: String, needed: String| Some(TopicError::Setting { topic: spec.name, setting, found, needed });
    if let Some(found) = value("cleanup.policy").filter(|policy| policy.contains("compact")) {
        return wrong("cleanup.policy", found, "delete".to_owned());
    }
    let needed = retention_ms(spec);
    if let Some(kept) = number("retention.ms").filter(|kept| *kept >= 0 && (needed < 0 || *kept < needed)) {
        let needed = if needed < 0 { "-1".to_owned() } else { format!("{needed} or more") };
        return wrong("retention.ms", kept.to_string(), needed);
    }
    if let Some(kept) = number("retention.bytes").filter(|kept| *kept >= 0) {
        return wrong("retention.bytes", kept.to_string(), "-1".to_owned());
    }
    if let Some(found) = value("message.timestamp.type").filter(|found| found != "CreateTime") {
        return wrong("message.timestamp.type", found, "CreateTime".to_owned());
    }
    if let Some(found) = number("max.message.bytes").filter(|found| (0..MESSAGE_BYTES_MIN as i64).contains(found)) {
        return wrong("max.message.bytes", found.to_string(), format!("{MESSAGE_BYTES_MIN} or more"));
    }
    let insync = number("min.insync.replicas").unwrap_or(1);
    if let Some(needed) = min_insync_replicas.filter(|needed| insync < i64::from(*needed)) {
        return wrong("min.insync.replicas", insync.to_string(), format!("{needed} or more"));
    }
    if insync > i64::from(replicas) && replicas > 0 {
        let needed =
            format!("{replicas} or fewer, because the topic has no more replicas and nothing could be written");
        return wrong("min.insync.replicas", insync.to_string(), needed);
    }
    None
}

fn is_transient(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::OperationTimedOut
    )
}

fn read_error(topic: Topic, partition: u32, error: &KafkaError) -> ReadError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic,
        ) => ReadError::Unknown { topic, partition },
        _ => ReadError::Failed { topic, partition, reason: error.to_string() },
    }
}

/// A message as the record that it was.
fn record_of(topic: Topic, message: &BorrowedMessage<'_>) -> EventRecord {
    let headers = message.headers().map(|headers| {
        let pair = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default()))
        };
        headers.iter().map(pair).collect()
    });
    EventRecord {
        topic,
        key: Bytes::copy_from_slice(message.key().unwrap_or_default()),
        headers: headers.unwrap_or_default(),
        value: Bytes::copy_from_slice(message.payload().unwrap_or_default()),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
    }
}

/// A topic's settings, as it is created with.
pub(crate) fn settings(spec: &TopicSpec, min_insync_replicas: Option<u32>) -> BTreeMap<&'static str, String> {
    let mut settings = BTreeMap::from([
        ("cleanup.policy", "delete".to_owned()),
        ("max.message.bytes", "1048588".to_owned()),
        ("message.timestamp.type", "CreateTime".to_owned()),
        ("retention.bytes", "-1".to_owned()),
        ("retention.ms", retention_ms(spec).to_string()),
    ]);
    if let Some(replicas) = min_insync_replicas {
        settings.insert("min.insync.replicas", replicas.to_string());
    }
    settings
}

fn retention_ms(spec: &TopicSpec) -> i64 {
    spec.retention.map_or(-1, |kept| i64::try_from(kept.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(pairs: &[(&str, &str)]) -> Option<String> {
        let value = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        wrong_setting(&Topic::Calls.spec(), Some(2), 3, value).map(|error| error.to_string())
    }

    #[test]
    fn a_setting_that_loses_changes_or_stops_events_is_named() {
        let right = [
            ("cleanup.policy", "delete"),
            ("retention.ms", "34560000000"),
            ("retention.bytes", "-1"),
            ("message.timestamp.type", "CreateTime"),
            ("max.message.bytes", "1048588"),
            ("min.insync.replicas", "2"),
        ];
        assert_eq!(fault(&right), None);
        assert_eq!(fault(&[("min.insync.replicas", "2")]), None, "what is not told is not judged");
        for wrong in [
            ("cleanup.policy", "compact,delete"),
            ("retention.ms", "604800000"),
            ("retention.bytes", "1000"),
            ("message.timestamp.type", "LogAppendTime"),
            ("max.message.bytes", "10000"),
            ("min.insync.replicas", "1"),
            ("min.insync.replicas", "4"),
        ] {
            let mut settings = right.to_vec();
            settings.retain(|(name, _)| *name != wrong.0);
            settings.push(wrong);
            let words = fault(&settings).unwrap_or_default();
            assert!(words.contains(wrong.0) && words.contains(wrong.1) && words.contains("topics plan"), "{words}");
        }
    }

    #[test]
    fn what_is_created_passes_the_check() {
        for spec in cairn_contract::topics() {
            let settings = settings(&spec, Some(2));
            let value = |name: &str| settings.get(name).cloned();
            assert!(wrong_setting(&spec, Some(2), 3, value).is_none());
        }
    }
}
