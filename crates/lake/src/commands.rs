//! What `cairn-lake` is told to do.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the command line talks to the person who started it")]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use cairn_backbone::{group::GroupOptions, records::Records};
use cairn_clock::{Clock, Entropy, Timestamp};
use cairn_consumers::{Consumer, ConsumerOptions, Status};
use cairn_evaluate::{Jsonl, MANIFEST, Manifest, rebuild};
use clap::{Args, Parser, Subcommand};
use tokio::{net::TcpListener, runtime::Handle};
use tokio_util::sync::CancellationToken;

use crate::{
    calls::Parquet,
    catalog::{self, Catalog},
    config::{Config, Place, Source},
    replay::{self, Wanted},
    sink::LakeSink,
    table::Table,
};

/// How often it is looked whether the consumer has ended by itself.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);
/// The exit code of what differs.
const DIFFERS: u8 = 5;

/// The command line.
#[derive(Parser, Debug)]
#[command(
    name = "cairn-lake",
    version,
    about = "The trail of Cairn as an Iceberg table on an object store, and data sets as Parquet",
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 5 not as it should be"
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Keeps the table: reads the trail and commits it, until it is stopped.
    #[command(
        after_help = "Example: cairn-lake run --folder /srv/lake --catalog 127.0.0.1:8181\nWith a bucket: cairn-lake run --config cairn.toml"
    )]
    Run(RunArguments),
    /// Serves the table's catalog alone, for engines to attach.
    #[command(after_help = "Example: cairn-lake catalog --folder /srv/lake --listen 127.0.0.1:8181")]
    Catalog {
        #[command(flatten)]
        place: PlaceArguments,
        /// Where, as HOST:PORT; that of the configuration where absent.
        #[arg(long)]
        listen: Option<String>,
    },
    /// Makes a part of the table again from the trail, in one commit.
    #[command(
        after_help = "Example: cairn-lake replay --folder /srv/lake --from 2026-11-24T09:00:00Z --topic mcp.calls --dry-run"
    )]
    Replay(ReplayArguments),
    /// Data sets as Parquet.
    Dataset {
        #[command(subcommand)]
        what: DatasetCommand,
    },
}

/// Where the table lies.
#[derive(Args, Debug)]
struct PlaceArguments {
    /// `cairn.toml`, of which [lake] and [backbone] are read.
    #[arg(long)]
    config: Option<PathBuf>,
    /// A folder of this machine for the table, whatever the configuration says.
    #[arg(long)]
    folder: Option<PathBuf>,
}

impl PlaceArguments {
    fn read(&self) -> anyhow::Result<(Config, Place)> {
        let config = Config::read(self.config.as_deref())?;
        let place = config.place(self.folder.as_deref())?;
        Ok((config, place))
    }
}

#[derive(Args, Debug)]
struct RunArguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// The Kafka address; that of the configuration where absent, else 127.0.0.1:9092.
    #[arg(long)]
    bootstrap: Option<String>,
    /// Serves the catalog too, as HOST:PORT.
    #[arg(long)]
    catalog: Option<String>,
}

#[derive(Args, Debug)]
struct ReplayArguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// The Kafka address.
    #[arg(long)]
    bootstrap: Option<String>,
    /// Only this topic; may be given several times.
    #[arg(long)]
    topic: Vec<String>,
    /// Files with events since then, such as 2026-11-24T09:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<i64>,
    /// Files with events before then.
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<i64>,
    /// Says what would be replaced, and replaces nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Subcommand, Debug)]
enum DatasetCommand {
    /// Writes the rows of a data set as Parquet beside it, and adds the file to its manifest.
    #[command(after_help = "Example: cairn-lake dataset parquet refunds/manifest.json")]
    Parquet {
        /// The manifest that `cairn dataset make` wrote.
        manifest: PathBuf,
    },
    /// Makes all files of a manifest again from the trail, and says what differs.
    #[command(
        after_help = "Example: cairn-lake dataset rebuild refunds/manifest.json\n\nExit code: 0 identical to the byte, 5 something differs"
    )]
    Rebuild {
        /// The manifest.
        manifest: PathBuf,
        /// Keeps what is made again in this folder.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
        /// The configuration whose [backbone] is read.
        #[arg(long)]
        config: Option<PathBuf>,
        /// The Kafka address.
        #[arg(long)]
        bootstrap: Option<String>,
    },
}

/// Microseconds since 1970 of a time in UTC.
fn time(text: &str) -> Result<i64, String> {
    let whole = text.strip_suffix('Z').filter(|rest| !rest.contains('.')).map(|rest| format!("{rest}.000000Z"));
    let at: Timestamp =
        whole.as_deref().unwrap_or(text).parse().map_err(|_| "write a time such as 2026-11-24T09:00:00Z")?;
    i64::try_from(at.as_micros()).map_err(|error| error.to_string())
}

/// Does it.
///
/// # Errors
/// What went wrong.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Run(arguments) => kept(arguments).await,
        Command::Catalog { place, listen } => served(&place, listen).await,
        Command::Replay(arguments) => tokio::task::spawn_blocking(move || replayed(&arguments)).await?,
        Command::Dataset { what } => tokio::task::spawn_blocking(move || dataset(what)).await?,
    }
}

/// The catalog's listener, where one is wanted.
async fn listening(
    config: &Config,
    place: &Place,
    listen: Option<String>,
) -> anyhow::Result<Option<(TcpListener, axum::Router)>> {
    let Some((listen, token)) = config.catalog(listen)? else { return Ok(None) };
    let listener = TcpListener::bind(&listen).await.with_context(|| format!("cannot listen at {listen}"))?;
    let Place { store, location, config: told } = place.clone();
    let router = catalog::router(Catalog { store, location, name: config.name(), token, config: told });
    Ok(Some((listener, router)))
}

/// Waits for SIGTERM or SIGINT.
async fn asked_to_end() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

async fn kept(arguments: RunArguments) -> anyhow::Result<ExitCode> {
    let RunArguments { place: placed, bootstrap, catalog } = arguments;
    let (config, place) = placed.read()?;
    let Source { bootstrap, properties } = config.source(bootstrap);
    let listening = listening(&config, &place, catalog).await?;
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let table = Table::take(place.store.clone(), &place.location, (clock.clone(), entropy)).await?;
    let instance = table.head().instance.clone();
    let (handle, pace) = (Handle::current(), config.pace());
    let sink = tokio::task::spawn_blocking(move || LakeSink::new(table, handle, pace)).await??;
    let group = config.group();
    let options = ConsumerOptions {
        name: "lake".to_owned(),
        group: GroupOptions { bootstrap: bootstrap.clone(), properties, group: group.clone(), instance },
    };
    let status = Status::default();
    let (namespace, name) = config.name();
    let mut words = format!("ready lake {namespace}.{name} at {} group {group} kafka {bootstrap}", place.location);
    let serving = listening.map(|(listener, router)| {
        if let Ok(address) = listener.local_addr() {
            words += &format!(" catalog http://{address}");
        }
        tokio::spawn(async move { axum::serve(listener, router).await })
    });
    let consumer = Consumer::start(options, Box::new(sink), clock, status.clone());
    println!("{words}");
    let ended = async {
        while !consumer.has_ended() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let has_ended = tokio::select! {
        asked = asked_to_end() => { asked?; false }
        () = ended => true,
    };
    // What waits is committed.
    consumer.close().await;
    if let Some(serving) = serving {
        serving.abort();
    }
    match status.snapshot().failing {
        Some(why) if has_ended => bail!("the table is not kept any more: {why}"),
        _ => Ok(ExitCode::SUCCESS),
    }
}

async fn served(placed: &PlaceArguments, listen: Option<String>) -> anyhow::Result<ExitCode> {
    let (config, place) = placed.read()?;
    let listening = listening(&config, &place, listen).await?;
    let (listener, router) = listening.context("nobody says where: give --listen, or set lake.catalog.listen")?;
    println!("ready catalog http://{} of {}", listener.local_addr()?, place.location);
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        asked = asked_to_end() => asked?,
    }
    Ok(ExitCode::SUCCESS)
}

fn replayed(arguments: &ReplayArguments) -> anyhow::Result<ExitCode> {
    let ReplayArguments { place: placed, bootstrap, topic, from, to, dry_run } = arguments;
    let (config, place) = placed.read()?;
    let Source { bootstrap, properties } = config.source(bootstrap.clone());
    let records = Records::open(&bootstrap, &properties)?;
    let wanted = Wanted { topics: topic.clone(), from_us: *from, to_us: *to };
    let stop = CancellationToken::new();
    let handle = Handle::current();
    let stopper = stop.clone();
    let watching = handle.spawn(async move {
        let _ = asked_to_end().await;
        stopper.cancel();
    });
    let done = handle.block_on(async {
        let mut table = Table::join(place.store, Clock::system(), Entropy::system()).await?;
        if *dry_run {
            replay::planned(&mut table, &records, &wanted).await
        } else {
            replay::run(&mut table, &records, &wanted, (config.pace().bytes, &stop)).await
        }
    });
    watching.abort();
    let done = done?;
    if *dry_run {
        println!("would replace {} files with {} rows", done.files, done.rows_before);
    } else {
        println!("replaced {} files with {} rows by {} rows", done.files, done.rows_before, done.rows_now);
    }
    if done.kept > 0 {
        println!("{} files stay as they are: the trail does not keep all of their offsets any more", done.kept);
    }
    Ok(ExitCode::SUCCESS)
}

fn dataset(what: DatasetCommand) -> anyhow::Result<ExitCode> {
    match what {
        DatasetCommand::Parquet { manifest: path } => {
            let file = Manifest::read(&path)?.add(&Parquet, &path)?;
            println!("{} bytes in {}", file.bytes, path.with_file_name(&file.name).display());
            Ok(ExitCode::SUCCESS)
        }
        DatasetCommand::Rebuild { manifest, out, config, bootstrap } => {
            let Source { bootstrap, properties } = Config::read(config.as_deref())?.source(bootstrap);
            rebuilt(&manifest, out.as_deref(), &Records::open(&bootstrap, &properties)?)
        }
    }
}

fn rebuilt(manifest: &Path, out: Option<&Path>, records: &Records) -> anyhow::Result<ExitCode> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let into = out.unwrap_or(scratch.path());
    if out.is_some_and(|out| out.join(MANIFEST).exists()) {
        bail!("{} holds a data set: name another folder for what is made again", into.display());
    }
    let rebuilt = rebuild(records, manifest, &[&Jsonl, &Parquet], into, env!("CARGO_PKG_VERSION"))?;
    println!("{}", serde_json::to_string(&rebuilt)?);
    Ok(if rebuilt.is_identical { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
}
