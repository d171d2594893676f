//! The events of `mcp.operators` about payloads: read back, erased, held.
//!
//! Made by who serves the operator. They name whose payloads and which keys, and never hold a payload.

use serde::{Deserialize, Serialize};

/// `vault.read`: an operator reads a payload back. Recorded before it is shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct VaultRead {
    /// Who reads.
    pub operator: String,
    /// The digest that was asked for.
    pub digest: String,
    /// Whose payload it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Why, as the operator says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// `subject.erased`: the keys and objects of a subject are destroyed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubjectErased {
    /// Whose.
    pub subject: String,
    /// Who had it done.
    pub operator: String,
    /// Why, as the operator says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The keys that are gone.
    pub key_ids: Vec<String>,
    /// How many objects were removed.
    pub objects: u64,
    /// How many bytes they had, encrypted.
    pub bytes: u64,
}

/// `subject.held`: a subject is under legal hold and cannot be erased.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubjectHeld {
    /// Whose.
    pub subject: String,
    /// Who says so.
    pub operator: String,
    /// Why.
    pub reason: String,
}

/// `subject.released`: a subject is under hold no more.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SubjectReleased {
    /// Whose.
    pub subject: String,
    /// Who says so.
    pub operator: String,
    /// How many holds ended.
    pub holds: u64,
}
