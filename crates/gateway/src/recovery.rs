//! Closing what a predecessor left open, before this gateway serves anything.
//!
//! A crash between decision and outcome leaves a call without its end. At the next start of the same gateway id, under a
//! higher epoch, each of them gets exactly one outcome: `denied`, `cancelled` or `timed_out` with effect `none` where
//! nothing can have been forwarded, `in_doubt` with effect `unknown` where nobody can know: an intent was recorded, or the call is
//! relaxed and permitted, so that it may have been forwarded while its intent still waited in memory.

use cairn_backbone::{OpenCall, RecordError};
use cairn_contract::{Body, CallOutcome, Durability, Effect, Outcome};

use crate::{Gateway, call::outcome_of};

impl Gateway {
    /// Records an outcome for each call; returns how many.
    ///
    /// # Errors
    /// Where the backbone cannot record: the gateway must not serve then.
    pub async fn close_predecessor(&self, open: Vec<OpenCall>) -> Result<usize, RecordError> {
        let count = open.len();
        for call in open {
            let (outcome, effect) = end_of(&call);
            if effect == Effect::Unknown && call.has_intent {
                self.note_left_open(&call);
            }
            let body = CallOutcome { recovered: Some(true), ..outcome_of(outcome, effect) };
            let draft = call.draft(self.entropy().uuid_v7(self.clock().now()), Body::CallOutcome(body));
            self.recorder().strict(draft).await?;
            self.metrics().ended(call.common.server.as_deref().unwrap_or_default(), outcome);
            tracing::info!(call_id = %call.call_id, ?outcome, "closed a call that a predecessor left open");
        }
        Ok(count)
    }
}

fn end_of(call: &OpenCall) -> (Outcome, Effect) {
    if call.has_intent || may_have_gone(call) {
        return (Outcome::InDoubt, Effect::Unknown);
    }
    let outcome = if call.denied {
        Outcome::Denied
    } else if call.approval_expired {
        Outcome::TimedOut
    } else {
        Outcome::Cancelled
    };
    (outcome, Effect::None)
}

/// Whether the call may have been forwarded although the trail has no intent of it: nothing waits for that of a relaxed call.
fn may_have_gone(call: &OpenCall) -> bool {
    let method = call.common.mcp_method_name.as_deref().unwrap_or_default();
    let is_relaxed = Durability::of_method(method) == Durability::Relaxed && !call.demands_durability;
    is_relaxed && call.has_decision && !call.denied && !call.approval_expired && !call.waits_for_approval
}

#[cfg(test)]
mod tests {
    use cairn_contract::{Common, Target};

    use super::*;

    fn open(method: &str) -> OpenCall {
        let id = uuid::Uuid::from_u128(7);
        OpenCall {
            workflow_id: "w".to_owned(),
            call_id: id,
            common: Common { mcp_method_name: Some(method.to_owned()), ..Common::default() },
            has_decision: true,
            denied: false,
            demands_durability: false,
            approval_requested: false,
            waits_for_approval: false,
            approval_expired: false,
            has_intent: false,
            durability: None,
            target: Target::None,
            arguments_digest: None,
            last_event_id: id,
            key: "w".to_owned(),
            subject: None,
            traceparent: None,
            tracestate: None,
        }
    }

    #[test]
    fn a_relaxed_call_without_an_intent_may_have_gone_and_a_strict_one_cannot() {
        let none = Effect::None;
        assert_eq!(end_of(&open("tools/call")), (Outcome::Cancelled, none));
        assert_eq!(end_of(&open("resources/read")), (Outcome::InDoubt, Effect::Unknown));
        let strict = OpenCall { demands_durability: true, ..open("resources/read") };
        assert_eq!(end_of(&strict), (Outcome::Cancelled, none));
        let denied = OpenCall { denied: true, ..open("resources/read") };
        assert_eq!(end_of(&denied), (Outcome::Denied, none));
        let held = OpenCall { waits_for_approval: true, approval_requested: true, ..open("resources/read") };
        assert_eq!(end_of(&held), (Outcome::Cancelled, none));
        let expired = OpenCall { approval_expired: true, ..open("resources/read") };
        assert_eq!(end_of(&expired), (Outcome::TimedOut, none));
        let sent = OpenCall { has_intent: true, ..open("tools/call") };
        assert_eq!(end_of(&sent), (Outcome::InDoubt, Effect::Unknown));
    }
}
