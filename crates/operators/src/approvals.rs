//! What waits for people, over HTTP: shown with the exact arguments, and settled.
//!
//! Who settles is who the token says. The one operator's token names nobody, so there the name in the body stands in the
//! record; it counts as one person all the same.

use axum::{
    Extension, Json,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use cairn_approvals::{Approval, VoteError};
use cairn_gateway::{Gateway, SettleError, Settled, Settlement};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Admin, Operator, api::problem};

/// Longest name and reason that are taken from a body, in characters.
const WORDS_MAX: usize = 256;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(crate) struct SettleBody {
    approver: Option<String>,
    reason: Option<String>,
}

/// An approval as people see it.
pub(crate) fn shown(approval: &Approval) -> Value {
    let request = &approval.request;
    let (given, quorum) = approval.counted();
    let needs = request
        .needs
        .iter()
        .map(|need| json!({ "policy": need.policy, "approvers": need.approvers, "quorum": need.quorum }));
    json!({
        "id": request.id,
        "state": match approval.standing() {
            cairn_approvals::Standing::Waiting => "requested",
            cairn_approvals::Standing::Approved => "approved",
        },
        "tenant": request.tenant,
        "principal": request.principal,
        "agent": request.agent,
        "server": request.server,
        "method": request.method,
        "target": request.target,
        "arguments": request.arguments,
        "workflow_id": request.workflow_id,
        "call_id": request.call_id,
        "policy_version": request.policy_version,
        "tool_digest": request.tool_digest,
        "binding": request.binding,
        "needs": needs.collect::<Vec<_>>(),
        "given": given,
        "quorum": quorum,
        "approved_by": approval.votes.iter().map(|vote| vote.approver.as_str()).collect::<Vec<_>>(),
        "requested_at": request.requested_at.to_string(),
        "expires_at": request.expires_at.to_string(),
    })
}

/// Those that wait for somebody. What everybody has approved waits for its client, and is not asked for again.
pub(crate) async fn waiting(State(admin): State<Admin>) -> Json<Value> {
    let all = admin.gateway().map(|gateway| gateway.approvals().all()).unwrap_or_default();
    let wait = |approval: &&Approval| approval.standing() == cairn_approvals::Standing::Waiting;
    let (waiting, approved): (Vec<&Approval>, Vec<&Approval>) = all.iter().partition(wait);
    let list = |all: Vec<&Approval>| all.into_iter().map(shown).collect::<Vec<_>>();
    Json(json!({ "waiting": list(waiting), "approved": list(approved) }))
}

pub(crate) async fn one(State(admin): State<Admin>, Path(id): Path<String>) -> Response {
    match admin.gateway().and_then(|gateway| gateway.approvals().get(&id)) {
        Some(approval) => Json(shown(&approval)).into_response(),
        None => problem(StatusCode::NOT_FOUND, VoteError::Unknown { id }),
    }
}

pub(crate) async fn settle(
    State(admin): State<Admin>,
    Extension(operator): Extension<Operator>,
    Path((id, verb)): Path<(String, String)>,
    body: Bytes,
) -> Response {
    let approve = match verb.as_str() {
        "approve" => true,
        "deny" => false,
        _ => return problem(StatusCode::NOT_FOUND, "an approval is settled by approve or deny"),
    };
    // Nothing is said as well by no body as by an empty object.
    let body = if body.is_empty() { Ok(SettleBody::default()) } else { serde_json::from_slice(&body) };
    let SettleBody { approver, reason } = match body {
        Ok(body) => body,
        Err(error) => {
            let words = format!("the body is no JSON object with approver and reason: {error}");
            return problem(StatusCode::BAD_REQUEST, words);
        }
    };
    let Some(gateway) = admin.gateway() else {
        return problem(StatusCode::NOT_FOUND, "no gateway runs here, so nothing waits");
    };
    match settled(gateway, &operator, &id, approve, approver, reason).await {
        Ok(settled) => Json(told(&id, settled)).into_response(),
        Err(error) => problem(status(&error), error),
    }
}

/// Settles as that operator.
pub(crate) async fn settled(
    gateway: &Gateway,
    operator: &Operator,
    id: &str,
    approve: bool,
    approver: Option<String>,
    reason: Option<String>,
) -> Result<Settled, SettleError> {
    let words = |text: String| text.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect::<String>();
    let said = approver.filter(|_| !operator.named).map(words).filter(|name| !name.is_empty());
    let settlement = Settlement {
        approve,
        approver: said.unwrap_or_else(|| operator.name.clone()),
        identity: operator.name.clone(),
        reason: reason.map(words).filter(|reason| !reason.is_empty()),
    };
    gateway.settle(id, settlement).await
}

fn told(id: &str, settled: Settled) -> Value {
    match settled {
        Settled::Approved => json!({ "id": id, "state": "approved" }),
        Settled::Denied => json!({ "id": id, "state": "denied" }),
        Settled::Counted { given, wanted } => {
            json!({ "id": id, "state": "requested", "given": given, "quorum": wanted })
        }
    }
}

/// What an error is over HTTP.
pub(crate) fn status(error: &SettleError) -> StatusCode {
    match error {
        SettleError::Vote(VoteError::Unknown { .. }) => StatusCode::NOT_FOUND,
        SettleError::Vote(VoteError::OwnCall { .. } | VoteError::NotAsked { .. }) => StatusCode::FORBIDDEN,
        SettleError::Vote(VoteError::Again { .. }) => StatusCode::CONFLICT,
        SettleError::Vote(VoteError::NotKept(_)) | SettleError::NotRecorded { .. } => StatusCode::SERVICE_UNAVAILABLE,
    }
}
