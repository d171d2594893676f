//! Writing to and reading back the broker's own streams: the catalogue of topics and `__consumer_offsets`.
//! Called by those two. Records come back in order, each exactly once, up to the durable end at the time of the call.

use cairn_log::{
    Append, AppendError, InTransaction, Log, Offset, ProducerEpoch, ProducerId, ProducerMark, ReadError, Sequence,
    StreamId,
};
use std::num::NonZeroU32;

use crate::batch::{self, BatchBuilder, BatchError, BatchHeader, Record};

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
    let Some(entry) = entry(stream, batch) else { return Ok(None) };
    let failed = |source| StreamError::Append { stream, source };
    let mut results = log.append(vec![entry]).await.map_err(failed)?;
    let appended = results.pop().expect("one result for one entry").map_err(failed)?;
    Ok(Some(appended.base_offset))
}

/// One batch for the log; `None` for an empty one.
pub(crate) fn entry(stream: StreamId, batch: BatchBuilder) -> Option<Append> {
    let records = u32::try_from(batch.len()).ok().and_then(NonZeroU32::new)?;
    let bytes = batch.build()?;
    let max_timestamp = BatchHeader::parse(&bytes).expect("the builder writes whole headers").max_timestamp;
    Some(Append { stream, records, max_timestamp, producer: None, transaction: InTransaction::No, bytes })
}

/// The same as a part of its producer's transaction, without a number.
pub(crate) fn entry_of_producer(stream: StreamId, batch: BatchBuilder, producer: (i64, i16)) -> Option<Append> {
    let producer = Some(unnumbered(producer));
    entry(stream, batch).map(|entry| Append { producer, transaction: InTransaction::Yes, ..entry })
}

/// The marker that ends a producer's transaction in a stream.
pub(crate) fn marker(stream: StreamId, producer: (i64, i16), commits: bool, epoch: i32, now_ms: i64) -> Append {
    let bytes = batch::marker(producer.0, producer.1, commits, epoch, now_ms);
    let transaction = if commits { InTransaction::Commit } else { InTransaction::Abort };
    let (records, producer) = (NonZeroU32::MIN, Some(unnumbered(producer)));
    Append { stream, records, max_timestamp: now_ms, producer, transaction, bytes }
}

fn unnumbered((id, epoch): (i64, i16)) -> ProducerMark {
    ProducerMark { id: ProducerId::new(id), epoch: ProducerEpoch::new(epoch), first_sequence: Sequence::new(-1) }
}

/// Gives every durable record to `each`; markers are none.
pub(crate) async fn replay(log: &Log, stream: StreamId, mut each: impl FnMut(Record)) -> Result<(), StreamError> {
    replay_batches(log, stream, |header, records| {
        if !header.is_control() {
            records.into_iter().for_each(&mut each);
        }
    })
    .await
}

/// Gives the durable records of every batch to `each`, with the header of the batch.
pub(crate) async fn replay_batches(
    log: &Log,
    stream: StreamId,
    mut each: impl FnMut(&BatchHeader, Vec<Record>),
) -> Result<(), StreamError> {
    let read_failed = |at: Offset| move |source| StreamError::Read { stream, at: at.get(), source };
    let bounds = log.bounds(stream).map_err(read_failed(Offset::new(0)))?;
    let mut at = bounds.log_start;
    while at < bounds.durable_end {
        let read = log.read(stream, at, READ_BYTES).await.map_err(read_failed(at))?;
        let before = at;
        for bytes in read.batches {
            let bad = |source| StreamError::Batch { stream, at: at.get(), source };
            let header = batch::BatchHeader::parse(&bytes).map_err(bad)?;
            let mut records = batch::decode(&bytes, batch::DECOMPRESSED_BYTES_MAX).map_err(bad)?;
            records.retain(|record| record.offset >= at.get());
            each(&header, records);
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
