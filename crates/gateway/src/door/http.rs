//! Streamable HTTP towards clients: `/mcp/<server>`, both eras.
//!
//! This file knows HTTP and nothing of policy: it refuses what may not come in (`Host`, `Origin`, size, ambiguity,
//! headers that disagree with the body), finds the session, hands the message on, and writes what comes back.
//! Source: MCP 2025-11-25 and 2026-07-28, basic/transports, Streamable HTTP.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame as BodyFrame, Incoming};
use serde_json::json;
use tokio::sync::mpsc;

use cairn_contract::Transport;
use cairn_identity::{Identity, Reason};
use cairn_mcp::{Kind, Message, RawId, era, headers::OriginFault, is_batch, parse_batch, sse};

use crate::{
    Gateway, Limits, Refusal,
    arrival::Arrival,
    door::admission::{Client, Guest},
    reply::{Part, Reply},
    session::{Caller, Session},
    upstream::Server,
};

/// How long a body that holds room may wait for more of it.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(2);

pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;
type Head = http::request::Parts;

/// Answers one request. Where its body was not read to the end, the connection ends with the answer.
pub(super) async fn answer(gateway: &Gateway, client: &Client, request: Request<Incoming>) -> Response<Body> {
    let (head, body) = request.into_parts();
    let mut body = Arriving::new(body);
    let mut response = route(gateway, client, &head, &mut body).await;
    if !body.ended {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}

/// A request's body as it comes.
struct Arriving {
    body: Incoming,
    /// Whether all of it has been read.
    ended: bool,
    /// Whether what has come of it waits for room among all bodies.
    wants_room: bool,
}

impl Arriving {
    fn new(body: Incoming) -> Self {
        let ended = hyper::body::Body::is_end_stream(&body);
        Self { body, ended, wants_room: false }
    }

    async fn frame(&mut self) -> Option<Result<BodyFrame<Bytes>, hyper::Error>> {
        let frame = self.body.frame().await;
        self.ended = frame.is_none() || hyper::body::Body::is_end_stream(&self.body);
        frame
    }

    /// How long it is at least, as its head says.
    fn announced(&self) -> u64 {
        hyper::body::Body::size_hint(&self.body).lower()
    }
}

async fn route(gateway: &Gateway, client: &Client, head: &Head, body: &mut Arriving) -> Response<Body> {
    let limit = gateway.limits().header_bytes_max;
    if head_bytes(head) > limit {
        let words = format!("the request's head is longer than {limit} bytes (header_bytes_max)");
        return text(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &words);
    }
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    if let Err(reason) = gateway.origins().check(&head.headers, authority) {
        let setting = match reason {
            OriginFault::Origin { .. } => "gateway.origins",
            OriginFault::Host { .. } => "gateway.hosts",
        };
        return text(StatusCode::FORBIDDEN, &format!("{reason} ({setting})"));
    }
    if head.method == Method::GET
        && let Some(response) = gateway.resource_metadata(head.uri.path())
    {
        return response;
    }
    if head.uri.path() == super::callback::PATH {
        return super::callback::answer(gateway, &head.method, head.uri.query()).await;
    }
    let Some(name) = head.uri.path().strip_prefix("/mcp/").map(|name| name.trim_end_matches('/')) else {
        return text(StatusCode::NOT_FOUND, "no such path: a server behind Cairn is at /mcp/<server>");
    };
    let Some(server) = gateway.server(name) else {
        return text(
            StatusCode::NOT_FOUND,
            &format!("no server is called {name:?}: name it in the configuration under [servers]"),
        );
    };
    let who = match gateway.admit_client(client, &server, head).await {
        Ok(who) => who,
        Err(response) => return response,
    };
    match head.method {
        Method::POST => post(gateway, client, &who, server, &head.headers, body).await,
        Method::GET => listen(gateway, &who, &server, &head.headers).await,
        Method::DELETE => delete(gateway, &who, &server, &head.headers).await,
        _ => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "MCP uses POST, GET and DELETE");
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST, GET, DELETE"));
            response
        }
    }
}

/// The bytes of a request's head, near enough: what separates its parts is counted at its shortest.
fn head_bytes(head: &Head) -> usize {
    let line = head.uri.path_and_query().map_or(0, |path| path.as_str().len());
    let fields = head.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len());
    line + fields.sum::<usize>()
}

async fn post(
    gateway: &Gateway,
    client: &Client,
    who: &Guest,
    server: Arc<Server>,
    head: &HeaderMap,
    body: &mut Arriving,
) -> Response<Body> {
    let arrival = || Arrival::http(head).over(&client.name).by(who);
    let limit = gateway.limits().request_read_max;
    let (bytes, room) = match tokio::time::timeout(limit, read_body(gateway, body)).await {
        Ok(Ok(read)) => read,
        Ok(Err(response)) => return response,
        Err(_) if body.wants_room => return no_room(gateway),
        Err(_) => {
            let words = format!("the request body did not come within {} ms (request_read_ms_max)", limit.as_millis());
            return text(StatusCode::REQUEST_TIMEOUT, &words);
        }
    };
    drop(room);
    if is_batch(&bytes) {
        return batch(gateway, client, who, &server, head, arrival, &bytes).await;
    }
    let message = match Message::parse(bytes, gateway.wire_limits()) {
        Ok(message) => message,
        Err(refusal) => {
            gateway.note_unread(&refusal.fault, Caller::from(&**who), (&server.name, Transport::Tcp));
            return unparsed(&refusal);
        }
    };
    if let Some(method) = message.method()
        && let Some(response) = gateway.hold_to_scopes(client, &server, who, &[method])
    {
        return response;
    }
    if let Err(mismatch) = gateway.agree(&server, head, &message) {
        gateway.note_trespass(Reason::HeadersDisagree, who, &server.name);
        return error(StatusCode::BAD_REQUEST, message.id(), mismatch.code(), &mismatch.to_string(), None);
    }
    if let Some(response) = unsupported(&server, head, &message) {
        return response;
    }
    // The server may still be starting, which must not hold up our own end.
    let session = tokio::select! {
        biased;
        session = gateway.session_for(&server, who, head, &message) => session,
        () = gateway.stop().cancelled() => Err(Early::Refused(Refusal::stopping())),
    };
    let session = match session {
        Ok(session) => session,
        Err(response) => {
            if let Early::Refused(refusal) = &response {
                gateway.metrics().refused(refusal.word());
            }
            return response.into_http(message.id());
        }
    };
    session.bring(who.brought.clone());
    if message.kind() != Kind::Request {
        return match gateway.from_client(&session, message, &arrival()).await {
            Ok(()) => empty(StatusCode::ACCEPTED),
            Err(refusal) => refused(None, &refusal),
        };
    }
    let (reply, parts) = Reply::channel(gateway.limits().client_queue_max, takes_events(head));
    gateway.start(session, message, arrival(), reply);
    written(parts, gateway.limits()).await
}

/// All bodies that are being read hold what they may hold together.
fn no_room(gateway: &Gateway) -> Response<Body> {
    let refusal = Refusal::Busy { setting: "bodies_bytes_max", limit: gateway.limits().bodies_bytes_max as u64 };
    gateway.metrics().refused(refusal.word());
    refused(None, &refusal)
}

/// The whole body, within bounds of its own and of all bodies together. What is given back with it is its part of those.
async fn read_body(
    gateway: &Gateway,
    body: &mut Arriving,
) -> Result<(Bytes, Vec<tokio::sync::OwnedSemaphorePermit>), Response<Body>> {
    let limit = gateway.limits().message_bytes_max;
    let too_large = || {
        let reason =
            format!("the message is longer than {limit} bytes (message_bytes_max); send less or raise the setting");
        let refusal = Refusal::TooLarge { reason };
        gateway.metrics().refused(refusal.word());
        refused(None, &refusal)
    };
    if body.announced() > limit as u64 {
        return Err(too_large());
    }
    let (mut whole, mut room) = (bytes::BytesMut::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|error| text(StatusCode::BAD_REQUEST, &format!("the request body could not be read: {error}")))?;
        let Ok(chunk) = frame.into_data() else { continue };
        if whole.len() + chunk.len() > limit {
            return Err(too_large());
        }
        let bytes = u32::try_from(chunk.len()).unwrap_or(u32::MAX);
        body.wants_room = true;
        let part = gateway.body_bytes().clone().acquire_many_owned(bytes);
        // One that holds nothing waits as long as it may; those that hold some must not wait for each other.
        let wait = if room.is_empty() { gateway.limits().request_read_max } else { ROOM_WAIT_MAX };
        let Ok(part) = tokio::time::timeout(wait, part).await else { return Err(no_room(gateway)) };
        body.wants_room = false;
        room.push(part.expect("nobody closes this semaphore"));
        // Most bodies are one chunk, which need not be copied.
        if whole.is_empty() && body.ended {
            return Ok((chunk, room));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok((whole.freeze(), room))
}

/// The refusal of a protocol version that nobody here speaks. An HTTP server judges that itself; in front of a child the
/// gateway must, because a child was asked for its version once and not with each request.
fn unsupported(server: &Server, head: &HeaderMap, message: &Message) -> Option<Response<Body>> {
    if server.is_http() || message.kind() != Kind::Request {
        return None;
    }
    let (requested, supported) = if message.is_modern() {
        (message.protocol_version().unwrap_or_default(), era::MODERN)
    } else {
        (head.get("mcp-protocol-version")?.to_str().unwrap_or_default().to_owned(), era::LEGACY)
    };
    if supported.contains(&requested.as_str()) {
        return None;
    }
    let shown: String = requested.chars().take(64).collect();
    let data = json!({ "supported": supported, "requested": shown }).to_string();
    let code = cairn_mcp::code::UNSUPPORTED_PROTOCOL_VERSION;
    let words = format!("unsupported protocol version {shown:?}: this server is served in {}", supported.join(", "));
    Some(error(StatusCode::BAD_REQUEST, message.id(), code, &words, Some(data.as_bytes())))
}

/// A batch of 2025-03-26: each member lives its own call, the answers come back as one array.
async fn batch(
    gateway: &Gateway,
    client: &Client,
    who: &Guest,
    server: &Arc<Server>,
    head: &HeaderMap,
    arrival: impl Fn() -> Arrival,
    bytes: &Bytes,
) -> Response<Body> {
    let session = match gateway.session_by_header(server, who, head) {
        Some(session) if !session.owns_link() => {
            return refused(None, &cairn_mcp::bridge::NotBridged::Batch.into());
        }
        Some(session) if session.claims.lock().protocol_version.as_deref() == Some("2025-03-26") => session,
        _ => {
            let words = "batches exist in MCP 2025-03-26 only; send one message a request";
            return error(StatusCode::BAD_REQUEST, None, cairn_mcp::code::INVALID_REQUEST, words, None);
        }
    };
    session.bring(who.brought.clone());
    let members = match parse_batch(bytes, gateway.wire_limits()) {
        Ok(members) => members,
        Err(refusal) => {
            gateway.note_unread(&refusal.fault, Caller::from(&**who), (&server.name, Transport::Tcp));
            return unparsed(&refusal);
        }
    };
    let methods: Vec<_> = members.iter().flatten().filter_map(Message::method).collect();
    if let Some(response) = gateway.hold_to_scopes(client, server, who, &methods) {
        return response;
    }
    let mut waiting = Vec::new();
    let mut answers = Vec::new();
    for member in members {
        match member {
            Err(refusal) => {
                gateway.note_unread(&refusal.fault, Caller::from(&**who), (&server.name, Transport::Tcp));
                answers.push(parse_error(&refusal).bytes().clone());
            }
            Ok(message) if message.kind() == Kind::Request => {
                let (reply, parts) = Reply::channel(gateway.limits().client_queue_max, false);
                gateway.start(session.clone(), message, arrival(), reply);
                waiting.push(parts);
            }
            Ok(message) => {
                if let Err(refusal) = gateway.from_client(&session, message, &arrival()).await {
                    tracing::debug!(reason = refusal.word(), "a member of a batch was not passed on");
                }
            }
        }
    }
    for mut parts in waiting {
        while let Some(part) = parts.recv().await {
            if let Part::Final { message, written, .. } = part {
                answers.push(message.bytes().clone());
                let _ = written.send(());
            }
        }
    }
    if answers.is_empty() {
        return empty(StatusCode::ACCEPTED);
    }
    let mut array = vec![b'['];
    array.extend(answers.join(&b','));
    array.push(b']');
    json_bytes(StatusCode::OK, Bytes::from(array))
}

/// The legacy GET stream: messages of the server that belong to no request.
async fn listen(gateway: &Gateway, who: &Guest, server: &Arc<Server>, head: &HeaderMap) -> Response<Body> {
    if !takes_events(head) {
        return text(StatusCode::NOT_ACCEPTABLE, "a GET opens an event stream: send Accept: text/event-stream");
    }
    let Some(session) = gateway.session_by_header(server, who, head) else {
        return text(StatusCode::METHOD_NOT_ALLOWED, "an event stream needs the Mcp-Session-Id of a legacy session");
    };
    session.bring(who.brought.clone());
    match gateway.open_stream(&session, head).await {
        Ok(parts) => written(parts, gateway.limits()).await,
        Err(response) => response.into_http(None),
    }
}

async fn delete(gateway: &Gateway, who: &Identity, server: &Arc<Server>, head: &HeaderMap) -> Response<Body> {
    let Some(session) = gateway.session_by_header(server, who, head) else {
        return text(StatusCode::NOT_FOUND, "no such session");
    };
    gateway.end_session(&session, "deleted by the client").await;
    empty(StatusCode::NO_CONTENT)
}

/// Turns the parts of a reply into an HTTP answer. The first part decides its kind.
async fn written(mut parts: mpsc::Receiver<Part>, limits: &Limits) -> Response<Body> {
    let (keep_alive, stall) = (limits.keep_alive_every, limits.client_stall_max);
    match parts.recv().await {
        Some(Part::Final { status, session_id, message, written, .. }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let mut response = json_bytes(status, message.bytes().clone());
            set_session(&mut response, session_id.as_deref());
            let _ = written.send(());
            response
        }
        Some(Part::Other { status, content_type, body }) => {
            let mut response = Response::new(full(body));
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            if let Some(kind) = content_type.and_then(|kind| header::HeaderValue::try_from(kind).ok()) {
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
            }
            response
        }
        Some(Part::Streaming { session_id }) => {
            let mut response = events(parts, keep_alive, stall, None);
            set_session(&mut response, session_id.as_deref());
            response
        }
        Some(Part::Frame(frame)) => events(parts, keep_alive, stall, Some(frame)),
        // The call ended without an answer: it was cancelled.
        Some(Part::Interrupted) | None => empty(StatusCode::NO_CONTENT),
    }
}

fn events(
    mut parts: mpsc::Receiver<Part>,
    keep_alive: Duration,
    stall: Duration,
    first: Option<cairn_mcp::Frame>,
) -> Response<Body> {
    let (wire, reader) = mpsc::channel::<Result<BodyFrame<Bytes>, Infallible>>(1);
    tokio::spawn(async move {
        if let Some(frame) = first
            && wire.send(Ok(BodyFrame::data(encode(&frame)))).await.is_err()
        {
            return;
        }
        loop {
            let part = tokio::select! {
                () = wire.closed() => return,
                part = tokio::time::timeout(keep_alive, parts.recv()) => part,
            };
            let (bytes, done) = match part {
                Err(_) => (Bytes::from_static(b": keep-alive\n\n"), None),
                Ok(None | Some(Part::Interrupted)) => return,
                Ok(Some(Part::Frame(frame))) => (encode(&frame), None),
                Ok(Some(Part::Final { message, event_id, written, .. })) => {
                    let frame = cairn_mcp::Frame { event_id, retry_ms: None, message: Some(message) };
                    (encode(&frame), Some(written))
                }
                Ok(Some(Part::Streaming { .. } | Part::Other { .. })) => continue,
            };
            // A client that takes nothing for so long is as good as gone: what waits for it must not wait for ever.
            let sent = tokio::time::timeout(stall, wire.send(Ok(BodyFrame::data(bytes)))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return;
            }
            if let Some(written) = done {
                let _ = written.send(());
                return;
            }
        }
    });
    let stream =
        futures::stream::unfold(reader, |mut reader| async move { reader.recv().await.map(|item| (item, reader)) });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(stream)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", header::HeaderValue::from_static("no"));
    response
}

fn encode(frame: &cairn_mcp::Frame) -> Bytes {
    let data = frame.message.as_ref().map(|message| message.bytes().clone());
    // An event that only names a place to resume from has empty data, or clients would not see it (MCP 2025-11-25).
    let data = data.or_else(|| frame.event_id.is_some().then(Bytes::new));
    sse::Event { id: frame.event_id.clone(), event: None, retry_ms: frame.retry_ms, data }.encode()
}

fn takes_events(head: &HeaderMap) -> bool {
    head.get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("text/event-stream") || value.contains("*/*"))
}

fn set_session(response: &mut Response<Body>, session_id: Option<&str>) {
    if let Some(id) = session_id.and_then(|id| header::HeaderValue::from_str(id).ok()) {
        response.headers_mut().insert("mcp-session-id", id);
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes).boxed_unsync()
}

pub(super) fn json_bytes(status: StatusCode, bytes: Bytes) -> Response<Body> {
    let mut response = Response::new(full(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn text(status: StatusCode, words: &str) -> Response<Body> {
    json_bytes(status, Bytes::from(json!({ "error": words }).to_string()))
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = status;
    response
}

/// A JSON-RPC error under HTTP 200: denials and limits, which HTTP clients must not mistake for a broken transport.
pub(crate) fn refused(id: Option<&RawId>, refusal: &Refusal) -> Response<Body> {
    json_bytes(StatusCode::OK, refusal.response(id).bytes().clone())
}

fn error(status: StatusCode, id: Option<&RawId>, code: i64, words: &str, data: Option<&[u8]>) -> Response<Body> {
    let message = Message::error(id, code, words, data).expect("an error of ours is a message");
    json_bytes(status, message.bytes().clone())
}

fn parse_error(refusal: &cairn_mcp::Refusal) -> Message {
    let code = refusal.code().unwrap_or(cairn_mcp::code::INVALID_REQUEST);
    Message::error(refusal.id.as_ref(), code, &refusal.to_string(), None).expect("an error of ours is a message")
}

fn unparsed(refusal: &cairn_mcp::Refusal) -> Response<Body> {
    match refusal.code() {
        Some(_) => json_bytes(StatusCode::BAD_REQUEST, parse_error(refusal).bytes().clone()),
        None => refused(refusal.id.as_ref(), &Refusal::too_large(refusal)),
    }
}

/// An answer that the HTTP door gives before a call begins.
#[derive(Debug)]
pub(crate) enum Early {
    /// No such session.
    NoSession(&'static str),
    /// A refusal of ours.
    Refused(Refusal),
    /// An HTTP answer of the server's.
    Status(u16),
}

impl Early {
    pub(crate) fn into_http(self, id: Option<&RawId>) -> Response<Body> {
        match self {
            Self::NoSession(words) => error(StatusCode::NOT_FOUND, id, cairn_mcp::code::INVALID_REQUEST, words, None),
            Self::Refused(refusal) => refused(id, &refusal),
            Self::Status(status) => empty(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)),
        }
    }
}

/// The session of a request that belongs to one.
pub(crate) fn session_header(head: &HeaderMap) -> Option<&str> {
    head.get("mcp-session-id").and_then(|value| value.to_str().ok())
}

impl Gateway {
    fn session_by_header(&self, server: &Arc<Server>, who: &Identity, head: &HeaderMap) -> Option<Arc<Session>> {
        self.session_of(server, who, session_header(head)?)
    }
}
