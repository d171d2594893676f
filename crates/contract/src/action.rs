//! The event of `mcp.actions`: what a server says that it did downstream.
//!
//! Made by ingest, for a call that the server was sent: which call it is comes from Cairn, never from the server's own words.

use serde::{Deserialize, Serialize};

/// `action.reported`: a server reports what it did downstream for a call.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ActionReported {
    /// The tool that was called, screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_ai_tool_name: Option<String>,
    /// Where it was done, as the server says, screened.
    pub system: String,
    /// What it is there, screened.
    pub kind: String,
    /// Its id there: as it is, or as a keyed digest where it may not be shown.
    pub id: String,
    /// How it stands, screened.
    pub state: String,
    /// Who reported it, as Cairn verified it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported_by: Option<String>,
    /// The reporter's tenant, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reported_by_tenant: Option<String>,
    /// When it was done, as the server says: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<String>,
}
