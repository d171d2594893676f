//! When the record at an offset was written, as far as that is known without reading it. Called by `log` for metrics, which must not
//! wait for a store.
//!
//! Exact to a batch for what the write-ahead log or the tail holds. In the store a range is known by its greatest timestamp alone:
//! within it the time is taken to pass evenly from that of the range before.

use crate::{Offset, StreamId, open::Shared, state::Stream};

impl Shared {
    /// Milliseconds; nothing where there is no such record, or it has no time.
    pub(crate) fn time_of(&self, id: StreamId, offset: Offset) -> Option<i64> {
        let state = self.state.read();
        let found = state.streams.get(&id).and_then(|stream| time_of(stream, offset.max(stream.start)));
        found.filter(|time| *time >= 0)
    }
}

fn time_of(stream: &Stream, offset: Offset) -> Option<i64> {
    if stream.batches.front().is_none_or(|first| first.base > offset)
        && let Some(range) = stream.ranges_from(offset).next()
    {
        let before = stream.ranges.partition_point(|range| range.next <= offset).checked_sub(1);
        let before = before.and_then(|at| stream.ranges.get(at)).map(|range| range.max_timestamp);
        let Some(from) = before.filter(|before| (0..=range.max_timestamp).contains(before)) else {
            return Some(range.max_timestamp);
        };
        let length = i128::from(range.next.get() - range.base.get());
        let into = i128::from(offset.get().saturating_sub(range.base.get()));
        let passed = i128::from(range.max_timestamp - from) * into / length.max(1);
        return i64::try_from(i128::from(from) + passed).ok();
    }
    stream.batches.get(stream.find(offset)).map(|batch| batch.max_timestamp)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        Retention,
        index::Range,
        object::{ObjectId, PartPlace},
        state::Placed,
    };

    #[test]
    fn time_passes_evenly_within_a_range_and_is_exact_for_what_is_local() {
        let mut stream = Stream::new(Retention::default());
        let range = |base: u64, next: u64, max_timestamp: i64| {
            Arc::new(Range {
                object: ObjectId { epoch: 1, number: base },
                part: PartPlace { at: 0, bytes: 0 },
                base: Offset::new(base),
                next: Offset::new(next),
                bytes: 1,
                batches: 1,
                max_timestamp,
                epochs: Vec::new(),
                position: base,
                aborted: Vec::new(),
                past: crate::index::Past::default(),
            })
        };
        stream.ranges = [range(0, 10, 1_000), range(10, 20, 2_000)].into();
        for (base, max_timestamp) in [(20, 2_500), (22, 2_900)] {
            let (base, records) = (Offset::new(base), 2);
            stream.push(Placed { base, records, max_timestamp, position: 0, frame: 0, length: 1 });
        }
        let times = [0, 9, 10, 15, 19, 20, 21, 22, 24].map(|at| time_of(&stream, Offset::new(at)));
        let expected = [
            Some(1_000),
            Some(1_000),
            Some(1_000),
            Some(1_500),
            Some(1_900),
            Some(2_500),
            Some(2_500),
            Some(2_900),
            None,
        ];
        assert_eq!(times, expected);
    }
}
