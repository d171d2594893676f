//! Refusals that may come in floods: the first of a kind at once, further ones as a number every so often.
//!
//! So that nobody can fill the trail by being refused, and no refusal is lost to the count. Bounded in kinds: past
//! [`KINDS_MAX`] they are told apart more coarsely.

use std::{collections::HashMap, hash::Hash, time::Duration};

use cairn_clock::Timestamp;
use parking_lot::Mutex;

/// How often refusals that repeat are recorded.
pub(crate) const EVERY: Duration = Duration::from_secs(10);
/// Kinds that are told apart at a time.
pub(crate) const KINDS_MAX: usize = 64;

/// What is known of one kind.
#[derive(Clone, Debug)]
struct Counted<V> {
    /// Of the last one.
    about: V,
    since: Timestamp,
    /// Those that no event stands for yet.
    waiting: u64,
}

/// Refusals of late, by kind.
#[derive(Debug)]
pub(crate) struct Flood<K, V>(Mutex<HashMap<K, Counted<V>>>);

/// Refusals that an event is due for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Due<K, V> {
    pub(crate) kind: K,
    pub(crate) about: V,
    pub(crate) count: u64,
    pub(crate) within_ms: u64,
}

impl<K, V> Default for Flood<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Flood<K, V> {
    /// Notes one; gives it back where it is the first of its kind for a while. `coarse` is the kind that it counts under
    /// where there are too many.
    pub(crate) fn note(&self, kind: K, coarse: impl FnOnce(K) -> K, about: V, now: Timestamp) -> Option<Due<K, V>> {
        let mut kinds = self.0.lock();
        let kind = if kinds.len() >= KINDS_MAX && !kinds.contains_key(&kind) { coarse(kind) } else { kind };
        if let Some(counted) = kinds.get_mut(&kind) {
            counted.waiting += 1;
            counted.about = about;
            return None;
        }
        kinds.insert(kind.clone(), Counted { about: about.clone(), since: now, waiting: 0 });
        Some(Due { kind, about, count: 1, within_ms: 0 })
    }

    /// What has come since, and the end of kinds of which nothing has.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<Due<K, V>> {
        let mut due = Vec::new();
        self.0.lock().retain(|kind, counted| {
            let count = std::mem::take(&mut counted.waiting);
            if count > 0 {
                let within_ms = u64::try_from(now.since(counted.since).as_millis()).unwrap_or(u64::MAX);
                due.push(Due { kind: kind.clone(), about: counted.about.clone(), count, within_ms });
                counted.since = now;
            }
            count > 0
        });
        due
    }

    /// What could not be recorded waits on.
    pub(crate) fn put_back(&self, due: Due<K, V>, now: Timestamp) {
        let Due { kind, about, count, .. } = due;
        let mut kinds = self.0.lock();
        if let Some(counted) = kinds.get_mut(&kind) {
            counted.waiting += count;
        } else if kinds.len() < KINDS_MAX {
            kinds.insert(kind, Counted { about, since: now, waiting: count });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_a_handful_of_events_that_count_all_of_it() {
        let flood = Flood::default();
        let start = Timestamp::from_micros(1_000_000_000);
        let (mut counted, mut events) = (0, 0);
        for round in 0..6_u32 {
            let now = start.plus(EVERY * round);
            for number in 0..1_000_u64 {
                // Whoever is refused names what it likes.
                let first = flood.note((number % 5, number), |(kind, _)| (kind, u64::MAX), number, now);
                events += u64::from(first.is_some());
                counted += first.map_or(0, |first| first.count);
            }
            for mut due in flood.due(now) {
                if round == 0 {
                    due.within_ms = 0;
                    flood.put_back(due, now);
                    continue;
                }
                events += 1;
                counted += due.count;
            }
        }
        counted += flood.due(start).iter().map(|due| due.count).sum::<u64>();
        assert_eq!(counted, 6_000, "none is lost");
        assert!(events < 6 * 150, "{events} events");
        assert!(flood.0.lock().len() <= KINDS_MAX + 5);
    }
}
