//! Committed offsets in memory, by group. Used by the group driver, which makes them durable first.
//!
//! It guarantees: a later commit is never overwritten by an earlier one; what all offsets take is known, so that it can
//! be bounded. It must never be told of an offset that is not durable.

use std::collections::{BTreeMap, HashMap};

use cairn_log::Offset;

use super::records::OffsetValue;

/// What an entry takes besides its texts, about.
const ENTRY_BYTES: usize = 160;

/// A committed offset, and where in `__consumer_offsets` it lies.
#[derive(Debug, Clone)]
pub(super) struct OffsetEntry {
    pub(super) value: OffsetValue,
    pub(super) stored_at: Offset,
}

/// Where a group has read to, by topic and partition.
pub(super) type OfGroup = BTreeMap<(String, i32), OffsetEntry>;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Offsets {
    groups: HashMap<String, OfGroup>,
    bytes: usize,
}

fn cost(topic: &str, value: &OffsetValue) -> usize {
    ENTRY_BYTES + topic.len() + value.metadata.len()
}

impl Offsets {
    /// What they would take, at most, with these entries too.
    pub(super) fn bytes_with(&self, group: &str, entries: &[(String, i32, OffsetValue)]) -> usize {
        let of_group = self.groups.get(group);
        let grown = entries.iter().map(|(topic, partition, value)| {
            let there = of_group.and_then(|of_group| of_group.get(&(topic.clone(), *partition)));
            cost(topic, value).saturating_sub(there.map_or(0, |entry| cost(topic, &entry.value)))
        });
        let head = if of_group.is_some() { 0 } else { ENTRY_BYTES + group.len() };
        self.bytes + head + grown.sum::<usize>()
    }

    /// Takes in one offset, unless a later one is there.
    pub(super) fn put(&mut self, group: &str, topic: String, partition: i32, entry: OffsetEntry) {
        if !self.groups.contains_key(group) {
            self.bytes += ENTRY_BYTES + group.len();
        }
        let of_group = self.groups.entry(group.to_owned()).or_default();
        let key = (topic, partition);
        let there = of_group.get(&key);
        if there.is_some_and(|there| there.stored_at > entry.stored_at) {
            return;
        }
        self.bytes -= there.map_or(0, |there| cost(&key.0, &there.value));
        self.bytes += cost(&key.0, &entry.value);
        of_group.insert(key, entry);
    }

    /// Forgets one offset, and the group with its last.
    pub(super) fn remove(&mut self, group: &str, topic: &str, partition: i32) {
        let Some(of_group) = self.groups.get_mut(group) else { return };
        if let Some(entry) = of_group.remove(&(topic.to_owned(), partition)) {
            self.bytes -= cost(topic, &entry.value);
        }
        if of_group.is_empty() {
            self.remove_group(group);
        }
    }

    /// The same, unless it was committed again at that place of `__consumer_offsets` or later.
    pub(super) fn remove_before(&mut self, group: &str, topic: &str, partition: i32, at: Offset) {
        let entry = self.groups.get(group).and_then(|of_group| of_group.get(&(topic.to_owned(), partition)));
        if entry.is_some_and(|entry| entry.stored_at < at) {
            self.remove(group, topic, partition);
        }
    }

    /// Forgets a group.
    pub(super) fn remove_group(&mut self, group: &str) {
        if let Some(of_group) = self.groups.remove(group) {
            let entries: usize = of_group.iter().map(|((topic, _), entry)| cost(topic, &entry.value)).sum();
            self.bytes -= entries + ENTRY_BYTES + group.len();
        }
    }

    pub(super) fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&OffsetValue> {
        self.groups.get(group)?.get(&(topic.to_owned(), partition)).map(|entry| &entry.value)
    }

    pub(super) fn of_group(&self, group: &str) -> Option<&OfGroup> {
        self.groups.get(group)
    }

    pub(super) fn groups(&self) -> impl Iterator<Item = (&String, &OfGroup)> {
        self.groups.iter()
    }

    /// The entries of these topics, by group.
    pub(super) fn of_topics(&self, wanted: impl Fn(&str) -> bool) -> Vec<(String, Vec<(String, i32)>)> {
        let mut found = Vec::new();
        for (group, of_group) in &self.groups {
            let entries: Vec<_> = of_group.keys().filter(|(topic, _)| wanted(topic)).cloned().collect();
            if !entries.is_empty() {
                found.push((group.clone(), entries));
            }
        }
        found
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.groups.values().map(BTreeMap::len).sum()
    }

    /// Takes in those of other groups.
    pub(super) fn extend(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.groups.extend(other.groups);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: i64, metadata: &str, at: u64) -> OffsetEntry {
        let value = OffsetValue { offset, leader_epoch: -1, metadata: metadata.to_owned(), committed_ms: 0 };
        OffsetEntry { value, stored_at: Offset::new(at) }
    }

    #[test]
    fn the_bytes_are_those_of_what_is_there_and_an_older_commit_does_not_win() {
        let mut offsets = Offsets::default();
        let wanted = vec![("t".to_owned(), 0, entry(5, "long note", 3).value)];
        let foreseen = offsets.bytes_with("g", &wanted);
        offsets.put("g", "t".to_owned(), 0, entry(5, "long note", 3));
        assert_eq!(offsets.bytes, foreseen);
        assert_eq!(offsets.bytes_with("g", &wanted), foreseen, "the same again takes nothing more");
        offsets.put("g", "t".to_owned(), 0, entry(4, "", 2));
        assert_eq!(offsets.get("g", "t", 0).map(|value| value.offset), Some(5));
        offsets.put("g", "t".to_owned(), 0, entry(6, "", 4));
        offsets.put("g", "u".to_owned(), 1, entry(1, "", 5));
        assert_eq!(offsets.of_topics(|topic| topic == "u"), [("g".to_owned(), vec![("u".to_owned(), 1)])]);
        offsets.remove_before("g", "t", 0, Offset::new(4));
        assert_eq!(offsets.get("g", "t", 0).map(|value| value.offset), Some(6), "it was committed again meanwhile");
        offsets.remove("g", "t", 0);
        offsets.remove("g", "u", 1);
        assert_eq!((offsets.bytes, offsets.len()), (0, 0));
    }
}
