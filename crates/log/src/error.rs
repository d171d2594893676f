//! Errors, one enum an operation; each says by its [`ErrorKind`] what the caller should do.

use std::path::PathBuf;

use cairn_keys::AtRestError;

use crate::{Offset, ProducerEpoch, ProducerId, Sequence, StreamId};

/// What a caller should do about an error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorKind {
    /// Try again.
    Retry,
    /// Another has taken over.
    Fenced,
    /// The request is wrong.
    Invalid,
    /// Not allowed.
    Denied,
    /// Stored data is damaged.
    Corrupt,
    /// No room.
    Full,
    /// The log is closed.
    Closed,
    /// The log cannot go on.
    Internal,
}

/// Why a batch was not appended.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// A gap or a repetition older than the last five batches.
    #[error("producer {producer} sent sequence {found} where {expected} comes next: resend from there")]
    OutOfOrderSequence {
        /// Who.
        producer: ProducerId,
        /// What comes next.
        expected: Sequence,
        /// What came.
        found: Sequence,
    },
    /// A newer incarnation has written.
    #[error("producer {producer} has epoch {current}, not {found}: initialise the producer again")]
    StaleProducerEpoch {
        /// Who.
        producer: ProducerId,
        /// The newest.
        current: ProducerEpoch,
        /// What came.
        found: ProducerEpoch,
    },
    /// No such stream.
    #[error("stream {stream} does not exist: create it first")]
    UnknownStream {
        /// Which.
        stream: StreamId,
    },
    /// One call must fit one write-ahead file.
    #[error("an append of {bytes} bytes exceeds {most}: send less at once")]
    TooLarge {
        /// Asked.
        bytes: u64,
        /// Bound.
        most: u64,
    },
    /// The stream has no offsets left.
    #[error("stream {stream} has no offsets left: create another")]
    OffsetsExhausted {
        /// Which.
        stream: StreamId,
    },
    /// Too much waits for the object store, or the disk is full.
    #[error("the write-ahead log is full: {reason}")]
    Full {
        /// Why.
        reason: String,
    },
    /// Another broker has taken this log's store; what is appended here would be lost.
    #[error("another broker has taken over this log's object store (epoch {epoch}): stop this one")]
    Fenced {
        /// Its epoch.
        epoch: u32,
    },
    /// The log was closed.
    #[error("the log is closed: open it again")]
    Closed,
    /// A write or sync failed; the log stands still, because what its pages hold cannot be trusted.
    #[error("the write-ahead log failed and stands still until restart: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
}

impl AppendError {
    /// What to do.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::OutOfOrderSequence { .. }
            | Self::UnknownStream { .. }
            | Self::TooLarge { .. }
            | Self::OffsetsExhausted { .. } => ErrorKind::Invalid,
            Self::StaleProducerEpoch { .. } | Self::Fenced { .. } => ErrorKind::Fenced,
            Self::Full { .. } => ErrorKind::Full,
            Self::Closed => ErrorKind::Closed,
            Self::Failed { .. } => ErrorKind::Internal,
        }
    }
}

/// Why a read failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReadError {
    /// No such stream.
    #[error("stream {stream} does not exist: create it first")]
    UnknownStream {
        /// Which.
        stream: StreamId,
    },
    /// Before the start or past the end.
    #[error("offset {offset} is outside {start} to {end}: ask within")]
    OutOfRange {
        /// Asked.
        offset: Offset,
        /// First kept.
        start: Offset,
        /// Durable end.
        end: Offset,
    },
    /// Stored bytes do not match their checksum.
    #[error("{place} is damaged: restore it from a copy")]
    Damaged {
        /// Where.
        place: String,
    },
    /// The index names an object that is not there.
    #[error("object {name} is missing from the store: restore it from a copy")]
    Missing {
        /// Which.
        name: String,
    },
    /// Disk or store did not answer.
    #[error("reading failed: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
}

impl ReadError {
    /// What to do.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownStream { .. } | Self::OutOfRange { .. } => ErrorKind::Invalid,
            Self::Damaged { .. } | Self::Missing { .. } => ErrorKind::Corrupt,
            Self::Failed { .. } => ErrorKind::Retry,
        }
    }
}

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk failed.
    #[error("cannot use {path}: {source}")]
    Disk {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Data that was durable is gone; starting would lose it silently.
    #[error("{path} is damaged at byte {at}: {what}; restore it from a copy, or move the folder away to give it up")]
    Damaged {
        /// File.
        path: PathBuf,
        /// Byte.
        at: u64,
        /// What was found.
        what: String,
    },
    /// It is encrypted, and its key is not there or does not open it.
    #[error("cannot read {path}: {source}; nothing was changed")]
    Sealed {
        /// File.
        path: PathBuf,
        /// Which key, and why.
        source: AtRestError,
    },
    /// The write-ahead log belongs to another store, or the store was emptied.
    #[error("{path} belongs to log {found}, the object store to {expected}: point both at the same log")]
    OtherLog {
        /// Folder.
        path: PathBuf,
        /// In the write-ahead log.
        found: uuid::Uuid,
        /// In the store.
        expected: uuid::Uuid,
    },
    /// Another opener of the store went on without what this write-ahead log holds.
    #[error(
        "the write-ahead log here held records from position {at} on that were never uploaded, and epoch {epoch} of the same log \
         went on without them: they were set aside in {path}, and `cairn broker salvage` reads them"
    )]
    Superseded {
        /// Where they are now.
        path: PathBuf,
        /// Position.
        at: u64,
        /// Who went on.
        epoch: u32,
    },
    /// The store had an owner that did not end well, and its write-ahead log is not here.
    #[error(
        "the write-ahead log of epoch {epoch}, which had this object store last and did not end well, is not in {path}: what it \
         acknowledged and did not upload is nowhere else, and it may still run. Start it where it ran, or bring its data \
         folder here; where that is gone for good, start once with --recover, which stops it, goes on with what the store has \
         and says what may be lost"
    )]
    NoWriteAheadLog {
        /// Folder.
        path: PathBuf,
        /// Who had the store.
        epoch: u32,
    },
    /// The write-ahead log begins behind what the store holds: something in between is gone.
    #[error(
        "{path} begins at position {found}, the object store ends at {expected}: the store was emptied, restored from an \
         older copy, or is another than before; bring the right one back or copy its objects over, or move the folder away \
         to give up what lies between"
    )]
    Gap {
        /// Folder.
        path: PathBuf,
        /// Where the write-ahead log begins.
        found: u64,
        /// Where the store ends.
        expected: u64,
    },
    /// The object store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An option makes no sense.
    #[error("{option}: {reason}")]
    Option {
        /// Which.
        option: &'static str,
        /// Why.
        reason: String,
    },
}

/// Why the object store did not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// A create-only name is taken.
    #[error("object {name} exists already")]
    Exists {
        /// Which.
        name: String,
    },
    /// No such object.
    #[error("object {name} is missing")]
    Missing {
        /// Which.
        name: String,
    },
    /// The head is not the one that was to be replaced: another has written it.
    #[error("the head of the object store was changed by another")]
    HeadChanged,
    /// The head changed: another broker owns this store now.
    #[error("another broker has taken over this store (epoch {epoch}): stop this one")]
    Fenced {
        /// Its epoch.
        epoch: u32,
    },
    /// The bytes are not what was written.
    #[error("object {name} is damaged: {what}")]
    Damaged {
        /// Which.
        name: String,
        /// How.
        what: String,
    },
    /// The store refuses whoever asks.
    #[error("{reason}")]
    Denied {
        /// Why, and what to do.
        reason: String,
    },
    /// Written by a newer version or not usable.
    #[error("{reason}")]
    Unsupported {
        /// Why, and what to do.
        reason: String,
    },
    /// Anything else; it may have happened nevertheless.
    #[error("object store: {reason}")]
    Failed {
        /// Why.
        reason: String,
    },
}

impl StoreError {
    /// What to do.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::Exists { .. } | Self::Missing { .. } => ErrorKind::Invalid,
            Self::Fenced { .. } | Self::HeadChanged => ErrorKind::Fenced,
            Self::Damaged { .. } => ErrorKind::Corrupt,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::Unsupported { .. } => ErrorKind::Internal,
            Self::Failed { .. } => ErrorKind::Retry,
        }
    }
}
