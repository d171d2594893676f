//! `cairn compare`: where two runs part.
//!
//! A run is a workflow of the trail or a recording's file. Without `--payloads` the trail alone is read, by the Kafka
//! protocol, and payloads are compared by their digests; with it, the running `up` is asked as `cairn play` does.

use std::path::{Path, PathBuf};

use cairn_replay::{Aspect, Comparison, Gathering, Pair, Place, Recording, compare};
use clap::Args;
use serde_json::json;

use crate::{ask, ending::Ending, play, read, say, trail, trust::TrustArguments};

/// Pairs that are shown to people.
const SHOWN_MAX: usize = 20;

/// What `cairn compare` is told.
#[derive(Args)]
pub(crate) struct CompareArguments {
    /// A workflow's id, or a file that `cairn play --export` wrote.
    a: String,
    /// Another.
    b: String,
    /// Read payloads, to tell where they differ; wants the role `payloads` and leaves events as `cairn play` does.
    #[arg(long)]
    payloads: bool,
    /// The tenant, where several have a workflow of that name.
    #[arg(long)]
    tenant: Option<String>,
    /// Why payloads are read, for the trail.
    #[arg(long, requires = "payloads")]
    reason: Option<String>,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
    /// The Kafka address; that of the configuration or of the running `up` where absent.
    #[arg(long)]
    bootstrap: Option<String>,
    /// The configuration whose backbone to read.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The admin address of the running `up`, for --payloads.
    #[arg(long)]
    admin: Option<String>,
    /// The data folder of the running `up`.
    #[arg(long, env = "CAIRN_DATA")]
    data: Option<PathBuf>,
    #[command(flatten)]
    tls: TrustArguments,
}

/// `cairn compare`
pub(crate) async fn run(arguments: CompareArguments) -> anyhow::Result<()> {
    let (a, b) = (one(&arguments, &arguments.a).await?, one(&arguments, &arguments.b).await?);
    let comparison = compare(&a, &b);
    let is_equal = comparison.is_equal();
    if arguments.json {
        let mut value = json!(comparison);
        value["is_equal"] = json!(is_equal);
        say::line(format_args!("{value}"));
    } else {
        say::line(format_args!("{}", shown(&comparison)));
    }
    if is_equal {
        return Ok(());
    }
    let known = comparison.different + comparison.only_a + comparison.only_b > 0;
    let words = if known { "the runs part" } else { "the runs are not known to be equal" };
    Err(Ending::Differs(words.to_owned()).into())
}

/// One run. What is there as a file is one; a workflow's id seldom is.
async fn one(arguments: &CompareArguments, name: &str) -> anyhow::Result<Recording> {
    if Path::new(name).is_file() {
        return play::read(Path::new(name));
    }
    if arguments.payloads {
        let CompareArguments { admin, data, tls, tenant, reason, .. } = arguments;
        let admin = ask::AdminArguments::of(admin.clone(), data.clone(), tls.clone());
        return play::fetch(&admin, name, tenant.as_deref(), reason.as_deref()).await;
    }
    let CompareArguments { bootstrap, config, data, tls, tenant, .. } = arguments;
    let source = read::Source::find(bootstrap.clone(), config.as_deref(), data.clone(), tls)?;
    let (workflow, tenant) = (name.to_owned(), tenant.clone());
    tokio::task::spawn_blocking(move || {
        let mut gathering = Gathering::new(&workflow, tenant);
        let reading = read::Reading::open(&source)?;
        let mut events = trail::events_of(&reading, &[&workflow], trail::is_by_workflow, false)?;
        // What was defined in the catalogue is of no workflow.
        events.extend(reading.all_in(|topic| !trail::is_by_workflow(topic))?);
        for placed in events {
            let partition = u32::try_from(placed.partition).unwrap_or_default();
            let offset = u64::try_from(placed.offset).unwrap_or_default();
            gathering.take(Place { topic: placed.topic, partition, offset }, placed.event);
        }
        gathering.finish().map_err(|error| match error {
            cairn_replay::GatherError::NoSuch { .. } => {
                Ending::NoSuch(format!("{error}; nor is there such a file")).into()
            }
            other => other.into(),
        })
    })
    .await?
}

/// For people: a summary, then the pairs that are not known to be equal, the first of which is where the runs part.
fn shown(comparison: &Comparison) -> String {
    let Comparison { a, b, equal, different, unknown, only_a, only_b, pairs } = comparison;
    let mut out = format!(
        "A {}\nB {}\n{equal} calls equal, {different} different, {unknown} not comparable, {only_a} of A alone, {only_b} of B alone",
        say::plain(a),
        say::plain(b),
    );
    if pairs.is_empty() {
        out.push_str("\nthe runs are equal");
    }
    for (index, pair) in pairs.iter().take(SHOWN_MAX).enumerate() {
        out.push_str(if index == 0 { "\nthey part here:" } else { "" });
        out.push_str(&format!("\n{}", line(pair)));
    }
    if pairs.len() > SHOWN_MAX {
        out.push_str(&format!("\nand {} more (--json lists them)", pairs.len() - SHOWN_MAX));
    }
    out
}

fn line(pair: &Pair) -> String {
    let place = |side: &Option<cairn_replay::Side>| side.as_ref().map_or("–".to_owned(), |side| side.at.to_string());
    let call = pair.a.as_ref().or(pair.b.as_ref()).map(|side| side.call.as_str()).unwrap_or_default();
    let mut out = format!("{}  [A {}, B {}]", say::plain(call), place(&pair.a), place(&pair.b));
    for part in &pair.parts {
        let aspect = match part.aspect {
            Aspect::Call => "call",
            Aspect::Arguments => "arguments",
            Aspect::Decision => "decision",
            Aspect::Outcome => "outcome",
            Aspect::Result => "result",
        };
        out.push_str(&format!("\n  {aspect}: {}", say::plain(&part.words)));
    }
    out
}
