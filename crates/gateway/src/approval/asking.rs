//! What a call asks for: the request for an approval with everything that is bound, and its events.
//!
//! Later rounds of one operation are covered by the first one's approval, so two digests are made: over all that goes out,
//! which an approver sees and a claim must match, and over the same without what the client answers between two rounds.

use std::time::Duration;

use bytes::Bytes;
use cairn_approvals::{Approval, Bound, Need, Request, binding};
use cairn_contract::{ApprovalState, Body, CallApproval, Common, Draft, Outcome, Target};
use cairn_identity::Kind;
use cairn_mcp::{Message, meta};
use cairn_policy::{ApprovalDemand, Masking, Permit};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{NotNow, Way};
use crate::{Gateway, Refusal, bridge::Within, call::Call};

/// Where a request says which event asked.
pub(super) const CAUSE: &str = "cause";
/// How long an approval may take where no policy says so and no call waits for it.
const EXPIRES: Duration = Duration::from_secs(600);

/// What a client of 2026-07-28 says with each request.
const OF_A_CLIENT: [&str; 3] = [meta::PROTOCOL_VERSION, meta::CLIENT_CAPABILITIES, meta::CLIENT_INFO];
/// Pages of a server's list that are looked through for one tool.
const PAGES_MAX: usize = 16;

/// A request for an approval, and what covers the rounds after it.
pub(super) struct Wish {
    pub(super) request: Request,
    pub(super) cover: String,
    pub(super) way: Way,
}

/// What the gateway keeps of the call that asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct About {
    pub(super) common: Common,
    pub(super) subject: String,
    pub(super) traceparent: String,
    pub(super) tracestate: Option<String>,
    /// The event that asked.
    pub(super) cause: Option<Uuid>,
    /// How the client heard of it.
    pub(super) way: Way,
    /// The whole request as the client sent it, where Cairn may have to make it itself.
    pub(super) message: Option<String>,
    /// The server's own request state and the client's answers, which a client that comes back to Cairn does not bring.
    pub(super) state: Option<String>,
    pub(super) responses: Option<String>,
    /// Whose it is, as one text.
    pub(super) caller: String,
    /// What the record holds less of.
    #[serde(default)]
    pub(super) masking: Masking,
}

impl About {
    pub(super) fn of(approval: &Approval) -> Option<Self> {
        serde_json::from_value(approval.request.about.clone()).ok()
    }
}

impl Gateway {
    /// Sees to it that the definition of the tool that is called is known, where its server lists it: an approval is bound
    /// to it, also after a restart, when nobody has listed anything yet.
    pub(crate) async fn know_definition(&self, call: &Call) {
        let Target::Tool { gen_ai_tool_name: name } = &call.target else { return };
        let mut cursor = Value::Null;
        for _ in 0..PAGES_MAX {
            if call.session.server.catalogue.tool_digest(name).is_some() {
                return;
            }
            let mut params = json!({});
            for key in call.message.meta_keys().iter().filter(|key| OF_A_CLIENT.contains(&key.as_str())) {
                let said = call.message.meta_raw(key).and_then(|raw| serde_json::from_slice::<Value>(&raw).ok());
                params["_meta"][key.as_str()] = said.unwrap_or_default();
            }
            if !cursor.is_null() {
                params["cursor"] = cursor;
            }
            let answer = self.call_within(&call.session, "tools/list", params, Within::of(call)).await;
            let Some(result) = answer.result_raw() else { return };
            let listed: Value = serde_json::from_slice(&result).unwrap_or_default();
            cursor = listed["nextCursor"].clone();
            if cursor.is_null() {
                return;
            }
        }
    }

    /// What the call asks for under its permit.
    pub(super) fn wish(&self, call: &Call, permit: &Permit, demand: &ApprovalDemand<'_>) -> Result<Wish, NotNow> {
        let way = self.way(call);
        let now = self.clock().now();
        let hold_max = self.limits().hold_max;
        let waits = way == Way::Wait;
        let outlives = !waits || demand.expires.is_some_and(|expires| expires > hold_max);
        let expires_at = now.plus(demand.expires.unwrap_or(if waits { hold_max } else { EXPIRES }));
        let arguments = call.arguments_to_approve(self)?;
        let tool_digest = call.target.name().and_then(|name| call.session.server.catalogue.tool_digest(name));
        let bound = |arguments: &[u8], tool_digest: Option<&str>| {
            let caller = &call.session.caller;
            let bound = Bound {
                tenant: caller.tenant.as_deref(),
                principal: &caller.principal,
                agent: caller.agent.as_deref(),
                server: &call.session.server.name,
                method: &call.method,
                target: call.target.name().unwrap_or(&call.method),
                arguments,
                policy_version: permit.version(),
                tool_digest,
            };
            let refused = |error: cairn_contract::CanonicalError| {
                NotNow::Refused(Outcome::Failed, Refusal::TooLarge { reason: error.to_string() })
            };
            binding(&self.payload_key(caller), &bound).map_err(refused)
        };
        let whole = bound(&arguments.whole, tool_digest.as_deref())?;
        let cover = bound(&arguments.own, None)?;
        let about = About {
            common: call.common.clone(),
            subject: call.subject.clone(),
            traceparent: call.trace.traceparent(),
            tracestate: call.tracestate.clone(),
            cause: None,
            way,
            // As the client sent it: what policies want changed is changed when it is made.
            message: (way == Way::Task)
                .then(|| text(call.rewritten.as_ref().map_or(&call.message, |changed| &changed.original).bytes())),
            state: call.message.request_state_raw().map(|raw| text(&raw)),
            responses: call.message.input_responses_raw().map(|raw| text(&raw)),
            caller: call.session.caller.text(),
            masking: call.masking.clone(),
        };
        let caller = &call.session.caller;
        let need = |need: &cairn_policy::ApprovalNeed| Need {
            policy: need.policy.clone(),
            approvers: need.approvers.clone(),
            quorum: need.quorum,
        };
        let request = Request {
            id: format!("ap-{}", call.call_id.simple()),
            tenant: caller.tenant.clone(),
            principal: caller.principal.clone(),
            agent: caller.agent.clone(),
            verified: caller.kind != Kind::Local,
            server: call.session.server.name.clone(),
            method: call.method.clone(),
            target: call.target.name().unwrap_or(&call.method).to_owned(),
            arguments: text(&arguments.whole),
            workflow_id: call.common.workflow_id.clone(),
            call_id: call.call_id.to_string(),
            policy_version: permit.version().to_owned(),
            tool_digest,
            binding: whole,
            needs: demand.needs.iter().map(need).collect(),
            requested_at: now,
            expires_at,
            outlives,
            about: json!(about),
        };
        Ok(Wish { request, cover, way })
    }

    /// The event of an approval.
    pub(super) fn approval_body(
        &self,
        approval: &Approval,
        state: ApprovalState,
        approver: Option<String>,
        reason: Option<String>,
    ) -> Body {
        let request = &approval.request;
        let mut approvers: Vec<String> = request.needs.iter().flat_map(|need| need.approvers.clone()).collect();
        approvers.sort_unstable();
        approvers.dedup();
        let (_, quorum) = approval.counted();
        Body::CallApproval(CallApproval {
            state,
            approval_id: request.id.clone(),
            binding: Some(request.binding.clone()),
            approver: approver.map(|name| self.screen(&name)),
            approvers,
            quorum: (quorum > 1).then_some(quorum),
            expires_at: Some(request.expires_at.to_string()),
            reason: reason.map(|words| self.screen(&words)),
        })
    }

    /// An event of an approval whose call may have ended, in that call's story.
    pub(super) fn draft_about(&self, approval: &Approval, body: Body) -> cairn_backbone::Planned {
        let draft = match About::of(approval) {
            Some(about) => {
                let last = approval.votes.last().and_then(|vote| vote.event);
                let common = Common { causation_id: last.or(about.cause), ..about.common };
                Draft {
                    key: common.workflow_id.clone(),
                    subject: Some(about.subject),
                    traceparent: Some(about.traceparent),
                    tracestate: about.tracestate,
                    common,
                    body,
                }
            }
            // Never, unless another version wrote it: then at least it is there.
            None => Draft {
                key: approval.request.workflow_id.clone(),
                subject: Some(approval.request.server.clone()),
                traceparent: None,
                tracestate: None,
                common: Common {
                    workflow_id: approval.request.workflow_id.clone(),
                    call_id: approval.request.call_id.parse().ok(),
                    principal: Some(approval.request.principal.clone()),
                    server: Some(approval.request.server.clone()),
                    ..Common::default()
                },
                body,
            },
        };
        self.recorder().plan(draft)
    }

    /// Records how an approval ended, where nothing waits for that.
    pub(super) fn record_about(
        &self,
        approval: &Approval,
        state: ApprovalState,
        approver: Option<String>,
        reason: Option<String>,
    ) {
        let body = self.approval_body(approval, state, approver, reason);
        let planned = self.draft_about(approval, body);
        self.recorder().relaxed(planned);
    }
}

/// What an approval is asked for.
struct Arguments {
    /// All that goes out besides the envelope.
    whole: Bytes,
    /// The same without the client's answers between two rounds.
    own: Bytes,
}

impl Call {
    fn arguments_to_approve(&self, gateway: &Gateway) -> Result<Arguments, NotNow> {
        let refused = |error: cairn_mcp::EditError| {
            NotNow::Refused(Outcome::Failed, Refusal::TooLarge { reason: error.to_string() })
        };
        let own = own_arguments(&self.message, gateway).map_err(refused)?;
        let whole = match self.message.input_responses_raw() {
            Some(answers) => [b"{\"arguments\":", &own[..], b",\"inputResponses\":", &answers, b"}"].concat().into(),
            None => own.clone(),
        };
        Ok(Arguments { whole, own })
    }
}

/// The arguments where the method has them; else all parameters without what differs in an identical retry.
fn own_arguments(message: &Message, gateway: &Gateway) -> Result<Bytes, cairn_mcp::EditError> {
    let empty = || Bytes::from_static(b"{}");
    if matches!(message.method(), Some("tools/call" | "prompts/get")) {
        return Ok(message.arguments_raw().unwrap_or_else(empty));
    }
    if message.params_raw().is_none() {
        return Ok(empty());
    }
    let edit = message.edit().remove_param("_meta").remove_param("requestState").remove_param("inputResponses");
    Ok(edit.finish(gateway.wire_limits())?.params_raw().unwrap_or_else(empty))
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A raw JSON text that was kept as text.
pub(super) fn raw(text: &str) -> Option<Bytes> {
    serde_json::from_str::<Value>(text).ok()?;
    Some(Bytes::copy_from_slice(text.as_bytes()))
}
