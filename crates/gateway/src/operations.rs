//! Which calls belong to one operation (step 3 of the life of a call): a retry that brings back the `requestState` of an
//! `input_required` result, whoever made the state. Bounded: past the bound the oldest are forgotten, and a retry of
//! theirs begins an operation of its own. States are secrets and are kept as keyed digests.

use std::collections::{HashMap, VecDeque};

use cairn_contract::{Common, LinkedBy};
use cairn_mcp::Message;
use parking_lot::Mutex;

use crate::{Gateway, call::Call, session::Session};

/// States that are remembered.
const STATES_MAX: usize = 4_096;

/// The operations that may go on.
#[derive(Debug, Default)]
pub(crate) struct Operations(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    by_state: HashMap<String, (String, u32)>,
    oldest_first: VecDeque<String>,
}

impl Operations {
    /// Joins a call to the operation whose state it brings.
    pub(crate) fn join(&self, gateway: &Gateway, session: &Session, message: &Message, common: &mut Common) {
        let Some(state) = message.request_state_raw() else { return };
        let known = self.0.lock().by_state.get(&digest(gateway, session, &state)).cloned();
        if let Some((operation_id, round)) = known {
            common.operation_id = Some(operation_id);
            common.round = Some(round.saturating_add(1));
            common.linked_by = Some(LinkedBy::RequestState);
        }
    }

    /// A call ended with `input_required`: it is a round of an operation, the first one of its own where it is of none.
    pub(crate) fn goes_on(&self, gateway: &Gateway, call: &mut Call, answer: &Message) {
        let operation = call.common.operation_id.get_or_insert_with(|| call.call_id.to_string()).clone();
        let round = *call.common.round.get_or_insert(1);
        let Some(state) = answer.request_state_raw() else { return };
        let digest = digest(gateway, &call.session, &state);
        let mut known = self.0.lock();
        if known.oldest_first.len() >= STATES_MAX
            && let Some(oldest) = known.oldest_first.pop_front()
        {
            known.by_state.remove(&oldest);
        }
        if known.by_state.insert(digest.clone(), (operation, round)).is_none() {
            known.oldest_first.push_back(digest);
        }
    }
}

/// A state means the same only to the same principal at the same server.
fn digest(gateway: &Gateway, session: &Session, state: &[u8]) -> String {
    let caller = &session.caller;
    let whose = [caller.tenant.as_deref().unwrap_or_default(), &caller.principal, &session.server.name].join("\n");
    gateway.keys().secret.digest(&[whose.as_bytes(), b"\n", state].concat())
}
