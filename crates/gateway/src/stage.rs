//! Steps 5 to 7 of the life of a call: decide, hold, record the intent.
//!
//! The result of the last is an [`Armed`] call: a permit that policy made, the exact bytes that will go out, and a durable
//! intent. Nothing outside this file can make one, so nothing can be forwarded without.

use std::time::Duration;

use cairn_backbone::{OutcomeRoom, Planned, RecordError};
use cairn_catalogue::Standing;
use cairn_contract::{
    ApprovalState, Body, CallApproval, CallDecision, CallIntent, Decision, Durability, NearestPermit, Outcome,
    ShadowDecision,
};
use cairn_freshness::Writing;
use cairn_mcp::{Frame, Message};
use cairn_policy::{Obligation, Permit, Question, Ruling};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Gateway, Refusal,
    bridge::{Bridge, Going},
    call::{Accepted, Call, invocation},
    holds::{HoldView, SettleError},
    metrics::StateLabels,
    reply::Reply,
    steps::Step,
};

/// A permitted call whose intent is recorded: the only thing that can be forwarded, and only once.
#[derive(Debug)]
pub(crate) struct Armed {
    permit: Permit,
    going: Going,
    room: Option<OutcomeRoom>,
}

impl Armed {
    /// Gives up the authority: what goes out, and the room for the outcome.
    pub(crate) fn discharge(self) -> (Going, Option<OutcomeRoom>) {
        drop(self.permit);
        (self.going, self.room)
    }
}

/// What stands in the place of a policy where the catalogue denies.
const CATALOGUE: &str = "cairn:catalogue";

impl Gateway {
    /// Step 5. The decision is drafted here and recorded with what follows it.
    pub(crate) async fn decide(&self, call: &mut Call) -> Result<Permit, Refusal> {
        let outlook = self.outlook(call);
        if let Some(state) = outlook.state() {
            self.metrics().freshness.get_or_create(&StateLabels { state: state.name() }).inc();
        }
        let mut context = call.context(self);
        context.extend(outlook.context().map(|freshness| ("freshness".to_owned(), freshness)));
        let relied = self.relies_on(call);
        context.extend(relied.as_ref().map(|relied| ("catalogue".to_owned(), Self::catalogue_context(relied))));
        let question = Question {
            principal: call.session.caller.principal.clone(),
            action: call.method.clone(),
            direction: call.direction,
            server: call.session.server.name.clone(),
            target: call.target.clone(),
            arguments: call.arguments_value(),
            context,
        };
        let verdict = self.policy().decide(&question);
        self.metrics().decide_seconds.observe(verdict.elapsed_us as f64 / 1e6);
        // No policy can permit what nobody approved: the permit is dropped, and the decision says so.
        let not_approved = relied.map(|(standing, _)| standing).filter(|standing| *standing != Standing::Approved);
        let permits = matches!(verdict.outcome, Ruling::Permit(_));
        let decision = if permits && not_approved.is_none() { Decision::Permit } else { Decision::Deny };
        let mut determining = verdict.determining.clone();
        if permits && not_approved.is_some() {
            determining = vec![CATALOGUE.to_owned()];
        }
        let body = Body::CallDecision(CallDecision {
            decision,
            policy_version: verdict.policy_version.clone(),
            determining_policies: determining,
            obligations: verdict.obligations.iter().map(|obligation| obligation.name().to_owned()).collect(),
            errors: verdict.errors,
            inputs: self.keys().payload.reference(&verdict.inputs, "application/json"),
            elapsed_us: verdict.elapsed_us,
            target: call.target.clone(),
            arguments: call.arguments.clone(),
            nearest: verdict.nearest.map(|near| NearestPermit {
                policy: near.policy,
                failed: near.failed,
                failing: near.failing as u64,
            }),
            shadow: verdict.shadow.map(|shadow| {
                self.metrics().shadowed(shadow.differs);
                let decision = if shadow.permit { Decision::Permit } else { Decision::Deny };
                ShadowDecision { policy_version: shadow.policy_version, decision, differs: shadow.differs }
            }),
            tool_digest: call.target.name().and_then(|name| call.session.server.catalogue.tool_digest(name)),
            freshness: outlook.record(),
        });
        let draft = call.draft(self, body);
        call.backlog.push(draft);
        self.reached(Step::Decided, call);
        match verdict.outcome {
            Ruling::Permit(_) if let Some(standing) = not_approved => {
                Err(Refusal::NotApproved { name: call.subject.clone(), standing: standing.name() })
            }
            Ruling::Permit(permit) => {
                // Before anything of the call is recorded: a policy may want more than the method has, never less.
                if permit.obligations().iter().any(|obligation| matches!(obligation, Obligation::Durability { .. })) {
                    call.durability = Durability::Strict;
                }
                Ok(permit)
            }
            Ruling::Deny => {
                let (policy_version, policies) = (verdict.policy_version, verdict.determining);
                Err(Refusal::Denied { policy_version, policies, not_fresh: outlook.not_fresh() })
            }
        }
    }

    /// Step 6. Returns the permit when nobody has to approve, or somebody did and the client still waits.
    pub(crate) async fn hold(
        &self,
        call: &mut Call,
        permit: Permit,
        reply: &mut Reply,
        cancelled: &CancellationToken,
    ) -> Result<Permit, (Outcome, Refusal)> {
        let wanted = permit.obligations().iter().find_map(|obligation| match obligation {
            Obligation::Approval { expires, .. } => Some(*expires),
            Obligation::Durability { .. } => None,
        });
        let Some(expires) = wanted else { return Ok(permit) };
        // A policy can shorten what the setting allows; what is longer than a client waits would be no hold.
        let hold_max = self.limits().hold_max.min(expires.unwrap_or(Duration::MAX));
        let view = self.hold_view(call, &permit, hold_max);
        let (id, expires_at) = (view.id.clone(), view.expires_at);
        let approval = |state, approver: Option<String>, reason: Option<String>| {
            Body::CallApproval(CallApproval {
                state,
                approval_id: id.clone(),
                binding: Some(view.binding.clone()),
                approver,
                expires_at: Some(expires_at.to_string()),
                reason,
            })
        };
        let not_recorded = |error: RecordError| (Outcome::Failed, Refusal::NotRecorded { reason: error.to_string() });
        self.make_room(call).await.map_err(not_recorded)?;
        let draft = call.draft(self, approval(ApprovalState::Requested, None, None));
        self.record_strict(call, draft).await.map_err(not_recorded)?;
        let Some(mut held) = self.holds().place(view.clone()) else {
            return Err((
                Outcome::Failed,
                Refusal::Busy { setting: "holds_max", limit: crate::holds::HOLDS_MAX as u64 },
            ));
        };
        self.reached(Step::Held, call);
        let client = reply.watch();
        let settled = tokio::select! {
            // A client that has gone comes first: its call is never forwarded, however near the approval.
            biased;
            () = client.closed() => return Err((Outcome::Cancelled, Refusal::Cancelled)),
            () = cancelled.cancelled() => return Err((Outcome::Cancelled, Refusal::Cancelled)),
            settled = held.settled() => settled,
            () = self.tell_of_hold(call, &id, reply) => unreachable!("telling of a hold never ends by itself"),
            () = tokio::time::sleep(hold_max) => {
                let draft = call.draft(self, approval(ApprovalState::Expired, None, None));
                call.backlog.push(draft);
                let after_ms = hold_max.as_millis() as u64;
                return Err((Outcome::TimedOut, Refusal::ApprovalExpired { approval_id: id, after_ms }));
            }
        };
        let settlement = settled.settlement.clone();
        let state = if settlement.approve { ApprovalState::Approved } else { ApprovalState::Denied };
        let draft = call.draft(self, approval(state, Some(settlement.approver), settlement.reason.clone()));
        let recorded = self.record_strict(call, draft).await;
        settled.answer(recorded.as_ref().map(|_| ()).map_err(|e| SettleError::NotRecorded { reason: e.to_string() }));
        recorded.map_err(not_recorded)?;
        if cancelled.is_cancelled() || client.is_closed() {
            return Err((Outcome::Cancelled, Refusal::Cancelled));
        }
        if !settlement.approve {
            return Err((Outcome::Denied, Refusal::ApprovalDenied { approval_id: id, reason: settlement.reason }));
        }
        // Policy decides once more: the set may have changed while the call waited.
        match self.decide(call).await {
            Ok(permit) => Ok(permit),
            Err(refusal) => Err((Outcome::Denied, refusal)),
        }
    }

    fn hold_view(&self, call: &Call, permit: &Permit, hold_max: Duration) -> HoldView {
        let now = self.clock().now();
        let arguments = call.arguments_text();
        let target = call.target.name().unwrap_or(&call.method).to_owned();
        let bound = format!(
            "{}\n{}\n{}\n{}\n{}\n",
            call.session.caller.text(),
            call.session.server.name,
            call.method,
            target,
            permit.version()
        );
        let mut bytes = bound.into_bytes();
        bytes.extend_from_slice(&arguments);
        HoldView {
            id: format!("ap-{}", call.call_id.simple()),
            principal: call.session.caller.principal.clone(),
            server: call.session.server.name.clone(),
            method: call.method.clone(),
            target,
            arguments: String::from_utf8_lossy(&arguments).into_owned(),
            workflow_id: call.common.workflow_id.clone(),
            call_id: call.call_id.to_string(),
            policy_version: permit.version().to_owned(),
            binding: self.keys().payload.digest(&bytes),
            requested_at: now,
            expires_at: now.plus(hold_max),
        }
    }

    /// Sends progress to a client that gave a token, so that it does not give up. Never ends by itself.
    async fn tell_of_hold(&self, call: &Call, id: &str, reply: &mut Reply) {
        let token = call.message.progress_token().filter(|_| reply.can_stream());
        let Some(token) = token else { return std::future::pending().await };
        let started = Instant::now();
        let mut every = tokio::time::interval(self.limits().hold_progress_every.max(Duration::from_millis(100)));
        loop {
            every.tick().await;
            let words = serde_json::json!(format!("waiting for approval {id}")).to_string();
            let progress = started.elapsed().as_millis();
            let params =
                format!("{{\"progressToken\":{},\"progress\":{progress},\"message\":{words}}}", token.as_str());
            let message = Message::notification("notifications/progress", Some(params.as_bytes()))
                .expect("a notification of ours is a message");
            if reply.frame(Frame::from(message)).await.is_err() {
                return std::future::pending().await; // the client has gone; the cancellation ends the hold
            }
        }
    }

    /// Step 7. The token for the server comes first: waiting for it must not stand between the intent and the forward. After this the intent is durable (strict) or queued (relaxed), with room for its outcome.
    pub(crate) async fn arm(&self, call: &mut Call, permit: Permit) -> Result<Armed, Refusal> {
        let not_recorded = |error: RecordError| Refusal::NotRecorded { reason: error.to_string() };
        self.prove(&call.session).await?;
        let going = self.going(call)?;
        let (upstream, upstream_protocol_version) = match call.session.bridge.server_era() {
            Some((era, version)) => (Some(era), Some(version)),
            None => (call.common.era, call.common.mcp_protocol_version.clone()),
        };
        if call.is_strict() {
            self.make_room(call).await.map_err(not_recorded)?;
        }
        let writing = self.begin_writes(call);
        let body = Body::CallIntent(CallIntent {
            target: call.target.clone(),
            arguments: call.arguments.clone(),
            durability: call.durability,
            forwarded: self.keys().payload.digest(going.bytes()),
            policy_version: permit.version().to_owned(),
            upstream,
            upstream_protocol_version,
            upstream_network_transport: Some(call.session.server.transport()),
            repeats: None,
            writes: self.told_writes(writing.as_ref()),
            invocation: invocation(self, &call.message),
        });
        let draft = call.draft(self, body);
        self.reached(Step::BeforeIntent, call);
        let started = Instant::now();
        if let Err(error) = self.record(call, draft).await {
            writing.into_iter().for_each(Writing::undone);
            return Err(not_recorded(error));
        }
        call.writing = writing;
        call.asked = Some(self.clock().now());
        self.metrics().intent_seconds.observe(started.elapsed().as_secs_f64());
        self.reached(Step::AfterIntent, call);
        Ok(Armed { permit, going, room: call.room.take() })
    }

    /// Takes room for the outcome, unless the call has it already: what is begun in the trail can then always be ended.
    async fn make_room(&self, call: &mut Call) -> Result<(), RecordError> {
        if call.room.is_none() {
            call.room = Some(self.recorder().reserve().await?);
        }
        Ok(())
    }

    /// Exactly what will go out.
    fn going(&self, call: &Call) -> Result<Going, Refusal> {
        if matches!(call.session.bridge, Bridge::ToLegacy(_))
            && let Some(resumed) = self.resumed(call)?
        {
            return Ok(resumed);
        }
        let negotiated = call.session.claims.lock().protocol_version.clone();
        let message = call.outbound(self).map_err(|error| Refusal::TooLarge { reason: error.to_string() })?;
        let mut headers = call.session.bridge.headers(&call.arrival, negotiated);
        if let Some(name) = call.target.name() {
            headers.annotations = call.session.server.catalogue.annotations(name);
        }
        let prepared = call.session.link.prepare(&message, &headers);
        prepared.map(Going::Call).map_err(|error| Refusal::unavailable(&error))
    }

    /// Records the backlog and `draft` as durably as the call demands.
    pub(crate) async fn record(&self, call: &mut Call, draft: Planned) -> Result<(), RecordError> {
        if call.is_strict() {
            return self.record_strict(call, draft).await;
        }
        for earlier in call.backlog.drain(..) {
            self.recorder().relaxed(earlier);
        }
        self.recorder().relaxed(draft);
        call.accepted_by_recorder = Accepted::Beginning;
        Ok(())
    }

    /// Records the backlog and `draft` in order, in one go; returns when all of it is durable.
    pub(crate) async fn record_strict(&self, call: &mut Call, draft: Planned) -> Result<(), RecordError> {
        // What is not accepted stays: a refusal is recorded together with the decision before it, or neither is.
        let mut drafts = call.backlog.clone();
        drafts.push(draft);
        let submitted = self.recorder().submit(drafts).await?;
        call.backlog.clear();
        call.accepted_by_recorder = Accepted::Beginning;
        submitted.durable().await.map(|_| ())
    }

    /// Records the outcome of a call that was not forwarded. Where its beginning is on the way into the trail, the outcome
    /// goes after it whether recording works now or not: else the trail would show a call without an end.
    pub(crate) async fn record_end(&self, call: &mut Call, draft: Planned) -> Result<(), RecordError> {
        let room = call.room.take();
        match room {
            Some(room) if call.accepted_by_recorder == Accepted::Beginning => {
                let backlog = std::mem::take(&mut call.backlog);
                if !backlog.is_empty() {
                    // Without them the trail says less of why; the outcome says how it ended.
                    let _ = self.recorder().submit(backlog).await;
                }
                call.accepted_by_recorder = Accepted::Outcome;
                self.recorder().outcome(room, draft).await.map(|_| ())
            }
            _ => {
                let recorded = self.record(call, draft).await;
                if call.accepted_by_recorder == Accepted::Beginning {
                    call.accepted_by_recorder = Accepted::Outcome;
                }
                recorded
            }
        }
    }
}
