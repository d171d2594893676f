//! How a client hears that its call needs an approval: the best way that it says it knows.
//!
//! | the client | hears |
//! | --- | --- |
//! | declares the tasks extension (2026-07-28) | a task's handle; the call is made when it asks for the task after the approval |
//! | declares elicitation by URL, 2026-07-28 | `input_required` with the address for its user, and a sealed `requestState` |
//! | declares elicitation by URL, 2025-11-25 | error −32042 with the address; then it calls again |
//! | any other | nothing but progress, for as long as clients wait; then an error with a token for the retry |

use cairn_approvals::Approval;
use cairn_contract::Outcome;
use cairn_mcp::Message;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::NotNow;
use crate::{Gateway, Refusal, call::Call};

/// How a client hears of an approval.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// A task's handle.
    Task,
    /// `input_required`, with an address.
    Input,
    /// An error that gives an address.
    UrlError,
    /// Its call is held.
    Wait,
}

/// The key of Cairn's question among a result's `inputRequests`.
pub(super) const QUESTION: &str = "cairn-approval";
/// What names the extension.
pub(super) const TASKS: &str = "io.modelcontextprotocol/tasks";
/// MCP 2025-11-25: the client has to open addresses first.
pub(crate) const URL_ELICITATION_REQUIRED: i64 = -32_042;

impl Gateway {
    /// The best way for the client of a call.
    pub(super) fn way(&self, call: &Call) -> Way {
        if call.arrival.within.is_some() {
            return Way::Wait; // made by Cairn on the client's behalf, which waits elsewhere
        }
        if !call.message.is_modern() {
            let claims = call.session.claims.lock();
            let knows = claims.opens_addresses && claims.protocol_version.as_deref() == Some("2025-11-25");
            return if knows && self.console().is_some() { Way::UrlError } else { Way::Wait };
        }
        let raw = call.message.client_capabilities_raw();
        let can: Value = raw.and_then(|raw| serde_json::from_slice(&raw).ok()).unwrap_or_default();
        if call.method == "tools/call" && can["extensions"][TASKS].is_object() {
            Way::Task
        } else if self.console().is_some() && can["elicitation"]["url"].is_object() && takes_input(&call.method) {
            Way::Input
        } else {
            Way::Wait
        }
    }

    /// Says that an approval waits.
    pub(super) fn tell(&self, call: &Call, way: Way, approval: &Approval) -> NotNow {
        let request = &approval.request;
        let url = self.console().map(|console| format!("{console}/console/approvals/{}", request.id));
        let words = format!("{}/{} needs the approval {} before it runs", request.server, request.target, request.id);
        match (way, url) {
            (Way::Task, url) => {
                let status = url.map_or(words.clone(), |url| format!("{words}: {url}"));
                let result = self.task_result(approval, "working", Some(&status), "task");
                NotNow::Told(Outcome::Accepted, result_message(call, &result))
            }
            (Way::Input, Some(url)) => {
                let asked = json!({ "mode": "url", "url": url, "message": words });
                let result = json!({
                    "resultType": "input_required",
                    "inputRequests": { QUESTION: { "method": "elicitation/create", "params": asked } },
                    "requestState": self.returning().state(call, approval),
                });
                NotNow::Told(Outcome::InputRequired, result_message(call, &result))
            }
            (Way::UrlError, Some(url)) => {
                self.returning().remember(&request.id, &call.session);
                let refusal = Refusal::ApprovalByUrl { approval_id: request.id.clone(), url, words };
                NotNow::Refused(Outcome::Failed, refusal)
            }
            (Way::Wait | Way::Input | Way::UrlError, url) => {
                let refusal = Refusal::ApprovalPending {
                    approval_id: request.id.clone(),
                    expires_at: request.expires_at.to_string(),
                    retry_token: self.returning().state(call, approval),
                    url,
                };
                NotNow::Refused(Outcome::TimedOut, refusal)
            }
        }
    }
}

fn result_message(call: &Call, result: &Value) -> Message {
    Message::result(&call.id, result.to_string().as_bytes()).expect("a result of ours is a message")
}

/// Whether a result of that method may ask for input (MCP 2026-07-28, multi round-trip requests).
fn takes_input(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}
