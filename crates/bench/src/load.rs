//! Clients that call an MCP server over HTTP, each with its connection and its session, one call after the other.
//!
//! A client is as fast as it can be and checks each answer: an error is an error of the run, never a fast sample.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

use crate::samples::Samples;

/// The revision that the clients speak.
const VERSION: &str = "2025-11-25";
/// Calls of one client in one measurement, at most.
const CALLS_MAX: usize = 1_000_000;
/// Calls before the measurement begins: connections, caches and branches are warm then.
const WARM_CALLS: usize = 50;

/// Where calls go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    /// What it calls the tool.
    pub(crate) tool: String,
    /// What it calls the resource.
    pub(crate) resource: String,
}

impl Target {
    pub(crate) fn new(name: &str, address: SocketAddr, path: &str) -> Self {
        Self {
            name: name.to_owned(),
            address,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            tool: "echo".to_owned(),
            resource: "bench://text".to_owned(),
        }
    }
}

/// What is called.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Method {
    /// `resources/read`: changes nothing.
    Read,
    /// `tools/call`: may change something.
    Tool,
}

impl Method {
    fn request(self, id: usize, target: &Target) -> String {
        let Target { tool, resource, .. } = target;
        match self {
            Self::Read => {
                format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"resources/read","params":{{"uri":"{resource}"}}}}"#)
            }
            Self::Tool => format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"text":"What is the state of order 4711?"}}}}}}"#
            ),
        }
    }
}

/// What a round of calls gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) latencies: Samples,
    pub(crate) calls_per_second: f64,
}

/// Calls `target` from so many clients for about so long.
pub(crate) async fn round(target: &Target, method: Method, clients: usize, lasts: Duration) -> anyhow::Result<Round> {
    let mut ready = Vec::with_capacity(clients);
    for _ in 0..clients {
        let mut client = Client::open(target).await.with_context(|| format!("open a session at {}", target.name))?;
        for _ in 0..WARM_CALLS.div_ceil(clients).max(3) {
            client.call(method).await.with_context(|| format!("call {}", target.name))?;
        }
        ready.push(client);
    }
    let began = Instant::now();
    let until = began + lasts;
    let running: Vec<_> = ready.into_iter().map(|client| tokio::spawn(client.run(method, until))).collect();
    let mut latencies = Samples::default();
    let mut clients = Vec::new();
    for client in running {
        let (samples, client) = client.await?.with_context(|| format!("call {}", target.name))?;
        latencies.extend(samples);
        clients.push(client);
    }
    let calls_per_second = latencies.len() as f64 / began.elapsed().as_secs_f64();
    for client in clients {
        client.close().await;
    }
    Ok(Round { latencies, calls_per_second })
}

struct Client {
    sender: SendRequest<Full<Bytes>>,
    target: Target,
    headers: HeaderMap,
    calls: usize,
}

impl Client {
    /// Connects and shakes hands.
    async fn open(target: &Target) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let mut headers = target.headers.clone();
        headers.insert(header::HOST, HeaderValue::try_from(target.address.to_string())?);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        let mut client = Self { sender, target: target.clone(), headers, calls: 0 };
        let hello = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{VERSION}","capabilities":{{}},"clientInfo":{{"name":"bench","version":"1"}}}}}}"#
        );
        let (session, answer) = client.post(hello).await?;
        expect_result(&answer)?;
        if let Some(session) = session {
            client.headers.insert("mcp-session-id", session);
        }
        client.headers.insert("mcp-protocol-version", HeaderValue::from_static(VERSION));
        client.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.to_owned()).await?;
        Ok(client)
    }

    async fn post(&mut self, body: String) -> anyhow::Result<(Option<HeaderValue>, Bytes)> {
        let mut request = Request::post(self.target.path.as_str()).body(Full::new(Bytes::from(body)))?;
        *request.headers_mut() = self.headers.clone();
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let session = response.headers().get("mcp-session-id").cloned();
        let body = response.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("HTTP {status}: {}", String::from_utf8_lossy(&body));
        }
        Ok((session, body))
    }

    async fn call(&mut self, method: Method) -> anyhow::Result<Duration> {
        self.calls += 1;
        let request = method.request(self.calls, &self.target);
        let started = Instant::now();
        let (_, answer) = self.post(request).await?;
        let took = started.elapsed();
        expect_result(&answer)?;
        Ok(took)
    }

    async fn run(mut self, method: Method, until: Instant) -> anyhow::Result<(Samples, Self)> {
        let mut samples = Samples::default();
        while samples.len() < CALLS_MAX && Instant::now() < until {
            samples.push(self.call(method).await?);
        }
        Ok((samples, self))
    }

    /// Ends the session, so that rounds do not pile up sessions.
    async fn close(mut self) {
        let request = Request::delete(self.target.path.as_str()).body(Full::new(Bytes::new()));
        if let Ok(mut request) = request {
            *request.headers_mut() = self.headers.clone();
            if self.sender.ready().await.is_ok() {
                // A server without sessions refuses this; the connection ends all the same.
                let _ = self.sender.send_request(request).await;
            }
        }
    }
}

/// A JSON answer, or one in an event stream: either holds a result.
fn expect_result(answer: &[u8]) -> anyhow::Result<()> {
    let text = std::str::from_utf8(answer)?;
    if text.contains("\"result\"") && !text.contains("\"isError\":true") {
        return Ok(());
    }
    bail!("the answer holds no result: {}", text.chars().take(400).collect::<String>())
}
