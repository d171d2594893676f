//! Consumer groups under a random course of things: members come, go, fall silent and lose answers, topics come and go, the
//! broker ends and comes back from its records. Checked at each step: nobody consumes what another consumes, no epoch goes back,
//! and what is written is what is meant. At the end everybody who stays has what it should.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{
    tests::{Bench, GROUP, joins},
    *,
};
use crate::group::GroupError;

const CLIENTS: usize = 5;
const SUBSCRIPTIONS: &[(&[&str], Option<&str>)] =
    &[(&["t"], None), (&["t", "u"], None), (&["u"], None), (&[], Some("x.*|t")), (&["u"], Some("x.*"))];

#[derive(Debug, Clone)]
enum Step {
    /// Sends a heartbeat; its answer may be lost.
    Beat {
        client: usize,
        lost: bool,
    },
    /// Comes to have what it was told.
    Reconcile(usize),
    Subscribe(usize, usize),
    Leave(usize),
    /// Its process ends; a static member says that it will be back, unless it is killed.
    Stop {
        client: usize,
        killed: bool,
    },
    Pass(u64),
    Put(usize, u32),
    Remove(usize),
    Answer,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0..CLIENTS;
    prop_oneof![
        20 => (client(), prop::bool::weighted(0.15)).prop_map(|(client, lost)| Step::Beat { client, lost }),
        12 => client().prop_map(Step::Reconcile),
        2 => (client(), 0..SUBSCRIPTIONS.len()).prop_map(|(client, at)| Step::Subscribe(client, at)),
        1 => client().prop_map(Step::Leave),
        2 => (client(), any::<bool>()).prop_map(|(client, killed)| Step::Stop { client, killed }),
        4 => (1_u64..60).prop_map(Step::Pass),
        1 => (0_usize..4, 1_u32..7).prop_map(|(topic, count)| Step::Put(topic, count)),
        1 => (0_usize..4).prop_map(Step::Remove),
        2 => Just(Step::Answer),
        1 => Just(Step::Restart),
    ]
}

/// A consumer as clients are written: it says everything when it joins and after an error, and what it has when that is news.
#[derive(Default)]
struct Client {
    number: usize,
    process: usize,
    subscription: usize,
    epoch: i32,
    joined: bool,
    /// What it consumes.
    owned: Partitions,
    told: Option<Partitions>,
    unsaid: bool,
    full: bool,
}

impl Client {
    /// Every other one is static.
    fn instance(&self) -> Option<String> {
        (self.number % 2 == 1).then(|| format!("i{}", self.number))
    }

    fn id(&self) -> String {
        format!("c{}-{}", self.number, self.process)
    }

    fn beat(&self) -> Beat {
        let (names, regex) = SUBSCRIPTIONS[self.subscription];
        let everything = Beat {
            regex: Some(regex.unwrap_or_default().to_owned()).filter(|regex| !regex.is_empty() || self.epoch != 0),
            epoch: self.epoch,
            owned: Some(self.owned.clone()),
            instance: self.instance(),
            ..joins(&self.id(), names)
        };
        if self.epoch == 0 || self.full {
            return everything;
        }
        let nothing = Beat { names: None, regex: None, rebalance_timeout_ms: None, owned: None, ..everything };
        Beat { owned: self.unsaid.then(|| self.owned.clone()), ..nothing }
    }

    fn drop_all(&mut self) {
        self.owned = Partitions::default();
        self.told = None;
        self.epoch = 0;
        self.full = false;
        self.unsaid = false;
    }

    fn hear(&mut self, answer: Result<Told, GroupError>, lost: bool) {
        match answer {
            // It does not know what the broker knows now: it says everything again.
            _ if lost => self.full = true,
            Ok(told) => {
                assert_eq!(told.member, self.id());
                self.epoch = told.epoch;
                (self.full, self.unsaid) = (false, false);
                if told.assignment.is_some() && told.assignment != self.told {
                    self.told = told.assignment;
                }
            }
            Err(GroupError::UnknownMember | GroupError::FencedEpoch | GroupError::FencedInstance) => self.drop_all(),
            Err(GroupError::UnreleasedInstance | GroupError::GroupFull) => {}
            Err(other) => panic!("unexpected: {other:?}"),
        }
    }
}

struct Model {
    bench: Bench,
    clients: Vec<Client>,
    /// The highest epochs seen: of the group, of its target, of each member.
    epochs: (i32, i32, BTreeMap<String, i32>),
}

const TOPICS: &[&str] = &["t", "u", "x1", "x2"];

impl Model {
    fn new() -> Self {
        let mut bench = Bench::new();
        bench.shelf.put("u", 3);
        let client = |number| Client { number, subscription: number % SUBSCRIPTIONS.len(), ..Client::default() };
        Self { bench, clients: (0..CLIENTS).map(client).collect(), epochs: Default::default() }
    }

    fn beat(&mut self, at: usize, lost: bool) {
        self.clients[at].joined = true;
        // The protocol cannot tell who gave a partition up from who has not yet begun with it: a consumer that lost an answer
        // comes to what it was told before, and then says what it has.
        if self.clients[at].full {
            self.reconcile(at);
        }
        let answer = self.bench.beat(self.clients[at].beat());
        self.clients[at].hear(answer, lost);
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Beat { client, lost } => self.beat(client, lost),
            Step::Reconcile(client) => self.reconcile(client),
            Step::Subscribe(client, subscription) => {
                self.clients[client].subscription = subscription;
                self.clients[client].full = self.clients[client].epoch > 0;
            }
            Step::Leave(client) => self.stop(client, LEAVES),
            Step::Stop { client, killed } => {
                let away = !killed && self.clients[client].instance().is_some();
                if away {
                    self.stop(client, AWAY);
                } else {
                    self.begin_process(client);
                }
            }
            Step::Pass(ms) => self.bench.pass(ms),
            Step::Put(topic, count) => self.bench.shelf.put(TOPICS[topic], count),
            Step::Remove(topic) => self.bench.shelf.remove(TOPICS[topic]),
            Step::Answer => self.bench.answer_asked(),
            Step::Restart => self.bench.restart(),
        }
    }

    fn reconcile(&mut self, at: usize) {
        let client = &mut self.clients[at];
        if let Some(told) = &client.told {
            client.unsaid |= client.owned != *told;
            client.owned = told.clone();
        }
    }

    fn stop(&mut self, at: usize, epoch: i32) {
        let client = &self.clients[at];
        if client.epoch > 0 {
            let beat = Beat { member: client.id(), instance: client.instance(), epoch, ..Beat::default() };
            let _ = self.bench.beat(beat);
        }
        self.begin_process(at);
    }

    fn begin_process(&mut self, at: usize) {
        self.clients[at].drop_all();
        self.clients[at].process += 1;
        self.clients[at].joined = false;
    }

    /// What must hold at every moment.
    fn check(&mut self) {
        let Some(view) = self.bench.core.describe(GROUP) else { return };
        let members: BTreeMap<&str, &MemberView> =
            view.members.iter().map(|member| (member.id.as_str(), member)).collect();
        let mut consumed = Partitions::default();
        for client in &mut self.clients {
            // Who was put out for its silence cannot know: it counts no more.
            if !members.contains_key(client.id().as_str()) {
                client.drop_all();
            }
            assert!(!client.owned.meets(&consumed), "two consume the same");
            consumed.extend(client.owned.iter());
        }
        let mut given = Partitions::default();
        for stored in self.bench.disk[GROUP].currents.values() {
            for partitions in [&stored.assigned, &stored.revoking] {
                assert!(!partitions.meets(&given), "two are told to have the same");
                given.extend(partitions.iter());
            }
        }
        let stored = &self.bench.disk[GROUP];
        assert_eq!((stored.epoch, stored.target_epoch), (view.epoch, view.target_epoch), "what is written is what is");
        for member in &view.members {
            let current = &stored.currents[&member.id];
            assert_eq!((current.epoch, &current.assigned), (member.epoch, &member.assigned));
            assert_eq!(stored.targets.get(&member.id).cloned().unwrap_or_default(), member.target);
        }
        let (group, target, of_members) = &mut self.epochs;
        assert!(
            view.epoch >= *group && view.target_epoch >= *target && view.target_epoch <= view.epoch,
            "an epoch went back"
        );
        (*group, *target) = (view.epoch, view.target_epoch);
        for member in view.members.iter().filter(|member| member.epoch != AWAY) {
            let before = of_members.insert(member.id.clone(), member.epoch);
            assert!(before.is_none_or(|before| before <= member.epoch), "{} went back", member.id);
            assert!(member.epoch <= view.target_epoch);
        }
    }

    /// Everybody who is there goes on for a while, and nothing else happens.
    fn settle(&mut self) {
        for _ in 0..40 {
            for at in 0..CLIENTS {
                if self.clients[at].joined {
                    self.beat(at, false);
                    self.reconcile(at);
                    self.check();
                }
            }
            self.bench.answer_asked();
            self.bench.pass(20);
            self.check();
        }
        let Some(view) = self.bench.core.describe(GROUP) else { return };
        if self.clients.iter().all(|client| !client.joined) {
            return;
        }
        assert_eq!(view.state, ConsumerState::Stable);
        let mut consumed = Partitions::default();
        let mut wanted = Partitions::default();
        for client in self.clients.iter().filter(|client| client.joined) {
            let member = view.members.iter().find(|member| member.id == client.id()).expect("a member");
            assert_eq!(
                (&client.owned, client.epoch),
                (&member.target, view.epoch),
                "{} has not what it should",
                client.id()
            );
            consumed.extend(client.owned.iter());
            let (names, regex) = SUBSCRIPTIONS[client.subscription];
            let named = regex.map(|regex| self.bench.shelf.named(regex)).unwrap_or_default();
            for name in names.iter().map(|name| (*name).to_owned()).chain(named) {
                if let Some((topic, count)) = self.bench.shelf.find(&name) {
                    wanted.extend((0..count).map(|partition| (topic, partition)));
                }
            }
        }
        assert_eq!(view.members.len(), self.clients.iter().filter(|client| client.joined).count());
        assert_eq!(consumed, wanted, "a partition is left out");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn nobody_consumes_what_another_does_and_all_who_stay_get_their_share(steps in prop::collection::vec(step(), 1..150)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
            model.check();
        }
        model.settle();
    }
}
