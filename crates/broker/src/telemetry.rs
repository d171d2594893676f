//! Metrics of clients (KIP-714): who is asked for what, and what each said last. Called by GetTelemetrySubscriptions and PushTelemetry,
//! and by who shows metrics.
//!
//! A client asks what is wanted of it and pushes that at its interval. What it said last is kept for as long as it goes on, and shown
//! beside the broker's own metrics; nothing is stored.
//!
//! It guarantees: clients, their points and the points of all are bounded; a push that comes too early, is too large, or answers
//! another subscription than the present one is refused. It must never wait.

mod otlp;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use regex::Regex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    batch::Compression,
    resources::{Given, INTERVAL, INTERVAL_MS, MATCH, METRICS, ResourceKind, Resources, TRAITS, patterns},
};

#[cfg(fuzzing)]
pub(crate) use otlp::read as read_pushed;
use otlp::{Point, Pushed};

/// Bytes of a push, packed as it comes; and unpacked.
pub(crate) const PUSH_BYTES_MAX: usize = 1 << 20;
pub(crate) const UNPACKED_BYTES_MAX: usize = 4 << 20;
/// Clients that are remembered, and points of all of them.
const CLIENTS_MAX: usize = 10_000;
const POINTS_MAX: usize = 50_000;
/// A client that was not heard of for so many intervals is gone.
const INTERVALS_MAX: u32 = 3;
/// What stands for all metrics.
const ALL: &str = "*";

/// What is known of a client, in the order of [`TRAITS`].
pub(crate) type Traits = [String; TRAITS.len()];

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TelemetryError {
    /// It has no id of its own, or said that it ends.
    Invalid,
    TooEarly,
    UnknownSubscription,
    Compression,
    TooLarge,
    /// What it pushed are no metrics.
    Unreadable,
}

/// What is wanted of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) id: i32,
    pub(crate) interval: Duration,
    /// Prefixes of names; `*` for all, none for nothing.
    pub(crate) metrics: Vec<String>,
}

/// One value that a client pushed.
#[derive(Debug, Clone, PartialEq)]
pub struct ClientPoint {
    /// The metric, as the client names it.
    pub metric: String,
    /// Which client it is.
    pub instance: Uuid,
    /// What it calls itself.
    pub client_id: String,
    /// Its program.
    pub software: String,
    /// What the client says the value is of.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
}

/// What clients said last.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ClientMetrics {
    /// Their values, by metric.
    pub points: Vec<ClientPoint>,
    /// Clients that pushed.
    pub clients: u64,
    /// Pushes that were taken, since the start.
    pub pushes: u64,
    /// Pushes that were refused.
    pub refused: u64,
    /// Values that were not taken: of a kind that is not shown, or too many.
    pub left_out: u64,
}

#[derive(Debug)]
struct Client {
    traits: Traits,
    wanted: Wanted,
    /// Which subscriptions that came from.
    of: Arc<Vec<Subscription>>,
    asked_at: Option<Instant>,
    pushed_at: Option<Instant>,
    is_ending: bool,
    /// Whether it was refused for what asking again mends.
    may_ask: bool,
    seen: Instant,
    points: Vec<Point>,
}

#[derive(Debug)]
struct Subscription {
    patterns: Vec<(usize, Regex)>,
    metrics: Vec<String>,
    interval_ms: u64,
}

impl Subscription {
    fn of(given: &Given) -> Option<Self> {
        // What cannot be read was refused when it was given.
        let patterns = patterns(given.0.get(MATCH).map_or("", String::as_str)).ok()?;
        let metrics = given.0.get(METRICS).map_or("", String::as_str);
        let metrics = metrics.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect();
        let interval_ms = given.0.get(INTERVAL).and_then(|ms| ms.parse().ok()).unwrap_or(INTERVAL_MS);
        Some(Self { patterns, metrics, interval_ms })
    }

    fn fits(&self, traits: &Traits) -> bool {
        self.patterns.iter().all(|(at, pattern)| pattern.is_match(&traits[*at]))
    }
}

#[derive(Debug, Default)]
struct Clients {
    known: HashMap<Uuid, Client>,
    points: usize,
    /// The subscriptions as they were last looked at, and what was made of them.
    given: Option<Arc<std::collections::BTreeMap<String, Given>>>,
    subscriptions: Arc<Vec<Subscription>>,
}

/// The clients of a broker.
#[derive(Debug, Default)]
pub(crate) struct Telemetry {
    clients: Mutex<Clients>,
    pushes: AtomicU64,
    refused: AtomicU64,
    left_out: AtomicU64,
}

impl Telemetry {
    /// What is wanted of a client that asks.
    pub(crate) fn ask(
        &self,
        resources: &Resources,
        (id, traits): (Uuid, Traits),
        now: Instant,
    ) -> Result<Wanted, TelemetryError> {
        let mut clients = self.clients.lock();
        let client = clients.client(resources, id, traits, now);
        let last = client.asked_at.max(client.pushed_at);
        let is_due = last.is_none_or(|last| now.duration_since(last) >= client.wanted.interval);
        if !is_due && !client.may_ask {
            return Err(TelemetryError::TooEarly);
        }
        (client.asked_at, client.may_ask, client.is_ending) = (Some(now), false, false);
        Ok(client.wanted.clone())
    }

    /// Takes in what a client pushed.
    pub(crate) fn push(
        &self,
        resources: &Resources,
        (id, traits): (Uuid, Traits),
        subscription: i32,
        ends: bool,
        (codec, packed): (i8, &[u8]),
        now: Instant,
    ) -> Result<(), TelemetryError> {
        let taken = self.checked(resources, (id, traits), subscription, ends, (codec, packed.len()), now);
        let taken = taken.and_then(|()| unpack(codec, packed));
        match &taken {
            Ok(pushed) => {
                self.pushes.fetch_add(1, Ordering::Relaxed);
                let over = self.clients.lock().keep(id, pushed);
                self.left_out.fetch_add(pushed.left_out + over, Ordering::Relaxed);
            }
            Err(_) => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
        }
        taken.map(|_| ())
    }

    fn checked(
        &self,
        resources: &Resources,
        (id, traits): (Uuid, Traits),
        subscription: i32,
        ends: bool,
        (codec, bytes): (i8, usize),
        now: Instant,
    ) -> Result<(), TelemetryError> {
        let mut clients = self.clients.lock();
        let client = clients.client(resources, id, traits, now);
        if client.is_ending {
            return Err(TelemetryError::Invalid);
        }
        // Once after it asked, and then at its interval; and once more when it ends.
        let is_due = client.pushed_at.is_none_or(|pushed| {
            client.asked_at.is_some_and(|asked| asked > pushed) || now.duration_since(pushed) >= client.wanted.interval
        });
        if !is_due && !ends {
            return Err(TelemetryError::TooEarly);
        }
        client.pushed_at = Some(now);
        client.is_ending = ends;
        if subscription != client.wanted.id {
            client.may_ask = true;
            return Err(TelemetryError::UnknownSubscription);
        }
        if compression(codec).is_none() {
            client.may_ask = true;
            return Err(TelemetryError::Compression);
        }
        if bytes > PUSH_BYTES_MAX { Err(TelemetryError::TooLarge) } else { Ok(()) }
    }

    /// What clients said last.
    pub(crate) fn metrics(&self, now: Instant) -> ClientMetrics {
        let mut clients = self.clients.lock();
        clients.forget(|client| client.is_gone(now));
        let mut metrics = ClientMetrics {
            pushes: self.pushes.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            left_out: self.left_out.load(Ordering::Relaxed),
            ..ClientMetrics::default()
        };
        for (id, client) in clients.known.iter().filter(|(_, client)| client.pushed_at.is_some()) {
            metrics.clients += 1;
            let [_, client_id, name, version, ..] = &client.traits;
            let points = client.points.iter().map(|point| ClientPoint {
                metric: point.name.clone(),
                instance: *id,
                client_id: client_id.clone(),
                software: format!("{name} {version}"),
                labels: point.labels.clone(),
                value: point.value,
            });
            metrics.points.extend(points);
        }
        drop(clients);
        metrics.points.sort_by(|one, other| (&one.metric, one.instance).cmp(&(&other.metric, other.instance)));
        metrics
    }
}

impl Client {
    fn is_gone(&self, now: Instant) -> bool {
        now.duration_since(self.seen) > self.wanted.interval * INTERVALS_MAX
    }
}

impl Clients {
    /// The client of that id, with what is wanted of it now.
    fn client(&mut self, resources: &Resources, id: Uuid, traits: Traits, now: Instant) -> &mut Client {
        let given = resources.all(ResourceKind::ClientMetrics);
        if self.given.as_ref().is_none_or(|known| !Arc::ptr_eq(known, &given)) {
            self.subscriptions = Arc::new(given.values().filter_map(Subscription::of).collect());
            self.given = Some(given);
        }
        if self.known.len() >= CLIENTS_MAX && !self.known.contains_key(&id) {
            self.forget(|client| client.is_gone(now));
            if self.known.len() >= CLIENTS_MAX {
                let oldest = self.known.iter().min_by_key(|(_, client)| client.seen).map(|(id, _)| *id);
                if let Some(gone) = oldest.and_then(|oldest| self.known.remove(&oldest)) {
                    self.points -= gone.points.len();
                }
            }
        }
        let of = Arc::clone(&self.subscriptions);
        let client = self.known.entry(id).or_insert_with(|| Client {
            wanted: wanted(&of, id, &traits),
            traits: traits.clone(),
            of: Arc::clone(&of),
            asked_at: None,
            pushed_at: None,
            is_ending: false,
            may_ask: false,
            seen: now,
            points: Vec::new(),
        });
        client.seen = now;
        // Another connection has another port: what is wanted goes by the one that the client came with first, as in Kafka.
        if !Arc::ptr_eq(&client.of, &of) {
            let before = std::mem::replace(&mut client.wanted, wanted(&of, id, &client.traits));
            client.may_ask |= before != client.wanted;
            client.of = of;
        }
        client
    }

    /// Keeps what a client pushed in the place of what it had pushed before; how much was too much.
    fn keep(&mut self, id: Uuid, pushed: &Pushed) -> u64 {
        let Some(client) = self.known.get_mut(&id) else { return 0 };
        let others = self.points - client.points.len();
        let room = POINTS_MAX.saturating_sub(others).min(pushed.points.len());
        client.points = pushed.points[..room].to_vec();
        self.points = others + room;
        (pushed.points.len() - room) as u64
    }

    fn forget(&mut self, is_gone: impl Fn(&Client) -> bool) {
        self.known.retain(|_, client| !is_gone(client));
        self.points = self.known.values().map(|client| client.points.len()).sum();
    }
}

/// What all subscriptions that fit a client want together.
fn wanted(subscriptions: &[Subscription], id: Uuid, traits: &Traits) -> Wanted {
    let mut metrics = BTreeSet::new();
    let mut interval_ms = None;
    for subscription in subscriptions.iter().filter(|subscription| subscription.fits(traits)) {
        metrics.extend(subscription.metrics.iter().cloned());
        interval_ms = interval_ms.into_iter().chain([subscription.interval_ms]).min();
    }
    if metrics.contains(ALL) {
        metrics = BTreeSet::from([ALL.to_owned()]);
    }
    let interval_ms = interval_ms.unwrap_or(INTERVAL_MS);
    let metrics: Vec<_> = metrics.into_iter().collect();
    // The same for the same, so that a client of before a restart goes on.
    let said = crc32c::crc32c(format!("{metrics:?} {interval_ms}").as_bytes()) ^ crc32c::crc32c(id.as_bytes());
    Wanted { id: said.cast_signed(), interval: Duration::from_millis(interval_ms), metrics }
}

fn compression(codec: i8) -> Option<Compression> {
    (0..=4).contains(&codec).then(|| Compression::from_attributes(codec.into()).ok()).flatten()
}

fn unpack(codec: i8, packed: &[u8]) -> Result<Pushed, TelemetryError> {
    let compression = compression(codec).ok_or(TelemetryError::Compression)?;
    let unpacked = compression.unpack(packed, UNPACKED_BYTES_MAX).map_err(|error| match error {
        crate::batch::BatchError::TooLarge { .. } => TelemetryError::TooLarge,
        _ => TelemetryError::Unreadable,
    })?;
    otlp::read(&unpacked).map_err(|_| TelemetryError::Unreadable)
}

#[cfg(test)]
mod tests;
