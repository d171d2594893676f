//! [`MemoryBackbone`]: partitions as vectors, with faults on demand.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use cairn_contract::{EventRecord, StoredEvent, Topic, TopicSpec};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{AppendError, Appended, Backbone, Bounds, Kept, ReadError, Slice, TopicError};

/// What goes wrong with the appends from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// They are refused, and nothing is stored.
    Fail,
    /// They are stored, and the answer is an error.
    LoseAcknowledgement,
    /// They are stored in part, and the answer is an error.
    Tear,
    /// They wait, and nothing is stored, until the fault is another.
    Stall,
    /// They are refused as full.
    Full,
}

/// A backbone in memory. Clones share their records, as processes share a cluster.
#[derive(Clone, Debug)]
pub struct MemoryBackbone(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    topics: Mutex<HashMap<Topic, Vec<Vec<EventRecord>>>>,
    fault: watch::Sender<Fault>,
    headroom: Mutex<Option<u64>>,
    kept: Mutex<Option<Vec<Kept>>>,
}

impl Default for MemoryBackbone {
    fn default() -> Self {
        Self(Arc::new(Shared {
            topics: Mutex::default(),
            fault: watch::Sender::default(),
            headroom: Mutex::default(),
            kept: Mutex::default(),
        }))
    }
}

impl MemoryBackbone {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on, appends meet this fault.
    pub fn set_fault(&self, fault: Fault) {
        self.0.fault.send_replace(fault);
    }

    /// From now on, this is the room that is left.
    pub fn set_headroom(&self, bytes: Option<u64>) {
        *self.0.headroom.lock() = bytes;
    }

    /// From now on, its records cannot be read at a start, and these stand in for them.
    pub fn set_kept(&self, kept: Option<Vec<Kept>>) {
        *self.0.kept.lock() = kept;
    }

    /// The records of one partition.
    #[must_use]
    pub fn records(&self, topic: Topic, partition: u32) -> Vec<EventRecord> {
        let topics = self.0.topics.lock();
        topics.get(&topic).and_then(|partitions| partitions.get(partition as usize)).cloned().unwrap_or_default()
    }

    /// Every event of a topic, partition by partition.
    ///
    /// # Panics
    /// Where a record is no event.
    #[must_use]
    pub fn events(&self, topic: Topic) -> Vec<StoredEvent> {
        let partitions = self.0.topics.lock().get(&topic).cloned().unwrap_or_default();
        let parse = |record: EventRecord| {
            StoredEvent::parse(record.key, &record.headers, &record.value).expect("only events are appended")
        };
        partitions.into_iter().flatten().map(parse).collect()
    }
}

#[async_trait]
impl Backbone for MemoryBackbone {
    async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), TopicError> {
        let mut topics = self.0.topics.lock();
        for spec in specs {
            let partitions = topics.entry(spec.topic).or_insert_with(|| vec![Vec::new(); spec.partitions as usize]);
            let found = partitions.len() as u32;
            if found != spec.partitions {
                return Err(TopicError::Partitions { topic: spec.name, found, needed: spec.partitions });
            }
        }
        Ok(())
    }

    async fn partitions(&self, topic: Topic) -> Result<u32, TopicError> {
        let topics = self.0.topics.lock();
        topics.get(&topic).map(|list| list.len() as u32).ok_or(TopicError::Unknown { topic: topic.name() })
    }

    async fn append(&self, topic: Topic, partition: u32, records: Vec<EventRecord>) -> Result<Appended, AppendError> {
        let mut watch = self.0.fault.subscribe();
        let fault = *watch.wait_for(|fault| *fault != Fault::Stall).await.map_err(|_| AppendError::Closed)?;
        let kept = match fault {
            Fault::Full => return Err(AppendError::Full { reason: "the test says so".to_owned() }),
            Fault::Fail => return Err(AppendError::Retry { reason: "the test says so".to_owned() }),
            Fault::Tear => records.len() / 2,
            Fault::None | Fault::LoseAcknowledgement | Fault::Stall => records.len(),
        };
        let mut topics = self.0.topics.lock();
        let list = topics.get_mut(&topic).and_then(|list| list.get_mut(partition as usize));
        let list =
            list.ok_or_else(|| AppendError::Failed { reason: format!("no partition {partition} of {topic}") })?;
        let offset = list.len() as u64;
        list.extend(records.into_iter().take(kept));
        if fault == Fault::None {
            return Ok(Appended { offset: Some(offset), floor: offset });
        }
        Err(AppendError::Retry { reason: "the acknowledgement was lost".to_owned() })
    }

    async fn read(&self, topic: Topic, partition: u32, from: u64, max_bytes: usize) -> Result<Slice, ReadError> {
        let topics = self.0.topics.lock();
        let list = topics.get(&topic).and_then(|list| list.get(partition as usize));
        let list = list.ok_or(ReadError::Unknown { topic, partition })?;
        let mut slice = Slice { next: from.min(list.len() as u64), end: list.len() as u64, ..Slice::default() };
        let mut bytes = 0;
        for record in list.iter().skip(from as usize) {
            if bytes > 0 && bytes + record.value.len() > max_bytes {
                break;
            }
            bytes += record.value.len();
            slice.records.push((slice.next, record.clone()));
            slice.next += 1;
        }
        Ok(slice)
    }

    async fn bounds(&self, topic: Topic, partition: u32) -> Result<Bounds, ReadError> {
        let topics = self.0.topics.lock();
        let list = topics.get(&topic).and_then(|list| list.get(partition as usize));
        let list = list.ok_or(ReadError::Unknown { topic, partition })?;
        Ok(Bounds { start: 0, end: list.len() as u64 })
    }

    fn kept(&self) -> Option<Vec<Kept>> {
        self.0.kept.lock().clone()
    }

    fn headroom(&self) -> Option<u64> {
        *self.0.headroom.lock()
    }
}
