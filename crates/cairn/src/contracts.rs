//! `[contracts]` of the configuration, and `cairn contract`: what contracts say, what may change in them, and what became of
//! events that broke one.
//!
//! Looking needs no running Cairn. A repair goes to the `up` in whose vault the refused event lies.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use cairn_backbone::KeepsRejected;
use cairn_contract::{Contract, EventType, Readers, Reference, Topic, Validator, add_contracts, differences, embedded};
use cairn_vault::{Subject, Vault};
use clap::Subcommand;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Reading, ask, contract_page, ending::Ending, read, say};

/// Largest contract file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What every contract says of itself.
const ANNOTATIONS: [&str; 8] =
    ["description", "x-owner", "x-purpose", "x-topic", "x-key", "x-durability", "x-retention", "x-compatibility"];

/// `[contracts]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ContractsSection {
    /// A folder of newer contracts, `<event>/v<N>.json`.
    folder: Option<PathBuf>,
}

impl ContractsSection {
    /// Takes the newer contracts of the folder; from here on producers hold events to them. Relative paths lie in the data
    /// folder.
    pub(crate) fn add(&self, data: &Path) -> anyhow::Result<()> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let folder = data.join(folder);
        let mut newer = Vec::new();
        for (event_type, versions) in versions_in(&folder)? {
            let known = embedded(event_type);
            for (version, text) in versions {
                match known.iter().find(|known| known.version == version) {
                    None => newer.push((event_type, version, text)),
                    Some(known) if is_same(known, &text) => {}
                    Some(known) => bail!(
                        "{}: {} is published, and this is another text: publish a next version",
                        folder.display(),
                        known.uri()
                    ),
                }
            }
        }
        if newer.is_empty() {
            return Ok(());
        }
        add_contracts(&newer).with_context(|| format!("contracts.folder {}", folder.display()))
    }
}

/// Keeps what breaks its contract in the vault, as its principal's.
#[derive(Debug)]
pub(crate) struct InVault(pub(crate) Vault);

impl KeepsRejected for InVault {
    fn keep(&self, tenant: Option<&str>, principal: &str, whole: &[u8]) -> Option<Reference> {
        let whose = Subject { tenant: tenant.map(ToOwned::to_owned), name: principal.to_owned() };
        Some(self.0.keep(&whose, whole, "application/json", true).reference)
    }
}

/// `cairn contract`
#[derive(Subcommand)]
pub(crate) enum ContractCommand {
    /// Holds a folder of contracts to the rule that their versions keep, and says who would notice where they do not.
    #[command(after_help = "Example: cairn contract check contracts\nExit code 1 where a rule is broken")]
    Check {
        /// The folder, `<event>/v<N>.json`; those of this version where absent.
        folder: Option<PathBuf>,
        /// JSON for machines.
        #[arg(long)]
        json: bool,
    },
    /// Says what differs between two versions of a contract.
    #[command(after_help = "Example: cairn contract diff call.outcome 1 2")]
    Diff {
        /// The event type.
        event: String,
        /// The older version; the one before the newest where absent.
        old: Option<u32>,
        /// The newer one; the newest where absent.
        new: Option<u32>,
        /// A folder with contracts besides those of this version.
        #[arg(long)]
        folder: Option<PathBuf>,
        /// JSON for machines.
        #[arg(long)]
        json: bool,
    },
    /// Prints a page about all contracts, as Markdown.
    #[command(after_help = "Example: cairn contract docs > contracts.md")]
    Docs,
    /// Lists events that broke their contract.
    #[command(after_help = "Example: cairn contract rejected")]
    Rejected {
        #[command(flatten)]
        reading: Reading,
    },
    /// Repairs a refused event and puts it back under its own id.
    #[command(
        after_help = "Example: CAIRN_OPERATOR_TOKEN=… cairn contract repair 01996b5e-… --set /data/cost_center='\"4711\"'\nAs it is, once the contract that refused it is rolled back: cairn contract repair 01996b5e-…"
    )]
    Repair(RepairArguments),
}

/// What `contract repair` is told.
#[derive(clap::Args)]
pub(crate) struct RepairArguments {
    /// The id that the refused event would have had: `rejected_id` of `event.rejected`.
    id: String,
    /// A JSON pointer into the refused event, and the JSON that is to stand there.
    #[arg(long, value_name = "POINTER=JSON")]
    set: Vec<String>,
    /// A JSON pointer to what is to go.
    #[arg(long, value_name = "POINTER")]
    remove: Vec<String>,
    /// Why, for the record.
    #[arg(long)]
    reason: Option<String>,
    /// The digest of what was refused, as `event.rejected` has it; looked up in the trail where absent.
    #[arg(long)]
    digest: Option<String>,
    #[command(flatten)]
    admin: ask::AdminArguments,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub(crate) async fn run(command: ContractCommand) -> anyhow::Result<()> {
    match command {
        ContractCommand::Check { folder, json } => check(folder.as_deref(), json),
        ContractCommand::Diff { event, old, new, folder, json } => diff(&event, old, new, folder.as_deref(), json),
        ContractCommand::Docs => {
            say::line(format_args!("{}", contract_page::page().trim_end()));
            Ok(())
        }
        ContractCommand::Rejected { reading } => rejected(&reading).await,
        ContractCommand::Repair(arguments) => repair(arguments).await,
    }
}

/// The contracts of a folder, by event type and version.
fn versions_in(folder: &Path) -> anyhow::Result<BTreeMap<EventType, BTreeMap<u32, String>>> {
    let mut all: BTreeMap<EventType, BTreeMap<u32, String>> = BTreeMap::new();
    let failed = || format!("cannot read {}", folder.display());
    for entry in fs::read_dir(folder).with_context(failed)? {
        let path = entry.with_context(failed)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !path.is_dir() {
            continue;
        }
        let mut versions = BTreeMap::new();
        for file in fs::read_dir(&path).with_context(|| format!("cannot read {}", path.display()))? {
            let file = file?.path();
            let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let number = stem.strip_prefix('v').and_then(|number| number.parse::<u32>().ok()).filter(|n| *n > 0);
            let Some(version) = number.filter(|_| file.extension().is_some_and(|ending| ending == "json")) else {
                continue;
            };
            if fs::metadata(&file)?.len() > FILE_BYTES_MAX {
                bail!("{} is longer than {FILE_BYTES_MAX} bytes", file.display());
            }
            let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            versions.insert(version, text);
        }
        if versions.is_empty() {
            continue;
        }
        let event_type = EventType::named(&name)
            .with_context(|| format!("{}: no event of Cairn's is called {name:?}", path.display()))?;
        all.insert(event_type, versions);
    }
    Ok(all)
}

/// Whether a text says what a published contract says, whatever its layout.
fn is_same(known: &Contract, text: &str) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    parsed(known.schema).is_some_and(|known| parsed(text) == Some(known))
}

/// One thing that is wrong with a contract.
struct Wrong {
    event: &'static str,
    version: u32,
    at: String,
    what: String,
    readers: Vec<String>,
}

fn check(folder: Option<&Path>, as_json: bool) -> anyhow::Result<()> {
    let given = folder.map(versions_in).transpose()?.unwrap_or_default();
    let readers = Readers::known();
    let (mut wrong, mut looked_at) = (Vec::new(), 0);
    for event_type in EventType::ALL {
        let event = event_type.name();
        let mut versions: BTreeMap<u32, String> =
            embedded(event_type).iter().map(|known| (known.version, known.schema.to_owned())).collect();
        let none = BTreeMap::new();
        for (version, text) in given.get(&event_type).unwrap_or(&none) {
            let published = embedded(event_type).into_iter().find(|known| known.version == *version);
            if published.is_some_and(|known| !is_same(&known, text)) {
                let what = "is published, and this is another text: publish a next version".to_owned();
                wrong.push(Wrong { event, version: *version, at: String::new(), what, readers: Vec::new() });
            }
            versions.insert(*version, text.clone());
        }
        let mut before: Option<Value> = None;
        for (place, (version, text)) in (1..).zip(&versions) {
            looked_at += 1;
            let mut say = |at: String, what: String| {
                let readers = readers.of(event, &at).into_iter().map(ToOwned::to_owned).collect();
                wrong.push(Wrong { event, version: *version, at, what, readers });
            };
            if *version != place {
                say(String::new(), format!("follows on {}: versions are numbered without gaps", place - 1));
            }
            let schema: Value = match serde_json::from_str(text) {
                Ok(schema) => schema,
                Err(error) => {
                    say(String::new(), format!("is no JSON: {error}"));
                    continue;
                }
            };
            alone(event, *version, &schema, &mut say);
            if let Some(before) = &before {
                for found in differences(before, &schema).into_iter().filter(|found| found.breaks) {
                    say(found.at, found.what);
                }
            }
            before = Some(schema);
        }
    }
    if as_json {
        let of = |one: &Wrong| json!({ "event": one.event, "version": one.version, "at": one.at, "what": one.what, "readers": one.readers });
        let list: Vec<Value> = wrong.iter().map(of).collect();
        say::line(format_args!("{}", json!({ "contracts": looked_at, "broken": list })));
    } else {
        for one in &wrong {
            let readers =
                if one.readers.is_empty() { String::new() } else { format!("; read by {}", one.readers.join(", ")) };
            say::line(format_args!("{} v{} {}: {}{readers}", one.event, one.version, one.at, say::plain(&one.what)));
        }
        say::line(format_args!("{looked_at} contracts, {} broken rules", wrong.len()));
    }
    if wrong.is_empty() { Ok(()) } else { bail!("contracts break {} rules", wrong.len()) }
}

/// What a contract must say by itself.
fn alone(event: &str, version: u32, schema: &Value, say: &mut impl FnMut(String, String)) {
    let uri = format!("urn:cairn:contracts/{event}/v{version}.json");
    if schema["$id"] != uri {
        say(String::new(), format!("$id is {uri}"));
    }
    for annotation in ANNOTATIONS {
        if schema[annotation].as_str().is_none_or(str::is_empty) {
            say(String::new(), format!("says nothing under {annotation}"));
        }
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        for annotation in ["description", "x-sensitivity", "x-inline"] {
            if property[annotation].as_str().is_none_or(str::is_empty) {
                say(format!("/{name}"), format!("says nothing under {annotation}"));
            }
        }
    }
    let validator = match Validator::compile(schema) {
        Ok(validator) => validator,
        Err(error) => return say(error.at, error.what),
    };
    let examples = schema["examples"].as_array().map(Vec::as_slice).unwrap_or_default();
    if examples.is_empty() {
        say(String::new(), "has no example".to_owned());
    }
    for (place, example) in examples.iter().enumerate() {
        for fault in validator.faults(example) {
            say(fault.at, format!("example {place} {}", fault.what));
        }
    }
}

fn diff(event: &str, old: Option<u32>, new: Option<u32>, folder: Option<&Path>, as_json: bool) -> anyhow::Result<()> {
    let none = || Ending::NoSuch(format!("there is no event {event:?}: `cairn contract docs` lists them"));
    let event_type = EventType::named(event).ok_or_else(none)?;
    let mut versions: BTreeMap<u32, String> =
        embedded(event_type).iter().map(|known| (known.version, known.schema.to_owned())).collect();
    if let Some(folder) = folder {
        versions.extend(versions_in(folder)?.remove(&event_type).unwrap_or_default());
    }
    let newest = versions.keys().next_back().copied().unwrap_or(1);
    let new = new.unwrap_or(newest);
    let old = old.unwrap_or(new.saturating_sub(1));
    let schema = |version: u32| -> anyhow::Result<Value> {
        let none = || Ending::NoSuch(format!("{event} has the versions 1 to {newest}, not {version}"));
        let text = versions.get(&version).ok_or_else(none)?;
        serde_json::from_str(text).with_context(|| format!("{event} v{version} is no JSON"))
    };
    let found = differences(&schema(old)?, &schema(new)?);
    let readers = Readers::known();
    if as_json {
        let of = |one: &cairn_contract::Difference| json!({ "at": one.at, "what": one.what, "breaks": one.breaks, "readers": readers.of(event, &one.at) });
        let list: Vec<Value> = found.iter().map(of).collect();
        say::line(format_args!("{}", json!({ "event": event, "old": old, "new": new, "differences": list })));
        return Ok(());
    }
    for one in &found {
        let breaks =
            if one.breaks { format!("  BREAKS {}", readers.of(event, &one.at).join(", ")) } else { String::new() };
        say::line(format_args!("{} {}{}", one.at, say::plain(&one.what), breaks.trim_end()));
    }
    say::line(format_args!("{event} v{old} to v{new}: {} differences", found.len()));
    Ok(())
}

/// The refused events of the trail.
async fn all_rejected(source: read::Source) -> anyhow::Result<Vec<Value>> {
    let found = tokio::task::spawn_blocking(move || {
        let wanted = |topic: &str| Topic::of_anybody(topic) == Some(Topic::Rejected);
        let all = read::all_in(&source, wanted)?;
        Ok::<_, anyhow::Error>(all.iter().map(with_time).collect::<Vec<_>>())
    });
    found.await?
}

fn with_time(placed: &read::Placed) -> Value {
    let mut value = placed.event.value.clone();
    value["time"] = json!(placed.event.time);
    value
}

async fn rejected(reading: &Reading) -> anyhow::Result<()> {
    let all = all_rejected(reading.source()?).await?;
    if reading.json {
        say::line(format_args!("{}", json!({ "rejected": all })));
        return Ok(());
    }
    if all.is_empty() {
        say::line(format_args!("no event has broken its contract"));
    }
    for one in &all {
        let text = |key: &str| say::plain(one[key].as_str().unwrap_or_default());
        say::line(format_args!(
            "{} {} v{} {}\n  {}",
            text("time"),
            text("rejected_type"),
            one["rejected_version"],
            text("rejected_id"),
            text("reason")
        ));
    }
    Ok(())
}

async fn repair(arguments: RepairArguments) -> anyhow::Result<()> {
    let RepairArguments { id, set, remove, reason, digest, admin, json: as_json } = arguments;
    let mut changes = Vec::with_capacity(set.len() + remove.len());
    for one in &set {
        let (at, text) = one.split_once('=').with_context(|| format!("--set {one}: write POINTER=JSON"))?;
        let value: Value = serde_json::from_str(text).with_context(|| format!("--set {at}: the value is no JSON"))?;
        changes.push(json!({ "at": at, "value": value }));
    }
    changes.extend(remove.iter().map(|at| json!({ "at": at })));
    let digest = match digest {
        Some(digest) => digest,
        None => {
            let all = all_rejected(admin.trail()?).await?;
            let none =
                || Ending::NoSuch(format!("mcp.rejected names no event {id}: `cairn contract rejected` lists them"));
            let found = all.iter().find(|one| one["rejected_id"] == *id).ok_or_else(none)?;
            let digest = found["event"]["digest"].as_str();
            digest.context("what was refused was not kept, so there is nothing to put back")?.to_owned()
        }
    };
    let operator = std::env::var("USER").unwrap_or_else(|_| "operator".to_owned());
    let body = json!({ "id": id, "digest": digest, "changes": changes, "reason": reason, "operator": operator });
    let done = admin.find()?.send("POST", "/rejected/repair", Some(body)).await?;
    match as_json {
        true => say::line(format_args!("{done}")),
        false => say::line(format_args!(
            "{id} is recorded: {} {} {}",
            say::plain(done["topic"].as_str().unwrap_or_default()),
            done["partition"],
            done["offset"]
        )),
    }
    Ok(())
}
