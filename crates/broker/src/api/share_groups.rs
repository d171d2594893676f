//! ShareGroupHeartbeat and ShareGroupDescribe (KIP-932): the codec's values to the keeper's and back.

use std::collections::HashSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ShareGroupDescribeRequest, ShareGroupDescribeResponse, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
        TopicName,
        share_group_describe_response::{
            Assignment as DescribedAssignment, DescribedGroup, Member, TopicPartitions as DescribedPartitions,
        },
        share_group_heartbeat_response::{Assignment, TopicPartitions},
    },
};

use super::{Session, codes, reason, text};
use crate::{
    broker::Broker,
    group::GroupError,
    share::{self, Beat, MemberView, Settings, Told},
};

/// What ShareGroupDescribe says of the operations that were not asked for.
const OPERATIONS_UNKNOWN: i32 = i32::MIN;

pub(super) async fn heartbeat(
    broker: &Broker,
    session: &Session,
    request: ShareGroupHeartbeatRequest,
) -> ShareGroupHeartbeatResponse {
    let group = request.group_id.to_string();
    let beat = Beat {
        member: request.member_id.to_string(),
        epoch: request.member_epoch,
        rack: request.rack_id.map(|rack| rack.to_string()),
        names: request.subscribed_topic_names.map(|names| names.iter().map(|name| name.to_string()).collect()),
        client_id: session.client_id.clone(),
        client_host: format!("/{}", session.host),
    };
    // A group of another kind is not taken over, whether it has members or only offsets.
    let is_other = !broker.inner.shares.has(&group) && broker.inner.groups.knows(&group).await;
    let told = if is_other { Err(GroupError::GroupNotFound) } else { broker.share_beat(&group, beat) };
    match told {
        Ok(told) => answer(told, Settings::of(broker, &group).interval_ms()),
        Err(error) => {
            let why = if is_other { format!("group `{group}` is not a share group") } else { error.says().to_owned() };
            let told = ShareGroupHeartbeatResponse::default().with_error_code(codes::of_group(error));
            told.with_error_message(Some(reason(why)))
        }
    }
}

fn answer(told: Told, interval_ms: u64) -> ShareGroupHeartbeatResponse {
    let assignment = told.assignment.map(|partitions| {
        let topics = partitions.topics().map(|(topic, partitions)| {
            let partitions = partitions.iter().map(|partition| *partition as i32).collect();
            TopicPartitions::default().with_topic_id(topic).with_partitions(partitions)
        });
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ShareGroupHeartbeatResponse::default()
        .with_member_id(Some(text(told.member)))
        .with_member_epoch(told.epoch)
        .with_heartbeat_interval_ms(i32::try_from(interval_ms).unwrap_or(i32::MAX))
        .with_assignment(assignment)
}

pub(super) async fn describe(broker: &Broker, request: ShareGroupDescribeRequest) -> ShareGroupDescribeResponse {
    let mut groups = Vec::new();
    // Each is told once, so that a request cannot multiply its answer.
    let mut told = HashSet::new();
    for name in request.group_ids {
        if !told.insert(name.clone()) {
            continue;
        }
        let group = DescribedGroup::default().with_authorized_operations(OPERATIONS_UNKNOWN);
        let group = match broker.share_view(&name) {
            Some(view) => group
                .with_group_state(text(view.state()))
                .with_group_epoch(view.epoch)
                .with_assignment_epoch(view.epoch)
                .with_assignor_name(text(share::ASSIGNOR))
                .with_members(view.members.into_iter().map(|member| described(broker, member)).collect()),
            None if name.is_empty() => group.with_error_code(ResponseError::InvalidGroupId.code()),
            None => {
                let why = if broker.inner.groups.knows(&name).await {
                    format!("group `{}` is not a share group", name.as_str())
                } else {
                    format!("group `{}` does not exist", name.as_str())
                };
                group.with_error_code(ResponseError::GroupIdNotFound.code()).with_error_message(Some(reason(why)))
            }
        };
        groups.push(group.with_group_id(name));
    }
    ShareGroupDescribeResponse::default().with_groups(groups)
}

fn described(broker: &Broker, member: MemberView) -> Member {
    // Topics that are gone are left out, as they have no name.
    let topics = member.assigned.topics().filter_map(|(topic, partitions)| {
        let name = broker.inner.topics.get_by_id(topic)?.name.clone();
        let partitions = partitions.iter().map(|partition| *partition as i32).collect();
        let described = DescribedPartitions::default().with_topic_id(topic).with_topic_name(text(name).into());
        Some(described.with_partitions(partitions))
    });
    let assignment = DescribedAssignment::default().with_topic_partitions(topics.collect());
    Member::default()
        .with_member_id(text(member.id))
        .with_rack_id(member.rack.map(text))
        .with_member_epoch(member.epoch)
        .with_client_id(text(member.client_id))
        .with_client_host(text(member.client_host))
        .with_subscribed_topic_names(member.names.into_iter().map(|name| TopicName::from(text(name))).collect())
        .with_assignment(assignment)
}
