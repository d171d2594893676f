//! ConsumerGroupHeartbeat and ConsumerGroupDescribe (KIP-848): the codec's values to the coordinator's and back.

use std::collections::HashSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
        ConsumerGroupHeartbeatResponse, TopicName,
        consumer_group_describe_response::{
            Assignment as DescribedAssignment, DescribedGroup, Member, TopicPartitions as DescribedPartitions,
        },
        consumer_group_heartbeat_response::{Assignment, TopicPartitions},
    },
    protocol::StrBytes,
};

use super::{Session, codes, reason, text};
use crate::{
    broker::Broker,
    group::{
        GroupError, GroupView, Reply,
        consumer::{Beat, MemberView, Partitions, Told},
    },
};

/// What ConsumerGroupDescribe says of the operations that were not asked for.
const OPERATIONS_UNKNOWN: i32 = i32::MIN;
const CLASSIC_MEMBER: i8 = 0;
const CONSUMER_MEMBER: i8 = 1;

pub(super) async fn heartbeat(
    broker: &Broker,
    session: &Session,
    request: ConsumerGroupHeartbeatRequest,
    version: i16,
) -> ConsumerGroupHeartbeatResponse {
    let group = request.group_id.to_string();
    let told = match beat(broker, session, request, version) {
        Ok(_) if broker.inner.shares.has(&group) => Err(GroupError::GroupNotFound),
        Ok(beat) => match broker.inner.groups.beat(group, beat).await {
            Reply::Told(told) => Ok(told),
            Reply::Refused(error) => Err(error),
            _ => Err(GroupError::Unavailable),
        },
        Err(error) => Err(error),
    };
    match told {
        Ok(told) => answer(told),
        Err(error) => ConsumerGroupHeartbeatResponse::default()
            .with_error_code(codes::of_group(error))
            .with_error_message(Some(reason(error.says()))),
    }
}

fn answer(told: Told) -> ConsumerGroupHeartbeatResponse {
    let assignment = told.assignment.map(|partitions| {
        let topics = partitions.topics().map(|(topic, partitions)| {
            let partitions = partitions.iter().map(|partition| *partition as i32).collect();
            TopicPartitions::default().with_topic_id(topic).with_partitions(partitions)
        });
        Assignment::default().with_topic_partitions(topics.collect())
    });
    ConsumerGroupHeartbeatResponse::default()
        .with_member_id(Some(text(told.member)))
        .with_member_epoch(told.epoch)
        .with_heartbeat_interval_ms(i32::try_from(told.interval_ms).unwrap_or(i32::MAX))
        .with_assignment(assignment)
}

fn beat(
    broker: &Broker,
    session: &Session,
    request: ConsumerGroupHeartbeatRequest,
    version: i16,
) -> Result<Beat, GroupError> {
    let optional = |text: Option<StrBytes>| text.map(|text| text.to_string());
    // From version 1 on a member chooses its id; before, a new one had none.
    if request.member_id.is_empty() && (version >= 1 || request.member_epoch != 0) {
        return Err(GroupError::InvalidRequest);
    }
    let mut owned = request.topic_partitions.is_some().then(Partitions::default);
    for topic in request.topic_partitions.into_iter().flatten() {
        for partition in topic.partitions {
            let partition = u32::try_from(partition).map_err(|_| GroupError::InvalidRequest)?;
            owned.get_or_insert_default().insert(topic.topic_id, partition);
        }
    }
    let rebalance = match request.rebalance_timeout_ms {
        -1 => None,
        value => Some(u64::try_from(value).map_err(|_| GroupError::InvalidRequest)?),
    };
    Ok(Beat {
        member: request.member_id.to_string(),
        fresh_member_id: broker.inner.entropy.uuid_v7(broker.inner.clock.now()).to_string(),
        epoch: request.member_epoch,
        instance: optional(request.instance_id),
        rack: optional(request.rack_id),
        rebalance_timeout_ms: rebalance,
        names: request.subscribed_topic_names.map(|names| names.iter().map(|name| name.to_string()).collect()),
        regex: optional(request.subscribed_topic_regex),
        named: None,
        assignor: optional(request.server_assignor),
        owned,
        client_id: session.client_id.clone(),
        client_host: format!("/{}", session.host),
    })
}

pub(super) async fn describe(broker: &Broker, request: ConsumerGroupDescribeRequest) -> ConsumerGroupDescribeResponse {
    let mut groups = Vec::new();
    // Each is told once, so that a request cannot multiply its answer.
    let mut told = HashSet::new();
    for name in request.group_ids {
        if !told.insert(name.clone()) {
            continue;
        }
        let group = DescribedGroup::default().with_authorized_operations(OPERATIONS_UNKNOWN);
        let group = match broker.inner.groups.describe(&name).await {
            Some(GroupView::Consumer(view)) => group
                .with_group_state(text(view.state.name()))
                .with_group_epoch(view.epoch)
                .with_assignment_epoch(view.target_epoch)
                .with_assignor_name(text(view.assignor))
                .with_members(view.members.into_iter().map(|member| described(broker, member)).collect()),
            None if name.is_empty() => group.with_error_code(ResponseError::InvalidGroupId.code()),
            other => {
                let why = match other {
                    Some(_) => format!("group `{}` is not a consumer group", name.as_str()),
                    None => format!("group `{}` does not exist", name.as_str()),
                };
                group.with_error_code(ResponseError::GroupIdNotFound.code()).with_error_message(Some(reason(why)))
            }
        };
        groups.push(group.with_group_id(name));
    }
    ConsumerGroupDescribeResponse::default().with_groups(groups)
}

fn described(broker: &Broker, member: MemberView) -> Member {
    let about = member.about;
    let member_type = if about.classic.is_some() { CLASSIC_MEMBER } else { CONSUMER_MEMBER };
    Member::default()
        .with_member_id(text(member.id))
        .with_instance_id(about.instance.map(text))
        .with_rack_id(about.rack.map(text))
        .with_member_epoch(member.epoch)
        .with_client_id(text(about.client_id))
        .with_client_host(text(about.client_host))
        .with_subscribed_topic_names(about.names.into_iter().map(|name| TopicName::from(text(name))).collect())
        .with_subscribed_topic_regex(about.regex.map(text))
        .with_assignment(named(broker, &member.assigned))
        .with_target_assignment(named(broker, &member.target))
        .with_member_type(member_type)
}

/// Partitions with the names of their topics; those of topics that are gone are left out, as they have none.
fn named(broker: &Broker, partitions: &Partitions) -> DescribedAssignment {
    let topics = partitions.topics().filter_map(|(topic, partitions)| {
        let name = broker.inner.topics.get_by_id(topic)?.name.clone();
        let partitions = partitions.iter().map(|partition| *partition as i32).collect();
        let described = DescribedPartitions::default().with_topic_id(topic).with_topic_name(text(name).into());
        Some(described.with_partitions(partitions))
    });
    DescribedAssignment::default().with_topic_partitions(topics.collect())
}
