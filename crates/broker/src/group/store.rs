//! Where the state of groups lies: `__consumer_offsets`, written and read back. Called by the coordinator.
//!
//! It guarantees: what one append holds is durable together; what is read back is what was written last for each key.

use std::collections::HashMap;

use cairn_clock::Clock;
use cairn_log::{Log, Offset, PartitionIndex, StreamId};
use uuid::Uuid;

use super::{
    GroupError, GroupSnapshot,
    consumer::Stored,
    driver::pending::Pending,
    offsets::{OffsetEntry, Offsets},
    records::{self, GroupRecord},
};
use crate::{
    batch::{BatchBuilder, Record},
    streams::{self, StreamError},
};

/// Where group records go.
#[derive(Debug, Clone)]
pub(super) struct Store {
    pub(super) log: Log,
    pub(super) topic: Uuid,
    pub(super) partitions: u32,
    pub(super) clock: Clock,
}

impl Store {
    pub(super) fn stream(&self, group: &str) -> StreamId {
        let partition = java_hash(group).unsigned_abs() % self.partitions;
        StreamId::new(self.topic, PartitionIndex::new(partition))
    }

    pub(super) async fn append(&self, group: &str, batch: BatchBuilder) -> Result<Option<Offset>, GroupError> {
        streams::append(&self.log, self.stream(group), batch).await.map_err(|error| {
            tracing::warn!(group, %error, "group state could not be stored");
            GroupError::Unavailable
        })
    }

    /// Reads every partition back. The log compacts them, as any compacted topic.
    pub(super) async fn load(&self) -> Result<Loaded, StreamError> {
        let mut all = Loaded::default();
        for partition in 0..self.partitions {
            let stream = StreamId::new(self.topic, PartitionIndex::new(partition));
            let mut read = Loaded::default();
            streams::replay_batches(&self.log, stream, |header, records| read.take_batch(header, records)).await?;
            // A group's records lie in one partition only.
            all.offsets.extend(read.offsets);
            all.groups.extend(read.groups);
            all.consumers.extend(read.consumers);
            all.pending.extend(read.pending);
            all.empty_since.extend(read.empty_since);
        }
        Ok(all)
    }
}

/// What `__consumer_offsets` says.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) offsets: Offsets,
    pub(super) groups: HashMap<String, GroupSnapshot>,
    pub(super) consumers: HashMap<String, Stored>,
    pub(super) pending: Pending,
    /// When classic groups without members lost the last one, ms.
    pub(super) empty_since: HashMap<String, i64>,
}

impl Loaded {
    pub(super) fn take(&mut self, record: Record) {
        let Some(key) = &record.key else { return };
        match records::decode(key, record.value.as_ref()) {
            Some(GroupRecord::Offset { group, topic, partition, value: Some(value) }) => {
                let entry = OffsetEntry { value, stored_at: Offset::new(record.offset) };
                self.offsets.put(&group, topic, partition, entry);
            }
            Some(GroupRecord::Offset { group, topic, partition, value: None }) => {
                self.offsets.remove(&group, &topic, partition);
                self.pending.forget(&group, &topic, partition);
            }
            Some(GroupRecord::Group { group, value: Some(value) }) => {
                if value.members.is_empty() {
                    self.empty_since.insert(group.clone(), record.timestamp);
                } else {
                    self.empty_since.remove(&group);
                }
                self.groups.insert(group, value);
            }
            Some(GroupRecord::Group { group, value: None }) => {
                self.groups.remove(&group);
                self.empty_since.remove(&group);
            }
            Some(GroupRecord::Consumer { group, change }) => Stored::take(&mut self.consumers, group, change),
            Some(GroupRecord::Unknown) => {}
            None => tracing::warn!(offset = record.offset, "a record of __consumer_offsets cannot be read"),
        }
    }
}

/// Java's `String.hashCode`, which places a group among the partitions of `__consumer_offsets`, and a transactional id among those of
/// `__transaction_state`, as Kafka does.
pub(crate) fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}
