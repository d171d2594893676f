//! The events of `mcp.context`: what agents read, what changed, what was listed, which prompts were fetched.
//!
//! The gateway makes them from what passes by. Contents never appear: a [`Reference`] stands for each.

use serde::{Deserialize, Serialize};

use crate::Reference;

/// `context.read`: a resource was read, at a version.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ContextRead {
    /// The resource, screened.
    pub mcp_resource_uri: String,
    /// What the server gives: etag, last modification, else a digest of the contents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Which of these `version` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version_source: Option<VersionSource>,
    /// The contents.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Reference>,
    /// How long the server says it stays fresh, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Who may share it, as the server says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_scope: Option<CacheScope>,
    /// When it was asked for, RFC 3339: the answer may be as old as that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub asked_at: Option<String>,
}

/// Where a resource's version comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionSource {
    /// The server's entity tag.
    Etag,
    /// The server's `lastModified` annotation.
    LastModified,
    /// Keyed digest of the contents.
    Digest,
    /// What the tool's declaration names.
    Declared,
}

/// Who may share a cached result.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CacheScope {
    /// Everybody.
    Public,
    /// This principal only.
    Private,
}

/// `context.changed`: a resource is known to have changed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ContextChanged {
    /// The resource, screened.
    pub mcp_resource_uri: String,
    /// The new version, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// How Cairn knows.
    pub cause: ChangeCause,
}

/// How Cairn knows that a resource changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeCause {
    /// The server sent `notifications/resources/updated`.
    Notification,
    /// A read gave another version than the read before.
    Read,
    /// A call that writes to it, as declared, was completed.
    Write,
    /// A call that writes to it ended, and nobody can know whether the server acted.
    InDoubt,
    /// An operator said so, as a system does that changes it past Cairn.
    Ingested,
}

/// `context.listed`: a list was fetched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ContextListed {
    /// What was listed.
    pub list_kind: ListKind,
    /// The entries in the server's order, each with the digest of its definition.
    #[serde(default)]
    pub digests: Vec<ListedItem>,
    /// How many entries the page had; more than `digests` where those were bounded.
    pub count: u64,
    /// Whether another page follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub more: Option<bool>,
    /// The whole page as it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<Reference>,
}

/// What was listed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListKind {
    /// `tools/list`
    Tools,
    /// `prompts/list`
    Prompts,
    /// `resources/list`
    Resources,
    /// `resources/templates/list`
    ResourceTemplates,
    /// `roots/list`
    Roots,
}

/// One entry of a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ListedItem {
    /// Its name, or its URI, screened.
    pub name: String,
    /// Digest of its definition.
    pub digest: String,
}

/// `context.prompt`: a prompt was fetched.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ContextPrompt {
    /// The prompt's name.
    pub prompt_name: String,
    /// The arguments given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Reference>,
    /// The messages returned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<Reference>,
}
