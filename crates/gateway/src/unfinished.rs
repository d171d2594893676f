//! How many calls of each caller are under way, over all sessions and servers: a fact that policies may look at.
//!
//! A call is counted from its admission until its answer begins. Bounded by the calls that may be in flight: a
//! caller without any is forgotten.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use crate::{metrics::Metrics, session::Caller};

/// Counts by caller. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unfinished(Arc<Mutex<HashMap<Caller, u64>>>);

/// One call that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted {
    caller: Caller,
    all: Unfinished,
}

impl Unfinished {
    /// Counts one more.
    pub(crate) fn count(&self, caller: &Caller) -> Counted {
        *self.0.lock().entry(caller.clone()).or_default() += 1;
        Counted { caller: caller.clone(), all: self.clone() }
    }

    /// How many are counted.
    pub(crate) fn of(&self, caller: &Caller) -> u64 {
        self.0.lock().get(caller).copied().unwrap_or_default()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.all.0.lock();
        if let Some(count) = all.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.caller);
            }
        }
    }
}

/// The places that a call occupies; given back when dropped.
#[derive(Debug)]
pub(crate) struct Places {
    _of_client: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
    counted: Option<Counted>,
    metrics: Metrics,
}

impl Places {
    pub(crate) fn new(
        of_client: OwnedSemaphorePermit,
        of_all: OwnedSemaphorePermit,
        counted: Counted,
        metrics: &Metrics,
    ) -> Self {
        metrics.calls_in_flight.inc();
        Self { _of_client: of_client, _of_all: of_all, counted: Some(counted), metrics: metrics.clone() }
    }

    /// The call has ended; what is left of it is its answer, which takes up room until the client has read it.
    pub(crate) fn ended(&mut self) {
        self.counted = None;
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        self.metrics.calls_in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_ended_is_not_counted_and_leaves_nothing() {
        let all = Unfinished::default();
        let caller = |name: &str| Caller::from(&cairn_identity::Identity::local(name));
        let (first, second) = (all.count(&caller("a")), all.count(&caller("a")));
        let other = all.count(&caller("b"));
        assert_eq!((all.of(&caller("a")), all.of(&caller("b")), all.of(&caller("c"))), (2, 1, 0));
        drop(first);
        drop(other);
        assert_eq!((all.of(&caller("a")), all.of(&caller("b"))), (1, 0));
        drop(second);
        assert!(all.0.lock().is_empty());
    }
}
