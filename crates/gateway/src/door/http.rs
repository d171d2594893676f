//! Streamable HTTP towards clients: `/mcp/<server>`, both eras.
//!
//! This file knows HTTP and nothing of policy: it refuses what may not come in (`Host`, `Origin`, size, ambiguity,
//! headers that disagree with the body), finds the session, hands the message on, and writes what comes back.
//! Source: MCP 2025-11-25 and 2026-07-28, basic/transports, Streamable HTTP.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::{Frame as BodyFrame, Incoming};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use cairn_mcp::{Kind, Message, RawId, is_batch, parse_batch, sse};

use crate::{
    Gateway, Refusal,
    arrival::Arrival,
    reply::{Part, Reply},
    session::Session,
    upstream::Server,
};

/// Connections open at once; one more waits in the listener's queue.
const CONNECTIONS_MAX: usize = 2_048;
/// How long a client may take to send a request head.
const HEAD_READ_MAX: Duration = Duration::from_secs(30);

/// How long an answer that is being written may take to end when the door closes.
const CONNECTION_END_MAX: Duration = Duration::from_secs(3);

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl Gateway {
    /// Serves `/mcp/<server>` until `stop`; then lets open answers end for a short while, and returns when they have.
    ///
    /// # Errors
    /// Where the listener fails for good.
    pub async fn serve_http(&self, listener: TcpListener, stop: CancellationToken) -> std::io::Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let connections = TaskTracker::new();
        connections.close();
        loop {
            let place = tokio::select! {
                () = stop.cancelled() => break,
                place = places.clone().acquire_owned() => place.expect("nobody closes this semaphore"),
            };
            let stream = tokio::select! {
                () = stop.cancelled() => break,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    // One connection's failure (too many files, reset) is not the listener's.
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let _ = stream.set_nodelay(true);
            let gateway = self.clone();
            let stop = stop.clone();
            connections.spawn(async move {
                let _place = place;
                let head_max = gateway.limits().header_bytes_max.max(8_192);
                let name: Arc<str> = gateway.entropy().uuid_v7(gateway.clock().now()).to_string().into();
                let service = hyper::service::service_fn(move |request| {
                    let (gateway, name) = (gateway.clone(), name.clone());
                    async move { Ok::<_, Infallible>(answer(&gateway, &name, request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_READ_MAX)
                    .max_buf_size(head_max)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::pin!(connection);
                tokio::select! {
                    _ = &mut connection => {}
                    () = stop.cancelled() => {
                        connection.as_mut().graceful_shutdown();
                        let _ = tokio::time::timeout(CONNECTION_END_MAX, connection).await;
                    }
                }
            });
        }
        connections.wait().await;
        Ok(())
    }
}

async fn answer(gateway: &Gateway, connection: &Arc<str>, request: Request<Incoming>) -> Response<Body> {
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    if let Err(reason) = gateway.origins().check(request.headers(), authority) {
        return text(StatusCode::FORBIDDEN, &reason.to_string());
    }
    let Some(name) = request.uri().path().strip_prefix("/mcp/").map(|name| name.trim_end_matches('/')) else {
        return text(StatusCode::NOT_FOUND, "no such path: a server behind Cairn is at /mcp/<server>");
    };
    let Some(server) = gateway.server(name) else {
        return text(
            StatusCode::NOT_FOUND,
            &format!("no server is called {name:?}: name it in the configuration under [servers]"),
        );
    };
    match *request.method() {
        Method::POST => post(gateway, connection, server, request).await,
        Method::GET => listen(gateway, &server, request.headers()).await,
        Method::DELETE => delete(gateway, &server, request.headers()).await,
        _ => {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "MCP uses POST, GET and DELETE");
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("POST, GET, DELETE"));
            response
        }
    }
}

async fn post(
    gateway: &Gateway,
    connection: &Arc<str>,
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, body) = request.into_parts();
    let arrival = || Arrival::http(&head.headers).over(connection);
    let bytes = match Limited::new(body, gateway.limits().message_bytes_max).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let limit = gateway.limits().message_bytes_max;
            let reason =
                format!("the message is longer than {limit} bytes (message_bytes_max); send less or raise the setting");
            let refusal = Refusal::TooLarge { reason };
            gateway.metrics().refused(refusal.word());
            return refused(None, &refusal);
        }
        Err(error) => return text(StatusCode::BAD_REQUEST, &format!("the request body could not be read: {error}")),
    };
    if is_batch(&bytes) {
        return batch(gateway, &server, &head.headers, arrival, &bytes).await;
    }
    let message = match Message::parse(bytes, gateway.wire_limits()) {
        Ok(message) => message,
        Err(refusal) => return unparsed(&refusal),
    };
    if message.is_modern() {
        if let Err(mismatch) = gateway.agree(&server, &head.headers, &message) {
            return error(StatusCode::BAD_REQUEST, message.id(), mismatch.code(), &mismatch.to_string(), None);
        }
    }
    let session = match gateway.session_for(&server, &head.headers, &message).await {
        Ok(session) => session,
        Err(response) => {
            if let Early::Refused(refusal) = &response {
                gateway.metrics().refused(refusal.word());
            }
            return response.into_http(message.id());
        }
    };
    if message.kind() != Kind::Request {
        return match gateway.from_client(&session, message, &arrival()).await {
            Ok(()) => empty(StatusCode::ACCEPTED),
            Err(refusal) => refused(None, &refusal),
        };
    }
    let (reply, parts) = Reply::channel(gateway.limits().client_queue_max, takes_events(&head.headers));
    gateway.start(session, message, arrival(), reply);
    written(parts, gateway.limits().keep_alive_every).await
}

/// A batch of 2025-03-26: each member lives its own call, the answers come back as one array.
async fn batch(
    gateway: &Gateway,
    server: &Arc<Server>,
    head: &HeaderMap,
    arrival: impl Fn() -> Arrival,
    bytes: &Bytes,
) -> Response<Body> {
    let session = match gateway.session_by_header(server, head) {
        Some(session) if session.claims.lock().protocol_version.as_deref() == Some("2025-03-26") => session,
        _ => {
            let words = "batches exist in MCP 2025-03-26 only; send one message a request";
            return error(StatusCode::BAD_REQUEST, None, cairn_mcp::code::INVALID_REQUEST, words, None);
        }
    };
    let members = match parse_batch(bytes, gateway.wire_limits()) {
        Ok(members) => members,
        Err(refusal) => return unparsed(&refusal),
    };
    let mut waiting = Vec::new();
    let mut answers = Vec::new();
    for member in members {
        match member {
            Err(refusal) => answers.push(parse_error(&refusal).bytes().clone()),
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
async fn listen(gateway: &Gateway, server: &Arc<Server>, head: &HeaderMap) -> Response<Body> {
    if !takes_events(head) {
        return text(StatusCode::NOT_ACCEPTABLE, "a GET opens an event stream: send Accept: text/event-stream");
    }
    let Some(session) = gateway.session_by_header(server, head) else {
        return text(StatusCode::METHOD_NOT_ALLOWED, "an event stream needs the Mcp-Session-Id of a legacy session");
    };
    match gateway.open_stream(&session, head).await {
        Ok(parts) => written(parts, gateway.limits().keep_alive_every).await,
        Err(response) => response.into_http(None),
    }
}

async fn delete(gateway: &Gateway, server: &Arc<Server>, head: &HeaderMap) -> Response<Body> {
    let Some(session) = gateway.session_by_header(server, head) else {
        return text(StatusCode::NOT_FOUND, "no such session");
    };
    gateway.end_session(&session, "deleted by the client").await;
    empty(StatusCode::NO_CONTENT)
}

/// Turns the parts of a reply into an HTTP answer. The first part decides its kind.
async fn written(mut parts: mpsc::Receiver<Part>, keep_alive: Duration) -> Response<Body> {
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
            let mut response = events(parts, keep_alive, None);
            set_session(&mut response, session_id.as_deref());
            response
        }
        Some(Part::Frame(frame)) => events(parts, keep_alive, Some(frame)),
        // The call ended without an answer: it was cancelled.
        None => empty(StatusCode::NO_CONTENT),
    }
}

fn events(mut parts: mpsc::Receiver<Part>, keep_alive: Duration, first: Option<cairn_mcp::Frame>) -> Response<Body> {
    let (wire, reader) = mpsc::channel::<Result<BodyFrame<Bytes>, Infallible>>(1);
    tokio::spawn(async move {
        if let Some(frame) = first {
            if wire.send(Ok(BodyFrame::data(encode(&frame)))).await.is_err() {
                return;
            }
        }
        loop {
            let part = tokio::select! {
                () = wire.closed() => return,
                part = tokio::time::timeout(keep_alive, parts.recv()) => part,
            };
            let (bytes, done) = match part {
                Err(_) => (Bytes::from_static(b": keep-alive\n\n"), None),
                Ok(None) => return,
                Ok(Some(Part::Frame(frame))) => (encode(&frame), None),
                Ok(Some(Part::Final { message, event_id, written, .. })) => {
                    let frame = cairn_mcp::Frame { event_id, retry_ms: None, message: Some(message) };
                    (encode(&frame), Some(written))
                }
                Ok(Some(Part::Streaming { .. } | Part::Other { .. })) => continue,
            };
            if wire.send(Ok(BodyFrame::data(bytes))).await.is_err() {
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

fn json_bytes(status: StatusCode, bytes: Bytes) -> Response<Body> {
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
        None => refused(refusal.id.as_ref(), &Refusal::TooLarge { reason: refusal.to_string() }),
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
    fn session_by_header(&self, server: &Arc<Server>, head: &HeaderMap) -> Option<Arc<Session>> {
        self.sessions().find(server, session_header(head)?)
    }
}
