//! TLS for listeners and for who calls them: certificates from PEM files, handshakes within bounds.
//!
//! A listener opens its certificates ([`ServerTls`]), has them read again while it runs, and makes each connection's
//! handshake through [`Handshakes`], which bounds how long one takes and how many there are at once. Whoever calls such a
//! listener takes a [`ClientTls`]. This crate knows no protocol above TLS but for the one answer that it gives to HTTP in
//! the clear. It must never log or show a key.

mod certificates;
mod client;
mod handshake;

pub use certificates::{ServerTls, TlsError, TlsFiles};
pub use client::ClientTls;
pub use handshake::{HandshakeError, Handshakes, PENDING_MAX, refuse_http};
pub use tokio_rustls::server::TlsStream;
