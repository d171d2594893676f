//! Reading from objects: range reads with read-ahead, checked chunk by chunk, and a bounded cache. Called by `log`.
//!
//! The cache holds what came from the store and nothing else: a replay of old data pushes old data out, never the tail.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Offset, ReadError, StoreError, StreamId,
    index::Range,
    object::{self, Chunk, ObjectId, Stored},
    store::Store,
};

/// A miss fetches at least this much of what follows: a replay asks the store once a mebibyte, not once a chunk.
const READ_AHEAD_BYTES: u64 = 1 << 20;
/// What an entry of the cache weighs besides its bytes.
const ENTRY_BYTES: u64 = 128;

type Place = (ObjectId, u64);

#[derive(Clone, Debug)]
enum Cached {
    Part(Arc<Vec<Chunk>>),
    Batches(Arc<Vec<Stored>>),
}

/// What was read last, within a bound.
#[derive(Debug, Default)]
struct Cache {
    entries: BTreeMap<Place, (Cached, u64, u64)>,
    by_use: BTreeMap<u64, Place>,
    uses: u64,
    bytes: u64,
}

impl Cache {
    fn get(&mut self, place: Place) -> Option<Cached> {
        let (cached, used, _) = self.entries.get_mut(&place)?;
        self.by_use.remove(used);
        self.uses += 1;
        *used = self.uses;
        self.by_use.insert(self.uses, place);
        Some(cached.clone())
    }

    fn put(&mut self, place: Place, cached: Cached, bytes: u64, bytes_max: u64) {
        let bytes = bytes + ENTRY_BYTES;
        if bytes > bytes_max {
            return;
        }
        self.uses += 1;
        self.by_use.insert(self.uses, place);
        self.bytes += bytes;
        if let Some((_, used, old)) = self.entries.insert(place, (cached, self.uses, bytes)) {
            self.by_use.remove(&used);
            self.bytes -= old;
        }
        while self.bytes > bytes_max {
            let Some((_, oldest)) = self.by_use.pop_first() else { return };
            if let Some((_, _, old)) = self.entries.remove(&oldest) {
                self.bytes -= old;
            }
        }
    }
}

/// How many running reads need which objects: what is needed is not removed from under them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins(Arc<Mutex<BTreeMap<ObjectId, usize>>>);

impl Pins {
    /// Holds the objects of some ranges until the guard is dropped. Taken under the lock of the state that names the
    /// ranges: whoever removes an object looked first that no state names it, and then at the pins.
    pub(crate) fn hold(&self, ranges: &[Arc<Range>]) -> Pinned {
        let mut held = self.0.lock();
        let objects: Vec<_> = ranges.iter().map(|range| range.object).collect();
        for object in &objects {
            *held.entry(*object).or_default() += 1;
        }
        Pinned { pins: self.clone(), objects }
    }

    /// Whether somebody reads it.
    pub(crate) fn holds(&self, object: ObjectId) -> bool {
        self.0.lock().contains_key(&object)
    }
}

/// Objects that a running read needs.
#[derive(Debug)]
pub(crate) struct Pinned {
    pins: Pins,
    objects: Vec<ObjectId>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut held = self.pins.0.lock();
        for object in &self.objects {
            match held.get_mut(object) {
                Some(count) if *count > 1 => *count -= 1,
                _ => drop(held.remove(object)),
            }
        }
    }
}

/// Reads objects.
#[derive(Debug)]
pub(crate) struct Fetcher {
    store: Arc<dyn Store>,
    cache: Mutex<Cache>,
    bytes_max: u64,
    pub(crate) reads: AtomicU64,
    pub(crate) pins: Pins,
    /// What was said last of a read that failed.
    told: Mutex<String>,
}

impl Fetcher {
    pub(crate) fn new(store: Arc<dyn Store>, bytes_max: u64) -> Self {
        Self {
            store,
            cache: Mutex::default(),
            bytes_max,
            reads: AtomicU64::new(0),
            pins: Pins::default(),
            told: Mutex::default(),
        }
    }

    /// Says why a read failed, once for each reason: whoever reads asks again and again.
    pub(crate) fn tell(&self, id: StreamId, error: &ReadError) {
        let words = error.to_string();
        let mut told = self.told.lock();
        if *told != words {
            tracing::error!(stream = %id, "a read failed: {words}");
            *told = words;
        }
    }

    /// Batches of one range from the one that holds `from` on: one at least, else up to `max_bytes`.
    pub(crate) async fn read(
        &self,
        id: StreamId,
        range: &Range,
        from: Offset,
        max_bytes: usize,
    ) -> Result<Vec<Stored>, StoreError> {
        let chunks = self.part(id, range).await?;
        let first = chunks.partition_point(|chunk| chunk.base <= from).saturating_sub(1);
        let (mut found, mut bytes) = (Vec::new(), 0);
        for at in first..chunks.len() {
            let batches = match self.batches(range, &chunks, at).await {
                Err(_) if !found.is_empty() => break,
                batches => batches?,
            };
            for stored in batches.iter().filter(|stored| stored.next() > from) {
                bytes += stored.bytes.len();
                if !found.is_empty() && bytes > max_bytes {
                    return Ok(self.counted(found));
                }
                found.push(stored.clone());
            }
            if bytes >= max_bytes {
                break;
            }
        }
        Ok(self.counted(found))
    }

    fn counted(&self, found: Vec<Stored>) -> Vec<Stored> {
        self.reads.fetch_add(found.len() as u64, Ordering::Relaxed);
        found
    }

    /// The first batch at or past `start` that `is` right, in a chunk whose newest record could be in it.
    pub(crate) async fn find(
        &self,
        id: StreamId,
        range: &Range,
        start: Offset,
        is: impl Fn(i64) -> bool,
    ) -> Result<Option<Offset>, StoreError> {
        let chunks = self.part(id, range).await?;
        for at in 0..chunks.len() {
            if !is(chunks[at].max_timestamp) {
                continue;
            }
            let batches = self.batches(range, &chunks, at).await?;
            if let Some(hit) = batches.iter().find(|stored| stored.next() > start && is(stored.max_timestamp)) {
                return Ok(Some(hit.base.max(start)));
            }
        }
        Ok(None)
    }

    async fn part(&self, id: StreamId, range: &Range) -> Result<Arc<Vec<Chunk>>, StoreError> {
        let place = (range.object, range.part.at);
        if let Some(Cached::Part(chunks)) = self.cache.lock().get(place) {
            return Ok(chunks);
        }
        let (name, end) = (range.object.name(), range.part.at + u64::from(range.part.bytes));
        let bytes = self.store.get(&name, range.part.at..end).await?;
        let chunks = object::part(&bytes, id).filter(|chunks| !chunks.is_empty());
        let Some(chunks) = chunks.map(Arc::new) else {
            return Err(StoreError::Damaged { name, what: format!("the part at byte {} is bad", range.part.at) });
        };
        self.cache.lock().put(place, Cached::Part(chunks.clone()), bytes.len() as u64, self.bytes_max);
        Ok(chunks)
    }

    /// The batches of chunk `at`; those behind it are fetched with it and cached.
    async fn batches(&self, range: &Range, chunks: &[Chunk], at: usize) -> Result<Arc<Vec<Stored>>, StoreError> {
        if let Some(Cached::Batches(batches)) = self.cache.lock().get((range.object, chunks[at].at)) {
            return Ok(batches);
        }
        let start = chunks[at].at;
        let mut end = start + u64::from(chunks[at].length);
        let mut last = at;
        while let Some(next) = chunks.get(last + 1).filter(|next| next.at == end && end - start < READ_AHEAD_BYTES) {
            end += u64::from(next.length);
            last += 1;
        }
        let bytes = self.store.get(&range.object.name(), start..end).await?;
        let mut first = None;
        for chunk in &chunks[at..=last] {
            let from = usize::try_from(chunk.at - start).expect("a read-ahead fits into memory");
            // A copy, so that one cached chunk does not hold all that was fetched with it.
            let piece = Bytes::copy_from_slice(&bytes[from..from + chunk.length as usize]);
            let Some(batches) = object::batches(chunk, &piece).map(Arc::new) else {
                if let Some(first) = first {
                    return Ok(first); // who needs the bad one hears of it
                }
                let what = format!("the bytes from {} to {} are bad", chunk.at, chunk.at + u64::from(chunk.length));
                return Err(StoreError::Damaged { name: range.object.name(), what });
            };
            let weight = piece.len() as u64 + batches.len() as u64 * 64;
            self.cache.lock().put((range.object, chunk.at), Cached::Batches(batches.clone()), weight, self.bytes_max);
            first.get_or_insert(batches);
        }
        Ok(first.expect("at least one chunk was fetched"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_stays_within_its_bound_and_forgets_what_was_used_longest_ago() {
        let mut cache = Cache::default();
        let place = |n| (ObjectId { epoch: 1, number: n }, 0);
        let part = || Cached::Part(Arc::default());
        let bound = 10 * (100 + ENTRY_BYTES);
        for n in 0..1_000 {
            cache.put(place(n), part(), 100, bound);
            assert!(cache.get(place(0)).is_some() || n >= 1_000);
            assert!(cache.bytes <= bound && cache.entries.len() == cache.by_use.len());
        }
        assert_eq!(cache.entries.len(), 10);
        assert!(cache.get(place(5)).is_none());
        cache.put(place(7_777), part(), bound * 2, bound);
        assert!(cache.get(place(7_777)).is_none(), "what alone exceeds the bound is not kept");
    }
}
