//! Puts small objects together: chooses neighbours, and makes the object that takes their place. Called by `upload`.
//!
//! An upload under load is as large as `upload_bytes`; one that an interval ended may hold a single record, and a store that holds
//! years of those answers nobody quickly. So neighbours of about one size are put together until they are half as large as an
//! upload under load: what came in large is never written again, and each record at most once for each size below that.
//!
//! Objects are neighbours in the order of the write-ahead log, so what a stream has in them is one stretch of its offsets. No batch
//! changes, and none is left out: which offsets a stream keeps is retention's business, range by range. Therefore a range is not
//! put together with its neighbour where the two would make a large part of what the stream may keep.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use bytes::Bytes;
use uuid::Uuid;

use super::{Change, Index, Range};
use crate::{
    Retention, StoreError, StreamId,
    index::Held,
    object::{self, ObjectBuilder, ObjectId, PartPlace},
    store::Store,
};

/// Sizes below which objects are put together with others that are as small.
const SIZES: [u64; 3] = [64 << 10, 1 << 20, u64::MAX];
/// Objects that one step takes at most.
const OBJECTS_MAX: usize = 256;
/// A range is at most this part of what its stream may keep, in bytes and in time.
const PART_OF_RETENTION: u64 = 8;
/// Smaller ones are put together all the same.
const RANGE_BYTES_MIN: u64 = 64 << 10;

/// Neighbours to put together: at least `many`, as far as they come to no more than `bytes_max`; the smallest first, then the oldest.
pub(super) fn due(objects: &BTreeMap<ObjectId, Held>, many: usize, bytes_max: u64) -> Vec<ObjectId> {
    let mut in_order: Vec<(u64, ObjectId, u64)> =
        objects.iter().map(|(id, held)| (held.position, *id, held.bytes)).collect();
    in_order.sort_unstable();
    for size in SIZES {
        let is_small = |(_, _, bytes): &(u64, ObjectId, u64)| *bytes < size.min(bytes_max / 2);
        for run in in_order.chunk_by(|one, other| is_small(one) == is_small(other)) {
            if run.len() < many || !is_small(&run[0]) {
                continue;
            }
            let mut bytes = 0;
            let fits = run.iter().take(OBJECTS_MAX).take_while(|(_, _, more)| {
                bytes += more;
                bytes <= bytes_max
            });
            return fits.map(|(_, id, _)| *id).collect();
        }
    }
    Vec::new()
}

/// The object that takes the place of those, and what the index needs to know of it.
pub(super) async fn merge(
    store: &dyn Store,
    log: Uuid,
    index: &Index,
    chosen: &[ObjectId],
    id: ObjectId,
) -> Result<(Bytes, Vec<Change>), StoreError> {
    let mut within: HashMap<ObjectId, Vec<(StreamId, Retention, Arc<Range>)>> =
        chosen.iter().map(|id| (*id, Vec::new())).collect();
    for (stream, indexed) in &index.streams {
        for range in &indexed.ranges {
            if let Some(within) = within.get_mut(&range.object) {
                within.push((*stream, indexed.retention, range.clone()));
            }
        }
    }
    let position = chosen.first().and_then(|id| index.objects.get(id)).map_or(0, |held| held.position);
    let mut merging = Merging { object: ObjectBuilder::default(), groups: BTreeMap::new() };
    for chosen in chosen {
        let bytes = store.get_all(&chosen.name()).await?;
        for (stream, retention, range) in &within[chosen] {
            let damaged = || StoreError::Damaged {
                name: chosen.name(),
                what: format!("what it holds of stream {stream} from offset {} on is bad", range.base),
            };
            merging.take(*stream, *retention, range, &bytes, id).ok_or_else(damaged)?;
        }
    }
    let Merging { object, groups } = merging;
    let (bytes, places) = object.finish(log);
    let moved = groups.into_iter().flat_map(|(stream, groups)| {
        let moved = groups.into_iter().enumerate().filter_map(|(n, group)| {
            let part = places.get(&(stream, u32::try_from(n).ok()?))?;
            let range = Arc::new(Range { part: *part, position, ..group.range });
            Some(Change::Moved { id: stream, range })
        });
        moved.collect::<Vec<_>>()
    });
    Ok((bytes, moved.collect()))
}

/// Ranges that become one.
struct Group {
    range: Range,
    /// Greatest timestamp of the first of them.
    begins: i64,
}

struct Merging {
    object: ObjectBuilder,
    groups: BTreeMap<StreamId, Vec<Group>>,
}

impl Merging {
    /// Takes in what an object holds of a stream; nothing to say where that is damaged.
    fn take(
        &mut self,
        stream: StreamId,
        retention: Retention,
        range: &Range,
        bytes: &Bytes,
        into: ObjectId,
    ) -> Option<()> {
        let cut = |at: u64, length: u64| {
            let (from, to) = (usize::try_from(at).ok()?, usize::try_from(at.checked_add(length)?).ok()?);
            (from <= to && to <= bytes.len()).then(|| bytes.slice(from..to))
        };
        let chunks = object::part(&cut(range.part.at, u64::from(range.part.bytes))?, stream)?;
        let groups = self.groups.entry(stream).or_default();
        match groups.last_mut().filter(|group| group.takes(range, retention)) {
            Some(group) => group.add(range),
            None => groups.push(Group::of(range, into)),
        }
        let group = u32::try_from(groups.len() - 1).ok()?;
        for chunk in &chunks {
            for stored in object::batches(chunk, &cut(chunk.at, u64::from(chunk.length))?)? {
                self.object.push((stream, group), stored.base, stored.records, stored.max_timestamp, &stored.bytes);
            }
        }
        Some(())
    }
}

impl Group {
    fn of(range: &Range, object: ObjectId) -> Self {
        let part = PartPlace { at: 0, bytes: 0 };
        Self { begins: range.max_timestamp, range: Range { object, part, ..range.clone() } }
    }

    /// Whether a range goes on where this one ends, and the two are no large part of what the stream may keep.
    fn takes(&self, range: &Range, retention: Retention) -> bool {
        let most = |kept: Option<u64>, least: u64| kept.map_or(u64::MAX, |kept| (kept / PART_OF_RETENTION).max(least));
        let span = range.max_timestamp.saturating_sub(self.begins);
        range.base == self.range.next
            && self.range.bytes + range.bytes <= most(retention.bytes, RANGE_BYTES_MIN)
            && u64::try_from(span).unwrap_or(0) <= most(retention.ms, 0)
    }

    fn add(&mut self, range: &Range) {
        let merged = &mut self.range;
        merged.next = range.next;
        merged.bytes += range.bytes;
        merged.batches += range.batches;
        merged.max_timestamp = merged.max_timestamp.max(range.max_timestamp);
        // The first of a range says what was in force already.
        let last = merged.epochs.last().map(|(epoch, _)| *epoch);
        merged.epochs.extend(range.epochs.iter().filter(|(epoch, _)| Some(*epoch) != last));
        merged.aborted.extend(&range.aborted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(sizes: &[u64]) -> BTreeMap<ObjectId, Held> {
        // Their numbers say nothing of their order: one that was put together comes late and lies early.
        let object = |(n, bytes): (usize, &u64)| {
            let id = ObjectId { epoch: 1, number: 1_000 - n as u64 };
            (id, Held { position: 8 * n as u64, ranges: 1, bytes: *bytes })
        };
        sizes.iter().enumerate().map(object).collect()
    }

    fn chosen(sizes: &[u64]) -> Vec<usize> {
        due(&objects(sizes), 3, 32 << 20).iter().map(|id| 1_000 - usize::try_from(id.number).unwrap()).collect()
    }

    #[test]
    fn neighbours_of_one_size_are_put_together_the_smallest_first() {
        const K: u64 = 1 << 10;
        assert_eq!(chosen(&[1, 2]), [0; 0]);
        assert_eq!(chosen(&[1, 2, 3]), [0, 1, 2]);
        // What an upload under load left stays, and nothing is put together over it.
        assert_eq!(chosen(&[1, 2, 16 << 20, 3, 4]), [0; 0]);
        assert_eq!(chosen(&[1, 16 << 20, 2, 3, 4]), [2, 3, 4]);
        // Three of 500 KiB, then two small ones: the small ones wait for a third.
        assert_eq!(chosen(&[500 * K, 500 * K, 500 * K, 1, 1]), [0, 1, 2, 3, 4]);
        assert_eq!(chosen(&[500 * K, 500 * K, 500 * K, 1, 1, 1]), [3, 4, 5]);
        // Never more than one object may hold.
        assert_eq!(chosen(&[15 << 20, 15 << 20, 15 << 20, 15 << 20]), [0, 1]);
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
        };
        let mut group = Group::of(&range(0, &[(1, 0)]), ObjectId { epoch: 9, number: 0 });
        group.add(&range(10, &[(1, 10), (2, 15)]));
        group.add(&range(20, &[(2, 20)]));
        assert_eq!(group.range.epochs, [(1, offset(0)), (2, offset(15))]);
        assert_eq!((group.range.next, group.range.batches), (offset(30), 3));
    }
}
