//! A check finds what was broken on purpose, and nothing where nothing was.

use std::{num::NonZeroU32, path::Path};

use bytes::{BufMut, BytesMut};
use cairn_clock::{Clock, Entropy};
use tempfile::TempDir;

use super::*;
use crate::{Append, LeaderEpoch, Log, LogOptions, PartitionIndex, Retention, SystemDisk, store::memory::MemoryStore};

const RECORDS: u32 = 3;

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

/// Batches of these tests are a base offset and then one byte again and again.
fn judge(_: StreamId, bytes: &[u8]) -> Result<BatchSpan, String> {
    let (base, fill) = bytes.split_at_checked(8).ok_or("it is short")?;
    if fill.iter().any(|byte| *byte != fill[0]) {
        return Err("its checksum is wrong".to_owned());
    }
    let base = u64::from_be_bytes(base.try_into().expect("eight bytes"));
    let next = Offset::new(base + u64::from(RECORDS));
    Ok(BatchSpan { base: Offset::new(base), next, records: u64::from(RECORDS) })
}

fn stream(n: u32) -> StreamId {
    StreamId::new(Uuid::from_u128(7), PartitionIndex::new(n))
}

struct Place {
    folder: TempDir,
    store: MemoryStore,
}

impl Place {
    /// A log with some objects, and some batches that only the write-ahead log has.
    async fn filled() -> Self {
        let place = Self { folder: tempfile::tempdir().expect("a folder"), store: MemoryStore::new(1) };
        let log = place.open().await;
        for n in 0..2 {
            log.create_stream(stream(n), Retention::default()).await.expect("a stream");
        }
        for n in 0..40 {
            place.append(&log, n, 3_000).await;
        }
        log.close().await;
        drop(log);
        let log = place.open().await;
        for n in 0..5 {
            place.append(&log, n, 100).await;
        }
        // As a crash leaves it: nothing more is uploaded.
        place.store.set_away(true);
        log.close().await;
        drop(log);
        place.store.set_away(false);
        place
    }

    async fn open(&self) -> Log {
        let options = LogOptions {
            store: Arc::new(self.store.clone()),
            upload_bytes: 30_000,
            upload_interval: std::time::Duration::from_secs(3_600),
            merge_objects: 1_000,
            wal_segment_bytes: 1 << 17,
            ..LogOptions::new(self.folder.path().to_owned(), stamp)
        };
        Log::open(options, Clock::system(), Entropy::system()).await.expect("it opens")
    }

    async fn append(&self, log: &Log, n: u32, length: usize) {
        let mut bytes = BytesMut::new();
        bytes.put_u64(0);
        bytes.put_bytes(n as u8, length);
        let records = NonZeroU32::new(RECORDS).expect("some");
        let append = Append {
            stream: stream(n % 2),
            records,
            max_timestamp: i64::from(n),
            producer: None,
            transaction: crate::InTransaction::default(),
            bytes,
        };
        log.append(vec![append]).await.expect("a call").remove(0).expect("a batch");
    }

    async fn check(&self) -> Checked {
        let options = CheckOptions {
            store: Arc::new(self.store.clone()),
            folder: Some(self.folder.path().to_owned()),
            disk: Arc::new(SystemDisk),
            at_rest: AtRest::default(),
        };
        loop {
            match check(&options, &mut judge, &mut |_, _| {}).await {
                // What was dropped has not quite ended.
                Err(OpenError::Disk { source, .. }) if source.kind() == std::io::ErrorKind::WouldBlock => {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                checked => return checked.expect("it can be read"),
            }
        }
    }

    fn objects(&self) -> Vec<String> {
        self.store.names().into_iter().filter(|name| name.starts_with("data/")).collect()
    }

    async fn kinds(&self) -> Vec<FindingKind> {
        let checked = self.check().await;
        assert_eq!(checked.ok, checked.findings.is_empty());
        checked.findings.into_iter().map(|finding| finding.kind).collect()
    }
}

#[tokio::test]
async fn a_whole_log_has_no_findings_and_everything_in_it_is_counted() {
    let place = Place::filled().await;
    let checked = place.check().await;
    assert_eq!(checked.findings, []);
    assert!(checked.ok && checked.files_checked);
    assert_eq!((checked.batches, checked.records), (40, 120));
    assert_eq!(checked.objects, place.objects().len() as u64);
    assert!(checked.objects > 2, "{}", checked.objects);
    assert_eq!((checked.streams, checked.waiting_batches, checked.orphans), (2, 5, 0));
}

#[tokio::test]
async fn each_flipped_bit_of_an_object_is_found_and_named() {
    let place = Place::filled().await;
    let name = place.objects().remove(1);
    let length = place.store.get_all(&name).await.expect("there").len();
    for at in [0, 40, length / 2, length - 100, length - 20, length - 1] {
        place.store.damage(&name, at);
        let checked = place.check().await;
        assert!(!checked.ok, "a flipped bit at byte {at} of {length}");
        assert!(checked.findings.iter().all(|finding| finding.place == name), "{:?}", checked.findings);
        place.store.damage(&name, at);
    }
    assert!(place.check().await.ok, "it is mended");
}

#[tokio::test]
async fn a_missing_object_is_told_with_its_offsets_and_one_that_nothing_names_is_no_finding() {
    let place = Place::filled().await;
    let name = place.objects().remove(1);
    let bytes = place.store.get_all(&name).await.expect("there");
    place.store.delete(&name).await.expect("deleted");
    let checked = place.check().await;
    let finding = checked.findings.first().expect("it is missing");
    assert_eq!((finding.kind, &finding.place), (FindingKind::ObjectMissing, &name));
    assert!(finding.from < finding.to && finding.todo.contains("restore"));
    place.store.put(&name, bytes.clone()).await.expect("back");
    place.store.put("data/00000001/00000000000000ff", bytes).await.expect("put");
    let checked = place.check().await;
    assert!(checked.ok, "{:?}", checked.findings);
    assert_eq!(checked.orphan_names, ["data/00000001/00000000000000ff"]);
}

#[tokio::test]
async fn what_a_batch_says_of_itself_counts_beside_the_checksums_around_it() {
    let place = Place::filled().await;
    let options = CheckOptions {
        store: Arc::new(place.store.clone()),
        folder: None,
        disk: Arc::new(SystemDisk),
        at_rest: AtRest::default(),
    };
    let mut refusing = |id: StreamId, bytes: &[u8]| {
        let span = judge(id, bytes)?;
        if id == stream(0) && span.base.get() == 6 { Err("its checksum is wrong".to_owned()) } else { Ok(span) }
    };
    let checked = check(&options, &mut refusing, &mut |_, _| {}).await.expect("it can be read");
    let [finding] = checked.findings.as_slice() else { panic!("{:?}", checked.findings) };
    assert_eq!((finding.kind, finding.stream), (FindingKind::BatchDamaged, Some(stream(0))));
    assert_eq!((finding.from, finding.to), (Some(Offset::new(6)), Some(Offset::new(9))));
    assert!(!checked.files_checked);
}

#[tokio::test]
async fn a_damaged_index_is_told_and_the_objects_are_read_all_the_same() {
    let place = Place::filled().await;
    let file = place.store.names().into_iter().find(|name| name.starts_with("index/")).expect("a file");
    place.store.damage(&file, 60);
    let checked = place.check().await;
    assert_eq!(checked.findings.first().map(|found| found.kind), Some(FindingKind::IndexDamaged));
    assert_eq!(checked.batches, 40);
}

#[tokio::test]
async fn a_frame_that_was_synced_and_is_bad_is_found_and_a_torn_tail_is_not() {
    let place = Place::filled().await;
    let path = newest(place.folder.path());
    let whole = std::fs::read(&path).expect("a file");
    let end = whole.iter().rposition(|byte| *byte != 0).expect("frames");
    let mut torn = whole.clone();
    torn[end] ^= 1;
    std::fs::write(&path, &torn).expect("written");
    assert_eq!(place.kinds().await, [], "nothing says that the last frame was synced");
    torn[end - 400] ^= 1;
    std::fs::write(&path, &torn).expect("written");
    assert_eq!(place.kinds().await, [FindingKind::FileDamaged]);
    std::fs::remove_file(&path).expect("removed");
    assert_eq!(place.kinds().await, []);
}

fn newest(folder: &Path) -> PathBuf {
    let mut files: Vec<_> =
        std::fs::read_dir(folder.join("wal")).expect("files").map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "wal"));
    files.sort();
    files.pop().expect("a file")
}

#[test]
fn a_gap_and_an_overlap_between_ranges_are_found() {
    let range = |base: u64, next: u64| {
        Arc::new(crate::index::Range {
            object: ObjectId { epoch: 1, number: base },
            part: crate::object::PartPlace { at: 8, bytes: 60 },
            base: Offset::new(base),
            next: Offset::new(next),
            bytes: 1,
            batches: 1,
            max_timestamp: 0,
            epochs: Vec::new(),
            position: base,
            aborted: Vec::new(),
            past: crate::index::Past::default(),
        })
    };
    let found = |start: u64, ranges: &[(u64, u64)], end: u64| {
        let mut stream = crate::index::Indexed { start: Offset::new(start), ..crate::index::Indexed::default() };
        stream.ledger.next = Offset::new(end);
        stream.ranges = ranges.iter().map(|(base, next)| range(*base, *next)).collect();
        let mut checked = Checked::default();
        ranges::check(super::tests::stream(0), &stream, &mut checked);
        let told = checked.findings.into_iter();
        told.map(|one| (one.kind, one.from.map(Offset::get), one.to.map(Offset::get))).collect::<Vec<_>>()
    };
    assert_eq!(found(0, &[(0, 10), (10, 20)], 20), []);
    assert_eq!(found(13, &[(10, 20), (20, 30)], 30), []);
    assert_eq!(found(30, &[], 30), []);
    assert_eq!(found(0, &[(0, 10), (12, 20)], 20), [(FindingKind::Gap, Some(10), Some(12))]);
    assert_eq!(found(0, &[(0, 10), (8, 20)], 20), [(FindingKind::Overlap, Some(8), Some(10))]);
    assert_eq!(
        found(0, &[(5, 10)], 20),
        [(FindingKind::Gap, Some(0), Some(5)), (FindingKind::Gap, Some(10), Some(20))]
    );
}
