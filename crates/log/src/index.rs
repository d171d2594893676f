//! What the store holds: the index, as changes in immutable files under one head. Written by `upload`, read when the log is
//! opened. `index/layout.rs` has the bytes.
//!
//! The head names a snapshot and the deltas behind it; who replaces the head owns the store. All else is immutable, so a
//! reader that finds a file missing has an old head and reads it again. Applying the same files always gives the same
//! index: offsets, producers and ranges come back from a bucket alone.

mod layout;
mod notes;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use futures::StreamExt;
use uuid::Uuid;

pub(crate) use self::{
    layout::{HeadRecord, IndexName},
    notes::{Note, Taken},
};
use crate::{
    Aborted, Offset, Retention, StoreError, StreamId,
    ledger::{Ledger, Producer},
    object::{ObjectId, PartPlace},
    store::{HeadVersion, Store},
    transactions::Open,
};

/// Epochs whose beginning is remembered; an older write-ahead log that comes back is caught by its positions alone.
const EPOCHS_KEPT: usize = 1_000;
/// Recoveries whose skipped offsets are remembered of a stream; older ones are taken for a gap by a check.
const SKIPPED_KEPT: usize = 64;
/// How often the index may be replaced while it is being read, before opening gives up.
const LOAD_TRIES_MAX: usize = 16;
/// Files that are read beside each other.
const READS_MAX: usize = 16;

/// Batches of one stream in one object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Range {
    pub(crate) object: ObjectId,
    pub(crate) part: PartPlace,
    pub(crate) base: Offset,
    pub(crate) next: Offset,
    /// Bytes of the batches.
    pub(crate) bytes: u64,
    pub(crate) batches: u32,
    pub(crate) max_timestamp: i64,
    /// Leader epochs that begin here, the one in force at `base` first.
    pub(crate) epochs: Vec<(u32, Offset)>,
    /// Where in the write-ahead log the object begins: objects in this order hold each stream's offsets in order. 0 from a file of the
    /// index that did not say so.
    pub(crate) position: u64,
    /// Transactions whose abort was written here, in the order of their ends. One is named as long as its marker is here: without
    /// the marker, a reader would take what its producer wrote later for a part of it.
    pub(crate) aborted: Vec<Aborted>,
    /// What was done with it since it was uploaded.
    pub(crate) past: Past,
}

/// What was done with a range since it was uploaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Past {
    /// Its object took the place of others: it is not written again only because it is small.
    pub(crate) merged: bool,
    /// Its records were compared by their keys.
    pub(crate) compacted: Option<Compacted>,
}

/// What key compaction left of a range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Compacted {
    /// When the first of its tombstones may go, in milliseconds of the epoch.
    pub(crate) horizon: Option<i64>,
    /// Records that are left; where there is none, the last batch is there all the same, so that who reads gets past it.
    pub(crate) records: u64,
}

/// One step of the index.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    /// An epoch began at this position of the write-ahead log.
    Epoch { epoch: u32, at: u64 },
    /// Of the write-ahead objects of this epoch, those from `from` up to before `to` hold what the store has nowhere else; without `to`
    /// the epoch may still write. The epochs before were closed.
    WriteAhead { epoch: u32, from: u64, to: Option<u64> },
    /// A stream is there, with these limits; `next` is where it goes on.
    Stream { id: StreamId, retention: Retention, start: Offset, next: Offset },
    /// A stream and all it held are gone.
    Deleted { id: StreamId },
    /// A range was added.
    Range { id: StreamId, range: Arc<Range> },
    /// Ranges, one behind the other, took the place of those within their offsets: the same batches in another object, or what
    /// compaction left of them.
    Moved { id: StreamId, ranges: Vec<Arc<Range>> },
    /// What is remembered of producers at the end of the stream; others are as before.
    Producers { id: StreamId, producers: Vec<(i64, Producer)> },
    /// The transactions that are open at the end of the stream, and where each began: these and no others.
    Open { id: StreamId, open: Vec<(i64, Offset)> },
    /// What is kept for the day on which a write-ahead log is lost.
    Note(Note),
}

/// One file of the index: a delta on what was, or a snapshot that begins from nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Delta {
    pub(crate) log: Uuid,
    pub(crate) snapshot: bool,
    pub(crate) epoch: u32,
    /// One more than the file before.
    pub(crate) sequence: u64,
    /// The store has all of the write-ahead log before this position.
    pub(crate) covered: u64,
    pub(crate) changes: Vec<Change>,
}

/// One stream as the store has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Indexed {
    pub(crate) retention: Retention,
    pub(crate) start: Offset,
    pub(crate) ledger: Ledger,
    pub(crate) ranges: VecDeque<Arc<Range>>,
    /// Offsets that recoveries have passed over, rising.
    pub(crate) skipped: VecDeque<(Offset, Offset)>,
}

/// What the index needs of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Held {
    /// As in its ranges, the first of them.
    pub(crate) position: u64,
    /// Ranges in it.
    pub(crate) ranges: u32,
    /// Bytes of the batches in them.
    pub(crate) bytes: u64,
    /// Ranges for which it took the place of others.
    pub(crate) merged: u32,
}

/// The whole index.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Index {
    pub(crate) log: Uuid,
    pub(crate) epoch: u32,
    pub(crate) sequence: u64,
    pub(crate) covered: u64,
    /// Where each epoch began, rising.
    pub(crate) epochs: VecDeque<(u32, u64)>,
    /// Write-ahead objects that are needed, by epoch: the first, and one past the last where the epoch is closed.
    pub(crate) write_ahead: BTreeMap<u32, (u64, Option<u64>)>,
    pub(crate) streams: BTreeMap<StreamId, Indexed>,
    /// Objects that ranges lie in.
    pub(crate) objects: BTreeMap<ObjectId, Held>,
    /// Who has the store; nobody where that was an older version.
    pub(crate) taken: Option<Taken>,
    /// When something was uploaded last, ms.
    pub(crate) uploaded_ms: Option<i64>,
}

impl Index {
    /// Applies a file. Returns the objects that nothing needs any more.
    pub(crate) fn apply(&mut self, delta: &Delta) -> Vec<ObjectId> {
        // Only what a step touches is looked at: there may be a great many objects.
        let mut gone: Vec<ObjectId> = Vec::new();
        if delta.snapshot {
            gone.extend(self.objects.keys());
            *self = Self::default();
        }
        self.log = delta.log;
        self.epoch = delta.epoch;
        self.sequence = delta.sequence;
        self.covered = delta.covered;
        for change in &delta.changes {
            self.change(change, &mut gone);
        }
        gone.retain(|object| !self.objects.contains_key(object));
        gone
    }

    fn change(&mut self, change: &Change, gone: &mut Vec<ObjectId>) {
        match change {
            Change::Epoch { epoch, at } => {
                self.epochs.push_back((*epoch, *at));
                if self.epochs.len() > EPOCHS_KEPT {
                    self.epochs.pop_front();
                }
            }
            Change::WriteAhead { epoch, from, to } => {
                if *to == Some(*from) {
                    self.write_ahead.remove(epoch);
                } else {
                    self.write_ahead.insert(*epoch, (*from, *to));
                }
            }
            Change::Stream { id, retention, start, next } => {
                let stream = self.streams.entry(*id).or_default();
                stream.retention = *retention;
                stream.ledger.next = stream.ledger.next.max(*next);
                if *start > stream.start {
                    stream.start = *start;
                    let kept = |range: &Arc<Range>| range.next > *start;
                    let dropped = stream.ranges.iter().filter(|range| !kept(range));
                    dropped.for_each(|range| release(&mut self.objects, range, gone));
                    stream.ranges.retain(kept);
                    stream.skipped.retain(|(_, to)| to > start);
                }
            }
            Change::Note(note) => self.note(note),
            Change::Deleted { id } => {
                for range in self.streams.remove(id).into_iter().flat_map(|stream| stream.ranges) {
                    release(&mut self.objects, &range, gone);
                }
            }
            Change::Range { id, range } => {
                let stream = self.streams.entry(*id).or_default();
                stream.ledger.next = stream.ledger.next.max(range.next);
                if range.next > stream.start {
                    stream.ranges.push_back(range.clone());
                    hold(&mut self.objects, range);
                }
            }
            Change::Moved { id, ranges } => {
                let Some(stream) = self.streams.get_mut(id) else { return };
                if let Some(Replaced { old, new }) = move_into(&mut stream.ranges, ranges, stream.start) {
                    // The new first: a range may stay where it is.
                    new.iter().for_each(|range| hold(&mut self.objects, range));
                    old.iter().for_each(|range| release(&mut self.objects, range, gone));
                }
            }
            Change::Producers { id, producers } => {
                self.streams.entry(*id).or_default().ledger.merge(producers);
            }
            Change::Open { id, open } => self.streams.entry(*id).or_default().ledger.open = Open::of(open),
        }
    }

    fn note(&mut self, note: &Note) {
        match note {
            Note::Taken { by, reserved } => {
                let before = self.taken.map_or(0, |taken| taken.reserved);
                self.taken = Some(Taken { by: *by, reserved: before.max(*reserved) });
            }
            Note::Skipped { id, from, to } => {
                let stream = self.streams.entry(*id).or_default();
                stream.ledger.next = stream.ledger.next.max(*to);
                if *to > stream.start {
                    stream.skipped.push_back((*from, *to));
                    if stream.skipped.len() > SKIPPED_KEPT {
                        stream.skipped.pop_front();
                    }
                }
            }
            Note::Uploaded { at_ms } => self.uploaded_ms = Some(*at_ms),
        }
    }

    /// All of it as one file.
    pub(crate) fn snapshot(&self) -> Delta {
        let mut changes: Vec<_> =
            self.epochs.iter().map(|(epoch, at)| Change::Epoch { epoch: *epoch, at: *at }).collect();
        changes.extend(self.write_ahead.iter().map(|(epoch, (from, to))| Change::WriteAhead {
            epoch: *epoch,
            from: *from,
            to: *to,
        }));
        let taken = self.taken.map(|Taken { by, reserved }| Note::Taken { by, reserved });
        let uploaded = self.uploaded_ms.map(|at_ms| Note::Uploaded { at_ms });
        changes.extend(taken.into_iter().chain(uploaded).map(Change::Note));
        for (id, stream) in &self.streams {
            let Indexed { retention, start, ledger, ranges, skipped } = stream;
            changes.push(Change::Stream { id: *id, retention: *retention, start: *start, next: ledger.next });
            let note = |(from, to): &(Offset, Offset)| Note::Skipped { id: *id, from: *from, to: *to };
            changes.extend(skipped.iter().map(note).map(Change::Note));
            changes.extend(ranges.iter().map(|range| Change::Range { id: *id, range: range.clone() }));
            if !ledger.producers.is_empty() {
                let producers = ledger.producers.iter().map(|(id, producer)| (*id, producer.clone())).collect();
                changes.push(Change::Producers { id: *id, producers });
            }
            if !ledger.open.is_empty() {
                changes.push(Change::Open { id: *id, open: ledger.open.all() });
            }
        }
        let Self { log, epoch, sequence, covered, .. } = *self;
        Delta { log, snapshot: true, epoch, sequence, covered, changes }
    }

    /// The first epoch after `epoch` that began at or before `position`: a frame of `epoch` there is not of this log's history.
    pub(crate) fn superseded(&self, epoch: u32, position: u64) -> Option<u32> {
        self.epochs.iter().find(|(later, at)| *later > epoch && *at <= position).map(|(later, _)| *later)
    }
}

/// What `move_into` did.
#[derive(Debug)]
pub(crate) struct Replaced {
    pub(crate) old: Vec<Arc<Range>>,
    pub(crate) new: Vec<Arc<Range>>,
}

/// Puts ranges in the place of those within their offsets, but for what lies before `start`; nothing where there is none any more.
pub(crate) fn move_into(ranges: &mut VecDeque<Arc<Range>>, by: &[Arc<Range>], start: Offset) -> Option<Replaced> {
    let (first, last) = (by.first()?, by.last()?);
    let from = ranges.partition_point(|old| old.base < first.base);
    let to = ranges.partition_point(|old| old.next <= last.next);
    if from >= to {
        return None;
    }
    let old = ranges.drain(from..to).collect();
    let new: Vec<_> = by.iter().filter(|range| range.next > start).cloned().collect();
    let behind = ranges.split_off(from);
    ranges.extend(new.iter().cloned());
    ranges.extend(behind);
    Some(Replaced { old, new })
}

fn hold(objects: &mut BTreeMap<ObjectId, Held>, range: &Range) {
    let held = objects.entry(range.object).or_default();
    held.position = if held.ranges == 0 { range.position } else { held.position.min(range.position) };
    held.ranges += 1;
    held.bytes += range.bytes;
    held.merged += u32::from(range.past.merged);
}

fn release(objects: &mut BTreeMap<ObjectId, Held>, range: &Range, gone: &mut Vec<ObjectId>) {
    if let Some(held) = objects.get_mut(&range.object) {
        held.ranges -= 1;
        held.bytes -= range.bytes;
        held.merged -= u32::from(range.past.merged);
        if held.ranges == 0 {
            objects.remove(&range.object);
            gone.push(range.object);
        }
    }
}

/// What a store said when it was opened.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) version: HeadVersion,
    pub(crate) head: HeadRecord,
    pub(crate) index: Index,
}

/// Reads head and index; nothing where the store is new.
pub(crate) async fn load(store: &dyn Store) -> Result<Option<Loaded>, StoreError> {
    let mut missing = None;
    for _ in 0..LOAD_TRIES_MAX {
        let Some(found) = store.head().await? else { return Ok(None) };
        let head = HeadRecord::decode(&found.bytes).ok_or_else(|| StoreError::Damaged {
            name: "head".to_owned(),
            what: "it is not one that this version writes".to_owned(),
        })?;
        match replay(store, &head).await {
            Ok(index) => return Ok(Some(Loaded { version: found.version, head, index })),
            // The owner went on and removed what this head names: read the new one.
            Err(error @ StoreError::Missing { .. }) => missing = Some(error),
            Err(error) => return Err(error),
        }
    }
    let missing = missing.expect("the loop ran");
    Err(StoreError::Damaged { name: "head".to_owned(), what: format!("it names a file that is not there: {missing}") })
}

async fn replay(store: &dyn Store, head: &HeadRecord) -> Result<Index, StoreError> {
    let mut index = Index::default();
    // Beside each other: who takes over has clients that wait.
    let reads = futures::stream::iter(head.files.iter().map(async |name| store.get_all(&name.name()).await));
    let mut reads = std::pin::pin!(reads.buffered(READS_MAX));
    for (n, name) in head.files.iter().enumerate() {
        let name_text = name.name();
        let damaged = |what: &str| StoreError::Damaged { name: name_text.clone(), what: what.to_owned() };
        let bytes = reads.next().await.expect("one for each file")?;
        let delta = Delta::decode(&bytes).ok_or_else(|| damaged("its checksum or layout is wrong"))?;
        let follows = if n == 0 { delta.snapshot } else { !delta.snapshot && delta.sequence == index.sequence + 1 };
        if delta.log != head.log || delta.sequence != name.sequence || !follows {
            return Err(damaged("it is not the file that the head means"));
        }
        index.apply(&delta);
    }
    Ok(index)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{layout::tests::changes, *};

    proptest! {
        #[test]
        fn a_snapshot_says_what_the_deltas_said(steps in proptest::collection::vec(changes(), 1..8)) {
            let mut index = Index::default();
            for (n, changes) in steps.into_iter().enumerate() {
                let sequence = n as u64 + 1;
                let delta = Delta { log: Uuid::nil(), snapshot: n == 0, epoch: 1, sequence, covered: 8 * sequence, changes };
                let held: BTreeSet<_> = index.objects.keys().copied().collect();
                let gone = index.apply(&delta);
                let expected = held.iter().filter(|object| !index.objects.contains_key(object));
                let found: BTreeSet<_> = gone.iter().filter(|object| held.contains(object)).collect();
                prop_assert_eq!(found, expected.collect::<BTreeSet<_>>(), "all that went, and nothing else");
                prop_assert!(gone.iter().all(|object| !index.objects.contains_key(object)));
                let mut copy = Index::default();
                copy.apply(&index.snapshot());
                prop_assert_eq!(&copy, &index);
            }
        }
    }
}
