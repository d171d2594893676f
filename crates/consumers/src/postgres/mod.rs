//! The audit database on a PostgreSQL server, for whoever wants it beside other data, or for several gateways at once.
//!
//! [`PostgresSink`] is the [`crate::Sink`], [`ask`] answers questions read-only and within limits, and [`find`] tells where a
//! workflow's events lie: each as its namesake does over a file. Tables, columns and views have the same names; `schema` says in
//! which types. Several processes may be set up for one database: one of them applies, the others stand by, and whoever was stalled
//! meanwhile commits nothing (`holder`). It must never show a password, nor let a question change anything.

mod copy;
mod holder;
mod index;
mod link;
mod options;
mod query;
mod retention;
mod schema;
mod sink;
mod statement;
mod tls;

#[cfg(test)]
pub(crate) mod tests;

pub use index::find;
pub use options::{Options, OptionsError, Settings};
pub use query::ask;
pub use schema::{remove, script};
pub use sink::{PostgresSink, Role};
