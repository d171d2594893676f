//! What readers may hold, of what they fetch for each other, and that none of it is lost when one gives up.

use std::{num::NonZeroUsize, sync::atomic::AtomicUsize, time::Duration};

use tokio::sync::watch;
use uuid::Uuid;

use super::*;
use crate::{
    Head, HeadVersion, Listed, PartitionIndex,
    index::Past,
    object::{ObjectBuilder, ObjectId},
    store::memory::MemoryStore,
};

const BATCH_BYTES: usize = 100 << 10;
const MIB: u64 = 1 << 20;
const SMALL_BYTES: u64 = 256 << 10;

/// A store that counts its reads, and keeps them waiting while its gate is shut.
#[derive(Debug)]
pub(super) struct Counting {
    pub(super) store: MemoryStore,
    open: watch::Receiver<bool>,
    reads: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
}

impl Counting {
    async fn begin_read(&self) {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(under_way, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.open.clone().wait_for(|open| *open).await.expect("the gate outlives the test");
    }
}

#[async_trait::async_trait]
impl Store for Counting {
    async fn prepare(&self) -> Result<(), StoreError> {
        self.store.prepare().await
    }
    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.store.put(name, bytes).await
    }
    async fn get(&self, name: &str, range: std::ops::Range<u64>) -> Result<Bytes, StoreError> {
        self.begin_read().await;
        let got = self.store.get(name, range).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        got
    }
    async fn get_all(&self, name: &str) -> Result<Bytes, StoreError> {
        self.begin_read().await;
        let got = self.store.get_all(name).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        got
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
        self.store.replace_head(was, bytes).await
    }
}

/// Objects of one stream each, with one range, and who reads them.
pub(super) struct Place {
    pub(super) store: Arc<Counting>,
    pub(super) gate: watch::Sender<bool>,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) ranges: Vec<Arc<Range>>,
}

pub(super) fn stream(n: usize) -> StreamId {
    StreamId::new(Uuid::from_u128(7), PartitionIndex::new(u32::try_from(n).expect("few")))
}

impl Place {
    async fn new(objects: usize, batches: u64, cache_bytes: u64) -> Self {
        let mut place = Self::empty(cache_bytes);
        for n in 0..objects {
            place.put(&[n], 0..batches, BATCH_BYTES).await;
        }
        place
    }

    pub(super) fn empty(cache_bytes: u64) -> Self {
        let (gate, open) = watch::channel(true);
        let (reads, under_way, most) = Default::default();
        let store = Arc::new(Counting { store: MemoryStore::new(1), open, reads, under_way, most });
        let fetcher = Arc::new(Fetcher::new(store.clone(), cache_bytes, SMALL_BYTES, Readers::default()));
        Self { store, gate, fetcher, ranges: Vec::new() }
    }

    /// Adds an object of so many batches of each of these streams, two records each.
    pub(super) async fn put(&mut self, streams: &[usize], batches: std::ops::Range<u64>, batch_bytes: usize) {
        let object = ObjectId { epoch: 1, number: self.ranges.len() as u64 };
        let mut builder = ObjectBuilder::default();
        for (n, at) in streams.iter().flat_map(|n| batches.clone().map(move |at| (*n, at))) {
            builder.push((stream(n), 0), Offset::new(2 * at), 2, time_of(at), &vec![at as u8; batch_bytes]);
        }
        let (bytes, places) = builder.finish(Uuid::from_u128(3));
        self.store.put(&object.name(), bytes).await.expect("put");
        for n in streams {
            self.ranges.push(Arc::new(Range {
                object,
                part: places[&(stream(*n), 0)],
                base: Offset::new(2 * batches.start),
                next: Offset::new(2 * batches.end),
                bytes: batches.clone().count() as u64 * batch_bytes as u64,
                batches: u32::try_from(batches.clone().count()).expect("few"),
                max_timestamp: batches.clone().map(time_of).max().unwrap_or(0),
                epochs: vec![(1, Offset::new(0))],
                position: object.number,
                aborted: Vec::new(),
                past: Past::default(),
            }));
        }
    }

    async fn read(&self, n: usize, from: u64, bytes: u64) -> Result<Vec<Stored>, StoreError> {
        let bytes = usize::try_from(bytes).expect("small");
        self.fetcher.read(stream(n), &self.ranges[n], Offset::new(from), bytes).await
    }

    /// Reads a range as a client does, read by read.
    async fn replay(&self, n: usize) {
        let mut at = 0;
        while at < self.ranges[n].next.get() {
            let read = self.read(n, at, MIB).await.expect("readable");
            assert!(read.iter().all(|stored| stored.bytes[..] == vec![(stored.base.get() / 2) as u8; BATCH_BYTES]));
            assert_eq!(read[0].base.get(), at);
            let next = read.last().expect("one at least").next();
            self.fetcher.follow(stream(n), &self.ranges[n..=n], Offset::new(at), next);
            at = next.get();
        }
    }

    pub(super) fn reads(&self) -> usize {
        self.store.reads.load(Ordering::SeqCst)
    }
}

/// Times that rise and fall.
fn time_of(batch: u64) -> i64 {
    (batch as i64 * 7) % 31
}

/// Waits for what must come to pass, however slow the machine.
pub(super) async fn until(mut come: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if come() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("it never came to pass");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_replays_hold_no_more_than_the_cache_and_some_blocks_on_their_way() {
    let cache_bytes = 6 * MIB;
    let place = Arc::new(Place::new(60, 30, cache_bytes).await);
    let replays: Vec<_> = (0..60)
        .map(|n| {
            tokio::spawn({
                let place = place.clone();
                async move { place.replay(n).await }
            })
        })
        .collect();
    for replay in replays {
        replay.await.expect("each reads all of its own");
        assert!(place.fetcher.weight().0 <= cache_bytes);
    }
    let most = NonZeroUsize::new(place.store.most.load(Ordering::SeqCst)).expect("something was read");
    assert!(most.get() <= READS_MAX, "{most} calls were on their way at once");
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_of_one_block_fetch_it_once_and_it_comes_also_when_they_give_up() {
    let place = Arc::new(Place::new(1, 8, 64 * MIB).await);
    place.gate.send_replace(false);
    let read = |place: Arc<Place>| async move { place.read(0, 4, MIB).await.expect("readable").len() };
    let readers: Vec<_> = (0..50).map(|_| tokio::spawn(read(place.clone()))).collect();
    until(|| place.reads() == 1).await;
    let given_up = tokio::spawn(read(place.clone()));
    given_up.abort();
    place.gate.send_replace(true);
    for reader in readers {
        assert_eq!(reader.await.expect("no panic"), 6);
    }
    assert_eq!(place.reads(), 2, "the index of the part once, the block once");
    // All of them give up.
    let place = Arc::new(Place::new(1, 8, 64 * MIB).await);
    place.gate.send_replace(false);
    let reader = tokio::spawn(read(place.clone()));
    until(|| place.fetcher.weight().1 == 1).await;
    reader.abort();
    assert!(reader.await.is_err());
    place.gate.send_replace(true);
    until(|| place.fetcher.weight().0 > 0).await;
}

/// As a fetch does that asks for the end as well, and is answered at once.
#[tokio::test(flavor = "multi_thread")]
async fn who_never_waits_comes_through_all_of_it_however_small_the_cache_is() {
    let place = Arc::new(Place::new(2, 30, 0).await);
    let others = tokio::spawn({
        let place = place.clone();
        async move { place.replay(1).await }
    });
    let (mut at, mut tries) = (0, 0);
    while at < place.ranges[0].next.get() {
        tries += 1;
        assert!(tries < 10_000, "it never came beyond {at}");
        let Some(read) = place.read(0, at, 1).now_or_never() else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            continue;
        };
        at = read.expect("readable")[0].next().get();
    }
    others.await.expect("no panic");
    let held = place.fetcher.core.held.lock();
    assert!(held.on_their_way.is_empty(), "nothing is on its way for nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_goes_on_is_read_ahead_for_and_who_looks_something_up_is_not() {
    let place = Place::new(1, 100, 64 * MIB).await;
    for at in [0, 120, 60, 180] {
        place.read(0, at, 1).await.expect("readable");
        place.fetcher.follow(stream(0), &place.ranges, Offset::new(at), Offset::new(at + 2));
    }
    assert_eq!(place.reads(), 5, "the part, and the block of each");
    let place = Place::new(1, 100, 64 * MIB).await;
    for at in [0, 20] {
        place.read(0, at, MIB).await.expect("readable");
        place.fetcher.follow(stream(0), &place.ranges, Offset::new(at), Offset::new(at + 20));
    }
    until(|| place.reads() == 4 && place.fetcher.weight().1 == 0).await;
    let before = place.reads();
    place.read(0, 40, MIB).await.expect("readable");
    place.read(0, 60, 1).await.expect("readable");
    assert_eq!(place.reads(), before, "it was there already");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_pushes_out_nothing_that_others_read_again() {
    let place = Place::new(4, 80, 8 * MIB).await;
    let others = async || {
        place.read(0, 0, 1).await.expect("readable");
    };
    // Read, pushed out, and read again: it is wanted.
    others().await;
    for n in [1, 2] {
        place.replay(n).await;
        others().await;
    }
    until(|| place.fetcher.weight().1 == 0).await;
    place.replay(3).await;
    until(|| place.fetcher.weight().1 == 0).await;
    let before = place.reads();
    others().await;
    assert_eq!(place.reads(), before, "the replay pushed out what others read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_damaged_is_fetched_again() {
    let place = Place::new(1, 30, 64 * MIB).await;
    let object = place.ranges[0].object.name();
    // In the fourth batch, which is in a chunk and a block with others.
    let at = 3 * BATCH_BYTES + 500;
    place.store.store.damage(&object, at);
    let read = place.read(0, 0, 8 * MIB).await.expect("what lies before it");
    assert_eq!(read.len(), 3);
    assert!(matches!(place.read(0, 6, 1).await, Err(StoreError::Damaged { .. })));
    place.store.store.damage(&object, at);
    assert_eq!(place.read(0, 6, 1).await.expect("it was damaged on its way").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_greatest_time_from_an_offset_on_is_found_without_reading_all() {
    let place = Place::new(1, 90, 64 * MIB).await;
    for start in 0..180_u64 {
        let expected = (start / 2..90).map(|at| (time_of(at), std::cmp::Reverse(at))).max();
        let expected = expected.map(|(time, at)| (time, Offset::new((2 * at.0).max(start))));
        let found = place.fetcher.latest(stream(0), &place.ranges[0], Offset::new(start)).await.expect("readable");
        assert_eq!(found, expected, "from {start} on");
    }
    let place = Place::new(1, 900, 0).await;
    place.fetcher.latest(stream(0), &place.ranges[0], Offset::new(101)).await.expect("readable");
    assert!(place.reads() <= 4, "{} reads", place.reads());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_part_of_a_block_does_not_hold_all_of_it() {
    let place = Place::new(1, 10, 64 * MIB).await;
    let weak = |read: &[Stored]| read[0].bytes.is_unique();
    assert!(weak(&place.read(0, 4, 1).await.expect("readable")), "it is a copy");
    let all = place.read(0, 0, MIB).await.expect("readable");
    assert!(!weak(&all), "who takes all of it copies nothing");
}
