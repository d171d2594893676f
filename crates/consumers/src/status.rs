//! How a consumer does, for metrics and `cairn lag`. Written by its thread, read by whoever asks; never waits.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use cairn_backbone::group::Place;
use parking_lot::Mutex;
use prometheus_client::metrics::histogram::Histogram;

/// Upper bounds of the freshness histogram, in seconds.
const BOUNDS: [f64; 18] =
    [0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0, 600.0, 3600.0];
/// The newest delays from which percentiles are taken.
const RECENT_MAX: usize = 4_096;

/// How far a consumer is in one partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PartitionLag {
    /// What it takes next.
    pub next: u64,
    /// Records that wait.
    pub behind: u64,
}

/// How long events took from their time until they were applied: percentiles of the newest ones.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Freshness {
    /// How many are counted.
    pub events: usize,
    /// The middle.
    pub p50: Duration,
    /// What one in a hundred exceeds.
    pub p99: Duration,
}

/// A handle to a consumer's figures.
#[derive(Clone, Debug)]
pub struct Status(Arc<Figures>);

#[derive(Debug)]
struct Figures {
    now: Mutex<Snapshot>,
    recent: Mutex<Recent>,
    delays: Histogram,
}

#[derive(Debug, Default)]
struct Recent {
    micros: Vec<u64>,
    at: usize,
}

/// The figures at one moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// Each assigned partition.
    pub partitions: BTreeMap<Place, PartitionLag>,
    /// Age of the oldest record that waits; 0 where none does.
    pub lag: Duration,
    /// Events applied since the start.
    pub events: u64,
    /// Batches that applied them.
    pub batches: u64,
    /// Records that could not be taken, since the start.
    pub dead_letters: u64,
    /// Events of contracts newer than this program, since the start.
    pub newer: u64,
    /// Whether an operator lets it rest.
    pub is_paused: bool,
    /// Whether it is a member of its group.
    pub is_assigned: bool,
    /// Why it does not apply at the moment.
    pub failing: Option<String>,
}

impl Snapshot {
    /// Records that wait in all partitions.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.partitions.values().map(|partition| partition.behind).sum()
    }
}

impl Default for Status {
    fn default() -> Self {
        let delays = Histogram::new(BOUNDS);
        Self(Arc::new(Figures { now: Mutex::default(), recent: Mutex::default(), delays }))
    }
}

impl Status {
    /// The figures now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.now.lock().clone()
    }

    /// The histogram of delays from event to applied, in seconds.
    #[must_use]
    pub fn delays(&self) -> &Histogram {
        &self.0.delays
    }

    /// Percentiles of the newest events.
    #[must_use]
    pub fn freshness(&self) -> Freshness {
        let mut micros = self.0.recent.lock().micros.clone();
        micros.sort_unstable();
        let at = |part: usize| {
            let index = (micros.len() * part / 100).min(micros.len().saturating_sub(1));
            Duration::from_micros(micros.get(index).copied().unwrap_or_default())
        };
        Freshness { events: micros.len(), p50: at(50), p99: at(99) }
    }

    pub(crate) fn change(&self, with: impl FnOnce(&mut Snapshot)) {
        with(&mut self.0.now.lock());
    }

    pub(crate) fn delayed(&self, delay: Duration) {
        self.0.delays.observe(delay.as_secs_f64());
        let mut recent = self.0.recent.lock();
        let micros = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        let at = recent.at;
        if recent.micros.len() < RECENT_MAX {
            recent.micros.push(micros);
        } else {
            recent.micros[at] = micros;
        }
        recent.at = (at + 1) % RECENT_MAX;
    }

    /// Whether it works at the moment; says a change of that once.
    pub(crate) fn failing(&self, name: &str, why: Option<String>) {
        let mut now = self.0.now.lock();
        match (&now.failing, &why) {
            (None, Some(why)) => tracing::error!("the consumer {name} does not apply anything at the moment: {why}"),
            (Some(_), None) => tracing::warn!("the consumer {name} applies again"),
            _ => {}
        }
        now.failing = why;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_newest_events() {
        let status = Status::default();
        assert_eq!(status.freshness(), Freshness::default());
        (0..RECENT_MAX).for_each(|_| status.delayed(Duration::from_secs(9)));
        (1..=RECENT_MAX as u64).for_each(|n| status.delayed(Duration::from_micros(n)));
        let now = status.freshness();
        assert_eq!(now.events, RECENT_MAX);
        assert!(now.p50 > Duration::from_micros(2_000) && now.p50 < Duration::from_micros(2_100), "{now:?}");
        assert!(now.p99 > Duration::from_micros(4_000) && now.p99 < Duration::from_micros(4_096), "{now:?}");
    }
}
