//! What happened to the records of one site, as its clients saw it, and what lay in the log at the end.
//!
//! Clients write it down while they work; `judge` reads it when they are done. Nothing here knows a broker, so that a test can
//! write a history that no broker ever gave. Every record has a number of its own; numbers of one producer rise in the order in
//! which it sent.

use std::collections::{BTreeMap, BTreeSet};

/// What the clients write to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Topic {
    /// Written by idempotent producers, followed by a group that commits what it has read.
    Plain,
    /// Written in transactions, of which some are aborted.
    Ledger,
    /// What is transformed.
    In,
    /// What comes of it, in transactions that hold the offsets too.
    Out,
}

impl Topic {
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Ledger, Self::In, Self::Out];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Ledger => "ledger",
            Self::In => "in",
            Self::Out => "out",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }

    pub(crate) const fn partitions(self) -> i32 {
        match self {
            Self::Plain | Self::Ledger => 3,
            Self::In => 4,
            Self::Out => 2,
        }
    }

    /// Whether markers of transactions take offsets in it.
    pub(crate) const fn has_markers(self) -> bool {
        matches!(self, Self::Ledger | Self::Out)
    }
}

/// A partition.
pub(crate) type Place = (Topic, i32);

/// Every partition.
pub(crate) fn places() -> impl Iterator<Item = Place> {
    Topic::ALL.into_iter().flat_map(|topic| (0..topic.partitions()).map(move |partition| (topic, partition)))
}

/// One record that somebody wanted to send.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) place: Place,
    pub(crate) producer: u32,
    /// Which of [`History::transactions`] it is part of.
    pub(crate) transaction: Option<usize>,
    /// The record of [`Topic::In`] that it was made of.
    pub(crate) source: Option<u64>,
}

/// How a transaction ended, as far as its producer was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Nobody knows.
    Unknown,
    Committed,
    Aborted,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Isolation {
    Committed,
    Uncommitted,
}

impl Isolation {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Committed => "read_committed",
            Self::Uncommitted => "read_uncommitted",
        }
    }
}

/// One record that a reader got while brokers were killed. Readers begin at the beginning of each partition and go on for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Polled {
    pub(crate) isolation: Isolation,
    pub(crate) place: Place,
    pub(crate) offset: i64,
    pub(crate) number: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Group {
    /// Those who follow [`Topic::Plain`].
    Followers,
    /// Those who transform [`Topic::In`].
    Transformers,
}

impl Group {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Followers => "followers",
            Self::Transformers => "transformers",
        }
    }

    pub(crate) const fn topic(self) -> Topic {
        match self {
            Self::Followers => Topic::Plain,
            Self::Transformers => Topic::In,
        }
    }
}

/// Numbers by place and offset.
pub(crate) type Found = BTreeMap<(Place, i64), u64>;

/// All of it.
#[derive(Clone, Default, Debug)]
pub(crate) struct History {
    pub(crate) sent: BTreeMap<u64, Sent>,
    /// Where each acknowledged record was said to be.
    pub(crate) acknowledged: BTreeMap<u64, (Place, i64)>,
    pub(crate) transactions: Vec<Fate>,
    pub(crate) polled: Vec<Polled>,
    /// What a group had committed, each time that somebody asked.
    pub(crate) positions: Vec<(Group, Place, i64)>,
    /// What a member of [`Group::Followers`] has got, at least once.
    pub(crate) followed: BTreeSet<(Place, i64)>,
    /// All records in the end, those of aborted transactions too.
    pub(crate) all: Found,
    /// What a reader of committed records gets in the end.
    pub(crate) committed: Found,
    /// Where each partition ends.
    pub(crate) ends: BTreeMap<Place, i64>,
    /// What no client should have been told.
    pub(crate) troubles: Vec<String>,
}
