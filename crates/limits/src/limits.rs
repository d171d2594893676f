//! The handle that the gateway holds: what a call may take, what it took, and what becomes of that.

use std::{path::Path, sync::Arc, time::Duration};

use cairn_clock::Clock;
use parking_lot::Mutex;

use crate::{
    Amount, AmountError, Bound, Cost, Exceeded, LedgerError, OpenError, Rule, Subject, Use,
    counters::{Counters, Mark, Not, Taken, Want},
    key::Key,
    ledger::Ledger,
};

/// The file of what was spent, in the gateway's folder.
const FILE: &str = "spend.redb";

/// All limits. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Limits(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Vec<Rule>,
    counters: Arc<Mutex<Counters>>,
    ledger: Ledger,
    clock: Clock,
}

/// Why a call may not go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refused {
    /// A bound was reached.
    Exceeded(Box<Exceeded>),
    /// It does not say what it costs.
    NoCost {
        /// The rule's name.
        name: Arc<str>,
        /// Where in the arguments the number should be.
        pointer: String,
        /// Why what is there is none; nothing is there where absent.
        error: Option<AmountError>,
    },
    /// There are more callers than can be counted.
    Full,
}

/// How far the budget that is nearest to its end is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// The rule's name.
    pub name: Arc<str>,
    /// How much of it is spent, in per cent, rounded down.
    pub spent_percent: u64,
    /// What is left.
    pub remaining: Amount,
    /// When it is renewed, where it is.
    pub renews_in: Option<Duration>,
}

/// A call that was counted when it came; its places are given back when this is dropped.
#[derive(Debug)]
#[must_use = "its places are given back when it is dropped"]
pub struct Entered {
    marks: Vec<Mark>,
    all: Limits,
}

/// What a call took before it was forwarded. Places are given back when this is dropped; all else stays taken.
#[derive(Debug)]
#[must_use = "its places are given back when it is dropped"]
pub struct Charged {
    marks: Vec<Mark>,
    /// Where the result says what was spent, by the mark that it is counted under.
    later: Vec<(Mark, String)>,
    generation: u64,
    all: Limits,
}

impl Limits {
    /// Counts by these rules, and those that come with permits; what was spent is in a file in that folder.
    ///
    /// # Errors
    /// Where the file cannot be read, or no thread can be had to write it.
    pub fn open(rules: Vec<Rule>, folder: &Path, clock: Clock) -> Result<Self, OpenError> {
        let path = folder.join(FILE);
        let mut counters = Counters::default();
        counters.load(Ledger::read(&path)?);
        let counters = Arc::new(Mutex::new(counters));
        let ledger = Ledger::start(path.clone(), counters.clone())
            .map_err(|error| OpenError { path, reason: error.to_string() })?;
        Ok(Self(Arc::new(Inner { rules, counters, ledger, clock })))
    }

    /// Counts a call that has come: rates and places of the configuration.
    ///
    /// # Errors
    /// The bound that was reached; then nothing was counted.
    pub fn enter(&self, subject: &Subject<'_>) -> Result<Entered, Refused> {
        let of = self.rules().filter(|rule| !matches!(rule.bound, Bound::Budget(_)) && rule.applies.to(subject));
        let wants: Vec<_> = of.map(|rule| want(rule, subject, Amount::ZERO)).collect();
        let marks = self.take(&wants)?;
        Ok(Entered { marks, all: self.clone() })
    }

    /// Takes what a call needs to be forwarded: of the configuration's budgets, and of all rules that came with its permit.
    /// `number` gives the number at a JSON pointer into its arguments, as it is written.
    ///
    /// # Errors
    /// The bound that was reached, or that the call does not say what it costs; then nothing was taken.
    pub fn charge(
        &self,
        subject: &Subject<'_>,
        demanded: &[Rule],
        number: impl Fn(&str) -> Option<String>,
    ) -> Result<Charged, Refused> {
        let wants = self.wants(subject, demanded, number)?;
        let marks = self.take(&wants)?;
        let later = wants.iter().zip(&marks).filter_map(|(want, mark)| match &want.rule.bound {
            Bound::Budget(budget) => match &budget.cost {
                Cost::Result(pointer) => Some((mark.clone(), pointer.clone())),
                _ => None,
            },
            _ => None,
        });
        let later = later.collect();
        let generation = self.0.counters.lock().generation();
        Ok(Charged { marks, later, generation, all: self.clone() })
    }

    /// Whether a call could take now what it needs; takes nothing. Asked before people are.
    ///
    /// # Errors
    /// As [`Limits::charge`].
    pub fn check(
        &self,
        subject: &Subject<'_>,
        demanded: &[Rule],
        number: impl Fn(&str) -> Option<String>,
    ) -> Result<(), Refused> {
        let wants = self.wants(subject, demanded, number)?;
        self.0.counters.lock().check(self.0.clock.now(), &wants).map_err(Refused::from)
    }

    /// Of the configuration's budgets for such a call, the one that is nearest to its end.
    #[must_use]
    pub fn standing(&self, subject: &Subject<'_>) -> Option<Standing> {
        let now = self.0.clock.now();
        let budgets = self.rules().filter(|rule| rule.applies.to(subject));
        let standing = budgets.filter_map(|rule| {
            let Bound::Budget(budget) = &rule.bound else { return None };
            let spent = self.0.counters.lock().spent(now, budget, &Key::of(rule, subject));
            let percent = u128::from(spent.millionths()) * 100 / u128::from(budget.units.millionths());
            let renews_in = budget.window.map(|window| {
                let length = u64::try_from(window.as_micros()).unwrap_or(u64::MAX);
                Duration::from_micros(length - now.as_micros() % length)
            });
            Some(Standing {
                name: rule.name.clone(),
                spent_percent: u64::try_from(percent).unwrap_or(u64::MAX),
                remaining: budget.units.minus(spent),
                renews_in,
            })
        });
        standing.max_by_key(|standing| standing.spent_percent)
    }

    /// Whether the configuration has any limit at all.
    #[must_use]
    pub fn has_rules(&self) -> bool {
        !self.0.rules.is_empty()
    }

    /// The configuration's rules.
    pub fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.0.rules.iter()
    }

    /// All that is used of anything, in a fixed order.
    #[must_use]
    pub fn uses(&self) -> Vec<Use> {
        self.0.counters.lock().uses(self.0.clock.now())
    }

    fn take(&self, wants: &[Want<'_>]) -> Result<Vec<Mark>, Refused> {
        if wants.is_empty() {
            return Ok(Vec::new());
        }
        Ok(self.0.counters.lock().take(self.0.clock.now(), wants)?)
    }

    fn wants<'a>(
        &'a self,
        subject: &Subject<'_>,
        demanded: &'a [Rule],
        number: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Want<'a>>, Refused> {
        let budgets = self.rules().filter(|rule| matches!(rule.bound, Bound::Budget(_)));
        let of = budgets.chain(demanded).filter(|rule| rule.applies.to(subject));
        of.map(|rule| Ok(want(rule, subject, cost(rule, &number)?))).collect()
    }

    fn write(&self) {
        let generation = self.0.counters.lock().generation();
        self.0.ledger.want(generation);
    }
}

impl From<Not> for Refused {
    fn from(not: Not) -> Self {
        match not {
            Not::Exceeded(exceeded) => Self::Exceeded(exceeded),
            Not::Full => Self::Full,
        }
    }
}

impl Entered {
    /// As if the call had never come: its calls of rates are given back too.
    pub fn give_back(mut self) {
        let marks = std::mem::take(&mut self.marks);
        let mut counters = self.all.0.counters.lock();
        marks.iter().for_each(|mark| counters.give_back(mark));
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        leave(&self.all, &self.marks);
    }
}

impl Charged {
    /// Returns when what was spent is on disk.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn durable(&self) -> impl Future<Output = Result<(), LedgerError>> + Send + use<> {
        let spends = self.marks.iter().any(|mark| matches!(mark.taken, Taken::Spent(..)));
        let written = spends.then(|| {
            self.all.0.ledger.want(self.generation);
            self.all.0.ledger.durable(self.generation)
        });
        async move {
            match written {
                Some(written) => written.await,
                None => Ok(()),
            }
        }
    }

    /// Gives all of it back: nothing was forwarded, or the work goes on under another call.
    pub fn give_back(mut self) {
        let marks = std::mem::take(&mut self.marks);
        {
            let mut counters = self.all.0.counters.lock();
            marks.iter().for_each(|mark| counters.give_back(mark));
        }
        self.all.write();
    }

    /// The call has ended; `number` gives the number at a JSON pointer into its result, as it is written.
    pub fn settle(self, number: impl Fn(&str) -> Option<String>) {
        let mut added = false;
        for (mark, pointer) in &self.later {
            let amount = number(pointer).and_then(|number| Amount::parse(&number).ok()).unwrap_or_default();
            if amount > Amount::ZERO {
                self.all.0.counters.lock().add(self.all.0.clock.now(), mark, amount);
                added = true;
            }
        }
        if added {
            self.all.write();
        }
    }
}

impl Drop for Charged {
    fn drop(&mut self) {
        leave(&self.all, &self.marks);
    }
}

/// Gives places back.
fn leave(all: &Limits, marks: &[Mark]) {
    let places = marks.iter().filter(|mark| mark.taken == Taken::Place);
    let mut counters = None;
    for mark in places {
        counters.get_or_insert_with(|| all.0.counters.lock()).give_back(mark);
    }
}

fn want<'a>(rule: &'a Rule, subject: &Subject<'_>, cost: Amount) -> Want<'a> {
    Want { rule, key: Key::of(rule, subject), cost }
}

fn cost(rule: &Rule, number: impl Fn(&str) -> Option<String>) -> Result<Amount, Refused> {
    let Bound::Budget(budget) = &rule.bound else { return Ok(Amount::ZERO) };
    match &budget.cost {
        Cost::Fixed(amount) => Ok(*amount),
        Cost::Result(_) => Ok(Amount::ZERO),
        Cost::Argument(pointer) => {
            let refused = |error| Refused::NoCost { name: rule.name.clone(), pointer: pointer.clone(), error };
            let text = number(pointer).ok_or_else(|| refused(None))?;
            Amount::parse(&text).map_err(|error| refused(Some(error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_clock::Timestamp;

    use super::*;
    use crate::{Applies, Budget, Part, Rate, Source};

    fn rule(name: &str, bound: Bound) -> Rule {
        let (source, per) = (Source::Configuration, vec![Part::Principal]);
        Rule { name: name.into(), source, applies: Applies::default(), per, bound }
    }

    fn spends(cost: &str) -> Rule {
        rule("spend", Bound::Budget(Budget::parse("10/1d", Cost::parse(cost).expect("a cost")).expect("a budget")))
    }

    fn ada() -> Subject<'static> {
        let (tenant, agent, server, tool, method) = (None, None, "orders", Some("refund"), "tools/call");
        Subject { tenant, principal: "ada", agent, server, tool, method, workflow: "w" }
    }

    fn clock() -> Clock {
        Clock::manual(Timestamp::from_micros(1_800_000_000_000_000))
    }

    fn number(text: &'static str) -> impl Fn(&str) -> Option<String> {
        move |pointer| (pointer == "/amount").then(|| text.to_owned())
    }

    #[tokio::test]
    async fn what_was_spent_is_spent_after_a_restart_and_what_was_given_back_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Limits::open(vec![spends("arguments:/amount")], folder.path(), clock()).expect("it opens");
        let limits = open();
        let charged = limits.charge(&ada(), &[], number("6.5")).expect("there is room");
        charged.durable().await.expect("it is written");
        limits.charge(&ada(), &[], number("3")).expect("there is room").give_back();
        drop(charged);
        drop(limits);
        let limits = open();
        assert_eq!(limits.uses()[0].used.to_string(), "6.5");
        assert!(matches!(limits.charge(&ada(), &[], number("3.6")), Err(Refused::Exceeded(_))));
        let standing = limits.standing(&ada()).expect("there is a budget");
        assert_eq!((standing.spent_percent, standing.remaining.to_string()), (65, "3.5".to_owned()));
        let charged = limits.charge(&ada(), &[], number("3.5")).expect("to the last unit");
        charged.durable().await.expect("it is written");
    }

    #[tokio::test]
    async fn what_is_durable_is_on_disk_before_anything_ends_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = Limits::open(vec![spends("1")], folder.path(), clock()).expect("it opens");
        for _ in 0..3 {
            limits.charge(&ada(), &[], number("")).expect("room").durable().await.expect("written");
        }
        // As a process that is killed leaves it: the file is copied while it is in use.
        let copy = tempfile::tempdir().expect("a folder");
        std::fs::copy(folder.path().join(FILE), copy.path().join(FILE)).expect("copied");
        let after = Limits::open(vec![spends("1")], copy.path(), clock()).expect("it is mended");
        assert_eq!(after.uses()[0].used.to_string(), "3");
    }

    #[tokio::test]
    async fn a_disk_that_fails_lets_nothing_through_and_nothing_is_lost_when_it_works_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let inside = folder.path().join("inside");
        let limits = Limits::open(vec![spends("1")], &inside, clock()).expect("it opens");
        let charged = limits.charge(&ada(), &[], number("")).expect("room");
        let error = charged.durable().await.expect_err("there is no such folder");
        assert!(error.to_string().contains("not written"), "{error}");
        std::fs::create_dir(&inside).expect("made");
        let second = limits.charge(&ada(), &[], number("")).expect("room");
        second.durable().await.expect("it is written");
        drop((charged, second, limits));
        let limits = Limits::open(vec![spends("1")], &inside, clock()).expect("it opens");
        assert_eq!(limits.uses()[0].used.to_string(), "2");
    }

    #[test]
    fn a_file_that_is_none_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join(FILE), "not a database at all").expect("written");
        let error = Limits::open(Vec::new(), folder.path(), clock()).expect_err("it is none");
        assert!(error.to_string().contains(FILE) && error.to_string().contains("move it away"), "{error}");
    }

    #[test]
    fn a_call_that_does_not_say_what_it_costs_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = Limits::open(vec![spends("arguments:/amount")], folder.path(), clock()).expect("it opens");
        for (text, error) in
            [("-1", AmountError::Negative), ("true", AmountError::NotANumber), ("1e99", AmountError::TooLarge)]
        {
            let refused = limits.charge(&ada(), &[], number(text)).expect_err("it says none");
            assert!(matches!(refused, Refused::NoCost { error: Some(said), .. } if said == error), "{text}");
        }
        assert!(matches!(limits.check(&ada(), &[], |_| None), Err(Refused::NoCost { error: None, .. })));
        assert!(limits.uses().is_empty());
    }

    #[test]
    fn places_are_given_back_and_calls_of_a_rate_are_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let rate = rule("rate", Bound::Rate(Rate::parse("3/1m", None).expect("a rate")));
        let rules = vec![rule("places", Bound::Concurrency(1)), rate];
        let limits = Limits::open(rules, folder.path(), clock()).expect("it opens");
        let first = limits.enter(&ada()).expect("a place");
        assert!(matches!(limits.enter(&ada()), Err(Refused::Exceeded(over)) if &*over.name == "places"));
        drop(first);
        drop(limits.enter(&ada()).expect("the place is free, and the refused one cost nothing"));
        limits.enter(&ada()).expect("the third").give_back();
        drop(limits.enter(&ada()).expect("the third again"));
        assert!(matches!(limits.enter(&ada()), Err(Refused::Exceeded(over)) if &*over.name == "rate"));
    }

    #[test]
    fn what_a_result_says_is_counted_when_it_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = Limits::open(vec![spends("result:/amount")], folder.path(), clock()).expect("it opens");
        limits.charge(&ada(), &[], |_| None).expect("something is left").settle(number("12"));
        assert!(
            matches!(limits.charge(&ada(), &[], |_| None), Err(Refused::Exceeded(over)) if over.used.to_string() == "12")
        );
    }
}
