//! Metadata: which topics there are and who leads them. It may create a topic that is asked for, if that is on.

use std::{collections::HashSet, sync::Arc};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        MetadataRequest, MetadataResponse,
        metadata_request::MetadataRequestTopic,
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
};
use uuid::Uuid;

use super::{Session, codes, text};
use crate::{
    broker::{Broker, TopicError, TopicSpec},
    topics::Topic,
};

/// The first version whose answer can say that its client must begin again.
const REBOOTSTRAP_FIRST: i16 = 13;

pub(super) async fn answer(
    broker: &Broker,
    session: &Session,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let node = broker.inner.options.node_id;
    let brokers = session.nodes(broker).into_iter().map(|peer| {
        MetadataResponseBroker::default()
            .with_node_id(peer.id.into())
            .with_host(text(peer.address.host))
            .with_port(i32::from(peer.address.port))
    });
    // Before version 4 a client could not say whether it wants topics created: it wants them.
    let may_create = broker.inner.options.auto_create_topics && (version < 4 || request.allow_auto_topic_creation);
    let topics = match request.topics {
        // Version 0 has no null: an empty list means all.
        None => all(broker),
        Some(asked) if asked.is_empty() && version == 0 => all(broker),
        Some(asked) => {
            let mut topics = Vec::new();
            // Each is told once, as Kafka does, so that a request cannot multiply its answer.
            let mut told = HashSet::new();
            for topic in asked {
                if told.insert((topic.name.clone(), topic.topic_id)) {
                    topics.push(one(broker, session, topic, may_create).await);
                }
            }
            topics
        }
    };
    // Who was replaced does not know who leads now: its clients begin again from where they were sent first (KIP-1102).
    let is_replaced = version >= REBOOTSTRAP_FIRST && broker.inner.log.is_fenced();
    let code = if is_replaced { ResponseError::RebootstrapRequired.code() } else { codes::NONE };
    MetadataResponse::default()
        .with_error_code(code)
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(text(broker.inner.topics.cluster().to_string())))
        .with_controller_id(node.into())
        .with_topics(topics)
}

fn all(broker: &Broker) -> Vec<MetadataResponseTopic> {
    broker.inner.topics.all().iter().map(|topic| describe(broker, topic)).collect()
}

async fn one(
    broker: &Broker,
    session: &Session,
    asked: MetadataRequestTopic,
    may_create: bool,
) -> MetadataResponseTopic {
    // Apache Kafka's own client asks by id with an empty name beside it.
    let Some(name) = asked.name.filter(|_| asked.topic_id.is_nil()) else {
        return match broker.inner.topics.get_by_id(asked.topic_id) {
            Some(topic) => describe(broker, &topic),
            None => refuse(None, asked.topic_id, ResponseError::UnknownTopicId.code()),
        };
    };
    if let Some(topic) = broker.inner.topics.get(&name) {
        return describe(broker, &topic);
    }
    let spec = TopicSpec { name: name.to_string(), ..TopicSpec::default() };
    let code = if may_create {
        match broker.create_topic(&session.principal, spec).await {
            // Somebody else may have been quicker, which is as good.
            Ok(_) | Err(TopicError::Exists { .. }) => match broker.inner.topics.get(&name) {
                Some(topic) => return describe(broker, &topic),
                None => ResponseError::LeaderNotAvailable.code(),
            },
            Err(error) => codes::of_topic(&error),
        }
    } else {
        match broker.check_topic(&session.principal, &spec) {
            Err(error @ (TopicError::Name { .. } | TopicError::Collides { .. })) => codes::of_topic(&error),
            _ => ResponseError::UnknownTopicOrPartition.code(),
        }
    };
    refuse(Some(name.to_string()), Uuid::nil(), code)
}

fn refuse(name: Option<String>, id: Uuid, code: i16) -> MetadataResponseTopic {
    // Only version 12 and newer may leave the name out, and only they can ask by id alone.
    let name = name.map(|name| text(name).into());
    MetadataResponseTopic::default().with_error_code(code).with_name(name).with_topic_id(id)
}

fn describe(broker: &Broker, topic: &Arc<Topic>) -> MetadataResponseTopic {
    let node = broker.inner.options.node_id.into();
    let partitions = topic.streams().map(|stream| {
        let epoch = broker.inner.log.bounds(stream).map_or(-1, |bounds| bounds.leader_epoch.get() as i32);
        MetadataResponsePartition::default()
            .with_partition_index(stream.partition.get() as i32)
            .with_leader_id(node)
            .with_leader_epoch(epoch)
            .with_replica_nodes(vec![node])
            .with_isr_nodes(vec![node])
    });
    MetadataResponseTopic::default()
        .with_name(Some(text(topic.name.clone()).into()))
        .with_topic_id(topic.id)
        .with_is_internal(topic.is_internal())
        .with_partitions(partitions.collect())
}
