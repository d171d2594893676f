//! Who should have which partition: the target assignment of a group, as a pure function. Called by the group when its epoch
//! rises.
//!
//! It guarantees, for each assignor: a partition of a topic that somebody subscribes to has exactly one owner, who subscribes to
//! its topic; the same input gives the same answer.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use super::Partitions;

mod range;
#[cfg(test)]
mod tests;
mod uniform;

/// The server-side assignors, by the names that Kafka gives them. The first is the default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Assignor {
    /// Evenly, and what a member has it keeps where that can be.
    Uniform,
    /// Each topic in contiguous ranges, in the same order of members.
    Range,
}

impl Assignor {
    pub(crate) fn named(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Range].into_iter().find(|assignor| assignor.name() == name)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }
}

/// What a member brings to an assignment.
#[derive(Debug, Clone)]
pub(super) struct Subscriber<'a> {
    /// Orders static members, so that a new process in an old place changes nothing.
    pub(super) instance: Option<&'a str>,
    /// Topics that it subscribes to and that there are. Members with the same subscription share the set.
    pub(super) topics: Arc<BTreeSet<Uuid>>,
    /// What it was meant to have until now.
    pub(super) held: &'a Partitions,
}

/// Members by id.
pub(super) type Subscribers<'a> = BTreeMap<Arc<str>, Subscriber<'a>>;
/// What each should have; every member is in it.
pub(super) type Target = BTreeMap<Arc<str>, Partitions>;

/// Distributes the partitions of `topics` (id and number of partitions).
pub(super) fn assign(assignor: Assignor, members: &Subscribers<'_>, topics: &BTreeMap<Uuid, u32>) -> Target {
    match assignor {
        Assignor::Uniform => uniform::assign(members, topics),
        Assignor::Range => range::assign(members, topics),
    }
}
