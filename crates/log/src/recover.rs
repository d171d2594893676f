//! Opening the write-ahead log: reads every frame back, tells a torn tail from damage, erases the one and refuses the other.
//!
//! Each frame says how far the log was synced when it was written. A bad frame at or past the highest such point was never
//! acknowledged: it and all behind it are erased before the first append. A bad frame before that point was: the log
//! does not start, and says where.

use std::{collections::BTreeMap, path::Path};

use uuid::Uuid;

use crate::{
    Disk, OpenError, StreamId,
    frame::{self, Entry, HEADER_BYTES},
    ledger::Ledger,
    state::{Placed, State, Stream},
    wal::{HEAD_BYTES, Segment},
};

/// What was found.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) log: Uuid,
    pub(crate) epoch: u32,
    pub(crate) state: State,
    pub(crate) ledgers: BTreeMap<StreamId, Ledger>,
    /// Where the next frame goes; `None` where there is no file yet.
    pub(crate) next: Option<u64>,
}

/// Where the frames of one file end.
struct Scanned {
    segment: Segment,
    end: u64,
    /// From here to the file's end there are zeros only.
    rest: u64,
    sealed: bool,
}

/// Reads `folder`; `fresh` names the log where there is none yet.
pub(crate) fn recover(disk: &dyn Disk, folder: &Path, fresh: Uuid) -> Result<Recovered, OpenError> {
    let failed = |path: &Path, source| OpenError::Disk { path: path.to_owned(), source };
    let mut found = Recovered { log: fresh, epoch: 0, state: State::default(), ledgers: BTreeMap::new(), next: None };
    let mut files = Vec::new();
    for path in disk.list(folder).map_err(|source| failed(folder, source))? {
        if path.extension().is_none_or(|kind| kind != "wal") {
            continue;
        }
        let Some((segment, log)) = Segment::open(disk, &path).map_err(|source| failed(&path, source))? else {
            return Err(OpenError::Damaged {
                path,
                at: 0,
                what: "the head is not one that this version writes".to_owned(),
            });
        };
        if files.is_empty() {
            found.log = log;
        } else if log != found.log {
            return Err(OpenError::OtherLog { path, found: log, expected: found.log });
        }
        files.push(segment);
    }
    let (mut scanned, mut synced) = (Vec::<Scanned>::new(), 0);
    for segment in files {
        if let Some(before) = scanned.last().filter(|before| before.segment.end() != segment.base) {
            let what = format!("the file behind it begins at {:x}", segment.base);
            return Err(OpenError::Damaged { path: before.segment.path.clone(), at: before.segment.bytes, what });
        }
        let (end, rest, sealed, seen) = scan(&segment, &mut found).map_err(|source| failed(&segment.path, source))?;
        synced = synced.max(seen);
        scanned.push(Scanned { segment, end, rest, sealed });
    }
    finish(disk, scanned, synced, &mut found)?;
    for stream in found.state.streams.values() {
        stream.publish();
    }
    Ok(found)
}

/// Takes the frames of one file. Returns where they end, where the zeros behind them begin, whether the file was left on
/// purpose, and the highest synced position that any whole frame names, those behind a bad one included.
fn scan(segment: &Segment, found: &mut Recovered) -> std::io::Result<(u64, u64, bool, u64)> {
    let mut bytes = vec![0; usize::try_from(segment.bytes).expect("a file of the log is below 4 GiB")];
    segment.file.read_at(0, &mut bytes)?;
    let (mut at, mut synced) = (HEAD_BYTES, 0);
    while at + HEADER_BYTES <= bytes.len() {
        let Some(header) = frame::check(&bytes[at..], found.log, segment.base + at as u64) else {
            let used = used_up_to(&bytes, at);
            let later = (at..used.min(bytes.len().saturating_sub(HEADER_BYTES))).step_by(8);
            let later = later.filter(|at| bytes[*at] != 0);
            for place in later {
                if let Some(header) = frame::check(&bytes[place..], found.log, segment.base + place as u64) {
                    synced = synced.max(header.synced);
                }
            }
            return Ok((segment.base + at as u64, segment.base + used as u64, false, synced));
        };
        found.epoch = found.epoch.max(header.epoch);
        synced = synced.max(header.synced);
        let body = &bytes[at + HEADER_BYTES..at + HEADER_BYTES + header.body_bytes];
        let start = segment.base + (at + HEADER_BYTES) as u64;
        for entry in frame::entries(body).unwrap_or_default() {
            take(found, entry, start);
        }
        at += header.frame_bytes();
        if header.body_bytes == 0 {
            return Ok((segment.base + at as u64, segment.base + at as u64, true, synced));
        }
    }
    Ok((segment.base + at as u64, segment.base + at as u64, true, synced))
}

/// One past the last page at or behind `at` that is not all zeros: most of a young file is, and need be neither searched
/// nor erased.
fn used_up_to(bytes: &[u8], at: usize) -> usize {
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
fn take(found: &mut Recovered, entry: Entry, body_at: u64) {
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
            ledger.record(batch.base, batch.records, batch.producer.as_ref());
            stream.push(Placed {
                base: batch.base,
                records: batch.records,
                max_timestamp: batch.max_timestamp,
                position: body_at + u64::from(batch.at),
                length: batch.length,
            });
        }
    }
}

/// Refuses damage, erases a torn tail, and says where the log goes on.
fn finish(disk: &dyn Disk, scanned: Vec<Scanned>, synced: u64, found: &mut Recovered) -> Result<(), OpenError> {
    let mut torn = false;
    let files = scanned.len();
    for (place, Scanned { segment, end, rest, sealed }) in scanned.into_iter().enumerate() {
        let last = place + 1 == files;
        let failed = |source| OpenError::Disk { path: segment.path.clone(), source };
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
        if !sealed || last {
            // A killed process may have written what it never synced: it is read back, so it must be durable by now.
            segment.file.sync().map_err(failed)?;
        }
        found.next = Some(if sealed { segment.end() } else { end });
        found.state.segments.insert(segment.base, segment);
    }
    Ok(())
}
