//! Recorded servers over HTTP (MCP, Streamable HTTP), each at `/mcp/<server>`, at a loopback address.
//!
//! Legacy clients get a session, modern ones need none. Answers are JSON, never a stream: nothing is sent unasked. `Origin` and
//! `Host` are checked, because a page in a browser reaches this machine too.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::post,
};
use cairn_clock::Entropy;
use cairn_mcp::{
    Kind, Limits, Message, code,
    era::{LEGACY, MODERN},
    headers::{OriginPolicy, PROTOCOL_VERSION, check, status},
};
use cairn_replay::Stage;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{piped::refused, say, up::Signals};

const SESSION: &str = "mcp-session-id";
/// Sessions that are open at a time; the oldest goes where there are more.
const SESSIONS_MAX: usize = 1_024;
/// How long connections may take to end with the play.
const END_MAX: Duration = Duration::from_secs(2);

#[derive(Clone)]
struct Served {
    stages: Arc<HashMap<String, Arc<Stage>>>,
    /// Server and session id, oldest first.
    sessions: Arc<Mutex<VecDeque<(String, String)>>>,
    limits: Limits,
    entropy: Entropy,
}

/// Serves until a signal comes.
pub(super) async fn serve(address: SocketAddr, stages: HashMap<String, Arc<Stage>>) -> anyhow::Result<()> {
    let signals = Signals::taken()?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: another process may use it; port 0 takes a free one"))?;
    let address = listener.local_addr()?;
    let mut names: Vec<&String> = stages.keys().collect();
    names.sort();
    for name in names {
        say::line(format_args!("plays http://{address}/mcp/{}", say::plain(name)));
    }
    let limits = Limits::default();
    let bytes_max = limits.message_bytes_max;
    let served = Served { stages: Arc::new(stages), sessions: Arc::default(), limits, entropy: Entropy::system() };
    let routes = Router::new()
        .route("/mcp/{server}", post(message).delete(close))
        .layer(DefaultBodyLimit::max(bytes_max))
        .layer(middleware::from_fn(same_machine))
        .with_state(served);
    let (stop, never) = (CancellationToken::new(), CancellationToken::new());
    let serving = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
    let mut serving = std::pin::pin!(serving.into_future());
    tokio::select! {
        ended = &mut serving => return ended.context("serving failed"),
        () = signals.wait(&never) => stop.cancel(),
    }
    // A connection that stays open must not keep the play from ending.
    let _ = tokio::time::timeout(END_MAX, serving).await;
    Ok(())
}

async fn same_machine(request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    match OriginPolicy::default().check(request.headers(), authority.as_deref()) {
        Ok(()) => next.run(request).await,
        Err(fault) => text(StatusCode::FORBIDDEN, &fault.to_string()),
    }
}

fn text(status: StatusCode, words: &str) -> Response {
    (status, axum::Json(json!({ "error": words }))).into_response()
}

fn answered(status: StatusCode, message: &Message) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], message.bytes().clone()).into_response()
}

async fn message(State(served): State<Served>, Path(server): Path<String>, head: HeaderMap, body: Bytes) -> Response {
    let Some(stage) = served.stages.get(&server) else {
        return text(StatusCode::NOT_FOUND, "the recorded workflow called no server of that name");
    };
    let message = match Message::parse(body, &served.limits) {
        Ok(message) => message,
        Err(refusal) => return answered(StatusCode::BAD_REQUEST, &refused(&refusal)),
    };
    let error =
        |code, words: &str| Message::error(message.id(), code, words, None).expect("an error of ours is a message");
    // Headers that mirror single arguments are another matter: which ones do is in a definition that was recorded as text.
    if let Err(mismatch) = check(&head, &message, &[]) {
        return answered(StatusCode::BAD_REQUEST, &error(mismatch.code(), &mismatch.to_string()));
    }
    let opens = message.method() == Some("initialize") && !message.is_modern();
    if !message.is_modern() && !opens {
        let version = head.get(PROTOCOL_VERSION).map(|version| version.to_str().unwrap_or_default());
        if version.is_some_and(|version| !LEGACY.contains(&version)) {
            let words = format!("unsupported protocol version: played in {}", [MODERN, LEGACY].concat().join(", "));
            return answered(StatusCode::BAD_REQUEST, &error(code::UNSUPPORTED_PROTOCOL_VERSION, &words));
        }
        match head.get(SESSION).map(|id| id.to_str().unwrap_or_default()) {
            None => return text(StatusCode::BAD_REQUEST, "send the Mcp-Session-Id that `initialize` gave"),
            Some(id) if !served.knows(&server, id) => return text(StatusCode::NOT_FOUND, "no such session"),
            Some(_) => {}
        }
    }
    let Some(answer) = stage.answer(&message) else {
        return if message.kind() == Kind::Request {
            text(StatusCode::BAD_REQUEST, "a request has an id")
        } else {
            StatusCode::ACCEPTED.into_response()
        };
    };
    let status = StatusCode::from_u16(status(&message, &answer)).unwrap_or(StatusCode::OK);
    let mut response = answered(status, &answer);
    if opens {
        let id = HeaderValue::try_from(served.open(&server)).expect("hexadecimal digits may stand in a header");
        response.headers_mut().insert(SESSION, id);
    }
    response
}

async fn close(State(served): State<Served>, Path(server): Path<String>, head: HeaderMap) -> Response {
    let id = head.get(SESSION).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let mut sessions = served.sessions.lock();
    let before = sessions.len();
    sessions.retain(|(of, open)| !(*of == server && open == id));
    if sessions.len() < before {
        return StatusCode::NO_CONTENT.into_response();
    }
    text(StatusCode::NOT_FOUND, "no such session")
}

impl Served {
    fn open(&self, server: &str) -> String {
        let mut bytes = [0; 16];
        self.entropy.fill(&mut bytes);
        let id = hex::encode(bytes);
        let mut sessions = self.sessions.lock();
        if sessions.len() == SESSIONS_MAX {
            sessions.pop_front();
        }
        sessions.push_back((server.to_owned(), id.clone()));
        id
    }

    fn knows(&self, server: &str, id: &str) -> bool {
        self.sessions.lock().iter().any(|(of, open)| of == server && open == id)
    }
}
