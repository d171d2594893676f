//! One JSON-RPC request on its way: what is known of it after steps 1 to 4 of its life, and the events about it.
//!
//! A [`Call`] is built once, from the envelope; later steps read it. Every event of the call is drafted here, so that all
//! of them carry the same identity, correlation and key. No draft holds a payload: arguments and results are references.

use std::sync::Arc;

use bytes::Bytes;
use cairn_backbone::{OutcomeRoom, Planned};
use cairn_clock::Timestamp;
use cairn_contract::{
    Body, CallOutcome, Claimed, Common, Direction, Draft, Durability, Effect, Era, Invocation, LinkedBy, Outcome,
    Reference, Target, Transport, given_workflow_id,
};
use cairn_freshness::Writing;
use cairn_identity::Reason;
use cairn_limits::{Charged, Entered};
use cairn_mcp::{EditError, Message, RawId, Target as WireTarget, meta};
use cairn_policy::{Masking, OutputMode};
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    Gateway, Refusal,
    approval::Back,
    arrival::Arrival,
    correlate::Trace,
    limiting::Counted,
    payloads::Pending,
    rewriting::Changed,
    session::{Door, Session},
};

/// How much of a call's story will be in the trail, sooner or later.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Accepted {
    /// Nothing, so nothing more need follow.
    Nothing,
    /// Its beginning: an outcome must follow, whether recording works at the moment or not.
    Beginning,
    /// All of it, the outcome included.
    Outcome,
}

/// A request and everything that its events have in common.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) session: Arc<Session>,
    pub(crate) message: Message,
    pub(crate) arrival: Arrival,
    pub(crate) id: RawId,
    pub(crate) method: String,
    pub(crate) direction: Direction,
    pub(crate) durability: Durability,
    pub(crate) target: Target,
    /// The same as it stands in events.
    pub(crate) shown: Target,
    pub(crate) trace: Trace,
    pub(crate) call_id: Uuid,
    pub(crate) common: Common,
    pub(crate) subject: String,
    pub(crate) arguments: Option<Reference>,
    /// Whether what stands for them is made, under everything that policy demands by now.
    pub(crate) arguments_kept: bool,
    /// What the record holds less of than is configured, as far as policy has said by now.
    pub(crate) masking: Masking,
    /// What policies had changed in the arguments.
    pub(crate) rewritten: Option<Changed>,
    /// What is done with a result that holds what it should not, and which policies say so.
    pub(crate) output: Option<(OutputMode, Vec<String>)>,
    /// The answer as the server gave it, where the client gets another.
    pub(crate) as_served: Option<Message>,
    /// Whether the client gets another answer than the server gave.
    pub(crate) is_altered: bool,
    pub(crate) accepted: Instant,
    /// Payloads that the next event refers to.
    pub(crate) pending: Pending,
    /// What came along of the trace, where it may stand in a header of a record.
    pub(crate) tracestate: Option<String>,
    /// The event that caused the next one.
    pub(crate) cause: Option<Uuid>,
    /// Drafts that must be recorded before, and in one go with, the next one.
    pub(crate) backlog: Vec<Planned>,
    /// Room for the outcome of a strict call, from before its first event is recorded until it is armed.
    pub(crate) room: Option<OutcomeRoom>,
    /// What the recorder has accepted of it.
    pub(crate) accepted_by_recorder: Accepted,
    /// When it was forwarded: what it reads may be as old as that.
    pub(crate) asked: Option<Timestamp>,
    /// What it writes to while it is forwarded, as declared.
    pub(crate) writing: Option<Writing>,
    /// Whether the server did not take the token that went with it.
    pub(crate) token_refused: bool,
    /// How often it was played again with another token.
    pub(crate) proven_again: u8,
    /// The binding of the approval that was claimed for it.
    pub(crate) approved: Option<String>,
    /// What covers the later rounds of its operation.
    pub(crate) cover: Option<String>,
    /// The approval that its client comes back to.
    pub(crate) back: Option<Back>,
    /// What it is counted under since it came.
    pub(crate) entered: Option<Entered>,
    /// What it took of budgets and of what policy allows, until it has ended.
    pub(crate) charged: Option<Charged>,
}

impl Call {
    /// Steps 2 to 4: who, which workflow, and masked texts in place of free ones. What stands for its arguments is made when
    /// policy has said how much the record may hold ([`Gateway::keep_arguments`]).
    ///
    /// # Errors
    /// Where the client gave a workflow id that is out of bounds.
    #[allow(clippy::result_large_err, reason = "the message goes back to whoever must answer it, once")]
    pub(crate) fn accept(
        gateway: &Gateway,
        session: &Arc<Session>,
        message: Message,
        arrival: Arrival,
        direction: Direction,
    ) -> Result<Self, (Message, Refusal)> {
        let (message, back) = if direction == Direction::ToServer && arrival.within.is_none() {
            gateway.come_back(session, message)?
        } else {
            (message, None)
        };
        let id = message.id().cloned().unwrap_or_else(RawId::null);
        let method = message.method().unwrap_or_default().to_owned();
        let trace = trace_of(gateway, &message, &arrival);
        let workflow_id = match &arrival.within {
            Some(within) => Ok(within.workflow_id.clone()),
            None => workflow_of(gateway, session, &message, &arrival, &trace),
        };
        let workflow_id = match workflow_id {
            Ok(id) => id,
            Err(reason) => return Err((message, Refusal::BadWorkflow { reason })),
        };
        let trace = trace.of_workflow(|| trace_digest(gateway, session, &workflow_id));
        let call_id = gateway.entropy().uuid_v7(gateway.clock().now());
        let target = target_of(&message);
        let mut common = common_of(gateway, session, &message, direction, &trace, workflow_id, call_id);
        let cause = match joined_to(gateway, session, (&message, &arrival), back.as_ref(), direction, &mut common) {
            Ok(cause) => cause,
            Err(refusal) => return Err((message, refusal)),
        };
        if direction == Direction::ToServer && arrival.within.is_none() && trace.is_continued() {
            gateway.join_trace(session, &common);
        }
        let shown = gateway.screen_target(&target);
        let tracestate = trace.tracestate().and_then(|state| gateway.screen_header(state));
        let subject = match shown.name() {
            Some(name) => format!("{}/{name}", session.server.name),
            None => session.server.name.clone(),
        };
        let durability = Durability::of_method(&method);
        let mut entered = None;
        if direction == Direction::ToServer && arrival.within.is_none() {
            let counted = Counted { session, common: &common, target: &target, shown: &shown, method: &method };
            match gateway.enter(&counted) {
                Ok(counts) => entered = counts,
                Err(refusal) => return Err((message, refusal)),
            }
        }
        let accepted = Instant::now();
        Ok(Self {
            session: session.clone(),
            message,
            arrival,
            id,
            method,
            direction,
            durability,
            target,
            shown,
            trace,
            call_id,
            common,
            subject,
            arguments: None,
            arguments_kept: false,
            masking: Masking::default(),
            rewritten: None,
            output: None,
            as_served: None,
            is_altered: false,
            accepted,
            pending: Pending::default(),
            tracestate,
            cause,
            backlog: Vec::new(),
            room: None,
            accepted_by_recorder: Accepted::Nothing,
            asked: None,
            writing: None,
            token_refused: false,
            proven_again: 0,
            approved: None,
            cover: None,
            back,
            entered,
            charged: None,
        })
    }

    /// An event about this call, caused by the one before.
    pub(crate) fn draft(&mut self, gateway: &Gateway, body: Body) -> Planned {
        let planned = self.draft_for_later(gateway, body);
        self.cause = Some(planned.id);
        planned
    }

    /// An event that comes later or never: what follows is not caused by it.
    pub(crate) fn draft_for_later(&self, gateway: &Gateway, body: Body) -> Planned {
        let id = gateway.entropy().uuid_v7(gateway.clock().now());
        let mut common = self.common.clone();
        common.causation_id = self.cause;
        let draft = Draft {
            key: common.workflow_id.clone(),
            subject: Some(self.subject.clone()),
            traceparent: Some(self.trace.traceparent()),
            tracestate: self.tracestate.clone(),
            common,
            body,
        };
        Planned { id, draft }
    }

    /// Whether a client that goes away cancels the call thereby: it does on a pipe and in the modern era, it does not on
    /// legacy HTTP. A subscription ends with whoever listens.
    pub(crate) fn ends_with_client(&self) -> bool {
        self.session.door == Door::Pipe || self.message.is_modern() || self.method == "subscriptions/listen"
    }

    /// Whether the record must be durable before the next step.
    pub(crate) fn is_strict(&self) -> bool {
        self.durability == Durability::Strict
    }

    /// The message as the server gets it: the same bytes, but for the span in a trace context that the client sent, for
    /// what a server of the other era needs, and for the handle of a server that reports.
    ///
    /// # Errors
    /// Where the change would break a bound.
    pub(crate) fn outbound(&self, gateway: &Gateway) -> Result<Message, EditError> {
        let limits = gateway.wire_limits();
        let message = if self.message.meta_raw(meta::TRACEPARENT).is_none() || !self.trace.is_continued() {
            self.message.clone()
        } else {
            self.message.edit().set_meta_str(meta::TRACEPARENT, &self.trace.traceparent()).finish(limits)?
        };
        let message = self.session.bridge.outbound(message, limits)?;
        gateway.with_handle(self, message)
    }

    /// What policy looks at as arguments: what the method has as such, else all parameters.
    pub(crate) fn arguments_value(&self) -> Option<serde_json::Value> {
        let raw = match self.message.method() {
            Some("tools/call" | "prompts/get") => self.message.arguments_raw(),
            _ => self.message.params_raw(),
        };
        serde_json::from_slice(raw.as_deref().unwrap_or(b"{}")).ok()
    }

    /// What policy looks at besides: the client's answers to what the server asked, what the catalogue holds of the tool,
    /// and how much of the same principal's is under way.
    pub(crate) fn context(&self, gateway: &Gateway) -> serde_json::Map<String, serde_json::Value> {
        let mut context = serde_json::Map::new();
        if let Some(answers) = self.message.input_responses_raw().and_then(|raw| serde_json::from_slice(&raw).ok()) {
            context.insert("input_responses".to_owned(), answers);
        }
        if let Target::Tool { gen_ai_tool_name: name } = &self.target {
            let catalogue = &self.session.server.catalogue;
            let digest = catalogue.tool_digest(name).map(serde_json::Value::from);
            context.extend(digest.map(|digest| ("tool_digest".to_owned(), digest)));
            context.extend(catalogue.hints(name).map(|hints| ("hints".to_owned(), hints)));
        }
        // A client's call is among those that are counted; a server's is not.
        let own = u64::from(self.direction == Direction::ToServer);
        context.extend(gateway.budget_context(self).map(|budget| ("budget".to_owned(), budget)));
        let unfinished = gateway.unfinished(&self.session.caller).saturating_sub(own);
        context.insert("unfinished".to_owned(), unfinished.into());
        context.insert("repeats".to_owned(), gateway.repeated_by(self).is_some().into());
        context.insert("identity".to_owned(), self.identity());
        context
    }

    /// Who asks, as far as it was verified. What does not apply is absent.
    fn identity(&self) -> serde_json::Value {
        let caller = &self.session.caller;
        let mut identity = serde_json::Map::from_iter([("kind".to_owned(), caller.kind.word().into())]);
        for (name, value) in [("tenant", &caller.tenant), ("agent", &caller.agent)] {
            if let Some(value) = value {
                identity.insert(name.to_owned(), value.as_str().into());
            }
        }
        if let Some(scopes) = &self.arrival.scopes {
            identity.insert("scopes".to_owned(), scopes.to_vec().into());
        }
        identity.into()
    }
}

fn trace_of(gateway: &Gateway, message: &Message, arrival: &Arrival) -> Trace {
    let entropy = gateway.entropy();
    let in_meta = message
        .meta_str("traceparent")
        .and_then(|parent| Trace::continued(&parent, message.meta_str("tracestate").as_deref(), entropy));
    let in_header = || {
        let parent = arrival.traceparent.as_deref()?;
        Trace::continued(parent, arrival.tracestate.as_deref(), entropy)
    };
    in_meta.or_else(in_header).unwrap_or_else(|| Trace::new(entropy))
}

/// What names the trace of somebody's workflow: keyed, so that nobody who sees the one can guess the other.
fn trace_digest(gateway: &Gateway, session: &Session, workflow_id: &str) -> String {
    let whose = session.caller.text();
    gateway.keys().secret.digest(["trace", whose.as_str(), workflow_id].join("\n").as_bytes())
}

fn workflow_of(
    gateway: &Gateway,
    session: &Session,
    message: &Message,
    arrival: &Arrival,
    trace: &Trace,
) -> Result<String, String> {
    if let Some(id) = message.meta_str("io.cairn/workflow").as_deref().or(arrival.workflow.as_deref()) {
        let given = given_workflow_id(id).map(ToOwned::to_owned).map_err(|error| error.to_string());
        return given.map(|id| gateway.screen_id(id));
    }
    if trace.is_continued() {
        return Ok(trace.trace_id().to_owned());
    }
    if let Some(shared) = &session.shared_workflow {
        let is_request = message.kind() == cairn_mcp::Kind::Request;
        return Ok(shared.id(is_request, gateway.clock(), gateway.entropy()));
    }
    let secret = session.secret.lock().clone();
    Ok(match secret {
        Some(secret) => gateway.keys().secret.digest(secret.as_bytes()),
        // A modern request has a session of its own, so what joins its calls is the connection that they came over.
        None => arrival.connection.as_deref().unwrap_or(&session.connection).to_owned(),
    })
}

fn common_of(
    gateway: &Gateway,
    session: &Session,
    message: &Message,
    direction: Direction,
    trace: &Trace,
    workflow_id: String,
    call_id: Uuid,
) -> Common {
    let claims = session.claims.lock().clone();
    let agent = message.client_info_raw().and_then(|raw| serde_json::from_slice::<serde_json::Value>(&raw).ok());
    let word = |key: &str| Some(gateway.screen(agent.as_ref()?.get(key)?.as_str()?));
    let shown = if message.is_modern() { Era::Modern } else { Era::Legacy };
    let era = session.bridge.client_era().unwrap_or(shown);
    Common {
        workflow_id,
        call_id: Some(call_id),
        task: message.meta_str("io.cairn/task").map(|task| gateway.screen(&task)),
        direction: Some(direction),
        trace_id: Some(trace.trace_id().to_owned()),
        span_id: Some(trace.span_id().to_owned()),
        tenant: session.caller.tenant.clone(),
        principal: Some(session.caller.principal.clone()),
        agent: session.caller.agent.clone(),
        agent_name: word("name").or(claims.agent_name),
        agent_version: word("version").or(claims.agent_version),
        server: Some(session.server.name.clone()),
        server_version: claims.server_version,
        era: Some(era),
        mcp_protocol_version: message
            .protocol_version()
            .or(claims.protocol_version)
            .map(|version| gateway.screen(&version)),
        network_transport: Some(match session.door {
            Door::Pipe => Transport::Pipe,
            Door::Http => Transport::Tcp,
        }),
        mcp_method_name: message.method().map(|method| gateway.screen(method)),
        mcp_session_id: session.secret.lock().as_ref().map(|secret| gateway.keys().secret.digest(secret.as_bytes())),
        jsonrpc_request_id: message.id().map(|id| gateway.screen(id.as_str())),
        ..Common::default()
    }
}

/// Joins a call to the operation that it goes on with, where there is one; gives the event that caused it, where that is known.
fn joined_to(
    gateway: &Gateway,
    session: &Arc<Session>,
    (message, arrival): (&Message, &Arrival),
    back: Option<&Back>,
    direction: Direction,
    common: &mut Common,
) -> Result<Option<Uuid>, Refusal> {
    if let Some(within) = &arrival.within {
        common.operation_id = Some(within.operation_id.clone());
        common.linked_by = Some(LinkedBy::Inferred);
        return Ok(within.cause);
    }
    if direction == Direction::ToServer {
        if gateway.operations().join(gateway, session, message, common).is_err() {
            gateway.note_refusal_of(Reason::StateOther, session);
            let reason = cairn_mcp::bridge::StateFault::Foreign.to_string();
            return Err(Refusal::BadState { reason });
        }
        if let Some(back) = back.filter(|_| common.operation_id.is_none()) {
            back.join(common);
        }
        gateway.join_task(session, message, common);
    }
    Ok(None)
}

fn target_of(message: &Message) -> Target {
    match message.target() {
        Some(WireTarget::Tool(name)) => Target::tool(name),
        Some(WireTarget::Prompt(name)) => Target::prompt(name),
        Some(WireTarget::Resource(uri)) => Target::resource(uri),
        Some(WireTarget::Task(_)) | None => Target::None,
    }
}

/// What a call carries besides its envelope: arguments where the method has them, with the client's answers to what the
/// server asked where there are any; else all parameters.
pub(crate) fn payload_of(message: &Message) -> Option<Bytes> {
    let answers = message.input_responses_raw();
    match message.method() {
        Some("tools/call" | "prompts/get") if answers.is_some() => {
            let arguments = message.arguments_raw().unwrap_or_else(|| Bytes::from_static(b"{}"));
            let answers = answers.unwrap_or_default();
            Some([b"{\"arguments\":", &arguments[..], b",\"inputResponses\":", &answers, b"}"].concat().into())
        }
        Some("tools/call" | "prompts/get") => message.arguments_raw(),
        _ => message.params_raw(),
    }
}

/// Why the client calls, as it says itself: marked as claimed, never proof.
pub(crate) fn invocation(gateway: &Gateway, message: &Message) -> Option<Invocation> {
    let raw = message.meta_raw("io.cairn/invocation")?;
    let claims: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&raw).ok()?;
    let text = |key: &str| claims.get(key)?.as_str().map(|text| gateway.screen(text));
    let turn = claims.get("turn").and_then(serde_json::Value::as_u64);
    Some(Invocation { claimed: Claimed, reason: text("reason"), model: text("model"), turn })
}

/// An outcome that says nothing yet but how the call ended and what that means.
pub(crate) const fn outcome_of(outcome: Outcome, effect: Effect) -> CallOutcome {
    CallOutcome {
        outcome,
        effect,
        http_response_status_code: None,
        rpc_response_status_code: None,
        is_error: None,
        error_type: None,
        result: None,
        elapsed_us: None,
        upstream_elapsed_us: None,
        progress_notifications: None,
        recovered: None,
        screened: None,
    }
}
