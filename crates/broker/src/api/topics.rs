//! CreateTopics and DeleteTopics. Any replication factor is taken and shown as 1: the object store keeps the copies.

use std::collections::{BTreeMap, HashMap, HashSet};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicsRequest, DeleteTopicsResponse,
        create_topics_request::CreatableTopic,
        create_topics_response::{CreatableTopicConfigs, CreatableTopicResult},
        delete_topics_request::DeleteTopicState,
        delete_topics_response::DeletableTopicResult,
    },
};
use uuid::Uuid;

use super::{Session, codes, configs, reason, text};
use crate::broker::{Broker, TopicError, TopicSpec};

const CONFIGS_FIRST: i16 = 5;

pub(super) async fn create(
    broker: &Broker,
    session: &Session,
    request: CreateTopicsRequest,
    version: i16,
) -> CreateTopicsResponse {
    let mut named: HashMap<String, usize> = HashMap::new();
    for topic in &request.topics {
        *named.entry(topic.name.to_string()).or_default() += 1;
    }
    let mut results = Vec::new();
    let mut told = HashSet::new();
    for topic in request.topics {
        if !told.insert(topic.name.clone()) {
            continue;
        }
        let result = CreatableTopicResult::default().with_name(topic.name.clone()).with_error_message(None);
        let twice = named.get(topic.name.as_str()).is_some_and(|times| *times > 1);
        results.push(if twice {
            refuse(result, ResponseError::InvalidRequest.code(), "the topic is named twice in one request")
        } else {
            create_one(broker, session, topic, request.validate_only, version, result).await
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

async fn create_one(
    broker: &Broker,
    session: &Session,
    topic: CreatableTopic,
    validate_only: bool,
    version: i16,
    result: CreatableTopicResult,
) -> CreatableTopicResult {
    let spec = match spec(broker, &topic) {
        Ok(spec) => spec,
        Err((code, why)) => return refuse(result, code.code(), why),
    };
    let checked = broker.check_topic(&session.principal, &spec);
    let (partitions, checked_configs) = match checked {
        Ok(checked) => checked,
        Err(error) => return refuse(result, codes::of_topic(&error), &error.to_string()),
    };
    let mut result = result.with_num_partitions(partitions as i32).with_replication_factor(1);
    if version >= CONFIGS_FIRST {
        let told = configs::of_topic(broker, &checked_configs).into_iter().map(|told| {
            CreatableTopicConfigs::default()
                .with_name(text(told.name))
                .with_value(Some(text(told.value)))
                .with_config_source(told.source)
        });
        result = result.with_configs(Some(told.collect()));
    }
    if validate_only {
        return result;
    }
    match broker.create_topic(&session.principal, spec).await {
        Ok(topic) => result.with_topic_id(topic.id),
        Err(error) => refuse(result, codes::of_topic(&error), &error.to_string()),
    }
}

fn spec(broker: &Broker, topic: &CreatableTopic) -> Result<TopicSpec, (ResponseError, &'static str)> {
    let mut partitions = match topic.num_partitions {
        -1 => None,
        given => {
            let given = u32::try_from(given).ok().filter(|given| *given > 0);
            Some(given.ok_or((ResponseError::InvalidPartitions, "partitions are -1 or more than zero"))?)
        }
    };
    if topic.replication_factor != -1 && topic.replication_factor < 1 {
        return Err((ResponseError::InvalidReplicationFactor, "replication factor is -1 or more than zero"));
    }
    if !topic.assignments.is_empty() {
        if partitions.is_some() || topic.replication_factor != -1 {
            let why = "with assignments, partitions and replication factor are -1";
            return Err((ResponseError::InvalidRequest, why));
        }
        let mut indexes: Vec<i32> = topic.assignments.iter().map(|assignment| assignment.partition_index).collect();
        indexes.sort_unstable();
        let in_order = indexes.iter().enumerate().all(|(at, index)| usize::try_from(*index) == Ok(at));
        if !in_order {
            let why = "assignments name each partition from zero once";
            return Err((ResponseError::InvalidReplicaAssignment, why));
        }
        if !topic.assignments.iter().all(|assignment| is_assignment(broker, &assignment.broker_ids)) {
            return Err((ResponseError::InvalidReplicaAssignment, ASSIGNMENT_WRONG));
        }
        partitions = u32::try_from(indexes.len()).ok();
    }
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let value = config.value.as_ref().ok_or((ResponseError::InvalidConfig, "a config has no value"))?;
        configs.insert(config.name.to_string(), value.to_string());
    }
    Ok(TopicSpec { name: topic.name.to_string(), partitions, configs })
}

pub(super) const ASSIGNMENT_WRONG: &str =
    "an assignment names at least one broker, each once, and no other than there are";

/// Whether the copies of a partition may be assigned so. Where they are, the object store knows better.
pub(super) fn is_assignment(broker: &Broker, ids: &[BrokerId]) -> bool {
    let options = &broker.inner.options;
    // Of a broker that is alone many scripts take it that its number is 0.
    let is_alone = options.peers.is_empty();
    let is_there =
        |id: i32| id == options.node_id || (id == 0 && is_alone) || options.peers.iter().any(|peer| peer.id == id);
    let mut named = HashSet::new();
    !ids.is_empty() && ids.iter().all(|id| named.insert(id.0) && is_there(id.0))
}

fn refuse(result: CreatableTopicResult, code: i16, why: &str) -> CreatableTopicResult {
    result
        .with_error_code(code)
        .with_error_message(Some(reason(why)))
        .with_num_partitions(-1)
        .with_replication_factor(-1)
        .with_configs(Some(Vec::new()))
}

pub(super) async fn delete(
    broker: &Broker,
    session: &Session,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let by_name = request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name)));
    let asked = if version >= 6 { request.topics } else { by_name.collect() };
    let topics = &broker.inner.topics;
    // What a topic is named by, and what it is known by: two names of one are one topic, too.
    let id_of = |asked: &DeleteTopicState| match &asked.name {
        Some(name) => topics.get(name).map_or_else(Uuid::nil, |topic| topic.id),
        None => asked.topic_id,
    };
    let key = |asked: &DeleteTopicState| (id_of(asked), asked.name.clone().filter(|_| id_of(asked).is_nil()));
    let mut named: HashMap<_, usize> = HashMap::new();
    for topic in &asked {
        *named.entry(key(topic)).or_default() += 1;
    }
    let mut results = Vec::new();
    let mut told = HashSet::new();
    for topic in asked {
        let key = key(&topic);
        let refused = match (&topic.name, topic.topic_id.is_nil()) {
            (Some(_), false) => Some("a topic is named by its name or by its id, not by both"),
            (None, true) => Some("a topic is named by its name or by its id"),
            _ if named.get(&key).is_some_and(|times| *times > 1) => Some("the topic is named twice in one request"),
            _ => None,
        };
        let Some(why) = refused else {
            results.push(delete_one(broker, session, topic).await);
            continue;
        };
        if told.insert(key) {
            let result = DeletableTopicResult::default().with_name(topic.name).with_topic_id(topic.topic_id);
            let code = ResponseError::InvalidRequest.code();
            results.push(result.with_error_code(code).with_error_message(Some(reason(why))));
        }
    }
    DeleteTopicsResponse::default().with_responses(results)
}

async fn delete_one(broker: &Broker, session: &Session, asked: DeleteTopicState) -> DeletableTopicResult {
    let topics = &broker.inner.topics;
    let (name, id, deleted) = match asked.name {
        Some(name) => {
            let id = topics.get(&name).map_or_else(Uuid::nil, |topic| topic.id);
            let deleted = broker.delete_topic(&session.principal, &name).await;
            (Some(name), id, deleted.map_err(|error| (codes::of_topic(&error), error.to_string())))
        }
        None => match topics.get_by_id(asked.topic_id) {
            Some(topic) => {
                let deleted = broker.delete_topic(&session.principal, &topic.name).await;
                // Who may not write it is not told its name.
                let told = !matches!(deleted, Err(TopicError::Denied { .. }));
                let name = told.then(|| text(topic.name.clone()).into());
                (name, topic.id, deleted.map_err(|error| (codes::of_topic(&error), error.to_string())))
            }
            None => {
                let unknown = (ResponseError::UnknownTopicId.code(), "no topic has this id".to_owned());
                (None, asked.topic_id, Err(unknown))
            }
        },
    };
    let result = DeletableTopicResult::default().with_name(name).with_topic_id(id);
    match deleted {
        Ok(()) => result,
        Err((code, why)) => result.with_error_code(code).with_error_message(Some(reason(why))),
    }
}
