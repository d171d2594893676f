//! Chance: identifiers, jitter and keys. Seeded in a simulation, the operating system's otherwise.

use std::{
    cell::RefCell,
    fmt,
    sync::{Arc, Mutex},
};

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
            Source::System if into.len() <= SMALL_BYTES => POOL.with_borrow_mut(|pool| pool.take(into)),
            Source::System => from_system(into),
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

/// The most that is taken from the pool at once; more comes from the operating system directly.
const SMALL_BYTES: usize = 32;
/// Bytes of one pool.
const POOL_BYTES: usize = 1024;

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; POOL_BYTES], left: 0 }) };
}

/// The operating system's random bytes, fetched ahead: an identifier should not cost a system call. What was given out
/// is erased here at once.
struct Pool {
    bytes: [u8; POOL_BYTES],
    left: usize,
}

impl Pool {
    fn take(&mut self, into: &mut [u8]) {
        if self.left < into.len() {
            from_system(&mut self.bytes);
            self.left = POOL_BYTES;
        }
        let from = &mut self.bytes[self.left - into.len()..self.left];
        into.copy_from_slice(from);
        from.fill(0);
        self.left -= into.len();
    }
}

fn from_system(into: &mut [u8]) {
    let filled = rand::rngs::OsRng.try_fill(into);
    filled.expect("the operating system gives random bytes, or nothing on this machine is safe");
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
    fn no_bytes_are_given_out_twice() {
        let entropy = Entropy::system();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            assert!(seen.insert(entropy.next_u64()), "64 random bits do not repeat");
        }
        let mut key = [0; 2 * SMALL_BYTES];
        entropy.fill(&mut key);
        assert!(key.windows(16).all(|window| window != [0; 16]), "no part of a key was left out");
    }

    #[test]
    fn the_pool_keeps_nothing_that_it_gave() {
        let mut pool = Pool { bytes: [0; POOL_BYTES], left: 0 };
        let mut taken = [0; 32];
        pool.take(&mut taken);
        assert_eq!(pool.bytes[POOL_BYTES - 32..], [0; 32]);
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
