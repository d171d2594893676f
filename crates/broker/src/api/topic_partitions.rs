//! DescribeTopicPartitions (KIP-966): topics in order of their names, so many partitions at a time, with a cursor to go on from.

use std::{collections::BTreeSet, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
        describe_topic_partitions_response::{
            Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
        },
    },
};

use super::text;
use crate::{
    broker::Broker,
    topics::{Topic, is_topic_name},
};

/// Partitions in one answer, whatever is asked for (`max.request.partition.size.limit`).
const PARTITIONS_MAX: usize = 2_000;

pub(super) async fn answer(
    broker: &Broker,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let response = DescribeTopicPartitionsResponse::default();
    let named: BTreeSet<String> = request.topics.iter().map(|topic| topic.name.to_string()).collect();
    let (from, first) = match &request.cursor {
        None => (String::new(), 0),
        Some(cursor) => match usize::try_from(cursor.partition_index) {
            Ok(first) => (cursor.topic_name.to_string(), first),
            Err(_) => {
                let refused = named.into_iter().map(|name| refuse(name, ResponseError::InvalidRequest));
                return response.with_topics(refused.collect());
            }
        },
    };
    let names: Vec<String> = if named.is_empty() {
        broker.inner.topics.all().iter().map(|topic| topic.name.clone()).filter(|name| *name >= from).collect()
    } else {
        named.into_iter().filter(|name| *name >= from).collect()
    };
    let asked = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let mut left = asked.clamp(1, PARTITIONS_MAX);
    let mut topics = Vec::new();
    let mut next = None;
    for name in names {
        let first = if name == from { first } else { 0 };
        if left == 0 {
            next = Some((name, first));
            break;
        }
        let Some(topic) = broker.inner.topics.get(&name) else {
            let is_name = is_topic_name(&name);
            let unknown = ResponseError::UnknownTopicOrPartition;
            topics.push(refuse(name, if is_name { unknown } else { ResponseError::InvalidTopicException }));
            continue;
        };
        let described = describe(broker, &topic, first, left);
        let told = described.partitions.len();
        topics.push(described);
        left -= told;
        if first + told < topic.partitions as usize {
            next = Some((name, first + told));
            break;
        }
    }
    let cursor = next.map(|(name, partition)| {
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        Cursor::default().with_topic_name(text(name).into()).with_partition_index(partition)
    });
    response.with_topics(topics).with_next_cursor(cursor)
}

fn describe(broker: &Broker, topic: &Arc<Topic>, first: usize, most: usize) -> DescribeTopicPartitionsResponseTopic {
    let node = broker.inner.options.node_id.into();
    let partitions = topic.streams().skip(first).take(most).map(|stream| {
        let epoch = broker.inner.log.bounds(stream).map_or(-1, |bounds| bounds.leader_epoch.get() as i32);
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(stream.partition.get() as i32)
            .with_leader_id(node)
            .with_leader_epoch(epoch)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(text(topic.name.clone()).into()))
        .with_topic_id(topic.id)
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
}

fn refuse(name: String, error: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default().with_error_code(error.code()).with_name(Some(text(name).into()))
}
