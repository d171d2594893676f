//! Merkle trees over the trail, signed checkpoints, witnesses and exported proofs.
//!
//! `up` starts a [`Collector`] beside the gateway; the commands `cairn evidence …` use the keys, the stores and [`export`].
//! Guarantees: each partition of each topic of the trail has one tree of RFC 6962 whose leaves commit to every record in order;
//! no two signed checkpoints of a log disagree; a record is proven without showing another's content. It must never slow or stop a
//! call, never hold a payload, and share nothing with `cairn-verify`, which checks what comes out of here.

mod collector;
pub mod export;
mod keys;
mod leaf;
mod note;
mod status;
mod store;
mod tree;
mod witness;

pub use collector::{CollectError, Collector, Options, is_covered, log_folder, vouch};
pub use keys::{KeyError, KeyFolder, Keys, PRODUCERS_MAX};
pub use leaf::{Commitment, ENTRY_BYTES, log_hash};
pub use note::{
    NOTE_BYTES_MAX, Note, NoteError, SigningKey, VerifierKey, checkpoint_text, producer_text, rotation_of,
    rotation_text,
};
pub use status::{Snapshot, Status};
pub use store::{Identity, LogStore, State, StoreError, WAITING_MAX};
pub use tree::{Frontier, Hash, Nodes, consistency, empty_root, frontier, inclusion, leaf_hash, node_hash, sha256};
pub use witness::{Checkpoint, Witness, WitnessClient, WitnessError, cosignatures};
