//! Calls that wait for people (step 6 of the life of a call).
//!
//! A call whose permit demands an approval asks for one that is bound to it, and the client hears of that in the best way
//! that it knows: a task's handle, an address for its user to open, or nothing but a slow answer. When people have said
//! yes, whoever repeats exactly that call goes on, once, after policy has decided once more. `asking` is what a call asks
//! for, `ways` how its client hears of it, `returning` how a client comes back, `settling` the people's side, `tasks`
//! the handles.
//!
//! Called by the life of a call and by the operators' API; must never let a call go on that differs from what was looked
//! at in anything that the approval binds.

mod asking;
mod covered;
mod returning;
mod settling;
mod tasks;
mod ways;

use std::time::Duration;

use cairn_approvals::{Approval, Asked, Ended, Full, KeepError, Request, Status};
use cairn_contract::{ApprovalState, Body, CallApproval, Outcome};
use cairn_mcp::{Frame, Message};
use cairn_policy::Permit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use asking::About;
pub(crate) use covered::Covered;
pub(crate) use returning::{Back, Returning};
pub use settling::{SettleError, Settled, Settlement};
pub(crate) use tasks::Tasks;
pub(crate) use ways::{URL_ELICITATION_REQUIRED, Way};

use crate::{Gateway, Refusal, call::Call, reply::Reply, steps::Step};

/// Why a call does not go on now.
pub(crate) enum NotNow {
    /// It ends with an error.
    Refused(Outcome, Refusal),
    /// It ends with a result that says how to come back.
    Told(Outcome, Message),
}

impl From<KeepError> for NotNow {
    fn from(error: KeepError) -> Self {
        Self::Refused(Outcome::Failed, Refusal::NotRecorded { reason: error.to_string() })
    }
}

/// What waiting led to.
enum Waited {
    /// The approval was claimed for this call.
    Claimed(Box<Approval>),
    /// It ended or was claimed by another: whoever still wants one asks anew.
    Gone,
    /// The time is over and the approval waits on.
    StillWaits,
}

impl Gateway {
    /// Step 6. Returns the permit when nobody has to approve, or everybody has who must and the client still waits.
    pub(crate) async fn hold(
        &self,
        call: &mut Call,
        mut permit: Permit,
        reply: &mut Reply,
        cancelled: &CancellationToken,
    ) -> Result<Permit, NotNow> {
        // Bounded: each turn but the first needs an approval that somebody else took or let go.
        let until = Instant::now() + self.limits().hold_max;
        loop {
            let Some(demand) = permit.approval() else { return Ok(permit) };
            self.know_definition(call).await;
            let wish = self.wish(call, &permit, &demand)?;
            if call.approved.as_ref() == Some(&wish.request.binding) {
                return Ok(permit);
            }
            if self.covered().take(call, &wish.cover) {
                call.cover = Some(wish.cover);
                return Ok(permit);
            }
            self.came_back(call, &wish).await?;
            let now = self.clock().now();
            if let Some(approval) = self.approvals().claim(&wish.request.binding, now)? {
                // Policy has decided on this very call just now: after the approval.
                self.go_on(call, &approval, &wish.cover);
                return Ok(permit);
            }
            let way = wish.way;
            let approval = self.ask_people(call, wish.request).await?;
            self.reached(Step::Held, call);
            if way != Way::Wait && call.back.is_none() {
                return Err(self.tell(call, way, &approval));
            }
            match self.wait(call, &approval, until, reply, cancelled).await? {
                Waited::Claimed(approval) => self.go_on(call, &approval, &wish.cover),
                Waited::Gone => {}
                Waited::StillWaits => return Err(self.tell(call, way, &approval)),
            }
            // Policy decides once more: the set may have changed while the call waited, and a denial stays one.
            permit = match self.decide(call).await {
                Ok(permit) => permit,
                Err(refusal) => return Err(NotNow::Refused(Outcome::Denied, refusal)),
            };
        }
    }

    /// The approval counts for this call, and for the later rounds of its operation.
    fn go_on(&self, call: &mut Call, approval: &Approval, cover: &str) {
        let given = approval.votes.last();
        if approval.request.call_id == call.call_id.to_string() {
            // The yes stands in this call's own story.
            call.cause = given.and_then(|vote| vote.event).or(call.cause);
        } else {
            let body = Body::CallApproval(CallApproval {
                state: ApprovalState::Approved,
                approval_id: approval.request.id.clone(),
                binding: Some(approval.request.binding.clone()),
                approver: given.map(|vote| self.screen(&vote.approver)),
                approvers: Vec::new(),
                quorum: None,
                expires_at: Some(approval.request.expires_at.to_string()),
                reason: given.and_then(|vote| Some(self.screen(vote.reason.as_deref()?))),
            });
            let draft = call.draft(self, body);
            call.backlog.push(draft);
        }
        call.approved = Some(approval.request.binding.clone());
        call.cover = Some(cover.to_owned());
    }

    /// Waits for people, until the client has gone, the call's time is over, or the approval's.
    async fn wait(
        &self,
        call: &mut Call,
        approval: &Approval,
        until: Instant,
        reply: &mut Reply,
        cancelled: &CancellationToken,
    ) -> Result<Waited, NotNow> {
        let request = &approval.request;
        let gone = || NotNow::Refused(Outcome::Cancelled, Refusal::Cancelled);
        let client = reply.watch();
        let mut changes = self.approvals().changes();
        // An approval may end sooner than a hold does.
        let until = until.min(Instant::now() + request.expires_at.since(self.clock().now()));
        loop {
            let has_gone = cancelled.is_cancelled() || client.is_closed();
            match self.approvals().status(&request.id) {
                _ if has_gone => break,
                Status::Approved => {
                    let claimed = self.approvals().claim(&request.binding, self.clock().now())?;
                    return Ok(claimed.map_or(Waited::Gone, |approval| Waited::Claimed(Box::new(approval))));
                }
                Status::Ended(Ended::Denied { reason, .. }) => {
                    let refusal = Refusal::ApprovalDenied { approval_id: request.id.clone(), reason };
                    return Err(NotNow::Refused(Outcome::Denied, refusal));
                }
                Status::Ended(Ended::Expired) => return Err(expired(approval)),
                Status::Ended(Ended::Claimed | Ended::Withdrawn) | Status::Unknown => return Ok(Waited::Gone),
                Status::Waiting => {}
            }
            tokio::select! {
                // A client that has gone comes first: its call is never forwarded, however near the approval.
                biased;
                () = client.closed() => break,
                () = cancelled.cancelled() => break,
                changed = changes.changed() => changed.expect("the gateway holds the other end"),
                () = self.tell_of_hold(call, &request.id, reply) => unreachable!("telling of a hold never ends by itself"),
                () = tokio::time::sleep_until(until) => {
                    return self.over(call, approval).await;
                }
            }
        }
        if !request.outlives {
            self.approvals().end(&request.id, Ended::Withdrawn)?;
        }
        Err(gone())
    }

    /// The call has waited long enough.
    async fn over(&self, call: &mut Call, approval: &Approval) -> Result<Waited, NotNow> {
        let request = &approval.request;
        // Nobody's yes is on its way into the trail while this is held: what is recorded as approved does not expire.
        let _settling = self.settling().lock().await;
        let now = self.clock().now();
        if let Some(claimed) = self.approvals().claim(&request.binding, now)? {
            return Ok(Waited::Claimed(Box::new(claimed)));
        }
        if request.outlives && request.expires_at > now {
            return Ok(Waited::StillWaits);
        }
        if self.approvals().end(&request.id, Ended::Expired)?.is_some() {
            if request.call_id == call.call_id.to_string() {
                let body = self.approval_body(approval, ApprovalState::Expired, None, None);
                let draft = call.draft(self, body);
                call.backlog.push(draft);
            } else {
                self.record_about(approval, ApprovalState::Expired, None, None);
            }
        }
        Err(expired(approval))
    }

    /// Asks, unless the same is asked already: the request is durable before anybody can see it.
    async fn ask_people(&self, call: &mut Call, mut request: Request) -> Result<Approval, NotNow> {
        let not_recorded = |error: cairn_backbone::RecordError| {
            NotNow::Refused(Outcome::Failed, Refusal::NotRecorded { reason: error.to_string() })
        };
        self.make_room(call).await.map_err(not_recorded)?;
        let now = self.clock().now();
        if let Some(before) = self.approvals().find(&request.binding, now) {
            return Ok(before);
        }
        let approval = Approval { request: request.clone(), votes: Vec::new() };
        let draft = call.draft(self, self.approval_body(&approval, ApprovalState::Requested, None, None));
        request.about[asking::CAUSE] = draft.id.to_string().into();
        self.record_strict(call, draft).await.map_err(not_recorded)?;
        match self.approvals().ask(request, now) {
            Ok(Asked::New(approval) | Asked::Before(approval)) => Ok(approval),
            Err(Full::TooMany { setting, limit }) => {
                Err(NotNow::Refused(Outcome::Failed, Refusal::Busy { setting, limit: limit as u64 }))
            }
            Err(Full::NotKept(error)) => Err(error.into()),
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
}

/// Nobody answered within the time that the approval had.
fn expired(approval: &Approval) -> NotNow {
    let Request { id, requested_at, expires_at, .. } = &approval.request;
    let after_ms = expires_at.since(*requested_at).as_millis() as u64;
    NotNow::Refused(Outcome::TimedOut, Refusal::ApprovalExpired { approval_id: id.clone(), after_ms })
}
