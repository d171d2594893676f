//! The context consumer: the freshest known version of each resource, who has seen which, what changed, and what became of calls.
//!
//! [`ContextSink`] is the sink of the consumer `context`, [`Reader`] answers questions read-only, within limits and within a
//! [`Scope`]. It keeps events of `mcp.calls` and `mcp.context` as they are, which hold references to payloads and never a payload, and
//! makes of them what follows: nothing here is a source of its own, so that a replay makes it again.

mod ask;
mod rows;
mod schema;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use ask::{AskError, Changes, Kept, Page, Reader, Resources, Scope, Seen, WORKFLOW_EVENTS_MAX};
pub use rows::{Context, EVENTS_MAX};

use crate::database::{self, Database};

/// The consumer's name.
pub const NAME: &str = "context";
/// The group that it is in by default.
pub const GROUP: &str = "cairn-context";

/// Its database, for writing.
pub type ContextSink = Database<Context>;

/// Where the database of a data folder lies.
#[must_use]
pub fn path(data: &Path) -> PathBuf {
    database::path(data, NAME)
}
