//! One row of a data set: a call of a tool, with what led to it and what became of it.
//!
//! The order of the keys is the order in the file; a key that does not apply is absent. What is changed here changes
//! [`crate::LAYOUT`]. References stand as the events have them: digest, size, media type, location, and the masked text where the event holds
//! it and the data set may.

use serde::{Deserialize, Serialize};
use serde_json::Value;

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A call of a tool.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The call.
    pub call_id: String,
    /// The agent's task, across calls and servers.
    pub workflow_id: String,
    /// What the client says it works on, screened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The trace.
    pub trace_id: String,
    /// What joins the calls of one operation,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
    /// and which round of it this call is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<u64>,
    /// The tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Who acts, as Cairn verified it.
    pub principal: String,
    /// The agent, as Cairn verified it,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// and as it calls itself,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// in which version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The server.
    pub server: String,
    /// Its version, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// When it was decided first.
    pub time: String,
    /// The model call that chose it, where one is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelCall>,
    /// Where the offer is from: `model`, or `list` where only what the client was told of this server is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered_by: Option<String>,
    /// The tools that could be chosen, in the sender's order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools_offered: Option<Vec<Offered>>,
    /// How many more there were than stand in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools_offered_more: Option<u64>,
    /// The tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The digest of its definition, as the catalogue has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_digest: Option<String>,
    /// The arguments: a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Value>,
    /// Where policies had them changed: which, from what, to what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewritten: Option<Value>,
    /// The decision that counts, `permit` or `deny`,
    pub decision: String,
    /// by this policy set,
    pub policy_version: String,
    /// by these policies of it,
    pub determining_policies: Vec<String>,
    /// with what it demanded.
    pub obligations: Vec<String>,
    /// What went wrong in evaluating policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy_errors: Vec<String>,
    /// What was asked of people, and what they said.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// How it ended; absent where it has not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// What is known of what the server did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// What went wrong, by a short name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// Whether the tool itself failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// The JSON-RPC layer's error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpc_response_status_code: Option<i64>,
    /// The HTTP layer's status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_response_status_code: Option<i64>,
    /// The result: a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    /// From accept to outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
    /// From forward to the server's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_elapsed_us: Option<u64>,
    /// Whether a later start closed the call.
    #[serde(default, skip_serializing_if = "is_false")]
    pub recovered: bool,
    /// The end of the task that it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled: Option<Settled>,
    /// What its server reports that it did downstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<Action>,
    /// Whether its principal was erased: then no text is here, and no payload is left anywhere.
    #[serde(default, skip_serializing_if = "is_false")]
    pub erased: bool,
    /// The events that it was made of.
    pub events: Vec<EventOf>,
}

/// A model call that chose a tool.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelCall {
    /// How it was joined: `call id` where the sender told it, else `trace and name`.
    pub joined_by: String,
    /// Its span.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// Who reported it, as Cairn verified it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reported_by: Option<String>,
    /// Who was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The model that was asked for,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_model: Option<String>,
    /// and the one that answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_model: Option<String>,
    /// What was asked: a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Value>,
    /// What it answered: a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// The definitions of the tools that were offered: a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Value>,
    /// The model's id of this choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choice_id: Option<String>,
    /// Tokens that were read,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// and written, by the whole model call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// What the whole model call cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<String>,
    /// In what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// How many tools it chose: tokens and cost stand in the row of each.
    pub tools_chosen: u64,
    /// When it was asked, as the sender says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// How long that took, as the sender says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
}

/// A tool that could be chosen.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Offered {
    /// Its name.
    pub name: String,
    /// The digest of its definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A step of an approval.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Where it stands.
    pub state: String,
    /// Which one.
    pub approval_id: String,
    /// Since when.
    pub time: String,
    /// Who approved or denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approver: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a task ended.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settled {
    /// How.
    pub state: String,
    /// Whether the tool itself failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_error: Option<bool>,
    /// The task's result: a reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
}

/// What a server did downstream.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Where,
    pub system: String,
    /// what it is there,
    pub kind: String,
    /// its id there,
    pub id: String,
    /// and how it stands.
    pub state: String,
}

/// An event that a row was made of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventOf {
    /// Its type.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Where it lies.
    pub topic: String,
    /// In which partition.
    pub partition: u32,
    /// At which offset.
    pub offset: u64,
}
