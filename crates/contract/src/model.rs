//! The event of `mcp.models`: a model was asked, as an instrumented agent reports it.
//!
//! Made by ingest from OpenTelemetry's spans and log records. All of it is the sender's word, but for who that is. Keys are named
//! as the attributes of OpenTelemetry's conventions for generative AI. Messages never appear: a [`Reference`] stands for them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Reference;

/// `model.called`: a model was asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ModelCalled {
    /// What the report came as.
    pub reported_as: ReportedAs,
    /// The span within which the model was asked: 16 lower-case hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span_id: Option<String>,
    /// What was asked for, such as `chat`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_ai_operation_name: Option<String>,
    /// Who was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_ai_provider_name: Option<String>,
    /// The model that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_ai_request_model: Option<String>,
    /// The model that answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_ai_response_model: Option<String>,
    /// The provider's id of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_ai_response_id: Option<String>,
    /// Why the model stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gen_ai_response_finish_reasons: Vec<String>,
    /// Tokens that were read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_ai_usage_input_tokens: Option<u64>,
    /// Tokens that were written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_ai_usage_output_tokens: Option<u64>,
    /// The conversation, screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_ai_conversation_id: Option<String>,
    /// What was asked: instructions and messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prompt: Option<Reference>,
    /// What the model answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Reference>,
    /// The definitions of the tools that were offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Reference>,
    /// Which tools were offered, in the sender's order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools_offered: Vec<ToolOffered>,
    /// How many more were offered than stand in the list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools_offered_more: Option<u64>,
    /// Which tools the model chose, in its order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools_chosen: Vec<ToolChosen>,
    /// Why the model gave no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// When the model was asked, as the sender says: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// How long that took, as the sender says, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
    /// What told of it: name and version of the instrumentation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instrumentation: Option<String>,
}

/// What a report came as.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReportedAs {
    /// A span.
    Span,
    /// Log records of a span.
    Logs,
}

/// A tool that the model could choose.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToolOffered {
    /// Its name as the model was told it, screened.
    pub name: String,
    /// SHA-256 over the canonical JSON of its name, description and input schema; absent where only the name is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// A tool that the model chose.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ToolChosen {
    /// Its name as the model said it, screened.
    pub name: String,
    /// The id that the model gave the choice, screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_ai_tool_call_id: Option<String>,
    /// The call through Cairn that came of it, where the sender knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<Uuid>,
}
