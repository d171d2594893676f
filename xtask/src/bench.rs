//! `cargo xtask bench`: `cairn bench` with other people's programs beside it, in the same run on the same machine.
//!
//! Who calls it: whoever measures for docs/performance.md. Apache Kafka is started where Java and Maven are, with its
//! defaults, and for the part `kafka` a second one that syncs every batch; `--peers` also sets up gateways of others, or for
//! that part Nisshi. Not part of any test: figures of a loaded machine prove nothing.
//! It guarantees that what it started ends with it, and that all load stays on loopback.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::process::Running;
use crate::tally::Tally;
use crate::{apache, cairn};

mod kafkas;
mod peers;

/// How long a peer may take until it listens.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How long fetching, installing and building may take.
const SET_UP_LIMIT: Duration = Duration::from_secs(3600);

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// Also others: the crate `mcp-proxy`, PyPI's `mcp-contextforge-gateway`, npm's `mcp-proxy` as gateways; for the part `kafka` the
    /// crate `nisshi`.
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
    if options.rest.first().is_some_and(|part| part == "kafka") {
        for (name, start) in kafkas::ALL.iter().filter(|(name, _)| options.peers || *name != kafkas::NISSHI) {
            match start() {
                Ok(peer) => {
                    command.args(peer.arguments(name));
                    running.push(peer.running);
                }
                Err(error) => tally.skip(&format!("{name} beside Cairn"), &format!("{error:#}")),
            }
        }
        return Ok(measure(command, running, tally));
    }
    match apache::kafka("bench-kafka", "1g") {
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
    Ok(measure(command, running, tally))
}

/// Runs it, and ends what runs beside it.
fn measure(mut command: Command, running: Vec<Running>, mut tally: Tally) -> Tally {
    let ended = command.status().context("run cairn bench").and_then(|status| {
        anyhow::ensure!(status.success(), "it ended with {status}");
        Ok(())
    });
    tally.check("cairn bench", ended);
    for mut peer in running {
        peer.end(Duration::from_secs(15));
    }
    tally
}

/// The canned MCP server, in a process of its own; gives its address.
fn canned(program: &Path) -> anyhow::Result<(Running, String)> {
    let mut upstream = Running::start(Command::new(program).args(["bench-part", "upstream"]))?;
    let address = upstream.wait_for(READY_LIMIT, |line| line.parse::<std::net::SocketAddr>().ok())?;
    Ok((upstream, address.to_string()))
}
