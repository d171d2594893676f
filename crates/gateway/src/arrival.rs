//! What came beside a message: the HTTP headers that matter to a call. Built by the doors, read by the life of a call.

use std::sync::Arc;

use cairn_identity::Identity;
use cairn_mcp::ForwardHeaders;
use http::HeaderMap;

use crate::bridge::Within;

/// Longest header value that is kept, in bytes; a longer one is as good as absent.
const VALUE_BYTES_MAX: usize = 1_024;

/// The headers of one request that matter to the gateway. All absent on a pipe.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arrival {
    pub(crate) workflow: Option<String>,
    pub(crate) traceparent: Option<String>,
    pub(crate) tracestate: Option<String>,
    pub(crate) session_id: Option<String>,
    pub(crate) protocol_version: Option<String>,
    pub(crate) last_event_id: Option<String>,
    /// Names the HTTP connection: calls that nothing else joins share its workflow.
    pub(crate) connection: Option<Arc<str>>,
    /// `Mcp-Param-*` as the client sent them.
    pub(crate) params: HeaderMap,
    /// What the credential of this very request was granted; none where scopes do not apply.
    pub(crate) scopes: Option<Arc<[String]>>,
    /// The call that this one belongs to, where Cairn made it or plays it to a peer of the other era.
    pub(crate) within: Option<Within>,
}

impl Arrival {
    /// Nothing came beside the message.
    pub(crate) fn pipe() -> Self {
        Self::default()
    }

    /// The headers of an HTTP request.
    pub(crate) fn http(head: &HeaderMap) -> Self {
        let value = |name: &str| {
            let text = head.get(name)?.to_str().ok()?;
            (text.len() <= VALUE_BYTES_MAX).then(|| text.to_owned())
        };
        let params = head.iter().filter(|(name, _)| name.as_str().starts_with("mcp-param-"));
        Self {
            workflow: value("cairn-workflow-id"),
            traceparent: value("traceparent"),
            tracestate: value("tracestate"),
            session_id: value("mcp-session-id"),
            protocol_version: value("mcp-protocol-version"),
            last_event_id: value("last-event-id"),
            connection: None,
            params: params.map(|(name, value)| (name.clone(), value.clone())).collect(),
            scopes: None,
            within: None,
        }
    }

    /// The same, over the connection of that name.
    pub(crate) fn over(self, connection: &Arc<str>) -> Self {
        Self { connection: Some(connection.clone()), ..self }
    }

    /// The same, from that sender.
    pub(crate) fn by(self, who: &Identity) -> Self {
        Self { scopes: who.scopes.clone(), ..self }
    }

    /// What travels on to an HTTP upstream. Nothing that says who the client is does: a server gets credentials of its own.
    pub(crate) fn forward(&self, negotiated: Option<String>) -> ForwardHeaders {
        ForwardHeaders {
            protocol_version: self.protocol_version.clone().or(negotiated),
            session_id: self.session_id.clone(),
            last_event_id: self.last_event_id.clone(),
            passed: self.params.clone(),
            ..ForwardHeaders::default()
        }
    }
}
