//! The object store as the log needs it: the contract that every backend keeps. Called by `upload` (writes) and `fetch`
//! (reads). Backends: `folder` (the default), `bucket`, and in tests one in memory that fails, delays and loses answers.
//!
//! `store/conformance.rs` is this contract as a suite; every backend runs it. In the words of RFC 2119:
//!
//! - An `Ok` of [`put`](Store::put) and [`replace_head`](Store::replace_head) MUST mean that the bytes survive power loss.
//! - A put MUST be create-only and whole: the object is not there, or there with all its bytes. `Exists` MUST mean that the
//!   object is durable, so that a put whose answer was lost can be sent again.
//! - Of all callers that replace one head, at most one MUST succeed. `HeadChanged` MUST mean that the head is another's.
//! - After any other error the call may have happened or not. Sending the very same bytes again MUST settle it.
//! - What was put MUST be seen by every later get and list, and what was deleted MUST NOT.
//! - A store that cannot keep this MUST refuse in [`prepare`](Store::prepare), and SHOULD say what to use instead.
//! - A range SHOULD be read without reading the rest of the object.

use std::{fmt, ops::Range};

use async_trait::async_trait;
use bytes::Bytes;

use crate::StoreError;

#[cfg(test)]
pub(crate) mod conformance;
pub(crate) mod counted;
#[cfg(test)]
pub(crate) mod memory;

/// Which head was read or written: the backend's own word, compared by the backend alone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeadVersion(String);

impl HeadVersion {
    /// A backend's word for one head.
    #[must_use]
    pub fn new(word: impl Into<String>) -> Self {
        Self(word.into())
    }

    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The head of a store: who owns it, and where its index lies.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// Which one.
    pub version: HeadVersion,
    /// What it says.
    pub bytes: Bytes,
}

/// An object that a list found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its size as it is stored, which may be more than what was put.
    pub bytes: u64,
}

/// An object store. Names are paths of lower-case letters, digits, `-` and `/`.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync {
    /// Called once before everything else: makes what is missing, and refuses what cannot keep the contract.
    async fn prepare(&self) -> Result<(), StoreError>;

    /// Creates an object; [`StoreError::Exists`] where the name is taken.
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError>;

    /// Exactly these bytes; [`StoreError::Missing`] where there is no such object, [`StoreError::Damaged`] where it is shorter.
    async fn get(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// All of an object.
    async fn get_all(&self, name: &str) -> Result<Bytes, StoreError>;

    /// Every object below a folder (a name that ends in `/`), in order of name.
    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError>;

    /// Removes an object; one that is not there is removed already.
    async fn delete(&self, name: &str) -> Result<(), StoreError>;

    /// The head, or nothing where there never was one.
    async fn head(&self) -> Result<Option<Head>, StoreError>;

    /// Writes the head if it still is `was`. No two callers may ever write the same bytes, nor one caller for two heads:
    /// that is how a lost answer is told from a lost race.
    async fn replace_head(&self, was: Option<&HeadVersion>, bytes: Bytes) -> Result<HeadVersion, StoreError>;
}
