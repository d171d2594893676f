//! What is durable: every stream's batches and where their bytes lie. Written by the writer after each sync and by the
//! uploader after each commit, and by nobody else; read by everybody. Nothing enters before it is durable.
//!
//! A batch is kept here one by one while its bytes lie in the write-ahead log or in the tail; what the store has and the
//! tail has not is known by its range only, so that memory does not grow with what is stored.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use tokio::sync::watch;

use crate::{
    Aborted, Compaction, InTransaction, Offset, ProducerId, Retention, StreamId,
    index::{self, Change, Delta, Indexed, Range, Replaced},
    transactions::Open,
    wal::Segment,
};

/// Where one batch lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) base: Offset,
    pub(crate) records: u32,
    pub(crate) max_timestamp: i64,
    /// Position of its first byte in the log.
    pub(crate) position: u64,
    /// Position of the frame that holds it.
    pub(crate) frame: u64,
    pub(crate) length: u32,
}

impl Placed {
    pub(crate) fn next(&self) -> Offset {
        Offset::new(self.base.get() + u64::from(self.records))
    }
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Batches in the write-ahead log or the tail; the older of them may be in a range too.
    pub(crate) batches: VecDeque<Placed>,
    /// What the store holds.
    pub(crate) ranges: VecDeque<Arc<Range>>,
    pub(crate) start: Offset,
    pub(crate) retention: Retention,
    /// How it is compacted by key, if it is.
    pub(crate) compaction: Option<Compaction>,
    pub(crate) end: watch::Sender<Offset>,
    /// One past what the store holds.
    pub(crate) uploaded: Offset,
    /// Where the index lets it go on: what it gives out lies no further past this than a recovery passes over.
    pub(crate) indexed: Offset,
    /// Transactions that are open at the durable end.
    open: Open,
    /// Those that were aborted and reach past the start, in the order of their ends.
    aborted: VecDeque<Aborted>,
    /// Bytes of batches that the store does not have.
    waiting_bytes: u64,
    range_bytes: u64,
}

impl Stream {
    pub(crate) fn new(retention: Retention) -> Self {
        let (end, _) = watch::channel(Offset::default());
        Self {
            batches: VecDeque::new(),
            ranges: VecDeque::new(),
            start: Offset::default(),
            retention,
            compaction: None,
            end,
            uploaded: Offset::default(),
            indexed: Offset::default(),
            open: Open::default(),
            aborted: VecDeque::new(),
            waiting_bytes: 0,
            range_bytes: 0,
        }
    }

    /// A stream as the store has it.
    pub(crate) fn restored(indexed: &Indexed) -> Self {
        let mut stream = Self::new(indexed.retention);
        stream.start = indexed.start;
        stream.ranges = indexed.ranges.clone();
        stream.range_bytes = indexed.ranges.iter().map(|range| range.bytes).sum();
        stream.uploaded = indexed.ledger.next;
        stream.indexed = indexed.ledger.next;
        stream.open = indexed.ledger.open.clone();
        let aborted = indexed.ranges.iter().flat_map(|range| range.aborted.iter().copied());
        stream.aborted = aborted.filter(|aborted| aborted.last >= indexed.start).collect();
        stream.end.send_replace(indexed.ledger.next);
        stream
    }

    /// Lets it go on further on: what lies between is given to nobody.
    pub(crate) fn skip_to(&mut self, next: Offset) {
        self.indexed = next;
        if self.batches.is_empty() {
            self.uploaded = next;
        }
        self.end.send_replace(next);
    }

    /// One past the last durable offset.
    pub(crate) fn durable_end(&self) -> Offset {
        *self.end.borrow()
    }

    /// One past the last offset before which every transaction has ended, of what is durable.
    pub(crate) fn stable_end(&self) -> Offset {
        self.open.first().map_or(self.durable_end(), |first| first.max(self.start))
    }

    /// Aborted transactions that reach into these offsets.
    pub(crate) fn aborted(&self, from: Offset, to: Offset) -> Vec<Aborted> {
        let mut found = Vec::new();
        for aborted in self.aborted.range(self.aborted.partition_point(|aborted| aborted.last < from)..) {
            if aborted.first < to {
                found.push(*aborted);
            }
            if aborted.stable >= to {
                break; // whatever ended later began later
            }
        }
        found
    }

    /// Bytes kept.
    pub(crate) const fn bytes(&self) -> u64 {
        self.range_bytes + self.waiting_bytes
    }

    /// Bytes kept that the store has.
    pub(crate) const fn range_bytes(&self) -> u64 {
        self.range_bytes
    }

    /// Batches that the store does not have yet.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Placed> {
        self.batches.range(self.batches.partition_point(|batch| batch.base < self.uploaded)..)
    }

    pub(crate) fn push(&mut self, placed: Placed) {
        self.waiting_bytes += u64::from(placed.length);
        self.batches.push_back(placed);
    }

    /// Goes past a batch that was just put in and is something to the transaction of its producer.
    pub(crate) fn follow(&mut self, producer: ProducerId, batch: InTransaction, base: Offset) {
        self.aborted.extend(self.open.take(producer, batch, base));
    }

    /// Wakes whoever waits for the newest batch.
    pub(crate) fn publish(&self) {
        if let Some(last) = self.batches.back() {
            let next = last.next();
            self.end.send_if_modified(|end| std::mem::replace(end, (*end).max(next)) < next);
        }
    }

    /// Forgets batches and ranges that end at or before `offset`.
    pub(crate) fn delete_before(&mut self, offset: Offset) {
        self.start = self.start.max(offset.min(self.durable_end()));
        while self.batches.front().is_some_and(|batch| batch.next() <= self.start) {
            let gone = self.batches.pop_front().expect("it was just looked at");
            if gone.base >= self.uploaded {
                self.waiting_bytes -= u64::from(gone.length);
            }
        }
        while self.ranges.front().is_some_and(|range| range.next <= self.start) {
            let gone = self.ranges.pop_front().expect("it was just looked at");
            self.range_bytes -= gone.bytes;
        }
        while self.aborted.front().is_some_and(|aborted| aborted.last < self.start) {
            self.aborted.pop_front();
        }
    }

    /// Takes in what the store has now.
    fn add_range(&mut self, range: &Arc<Range>) {
        self.uploaded = self.uploaded.max(range.next);
        self.indexed = self.indexed.max(range.next);
        if range.next > self.start {
            self.range_bytes += range.bytes;
            self.ranges.push_back(range.clone());
        }
        self.waiting_bytes = self.waiting().map(|batch| u64::from(batch.length)).sum();
    }

    /// Takes in that what it holds lies elsewhere now.
    fn move_ranges(&mut self, ranges: &[Arc<Range>]) {
        if let Some(Replaced { old, new }) = index::move_into(&mut self.ranges, ranges, self.start) {
            self.range_bytes -= old.iter().map(|range| range.bytes).sum::<u64>();
            self.range_bytes += new.iter().map(|range| range.bytes).sum::<u64>();
        }
    }

    /// Index of the batch that holds `offset`, or of the first behind it.
    pub(crate) fn find(&self, offset: Offset) -> usize {
        self.batches.partition_point(|batch| batch.next() <= offset)
    }

    /// The range that holds `offset`, and those behind it.
    pub(crate) fn ranges_from(&self, offset: Offset) -> impl Iterator<Item = &Arc<Range>> {
        self.ranges.range(self.ranges.partition_point(|range| range.next <= offset)..)
    }
}

/// The newest bytes of the write-ahead log, as they were written: what readers that keep up are served from. Only the
/// writer puts something in, so no reader of old data can push the new out.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    groups: VecDeque<(u64, Bytes)>,
    bytes: u64,
}

/// Bytes of the tail, which hold all that was written together with them.
#[derive(Debug)]
pub(crate) struct InTail {
    pub(crate) bytes: Bytes,
    /// Where that begins, and how much it is.
    pub(crate) group: u64,
    pub(crate) group_bytes: usize,
}

impl Tail {
    pub(crate) fn push(&mut self, position: u64, group: Bytes, bytes_max: u64) {
        self.bytes += group.len() as u64;
        self.groups.push_back((position, group));
        while self.bytes > bytes_max {
            let Some((_, old)) = self.groups.pop_front() else { break };
            self.bytes -= old.len() as u64;
        }
    }

    /// The bytes at a position, if they are all here.
    pub(crate) fn find(&self, position: u64, length: u32) -> Option<InTail> {
        let at = self.groups.partition_point(|(start, _)| *start <= position).checked_sub(1)?;
        let (start, group) = &self.groups[at];
        let from = usize::try_from(position - start).ok()?;
        let to = from.checked_add(length as usize)?;
        (to <= group.len()).then(|| InTail { bytes: group.slice(from..to), group: *start, group_bytes: group.len() })
    }

    /// Position of the oldest byte.
    fn start(&self) -> u64 {
        self.groups.front().map_or(u64::MAX, |(start, _)| *start)
    }
}

/// All streams, and the files that hold them.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) segments: BTreeMap<u64, Segment>,
    pub(crate) tail: Tail,
    /// Position before which the log is durable and shown.
    pub(crate) durable: u64,
    /// Position before which the store has everything.
    pub(crate) covered: u64,
    /// Objects that the index names.
    pub(crate) objects: u64,
}

impl State {
    /// The file that holds a position.
    pub(crate) fn segment(&self, position: u64) -> Option<&Segment> {
        self.segments.range(..=position).next_back().map(|(_, segment)| segment).filter(|s| position < s.end())
    }

    /// Bytes that only the write-ahead log has.
    pub(crate) const fn depth(&self) -> u64 {
        self.durable.saturating_sub(self.covered)
    }

    /// Takes in what was committed: ranges instead of batches, except for those that the tail still serves.
    pub(crate) fn commit(&mut self, delta: &Delta) {
        for change in &delta.changes {
            if let Change::Stream { id, next, .. } = change
                && let Some(stream) = self.streams.get_mut(id)
            {
                // Also where retention took all of it before it was uploaded.
                stream.indexed = stream.indexed.max(*next);
            }
            let (Change::Range { id, .. } | Change::Moved { id, .. }) = change else { continue };
            let Some(stream) = self.streams.get_mut(id) else { continue };
            match change {
                Change::Moved { ranges, .. } => stream.move_ranges(ranges),
                Change::Range { range, .. } => stream.add_range(range),
                _ => {}
            }
        }
        self.covered = self.covered.max(delta.covered);
        let needed_from = self.covered.min(self.tail.start());
        for stream in self.streams.values_mut() {
            while stream.batches.front().is_some_and(|batch| batch.position < needed_from) {
                stream.batches.pop_front();
            }
            if stream.batches.capacity() > 4 * stream.batches.len() + 64 {
                stream.batches.shrink_to_fit();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Offset, ProducerId, Retention, Stream};
    use crate::InTransaction::{Abort, Yes};

    #[test]
    fn a_read_is_told_of_each_aborted_transaction_that_reaches_into_it_also_of_one_that_ended_long_after() {
        let (mut stream, at) = (Stream::new(Retention::default()), Offset::new);
        let [long, short, later] = [1, 2, 3].map(ProducerId::new);
        for (producer, batch, base) in [
            (long, Yes, 0),
            (short, Yes, 10),
            (short, Abort, 20),
            (long, Abort, 30),
            (later, Yes, 40),
            (later, Abort, 50),
        ] {
            stream.follow(producer, batch, at(base));
        }
        let told = |from, to| -> Vec<i64> {
            stream.aborted(at(from), at(to)).iter().map(|aborted| aborted.producer.get()).collect()
        };
        assert_eq!(told(0, 10), [1]);
        assert_eq!(told(5, 12), [2, 1], "what ended first stands between, and the older one comes behind it");
        assert_eq!(told(21, 40), [1]);
        assert!(told(31, 40).is_empty());
        assert_eq!(told(0, 60), [2, 1, 3]);
    }
}
