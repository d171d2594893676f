//! OffsetForLeaderEpoch: where a leader epoch ended in a partition (KIP-320). A consumer asks after the broker was away,
//! to learn whether what it read is still what is there.
//!
//! Every batch carries the epoch in which it was stored, and epochs never fall along a partition, so the end is found by
//! halving the range.

use cairn_log::{Isolation, Offset, StreamId};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
    },
};

use super::{codes, fetch};
use crate::{
    batch::BatchHeader,
    broker::{Broker, FetchError},
};

/// What stands for an epoch or offset that there is not.
const NONE: (i32, i64) = (-1, -1);

pub(super) async fn answer(broker: &Broker, request: OffsetForLeaderEpochRequest) -> OffsetForLeaderEpochResponse {
    let mut topics = Vec::new();
    for asked in request.topics {
        let topic = broker.inner.topics.get(&asked.topic);
        let mut partitions = Vec::new();
        for partition in asked.partitions {
            let stream = topic.as_ref().and_then(|topic| topic.stream(partition.partition));
            let stream = stream.ok_or(ResponseError::UnknownTopicOrPartition.code());
            let stream = stream.and_then(|s| fetch::check_epoch(broker, s, partition.current_leader_epoch));
            let found = match stream {
                Ok(stream) => end_of(broker, stream, partition.leader_epoch).await.map_err(|e| codes::of_fetch(&e)),
                Err(code) => Err(code),
            };
            let (code, (epoch, end)) = found.map_or_else(|code| (code, NONE), |found| (codes::NONE, found));
            let result = EpochEndOffset::default().with_error_code(code).with_partition(partition.partition);
            partitions.push(result.with_leader_epoch(epoch).with_end_offset(end));
        }
        topics.push(OffsetForLeaderTopicResult::default().with_topic(asked.topic).with_partitions(partitions));
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

/// The greatest epoch up to `asked` that stored something, and the offset after its last record.
async fn end_of(broker: &Broker, stream: StreamId, asked: i32) -> Result<(i32, i64), FetchError> {
    let bounds = broker.inner.log.bounds(stream)?;
    let ours = i32::try_from(bounds.leader_epoch.get()).unwrap_or(i32::MAX);
    let (start, end) = (bounds.log_start.get(), bounds.durable_end.get());
    if asked < 0 || asked > ours {
        return Ok(NONE);
    }
    if asked == ours {
        return Ok((ours, wire(end)));
    }
    // The first offset of a later epoch lies in [low, high].
    let (mut low, mut high, mut epoch) = (start, end, asked);
    while low < high {
        let middle = low + (high - low) / 2;
        let fetched = broker.read(stream, Offset::new(middle), 1, Isolation::Durable).await?;
        let Some(header) = fetched.batches.first().and_then(|bytes| BatchHeader::parse(bytes).ok()) else {
            // Nothing lies from here on: a recovery has passed over it.
            high = middle;
            continue;
        };
        let first = u64::try_from(header.base_offset).unwrap_or(0);
        if header.leader_epoch > asked {
            high = first.clamp(low, middle);
        } else {
            epoch = header.leader_epoch;
            low =
                first.saturating_add(u64::try_from(header.last_offset_delta).unwrap_or(0) + 1).clamp(middle + 1, high);
        }
    }
    Ok((epoch, wire(low)))
}

fn wire(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
