//! What must hold of every assignment.

use proptest::prelude::*;

use super::*;

type Subscription = Arc<BTreeSet<Uuid>>;

fn topic(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn run(
    assignor: Assignor,
    subscriptions: &[(u8, Subscription)],
    held: &Target,
    topics: &BTreeMap<Uuid, u32>,
) -> Target {
    let nothing = Partitions::default();
    let members: BTreeMap<Arc<str>, Subscriber<'_>> = subscriptions
        .iter()
        .map(|(name, topics)| {
            let id: Arc<str> = format!("m{name:03}").into();
            let held = held.get(&id).unwrap_or(&nothing);
            (id, Subscriber { instance: None, topics: Arc::clone(topics), held })
        })
        .collect();
    assign(assignor, &members, topics)
}

fn all(numbers: impl IntoIterator<Item = u128>) -> Subscription {
    Arc::new(numbers.into_iter().map(topic).collect())
}

/// Every partition that somebody wants has one owner, who wants it; nobody has anything else.
fn check_whole(target: &Target, subscriptions: &[(u8, Subscription)], topics: &BTreeMap<Uuid, u32>) {
    let wanted: Partitions = topics
        .iter()
        .filter(|(topic, _)| subscriptions.iter().any(|(_, subscribed)| subscribed.contains(*topic)))
        .flat_map(|(topic, count)| (0..*count).map(|partition| (*topic, partition)))
        .collect();
    let mut given = Partitions::default();
    assert_eq!(target.len(), subscriptions.len());
    for ((_, partitions), (_, subscribed)) in target.iter().zip(subscriptions) {
        assert!(partitions.topics().all(|(topic, _)| subscribed.contains(&topic)), "not subscribed");
        assert!(!partitions.meets(&given), "two owners");
        given.extend(partitions.iter());
    }
    assert_eq!(given, wanted);
}

fn loads(target: &Target) -> Vec<usize> {
    target.values().map(|partitions| partitions.iter().count()).collect()
}

fn moved(before: &Target, after: &Target) -> usize {
    after.iter().map(|(id, now)| before.get(id).map_or(0, |then| now.without(then).iter().count())).sum()
}

/// Nobody could give one to another that wants it and has two fewer.
fn check_even(target: &Target, subscriptions: &[(u8, Subscription)]) {
    let count = loads(target);
    for (from, partitions) in target.values().enumerate() {
        for (to, (_, subscribed)) in subscriptions.iter().enumerate() {
            let could = partitions.topics().any(|(topic, _)| subscribed.contains(&topic));
            assert!(!could || count[from] <= count[to] + 1, "{from} has {} and {to} {}", count[from], count[to]);
        }
    }
}

fn topics() -> impl Strategy<Value = BTreeMap<Uuid, u32>> {
    proptest::collection::btree_map((1_u128..6).prop_map(topic), 0_u32..9, 1..5)
}

fn subscriptions(same: bool) -> impl Strategy<Value = Vec<(u8, Subscription)>> {
    let subscription = proptest::collection::btree_set(1_u128..7, 1..5);
    proptest::collection::btree_map(0_u8..12, subscription, 1..8).prop_map(move |members| {
        let first = members.values().next().cloned().unwrap_or_default();
        members.into_iter().map(|(id, own)| (id, all(if same { first.clone() } else { own }))).collect()
    })
}

proptest! {
    #[test]
    fn uniform_is_whole_even_and_moves_no_more_than_it_must(
        topics in topics(), before in subscriptions(true), after in subscriptions(true),
    ) {
        let first = run(Assignor::Uniform, &before, &Target::new(), &topics);
        check_whole(&first, &before, &topics);
        prop_assert_eq!(&run(Assignor::Uniform, &before, &first, &topics), &first, "nothing changed, so nothing moves");
        let second = run(Assignor::Uniform, &after, &first, &topics);
        check_whole(&second, &after, &topics);
        for target in [&first, &second] {
            let loads = loads(target);
            let (least, most) = (loads.iter().min(), loads.iter().max());
            prop_assert!(most.zip(least).is_none_or(|(most, least)| most - least <= 1), "{:?}", loads);
        }
        // A member that stays gives up only what is over its share.
        let total: usize = loads(&second).iter().sum();
        let share = total / after.len();
        for (id, then) in &first {
            let Some(now) = second.get(id) else { continue };
            let still: Partitions = then.iter().filter(|(topic, _)| after[0].1.contains(topic)).collect();
            let lost = still.without(now).iter().count();
            prop_assert!(lost <= still.iter().count().saturating_sub(share), "{} lost {}", id, lost);
        }
    }

    #[test]
    fn uniform_is_whole_and_even_where_members_want_different_topics(
        topics in topics(), before in subscriptions(false), after in subscriptions(false),
    ) {
        let first = run(Assignor::Uniform, &before, &Target::new(), &topics);
        check_whole(&first, &before, &topics);
        check_even(&first, &before);
        prop_assert_eq!(&run(Assignor::Uniform, &before, &first, &topics), &first, "nothing changed, so nothing moves");
        let second = run(Assignor::Uniform, &after, &first, &topics);
        check_whole(&second, &after, &topics);
        check_even(&second, &after);
    }

    #[test]
    fn range_is_whole_and_cuts_every_topic_evenly(topics in topics(), members in subscriptions(false)) {
        let target = run(Assignor::Range, &members, &Target::new(), &topics);
        check_whole(&target, &members, &topics);
        for topic in topics.keys() {
            let wanting = target.values().zip(&members).filter(|(_, (_, subscribed))| subscribed.contains(topic));
            let shares: Vec<usize> = wanting.map(|(has, _)| has.iter().filter(|(of, _)| of == topic).count()).collect();
            prop_assert!(shares.is_sorted_by(|a, b| a >= b) && shares.first().zip(shares.last()).is_none_or(|(a, b)| a - b <= 1));
        }
    }
}

#[test]
fn a_member_that_joins_gets_its_share_and_the_others_lose_no_more_than_that() {
    let topics = BTreeMap::from([(topic(1), 12)]);
    let two = [(1, all([1])), (2, all([1]))];
    let first = run(Assignor::Uniform, &two, &Target::new(), &topics);
    let three = [(1, all([1])), (2, all([1])), (3, all([1]))];
    let second = run(Assignor::Uniform, &three, &first, &topics);
    assert_eq!(loads(&second), [4, 4, 4]);
    assert_eq!(moved(&first, &second), 0, "who was there gets nothing new");
}

#[test]
fn a_topic_that_grows_moves_nothing_that_was_there() {
    let members = [(1, all([1])), (2, all([1]))];
    let first = run(Assignor::Uniform, &members, &Target::new(), &BTreeMap::from([(topic(1), 4)]));
    let second = run(Assignor::Uniform, &members, &first, &BTreeMap::from([(topic(1), 8)]));
    assert_eq!(loads(&second), [4, 4]);
    assert!(first.iter().all(|(id, partitions)| partitions.is_within(&second[id])));
}

#[test]
fn range_puts_the_same_partitions_of_two_topics_together() {
    let topics = BTreeMap::from([(topic(1), 5), (topic(2), 5)]);
    let members = [(1, all([1, 2])), (2, all([1, 2]))];
    for partitions in run(Assignor::Range, &members, &Target::new(), &topics).values() {
        let of =
            |number| partitions.iter().filter(|(of, _)| *of == topic(number)).map(|(_, at)| at).collect::<Vec<_>>();
        assert_eq!(of(1), of(2));
    }
}

#[test]
fn many_members_that_want_different_topics_are_served_in_time() {
    let topics: BTreeMap<Uuid, u32> = (0..400).map(|number| (topic(number), 20)).collect();
    let members: Vec<(u8, Subscription)> = (0..200).map(|at| (at, all(u128::from(at)..u128::from(at) + 200))).collect();
    let target = run(Assignor::Uniform, &members, &Target::new(), &topics);
    check_whole(&target, &members, &topics);
}
