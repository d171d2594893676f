//! What can go wrong, and what to do then.

use std::{io, path::PathBuf};

use cairn_keys::KeyEncryptionError;

/// What a caller can do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// There is no such thing.
    Missing,
    /// It was erased, and nobody can have it back.
    Erased,
    /// A legal hold stands against it.
    Held,
    /// What was asked cannot be.
    Invalid,
    /// A key is lost or wrong.
    Key,
    /// The disk does not do what it should; again later.
    Disk,
    /// What is stored is not what was stored.
    Corrupt,
}

/// Why the vault could not do something.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The disk refused.
    #[error("the vault cannot {what} {}: {source}", path.display())]
    Disk {
        /// What it tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A write failed before; the reason then.
    #[error("the vault does not write: {reason}")]
    NotWritten {
        /// Why.
        reason: String,
    },
    /// The key-encryption key failed.
    #[error("the vault's key-encryption key: {0}")]
    KeyEncryption(#[from] KeyEncryptionError),
    /// The key that wraps the master key is not the one that was given.
    #[error(
        "the vault's keys are wrapped by {wanted}, and {given} was given: give that key as well ([vault] old_keys), or nothing that it protects can be read"
    )]
    OtherKey {
        /// Which key wraps them.
        wanted: String,
        /// Which was given.
        given: String,
    },
    /// A file of the vault's cannot be read as what it is.
    #[error("{} is damaged: {what}; put it back from a backup", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// How.
        what: String,
    },
    /// A digest is none of the vault's.
    #[error("{given:?} is no reference to the vault: give an event's digest, hmac-sha256:s-<id>:<hex>")]
    NoReference {
        /// What was given.
        given: String,
    },
    /// Nobody knows the subject's key.
    #[error("no subject of this vault has the key {key}: the payload was made by another vault")]
    UnknownSubject {
        /// The key's id.
        key: String,
    },
    /// The subject was erased.
    #[error("the subject of key {key} was erased: its keys and objects are destroyed")]
    ErasedSubject {
        /// The key's id.
        key: String,
    },
    /// The object is not there.
    #[error(
        "the vault has no object of digest {digest}: it was not kept, its time is over, or a crash came before it was durable"
    )]
    NoObject {
        /// The digest.
        digest: String,
    },
    /// A hold stands.
    #[error(
        "subject {subject:?} is under legal hold since {since} ({reason}): remove the hold first, `cairn hold remove`"
    )]
    HeldSubject {
        /// Whose.
        subject: String,
        /// Since when.
        since: String,
        /// Why.
        reason: String,
    },
    /// Nothing is known of that subject.
    #[error("the vault knows no subject {subject:?}{of_tenant}: nothing of it was ever kept, or it was erased")]
    NoSubject {
        /// Whose.
        subject: String,
        /// Of which tenant, for people.
        of_tenant: String,
    },
    /// There is no hold to remove.
    #[error("subject {subject:?} is not under hold")]
    NotHeld {
        /// Whose.
        subject: String,
    },
}

impl VaultError {
    /// What a caller can do about it.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Disk { .. } | Self::NotWritten { .. } => ErrorKind::Disk,
            Self::KeyEncryption(_) | Self::OtherKey { .. } => ErrorKind::Key,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::NoReference { .. } | Self::NotHeld { .. } => ErrorKind::Invalid,
            Self::UnknownSubject { .. } | Self::NoObject { .. } | Self::NoSubject { .. } => ErrorKind::Missing,
            Self::ErasedSubject { .. } => ErrorKind::Erased,
            Self::HeldSubject { .. } => ErrorKind::Held,
        }
    }

    pub(crate) fn disk(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Disk { what, path, source }
    }
}
