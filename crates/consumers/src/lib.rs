//! One anatomy for all consumers, and the consumers that stand on it.
//!
//! A [`Consumer`] is an ordinary Kafka consumer group on a thread of its own: it takes records, reads them as [`Event`]s, and
//! gives them in bounded batches to a [`Sink`], which keeps results and positions in one transaction of its own. So a kill
//! anywhere neither misses nor repeats, and the sink's positions win over the group's, which are for lag tools. What is no event
//! becomes a dead letter; a sink that is away is waited for. To add a consumer, implement [`Sink`], or only what `database` asks of
//! one that keeps its results in SQLite. `audit` keeps them on a PostgreSQL server where it is told to (`postgres`). This crate must never slow a
//! call, never change the trail, and never know how calls live or what policy says.

mod batch;
mod consumer;
mod event;
#[cfg(all(test, feature = "audit"))]
mod fixture;
mod replay;
mod sink;
mod status;

#[cfg(feature = "audit")]
pub mod audit;
#[cfg(feature = "audit")]
pub mod context;
#[cfg(feature = "audit")]
pub mod database;
#[cfg(feature = "observe")]
pub mod observe;
#[cfg(feature = "postgres")]
pub mod postgres;

pub use batch::{Advance, BATCH_BYTES_MAX, BATCH_RECORDS_MAX, Batch, DeadLetter};
pub use consumer::{Consumer, ConsumerOptions};
pub use event::{Event, Fields, Standing};
pub use replay::{Pace, Planned, Replay, ReplayError, Replayed, Span, plan};
pub use sink::{Control, Position, Sink, SinkError};
pub use status::{Freshness, PartitionLag, Snapshot, Status};
