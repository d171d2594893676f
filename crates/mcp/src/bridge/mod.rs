//! The rules by which one protocol era is played to a peer of the other: message in, what to do out, no sockets.
//!
//! [`LegacyClient`] plays a 2024-11-05 to 2025-11-25 client to a modern server, [`LegacyServer`] plays a legacy server
//! to a modern client. Both only say what a message means in the other era and give its bytes; the gateway decides,
//! records and sends. [`Seal`] protects the request state that is Cairn's own.
//!
//! Guarantees: what the other era also has travels unchanged, byte for byte where bytes allow it (arguments, results,
//! another's request state); what it lacks is refused by name ([`NotBridged`]) and never dropped in silence. Must never
//! invent a capability that a peer did not declare.

mod seal;
mod to_legacy;
mod to_modern;

use serde_json::{Map, Value};

pub use seal::{Bound, Seal, StateFault};
pub use to_legacy::{Filter, FromModern, LegacyServer, Level, ModernCall, initialize, response};
pub use to_modern::{FromLegacy, Input, InputRequest, LegacyClient, Offer};

/// Rounds that one operation may take before it is given up.
pub const ROUNDS_MAX: u32 = 16;
/// Requests that one round may hold.
pub const INPUTS_MAX: usize = 16;
/// Resources that one session or one listen request may subscribe to.
pub const SUBSCRIPTIONS_MAX: usize = 256;

/// Something that has no equal in the other era, or that the peer has no right to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBridged {
    /// Tasks: experimental in 2025-11-25, an extension of another shape since.
    #[error("a task")]
    Tasks,
    /// Taking up a stream where it broke, which modern servers do not offer.
    #[error("the resumption of a stream (Last-Event-ID)")]
    Resumption,
    /// An array of messages, which exists in 2025-03-26 only.
    #[error("a batch")]
    Batch,
    /// No version is known to both sides.
    #[error("a server that speaks only {listed}")]
    Version {
        /// What the server lists.
        listed: String,
    },
    /// An `input_required` result that cannot be read.
    #[error("an input_required result that {reason}")]
    BadInput {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The server asks for what the client did not declare.
    #[error("a request for {method}, which the client did not declare,")]
    Undeclared {
        /// The method.
        method: String,
    },
    /// A listen request that cannot be read, or asks for too much.
    #[error("a subscription whose filter {reason}")]
    BadFilter {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The legacy server did not answer the handshake as its revisions say.
    #[error("a handshake that the server answered with {reason}")]
    Handshake {
        /// What it answered.
        reason: String,
    },
}

/// The key of the tasks extension, in either side's `extensions`.
const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// Capabilities without what is not bridged.
fn without_tasks(capabilities: &mut Map<String, Value>) {
    capabilities.shift_remove("tasks");
    if let Some(Value::Object(extensions)) = capabilities.get_mut("extensions") {
        extensions.shift_remove(TASKS_EXTENSION);
        if extensions.is_empty() {
            capabilities.shift_remove("extensions");
        }
    }
}

/// Whether a client's capabilities allow a server to ask for this.
fn allows(capabilities: &Map<String, Value>, method: &str) -> bool {
    match method {
        "elicitation/create" => capabilities.contains_key("elicitation"),
        "sampling/createMessage" => capabilities.contains_key("sampling"),
        "roots/list" => capabilities.contains_key("roots"),
        _ => false,
    }
}

/// One text for all JSON texts of one value: keys sorted, no space. For keys and bindings, never for the wire.
fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(members) => {
                let mut pairs: Vec<_> = members.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                Value::Object(pairs.into_iter().collect())
            }
            Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
            other => other.clone(),
        }
    }
    sorted(value).to_string()
}

fn object(raw: Option<&[u8]>) -> Map<String, Value> {
    raw.and_then(|raw| serde_json::from_slice(raw).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
