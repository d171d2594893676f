//! The seam between those who write or read events and whatever keeps them.
//!
//! The recorder calls it; the embedded log, Kafka and the test's memory implement it. What an implementation MUST do is
//! said at each function and proved for each by the one suite in [`crate::testing::conformance`].

use std::fmt::Debug;

use async_trait::async_trait;
use cairn_contract::{EventRecord, Topic, TopicSpec};

/// A log that carries events, by topic and partition.
#[async_trait]
pub trait Backbone: Debug + Send + Sync {
    /// Creates the topics that are missing and checks the others. MUST be safe to repeat. MUST fail where a topic has
    /// another number of partitions than its spec: a workflow's order would break.
    async fn ensure_topics(&self, topics: &[TopicSpec]) -> Result<(), TopicError>;

    /// How many partitions a topic has. At least 1, and the same for as long as the topic lives.
    async fn partitions(&self, topic: Topic) -> Result<u32, TopicError>;

    /// Appends records in order to one partition. MUST return only when all of them are on stable storage, MUST NOT
    /// interleave them with those of another call, and MUST keep the order of calls that follow each other. After an error
    /// some, all or none of them may be there: the caller settles it by reading back.
    async fn append(&self, topic: Topic, partition: u32, records: Vec<EventRecord>) -> Result<Appended, AppendError>;

    /// Reads records from an offset on, in order. MUST show only what is durable, MUST give at least one record where there
    /// is one at or after `from`, and SHOULD stop near `max_bytes`. An offset before the start reads from the start.
    async fn read(&self, topic: Topic, partition: u32, from: u64, max_bytes: usize) -> Result<Slice, ReadError>;

    /// Where a partition's readable records begin and end.
    async fn bounds(&self, topic: Topic, partition: u32) -> Result<Bounds, ReadError>;

    /// Bytes that may still be appended before [`AppendError::Full`]; `None` where nobody counts. The recorder keeps room
    /// for outcomes out of it.
    fn headroom(&self) -> Option<u64> {
        None
    }

    /// Why there is no more headroom, and what to do.
    fn why_no_headroom(&self) -> String {
        String::new()
    }

    /// Whether an append that failed left nothing behind, so that nothing need be read back before it is tried again.
    fn append_is_atomic(&self) -> bool {
        false
    }

    /// What a start needs to go on, where the log itself cannot be read at the moment: each partition's last event of this
    /// gateway and all those of calls without outcome, each partition's in order. `None` where the log can be read, which is
    /// then the truth.
    fn kept(&self) -> Option<Vec<Kept>> {
        None
    }

    /// Depths, for metrics.
    fn stats(&self) -> BackboneStats {
        BackboneStats::default()
    }

    /// Ends background work; what was acknowledged stays durable.
    async fn close(&self) {}
}

/// What an append gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// The first record's offset; `None` where it is durable but not yet in its topic.
    pub offset: Option<u64>,
    /// No record of the append lies, or will lie, before this offset.
    pub floor: u64,
}

/// An event that was kept beside the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Its topic.
    pub topic: Topic,
    /// Its partition.
    pub partition: u32,
    /// It does not lie before this offset.
    pub floor: u64,
    /// The event's record.
    pub record: EventRecord,
}

/// Records of one partition.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Slice {
    /// Each record with its offset, in order.
    pub records: Vec<(u64, EventRecord)>,
    /// Where to read on.
    pub next: u64,
    /// The end: the offset after the last durable record.
    pub end: u64,
    /// The first offset that is still kept.
    pub start: u64,
}

/// Where a partition begins and ends: `start..end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    /// The first offset that is still kept.
    pub start: u64,
    /// The offset after the last durable record.
    pub end: u64,
}

/// Depths of a backbone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BackboneStats {
    /// Events in the spool that the cluster has not acknowledged.
    pub spool_events: u64,
    /// Their bytes on disk.
    pub spool_bytes: u64,
    /// The spool's bound; 0 without a spool.
    pub spool_bytes_max: u64,
    /// Whether the cluster is away: events cannot be delivered at the moment. Never for the embedded log.
    pub away: bool,
}

/// Why records were not appended.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// It may work later.
    #[error("the backbone cannot record now: {reason}")]
    Retry {
        /// What it said.
        reason: String,
    },
    /// There is no room.
    #[error("the backbone is full: {reason}")]
    Full {
        /// What is full, and what to do.
        reason: String,
    },
    /// It was closed.
    #[error("the backbone is closed")]
    Closed,
    /// It is broken until somebody acts.
    #[error("the backbone failed: {reason}")]
    Failed {
        /// What happened, and what to do.
        reason: String,
    },
}

/// Why records could not be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReadError {
    /// There is no such topic or partition.
    #[error("there is no partition {partition} of {topic}: create the topics first")]
    Unknown {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: u32,
    },
    /// The backbone did not give them.
    #[error("{topic} partition {partition} could not be read: {reason}")]
    Failed {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: u32,
        /// What it said.
        reason: String,
    },
}

/// Why topics are not as they must be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TopicError {
    /// It has another number of partitions.
    #[error(
        "{topic} has {found} partitions and needs {needed}: they cannot be changed without breaking order, use another cluster or remove the topic"
    )]
    Partitions {
        /// The topic.
        topic: &'static str,
        /// How many it has.
        found: u32,
        /// How many it needs.
        needed: u32,
    },
    /// A setting that durability hangs on is wrong.
    #[error(
        "{topic} has {setting}={found} and needs {needed}: change it, or create the topic as `cairn topics plan` prints it"
    )]
    Setting {
        /// The topic.
        topic: &'static str,
        /// The setting.
        setting: &'static str,
        /// What it is.
        found: String,
        /// What it must be.
        needed: String,
    },
    /// It does not exist.
    #[error("there is no topic {topic}: create it as `cairn topics plan` prints it")]
    Unknown {
        /// The topic.
        topic: &'static str,
    },
    /// This principal may not see or create it.
    #[error(
        "the cluster does not let Cairn see or create the topic {topic}: an administrator grants that, or creates it as `cairn topics plan` prints it"
    )]
    Denied {
        /// The topic.
        topic: &'static str,
    },
    /// The backbone refused or did not answer.
    #[error("the topic {topic} could not be created or checked: {reason}")]
    Failed {
        /// The topic.
        topic: &'static str,
        /// What it said.
        reason: String,
    },
}
