//! Buckets: what is ours of them over a store in memory with every fault there is, and the services against servers that we did not
//! write: moto for S3, fake-gcs-server, Azurite. The last two take a minute to
//! set up: `cargo test -p cairn-log --lib bucket:: -- --include-ignored` runs them, and so does the proof.

use std::{num::NonZeroU32, time::Duration};

use bytes::BytesMut;
use cairn_clock::{Clock, Entropy};
use object_store::memory::InMemory;

use self::{
    emulators::{Azurite, FakeGcs, or_skip},
    losing::{Faults, Heeds, Losing},
    server::{Moto, moto_or_skip},
};
use super::*;
use crate::{
    Append, InTransaction, LeaderEpoch, Log, LogOptions, Offset, PartitionIndex, Retention, StreamId, WriteAhead,
    store::conformance,
};

#[path = "../../../../clients/buckets/buckets.rs"]
mod emulators;
#[path = "../../../../clients/moto/moto.rs"]
mod server;

/// Every kind of fault, often.
const FAULTS: Faults = Faults { fails: 10, loses: 10, delays: 20, repeats: 10, conflicts: 10 };
/// Seeds over memory.
const SEEDS: u64 = 40;
const SECRET: &str = "s3cret";

// ── over memory ───────────────────────────────────────────────────────────────────────────────────────────────────────

fn store(client: Losing, service: &'static Service) -> BucketStore {
    let built: object_store::Result<Losing> = Ok(client);
    let store = BucketStore::new("test", "b", "some/prefix", service, built).expect("usable");
    BucketStore { page_names_max: 4, ..store }
}

/// All of them, and how each names versions.
fn services() -> [(&'static Service, Versions); 3] {
    [(&s3::SERVICE, Versions::Tag), (&gcs::SERVICE, Versions::Generation), (&azure::SERVICE, Versions::Tag)]
}

#[tokio::test]
async fn every_service_keeps_the_contract_also_when_calls_fail_answers_are_lost_and_conflicts_are_none() {
    for (service, versions) in services() {
        for seed in 0..SEEDS {
            let (memory, faults) = (InMemory::new(), if seed == 0 { Faults::default() } else { FAULTS });
            let open = |n| store(Losing::in_memory(&memory, versions, faults, seed * 2 + n), service);
            conformance::calls(&open(0), &open(1)).await;
        }
    }
}

#[tokio::test]
async fn a_service_that_does_not_heed_a_condition_is_refused_at_the_start_with_which() {
    for (service, versions) in services() {
        for heeds in [Heeds::NotCreate, Heeds::NotUpdate, Heeds::NoUpdate, Heeds::All] {
            let mut client = Losing::in_memory(&InMemory::new(), versions, Faults::default(), 0);
            client.heeds = heeds;
            let store = store(client, service);
            match store.prepare().await {
                Ok(()) => assert_eq!(heeds, Heeds::All, "it must be refused: {}", service.conditions),
                Err(StoreError::Unsupported { reason }) => {
                    assert!(heeds != Heeds::All && reason.contains(service.conditions), "{heeds:?}: {reason}");
                }
                Err(other) => panic!("{heeds:?}: {other}"),
            }
            assert_eq!(store.list("probe/").await.expect("a list"), [], "what was tried goes");
        }
    }
}

#[tokio::test]
async fn a_list_of_many_pages_is_whole_and_in_order() {
    let memory = InMemory::new();
    let store = store(Losing::in_memory(&memory, Versions::Tag, Faults::default(), 0), &s3::SERVICE);
    let names: Vec<String> = (0..37).map(|n| format!("data/00000001/{n:016x}")).collect();
    for name in names.iter().rev() {
        store.put(name, Bytes::from_static(b"x")).await.expect("put");
    }
    store.put("data-beside", Bytes::new()).await.expect("put");
    let found = store.list("data/").await.expect("a list");
    assert_eq!(found.into_iter().map(|listed| listed.name).collect::<Vec<_>>(), names);
}

#[test]
fn what_cannot_be_used_is_refused_and_no_secret_is_shown() {
    let reason = |made: Result<BucketStore, StoreError>| made.expect_err("it must be refused").to_string();
    let secret = || Some(SECRET.to_owned());
    let azure = AzureOptions { container: "c".to_owned(), account: Some("a".to_owned()), ..AzureOptions::default() };
    let both = AzureOptions { account_key: secret(), sas_token: secret(), ..azure.clone() };
    let said = reason(BucketStore::azure(&both));
    assert!(said.contains("one of them") && !said.contains(SECRET), "{said}");
    let no_url = AzureOptions { endpoint: Some("azurite:1".to_owned()), ..azure.clone() };
    assert!(reason(BucketStore::azure(&no_url)).contains("https://"));
    let no_key = AzureOptions { account_key: Some("no base64!".to_owned()), ..azure };
    assert!(!reason(BucketStore::azure(&no_key)).contains("no base64!"));
    let gcs = GcsOptions { bucket: "b".to_owned(), service_account_key: secret(), ..GcsOptions::default() };
    let said = reason(BucketStore::gcs(&gcs));
    assert!(said.contains("gs://b/") && !said.contains(SECRET), "{said}");
    assert!(!format!("{gcs:?}{both:?}").contains(SECRET));
}

// ── against servers ───────────────────────────────────────────────────────────────────────────────────────────────────

async fn blocking<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(start).await.expect("no panic")
}

async fn moto() -> Option<Moto> {
    blocking(|| moto_or_skip(&[])).await
}

async fn fake_gcs() -> Option<FakeGcs> {
    blocking(|| or_skip("Google Cloud Storage", FakeGcs::start())).await
}

async fn azurite() -> Option<Azurite> {
    blocking(|| or_skip("Azure Blob Storage", Azurite::start())).await
}

/// A new bucket's options.
fn in_moto(moto: &Moto, name: &str) -> S3Options {
    moto.make_bucket(name);
    S3Options {
        bucket: name.to_owned(),
        prefix: "some/prefix".to_owned(),
        endpoint: Some(moto.endpoint()),
        region: Some("us-east-1".to_owned()),
        access_key_id: Some("test".to_owned()),
        secret_access_key: Some("s3cret-of-the-test".to_owned()),
        session_token: None,
    }
}

fn in_gcs(gcs: &FakeGcs, name: &str) -> GcsOptions {
    gcs.make_bucket(name);
    GcsOptions {
        bucket: name.to_owned(),
        prefix: "some/prefix".to_owned(),
        endpoint: Some(gcs.endpoint()),
        service_account_key: Some(FakeGcs::KEY.to_owned()),
    }
}

fn in_azurite(azurite: &Azurite, name: &str) -> AzureOptions {
    azurite.make_container(name);
    AzureOptions {
        container: name.to_owned(),
        prefix: "some/prefix".to_owned(),
        endpoint: Some(azurite.endpoint()),
        account: Some(Azurite::ACCOUNT.to_owned()),
        account_key: Some(Azurite::KEY.to_owned()),
        sas_token: None,
    }
}

/// The contract on an empty bucket, in small pages; then on a second one through a client that loses answers.
async fn keeps_the_contract(first: BucketStore, second: BucketStore) {
    let paged = |store: &BucketStore| BucketStore { page_names_max: 4, ..store.clone() };
    conformance::run(&paged(&first), &paged(&first)).await;
    let open = |seed| {
        let client = Arc::new(Losing::over(second.client.clone(), FAULTS, seed));
        BucketStore { client, ..paged(&second) }
    };
    conformance::calls(&open(1), &open(2)).await;
    at_once(&first).await;
}

/// Of many who write at once one wins: creates of one name, and updates of one head.
async fn at_once(store: &BucketStore) {
    for round in 0..5 {
        let name = format!("data/{round:08x}/0000000000000000");
        let creates = (0..8).map(|n| store.put(&name, Bytes::from(vec![n; 100])));
        let won = futures::future::join_all(creates).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(won, 1, "MUST be created once");
        let was = store.head().await.expect("readable").map(|head| head.version);
        let updates = (0..8).map(|n| store.replace_head(was.as_ref(), Bytes::from(format!("{round} of {n}"))));
        let won = futures::future::join_all(updates).await.into_iter().filter(Result::is_ok).count();
        assert_eq!(won, 1, "MUST have one winner");
    }
}

async fn says_that_there_is_none(store: BucketStore, holder: &str) {
    let said = store.prepare().await.expect_err("there is none").to_string();
    assert!(said.contains(&format!("the {holder} does not exist")) && !said.contains("s3cret"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract_and_says_what_is_wrong_with_a_bucket() {
    let Some(moto) = moto().await else { return };
    let options = in_moto(&moto, "contract");
    let store = |options: &S3Options| BucketStore::s3(options).expect("usable options");
    keeps_the_contract(store(&options), store(&in_moto(&moto, "losing"))).await;
    says_that_there_is_none(store(&S3Options { bucket: "none".to_owned(), ..options.clone() }), "bucket").await;
    assert!(!format!("{options:?}{:?}", store(&options)).contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: sets up fake-gcs-server"]
async fn gcs_keeps_the_contract_and_says_what_is_wrong_with_a_bucket() {
    let Some(gcs) = fake_gcs().await else { return };
    let options = in_gcs(&gcs, "contract");
    let store = |options: &GcsOptions| BucketStore::gcs(options).expect("usable options");
    keeps_the_contract(store(&options), store(&in_gcs(&gcs, "losing"))).await;
    says_that_there_is_none(store(&GcsOptions { bucket: "none".to_owned(), ..options.clone() }), "bucket").await;
    assert!(!format!("{options:?}{:?}", store(&options)).contains("s3cret"));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: sets up Azurite"]
async fn azure_keeps_the_contract_and_says_what_is_wrong_with_a_container() {
    let Some(azurite) = azurite().await else { return };
    let options = in_azurite(&azurite, "contract");
    let store = |options: &AzureOptions| BucketStore::azure(options).expect("usable options");
    keeps_the_contract(store(&options), store(&in_azurite(&azurite, "losing"))).await;
    says_that_there_is_none(store(&AzureOptions { container: "none".to_owned(), ..options.clone() }), "container")
        .await;
    let other = "b3RoZXItczNjcmV0LW9mLXRoZS10ZXN0LWFjY291bnQtdGhlcmU=".to_owned();
    let denied = store(&AzureOptions { account_key: Some(other.clone()), ..options.clone() });
    let said = denied.prepare().await.expect_err("the key is another").to_string();
    assert!(said.contains("refuses these credentials") && said.contains("account_key"), "{said}");
    assert!(!format!("{options:?}{:?}{said}", store(&options)).contains(&other));
}

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

fn stream() -> StreamId {
    StreamId::new(uuid::Uuid::from_u128(1), PartitionIndex::new(0))
}

async fn append(log: &Log, fill: u8) {
    let bytes = BytesMut::from(&[fill; 1_000][..]);
    let (producer, transaction, records) = (None, InTransaction::No, NonZeroU32::MIN);
    let entry = Append { stream: stream(), records, max_timestamp: i64::from(fill), producer, transaction, bytes };
    log.append(vec![entry]).await.expect("a call").remove(0).expect("an entry");
}

async fn read(log: &Log, end: u64) -> Vec<Bytes> {
    let (mut at, mut found) = (0, Vec::new());
    while at < end {
        let batches = log.read(stream(), Offset::new(at), 20_000).await.expect("readable").batches;
        at += batches.len() as u64;
        found.extend(batches);
    }
    found
}

/// A log on a machine that nobody has used before.
async fn open(store: &BucketStore, wal: WriteAhead) -> (Log, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = LogOptions::new(folder.path().to_owned(), stamp);
    (options.store, options.wal) = (Arc::new(store.clone()), wal);
    (options.upload_bytes, options.upload_interval) = (50_000, Duration::from_millis(50));
    (options.tail_bytes_max, options.wal_interval) = (0, Duration::from_millis(5));
    let log = Log::open(options, Clock::system(), Entropy::system()).await.expect("it opens");
    log.create_stream(stream(), Retention::default()).await.expect("a stream");
    (log, folder)
}

/// A log's life in a bucket: it comes back from that alone, after a clean end with its write-ahead log on a disk, and after its machine
/// was lost with its write-ahead log there too.
async fn lives(files: BucketStore, objects: BucketStore) {
    let (log, _first) = open(&files, WriteAhead::Local).await;
    for n in 0..200_u8 {
        append(&log, n).await;
    }
    while log.stats().wal_depth_bytes > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = read(&log, 200).await;
    assert_eq!(before.len(), 200);
    assert!(log.stats().object_reads >= 200, "{:?}", log.stats());
    log.close().await;
    let (again, _second) = open(&files, WriteAhead::Local).await;
    assert_eq!(read(&again, 200).await, before);
    assert_eq!(again.find_time(stream(), Offset::new(0), 150).await.expect("readable"), Some(Offset::new(150)));
    // The first, were it to go on, would be refused at its next contact: the head is the second's.
    again.delete_stream(stream()).await.expect("durable");
    while again.stats().objects > 0 || again.stats().objects_removed == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    again.close().await;

    let (log, folder) = open(&objects, WriteAhead::Object).await;
    for n in 0..30_u8 {
        append(&log, n).await;
    }
    let before = read(&log, 30).await;
    drop((log, folder));
    let (again, _folder) = open(&objects, WriteAhead::Object).await;
    assert_eq!(read(&again, 30).await, before, "what was acknowledged is there on a fresh machine");
    append(&again, 30).await;
    assert_eq!(read(&again, 31).await.len(), 31);
    again.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_lives_in_a_bucket_and_comes_back_from_it_alone() {
    let Some(moto) = moto().await else { return };
    let store = |name| BucketStore::s3(&in_moto(&moto, name)).expect("usable options");
    lives(store("files"), store("objects")).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: sets up fake-gcs-server"]
async fn a_log_lives_in_a_bucket_of_gcs_and_comes_back_from_it_alone() {
    let Some(gcs) = fake_gcs().await else { return };
    let store = |name| BucketStore::gcs(&in_gcs(&gcs, name)).expect("usable options");
    lives(store("files"), store("objects")).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: sets up Azurite"]
async fn a_log_lives_in_a_container_of_azure_and_comes_back_from_it_alone() {
    let Some(azurite) = azurite().await else { return };
    let store = |name| BucketStore::azure(&in_azurite(&azurite, name)).expect("usable options");
    lives(store("files"), store("objects")).await;
}
