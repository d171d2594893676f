//! `cairn verify`: reads a trail by the Kafka protocol, or a bundle, and hands it to `cairn-verify`.
//!
//! Only the reading happens here. What is found decides the exit code; nothing here may soften a finding.

use std::{
    collections::{BTreeMap, HashMap},
    io::{BufReader, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_backbone::records::{Bounded, RawRecord, Records};
use cairn_contract::partition_for;
use cairn_verify::{CHECKPOINTS, Key, Report, Trail, Trust, check_file};
use clap::Args;
use tokio::time::Instant;

use crate::{
    checkers::{Checkers, with},
    ending::Ending,
    evidence,
    read::Source,
    say,
    trust::TrustArguments,
};

/// Bytes of a kept checkpoint's or a key's file.
const SMALL_BYTES_MAX: u64 = 128 * 1024;
/// How long the backbone may be silent.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// What `verify` is told.
#[derive(Args)]
pub(crate) struct VerifyArguments {
    /// A bundle that `cairn evidence export` wrote, or a proof of `cairn evidence proof`; without one the trail itself is read.
    bundle: Option<PathBuf>,
    /// The key that you trust, or a file that holds it; that of the data folder where absent.
    #[arg(long)]
    key: Vec<String>,
    /// A witness's key, or a file that holds it.
    #[arg(long)]
    witness: Vec<String>,
    /// How many of the witnesses must have cosigned; all where absent.
    #[arg(long)]
    quorum: Option<usize>,
    /// Rotations of keys, as `cairn evidence rotate` prints them, for a proof that a later key signed.
    #[arg(long, value_name = "FILE")]
    rotation: Vec<PathBuf>,
    /// A checkpoint that you kept from before: the trail must extend it.
    #[arg(long, value_name = "FILE")]
    checkpoint: Vec<PathBuf>,
    /// Only this topic.
    #[arg(long, conflicts_with = "bundle")]
    topic: Option<String>,
    /// Only this partition.
    #[arg(long, requires = "topic")]
    partition: Option<u32>,
    /// Only from this offset on.
    #[arg(long, requires = "partition", default_value_t = 0)]
    from: u64,
    /// Only before this offset.
    #[arg(long, requires = "partition")]
    to: Option<u64>,
    /// Only the partitions that hold this workflow.
    #[arg(long, conflicts_with_all = ["bundle", "topic"])]
    workflow: Option<String>,
    /// The Kafka address; that of the configuration or of the running `up` where absent.
    #[arg(long, conflicts_with = "bundle")]
    bootstrap: Option<String>,
    /// The configuration whose backbone to read, with its properties.
    #[arg(long)]
    config: Option<PathBuf>,
    /// The data folder of the running `up`.
    #[arg(long, env = "CAIRN_DATA")]
    data: Option<PathBuf>,
    #[command(flatten)]
    tls: TrustArguments,
    /// JSON for machines.
    #[arg(long)]
    json: bool,
}

/// Verifies, and prints what came of it; blocks.
pub(crate) fn run(arguments: &VerifyArguments) -> anyhow::Result<()> {
    let trust = trust(arguments)?;
    let kept = arguments.checkpoint.iter().map(|path| small(path)).collect::<anyhow::Result<Vec<_>>>()?;
    let kept: Vec<String> = kept.iter().flat_map(|text| notes(text)).collect();
    let report = match &arguments.bundle {
        Some(path) => {
            let file =
                std::fs::File::open(path).with_context(|| format!("cannot read the bundle {}", path.display()))?;
            check_file(BufReader::new(file), trust, &kept).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => read_trail(arguments, trust, &kept)?,
    };
    if arguments.json {
        say::line(format_args!("{}", serde_json::to_string(&report)?));
    } else {
        let text = report.to_string();
        text.lines().for_each(|line| say::line(format_args!("{}", say::plain(line))));
    }
    if report.ok {
        Ok(())
    } else {
        Err(Ending::NotVerified(report.findings.len() as u64 + report.findings_more).into())
    }
}

fn trust(arguments: &VerifyArguments) -> anyhow::Result<Trust> {
    let mut keys = read_keys(&arguments.key)?;
    let mut followed = Vec::new();
    if keys.is_empty() {
        let Some((key, rotations)) = evidence::own_key(arguments.data.clone(), arguments.config.clone())? else {
            bail!("no key to trust: give the one that `cairn evidence key` prints where the trail is made, with --key");
        };
        eprintln!(
            "cairn: the key is taken from the data folder: that shows whether the trail is consistent, not that its operator is honest; with --key you say whom you trust"
        );
        keys = read_keys(&[key])?;
        followed = rotations;
    }
    for path in &arguments.rotation {
        followed.extend(notes(&small(path)?));
    }
    let witnesses = read_keys(&arguments.witness)?;
    if let Some(key) = witnesses.iter().find(|key| !key.is_witness()) {
        bail!("--witness {key} is a log's key: a witness's is of type 4, for timestamped cosignatures");
    }
    let quorum = arguments.quorum.unwrap_or(witnesses.len());
    if quorum > witnesses.len() {
        bail!("--quorum {quorum} is more than the {} witnesses that are named", witnesses.len());
    }
    let mut trust = Trust::new(keys, witnesses, quorum);
    for note in followed {
        trust.follow(&note).map_err(anyhow::Error::msg).context("--rotation")?;
    }
    Ok(trust)
}

fn read_keys(given: &[String]) -> anyhow::Result<Vec<Key>> {
    let mut keys = Vec::new();
    for text in given {
        // A key holds two plus signs; a file's name hardly does, and is tried where the text is no key.
        match Key::parse(text) {
            Ok(key) => keys.push(key),
            Err(_) if Path::new(text).is_file() => {
                for line in small(Path::new(text))?.lines().filter(|line| !line.trim().is_empty()) {
                    keys.push(Key::parse(line).map_err(anyhow::Error::msg).with_context(|| text.clone())?);
                }
            }
            Err(error) => bail!("{error}, or the name of a file that holds one"),
        }
    }
    Ok(keys)
}

fn small(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(SMALL_BYTES_MAX).read_to_string(&mut text).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text)
}

/// A file may hold several notes, as `cairn evidence checkpoint` prints them: each is a text, an empty line and signatures.
fn notes(text: &str) -> Vec<String> {
    let blocks: Vec<_> = text.trim_end().split("\n\n").collect();
    blocks.chunks(2).map(|pair| format!("{}\n", pair.join("\n\n"))).collect()
}

fn read_trail(arguments: &VerifyArguments, trust: Trust, kept: &[String]) -> anyhow::Result<Report> {
    let VerifyArguments { bootstrap, config, data, tls, .. } = arguments;
    let source = Source::find(bootstrap.clone(), config.as_deref(), data.clone(), tls)?;
    let records = source.records()?;
    let ids = records.topic_ids();
    let is_trail = |topic: &str| cairn_evidence::is_covered(topic) || topic == CHECKPOINTS;
    let nobody = |error| {
        Ending::NobodyThere(format!(
            "no Kafka broker answers at {}: start `cairn up`, or name another with --bootstrap ({error})",
            source.bootstrap
        ))
    };
    let first = records.partitions(|topic| topic == CHECKPOINTS).map_err(nobody)?;
    let mut trail = Trail::new(trust);
    kept.iter().for_each(|note| trail.keep(note));
    let mut reports = Vec::new();
    for Bounded { topic, partition, start, end } in &first {
        let mut checker = trail.plan(topic, *partition, None).checker(0, *start);
        read(&records, vec![(topic.clone(), *partition, *start, *end)], |record| {
            with(&record, |record| {
                trail.record(record);
                checker.record(record);
            });
        })?;
        if arguments.topic.as_ref().is_none_or(|wanted| wanted == topic) && arguments.workflow.is_none() {
            reports.push(checker.finish(*end, false));
        }
    }
    // Whatever a checkpoint covers was there before it: the ends are asked for only now.
    let mut partitions = records.partitions(is_trail).map_err(nobody)?;
    partitions.retain(|bounded| bounded.topic != CHECKPOINTS);
    // A topic that checkpoints speak of and that is not there at all.
    for (topic, partition) in trail.places() {
        if topic != CHECKPOINTS && !partitions.iter().any(|known| known.topic == topic && known.partition == partition)
        {
            partitions.push(Bounded { topic, partition, start: 0, end: 0 });
        }
    }
    let counts = partitions.iter().fold(BTreeMap::new(), |mut counts: BTreeMap<String, u32>, bounded| {
        *counts.entry(bounded.topic.clone()).or_default() += 1;
        counts
    });
    partitions.retain(|Bounded { topic, partition, .. }| {
        let in_topic = arguments.topic.as_ref().is_none_or(|wanted| wanted == topic);
        let in_partition = arguments.partition.is_none_or(|wanted| wanted == *partition);
        let holds = arguments
            .workflow
            .as_ref()
            .is_none_or(|id| counts[topic] > 1 && partition_for(id.as_bytes(), counts[topic]) == *partition);
        in_topic && in_partition && holds
    });
    let is_partial = arguments.to.is_some();
    let (mut checkers, mut wanted) = (Vec::new(), Vec::new());
    for Bounded { topic, partition, start, end } in partitions {
        let id = ids.get(&topic).map(ToString::to_string);
        let plan = trail.plan(&topic, partition, id.as_deref());
        let begin = plan.begin(arguments.from, start);
        let until = arguments.to.map_or(end, |to| plan.until(to, end));
        checkers.push(((topic.clone(), partition), plan.checker(arguments.from, start), until));
        wanted.push((topic, partition, begin, until));
    }
    let mut checkers = Checkers::start(checkers, is_partial);
    read(&records, wanted, |record| checkers.take(record))?;
    reports.extend(checkers.finish());
    // Who began to write meanwhile is vouched for behind what was read at first.
    for Bounded { topic, partition, end, .. } in &first {
        let (_, now) = records.bounds(topic, *partition).map_err(nobody)?;
        read(&records, vec![(topic.clone(), *partition, *end, now)], |record| {
            with(&record, |record| trail.late(record))
        })?;
    }
    let what = match &arguments.workflow {
        Some(id) => format!("the partitions of workflow {id} at {}", source.bootstrap),
        None => format!("the trail at {}", source.bootstrap),
    };
    Ok(trail.finish(what, reports))
}

/// Reads partitions from an offset to an end each.
fn read(
    records: &Records,
    wanted: Vec<(String, u32, u64, u64)>,
    mut take: impl FnMut(RawRecord),
) -> anyhow::Result<()> {
    let mut left: HashMap<(String, u32), u64> = HashMap::new();
    let wanted: Vec<_> = wanted.into_iter().filter(|(_, _, begin, end)| begin < end).collect();
    records.assign(wanted.iter().map(|(topic, partition, begin, _)| (topic.as_str(), *partition, *begin)))?;
    left.extend(wanted.into_iter().map(|(topic, partition, _, end)| ((topic, partition), end)));
    let mut heard = Instant::now();
    while !left.is_empty() {
        match records.poll(Duration::from_millis(100))? {
            Some(record) => {
                heard = Instant::now();
                let place = (record.topic.clone(), record.partition);
                let Some(end) = left.get(&place).copied() else { continue };
                if record.offset + 1 >= end {
                    left.remove(&place);
                }
                if record.offset < end {
                    take(record);
                }
            }
            None if heard.elapsed() > SILENT_MAX => {
                return Err(
                    Ending::NobodyThere("the broker stopped answering in the middle of the trail".to_owned()).into()
                );
            }
            // The last offsets of a partition may hold nothing that can be read.
            None => {
                left.retain(|(topic, partition), end| records.position(topic, *partition).is_none_or(|at| at < *end))
            }
        }
    }
    Ok(())
}
