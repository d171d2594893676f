//! The audit consumer: the whole trail in one SQLite file that people can query, or on a PostgreSQL server (`postgres`).
//!
//! [`AuditSink`] is the sink of the consumer `audit` into a file, [`query`] answers questions read-only and within limits, and [`index`]
//! tells where a workflow's events lie. It holds what
//! events hold: references to payloads and masked texts, never a payload.

pub mod index;
pub mod query;
mod rows;
mod schema;
mod store;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use rows::Audit;
#[cfg(feature = "postgres")]
pub(crate) use rows::Cell;
#[cfg(feature = "postgres")]
pub(crate) use schema::{COLUMNS, VERSION as LAYOUT};
pub use store::Store;

use crate::database::{self, Database};

/// The consumer's name.
pub const NAME: &str = "audit";
/// The group that it is in by default.
pub const GROUP: &str = "cairn-audit";

/// Its database, for writing.
pub type AuditSink = Database<Audit>;

/// Where the database of a data folder lies.
#[must_use]
pub fn path(data: &Path) -> PathBuf {
    database::path(data, NAME)
}
