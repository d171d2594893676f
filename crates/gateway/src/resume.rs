//! Resumed streams of legacy HTTP servers (MCP 2025-11-25, Streamable HTTP, Resumability and Redelivery).
//!
//! A legacy server may close the stream of a request before its answer, and a client may lose it; the answer then comes
//! on another stream, which is asked for with `Last-Event-ID`. Over HTTP the client asks, and this file joins the answer
//! to the call that waits for it, so that the call still has one outcome, recorded before the answer goes out. On a pipe
//! there is no client that could ask: there the gateway resumes by itself, as patiently as the server wants it.
//!
//! Event ids are the server's own and pass unchanged. The modern era has no resumption.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use cairn_mcp::{Content, ForwardHeaders, Frame, Kind, LinkError, RawId};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::{Gateway, arrival::Arrival, call::Call, reply::Part, session::Session};

/// Answered calls of one session that are remembered, so that a stream may replay their answers.
const ANSWERED_MAX: usize = 256;
/// The pause before a stream is asked for again where the server named none.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that a server may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// An answer that came on another stream than its request's, and where it has to go.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) frame: Frame,
    pub(crate) parts: mpsc::Sender<Part>,
}

/// The calls of one session that wait for an answer, wherever it comes, and those that have theirs.
#[derive(Debug, Default)]
pub(crate) struct Resumption {
    waiting: Mutex<HashMap<RawId, oneshot::Sender<Resumed>>>,
    answered: Mutex<VecDeque<RawId>>,
}

/// One call's place among those that wait. Ends with the call.
#[derive(Debug)]
pub(crate) struct Waiting {
    session: Arc<Session>,
    id: RawId,
    answer: oneshot::Receiver<Resumed>,
}

impl Waiting {
    /// The answer, where it comes on another stream.
    pub(crate) async fn answer(&mut self) -> Resumed {
        match (&mut self.answer).await {
            Ok(resumed) => resumed,
            Err(_) => std::future::pending().await, // another call took the id; the stream of this one may still answer
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.answer.close();
        let mut waiting = self.session.resumption.waiting.lock();
        if waiting.get(&self.id).is_some_and(oneshot::Sender::is_closed) {
            waiting.remove(&self.id);
        }
    }
}

impl Session {
    /// Lets a call hear its answer from a stream that the client resumes.
    pub(crate) fn await_resumed(self: &Arc<Self>, id: &RawId) -> Waiting {
        let (sender, answer) = oneshot::channel();
        self.resumption.waiting.lock().insert(id.clone(), sender);
        Waiting { session: self.clone(), id: id.clone(), answer }
    }

    /// Remembers that a call has its outcome.
    pub(crate) fn note_answered(&self, id: &RawId) {
        let mut answered = self.resumption.answered.lock();
        if answered.len() >= ANSWERED_MAX {
            answered.pop_front();
        }
        answered.push_back(id.clone());
    }

    /// Joins an answer on a resumed stream to its call. Gives it back where its call has its outcome already: then it is
    /// the server's replay, for a client that did not get it.
    pub(crate) fn join(&self, frame: Frame, parts: &mpsc::Sender<Part>) -> Option<Frame> {
        let id = frame.message.as_ref()?.id()?.clone();
        let waiting = self.resumption.waiting.lock().remove(&id);
        if let Some(waiting) = waiting {
            return match waiting.send(Resumed { frame, parts: parts.clone() }) {
                Ok(()) => None,
                Err(resumed) => Some(resumed.frame), // its call ended in this very moment
            };
        }
        self.resumption.answered.lock().contains(&id).then_some(frame)
    }
}

/// A stream that a server has closed, and how to ask for the rest of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interrupted {
    pub(crate) last_event_id: Option<String>,
    pub(crate) retry_ms: Option<u64>,
}

impl Interrupted {
    /// Notes what a frame says about resumption.
    pub(crate) fn note(&mut self, frame: &Frame) {
        if frame.event_id.is_some() {
            self.last_event_id.clone_from(&frame.event_id);
        }
        self.retry_ms = frame.retry_ms.or(self.retry_ms);
    }

    async fn pause(&self) {
        let pause = self.retry_ms.map_or(PAUSE, Duration::from_millis).min(PAUSE_MAX);
        tokio::time::sleep(pause).await;
    }
}

type Frames = mpsc::Receiver<Result<Frame, LinkError>>;

impl Gateway {
    /// Asks for the rest of a closed stream, for a client on a pipe.
    pub(crate) async fn resume(&self, session: &Session, interrupted: &Interrupted) -> Result<Frames, LinkError> {
        interrupted.pause().await;
        let exchange = session.link.listen(&self.listening(session, interrupted)).await?;
        match exchange.content {
            Content::Stream(frames) => Ok(frames),
            _ => Err(LinkError::lost(cairn_mcp::LinkFault::Status { status: exchange.status })),
        }
    }

    fn listening(&self, session: &Session, interrupted: &Interrupted) -> ForwardHeaders {
        let headers = Arrival::pipe().forward(session.claims.lock().protocol_version.clone());
        ForwardHeaders { last_event_id: interrupted.last_event_id.clone(), ..headers }
    }

    /// Listens, for a client on a pipe, to what a legacy HTTP server says unasked. Ends where the server offers no such
    /// stream, and with the session.
    pub(crate) fn listen_for_pipe(&self, session: &Arc<Session>) {
        let (gateway, session) = (self.clone(), session.clone());
        tokio::spawn(async move {
            let ended = session.ended.clone();
            tokio::select! {
                () = gateway.hear(&session) => {}
                () = ended.cancelled() => {}
                () = gateway.stop().cancelled() => {}
            }
        });
    }

    async fn hear(&self, session: &Arc<Session>) {
        let mut interrupted = Interrupted::default();
        let mut begun = false;
        loop {
            if begun {
                interrupted.pause().await;
            }
            let exchange = match session.link.listen(&self.listening(session, &interrupted)).await {
                Ok(exchange) => exchange,
                Err(_) if begun => continue,
                Err(error) => return tracing::debug!(%error, "the server's own stream could not be opened"),
            };
            // Servers that have no such stream answer 405.
            let Content::Stream(mut frames) = exchange.content else { return };
            begun = true;
            while let Some(Ok(frame)) = frames.recv().await {
                interrupted.note(&frame);
                let Some(frame) = self.from_server(session, frame, None).await else { continue };
                if session.outward.send(frame).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Whether an answer of the server's to this call can come on another stream than its own.
    pub(crate) fn is_resumable(&self, call: &Call) -> bool {
        !call.message.is_modern() && call.session.relays_http()
    }
}

/// Whether a frame holds an answer.
pub(crate) fn is_answer(frame: &Frame) -> bool {
    frame.message.as_ref().is_some_and(|message| matches!(message.kind(), Kind::Response | Kind::Error))
}
