//! Each kind of damage of a write-ahead log in the store is found and named.

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use bytes::BytesMut;
use cairn_clock::{Clock, Entropy};
use cairn_keys::AtRest;
use uuid::Uuid;

use super::*;
use crate::{
    Append, BatchSpan, CheckOptions, InTransaction, LeaderEpoch, Log, LogOptions, Offset, PartitionIndex, Retention,
    StreamId, SystemDisk, WriteAhead, check::check, store::memory::MemoryStore, wal::HEAD_BYTES,
};

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

fn judge(_: StreamId, bytes: &[u8]) -> Result<BatchSpan, String> {
    let base = Offset::new(u64::from_be_bytes(bytes[..8].try_into().expect("eight bytes")));
    if bytes[8..].iter().any(|byte| *byte != bytes[8]) {
        return Err("its checksum is wrong".to_owned());
    }
    Ok(BatchSpan { base, next: Offset::new(base.get() + 1), records: 1 })
}

async fn open(store: &MemoryStore) -> (Log, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let options = LogOptions {
        wal: WriteAhead::Object,
        wal_interval: Duration::from_millis(1),
        upload_interval: Duration::from_secs(600),
        store: Arc::new(store.clone()),
        ..LogOptions::new(folder.path().to_owned(), stamp)
    };
    let log = Log::open(options, Clock::system(), Entropy::system()).await.expect("it opens");
    log.create_stream(stream(), Retention::default()).await.expect("a stream");
    (log, folder)
}

fn stream() -> StreamId {
    StreamId::new(Uuid::from_u128(1), PartitionIndex::new(0))
}

async fn append(log: &Log, fill: u8) {
    let bytes = BytesMut::from(&[fill; 700][..]);
    let (producer, transaction, records) = (None, InTransaction::No, NonZeroU32::MIN);
    let entry = Append { stream: stream(), records, max_timestamp: 7, producer, transaction, bytes };
    log.append(vec![entry]).await.expect("a call").remove(0).expect("a batch");
}

/// A store with what two epochs acknowledged and nobody uploaded, and the owner, which runs.
struct Place {
    store: MemoryStore,
    log: Uuid,
    _owner: (Log, tempfile::TempDir),
}

impl Place {
    async fn filled() -> Self {
        let store = MemoryStore::new(1);
        let first = open(&store).await;
        for n in 0..5 {
            append(&first.0, n).await;
        }
        let owner = open(&store).await;
        for n in 5..9 {
            append(&owner.0, n).await;
        }
        let log = index::load(&store).await.expect("readable").expect("a head").index.log;
        Self { store, log, _owner: owner }
    }

    async fn check(&self) -> Checked {
        let options = CheckOptions {
            store: Arc::new(self.store.clone()),
            folder: None,
            disk: Arc::new(SystemDisk),
            at_rest: AtRest::default(),
        };
        check(&options, &mut judge, &mut |_, _| {}).await.expect("it can be read")
    }

    /// What is found, by kind and place.
    async fn found(&self) -> Vec<(FindingKind, String)> {
        let checked = self.check().await;
        assert_eq!(checked.ok, checked.findings.is_empty());
        assert!(checked.findings.iter().all(|finding| finding.todo.contains("restore it from a copy")));
        checked.findings.into_iter().map(|finding| (finding.kind, finding.place)).collect()
    }

    fn ids(&self, epoch: u32) -> Vec<WalId> {
        let names = self.store.names();
        names.iter().filter_map(|name| WalId::parse(name)).filter(|id| id.epoch == epoch).collect()
    }

    /// The last of the first epoch: its fence.
    fn fence(&self) -> WalId {
        *self.ids(1).last().expect("a fence")
    }

    async fn take(&self, id: WalId) -> Bytes {
        let bytes = self.store.get_all(&id.name()).await.expect("there");
        self.store.delete(&id.name()).await.expect("deleted");
        bytes
    }

    async fn put(&self, id: WalId, bytes: Bytes) {
        self.store.put(&id.name(), bytes).await.expect("put");
    }

    fn position(&self, id: WalId, bytes: &[u8]) -> u64 {
        match wal_object::inspect(bytes, self.log, id) {
            Some(Found::Frames(position)) => position,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_whole_write_ahead_log_in_the_store_has_no_findings_and_is_counted() {
    let place = Place::filled().await;
    let checked = place.check().await;
    assert_eq!(checked.findings, []);
    let objects = place.ids(1).len() + place.ids(2).len() - 1;
    assert_eq!((checked.wal_objects, checked.fences), (objects as u64, 1));
    assert_eq!((checked.waiting_batches, checked.orphans), (9, 0));
    assert!(checked.frames >= 9 && checked.wal_object_bytes > 9 * 700);
}

#[tokio::test]
async fn each_flipped_bit_is_found_and_named() {
    let place = Place::filled().await;
    for id in [place.ids(1)[1], place.ids(2)[0], *place.ids(2).last().expect("some")] {
        let length = place.store.get_all(&id.name()).await.expect("there").len();
        for at in [0, 9, 30, 40, HEAD_BYTES, HEAD_BYTES + 20, length / 2, length - 100] {
            place.store.damage(&id.name(), at);
            let checked = place.check().await;
            let [finding] = checked.findings.as_slice() else {
                panic!("byte {at} of {length}: {:?}", checked.findings)
            };
            assert_eq!((finding.kind, &finding.place), (FindingKind::WriteAheadDamaged, &id.name()), "byte {at}");
            assert!(finding.what.contains("at byte "), "{}", finding.what);
            place.store.damage(&id.name(), at);
        }
    }
    let fence = place.fence();
    place.store.damage(&fence.name(), 30);
    assert_eq!(place.found().await, [(FindingKind::WriteAheadDamaged, fence.name())]);
    place.store.damage(&fence.name(), 30);
    assert_eq!(place.found().await, []);
}

#[tokio::test]
async fn an_object_that_is_missing_and_one_that_is_cut_short_are_found() {
    let place = Place::filled().await;
    let id = place.ids(1)[2];
    let bytes = place.take(id).await;
    assert_eq!(place.found().await, [(FindingKind::WriteAheadMissing, id.name())]);
    place.put(id, bytes.slice(..bytes.len() - 8)).await;
    let found = place.found().await;
    assert!(found.contains(&(FindingKind::WriteAheadDamaged, id.name())), "{found:?}");
    place.take(id).await;
    place.put(id, bytes).await;
    assert_eq!(place.found().await, []);
}

#[tokio::test]
async fn a_fence_that_is_missing_or_is_none_is_found() {
    let place = Place::filled().await;
    let (fence, id) = (place.fence(), place.ids(1)[1]);
    let bytes = place.take(fence).await;
    assert_eq!(place.found().await, [(FindingKind::FenceMissing, fence.name())]);
    place.put(fence, wal_object::object(place.log, 8, fence, &[0; 64])).await;
    assert_eq!(place.found().await, [(FindingKind::FenceMissing, fence.name())]);
    place.take(fence).await;
    place.put(fence, bytes).await;
    // And one that stands where records must be.
    let records = place.take(id).await;
    place.put(id, wal_object::fence(place.log, id, 2)).await;
    assert_eq!(place.found().await, [(FindingKind::WriteAheadDamaged, id.name())]);
    place.take(id).await;
    place.put(id, records).await;
    // An epoch that the index does not know any more, and that nothing ends.
    let stranger = WalId { epoch: 1, number: 900 };
    assert_eq!(place.found().await, []);
    place.put(stranger, wal_object::object(place.log, 8, stranger, &[0; 64])).await;
    let checked = place.check().await;
    assert!(checked.ok && checked.orphan_names == [stranger.name()], "{:?}", checked.findings);
}

#[tokio::test]
async fn objects_that_do_not_follow_each_other_and_frames_of_another_epoch_are_found() {
    let place = Place::filled().await;
    let (one, other) = (place.ids(2)[1], place.ids(2)[2]);
    let (first, second) = (place.take(one).await, place.take(other).await);
    // Each under the name of the other.
    place.put(one, second.clone()).await;
    place.put(other, first.clone()).await;
    let damaged = |id: WalId| (FindingKind::WriteAheadDamaged, id.name());
    assert_eq!(place.found().await, [damaged(one), damaged(other)]);
    place.take(one).await;
    place.take(other).await;
    place.put(other, second).await;
    // The right name, and the frames of before once more.
    let before = place.store.get_all(&place.ids(2)[0].name()).await.expect("there");
    let position = place.position(place.ids(2)[0], &before);
    place.put(one, wal_object::object(place.log, position, one, &before[HEAD_BYTES..])).await;
    let found = place.found().await;
    assert!(found.contains(&(FindingKind::WriteAheadMisplaced, one.name())), "{found:?}");
    place.take(one).await;
    let old = place.ids(1)[3];
    let frames = place.store.get_all(&old.name()).await.expect("there");
    let position = place.position(old, &frames);
    place.put(one, wal_object::object(place.log, position, one, &frames[HEAD_BYTES..])).await;
    let found = place.found().await;
    assert!(found.contains(&damaged(one)), "{found:?}");
    place.take(one).await;
    place.put(one, first).await;
    assert_eq!(place.found().await, []);
}

#[tokio::test]
async fn what_an_owner_has_on_its_way_behind_a_gap_is_no_finding() {
    let place = Place::filled().await;
    let last = *place.ids(2).last().expect("some");
    let ahead = WalId { number: last.number + 2, ..last };
    place.put(ahead, wal_object::object(place.log, 1 << 20, ahead, &[0; 64])).await;
    let checked = place.check().await;
    assert!(checked.ok, "{:?}", checked.findings);
    assert_eq!(checked.orphan_names, [ahead.name()]);
}
