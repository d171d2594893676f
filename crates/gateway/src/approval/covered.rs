//! Operations that somebody has approved: the rounds that follow need no approval of their own, as long as they ask for
//! the same. One round at a time, and none when the operation has ended: whoever repeats a round asks anew. Bounded: past
//! the bound the oldest are forgotten. A restart forgets all.

use parking_lot::Mutex;

use crate::{call::Call, recent::Recent};

/// Operations that are remembered.
const COVERED_MAX: usize = 1_024;

/// What has been approved, by operation.
#[derive(Debug)]
pub(crate) struct Covered(Mutex<Recent<String>>);

impl Default for Covered {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(COVERED_MAX)))
    }
}

impl Covered {
    /// Takes the cover of a call's operation, where it was approved for the same; `cover` is the binding without what a
    /// round may change.
    pub(super) fn take(&self, call: &Call, cover: &str) -> bool {
        let Some(operation) = &call.common.operation_id else { return false };
        let mut known = self.0.lock();
        let fits = known.get(operation).is_some_and(|known| known == cover);
        if fits {
            known.take(operation);
        }
        fits
    }

    /// The operation of an approved call goes on with another round.
    pub(crate) fn goes_on(&self, call: &mut Call) {
        let Some(cover) = call.cover.take() else { return };
        let operation = call.common.operation_id.clone().unwrap_or_else(|| call.call_id.to_string());
        self.0.lock().put(operation, cover);
    }
}
