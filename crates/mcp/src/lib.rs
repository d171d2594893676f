//! MCP on the wire: JSON-RPC envelopes as bytes, both eras, transports and bridging.
//!
//! In the order in which data flow: [`Limits`] bound what a peer may send, the scanner finds [`Message`]s in it,
//! [`headers`] hold HTTP headers and body to each other, an [`Editor`] splices what must change, and a [`Link`] carries
//! the result to a server and the answer back: [`StdioLink`] (for a legacy session within a [`KeptLink`], which starts it
//! again), [`HttpLink`], [`SseLink`] for servers of 2024-11-05, and [`InsideLink`] for one of Cairn's own ([`serving`]). [`era`] knows the protocol's versions, [`bridge`] plays
//! one era to the other.
//!
//! This crate decides nothing and records nothing: it must not know policy, events or the log.

mod batch;
pub mod bridge;
mod edit;
pub mod era;
pub mod headers;
mod http_links;
mod id;
mod inside;
mod limits;
mod link;
mod message;
mod names;
mod refusal;
mod reply;
mod router;
mod scan;
mod scan_text;
pub mod serving;
pub mod sse;
mod stdio;
#[cfg(test)]
#[allow(clippy::print_stdout, clippy::print_stderr)] // it plays a server, whose language these are
mod testing;
mod unreached;

pub use batch::{is_batch, parse_batch};
pub use edit::{EditError, Editor};
pub use http_links::{Authorize, HttpClient, HttpLink, HttpTarget, Patience, SseLink, TargetError};
pub use id::RawId;
pub use inside::InsideLink;
pub use limits::Limits;
pub use link::{Canceller, Content, Exchange, ForwardHeaders, Frame, Link, LinkError, LinkFault, Prepared, Reach};
pub use message::{Kind, Message, Target, meta};
pub use refusal::{ParseFault, Refusal};
pub use reply::code;
pub use scan::ScanFault;
pub use stdio::{KeptLink, Start, Starting, StdioCommand, StdioLink};
pub use unreached::Unreached;
