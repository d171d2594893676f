//! The consumer group protocol of KIP-848 over the wire: who gets what, who is fenced, what outlives a restart, and how a group
//! goes from one protocol to the other.

use std::collections::BTreeSet;

use cairn_broker::{Principal, TopicSpec};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DescribeGroupsRequest, JoinGroupRequest, ListGroupsRequest,
    MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, RequestKind, ResponseKind,
    consumer_group_describe_response::DescribedGroup,
    consumer_group_heartbeat_request::TopicPartitions,
    join_group_request::JoinGroupRequestProtocol,
    metadata_request::MetadataRequestTopic,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
};
use uuid::Uuid;

use super::{name, text};
use crate::support::{Served, Wire, quick};

const GROUP: &str = "readers";
const TOPIC: &str = "wide";
const INCONSISTENT_PROTOCOL: i16 = 23;
const UNKNOWN_MEMBER: i16 = 25;
const UNSUPPORTED_VERSION: i16 = 35;
const INVALID_REQUEST: i16 = 42;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_NOT_FOUND: i16 = 69;
const FENCED_EPOCH: i16 = 110;
const UNRELEASED_INSTANCE: i16 = 111;
const UNSUPPORTED_ASSIGNOR: i16 = 112;
const STALE_EPOCH: i16 = 113;
const INVALID_REGEX: i16 = 128;

/// What a member has: partitions with the id of their topic.
type Owned = BTreeSet<(Uuid, i32)>;

fn beat(group: &str, member: &str, epoch: i32, owned: Option<&Owned>) -> ConsumerGroupHeartbeatRequest {
    let owned = owned.map(|owned| {
        let topics: BTreeSet<Uuid> = owned.iter().map(|(topic, _)| *topic).collect();
        let of = |topic: Uuid| owned.iter().filter(|(of, _)| *of == topic).map(|(_, partition)| *partition).collect();
        topics
            .into_iter()
            .map(|topic| TopicPartitions::default().with_topic_id(topic).with_partitions(of(topic)))
            .collect()
    });
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(text(group).into())
        .with_member_id(text(member))
        .with_member_epoch(epoch)
        .with_rebalance_timeout_ms(-1)
        .with_topic_partitions(owned)
}

fn joining(group: &str, member: &str, topics: &[&str]) -> ConsumerGroupHeartbeatRequest {
    let names = topics.iter().map(|topic| name(topic)).collect();
    beat(group, member, 0, Some(&Owned::new()))
        .with_rebalance_timeout_ms(60_000)
        .with_subscribed_topic_names(Some(names))
}

pub(super) fn joins(group: &str, member: &str, topics: &[&str]) -> RequestKind {
    RequestKind::ConsumerGroupHeartbeat(joining(group, member, topics))
}

pub(super) fn stays(group: &str, member: &str, epoch: i32, owned: Option<&Owned>) -> RequestKind {
    RequestKind::ConsumerGroupHeartbeat(beat(group, member, epoch, owned))
}

pub(super) fn describe(groups: &[&str]) -> RequestKind {
    let groups = groups.iter().map(|group| text(group).into()).collect();
    RequestKind::ConsumerGroupDescribe(ConsumerGroupDescribeRequest::default().with_group_ids(groups))
}

async fn ask(wire: &mut Wire, version: i16, request: &RequestKind) -> ConsumerGroupHeartbeatResponse {
    let ResponseKind::ConsumerGroupHeartbeat(answer) = wire.ask(ApiKey::ConsumerGroupHeartbeat, version, request).await
    else {
        panic!()
    };
    answer
}

/// The error, the epoch, and what the member is told to have.
async fn told(wire: &mut Wire, request: &RequestKind) -> (i16, i32, Option<Owned>) {
    let answer = ask(wire, 1, request).await;
    let owned = answer.assignment.map(|assignment| {
        let topics = assignment.topic_partitions.into_iter();
        topics
            .flat_map(|topic| topic.partitions.into_iter().map(move |partition| (topic.topic_id, partition)))
            .collect()
    });
    (answer.error_code, answer.member_epoch, owned)
}

async fn described(wire: &mut Wire, group: &str) -> DescribedGroup {
    let ResponseKind::ConsumerGroupDescribe(mut answer) =
        wire.ask(ApiKey::ConsumerGroupDescribe, 1, &describe(&[group])).await
    else {
        panic!()
    };
    answer.groups.remove(0)
}

async fn create(served: &Served, topic: &str, partitions: u32) {
    let spec = TopicSpec { name: topic.into(), partitions: Some(partitions), ..TopicSpec::default() };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
}

async fn started(folder: &std::path::Path) -> (Served, Wire) {
    let served = Served::start(folder, quick()).await;
    create(&served, TOPIC, 4).await;
    let wire = Wire::connect(&served).await;
    (served, wire)
}

#[tokio::test]
async fn two_members_share_a_topic_and_never_have_the_same_partition() {
    let folder = tempfile::tempdir().unwrap();
    let (served, mut wire) = started(folder.path()).await;
    let (code, epoch, all) = told(&mut wire, &joins(GROUP, "a", &[TOPIC])).await;
    assert_eq!((code, epoch, all.as_ref().unwrap().len()), (0, 1, 4));
    // In version 0 the broker chooses the id.
    let second = ask(&mut wire, 0, &joins(GROUP, "", &[TOPIC])).await;
    let b = second.member_id.unwrap().to_string();
    assert_eq!((second.member_epoch, second.heartbeat_interval_ms, b.len()), (2, 5_000, 36));
    assert!(second.assignment.unwrap().topic_partitions.is_empty(), "a has all");
    let (_, epoch, kept) = told(&mut wire, &stays(GROUP, "a", 1, None)).await;
    assert_eq!((epoch, kept.as_ref().unwrap().len()), (1, 2));
    assert_eq!(told(&mut wire, &stays(GROUP, &b, 2, None)).await, (0, 2, None), "a has not given them up");
    assert_eq!(described(&mut wire, GROUP).await.group_state.as_str(), "Reconciling");
    assert_eq!(told(&mut wire, &stays(GROUP, "a", 1, kept.as_ref())).await.1, 2);
    let (_, _, got) = told(&mut wire, &stays(GROUP, &b, 2, None)).await;
    assert_eq!(&(&all.unwrap() - &kept.unwrap()), got.as_ref().unwrap());

    let group = described(&mut wire, GROUP).await;
    assert_eq!((group.group_state.as_str(), group.group_epoch, group.assignment_epoch), ("Stable", 2, 2));
    assert_eq!((group.assignor_name.as_str(), group.members.len()), ("uniform", 2));
    for member in &group.members {
        assert_eq!(member.assignment, member.target_assignment);
        assert_eq!(member.assignment.topic_partitions[0].topic_name.as_str(), TOPIC);
        assert_eq!((member.member_epoch, member.member_type, member.client_id.as_str()), (2, 1, "wire"));
    }
    assert_eq!(told(&mut wire, &stays(GROUP, "a", -1, None)).await, (0, -1, None));
    assert_eq!(told(&mut wire, &stays(GROUP, &b, 2, None)).await.2.map(|all| all.len()), Some(4));
    served.end().await;
}

#[tokio::test]
async fn members_and_their_epochs_outlive_the_broker() {
    let folder = tempfile::tempdir().unwrap();
    let (served, mut wire) = started(folder.path()).await;
    told(&mut wire, &joins(GROUP, "a", &[TOPIC])).await;
    told(&mut wire, &joins(GROUP, "b", &[TOPIC])).await;
    let (_, _, kept) = told(&mut wire, &stays(GROUP, "a", 1, None)).await;
    served.end().await;

    let served = Served::start(folder.path(), quick()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(told(&mut wire, &stays(GROUP, "b", 2, None)).await, (0, 2, None), "a still has what it must give up");
    assert_eq!(told(&mut wire, &stays(GROUP, "a", 1, None)).await, (0, 1, None));
    assert_eq!(told(&mut wire, &stays(GROUP, "a", 1, kept.as_ref())).await.1, 2);
    assert_eq!(told(&mut wire, &stays(GROUP, "b", 2, None)).await.2.map(|got| got.len()), Some(2));
    let group = described(&mut wire, GROUP).await;
    assert_eq!((group.group_state.as_str(), group.group_epoch), ("Stable", 2));
    served.end().await;
}

#[tokio::test]
async fn a_wrong_epoch_is_fenced_in_heartbeats_commits_and_fetches() {
    let folder = tempfile::tempdir().unwrap();
    let (served, mut wire) = started(folder.path()).await;
    told(&mut wire, &joins(GROUP, "a", &[TOPIC])).await;
    assert_eq!(told(&mut wire, &stays(GROUP, "a", 7, None)).await.0, FENCED_EPOCH);
    assert_eq!(told(&mut wire, &stays(GROUP, "b", 1, None)).await.0, UNKNOWN_MEMBER);
    for (version, member, epoch, expected) in
        [(9, "a", 1, 0), (9, "a", 0, STALE_EPOCH), (9, "b", 1, UNKNOWN_MEMBER), (8, "a", 1, UNSUPPORTED_VERSION)]
    {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(3);
        let topic = OffsetCommitRequestTopic::default().with_name(name(TOPIC)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default().with_group_id(text(GROUP).into()).with_member_id(text(member));
        let request = request.with_generation_id_or_member_epoch(epoch).with_topics(vec![topic]);
        let answer = wire.ask(ApiKey::OffsetCommit, version, &RequestKind::OffsetCommit(request)).await;
        let ResponseKind::OffsetCommit(answer) = answer else { panic!() };
        assert_eq!(answer.topics[0].partitions[0].error_code, expected, "{member} {epoch} {version}");
    }
    for (member, epoch, expected) in
        [(None, -1, 0), (Some("a"), 1, 0), (Some("a"), 4, STALE_EPOCH), (Some("b"), 1, UNKNOWN_MEMBER)]
    {
        let topic = OffsetFetchRequestTopics::default().with_name(name(TOPIC)).with_partition_indexes(vec![0]);
        let group = OffsetFetchRequestGroup::default().with_group_id(text(GROUP).into()).with_topics(Some(vec![topic]));
        let group = group.with_member_id(member.map(text)).with_member_epoch(epoch);
        let request = RequestKind::OffsetFetch(OffsetFetchRequest::default().with_groups(vec![group]));
        let ResponseKind::OffsetFetch(answer) = wire.ask(ApiKey::OffsetFetch, 9, &request).await else { panic!() };
        let group = &answer.groups[0];
        assert_eq!(group.error_code, expected);
        assert_eq!(
            group.topics.first().map(|topic| topic.partitions[0].committed_offset),
            (expected == 0).then_some(3)
        );
    }
    served.end().await;
}

#[tokio::test]
async fn an_expression_is_resolved_here_and_follows_the_topics() {
    let folder = tempfile::tempdir().unwrap();
    let (served, mut wire) = started(folder.path()).await;
    create(&served, "logs-1", 2).await;
    let join = |regex: &str| {
        let request = joining(GROUP, "a", &[]).with_subscribed_topic_names(None);
        RequestKind::ConsumerGroupHeartbeat(request.with_subscribed_topic_regex(Some(text(regex))))
    };
    for bad in ["logs-(", r"(a)\1", "((((a{99}){99}){99}){99})"] {
        assert_eq!(told(&mut wire, &join(bad)).await.0, INVALID_REGEX);
    }
    assert_eq!(told(&mut wire, &join("logs-.*")).await.2.map(|all| all.len()), Some(2));
    create(&served, "logs-2", 3).await;
    create(&served, "other-logs-3", 3).await;
    let mut epoch = 1;
    let grown = loop {
        let (code, now, owned) = told(&mut wire, &stays(GROUP, "a", epoch, None)).await;
        assert_eq!(code, 0);
        epoch = now;
        if let Some(owned) = owned {
            break owned;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!((grown.len(), epoch), (5, 2));
    // The Java client finds the names of what it got so: by id, with an empty name beside it.
    let (id, _) = *grown.first().unwrap();
    let topic = MetadataRequestTopic::default().with_topic_id(id).with_name(Some(name("")));
    let request = RequestKind::Metadata(MetadataRequest::default().with_topics(Some(vec![topic])));
    let ResponseKind::Metadata(answer) = wire.ask(ApiKey::Metadata, 13, &request).await else { panic!() };
    assert!(answer.topics[0].name.as_ref().unwrap().starts_with("logs-"));
    let group = described(&mut wire, GROUP).await;
    assert_eq!(group.members[0].subscribed_topic_regex.as_deref(), Some("logs-.*"));
    served.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_heartbeat_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (served, mut wire) = started(folder.path()).await;
    let wrong = [
        (beat("", "a", 0, Some(&Owned::new())), INVALID_REQUEST),
        (joining(GROUP, "", &[TOPIC]), INVALID_REQUEST),
        (joining(GROUP, "a", &[TOPIC]).with_rebalance_timeout_ms(-1), INVALID_REQUEST),
        (joining(GROUP, "a", &[TOPIC]).with_server_assignor(Some(text("best"))), UNSUPPORTED_ASSIGNOR),
        (beat(GROUP, "a", 3, None), UNKNOWN_MEMBER),
    ];
    for (request, expected) in wrong {
        let answer = ask(&mut wire, 1, &RequestKind::ConsumerGroupHeartbeat(request)).await;
        assert_eq!(answer.error_code, expected);
        assert!(answer.error_message.is_some_and(|message| !message.is_empty()));
    }
    let as_one = |member: &str| joining(GROUP, member, &[TOPIC]).with_instance_id(Some(text("one")));
    assert_eq!(told(&mut wire, &RequestKind::ConsumerGroupHeartbeat(as_one("a"))).await.0, 0);
    assert_eq!(told(&mut wire, &RequestKind::ConsumerGroupHeartbeat(as_one("b"))).await.0, UNRELEASED_INSTANCE);
    served.end().await;
}

async fn listed(wire: &mut Wire, kind: &str) -> Vec<(String, String, String)> {
    let request = ListGroupsRequest::default().with_types_filter(vec![text(kind)]);
    let ResponseKind::ListGroups(answer) = wire.ask(ApiKey::ListGroups, 5, &RequestKind::ListGroups(request)).await
    else {
        panic!()
    };
    let groups = answer.groups.into_iter();
    groups.map(|g| (g.group_id.to_string(), g.group_type.to_string(), g.group_state.to_string())).collect()
}

async fn join_classic(wire: &mut Wire, member: &str) -> (i16, String, i32) {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    let request = JoinGroupRequest::default().with_group_id(text(GROUP).into()).with_member_id(text(member));
    let request = request.with_session_timeout_ms(30_000).with_rebalance_timeout_ms(30_000);
    let request = request.with_protocol_type(text("consumer")).with_protocols(vec![protocol]);
    let ResponseKind::JoinGroup(answer) = wire.ask(ApiKey::JoinGroup, 3, &RequestKind::JoinGroup(request)).await else {
        panic!()
    };
    (answer.error_code, answer.member_id.to_string(), answer.generation_id)
}

#[tokio::test]
async fn a_group_speaks_one_protocol_and_an_empty_one_goes_over_to_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let (served, mut wire) = started(folder.path()).await;
    told(&mut wire, &joins(GROUP, "a", &[TOPIC])).await;
    assert_eq!(listed(&mut wire, "consumer").await, [(GROUP.into(), "consumer".into(), "Stable".into())]);
    assert_eq!(listed(&mut wire, "classic").await, []);
    let old = DescribeGroupsRequest::default().with_groups(vec![text(GROUP).into()]);
    let ResponseKind::DescribeGroups(old) =
        wire.ask(ApiKey::DescribeGroups, 6, &RequestKind::DescribeGroups(old)).await
    else {
        panic!()
    };
    assert_eq!((old.groups[0].group_state.as_str(), old.groups[0].error_code), ("Dead", GROUP_NOT_FOUND));
    let delete = RequestKind::DeleteGroups(DeleteGroupsRequest::default().with_groups_names(vec![text(GROUP).into()]));
    let ResponseKind::DeleteGroups(refused) = wire.ask(ApiKey::DeleteGroups, 2, &delete).await else { panic!() };
    assert_eq!(refused.results[0].error_code, NON_EMPTY_GROUP);
    assert_eq!(join_classic(&mut wire, "").await.0, INCONSISTENT_PROTOCOL);

    told(&mut wire, &stays(GROUP, "a", -1, None)).await;
    let (code, member, generation) = join_classic(&mut wire, "").await;
    assert_eq!((code, generation > 1), (0, true), "its generation goes on from the epoch");
    assert_eq!(described(&mut wire, GROUP).await.error_code, GROUP_NOT_FOUND);
    assert_eq!(told(&mut wire, &stays(GROUP, "a", 1, None)).await.0, GROUP_NOT_FOUND);

    let leave = kafka_protocol::messages::LeaveGroupRequest::default().with_group_id(text(GROUP).into());
    wire.ask(ApiKey::LeaveGroup, 1, &RequestKind::LeaveGroup(leave.with_member_id(text(&member)))).await;
    let (code, epoch, _) = told(&mut wire, &joins(GROUP, "b", &[TOPIC])).await;
    assert_eq!((code, epoch > generation), (0, true));
    served.end().await;

    let served = Served::start(folder.path(), quick()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(listed(&mut wire, "consumer").await.len(), 1);
    assert_eq!(listed(&mut wire, "classic").await, []);
    told(&mut wire, &stays(GROUP, "b", -1, None)).await;
    let ResponseKind::DeleteGroups(deleted) = wire.ask(ApiKey::DeleteGroups, 2, &delete).await else { panic!() };
    assert_eq!(deleted.results[0].error_code, 0);
    served.end().await;

    let served = Served::start(folder.path(), quick()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(described(&mut wire, GROUP).await.error_code, GROUP_NOT_FOUND);
    served.end().await;
}

#[tokio::test]
async fn clients_are_told_that_the_new_protocol_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let (served, mut wire) = started(folder.path()).await;
    for (version, supported) in [(3, 0), (4, 1)] {
        let request =
            ApiVersionsRequest::default().with_client_software_name(text("t")).with_client_software_version(text("1"));
        let answer = wire.ask(ApiKey::ApiVersions, version, &RequestKind::ApiVersions(request)).await;
        let ResponseKind::ApiVersions(answer) = answer else { panic!() };
        let finalized =
            answer.finalized_features.iter().find(|feature| feature.name.as_str() == "group.version").unwrap();
        assert_eq!((finalized.max_version_level, finalized.min_version_level), (1, 1));
        assert!(answer.finalized_features_epoch >= 0);
        let named = answer.supported_features.iter().filter(|feature| feature.name.as_str() == "group.version");
        assert_eq!(named.count(), supported);
    }
    served.end().await;
}
