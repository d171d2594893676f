//! Calls whose effect nobody knows: lost, cancelled, timed out, or left open by a crash. An identical call after one of them is marked
//! as its repeat, for policies and in its intent, because doing it again may be doing it twice.
//!
//! Identical is: the same caller, server, method and target, and the same bytes of arguments. Whoever repeats is never refused for that by
//! Cairn itself. Kept as digests under the caller's key; bounded, the oldest are forgotten; after a restart those are known that it
//! closed. Called where a call is decided on, armed and concluded, and by recovery.

use std::collections::{HashMap, VecDeque};

use cairn_contract::{Direction, Effect};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    Gateway,
    call::{Call, payload_of},
};

/// Calls that are remembered.
const CALLS_MAX: usize = 4_096;

/// The newest call of each kind whose effect nobody knows.
#[derive(Debug, Default)]
pub(crate) struct Repeats(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_key: HashMap<String, Uuid>,
    oldest_first: VecDeque<String>,
}

impl Repeats {
    /// Remembers a call, of which everything identical from now on is a repeat.
    fn remember(&self, key: String, call_id: Uuid) {
        let mut known = self.0.lock();
        if known.by_key.insert(key.clone(), call_id).is_none() {
            known.oldest_first.push_back(key);
        }
        if known.oldest_first.len() > CALLS_MAX
            && let Some(oldest) = known.oldest_first.pop_front()
        {
            known.by_key.remove(&oldest);
        }
    }

    fn is_empty(&self) -> bool {
        self.0.lock().by_key.is_empty()
    }

    fn of(&self, key: &str) -> Option<Uuid> {
        self.0.lock().by_key.get(key).copied()
    }
}

/// What is identical of identical calls. The digest of the arguments is the caller's own, so no two callers have a key in common.
fn key(server: &str, method: &str, target: &str, arguments: &str) -> String {
    [server, method, target, arguments].join("\n")
}

impl Gateway {
    /// The call that this one repeats, where the effect of an identical one is unknown.
    pub(crate) fn repeated_by(&self, call: &Call) -> Option<Uuid> {
        if self.repeats().is_empty() || call.direction != Direction::ToServer {
            return None;
        }
        self.repeats().of(&self.repeat_key(call)).filter(|before| *before != call.call_id)
    }

    /// A call has ended, and perhaps nobody knows what it did.
    pub(crate) fn note_effect(&self, call: &Call, effect: Effect) {
        if effect == Effect::Unknown && call.direction == Direction::ToServer && call.is_strict() {
            self.repeats().remember(self.repeat_key(call), call.call_id);
        }
    }

    /// The same of a call that a predecessor left open, as far as the trail has its arguments' digest.
    pub(crate) fn note_left_open(&self, open: &cairn_backbone::OpenCall) {
        let (Some(server), Some(method)) = (&open.common.server, &open.common.mcp_method_name) else { return };
        let arguments = open.arguments_digest.as_deref().unwrap_or_default();
        self.repeats().remember(key(server, method, open.target.name().unwrap_or_default(), arguments), open.call_id);
    }

    fn repeat_key(&self, call: &Call) -> String {
        let arguments = payload_of(&call.message);
        let digest = arguments.map(|payload| self.payload_digest(&call.session.caller, &payload)).unwrap_or_default();
        key(&call.session.server.name, &call.method, call.shown.name().unwrap_or_default(), &digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_identical_calls_is_known_and_the_oldest_are_forgotten() {
        let repeats = Repeats::default();
        assert!(repeats.is_empty());
        for number in 0..=CALLS_MAX as u128 {
            repeats.remember(key("s", "tools/call", "t", &number.to_string()), Uuid::from_u128(number));
        }
        assert_eq!(repeats.of(&key("s", "tools/call", "t", "0")), None);
        assert_eq!(repeats.of(&key("s", "tools/call", "t", "1")), Some(Uuid::from_u128(1)));
        repeats.remember(key("s", "tools/call", "t", "1"), Uuid::from_u128(7));
        assert_eq!(repeats.of(&key("s", "tools/call", "t", "1")), Some(Uuid::from_u128(7)));
        assert_eq!(repeats.of(&key("s", "tools/call", "other", "1")), None);
    }
}
