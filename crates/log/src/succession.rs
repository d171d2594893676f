//! Whose write-ahead log lies in a folder, and how to go on where that of the store's last owner is lost. Called by `open`.
//!
//! Whoever takes a store draws a word, writes it into the file `owner` of its folder, and only then into the index. So a start knows
//! whether the write-ahead log beside it is that of the last owner, or that of an earlier one: an old copy, or a machine that was
//! away while another had the store. Where the last owner's log is not here and it did not end well, what it acknowledged and had
//! not uploaded is not here either. Such a start is refused unless it is asked for; then no offset is given twice: nobody ever
//! gives out one that lies further past the index than the reserve, and a recovery passes over the whole reserve.
//!
//! | at | bytes | the file `owner`, little-endian |
//! | --- | --- | --- |
//! | 0 | 8 | magic and format version `COWN0001` |
//! | 8 | 16 | log id |
//! | 24 | 8 | the word in the index when the folder's log was that of the last owner; 0 where it was not |
//! | 32 | 8 | the word of who opens |
//! | 40 | 4 | CRC32C over bytes 0 to 40 |
//!
//! Both words stand there because a start may end before the store knows of it: then the first one is still right.

use std::{
    io,
    path::{Path, PathBuf},
};

use bytes::BufMut;
use serde::Serialize;
use uuid::Uuid;

use crate::{
    Disk, LogOptions, Offset, OpenError, StreamId,
    fields::Fields,
    index::{Change, Index, Loaded, Note},
    recover::Recovered,
    wal::Segment,
    walk::walk,
};

const MAGIC: [u8; 8] = *b"COWN0001";
const OWNER_BYTES: usize = 44;
/// Offsets that each stream may run ahead of what the index has of it.
pub(crate) const OFFSETS_RESERVED: u64 = 1 << 32;
/// Names that are tried for what is set aside.
const ASIDE_TRIES_MAX: u32 = 1_000;
/// What the folders of write-ahead logs that were set aside begin with.
pub(crate) const ASIDE: &str = "wal-aside-";

/// What a recovery has done, and what may be lost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Recovery {
    /// The epoch whose write-ahead log is lost.
    pub epoch: u32,
    /// Position of that log up to which the store has it.
    pub position: u64,
    /// When something was uploaded last, ms by the clock of who did it.
    pub uploaded_ms: Option<i64>,
    /// Every stream that the store knows.
    pub streams: Vec<RecoveredStream>,
}

/// One stream of a recovery.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct RecoveredStream {
    /// Which.
    pub stream: StreamId,
    /// First offset kept.
    pub start: Offset,
    /// One past the last offset that the store has: what was acknowledged from here on is lost.
    pub end: Offset,
    /// The next offset that is given out. Those in between may have been given out before, and never are again.
    pub next: Offset,
}

/// How an opener goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Standing {
    /// The write-ahead log of who had the store last is here, or in the store; `before` is the word of its owner.
    Whole { before: u64 },
    /// Who had it last left nothing behind.
    Ended { epoch: u32 },
    /// What it left behind is not here, and is to be gone on without.
    Lost { epoch: u32 },
}

/// Sees whether the write-ahead log in `wal` is that of who had the store last. One that is not is set aside where the log goes on
/// without it, and where it holds what was never uploaded.
pub(crate) fn standing(options: &LogOptions, wal: &Path, loaded: &Loaded) -> Result<Standing, OpenError> {
    let Loaded { head, index, .. } = loaded;
    let before = index.taken.map_or(0, |taken| taken.by);
    let last = index.epochs.back().map(|(epoch, _)| *epoch);
    if last.is_some_and(|last| index.write_ahead.contains_key(&last)) {
        return Ok(Standing::Whole { before });
    }
    let disk = options.disk.as_ref();
    let failed = |source| OpenError::Disk { path: wal.to_owned(), source };
    let is_file = |path: &PathBuf| path.extension().is_some_and(|kind| kind == "wal");
    let files: Vec<_> = disk.list(wal).map_err(failed)?.into_iter().filter(is_file).collect();
    if !files.is_empty() && is_last(disk, &options.folder, index).map_err(failed)? {
        return Ok(Standing::Whole { before });
    }
    let epoch = last.unwrap_or(index.epoch);
    let mut segments = Vec::new();
    for path in &files {
        segments.extend(Segment::open(disk, path, &options.at_rest)?.filter(|(_, log)| *log == index.log));
    }
    if segments.len() < files.len() {
        return Ok(Standing::Whole { before }); // reading it back says what is wrong with it
    }
    let held = held(&segments, index)?;
    if let Some((at, by)) = held.superseded {
        let path = set_aside(disk, wal, held.epoch, at).map_err(failed)?;
        disk.create_folder(wal).map_err(failed)?;
        return Err(OpenError::Superseded { path, at, epoch: by });
    }
    if !head.is_closed && !options.recover {
        return Err(OpenError::NoWriteAheadLog { path: wal.to_owned(), epoch });
    }
    if !files.is_empty() {
        // Of an earlier owner. The store has all that it holds.
        let path = set_aside(disk, wal, held.epoch, held.first).map_err(failed)?;
        disk.create_folder(wal).map_err(failed)?;
        tracing::warn!("a write-ahead log that others went on from was set aside in {}", path.display());
    }
    Ok(if head.is_closed { Standing::Ended { epoch } } else { Standing::Lost { epoch } })
}

/// What a write-ahead log holds that is not that of the last owner.
#[derive(Debug, Default)]
struct Held {
    epoch: u32,
    first: u64,
    /// Where a frame lies that was never uploaded, and who went on without it.
    superseded: Option<(u64, u32)>,
}

fn held(segments: &[(Segment, Uuid)], index: &Index) -> Result<Held, OpenError> {
    let mut held = Held { first: u64::MAX, ..Held::default() };
    for (segment, log) in segments {
        held.first = held.first.min(segment.base);
        walk(segment, *log, 0, &mut |header, _| {
            held.epoch = held.epoch.max(header.epoch);
            if let Some(by) = index.superseded(header.epoch, header.position)
                && held.superseded.is_none_or(|(at, _)| header.position < at)
            {
                held.superseded = Some((header.position, by));
            }
        })?;
    }
    Ok(held)
}

fn owner(folder: &Path) -> PathBuf {
    folder.join("owner")
}

/// Whether what lies in `folder` is the write-ahead log of who had the store last. Older versions left no word: theirs is believed.
fn is_last(disk: &dyn Disk, folder: &Path, index: &Index) -> io::Result<bool> {
    let Some(taken) = index.taken else { return Ok(true) };
    let file = match disk.open(&owner(folder)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        file => file?,
    };
    let mut bytes = [0; OWNER_BYTES];
    if file.length()? < OWNER_BYTES as u64 {
        return Ok(false);
    }
    file.read_at(0, &mut bytes)?;
    Ok(words(&bytes, index.log).is_some_and(|words| words.contains(&taken.by)))
}

fn words(bytes: &[u8; OWNER_BYTES], log: Uuid) -> Option<[u64; 2]> {
    let mut fields = Fields(bytes);
    let is_ours = fields.take(8)? == MAGIC && fields.uuid()? == log;
    let words = [fields.u64()?, fields.u64()?];
    (is_ours && fields.u32()? == crc32c::crc32c(&bytes[..OWNER_BYTES - 4])).then_some(words)
}

/// Says in the folder who opens, durably; before the index hears of it.
pub(crate) fn write_owner(disk: &dyn Disk, folder: &Path, log: Uuid, before: u64, by: u64) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(OWNER_BYTES);
    bytes.put_slice(&MAGIC);
    bytes.put_slice(log.as_bytes());
    bytes.put_u64_le(before);
    bytes.put_u64_le(by);
    let crc = crc32c::crc32c(&bytes);
    bytes.put_u32_le(crc);
    disk.create(&owner(folder), OWNER_BYTES as u64, &bytes).map(drop)
}

/// Gives the write-ahead log in `wal` another name beside it; nothing is removed. `epoch` and `at` tell what it holds.
pub(crate) fn set_aside(disk: &dyn Disk, wal: &Path, epoch: u32, at: u64) -> io::Result<PathBuf> {
    let folder = wal.parent().unwrap_or(Path::new("."));
    for n in 0..ASIDE_TRIES_MAX {
        let more = if n == 0 { String::new() } else { format!("-{n}") };
        let path = folder.join(format!("{ASIDE}{epoch:08x}-{at:016x}{more}"));
        if disk.list(&path).is_ok_and(|files| !files.is_empty()) {
            continue;
        }
        disk.rename(wal, &path)?;
        return Ok(path);
    }
    Err(io::Error::other("too many write-ahead logs were set aside: move some of them away"))
}

/// Lets every stream go on past all offsets that may have been given out; the changes say so in the index.
pub(crate) fn skip(index: &Index, epoch: u32, reserved: u64, found: &mut Recovered) -> (Recovery, Vec<Change>) {
    let reserved = index.taken.map_or(OFFSETS_RESERVED, |taken| taken.reserved).max(reserved);
    let (mut streams, mut changes) = (Vec::new(), Vec::new());
    for (id, ledger) in &mut found.ledgers {
        let end = ledger.next;
        // Past the last offset there is none to give.
        let next = end.checked_add(reserved).unwrap_or(Offset::new(i64::MAX as u64));
        if next > end {
            changes.push(Change::Note(Note::Skipped { id: *id, from: end, to: next }));
        }
        ledger.next = next;
        let mut start = Offset::default();
        if let Some(stream) = found.state.streams.get_mut(id) {
            stream.skip_to(next);
            start = stream.start;
        }
        streams.push(RecoveredStream { stream: *id, start, end, next });
    }
    let position = found.state.durable;
    (Recovery { epoch, position, uploaded_ms: index.uploaded_ms, streams }, changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SystemDisk, index::Taken};

    #[test]
    fn a_folder_knows_its_own_word_and_the_one_before_it_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let index = |by| {
            let taken = Some(Taken { by, reserved: 1 });
            Index { log: Uuid::from_u128(4), taken, ..Index::default() }
        };
        let is_last = |index: &Index| is_last(&SystemDisk, folder.path(), index).expect("readable");
        assert!(is_last(&Index::default()), "an older version leaves no word");
        assert!(!is_last(&index(7)), "there is no file");
        write_owner(&SystemDisk, folder.path(), Uuid::from_u128(4), 6, 7).expect("written");
        assert!(is_last(&index(7)) && is_last(&index(6)) && !is_last(&index(8)));
        write_owner(&SystemDisk, folder.path(), Uuid::from_u128(5), 6, 7).expect("written");
        assert!(!is_last(&index(7)), "it is of another log");
    }

    #[test]
    fn what_is_set_aside_is_never_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let wal = folder.path().join("wal");
        let mut names = std::collections::BTreeSet::new();
        for n in 0..3 {
            std::fs::create_dir(&wal).expect("made");
            std::fs::write(wal.join("0.wal"), format!("{n}")).expect("written");
            let path = set_aside(&SystemDisk, &wal, 2, 64).expect("renamed");
            assert_eq!(std::fs::read_to_string(path.join("0.wal")).expect("there"), format!("{n}"));
            names.insert(path);
        }
        assert_eq!(names.len(), 3);
    }
}
