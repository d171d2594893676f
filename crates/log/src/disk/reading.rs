//! Reading files without being in the way of who writes, and without more work than reading takes. Used by `disk` and `folder`.
//!
//! It guarantees: what comes from the disk is asked for by one of this process at a time, by four while nobody writes, little at once, and
//! not while the write-ahead log is being synced; who reads something once leaves next to nothing in the page cache, and pushes out nothing
//! that others use; what is read is what the file holds, whichever way it came.
//!
//! A large piece of a file that the page cache does not have is read past it (`O_DIRECT`): the page cache costs three times what reading
//! does, in pages that are found, filled, copied from and thrown away, and a replay needs each of them once. Whether the page cache has a
//! piece is found out by asking for one byte from its middle, without waiting. The kernel then reads that page all the same, for the next
//! who asks, and so it keeps the account of what is read again: who comes while it still has the page lets it have the rest.

use std::{fs, io, ops::Range, os::unix::fs::FileExt, path::Path, time::Duration};

use bytes::Bytes;
use parking_lot::{FairMutex, FairMutexGuard};
use tokio::time::Instant;

use super::{PIECE_BYTES, SYNCS};
use crate::{lent, step_aside};

/// Pieces of a file below this many bytes are read through the page cache: they are parts and footers, which are asked for again.
const LARGE_BYTES: usize = 128 << 10;
/// Bytes that are read past it at once while nobody writes: then a disk that takes long for each read, as one in a network does, is not slow.
#[cfg(target_os = "linux")]
const QUIET_PIECE_BYTES: usize = 1 << 20;
/// Readers that read besides the first while nobody writes.
const QUIET_OTHERS: usize = 3;
/// Whose turn it is to read.
static TURNS: Turns = Turns::new();
/// How long a read waits for a sync that was there before it.
const SYNC_WAIT_MAX: Duration = Duration::from_millis(2);

/// Bytes of a file that does not change any more: all of it, or a range.
pub(crate) fn read_file(path: &Path, range: Option<Range<u64>>) -> io::Result<Bytes> {
    let file = fs::File::open(path)?;
    exactly(&file);
    let range = range.map_or_else(|| file.metadata().map(|about| 0..about.len()), Ok)?;
    let bytes = usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
    if bytes >= LARGE_BYTES && !is_in_memory(&file, range.start + bytes as u64 / 2) {
        // Where the file system cannot, or its blocks are larger than usual, there is the page cache.
        if let Some(read) = read_past_the_page_cache(path, &range) {
            return read;
        }
    }
    lent::filled(bytes, |into| read_in_turn(&file, range.start, into))
}

/// Lets the kernel read what is asked of a file and no more: it reads ahead by up to what `read_ahead_kb` says, which is mebibytes on some
/// machines, all of it at once and before any write. Who replays is read ahead for by `fetch`.
fn exactly(file: &fs::File) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random) {
        tracing::debug!(%error, "the kernel reads ahead as it likes");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Reads from a file in pieces. What the page cache does not have is read by one of this process at a time, each in its turn, and not
/// while the write-ahead log is being synced.
///
/// A sync waits in the device for the reads that were there before it, and Linux's schedulers put reads before writes (`mq-deadline`). So
/// what is asked at once is bounded. On a virtual NVMe disk the p99 of a small fdatasync was 6 times as long beside one reader of a
/// mebibyte at a time, and 1.2 times beside one of this size, which still got 574 of 793 MB/s.
pub(super) fn read_in_turn(file: &fs::File, at: u64, into: &mut [u8]) -> io::Result<()> {
    for (piece, at) in into.chunks_mut(PIECE_BYTES).zip((at..).step_by(PIECE_BYTES)) {
        step_aside();
        let there = if is_in_memory(file, at) { in_memory(file, piece, at) } else { 0 };
        if there < piece.len() {
            in_turn(|| file.read_exact_at(&mut piece[there..], at + there as u64))?;
        }
    }
    Ok(())
}

/// One reads at a time; while nobody writes some others do, so that the disk has something to do between two reads.
struct Turns {
    first: FairMutex<()>,
    others: [FairMutex<()>; QUIET_OTHERS],
}

impl Turns {
    const fn new() -> Self {
        Self {
            first: parking_lot::const_fair_mutex(()),
            others: [const { parking_lot::const_fair_mutex(()) }; QUIET_OTHERS],
        }
    }

    fn take(&self, is_quiet: bool) -> FairMutexGuard<'_, ()> {
        let free = || self.first.try_lock().or_else(|| self.others.iter().find_map(FairMutex::try_lock));
        is_quiet.then(free).flatten().unwrap_or_else(|| self.first.lock())
    }
}

/// Goes to the disk when it is this reader's turn.
fn in_turn<T>(read: impl FnOnce() -> T) -> T {
    let _turn = TURNS.take(SYNCS.is_quiet(Instant::now()));
    SYNCS.settle(SYNC_WAIT_MAX);
    read()
}

/// Whether the page cache has the page of a byte. If not, it begins to read that page, and no other.
fn is_in_memory(file: &fs::File, at: u64) -> bool {
    in_memory(file, &mut [0], at) == 1
}

/// Reads what the page cache has, and says how much that was. What it does not have it begins to read, whoever's turn it is.
#[cfg(target_os = "linux")]
fn in_memory(file: &fs::File, into: &mut [u8], at: u64) -> usize {
    use rustix::io::{ReadWriteFlags, preadv2};
    preadv2(file, &mut [io::IoSliceMut::new(into)], at, ReadWriteFlags::NOWAIT).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_: &fs::File, _: &mut [u8], _: u64) -> usize {
    0
}

/// Reads from the disk itself; nothing where that cannot be done here.
#[cfg(target_os = "linux")]
fn read_past_the_page_cache(path: &Path, range: &Range<u64>) -> Option<io::Result<Bytes>> {
    use std::os::unix::fs::OpenOptionsExt;

    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    // Also where it was removed a moment ago: who opened it before can read it still.
    let file = fs::File::options().read(true).custom_flags(direct).open(path).ok()?;
    match lent::filled_by_blocks(range, |at, blocks| read_blocks(&file, at, blocks, most)) {
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => None,
        read => Some(read),
    }
}

#[cfg(not(target_os = "linux"))]
fn read_past_the_page_cache(_: &Path, _: &Range<u64>) -> Option<io::Result<Bytes>> {
    None
}

/// How much is read at once now: little where a sync may come that has to wait for it.
#[cfg(target_os = "linux")]
fn most() -> usize {
    if SYNCS.is_quiet(Instant::now()) { QUIET_PIECE_BYTES } else { PIECE_BYTES }
}

/// Reads whole blocks of a file piece by piece, to their end or the file's, and says how many bytes there were.
#[cfg(target_os = "linux")]
fn read_blocks(file: &fs::File, at: u64, into: &mut [u8], most: impl Fn() -> usize) -> io::Result<usize> {
    let mut read = 0;
    while read < into.len() {
        step_aside();
        let left = into.len() - read;
        // How much is asked when its turn has come: somebody may have begun to write while it waited.
        match in_turn(|| file.read_at(&mut into[read..read + left.min(most())], at + read as u64)) {
            Ok(0) => break,
            Ok(bytes) => read += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        // It ended within a block.
        if read % lent::BLOCK_BYTES != 0 {
            break;
        }
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::asked;

    /// A file with bytes of which no two blocks are the same.
    fn file() -> (tempfile::TempDir, Vec<u8>) {
        let folder = tempfile::tempdir().expect("a folder");
        let bytes: Vec<u8> = (0..9 * PIECE_BYTES + 77).map(|at| (at / 7 + at / 4_096) as u8).collect();
        fs::write(folder.path().join("file"), &bytes).expect("written");
        (folder, bytes)
    }

    /// The page cache has nothing of it any more.
    #[cfg(target_os = "linux")]
    fn forget(path: &Path) {
        let file = fs::File::open(path).expect("it opens");
        file.sync_all().expect("on the disk");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("forgotten");
    }

    /// Whether the page cache has the byte.
    #[cfg(target_os = "linux")]
    fn has(path: &Path, at: u64) -> bool {
        let file = fs::File::open(path).expect("it opens");
        exactly(&file);
        is_in_memory(&file, at)
    }

    #[test]
    fn what_is_read_is_what_the_file_holds_in_memory_or_not() {
        let (folder, bytes) = file();
        let path = folder.path().join("file");
        let all = bytes.len();
        let file = fs::File::open(&path).expect("it opens");
        for (cold, from, end) in [
            (false, 5, 2 * PIECE_BYTES),
            (true, 5, 2 * PIECE_BYTES),
            (true, 0, all),
            (false, 0, all),
            (true, 4_096, 4_096 + LARGE_BYTES),
            (true, 4_095, 4_097 + LARGE_BYTES),
            (true, all - LARGE_BYTES, all),
            (true, all - 77, all),
            (true, 3, 4),
            (true, 7, 7),
        ] {
            #[cfg(target_os = "linux")]
            if cold {
                forget(&path);
            }
            let mut into = vec![0; end - from];
            read_in_turn(&file, from as u64, &mut into).expect("it is there");
            assert!(into == bytes[from..end], "cold: {cold}, {from}..{end}");
            #[cfg(target_os = "linux")]
            if cold {
                forget(&path);
            }
            for again in 0..3 {
                let read = read_file(&path, Some(from as u64..end as u64)).expect("it is there");
                assert!(read == bytes[from..end], "cold: {cold}, {from}..{end}, {again} times read");
            }
        }
        #[cfg(target_os = "linux")]
        forget(&path);
        assert!(read_file(&path, None).expect("it is there") == bytes);
        for from in [all - 10, all - LARGE_BYTES, all] {
            for longer in [11, LARGE_BYTES + 1] {
                #[cfg(target_os = "linux")]
                forget(&path);
                let error = read_file(&path, Some(from as u64..(all + longer) as u64)).expect_err("past the end");
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{from} and {longer}");
            }
        }
    }

    #[test]
    fn while_somebody_writes_one_reads_at_a_time_and_else_some() {
        let turns: &'static Turns = Box::leak(Box::new(Turns::new()));
        let ask = |is_quiet| {
            let (done, read) = std::sync::mpsc::sync_channel(1);
            let reader = std::thread::spawn(move || {
                drop(turns.take(is_quiet));
                done.send(()).expect("somebody waits for it");
            });
            let patience = Duration::from_millis(if is_quiet { 2_000 } else { 100 });
            (read.recv_timeout(patience).is_err(), read, reader)
        };
        let first = turns.take(false);
        let one = ask(false);
        assert!(one.0, "somebody writes, and one reads");
        let two = ask(true);
        assert!(!two.0, "nobody writes, and one reads");
        let others: Vec<_> = turns.others.iter().map(FairMutex::lock).collect();
        let three = ask(true);
        assert!(three.0, "all that may read do");
        drop((first, others));
        for (_, _open, reader) in [one, two, three] {
            reader.join().expect("no panic");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_not_in_memory_is_read_in_its_turn() {
        let Some((_folder, path, bytes)) = cold() else { return };
        let (all, part) = (bytes.len() as u64, LARGE_BYTES as u64 / 2);
        for range in [0..all, all - part..all] {
            forget(&path);
            let others: Vec<_> = [&TURNS.first].into_iter().chain(&TURNS.others).map(FairMutex::lock).collect();
            let ((done, read), path, of) = (std::sync::mpsc::sync_channel(1), path.clone(), range.clone());
            let reader = std::thread::spawn(move || {
                drop(read_file(&path, Some(of)).expect("it is there"));
                done.send(()).expect("somebody waits for it");
            });
            let waits = read.recv_timeout(Duration::from_millis(200)).is_err();
            drop(others);
            reader.join().expect("no panic");
            assert!(waits, "{range:?} did not wait for its turn");
        }
    }

    /// A file of which the page cache has nothing; none where the file system cannot be read past it, does not say what it has, or is
    /// nothing else, as `tmpfs` is.
    #[cfg(target_os = "linux")]
    fn cold() -> Option<(tempfile::TempDir, std::path::PathBuf, Vec<u8>)> {
        let (folder, bytes) = file();
        let (path, last) = (folder.path().join("file"), bytes.len() as u64 - 1);
        let is_told = has(&path, last);
        forget(&path);
        let can = is_told && !has(&path, last) && read_past_the_page_cache(&path, &(0..LARGE_BYTES as u64)).is_some();
        forget(&path);
        can.then_some((folder, path, bytes))
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn who_reads_once_leaves_the_page_cache_as_it_was_and_who_reads_again_lets_it_have_the_bytes() {
        let Some((_folder, path, bytes)) = cold() else { return };
        let (from, end) = (PIECE_BYTES as u64, 9 * PIECE_BYTES as u64);
        let middle = (from + end) / 2;
        let others = [from, from + 8_192, middle - 8_192, middle + 8_192, end - 1];
        let read = || drop(read_file(&path, Some(from..end)).expect("it is there"));
        read();
        assert!(others.iter().all(|at| !has(&path, *at)), "it was read once");
        // What was looked for is in the page cache now; and so somebody reads it again.
        forget(&path);
        read();
        let until = Instant::now() + Duration::from_secs(10);
        while !has(&path, middle) {
            assert!(Instant::now() < until, "the page that was asked for does not come");
            std::thread::yield_now();
        }
        read();
        assert!(others.iter().all(|at| has(&path, *at)), "it was read twice");
        assert_eq!(bytes.len(), read_file(&path, None).expect("all of it").len());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn past_the_page_cache_too_a_reader_steps_aside_at_each_piece() {
        use std::os::unix::fs::OpenOptionsExt;

        let Some((_folder, path, _)) = cold() else { return };
        let direct = rustix::fs::OFlags::DIRECT.bits() as i32;
        let file = fs::File::options().read(true).custom_flags(direct).open(&path).expect("it opens");
        for (most, pieces) in [(PIECE_BYTES, 8), (QUIET_PIECE_BYTES, 1)] {
            let before = asked();
            let range = 1..8 * PIECE_BYTES as u64;
            let read = lent::filled_by_blocks(&range, |at, into| read_blocks(&file, at, into, || most));
            assert_eq!(read.expect("it is there").len(), 8 * PIECE_BYTES - 1);
            assert_eq!(asked() - before, pieces);
        }
    }
}
