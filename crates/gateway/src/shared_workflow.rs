//! A workflow that all connections of one client process share, so that one task of an agent spans servers.
//!
//! The relay makes one for each client process and hands it to every pipe of that process. Each request asks for its id;
//! after [`SharedWorkflow::new`]'s idle time without a request the next one begins another workflow. Must never give two
//! client processes the same id.

use std::{sync::Arc, time::Duration};

use cairn_clock::{Clock, Entropy, Timestamp};
use parking_lot::Mutex;

/// A workflow for the connections of one client process. Cheap to clone; clones share it.
#[derive(Clone, Debug)]
pub struct SharedWorkflow {
    idle_max: Duration,
    current: Arc<Mutex<Option<Current>>>,
}

#[derive(Debug)]
struct Current {
    id: String,
    used: Timestamp,
}

impl SharedWorkflow {
    /// A workflow that ends after `idle_max` without a request.
    #[must_use]
    pub fn new(idle_max: Duration) -> Self {
        Self { idle_max, current: Arc::default() }
    }

    /// Whether nothing holds it but the caller, and it has been idle for too long to be taken up again.
    #[must_use]
    pub fn is_over(&self, clock: &Clock) -> bool {
        let is_idle = |current: &Current| clock.now().since(current.used) >= self.idle_max;
        Arc::strong_count(&self.current) == 1 && self.current.lock().as_ref().is_none_or(is_idle)
    }

    /// The id for what happens now. A request counts as use; anything else belongs to the workflow that was there.
    pub(crate) fn id(&self, is_request: bool, clock: &Clock, entropy: &Entropy) -> String {
        let now = clock.now();
        let mut current = self.current.lock();
        let lasts = |current: &Current| !is_request || now.since(current.used) < self.idle_max;
        match current.as_mut().filter(|current| lasts(current)) {
            Some(current) => {
                if is_request {
                    current.used = now;
                }
                current.id.clone()
            }
            None => {
                let id = format!("wrap-{}", entropy.uuid_v7(now));
                *current = Some(Current { id: id.clone(), used: now });
                id
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(1_800);

    #[test]
    fn a_workflow_lasts_while_requests_come_and_ends_after_the_idle_time() {
        let (clock, entropy) = (Clock::manual(Timestamp::from_micros(1)), Entropy::seeded(1));
        let one = SharedWorkflow::new(IDLE);
        let other_server = one.clone();
        let id = one.id(true, &clock, &entropy);
        for _ in 0..3 {
            clock.advance(IDLE - Duration::from_secs(1));
            assert_eq!(other_server.id(true, &clock, &entropy), id, "each request counts as use, by any connection");
        }
        clock.advance(IDLE);
        assert_eq!(one.id(false, &clock, &entropy), id, "what is no request begins no workflow");
        assert_ne!(one.id(true, &clock, &entropy), id);
    }

    #[test]
    fn it_is_over_only_when_no_connection_holds_it_and_it_is_idle() {
        let (clock, entropy) = (Clock::manual(Timestamp::from_micros(1)), Entropy::seeded(1));
        let kept = SharedWorkflow::new(IDLE);
        let pipe = kept.clone();
        pipe.id(true, &clock, &entropy);
        clock.advance(IDLE);
        assert!(!kept.is_over(&clock));
        drop(pipe);
        assert!(kept.is_over(&clock));
    }
}
