//! A call that an earlier epoch of this gateway left without an outcome.
//!
//! [`super::recovery`] gathers it from the trail; the gateway closes it before it serves.

use cairn_contract::{
    ApprovalState, Body, CallDecision, CallIntent, Common, Decision, Draft, Durability, StoredEvent, Target,
};
use uuid::Uuid;

use super::Planned;

/// What the trail says about a call that has no outcome.
#[derive(Clone, PartialEq, Debug)]
pub struct OpenCall {
    /// The workflow.
    pub workflow_id: String,
    /// The call.
    pub call_id: Uuid,
    /// What its events share, as the last of them has it.
    pub common: Common,
    /// Whether policy decided.
    pub has_decision: bool,
    /// Whether the last decision or the approver said no.
    pub denied: bool,
    /// Whether policy demands that every step is durable before the next one, whatever the method.
    pub demands_durability: bool,
    /// Whether somebody was asked to approve.
    pub approval_requested: bool,
    /// Whether nobody had answered when the trail ends: then nothing was forwarded.
    pub waits_for_approval: bool,
    /// Whether the approval expired.
    pub approval_expired: bool,
    /// Whether an intent is recorded: then the call may have been forwarded.
    pub has_intent: bool,
    /// What the intent says of durability.
    pub durability: Option<Durability>,
    /// What the call is about.
    pub target: Target,
    /// The digest of its arguments, where its events have it.
    pub arguments_digest: Option<String>,
    /// The last event about it.
    pub last_event_id: Uuid,
    /// The key of its records.
    pub key: String,
    /// `ce_subject` of its events.
    pub subject: Option<String>,
    /// `traceparent` of its events.
    pub traceparent: Option<String>,
    /// `tracestate` of its events.
    pub tracestate: Option<String>,
}

impl OpenCall {
    pub(super) fn new(event: &StoredEvent, call_id: Uuid) -> Self {
        Self {
            workflow_id: event.common.workflow_id.clone(),
            call_id,
            common: event.common.clone(),
            has_decision: false,
            denied: false,
            demands_durability: false,
            approval_requested: false,
            waits_for_approval: false,
            approval_expired: false,
            has_intent: false,
            durability: None,
            target: Target::None,
            arguments_digest: None,
            last_event_id: event.id,
            key: String::from_utf8_lossy(&event.key).into_owned(),
            subject: event.subject.clone(),
            traceparent: event.traceparent.clone(),
            tracestate: event.tracestate.clone(),
        }
    }

    /// Takes in one more event of the call.
    pub(super) fn take(&mut self, event: &StoredEvent, body: Body) {
        self.common = event.common.clone();
        self.last_event_id = event.id;
        match body {
            Body::CallDecision(CallDecision { decision, target, obligations, .. }) => {
                self.has_decision = true;
                self.denied = decision == Decision::Deny;
                self.demands_durability = obligations.iter().any(|name| name == "durability");
                self.waits_for_approval = false;
                self.target = target;
            }
            Body::CallApproval(approval) => {
                self.approval_requested = true;
                self.waits_for_approval = approval.state == ApprovalState::Requested;
                self.approval_expired = approval.state == ApprovalState::Expired;
                self.denied = approval.state == ApprovalState::Denied;
            }
            Body::CallIntent(CallIntent { durability, target, arguments, .. }) => {
                self.arguments_digest = arguments.map(|arguments| arguments.digest);
                self.has_intent = true;
                self.durability = Some(durability);
                self.target = target;
            }
            _ => {}
        }
    }

    /// An event about this call, caused by the last one, with the id that it will have.
    #[must_use]
    pub fn draft(&self, id: Uuid, body: Body) -> Planned {
        let mut common = self.common.clone();
        common.causation_id = Some(self.last_event_id);
        let draft = Draft {
            key: self.key.clone(),
            subject: self.subject.clone(),
            traceparent: self.traceparent.clone(),
            tracestate: self.tracestate.clone(),
            common,
            body,
        };
        Planned { id, draft }
    }
}

/// Whether an event says how an approval ended, which may be after its call has.
pub(crate) fn settles(body: &Body) -> bool {
    matches!(body, Body::CallApproval(approval) if approval.state != ApprovalState::Requested)
}
