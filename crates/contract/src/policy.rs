//! The events of `mcp.policies`: each policy set by version.
//!
//! The gateway makes them from what the policy store reports at start and after a change.

use serde::{Deserialize, Serialize};

/// `policy.loaded`: a policy set was read and compiles.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyLoaded {
    /// The set's version.
    pub version: String,
    /// The files it was read from.
    #[serde(default)]
    pub files: Vec<PolicyFile>,
    /// Who or what loaded it.
    pub who: String,
    /// What a reader should know although the set compiles.
    #[serde(default)]
    pub errors: Vec<String>,
}

/// `policy.activated`: decisions from here on are made by this set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyActivated {
    /// The set's version.
    pub version: String,
    /// The version before, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_version: Option<String>,
    /// Why. Absent in events of before this was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<PolicyCause>,
    /// The files it was read from.
    #[serde(default)]
    pub files: Vec<PolicyFile>,
    /// Who or what activated it.
    pub who: String,
    /// What a reader should know although the set is active.
    #[serde(default)]
    pub errors: Vec<String>,
}

/// `policy.rejected`: a set does not compile. The last good one stays.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyRejected {
    /// The version that stays in force.
    pub version: String,
    /// The files that were read.
    #[serde(default)]
    pub files: Vec<PolicyFile>,
    /// Who or what tried to load it.
    pub who: String,
    /// What is wrong, with file and line.
    pub errors: Vec<String>,
}

/// Why a set is in force from here on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PolicyCause {
    /// Cairn started.
    Start,
    /// The files changed.
    FileChange,
    /// An operator put the shadow in force.
    Promoted,
    /// An operator went back to what decided before.
    RolledBack,
}

/// `policy.shadowed`: a set is tried on live traffic beside the one that decides, or no longer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PolicyShadowed {
    /// The set's version.
    pub version: String,
    /// Whether it is tried from here on.
    pub state: ShadowState,
    /// The files it was read from.
    #[serde(default)]
    pub files: Vec<PolicyFile>,
    /// Who or what did it.
    pub who: String,
    /// What a reader should know.
    #[serde(default)]
    pub errors: Vec<String>,
}

/// Whether a set is tried.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShadowState {
    /// From here on.
    Tried,
    /// No longer.
    Ended,
}

/// A policy file, by its name within the policy folder.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct PolicyFile {
    /// The file's name, without its folder.
    pub name: String,
    /// SHA-256 over the file: `sha256:<hex>`.
    pub digest: String,
}
