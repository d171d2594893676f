//! The operators' side: credential, approvals, health and metrics over HTTP.
//!
//! `/healthz` and `/metrics` are open; everything else wants the operator's token, of which only a salted hash is on disk.
//! `Origin` and `Host` are checked, bodies are bounded. Served by `cairn up` on the admin address. Must never show a
//! secret, and must never decide: it hands settlements to the gateway's holds.

mod api;
mod credential;
mod exposition;
mod logins;

pub use api::{Admin, Policies, Probe, Replacement, Replacing};
pub use credential::{Credential, CredentialError};
