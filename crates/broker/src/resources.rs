//! Configs of what is no topic: subscriptions to metrics of clients (KIP-714), groups (KIP-848), and brokers (KIP-226). Called by the
//! requests that read and change configs, by telemetry, and by the group coordinator.
//!
//! They are records of the catalogue, one JSON object a record: key `config/client-metrics/<name>`, `config/group/<name>` or
//! `config/broker/<id>` (no id is all brokers), value `{"interval.ms":"1000"}`, or nothing when the last value went.
//!
//! It guarantees: a change is durable before it counts; names, values and their number are bounded.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::RwLock;
use regex::{Regex, RegexBuilder};

use crate::{
    dynamic::{self, Defaults},
    group::{Pace, Paces},
    options::BrokerLimits,
    share,
    topics::{
        Catalogue, CatalogueError,
        configs::{Configured, Kind},
    },
};

/// What a catalogue's record of such a config begins with.
pub(crate) const RECORD_PREFIX: &str = "config/";
/// Resources of one kind that may have configs.
const RESOURCES_MAX: usize = 1_000;
/// The longest name of a resource, and the longest value.
const NAME_BYTES_MAX: usize = 255;
const VALUE_BYTES_MAX: usize = 4_096;
/// Bytes that an expression may take when it is compiled.
const EXPRESSION_BYTES_MAX: usize = 64 << 10;

pub(crate) const INTERVAL: &str = "interval.ms";
pub(crate) const METRICS: &str = "metrics";
pub(crate) const MATCH: &str = "match";
pub(crate) const SESSION: &str = "consumer.session.timeout.ms";
pub(crate) const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
pub(crate) const SHARE_RESET: &str = "share.auto.offset.reset";
pub(crate) const SHARE_HEARTBEAT: &str = "share.heartbeat.interval.ms";
pub(crate) const SHARE_ISOLATION: &str = "share.isolation.level";
pub(crate) const SHARE_LOCK: &str = "share.record.lock.duration.ms";
pub(crate) const SHARE_SESSION: &str = "share.session.timeout.ms";
/// What share groups may read: all, or what is committed.
const ISOLATIONS: [&str; 2] = ["read_committed", "read_uncommitted"];
/// How often clients push unless a subscription says otherwise, and what it may say, ms.
pub(crate) const INTERVAL_MS: u64 = 300_000;
const INTERVAL_MS_MIN: u64 = 100;
const INTERVAL_MS_MAX: u64 = 3_600_000;
/// What a subscription can tell clients by.
pub(crate) const TRAITS: [&str; 6] = [
    "client_instance_id",
    "client_id",
    "client_software_name",
    "client_software_version",
    "client_source_address",
    "client_source_port",
];

/// A kind of resource whose configs are kept here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResourceKind {
    ClientMetrics,
    Group,
    Broker,
}

impl ResourceKind {
    const ALL: [Self; 3] = [Self::ClientMetrics, Self::Group, Self::Broker];

    const fn record_prefix(self) -> &'static str {
        match self {
            Self::ClientMetrics => "config/client-metrics/",
            Self::Group => "config/group/",
            Self::Broker => "config/broker/",
        }
    }

    /// Names and types of its configs, with the default where that does not depend on the broker.
    pub(crate) const fn known(self) -> &'static [(&'static str, Kind, &'static str)] {
        match self {
            Self::ClientMetrics => {
                &[(INTERVAL, Kind::Int, "300000"), (MATCH, Kind::List, ""), (METRICS, Kind::List, "")]
            }
            Self::Group => &[
                (HEARTBEAT, Kind::Int, ""),
                (SESSION, Kind::Int, ""),
                (SHARE_RESET, Kind::Text, "latest"),
                (SHARE_HEARTBEAT, Kind::Int, ""),
                (SHARE_ISOLATION, Kind::Text, "read_uncommitted"),
                (SHARE_LOCK, Kind::Int, ""),
                (SHARE_SESSION, Kind::Int, ""),
            ],
            // Besides what topics have (`dynamic`).
            Self::Broker => dynamic::WITHOUT_EFFECT,
        }
    }
}

/// Why configs cannot be changed or read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResourceError {
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Request(String),
    #[error("there are {RESOURCES_MAX} resources of that kind with configs already: remove some")]
    TooMany,
    #[error("record `{key}` of the catalogue holds no configs: {source}")]
    Record { key: String, source: serde_json::Error },
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// What is given of one resource.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Given(pub(crate) BTreeMap<String, String>);

impl Configured for Given {
    fn given(&self) -> &BTreeMap<String, String> {
        &self.0
    }

    fn is_list(&self, name: &str) -> bool {
        [METRICS, MATCH].contains(&name) || dynamic::is_list(name)
    }

    fn value(&self, name: &str) -> &str {
        self.0.get(name).map_or_else(|| dynamic::default_of(name), String::as_str)
    }
}

pub(crate) type Table = Arc<BTreeMap<String, Given>>;

/// The configs of a broker's groups and subscriptions.
#[derive(Debug)]
pub(crate) struct Resources {
    subscriptions: RwLock<Table>,
    groups: RwLock<Table>,
    brokers: RwLock<Table>,
    /// What the coordinator sees of them.
    paces: Paces,
    /// Held while a change is made durable, so that changes have one order.
    changing: tokio::sync::Mutex<()>,
}

impl Resources {
    /// Takes in what the catalogue has kept.
    pub(crate) fn open(kept: BTreeMap<String, Vec<u8>>, paces: Paces) -> Result<Self, ResourceError> {
        let mut tables = [BTreeMap::new(), BTreeMap::new(), BTreeMap::new()];
        for (key, value) in kept {
            for (kind, table) in ResourceKind::ALL.into_iter().zip(&mut tables) {
                if let Some(name) = key.strip_prefix(kind.record_prefix()) {
                    let given = serde_json::from_slice(&value);
                    let given = given.map_err(|source| ResourceError::Record { key: key.clone(), source })?;
                    table.insert(name.to_owned(), Given(given));
                }
            }
        }
        let [subscriptions, groups, brokers] = tables;
        groups.iter().for_each(|(name, given)| paces.set(name, pace(given)));
        let [subscriptions, groups, brokers] =
            [subscriptions, groups, brokers].map(|table| RwLock::new(Arc::new(table)));
        Ok(Self { subscriptions, groups, brokers, paces, changing: tokio::sync::Mutex::default() })
    }

    fn table(&self, kind: ResourceKind) -> &RwLock<Table> {
        match kind {
            ResourceKind::ClientMetrics => &self.subscriptions,
            ResourceKind::Group => &self.groups,
            ResourceKind::Broker => &self.brokers,
        }
    }

    /// All that have configs, by name.
    pub(crate) fn all(&self, kind: ResourceKind) -> Table {
        self.table(kind).read().clone()
    }

    /// What is given of one; nothing, where nothing is.
    pub(crate) fn get(&self, kind: ResourceKind, name: &str) -> Given {
        self.table(kind).read().get(name).cloned().unwrap_or_default()
    }

    /// Changes what is given of one: `alter` is told what is, and says what shall be. With `check_only` it says whether that could be.
    pub(crate) async fn change(
        &self,
        catalogue: &Catalogue,
        limits: &BrokerLimits,
        (kind, name): (ResourceKind, &str),
        check_only: bool,
        alter: impl FnOnce(&dyn Configured) -> Result<BTreeMap<String, String>, String>,
    ) -> Result<(), ResourceError> {
        // No name is all brokers.
        if (name.is_empty() && kind != ResourceKind::Broker) || name.len() > NAME_BYTES_MAX {
            return Err(ResourceError::Request(format!("its name has 1 to {NAME_BYTES_MAX} bytes")));
        }
        let _one_at_a_time = self.changing.lock().await;
        let mut given = Given(alter(&self.get(kind, name)).map_err(ResourceError::Config)?);
        if kind == ResourceKind::Broker {
            given = Given(check_broker(given.0)?);
        } else {
            check(kind, &given, limits)?;
        }
        let mut table = BTreeMap::clone(&self.all(kind));
        if given.0.is_empty() {
            table.remove(name);
        } else if !table.contains_key(name) && table.len() >= RESOURCES_MAX {
            return Err(ResourceError::TooMany);
        } else {
            table.insert(name.to_owned(), given.clone());
        }
        if check_only {
            return Ok(());
        }
        let value = serde_json::to_vec(&given.0).expect("texts are JSON");
        let record = (format!("{}{name}", kind.record_prefix()), (!given.0.is_empty()).then_some(value));
        catalogue.record(vec![record]).await?;
        if kind == ResourceKind::Group {
            self.paces.set(name, pace(&given));
        }
        let table = Arc::new(table);
        *self.table(kind).write() = table.clone();
        if kind == ResourceKind::Broker {
            catalogue.tell(&table).await?;
        }
        Ok(())
    }
}

fn pace(given: &Given) -> Pace {
    let ms = |name| given.value(name).parse().ok();
    Pace { session_ms: ms(SESSION), interval_ms: ms(HEARTBEAT) }
}

/// The configs of brokers as they are kept.
fn check_broker(given: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ResourceError> {
    let checked = given.into_iter().map(|(name, value)| match dynamic::check(&name, &value) {
        Some(Ok(value)) => Ok((name, value)),
        Some(Err(why)) => Err(ResourceError::Config(why)),
        None => {
            let why = format!("config `{name}` of a broker is not changed while it runs: see its configuration file");
            Err(ResourceError::Request(why))
        }
    });
    checked.collect()
}

/// What the records of brokers' configs say for topics that do not say, seen from one broker. One that cannot be read says nothing here:
/// [`Resources::open`] tells of it.
pub(crate) fn defaults_kept(kept: &BTreeMap<String, Vec<u8>>, node: i32) -> Defaults {
    let of = |name: &str| {
        let record = kept.get(&format!("{}{name}", ResourceKind::Broker.record_prefix()));
        record.and_then(|record| serde_json::from_slice(record).ok()).unwrap_or_default()
    };
    dynamic::defaults(&of(""), &of(&node.to_string()))
}

/// Whether names and values are right; the error says which is not, and what would be.
fn check(kind: ResourceKind, given: &Given, limits: &BrokerLimits) -> Result<(), ResourceError> {
    let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    for (name, value) in &given.0 {
        if !kind.known().iter().any(|(known, ..)| known == name) {
            let names: Vec<_> = kind.known().iter().map(|(name, ..)| *name).collect();
            return Err(ResourceError::Request(format!("config `{name}` is unknown: there are {}", names.join(", "))));
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(ResourceError::Config(format!("config `{name}` has at most {VALUE_BYTES_MAX} bytes")));
        }
        let between = |least: u64, most: u64| {
            let right = value.parse::<u64>().is_ok_and(|value| (least..=most).contains(&value));
            let why = || format!("config `{name}` cannot be `{value}`: it is a number of ms from {least} to {most}");
            if right { Ok(()) } else { Err(why()) }
        };
        match name.as_str() {
            INTERVAL => between(INTERVAL_MS_MIN, INTERVAL_MS_MAX).map_err(ResourceError::Request)?,
            MATCH => drop(patterns(value).map_err(ResourceError::Config)?),
            SESSION | SHARE_SESSION => {
                let (least, most) = (limits.consumer_session_timeout_min, limits.consumer_session_timeout_max);
                between(ms(least), ms(most)).map_err(ResourceError::Config)?;
            }
            HEARTBEAT | SHARE_HEARTBEAT => {
                let (least, most) = (limits.consumer_heartbeat_interval_min, limits.consumer_heartbeat_interval_max);
                between(ms(least), ms(most)).map_err(ResourceError::Config)?;
            }
            SHARE_LOCK => {
                let (least, most) = (limits.share_record_lock_min, limits.share_record_lock_max);
                between(ms(least), ms(most)).map_err(ResourceError::Config)?;
            }
            SHARE_RESET => share::check_reset(value).map_err(ResourceError::Config)?,
            SHARE_ISOLATION if !ISOLATIONS.contains(&value.as_str()) => {
                let why = format!("config `{name}` cannot be `{value}`: it is one of {}", ISOLATIONS.join(", "));
                return Err(ResourceError::Config(why));
            }
            _ => {}
        }
    }
    if kind == ResourceKind::Group {
        for (session, interval) in [(SESSION, HEARTBEAT), (SHARE_SESSION, SHARE_HEARTBEAT)] {
            let own = |name, otherwise| given.value(name).parse().unwrap_or(ms(otherwise));
            if own(interval, limits.consumer_heartbeat_interval) >= own(session, limits.consumer_session_timeout) {
                return Err(ResourceError::Config(format!("`{interval}` must be less than `{session}`")));
            }
        }
    }
    Ok(())
}

/// What a subscription's `match` says: which trait of a client must be like what, the whole of it.
pub(crate) fn patterns(value: &str) -> Result<Vec<(usize, Regex)>, String> {
    let one = |item: &str| {
        let wrong = || {
            let traits = TRAITS.join(", ");
            format!("config `match` cannot have `{item}`: write TRAIT=EXPRESSION, where the trait is one of {traits}")
        };
        let (of, expression) = item.split_once('=').ok_or_else(wrong)?;
        let at = TRAITS.iter().position(|known| *known == of.trim()).ok_or_else(wrong)?;
        let whole = format!("^(?:{})$", expression.trim());
        let compiled = RegexBuilder::new(&whole).size_limit(EXPRESSION_BYTES_MAX).build().map_err(|_| wrong())?;
        Ok((at, compiled))
    };
    value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(kind: ResourceKind, pairs: &[(&str, &str)]) -> Result<(), String> {
        let given = Given(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect());
        check(kind, &given, &BrokerLimits::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_subscription_may_say_is_what_kafka_lets_it() {
        let kind = ResourceKind::ClientMetrics;
        let all = [(INTERVAL, "100"), (METRICS, "*"), (MATCH, "client_id=app-.*, client_software_name=librdkafka")];
        assert_eq!(checked(kind, &all), Ok(()));
        for (name, value) in [
            (INTERVAL, "99"),
            (INTERVAL, "3600001"),
            (INTERVAL, "soon"),
            (MATCH, "client_id"),
            (MATCH, "colour=red"),
            (MATCH, "client_id=("),
            (MATCH, "client_id=a{1000}{1000}"),
            ("retention.ms", "1"),
        ] {
            assert!(checked(kind, &[(name, value)]).is_err(), "{name} {value}");
        }
        let patterns = patterns("client_id=app").expect("right");
        assert!(patterns[0].1.is_match("app") && !patterns[0].1.is_match("apple"), "the whole of it");
    }

    #[test]
    fn a_group_is_heard_of_more_often_than_it_may_be_silent() {
        let kind = ResourceKind::Group;
        assert_eq!(checked(kind, &[(SESSION, "60000"), (HEARTBEAT, "15000")]), Ok(()));
        let share = [(SHARE_LOCK, "15000"), (SHARE_RESET, "by_duration:PT1H"), (SHARE_ISOLATION, "read_committed")];
        assert_eq!(checked(kind, &share), Ok(()));
        for (name, value) in
            [(SHARE_LOCK, "14999"), (SHARE_LOCK, "60001"), (SHARE_RESET, "none"), (SHARE_ISOLATION, "all")]
        {
            assert!(checked(kind, &[(name, value)]).is_err(), "{name} {value}");
        }
        for (name, value) in [(SESSION, "44999"), (SESSION, "60001"), (HEARTBEAT, "4999"), (HEARTBEAT, "15001")] {
            assert!(checked(kind, &[(name, value)]).is_err(), "{name} {value}");
        }
        let limits = BrokerLimits { consumer_session_timeout_min: Duration::ZERO, ..BrokerLimits::default() };
        let given = Given([(SESSION.to_owned(), "5000".to_owned())].into());
        assert!(check(kind, &given, &limits).is_err(), "5 s between heartbeats are too many");
    }
}
