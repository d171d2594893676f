//! Who a client is: headers and a peer's certificate in, a verified [`Identity`] or a [`Rejection`] out.
//!
//! The gateway's HTTP door asks [`Verifier::identify`] for every request. Tokens of OAuth issuers (`token.rs`, with keys
//! from `issuer.rs`), API keys (`api_keys.rs`), client certificates (`certificate.rs`) and the local user are the four
//! ways to be somebody; what a client merely says of itself is none. `challenge.rs` says how a refusal looks on the wire.
//! This crate must know nothing of MCP, policy or events, must never let a
//! credential into an error, a log or `Debug`, and must never ask any address that the configuration does not lead to.
//!
//! Signatures are checked by `ring`. The tokens themselves are read here, because a library would ask the system for the
//! time, take an issuer or audience where one of several matches, and pass over keys that are there twice.

mod api_keys;
mod base64url;
mod bearer;
mod binding;
mod certificate;
mod challenge;
mod dpop;
mod fetch;
mod issuer;
mod jwk;
mod jws;
mod object;
mod options;
mod rejection;
#[cfg(test)]
mod signing;
#[cfg(test)]
mod tests;
mod token;
mod verifier;
mod who;

pub use api_keys::{ApiKey, ApiKeyError, ApiKeys, KeyView, NewKey};
pub use bearer::{Bearer, Bearers};
pub use certificate::PeerCertificate;
pub use fetch::{Fetch, FetchError, HttpsFetch, check_url};
pub use jws::Algorithm;
pub use options::{CertificateName, CertificateOptions, IssuerOptions, KeySource, Options, OptionsError};
pub use rejection::{Reason, Rejection};
pub use verifier::{Presented, Verifier, shown_token};
pub use who::{Credential, Identity, Kind};
