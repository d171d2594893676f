//! All consumer groups of this broker: one door, input in, effects out. Called by the table of groups, which knows which
//! protocol a group speaks.
//!
//! It guarantees: every ticket gets exactly one reply; what is decided is told as changes before the reply that depends on it;
//! nothing here waits, stores or asks the hour.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    Change, Named, Stored, Topics,
    classic::Request,
    group::{Beat, ConsumerState, ConsumerView, Group, Surroundings},
    member::{AWAY, LEAVES},
};
use crate::group::{Effect, GroupError, GroupLimits, Reply, Ticket};

/// OffsetCommit and OffsetFetch know member epochs from this version on.
const EPOCHS_FIRST: i16 = 9;

/// What may come through the door.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    Beat {
        ticket: Ticket,
        group: String,
        beat: Box<Beat>,
    },
    /// May this member commit, with a request of this version?
    Commit {
        ticket: Ticket,
        group: String,
        member: String,
        epoch: i32,
        version: i16,
    },
    /// May this member see what is committed?
    Fetch {
        ticket: Ticket,
        group: String,
        member: Option<String>,
        epoch: i32,
    },
    Delete {
        ticket: Ticket,
        group: String,
    },
    /// A request of a member that speaks the classic protocol.
    Classic {
        ticket: Ticket,
        group: String,
        request: Request,
    },
    /// What an expression names, asked when the topics had this version; nothing where that could not be found out.
    Named {
        group: String,
        regex: String,
        version: u64,
        named: Option<Named>,
    },
    /// Time has passed.
    Tick,
}

impl Input {
    /// The group that it is about.
    pub(crate) fn group(&self) -> Option<&str> {
        match self {
            Self::Beat { group, .. }
            | Self::Commit { group, .. }
            | Self::Fetch { group, .. }
            | Self::Delete { group, .. }
            | Self::Classic { group, .. }
            | Self::Named { group, .. } => Some(group),
            Self::Tick => None,
        }
    }
}

/// All consumer groups.
#[derive(Debug)]
pub(crate) struct Core {
    pub(super) limits: GroupLimits,
    pub(super) groups: HashMap<String, Group>,
    /// When which member must be looked at: at its deadline or before, never after.
    timers: BTreeSet<(u64, String, Arc<str>)>,
    /// What all groups take.
    bytes: usize,
    /// Groups that a member has left, until [`Self::only_classic`] looks at them.
    pub(super) left: Vec<String>,
}

impl Core {
    pub(crate) fn new(limits: GroupLimits) -> Self {
        Self { limits, groups: HashMap::new(), timers: BTreeSet::new(), bytes: 0, left: Vec::new() }
    }

    /// The one door. `taken` is what groups of the other protocol take.
    pub(crate) fn handle(&mut self, now_ms: u64, input: Input, topics: &dyn Topics, taken: usize) -> Vec<Effect> {
        let mut out = Vec::new();
        match input {
            Input::Beat { ticket, group, beat } => {
                let result = self.beat(now_ms, &group, *beat, topics, taken, &mut out);
                let reply = result.map_or_else(Reply::Refused, Reply::Told);
                out.push(Effect::Reply(ticket, reply));
            }
            Input::Commit { ticket, group, member, epoch, version } => {
                let result = self.may_commit(&group, &member, epoch, version);
                out.push(Effect::Reply(ticket, result.map_or_else(Reply::Refused, |()| Reply::Done)));
            }
            Input::Fetch { ticket, group, member, epoch } => {
                let result = self.may_fetch(&group, member.as_deref(), epoch);
                out.push(Effect::Reply(ticket, result.map_or_else(Reply::Refused, |()| Reply::Done)));
            }
            Input::Delete { ticket, group } => {
                let result = match self.groups.get(&group) {
                    None => Err(GroupError::GroupNotFound),
                    Some(found) if !found.members.is_empty() => Err(GroupError::NotEmpty),
                    Some(_) => {
                        let changes = self.end(&group);
                        out.push(Effect::Change { group, changes });
                        Ok(())
                    }
                };
                out.push(Effect::Reply(ticket, result.map_or_else(Reply::Refused, |()| Reply::Done)));
            }
            Input::Classic { ticket, group, request } => {
                return self.classic(now_ms, ticket, &group, request, topics, taken);
            }
            Input::Named { group, regex, version, named } => {
                self.change(now_ms, &group, topics, taken, &mut out, |found, around, changes| {
                    found.named(around, &regex, version, named, changes);
                });
            }
            Input::Tick => self.tick(now_ms, topics, taken, &mut out),
        }
        out
    }

    /// When [`Input::Tick`] is next needed.
    pub(crate) fn next_deadline_ms(&self) -> Option<u64> {
        self.timers.first().map(|(at, ..)| *at)
    }

    /// What all of them take.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The state of a group, if it is one of these.
    pub(crate) fn state(&self, name: &str) -> Option<ConsumerState> {
        self.groups.get(name).map(Group::state)
    }

    pub(crate) fn describe(&self, name: &str) -> Option<ConsumerView> {
        self.groups.get(name).map(Group::view)
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = (&String, ConsumerState)> + '_ {
        self.groups.iter().map(|(name, group)| (name, group.state()))
    }

    /// Takes in a group read back from storage.
    pub(crate) fn restore(&mut self, now_ms: u64, name: String, stored: Stored) {
        let group = Group::restore(now_ms, self.limits.pace(&name).0, stored);
        let ids: Vec<Arc<str>> = group.members.keys().cloned().collect();
        self.groups.insert(name.clone(), group);
        self.count(&name);
        ids.iter().for_each(|id| self.wind(&name, id));
    }

    /// Begins a group where one of the classic protocol was, whose generation its epoch goes on from.
    pub(crate) fn begin(&mut self, name: &str, generation: i32) {
        self.groups.entry(name.to_owned()).or_insert_with(|| Group::after(generation));
        self.count(name);
    }

    /// Forgets a group; what must be written for that.
    pub(crate) fn end(&mut self, name: &str) -> Vec<Change> {
        let Some(group) = self.groups.remove(name) else { return Vec::new() };
        for (id, member) in &group.members {
            if let Some(at) = member.timer_ms {
                self.timers.remove(&(at, name.to_owned(), Arc::clone(id)));
            }
        }
        self.bytes = self.bytes.saturating_sub(group.bytes);
        group.end()
    }

    /// Forgets all groups without members: nobody is there to whom they would matter.
    fn end_empty(&mut self, out: &mut Vec<Effect>) {
        let empty: Vec<String> =
            self.groups.iter().filter(|(_, group)| group.members.is_empty()).map(|(name, _)| name.clone()).collect();
        for group in empty {
            let changes = self.end(&group);
            out.push(Effect::Change { group, changes });
        }
    }

    fn beat(
        &mut self,
        now_ms: u64,
        name: &str,
        beat: Beat,
        topics: &dyn Topics,
        taken: usize,
        out: &mut Vec<Effect>,
    ) -> Result<super::Told, GroupError> {
        if name.is_empty() {
            return Err(GroupError::InvalidRequest);
        }
        beat.check()?;
        let is_new = !self.groups.contains_key(name);
        if is_new {
            // A broker that lost the group, or an administrator who deleted it: the member joins again.
            if beat.epoch != 0 {
                return Err(GroupError::UnknownMember);
            }
            if self.groups.len() >= self.limits.groups_max {
                self.end_empty(out);
            }
            if self.groups.len() >= self.limits.groups_max {
                return Err(GroupError::Unavailable);
            }
            self.groups.insert(name.to_owned(), Group::default());
        }
        let leaves = matches!(beat.epoch, LEAVES | AWAY);
        let result = self.change(now_ms, name, topics, taken, out, |group, around, changes| {
            if leaves { group.leave(around, &beat, changes) } else { group.beat(around, beat, changes) }
        });
        let result = result.ok_or(GroupError::UnknownMember).and_then(|result| result);
        if is_new && result.is_err() {
            self.groups.remove(name);
        }
        if let (Ok(_), Some(group)) = (&result, self.groups.get_mut(name)) {
            let regexes = group.ask_again(topics.version());
            if !regexes.is_empty() {
                out.push(Effect::Ask { group: name.to_owned(), regexes });
            }
        }
        result
    }

    /// Changes a group: tells what must be written, counts it anew, and winds the timers of whose deadline came nearer.
    pub(super) fn change<T>(
        &mut self,
        now_ms: u64,
        name: &str,
        topics: &dyn Topics,
        taken: usize,
        out: &mut Vec<Effect>,
        make: impl FnOnce(&mut Group, &Surroundings<'_>, &mut Vec<Change>) -> T,
    ) -> Option<T> {
        let group = self.groups.get_mut(name)?;
        let limits = &self.limits;
        let room = limits.group_bytes_max.saturating_sub(group.bytes);
        let room = room.min(limits.groups_bytes_max.saturating_sub(self.bytes.saturating_add(taken)));
        let mut changes = Vec::new();
        let (session_ms, interval_ms) = limits.pace(name);
        let around = Surroundings { now_ms, topics, limits, room, session_ms, interval_ms };
        let made = make(group, &around, &mut changes);
        let gone = std::mem::take(&mut group.gone);
        if !gone.is_empty() {
            self.left.push(name.to_owned());
        }
        for (id, at) in gone {
            self.timers.remove(&(at, name.to_owned(), id));
        }
        // Members whose deadline came nearer, and those that came: the others' timers find out by themselves.
        let near = |member: &super::group::Member| member.timer_ms.is_none_or(|at| at > member.deadline_ms());
        let nearer: Vec<Arc<str>> =
            group.members.iter().filter(|(_, member)| near(member)).map(|(id, _)| Arc::clone(id)).collect();
        nearer.iter().for_each(|id| self.wind(name, id));
        if !changes.is_empty() {
            self.count(name);
            out.push(Effect::Change { group: name.to_owned(), changes });
        }
        Some(made)
    }

    fn count(&mut self, name: &str) {
        if let Some(group) = self.groups.get_mut(name) {
            self.bytes = self.bytes.saturating_sub(group.bytes);
            group.bytes = group.count();
            self.bytes += group.bytes;
        }
    }

    /// Sets a member's timer to its deadline.
    fn wind(&mut self, name: &str, id: &Arc<str>) {
        let Some(member) = self.groups.get_mut(name).and_then(|group| group.members.get_mut(id)) else { return };
        let at = member.deadline_ms();
        if let Some(before) = member.timer_ms.replace(at) {
            self.timers.remove(&(before, name.to_owned(), Arc::clone(id)));
        }
        self.timers.insert((at, name.to_owned(), Arc::clone(id)));
    }

    /// Takes out who was not heard of in time, or did not give up in time what it should.
    fn tick(&mut self, now_ms: u64, topics: &dyn Topics, taken: usize, out: &mut Vec<Effect>) {
        let mut late: HashMap<String, Vec<Arc<str>>> = HashMap::new();
        while let Some((at, ..)) = self.timers.first()
            && *at <= now_ms
        {
            let Some((at, name, id)) = self.timers.pop_first() else { break };
            let Some(member) = self.groups.get_mut(&name).and_then(|group| group.members.get_mut(&id)) else {
                continue;
            };
            if member.timer_ms != Some(at) {
                continue;
            }
            member.timer_ms = None;
            if member.deadline_ms() <= now_ms {
                late.entry(name).or_default().push(id);
            } else {
                self.wind(&name, &id);
            }
        }
        let mut late: Vec<_> = late.into_iter().collect();
        late.sort_unstable();
        for (name, ids) in late {
            self.change(now_ms, &name, topics, taken, out, |group, around, changes| {
                group.remove(around, &ids, changes)
            });
        }
    }

    fn may_commit(&self, name: &str, member: &str, epoch: i32, version: i16) -> Result<(), GroupError> {
        let group = self.groups.get(name).ok_or(GroupError::GroupNotFound)?;
        // An administrator, or a consumer that assigns partitions itself.
        if epoch < 0 && group.members.is_empty() {
            return Ok(());
        }
        match group.check_member(member, epoch) {
            Err(GroupError::StaleEpoch) if version < EPOCHS_FIRST => Err(GroupError::UnsupportedVersion),
            Ok(found) if version < EPOCHS_FIRST && found.about.classic.is_none() => Err(GroupError::UnsupportedVersion),
            checked => checked.map(drop),
        }
    }

    fn may_fetch(&self, name: &str, member: Option<&str>, epoch: i32) -> Result<(), GroupError> {
        let Some(group) = self.groups.get(name) else { return Ok(()) };
        match member.filter(|member| !member.is_empty()) {
            None if epoch < 0 => Ok(()),
            member => group.check_member(member.unwrap_or_default(), epoch).map(|_| ()),
        }
    }
}
