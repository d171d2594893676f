//! `@freshness`: what a call depends on must be fresh, or fresh and read within some time.
//!
//! `"fresh"`, `"30s"` (fresh, and read no longer ago), or both. Several demand the shortest time.

use std::time::Duration;

use super::duration;

/// Longest age that can be demanded.
const AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// How fresh everything must be that the call depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct FreshnessDemand {
    /// How long ago it may have been read; any time where absent.
    pub age_max: Option<Duration>,
}

impl FreshnessDemand {
    /// What meets both.
    pub(crate) fn joined(self, other: Self) -> Self {
        let age_max = match (self.age_max, other.age_max) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { age_max }
    }

    /// Reads the annotation.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut demand = Self::default();
        for item in text.split(',').map(str::trim).filter(|item| *item != "fresh") {
            let age = duration(item, AGE_MAX)
                .map_err(|what| format!("@freshness({text:?}) {what}; or write @freshness(\"fresh\")"))?;
            demand = demand.joined(Self { age_max: Some(age) });
        }
        Ok(demand)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_time_counts() {
        let read = |text| FreshnessDemand::parse(text).map(|demand| demand.age_max.map(|age| age.as_secs()));
        assert_eq!(read("fresh"), Ok(None));
        assert_eq!(read("30s"), Ok(Some(30)));
        assert_eq!(read("fresh, 2m, 90s"), Ok(Some(90)));
        for wrong in ["", "stale", "30", "0s", "99d", "fresh,,30s"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let (short, any) = (FreshnessDemand { age_max: Some(AGE_MAX) }, FreshnessDemand::default());
        assert_eq!((short.joined(any), any.joined(short)), (short, short));
    }
}
