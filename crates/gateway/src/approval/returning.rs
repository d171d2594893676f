//! How a client comes back to an approval that it was told of: with Cairn's own request state or retry token, or by simply
//! calling again.
//!
//! A state is `cairn-approval.<key id>.<sealed>`: who gave it, and a handle that only the caller who got it can use, for
//! the request that it was given for. It is taken out before anything else looks at the call, and what the server and the
//! client had said to each other before is put back, byte for byte. A state of another Cairn is the server's own.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use cairn_approvals::{Approval, Ended, Status};
use cairn_contract::{ApprovalState, DigestKey, LinkedBy, Outcome};
use cairn_identity::Reason;
use cairn_mcp::{
    Frame, Message,
    bridge::{Bound, Seal, StateFault},
};
use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    NotNow,
    asking::{About, Wish, raw},
    ways::QUESTION,
};
use crate::{Gateway, Refusal, call::Call, pump::pass, recent::Recent, session::Session};

/// What begins every state.
const PREFIX: &str = "cairn-approval.";
/// Where a retry may bring the token of an error.
const META: &str = "io.cairn/approval";
/// How long a state may still be used when its approval is over, to hear that it is.
const GRACE: Duration = Duration::from_secs(3_600);
/// Clients that are to hear when their user's part is done.
const REMEMBERED_MAX: usize = 1_024;

/// A client that came back.
#[derive(Clone, Debug)]
pub(crate) struct Back {
    /// To which approval.
    id: String,
    /// Whether its user wants nothing of it.
    declined: bool,
    operation_id: Option<String>,
    round: Option<u32>,
}

/// Seals states, and remembers who is to hear of a yes.
#[derive(Debug)]
pub(crate) struct Returning {
    seal: Seal,
    prefix: String,
    sessions: Mutex<Recent<Weak<Session>>>,
}

impl Returning {
    /// States that hold over restarts: their key is derived from one that does.
    pub(crate) fn new(secret: &DigestKey) -> Self {
        use sha2::Digest as _;
        let derived = secret.digest(b"the seal of approvals' request states");
        let key: [u8; 32] = sha2::Sha256::digest(derived.as_bytes()).into();
        let sessions = Mutex::new(Recent::new(REMEMBERED_MAX));
        Self { seal: Seal::new(&key), prefix: format!("{PREFIX}{}.", secret.id()), sessions }
    }

    /// The state for a client that will come back with this call.
    pub(super) fn state(&self, call: &Call, approval: &Approval) -> String {
        let handle =
            approval.request.id.strip_prefix("ap-").and_then(|id| Uuid::parse_str(id).ok()).unwrap_or_default();
        let expires = approval.request.expires_at.plus(GRACE);
        let bound = Bound::new(&call.session.caller.text(), &call.session.server.name, &call.message);
        let sealed = self.seal.close(*handle.as_bytes(), expires.as_micros() / 1_000, &bound);
        let wraps = if call.message.request_state_raw().is_some() { "w" } else { "p" };
        format!("{}{sealed}{wraps}", self.prefix)
    }

    /// Remembers whom to tell when people have said yes.
    pub(super) fn remember(&self, id: &str, session: &Arc<Session>) {
        self.sessions.lock().put(id.to_owned(), Arc::downgrade(session));
    }

    fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.sessions.lock().take(id)?.upgrade()
    }
}

impl Gateway {
    /// Takes Cairn's own state out of a request that brings one; the request is then as it was when the state was given.
    ///
    /// # Errors
    /// Where the state was not given for this request, or cannot be gone on from.
    #[allow(clippy::result_large_err, reason = "the message goes back to whoever must answer it, once")]
    pub(crate) fn come_back(
        &self,
        session: &Arc<Session>,
        message: Message,
    ) -> Result<(Message, Option<Back>), (Message, Refusal)> {
        let prefix = &self.returning().prefix;
        let own = |text: String| text.strip_prefix(prefix).map(ToOwned::to_owned);
        let in_state = message.param_str("requestState").and_then(own);
        let Some(state) = in_state.clone().or_else(|| message.meta_str(META).and_then(own)) else {
            return Ok((message, None));
        };
        match self.opened_state(session, &message, &state, in_state.is_some()) {
            Ok((restored, back)) => Ok((restored, Some(back))),
            Err(refusal) => {
                self.note_refusal_of(Reason::StateOther, session);
                Err((message, refusal))
            }
        }
    }

    fn opened_state(
        &self,
        session: &Arc<Session>,
        message: &Message,
        state: &str,
        in_state: bool,
    ) -> Result<(Message, Back), Refusal> {
        let refused = |fault: StateFault| Refusal::BadState { reason: fault.to_string() };
        let (sealed, wraps) = state.split_at_checked(state.len().saturating_sub(1)).unwrap_or_default();
        let bound = Bound::new(&session.caller.text(), &session.server.name, message);
        let now_ms = self.clock().now().as_micros() / 1_000;
        let handle = self.returning().seal.open(sealed, now_ms, &bound).map_err(refused)?;
        let id = format!("ap-{}", Uuid::from_bytes(handle).simple());
        let about = self.approvals().get(&id).and_then(|approval| About::of(&approval));
        if wraps == "w" && about.is_none() && in_state {
            return Err(refused(StateFault::Expired)); // what the server had said is gone with the approval
        }
        let action = said(message);
        let mut edit = message.edit().remove_meta(META);
        if in_state {
            let kept = |text: Option<&String>| text.and_then(|text| raw(text));
            let of = |pick: fn(&About) -> Option<&String>| kept(about.as_ref().and_then(pick));
            let before = [
                ("requestState", of(|about| about.state.as_ref())),
                ("inputResponses", of(|about| about.responses.as_ref())),
            ];
            for (key, value) in before {
                edit = match value {
                    Some(value) => edit.set_param(key, value),
                    None => edit.remove_param(key),
                };
            }
        }
        let restored = edit.finish(self.wire_limits());
        let restored = restored.map_err(|error| Refusal::TooLarge { reason: error.to_string() })?;
        let declined = matches!(action.as_deref(), Some("decline" | "cancel"));
        let common = about.map(|about| about.common);
        let operation_id =
            common.as_ref().and_then(|common| common.operation_id.clone().or(Some(common.call_id?.to_string())));
        Ok((restored, Back { id, declined, operation_id, round: common.and_then(|common| common.round) }))
    }

    /// What a client that came back is told first: that people have said no, or that its user did.
    pub(super) async fn came_back(&self, call: &mut Call, wish: &Wish) -> Result<(), NotNow> {
        let Some(back) = call.back.clone() else { return Ok(()) };
        let refused =
            |reason| NotNow::Refused(Outcome::Denied, Refusal::ApprovalDenied { approval_id: back.id.clone(), reason });
        if let Status::Ended(Ended::Denied { reason, .. }) = self.approvals().status(&back.id) {
            return Err(refused(reason));
        }
        let same = |approval: &Approval| approval.request.binding == wish.request.binding;
        if back.declined && self.approvals().get(&back.id).is_some_and(|approval| same(&approval)) {
            let reason = Some("the client's user declined".to_owned());
            let how = Ended::Denied { approver: None, reason: reason.clone() };
            if let Some(approval) = self.approvals().end(&back.id, how)? {
                self.record_about(&approval, ApprovalState::Denied, None, reason.clone());
            }
            return Err(refused(reason));
        }
        Ok(())
    }

    /// Tells a client of 2025-11-25 that what its user had to do is done.
    pub(super) async fn tell_completed(&self, id: &str) {
        let Some(session) = self.returning().session(id) else { return };
        let params = json!({ "elicitationId": id }).to_string();
        let message = Message::notification("notifications/elicitation/complete", Some(params.as_bytes()))
            .expect("a notification of ours is a message");
        pass(&session, Frame::from(message)).await;
    }
}

impl Back {
    /// Joins a call to the operation that asked.
    pub(crate) fn join(&self, common: &mut cairn_contract::Common) {
        let Some(operation) = self.operation_id.clone() else { return };
        common.operation_id = Some(operation);
        common.round = Some(self.round.unwrap_or(1).saturating_add(1));
        common.linked_by = Some(LinkedBy::RequestState);
    }
}

/// What the client's user did with Cairn's question.
fn said(message: &Message) -> Option<String> {
    let raw = message.input_responses_raw()?;
    let answers: Value = serde_json::from_slice(&raw).ok()?;
    Some(answers[QUESTION]["action"].as_str()?.to_owned())
}
