//! Which workflows are the newest, from the end of the trail.
//!
//! The partitions are read backwards, further each time, until what was not read can hold nothing newer than what was found. Times
//! within a partition are taken to rise, as one gateway writes them; where clocks of several differ, the order of the list does too.

use std::collections::HashMap;

use crate::read::{Bounds, Placed};

/// Events of each partition that are looked at first.
pub(super) const FIRST: i64 = 2_000;
/// How much further each next look goes.
pub(super) const FURTHER: i64 = 8;

/// A workflow of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) id: String,
    /// When its last event was.
    pub(super) last: String,
    pub(super) calls: usize,
    pub(super) events: usize,
}

/// The workflows of these events, the newest first.
pub(super) fn listed(events: &[Placed], most: usize) -> Vec<Listed> {
    let mut found: HashMap<&str, Listed> = HashMap::new();
    for placed in events {
        let id = placed.event.common.workflow_id.as_str();
        let listed =
            found.entry(id).or_insert_with(|| Listed { id: id.to_owned(), last: String::new(), calls: 0, events: 0 });
        if placed.event.time > listed.last {
            listed.last.clone_from(&placed.event.time);
        }
        listed.calls += usize::from(placed.event.type_name == "call.outcome");
        listed.events += 1;
    }
    let mut newest: Vec<Listed> = found.into_values().collect();
    newest.sort_by(|a, b| (&b.last, &a.id).cmp(&(&a.last, &b.id)));
    newest.truncate(most);
    newest
}

/// What the last `looked` events of each partition tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seen {
    /// Everything there is.
    All,
    /// Not everything, and nothing newer lies further back.
    Enough,
    /// Something newer may lie further back.
    TooLittle,
}

/// Whether the workflows that were listed are the newest, when so many events of each partition were looked at.
pub(super) fn seen(bounds: &[&Bounds], looked: i64, events: &[Placed], listed: &[Listed], most: usize) -> Seen {
    let goes_on = |(_, _, low, high): &Bounds| high.saturating_sub(*low) > looked;
    if !bounds.iter().copied().any(goes_on) {
        return Seen::All;
    }
    let Some(least) = listed.get(most - 1) else { return Seen::TooLittle };
    let mut first: HashMap<(&str, i32), &Placed> = HashMap::new();
    for placed in events {
        let known = first.entry((&placed.topic, placed.partition)).or_insert(placed);
        if placed.offset < known.offset {
            *known = placed;
        }
    }
    let is_behind = |(topic, partition, ..): &Bounds| {
        first.get(&(topic.as_str(), *partition)).is_some_and(|placed| placed.event.time <= least.last)
    };
    if bounds.iter().copied().filter(|bounds| goes_on(bounds)).all(is_behind) { Seen::Enough } else { Seen::TooLittle }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::path::tests::placed;

    /// One event of each of these workflows, at these minutes, in the order of the partition.
    fn partition(number: i32, from: i64, all: &[(&str, u32)]) -> Vec<Placed> {
        let event = |(at, (workflow, minute)): (usize, &(&str, u32))| {
            let mut placed = placed(at as u32 + 1, "call.outcome", at as u32 + 1, &json!({}));
            placed.partition = number;
            placed.offset = from + at as i64;
            placed.event.common.workflow_id = (*workflow).to_owned();
            placed.event.time = format!("2026-03-01T00:{minute:02}:00.000000Z");
            placed
        };
        all.iter().enumerate().map(event).collect()
    }

    fn asked(high: i64, all: &[(&str, u32)], other: &[(&str, u32)]) -> (Vec<String>, Seen) {
        let looked = all.len() as i64;
        let mut events = partition(0, high - looked, all);
        events.extend(partition(1, 0, other));
        let bounds: [Bounds; 2] =
            [("mcp.calls".to_owned(), 0, 0, high), ("mcp.calls".to_owned(), 1, 0, other.len() as i64)];
        let listed = listed(&events, 2);
        let seen = seen(&bounds.each_ref(), looked, &events, &listed, 2);
        (listed.into_iter().map(|listed| listed.id).collect(), seen)
    }

    #[test]
    fn the_newest_are_told_as_soon_as_nothing_newer_can_lie_further_back() {
        // All of it.
        assert_eq!(asked(3, &[("a", 1), ("b", 2), ("a", 3)], &[]), (vec!["a".to_owned(), "b".to_owned()], Seen::All));
        // What lies before minute 3 is older than both.
        let (found, seen) = asked(900, &[("x", 3), ("a", 6)], &[("b", 5)]);
        assert_eq!((found, seen), (vec!["a".to_owned(), "b".to_owned()], Seen::Enough));
        // Before minute 5, something newer than minute 2 may lie.
        let (_, seen) = asked(900, &[("a", 5), ("a", 6)], &[("b", 2)]);
        assert_eq!(seen, Seen::TooLittle);
        // Only one workflow was found.
        assert_eq!(asked(900, &[("a", 5), ("a", 6)], &[]).1, Seen::TooLittle);
    }

    #[test]
    fn a_partition_of_which_nothing_could_be_read_says_nothing() {
        let bounds: [Bounds; 2] = [("mcp.calls".to_owned(), 0, 0, 900), ("mcp.calls".to_owned(), 1, 0, 900)];
        let events = partition(0, 897, &[("a", 1), ("b", 4), ("c", 5)]);
        let listed = listed(&events, 2);
        assert_eq!(seen(&bounds.each_ref(), 3, &events, &listed, 2), Seen::TooLittle);
        assert_eq!(seen(&[&bounds[0]], 3, &events, &listed, 2), Seen::Enough);
    }
}
