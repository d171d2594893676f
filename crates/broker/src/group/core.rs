//! The group coordinator's protocol core: one door, input in, effects out. Called by the driver, which owns time,
//! tickets and storage.
//!
//! It guarantees: every ticket gets exactly one reply, now or by a later input; a generation's answer names exactly the
//! members that joined it (and static ones still within their session); nothing here waits, stores or asks the hour.
//! The rules are those of Kafka's classic protocol (KIP-62, 345, 394, 814). Cooperative rebalancing needs nothing of the
//! broker: it lives in the protocol metadata, which passes through.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::{
    consumer::{About, Change, Classic, Moving, PROTOCOL_TYPE, Told},
    member::{GroupError, GroupLimits, GroupSnapshot, Identity, Join, Joined, MemberSnapshot, Synced},
};

mod rebalance;

/// What a member takes besides its texts and blobs, about.
const MEMBER_BYTES: usize = 512;
/// The first version of OffsetCommit that can say that there is no such group.
const GROUP_NOT_FOUND_FIRST: i16 = 9;
/// The shortest session that Kafka takes where nobody says otherwise.
const KAFKA_SESSION_MS_MIN: u64 = 6_000;
/// What an id that was given out and not yet used takes besides itself, about.
const PENDING_BYTES: usize = 64;

/// One waiting request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// What may come through the door.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Join {
        ticket: Ticket,
        group: String,
        join: Join,
    },
    Sync {
        ticket: Ticket,
        group: String,
        who: Identity,
        generation: i32,
        protocol_type: Option<String>,
        protocol: Option<String>,
        assignments: Vec<(String, Bytes)>,
    },
    Heartbeat {
        ticket: Ticket,
        group: String,
        who: Identity,
        generation: i32,
    },
    Leave {
        ticket: Ticket,
        group: String,
        who: Vec<Identity>,
    },
    /// May this member commit offsets now, with a request of this version?
    Commit {
        ticket: Ticket,
        group: String,
        who: Identity,
        generation: i32,
        version: i16,
    },
    Delete {
        ticket: Ticket,
        group: String,
    },
    /// Time has passed.
    Tick,
}

impl Input {
    /// The group that it is about.
    pub(crate) fn group(&self) -> Option<&str> {
        match self {
            Self::Join { group, .. }
            | Self::Sync { group, .. }
            | Self::Heartbeat { group, .. }
            | Self::Leave { group, .. }
            | Self::Commit { group, .. }
            | Self::Delete { group, .. } => Some(group),
            Self::Tick => None,
        }
    }
}

/// What the driver must do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Make this durable before any reply that follows it.
    Store(GroupSnapshot),
    /// As [`Store`](Self::Store), of a consumer group.
    Change {
        group: String,
        changes: Vec<Change>,
    },
    /// Find out which topics these expressions of a consumer group name, and say it.
    Ask {
        group: String,
        regexes: Vec<String>,
    },
    Reply(Ticket, Reply),
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    Joined(Joined),
    /// Join again with this id.
    MemberIdRequired(String),
    Synced(Synced),
    Done,
    Left(Vec<Result<(), GroupError>>),
    /// To a heartbeat of a consumer group.
    Told(Told),
    Refused(GroupError),
}

/// Where a group is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl GroupState {
    /// Kafka's name of it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

#[derive(Debug)]
struct Member {
    instance: Option<String>,
    client_id: String,
    client_host: String,
    session_timeout_ms: u64,
    rebalance_timeout_ms: u64,
    protocols: Vec<(String, Bytes)>,
    assignment: Bytes,
    joining: Option<Ticket>,
    syncing: Option<Ticket>,
    synced: bool,
    session_ends_ms: u64,
}

impl Member {
    fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, data)| data.clone()).unwrap_or_default()
    }
}

#[derive(Debug)]
struct Group {
    state: GroupState,
    generation: i32,
    protocol_type: String,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Ids given out by KIP-394 and not yet used, with the time they lapse.
    pending: HashMap<String, u64>,
    /// End of the join or sync phase.
    phase_ends_ms: u64,
    /// Until then an empty group that gets its first member waits for more.
    gather_until_ms: u64,
    /// What it took when it was last counted.
    bytes: usize,
}

/// All groups of this broker.
#[derive(Debug)]
pub(crate) struct Core {
    limits: GroupLimits,
    groups: HashMap<String, Group>,
    /// What all groups take.
    bytes: usize,
    /// What those of the other protocol take.
    others_bytes: usize,
}

impl Core {
    pub(crate) fn new(limits: GroupLimits) -> Self {
        Self { limits, groups: HashMap::new(), bytes: 0, others_bytes: 0 }
    }

    /// The one door.
    pub(crate) fn handle(&mut self, now_ms: u64, input: Input) -> Vec<Effect> {
        let mut out = Vec::new();
        match input {
            Input::Join { ticket, group, join } => {
                self.join(now_ms, ticket, &group, join, &mut out);
                self.count(&group);
            }
            Input::Sync { ticket, group, who, generation, protocol_type, protocol, assignments } => {
                let asked = assignments.iter().map(|(member, assignment)| member.len() + assignment.len()).sum();
                let result = self.check_bytes(&group, asked);
                let named = (protocol_type.as_deref(), protocol.as_deref());
                let result = result
                    .and_then(|()| self.group(&group))
                    .and_then(|g| g.sync(now_ms, &group, ticket, &who, generation, named, assignments, &mut out));
                refuse(ticket, result, &mut out);
                self.count(&group);
            }
            Input::Heartbeat { ticket, group, who, generation } => {
                let result = self.group(&group).and_then(|g| g.heartbeat(now_ms, &who, generation));
                answer(ticket, result, &mut out);
            }
            Input::Leave { ticket, group, who } => match self.group(&group) {
                Err(error) => out.push(Effect::Reply(ticket, Reply::Refused(error))),
                Ok(g) => {
                    let left = who.iter().map(|who| g.leave(now_ms, &group, who, &mut out)).collect();
                    out.push(Effect::Reply(ticket, Reply::Left(left)));
                    self.count(&group);
                }
            },
            Input::Commit { ticket, group, who, generation, version } => {
                let result = self.may_commit(now_ms, &group, &who, generation, version);
                answer(ticket, result, &mut out);
            }
            Input::Delete { ticket, group } => {
                let result = self.delete(&group);
                answer(ticket, result, &mut out);
            }
            Input::Tick => {
                for (name, group) in &mut self.groups {
                    if group.tick(now_ms, name, &mut out) {
                        self.bytes = self.bytes.saturating_sub(group.bytes);
                        group.bytes = group.count();
                        self.bytes += group.bytes;
                    }
                }
            }
        }
        out
    }

    /// When [`Input::Tick`] is next needed.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.groups.values().filter_map(Group::next_deadline_ms).min()
    }

    /// Takes in a group read back from storage; its members have one session to be heard of.
    pub(crate) fn restore(&mut self, now_ms: u64, stored: GroupSnapshot) {
        let protocol = stored.protocol.clone().unwrap_or_default();
        let mut group = Group::new();
        group.generation = stored.generation;
        group.protocol_type = stored.protocol_type;
        for member in stored.members {
            let value = Member {
                instance: member.instance,
                client_id: member.client_id,
                client_host: member.client_host,
                session_timeout_ms: member.session_timeout_ms,
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                protocols: vec![(protocol.clone(), member.subscription)],
                assignment: member.assignment,
                joining: None,
                syncing: None,
                synced: true,
                session_ends_ms: now_ms + member.session_timeout_ms,
            };
            group.members.insert(member.id, value);
        }
        if !group.members.is_empty() {
            group.state = GroupState::Stable;
            group.protocol = stored.protocol;
            group.leader = stored.leader;
        }
        let name = stored.group;
        self.groups.insert(name.clone(), group);
        self.count(&name);
    }

    /// Counts anew what a group takes.
    fn count(&mut self, name: &str) {
        if let Some(group) = self.groups.get_mut(name) {
            self.bytes = self.bytes.saturating_sub(group.bytes);
            group.bytes = group.count();
            self.bytes += group.bytes;
        }
    }

    /// Whether a group may take so much more.
    fn check_bytes(&self, name: &str, more: usize) -> Result<(), GroupError> {
        let taken = self.groups.get(name).map_or(0, |group| group.bytes);
        if taken.saturating_add(more) > self.limits.group_bytes_max {
            Err(GroupError::GroupFull)
        } else if self.bytes.saturating_add(self.others_bytes).saturating_add(more) > self.limits.groups_bytes_max {
            Err(GroupError::Unavailable)
        } else {
            Ok(())
        }
    }

    /// A group as it is now, and its state.
    pub(crate) fn describe(&self, name: &str) -> Option<(GroupState, GroupSnapshot)> {
        self.groups.get(name).map(|group| (group.state, group.snapshot(name)))
    }

    /// Groups without members, that nobody is about to join.
    pub(crate) fn idle(&self) -> impl Iterator<Item = String> + '_ {
        let idle = self.groups.iter().filter(|(_, group)| group.state == GroupState::Empty && group.pending.is_empty());
        idle.map(|(name, _)| name.clone())
    }

    /// Names, states and protocol types of all groups.
    pub(crate) fn list(&self) -> Vec<(String, GroupState, String)> {
        self.groups.iter().map(|(name, g)| (name.clone(), g.state, g.protocol_type.clone())).collect()
    }

    /// The state of a group, if it is one of these.
    pub(crate) fn state(&self, name: &str) -> Option<GroupState> {
        self.groups
            .get(name)
            .map(|group| if group.pending.is_empty() { group.state } else { GroupState::PreparingRebalance })
    }

    /// Is told what groups of the other protocol take, with which these share the bound.
    pub(crate) const fn share(&mut self, others_bytes: usize) {
        self.others_bytes = others_bytes;
    }

    /// What all of them take.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins a group where one of the consumer protocol was, whose epoch its generation goes on from.
    pub(crate) fn begin(&mut self, name: &str, epoch: i32) {
        let group = self.groups.entry(name.to_owned()).or_insert_with(Group::new);
        group.generation = group.generation.max(epoch);
    }

    /// Forgets a group that has no members; its generation.
    pub(crate) fn end(&mut self, name: &str) -> i32 {
        let Some(group) = self.groups.remove(name) else { return 0 };
        self.bytes = self.bytes.saturating_sub(group.bytes);
        group.generation
    }

    /// The members of a group that goes over to the new protocol, and its generation; the group ends here. `None` while it is not
    /// stable, or where its members are not consumers.
    pub(crate) fn dissolve(&mut self, name: &str) -> Option<(i32, Vec<Moving>)> {
        let group = self.groups.get(name)?;
        if group.state != GroupState::Stable || group.protocol_type != PROTOCOL_TYPE {
            return None;
        }
        let chosen = group.protocol.clone();
        let moving = group.members.iter().map(|(id, member)| {
            let mut protocols = member.protocols.clone();
            // The one that is in force comes first: it is the one that is told from now on.
            protocols.sort_by_key(|(protocol, _)| Some(protocol) != chosen.as_ref());
            let classic = Classic { session_timeout_ms: member.session_timeout_ms, protocols };
            let about = About {
                instance: member.instance.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                classic: Some(classic),
                ..About::default()
            };
            (id.clone(), about, member.assignment.clone())
        });
        let moving = moving.collect();
        Some((self.end(name), moving))
    }

    /// Takes in the members of a group that comes back from the new protocol, and has them join again; the group as it is stored.
    pub(crate) fn adopt(&mut self, now_ms: u64, name: &str, generation: i32, members: Vec<Moving>) -> GroupSnapshot {
        let mut group = Group::new();
        group.generation = generation;
        PROTOCOL_TYPE.clone_into(&mut group.protocol_type);
        for (id, about, assignment) in members {
            let classic = about.classic.unwrap_or_default();
            let member = Member {
                instance: about.instance,
                client_id: about.client_id,
                client_host: about.client_host,
                session_timeout_ms: classic.session_timeout_ms,
                rebalance_timeout_ms: about.rebalance_timeout_ms,
                protocols: classic.protocols,
                assignment,
                joining: None,
                syncing: None,
                synced: true,
                session_ends_ms: now_ms + classic.session_timeout_ms,
            };
            group.members.insert(id, member);
        }
        group.state = GroupState::Stable;
        group.protocol = group.elect_protocol();
        group.leader = group.members.keys().next().cloned();
        let snapshot = group.snapshot(name);
        group.prepare_rebalance(now_ms, &mut Vec::new());
        self.groups.insert(name.to_owned(), group);
        self.count(name);
        snapshot
    }

    fn group(&mut self, name: &str) -> Result<&mut Group, GroupError> {
        if name.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        self.groups.get_mut(name).ok_or(GroupError::UnknownMember)
    }

    fn may_commit(
        &mut self,
        now_ms: u64,
        name: &str,
        who: &Identity,
        generation: i32,
        version: i16,
    ) -> Result<(), GroupError> {
        let Some(group) = self.groups.get_mut(name) else {
            return match generation {
                // A consumer that assigns partitions itself commits without ever joining.
                ..0 => Ok(()),
                _ if version >= GROUP_NOT_FOUND_FIRST => Err(GroupError::GroupNotFound),
                _ => Err(GroupError::IllegalGeneration),
            };
        };
        if generation < 0 && group.state == GroupState::Empty {
            return Ok(());
        }
        group.validate(who, generation)?;
        if group.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        group.touch(now_ms, &who.member);
        Ok(())
    }

    fn delete(&mut self, name: &str) -> Result<(), GroupError> {
        match self.groups.get(name) {
            Some(group) if group.state != GroupState::Empty => Err(GroupError::NotEmpty),
            Some(group) => {
                self.bytes = self.bytes.saturating_sub(group.bytes);
                self.groups.remove(name);
                Ok(())
            }
            None => Err(GroupError::GroupNotFound),
        }
    }

    fn join(&mut self, now_ms: u64, ticket: Ticket, name: &str, join: Join, out: &mut Vec<Effect>) {
        if self.groups.len() >= self.limits.groups_max {
            // Groups without members hold nothing here that matters: their offsets are kept elsewhere.
            self.groups.retain(|_, group| group.state != GroupState::Empty || !group.pending.is_empty());
            self.bytes = self.groups.values().map(|group| group.bytes).sum();
        }
        let result = self.check_join(name, &join).and_then(|()| {
            let limits = self.limits.clone();
            let group = self.groups.entry(name.to_owned()).or_insert_with(Group::new);
            group.join(now_ms, name, ticket, join, &limits, out)
        });
        refuse(ticket, result, out);
    }

    fn check_join(&self, name: &str, join: &Join) -> Result<(), GroupError> {
        if name.is_empty() {
            return Err(GroupError::InvalidGroupId);
        }
        let limits = &self.limits;
        if !(limits.session_timeout_ms_min..=limits.session_timeout_ms_max).contains(&join.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        self.check_bytes(name, join.bytes())?;
        if join.protocols.is_empty() || join.protocol_type.is_empty() {
            // Of two mistakes Kafka names the time, which it takes from 6 s on unless it is told otherwise.
            let is_short = join.session_timeout_ms < KAFKA_SESSION_MS_MIN;
            return Err(if is_short { GroupError::InvalidSessionTimeout } else { GroupError::InconsistentProtocol });
        }
        if !self.groups.contains_key(name) {
            if !join.who.member.is_empty() {
                return Err(GroupError::UnknownMember);
            }
            if self.groups.len() >= limits.groups_max {
                return Err(GroupError::Unavailable);
            }
        }
        Ok(())
    }
}

fn answer(ticket: Ticket, result: Result<(), GroupError>, out: &mut Vec<Effect>) {
    out.push(Effect::Reply(ticket, result.map_or_else(Reply::Refused, |()| Reply::Done)));
}

fn refuse(ticket: Ticket, result: Result<(), GroupError>, out: &mut Vec<Effect>) {
    if let Err(error) = result {
        out.push(Effect::Reply(ticket, Reply::Refused(error)));
    }
}

impl Group {
    fn new() -> Self {
        Self {
            state: GroupState::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            pending: HashMap::new(),
            phase_ends_ms: u64::MAX,
            gather_until_ms: 0,
            bytes: 0,
        }
    }

    fn snapshot(&self, name: &str) -> GroupSnapshot {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| MemberSnapshot {
            id: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(&protocol),
            assignment: member.assignment.clone(),
        });
        GroupSnapshot {
            group: name.to_owned(),
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: members.collect(),
        }
    }

    /// What it takes in memory, about.
    fn count(&self) -> usize {
        let members = self.members.iter().map(|(id, member)| {
            let texts = id.len() + member.client_id.len() + member.client_host.len();
            let instance = member.instance.as_ref().map_or(0, String::len);
            let protocols: usize = member.protocols.iter().map(|(name, data)| name.len() + data.len()).sum();
            MEMBER_BYTES + texts + instance + protocols + member.assignment.len()
        });
        let pending = self.pending.keys().map(|id| PENDING_BYTES + id.len());
        members.chain(pending).sum()
    }

    fn touch(&mut self, now_ms: u64, member: &str) {
        if let Some(member) = self.members.get_mut(member) {
            member.session_ends_ms = now_ms + member.session_timeout_ms;
        }
    }

    fn static_member(&self, instance: &str) -> Option<String> {
        let found = self.members.iter().find(|(_, member)| member.instance.as_deref() == Some(instance));
        found.map(|(id, _)| id.clone())
    }

    /// Whether this identity is a member, and not one that another has replaced.
    fn known(&self, who: &Identity) -> Result<(), GroupError> {
        if let Some(instance) = &who.instance {
            return match self.static_member(instance) {
                None => Err(GroupError::UnknownMember),
                Some(id) if id != who.member => Err(GroupError::FencedInstance),
                Some(_) => Ok(()),
            };
        }
        if self.members.contains_key(&who.member) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    fn validate(&self, who: &Identity, generation: i32) -> Result<(), GroupError> {
        self.known(who)?;
        if generation == self.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    fn heartbeat(&mut self, now_ms: u64, who: &Identity, generation: i32) -> Result<(), GroupError> {
        self.validate(who, generation)?;
        self.touch(now_ms, &who.member);
        if self.state == GroupState::PreparingRebalance { Err(GroupError::RebalanceInProgress) } else { Ok(()) }
    }

    fn leave(&mut self, now_ms: u64, name: &str, who: &Identity, out: &mut Vec<Effect>) -> Result<(), GroupError> {
        let mut id = who.member.clone();
        if let (true, Some(instance)) = (id.is_empty(), &who.instance) {
            // An administrator removes a static member by its instance id alone.
            id = self.static_member(instance).ok_or(GroupError::UnknownMember)?;
        } else if self.pending.remove(&id).is_some() {
            self.try_complete_join(now_ms, name, out);
            return Ok(());
        } else {
            self.known(who)?;
        }
        self.remove(&id, GroupError::UnknownMember, out);
        self.after_loss(now_ms, name, out);
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // they are the fields of one request
    fn sync(
        &mut self,
        now_ms: u64,
        name: &str,
        ticket: Ticket,
        who: &Identity,
        generation: i32,
        (protocol_type, protocol): (Option<&str>, Option<&str>),
        assignments: Vec<(String, Bytes)>,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        self.validate(who, generation)?;
        let is_other = protocol.is_some() && protocol != self.protocol.as_deref();
        if is_other || protocol_type.is_some_and(|named| named != self.protocol_type) {
            return Err(GroupError::InconsistentProtocol);
        }
        self.touch(now_ms, &who.member);
        match self.state {
            GroupState::Empty => Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::Stable => {
                self.reply_sync(&who.member, ticket, out);
                Ok(())
            }
            GroupState::CompletingRebalance => {
                let member = self.members.get_mut(&who.member).ok_or(GroupError::UnknownMember)?;
                member.synced = true;
                if let Some(older) = member.syncing.replace(ticket) {
                    out.push(Effect::Reply(older, Reply::Refused(GroupError::RebalanceInProgress)));
                }
                if self.leader.as_deref() == Some(&who.member) {
                    self.complete_sync(now_ms, name, assignments, out);
                }
                Ok(())
            }
        }
    }

    fn reply_sync(&self, member: &str, ticket: Ticket, out: &mut Vec<Effect>) {
        let assignment = self.members.get(member).map(|member| member.assignment.clone()).unwrap_or_default();
        let protocol = self.protocol.clone().unwrap_or_default();
        let synced = Synced { protocol_type: self.protocol_type.clone(), protocol, assignment };
        out.push(Effect::Reply(ticket, Reply::Synced(synced)));
    }

    /// What a member is told of the generation there is.
    fn joined(&self, member: &str) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == member {
            let all = self.members.iter();
            all.map(|(id, m)| (id.clone(), m.instance.clone(), m.metadata(&protocol))).collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol,
            leader,
            member: member.to_owned(),
            skip_assignment: false,
            members,
        }
    }
}
