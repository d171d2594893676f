//! `cairn dataset`: data sets of tool calls for evaluating models, made from the trail and made again from their manifests; and
//! `[evaluate]` of the configuration, which says what models cost.
//!
//! Reads by the Kafka protocol, on any backbone, and leaves nothing behind there. The work is done in `cairn-evaluate`.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use cairn_clock::Clock;
use cairn_evaluate::{
    CALLS_MAX, Difference, Filters, Jsonl, MANIFEST, MakeError, Options, Price, Prices, Range, Rebuilt, make, rebuild,
};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use crate::{Reading, config::Config, ending::Ending, say, since};

/// `[evaluate]`: what models cost.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EvaluateSection {
    currency: Option<String>,
    prices: BTreeMap<String, Price>,
}

impl EvaluateSection {
    /// Refuses a price that is no number.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.table().check().context("[evaluate.prices]")
    }

    fn table(&self) -> Prices {
        Prices { currency: self.currency.clone(), models: self.prices.clone() }
    }
}

/// What is done with data sets.
#[derive(Subcommand)]
pub(crate) enum DatasetCommand {
    /// Makes one: a row for each call of a tool, and a manifest to make it again by.
    #[command(
        after_help = "Example: cairn dataset make --out refunds --since 7d --server orders --tool refund_order\nAs Parquet too: cairn-lake dataset parquet refunds/manifest.json"
    )]
    Make(Box<MakeArguments>),
    /// Makes the files of a manifest again from the trail, and says what differs and why.
    #[command(
        after_help = "Example: cairn dataset rebuild refunds/manifest.json\n\nExit code: 0 identical to the byte, 5 something differs"
    )]
    Rebuild {
        /// The manifest.
        manifest: PathBuf,
        /// Keeps what is made again in this folder.
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
        #[command(flatten)]
        reading: Reading,
    },
}

/// Which calls, and where to.
#[derive(Args)]
pub(crate) struct MakeArguments {
    /// The folder; it must not hold a data set yet.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Only calls decided since then: 90s, 10m, 2h or 1d ago, or 2026-11-24T09:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = since::millis)]
    since: Option<i64>,
    /// Only calls decided before.
    #[arg(long, value_name = "TIME", value_parser = since::millis)]
    until: Option<i64>,
    /// Only calls of this tenant.
    #[arg(long)]
    tenant: Option<String>,
    /// Only calls of this workflow.
    #[arg(long)]
    workflow: Option<String>,
    /// Only calls to this server.
    #[arg(long)]
    server: Option<String>,
    /// Only calls of this tool.
    #[arg(long)]
    tool: Option<String>,
    /// Only calls that were decided so.
    #[arg(long, value_parser = ["permit", "deny"])]
    decision: Option<String>,
    /// Only calls that ended so, such as completed.
    #[arg(long)]
    outcome: Option<String>,
    /// Only calls that a model is known to have chosen.
    #[arg(long)]
    chosen: bool,
    /// No texts: of arguments, results and prompts only digests and sizes.
    #[arg(long)]
    no_texts: bool,
    /// Calls that have not ended yet, too.
    #[arg(long)]
    open: bool,
    /// Calls at most; each takes about two to three KiB of memory.
    #[arg(long, default_value_t = CALLS_MAX)]
    calls_max: usize,
    #[command(flatten)]
    reading: Reading,
}

/// This program, in a manifest.
const PROGRAM: (&str, &str) = ("cairn", env!("CARGO_PKG_VERSION"));

/// Does it.
pub(crate) fn run(what: DatasetCommand) -> anyhow::Result<()> {
    match what {
        DatasetCommand::Make(arguments) => made(*arguments),
        DatasetCommand::Rebuild { manifest, out, reading } => rebuilt(&manifest, out.as_deref(), &reading),
    }
}

fn made(arguments: MakeArguments) -> anyhow::Result<()> {
    let MakeArguments { out, since, until, tenant, workflow, server, tool, decision, outcome, .. } = arguments;
    let filters = Filters {
        since_ms: since,
        until_ms: until,
        tenant,
        workflow,
        server,
        tool,
        decision,
        outcome,
        chosen: arguments.chosen,
    };
    if arguments.calls_max == 0 {
        bail!("--calls-max is 0, so nothing could be chosen: set it to at least 1");
    }
    let prices = match &arguments.reading.config {
        Some(path) => Config::read_evaluate(path)?.table(),
        None => Prices::default(),
    };
    let options =
        Options { filters, inline: !arguments.no_texts, open: arguments.open, prices, calls_max: arguments.calls_max };
    let source = arguments.reading.source()?;
    let records = source.records()?;
    let made = make(&records, &options, &[&Jsonl], &out, (PROGRAM, Clock::system().now())).map_err(ended)?;
    let counts = &made.manifest.counts;
    if arguments.reading.json {
        let told = json!({ "manifest": made.manifest_path, "counts": counts, "files": made.manifest.files });
        say::line(format_args!("{told}"));
        return Ok(());
    }
    say::line(format_args!("{} rows in {}", counts.rows, out.join("calls.jsonl").display()));
    let beside = [
        (counts.open, "calls have not ended yet and are left out: --open takes them"),
        (counts.erased, "rows are of erased subjects, without texts"),
        (counts.no_events, "records are no events"),
        (counts.unreadable, "events have a form that this version does not know"),
    ];
    for (count, words) in beside.into_iter().filter(|(count, _)| *count > 0) {
        say::line(format_args!("{count} {words}"));
    }
    say::line(format_args!("made again by: cairn dataset rebuild {}", made.manifest_path.display()));
    Ok(())
}

fn rebuilt(manifest: &Path, out: Option<&Path>, reading: &Reading) -> anyhow::Result<()> {
    let scratch = tempfile::tempdir().context("cannot make a temporary folder")?;
    let into = out.unwrap_or(scratch.path());
    if out.is_some_and(|out| out.join(MANIFEST).exists()) {
        bail!("{} holds a data set: name another folder for what is made again", into.display());
    }
    let records = reading.source()?.records()?;
    let rebuilt = rebuild(&records, manifest, &[&Jsonl], into, PROGRAM.1).map_err(ended)?;
    if reading.json {
        say::line(format_args!("{}", json!(rebuilt)));
    } else {
        shown(&rebuilt);
    }
    if rebuilt.is_identical {
        return Ok(());
    }
    Err(Ending::Differs(format!("what the trail gives now is not what {} names", manifest.display())).into())
}

fn shown(rebuilt: &Rebuilt) {
    if rebuilt.is_identical {
        say::line(format_args!("identical: {} rows, to the byte", rebuilt.rows));
    }
    for difference in &rebuilt.differences {
        say::line(format_args!("{}", words(difference)));
    }
}

fn words(difference: &Difference) -> String {
    let place =
        |range: &Range| format!("{}/{}: offsets {} to {}", range.topic, range.partition, range.from, range.to - 1);
    match difference {
        Difference::TopicGone { range } => {
            format!("{} are not there any more: the topic is gone, or another one has its name", place(range))
        }
        Difference::Removed { range } => format!("{} were removed by retention", place(range)),
        Difference::Ended { range } => format!("{} are not there: is it the same log?", place(range)),
        Difference::Erased { rows } => format!("{rows} more rows are of subjects that were erased since"),
        Difference::Program { then, now } => format!("it was made by version {then}, and this is {now}"),
        Difference::File { name, then, now } => format!("{name} is another: {now}, and was {then}"),
        Difference::Rows { missing, new, changed, calls } => {
            format!("rows: {missing} are missing, {new} are new, {changed} are changed; calls: {}", calls.join(", "))
        }
        Difference::NotMade { name } => {
            format!(
                "{name} was not made again: cairn-lake dataset rebuild does that (it follows from calls.jsonl alone)"
            )
        }
    }
}

/// An error, with the exit code that it deserves.
fn ended(error: MakeError) -> anyhow::Error {
    match error {
        MakeError::NoTopics => Ending::NoSuch(error.to_string()).into(),
        MakeError::File { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Ending::NoSuch(error.to_string()).into()
        }
        other => other.into(),
    }
}
