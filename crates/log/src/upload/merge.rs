//! Puts objects together: chooses neighbours, and makes the objects that take their place. Called by `upload/tidy`.
//!
//! An upload holds what came in an interval, of all streams: one under load is as large as `upload_bytes`, and of ten thousand streams
//! holds some KiB each; one that an interval ended may hold a single record. Whoever replays one stream from those asks the store
//! for each piece. So neighbours are put together, stream by stream: a stream that has enough in them gets objects of its own, the
//! others share one in which each has one piece.
//!
//! What is written twice is paid for, so nothing is put together twice: a run of small objects waits until it comes to an object that need
//! not be touched again, or to more objects or pieces than the index should carry, or until something large lies behind it. One that
//! came in large is put together only where its pieces are small. So upload and merging write at most twice what comes in, however
//! little comes in at once, and once what comes in of few streams under load.
//!
//! No batch changes, and none is left out: which offsets a stream keeps is retention's business, range by range. Therefore a range is
//! not put together with its neighbour where the two would make a large part of what the stream may keep.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Change, Compacted, Index, Range, source::Ahead, source::Source};
use crate::{
    Retention, StoreError, StreamId,
    index::Held,
    object::{ObjectBuilder, ObjectId, PartPlace, SectionId},
    store::Store,
};

/// Objects that are put together at once, at most: so many small ones may lie side by side.
const OBJECTS_MAX: usize = 256;
/// And so many pieces, where there are enough objects.
const PIECES_MAX: u64 = 4_096;
/// All of them come to no more than so many objects of full size.
const FULL_OBJECTS_MAX: u64 = 16;
/// A stream that has this part of an object of full size gets objects of its own.
const OWN_PART: u64 = 4;
/// The pieces of a large object are small where they come to less than this part of it, on average.
const PIECE_PART: u64 = 128;
/// A range is at most this part of what its stream may keep, in bytes and in time.
const PART_OF_RETENTION: u64 = 8;
/// Smaller ones are put together all the same.
const RANGE_BYTES_MIN: u64 = 64 << 10;
/// Bytes that are read ahead of all objects together, and of each at most and at least.
const AHEAD_BYTES: u64 = 32 << 20;
const AHEAD_BYTES_EACH: (u64, u64) = (128 << 10, 4 << 20);

/// Neighbours to put together: at least `many`, as far as they come to no more than some objects of `bytes_max`; the oldest first.
pub(super) fn due(objects: &BTreeMap<ObjectId, Held>, many: usize, bytes_max: u64) -> Vec<ObjectId> {
    let mut in_order: Vec<(u64, ObjectId, Held)> =
        objects.iter().map(|(id, held)| (held.position, *id, *held)).collect();
    in_order.sort_unstable_by_key(|(position, id, _)| (*position, *id));
    let is_due = |(_, _, held): &(u64, ObjectId, Held)| is_due(held, bytes_max);
    let mut runs = in_order.chunk_by(|one, other| is_due(one) == is_due(other)).peekable();
    while let Some(run) = runs.next() {
        if run.len() < many || !is_due(&run[0]) {
            continue;
        }
        let mut bytes = 0;
        let fits = run.iter().take(OBJECTS_MAX).take_while(|(_, _, held)| {
            bytes += held.bytes;
            bytes <= bytes_max.saturating_mul(FULL_OBJECTS_MAX)
        });
        let fits = &run[..fits.count()];
        // More will come to the last run; to one that something large ended nothing does.
        if runs.peek().is_some() || is_enough(fits, bytes_max) {
            return fits.iter().map(|(_, id, _)| *id).collect();
        }
    }
    Vec::new()
}

/// Whether what they become need not be touched again.
fn is_enough(objects: &[(u64, ObjectId, Held)], bytes_max: u64) -> bool {
    let bytes: u64 = objects.iter().map(|(_, _, held)| held.bytes).sum();
    let pieces: u64 = objects.iter().map(|(_, _, held)| u64::from(held.ranges)).sum();
    objects.len() >= OBJECTS_MAX || bytes >= bytes_max / OWN_PART || pieces >= PIECES_MAX
}

fn is_due(held: &Held, bytes_max: u64) -> bool {
    let in_pieces = held.ranges > 1 && held.bytes / u64::from(held.ranges) < bytes_max / PIECE_PART;
    held.merged == 0 && (held.bytes < bytes_max / 2 || in_pieces)
}

/// Objects that are being put together, one new object after the other. What the new ones hold the index does not find in the old
/// ones any more, so what is left to do is what it finds there.
#[derive(Debug)]
pub(super) struct Job {
    objects: Vec<ObjectId>,
    sources: HashMap<ObjectId, Source>,
}

/// What one stream has in the objects of a job.
struct Piece {
    stream: StreamId,
    retention: Retention,
    ranges: Vec<Arc<Range>>,
    bytes: u64,
}

/// An object, not made yet, and what the index needs to know of it.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) object: ObjectBuilder,
    groups: BTreeMap<StreamId, Vec<Group>>,
    position: u64,
}

impl Job {
    pub(super) fn new(objects: Vec<ObjectId>) -> Self {
        Self { objects, sources: HashMap::new() }
    }

    /// Reads what the next object holds; nothing where all is done. `lags` says of some streams how long, in milliseconds, what a
    /// range holds may lie apart.
    pub(super) async fn next(
        &mut self,
        store: &dyn Store,
        index: &Index,
        lags: &BTreeMap<StreamId, u64>,
        id: ObjectId,
        bytes_max: u64,
    ) -> Result<Option<Merged>, StoreError> {
        let (pieces, ends) = self.left(index, lags);
        if pieces.is_empty() {
            return Ok(None);
        }
        let position = self.objects.iter().filter_map(|id| index.objects.get(id)).map(|held| held.position).min();
        let mut merged =
            Merged { object: ObjectBuilder::default(), groups: BTreeMap::new(), position: position.unwrap_or(0) };
        let own_bytes = (bytes_max / OWN_PART).max(1);
        let mut bytes = 0;
        // Those that share come first, so that no more than one object of a job is small.
        for piece in pieces.iter().filter(|piece| piece.bytes < own_bytes) {
            if bytes > 0 && bytes + piece.bytes > bytes_max {
                return Ok(Some(merged));
            }
            for range in &piece.ranges {
                let end = ends[&range.object].0;
                self.take(store, piece, range, id, end, &ends, &mut merged).await?;
            }
            bytes += piece.bytes;
        }
        if bytes > 0 {
            return Ok(Some(merged));
        }
        let piece = &pieces[0];
        for range in &piece.ranges {
            let left = piece.bytes - bytes;
            if bytes > 0 && bytes + range.bytes > bytes_max && left >= own_bytes {
                break;
            }
            self.take(store, piece, range, id, 0, &ends, &mut merged).await?;
            bytes += range.bytes;
        }
        Ok(Some(merged))
    }

    /// What each stream still has there, and where batches and parts of each object end.
    fn left(&self, index: &Index, lags: &BTreeMap<StreamId, u64>) -> (Vec<Piece>, HashMap<ObjectId, (u64, u64)>) {
        let mut ends: HashMap<ObjectId, (u64, u64)> = self.objects.iter().map(|id| (*id, (u64::MAX, 0))).collect();
        let mut pieces = Vec::new();
        for (stream, indexed) in &index.streams {
            let mut ranges = Vec::new();
            for range in &indexed.ranges {
                let Some(ends) = ends.get_mut(&range.object) else { continue };
                // Parts lie behind all batches.
                *ends = (ends.0.min(range.part.at), ends.1.max(range.part.at + u64::from(range.part.bytes)));
                ranges.push(range.clone());
            }
            if ranges.is_empty() {
                continue;
            }
            let lag = lags.get(stream).copied();
            let ms = indexed.retention.ms.into_iter().chain(lag).min();
            let retention = Retention { ms, ..indexed.retention };
            let bytes = ranges.iter().map(|range| range.bytes).sum();
            pieces.push(Piece { stream: *stream, retention, ranges, bytes });
        }
        (pieces, ends)
    }

    /// Takes in what an object holds of a stream. `ahead` is where it may be read ahead to, for the streams that come next.
    #[allow(clippy::too_many_arguments)] // what one range is, where it comes from and where it goes
    async fn take(
        &mut self,
        store: &dyn Store,
        piece: &Piece,
        range: &Range,
        into: ObjectId,
        ahead: u64,
        ends: &HashMap<ObjectId, (u64, u64)>,
        merged: &mut Merged,
    ) -> Result<(), StoreError> {
        let each = (AHEAD_BYTES / self.objects.len() as u64).clamp(AHEAD_BYTES_EACH.0, AHEAD_BYTES_EACH.1);
        let source = self.sources.entry(range.object);
        let source = source.or_insert_with(|| Source::new(range.object, ends[&range.object].1));
        let chunks = source.chunks(store, piece.stream, range).await?;
        let end = chunks.last().map_or(0, |chunk| chunk.at + u64::from(chunk.length)).max(ahead);
        let section = merged.section(piece.stream, piece.retention, range, into);
        for chunk in &chunks {
            let ahead = Ahead { end, bytes: each };
            for stored in source.batches(store, piece.stream, range, chunk, ahead).await? {
                merged.object.push(section, stored.base, stored.records, stored.max_timestamp, &stored.bytes);
            }
        }
        Ok(())
    }
}

impl Merged {
    /// Where a range's batches go.
    fn section(&mut self, stream: StreamId, retention: Retention, range: &Range, into: ObjectId) -> SectionId {
        let groups = self.groups.entry(stream).or_default();
        match groups.last_mut().filter(|group| group.takes(range, retention)) {
            Some(group) => group.add(range),
            None => groups.push(Group::of(range, into)),
        }
        (stream, u32::try_from(groups.len() - 1).expect("an object has far fewer"))
    }

    /// What the index is told, once the parts have their places. It comes without the object.
    pub(super) fn changes(self, places: &BTreeMap<SectionId, PartPlace>) -> Vec<Change> {
        let mut changes = Vec::new();
        for (stream, groups) in self.groups {
            for (n, group) in (0..).zip(groups) {
                let Some(part) = places.get(&(stream, n)) else { continue };
                let range = group.at(*part, self.position);
                changes.push(Change::Moved { id: stream, ranges: vec![Arc::new(range)] });
            }
        }
        changes
    }
}

/// Ranges that become one.
#[derive(Debug)]
pub(super) struct Group {
    range: Range,
    /// Greatest timestamp of the first of them.
    begins: i64,
}

impl Group {
    pub(super) fn of(range: &Range, object: ObjectId) -> Self {
        let part = PartPlace { at: 0, bytes: 0 };
        Self { begins: range.max_timestamp, range: Range { object, part, ..range.clone() } }
    }

    /// Whether a range goes on where this one ends, was compacted or not as this one was, and the two are no large part of what
    /// the stream may keep.
    pub(super) fn takes(&self, range: &Range, retention: Retention) -> bool {
        let most = |kept: Option<u64>, least: u64| kept.map_or(u64::MAX, |kept| (kept / PART_OF_RETENTION).max(least));
        // One without records has no time.
        let span = if self.begins < 0 { 0 } else { range.max_timestamp.saturating_sub(self.begins) };
        range.base == self.range.next
            && range.past.compacted.is_some() == self.range.past.compacted.is_some()
            && self.range.bytes + range.bytes <= most(retention.bytes, RANGE_BYTES_MIN)
            && u64::try_from(span).unwrap_or(0) <= most(retention.ms, 0)
    }

    pub(super) fn add(&mut self, range: &Range) {
        let merged = &mut self.range;
        merged.next = range.next;
        merged.bytes += range.bytes;
        merged.batches += range.batches;
        merged.max_timestamp = merged.max_timestamp.max(range.max_timestamp);
        if self.begins < 0 {
            self.begins = range.max_timestamp;
        }
        // The first of a range says what was in force already.
        let last = merged.epochs.last().map(|(epoch, _)| *epoch);
        merged.epochs.extend(range.epochs.iter().filter(|(epoch, _)| Some(*epoch) != last));
        merged.aborted.extend(&range.aborted);
        if let (Some(one), Some(other)) = (&mut merged.past.compacted, range.past.compacted) {
            let horizon = one.horizon.into_iter().chain(other.horizon).min();
            *one = Compacted { horizon, records: one.records + other.records };
        }
    }

    /// One more batch, which holds no record.
    pub(super) fn add_empty(&mut self, bytes: u64) {
        self.range.bytes += bytes;
        self.range.batches += 1;
    }

    /// The range that they are.
    pub(super) fn at(self, part: PartPlace, position: u64) -> Range {
        let mut range = Range { part, position, ..self.range };
        range.past.merged = true;
        range
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(sizes: &[u64]) -> BTreeMap<ObjectId, Held> {
        // Their numbers say nothing of their order: one that was put together comes late and lies early.
        let object = |(n, bytes): (usize, &u64)| {
            let id = ObjectId { epoch: 1, number: 1_000 - n as u64 };
            (id, Held { position: 8 * n as u64, ranges: 1, bytes: *bytes, merged: 0 })
        };
        sizes.iter().enumerate().map(object).collect()
    }

    fn chosen(sizes: &[u64]) -> Vec<usize> {
        due(&objects(sizes), 3, 32 << 20).iter().map(|id| 1_000 - usize::try_from(id.number).unwrap()).collect()
    }

    #[test]
    fn neighbours_are_put_together_once_they_come_to_something_or_to_too_many() {
        const M: u64 = 1 << 20;
        assert_eq!(chosen(&[1, 2, 3, 4]), [0; 0], "more will come");
        assert_eq!(chosen(&[3 * M, 1, 5 * M]), [0, 1, 2]);
        assert_eq!(chosen(&[3 * M, 1, 4 * M]), [0; 0]);
        assert_eq!(chosen(&[1; 255]), [0; 0]);
        assert_eq!(chosen(&[1; 300]), (0..256).collect::<Vec<_>>());
        // What an upload under load left stays, and nothing is put together over it.
        assert_eq!(chosen(&[1, 2, 16 * M, 3, 4]), [0; 0]);
        assert_eq!(chosen(&[1, 16 * M, 2, 3, 4]), [0; 0]);
        // To these no more will come.
        assert_eq!(chosen(&[1, 2, 3, 16 * M, 4, 5]), [0, 1, 2]);
        // Never more than some objects of full size.
        assert_eq!(chosen(&[15 * M; 40]).len(), 34);
        let many_pieces = objects(&[1 << 20; 3]).into_iter().map(|(id, held)| (id, Held { ranges: 1_400, ..held }));
        assert_eq!(due(&many_pieces.collect(), 3, 32 << 20).len(), 3);
    }

    #[test]
    fn what_was_put_together_or_came_in_large_is_not_written_again_but_for_its_small_pieces() {
        let object = |bytes: u64, ranges: u32, merged: bool| {
            let merged = if merged { ranges } else { 0 };
            let held = |n: u64| Held { position: 8 * n, ranges, bytes, merged };
            (0..256).map(|n| (ObjectId { epoch: 1, number: n }, held(n))).collect::<BTreeMap<_, _>>()
        };
        let is_due =
            |bytes: u64, ranges: u32, merged: bool| !due(&object(bytes, ranges, merged), 3, 32 << 20).is_empty();
        assert!(is_due(10 << 20, 1, false) && !is_due(10 << 20, 1, true));
        assert!(is_due(1 << 10, 9, false) && !is_due(1 << 10, 9, true));
        assert!(!is_due(32 << 20, 20, false), "pieces of more than a mebibyte");
        assert!(is_due(32 << 20, 2_000, false) && !is_due(32 << 20, 2_000, true));
    }

    #[test]
    fn a_range_stays_a_small_part_of_what_its_stream_may_keep() {
        let range = |base: u64, bytes: u64, max_timestamp: i64| Range {
            object: ObjectId { epoch: 1, number: base },
            part: PartPlace { at: 0, bytes: 0 },
            base: crate::Offset::new(base),
            next: crate::Offset::new(base + 10),
            bytes,
            batches: 1,
            max_timestamp,
            epochs: vec![(1, crate::Offset::new(base))],
            position: base,
            aborted: Vec::new(),
            past: crate::index::Past::default(),
        };
        let group = Group::of(&range(0, 40 << 10, 1_000), ObjectId { epoch: 2, number: 0 });
        let takes = |other: &Range, ms: Option<u64>, bytes: Option<u64>| group.takes(other, Retention { ms, bytes });
        assert!(takes(&range(10, 40 << 10, 9_000), None, None));
        assert!(!takes(&range(20, 1, 1_000), None, None), "a gap lies between");
        assert!(!takes(&range(10, 40 << 10, 1_000), None, Some(512 << 10)));
        assert!(takes(&range(10, 20 << 10, 1_000), None, Some(1)), "so little is no loss");
        assert!(takes(&range(10, 1, 1_100), Some(800), None) && !takes(&range(10, 1, 1_101), Some(800), None));
    }

    #[test]
    fn epochs_are_told_once() {
        let offset = crate::Offset::new;
        let range = |base: u64, epochs: &[(u32, u64)]| Range {
            object: ObjectId { epoch: 1, number: base },
            part: PartPlace { at: 0, bytes: 0 },
            base: offset(base),
            next: offset(base + 10),
            bytes: 1,
            batches: 1,
            max_timestamp: 0,
            epochs: epochs.iter().map(|(epoch, at)| (*epoch, offset(*at))).collect(),
            position: base,
            aborted: Vec::new(),
            past: crate::index::Past::default(),
        };
        let mut group = Group::of(&range(0, &[(1, 0)]), ObjectId { epoch: 9, number: 0 });
        group.add(&range(10, &[(1, 10), (2, 15)]));
        group.add(&range(20, &[(2, 20)]));
        assert_eq!(group.range.epochs, [(1, offset(0)), (2, offset(15))]);
        assert_eq!((group.range.next, group.range.batches), (offset(30), 3));
    }
}
