//! The command line: which part runs, with what. Holds no logic of its own; each command has a file.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the command line talks to the person who started it")]

mod adopt;
mod ask;
mod client_file;
mod config;
mod demo;
mod ending;
#[cfg(test)]
mod examples;
mod faults;
mod folder;
mod jsonc;
mod measures;
mod path;
mod read;
mod say;
mod since;
mod token;
mod up;
mod wrap;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use cairn_clock::Entropy;
use cairn_operators::Credential;
use clap::{Args, Parser, Subcommand};

/// How long work in the background may take to end with the process.
const BACKGROUND_END_MAX: Duration = Duration::from_secs(1);

#[derive(Parser)]
#[command(
    name = "cairn",
    version,
    about = "Stands between AI applications and their MCP servers, decides what may happen, and leaves a durable trail",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such thing, 4 nobody answers"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Shows the whole story on a sample, in under a minute.
    #[command(after_help = "Example: cairn demo")]
    Demo {
        /// Where the demonstration keeps its folder; a new temporary one where absent.
        #[arg(long)]
        data: Option<PathBuf>,
    },
    /// Runs everything in one process: gateway, embedded log, admin address.
    #[command(after_help = "Example: cairn up --config cairn.toml\nThen: curl http://127.0.0.1:7071/healthz")]
    Up(UpArguments),
    /// Runs the embedded log alone.
    #[command(after_help = "Example: cairn broker --kafka 127.0.0.1:9092")]
    Broker(UpArguments),
    /// A stdio server behind Cairn, for any client's configuration.
    #[command(after_help = "Example: cairn wrap -- npx -y @modelcontextprotocol/server-memory")]
    Wrap(WrapArguments),
    /// Rewrites an MCP client's configuration so that its servers go through Cairn, and undoes it.
    #[command(after_help = "Example: cairn adopt ~/.cursor/mcp.json\nThen: cairn adopt ~/.cursor/mcp.json --undo")]
    Adopt(adopt::AdoptArguments),
    /// Prints events as they come.
    #[command(
        after_help = "Example: cairn tail --since 10m --server orders --type call.outcome --json\nAll that there is: cairn tail --from-start --no-follow"
    )]
    Tail(TailArguments),
    /// One workflow's decision path, or the recent workflows.
    #[command(after_help = "Example: cairn trail 4bf92f3577b34da6a3ce929d0e0e4736")]
    Trail {
        /// The workflow.
        id: Option<String>,
        #[command(flatten)]
        reading: Reading,
    },
    /// Approves a held call; without an id lists what waits.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn approve ap-0192…")]
    Approve(SettleArguments),
    /// Denies a held call; without an id lists what waits.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn deny ap-0192… --reason \"not today\"")]
    Deny(SettleArguments),
    /// Measures load and latency of gateway and log, as ratios to baselines of the same run.
    #[command(after_help = "Example: cairn bench --quick\nExample: cairn bench gateway --seconds 30 --json")]
    Bench(cairn_bench::Options),
    /// A process that `bench` runs beside Cairn.
    #[command(hide = true)]
    BenchPart {
        #[command(subcommand)]
        part: cairn_bench::Part,
    },
    /// The operator's credential.
    Operator {
        #[command(subcommand)]
        what: OperatorCommand,
    },
    /// The sample MCP server of orders and tickets, on standard input and output.
    #[command(hide = true)]
    SampleServer {
        #[arg(long)]
        journal: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum OperatorCommand {
    /// Makes a new token, which replaces the old one at once, and prints it once.
    #[command(after_help = "Example: cairn operator new --data ~/.local/share/cairn")]
    New {
        /// The data folder.
        #[arg(long, env = "CAIRN_DATA")]
        data: Option<PathBuf>,
    },
}

/// What `up` is told.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct UpArguments {
    /// The data folder.
    #[arg(long)]
    pub(crate) data: Option<PathBuf>,
    /// `cairn.toml`, or an MCP client's mcpServers JSON.
    #[arg(long)]
    pub(crate) config: Option<PathBuf>,
    /// Where the Kafka protocol is served.
    #[arg(long)]
    pub(crate) kafka: Option<String>,
    /// Where MCP is served.
    #[arg(long)]
    pub(crate) gateway: Option<String>,
    /// Where health, metrics and approvals are served.
    #[arg(long)]
    pub(crate) admin: Option<String>,
    /// Policy files; `policies/` beside the configuration file where absent.
    #[arg(long)]
    pub(crate) policies: Option<PathBuf>,
    /// Take a free port where a default one is taken.
    #[arg(long, hide = true)]
    pub(crate) any_port: bool,
    /// End after so many seconds without a wrapped client.
    #[arg(long, hide = true)]
    pub(crate) idle_seconds: Option<u64>,
}

/// What `wrap` is told.
#[derive(Args, Debug)]
pub(crate) struct WrapArguments {
    /// The data folder whose `up` to join.
    #[arg(long, env = "CAIRN_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// The server's name in the trail; the program's name where absent.
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// A Streamable HTTP server instead of a command.
    #[arg(long, conflicts_with = "command")]
    pub(crate) url: Option<String>,
    /// A header for the HTTP server, as `name: value`.
    #[arg(long)]
    pub(crate) header: Vec<String>,
    /// The server's command line, after `--`.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Args)]
struct Reading {
    /// The Kafka address; that of the running `up` where absent.
    #[arg(long)]
    bootstrap: Option<String>,
    /// The data folder of the running `up`.
    #[arg(long, env = "CAIRN_DATA")]
    data: Option<PathBuf>,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct TailArguments {
    #[command(flatten)]
    reading: Reading,
    /// Begin with the oldest event instead of the next one.
    #[arg(long)]
    from_start: bool,
    /// Begin at this time: 90s, 10m, 2h or 1d ago, or 2026-11-24T09:00:00Z.
    #[arg(long, value_name = "TIME", conflicts_with = "from_start", value_parser = since::millis)]
    since: Option<i64>,
    /// End with the newest event instead of waiting for more.
    #[arg(long)]
    no_follow: bool,
    /// Only events of this server.
    #[arg(long)]
    server: Option<String>,
    /// Only events of this type, such as call.outcome, or of all that begin so: call.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Only events of this workflow.
    #[arg(long)]
    workflow: Option<String>,
    /// End after this many events.
    #[arg(long)]
    count: Option<u64>,
}

#[derive(Args)]
struct SettleArguments {
    /// The approval; without it, what waits is listed.
    id: Option<String>,
    /// Why, for the record.
    #[arg(long)]
    reason: Option<String>,
    /// The admin address; that of the running `up` where absent.
    #[arg(long)]
    admin: Option<String>,
    /// The data folder of the running `up`.
    #[arg(long, env = "CAIRN_DATA")]
    data: Option<PathBuf>,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("CAIRN_LOG").unwrap_or_else(|_| "warn".into());
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(ansi).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime needs threads and epoll, and nothing runs without");
    // Another process of this user must not read this one's memory: it may hold a token or a key.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
    let ended = runtime.block_on(run(arguments.command));
    // Work that cannot be cancelled must not keep the process.
    runtime.shutdown_timeout(BACKGROUND_END_MAX);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cairn: {error:#}");
            ending::code(&error)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo { data } => demo::run(data).await,
        Command::Up(arguments) => up::run(arguments, true).await,
        Command::Broker(arguments) => up::run(arguments, false).await,
        Command::Wrap(arguments) => wrap::run(arguments).await,
        Command::Adopt(arguments) => adopt::run(&arguments),
        Command::Tail(arguments) => {
            let TailArguments { reading, from_start, since, no_follow, server, kind, workflow, count } = arguments;
            let bootstrap = read::bootstrap(reading.bootstrap, reading.data)?;
            let (since_ms, follow, json) = (since, !no_follow, reading.json);
            let wanted = read::Wanted { from_start, since_ms, follow, count, server, kind, workflow, json };
            tokio::task::spawn_blocking(move || read::tail(&bootstrap, &wanted)).await?
        }
        Command::Trail { id, reading } => {
            let bootstrap = read::bootstrap(reading.bootstrap, reading.data)?;
            let text = tokio::task::spawn_blocking(move || match id {
                Some(id) => read::workflow(&bootstrap, &id, reading.json),
                None => read::workflows(&bootstrap, reading.json),
            });
            say::line(format_args!("{}", text.await??));
            Ok(())
        }
        Command::Approve(arguments) => settle(arguments, true).await,
        Command::Deny(arguments) => settle(arguments, false).await,
        Command::Bench(options) => cairn_bench::run(options).await,
        Command::BenchPart { part } => part.run().await,
        Command::Operator { what: OperatorCommand::New { data } } => {
            let data = data.map_or_else(folder::default_path, Ok)?;
            std::fs::create_dir_all(&data)?;
            say::line(format_args!("{}", Credential::of(&data).renew(&Entropy::system())?.reveal()));
            Ok(())
        }
        Command::SampleServer { journal } => cairn_sample::SampleServer::new(journal.as_deref())?.serve_stdio().await,
    }
}

async fn settle(arguments: SettleArguments, approve: bool) -> anyhow::Result<()> {
    let admin = ask::admin(arguments.admin, arguments.data)?;
    let text = match arguments.id {
        Some(id) => ask::settle(&admin, &id, approve, arguments.reason).await?,
        None => ask::list(&admin, arguments.json).await?,
    };
    say::line(format_args!("{text}"));
    Ok(())
}
