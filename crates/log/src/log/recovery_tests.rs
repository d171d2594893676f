//! Losing a write-ahead log: what is refused, what a recovery gives and never gives again, and what becomes of the log that was lost.

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use super::{
    tests::{batch, crash, eager, files, open_with, put, stream, until},
    *,
};
use crate::{
    BatchSpan, CheckOptions, ErrorKind, SalvageOptions, Salvaged, SystemDisk, salvage, set_aside_in,
    store::memory::MemoryStore, succession::OFFSETS_RESERVED,
};

/// One store, and several machines that want it.
struct Stage {
    store: MemoryStore,
    folder: tempfile::TempDir,
}

impl Stage {
    fn new() -> Self {
        Self { store: MemoryStore::new(1), folder: tempfile::tempdir().expect("a folder") }
    }

    fn machine(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn options(&self, name: &str) -> LogOptions {
        let upload_interval = Duration::from_millis(20);
        LogOptions { store: Arc::new(self.store.clone()), upload_interval, ..eager(&self.machine(name)) }
    }

    /// A machine that uploads nothing by itself.
    fn slow(&self, name: &str) -> LogOptions {
        LogOptions { upload_interval: Duration::from_secs(3_600), upload_bytes: 1 << 20, ..self.options(name) }
    }

    async fn refused(&self, name: &str) -> OpenError {
        let opened = Log::open(self.options(name), Clock::system(), Entropy::system()).await;
        opened.expect_err("it must not start")
    }

    /// Machine `one` acknowledges ten batches of two records that are uploaded, and three that are not, and is gone.
    async fn lost(&self) {
        let log = open_with(self.options("one")).await;
        for n in 0..10 {
            put(&log, batch(n, None)).await;
        }
        until(|| log.stats().wal_depth_bytes == 0).await;
        log.close().await;
        drop(log);
        let log = open_with(self.slow("one")).await;
        for n in 10..13 {
            assert_eq!(put(&log, batch(n, None)).await.base_offset.get(), 2 * u64::from(n));
        }
        crash(&log).await;
    }

    async fn check(&self) -> crate::Checked {
        let options = CheckOptions {
            store: Arc::new(self.store.clone()),
            folder: None,
            disk: Arc::new(SystemDisk),
            at_rest: Default::default(),
        };
        let mut judge = |_: StreamId, bytes: &[u8]| {
            let base = u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes"));
            Ok(BatchSpan { base: Offset::new(base), next: Offset::new(base + 2), records: 2 })
        };
        crate::check(&options, &mut judge, &mut |_, _| {}).await.expect("it can be read")
    }

    /// Base offset and first byte of what a write-ahead log holds and the store lacks.
    async fn lacking(&self, folder: &Path) -> Vec<(u64, u8)> {
        let options = SalvageOptions {
            folder: folder.to_owned(),
            disk: Arc::new(SystemDisk),
            at_rest: Default::default(),
            store: Arc::new(self.store.clone()),
        };
        let mut found = Vec::new();
        let mut each = |batch: Salvaged<'_>| {
            if batch.is_lacking {
                found.push((batch.base.get(), batch.bytes[8]));
            }
            Ok(())
        };
        let report = salvage(&options, &mut each).await.expect("it can be read");
        assert_eq!((report.batches, &report.damaged), (found.len() as u64, &Vec::new()));
        found
    }
}

async fn first_from(log: &Log, at: u64) -> Option<u64> {
    let read = log.read(stream(), Offset::new(at), 1).await.expect("readable");
    read.batches.first().map(|bytes| u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_log_is_missed_and_a_recovery_gives_no_offset_that_was_given() {
    let stage = Stage::new();
    stage.lost().await;
    let refused = stage.refused("two").await;
    assert!(matches!(refused, OpenError::NoWriteAheadLog { epoch: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("--recover"), "{refused}");
    let log = open_with(LogOptions { recover: true, ..stage.options("two") }).await;
    assert_eq!(log.beginning(), Beginning::Recovered { epoch: 2 });
    let recovery = log.recovery().expect("it was one").clone();
    let [one] = recovery.streams.as_slice() else { panic!("{recovery:?}") };
    let next = 20 + OFFSETS_RESERVED;
    assert_eq!((one.start.get(), one.end.get(), one.next.get()), (0, 20, next));
    assert!(recovery.uploaded_ms.is_some());
    // Who had read to the end, or further, waits there, and gets what comes.
    assert_eq!(log.bounds(stream()).expect("known").durable_end.get(), next);
    for at in [20, 26, 1 << 20] {
        assert_eq!(first_from(&log, at).await, None);
    }
    assert_eq!(put(&log, batch(99, None)).await.base_offset.get(), next);
    for at in [20, 26, 1 << 20, next] {
        assert_eq!(first_from(&log, at).await, Some(next));
    }
    assert_eq!(first_from(&log, 18).await, Some(18));
    until(|| log.stats().wal_depth_bytes == 0).await;
    assert_eq!(stage.check().await.findings, [], "what was passed over is no gap");
    crash(&log).await;
    drop(log);
    // Its own log is here now: nothing is passed over again.
    let log = open_with(stage.options("two")).await;
    assert_eq!(log.beginning(), Beginning::Whole);
    assert_eq!(put(&log, batch(98, None)).await.base_offset.get(), next + 2);
    assert_eq!(first_from(&log, 30).await, Some(next), "out of an object");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_ended_well_needs_no_recovery_and_who_took_over_makes_an_older_log_stale() {
    let stage = Stage::new();
    let log = open_with(stage.slow("one")).await;
    put(&log, batch(1, None)).await;
    log.close().await;
    drop(log);
    let log = open_with(stage.slow("two")).await;
    assert_eq!(log.beginning(), Beginning::StoreAlone { epoch: 1 });
    assert_eq!(put(&log, batch(2, None)).await.base_offset.get(), 2, "no offset is passed over");
    crash(&log).await;
    drop(log);
    // The first machine has a whole write-ahead log, and it is not that of the last owner.
    let refused = stage.refused("one").await;
    assert!(matches!(refused, OpenError::NoWriteAheadLog { epoch: 2, .. }), "{refused}");
    let log = open_with(stage.slow("two")).await;
    assert_eq!((log.beginning(), first_from(&log, 2).await), (Beginning::Whole, Some(2)));
    log.close().await;
    drop(log);
    let log = open_with(stage.slow("one")).await;
    assert_eq!((log.beginning(), first_from(&log, 2).await), (Beginning::StoreAlone { epoch: 3 }, Some(2)));
    assert_eq!(set_aside_in(&stage.machine("one")).expect("readable").len(), 1, "nothing was removed");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_a_folder_is_not_taken_for_the_log() {
    let stage = Stage::new();
    let log = open_with(stage.slow("one")).await;
    put(&log, batch(1, None)).await;
    log.close().await;
    drop(log);
    copy(&stage.machine("one"), &stage.machine("copy"));
    let log = open_with(stage.slow("one")).await;
    put(&log, batch(2, None)).await;
    crash(&log).await;
    drop(log);
    let refused = stage.refused("copy").await;
    assert!(matches!(refused, OpenError::NoWriteAheadLog { .. }), "{refused}");
    let log = open_with(stage.slow("one")).await;
    assert_eq!(first_from(&log, 2).await, Some(2));
    log.close().await;
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("readable").map(|entry| entry.expect("an entry")) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).expect("copied");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_comes_back_is_set_aside_whole_and_what_the_store_lacks_is_read_from_it() {
    let stage = Stage::new();
    stage.lost().await;
    let log = open_with(LogOptions { recover: true, ..stage.options("two") }).await;
    for n in 0..200 {
        put(&log, batch(n, None)).await;
    }
    // Far past where the lost log ended: nothing there may be taken for what the store has.
    until(|| log.stats().wal_depth_bytes == 0).await;
    let held = files(&stage.machine("one").join("wal"));
    let OpenError::Superseded { path, epoch: 3, .. } = stage.refused("one").await else { panic!("it is superseded") };
    assert_eq!(files(&path), held, "nothing is removed");
    assert_eq!(files(&stage.machine("one").join("wal")), 0);
    assert_eq!(stage.lacking(&path).await, [(20, 10), (22, 11), (24, 12)]);
    // The store has another owner, and did not hear that it ended.
    assert!(matches!(stage.refused("one").await, OpenError::NoWriteAheadLog { epoch: 3, .. }));
    log.close().await;
    drop(log);
    let log = open_with(stage.options("one")).await;
    assert_eq!(log.beginning(), Beginning::StoreAlone { epoch: 3 });
    assert_eq!(set_aside_in(&stage.machine("one")).expect("readable"), [path]);
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_fenced_while_it_runs_sets_its_log_aside() {
    let stage = Stage::new();
    let first = open_with(stage.slow("one")).await;
    put(&first, batch(7, None)).await;
    let second = open_with(LogOptions { recover: true, ..stage.options("two") }).await;
    for _ in 0..2_000 {
        if first.append(vec![batch(8, None)]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(first.stats().is_fenced);
    let folder = stage.machine("one");
    until(|| set_aside_in(&folder).is_ok_and(|found| !found.is_empty())).await;
    let aside = set_aside_in(&folder).expect("readable").remove(0);
    let lacking = stage.lacking(&aside).await;
    assert_eq!(lacking.first(), Some(&(0, 7)), "what it had acknowledged is there");
    assert!(lacking[1..].iter().all(|(_, fill)| *fill == 8), "{lacking:?}");
    first.close().await;
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_ends_well_only_where_nothing_is_left() {
    let stage = Stage::new();
    let opened = open::open(stage.slow("one"), Clock::system(), Entropy::system()).await.expect("it opens");
    let Opened { shared, mut writer, uploader, .. } = opened;
    let (reply, _) = oneshot::channel();
    writer.group(vec![Call::Change { entry: Entry::Create(stream(), Retention::default()), reply }]).expect("durable");
    shared.has_ended.store(true, Ordering::Release);
    uploader.release().await;
    drop((writer, shared));
    assert!(matches!(stage.refused("two").await, OpenError::NoWriteAheadLog { .. }), "a change is not uploaded");
    let log = open_with(stage.slow("one")).await;
    log.close().await;
    drop(log);
    assert_eq!(open_with(stage.slow("two")).await.beginning(), Beginning::StoreAlone { epoch: 2 });
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stream_runs_further_ahead_of_the_store_than_a_recovery_passes_over() {
    let stage = Stage::new();
    let log = open_with(stage.slow("one")).await;
    let many = |records: u32| Append { records: NonZeroU32::new(records).expect("some"), ..batch(1, None) };
    put(&log, many(u32::MAX)).await;
    let refused = log.append(vec![many(3)]).await.expect("a call").remove(0).expect_err("it is too far ahead");
    assert_eq!(refused.kind(), ErrorKind::Full, "who sent it tries again: {refused}");
    put(&log, many(1)).await;
    // Once the store has them there is room again.
    log.0.shared.uploads.notify_one();
    log.close().await;
    drop(log);
    let log = open_with(stage.slow("one")).await;
    assert_eq!(put(&log, many(3)).await.base_offset.get(), OFFSETS_RESERVED);
    log.close().await;
}
