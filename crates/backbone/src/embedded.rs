//! The embedded log as backbone: the broker of this process, entered by the very function that Produce uses.
//!
//! The wiring opens one beside the broker's listener, so that what is appended here is what any Kafka client reads. An append
//! is one batch: it is stored whole or not at all. It must never bypass the broker's checks.

use std::time::Duration;

use async_trait::async_trait;
use cairn_broker::{
    Broker, FetchError, Principal, ProduceError,
    batch::{BatchBuilder, DECOMPRESSED_BYTES_MAX, decode},
};
use cairn_contract::{EventRecord, Topic, TopicPrefix, TopicSpec};
use cairn_log::{Offset, PartitionIndex};

use crate::{AppendError, Appended, Backbone, Bounds, ReadError, Slice, TopicError};

/// The broker of this process as backbone.
#[derive(Clone, Debug)]
pub struct EmbeddedBackbone(Broker, TopicPrefix);

impl EmbeddedBackbone {
    /// Appends to and reads from this broker, as Cairn itself.
    #[must_use]
    pub fn new(broker: Broker) -> Self {
        Self(broker, TopicPrefix::default())
    }

    /// The same for the topics of a tenant.
    #[must_use]
    pub fn of_tenant(self, prefix: TopicPrefix) -> Self {
        Self(self.0, prefix)
    }

    fn name(&self, topic: Topic) -> std::borrow::Cow<'static, str> {
        self.1.name(topic)
    }

    async fn fetch(
        &self,
        topic: Topic,
        partition: u32,
        from: u64,
        max_bytes: usize,
    ) -> Result<cairn_broker::Fetched, FetchError> {
        let index = PartitionIndex::new(partition);
        self.0.fetch(&self.name(topic), index, Offset::new(from), max_bytes, Duration::ZERO).await
    }

    fn stream(&self, topic: Topic, partition: u32) -> Result<Bounds, ReadError> {
        let unknown = ReadError::Unknown { topic, partition };
        let Some(found) = self.0.topic(&self.name(topic)).filter(|found| partition < found.partitions) else {
            return Err(unknown);
        };
        let id = cairn_log::StreamId { topic: found.id, partition: PartitionIndex::new(partition) };
        let bounds = self.0.log().bounds(id).map_err(|error| failed(topic, partition, &error))?;
        Ok(Bounds { start: bounds.log_start.get(), end: bounds.durable_end.get() })
    }
}

fn failed(topic: Topic, partition: u32, error: &dyn std::fmt::Display) -> ReadError {
    ReadError::Failed { topic, partition, reason: error.to_string() }
}

#[async_trait]
impl Backbone for EmbeddedBackbone {
    async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), TopicError> {
        for spec in specs {
            let name = self.name(spec.topic);
            if self.0.topic(&name).is_none() {
                let retention = spec.retention.map_or(-1, |kept| i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
                let configs = [("cleanup.policy", "delete".to_owned()), ("retention.ms", retention.to_string())];
                let topic = cairn_broker::TopicSpec {
                    name: name.into_owned(),
                    partitions: Some(spec.partitions),
                    configs: configs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
                };
                match self.0.create_topic(&Principal::Internal, topic).await {
                    Ok(_) | Err(cairn_broker::TopicError::Exists { .. }) => {}
                    Err(error) => return Err(TopicError::Failed { topic: spec.name, reason: error.to_string() }),
                }
            }
            let found = self.partitions(spec.topic).await?;
            if found != spec.partitions {
                return Err(TopicError::Partitions { topic: spec.name, found, needed: spec.partitions });
            }
        }
        Ok(())
    }

    async fn partitions(&self, topic: Topic) -> Result<u32, TopicError> {
        let found = self.0.topic(&self.name(topic)).ok_or(TopicError::Unknown { topic: topic.name() })?;
        Ok(found.partitions)
    }

    async fn append(&self, topic: Topic, partition: u32, records: Vec<EventRecord>) -> Result<Appended, AppendError> {
        let mut builder = BatchBuilder::new();
        for record in &records {
            builder.push(record.timestamp_ms, Some(&record.key), Some(&record.value), &record.headers);
        }
        let Some(batch) = builder.build() else {
            return Err(AppendError::Failed { reason: "an append holds at least one record".to_owned() });
        };
        let index = PartitionIndex::new(partition);
        match self.0.produce(&Principal::Internal, &self.name(topic), index, batch).await {
            Ok(offset) => Ok(Appended { offset: Some(offset.get()), floor: offset.get() }),
            Err(ProduceError::Append(error)) => Err(append_error(&error)),
            Err(error) => Err(AppendError::Failed { reason: error.to_string() }),
        }
    }

    async fn read(&self, topic: Topic, partition: u32, from: u64, max_bytes: usize) -> Result<Slice, ReadError> {
        let bounds = self.stream(topic, partition)?;
        let from = from.max(bounds.start);
        let mut slice = Slice { records: Vec::new(), next: from, end: bounds.end, start: bounds.start };
        if from >= bounds.end {
            return Ok(slice);
        }
        let fetched =
            self.fetch(topic, partition, from, max_bytes).await.map_err(|error| failed(topic, partition, &error))?;
        slice.end = fetched.high_watermark.get();
        for batch in &fetched.batches {
            let records = decode(batch, DECOMPRESSED_BYTES_MAX).map_err(|error| failed(topic, partition, &error))?;
            for record in records.into_iter().filter(|record| record.offset >= from) {
                slice.next = record.offset + 1;
                let event = EventRecord {
                    topic,
                    key: record.key.unwrap_or_default(),
                    headers: record.headers.into_iter().map(|(key, value)| (key, value.unwrap_or_default())).collect(),
                    value: record.value.unwrap_or_default(),
                    timestamp_ms: record.timestamp,
                };
                slice.records.push((record.offset, event));
            }
        }
        Ok(slice)
    }

    async fn bounds(&self, topic: Topic, partition: u32) -> Result<Bounds, ReadError> {
        self.stream(topic, partition)
    }

    fn headroom(&self) -> Option<u64> {
        Some(self.0.log().headroom())
    }

    fn why_no_headroom(&self) -> String {
        format!("{}; the rest is kept for outcomes", self.0.log().why_no_headroom())
    }
}

fn append_error(error: &cairn_log::AppendError) -> AppendError {
    let reason = error.to_string();
    match error.kind() {
        cairn_log::ErrorKind::Full => AppendError::Full { reason },
        cairn_log::ErrorKind::Closed => AppendError::Closed,
        cairn_log::ErrorKind::Retry => AppendError::Retry { reason },
        _ => AppendError::Failed { reason },
    }
}
