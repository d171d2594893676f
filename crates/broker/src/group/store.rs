//! Where the state of groups lies: `__consumer_offsets`, written and read back. Called by the coordinator.
//!
//! It guarantees: what one append holds is durable together; what is read back is what was written last for each key.

use std::collections::HashMap;

use cairn_clock::Clock;
use cairn_log::{Log, Offset, PartitionIndex, StreamId};
use uuid::Uuid;

use super::{
    GroupError, GroupSnapshot,
    consumer::{self, Stored},
    driver::pending::Pending,
    offsets::{OffsetEntry, Offsets},
    records::{self, GroupRecord},
};
use crate::{
    batch::{BatchBuilder, Record},
    streams::{self, StreamError},
};

/// A partition of `__consumer_offsets` is rewritten at start when it holds more records than this, and more than so many
/// times those that are live.
const COMPACT_RECORDS: usize = 10_000;
const COMPACT_RATIO: usize = 4;
const COMPACT_BATCH_BYTES: usize = 256 << 10;

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

    /// Reads every partition back, and rewrites those where most records are out of date.
    pub(super) async fn load(&self) -> Result<Loaded, StreamError> {
        let mut all = Loaded::default();
        for partition in 0..self.partitions {
            let stream = StreamId::new(self.topic, PartitionIndex::new(partition));
            let mut read = Loaded::default();
            streams::replay_batches(&self.log, stream, |header, records| read.take_batch(header, records)).await?;
            // What an open transaction would commit stays where it is: its marker is still to come.
            let many = read.records > COMPACT_RECORDS && read.records > COMPACT_RATIO * read.live();
            if many && read.pending.is_empty() {
                self.compact(stream, &read).await?;
            }
            // A group's records lie in one partition only.
            all.offsets.extend(read.offsets);
            all.groups.extend(read.groups);
            all.consumers.extend(read.consumers);
            all.pending.extend(read.pending);
            all.empty_since.extend(read.empty_since);
        }
        Ok(all)
    }

    /// Writes what is live once more, then forgets what lies before. A crash between the two leaves both, which reads the same.
    async fn compact(&self, stream: StreamId, read: &Loaded) -> Result<(), StreamError> {
        let now_ms = self.clock.now().as_millis();
        let mut first = None;
        let mut batch = BatchBuilder::new();
        for (group, of_group) in read.offsets.groups() {
            for ((topic, partition), entry) in of_group {
                let key = records::offset_key(group, topic, *partition);
                batch.push(now_ms, Some(&key), Some(&records::offset_value(&entry.value)), &[]);
                if batch.bytes() > COMPACT_BATCH_BYTES {
                    let written = streams::append(&self.log, stream, std::mem::take(&mut batch)).await?;
                    first = first.or(written);
                }
            }
        }
        for (group, snapshot) in &read.groups {
            // When it lost its last member is what its record's time says, and must not change.
            let at_ms = read.empty_since.get(group).copied().unwrap_or(now_ms);
            let value = records::group_value(snapshot, at_ms);
            batch.push(at_ms, Some(&records::group_key(group)), Some(&value), &[]);
            if batch.bytes() > COMPACT_BATCH_BYTES {
                let written = streams::append(&self.log, stream, std::mem::take(&mut batch)).await?;
                first = first.or(written);
            }
        }
        for (group, stored) in &read.consumers {
            for change in stored.changes() {
                let (key, value) = consumer::records::encode(group, &change, now_ms, 0);
                batch.push(now_ms, Some(&key), value.as_deref(), &[]);
            }
            if batch.bytes() > COMPACT_BATCH_BYTES {
                let written = streams::append(&self.log, stream, std::mem::take(&mut batch)).await?;
                first = first.or(written);
            }
        }
        let written = streams::append(&self.log, stream, batch).await?;
        let end = match first.or(written) {
            Some(first) => first,
            // Nothing is live.
            None => self.log.bounds(stream).map_err(|source| StreamError::Read { stream, at: 0, source })?.durable_end,
        };
        self.log.delete_before(stream, end).await.map_err(|source| StreamError::Append { stream, source })
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
    pub(super) records: usize,
}

impl Loaded {
    fn live(&self) -> usize {
        self.groups.len() + self.offsets.len() + self.consumers.values().map(Stored::len).sum::<usize>()
    }

    pub(super) fn take(&mut self, record: Record) {
        self.records += 1;
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
