//! OffsetDelete (KIP-496): an administrator forgets what a group committed of topics that its members do not read.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        OffsetDeleteRequest, OffsetDeleteResponse,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
    },
};

use super::codes;
use crate::{broker::Broker, group::GroupError};

pub(super) async fn answer(broker: &Broker, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    if request.group_id.is_empty() {
        return OffsetDeleteResponse::default().with_error_code(codes::of_group(GroupError::InvalidGroupId));
    }
    let mut wanted = Vec::new();
    let mut topics = Vec::new();
    for topic in request.topics {
        let known = broker.inner.topics.get(&topic.name);
        let mut places = Vec::new();
        for partition in topic.partitions {
            let index = partition.partition_index;
            let is_known = known.as_ref().is_some_and(|topic| topic.stream(index).is_some());
            // Where it is in the list of those that are wanted, if it is one of them.
            places.push((index, is_known.then_some(wanted.len())));
            if is_known {
                wanted.push((topic.name.to_string(), index));
            }
        }
        topics.push((topic.name, places));
    }
    let deleted = match broker.inner.groups.delete_offsets(&request.group_id, wanted).await {
        Ok(deleted) => deleted,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(codes::of_group(error)),
    };
    let topics = topics.into_iter().map(|(name, places)| {
        let partitions = places.into_iter().map(|(index, at)| {
            let code = match at.and_then(|at| deleted.get(at)) {
                Some(deleted) => deleted.map_or_else(codes::of_group, |()| codes::NONE),
                None => ResponseError::UnknownTopicOrPartition.code(),
            };
            OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code)
        });
        OffsetDeleteResponseTopic::default().with_name(name).with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
