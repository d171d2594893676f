//! Calls whose effect nobody knows: lost, cancelled, timed out, or left open by a crash. An identical call after one of them is marked
//! as its repeat, for policies and in its intent, because doing it again may be doing it twice.
//!
//! Identical is: the same caller, server, method and target, and the same bytes of arguments. Whoever repeats is never refused for that by
//! Cairn itself. Kept as digests under the caller's key; bounded, the oldest are forgotten; after a restart those are known that it
//! closed. Called where a call is decided on, armed and concluded, and by recovery.

use std::collections::HashMap;

use cairn_contract::{Direction, Effect};
use parking_lot::Mutex;
use uuid::Uuid;

use crate::{
    Gateway,
    call::{Call, payload_of},
    recent::Recent,
};

/// Calls that are remembered.
const CALLS_MAX: usize = 4_096;

/// The newest of identical calls whose effect nobody knows.
#[derive(Debug)]
pub(crate) struct Repeats(Mutex<Known>);

#[derive(Debug)]
struct Known {
    /// By kind of call and digest of arguments.
    calls: Recent<Before>,
    /// How many there are of each kind: nothing is digested for calls of other kinds.
    kinds: HashMap<String, usize>,
}

/// A call that may be repeated.
#[derive(Debug)]
struct Before {
    call_id: Uuid,
    kind: String,
}

impl Default for Repeats {
    fn default() -> Self {
        Self(Mutex::new(Known { calls: Recent::new(CALLS_MAX), kinds: HashMap::new() }))
    }
}

impl Repeats {
    /// Remembers a call, of which everything identical from now on is a repeat. The digest of the arguments is the caller's own, so no two
    /// callers have one in common.
    fn remember(&self, kind: String, arguments: &str, call_id: Uuid) {
        let mut known = self.0.lock();
        let key = key(&kind, arguments);
        if known.calls.get(&key).is_none() {
            *known.kinds.entry(kind.clone()).or_default() += 1;
        }
        if let Some((_, Before { kind, .. })) = known.calls.put(key, Before { call_id, kind })
            && let Some(left) = known.kinds.get_mut(&kind)
        {
            *left -= 1;
            if *left == 0 {
                known.kinds.remove(&kind);
            }
        }
    }

    /// The call that one of that kind repeats.
    fn of(&self, kind: &str, arguments: impl FnOnce() -> String) -> Option<Uuid> {
        if !self.0.lock().kinds.contains_key(kind) {
            return None;
        }
        let key = key(kind, &arguments());
        self.0.lock().calls.get(&key).map(|before| before.call_id)
    }
}

fn key(kind: &str, arguments: &str) -> String {
    [kind, arguments].join("\n")
}

/// What is the same of identical calls besides caller and arguments.
fn kind_of(server: &str, method: &str, target: &str) -> String {
    [server, method, target].join("\n")
}

impl Gateway {
    /// The call that this one repeats, where the effect of an identical one is unknown.
    pub(crate) fn repeated_by(&self, call: &Call) -> Option<Uuid> {
        if call.direction != Direction::ToServer {
            return None;
        }
        let before = self.repeats().of(&kind_of_call(call), || self.arguments_digest(call));
        before.filter(|before| *before != call.call_id)
    }

    /// A call has ended, and perhaps nobody knows what it did.
    pub(crate) fn note_effect(&self, call: &Call, effect: Effect) {
        if effect == Effect::Unknown && call.direction == Direction::ToServer && call.is_strict() {
            self.repeats().remember(kind_of_call(call), &self.arguments_digest(call), call.call_id);
        }
    }

    /// The same of a call that a predecessor left open, as far as the trail has its arguments' digest.
    pub(crate) fn note_left_open(&self, open: &cairn_backbone::OpenCall) {
        let (Some(server), Some(method)) = (&open.common.server, &open.common.mcp_method_name) else { return };
        let kind = kind_of(server, method, open.target.name().unwrap_or_default());
        self.repeats().remember(kind, open.arguments_digest.as_deref().unwrap_or_default(), open.call_id);
    }

    /// As the call's events have it.
    fn arguments_digest(&self, call: &Call) -> String {
        let arguments = payload_of(&call.message);
        arguments.map(|payload| self.payload_digest(&call.session.caller, &payload)).unwrap_or_default()
    }
}

fn kind_of_call(call: &Call) -> String {
    kind_of(&call.session.server.name, &call.method, call.shown.name().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_identical_calls_is_known_and_the_oldest_are_forgotten() {
        let repeats = Repeats::default();
        let kind = || kind_of("s", "tools/call", "t");
        let of = |number: u128| repeats.of(&kind(), || number.to_string());
        for number in 0..=CALLS_MAX as u128 {
            repeats.remember(kind(), &number.to_string(), Uuid::from_u128(number));
        }
        assert_eq!((of(0), of(1)), (None, Some(Uuid::from_u128(1))));
        repeats.remember(kind(), "1", Uuid::from_u128(7));
        assert_eq!(of(1), Some(Uuid::from_u128(7)));
        let other = || -> String { panic!("nothing is digested for a tool of which all calls are known") };
        assert_eq!(repeats.of(&kind_of("s", "tools/call", "other"), other), None);
        // A kind of which the last is forgotten is no kind any more.
        repeats.remember(kind_of("s", "tools/call", "once"), "", Uuid::from_u128(8));
        (0..CALLS_MAX as u128 + 1).for_each(|number| repeats.remember(kind(), &format!("new {number}"), Uuid::nil()));
        assert_eq!(repeats.0.lock().kinds.keys().collect::<Vec<_>>(), [&kind()]);
    }
}
