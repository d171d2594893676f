//! The event of `mcp.operators` about what an operator does, where no other event says all of it.
//!
//! Made by who serves the operator, before the act takes effect. It never holds a token or a payload.

use serde::{Deserialize, Serialize};

/// `operator.acted`: an operator does something, or could not.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OperatorActed {
    /// Joins what is said of one act.
    pub act_id: String,
    /// Who: the name that the token stands for, else the name that its bearer gives.
    pub operator: String,
    /// The role that it takes; absent for what is done on the machine itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// What, such as `vault.erase`.
    pub act: String,
    /// What it is done to, screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
    /// By which way it came.
    pub via: ActVia,
    /// What became of it.
    pub outcome: ActOutcome,
    /// Why, as the operator says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Why it failed, screened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When, where it was recorded later: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acted_at: Option<String>,
}

/// By which way an act came.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActVia {
    /// The admin address, with a token.
    AdminApi,
    /// A command that changes files of the data folder, on the machine itself.
    Command,
}

/// What became of an act.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActOutcome {
    /// It may be done. Recorded before it is; where nothing is said behind it, it was done, or a crash came between.
    Allowed,
    /// It could not be done, or was refused for what it asks.
    Failed,
}
