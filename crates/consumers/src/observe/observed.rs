//! What is counted of the trail: read from events, before anything is counted.
//!
//! Pure. The sink reads it while it plans a batch, and hands it to the figures when the batch is applied.

use serde_json::Value as Json;

use super::{
    calls::{Call, Told},
    figures::{CallLabels, Exemplar},
};
use crate::Event;

/// Something that the trail tells.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Observed {
    Decision { server: String, method: String, decision: String, is_stale: bool },
    Approval { state: String },
    Ended { labels: CallLabels, reason: Option<String>, call: Exemplar },
    Tokens { provider: String, model: String, input: u64, output: u64 },
    Alert { alert: String },
    GivenUp,
}

impl Observed {
    /// Of a call's event before its outcome.
    pub(super) fn of_call_event(told: &Told) -> Option<Self> {
        let of = |key: &str| told.text(key).unwrap_or_default().to_owned();
        match told.type_name.as_str() {
            "call.decision" => {
                let stood = told.data["freshness"].as_array().into_iter().flatten();
                let is_stale = stood.into_iter().any(|one| one["state"] == "stale");
                let (server, method) = (of("server"), of("mcp_method_name"));
                Some(Self::Decision { server, method, decision: of("decision"), is_stale })
            }
            "call.approval" => Some(Self::Approval { state: of("state") }),
            _ => None,
        }
    }

    /// Of a call that has ended.
    pub(super) fn of_outcome(call: Call<'_>) -> Option<Self> {
        let (outcome, (trace_id, span_id)) = (call.outcome()?, call.ids()?);
        let of = |key: &str| call.text(key).unwrap_or_default().to_owned();
        let labels = CallLabels {
            server: of("server"),
            tool: of("gen_ai_tool_name"),
            method: of("mcp_method_name"),
            decision: call.decision().and_then(|told| told.text("decision")).unwrap_or_default().to_owned(),
            outcome: outcome.text("outcome").unwrap_or_default().to_owned(),
        };
        let reason = outcome.text("error_type").map(ToOwned::to_owned);
        let seconds = call.elapsed_us().unwrap_or_default() as f64 / 1e6;
        let call = Exemplar { trace_id, span_id, seconds, at_us: outcome.at_us };
        Some(Self::Ended { labels, reason, call })
    }

    /// Of an event that is no call's.
    pub(super) fn of_other(event: &Event) -> Option<Self> {
        if !matches!(event.type_name.as_str(), "model.called" | "alert.raised") {
            return None;
        }
        let data: Json = serde_json::from_str(&event.value).ok()?;
        let of = |key: &str| data[key].as_str().unwrap_or_default().to_owned();
        if event.type_name == "alert.raised" {
            return Some(Self::Alert { alert: of("alert") });
        }
        let tokens = |key: &str| data[key].as_u64().unwrap_or_default();
        Some(Self::Tokens {
            provider: of("gen_ai_provider_name"),
            model: of("gen_ai_request_model"),
            input: tokens("gen_ai_usage_input_tokens"),
            output: tokens("gen_ai_usage_output_tokens"),
        })
    }
}
