//! A data folder with its configuration, and the real `cairn up` over it: started, killed, started again.
//!
//! Called by the rounds and the scenes. A process is ended by its own handle only, and never outlives its test. Ports are
//! free ones that each start takes anew.

use std::{
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
};

/// How long a start, or an expected end, may take on a loaded machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// The operators' token of every site.
pub(crate) const TOKEN: &str = "crash-tests-operator-token-0123456789abcdef";

const POLICIES: &str = r#"@id("everything-else")
permit(principal, action, resource);
@id("nobody")
forbid(principal, action == Action::"tools/call", resource == Tool::"up/forbidden");
@id("a-person")
@obligation("approval")
permit(principal, action == Action::"tools/call", resource == Tool::"up/held");
"#;

/// A data folder and its configuration.
pub(crate) struct Site {
    folder: tempfile::TempDir,
}

/// How a process is started.
#[derive(Clone, Default, Debug)]
pub(crate) struct How {
    /// `CAIRN_CRASH_AT`.
    pub(crate) crash_at: Option<String>,
    /// More variables: those of a layer below.
    pub(crate) env: Vec<(&'static str, String)>,
    /// Where Kafka's protocol and the admin address are, for who must know before `ready`; free ports where absent.
    pub(crate) addresses: Option<(String, String)>,
}

/// What became of a start.
#[allow(clippy::large_enum_variant, reason = "one for each start")]
pub(crate) enum Started {
    Ready(Up),
    /// It ended before it was ready; what it said.
    Ended(String),
}

/// A running `cairn up`.
pub(crate) struct Up {
    child: Child,
    pub(crate) kafka: String,
    pub(crate) gateway: String,
    pub(crate) admin: String,
}

impl Site {
    /// An empty one, before the server at `url`.
    pub(crate) fn new(url: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("cairn-crash-").tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("policies")).expect("a folder");
        let site = Self { folder };
        site.policies(POLICIES);
        site.configured(url, "");
        site
    }

    /// Has the consumers' databases, for what is not about a disk that forgets, and so many places for each client's calls.
    pub(crate) fn with_consumers(&self, url: &str, calls_max: usize) {
        let limits = format!("[gateway.limits]\ncalls_per_client_max = {calls_max}\n");
        std::fs::write(self.path("cairn.toml"), format!("{limits}[servers.up]\nurl = \"{url}\"\n")).expect("written");
    }

    /// Writes the configuration. Without the consumers' databases: SQLite maps a file for writing, which the layer below that forgets
    /// what was not synced cannot see. Its own tests kill it.
    fn configured(&self, url: &str, more: &str) {
        let text = format!(
            "{more}\n[consumers.audit]\nenabled = false\n[consumers.context]\nenabled = false\n[servers.up]\nurl = \"{url}\"\n"
        );
        std::fs::write(self.path("cairn.toml"), text).expect("written");
    }

    /// Puts limits into the configuration.
    pub(crate) fn limits(&self, url: &str, limits: &str) {
        self.configured(url, &format!("[gateway.limits]\n{limits}"));
    }

    /// Puts settings of the object store into the configuration.
    pub(crate) fn store(&self, url: &str, store: &str) {
        self.configured(url, &format!("[store]\n{store}"));
    }

    /// Replaces the policy set.
    pub(crate) fn policies(&self, text: &str) {
        std::fs::write(self.path("policies/crash.cedar"), text).expect("written");
    }

    /// The set that a site begins with, and more behind it.
    pub(crate) fn more_policies(&self, more: &str) {
        self.policies(&format!("{POLICIES}{more}"));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path("data")
    }

    /// Keeps the folder for whoever looks into a failure.
    pub(crate) fn keep(&mut self) -> &Path {
        self.folder.disable_cleanup(true);
        self.folder.path()
    }

    /// Starts and waits for `ready`.
    pub(crate) async fn start(&self, how: &How) -> Started {
        let any = || "127.0.0.1:0".to_owned();
        let (kafka, admin) = how.addresses.clone().unwrap_or_else(|| (any(), any()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
        command
            .args(["up", "--kafka", &kafka, "--gateway", "127.0.0.1:0", "--admin", &admin])
            .arg("--data")
            .arg(self.data())
            .arg("--config")
            .arg(self.path("cairn.toml"))
            .env("CAIRN_OPERATOR_TOKEN", TOKEN)
            .env_remove("CAIRN_CRASH_AT")
            .envs(how.env.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(step) = &how.crash_at {
            command.env("CAIRN_CRASH_AT", step);
        }
        let mut child = command.spawn().expect("cairn starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut words = child.stderr.take().expect("piped");
        let said = tokio::spawn(async move {
            let mut text = Vec::new();
            let _ = words.read_to_end(&mut text).await;
            String::from_utf8_lossy(&text).into_owned()
        });
        let ready = async {
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with("ready") {
                    return Some(line);
                }
            }
            None
        };
        let Some(line) = tokio::time::timeout(PATIENCE, ready).await.expect("ready, or an end, in time") else {
            let status = child.wait().await.expect("its end");
            return Started::Ended(format!("{status}: {}", said.await.unwrap_or_default()));
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let after = |word: &str| {
            let mut words = line.split_whitespace().skip_while(|at| *at != word);
            words.nth(1).unwrap_or_default().trim_start_matches("http://").to_owned()
        };
        let gateway = after("gateway").trim_end_matches("/mcp/<server>").to_owned();
        Started::Ready(Up { child, kafka: after("kafka"), gateway, admin: after("admin") })
    }

    /// Starts what must become ready.
    pub(crate) async fn up(&self, how: &How) -> Up {
        match self.start(how).await {
            Started::Ready(up) => up,
            Started::Ended(said) => panic!("cairn up ended before it was ready: {said}"),
        }
    }
}

impl Up {
    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp/up", self.gateway)
    }

    /// Waits until it has ended by itself; `None` where it has not within `limit`.
    pub(crate) async fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(limit, self.child.wait()).await.ok().map(|status| status.expect("its end"))
    }

    /// Bytes of memory that it has at the moment.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let pid = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of memory");
        line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
    }

    /// `kill -9`.
    pub(crate) async fn kill(&mut self) {
        // It may have ended by itself a moment ago.
        let _ = self.child.kill().await;
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        if let Some(pid) = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed())) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal to our own child");
        }
    }

    /// The status and body of a GET on the admin address.
    pub(crate) async fn admin_get(&self, path: &str) -> Option<(u16, Value)> {
        self.admin_request("GET", path).await
    }

    async fn admin_request(&self, method: &str, path: &str) -> Option<(u16, Value)> {
        admin_request(&self.admin, method, path).await
    }
}

/// A request to an admin address, with the operators' token.
pub(crate) async fn admin_request(admin: &str, method: &str, path: &str) -> Option<(u16, Value)> {
    let client: Client<_, Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://{admin}{path}"))
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(Empty::new())
        .expect("a request");
    let response = client.request(request).await.ok()?;
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.ok()?.to_bytes();
    Some((status, serde_json::from_slice(&body).unwrap_or_default()))
}

/// Settles what waits, three of four with yes, until it is dropped or Cairn is gone.
pub(crate) async fn approve_all(admin: String) {
    for turn in 0_u64.. {
        let Some((200, value)) = admin_request(&admin, "GET", "/approvals").await else { return };
        for (place, hold) in value["waiting"].as_array().into_iter().flatten().enumerate() {
            let verb = if (turn + place as u64) % 4 == 3 { "deny" } else { "approve" };
            let id = hold["id"].as_str().unwrap_or_default();
            let _ = admin_request(&admin, "POST", &format!("/approvals/{id}/{verb}")).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
