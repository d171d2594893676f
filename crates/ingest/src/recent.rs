//! Which events were written of late: senders send again what they did not hear an answer to.
//!
//! A help and no guarantee: the id of an event follows from what it reports, so that readers count it once however often it is written.

use std::collections::{HashMap, VecDeque};

use parking_lot::Mutex;
use uuid::Uuid;

/// Events that are remembered; the oldest go first.
const REMEMBERED_MAX: usize = 65_536;

/// Events of late, each with the digest of what it says.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<Uuid, [u8; 32]>,
    oldest_first: VecDeque<Uuid>,
}

impl Recent {
    /// What the event of that id said, where it is remembered.
    pub(crate) fn of(&self, id: Uuid) -> Option<[u8; 32]> {
        self.0.lock().by_id.get(&id).copied()
    }

    /// Remembers an event; whether it was not known.
    pub(crate) fn remember(&self, id: Uuid, says: [u8; 32]) -> bool {
        let mut known = self.0.lock();
        if known.by_id.insert(id, says).is_some() {
            return false;
        }
        known.oldest_first.push_back(id);
        if known.oldest_first.len() > REMEMBERED_MAX
            && let Some(oldest) = known.oldest_first.pop_front()
        {
            known.by_id.remove(&oldest);
        }
        true
    }
}
