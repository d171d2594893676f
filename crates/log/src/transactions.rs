//! Transactions as the log knows them: which are open in a stream and since where, and which were aborted. Used by the ledger, ahead
//! of the disk and in the index, and by the durable state. Who may begin and end one is the broker's business, and what a batch
//! holds too: the log goes by what an append says of itself.
//!
//! It guarantees: what was appended, replayed or read from an index in the same order gives the same open and aborted
//! transactions.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{Offset, ProducerId};

/// What a batch is to the transaction of its producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum InTransaction {
    /// Nothing: it counts at once.
    #[default]
    No,
    /// It belongs to it; the first one opens it in the stream.
    Yes,
    /// The marker that ends it: all of it counts.
    Commit,
    /// The marker that ends it: nothing of it ever counts.
    Abort,
}

/// An aborted transaction in one stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Aborted {
    /// Whose.
    pub producer: ProducerId,
    /// Its first offset.
    pub first: Offset,
    /// The offset of the marker that ended it.
    pub last: Offset,
    /// Where what was decided ended once it was: no transaction that was aborted later began before.
    pub(crate) stable: Offset,
}

/// The transactions that are open at one point of a stream.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Open {
    by_producer: BTreeMap<i64, Offset>,
    firsts: BTreeSet<(Offset, i64)>,
}

impl Open {
    /// As they were at that point.
    pub(crate) fn of(open: &[(i64, Offset)]) -> Self {
        let by_producer: BTreeMap<_, _> = open.iter().copied().collect();
        let firsts = by_producer.iter().map(|(producer, first)| (*first, *producer)).collect();
        Self { by_producer, firsts }
    }

    /// Goes past a batch that begins at `base`. Returns what it aborted.
    pub(crate) fn take(&mut self, producer: ProducerId, batch: InTransaction, base: Offset) -> Option<Aborted> {
        let id = producer.get();
        match batch {
            InTransaction::No => None,
            InTransaction::Yes => {
                let first = *self.by_producer.entry(id).or_insert(base);
                self.firsts.insert((first, id));
                None
            }
            InTransaction::Commit | InTransaction::Abort => {
                let first = self.by_producer.remove(&id)?;
                self.firsts.remove(&(first, id));
                let after = base.checked_add(1).unwrap_or(base);
                let stable = self.first().unwrap_or(after);
                let aborted = Aborted { producer, first, last: base, stable };
                (batch == InTransaction::Abort).then_some(aborted)
            }
        }
    }

    /// Where the oldest of them began.
    pub(crate) fn first(&self) -> Option<Offset> {
        self.firsts.first().map(|(first, _)| *first)
    }

    /// Where that producer's began.
    pub(crate) fn since(&self, producer: i64) -> Option<Offset> {
        self.by_producer.get(&producer).copied()
    }

    /// Producers, and where the transaction of each began.
    pub(crate) fn all(&self) -> Vec<(i64, Offset)> {
        self.by_producer.iter().map(|(producer, first)| (*producer, *first)).collect()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_producer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_is_open_from_its_first_batch_to_its_marker_and_only_an_abort_is_remembered() {
        let (mut open, at) = (Open::default(), Offset::new);
        let (one, two) = (ProducerId::new(1), ProducerId::new(2));
        assert_eq!(open.take(one, InTransaction::No, at(0)), None);
        assert_eq!(open.first(), None);
        open.take(one, InTransaction::Yes, at(1));
        open.take(two, InTransaction::Yes, at(2));
        open.take(one, InTransaction::Yes, at(3));
        assert_eq!((open.first(), open.since(1), open.since(2)), (Some(at(1)), Some(at(1)), Some(at(2))));
        let copy = Open::of(&open.all());
        assert_eq!(copy, open);
        let aborted = open.take(one, InTransaction::Abort, at(4)).expect("it was open");
        assert_eq!((aborted.first, aborted.last, aborted.stable), (at(1), at(4), at(2)));
        assert_eq!(open.take(one, InTransaction::Abort, at(5)), None, "nothing was open");
        assert_eq!(open.take(two, InTransaction::Commit, at(6)), None);
        assert!(open.is_empty() && open.first().is_none());
        open.take(two, InTransaction::Yes, at(7));
        assert_eq!(open.take(two, InTransaction::Abort, at(8)).map(|aborted| aborted.stable), Some(at(9)));
    }
}
