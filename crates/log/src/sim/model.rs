//! What must be true of the log, kept beside it: every acknowledged batch, and what may have happened and was not
//! acknowledged. Used by the simulation; knows nothing of files or objects.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::InTransaction;

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
}

impl StreamModel {
    pub(crate) fn acknowledge(&mut self, batch: Batch) {
        assert_eq!(batch.base, self.end, "an offset was skipped or given twice");
        self.end = batch.next();
        if let Some(sequence) = batch.sequence {
            self.next_sequence = sequence + batch.records as i32;
            self.last.push_back(batch.clone());
            if self.last.len() > 5 {
                self.last.pop_front();
            }
        }
        self.batches.insert(batch.base, batch);
    }

    pub(crate) fn may_have(&mut self, batch: Batch) {
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
    pub(crate) fn compare(&self, from: u64, read: &[Bytes]) -> u64 {
        let first = self.batches.range(..=from).next_back().map_or(from, |(base, _)| *base);
        let mut expected = self.batches.range(first..);
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
}
