//! HTTP headers that mirror the body, and who may send requests at all (2026-07-28, Streamable HTTP, Request Metadata
//! and Security). Called by the gateway for what comes in and by the HTTP link for what goes out.
//!
//! Guarantees: a modern request whose headers and body name different things is refused with the code that the
//! specification gives, before anything is decided; what goes out is computed from the body that goes out. In the legacy
//! era these headers decide nothing.

mod agreement;
mod annotation;
mod origin;
mod status;
mod value;

pub use agreement::{HeaderFault, check, compute};
pub use annotation::{AnnotationFault, ParamAnnotation, annotations};
pub use origin::{OriginFault, OriginPolicy};
pub use status::status;
pub use value::{decode, encode};

use http::HeaderName;

/// `MCP-Protocol-Version`.
pub const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// `Mcp-Method`.
pub const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// `Mcp-Name`.
pub const NAME: HeaderName = HeaderName::from_static("mcp-name");
/// The prefix of headers that mirror a tool's parameters.
pub const PARAM_PREFIX: &str = "mcp-param-";

/// Headers that belong to one connection or one sender, which a proxy must not pass on (RFC 9110, section 7.6.1), and
/// credentials, which were given to Cairn and not to the server behind it.
const NEVER_PASSED: &[&str] = &[
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "origin",
    "proxy-authorization",
    "proxy-connection",
    "referer",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a client's header may travel on to the server.
#[must_use]
pub fn may_pass(name: &HeaderName) -> bool {
    let name = name.as_str();
    !NEVER_PASSED.contains(&name) && !name.starts_with("sec-") && !name.starts_with("cairn-")
}

#[cfg(test)]
mod tests;
