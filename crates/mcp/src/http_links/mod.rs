//! Servers over HTTP. Called by the gateway through [`Link`](crate::Link).
//!
//! [`HttpLink`] speaks Streamable HTTP of both eras, [`SseLink`] the HTTP+SSE transport of 2024-11-05. Both use one
//! [`HttpClient`], which sends a request at most once: it repeats nothing, on no connection, and follows no redirect. A server that refuses
//! connections is waited for ([`Patience`]): nothing was sent to it yet.

mod authorize;
mod body;
mod client;
mod patience;
mod sse_link;
mod streamable;
mod target;

pub use authorize::Authorize;
pub use client::HttpClient;
pub use patience::Patience;
pub use sse_link::SseLink;
pub use streamable::HttpLink;
pub use target::{HttpTarget, TargetError};
