//! The command line: which part runs, with what. Holds no logic of its own; each command has a file.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the command line talks to the person who started it")]

mod access;
mod acts;
mod adopt;
#[cfg(feature = "observe")]
mod alerts;
mod ask;
#[cfg(feature = "audit")]
mod audit;
mod auth;
mod bearers;
mod broker;
mod check;
mod checkers;
mod client_file;
mod compare;
mod config;
mod consume;
mod consumer;
mod consumers;
#[cfg(feature = "audit")]
mod context;
mod contract_page;
mod contracts;
mod custody;
mod dataset;
mod decision_point;
mod demo;
mod door;
mod encryption;
mod ending;
mod engine;
mod evidence;
#[cfg(test)]
mod examples;
mod faults;
mod folder;
mod follow;
mod ingest;
mod jsonc;
mod kafka_section;
mod key;
mod lag;
mod limits;
mod listen;
mod login;
mod mcp;
mod measures;
mod observe;
mod own;
mod path;
mod piped;
mod play;
mod policies;
mod policy;
mod query;
mod read;
mod registry;
mod replay;
mod say;
mod since;
mod store;
mod take_over;
mod tenants;
mod token;
mod trail;
mod trust;
mod up;
mod vault;
mod verify;
mod whatif;
mod wrap;
mod writers;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use cairn_clock::Entropy;
use cairn_operators::{Credential, People};
use clap::{Args, Parser, Subcommand};
use engine::Role;
use writers::Writers;

/// How long work in the background may take to end with the process.
const BACKGROUND_END_MAX: Duration = Duration::from_secs(1);

#[derive(Parser)]
#[command(
    name = "cairn",
    version,
    about = "Stands between AI applications and their MCP servers, decides what may happen, and leaves a durable trail",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no such thing, 4 nobody answers, 5 not as it should be"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum CatalogueCommand {
    /// Approves what a server offers now.
    #[command(
        after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn catalogue approve orders refund_order --digest sha256:…"
    )]
    Approve {
        /// The server.
        server: String,
        /// The tool, prompt or resource.
        name: String,
        /// `tool`, `prompt`, `resource` or `resource_template`.
        #[arg(long, default_value = "tool")]
        kind: String,
        /// The digest that you looked at: refused where the server offers something else by now.
        #[arg(long)]
        digest: Option<String>,
        /// Who approves, for the trail.
        #[arg(long)]
        approver: Option<String>,
    },
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
    /// Runs the embedded log alone, with Kafka's port.
    #[command(
        after_help = "Example: cairn broker --kafka 127.0.0.1:9092\nThen, at any time: cairn broker check --data DIR"
    )]
    Broker(broker::BrokerArguments),
    /// Runs the gateway alone, against a Kafka cluster or a `cairn broker` of another process.
    #[command(
        after_help = "Example: cairn gateway --config cairn.toml\n\ncairn.toml names the cluster:\n  [backbone]\n  kind = \"kafka\"\n  bootstrap = \"broker1:9092,broker2:9092\""
    )]
    Gateway(GatewayArguments),
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
    #[command(
        after_help = "Example: cairn trail 4bf92f3577b34da6a3ce929d0e0e4736\nExample: cairn trail 4bf92f3577b34da6a3ce929d0e0e4736 --html refund.html"
    )]
    Trail {
        /// The workflow.
        id: Option<String>,
        /// Reads partitions whole, whatever the audit database says of where events lie.
        #[arg(long, requires = "id")]
        whole: bool,
        /// Writes it as a page of its own, which needs nothing else to be looked at.
        #[arg(long, value_name = "FILE", requires = "id", conflicts_with = "json")]
        html: Option<PathBuf>,
        #[command(flatten)]
        reading: Reading,
    },
    /// Checks a trail or a bundle against its producers' chains and signed checkpoints.
    #[command(
        after_help = "Example: cairn verify --key audit.vkey\nExample: cairn verify refund.bundle --key audit.vkey --json\n\nExit code: 0 nothing was found, 5 something was, 1 it could not be checked."
    )]
    Verify(verify::VerifyArguments),
    /// Signed checkpoints of the trail: keys, proofs, bundles.
    Evidence {
        #[command(subcommand)]
        what: evidence::EvidenceCommand,
    },
    /// What other policies would have decided of the calls in the trail.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn whatif --policy policies/shadow --since 7d")]
    Whatif(whatif::WhatIfArguments),
    /// Runs one consumer as a process of its own.
    #[command(after_help = "Example: cairn consume audit --bootstrap 127.0.0.1:9092")]
    Consume(consume::ConsumeArguments),
    /// Consumers: how they stand, pausing, resuming and moving them.
    Consumer {
        #[command(subcommand)]
        what: consumer::ConsumerCommand,
    },
    /// How far every consumer group is that reads Cairn's topics, in records and seconds.
    #[command(after_help = "Example: cairn lag --json")]
    Lag(Reading),
    /// Gives a part of the trail to a consumer once more, so that what came of it is put right.
    #[command(
        after_help = "Example: cairn replay --from 2h --to 1h --topic mcp.calls --group audit --dry-run\nExample: CAIRN_OPERATOR_TOKEN=… cairn replay --from 2h --rate 5000 --reason \"a fault was mended\""
    )]
    Replay(replay::ReplayArguments),
    /// Data sets for evaluating models: a row for each call of a tool, to be made again exactly.
    Dataset {
        #[command(subcommand)]
        what: dataset::DatasetCommand,
    },
    /// Asks the audit database in SQL: read-only, within limits.
    #[command(
        after_help = "Example: cairn query \"SELECT * FROM calls WHERE workflow_id = 'refund-4711'\"\nExample: cairn query \"SELECT type, count(*) AS n FROM events GROUP BY type\" --json"
    )]
    Query(query::QueryArguments),
    /// Serves what Cairn knows as an MCP server of its own: what changed since, why a call was refused, a workflow's path.
    #[command(
        after_help = "Example: cairn mcp\nIn a client's configuration: { \"mcpServers\": { \"cairn\": { \"command\": \"cairn\", \"args\": [\"mcp\", \"--principal\", \"ann\"] } } }\nBehind the gateway, so that asking is governed too: [servers.cairn] type = \"cairn\""
    )]
    Mcp(mcp::McpArguments),
    /// Serves a workflow's recorded answers as an MCP server, so that an agent can be tested without touching anything real.
    #[command(
        after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn play --workflow 4bf92f3577b34da6a3ce929d0e0e4736 --export refund.json\nExample: cairn play --recording refund.json --http 127.0.0.1:7075\n\nExit code: 0 all was played as recorded, 5 something differed"
    )]
    Play(Box<play::PlayArguments>),
    /// Where two runs part: workflows of the trail, or recordings.
    #[command(
        after_help = "Example: cairn compare refund.json 4bf92f3577b34da6a3ce929d0e0e4736\n\nExit code: 0 equal, 5 different, or not known to be equal"
    )]
    Compare(Box<compare::CompareArguments>),
    /// Approves a held call; without an id lists what waits.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn approve ap-0192…")]
    Approve(SettleArguments),
    /// Denies a held call; without an id lists what waits.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn deny ap-0192… --reason \"not today\"")]
    Deny(SettleArguments),
    /// Contracts of events: checks what changes in them, shows them, and puts back what broke one.
    Contract {
        #[command(subcommand)]
        what: contracts::ContractCommand,
    },
    /// Policies: checks them, runs cases against them, and says why a call was decided as it was.
    Policy {
        #[command(subcommand)]
        what: policy::PolicyCommand,
    },
    /// What servers have listed, how it stands and what is suspicious in it; approves a definition.
    #[command(
        after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn catalogue\nExample: CAIRN_OPERATOR_TOKEN=… cairn catalogue approve orders refund_order --digest sha256:…"
    )]
    Catalogue {
        #[command(subcommand)]
        what: Option<CatalogueCommand>,
        /// One JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: ask::AdminArguments,
    },
    /// The limits of calls, and what is used of them.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn limits")]
    Limits {
        /// One JSON object.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        admin: ask::AdminArguments,
    },
    /// Tells a running Cairn that a resource changed past it, so that nobody acts on what was read before.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn changed orders order://4711 --version 8")]
    Changed {
        /// The server, by its name in the configuration.
        server: String,
        /// The resource.
        uri: String,
        /// Its version by now, where that is known.
        #[arg(long)]
        version: Option<String>,
        /// The tenant, where there are any.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        admin: ask::AdminArguments,
    },
    /// Logs in to a server with `[servers.NAME.auth] kind = "oauth"`: prints where, and waits. Without a name lists how Cairn
    /// stands with its servers.
    #[command(after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn login web")]
    Login(LoginArguments),
    /// Destroys the keys and payloads of a subject; the trail keeps their digests.
    #[command(after_help = "Example: cairn erase --subject ann --reason \"she asked for it\" --yes")]
    Erase(custody::EraseArguments),
    /// Legal holds: whose payloads must not be erased.
    Hold {
        #[command(subcommand)]
        what: custody::HoldCommand,
    },
    /// The payloads that events refer to.
    Vault {
        #[command(subcommand)]
        what: custody::VaultCommand,
    },
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
    /// API keys for machines, by which the gateway knows them.
    Key {
        #[command(subcommand)]
        what: key::KeyCommand,
    },
    /// The topics that Cairn writes.
    Topics {
        #[command(subcommand)]
        what: TopicsCommand,
    },
    /// Who may write Cairn's topics by the Kafka port of `cairn broker` or `cairn up`: gateways of other processes.
    Writer {
        #[command(subcommand)]
        what: WriterCommand,
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
    /// Makes an operator with a name and roles, or gives one a new token; prints the token once.
    #[command(after_help = "Example: cairn operator add ann --roles view,approve")]
    Add {
        /// The name: it stands in the trail, and policies name it in @approvers.
        name: String,
        /// What they may do: view, approve, payloads, policy, offsets, erase.
        #[arg(long, value_delimiter = ',', required = true, value_parser = cairn_operators::Role::named)]
        roles: Vec<cairn_operators::Role>,
        /// The data folder.
        #[arg(long, env = "CAIRN_DATA")]
        data: Option<PathBuf>,
    },
    /// Lists the operators by name, with their roles.
    #[command(after_help = "Example: cairn operator list --json")]
    List {
        /// The data folder.
        #[arg(long, env = "CAIRN_DATA")]
        data: Option<PathBuf>,
        /// JSON for machines.
        #[arg(long)]
        json: bool,
    },
    /// Removes an operator: the token opens nothing from here on.
    #[command(after_help = "Example: cairn operator remove ann")]
    Remove {
        /// The name.
        name: String,
        /// The data folder.
        #[arg(long, env = "CAIRN_DATA")]
        data: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum TopicsCommand {
    /// Prints the topics, settings and access that Cairn needs, as command lines for clusters where it may not create them.
    #[command(after_help = "Example: cairn topics plan --config cairn.toml --principal User:cairn")]
    Plan {
        /// The configuration whose `[backbone]` names the cluster.
        #[arg(long)]
        config: Option<PathBuf>,
        /// The cluster's addresses; those of the configuration where absent.
        #[arg(long)]
        bootstrap: Option<String>,
        /// Who the gateway is to the cluster.
        #[arg(long, default_value = "User:cairn")]
        principal: String,
        /// Who may read the trail besides.
        #[arg(long)]
        reader: Option<String>,
        /// JSON for machines.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum WriterCommand {
    /// Makes a writer, or gives one a new secret, and prints the secret once.
    #[command(after_help = "Example: cairn writer new gateway-1 --data ~/.local/share/cairn")]
    New {
        /// Its name.
        name: String,
        /// The broker's data folder.
        #[arg(long, env = "CAIRN_DATA")]
        data: Option<PathBuf>,
    },
    /// Takes a writer's right away; a running broker follows within a second.
    #[command(after_help = "Example: cairn writer remove gateway-1")]
    Remove {
        /// Its name.
        name: String,
        /// The broker's data folder.
        #[arg(long, env = "CAIRN_DATA")]
        data: Option<PathBuf>,
    },
    /// Lists the writers' names.
    #[command(after_help = "Example: cairn writer list")]
    List {
        /// The broker's data folder.
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
    /// Where a schema registry is served; none without it.
    #[arg(long, value_name = "ADDR")]
    pub(crate) registry: Option<String>,
    /// Where model calls and actions are reported: OTLP over HTTP and gRPC; nowhere without it.
    #[arg(long, value_name = "ADDR")]
    pub(crate) ingest: Option<String>,
    /// Policy files; `policies/` beside the configuration file where absent.
    #[arg(long)]
    pub(crate) policies: Option<PathBuf>,
    /// Goes on with what the object store has where the write-ahead log of its last owner is lost, and says what may be missing.
    #[arg(long)]
    pub(crate) recover: bool,
    /// Take a free port where a default one is taken.
    #[arg(long, hide = true)]
    pub(crate) any_port: bool,
    /// End after so many seconds without a wrapped client.
    #[arg(long, hide = true)]
    pub(crate) idle_seconds: Option<u64>,
    /// A cluster instead of the configuration's; `cairn gateway` takes it.
    #[arg(skip)]
    pub(crate) bootstrap: Option<String>,
}

/// What `gateway` is told.
#[derive(Args, Debug)]
struct GatewayArguments {
    /// The data folder: gateway id, spool, keys. Not that of a `cairn broker` or `cairn up`.
    #[arg(long)]
    data: Option<PathBuf>,
    /// `cairn.toml`, or an MCP client's mcpServers JSON.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The cluster's addresses; those of the configuration where absent.
    #[arg(long)]
    bootstrap: Option<String>,
    /// Where MCP is served.
    #[arg(long)]
    gateway: Option<String>,
    /// Where health, metrics and approvals are served.
    #[arg(long)]
    admin: Option<String>,
    /// Policy files; `policies/` beside the configuration file where absent.
    #[arg(long)]
    policies: Option<PathBuf>,
}

impl From<GatewayArguments> for UpArguments {
    fn from(arguments: GatewayArguments) -> Self {
        let GatewayArguments { data, config, bootstrap, gateway, admin, policies } = arguments;
        Self { data, config, bootstrap, gateway, admin, policies, ..Self::default() }
    }
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
    /// The server at the URL speaks HTTP+SSE, the transport of 2024-11-05.
    #[arg(long)]
    pub(crate) sse: bool,
    /// A header for the HTTP server, as `name: value`.
    #[arg(long)]
    pub(crate) header: Vec<String>,
    /// The server's command line, after `--`.
    #[arg(last = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Args)]
struct Reading {
    /// The Kafka address; that of the configuration or of the running `up` where absent.
    #[arg(long)]
    bootstrap: Option<String>,
    /// The configuration whose backbone to read, with its properties; that of the running `up` where absent.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The data folder of the running `up`.
    #[arg(long, env = "CAIRN_DATA")]
    data: Option<PathBuf>,
    #[command(flatten)]
    tls: trust::TrustArguments,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

impl Reading {
    /// What is read.
    /// The admin address of the running `up` of that data folder.
    fn admin(&self) -> ask::AdminArguments {
        ask::AdminArguments::of(None, self.data.clone(), self.tls.clone())
    }

    fn source(&self) -> anyhow::Result<read::Source> {
        read::Source::find(self.bootstrap.clone(), self.config.as_deref(), self.data.clone(), &self.tls)
    }
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
struct LoginArguments {
    /// The server; without it, all with a credential of their own are listed.
    server: Option<String>,
    /// Print the URL and end; the login counts all the same.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    admin: ask::AdminArguments,
    /// JSON for machines, one object a line.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct SettleArguments {
    /// The approval; without it, what waits is listed.
    id: Option<String>,
    /// Why, for the record.
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    admin: ask::AdminArguments,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("CAIRN_LOG").unwrap_or_else(|_| "warn".into());
    // The OAuth client's own lines repeat what servers say, and a code that a login brought.
    let filter = filter.add_directive("rmcp::transport::auth=off".parse().expect("it is a directive"));
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
        Command::Up(arguments) => up::run(arguments, Role::Everything).await,
        Command::Broker(arguments) => broker::run(arguments).await,
        Command::Gateway(arguments) => up::run(arguments.into(), Role::Gateway).await,
        Command::Wrap(arguments) => wrap::run(arguments).await,
        Command::Adopt(arguments) => adopt::run(&arguments),
        Command::Tail(arguments) => {
            let TailArguments { reading, from_start, since, no_follow, server, kind, workflow, count } = arguments;
            let source = reading.source()?;
            let (since_ms, follow, json) = (since, !no_follow, reading.json);
            let wanted = read::Wanted { from_start, since_ms, follow, count, server, kind, workflow, json };
            tokio::task::spawn_blocking(move || read::tail(&source, &wanted)).await?
        }
        Command::Trail { id, whole, html, reading } => {
            let asked = trail::Asked { id, whole, html, as_json: reading.json };
            trail::run(reading.source()?, asked).await
        }
        Command::Verify(arguments) => tokio::task::spawn_blocking(move || verify::run(&arguments)).await?,
        Command::Evidence { what } => tokio::task::spawn_blocking(move || evidence::run(what)).await?,
        Command::Consume(arguments) => consume::run(arguments).await,
        Command::Consumer { what } => consumer::run(what).await,
        Command::Lag(reading) => {
            let source = reading.source()?;
            let fresh = lag::fresh(&reading.admin()).await;
            tokio::task::spawn_blocking(move || lag::run(&source, &fresh, reading.json)).await?
        }
        Command::Dataset { what } => tokio::task::spawn_blocking(move || dataset::run(what)).await?,
        Command::Query(arguments) => query::run(arguments).await,
        Command::Replay(arguments) => replay::run(arguments).await,
        Command::Approve(arguments) => settle(arguments, true).await,
        Command::Deny(arguments) => settle(arguments, false).await,
        Command::Policy { what } => policy::run(what).await,
        Command::Catalogue { what, json, admin } => {
            let admin = admin.find()?;
            match what {
                None => {
                    say::line(format_args!("{}", ask::catalogue(&admin, json).await?));
                    Ok(())
                }
                Some(CatalogueCommand::Approve { server, name, kind, digest, approver }) => {
                    let body = serde_json::json!({
                        "server": server, "kind": kind, "name": name, "digest": digest, "approver": approver,
                    });
                    ask::approve_definition(&admin, body).await
                }
            }
        }
        Command::Limits { json, admin } => {
            say::line(format_args!("{}", limits::show(&admin.find()?, json).await?));
            Ok(())
        }
        Command::Changed { server, uri, version, tenant, admin } => {
            ask::changed(&admin.find()?, &server, &uri, version.as_deref(), tenant.as_deref()).await
        }
        Command::Login(LoginArguments { server, no_wait, admin, json }) => {
            let admin = admin.find()?;
            match server {
                Some(server) => login::run(&admin, &server, !no_wait, json).await,
                None => login::list(&admin, json).await,
            }
        }
        Command::Contract { what } => contracts::run(what).await,
        Command::Whatif(arguments) => whatif::run(arguments).await,
        Command::Mcp(arguments) => mcp::run(arguments).await,
        Command::Play(arguments) => play::run(*arguments).await,
        Command::Compare(arguments) => compare::run(*arguments).await,
        Command::Erase(arguments) => custody::erase(arguments).await,
        Command::Hold { what } => custody::hold(what).await,
        Command::Vault { what } => custody::vault(what).await,
        Command::Bench(options) => cairn_bench::run(options).await,
        Command::BenchPart { part } => part.run().await,
        Command::Operator { what } => operator(what),
        Command::Key { what } => key::run(what),
        Command::Topics { what } => topics(what),
        Command::Writer { what } => writer(what),
        Command::SampleServer { journal } => cairn_sample::SampleServer::new(journal.as_deref())?.serve_stdio().await,
    }
}

fn operator(what: OperatorCommand) -> anyhow::Result<()> {
    let of = |data: Option<PathBuf>| {
        let data = data.map_or_else(folder::default_path, Ok)?;
        std::fs::create_dir_all(&data)?;
        anyhow::Ok(data)
    };
    match what {
        OperatorCommand::New { data } => {
            let data = of(data)?;
            let renew = || Credential::of(&data).renew(&Entropy::system());
            say::line(format_args!("{}", acts::kept(&data, "operator.new", None, renew)?.reveal()));
        }
        OperatorCommand::Add { name, roles, data } => {
            let data = of(data)?;
            let words: Vec<&str> = roles.iter().map(|role| role.word()).collect();
            let about = format!("{name} {}", words.join(","));
            let add = || People::of(&data).add(&name, &roles, &Entropy::system());
            let token = acts::kept(&data, "operator.add", about, add)?;
            say::line(format_args!("{}", token.reveal()));
        }
        OperatorCommand::List { data, json } => {
            for one in People::of(&of(data)?).all()? {
                let roles: Vec<&str> = one.roles.iter().map(|role| role.word()).collect();
                if json {
                    say::line(format_args!("{}", serde_json::json!({ "name": one.name, "roles": roles })));
                } else {
                    say::line(format_args!("{}  {}", say::plain(&one.name), roles.join(",")));
                }
            }
        }
        OperatorCommand::Remove { name, data } => {
            let data = of(data)?;
            acts::kept(&data, "operator.remove", name.clone(), || People::of(&data).remove(&name))?;
        }
    }
    Ok(())
}

fn topics(what: TopicsCommand) -> anyhow::Result<()> {
    let TopicsCommand::Plan { config, bootstrap, principal, reader, json } = what;
    let section = config.as_deref().map(config::Config::read_backbone).transpose()?.unwrap_or_default();
    let options = section.kafka(bootstrap.as_deref(), PathBuf::new())?;
    let tenants = config.as_deref().map(config::Config::read_tenants).transpose()?.unwrap_or_default().prefixes()?;
    let tenants: Vec<_> = tenants.into_values().collect();
    let plan = cairn_backbone::kafka::plan(&options, &tenants, &principal, reader.as_deref());
    if json {
        say::line(format_args!("{}", serde_json::to_string_pretty(&plan)?));
    } else {
        say::line(format_args!("{}", plan.to_string().trim_end()));
    }
    Ok(())
}

fn writer(what: WriterCommand) -> anyhow::Result<()> {
    let of = |data: Option<PathBuf>| {
        let data = data.map_or_else(folder::default_path, Ok)?;
        std::fs::create_dir_all(&data)?;
        anyhow::Ok(data)
    };
    match what {
        WriterCommand::New { name, data } => {
            let data = of(data)?;
            let renew = || Writers::of(&data).renew(&name, &Entropy::system());
            say::line(format_args!("{}", acts::kept(&data, "writer.new", name.clone(), renew)?));
        }
        WriterCommand::Remove { name, data } => {
            let data = of(data)?;
            acts::kept(&data, "writer.remove", name.clone(), || Writers::of(&data).remove(&name))?;
        }
        WriterCommand::List { data } => {
            Writers::of(&of(data)?).names()?.iter().for_each(|name| say::line(format_args!("{name}")));
        }
    }
    Ok(())
}

async fn settle(arguments: SettleArguments, approve: bool) -> anyhow::Result<()> {
    let admin = arguments.admin.find()?;
    let text = match arguments.id {
        Some(id) => ask::settle(&admin, &id, approve, arguments.reason, arguments.json).await?,
        None => ask::list(&admin, arguments.json).await?,
    };
    say::line(format_args!("{text}"));
    Ok(())
}
