//! A canned MCP server over Streamable HTTP, or standard input and output: it answers at once, so that what stands before it is what is measured.
//!
//! It speaks enough of 2025-11-25 and older for a handshake, one resource and one tool; it remembers nothing. Its
//! answers are prepared, but for the id.

use std::{
    borrow::Cow,
    convert::Infallible,
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

/// Characters of the text that the resource and the tool give.
const TEXT_CHARS: usize = 1_000;
/// Characters of the other resource: with its envelope it makes a call of two KiB.
const LONG_CHARS: usize = 1_850;
/// Its address.
pub(crate) const LONG: &str = "bench://long";

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Hello<'a> {
    #[serde(borrow, rename = "protocolVersion")]
    version: Cow<'a, str>,
}

/// The answers that need no thought.
#[derive(Debug)]
struct Answers {
    tools: String,
    tool: String,
    resources: String,
    resource: String,
    long: String,
    /// Sessions that were opened; nothing else is remembered.
    sessions: AtomicU64,
}

impl Answers {
    fn prepared() -> Self {
        let words = "The quick brown fox jumps over the lazy dog. ".repeat(LONG_CHARS / 45 + 1);
        let (text, long) = (&words[..TEXT_CHARS], &words[..LONG_CHARS]);
        let schema = json!({ "type": "object", "properties": { "text": { "type": "string" } }, "required": ["text"] });
        let tool = |name: &str| json!({ "name": name, "description": "Gives back a text", "inputSchema": schema });
        let tools = ["echo", "find", "list", "store", "remove"].map(tool);
        let resource = json!({ "uri": "bench://text", "name": "text", "mimeType": "text/plain" });
        let contents = json!([{ "uri": "bench://text", "mimeType": "text/plain", "text": text }]);
        Self {
            tools: json!({ "tools": tools }).to_string(),
            tool: json!({ "content": [{ "type": "text", "text": text }] }).to_string(),
            resources: json!({ "resources": [resource] }).to_string(),
            resource: json!({ "contents": contents }).to_string(),
            long: json!({ "contents": [{ "uri": LONG, "mimeType": "text/plain", "text": long }] }).to_string(),
            sessions: AtomicU64::new(0),
        }
    }

    /// The whole message that answers a request.
    fn text(&self, id: &RawValue, envelope: &Envelope<'_>) -> String {
        match self.answer(envelope) {
            Ok(result) => format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, id.get()),
            Err(words) => {
                format!(r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32601,"message":"{words}"}}}}"#, id.get())
            }
        }
    }

    fn answer(&self, envelope: &Envelope<'_>) -> Result<Cow<'_, str>, &'static str> {
        Ok(match &*envelope.method {
            "initialize" => {
                let hello = envelope.params.and_then(|params| serde_json::from_str::<Hello<'_>>(params.get()).ok());
                let version = hello.map_or(Cow::Borrowed("2025-11-25"), |hello| hello.version);
                let result = json!({
                    "protocolVersion": version,
                    "capabilities": { "tools": {}, "resources": {} },
                    "serverInfo": { "name": "canned", "version": "1" },
                });
                Cow::Owned(result.to_string())
            }
            "ping" => Cow::Borrowed("{}"),
            "tools/list" => Cow::Borrowed(&self.tools),
            "tools/call" => Cow::Borrowed(&self.tool),
            "resources/list" => Cow::Borrowed(&self.resources),
            "resources/read" if envelope.params.is_some_and(|params| params.get().contains(LONG)) => {
                Cow::Borrowed(&self.long)
            }
            "resources/read" => Cow::Borrowed(&self.resource),
            _ => return Err("method not found"),
        })
    }
}

/// Serves until the process is ended. Prints the address first.
pub(crate) async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    println!("{}", listener.local_addr()?);
    canned(listener).await
}

/// Serves the canned MCP server on a listener, without end.
///
/// # Errors
/// Where the listener fails.
pub async fn canned(listener: TcpListener) -> anyhow::Result<()> {
    let answers: &'static Answers = Box::leak(Box::new(Answers::prepared()));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let service =
                service_fn(move |request| async move { Ok::<_, Infallible>(respond(answers, request).await) });
            // A client that goes away is no failure of the server.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// Serves the same answers on standard input and output, line by line, until the input ends.
pub(crate) async fn serve_stdio() -> anyhow::Result<()> {
    let answers = Answers::prepared();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut out = tokio::io::stdout();
    while let Some(line) = lines.next_line().await? {
        let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(&line) else { continue };
        let Some(id) = envelope.id else { continue };
        let mut text = answers.text(id, &envelope);
        text.push('\n');
        out.write_all(text.as_bytes()).await?;
        out.flush().await?;
    }
    Ok(())
}

async fn respond(answers: &'static Answers, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match *request.method() {
        Method::POST => {}
        Method::DELETE => return empty(StatusCode::OK),
        _ => return empty(StatusCode::METHOD_NOT_ALLOWED),
    }
    let Ok(body) = request.into_body().collect().await else { return empty(StatusCode::BAD_REQUEST) };
    let body = body.to_bytes();
    let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&body) else { return empty(StatusCode::BAD_REQUEST) };
    let Some(id) = envelope.id else { return empty(StatusCode::ACCEPTED) };
    let mut response = Response::new(Full::new(Bytes::from(answers.text(id, &envelope))));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if envelope.method == "initialize" {
        let session = format!("canned-{}", answers.sessions.fetch_add(1, Ordering::Relaxed));
        let session = HeaderValue::try_from(session).expect("letters and digits are a header value");
        response.headers_mut().insert("mcp-session-id", session);
    }
    response
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}
