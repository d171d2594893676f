//! Payloads by reference: what events must not hold lies here, encrypted under keys of its subject, and goes with them.
//!
//! A [`Vault`] takes a payload with whose it is and gives a reference at once; a writer thread makes it durable, many with
//! one sync. Objects stand in packs (`pack`), addressed by a digest under a key of their subject; each is encrypted under
//! a data key of its subject and period. The keys of a subject lie in one record (`subjects`), encrypted under a master
//! key, which is wrapped by a key-encryption key from outside (`cairn-keys`). Erasing a subject destroys the record, then
//! the objects.
//!
//! | path in the folder | what it is |
//! | --- | --- |
//! | `master.json` | the master keys, each wrapped by a key-encryption key |
//! | `subjects/<id>.json` | a subject's keys, encrypted; or what is left of an erased one: its id |
//! | `objects/<number>.pack` | encrypted objects, one after another |
//!
//! This crate must never write a payload or a key in the clear, and never know what an event or a call is.

mod error;
mod master;
mod options;
mod pack;
mod packs;
mod subjects;
mod ticket;
mod vault;
mod writer;

pub use cairn_keys::{FileKey, GivenKey, KeyEncryption, KeyEncryptionError, KmsKey, KmsOptions, Secret};
pub use error::{ErrorKind, VaultError};
pub use options::VaultOptions;
pub use subjects::{Erased, Hold, Subject, SubjectId};
pub use ticket::Ticket;
pub use vault::{Kept, NotKept, Vault, VaultStats};

#[cfg(test)]
mod tests;
