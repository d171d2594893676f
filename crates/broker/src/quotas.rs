//! Client quotas: how many bytes a second a user or a client id may send and be sent, and for how long its requests may keep a core.
//! Called by the server and the request table, and by the requests that read and change quotas.
//!
//! They are records of the catalogue, one JSON object a record: key `quota/{"client-id":"c","user":null}` (null: everybody who has
//! none of their own), value `{"producer_byte_rate":1000.0}`, or nothing when the last value went.
//!
//! It guarantees: a change is durable before it counts; where nobody has a quota, nothing is looked up; what is remembered of
//! clients is bounded. It must never hold anything up: it says how long to wait, the connection does.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::{
    principal::Principal,
    topics::{Catalogue, CatalogueError},
};

mod buckets;

use buckets::{Buckets, WINDOW};

/// What a catalogue's record of a quota begins with.
pub(crate) const RECORD_PREFIX: &str = "quota/";
/// The kinds of name that a quota may be for.
pub(crate) const USER: &str = "user";
pub(crate) const CLIENT_ID: &str = "client-id";
/// What may be said of them: bytes a second, and how much of one core the handling of requests may take, in hundredths of it.
pub(crate) const SENT: &str = "producer_byte_rate";
pub(crate) const RECEIVED: &str = "consumer_byte_rate";
pub(crate) const REQUESTS: &str = "request_percentage";
/// Of a core's second, in nanoseconds, one hundredth.
const HUNDREDTH_NS: f64 = 1e7;
/// The longest that a client is told to wait for the time that its requests took: one window, as in Kafka.
const REQUESTS_WAIT_MAX: Duration = WINDOW;
/// Quotas that there may be.
const QUOTAS_MAX: usize = 10_000;

/// Whom a quota is for, by kind of name; no name stands for everybody who has no quota of their own.
pub(crate) type Entity = BTreeMap<String, Option<String>>;
/// What it says.
pub(crate) type Values = BTreeMap<String, f64>;

/// Why quotas cannot be changed or read back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuotaError {
    #[error("there are {QUOTAS_MAX} quotas already: remove some, or say it of everybody")]
    TooMany,
    #[error("record `{key}` of the catalogue is no quota: {source}")]
    Record { key: String, source: serde_json::Error },
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
}

/// The quotas of a broker.
#[derive(Debug)]
pub(crate) struct Quotas {
    table: RwLock<Arc<BTreeMap<Entity, Values>>>,
    buckets: Mutex<Buckets>,
    /// Held while a change is made durable, so that changes have one order.
    changing: tokio::sync::Mutex<()>,
    throttled_us: AtomicU64,
}

impl Quotas {
    /// Takes in what the catalogue has kept.
    pub(crate) fn open(kept: BTreeMap<String, Vec<u8>>) -> Result<Self, QuotaError> {
        let mut table = BTreeMap::new();
        for (key, value) in kept {
            let entity = serde_json::from_str(key.strip_prefix(RECORD_PREFIX).unwrap_or_default());
            let read = entity.and_then(|entity: Entity| Ok((entity, serde_json::from_slice(&value)?)));
            let (entity, values) = read.map_err(|source| QuotaError::Record { key, source })?;
            table.insert(entity, values);
        }
        let (table, buckets) = (RwLock::new(Arc::new(table)), Mutex::default());
        Ok(Self { table, buckets, changing: tokio::sync::Mutex::default(), throttled_us: AtomicU64::new(0) })
    }

    /// All there are.
    pub(crate) fn all(&self) -> Arc<BTreeMap<Entity, Values>> {
        self.table.read().clone()
    }

    /// Sets values and removes those without one; with `check_only` it says whether that could be.
    pub(crate) async fn change(
        &self,
        catalogue: &Catalogue,
        entity: Entity,
        changes: &[(String, Option<f64>)],
        check_only: bool,
    ) -> Result<(), QuotaError> {
        let _one_at_a_time = self.changing.lock().await;
        let mut table = BTreeMap::clone(&self.all());
        let mut values = table.remove(&entity).unwrap_or_default();
        for (name, value) in changes {
            match value {
                Some(value) => drop(values.insert(name.clone(), *value)),
                None => drop(values.remove(name)),
            }
        }
        if !values.is_empty() && table.len() >= QUOTAS_MAX {
            return Err(QuotaError::TooMany);
        }
        if check_only {
            return Ok(());
        }
        let json = |value: Result<Vec<u8>, _>| value.expect("texts and numbers are JSON");
        let key = String::from_utf8(json(serde_json::to_vec(&entity))).expect("JSON is UTF-8");
        let value = (!values.is_empty()).then(|| json(serde_json::to_vec(&values)));
        catalogue.record(vec![(format!("{RECORD_PREFIX}{key}"), value)]).await?;
        if !values.is_empty() {
            table.insert(entity, values);
        }
        *self.table.write() = Arc::new(table);
        Ok(())
    }

    /// Counts bytes that a client sent or is sent; how long it must wait before anything more is read of it.
    pub(crate) fn charge(&self, what: &'static str, who: &Principal, client_id: &str, bytes: usize) -> Duration {
        let Some((level, rate)) = self.rate(what, who, client_id) else { return Duration::ZERO };
        let key = level.key(what, who.name(), client_id);
        let wait = self.buckets.lock().take(key, rate, bytes, Instant::now());
        self.throttled_us.fetch_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        wait
    }

    /// Counts the time that the requests of a client took; how long it must wait before anything more is read of it.
    pub(crate) fn charge_time(&self, who: &Principal, client_id: &str, took: Duration) -> Duration {
        let Some((level, hundredths)) = self.rate(REQUESTS, who, client_id) else { return Duration::ZERO };
        let (key, rate) = (level.key(REQUESTS, who.name(), client_id), hundredths * HUNDREDTH_NS);
        let took = usize::try_from(took.as_nanos()).unwrap_or(usize::MAX);
        let wait = self.buckets.lock().take(key, rate, took, Instant::now()).min(REQUESTS_WAIT_MAX);
        self.throttled_us.fetch_add(u64::try_from(wait.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        wait
    }

    /// The most bytes that an answer to this client should have.
    pub(crate) fn answer_bytes_max(&self, who: &Principal, client_id: &str) -> usize {
        let rate = self.rate(RECEIVED, who, client_id);
        // A float too large for an integer becomes the greatest there is.
        rate.map_or(usize::MAX, |(_, rate)| (rate * WINDOW.as_secs_f64()).max(1.0) as usize)
    }

    /// How long clients were made to wait, together, in microseconds.
    pub(crate) fn throttled_us(&self) -> u64 {
        self.throttled_us.load(Ordering::Relaxed)
    }

    fn rate(&self, what: &str, who: &Principal, client_id: &str) -> Option<(Level, f64)> {
        if *who == Principal::Internal {
            return None;
        }
        let table = self.table.read();
        if table.is_empty() {
            return None;
        }
        let of = |level: &Level| table.get(&level.entity(who.name(), client_id))?.get(what).copied();
        LEVELS.iter().find_map(|level| Some((*level, of(level)?)))
    }
}

/// How closely a quota names a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Name,
    Default,
    Not,
}

/// Which quota of those that fit counts: the first of [`LEVELS`] that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Level {
    user: By,
    client_id: By,
}

const LEVELS: [Level; 8] = [
    Level { user: By::Name, client_id: By::Name },
    Level { user: By::Name, client_id: By::Default },
    Level { user: By::Name, client_id: By::Not },
    Level { user: By::Default, client_id: By::Name },
    Level { user: By::Default, client_id: By::Default },
    Level { user: By::Default, client_id: By::Not },
    Level { user: By::Not, client_id: By::Name },
    Level { user: By::Not, client_id: By::Default },
];

impl Level {
    fn entity(self, user: &str, client_id: &str) -> Entity {
        let part = |kind: &str, by, name: &str| match by {
            By::Name => Some((kind.to_owned(), Some(name.to_owned()))),
            By::Default => Some((kind.to_owned(), None)),
            By::Not => None,
        };
        [part(USER, self.user, user), part(CLIENT_ID, self.client_id, client_id)].into_iter().flatten().collect()
    }

    /// Who shares what the quota gives: all that the quota tells apart, those without one of their own each for themselves.
    fn key(self, what: &str, user: &str, client_id: &str) -> buckets::Key {
        let part = |by, name: &'_ str| if by == By::Not { None } else { Some(name.to_owned()) };
        buckets::key(what, part(self.user, user).as_deref(), part(self.client_id, client_id).as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom, and how much.
    type Rate<'a> = (&'a [(&'a str, Option<&'a str>)], f64);

    fn quotas(rates: &[Rate<'_>]) -> Quotas {
        let record = |(entity, rate): &Rate<'_>| {
            let entity = entity.iter().map(|(kind, name)| ((*kind).to_owned(), name.map(str::to_owned)));
            let key = serde_json::to_string(&entity.collect::<Entity>()).expect("JSON");
            (format!("{RECORD_PREFIX}{key}"), format!("{{\"{SENT}\":{rate}}}").into_bytes())
        };
        Quotas::open(rates.iter().map(record).collect()).expect("as they are kept")
    }

    #[test]
    fn the_closest_quota_counts() {
        let all: [Rate<'_>; 8] = [
            (&[(USER, Some("u")), (CLIENT_ID, Some("c"))], 1.0),
            (&[(USER, Some("u")), (CLIENT_ID, None)], 2.0),
            (&[(USER, Some("u"))], 3.0),
            (&[(USER, None), (CLIENT_ID, Some("c"))], 4.0),
            (&[(USER, None), (CLIENT_ID, None)], 5.0),
            (&[(USER, None)], 6.0),
            (&[(CLIENT_ID, Some("c"))], 7.0),
            (&[(CLIENT_ID, None)], 8.0),
        ];
        let who = Principal::User("u".to_owned());
        let rate = |quotas: &Quotas, who: &Principal, client| quotas.rate(SENT, who, client).map(|(_, rate)| rate);
        for from in 0..all.len() {
            assert_eq!(rate(&quotas(&all[from..]), &who, "c"), Some(all[from].1));
        }
        let all = quotas(&all);
        let other = Principal::User("other".to_owned());
        assert_eq!(
            (rate(&all, &who, "d"), rate(&all, &other, "c"), rate(&all, &other, "d")),
            (Some(2.0), Some(4.0), Some(5.0))
        );
        assert_eq!(rate(&all, &Principal::Internal, "c"), None, "Cairn itself has none");
        assert_eq!(all.rate(RECEIVED, &who, "c").map(|(_, rate)| rate), None, "of what is received nothing is said");
        let nobody = quotas(&[(&[(USER, Some("ANONYMOUS"))], 9.0)]);
        assert_eq!((rate(&nobody, &Principal::Anonymous, "c"), rate(&nobody, &who, "c")), (Some(9.0), None));
    }

    #[test]
    fn time_is_counted_in_hundredths_of_a_core() {
        let value = format!("{{\"{REQUESTS}\":10}}").into_bytes();
        let key = format!("{RECORD_PREFIX}{{\"client-id\":\"c\"}}");
        let quotas = Quotas::open([(key, value)].into()).expect("as they are kept");
        let charge = |client, ms| quotas.charge_time(&Principal::Anonymous, client, Duration::from_millis(ms));
        assert_eq!(charge("other", 1_000), Duration::ZERO);
        assert_eq!(charge("c", 90), Duration::ZERO, "of the 100 ms that one second gives");
        let waits = charge("c", 60);
        assert!((Duration::from_millis(400)..=Duration::from_millis(500)).contains(&waits), "{waits:?}");
        assert_eq!(charge("c", 10_000), REQUESTS_WAIT_MAX);
    }

    #[test]
    fn a_quota_of_everybody_is_each_ones_own_and_a_users_is_shared_by_its_clients() {
        let quotas = quotas(&[(&[(USER, Some("u"))], 1_000.0), (&[(CLIENT_ID, None)], 1_000.0)]);
        let (who, nobody) = (Principal::User("u".to_owned()), Principal::Anonymous);
        assert_eq!(quotas.charge(SENT, &who, "one", 1_000), Duration::ZERO);
        assert!(quotas.charge(SENT, &who, "two", 1_000) > Duration::from_millis(900));
        assert_eq!(quotas.charge(SENT, &nobody, "one", 1_000), Duration::ZERO);
        assert_eq!(quotas.charge(SENT, &nobody, "two", 1_000), Duration::ZERO);
        assert!(quotas.charge(SENT, &nobody, "two", 500) > Duration::from_millis(400));
        assert!(quotas.throttled_us() > 1_300_000);
        assert_eq!(quotas.answer_bytes_max(&who, "one"), usize::MAX);
    }
}
