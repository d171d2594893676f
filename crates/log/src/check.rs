//! Verifying all that a log holds, from the head of its store down to each batch. Called by `cairn broker check`; changes nothing.
//!
//! The way down: head, files of the index, each object's footer with its parts and chunks, each batch, which the caller judges; then
//! whether each stream's ranges follow each other; then the write-ahead log, in the store (`write_ahead`) and on the disk (`files`). It
//! may run beside a broker that writes: what is missing, or named by nobody, is looked up in a newer index before it is told. Findings
//! are bounded, counts are not.

mod files;
mod frames;
mod objects;
mod ranges;
mod write_ahead;

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use cairn_keys::AtRest;
use futures::StreamExt;
use serde::Serialize;
use uuid::Uuid;

use self::objects::{InObject, by_object};
use crate::{
    Disk, ErrorKind, Offset, OpenError, Store, StoreError, StreamId,
    index::{self, HeadRecord, Index, IndexName},
    object::{self, ObjectId},
    wal_object,
};

/// What is told in full; of more there is a number.
const FINDINGS_MAX: usize = 1_000;
/// How often a call of the store is sent again.
const TRIES_MAX: usize = 5;
/// Objects that are fetched beside each other.
const OBJECTS_AHEAD: usize = 3;

/// What the caller knows of a batch by its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchSpan {
    /// Offset of its first record.
    pub base: Offset,
    /// One past the last.
    pub next: Offset,
    /// Records in it.
    pub records: u64,
}

/// Judges one batch of a stream: its own checksum, and what it says of its offsets; else what is wrong, in words.
pub type Judge<'j> = dyn FnMut(StreamId, &[u8]) -> Result<BatchSpan, String> + Send + 'j;

/// What is checked.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// The objects.
    pub store: Arc<dyn Store>,
    /// The log's folder with the write-ahead log in `wal/` below it, where that is checked too: only while no broker runs there.
    pub folder: Option<PathBuf>,
    /// Where that folder lies.
    pub disk: Arc<dyn Disk>,
    /// What its files may be encrypted under.
    pub at_rest: AtRest,
}

/// What kind of finding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FindingKind {
    /// There are objects and no head.
    HeadMissing,
    /// Head or a file of the index is damaged or missing: what the store holds cannot be told.
    IndexDamaged,
    /// The index names an object that is not there.
    ObjectMissing,
    /// An object's footer, part or chunk does not match its checksum.
    ObjectDamaged,
    /// A batch is not what its own checksum says.
    BatchDamaged,
    /// An object does not hold what the index says.
    RangeWrong,
    /// Offsets that no range holds.
    Gap,
    /// Offsets that two ranges hold.
    Overlap,
    /// An object of the write-ahead log that the index needs is not there.
    WriteAheadMissing,
    /// An object of the write-ahead log, a frame in it or a fence does not match its checksum, or is of another epoch.
    WriteAheadDamaged,
    /// An object of the write-ahead log does not begin where the one before it ends.
    WriteAheadMisplaced,
    /// Nothing stops who still holds an epoch that was replaced.
    FenceMissing,
    /// A file of the write-ahead log is damaged where it was synced.
    FileDamaged,
    /// The write-ahead log does not begin where the store ends, or belongs to another log.
    FileMisplaced,
    /// The write-ahead log holds records that another owner of the store went on without.
    Superseded,
}

/// Something that is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What kind.
    pub kind: FindingKind,
    /// The object or file.
    pub place: String,
    /// What was found there.
    pub what: String,
    /// What to do.
    pub todo: String,
    /// The stream that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamId>,
    /// First of its offsets that are concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Offset>,
    /// One past the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Offset>,
}

impl Finding {
    fn new(kind: FindingKind, place: impl Into<String>, what: impl Into<String>, todo: &str) -> Self {
        let (place, what, todo) = (place.into(), what.into(), todo.to_owned());
        Self { kind, place, what, todo, stream: None, from: None, to: None }
    }

    fn about(self, stream: StreamId, from: Offset, to: Offset) -> Self {
        Self { stream: Some(stream), from: Some(from), to: Some(to), ..self }
    }
}

/// What was counted and found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Checked {
    /// Whether there is nothing to find fault with.
    pub ok: bool,
    /// The log.
    pub log: Option<Uuid>,
    /// The epoch of the store's owner.
    pub epoch: u32,
    /// How often the index was changed.
    pub sequence: u64,
    /// Files of the index.
    pub index_files: u64,
    /// Streams in it.
    pub streams: u64,
    /// Ranges in it.
    pub ranges: u64,
    /// Objects that were read whole.
    pub objects: u64,
    /// Their bytes.
    pub object_bytes: u64,
    /// Batches in objects.
    pub batches: u64,
    /// Records in those.
    pub records: u64,
    /// Objects and files of the index that nothing names: a crash left them, or they are on their way. The owner removes them.
    pub orphans: u64,
    /// Their bytes.
    pub orphan_bytes: u64,
    /// Some of their names.
    pub orphan_names: Vec<String>,
    /// Objects of the write-ahead log that were read.
    pub wal_objects: u64,
    /// Their bytes.
    pub wal_object_bytes: u64,
    /// Fences of epochs that were replaced.
    pub fences: u64,
    /// Whether the write-ahead log's files were looked at.
    pub files_checked: bool,
    /// Files of the write-ahead log.
    pub files: u64,
    /// Frames in files and objects of the write-ahead log.
    pub frames: u64,
    /// Batches in frames that the store does not have.
    pub waiting_batches: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// How many more findings there are.
    pub findings_more: u64,
}

impl Checked {
    fn found(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_more += 1;
        }
    }

    fn orphan(&mut self, name: String, bytes: u64) {
        self.orphans += 1;
        self.orphan_bytes += bytes;
        if self.orphan_names.len() < FINDINGS_MAX {
            self.orphan_names.push(name);
        }
    }
}

/// Checks everything. `told` hears how many of how many objects are done.
///
/// # Errors
/// Where the store does not answer or refuses, or the disk fails: then nothing is known. Damage is no error but a finding.
pub async fn check(
    options: &CheckOptions,
    judge: &mut Judge<'_>,
    told: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Checked, OpenError> {
    let store = options.store.as_ref();
    let mut checked = Checked::default();
    // Before the index: what is put later is no orphan.
    let listed = persistently(async || store.list(object::FOLDER).await).await?;
    let files = persistently(async || store.list(IndexName::FOLDER).await).await?;
    let write_ahead = persistently(async || store.list(wal_object::FOLDER).await).await?;
    let is_used = !listed.is_empty() || !files.is_empty() || !write_ahead.is_empty();
    let (head, index) = load(store, &mut checked, is_used).await?;
    let nothing = Index::default();
    let known = index.as_ref().unwrap_or(&nothing);
    let listed: Vec<(ObjectId, u64)> =
        listed.iter().filter_map(|found| Some((ObjectId::parse(&found.name)?, found.bytes))).collect();
    let missing = read_objects(store, (known, index.is_some()), &listed, &mut checked, judge, told).await?;
    for (id, stream) in &known.streams {
        ranges::check(*id, stream, &mut checked);
    }
    let mut newer = Index::default();
    let (mut newer_head, mut reach) = (None, 0);
    if index.is_some() {
        (newer_head, newer) = match persistently(async || index::load(store).await).await {
            Ok(Some(loaded)) => (Some(loaded.head), loaded.index),
            _ => (head.clone(), known.clone()),
        };
        let is_gone = |id: &&ObjectId| newer.objects.contains_key(*id);
        missing.iter().filter(is_gone).for_each(|id| tell_missing(*id, &newer, &mut checked));
        let is_named = |id: &ObjectId| known.objects.contains_key(id) || newer.objects.contains_key(id);
        for (id, bytes) in listed.iter().filter(|(id, _)| !is_named(id) && !missing.contains(id)) {
            checked.orphan(id.name(), *bytes);
        }
        let named: BTreeSet<IndexName> =
            [&head, &newer_head].into_iter().flatten().flat_map(|head| head.files.iter().copied()).collect();
        for (name, bytes) in files.iter().filter_map(|found| Some((IndexName::parse(&found.name)?, found.bytes))) {
            if !named.contains(&name) {
                checked.orphan(name.name(), bytes);
            }
        }
        reach = write_ahead::check(store, &newer, &write_ahead, &mut checked, judge).await?;
    }
    if let Some(folder) = &options.folder {
        let index = index.is_some().then_some(if newer_head.is_some() { &newer } else { known });
        files::check(options, folder, (index, reach), &mut checked, judge)?;
    }
    checked.ok = checked.findings.is_empty();
    Ok(checked)
}

/// Head and index, or what is wrong with them.
async fn load(
    store: &dyn Store,
    checked: &mut Checked,
    holds_objects: bool,
) -> Result<(Option<HeadRecord>, Option<Index>), OpenError> {
    let copy = "restore it from a copy of the store";
    match persistently(async || index::load(store).await).await {
        Ok(Some(loaded)) => {
            checked.log = Some(loaded.index.log);
            checked.epoch = loaded.head.epoch;
            checked.sequence = loaded.index.sequence;
            checked.index_files = loaded.head.files.len() as u64;
            checked.streams = loaded.index.streams.len() as u64;
            checked.ranges = loaded.index.streams.values().map(|stream| stream.ranges.len() as u64).sum();
            Ok((Some(loaded.head), Some(loaded.index)))
        }
        Ok(None) => {
            if holds_objects {
                let what = "the store holds objects and no head: nobody can tell what they are part of";
                checked.found(Finding::new(FindingKind::HeadMissing, "head", what, copy));
            }
            Ok((None, None))
        }
        Err(StoreError::Damaged { name, what }) => {
            checked.found(Finding::new(FindingKind::IndexDamaged, name, what, copy));
            Ok((None, None))
        }
        Err(error) => Err(error.into()),
    }
}

/// Reads every object that is named or there. Gives those that are not there.
async fn read_objects(
    store: &dyn Store,
    (index, is_known): (&Index, bool),
    listed: &[(ObjectId, u64)],
    checked: &mut Checked,
    judge: &mut Judge<'_>,
    told: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<BTreeSet<ObjectId>, OpenError> {
    let within = by_object(index);
    let all: BTreeSet<ObjectId> = index.objects.keys().copied().chain(listed.iter().map(|(id, _)| *id)).collect();
    let (of, mut missing) = (all.len() as u64, BTreeSet::new());
    let fetched = futures::stream::iter(all.iter().copied())
        .map(|id| async move { (id, persistently(async || store.get_all(&id.name()).await).await) })
        .buffered(OBJECTS_AHEAD);
    let mut fetched = std::pin::pin!(fetched);
    let mut done = 0;
    while let Some((id, bytes)) = fetched.next().await {
        let ranges = within.get(&id).map_or(&[][..], Vec::as_slice);
        match bytes {
            Ok(bytes) => {
                let log = is_known.then_some(index.log);
                InObject { id, log, ranges, bytes: &bytes }.check(checked, judge);
            }
            Err(StoreError::Missing { .. }) => drop(missing.insert(id)),
            Err(StoreError::Damaged { name, what }) => {
                checked.found(Finding::new(FindingKind::ObjectDamaged, name, what, objects::RESTORE));
            }
            Err(error) => return Err(error.into()),
        }
        done += 1;
        told(done, of);
    }
    Ok(missing)
}

fn tell_missing(id: ObjectId, index: &Index, checked: &mut Checked) {
    for (stream, indexed) in &index.streams {
        for range in indexed.ranges.iter().filter(|range| range.object == id) {
            let what = "the index names it and it is not there";
            let finding = Finding::new(FindingKind::ObjectMissing, id.name(), what, objects::RESTORE);
            checked.found(finding.about(*stream, range.base, range.next));
        }
    }
}

async fn persistently<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut tries = 1;
    loop {
        match call().await {
            Err(error) if error.kind() == ErrorKind::Retry && tries < TRIES_MAX => tries += 1,
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests;
