//! How a group gathers its members into a generation. Part of the coordinator's core; called by nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Effect, Group, GroupError, GroupLimits, GroupState, Join, Member, Reply, Ticket};

impl Group {
    pub(super) fn join(
        &mut self,
        now_ms: u64,
        name: &str,
        ticket: Ticket,
        join: Join,
        limits: &GroupLimits,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        self.check_protocols(&join)?;
        if !join.who.member.is_empty() {
            return self.rejoin(now_ms, name, ticket, join, limits, out);
        }
        if let Some(instance) = &join.who.instance {
            if let Some(old) = self.static_member(instance) {
                self.replace_static(now_ms, name, ticket, &old, join, out);
                return Ok(());
            }
        } else if join.id_required {
            if self.members.len() + self.pending.len() >= limits.members_max {
                return Err(GroupError::GroupFull);
            }
            let id = join.fresh_member_id;
            self.pending.insert(id.clone(), now_ms + join.session_timeout_ms);
            out.push(Effect::Reply(ticket, Reply::MemberIdRequired(id)));
            return Ok(());
        }
        let id = join.fresh_member_id.clone();
        self.add(now_ms, name, ticket, id, join, limits, out)
    }

    fn rejoin(
        &mut self,
        now_ms: u64,
        name: &str,
        ticket: Ticket,
        join: Join,
        limits: &GroupLimits,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        let id = join.who.member.clone();
        if self.pending.remove(&id).is_some() {
            return self.add(now_ms, name, ticket, id, join, limits, out);
        }
        self.known(&join.who)?;
        let changed = self.members.get(&id).is_some_and(|member| member.protocols != join.protocols);
        let leads = self.leader.as_ref() == Some(&id);
        let again = match self.state {
            GroupState::Empty => return Err(GroupError::UnknownMember),
            GroupState::PreparingRebalance => true,
            // The answer was lost on the way: it is given again.
            GroupState::CompletingRebalance => changed,
            GroupState::Stable => changed || leads,
        };
        self.update(now_ms, &id, join);
        if !again {
            out.push(Effect::Reply(ticket, Reply::Joined(self.joined(&id))));
            return Ok(());
        }
        self.wait_join(&id, ticket, out);
        self.prepare_rebalance(now_ms, out);
        self.try_complete_join(now_ms, name, out);
        Ok(())
    }

    #[allow(clippy::too_many_arguments)] // one request, its id and its surroundings
    fn add(
        &mut self,
        now_ms: u64,
        name: &str,
        ticket: Ticket,
        id: String,
        join: Join,
        limits: &GroupLimits,
        out: &mut Vec<Effect>,
    ) -> Result<(), GroupError> {
        if self.members.len() >= limits.members_max {
            return Err(GroupError::GroupFull);
        }
        let first = self.state == GroupState::Empty;
        if first {
            self.protocol_type.clone_from(&join.protocol_type);
            self.gather_until_ms = now_ms + limits.initial_delay_ms.min(join.rebalance_timeout_ms);
        }
        let member = Member {
            instance: join.who.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_ms: join.session_timeout_ms,
            rebalance_timeout_ms: join.rebalance_timeout_ms,
            protocols: join.protocols,
            assignment: Bytes::new(),
            joining: Some(ticket),
            syncing: None,
            synced: false,
            session_ends_ms: now_ms + join.session_timeout_ms,
        };
        self.members.insert(id.clone(), member);
        self.leader.get_or_insert(id);
        self.prepare_rebalance(now_ms, out);
        self.try_complete_join(now_ms, name, out);
        Ok(())
    }

    fn check_protocols(&self, join: &Join) -> Result<(), GroupError> {
        if self.members.is_empty() {
            return Ok(());
        }
        let shared = join.protocols.iter().any(|(name, _)| self.supported_by_all(name));
        if join.protocol_type == self.protocol_type && shared { Ok(()) } else { Err(GroupError::InconsistentProtocol) }
    }

    fn supported_by_all(&self, protocol: &str) -> bool {
        self.members.values().all(|member| member.protocols.iter().any(|(name, _)| name == protocol))
    }

    /// A static member came back with a new process: it takes the old one's place, and without a rebalance where the group
    /// would choose the same protocol again (KIP-345). What it says of itself within the protocol does not count: a new process
    /// has nothing yet, and says so.
    fn replace_static(
        &mut self,
        now_ms: u64,
        name: &str,
        ticket: Ticket,
        old: &str,
        join: Join,
        out: &mut Vec<Effect>,
    ) {
        let id = join.fresh_member_id.clone();
        let may_skip = join.may_skip_assignment;
        let Some(mut member) = self.members.remove(old) else { return };
        for waiting in [member.joining.take(), member.syncing.take()].into_iter().flatten() {
            out.push(Effect::Reply(waiting, Reply::Refused(GroupError::FencedInstance)));
        }
        self.members.insert(id.clone(), member);
        let led = self.leader.as_deref() == Some(old);
        if led {
            self.leader = Some(id.clone());
        }
        self.update(now_ms, &id, join);
        if self.state == GroupState::Stable && self.elect_protocol() == self.protocol {
            let mut joined = self.joined(&id);
            if led && may_skip {
                joined.skip_assignment = true;
            } else if led {
                // An older client that believes to lead would assign anew: it is told that another leads.
                joined.leader = old.to_owned();
                joined.members = Vec::new();
            }
            out.push(Effect::Store(self.snapshot(name)));
            out.push(Effect::Reply(ticket, Reply::Joined(joined)));
            return;
        }
        self.wait_join(&id, ticket, out);
        self.prepare_rebalance(now_ms, out);
        self.try_complete_join(now_ms, name, out);
    }

    fn update(&mut self, now_ms: u64, id: &str, join: Join) {
        if let Some(member) = self.members.get_mut(id) {
            member.client_id = join.client_id;
            member.client_host = join.client_host;
            member.session_timeout_ms = join.session_timeout_ms;
            member.rebalance_timeout_ms = join.rebalance_timeout_ms;
            member.protocols = join.protocols;
        }
        self.touch(now_ms, id);
    }

    fn wait_join(&mut self, id: &str, ticket: Ticket, out: &mut Vec<Effect>) {
        let older = self.members.get_mut(id).and_then(|member| member.joining.replace(ticket));
        if let Some(older) = older {
            out.push(Effect::Reply(older, Reply::Refused(GroupError::RebalanceInProgress)));
        }
    }

    /// Opens the join phase, unless it is open.
    pub(super) fn prepare_rebalance(&mut self, now_ms: u64, out: &mut Vec<Effect>) {
        if self.state == GroupState::PreparingRebalance {
            return;
        }
        self.cancel_syncs(out);
        self.state = GroupState::PreparingRebalance;
        self.phase_ends_ms = now_ms + self.rebalance_timeout_ms();
    }

    fn cancel_syncs(&mut self, out: &mut Vec<Effect>) {
        for member in self.members.values_mut() {
            if let Some(ticket) = member.syncing.take() {
                out.push(Effect::Reply(ticket, Reply::Refused(GroupError::RebalanceInProgress)));
            }
        }
    }

    fn rebalance_timeout_ms(&self) -> u64 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    pub(super) fn try_complete_join(&mut self, now_ms: u64, name: &str, out: &mut Vec<Effect>) {
        let all_here = self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        let gathered = now_ms >= self.gather_until_ms;
        if self.state == GroupState::PreparingRebalance && gathered && all_here {
            self.complete_join(now_ms, name, out);
        }
    }

    /// Closes the join phase: who did not come is out (but static members have their session), the rest is a generation.
    fn complete_join(&mut self, now_ms: u64, name: &str, out: &mut Vec<Effect>) {
        self.members.retain(|_, member| member.joining.is_some() || member.instance.is_some());
        let before = self.generation;
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.become_empty(name, out);
            return;
        }
        let present = |member: &Member| member.joining.is_some();
        let leader = self.leader.as_ref().filter(|id| self.members.get(*id).is_some_and(present)).cloned();
        let leader = leader.or_else(|| self.members.iter().find(|(_, m)| present(m)).map(|(id, _)| id.clone()));
        let Some(leader) = leader else {
            // Only static members that are away: they have until their sessions end.
            self.generation = before;
            self.phase_ends_ms = now_ms + self.rebalance_timeout_ms().max(1);
            return;
        };
        self.leader = Some(leader);
        self.protocol = self.elect_protocol();
        self.state = GroupState::CompletingRebalance;
        self.phase_ends_ms = now_ms + self.rebalance_timeout_ms();
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let joined = self.joined(&id);
            let Some(member) = self.members.get_mut(&id) else { continue };
            member.synced = false;
            member.assignment = Bytes::new();
            if let Some(ticket) = member.joining.take() {
                member.session_ends_ms = now_ms + member.session_timeout_ms;
                out.push(Effect::Reply(ticket, Reply::Joined(joined)));
            }
        }
    }

    /// Each member votes for the first of its protocols that all support.
    pub(super) fn elect_protocol(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let choice = member.protocols.iter().find(|(name, _)| self.supported_by_all(name));
            if let Some((name, _)) = choice {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, count)| *count).map(|(name, _)| name.to_owned())
    }

    fn become_empty(&mut self, name: &str, out: &mut Vec<Effect>) {
        self.state = GroupState::Empty;
        self.protocol = None;
        self.leader = None;
        self.phase_ends_ms = u64::MAX;
        out.push(Effect::Store(self.snapshot(name)));
    }

    pub(super) fn complete_sync(
        &mut self,
        _now_ms: u64,
        name: &str,
        assignments: Vec<(String, Bytes)>,
        out: &mut Vec<Effect>,
    ) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.state = GroupState::Stable;
        self.phase_ends_ms = u64::MAX;
        out.push(Effect::Store(self.snapshot(name)));
        let waiting: Vec<(String, Ticket)> = self
            .members
            .iter_mut()
            .filter_map(|(id, member)| member.syncing.take().map(|ticket| (id.clone(), ticket)))
            .collect();
        for (id, ticket) in waiting {
            self.reply_sync(&id, ticket, out);
        }
    }

    pub(super) fn remove(&mut self, id: &str, why: GroupError, out: &mut Vec<Effect>) {
        let Some(mut member) = self.members.remove(id) else { return };
        for waiting in [member.joining.take(), member.syncing.take()].into_iter().flatten() {
            out.push(Effect::Reply(waiting, Reply::Refused(why)));
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// A member is gone: the others share its partitions.
    pub(super) fn after_loss(&mut self, now_ms: u64, name: &str, out: &mut Vec<Effect>) {
        if matches!(self.state, GroupState::Stable | GroupState::CompletingRebalance) {
            self.gather_until_ms = now_ms;
            self.prepare_rebalance(now_ms, out);
        }
        self.try_complete_join(now_ms, name, out);
    }

    /// Lets time pass; whether members or ids have gone by it.
    pub(super) fn tick(&mut self, now_ms: u64, name: &str, out: &mut Vec<Effect>) -> bool {
        let before = (self.members.len(), self.pending.len());
        self.pending.retain(|_, ends| *ends > now_ms);
        let late_sync = self.state == GroupState::CompletingRebalance && now_ms >= self.phase_ends_ms;
        let gone: Vec<String> = self
            .members
            .iter()
            .filter(|(_, member)| {
                let waits = member.joining.is_some() || member.syncing.is_some();
                (!waits && now_ms >= member.session_ends_ms) || (late_sync && !member.synced)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in &gone {
            self.remove(id, GroupError::UnknownMember, out);
        }
        if !gone.is_empty() {
            self.after_loss(now_ms, name, out);
        }
        self.try_complete_join(now_ms, name, out);
        if self.state == GroupState::PreparingRebalance && now_ms >= self.phase_ends_ms.max(self.gather_until_ms) {
            self.pending.clear();
            self.complete_join(now_ms, name, out);
        }
        before != (self.members.len(), self.pending.len())
    }

    pub(super) fn next_deadline_ms(&self) -> Option<u64> {
        let phase = match self.state {
            GroupState::Empty | GroupState::Stable => None,
            GroupState::CompletingRebalance => Some(self.phase_ends_ms),
            GroupState::PreparingRebalance => {
                let all_here = self.members.values().all(|member| member.joining.is_some());
                if all_here && self.pending.is_empty() {
                    Some(self.gather_until_ms)
                } else {
                    Some(self.phase_ends_ms.max(self.gather_until_ms))
                }
            }
        };
        let quiet = |member: &&Member| member.joining.is_none() && member.syncing.is_none();
        let sessions = self.members.values().filter(quiet).map(|member| member.session_ends_ms);
        sessions.chain(self.pending.values().copied()).chain(phase).min()
    }
}
