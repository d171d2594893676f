//! ListOffsets: the first and last offset of a partition, or the first at or after a time.

use cairn_log::{Offset, StreamId};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
};

use super::{codes, fetch};
use crate::{
    batch,
    broker::{Broker, FetchError},
};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
/// The first version that has leader epochs.
const EPOCH_FIRST: i16 = 4;

pub(super) async fn answer(broker: &Broker, request: ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
    let mut topics = Vec::new();
    for asked in request.topics {
        let topic = broker.inner.topics.get(&asked.name);
        let mut partitions = Vec::new();
        for partition in asked.partitions {
            let index = partition.partition_index;
            let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
            let stream = topic.as_ref().and_then(|topic| topic.stream(index));
            let found = match stream {
                None => Err(ResponseError::UnknownTopicOrPartition.code()),
                Some(stream) => match fetch::check_epoch(broker, stream, partition.current_leader_epoch) {
                    Ok(stream) => find(broker, stream, partition.timestamp).await,
                    Err(code) => Err(code),
                },
            };
            partitions.push(match found {
                Err(code) => response.with_error_code(code).with_offset(-1).with_timestamp(-1),
                Ok((timestamp, offset)) => {
                    let bounds = stream.filter(|_| version >= EPOCH_FIRST);
                    let bounds = bounds.and_then(|stream| broker.inner.log.bounds(stream).ok());
                    response
                        .with_timestamp(timestamp)
                        .with_offset(offset)
                        .with_leader_epoch(bounds.map_or(-1, |bounds| bounds.leader_epoch.get() as i32))
                }
            });
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(asked.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// Timestamp and offset; -1 and -1 where there is no such record.
async fn find(broker: &Broker, stream: StreamId, timestamp: i64) -> Result<(i64, i64), i16> {
    let bounds = broker.inner.log.bounds(stream).map_err(|error| codes::of_read(&error))?;
    match timestamp {
        LATEST => Ok((-1, wire(bounds.durable_end.get()))),
        EARLIEST | EARLIEST_LOCAL => Ok((-1, wire(bounds.log_start.get()))),
        LATEST_TIERED => Ok((-1, -1)),
        MAX_TIMESTAMP => greatest(broker, stream).await.map_err(|error| codes::of_fetch(&error)),
        timestamp => {
            let found = broker.inner.log.find_time(stream, timestamp).await.map_err(|error| codes::of_read(&error))?;
            match found {
                None => Ok((-1, -1)),
                Some(base) => first_at(broker, stream, base, timestamp).await.map_err(|error| codes::of_fetch(&error)),
            }
        }
    }
}

/// The log knows the first batch that reaches the time; here the record within it is found.
async fn first_at(broker: &Broker, stream: StreamId, base: Offset, timestamp: i64) -> Result<(i64, i64), FetchError> {
    let limit = broker.inner.options.limits.unpacked_bytes_max;
    let fetched = broker.read(stream, base, 1).await?;
    for bytes in &fetched.batches {
        // A batch was checked when it came in: one that cannot be read now has its own offset as the best answer.
        let Ok(records) = batch::decode(bytes, limit) else { break };
        let hit =
            records.iter().find(|record| record.timestamp >= timestamp && record.offset >= fetched.log_start.get());
        if let Some(record) = hit {
            return Ok((record.timestamp, wire(record.offset)));
        }
    }
    Ok((timestamp, wire(base.get())))
}

/// The record with the greatest timestamp (KIP-734): the log knows its batch.
async fn greatest(broker: &Broker, stream: StreamId) -> Result<(i64, i64), FetchError> {
    match broker.inner.log.latest_time(stream).await? {
        None => Ok((-1, -1)),
        Some((timestamp, base)) => first_at(broker, stream, base, timestamp).await,
    }
}

fn wire(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
