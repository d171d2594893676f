//! The log whose write-ahead log is the store, against its promises: nothing that was acknowledged is lost with a machine, and who
//! was replaced neither acknowledges nor spoils anything, however long it slept.

use std::{num::NonZeroU32, sync::Arc};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::*;
use crate::{
    Appended, ErrorKind, InTransaction, OpenError, PartitionIndex, ProducerEpoch, ProducerId, ProducerMark, Sequence,
    Sight, StoreError, Takes, WriteAhead, await_turn,
    index::{HeadRecord, IndexName},
    ownership,
    store::{
        Store,
        memory::{Faults, MemoryStore},
    },
};

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

/// Machines that share a store.
struct Machines {
    folders: Vec<tempfile::TempDir>,
    store: MemoryStore,
}

impl Machines {
    fn new() -> Self {
        Self { folders: Vec::new(), store: MemoryStore::new(1) }
    }

    /// Options of a machine that nobody has used before.
    fn options(&mut self) -> LogOptions {
        self.folders.push(tempfile::tempdir().expect("a folder"));
        let folder = self.folders.last().expect("just made").path().to_owned();
        LogOptions {
            wal: WriteAhead::Object,
            wal_interval: Duration::from_millis(1),
            wal_segment_bytes: 1 << 17,
            upload_interval: Duration::from_secs(600),
            store: Arc::new(self.store.clone()),
            ..LogOptions::new(folder, stamp)
        }
    }

    async fn open(&mut self) -> Log {
        open(self.options()).await
    }

    fn names(&self, folder: &str) -> usize {
        self.store.names().iter().filter(|name| name.starts_with(folder)).count()
    }
}

async fn open(options: LogOptions) -> Log {
    let log = Log::open(options, Clock::system(), Entropy::system()).await.expect("it opens");
    log.create_stream(stream(), Retention::default()).await.expect("a stream");
    log
}

fn stream() -> StreamId {
    StreamId::new(Uuid::from_u128(1), PartitionIndex::new(0))
}

fn batch(fill: u8, first: i32) -> Append {
    let mark =
        ProducerMark { id: ProducerId::new(3), epoch: ProducerEpoch::new(0), first_sequence: Sequence::new(first) };
    let records = NonZeroU32::new(1).expect("one");
    Append {
        stream: stream(),
        records,
        max_timestamp: 7,
        producer: Some(mark),
        transaction: InTransaction::No,
        bytes: BytesMut::from(&[fill; 900][..]),
    }
}

async fn put(log: &Log, n: u8) -> Result<Appended, AppendError> {
    log.append(vec![batch(n, i32::from(n))]).await?.remove(0)
}

async fn all(log: &Log) -> Vec<Bytes> {
    let (mut at, mut found) = (Offset::default(), Vec::new());
    loop {
        let read = log.read(stream(), at, 4096).await.expect("readable");
        if read.batches.is_empty() {
            return found;
        }
        at = Offset::new(at.get() + read.batches.len() as u64);
        found.extend(read.batches);
    }
}

/// Its process is gone, with all that was not on its way.
async fn vanish(log: Log) {
    let uploads = log.0.uploads.lock().take().expect("it runs");
    uploads.abort();
    let _ = uploads.await;
    let _ = log.0.stop.send(true); // with files there is nobody to hear
}

#[tokio::test]
async fn another_machine_has_all_that_was_acknowledged_and_knows_what_producers_sent() {
    let mut machines = Machines::new();
    let first = machines.open().await;
    for n in 0..20 {
        assert_eq!(put(&first, n).await.expect("stored").base_offset.get(), u64::from(n));
    }
    let before = all(&first).await;
    assert_eq!(first.stats().fsyncs, 0, "no disk is asked");
    vanish(first).await;
    let second = machines.open().await;
    assert_eq!(all(&second).await, before);
    let again = put(&second, 17).await.expect("known");
    assert_eq!((again.duplicate, again.base_offset.get()), (true, 17), "one of the last five");
    assert_eq!(put(&second, 20).await.expect("stored").base_offset.get(), 20);
    assert!(second.epoch().get() >= 2);
    // And once more, before anything was uploaded: what two epochs left is read.
    vanish(second).await;
    let third = machines.open().await;
    assert_eq!(all(&third).await.len(), 21);
}

#[tokio::test]
async fn who_was_replaced_acknowledges_nothing_and_removes_nothing_that_is_needed() {
    let mut machines = Machines::new();
    let old = machines.open().await;
    put(&old, 0).await.expect("stored");
    let new = machines.open().await;
    put(&new, 1).await.expect("stored");
    // It wakes up: it neither acknowledges nor commits, and what it removes is its own.
    let refused = put(&old, 1).await.expect_err("it was replaced");
    assert_eq!(refused.kind(), ErrorKind::Fenced);
    assert!(old.stats().is_fenced);
    old.close().await;
    assert_eq!(all(&new).await.len(), 2);
    vanish(new).await;
    assert_eq!(all(&machines.open().await).await.len(), 2);
}

#[tokio::test]
async fn of_two_that_saw_the_same_owner_go_one_takes_the_store_and_the_other_leaves_it_alone() {
    let mut machines = Machines::new();
    let fresh = LogOptions { owner: 1, takes: Takes::From(None), ..machines.options() };
    let late = LogOptions { owner: 2, takes: Takes::From(None), ..machines.options() };
    let old = open(fresh).await;
    let refused = Log::open(late, Clock::system(), Entropy::system()).await.expect_err("it is not new any more");
    assert!(matches!(refused, OpenError::Store(StoreError::Fenced { epoch: 1 })), "{refused}");
    put(&old, 0).await.expect("stored");
    let gone = ownership(&machines.store).await.expect("readable").map(|owner| owner.epoch);
    vanish(old).await;
    let [first, late] = [1, 2].map(|owner| LogOptions { owner, takes: Takes::From(gone), ..machines.options() });
    let first = open(first).await;
    let refused = Log::open(late, Clock::system(), Entropy::system()).await.expect_err("another was quicker");
    assert!(matches!(refused, OpenError::Store(StoreError::Fenced { .. })), "{refused}");
    put(&first, 1).await.expect("it goes on undisturbed");
    assert_eq!(all(&first).await.len(), 2);
}

#[tokio::test]
async fn fences_stay_when_all_else_of_their_epochs_is_gone() {
    let mut machines = Machines::new();
    let sleeper = machines.open().await;
    put(&sleeper, 0).await.expect("stored");
    let mut next = 1;
    for _ in 0..3 {
        // Each uploads all and collects what nothing needs, found by listing at its start.
        let log = machines.open().await;
        put(&log, next).await.expect("stored");
        next += 1;
        log.close().await;
    }
    let last = machines.options();
    let options = LogOptions { upload_interval: Duration::from_millis(5), ..last };
    let log = open(options).await;
    let wanted = 3 + 1; // of the three epochs before, and of the sleeper's
    let mut waited = 0;
    while machines.names("wal/") > wanted && waited < 6_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        waited += 1;
        if waited % 100 == 0 {
            put(&log, next).await.expect("stored"); // so that there is something to do
            next += 1;
        }
    }
    assert!(machines.names("wal/") <= wanted + 1, "{:?}", machines.store.names());
    // The first of them woke up only now.
    assert_eq!(put(&sleeper, 1).await.expect_err("fenced").kind(), ErrorKind::Fenced);
    assert_eq!(all(&log).await.len(), usize::from(next));
}

/// What is collected between two uploads is found while the index still names objects of the epoch before: its fence is no garbage then.
#[tokio::test]
async fn a_fence_stays_though_a_part_of_its_epoch_is_still_to_be_uploaded() {
    let mut machines = Machines::new();
    let sleeper = machines.open().await;
    for n in 0..60 {
        put(&sleeper, n).await.expect("stored");
    }
    let options = LogOptions { upload_bytes: 40_000, ..machines.options() };
    let log = open(options).await;
    put(&log, 60).await.expect("stored");
    let mut waited = 0;
    // What it uploaded is gone, some of the sleeper's is not uploaded yet.
    while machines.names("wal/") > 50 && waited < 6_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        waited += 1;
    }
    let left = machines.store.names().iter().filter(|name| name.starts_with("wal/00000001/")).count();
    assert!((2..60).contains(&left), "{:?}", machines.store.names());
    assert_eq!(put(&sleeper, 60).await.expect_err("fenced").kind(), ErrorKind::Fenced);
    assert_eq!(all(&log).await.len(), 61);
}

#[tokio::test]
async fn a_store_that_loses_answers_gets_nothing_twice_and_one_that_is_away_is_waited_for() {
    let mut machines = Machines::new();
    let log = machines.open().await;
    machines.store.set_faults(Faults { fails: 20, loses: 30, delays: 20 });
    let puts = (0..60).map(|n| put(&log, n));
    for (n, done) in futures::future::join_all(puts).await.into_iter().enumerate() {
        assert_eq!(done.expect("stored").base_offset.get(), n as u64);
    }
    machines.store.set_faults(Faults::default());
    machines.store.set_away(true);
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { put(&log, 60).await }
    });
    while !log.stats().store_away {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(!waiting.is_finished(), "nothing is acknowledged that the store does not have");
    assert_eq!(log.bounds(stream()).expect("known").durable_end.get(), 60);
    machines.store.set_away(false);
    assert_eq!(waiting.await.expect("no panic").expect("stored").base_offset.get(), 60);
    assert_eq!(all(&log).await.len(), 61);
}

#[tokio::test]
async fn the_log_moves_from_file_to_store_and_back_with_all_it_holds() {
    let mut machines = Machines::new();
    let options = machines.options();
    let (local, object) = (WriteAhead::Local, WriteAhead::Object);
    for (n, wal) in [local, object, object, local, local, object].into_iter().enumerate() {
        let log = open(LogOptions { wal, ..options.clone() }).await;
        assert_eq!(all(&log).await.len(), n * 2, "{wal:?}");
        for more in 0..2 {
            put(&log, (n * 2 + more) as u8).await.expect("stored");
        }
        if n % 2 == 0 {
            vanish(log).await;
        } else {
            log.close().await;
        }
    }
}

#[tokio::test]
async fn a_machine_that_is_lost_after_a_switch_to_the_store_costs_nothing_however_often_it_was_switched() {
    for clean in [false, true] {
        let (mut machines, mut count) = (Machines::new(), 0);
        for round in 0..4 {
            // The machine of the round before is gone.
            let options = machines.options();
            for wal in [WriteAhead::Object, WriteAhead::Local, WriteAhead::Local, WriteAhead::Object] {
                let log = open(LogOptions { wal, ..options.clone() }).await;
                assert_eq!(all(&log).await.len(), count, "{wal:?} in round {round}");
                for _ in 0..round {
                    put(&log, count as u8).await.expect("stored");
                    count += 1;
                }
                if clean {
                    log.close().await;
                } else {
                    vanish(log).await;
                }
            }
        }
        assert_eq!(all(&machines.open().await).await.len(), count);
    }
}

#[tokio::test]
async fn a_switch_to_the_store_that_does_not_come_to_its_end_leaves_nothing_behind_without_a_word() {
    let mut machines = Machines::new();
    let options = machines.options();
    let log = open(LogOptions { wal: WriteAhead::Local, ..options.clone() }).await;
    for n in 0..3 {
        put(&log, n).await.expect("stored");
    }
    vanish(log).await;
    machines.store.refuse(Some("data/"));
    let stopped = Log::open(options.clone(), Clock::system(), Entropy::system()).await;
    assert!(stopped.is_err(), "what the files hold must be in the store first");
    machines.store.refuse(None);
    // Elsewhere it is known that something is missing.
    let elsewhere = Log::open(machines.options(), Clock::system(), Entropy::system()).await;
    assert!(matches!(elsewhere, Err(crate::OpenError::NoWriteAheadLog { .. })), "{elsewhere:?}");
    let log = open(options).await;
    assert_eq!(all(&log).await.len(), 3);
    vanish(log).await;
    assert_eq!(all(&machines.open().await).await.len(), 3);
}

#[tokio::test]
async fn the_head_says_who_has_the_store_and_that_it_ended_well() {
    let mut machines = Machines::new();
    assert_eq!(ownership(&machines.store).await.expect("readable"), None);
    let options = LogOptions { owner: 7, ..machines.options() };
    let log = open(options.clone()).await;
    put(&log, 0).await.expect("stored");
    let owner = ownership(&machines.store).await.expect("readable").expect("there is one");
    assert_eq!((owner.owner, owner.is_closed), (7, false));
    log.close().await;
    assert!(ownership(&machines.store).await.expect("readable").expect("there is one").is_closed);
    drop(log);
    let log = open(options).await;
    assert!(!ownership(&machines.store).await.expect("readable").expect("there is one").is_closed);
    put(&log, 1).await.expect("stored");
    machines.store.set_away(true);
    log.close().await;
    machines.store.set_away(false);
    let owner = ownership(&machines.store).await.expect("readable").expect("there is one");
    assert!(!owner.is_closed, "it left something behind");
}

/// Nobody says anything of the owner.
fn unseen() -> watch::Receiver<Sight> {
    watch::channel(Sight::Open).1
}

#[tokio::test(start_paused = true)]
async fn a_turn_comes_when_the_owner_is_silent_or_has_ended_and_not_while_it_beats() {
    let mut machines = Machines::new();
    let store = machines.store.clone();
    assert_eq!(await_turn(&store, 9, unseen(), |_| {}).await, None, "a new store is anybody's");
    let options = LogOptions { owner: 7, beat_interval: Some(crate::BEAT_INTERVAL), ..machines.options() };
    let log = open(options).await;
    let mut seen = Vec::new();
    let waited =
        tokio::time::timeout(Duration::from_secs(120), await_turn(&store, 9, unseen(), |owner| seen.push(owner.owner)));
    assert!(waited.await.is_err(), "it is there, and idle");
    assert_eq!(seen, [7], "who stands by knows who it is");
    let own = await_turn(&store, 7, unseen(), |_| {}).await.expect("an earlier life of ours");
    assert_eq!(own.owner, 7);
    vanish(log).await;
    let begun = tokio::time::Instant::now();
    let gone = await_turn(&store, 9, unseen(), |_| {}).await.expect("it is silent");
    let took = begun.elapsed();
    assert_eq!(gone.owner, 7);
    assert!(took >= crate::TAKE_OVER_AFTER && took < crate::TAKE_OVER_AFTER + Duration::from_secs(1), "{took:?}");
    // The log's threads end in true time: a clock that leaps while nobody else runs would leave them none to say so.
    tokio::time::resume();
    let next = open(LogOptions { owner: 9, ..machines.options() }).await;
    next.close().await;
    assert!(await_turn(&store, 8, unseen(), |_| {}).await.expect("it ended").is_closed);
}

#[tokio::test(start_paused = true)]
async fn a_turn_comes_sooner_where_the_owner_is_mute_or_nobody_listens_and_never_while_it_beats() {
    for (sees, after) in [(Sight::Mute, crate::TAKE_OVER_AFTER_MUTE), (Sight::Gone, crate::TAKE_OVER_AFTER_GONE)] {
        let mut machines = Machines::new();
        let store = machines.store.clone();
        let (say, sight) = watch::channel(Sight::Open);
        let options = LogOptions { owner: 7, beat_interval: Some(crate::BEAT_INTERVAL), ..machines.options() };
        let log = open(options).await;
        say.send_replace(sees);
        let waited = tokio::time::timeout(Duration::from_secs(120), await_turn(&store, 9, sight.clone(), |_| {}));
        assert!(waited.await.is_err(), "this one cannot reach it, and it is there");
        say.send_replace(Sight::Open);
        let turn = tokio::spawn({
            let (store, sight) = (store.clone(), sight.clone());
            async move { await_turn(&store, 9, sight, |_| {}).await }
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        vanish(log).await;
        let begun = tokio::time::Instant::now();
        say.send_replace(sees);
        assert_eq!(turn.await.expect("no panic").expect("it is gone").owner, 7);
        let took = begun.elapsed();
        assert!(took <= after && took + crate::BEAT_INTERVAL * 2 > after, "{sees:?} {took:?}");
        // The log's threads end in true time.
        tokio::time::resume();
        drop(machines);
        tokio::time::pause();
    }
}

/// By hand, so that no thread but this one has time pass.
#[tokio::test(start_paused = true)]
async fn an_owner_that_ends_is_seen_to_a_moment_after_nobody_listens_any_more() {
    let (store, (say, sight)) = (MemoryStore::new(1), watch::channel(Sight::Open));
    let log = Uuid::from_u128(5);
    let files = vec![IndexName { epoch: 3, sequence: 1, nonce: 1 }];
    let head = HeadRecord { log, epoch: 3, sequence: 1, files, beat: 0, owner: 7, is_closed: false };
    let version = store.replace_head(None, head.encode()).await.expect("written");
    let turn = tokio::spawn({
        let store = store.clone();
        async move {
            assert!(await_turn(&store, 9, sight, |_| {}).await.expect("it ended").is_closed);
            tokio::time::Instant::now()
        }
    });
    tokio::time::sleep(Duration::from_millis(600)).await;
    say.send_replace(Sight::Gone);
    tokio::time::sleep(Duration::from_millis(330)).await;
    let head = HeadRecord { is_closed: true, ..head };
    store.replace_head(Some(&version), head.encode()).await.expect("written");
    let ended = tokio::time::Instant::now();
    let took = turn.await.expect("no panic") - ended;
    assert!(took <= Duration::from_millis(60), "{took:?}");
}
