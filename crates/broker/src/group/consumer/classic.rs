//! Members of the classic protocol in a consumer group (KIP-848, "upgrade of a live group"): the broker assigns to them too, and
//! tells them in the answers of their protocol. Called by the core.
//!
//! Such a member is told to join again whenever there is news. In its JoinGroup it says what it has, and that is its last word
//! until its next SyncGroup is answered: unlike a member of the new protocol it cannot be about to begin with something else.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use uuid::Uuid;

use super::{
    AWAY, Change, Partitions, Stored, Topics,
    core::Core,
    embedded::{self, ByName},
    group::{Group, Surroundings},
    member::{About, Classic, Current, State},
};
use crate::group::{Effect, GroupError, Identity, Join, Joined, Reply, Synced, Ticket};

/// The type of protocol that consumers speak within the classic one.
pub(crate) const PROTOCOL_TYPE: &str = "consumer";

/// A member on its way from one protocol to the other: its id, what it said, and its assignment as the classic protocol has it.
pub(crate) type Moving = (String, About, Bytes);

/// A request of a classic member.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Join(Box<Join>),
    Sync(Identity, i32),
    Heartbeat(Identity, i32),
    Leave(Vec<Identity>),
}

impl Core {
    pub(super) fn classic(
        &mut self,
        now_ms: u64,
        ticket: Ticket,
        name: &str,
        request: Request,
        topics: &dyn Topics,
        taken: usize,
    ) -> Vec<Effect> {
        let mut out = Vec::new();
        let limits = self.limits.clone();
        let result = self.change(now_ms, name, topics, taken, &mut out, |group, around, changes| match request {
            Request::Join(join) => {
                let session = join.session_timeout_ms;
                if !(limits.session_timeout_ms_min..=limits.session_timeout_ms_max).contains(&session) {
                    return Err(GroupError::InvalidSessionTimeout);
                }
                group.join_classic(around, *join, changes)
            }
            Request::Sync(who, generation) => group.sync_classic(around, &who, generation).map(Reply::Synced),
            Request::Heartbeat(who, generation) => group.heard(around, &who, generation).map(|()| Reply::Done),
            Request::Leave(who) => Ok(Reply::Left(group.leave_classic(around, &who, changes))),
        });
        let reply = result.unwrap_or(Err(GroupError::UnknownMember)).unwrap_or_else(Reply::Refused);
        out.push(Effect::Reply(ticket, reply));
        out
    }

    /// Takes in the members of a classic group that goes over; `None` where one of them cannot be a member here.
    pub(crate) fn adopt(
        &mut self,
        now_ms: u64,
        name: &str,
        generation: i32,
        members: Vec<Moving>,
        topics: &dyn Topics,
    ) -> Option<Vec<Change>> {
        let generation = generation.max(1);
        let mut stored = Stored { epoch: generation, target_epoch: generation, ..Stored::default() };
        let mut given = Partitions::default();
        for (id, mut about, assignment) in members {
            let said = embedded::subscription(&about.classic.as_ref()?.protocols.first()?.1)?;
            about.names = said.topics;
            about.rack = said.rack;
            for topic in &about.names {
                stored.topics.extend(topics.find(topic).map(|found| (topic.clone(), found)));
            }
            let assigned = by_id(&embedded::assignment(&assignment)?, topics).without(&given);
            given.extend(assigned.iter());
            let current = Current { epoch: generation, previous_epoch: generation, assigned, ..Current::default() };
            stored.targets.insert(id.clone(), current.assigned.clone());
            stored.currents.insert(id.clone(), current);
            stored.members.insert(id, about);
        }
        let mut changes = vec![Change::Classic(None)];
        changes.extend(stored.changes());
        self.restore(now_ms, name.to_owned(), stored);
        Some(changes)
    }

    /// Groups that have members and none of the new protocol among them: they go back to the classic one.
    pub(crate) fn only_classic(&mut self) -> Vec<String> {
        let mut left = std::mem::take(&mut self.left);
        left.sort_unstable();
        left.dedup();
        left.retain(|name| {
            let members = self.groups.get(name).map(|group| &group.members);
            members.is_some_and(|all| !all.is_empty() && all.values().all(|member| member.about.classic.is_some()))
        });
        left
    }

    /// Ends a group that goes back; its epoch, its members, and what must be written for the end.
    pub(crate) fn disband(&mut self, name: &str) -> (i32, Vec<Moving>, Vec<Change>) {
        let Some(group) = self.groups.get(name) else { return (0, Vec::new(), Vec::new()) };
        let moving = group.members.iter().map(|(id, member)| {
            (id.to_string(), member.about.clone(), group.encoded(&member.about, &member.current.assigned))
        });
        let (epoch, moving) = (group.epoch, moving.collect());
        (epoch, moving, self.end(name))
    }
}

impl Group {
    fn join_classic(
        &mut self,
        around: &Surroundings<'_>,
        join: Join,
        changes: &mut Vec<Change>,
    ) -> Result<Reply, GroupError> {
        let Some((protocol, metadata)) = join.protocols.first().cloned() else {
            return Err(GroupError::InconsistentProtocol);
        };
        if join.protocol_type != PROTOCOL_TYPE {
            return Err(GroupError::InconsistentProtocol);
        }
        let said = embedded::subscription(&metadata).ok_or(GroupError::InconsistentProtocol)?;
        let new = join.who.member.is_empty();
        if new && join.id_required && join.who.instance.is_none() {
            return Ok(Reply::MemberIdRequired(join.fresh_member_id));
        }
        let id: Arc<str> = if new { join.fresh_member_id.as_str() } else { join.who.member.as_str() }.into();
        let place = self.place_classic(&id, join.who.instance.as_deref(), new)?;
        let owned = by_id(&said.owned, around.topics);
        let about = About {
            instance: join.who.instance,
            rack: said.rack,
            client_id: join.client_id,
            client_host: join.client_host,
            names: said.topics,
            regex: None,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            assignor: None,
            classic: Some(Classic { session_timeout_ms: join.session_timeout_ms, protocols: join.protocols }),
        };
        let epoch = self.seat(around, &id, place, about, &owned, changes)?;
        Ok(Reply::Joined(Joined {
            generation: epoch,
            protocol_type: PROTOCOL_TYPE.to_owned(),
            protocol,
            // Nobody leads: the broker assigns.
            leader: String::new(),
            member: id.to_string(),
            skip_assignment: false,
            members: Vec::new(),
        }))
    }

    fn sync_classic(
        &mut self,
        around: &Surroundings<'_>,
        who: &Identity,
        generation: i32,
    ) -> Result<Synced, GroupError> {
        let id = self.known_classic(who, generation)?;
        let group_epoch = self.epoch;
        let member = self.members.get_mut(&id).ok_or(GroupError::UnknownMember)?;
        member.touch(around.now_ms);
        // Who has to give something up first learns what it keeps, and joins again after that.
        if member.current.epoch < group_epoch && member.current.state != State::Unrevoked {
            return Err(GroupError::RebalanceInProgress);
        }
        let (about, assigned) = (member.about.clone(), member.current.assigned.clone());
        let protocol = about.classic.as_ref().and_then(|classic| classic.protocols.first());
        let protocol = protocol.map(|(name, _)| name.clone()).unwrap_or_default();
        let assignment = self.encoded(&about, &assigned);
        Ok(Synced { protocol_type: PROTOCOL_TYPE.to_owned(), protocol, assignment })
    }

    /// A Heartbeat: good, or told to join again, which it then must within its rebalance timeout.
    fn heard(&mut self, around: &Surroundings<'_>, who: &Identity, generation: i32) -> Result<(), GroupError> {
        let id = self.known_classic(who, generation)?;
        let news = self.has_news(&id);
        let member = self.members.get_mut(&id).ok_or(GroupError::UnknownMember)?;
        member.touch(around.now_ms);
        if !news {
            member.join_ends_ms = None;
            return Ok(());
        }
        let ends_ms = around.now_ms.saturating_add(member.about.rebalance_timeout_ms);
        member.join_ends_ms.get_or_insert(ends_ms);
        Err(GroupError::RebalanceInProgress)
    }

    fn leave_classic(
        &mut self,
        around: &Surroundings<'_>,
        who: &[Identity],
        changes: &mut Vec<Change>,
    ) -> Vec<Result<(), GroupError>> {
        let found: Vec<Result<Arc<str>, GroupError>> = who.iter().map(|who| self.leaving(who)).collect();
        let mut ids: Vec<Arc<str>> = found.iter().flatten().cloned().collect();
        ids.sort_unstable();
        ids.dedup();
        if !ids.is_empty() {
            self.remove(around, &ids, changes);
        }
        found.into_iter().map(|found| found.map(drop)).collect()
    }

    /// An administrator takes any static member out by its instance; a classic member takes out itself.
    fn leaving(&self, who: &Identity) -> Result<Arc<str>, GroupError> {
        if let (true, Some(instance)) = (who.member.is_empty(), &who.instance) {
            return self.of_instance(instance).ok_or(GroupError::UnknownMember);
        }
        self.known_member(who).map(|(id, _)| id)
    }

    fn known_classic(&self, who: &Identity, generation: i32) -> Result<Arc<str>, GroupError> {
        let (id, epoch) = self.known_member(who)?;
        if epoch == generation { Ok(id) } else { Err(GroupError::IllegalGeneration) }
    }

    /// A classic member that nobody has replaced, and its epoch.
    fn known_member(&self, who: &Identity) -> Result<(Arc<str>, i32), GroupError> {
        if let Some(instance) = &who.instance {
            match self.of_instance(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(id) if *id != *who.member => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        let found = self.members.get_key_value(who.member.as_str());
        let (id, member) = found.ok_or(GroupError::UnknownMember)?;
        if member.about.classic.is_none() {
            return Err(GroupError::UnknownMember);
        }
        Ok((Arc::clone(id), member.current.epoch))
    }

    fn encoded(&self, about: &About, assigned: &Partitions) -> Bytes {
        let names: HashMap<Uuid, &String> = self.topics().iter().map(|(name, (id, _))| (*id, name)).collect();
        let by_name: ByName = assigned
            .topics()
            .filter_map(|(topic, of_topic)| Some(((*names.get(&topic)?).clone(), of_topic.iter().copied().collect())))
            .collect();
        let first = about.classic.as_ref().and_then(|classic| classic.protocols.first());
        let version = first.and_then(|(_, metadata)| embedded::subscription(metadata)).map_or(0, |said| said.version);
        embedded::encode_assignment(version, &by_name)
    }
}

fn by_id(by_name: &ByName, topics: &dyn Topics) -> Partitions {
    let found = by_name.iter().filter_map(|(name, partitions)| Some((topics.find(name)?.0, partitions)));
    found.flat_map(|(topic, partitions)| partitions.iter().map(move |partition| (topic, *partition))).collect()
}

/// Whether a static member may be replaced by another process.
pub(super) fn is_released(about: &About, epoch: i32) -> bool {
    about.classic.is_some() || epoch == AWAY
}
