//! Transactions in the simulation: producers that write into several streams, commits and aborts of which a crash may take the
//! answer, and readers that skip what was aborted as Kafka's consumers do. Used by `world`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::sync::oneshot;

use super::{
    model::{Batch, StreamModel},
    world::{Pending, World, drive, entry},
};
use crate::{InTransaction, Isolation, Offset, Read, ReadError, StreamId, open::Shared, writer::Call};

/// Transactional producers of a run.
const PRODUCERS: u64 = 3;
/// The id of the first of them.
const PRODUCER_FIRST: i64 = 100;

impl StreamModel {
    /// Which transactions are open at its end, and where each began.
    pub(super) fn open(&self) -> BTreeMap<i64, u64> {
        let mut open = BTreeMap::new();
        for batch in self.batches.values() {
            match batch.part {
                Some((producer, InTransaction::Yes)) => {
                    open.entry(producer).or_insert(batch.base);
                }
                Some((producer, _)) => {
                    open.remove(&producer);
                }
                None => {}
            }
        }
        open
    }

    /// Up to where everything is decided, and the base offsets of the batches that count.
    pub(super) fn decided(&self) -> (u64, BTreeSet<u64>) {
        let (mut pending, mut counted) = (BTreeMap::<i64, Vec<u64>>::new(), BTreeSet::new());
        for batch in self.batches.values() {
            match batch.part {
                None => drop(counted.insert(batch.base)),
                Some((producer, InTransaction::Yes)) => pending.entry(producer).or_default().push(batch.base),
                Some((producer, end)) => {
                    let ended = pending.remove(&producer).unwrap_or_default();
                    if end == InTransaction::Commit {
                        counted.extend(ended);
                    }
                }
            }
        }
        let open = pending.into_values().filter_map(|bases| bases.first().copied()).min();
        (open.map_or(self.end, |first| first.max(self.start)), counted)
    }

    /// Holds what a reader of committed records got against what counts, and returns where it ended.
    fn judge(&self, (stable, counted): &(u64, BTreeSet<u64>), from: u64, read: &Read, now_ms: i64) -> u64 {
        let to = self.compare(from, &read.batches, now_ms);
        assert_eq!(read.stable_end.get(), *stable, "what is decided ends elsewhere");
        assert!(to <= from.max(*stable), "a batch of an open transaction was given out");
        let is_over = from >= *stable || self.batches.range(from..*stable).next().is_none() && !self.holds(from);
        assert!(is_over || to > from, "nothing was read at {from}, before {stable}");
        if read.batches.is_empty() {
            return to;
        }
        let first = self.first_of(from);
        assert!(read.aborted.is_sorted_by_key(|aborted| aborted.last));
        let mut by_first = read.aborted.clone();
        by_first.sort_by_key(|aborted| aborted.first);
        let (mut by_first, mut skips) = (by_first.into_iter().peekable(), BTreeSet::new());
        for (base, batch) in self.batches.range(first..to) {
            while let Some(aborted) = by_first.next_if(|aborted| aborted.first.get() < batch.next()) {
                skips.insert(aborted.producer.get());
            }
            let gets = match batch.part {
                None => true,
                Some((producer, InTransaction::Yes)) => !skips.contains(&producer),
                Some((producer, _)) => {
                    skips.remove(&producer);
                    continue;
                }
            };
            assert_eq!(gets, counted.contains(base), "the batch at {base}, read from {from}, of {:?}", batch.part);
        }
        to
    }

    /// Reads all that is committed, in good weather.
    pub(super) fn verify_committed(&self, shared: &Arc<Shared>, id: StreamId) {
        let (mut at, decided) = (self.start, self.decided());
        loop {
            let read = drive(shared.read(id, Offset::new(at), 9_000, Isolation::Committed));
            let read = read.unwrap_or_else(|error| panic!("{id} at {at}: {error}"));
            let to = self.judge(&decided, at, &read, shared.clock.now().as_millis());
            if to == at {
                return;
            }
            at = to;
        }
    }
}

impl World {
    pub(super) fn a_producer(&self) -> i64 {
        PRODUCER_FIRST + self.roll(PRODUCERS) as i64
    }

    /// Ends the transaction of one producer: a marker in each stream, all in one call.
    pub(super) fn end_transaction(&mut self) {
        self.settle_puts();
        let (producer, dies) = (self.a_producer(), self.roll(12) == 0);
        let end = if self.roll(2) == 0 { InTransaction::Commit } else { InTransaction::Abort };
        let ends = self.streams.iter().filter(|(_, stream)| stream.open().contains_key(&producer));
        let ends: Vec<_> = ends.map(|(id, stream)| (*id, stream.end)).collect();
        let (mut entries, mut expected) = (Vec::new(), Vec::new());
        for (id, base) in &ends {
            let now = self.clock.now().as_millis();
            let bytes = self.bytes(*base, now, Some((producer, end)), &[(0, false)]);
            let marker = Batch { base: *base, records: 1, bytes, sequence: None, part: Some((producer, end)) };
            entries.push(entry(*id, &marker, now));
            expected.push((*id, marker, false));
        }
        let Some(log) = &mut self.log else { return };
        log.shared.counters.queued.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        let lands = log.landing.is_some();
        let done = log.writer.group(vec![Call::Append { entries, bytes: 0, reply }]).is_ok() && !(lands && dies);
        log.pending.push(Pending { answer, expected });
        let what = if end == InTransaction::Commit { "commit" } else { "abort" };
        self.tell(format!("{what} {} {done}", ends.len()));
        if !done {
            self.maybe_ended.push((producer, ends));
        }
        if !lands {
            self.answered();
            self.unanswered();
        } else if dies {
            self.is_doomed = true;
        } else {
            self.settle_puts();
        }
    }

    /// After a restart: each end that was not acknowledged is in all of its streams, or in none.
    pub(super) fn settle_ends(&mut self) {
        for (producer, ends) in std::mem::take(&mut self.maybe_ended) {
            let ends: Vec<_> = ends.into_iter().filter(|(id, _)| self.streams.contains_key(id)).collect();
            let is_there = |(id, base): &(StreamId, u64)| {
                let found = self.streams[id].batches.get(base).and_then(|batch| batch.part);
                found.is_some_and(|(of, part)| of == producer && part != InTransaction::Yes)
            };
            let there = ends.iter().filter(|end| is_there(end)).count();
            assert!(there == 0 || there == ends.len(), "a transaction ended in {there} of {} streams", ends.len());
        }
    }

    /// Reads what is committed of a stream from somewhere on.
    pub(super) fn read_committed(&mut self, id: StreamId, from: u64, most: usize) {
        let Some(log) = &self.log else { return };
        match drive(log.shared.read(id, Offset::new(from), most, Isolation::Committed)) {
            Ok(read) => {
                let stream = &self.streams[&id];
                let to = stream.judge(&stream.decided(), from, &read, self.clock.now().as_millis());
                self.tell(format!("read-committed {from}..{to}"));
            }
            Err(ReadError::Failed { .. }) => self.tell(format!("read-failed {from}")),
            Err(error) => panic!("reading what is committed of {id} at {from}: {error}"),
        }
    }
}
