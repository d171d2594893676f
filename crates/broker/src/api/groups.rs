//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup, DescribeGroups, ListGroups, DeleteGroups: the codec's values to the
//! coordinator's and back.

use std::collections::HashSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, HeartbeatRequest,
        HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
        ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
        delete_groups_response::DeletableGroupResult,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
        join_group_response::JoinGroupResponseMember,
        leave_group_response::MemberResponse,
        list_groups_response::ListedGroup,
    },
    protocol::StrBytes,
};

use super::{Session, codes, reason, text};
use crate::{
    broker::Broker,
    group::{GroupError, GroupSnapshot, GroupState, GroupView, Identity, Input, Join, Joined, Listed, Reply},
};

/// How much of a client's or instance's id begins its member id.
const MEMBER_PREFIX_CHARS_MAX: usize = 255;
const REBALANCE_TIMEOUT_FIRST: i16 = 1;
const ID_REQUIRED_FIRST: i16 = 4;
const LEAVE_MANY_FIRST: i16 = 3;
const PROTOCOL_NULL_FIRST: i16 = 7;
const SKIP_FIRST: i16 = 9;
/// The first version of SyncGroup that names the protocol, and must.
const SYNC_PROTOCOL_FIRST: i16 = 5;
const WHY_DEAD_FIRST: i16 = 6;

fn identity(member: &StrBytes, instance: Option<&StrBytes>) -> Identity {
    Identity { member: member.to_string(), instance: instance.map(ToString::to_string) }
}

fn millis(value: i32) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// The reply that cannot come; the request is then answered as if the coordinator were away.
const fn unexpected(reply: &Reply) -> GroupError {
    match reply {
        Reply::Refused(error) => *error,
        _ => GroupError::Unavailable,
    }
}

pub(super) async fn join(
    broker: &Broker,
    session: &Session,
    request: JoinGroupRequest,
    version: i16,
) -> JoinGroupResponse {
    let instance = request.group_instance_id.as_ref();
    let prefix = instance.map_or_else(|| session.client_id.clone(), ToString::to_string);
    let prefix: String = prefix.chars().take(MEMBER_PREFIX_CHARS_MAX).collect();
    let unique = broker.inner.entropy.uuid_v7(broker.inner.clock.now());
    let rebalance =
        if version >= REBALANCE_TIMEOUT_FIRST { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    let join = Join {
        who: identity(&request.member_id, instance),
        fresh_member_id: format!("{prefix}-{unique}"),
        client_id: session.client_id.clone(),
        client_host: format!("/{}", session.host),
        session_timeout_ms: millis(request.session_timeout_ms),
        rebalance_timeout_ms: millis(rebalance),
        protocol_type: request.protocol_type.to_string(),
        protocols: request.protocols.iter().map(|p| (p.name.to_string(), p.metadata.clone())).collect(),
        id_required: version >= ID_REQUIRED_FIRST,
        may_skip_assignment: version >= SKIP_FIRST,
    };
    let group = request.group_id.to_string();
    let reply = if broker.inner.shares.has(&group) {
        Reply::Refused(GroupError::InconsistentProtocol)
    } else {
        broker.inner.groups.ask(move |ticket| Input::Join { ticket, group, join }).await
    };
    // Until version 6 the protocol's name could not be null.
    let no_protocol = (version < PROTOCOL_NULL_FIRST).then(StrBytes::new);
    let refused = JoinGroupResponse::default().with_generation_id(-1).with_protocol_name(no_protocol);
    match reply {
        Reply::Joined(joined) => joined_response(joined),
        Reply::MemberIdRequired(id) => {
            refused.with_error_code(ResponseError::MemberIdRequired.code()).with_member_id(text(id))
        }
        other => refused.with_error_code(codes::of_group(unexpected(&other))).with_member_id(request.member_id),
    }
}

fn joined_response(joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|(id, instance, metadata)| {
        let member = JoinGroupResponseMember::default().with_member_id(text(id)).with_metadata(metadata);
        member.with_group_instance_id(instance.map(text))
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(text(joined.protocol_type)))
        .with_protocol_name(Some(text(joined.protocol)))
        .with_leader(text(joined.leader))
        .with_member_id(text(joined.member))
        .with_skip_assignment(joined.skip_assignment)
        .with_members(members.collect())
}

pub(super) async fn sync(broker: &Broker, request: SyncGroupRequest, version: i16) -> SyncGroupResponse {
    if version >= SYNC_PROTOCOL_FIRST && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return SyncGroupResponse::default().with_error_code(codes::of_group(GroupError::InconsistentProtocol));
    }
    let who = identity(&request.member_id, request.group_instance_id.as_ref());
    let group = request.group_id.to_string();
    let generation = request.generation_id;
    let protocol = request.protocol_name.as_ref().map(ToString::to_string);
    let protocol_type = request.protocol_type.as_ref().map(ToString::to_string);
    let assignments = request.assignments.into_iter().map(|a| (a.member_id.to_string(), a.assignment)).collect();
    let input = move |ticket| Input::Sync { ticket, group, who, generation, protocol_type, protocol, assignments };
    match broker.inner.groups.ask(input).await {
        Reply::Synced(synced) => SyncGroupResponse::default()
            .with_protocol_type(Some(text(synced.protocol_type)))
            .with_protocol_name(Some(text(synced.protocol)))
            .with_assignment(synced.assignment),
        other => SyncGroupResponse::default().with_error_code(codes::of_group(unexpected(&other))),
    }
}

pub(super) async fn heartbeat(broker: &Broker, request: HeartbeatRequest) -> HeartbeatResponse {
    let who = identity(&request.member_id, request.group_instance_id.as_ref());
    let (group, generation) = (request.group_id.to_string(), request.generation_id);
    match broker.inner.groups.ask(move |ticket| Input::Heartbeat { ticket, group, who, generation }).await {
        Reply::Done => HeartbeatResponse::default(),
        other => HeartbeatResponse::default().with_error_code(codes::of_group(unexpected(&other))),
    }
}

pub(super) async fn leave(broker: &Broker, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    let many = version >= LEAVE_MANY_FIRST;
    let named: Vec<(StrBytes, Option<StrBytes>)> = if many {
        request.members.into_iter().map(|member| (member.member_id, member.group_instance_id)).collect()
    } else {
        vec![(request.member_id, None)]
    };
    let who = named.iter().map(|(member, instance)| identity(member, instance.as_ref())).collect();
    let group = request.group_id.to_string();
    let left = match broker.inner.groups.ask(move |ticket| Input::Leave { ticket, group, who }).await {
        Reply::Left(left) => left,
        // Nobody is in a group that is not there.
        Reply::Refused(GroupError::UnknownMember) if many => vec![Err(GroupError::UnknownMember); named.len()],
        other => return LeaveGroupResponse::default().with_error_code(codes::of_group(unexpected(&other))),
    };
    let code = |left: &Result<(), GroupError>| left.map_or_else(codes::of_group, |()| codes::NONE);
    if !many {
        return LeaveGroupResponse::default().with_error_code(left.first().map_or(codes::NONE, code));
    }
    let members = named.into_iter().zip(&left).map(|((member, instance), left)| {
        MemberResponse::default().with_member_id(member).with_group_instance_id(instance).with_error_code(code(left))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

pub(super) async fn describe(broker: &Broker, request: DescribeGroupsRequest, version: i16) -> DescribeGroupsResponse {
    let mut groups = Vec::new();
    // Each is told once, so that a request cannot multiply its answer.
    let mut told = HashSet::new();
    for name in request.groups {
        if !told.insert(name.clone()) {
            continue;
        }
        let view = broker.inner.groups.describe(&name).await;
        let has_offsets = !broker.inner.groups.committed_all(&name).is_empty();
        let group = DescribedGroup::default().with_group_id(name.clone());
        groups.push(match view {
            Some(GroupView::Classic(state, snapshot)) => described(group, state, snapshot),
            // As Kafka says of a group that this request cannot describe.
            Some(GroupView::Consumer(_)) => {
                dead(group, version, format!("group `{}` is not a classic group", name.as_str()))
            }
            None if has_offsets => group.with_group_state(text("Empty")),
            None => dead(group, version, format!("group `{}` does not exist", name.as_str())),
        });
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn dead(group: DescribedGroup, version: i16, why: String) -> DescribedGroup {
    let dead = group.with_group_state(text("Dead"));
    if version < WHY_DEAD_FIRST {
        return dead;
    }
    dead.with_error_message(Some(reason(why))).with_error_code(ResponseError::GroupIdNotFound.code())
}

fn described(group: DescribedGroup, state: GroupState, snapshot: GroupSnapshot) -> DescribedGroup {
    let members = snapshot.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(text(member.id))
            .with_group_instance_id(member.instance.map(text))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.subscription)
            .with_member_assignment(member.assignment)
    });
    group
        .with_group_state(text(state.name()))
        .with_protocol_type(text(snapshot.protocol_type))
        .with_protocol_data(text(snapshot.protocol.unwrap_or_default()))
        .with_members(members.collect())
}

pub(super) async fn list(broker: &Broker, request: ListGroupsRequest) -> ListGroupsResponse {
    let wanted = |filter: &[StrBytes], value: &str| {
        filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value))
    };
    let shares = broker.inner.shares.list().into_iter().map(|(name, state)| Listed {
        name,
        state,
        protocol_type: "share".to_owned(),
        group_type: "share",
    });
    let all = broker.inner.groups.list().await.into_iter().chain(shares);
    let asked = |listed: &Listed| {
        wanted(&request.states_filter, listed.state) && wanted(&request.types_filter, listed.group_type)
    };
    let groups = all.filter(asked).map(|listed| {
        ListedGroup::default()
            .with_group_id(text(listed.name).into())
            .with_protocol_type(text(listed.protocol_type))
            .with_group_state(text(listed.state))
            .with_group_type(text(listed.group_type))
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub(super) async fn delete(broker: &Broker, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::new();
    for name in request.groups_names {
        let deleted = if broker.inner.shares.has(&name) {
            broker.share_delete(&name).await
        } else {
            broker.inner.groups.delete(&name).await
        };
        let code = deleted.map_or_else(codes::of_group, |()| codes::NONE);
        results.push(DeletableGroupResult::default().with_group_id(name).with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}
