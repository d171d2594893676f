//! What must hold where a group goes from one protocol to the other while it has members.

use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::group::{
    Identity, Join, Joined, Paces, Synced,
    consumer::{Beat, Partitions, Stored, Told, encode_subscription},
};

const GROUP: &str = "g";

/// One topic, `t`, of six partitions.
struct OneTopic;

impl Topics for OneTopic {
    fn version(&self) -> u64 {
        1
    }

    fn find(&self, name: &str) -> Option<(Uuid, u32)> {
        (name == "t").then(|| (Uuid::from_u128(1), 6))
    }
}

struct Bench {
    groups: Groups,
    now_ms: u64,
    next: u64,
    replies: BTreeMap<Ticket, Reply>,
    /// What the last conversion wrote.
    changes: Vec<Change>,
}

fn limits() -> GroupLimits {
    GroupLimits {
        session_timeout_ms_min: 1,
        session_timeout_ms_max: 100_000,
        initial_delay_ms: 0,
        groups_max: 4,
        members_max: 5,
        group_bytes_max: 100_000,
        groups_bytes_max: 100_000,
        offsets_bytes_max: 1 << 20,
        consumer_session_ms: 100,
        consumer_interval_ms: 10,
        paces: Paces::default(),
        offsets_kept_ms: None,
        offsets_look_ms: 1_000,
    }
}

/// What the tests' classic members have, as their protocol writes it.
fn assigned(partitions: &[u32]) -> Bytes {
    // An assignment and the owned part of a subscription are written alike, behind different heads.
    let mut out = vec![0, 1, 0, 0, 0, 1, 0, 1, b't'];
    out.extend_from_slice(&(partitions.len() as u32).to_be_bytes());
    partitions.iter().for_each(|partition| out.extend_from_slice(&partition.to_be_bytes()));
    out.extend_from_slice(&[0xff; 4]);
    Bytes::from(out)
}

impl Bench {
    fn new() -> Self {
        let groups = Groups::new(limits());
        Self { groups, now_ms: 0, next: 0, replies: BTreeMap::new(), changes: Vec::new() }
    }

    fn put(&mut self, make: impl FnOnce(Ticket) -> Ask) -> Ticket {
        let ticket = Ticket(self.next);
        self.next += 1;
        for effect in self.groups.handle(self.now_ms, make(ticket), &OneTopic) {
            match effect {
                Effect::Reply(ticket, reply) => assert!(self.replies.insert(ticket, reply).is_none(), "two replies"),
                Effect::Change { changes, .. } => self.changes.extend(changes),
                Effect::Store(_) | Effect::Ask { .. } => {}
            }
        }
        ticket
    }

    fn reply(&mut self, make: impl FnOnce(Ticket) -> Ask) -> Reply {
        let ticket = self.put(make);
        self.replies.remove(&ticket).expect("an answer at once")
    }

    fn join(&mut self, member: &str, owned: &[u32]) -> Ticket {
        let join = Join {
            who: Identity { member: member.into(), instance: None },
            fresh_member_id: format!("m{}", self.next),
            client_id: "c".into(),
            client_host: "/h".into(),
            session_timeout_ms: 100,
            rebalance_timeout_ms: 300,
            protocol_type: "consumer".into(),
            protocols: vec![("cooperative-sticky".into(), encode_subscription(&["t"], &[("t", owned)]))],
            id_required: false,
            may_skip_assignment: false,
        };
        self.put(|ticket| Input::Join { ticket, group: GROUP.into(), join }.into())
    }

    fn joined(&mut self, ticket: Ticket) -> Joined {
        match self.replies.remove(&ticket) {
            Some(Reply::Joined(joined)) => joined,
            other => panic!("not joined: {other:?}"),
        }
    }

    fn sync(&mut self, member: &str, generation: i32, assignments: Vec<(String, Bytes)>) -> Reply {
        let who = Identity { member: member.into(), instance: None };
        let make = |ticket| {
            let (protocol_type, protocol) = (None, None);
            Input::Sync { ticket, group: GROUP.into(), who, generation, protocol_type, protocol, assignments }.into()
        };
        self.reply(make)
    }

    fn heartbeat(&mut self, member: &str, generation: i32) -> Reply {
        let who = Identity { member: member.into(), instance: None };
        self.reply(|ticket| Input::Heartbeat { ticket, group: GROUP.into(), who, generation }.into())
    }

    /// A member of the new protocol.
    fn beat(&mut self, epoch: i32) -> Result<Told, GroupError> {
        let joins = epoch == 0;
        let beat = Beat {
            member: "new".into(),
            epoch,
            names: joins.then(|| ["t".to_owned()].into()),
            rebalance_timeout_ms: joins.then_some(300),
            owned: joins.then(Partitions::default),
            ..Beat::default()
        };
        let beat = Box::new(beat);
        match self.reply(|ticket| consumer::Input::Beat { ticket, group: GROUP.into(), beat }.into()) {
            Reply::Told(told) => Ok(told),
            Reply::Refused(error) => Err(error),
            other => panic!("no answer to a heartbeat: {other:?}"),
        }
    }

    /// A classic group of one member, `old`, that has everything.
    fn classic(&mut self) -> i32 {
        let ticket = self.join("", &[]);
        let joined = self.joined(ticket);
        let all = vec![(joined.member.clone(), assigned(&[0, 1, 2, 3, 4, 5]))];
        assert!(matches!(self.sync(&joined.member, joined.generation, all), Reply::Synced(_)));
        joined.generation
    }
}

fn has(reply: &Reply) -> Vec<u32> {
    let Reply::Synced(Synced { assignment, .. }) = reply else { panic!("not synced: {reply:?}") };
    let count = u32::from_be_bytes(assignment[9..13].try_into().expect("a count")) as usize;
    assignment[13..].chunks(4).take(count).map(|four| u32::from_be_bytes(four.try_into().expect("four"))).collect()
}

#[test]
fn a_live_group_goes_over_and_its_classic_members_give_up_their_share_before_the_new_one_has_it() {
    let mut bench = Bench::new();
    let generation = bench.classic();
    let told = bench.beat(0).expect("joined");
    assert_eq!((told.epoch, told.assignment), (generation + 1, Some(Partitions::default())), "old has everything");
    assert!(bench.changes.contains(&Change::Classic(None)), "the classic group ends in the same change");
    assert_eq!(bench.heartbeat("", generation), Reply::Refused(GroupError::UnknownMember));
    // It is told to join again, keeps its generation, and learns what it keeps.
    let old = bench.groups.consumer.describe(GROUP).expect("the group").members;
    let old = old.iter().find(|member| member.about.classic.is_some()).expect("old").id.clone();
    assert_eq!(bench.heartbeat(&old, generation), Reply::Refused(GroupError::RebalanceInProgress));
    let ticket = bench.join(&old, &[0, 1, 2, 3, 4, 5]);
    let joined = bench.joined(ticket);
    assert_eq!(
        (joined.generation, joined.leader.as_str(), joined.protocol.as_str()),
        (generation, "", "cooperative-sticky")
    );
    let kept = has(&bench.sync(&old, generation, Vec::new()));
    assert_eq!(kept.len(), 3);
    assert_eq!(bench.beat(told.epoch).expect("waits").assignment, None, "old has not given them up");
    assert_eq!(bench.heartbeat(&old, generation), Reply::Refused(GroupError::RebalanceInProgress));
    let ticket = bench.join(&old, &kept);
    assert_eq!(bench.joined(ticket).generation, generation + 1);
    assert_eq!(has(&bench.sync(&old, generation + 1, Vec::new())), kept);
    assert_eq!(bench.heartbeat(&old, generation + 1), Reply::Done);
    let got = bench.beat(told.epoch).expect("gets").assignment.expect("three");
    assert_eq!(got.iter().count(), 3);
    assert!(got.iter().all(|(_, partition)| !kept.contains(&partition)));
    assert_eq!(bench.groups.consumer.state(GROUP), Some(ConsumerState::Stable));
}

#[test]
fn a_group_goes_back_when_its_last_member_of_the_new_protocol_leaves() {
    let mut bench = Bench::new();
    bench.classic();
    let told = bench.beat(0).expect("joined");
    bench.changes.clear();
    bench.beat(-1).expect("left");
    let (state, group) = bench.groups.classic.describe(GROUP).expect("a classic group");
    assert_eq!((state, group.members.len()), (GroupState::PreparingRebalance, 1));
    assert!(group.generation > told.epoch, "its generation goes on from the epoch");
    assert_eq!(group.members[0].assignment, assigned(&[0, 1, 2, 3, 4, 5]), "what it had it has");
    assert!(matches!(bench.changes.last(), Some(Change::Classic(Some(_)))));
    assert!(bench.changes.contains(&Change::Group(None)));
    let old = group.members[0].id.clone();
    assert_eq!(bench.heartbeat(&old, group.generation), Reply::Refused(GroupError::RebalanceInProgress));
    let ticket = bench.join(&old, &[0, 1, 2, 3, 4, 5]);
    let joined = bench.joined(ticket);
    assert_eq!((joined.leader, joined.members.len()), (old, 1), "it leads again");
}

#[test]
fn a_classic_member_joins_and_leaves_a_group_of_the_new_protocol() {
    let mut bench = Bench::new();
    let told = bench.beat(0).expect("joined");
    let ticket = bench.join("", &[]);
    let Reply::Joined(joined) = bench.replies[&ticket].clone() else { panic!("not joined") };
    assert_eq!(joined.generation, told.epoch + 1);
    assert_eq!(has_none(&bench.sync(&joined.member, joined.generation, Vec::new())), 0, "new has everything");
    bench.now_ms += 60;
    assert_eq!(bench.heartbeat(&joined.member, joined.generation), Reply::Done);
    let mut commit = |generation| {
        let who = Identity { member: joined.member.clone(), instance: None };
        bench.reply(|ticket| Input::Commit { ticket, group: GROUP.into(), who, generation, version: 5 }.into())
    };
    assert_eq!(commit(joined.generation), Reply::Done, "its protocol commits with any version");
    assert_eq!(commit(joined.generation - 1), Reply::Refused(GroupError::IllegalGeneration));
    let who = vec![Identity { member: joined.member.clone(), instance: None }, Identity::default()];
    let left = bench.reply(|ticket| Input::Leave { ticket, group: GROUP.into(), who }.into());
    assert_eq!(left, Reply::Left(vec![Ok(()), Err(GroupError::UnknownMember)]));
    assert_eq!(bench.groups.consumer.describe(GROUP).map(|view| view.members.len()), Some(1));
}

fn has_none(reply: &Reply) -> usize {
    let Reply::Synced(synced) = reply else { panic!("not synced: {reply:?}") };
    u32::from_be_bytes(synced.assignment[2..6].try_into().expect("a count")) as usize
}

#[test]
fn members_of_another_kind_of_group_and_a_rebalance_are_not_interrupted() {
    let mut bench = Bench::new();
    bench.classic();
    bench.join("", &[]);
    assert_eq!(bench.beat(0), Err(GroupError::Unavailable), "it rebalances");
    assert!(bench.groups.classic.describe(GROUP).is_some());
    let mut bench = Bench::new();
    let ticket = bench.put(|ticket| {
        let who = Identity::default();
        let join = Join {
            who,
            fresh_member_id: "w".into(),
            client_id: "c".into(),
            client_host: "/h".into(),
            session_timeout_ms: 100,
            rebalance_timeout_ms: 300,
            protocol_type: "connect".into(),
            protocols: vec![("v".into(), Bytes::new())],
            id_required: false,
            may_skip_assignment: false,
        };
        Input::Join { ticket, group: GROUP.into(), join }.into()
    });
    let joined = bench.joined(ticket);
    bench.sync("w", joined.generation, vec![("w".into(), Bytes::from_static(b"x"))]);
    assert_eq!(bench.beat(0), Err(GroupError::GroupNotFound));
    assert_eq!(bench.heartbeat("w", joined.generation), Reply::Done);
}

#[test]
fn a_mixed_group_outlives_the_broker() {
    let mut bench = Bench::new();
    let generation = bench.classic();
    bench.beat(0).expect("joined");
    let mut disk = std::collections::HashMap::new();
    bench.changes.iter().for_each(|change| Stored::take(&mut disk, GROUP.to_owned(), change.clone()));
    let mut again = Groups::new(limits());
    again.consumer.restore(0, GROUP.to_owned(), disk.remove(GROUP).expect("stored"));
    bench.groups = again;
    let members = bench.groups.consumer.describe(GROUP).expect("the group").members;
    let old = members.iter().find(|member| member.about.classic.is_some()).expect("old").id.clone();
    assert_eq!(bench.heartbeat(&old, generation), Reply::Refused(GroupError::RebalanceInProgress));
    assert_eq!(bench.beat(generation + 1).expect("heard").assignment, None, "old still has everything");
}
