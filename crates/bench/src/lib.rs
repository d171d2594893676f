//! Load and latency of Cairn, as ratios to baselines that are measured in the same run on the same machine.
//!
//! Called by `cairn bench`, and by `cargo xtask bench` with other people's programs beside. What is measured is a real
//! `cairn up` in a process of its own, reached as any client reaches it: HTTP and Kafka's protocol. It guarantees that all
//! load stays on loopback and is bounded in count and time, that each figure names its baseline, and that every process
//! that it started ends. It must never look into Cairn: it knows none of its crates.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a benchmark talks to the person who started it")]

mod children;
mod disk;
mod gateway;
mod governed;
mod isolation;
mod kafka;
mod latency;
mod load;
mod machine;
mod memory;
mod plot;
mod produce;
mod relay;
mod replay;
mod report;
mod samples;
mod upstream;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use crate::{children::Stage, report::Report};

pub use kafka::Work;
pub use upstream::canned;

/// The longest that one figure may be measured, in seconds.
const SECONDS_MAX: u64 = 600;
/// Rounds of one figure.
const ROUNDS_MAX: usize = 50;

/// What `cairn bench` is told.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// Which parts; all but `kafka` where none is named.
    #[arg(value_enum)]
    parts: Vec<Section>,
    /// Seconds of load for each figure, over all rounds.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// Rounds; what is compared takes turns within each, and medians are shown.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// A look in under a minute: two seconds for each figure, two rounds.
    #[arg(long)]
    quick: bool,
    /// Also hold this many seconds of full load on the log and show whether it keeps up; 120 for a steady state.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=SECONDS_MAX))]
    steady: u64,
    /// Of `kafka` only these; all where none is named.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Work>,
    /// Keeps what was found in this file, and takes from it what earlier runs found of what this one does not measure.
    #[arg(long, value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Draws what `kafka` found as an SVG.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// JSON instead of tables.
    #[arg(long)]
    json: bool,
    /// Where data is written: on the disk that shall be measured.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// A canned upstream that runs already (`cairn bench-part upstream`), so that peers could be pointed at it before.
    #[arg(long, hide = true)]
    upstream: Option<SocketAddr>,
    /// Another gateway before the same upstream, as `NAME=URL`; its figures stand beside Cairn's.
    #[arg(long = "peer", value_name = "NAME=URL")]
    peers: Vec<String>,
    /// A header that peers want, as `NAME=HEADER: VALUE`.
    #[arg(long = "peer-header", value_name = "NAME=HEADER: VALUE")]
    peer_headers: Vec<String>,
    /// What a peer that names things anew calls the tool `echo`, as `NAME=TOOL`.
    #[arg(long = "peer-tool", value_name = "NAME=TOOL")]
    peer_tools: Vec<String>,
    /// What it calls the resource `bench://text`, as `NAME=URI`; without a URI it is not read through that peer.
    #[arg(long = "peer-resource", value_name = "NAME=URI")]
    peer_resources: Vec<String>,
    /// Another Kafka, as `NAME=HOST:PORT`; its figures stand beside Cairn's.
    #[arg(long = "kafka-peer", value_name = "NAME=HOST:PORT")]
    kafka_peers: Vec<String>,
    /// The process of one, as `NAME=PID`, so that what it uses can be counted.
    #[arg(long = "kafka-peer-pid", value_name = "NAME=PID")]
    kafka_peer_pids: Vec<String>,
    /// Where one keeps its data, as `NAME=FOLDER`, so that it can be read from the disk.
    #[arg(long = "kafka-peer-folder", value_name = "NAME=FOLDER")]
    kafka_peer_folders: Vec<String>,
}

/// One part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Section {
    /// Calls through the gateway.
    Gateway,
    /// What governing adds to a call, and how soon the freshness guard hears of a change.
    Governance,
    /// Records into the log.
    Log,
    /// From producer to consumer.
    Latency,
    /// The same beside a replay, and beside upload, merging and compaction.
    Isolation,
    /// Resident memory.
    Memory,
    /// The log beside other Kafkas: rates, delays, catching up, many clients, transactions, cost. Only where it is named.
    Kafka,
}

/// A process that the benchmark runs beside Cairn.
#[derive(Subcommand, Clone, Debug)]
pub enum Part {
    /// The canned MCP server.
    Upstream {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
    /// The same server on standard input and output.
    Stdio,
    /// The relay that only copies bytes.
    Relay {
        /// Where it listens.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: SocketAddr,
        /// Where the bytes go.
        #[arg(long)]
        to: SocketAddr,
    },
}

impl Part {
    /// Serves until the process is ended.
    ///
    /// # Errors
    /// Where the address cannot be taken.
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Upstream { listen } => upstream::serve(listen).await,
            Self::Stdio => upstream::serve_stdio().await,
            Self::Relay { listen, to } => relay::serve(listen, to).await,
        }
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    /// Load of one thing in one round.
    pub(crate) slice: Duration,
}

impl Options {
    fn effort(&self) -> Effort {
        let (seconds, rounds) = if self.quick { (2, 2) } else { (self.seconds, self.rounds.clamp(1, ROUNDS_MAX)) };
        Effort { rounds, slice: Duration::from_secs(seconds) / u32::try_from(rounds).unwrap_or(1) }
    }

    fn wants(&self, section: Section) -> bool {
        self.parts.is_empty() && section != Section::Kafka || self.parts.contains(&section)
    }

    fn named<'a>(list: &'a [String], what: &str) -> anyhow::Result<Vec<(&'a str, &'a str)>> {
        let split = |entry: &'a String| entry.split_once('=').with_context(|| format!("{what} wants NAME=…: {entry}"));
        list.iter().map(split).collect()
    }
}

/// Measures, and prints what was found.
///
/// # Errors
/// Where a part does not start, a call fails, or the folder cannot be written.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let effort = options.effort();
    let folder = options.folder.clone().unwrap_or_else(std::env::temp_dir);
    let mut report = Report::new(machine::facts(&folder)?);
    if options.wants(Section::Kafka) {
        let peers = kafka::peers(
            &Options::named(&options.kafka_peers, "--kafka-peer")?,
            &Options::named(&options.kafka_peer_pids, "--kafka-peer-pid")?,
            &Options::named(&options.kafka_peer_folders, "--kafka-peer-folder")?,
        )?;
        let ground = kafka::Ground { folder: &folder, peers: &peers, effort, quick: options.quick };
        kafka::measure(ground, &options.only, &mut report).await?;
    }
    if options.parts != [Section::Kafka] {
        calls_and_log(&options, effort, &mut report).await?;
    }
    if let Some(file) = &options.keep {
        report.keep(file)?;
    }
    if let Some(file) = &options.plot {
        std::fs::write(file, plot::svg(&report)).with_context(|| format!("write {}", file.display()))?;
    }
    if options.json {
        println!("{}", report.json()?);
    } else {
        print!("{report}");
    }
    Ok(())
}

/// The parts that need the stage: a Cairn with its gateway, its upstream and what stands between.
async fn calls_and_log(options: &Options, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let stage = Stage::set(options.folder.as_deref(), options.upstream).await?;
    if options.wants(Section::Memory) {
        // First, while the process has done nothing yet.
        memory::idle(&stage, report)?;
    }
    if options.wants(Section::Gateway) {
        let peers = gateway::peers(
            &Options::named(&options.peers, "--peer")?,
            &gateway::Named {
                headers: Options::named(&options.peer_headers, "--peer-header")?,
                tools: Options::named(&options.peer_tools, "--peer-tool")?,
                resources: Options::named(&options.peer_resources, "--peer-resource")?,
            },
        )?;
        gateway::measure(&stage, &peers, effort, report).await?;
    }
    if options.wants(Section::Governance) {
        governed::measure(&stage, effort, report).await?;
    }
    if options.wants(Section::Latency) {
        let peers = Options::named(&options.kafka_peers, "--kafka-peer")?;
        latency::measure(&stage, &peers, effort, report).await?;
    }
    if options.wants(Section::Log) {
        let peers = Options::named(&options.kafka_peers, "--kafka-peer")?;
        produce::measure(&stage, &peers, effort, report).await?;
        if options.steady > 0 {
            produce::steady(&stage, Duration::from_secs(options.steady), report).await?;
        }
    }
    if options.wants(Section::Isolation) {
        isolation::measure(&stage, effort, report).await?;
    }
    if options.wants(Section::Memory) {
        memory::after(&stage, report)?;
    }
    stage.end().await
}
