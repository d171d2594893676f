//! Who is in a share group and who gets which partitions (KIP-932). Pure; called by the keeper of share groups.
//!
//! Members share partitions, so that none has to wait for another to give one up: a member is told what it has, and has it. Each partition
//! of a topic that somebody subscribes to has at least one member, and each member one partition at least where there is one for it.
//!
//! Members are not written down. After a restart each is told that it is unknown, and joins again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use uuid::Uuid;

use crate::group::{
    GroupError,
    consumer::{Partitions, Topics},
};

/// The assignor, as Kafka calls it.
pub(crate) const ASSIGNOR: &str = "simple";
/// Epochs of a member that joins, and of one that leaves.
const JOINS: i32 = 0;
const LEAVES: i32 = -1;
/// What a member takes besides its texts, about; and what a text in a set takes besides itself.
const MEMBER_BYTES: usize = 512;
const NAME_BYTES: usize = 48;

/// A ShareGroupHeartbeat request. What is absent did not change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Beat {
    pub(crate) member: String,
    pub(crate) epoch: i32,
    pub(crate) rack: Option<String>,
    pub(crate) names: Option<BTreeSet<String>>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
}

/// The answer to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) member: String,
    pub(crate) epoch: i32,
    /// What it has, where it has to be told.
    pub(crate) assignment: Option<Partitions>,
}

/// What a group may take, and how long a member may be silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) members_max: usize,
    pub(super) bytes_max: usize,
    pub(super) session_ms: u64,
}

#[derive(Debug)]
struct Member {
    rack: Option<String>,
    client_id: String,
    client_host: String,
    names: BTreeSet<String>,
    epoch: i32,
    /// The epoch before: one to which the last answer was lost comes with it again.
    previous_epoch: i32,
    session_ends_ms: u64,
    assigned: Partitions,
}

impl Member {
    fn bytes(&self) -> usize {
        let names: usize = self.names.iter().map(|name| NAME_BYTES + name.len()).sum();
        let rack = self.rack.as_ref().map_or(0, String::len);
        MEMBER_BYTES + rack + self.client_id.len() + self.client_host.len() + names
    }
}

/// A member as ShareGroupDescribe shows it.
#[derive(Debug, Clone)]
pub(crate) struct MemberView {
    pub(crate) id: String,
    pub(crate) rack: Option<String>,
    pub(crate) epoch: i32,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) names: BTreeSet<String>,
    pub(crate) assigned: Partitions,
}

/// The members of one group.
#[derive(Debug, Default)]
pub(super) struct Members {
    pub(super) epoch: i32,
    all: BTreeMap<Arc<str>, Member>,
    /// Which state of the topics the assignment is of.
    seen: Option<u64>,
}

impl Members {
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Takes out who was not heard of in time.
    pub(super) fn expire(&mut self, now_ms: u64, topics: &dyn Topics) {
        let before = self.all.len();
        self.all.retain(|_, member| member.session_ends_ms > now_ms);
        if self.all.len() < before {
            self.assign(topics);
        }
    }

    pub(super) fn beat(
        &mut self,
        now_ms: u64,
        beat: Beat,
        bounds: Bounds,
        topics: &dyn Topics,
    ) -> Result<Told, GroupError> {
        if beat.member.is_empty() || beat.epoch < LEAVES || (beat.epoch == JOINS && beat.names.is_none()) {
            return Err(GroupError::InvalidRequest);
        }
        self.expire(now_ms, topics);
        let id: Arc<str> = beat.member.as_str().into();
        if beat.epoch == LEAVES {
            self.all.remove(&id).ok_or(GroupError::UnknownMember)?;
            self.assign(topics);
            return Ok(Told { member: beat.member, epoch: LEAVES, assignment: None });
        }
        let known = self.all.get(&id);
        if beat.epoch != JOINS {
            let known = known.ok_or(GroupError::UnknownMember)?;
            if beat.epoch != known.epoch && beat.epoch != known.previous_epoch {
                return Err(GroupError::FencedEpoch);
            }
        }
        if let Some(names) = &beat.names {
            let bytes: usize = self.all.values().map(Member::bytes).sum();
            let asked: usize = names.iter().map(|name| NAME_BYTES + name.len()).sum();
            let is_full = known.is_none() && self.all.len() >= bounds.members_max;
            if is_full || bytes + asked + MEMBER_BYTES > bounds.bytes_max {
                return Err(GroupError::GroupFull);
            }
        }
        let (joins, says_names) = (beat.epoch == JOINS, beat.names.is_some());
        let is_new = self.take_in(&id, beat, now_ms.saturating_add(bounds.session_ms));
        if is_new || self.seen != Some(topics.version()) {
            self.assign(topics);
        }
        let epoch = self.epoch;
        let member = self.all.get_mut(&id).ok_or(GroupError::UnknownMember)?;
        let is_behind = member.epoch != epoch;
        if is_behind {
            member.previous_epoch = member.epoch;
            member.epoch = epoch;
        }
        let tells = joins || says_names || is_behind;
        Ok(Told { member: id.to_string(), epoch, assignment: tells.then(|| member.assigned.clone()) })
    }

    /// Takes in what a member says of itself; whether it wants something else than before.
    fn take_in(&mut self, id: &Arc<str>, beat: Beat, session_ends_ms: u64) -> bool {
        let fresh = || Member {
            rack: None,
            client_id: String::new(),
            client_host: String::new(),
            names: BTreeSet::new(),
            epoch: 0,
            previous_epoch: 0,
            session_ends_ms,
            assigned: Partitions::default(),
        };
        let is_new = !self.all.contains_key(id);
        let member = self.all.entry(Arc::clone(id)).or_insert_with(fresh);
        (member.client_id, member.client_host) = (beat.client_id, beat.client_host);
        member.session_ends_ms = session_ends_ms;
        if beat.rack.is_some() {
            member.rack = beat.rack;
        }
        let wants_other = beat.names.as_ref().is_some_and(|names| *names != member.names);
        if let Some(names) = beat.names {
            member.names = names;
        }
        is_new || wants_other
    }

    /// Decides anew who has what, in a new epoch.
    fn assign(&mut self, topics: &dyn Topics) {
        self.seen = Some(topics.version());
        let mut subscribers: BTreeMap<(Uuid, u32), Vec<Arc<str>>> = BTreeMap::new();
        for (id, member) in &self.all {
            for topic in member.names.iter().filter_map(|name| topics.find(name)) {
                subscribers.entry(topic).or_default().push(Arc::clone(id));
            }
        }
        let mut given: BTreeMap<Arc<str>, Partitions> = BTreeMap::new();
        // Each topic goes on where the one before it ended, so that many small ones do not all go to the same member.
        let mut turn = 0;
        for ((topic, partitions), members) in subscribers {
            let count = members.len().max(partitions as usize);
            for at in 0..if partitions == 0 { 0 } else { count } {
                let member = &members[(turn + at) % members.len()];
                given.entry(Arc::clone(member)).or_default().insert(topic, (at % partitions as usize) as u32);
            }
            turn += count;
        }
        for (id, member) in &mut self.all {
            member.assigned = given.remove(id).unwrap_or_default();
        }
        self.epoch = self.epoch.saturating_add(1);
    }

    pub(super) fn view(&self) -> Vec<MemberView> {
        let view = |(id, member): (&Arc<str>, &Member)| MemberView {
            id: id.to_string(),
            rack: member.rack.clone(),
            epoch: member.epoch,
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            names: member.names.clone(),
            assigned: member.assigned.clone(),
        };
        self.all.iter().map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Topics by name: version, id and partitions.
    struct Fixed(u64, BTreeMap<&'static str, (Uuid, u32)>);

    impl Topics for Fixed {
        fn version(&self) -> u64 {
            self.0
        }
        fn find(&self, name: &str) -> Option<(Uuid, u32)> {
            self.1.get(name).copied()
        }
    }

    fn topics(version: u64, all: &[(&'static str, u32)]) -> Fixed {
        let id = |name: &str| Uuid::from_u128(u128::from(name.as_bytes()[0]));
        Fixed(version, all.iter().map(|(name, partitions)| (*name, (id(name), *partitions))).collect())
    }

    const BOUNDS: Bounds = Bounds { members_max: 50, bytes_max: 1 << 20, session_ms: 45_000 };

    fn joins(member: &str, names: &[&str]) -> Beat {
        let names = Some(names.iter().map(|name| (*name).to_owned()).collect());
        Beat { member: member.to_owned(), names, ..Beat::default() }
    }

    fn stays(member: &str, epoch: i32) -> Beat {
        Beat { member: member.to_owned(), epoch, ..Beat::default() }
    }

    #[test]
    fn every_partition_has_a_member_and_every_member_a_partition() {
        for (members, partitions) in [(1, 3), (3, 3), (5, 3), (7, 2), (2, 9), (4, 1)] {
            let topics = topics(1, &[("a", partitions), ("b", 1)]);
            let mut group = Members::default();
            for n in 0..members {
                group.beat(0, joins(&format!("m{n}"), &["a", "b", "not there"]), BOUNDS, &topics).expect("room");
            }
            let mut of = BTreeMap::new();
            for member in group.view() {
                assert!(!member.assigned.is_empty(), "{members} members, {partitions} partitions");
                for place in member.assigned.iter() {
                    *of.entry(place).or_insert(0) += 1;
                }
            }
            assert_eq!(of.len(), partitions as usize + 1);
            let spread: Vec<i32> = of.into_values().collect();
            let (least, most) = (spread.iter().min().expect("some"), spread.iter().max().expect("some"));
            assert!(most - least <= members.max(1), "{spread:?}");
        }
    }

    #[test]
    fn a_member_is_told_what_it_has_once_and_again_when_that_changed() {
        let before = topics(1, &[("a", 2)]);
        let mut group = Members::default();
        let told = group.beat(0, joins("m", &["a"]), BOUNDS, &before).expect("joins");
        assert_eq!(told.assignment.map(|all| all.iter().count()), Some(2));
        let same = group.beat(1, stays("m", told.epoch), BOUNDS, &before).expect("stays");
        assert_eq!((same.epoch, same.assignment), (told.epoch, None));
        // Another joins, and the topic grows.
        let other = group.beat(2, joins("n", &["a"]), BOUNDS, &before).expect("joins");
        let told = group.beat(3, stays("m", told.epoch), BOUNDS, &before).expect("stays");
        assert_eq!((told.epoch, told.assignment.map(|all| all.iter().count())), (other.epoch, Some(1)));
        let grown = topics(2, &[("a", 4)]);
        let told = group.beat(4, stays("m", told.epoch), BOUNDS, &grown).expect("stays");
        assert_eq!(told.assignment.map(|all| all.iter().count()), Some(2));
        // The answer was lost: it comes with the epoch before.
        let again = group.beat(5, stays("m", other.epoch), BOUNDS, &grown).expect("the one before");
        assert_eq!(again.epoch, told.epoch);
        assert_eq!(group.beat(6, stays("m", 1), BOUNDS, &grown), Err(GroupError::FencedEpoch));
        assert_eq!(group.beat(6, stays("m", 99), BOUNDS, &grown), Err(GroupError::FencedEpoch));
    }

    #[test]
    fn who_leaves_or_is_not_heard_of_gives_its_partitions_to_the_others() {
        let topics = topics(1, &[("a", 2)]);
        let mut group = Members::default();
        for member in ["m", "n", "o"] {
            group.beat(0, joins(member, &["a"]), BOUNDS, &topics).expect("joins");
        }
        let epoch = group.epoch;
        group.beat(40_000, stays("m", epoch - 2), BOUNDS, &topics).expect("stays");
        group.beat(40_000, stays("n", epoch - 1), BOUNDS, &topics).expect("stays");
        assert_eq!(group.view().len(), 3);
        assert_eq!(group.beat(40_000, stays("n", LEAVES), BOUNDS, &topics).expect("leaves").epoch, LEAVES);
        let told = group.beat(45_001, stays("m", epoch), BOUNDS, &topics).expect("stays");
        assert_eq!(told.assignment.map(|all| all.iter().count()), Some(2), "all of it");
        assert_eq!(group.beat(45_002, stays("o", epoch), BOUNDS, &topics), Err(GroupError::UnknownMember));
        assert_eq!(group.beat(45_002, stays("n", LEAVES), BOUNDS, &topics), Err(GroupError::UnknownMember));
    }

    #[test]
    fn groups_are_bounded_and_what_makes_no_sense_is_refused() {
        let topics = topics(1, &[("a", 2)]);
        let mut group = Members::default();
        let bounds = Bounds { members_max: 2, ..BOUNDS };
        for member in ["m", "n"] {
            group.beat(0, joins(member, &["a"]), bounds, &topics).expect("room");
        }
        assert_eq!(group.beat(0, joins("o", &["a"]), bounds, &topics), Err(GroupError::GroupFull));
        group.beat(0, joins("n", &["a"]), bounds, &topics).expect("it is there already");
        let long = "x".repeat(4_000);
        let small = Bounds { bytes_max: 4_000, ..BOUNDS };
        assert_eq!(group.beat(0, joins("o", &[&long]), small, &topics), Err(GroupError::GroupFull));
        for wrong in [joins("", &["a"]), stays("m", -2), stays("o", JOINS)] {
            assert_eq!(group.beat(0, wrong, BOUNDS, &topics), Err(GroupError::InvalidRequest));
        }
    }
}
