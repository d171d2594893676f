//! Share groups (KIP-932) over the wire: each record with one member at a time, until it says what became of it; what outlives a restart,
//! a lost member, a lost connection.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use cairn_broker::{
    BrokerOptions, Principal, TopicSpec,
    batch::{self, BatchHeader},
};
use cairn_log::PartitionIndex;
use kafka_protocol::messages::{
    AlterShareGroupOffsetsRequest, ApiKey, ConsumerGroupHeartbeatRequest, DeleteGroupsRequest,
    DeleteShareGroupOffsetsRequest, DescribeShareGroupOffsetsRequest, JoinGroupRequest, ListGroupsRequest, RequestKind,
    ResponseKind, ShareAcknowledgeRequest, ShareFetchRequest, ShareFetchResponse, ShareGroupDescribeRequest,
    ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
    alter_share_group_offsets_request::{AlterShareGroupOffsetsRequestPartition, AlterShareGroupOffsetsRequestTopic},
    delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic,
    describe_share_group_offsets_request::{
        DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
    },
    share_acknowledge_request::{AcknowledgePartition, AcknowledgeTopic, AcknowledgementBatch},
    share_fetch_request::{AcknowledgementBatch as FetchedAcknowledged, FetchPartition, FetchTopic, ForgottenTopic},
    share_group_describe_response::DescribedGroup,
};
use uuid::Uuid;

use super::{PATIENCE, TOPIC, admin, batch, name, start, start_with, text, transactions};
use crate::support::{Served, Wire, newer::NEWER, quick};

const GROUP: &str = "workers";
const HOUR: Duration = Duration::from_secs(3_600);
const INCONSISTENT_PROTOCOL: i16 = 23;
const UNKNOWN_MEMBER: i16 = 25;
const INVALID_REQUEST: i16 = 42;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_NOT_FOUND: i16 = 69;
const UNKNOWN_TOPIC_ID: i16 = 100;
const FENCED_EPOCH: i16 = 110;
const INVALID_RECORD_STATE: i16 = 121;
const NO_SESSION: i16 = 122;
const WRONG_SESSION_EPOCH: i16 = 123;
const ACCEPT: i8 = 1;
const RELEASE: i8 = 2;
const REJECT: i8 = 3;
const RENEW: i8 = 4;

pub(super) fn joins(group: &str, member: &str, topics: &[&str]) -> RequestKind {
    beat(group, member, 0, Some(topics))
}

fn beat(group: &str, member: &str, epoch: i32, topics: Option<&[&str]>) -> RequestKind {
    let names = topics.map(|topics| topics.iter().map(|topic| name(topic)).collect());
    let request = ShareGroupHeartbeatRequest::default().with_group_id(text(group).into()).with_member_id(text(member));
    RequestKind::ShareGroupHeartbeat(request.with_member_epoch(epoch).with_subscribed_topic_names(names))
}

pub(super) fn describe(groups: &[&str]) -> RequestKind {
    let groups = groups.iter().map(|group| text(group).into()).collect();
    RequestKind::ShareGroupDescribe(ShareGroupDescribeRequest::default().with_group_ids(groups))
}

pub(super) fn opens(group: &str, member: &str, id: Uuid) -> RequestKind {
    RequestKind::ShareFetch(fetching(group, member, 0, id, &[0]))
}

/// The second request of a session, which names nothing.
pub(super) fn goes_on(group: &str, member: &str) -> RequestKind {
    RequestKind::ShareFetch(fetching(group, member, 1, Uuid::nil(), &[]))
}

fn fetching(group: &str, member: &str, epoch: i32, id: Uuid, partitions: &[i32]) -> ShareFetchRequest {
    let partitions = partitions.iter().map(|index| FetchPartition::default().with_partition_index(*index)).collect();
    let topic = FetchTopic::default().with_topic_id(id).with_partitions(partitions);
    let topics = if topic.partitions.is_empty() { Vec::new() } else { vec![topic] };
    ShareFetchRequest::default()
        .with_group_id(Some(text(group).into()))
        .with_member_id(Some(text(member)))
        .with_share_session_epoch(epoch)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_max_records(1_000)
        .with_topics(topics)
}

pub(super) fn acknowledges(group: &str, member: &str, id: Uuid) -> RequestKind {
    RequestKind::ShareAcknowledge(acknowledging(group, member, 1, id, &[(0, 0, 0, vec![ACCEPT])]))
}

/// Partition, first and last offset, verdicts.
type Said = (i32, i64, i64, Vec<i8>);

fn acknowledging(group: &str, member: &str, epoch: i32, id: Uuid, said: &[Said]) -> ShareAcknowledgeRequest {
    let mut by_partition: BTreeMap<i32, Vec<AcknowledgementBatch>> = BTreeMap::new();
    for (partition, first, last, verdicts) in said {
        let batch = AcknowledgementBatch::default().with_first_offset(*first).with_last_offset(*last);
        by_partition.entry(*partition).or_default().push(batch.with_acknowledge_types(verdicts.clone()));
    }
    let partitions = by_partition.into_iter().map(|(partition, batches)| {
        AcknowledgePartition::default().with_partition_index(partition).with_acknowledgement_batches(batches)
    });
    let topic = AcknowledgeTopic::default().with_topic_id(id).with_partitions(partitions.collect());
    ShareAcknowledgeRequest::default()
        .with_group_id(Some(text(group).into()))
        .with_member_id(Some(text(member)))
        .with_share_session_epoch(epoch)
        .with_topics(vec![topic])
}

pub(super) fn offsets(group: &str, topics: Option<&[&str]>) -> RequestKind {
    let topics = topics.map(|topics| {
        let topic = |topic: &&str| {
            DescribeShareGroupOffsetsRequestTopic::default().with_topic_name(name(topic)).with_partitions(vec![0])
        };
        topics.iter().map(topic).collect()
    });
    let group = DescribeShareGroupOffsetsRequestGroup::default().with_group_id(text(group).into());
    let groups = vec![group.with_topics(topics)];
    RequestKind::DescribeShareGroupOffsets(DescribeShareGroupOffsetsRequest::default().with_groups(groups))
}

pub(super) fn moves(group: &str, to: &[(&str, i32, i64)]) -> RequestKind {
    let topics = to.iter().map(|(topic, partition, start)| {
        let partition = AlterShareGroupOffsetsRequestPartition::default().with_partition_index(*partition);
        let partitions = vec![partition.with_start_offset(*start)];
        AlterShareGroupOffsetsRequestTopic::default().with_topic_name(name(topic)).with_partitions(partitions)
    });
    let request = AlterShareGroupOffsetsRequest::default().with_group_id(text(group).into());
    RequestKind::AlterShareGroupOffsets(request.with_topics(topics.collect()))
}

pub(super) fn forgets(group: &str, topics: &[&str]) -> RequestKind {
    let topic = |topic: &&str| DeleteShareGroupOffsetsRequestTopic::default().with_topic_name(name(topic));
    let request = DeleteShareGroupOffsetsRequest::default().with_group_id(text(group).into());
    RequestKind::DeleteShareGroupOffsets(request.with_topics(topics.iter().map(topic).collect()))
}

async fn ask(wire: &mut Wire, request: RequestKind) -> ShareGroupHeartbeatResponse {
    let answer = wire.ask(ApiKey::ShareGroupHeartbeat, 1, &request).await;
    let ResponseKind::ShareGroupHeartbeat(answer) = answer else { panic!() };
    answer
}

/// A member with a session of its own, on a connection of its own.
struct Member {
    wire: Wire,
    group: &'static str,
    id: &'static str,
    topic: Uuid,
    epoch: i32,
    wait_ms: i32,
    records_max: i32,
    version: i16,
    newer: &'static [u8],
}

/// Offsets that a member got, and how often they were handed out.
type Got = Vec<(i64, i16)>;

impl Member {
    async fn new(served: &Served, id: &'static str, topic: Uuid) -> Self {
        let wire = Wire::connect(served).await;
        let (group, wait_ms, records_max) = (GROUP, 0, 1_000);
        Self { wire, group, id, topic, epoch: 0, wait_ms, records_max, version: 2, newer: &[0, 0] }
    }

    async fn ask(&mut self, said: &[Said]) -> ShareFetchResponse {
        let mut request = fetching(self.group, self.id, self.epoch, self.topic, &[0]);
        for (partition, first, last, verdicts) in said {
            let batch = FetchedAcknowledged::default().with_first_offset(*first).with_last_offset(*last);
            let of = &mut request.topics[0].partitions[0];
            of.partition_index = *partition;
            of.acknowledgement_batches.push(batch.with_acknowledge_types(verdicts.clone()));
        }
        let request = request.with_max_wait_ms(self.wait_ms).with_max_records(self.records_max);
        self.send(request).await
    }

    async fn send(&mut self, mut request: ShareFetchRequest) -> ShareFetchResponse {
        request.unknown_tagged_fields.insert(NEWER, Bytes::from_static(self.newer));
        if self.version < 2 {
            request.unknown_tagged_fields.clear();
        }
        let request = RequestKind::ShareFetch(request);
        let answer = self.wire.ask(ApiKey::ShareFetch, self.version, &request);
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap();
        let ResponseKind::ShareFetch(answer) = answer else { panic!() };
        if answer.error_code == 0 {
            self.epoch += 1;
        }
        answer
    }

    /// What it gets, without a word about what it had.
    async fn take(&mut self) -> Got {
        let answer = self.ask(&[]).await;
        assert_eq!(answer.error_code, 0);
        got(&answer)
    }

    /// What is told of what it says; nothing more is asked for.
    async fn says(&mut self, said: &[Said]) -> Vec<i16> {
        let request = acknowledging(self.group, self.id, self.epoch, self.topic, said);
        let mut request = request;
        request.unknown_tagged_fields.insert(NEWER, Bytes::copy_from_slice(&self.newer[1..]));
        if self.version < 2 {
            request.unknown_tagged_fields.clear();
        }
        let request = RequestKind::ShareAcknowledge(request);
        let answer = self.wire.ask(ApiKey::ShareAcknowledge, self.version, &request).await;
        let ResponseKind::ShareAcknowledge(answer) = answer else { panic!() };
        if answer.error_code != 0 {
            return vec![answer.error_code];
        }
        self.epoch += 1;
        answer.responses.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code).collect()
    }
}

/// Every record that was handed out is in the batches that came with it.
fn got(answer: &ShareFetchResponse) -> Got {
    let mut all = Got::new();
    for data in answer.responses.iter().flat_map(|topic| &topic.partitions) {
        assert_eq!(data.error_code, 0, "{data:?}");
        let mut rest = data.records.clone().unwrap_or_default();
        let mut there = Vec::new();
        while !rest.is_empty() {
            let header = BatchHeader::parse(&rest).unwrap();
            let bytes = rest.split_to(header.total_bytes);
            assert!(!header.is_control(), "a marker is no record");
            there.extend(batch::decode(&bytes, 1 << 20).unwrap().iter().map(|record| record.offset as i64));
        }
        for of in &data.acquired_records {
            all.extend((of.first_offset..=of.last_offset).map(|offset| (offset, of.delivery_count)));
        }
        assert!(all.iter().all(|(offset, _)| there.contains(offset)), "{all:?} of {there:?}");
    }
    all
}

fn once(offsets: std::ops::Range<i64>) -> Got {
    counted(offsets, 1)
}

fn counted(offsets: std::ops::Range<i64>, count: i16) -> Got {
    offsets.map(|offset| (offset, count)).collect()
}

/// Writes batches of these sizes.
async fn write(served: &Served, sizes: &[usize]) {
    for size in sizes {
        let values = vec!["v"; *size];
        let partition = PartitionIndex::new(0);
        served.broker.produce(&Principal::Internal, TOPIC, partition, batch(&values)).await.unwrap();
    }
}

async fn configure(wire: &mut Wire, group: &str, configs: &[(&'static str, &'static str)]) {
    let configs: Vec<_> = configs.iter().map(|(name, value)| (*name, 0, Some(*value))).collect();
    let RequestKind::IncrementalAlterConfigs(mut request) = admin::alter(group, &configs, false) else { panic!() };
    request.resources[0].resource_type = 32;
    let answer = wire.ask(ApiKey::IncrementalAlterConfigs, 1, &RequestKind::IncrementalAlterConfigs(request)).await;
    let ResponseKind::IncrementalAlterConfigs(answer) = answer else { panic!() };
    assert_eq!(answer.responses[0].error_code, 0, "{:?}", answer.responses[0].error_message);
}

/// A broker with a topic, whose group begins with the first record.
async fn begin_with(folder: &std::path::Path, options: BrokerOptions) -> (Served, Uuid) {
    let (served, id) = start_with(folder, options).await;
    configure(&mut Wire::connect(&served).await, GROUP, &[("share.auto.offset.reset", "earliest")]).await;
    (served, id)
}

async fn begin(folder: &std::path::Path) -> (Served, Uuid) {
    begin_with(folder, quick()).await
}

#[tokio::test]
async fn each_record_is_with_one_member_until_that_says_what_became_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = begin(folder.path()).await;
    write(&served, &[3, 1, 1, 5]).await;
    for version in [1, 2] {
        let (mut ada, mut bob) = (Member::new(&served, "ada", id).await, Member::new(&served, "bob", id).await);
        (ada.version, bob.version) = (version, version);
        (ada.group, bob.group) = if version == 1 { (GROUP, GROUP) } else { ("other", "other") };
        configure(&mut Wire::connect(&served).await, ada.group, &[("share.auto.offset.reset", "earliest")]).await;
        ada.records_max = 4;
        assert_eq!(ada.take().await, once(0..4), "whole batches");
        assert_eq!(bob.take().await, once(4..10));
        assert_eq!(ada.take().await, Vec::new());
        // What is another's, and what nobody has, is not hers.
        assert_eq!(ada.says(&[(0, 3, 4, vec![ACCEPT])]).await, [INVALID_RECORD_STATE]);
        assert_eq!(ada.says(&[(0, 99, 99, vec![ACCEPT])]).await, [INVALID_RECORD_STATE]);
        assert_eq!(ada.says(&[(0, 0, 3, vec![ACCEPT, 9, ACCEPT, ACCEPT])]).await, [INVALID_REQUEST]);
        assert_eq!(ada.says(&[(0, 0, 3, vec![ACCEPT, ACCEPT])]).await, [INVALID_REQUEST]);
        assert_eq!(ada.says(&[(0, 0, 3, vec![ACCEPT, RELEASE, REJECT, RELEASE])]).await, [0]);
        assert_eq!(ada.says(&[(0, 0, 0, vec![ACCEPT])]).await, [INVALID_RECORD_STATE], "it said so already");
        bob.records_max = 1;
        assert_eq!(bob.take().await, counted(1..2, 2), "what was given back, alone");
        // Said with the next request.
        ada.records_max = 100;
        let answer = bob.ask(&[(0, 4, 9, vec![ACCEPT]), (0, 1, 1, vec![ACCEPT])]).await;
        let data = &answer.responses[0].partitions[0];
        assert_eq!((data.acknowledge_error_code, got(&answer)), (0, counted(3..4, 2)));
        let answer = bob.ask(&[(0, 4, 4, vec![ACCEPT])]).await;
        assert_eq!(answer.responses[0].partitions[0].acknowledge_error_code, INVALID_RECORD_STATE);
        assert_eq!(bob.says(&[(0, 3, 3, vec![REJECT])]).await, [0]);
        assert_eq!((ada.take().await, bob.take().await), (Vec::new(), Vec::new()), "all is done with");
    }
    served.end().await;
}

#[tokio::test]
async fn what_was_acknowledged_is_never_handed_out_again_and_all_else_is_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = begin(folder.path()).await;
    write(&served, &[10]).await;
    let mut ada = Member::new(&served, "ada", id).await;
    assert_eq!(ada.take().await, once(0..10));
    assert_eq!(ada.says(&[(0, 0, 1, vec![ACCEPT]), (0, 4, 4, vec![REJECT]), (0, 6, 6, vec![RELEASE])]).await, [0]);
    assert_eq!(ada.take().await, counted(6..7, 2));
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    let mut ada = Member::new(&served, "ada", id).await;
    let expected: Got = vec![(2, 1), (3, 1), (5, 1), (6, 2), (7, 1), (8, 1), (9, 1)];
    assert_eq!(ada.take().await, expected, "what she had is handed out again, as if she had not had it");
    assert_eq!(ada.says(&[(0, 2, 3, vec![ACCEPT]), (0, 5, 9, vec![ACCEPT])]).await, [0]);
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    write(&served, &[1]).await;
    assert_eq!(Member::new(&served, "ada", id).await.take().await, once(10..11));
    served.end().await;
}

#[tokio::test]
async fn who_takes_too_long_loses_its_records_and_what_nobody_can_do_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.limits.share_record_lock = Duration::from_millis(300);
    options.limits.share_deliveries_max = 3;
    let (served, id) = begin_with(folder.path(), options).await;
    write(&served, &[2]).await;
    let (mut ada, mut bob) = (Member::new(&served, "ada", id).await, Member::new(&served, "bob", id).await);
    assert_eq!(ada.take().await, once(0..2));
    // He waits, and is answered when her time is over.
    bob.wait_ms = 20_000;
    assert_eq!(bob.take().await, counted(0..2, 2));
    assert_eq!(ada.says(&[(0, 0, 0, vec![ACCEPT])]).await, [INVALID_RECORD_STATE]);
    ada.wait_ms = 20_000;
    assert_eq!(ada.take().await, counted(0..2, 3));
    // They were handed out often enough.
    tokio::time::sleep(Duration::from_millis(500)).await;
    write(&served, &[1]).await;
    assert_eq!(bob.take().await, once(2..3));
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(bob.take().await, counted(2..3, 2));
    served.end().await;
}

#[tokio::test]
async fn what_is_given_back_too_often_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    (options.limits.share_record_lock, options.limits.share_deliveries_max) = (HOUR, 2);
    let (served, id) = begin_with(folder.path(), options).await;
    write(&served, &[1]).await;
    let mut ada = Member::new(&served, "ada", id).await;
    for count in 1..=2 {
        assert_eq!(ada.take().await, counted(0..1, count));
        assert_eq!(ada.says(&[(0, 0, 0, vec![RELEASE])]).await, [0]);
    }
    assert_eq!(ada.take().await, Vec::new());
    served.end().await;
}

#[tokio::test]
async fn who_needs_more_time_says_so_and_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.limits.share_record_lock = Duration::from_secs(4);
    let (served, id) = begin_with(folder.path(), options).await;
    write(&served, &[1]).await;
    let (mut ada, mut bob) = (Member::new(&served, "ada", id).await, Member::new(&served, "bob", id).await);
    assert_eq!(ada.take().await, once(0..1));
    assert_eq!(ada.says(&[(0, 0, 0, vec![RENEW])]).await, [INVALID_REQUEST], "it must be said that it is meant");
    ada.newer = &[0, 1];
    for round in 0..4 {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        if round % 2 == 0 {
            assert_eq!(ada.says(&[(0, 0, 0, vec![RENEW])]).await, [0]);
        } else {
            let answer = ada.ask(&[(0, 0, 0, vec![RENEW])]).await;
            assert_eq!(answer.responses[0].partitions[0].acknowledge_error_code, 0);
        }
        assert_eq!(bob.take().await, Vec::new());
    }
    assert_eq!(ada.says(&[(0, 0, 0, vec![ACCEPT])]).await, [0]);
    served.end().await;
}

#[tokio::test]
async fn a_waiting_member_is_answered_when_a_record_is_written_or_given_back() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing else ends the wait.
    let mut options = quick();
    (options.limits.fetch_wait_max, options.limits.share_record_lock) = (HOUR, HOUR);
    let (served, id) = begin_with(folder.path(), options).await;
    let (mut ada, mut bob) = (Member::new(&served, "ada", id).await, Member::new(&served, "bob", id).await);
    ada.wait_ms = HOUR.as_millis() as i32;
    let (first, ()) = tokio::join!(ada.take(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        write(&served, &[1]).await;
    });
    assert_eq!(first, once(0..1));
    bob.wait_ms = HOUR.as_millis() as i32;
    let (second, said) = tokio::join!(bob.take(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        ada.says(&[(0, 0, 0, vec![RELEASE])]).await
    });
    assert_eq!((second, said), (counted(0..1, 2), vec![0]));
    served.end().await;
}

#[tokio::test]
async fn what_a_member_had_comes_back_when_its_session_ends_or_its_connection_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = begin(folder.path()).await;
    write(&served, &[1, 1, 1]).await;
    let (mut ada, mut bob) = (Member::new(&served, "ada", id).await, Member::new(&served, "bob", id).await);
    assert_eq!(ada.take().await, once(0..3));
    // What she says with her last word counts; what she had besides she has not seen.
    ada.epoch = -1;
    assert_eq!(ada.says(&[(0, 0, 0, vec![ACCEPT])]).await, [0]);
    bob.wait_ms = 25_000;
    assert_eq!(bob.take().await, once(1..3));
    let closes = fetching(GROUP, "bob", -1, id, &[]);
    assert_eq!(bob.send(closes).await.error_code, 0);
    bob.epoch = 0;
    assert_eq!(bob.take().await, once(1..3));
    drop(bob);
    // Who is gone without a word may have died of it.
    let mut eve = Member::new(&served, "eve", id).await;
    eve.wait_ms = 25_000;
    assert_eq!(eve.take().await, counted(1..3, 2));
    served.end().await;
}

#[tokio::test]
async fn a_session_takes_its_requests_in_turn() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = begin(folder.path()).await;
    write(&served, &[1]).await;
    let mut ada = Member::new(&served, "ada", id).await;
    let said: &[Said] = &[(0, 0, 0, vec![ACCEPT])];
    assert_eq!(ada.says(said).await, [WRONG_SESSION_EPOCH], "nothing was handed out yet");
    ada.epoch = 1;
    assert_eq!(ada.says(said).await, [NO_SESSION]);
    assert_eq!(ada.ask(&[]).await.error_code, NO_SESSION);
    ada.epoch = 0;
    assert_eq!(ada.ask(said).await.error_code, INVALID_REQUEST);
    assert_eq!(ada.take().await, once(0..1));
    ada.epoch = 5;
    assert_eq!(ada.ask(&[]).await.error_code, WRONG_SESSION_EPOCH);
    assert_eq!(ada.says(said).await, [WRONG_SESSION_EPOCH]);
    ada.epoch = 1;
    // The partition is the session's: it need not be named, until it is forgotten.
    assert_eq!(ada.says(&[(0, 0, 0, vec![RELEASE])]).await, [0]);
    let again = ada.send(fetching(GROUP, "ada", 2, id, &[])).await;
    assert_eq!(got(&again), counted(0..1, 2));
    let forgotten = ForgottenTopic::default().with_topic_id(id).with_partitions(vec![0]);
    let request = fetching(GROUP, "ada", 3, id, &[]).with_forgotten_topics_data(vec![forgotten]);
    assert_eq!(ada.send(request).await.error_code, 0);
    assert_eq!(ada.says(&[(0, 0, 0, vec![RELEASE])]).await, [0], "what she has she may still give back");
    assert_eq!(got(&ada.send(fetching(GROUP, "ada", 5, id, &[])).await), Vec::new());
    // A topic that there is not, and a partition that there is not.
    ada.topic = Uuid::from_u128(9);
    let answer = ada.send(fetching(GROUP, "ada", 6, ada.topic, &[0])).await;
    assert_eq!(answer.responses[0].partitions[0].error_code, UNKNOWN_TOPIC_ID);
    for nobody in [fetching("", "ada", 0, id, &[0]), fetching(GROUP, "", 0, id, &[0])] {
        assert_eq!(ada.send(nobody).await.error_code, INVALID_REQUEST);
    }
    served.end().await;
}

#[tokio::test]
async fn a_member_gets_no_more_records_than_it_asks_for_where_it_says_that_it_means_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.limits.share_locks_max = 12;
    let (served, id) = begin_with(folder.path(), options).await;
    write(&served, &[8, 8]).await;
    let (mut ada, mut bob) = (Member::new(&served, "ada", id).await, Member::new(&served, "bob", id).await);
    (ada.records_max, ada.newer) = (3, &[1, 0]);
    assert_eq!(ada.take().await, once(0..3));
    assert_eq!(ada.take().await, once(3..6));
    bob.records_max = 2;
    assert_eq!(bob.take().await, once(6..8), "the rest of the batch");
    assert_eq!(bob.take().await, once(8..12), "no more than may be under way");
    assert_eq!(bob.take().await, Vec::new());
    assert_eq!(ada.says(&[(0, 0, 0, vec![ACCEPT])]).await, [0]);
    assert_eq!(bob.take().await, once(12..13));
    served.end().await;
}

#[tokio::test]
async fn markers_and_what_was_aborted_are_no_records_where_a_group_reads_what_is_committed() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = begin(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    configure(
        &mut wire,
        "careful",
        &[("share.auto.offset.reset", "earliest"), ("share.isolation.level", "read_committed")],
    )
    .await;
    // Offsets 0 and 1 aborted, 2 their marker, 3 committed, 4 its marker, 5 open.
    let producer = transactions::begin(&mut wire).await;
    transactions::put(&mut wire, 12, producer, 0, (0, "a")).await;
    transactions::put(&mut wire, 12, producer, 1, (0, "b")).await;
    let (code, producer) = transactions::end(&mut wire, 5, producer, false).await;
    assert_eq!(code, 0);
    transactions::put(&mut wire, 12, producer, 0, (0, "c")).await;
    let (code, producer) = transactions::end(&mut wire, 5, producer, true).await;
    assert_eq!(code, 0);
    transactions::put(&mut wire, 12, producer, 0, (0, "d")).await;
    let mut ada = Member::new(&served, "ada", id).await;
    let mut all = ada.take().await;
    all.extend(ada.take().await);
    assert_eq!(all.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), [0, 1, 3, 5]);
    let mut bob = Member::new(&served, "bob", id).await;
    bob.group = "careful";
    assert_eq!(bob.take().await, once(3..4));
    assert_eq!(bob.says(&[(0, 3, 3, vec![ACCEPT])]).await, [0]);
    assert_eq!(bob.take().await, Vec::new(), "it is not decided yet");
    bob.wait_ms = 25_000;
    let mut other = Wire::connect(&served).await;
    let (last, code) = tokio::join!(bob.take(), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        transactions::end(&mut other, 5, producer, true).await.0
    });
    assert_eq!((last, code), (once(5..6), 0));
    served.end().await;
}

async fn described(wire: &mut Wire, group: &str) -> DescribedGroup {
    let answer = wire.ask(ApiKey::ShareGroupDescribe, 1, &describe(&[group])).await;
    let ResponseKind::ShareGroupDescribe(mut answer) = answer else { panic!() };
    answer.groups.remove(0)
}

/// Name, state and kind of each group.
async fn listed(wire: &mut Wire) -> Vec<(String, String, String)> {
    let request = RequestKind::ListGroups(ListGroupsRequest::default());
    let ResponseKind::ListGroups(answer) = wire.ask(ApiKey::ListGroups, 5, &request).await else { panic!() };
    let told = answer.groups.iter();
    told.map(|of| (of.group_id.to_string(), of.group_state.to_string(), of.group_type.to_string())).collect()
}

async fn delete(wire: &mut Wire, group: &str) -> i16 {
    let request = DeleteGroupsRequest::default().with_groups_names(vec![text(group).into()]);
    let answer = wire.ask(ApiKey::DeleteGroups, 2, &RequestKind::DeleteGroups(request)).await;
    let ResponseKind::DeleteGroups(answer) = answer else { panic!() };
    answer.results[0].error_code
}

#[tokio::test]
async fn members_share_the_partitions_and_a_group_is_of_one_kind() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let spec = TopicSpec { name: "wide".into(), partitions: Some(4), ..TopicSpec::default() };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
    let mut wire = Wire::connect(&served).await;
    let ada = ask(&mut wire, joins(GROUP, "ada", &["wide"])).await;
    assert_eq!((ada.error_code, ada.member_epoch, ada.heartbeat_interval_ms), (0, 1, 5_000));
    assert_eq!(ada.assignment.unwrap().topic_partitions[0].partitions, [0, 1, 2, 3]);
    let bob = ask(&mut wire, joins(GROUP, "bob", &["wide"])).await;
    let told = ask(&mut wire, beat(GROUP, "ada", 1, None)).await;
    assert_eq!((bob.member_epoch, told.member_epoch), (2, 2));
    let mut all = [bob, told].map(|told| told.assignment.unwrap().topic_partitions[0].partitions.clone()).concat();
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    assert_eq!(ask(&mut wire, beat(GROUP, "ada", 9, None)).await.error_code, FENCED_EPOCH);
    assert_eq!(ask(&mut wire, beat(GROUP, "eve", 1, None)).await.error_code, UNKNOWN_MEMBER);
    assert_eq!(ask(&mut wire, joins("", "eve", &["wide"])).await.error_code, INVALID_REQUEST);
    let group = described(&mut wire, GROUP).await;
    let told = (group.group_state.as_str(), group.group_epoch, group.assignor_name.as_str(), group.members.len());
    assert_eq!(told, ("Stable", 2, "simple", 2));
    assert_eq!(group.members[0].assignment.topic_partitions[0].topic_name.as_str(), "wide");
    // Other kinds do not take it over, nor does it take over theirs.
    let join = JoinGroupRequest::default().with_group_id(text(GROUP).into()).with_session_timeout_ms(10_000);
    let ResponseKind::JoinGroup(answer) = wire.ask(ApiKey::JoinGroup, 9, &RequestKind::JoinGroup(join)).await else {
        panic!()
    };
    assert_eq!(answer.error_code, INCONSISTENT_PROTOCOL);
    let joins_as_consumer = super::consumer_groups::joins(GROUP, "c", &["wide"]);
    let refused = wire.ask(ApiKey::ConsumerGroupHeartbeat, 1, &joins_as_consumer).await;
    assert!(matches!(refused, ResponseKind::ConsumerGroupHeartbeat(answer) if answer.error_code == GROUP_NOT_FOUND));
    let consumers = super::consumer_groups::joins("consumers", "c", &["wide"]);
    assert!(matches!(&consumers, RequestKind::ConsumerGroupHeartbeat(ConsumerGroupHeartbeatRequest { .. })));
    wire.ask(ApiKey::ConsumerGroupHeartbeat, 1, &consumers).await;
    assert_eq!(ask(&mut wire, joins("consumers", "ada", &["wide"])).await.error_code, GROUP_NOT_FOUND);
    assert_eq!(described(&mut wire, "consumers").await.error_code, GROUP_NOT_FOUND);
    let expected = [("consumers", "Stable", "consumer"), (GROUP, "Stable", "share")];
    let mut all = listed(&mut wire).await;
    all.sort();
    assert_eq!(all, expected.map(|(name, state, kind)| (name.to_owned(), state.to_owned(), kind.to_owned())));
    // It ends when its members have left.
    assert_eq!(delete(&mut wire, GROUP).await, NON_EMPTY_GROUP);
    for member in ["ada", "bob"] {
        assert_eq!(ask(&mut wire, beat(GROUP, member, -1, None)).await.member_epoch, -1);
    }
    assert_eq!(described(&mut wire, GROUP).await.group_state.as_str(), "Empty");
    assert_eq!(delete(&mut wire, GROUP).await, 0);
    assert_eq!(described(&mut wire, GROUP).await.error_code, GROUP_NOT_FOUND);
    assert_eq!(delete(&mut wire, GROUP).await, GROUP_NOT_FOUND);
    served.end().await;
}

/// Where a group goes on in the first partition of the topic; the group's code where there is none.
async fn start_of(wire: &mut Wire, group: &str, topics: Option<&[&str]>) -> Result<Vec<i64>, i16> {
    let answer = wire.ask(ApiKey::DescribeShareGroupOffsets, 0, &offsets(group, topics)).await;
    let ResponseKind::DescribeShareGroupOffsets(answer) = answer else { panic!() };
    let group = &answer.groups[0];
    if group.error_code != 0 {
        return Err(group.error_code);
    }
    Ok(group.topics.iter().flat_map(|topic| &topic.partitions).map(|one| one.start_offset).collect())
}

#[tokio::test]
async fn where_a_group_goes_on_is_told_moved_and_forgotten_and_ends_with_its_topic() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = begin(folder.path()).await;
    write(&served, &[10]).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(start_of(&mut wire, GROUP, None).await, Err(GROUP_NOT_FOUND));
    let moved = async |wire: &mut Wire, to: &[(&str, i32, i64)]| {
        let ResponseKind::AlterShareGroupOffsets(answer) =
            wire.ask(ApiKey::AlterShareGroupOffsets, 0, &moves(GROUP, to)).await
        else {
            panic!()
        };
        let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions).map(|one| one.error_code);
        [answer.error_code].into_iter().chain(partitions).collect::<Vec<_>>()
    };
    assert_eq!(
        moved(&mut wire, &[(TOPIC, 0, 7), (TOPIC, 3, 7), ("none", 0, 7), (TOPIC, 0, -1)]).await,
        [0, 0, 3, 3, 42]
    );
    assert_eq!(start_of(&mut wire, GROUP, Some(&[TOPIC])).await, Ok(vec![7]));
    assert_eq!(start_of(&mut wire, GROUP, None).await, Ok(vec![7]));
    let mut ada = Member::new(&served, "ada", id).await;
    assert_eq!(ada.take().await, once(7..10));
    assert_eq!(ada.says(&[(0, 7, 8, vec![ACCEPT])]).await, [0]);
    assert_eq!(start_of(&mut wire, GROUP, None).await, Ok(vec![9]));
    // Not while somebody is in it.
    ask(&mut wire, joins(GROUP, "ada", &[TOPIC])).await;
    assert_eq!(moved(&mut wire, &[(TOPIC, 0, 0)]).await, [NON_EMPTY_GROUP]);
    ask(&mut wire, beat(GROUP, "ada", -1, None)).await;
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(start_of(&mut wire, GROUP, None).await, Ok(vec![9]), "a restart forgets nothing");
    let ResponseKind::DeleteShareGroupOffsets(answer) =
        wire.ask(ApiKey::DeleteShareGroupOffsets, 0, &forgets(GROUP, &[TOPIC])).await
    else {
        panic!()
    };
    assert_eq!((answer.error_code, answer.responses[0].error_code), (0, 0));
    // It is there until it is deleted, also where somebody comes who is not in it.
    assert_eq!(ask(&mut wire, beat(GROUP, "eve", 1, None)).await.error_code, UNKNOWN_MEMBER);
    assert_eq!(start_of(&mut wire, GROUP, None).await, Ok(Vec::new()));
    assert_eq!(start_of(&mut wire, GROUP, Some(&[TOPIC])).await, Ok(vec![-1]));
    assert_eq!(moved(&mut wire, &[(TOPIC, 0, 2)]).await, [0, 0]);
    served.broker.delete_topic(&Principal::Internal, TOPIC).await.unwrap();
    assert_eq!(start_of(&mut wire, GROUP, None).await, Ok(Vec::new()));
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    assert_eq!(start_of(&mut Wire::connect(&served).await, GROUP, None).await, Err(GROUP_NOT_FOUND));
    served.end().await;
}

#[tokio::test]
async fn a_group_that_says_nothing_begins_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    write(&served, &[5]).await;
    let mut ada = Member::new(&served, "ada", id).await;
    assert_eq!(ada.take().await, Vec::new());
    write(&served, &[2]).await;
    assert_eq!(ada.take().await, once(5..7));
    // By age: all records are of 1970.
    let mut wire = Wire::connect(&served).await;
    configure(&mut wire, "young", &[("share.auto.offset.reset", "by_duration:PT1H")]).await;
    let mut bob = Member::new(&served, "bob", id).await;
    bob.group = "young";
    assert_eq!(bob.take().await, Vec::new());
    configure(&mut wire, "old", &[("share.auto.offset.reset", "by_duration:P40000D")]).await;
    let mut eve = Member::new(&served, "eve", id).await;
    eve.group = "old";
    assert_eq!(eve.take().await, once(0..7));
    served.end().await;
}
