//! A disk that has no room, one whose syncs fail, and clocks that are set: what is refused, what stops, and what goes on.

use std::{io, path::PathBuf, sync::atomic::AtomicBool};

use cairn_clock::Timestamp;

use super::{
    tests::{all, batch, crash, options, put, stream, until},
    *,
};
use crate::spares::Haste;
use crate::{Append, Disk, DiskFile, ErrorKind, ProducerId, Retention, SystemDisk, store::memory::MemoryStore};

/// The machine's disk, until it is full or broken.
#[derive(Clone, Debug, Default)]
struct Faulty {
    full: Arc<AtomicBool>,
    broken: Arc<AtomicBool>,
    creations: Arc<AtomicU64>,
    slow: Arc<AtomicBool>,
}

#[derive(Debug)]
struct FaultyFile(Arc<dyn DiskFile>, Arc<AtomicBool>);

impl DiskFile for FaultyFile {
    fn read_at(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(at, into)
    }
    fn write_at(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(at, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        if self.1.load(Ordering::SeqCst) { Err(io::Error::other("the device is gone")) } else { self.0.sync() }
    }
    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }
}

impl Disk for Faulty {
    fn create_folder(&self, path: &Path) -> io::Result<()> {
        SystemDisk.create_folder(path)
    }
    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        SystemDisk.list(folder)
    }
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FaultyFile(SystemDisk.open(path)?, self.broken.clone())))
    }
    fn create(&self, path: &Path, bytes: u64, head: &[u8]) -> io::Result<Arc<dyn DiskFile>> {
        self.creations.fetch_add(1, Ordering::SeqCst);
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(Arc::new(FaultyFile(SystemDisk.create(path, bytes, head)?, self.broken.clone())))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.slow.swap(false, Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(500));
        }
        SystemDisk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        SystemDisk.remove(path)
    }
    fn lock(&self, folder: &Path) -> io::Result<Box<dyn std::any::Any + Send + Sync>> {
        SystemDisk.lock(folder)
    }
}

async fn open_on(disk: &Faulty, folder: &Path) -> Log {
    let options =
        LogOptions { disk: Arc::new(disk.clone()), upload_interval: Duration::from_secs(3_600), ..options(folder) };
    let log = Log::open(options, Clock::system(), Entropy::system()).await.expect("it opens");
    log.create_stream(stream(), Retention::default()).await.expect("a stream");
    log
}

/// A batch of a second producer, which began while the disk was full.
fn second(first: i32, bytes: usize) -> Append {
    let mut append = batch(9, Some(first));
    append.producer.as_mut().expect("it has one").id = ProducerId::new(4);
    append.bytes.truncate(bytes);
    append
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_comes_until_it_has_room_and_loses_nothing() {
    let (folder, disk) = (tempfile::tempdir().expect("a folder"), Faulty::default());
    let log = open_on(&disk, folder.path()).await;
    put(&log, batch(0, Some(0))).await;
    disk.full.store(true, Ordering::SeqCst);
    let mut accepted = 1;
    let refused = loop {
        match log.append(vec![batch(accepted as u8, Some(accepted * 2))]).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(accepted > 50, "the file that it has is filled: {accepted}");
    assert_eq!(refused.kind(), ErrorKind::Full, "who sent it sends it again: {refused}");
    let said = refused.to_string();
    assert!(said.contains("make room") && said.contains(&folder.path().display().to_string()), "{said}");
    // What is small enough for the file's end must not come before what was refused: its producer would be told that it lost something.
    assert_eq!(log.append(vec![second(0, 900)]).await.expect_err("no room").kind(), ErrorKind::Full);
    assert_eq!(log.append(vec![second(2, 10)]).await.expect_err("not before the first").kind(), ErrorKind::Full);
    let tries = disk.creations.load(Ordering::SeqCst);
    for _ in 0..20 {
        assert!(log.append(vec![batch(1, Some(accepted * 2))]).await.is_err());
    }
    assert!(disk.creations.load(Ordering::SeqCst) <= tries + 1, "a file is not tried to be made for each");
    assert_eq!(all(&log).await.len() as i32, accepted, "reads go on");
    assert!(log.failure().is_none() && log.stats().appends_refused > 20);
    log.delete_before(stream(), Offset::new(2)).await.expect("what fits and follows nothing is taken");

    disk.full.store(false, Ordering::SeqCst);
    let mut went_on = None;
    while went_on.is_none() {
        went_on = log.append(vec![batch(1, Some(accepted * 2))]).await.ok();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let appended = went_on.expect("it went on").remove(0).expect("in its order");
    assert_eq!((appended.base_offset.get(), appended.duplicate), (accepted as u64 * 2, false));
    for (first, bytes) in [(0, 900), (2, 10)] {
        put(&log, second(first, bytes)).await;
    }
    let before = read_all(&log).await;
    assert_eq!(before.len() as i32, accepted + 2);
    crash(&log).await;
    drop(log);
    let log = open_on(&disk, folder.path()).await;
    assert_eq!(read_all(&log).await, before);
    log.close().await;
}

async fn read_all(log: &Log) -> Vec<bytes::Bytes> {
    let (mut at, mut found) = (log.bounds(stream()).expect("known").log_start, Vec::new());
    loop {
        let read = log.read(stream(), at, 4_096).await.expect("readable");
        if read.batches.is_empty() {
            return found;
        }
        at = Offset::new(at.get() + 2 * read.batches.len() as u64);
        found.extend(read.batches);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_failed_is_the_end_and_a_new_start_has_all_that_was_acknowledged() {
    let (folder, disk) = (tempfile::tempdir().expect("a folder"), Faulty::default());
    let log = open_on(&disk, folder.path()).await;
    put(&log, batch(1, Some(0))).await;
    assert_eq!(log.failure(), None);
    disk.broken.store(true, Ordering::SeqCst);
    let refused = log.append(vec![batch(2, Some(2))]).await.expect_err("it is not durable");
    disk.broken.store(false, Ordering::SeqCst);
    assert!(matches!(log.append(vec![batch(2, Some(2))]).await, Err(AppendError::Failed { .. })), "{refused}");
    let why = log.failure().expect("it says so");
    assert!(why.contains("the device is gone") && why.contains("restart"), "{why}");
    assert_eq!(all(&log).await.len(), 1, "what is not durable is not shown, and reads go on");
    crash(&log).await;
    drop(log);
    let log = open_on(&disk, folder.path()).await;
    // It may have been written or not; who sent it sends it again, and it is there once.
    put(&log, batch(2, Some(2))).await;
    assert_eq!(all(&log).await.len(), 2);
    log.close().await;
}

const NOON: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const DAY_MS: i64 = 86_400_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_makes_nothing_old_and_time_that_passes_does() {
    let (folder, clock) = (tempfile::tempdir().expect("a folder"), Clock::manual(NOON));
    let log = Log::open(options(folder.path()), clock.clone(), Entropy::system()).await.expect("it opens");
    log.create_stream(stream(), Retention { ms: Some(3_600_000), bytes: None }).await.expect("a stream");
    put(&log, Append { max_timestamp: NOON.as_millis(), ..batch(1, None) }).await;
    let expired = || log.0.shared.expired().len();
    for by_ms in [DAY_MS, -2 * DAY_MS, 400 * DAY_MS, -399 * DAY_MS] {
        clock.set_by(by_ms);
        assert_eq!(expired(), 0, "set by {by_ms} ms");
    }
    clock.advance(Duration::from_secs(3_601));
    assert_eq!(expired(), 1);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_the_store_was_not_seen_does_not_hang_on_the_hour() {
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let (store, clock) = (MemoryStore::new(1), Clock::manual(NOON));
    let with = |folder: &Path| LogOptions {
        store: Arc::new(store.clone()),
        upload_interval: Duration::from_secs(3_600),
        ..options(folder)
    };
    let first = Log::open(with(one.path()), clock.clone(), Entropy::system()).await.expect("it opens");
    first.create_stream(stream(), Retention::default()).await.expect("a stream");
    put(&first, batch(1, None)).await;
    clock.set_by(DAY_MS);
    assert!(first.unseen_for() < Duration::from_secs(1), "who is set forward by a day gives nothing up");
    let options = LogOptions { recover: true, ..with(two.path()) };
    let second = Log::open(options, Clock::system(), Entropy::system()).await.expect("it takes over");
    // A pause, and a clock that is set back by as long: by the hour alone there was none.
    clock.advance(Duration::from_secs(5));
    clock.set_by(-5_000);
    let refused = first.append(vec![batch(2, None)]).await.expect_err("it is refused before it is written");
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    second.close().await;
    first.close().await;
    until(|| second.fenced_by().is_none()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_file_is_made_while_this_one_has_room() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = Faulty::default();
    let log = open_on(&disk, folder.path()).await;
    let files = || log.0.shared.state.read().segments.len();
    let is_far = || {
        let state = log.0.shared.state.read();
        let (base, newest) = state.segments.last_key_value().expect("one is written");
        state.durable > base + newest.bytes * 5 / 8
    };
    let mut crossed = 0;
    for n in 0.. {
        if is_far() {
            until(|| !log.0.shared.spares.paths().is_empty()).await;
        }
        let (before, made) = (files(), disk.creations.load(Ordering::SeqCst));
        put(&log, batch(n as u8, None)).await;
        if files() > before {
            assert_eq!(disk.creations.load(Ordering::SeqCst), made, "it was there, and none was made for it");
            crossed += 1;
        }
        if crossed == 3 {
            break;
        }
    }
    let before = all(&log).await;
    log.close().await;
    drop(log);
    // Whoever makes one holds the folder no longer than the log does.
    let log = open_on(&disk, folder.path()).await;
    assert_eq!(all(&log).await, before);
    log.close().await;
}

/// A log of large files that uploads nothing.
async fn open_large(folder: &Path, wal_segment_bytes: u64) -> Result<Log, crate::OpenError> {
    let (upload_interval, upload_bytes) = (Duration::from_secs(3_600), 1 << 30);
    let options = LogOptions { wal_segment_bytes, upload_interval, upload_bytes, ..options(folder) };
    let log = Log::open(options, Clock::system(), Entropy::system()).await?;
    log.create_stream(stream(), Retention::default()).await.expect("a stream");
    Ok(log)
}

fn large() -> Append {
    Append { bytes: bytes::BytesMut::from(&[7; 200_000][..]), ..batch(1, None) }
}

async fn fill_up_to(log: &Log, bytes: u64) {
    while log.stats().wal_depth_bytes < bytes {
        put(log, large()).await;
    }
}

/// Bytes of the file that is being made.
fn made_so_far(folder: &Path) -> Option<u64> {
    let files = std::fs::read_dir(folder.join("wal")).expect("there").flatten();
    let making = files.filter(|file| file.path().extension().is_some_and(|name| name == "new"));
    making.map(|file| file.metadata().map_or(0, |about| about.len())).max()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_file_is_filled_no_faster_than_it_will_be_needed() {
    const FILE: u64 = 16 << 20;
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_large(folder.path(), FILE).await.expect("it opens");
    fill_up_to(&log, FILE / 2 + 200_000).await;
    until(|| made_so_far(folder.path()).is_some()).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let most = made_so_far(folder.path()).expect("it is not whole");
    assert!(most <= 4 << 20, "{most} bytes are filled while little of the file before it is used");
    assert!(log.0.shared.spares.paths().is_empty());
    fill_up_to(&log, FILE / 4 * 3 + 200_000).await;
    until(|| !log.0.shared.spares.paths().is_empty()).await;
    // Who needs it at once does not wait for its pace.
    fill_up_to(&log, FILE + FILE / 2 + 200_000).await;
    let rest: Vec<_> = (0..FILE / 2 / 200_000).map(|_| large()).collect();
    let appended = tokio::time::timeout(Duration::from_secs(60), log.append(rest)).await;
    appended.expect("it ends").expect("it is taken");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_nobody_needs_any_more_does_not_hold_the_folder() {
    const FILE: u64 = 16 << 20;
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_large(folder.path(), FILE).await.expect("it opens");
    fill_up_to(&log, FILE / 2 + 200_000).await;
    until(|| made_so_far(folder.path()).is_some()).await;
    log.close().await;
    let (ended, seen) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        drop(log);
        ended.send(())
    });
    seen.recv_timeout(Duration::from_secs(30)).expect("it ends");
    let mut tries = 0;
    let log = loop {
        match open_large(folder.path(), FILE).await {
            Ok(log) => break log,
            Err(error) => assert!(tries < 1_000, "{error}"),
        }
        tries += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(made_so_far(folder.path()), None, "half a file does not stay");
    log.close().await;
}

/// Who is late to make a file that is used already must not put another in its place while it gets its name: what is written would go to a
/// file without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_gets_its_name_is_replaced_by_no_other() {
    let (folder, disk) = (tempfile::tempdir().expect("a folder"), Faulty::default());
    let log = open_on(&disk, folder.path()).await;
    let (shared, base) = (log.0.shared.clone(), 1 << 30);
    shared.have_spare(base, Haste::Now).expect("room");
    disk.slow.store(true, Ordering::SeqCst);
    let late = shared.clone();
    let (segment, made) = std::thread::scope(|scope| {
        let next = scope.spawn(|| shared.next_segment(base));
        let late = scope.spawn(move || {
            std::thread::park_timeout(Duration::from_millis(100));
            late.have_spare(base, Haste::Now)
        });
        (next.join().expect("no panic"), late.join().expect("no panic"))
    });
    made.expect("room");
    let segment = segment.expect("a file");
    segment.file.write_at(5_000, b"acknowledged").expect("written");
    let mut there = [0; 12];
    let by_name = disk.open(&segment.path).expect("it has its name");
    by_name.read_at(5_000, &mut there).expect("readable");
    assert_eq!(&there, b"acknowledged", "what is written is in the file of that name");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_files_never_have_one_path() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_on(&Faulty::default(), folder.path()).await;
    let shared = &log.0.shared;
    // One is made for a place, another is freed meanwhile and used there; then that is freed in its turn.
    let base = 1 << 30;
    shared.have_spare(base, Haste::Now).expect("room");
    let freed = shared.next_segment(base >> 1).expect("a file");
    shared.have_spare(base, Haste::Now).expect("room");
    shared.retire(freed);
    let used = shared.next_segment(base).expect("a file");
    shared.retire(used);
    let paths = shared.spares.paths();
    assert_eq!(paths.len(), 2, "{paths:?}");
    assert_ne!(paths[0], paths[1]);
    let there = |path: &PathBuf| path.exists();
    assert!(paths.iter().all(there), "{paths:?}");
    log.close().await;
}
