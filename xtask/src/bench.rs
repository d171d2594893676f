//! `cargo xtask bench`: `cairn bench` with other people's programs beside it, in the same run on the same machine.
//!
//! Who calls it: whoever measures for docs/performance.md. Apache Kafka is started where Java and Maven are, with its
//! defaults; `--peers` also sets up gateways of others. Not part of any test: figures of a loaded machine prove nothing.
//! It guarantees that what it started ends with it, and that all load stays on loopback.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process::{Running, quiet, version};
use crate::tally::Tally;
use crate::{cairn, places};

/// How long a peer may take until it listens.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How long fetching and installing may take.
const SET_UP_LIMIT: Duration = Duration::from_secs(900);
/// Any cluster id will do.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";
/// The version of npm's `mcp-proxy` that is measured.
const NPM_MCP_PROXY: &str = "mcp-proxy@6.7.19";

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Also gateways of others (npm `mcp-proxy`).
    #[arg(long)]
    peers: bool,
    /// The cargo profile that Cairn is built with.
    #[arg(long, default_value = "release")]
    profile: String,
    /// What `cairn bench` is told besides.
    #[arg(last = true)]
    rest: Vec<String>,
}

/// Sets up what there is, measures, and says what was left out.
pub(crate) fn run(options: &Options) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let program = cairn::build(&options.profile)?;
    let mut command = Command::new(&program);
    command.arg("bench").args(&options.rest).stdin(Stdio::null());
    let mut running = Vec::new();
    match kafka() {
        Ok((broker, address)) => {
            running.push(broker);
            command.arg("--kafka-peer").arg(format!("Apache Kafka={address}"));
        }
        Err(error) => tally.skip("Apache Kafka beside Cairn", &format!("{error:#}")),
    }
    if options.peers {
        match npm_mcp_proxy(&program) {
            Ok((peer, address)) => {
                running.push(peer);
                command.arg("--peer").arg(format!("npm mcp-proxy, stdio server=http://{address}/mcp"));
            }
            Err(error) => tally.skip("npm mcp-proxy beside Cairn", &format!("{error:#}")),
        }
    }
    let status = command.status().context("run cairn bench")?;
    tally.check("cairn bench", if status.success() { Ok(()) } else { Err(anyhow::anyhow!("it ended with {status}")) });
    for mut peer in running {
        peer.end(Duration::from_secs(15));
    }
    Ok(tally)
}

/// One node of Apache Kafka with its defaults: it acknowledges what the page cache holds.
fn kafka() -> anyhow::Result<(Running, String)> {
    version("java", "-version").context("java is not installed")?;
    version("mvn", "-v").context("maven is not installed")?;
    let folder = places::cache("bench-kafka")?;
    let _ = std::fs::remove_dir_all(folder.join("data"));
    let classpath = folder.join("classpath");
    let mut fetch = Command::new("mvn");
    fetch.args(["-q", "-B", "-f"]).arg(places::root().join("clients/kafka-broker/pom.xml"));
    fetch.arg("dependency:build-classpath").arg(format!("-Dmdep.outputFile={}", classpath.display()));
    quiet(&mut fetch, SET_UP_LIMIT)?;
    let classpath = std::fs::read_to_string(classpath)?;
    let (address, controller) = (free_address()?, free_address()?);
    let properties = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@{controller}\n\
         listeners=PLAINTEXT://{address},CONTROLLER://{controller}\nadvertised.listeners=PLAINTEXT://{address}\n\
         controller.listener.names=CONTROLLER\nlistener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
         log.dirs={}\noffsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
         transaction.state.log.min.isr=1\n",
        folder.join("data").display()
    );
    std::fs::write(folder.join("server.properties"), properties)?;
    let java = |class: &str, arguments: &[&str]| {
        let mut command = Command::new("java");
        command.args(["-Xms1g", "-Xmx1g", "-cp", classpath.trim(), class]).args(arguments).current_dir(&folder);
        command
    };
    quiet(
        &mut java("kafka.tools.StorageTool", &["format", "-t", CLUSTER_ID, "-c", "server.properties"]),
        SET_UP_LIMIT,
    )?;
    let broker = Running::start_into(&mut java("kafka.Kafka", &["server.properties"]), &folder.join("server.log"))?;
    listening(broker, &address, &folder.join("server.log"))
}

/// npm's `mcp-proxy` before the canned server as its child: it knows no servers over HTTP.
fn npm_mcp_proxy(program: &Path) -> anyhow::Result<(Running, String)> {
    let folder = npm(NPM_MCP_PROXY)?;
    let address = free_address()?;
    let (host, port) = address.split_once(':').context("an address has a port")?;
    let mut command = Command::new("node");
    command.arg(folder.join("node_modules/mcp-proxy/dist/bin/mcp-proxy.mjs"));
    command.args(["--host", host, "--port", port, "--server", "stream", "--"]);
    command.arg(program).args(["bench-part", "stdio"]);
    let log = folder.join("peer.log");
    let peer = Running::start_into(&mut command, &log)?;
    listening(peer, &address, &log)
}

/// Installs one npm package into a folder of its own.
fn npm(package: &str) -> anyhow::Result<PathBuf> {
    version("npm", "--version").context("npm is not installed")?;
    let folder = places::cache(&format!("bench-{}", package.replace('@', "-")))?;
    if !folder.join("node_modules").is_dir() {
        let mut install = Command::new("npm");
        install.args(["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefix"]).arg(&folder).arg(package);
        quiet(&mut install, SET_UP_LIMIT)?;
    }
    Ok(folder)
}

fn listening(mut peer: Running, address: &str, log: &Path) -> anyhow::Result<(Running, String)> {
    let deadline = Instant::now() + READY_LIMIT;
    while TcpStream::connect(address).is_err() {
        if peer.has_ended() || Instant::now() > deadline {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("it does not listen on {address}; it said:\n{said}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok((peer, address.to_owned()))
}

fn free_address() -> anyhow::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
