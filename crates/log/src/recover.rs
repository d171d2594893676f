//! Reading the write-ahead log back onto what the store has: tells a torn tail from damage, erases the one and refuses the
//! other, and refuses records that another opener of the store went on without. Called by `open`.
//!
//! Each frame says how far the log was synced when it was written. A bad frame at or past the highest such point was never
//! acknowledged: it and all behind it are erased before the first append. A bad frame before that point was: the log
//! does not start, and says where. What lies before the covered position is in the store and is not applied again; what
//! lies behind it and is not known to be synced is written again and synced before it is shown: a killed process leaves
//! pages that were never synced, and after a failed sync they read back and are not on the disk.

use std::{collections::BTreeMap, path::Path};

use cairn_keys::AtRest;
use uuid::Uuid;

use crate::{
    Disk, OpenError, StreamId,
    frame::{self, Entry, HEADER_BYTES},
    index::Index,
    ledger::{Entered, Ledger},
    state::{Placed, State, Stream},
    wal::{Segment, Spare},
};

/// What was found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) log: Uuid,
    pub(crate) epoch: u32,
    pub(crate) state: State,
    pub(crate) ledgers: BTreeMap<StreamId, Ledger>,
    /// Where the next frame goes; `None` where there is no file that it could go to.
    pub(crate) next: Option<u64>,
    pub(crate) spares: Vec<Spare>,
}

/// Where the frames of one file end.
struct Scanned {
    segment: Segment,
    end: u64,
    /// From here to the file's end there are zeros only.
    rest: u64,
    sealed: bool,
}

/// Frames that another opener of the store went on without.
struct Superseded {
    at: u64,
    epoch: u32,
}

/// Reads `folder`, and behind it `objects`, the write-ahead objects of closed epochs, onto `index`, which is empty where the store is
/// new; `fresh` names the log where nothing does.
pub(crate) fn recover(
    disk: &dyn Disk,
    folder: &Path,
    at_rest: &AtRest,
    index: Option<&Index>,
    fresh: Uuid,
    objects: Vec<Segment>,
) -> Result<Recovered, OpenError> {
    let nothing = Index::default();
    let log = index.map(|index| index.log);
    let index = index.unwrap_or(&nothing);
    let (mut files, spares, found_log) = files(disk, folder, at_rest, log)?;
    files.extend(objects);
    files.sort_by_key(|segment| segment.base);
    let mut found = Recovered {
        log: log.or(found_log).unwrap_or(fresh),
        epoch: 0,
        state: restored(index),
        ledgers: index.streams.iter().map(|(id, stream)| (*id, stream.ledger.clone())).collect(),
        next: None,
        spares,
    };
    let (mut scanned, mut synced, mut superseded) = (Vec::<Scanned>::new(), 0, None);
    for segment in files {
        let (end, rest, sealed, seen) = scan(&segment, index, &mut found, &mut superseded)?;
        synced = synced.max(seen);
        scanned.push(Scanned { segment, end, rest, sealed });
    }
    if let Some(Superseded { at, epoch }) = superseded {
        // Before anything is removed: what lies before the covered position may not be what the store has there.
        return Err(OpenError::Superseded { path: folder.to_owned(), at, epoch });
    }
    let scanned = needed(disk, folder, index.covered, scanned)?;
    finish(disk, scanned, synced, &mut found)?;
    for stream in found.state.streams.values() {
        stream.publish();
    }
    found.state.durable = found.next.unwrap_or(index.covered);
    Ok(found)
}

/// Those that hold what the store does not have, one behind the other; the others are removed.
fn needed(disk: &dyn Disk, folder: &Path, covered: u64, scanned: Vec<Scanned>) -> Result<Vec<Scanned>, OpenError> {
    let mut needed = Vec::<Scanned>::new();
    for one in scanned {
        let segment = &one.segment;
        if segment.end() <= covered && segment.object.is_some() {
            continue; // found and removed by listing
        }
        if segment.end() <= covered {
            // The store has all of it: a crash came between commit and reuse.
            let removed = disk.remove(&segment.path);
            removed.map_err(|source| OpenError::Disk { path: segment.path.clone(), source })?;
            continue;
        }
        match needed.last() {
            Some(before) if before.segment.end() != segment.base => {
                let what = format!("the file behind it begins at {:x}", segment.base);
                return Err(OpenError::Damaged { path: before.segment.path.clone(), at: before.segment.bytes, what });
            }
            None if segment.base > covered => {
                let (path, found) = (folder.to_owned(), segment.base);
                return Err(OpenError::Gap { path, found, expected: covered });
            }
            _ => {}
        }
        needed.push(one);
    }
    Ok(needed)
}

/// The streams as the store has them.
fn restored(index: &Index) -> State {
    State {
        streams: index.streams.iter().map(|(id, stream)| (*id, Stream::restored(stream))).collect(),
        covered: index.covered,
        objects: index.objects.len() as u64,
        ..State::default()
    }
}

type Files = (Vec<Segment>, Vec<Spare>, Option<Uuid>);

/// Opens every file of one log, in order of position, and the spares.
fn files(disk: &dyn Disk, folder: &Path, at_rest: &AtRest, expected: Option<Uuid>) -> Result<Files, OpenError> {
    let failed = |path: &Path, source| OpenError::Disk { path: path.to_owned(), source };
    let (mut segments, mut spares, mut log) = (Vec::new(), Vec::new(), expected);
    for path in disk.list(folder).map_err(|source| failed(folder, source))? {
        match path.extension().and_then(|kind| kind.to_str()) {
            // Being made when its process died; it never had its name.
            Some("new") => disk.remove(&path).map_err(|source| failed(&path, source))?,
            Some("free") => {
                spares.push(Spare::open(disk, path.clone()).map_err(|source| failed(&path, source))?);
            }
            Some("wal") => {
                let Some((segment, found)) = Segment::open(disk, &path, at_rest)? else {
                    let what = "the head is not one that this version writes".to_owned();
                    return Err(OpenError::Damaged { path, at: 0, what });
                };
                if log.is_some_and(|log| log != found) {
                    return Err(OpenError::OtherLog { path, found, expected: log.unwrap_or_default() });
                }
                log = Some(found);
                segments.push(segment);
            }
            _ => {}
        }
    }
    segments.sort_by_key(|segment| segment.base);
    Ok((segments, spares, log))
}

/// Takes the frames of one file. Returns where they end, where the zeros behind them begin, whether the file was left on
/// purpose, and the highest synced position that any whole frame names, those behind a bad one included.
fn scan(
    segment: &Segment,
    index: &Index,
    found: &mut Recovered,
    superseded: &mut Option<Superseded>,
) -> Result<(u64, u64, bool, u64), OpenError> {
    let shape = segment.shape();
    let mut bytes = vec![0; usize::try_from(segment.bytes).expect("a file of the log is below 4 GiB")];
    let read = segment.file.read_at(0, &mut bytes);
    read.map_err(|source| OpenError::Disk { path: segment.path.clone(), source })?;
    let covered = usize::try_from(index.covered.saturating_sub(segment.base)).unwrap_or(usize::MAX);
    let (mut at, mut synced) = (segment.head_bytes(), 0);
    while at + HEADER_BYTES <= bytes.len() {
        let position = segment.base + at as u64;
        let Some(header) = frame::check(&bytes[at..], found.log, shape, position) else {
            if at < covered {
                // The store has what was here; the frames go on where it ends.
                at = covered.min(bytes.len());
                continue;
            }
            let used = used_up_to(&bytes, at);
            let later = (at..used.min(bytes.len().saturating_sub(HEADER_BYTES))).step_by(8);
            let later = later.filter(|at| bytes[*at] != 0);
            for place in later {
                if let Some(header) = frame::check(&bytes[place..], found.log, shape, segment.base + place as u64) {
                    synced = synced.max(header.synced);
                }
            }
            return Ok((position, segment.base + used as u64, false, synced));
        };
        found.epoch = found.epoch.max(header.epoch);
        synced = synced.max(header.synced);
        if let (None, Some(epoch)) = (&superseded, index.superseded(header.epoch, position)) {
            *superseded = Some(Superseded { at: position, epoch });
        }
        if at >= covered {
            let Some(body) = frame::body(&bytes[at..], &header, found.log, segment.seal.as_deref()) else {
                // Its checksum is right, so it was not torn.
                let what = "a frame was changed since it was encrypted".to_owned();
                return Err(OpenError::Damaged { path: segment.path.clone(), at: at as u64, what });
            };
            for entry in frame::entries(&body).unwrap_or_default() {
                take(found, entry, position);
            }
        }
        at += header.frame_bytes();
        if header.body_bytes == 0 {
            break;
        }
    }
    let end = segment.base + at as u64;
    Ok((end, end, true, synced))
}

/// One past the last page at or behind `at` that is not all zeros: most of a young file is, and need be neither searched
/// nor erased.
pub(crate) fn used_up_to(bytes: &[u8], at: usize) -> usize {
    const PAGE_BYTES: usize = 4096;
    let zeros = [0; PAGE_BYTES];
    let mut end = bytes.len();
    while end > at {
        let page = &bytes[end.saturating_sub(PAGE_BYTES).max(at)..end];
        if page != &zeros[..page.len()] {
            break;
        }
        end -= page.len();
    }
    end
}

/// Applies one entry to what was found.
fn take(found: &mut Recovered, entry: Entry, frame: u64) {
    match entry {
        Entry::Create(id, retention) => {
            found.state.streams.entry(id).or_insert_with(|| Stream::new(retention));
            found.ledgers.entry(id).or_default();
        }
        Entry::SetRetention(id, retention) => {
            if let Some(stream) = found.state.streams.get_mut(&id) {
                stream.retention = retention;
            }
        }
        Entry::Delete(id) => {
            found.state.streams.remove(&id);
            found.ledgers.remove(&id);
        }
        Entry::DeleteBefore(id, offset) => {
            if let Some(stream) = found.state.streams.get_mut(&id) {
                stream.publish();
                stream.delete_before(offset);
            }
        }
        Entry::Batch(batch) => {
            let (Some(stream), Some(ledger)) =
                (found.state.streams.get_mut(&batch.stream), found.ledgers.get_mut(&batch.stream))
            else {
                return; // its stream was deleted later, and the order of entries is the order of time
            };
            ledger.record(batch.base, Entered::of(&batch));
            stream.push(Placed {
                base: batch.base,
                records: batch.records,
                max_timestamp: batch.max_timestamp,
                position: frame + HEADER_BYTES as u64 + u64::from(batch.at),
                frame,
                length: batch.length,
            });
            if let Some(mark) = &batch.producer {
                stream.follow(mark.id, batch.transaction, batch.base);
            }
        }
    }
}

/// Refuses damage, erases a torn tail, syncs the rest, and says where the log goes on.
fn finish(disk: &dyn Disk, scanned: Vec<Scanned>, synced: u64, found: &mut Recovered) -> Result<(), OpenError> {
    let mut torn = false;
    for Scanned { segment, end, rest, sealed } in scanned {
        let failed = |source| OpenError::Disk { path: segment.path.clone(), source };
        if segment.object.is_some() && (torn || !sealed) {
            // It came whole or not at all, and what lies before it was synced before it was put.
            let what = "an object of the write-ahead log, or what lies before it, is not whole".to_owned();
            return Err(OpenError::Damaged { path: segment.path.clone(), at: end - segment.base, what });
        }
        if torn {
            // Nothing in it was acknowledged: the bad frame before it lies at or past every synced point.
            disk.remove(&segment.path).map_err(failed)?;
            continue;
        }
        if !sealed && end < synced {
            let what = format!("a frame that was synced is bad; the log was synced up to position {synced}");
            return Err(OpenError::Damaged { path: segment.path.clone(), at: end - segment.base, what });
        }
        if !sealed {
            torn = true;
            let rest = vec![0; usize::try_from(rest - end).expect("a file of the log is below 4 GiB")];
            if !rest.is_empty() {
                segment.file.write_at(end - segment.base, &rest).map_err(failed)?;
            }
        }
        if segment.object.is_none() {
            write_again(&segment, synced, end).map_err(failed)?;
            segment.file.sync().map_err(failed)?;
        }
        found.next = Some(if sealed { segment.end() } else { end });
        found.state.segments.insert(segment.base, segment);
    }
    Ok(())
}

/// Writes what no frame says was synced once more, so that the sync that follows cannot pass over it.
fn write_again(segment: &Segment, synced: u64, end: u64) -> std::io::Result<()> {
    let from = synced.max(segment.base);
    let Some(length) = end.checked_sub(from).and_then(|length| usize::try_from(length).ok()) else { return Ok(()) };
    let mut bytes = vec![0; length];
    if bytes.is_empty() {
        return Ok(());
    }
    segment.file.read_at(from - segment.base, &mut bytes)?;
    segment.file.write_at(from - segment.base, &bytes)
}
