//! `cargo xtask bench`: `cairn bench` with other people's programs beside it, in the same run on the same machine.
//!
//! Who calls it: whoever measures for docs/performance.md. Apache Kafka is started where Java and Maven are, with its
//! defaults; `--peers` also sets up gateways of others. Not part of any test: figures of a loaded machine prove nothing.
//! It guarantees that what it started ends with it, and that all load stays on loopback.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::process::Running;
use crate::tally::Tally;
use crate::{apache, cairn};

mod peers;

/// How long a peer may take until it listens.
const READY_LIMIT: Duration = Duration::from_secs(120);
/// How long fetching, installing and building may take.
const SET_UP_LIMIT: Duration = Duration::from_secs(3600);

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
