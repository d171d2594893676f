//! A real `cairn up` on free ports, to be killed and started again.
//!
//! Who calls it: the suites that drive Cairn with other people's programs. It guarantees that a restarted Cairn
//! serves on the same addresses over the same data, and that none outlives the suite.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::places;
use crate::process::{Running, quiet};

/// How long Cairn may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long it may take to end after it was asked to.
const END_LIMIT: Duration = Duration::from_secs(15);
/// How long the build may take from nothing.
const BUILD_LIMIT: Duration = Duration::from_secs(1800);

/// The binaries that `cargo test` has built.
static OF_TESTS: OnceLock<PathBuf> = OnceLock::new();

/// From now on, those that `cargo test` has built are run. Built for itself alone a package asks for other features of what it stands
/// on, so that most of it would be compiled once more.
pub(crate) fn built_with_tests() {
    OF_TESTS.get_or_init(|| places::target().join("debug"));
}

/// Builds the binary with a cargo profile and gives its path; `CAIRN_BIN` names one that is there already.
pub(crate) fn build(profile: &str) -> anyhow::Result<PathBuf> {
    if let Some(program) = std::env::var_os("CAIRN_BIN") {
        return Ok(PathBuf::from(program));
    }
    build_other("cairn", profile)
}

/// Builds the binary of the package of that name.
pub(crate) fn build_other(name: &str, profile: &str) -> anyhow::Result<PathBuf> {
    if let Some(folder) = OF_TESTS.get().filter(|_| profile == "dev") {
        return Ok(folder.join(name));
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.current_dir(places::root()).args(["build", "-q", "-p", name, "--bin", name, "--profile", profile]);
    quiet(&mut command, BUILD_LIMIT)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(places::target().join(folder).join(name))
}

/// One Cairn: its folder, its addresses, its process while it runs.
#[derive(Debug)]
pub(crate) struct Cairn {
    program: PathBuf,
    /// The command that it runs.
    part: &'static str,
    folder: PathBuf,
    pub(crate) kafka: String,
    pub(crate) gateway: String,
    admin: String,
    configuration: Option<PathBuf>,
    /// Where its schema registry listens, if it has one.
    registry: Option<String>,
    /// Where it takes reports, if it does.
    ingest: Option<String>,
    running: Option<Running>,
    /// Where its log ended when it was last started.
    log_start: usize,
}

impl Cairn {
    /// Prepares one over an empty folder. `servers` is an MCP client's `mcpServers` document.
    pub(crate) fn new(program: &Path, name: &str, servers: Option<&serde_json::Value>) -> anyhow::Result<Self> {
        Self::with(program, name, |_| servers.cloned())
    }

    /// The same, with servers that know the folder.
    pub(crate) fn with(
        program: &Path,
        name: &str,
        servers: impl FnOnce(&Path) -> Option<serde_json::Value>,
    ) -> anyhow::Result<Self> {
        let folder = places::cache("run")?.join(format!("{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        std::fs::create_dir_all(folder.join("data")).with_context(|| format!("create {}", folder.display()))?;
        let configuration = servers(&folder).map(|servers| -> anyhow::Result<PathBuf> {
            let path = folder.join("mcp.json");
            std::fs::write(&path, serde_json::to_vec_pretty(&servers)?)?;
            Ok(path)
        });
        let [kafka, gateway, admin] = free_addresses()?;
        let program = program.to_owned();
        let configuration = configuration.transpose()?;
        Ok(Self {
            program,
            part: "up",
            folder,
            kafka,
            gateway,
            admin,
            configuration,
            registry: None,
            ingest: None,
            running: None,
            log_start: 0,
        })
    }

    /// Runs the embedded log alone, so that nobody but the clients uses it.
    pub(crate) fn broker_alone(&mut self) {
        self.part = "broker";
    }

    /// Gives it a configuration of its own.
    pub(crate) fn configure(&mut self, toml: &str) -> anyhow::Result<()> {
        let path = self.folder.join("cairn.toml");
        std::fs::write(&path, toml)?;
        self.configuration = Some(path);
        Ok(())
    }

    /// Gives it policies, beside its configuration.
    pub(crate) fn policies(&self, text: &str) -> anyhow::Result<()> {
        let folder = self.folder.join("policies");
        std::fs::create_dir_all(&folder)?;
        Ok(std::fs::write(folder.join("p.cedar"), text)?)
    }

    /// Has it take reports from the next start on; tells where.
    pub(crate) fn with_ingest(&mut self) -> anyhow::Result<String> {
        let [address, ..] = free_addresses()?;
        self.ingest = Some(address.clone());
        Ok(address)
    }

    /// Gives it a schema registry from the next start on; tells where.
    pub(crate) fn with_registry(&mut self) -> anyhow::Result<String> {
        let [address, ..] = free_addresses()?;
        self.registry = Some(address.clone());
        Ok(address)
    }

    /// Its data folder.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its admin address.
    pub(crate) fn admin(&self) -> &str {
        &self.admin
    }

    /// Starts it and waits for its `ready` line.
    pub(crate) fn start(&mut self) -> anyhow::Result<()> {
        let log = self.folder.join("cairn.log");
        self.log_start = std::fs::read(&log).map_or(0, |text| text.len());
        let mut command = Command::new(&self.program);
        command.arg(self.part).arg("--data").arg(self.folder.join("data")).env_remove("CAIRN_DATA");
        command.args(["--kafka", &self.kafka, "--gateway", &self.gateway, "--admin", &self.admin]);
        if let Some(registry) = &self.registry {
            command.args(["--registry", registry]);
        }
        if let Some(ingest) = &self.ingest {
            command.args(["--ingest", ingest]);
        }
        if let Some(configuration) = &self.configuration {
            command.arg("--config").arg(configuration);
        }
        let mut running = Running::start_into(&mut command, &log)?;
        let deadline = Instant::now() + READY_LIMIT;
        while !self.log()?.lines().any(|line| line.starts_with("ready")) {
            if running.has_ended() || Instant::now() > deadline {
                bail!("`cairn up` is not ready; it said:\n{}", self.log()?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.running = Some(running);
        Ok(())
    }

    /// What it has said since it was last started.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        let text = std::fs::read(self.folder.join("cairn.log")).unwrap_or_default();
        Ok(String::from_utf8_lossy(&text[self.log_start.min(text.len())..]).into_owned())
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Asks it to end and expects that it does, cleanly and in time. Its folder goes with it.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        let ended = self.running.take().is_none_or(|mut running| running.end(END_LIMIT));
        if !ended {
            bail!("`cairn up` did not end cleanly within {END_LIMIT:?} of SIGTERM; see {}", self.folder.display());
        }
        std::fs::remove_dir_all(&self.folder).with_context(|| format!("remove {}", self.folder.display()))
    }
}

/// Addresses that are free now.
fn free_addresses() -> anyhow::Result<[String; 3]> {
    // All are held at once, so that the three differ.
    let held =
        [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let name = |listener: &TcpListener| listener.local_addr().map(|address| address.to_string());
    Ok([name(&held[0])?, name(&held[1])?, name(&held[2])?])
}
