//! `cargo xtask bench`: `cairn bench` with other people's programs beside it, in the same run on the same machine.
//!
//! Who calls it: whoever measures for docs/performance.md. Apache Kafka is started where Java and Maven are, with its
//! defaults; `--peers` also sets up gateways of others. Not part of any test: figures of a loaded machine prove nothing.
//! It guarantees that what it started ends with it, and that all load stays on loopback.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process::{Running, quiet, version};
use crate::tally::Tally;
use crate::{cairn, places};

mod peers;

/// How long a peer may take until it listens.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How long fetching, installing and building may take.
const SET_UP_LIMIT: Duration = Duration::from_secs(3600);
/// Any cluster id will do.
const CLUSTER_ID: &str = "4L6g3nShT-eMCtK--X86sw";

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Also gateways of others: the crate `mcp-proxy`, PyPI's `mcp-contextforge-gateway`, npm's `mcp-proxy`.
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
        let (upstream, address) = canned(&program)?;
        running.push(upstream);
        command.args(["--upstream", &address]);
        for (name, start) in peers::ALL {
            match start(&program, &address) {
                Ok(peer) => {
                    command.args(peer.arguments(name));
                    running.push(peer.running);
                }
                Err(error) => tally.skip(&format!("{name} beside Cairn"), &format!("{error:#}")),
            }
        }
    }
    let status = command.status().context("run cairn bench")?;
    tally.check("cairn bench", if status.success() { Ok(()) } else { Err(anyhow::anyhow!("it ended with {status}")) });
    for mut peer in running {
        peer.end(Duration::from_secs(15));
    }
    Ok(tally)
}

/// The canned MCP server, in a process of its own; gives its address.
fn canned(program: &Path) -> anyhow::Result<(Running, String)> {
    let mut upstream = Running::start(Command::new(program).args(["bench-part", "upstream"]))?;
    let address = upstream.wait_for(READY_LIMIT, |line| line.parse::<std::net::SocketAddr>().ok())?;
    Ok((upstream, address.to_string()))
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
