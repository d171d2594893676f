//! A bundle: records with their proofs in one file, for whoever verifies without the backbone.
//!
//! `cairn evidence export` calls it. JSON Lines as `contracts/evidence.md` says: a header, rotations of keys, published
//! checkpoints, then stretches of records between two proofs in the tlog-proof form, then an end. Of a workflow every record from
//! its first one to the checkpoint stands in the bundle: its own whole, the others by their digests alone, so that none of its
//! events can be left out unseen. It must never show the content of a record that was not asked for.

use std::{
    collections::VecDeque,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cairn_backbone::{
    reader::ReaderError,
    records::{Bounded, RawRecord, Records},
};
use cairn_contract::{EvidenceCheckpoint, Topic, partition_for};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    keys::{KeyError, KeyFolder},
    leaf::Commitment,
    store::{LogStore, State, StoreError},
};

/// Records of one stretch, shown or hidden.
const RECORDS_MAX: u64 = 10_000_000;
/// Published checkpoints of a log that a bundle takes along.
const CHECKPOINTS_MAX: usize = 1_000;
/// How long the backbone may be silent.
const SILENT_MAX: Duration = Duration::from_secs(30);

/// What is exported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Selection {
    /// Every event of a workflow.
    Workflow(String),
    /// The records of a partition from one offset on, before another.
    Range {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The first offset.
        from: u64,
        /// The offset behind the last one; the last checkpoint's end where absent.
        to: Option<u64>,
    },
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log's files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key's files.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The backbone.
    #[error(transparent)]
    Read(#[from] ReaderError),
    /// The bundle's file.
    #[error("the bundle cannot be written: {0}")]
    Write(#[from] std::io::Error),
    /// There is nothing.
    #[error("{0}")]
    Nothing(String),
    /// The trail and the evidence disagree.
    #[error("{place}: the trail is not what was signed at offset {offset}: `cairn verify` shows what differs")]
    Differs {
        /// Topic and partition.
        place: String,
        /// Where.
        offset: u64,
    },
    /// Too much.
    #[error(
        "{records} records lie between the first one and the checkpoint, and a bundle takes {RECORDS_MAX}: name a range with --topic, --partition, --from and --to"
    )]
    TooMany {
        /// How many.
        records: u64,
    },
}

/// What was exported.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Exported {
    /// Records that stand in the bundle whole.
    pub records: u64,
    /// Records that are shown by their digests.
    pub hidden: u64,
}

/// Every log that has a checkpoint, of the newest topic of each name.
///
/// # Errors
/// Files that cannot be read.
pub fn logs(evidence: &Path) -> Result<Vec<LogStore>, StoreError> {
    let folder = evidence.join("logs");
    let Ok(entries) = std::fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let Some(state) = state_of(&path)? else { continue };
        found.push(LogStore::open(path, state.identity)?);
    }
    found.sort_by(|a, b| a.state().identity.cmp(&b.state().identity));
    Ok(found)
}

fn state_of(folder: &Path) -> Result<Option<State>, StoreError> {
    let path = folder.join("state.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StoreError::Disk { what: "read", path, source }),
    };
    let damaged = |_| StoreError::Damaged { path: folder.to_owned(), what: "its state cannot be read" };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

/// The proof of one record in the tlog-proof form, with its entry beside it; nothing where it is not the record that was signed.
///
/// # Errors
/// Something cannot be read.
pub fn proof(store: &LogStore, records: &Records, index: u64) -> Result<Option<String>, ExportError> {
    let State { identity, .. } = store.state();
    let (offset, _) = store.leaf(index)?;
    let mut found = None;
    read(records, &identity.topic, identity.partition, offset, offset + 1, |record| {
        found = store.proof_of(index, &Commitment::of(record))?;
        Ok(false)
    })?;
    Ok(found)
}

/// Writes a bundle.
///
/// # Errors
/// There is nothing to export, or something cannot be read or written.
pub fn export(
    evidence: &Path,
    key_file: Option<PathBuf>,
    records: &Records,
    selection: &Selection,
    out: &mut impl Write,
) -> Result<Exported, ExportError> {
    let header = match selection {
        Selection::Workflow(id) => json!({ "version": 1, "workflow": id }),
        Selection::Range { topic, partition, from, to } => {
            let to = to.map_or_else(|| "the last checkpoint".to_owned(), |to| to.to_string());
            json!({ "version": 1, "what": format!("{topic}/{partition} from offset {from} to {to}") })
        }
    };
    line(out, "bundle", header)?;
    let keys = KeyFolder::new(evidence, key_file);
    for note in keys.load()?.rotations {
        line(out, "rotation", note)?;
    }
    for note in keys.vouched()? {
        line(out, "producer", note)?;
    }
    let ids = records.topic_ids();
    let partitions = records.partitions(|_| true)?;
    let is_now = |log: &LogStore| {
        let identity = &log.state().identity;
        ids.get(&identity.topic)
            .is_none_or(|id| id.to_string() == identity.topic_id || identity.topic_id.starts_with("seen-"))
    };
    let stores = logs(evidence)?;
    let mut exported = Exported::default();
    let mut is_any = false;
    for store in stores.iter().filter(|store| is_now(store) && store.state().size > 0) {
        let identity = &store.state().identity;
        let place = |bounded: &&Bounded| bounded.topic == identity.topic && bounded.partition == identity.partition;
        let Some(bounded) = partitions.iter().find(place) else { continue };
        let stretch = match selection {
            Selection::Workflow(id) => {
                let count = partitions.iter().filter(|bounded| bounded.topic == identity.topic).count();
                let own = partition_for(id.as_bytes(), u32::try_from(count).unwrap_or(1));
                if own == identity.partition { first_of(store, records, bounded, id)? } else { None }
            }
            Selection::Range { topic, partition, from, to } => {
                if *topic == identity.topic && *partition == identity.partition {
                    let from = store.index_at((*from).max(bounded.start))?;
                    let to = to.map_or(Ok(store.state().size), |to| store.index_at(to))?;
                    (from < to).then_some((from, to))
                } else {
                    None
                }
            }
        };
        if let Some((first, end)) = stretch {
            is_any = true;
            checkpoints(records, &partitions, store, out)?;
            let workflow = match selection {
                Selection::Workflow(id) => Some(id.as_str()),
                Selection::Range { .. } => None,
            };
            write_stretch(store, records, (first, end), workflow, out, &mut exported)?;
        }
    }
    if !is_any {
        return Err(ExportError::Nothing(match selection {
            Selection::Workflow(id) => format!(
                "no signed event of workflow {id}: `cairn trail` lists workflows, and a checkpoint covers new events within the evidence interval"
            ),
            Selection::Range { topic, partition, .. } => {
                format!("no signed record of {topic}/{partition} in that range")
            }
        }));
    }
    line(out, "end", json!({ "records": exported.records + exported.hidden }))?;
    out.flush()?;
    Ok(exported)
}

/// Where the first record of a workflow lies, and the end of the checkpoint.
fn first_of(
    store: &LogStore,
    records: &Records,
    bounded: &Bounded,
    workflow: &str,
) -> Result<Option<(u64, u64)>, ExportError> {
    let State { size, offset_next, .. } = store.state();
    let mut found = None;
    read(records, &bounded.topic, bounded.partition, bounded.start, *offset_next, |record| {
        let is_own = record.offset < *offset_next && record.key.as_deref() == Some(workflow.as_bytes());
        if is_own {
            found = Some(record.offset);
        }
        Ok(!is_own)
    })?;
    let Some(offset) = found else { return Ok(None) };
    Ok(Some((store.index_at(offset)?, *size)))
}

fn write_stretch(
    store: &LogStore,
    records: &Records,
    (first, end): (u64, u64),
    workflow: Option<&str>,
    out: &mut impl Write,
    exported: &mut Exported,
) -> Result<(), ExportError> {
    if end - first > RECORDS_MAX {
        return Err(ExportError::TooMany { records: end - first });
    }
    let State { identity, .. } = store.state();
    let place = format!("{}/{}", identity.topic, identity.partition);
    let proofs = [store.proof(first)?, store.proof(end - 1)?];
    let (topic, partition) = (&identity.topic, identity.partition);
    line(
        out,
        "segment",
        json!({ "topic": topic, "partition": partition, "first": first, "count": end - first, "proofs": proofs }),
    )?;
    let (from, last) = (store.leaf(first)?.0, store.leaf(end - 1)?.0);
    let mut at = first;
    read(records, topic, partition, from, last + 1, |record| {
        if at == end {
            return Ok(false);
        }
        let commitment = Commitment::of(record);
        let (offset, leaf) = store.leaf(at)?;
        if (record.offset, commitment.leaf(store.log())) != (offset, leaf) {
            return Err(ExportError::Differs { place: place.clone(), offset });
        }
        at += 1;
        if workflow.is_none_or(|id| record.key.as_deref() == Some(id.as_bytes())) {
            exported.records += 1;
            line(out, "record", shown(record))?;
        } else {
            exported.hidden += 1;
            let (key, link) = (STANDARD.encode(commitment.key), STANDARD.encode(commitment.content));
            let Commitment { offset, timestamp_ms, presence, .. } = commitment;
            line(
                out,
                "hidden",
                json!({ "offset": offset, "timestamp_ms": timestamp_ms, "presence": presence, "key_sha256": key, "link": link }),
            )?;
        }
        Ok(at < end)
    })?;
    if at < end {
        return Err(ExportError::Differs { place, offset: store.leaf(at)?.0 });
    }
    Ok(())
}

fn shown(record: &RawRecord) -> Value {
    let headers: Vec<_> = record.headers.iter().map(|(name, value)| json!([name, STANDARD.encode(value)])).collect();
    let mut shown = json!({ "offset": record.offset, "timestamp_ms": record.timestamp_ms, "headers": headers });
    for (name, bytes) in [("key", &record.key), ("value", &record.value)] {
        if let Some(bytes) = bytes {
            shown[name] = STANDARD.encode(bytes).into();
        }
    }
    shown
}

/// The newest published checkpoints of a log.
fn checkpoints(
    records: &Records,
    partitions: &[Bounded],
    store: &LogStore,
    out: &mut impl Write,
) -> Result<(), ExportError> {
    let Some(bounded) = partitions.iter().find(|bounded| bounded.topic == Topic::Checkpoints.name()) else {
        return Ok(());
    };
    let origin = store.state().identity.origin() + "\n";
    let mut newest: VecDeque<EvidenceCheckpoint> = VecDeque::new();
    read(records, &bounded.topic, bounded.partition, bounded.start, bounded.end, |record| {
        let value = record.value.as_deref().unwrap_or_default();
        if let Ok(event) = serde_json::from_slice::<EvidenceCheckpoint>(value)
            && event.note.starts_with(&origin)
        {
            if newest.len() == CHECKPOINTS_MAX {
                newest.pop_front();
            }
            newest.push_back(event);
        }
        Ok(true)
    })?;
    for event in newest {
        line(out, "checkpoint", serde_json::to_value(event).expect("an event is plain JSON"))?;
    }
    Ok(())
}

/// Reads a partition's records from an offset to an end, until `take` has enough.
fn read(
    records: &Records,
    topic: &str,
    partition: u32,
    from: u64,
    end: u64,
    mut take: impl FnMut(&RawRecord) -> Result<bool, ExportError>,
) -> Result<(), ExportError> {
    if from >= end {
        return Ok(());
    }
    records.assign([(topic, partition, from)])?;
    let mut heard = Instant::now();
    loop {
        match records.poll(Duration::from_millis(100))? {
            Some(record) => {
                heard = Instant::now();
                if record.offset >= end || !take(&record)? || record.offset + 1 >= end {
                    return Ok(());
                }
            }
            None if records.position(topic, partition).is_some_and(|at| at >= end) => return Ok(()),
            None if heard.elapsed() > SILENT_MAX => {
                return Err(ExportError::Nothing(format!(
                    "the backbone gives no more records of {topic}/{partition}: check that it answers"
                )));
            }
            None => {}
        }
    }
}

fn line(out: &mut impl Write, kind: &str, value: impl Into<Value>) -> Result<(), ExportError> {
    serde_json::to_writer(&mut *out, &json!({ kind: value.into() })).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(())
}
