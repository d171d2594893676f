//! Clients over HTTP: each asks one thing after another until Cairn is gone, and keeps book of what it saw.
//!
//! Called by the rounds. An agent sends each request once, and its HTTP client repeats none. It must never go on
//! after an answer did not come: the rest of its workflow would not be in order.

use std::sync::Arc;

use bytes::Bytes;
use cairn_clock::Entropy;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::book::{Book, Kind, Saw};

/// Which life cycle a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Era {
    Legacy,
    Modern,
}

/// One client.
pub(crate) struct Agent {
    pub(crate) url: String,
    pub(crate) era: Era,
    /// The workflow of everything that it asks; also the beginning of its ids.
    pub(crate) workflow: String,
    pub(crate) book: Arc<Book>,
    pub(crate) entropy: Entropy,
    /// Of how many requests one is held, of each kind; 0 for none.
    pub(crate) held_every: u64,
    pub(crate) stop: CancellationToken,
}

impl Agent {
    /// Asks until it is stopped or no answer comes.
    pub(crate) async fn run(self) {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.retry_canceled_requests(false);
        let http = Http { client: builder.build_http(), url: self.url.clone(), era: self.era, session: None };
        let Some(http) = self.open(http).await else { return };
        for number in 0_u64.. {
            if self.stop.is_cancelled() {
                return;
            }
            let id = format!("{}.{number}", self.workflow);
            let kind = self.choose();
            let body = self.request(&id, kind);
            let place = self.book.ask(&id, &self.workflow, kind);
            let saw = match http.send(&body, kind.tool()).await {
                Some(answer) => saw(&answer),
                None => return,
            };
            self.book.saw(place, saw);
        }
    }

    async fn open(&self, mut http: Http) -> Option<Http> {
        if self.era == Era::Modern {
            return Some(http);
        }
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "crash-agent", "version": "1" } });
        let hello = json!({ "jsonrpc": "2.0", "id": format!("{}.hello", self.workflow), "method": "initialize",
            "params": params });
        http.send_keeping(&hello).await?;
        http.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }), "").await?;
        Some(http)
    }

    fn choose(&self) -> Kind {
        let dice = self.entropy.next_u64();
        if self.held_every > 0 && dice % self.held_every == 0 {
            return Kind::Held;
        }
        match (dice >> 32) % 10 {
            0 => Kind::Forbidden,
            1..=2 => Kind::Read,
            _ => Kind::Act,
        }
    }

    fn request(&self, id: &str, kind: Kind) -> Value {
        let mut meta = json!({ "io.cairn/workflow": self.workflow });
        if self.era == Era::Modern {
            meta["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
            meta["io.modelcontextprotocol/clientInfo"] = json!({ "name": "crash-agent", "version": "1" });
            meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
        }
        let (method, mut params) = match kind {
            Kind::Read => ("resources/read", json!({ "uri": format!("test://{id}") })),
            _ => {
                let ms = self.entropy.next_u64() % 4;
                ("tools/call", json!({ "name": kind.tool(), "arguments": { "id": id, "ms": ms } }))
            }
        };
        params["_meta"] = meta;
        json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
    }
}

/// What an answer means to a client.
pub(crate) fn saw(answer: &Value) -> Saw {
    if answer.get("result").is_some() {
        return Saw::Result;
    }
    Saw::Error {
        code: answer["error"]["code"].as_i64().unwrap_or_default(),
        message: answer["error"]["message"].as_str().unwrap_or_default().to_owned(),
    }
}

struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    era: Era,
    session: Option<String>,
}

impl Http {
    async fn send_keeping(&mut self, message: &Value) -> Option<Value> {
        let (value, session) = self.exchange(message, "").await?;
        self.session = session;
        Some(value)
    }

    /// The answer, whole; `None` where none came.
    async fn send(&self, message: &Value, tool: &str) -> Option<Value> {
        self.exchange(message, tool).await.map(|(value, _)| value)
    }

    async fn exchange(&self, message: &Value, tool: &str) -> Option<(Value, Option<String>)> {
        let mut request = http::Request::post(&self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        match self.era {
            Era::Modern => {
                let method = message["method"].as_str().unwrap_or_default();
                let name = message["params"]["uri"].as_str().unwrap_or(tool);
                request = request
                    .header("mcp-protocol-version", "2026-07-28")
                    .header("mcp-method", method)
                    .header("mcp-name", name);
            }
            Era::Legacy => {
                if let Some(session) = &self.session {
                    request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25");
                }
            }
        }
        let request = request.body(Full::new(Bytes::from(message.to_string()))).expect("a request");
        let response = self.client.request(request).await.ok()?;
        let session = response.headers().get("mcp-session-id").and_then(|id| id.to_str().ok()).map(ToOwned::to_owned);
        let body = response.into_body().collect().await.ok()?.to_bytes();
        if body.is_empty() {
            return Some((Value::Null, session));
        }
        // A stream's last event is the answer; what is cut off before it is none.
        let text = String::from_utf8_lossy(&body);
        let last = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
        serde_json::from_str(last.unwrap_or(&text)).ok().map(|value| (value, session))
    }
}
