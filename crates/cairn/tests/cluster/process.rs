//! Cairn as its users meet it: real processes, their ready line, their addresses, and a plain MCP client.
//!
//! The tests of this folder use it. A process is killed when its handle is dropped.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// How long anything may take on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A running `cairn`, and the line with which it said that it serves.
pub(crate) struct Cairn {
    child: Child,
    pub(crate) ready: String,
    pub(crate) data: PathBuf,
}

pub(crate) fn cairn(arguments: &[&str], data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    command.args(arguments).arg("--data").arg(data).stdin(Stdio::null()).kill_on_drop(true);
    command.env("CAIRN_OPERATOR_TOKEN", "a token that only this test knows");
    command
}

/// Runs a command to its end; its output and whether it succeeded.
pub(crate) async fn run(arguments: &[&str], data: &Path) -> (bool, String, String) {
    let output =
        tokio::time::timeout(PATIENCE, cairn(arguments, data).output()).await.expect("in time").expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

impl Cairn {
    /// Starts one and waits until it serves.
    pub(crate) async fn start(arguments: &[&str], data: &Path) -> Self {
        let mut child = cairn(arguments, data).stdout(Stdio::piped()).spawn().expect("cairn starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.expect("text") {
                if line.starts_with("ready") {
                    return line;
                }
            }
            panic!("cairn {arguments:?} ended before it was ready")
        };
        let ready = tokio::time::timeout(PATIENCE, ready).await.expect("ready in time");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { child, ready, data: data.to_owned() }
    }

    /// kill -9.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.expect("killed");
    }

    /// SIGTERM, and a clean end.
    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())).expect("it runs");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("signalled");
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").expect("waited");
        assert!(ended.success(), "{ended}");
    }

    pub(crate) fn endpoint(&self, name: &str) -> String {
        let text = std::fs::read(self.data.join("endpoints.json")).expect("it says where it listens");
        let value: Value = serde_json::from_slice(&text).expect("JSON");
        value[name].as_str().expect("an address").to_owned()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let uri = format!("http://{}{path}", self.endpoint("admin")).parse().expect("an address");
        let response = client.get(uri).await;
        let response = response.unwrap_or_else(|error| panic!("no answer, {}: {error:?}", self.state()));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// What the kernel says of the process, for who wonders why it does not answer.
    fn state(&self) -> String {
        let pid = self.child.id().map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The last field is its exit code, once it has ended and nobody waited for it.
        let state = status.lines().find(|line| line.starts_with("State:")).unwrap_or("it is gone");
        format!("{state}, exit code {}", stat.split_whitespace().last().unwrap_or_default())
    }

    pub(crate) async fn metric(&self, name: &str) -> i64 {
        let (_, text) = self.get("/metrics").await;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in:\n{text}")).parse().expect("a number")
    }

    /// Waits until a metric is so.
    pub(crate) async fn until(&self, name: &str, wanted: impl Fn(i64) -> bool) {
        let reached = async {
            while !wanted(self.metric(name).await) {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, reached).await.is_err() {
            panic!("{name} stays at {}", self.metric(name).await);
        }
    }
}

/// A plain MCP client over Streamable HTTP.
pub(crate) struct Agent {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    key: Option<String>,
    session: Option<String>,
    workflow: String,
    next_id: u64,
}

impl Agent {
    pub(crate) async fn connect(cairn: &Cairn, workflow: &str) -> Self {
        Self::with_key(cairn, workflow, None).await
    }

    /// An agent that shows an API key.
    pub(crate) async fn with_key(cairn: &Cairn, workflow: &str, key: Option<&str>) -> Self {
        let mut agent = Self {
            key: key.map(ToOwned::to_owned),
            client: Client::builder(TokioExecutor::new()).build_http(),
            url: format!("http://{}/mcp/orders", cairn.endpoint("gateway")),
            session: None,
            workflow: workflow.to_owned(),
            next_id: 0,
        };
        let client = json!({ "name": "test-agent", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        agent.request("initialize", params).await.expect("a session");
        agent.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await.expect("accepted");
        agent
    }

    /// Opens a ticket; the server's answer, or whatever came in its place, or `None` where the connection broke.
    pub(crate) async fn ticket(&mut self, title: &str) -> Option<Value> {
        self.request("tools/call", json!({ "name": "create_ticket", "arguments": { "title": title } })).await
    }

    async fn request(&mut self, method: &str, params: Value) -> Option<Value> {
        self.next_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params })).await
    }

    async fn send(&mut self, message: &Value) -> Option<Value> {
        let mut request = http::Request::post(&self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("cairn-workflow-id", &self.workflow);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25");
        }
        let request = request.body(Full::new(Bytes::from(message.to_string()))).expect("a request");
        let response =
            tokio::time::timeout(PATIENCE, self.client.request(request)).await.expect("an answer in time").ok()?;
        if let Some(session) = response.headers().get("mcp-session-id") {
            self.session = Some(session.to_str().expect("text").to_owned());
        }
        let body = response.into_body().collect().await.ok()?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        let json = text.lines().rev().find_map(|line| line.strip_prefix("data:")).unwrap_or(&text);
        Some(serde_json::from_str(json.trim()).unwrap_or_default())
    }
}
