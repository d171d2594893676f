//! The shared-storage log: ordered streams of batches, made durable by a write-ahead log and kept in an object store.
//!
//! Called by the broker. An append is acknowledged after its fsync; nothing is visible before it is durable; what is
//! sealed goes to the object store and is served from there. This crate must never know what a batch holds: Kafka's
//! header is patched by the `stamp` function of [`LogOptions`].
//!
//! Reading order: `ids`, `frame` (bytes of one frame), `ledger` (what ordering knows of a stream), `disk`, `wal`
//! (segment files), `state` (what is durable), `writer` (the one thread that orders), `store` and `folder` and `s3`,
//! `object` (bytes of one object), `index` (what the store holds), `upload`, `log` (the handle).

mod disk;
mod error;
mod frame;
mod ids;
mod ledger;
mod log;
mod options;
mod recover;
mod state;
mod wal;
mod writer;

pub use disk::{Disk, DiskFile, SystemDisk};
pub use error::{AppendError, ErrorKind, OpenError, ReadError, StoreError};
pub use ids::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, StreamId};
pub use log::Log;
pub use options::{Append, Appended, Bounds, LogOptions, LogStats, ProducerMark, Read, Retention};
