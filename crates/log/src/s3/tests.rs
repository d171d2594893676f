//! S3 against moto's server.

use std::time::Duration;

use bytes::BytesMut;
use cairn_clock::{Clock, Entropy};

use self::server::{Moto, moto_or_skip};
use super::*;
use crate::{Append, LeaderEpoch, Log, LogOptions, Offset, PartitionIndex, Retention, StreamId};

#[path = "../../../../clients/moto/moto.rs"]
mod server;

async fn moto() -> Option<Moto> {
    tokio::task::spawn_blocking(|| moto_or_skip(&[])).await.expect("no panic")
}

/// A new bucket's options.
fn bucket(moto: &Moto, name: &str) -> S3Options {
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

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_the_contract_and_says_what_is_wrong_with_a_bucket() {
    let Some(moto) = moto().await else { return };
    let options = bucket(&moto, "contract");
    let store = S3Store::new(&options).expect("usable options");
    crate::store::conformance::run(&store, &S3Store::new(&options).expect("usable options")).await;
    let missing = S3Store::new(&S3Options { bucket: "none".to_owned(), ..options.clone() }).expect("usable");
    let said = missing.prepare().await.expect_err("there is no such bucket").to_string();
    assert!(said.contains("bucket does not exist"), "{said}");
    assert!(!format!("{options:?}{store:?}{said}").contains("s3cret"));
}

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_lives_in_a_bucket_and_comes_back_from_it_alone() {
    let Some(moto) = moto().await else { return };
    let options = bucket(&moto, "log");
    let stream = StreamId::new(uuid::Uuid::from_u128(1), PartitionIndex::new(0));
    let open = async || {
        let folder = tempfile::tempdir().expect("a folder");
        let mut log = LogOptions::new(folder.path().to_owned(), stamp);
        log.store = std::sync::Arc::new(S3Store::new(&options).expect("usable options"));
        (log.upload_bytes, log.upload_interval, log.tail_bytes_max) = (50_000, Duration::from_millis(50), 0);
        let log = Log::open(log, Clock::system(), Entropy::system()).await.expect("it opens");
        log.create_stream(stream, Retention::default()).await.expect("a stream");
        (log, folder)
    };
    let read = async |log: &Log, end: u64| {
        let (mut at, mut found) = (0, Vec::new());
        while at < end {
            let batches = log.read(stream, Offset::new(at), 20_000).await.expect("readable").batches;
            at += batches.len() as u64;
            found.extend(batches);
        }
        found
    };
    let (log, _first) = open().await;
    for n in 0..200_u8 {
        let records = std::num::NonZeroU32::MIN;
        let bytes = BytesMut::from(&[n; 1_000][..]);
        let (producer, transaction) = (None, crate::InTransaction::No);
        let entry = Append { stream, records, max_timestamp: i64::from(n), producer, transaction, bytes };
        log.append(vec![entry]).await.expect("a call").remove(0).expect("an entry");
    }
    while log.stats().wal_depth_bytes > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let before = read(&log, 200).await;
    assert_eq!(before.len(), 200);
    assert!(log.stats().object_reads >= 200, "{:?}", log.stats());
    log.close().await;
    let (again, _second) = open().await;
    assert_eq!(read(&again, 200).await, before);
    assert_eq!(again.find_time(stream, Offset::new(0), 150).await.expect("readable"), Some(Offset::new(150)));
    // The first, were it to go on, would be refused at its next contact: the head is the second's.
    again.delete_stream(stream).await.expect("durable");
    while again.stats().objects > 0 || again.stats().objects_removed == 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    again.close().await;
}
