//! Calls at legacy servers that wait for a modern client's retry: found by Cairn's own sealed state, by nobody but the
//! principal that got it, for the same request, once, and for a bounded time. Bounded in number.

use std::collections::HashMap;

use cairn_clock::Entropy;
use cairn_mcp::bridge::{Bound, Seal, StateFault};
use parking_lot::Mutex;

use super::{Going, Talk, talk::lacks_answer};
use crate::{Gateway, Refusal, call::Call};

/// Calls that wait at once, of all clients.
const WAITING_MAX: usize = 256;

/// What waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    seal: Seal,
    talks: Mutex<HashMap<[u8; 16], Box<Talk>>>,
}

impl Waiting {
    pub(crate) fn new(entropy: &Entropy) -> Self {
        let mut key = [0; 32];
        entropy.fill(&mut key);
        Self { seal: Seal::new(&key), talks: Mutex::default() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.talks.lock().len() >= WAITING_MAX
    }

    pub(super) const fn limit(&self) -> usize {
        WAITING_MAX
    }

    /// Keeps a talk; gives its handle and the state for the client.
    pub(super) fn keep(&self, gateway: &Gateway, call: &Call, talk: Box<Talk>) -> ([u8; 16], String) {
        let mut handle = [0; 16];
        gateway.entropy().fill(&mut handle);
        let expires = gateway.clock().now().plus(gateway.limits().input_wait_max);
        let state = self.seal.close(handle, expires.as_micros() / 1_000, &bound(call));
        self.talks.lock().insert(handle, talk);
        (handle, state)
    }

    /// Takes a talk out; none where it was taken or ended.
    pub(super) fn take(&self, handle: &[u8; 16]) -> Option<Box<Talk>> {
        self.talks.lock().remove(handle)
    }

    /// Ends everything that waits.
    pub(crate) fn clear(&self) {
        let talks = std::mem::take(&mut *self.talks.lock());
        drop(talks);
    }
}

fn bound(call: &Call) -> Bound {
    let caller = &call.session.caller;
    Bound::new(&caller.text(), &call.session.server.name, &call.message)
}

impl Gateway {
    /// What a retry goes on with: the call that waits for it, and the answer that it brings. None for a call that is no
    /// retry of one that Cairn asked for.
    pub(crate) fn resumed(&self, call: &Call) -> Result<Option<Going>, Refusal> {
        let Some(state) = call.message.param_str("requestState") else { return Ok(None) };
        let refused = |fault: StateFault| Refusal::BadState { reason: fault.to_string() };
        let now_ms = self.clock().now().as_micros() / 1_000;
        let handle = self.waiting().seal.open(&state, now_ms, &bound(call)).map_err(refused)?;
        let mut talk = self.waiting().take(&handle).ok_or_else(|| refused(StateFault::Expired))?;
        let Some(response) = talk.response(&call.message) else {
            // It waits on: the client may yet send what is missing. Where its time ran out just now, nobody ends it later.
            self.waiting().talks.lock().insert(handle, talk);
            let is_late = self.waiting().talks.lock().get(&handle).is_some_and(|talk| talk.is_given_up());
            drop(is_late.then(|| self.waiting().take(&handle)));
            return Err(Refusal::BadState { reason: lacks_answer() });
        };
        talk.answered(&response);
        Ok(Some(Going::Resume(talk, response)))
    }
}
