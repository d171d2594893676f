//! Checks a trail without trusting whoever wrote it or keeps it: producer chains, Merkle trees, signed checkpoints.
//!
//! `cairn verify` reads records by the Kafka protocol or from a bundle and hands them here. This crate uses none of Cairn's own: it is
//! written from `contracts/chain.md`, `contracts/evidence.md` and the C2SP and RFC texts, so that a mistake of the writer is not its
//! own mistake too. It guarantees that what it calls proven is what a trusted key signed. It must never open a connection or a file,
//! never panic on what it is given, and never use memory that grows with the trail.

mod bundle;
mod chain;
mod checkpoint;
mod finding;
mod lanes;
mod merkle;
mod note;
mod partition;
mod proof;
mod record;

pub use bundle::{check_bundle, check_file};
pub use checkpoint::{CHECKPOINTS, Published, Trail};
pub use finding::{Covered, Finding, Kind, Report};
pub use note::{Key, Note, Proof, Signed, Trust};
pub use partition::{PartitionCheck, Plan};
pub use record::{Commitment, Hash, Record, link, log_hash};

#[cfg(test)]
mod tests;
