//! The uniform assignor: evenly, with as few moves as that takes. Called by the assignment only.
//!
//! It guarantees: where all subscribe to the same, two members differ by at most one partition, and no more of them move than
//! that needs. Where they do not, nobody could give a partition to another that subscribes to its topic and has at least two
//! fewer, unless finding that out takes more than [`STEPS_MAX`] steps: then it is less even, and still complete.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use uuid::Uuid;

use super::{Partitions, Subscribers, Target};

/// Steps that evening out may take: a fraction of a second.
const STEPS_MAX: usize = 4_000_000;

pub(super) fn assign(members: &Subscribers<'_>, topics: &BTreeMap<Uuid, u32>) -> Target {
    let Some(first) = members.values().next() else { return Target::new() };
    if members.values().all(|member| Arc::ptr_eq(&member.topics, &first.topics) || member.topics == first.topics) {
        same(members, topics, &first.topics)
    } else {
        Mixed::new(members, topics).run()
    }
}

/// What each member keeps of what it had: what there still is, what it still subscribes to, and what nobody before it claims.
fn kept(members: &Subscribers<'_>, topics: &BTreeMap<Uuid, u32>) -> (Target, Partitions) {
    let mut taken = Partitions::default();
    let mut target = Target::new();
    for (id, member) in members {
        let there = |topic: &Uuid, partition: u32| {
            member.topics.contains(topic) && topics.get(topic).is_some_and(|count| partition < *count)
        };
        let keeps: Partitions = member
            .held
            .iter()
            .filter(|(topic, partition)| there(topic, *partition) && !taken.contains(*topic, *partition))
            .collect();
        taken.extend(keeps.iter());
        target.insert(Arc::clone(id), keeps);
    }
    (target, taken)
}

/// All subscribe to the same topics.
fn same(members: &Subscribers<'_>, topics: &BTreeMap<Uuid, u32>, subscribed: &BTreeSet<Uuid>) -> Target {
    let (kept, _) = kept(members, topics);
    let wanted = || topics.iter().filter(|(topic, _)| subscribed.contains(*topic));
    let all: usize = wanted().map(|(_, count)| *count as usize).sum();
    let (each, one_more) = (all / members.len(), all % members.len());
    // Those that have most are the ones that may have one more, so that least has to move.
    let mut order: Vec<(Arc<str>, Partitions, usize)> = kept
        .into_iter()
        .map(|(id, partitions)| {
            let count = partitions.iter().count();
            (id, partitions, count)
        })
        .collect();
    order.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| a.0.cmp(&b.0)));
    let mut taken = Partitions::default();
    let mut target = Target::new();
    for (at, (id, partitions, _)) in order.iter().enumerate() {
        let quota = each + usize::from(at < one_more);
        let keeps: Partitions = partitions.iter().take(quota).collect();
        taken.extend(keeps.iter());
        target.insert(Arc::clone(id), keeps);
    }
    let every = wanted().flat_map(|(topic, count)| (0..*count).map(|partition| (*topic, partition)));
    let mut free = every.filter(|(topic, partition)| !taken.contains(*topic, *partition));
    for (at, (id, partitions, count)) in order.iter().enumerate() {
        let quota = each + usize::from(at < one_more);
        let lacks = quota.saturating_sub((*count).min(quota));
        debug_assert!(lacks == 0 || partitions.is_within(&target[id]), "who lacks something gave nothing up");
        if let Some(set) = target.get_mut(id) {
            set.extend(free.by_ref().take(lacks));
        }
    }
    target
}

/// A member while partitions are being distributed: its load, and what it has of each kind of topic.
struct Load {
    id: Arc<str>,
    class: usize,
    count: usize,
    by_kind: BTreeMap<usize, Vec<(Uuid, u32)>>,
}

/// Members subscribe to different topics. Members with the same subscription are a class, topics that the same classes
/// subscribe to are a kind: the least loaded subscriber of a topic is the least of the firsts of its kind's classes.
struct Mixed {
    loads: Vec<Load>,
    /// For each class, its members by load.
    classes: Vec<BTreeSet<(usize, usize)>>,
    /// For each kind, the classes that subscribe to it.
    kinds: Vec<Vec<usize>>,
    free: Vec<(usize, Uuid, u32)>,
    steps: usize,
}

impl Mixed {
    fn new(members: &Subscribers<'_>, topics: &BTreeMap<Uuid, u32>) -> Self {
        let (kept, taken) = kept(members, topics);
        let mut class_of: HashMap<&BTreeSet<Uuid>, usize> = HashMap::new();
        let mut subscriptions: Vec<&BTreeSet<Uuid>> = Vec::new();
        let mut loads = Vec::new();
        for (id, member) in members {
            let class = *class_of.entry(&member.topics).or_insert_with(|| {
                subscriptions.push(&member.topics);
                subscriptions.len() - 1
            });
            loads.push(Load { id: Arc::clone(id), class, count: 0, by_kind: BTreeMap::new() });
        }
        let mut kind_of: HashMap<Vec<usize>, usize> = HashMap::new();
        let mut kinds: Vec<Vec<usize>> = Vec::new();
        let mut topic_kinds: HashMap<Uuid, usize> = HashMap::new();
        for topic in topics.keys() {
            let subscribers: Vec<usize> =
                (0..subscriptions.len()).filter(|at| subscriptions[*at].contains(topic)).collect();
            if subscribers.is_empty() {
                continue;
            }
            let kind = *kind_of.entry(subscribers).or_insert_with_key(|subscribers| {
                kinds.push(subscribers.clone());
                kinds.len() - 1
            });
            topic_kinds.insert(*topic, kind);
        }
        for (load, (_, partitions)) in loads.iter_mut().zip(kept) {
            for (topic, partition) in partitions.iter() {
                let Some(kind) = topic_kinds.get(&topic) else { continue };
                load.by_kind.entry(*kind).or_default().push((topic, partition));
                load.count += 1;
            }
        }
        let mut classes = vec![BTreeSet::new(); subscriptions.len()];
        for (at, load) in loads.iter().enumerate() {
            classes[load.class].insert((load.count, at));
        }
        let every = topics.iter().flat_map(|(topic, count)| (0..*count).map(|partition| (*topic, partition)));
        let mut free: Vec<(usize, Uuid, u32)> = every
            .filter(|(topic, partition)| !taken.contains(*topic, *partition))
            .filter_map(|(topic, partition)| topic_kinds.get(&topic).map(|kind| (*kind, topic, partition)))
            .collect();
        // What few subscribe to first: the rest has more places to go.
        let reach: Vec<usize> = kinds.iter().map(|kind| kind.iter().map(|class| classes[*class].len()).sum()).collect();
        free.sort_by_key(|(kind, topic, partition)| (reach[*kind], *topic, *partition));
        Self { loads, classes, kinds, free, steps: 0 }
    }

    fn run(mut self) -> Target {
        for (kind, topic, partition) in std::mem::take(&mut self.free) {
            if let Some(to) = self.least(kind) {
                self.loads[to].by_kind.entry(kind).or_default().push((topic, partition));
                self.recount(to, 1);
            }
        }
        self.even_out();
        let sets = self.loads.into_iter();
        sets.map(|load| (load.id, load.by_kind.into_values().flatten().collect())).collect()
    }

    /// The subscriber of a kind that has least.
    fn least(&mut self, kind: usize) -> Option<usize> {
        self.steps += self.kinds[kind].len();
        self.kinds[kind].iter().filter_map(|class| self.classes[*class].first()).min().map(|(_, at)| *at)
    }

    fn recount(&mut self, at: usize, by: isize) {
        let load = &mut self.loads[at];
        self.classes[load.class].remove(&(load.count, at));
        load.count = load.count.saturating_add_signed(by);
        self.classes[load.class].insert((load.count, at));
    }

    /// Moves one partition after the other from who has more to who has at least two fewer, until there is no such pair.
    fn even_out(&mut self) {
        // Each move lowers the sum of the squares of all loads, so this ends.
        let mut moved = true;
        while moved && self.steps < STEPS_MAX {
            moved = false;
            let mut order: Vec<usize> = (0..self.loads.len()).collect();
            order.sort_by_key(|at| (std::cmp::Reverse(self.loads[*at].count), *at));
            for from in order {
                while self.steps < STEPS_MAX && self.give_one(from) {
                    moved = true;
                }
            }
        }
    }

    fn give_one(&mut self, from: usize) -> bool {
        let kinds: Vec<usize> = self.loads[from].by_kind.keys().copied().collect();
        self.steps += 1;
        let best = kinds.into_iter().filter_map(|kind| {
            let to = self.least(kind)?;
            Some((self.loads[to].count, to, kind))
        });
        let Some((least, to, kind)) = best.min() else { return false };
        if least + 2 > self.loads[from].count {
            return false;
        }
        let Some(of_kind) = self.loads[from].by_kind.get_mut(&kind) else { return false };
        let Some(given) = of_kind.pop() else { return false };
        if of_kind.is_empty() {
            self.loads[from].by_kind.remove(&kind);
        }
        self.loads[to].by_kind.entry(kind).or_default().push(given);
        self.recount(from, -1);
        self.recount(to, 1);
        true
    }
}
