//! What is wrong with a request is told with the code that Apache Kafka tells it with; `clients/differential` asks both.

use bytes::Bytes;
use cairn_broker::{Principal, TopicSpec, batch::BatchBuilder};
use kafka_protocol::messages::{
    AlterConfigsRequest, ApiKey, ApiVersionsRequest, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, DescribeClusterRequest, DescribeConfigsRequest, LeaveGroupRequest, ListOffsetsRequest,
    RequestKind, ResponseKind, SyncGroupRequest,
    alter_configs_request::{AlterConfigsResource, AlterableConfig},
    create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
    create_topics_request::{CreatableReplicaAssignment, CreatableTopic},
    delete_topics_request::DeleteTopicState,
    describe_configs_request::DescribeConfigsResource,
    leave_group_request::MemberIdentity,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};
use uuid::Uuid;

use super::{TOPIC, batch, name, produce, produced, start, text};
use crate::support::Wire;

const CORRUPT_MESSAGE: i16 = 2;
const INVALID_TOPIC: i16 = 17;
const INCONSISTENT_PROTOCOL: i16 = 23;
const UNKNOWN_MEMBER: i16 = 25;
const UNSUPPORTED_VERSION: i16 = 35;
const INVALID_ASSIGNMENT: i16 = 39;
const INVALID_REQUEST: i16 = 42;
const NOT_OF_THE_ID: i16 = 53;
const FENCED_EPOCH: i16 = 74;
const INVALID_RECORD: i16 = 87;
const UNKNOWN_ID: i16 = 100;
const TOPIC_RESOURCE: i8 = 2;

#[tokio::test]
async fn a_batch_that_is_cut_is_not_sent_again_and_one_that_was_damaged_is() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let whole = batch(&["a"]).freeze();
    let mut ask = async |records: Bytes, version, id| {
        produced(wire.ask(ApiKey::Produce, version, &produce(TOPIC, id, version, -1, records)).await).0
    };
    for cut in [0, 10, 40, 61, whole.len() - 1] {
        assert_eq!(ask(whole.slice(..cut), 9, id).await, INVALID_RECORD, "{cut} bytes");
    }
    let mut damaged = whole.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(ask(damaged.into(), 9, id).await, CORRUPT_MESSAGE);
    let mut short = whole.to_vec();
    short[8..12].copy_from_slice(&40_i32.to_be_bytes());
    assert_eq!(ask(short.into(), 9, id).await, CORRUPT_MESSAGE);
    let mut placed = whole.to_vec();
    placed[7] = 7;
    assert_eq!(ask(placed.into(), 9, id).await, INVALID_RECORD, "offsets are the broker's to give");
    assert_eq!(ask(whole.clone(), 13, Uuid::nil()).await, UNKNOWN_ID);
    let mut open = BatchBuilder::new().producer(1, 0, 0).transactional();
    open.push(0, None, Some(b"v"), &[]);
    assert_eq!(ask(open.build().unwrap().freeze(), 9, id).await, NOT_OF_THE_ID, "no transactional id came with it");
    assert_eq!(ask(whole, 13, id).await, 0);
    served.end().await;
}

async fn listed(wire: &mut Wire, version: i16, partitions: Vec<ListOffsetsPartition>) -> Vec<i16> {
    let topic = ListOffsetsTopic::default().with_name(name(TOPIC)).with_partitions(partitions);
    let request = RequestKind::ListOffsets(ListOffsetsRequest::default().with_topics(vec![topic]));
    let ResponseKind::ListOffsets(answer) = wire.ask(ApiKey::ListOffsets, version, &request).await else { panic!() };
    answer.topics[0].partitions.iter().map(|partition| partition.error_code).collect()
}

#[tokio::test]
async fn a_time_that_stands_for_something_is_known_from_its_version_on() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let at = |timestamp| ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
    for (timestamp, first) in [(-3, 7), (-4, 8), (-5, 9)] {
        let before = listed(&mut wire, first - 1, vec![at(timestamp)]).await;
        assert_eq!(before, [UNSUPPORTED_VERSION], "{timestamp}");
        assert_eq!(listed(&mut wire, first, vec![at(timestamp)]).await, [0], "{timestamp}");
    }
    for timestamp in [-6, i64::MIN] {
        assert_eq!(listed(&mut wire, 10, vec![at(timestamp)]).await, [UNSUPPORTED_VERSION], "{timestamp}");
    }
    assert_eq!(listed(&mut wire, 10, vec![at(-1), at(-2)]).await, [INVALID_REQUEST; 2], "named twice");
    let fenced = at(-1).with_current_leader_epoch(-2);
    assert_eq!(listed(&mut wire, 10, vec![fenced]).await, [FENCED_EPOCH]);
    served.end().await;
}

/// The id that the broker has among brokers.
async fn own_id(wire: &mut Wire) -> i32 {
    let request = RequestKind::DescribeCluster(DescribeClusterRequest::default());
    let answer = wire.ask(ApiKey::DescribeCluster, 0, &request).await;
    let ResponseKind::DescribeCluster(answer) = answer else { panic!() };
    answer.brokers[0].broker_id.0
}

async fn create(wire: &mut Wire, topic: CreatableTopic) -> i16 {
    let request = RequestKind::CreateTopics(CreateTopicsRequest::default().with_topics(vec![topic]));
    let ResponseKind::CreateTopics(answer) = wire.ask(ApiKey::CreateTopics, 7, &request).await else { panic!() };
    answer.topics[0].error_code
}

#[tokio::test]
async fn copies_are_assigned_to_brokers_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let own = own_id(&mut wire).await;
    let assigned = |ids: &[i32], partitions| {
        let ids = ids.iter().map(|id| BrokerId(*id)).collect();
        let assignment = CreatableReplicaAssignment::default().with_partition_index(0).with_broker_ids(ids);
        let topic = CreatableTopic::default().with_name(name("assigned")).with_num_partitions(partitions);
        topic.with_replication_factor(-1).with_assignments(vec![assignment])
    };
    assert_eq!(create(&mut wire, assigned(&[own + 1], -1)).await, INVALID_ASSIGNMENT);
    assert_eq!(create(&mut wire, assigned(&[], -1)).await, INVALID_ASSIGNMENT);
    assert_eq!(create(&mut wire, assigned(&[own], 1)).await, INVALID_REQUEST, "how many there are is said twice");
    assert_eq!(create(&mut wire, assigned(&[own], -1)).await, 0);
    let mut grow = async |ids: &[i32]| {
        let ids = ids.iter().map(|id| BrokerId(*id)).collect();
        let assignment = CreatePartitionsAssignment::default().with_broker_ids(ids);
        let topic = CreatePartitionsTopic::default().with_name(name("assigned")).with_count(2);
        let request =
            CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(Some(vec![assignment]))]);
        let answer = wire.ask(ApiKey::CreatePartitions, 3, &RequestKind::CreatePartitions(request)).await;
        let ResponseKind::CreatePartitions(answer) = answer else { panic!() };
        answer.results[0].error_code
    };
    assert_eq!(grow(&[own + 1]).await, INVALID_ASSIGNMENT);
    assert_eq!(grow(&[0]).await, 0, "it is alone");
    served.end().await;
}

#[tokio::test]
async fn names_that_metrics_do_not_tell_apart_are_not_both_given_but_to_cairn() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let topic = |topic: &str| {
        CreatableTopic::default().with_name(name(topic)).with_num_partitions(1).with_replication_factor(1)
    };
    assert_eq!(create(&mut wire, topic("of_a.kind")).await, 0);
    assert_eq!(create(&mut wire, topic("of.a_kind")).await, INVALID_TOPIC);
    assert_eq!(create(&mut wire, topic("of-a.kind")).await, 0, "a dash is a dash");
    let spec = TopicSpec { name: "of.a.kind".into(), ..TopicSpec::default() };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
    served.end().await;
}

#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let state = || DeleteTopicState::default().with_name(None);
    let named = || state().with_name(Some(name(TOPIC)));
    let mut delete = async |topics: Vec<DeleteTopicState>| {
        let request = RequestKind::DeleteTopics(DeleteTopicsRequest::default().with_topics(topics));
        let ResponseKind::DeleteTopics(answer) = wire.ask(ApiKey::DeleteTopics, 6, &request).await else { panic!() };
        answer.responses.iter().map(|topic| topic.error_code).collect::<Vec<_>>()
    };
    assert_eq!(delete(vec![named().with_topic_id(id)]).await, [INVALID_REQUEST]);
    assert_eq!(delete(vec![state()]).await, [INVALID_REQUEST]);
    assert_eq!(delete(vec![named(), state().with_topic_id(id)]).await, [INVALID_REQUEST], "it is one topic");
    assert!(served.broker.topic(TOPIC).is_some());
    let alter = |configs: &[(&str, Option<&str>)]| {
        let configs = configs
            .iter()
            .map(|(key, value)| AlterableConfig::default().with_name(text(key)).with_value(value.map(text)));
        let resource = AlterConfigsResource::default().with_resource_type(TOPIC_RESOURCE);
        let resource = resource.with_resource_name(text(TOPIC)).with_configs(configs.collect());
        RequestKind::AlterConfigs(AlterConfigsRequest::default().with_resources(vec![resource]))
    };
    for configs in [&[("retention.ms", None)][..], &[("retention.ms", Some("1")), ("retention.ms", Some("2"))]] {
        let answer = wire.ask(ApiKey::AlterConfigs, 2, &alter(configs)).await;
        let ResponseKind::AlterConfigs(answer) = answer else { panic!() };
        assert_eq!(answer.responses[0].error_code, INVALID_REQUEST);
    }
    served.end().await;
}

#[tokio::test]
async fn no_names_of_configs_are_all_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let mut ask = async |topic: &str| {
        let resource = DescribeConfigsResource::default().with_resource_type(TOPIC_RESOURCE);
        let resource = resource.with_resource_name(text(topic)).with_configuration_keys(Some(Vec::new()));
        let request = RequestKind::DescribeConfigs(DescribeConfigsRequest::default().with_resources(vec![resource]));
        let answer = wire.ask(ApiKey::DescribeConfigs, 4, &request).await;
        let ResponseKind::DescribeConfigs(answer) = answer else { panic!() };
        (answer.results[0].error_code, answer.results[0].configs.len() > 20)
    };
    assert_eq!(ask(TOPIC).await, (0, true));
    assert_eq!(ask("no/name").await, (INVALID_TOPIC, false));
    served.end().await;
}

#[tokio::test]
async fn nobody_is_in_a_group_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let member = MemberIdentity::default().with_member_id(text("m"));
    let request = LeaveGroupRequest::default().with_group_id(text("g").into()).with_members(vec![member]);
    let answer = wire.ask(ApiKey::LeaveGroup, 5, &RequestKind::LeaveGroup(request)).await;
    let ResponseKind::LeaveGroup(answer) = answer else { panic!() };
    assert_eq!((answer.error_code, answer.members[0].error_code), (0, UNKNOWN_MEMBER));
    let request = SyncGroupRequest::default().with_group_id(text("g").into()).with_member_id(text("m"));
    let answer = wire.ask(ApiKey::SyncGroup, 5, &RequestKind::SyncGroup(request)).await;
    let ResponseKind::SyncGroup(answer) = answer else { panic!() };
    assert_eq!(answer.error_code, INCONSISTENT_PROTOCOL, "it names no protocol");
    served.end().await;
}

#[tokio::test]
async fn a_client_says_what_it_is_in_letters_and_digits() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    for (software, is_right) in
        [("a-client.of-ours", true), ("", false), ("a client", false), ("-a", false), ("a/b", false)]
    {
        let request = ApiVersionsRequest::default().with_client_software_name(text(software));
        let request = request.with_client_software_version(text("1.0-rc"));
        let answer = wire.ask(ApiKey::ApiVersions, 3, &RequestKind::ApiVersions(request)).await;
        let ResponseKind::ApiVersions(answer) = answer else { panic!() };
        assert_eq!(answer.error_code, if is_right { 0 } else { INVALID_REQUEST }, "{software}");
    }
    served.end().await;
}
