//! Committed offsets that are forgotten: on an administrator's word, and when nobody has used them for long.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cairn_broker::{Broker, BrokerOptions, Principal, TopicSpec, batch};
use cairn_clock::{Clock, Entropy, Timestamp};
use cairn_log::{Log, LogOptions};
use kafka_protocol::messages::{
    ApiKey, DescribeGroupsRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, OffsetDeleteRequest,
    OffsetFetchRequest, RequestKind, ResponseKind, SyncGroupRequest,
    join_group_request::JoinGroupRequestProtocol,
    leave_group_request::MemberIdentity,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_delete_request::{OffsetDeleteRequestPartition, OffsetDeleteRequestTopic},
    sync_group_request::SyncGroupRequestAssignment,
};

use super::{PATIENCE, name, text};
use crate::support::{Served, Wire, quick};

const SUBSCRIBED: i16 = 86;
const NOT_FOUND: i16 = 69;
const NOT_EMPTY: i16 = 68;
const DAY: Duration = Duration::from_secs(24 * 3_600);

pub(super) fn delete(group: &str, topics: &[(&str, &[i32])]) -> RequestKind {
    let partition = |at: &i32| OffsetDeleteRequestPartition::default().with_partition_index(*at);
    let topic = |(topic, partitions): &(&str, &[i32])| {
        let partitions = partitions.iter().map(partition).collect();
        OffsetDeleteRequestTopic::default().with_name(name(topic)).with_partitions(partitions)
    };
    let request = OffsetDeleteRequest::default().with_group_id(text(group).into());
    RequestKind::OffsetDelete(request.with_topics(topics.iter().map(topic).collect()))
}

/// The code of the whole, and those of the partitions.
async fn deleted(wire: &mut Wire, group: &str, topics: &[(&str, &[i32])]) -> (i16, Vec<i16>) {
    let answer = wire.ask(ApiKey::OffsetDelete, 0, &delete(group, topics)).await;
    let ResponseKind::OffsetDelete(answer) = answer else { panic!() };
    let codes = answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(|one| one.error_code));
    (answer.error_code, codes.collect())
}

/// Commits offset 5 of partitions 0 and 1 of each topic.
pub(super) async fn commit(wire: &mut Wire, group: &str, who: Option<(&str, i32)>, topics: &[&str]) {
    let partition = |at| OffsetCommitRequestPartition::default().with_partition_index(at).with_committed_offset(5);
    let topics = topics.iter().map(|topic| {
        let partitions = vec![partition(0), partition(1)];
        OffsetCommitRequestTopic::default().with_name(name(topic)).with_partitions(partitions)
    });
    let (member, generation) = who.unwrap_or(("", -1));
    let request = OffsetCommitRequest::default().with_group_id(text(group).into()).with_member_id(text(member));
    let request = request.with_generation_id_or_member_epoch(generation).with_topics(topics.collect());
    let answer = wire.ask(ApiKey::OffsetCommit, 8, &RequestKind::OffsetCommit(request)).await;
    let ResponseKind::OffsetCommit(answer) = answer else { panic!() };
    assert!(answer.topics.iter().flat_map(|topic| &topic.partitions).all(|one| one.error_code == 0), "{answer:?}");
}

/// What is committed, as `topic-partition`.
pub(super) async fn committed(wire: &mut Wire, group: &str) -> Vec<String> {
    let request = OffsetFetchRequest::default().with_group_id(text(group).into()).with_topics(None);
    let answer = wire.ask(ApiKey::OffsetFetch, 5, &RequestKind::OffsetFetch(request)).await;
    let ResponseKind::OffsetFetch(answer) = answer else { panic!() };
    let each = answer.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|one| format!("{}-{}", topic.name.0.as_str(), one.partition_index))
    });
    each.collect()
}

async fn state(wire: &mut Wire, group: &str) -> String {
    let request = DescribeGroupsRequest::default().with_groups(vec![text(group).into()]);
    let answer = wire.ask(ApiKey::DescribeGroups, 5, &RequestKind::DescribeGroups(request)).await;
    let ResponseKind::DescribeGroups(answer) = answer else { panic!() };
    answer.groups[0].group_state.to_string()
}

/// What a member of the classic protocol says that it reads.
pub(super) fn subscription(topics: &[&str]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    out.put_i32(topics.len() as i32);
    for topic in topics {
        out.put_i16(topic.len() as i16);
        out.put_slice(topic.as_bytes());
    }
    out.put_i32(-1);
    out.freeze()
}

/// The only member of a group that is at rest: its id and generation.
pub(super) async fn join(wire: &mut Wire, group: &str, of_type: &str, metadata: Bytes) -> (String, i32) {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range")).with_metadata(metadata);
    let request = JoinGroupRequest::default().with_group_id(text(group).into()).with_protocol_type(text(of_type));
    let request = request.with_session_timeout_ms(1_000_000).with_rebalance_timeout_ms(10_000);
    let request = RequestKind::JoinGroup(request.with_protocols(vec![protocol]));
    let ResponseKind::JoinGroup(joined) = wire.ask(ApiKey::JoinGroup, 3, &request).await else { panic!() };
    assert_eq!(joined.error_code, 0);
    let assignment = SyncGroupRequestAssignment::default().with_member_id(joined.member_id.clone());
    let request = SyncGroupRequest::default().with_group_id(text(group).into()).with_assignments(vec![assignment]);
    let request = request.with_generation_id(joined.generation_id).with_member_id(joined.member_id.clone());
    let ResponseKind::SyncGroup(synced) = wire.ask(ApiKey::SyncGroup, 2, &RequestKind::SyncGroup(request)).await else {
        panic!()
    };
    assert_eq!(synced.error_code, 0);
    (joined.member_id.to_string(), joined.generation_id)
}

async fn leave(wire: &mut Wire, group: &str, member: &str) {
    let member = MemberIdentity::default().with_member_id(text(member));
    let request = LeaveGroupRequest::default().with_group_id(text(group).into()).with_members(vec![member]);
    let ResponseKind::LeaveGroup(left) = wire.ask(ApiKey::LeaveGroup, 3, &RequestKind::LeaveGroup(request)).await
    else {
        panic!()
    };
    assert_eq!((left.error_code, left.members[0].error_code), (0, 0));
}

async fn make(broker: &Broker) {
    for topic in ["read", "left"] {
        let spec = TopicSpec { name: topic.into(), partitions: Some(2), ..TopicSpec::default() };
        broker.create_topic(&Principal::Internal, spec).await.unwrap();
    }
}

#[tokio::test]
async fn offsets_of_topics_that_nobody_reads_are_deleted_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    make(&served.broker).await;
    let mut wire = Wire::connect(&served).await;
    let (member, generation) = join(&mut wire, "g", "consumer", subscription(&["read"])).await;
    commit(&mut wire, "g", Some((&member, generation)), &["read", "left"]).await;
    let both: &[(&str, &[i32])] = &[("read", &[0]), ("left", &[0, 9]), ("none", &[0])];
    assert_eq!(deleted(&mut wire, "g", both).await, (0, vec![SUBSCRIBED, 0, 3, 3]));
    assert_eq!(committed(&mut wire, "g").await, ["left-1", "read-0", "read-1"]);
    leave(&mut wire, "g", &member).await;
    assert_eq!(
        deleted(&mut wire, "g", &[("read", &[0]), ("left", &[0])]).await,
        (0, vec![0, 0]),
        "and what is not there"
    );
    assert_eq!(deleted(&mut wire, "nobody", &[("read", &[0])]).await, (NOT_FOUND, vec![]));
    // Members of other protocols do not say what they use.
    let (member, generation) = join(&mut wire, "workers", "connect", Bytes::from_static(b"?")).await;
    commit(&mut wire, "workers", Some((&member, generation)), &["read"]).await;
    assert_eq!(deleted(&mut wire, "workers", &[("read", &[0])]).await, (NOT_EMPTY, vec![]));
    // One that never had members.
    commit(&mut wire, "simple", None, &["read"]).await;
    assert_eq!(deleted(&mut wire, "simple", &[("read", &[0])]).await, (0, vec![0]));
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(committed(&mut wire, "g").await, ["left-1", "read-1"]);
    assert_eq!(committed(&mut wire, "simple").await, ["read-1"]);
    served.end().await;
}

async fn serve(folder: &std::path::Path, clock: &Clock) -> Served {
    let mut options: BrokerOptions = quick();
    options.offsets_look_interval = Duration::from_millis(10);
    let log = LogOptions::new(folder.join("log"), batch::stamp);
    let log = Log::open(log, clock.clone(), Entropy::system()).await.unwrap();
    Served::serve(Broker::open(options, log, clock.clone(), Entropy::system()).await.unwrap()).await
}

/// Waits until that is what is committed.
async fn until_committed(wire: &mut Wire, group: &str, expected: &[&str]) {
    let come = async {
        while committed(wire, group).await != expected {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, come).await.expect("it never came to that");
}

#[tokio::test]
async fn what_nobody_used_for_seven_days_is_forgotten_and_what_somebody_uses_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_micros(1_800_000_000_000_000));
    let served = serve(folder.path(), &clock).await;
    make(&served.broker).await;
    let mut wire = Wire::connect(&served).await;
    let (member, generation) = join(&mut wire, "works", "consumer", subscription(&["read"])).await;
    commit(&mut wire, "works", Some((&member, generation)), &["read", "left"]).await;
    let (gone, generation) = join(&mut wire, "rests", "consumer", subscription(&["read"])).await;
    commit(&mut wire, "rests", Some((&gone, generation)), &["read"]).await;
    commit(&mut wire, "simple", None, &["read"]).await;
    clock.advance(DAY * 5);
    commit(&mut wire, "marker", None, &["left"]).await;
    clock.advance(DAY);
    commit(&mut wire, "simple", None, &["left"]).await;
    leave(&mut wire, "rests", &gone).await;
    clock.advance(DAY + DAY / 2);
    // Of who works: what it does not read any more. Of who never had members: by each commit.
    until_committed(&mut wire, "works", &["read-0", "read-1"]).await;
    until_committed(&mut wire, "simple", &["left-0", "left-1"]).await;
    assert_eq!(committed(&mut wire, "rests").await, ["read-0", "read-1"], "seven days from when its last member left");
    served.end().await;
    // The days go on where they were.
    let served = serve(folder.path(), &clock).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(committed(&mut wire, "works").await, ["read-0", "read-1"]);
    assert_eq!(committed(&mut wire, "rests").await, ["read-0", "read-1"]);
    clock.advance(DAY * 5);
    until_committed(&mut wire, "marker", &[]).await;
    assert_eq!(committed(&mut wire, "rests").await, ["read-0", "read-1"], "six and a half days after it left");
    clock.advance(DAY);
    until_committed(&mut wire, "rests", &[]).await;
    until_committed(&mut wire, "simple", &[]).await;
    assert_eq!(committed(&mut wire, "works").await, ["read-0", "read-1"]);
    let ended = async {
        while state(&mut wire, "rests").await != "Dead" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, ended).await.expect("nothing is left of it");
    assert_eq!(state(&mut wire, "works").await, "Stable");
    served.end().await;
    let served = serve(folder.path(), &clock).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!((committed(&mut wire, "rests").await, state(&mut wire, "rests").await.as_str()), (vec![], "Dead"));
    served.end().await;
}
