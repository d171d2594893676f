//! What may be done to share groups and what they have done.

use kafka_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, DeleteShareGroupOffsetsRequest,
    DeleteShareGroupOffsetsResponse, DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse, GroupId,
    ShareAcknowledgeRequest, ShareAcknowledgeResponse, ShareFetchRequest, ShareFetchResponse,
    ShareGroupDescribeRequest, ShareGroupDescribeResponse, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
    alter_share_group_offsets_request::AlterShareGroupOffsetsRequestTopic,
    alter_share_group_offsets_response::{
        AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
    },
    delete_share_group_offsets_request::DeleteShareGroupOffsetsRequestTopic,
    delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic,
    describe_share_group_offsets_request::{
        DescribeShareGroupOffsetsRequestGroup, DescribeShareGroupOffsetsRequestTopic,
    },
    describe_share_group_offsets_response::{
        DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
        DescribeShareGroupOffsetsResponseTopic,
    },
    share_group_describe_response::{Assignment, DescribedGroup},
};

use super::{GROUP_DENIED, Gate, Guarded, TOPIC_DENIED, Verdict, WHY, split, whole};
use crate::{
    access::{Kind, Operation},
    api::reason,
};

impl Guarded for ShareGroupHeartbeatRequest {
    type Answer = ShareGroupHeartbeatResponse;
    type Kept = ();

    fn guard(self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let told = ShareGroupHeartbeatResponse::default().with_error_message(Some(reason(WHY)));
        if !gate.group(Operation::Read, &self.group_id) {
            return Verdict::None(told.with_error_code(GROUP_DENIED));
        }
        let mut named = self.subscribed_topic_names.iter().flatten();
        if !named.all(|name| gate.topic(Operation::Describe, name)) {
            return Verdict::None(told.with_error_code(TOPIC_DENIED));
        }
        Verdict::Some(self, ())
    }
}

impl Guarded for ShareGroupDescribeRequest {
    type Answer = ShareGroupDescribeResponse;
    type Kept = (Vec<DescribedGroup>, bool);

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let refused = |name: GroupId| {
            let told = DescribedGroup::default().with_group_id(name).with_error_code(GROUP_DENIED);
            told.with_authorized_operations(i32::MIN).with_error_message(Some(reason(WHY)))
        };
        let (some, others) = split(self.group_ids, |name| gate.group(Operation::Describe, name), refused);
        self.group_ids = some;
        let tell_operations = self.include_authorized_operations;
        Verdict::Some(self, (others, tell_operations))
    }

    fn complete(gate: &Gate<'_>, (refused, tell_operations): Self::Kept, answer: &mut Self::Answer) {
        for group in answer.groups.iter_mut().filter(|group| group.error_code == 0) {
            if tell_operations {
                group.authorized_operations = gate.operations(Kind::Group, &group.group_id);
            }
            // Who may not see a topic is not told who reads it.
            let seen = |assignment: &Assignment| {
                assignment.topic_partitions.iter().all(|topic| gate.topic(Operation::Describe, &topic.topic_name))
            };
            if !group.members.iter().all(|member| seen(&member.assignment)) {
                let told = DescribedGroup::default().with_group_id(group.group_id.clone());
                let told = told.with_error_code(TOPIC_DENIED).with_authorized_operations(i32::MIN);
                *group = told.with_error_message(Some(reason("the group reads topics that you may not describe")));
            }
        }
        answer.groups.extend(refused);
    }
}

// Topics are judged where they are found: a session keeps more than its requests name.
whole!(
    ShareFetchRequest => ShareFetchResponse,
    |gate: &Gate<'_>, request: &ShareFetchRequest| {
        gate.group(Operation::Read, request.group_id.as_ref().map_or("", |group| group.as_str()))
    },
    |_, _| ShareFetchResponse::default().with_error_code(GROUP_DENIED).with_error_message(Some(reason(WHY)))
);

whole!(
    ShareAcknowledgeRequest => ShareAcknowledgeResponse,
    |gate: &Gate<'_>, request: &ShareAcknowledgeRequest| {
        gate.group(Operation::Read, request.group_id.as_ref().map_or("", |group| group.as_str()))
    },
    |_, _| ShareAcknowledgeResponse::default().with_error_code(GROUP_DENIED).with_error_message(Some(reason(WHY)))
);

impl Guarded for DescribeShareGroupOffsetsRequest {
    type Answer = DescribeShareGroupOffsetsResponse;
    type Kept =
        (Vec<DescribeShareGroupOffsetsResponseGroup>, Vec<(GroupId, Vec<DescribeShareGroupOffsetsResponseTopic>)>);

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        let refused = |group: DescribeShareGroupOffsetsRequestGroup| {
            let told = DescribeShareGroupOffsetsResponseGroup::default().with_group_id(group.group_id);
            told.with_error_code(GROUP_DENIED).with_error_message(Some(reason(WHY)))
        };
        let (mut some, others) = split(self.groups, |group| gate.group(Operation::Describe, &group.group_id), refused);
        let mut of_groups = Vec::new();
        for group in &mut some {
            let Some(asked) = group.topics.take() else { continue };
            let refused = |topic: DescribeShareGroupOffsetsRequestTopic| {
                let partitions = topic.partitions.iter().map(|index| {
                    let told = DescribeShareGroupOffsetsResponsePartition::default().with_partition_index(*index);
                    told.with_start_offset(-1).with_error_code(TOPIC_DENIED).with_error_message(Some(reason(WHY)))
                });
                let partitions = partitions.collect();
                let told = DescribeShareGroupOffsetsResponseTopic::default().with_topic_name(topic.topic_name);
                told.with_partitions(partitions)
            };
            let (topics, refused) = split(asked, |topic| gate.topic(Operation::Describe, &topic.topic_name), refused);
            group.topics = Some(topics);
            of_groups.push((group.group_id.clone(), refused));
        }
        self.groups = some;
        Verdict::Some(self, (others, of_groups))
    }

    fn complete(gate: &Gate<'_>, (refused, of_groups): Self::Kept, answer: &mut Self::Answer) {
        for group in &mut answer.groups {
            // Who asked for all gets those that they may see.
            group.topics.retain(|topic| gate.topic(Operation::Describe, &topic.topic_name));
        }
        for (id, topics) in of_groups {
            if let Some(group) = answer.groups.iter_mut().find(|group| group.group_id == id && group.error_code == 0) {
                group.topics.extend(topics);
            }
        }
        answer.groups.extend(refused);
    }
}

impl Guarded for AlterShareGroupOffsetsRequest {
    type Answer = AlterShareGroupOffsetsResponse;
    type Kept = Vec<AlterShareGroupOffsetsResponseTopic>;

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        if !gate.group(Operation::Read, &self.group_id) {
            let told = AlterShareGroupOffsetsResponse::default().with_error_code(GROUP_DENIED);
            return Verdict::None(told.with_error_message(Some(reason(WHY))));
        }
        let refused = |topic: AlterShareGroupOffsetsRequestTopic| {
            let partitions = topic.partitions.iter().map(|partition| {
                let told = AlterShareGroupOffsetsResponsePartition::default();
                let told = told.with_partition_index(partition.partition_index).with_error_code(TOPIC_DENIED);
                told.with_error_message(Some(reason(WHY)))
            });
            let partitions = partitions.collect();
            let told = AlterShareGroupOffsetsResponseTopic::default().with_topic_name(topic.topic_name);
            told.with_partitions(partitions)
        };
        let (some, others) = split(self.topics, |topic| gate.topic(Operation::Read, &topic.topic_name), refused);
        self.topics = some;
        Verdict::Some(self, others)
    }

    fn complete(_gate: &Gate<'_>, refused: Self::Kept, answer: &mut Self::Answer) {
        answer.responses.extend(refused);
    }
}

impl Guarded for DeleteShareGroupOffsetsRequest {
    type Answer = DeleteShareGroupOffsetsResponse;
    type Kept = Vec<DeleteShareGroupOffsetsResponseTopic>;

    fn guard(mut self, gate: &Gate<'_>, _version: i16) -> Verdict<Self> {
        if !gate.group(Operation::Delete, &self.group_id) {
            let told = DeleteShareGroupOffsetsResponse::default().with_error_code(GROUP_DENIED);
            return Verdict::None(told.with_error_message(Some(reason(WHY))));
        }
        let refused = |topic: DeleteShareGroupOffsetsRequestTopic| {
            let told = DeleteShareGroupOffsetsResponseTopic::default().with_topic_name(topic.topic_name);
            told.with_error_code(TOPIC_DENIED).with_error_message(Some(reason(WHY)))
        };
        let (some, others) = split(self.topics, |topic| gate.topic(Operation::Read, &topic.topic_name), refused);
        self.topics = some;
        Verdict::Some(self, others)
    }

    fn complete(_gate: &Gate<'_>, refused: Self::Kept, answer: &mut Self::Answer) {
        answer.responses.extend(refused);
    }
}
