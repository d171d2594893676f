//! Changing a topic that there is: configs, partitions, records. What is refused changes nothing, and what was done outlives a restart.

use std::collections::BTreeMap;

use cairn_broker::Principal;
use cairn_log::{PartitionIndex, Retention, StreamId};
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, CreatePartitionsRequest, DeleteRecordsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, RequestKind, ResponseKind,
    alter_configs_request::{AlterConfigsResource, AlterableConfig as ReplacedConfig},
    create_partitions_request::CreatePartitionsTopic,
    delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    describe_configs_request::DescribeConfigsResource,
    incremental_alter_configs_request::{AlterConfigsResource as IncrementalResource, AlterableConfig},
};
use uuid::Uuid;

use super::{TOPIC, batch, name, start, text};
use crate::support::{Served, Wire, quick};

const DENIED: i16 = 29;
const TOPIC_RESOURCE: i8 = 2;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

pub(super) fn delete_records(topic: &str, partition: i32, before: i64) -> RequestKind {
    let partition = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(before);
    let topic = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
    RequestKind::DeleteRecords(DeleteRecordsRequest::default().with_topics(vec![topic]))
}

pub(super) fn partitions(topic: &str, count: i32, check_only: bool) -> RequestKind {
    let topic = CreatePartitionsTopic::default().with_name(name(topic)).with_count(count).with_assignments(None);
    let request = CreatePartitionsRequest::default().with_topics(vec![topic]);
    RequestKind::CreatePartitions(request.with_validate_only(check_only))
}

pub(super) fn replace(topic: &str, configs: &[(&'static str, &'static str)], check_only: bool) -> RequestKind {
    let config = |(name, value): &(&'static str, &'static str)| {
        ReplacedConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let resource = AlterConfigsResource::default().with_resource_type(TOPIC_RESOURCE);
    let resource =
        resource.with_resource_name(topic.to_owned().into()).with_configs(configs.iter().map(config).collect());
    let request = AlterConfigsRequest::default().with_resources(vec![resource]);
    RequestKind::AlterConfigs(request.with_validate_only(check_only))
}

pub(super) fn alter(
    topic: &str,
    changes: &[(&'static str, i8, Option<&'static str>)],
    check_only: bool,
) -> RequestKind {
    let change = |(name, operation, value): &(&'static str, i8, Option<&'static str>)| {
        let change = AlterableConfig::default().with_name(text(name)).with_config_operation(*operation);
        change.with_value(value.map(text))
    };
    let resource = IncrementalResource::default().with_resource_type(TOPIC_RESOURCE);
    let resource =
        resource.with_resource_name(topic.to_owned().into()).with_configs(changes.iter().map(change).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    RequestKind::IncrementalAlterConfigs(request.with_validate_only(check_only))
}

/// The code, and the reason where there is one.
async fn told(wire: &mut Wire, key: ApiKey, version: i16, request: &RequestKind) -> (i16, String) {
    let (code, why) = match wire.ask(key, version, request).await {
        ResponseKind::AlterConfigs(answer) => {
            (answer.responses[0].error_code, answer.responses[0].error_message.clone())
        }
        ResponseKind::IncrementalAlterConfigs(answer) => {
            (answer.responses[0].error_code, answer.responses[0].error_message.clone())
        }
        ResponseKind::CreatePartitions(answer) => {
            (answer.results[0].error_code, answer.results[0].error_message.clone())
        }
        ResponseKind::DeleteRecords(answer) => (answer.topics[0].partitions[0].error_code, None),
        other => panic!("{other:?}"),
    };
    (code, why.map(|why| why.to_string()).unwrap_or_default())
}

/// Nobody but Cairn changes what is Cairn's, not even who may write it.
pub(super) async fn may_not_change(wire: &mut Wire, topic: &str) {
    for (key, request) in [
        (ApiKey::AlterConfigs, replace(topic, &[("retention.ms", "1")], false)),
        (ApiKey::IncrementalAlterConfigs, alter(topic, &[("retention.ms", SET, Some("1"))], false)),
        (ApiKey::CreatePartitions, partitions(topic, 9, false)),
        (ApiKey::DeleteRecords, delete_records(topic, 0, -1)),
    ] {
        assert_eq!(told(wire, key, 1, &request).await.0, DENIED, "{key:?}");
    }
}

async fn configs(wire: &mut Wire, topic: &str) -> BTreeMap<String, String> {
    let resource = DescribeConfigsResource::default().with_resource_type(TOPIC_RESOURCE);
    let resource = resource.with_resource_name(topic.to_owned().into()).with_configuration_keys(None);
    let request = RequestKind::DescribeConfigs(DescribeConfigsRequest::default().with_resources(vec![resource]));
    let ResponseKind::DescribeConfigs(answer) = wire.ask(ApiKey::DescribeConfigs, 4, &request).await else { panic!() };
    let given = answer.results[0].configs.iter().filter(|config| config.config_source == 1);
    given.map(|config| (config.name.to_string(), config.value.clone().unwrap().to_string())).collect()
}

fn retention(served: &Served, id: Uuid, partition: u32) -> Retention {
    served.broker.log().retention(StreamId::new(id, PartitionIndex::new(partition))).unwrap()
}

fn given<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[tokio::test]
async fn configs_are_changed_one_by_one_or_replaced_and_the_log_keeps_to_them() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let change = async |wire: &mut Wire, changes: &[_]| {
        told(wire, ApiKey::IncrementalAlterConfigs, 1, &alter(TOPIC, changes, false)).await
    };
    let changes = [("retention.ms", SET, Some("3600000")), ("cleanup.policy", APPEND, Some("compact"))];
    assert_eq!(change(&mut wire, &changes).await, (0, String::new()));
    let now = given([("cleanup.policy", "delete,compact"), ("retention.ms", "3600000")]);
    assert_eq!(configs(&mut wire, TOPIC).await, now);
    assert_eq!(retention(&served, id, 0).ms, Some(3_600_000));
    // What is refused changes nothing, also where the rest of it was right.
    for (changes, code, says) in [
        (vec![("retention.ms", SET, Some("1")), ("no.such", SET, Some("1"))], 40, "`no.such` is unknown"),
        (vec![("retention.ms", SET, Some("-7"))], 40, "cannot be `-7`"),
        (vec![("retention.ms", APPEND, Some("7"))], 40, "is no list"),
        (vec![("retention.ms", SET, None)], 42, "has no value"),
        (vec![("cleanup.policy", SUBTRACT, Some("compact,delete"))], 40, "cleanup.policy"),
        (vec![("retention.ms", 9, Some("7"))], 42, "no operation"),
        (vec![("retention.ms", SET, Some("7")), ("retention.ms", DELETE, None)], 42, "twice"),
    ] {
        let (found, why) = change(&mut wire, &changes).await;
        assert!(found == code && why.contains(says), "{changes:?}: {found} {why}");
        assert_eq!(configs(&mut wire, TOPIC).await, now);
    }
    let tried = alter(TOPIC, &[("retention.ms", DELETE, None)], true);
    assert_eq!(told(&mut wire, ApiKey::IncrementalAlterConfigs, 1, &tried).await.0, 0);
    assert_eq!((configs(&mut wire, TOPIC).await, retention(&served, id, 0).ms), (now.clone(), Some(3_600_000)));
    assert_eq!(change(&mut wire, &[("cleanup.policy", SUBTRACT, Some("compact"))]).await.0, 0);
    // A change of all: what is not named goes back to its default.
    let all = replace(TOPIC, &[("max.message.bytes", "2000")], false);
    assert_eq!(told(&mut wire, ApiKey::AlterConfigs, 1, &all).await.0, 0);
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(configs(&mut wire, TOPIC).await, given([("max.message.bytes", "2000")]));
    assert_eq!(retention(&served, id, 0).ms, Some(604_800_000));
    let big = batch(&["v".repeat(3_000).as_str()]);
    let refused = served.broker.produce(&Principal::Anonymous, TOPIC, PartitionIndex::new(0), big).await;
    assert!(refused.unwrap_err().to_string().contains("2000"));
    // Neither other brokers, nor what is not there, nor what is the broker's own.
    let broker = IncrementalResource::default().with_resource_type(4).with_resource_name(text("9"));
    let broker = IncrementalAlterConfigsRequest::default().with_resources(vec![broker]);
    let broker = RequestKind::IncrementalAlterConfigs(broker);
    assert_eq!(told(&mut wire, ApiKey::IncrementalAlterConfigs, 1, &broker).await.0, 42);
    let nothing = alter("none", &[("retention.ms", DELETE, None)], false);
    assert_eq!(told(&mut wire, ApiKey::IncrementalAlterConfigs, 1, &nothing).await.0, 3);
    may_not_change(&mut wire, "__consumer_offsets").await;
    served.end().await;
}

#[tokio::test]
async fn a_topic_gets_more_partitions_and_never_fewer() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let ask = async |wire: &mut Wire, count, check_only| {
        told(wire, ApiKey::CreatePartitions, 3, &partitions(TOPIC, count, check_only)).await
    };
    assert_eq!(ask(&mut wire, 3, true).await.0, 0);
    assert_eq!(served.broker.topic(TOPIC).unwrap().partitions, 1);
    assert_eq!(ask(&mut wire, 3, false).await, (0, String::new()));
    for (count, says) in
        [(3, "3 partitions"), (2, "cannot become fewer"), (-1, "3 partitions"), (1 << 30, "not between")]
    {
        let (code, why) = ask(&mut wire, count, false).await;
        assert!(code == 37 && why.contains(says), "{count}: {code} {why}");
    }
    let topic = CreatePartitionsTopic::default().with_name(name(TOPIC)).with_count(5).with_assignments(Some(vec![]));
    let request = CreatePartitionsRequest::default().with_topics(vec![topic.clone()]);
    let request = RequestKind::CreatePartitions(request);
    assert_eq!(told(&mut wire, ApiKey::CreatePartitions, 3, &request).await.0, 39);
    let request = CreatePartitionsRequest::default().with_topics(vec![topic.clone(), topic]);
    assert_eq!(told(&mut wire, ApiKey::CreatePartitions, 3, &RequestKind::CreatePartitions(request)).await.0, 42);
    let value = || batch(&["v"]);
    served.broker.produce(&Principal::Anonymous, TOPIC, PartitionIndex::new(2), value()).await.unwrap();
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    let found = served.broker.topic(TOPIC).unwrap();
    assert_eq!((found.partitions, found.id), (3, id));
    let offset = served.broker.produce(&Principal::Anonymous, TOPIC, PartitionIndex::new(2), value()).await.unwrap();
    assert_eq!(offset.get(), 1);
    assert_eq!(retention(&served, id, 2), retention(&served, id, 0));
    served.end().await;
}

#[tokio::test]
async fn records_go_up_to_an_offset_and_no_further() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let zero = PartitionIndex::new(0);
    for _ in 0..5 {
        let value = batch(&["v"]);
        served.broker.produce(&Principal::Anonymous, TOPIC, zero, value).await.unwrap();
    }
    let ask = async |wire: &mut Wire, partition, before| {
        let answer = wire.ask(ApiKey::DeleteRecords, 2, &delete_records(TOPIC, partition, before)).await;
        let ResponseKind::DeleteRecords(answer) = answer else { panic!() };
        let partition = &answer.topics[0].partitions[0];
        (partition.error_code, partition.low_watermark)
    };
    assert_eq!(ask(&mut wire, 0, 2).await, (0, 2));
    assert_eq!(ask(&mut wire, 0, 1).await, (0, 2), "what is gone stays gone");
    assert_eq!(ask(&mut wire, 0, 6).await, (1, -1));
    assert_eq!(ask(&mut wire, 0, -2).await, (1, -1));
    assert_eq!(ask(&mut wire, 3, 0).await, (3, -1));
    assert_eq!(ask(&mut wire, 0, -1).await, (0, 5));
    let compacted = alter(TOPIC, &[("cleanup.policy", SET, Some("compact"))], false);
    assert_eq!(told(&mut wire, ApiKey::IncrementalAlterConfigs, 1, &compacted).await.0, 0);
    assert_eq!(ask(&mut wire, 0, 5).await, (44, -1));
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    let fetched =
        served.broker.fetch(TOPIC, zero, cairn_log::Offset::new(5), 1, std::time::Duration::ZERO).await.unwrap();
    assert_eq!((fetched.log_start.get(), fetched.high_watermark.get()), (5, 5));
    served.end().await;
}
