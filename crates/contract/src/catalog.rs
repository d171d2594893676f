//! The events of `mcp.catalog`: each definition that a server was seen to offer, by digest.
//!
//! The gateway makes them from lists that pass by. Definitions are public metadata and stand inline.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `catalog.defined`: a definition was seen for the first time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CatalogDefined {
    /// What is defined.
    pub kind: CatalogKind,
    /// Its name, or its URI.
    pub name: String,
    /// SHA-256 over the definition's canonical JSON: `sha256:<hex>`.
    pub digest: String,
    /// The definition as the server gave it.
    pub definition: Value,
    /// The server's own hints about it, such as `readOnlyHint`. Claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
    /// What a reader should look at, by name.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// How it stands: `approved`, `changed` or `unapproved`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<String>,
}

/// `catalog.changed`: a known definition is now another one. That is an alert.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CatalogChanged {
    /// What is defined.
    pub kind: CatalogKind,
    /// Its name, or its URI.
    pub name: String,
    /// The new definition's digest.
    pub digest: String,
    /// The digest before.
    pub previous_digest: String,
    /// The new definition as the server gave it; absent where it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub definition: Option<Value>,
    /// The server's own hints about it. Claims.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Value>,
    /// What a reader should look at, by name.
    #[serde(default)]
    pub alerts: Vec<String>,
    /// How it stands: `approved`, `changed` or `unapproved`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standing: Option<String>,
}

/// `catalog.approved`: an operator approved a definition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CatalogApproved {
    /// What is defined.
    pub kind: CatalogKind,
    /// Its name, or its URI.
    pub name: String,
    /// The definition's digest.
    pub digest: String,
    /// Who approved it.
    pub approver: String,
}

/// What a definition defines.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CatalogKind {
    /// A tool.
    Tool,
    /// A prompt.
    Prompt,
    /// A resource.
    Resource,
    /// A resource template.
    ResourceTemplate,
}

impl CatalogKind {
    /// The name in events and in the key `<server>/<kind>/<name>`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::ResourceTemplate => "resource_template",
        }
    }
}
