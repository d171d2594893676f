//! AlterConfigs, IncrementalAlterConfigs, CreatePartitions and DeleteRecords: what changes a topic that there is, and configs of what
//! is no topic: brokers, groups, subscriptions to metrics.

use std::collections::{BTreeMap, HashMap, HashSet};

use cairn_log::Offset;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, CreatePartitionsRequest, CreatePartitionsResponse,
        DeleteRecordsRequest, DeleteRecordsResponse, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        alter_configs_response::AlterConfigsResourceResponse,
        create_partitions_request::CreatePartitionsTopic,
        create_partitions_response::CreatePartitionsTopicResult,
        delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult},
        incremental_alter_configs_request::AlterableConfig,
        incremental_alter_configs_response::AlterConfigsResourceResponse as IncrementalResponse,
    },
};

use super::{
    Session, codes,
    configs::{BROKER, CLIENT_METRICS, GROUP, TOPIC},
    reason,
    topics::{ASSIGNMENT_WRONG, is_assignment},
};
use crate::{
    alter::DeleteError,
    broker::{Broker, TopicError},
    resources::{ResourceError, ResourceKind},
    topics::{configs::Configured, is_topic_name},
};

/// What IncrementalAlterConfigs does with a value, as Kafka numbers it.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;
/// In DeleteRecords: everything that there is.
const ALL: i64 = -1;

type Refusal = (i16, String);

fn invalid(why: impl Into<String>) -> Refusal {
    (ResponseError::InvalidRequest.code(), why.into())
}

/// What is named more than once in one request, so that nobody can say what of it counts.
fn twice<T: std::hash::Hash + Eq>(all: impl Iterator<Item = T>) -> HashSet<T> {
    let mut times: HashMap<T, usize> = HashMap::new();
    all.for_each(|one| *times.entry(one).or_default() += 1);
    times.into_iter().filter(|(_, times)| *times > 1).map(|(one, _)| one).collect()
}

/// Changes one resource's configs.
async fn change(
    broker: &Broker,
    session: &Session,
    kind: i8,
    name: &str,
    check_only: bool,
    alter: impl FnOnce(&dyn Configured) -> Result<BTreeMap<String, String>, String>,
) -> Result<(), Refusal> {
    let of = match kind {
        TOPIC => {
            if !is_topic_name(name) {
                let error = TopicError::Name { name: name.to_owned() };
                return Err((codes::of_topic(&error), error.to_string()));
            }
            let changed = broker.alter_configs(&session.principal, name, check_only, alter).await;
            return changed.map_err(|error| (codes::of_topic(&error), error.to_string()));
        }
        CLIENT_METRICS => ResourceKind::ClientMetrics,
        GROUP => ResourceKind::Group,
        BROKER if name.is_empty() || name == broker.inner.options.node_id.to_string() => ResourceKind::Broker,
        BROKER => {
            let node = broker.inner.options.node_id;
            return Err(invalid(format!("there is no broker `{name}` here, only {node}; no name is all brokers")));
        }
        _ => return Err(invalid("only topics, brokers, groups and client metrics have configs here")),
    };
    let (catalogue, limits) = (&broker.inner.topics, &broker.inner.options.limits);
    let changed = broker.inner.resources.change(catalogue, limits, (of, name), check_only, alter).await;
    changed.map_err(|error| {
        let code = match error {
            ResourceError::Config(_) => ResponseError::InvalidConfig,
            ResourceError::Request(_) => ResponseError::InvalidRequest,
            ResourceError::TooMany => ResponseError::PolicyViolation,
            ResourceError::Record { .. } | ResourceError::Catalogue(_) => ResponseError::KafkaStorageError,
        };
        (code.code(), error.to_string())
    })
}

pub(super) async fn configs(broker: &Broker, session: &Session, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let check_only = request.validate_only;
    let named = twice(request.resources.iter().map(|one| (one.resource_type, one.resource_name.clone())));
    let mut responses = Vec::new();
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let configs = resource.configs;
        let done = if named.contains(&(kind, name.clone())) {
            Err(invalid("the resource is named twice in one request"))
        } else if let Some(again) = twice(configs.iter().map(|one| one.name.clone())).into_iter().next() {
            Err(invalid(format!("config `{again}` is named twice")))
        } else if let Some(bare) = configs.iter().find(|one| one.value.is_none()) {
            Err(invalid(format!("config `{}` has no value", bare.name)))
        } else {
            // What is not named goes back to its default.
            let given = configs.into_iter().filter_map(|one| Some((one.name.to_string(), one.value?.to_string())));
            let given = given.collect();
            change(broker, session, kind, &name, check_only, |_: &dyn Configured| Ok(given)).await
        };
        let response = AlterConfigsResourceResponse::default().with_resource_type(kind).with_resource_name(name);
        responses.push(match done {
            Ok(()) => response.with_error_message(None),
            Err((code, why)) => response.with_error_code(code).with_error_message(Some(reason(why))),
        });
    }
    AlterConfigsResponse::default().with_responses(responses)
}

pub(super) async fn incremental(
    broker: &Broker,
    session: &Session,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let check_only = request.validate_only;
    let named = twice(request.resources.iter().map(|one| (one.resource_type, one.resource_name.clone())));
    let mut responses = Vec::new();
    for resource in request.resources {
        let (kind, name) = (resource.resource_type, resource.resource_name);
        let changes = resource.configs;
        let done = if named.contains(&(kind, name.clone())) {
            Err(invalid("the resource is named twice in one request"))
        } else if let Some(again) = twice(changes.iter().map(|one| one.name.clone())).into_iter().next() {
            Err(invalid(format!("config `{again}` is named twice")))
        } else if let Some(bad) = changes.iter().find(|one| !(SET..=SUBTRACT).contains(&one.config_operation)) {
            Err(invalid(format!("{} is no operation on config `{}`", bad.config_operation, bad.name)))
        } else if let Some(bare) = changes.iter().find(|one| one.config_operation != DELETE && one.value.is_none()) {
            Err(invalid(format!("config `{}` has no value", bare.name)))
        } else {
            change(broker, session, kind, &name, check_only, |now| altered(now, &changes)).await
        };
        let response = IncrementalResponse::default().with_resource_type(kind).with_resource_name(name);
        responses.push(match done {
            Ok(()) => response.with_error_message(None),
            Err((code, why)) => response.with_error_code(code).with_error_message(Some(reason(why))),
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

/// What is given after some changes to what is given now.
fn altered(now: &dyn Configured, changes: &[AlterableConfig]) -> Result<BTreeMap<String, String>, String> {
    let mut given = now.given().clone();
    for change in changes {
        let name = change.name.to_string();
        let value = change.value.as_ref().map(ToString::to_string);
        let value = || value.ok_or_else(|| format!("config `{name}` has no value"));
        match change.config_operation {
            DELETE => drop(given.remove(&name)),
            SET => drop(given.insert(name.clone(), value()?)),
            _ if !now.is_list(&name) => {
                return Err(format!("config `{name}` is no list: nothing can be added to it or taken from it"));
            }
            operation => {
                let list = given.get(&name).map_or_else(|| now.value(&name), String::as_str);
                let mut list: Vec<String> = items(list).map(str::to_owned).collect();
                let value = value()?;
                if items(&value).next().is_none() {
                    return Err(format!("nothing is added to config `{name}` or taken from it"));
                }
                for item in items(&value) {
                    list.retain(|known| known != item);
                    if operation == APPEND {
                        list.push(item.to_owned());
                    }
                }
                given.insert(name.clone(), list.join(","));
            }
        }
    }
    Ok(given)
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|item| !item.is_empty())
}

pub(super) async fn partitions(
    broker: &Broker,
    session: &Session,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let named = twice(request.topics.iter().map(|topic| topic.name.clone()));
    let mut results = Vec::new();
    for topic in request.topics {
        let done = if named.contains(&topic.name) {
            Err(invalid("the topic is named twice in one request"))
        } else {
            more(broker, session, &topic, request.validate_only).await
        };
        let result = CreatePartitionsTopicResult::default().with_name(topic.name);
        results.push(match done {
            Ok(()) => result.with_error_message(None),
            Err((code, why)) => result.with_error_code(code).with_error_message(Some(reason(why))),
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn more(
    broker: &Broker,
    session: &Session,
    topic: &CreatePartitionsTopic,
    check_only: bool,
) -> Result<(), Refusal> {
    let refused = |error: TopicError| (codes::of_topic(&error), error.to_string());
    let now = broker.may_alter(&session.principal, &topic.name).map_err(refused)?.partitions;
    let wanted = u32::try_from(topic.count).unwrap_or(0);
    if let Some(assignments) = &topic.assignments
        && assignments.len() != wanted.saturating_sub(now) as usize
    {
        let why = "assignments name the brokers of each partition that is added, and of no other";
        return Err((ResponseError::InvalidReplicaAssignment.code(), why.to_owned()));
    }
    let mut assigned = topic.assignments.iter().flatten();
    if !assigned.all(|assignment| is_assignment(broker, &assignment.broker_ids)) {
        return Err((ResponseError::InvalidReplicaAssignment.code(), ASSIGNMENT_WRONG.to_owned()));
    }
    broker.add_partitions(&session.principal, &topic.name, wanted, check_only).await.map_err(refused)
}

pub(super) async fn records(
    broker: &Broker,
    session: &Session,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for asked in topic.partitions {
            let result = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            let before = match asked.offset {
                ALL => Some(None),
                offset => u64::try_from(offset).ok().map(|offset| Some(Offset::new(offset))),
            };
            let done = match before {
                None => Err(ResponseError::OffsetOutOfRange.code()),
                Some(before) => {
                    let (who, partition) = (&session.principal, asked.partition_index);
                    let deleted = broker.delete_records(who, &topic.name, partition, before).await;
                    deleted.map_err(|error| of_delete(&error))
                }
            };
            partitions.push(match done {
                Ok(start) => result.with_low_watermark(i64::try_from(start.get()).unwrap_or(i64::MAX)),
                Err(code) => result.with_error_code(code).with_low_watermark(-1),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

fn of_delete(error: &DeleteError) -> i16 {
    match error {
        DeleteError::Topic(error) => codes::of_topic(error),
        DeleteError::Place(error) => codes::of_fetch(error),
        DeleteError::Kept => ResponseError::PolicyViolation.code(),
        DeleteError::Append(error) => codes::of_append(error),
    }
}
