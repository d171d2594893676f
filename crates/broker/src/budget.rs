//! A bound on the bytes in memory that peers cause: requests that are read or answered, answers that are written.
//! Called by the server and by Fetch.
//!
//! It guarantees: what is claimed never passes the bound; who waits for a share waits for a bounded time; a claim that
//! is dropped is free again. A claim counts bytes once though they may exist twice for a moment, while they are copied.

use std::{
    sync::{Arc, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

/// One permit of the semaphore.
const PERMIT_BYTES: usize = 1 << 10;

/// There is no room, and none came free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the broker holds as many bytes for its clients as it may: try again, or raise the limit")]
pub struct Overloaded;

/// The bytes that there are for one purpose; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    permits: Arc<Semaphore>,
    total: u32,
    wait: Duration,
    waited_us: Arc<AtomicU64>,
}

impl Budget {
    /// `bytes` in all; a claim waits no longer than `wait`.
    pub(crate) fn new(bytes: usize, wait: Duration) -> Self {
        let total = permits(bytes).max(1);
        Self { permits: Arc::new(Semaphore::new(total as usize)), total, wait, waited_us: Arc::default() }
    }

    /// An empty claim.
    pub(crate) fn claim(&self) -> Claim {
        Claim { budget: self.clone(), held: None, with: None }
    }

    /// How long peers have waited for a share, together, in microseconds.
    pub(crate) fn waited_us(&self) -> u64 {
        self.waited_us.load(Ordering::Relaxed)
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX).min(Semaphore::MAX_PERMITS as u32)
}

/// A share of a budget.
#[derive(Debug)]
pub(crate) struct Claim {
    budget: Budget,
    held: Option<OwnedSemaphorePermit>,
    /// A share of another budget that goes with it.
    with: Option<Box<Self>>,
}

impl Claim {
    fn permits(&self) -> u32 {
        self.held.as_ref().map_or(0, |held| u32::try_from(held.num_permits()).unwrap_or(u32::MAX))
    }

    /// Bytes that are claimed.
    pub(crate) fn bytes(&self) -> usize {
        self.permits() as usize * PERMIT_BYTES
    }

    /// Grows to cover `bytes`, or the whole budget where that is less. Waits for a bounded time. Safe to cancel.
    pub(crate) async fn cover(&mut self, bytes: usize) -> Result<(), Overloaded> {
        if self.try_cover(bytes) {
            return Ok(());
        }
        let more = permits(bytes).min(self.budget.total).saturating_sub(self.permits());
        let began = Instant::now();
        let granted = timeout(self.budget.wait, Arc::clone(&self.budget.permits).acquire_many_owned(more)).await;
        let waited_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.budget.waited_us.fetch_add(waited_us, Ordering::Relaxed);
        self.add(granted.map_err(|_| Overloaded)?.map_err(|_| Overloaded)?);
        Ok(())
    }

    /// Grows to cover `bytes` (or the whole budget) if there is room now.
    pub(crate) fn try_cover(&mut self, bytes: usize) -> bool {
        let more = permits(bytes).min(self.budget.total).saturating_sub(self.permits());
        if more == 0 {
            return true;
        }
        let granted = Arc::clone(&self.budget.permits).try_acquire_many_owned(more);
        granted.map(|granted| self.add(granted)).is_ok()
    }

    /// Hands over all that is held and keeps nothing.
    pub(crate) fn take(&mut self) -> Self {
        Self { budget: self.budget.clone(), held: self.held.take(), with: self.with.take() }
    }

    /// Keeps a share of another budget for as long as this one is kept.
    pub(crate) fn join(&mut self, other: Self) {
        self.with = Some(Box::new(other));
    }

    /// Gives back all but what `bytes` need.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let spare = self.permits().saturating_sub(permits(bytes));
        if let Some(held) = &mut self.held {
            drop(held.split(spare as usize));
        }
    }

    fn add(&mut self, granted: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(granted),
            None => self.held = Some(granted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_claimed_never_passes_the_bound_and_comes_back() {
        let budget = Budget::new(10 << 10, Duration::from_millis(20));
        let (mut one, mut two) = (budget.claim(), budget.claim());
        one.cover(6 << 10).await.expect("room");
        assert!(!two.try_cover(5 << 10));
        assert_eq!(two.cover(5 << 10).await, Err(Overloaded));
        assert_eq!((one.bytes(), two.bytes()), (6 << 10, 0));
        assert!(budget.waited_us() > 0);
        one.shrink(1);
        assert_eq!(one.bytes(), 1 << 10);
        two.cover(9 << 10).await.expect("room");
        drop(two);
        one.cover(1 << 30).await.expect("the whole budget stands for more than there is");
        assert_eq!(one.bytes(), 10 << 10);
    }

    #[tokio::test]
    async fn who_waits_gets_what_another_gives_back() {
        let budget = Budget::new(4 << 10, Duration::from_secs(60));
        let mut one = budget.claim();
        one.cover(4 << 10).await.expect("room");
        let mut two = budget.claim();
        let waiting = tokio::spawn(async move { two.cover(3 << 10).await });
        tokio::task::yield_now().await;
        drop(one);
        assert_eq!(waiting.await.expect("no panic"), Ok(()));
    }
}
