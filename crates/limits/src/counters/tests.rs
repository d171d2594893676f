//! The counters against whoever tries to get more than is allowed.

use proptest::prelude::*;

use super::*;
use crate::{Applies, Subject};

fn rule(name: &str, per: &[Part], bound: Bound) -> Rule {
    Rule { name: name.into(), source: Source::Configuration, applies: Applies::default(), per: per.to_vec(), bound }
}

fn rate(text: &str, burst: Option<u32>) -> Bound {
    Bound::Rate(Rate::parse(text, burst).expect("a rate"))
}

fn budget(text: &str) -> Bound {
    Bound::Budget(Budget::parse(text, Cost::Fixed(Amount::ONE)).expect("a budget"))
}

fn subject<'a>(principal: &'a str, workflow: &'a str) -> Subject<'a> {
    let (tenant, agent, server, tool, method) = (None, None, "orders", Some("refund"), "tools/call");
    Subject { tenant, principal, agent, server, tool, method, workflow }
}

fn want<'a>(rule: &'a Rule, principal: &str, cost: u64) -> Want<'a> {
    named(rule, principal, "w", cost)
}

fn named<'a>(rule: &'a Rule, principal: &str, workflow: &str, cost: u64) -> Want<'a> {
    let cost = Amount::from_millionths(cost * 1_000_000);
    Want { rule, key: Key::of(rule, &subject(principal, workflow)), cost }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(1_800_000_000_000_000 + seconds * 1_000_000)
}

fn exceeded(said: Result<Vec<Mark>, Not>) -> Exceeded {
    match said {
        Err(Not::Exceeded(exceeded)) => *exceeded,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rate_lets_a_burst_through_and_then_evenly_and_says_when() {
    let rule = rule("r", &[Part::Principal], rate("60/1m", Some(3)));
    let mut counters = Counters::default();
    for _ in 0..3 {
        assert!(counters.take(at(0), &[want(&rule, "ada", 0)]).is_ok());
    }
    let over = exceeded(counters.take(at(0), &[want(&rule, "ada", 0)]));
    assert_eq!(over.retry_after, Some(Duration::from_secs(1)));
    assert!(counters.take(at(0), &[want(&rule, "eve", 0)]).is_ok(), "each has a counter of its own");
    assert!(counters.take(at(1), &[want(&rule, "ada", 0)]).is_ok(), "as it said");
    assert!(counters.take(at(1), &[want(&rule, "ada", 0)]).is_err());
    // A clock that goes back an hour keeps nobody out for an hour.
    let over =
        exceeded(counters.take(Timestamp::from_micros(at(0).as_micros() - 3_600_000_000), &[want(&rule, "ada", 0)]));
    assert!(over.retry_after.is_some_and(|wait| wait <= Duration::from_secs(3)), "{over:?}");
}

#[test]
fn a_budget_is_spent_to_the_last_unit_and_renewed_with_its_window() {
    let day = rule("day", &[Part::Principal], budget("10/1d"));
    let mut counters = Counters::default();
    assert!(counters.take(at(0), &[want(&day, "ada", 7)]).is_ok());
    let over = exceeded(counters.take(at(1), &[want(&day, "ada", 4)]));
    let midnight = 86_400 - at(1).as_micros() / 1_000_000 % 86_400;
    assert_eq!((over.used.to_string(), over.retry_after), ("7".into(), Some(Duration::from_secs(midnight))));
    assert!(counters.take(at(1), &[want(&day, "ada", 3)]).is_ok());
    assert!(counters.take(at(1), &[want(&day, "ada", 1)]).is_err());
    assert!(counters.take(at(1 + midnight), &[want(&day, "ada", 10)]).is_ok());
    // A clock that is set back renews nothing.
    assert!(counters.take(at(1), &[want(&day, "ada", 1)]).is_err());
    // What can never be afforded has no time at which it can, also for somebody new.
    assert_eq!(exceeded(counters.take(at(1), &[want(&day, "eve", 11)])).retry_after, None);
    let all = rule("all", &[], budget("10"));
    assert!(counters.take(at(0), &[want(&all, "ada", 10)]).is_ok());
    assert_eq!(exceeded(counters.take(at(99_999_999), &[want(&all, "eve", 1)])).retry_after, None);
}

#[test]
fn what_is_taken_is_taken_of_all_rules_or_of_none() {
    let (first, second) = (rule("a", &[], budget("10")), rule("b", &[], Bound::Concurrency(1)));
    let both = || [want(&first, "ada", 1), want(&second, "ada", 0)];
    let mut counters = Counters::default();
    let marks = counters.take(at(0), &both()).expect("both");
    assert!(counters.take(at(0), &both()).is_err());
    let Bound::Budget(of) = &first.bound else { unreachable!() };
    let key = Key::of(&first, &subject("ada", "w"));
    assert_eq!(counters.spent(at(0), of, &key), Amount::ONE, "the refused one left nothing");
    marks.iter().for_each(|mark| counters.give_back(mark));
    assert_eq!(counters.spent(at(0), of, &key), Amount::ZERO);
    assert!(counters.take(at(0), &both()).is_ok());
}

#[test]
fn what_a_call_turned_out_to_cost_is_added_and_stops_the_next() {
    let cost = Cost::Result("/tokens".into());
    let rule = rule("tokens", &[], Bound::Budget(Budget::parse("100/1h", cost).expect("a budget")));
    let mut counters = Counters::default();
    let marks = counters.take(at(0), &[want(&rule, "ada", 0)]).expect("there is room");
    counters.add(at(1), &marks[0], Amount::from_millionths(150_000_000));
    let over = exceeded(counters.take(at(2), &[want(&rule, "ada", 0)]));
    assert_eq!(over.used.to_string(), "150");
    // Given back in a window that has passed: what is spent since stays.
    let marks = counters.take(at(7_200), &[want(&rule, "ada", 0)]).expect("renewed");
    counters.add(at(7_200), &marks[0], Amount::from_millionths(150_000_000));
    let old = Mark { taken: Taken::Spent(Amount::from_millionths(150_000_000), 1), ..marks[0].clone() };
    counters.give_back(&old);
    assert!(counters.take(at(7_200), &[want(&rule, "ada", 0)]).is_err());
}

#[test]
fn calling_under_many_names_gives_nothing_back_and_takes_nothing_from_others() {
    let rule = rule("w", &[Part::Workflow], budget("1"));
    let mut counters = Counters::default();
    for name in 0..CHOSEN_MAX {
        assert!(counters.take(at(0), &[named(&rule, "eve", &name.to_string(), 1)]).is_ok());
    }
    // From here on all of hers share one.
    assert!(counters.take(at(0), &[named(&rule, "eve", "x", 1)]).is_ok());
    assert!(counters.take(at(0), &[named(&rule, "eve", "y", 1)]).is_err());
    assert!(counters.take(at(0), &[named(&rule, "eve", "7", 1)]).is_err(), "and the first ones stay spent");
    assert!(counters.take(at(0), &[named(&rule, "ada", "x", 1)]).is_ok(), "nobody else's do");
    assert!(counters.all.len() <= CHOSEN_MAX as usize + 2);
    // After a month without a call they are forgotten.
    assert!(counters.take(at(31 * 86_400), &[named(&rule, "eve", "z", 1)]).is_ok());
    counters.sweep(at(31 * 86_400));
    assert_eq!(counters.all.len(), 1);
}

#[test]
fn counters_that_say_nothing_are_forgotten_and_those_that_do_are_bounded() {
    let rule = rule("r", &[Part::Principal], rate("1/1s", None));
    let mut counters = Counters::default();
    for second in 0..50_000 {
        assert!(counters.take(at(second * 2), &[want(&rule, &second.to_string(), 0)]).is_ok());
    }
    assert!(counters.all.len() <= SWEEP_FROM, "{}", counters.all.len());
    let budget = super::tests::rule("b", &[Part::Principal], budget("5"));
    counters.load((0..COUNTERS_MAX).map(|number| {
        let spend = Spend { window_us: 0, window: 0, spent: 1, at_us: 0, fades: false };
        (format!("cb1:bp-{number}"), spend)
    }));
    assert_eq!(counters.take(at(0), &[want(&budget, "new", 1)]), Err(Not::Full), "it is refused, not uncounted");
}

#[test]
fn what_goes_to_disk_is_what_changed() {
    let rule = rule("b", &[Part::Workflow], budget("5/1h"));
    let mut counters = Counters::default();
    counters.take(at(0), &[want(&rule, "ada", 2)]).expect("there is room");
    let (generation, rows) = counters.drain();
    assert_eq!((generation, rows.len()), (counters.generation(), 1));
    assert_eq!(rows[0].1.map(|spend| spend.spent), Some(2_000_000));
    assert!(counters.drain().1.is_empty());
    let mut again = Counters::default();
    again.load(rows.iter().map(|(key, spend)| (key.to_string(), spend.expect("a row"))));
    assert!(again.take(at(0), &[want(&rule, "ada", 4)]).is_err());
    assert_eq!(again.uses(at(0))[0].used.to_string(), "2");
    again.sweep(at(7_200));
    assert_eq!(again.drain().1, [(rows[0].0.clone(), None)], "what is forgotten goes from the disk too");
}

proptest! {
    // Whatever comes in whatever order at whatever time: never more than the budget in one window, nor more calls of a
    // rate in any time than its burst and what that time allows.
    #[test]
    fn nothing_goes_over(steps in proptest::collection::vec((0_u64..30, 0_u64..4, any::<bool>()), 1..200)) {
        let (budget, rate) = (rule("b", &[], budget("10/1m")), rule("r", &[], rate("6/1m", Some(4))));
        let mut counters = Counters::default();
        let (mut now, mut spent, mut calls) = (0, HashMap::<u64, u64>::new(), Vec::new());
        for (later, cost, back) in steps {
            now += later;
            let wants = [want(&budget, "ada", cost), want(&rate, "ada", 0)];
            let Ok(marks) = counters.take(at(now), &wants) else { continue };
            if back {
                marks.iter().for_each(|mark| counters.give_back(mark));
                continue;
            }
            *spent.entry(at(now).as_micros() / 60_000_000).or_default() += cost;
            calls.push(now);
        }
        prop_assert!(spent.values().all(|spent| *spent <= 10), "{spent:?}");
        for (index, start) in calls.iter().enumerate() {
            for (count, end) in calls[index..].iter().enumerate() {
                prop_assert!(count as u64 <= 4 + (end - start) / 10, "{calls:?}");
            }
        }
    }
}
