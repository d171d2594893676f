//! Chance: identifiers, jitter and keys. Seeded in a simulation, the operating system's otherwise.

use std::{fmt, sync::Arc, sync::Mutex};

use rand::{RngCore, SeedableRng, rngs::StdRng};
use uuid::Uuid;

use crate::Timestamp;

/// A source of random bytes, cheap to clone; clones of a seeded source share one sequence.
#[derive(Clone)]
pub struct Entropy(Source);

#[derive(Clone)]
enum Source {
    System,
    Seeded(Arc<Mutex<StdRng>>),
}

impl Entropy {
    /// The operating system's random numbers: fit for keys.
    #[must_use]
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A sequence that the seed alone decides: fit for simulations, never for keys.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Source::Seeded(Arc::new(Mutex::new(StdRng::seed_from_u64(seed)))))
    }

    /// Fills `into` with random bytes.
    #[allow(clippy::disallowed_methods)] // the one place
    pub fn fill(&self, into: &mut [u8]) {
        match &self.0 {
            Source::System => rand::rngs::OsRng
                .try_fill(into)
                .expect("the operating system gives random bytes, or nothing on this machine is safe"),
            Source::Seeded(rng) => rng.lock().expect("no holder of this lock can panic").fill_bytes(into),
        }
    }

    /// Sixty-four random bits.
    #[must_use]
    pub fn next_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A UUID of version 7 (RFC 9562): the milliseconds of `now`, then chance.
    #[must_use]
    pub fn uuid_v7(&self, now: Timestamp) -> Uuid {
        let mut random = [0; 10];
        self.fill(&mut random);
        uuid::Builder::from_unix_timestamp_millis(now.as_micros() / 1_000, &random).into_uuid()
    }
}

trait TryFill {
    fn try_fill(self, into: &mut [u8]) -> Result<(), rand::rand_core::OsError>;
}

impl TryFill for rand::rngs::OsRng {
    fn try_fill(mut self, into: &mut [u8]) -> Result<(), rand::rand_core::OsError> {
        use rand::TryRngCore;
        self.try_fill_bytes(into)
    }
}

impl fmt::Debug for Entropy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Entropy::System",
            Source::Seeded(_) => "Entropy::Seeded",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_sequence() {
        let (a, b) = (Entropy::seeded(7), Entropy::seeded(7));
        assert_eq!([a.next_u64(), a.next_u64()], [b.next_u64(), b.next_u64()]);
    }

    #[test]
    fn identifiers_sort_by_time() {
        let entropy = Entropy::system();
        let early = entropy.uuid_v7(Timestamp::from_micros(1_000_000));
        let late = entropy.uuid_v7(Timestamp::from_micros(2_000_000));
        assert!(early < late);
        assert_eq!(early.get_version_num(), 7);
    }
}
