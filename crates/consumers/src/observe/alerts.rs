//! When somebody should look: rules over what the trail tells, each of which is raised once for as long as it holds.
//!
//! Pure: the wiring asks each second, records `alert.raised`, and tells others only then. What was raised is kept over restarts, so that an
//! approval that waits is not raised again; an alert whose recording was cut off has the same event id when it is tried again.

use std::{collections::BTreeMap, time::Duration};

use cairn_clock::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Figures, chains::Gap, span::derived};

/// Every rule.
pub const NAMES: [&str; 6] =
    ["refusals", "in_doubt", "consumer_lag", "trail_gap", "approval_waiting", "collector_away"];
/// An alert ends when it has not held for so long.
const CLEAR_AFTER: Duration = Duration::from_secs(60);
/// Episodes that are open at once; what comes past them is not raised before others end.
const EPISODES_MAX: usize = 256;
/// Approvals that are told of at once.
const WAITING_MAX: usize = 20;

/// The bounds past which alerts are raised; `None` is never.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rules {
    /// How far back refusals, calls in doubt and gaps are looked for.
    pub window: Duration,
    /// Refused calls in that time.
    pub refusals_max: Option<u64>,
    /// Calls in doubt in that time.
    pub in_doubt_max: Option<u64>,
    /// How long a record may wait for a consumer of this process.
    pub consumer_lag_max: Option<Duration>,
    /// Events that may be missing in one partition's chains in that time.
    pub missing_max: Option<u64>,
    /// How long an approval may wait.
    pub approval_wait_max: Option<Duration>,
    /// How long the collector may take nothing.
    pub collector_away_max: Option<Duration>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(300),
            refusals_max: Some(50),
            in_doubt_max: Some(0),
            consumer_lag_max: Some(Duration::from_secs(60)),
            missing_max: Some(0),
            approval_wait_max: Some(Duration::from_secs(600)),
            collector_away_max: Some(Duration::from_secs(300)),
        }
    }
}

/// What the rules look at.
#[derive(Clone, PartialEq, Debug)]
pub struct Seen {
    pub(super) now: Timestamp,
    pub(super) refusals: u64,
    pub(super) in_doubt: u64,
    pub(super) gaps: Vec<Gap>,
    pub(super) waiting: Vec<(String, Duration)>,
    pub(super) away: Option<(Duration, String)>,
    pub(super) lags: Vec<(String, Duration)>,
}

impl Seen {
    /// What these figures show, and how far consumers are behind.
    pub fn of(figures: &Figures, rules: &Rules, lags: impl IntoIterator<Item = (String, Duration)>) -> Self {
        Self { lags: lags.into_iter().collect(), ..figures.seen(rules.window) }
    }
}

/// A rule that is over its bound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alert {
    /// Which rule.
    pub alert: &'static str,
    /// What it is about.
    pub about: String,
    /// What was found.
    pub found: String,
}

impl Rules {
    /// What is over its bound.
    #[must_use]
    pub fn broken(&self, seen: &Seen) -> Vec<Alert> {
        let mut all = Vec::new();
        let mut raise = |alert: &'static str, about: &str, found: String| {
            all.push(Alert { alert, about: about.to_owned(), found });
        };
        let within = self.window.as_secs();
        if let Some(most) = self.refusals_max.filter(|most| seen.refusals > *most) {
            raise(
                "refusals",
                "calls",
                format!("{} calls were refused within {within} s, more than {most}", seen.refusals),
            );
        }
        if let Some(most) = self.in_doubt_max.filter(|most| seen.in_doubt > *most) {
            let found = format!("{} calls ended in doubt within {within} s, more than {most}", seen.in_doubt);
            raise("in_doubt", "calls", found);
        }
        if let Some(most) = self.consumer_lag_max {
            for (name, lag) in seen.lags.iter().filter(|(_, lag)| *lag > most) {
                let found = format!("a record has waited {} s, more than {}", lag.as_secs(), most.as_secs());
                raise("consumer_lag", name, found);
            }
        }
        if let Some(most) = self.missing_max {
            let mut places: BTreeMap<String, (u64, &Gap)> = BTreeMap::new();
            for gap in &seen.gaps {
                let about = format!("{}/{}", gap.place.topic, gap.place.partition);
                places.entry(about).and_modify(|(events, _)| *events += gap.events).or_insert((gap.events, gap));
            }
            for (about, (events, gap)) in places.into_iter().filter(|(_, (events, _))| *events > most) {
                let found =
                    format!("{events} events of {} are missing, first before offset {}", gap.producer, gap.offset);
                raise("trail_gap", &about, found);
            }
        }
        if let Some(most) = self.approval_wait_max {
            for (id, _) in seen.waiting.iter().filter(|(_, waited)| *waited > most).take(WAITING_MAX) {
                raise("approval_waiting", id, format!("nobody has settled it within {} s", most.as_secs()));
            }
        }
        if let Some(most) = self.collector_away_max
            && let Some((_, reason)) = seen.away.as_ref().filter(|(away, _)| *away > most)
        {
            let found = format!("it has taken nothing for more than {} s: {reason}", most.as_secs());
            raise("collector_away", "collector", found);
        }
        all
    }
}

/// One alert from when it began to hold until it has not held for a while.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct Episode {
    alert: String,
    about: String,
    since_us: u64,
    last_us: u64,
    is_recorded: bool,
}

impl Episode {
    fn event_id(&self) -> Uuid {
        let since = self.since_us.to_string();
        uuid::Builder::from_custom_bytes(derived("alert", &[&self.alert, &self.about, &since])).into_uuid()
    }
}

/// The alerts that hold.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Episodes(Vec<Episode>);

impl Episodes {
    /// A process takes over from the one before: what held then may hold still, and has not shown yet.
    pub fn go_on(&mut self, now: Timestamp) {
        self.0.iter_mut().for_each(|episode| episode.last_us = now.as_micros());
    }

    /// Takes note of what holds now; whether what must be kept has changed. Then [`Episodes::due`] says what to record.
    pub fn hold(&mut self, alerts: &[Alert], now: Timestamp) -> bool {
        let now_us = now.as_micros();
        let before = self.0.len();
        self.0.retain(|episode| {
            let holds = alerts.iter().any(|one| one.alert == episode.alert && one.about == episode.about);
            holds || !episode.is_recorded || now.since(Timestamp::from_micros(episode.last_us)) < CLEAR_AFTER
        });
        let mut changed = self.0.len() != before;
        for one in alerts {
            let has_room = self.0.len() < EPISODES_MAX;
            match self.0.iter_mut().find(|episode| episode.alert == one.alert && episode.about == one.about) {
                Some(episode) => episode.last_us = now_us,
                None if has_room => {
                    let (alert, about) = (one.alert.to_owned(), one.about.clone());
                    self.0.push(Episode { alert, about, since_us: now_us, last_us: now_us, is_recorded: false });
                    changed = true;
                }
                None => {}
            }
        }
        changed
    }

    /// Which of these alerts are not recorded yet, each with the id of its event.
    #[must_use]
    pub fn due(&self, alerts: &[Alert]) -> Vec<(Uuid, Alert)> {
        let of = |one: &Alert| {
            let same = |episode: &&Episode| episode.alert == one.alert && episode.about == one.about;
            self.0
                .iter()
                .find(same)
                .filter(|episode| !episode.is_recorded)
                .map(|episode| (episode.event_id(), one.clone()))
        };
        alerts.iter().filter_map(of).collect()
    }

    /// It is on stable storage.
    pub fn recorded(&mut self, alert: &Alert) {
        let same = |episode: &&mut Episode| episode.alert == alert.alert && episode.about == alert.about;
        if let Some(episode) = self.0.iter_mut().find(same) {
            episode.is_recorded = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_backbone::group::Place;

    use super::*;

    fn at(second: u64) -> Timestamp {
        Timestamp::from_micros(1_795_521_600_000_000 + second * 1_000_000)
    }

    fn seen() -> Seen {
        Seen {
            now: at(0),
            refusals: 0,
            in_doubt: 0,
            gaps: Vec::new(),
            waiting: Vec::new(),
            away: None,
            lags: vec![("audit".to_owned(), Duration::from_secs(1))],
        }
    }

    #[test]
    fn each_rule_is_raised_past_its_bound_and_not_at_it() {
        let rules = Rules::default();
        let quiet = Seen {
            refusals: 50,
            waiting: vec![("a1".to_owned(), Duration::from_secs(600))],
            away: Some((Duration::from_secs(300), String::new())),
            lags: vec![("audit".to_owned(), Duration::from_secs(60))],
            ..seen()
        };
        assert_eq!(rules.broken(&quiet), []);
        let place = Place { topic: "mcp.calls".to_owned(), partition: 3 };
        let gap = |events| Gap { place: place.clone(), producer: "gw-1".to_owned(), events, offset: 9 };
        let loud = Seen {
            refusals: 51,
            in_doubt: 1,
            gaps: vec![gap(1), gap(2)],
            waiting: vec![("a1".to_owned(), Duration::from_secs(601)), ("a2".to_owned(), Duration::from_secs(5))],
            away: Some((Duration::from_secs(301), "HTTP status 503".to_owned())),
            lags: vec![("audit".to_owned(), Duration::from_secs(61)), ("context".to_owned(), Duration::ZERO)],
            now: at(0),
        };
        let raised = rules.broken(&loud);
        let names: Vec<(&str, &str)> = raised.iter().map(|one| (one.alert, one.about.as_str())).collect();
        let expected = [
            ("refusals", "calls"),
            ("in_doubt", "calls"),
            ("consumer_lag", "audit"),
            ("trail_gap", "mcp.calls/3"),
            ("approval_waiting", "a1"),
            ("collector_away", "collector"),
        ];
        assert_eq!(names, expected);
        assert!(raised[3].found.starts_with("3 events of gw-1 are missing"), "{:?}", raised[3]);
        let off = Rules {
            refusals_max: None,
            in_doubt_max: None,
            consumer_lag_max: None,
            missing_max: None,
            approval_wait_max: None,
            collector_away_max: None,
            ..rules
        };
        assert_eq!(off.broken(&loud), []);
    }

    #[test]
    fn an_alert_is_raised_once_for_as_long_as_it_holds() {
        let alert = Alert { alert: "in_doubt", about: "calls".to_owned(), found: "1 call".to_owned() };
        let holds = [alert.clone()];
        let mut episodes = Episodes::default();
        assert!(episodes.hold(&holds, at(0)));
        let (id, _) = episodes.due(&holds)[0].clone();
        // The recording fails, or this process is killed in it: the same event is tried again.
        assert!(!episodes.hold(&holds, at(1)));
        let text = serde_json::to_string(&episodes).expect("JSON");
        let mut episodes: Episodes = serde_json::from_str(&text).expect("the same");
        assert_eq!(episodes.due(&holds)[0].0, id);
        episodes.recorded(&alert);
        assert_eq!(episodes.due(&holds), []);
        // Hours later another process goes on, and has not seen anything yet.
        let text = serde_json::to_string(&episodes).expect("JSON");
        let mut later: Episodes = serde_json::from_str(&text).expect("the same");
        later.go_on(at(9_000));
        assert!(!later.hold(&[], at(9_001)) && !later.hold(&holds, at(9_002)));
        assert_eq!(later.due(&holds), []);
        // It stops to hold for a moment, which ends nothing.
        assert!(!episodes.hold(&[], at(10)));
        assert!(!episodes.hold(&holds, at(50)));
        assert_eq!(episodes.due(&holds), []);
        // Then for longer, and comes again: another one.
        assert!(episodes.hold(&[], at(200)));
        assert!(episodes.hold(&holds, at(201)));
        assert_ne!(episodes.due(&holds)[0].0, id);
    }

    #[test]
    fn alerts_are_bounded() {
        let many: Vec<Alert> =
            (0..1_000).map(|n| Alert { alert: "consumer_lag", about: n.to_string(), found: String::new() }).collect();
        let mut episodes = Episodes::default();
        episodes.hold(&many, at(0));
        assert_eq!(episodes.due(&many).len(), EPISODES_MAX);
    }
}
