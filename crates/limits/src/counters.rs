//! The counters: what of each rule was used by whom. Pure state; whoever holds it says what time it is.
//!
//! What is taken is taken of all rules or of none. A counter that says no more than a new one would is forgotten; one that
//! says more never is, so that nobody gets anything back by calling under many names.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use cairn_clock::Timestamp;

use crate::{Amount, Bound, Budget, Cost, Part, Rate, Rule, Source, key::Key};

/// Counters at a time, of all rules together.
pub const COUNTERS_MAX: usize = 262_144;
/// Counters under names of the caller's own choice, for each rule and whoever it counts apart besides.
pub(crate) const CHOSEN_MAX: u32 = 4_096;
/// After so long without a call a workflow's budget is forgotten.
const WORKFLOW_IDLE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// From this many on, what says nothing is looked for.
const SWEEP_FROM: usize = 1_024;

/// What one call wants of one rule.
#[derive(Debug)]
pub(crate) struct Want<'a> {
    pub(crate) rule: &'a Rule,
    pub(crate) key: Key,
    /// What it costs of a budget.
    pub(crate) cost: Amount,
}

/// What one call took of one rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mark {
    pub(crate) key: Arc<str>,
    pub(crate) taken: Taken,
}

/// How to give it back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taken {
    /// A call of a rate: so many nanoseconds.
    Call(u64),
    /// A place among those at once.
    Place,
    /// So much of a budget, in that window.
    Spent(Amount, u64),
}

/// A bound that was reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exceeded {
    /// The rule's name.
    pub name: Arc<str>,
    /// Who gave it.
    pub source: Source,
    /// Its bound.
    pub bound: Bound,
    /// What it counts apart.
    pub per: Vec<Part>,
    /// What was used of it.
    pub used: Amount,
    /// When the same call may be let through; nothing where that cannot be told.
    pub retry_after: Option<Duration>,
}

/// How far a counter is, for whoever looks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Use {
    /// The rule's name.
    pub name: String,
    /// Who gave it.
    pub source: Source,
    /// `rate`, `concurrency` or `budget`.
    pub dimension: &'static str,
    /// Of whom, or what: the part, and its names.
    pub of: Vec<(Part, Vec<Option<String>>)>,
    /// What was used.
    pub used: Amount,
    /// When a budget is renewed.
    pub renews_at: Option<Timestamp>,
}

/// What is kept of a budget, in memory and on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Spend {
    /// The window's length in microseconds; 0 where it is never renewed.
    pub(crate) window_us: u64,
    /// Which window.
    pub(crate) window: u64,
    /// Millionths.
    pub(crate) spent: u64,
    /// When something was last taken of it, in microseconds.
    pub(crate) at_us: u64,
    /// Whether it is forgotten when nothing is taken of it for long.
    pub(crate) fades: bool,
}

/// What is to be on disk under a key; nothing where it is absent.
pub(crate) type Row = (Arc<str>, Option<Spend>);

#[derive(Debug)]
enum State {
    /// When the last call of a rate is worked off, in nanoseconds.
    Rate {
        free_at: u128,
        every: u64,
    },
    Running(u32),
    Spent(Spend),
}

#[derive(Debug)]
struct Counter {
    shared: Option<Arc<str>>,
    state: State,
}

/// All counters.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    all: HashMap<Arc<str>, Counter>,
    /// How many live under a shared key.
    chosen: HashMap<Arc<str>, u32>,
    sweep_at: usize,
    dirty: HashSet<Arc<str>>,
    /// One higher with each change of what is on disk.
    generation: u64,
}

/// No counter is free.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

/// Why something could not be taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Not {
    Exceeded(Box<Exceeded>),
    Full,
}

impl Counters {
    /// What was on disk.
    pub(crate) fn load(&mut self, rows: impl IntoIterator<Item = (String, Spend)>) {
        for (key, spend) in rows {
            self.all.insert(key.into(), Counter { shared: None, state: State::Spent(spend) });
        }
    }

    /// Whether all of it could be taken now.
    pub(crate) fn check(&mut self, now: Timestamp, wants: &[Want<'_>]) -> Result<(), Not> {
        wants.iter().try_for_each(|want| self.check_one(now, want))
    }

    /// Takes all of it, or nothing.
    pub(crate) fn take(&mut self, now: Timestamp, wants: &[Want<'_>]) -> Result<Vec<Mark>, Not> {
        self.check(now, wants)?;
        Ok(wants.iter().map(|want| self.take_one(now, want)).collect())
    }

    fn check_one(&mut self, now: Timestamp, want: &Want<'_>) -> Result<(), Not> {
        let key = self.place(now, &want.key).map_err(|Full| Not::Full)?;
        let state = key.map(|key| &self.all[&key].state);
        let exceeded = |used: Amount, retry_after: Option<Duration>| {
            let Rule { name, source, per, bound, .. } = want.rule;
            let (name, source, bound, per) = (name.clone(), *source, bound.clone(), per.clone());
            Err(Not::Exceeded(Box::new(Exceeded { name, source, bound, per, used, retry_after })))
        };
        match (&want.rule.bound, state) {
            (Bound::Rate(rate), Some(State::Rate { free_at, .. })) => {
                let (after, room) = rated(rate, *free_at, now);
                match (after - nanos(now)).checked_sub(room) {
                    None | Some(0) => Ok(()),
                    Some(wait) => {
                        let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
                        exceeded(whole(rate.burst), Some(wait))
                    }
                }
            }
            (Bound::Concurrency(max), Some(State::Running(count))) if count >= max => exceeded(whole(*count), None),
            (Bound::Budget(budget), state) => {
                let (window, window_us) = window_of(budget, now);
                let (spent, last) = match state {
                    Some(State::Spent(spend)) if spent_in(spend, window, window_us) => (spend.spent, spend.window),
                    _ => (0, window),
                };
                let full = match &budget.cost {
                    // What it costs is known when it has ended: something must be left.
                    Cost::Result(_) => spent >= budget.units.millionths(),
                    _ => spent.checked_add(want.cost.millionths()).is_none_or(|all| all > budget.units.millionths()),
                };
                if !full {
                    return Ok(());
                }
                let never = want.cost > budget.units || window_us == 0;
                let renews = (last + 1).saturating_mul(window_us).saturating_sub(now.as_micros());
                exceeded(Amount::from_millionths(spent), (!never).then(|| Duration::from_micros(renews)))
            }
            _ => Ok(()),
        }
    }

    fn take_one(&mut self, now: Timestamp, want: &Want<'_>) -> Mark {
        let key = match self.place(now, &want.key) {
            Ok(Some(key)) => key,
            _ => self.begin(now, want),
        };
        let counter = self.all.get_mut(&key).expect("it is there or was begun");
        let taken = match (&want.rule.bound, &mut counter.state) {
            (Bound::Rate(rate), State::Rate { free_at, every }) => {
                (*free_at, _) = rated(rate, *free_at, now);
                *every = interval(rate);
                Taken::Call(*every)
            }
            (Bound::Budget(budget), State::Spent(spend)) => {
                let (window, window_us) = window_of(budget, now);
                if !spent_in(spend, window, window_us) {
                    *spend = Spend { window_us, window, spent: 0, ..*spend };
                }
                spend.spent = spend.spent.saturating_add(want.cost.millionths());
                spend.at_us = now.as_micros();
                let window = spend.window;
                self.changed(&key);
                Taken::Spent(want.cost, window)
            }
            (_, State::Running(count)) => {
                *count += 1;
                Taken::Place
            }
            _ => unreachable!("a key says which kind of counter it is of"),
        };
        Mark { key, taken }
    }

    /// Gives back what a call took and did not use; of a rate nothing, as it asked.
    pub(crate) fn give_back(&mut self, mark: &Mark) {
        let Some(counter) = self.all.get_mut(&mark.key) else { return };
        match (mark.taken, &mut counter.state) {
            (Taken::Call(every), State::Rate { free_at, .. }) => *free_at = free_at.saturating_sub(u128::from(every)),
            (Taken::Place, State::Running(count)) => *count = count.saturating_sub(1),
            (Taken::Spent(amount, window), State::Spent(spend)) if spend.window == window => {
                spend.spent = spend.spent.saturating_sub(amount.millionths());
                self.changed(&mark.key);
            }
            _ => {}
        }
    }

    /// Adds what a call turned out to cost.
    pub(crate) fn add(&mut self, now: Timestamp, mark: &Mark, amount: Amount) {
        let Some(Counter { state: State::Spent(spend), .. }) = self.all.get_mut(&mark.key) else { return };
        // It counts where it was begun, or where it ends if that is renewed by now: never in both.
        let current = now.as_micros().checked_div(spend.window_us).unwrap_or(0);
        if current > spend.window {
            *spend = Spend { window: current, spent: 0, ..*spend };
        }
        spend.spent = spend.spent.saturating_add(amount.millionths());
        spend.at_us = now.as_micros();
        self.changed(&mark.key);
    }

    /// How much of a budget is used by now, under that key.
    pub(crate) fn spent(&self, now: Timestamp, budget: &Budget, key: &Key) -> Amount {
        let counter =
            self.all.get(&key.own).or_else(|| self.all.get(key.shared.as_ref()?).filter(|_| self.is_crowded(key)));
        let (window, window_us) = window_of(budget, now);
        match counter {
            Some(Counter { state: State::Spent(spend), .. }) if spent_in(spend, window, window_us) => {
                Amount::from_millionths(spend.spent)
            }
            _ => Amount::ZERO,
        }
    }

    /// All that says something, in the order of the keys.
    pub(crate) fn uses(&mut self, now: Timestamp) -> Vec<Use> {
        self.sweep(now);
        let mut keys: Vec<_> = self.all.keys().cloned().collect();
        keys.sort_unstable();
        let one = |key: Arc<str>| {
            let (source, _, name, parts) = crate::key::told(&key)?;
            let of = parts
                .into_iter()
                .map(|(part, names)| (part, names.into_iter().map(|name| name.map(ToOwned::to_owned)).collect()));
            let (dimension, used, renews_at) = match &self.all[&key].state {
                State::Rate { free_at, every } => {
                    let waiting = free_at.saturating_sub(nanos(now)).div_ceil(u128::from((*every).max(1)));
                    ("rate", u64::try_from(waiting).unwrap_or(u64::MAX).saturating_mul(1_000_000), None)
                }
                State::Running(count) => ("concurrency", whole(*count).millionths(), None),
                State::Spent(spend) => {
                    let end = (spend.window + 1).saturating_mul(spend.window_us);
                    ("budget", spend.spent, (spend.window_us > 0).then(|| Timestamp::from_micros(end)))
                }
            };
            let used = Amount::from_millionths(used);
            Some(Use { name: name.to_owned(), source, dimension, of: of.collect(), used, renews_at })
        };
        keys.into_iter().filter_map(one).collect()
    }

    /// What must go to disk, and the generation that it makes whole.
    pub(crate) fn drain(&mut self) -> (u64, Vec<Row>) {
        let keys = std::mem::take(&mut self.dirty);
        let rows = keys.into_iter().map(|key| {
            let row = match self.all.get(&key) {
                Some(Counter { state: State::Spent(spend), .. }) => Some(*spend),
                _ => None,
            };
            (key, row)
        });
        let rows = rows.collect();
        (self.generation, rows)
    }

    /// What could not be written is to be written still.
    pub(crate) fn put_back(&mut self, keys: impl IntoIterator<Item = Arc<str>>) {
        self.dirty.extend(keys);
    }

    pub(crate) const fn generation(&self) -> u64 {
        self.generation
    }

    fn changed(&mut self, key: &Arc<str>) {
        self.dirty.insert(key.clone());
        self.generation += 1;
    }

    fn is_crowded(&self, key: &Key) -> bool {
        key.shared.as_ref().is_some_and(|shared| self.chosen.get(shared).is_some_and(|count| *count >= CHOSEN_MAX))
    }

    /// The counter that stands for a key, where there is one; an error where none is free.
    fn place(&mut self, now: Timestamp, key: &Key) -> Result<Option<Arc<str>>, Full> {
        if self.all.contains_key(&key.own) {
            return Ok(Some(key.own.clone()));
        }
        if self.all.len() >= self.sweep_at.max(SWEEP_FROM) || self.is_crowded(key) {
            self.sweep(now);
            self.sweep_at = (self.all.len() * 2).min(COUNTERS_MAX);
        }
        if self.is_crowded(key) {
            let shared = key.shared.clone().filter(|shared| self.all.contains_key(shared));
            if shared.is_some() {
                return Ok(shared);
            }
        }
        if self.all.len() >= COUNTERS_MAX { Err(Full) } else { Ok(None) }
    }

    /// A new counter, or the shared one where there are too many of the caller's choice.
    fn begin(&mut self, now: Timestamp, want: &Want<'_>) -> Arc<str> {
        let state = match &want.rule.bound {
            Bound::Rate(rate) => State::Rate { free_at: nanos(now), every: interval(rate) },
            Bound::Concurrency(_) => State::Running(0),
            Bound::Budget(budget) => {
                let (window, window_us) = window_of(budget, now);
                let fades = want.rule.per.contains(&Part::Workflow);
                State::Spent(Spend { window_us, window, spent: 0, at_us: now.as_micros(), fades })
            }
        };
        let crowded = self.is_crowded(&want.key);
        let (key, shared) = match &want.key.shared {
            Some(shared) if crowded => (shared.clone(), None),
            shared => (want.key.own.clone(), shared.clone()),
        };
        if let Some(shared) = &shared {
            *self.chosen.entry(shared.clone()).or_default() += 1;
        }
        self.all.insert(key.clone(), Counter { shared, state });
        key
    }

    /// Forgets what says no more than a new counter would.
    fn sweep(&mut self, now: Timestamp) {
        let (mut gone, mut kept) = (Vec::new(), HashMap::new());
        self.all.retain(|key, counter| {
            let says = match &counter.state {
                State::Rate { free_at, .. } => *free_at > nanos(now),
                State::Running(count) => *count > 0,
                State::Spent(spend) => {
                    let old = spend.fades && now.since(Timestamp::from_micros(spend.at_us)) > WORKFLOW_IDLE;
                    let current = now.as_micros().checked_div(spend.window_us).unwrap_or(0);
                    let keeps = spend.spent > 0 && !old && current <= spend.window;
                    if !keeps {
                        gone.push(key.clone());
                    }
                    keeps
                }
            };
            if let (true, Some(shared)) = (says, &counter.shared) {
                *kept.entry(shared.clone()).or_default() += 1;
            }
            says
        });
        self.chosen = kept;
        gone.iter().for_each(|key| self.changed(key));
    }
}

const fn nanos(now: Timestamp) -> u128 {
    now.as_micros() as u128 * 1_000
}

/// A count as an amount.
const fn whole(count: u32) -> Amount {
    Amount::from_millionths(count as u64 * 1_000_000)
}

/// Nanoseconds between two calls of a rate.
fn interval(rate: &Rate) -> u64 {
    u64::try_from(rate.every.as_nanos() / u128::from(rate.calls)).unwrap_or(u64::MAX).max(1)
}

/// When a rate's calls would be worked off after one more (the generic cell rate algorithm of ITU-T I.371), and how far in
/// the future that may lie.
fn rated(rate: &Rate, free_at: u128, now: Timestamp) -> (u128, u128) {
    let (every, now) = (u128::from(interval(rate)), nanos(now));
    let room = every * u128::from(rate.burst);
    // A clock that was set back must not make anybody wait longer than a whole burst.
    (free_at.clamp(now, now + room) + every, room)
}

/// The current window of a budget, and its length in microseconds.
fn window_of(budget: &Budget, now: Timestamp) -> (u64, u64) {
    let length = budget.window.map_or(0, |window| u64::try_from(window.as_micros()).unwrap_or(u64::MAX));
    (now.as_micros().checked_div(length).unwrap_or(0), length)
}

/// Whether what was spent counts in that window. A clock that was set back renews nothing.
const fn spent_in(spend: &Spend, window: u64, window_us: u64) -> bool {
    spend.window_us == window_us && spend.window >= window
}

#[cfg(test)]
mod tests;
