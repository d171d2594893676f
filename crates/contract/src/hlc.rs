//! The hybrid logical clock (Kulkarni et al., 2014): one sortable string for each event.
//!
//! The recorder takes one for each event and shows it those it reads back at start, so that its strings go on rising
//! when the machine's clock was set back. Text order is time order:
//!
//! | characters | meaning |
//! | --- | --- |
//! | 1 to 16 | microseconds since 1970, decimal, zero-padded |
//! | 17 | `-` |
//! | 18 to 22 | counter within the microsecond, decimal, zero-padded |

use std::sync::Mutex;

use cairn_clock::Clock;

const COUNTER_MAX: u64 = 99_999;
const MICROS_MAX: u64 = 9_999_999_999_999_999;
/// How far ahead of this machine another clock may be before it is not believed: one hour.
const AHEAD_MICROS_MAX: u64 = 60 * 60 * 1_000_000;

/// A hybrid logical clock. Each call of [`Hlc::now`] gives a string greater than all before and all observed.
#[derive(Debug, Default)]
pub struct Hlc {
    last: Mutex<Reading>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
struct Reading {
    micros: u64,
    counter: u64,
}

/// Why a reading of another clock was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum HlcError {
    /// It has not the form.
    #[error("{text:?} is no reading of a hybrid logical clock: it is 16 digits, '-' and 5 digits")]
    Form {
        /// What was given.
        text: String,
    },
    /// It would drag this clock into the future.
    #[error("a reading {ahead_s} s ahead of this machine is not believed: set one of the two clocks right")]
    Ahead {
        /// How far ahead it is, in seconds.
        ahead_s: u64,
    },
}

impl Hlc {
    /// A clock that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next reading.
    ///
    /// # Panics
    /// If a holder of the lock panicked, which none can.
    pub fn now(&self, clock: &Clock) -> String {
        let wall = clock.now().as_micros().min(MICROS_MAX);
        let mut last = self.last.lock().expect("no holder of this lock can panic");
        *last = if wall > last.micros {
            Reading { micros: wall, counter: 0 }
        } else if last.counter < COUNTER_MAX {
            Reading { micros: last.micros, counter: last.counter + 1 }
        } else {
            Reading { micros: last.micros + 1, counter: 0 }
        };
        format!("{:016}-{:05}", last.micros, last.counter)
    }

    /// Takes note of a reading of another clock, or of this one before a restart: later ones are greater.
    ///
    /// # Errors
    /// Text that is no reading, or one more than an hour ahead of `clock`.
    ///
    /// # Panics
    /// If a holder of the lock panicked, which none can.
    pub fn observe(&self, remote: &str, clock: &Clock) -> Result<(), HlcError> {
        let reading = parse(remote).ok_or_else(|| HlcError::Form { text: remote.chars().take(64).collect() })?;
        let ahead = reading.micros.saturating_sub(clock.now().as_micros());
        if ahead > AHEAD_MICROS_MAX {
            return Err(HlcError::Ahead { ahead_s: ahead / 1_000_000 });
        }
        let mut last = self.last.lock().expect("no holder of this lock can panic");
        *last = reading.max(*last);
        Ok(())
    }
}

fn parse(text: &str) -> Option<Reading> {
    let (micros, counter) = text.split_once('-')?;
    let digits = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(micros, 16) || !digits(counter, 5) {
        return None;
    }
    Some(Reading { micros: micros.parse().ok()?, counter: counter.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use cairn_clock::Timestamp;

    use super::*;

    const NOON: Timestamp = Timestamp::from_micros(1_795_521_600_000_000);

    #[test]
    fn readings_rise_while_the_wall_clock_stands_still() {
        let (hlc, clock) = (Hlc::new(), Clock::manual(NOON));
        let readings: Vec<String> = (0..200_001).map(|_| hlc.now(&clock)).collect();
        assert!(readings.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(readings[0], "1795521600000000-00000");
        assert_eq!(readings[100_000], "1795521600000001-00000");
    }

    #[test]
    fn readings_rise_past_one_observed() {
        let (hlc, clock) = (Hlc::new(), Clock::manual(NOON));
        hlc.observe("1795521601000000-00041", &clock).unwrap();
        assert_eq!(hlc.now(&clock), "1795521601000000-00042");
        hlc.observe("1795521600000000-00000", &clock).unwrap();
        assert_eq!(hlc.now(&clock), "1795521601000000-00043");
        clock.advance(Duration::from_secs(2));
        assert_eq!(hlc.now(&clock), "1795521602000000-00000");
    }

    #[test]
    fn what_is_no_reading_or_far_ahead_is_refused() {
        let (hlc, clock) = (Hlc::new(), Clock::manual(NOON));
        for bad in
            ["", "1", "1795521601000000", "1795521601000000-1", "x795521601000000-00041", "+795521601000000-00041"]
        {
            assert!(matches!(hlc.observe(bad, &clock), Err(HlcError::Form { .. })), "{bad}");
        }
        assert_eq!(hlc.observe("1795525201000000-00000", &clock), Err(HlcError::Ahead { ahead_s: 3601 }));
        assert_eq!(hlc.now(&clock), "1795521600000000-00000");
    }
}
