//! The disk as the log sees it: the seam where a simulation puts one that forgets, tears and reorders.
//! Called by `wal` and `recover`. [`SystemDisk`] goes through `std::fs`, so that a test layer below libc sees it all.

use std::{
    fs,
    io::{self, Write},
    mem,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Condvar, FairMutex, Mutex};

use crate::step_aside;

/// A file of the write-ahead log.
pub trait DiskFile: std::fmt::Debug + Send + Sync {
    /// Fills `into` from byte `at`; an error if the file ends before.
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()>;
    /// Writes all of `bytes` from byte `at`. Nothing is promised before [`sync`](Self::sync).
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()>;
    /// What was written survives power loss when this returns. After an error nothing may be assumed.
    fn sync(&self) -> io::Result<()>;
    /// Bytes.
    fn length(&self) -> io::Result<u64>;
}

/// Asked before each piece of a file that is made, with how many bytes are.
pub type Pace<'a> = &'a dyn Fn(u64) -> io::Result<()>;

/// A disk.
pub trait Disk: std::fmt::Debug + Send + Sync {
    /// Makes a folder and those above it, durably.
    fn create_folder(&self, path: &Path) -> io::Result<()>;
    /// Files in a folder, sorted.
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>>;
    /// Opens a file that is there.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Creates a file of zeros with its blocks allocated, beginning with `head`, all of it durable, name included.
    fn create(&self, path: &Path, bytes: u64, head: &[u8]) -> io::Result<Arc<dyn DiskFile>>;
    /// The same piece by piece: `pace` is told before each how many bytes are made, and may take its time, or end it with an error. A disk
    /// that makes files at once does not ask it.
    fn create_paced(&self, path: &Path, bytes: u64, head: &[u8], _pace: Pace<'_>) -> io::Result<Arc<dyn DiskFile>> {
        self.create(path, bytes, head)
    }
    /// Gives a file another name in the same folder, durably; a file that had it is gone.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; it may come back after power loss.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Takes the folder for this process alone; dropping the guard gives it back.
    fn lock(&self, folder: &Path) -> io::Result<Box<dyn std::any::Any + Send + Sync>>;
}

/// The machine's disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemDisk;

#[derive(Debug)]
struct SystemFile(fs::File);

/// Bytes that are read from a file at once, or written to it.
const PIECE_BYTES: usize = 128 << 10;
/// Bytes that are written to a file before it is synced, beside a write-ahead log that syncs little at a time and one that syncs much.
const SYNCED_BYTES_MIN: usize = 256 << 10;
pub(crate) const SYNCED_BYTES: usize = 1 << 20;
/// Whose turn it is to read.
static READS: FairMutex<()> = parking_lot::const_fair_mutex(());
/// The syncs of write-ahead logs that are under way.
static SYNCS: Syncs = Syncs::new();
/// How long a read waits for a sync that was there before it.
const SYNC_WAIT_MAX: Duration = Duration::from_millis(2);

/// How many syncs are under way, and how many have ended.
#[derive(Debug)]
struct Syncs {
    counts: Mutex<Counts>,
    ended: Condvar,
}

#[derive(Debug)]
struct Counts {
    under_way: usize,
    ended: u64,
    /// Bytes that were written since the last sync began.
    written: usize,
    /// What a sync has to bring to the disk as a rule.
    usual: Option<usize>,
}

impl Syncs {
    const fn new() -> Self {
        let none = Counts { under_way: 0, ended: 0, written: 0, usual: None };
        Self { counts: parking_lot::const_mutex(none), ended: Condvar::new() }
    }

    /// So many bytes wait for the next sync.
    fn wrote(&self, bytes: usize) {
        self.counts.lock().written += bytes;
    }

    /// Does one.
    fn during<T>(&self, sync: impl FnOnce() -> T) -> T {
        {
            let mut counts = self.counts.lock();
            counts.under_way += 1;
            let bytes = mem::take(&mut counts.written);
            counts.usual = Some(counts.usual.map_or(bytes, |usual| usual - usual / 8 + bytes / 8));
        }
        let done = sync();
        let mut counts = self.counts.lock();
        counts.under_way -= 1;
        counts.ended += 1;
        self.ended.notify_all();
        done
    }

    /// How much may be written beside the log and synced at once: as much as it brings to the disk itself. A log that writes little has
    /// somebody waiting for each sync; one that writes much needs its files back soon.
    fn piece(&self) -> usize {
        self.counts.lock().usual.map_or(SYNCED_BYTES, |usual| usual.clamp(SYNCED_BYTES_MIN, SYNCED_BYTES))
    }

    /// Waits until one of those that are under way has ended, not for the next.
    fn settle(&self, most: Duration) {
        let mut counts = self.counts.lock();
        let before = counts.ended;
        while counts.under_way > 0 && counts.ended == before {
            if self.ended.wait_for(&mut counts, most).timed_out() {
                return;
            }
        }
    }
}

/// Lets the kernel read what is asked of a file and no more: it reads ahead by up to what `read_ahead_kb` says, which is mebibytes on some
/// machines, all of it at once and before any write. Who replays is read ahead for by `fetch`.
pub(crate) fn exactly(file: &fs::File) {
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
pub(crate) fn read_in_turn(file: &fs::File, at: u64, into: &mut [u8]) -> io::Result<()> {
    for (piece, at) in into.chunks_mut(PIECE_BYTES).zip((at..).step_by(PIECE_BYTES)) {
        step_aside();
        let there = in_memory(file, piece, at);
        if there < piece.len() {
            let _turn = READS.lock();
            SYNCS.settle(SYNC_WAIT_MAX);
            file.read_exact_at(&mut piece[there..], at + there as u64)?;
        }
    }
    Ok(())
}

/// Reads what the page cache has, and says how much that was.
#[cfg(target_os = "linux")]
fn in_memory(file: &fs::File, into: &mut [u8], at: u64) -> usize {
    use rustix::io::{ReadWriteFlags, preadv2};
    preadv2(file, &mut [io::IoSliceMut::new(into)], at, ReadWriteFlags::NOWAIT).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_: &fs::File, _: &mut [u8], _: u64) -> usize {
    0
}

impl DiskFile for SystemFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        read_in_turn(&self.0, at, into)
    }

    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        SYNCS.wrote(bytes.len());
        self.0.write_all_at(bytes, at)
    }

    fn sync(&self) -> io::Result<()> {
        SYNCS.during(|| self.0.sync_data())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Makes a file of zeros that begins with `head`, its blocks and bytes durable.
fn zeros(path: &Path, bytes: u64, head: &[u8], pace: Pace<'_>) -> io::Result<fs::File> {
    let file = fs::File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0_u8; SYNCED_BYTES];
    let mut at = 0;
    while at < bytes {
        pace(at)?;
        let most = SYNCS.piece();
        let some = usize::try_from(bytes - at).map_or(most, |left| left.min(most));
        for (some, at) in zeros[..some].chunks(PIECE_BYTES).zip((at..).step_by(PIECE_BYTES)) {
            step_aside();
            file.write_all_at(some, at)?;
        }
        file.sync_data()?;
        at += some as u64;
    }
    file.write_all_at(head, 0)?;
    file.sync_all()?;
    Ok(file)
}

/// Writes much to a file, and syncs it piece by piece: what is written at once, a sync of the write-ahead log waits for in the device.
pub(crate) fn write_evenly(file: &mut fs::File, bytes: &[u8]) -> io::Result<()> {
    let mut left = bytes;
    while !left.is_empty() {
        let (piece, rest) = left.split_at(left.len().min(SYNCS.piece()));
        for some in piece.chunks(PIECE_BYTES) {
            step_aside();
            file.write_all(some)?;
        }
        if !rest.is_empty() {
            file.sync_data()?;
        }
        left = rest;
    }
    Ok(())
}

pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

impl Disk for SystemDisk {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            if !parent.is_dir() {
                self.create_folder(parent)?;
            }
            // One that is there may have been made a moment before a crash, so its name is synced too.
            match fs::create_dir(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other?,
            }
            return sync_folder(parent);
        }
        fs::create_dir_all(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                found.push(entry.path());
            }
        }
        found.sort();
        Ok(found)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(SystemFile(fs::File::options().read(true).write(true).open(path)?)))
    }

    fn create(&self, path: &Path, bytes: u64, head: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
        self.create_paced(path, bytes, head, &|_| Ok(()))
    }

    fn create_paced(&self, path: &Path, bytes: u64, head: &[u8], pace: Pace<'_>) -> io::Result<Arc<dyn DiskFile>> {
        let making = path.with_extension("new");
        let made = zeros(&making, bytes, head, pace).and_then(|file| fs::rename(&making, path).map(|()| file));
        // Half a file would keep what little room there is.
        let file = made.inspect_err(|_| drop(fs::remove_file(&making)))?;
        if let Some(folder) = path.parent() {
            sync_folder(folder)?;
        }
        Ok(Arc::new(SystemFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)?;
        to.parent().map_or(Ok(()), sync_folder)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn lock(&self, folder: &Path) -> io::Result<Box<dyn std::any::Any + Send + Sync>> {
        let file = fs::File::options().create(true).truncate(false).write(true).open(folder.join("lock"))?;
        file.try_lock().map_err(|_| {
            io::Error::new(io::ErrorKind::WouldBlock, "another process uses this folder: stop it, or give each its own")
        })?;
        Ok(Box::new(file))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;
    use crate::asked;

    /// Starts a sync that lasts until it is told to end.
    fn begin(syncs: &'static Syncs) -> (mpsc::SyncSender<()>, thread::JoinHandle<()>) {
        let ((begun, began), (end, ended)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
        let sync = thread::spawn(move || {
            syncs.during(|| {
                begun.send(()).expect("somebody waits for it");
                ended.recv().expect("somebody ends it");
            });
        });
        began.recv().expect("it begins");
        (end, sync)
    }

    #[test]
    fn a_read_waits_for_the_sync_that_is_under_way_and_not_for_the_next() {
        let syncs: &'static Syncs = Box::leak(Box::new(Syncs::new()));
        syncs.settle(Duration::MAX); // none is under way
        let (end_first, first) = begin(syncs);
        syncs.settle(Duration::from_millis(1)); // it gives up
        let (settled, seen) = mpsc::sync_channel(1);
        let read = thread::spawn(move || {
            syncs.settle(Duration::from_secs(60));
            settled.send(()).expect("somebody waits for it");
        });
        assert!(seen.recv_timeout(Duration::from_millis(100)).is_err(), "the sync is still under way");
        let (end_second, second) = begin(syncs);
        end_first.send(()).expect("it waits");
        seen.recv_timeout(Duration::from_secs(30)).expect("the first has ended");
        end_second.send(()).expect("it waits");
        for thread in [first, second, read] {
            thread.join().expect("no panic");
        }
    }

    #[test]
    fn what_is_written_beside_a_log_that_syncs_little_is_synced_little_by_little() {
        let syncs = Syncs::new();
        assert_eq!(syncs.piece(), SYNCED_BYTES, "no log syncs here");
        for (bytes, piece) in [(4 << 10, SYNCED_BYTES_MIN), (2 << 20, SYNCED_BYTES), (600 << 10, 600 << 10)] {
            for _ in 0..200 {
                syncs.wrote(bytes / 2);
                syncs.wrote(bytes / 2);
                syncs.during(|| ());
            }
            assert!(syncs.piece().abs_diff(piece) < 16, "{} beside syncs of {bytes}", syncs.piece());
        }
        syncs.wrote(4 << 10);
        syncs.during(|| ());
        assert!(syncs.piece() > SYNCED_BYTES_MIN, "one is not the rule");
    }

    #[test]
    fn what_is_read_is_what_the_file_holds_in_memory_or_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..3 * PIECE_BYTES + 77).map(|at| (at / 7) as u8).collect();
        fs::write(&path, &bytes).expect("written");
        let file = fs::File::open(&path).expect("it opens");
        for cold in [false, true] {
            if cold {
                file.sync_all().expect("on the disk");
                #[cfg(target_os = "linux")]
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("forgotten");
            }
            let mut into = vec![0; 2 * PIECE_BYTES];
            read_in_turn(&file, 5, &mut into).expect("it is there");
            assert!(into == bytes[5..5 + into.len()], "cold: {cold}");
            assert!(read_in_turn(&file, bytes.len() as u64 - 10, &mut [0; 11]).is_err(), "past the end");
        }
    }

    /// How often this thread steps aside in there.
    fn asks(work: impl FnOnce()) -> usize {
        let before = asked();
        work();
        usize::try_from(asked() - before).expect("a few times")
    }

    #[test]
    fn who_reads_or_writes_much_steps_aside_at_each_piece() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let mut file = fs::File::options().create_new(true).read(true).write(true).open(&path).expect("made");
        let mut bytes = vec![7; SYNCED_BYTES + 3 * PIECE_BYTES];
        let pieces = bytes.len() / PIECE_BYTES;
        assert_eq!(asks(|| write_evenly(&mut file, &bytes).expect("written")), pieces);
        assert_eq!(asks(|| read_in_turn(&file, 0, &mut bytes).expect("read")), pieces);
        let make = || drop(zeros(&folder.path().join("zeros"), bytes.len() as u64, b"head", &|_| Ok(())));
        assert_eq!(asks(make), pieces);
    }
}
