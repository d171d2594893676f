//! What agents and servers report of themselves: model calls by OpenTelemetry, and actions downstream.
//!
//! The wiring serves [`router`]. A request comes in through `door` (HTTP) or `grpc`, which know nothing of what it says; `otlp` reads spans
//! and log records, `conventions` finds the model calls among them, `record` writes each as a `model.called`. What a server did for a
//! call comes by `actions`, with the handle that the call brought it (`handles`). All of it is the sender's word: an event says who that was,
//! and lies in the sender's tenant and nowhere else. This crate must not know MCP, policy, or how calls live.

mod actions;
mod body;
mod conventions;
mod door;
mod fault;
#[cfg(feature = "grpc")]
mod grpc;
mod handles;
mod metrics;
mod otlp;
mod recent;
mod record;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "all of it is test code")]
mod tests;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use cairn_backbone::Recorder;
use cairn_clock::{Clock, Entropy};
use cairn_contract::DigestKey;
use cairn_identity::{Identity, PeerCertificate, Rejection, Verifier};
use cairn_screen::Screener;
use cairn_vault::Vault;
use http::HeaderMap;
use tokio::sync::Semaphore;

pub use door::router;
pub use handles::CallHandles;
pub use metrics::Metrics;

use recent::Recent;

/// The name that tokens for this address have as their audience: `<resource>/mcp/ingest`.
pub const RESOURCE: &str = "ingest";

/// A sender's connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub ip: IpAddr,
    /// The certificate that its handshake verified.
    pub certificate: Option<PeerCertificate>,
}

/// What the rest of the process is asked, and told.
pub trait Surroundings: Send + Sync + fmt::Debug {
    /// The workflow that the sender's own calls of that trace belong to, where it was given another id than the trace's.
    fn workflow_of(&self, who: &Identity, trace_id: &str) -> Option<String>;
    /// Somebody was not let in.
    fn not_let_in(&self, rejection: &Rejection, peer: IpAddr);
    /// Whether a request may name this address so, and come from that page.
    ///
    /// # Errors
    /// Which name is not known, and what to do.
    fn named(&self, headers: &HeaderMap, authority: Option<&str>) -> Result<(), String>;
}

/// How much of a payload the record holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kept {
    /// Nothing.
    None,
    /// A keyed digest.
    Digest,
    /// A reference to the payload in the vault.
    Reference,
}

/// How much is taken at once.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Longest body as it comes, in bytes.
    pub body_bytes_max: usize,
    /// Longest body when it is unpacked, in bytes.
    pub unpacked_bytes_max: usize,
    /// What bodies that are being read may hold in all, in bytes.
    pub bodies_bytes_max: usize,
    /// Requests that are unpacked and read at once; others wait.
    pub requests_max: usize,
    /// How long a body may take to come, and a request to get its turn.
    pub read_max: Duration,
    /// For how long after a call actions may be reported for it.
    pub handle_age_max: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            body_bytes_max: 4 << 20,
            unpacked_bytes_max: 16 << 20,
            bodies_bytes_max: 64 << 20,
            requests_max: 4,
            read_max: Duration::from_secs(10),
            handle_age_max: Duration::from_secs(30 * 24 * 60 * 60),
        }
    }
}

/// What ingest stands on.
#[derive(Debug)]
pub struct Parts {
    /// Where events go.
    pub recorder: Recorder,
    /// Says who sends.
    pub verifier: Arc<Verifier>,
    /// Scopes that every sender needs.
    pub scopes: Vec<String>,
    /// What masks.
    pub screener: Screener,
    /// Where payloads lie; without it digests alone are left.
    pub vault: Option<Vault>,
    /// The key of payloads' digests where there is no vault.
    pub payload_key: DigestKey,
    /// The key of digests of ids that may not be shown.
    pub secret: DigestKey,
    /// What the record holds of prompts and of the tools that were offered.
    pub prompts: Kept,
    /// What it holds of answers.
    pub outputs: Kept,
    /// Opens what calls brought their servers.
    pub handles: CallHandles,
    /// The rest of the process.
    pub surroundings: Arc<dyn Surroundings>,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub entropy: Entropy,
    /// How much is taken at once.
    pub bounds: Bounds,
    /// Counters.
    pub metrics: Metrics,
}

/// Takes reports and writes them as events. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ingest(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    /// What bodies that are being read may hold.
    bodies: Arc<Semaphore>,
    /// Turns to be read.
    turns: Arc<Semaphore>,
    /// Events of late, so that what is sent again is not written again.
    recent: Recent,
}

impl Ingest {
    /// One that takes what comes.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let bodies = Arc::new(Semaphore::new(parts.bounds.bodies_bytes_max.min(Semaphore::MAX_PERMITS)));
        let turns = Arc::new(Semaphore::new(parts.bounds.requests_max.max(1)));
        Self(Arc::new(Inner { parts, bodies, turns, recent: Recent::default() }))
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    fn bounds(&self) -> &Bounds {
        &self.0.parts.bounds
    }
}
