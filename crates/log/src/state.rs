//! What is durable: every stream's batches and where their bytes lie. Written by the writer after each sync, and by
//! nobody else; read by everybody. Nothing enters before it is durable.

use std::collections::{BTreeMap, VecDeque};

use tokio::sync::watch;

use crate::{Offset, Retention, StreamId, wal::Segment};

/// Where one batch lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placed {
    pub(crate) base: Offset,
    pub(crate) records: u32,
    pub(crate) max_timestamp: i64,
    /// Position of its first byte in the log.
    pub(crate) position: u64,
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
    pub(crate) batches: VecDeque<Placed>,
    pub(crate) start: Offset,
    pub(crate) bytes: u64,
    pub(crate) retention: Retention,
    pub(crate) end: watch::Sender<Offset>,
}

impl Stream {
    pub(crate) fn new(retention: Retention) -> Self {
        let (end, _) = watch::channel(Offset::default());
        Self { batches: VecDeque::new(), start: Offset::default(), bytes: 0, retention, end }
    }

    /// One past the last durable offset.
    pub(crate) fn durable_end(&self) -> Offset {
        *self.end.borrow()
    }

    pub(crate) fn push(&mut self, placed: Placed) {
        self.bytes += u64::from(placed.length);
        self.batches.push_back(placed);
    }

    /// Wakes whoever waits for the newest batch.
    pub(crate) fn publish(&self) {
        if let Some(last) = self.batches.back() {
            let next = last.next();
            self.end.send_if_modified(|end| std::mem::replace(end, (*end).max(next)) < next);
        }
    }

    /// Forgets batches that end at or before `offset`.
    pub(crate) fn delete_before(&mut self, offset: Offset) {
        self.start = self.start.max(offset.min(self.durable_end()));
        while self.batches.front().is_some_and(|batch| batch.next() <= self.start) {
            let gone = self.batches.pop_front().expect("it was just looked at");
            self.bytes -= u64::from(gone.length);
        }
    }

    /// Index of the batch that holds `offset`, or of the first behind it.
    pub(crate) fn find(&self, offset: Offset) -> usize {
        self.batches.partition_point(|batch| batch.next() <= offset)
    }
}

/// All streams, and the files that hold them.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    pub(crate) segments: BTreeMap<u64, Segment>,
}

impl State {
    /// The file that holds a position.
    pub(crate) fn segment(&self, position: u64) -> Option<&Segment> {
        self.segments.range(..=position).next_back().map(|(_, segment)| segment)
    }
}
