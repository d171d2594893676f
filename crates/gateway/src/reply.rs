//! The way back to the client for one request: head, frames, one end.
//!
//! The life of a call writes into a [`Reply`]; the transport (HTTP or a pipe) reads the parts and puts them on the wire.
//! The queue is bounded, so a slow client slows its own call and nothing else. A reply ends once; what comes after the
//! end is a defect here, not on the wire.

use bytes::Bytes;
use cairn_mcp::{Frame, Message};
use tokio::sync::{mpsc, oneshot};

/// One piece of an answer, in the order of the wire.
#[derive(Debug)]
pub(crate) enum Part {
    /// The answer will be a stream of events.
    Streaming {
        /// The session that the server opened.
        session_id: Option<String>,
    },
    /// An event of the stream.
    Frame(Frame),
    /// The server closed its stream before the answer; the client may resume it, and the answer comes there.
    Interrupted,
    /// The final JSON-RPC message.
    Final {
        /// HTTP status of an answer that is not a stream.
        status: u16,
        /// The session that the server opened.
        session_id: Option<String>,
        /// The message.
        message: Message,
        /// The event id that the server gave it.
        event_id: Option<String>,
        /// Told whether the answer was written out.
        written: oneshot::Sender<()>,
    },
    /// An HTTP answer that is not JSON-RPC, passed on as it came.
    Other {
        /// The status.
        status: u16,
        /// Its media type.
        content_type: Option<String>,
        /// The body.
        body: Bytes,
    },
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct Reply {
    parts: mpsc::Sender<Part>,
    can_stream: bool,
    streaming: bool,
}

/// The client is gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Reply {
    /// A reply and the end that the transport reads. `can_stream` says whether the client takes events.
    pub(crate) fn channel(queue: usize, can_stream: bool) -> (Self, mpsc::Receiver<Part>) {
        let (parts, receiver) = mpsc::channel(queue.max(1));
        (Self { parts, can_stream, streaming: false }, receiver)
    }

    /// A reply into a queue that many calls of one pipe share.
    pub(crate) const fn onto(parts: mpsc::Sender<Part>) -> Self {
        Self { parts, can_stream: true, streaming: true }
    }

    /// A handle that outlives borrows of the reply and resolves when the client has gone.
    pub(crate) fn watch(&self) -> mpsc::Sender<Part> {
        self.parts.clone()
    }

    /// Whether events can be sent before the final message.
    pub(crate) const fn can_stream(&self) -> bool {
        self.can_stream
    }

    /// Begins a stream; later calls do nothing.
    pub(crate) async fn stream(&mut self, session_id: Option<String>) -> Result<(), Gone> {
        if self.streaming {
            return Ok(());
        }
        self.streaming = true;
        self.parts.send(Part::Streaming { session_id }).await.map_err(|_| Gone)
    }

    /// Sends one event; begins the stream where it has not begun.
    pub(crate) async fn frame(&mut self, frame: Frame) -> Result<(), Gone> {
        self.stream(None).await?;
        self.parts.send(Part::Frame(frame)).await.map_err(|_| Gone)
    }

    /// Ends with a JSON-RPC message. The receiver resolves when the answer was written out, and fails if it never was.
    pub(crate) async fn end(
        self,
        status: u16,
        session_id: Option<String>,
        event_id: Option<String>,
        message: Message,
    ) -> Result<oneshot::Receiver<()>, Gone> {
        let (written, wait) = oneshot::channel();
        let part = Part::Final { status, session_id, message, event_id, written };
        self.parts.send(part).await.map_err(|_| Gone)?;
        Ok(wait)
    }

    /// Ends with something that is not JSON-RPC.
    pub(crate) async fn other(self, status: u16, content_type: Option<String>, body: Bytes) -> Result<(), Gone> {
        self.parts.send(Part::Other { status, content_type, body }).await.map_err(|_| Gone)
    }

    /// Ends the stream without an answer; the call goes on.
    pub(crate) async fn interrupt(&mut self) {
        // A client that has gone needs no word of it.
        let _ = self.parts.send(Part::Interrupted).await;
    }

    /// Goes on with the stream that the client opened to resume this one.
    pub(crate) fn resume_onto(&mut self, parts: mpsc::Sender<Part>) {
        *self = Self::onto(parts);
    }

    /// Resolves when the client has gone. Does not resolve while the transport still reads.
    pub(crate) async fn gone(&self) {
        self.parts.closed().await;
    }
}
