//! A store that does not answer, and who must not notice.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_broker::{BrokerOptions, Principal, TopicSpec};
use cairn_log::{FolderStore, Head, HeadVersion, Listed, LogOptions, PartitionIndex, Readers, Store, StoreError};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, RequestKind, ResponseKind,
    fetch_request::{FetchPartition, FetchTopic},
};
use tokio::{sync::watch, time::timeout};

use super::{PATIENCE, batch, name};
use crate::support::{Served, Wire, eager, open_log, quick, until};

const TOPIC: &str = "both";
/// Its partitions: of the one only the store has the beginning, the other is at its end.
const OLD: u32 = 0;
const NEW: u32 = 1;
const VERSION: i16 = 12;
const HOUR: Duration = Duration::from_secs(3_600);

/// A store whose reads wait while its gate is shut.
#[derive(Debug)]
struct Gated {
    store: FolderStore,
    open: watch::Receiver<bool>,
    waiting: Arc<AtomicUsize>,
}

impl Gated {
    async fn pass(&self) {
        if !*self.open.borrow() {
            self.waiting.fetch_add(1, Ordering::SeqCst);
        }
        self.open.clone().wait_for(|open| *open).await.expect("the gate outlives the test");
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
        self.store.replace_head(was, bytes).await
    }
}

/// A broker whose limits never run out by time, and whose store hangs while the gate is shut.
async fn serve(folder: &Path) -> (Served, watch::Sender<bool>, Arc<AtomicUsize>) {
    let (gate, open) = watch::channel(true);
    let waiting = Arc::<AtomicUsize>::default();
    let store = Gated { store: FolderStore::new(folder.join("objects")), open, waiting: waiting.clone() };
    let readers = Readers::apart().unwrap();
    let eager = LogOptions { tail_bytes_max: 60_000, merge_objects: 1_000, ..eager(folder) };
    let log = LogOptions { store: Arc::new(store), readers, ..eager };
    let mut options: BrokerOptions = quick();
    options.limits.answers_bytes_max = 6 << 20;
    options.limits.bytes_wait_max = HOUR;
    options.limits.store_wait_max = HOUR;
    let served = Served::serve(open_log(log, options).await).await;
    // The batches of tests are old.
    let configs = [("retention.ms".to_owned(), "-1".to_owned())].into();
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(2), configs };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
    for _ in 0..40 {
        put(&served, OLD, 8_000).await;
    }
    until(|| served.broker.log().stats().wal_depth_bytes == 0).await;
    (served, gate, waiting)
}

async fn put(served: &Served, partition: u32, bytes: usize) -> i64 {
    let value = batch(&[&"x".repeat(bytes)]);
    let put = served.broker.produce(&Principal::Anonymous, TOPIC, PartitionIndex::new(partition), value);
    let put = timeout(PATIENCE, put).await.expect("a write waits for no read");
    i64::try_from(put.unwrap().get()).unwrap()
}

fn request(wait: Duration, partitions: &[(u32, i64)]) -> RequestKind {
    let partition = |(at, from): &(u32, i64)| {
        let partition = FetchPartition::default().with_partition(*at as i32).with_fetch_offset(*from);
        partition.with_partition_max_bytes(1 << 20)
    };
    let topic = FetchTopic::default().with_topic(name(TOPIC));
    let topic = topic.with_partitions(partitions.iter().map(partition).collect());
    let request = FetchRequest::default().with_max_wait_ms(wait.as_millis() as i32).with_min_bytes(1);
    RequestKind::Fetch(request.with_max_bytes(4 << 20).with_topics(vec![topic]))
}

async fn answer(wire: &mut Wire) -> FetchResponse {
    let answer =
        timeout(PATIENCE, wire.receive(ApiKey::Fetch, VERSION)).await.expect("an answer that waits for no store");
    let Some(ResponseKind::Fetch(answer)) = answer else { panic!() };
    answer
}

/// Bytes of records of each partition that is told.
fn told(answer: &FetchResponse) -> Vec<(u32, usize)> {
    let all = answer.responses.iter().flat_map(|topic| &topic.partitions);
    all.map(|one| {
        assert_eq!(one.error_code, 0);
        (one.partition_index as u32, one.records.as_ref().map_or(0, Bytes::len))
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_hangs_holds_up_neither_who_reads_at_the_end_nor_who_writes() {
    let folder = tempfile::tempdir().unwrap();
    let (served, gate, waiting) = serve(folder.path()).await;
    gate.send_replace(false);
    // Who reads both is told of the one while there is room to begin with the other,
    let mut wire = Wire::connect(&served).await;
    let both_at_once = async |wire: &mut Wire| {
        let at = put(&served, NEW, 100).await;
        wire.send(ApiKey::Fetch, VERSION, &request(HOUR, &[(OLD, 0), (NEW, at)])).await;
        let both = told(&answer(wire).await);
        assert!(both[0] == (OLD, 0) && both[1].0 == NEW && both[1].1 > 100, "{both:?}");
        at
    };
    both_at_once(&mut wire).await;
    let mut replays = Vec::new();
    let before = served.broker.stats().requests;
    for _ in 0..12 {
        let mut wire = Wire::connect(&served).await;
        wire.send(ApiKey::Fetch, VERSION, &request(Duration::ZERO, &[(OLD, 0)])).await;
        replays.push(wire);
    }
    until(|| served.broker.stats().requests - before == 12 && waiting.load(Ordering::SeqCst) > 0).await;
    for _ in 0..20 {
        let at = put(&served, NEW, 100).await;
        wire.send(ApiKey::Fetch, VERSION, &request(HOUR, &[(NEW, at)])).await;
        assert!(told(&answer(&mut wire).await)[0].1 > 100);
    }
    // and while replays have all of that room.
    let at = both_at_once(&mut wire).await;
    // And of what comes while it waits.
    let before = served.broker.stats().requests;
    wire.send(ApiKey::Fetch, VERSION, &request(HOUR, &[(OLD, 0), (NEW, at + 1)])).await;
    until(|| served.broker.stats().requests > before).await;
    put(&served, NEW, 100).await;
    let both = told(&answer(&mut wire).await);
    assert!(both[0] == (OLD, 0) && both[1].0 == NEW && both[1].1 > 100, "{both:?}");
    gate.send_replace(true);
    for wire in &mut replays {
        assert!(told(&answer(wire).await)[0].1 > 8_000, "it was waited for");
    }
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_the_end_of_one_and_the_beginning_of_another_gets_on_with_both() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _gate, _) = serve(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let mut at = put(&served, NEW, 100).await;
    let mut from = 0;
    // There is always something at the end, and the beginning is not starved for it.
    while from < 40 {
        wire.send(ApiKey::Fetch, VERSION, &request(HOUR, &[(OLD, from), (NEW, at)])).await;
        let answer = answer(&mut wire).await;
        let both = told(&answer);
        assert!(both[1].1 > 0, "{both:?}");
        from += i64::try_from(both[0].1 / 8_000).unwrap();
        at = put(&served, NEW, 100).await;
    }
    assert_eq!(from, 40);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_replays_is_served_apart_from_all_others_until_it_has_caught_up() {
    let folder = tempfile::tempdir().unwrap();
    let (served, gate, waiting) = serve(folder.path()).await;
    let behind = || served.broker.stats().connections_behind;
    let mut wire = Wire::connect(&served).await;
    let mut from = 0;
    while from < 40 {
        wire.send(ApiKey::Fetch, VERSION, &request(HOUR, &[(OLD, from)])).await;
        let told = told(&answer(&mut wire).await);
        let stored = told[0].1 / 8_000;
        from += i64::try_from(stored).unwrap();
        if from < 20 {
            assert!(stored > 0);
            until(|| behind() == 1).await;
        }
    }
    // At the end it is one of many again.
    let at = put(&served, NEW, 100).await;
    wire.send(ApiKey::Fetch, VERSION, &request(HOUR, &[(NEW, at)])).await;
    assert!(told(&answer(&mut wire).await)[0].1 > 100);
    until(|| behind() == 0).await;
    // Who reads both at once is not held up for what it reads at the end.
    wire.send(ApiKey::Fetch, VERSION, &request(HOUR, &[(OLD, 0), (NEW, at)])).await;
    assert!(told(&answer(&mut wire).await)[1].1 > 100);
    assert_eq!(behind(), 0);
    // A connection that is closed there is gone, also while its answer is on its way.
    wire.send(ApiKey::Fetch, VERSION, &request(HOUR, &[(OLD, 0)])).await;
    answer(&mut wire).await;
    until(|| behind() == 1).await;
    let before = served.broker.stats().requests;
    gate.send_replace(false);
    wire.send(ApiKey::Fetch, VERSION, &request(HOUR, &[(OLD, 30)])).await;
    until(|| served.broker.stats().requests > before).await;
    let _ = waiting;
    served.end().await;
}
