//! What every event carries: who, where, within what, and what on the wire.
//!
//! The gateway fills a [`Common`] once for each call and clones it into each of the call's events, so that they cannot
//! disagree. A key that does not apply is absent, never null and never an empty string. Session and task ids appear
//! here as keyed digests only: this module must never be handed the ids themselves.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The keys that events share, named as they are in the JSON.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Common {
    /// The agent's task, across calls and servers. Empty (and then absent) only outside `mcp.calls`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub workflow_id: String,
    /// One JSON-RPC request and what became of it: a UUID of version 7.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<Uuid>,
    /// The `ce_id` of the event that caused this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Uuid>,
    /// What the client says it works on, screened. A claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What joins the calls of one operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation_id: Option<String>,
    /// Which round of its operation this call is, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub round: Option<u32>,
    /// How Cairn knows that the call belongs to its operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linked_by: Option<LinkedBy>,
    /// Who asks whom. Towards the client, the actor is the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// W3C trace id: 32 lower-case hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// W3C span id: 16 lower-case hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// The tenant, where tenants are separate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Who acts, as Cairn verified it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Through which OAuth client or agent, as Cairn verified it: `<issuer>/<client id>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The client's name as it says it: a claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<String>,
    /// The client's version as it says it: a claim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,
    /// The server's name in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The version that the server gives of itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_version: Option<String>,
    /// The life cycle that the client speaks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub era: Option<Era>,
    /// The MCP revision that the client speaks, such as `2025-11-25`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_protocol_version: Option<String>,
    /// What carries the client's messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_transport: Option<Transport>,
    /// The JSON-RPC method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_method_name: Option<String>,
    /// The client's session, as a keyed digest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mcp_session_id: Option<String>,
    /// The JSON-RPC id as the client wrote it, screened where it is a string.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jsonrpc_request_id: Option<String>,
}

/// Who asks whom.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// A client asks a server.
    ToServer,
    /// A server asks a client: sampling, elicitation, roots.
    ToClient,
}

impl Direction {
    /// The name in events and in policy requests.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToServer => "to_server",
            Self::ToClient => "to_client",
        }
    }
}

/// Which MCP life cycle a peer speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// 2024-11-05 to 2025-11-25: handshake and sessions.
    Legacy,
    /// 2026-07-28 and later: stateless, self-describing requests.
    Modern,
}

/// What carries a peer's messages, in OpenTelemetry's words.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    /// A child's standard input and output.
    Pipe,
    /// HTTP over TCP.
    Tcp,
}

/// How Cairn knows that calls belong together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkedBy {
    /// The client sent back a `requestState` that Cairn saw before.
    RequestState,
    /// The call names a task that an earlier call made.
    TaskId,
    /// Neither: Cairn infers it.
    Inferred,
}

/// What a call is about: at most one of a tool, a resource and a prompt. Its key stands beside the event's own.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(from = "TargetKeys", into = "TargetKeys")]
pub enum Target {
    /// A tool, by name.
    Tool {
        /// The tool's name as the client sent it.
        gen_ai_tool_name: String,
    },
    /// A resource, by URI.
    Resource {
        /// The URI as the client sent it, screened.
        mcp_resource_uri: String,
    },
    /// A prompt, by name.
    Prompt {
        /// The prompt's name as the client sent it.
        prompt_name: String,
    },
    /// None of them: the method says it all.
    #[default]
    None,
}

impl Target {
    /// A tool of that name.
    pub fn tool(name: impl Into<String>) -> Self {
        Self::Tool { gen_ai_tool_name: name.into() }
    }

    /// A resource of that URI.
    pub fn resource(uri: impl Into<String>) -> Self {
        Self::Resource { mcp_resource_uri: uri.into() }
    }

    /// A prompt of that name.
    pub fn prompt(name: impl Into<String>) -> Self {
        Self::Prompt { prompt_name: name.into() }
    }

    /// The name or URI, whichever it has.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Tool { gen_ai_tool_name: name }
            | Self::Resource { mcp_resource_uri: name }
            | Self::Prompt { prompt_name: name } => Some(name),
            Self::None => None,
        }
    }
}

#[derive(Clone, Default, Serialize, Deserialize)]
struct TargetKeys {
    #[serde(skip_serializing_if = "Option::is_none")]
    gen_ai_tool_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mcp_resource_uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_name: Option<String>,
}

impl From<TargetKeys> for Target {
    fn from(keys: TargetKeys) -> Self {
        match (keys.gen_ai_tool_name, keys.mcp_resource_uri, keys.prompt_name) {
            (Some(gen_ai_tool_name), _, _) => Self::Tool { gen_ai_tool_name },
            (None, Some(mcp_resource_uri), _) => Self::Resource { mcp_resource_uri },
            (None, None, Some(prompt_name)) => Self::Prompt { prompt_name },
            (None, None, None) => Self::None,
        }
    }
}

impl From<Target> for TargetKeys {
    fn from(target: Target) -> Self {
        let mut keys = Self::default();
        match target {
            Target::Tool { gen_ai_tool_name } => keys.gen_ai_tool_name = Some(gen_ai_tool_name),
            Target::Resource { mcp_resource_uri } => keys.mcp_resource_uri = Some(mcp_resource_uri),
            Target::Prompt { prompt_name } => keys.prompt_name = Some(prompt_name),
            Target::None => {}
        }
        keys
    }
}
