//! The events of `mcp.sessions`: sessions opened and closed, and notifications that passed.
//!
//! The gateway makes them. Session ids stand in [`crate::Common`] as keyed digests; the ids themselves must never come here.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::Reference;

/// `session.opened`: two peers agreed on a version and capabilities.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SessionOpened {
    /// The client, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_info: Option<Implementation>,
    /// The server, as it says itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_info: Option<Implementation>,
    /// What the client can do, as it declares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_capabilities: Option<Map<String, Value>>,
    /// What the server can do, as it declares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_capabilities: Option<Map<String, Value>>,
    /// The MCP revision that the client asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_version: Option<String>,
    /// The MCP revision agreed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negotiated_version: Option<String>,
    /// Why it was opened: `initialize`, `discover`, `bridge`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A peer's name and version, as it says itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Implementation {
    /// Its name.
    pub name: String,
    /// Its version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// `session.closed`: a session ended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SessionClosed {
    /// Why: `client_closed`, `server_closed`, `idle`, `shutdown`, `failed`.
    pub reason: String,
    /// How long it was open, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_us: Option<u64>,
    /// The client, as it said itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_info: Option<Implementation>,
    /// The server, as it said itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_info: Option<Implementation>,
    /// The MCP revision agreed on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub negotiated_version: Option<String>,
}

/// `notice.passed`: a notification went by, either way (`direction`), of the method in `mcp_method_name`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct NoticePassed {
    /// What it belongs to: a call's id, or a keyed digest of a progress token or subscription.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub belongs_to: Option<String>,
    /// Its parameters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<Reference>,
}
