//! Writing events to the embedded log or a Kafka cluster, and reading them back.
//!
//! The gateway records through a [`Recorder`]; the recorder appends through a [`Backbone`], which is either
//! [`EmbeddedBackbone`] (the broker of this process) or [`KafkaBackbone`] (any Kafka cluster, with a local spool). People and
//! consumers read through [`reader`]. Guarantees: what was acknowledged is durable, one producer's events of a partition
//! keep their order, and their chain shows what is missing. This crate must never know MCP or policy.

mod embedded;
pub mod group;
mod identity;
pub mod kafka;
pub mod reader;
mod recorder;
pub mod records;
mod seam;
pub mod testing;

pub use embedded::EmbeddedBackbone;
pub use identity::{IdentityError, gateway_id, next_epoch};
pub use kafka::{KafkaBackbone, KafkaOptions};
pub use recorder::{
    KeepsRejected, OpenCall, OutcomeRoom, Planned, RecordError, Recorded, Recorder, RecorderError, RecorderOptions,
    RecorderStats, Submitted,
};
pub use seam::{AppendError, Appended, Backbone, BackboneStats, Bounds, Kept, ReadError, Slice, TopicError};
