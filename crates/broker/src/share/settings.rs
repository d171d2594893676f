//! What holds for a share group: its own configs, else the broker's. Used by the keeper and by the requests that change configs.

use std::time::Duration;

use cairn_log::Isolation;

use super::window::Rules;
use crate::{
    broker::Broker,
    resources::{self, ResourceKind},
    topics::configs::Configured,
};

/// What `share.auto.offset.reset` begins with where it says how old the first record may be.
const BY_DURATION: &str = "by_duration:";

/// Where a group begins in a partition that it has not read yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    Earliest,
    Latest,
    /// With what is not older than so many ms.
    Age(u64),
}

/// What holds for one group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(super) rules: Rules,
    pub(super) reset: Reset,
    pub(super) isolation: Isolation,
    /// How long a member may be silent, and how often it is to be heard of.
    pub(super) session_ms: u64,
    pub(super) interval_ms: u64,
}

impl Settings {
    pub(crate) fn of(broker: &Broker, group: &str) -> Self {
        let (limits, given) = (&broker.inner.options.limits, broker.inner.resources.get(ResourceKind::Group, group));
        let ms = |name, otherwise: Duration| {
            given.value(name).parse().unwrap_or_else(|_| u64::try_from(otherwise.as_millis()).unwrap_or(u64::MAX))
        };
        let is_committed = given.value(resources::SHARE_ISOLATION) == "read_committed";
        Self {
            rules: Rules {
                lock_ms: ms(resources::SHARE_LOCK, limits.share_record_lock),
                deliveries_max: limits.share_deliveries_max,
                locks_max: limits.share_locks_max,
            },
            reset: reset(given.value(resources::SHARE_RESET)).unwrap_or(Reset::Latest),
            isolation: if is_committed { Isolation::Committed } else { Isolation::Durable },
            session_ms: ms(resources::SHARE_SESSION, limits.consumer_session_timeout),
            interval_ms: ms(resources::SHARE_HEARTBEAT, limits.consumer_heartbeat_interval),
        }
    }

    /// How long a member has a record, ms.
    pub(crate) const fn lock_ms(&self) -> u64 {
        self.rules.lock_ms
    }

    pub(crate) const fn interval_ms(&self) -> u64 {
        self.interval_ms
    }
}

/// Whether this can be a group's `share.auto.offset.reset`.
pub(crate) fn check_reset(value: &str) -> Result<(), String> {
    let why = || {
        format!(
            "`{value}` cannot be where a share group begins: it is earliest, latest, or {BY_DURATION}PT1H and the like"
        )
    };
    reset(value).map(drop).ok_or_else(why)
}

fn reset(value: &str) -> Option<Reset> {
    match value.to_ascii_lowercase().as_str() {
        "earliest" => Some(Reset::Earliest),
        "latest" => Some(Reset::Latest),
        other => duration_ms(other.strip_prefix(BY_DURATION)?).map(Reset::Age),
    }
}

/// A duration of ISO 8601 in days, hours, minutes and seconds.
fn duration_ms(text: &str) -> Option<u64> {
    let text = text.strip_prefix('p')?;
    let (days, times) = text.split_once('t').map_or((text, None), |(days, times)| (days, Some(times)));
    if times.is_some_and(str::is_empty) || (days.is_empty() && times.is_none()) {
        return None;
    }
    let mut total = 0_u64;
    let mut add = |mut rest: &str, units: &[(char, u64)]| {
        for (unit, ms) in units {
            let Some((number, behind)) = rest.split_once(*unit) else { continue };
            total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*ms)?)?;
            rest = behind;
        }
        rest.is_empty().then_some(())
    };
    add(days, &[('d', 86_400_000)])?;
    add(times.unwrap_or_default(), &[('h', 3_600_000), ('m', 60_000), ('s', 1_000)])?;
    Some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_group_begins_is_what_kafka_takes() {
        assert_eq!(reset("Earliest"), Some(Reset::Earliest));
        assert_eq!(reset("latest"), Some(Reset::Latest));
        for (text, ms) in
            [("PT1H", 3_600_000), ("PT1H30M", 5_400_000), ("P2D", 172_800_000), ("P1DT1S", 86_401_000), ("pt0s", 0)]
        {
            assert_eq!(reset(&format!("by_duration:{text}")), Some(Reset::Age(ms)), "{text}");
        }
        for wrong in [
            "",
            "none",
            "by_duration:",
            "by_duration:1H",
            "by_duration:P",
            "by_duration:PT",
            "by_duration:PTxS",
            "by_duration:PT-1S",
            "by_duration:PT1S1H",
        ] {
            assert!(reset(wrong).is_none() && check_reset(wrong).is_err(), "{wrong}");
        }
    }
}
