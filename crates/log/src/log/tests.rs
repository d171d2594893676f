//! The log against its promises: durable before visible, torn tails erased, damage refused, duplicates recognised.

use std::{fs, num::NonZeroU32, os::unix::fs::FileExt, path::Path};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::*;
use crate::{
    Appended, ErrorKind, Head, HeadVersion, InTransaction, Listed, PartitionIndex, ProducerEpoch, ProducerId,
    ProducerMark, Sequence, Store, StoreError, store::memory::MemoryStore,
};

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

pub(super) fn options(folder: &Path) -> LogOptions {
    LogOptions { wal_segment_bytes: 1 << 17, ..LogOptions::new(folder.to_owned(), stamp) }
}

pub(super) fn stream() -> StreamId {
    StreamId::new(Uuid::from_u128(1), PartitionIndex::new(0))
}

pub(super) fn batch(fill: u8, producer: Option<i32>) -> Append {
    Append {
        stream: stream(),
        records: NonZeroU32::new(2).expect("two"),
        max_timestamp: 7,
        producer: producer.map(|first| ProducerMark {
            id: ProducerId::new(3),
            epoch: ProducerEpoch::new(0),
            first_sequence: Sequence::new(first),
        }),
        transaction: InTransaction::No,
        bytes: BytesMut::from(&[fill; 900][..]),
    }
}

async fn open(folder: &Path) -> Log {
    let log = Log::open(options(folder), Clock::system(), Entropy::system()).await.expect("it opens");
    log.create_stream(stream(), Retention::default()).await.expect("a stream");
    log
}

/// Ends it as a crash does: nothing more is uploaded.
pub(super) async fn crash(log: &Log) {
    let uploads = log.0.uploads.lock().take().expect("it runs");
    uploads.abort();
    let _ = uploads.await;
    log.close().await;
}

pub(super) async fn put(log: &Log, append: Append) -> Appended {
    log.append(vec![append]).await.expect("a call").remove(0).expect("an entry")
}

pub(super) async fn all(log: &Log) -> Vec<Bytes> {
    let (mut at, mut found) = (Offset::default(), Vec::new());
    loop {
        let read = log.read(stream(), at, 4096).await.expect("readable");
        if read.batches.is_empty() {
            return found;
        }
        at = Offset::new(at.get() + 2 * read.batches.len() as u64);
        found.extend(read.batches);
    }
}

#[tokio::test]
async fn what_was_acknowledged_is_read_back_byte_for_byte_after_a_restart_over_many_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path()).await;
    for n in 0..500_u64 {
        assert_eq!(put(&log, batch(n as u8, None)).await.base_offset.get(), n * 2);
    }
    let before = all(&log).await;
    assert_eq!(before.len(), 500);
    crash(&log).await;
    drop(log);
    assert!(fs::read_dir(folder.path().join("wal")).expect("files").count() > 3);
    let log = open(folder.path()).await;
    assert_eq!(all(&log).await, before);
    assert_eq!(put(&log, batch(9, None)).await.base_offset.get(), 1_000);
}

#[tokio::test]
async fn a_duplicate_gets_its_first_offset_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path()).await;
    let first = put(&log, batch(1, Some(0))).await;
    assert!(!first.duplicate);
    log.close().await;
    drop(log);
    let log = open(folder.path()).await;
    let again = put(&log, batch(1, Some(0))).await;
    assert!(again.duplicate);
    assert_eq!(again.base_offset, first.base_offset);
    assert_eq!(all(&log).await.len(), 1);
}

/// The newest file and the byte behind its last frame.
fn tail(folder: &Path) -> (fs::File, Vec<u8>, usize) {
    let mut files: Vec<_> =
        fs::read_dir(folder.join("wal")).expect("files").map(|e| e.expect("entry").path()).collect();
    files.sort();
    let path = files.pop().expect("a file");
    let bytes = fs::read(&path).expect("readable");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("frames") + 1;
    (fs::File::options().write(true).open(path).expect("writable"), bytes, end)
}

#[tokio::test]
async fn a_torn_tail_is_erased_and_the_log_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path()).await;
    put(&log, batch(1, None)).await;
    put(&log, batch(2, None)).await;
    crash(&log).await;
    drop(log);
    let (file, _, end) = tail(folder.path());
    file.write_all_at(&[0xff; 40], end as u64 - 20).expect("torn"); // the last frame, half written
    let log = open(folder.path()).await;
    assert_eq!(all(&log).await.len(), 1);
    assert_eq!(put(&log, batch(3, None)).await.base_offset.get(), 2);
    log.close().await;
    drop(log);
    assert_eq!(all(&open(folder.path()).await).await.len(), 2);
}

#[tokio::test]
async fn damage_before_the_synced_point_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path()).await;
    for n in 0..5 {
        put(&log, batch(n, None)).await;
    }
    crash(&log).await;
    drop(log);
    let (file, bytes, _) = tail(folder.path());
    let inside = bytes.windows(8).position(|window| window == [1; 8]).expect("the second batch");
    file.write_all_at(&[0x55], inside as u64).expect("damaged");
    let opened = Log::open(options(folder.path()), Clock::system(), Entropy::system()).await;
    assert!(matches!(opened, Err(OpenError::Damaged { .. })), "{opened:?}");
}

#[tokio::test]
async fn two_logs_cannot_hold_one_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let _log = open(folder.path()).await;
    assert!(Log::open(options(folder.path()), Clock::system(), Entropy::system()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_appends_share_syncs_and_never_an_offset() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path()).await;
    let before = log.stats().fsyncs;
    let mut tasks = Vec::new();
    for n in 0..200 {
        let log = log.clone();
        tasks.push(tokio::spawn(async move { put(&log, batch(n as u8, None)).await.base_offset.get() }));
    }
    let mut offsets = Vec::new();
    for task in tasks {
        offsets.push(task.await.expect("no panic"));
    }
    offsets.sort_unstable();
    assert_eq!(offsets, (0..200).map(|n| n * 2).collect::<Vec<_>>());
    assert!(log.stats().fsyncs - before < 200, "{} syncs", log.stats().fsyncs - before);
}

#[tokio::test]
async fn retention_moves_the_start_and_offsets_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path()).await;
    for n in 0..4 {
        put(&log, batch(n, None)).await;
    }
    log.delete_before(stream(), Offset::new(4)).await.expect("durable");
    log.close().await;
    drop(log);
    let log = open(folder.path()).await;
    let bounds = log.bounds(stream()).expect("known");
    assert_eq!((bounds.log_start.get(), bounds.durable_end.get()), (4, 8));
    assert!(matches!(log.read(stream(), Offset::new(3), 1).await, Err(ReadError::OutOfRange { .. })));
    assert_eq!(log.read(stream(), Offset::new(4), 1).await.expect("readable").batches.len(), 1);
}

/// Uploads at once, and forgets at once.
pub(super) fn eager(folder: &Path) -> LogOptions {
    LogOptions {
        upload_bytes: 10_000,
        upload_interval: Duration::from_millis(20),
        tail_bytes_max: 20_000,
        retention_interval: Duration::from_millis(20),
        ..options(folder)
    }
}

pub(super) async fn open_with(options: LogOptions) -> Log {
    let log = Log::open(options, Clock::system(), Entropy::system()).await.expect("it opens");
    log.create_stream(stream(), Retention::default()).await.expect("a stream");
    log
}

/// Waits for what must come to pass, however slow the machine.
pub(super) async fn until(mut come: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if come() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never came to pass");
}

pub(super) fn files(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry"));
    entries.map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_alone_gives_back_bytes_bounds_times_and_duplicates() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_with(eager(folder.path())).await;
    for n in 0..300_i32 {
        let append = Append { max_timestamp: i64::from(n) * 10, ..batch(n as u8, Some(n * 2)) };
        put(&log, append).await;
    }
    log.delete_before(stream(), Offset::new(7)).await.expect("durable");
    until(|| log.stats().wal_depth_bytes == 0).await;
    let read_from = |log: Log| async move {
        let (mut at, mut found) = (Offset::new(7), Vec::new());
        while found.len() < 297 {
            let read = log.read(stream(), at, 3000).await.expect("readable");
            at = Offset::new(2 * (3 + found.len() + read.batches.len()) as u64);
            found.extend(read.batches);
        }
        found
    };
    let before = read_from(log.clone()).await;
    let stats = log.stats();
    assert!(stats.uploads > 3 && stats.upload_backlog == 0 && stats.object_bytes > 200_000, "{stats:?}");
    // An object, a file of the index and the head for each upload; and what opened the log.
    assert!(stats.store_puts >= 3 * stats.uploads && stats.store_gets > 0 && stats.store_lists > 0, "{stats:?}");
    let held: usize = log.0.shared.state.read().streams.values().map(|stream| stream.batches.len()).sum();
    assert!(held < 40, "{held} batches are remembered one by one");
    log.close().await;
    drop(log);
    fs::remove_dir_all(folder.path().join("wal")).expect("the write-ahead log is lost");
    let log = open_with(eager(folder.path())).await;
    let bounds = log.bounds(stream()).expect("known");
    assert_eq!((bounds.log_start.get(), bounds.durable_end.get()), (7, 600));
    assert_eq!(read_from(log.clone()).await, before);
    for n in 295..300 {
        let again = put(&log, batch(1, Some(n * 2))).await;
        assert_eq!((again.duplicate, again.base_offset.get()), (true, n as u64 * 2));
    }
    for n in [4_u64, 150, 299] {
        let found = log.find_time(stream(), Offset::new(0), n as i64 * 10 - 5).await.expect("readable");
        assert_eq!(found, Some(Offset::new((n * 2).max(7))));
    }
    assert_eq!(log.latest_time(stream(), Offset::new(0)).await.expect("readable"), Some((2_990, Offset::new(598))));
    assert_eq!(log.find_time(stream(), Offset::new(0), 3_000).await.expect("readable"), None);
    assert_eq!(put(&log, batch(3, Some(600))).await.base_offset.get(), 600);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_store_is_away_appends_go_on_until_the_bound_and_again_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = MemoryStore::new(1);
    let log =
        open_with(LogOptions { wal_bytes_max: 300_000, store: Arc::new(store.clone()), ..eager(folder.path()) }).await;
    store.set_away(true);
    let mut accepted = 0;
    let refused = loop {
        match log.append(vec![batch(1, None)]).await {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        until(|| log.stats().upload_failures > 0 || accepted < 30).await;
    };
    assert!(accepted > 200, "{accepted}");
    assert_eq!(refused.kind(), ErrorKind::Full);
    let said = refused.to_string();
    assert!(said.contains("wal_bytes_max") && said.contains("the store is away"), "{said}");
    assert!(log.stats().wal_depth_bytes >= 300_000);
    assert_eq!(log.bounds(stream()).expect("known").durable_end.get(), accepted * 2);
    store.set_away(false);
    until(|| log.stats().wal_depth_bytes == 0).await;
    assert_eq!(put(&log, batch(2, None)).await.base_offset.get(), accepted * 2);
    assert_eq!(all(&log).await.len() as u64, accepted + 1);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_objects_are_put_together_and_everything_reads_as_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let upload_interval = std::time::Duration::from_millis(1);
    let log = open_with(LogOptions { upload_interval, upload_bytes: 64 << 10, ..options(folder.path()) }).await;
    for n in 0..200_u64 {
        put(&log, batch(n as u8, None)).await;
        until(|| log.stats().uploads > n).await;
    }
    // Some lie there and wait until they come to a quarter of an object; what a look leaves out comes at the next.
    let data = folder.path().join("objects/data");
    until(|| log.stats().objects < 50 && files(&data) as u64 == log.stats().objects).await;
    let stats = log.stats();
    assert!(stats.merges >= 6 && stats.merged_bytes > 150 * 900, "{stats:?}");
    assert_eq!(stats.object_bytes, 200 * 900, "each batch once: {stats:?}");
    let before = all(&log).await;
    assert!(before.len() == 200 && before.iter().enumerate().all(|(n, batch)| batch[8..] == [n as u8; 892]));
    log.close().await;
    drop(log);
    // A bucket alone.
    fs::remove_dir_all(folder.path().join("wal")).expect("removed");
    let log = open(folder.path()).await;
    assert_eq!(all(&log).await, before);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn write_ahead_files_are_used_again_and_objects_go_when_no_stream_needs_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_with(eager(folder.path())).await;
    let other = StreamId::new(Uuid::from_u128(2), PartitionIndex::new(0));
    log.create_stream(other, Retention::default()).await.expect("a stream");
    for n in 0..600_u64 {
        put(&log, batch(n as u8, None)).await;
        if n % 2 == 0 {
            put(&log, Append { stream: other, ..batch(n as u8, None) }).await;
        }
        if n % 50 == 0 {
            until(|| log.stats().wal_depth_bytes < 100_000).await;
        }
    }
    until(|| log.stats().wal_depth_bytes == 0).await;
    let wal = files(&folder.path().join("wal"));
    assert!(wal <= 5, "{wal} write-ahead files for 800 kB in files of 128 KiB");
    let data = folder.path().join("objects/data");
    let objects = files(&data);
    assert!(objects > 10, "{objects}");
    log.set_retention(stream(), Retention { ms: None, bytes: Some(50_000) }).await.expect("durable");
    log.delete_stream(other).await.expect("durable");
    // It keeps what it may, and the rest of the oldest range.
    until(|| log.stats().object_bytes < 75_000 && files(&data) < objects / 2).await;
    until(|| log.stats().wal_depth_bytes == 0 && files(&data) as u64 == log.stats().objects).await;
    let bounds = log.bounds(stream()).expect("known");
    assert!(bounds.log_start.get() > 1_000 && bounds.durable_end.get() == 1_200, "{bounds:?}");
    for at in [bounds.log_start.get().next_multiple_of(2), 1_198] {
        let kept = log.read(stream(), Offset::new(at), 1).await.expect("readable").batches;
        assert!(kept[0][8..] == [(at / 2) as u8; 892], "at {at}");
    }
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_opener_fences_the_first_and_what_it_went_on_without_is_not_passed_over() {
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(1));
    let with = |folder: &Path| LogOptions { store: store.clone(), ..eager(folder) };
    let slow = LogOptions { upload_interval: Duration::from_secs(3600), upload_bytes: 1 << 20, ..with(one.path()) };
    let first = open_with(slow.clone()).await;
    put(&first, batch(1, None)).await;
    let second = open_with(LogOptions { recover: true, ..with(two.path()) }).await;
    put(&second, batch(2, None)).await;
    until(|| second.stats().wal_depth_bytes == 0).await;
    first.0.shared.uploads.notify_one();
    let mut refused = None;
    for _ in 0..2_000 {
        refused = first.append(vec![batch(3, None)]).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused.expect("it is refused at its next contact").kind(), ErrorKind::Fenced);
    assert_eq!(all(&second).await.len(), 1);
    first.close().await;
    drop(first);
    second.close().await;
    drop(second);
    let aside = crate::set_aside_in(one.path()).expect("readable");
    assert!(
        aside.len() == 1 && files(&aside[0]) > 0,
        "what was acknowledged and not uploaded was set aside: {aside:?}"
    );
    let again = open_with(with(one.path())).await;
    assert_eq!(again.beginning(), Beginning::StoreAlone { epoch: 2 });
    assert_eq!(all(&again).await[0][8..], [2; 892]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_was_emptied_is_not_taken_for_a_new_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_with(eager(folder.path())).await;
    for n in 0..300 {
        put(&log, batch(n as u8, None)).await;
    }
    until(|| log.stats().wal_depth_bytes == 0).await;
    log.close().await;
    drop(log);
    fs::remove_dir_all(folder.path().join("objects")).expect("emptied");
    let opened = Log::open(eager(folder.path()), Clock::system(), Entropy::system()).await;
    assert!(matches!(opened, Err(OpenError::Gap { .. })), "{opened:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_object_is_an_error_and_never_other_bytes() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = MemoryStore::new(1);
    let options = LogOptions { store: Arc::new(store.clone()), tail_bytes_max: 0, ..eager(folder.path()) };
    let log = open_with(options).await;
    for n in 0..20 {
        put(&log, batch(n as u8, None)).await;
    }
    until(|| log.stats().wal_depth_bytes == 0).await;
    let object = store.names().into_iter().find(|name| name.starts_with("data/")).expect("an object");
    store.damage(&object, 500);
    let read = log.read(stream(), Offset::default(), 1 << 20).await;
    assert!(matches!(read, Err(ReadError::Damaged { .. })), "{read:?}");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_from_the_beginning_leaves_the_tail_where_it_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open_with(LogOptions { cache_bytes_max: 5_000, ..eager(folder.path()) }).await;
    for n in 0..200 {
        put(&log, batch(n as u8, None)).await;
    }
    until(|| log.stats().wal_depth_bytes == 0).await;
    let newest = || {
        let state = log.0.shared.state.read();
        let place = *state.streams[&stream()].batches.back().expect("the tail's batches are remembered");
        state.tail.find(place.position, place.length).expect("it is in the tail").bytes
    };
    let (before, reads) = (newest(), log.stats().object_reads);
    assert_eq!(all(&log).await.len(), 200);
    assert!(log.stats().object_reads > reads + 100, "the replay came from objects");
    let reads = log.stats().object_reads;
    assert_eq!(newest(), before);
    assert_eq!(log.read(stream(), Offset::new(398), 1).await.expect("readable").batches, [before]);
    assert_eq!(log.stats().object_reads, reads, "the tail answers without the store");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_with_a_write_ahead_log_alone_opens_and_is_uploaded() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path()).await;
    for n in 0..200 {
        put(&log, batch(n as u8, Some(n * 2))).await;
    }
    let before = all(&log).await;
    crash(&log).await;
    drop(log);
    // As it was before there were objects: nothing had been uploaded.
    fs::remove_dir_all(folder.path().join("objects")).expect("removed");
    let log = open_with(eager(folder.path())).await;
    assert_eq!(all(&log).await, before);
    until(|| log.stats().wal_depth_bytes == 0).await;
    assert_eq!(all(&log).await, before);
    assert!(put(&log, batch(9, Some(398))).await.duplicate);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_part_of_what_was_written_together_does_not_hold_all_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = open(folder.path()).await;
    log.append((0..20).map(|n| batch(n, None)).collect()).await.expect("written together");
    let in_tail = |offset: u64| {
        let state = log.0.shared.state.read();
        let stream = &state.streams[&stream()];
        let place = *stream.batches.iter().find(|batch| batch.base.get() == offset).expect("a batch");
        state.tail.find(place.position, place.length).expect("it is in the tail").bytes
    };
    let read = |bytes: usize| {
        let log = log.clone();
        async move { log.read(stream(), Offset::new(4), bytes).await.expect("readable").batches }
    };
    let (few, many) = (read(1_800).await, read(1 << 20).await);
    assert_eq!((few.len(), many.len()), (2, 18));
    assert_eq!(few[..], many[..2]);
    assert_ne!(few[0].as_ptr(), in_tail(4).as_ptr(), "it is a copy");
    assert_eq!(many[0].as_ptr(), in_tail(4).as_ptr(), "who takes most of it copies nothing");
    log.close().await;
}

/// A store that keeps some calls waiting while its gate is shut.
#[derive(Debug)]
struct Gated {
    store: MemoryStore,
    open: watch::Receiver<bool>,
    waiting: Arc<AtomicU64>,
}

impl Gated {
    async fn pass(&self) {
        let mut open = self.open.clone();
        if !*open.borrow() {
            self.waiting.fetch_add(1, Ordering::SeqCst);
        }
        open.wait_for(|open| *open).await.expect("the gate outlives the test");
    }
}

#[async_trait::async_trait]
impl Store for Gated {
    async fn prepare(&self) -> Result<(), StoreError> {
        self.store.prepare().await
    }
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(name, bytes).await
    }
    async fn get(&self, name: &str, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        self.pass().await;
        self.store.get(name, range).await
    }
    async fn get_all(&self, name: &str) -> Result<Bytes, StoreError> {
        self.pass().await;
        self.store.get_all(name).await
    }
    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.store.list(folder).await
    }
    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.store.delete(name).await
    }
    async fn head(&self) -> Result<Option<Head>, StoreError> {
        self.store.head().await
    }
    async fn replace_head(&self, was: Option<&HeadVersion>, bytes: Bytes) -> Result<HeadVersion, StoreError> {
        if self.waiting.load(Ordering::SeqCst) == HEADS_WAIT {
            self.pass().await;
        }
        self.store.replace_head(was, bytes).await
    }
}

/// What `waiting` holds where heads are to wait at the gate too.
const HEADS_WAIT: u64 = 1 << 32;

fn gated(folder: &Path) -> (LogOptions, MemoryStore, watch::Sender<bool>, Arc<AtomicU64>) {
    let (gate, open) = watch::channel(true);
    let (store, waiting) = (MemoryStore::new(1), Arc::<AtomicU64>::default());
    let gated = Gated { store: store.clone(), open, waiting: waiting.clone() };
    let options = LogOptions { tail_bytes_max: 0, cache_bytes_max: 0, store: Arc::new(gated), ..eager(folder) };
    (options, store, gate, waiting)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_a_reader_holds_is_not_removed_under_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let (options, store, gate, waiting) = gated(folder.path());
    let log = open_with(options).await;
    // In many objects, however slow the machine is.
    for n in 0..200 {
        put(&log, batch(n as u8, None)).await;
        if n % 20 == 19 {
            until(|| log.stats().wal_depth_bytes == 0).await;
        }
    }
    let before = log.read(stream(), Offset::default(), 5_000).await.expect("readable").batches;
    gate.send_replace(false);
    let slow = log.clone();
    let reader = tokio::spawn(async move { slow.read(stream(), Offset::default(), 5_000).await });
    until(|| waiting.load(Ordering::SeqCst) == 1).await;
    log.delete_before(stream(), Offset::new(399)).await.expect("durable");
    // What nobody reads goes, and what the reader is about to ask for stays.
    until(|| log.stats().objects_removed > 5).await;
    let objects = || store.names().iter().filter(|name| name.starts_with("data/")).count() as u64;
    assert!(objects() > log.stats().objects, "{:?}", log.stats());
    gate.send_replace(true);
    assert_eq!(reader.await.expect("no panic").expect("it was there when it was asked for").batches, before);
    until(|| objects() == log.stats().objects).await;
    assert!(matches!(log.read(stream(), Offset::default(), 1).await, Err(ReadError::OutOfRange { .. })));
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_log_changes_the_head_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let (options, store, gate, waiting) = gated(folder.path());
    let log = open_with(options.clone()).await;
    until(|| log.stats().wal_depth_bytes == 0).await;
    waiting.store(HEADS_WAIT, Ordering::SeqCst);
    gate.send_replace(false);
    put(&log, batch(1, None)).await;
    until(|| waiting.load(Ordering::SeqCst) > HEADS_WAIT).await;
    let closing = tokio::spawn(async move { log.close().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!closing.is_finished(), "it closed while a head was on its way");
    gate.send_replace(true);
    closing.await.expect("no panic");
    let head = store.head().await.expect("readable").expect("a head").version;
    let log = open_with(options).await;
    assert_ne!(store.head().await.expect("readable").expect("a head").version, head);
    assert_eq!(all(&log).await.len(), 1);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_ahead_log_that_is_lost_is_missed_also_where_nothing_was_written_yet() {
    let folder = tempfile::tempdir().expect("a folder");
    let open = async || Log::open(eager(folder.path()), Clock::system(), Entropy::system()).await.expect("it opens");
    let log = open().await;
    assert_eq!((log.beginning(), log.epoch().get()), (Beginning::New, 1));
    log.close().await;
    drop(log);
    let log = open().await;
    assert_eq!((log.beginning(), log.epoch().get()), (Beginning::Whole, 2));
    log.close().await;
    drop(log);
    fs::remove_dir_all(folder.path().join("wal")).expect("lost");
    let log = open().await;
    assert_eq!((log.beginning(), log.epoch().get()), (Beginning::StoreAlone { epoch: 2 }, 3));
    log.close().await;
}

#[tokio::test]
async fn files_that_a_crash_or_another_setting_left_over_do_not_stay() {
    let folder = tempfile::tempdir().expect("a folder");
    let wal = folder.path().join("wal");
    let log = open_with(eager(folder.path())).await;
    for n in 0..400 {
        put(&log, batch(n as u8, None)).await;
    }
    let of = |kind: &str| {
        let paths = fs::read_dir(&wal).expect("files").map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.extension().is_some_and(|found| found == kind)).count()
    };
    until(|| log.stats().wal_depth_bytes == 0 && of("free") > 0).await;
    log.close().await;
    drop(log);
    fs::write(wal.join("0000000000fffff0.new"), [0; 100]).expect("written");
    let log = open_with(LogOptions { wal_segment_bytes: 1 << 18, ..eager(folder.path()) }).await;
    assert_eq!(of("new"), 0, "a file that was never finished stays");
    for n in 0..300 {
        put(&log, batch(n as u8, None)).await;
    }
    until(|| log.stats().wal_depth_bytes == 0).await;
    for entry in fs::read_dir(&wal).expect("files") {
        let entry = entry.expect("an entry");
        let is_old = entry.metadata().expect("a file").len() < 1 << 18;
        assert!(!(is_old && entry.path().extension().is_some_and(|kind| kind == "free")), "{:?}", entry.path());
    }
    assert_eq!(all(&log).await.len(), 700);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_is_uploaded_at_the_end_and_stays_in_the_local_log_where_the_store_is_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = MemoryStore::new(1);
    let unhurried = || LogOptions {
        upload_bytes: 10_000,
        upload_interval: Duration::from_secs(3_600),
        store: Arc::new(store.clone()),
        ..options(folder.path())
    };
    let log = open_with(unhurried()).await;
    for n in 0..5 {
        put(&log, batch(n, None)).await;
    }
    assert!(log.stats().wal_depth_bytes > 4_500);
    store.set_away(true);
    log.close().await;
    assert!(log.stats().wal_depth_bytes > 4_500);
    drop(log);
    store.set_away(false);
    let log = open_with(unhurried()).await;
    assert_eq!(all(&log).await.len(), 5);
    for n in 5..40 {
        put(&log, batch(n, None)).await;
    }
    log.close().await;
    assert_eq!(log.stats().wal_depth_bytes, 0);
    drop(log);
    fs::remove_dir_all(folder.path().join("wal")).expect("lost");
    let log = open_with(unhurried()).await;
    assert_eq!(all(&log).await.len(), 40);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lost_the_store_in_a_pause_acknowledges_nothing_after_it() {
    let (one, two) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let store = MemoryStore::new(1);
    let clock = Clock::manual(cairn_clock::Timestamp::from_micros(1_000_000_000_000));
    let with = |folder: &Path| LogOptions {
        store: Arc::new(store.clone()),
        upload_interval: Duration::from_secs(3_600),
        ..options(folder)
    };
    let first = Log::open(with(one.path()), clock.clone(), Entropy::system()).await.expect("it opens");
    first.create_stream(stream(), Retention::default()).await.expect("a stream");
    put(&first, batch(1, None)).await;
    let second = open_with(LogOptions { recover: true, ..with(two.path()) }).await;
    clock.advance(Duration::from_secs(5));
    let refused = first.append(vec![batch(2, None)]).await.expect_err("it is refused before it is written");
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    put(&second, batch(3, None)).await;
    // A store that is away at that moment holds up nobody.
    store.set_away(true);
    clock.advance(Duration::from_secs(5));
    put(&second, batch(4, None)).await;
    second.close().await;
    first.close().await;
}

/// Records that never stop coming are not uploaded one by one: an interval takes what there was when it ended.
#[tokio::test(flavor = "multi_thread")]
async fn an_interval_uploads_what_there_was_and_not_each_record_that_comes_meanwhile() {
    const INTERVAL: Duration = Duration::from_millis(200);
    let folder = tempfile::tempdir().expect("a folder");
    // One file holds all of it: each is an object of its own.
    let options = LogOptions { wal_segment_bytes: 32 << 20, ..LogOptions::new(folder.path().to_owned(), stamp) };
    let options = LogOptions { upload_interval: INTERVAL, upload_bytes: 1 << 30, ..options };
    let log = open_with(options).await;
    let began = tokio::time::Instant::now();
    let mut sent = 0;
    while log.stats().uploads < 4 {
        put(&log, batch(1, None)).await;
        sent += 1;
        assert!(sent < 1_000_000, "nothing is uploaded");
    }
    while began.elapsed() < 6 * INTERVAL {
        put(&log, batch(1, None)).await;
    }
    let intervals = began.elapsed().as_millis() / INTERVAL.as_millis();
    let uploads = u128::from(log.stats().uploads);
    assert!(uploads <= intervals + 1, "{uploads} uploads in {intervals} intervals");
    log.close().await;
}
