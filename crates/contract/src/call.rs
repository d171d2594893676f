//! The events of `mcp.calls`: the life of one call, from its decision to its outcome and what came after.
//!
//! The gateway makes them; the recorder closes with them what a crash left open. Each struct's fields are the event's
//! own keys, named as in the JSON. Payloads never appear: a [`Reference`] stands for each.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::{Era, Reference, Target, Transport};

/// `call.decision`: what policy said of a call, and on what inputs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallDecision {
    /// Whether the call may go on.
    pub decision: Decision,
    /// The policy set that decided: `sha256:<hex>`, or `observe` without policy files.
    pub policy_version: String,
    /// The policies that made the decision, by id. Empty where no policy matched.
    #[serde(default)]
    pub determining_policies: Vec<String>,
    /// What the decision demands besides, by name: `approval`.
    #[serde(default)]
    pub obligations: Vec<String>,
    /// What went wrong in evaluating policies.
    #[serde(default)]
    pub errors: Vec<String>,
    /// The exact policy request and entities.
    pub inputs: Reference,
    /// Time spent deciding, in microseconds.
    pub elapsed_us: u64,
    /// What the call is about.
    #[serde(flatten)]
    pub target: Target,
    /// The call's arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Reference>,
    /// Digest of the tool's definition as the catalogue holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_digest: Option<String>,
    /// What the call stands on, as its tool declares, and how that stood at this moment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freshness: Vec<StoodOn>,
    /// Where no policy permits: the permit that came nearest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<NearestPermit>,
    /// What the policies that are tried would have decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowDecision>,
    /// What policies had changed in the arguments since the decision before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<Rewritten>,
    /// Where a decision point elsewhere was asked: what it said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outside: Option<Box<Outside>>,
    /// The span within which the client called, where it brought a trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
}

/// What a decision point elsewhere said.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Outside {
    /// Which: its host, with the port where it is named.
    pub id: String,
    /// What it decided; absent where it gave no decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// Until it had answered, in microseconds.
    pub elapsed_us: u64,
    /// The version of what decided there, as it says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_version: Option<String>,
    /// The policies that made the decision there, as it says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub determining_policies: Vec<String>,
    /// Why, as it says it; screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why its answer could not be followed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
}

/// Arguments that policies had changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rewritten {
    /// The policies that wanted it.
    pub policies: Vec<String>,
    /// Keyed digest of the arguments as the client sent them.
    pub original: String,
    /// Keyed digest of the arguments as they go on.
    pub forwarded: String,
}

/// A resource that a call stands on.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StoodOn {
    /// The resource, screened; empty where it cannot be said which.
    pub mcp_resource_uri: String,
    /// How the caller's knowledge of it stood.
    pub state: Freshness,
    /// The version that the caller has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// The newest version that Cairn knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
    /// How long ago the caller's read was asked for, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
}

/// How a caller's knowledge of a resource stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// Nothing newer is known.
    Fresh,
    /// Nothing newer is known, but the guard is too far behind the stream.
    Behind,
    /// Nothing is known of a read.
    Unknown,
    /// Somebody writes to it at this moment.
    Changing,
    /// Something newer is known.
    Stale,
}

/// A permit, and why it does not permit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct NearestPermit {
    /// The policy's id.
    pub policy: String,
    /// Its first part that does not hold, as the policy says it.
    pub failed: String,
    /// How many of its parts do not hold.
    pub failing: u64,
}

/// A decision that did not count.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShadowDecision {
    /// The set that was asked.
    pub policy_version: String,
    /// What it would have decided.
    pub decision: Decision,
    /// Whether it would have decided otherwise, or demanded something else.
    pub differs: bool,
}

/// Whether a call may go on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It may, if its obligations are met.
    Permit,
    /// It may not.
    Deny,
}

/// `call.approval`: a hold was asked for, or ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallApproval {
    /// Where the approval stands.
    pub state: ApprovalState,
    /// What `cairn approve` takes.
    pub approval_id: String,
    /// Digest that binds the approval to the exact call: policy version, target and arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binding: Option<String>,
    /// Who approved or denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approver: Option<String>,
    /// Who may approve, where policies name them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<String>,
    /// How many different approvers it takes, where one is not enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quorum: Option<u32>,
    /// When the approval ends by itself (RFC 3339, UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// Why, in the approver's words or Cairn's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where an approval stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Somebody is asked.
    Requested,
    /// Somebody said yes.
    Approved,
    /// Somebody said no.
    Denied,
    /// Nobody answered in time.
    Expired,
}

/// `call.intent`: the call is about to be forwarded. For a strict call it is durable before the forward.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallIntent {
    /// What the call is about.
    #[serde(flatten)]
    pub target: Target,
    /// The call's arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Reference>,
    /// Whether the forward waited for stable storage.
    pub durability: Durability,
    /// Keyed digest of the bytes sent.
    pub forwarded: String,
    /// The policy set of the decision that counts.
    pub policy_version: String,
    /// The life cycle that the server speaks (`era` is the client's).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Era>,
    /// The MCP revision spoken to the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_protocol_version: Option<String>,
    /// What carries the server's messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_network_transport: Option<Transport>,
    /// The `call_id` of an identical earlier call whose effect is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Uuid>,
    /// The resources that the call writes to, as its tool declares, screened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub writes: Vec<String>,
    /// Why, as the client says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invocation: Option<Invocation>,
    /// What policies had changed in the arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<Rewritten>,
}

/// Whether a step waits for stable storage.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// It waits.
    Strict,
    /// It is queued in bounded memory and flushed within 50 ms.
    Relaxed,
}

/// Methods that only look: their record may lag behind. Everything else, unknown methods included, is strict.
const RELAXED: [&str; 17] = [
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "roots/list",
    "server/discover",
    "subscriptions/listen",
    "tasks/get",
    "tasks/list",
    "tools/list",
];

impl Durability {
    /// What a request's record needs before the next step, where no policy demands more.
    #[must_use]
    pub fn of_method(method: &str) -> Self {
        if RELAXED.binary_search(&method).is_ok() { Self::Relaxed } else { Self::Strict }
    }
}

/// Why a client calls, as it says itself in `_meta`, screened. Never proof.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Invocation {
    /// Always `true` in the JSON: readers are to see that it is a claim.
    pub claimed: Claimed,
    /// The reason given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The model said to have chosen the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The turn of the conversation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<u64>,
}

/// A mark that is always `true`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Claimed;

impl Serialize for Claimed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(true)
    }
}

impl<'de> Deserialize<'de> for Claimed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? {
            Ok(Self)
        } else {
            Err(de::Error::custom("an invocation is always claimed"))
        }
    }
}

/// `call.outcome`: the one terminal event of a call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallOutcome {
    /// How the call ended.
    pub outcome: Outcome,
    /// What this says about the server.
    pub effect: Effect,
    /// The HTTP layer's status, where the server speaks HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_response_status_code: Option<u16>,
    /// The JSON-RPC layer's error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpc_response_status_code: Option<i64>,
    /// Whether the tool itself failed (`isError`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// A short stable name of what went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// The result or error as the server sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Reference>,
    /// From accept to this event, in microseconds. Absent where a later start closed the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
    /// From forward to final response, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_elapsed_us: Option<u64>,
    /// How many progress notifications passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress_notifications: Option<u64>,
    /// `true` where a later start closed a call that a crash left open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
    /// What detectors found in the result, where policies had it looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub screened: Option<Screened>,
}

/// What was found in a result before the client got it. Never what was found itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Screened {
    /// What became of the result.
    pub action: ScreenAction,
    /// The policies that wanted it looked at.
    pub policies: Vec<String>,
    /// How much was found.
    pub found: u64,
    /// Which rules found something, as far as findings are named one by one.
    pub rules: Vec<String>,
    /// Digest of the rules.
    pub detectors: String,
}

/// What became of a result that was looked at.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScreenAction {
    /// Nothing was found.
    Passed,
    /// Something was found, and the client got it as it is.
    Flagged,
    /// What was found was replaced.
    Redacted,
    /// The client got an error in its place.
    Blocked,
}

/// How a call ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// With a result.
    Completed,
    /// With an error.
    Failed,
    /// Policy or an approver said no.
    Denied,
    /// The client took it back.
    Cancelled,
    /// Time ran out.
    TimedOut,
    /// The request ended, the work did not: the server wants input.
    InputRequired,
    /// The request ended with a task handle.
    Accepted,
    /// Nobody can know.
    InDoubt,
}

/// What an outcome says about the server.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing was sent.
    None,
    /// The server answered.
    Answered,
    /// Something may have been sent, and no answer came.
    Unknown,
}

/// `call.answered`: whether the answer was written out to the client. Relaxed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallAnswered {
    /// Whether it was.
    pub written: bool,
    /// What stopped it, where it was not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// From accept to this event, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
}

/// `call.late`: an answer that came after the call's outcome.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct CallLate {
    /// The HTTP layer's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_response_status_code: Option<u16>,
    /// The JSON-RPC layer's error code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpc_response_status_code: Option<i64>,
    /// Whether the tool itself failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// What came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Reference>,
    /// From forward to the late answer, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_elapsed_us: Option<u64>,
}

/// `call.settled`: the observed end of a task, under the call that began it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CallSettled {
    /// How the task ended.
    pub state: SettledState,
    /// The task, as a keyed digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<String>,
    /// Whether the tool itself failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// The JSON-RPC error code, where the task ended with an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rpc_response_status_code: Option<i64>,
    /// The task's result.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Reference>,
    /// The call in which the end was first observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_in: Option<Uuid>,
}

/// How a task ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettledState {
    /// With a result.
    Completed,
    /// With an error.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// Never observed within its time to live.
    Unknown,
}
