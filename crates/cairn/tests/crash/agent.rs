//! Clients, over HTTP and over a pipe: each asks one thing after another until Cairn is gone, and keeps book of what it
//! saw.
//!
//! Called by the rounds. An agent sends each request once, and its HTTP client repeats none. It must never go on
//! after an answer did not come: the rest of its workflow would not be in order.

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;
use cairn_clock::Entropy;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    book::{Book, Kind, Saw},
    pipe::{Behind, Pipe},
};

/// Which life cycle a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Era {
    Legacy,
    Modern,
}

/// Where a client comes in.
#[derive(Clone, Debug)]
pub(crate) enum Door {
    /// Over HTTP, at this address.
    Http(String),
    /// By a wrap of this data folder.
    Pipe(PathBuf, Behind),
}

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Habit {
    /// A bit of everything, of so many requests one that is held (0 for none).
    Mixed(u64),
    /// Side effects only, each of which takes the server so many milliseconds.
    Act(u64),
}

/// One client.
pub(crate) struct Agent {
    pub(crate) door: Door,
    pub(crate) era: Era,
    /// The workflow of everything that it asks; also the beginning of its ids.
    pub(crate) workflow: String,
    pub(crate) book: Arc<Book>,
    pub(crate) entropy: Entropy,
    pub(crate) habit: Habit,
    pub(crate) stop: CancellationToken,
}

impl Agent {
    /// Asks until it is stopped or no answer comes.
    pub(crate) async fn run(self, mut wire: Wire) {
        for number in 0_u64.. {
            if self.stop.is_cancelled() {
                return;
            }
            let id = format!("{}.{number}", self.workflow);
            let kind = self.choose();
            let body = self.request(&id, kind);
            let place = self.book.ask(&id, &self.workflow, kind);
            match wire.send(&body, kind.tool()).await {
                Some(answer) => self.book.saw(place, saw(&answer)),
                None => return,
            }
        }
    }

    /// Comes in, and is answered once: a wrap that finds nobody would start an `up` of its own.
    pub(crate) async fn open(&self) -> Option<Wire> {
        let mut wire = match &self.door {
            Door::Http(url) => Wire::Http(Box::new(Http::new(url.clone(), self.era))),
            Door::Pipe(data, behind) => Wire::Pipe(Box::new(Pipe::start(data, behind))),
        };
        if self.era == Era::Modern {
            let mut probe = self.request(&format!("{}.hello", self.workflow), Kind::Read);
            probe["method"] = json!("tools/list");
            probe["params"].as_object_mut().expect("an object").remove("uri");
            wire.send(&probe, "").await?;
            return Some(wire);
        }
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": { "name": "crash-agent", "version": "1" } });
        let hello = json!({ "jsonrpc": "2.0", "id": format!("{}.hello", self.workflow), "method": "initialize",
            "params": params });
        wire.send(&hello, "").await?.get("result")?;
        wire.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }), "").await?;
        Some(wire)
    }

    fn is_sample(&self) -> bool {
        matches!(self.door, Door::Pipe(_, Behind::Sample(_)))
    }

    fn choose(&self) -> Kind {
        let dice = self.entropy.next_u64();
        match self.habit {
            Habit::Act(_) => return Kind::Act,
            // The sample server has nothing to read, and policy says nothing of its tools.
            Habit::Mixed(_) if self.is_sample() => return Kind::Act,
            Habit::Mixed(every) if every > 0 && dice.is_multiple_of(every) => return Kind::Held,
            Habit::Mixed(_) => {}
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
            _ if self.is_sample() => ("tools/call", json!({ "name": "create_ticket", "arguments": { "title": id } })),
            _ => {
                let ms = if let Habit::Act(ms) = self.habit { ms } else { self.entropy.next_u64() % 4 };
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

/// How messages travel.
pub(crate) enum Wire {
    Http(Box<Http>),
    Pipe(Box<Pipe>),
}

impl Wire {
    async fn send(&mut self, message: &Value, tool: &str) -> Option<Value> {
        match self {
            Self::Http(http) => http.send(message, tool).await,
            Self::Pipe(pipe) => pipe.send(message).await,
        }
    }
}

pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    era: Era,
    session: Option<String>,
}

impl Http {
    /// A way in over HTTP, without a session yet.
    pub(crate) fn new(url: String, era: Era) -> Self {
        let mut builder = Client::builder(TokioExecutor::new());
        builder.retry_canceled_requests(false);
        Self { client: builder.build_http(), url, era, session: None }
    }

    /// The answer, whole; `None` where none came. A session that it opens is kept.
    pub(crate) async fn send(&mut self, message: &Value, tool: &str) -> Option<Value> {
        let (value, session) = self.exchange(message, tool).await?;
        self.session = session.or(self.session.take());
        Some(value)
    }

    /// The answer, and the session that it opens.
    pub(crate) async fn exchange(&self, message: &Value, tool: &str) -> Option<(Value, Option<String>)> {
        let mut request = http::Request::post(&self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream");
        match self.era {
            Era::Modern => {
                let method = message["method"].as_str().unwrap_or_default();
                let name = message["params"]["uri"].as_str().unwrap_or(tool);
                request = request.header("mcp-protocol-version", "2026-07-28").header("mcp-method", method);
                if !name.is_empty() {
                    request = request.header("mcp-name", name);
                }
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
