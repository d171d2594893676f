//! What must be true of the log, kept beside it: every acknowledged batch, and what may have happened and was not
//! acknowledged. Used by the simulation; knows nothing of files or objects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::keyed;
use crate::{Compaction, InTransaction};

/// One batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Batch {
    pub(crate) base: u64,
    pub(crate) records: u32,
    pub(crate) bytes: Bytes,
    pub(crate) sequence: Option<i32>,
    /// Whose transaction it belongs to, and what it is to it.
    pub(crate) part: Option<(i64, InTransaction)>,
}

impl Batch {
    pub(crate) fn next(&self) -> u64 {
        self.base + u64::from(self.records)
    }
}

/// One stream.
#[derive(Debug, Default)]
pub(crate) struct StreamModel {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(super) batches: BTreeMap<u64, Batch>,
    /// Sent and not acknowledged when the process died; any first part of it may be there.
    maybe: Vec<Batch>,
    maybe_start: Option<u64>,
    pub(crate) maybe_deleted: bool,
    /// The last five of the producer, oldest first.
    pub(crate) last: VecDeque<Batch>,
    pub(crate) next_sequence: i32,
    /// How it is compacted, if it is: then what a newer record of the same key replaced may be gone.
    pub(crate) compaction: Option<Compaction>,
    /// When each record of a key was appended, and in which batch, by offset.
    of_keys: BTreeMap<u8, BTreeMap<u64, (i64, u64)>>,
    /// One past every offset that was ever given out, acknowledged or not.
    given: u64,
    /// Where it went on when a folder was lost last.
    floor: u64,
}

impl StreamModel {
    pub(crate) fn new(compaction: Option<Compaction>) -> Self {
        Self { compaction, ..Self::default() }
    }

    pub(crate) fn acknowledge(&mut self, batch: Batch) {
        assert_eq!(batch.base, self.end, "an offset was skipped or given twice");
        self.end = batch.next();
        self.given = self.given.max(self.end);
        if let Some(sequence) = batch.sequence {
            self.next_sequence = sequence + batch.records as i32;
            self.last.push_back(batch.clone());
            if self.last.len() > 5 {
                self.last.pop_front();
            }
        }
        let (head, records) = keyed::read(&batch.bytes).expect("the world writes whole batches");
        let is_marker = batch.part.is_some_and(|(_, part)| part != InTransaction::Yes);
        for record in records.into_iter().filter(|_| !is_marker) {
            let offset = batch.base + u64::from(record.delta);
            self.of_keys.entry(record.key).or_default().insert(offset, (head.at_ms, batch.base));
        }
        self.batches.insert(batch.base, batch);
    }

    pub(crate) fn may_have(&mut self, batch: Batch) {
        self.given = self.given.max(batch.next());
        self.maybe.push(batch);
    }

    pub(crate) fn delete_before(&mut self, offset: u64) {
        self.start = self.start.max(offset.min(self.end));
    }

    pub(crate) fn may_delete_before(&mut self, offset: u64) {
        self.maybe_start = Some(offset.min(self.end));
    }

    /// Whether a batch is there, or was and went as it should.
    pub(crate) fn has(&self, batch: &Batch) -> bool {
        batch.next() <= self.start || self.batches.get(&batch.base) == Some(batch)
    }

    /// After the loss of a write-ahead log: the store had what lies between `start` and `end`, and it goes on at `next`.
    pub(crate) fn lose(&mut self, start: u64, end: u64, next: u64) {
        assert!(next >= self.given, "offsets up to {} were given out, and it goes on at {next}", self.given);
        self.batches.retain(|_, batch| batch.next() <= end);
        self.of_keys.values_mut().for_each(|of_key| of_key.retain(|offset, _| *offset < end));
        let kept = self.batches.values().next_back().map_or(0, Batch::next).max(self.floor);
        assert!(kept == end || start >= kept, "the store had offsets up to {end}, of these {kept} were acknowledged");
        self.last = self.batches.values().filter(|batch| batch.sequence.is_some()).cloned().collect();
        while self.last.len() > 5 {
            self.last.pop_front();
        }
        let following = |batch: &Batch| batch.sequence.map(|first| first + batch.records as i32);
        self.next_sequence = self.last.back().and_then(following).unwrap_or_default();
        self.maybe.clear();
        self.maybe_start = None;
        (self.start, self.end, self.floor) = (start, next, next);
    }

    /// Where a read from `from` begins: at the batch that holds it.
    pub(crate) fn first_of(&self, from: u64) -> u64 {
        let holds = self.batches.range(..=from).next_back().filter(|(_, batch)| batch.next() > from);
        holds.map_or(from, |(base, _)| *base)
    }

    /// Whether a batch holds that offset.
    pub(crate) fn holds(&self, offset: u64) -> bool {
        self.batches.range(..=offset).next_back().is_some_and(|(_, batch)| batch.next() > offset)
    }

    /// Whether there is anything at or behind an offset.
    pub(crate) fn has_from(&self, offset: u64) -> bool {
        self.batches.values().next_back().is_some_and(|batch| batch.next() > offset)
    }

    /// After a restart: what was not acknowledged is there from now on, or was never.
    pub(crate) fn settle(&mut self, start: u64, end: u64) {
        assert!(end >= self.end, "acknowledged records are gone: {} of {}", end, self.end);
        for batch in std::mem::take(&mut self.maybe) {
            if batch.base < end && batch.base == self.end {
                self.acknowledge(batch);
            }
        }
        assert_eq!(end, self.end, "records came from nowhere");
        let known = self.start == start || self.maybe_start.take() == Some(start);
        assert!(known, "the start is {start}, {} was acknowledged", self.start);
        self.start = start;
        self.maybe_start = None;
    }

    /// Compares what a read from `from` gave; returns where it ended.
    pub(crate) fn compare(&self, from: u64, read: &[Bytes], now_ms: i64) -> u64 {
        if self.compaction.is_some() {
            return self.compare_compacted(from, read, now_ms);
        }
        let mut expected = self.batches.range(self.first_of(from)..);
        let mut at = from;
        for bytes in read {
            let (base, batch) = expected.next().unwrap_or_else(|| panic!("more is visible than is durable, from {at}"));
            let head = |bytes: &[u8]| hex::encode(&bytes[..16.min(bytes.len())]);
            assert!(
                *bytes == batch.bytes,
                "the batch at {base} is not what was acknowledged: {} bytes {}, not {} bytes {}; read from {from}",
                bytes.len(),
                head(bytes),
                batch.bytes.len(),
                head(&batch.bytes),
            );
            at = batch.next();
        }
        at
    }

    /// The same where records may be gone: what is there is what was acknowledged at its offset, and what is not may be gone.
    fn compare_compacted(&self, from: u64, read: &[Bytes], now_ms: i64) -> u64 {
        let (mut at, (stable, counted)) = (from, self.decided());
        for bytes in read {
            let (head, found) = keyed::read(bytes).expect("what is left of a batch is one");
            let batch = self.batches.get(&head.base);
            let batch = batch.unwrap_or_else(|| panic!("nothing was acknowledged at {}: an offset moved", head.base));
            assert!(batch.next() > at, "the batch at {} lies before {at}", head.base);
            let (known, records) = keyed::read(&batch.bytes).expect("the world writes whole batches");
            assert_eq!((head.number, head.at_ms), (known.number, known.at_ms), "the batch at {}", head.base);
            assert!(found.iter().all(|record| records.contains(record)), "a record at {} is another", head.base);
            let gone = |base: u64, deltas: &mut dyn Iterator<Item = &keyed::Record>| {
                if base < stable && !counted.contains(&base) {
                    let part = self.batches[&base].part;
                    assert!(
                        part.is_some_and(|(_, part)| part == InTransaction::Yes) || deltas.next().is_none(),
                        "the marker at {base} is gone"
                    );
                    return; // it was aborted
                }
                for record in deltas.filter(|record| base + u64::from(record.delta) >= at) {
                    self.may_be_gone(base + u64::from(record.delta), record, now_ms, &counted);
                }
            };
            for (base, between) in self.batches.range(..head.base).rev().take_while(|(_, batch)| batch.next() > at) {
                let (_, records) = keyed::read(&between.bytes).expect("the world writes whole batches");
                gone(*base, &mut records.iter());
            }
            gone(head.base, &mut records.iter().filter(|record| !found.contains(record)));
            at = batch.next();
        }
        at
    }

    fn may_be_gone(&self, offset: u64, record: &keyed::Record, now_ms: i64, counted: &BTreeSet<u64>) {
        let compaction = self.compaction.expect("only then a record goes");
        let of_key = &self.of_keys[&record.key];
        let lasts = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        match of_key.range(offset + 1..).find(|(_, (_, base))| counted.contains(base)) {
            Some((newer, (at_ms, _))) => assert!(
                now_ms - at_ms >= lasts(compaction.min_lag_ms),
                "the record at {offset} is gone, and the newer one at {newer} is too young"
            ),
            None => assert!(
                record.value.is_none() && now_ms - of_key[&offset].0 >= lasts(compaction.delete_retention_ms),
                "the newest record of key {}, at {offset}, is gone",
                record.key
            ),
        }
    }
}
