//! What callers give and get: options, entries to append, what a read returns, statistics. No behaviour.

use std::{num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use cairn_keys::AtRest;
use serde::{Deserialize, Serialize};

use crate::{
    Aborted, Disk, FolderStore, InTransaction, LeaderEpoch, Offset, ProducerEpoch, ProducerId, Readers, Sequence,
    Store, StreamId, SystemDisk, succession::OFFSETS_RESERVED,
};

/// How the log is run.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// Folder of this log; the write-ahead log lies in `wal/` below it.
    pub folder: PathBuf,
    /// Writes base offset and leader epoch into a batch before it is stored.
    pub stamp: fn(&mut [u8], Offset, LeaderEpoch),
    /// What makes an append durable.
    pub wal: WriteAhead,
    /// Where that is the store: the least time between two objects, within which appends gather. The first one after a pause waits for
    /// nobody.
    pub wal_interval: Duration,
    /// How often the owner tells who stands by that it is there; never, where nobody does.
    pub beat_interval: Option<Duration>,
    /// Who this is, in the head of the store: anything that tells openers apart.
    pub owner: u32,
    /// From whom the store may be taken.
    pub takes: Takes,
    /// Bytes of one write-ahead file; also the bound of one append call.
    pub wal_segment_bytes: u64,
    /// Appends are refused as `Full` while this many bytes wait for the object store.
    pub wal_bytes_max: u64,
    /// Durable bytes that start an upload.
    pub upload_bytes: u64,
    /// Age of the oldest durable byte that starts an upload.
    pub upload_interval: Duration,
    /// So many objects side by side, small or of small pieces, are put together.
    pub merge_objects: usize,
    /// Keys that key compaction remembers at once, some 30 bytes each; a stream with more of them takes several passes.
    pub compaction_keys_max: usize,
    /// Bytes of recent batches kept in memory.
    pub tail_bytes_max: u64,
    /// Bytes of object ranges kept in memory.
    pub cache_bytes_max: u64,
    /// Objects up to so many bytes are read whole: one request for all their streams instead of two for each.
    pub small_object_bytes: u64,
    /// Append calls that may wait for the writer.
    pub queue_calls_max: usize,
    /// Bytes that may wait for the writer.
    pub queue_bytes_max: usize,
    /// How often retention is looked at.
    pub retention_interval: Duration,
    /// Goes on with the store alone where the write-ahead log of who had it last is lost; else such a start is refused.
    pub recover: bool,
    /// Offsets that a stream may run ahead of what the store has of it, and that a recovery passes over.
    pub offsets_reserved: u64,
    /// What new files of the write-ahead log are encrypted under. The store sees to its objects itself.
    pub at_rest: AtRest,
    /// Where the write-ahead log lies.
    pub disk: Arc<dyn Disk>,
    /// Where the objects lie. One log, one store.
    pub store: Arc<dyn Store>,
    /// Where the work for those is done who read what is no longer in memory.
    pub readers: Readers,
}

impl LogOptions {
    /// Safe defaults for a log in `folder`, with its objects in `objects/` below it.
    #[must_use]
    pub fn new(folder: PathBuf, stamp: fn(&mut [u8], Offset, LeaderEpoch)) -> Self {
        Self {
            store: Arc::new(FolderStore::new(folder.join("objects"))),
            readers: Readers::default(),
            folder,
            stamp,
            wal: WriteAhead::Local,
            wal_interval: Duration::from_millis(100),
            beat_interval: None,
            owner: 0,
            takes: Takes::Whatever,
            wal_segment_bytes: 64 << 20,
            wal_bytes_max: 2 << 30,
            upload_bytes: 32 << 20,
            upload_interval: Duration::from_secs(30),
            merge_objects: 16,
            compaction_keys_max: 900_000,
            tail_bytes_max: 64 << 20,
            cache_bytes_max: 64 << 20,
            small_object_bytes: 256 << 10,
            queue_calls_max: 4096,
            queue_bytes_max: 64 << 20,
            retention_interval: Duration::from_secs(60),
            recover: false,
            offsets_reserved: OFFSETS_RESERVED,
            at_rest: AtRest::default(),
            disk: Arc::new(SystemDisk),
        }
    }
}

/// What makes an append durable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum WriteAhead {
    /// A synced file of this machine. Quick; what is not uploaded is lost with the machine.
    #[default]
    Local,
    /// An object in the store. Nothing that was acknowledged is lost with a machine, and another can take over.
    Object,
}

/// From whom an opener may take the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Takes {
    /// From anybody.
    #[default]
    Whatever,
    /// From the owner of this epoch and from nobody else; or only where there is none. Of several that saw the same one go, one takes the
    /// store, and the others must not take it from that one.
    From(Option<u32>),
}

impl Takes {
    /// Whether it may be taken from that epoch's owner.
    pub(crate) fn allows(self, epoch: Option<u32>) -> bool {
        match self {
            Self::Whatever => true,
            Self::From(from) => from == epoch,
        }
    }
}

/// What an opener found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Beginning {
    /// Nothing: the log is new.
    New,
    /// A write-ahead log, and what the store has before it: all that was ever acknowledged.
    Whole,
    /// What the store has, and no write-ahead log of who had it last, who had uploaded everything.
    StoreAlone {
        /// Who had the store last.
        epoch: u32,
    },
    /// What the store has: the write-ahead log of who had it last is lost, with what it acknowledged and had not uploaded.
    Recovered {
        /// Who had the store last.
        epoch: u32,
    },
}

/// How long and how much a stream keeps; `None` is without end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Retention {
    /// Milliseconds.
    pub ms: Option<u64>,
    /// Bytes.
    pub bytes: Option<u64>,
}

/// What an idempotent producer says of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerMark {
    /// Who.
    pub id: ProducerId,
    /// Which incarnation.
    pub epoch: ProducerEpoch,
    /// Sequence of the first record; below zero for what is not numbered, as markers are not.
    pub first_sequence: Sequence,
}

/// One batch to append.
#[derive(Debug, Clone)]
pub struct Append {
    /// Where to.
    pub stream: StreamId,
    /// Records in the batch.
    pub records: NonZeroU32,
    /// Greatest timestamp in it, ms.
    pub max_timestamp: i64,
    /// Its producer, if idempotent.
    pub producer: Option<ProducerMark>,
    /// What it is to the transaction of its producer.
    pub transaction: InTransaction,
    /// The batch.
    pub bytes: BytesMut,
}

/// Out of whose room an append is taken while much waits for the object store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Room {
    /// All of `wal_bytes_max`.
    Own,
    /// Seven eighths of it: guests leave the rest to the log's own, whose promises may hang on one more append.
    Guest,
}

impl Room {
    pub(crate) const fn of(self, wal_bytes_max: u64) -> u64 {
        match self {
            Self::Own => wal_bytes_max,
            Self::Guest => wal_bytes_max - wal_bytes_max / 8,
        }
    }
}

/// A durable batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: Offset,
    /// First offset that the stream keeps.
    pub log_start: Offset,
    /// It had been stored before, and was not stored again.
    pub duplicate: bool,
}

/// Up to where a reader goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Isolation {
    /// To the durable end.
    Durable,
    /// To the first record whose transaction is still open; and it is told which of those before were aborted.
    Committed,
}

/// What a read gives.
#[derive(Debug, Clone)]
pub struct Read {
    /// Whole batches as stored; the first may begin before the offset asked for.
    pub batches: Vec<Bytes>,
    /// First offset kept.
    pub log_start: Offset,
    /// One past the last offset that is durable.
    pub durable_end: Offset,
    /// One past the last offset before which every transaction has ended.
    pub stable_end: Offset,
    /// For who reads what is committed: aborted transactions that reach into these batches, in the order of their ends.
    pub aborted: Vec<Aborted>,
}

/// A stream's extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// First offset kept.
    pub log_start: Offset,
    /// One past the last offset that is durable.
    pub durable_end: Offset,
    /// One past the last offset before which every transaction has ended.
    pub stable_end: Offset,
    /// Leader epoch now.
    pub leader_epoch: LeaderEpoch,
    /// Bytes kept.
    pub bytes: u64,
}

/// What is remembered of one producer in a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerView {
    /// Who.
    pub id: ProducerId,
    /// Its newest incarnation.
    pub epoch: ProducerEpoch,
    /// Sequence of its last record, if it wrote one in this incarnation.
    pub last_sequence: Option<Sequence>,
    /// Greatest timestamp of its last batch or marker, ms.
    pub last_timestamp: i64,
    /// Where its open transaction begins.
    pub open_since: Option<Offset>,
}

/// Where a stream's data lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tiers {
    /// First offset that is read from this machine.
    pub local: Offset,
    /// One past the last offset that the store has.
    pub stored: Offset,
}

/// Counters since the log was opened, and depths now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogStats {
    /// Syncs of write-ahead files.
    pub fsyncs: u64,
    /// Batches appended.
    pub appends: u64,
    /// Bytes appended.
    pub appended_bytes: u64,
    /// Append calls that wait for the writer.
    pub queue_calls: u64,
    /// Bytes of the write-ahead log that the store does not have yet.
    pub wal_depth_bytes: u64,
    /// Objects put.
    pub uploads: u64,
    /// Objects put in the place of several.
    pub merges: u64,
    /// Bytes of those.
    pub merged_bytes: u64,
    /// Pieces of work that compacted by key.
    pub compactions: u64,
    /// Bytes of the objects that they put.
    pub compacted_bytes: u64,
    /// Bytes of batches that they left out.
    pub compaction_freed_bytes: u64,
    /// Bytes of objects that uploads put.
    pub uploaded_bytes: u64,
    /// Bytes of the index's files.
    pub index_bytes: u64,
    /// Uploads that failed and are tried again.
    pub upload_failures: u64,
    /// Batches that wait for upload.
    pub upload_backlog: u64,
    /// Objects in the store that hold something of a stream.
    pub objects: u64,
    /// Bytes of batches in them that streams keep.
    pub object_bytes: u64,
    /// Objects that nothing needed any more and that were removed.
    pub objects_removed: u64,
    /// Batches that were read from the object store's ranges, the cache included.
    pub object_reads: u64,
    /// Objects and heads that were put into the store, tried or done.
    pub store_puts: u64,
    /// Objects, ranges of them, and heads that were asked of it.
    pub store_gets: u64,
    /// Times that it was asked what there is.
    pub store_lists: u64,
    /// Objects that it was told to remove.
    pub store_deletes: u64,
    /// Streams.
    pub streams: u64,
    /// Appends refused because too much waits for the store or the disk.
    pub appends_refused: u64,
    /// Reads that failed: the disk or the store did not answer, or what they hold is missing or damaged.
    pub read_failures: u64,
    /// Bytes that may wait for the store: `wal_bytes_max`.
    pub wal_limit_bytes: u64,
    /// The last upload failed, and is tried again.
    pub store_away: bool,
    /// Another has taken the store; nothing is accepted any more.
    pub is_fenced: bool,
}
