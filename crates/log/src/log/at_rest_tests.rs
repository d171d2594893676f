//! Encryption of the write-ahead log and its objects: nothing lies in the clear, a missing key changes nothing, what was
//! spoiled is found and a torn tail still is one, and files from before a change of the key stay readable.

use std::{collections::BTreeMap, fs, num::NonZeroU32, path::Path, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::*;
use crate::{
    FolderStore, OpenError, PartitionIndex, SealedStore, StoreError,
    frame::{HEADER_BYTES, Shape},
    sim::at_rest,
    wal::SEALED_HEAD_BYTES,
};

const CANARY: &[u8] = b"a canary that lies nowhere in the clear";
const PER_BATCH: u64 = 2;

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

/// A log that is read from its files: nothing is kept in memory.
fn options(folder: &Path, current: u8, others: &[u8]) -> LogOptions {
    let at_rest = at_rest(current, others);
    let objects = Arc::new(FolderStore::new(folder.join("objects")));
    LogOptions {
        wal_segment_bytes: 1 << 17,
        tail_bytes_max: 0,
        cache_bytes_max: 0,
        upload_interval: Duration::from_secs(3600),
        store: Arc::new(SealedStore::new(objects, at_rest.clone())),
        at_rest,
        ..LogOptions::new(folder.to_owned(), stamp)
    }
}

fn stream() -> StreamId {
    StreamId::new(Uuid::from_u128(1), PartitionIndex::new(0))
}

async fn opened(folder: &Path, current: u8, others: &[u8]) -> Result<Log, OpenError> {
    let log = Log::open(options(folder, current, others), Clock::system(), Entropy::system()).await?;
    log.create_stream(stream(), Retention::default()).await.expect("a stream");
    Ok(log)
}

fn batch(n: usize) -> Append {
    let mut bytes = vec![0; 8];
    bytes.extend_from_slice(CANARY);
    bytes.extend(std::iter::repeat_n(n as u8, 700));
    let records = NonZeroU32::new(PER_BATCH as u32).expect("two");
    let (producer, transaction) = (None, crate::InTransaction::No);
    Append { stream: stream(), records, max_timestamp: 7, producer, transaction, bytes: BytesMut::from(&bytes[..]) }
}

/// Appends so many, several in one call.
async fn fill(log: &Log, count: usize) {
    for first in (0..count).step_by(3) {
        let calls = (first..count.min(first + 3)).map(batch).collect();
        for result in log.append(calls).await.expect("a call") {
            result.expect("appended");
        }
    }
}

async fn all(log: &Log) -> Vec<Bytes> {
    let (mut at, mut found) = (Offset::default(), Vec::new());
    loop {
        let read = log.read(stream(), at, 5_000).await.expect("readable");
        if read.batches.is_empty() {
            return found;
        }
        at = Offset::new(at.get() + PER_BATCH * read.batches.len() as u64);
        found.extend(read.batches);
    }
}

/// Ends it as a crash does: nothing more is uploaded.
async fn crash(log: Log) {
    let uploads = log.0.uploads.lock().take().expect("it runs");
    uploads.abort();
    let _ = uploads.await;
    log.close().await;
}

/// Ends it in order: what there is is uploaded, and the folder is free.
async fn end(log: Log) {
    log.close().await;
}

/// Every file below a folder, with its bytes.
fn files(folder: &Path) -> BTreeMap<std::path::PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).expect("readable"));
        }
    }
    found
}

/// How often it stands in the clear.
fn times_in_the_clear(folder: &Path) -> usize {
    let times = |bytes: &Vec<u8>| bytes.windows(CANARY.len()).filter(|window| *window == CANARY).count();
    files(folder).values().map(times).sum()
}

fn in_the_clear(folder: &Path) -> Vec<std::path::PathBuf> {
    let has = |bytes: &[u8]| bytes.windows(CANARY.len()).any(|window| window == CANARY);
    files(folder).into_iter().filter(|(_, bytes)| has(bytes)).map(|(path, _)| path).collect()
}

#[tokio::test]
async fn nothing_lies_in_the_clear_and_all_is_read_back_from_files_and_objects() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = opened(folder.path(), 1, &[]).await.expect("it opens");
    fill(&log, 400).await;
    let written = all(&log).await;
    assert_eq!(written.len(), 400);
    assert!(written.iter().all(|batch| batch.windows(CANARY.len()).any(|window| window == CANARY)));
    assert_eq!(in_the_clear(folder.path()), [] as [&Path; 0]);
    crash(log).await;
    let log = opened(folder.path(), 1, &[]).await.expect("it opens again");
    assert_eq!(all(&log).await, written, "from the write-ahead log");
    // A clean end uploads what there is.
    log.close().await;
    drop(log);
    let log = opened(folder.path(), 2, &[1]).await.expect("another key");
    assert_eq!(all(&log).await, written, "from objects");
    assert!(files(&folder.path().join("objects")).len() > 2);
    assert_eq!(in_the_clear(folder.path()), [] as [&Path; 0]);
    log.close().await;
}

#[tokio::test]
async fn a_missing_or_wrong_key_is_named_with_the_file_and_changes_nothing() {
    for uploads in [false, true] {
        let folder = tempfile::tempdir().expect("a folder");
        let log = opened(folder.path(), 1, &[]).await.expect("it opens");
        fill(&log, 20).await;
        let written = all(&log).await;
        if uploads {
            end(log).await
        } else {
            crash(log).await
        }
        let before = files(folder.path());
        for (current, others) in [(2, &[][..]), (0, &[]), (0, &[2])] {
            let error = opened(folder.path(), current, others).await.expect_err("its key is not there");
            let words = error.to_string();
            assert!(matches!(error, OpenError::Sealed { .. } | OpenError::Store(StoreError::Unsupported { .. })));
            let names_file = words.contains(".wal") || words.contains("object index/");
            assert!(names_file && words.contains("key test:") && words.contains("nothing was changed"), "{words}");
            assert_eq!(files(folder.path()), before, "nothing was changed");
        }
        let log = opened(folder.path(), 1, &[]).await.expect("with its key");
        assert_eq!(all(&log).await, written);
        log.close().await;
    }
}

#[tokio::test]
async fn what_is_there_stays_readable_while_encryption_or_its_key_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut count = 0;
    for (current, others, uploads) in
        [(0, &[][..], false), (1, &[], false), (2, &[1], true), (0, &[1, 2], false), (1, &[2], true), (1, &[2], false)]
    {
        let log = opened(folder.path(), current, others).await.expect("it opens");
        assert_eq!(all(&log).await.len(), count, "what was there, under key {current}");
        let before = times_in_the_clear(folder.path());
        fill(&log, 50).await;
        count += 50;
        let after = times_in_the_clear(folder.path());
        if current > 0 {
            assert!(after <= before, "{before}, and {after} after more was written under key {current}");
        } else {
            assert!(after >= before + 50, "this test would see it");
        }
        assert_eq!(all(&log).await.len(), count);
        if uploads { end(log).await } else { crash(log).await }
    }
}

#[tokio::test]
async fn what_lay_in_the_clear_goes_with_its_files_once_encryption_is_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = opened(folder.path(), 0, &[]).await.expect("it opens");
    fill(&log, 400).await;
    log.close().await;
    drop(log);
    let wal = folder.path().join("wal");
    assert!(files(&wal).keys().any(|path| path.extension().is_some_and(|end| end == "free")), "nothing to test");
    assert!(!in_the_clear(&wal).is_empty());
    let log = opened(folder.path(), 1, &[]).await.expect("it opens");
    fill(&log, 400).await;
    log.close().await;
    assert_eq!(in_the_clear(&wal), [] as [&Path; 0], "the spares too");
}

/// The one encrypted file with frames, and where each of these begins.
fn frames(folder: &Path) -> (std::path::PathBuf, Vec<u8>, Vec<usize>) {
    let sealed = |bytes: &[u8]| bytes.starts_with(b"CWALE001");
    let (path, bytes) = files(&folder.join("wal")).into_iter().find(|(_, bytes)| sealed(bytes)).expect("a file");
    let (mut at, mut starts) = (SEALED_HEAD_BYTES, Vec::new());
    while bytes[at..].starts_with(b"CFE1") {
        starts.push(at);
        at += Shape::Sealed.frame_length(&bytes[at..]).expect("a header");
    }
    (path, bytes, starts)
}

#[tokio::test]
async fn what_was_spoiled_is_damage_and_a_torn_tail_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = opened(folder.path(), 1, &[]).await.expect("it opens");
    let id = log.0.shared.log;
    fill(&log, 30).await;
    let written = all(&log).await;
    crash(log).await;
    let (path, good, starts) = frames(folder.path());
    let (third, fourth, last) = (starts[3], starts[4], *starts.last().expect("frames"));
    let mend = |bytes: &mut Vec<u8>, at: usize| {
        let body = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four")) as usize;
        let crc = crc32c::crc32c_append(crc32c::crc32c(id.as_bytes()), &bytes[at + 4..at + 8]);
        let crc = crc32c::crc32c_append(crc, &bytes[at + 12..at + HEADER_BYTES + body + 28]);
        bytes[at + 8..at + 12].copy_from_slice(&crc.to_le_bytes());
    };
    let length = fourth - third;
    let mut flipped = good.clone();
    flipped[third + HEADER_BYTES + 5] ^= 1;
    let mut mended = flipped.clone();
    mend(&mut mended, third);
    let mut replayed = good.clone();
    replayed.copy_within(third..third + length, fourth);
    let place =
        (u64::from_le_bytes(good[third + 16..third + 24].try_into().expect("eight")) + length as u64).to_le_bytes();
    replayed[fourth + 16..fourth + 24].copy_from_slice(&place);
    mend(&mut replayed, fourth);
    for (what, spoiled) in [("flipped", &flipped), ("mended", &mended), ("replayed", &replayed)] {
        fs::write(&path, spoiled).expect("written");
        let error = opened(folder.path(), 1, &[]).await.expect_err(what);
        assert!(matches!(error, OpenError::Damaged { .. }), "{what}: {error}");
        assert_eq!(&fs::read(&path).expect("there"), spoiled, "{what}: nothing was changed");
    }
    // The last frame is past every synced point that a frame names.
    for cut in [1, 8, HEADER_BYTES, HEADER_BYTES + 40, length - 8] {
        let mut torn = good.clone();
        torn[last + cut..].fill(0);
        fs::write(&path, &torn).expect("written");
        let log = opened(folder.path(), 1, &[]).await.expect("a torn tail is erased");
        assert_eq!(all(&log).await, written[..27], "cut at {cut}");
        crash(log).await;
    }
}
