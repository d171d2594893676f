//! What a data set reads of an event's value, whichever type it is.
//!
//! Keys that an event has not are absent; one that has another form than this program knows makes the event unreadable, which is counted and
//! shown, never guessed at.

use cairn_consumers::Event;
use serde::Deserialize;
use serde_json::Value;

use crate::Offered;

/// The keys of an event, by the contracts' names.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Said {
    pub(crate) workflow_id: Option<String>,
    pub(crate) call_id: Option<String>,
    pub(crate) task: Option<String>,
    pub(crate) operation_id: Option<String>,
    pub(crate) round: Option<u64>,
    pub(crate) direction: Option<String>,
    pub(crate) trace_id: Option<String>,
    pub(crate) span_id: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) agent: Option<String>,
    pub(crate) agent_name: Option<String>,
    pub(crate) agent_version: Option<String>,
    pub(crate) server: Option<String>,
    pub(crate) server_version: Option<String>,
    pub(crate) mcp_method_name: Option<String>,
    pub(crate) mcp_session_id: Option<String>,
    pub(crate) hlc: Option<String>,
    pub(crate) decision: Option<String>,
    pub(crate) policy_version: Option<String>,
    pub(crate) determining_policies: Vec<String>,
    pub(crate) obligations: Vec<String>,
    pub(crate) errors: Vec<String>,
    pub(crate) gen_ai_tool_name: Option<String>,
    pub(crate) tool_digest: Option<String>,
    pub(crate) arguments: Option<Value>,
    pub(crate) rewritten: Option<Value>,
    pub(crate) state: Option<String>,
    pub(crate) approval_id: Option<String>,
    pub(crate) approver: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) outcome: Option<String>,
    pub(crate) effect: Option<String>,
    pub(crate) error_type: Option<String>,
    pub(crate) is_error: Option<bool>,
    pub(crate) http_response_status_code: Option<i64>,
    pub(crate) rpc_response_status_code: Option<i64>,
    pub(crate) result: Option<Value>,
    pub(crate) elapsed_us: Option<u64>,
    pub(crate) upstream_elapsed_us: Option<u64>,
    pub(crate) recovered: bool,
    pub(crate) screened: Option<Screened>,
    pub(crate) gen_ai_provider_name: Option<String>,
    pub(crate) gen_ai_request_model: Option<String>,
    pub(crate) gen_ai_response_model: Option<String>,
    pub(crate) gen_ai_usage_input_tokens: Option<u64>,
    pub(crate) gen_ai_usage_output_tokens: Option<u64>,
    pub(crate) prompt: Option<Value>,
    pub(crate) output: Option<Value>,
    pub(crate) tools: Option<Value>,
    pub(crate) tools_offered: Option<Vec<Offered>>,
    pub(crate) tools_offered_more: Option<u64>,
    pub(crate) tools_chosen: Vec<Chosen>,
    pub(crate) started_at: Option<String>,
    pub(crate) list_kind: Option<String>,
    pub(crate) digests: Vec<Offered>,
    pub(crate) more: bool,
    pub(crate) system: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) subject: Option<String>,
}

/// A tool that a model chose.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Chosen {
    pub(crate) name: String,
    pub(crate) gen_ai_tool_call_id: Option<String>,
    pub(crate) call_id: Option<String>,
}

/// What detectors looked at.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub(crate) struct Screened {
    pub(crate) detectors: Option<String>,
}

impl Said {
    /// What an event says; nothing where a key has a form that this program does not know.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        serde_json::from_str(&event.value).ok()
    }
}

/// A reference, without the text that it may hold.
pub(crate) fn without_text(reference: Option<Value>) -> Option<Value> {
    reference.map(|mut reference| {
        strip(&mut reference);
        reference
    })
}

/// Removes every text that references of it hold, however deep.
fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            // Only a reference has texts: what else is called so in an event is no text.
            if members.contains_key("digest") {
                members.shift_remove("inline");
            }
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
