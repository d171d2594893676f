//! What ordering knows of one stream: the next offset, of each idempotent producer its last five batches, as Kafka brokers
//! keep, and the transactions that are open. Used by the writer ahead of the disk, and by the durable state behind it. Bounded in producers.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    Aborted, AppendError, InTransaction, Offset, ProducerEpoch, ProducerMark, Sequence, frame::BatchEntry,
    transactions::Open,
};

/// Batches remembered of one producer: what a producer may have in flight.
const BATCHES_KEPT: usize = 5;
/// Producers remembered for one stream; past it the one that wrote longest ago is forgotten.
const PRODUCERS_MAX: usize = 10_000;

/// One remembered batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) first: Sequence,
    pub(crate) records: u32,
    pub(crate) base: Offset,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Producer {
    pub(crate) epoch: ProducerEpoch,
    pub(crate) last: VecDeque<Seen>,
    /// Where its last batch or marker begins.
    pub(crate) at: Offset,
    /// Greatest timestamp of that, ms.
    pub(crate) at_ms: i64,
}

/// What ordering needs to know of a batch that was checked, or was ordered before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entered<'a> {
    pub(crate) records: u32,
    pub(crate) mark: Option<&'a ProducerMark>,
    pub(crate) transaction: InTransaction,
    pub(crate) max_timestamp: i64,
}

impl<'a> Entered<'a> {
    /// The same of a batch in a frame.
    pub(crate) const fn of(batch: &'a BatchEntry) -> Self {
        let BatchEntry { records, max_timestamp, transaction, .. } = *batch;
        Self { records, mark: batch.producer.as_ref(), transaction, max_timestamp }
    }
}

/// Next offset, producers and open transactions of one stream.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) next: Offset,
    pub(crate) producers: BTreeMap<i64, Producer>,
    pub(crate) open: Open,
}

impl Ledger {
    /// Says whether a batch may follow: `Ok(None)` if it is new, `Ok(Some(base))` if it is stored already.
    pub(crate) fn check(&self, mark: &ProducerMark, records: u32) -> Result<Option<Offset>, AppendError> {
        let Some(known) = self.producers.get(&mark.id.get()) else { return Ok(None) };
        if mark.epoch < known.epoch {
            return Err(AppendError::StaleProducerEpoch { producer: mark.id, current: known.epoch, found: mark.epoch });
        }
        let found = mark.first_sequence;
        if found.get() < 0 {
            return Ok(None); // markers, and what the broker itself writes into a transaction
        }
        let expected = if mark.epoch > known.epoch {
            Sequence::new(0)
        } else {
            if let Some(seen) = known.last.iter().find(|seen| seen.first == found && seen.records == records) {
                return Ok(Some(seen.base));
            }
            // Of an incarnation that is known by a marker alone nothing was written yet.
            known.last.back().map_or(Sequence::new(0), |seen| seen.first.wrapping_plus(seen.records))
        };
        if expected == found {
            return Ok(None);
        }
        Err(AppendError::OutOfOrderSequence { producer: mark.id, expected, found })
    }

    /// Takes a batch that was checked: moves the next offset past it and remembers its producer.
    /// Returns the transaction that it aborted.
    pub(crate) fn record(&mut self, base: Offset, batch: Entered<'_>) -> Option<Aborted> {
        let Entered { records, mark, transaction, max_timestamp } = batch;
        self.next = base.checked_add(u64::from(records)).expect("the writer checked that the offsets suffice");
        let mark = mark?;
        if !self.producers.contains_key(&mark.id.get()) && self.producers.len() >= PRODUCERS_MAX {
            self.forget_oldest();
        }
        let fresh = || Producer { epoch: mark.epoch, last: VecDeque::new(), at: base, at_ms: max_timestamp };
        let known = self.producers.entry(mark.id.get()).or_insert_with(fresh);
        if known.epoch != mark.epoch {
            *known = fresh();
        }
        (known.at, known.at_ms) = (base, max_timestamp);
        if mark.first_sequence.get() >= 0 {
            if known.last.len() >= BATCHES_KEPT {
                known.last.pop_front();
            }
            known.last.push_back(Seen { first: mark.first_sequence, records, base });
        }
        self.open.take(mark.id, transaction, base)
    }

    /// Takes in what is known of some producers at a later point of the same stream. Who is remembered is who wrote last, so
    /// this gives the same as recording every batch in between.
    pub(crate) fn merge(&mut self, producers: &[(i64, Producer)]) {
        self.producers.extend(producers.iter().cloned());
        while self.producers.len() > PRODUCERS_MAX {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let oldest = self.producers.iter().min_by_key(|(_, producer)| producer.at);
        if let Some(id) = oldest.map(|(id, _)| *id) {
            self.producers.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ProducerId;

    fn put(ledger: &mut Ledger, base: Offset, records: u32, mark: ProducerMark) {
        let transaction = InTransaction::No;
        ledger.record(base, Entered { records, mark: Some(&mark), transaction, max_timestamp: 0 });
    }

    fn mark(epoch: i16, first: i32) -> ProducerMark {
        ProducerMark { id: ProducerId::new(7), epoch: ProducerEpoch::new(epoch), first_sequence: Sequence::new(first) }
    }

    #[test]
    fn five_batches_are_remembered_and_the_sixth_before_is_out_of_order() {
        let mut ledger = Ledger::default();
        for n in 0..6 {
            assert_eq!(ledger.check(&mark(0, n * 2), 2), Ok(None));
            let next = ledger.next;
            put(&mut ledger, next, 2, mark(0, n * 2));
        }
        for n in 1..6 {
            assert_eq!(ledger.check(&mark(0, n * 2), 2), Ok(Some(Offset::new(n as u64 * 2))));
        }
        assert!(matches!(ledger.check(&mark(0, 0), 2), Err(AppendError::OutOfOrderSequence { .. })));
        assert!(matches!(ledger.check(&mark(0, 14), 2), Err(AppendError::OutOfOrderSequence { .. })));
    }

    #[test]
    fn an_older_incarnation_is_refused_and_a_newer_one_begins_at_zero() {
        let mut ledger = Ledger::default();
        put(&mut ledger, Offset::new(0), 1, mark(3, 0));
        assert!(matches!(ledger.check(&mark(2, 1), 1), Err(AppendError::StaleProducerEpoch { .. })));
        assert!(matches!(ledger.check(&mark(4, 1), 1), Err(AppendError::OutOfOrderSequence { .. })));
        assert_eq!(ledger.check(&mark(4, 0), 1), Ok(None));
    }

    #[test]
    fn a_marker_of_a_newer_incarnation_shuts_the_older_one_out_and_takes_no_sequence() {
        let mut ledger = Ledger::default();
        put(&mut ledger, Offset::new(0), 2, mark(0, 0));
        let marker = mark(1, -1);
        assert_eq!(ledger.check(&marker, 1), Ok(None));
        let entered = Entered { records: 1, mark: Some(&marker), transaction: InTransaction::Abort, max_timestamp: 0 };
        assert_eq!(ledger.record(Offset::new(2), entered), None, "nothing was open");
        assert!(matches!(ledger.check(&mark(0, 2), 1), Err(AppendError::StaleProducerEpoch { .. })));
        assert!(
            matches!(ledger.check(&mark(1, 1), 1), Err(AppendError::OutOfOrderSequence { .. })),
            "its second batch does not come before its first"
        );
        assert_eq!(ledger.check(&mark(1, 0), 1), Ok(None));
        assert_eq!(ledger.producers[&7].at, Offset::new(2));
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut ledger = Ledger::default();
        put(&mut ledger, Offset::new(0), 2, mark(0, i32::MAX - 1));
        assert_eq!(ledger.check(&mark(0, 0), 1), Ok(None));
    }
}
