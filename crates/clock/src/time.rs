//! Wall time in microseconds, which may jump, and moments, which do not. Called by everything that stamps a record, or measures how
//! long something lasts; a manual clock stands still until told.

use std::{
    fmt,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

/// Microseconds since 1970-01-01T00:00:00Z, without leap seconds (Unix time).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// A time from microseconds since the Unix epoch.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the Unix epoch, as Kafka's record timestamps want them.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        (self.0 / 1_000) as i64
    }

    /// This time plus a duration; it stops at the last representable microsecond.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero where it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339 in UTC with six digits of fraction: `2026-11-24T09:03:00.000001Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000_000;
        let (year, month, day) = civil_from_days((seconds / 86_400) as i64);
        let of_day = seconds % 86_400;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
            of_day / 3_600,
            of_day / 60 % 60,
            of_day % 60,
            self.0 % 1_000_000
        )
    }
}

/// Reads what `Display` writes, and nothing else.
impl FromStr for Timestamp {
    type Err = NoTimestamp;

    fn from_str(text: &str) -> Result<Self, NoTimestamp> {
        let shape = b"dddd-dd-ddTdd:dd:dd.ddddddZ";
        let fits = |(want, have): (&u8, &u8)| if *want == b'd' { have.is_ascii_digit() } else { want == have };
        if text.len() != shape.len() || !shape.iter().zip(text.as_bytes()).all(fits) {
            return Err(NoTimestamp);
        }
        let number = |from: usize, to: usize| text[from..to].parse::<u64>().map_err(|_| NoTimestamp);
        let days = days_from_civil(number(0, 4)? as i64, number(5, 7)? as i64, number(8, 10)? as i64);
        let seconds = number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?;
        let days = u64::try_from(days).map_err(|_| NoTimestamp)?;
        let at = Self((days * 86_400 + seconds) * 1_000_000 + number(20, 26)?);
        // A thirteenth month or a thirtieth of February would be another day than it says.
        if at.to_string() == text { Ok(at) } else { Err(NoTimestamp) }
    }
}

/// A text that is no time as Cairn writes it: `2026-11-24T09:03:00.000001Z`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoTimestamp;

impl fmt::Display for NoTimestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this is no time in UTC with six digits of fraction, such as 2026-11-24T09:03:00.000001Z")
    }
}

impl std::error::Error for NoTimestamp {}

/// Year, month and day of the proleptic Gregorian calendar to days since 1970-01-01: the inverse of `civil_from_days`.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Days since 1970-01-01 to year, month and day of the proleptic Gregorian calendar, counting eras of 400 years
/// that begin on 1 March so that the leap day comes last.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// A moment of this machine since it started, in microseconds: nobody sets it, it never goes back, and it goes on while the machine
/// sleeps. It says nothing about the hour, and nothing on another machine or after another start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Moment(u64);

impl Moment {
    /// A moment from what [`Moment::as_micros`] gave.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since some moment before all others.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// This moment plus a duration; it stops at the last representable microsecond.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// How long after `earlier` this is; zero where it is not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A source of wall time and of moments, cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

/// A clock that a test holds: what has passed, and what the hour is beside it, in microseconds.
#[derive(Debug)]
struct Manual {
    passed: AtomicU64,
    set_by: AtomicI64,
}

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `start` until [`Clock::advance`] moves it; all clones move together.
    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(Manual { passed: AtomicU64::new(start.as_micros()), set_by: AtomicI64::new(0) })))
    }

    /// The time now.
    #[must_use]
    #[allow(clippy::disallowed_methods)] // the one place
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                let since =
                    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                Timestamp(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
            }
            Source::Manual(manual) => {
                let (passed, set_by) = (manual.passed.load(Ordering::SeqCst), manual.set_by.load(Ordering::SeqCst));
                Timestamp(passed.saturating_add_signed(set_by))
            }
        }
    }

    /// This moment.
    #[must_use]
    pub fn moment(&self) -> Moment {
        match &self.0 {
            Source::System => {
                #[cfg(target_os = "linux")]
                const STEADY: rustix::time::ClockId = rustix::time::ClockId::Boottime;
                #[cfg(not(target_os = "linux"))]
                const STEADY: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
                let at = rustix::time::clock_gettime(STEADY);
                Moment(at.tv_sec.unsigned_abs() * 1_000_000 + at.tv_nsec.unsigned_abs() / 1_000)
            }
            Source::Manual(manual) => Moment(manual.passed.load(Ordering::SeqCst)),
        }
    }

    /// Lets time pass by a manual clock. The machine's clock moves by itself and ignores this.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(manual) = &self.0 {
            manual.passed.fetch_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// Sets a manual clock forward, or back where `by_ms` is below zero, without any time passing. The machine's clock is set by
    /// others and ignores this.
    pub fn set_by(&self, by_ms: i64) {
        if let Source::Manual(manual) = &self.0 {
            manual.set_by.fetch_add(by_ms.saturating_mul(1_000), Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_prints_as_rfc_3339() {
        assert_eq!(Timestamp::from_micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::from_micros(951_827_696_000_001).to_string(), "2000-02-29T12:34:56.000001Z");
        assert_eq!(Timestamp::from_micros(1_795_511_303_123_456).to_string(), "2026-11-24T09:08:23.123456Z");
    }

    #[test]
    fn what_is_printed_is_read_back_and_nothing_else_is() {
        for micros in [0, 951_827_696_000_001, 1_795_511_303_123_456, 253_402_300_799_999_999] {
            let at = Timestamp::from_micros(micros);
            assert_eq!(at.to_string().parse(), Ok(at));
        }
        for text in [
            "",
            "2026-11-24T09:08:23Z",
            "2026-02-30T09:08:23.123456Z",
            "2026-13-01T00:00:00.000000Z",
            "2026-11-24T25:08:23.123456Z",
            "1969-12-31T23:59:59.999999Z",
            "2026-11-24T09:08:23.12345éZ",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(NoTimestamp), "{text}");
        }
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = Clock::manual(Timestamp::from_micros(5));
        let twin = clock.clone();
        assert_eq!(clock.now(), twin.now());
        twin.advance(Duration::from_millis(1));
        assert_eq!(clock.now().as_micros(), 1_005);
    }

    #[test]
    fn setting_a_clock_moves_the_hour_and_no_moment() {
        let clock = Clock::manual(Timestamp::from_micros(5_000));
        let before = clock.moment();
        clock.set_by(86_400_000);
        assert_eq!(clock.now().as_micros(), 5_000 + 86_400_000_000);
        clock.set_by(-86_400_001);
        assert_eq!(clock.now().as_micros(), 4_000);
        assert_eq!(clock.moment().since(before), Duration::ZERO);
        let system = Clock::system();
        let (one, two) = (system.moment(), system.moment());
        assert!(one <= two && one > Moment::default());
    }
}
