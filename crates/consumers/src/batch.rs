//! What a sink is given at once: events, what was no event, and how far both reach in each partition.

use cairn_backbone::{group::Place, records::RawRecord};

use crate::Event;

/// Records in a batch.
pub const BATCH_RECORDS_MAX: usize = 4_000;
/// Their bytes, about.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// A record that a consumer cannot take. Its content is not kept: it lies where it lay, and may hold anything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The record's time, in milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The bytes of its value.
    pub bytes: u64,
    /// Why.
    pub reason: String,
}

/// How far a batch reaches in one partition: it holds all of `from..next`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Advance {
    /// The partition.
    pub place: Place,
    /// The id of the topic; empty where the cluster has none. A topic that was made anew has another.
    pub topic_id: String,
    /// Where the sink stood; `None` where it had nothing of the partition.
    pub from: Option<u64>,
    /// Where it stands after the batch.
    pub next: u64,
}

/// What is applied at once, or not at all.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The events, each partition's in order.
    pub events: Vec<Event>,
    /// What cannot be taken.
    pub dead: Vec<DeadLetter>,
    /// How far it reaches.
    pub advances: Vec<Advance>,
    bytes: usize,
}

impl Batch {
    /// Takes a record that follows what is there of its partition; `standing` says where the sink stands in it.
    pub fn push(&mut self, record: RawRecord, standing: impl FnOnce() -> (String, Option<u64>)) {
        let next = record.offset + 1;
        let found = self
            .advances
            .iter_mut()
            .find(|advance| advance.place.partition == record.partition && advance.place.topic == record.topic);
        match found {
            Some(advance) => advance.next = next,
            None => {
                let (topic_id, from) = standing();
                let place = Place { topic: record.topic.clone(), partition: record.partition };
                self.advances.push(Advance { place, topic_id, from, next });
            }
        }
        let (topic, partition, offset) = (record.topic.clone(), record.partition, record.offset);
        let (timestamp_ms, bytes) = (record.timestamp_ms, record.value.as_ref().map_or(0, bytes::Bytes::len));
        match Event::read(record) {
            Ok(event) => {
                self.bytes += event.bytes();
                self.events.push(event);
            }
            Err(reason) => {
                self.bytes += 256;
                self.dead.push(DeadLetter { topic, partition, offset, timestamp_ms, bytes: bytes as u64, reason });
            }
        }
    }

    /// Makes a dead letter of an event that the sink refuses for what it holds.
    pub(crate) fn bury(&mut self, index: usize, reason: String) {
        let event = self.events.remove(index);
        let timestamp_ms = event.at.as_millis();
        let Event { topic, partition, offset, value, .. } = event;
        self.dead.push(DeadLetter { topic, partition, offset, timestamp_ms, bytes: value.len() as u64, reason });
    }

    /// How many records it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.events.len() + self.dead.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether nothing more may come in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= BATCH_RECORDS_MAX || self.bytes >= BATCH_BYTES_MAX
    }
}
