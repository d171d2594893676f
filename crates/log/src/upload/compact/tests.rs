//! Compaction against a model that keeps everything in a map: what is left, where readers find it, and what the index says of time.

use std::{collections::BTreeMap, num::NonZeroU32, path::PathBuf, time::Duration};

use bytes::{Bytes, BytesMut};
use cairn_clock::{Clock, Entropy, Timestamp};
use proptest::prelude::*;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::*;
use crate::{
    Append, LeaderEpoch, LogOptions, PartitionIndex, asked,
    frame::Entry,
    open::{self, Opened},
    sim::{
        disk::SimDisk,
        drive,
        keyed::{self, SimKeys},
    },
    store::memory::MemoryStore,
    writer::Call,
};

/// Something that happens to a stream.
#[derive(Clone, Debug)]
enum Step {
    /// One batch of these keys, with tombstones among them, of that age in ms.
    Append(Vec<(u8, bool)>, i64, usize),
    Upload,
    Merge,
    Compact,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = proptest::collection::vec((0u8..8, proptest::bool::weighted(0.2)), 1..4);
    let append = (records, 0i64..500, 0usize..3_000).prop_map(|(keys, age, bytes)| Step::Append(keys, age, bytes));
    let step = prop_oneof![5 => append, 2 => Just(Step::Upload), 1 => Just(Step::Merge), 1 => Just(Step::Compact)];
    proptest::collection::vec(step, 1..60)
}

/// One record of the model.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Kept {
    key: u8,
    is_gone: bool,
    batch: u64,
    next: u64,
    at_ms: i64,
}

struct Small {
    opened: Opened,
    clock: Clock,
    store: MemoryStore,
    keys_max: usize,
    next: u64,
    /// Every record, by offset.
    all: BTreeMap<u64, Kept>,
}

fn stream() -> StreamId {
    StreamId::new(Uuid::from_u128(1), PartitionIndex::new(0))
}

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

fn opened(store: &MemoryStore, clock: &Clock, keys_max: usize) -> Opened {
    let options = LogOptions {
        wal_segment_bytes: (1 << 16) + 64,
        upload_bytes: 8_000,
        merge_objects: 3,
        compaction_keys_max: keys_max,
        // What the store has is read from there.
        tail_bytes_max: 0,
        disk: Arc::new(SimDisk::new(4)),
        store: Arc::new(store.clone()),
        ..LogOptions::new(PathBuf::from("/log"), stamp)
    };
    let opened = drive(open::open(options, clock.clone(), Entropy::seeded(3))).expect("it opens");
    let _ = opened.shared.keys.set(Arc::new(SimKeys));
    opened
}

impl Small {
    fn new(keys_max: usize) -> Self {
        let (store, clock) = (MemoryStore::new(3), Clock::manual(Timestamp::from_micros(1_000_000_000_000)));
        let opened = opened(&store, &clock, keys_max);
        let mut small = Self { opened, clock, store, keys_max, next: 0, all: BTreeMap::new() };
        small.call(|reply| Call::Change { entry: Entry::Create(stream(), Retention::default()), reply });
        small.policy();
        small
    }

    fn policy(&self) {
        let policy = Compaction { delete_retention_ms: 10_000, dirty_per_mille: 0, ..Compaction::default() };
        let mut state = self.opened.shared.state.write();
        state.streams.get_mut(&stream()).expect("it was made").compaction = Some(policy);
    }

    fn call(&mut self, call: impl FnOnce(oneshot::Sender<crate::writer::Results>) -> Call) {
        let (reply, mut answer) = oneshot::channel();
        self.opened.writer.group(vec![call(reply)]).expect("the disk is good");
        answer.try_recv().expect("an answer").expect("nothing is refused");
    }

    fn append(&mut self, keys: &[(u8, bool)], age: i64, bytes: usize) {
        let at_ms = self.clock.now().as_millis() - age;
        let batch = keyed::fresh((self.next, self.next, at_ms), None, keys, bytes);
        let next = self.next + keys.len() as u64;
        for (offset, (key, is_gone)) in (self.next..).zip(keys) {
            let kept = Kept { key: *key, is_gone: *is_gone, batch: self.next, next, at_ms };
            self.all.insert(offset, kept);
        }
        let records = NonZeroU32::new(keys.len() as u32).expect("at least one");
        let entry = Append { records, max_timestamp: at_ms, bytes: BytesMut::from(&batch[..]), ..an_append(stream()) };
        self.opened.shared.counters.queued.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.call(|reply| Call::Append { entries: vec![entry], bytes: 0, reply });
        self.next = next;
    }

    fn upload(&mut self) {
        while self.opened.uploader.gather().expect("it reads back") {
            drive(self.opened.uploader.settle()).expect("the store is good");
        }
    }

    fn merge(&mut self) {
        if drive(self.opened.uploader.merge()).expect("the store is good") {
            drive(self.opened.uploader.settle()).expect("the store is good");
        }
    }

    fn compact(&mut self) {
        for _ in 0..1_000 {
            if !drive(self.opened.uploader.compact()).expect("the store is good") {
                return;
            }
            drive(self.opened.uploader.settle()).expect("the store is good");
        }
        panic!("it is never done");
    }

    /// Batches from an offset on, up to the end.
    fn read(&self, from: u64) -> Vec<Bytes> {
        let (mut at, mut found) = (from, Vec::new());
        while at < self.next {
            let read = drive(self.opened.shared.read(stream(), Offset::new(at), 2_000, crate::Isolation::Durable))
                .expect("readable");
            assert!(!read.batches.is_empty(), "nothing was read at {at} of {}", self.next);
            assert_eq!(read.durable_end.get(), self.next);
            for bytes in read.batches {
                let (head, _) = keyed::read(&bytes).expect("a batch");
                let next = self.all[&head.base].next;
                assert!(next > at, "the batch at {} lies before {at}", head.base);
                at = next;
                found.push(bytes);
            }
        }
        found
    }

    /// What is left, by offset.
    fn left(&self) -> BTreeMap<u64, Kept> {
        let mut left = BTreeMap::new();
        for bytes in self.read(0) {
            let (head, records) = keyed::read(&bytes).expect("a batch");
            for record in records {
                let offset = head.base + u64::from(record.delta);
                let is_gone = record.value.is_none();
                let next = self.all[&offset].next;
                let kept = Kept { key: record.key, is_gone, batch: head.base, next, at_ms: head.at_ms };
                left.insert(offset, kept);
            }
        }
        left
    }

    /// What the model keeps: of each key the newest record.
    fn newest(&self, with_tombstones: bool) -> BTreeMap<u64, Kept> {
        let of_keys: BTreeMap<u8, u64> = self.all.iter().map(|(offset, kept)| (kept.key, *offset)).collect();
        let newest = of_keys.into_values().map(|offset| (offset, self.all[&offset].clone()));
        newest.filter(|(_, kept)| with_tombstones || !kept.is_gone).collect()
    }

    /// Fetches from everywhere, and asks for times.
    fn compare(&self, expected: &BTreeMap<u64, Kept>) {
        assert_eq!(&self.left(), expected);
        for from in 0..self.next {
            let first = keyed::read(&self.read(from)[0]).expect("a batch").0.base;
            let hit = expected.values().find(|kept| kept.next > from);
            // An empty batch may come before it, never one behind it.
            assert!(hit.is_none_or(|hit| first <= hit.batch) && self.all[&first].next > from, "from {from}");
        }
        let times: Vec<i64> = self.all.values().map(|kept| kept.at_ms).collect();
        for time in times.iter().flat_map(|time| [*time, *time + 1]) {
            let found = drive(self.opened.shared.find_time(stream(), Offset::default(), time)).expect("readable");
            let hit = expected.values().find(|kept| kept.at_ms >= time).map(|kept| Offset::new(kept.batch));
            assert_eq!(found, hit, "the first at {time}");
        }
        let latest = drive(self.opened.shared.latest_time(stream(), Offset::default()))
            .expect("readable")
            .filter(|(at, _)| *at >= 0);
        let most = expected.values().map(|kept| kept.at_ms).max();
        let first = most.and_then(|most| expected.values().find(|kept| kept.at_ms == most));
        assert_eq!(latest, first.map(|kept| (kept.at_ms, Offset::new(kept.batch))));
    }

    /// Ends, and opens again with the bucket alone.
    fn reopen(self) -> Self {
        let Self { opened: ending, clock, store, keys_max, next, all } = self;
        ending.shared.has_ended.store(true, std::sync::atomic::Ordering::Release);
        drive(ending.uploader.release());
        let opened = opened(&store, &clock, keys_max);
        let small = Self { opened, clock, store, keys_max, next, all };
        small.policy();
        small
    }
}

fn an_append(stream: StreamId) -> Append {
    let (records, transaction) = (NonZeroU32::MIN, crate::InTransaction::No);
    Append { stream, records, max_timestamp: 0, producer: None, transaction, bytes: BytesMut::new() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_left_is_the_newest_record_of_every_key(steps in steps(), keys_max in 3usize..12) {
        let mut small = Small::new(keys_max);
        for step in &steps {
            match step {
                Step::Append(keys, age, bytes) => small.append(keys, *age, *bytes),
                Step::Upload => small.upload(),
                Step::Merge => small.merge(),
                Step::Compact => small.compact(),
            }
        }
        small.upload();
        small.compact();
        small.compare(&small.newest(true));
        // Objects are put together again, and nothing comes of it.
        (0..3).for_each(|_| small.merge());
        small.compare(&small.newest(true));
        let mut small = small.reopen();
        small.compare(&small.newest(true));
        small.clock.advance(Duration::from_secs(11));
        small.compact();
        small.compare(&small.newest(false));
        small.append(&[(1, false)], 0, 10);
        let expected = small.newest(false);
        prop_assert!(expected.contains_key(&(small.next - 1)));
    }
}

#[test]
fn a_batch_of_more_keys_than_fit_stays_and_others_are_compacted() {
    let mut small = Small::new(2);
    small.append(&[(1, false), (2, false), (3, false)], 0, 10);
    small.append(&[(4, false), (4, false)], 0, 10);
    small.append(&[(4, false), (1, false)], 0, 10);
    small.upload();
    small.compact();
    let left: Vec<u64> = small.left().into_keys().collect();
    assert_eq!(left, [1, 2, 5, 6], "the older ones of keys 1 and 4 are gone, and the batch of three is there");
}

#[test]
fn who_compacts_much_steps_aside_at_each_batch() {
    let mut small = Small::new(10);
    (0..40).for_each(|at| small.append(&[(at % 8, false)], 0, 10));
    small.upload();
    let before = asked();
    small.compact();
    let asked = asked() - before;
    assert_eq!(small.left().len(), 8);
    // Each is looked at twice: for its keys, and for what stays of it. The chunks that they lie in are few.
    assert!((80..100).contains(&asked), "{asked} times");
}

#[test]
fn a_range_that_is_not_touched_stays_between_two_that_are() {
    let mut small = Small::new(10);
    let both = |key: u8, is_gone: bool| if is_gone { vec![(key, true), (key + 1, false)] } else { vec![(key, false)] };
    for (key, is_gone, bytes) in [(1, true, 4_000), (3, false, 2_000), (4, true, 4_000)] {
        small.append(&both(key, is_gone), 0, bytes);
        small.upload();
        small.compact();
    }
    assert_eq!(small.opened.uploader.index.streams[&stream()].ranges.len(), 3);
    small.compare(&small.newest(true));
    small.clock.advance(Duration::from_secs(11));
    small.compact();
    small.compare(&small.newest(false));
}

#[test]
fn compaction_waits_for_its_ratio_and_its_lags() {
    let mut small = Small::new(10);
    let set = |small: &Small, policy: Compaction| {
        let mut state = small.opened.shared.state.write();
        state.streams.get_mut(&stream()).expect("it was made").compaction = Some(policy);
    };
    let left = |small: &mut Small| {
        small.upload();
        small.compact();
        small.left().len()
    };
    let half = Compaction { dirty_per_mille: 500, ..Compaction::default() };
    set(&small, half);
    (0..10).for_each(|key| small.append(&[(key, false)], 0, 100));
    assert_eq!(left(&mut small), 10);
    (0..9).for_each(|_| small.append(&[(1, false)], 0, 100));
    assert_eq!(left(&mut small), 19, "less than half of it is new");
    small.append(&[(1, false)], 0, 200);
    assert_eq!(left(&mut small), 10);
    set(&small, Compaction { min_lag_ms: 5_000, max_lag_ms: Some(60_000), ..half });
    small.append(&[(1, false)], 0, 2_000);
    small.append(&[(1, false)], 0, 2_000);
    assert_eq!(left(&mut small), 12, "they are too young");
    small.clock.advance(Duration::from_secs(5));
    assert_eq!(left(&mut small), 10);
    small.append(&[(1, false)], 0, 10);
    small.clock.advance(Duration::from_secs(60));
    assert_eq!(left(&mut small), 11, "too little is new");
    small.clock.advance(Duration::from_millis(1));
    assert_eq!(left(&mut small), 10, "it waited long enough");
}
