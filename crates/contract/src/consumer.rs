//! Events of `mcp.operators` about consumers: who paused or moved one, and which part of the trail was given to one again.
//!
//! Made by who serves the operator: `consumer.moved` and `replay.started` before anything changes.

use serde::{Deserialize, Serialize};

/// `consumer.moved`: an operator pauses, resumes or moves a consumer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ConsumerMoved {
    /// Who.
    pub operator: String,
    /// The role that it took; absent for what was done on the machine itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The consumer's name.
    pub consumer: String,
    /// Its consumer group.
    pub group: String,
    /// What is done.
    pub change: ConsumerChange,
    /// The time that it is moved to, where a time was given: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_time: Option<String>,
    /// Where it stood and stands, by partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<OffsetMove>,
    /// Why, as the operator says, screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What is done to a consumer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsumerChange {
    /// It takes nothing more until it is resumed.
    Paused,
    /// It goes on.
    Resumed,
    /// It goes on somewhere else.
    Moved,
}

/// Where a consumer stood in a partition and where it stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OffsetMove {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// What would have been read next; absent where nothing was read yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// What is read next.
    pub to: u64,
}

/// Offsets of a partition: `from..to`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct OffsetRange {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The first offset.
    pub from: u64,
    /// The offset behind the last one.
    pub to: u64,
}

/// `replay.started`: a part of the trail is given to a consumer once more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplayStarted {
    /// Joins start and end.
    pub replay_id: String,
    /// Who.
    pub operator: String,
    /// The role that it took; absent for what was done on the machine itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The consumer's name.
    pub consumer: String,
    /// Its consumer group.
    pub group: String,
    /// From when on, where a time was given: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_time: Option<String>,
    /// Up to when, where a time was given: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_time: Option<String>,
    /// What is done again.
    pub ranges: Vec<OffsetRange>,
    /// How many offsets that is.
    pub offsets: u64,
    /// At most so many records a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_max: Option<u64>,
    /// Why, as the operator says, screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `replay.ended`: a replay has come to its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplayEnded {
    /// Joins start and end.
    pub replay_id: String,
    /// Who.
    pub operator: String,
    /// The role that it took; absent for what was done on the machine itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The consumer's name.
    pub consumer: String,
    /// Its consumer group.
    pub group: String,
    /// What became of it.
    pub outcome: ReplayOutcome,
    /// Records that were given once more.
    pub records: u64,
    /// Results that were there before and were replaced.
    pub replaced: u64,
    /// Those of them that are not what they were.
    pub changed: u64,
    /// Records that the consumer could not take.
    pub dead_letters: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// Why it failed, screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What became of a replay.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplayOutcome {
    /// All of it was done.
    Completed,
    /// An operator stopped it.
    Stopped,
    /// It failed.
    Failed,
}
