//! The protocol as bytes: every version that is offered is answered, and hostile bytes are refused.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "protocol/acls.rs"]
mod acls;
#[path = "protocol/admin.rs"]
mod admin;
#[path = "protocol/bounds.rs"]
mod bounds;
#[path = "protocol/clocks.rs"]
mod clocks;
#[path = "protocol/configs.rs"]
mod configs;
#[path = "protocol/consumer_groups.rs"]
mod consumer_groups;
#[path = "protocol/describing.rs"]
mod describing;
#[path = "protocol/forgetting.rs"]
mod forgetting;
#[path = "protocol/isolation.rs"]
mod isolation;
#[path = "protocol/keeping.rs"]
mod keeping;
#[path = "protocol/logins.rs"]
mod logins;
#[path = "protocol/packing.rs"]
mod packing;
#[path = "protocol/quotas.rs"]
mod quotas;
#[path = "protocol/refusals.rs"]
mod refusals;
#[path = "protocol/replicas.rs"]
mod replicas;
#[path = "protocol/semantics.rs"]
mod semantics;
#[path = "protocol/sessions.rs"]
mod sessions;
#[path = "protocol/shares.rs"]
mod shares;
mod support;
#[path = "protocol/telemetry.rs"]
mod telemetry;
#[path = "protocol/times.rs"]
mod times;
#[path = "protocol/tokens.rs"]
mod tokens;
#[path = "protocol/told_brokers.rs"]
mod told_brokers;
#[path = "protocol/transactions.rs"]
mod transactions;
#[path = "protocol/versions.rs"]
mod versions;

use std::{ops::RangeInclusive, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use cairn_broker::{BrokerOptions, Port, Principal, SecretHash, TopicSpec, User, batch::BatchBuilder};
use cairn_log::{Offset, PartitionIndex};
use kafka_protocol::{
    messages::{
        ApiKey, ApiVersionsRequest, CreateTopicsRequest, DeleteGroupsRequest, DeleteTopicsRequest,
        DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest, FetchRequest, FindCoordinatorRequest,
        HeartbeatRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest, ListGroupsRequest,
        ListOffsetsRequest, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest,
        ProduceRequest, RequestKind, ResponseKind, SaslAuthenticateRequest, SaslHandshakeRequest, SyncGroupRequest,
        TopicName,
        create_topics_request::CreatableTopic,
        delete_acls_request::DeleteAclsFilter,
        delete_topics_request::DeleteTopicState,
        describe_configs_request::DescribeConfigsResource,
        fetch_request::{FetchPartition, FetchTopic},
        join_group_request::JoinGroupRequestProtocol,
        leave_group_request::MemberIdentity,
        list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
        metadata_request::MetadataRequestTopic,
        offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
    protocol::StrBytes,
};
use support::{Served, Wire, quick};
use uuid::Uuid;

const TOPIC: &str = "orders";
const PATIENCE: Duration = Duration::from_secs(30);

fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

fn name(value: &str) -> TopicName {
    text(value).into()
}

fn batch(values: &[&str]) -> BytesMut {
    let mut builder = BatchBuilder::new();
    for (at, value) in values.iter().enumerate() {
        builder.push(1_000 + at as i64, Some(b"k"), Some(value.as_bytes()), &[]);
    }
    builder.build().unwrap()
}

fn produce(topic: &str, id: Uuid, version: i16, acks: i16, records: Bytes) -> RequestKind {
    let partition = PartitionProduceData::default().with_index(0).with_records(Some(records));
    let data = TopicProduceData::default().with_partition_data(vec![partition]);
    let data = if version >= 13 { data.with_topic_id(id) } else { data.with_name(name(topic)) };
    RequestKind::Produce(ProduceRequest::default().with_acks(acks).with_timeout_ms(1_000).with_topic_data(vec![data]))
}

fn fetch(topic: &str, id: Uuid, version: i16, from: i64, wait_ms: i32) -> RequestKind {
    let partition =
        FetchPartition::default().with_partition(0).with_fetch_offset(from).with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default().with_partitions(vec![partition]);
    let wanted = if version >= 13 { wanted.with_topic_id(id) } else { wanted.with_topic(name(topic)) };
    let request = FetchRequest::default().with_max_wait_ms(wait_ms).with_min_bytes(1).with_max_bytes(1 << 20);
    RequestKind::Fetch(request.with_session_epoch(-1).with_topics(vec![wanted]))
}

fn produced(response: ResponseKind) -> (i16, i64) {
    let ResponseKind::Produce(response) = response else { panic!("not Produce") };
    let partition = &response.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}

async fn start(folder: &std::path::Path) -> (Served, Uuid) {
    start_with(folder, quick()).await
}

/// A broker with one topic.
async fn start_with(folder: &std::path::Path, options: BrokerOptions) -> (Served, Uuid) {
    let served = Served::start(folder, options).await;
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(1), ..TopicSpec::default() };
    let id = served.broker.create_topic(&Principal::Internal, spec).await.unwrap().id;
    (served, id)
}

/// The requests that are offered, with their versions.
async fn all_offered(served: &Served) -> Vec<(ApiKey, RangeInclusive<i16>)> {
    let mut wire = Wire::connect(served).await;
    let request = RequestKind::ApiVersions(ApiVersionsRequest::default());
    let ResponseKind::ApiVersions(offered) = wire.ask(ApiKey::ApiVersions, 0, &request).await else { panic!() };
    let all = offered.api_keys.iter();
    all.map(|api| (ApiKey::try_from(api.api_key).unwrap(), api.min_version..=api.max_version)).collect()
}

fn samples(key: ApiKey, version: i16, id: Uuid) -> RequestKind {
    match key {
        ApiKey::Produce => produce(TOPIC, id, version, -1, batch(&["v"]).freeze()),
        ApiKey::Fetch => fetch(TOPIC, id, version, 0, 0),
        ApiKey::ListOffsets => {
            let partitions = [-1, -2, -3, -6, 0].map(|at| ListOffsetsPartition::default().with_timestamp(at)).to_vec();
            let topic = ListOffsetsTopic::default().with_name(name(TOPIC)).with_partitions(partitions);
            RequestKind::ListOffsets(ListOffsetsRequest::default().with_topics(vec![topic]))
        }
        ApiKey::Metadata => {
            let topics =
                [TOPIC, "mcp.calls", "new.one"].map(|n| MetadataRequestTopic::default().with_name(Some(name(n))));
            RequestKind::Metadata(MetadataRequest::default().with_topics(Some(topics.to_vec())))
        }
        ApiKey::OffsetCommit => {
            let partition = OffsetCommitRequestPartition::default().with_committed_offset(3);
            let partition = partition.with_committed_metadata(Some(text("note")));
            let topic = OffsetCommitRequestTopic::default().with_name(name(TOPIC)).with_partitions(vec![partition]);
            let topic = topic.with_topic_id(if version >= 10 { id } else { Uuid::nil() });
            let request = OffsetCommitRequest::default().with_group_id(text("alone").into());
            RequestKind::OffsetCommit(request.with_generation_id_or_member_epoch(-1).with_topics(vec![topic]))
        }
        ApiKey::OffsetFetch if version >= 8 => {
            let topic = OffsetFetchRequestTopics::default().with_name(name(TOPIC)).with_partition_indexes(vec![0, 5]);
            let topic = topic.with_topic_id(if version >= 10 { id } else { Uuid::nil() });
            let named = OffsetFetchRequestGroup::default().with_group_id(text("alone").into());
            let all = named.clone().with_topics(None);
            RequestKind::OffsetFetch(
                OffsetFetchRequest::default().with_groups(vec![named.with_topics(Some(vec![topic])), all]),
            )
        }
        ApiKey::OffsetFetch => {
            let topic = OffsetFetchRequestTopic::default().with_name(name(TOPIC)).with_partition_indexes(vec![0, 5]);
            let request = OffsetFetchRequest::default().with_group_id(text("alone").into());
            RequestKind::OffsetFetch(request.with_topics(Some(vec![topic])))
        }
        ApiKey::FindCoordinator if version >= 4 => {
            RequestKind::FindCoordinator(FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]))
        }
        ApiKey::FindCoordinator => RequestKind::FindCoordinator(FindCoordinatorRequest::default().with_key(text("g"))),
        ApiKey::JoinGroup => {
            let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
            let request = JoinGroupRequest::default().with_group_id(text(&format!("g{version}")).into());
            let request = request.with_session_timeout_ms(10_000).with_protocol_type(text("consumer"));
            let request = if version >= 1 { request.with_rebalance_timeout_ms(10_000) } else { request };
            let request = if version >= 5 { request.with_group_instance_id(Some(text("one"))) } else { request };
            // From version 4 on a stranger learns its id; a static one joins at once.
            RequestKind::JoinGroup(request.with_protocols(vec![protocol]))
        }
        ApiKey::SyncGroup => RequestKind::SyncGroup(SyncGroupRequest::default().with_group_id(text("g0").into())),
        ApiKey::Heartbeat => RequestKind::Heartbeat(HeartbeatRequest::default().with_group_id(text("g0").into())),
        ApiKey::LeaveGroup if version >= 3 => {
            let member = MemberIdentity::default().with_group_instance_id(Some(text("nobody")));
            RequestKind::LeaveGroup(
                LeaveGroupRequest::default().with_group_id(text("g0").into()).with_members(vec![member]),
            )
        }
        ApiKey::LeaveGroup => RequestKind::LeaveGroup(LeaveGroupRequest::default().with_group_id(text("g0").into())),
        ApiKey::DescribeGroups => {
            let groups = ["g0", "alone", "nobody"].map(|g| text(g).into()).to_vec();
            RequestKind::DescribeGroups(DescribeGroupsRequest::default().with_groups(groups))
        }
        ApiKey::ListGroups => RequestKind::ListGroups(ListGroupsRequest::default()),
        ApiKey::SaslHandshake => {
            RequestKind::SaslHandshake(SaslHandshakeRequest::default().with_mechanism(text("SCRAM-SHA-512")))
        }
        ApiKey::ApiVersions => {
            let named = |request: ApiVersionsRequest| {
                request.with_client_software_name(text("t")).with_client_software_version(text("1"))
            };
            let request = ApiVersionsRequest::default();
            RequestKind::ApiVersions(if version >= 3 { named(request) } else { request })
        }
        ApiKey::CreateTopics => {
            let topics = [("made", -1_i16), ("mcp.made", 3), ("bad name", 1)].map(|(topic, factor)| {
                let topic = CreatableTopic::default().with_name(name(&format!("{topic}-{version}")));
                topic.with_num_partitions(2).with_replication_factor(factor)
            });
            RequestKind::CreateTopics(CreateTopicsRequest::default().with_topics(topics.to_vec()))
        }
        ApiKey::DeleteTopics if version >= 6 => {
            let by_name = DeleteTopicState::default().with_name(Some(name("made-7")));
            let by_id = DeleteTopicState::default().with_name(None).with_topic_id(Uuid::from_u128(1));
            RequestKind::DeleteTopics(DeleteTopicsRequest::default().with_topics(vec![by_name, by_id]))
        }
        ApiKey::DeleteTopics => {
            let names = vec![name(&format!("made-{version}")), name("never")];
            RequestKind::DeleteTopics(DeleteTopicsRequest::default().with_topic_names(names))
        }
        ApiKey::InitProducerId => {
            RequestKind::InitProducerId(InitProducerIdRequest::default().with_transactional_id(None))
        }
        ApiKey::OffsetForLeaderEpoch => {
            let partitions = [0, 9].map(|at| OffsetForLeaderPartition::default().with_partition(at)).to_vec();
            let topic = OffsetForLeaderTopic::default().with_topic(name(TOPIC)).with_partitions(partitions);
            RequestKind::OffsetForLeaderEpoch(OffsetForLeaderEpochRequest::default().with_topics(vec![topic]))
        }
        ApiKey::DescribeConfigs => {
            let topic = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text(TOPIC));
            let broker = DescribeConfigsResource::default().with_resource_type(4).with_resource_name(text("1"));
            let resources = vec![topic.with_configuration_keys(None), broker.with_configuration_keys(None)];
            let request = DescribeConfigsRequest::default().with_resources(resources);
            RequestKind::DescribeConfigs(request.with_include_synonyms(true))
        }
        ApiKey::SaslAuthenticate => RequestKind::SaslAuthenticate(SaslAuthenticateRequest::default()),
        ApiKey::DescribeAcls => acls::description(Some("t"), 2),
        ApiKey::CreateAcls => {
            acls::creation(vec![acls::rule(acls::CLUSTER, 3, "kafka-cluster", acls::WRITE, acls::ALLOW)])
        }
        ApiKey::DeleteAcls => {
            let filter = DeleteAclsFilter::default().with_resource_type_filter(acls::TOPICS).with_operation(1);
            let filter = filter.with_resource_name_filter(Some(text("nothing"))).with_pattern_type_filter(1);
            acls::deletion(vec![filter.with_permission_type(1)])
        }
        ApiKey::DescribeUserScramCredentials => logins::describe(&["somebody"]),
        ApiKey::AlterUserScramCredentials => logins::change(),
        ApiKey::DescribeCluster => RequestKind::DescribeCluster(DescribeClusterRequest::default()),
        ApiKey::DeleteRecords => admin::delete_records(TOPIC, 0, 0),
        ApiKey::CreatePartitions => admin::partitions(TOPIC, 7, true),
        ApiKey::AlterConfigs => admin::replace(TOPIC, &[("retention.ms", "3600000")], true),
        ApiKey::IncrementalAlterConfigs => admin::alter(TOPIC, &[("retention.ms", 0, Some("3600000"))], true),
        ApiKey::ConsumerGroupHeartbeat => consumer_groups::joins(&format!("new{version}"), "m", &[TOPIC]),
        ApiKey::ConsumerGroupDescribe => consumer_groups::describe(&["new0", "g0", "nobody"]),
        ApiKey::ShareGroupHeartbeat => shares::joins("share", "m", &[TOPIC]),
        ApiKey::ShareGroupDescribe => shares::describe(&["share", "g0", "nobody"]),
        ApiKey::ShareFetch => shares::opens("share", "m", id),
        ApiKey::ShareAcknowledge => shares::acknowledges("share", "m", id),
        ApiKey::DescribeShareGroupOffsets => shares::offsets("share", Some(&[TOPIC])),
        ApiKey::AlterShareGroupOffsets => shares::moves("moved", &[(TOPIC, 0, 0)]),
        ApiKey::DeleteShareGroupOffsets => shares::forgets("moved", &[TOPIC]),
        ApiKey::DeleteGroups => {
            RequestKind::DeleteGroups(DeleteGroupsRequest::default().with_groups_names(vec![text("nobody").into()]))
        }
        ApiKey::GetTelemetrySubscriptions => telemetry::asking(Uuid::nil()),
        ApiKey::PushTelemetry => telemetry::pushing(Uuid::from_u128(7), 1, 0, Bytes::new()),
        ApiKey::OffsetDelete => forgetting::delete("alone", &[(TOPIC, &[0])]),
        ApiKey::DescribeLogDirs => describing::log_dirs(None),
        ApiKey::ElectLeaders => replicas::elects(0, Some((TOPIC, &[0]))),
        ApiKey::AlterPartitionReassignments => replicas::reassigns(TOPIC, &[Some(&[1]), None]),
        ApiKey::ListPartitionReassignments => replicas::lists(None),
        ApiKey::AlterReplicaLogDirs => replicas::moves("elsewhere", TOPIC, &[0]),
        ApiKey::ListConfigResources => describing::resources(&[]),
        ApiKey::DescribeTopicPartitions => describing::partitions(&[TOPIC], 10, None),
        ApiKey::DescribeClientQuotas => quotas::describe(&[("user", 2, None)], false),
        ApiKey::AlterClientQuotas => quotas::alter(&[("user", None)], &[("producer_byte_rate", Some(5.0))], true),
        ApiKey::AddPartitionsToTxn
        | ApiKey::AddOffsetsToTxn
        | ApiKey::EndTxn
        | ApiKey::TxnOffsetCommit
        | ApiKey::WriteTxnMarkers
        | ApiKey::DescribeProducers
        | ApiKey::DescribeTransactions
        | ApiKey::ListTransactions => transactions::sample(key, version, id),
        other => panic!("{other:?} is offered and has no sample"),
    }
}

/// The same requests for what there is not, where that takes another way through the code.
fn refusals(key: ApiKey, version: i16) -> Option<RequestKind> {
    let nothing = Uuid::from_u128(9);
    Some(match key {
        ApiKey::Produce => produce("none", nothing, version, -1, batch(&["v"]).freeze()),
        ApiKey::Fetch => fetch("none", nothing, version, 0, 0),
        ApiKey::ListOffsets => {
            let partitions = vec![ListOffsetsPartition::default()];
            let topic = ListOffsetsTopic::default().with_name(name("none")).with_partitions(partitions);
            RequestKind::ListOffsets(ListOffsetsRequest::default().with_topics(vec![topic]))
        }
        ApiKey::Metadata if version >= 12 => {
            let topic = MetadataRequestTopic::default().with_name(None).with_topic_id(nothing);
            RequestKind::Metadata(MetadataRequest::default().with_topics(Some(vec![topic])))
        }
        ApiKey::Metadata if version >= 1 => RequestKind::Metadata(MetadataRequest::default().with_topics(None)),
        ApiKey::FindCoordinator if version >= 4 => {
            let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("t")]);
            RequestKind::FindCoordinator(request.with_key_type(1))
        }
        ApiKey::FindCoordinator if version >= 1 => {
            RequestKind::FindCoordinator(FindCoordinatorRequest::default().with_key(text("t")).with_key_type(1))
        }
        ApiKey::JoinGroup => {
            let request = JoinGroupRequest::default().with_group_id(text("g").into()).with_member_id(text("x"));
            RequestKind::JoinGroup(request.with_session_timeout_ms(1))
        }
        ApiKey::InitProducerId => {
            RequestKind::InitProducerId(InitProducerIdRequest::default().with_transactional_id(Some(text("t").into())))
        }
        ApiKey::ConsumerGroupHeartbeat => consumer_groups::stays("new0", "m", 9, None),
        ApiKey::ShareGroupHeartbeat => shares::joins("", "", &[TOPIC]),
        ApiKey::ShareFetch => shares::opens("share", "m", nothing),
        ApiKey::DescribeShareGroupOffsets => shares::offsets("nobody", None),
        ApiKey::AlterShareGroupOffsets => shares::moves("moved", &[("none", 0, 0), (TOPIC, 7, 0), (TOPIC, 0, -7)]),
        ApiKey::DeleteShareGroupOffsets => shares::forgets("nobody", &["none"]),
        ApiKey::PushTelemetry => telemetry::pushing(Uuid::nil(), 1, 9, Bytes::from_static(b"x")),
        ApiKey::OffsetDelete => forgetting::delete("nobody", &[("none", &[0])]),
        ApiKey::DescribeLogDirs => describing::log_dirs(Some(&[("none", &[0])])),
        ApiKey::ElectLeaders if version >= 1 => replicas::elects(7, None),
        ApiKey::AlterPartitionReassignments => replicas::reassigns("none", &[Some(&[1, 2])]),
        ApiKey::ListPartitionReassignments => replicas::lists(Some("none")),
        ApiKey::AlterReplicaLogDirs => replicas::moves("", "none", &[-1]),
        ApiKey::ListConfigResources if version >= 1 => describing::resources(&[99]),
        ApiKey::DescribeTopicPartitions => describing::partitions(&["none"], -1, Some(("a", -7))),
        ApiKey::DescribeClientQuotas => quotas::describe(&[("planet", 0, Some("earth"))], false),
        ApiKey::AlterClientQuotas => quotas::alter(&[], &[("producer_byte_rate", Some(-5.0))], true),
        ApiKey::DeleteRecords => admin::delete_records("none", 0, 0),
        ApiKey::CreatePartitions => admin::partitions("none", 7, false),
        ApiKey::AlterConfigs => admin::replace("none", &[("retention.ms", "1")], false),
        ApiKey::IncrementalAlterConfigs => admin::alter("none", &[("retention.ms", 1, None)], false),
        ApiKey::DescribeConfigs => {
            let resource = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("none"));
            RequestKind::DescribeConfigs(DescribeConfigsRequest::default().with_resources(vec![resource]))
        }
        ApiKey::DescribeCluster if version >= 1 => {
            RequestKind::DescribeCluster(DescribeClusterRequest::default().with_endpoint_type(2))
        }
        ApiKey::SaslAuthenticate => {
            RequestKind::SaslAuthenticate(SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"x")))
        }
        ApiKey::CreateTopics => {
            let topic = CreatableTopic::default().with_name(name("x")).with_num_partitions(0);
            RequestKind::CreateTopics(CreateTopicsRequest::default().with_topics(vec![topic.clone(), topic]))
        }
        _ => return None,
    })
}

#[tokio::test]
async fn every_version_that_is_offered_is_answered() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let request = RequestKind::ApiVersions(ApiVersionsRequest::default());
    let ResponseKind::ApiVersions(offered) = wire.ask(ApiKey::ApiVersions, 0, &request).await else { panic!() };
    assert!(offered.api_keys.len() > 20);
    let mut unanswered = Vec::new();
    for api in offered.api_keys {
        let key = ApiKey::try_from(api.api_key).unwrap();
        let first = if key == ApiKey::Produce { 3 } else { api.min_version };
        for version in first..=api.max_version {
            let mut wire = Wire::connect(&served).await;
            for request in [Some(samples(key, version, id)), refusals(key, version)].into_iter().flatten() {
                wire.send(key, version, &request).await;
                let answer = tokio::time::timeout(PATIENCE, wire.receive(key, version)).await;
                if !matches!(answer, Ok(Some(_))) {
                    unanswered.push((key, version));
                    break;
                }
            }
        }
    }
    assert_eq!(unanswered, []);
    served.end().await;
}

#[tokio::test]
async fn an_unknown_version_of_api_versions_is_answered_with_those_we_know() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let mut body = BytesMut::new();
    body.put_i16(ApiKey::ApiVersions as i16);
    body.put_i16(99);
    body.put_i32(8);
    body.extend_from_slice(&[0, 1, b'x', 0, 9, 9, 9]);
    wire.send_raw(&body).await;
    let frame = wire.receive_raw().await.unwrap();
    assert_eq!(&frame[..6], &[0, 0, 0, 8, 0, 35]);
    served.end().await;
}

#[tokio::test]
async fn a_batch_of_sixty_one_bytes_that_asks_for_everything_is_refused_and_nobody_suffers() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let mut hostile = BytesMut::from(&batch(&["v"])[..61]);
    hostile[8..12].copy_from_slice(&49_i32.to_be_bytes());
    hostile[23..27].copy_from_slice(&(i32::MAX - 1).to_be_bytes());
    hostile[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    let crc = crc32c::crc32c(&hostile[21..]);
    hostile[17..21].copy_from_slice(&crc.to_be_bytes());
    let answer = wire.ask(ApiKey::Produce, 9, &produce(TOPIC, id, 9, -1, hostile.freeze())).await;
    assert_eq!(produced(answer), (87, -1));
    // Records of a message format of before Kafka 0.11 in a request that could carry batches.
    let mut old = batch(&["v"]);
    old[16] = 1;
    let answer = wire.ask(ApiKey::Produce, 9, &produce(TOPIC, id, 9, -1, old.freeze())).await;
    assert_eq!(produced(answer), (43, -1));
    let answer = wire.ask(ApiKey::Produce, 9, &produce(TOPIC, id, 9, -1, batch(&["v"]).freeze())).await;
    assert_eq!(produced(answer), (0, 0));
    served.end().await;
}

#[tokio::test]
async fn a_request_that_promises_more_than_it_holds_ends_its_connection_only() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut innocent = Wire::connect(&served).await;
    for body in [
        // Metadata version 1 with two billion topics.
        [&[0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff][..], &i32::MAX.to_be_bytes()].concat(),
        vec![0, 3],
        vec![0x7f, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
    ] {
        let mut wire = Wire::connect(&served).await;
        wire.send_raw(&body).await;
        assert!(tokio::time::timeout(PATIENCE, wire.receive_raw()).await.unwrap().is_none());
    }
    let mut wire = Wire::connect(&served).await;
    tokio::io::AsyncWriteExt::write_all(&mut wire.stream, &i32::MAX.to_be_bytes()).await.unwrap();
    assert!(tokio::time::timeout(PATIENCE, wire.receive_raw()).await.unwrap().is_none());
    innocent.ask(ApiKey::Metadata, 9, &samples(ApiKey::Metadata, 9, Uuid::nil())).await;
    served.end().await;
}

#[tokio::test]
async fn a_waiting_fetch_is_answered_when_data_is_durable_not_when_its_wait_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut reader = Wire::connect(&served).await;
    let mut writer = Wire::connect(&served).await;
    reader.send(ApiKey::Fetch, 12, &fetch(TOPIC, id, 12, 0, 60_000)).await;
    let broker = served.broker.clone();
    let hour = Duration::from_secs(3_600);
    let inside =
        tokio::spawn(async move { broker.fetch(TOPIC, PartitionIndex::new(0), Offset::new(0), 1 << 20, hour).await });
    writer.ask(ApiKey::Produce, 9, &produce(TOPIC, id, 9, -1, batch(&["v"]).freeze())).await;
    let answer = tokio::time::timeout(PATIENCE, reader.receive(ApiKey::Fetch, 12)).await.unwrap().unwrap();
    let ResponseKind::Fetch(answer) = answer else { panic!() };
    assert_eq!(answer.session_id, 0);
    assert!(!answer.responses[0].partitions[0].records.as_ref().unwrap().is_empty());
    let fetched = tokio::time::timeout(PATIENCE, inside).await.unwrap().unwrap().unwrap();
    assert_eq!((fetched.batches.len(), fetched.high_watermark.get()), (1, 1));
    served.end().await;
}

#[tokio::test]
async fn a_producer_without_acknowledgement_gets_none_and_its_batch_is_stored() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    wire.send(ApiKey::Produce, 9, &produce(TOPIC, id, 9, 0, batch(&["quiet"]).freeze())).await;
    let answer = wire.ask(ApiKey::Fetch, 12, &fetch(TOPIC, id, 12, 0, 60_000)).await;
    let ResponseKind::Fetch(answer) = answer else { panic!() };
    assert_eq!(answer.responses[0].partitions[0].high_watermark, 1);
    served.end().await;
}

#[tokio::test]
async fn pipelined_requests_are_stored_and_answered_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    for at in 0..40 {
        let value = format!("v{at}");
        wire.send(ApiKey::Produce, 9, &produce(TOPIC, id, 9, 1, batch(&[&value]).freeze())).await;
    }
    let mut correlations = Vec::new();
    for _ in 0..40 {
        let frame = wire.receive_raw().await.unwrap();
        correlations.push(i32::from_be_bytes(frame[..4].try_into().unwrap()));
    }
    assert!(correlations.is_sorted());
    let topic =
        served.broker.fetch(TOPIC, PartitionIndex::new(0), Offset::new(0), 1 << 20, Duration::ZERO).await.unwrap();
    let values: Vec<_> = topic
        .batches
        .iter()
        .flat_map(|bytes| cairn_broker::batch::decode(bytes, 1 << 20).unwrap())
        .map(|record| String::from_utf8(record.value.unwrap().to_vec()).unwrap())
        .collect();
    assert_eq!(values, (0..40).map(|at| format!("v{at}")).collect::<Vec<_>>());
    served.end().await;
}

#[tokio::test]
async fn a_port_for_some_answers_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    let user = |secret: &[u8]| User { secret: SecretHash::of([1; 16], secret), writes_protected: false };
    // The broker's own users do not come in by this port.
    options.users = [("gateway", user(b"s3cret"))].into_iter().collect();
    options.advertised = Some("elsewhere.example:1".parse().unwrap());
    let broker = support::open(folder.path(), options).await;
    let only = Some([("me", user(b"mine"))].into_iter().collect());
    let served = Served::serve_port(broker, Port { only, is_inner: true, ..Port::default() }).await;
    let id = Uuid::nil();
    for (token, comes_in) in [
        (None, false),
        (Some(&b"\0me\0wrong"[..]), false),
        (Some(b"\0gateway\0s3cret"), false),
        (Some(b"\0me\0mine"), true),
    ] {
        let mut wire = Wire::connect(&served).await;
        wire.ask(ApiKey::ApiVersions, 3, &samples(ApiKey::ApiVersions, 3, id)).await;
        if let Some(token) = token {
            let handshake = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
            wire.ask(ApiKey::SaslHandshake, 1, &RequestKind::SaslHandshake(handshake)).await;
            let token = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::copy_from_slice(token));
            wire.ask(ApiKey::SaslAuthenticate, 2, &RequestKind::SaslAuthenticate(token)).await;
        }
        wire.send(ApiKey::Metadata, 9, &samples(ApiKey::Metadata, 9, id)).await;
        let answer = wire.receive(ApiKey::Metadata, 9).await;
        assert_eq!(answer.is_some(), comes_in, "{token:?}");
        if let Some(ResponseKind::Metadata(answer)) = answer {
            assert_eq!(answer.brokers[0].port, i32::from(served.address.port()), "its own address");
        }
    }
    served.end().await;
}

#[tokio::test]
async fn only_a_writer_with_the_right_secret_may_touch_what_is_protected() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    let user = |secret: &[u8], writes_protected| User { secret: SecretHash::of([1; 16], secret), writes_protected };
    options.users = [("gateway", user(b"s3cret", true)), ("reader", user(b"other", false))].into_iter().collect();
    let served = Served::start(folder.path(), options).await;
    let spec = TopicSpec { name: "mcp.calls".into(), partitions: Some(1), ..TopicSpec::default() };
    let id = served.broker.create_topic(&Principal::Internal, spec).await.unwrap().id;
    for (token, code) in [
        (None, 29),
        (Some(&b"\0reader\0other"[..]), 29),
        (Some(b"\0gateway\0wrong"), 29),
        (Some(b"reader\0gateway\0s3cret"), 29),
        (Some(b"\0gateway\0s3cret"), 0),
    ] {
        let mut wire = Wire::connect(&served).await;
        if let Some(token) = token {
            let handshake = SaslHandshakeRequest::default().with_mechanism(text("PLAIN"));
            wire.ask(ApiKey::SaslHandshake, 1, &RequestKind::SaslHandshake(handshake)).await;
            let token = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::copy_from_slice(token));
            wire.ask(ApiKey::SaslAuthenticate, 2, &RequestKind::SaslAuthenticate(token)).await;
        }
        for version in [9, 13] {
            let request = produce("mcp.calls", id, version, -1, batch(&["v"]).freeze());
            assert_eq!(produced(wire.ask(ApiKey::Produce, version, &request).await).0, code, "{token:?}");
        }
        let made =
            CreatableTopic::default().with_name(name("mcp.more")).with_num_partitions(1).with_replication_factor(1);
        let made = CreateTopicsRequest::default().with_topics(vec![made]);
        let answer = wire.ask(ApiKey::CreateTopics, 7, &RequestKind::CreateTopics(made)).await;
        let ResponseKind::CreateTopics(answer) = answer else { panic!() };
        assert_eq!(answer.topics[0].error_code, code);
        for state in [
            DeleteTopicState::default().with_name(Some(name("mcp.calls"))),
            DeleteTopicState::default().with_name(None).with_topic_id(id),
        ] {
            let request = RequestKind::DeleteTopics(DeleteTopicsRequest::default().with_topics(vec![state]));
            let ResponseKind::DeleteTopics(answer) = wire.ask(ApiKey::DeleteTopics, 6, &request).await else {
                panic!()
            };
            assert_eq!(answer.responses[0].error_code, 29);
        }
        admin::may_not_change(&mut wire, "mcp.calls").await;
        if code != 0 {
            wire.ask(ApiKey::Metadata, 9, &samples(ApiKey::Metadata, 9, id)).await;
            let request = MetadataRequestTopic::default().with_name(Some(name("mcp.fresh")));
            let request =
                MetadataRequest::default().with_topics(Some(vec![request])).with_allow_auto_topic_creation(true);
            wire.ask(ApiKey::Metadata, 9, &RequestKind::Metadata(request)).await;
            assert_eq!(served.broker.topic("mcp.fresh"), None);
        }
    }
    assert!(served.broker.topic("mcp.calls").is_some());
    served.end().await;
}

#[tokio::test]
async fn a_producer_id_is_never_given_twice_not_even_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut given = std::collections::BTreeSet::new();
    for _ in 0..3 {
        let served = Served::start(folder.path(), quick()).await;
        let mut wire = Wire::connect(&served).await;
        for _ in 0..3 {
            let request = RequestKind::InitProducerId(InitProducerIdRequest::default().with_transactional_id(None));
            let ResponseKind::InitProducerId(answer) = wire.ask(ApiKey::InitProducerId, 4, &request).await else {
                panic!()
            };
            assert_eq!(answer.error_code, 0);
            assert!(given.insert(answer.producer_id.0), "{:?} was given before", answer.producer_id);
        }
        served.end().await;
    }
}
