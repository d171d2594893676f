//! Step 8 of the life of a call: forward once, then pass on what comes before the final response, unbuffered.
//!
//! The only place that calls [`cairn_mcp::Link::forward`], and it takes an [`Armed`] call to do so. Nothing here retries. A call ends
//! with its final response, with the client's cancellation, with its time limit, or with the loss of the server.

use bytes::Bytes;
use cairn_backbone::OutcomeRoom;
use cairn_mcp::{Canceller, Content, Exchange, Frame, LinkError, LinkFault, Message, Prepared, RawId, Reach};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Gateway,
    bridge::{Bridge, Going, Talk},
    call::Call,
    pump::Beside,
    refusal::reason,
    reply::Reply,
    resume::{Interrupted, Waiting, is_answer},
    session::Door,
    stage::Armed,
    steps::Step,
};

/// How a forwarded call ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// With the server's final response.
    Final { status: u16, session_id: Option<String>, event_id: Option<String>, message: Message },
    /// With an HTTP answer that is no JSON-RPC.
    Other { status: u16, content_type: Option<String>, body: Bytes },
    /// The server did not take Cairn's token, and so did nothing.
    Unproven { status: u16 },
    /// Nothing left this process.
    NotSent { reason: String },
    /// The server was lost; it may have acted.
    Lost { reason: String },
    /// The server took too long; it may act yet.
    TimedOut { after_ms: u64 },
    /// The client wants no answer any more; the server may have acted.
    Cancelled,
}

/// A forwarded call that ended, with the room that was kept for its outcome.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) room: Option<OutcomeRoom>,
    pub(crate) ending: Ending,
    pub(crate) upstream_elapsed_us: u64,
}

impl Gateway {
    /// Step 8.
    pub(crate) async fn forward(
        &self,
        call: &Call,
        armed: Armed,
        reply: &mut Reply,
        cancelled: &CancellationToken,
    ) -> Answered {
        let (going, room) = armed.discharge();
        let started = Instant::now();
        let mut canceller = Canceller::none();
        let limit = self.time_limit(call);
        let ending = tokio::select! {
            ending = self.go(call, going, reply, &mut canceller) => ending,
            () = cancelled.cancelled() => Ending::Cancelled,
            () = expired(limit) => Ending::TimedOut { after_ms: limit.map_or(0, |limit| limit.as_millis() as u64) },
        };
        match &ending {
            Ending::Cancelled => canceller.cancel(Some("the client cancelled".to_owned())).await,
            Ending::TimedOut { .. } => canceller.cancel(Some("the time for this call ran out".to_owned())).await,
            _ => {}
        }
        Answered { room, ending, upstream_elapsed_us: started.elapsed().as_micros() as u64 }
    }

    /// Sends the bytes, one way or the other.
    async fn go(&self, call: &Call, going: Going, reply: &mut Reply, canceller: &mut Canceller) -> Ending {
        match (going, &call.session.bridge) {
            (Going::Call(prepared), Bridge::ToLegacy(upstream)) => {
                let queue = self.limits().client_queue_max;
                self.talk(call, Box::new(Talk::begin(upstream, prepared, queue)), reply).await
            }
            (Going::Call(prepared), _) => self.exchange(call, prepared, reply, canceller).await,
            (Going::Resume(talk, response), _) => match talk.resume(&response).await {
                Ok(()) => self.talk(call, talk, reply).await,
                Err(error) => broken(&error),
            },
        }
    }

    /// Sends the bytes and reads to the final response.
    async fn exchange(&self, call: &Call, prepared: Prepared, reply: &mut Reply, canceller: &mut Canceller) -> Ending {
        // The id that the server knows it by: the client's, unless the eras differ.
        let id = prepared.id().cloned().unwrap_or_else(|| call.id.clone());
        let exchange = match call.session.link.forward(prepared).await {
            Ok(exchange) => exchange,
            Err(error) => return broken(&error),
        };
        self.reached(Step::Forwarded, call);
        let Exchange { status, session_id, content, canceller: handle, .. } = exchange;
        *canceller = handle;
        if call.session.server.refuses_token(&call.session.caller, status) {
            return Ending::Unproven { status };
        }
        match content {
            Content::Json(message) if answers(&message, &id) => {
                Ending::Final { status, session_id, event_id: None, message }
            }
            Content::Json(_) => {
                Ending::Lost { reason: "the server answered something else than this request".to_owned() }
            }
            Content::Empty => Ending::Other { status, content_type: None, body: Bytes::new() },
            Content::Other { content_type, body } => Ending::Other { status, content_type, body },
            Content::Stream(frames) => self.stream(call, &id, frames, reply, session_id).await,
        }
    }

    async fn stream(
        &self,
        call: &Call,
        id: &RawId,
        mut frames: mpsc::Receiver<Result<Frame, LinkError>>,
        reply: &mut Reply,
        session_id: Option<String>,
    ) -> Ending {
        // An HTTP server chose a stream, so the client gets one, at once. A child has no such choice to pass on.
        let streams = reply.can_stream() && call.session.relays_http();
        if streams && reply.stream(session_id.clone()).await.is_err() && self.client_left(call) {
            return Ending::Cancelled;
        }
        let mut beside = call.session.listen_beside(call, reply.can_stream());
        let resumable = self.is_resumable(call);
        // Only a client that takes events over HTTP can resume; for any other the gateway does.
        let resumes = resumable && call.session.door == Door::Http && reply.can_stream();
        let mut waiting = resumes.then(|| call.session.await_resumed(&call.id));
        let (mut interrupted, mut open) = (Interrupted::default(), true);
        loop {
            let frame = tokio::select! {
                biased;
                Some(frame) = beside.next() => {
                    // The pump has decided and recorded it already.
                    if reply.frame(frame).await.is_err() && self.client_left(call) {
                        return Ending::Cancelled;
                    }
                    continue;
                }
                resumed = resumed(&mut waiting) => {
                    reply.resume_onto(resumed.parts);
                    let Frame { event_id, message, .. } = resumed.frame;
                    let message = message.expect("a frame is joined to a call by its message");
                    return Ending::Final { status: 200, session_id: None, event_id, message };
                }
                frame = frames.recv(), if open => frame,
            };
            let frame = match frame {
                Some(Ok(frame)) => frame,
                // The server closed the stream, and said how to ask for the rest of it.
                Some(Err(error)) if resumable && interrupted.last_event_id.is_some() && has_ended(&error) => {
                    if waiting.is_some() {
                        open = false;
                        reply.interrupt().await;
                        continue;
                    }
                    match self.resume(&call.session, &interrupted).await {
                        Ok(rest) => frames = rest,
                        Err(_) => return broken(&error),
                    }
                    continue;
                }
                // A resumed stream has no end of its own, so it can only end early.
                None if resumable && interrupted.last_event_id.is_some() && waiting.is_none() => {
                    match self.resume(&call.session, &interrupted).await {
                        Ok(rest) => frames = rest,
                        Err(error) => return broken(&LinkError::lost(error.cause().clone())),
                    }
                    continue;
                }
                Some(Err(error)) => return broken(&error),
                None => return Ending::Lost { reason: "the stream ended before the final response".to_owned() },
            };
            interrupted.note(&frame);
            // A resumed stream may replay the answers of other calls, and a faulty server may give any.
            if is_answer(&frame) && !frame.message.as_ref().is_some_and(|message| answers(message, id)) {
                continue;
            }
            if is_answer(&frame) {
                self.catch_up(call, &mut beside, reply).await;
                let Frame { event_id, message, .. } = frame;
                let message = message.expect("a frame with a final response holds a message");
                return Ending::Final { status: 200, session_id, event_id, message };
            }
            let Some(frame) = self.from_server(&call.session, frame, Some(call)).await else { continue };
            if reply.frame(frame).await.is_err() && self.client_left(call) {
                return Ending::Cancelled;
            }
        }
    }

    /// Passes on what the server said before its answer, so that the answer overtakes nothing. What is on its way here may
    /// be more than fits in between, so it is taken while it comes.
    async fn catch_up(&self, call: &Call, beside: &mut Beside, reply: &mut Reply) {
        let settled = call.session.settle();
        tokio::pin!(settled);
        loop {
            let frame = tokio::select! {
                Some(frame) = beside.next() => frame,
                () = &mut settled => break,
            };
            // A client that has gone takes nothing; the rest is taken all the same, or it would be waited for.
            let _ = reply.frame(frame).await;
        }
        while let Some(frame) = beside.at_once() {
            let _ = reply.frame(frame).await;
        }
    }

    /// Whether a client that stopped reading has thereby cancelled: it has on modern HTTP, it has not on legacy HTTP.
    fn client_left(&self, call: &Call) -> bool {
        call.ends_with_client()
    }

    /// How long the server may take; streams that listen have no limit.
    fn time_limit(&self, call: &Call) -> Option<std::time::Duration> {
        (call.method != "subscriptions/listen").then_some(self.limits().call_timeout)
    }

    /// A token that fires when the client cancels this call or, where that means the same, goes away.
    pub(crate) fn follow(&self, call: &Call) -> CancellationToken {
        let token = call.session.ended.child_token();
        call.session.in_flight.lock().insert(call.id.clone(), token.clone());
        token
    }
}

/// Whether a message is the answer to this call; an error without an id is, as nothing else waits for it.
fn answers(message: &Message, to: &RawId) -> bool {
    let is_its = message.id().is_none_or(|id| id.is_null() || id == to);
    is_its && message.method().is_none()
}

/// The answer to a call on another stream than its own; never where none can come.
async fn resumed(waiting: &mut Option<Waiting>) -> crate::resume::Resumed {
    match waiting {
        Some(waiting) => waiting.answer().await,
        None => std::future::pending().await,
    }
}

fn has_ended(error: &LinkError) -> bool {
    matches!(error.cause(), LinkFault::StreamEnded)
}

async fn expired(limit: Option<std::time::Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

pub(crate) fn broken(error: &LinkError) -> Ending {
    let reason = reason(error);
    match error.reach() {
        Reach::NotSent => Ending::NotSent { reason },
        Reach::Lost => Ending::Lost { reason },
    }
}
