//! Closing what a predecessor left open, before this gateway serves anything.
//!
//! A crash between decision and outcome leaves a call without its end. At the next start of the same gateway id, under a
//! higher epoch, each of them gets exactly one outcome: `denied`, `cancelled` or `timed_out` with effect `none` where
//! nothing can have been forwarded, `in_doubt` with effect `unknown` where an intent was recorded and nobody can know.

use cairn_backbone::{OpenCall, RecordError};
use cairn_contract::{Body, CallOutcome, Effect, Outcome};

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
    if call.has_intent {
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
