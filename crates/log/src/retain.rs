//! Retention: which offsets each stream may forget by now. Called by `log` at an interval.
//!
//! What the store has is forgotten range by range, as Kafka forgets segments: once its newest record is too old, or once
//! the stream is too large without it. The change is a frame like any other, so it survives; when the index has it, objects
//! that no stream needs are removed.

use crate::{Offset, StreamId, open::Shared};

impl Shared {
    /// What each stream may forget.
    pub(crate) fn expired(&self) -> Vec<(StreamId, Offset)> {
        let now = self.settled.now().as_millis();
        let state = self.state.read();
        let mut found = Vec::new();
        for (id, stream) in &state.streams {
            let oldest = stream.retention.ms.map(|ms| now.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)));
            let mut excess = stream.retention.bytes.map_or(0, |most| stream.bytes().saturating_sub(most));
            let ranges = stream.ranges.iter().map(|range| {
                // Where compaction left no record, nothing can be too young.
                let is_empty = range.past.compacted.is_some_and(|compacted| compacted.records == 0);
                (if is_empty { 0 } else { range.max_timestamp }, range.bytes, range.next)
            });
            let batches = stream.waiting().map(|batch| (batch.max_timestamp, u64::from(batch.length), batch.next()));
            let mut keep_from = stream.start;
            for (max_timestamp, bytes, next) in ranges.chain(batches) {
                let old = oldest.is_some_and(|oldest| max_timestamp >= 0 && max_timestamp < oldest);
                if !old && excess < bytes {
                    break;
                }
                excess = excess.saturating_sub(bytes);
                keep_from = next;
            }
            if keep_from > stream.start {
                found.push((*id, keep_from));
            }
        }
        found
    }
}
