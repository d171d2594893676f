//! What was read from the store last, within a bound, so that a replay pushes out nothing but what other replays left. Used by `fetch`
//! alone.
//!
//! What comes in is fresh: it goes in the order in which it came, however often it is asked for meanwhile, because a reader asks for
//! one block several times and then never again. What is fetched again soon after it went is kept, and goes in the order of use. Who
//! reads each block once, however many, pushes out what is fresh; what is kept stays, up to half of the bound. (The scheme is 2Q, by
//! Johnson and Shasha.)

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Block, Part, Whole};
use crate::object::ObjectId;

/// What an entry weighs besides its bytes.
pub(super) const ENTRY_BYTES: u64 = 128;
/// Entries that are remembered when they have gone.
const GONE_MAX: usize = 4_096;

/// Where something begins in an object.
pub(super) type Place = (ObjectId, u64);

#[derive(Clone, Debug)]
pub(super) enum Cached {
    Part(Arc<Part>),
    Block(Arc<Block>),
    Whole(Arc<Whole>),
}

impl Cached {
    /// Whether nothing in it is damaged.
    pub(super) fn is_whole(&self) -> bool {
        match self {
            Self::Part(_) => true,
            Self::Block(block) => block.is_whole(),
            Self::Whole(whole) => whole.is_whole(),
        }
    }

    fn weight(&self) -> u64 {
        ENTRY_BYTES
            + match self {
                Self::Part(part) => part.weight(),
                Self::Block(block) => block.weight(),
                Self::Whole(whole) => whole.weight(),
            }
    }
}

#[derive(Debug)]
struct Entry {
    cached: Cached,
    weight: u64,
    /// Its place in the order that it is in.
    turn: u64,
    is_kept: bool,
    /// Of the bytes that may be read ahead, so many are taken by this while nobody has asked for it.
    ahead: u64,
}

#[derive(Debug, Default)]
pub(super) struct Cache {
    bytes_max: u64,
    entries: HashMap<Place, Entry>,
    fresh: BTreeMap<u64, Place>,
    kept: BTreeMap<u64, Place>,
    fresh_bytes: u64,
    kept_bytes: u64,
    /// What was fresh and went, with its weight; together no more than half of the bound.
    gone: BTreeMap<u64, (Place, u64)>,
    turn_of_gone: HashMap<Place, u64>,
    gone_bytes: u64,
    turns: u64,
    /// Bytes that were read ahead, or are on their way, and that nobody has asked for.
    ahead_bytes: u64,
}

impl Cache {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, ..Self::default() }
    }

    pub(super) fn get(&mut self, place: Place) -> Option<Cached> {
        let entry = self.entries.get_mut(&place)?;
        self.ahead_bytes -= std::mem::take(&mut entry.ahead);
        if entry.is_kept {
            self.turns += 1;
            self.kept.remove(&entry.turn);
            self.kept.insert(self.turns, place);
            entry.turn = self.turns;
        }
        Some(entry.cached.clone())
    }

    pub(super) fn has(&self, place: Place) -> bool {
        self.entries.contains_key(&place)
    }

    /// Takes so many of the bytes that may be read ahead: a quarter of all, so that what was read ahead is still there when it is
    /// asked for.
    pub(super) fn reserve_ahead(&mut self, bytes: u64) -> bool {
        let fits = self.ahead_bytes + bytes <= self.bytes_max / 4;
        self.ahead_bytes += if fits { bytes } else { 0 };
        fits
    }

    /// What was to be read ahead did not come, or somebody waited for it.
    pub(super) fn release_ahead(&mut self, bytes: u64) {
        self.ahead_bytes -= bytes;
    }

    /// Takes something in; `ahead` is what was reserved for it.
    pub(super) fn put(&mut self, place: Place, cached: Cached, ahead: u64) {
        let weight = cached.weight();
        if weight > self.bytes_max || self.has(place) {
            return self.release_ahead(ahead);
        }
        let is_kept = self.remember(place);
        self.turns += 1;
        let (order, bytes) =
            if is_kept { (&mut self.kept, &mut self.kept_bytes) } else { (&mut self.fresh, &mut self.fresh_bytes) };
        order.insert(self.turns, place);
        *bytes += weight;
        self.entries.insert(place, Entry { cached, weight, turn: self.turns, is_kept, ahead });
        while self.fresh_bytes + self.kept_bytes > self.bytes_max {
            self.evict();
        }
    }

    fn evict(&mut self) {
        let from_fresh = self.fresh_bytes > self.bytes_max / 2 || self.kept.is_empty();
        let order = if from_fresh { &mut self.fresh } else { &mut self.kept };
        let Some((_, place)) = order.pop_first() else { return };
        let Some(entry) = self.entries.remove(&place) else { return };
        self.ahead_bytes -= entry.ahead;
        if !from_fresh {
            self.kept_bytes -= entry.weight;
            return;
        }
        self.fresh_bytes -= entry.weight;
        self.turns += 1;
        self.gone.insert(self.turns, (place, entry.weight));
        self.turn_of_gone.insert(place, self.turns);
        self.gone_bytes += entry.weight;
        while self.gone_bytes > self.bytes_max / 2 || self.gone.len() > GONE_MAX {
            let Some((_, (place, weight))) = self.gone.pop_first() else { return };
            self.turn_of_gone.remove(&place);
            self.gone_bytes -= weight;
        }
    }

    /// Whether it went a short while ago.
    fn remember(&mut self, place: Place) -> bool {
        let Some(turn) = self.turn_of_gone.remove(&place) else { return false };
        if let Some((_, weight)) = self.gone.remove(&turn) {
            self.gone_bytes -= weight;
        }
        true
    }

    #[cfg(test)]
    pub(super) fn ahead_bytes(&self) -> u64 {
        self.ahead_bytes
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.fresh_bytes + self.kept_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECE: u64 = 1_000;

    fn place(number: u64) -> Place {
        (ObjectId { epoch: 1, number }, 0)
    }

    /// A block of `PIECE` bytes with what an entry weighs besides.
    fn block() -> Cached {
        Cached::Block(Arc::new(Block {
            chunks: Vec::new(),
            first: 0,
            bytes: PIECE - ENTRY_BYTES,
            weight: PIECE - ENTRY_BYTES,
        }))
    }

    /// Asks for it, and fetches it where it is not there.
    fn read(cache: &mut Cache, number: u64) -> bool {
        let hit = cache.get(place(number)).is_some();
        if !hit {
            cache.put(place(number), block(), 0);
        }
        hit
    }

    fn is_sound(cache: &Cache) {
        assert!(cache.bytes() <= cache.bytes_max, "{cache:?}");
        assert_eq!(cache.entries.len(), cache.fresh.len() + cache.kept.len());
        assert_eq!(cache.bytes(), cache.entries.len() as u64 * PIECE);
        assert_eq!(cache.gone.len(), cache.turn_of_gone.len());
        assert!(cache.gone_bytes <= cache.bytes_max / 2);
    }

    #[test]
    fn the_cache_stays_within_its_bound() {
        let mut cache = Cache::new(10 * PIECE);
        for n in 0..1_000 {
            assert!(!read(&mut cache, n));
            assert!(read(&mut cache, n), "what came last is there");
            is_sound(&cache);
        }
        assert_eq!(cache.entries.len(), 10);
        let mut small = Cache::new(PIECE - 1);
        small.put(place(7), block(), 0);
        assert!(!small.has(place(7)), "what alone exceeds the bound is not kept");
    }

    #[test]
    fn a_replay_pushes_out_nothing_that_is_read_again_and_again() {
        let mut cache = Cache::new(20 * PIECE);
        let mut others = 0;
        for round in 0..40 {
            let hits = (1_000..1_005).filter(|n| read(&mut cache, *n)).count();
            others += if round > 5 { hits } else { 0 };
            // Each block is asked for some times, as by one reader, and then by nobody.
            for n in 0..10 {
                for _ in 0..4 {
                    read(&mut cache, round * 10 + n);
                }
            }
            is_sound(&cache);
        }
        assert_eq!(others, 34 * 5, "the others' blocks had to be fetched again");
    }

    #[test]
    fn what_is_read_ahead_is_bounded_and_free_again_once_it_is_asked_for_or_went() {
        let mut cache = Cache::new(20 * PIECE);
        let mut reserved = 0;
        while cache.reserve_ahead(PIECE) {
            reserved += 1;
        }
        assert_eq!(reserved, 5);
        for n in 0..4 {
            cache.put(place(n), block(), PIECE);
        }
        cache.release_ahead(PIECE); // the fifth failed
        assert!(cache.reserve_ahead(PIECE) && !cache.reserve_ahead(PIECE));
        cache.release_ahead(PIECE);
        assert!(cache.get(place(0)).is_some() && cache.get(place(0)).is_some());
        assert_eq!(cache.ahead_bytes, 3 * PIECE);
        (10..40).for_each(|n| cache.put(place(n), block(), 0));
        assert_eq!(cache.ahead_bytes, 0);
    }
}
