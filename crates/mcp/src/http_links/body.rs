//! Reading an answer's body: whole and bounded, or event by event as it comes. Called by the HTTP links. Must never
//! buffer a stream: a frame goes on as soon as its event has ended.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header::CONTENT_TYPE};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use crate::{
    Frame, Limits, LinkError, LinkFault, Message, RawId,
    http_links::client::innermost,
    link::queue,
    sse::{Decoder, Event},
};

/// How long, and how much of, a stream is read after its final response, so that its connection can be used again.
const DRAIN_WAIT: Duration = Duration::from_millis(250);

/// What a body is, by its `Content-Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    Events,
    Other,
}

pub(super) fn media(headers: &HeaderMap) -> Media {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Media::Json
    } else if essence.eq_ignore_ascii_case("text/event-stream") {
        Media::Events
    } else {
        Media::Other
    }
}

/// The whole body.
pub(super) async fn collect(mut body: Incoming, limits: &Limits) -> Result<Bytes, LinkError> {
    let limit = limits.message_bytes_max;
    let mut whole: Option<Bytes> = None;
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| LinkError::lost(LinkFault::Broken { reason: innermost(&error) }))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if joined.len() + whole.as_ref().map_or(0, Bytes::len) + chunk.len() > limit {
            return Err(LinkError::lost(LinkFault::TooLong { limit }));
        }
        // Most bodies are one chunk, which need not be copied.
        match whole.take() {
            None if joined.is_empty() => whole = Some(chunk),
            first => {
                joined.extend_from_slice(&first.unwrap_or_default());
                joined.extend_from_slice(&chunk);
            }
        }
    }
    Ok(whole.unwrap_or_else(|| joined.freeze()))
}

/// Events of a body, one after the other.
#[derive(Debug)]
pub(super) struct Events {
    body: Incoming,
    decoder: Decoder,
    ready: std::collections::VecDeque<Event>,
}

impl Events {
    pub(super) fn new(body: Incoming, limits: &Limits) -> Self {
        Self { body, decoder: Decoder::new(limits.message_bytes_max), ready: std::collections::VecDeque::new() }
    }

    /// The next event; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, LinkFault> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|error| LinkFault::Broken { reason: innermost(&error) })?;
            let Ok(chunk) = frame.into_data() else { continue };
            let mut events = Vec::new();
            self.decoder.push(&chunk, &mut events).map_err(|error| LinkFault::TooLong { limit: error.limit })?;
            self.ready.extend(events);
        }
    }
}

/// The frame of an event.
pub(super) fn frame(event: Event, limits: &Limits) -> Result<Frame, LinkFault> {
    let data = event.data.filter(|data| !data.is_empty());
    let message = data.map(|data| Message::parse(data, limits)).transpose().map_err(LinkFault::BadAnswer)?;
    Ok(Frame { event_id: event.id, retry_ms: event.retry_ms, message })
}

/// Streams frames to a channel. With an `id` the stream belongs to that request: it ends after its response, and with an
/// error where none came. Dropping the receiver closes the connection, which is how a modern call is cancelled.
pub(super) fn stream(body: Incoming, id: Option<RawId>, limits: Limits) -> mpsc::Receiver<Result<Frame, LinkError>> {
    let (sender, receiver) = mpsc::channel(queue(&limits));
    tokio::spawn(async move {
        let mut events = Events::new(body, &limits);
        let answered = tokio::select! {
            answered = pump(&mut events, id.as_ref(), &limits, &sender) => answered,
            () = sender.closed() => false,
        };
        drop(sender);
        if answered {
            let drained = async { while let Ok(Some(_)) = events.next().await {} };
            let _ = tokio::time::timeout(DRAIN_WAIT, drained).await;
        }
    });
    receiver
}

/// True once the final response has been passed on.
async fn pump(
    events: &mut Events,
    id: Option<&RawId>,
    limits: &Limits,
    sender: &mpsc::Sender<Result<Frame, LinkError>>,
) -> bool {
    loop {
        let next = match events.next().await {
            Ok(Some(event)) if event.event.as_deref().is_none_or(|name| name == "message") => frame(event, limits),
            // Another kind of event is no message; its id still counts for resumption.
            Ok(Some(event)) => frame(Event { data: None, ..event }, limits),
            Ok(None) if id.is_none() => return false,
            Ok(None) => Err(LinkFault::StreamEnded),
            Err(fault) => Err(fault),
        };
        let ends = next.is_err();
        let answers = next.as_ref().is_ok_and(|frame| is_answer(frame, id));
        if sender.send(next.map_err(LinkError::lost)).await.is_err() || ends {
            return false;
        }
        if answers {
            return true;
        }
    }
}

fn is_answer(frame: &Frame, id: Option<&RawId>) -> bool {
    let answer = frame.message.as_ref().filter(|message| message.method().is_none());
    id.is_some() && answer.is_some_and(|message| message.id().is_none_or(RawId::is_null) || message.id() == id)
}
