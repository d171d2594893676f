//! What must hold of groups: of the core through its door, and of the records.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use proptest::prelude::*;

use super::{
    records::{self, GroupRecord, OffsetValue},
    *,
};
use crate::group::member::MemberSnapshot;

const GROUP: &str = "g";

fn limits() -> GroupLimits {
    GroupLimits {
        session_timeout_ms_min: 1,
        session_timeout_ms_max: 100_000,
        initial_delay_ms: 0,
        groups_max: 4,
        members_max: 3,
        group_bytes_max: 10_000,
        groups_bytes_max: 15_000,
        offsets_bytes_max: 1 << 20,
        offsets_kept_ms: None,
        offsets_look_ms: 1_000,
        consumer_session_ms: 100,
        consumer_interval_ms: 10,
        paces: Paces::default(),
    }
}

struct Bench {
    core: Core,
    now_ms: u64,
    next: u64,
    replies: HashMap<Ticket, Reply>,
    stored: Vec<GroupSnapshot>,
}

impl Bench {
    fn new() -> Self {
        Self { core: Core::new(limits()), now_ms: 0, next: 0, replies: HashMap::new(), stored: Vec::new() }
    }

    fn put(&mut self, make: impl FnOnce(Ticket) -> Input) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        for effect in self.core.handle(self.now_ms, make(ticket)) {
            match effect {
                Effect::Store(snapshot) => self.stored.push(snapshot),
                Effect::Change { .. } | Effect::Ask { .. } => panic!("of the other protocol"),
                Effect::Reply(ticket, reply) => assert!(self.replies.insert(ticket, reply).is_none(), "two replies"),
            }
        }
        ticket
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.put(|_| Input::Tick);
    }

    fn join(&mut self, member: &str, instance: Option<&str>, fresh: &str, metadata: &'static str) -> Ticket {
        self.join_with(member, instance, fresh, metadata, false)
    }

    fn join_with(
        &mut self,
        member: &str,
        instance: Option<&str>,
        fresh: &str,
        metadata: &'static str,
        id_required: bool,
    ) -> Ticket {
        let join = Join {
            who: Identity { member: member.into(), instance: instance.map(Into::into) },
            fresh_member_id: fresh.into(),
            client_id: "c".into(),
            client_host: "/h".into(),
            session_timeout_ms: 100,
            rebalance_timeout_ms: 1_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(metadata.as_bytes()))],
            id_required,
            may_skip_assignment: true,
        };
        self.put(|ticket| Input::Join { ticket, group: GROUP.into(), join })
    }

    fn joined(&self, ticket: Ticket) -> &Joined {
        match &self.replies[&ticket] {
            Reply::Joined(joined) => joined,
            other => panic!("not joined: {other:?}"),
        }
    }

    fn sync(&mut self, member: &str, generation: i32, assignments: &[(&str, &'static str)]) -> Ticket {
        let who = Identity { member: member.into(), instance: None };
        let assignments =
            assignments.iter().map(|(m, a)| ((*m).to_owned(), Bytes::from_static(a.as_bytes()))).collect();
        self.put(|ticket| {
            let (protocol_type, protocol) = (None, None);
            Input::Sync { ticket, group: GROUP.into(), who, generation, protocol_type, protocol, assignments }
        })
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> Reply {
        let who = Identity { member: member.into(), instance: None };
        let ticket = self.put(|ticket| Input::Heartbeat { ticket, group: GROUP.into(), who, generation });
        self.replies[&ticket].clone()
    }

    /// Two members, a leading, both synced in generation 2.
    fn pair(&mut self) {
        self.join("", None, "a", "ma");
        let b = self.join("", None, "b", "mb");
        let a = self.join("a", None, "", "ma");
        assert_eq!((self.joined(a).generation, self.joined(b).generation), (2, 2));
        self.sync("b", 2, &[]);
        self.sync("a", 2, &[("a", "pa"), ("b", "pb")]);
        assert_eq!(self.core.describe(GROUP).expect("group").0, GroupState::Stable);
    }
}

#[test]
fn a_group_of_two_gets_one_leader_who_knows_both() {
    let mut bench = Bench::new();
    let first = bench.join("", None, "a", "ma");
    assert_eq!(bench.joined(first).leader, "a");
    let b = bench.join("", None, "b", "mb");
    assert!(!bench.replies.contains_key(&b), "waits for a");
    assert_eq!(bench.heartbeat("a", 1), Reply::Refused(GroupError::RebalanceInProgress));
    let a = bench.join("a", None, "", "ma");
    assert_eq!(bench.joined(a).members.len(), 2);
    assert!(bench.joined(b).members.is_empty());
    let sync_b = bench.sync("b", 2, &[]);
    assert!(!bench.replies.contains_key(&sync_b), "waits for the leader");
    bench.sync("a", 2, &[("a", "pa"), ("b", "pb")]);
    let Reply::Synced(synced) = &bench.replies[&sync_b] else { panic!("not synced") };
    assert_eq!(synced.assignment, "pb");
    assert_eq!(bench.stored.last().expect("stored").members.len(), 2);
}

#[test]
fn an_unknown_or_silent_member_is_told_so_and_the_rest_rebalances() {
    let mut bench = Bench::new();
    bench.pair();
    assert_eq!(bench.heartbeat("x", 2), Reply::Refused(GroupError::UnknownMember));
    assert_eq!(bench.heartbeat("a", 1), Reply::Refused(GroupError::IllegalGeneration));
    bench.pass(60);
    assert_eq!(bench.heartbeat("a", 2), Reply::Done);
    bench.pass(60);
    assert_eq!(bench.heartbeat("b", 2), Reply::Refused(GroupError::UnknownMember));
    assert_eq!(bench.heartbeat("a", 2), Reply::Refused(GroupError::RebalanceInProgress));
    let a = bench.join("a", None, "", "ma");
    assert_eq!((bench.joined(a).generation, bench.joined(a).members.len()), (3, 1));
}

#[test]
fn who_does_not_join_in_time_is_out() {
    let mut bench = Bench::new();
    bench.pair();
    let c = bench.join("", None, "c", "mc");
    let a = bench.join("a", None, "", "ma");
    for _ in 0..20 {
        bench.pass(60);
        bench.heartbeat("b", 2);
    }
    assert_eq!(bench.joined(a).members.len(), 2);
    assert_eq!(bench.joined(c).generation, 3);
    assert_eq!(bench.heartbeat("b", 3), Reply::Refused(GroupError::UnknownMember));
}

#[test]
fn a_leader_that_never_syncs_is_replaced() {
    let mut bench = Bench::new();
    bench.join("", None, "a", "ma");
    let b = bench.join("", None, "b", "mb");
    bench.join("a", None, "", "ma");
    let sync = bench.sync("b", bench.joined(b).generation, &[]);
    bench.pass(200);
    assert_eq!(bench.replies[&sync], Reply::Refused(GroupError::RebalanceInProgress));
    let again = bench.join("b", None, "", "mb");
    assert_eq!(bench.joined(again).leader, "b");
}

#[test]
fn a_new_member_learns_its_id_first_and_holds_the_door() {
    let mut bench = Bench::new();
    let asked = bench.join_with("", None, "a", "ma", true);
    assert_eq!(bench.replies[&asked], Reply::MemberIdRequired("a".into()));
    let joined = bench.join_with("a", None, "", "ma", true);
    assert_eq!(bench.joined(joined).member, "a");
    let unknown = bench.join_with("zzz", None, "", "ma", true);
    assert_eq!(bench.replies[&unknown], Reply::Refused(GroupError::UnknownMember));
}

#[test]
fn a_static_member_that_comes_back_keeps_its_place_without_a_rebalance() {
    let mut bench = Bench::new();
    bench.join("", Some("one"), "s1", "ms");
    bench.put(|ticket| Input::Sync {
        ticket,
        group: GROUP.into(),
        who: Identity { member: "s1".into(), instance: Some("one".into()) },
        generation: 1,
        protocol_type: None,
        protocol: None,
        assignments: vec![("s1".into(), Bytes::from_static(b"p"))],
    });
    let back = bench.join("", Some("one"), "s2", "ms");
    let joined = bench.joined(back);
    assert_eq!((joined.generation, joined.member.as_str(), joined.skip_assignment), (1, "s2", true));
    let fenced = Identity { member: "s1".into(), instance: Some("one".into()) };
    let beat = bench.put(|ticket| Input::Heartbeat { ticket, group: GROUP.into(), who: fenced, generation: 1 });
    assert_eq!(bench.replies[&beat], Reply::Refused(GroupError::FencedInstance));
    let changed = bench.join("", Some("one"), "s3", "other");
    assert_eq!(bench.joined(changed).generation, 1, "a new process says that it has nothing yet");
    let again = bench.join("s3", Some("one"), "", "yet another");
    assert_eq!(bench.joined(again).generation, 2, "a member that joins again wants a rebalance");
}

#[test]
fn a_static_member_that_comes_back_with_other_protocols_rebalances() {
    let mut bench = Bench::new();
    bench.join("", Some("one"), "s1", "ms");
    let who = Identity { member: "s1".into(), instance: Some("one".into()) };
    let of = |protocol_type: &str| Some(protocol_type.to_owned());
    let sync = |bench: &mut Bench, protocol_type| {
        let (who, assignments) = (who.clone(), vec![("s1".into(), Bytes::from_static(b"p"))]);
        let group = GROUP.into();
        let ticket = bench.put(|ticket| Input::Sync {
            ticket,
            group,
            who,
            generation: 1,
            protocol_type,
            protocol: None,
            assignments,
        });
        bench.replies[&ticket].clone()
    };
    assert_eq!(sync(&mut bench, of("connect")), Reply::Refused(GroupError::InconsistentProtocol));
    assert!(matches!(sync(&mut bench, of("consumer")), Reply::Synced(_)));
    let join = Join {
        who: Identity { member: String::new(), instance: Some("one".into()) },
        fresh_member_id: "s2".into(),
        client_id: String::new(),
        client_host: String::new(),
        session_timeout_ms: 100,
        rebalance_timeout_ms: 100,
        protocol_type: "consumer".into(),
        protocols: vec![("sticky".into(), Bytes::new()), ("range".into(), Bytes::new())],
        id_required: false,
        may_skip_assignment: true,
    };
    let back = bench.put(|ticket| Input::Join { ticket, group: GROUP.into(), join });
    let joined = bench.joined(back);
    assert_eq!((joined.generation, joined.protocol.as_str()), (2, "sticky"));
}

#[test]
fn commits_are_for_members_and_for_those_who_never_join() {
    let mut bench = Bench::new();
    let commit = |bench: &mut Bench, member: &str, generation| {
        let who = Identity { member: member.into(), instance: None };
        let ticket = bench.put(|ticket| Input::Commit { ticket, group: GROUP.into(), who, generation, version: 9 });
        bench.replies[&ticket].clone()
    };
    assert_eq!(commit(&mut bench, "", -1), Reply::Done);
    assert_eq!(commit(&mut bench, "who says a name", -1), Reply::Done);
    assert_eq!(commit(&mut bench, "", 3), Reply::Refused(GroupError::GroupNotFound));
    bench.pair();
    assert_eq!(commit(&mut bench, "a", 2), Reply::Done);
    assert_eq!(commit(&mut bench, "a", 1), Reply::Refused(GroupError::IllegalGeneration));
    assert_eq!(commit(&mut bench, "x", 2), Reply::Refused(GroupError::UnknownMember));
    assert_eq!(commit(&mut bench, "", -1), Reply::Refused(GroupError::UnknownMember));
}

#[test]
fn groups_and_members_are_bounded() {
    let mut bench = Bench::new();
    for id in ["a", "b", "c"] {
        bench.join("", None, id, "m");
    }
    let fourth = bench.join("", None, "d", "m");
    assert_eq!(bench.replies[&fourth], Reply::Refused(GroupError::GroupFull));
}

#[test]
fn what_groups_hold_is_bounded_and_given_back() {
    let mut bench = Bench::new();
    let long: &'static str = "m".repeat(9_000).leak();
    bench.join("", None, "a", long);
    let second = bench.join("", None, "b", long);
    assert_eq!(bench.replies[&second], Reply::Refused(GroupError::GroupFull), "one group has its bound");
    let elsewhere = |bench: &mut Bench| {
        let join = Join {
            who: Identity::default(),
            fresh_member_id: "x".into(),
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 100,
            rebalance_timeout_ms: 100,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), Bytes::from_static(long.as_bytes()))],
            id_required: false,
            may_skip_assignment: false,
        };
        let ticket = bench.put(|ticket| Input::Join { ticket, group: "other".into(), join });
        bench.replies[&ticket].clone()
    };
    assert_eq!(elsewhere(&mut bench), Reply::Refused(GroupError::Unavailable), "all groups have theirs");
    let sync = bench.sync("a", 1, &[("a", long)]);
    assert_eq!(bench.replies[&sync], Reply::Refused(GroupError::GroupFull), "assignments count");
    bench.pass(200);
    assert!(matches!(elsewhere(&mut bench), Reply::Joined(_)), "the silent member's share came back");
}

#[test]
fn a_restored_group_goes_on_where_it_was() {
    let mut bench = Bench::new();
    bench.pair();
    let stored = bench.stored.last().expect("stored").clone();
    let bytes = records::group_value(&stored, 7).freeze();
    let Some(GroupRecord::Group { value: Some(read), .. }) = records::decode(&records::group_key(GROUP), Some(&bytes))
    else {
        panic!("not a group")
    };
    assert_eq!(read, stored);
    let mut again = Bench::new();
    again.core.restore(0, read);
    assert_eq!(again.heartbeat("a", 2), Reply::Done);
    assert_eq!(again.heartbeat("b", 2), Reply::Done);
    again.pass(150);
    assert_eq!(again.core.describe(GROUP).expect("group").0, GroupState::Empty);
}

#[test]
fn the_records_have_kafkas_bytes() {
    assert_eq!(&records::offset_key("g", "t", 3)[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
    let value = OffsetValue { offset: 5, leader_epoch: 2, metadata: "m".into(), committed_ms: 9 };
    let bytes = records::offset_value(&value).freeze();
    assert_eq!(&bytes[..], b"\0\x03\0\0\0\0\0\0\0\x05\0\0\0\x02\0\x01m\0\0\0\0\0\0\0\x09");
    let read = records::decode(&records::offset_key("g", "t", 3), Some(&bytes));
    let expected = GroupRecord::Offset { group: "g".into(), topic: "t".into(), partition: 3, value: Some(value) };
    assert_eq!(read, Some(expected));
    let member = MemberSnapshot { id: "i".into(), ..MemberSnapshot::default() };
    let group = GroupSnapshot { group: "g".into(), members: vec![member], ..GroupSnapshot::default() };
    let bytes = records::group_value(&group, 0);
    assert_eq!(
        records::decode(&records::group_key("g"), Some(&Bytes::copy_from_slice(&bytes[..bytes.len() - 1]))),
        None
    );
}

#[derive(Debug, Clone)]
enum Step {
    Join(u8),
    New(u8),
    Sync(u8),
    Beat(u8),
    Leave(u8),
    Pass(u16),
    /// The broker is killed and knows what was stored last.
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..6_u8).prop_map(Step::Join),
        (0..6_u8).prop_map(Step::New),
        (0..6_u8).prop_map(Step::Sync),
        (0..6_u8).prop_map(Step::Beat),
        (0..6_u8).prop_map(Step::Leave),
        (1..400_u16).prop_map(Step::Pass),
        Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..120)
}

proptest! {
    /// Whatever comes in whatever order: every ticket is answered once, generations rise, a generation names only members
    /// that joined it, each at most once, and every member of a generation is named to its leader, over restarts too.
    #[test]
    fn concurrent_rebalances_neither_lose_nor_invent_members(steps in steps()) {
        let mut bench = Bench::new();
        let mut tickets: Vec<(Ticket, String)> = Vec::new();
        // Before which ticket each life of the broker ended, and the generation that the next began with: greater ones that
        // were given out and not stored may be given again, as with Kafka; members then are new ones, or rejoin.
        let mut ends: Vec<(Ticket, i32)> = Vec::new();
        let mut seen = BTreeSet::new();
        let mut generation = 0;
        for (at, step) in steps.into_iter().enumerate() {
            match step {
                Step::New(n) => {
                    let id = format!("m{n}-{at}");
                    tickets.push((bench.join("", None, &id, "m"), id.clone()));
                    seen.insert(id);
                }
                Step::Join(n) => {
                    if let Some(id) = seen.iter().nth(n.into()).cloned() {
                        tickets.push((bench.join(&id, None, "", "m"), id));
                    }
                }
                Step::Sync(n) => {
                    if let (Some(id), Some((_, group))) = (seen.iter().nth(n.into()).cloned(), bench.core.describe(GROUP)) {
                        bench.sync(&id, group.generation, &[]);
                    }
                }
                Step::Beat(n) => {
                    if let (Some(id), Some((_, group))) = (seen.iter().nth(n.into()).cloned(), bench.core.describe(GROUP)) {
                        bench.heartbeat(&id, group.generation);
                    }
                }
                Step::Leave(n) => {
                    if let Some(id) = seen.iter().nth(n.into()).cloned() {
                        let who = vec![Identity { member: id, instance: None }];
                        bench.put(|ticket| Input::Leave { ticket, group: GROUP.into(), who });
                    }
                }
                Step::Pass(ms) => bench.pass(ms.into()),
                Step::Restart => {
                    if let Some(stored) = bench.stored.last().cloned() {
                        let stored_generation = stored.generation;
                        bench.core = Core::new(limits());
                        bench.core.restore(bench.now_ms, stored);
                        // Who waited lost its connection.
                        tickets.retain(|(ticket, _)| bench.replies.contains_key(ticket));
                        generation = 0;
                        ends.push((Ticket(bench.next), stored_generation));
                    }
                }
            }
            let now = bench.core.describe(GROUP).map_or(0, |(_, group)| group.generation);
            prop_assert!(now >= generation, "from {generation} to {now}");
            generation = now;
            let members = bench.core.describe(GROUP).map_or_else(Vec::new, |(_, group)| group.members);
            prop_assert!(members.iter().all(|member| seen.contains(&member.id)), "somebody was invented: {members:?}");
        }
        for _ in 0..10 {
            bench.pass(2_000);
        }
        let mut named: HashMap<(usize, i32), (BTreeSet<String>, BTreeSet<String>)> = HashMap::new();
        for (ticket, asked) in &tickets {
            let reply = bench.replies.get(ticket);
            prop_assert!(reply.is_some(), "{ticket:?} was never answered");
            if let Some(Reply::Joined(joined)) = reply {
                prop_assert_eq!(asked, &joined.member);
                let life = ends.iter().filter(|(end, stored)| end <= ticket && joined.generation > *stored).count();
                let (told, listed) = named.entry((life, joined.generation)).or_default();
                told.insert(joined.member.clone());
                let ids: BTreeSet<String> = joined.members.iter().map(|(id, ..)| id.clone()).collect();
                prop_assert_eq!(ids.len(), joined.members.len());
                if joined.leader == joined.member && listed.is_empty() {
                    *listed = ids;
                }
            }
        }
        for (generation, (told, listed)) in named {
            // A member may have left again since, but none may be told of a generation that its leader does not list.
            prop_assert!(told.is_subset(&listed), "generation {generation:?}: {told:?} of {listed:?}");
        }
    }
}
