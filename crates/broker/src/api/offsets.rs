//! OffsetCommit and OffsetFetch: where a group has read to. The metadata of a commit is kept and given back.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
};
use uuid::Uuid;

use super::{codes, text};
use crate::{
    broker::Broker,
    group::{Identity, records::OffsetValue},
};

const GROUPS_FIRST: i16 = 8;
const MEMBERS_FIRST: i16 = 9;
/// The first version of both that names topics by their ids.
const IDS_FIRST: i16 = 10;

pub(super) async fn commit(broker: &Broker, request: OffsetCommitRequest, version: i16) -> OffsetCommitResponse {
    let now_ms = broker.inner.clock.now().as_millis();
    let most = broker.inner.options.limits.offset_metadata_bytes_max;
    let mut accepted = Vec::new();
    let mut topics = Vec::new();
    let by_id = version >= IDS_FIRST;
    for topic in request.topics {
        let known =
            if by_id { broker.inner.topics.get_by_id(topic.topic_id) } else { broker.inner.topics.get(&topic.name) };
        let partitions: Vec<(i32, i16)> = topic
            .partitions
            .into_iter()
            .map(|partition| {
                let index = partition.partition_index;
                let metadata = partition.committed_metadata.map(|text| text.to_string()).unwrap_or_default();
                let Some(known) = &known else {
                    let unknown =
                        if by_id { ResponseError::UnknownTopicId } else { ResponseError::UnknownTopicOrPartition };
                    return (index, unknown.code());
                };
                if known.stream(index).is_none() {
                    return (index, ResponseError::UnknownTopicOrPartition.code());
                }
                if metadata.len() > most {
                    return (index, ResponseError::OffsetMetadataTooLarge.code());
                }
                let value = OffsetValue {
                    offset: partition.committed_offset,
                    leader_epoch: partition.committed_leader_epoch,
                    metadata,
                    committed_ms: now_ms,
                };
                accepted.push((known.name.clone(), index, value));
                (index, codes::NONE)
            })
            .collect();
        topics.push((topic.name, topic.topic_id, partitions));
    }
    let who = Identity {
        member: request.member_id.to_string(),
        instance: request.group_instance_id.map(|instance| instance.to_string()),
    };
    let generation = request.generation_id_or_member_epoch;
    let committed = broker.inner.groups.commit(request.group_id.to_string(), who, generation, version, accepted).await;
    let all = committed.map_or_else(codes::of_group, |()| codes::NONE);
    let topics = topics.into_iter().map(|(name, id, partitions)| {
        let partitions = partitions.into_iter().map(|(index, code)| {
            let code = if code == codes::NONE { all } else { code };
            OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code)
        });
        let told = OffsetCommitResponseTopic::default().with_name(name).with_topic_id(id);
        told.with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

/// Topics in order, each with its partitions and what is committed.
type Found = Vec<(String, Vec<(i32, Option<OffsetValue>)>)>;

pub(super) async fn fetch(broker: &Broker, request: OffsetFetchRequest, version: i16) -> OffsetFetchResponse {
    let require = request.require_stable;
    if version < GROUPS_FIRST {
        let wanted = request
            .topics
            .map(|topics| topics.into_iter().map(|topic| (topic.name.to_string(), topic.partition_indexes)).collect());
        let topics = find(broker, &request.group_id, wanted).into_iter().map(|(name, partitions)| {
            let partitions = partitions.into_iter().map(|(index, value)| {
                let (code, value) = stable(broker, require, (&request.group_id, &name, index), value);
                OffsetFetchResponsePartition::default()
                    .with_partition_index(index)
                    .with_error_code(code)
                    .with_committed_offset(value.offset)
                    .with_committed_leader_epoch(value.leader_epoch)
                    .with_metadata(Some(text(value.metadata)))
            });
            OffsetFetchResponseTopic::default()
                .with_name(text(name.as_str()).into())
                .with_partitions(partitions.collect())
        });
        return OffsetFetchResponse::default().with_topics(topics.collect());
    }
    let mut groups = Vec::new();
    for group in request.groups {
        groups.push(fetch_group(broker, group, require, version).await);
    }
    OffsetFetchResponse::default().with_groups(groups)
}

async fn fetch_group(
    broker: &Broker,
    group: OffsetFetchRequestGroup,
    require: bool,
    version: i16,
) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default().with_group_id(group.group_id.clone());
    if version >= MEMBERS_FIRST {
        let member = group.member_id.map(|member| member.to_string());
        let allowed = broker.inner.groups.may_fetch(group.group_id.to_string(), member, group.member_epoch).await;
        if let Err(error) = allowed {
            return response.with_error_code(codes::of_group(error));
        }
    }
    let by_id = version >= IDS_FIRST;
    let mut unknown = Vec::new();
    let wanted = group.topics.map(|topics| {
        let mut wanted = Vec::new();
        for topic in topics {
            match by_id.then(|| broker.inner.topics.get_by_id(topic.topic_id)) {
                None => wanted.push((topic.name.to_string(), topic.partition_indexes)),
                Some(Some(known)) => wanted.push((known.name.clone(), topic.partition_indexes)),
                Some(None) => unknown.push(no_such_id(topic)),
            }
        }
        wanted
    });
    let topics = find(broker, &group.group_id, wanted).into_iter().filter_map(|(name, partitions)| {
        // What is committed for a topic that is gone has no id.
        let id = if by_id { broker.inner.topics.get(&name)?.id } else { Uuid::nil() };
        let partitions = partitions.into_iter().map(|(index, value)| {
            let (code, value) = stable(broker, require, (&group.group_id, &name, index), value);
            OffsetFetchResponsePartitions::default()
                .with_partition_index(index)
                .with_error_code(code)
                .with_committed_offset(value.offset)
                .with_committed_leader_epoch(value.leader_epoch)
                .with_metadata(Some(text(value.metadata)))
        });
        let told = OffsetFetchResponseTopics::default().with_name(text(name.as_str()).into()).with_topic_id(id);
        Some(told.with_partitions(partitions.collect()))
    });
    let topics: Vec<_> = topics.chain(unknown).collect();
    response.with_topics(topics)
}

fn no_such_id(topic: OffsetFetchRequestTopics) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.into_iter().map(|index| {
        let told = OffsetFetchResponsePartitions::default().with_partition_index(index).with_committed_offset(-1);
        told.with_metadata(Some(text(""))).with_error_code(ResponseError::UnknownTopicId.code())
    });
    OffsetFetchResponseTopics::default().with_topic_id(topic.topic_id).with_partitions(partitions.collect())
}

/// What is committed, of what is wanted, or everything.
fn find(broker: &Broker, group: &str, wanted: Option<Vec<(String, Vec<i32>)>>) -> Found {
    let groups = &broker.inner.groups;
    let Some(wanted) = wanted else {
        let mut found: Found = Vec::new();
        for (topic, partition, value) in groups.committed_all(group) {
            match found.last_mut() {
                Some((last, partitions)) if *last == topic => partitions.push((partition, Some(value))),
                _ => found.push((topic, vec![(partition, Some(value))])),
            }
        }
        return found;
    };
    let one = |(topic, partitions): (String, Vec<i32>)| {
        let partitions = partitions.into_iter().map(|index| (index, groups.committed(group, &topic, index))).collect();
        (topic, partitions)
    };
    wanted.into_iter().map(one).collect()
}

/// What is told of a partition: who wants stable offsets only waits for the transaction that may change this one (KIP-447).
fn stable(
    broker: &Broker,
    require: bool,
    (group, topic, partition): (&str, &str, i32),
    value: Option<OffsetValue>,
) -> (i16, OffsetValue) {
    if require && broker.inner.groups.is_pending(group, topic, partition) {
        return (ResponseError::UnstableOffsetCommit.code(), none());
    }
    (codes::NONE, value.unwrap_or_else(none))
}

/// What stands for no commit.
const fn none() -> OffsetValue {
    OffsetValue { offset: -1, leader_epoch: -1, metadata: String::new(), committed_ms: 0 }
}
