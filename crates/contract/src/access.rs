//! The events of a client that was not let in, and of what a person should look at, on `mcp.operators`.
//!
//! Whoever finds them makes them. Must never hold any part of a credential: what a token says is recorded only where it was verified.

use serde::{Deserialize, Serialize};

/// `access.refused`: a client was refused before any call began. One event may stand for many alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AccessRefused {
    /// Why, in one word.
    pub reason: String,
    /// What the client was answered.
    pub http_response_status_code: u16,
    /// What kind of credential came.
    pub credential: CredentialKind,
    /// The configured issuer that the token names, by its name in the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The network address of the last one that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The scopes that were needed and missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes_missing: Vec<String>,
    /// How many refusals of this kind the event stands for.
    pub count: u64,
    /// The time in which they came, in milliseconds.
    pub within_ms: u64,
}

/// `limit.exceeded`: a call was refused because a limit was reached. One event may stand for many alike.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LimitExceeded {
    /// The limit's name, or the policy's id.
    pub limit: String,
    /// Who gave it.
    pub source: LimitSource,
    /// `rate`, `concurrency` or `budget`.
    pub dimension: String,
    /// How much is allowed, as it is written.
    pub allowed: String,
    /// What was used of it, as a decimal number.
    pub used: String,
    /// What is counted apart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub per: Vec<String>,
    /// The tool of the last call that was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gen_ai_tool_name: Option<String>,
    /// When the call may be let through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// How many refusals of this kind the event stands for.
    pub count: u64,
    /// The time in which they came, in milliseconds.
    pub within_ms: u64,
}

/// Who gave a limit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitSource {
    /// The configuration.
    Configuration,
    /// A policy.
    Policy,
}

/// `alert.raised`: something that a person should look at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AlertRaised {
    /// What it is about, in one word.
    pub alert: String,
    /// What wants looking at.
    pub about: String,
    /// What was found, screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found: Option<String>,
}

/// What kind of credential a client brought.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// None.
    None,
    /// A token of an issuer.
    Token,
    /// An API key.
    ApiKey,
    /// A client certificate.
    Certificate,
}
