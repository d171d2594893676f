//! The revisions of MCP, and which era a server speaks. Called by the gateway when it meets a server.
//!
//! A modern message names its version in `_meta`; everything older begins with `initialize`. A server is probed with
//! `server/discover` (2026-07-28, versioning, Backward Compatibility), never by a client's call: a result that lists
//! modern versions, or the modern error that lists them, means modern; any other error, and silence, mean legacy.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    Content, ForwardHeaders, Link, LinkError, LinkFault, Message, RawId, Reach, code,
    message::{Kind, meta},
};

/// The newest revision.
pub const LATEST: &str = "2026-07-28";
/// The newest revision that has `initialize`.
pub const LATEST_LEGACY: &str = "2025-11-25";
/// What a legacy HTTP request without a version header speaks.
pub const ASSUMED_LEGACY: &str = "2025-03-26";
/// The modern revisions, newest first.
pub const MODERN: &[&str] = &[LATEST];
/// The legacy revisions, newest first.
pub const LEGACY: &[&str] = &[LATEST_LEGACY, "2025-06-18", "2025-03-26", "2024-11-05"];

/// One of the two protocols that bear the name MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// With `initialize` and a session: 2024-11-05 to 2025-11-25.
    Legacy,
    /// Stateless, the version in every request: 2026-07-28 and later.
    Modern,
}

impl Era {
    /// The era of a message: modern if its `_meta` names a version, even if it is called `initialize`.
    #[must_use]
    pub fn of(message: &Message) -> Self {
        if message.is_modern() { Self::Modern } else { Self::Legacy }
    }

    /// The era of a version, known or not: revisions are dates, and dates sort.
    #[must_use]
    pub fn of_version(version: &str) -> Self {
        if version > LATEST_LEGACY && !version.is_empty() { Self::Modern } else { Self::Legacy }
    }
}

/// Whether this crate knows a revision.
#[must_use]
pub fn is_known(version: &str) -> bool {
    MODERN.contains(&version) || LEGACY.contains(&version)
}

/// What a probe found.
#[derive(Clone, Debug)]
pub enum Probe {
    /// The server speaks the modern protocol.
    Modern {
        /// The modern versions that it lists, in its order.
        versions: Vec<String>,
        /// Its `DiscoverResult`, raw; none where it answered with the error that lists versions.
        discovered: Option<Bytes>,
    },
    /// The server wants `initialize`.
    Legacy {
        /// Whether it said so, by any answer at all; one that stayed silent or ended may also just be slow or broken.
        answered: bool,
    },
}

impl Probe {
    /// The newest modern version that both sides know.
    #[must_use]
    pub fn common_version(&self) -> Option<&'static str> {
        let Self::Modern { versions, .. } = self else { return None };
        MODERN.iter().find(|known| versions.iter().any(|version| version == *known)).copied()
    }
}

/// The probe's request.
#[must_use]
pub fn discover_request(id: &RawId, client_name: &str, client_version: &str) -> Message {
    let params = json!({"_meta": {
        meta::PROTOCOL_VERSION: LATEST,
        meta::CLIENT_INFO: {"name": client_name, "version": client_version},
        meta::CLIENT_CAPABILITIES: {},
    }});
    Message::request(id, "server/discover", Some(params.to_string().as_bytes())).expect("it is made of checked parts")
}

/// What an answer to the probe says.
#[must_use]
pub fn judge(answer: &Message) -> Probe {
    let (listed, discovered) = match answer.kind() {
        Kind::Response => (answer.result_member_raw("supportedVersions"), answer.result_raw()),
        Kind::Error if answer.error_code() == Some(code::UNSUPPORTED_PROTOCOL_VERSION) => {
            let data = answer.error_data_raw().and_then(|data| serde_json::from_slice::<Value>(&data).ok());
            let listed = data.and_then(|data| data.get("supported").map(|listed| Bytes::from(listed.to_string())));
            (listed, None)
        }
        _ => (None, None),
    };
    let versions: Vec<String> = listed.and_then(|raw| serde_json::from_slice(&raw).ok()).unwrap_or_default();
    let versions: Vec<String> =
        versions.into_iter().filter(|version| Era::of_version(version) == Era::Modern).collect();
    if versions.is_empty() { Probe::Legacy { answered: true } } else { Probe::Modern { versions, discovered } }
}

/// Probes a server over a link that nothing else was sent on yet. Silence for `wait`, and its end, mean legacy.
///
/// # Errors
/// Where the server could not be reached, or ended: that says nothing about its era.
pub async fn probe(
    link: &dyn Link,
    request: &Message,
    headers: &ForwardHeaders,
    wait: Duration,
) -> Result<Probe, LinkError> {
    let prepared = link.prepare(request, headers)?;
    match tokio::time::timeout(wait, answer(link, prepared)).await {
        Ok(Ok(Some(answer))) => Ok(judge(&answer)),
        Ok(Ok(None)) => Ok(Probe::Legacy { answered: true }),
        Err(_) => Ok(Probe::Legacy { answered: false }),
        // A server that answers with what is no message at all is no modern one.
        Ok(Err(error)) if matches!(error.cause(), LinkFault::BadAnswer(_) | LinkFault::StreamEnded) => {
            Ok(Probe::Legacy { answered: true })
        }
        // Some end at once when the first message is not the handshake.
        Ok(Err(error)) if matches!(error.cause(), LinkFault::Exited { .. }) => Ok(Probe::Legacy { answered: false }),
        Ok(Err(error)) => Err(error),
    }
}

/// Whether a server, over a link that nothing else was sent on, answers a handshake of Cairn's own: the second probe, for
/// servers that may speak both eras, which `server/discover` need not say.
///
/// # Errors
/// Where the server could not be reached, or did not answer for `wait`: that says nothing about its era.
pub async fn greets(
    link: &dyn Link,
    client_name: &str,
    client_version: &str,
    wait: Duration,
) -> Result<bool, LinkError> {
    let params = json!({
        "protocolVersion": LATEST_LEGACY,
        "capabilities": {},
        "clientInfo": {"name": client_name, "version": client_version},
    });
    let request = Message::request(&RawId::text("cairn-greeting"), "initialize", Some(params.to_string().as_bytes()))
        .expect("it is made of checked parts");
    let prepared = link.prepare(&request, &ForwardHeaders::default())?;
    match tokio::time::timeout(wait, answer(link, prepared)).await {
        Ok(Ok(answer)) => {
            Ok(answer.and_then(|answer| answer.protocol_version()).is_some_and(|version| LEGACY.contains(&&*version)))
        }
        Ok(Err(error)) if matches!(error.cause(), LinkFault::BadAnswer(_) | LinkFault::StreamEnded) => Ok(false),
        Ok(Err(error)) => Err(error),
        Err(_) => {
            let waited_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            Err(LinkError::lost(LinkFault::TimedOut { waited_ms }))
        }
    }
}

/// The answer to the probe; none where what came is none.
async fn answer(link: &dyn Link, prepared: crate::Prepared) -> Result<Option<Message>, LinkError> {
    let exchange = link.forward(prepared).await?;
    // Whoever is not let in has learnt nothing of what is inside, whatever the answer looks like.
    if matches!(exchange.status, 401 | 403) {
        return Err(LinkError::lost(LinkFault::Status { status: exchange.status }));
    }
    match exchange.content {
        Content::Json(message) => Ok(Some(message)),
        Content::Stream(mut frames) => {
            while let Some(frame) = frames.recv().await {
                if let Some(message) = frame?.message.filter(|message| message.method().is_none()) {
                    return Ok(Some(message));
                }
            }
            Ok(None)
        }
        // An overloaded or failing server (or a proxy before it) has said nothing about its era.
        Content::Empty | Content::Other { .. } if exchange.status >= 500 || exchange.status == 429 => {
            Err(LinkError::lost(LinkFault::Status { status: exchange.status }))
        }
        Content::Empty | Content::Other { .. } => Ok(None),
    }
}

/// Whether a failed probe is worth another try: the server was not reached at all.
#[must_use]
pub fn is_unreached(error: &LinkError) -> bool {
    error.reach() == Reach::NotSent
}

#[cfg(test)]
mod tests;
