//! One connection to an upstream MCP server, whatever carries it. Called by the gateway; implemented by
//! [`crate::StdioLink`], [`crate::HttpLink`] and [`crate::SseLink`].
//!
//! The contract:
//! - `prepare` MUST give exactly the bytes that `forward` puts on the wire, and MUST NOT send anything.
//! - `forward` MUST send at most once. An error MUST be `NotSent` only if no byte of the message left this process;
//!   otherwise it MUST be `Lost`.
//! - A caller that drops `forward` has given its call up: a server that may have got it MUST be told, as by the canceller.
//! - A stream MUST end after the final response, and MUST end with an error where none came.
//! - A link MUST NOT change a byte that it need not: ids, progress tokens and subscription ids on a shared channel only,
//!   and those are restored exactly.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use tokio::sync::mpsc;

use crate::{Limits, Message, RawId, Refusal, headers::ParamAnnotation};

/// A message as it will go on the wire; its digest stands in the intent. Used up by [`Link::forward`].
#[derive(Debug)]
pub struct Prepared {
    /// Exactly what goes on the wire, without framing.
    pub bytes: Bytes,
    pub(crate) method: Option<String>,
    pub(crate) route: Route,
    pub(crate) headers: HeaderMap,
}

impl Prepared {
    /// Whether the protocol lets a client cancel it: everything but the handshake.
    pub(crate) fn may_be_cancelled(&self) -> bool {
        self.method.as_deref() != Some("initialize")
    }

    /// The request's id as whoever prepared it gave it, under which the answer comes back.
    #[must_use]
    pub const fn id(&self) -> Option<&RawId> {
        self.route.id.as_ref()
    }

    /// The request's id on the wire.
    #[must_use]
    pub const fn wire_id(&self) -> Option<&RawId> {
        self.route.wire_id.as_ref()
    }
}

/// How answers find back: the names on the wire, and the names that the caller gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Route {
    pub(crate) id: Option<RawId>,
    pub(crate) wire_id: Option<RawId>,
    pub(crate) token: Option<RawId>,
    pub(crate) wire_token: Option<RawId>,
}

/// What travels beside the body. Ignored by stdio links.
#[derive(Clone, Debug, Default)]
pub struct ForwardHeaders {
    /// `MCP-Protocol-Version` of a legacy session, as negotiated. A modern message carries its own and wins.
    pub protocol_version: Option<String>,
    /// `Mcp-Session-Id`; without it the link sends the one that the server gave at `initialize`.
    pub session_id: Option<String>,
    /// `Last-Event-ID`, for [`Link::listen`] alone.
    pub last_event_id: Option<String>,
    /// The `x-mcp-header` annotations of the tool that is called; `Mcp-Param-*` are computed from them.
    pub annotations: Arc<[ParamAnnotation]>,
    /// Further headers to pass on: trace context, `Mcp-Param-*` that no annotation explains. Hop-by-hop headers,
    /// credentials and headers that this crate computes are left out of it whatever the caller puts here.
    pub passed: HeaderMap,
}

/// What came back for a request.
#[derive(Debug)]
pub struct Exchange {
    /// The HTTP status; 200 where the transport has none.
    pub status: u16,
    /// `Mcp-Session-Id` of the answer.
    pub session_id: Option<String>,
    /// The answer's HTTP headers; empty where the transport has none.
    pub headers: HeaderMap,
    /// The answer itself.
    pub content: Content,
    /// Tells the server that nobody wants the answer any more.
    pub canceller: Canceller,
}

/// The answer's body.
#[derive(Debug)]
pub enum Content {
    /// No body: notifications and responses are acknowledged so.
    Empty,
    /// One JSON-RPC message.
    Json(Message),
    /// Frames as they come; the channel closes after the final response.
    Stream(mpsc::Receiver<Result<Frame, LinkError>>),
    /// Something that is not JSON-RPC, as servers send with HTTP errors; cut at the message bound.
    Other {
        /// Its `Content-Type`.
        content_type: Option<String>,
        /// The bytes.
        body: Bytes,
    },
}

/// One event of a stream, or one line of stdio.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// The SSE event id, which a legacy client may resume from.
    pub event_id: Option<String>,
    /// The SSE reconnection time.
    pub retry_ms: Option<u64>,
    /// The message; none where an event carries only an id or a reconnection time.
    pub message: Option<Message>,
}

impl From<Message> for Frame {
    fn from(message: Message) -> Self {
        Self { event_id: None, retry_ms: None, message: Some(message) }
    }
}

type Cancelling = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Cancels one forwarded call at the server, under the id that it has there. On modern HTTP, where dropping the stream is
/// the signal, it does nothing.
#[derive(Clone, Default)]
pub struct Canceller(Option<Arc<dyn Fn(Option<String>) -> Cancelling + Send + Sync>>);

impl Canceller {
    /// A canceller that does nothing.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    pub(crate) fn new(cancel: impl Fn(Option<String>) -> Cancelling + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(cancel)))
    }

    /// Sends `notifications/cancelled` where the transport needs one; failures do not matter to anybody.
    pub async fn cancel(&self, reason: Option<String>) {
        if let Some(cancel) = &self.0 {
            cancel(reason).await;
        }
    }
}

/// A call whose sending its caller still waits for: dropped before it has arrived, it is cancelled at the server, which may have
/// read it already. Must be dropped within a tokio runtime.
pub(crate) struct OnItsWay {
    canceller: Canceller,
    never_left: Arc<AtomicBool>,
}

impl OnItsWay {
    pub(crate) fn new(canceller: Canceller) -> Self {
        Self { canceller, never_left: Arc::default() }
    }

    /// To be set once no byte of the call leaves this process any more.
    pub(crate) fn never_left(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.never_left)
    }

    /// The caller has heard what became of the sending; from here on it is the one who cancels.
    pub(crate) fn arrived(mut self) -> Canceller {
        std::mem::take(&mut self.canceller)
    }
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        let Some(cancel) = self.canceller.0.take() else { return };
        if self.never_left.load(Ordering::SeqCst) {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(cancel(Some("nobody waits for it any more".to_owned())));
        }
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Canceller::Notify" } else { "Canceller::None" })
    }
}

/// One connection to an upstream, for one scope: a session or a principal.
#[async_trait]
pub trait Link: fmt::Debug + Send + Sync {
    /// Makes the wire form of a request: maps names where the channel is shared, computes headers. Sends nothing.
    ///
    /// # Errors
    /// `NotSent`, where the message cannot be carried.
    fn prepare(&self, message: &Message, headers: &ForwardHeaders) -> Result<Prepared, LinkError>;

    /// Sends a prepared request, once.
    ///
    /// # Errors
    /// `NotSent` if no byte left this process, `Lost` if the server may have got it.
    async fn forward(&self, prepared: Prepared) -> Result<Exchange, LinkError>;

    /// Sends a notification, or a response to a request of the server.
    ///
    /// # Errors
    /// As for [`Link::forward`].
    async fn notify(&self, message: &Message, headers: &ForwardHeaders) -> Result<(), LinkError>;

    /// The messages that belong to no exchange. The first caller gets them, later ones nothing.
    fn unsolicited(&self) -> Option<mpsc::Receiver<Frame>>;

    /// Opens the stream on which a legacy HTTP server sends what belongs to no exchange, resuming where
    /// [`ForwardHeaders::last_event_id`] is given. Other links have none: they have [`Link::unsolicited`].
    ///
    /// # Errors
    /// As for [`Link::forward`].
    async fn listen(&self, _headers: &ForwardHeaders) -> Result<Exchange, LinkError> {
        let reason = "only a Streamable HTTP server has a stream that can be opened by itself".to_owned();
        Err(LinkError::not_sent(LinkFault::Unfit { reason }))
    }

    /// Whether anything can still be sent, as far as this side knows.
    fn is_open(&self) -> bool {
        true
    }

    /// Ends the connection; calls without an answer end with `Lost`.
    async fn close(&self);
}

/// What a failure means for the effect of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing left this process: the call had no effect.
    NotSent,
    /// The server may have got the call: the effect is unknown.
    Lost,
}

/// Why a call has no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// No byte of the message left this process.
    #[error("not sent: {cause}{}", tail(.stderr))]
    NotSent {
        /// What went wrong.
        cause: LinkFault,
        /// The end of the child's stderr, where there is a child.
        stderr: Option<String>,
    },
    /// The server may have got the message; nobody can know what it did.
    #[error("sent, but no answer: {cause}{}", tail(.stderr))]
    Lost {
        /// What went wrong.
        cause: LinkFault,
        /// The end of the child's stderr, where there is a child.
        stderr: Option<String>,
    },
}

fn tail(stderr: &Option<String>) -> String {
    match stderr.as_deref().map(str::trim_end).filter(|text| !text.is_empty()) {
        Some(text) => format!("; its stderr ended with: {text}"),
        None => String::new(),
    }
}

impl LinkError {
    /// Nothing left this process.
    #[must_use]
    pub const fn not_sent(cause: LinkFault) -> Self {
        Self::NotSent { cause, stderr: None }
    }

    /// The server may have got it.
    #[must_use]
    pub const fn lost(cause: LinkFault) -> Self {
        Self::Lost { cause, stderr: None }
    }

    /// What the failure means for the effect of the call.
    #[must_use]
    pub const fn reach(&self) -> Reach {
        match self {
            Self::NotSent { .. } => Reach::NotSent,
            Self::Lost { .. } => Reach::Lost,
        }
    }

    /// What went wrong.
    #[must_use]
    pub const fn cause(&self) -> &LinkFault {
        match self {
            Self::NotSent { cause, .. } | Self::Lost { cause, .. } => cause,
        }
    }
}

/// What went wrong with a link.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkFault {
    /// The child could not be started.
    #[error("cannot start {command:?}: {reason}; check that it is installed and on PATH")]
    Spawn {
        /// The program.
        command: String,
        /// The operating system's words.
        reason: String,
    },
    /// The server's process has ended.
    #[error("the server's process ended ({status})")]
    Exited {
        /// How: exit status or signal.
        status: String,
    },
    /// The server did not become ready in time.
    #[error("the server was not ready within {waited_ms} ms; last failure: {last}")]
    NotReady {
        /// How long was waited.
        waited_ms: u64,
        /// The last failure of starting it.
        last: String,
    },
    /// The connection could not be made.
    #[error("cannot connect to {target}: {reason}")]
    Connect {
        /// Scheme, host and port.
        target: String,
        /// The system's words.
        reason: String,
    },
    /// Nobody listened there for as long as was waited.
    #[error("cannot connect to {target}: {reason}, for {waited_ms} ms; start the server, or correct its URL")]
    Refused {
        /// Scheme, host and port.
        target: String,
        /// The system's words.
        reason: String,
        /// How long was waited.
        waited_ms: u64,
    },
    /// The connection failed.
    #[error("the connection failed: {reason}")]
    Broken {
        /// The system's words.
        reason: String,
    },
    /// The stream ended before the final response.
    #[error("the stream ended before the final response")]
    StreamEnded,
    /// The link was closed by this side.
    #[error("the connection is closed")]
    Closed,
    /// No answer came in time.
    #[error("no answer within {waited_ms} ms")]
    TimedOut {
        /// How long was waited.
        waited_ms: u64,
    },
    /// Too many calls wait for this server.
    #[error("{limit} calls already wait for this server; try again when some have ended")]
    TooManyCalls {
        /// The bound.
        limit: usize,
    },
    /// The id is in use by a call that still waits.
    #[error("the request id {id} is in use by a call that still waits for its answer")]
    IdInUse {
        /// The id as written.
        id: String,
    },
    /// A cancellation names no call that waits, or more than one.
    #[error("the cancellation names {matches} waiting calls instead of one")]
    NoSuchCall {
        /// How many calls the id names.
        matches: usize,
    },
    /// What the server sent is longer than the bound.
    #[error("the server sent a message of more than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: usize,
    },
    /// The reader of a stream was too slow.
    #[error("more than {limit} frames waited for the reader of this stream")]
    SlowReader {
        /// The bound.
        limit: usize,
    },
    /// The server's answer was refused by the scanner.
    #[error("the server's answer was refused: {0}")]
    BadAnswer(Refusal),
    /// The server answered with an HTTP status that says nothing about the call.
    #[error("the server answered with HTTP status {status}")]
    Status {
        /// The status.
        status: u16,
    },
    /// The message cannot travel on this link.
    #[error("this message cannot be carried: {reason}")]
    Unfit {
        /// Why, and what to do.
        reason: String,
    },
}

pub(crate) fn queue(limits: &Limits) -> usize {
    limits.frames_queued_max.max(1)
}
