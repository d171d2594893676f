//! The shared-storage log: ordered streams of batches, made durable by a write-ahead log and kept in an object store.
//!
//! Called by the broker. An append is acknowledged after its fsync; nothing is visible before it is durable; what is
//! sealed goes to the object store and is served from there. This crate must never know what a batch holds: Kafka's
//! header is patched by the `stamp` function of [`LogOptions`].
//!
//! Reading order: `ids`, `compaction` (what callers say of keys), `frame` (bytes of one frame), `transactions`, `ledger` (what ordering knows of a stream), `disk`, `wal`
//! (segment files), `state` (what is durable), `writer` (the one thread that orders), `wal_object` and `lander` and `closing` (where the
//! store is the write-ahead log), `store` and `folder` and `bucket` and `sealed`,
//! `object` (bytes of one object), `index` (what the store holds), `upload`, `fetch` (reading objects), `retain`, `recover`,
//! `succession` (whose log that was), `log` (the handle), `standby` (whose turn it is); `walk`, `check` and `salvage` (reading all of it,
//! changing nothing). `sim` runs all of it from a seed.

mod age;
mod bucket;
mod check;
mod closing;
mod compaction;
mod courtesy;
mod disk;
mod error;
mod fetch;
mod fields;
mod folder;
mod frame;
#[cfg(fuzzing)]
pub mod fuzzing;
mod ids;
mod index;
mod lander;
mod ledger;
mod lent;
mod log;
mod object;
mod open;
mod options;
mod read;
mod readers;
mod recover;
mod retain;
mod salvage;
mod sealed;
#[cfg(test)]
mod sim;
mod spares;
mod standby;
mod state;
mod store;
mod succession;
mod transactions;
mod upload;
mod wal;
mod wal_object;
mod walk;
mod writer;

pub use bucket::{AzureOptions, BucketStore, GcsOptions, S3Options};
pub use check::{BatchSpan, CheckOptions, Checked, Finding, FindingKind, Judge, check};
pub use compaction::{Compaction, Keep, KeyHash, Keys, Rebuilt, Rule};
pub use courtesy::{asked, step_aside};
pub use disk::{Disk, DiskFile, Pace, SystemDisk};
pub use error::{AppendError, ErrorKind, OpenError, ReadError, StoreError};
pub use folder::FolderStore;
pub use ids::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, StreamId};
pub use log::{Log, Queued};
pub use options::{
    Append, Appended, Beginning, Bounds, Isolation, LogOptions, LogStats, ProducerMark, ProducerView, Read, Retention,
    Room, Takes, Tiers, WriteAhead,
};
pub use readers::Readers;
pub use salvage::{SalvageOptions, SalvageReport, Salvaged, salvage, set_aside_in, stored};
pub use sealed::SealedStore;
pub use standby::{
    BEAT_INTERVAL, Ownership, Sight, TAKE_OVER_AFTER, TAKE_OVER_AFTER_GONE, TAKE_OVER_AFTER_MUTE, await_turn, ownership,
};
pub use store::{Head, HeadVersion, Listed, Store};
pub use succession::{RecoveredStream, Recovery};
pub use transactions::{Aborted, InTransaction};
