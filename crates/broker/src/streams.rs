//! Writing to and reading back the broker's own streams: the catalogue of topics and `__consumer_offsets`.
//! Called by those two. Records come back in order, each exactly once, up to the durable end at the time of the call.

use cairn_log::{Append, AppendError, InTransaction, Log, Offset, ReadError, StreamId};
use std::num::NonZeroU32;

use crate::batch::{self, BatchBuilder, BatchError, Record};

const READ_BYTES: usize = 1 << 20;

/// Why one of the broker's own streams cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("cannot write stream {stream:?}: {source}")]
    Append { stream: StreamId, source: AppendError },
    #[error("cannot read stream {stream:?} at offset {at}: {source}")]
    Read { stream: StreamId, at: u64, source: ReadError },
    #[error("stream {stream:?} holds a batch that cannot be read near offset {at}: {source}")]
    Batch { stream: StreamId, at: u64, source: BatchError },
}

/// Appends one batch and waits until it is durable; `None` for an empty one.
pub(crate) async fn append(log: &Log, stream: StreamId, batch: BatchBuilder) -> Result<Option<Offset>, StreamError> {
    let Some(records) = u32::try_from(batch.len()).ok().and_then(NonZeroU32::new) else { return Ok(None) };
    let Some(bytes) = batch.build() else { return Ok(None) };
    let max_timestamp = batch::BatchHeader::parse(&bytes).expect("the builder writes whole headers").max_timestamp;
    let (producer, transaction) = (None, InTransaction::No);
    let entry = Append { stream, records, max_timestamp, producer, transaction, bytes };
    let failed = |source| StreamError::Append { stream, source };
    let mut results = log.append(vec![entry]).await.map_err(failed)?;
    let appended = results.pop().expect("one result for one entry").map_err(failed)?;
    Ok(Some(appended.base_offset))
}

/// Gives every durable record to `each`.
pub(crate) async fn replay(log: &Log, stream: StreamId, mut each: impl FnMut(Record)) -> Result<(), StreamError> {
    let read_failed = |at: Offset| move |source| StreamError::Read { stream, at: at.get(), source };
    let bounds = log.bounds(stream).map_err(read_failed(Offset::new(0)))?;
    let mut at = bounds.log_start;
    while at < bounds.durable_end {
        let read = log.read(stream, at, READ_BYTES).await.map_err(read_failed(at))?;
        let before = at;
        for bytes in read.batches {
            let bad = |source| StreamError::Batch { stream, at: at.get(), source };
            let header = batch::BatchHeader::parse(&bytes).map_err(bad)?;
            for record in batch::decode(&bytes, batch::DECOMPRESSED_BYTES_MAX).map_err(bad)? {
                if record.offset >= at.get() {
                    each(record);
                }
            }
            let last = header.base_offset.saturating_add(i64::from(header.last_offset_delta));
            at = Offset::new(u64::try_from(last).unwrap_or(0).saturating_add(1));
        }
        if at <= before {
            // Nothing more to read: retention may have moved the start while we read.
            break;
        }
    }
    Ok(())
}
