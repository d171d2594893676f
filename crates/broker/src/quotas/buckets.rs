//! What clients have used of their quotas: each fills by its rate up to what it gives in one window, and may fall below nothing;
//! then its client waits until that is made good. Called by the quotas alone.
//!
//! Bounded: one that is full says nothing and is forgotten first, then that which was not used for longest.

use std::{collections::HashMap, time::Duration};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// What a client that was quiet may send at once, in time at its rate.
pub(super) const WINDOW: Duration = Duration::from_secs(1);
/// The longest that a client is told to wait; what is then still owed comes with its next request.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Clients that are remembered.
const BUCKETS_MAX: usize = 10_000;

/// Who shares a quota, and of what: a digest, because clients choose the length of their names.
pub(super) type Key = [u8; 16];

pub(super) fn key(what: &str, user: Option<&str>, client_id: Option<&str>) -> Key {
    let mut digest = Sha256::new();
    for part in [Some(what), user, client_id] {
        let part = part.map(str::as_bytes);
        digest.update(part.map_or(u64::MAX, |part| part.len() as u64).to_be_bytes());
        digest.update(part.unwrap_or_default());
    }
    digest.finalize()[..16].try_into().expect("a digest is longer")
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    bytes: f64,
    rate: f64,
    at: Instant,
}

impl Bucket {
    /// As it is now.
    fn filled(self, now: Instant) -> Self {
        let grown = now.duration_since(self.at).as_secs_f64() * self.rate;
        Self { bytes: (self.bytes + grown).min(self.rate * WINDOW.as_secs_f64()), at: now, ..self }
    }

    fn is_full(self, now: Instant) -> bool {
        self.filled(now).bytes >= self.rate * WINDOW.as_secs_f64()
    }
}

#[derive(Debug, Default)]
pub(super) struct Buckets(HashMap<Key, Bucket>);

impl Buckets {
    /// Takes bytes out; how long the client waits.
    pub(super) fn take(&mut self, key: Key, rate: f64, bytes: usize, now: Instant) -> Duration {
        if self.0.len() >= BUCKETS_MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, bucket| !bucket.is_full(now));
            if self.0.len() >= BUCKETS_MAX {
                let oldest = self.0.iter().min_by_key(|(_, bucket)| bucket.at).map(|(key, _)| *key);
                oldest.map(|key| self.0.remove(&key));
            }
        }
        let full = Bucket { bytes: rate * WINDOW.as_secs_f64(), rate, at: now };
        let bucket = self.0.entry(key).or_insert(full);
        bucket.rate = rate;
        *bucket = bucket.filled(now);
        bucket.bytes -= bytes as f64;
        if bucket.bytes >= 0.0 {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64(-bucket.bytes / rate).unwrap_or(WAIT_MAX).min(WAIT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_a_client_gets_its_rate_and_no_more() {
        let (mut buckets, mut now) = (Buckets::default(), Instant::now());
        let began = now;
        let key = key("sent", None, Some("c"));
        for _ in 0..100 {
            now += buckets.take(key, 10_000.0, 5_000, now);
        }
        let seconds = now.duration_since(began).as_secs_f64();
        assert!((48.9..=49.1).contains(&seconds), "{seconds}: 500,000 bytes less those of one window");
        now += Duration::from_secs(3_600);
        assert_eq!(buckets.take(key, 10_000.0, 10_000, now), Duration::ZERO);
        assert_eq!(buckets.take(key, 10_000.0, 10_000, now), Duration::from_secs(1), "an hour gives one window");
        assert_eq!(buckets.take(key, 10_000.0, 10_000_000, now), WAIT_MAX);
        assert_eq!(buckets.take(key, 10_000.0, 0, now + WAIT_MAX), WAIT_MAX, "the rest is owed still");
    }

    #[test]
    fn clients_are_remembered_up_to_a_number_and_those_that_owe_for_longest() {
        let (mut buckets, now) = (Buckets::default(), Instant::now());
        let of = |n: usize| key("sent", None, Some(&n.to_string()));
        let owes = of(0);
        assert!(buckets.take(owes, 10.0, 1_000, now) > Duration::ZERO);
        for n in 1..BUCKETS_MAX + 10 {
            assert_eq!(buckets.take(of(n), 10.0, 10, now), Duration::ZERO);
        }
        assert!(buckets.0.len() <= BUCKETS_MAX);
        let later = now + Duration::from_secs(2);
        assert_eq!(buckets.take(of(BUCKETS_MAX * 2), 10.0, 1, later), Duration::ZERO);
        assert!(buckets.0.len() < 10, "who owes nothing is forgotten: {}", buckets.0.len());
    }
}
