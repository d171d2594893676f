//! Messages of a child that belong to no answer, on their way to the client that they are for.
//!
//! A child has one output for everything. On a pipe the client has one input for everything too. On HTTP each message
//! must find a stream: progress goes to the request that gave the token; else the youngest open request that takes
//! events; else the session's own stream. One task for one session, so their order is kept.

use std::sync::{Arc, atomic::Ordering};

use cairn_mcp::{Frame, Kind, RawId};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use crate::{
    Gateway,
    call::Call,
    session::{Door, Session},
};

/// A request that takes events while it waits for its answer.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) call_id: Uuid,
    pub(crate) token: Option<RawId>,
    pub(crate) frames: mpsc::Sender<Frame>,
}

impl Gateway {
    /// Starts the task that serves a session's unsolicited messages.
    pub(crate) fn pump(&self, session: &Arc<Session>) {
        let Some(mut frames) = session.link.unsolicited() else { return };
        let Some(mut barriers) = session.barriers_reader.lock().take() else { return };
        session.pumped.store(true, Ordering::Release);
        let (gateway, session) = (self.clone(), session.clone());
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    // Frames first: when a barrier is answered, everything that came before it has been passed on.
                    biased;
                    frame = frames.recv() => match frame {
                        Some(frame) => {
                            if let Some(frame) = gateway.from_server(&session, frame, None).await {
                                pass(&session, frame).await;
                            }
                        }
                        None => break,
                    },
                    Some(barrier) = barriers.recv() => { let _ = oneshot::Sender::send(barrier, ()); }
                    () = session.ended.cancelled() => break,
                }
            }
        });
    }
}

impl Session {
    /// Waits until everything that the child sent before now has been passed on, so that an answer overtakes nothing.
    pub(crate) async fn settle(&self) {
        if !self.pumped.load(Ordering::Acquire) {
            return; // nothing is passed on for this session but what belongs to its calls
        }
        let (barrier, passed) = oneshot::channel();
        if self.barriers.send(barrier).await.is_ok() {
            let _ = passed.await;
        }
    }
}

/// What a child says beside a call's own stream, while the call waits. Ends with the call.
#[derive(Debug)]
pub(crate) struct Beside {
    session: Arc<Session>,
    call_id: Uuid,
    frames: mpsc::Receiver<Frame>,
}

impl Beside {
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        self.frames.recv().await
    }

    /// A frame that is here already.
    pub(crate) fn at_once(&mut self) -> Option<Frame> {
        self.frames.try_recv().ok()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.session.listeners.lock().retain(|listener| listener.call_id != self.call_id);
    }
}

impl Session {
    /// Lets a call over HTTP hear what the child says beside its stream, where the client takes events at all.
    pub(crate) fn listen_beside(self: &Arc<Self>, call: &Call, takes_events: bool) -> Beside {
        let (sender, frames) = mpsc::channel(self.outward.max_capacity());
        let hears = takes_events && self.door == Door::Http && !self.relays_http();
        if hears && call.method != "subscriptions/listen" {
            let token = call.message.progress_token();
            self.listeners.lock().push(Listener { call_id: call.call_id, token, frames: sender });
        }
        Beside { session: self.clone(), call_id: call.call_id, frames }
    }
}

pub(crate) async fn pass(session: &Session, frame: Frame) {
    if session.door == Door::Pipe {
        let _ = session.outward.send(frame).await;
        return;
    }
    let message = frame.message.as_ref();
    let token = message.filter(|m| m.method() == Some("notifications/progress")).and_then(|m| m.progress_token());
    let listener = {
        let listeners = session.listeners.lock();
        let by_token = listeners.iter().find(|listener| token.is_some() && listener.token == token);
        by_token.or_else(|| listeners.last()).map(|listener| listener.frames.clone())
    };
    let frame = match listener {
        Some(listener) => match listener.send(frame).await {
            Ok(()) => return,
            Err(returned) => returned.0,
        },
        None => frame,
    };
    // Nobody may be reading the session's own stream; it must not stop the child. A request then runs into its time
    // limit, a notification is lost, as the specification allows.
    if let Err(mpsc::error::TrySendError::Full(lost)) = session.outward.try_send(frame) {
        let kind = lost.message.map(|message| message.kind());
        tracing::debug!(
            request = kind == Some(Kind::Request),
            "the session's own stream is full: a message was dropped"
        );
    }
}
