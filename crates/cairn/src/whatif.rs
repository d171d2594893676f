//! `cairn whatif`: what other policies would have decided of the calls in the trail.
//!
//! The command sends the policies to a running `up`, because that alone may open the vault in which the inputs of decisions
//! lie; no payload comes back. This side and that side of the admin address are both here.

use std::{io::IsTerminal, path::PathBuf, sync::Arc};

use anyhow::{Context, bail};
use cairn_backbone::reader::ReaderOptions;
use cairn_contract::{Topic, TopicPrefix};
use cairn_operators::{Running, TrialAsked, TrialFault, Trials};
use cairn_policy::{Trial, folder_texts};
use cairn_replay::{Counts, WhatIf};
use cairn_vault::Vault;
use clap::Args;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};

use crate::{ask, say, since};

/// Flips that are listed where nobody says how many.
const LISTED: usize = 20;
/// Most flips that are listed.
const LISTED_MAX: usize = 10_000;
/// Lines of a table that are shown of each kind.
const PARTS_SHOWN: usize = 10;

/// What `cairn whatif` is told.
#[derive(Args)]
pub(crate) struct WhatIfArguments {
    /// The folder with the policies to try: *.cedar, entities.json, actions.json.
    #[arg(long)]
    policy: PathBuf,
    /// From when: 90s, 10m, 2h, 7d ago, or RFC 3339.
    #[arg(long, default_value = "7d", value_parser = since::millis)]
    since: i64,
    /// Until when; until now where absent.
    #[arg(long, value_parser = since::millis)]
    until: Option<i64>,
    /// How many flips are listed; all are counted.
    #[arg(long, default_value_t = LISTED)]
    list: usize,
    #[command(flatten)]
    admin: ask::AdminArguments,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

/// `cairn whatif`
pub(crate) async fn run(arguments: WhatIfArguments) -> anyhow::Result<()> {
    let WhatIfArguments { policy, since, until, list, admin, json: as_json } = arguments;
    let files = folder_texts(&policy)?;
    if !files.keys().any(|name| name.ends_with(".cedar")) {
        bail!("{} holds no *.cedar file: name the folder with the policies", policy.display());
    }
    // What is wrong with them is said here, with the folder's own paths, before anybody is asked.
    cairn_policy::PolicyStore::open(Some(policy))?;
    let body = json!({ "files": files, "since_ms": since, "until_ms": until, "list": list.min(LISTED_MAX) });
    let shows = std::io::stderr().is_terminal() && !as_json;
    let (mut report, mut fault) = (None, None);
    let heard = |line: &[u8]| {
        let said: Value = serde_json::from_slice(line).unwrap_or_default();
        if let Some(progress) = said.get("progress").filter(|_| shows) {
            eprint!("\r{} decisions read, {} flips ", progress["decisions"], progress["flips"]);
        }
        report = said.get("report").cloned().or(report.take());
        fault = said.get("error").and_then(Value::as_str).map(ToOwned::to_owned).or(fault.take());
    };
    admin.find()?.lines("/whatif", body, heard).await?;
    if shows {
        eprintln!();
    }
    if let Some(fault) = fault {
        bail!("{fault}");
    }
    let report = report.context("the answer ended before it was whole: is `cairn up` still there?")?;
    say::line(format_args!("{}", if as_json { report.to_string() } else { shown(&report) }));
    Ok(())
}

/// The report for people.
fn shown(report: &Value) -> String {
    let of = |value: &Value, key: &str| value[key].as_u64().unwrap_or_default();
    let undecidable = &report["undecidable"];
    let why: Vec<String> = ["erased", "not_kept", "missing", "damaged", "hidden", "unknown"]
        .into_iter()
        .filter(|key| of(undecidable, key) > 0)
        .map(|key| format!("{} {}", of(undecidable, key), key.replace('_', " ")))
        .collect();
    let mut out = format!(
        "policies {}\n{} decisions: {} as they were, {} otherwise, {} denied by something besides policies\n",
        say::plain(report["policy_version"].as_str().unwrap_or_default()),
        of(report, "decisions"),
        of(report, "agree"),
        of(report, "flips"),
        of(report, "denied_elsewhere"),
    );
    if !why.is_empty() {
        out.push_str(&format!("undecidable: {}\n", why.join(", ")));
    }
    for (title, key) in [("tool", "by_tool"), ("agent", "by_agent"), ("tenant", "by_tenant")] {
        let parts = report[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let flips = |part: &Value| of(part, "to_deny") + of(part, "to_permit") + of(part, "other_demands");
        for part in parts.iter().filter(|part| flips(part) > 0).take(PARTS_SHOWN) {
            out.push_str(&format!(
                "{title} {}: of {} decisions {} would be denied, {} permitted, {} have other demands\n",
                say::plain(part["name"].as_str().unwrap_or_default()),
                of(part, "decisions"),
                of(part, "to_deny"),
                of(part, "to_permit"),
                of(part, "other_demands"),
            ));
        }
    }
    for flip in report["listed"].as_array().into_iter().flatten() {
        let text = |key: &str| say::plain(flip[key].as_str().unwrap_or_default());
        let list = |key: &str| {
            let items: Vec<_> = flip[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if items.is_empty() { "no policy".to_owned() } else { say::plain(&items.join(", ")) }
        };
        let turn = match flip["kind"].as_str() {
            Some("to_deny") => "permit → deny",
            Some("to_permit") => "deny → permit",
            _ => "other demands",
        };
        let demands = match flip["kind"].as_str() {
            Some("other_demands") => format!(", demands {} → {}", list("demands_were"), list("demands_would")),
            _ => String::new(),
        };
        out.push_str(&format!(
            "{} {turn} {} by {}: {} → {}{demands} ({} {} {}, workflow {})\n",
            text("time"),
            text("target"),
            text("principal"),
            list("was"),
            list("would"),
            text("topic"),
            flip["partition"],
            flip["offset"],
            text("workflow_id"),
        ));
    }
    out.trim_end().to_owned()
}

/// The trail and the vault of this process.
pub(crate) struct Tried {
    reading: ReaderOptions,
    vault: Vault,
    /// One at a time.
    place: Arc<Semaphore>,
}

impl Tried {
    /// Over the topics with calls, those of tenants too.
    pub(crate) fn new(reading: ReaderOptions, tenants: impl IntoIterator<Item = TopicPrefix>, vault: Vault) -> Self {
        let prefixes = std::iter::once(TopicPrefix::default()).chain(tenants);
        let topics = prefixes.map(|prefix| prefix.name(Topic::Calls).into_owned()).collect();
        Self { reading: ReaderOptions { topics, ..reading }, vault, place: Arc::new(Semaphore::new(1)) }
    }
}

impl Trials for Tried {
    fn begin(&self, asked: TrialAsked, progress: mpsc::Sender<Value>) -> Result<Running, TrialFault> {
        let TrialAsked { files, since_ms, until_ms, list } = asked;
        let trial = Trial::open(&files).map_err(|error| TrialFault::Policies(error.to_string()))?;
        let place = self.place.clone().try_acquire_owned().map_err(|_| TrialFault::Busy)?;
        let whatif = WhatIf {
            reader: self.reading.clone(),
            from_ms: since_ms,
            until_ms,
            trial: Arc::new(trial),
            vault: self.vault.clone(),
            listed_max: list.unwrap_or(LISTED).min(LISTED_MAX),
        };
        Ok(Box::pin(async move {
            let _place = place;
            // Progress that nobody takes is not worth waiting for.
            let told = |counts: &Counts| drop(progress.try_send(json!(counts)));
            let report = whatif.run(told).await.map_err(|error| error.to_string())?;
            Ok(json!(report))
        }))
    }
}
