//! `cairn demo`: the whole story on a sample, with nothing to set up.
//!
//! Starts a real `cairn up` as a process of its own, in front of a real MCP server (orders and tickets), and plays an agent:
//! one call is allowed, one waits for an approval, one is refused, and in the middle of one the gateway is killed with
//! kill -9 and started again. What is printed about the calls is what a Kafka consumer read back, and nothing else.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
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

use crate::{folder, read, say, trail};

const POLICIES: &str = r#"@id("agents-may-look-and-work")
permit(principal, action, resource);

@id("refunds-need-a-person")
@obligation("approval")
permit(principal, action == Action::"tools/call", resource == Tool::"orders/refund_order");

@id("nobody-deletes-orders")
forbid(principal, action == Action::"tools/call", resource == Tool::"orders/delete_order");
"#;
/// How long `up` may take to serve.
const READY_MAX: Duration = Duration::from_secs(20);

/// Plays the story in `data`, or in a new folder.
pub(crate) async fn run(data: Option<PathBuf>) -> anyhow::Result<()> {
    let data = match data {
        Some(data) => data,
        None => tempfile::Builder::new().prefix("cairn-demo-").tempdir()?.keep(),
    };
    std::fs::create_dir_all(data.join("policies"))?;
    let data = data.canonicalize()?;
    let me = std::env::current_exe()?;
    let journal = data.join("server-journal.txt");
    std::fs::write(data.join("policies/demo.cedar"), POLICIES)?;
    let server = json!({ "mcpServers": { "orders": {
        "command": me, "args": ["sample-server", "--journal", journal],
    } } });
    std::fs::write(data.join("demo.json"), serde_json::to_vec_pretty(&server)?)?;
    // The demo approves in your place; the token lives in these two processes only.
    let mut secret = [0; 24];
    cairn_clock::Entropy::system().fill(&mut secret);
    let token = hex::encode(secret);
    let workflow = format!("demo-{}", &hex::encode(&secret[..4]));
    let story = Story { data: data.clone(), me, token, workflow: workflow.clone() };
    let played = story.play().await;
    if let Err(error) = played {
        bail!("the demo stopped: {error:#}; its folder is {}", data.display());
    }
    Ok(())
}

struct Story {
    data: PathBuf,
    me: PathBuf,
    token: String,
    workflow: String,
}

impl Story {
    async fn play(&self) -> anyhow::Result<()> {
        say::line(format_args!("1/6  starting cairn up in {}", self.data.display()));
        let mut up = self.start().await?;
        let mut agent = Agent::connect(&self.data, &self.workflow).await?;
        say::line(format_args!("2/6  the agent looks up an order: policy allows it"));
        agent.call("get_order", json!({ "order_id": "order-1" })).await?;
        say::line(format_args!("3/6  the agent wants to refund one: policy wants a person, and we approve it"));
        self.refund(&mut agent).await?;
        say::line(format_args!("4/6  the agent wants to delete one: policy forbids it"));
        agent.call("delete_order", json!({ "order_id": "order-2" })).await?;
        say::line(format_args!(
            "5/6  the agent starts an export, and in the middle of it the gateway is killed with kill -9"
        ));
        self.crash(&mut agent, &mut up).await?;
        say::line(format_args!("     starting cairn up again: it closes what the dead one left open before it serves"));
        let mut up = self.start().await?;
        say::line(format_args!("6/6  reading the trail back from the Kafka port"));
        let endpoints = folder::endpoints(&self.data).context("cairn up announces where it listens")?;
        let (source, workflow) = (read::Source::plain(endpoints.kafka), self.workflow.clone());
        let tree = tokio::task::spawn_blocking(move || trail::workflow(&source, &workflow, trail::Shape::Tree, false))
            .await??;
        say::line(format_args!("\n{tree}"));
        terminate(&mut up).await?;
        let (me, data) = (quoted(&self.me), quoted(&self.data));
        let config = quoted(&self.data.join("demo.json"));
        let workflow = &self.workflow;
        say::line(format_args!("The folder stays. Look at it again with:"));
        say::line(format_args!("  {me} up --data {data} --config {config} --kafka 127.0.0.1:9092"));
        say::line(format_args!("and beside it:"));
        say::line(format_args!("  {me} trail {workflow} --data {data}"));
        say::line(format_args!("  {me} tail --from-start --no-follow --data {data}"));
        say::line(format_args!("  kcat -b 127.0.0.1:9092 -t mcp.calls -C -e -f '%t/%p@%o %k %s\\n'"));
        say::line(format_args!("  {me} operator new --data {data}    # a token of your own, for approve and deny"));
        Ok(())
    }

    async fn start(&self) -> anyhow::Result<Child> {
        let mut child = Command::new(&self.me)
            .args(["up", "--kafka", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--data")
            .arg(&self.data)
            .arg("--config")
            .arg(self.data.join("demo.json"))
            .env("CAIRN_OPERATOR_TOKEN", &self.token)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start cairn up")?;
        let mut lines = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with("ready") {
                    return Ok(());
                }
            }
            bail!("cairn up ended before it was ready")
        };
        tokio::time::timeout(READY_MAX, ready).await.context("cairn up was not ready in time")??;
        // Whatever else it prints goes nowhere, but the pipe must not fill.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(child)
    }

    async fn refund(&self, agent: &mut Agent) -> anyhow::Result<()> {
        let endpoints = folder::endpoints(&self.data).context("cairn up announces where it listens")?;
        // The approval goes the way that an operator's does; only the token comes from here.
        let approving = {
            let (admin, me, token, data) = (endpoints.admin, self.me.clone(), self.token.clone(), self.data.clone());
            tokio::spawn(async move { approve(&me, &admin, &token, &data).await })
        };
        agent.call("refund_order", json!({ "order_id": "order-1", "amount_cents": 700 })).await?;
        approving.await?
    }

    async fn crash(&self, agent: &mut Agent, up: &mut Child) -> anyhow::Result<()> {
        let journal = self.data.join("server-journal.txt");
        let exported = async {
            loop {
                let text = tokio::fs::read_to_string(&journal).await.unwrap_or_default();
                if text.contains("export_orders") {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            answer = agent.call("export_orders", json!({ "seconds": 30 })) => bail!("the export ended too early: {answer:?}"),
            () = exported => {}
            () = tokio::time::sleep(Duration::from_secs(15)) => bail!("the export never reached the server"),
        }
        up.kill().await.context("cannot kill cairn up")
    }
}

async fn approve(me: &Path, admin: &str, token: &str, data: &Path) -> anyhow::Result<()> {
    let run = |arguments: Vec<String>| {
        let mut command = Command::new(me);
        command.args(arguments).arg("--admin").arg(admin).arg("--data").arg(data).env("CAIRN_OPERATOR_TOKEN", token);
        command
    };
    for _ in 0..200 {
        let listed = run(vec!["approve".into(), "--json".into()]).output().await?;
        let value: Value = serde_json::from_slice(&listed.stdout).unwrap_or_default();
        if let Some(id) = value["waiting"][0]["id"].as_str() {
            let settled = run(vec!["approve".into(), id.to_owned()]).output().await?;
            if !settled.status.success() {
                bail!("cairn approve failed: {}", String::from_utf8_lossy(&settled.stderr));
            }
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("no call came to wait for approval")
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

async fn terminate(up: &mut Child) -> anyhow::Result<()> {
    if let Some(pid) = up.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
    }
    tokio::time::timeout(Duration::from_secs(15), up.wait()).await.context("cairn up did not end in time")??;
    Ok(())
}

/// A plain MCP client over Streamable HTTP.
struct Agent {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
    session: Option<String>,
    workflow: String,
    next_id: u64,
}

impl Agent {
    async fn connect(data: &Path, workflow: &str) -> anyhow::Result<Self> {
        let endpoints = folder::endpoints(data).context("cairn up announces where it listens")?;
        let mut agent = Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            url: format!("http://{}/mcp/orders", endpoints.gateway),
            session: None,
            workflow: workflow.to_owned(),
            next_id: 0,
        };
        let client = json!({ "name": "demo-agent", "version": env!("CARGO_PKG_VERSION") });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        agent.request("initialize", params).await?;
        agent.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await?;
        agent.request("tools/list", json!({})).await?;
        Ok(agent)
    }

    /// Calls a tool; the answer, refusals included, is for the agent: the demo prints what the trail says.
    async fn call(&mut self, tool: &str, arguments: Value) -> anyhow::Result<Value> {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    async fn request(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.next_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params })).await
    }

    async fn send(&mut self, message: &Value) -> anyhow::Result<Value> {
        let mut request = http::Request::post(&self.url)
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("cairn-workflow-id", &self.workflow);
        if let Some(session) = &self.session {
            request = request.header("mcp-session-id", session).header("mcp-protocol-version", "2025-11-25");
        }
        let response = self.client.request(request.body(Full::new(Bytes::from(message.to_string())))?).await?;
        if let Some(session) = response.headers().get("mcp-session-id") {
            self.session = Some(session.to_str()?.to_owned());
        }
        let body = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body);
        let json = text.lines().rev().find_map(|line| line.strip_prefix("data:")).unwrap_or(&text);
        Ok(serde_json::from_str(json.trim()).unwrap_or_default())
    }
}
