//! What must hold of consumer groups, through the door of their core.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::BytesMut;
use uuid::Uuid;

use super::{records, *};
use crate::group::{
    Effect, GroupError, GroupLimits, Pace, Paces, Reply, Ticket,
    records::{GroupRecord, decode},
};

pub(super) const GROUP: &str = "g";

pub(super) fn limits() -> GroupLimits {
    GroupLimits {
        session_timeout_ms_min: 1,
        session_timeout_ms_max: 100_000,
        initial_delay_ms: 0,
        groups_max: 2,
        members_max: 6,
        group_bytes_max: 60_000,
        groups_bytes_max: 80_000,
        offsets_bytes_max: 1 << 20,
        offsets_kept_ms: None,
        offsets_look_ms: 1_000,
        consumer_session_ms: 100,
        consumer_interval_ms: 10,
        paces: Paces::default(),
    }
}

/// Topics that a test makes and unmakes.
#[derive(Default)]
pub(super) struct Shelf {
    version: u64,
    next: u128,
    pub(super) topics: BTreeMap<String, (Uuid, u32)>,
}

impl Shelf {
    pub(super) fn put(&mut self, name: &str, partitions: u32) {
        self.version += 1;
        self.next += 1;
        let id = self.topics.get(name).map_or(Uuid::from_u128(self.next), |(id, _)| *id);
        self.topics.insert(name.to_owned(), (id, partitions));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.version += 1;
        self.topics.remove(name);
    }

    pub(super) fn named(&self, regex: &str) -> Named {
        let regex = compile(regex).expect("valid");
        self.topics.keys().filter(|name| regex.is_match(name.as_bytes())).cloned().collect()
    }
}

impl Topics for Shelf {
    fn version(&self) -> u64 {
        self.version
    }

    fn find(&self, name: &str) -> Option<(Uuid, u32)> {
        self.topics.get(name).copied()
    }
}

/// A core with its topics, its hour, and what it has written.
pub(super) struct Bench {
    pub(super) core: Core,
    pub(super) shelf: Shelf,
    pub(super) now_ms: u64,
    next: u64,
    pub(super) disk: HashMap<String, Stored>,
    /// Expressions that are to be asked.
    pub(super) asked: Vec<(String, String)>,
}

impl Bench {
    pub(super) fn new() -> Self {
        let mut shelf = Shelf::default();
        shelf.put("t", 4);
        let (disk, asked) = (HashMap::new(), Vec::new());
        Self { core: Core::new(limits()), shelf, now_ms: 0, next: 0, disk, asked }
    }

    /// Puts an input through the door; what it writes goes to the disk as bytes.
    pub(super) fn put(&mut self, make: impl FnOnce(Ticket) -> Input) -> Option<Reply> {
        let ticket = Ticket(self.next);
        self.next += 1;
        let mut replied = None;
        for effect in self.core.handle(self.now_ms, make(ticket), &self.shelf, 0) {
            match effect {
                Effect::Change { group, changes } => changes.iter().for_each(|change| self.write(&group, change)),
                Effect::Ask { group, regexes } => {
                    self.asked.extend(regexes.into_iter().map(|regex| (group.clone(), regex)));
                }
                Effect::Reply(to, reply) => {
                    assert_eq!(to, ticket);
                    assert!(replied.replace(reply).is_none(), "two replies");
                }
                Effect::Store(_) => panic!("of the other protocol"),
            }
        }
        replied
    }

    fn write(&mut self, group: &str, change: &Change) {
        let (key, value) = records::encode(group, change, 0, 0);
        let value = value.map(BytesMut::freeze);
        match decode(&key, value.as_ref()).expect("readable") {
            GroupRecord::Consumer { group, change } => Stored::take(&mut self.disk, group, change),
            other => panic!("not of a consumer group: {other:?}"),
        }
    }

    pub(super) fn beat(&mut self, mut beat: Beat) -> Result<Told, GroupError> {
        if let Some(regex) = &beat.regex {
            beat.named = Some((self.shelf.version(), self.shelf.named(regex)));
        }
        let beat = Box::new(beat);
        match self.put(|ticket| Input::Beat { ticket, group: GROUP.into(), beat }) {
            Some(Reply::Told(told)) => Ok(told),
            Some(Reply::Refused(error)) => Err(error),
            other => panic!("no answer to a heartbeat: {other:?}"),
        }
    }

    pub(super) fn answer_asked(&mut self) {
        for (group, regex) in std::mem::take(&mut self.asked) {
            let (version, named) = (self.shelf.version(), Some(self.shelf.named(&regex)));
            self.put(|_| Input::Named { group, regex, version, named });
        }
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.put(|_| Input::Tick);
    }

    /// The broker ends and comes back with what it has written.
    pub(super) fn restart(&mut self) {
        self.core = Core::new(limits());
        self.asked.clear();
        for (name, stored) in self.disk.clone() {
            self.core.restore(self.now_ms, name, stored);
        }
    }

    fn join(&mut self, member: &str) -> Told {
        self.beat(joins(member, &["t"])).expect("joined")
    }

    fn stay(&mut self, member: &str, epoch: i32, owned: Option<&Partitions>) -> Result<Told, GroupError> {
        self.beat(Beat { member: member.into(), epoch, owned: owned.cloned(), ..Beat::default() })
    }

    fn view(&self) -> ConsumerView {
        self.core.describe(GROUP).expect("the group")
    }
}

pub(super) fn joins(member: &str, names: &[&str]) -> Beat {
    Beat {
        member: member.into(),
        names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        rebalance_timeout_ms: Some(300),
        owned: Some(Partitions::default()),
        client_id: "c".into(),
        client_host: "/h".into(),
        ..Beat::default()
    }
}

fn count(told: &Told) -> usize {
    told.assignment.as_ref().expect("an assignment").iter().count()
}

#[test]
fn a_partition_goes_to_its_next_owner_only_after_the_former_gave_it_up() {
    let mut bench = Bench::new();
    let a = bench.join("a");
    assert_eq!((count(&a), a.epoch), (4, 1));
    let all = a.assignment.expect("all");
    let b = bench.join("b");
    assert_eq!((count(&b), b.epoch), (0, 2));
    // It is told to give two up, keeps its epoch, and until it says so b gets nothing.
    let told = bench.stay("a", 1, None).expect("told");
    assert_eq!((count(&told), told.epoch), (2, 1));
    let kept = told.assignment.expect("two");
    assert_eq!(bench.stay("b", 2, None).expect("waits").assignment, None);
    assert_eq!(bench.stay("a", 1, Some(&all)).expect("still has all").epoch, 1);
    assert_eq!(bench.stay("b", 2, None).expect("waits").assignment, None);
    assert_eq!(bench.view().state, ConsumerState::Reconciling);
    assert_eq!(bench.stay("a", 1, Some(&kept)).expect("gave up").epoch, 2);
    let got = bench.stay("b", 2, None).expect("gets").assignment.expect("two");
    assert_eq!(got, all.without(&kept));
    assert_eq!(bench.view().state, ConsumerState::Stable);
}

#[test]
fn who_does_not_give_up_in_time_is_out() {
    let mut bench = Bench::new();
    bench.join("a");
    bench.join("b");
    bench.stay("a", 1, None).expect("told to give up");
    for _ in 0..4 {
        bench.pass(80);
        bench.stay("b", 2, None).expect("heard");
        if let Err(error) = bench.stay("a", 1, None) {
            assert_eq!(error, GroupError::UnknownMember);
        }
    }
    assert_eq!(bench.stay("a", 1, None), Err(GroupError::UnknownMember));
    assert_eq!(bench.view().members.len(), 1);
    assert_eq!(bench.view().members[0].assigned.iter().count(), 4);
}

#[test]
fn a_silent_member_is_out_after_its_session_and_a_wrong_epoch_is_fenced() {
    let mut bench = Bench::new();
    let a = bench.join("a");
    assert_eq!(bench.stay("a", 2, None), Err(GroupError::FencedEpoch), "a greater epoch");
    assert_eq!(bench.stay("x", 1, None), Err(GroupError::UnknownMember));
    bench.join("b");
    let kept = bench.stay("a", 1, None).expect("told").assignment.expect("two");
    bench.stay("a", 1, Some(&kept)).expect("gave up");
    // The answer with epoch 2 was lost: the epoch before is good with what it was given, and with nothing else.
    assert_eq!(bench.stay("a", 1, a.assignment.as_ref()), Err(GroupError::FencedEpoch));
    assert_eq!(bench.stay("a", 1, None), Err(GroupError::FencedEpoch), "it must say what it has");
    assert_eq!(bench.stay("a", 1, Some(&kept)).expect("again").epoch, 2);
    bench.pass(60);
    bench.stay("a", 2, None).expect("heard");
    bench.pass(60);
    assert_eq!(bench.stay("b", 2, None), Err(GroupError::UnknownMember));
    assert_eq!(bench.stay("a", 2, None).expect("all again").assignment.map(|all| all.iter().count()), Some(4));
}

#[test]
fn a_group_with_a_pace_of_its_own_keeps_to_it() {
    let mut bench = Bench::new();
    bench.core.limits.paces.set(GROUP, Pace { session_ms: Some(500), interval_ms: Some(70) });
    assert_eq!(bench.join("a").interval_ms, 70);
    bench.pass(400);
    assert_eq!(bench.stay("a", 1, None).expect("in its session").interval_ms, 70);
    bench.core.limits.paces.set(GROUP, Pace::default());
    assert_eq!(bench.stay("a", 1, None).expect("in its session").interval_ms, 10);
    bench.pass(101);
    assert_eq!(bench.stay("a", 1, None), Err(GroupError::UnknownMember), "the broker's again");
}

#[test]
fn a_static_member_that_is_away_keeps_its_partitions_for_the_next_process() {
    let mut bench = Bench::new();
    let as_one = |beat: Beat| Beat { instance: Some("one".into()), ..beat };
    let first = bench.beat(as_one(joins("p1", &["t"]))).expect("joined");
    bench.join("b");
    assert_eq!(bench.beat(as_one(joins("p2", &["t"]))), Err(GroupError::UnreleasedInstance));
    let away = Beat { member: "p1".into(), epoch: AWAY, ..Beat::default() };
    assert_eq!(bench.beat(away.clone()), Err(GroupError::InvalidRequest), "only static members come back");
    assert_eq!(bench.beat(as_one(away)).expect("away").epoch, AWAY);
    let epoch = bench.view().epoch;
    let second = bench.beat(as_one(joins("p2", &["t"]))).expect("back");
    assert_eq!((bench.view().epoch, second.epoch), (epoch, 2), "nothing moves");
    assert!(second.assignment.expect("its partitions").is_within(&first.assignment.expect("all")));
    let old = Beat { member: "p1".into(), epoch: 2, ..Beat::default() };
    assert_eq!(bench.beat(as_one(old)), Err(GroupError::FencedInstance));
    let away = Beat { member: "p2".into(), epoch: AWAY, ..Beat::default() };
    bench.beat(as_one(away)).expect("away");
    bench.pass(101);
    assert!(bench.view().members.is_empty(), "not back in time");
}

#[test]
fn topics_that_come_grow_and_go_raise_the_epoch() {
    let mut bench = Bench::new();
    let mut beat = joins("a", &["t", "later"]);
    beat.regex = Some("x-.*".into());
    bench.beat(beat).expect("joined");
    for (epoch, partitions) in [(2, 6), (3, 8)] {
        bench.shelf.put("t", partitions);
        let told = bench.stay("a", epoch - 1, None).expect("told");
        assert_eq!((told.epoch, count(&told)), (epoch, partitions as usize));
    }
    bench.shelf.put("other", 1);
    assert_eq!(bench.stay("a", 3, None).expect("nothing new").assignment, None);
    bench.shelf.put("later", 2);
    assert_eq!(count(&bench.stay("a", 3, None).expect("told")), 10);
    bench.shelf.put("x-1", 3);
    bench.stay("a", 4, None).expect("asks");
    assert!(!bench.asked.is_empty(), "the expression is asked again");
    bench.answer_asked();
    assert_eq!(count(&bench.stay("a", 4, None).expect("told")), 13);
    bench.shelf.remove("t");
    let told = bench.stay("a", 5, None).expect("told to give up");
    assert_eq!((count(&told), told.epoch), (5, 5));
    let told = bench.stay("a", 5, told.assignment.as_ref()).expect("gave up");
    assert_eq!((told.epoch, bench.view().epoch), (6, 6));
}

#[test]
fn members_and_what_they_have_outlive_the_broker() {
    let mut bench = Bench::new();
    bench.join("a");
    bench.join("b");
    let kept = bench.stay("a", 1, None).expect("told").assignment.expect("two");
    bench.restart();
    assert_eq!(bench.stay("b", 2, None).expect("waits").assignment, None, "a still has them");
    assert_eq!(bench.stay("a", 1, Some(&kept)).expect("gave up").epoch, 2);
    bench.restart();
    assert_eq!(count(&bench.stay("b", 2, None).expect("gets")), 2);
    assert_eq!((bench.view().epoch, bench.view().state), (2, ConsumerState::Stable));
    bench.pass(101);
    bench.restart();
    assert_eq!((bench.view().members.len(), bench.view().epoch), (0, 3));
}

#[test]
fn commits_are_fenced_by_the_member_epoch() {
    let mut bench = Bench::new();
    bench.join("a");
    let mut commit = |member: &str, epoch: i32, version: i16| {
        let member = member.to_owned();
        match bench.put(|ticket| Input::Commit { ticket, group: GROUP.into(), member, epoch, version }) {
            Some(Reply::Refused(error)) => Err(error),
            _ => Ok(()),
        }
    };
    assert_eq!(commit("a", 1, 9), Ok(()));
    assert_eq!(commit("a", 0, 9), Err(GroupError::StaleEpoch));
    assert_eq!(commit("a", 1, 8), Err(GroupError::UnsupportedVersion));
    assert_eq!(commit("x", 1, 9), Err(GroupError::UnknownMember));
    assert_eq!(commit("", -1, 9), Err(GroupError::UnknownMember), "others do not while there are members");
    let fetch = |bench: &mut Bench, member: Option<&str>, epoch: i32| {
        let member = member.map(str::to_owned);
        match bench.put(|ticket| Input::Fetch { ticket, group: GROUP.into(), member, epoch }) {
            Some(Reply::Refused(error)) => Err(error),
            _ => Ok(()),
        }
    };
    assert_eq!(fetch(&mut bench, None, -1), Ok(()));
    assert_eq!(fetch(&mut bench, Some("a"), 1), Ok(()));
    assert_eq!(fetch(&mut bench, Some("a"), 7), Err(GroupError::StaleEpoch));
    assert_eq!(fetch(&mut bench, Some("x"), 1), Err(GroupError::UnknownMember));
}

#[test]
fn what_is_not_a_request_is_refused_and_leaves_nothing() {
    let mut bench = Bench::new();
    let bad = |change: fn(&mut Beat)| {
        let mut beat = joins("a", &["t"]);
        change(&mut beat);
        beat
    };
    let mut cases = vec![
        bad(|beat| beat.epoch = -3),
        bad(|beat| beat.names = None),
        bad(|beat| beat.owned = None),
        bad(|beat| beat.owned = Some([(Uuid::from_u128(1), 0)].into_iter().collect())),
        bad(|beat| beat.rebalance_timeout_ms = None),
        bad(|beat| beat.instance = Some(String::new())),
        bad(|beat| beat.rack = Some(String::new())),
    ];
    for beat in cases.drain(..) {
        assert_eq!(bench.beat(beat), Err(GroupError::InvalidRequest));
    }
    assert_eq!(bench.beat(bad(|beat| beat.assignor = Some("best".into()))), Err(GroupError::UnsupportedAssignor));
    assert_eq!(bench.stay("a", 1, None), Err(GroupError::UnknownMember));
    assert!(bench.core.describe(GROUP).is_none() && bench.disk.is_empty());
}

#[test]
fn members_bytes_and_groups_are_bounded() {
    let mut bench = Bench::new();
    let names: Vec<String> = (0..2_000).map(|at| format!("a-topic-with-a-name-{at}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(bench.beat(joins("a", &names)), Err(GroupError::GroupFull), "names");
    bench.shelf.put("wide", 1_000);
    assert_eq!(bench.beat(joins("a", &["wide"])), Err(GroupError::GroupFull), "partitions");
    for member in ["a", "b", "c", "d", "e", "f"] {
        bench.join(member);
    }
    assert_eq!(bench.beat(joins("g", &["t"])), Err(GroupError::GroupFull), "members");
    bench.shelf.put("t", 1_000);
    assert_eq!(bench.stay("a", 1, None).map(|_| ()), Ok(()), "the group goes on with what it had");
    assert!(bench.view().members.iter().map(|member| member.target.iter().count()).sum::<usize>() <= 4);
    let other = |bench: &mut Bench, group: &str| {
        let beat = Box::new(joins("a", &["none"]));
        bench.put(|ticket| Input::Beat { ticket, group: group.into(), beat })
    };
    assert!(matches!(other(&mut bench, "g2"), Some(Reply::Told(_))));
    assert_eq!(other(&mut bench, "g3"), Some(Reply::Refused(GroupError::Unavailable)), "groups");
    let beat = Box::new(Beat { member: "a".into(), epoch: LEAVES, ..Beat::default() });
    bench.put(|ticket| Input::Beat { ticket, group: "g2".into(), beat });
    assert!(matches!(other(&mut bench, "g3"), Some(Reply::Told(_))), "a group without members makes way");
    assert!(!bench.disk.contains_key("g2"));
}

#[test]
fn a_group_is_deleted_when_it_is_empty_and_nothing_of_it_stays() {
    let mut bench = Bench::new();
    bench.join("a");
    let delete = |bench: &mut Bench| bench.put(|ticket| Input::Delete { ticket, group: GROUP.into() });
    assert_eq!(delete(&mut bench), Some(Reply::Refused(GroupError::NotEmpty)));
    bench.beat(Beat { member: "a".into(), epoch: LEAVES, ..Beat::default() }).expect("left");
    assert_eq!(bench.view().state, ConsumerState::Empty);
    assert_eq!(delete(&mut bench), Some(Reply::Done));
    assert!(bench.disk.is_empty());
    assert_eq!(bench.core.next_deadline_ms(), None, "no timer stays");
    assert_eq!(bench.core.bytes(), 0);
}

#[test]
fn the_assignor_that_most_ask_for_is_taken() {
    let mut bench = Bench::new();
    bench.shelf.put("u", 2);
    let asks = |member: &str| Beat { assignor: Some("range".into()), ..joins(member, &["t", "u"]) };
    bench.beat(asks("a")).expect("joined");
    bench.beat(asks("b")).expect("joined");
    bench.beat(joins("c", &["t", "u"])).expect("joined");
    let view = bench.view();
    assert_eq!(view.assignor, "range");
    let topics = |member: &MemberView| member.target.topics().map(|(topic, _)| topic).collect::<BTreeSet<_>>().len();
    assert_eq!(view.members.iter().map(topics).collect::<Vec<_>>(), [2, 2, 1]);
}
