//! What joins to a call what others report of it: the handle that its server gets, and the workflow that a trace belongs to.
//!
//! Agents report model calls under a trace id, servers what they did under the handle in `_meta["io.cairn/call"]`. Neither is trusted to say
//! whose call it was: that is the sender's identity for the one, and sealed in the handle for the other. Handles go only to servers whose
//! configuration wants them, because a message is otherwise sent on byte for byte.

use std::fmt;

use cairn_contract::{Common, Direction, Target};
use cairn_identity::{Identity, Rejection};
use cairn_mcp::{EditError, Message};
use parking_lot::Mutex;

use crate::{
    Gateway,
    call::Call,
    recent::Recent,
    session::{Caller, Session},
};

/// Where a server finds the handle of a call.
const META: &str = "io.cairn/call";
/// Traces of named workflows that are remembered; the oldest go first.
const TRACES_MAX: usize = 16_384;

/// Makes handles.
pub trait HandsCalls: Send + Sync + fmt::Debug {
    /// The handle of a call whose events share `common`, to that target as it stands in events.
    fn handle(&self, common: &Common, target: &Target) -> String;
}

/// Which workflow a trace is of, where the client gave it another id than the trace's.
#[derive(Debug)]
pub(crate) struct Traces(Mutex<Recent<String>>);

impl Default for Traces {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(TRACES_MAX)))
    }
}

impl Traces {
    fn remember(&self, key: String, workflow_id: &str) {
        self.0.lock().put(key, workflow_id.to_owned());
    }

    fn of(&self, key: &str) -> Option<String> {
        self.0.lock().get(key).cloned()
    }
}

/// A caller's trace: nobody else's has the same key.
fn key(caller: &Caller, trace_id: &str) -> String {
    format!("{trace_id} {}", caller.text())
}

impl Gateway {
    /// Remembers which workflow a call's trace is of.
    pub(crate) fn join_trace(&self, session: &Session, common: &Common) {
        if let Some(trace_id) = common.trace_id.as_deref().filter(|trace_id| *trace_id != common.workflow_id) {
            self.traces().remember(key(&session.caller, trace_id), &common.workflow_id);
        }
    }

    /// The workflow that calls of that sender's with that trace id were given, where it is another than the trace's own.
    #[must_use]
    pub fn workflow_of_trace(&self, who: &Identity, trace_id: &str) -> Option<String> {
        self.traces().of(&key(&Caller::from(who), trace_id))
    }

    /// Counts and records that somebody was not let in at another address of this process, named as its resource is.
    pub fn note_refused_at(&self, resource: &str, rejection: &Rejection, peer: std::net::IpAddr) {
        self.note_refusal(rejection, resource, Some(peer));
    }

    /// A message as its server gets it: with the call's handle where the server wants one.
    pub(crate) fn with_handle(&self, call: &Call, message: Message) -> Result<Message, EditError> {
        let wanted =
            call.session.server.reports && call.direction == Direction::ToServer && call.method == "tools/call";
        match self.hands_calls().filter(|_| wanted) {
            Some(hands) => {
                let handle = hands.handle(&call.common, &call.shown);
                message.edit().set_meta_str(META, &handle).finish(self.wire_limits())
            }
            None => Ok(message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_joined_for_whoever_called_in_it_and_nobody_else() {
        let traces = Traces::default();
        let ann = Identity::local("ann");
        let of = |who: &Identity| traces.of(&key(&Caller::from(who), "4bf9"));
        traces.remember(key(&Caller::from(&ann), "4bf9"), "refund-4711");
        assert_eq!(of(&ann).as_deref(), Some("refund-4711"));
        assert_eq!(of(&Identity::local("ben")), None);
        assert_eq!(of(&Identity { tenant: Some("acme".into()), ..ann }), None);
    }
}
