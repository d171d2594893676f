//! Changes arguments where policies oblige to (`@rewrite`), between two decisions.
//!
//! Called by the step that decides. Only `params.arguments` of a `tools/call` is ever changed: ids, cursors, `_meta`,
//! progress tokens and `requestState` lie elsewhere. A call is changed once; what would have to be changed again and again
//! is refused. What is approved, recorded and forwarded from here on is the changed call.

use bytes::Bytes;
use cairn_contract::Rewritten;
use cairn_mcp::Message;
use cairn_policy::Permit;
use cairn_screen::Classes;

use crate::{Gateway, call::Call};

/// A call whose arguments policies had changed.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    /// What its events say.
    pub(crate) record: Rewritten,
    /// The request as the client sent it.
    pub(crate) original: Message,
}

/// Why a call cannot be changed as policies want it: which policies, and words that show nothing of it.
#[derive(Debug)]
pub(crate) struct Unchangeable {
    pub(crate) policies: Vec<String>,
    pub(crate) reason: String,
}

impl Gateway {
    /// The call as its permit wants it; nothing where it is so already.
    pub(crate) fn rewritten(&self, call: &Call, permit: &Permit) -> Result<Option<(Message, Changed)>, Unchangeable> {
        let Some(rewriting) = permit.rewriting().filter(|_| call.method == "tools/call") else { return Ok(None) };
        let refused = |reason: String| Unchangeable { policies: rewriting.policies(), reason };
        let arguments = call.message.arguments_raw().unwrap_or_else(|| Bytes::from_static(b"{}"));
        let redact = |value: &[u8]| self.keeping().screener.json(value, &Classes::new()).changed;
        let changed = rewriting.apply(&arguments, &redact).map_err(|fault| refused(fault.to_string()))?;
        let Some(changed) = changed else { return Ok(None) };
        if call.rewritten.is_some() {
            return Err(refused("what was rewritten would have to be rewritten again".to_owned()));
        }
        let record = Rewritten {
            policies: rewriting.policies(),
            original: self.payload_digest(&call.session.caller, &arguments),
            forwarded: self.payload_digest(&call.session.caller, &changed),
        };
        let edited = call.message.edit().set_param("arguments", changed).finish(self.wire_limits());
        let message = edited.map_err(|error| refused(error.to_string()))?;
        Ok(Some((message, Changed { record, original: call.message.clone() })))
    }

    /// From here on the call is the changed one.
    pub(crate) fn take_rewritten(&self, call: &mut Call, message: Message, changed: Changed) {
        call.message = message;
        call.rewritten = Some(changed);
        call.arguments_kept = false;
    }
}
