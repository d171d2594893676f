//! What may be done to groups and their offsets.

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
        ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
        DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest,
        HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
        ListGroupsRequest, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
        OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse,
        consumer_group_describe_response::{Assignment, DescribedGroup as DescribedConsumerGroup},
        delete_groups_response::DeletableGroupResult,
        describe_groups_response::DescribedGroup,
        find_coordinator_response::Coordinator,
        offset_commit_request::OffsetCommitRequestTopic,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_delete_request::OffsetDeleteRequestTopic,
        offset_delete_response::{OffsetDeleteResponsePartition, OffsetDeleteResponseTopic},
        offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics},
        offset_fetch_response::{
            OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
            OffsetFetchResponseTopic, OffsetFetchResponseTopics,
        },
    },
    protocol::StrBytes,
};

use super::{
    GROUP_DENIED, Gate, Guarded, TOPIC_DENIED, TRANSACTION_DENIED, Verdict, WHY, next_id, put_text, split, whole,
};
use crate::{
    access::{Kind, Operation},
    api::reason,
};

/// The last version of JoinGroup whose protocol name cannot be null.
const JOIN_NAMES_PROTOCOL: i16 = 6;
/// The first version of FindCoordinator that asks for many.
const FIND_MANY_FIRST: i16 = 4;
/// The first version of OffsetFetch that has a code for all, and that which asks for many groups.
const FETCH_CODE_FIRST: i16 = 2;
const FETCH_MANY_FIRST: i16 = 8;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

whole!(
    JoinGroupRequest => JoinGroupResponse,
    |gate: &Gate<'_>, request: &JoinGroupRequest| gate.group(Operation::Read, &request.group_id),
    |request: JoinGroupRequest, version| {
        let protocol = (version <= JOIN_NAMES_PROTOCOL).then(StrBytes::new);
        let told = JoinGroupResponse::default().with_error_code(GROUP_DENIED).with_generation_id(-1);
        told.with_protocol_name(protocol).with_member_id(request.member_id)
    }
);

whole!(
    SyncGroupRequest => SyncGroupResponse,
    |gate: &Gate<'_>, request: &SyncGroupRequest| gate.group(Operation::Read, &request.group_id),
    |_, _| SyncGroupResponse::default().with_error_code(GROUP_DENIED)
);

whole!(
    HeartbeatRequest => HeartbeatResponse,
    |gate: &Gate<'_>, request: &HeartbeatRequest| gate.group(Operation::Read, &request.group_id),
    |_, _| HeartbeatResponse::default().with_error_code(GROUP_DENIED)
);

whole!(
    LeaveGroupRequest => LeaveGroupResponse,
    |gate: &Gate<'_>, request: &LeaveGroupRequest| gate.group(Operation::Read, &request.group_id),
    |_, _| LeaveGroupResponse::default().with_error_code(GROUP_DENIED)
);

impl Guarded for ConsumerGroupHeartbeatRequest {
    type Answer = ConsumerGroupHeartbeatResponse;
    type Kept = ();

    fn guard(self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let told = ConsumerGroupHeartbeatResponse::default().with_error_message(Some(reason(WHY)));
        if !gate.group(Operation::Read, &self.group_id) {
            return Verdict::None(told.with_error_code(GROUP_DENIED));
        }
        let mut named = self.subscribed_topic_names.iter().flatten();
        if !named.all(|name| gate.topic(Operation::Describe, name)) {
            return Verdict::None(told.with_error_code(TOPIC_DENIED));
        }
        Verdict::Some(self, ())
    }

    fn complete(gate: &Gate<'_>, (): Self::Kept, answer: &mut Self::Answer) {
        // A regular expression is the group's: what it names may be more than this member may see.
        let seen = |id| gate.named(Operation::Describe, "", id);
        let given = answer.assignment.as_ref().map_or(&[][..], |assignment| &assignment.topic_partitions);
        if !given.iter().all(|topic| seen(topic.topic_id)) {
            let told = ConsumerGroupHeartbeatResponse::default().with_error_code(TOPIC_DENIED);
            *answer = told.with_error_message(Some(reason("the expression names topics that you may not describe")));
        }
    }
}

impl Guarded for DeleteGroupsRequest {
    type Answer = DeleteGroupsResponse;
    type Kept = Vec<DeletableGroupResult>;

    /// Why each was not deleted (KIP-1331).
    fn newer(answer: &Self::Answer) -> Vec<u8> {
        let mut out = Vec::new();
        for result in &answer.results {
            let why = ResponseError::try_from_code(result.error_code).map(|error| error.to_string());
            put_text(&mut out, why.as_deref());
        }
        out
    }

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let refused = |name| DeletableGroupResult::default().with_group_id(name).with_error_code(GROUP_DENIED);
        let (some, others) = split(self.groups_names, |name: &GroupId| gate.group(Operation::Delete, name), refused);
        self.groups_names = some;
        Verdict::Some(self, others)
    }

    fn complete(_gate: &Gate<'_>, refused: Self::Kept, answer: &mut Self::Answer) {
        answer.results.extend(refused);
    }
}

impl Guarded for DescribeGroupsRequest {
    type Answer = DescribeGroupsResponse;
    type Kept = (Vec<DescribedGroup>, bool);

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let (some, others) = split(
            self.groups,
            |name| gate.group(Operation::Describe, name),
            |name| DescribedGroup::default().with_group_id(name).with_error_code(GROUP_DENIED),
        );
        self.groups = some;
        let tell_operations = self.include_authorized_operations;
        Verdict::Some(self, (others, tell_operations))
    }

    fn complete(gate: &Gate<'_>, (refused, tell_operations): Self::Kept, answer: &mut Self::Answer) {
        if tell_operations {
            for group in answer.groups.iter_mut().filter(|group| group.error_code == 0) {
                group.authorized_operations = gate.operations(Kind::Group, &group.group_id);
            }
        }
        answer.groups.extend(refused);
    }
}

impl Guarded for ConsumerGroupDescribeRequest {
    type Answer = ConsumerGroupDescribeResponse;
    type Kept = (Vec<DescribedConsumerGroup>, bool);

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let (some, others) = split(
            self.group_ids,
            |name| gate.group(Operation::Describe, name),
            |name| DescribedConsumerGroup::default().with_group_id(name).with_error_code(GROUP_DENIED),
        );
        self.group_ids = some;
        let tell_operations = self.include_authorized_operations;
        Verdict::Some(self, (others, tell_operations))
    }

    fn complete(gate: &Gate<'_>, (refused, tell_operations): Self::Kept, answer: &mut Self::Answer) {
        for group in answer.groups.iter_mut().filter(|group| group.error_code == 0) {
            // Members hold topics that not everybody may see who sees the group.
            let seen = |assignment: &Assignment| {
                let mut topics = assignment.topic_partitions.iter();
                topics.all(|topic| gate.topic(Operation::Describe, &topic.topic_name))
            };
            let mut members = group.members.iter();
            if !members.all(|member| seen(&member.assignment) && seen(&member.target_assignment)) {
                let (id, why) = (group.group_id.clone(), Some(reason("it holds topics that you may not describe")));
                *group = DescribedConsumerGroup::default().with_group_id(id).with_error_code(TOPIC_DENIED);
                group.error_message = why;
                continue;
            }
            if tell_operations {
                group.authorized_operations = gate.operations(Kind::Group, &group.group_id);
            }
        }
        answer.groups.extend(refused);
    }
}

impl Guarded for ListGroupsRequest {
    type Answer = ListGroupsResponse;
    type Kept = ();

    fn guard(self, _gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        Verdict::Some(self, ())
    }

    fn complete(gate: &Gate<'_>, (): Self::Kept, answer: &mut Self::Answer) {
        if !gate.cluster(Operation::Describe) {
            answer.groups.retain(|group| gate.group(Operation::Describe, &group.group_id));
        }
    }
}

impl Guarded for FindCoordinatorRequest {
    type Answer = FindCoordinatorResponse;
    type Kept = Vec<Coordinator>;

    fn guard(mut self, gate: &Gate<'_>, version: i16) -> Verdict<Self> {
        let (kind, code) = match self.key_type {
            GROUP => (Kind::Group, GROUP_DENIED),
            TRANSACTION => (Kind::TransactionalId, TRANSACTION_DENIED),
            _ => return Verdict::Some(self, Vec::new()),
        };
        let may = |key: &StrBytes| gate.may(Operation::Describe, kind, key);
        if version < FIND_MANY_FIRST {
            if may(&self.key) {
                return Verdict::Some(self, Vec::new());
            }
            let told = FindCoordinatorResponse::default().with_error_code(code).with_node_id((-1).into());
            return Verdict::None(told.with_error_message(Some(reason(WHY))).with_port(-1));
        }
        let refused = |key| {
            let told = Coordinator::default().with_key(key).with_error_code(code).with_node_id((-1).into());
            told.with_error_message(Some(reason(WHY))).with_port(-1)
        };
        let (some, others) = split(self.coordinator_keys, may, refused);
        self.coordinator_keys = some;
        Verdict::Some(self, others)
    }

    fn complete(_gate: &Gate<'_>, refused: Self::Kept, answer: &mut Self::Answer) {
        answer.coordinators.extend(refused);
    }
}

impl Guarded for OffsetCommitRequest {
    type Answer = OffsetCommitResponse;
    type Kept = Vec<OffsetCommitResponseTopic>;

    fn add(&mut self, rest: &mut Bytes) {
        self.topics.iter_mut().for_each(|topic| topic.topic_id = next_id(rest));
    }

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let refused = |code: i16| {
            move |topic: OffsetCommitRequestTopic| {
                let partitions = topic.partitions.iter().map(|partition| {
                    let told = OffsetCommitResponsePartition::default().with_error_code(code);
                    told.with_partition_index(partition.partition_index)
                });
                let partitions = partitions.collect();
                let told = OffsetCommitResponseTopic::default().with_name(topic.name).with_topic_id(topic.topic_id);
                told.with_partitions(partitions)
            }
        };
        if !gate.group(Operation::Read, &self.group_id) {
            let all = self.topics.into_iter().map(refused(GROUP_DENIED)).collect();
            return Verdict::None(OffsetCommitResponse::default().with_topics(all));
        }
        let may = |topic: &OffsetCommitRequestTopic| gate.named(Operation::Read, &topic.name, topic.topic_id);
        let (some, others) = split(self.topics, may, refused(TOPIC_DENIED));
        let is_nothing_left = some.is_empty() && !others.is_empty();
        if is_nothing_left {
            // Nothing is asked of the group then.
            return Verdict::None(OffsetCommitResponse::default().with_topics(others));
        }
        self.topics = some;
        Verdict::Some(self, others)
    }

    fn complete(_gate: &Gate<'_>, refused: Self::Kept, answer: &mut Self::Answer) {
        answer.topics.extend(refused);
    }
}

impl Guarded for OffsetDeleteRequest {
    type Answer = OffsetDeleteResponse;
    type Kept = Vec<OffsetDeleteResponseTopic>;

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        if !gate.group(Operation::Delete, &self.group_id) {
            return Verdict::None(OffsetDeleteResponse::default().with_error_code(GROUP_DENIED));
        }
        let refused = |topic: OffsetDeleteRequestTopic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let told = OffsetDeleteResponsePartition::default().with_error_code(TOPIC_DENIED);
                told.with_partition_index(partition.partition_index)
            });
            let partitions = partitions.collect();
            OffsetDeleteResponseTopic::default().with_name(topic.name).with_partitions(partitions)
        };
        let (some, others) = split(self.topics, |topic| gate.topic(Operation::Read, &topic.name), refused);
        self.topics = some;
        Verdict::Some(self, others)
    }

    fn complete(_gate: &Gate<'_>, refused: Self::Kept, answer: &mut Self::Answer) {
        answer.topics.extend(refused);
    }
}

/// What the answer to OffsetFetch needs.
#[derive(Debug, Default)]
pub(in crate::api) struct ToldOffsets {
    /// Of the one group that older versions ask for.
    topics: Vec<OffsetFetchResponseTopic>,
    /// Groups of which some topics were refused.
    of_groups: Vec<(GroupId, Vec<OffsetFetchResponseTopics>)>,
    groups: Vec<OffsetFetchResponseGroup>,
}

fn no_offsets(topic: OffsetFetchRequestTopic, code: i16) -> OffsetFetchResponseTopic {
    let partitions = topic.partition_indexes.iter().map(|index| {
        let told = OffsetFetchResponsePartition::default().with_partition_index(*index).with_error_code(code);
        told.with_committed_offset(-1).with_metadata(Some(StrBytes::new()))
    });
    let partitions = partitions.collect();
    OffsetFetchResponseTopic::default().with_name(topic.name).with_partitions(partitions)
}

fn no_offsets_of(topic: OffsetFetchRequestTopics, code: i16) -> OffsetFetchResponseTopics {
    let partitions = topic.partition_indexes.iter().map(|index| {
        let told = OffsetFetchResponsePartitions::default().with_partition_index(*index).with_error_code(code);
        told.with_committed_offset(-1).with_metadata(Some(StrBytes::new()))
    });
    let partitions = partitions.collect();
    let told = OffsetFetchResponseTopics::default().with_name(topic.name).with_topic_id(topic.topic_id);
    told.with_partitions(partitions)
}

impl Guarded for OffsetFetchRequest {
    type Answer = OffsetFetchResponse;
    type Kept = ToldOffsets;

    fn add(&mut self, rest: &mut Bytes) {
        let topics = self.groups.iter_mut().flat_map(|group| group.topics.iter_mut().flatten());
        topics.for_each(|topic| topic.topic_id = next_id(rest));
    }

    fn guard(mut self, gate: &Gate<'_>, version: i16) -> Verdict<Self> {
        let mut kept = ToldOffsets::default();
        if version >= FETCH_MANY_FIRST {
            let refused = |group: OffsetFetchRequestGroup| {
                OffsetFetchResponseGroup::default().with_group_id(group.group_id).with_error_code(GROUP_DENIED)
            };
            let (mut some, others) =
                split(self.groups, |group| gate.group(Operation::Describe, &group.group_id), refused);
            for group in &mut some {
                let Some(asked) = group.topics.take() else { continue };
                let may =
                    |topic: &OffsetFetchRequestTopics| gate.named(Operation::Describe, &topic.name, topic.topic_id);
                let (topics, refused) = split(asked, may, |topic| no_offsets_of(topic, TOPIC_DENIED));
                group.topics = Some(topics);
                if !refused.is_empty() {
                    kept.of_groups.push((group.group_id.clone(), refused));
                }
            }
            (self.groups, kept.groups) = (some, others);
            return Verdict::Some(self, kept);
        }
        if !gate.group(Operation::Describe, &self.group_id) {
            let told = self.topics.unwrap_or_default().into_iter().map(|topic| no_offsets(topic, GROUP_DENIED));
            let code = if version >= FETCH_CODE_FIRST { GROUP_DENIED } else { 0 };
            return Verdict::None(OffsetFetchResponse::default().with_topics(told.collect()).with_error_code(code));
        }
        if let Some(asked) = self.topics.take() {
            let may = |topic: &OffsetFetchRequestTopic| gate.topic(Operation::Describe, &topic.name);
            let (some, others) = split(asked, may, |topic| no_offsets(topic, TOPIC_DENIED));
            (self.topics, kept.topics) = (Some(some), others);
        }
        Verdict::Some(self, kept)
    }

    fn complete(gate: &Gate<'_>, kept: Self::Kept, answer: &mut Self::Answer) {
        // Who asked for all gets those that they may see.
        answer.topics.retain(|topic| gate.topic(Operation::Describe, &topic.name));
        for group in &mut answer.groups {
            group.topics.retain(|topic| gate.named(Operation::Describe, &topic.name, topic.topic_id));
        }
        for (id, topics) in kept.of_groups {
            if let Some(group) = answer.groups.iter_mut().find(|group| group.group_id == id) {
                group.topics.extend(topics);
            }
        }
        answer.topics.extend(kept.topics);
        answer.groups.extend(kept.groups);
    }
}
