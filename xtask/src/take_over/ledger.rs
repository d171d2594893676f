//! What one client wrote, was told, and read, and what is wrong with that.
//!
//! Who calls it: `take_over`, with every line that a client says, as it comes: the time of an acknowledgement is that of its line, by one
//! clock for all clients. Nothing here knows brokers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// An offset of a partition.
type Place = (u32, u64);

/// What is wrong, in words, is told this many times.
const EXAMPLES_MAX: usize = 5;

/// One client's.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// When each partition acknowledged something.
    acknowledged_at: BTreeMap<u32, Vec<Instant>>,
    /// Where each number was acknowledged.
    acknowledged: BTreeMap<u64, Place>,
    /// Numbers that their producer gave up: they may be there.
    given_up: Vec<u64>,
    /// What the group's reader saw on the way.
    seen: BTreeMap<Place, u64>,
    seen_twice: u64,
    /// What is there at the end, in the order of its reading.
    read: Vec<(Place, u64)>,
    pub(crate) is_done: bool,
    /// What it said besides.
    pub(crate) words: Vec<String>,
    conflicts: Vec<String>,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) acknowledged: usize,
    pub(crate) lost: usize,
    pub(crate) twice: usize,
    /// Everything else that must not be.
    pub(crate) wrong: usize,
    /// Some of it, in words.
    pub(crate) examples: Vec<String>,
}

impl Verdict {
    fn say(&mut self, what: String) {
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(what);
        }
    }
}

impl Ledger {
    /// Takes a line: `a` acknowledged, `f` given up, `r` read by the group, `v` read at the end, each with partition, offset and number;
    /// `done`; anything else are words.
    pub(crate) fn take(&mut self, line: &str, now: Instant) {
        if line == "done" {
            self.is_done = true;
            return;
        }
        let mut parts = line.split(' ');
        let kind = parts.next().unwrap_or_default();
        let numbers: Option<Vec<i64>> = parts.take(3).map(|part| part.parse().ok()).collect();
        let Some(&[partition, offset, number]) = numbers.as_deref() else {
            self.words.push(line.to_owned());
            return;
        };
        let (partition, number) = (partition as u32, number as u64);
        let place = (partition, offset as u64);
        match kind {
            "a" => {
                self.acknowledged_at.entry(partition).or_default().push(now);
                if let Some(before) = self.acknowledged.insert(number, place) {
                    self.conflicts.push(format!("{number} was acknowledged at {before:?} and at {place:?}"));
                }
            }
            "f" => {
                self.given_up.push(number);
                self.words.push(line.to_owned());
            }
            "r" => {
                if let Some(before) = self.seen.insert(place, number) {
                    self.seen_twice += 1;
                    if before != number {
                        self.conflicts.push(format!("{place:?} was read as {before}, and then as {number}"));
                    }
                }
            }
            "v" => self.read.push((place, number)),
            _ => self.words.push(line.to_owned()),
        }
    }

    /// Whether every one of so many partitions has acknowledged something since.
    pub(crate) fn goes_on(&self, partitions: u32, since: Instant) -> bool {
        let last = |partition| self.acknowledged_at.get(&partition).and_then(|all| all.last());
        (0..partitions).all(|partition| last(partition).is_some_and(|last| *last >= since))
    }

    /// The longest time from `since` on in which a partition acknowledged nothing, the worst of them, up to `until`.
    pub(crate) fn pause(&self, partitions: u32, since: Instant, until: Instant) -> Duration {
        let of = |partition| {
            let all = self.acknowledged_at.get(&partition).map_or(&[][..], Vec::as_slice);
            let (mut last, mut longest) = (since, Duration::ZERO);
            let from = all.partition_point(|at| *at < since);
            for at in all[from..].iter().copied().take_while(|at| *at <= until).chain([until]) {
                longest = longest.max(at - last);
                last = at;
            }
            longest
        };
        (0..partitions).map(of).max().unwrap_or_default()
    }

    /// Compares all that was acknowledged and seen with what is there at the end.
    pub(crate) fn judge(&self, partitions: u32) -> Verdict {
        let mut verdict = Verdict { acknowledged: self.acknowledged.len(), ..Verdict::default() };
        for conflict in &self.conflicts {
            verdict.wrong += 1;
            verdict.say(conflict.clone());
        }
        if !self.is_done {
            verdict.wrong += 1;
            verdict.say(format!("it did not come to its end: {:?}", self.words.last()));
        }
        let (mut at, mut numbers) = (BTreeMap::new(), BTreeMap::<u64, Place>::new());
        let mut last = vec![(0, None::<u64>); partitions as usize];
        for &(place, number) in &self.read {
            let Some((next, before)) = last.get_mut(place.0 as usize) else { continue };
            if place.1 != *next {
                verdict.wrong += 1;
                verdict.say(format!("{place:?} follows on offset {next}"));
            }
            if before.is_some_and(|before| before > number) {
                verdict.wrong += 1;
                verdict.say(format!("{number} at {place:?} comes after {before:?}"));
            }
            (*next, *before) = (place.1 + 1, Some(number));
            at.insert(place, number);
            if let Some(first) = numbers.insert(number, place) {
                verdict.twice += 1;
                verdict.say(format!("{number} is at {first:?} and at {place:?}"));
            }
        }
        for (number, place) in &self.acknowledged {
            if at.get(place) != Some(number) {
                verdict.lost += 1;
                verdict.say(format!("{number} was acknowledged at {place:?}, where {:?} is", at.get(place)));
            }
        }
        for (place, number) in &self.seen {
            if at.get(place) != Some(number) {
                verdict.wrong += 1;
                verdict.say(format!("{number} was read at {place:?}, where {:?} is", at.get(place)));
            }
        }
        // Who reads as a group may read again, and never leaves out anything that lies before what it has read.
        for partition in 0..partitions {
            let of = self.seen.range((partition, 0)..(partition + 1, 0));
            let (count, end) = of.fold((0, 0), |(count, _), (place, _)| (count + 1, place.1 + 1));
            if count != end {
                verdict.wrong += 1;
                verdict.say(format!("its group left out {} records of partition {partition}", end - count));
            }
        }
        let expected = |number: &u64| self.acknowledged.contains_key(number) || self.given_up.contains(number);
        for (number, place) in numbers.iter().filter(|(number, _)| !expected(number)) {
            verdict.wrong += 1;
            verdict.say(format!("{number} at {place:?} was never acknowledged, nor given up"));
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(lines: &str) -> Ledger {
        let mut ledger = Ledger::default();
        for line in lines.split(',') {
            ledger.take(line.trim(), Instant::now());
        }
        ledger
    }

    #[test]
    fn what_is_lost_twice_out_of_order_or_left_out_is_found() {
        let good = "a 0 0 0, a 1 0 1, a 0 1 2, r 0 0 0, r 0 0 0, r 0 1 2, v 0 0 0, v 0 1 2, v 1 0 1, done, e flushed";
        let verdict = ledger(good).judge(2);
        assert_eq!(verdict, Verdict { acknowledged: 3, ..Verdict::default() });
        let of = |change: (&str, &str)| {
            let changed = good.replacen(change.0, change.1, 1);
            assert_ne!(changed, good);
            let Verdict { lost, twice, wrong, .. } = ledger(&changed).judge(2);
            (lost, twice, wrong)
        };
        assert_eq!(of(("v 1 0 1,", "")), (1, 0, 0), "it is gone");
        assert_eq!(of(("v 1 0 1,", "v 1 0 1, v 1 1 1,")), (0, 1, 0), "it is there twice");
        assert_eq!(
            of(("v 0 0 0, v 0 1 2", "v 0 0 2, v 0 1 0")),
            (2, 0, 3),
            "two changed places, under the eyes of the group"
        );
        assert_eq!(of(("r 0 1 2", "r 0 1 7")).2, 1, "what was read is gone");
        assert_eq!(of(("r 0 0 0, r 0 0 0, r 0 1 2", "r 0 1 2")), (0, 0, 1), "the group left one out");
        assert_eq!(of(("a 0 1 2,", "a 0 1 2, a 0 2 2,")).2, 1, "it was acknowledged twice");
        assert_eq!(of(("a 1 0 1,", "")), (0, 0, 1), "nobody was told of it");
        assert_eq!(of(("a 1 0 1,", "f 1 -1 1 timed out,")), (0, 0, 0), "given up, and there all the same");
        assert_eq!(of(("v 1 0 1", "v 1 1 1")), (1, 0, 1), "there is a hole");
        assert_eq!(of(("done,", "")), (0, 0, 1), "it did not come to its end");
    }

    #[test]
    fn the_longest_pause_of_any_partition_counts_one_that_lasts_included() {
        let (begun, mut ledger) = (Instant::now(), Ledger::default());
        let at = |ms| begun + Duration::from_millis(ms);
        for (ms, partition) in [(0, 0), (10, 1), (100, 0), (3_000, 0), (4_000, 1), (4_100, 0), (4_200, 1)] {
            ledger.take(&format!("a {partition} {ms} {ms}"), at(ms));
        }
        assert_eq!(ledger.pause(2, at(50), at(4_300)).as_millis(), 3_950, "of partition 1");
        assert_eq!(ledger.pause(1, at(50), at(4_300)).as_millis(), 2_900, "of partition 0");
        assert_eq!(ledger.pause(2, at(4_150), at(9_000)).as_millis(), 4_850, "it goes on");
        assert!(ledger.goes_on(2, at(4_100)) && !ledger.goes_on(2, at(4_150)) && !ledger.goes_on(3, at(0)));
    }
}
