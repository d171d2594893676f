//! Which calls belong to one operation (step 3 of the life of a call): a retry that brings back the `requestState` of an
//! `input_required` result, whoever made the state. Bounded: past the bound the oldest are forgotten, and a retry of
//! theirs begins an operation of its own. States are secrets and are kept as keyed digests.

use std::collections::HashMap;

use cairn_contract::{Common, LinkedBy};
use cairn_mcp::Message;
use parking_lot::Mutex;

use crate::{Gateway, call::Call, recent::Recent, session::Session};

/// States that are remembered.
const STATES_MAX: usize = 4_096;

/// The state that a call brought was given to somebody else.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotGiven;

/// The operations that may go on.
#[derive(Debug)]
pub(crate) struct Operations(Mutex<Known>);

#[derive(Debug)]
struct Known {
    /// By each caller's state.
    by_state: Recent<Given>,
    /// How many callers were given a state, whoever they are.
    given: HashMap<String, usize>,
}

/// A round that ended with a state.
#[derive(Debug)]
struct Given {
    operation_id: String,
    round: u32,
    /// The state, whosever it is.
    anybodys: String,
}

impl Default for Operations {
    fn default() -> Self {
        Self(Mutex::new(Known { by_state: Recent::new(STATES_MAX), given: HashMap::new() }))
    }
}

impl Operations {
    /// Joins a call to the operation whose state it brings.
    ///
    /// # Errors
    /// Where the state is known, and was given to others only.
    pub(crate) fn join(
        &self,
        gateway: &Gateway,
        session: &Session,
        message: &Message,
        common: &mut Common,
    ) -> Result<(), NotGiven> {
        let Some(state) = message.request_state_raw() else { return Ok(()) };
        let known = self.0.lock();
        if let Some(Given { operation_id, round, .. }) = known.by_state.get(&digest(gateway, session, &state)) {
            common.operation_id = Some(operation_id.clone());
            common.round = Some(round.saturating_add(1));
            common.linked_by = Some(LinkedBy::RequestState);
            return Ok(());
        }
        if known.given.contains_key(&anybodys(gateway, session, &state)) { Err(NotGiven) } else { Ok(()) }
    }

    /// A call ended with `input_required`: it is a round of an operation, the first one of its own where it is of none.
    pub(crate) fn goes_on(&self, gateway: &Gateway, call: &mut Call, answer: &Message) {
        let operation_id = call.common.operation_id.get_or_insert_with(|| call.call_id.to_string()).clone();
        let round = *call.common.round.get_or_insert(1);
        let Some(state) = answer.request_state_raw() else { return };
        let digest = digest(gateway, &call.session, &state);
        let anybodys = anybodys(gateway, &call.session, &state);
        let mut known = self.0.lock();
        if known.by_state.get(&digest).is_none() {
            *known.given.entry(anybodys.clone()).or_default() += 1;
        }
        if let Some((_, Given { anybodys, .. })) = known.by_state.put(digest, Given { operation_id, round, anybodys })
            && let Some(left) = known.given.get_mut(&anybodys)
        {
            *left -= 1;
            if *left == 0 {
                known.given.remove(&anybodys);
            }
        }
    }
}

/// A state means the same only to the same caller at the same server.
fn digest(gateway: &Gateway, session: &Session, state: &[u8]) -> String {
    let whose = [&session.caller.text(), &session.server.name].map(String::as_str).join("\n");
    gateway.keys().secret.digest(&[whose.as_bytes(), b"\n", &meant(state)].concat())
}

/// What a state says, however it is written: a client may escape other characters than its server did.
fn meant(state: &[u8]) -> Vec<u8> {
    serde_json::from_slice::<String>(state).map_or_else(|_| state.to_vec(), String::into_bytes)
}

fn anybodys(gateway: &Gateway, session: &Session, state: &[u8]) -> String {
    gateway.keys().secret.digest(&[b"anybody\n", session.server.name.as_bytes(), b"\n", &meant(state)].concat())
}
