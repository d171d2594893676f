//! A set of partitions, by topic id. Used by everything of the consumer protocol.
//!
//! It guarantees: no topic is in it without a partition, so that two sets with the same partitions are equal.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

/// Partitions, in order of topic id and number.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Partitions {
    by_topic: BTreeMap<Uuid, BTreeSet<u32>>,
}

impl Partitions {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_topic.is_empty()
    }

    pub(crate) fn contains(&self, topic: Uuid, partition: u32) -> bool {
        self.by_topic.get(&topic).is_some_and(|partitions| partitions.contains(&partition))
    }

    pub(crate) fn insert(&mut self, topic: Uuid, partition: u32) {
        self.by_topic.entry(topic).or_default().insert(partition);
    }

    /// One after the other.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Uuid, u32)> + '_ {
        self.by_topic.iter().flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition)))
    }

    /// By topic.
    pub(crate) fn topics(&self) -> impl ExactSizeIterator<Item = (Uuid, &BTreeSet<u32>)> + '_ {
        self.by_topic.iter().map(|(topic, partitions)| (*topic, partitions))
    }

    /// Those that are in both.
    pub(crate) fn shared_with(&self, other: &Self) -> Self {
        self.iter().filter(|(topic, partition)| other.contains(*topic, *partition)).collect()
    }

    /// Those that are in this only.
    pub(crate) fn without(&self, other: &Self) -> Self {
        self.iter().filter(|(topic, partition)| !other.contains(*topic, *partition)).collect()
    }

    pub(crate) fn is_within(&self, other: &Self) -> bool {
        self.iter().all(|(topic, partition)| other.contains(topic, partition))
    }

    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.iter().any(|(topic, partition)| other.contains(topic, partition))
    }
}

impl FromIterator<(Uuid, u32)> for Partitions {
    fn from_iter<I: IntoIterator<Item = (Uuid, u32)>>(all: I) -> Self {
        let mut set = Self::default();
        all.into_iter().for_each(|(topic, partition)| set.insert(topic, partition));
        set
    }
}

impl Extend<(Uuid, u32)> for Partitions {
    fn extend<I: IntoIterator<Item = (Uuid, u32)>>(&mut self, all: I) {
        all.into_iter().for_each(|(topic, partition)| self.insert(topic, partition));
    }
}
