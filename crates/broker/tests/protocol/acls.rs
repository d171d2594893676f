//! Access rules: who may do nothing learns nothing, each request needs exactly what Kafka says, and a rule counts at once.

use std::path::Path;

use bytes::BytesMut;
use cairn_broker::{Authorization, BrokerOptions, Principal, SecretHash, TopicSpec, User};
use kafka_protocol::{
    messages::{
        ApiKey, CreateAclsRequest, DeleteAclsRequest, DescribeAclsRequest, DescribeClusterRequest,
        DescribeGroupsRequest, ListGroupsRequest, MetadataRequest, OffsetFetchRequest, RequestHeader, RequestKind,
        ResponseKind, create_acls_request::AclCreation, delete_acls_request::DeleteAclsFilter,
        metadata_request::MetadataRequestTopic, offset_fetch_request::OffsetFetchRequestGroup,
    },
    protocol::{Encodable, StrBytes},
};
use uuid::Uuid;

use super::{
    PATIENCE, TOPIC, batch, consumer_groups, fetch, logins, name, produce, produced, samples, shares, start_with, text,
};
use crate::support::{Served, Wire, quick};

pub(super) const TOPICS: i8 = 2;
const GROUPS: i8 = 3;
pub(super) const CLUSTER: i8 = 4;
const TRANSACTIONS: i8 = 5;
const LITERAL: i8 = 3;
const PREFIXED: i8 = 4;
const READ: i8 = 3;
pub(super) const WRITE: i8 = 4;
const CREATE: i8 = 5;
const DELETE: i8 = 6;
const ALTER: i8 = 7;
const DESCRIBE: i8 = 8;
const CLUSTER_ACTION: i8 = 9;
const DESCRIBE_CONFIGS: i8 = 10;
const ALTER_CONFIGS: i8 = 11;
const IDEMPOTENT_WRITE: i8 = 12;
const DENY: i8 = 2;
pub(super) const ALLOW: i8 = 3;
/// The codes that say that somebody may not: topic, group, cluster, transactional id.
const DENIALS: [i16; 4] = [29, 30, 31, 53];

/// A broker with rules, one super user `root`, and `ada`, who is nobody in particular.
pub(super) fn ruled() -> BrokerOptions {
    let user = |secret: &[u8]| User { secret: SecretHash::of([1; 16], secret), writes_protected: false };
    let mut options = quick();
    options.users = [("root", user(b"root-secret")), ("ada", user(b"ada-secret"))].into_iter().collect();
    options.super_users = ["root".to_owned()].into();
    options.authorization = Authorization::Rules { everyone_if_none: false };
    options
}

async fn begin(folder: &Path) -> (Served, Uuid, Wire, Wire) {
    let (served, id) = start_with(folder, ruled()).await;
    let (root, ada) = (logins::root(&served).await, ada_of(&served).await);
    (served, id, root, ada)
}

async fn ada_of(served: &Served) -> Wire {
    let mut wire = Wire::connect(served).await;
    assert_eq!(logins::handshake(&mut wire, "PLAIN").await, 0);
    assert_eq!(logins::say(&mut wire, b"\0ada\0ada-secret").await.0, 0);
    wire
}

/// A rule for ada from anywhere.
pub(super) fn rule(kind: i8, pattern: i8, name: &str, operation: i8, effect: i8) -> AclCreation {
    AclCreation::default()
        .with_resource_type(kind)
        .with_resource_pattern_type(pattern)
        .with_resource_name(text(name))
        .with_principal(text("User:ada"))
        .with_host(text("*"))
        .with_operation(operation)
        .with_permission_type(effect)
}

fn allow(kind: i8, operation: i8) -> AclCreation {
    rule(kind, LITERAL, if kind == CLUSTER { "kafka-cluster" } else { "*" }, operation, ALLOW)
}

pub(super) fn creation(rules: Vec<AclCreation>) -> RequestKind {
    RequestKind::CreateAcls(CreateAclsRequest::default().with_creations(rules))
}

async fn create(wire: &mut Wire, rules: Vec<AclCreation>) -> Vec<i16> {
    let ResponseKind::CreateAcls(answer) = wire.ask(ApiKey::CreateAcls, 3, &creation(rules)).await else { panic!() };
    answer.results.iter().map(|result| result.error_code).collect()
}

async fn set(wire: &mut Wire, rules: Vec<AclCreation>) {
    assert!(create(wire, rules).await.iter().all(|code| *code == 0));
}

fn everything() -> DeleteAclsFilter {
    let filter = DeleteAclsFilter::default().with_resource_type_filter(1).with_pattern_type_filter(1);
    let filter = filter.with_resource_name_filter(None).with_principal_filter(None).with_host_filter(None);
    filter.with_operation(1).with_permission_type(1)
}

pub(super) fn deletion(filters: Vec<DeleteAclsFilter>) -> RequestKind {
    RequestKind::DeleteAcls(DeleteAclsRequest::default().with_filters(filters))
}

/// The names of the rules that went, for each filter.
async fn delete(wire: &mut Wire, filters: Vec<DeleteAclsFilter>) -> Vec<(i16, Vec<String>)> {
    let ResponseKind::DeleteAcls(answer) = wire.ask(ApiKey::DeleteAcls, 3, &deletion(filters)).await else { panic!() };
    let names = |rules: &[kafka_protocol::messages::delete_acls_response::DeleteAclsMatchingAcl]| {
        rules.iter().map(|rule| rule.resource_name.to_string()).collect()
    };
    answer.filter_results.iter().map(|result| (result.error_code, names(&result.matching_acls))).collect()
}

pub(super) fn description(name: Option<&str>, pattern: i8) -> RequestKind {
    let request = DescribeAclsRequest::default().with_resource_type_filter(1).with_pattern_type_filter(pattern);
    let request = request.with_resource_name_filter(name.map(text)).with_principal_filter(None);
    let request = request.with_host_filter(None).with_operation(1).with_permission_type(1);
    RequestKind::DescribeAcls(request)
}

/// Kind, name, pattern, and how many rules.
async fn described(wire: &mut Wire, name: Option<&str>, pattern: i8) -> (i16, Vec<(i8, String, i8, usize)>) {
    let answer = wire.ask(ApiKey::DescribeAcls, 3, &description(name, pattern)).await;
    let ResponseKind::DescribeAcls(answer) = answer else { panic!() };
    let all = answer.resources.iter();
    let all = all.map(|one| (one.resource_type, one.resource_name.to_string(), one.pattern_type, one.acls.len()));
    (answer.error_code, all.collect())
}

/// Every code in an answer.
fn codes(answer: &ResponseKind) -> Vec<i16> {
    match answer {
        ResponseKind::Produce(a) => {
            a.responses.iter().flat_map(|t| t.partition_responses.iter().map(|p| p.error_code)).collect()
        }
        ResponseKind::Fetch(a) => a.responses.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)).collect(),
        ResponseKind::ListOffsets(a) => {
            a.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)).collect()
        }
        ResponseKind::Metadata(a) => a.topics.iter().map(|t| t.error_code).collect(),
        ResponseKind::OffsetCommit(a) => {
            a.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)).collect()
        }
        ResponseKind::OffsetFetch(a) => {
            let topics = a.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code));
            let of_groups = a.groups.iter().flat_map(|g| &g.topics).flat_map(|t| &t.partitions).map(|p| p.error_code);
            let all = topics.chain(of_groups).chain(a.groups.iter().map(|g| g.error_code));
            all.chain([a.error_code]).collect()
        }
        ResponseKind::FindCoordinator(a) => a.coordinators.iter().map(|c| c.error_code).chain([a.error_code]).collect(),
        ResponseKind::JoinGroup(a) => vec![a.error_code],
        ResponseKind::SyncGroup(a) => vec![a.error_code],
        ResponseKind::Heartbeat(a) => vec![a.error_code],
        ResponseKind::LeaveGroup(a) => vec![a.error_code],
        ResponseKind::DescribeGroups(a) => a.groups.iter().map(|g| g.error_code).collect(),
        ResponseKind::DeleteGroups(a) => a.results.iter().map(|r| r.error_code).collect(),
        ResponseKind::CreateTopics(a) => a.topics.iter().map(|t| t.error_code).collect(),
        ResponseKind::DeleteTopics(a) => a.responses.iter().map(|t| t.error_code).collect(),
        ResponseKind::DeleteRecords(a) => {
            a.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)).collect()
        }
        ResponseKind::InitProducerId(a) => vec![a.error_code],
        ResponseKind::OffsetForLeaderEpoch(a) => {
            a.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)).collect()
        }
        ResponseKind::DescribeConfigs(a) => a.results.iter().map(|r| r.error_code).collect(),
        ResponseKind::AlterConfigs(a) => a.responses.iter().map(|r| r.error_code).collect(),
        ResponseKind::IncrementalAlterConfigs(a) => a.responses.iter().map(|r| r.error_code).collect(),
        ResponseKind::CreatePartitions(a) => a.results.iter().map(|r| r.error_code).collect(),
        ResponseKind::DescribeUserScramCredentials(a) => vec![a.error_code],
        ResponseKind::AlterUserScramCredentials(a) => a.results.iter().map(|r| r.error_code).collect(),
        ResponseKind::DescribeAcls(a) => vec![a.error_code],
        ResponseKind::CreateAcls(a) => a.results.iter().map(|r| r.error_code).collect(),
        ResponseKind::DeleteAcls(a) => a.filter_results.iter().map(|r| r.error_code).collect(),
        ResponseKind::ConsumerGroupHeartbeat(a) => vec![a.error_code],
        ResponseKind::ShareGroupHeartbeat(a) => vec![a.error_code],
        ResponseKind::ShareGroupDescribe(a) => a.groups.iter().map(|g| g.error_code).collect(),
        ResponseKind::ShareFetch(a) => {
            let partitions = a.responses.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code));
            partitions.chain([a.error_code]).collect()
        }
        ResponseKind::ShareAcknowledge(a) => vec![a.error_code],
        ResponseKind::DescribeShareGroupOffsets(a) => {
            let partitions = a.groups.iter().flat_map(|g| &g.topics).flat_map(|t| &t.partitions);
            partitions.map(|p| p.error_code).chain(a.groups.iter().map(|g| g.error_code)).collect()
        }
        ResponseKind::AlterShareGroupOffsets(a) => {
            let partitions = a.responses.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code));
            partitions.chain([a.error_code]).collect()
        }
        ResponseKind::DeleteShareGroupOffsets(a) => {
            a.responses.iter().map(|t| t.error_code).chain([a.error_code]).collect()
        }
        ResponseKind::ConsumerGroupDescribe(a) => a.groups.iter().map(|g| g.error_code).collect(),
        ResponseKind::AddPartitionsToTxn(a) => {
            let theirs = a.results_by_transaction.iter().flat_map(|one| &one.topic_results);
            let results = theirs.chain(&a.results_by_topic_v3_and_below).flat_map(|topic| &topic.results_by_partition);
            results.map(|one| one.partition_error_code).chain([a.error_code]).collect()
        }
        ResponseKind::AddOffsetsToTxn(a) => vec![a.error_code],
        ResponseKind::EndTxn(a) => vec![a.error_code],
        ResponseKind::TxnOffsetCommit(a) => {
            a.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)).collect()
        }
        ResponseKind::WriteTxnMarkers(a) => {
            let topics = a.markers.iter().flat_map(|marker| &marker.topics);
            topics.flat_map(|topic| topic.partitions.iter().map(|one| one.error_code)).collect()
        }
        ResponseKind::DescribeProducers(a) => {
            a.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)).collect()
        }
        ResponseKind::DescribeTransactions(a) => a.transaction_states.iter().map(|t| t.error_code).collect(),
        ResponseKind::OffsetDelete(a) => {
            let partitions = a.topics.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code));
            partitions.chain([a.error_code]).collect()
        }
        ResponseKind::DescribeLogDirs(a) => vec![a.error_code],
        ResponseKind::ElectLeaders(a) => {
            let topics = a.replica_election_results.iter();
            topics.flat_map(|t| t.partition_result.iter().map(|p| p.error_code)).chain([a.error_code]).collect()
        }
        ResponseKind::AlterPartitionReassignments(a) => vec![a.error_code],
        ResponseKind::ListPartitionReassignments(a) => vec![a.error_code],
        ResponseKind::AlterReplicaLogDirs(a) => {
            a.results.iter().flat_map(|t| t.partitions.iter().map(|p| p.error_code)).collect()
        }
        ResponseKind::ListConfigResources(a) => vec![a.error_code],
        ResponseKind::DescribeTopicPartitions(a) => a.topics.iter().map(|t| t.error_code).collect(),
        ResponseKind::DescribeClientQuotas(a) => vec![a.error_code],
        ResponseKind::AlterClientQuotas(a) => a.entries.iter().map(|e| e.error_code).collect(),
        _ => Vec::new(),
    }
}

/// What each request needs; all of it, and nothing else. A request that is newly offered belongs here, or where it needs nothing.
fn needs() -> Vec<(ApiKey, Vec<(i8, i8)>)> {
    vec![
        (ApiKey::Produce, vec![(TOPICS, WRITE)]),
        (ApiKey::Fetch, vec![(TOPICS, READ)]),
        (ApiKey::ListOffsets, vec![(TOPICS, DESCRIBE)]),
        (ApiKey::OffsetForLeaderEpoch, vec![(TOPICS, DESCRIBE)]),
        (ApiKey::OffsetCommit, vec![(GROUPS, READ), (TOPICS, READ)]),
        (ApiKey::OffsetFetch, vec![(GROUPS, DESCRIBE), (TOPICS, DESCRIBE)]),
        (ApiKey::FindCoordinator, vec![(GROUPS, DESCRIBE)]),
        (ApiKey::JoinGroup, vec![(GROUPS, READ)]),
        (ApiKey::SyncGroup, vec![(GROUPS, READ)]),
        (ApiKey::Heartbeat, vec![(GROUPS, READ)]),
        (ApiKey::LeaveGroup, vec![(GROUPS, READ)]),
        (ApiKey::DescribeGroups, vec![(GROUPS, DESCRIBE)]),
        (ApiKey::DeleteGroups, vec![(GROUPS, DELETE)]),
        (ApiKey::DeleteRecords, vec![(TOPICS, DELETE)]),
        (ApiKey::CreatePartitions, vec![(TOPICS, ALTER)]),
        (ApiKey::AlterConfigs, vec![(TOPICS, ALTER_CONFIGS)]),
        (ApiKey::IncrementalAlterConfigs, vec![(TOPICS, ALTER_CONFIGS)]),
        (ApiKey::DescribeConfigs, vec![(TOPICS, DESCRIBE_CONFIGS), (CLUSTER, DESCRIBE_CONFIGS)]),
        (ApiKey::InitProducerId, vec![(CLUSTER, IDEMPOTENT_WRITE)]),
        (ApiKey::DescribeUserScramCredentials, vec![(CLUSTER, DESCRIBE)]),
        (ApiKey::AlterUserScramCredentials, vec![(CLUSTER, ALTER)]),
        (ApiKey::DescribeAcls, vec![(CLUSTER, DESCRIBE)]),
        (ApiKey::CreateAcls, vec![(CLUSTER, ALTER)]),
        (ApiKey::DeleteAcls, vec![(CLUSTER, ALTER)]),
        (ApiKey::ConsumerGroupHeartbeat, vec![(GROUPS, READ), (TOPICS, DESCRIBE)]),
        (ApiKey::ConsumerGroupDescribe, vec![(GROUPS, DESCRIBE)]),
        (ApiKey::ShareGroupHeartbeat, vec![(GROUPS, READ), (TOPICS, DESCRIBE)]),
        (ApiKey::ShareGroupDescribe, vec![(GROUPS, DESCRIBE), (TOPICS, DESCRIBE)]),
        (ApiKey::ShareFetch, vec![(GROUPS, READ), (TOPICS, READ)]),
        (ApiKey::ShareAcknowledge, vec![(GROUPS, READ)]),
        (ApiKey::AlterShareGroupOffsets, vec![(GROUPS, READ), (TOPICS, READ)]),
        (ApiKey::DescribeShareGroupOffsets, vec![(GROUPS, DESCRIBE), (TOPICS, DESCRIBE)]),
        (ApiKey::DeleteShareGroupOffsets, vec![(GROUPS, DELETE), (TOPICS, READ)]),
        (ApiKey::AddPartitionsToTxn, vec![(CLUSTER, CLUSTER_ACTION)]),
        (ApiKey::AddOffsetsToTxn, vec![(TRANSACTIONS, WRITE), (GROUPS, READ)]),
        (ApiKey::EndTxn, vec![(TRANSACTIONS, WRITE)]),
        (ApiKey::TxnOffsetCommit, vec![(TRANSACTIONS, WRITE), (GROUPS, READ), (TOPICS, READ)]),
        (ApiKey::WriteTxnMarkers, vec![(CLUSTER, CLUSTER_ACTION)]),
        (ApiKey::DescribeProducers, vec![(TOPICS, READ)]),
        (ApiKey::DescribeTransactions, vec![(TRANSACTIONS, DESCRIBE)]),
        (ApiKey::OffsetDelete, vec![(GROUPS, DELETE), (TOPICS, READ)]),
        (ApiKey::DescribeLogDirs, vec![(CLUSTER, DESCRIBE)]),
        (ApiKey::ElectLeaders, vec![(CLUSTER, ALTER)]),
        (ApiKey::AlterPartitionReassignments, vec![(CLUSTER, ALTER)]),
        (ApiKey::ListPartitionReassignments, vec![(CLUSTER, DESCRIBE)]),
        (ApiKey::AlterReplicaLogDirs, vec![(CLUSTER, ALTER)]),
        (ApiKey::ListConfigResources, vec![(CLUSTER, DESCRIBE_CONFIGS)]),
        (ApiKey::DescribeTopicPartitions, vec![(TOPICS, DESCRIBE)]),
        (ApiKey::DescribeClientQuotas, vec![(CLUSTER, DESCRIBE_CONFIGS)]),
        (ApiKey::AlterClientQuotas, vec![(CLUSTER, ALTER_CONFIGS)]),
    ]
}

/// Those that need nothing, tell what may be seen, or have tests of their own here because topics of Cairn stay denied.
const OTHERS: &[ApiKey] = &[
    ApiKey::ApiVersions,
    ApiKey::SaslHandshake,
    ApiKey::SaslAuthenticate,
    ApiKey::DescribeCluster,
    ApiKey::ListGroups,
    ApiKey::ListTransactions,
    ApiKey::Metadata,
    ApiKey::CreateTopics,
    ApiKey::DeleteTopics,
    ApiKey::GetTelemetrySubscriptions,
    ApiKey::PushTelemetry,
];

#[tokio::test]
async fn each_request_needs_what_kafka_says_and_nothing_less() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id, mut root, mut ada) = begin(folder.path()).await;
    let offered = super::all_offered(&served).await;
    for (key, needed) in needs() {
        let version = *offered.iter().find(|(known, _)| *known == key).unwrap().1.end();
        let denied = async |wire: &mut Wire| {
            let answer = wire.ask(key, version, &samples(key, version, id)).await;
            codes(&answer).iter().any(|code| DENIALS.contains(code))
        };
        assert!(denied(&mut ada).await, "{key:?} without any rule");
        for left_out in 0..needed.len() {
            let some = needed.iter().enumerate().filter(|(at, _)| *at != left_out);
            set(&mut root, some.map(|(_, (kind, operation))| allow(*kind, *operation)).collect()).await;
            assert!(denied(&mut ada).await, "{key:?} without {:?}", needed[left_out]);
            delete(&mut root, vec![everything()]).await;
        }
        set(&mut root, needed.iter().map(|(kind, operation)| allow(*kind, *operation)).collect()).await;
        assert!(!denied(&mut ada).await, "{key:?} with all it needs");
        assert!(!denied(&mut root).await, "{key:?} by a super user");
        delete(&mut root, vec![everything()]).await;
    }
    served.end().await;
}

#[tokio::test]
async fn who_may_no_longer_read_a_topic_gets_nothing_more_of_it_in_a_share_session() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id, mut root, mut ada) = begin(folder.path()).await;
    set(&mut root, vec![allow(GROUPS, READ), allow(TOPICS, READ)]).await;
    let opened = ada.ask(ApiKey::ShareFetch, 2, &shares::opens("share", "m", id)).await;
    assert_eq!(codes(&opened), [0]);
    delete(&mut root, vec![everything()]).await;
    set(&mut root, vec![allow(GROUPS, READ)]).await;
    root.ask(ApiKey::Produce, 12, &produce(TOPIC, id, 12, -1, batch(&["v"]).freeze())).await;
    let refused = ada.ask(ApiKey::ShareFetch, 2, &shares::goes_on("share", "m")).await;
    assert_eq!(codes(&refused), [29, 0]);
    served.end().await;
}

#[tokio::test]
async fn every_request_is_in_one_of_the_lists_and_nobody_in_particular_is_denied_in_every_version() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id, _, _) = begin(folder.path()).await;
    let needs = needs();
    for (key, versions) in super::all_offered(&served).await {
        let is_judged = needs.iter().any(|(known, _)| *known == key);
        assert!(is_judged || OTHERS.contains(&key), "{key:?} is in no list");
        for version in versions.filter(|version| key != ApiKey::Produce || *version >= 3) {
            let mut wire = Wire::connect(&served).await;
            let answer = wire.ask(key, version, &samples(key, version, id)).await;
            let codes = codes(&answer);
            let all_denied = codes.iter().all(|code| DENIALS.contains(code) || *code == 0) && !codes.is_empty();
            let told = codes.iter().any(|code| DENIALS.contains(code));
            // Older answers of this one have no code: they are empty.
            let is_mute = key == ApiKey::DescribeLogDirs && version < 3;
            assert!(!is_judged || (all_denied && told != is_mute), "{key:?} {version}: {codes:?}");
        }
    }
    served.end().await;
}

/// The bytes of a request, with one name in place of another of that length.
fn frame(key: ApiKey, version: i16, request: &RequestKind, from: &str, to: &str) -> Vec<u8> {
    let header = RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(version);
    let header = header.with_correlation_id(3).with_client_id(Some(StrBytes::from_static_str("wire")));
    let mut body = BytesMut::new();
    header.encode(&mut body, key.request_header_version(version)).unwrap();
    crate::support::newer::encode(key, version, request, &mut body);
    replaced(&body, from, to)
}

fn replaced(bytes: &[u8], from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut bytes = bytes.to_vec();
    while from != to
        && let Some(at) = bytes.windows(from.len()).position(|window| window == from.as_bytes())
    {
        bytes[at..at + from.len()].copy_from_slice(to.as_bytes());
    }
    bytes
}

#[tokio::test]
async fn who_may_not_describe_a_topic_is_not_told_whether_it_is_there() {
    const NOT_THERE: &str = "ordres";
    let folder = tempfile::tempdir().unwrap();
    let (served, _, mut root, _) = begin(folder.path()).await;
    // Groups may be seen, so that answers get as far as topics.
    set(&mut root, vec![allow(GROUPS, READ).with_principal(text("User:*"))]).await;
    root.ask(ApiKey::OffsetCommit, 9, &samples(ApiKey::OffsetCommit, 9, Uuid::nil())).await;
    for (key, versions) in super::all_offered(&served).await {
        let without =
            [ApiKey::SaslAuthenticate, ApiKey::JoinGroup, ApiKey::GetTelemetrySubscriptions, ApiKey::PushTelemetry];
        if without.contains(&key) {
            continue; // no topics in them
        }
        for version in versions.filter(|version| key != ApiKey::Produce || *version >= 3) {
            let mut request = samples(key, version, Uuid::from_u128(1));
            if let RequestKind::Metadata(request) = &mut request
                && version >= 4
            {
                request.allow_auto_topic_creation = false; // else what may not be made is refused for that
            }
            let mut answers = Vec::new();
            for named in [TOPIC, NOT_THERE] {
                let mut wire = Wire::connect(&served).await;
                wire.send_raw(&frame(key, version, &request, TOPIC, named)).await;
                let answer = tokio::time::timeout(PATIENCE, wire.receive_raw()).await.unwrap().unwrap();
                answers.push(replaced(&answer, named, TOPIC));
            }
            assert_eq!(answers[0], answers[1], "{key:?} {version} tells topics that there are from others");
        }
    }
    assert!(served.broker.topic(NOT_THERE).is_none(), "nothing was made");
    served.end().await;
}

fn metadata(topics: Option<&[&str]>) -> RequestKind {
    let named = |topic: &&str| MetadataRequestTopic::default().with_name(Some(name(topic)));
    let request = MetadataRequest::default().with_topics(topics.map(|topics| topics.iter().map(named).collect()));
    let request = request.with_allow_auto_topic_creation(true).with_include_topic_authorized_operations(true);
    RequestKind::Metadata(request.with_include_cluster_authorized_operations(true))
}

/// Names, codes and operations of topics; and operations of the cluster.
async fn seen(wire: &mut Wire, topics: Option<&[&str]>) -> (Vec<(String, i16, i32)>, i32) {
    let ResponseKind::Metadata(answer) = wire.ask(ApiKey::Metadata, 8, &metadata(topics)).await else { panic!() };
    let told = |topic: &kafka_protocol::messages::metadata_response::MetadataResponseTopic| {
        let name = topic.name.as_ref().unwrap().to_string();
        (name, topic.error_code, topic.topic_authorized_operations)
    };
    let mut told: Vec<_> = answer.topics.iter().map(told).collect();
    told.sort();
    (told, answer.cluster_authorized_operations)
}

async fn make(served: &Served, topic: &str) {
    let spec = TopicSpec { name: topic.into(), partitions: Some(1), ..TopicSpec::default() };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
}

fn bits(operations: &[i8]) -> i32 {
    operations.iter().fold(0, |bits, operation| bits | 1 << operation)
}

#[tokio::test]
async fn everybody_sees_what_they_may_and_makes_what_they_may() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _, mut root, mut ada) = begin(folder.path()).await;
    make(&served, "sales.eu").await;
    make(&served, "sales").await;
    assert_eq!(seen(&mut ada, None).await, (vec![], 0));
    set(
        &mut root,
        vec![
            rule(TOPICS, PREFIXED, "sales.", WRITE, ALLOW),
            rule(TOPICS, LITERAL, "sales", DESCRIBE, ALLOW),
            rule(TOPICS, LITERAL, "new", CREATE, ALLOW),
            rule(CLUSTER, LITERAL, "kafka-cluster", DESCRIBE, ALLOW),
        ],
    )
    .await;
    let described = bits(&[DESCRIBE]);
    let both = vec![("sales".to_owned(), 0, described), ("sales.eu".to_owned(), 0, bits(&[WRITE, DESCRIBE]))];
    assert_eq!(seen(&mut ada, None).await, (both, described), "a prefix ends where it ends");
    let asked = seen(&mut ada, Some(&["new", "orders", "other", "sales.us"])).await.0;
    let codes: Vec<_> = asked.iter().map(|(name, code, _)| (name.as_str(), *code)).collect();
    assert_eq!(codes, [("new", 29), ("orders", 29), ("other", 29), ("sales.us", 29)]);
    assert!(served.broker.topic("new").is_none() && served.broker.topic("sales.us").is_none());
    set(&mut root, vec![rule(TOPICS, LITERAL, "new", DESCRIBE, ALLOW)]).await;
    assert_eq!(seen(&mut ada, Some(&["new"])).await.0[0].1, 0, "to make it, one must see it too");
    assert!(served.broker.topic("new").is_some());
    // Old versions take an empty list for all: what is refused must not become that.
    let old = MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(name("orders")))]));
    let ResponseKind::Metadata(old) = ada.ask(ApiKey::Metadata, 0, &RequestKind::Metadata(old)).await else { panic!() };
    assert_eq!(old.topics.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [29]);
    // All operations for a super user, and for everybody where there are no rules.
    let all = bits(&[READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS]);
    assert_eq!(seen(&mut root, Some(&["orders"])).await.0[0].2, all);
    let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(true);
    let request = RequestKind::DescribeCluster(request);
    let ResponseKind::DescribeCluster(answer) = ada.ask(ApiKey::DescribeCluster, 1, &request).await else { panic!() };
    assert_eq!(answer.cluster_authorized_operations, described);
    served.end().await;
}

#[tokio::test]
async fn groups_and_their_offsets_are_told_to_those_who_may_see_them() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id, mut root, mut ada) = begin(folder.path()).await;
    make(&served, "secret").await;
    root.ask(ApiKey::OffsetCommit, 9, &samples(ApiKey::OffsetCommit, 9, id)).await;
    let list = RequestKind::ListGroups(ListGroupsRequest::default());
    let groups = async |wire: &mut Wire| {
        let ResponseKind::ListGroups(answer) = wire.ask(ApiKey::ListGroups, 5, &list).await else { panic!() };
        answer.groups.iter().map(|group| group.group_id.to_string()).collect::<Vec<_>>()
    };
    let offsets = async |wire: &mut Wire| {
        let group = OffsetFetchRequestGroup::default().with_group_id(text("alone").into()).with_topics(None);
        let request = RequestKind::OffsetFetch(OffsetFetchRequest::default().with_groups(vec![group]));
        let ResponseKind::OffsetFetch(answer) = wire.ask(ApiKey::OffsetFetch, 9, &request).await else { panic!() };
        (answer.groups[0].error_code, answer.groups[0].topics.len())
    };
    assert_eq!((groups(&mut root).await, groups(&mut ada).await), (vec!["alone".to_owned()], vec![]));
    assert_eq!((offsets(&mut root).await, offsets(&mut ada).await), ((0, 1), (30, 0)));
    set(&mut root, vec![rule(GROUPS, LITERAL, "alone", READ, ALLOW)]).await;
    assert_eq!((groups(&mut ada).await, offsets(&mut ada).await), (vec!["alone".to_owned()], (0, 0)));
    set(&mut root, vec![rule(TOPICS, LITERAL, TOPIC, DESCRIBE, ALLOW)]).await;
    assert_eq!(offsets(&mut ada).await, (0, 1));
    let request = DescribeGroupsRequest::default().with_groups(vec![text("alone").into()]);
    let request = RequestKind::DescribeGroups(request.with_include_authorized_operations(true));
    let ResponseKind::DescribeGroups(answer) = ada.ask(ApiKey::DescribeGroups, 5, &request).await else { panic!() };
    assert_eq!(answer.groups[0].authorized_operations, bits(&[READ, DESCRIBE]));
    served.end().await;
}

async fn write(wire: &mut Wire, topic: &str) -> i16 {
    let request = produce(topic, Uuid::nil(), 9, -1, batch(&["v"]).freeze());
    produced(wire.ask(ApiKey::Produce, 9, &request).await).0
}

#[tokio::test]
async fn what_is_denied_is_denied_hosts_count_and_a_change_counts_for_open_connections() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _, mut root, mut ada) = begin(folder.path()).await;
    let anywhere = rule(TOPICS, PREFIXED, "ord", WRITE, ALLOW);
    set(&mut root, vec![anywhere.clone().with_host(text("10.9.9.9"))]).await;
    assert_eq!(write(&mut ada, TOPIC).await, 29, "allowed from elsewhere");
    set(&mut root, vec![anywhere.clone().with_host(text("127.0.0.1"))]).await;
    assert_eq!(write(&mut ada, TOPIC).await, 0);
    assert_eq!(write(&mut Wire::connect(&served).await, TOPIC).await, 29, "allowed for ada, not for anonymous");
    set(&mut root, vec![anywhere.clone().with_principal(text("User:*"))]).await;
    assert_eq!(write(&mut Wire::connect(&served).await, TOPIC).await, 0);
    let deny = rule(TOPICS, LITERAL, TOPIC, WRITE, DENY);
    set(&mut root, vec![deny.clone().with_host(text("10.9.9.9"))]).await;
    assert_eq!(write(&mut ada, TOPIC).await, 0, "denied from elsewhere");
    set(&mut root, vec![deny]).await;
    assert_eq!(write(&mut ada, TOPIC).await, 29, "denied, whatever allows it");
    assert_eq!(write(&mut root, TOPIC).await, 0, "a super user");
    drop((root, ada));
    served.end().await;
    // The rules outlive a restart.
    let (served, mut root, mut ada) = {
        let served = Served::start(folder.path(), ruled()).await;
        let (root, ada) = (logins::root(&served).await, ada_of(&served).await);
        (served, root, ada)
    };
    assert_eq!(write(&mut ada, TOPIC).await, 29);
    let denials = everything().with_permission_type(DENY);
    assert_eq!(delete(&mut root, vec![denials]).await, [(0, vec![TOPIC.to_owned(); 2])]);
    assert_eq!(write(&mut ada, TOPIC).await, 0);
    delete(&mut root, vec![everything()]).await;
    assert_eq!(described(&mut root, None, 1).await, (0, vec![]));
    assert_eq!(write(&mut ada, TOPIC).await, 29);
    served.end().await;
}

#[tokio::test]
async fn no_rule_lets_anybody_write_what_is_cairns() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _, mut root, mut ada) = begin(folder.path()).await;
    make(&served, "mcp.calls").await;
    set(&mut root, vec![allow(TOPICS, 2), allow(CLUSTER, 2)]).await;
    for wire in [&mut ada, &mut root] {
        assert_eq!(write(wire, "mcp.calls").await, 29);
        assert_eq!(write(wire, "mcp.other").await, 29);
        super::admin::may_not_change(wire, "mcp.calls").await;
    }
    served.end().await;
}

#[tokio::test]
async fn where_no_rule_is_about_something_the_configuration_decides() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = ruled();
    options.authorization = Authorization::Rules { everyone_if_none: true };
    let (served, _) = start_with(folder.path(), options).await;
    let (mut root, mut ada) = (logins::root(&served).await, ada_of(&served).await);
    assert_eq!(write(&mut ada, TOPIC).await, 0);
    set(&mut root, vec![rule(TOPICS, LITERAL, TOPIC, WRITE, ALLOW).with_principal(text("User:bob"))]).await;
    assert_eq!(write(&mut ada, TOPIC).await, 29);
    served.end().await;
    // Without rules, nobody sets any, and nobody but super users makes users.
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start_with(folder.path(), logins::administered()).await;
    let mut root = logins::root(&served).await;
    assert_eq!(create(&mut root, vec![allow(TOPICS, READ)]).await, [54]);
    assert_eq!(described(&mut root, None, 1).await.0, 54);
    assert_eq!(delete(&mut root, vec![everything()]).await, [(54, vec![])]);
    assert_eq!(write(&mut Wire::connect(&served).await, TOPIC).await, 0);
    served.end().await;
}

#[tokio::test]
async fn a_rule_that_cannot_be_one_is_refused_and_a_filter_selects_as_kafkas_does() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _, mut root, _) = begin(folder.path()).await;
    let right = || rule(TOPICS, LITERAL, "a", READ, ALLOW);
    let codes = create(
        &mut root,
        vec![
            right(),
            right(),
            right().with_resource_type(1),
            right().with_resource_type(99),
            right().with_resource_pattern_type(2),
            right().with_operation(1),
            right().with_permission_type(1),
            right().with_resource_name(text("")),
            right().with_host(text("")),
            right().with_principal(text("ada")),
            right().with_principal(text("User:")),
            right().with_resource_type(CLUSTER),
            right().with_resource_name(text(&"n".repeat(1_025))),
            rule(TOPICS, PREFIXED, "a", READ, ALLOW),
            rule(TOPICS, LITERAL, "*", READ, ALLOW),
            rule(TRANSACTIONS, LITERAL, "ab", WRITE, DENY),
        ],
    )
    .await;
    assert_eq!(codes, [0, 0, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 42, 0, 0, 0]);
    let found = |kind, name: &str, pattern| (kind, name.to_owned(), pattern, 1);
    let of_topics = [found(TOPICS, "*", LITERAL), found(TOPICS, "a", PREFIXED)];
    assert_eq!(described(&mut root, Some("abc"), 2).await, (0, of_topics.to_vec()));
    assert_eq!(described(&mut root, Some("ab"), 1).await, (0, vec![found(TRANSACTIONS, "ab", LITERAL)]));
    assert_eq!(described(&mut root, Some("a"), LITERAL).await, (0, vec![found(TOPICS, "a", LITERAL)]));
    assert_eq!(described(&mut root, Some("a"), 9).await.0, 42);
    assert_eq!(described(&mut root, None, 1).await.1.len(), 4, "a rule that is there is not there twice");
    let gone = delete(
        &mut root,
        vec![
            everything().with_resource_type_filter(TRANSACTIONS),
            everything().with_operation(77),
            everything().with_principal_filter(Some(text("User:bob"))),
        ],
    )
    .await;
    assert_eq!(gone, [(0, vec!["ab".to_owned()]), (42, vec![]), (0, vec![])]);
    served.end().await;
}

#[tokio::test]
async fn who_may_write_something_may_do_so_idempotently() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id, mut root, mut ada) = begin(folder.path()).await;
    let code = async |wire: &mut Wire| {
        codes(&wire.ask(ApiKey::InitProducerId, 4, &samples(ApiKey::InitProducerId, 4, id)).await)[0]
    };
    assert_eq!(code(&mut ada).await, 31);
    set(&mut root, vec![rule(TOPICS, PREFIXED, "x", WRITE, ALLOW)]).await;
    assert_eq!(code(&mut ada).await, 0);
    set(&mut root, vec![rule(TOPICS, LITERAL, "*", WRITE, DENY)]).await;
    assert_eq!(code(&mut ada).await, 31);
    served.end().await;
}

#[tokio::test]
async fn what_a_fetch_session_keeps_is_judged_each_time_and_by_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id, mut root, mut ada) = begin(folder.path()).await;
    assert_eq!(write(&mut root, TOPIC).await, 0);
    // Code of the answer, codes of its partitions, and the session.
    let ask = async |wire: &mut Wire, session: i32, epoch: i32| {
        let RequestKind::Fetch(request) = fetch(TOPIC, id, 12, 0, 0) else { panic!() };
        let request = if session == 0 { request } else { request.with_topics(vec![]) };
        let request = RequestKind::Fetch(request.with_session_id(session).with_session_epoch(epoch));
        let ResponseKind::Fetch(answer) = wire.ask(ApiKey::Fetch, 12, &request).await else { panic!() };
        (answer.error_code, answer.session_id, codes(&ResponseKind::Fetch(answer)))
    };
    set(&mut root, vec![rule(TOPICS, LITERAL, TOPIC, READ, ALLOW)]).await;
    let (code, session, codes) = ask(&mut ada, 0, 0).await;
    assert!(code == 0 && session != 0 && codes == [0]);
    assert_eq!(ask(&mut ada, session, 1).await.2, [0]);
    delete(&mut root, vec![everything()]).await;
    assert_eq!(ask(&mut ada, session, 2).await.2, [29], "the right was taken away");
    let (_, session, codes) = ask(&mut root, 0, 0).await;
    assert_eq!(codes, [0]);
    let (code, _, codes) = ask(&mut ada, session, 1).await;
    assert!(code != 0 || codes == [29], "a session that somebody else began: {code} {codes:?}");
    served.end().await;
}

#[tokio::test]
async fn an_expression_that_names_more_than_a_member_may_see_gives_it_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id, mut root, mut ada) = begin(folder.path()).await;
    set(&mut root, vec![rule(GROUPS, LITERAL, "g", READ, ALLOW)]).await;
    let joins = consumer_groups::joins("g", "m", &[]);
    let RequestKind::ConsumerGroupHeartbeat(joins) = joins else { panic!() };
    let joins = joins.with_subscribed_topic_names(None).with_subscribed_topic_regex(Some(text("ord.*")));
    let beat = async |wire: &mut Wire, request: RequestKind| {
        let answer = wire.ask(ApiKey::ConsumerGroupHeartbeat, 1, &request).await;
        let ResponseKind::ConsumerGroupHeartbeat(answer) = answer else { panic!() };
        answer
    };
    let mut answer = beat(&mut ada, RequestKind::ConsumerGroupHeartbeat(joins)).await;
    for _ in 0..3_000 {
        if answer.error_code != 0 {
            break;
        }
        assert!(answer.assignment.is_none_or(|given| given.topic_partitions.iter().all(|topic| topic.topic_id != id)));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        answer = beat(&mut ada, consumer_groups::stays("g", "m", answer.member_epoch, None)).await;
    }
    assert_eq!(answer.error_code, 29);
    served.end().await;
}
