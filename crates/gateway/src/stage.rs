//! Steps 5 and 7 of the life of a call: decide, record the intent (`approval` holds step 6 between them).
//!
//! The result of the last is an [`Armed`] call: a permit that policy made, the exact bytes that will go out, and a durable
//! intent. Nothing outside this file can make one, so nothing can be forwarded without.

use cairn_backbone::{OutcomeRoom, Planned, RecordError};
use cairn_catalogue::Standing;
use cairn_contract::{Body, CallDecision, CallIntent, Decision, Durability, EventType, NearestPermit, ShadowDecision};
use cairn_freshness::Writing;
use cairn_mcp::Message;
use cairn_policy::{Obligation, OutputMode, Permit, Question, Ruling};
use tokio::time::Instant;

use crate::{
    Gateway, Refusal,
    bridge::{Bridge, Going},
    call::{Accepted, Call, invocation},
    guard::Outlook,
    masking::Part,
    metrics::StateLabels,
    outside::determining as determining_outside,
    rewriting::{Changed, Unchangeable},
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
    /// Step 5. Where policy wants the call changed, it is changed and decided once more; that decision counts.
    pub(crate) async fn decide(&self, call: &mut Call) -> Result<Permit, Refusal> {
        let (permit, changed) = self.decide_once(call).await?;
        let Some((message, changed)) = changed else { return Ok(permit) };
        self.take_rewritten(call, message, changed);
        // Whoever wants it changed again is refused there.
        self.decide_once(call).await.map(|(permit, _)| permit)
    }

    /// One decision, drafted here and recorded with what follows it; with the call as its permit wants it, where that is not
    /// how it is.
    async fn decide_once(&self, call: &mut Call) -> Result<(Permit, Option<(Message, Changed)>), Refusal> {
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
        self.mask(call, &verdict.obligations);
        let (mut determining, mut outside) = (verdict.determining.clone(), None);
        let policy_version = verdict.policy_version;
        let decided = match verdict.outcome {
            Ruling::Permit(permit) => self
                .ask_outside(&question, permit, &mut outside)
                .await
                .inspect_err(|refusal| determining = determining_outside(refusal)),
            Ruling::Deny => {
                let (policy_version, policies) = (policy_version.clone(), determining.clone());
                Err(Refusal::Denied { policy_version, policies, not_fresh: outlook.not_fresh() })
            }
        };
        let obligations = decided.as_ref().map_or_else(|_| verdict.obligations.clone(), |p| p.obligations().to_vec());
        self.mask(call, &obligations);
        self.keep_arguments(call);
        let inputs = self.kept_always(call, EventType::CallDecision, Part::Inputs, &verdict.inputs);
        let standing = relied.map(|(standing, _)| standing);
        let decided = decided.and_then(|permit| self.met(call, permit, standing, &outlook, &mut determining));
        let decision = if decided.is_ok() { Decision::Permit } else { Decision::Deny };
        let body = Body::CallDecision(CallDecision {
            decision,
            policy_version,
            determining_policies: determining,
            obligations: obligations.iter().map(|obligation| obligation.name().to_owned()).collect(),
            errors: verdict.errors.iter().map(|error| self.screen(error)).collect(),
            inputs,
            elapsed_us: verdict.elapsed_us,
            target: call.shown.clone(),
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
            freshness: outlook.record(self),
            rewritten: call.rewritten.as_ref().map(|changed| changed.record.clone()),
            outside: outside.map(Box::new),
            parent_span_id: call.trace.parent_span().map(ToOwned::to_owned),
        });
        let draft = call.draft(self, body);
        call.backlog.push(draft);
        self.reached(Step::Decided, call);
        let (permit, changed) = decided?;
        // Before anything of the call is recorded: a policy may want more than the method has, never less.
        if permit.obligations().iter().any(|obligation| matches!(obligation, Obligation::Durability { .. })) {
            call.durability = Durability::Strict;
        }
        call.output = permit.obligations().iter().find_map(|obligation| match obligation {
            Obligation::ScreenOutput { policies, mode } => Some((*mode, policies.clone())),
            _ => None,
        });
        Ok((permit, changed))
    }

    /// What a permit wants besides, as far as that is known when it is given: with the call as it wants it, or why the call
    /// is denied all the same. Then `determining` says by what.
    fn met(
        &self,
        call: &Call,
        permit: Permit,
        standing: Option<Standing>,
        outlook: &Outlook,
        determining: &mut Vec<String>,
    ) -> Result<(Permit, Option<(Message, Changed)>), Refusal> {
        // No policy can permit what nobody approved: the permit is dropped, and the decision says so.
        if let Some(standing) = standing.filter(|standing| *standing != Standing::Approved) {
            *determining = vec![CATALOGUE.to_owned()];
            return Err(Refusal::NotApproved { name: call.subject.clone(), standing: standing.name() });
        }
        for obligation in permit.obligations() {
            if let Obligation::Freshness { policies, demand } = obligation
                && let Some(not_fresh) = outlook.unmet(*demand)
            {
                determining.clone_from(policies);
                let policy_version = permit.version().to_owned();
                return Err(Refusal::Denied { policy_version, policies: policies.clone(), not_fresh });
            }
        }
        match self.rewritten(call, &permit) {
            Ok(changed) => Ok((permit, changed)),
            Err(Unchangeable { policies, reason }) => {
                determining.clone_from(&policies);
                Err(Refusal::NotRewritten { policies, reason })
            }
        }
    }

    /// Step 7. The token for the server comes first: waiting for it must not stand between the intent and the forward.
    /// After this the intent is durable (strict) or queued (relaxed), with room for its outcome.
    pub(crate) async fn arm(&self, call: &mut Call, permit: Permit) -> Result<Armed, Refusal> {
        let not_recorded = |error: RecordError| Refusal::NotRecorded { reason: error.to_string() };
        if call.output.as_ref().is_some_and(|(mode, _)| *mode == OutputMode::Redact) && call.method == "tools/call" {
            // What is redacted must still fit what the tool declares.
            self.know_definition(call).await;
        }
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
            target: call.shown.clone(),
            arguments: call.arguments.clone(),
            durability: call.durability,
            forwarded: self.payload_digest(&call.session.caller, going.bytes()),
            policy_version: permit.version().to_owned(),
            upstream,
            upstream_protocol_version,
            upstream_network_transport: Some(call.session.server.transport()),
            repeats: self.repeated_by(call),
            writes: self.told_writes(writing.as_ref()),
            invocation: invocation(self, &call.message),
            rewritten: call.rewritten.as_ref().map(|changed| changed.record.clone()),
        });
        let draft = call.draft(self, body);
        self.reached(Step::BeforeIntent, call);
        let started = Instant::now();
        // What it spends goes to disk beside the intent, and before the call.
        let spent = call.charged.as_ref().map(|charged| charged.durable());
        let spent = async move {
            match spent {
                Some(spent) => spent.await.map_err(|error| RecordError::Unavailable { reason: error.to_string() }),
                None => Ok(()),
            }
        };
        let (recorded, spent) = futures::future::join(self.record(call, draft), spent).await;
        if let Err(error) = recorded.and(spent) {
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
    pub(crate) async fn make_room(&self, call: &mut Call) -> Result<(), RecordError> {
        if call.room.is_none() {
            call.room = Some(self.recorder().reserve(call.common.tenant.as_deref()).await?);
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

    /// Records the backlog and `draft` in order, in one go; returns when all of it is durable, and the payloads that it
    /// refers to. The two syncs run beside each other. Where payloads are required and cannot be kept nothing is recorded.
    pub(crate) async fn record_strict(&self, call: &mut Call, draft: Planned) -> Result<(), RecordError> {
        if let Some(reason) = call.pending.refused().filter(|_| self.payloads_are_required()) {
            return Err(RecordError::Unavailable { reason });
        }
        // What is not accepted stays: a refusal is recorded together with the decision before it, or neither is.
        let mut drafts = call.backlog.clone();
        drafts.push(draft);
        let submitted = self.recorder().submit(drafts).await?;
        call.backlog.clear();
        call.accepted_by_recorder = Accepted::Beginning;
        let pending = std::mem::take(&mut call.pending);
        let (recorded, kept) = futures::future::join(submitted.durable(), self.payloads_durable(pending)).await;
        recorded?;
        kept
    }

    /// Records the outcome of a call that was not forwarded. Where its beginning is on the way into the trail, the outcome
    /// goes after it whether recording works now or not: else the trail would show a call without an end.
    pub(crate) async fn record_end(&self, call: &mut Call, draft: Planned) -> Result<(), RecordError> {
        // Nothing was forwarded, so a vault that fails must not take the end of the story away as well.
        call.pending.refused = None;
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
