//! The log against its promises: durable before visible, torn tails erased, damage refused, duplicates recognised.

use std::{fs, num::NonZeroU32, os::unix::fs::FileExt, path::Path};

use bytes::BytesMut;

use super::*;
use crate::{Appended, PartitionIndex, ProducerEpoch, ProducerId, ProducerMark, Sequence};

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

fn options(folder: &Path) -> LogOptions {
    LogOptions { wal_segment_bytes: 1 << 17, ..LogOptions::new(folder.to_owned(), stamp) }
}

fn stream() -> StreamId {
    StreamId::new(Uuid::from_u128(1), PartitionIndex::new(0))
}

fn batch(fill: u8, producer: Option<i32>) -> Append {
    Append {
        stream: stream(),
        records: NonZeroU32::new(2).expect("two"),
        max_timestamp: 7,
        producer: producer.map(|first| ProducerMark {
            id: ProducerId::new(3),
            epoch: ProducerEpoch::new(0),
            first_sequence: Sequence::new(first),
        }),
        bytes: BytesMut::from(&[fill; 900][..]),
    }
}

async fn open(folder: &Path) -> Log {
    let log = Log::open(options(folder), Clock::system(), Entropy::system()).await.expect("it opens");
    log.create_stream(stream(), Retention::default()).await.expect("a stream");
    log
}

async fn put(log: &Log, append: Append) -> Appended {
    log.append(vec![append]).await.expect("a call").remove(0).expect("an entry")
}

async fn all(log: &Log) -> Vec<Bytes> {
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
    log.close().await;
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
    log.close().await;
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
    log.close().await;
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
