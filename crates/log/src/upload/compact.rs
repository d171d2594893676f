//! Key compaction: of each key in what the store has of a stream only the newest record stays. Called by `upload/tidy`, a bounded
//! piece of work at a time, so that uploads come between.
//!
//! A pass over one stream first maps the keys of what was never compacted: hash to newest offset, in bounded memory. Where they do
//! not fit, the pass ends where the map was full, and another follows. Then it goes through the stream from its beginning and writes
//! anew each range that loses a record to the map. The ranges that hold what the map points to come last, so whatever a crash
//! interrupts, a record only goes while a newer one of its key is there.
//!
//! Offsets never change. What a range covers stays what it was, and its last batch stays even where it holds nothing, so that who
//! reads a gap gets past it. The stream's end and what producers have sent are not read from batches: the index has both, so a batch
//! that is not a range's last goes with its last record. (Kafka, which has only the batches, keeps empty ones for its producers.)

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Change, Compacted, Index, Past, Range,
    merge::Group,
    source::{Ahead, Source},
};
use crate::{
    Aborted, Compaction, Offset, Retention, StoreError, StreamId,
    compaction::{Keep, KeyHash, Keys, Rule},
    index::Indexed,
    object::{Chunk, ObjectBuilder, ObjectId, PartPlace, SectionId, Stored},
    sealed::apart,
    step_aside,
    store::Store,
};

/// Bytes that are read and gone through at once.
const READ_BYTES: u64 = 4 << 20;
/// One piece of work reads no more than so many objects of full size.
const WORK_OBJECTS: u64 = 2;
/// A range of less than this part of an object of full size is written with its neighbours, also where it loses nothing.
const SMALL_PART: u64 = 8;

/// What a stream needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Due {
    /// Where what is compacted for the first time begins and ends.
    from: Offset,
    until: Offset,
}

/// Whether a stream is to be compacted now. Nothing at or past what is settled is: it may still be aborted.
pub(super) fn due(indexed: &Indexed, wanted: &Wanted, now_ms: i64) -> Option<Due> {
    let Wanted { policy, settled: stable, .. } = wanted;
    let ranges = &indexed.ranges;
    let first = ranges.iter().position(|range| range.past.compacted.is_none()).unwrap_or(ranges.len());
    let clean_bytes: u64 = ranges.range(..first).map(|range| range.bytes).sum();
    let horizons = ranges.range(..first).filter_map(|range| range.past.compacted?.horizon);
    let is_expired = horizons.min().is_some_and(|horizon| horizon <= now_ms);
    let before = |lag: u64| now_ms.saturating_sub(i64::try_from(lag).unwrap_or(i64::MAX));
    let settled = |range: &&Arc<Range>| {
        let old = policy.min_lag_ms == 0 || range.max_timestamp <= before(policy.min_lag_ms);
        range.next <= *stable && old
    };
    let dirty = || ranges.range(first..).take_while(settled);
    let bytes: u64 = dirty().map(|range| range.bytes).sum();
    let from = ranges.get(first).map_or(indexed.ledger.next, |range| range.base);
    let until = dirty().last().map_or(from, |range| range.next);
    let enough = u128::from(bytes) * 1_000 > u128::from(policy.dirty_per_mille) * u128::from(bytes + clean_bytes);
    let oldest = dirty().next().map(|range| range.max_timestamp);
    let late = policy.max_lag_ms.zip(oldest).is_some_and(|(lag, oldest)| oldest >= 0 && oldest < before(lag));
    if bytes > 0 && (enough || late) {
        return Some(Due { from, until });
    }
    is_expired.then_some(Due { from, until: from })
}

/// A stream on its way.
#[derive(Debug)]
pub(super) struct Pass {
    stream: StreamId,
    due: Due,
    rule: Rule,
    newest: HashMap<KeyHash, u64>,
    /// Everything before it is in the map, or was there before the pass.
    mapped: Offset,
    is_full: bool,
    /// A batch that alone has more keys than fit: it stays as it is.
    alone: Option<Offset>,
    /// Where the next range to be gone through begins.
    at: Offset,
    /// Transactions that were aborted, in the order of their ends.
    aborted: Vec<Aborted>,
}

/// What a pass did to a range.
#[derive(Debug)]
enum Done {
    /// It stays where it is.
    Stays(Arc<Range>),
    /// It is in this group of its stream.
    Written(u32),
}

/// What one piece of work made: an object, not made yet, and the ranges that changed.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) object: ObjectBuilder,
    groups: BTreeMap<SectionId, Group>,
    /// Stretches of ranges, without a hole in each, that take the place of what was there.
    moves: Vec<(StreamId, Vec<Done>)>,
    /// Where the last of them ends.
    end: Option<(StreamId, Offset)>,
    positions: BTreeMap<SectionId, u64>,
    /// Bytes of batches that were read, and of those that the object has.
    read: u64,
    pub(super) written: u64,
    /// Bytes of batches that are needed no more.
    pub(super) freed: u64,
    /// The last batch of the open group, where it holds no record.
    pending: Option<(SectionId, Stored)>,
}

/// A stream that may be compacted.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) policy: Compaction,
    /// Before it every transaction has ended.
    pub(super) settled: Offset,
    pub(super) aborted: Vec<Aborted>,
}

/// What a pass needs of the log.
pub(super) struct Needs<'a> {
    pub(super) store: &'a dyn Store,
    pub(super) keys: &'a Arc<dyn Keys>,
    pub(super) index: &'a Index,
    /// Keys that the map may hold.
    pub(super) keys_max: usize,
    /// Bytes of an object of full size.
    pub(super) bytes_max: u64,
    pub(super) object: ObjectId,
}

impl Work {
    /// Whether it is time to commit what was made, or to let others go first.
    pub(super) const fn is_enough(&self, bytes_max: u64) -> bool {
        self.written >= bytes_max || self.read >= bytes_max * WORK_OBJECTS
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.moves.is_empty()
    }

    /// Ends the open group: what comes next lies elsewhere.
    pub(super) fn close(&mut self) {
        let Some((section, stored)) = self.pending.take() else { return };
        self.push(section, &stored);
        if let Some(group) = self.groups.get_mut(&section) {
            group.add_empty(stored.bytes.len() as u64);
        }
    }

    fn push(&mut self, section: SectionId, stored: &Stored) {
        self.written += stored.bytes.len() as u64;
        self.object.push(section, stored.base, stored.records, stored.max_timestamp, &stored.bytes);
    }

    /// What the index is told, once the parts have their places. It comes without the object.
    pub(super) fn changes(mut self, places: &BTreeMap<SectionId, PartPlace>) -> Vec<Change> {
        let mut changes = Vec::new();
        for (id, done) in std::mem::take(&mut self.moves) {
            let ranges = done.into_iter().map(|done| match done {
                Done::Stays(range) => range,
                Done::Written(n) => {
                    let section = (id, n);
                    // Without it the index would forget what the group holds.
                    let group = self.groups.remove(&section).expect("each group is written once");
                    let part = places.get(&section).expect("each group has a batch");
                    let position = self.positions.get(&section).copied().unwrap_or(0);
                    Arc::new(group.at(*part, position))
                }
            });
            changes.push(Change::Moved { id, ranges: ranges.collect() });
        }
        changes
    }

    /// One more range; where one before it stays untouched, a new stretch begins, because a stretch replaces all within it.
    fn moved(&mut self, stream: StreamId, base: Offset, next: Offset, done: Done) {
        let follows = self.end == Some((stream, base));
        self.end = Some((stream, next));
        match self.moves.last_mut().filter(|_| follows) {
            Some((_, stretch)) => stretch.push(done),
            None => self.moves.push((stream, vec![done])),
        }
    }

    /// What is left of a range: in the group of the one before it, or in a new one.
    fn write(&mut self, (stream, into): (StreamId, ObjectId), retention: Retention, range: &Range, filtered: Filtered) {
        let last = match self.moves.last().and_then(|(of, stretch)| Some((*of, stretch.last()?))) {
            Some((of, Done::Written(n))) if self.end == Some((stream, range.base)) => Some((of, *n)),
            _ => None,
        };
        let open = last.filter(|section| self.groups[section].takes(range, retention));
        let section = if let Some(section) = open {
            // What follows gets a reader past it.
            self.pending = None;
            self.groups.get_mut(&section).expect("it was just found").add(range);
            self.end = Some((stream, range.next));
            section
        } else {
            self.close();
            let before = self.groups.range((stream, 0)..=(stream, u32::MAX)).next_back();
            let section = (stream, before.map_or(0, |((_, n), _)| n + 1));
            self.groups.insert(section, Group::of(range, into));
            self.positions.insert(section, range.position);
            self.moved(stream, range.base, range.next, Done::Written(section.1));
            section
        };
        for stored in &filtered.batches {
            self.push(section, stored);
        }
        self.pending = filtered.last_empty.map(|stored| (section, stored));
    }
}

/// What is left of a range.
#[derive(Debug, Default)]
struct Filtered {
    /// Batches that hold something.
    batches: Vec<Stored>,
    /// The last one, where it does not.
    last_empty: Option<Stored>,
    is_changed: bool,
    records: u64,
    horizon: Option<i64>,
}

impl Filtered {
    fn bytes(&self) -> u64 {
        self.batches.iter().map(|stored| stored.bytes.len() as u64).sum()
    }

    /// As the index has it.
    fn range(&self, of: &Range, is_compacted: bool) -> Range {
        let newest = self.batches.iter().map(|stored| stored.max_timestamp).max();
        let compacted = Compacted { horizon: self.horizon, records: self.records };
        Range {
            bytes: self.bytes(),
            batches: u32::try_from(self.batches.len()).unwrap_or(u32::MAX),
            max_timestamp: newest.unwrap_or(-1),
            past: Past { merged: true, compacted: is_compacted.then_some(compacted) },
            ..of.clone()
        }
    }

    fn take(&mut self, keys: &dyn Keys, stored: Stored, rule: Rule, keep: Keep<'_>) {
        let rebuilt = keys.rebuild(&stored.bytes, rule, keep);
        self.records += u64::from(rebuilt.records);
        self.horizon = self.horizon.into_iter().chain(rebuilt.horizon_ms).min();
        self.is_changed |= rebuilt.bytes.is_some();
        let stored = match rebuilt.bytes {
            Some(bytes) => Stored { bytes, max_timestamp: rebuilt.max_timestamp, ..stored },
            None => stored,
        };
        // One that was left empty before is in the way where it is not the last any more.
        self.is_changed |= self.last_empty.is_some();
        if rebuilt.records == 0 {
            self.last_empty = Some(stored);
        } else {
            self.last_empty = None;
            self.batches.push(stored);
        }
    }

    /// One that stays whatever it holds.
    fn take_as_is(&mut self, stored: Stored) {
        self.is_changed |= self.last_empty.take().is_some();
        self.records += u64::from(stored.records);
        self.batches.push(stored);
    }
}

impl Pass {
    /// `aborted` names every transaction that was aborted before what is settled.
    pub(super) fn new(stream: StreamId, due: Due, wanted: Wanted, now_ms: i64, indexed: &Indexed) -> Self {
        let Wanted { policy, aborted, .. } = wanted;
        let retention = i64::try_from(policy.delete_retention_ms).unwrap_or(i64::MAX);
        Self {
            stream,
            due,
            rule: Rule { now_ms, horizon_ms: now_ms.saturating_add(retention) },
            newest: HashMap::new(),
            mapped: due.from,
            is_full: false,
            alone: None,
            at: indexed.ranges.front().map_or(due.until, |range| range.base),
            aborted,
        }
    }

    pub(super) const fn stream(&self) -> StreamId {
        self.stream
    }

    /// One step: maps a range, or goes through one. Gives the pass back where it goes on.
    pub(super) async fn step(mut self, needs: &Needs<'_>, work: &mut Work) -> Result<Option<Self>, StoreError> {
        let Some(indexed) = needs.index.streams.get(&self.stream) else { return Ok(None) };
        // Retention took all of it, or it is another stream of that name.
        let last = range_at(indexed, Offset::new(self.due.until.get().saturating_sub(1)));
        if last.is_none_or(|last| last.next != self.due.until) {
            work.close();
            return Ok(None);
        }
        if !self.is_full && self.mapped < self.due.until {
            match range_at(indexed, self.mapped) {
                Some(range) if range.next <= self.due.until => self = self.map(needs, &range, work).await?,
                // Retention took it meanwhile.
                Some(range) => self.mapped = range.base.max(self.due.until),
                None => self.mapped = self.due.until,
            }
            return Ok(Some(self));
        }
        let end = if self.is_full { self.mapped } else { self.due.until };
        let Some(range) = range_at(indexed, self.at).filter(|range| range.base < end) else {
            work.close();
            return Ok(None);
        };
        self.at = range.next;
        self.rewrite(needs, &range, end, indexed.retention, work).await.map(Some)
    }

    /// Puts the keys of a range into the map.
    async fn map(mut self, needs: &Needs<'_>, range: &Arc<Range>, work: &mut Work) -> Result<Self, StoreError> {
        let mut reading = Reading::begin(needs.store, self.stream, range).await?;
        while let Some(batches) = reading.next(needs.store, self.stream, range).await? {
            let (keys, keys_max) = (needs.keys.clone(), needs.keys_max);
            self = apart(move || {
                self.map_batches(keys.as_ref(), &batches, keys_max);
                self
            })
            .await?;
            if self.is_full {
                break;
            }
        }
        work.read += range.bytes;
        Ok(self)
    }

    fn map_batches(&mut self, keys: &dyn Keys, batches: &[Stored], keys_max: usize) {
        let from = self.mapped;
        for stored in batches.iter().filter(|stored| stored.base >= from) {
            step_aside();
            if is_aborted(&self.aborted, keys, stored) {
                self.mapped = stored.next();
                continue;
            }
            let (newest, mut fits) = (&mut self.newest, true);
            keys.each_key(&stored.bytes, &mut |offset, key| {
                // What is in the map is true of the stream also where the rest of its batch is not in it.
                if let Some(known) = newest.get_mut(&key) {
                    *known = offset.get().max(*known);
                } else if newest.len() < keys_max {
                    newest.insert(key, offset.get());
                } else {
                    fits = false;
                }
            });
            if !fits {
                self.is_full = true;
                if stored.base > self.due.from {
                    return;
                }
                self.alone = Some(stored.base);
            }
            self.mapped = stored.next();
            if self.is_full {
                return;
            }
        }
    }

    /// Writes anew what a range keeps, or leaves it where it is.
    async fn rewrite(
        mut self,
        needs: &Needs<'_>,
        range: &Arc<Range>,
        end: Offset,
        retention: Retention,
        work: &mut Work,
    ) -> Result<Self, StoreError> {
        let expired = |past: Compacted| past.horizon.is_some_and(|horizon| horizon <= self.rule.now_ms);
        let is_touched = range.past.compacted.is_none_or(|past| !self.newest.is_empty() || expired(past));
        if !is_touched {
            work.close();
            return Ok(self);
        }
        let mut reading = Reading::begin(needs.store, self.stream, range).await?;
        let (mut filtered, mut rest) = (Filtered::default(), Filtered::default());
        while let Some(batches) = reading.next(needs.store, self.stream, range).await? {
            let keys = needs.keys.clone();
            (self, filtered, rest) = apart(move || {
                for stored in batches {
                    step_aside();
                    if stored.base >= end {
                        rest.take_as_is(stored);
                    } else if Some(stored.base) == self.alone {
                        filtered.take_as_is(stored);
                    } else {
                        self.filter(keys.as_ref(), stored, &mut filtered);
                    }
                }
                (self, filtered, rest)
            })
            .await?;
        }
        work.read += range.bytes;
        let to = (self.stream, needs.object);
        if range.next > end {
            // The map was full here: the range is cut in two, and the next pass begins with the second.
            let (first, second) = cut(range, end);
            work.write(to, retention, &filtered.range(&first, true), filtered);
            work.write(to, retention, &rest.range(&second, false), rest);
            work.close();
            return Ok(self);
        }
        let is_small = range.bytes < needs.bytes_max / SMALL_PART;
        if !filtered.is_changed && !is_small {
            work.close();
            let compacted = Compacted { horizon: filtered.horizon, records: filtered.records };
            let past = Past { compacted: Some(compacted), ..range.past };
            let stays = Arc::new(Range { past, ..(**range).clone() });
            work.moved(self.stream, range.base, range.next, Done::Stays(stays));
            return Ok(self);
        }
        work.freed += range.bytes.saturating_sub(filtered.bytes());
        work.write(to, retention, &filtered.range(range, true), filtered);
        Ok(self)
    }

    fn filter(&self, keys: &dyn Keys, stored: Stored, filtered: &mut Filtered) {
        let newest = |offset: Offset, key: &KeyHash| self.newest.get(key).is_none_or(|newest| offset.get() >= *newest);
        let keep = if is_aborted(&self.aborted, keys, &stored) { Keep::Nothing } else { Keep::Newest(&newest) };
        filtered.take(keys, stored, self.rule, keep);
    }
}

/// Whether a batch belongs to a transaction that was aborted. One that is settled and was not aborted was committed.
fn is_aborted(aborted: &[Aborted], keys: &dyn Keys, stored: &Stored) -> bool {
    let Some(producer) = keys.transaction(&stored.bytes) else { return false };
    let ends = aborted.partition_point(|aborted| aborted.last < stored.base);
    let mut later = aborted[ends..].iter();
    // The first end of that producer behind the batch is the end of the batch's transaction, where it was aborted at all.
    later.any(|aborted| aborted.producer == producer && aborted.first <= stored.base)
}

/// A range as two, before and from `at` on.
fn cut(range: &Range, at: Offset) -> (Range, Range) {
    let in_force = range.epochs.iter().rev().find(|(_, start)| *start <= at).map(|(epoch, _)| (*epoch, at));
    let later = range.epochs.iter().filter(|(_, start)| *start > at).copied();
    let epochs = in_force.into_iter().chain(later).collect();
    let before = range.epochs.iter().filter(|(_, start)| *start < at).copied().collect();
    let (ended, later) = range.aborted.iter().partition(|aborted| aborted.last < at);
    let first = Range { next: at, epochs: before, aborted: ended, ..range.clone() };
    (first, Range { base: at, epochs, aborted: later, ..range.clone() })
}

/// The range that holds an offset, or the first behind it.
fn range_at(indexed: &Indexed, offset: Offset) -> Option<Arc<Range>> {
    indexed.ranges.get(indexed.ranges.partition_point(|range| range.next <= offset)).cloned()
}

/// A range's batches, some mebibytes at a time.
struct Reading {
    source: Source,
    chunks: std::vec::IntoIter<Chunk>,
    end: u64,
}

impl Reading {
    async fn begin(store: &dyn Store, stream: StreamId, range: &Range) -> Result<Self, StoreError> {
        let mut source = Source::new(range.object, range.part.at + u64::from(range.part.bytes));
        let chunks = source.chunks(store, stream, range).await?;
        let end = chunks.last().map_or(0, |chunk| chunk.at + u64::from(chunk.length));
        Ok(Self { source, chunks: chunks.into_iter(), end })
    }

    async fn next(
        &mut self,
        store: &dyn Store,
        stream: StreamId,
        range: &Range,
    ) -> Result<Option<Vec<Stored>>, StoreError> {
        let (mut found, mut bytes) = (Vec::new(), 0);
        while bytes < READ_BYTES {
            let Some(chunk) = self.chunks.next() else { break };
            let ahead = Ahead { end: self.end, bytes: READ_BYTES };
            found.extend(self.source.batches(store, stream, range, &chunk, ahead).await?);
            bytes += u64::from(chunk.length);
        }
        Ok((!found.is_empty()).then_some(found))
    }
}

#[cfg(test)]
mod tests;
