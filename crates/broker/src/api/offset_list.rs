//! ListOffsets: where a partition begins and ends, here and in the store, or its first record at or after a time.

use std::collections::HashMap;

use cairn_log::{Isolation, Offset, StreamId};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ListOffsetsRequest, ListOffsetsResponse,
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
    },
    protocol::StrBytes,
};

use super::{codes, fetch};
use crate::{
    batch::{self, BatchHeader},
    broker::{Broker, FetchError},
};

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;
/// The first version that has leader epochs.
const EPOCH_FIRST: i16 = 4;

/// The first version that knows a time which stands for something else; `None` where there is no such.
const fn known_since(timestamp: i64) -> Option<i16> {
    match timestamp {
        MAX_TIMESTAMP => Some(7),
        EARLIEST_LOCAL => Some(8),
        LATEST_TIERED => Some(9),
        EARLIEST_PENDING_UPLOAD => Some(11),
        timestamp if timestamp < EARLIEST_PENDING_UPLOAD => None,
        _ => Some(0),
    }
}

pub(super) async fn answer(broker: &Broker, request: ListOffsetsRequest, version: i16) -> ListOffsetsResponse {
    let isolation = fetch::isolation(request.isolation_level);
    let mut times: HashMap<(StrBytes, i32), usize> = HashMap::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            *times.entry((topic.name.0.clone(), partition.partition_index)).or_default() += 1;
        }
    }
    let mut topics = Vec::new();
    for asked in request.topics {
        let topic = broker.inner.topics.get(&asked.name);
        let mut partitions = Vec::new();
        for partition in asked.partitions {
            let index = partition.partition_index;
            let response = ListOffsetsPartitionResponse::default().with_partition_index(index);
            let stream = topic.as_ref().and_then(|topic| topic.stream(index));
            let is_twice = times.get(&(asked.name.0.clone(), index)).is_some_and(|times| *times > 1);
            let is_known = known_since(partition.timestamp).is_some_and(|first| version >= first);
            let found = match stream {
                _ if is_twice => Err(ResponseError::InvalidRequest.code()),
                Some(_) if !is_known => Err(ResponseError::UnsupportedVersion.code()),
                None => Err(ResponseError::UnknownTopicOrPartition.code()),
                Some(stream) => match fetch::check_epoch(broker, stream, partition.current_leader_epoch) {
                    Ok(stream) => find(broker, stream, partition.timestamp, isolation).await,
                    Err(code) => Err(code),
                },
            };
            partitions.push(match found {
                Err(code) => response.with_error_code(code).with_offset(-1).with_timestamp(-1),
                Ok((timestamp, offset, epoch)) => {
                    let epoch = if version >= EPOCH_FIRST { epoch } else { -1 };
                    response.with_timestamp(timestamp).with_offset(offset).with_leader_epoch(epoch)
                }
            });
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(asked.name).with_partitions(partitions));
    }
    ListOffsetsResponse::default().with_topics(topics)
}

/// Timestamp, offset and leader epoch; -1 of each where there is no such record.
type Found = (i64, i64, i32);

const NOTHING: Found = (-1, -1, -1);

async fn find(broker: &Broker, stream: StreamId, timestamp: i64, isolation: Isolation) -> Result<Found, i16> {
    let bounds = broker.inner.log.bounds(stream).map_err(|error| codes::of_read(&error))?;
    let tiers = || broker.inner.log.tiers(stream).map_err(|error| codes::of_read(&error));
    let now = |offset: Offset| (-1, wire(offset.get()), i32::try_from(bounds.leader_epoch.get()).unwrap_or(-1));
    let end = match isolation {
        Isolation::Durable => bounds.durable_end,
        Isolation::Committed => bounds.stable_end,
    };
    // A record that is not decided yet is not there for who reads what is committed.
    let within = |found: Found| if found.1 < wire(end.get()) { found } else { NOTHING };
    match timestamp {
        LATEST => Ok(now(end)),
        EARLIEST => Ok(now(bounds.log_start)),
        EARLIEST_LOCAL => Ok(now(tiers()?.local)),
        LATEST_TIERED => {
            let stored = tiers()?.stored;
            // The last offset that the store has, unlike the ends, which are one past it (KIP-1005).
            Ok(if stored > bounds.log_start { now(Offset::new(stored.get() - 1)) } else { NOTHING })
        }
        // The first that the store does not have yet (KIP-1023).
        EARLIEST_PENDING_UPLOAD => Ok(now(tiers()?.stored.max(bounds.log_start))),
        MAX_TIMESTAMP => greatest(broker, stream).await.map(within).map_err(|error| codes::of_fetch(&error)),
        timestamp => first_at(broker, stream, timestamp).await.map(within).map_err(|error| codes::of_fetch(&error)),
    }
}

/// The first record that is not older than a time. The log knows the first batch that reaches it; only in the batch with which
/// a partition begins may that record be gone.
async fn first_at(broker: &Broker, stream: StreamId, timestamp: i64) -> Result<Found, FetchError> {
    let mut from = Offset::new(0);
    while let Some(base) = broker.inner.log.find_time(stream, from, timestamp).await? {
        let Some((kept, next)) = batch_at(broker, stream, base).await? else {
            return Ok((timestamp, wire(base.get()), -1));
        };
        if let Some(hit) = kept.into_iter().find(|(time, ..)| *time >= timestamp) {
            return Ok(hit);
        }
        from = next;
    }
    Ok(NOTHING)
}

/// The first record with the greatest timestamp (KIP-734).
async fn greatest(broker: &Broker, stream: StreamId) -> Result<Found, FetchError> {
    let mut best: Option<Found> = None;
    let mut from = Offset::new(0);
    while let Some((timestamp, base)) = broker.inner.log.latest_time(stream, from).await? {
        if best.is_some_and(|(time, ..)| time >= timestamp) {
            break;
        }
        let Some((kept, next)) = batch_at(broker, stream, base).await? else {
            return Ok((timestamp, wire(base.get()), -1));
        };
        for found in kept {
            if best.is_none_or(|(time, ..)| time < found.0) {
                best = Some(found);
            }
        }
        // Less than the log knows of: the record that had it lay before the start of the partition.
        from = next;
    }
    Ok(best.unwrap_or(NOTHING))
}

/// The records of the batch that holds an offset, as far as they are kept, and where the next begins. A batch was checked when
/// it came in: of one that cannot be read now, nothing is known.
async fn batch_at(broker: &Broker, stream: StreamId, at: Offset) -> Result<Option<(Vec<Found>, Offset)>, FetchError> {
    let limit = broker.inner.options.limits.unpacked_bytes_max;
    let fetched = broker.read(stream, at, 1, Isolation::Durable).await?;
    let Some(bytes) = fetched.batches.first() else { return Ok(None) };
    let Ok(header) = BatchHeader::parse(bytes) else { return Ok(None) };
    let Ok(records) = batch::decode(bytes, limit) else { return Ok(None) };
    let kept = records.iter().filter(|record| record.offset >= fetched.log_start.get());
    let kept = kept.map(|record| (record.timestamp, wire(record.offset), header.leader_epoch)).collect();
    let last = header.base_offset.saturating_add(i64::from(header.last_offset_delta));
    let next = Offset::new(u64::try_from(last).unwrap_or(0).saturating_add(1));
    Ok(Some((kept, next.max(Offset::new(at.get() + 1)))))
}

fn wire(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
