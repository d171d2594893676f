//! Reading a write-ahead log that was set aside, or was brought back after another went on without it. Called by `cairn broker salvage`;
//! changes nothing.
//!
//! What the store lacks is told by the index: frames of an epoch at or behind the position at which a later one began were never
//! uploaded, and whoever went on did so without them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use cairn_keys::AtRest;
use serde::Serialize;

use crate::{
    Disk, Offset, OpenError, Store, StoreError, StreamId,
    frame::{self, Entry},
    index::{self, Index},
    object,
    succession::ASIDE,
    wal::Segment,
    walk::walk,
};

/// What is read.
#[derive(Clone, Debug)]
pub struct SalvageOptions {
    /// The folder with the files of the write-ahead log.
    pub folder: PathBuf,
    /// Where it lies.
    pub disk: Arc<dyn Disk>,
    /// What its files may be encrypted under.
    pub at_rest: AtRest,
    /// The store that went on without it.
    pub store: Arc<dyn Store>,
}

/// One batch of it.
#[derive(Clone, Copy, Debug)]
pub struct Salvaged<'s> {
    /// Which stream it was appended to.
    pub stream: StreamId,
    /// Offset of its first record.
    pub base: Offset,
    /// Epoch of who acknowledged it.
    pub epoch: u32,
    /// The store does not have it.
    pub is_lacking: bool,
    /// The batch as it came.
    pub bytes: &'s [u8],
}

/// What was read.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct SalvageReport {
    /// Files of the write-ahead log.
    pub files: u64,
    /// Frames in them.
    pub frames: u64,
    /// Batches that the store lacks.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The epoch that went on without them, if one did.
    pub superseded_by: Option<u32>,
    /// Places at which what was synced does not read back; what lies behind them in the same file is not read.
    pub damaged: Vec<String>,
}

/// The write-ahead logs that were set aside in a log's folder, the oldest first.
///
/// # Errors
/// Where the folder cannot be read.
pub fn set_aside_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| name.starts_with(ASIDE)) && entry.file_type()?.is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Gives every batch of the write-ahead log to `each`, in the order in which they were acknowledged; an error of `each` ends it.
///
/// # Errors
/// Where store or disk do not answer, or a key is missing.
pub async fn salvage(
    options: &SalvageOptions,
    each: &mut (dyn FnMut(Salvaged<'_>) -> Result<(), String> + Send),
) -> Result<SalvageReport, OpenError> {
    let index = index::load(options.store.as_ref()).await?.map(|loaded| loaded.index);
    let failed = |source| OpenError::Disk { path: options.folder.clone(), source };
    let mut segments = Vec::new();
    for path in options.disk.list(&options.folder).map_err(failed)? {
        if path.extension().is_some_and(|kind| kind == "wal")
            && let Some(found) = Segment::open(options.disk.as_ref(), &path, &options.at_rest)?
        {
            segments.push(found);
        }
    }
    segments.sort_by_key(|(segment, _)| segment.base);
    let mut reading = Reading { index: index.as_ref(), report: SalvageReport::default(), each, failed: None };
    let (mut ends, mut synced) = (Vec::new(), 0);
    for (segment, log) in &segments {
        if let Some(index) = index.as_ref().filter(|index| index.log != *log) {
            let (path, found) = (segment.path.clone(), *log);
            return Err(OpenError::OtherLog { path, found, expected: index.log });
        }
        reading.report.files += 1;
        let walked = walk(segment, *log, 0, &mut |header, body| reading.frame(header, body))?;
        synced = synced.max(walked.synced);
        ends.push((segment, walked));
        if let Some(reason) = reading.failed {
            return Err(OpenError::Option { option: "salvage", reason });
        }
    }
    let mut report = reading.report;
    for (segment, walked) in ends.into_iter().filter(|(_, walked)| !walked.is_left && walked.end < synced) {
        report.damaged.push(format!("{} at byte {}", segment.path.display(), walked.end - segment.base));
    }
    Ok(report)
}

/// Gives every batch that the store has of a stream to `each`.
///
/// # Errors
/// Where the store does not answer, or does not have what its index names.
pub async fn stored(
    store: &dyn Store,
    stream: StreamId,
    each: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<(), StoreError> {
    let Some(loaded) = index::load(store).await? else { return Ok(()) };
    let Some(indexed) = loaded.index.streams.get(&stream) else { return Ok(()) };
    for range in &indexed.ranges {
        let name = range.object.name();
        let damaged = || StoreError::Damaged { name: name.clone(), what: "what it holds is bad".to_owned() };
        let part = store.get(&name, range.part.at..range.part.at + u64::from(range.part.bytes)).await?;
        for chunk in object::part(&part, stream).ok_or_else(damaged)? {
            let bytes = store.get(&name, chunk.at..chunk.at + u64::from(chunk.length)).await?;
            let batches = object::batches(&chunk, &bytes).ok_or_else(damaged)?;
            batches.iter().for_each(|batch| each(&batch.bytes));
        }
    }
    Ok(())
}

struct Reading<'r, 'e> {
    index: Option<&'r Index>,
    report: SalvageReport,
    each: &'r mut (dyn FnMut(Salvaged<'_>) -> Result<(), String> + Send + 'e),
    failed: Option<String>,
}

impl Reading<'_, '_> {
    fn frame(&mut self, header: &frame::Header, body: &[u8]) {
        self.report.frames += 1;
        // Without an index nothing says that the store has any of it.
        let superseded = self.index.map(|index| index.superseded(header.epoch, header.position));
        let is_lacking = superseded.is_none_or(|by| by.is_some());
        self.report.superseded_by = self.report.superseded_by.max(superseded.flatten());
        for entry in frame::entries(body).unwrap_or_default() {
            let Entry::Batch(batch) = entry else { continue };
            let bytes = &body[batch.at as usize..batch.at as usize + batch.length as usize];
            if is_lacking {
                self.report.batches += 1;
                self.report.bytes += bytes.len() as u64;
            }
            let (stream, base, epoch) = (batch.stream, batch.base, header.epoch);
            if self.failed.is_none() {
                self.failed = (self.each)(Salvaged { stream, base, epoch, is_lacking, bytes }).err();
            }
        }
    }
}
