//! The hour as far as it may be believed by what forgets by age: retention, compaction, offsets and ids that nobody uses.
//!
//! Anybody may set a clock, and a clock that is set forward by a year makes everything a year older at once. So a jump forward counts
//! only once it has lasted; a jump back, which forgets nothing, counts at once. It guarantees that nothing is forgotten sooner than
//! it would be by a clock that was not set, unless the clock stayed as it was set for [`Settled::AFTER`].

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{Clock, Moment, Timestamp};

/// What clocks are corrected by without anybody having to worry.
const SLACK: Duration = Duration::from_secs(60);

/// A clock with patience, cheap to clone; clones share what they believe.
#[derive(Clone, Debug)]
pub struct Settled {
    clock: Clock,
    belief: Arc<Mutex<Belief>>,
}

#[derive(Clone, Copy, Debug)]
struct Belief {
    /// An hour that is believed, and the moment at which it was.
    hour: Timestamp,
    at: Moment,
    /// An hour far past what is believed, and the moment at which it was first seen.
    doubted: Option<(Timestamp, Moment)>,
}

impl Settled {
    /// For how long a clock must stay as it was set until that is believed.
    pub const AFTER: Duration = Duration::from_secs(3_600);

    /// Believes what the clock says at this moment: there is nothing to compare it with.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let belief = Belief { hour: clock.now(), at: clock.moment(), doubted: None };
        Self { clock, belief: Arc::new(Mutex::new(belief)) }
    }

    /// The time now, as far as it is believed.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let (hour, at) = (self.clock.now(), self.clock.moment());
        let mut belief = self.belief.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = belief.hour.plus(at.since(belief.at));
        if hour <= expected.plus(SLACK) {
            *belief = Belief { hour, at, doubted: None };
            return hour;
        }
        // The same jump as before, if it goes on from there as time does.
        let first = belief.doubted.filter(|(doubted, since)| hour <= doubted.plus(at.since(*since)).plus(SLACK));
        let (doubted, since) = first.unwrap_or((hour, at));
        if at.since(since) >= Self::AFTER {
            *belief = Belief { hour, at, doubted: None };
            return hour;
        }
        belief.doubted = Some((doubted, since));
        expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn at_noon() -> (Clock, Settled) {
        let clock = Clock::manual(Timestamp::from_micros(1_795_511_303_000_000));
        (clock.clone(), Settled::new(clock))
    }

    #[test]
    fn a_jump_forward_is_believed_once_it_has_lasted_and_not_before() {
        let (clock, settled) = at_noon();
        let noon = settled.now();
        clock.set_by(DAY_MS);
        assert_eq!(settled.now(), noon);
        clock.advance(Settled::AFTER / 2);
        assert_eq!(settled.now(), noon.plus(Settled::AFTER / 2), "time passes");
        // Another jump on top of it begins to last anew.
        clock.set_by(DAY_MS);
        assert_eq!(settled.now(), noon.plus(Settled::AFTER / 2));
        clock.advance(Settled::AFTER / 2);
        assert_eq!(settled.now(), noon.plus(Settled::AFTER));
        clock.advance(Settled::AFTER / 2);
        assert_eq!(settled.now(), clock.now());
        clock.advance(Duration::from_secs(9));
        assert_eq!(settled.now(), clock.now());
    }

    #[test]
    fn a_clock_that_is_set_back_again_has_aged_nothing() {
        let (clock, settled) = at_noon();
        clock.set_by(DAY_MS);
        let _ = settled.now();
        clock.advance(Settled::AFTER / 2);
        clock.set_by(-DAY_MS);
        assert_eq!(settled.now(), clock.now());
        // It has to last from its own beginning.
        clock.set_by(DAY_MS);
        let believed = settled.now();
        clock.advance(Settled::AFTER / 2);
        assert_eq!(settled.now(), believed.plus(Settled::AFTER / 2));
    }

    #[test]
    fn a_jump_back_and_small_corrections_count_at_once() {
        let (clock, settled) = at_noon();
        for by in [-DAY_MS, 500, 59_000, -3_000] {
            clock.set_by(by);
            assert_eq!(settled.now(), clock.now());
        }
        clock.advance(Duration::from_secs(8 * 86_400));
        assert_eq!(settled.now(), clock.now(), "a sleep of the machine is no jump");
    }
}
