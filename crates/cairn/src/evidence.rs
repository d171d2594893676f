//! Evidence in this process and on the command line: `[evidence]`, the collector that `up` runs, and `cairn evidence …`.
//!
//! The work is done in `cairn-evidence`; here it is wired. A collector that cannot start or fails stops nothing else.

use std::{
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_backbone::{Recorder, reader::ReaderOptions};
use cairn_clock::{Clock, Entropy};
use cairn_evidence::{
    Collector, KeyFolder, LogStore, NOTE_BYTES_MAX, Note, Options, PRODUCERS_MAX, Status, VerifierKey, Witness,
    export::{self, Selection},
};
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::json;

use crate::{acts, config::Config, ending::Ending, folder, read::Source, say, trust::TrustArguments};

const RECORDS_DEFAULT: usize = 10_000;
const INTERVAL_MS_DEFAULT: u64 = 10_000;
/// Faster than this the checkpoints would outgrow the trail.
const INTERVAL_MS_MIN: u64 = 100;
const WITNESSES_MAX: usize = 16;

/// `[evidence]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EvidenceSection {
    enabled: bool,
    key_file: Option<PathBuf>,
    name: Option<String>,
    records_max: usize,
    interval_ms: u64,
    witnesses: Vec<WitnessSection>,
    producers: Vec<String>,
}

impl Default for EvidenceSection {
    fn default() -> Self {
        Self {
            enabled: true,
            key_file: None,
            name: None,
            records_max: RECORDS_DEFAULT,
            interval_ms: INTERVAL_MS_DEFAULT,
            witnesses: Vec::new(),
            producers: Vec::new(),
        }
    }
}

/// `[[evidence.witnesses]]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct WitnessSection {
    key: String,
    url: Option<String>,
}

impl EvidenceSection {
    /// Who is asked to cosign.
    pub(crate) fn witnesses(&self) -> anyhow::Result<Vec<Witness>> {
        if self.witnesses.len() > WITNESSES_MAX {
            bail!("evidence.witnesses names {}: name at most {WITNESSES_MAX}", self.witnesses.len());
        }
        let witness = |section: &WitnessSection| {
            let key = VerifierKey::parse(&section.key).context("evidence.witnesses: key")?;
            if !key.is_witness() {
                bail!(
                    "evidence.witnesses: {} is a log's key: a witness's is of type 4, its part behind the second + begins with B",
                    key.name
                );
            }
            let url = section.url.clone();
            if url.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
                bail!("evidence.witnesses: the url of {} begins with http:// or https://", key.name);
            }
            Ok(Witness { key, url })
        };
        self.witnesses.iter().map(witness).collect()
    }

    /// Refuses what makes no sense.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if self.records_max == 0 || self.records_max > cairn_evidence::WAITING_MAX {
            bail!("evidence.records_max is {}: set it between 1 and {}", self.records_max, cairn_evidence::WAITING_MAX);
        }
        if self.interval_ms < INTERVAL_MS_MIN {
            bail!("evidence.interval_ms is {}: set it to at least {INTERVAL_MS_MIN}", self.interval_ms);
        }
        if self.producers.len() > PRODUCERS_MAX {
            bail!("evidence.producers names {}: name at most {PRODUCERS_MAX}", self.producers.len());
        }
        if self.producers.iter().any(|id| id.is_empty() || id.len() > 100 || id.contains(char::is_whitespace)) {
            bail!("evidence.producers: name each gateway by the id in gateway/gateway-id of its data folder");
        }
        self.witnesses().map(drop)
    }

    fn keys(&self, data: &Path) -> KeyFolder {
        KeyFolder::new(data.join("evidence"), self.key_file.as_ref().map(|path| data.join(path)))
    }

    /// What the collector will need, unless the configuration says that there is none.
    pub(crate) fn prepare(
        &self,
        data: &Path,
        reading: ReaderOptions,
        recorder: Recorder,
        producer: (String, u64),
        (clock, entropy): (Clock, Entropy),
    ) -> anyhow::Result<Option<Evidence>> {
        if !self.enabled {
            return Ok(None);
        }
        let options = Options {
            folder: data.join("evidence"),
            key_file: self.key_file.as_ref().map(|path| data.join(path)),
            name: self.name.clone(),
            bootstrap: reading.bootstrap,
            properties: reading.properties,
            records_max: self.records_max,
            interval: Duration::from_millis(self.interval_ms),
            witnesses: self.witnesses()?,
            producer,
            others: self.producers.clone(),
        };
        Ok(Some(Evidence { options, recorder, clock, entropy, status: Status::default() }))
    }
}

/// The evidence of this process, before it is collected.
pub(crate) struct Evidence {
    options: Options,
    recorder: Recorder,
    clock: Clock,
    entropy: Entropy,
    status: Status,
}

impl Evidence {
    /// Says whose events follow, before the first of them; where that fails the collector tries again.
    pub(crate) async fn vouch(&self) {
        let Self { options, recorder, clock, entropy, status } = self;
        if let Err(error) = cairn_evidence::vouch(options, recorder, (clock, entropy), status).await {
            eprintln!("cairn: no evidence is made yet: {error}; calls go on");
        }
    }

    /// Its figures.
    pub(crate) fn status(&self) -> Status {
        self.status.clone()
    }

    /// Begins to collect.
    pub(crate) fn start(self) -> Collector {
        Collector::start(self.options, self.recorder, (self.clock, self.entropy), self.status)
    }
}

#[derive(Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Prints the key that verifies this trail: give it to whoever shall verify.
    #[command(after_help = "Example: cairn evidence key > audit.vkey")]
    Key(Place),
    /// Makes a new signing key, which the old one vouches for; a running `up` goes over to it.
    #[command(after_help = "Example: cairn evidence rotate")]
    Rotate(Place),
    /// Prints the last signed checkpoint of each partition, or of one: to keep, or to have cosigned.
    #[command(after_help = "Example: cairn evidence checkpoint --topic mcp.calls --partition 3 > kept.note")]
    Checkpoint {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        partition: PartitionArguments,
    },
    /// Takes a checkpoint that a witness of the configuration has cosigned; a running `up` publishes it.
    #[command(after_help = "Example: cairn evidence cosigned kept.note")]
    Cosigned {
        /// The cosigned note.
        note: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Writes the proof of one record, in the tlog-proof form.
    #[command(after_help = "Example: cairn evidence proof --topic mcp.calls --partition 3 --offset 17 > 17.tlog-proof")]
    Proof {
        #[command(flatten)]
        place: Place,
        /// The Kafka address; that of the running `up` where absent.
        #[arg(long)]
        bootstrap: Option<String>,
        #[command(flatten)]
        tls: TrustArguments,
        /// The topic.
        #[arg(long)]
        topic: String,
        /// The partition.
        #[arg(long)]
        partition: u32,
        /// The record's offset.
        #[arg(long)]
        offset: u64,
    },
    /// Writes records with their proofs into one file, which `cairn verify FILE` checks anywhere.
    #[command(
        after_help = "Example: cairn evidence export --workflow refund-4711 -o refund.bundle\nExample: cairn evidence export --topic mcp.calls --partition 3 --from 100 --to 200 -o calls.bundle"
    )]
    Export(ExportArguments),
}

/// Where the evidence lies.
#[derive(Args)]
pub(crate) struct Place {
    /// The data folder.
    #[arg(long, env = "CAIRN_DATA")]
    data: Option<PathBuf>,
    /// The configuration, where it names the key's file; `cairn.toml` of the data folder where absent.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Which partition.
#[derive(Args)]
pub(crate) struct PartitionArguments {
    /// The topic.
    #[arg(long)]
    topic: Option<String>,
    /// The partition.
    #[arg(long)]
    partition: Option<u32>,
}

#[derive(Args)]
pub(crate) struct ExportArguments {
    #[command(flatten)]
    place: Place,
    /// The Kafka address; that of the running `up` where absent.
    #[arg(long)]
    bootstrap: Option<String>,
    #[command(flatten)]
    tls: TrustArguments,
    /// Every event of this workflow.
    #[arg(long, conflicts_with_all = ["topic", "partition", "from", "to"], required_unless_present = "topic")]
    workflow: Option<String>,
    /// The records of this topic,
    #[arg(long, requires = "partition")]
    topic: Option<String>,
    /// of this partition,
    #[arg(long)]
    partition: Option<u32>,
    /// from this offset on,
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// before this one; up to the last checkpoint where absent.
    #[arg(long)]
    to: Option<u64>,
    /// The file.
    #[arg(short, long)]
    out: PathBuf,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

impl Place {
    /// The data folder, and what the configuration says of evidence.
    fn find(&self) -> anyhow::Result<(PathBuf, EvidenceSection)> {
        let data = self.data.clone().map_or_else(folder::default_path, Ok)?;
        let path = self.config.clone().or_else(|| Some(data.join("cairn.toml")).filter(|path| path.is_file()));
        let section = path.map(|path| Config::read_evidence(&path)).transpose()?.unwrap_or_default();
        Ok((data, section))
    }
}

/// The first key that whoever verifies on this machine may take, where there is one, and the rotations to the present one.
pub(crate) fn own_key(data: Option<PathBuf>, config: Option<PathBuf>) -> anyhow::Result<Option<(String, Vec<String>)>> {
    let (data, section) = Place { data, config }.find()?;
    Ok(section.keys(&data).load().ok().map(|keys| (keys.first().to_string(), keys.rotations)))
}

/// Runs a command of `cairn evidence`; blocks.
pub(crate) fn run(command: EvidenceCommand) -> anyhow::Result<()> {
    match command {
        EvidenceCommand::Key(place) => {
            let (data, section) = place.find()?;
            let keys = section.keys(&data).load().with_context(|| {
                format!(
                    "no evidence has been made in {} yet: start `cairn up`, or name another folder with --data",
                    data.display()
                )
            })?;
            say::line(format_args!("{}", keys.first()));
        }
        EvidenceCommand::Rotate(place) => {
            let (data, section) = place.find()?;
            let rotate = || section.keys(&data).rotate(&Clock::system(), &Entropy::system());
            let note = acts::kept(&data, "evidence.rotate", None, rotate)?;
            say::line(format_args!("{}", note.trim_end()));
        }
        EvidenceCommand::Checkpoint { place, partition } => {
            let (data, _) = place.find()?;
            let wanted = |log: &&LogStore| {
                let identity = &log.state().identity;
                partition.topic.as_ref().is_none_or(|topic| *topic == identity.topic)
                    && partition.partition.is_none_or(|number| number == identity.partition)
                    && !log.state().note.is_empty()
            };
            let logs = export::logs(&data.join("evidence"))?;
            let notes: Vec<_> = logs.iter().filter(wanted).map(|log| log.state().note.trim_end()).collect();
            if notes.is_empty() {
                return Err(Ending::NoSuch("no checkpoint of that has been signed yet".to_owned()).into());
            }
            say::line(format_args!("{}", notes.join("\n\n")));
        }
        EvidenceCommand::Cosigned { note, place } => {
            let (data, section) = place.find()?;
            let size = std::fs::metadata(&note).with_context(|| format!("cannot read {}", note.display()))?.len();
            if size > NOTE_BYTES_MAX as u64 {
                bail!("{} is no note: it is too large", note.display());
            }
            let text = std::fs::read_to_string(&note).with_context(|| format!("cannot read {}", note.display()))?;
            let parsed = Note::parse(&text).with_context(|| format!("{}", note.display()))?;
            let witnesses = section.witnesses()?;
            if cairn_evidence::cosignatures(&parsed, &witnesses).is_empty() {
                bail!(
                    "{} has no valid signature of a witness that the configuration names: see [[evidence.witnesses]]",
                    note.display()
                );
            }
            let inbox = data.join("evidence").join("inbox");
            std::fs::create_dir_all(&inbox)?;
            let mut name = [0; 8];
            Entropy::system().fill(&mut name);
            folder::replace(&inbox.join(format!("{}.note", hex::encode(name))), text.as_bytes())?;
            eprintln!("cairn: taken; a running `cairn up` publishes it within seconds");
        }
        EvidenceCommand::Proof { place, bootstrap, tls, topic, partition, offset } => {
            let (data, _) = place.find()?;
            let logs = export::logs(&data.join("evidence"))?;
            let of =
                |log: &&LogStore| log.state().identity.topic == topic && log.state().identity.partition == partition;
            let log = logs
                .iter()
                .rfind(of)
                .ok_or_else(|| Ending::NoSuch(format!("there is no evidence of {topic}/{partition}")))?;
            let index = log.index_at(offset)?;
            if index >= log.state().size || log.leaf(index)?.0 != offset {
                let error = cairn_evidence::StoreError::NotThere {
                    offset,
                    origin: log.state().identity.origin(),
                    end: log.state().offset_next,
                };
                return Err(Ending::NoSuch(error.to_string()).into());
            }
            let source = Source::find(bootstrap, place.config.as_deref(), Some(data.clone()), &tls)?;
            let Some(proof) = export::proof(log, &source.records()?, index)? else {
                bail!(
                    "{topic}/{partition}: the record at offset {offset} is not the one that was signed: `cairn verify` shows what differs"
                );
            };
            say::line(format_args!("{}", proof.trim_end()));
        }
        EvidenceCommand::Export(arguments) => return write_bundle(arguments),
    }
    Ok(())
}

fn write_bundle(arguments: ExportArguments) -> anyhow::Result<()> {
    let ExportArguments { place, bootstrap, tls, workflow, topic, partition, from, to, out, json } = arguments;
    let (data, section) = place.find()?;
    let selection = match (workflow, topic, partition) {
        (Some(workflow), ..) => Selection::Workflow(workflow),
        (None, Some(topic), Some(partition)) => Selection::Range { topic, partition, from, to },
        _ => bail!("say what to export: --workflow ID, or --topic with --partition"),
    };
    let source = Source::find(bootstrap, place.config.as_deref(), Some(data.clone()), &tls)?;
    let records = source.records()?;
    let mut fresh = out.clone().into_os_string();
    fresh.push(".part");
    let fresh = PathBuf::from(fresh);
    let file = std::fs::File::create(&fresh).with_context(|| format!("cannot write {}", fresh.display()))?;
    let mut writer = BufWriter::new(file);
    let key_file = section.key_file.as_ref().map(|path| data.join(path));
    let exported = export::export(&data.join("evidence"), key_file, &records, &selection, &mut writer);
    let exported = exported.and_then(|exported| {
        writer.flush()?;
        std::fs::rename(&fresh, &out)?;
        Ok(exported)
    });
    let exported = exported.inspect_err(|_| {
        // What is half written is no bundle.
        let _ = std::fs::remove_file(&fresh);
    });
    let exported = match exported {
        Err(export::ExportError::Nothing(words)) => return Err(Ending::NoSuch(words).into()),
        exported => exported?,
    };
    if json {
        say::line(format_args!("{}", json!({ "file": out, "records": exported.records, "hidden": exported.hidden })));
    } else {
        let hidden = exported.hidden;
        say::line(format_args!(
            "{}: {} records, and {hidden} of other workflows by digest",
            out.display(),
            exported.records
        ));
    }
    Ok(())
}
