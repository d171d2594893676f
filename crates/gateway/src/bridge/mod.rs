//! Plays one protocol era to a peer of the other. The rules are [`cairn_mcp::bridge`]'s; here they are played: `client.rs`
//! serves a legacy client of a modern server, `upstream.rs` holds the sessions with legacy servers for modern clients,
//! `talk.rs` listens to one call there, `waiting.rs` keeps the calls that wait for a client's retry.
//!
//! Everything that goes to a server goes through the life of a call, each round and each subscription with its own
//! decision, intent and outcome; only the handshake with a legacy server is Cairn's own, like a probe. Called by the
//! steps of that life; must never send a client's request by itself.

mod client;
mod talk;
mod upstream;
mod waiting;

use std::sync::Arc;

use bytes::Bytes;
use cairn_contract::{Body, CallOutcome, Effect, Era, Outcome};
use cairn_mcp::{EditError, ForwardHeaders, Limits as WireLimits, Message, Prepared, bridge::NotBridged, code};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use client::{Next, ToModern};
pub(crate) use talk::Talk;
pub(crate) use upstream::{Bridges, Upstream};
pub(crate) use waiting::Waiting;

use crate::{
    Gateway, Refusal,
    arrival::Arrival,
    call::{Call, outcome_of},
    life::Answer,
    reply::{Part, Reply},
    session::Session,
};

/// Whether a session's client and server speak the same era, and what stands between them where not.
#[derive(Clone, Debug)]
pub(crate) enum Bridge {
    /// The same: messages pass as they are.
    None,
    /// A legacy client, a modern server.
    ToModern(Arc<ToModern>),
    /// A modern client, a legacy server.
    ToLegacy(Arc<Upstream>),
}

/// What a call belongs to that caused it.
#[derive(Clone, Debug)]
pub(crate) struct Within {
    pub(crate) workflow_id: String,
    pub(crate) operation_id: String,
    pub(crate) cause: Option<Uuid>,
}

impl Within {
    /// Within another call.
    pub(crate) fn of(call: &Call) -> Self {
        let operation_id = call.common.operation_id.clone().unwrap_or_else(|| call.call_id.to_string());
        Self { workflow_id: call.common.workflow_id.clone(), operation_id, cause: call.cause }
    }
}

/// What an armed call does when it is forwarded.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all of them are calls, one for each that is in flight")]
pub(crate) enum Going {
    /// It is sent.
    Call(Prepared),
    /// It answers what a legacy server asked within a call that still runs there.
    Resume(Box<Talk>, Message),
}

impl Going {
    /// Exactly what goes out.
    pub(crate) fn bytes(&self) -> &Bytes {
        match self {
            Self::Call(prepared) => &prepared.bytes,
            Self::Resume(_, response) => response.bytes(),
        }
    }
}

/// What Cairn says to a request by itself.
pub(crate) enum Here {
    /// Nothing: the server has to answer.
    Forward,
    /// This result, raw.
    Result(Bytes),
    /// An error of a request that Cairn sent on the client's behalf.
    Error(Message),
    /// An error of its own.
    Refuse(Refusal),
    /// Nothing more: the client has had enough.
    Cancelled,
}

impl Bridge {
    /// The client's era, where it does not show in every message.
    pub(crate) const fn client_era(&self) -> Option<Era> {
        match self {
            Self::None => None,
            Self::ToModern(_) => Some(Era::Legacy),
            Self::ToLegacy(_) => Some(Era::Modern),
        }
    }

    /// The server's era and version, where they are not the client's.
    pub(crate) fn server_era(&self) -> Option<(Era, String)> {
        match self {
            Self::None => None,
            Self::ToModern(client) => Some((Era::Modern, client.offer.version.to_owned())),
            Self::ToLegacy(upstream) => Some((Era::Legacy, upstream.server.version().to_owned())),
        }
    }

    /// The server's own version, where Cairn asked for it in the client's place.
    pub(crate) fn server_version(&self) -> Option<String> {
        match self {
            Self::ToLegacy(upstream) => Some(upstream.server.info()?.get("version")?.as_str()?.to_owned()),
            Self::None | Self::ToModern(_) => None,
        }
    }

    /// The message as the server gets it.
    pub(crate) fn outbound(&self, message: Message, limits: &WireLimits) -> Result<Message, EditError> {
        match self {
            Self::None => Ok(message),
            Self::ToModern(client) => client.outbound(&message, limits),
            Self::ToLegacy(upstream) => upstream.server.outbound(&message, &upstream.next_id(), limits),
        }
    }

    /// What travels beside it; a client's own headers belong to its own era.
    pub(crate) fn headers(&self, arrival: &Arrival, negotiated: Option<String>) -> ForwardHeaders {
        match self {
            Self::None => arrival.forward(negotiated),
            Self::ToModern(_) => ForwardHeaders::default(),
            Self::ToLegacy(upstream) => upstream.headers(),
        }
    }
}

impl From<NotBridged> for Refusal {
    fn from(what: NotBridged) -> Self {
        Self::NotBridged { what: what.to_string() }
    }
}

impl Gateway {
    /// What Cairn says to a request by itself, with its outcome recorded; none where the server has to answer.
    pub(crate) async fn answer_here(
        &self,
        call: &mut Call,
        reply: &mut Reply,
        cancelled: &CancellationToken,
    ) -> Option<Answer> {
        let here = match call.session.bridge.clone() {
            Bridge::None => return None,
            Bridge::ToModern(client) => self.serve_legacy(call, &client).await,
            Bridge::ToLegacy(upstream) => self.serve_modern(call, &upstream, reply, cancelled).await,
        };
        Some(match here {
            Here::Forward => return None,
            Here::Result(raw) => {
                let message = Message::result(&call.id, &raw).expect("a result of ours is a message");
                self.conclude_here(call, Outcome::Completed, message).await
            }
            Here::Error(message) => {
                let data = message.error_data_raw();
                let words = message.error_message().unwrap_or_default();
                let code = message.error_code().unwrap_or(code::INTERNAL_ERROR);
                let message = Message::error(Some(&call.id), code, &words, data.as_deref())
                    .expect("what was an error makes an error");
                self.conclude_here(call, Outcome::Failed, message).await
            }
            Here::Refuse(refusal) => self.refuse(call, Outcome::Failed, refusal).await,
            Here::Cancelled => self.refuse(call, Outcome::Cancelled, Refusal::Cancelled).await,
        })
    }

    /// The outcome of a call that Cairn answered itself: nothing was sent.
    pub(crate) async fn conclude_here(&self, call: &mut Call, outcome: Outcome, message: Message) -> Answer {
        self.count(call, outcome);
        let result = self.kept_answer(call, &message);
        let body = Body::CallOutcome(CallOutcome {
            rpc_response_status_code: message.error_code(),
            error_type: message.error_code().map(|code| code.to_string()),
            result,
            elapsed_us: Some(call.accepted.elapsed().as_micros() as u64),
            ..outcome_of(outcome, Effect::None)
        });
        let draft = call.draft(self, body);
        if let Err(error) = self.record_end(call, draft).await {
            tracing::warn!(%error, call_id = %call.call_id, "the outcome of a call that Cairn answered is not recorded");
        }
        let mut answer = Answer::Message { status: 200, session_id: None, event_id: None, message };
        self.observe(call, &mut answer);
        answer
    }

    /// An answer of the server as a bridged client gets it.
    pub(crate) fn for_client(&self, call: &Call, answer: Answer) -> Answer {
        let bridge = &call.session.bridge;
        let message = match answer {
            _ if matches!(bridge, Bridge::None) => return answer,
            Answer::Nothing => return answer,
            Answer::Message { message, session_id, .. } => (message, session_id),
            Answer::Other { status, .. } => {
                let reason = format!("it answered with HTTP status {status} and no message");
                (Refusal::Lost { reason }.response(Some(&call.id)), None)
            }
        };
        let (message, session_id) = message;
        let own = message.error_code().is_some_and(crate::refusal::is_own);
        let said = match bridge {
            _ if own => Ok(message),
            Bridge::ToModern(client) => client.answer(call, &message, self.wire_limits()),
            Bridge::ToLegacy(upstream) => upstream.answer(call, &message, self.wire_limits()),
            Bridge::None => Ok(message),
        };
        let message = said.unwrap_or_else(|error| {
            let reason = format!("the server has answered, but the answer cannot be carried: {error}");
            Refusal::TooLarge { reason }.response(Some(&call.id))
        });
        // HTTP statuses are part of an era: 404 means "unknown method" in one and "session lost" in the other.
        Answer::Message { status: 200, session_id, event_id: None, message }
    }

    /// A request that Cairn makes on a client's behalf, because the server's era has no other way: a call like any other.
    /// Gives the answer as a client would get it.
    pub(crate) async fn call_within(
        &self,
        session: &Arc<Session>,
        method: &str,
        params: Value,
        within: Within,
    ) -> Message {
        let id = cairn_mcp::RawId::text(&format!("cairn-{}", self.new_secret()));
        let message =
            Message::request(&id, method, Some(params.to_string().as_bytes())).expect("a request of ours is a message");
        self.made_within(session, message, within).await
    }

    /// The same for a request that is there already.
    pub(crate) async fn made_within(&self, session: &Arc<Session>, message: Message, within: Within) -> Message {
        let id = message.id().cloned();
        let (reply, mut parts) = Reply::channel(self.limits().client_queue_max, false);
        let arrival = Arrival { within: Some(within), ..Arrival::default() };
        self.start(session.clone(), message, arrival, reply);
        while let Some(part) = parts.recv().await {
            if let Part::Final { message, written, .. } = part {
                let _ = written.send(());
                return message;
            }
        }
        Refusal::Cancelled.response(id.as_ref())
    }
}
