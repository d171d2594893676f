//! Back-pressure: how long who produces is made to wait while the log waits for its object store. Called by the server for each Produce.
//!
//! The write-ahead log takes what comes while uploads are slow or fail, up to a bound at which producers are refused. Long before it
//! they are slowed down as by a quota (KIP-219): answered, told how long to wait, and not read meanwhile. So the room lasts longer, and
//! clients that honour the time do not run into errors.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use cairn_log::Log;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::principal::Principal;

/// Of what producers may fill, so much is taken at once; in thousandths.
const FREE_MILLI: u64 = 600;
/// A producer waits so long where there is hardly any room left.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// How often it is told that producers are slowed down, at most.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// How much producers were held back.
#[derive(Debug, Default)]
pub(crate) struct Pressure {
    waited_us: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl Pressure {
    /// How long a producer waits before anything more is read of it.
    pub(crate) fn wait(&self, log: &Log, who: &Principal) -> Duration {
        if *who == Principal::Internal {
            return Duration::ZERO; // what Cairn itself has to write is not slowed down by its guests
        }
        let wait = wait(log.fill_milli());
        if !wait.is_zero() {
            self.waited_us.fetch_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            if self.is_to_be_told(Instant::now()) {
                tracing::warn!("producers are slowed down: {}", log.why_no_headroom());
            }
        }
        wait
    }

    /// Whether it is time to tell of it. A log that goes in and out of its room many times a second tells of it once.
    fn is_to_be_told(&self, now: Instant) -> bool {
        let mut told = self.told.lock();
        let is_due = told.is_none_or(|told| now.saturating_duration_since(told) >= TELL_INTERVAL);
        if is_due {
            *told = Some(now);
        }
        is_due
    }

    /// How long producers were made to wait, together, in microseconds.
    pub(crate) fn waited_us(&self) -> u64 {
        self.waited_us.load(Ordering::Relaxed)
    }
}

/// Nothing up to [`FREE_MILLI`], then evenly more.
fn wait(fill_milli: u64) -> Duration {
    let over = fill_milli.min(1_000).saturating_sub(FREE_MILLI);
    let most = u64::try_from(WAIT_MAX.as_millis()).unwrap_or(u64::MAX);
    Duration::from_millis(most * over / (1_000 - FREE_MILLI))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_a_minute_however_often_it_begins() {
        let (pressure, began) = (Pressure::default(), Instant::now());
        assert!(pressure.is_to_be_told(began));
        assert!((0..100).all(|ms| !pressure.is_to_be_told(began + Duration::from_millis(ms))), "just told");
        let later = began + TELL_INTERVAL;
        assert!(pressure.is_to_be_told(later) && !pressure.is_to_be_told(later), "it goes on");
    }

    #[test]
    fn nobody_waits_while_there_is_room_and_each_the_longer_the_less_there_is() {
        let waits = [0, 300, 600, 700, 800, 1_000, 5_000].map(|fill| wait(fill).as_millis());
        assert_eq!(waits, [0, 0, 0, 250, 500, 1_000, 1_000]);
    }
}
