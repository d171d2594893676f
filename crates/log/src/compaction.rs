//! Key compaction as callers see it: what the log must be told of batches, because it does not know what they hold, and how a
//! stream is compacted. No behaviour; `upload/compact` has that.

use std::fmt;

use bytes::Bytes;

use crate::{Offset, ProducerId};

/// A key, hashed: so many bits that no two keys of one stream ever share them. Whoever hashes keys uses a function for which nobody
/// can make two keys that do.
pub type KeyHash = [u8; 16];

/// Reads and rebuilds batches. Given once by who writes them, with [`Log::compact_with`](crate::Log::compact_with).
///
/// Both methods MUST be bounded in memory whatever the bytes are, and MUST NOT panic: what is stored may be hostile. What cannot
/// be read has no keys and stays as it is.
pub trait Keys: fmt::Debug + Send + Sync {
    /// The producer to whose transaction the batch belongs; none of a marker. Where it was aborted, nothing of it counts, and nothing
    /// of it stays.
    fn transaction(&self, batch: &[u8]) -> Option<ProducerId>;

    /// Says the offset of each record that has a key, and the key's hash.
    fn each_key(&self, batch: &[u8], each: &mut dyn FnMut(Offset, KeyHash));

    /// The batch with those of its records that stay: those that `keep` and `rule` want; one without a key is kept where `keep` keeps
    /// all. Its offsets, first and last included, MUST stay what they were, also where no record stays. A marker of a transaction
    /// MUST stay as it is.
    fn rebuild(&self, batch: &[u8], rule: Rule, keep: Keep<'_>) -> Rebuilt;
}

/// What holds for records without a value, which say that their key is gone. One is kept for a while after it was compacted first,
/// so that who reads from the beginning hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Now, in milliseconds of the epoch: what has this horizon behind it goes.
    pub now_ms: i64,
    /// The horizon of those that have none yet.
    pub horizon_ms: i64,
}

/// Which records of a batch stay.
#[derive(Clone, Copy)]
pub enum Keep<'a> {
    /// Those of which this is true, and those without a key.
    Newest(&'a dyn Fn(Offset, &KeyHash) -> bool),
    /// None: they were aborted.
    Nothing,
}

impl fmt::Debug for Keep<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newest(_) => "Newest",
            Self::Nothing => "Nothing",
        })
    }
}

/// What became of a batch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rebuilt {
    /// The batch; nothing where it stays as it is.
    pub bytes: Option<Bytes>,
    /// Records that it holds.
    pub records: u32,
    /// Greatest timestamp of those, ms; -1 where there is none. Only where it does not stay as it is.
    pub max_timestamp: i64,
    /// When the first of them that has no value may go.
    pub horizon_ms: Option<i64>,
}

/// How a stream is compacted by key. Kafka's topic configs of the same names say what the fields mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Compaction {
    /// `min.compaction.lag.ms`: what is younger is left alone.
    pub min_lag_ms: u64,
    /// `max.compaction.lag.ms`: what is older is not left alone; none is without end.
    pub max_lag_ms: Option<u64>,
    /// `delete.retention.ms`: how long what says that a key is gone is kept once it was compacted.
    pub delete_retention_ms: u64,
    /// `min.cleanable.dirty.ratio` in thousandths: it begins when more than this part of the stream was never compacted.
    pub dirty_per_mille: u16,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { min_lag_ms: 0, max_lag_ms: None, delete_retention_ms: 86_400_000, dirty_per_mille: 500 }
    }
}
