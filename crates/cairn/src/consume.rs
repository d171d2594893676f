//! `cairn consume NAME`: one consumer as a process of its own, on the embedded log of another process or on a cluster.
//!
//! It keeps its results in its data folder and needs nothing but the Kafka protocol. Killed at any moment it neither misses nor
//! repeats a record.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::bail;
use cairn_backbone::reader::ReaderOptions;
use cairn_clock::{Clock, Entropy};
use cairn_operators::{Admin, Credential, People, Probe};
use clap::Args;
use prometheus_client::registry::Registry;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::Config,
    consumers::{self, ConsumersSection, NAMES},
    door, folder,
    measures::Measures,
    read::Source,
    say,
    trust::TrustArguments,
    up::{self, Signals},
};

/// How often it is looked whether the consumer has ended by itself.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

/// What `cairn consume` is told.
#[derive(Args)]
pub(crate) struct ConsumeArguments {
    /// The consumer: audit, context, observe.
    name: String,
    /// Where its results lie.
    #[arg(long, env = "CAIRN_DATA")]
    data: Option<PathBuf>,
    /// The Kafka address; that of the configuration or of the running `up` where absent.
    #[arg(long)]
    bootstrap: Option<String>,
    /// The configuration whose backbone to read, with its properties.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Its consumer group; that of the configuration where absent.
    #[arg(long)]
    group: Option<String>,
    /// Where health and metrics are served, as HOST:PORT; nowhere where absent.
    #[arg(long)]
    metrics: Option<String>,
    #[command(flatten)]
    tls: TrustArguments,
}

struct Always(Arc<AtomicBool>);

impl Probe for Always {
    fn ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Consumes until SIGTERM or SIGINT.
pub(crate) async fn run(arguments: ConsumeArguments) -> anyhow::Result<()> {
    let ConsumeArguments { name, data, bootstrap, config, group, metrics, tls } = arguments;
    let Some(name) = NAMES.into_iter().find(|known| *known == name) else {
        bail!("there is no consumer {name:?}: {}", NAMES.join(", "));
    };
    let data = data.map_or_else(folder::default_path, Ok)?;
    let source = Source::find(bootstrap, config.as_deref(), Some(data.clone()), &tls)?;
    let section = match &config {
        Some(path) => Config::read_consumers(path)?,
        None => ConsumersSection::default(),
    };
    let group = group.unwrap_or_else(|| section.group(name).to_owned());
    let data = folder::made(&data)?;
    let reading = ReaderOptions { properties: source.properties().clone(), ..ReaderOptions::all(&source.bootstrap) };
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let (running, shown) = consumers::start_one((name, &section), &data, &reading, group.clone(), (&clock, &entropy))?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let ready = Arc::new(AtomicBool::new(true));
    let mut words = String::new();
    if let Some(address) = metrics {
        let listener = up::bind("metrics", Some(&address), &address, false).await?;
        words = format!(" metrics http://{}", listener.local_addr()?);
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Measures { consumers: vec![shown.clone()], ..Measures::default() }));
        let api = Admin::new(Always(ready.clone()), registry, (Credential::of(&data), People::of(&data)), None);
        tasks.spawn(door::ADMIN.serve(api.router(), listener, None, stop.clone()));
    }
    #[cfg(feature = "observe")]
    if shown.observed.as_ref().is_some_and(|observed| !observed.has_collector()) {
        eprintln!(
            "cairn: no collector is named, so there are metrics alone: set consumers.observe.endpoint, or OTEL_EXPORTER_OTLP_ENDPOINT"
        );
    }
    let signals = Signals::taken()?;
    say::line(format_args!("ready consumer {name} group {group} kafka {}{words}", source.bootstrap));
    let ended = async {
        while !running.consumer.has_ended() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    let has_ended = tokio::select! {
        () = signals.wait(&stop) => false,
        () = ended => true,
    };
    ready.store(false, Ordering::Release);
    running.close().await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    match shown.status.snapshot().failing {
        Some(why) if has_ended => bail!("{name} has ended: {why}"),
        _ => Ok(()),
    }
}
