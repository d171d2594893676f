//! Asking a cluster: topics, watermarks, reading. Everything here blocks and is called on threads that may.
//!
//! [`super::KafkaBackbone`] uses it. One consumer is kept assigned, without a group, so that reading on costs one fetch.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use cairn_contract::{EventRecord, Topic, TopicSpec};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfig,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};

use super::KafkaOptions;
use crate::{Bounds, ReadError, Slice, TopicError};

const ASK_WITHIN: Duration = Duration::from_secs(10);

/// The reading and asking side of a cluster.
pub(super) struct Cluster {
    consumer: BaseConsumer,
    admin: AdminClient<DefaultClientContext>,
    replication: i32,
    min_insync_replicas: Option<u32>,
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
        Ok(Self {
            consumer: reading(config).create()?,
            admin: AdminClient::from_config(config)?,
            replication: options.replication,
            min_insync_replicas: options.min_insync_replicas,
            assigned: None,
        })
    }

    /// Waits until the cluster answers.
    pub(super) fn wait(&self, within: Duration) -> Result<(), KafkaError> {
        self.consumer.fetch_metadata(None, within).map(|_| ())
    }

    pub(super) fn partitions(&self, topic: Topic) -> Result<u32, TopicError> {
        let name = topic.name();
        let failed = |error: KafkaError| TopicError::Failed { topic: name, reason: error.to_string() };
        let metadata = self.consumer.fetch_metadata(Some(name), ASK_WITHIN).map_err(failed)?;
        match metadata.topics().first() {
            Some(found) if found.error().is_none() && !found.partitions().is_empty() => {
                Ok(found.partitions().len() as u32)
            }
            _ => Err(TopicError::Unknown { topic: name }),
        }
    }

    /// Creates what is missing, and holds what is there to its spec.
    pub(super) fn ensure(&self, specs: &[TopicSpec]) -> Result<(), TopicError> {
        for spec in specs {
            match self.partitions(spec.topic) {
                Ok(found) if found == spec.partitions => self.check_settings(spec)?,
                Ok(found) => return Err(TopicError::Partitions { topic: spec.name, found, needed: spec.partitions }),
                Err(TopicError::Unknown { .. }) => self.create(spec)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn create(&self, spec: &TopicSpec) -> Result<(), TopicError> {
        let failed = |reason: String| TopicError::Failed { topic: spec.name, reason };
        let settings = settings(spec, self.min_insync_replicas);
        let mut topic = NewTopic::new(spec.name, spec.partitions as i32, TopicReplication::Fixed(self.replication));
        for (name, value) in &settings {
            topic = topic.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(ASK_WITHIN)).request_timeout(Some(ASK_WITHIN));
        let results = tokio::runtime::Handle::current()
            .block_on(self.admin.create_topics([&topic], &options))
            .map_err(|error| failed(error.to_string()))?;
        match results.into_iter().next() {
            Some(Ok(_)) | Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
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

    fn check_settings(&self, spec: &TopicSpec) -> Result<(), TopicError> {
        let failed = |reason: String| TopicError::Failed { topic: spec.name, reason };
        let options = AdminOptions::new().request_timeout(Some(ASK_WITHIN));
        let asked = tokio::runtime::Handle::current()
            .block_on(self.admin.describe_configs([&ResourceSpecifier::Topic(spec.name)], &options));
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
        let value = |name: &str| found.entry_map().get(name).and_then(|entry| entry.value.clone());
        if let Some(found) = value("cleanup.policy").filter(|policy| policy.contains("compact")) {
            let needed = "delete".to_owned();
            return Err(TopicError::Setting { topic: spec.name, setting: "cleanup.policy", found, needed });
        }
        let kept = value("retention.ms").and_then(|text| text.parse::<i64>().ok());
        let needed = retention_ms(spec);
        if kept.is_some_and(|kept| kept >= 0 && (needed < 0 || kept < needed)) {
            let found = kept.unwrap_or_default().to_string();
            return Err(TopicError::Setting {
                topic: spec.name,
                setting: "retention.ms",
                found,
                needed: needed.to_string(),
            });
        }
        let insync = value("min.insync.replicas").and_then(|text| text.parse::<u32>().ok());
        if let (Some(needed), Some(found)) = (self.min_insync_replicas, insync)
            && found < needed
        {
            let (found, needed) = (found.to_string(), needed.to_string());
            return Err(TopicError::Setting { topic: spec.name, setting: "min.insync.replicas", found, needed });
        }
        Ok(())
    }

    pub(super) fn bounds(&self, topic: Topic, partition: u32) -> Result<Bounds, ReadError> {
        let failed = |error: KafkaError| read_error(topic, partition, &error);
        let (start, end) =
            self.consumer.fetch_watermarks(topic.name(), partition as i32, ASK_WITHIN).map_err(failed)?;
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
        if self.assigned != Some((topic, partition, from)) {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(topic.name(), partition as i32, Offset::Offset(from as i64)).map_err(failed)?;
            self.consumer.assign(&list).map_err(failed)?;
        }
        self.assigned = None;
        let (mut bytes, mut waits) = (0, 0);
        while slice.next < slice.end && (bytes == 0 || bytes < max_bytes) {
            match self.consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    let offset = message.offset() as u64;
                    if message.topic() != topic.name() || message.partition() != partition as i32 || offset < slice.next
                    {
                        continue; // left over from an earlier assignment
                    }
                    let record = record_of(topic, &message);
                    bytes += record.value.len() + record.key.len();
                    slice.records.push((offset, record));
                    slice.next = offset + 1;
                }
                Some(Err(KafkaError::PartitionEOF(_))) => slice.next = slice.next.max(bounds.end),
                Some(Err(error)) if !error.rdkafka_error_code().is_some_and(is_transient) => return Err(failed(error)),
                _ => {
                    waits += 1;
                    if waits > 20 {
                        return Err(ReadError::Failed {
                            topic,
                            partition,
                            reason: "the cluster gave no records".to_owned(),
                        });
                    }
                }
            }
        }
        self.assigned = Some((topic, partition, slice.next));
        Ok(slice)
    }
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
