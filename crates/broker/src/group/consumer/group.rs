//! One consumer group: its members, what each is meant to have, and who has what. Called by the core.
//!
//! It guarantees: a partition has one owner; the group's epoch rises with each change of members, subscriptions or topics, the
//! target follows the group and each member follows the target, and none of the three goes back; every change is told to the
//! caller, which makes it durable before anybody hears of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use uuid::Uuid;

use super::{
    AWAY, Change, LEAVES, Named, Partitions, Stored, Topics,
    assign::{self, Assignor, Subscriber, Subscribers, Target},
    classic::is_released,
    member::{About, Aim, Current, NAME_BYTES, Owned, State},
    records::TopicTable,
};
use crate::group::{GroupError, GroupLimits};

mod change;
mod view;

pub(crate) use view::{ConsumerState, ConsumerView, MemberView};

/// What a partition takes, with its place in the target, at its member and among the owners, about.
const PARTITION_BYTES: usize = 160;

/// A ConsumerGroupHeartbeat request. What is absent did not change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    pub(crate) member: String,
    /// The id of a new member that brings none: made by the caller, because the core knows no chance.
    pub(crate) fresh_member_id: String,
    /// 0 joins, -1 leaves, -2 leaves for a while.
    pub(crate) epoch: i32,
    pub(crate) instance: Option<String>,
    pub(crate) rack: Option<String>,
    pub(crate) rebalance_timeout_ms: Option<u64>,
    pub(crate) names: Option<BTreeSet<String>>,
    /// An empty one takes the expression back.
    pub(crate) regex: Option<String>,
    /// The topics that the expression names, and the version of the topics when it was asked.
    pub(crate) named: Option<(u64, Named)>,
    pub(crate) assignor: Option<String>,
    pub(crate) owned: Option<Partitions>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
}

impl Beat {
    /// Whether it can be a request at all.
    pub(crate) fn check(&self) -> Result<(), GroupError> {
        let empty = |text: &Option<String>| text.as_ref().is_some_and(String::is_empty);
        let joins = self.epoch == 0;
        let wants = self.names.is_some() || self.regex.is_some();
        let has_nothing = self.owned.as_ref().is_some_and(Partitions::is_empty);
        let wrong = self.epoch < AWAY
            || empty(&self.instance)
            || empty(&self.rack)
            || (self.member.is_empty() && !joins)
            || (self.epoch == AWAY && self.instance.is_none())
            || (joins && (self.rebalance_timeout_ms.is_none() || !wants || !has_nothing));
        if wrong {
            return Err(GroupError::InvalidRequest);
        }
        match &self.assignor {
            Some(name) if Assignor::named(name).is_none() => Err(GroupError::UnsupportedAssignor),
            _ => Ok(()),
        }
    }

    /// Whether it says everything, as after an error: then it is told everything.
    fn is_full(&self) -> bool {
        self.rebalance_timeout_ms.is_some() && (self.names.is_some() || self.regex.is_some()) && self.owned.is_some()
    }
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) member: String,
    pub(crate) epoch: i32,
    pub(crate) interval_ms: u64,
    /// What it has now, where that is news.
    pub(crate) assignment: Option<Partitions>,
}

/// What a change of a group is given besides the request.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) now_ms: u64,
    pub(super) topics: &'a dyn Topics,
    pub(super) limits: &'a GroupLimits,
    /// Bytes that the group may still grow by.
    pub(super) room: usize,
    /// How long a member of this group may be silent, and how often it is to be heard of.
    pub(super) session_ms: u64,
    pub(super) interval_ms: u64,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) about: About,
    pub(super) current: Current,
    pub(super) session_ends_ms: u64,
    /// Until then it must have given up what it was told to.
    pub(super) revoke_ends_ms: Option<u64>,
    /// A member of the classic protocol must join again until then.
    pub(super) join_ends_ms: Option<u64>,
    /// The hour at which the core will look at it.
    pub(super) timer_ms: Option<u64>,
}

impl Member {
    pub(super) fn deadline_ms(&self) -> u64 {
        let first = [self.revoke_ends_ms, self.join_ends_ms].into_iter().flatten().min();
        first.map_or(self.session_ends_ms, |first| first.min(self.session_ends_ms))
    }

    fn session_ms(&self, around: &Surroundings<'_>) -> u64 {
        self.about.classic.as_ref().map_or(around.session_ms, |classic| classic.session_timeout_ms)
    }

    /// A member of the classic protocol was heard of.
    pub(super) fn touch(&mut self, now_ms: u64) {
        if let Some(classic) = &self.about.classic {
            self.session_ends_ms = now_ms.saturating_add(classic.session_timeout_ms);
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) epoch: i32,
    pub(super) target_epoch: i32,
    pub(super) members: BTreeMap<Arc<str>, Member>,
    statics: HashMap<String, Arc<str>>,
    target: Target,
    /// Who has a partition, or has been told to give it up and has not yet.
    owners: BTreeMap<Uuid, BTreeMap<u32, Arc<str>>>,
    /// The topics that each expression names, and the version of the topics when it was asked.
    regexes: BTreeMap<String, (u64, Named)>,
    /// Expressions that are being asked.
    asking: BTreeSet<String>,
    /// The topics that are subscribed to, as they were when the epoch last rose.
    topics: TopicTable,
    /// The version of the topics that was last looked at.
    seen: Option<u64>,
    /// What it took when it was last counted.
    pub(super) bytes: usize,
    /// Members that are gone, with the hours at which the core would have looked at them.
    pub(super) gone: Vec<(Arc<str>, u64)>,
}

/// Where a member that asks stands in the group.
pub(super) enum Place {
    New,
    Known,
    /// It takes the place of a static member that is away.
    Replaces(Arc<str>),
}

impl Group {
    /// A group that goes on where one of the classic protocol was.
    pub(super) fn after(generation: i32) -> Self {
        Self { epoch: generation.max(0), target_epoch: generation.max(0), ..Self::default() }
    }

    /// A heartbeat of somebody who is or becomes a member.
    pub(super) fn beat(
        &mut self,
        around: &Surroundings<'_>,
        beat: Beat,
        changes: &mut Vec<Change>,
    ) -> Result<Told, GroupError> {
        let id: Arc<str> =
            if beat.member.is_empty() { beat.fresh_member_id.as_str() } else { beat.member.as_str() }.into();
        let place = self.place(&id, &beat)?;
        self.check_room(around, &place, &beat)?;
        let (anew, full) = (beat.epoch == 0, beat.is_full());
        let owned = beat.owned.clone();
        let replaced = matches!(place, Place::Replaces(_));
        let is_new = self.take_place(&id, place, around, changes);
        let changed = self.update(&id, beat, changes);
        let grown = self.look(around, changed || is_new, changes);
        if is_new || changed || grown {
            self.rise(changes);
        }
        if self.target_epoch < self.epoch || replaced {
            self.retarget(changes);
        }
        let owned = match &owned {
            _ if anew => Owned::Nothing,
            None => Owned::Unsaid,
            Some(owned) => Owned::Said(owned),
        };
        let news = self.go_on(around, &id, owned, changes);
        let member = self.members.get(&id).ok_or(GroupError::UnknownMember)?;
        Ok(Told {
            member: id.to_string(),
            epoch: member.current.epoch,
            interval_ms: around.interval_ms,
            assignment: (anew || full || news).then(|| member.current.assigned.clone()),
        })
    }

    fn place(&self, id: &Arc<str>, beat: &Beat) -> Result<Place, GroupError> {
        let of_instance = beat.instance.as_ref().map(|instance| self.statics.get(instance));
        if beat.epoch == 0 {
            return match of_instance {
                Some(Some(other)) if other != id => match self.members.get(other) {
                    Some(member) if !is_released(&member.about, member.current.epoch) => {
                        Err(GroupError::UnreleasedInstance)
                    }
                    _ => Ok(Place::Replaces(Arc::clone(other))),
                },
                _ if self.members.contains_key(id) => Ok(Place::Known),
                _ => Ok(Place::New),
            };
        }
        match of_instance {
            Some(None) => return Err(GroupError::UnknownMember),
            Some(Some(other)) if other != id => return Err(GroupError::FencedInstance),
            _ => {}
        }
        let member = self.members.get(id).ok_or(GroupError::UnknownMember)?;
        self.check_epoch(member, beat)?;
        Ok(Place::Known)
    }

    /// Where a member of the classic protocol stands that joins. One that was told to come back with an id is new.
    pub(super) fn place_classic(&self, id: &Arc<str>, instance: Option<&str>, new: bool) -> Result<Place, GroupError> {
        let other = instance.and_then(|instance| self.statics.get(instance)).filter(|other| *other != id);
        let known = self.members.get(id);
        match other {
            // A process that has been replaced, or an instance in use by a member of the other protocol.
            Some(_) if !new => Err(GroupError::FencedInstance),
            Some(other) => match self.members.get(other) {
                Some(member) if !is_released(&member.about, member.current.epoch) => Err(GroupError::FencedInstance),
                _ => Ok(Place::Replaces(Arc::clone(other))),
            },
            None if known.is_some_and(|member| member.about.classic.is_none()) => Err(GroupError::UnknownMember),
            None if known.is_some() => Ok(Place::Known),
            None => Ok(Place::New),
        }
    }

    /// Gives a member of the classic protocol that joins its place, and takes its next step; its epoch.
    pub(super) fn seat(
        &mut self,
        around: &Surroundings<'_>,
        id: &Arc<str>,
        place: Place,
        about: About,
        owned: &Partitions,
        changes: &mut Vec<Change>,
    ) -> Result<i32, GroupError> {
        let asked = Beat { names: Some(about.names.clone()), client_id: about.client_id.clone(), ..Beat::default() };
        let protocols: usize =
            about.classic.iter().flat_map(|classic| &classic.protocols).map(|(_, data)| data.len()).sum();
        let smaller = Surroundings { room: around.room.saturating_sub(protocols), ..*around };
        self.check_room(&smaller, &place, &asked)?;
        let replaced = matches!(place, Place::Replaces(_));
        let is_new = self.take_place(id, place, around, changes);
        let before = self.members.get(id).map(|member| member.about.clone()).unwrap_or_default();
        let changed = self.note(id, &before, about, changes);
        let grown = self.look(around, changed || is_new, changes);
        if is_new || changed || grown {
            self.rise(changes);
        }
        if self.target_epoch < self.epoch || replaced {
            self.retarget(changes);
        }
        self.go_on(around, id, Owned::Sworn(owned), changes);
        let member = self.members.get_mut(id).ok_or(GroupError::UnknownMember)?;
        member.join_ends_ms = None;
        Ok(member.current.epoch)
    }

    /// Whether a member of the classic protocol should join again: because it is behind, has given up what it had to, or because
    /// something that it waits for is free.
    pub(super) fn has_news(&self, id: &Arc<str>) -> bool {
        let Some(member) = self.members.get(id) else { return false };
        let free = |(topic, partition): (Uuid, u32)| {
            self.owners.get(&topic).and_then(|of_topic| of_topic.get(&partition)).is_none()
        };
        let current = &member.current;
        let waits = || self.target.get(id).is_some_and(|target| target.without(&current.assigned).iter().any(free));
        current.epoch < self.epoch
            || current.state == State::Unrevoked
            || (current.state == State::Unreleased && waits())
    }

    pub(super) fn of_instance(&self, instance: &str) -> Option<Arc<str>> {
        self.statics.get(instance).cloned()
    }

    pub(super) const fn topics(&self) -> &TopicTable {
        &self.topics
    }

    /// A member that did not hear of its new epoch may come with the one before, if it has nothing that it was not given.
    fn check_epoch(&self, member: &Member, beat: &Beat) -> Result<(), GroupError> {
        let current = &member.current;
        if beat.epoch == current.epoch {
            return Ok(());
        }
        let has_no_more = beat.owned.as_ref().is_some_and(|owned| owned.is_within(&current.assigned));
        let missed_one = beat.epoch == current.previous_epoch && beat.epoch < current.epoch;
        if missed_one && has_no_more { Ok(()) } else { Err(GroupError::FencedEpoch) }
    }

    fn check_room(&self, around: &Surroundings<'_>, place: &Place, beat: &Beat) -> Result<(), GroupError> {
        if matches!(place, Place::New) && self.members.len() >= around.limits.members_max {
            return Err(GroupError::GroupFull);
        }
        if matches!(place, Place::Known) && beat.names.is_none() && beat.regex.is_none() {
            return Ok(());
        }
        let named = beat.named.iter().flat_map(|(_, named)| named);
        let names = beat.names.iter().flatten().chain(named);
        let topic = |name: &String| {
            let known = self.topics.contains_key(name);
            let partitions = if known { 0 } else { around.topics.find(name).map_or(0, |(_, count)| count as usize) };
            2 * (NAME_BYTES + name.len()) + partitions * PARTITION_BYTES
        };
        let texts = beat.regex.as_ref().map_or(0, String::len) + beat.client_id.len() + beat.client_host.len();
        let asked = About::default().bytes() + texts + names.map(topic).sum::<usize>();
        if asked <= around.room { Ok(()) } else { Err(GroupError::GroupFull) }
    }

    /// Makes the member be there; whether it was not before.
    fn take_place(
        &mut self,
        id: &Arc<str>,
        place: Place,
        around: &Surroundings<'_>,
        changes: &mut Vec<Change>,
    ) -> bool {
        let fresh = |about, current| Member {
            about,
            current,
            session_ends_ms: around.now_ms,
            revoke_ends_ms: None,
            join_ends_ms: None,
            timer_ms: None,
        };
        match place {
            Place::Known => false,
            Place::New => {
                self.members.insert(Arc::clone(id), fresh(About::default(), Current::default()));
                true
            }
            Place::Replaces(old) => {
                // The new process takes over what the old one had and was meant to have: nothing moves (KIP-345).
                let Some(member) = self.members.remove(&old) else { return false };
                self.gone.extend(member.timer_ms.map(|at| (Arc::clone(&old), at)));
                let current = Current { assigned: member.current.assigned, ..Current::default() };
                for (topic, partition) in current.assigned.iter() {
                    self.owners.entry(topic).or_default().insert(partition, Arc::clone(id));
                }
                if let Some(instance) = &member.about.instance {
                    self.statics.insert(instance.clone(), Arc::clone(id));
                }
                if let Some(target) = self.target.remove(&old) {
                    changes.push(Change::Target(id.to_string(), Some(target.clone())));
                    self.target.insert(Arc::clone(id), target);
                }
                forget(&old, changes);
                changes.push(Change::Member(id.to_string(), Some(member.about.clone())));
                self.members.insert(Arc::clone(id), fresh(member.about, current));
                false
            }
        }
    }

    /// Takes in what a member says of itself; whether it now wants something else.
    fn update(&mut self, id: &Arc<str>, beat: Beat, changes: &mut Vec<Change>) -> bool {
        let Some(member) = self.members.get_mut(id) else { return false };
        member.join_ends_ms = None;
        let before = member.about.clone();
        // Who joins says everything: what it leaves out it has not, whatever the process before it had.
        let kept = if beat.epoch == 0 { About::default() } else { before.clone() };
        let mut about = About {
            client_id: beat.client_id,
            client_host: beat.client_host,
            classic: None,
            instance: beat.instance.or(kept.instance),
            rack: beat.rack.or(kept.rack),
            assignor: beat.assignor.or(kept.assignor),
            rebalance_timeout_ms: beat.rebalance_timeout_ms.unwrap_or(kept.rebalance_timeout_ms),
            names: beat.names.unwrap_or(kept.names),
            regex: kept.regex,
        };
        let mut news = false;
        if let Some(regex) = beat.regex {
            if let (false, Some((version, named))) = (regex.is_empty(), beat.named) {
                news = self.learn(regex.clone(), version, named, changes);
            }
            about.regex = Some(regex).filter(|regex| !regex.is_empty());
        }
        self.note(id, &before, about, changes) || news
    }

    /// Takes in what a member now says of itself and tells it; whether it wants something else than before.
    pub(super) fn note(&mut self, id: &Arc<str>, before: &About, about: About, changes: &mut Vec<Change>) -> bool {
        if about == *before {
            return false;
        }
        if let Some(instance) = &about.instance {
            self.statics.insert(instance.clone(), Arc::clone(id));
        }
        let other = about.names != before.names || about.regex != before.regex || about.assignor != before.assignor;
        let regex = about.regex != before.regex;
        changes.push(Change::Member(id.to_string(), Some(about.clone())));
        if let Some(member) = self.members.get_mut(id) {
            member.about = about;
        }
        if regex {
            self.drop_unused(changes);
        }
        other
    }

    /// Lets a member leave, for good or (a static one) for a while.
    pub(super) fn leave(
        &mut self,
        around: &Surroundings<'_>,
        beat: &Beat,
        changes: &mut Vec<Change>,
    ) -> Result<Told, GroupError> {
        let found = match &beat.instance {
            Some(instance) => match self.statics.get(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(id) if **id != *beat.member => return Err(GroupError::FencedInstance),
                Some(id) => Arc::clone(id),
            },
            None => beat.member.as_str().into(),
        };
        let member = self.members.get_mut(&found).ok_or(GroupError::UnknownMember)?;
        if beat.epoch == AWAY {
            // What it had it keeps, and what it was to give up it has: its process is gone.
            let current = Current {
                epoch: AWAY,
                revoking: Partitions::default(),
                state: State::Stable,
                ..member.current.clone()
            };
            member.revoke_ends_ms = None;
            member.join_ends_ms = None;
            self.settle(&found, current, changes);
        } else {
            self.remove(around, &[found], changes);
        }
        let epoch = if beat.epoch == AWAY { AWAY } else { LEAVES };
        // Nothing more is awaited of it.
        Ok(Told { member: beat.member.clone(), epoch, interval_ms: 0, assignment: None })
    }
}

/// The records of a member that is no more.
fn forget(id: &str, changes: &mut Vec<Change>) {
    changes.push(Change::Current(id.to_owned(), None));
    changes.push(Change::Target(id.to_owned(), None));
    changes.push(Change::Member(id.to_owned(), None));
}
