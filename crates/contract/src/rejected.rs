//! The event of `mcp.rejected`: another event broke its contract and was not recorded.
//!
//! Made by the recorder. It says which rule was broken where, and never a value: what was refused may hold anything, and lies
//! whole in the vault.

use serde::{Deserialize, Serialize};

use crate::Reference;

/// `event.rejected`
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct EventRejected {
    /// The type of the event that was refused, such as `call.intent`.
    pub rejected_type: String,
    /// The version of the contract that it broke.
    pub rejected_version: u32,
    /// The `ce_id` that it would have had.
    pub rejected_id: String,
    /// Which rules it broke, with places and without values.
    pub reason: String,
    /// The whole of it: key, headers and data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event: Option<Reference>,
}
