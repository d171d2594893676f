//! The processes of a run: a real `cairn up`, the canned upstream, the relay. Each on a free port, each ended by its own id.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, timeout},
};

use crate::disk::Scratch;

/// How long a process may take until it serves.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long it may take to end.
const END_MAX: Duration = Duration::from_secs(20);
/// The operator's token of every Cairn that is started here.
pub(crate) const TOKEN: &str = "of-a-benchmark-that-nobody-operates";
/// Policies as somebody would have them, so that deciding costs what it costs in use.
const POLICIES: &str = r#"@id("reads")
permit(principal, action == Action::"resources/read", resource);
@id("lists")
permit(principal, action, resource) when { action != Action::"tools/call" };
@id("tools")
permit(principal, action == Action::"tools/call", resource);
@id("removing-needs-a-person")
@obligation("approval")
permit(principal, action == Action::"tools/call", resource == Tool::"canned/remove");
@id("no-storing")
forbid(principal, action == Action::"tools/call", resource == Tool::"canned/store");
"#;

/// A child process that ends with its handle.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) pid: u32,
}

impl Process {
    /// Starts `cairn` with `arguments` and gives what `read` made of one of its first lines.
    async fn start<T>(arguments: &[String], read: impl Fn(&str) -> Option<T>) -> anyhow::Result<(Self, T)> {
        let program = std::env::current_exe().context("find the program that runs")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        command.env_remove("CAIRN_DATA").env("CAIRN_OPERATOR_TOKEN", TOKEN);
        command.kill_on_drop(true);
        let mut child = command.spawn().context("start a part of the benchmark")?;
        let pid = child.id().context("a child that was just started has an id")?;
        let mut lines = BufReader::new(child.stdout.take().context("the child's output is piped")?).lines();
        let found = timeout(READY_MAX, async {
            while let Some(line) = lines.next_line().await? {
                if let Some(found) = read(&line) {
                    return Ok(found);
                }
            }
            bail!("cairn {} ended before it served", arguments.join(" "))
        });
        let found = found.await.with_context(|| format!("cairn {} did not serve in time", arguments.join(" ")))??;
        // Whatever it says later must not block it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((Self { child, pid }, found))
    }

    /// Asks the process to end, and ends it where it does not.
    async fn end(mut self) -> anyhow::Result<()> {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(END_MAX, self.child.wait()).await.is_err() {
            self.child.kill().await?;
            bail!("process {} did not end within {END_MAX:?} of SIGTERM", self.pid);
        }
        Ok(())
    }
}

/// Cairn between client and upstream, and what it is compared with.
#[derive(Debug)]
pub(crate) struct Stage {
    folder: tempfile::TempDir,
    upstream: Option<Process>,
    relay: Process,
    pub(crate) cairn: Process,
    pub(crate) upstream_at: SocketAddr,
    pub(crate) relay_at: SocketAddr,
    pub(crate) gateway_at: SocketAddr,
    pub(crate) admin_at: SocketAddr,
    pub(crate) kafka_at: String,
}

/// Another `cairn up` before the same upstream.
#[derive(Debug)]
pub(crate) struct Beside {
    process: Process,
    pub(crate) kafka_at: String,
    pub(crate) gateway_at: SocketAddr,
    pub(crate) admin_at: SocketAddr,
}

impl Beside {
    pub(crate) const fn pid(&self) -> u32 {
        self.process.pid
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.process.end().await
    }
}

/// A `cairn broker` by itself, over a folder of its own that goes with it.
#[derive(Debug)]
pub(crate) struct Alone {
    process: Process,
    folder: tempfile::TempDir,
    pub(crate) kafka_at: String,
    pub(crate) admin_at: SocketAddr,
}

impl Alone {
    /// Starts one in a new folder below `parent`.
    pub(crate) async fn start(parent: &Path, config: &str) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("cairn-bench-").tempdir_in(parent);
        let folder = folder.with_context(|| format!("make a folder in {}", parent.display()))?;
        std::fs::write(folder.path().join("cairn.toml"), config)?;
        Self::over(folder).await
    }

    async fn over(folder: tempfile::TempDir) -> anyhow::Result<Self> {
        let (free, path) = ("127.0.0.1:0", folder.path());
        let (data, config) = (path.join("data"), path.join("cairn.toml"));
        let mut arguments = words(&["broker", "--data", &data.to_string_lossy()]);
        arguments.extend(words(&["--config", &config.to_string_lossy(), "--kafka", free, "--admin", free]));
        let (process, (kafka_at, admin_at)) = Process::start(&arguments, ready_alone).await?;
        Ok(Self { process, folder, kafka_at, admin_at })
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.process.pid
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Ends it and starts it again over the same data. Says how long it took from the start until it was ready.
    pub(crate) async fn again(self) -> anyhow::Result<(Self, Duration)> {
        self.process.end().await?;
        let began = Instant::now();
        let next = Self::over(self.folder).await?;
        Ok((next, began.elapsed()))
    }

    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.process.end().await
    }
}

impl Stage {
    /// Starts a Cairn with a data folder, a configuration and, where they are given, policies of its own.
    pub(crate) async fn beside(&self, name: &str, config: &str, policies: Option<&str>) -> anyhow::Result<Beside> {
        let folder = self.folder().join(name);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("cairn.toml"), config)?;
        if let Some(policies) = policies {
            std::fs::create_dir(folder.join("policies"))?;
            std::fs::write(folder.join("policies/bench.cedar"), policies)?;
        }
        let (data, config) = (folder.join("data"), folder.join("cairn.toml"));
        let arguments = up(&data, &config);
        let (process, (kafka_at, gateway_at, admin_at)) = Process::start(&arguments, ready).await?;
        Ok(Beside { process, kafka_at, gateway_at, admin_at })
    }

    /// What a command of Cairn's says about that folder.
    pub(crate) async fn said(&self, name: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let program = std::env::current_exe().context("find the program that runs")?;
        let mut command = Command::new(program);
        command.args(arguments).arg("--data").arg(self.folder().join(name).join("data"));
        let output = timeout(READY_MAX, command.kill_on_drop(true).output()).await??;
        anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Starts everything. `upstream` names one that runs already.
    pub(crate) async fn set(folder: Option<&Path>, upstream: Option<SocketAddr>) -> anyhow::Result<Self> {
        let parent = folder.map_or_else(std::env::temp_dir, PathBuf::from);
        let folder = tempfile::Builder::new().prefix("cairn-bench-").tempdir_in(&parent);
        let folder = folder.with_context(|| format!("make a folder in {}", parent.display()))?;
        let address = |line: &str| line.parse().ok();
        let (process, upstream_at) = match upstream {
            Some(at) => (None, at),
            None => {
                let (process, at) = Process::start(&words(&["bench-part", "upstream"]), address).await?;
                (Some(process), at)
            }
        };
        let to = upstream_at.to_string();
        let (relay, relay_at) = Process::start(&words(&["bench-part", "relay", "--to", &to]), address).await?;
        let config = folder.path().join("mcp.json");
        let program = std::env::current_exe().context("find the program that runs")?;
        let servers = serde_json::json!({
            "canned": { "type": "http", "url": format!("http://{upstream_at}/mcp") },
            "child": { "command": program, "args": ["bench-part", "stdio"] },
        });
        std::fs::write(&config, serde_json::json!({ "mcpServers": servers }).to_string())?;
        std::fs::create_dir(folder.path().join("policies"))?;
        std::fs::write(folder.path().join("policies/bench.cedar"), POLICIES)?;
        let arguments = up(&folder.path().join("data"), &config);
        let (cairn, (kafka_at, gateway_at, admin_at)) = Process::start(&arguments, ready).await?;
        Ok(Self { folder, upstream: process, relay, cairn, upstream_at, relay_at, gateway_at, admin_at, kafka_at })
    }

    /// Where data may be written.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A file to measure the disk with, beside Cairn's own.
    pub(crate) fn scratch(&self) -> anyhow::Result<Scratch> {
        Scratch::create(self.folder())
    }

    /// Ends everything and removes the folder.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        self.cairn.end().await?;
        self.relay.end().await?;
        match self.upstream {
            Some(upstream) => upstream.end().await,
            None => Ok(()),
        }
    }
}

/// Arguments of a Cairn on free ports.
fn up(data: &Path, config: &Path) -> Vec<String> {
    let free = "127.0.0.1:0";
    let mut arguments = words(&["up", "--data", &data.to_string_lossy(), "--config", &config.to_string_lossy()]);
    arguments.extend(words(&["--kafka", free, "--gateway", free, "--admin", free]));
    arguments
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

/// Reads `ready kafka K gateway http://G/mcp/<server> admin http://A`.
fn ready(line: &str) -> Option<(String, SocketAddr, SocketAddr)> {
    Some((named(line, "kafka")?.to_owned(), named(line, "gateway")?.parse().ok()?, named(line, "admin")?.parse().ok()?))
}

/// The same of a broker alone.
fn ready_alone(line: &str) -> Option<(String, SocketAddr)> {
    Some((named(line, "kafka")?.to_owned(), named(line, "admin")?.parse().ok()?))
}

/// The address behind a word of a line that says what is ready.
fn named<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    let mut words = line.strip_prefix("ready ")?.split_whitespace().skip_while(|found| *found != word);
    words.nth(1)?.trim_start_matches("http://").split('/').next()
}

#[cfg(test)]
mod tests {
    use super::{ready, ready_alone};

    #[test]
    fn the_ready_line_names_three_addresses() {
        let line = "ready kafka 127.0.0.1:1 gateway http://127.0.0.1:2/mcp/<server> admin http://127.0.0.1:3";
        let (kafka, gateway, admin) = ready(line).expect("addresses");
        assert_eq!((kafka.as_str(), gateway.port(), admin.port()), ("127.0.0.1:1", 2, 3));
        assert!(ready("operator token, shown once: x").is_none());
        let alone = ready_alone("ready kafka 127.0.0.1:1 admin http://127.0.0.1:3").expect("addresses");
        assert_eq!((alone.0.as_str(), alone.1.port()), ("127.0.0.1:1", 3));
    }
}
