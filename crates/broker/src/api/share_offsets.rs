//! DescribeShareGroupOffsets, AlterShareGroupOffsets and DeleteShareGroupOffsets (KIP-932): where share groups go on.

use std::collections::{BTreeMap, HashSet};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, DeleteShareGroupOffsetsRequest,
        DeleteShareGroupOffsetsResponse, DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse,
        TopicName,
        alter_share_group_offsets_response::{
            AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
        },
        delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic,
        describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup,
        describe_share_group_offsets_response::{
            DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
            DescribeShareGroupOffsetsResponseTopic,
        },
    },
};

use super::{reason, text};
use crate::{broker::Broker, share::Key};

/// What is told of a partition that the group has not begun with.
const NOWHERE: i64 = -1;

pub(super) async fn describe(
    broker: &Broker,
    request: DescribeShareGroupOffsetsRequest,
) -> DescribeShareGroupOffsetsResponse {
    let mut groups = Vec::new();
    // Each is told once, so that a request cannot multiply its answer.
    let mut told = HashSet::new();
    for group in request.groups {
        if told.insert(group.group_id.clone()) {
            groups.push(describe_one(broker, group).await);
        }
    }
    DescribeShareGroupOffsetsResponse::default().with_groups(groups)
}

async fn describe_one(
    broker: &Broker,
    asked: DescribeShareGroupOffsetsRequestGroup,
) -> DescribeShareGroupOffsetsResponseGroup {
    let group = DescribeShareGroupOffsetsResponseGroup::default().with_group_id(asked.group_id.clone());
    if !broker.inner.shares.has(&asked.group_id) {
        let why = format!("group `{}` does not exist, or is not a share group", asked.group_id.as_str());
        return group.with_error_code(ResponseError::GroupIdNotFound.code()).with_error_message(Some(reason(why)));
    }
    let starts: BTreeMap<_, _> = broker.share_starts(&asked.group_id).await.into_iter().collect();
    let epoch = i32::try_from(broker.inner.log.epoch().get()).unwrap_or(i32::MAX);
    let partition = |key: Option<&Key>, index: i32| {
        let told = DescribeShareGroupOffsetsResponsePartition::default().with_partition_index(index);
        let start = key.and_then(|key| starts.get(key)).map_or(NOWHERE, |start| wire(*start));
        told.with_start_offset(start).with_leader_epoch(if start == NOWHERE { 0 } else { epoch })
    };
    let topics = match asked.topics {
        // All that it has begun with.
        None => {
            let mut by_topic: BTreeMap<_, Vec<&Key>> = BTreeMap::new();
            starts.keys().for_each(|key| by_topic.entry(key.topic).or_default().push(key));
            let told = by_topic.into_iter().filter_map(|(id, keys)| {
                let name = broker.inner.topics.get_by_id(id)?.name.clone();
                let partitions = keys.into_iter().map(|key| partition(Some(key), key.partition as i32)).collect();
                let told = DescribeShareGroupOffsetsResponseTopic::default().with_topic_name(text(name).into());
                Some(told.with_topic_id(id).with_partitions(partitions))
            });
            told.collect()
        }
        Some(topics) => {
            let told = topics.into_iter().map(|topic| {
                let found = broker.inner.topics.get(&topic.topic_name);
                let partitions = topic.partitions.iter().map(|index| {
                    let number = u32::try_from(*index).ok();
                    let there = found.as_ref().zip(number).filter(|(found, number)| *number < found.partitions);
                    let key = there.map(|(found, number)| key_of(&asked.group_id, found.id, number));
                    let told = partition(key.as_ref(), *index);
                    if key.is_some() {
                        told
                    } else {
                        told.with_error_code(unknown()).with_error_message(Some(reason("there is no such partition")))
                    }
                });
                let partitions = partitions.collect();
                let id = found.as_ref().map_or_else(uuid::Uuid::nil, |found| found.id);
                let told = DescribeShareGroupOffsetsResponseTopic::default().with_topic_name(topic.topic_name);
                told.with_topic_id(id).with_partitions(partitions)
            });
            told.collect()
        }
    };
    group.with_topics(topics)
}

pub(super) async fn alter(broker: &Broker, request: AlterShareGroupOffsetsRequest) -> AlterShareGroupOffsetsResponse {
    let response = AlterShareGroupOffsetsResponse::default();
    let group = &request.group_id;
    if let Err((error, why)) = may_change(broker, group, true).await {
        return response.with_error_code(error.code()).with_error_message(Some(reason(why)));
    }
    let mut topics = Vec::new();
    for topic in request.topics {
        let found = broker.inner.topics.get(&topic.topic_name);
        let mut partitions = Vec::new();
        for asked in topic.partitions {
            let told = AlterShareGroupOffsetsResponsePartition::default().with_partition_index(asked.partition_index);
            let stream = found.as_ref().and_then(|found| found.stream(asked.partition_index));
            let bounds = stream.and_then(|stream| broker.inner.log.bounds(stream).ok());
            let refuse = |error: ResponseError, why: &str| {
                told.clone().with_error_code(error.code()).with_error_message(Some(reason(why)))
            };
            partitions.push(match (&found, bounds, u64::try_from(asked.start_offset)) {
                (Some(found), Some(bounds), Ok(start)) => {
                    let key = key_of(group, found.id, asked.partition_index.unsigned_abs());
                    // What is not there yet, or no more, is as near as can be.
                    let start = start.clamp(bounds.log_start.get(), bounds.durable_end.get());
                    match broker.share_move(&key, start).await {
                        Ok(()) => told,
                        Err(error) => refuse(ResponseError::CoordinatorNotAvailable, &error.to_string()),
                    }
                }
                (Some(_), Some(_), Err(_)) => refuse(ResponseError::InvalidRequest, "an offset is 0 or more"),
                _ => refuse(ResponseError::UnknownTopicOrPartition, "there is no such partition"),
            });
        }
        let id = found.as_ref().map_or_else(uuid::Uuid::nil, |found| found.id);
        let told = AlterShareGroupOffsetsResponseTopic::default().with_topic_name(topic.topic_name).with_topic_id(id);
        topics.push(told.with_partitions(partitions));
    }
    response.with_responses(topics)
}

pub(super) async fn delete(
    broker: &Broker,
    request: DeleteShareGroupOffsetsRequest,
) -> DeleteShareGroupOffsetsResponse {
    let response = DeleteShareGroupOffsetsResponse::default();
    let group = &request.group_id;
    if let Err((error, why)) = may_change(broker, group, false).await {
        return response.with_error_code(error.code()).with_error_message(Some(reason(why)));
    }
    let starts = broker.share_starts(group).await;
    let mut topics = Vec::new();
    for topic in request.topics {
        topics.push(forget(broker, &starts, topic.topic_name).await);
    }
    response.with_responses(topics)
}

async fn forget(broker: &Broker, starts: &[(Key, u64)], name: TopicName) -> DeleteShareGroupOffsetsResponseTopic {
    let told = DeleteShareGroupOffsetsResponseTopic::default();
    let Some(found) = broker.inner.topics.get(&name) else {
        let told = told.with_topic_name(name).with_error_code(unknown());
        return told.with_error_message(Some(reason("there is no such topic")));
    };
    let told = told.with_topic_name(name).with_topic_id(found.id);
    for (key, _) in starts.iter().filter(|(key, _)| key.topic == found.id) {
        if broker.share_forget(key).await.is_err() {
            return told.with_error_code(ResponseError::CoordinatorNotAvailable.code());
        }
    }
    told
}

/// Whether where a group goes on may be changed: nobody may be in it.
async fn may_change(broker: &Broker, group: &str, makes: bool) -> Result<(), (ResponseError, String)> {
    if group.is_empty() {
        return Err((ResponseError::InvalidGroupId, "name a group".to_owned()));
    }
    let is_there = match broker.share_view(group) {
        Some(view) if !view.members.is_empty() => {
            return Err((ResponseError::NonEmptyGroup, format!("group `{group}` has members: end them first")));
        }
        Some(_) => true,
        None => makes && !broker.inner.groups.knows(group).await,
    };
    if !is_there {
        let why = format!("group `{group}` does not exist, or is not a share group");
        return Err((ResponseError::GroupIdNotFound, why));
    }
    // It is there until it is deleted, whatever is left of what it did.
    let full = |_| (ResponseError::CoordinatorNotAvailable, "there are as many groups as may be".to_owned());
    broker.share_begin(group).map_err(full)
}

fn key_of(group: &str, topic: uuid::Uuid, partition: u32) -> Key {
    Key { group: group.into(), topic, partition }
}

const fn unknown() -> i16 {
    ResponseError::UnknownTopicOrPartition.code()
}

fn wire(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
