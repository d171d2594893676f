//! The table as a consumer keeps it: killed at each call to the store, shut out, asked for what is due.

use std::{
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use cairn_backbone::records::RawRecord;
use cairn_clock::{Clock, Entropy};
use cairn_log::{BucketStore, FolderStore, HeadVersion, Listed, S3Options, Store, StoreError};
use parquet::record::Field;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::*;
use crate::rows;

#[path = "../../../../clients/moto/moto.rs"]
mod server;

/// 2026-11-24.
const NOW_US: u64 = 1_795_521_600_000_000;
const DAY_US: u64 = 86_400_000_000;
const NOW: Timestamp = Timestamp::from_micros(NOW_US);

/// A store that dies at some call: from then on nothing is done any more.
#[derive(Debug)]
struct Mortal {
    inner: FolderStore,
    calls_left: AtomicI64,
    /// Whether the last call is done and its answer lost.
    dies_after: bool,
}

impl Mortal {
    fn new(folder: &Path, calls: i64, dies_after: bool) -> Arc<Self> {
        Arc::new(Self { inner: FolderStore::new(folder.to_owned()), calls_left: AtomicI64::new(calls), dies_after })
    }

    async fn attempt<T>(&self, call: impl Future<Output = Result<T, StoreError>> + Send) -> Result<T, StoreError> {
        let dead = || Err(StoreError::Unsupported { reason: "it was killed".to_owned() });
        match self.calls_left.fetch_sub(1, Ordering::SeqCst) {
            left if left > 1 => call.await,
            1 if self.dies_after => {
                let _ = call.await;
                dead()
            }
            _ => dead(),
        }
    }
}

#[async_trait]
impl Store for Mortal {
    async fn prepare(&self) -> Result<(), StoreError> {
        self.attempt(self.inner.prepare()).await
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.attempt(self.inner.put(name, bytes)).await
    }

    async fn get(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.attempt(self.inner.get(name, range)).await
    }

    async fn get_all(&self, name: &str) -> Result<Bytes, StoreError> {
        self.attempt(self.inner.get_all(name)).await
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        self.attempt(self.inner.list(folder)).await
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        self.attempt(self.inner.delete(name)).await
    }

    async fn head(&self) -> Result<Option<cairn_log::Head>, StoreError> {
        self.attempt(self.inner.head()).await
    }

    async fn replace_head(&self, was: Option<&HeadVersion>, bytes: Bytes) -> Result<HeadVersion, StoreError> {
        self.attempt(self.inner.replace_head(was, bytes)).await
    }
}

/// A record in partition 0 of a topic.
fn record(topic: &str, (id, offset): (u128, u64), kind: &str, data: &Value, time_us: u64) -> RawRecord {
    let mut data = data.clone();
    data["contract"] = json!({ "name": kind, "version": 1 });
    let headers = [
        ("ce_id", Uuid::from_u128(id).to_string()),
        ("ce_type", format!("io.cairn.{kind}")),
        ("ce_source", "cairn://gateway/gw-1".to_owned()),
        ("ce_time", Timestamp::from_micros(time_us).to_string()),
    ];
    RawRecord {
        topic: topic.to_owned(),
        partition: 0,
        offset,
        timestamp_ms: 0,
        key: None,
        headers: headers.map(|(name, value)| (name.to_owned(), Bytes::from(value))).to_vec(),
        value: Some(Bytes::from(data.to_string())),
    }
}

/// The events of `from..to` of a partition, the one at offset 5 once more at 6, and what is no event at 7.
fn batch(from: Option<u64>, to: u64) -> Batch {
    let mut batch = Batch::default();
    for offset in from.unwrap_or_default()..to {
        let id = if offset == 6 { 5 } else { offset };
        let data = json!({ "workflow_id": "w", "principal": "ann", "server": "orders" });
        let mut one = record("mcp.calls", (id.into(), offset), "call.intent", &data, NOW_US + offset);
        if offset == 7 {
            one.value = None;
        }
        batch.push(one, || ("one".to_owned(), from));
    }
    batch
}

fn taken(runtime: &Runtime, store: Arc<dyn Store>, location: &str) -> Result<Table, TableError> {
    runtime.block_on(Table::take(store, location, (Clock::system(), Entropy::system())))
}

fn location(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

/// Commits with each batch.
const AT_ONCE: Pace = Pace { every: Duration::ZERO, bytes: 1, tidies: Duration::MAX };

fn opened(runtime: &Runtime, folder: &Path) -> LakeSink {
    let table = taken(runtime, Arc::new(FolderStore::new(folder.to_owned())), &location(folder)).expect("taken");
    LakeSink::new(table, runtime.handle().clone(), AT_ONCE).expect("a sink")
}

/// Where the sink stands in the one partition.
fn next(sink: &mut LakeSink) -> Option<u64> {
    sink.positions().expect("positions").first().map(|position| position.next)
}

/// The offsets of all rows, in order.
fn offsets(sink: &mut LakeSink) -> Vec<i64> {
    let handle = sink.handle.clone();
    let mut found = Vec::new();
    for entry in handle.block_on(sink.table.files()).expect("files") {
        let bytes = handle.block_on(sink.table.rows_of(&entry.file.path)).expect("rows");
        rows::each(bytes, &["offset"], |row| {
            let [Field::Long(offset)] = row else { panic!("an offset: {row:?}") };
            found.push(*offset);
        })
        .expect("read");
    }
    found.sort_unstable();
    found
}

const ALL: [i64; 8] = [0, 1, 2, 3, 4, 5, 8, 9];

/// Consumes to the end as a process that is killed at some call would; whether it came to the end.
fn consumed(runtime: &Runtime, store: Arc<dyn Store>, location: &str) -> bool {
    let work = || -> Result<(), SinkError> {
        let table = taken(runtime, store, location).map_err(sunk)?;
        let mut sink = LakeSink::new(table, runtime.handle().clone(), AT_ONCE)?;
        for to in [3, 6, 10] {
            let from = next(&mut sink);
            if from.unwrap_or_default() < to {
                sink.apply(&batch(from, to))?;
            }
        }
        sink.end()
    };
    work().is_ok()
}

#[test]
fn killed_at_any_call_to_the_store_it_misses_nothing_and_has_nothing_twice() {
    let runtime = Runtime::new().expect("a runtime");
    for dies_after in [false, true] {
        for calls in 1.. {
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path();
            let has_ended = consumed(&runtime, Mortal::new(path, calls, dies_after), &location(path));
            // The next process goes on where the table stands.
            let store = Arc::new(FolderStore::new(path.to_owned()));
            assert!(consumed(&runtime, store, &location(path)), "killed at call {calls}");
            let mut sink = opened(&runtime, path);
            assert_eq!(offsets(&mut sink), ALL, "killed at call {calls}, after it: {dies_after}");
            assert_eq!(next(&mut sink), Some(10));
            if has_ended {
                assert!(calls > 20, "{calls} calls are too few to say anything");
                break;
            }
        }
    }
}

#[test]
fn a_writer_that_was_stalled_commits_nothing_and_is_told_to_end() {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut stalled = opened(&runtime, folder.path());
    stalled.apply(&batch(None, 3)).expect("it waits");
    // It sleeps with rows that it has not committed; another one takes its place and commits them.
    let mut other = opened(&runtime, folder.path());
    other.apply(&batch(None, 4)).expect("it waits");
    other.end().expect("committed");
    let refused = stalled.end().expect_err("it was shut out");
    assert!(matches!(refused, SinkError::Taken { .. }), "{refused:?}");
    assert!(matches!(stalled.apply(&batch(Some(3), 5)), Err(SinkError::Taken { .. })), "and stays so");
    assert_eq!(offsets(&mut other), [0, 1, 2, 3]);
}

#[test]
fn a_commit_that_begins_elsewhere_than_the_table_stands_is_refused_within_one_epoch_too() {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut sink = opened(&runtime, folder.path());
    let store: Arc<dyn Store> = Arc::new(FolderStore::new(folder.path().to_owned()));
    sink.apply(&batch(None, 3)).expect("it waits");
    sink.end().expect("committed");
    let joined = runtime.block_on(Table::join(store, Clock::system(), Entropy::system())).expect("joined");
    let mut beside = LakeSink::new(joined, runtime.handle().clone(), AT_ONCE).expect("a sink");
    sink.apply(&batch(Some(3), 6)).expect("it waits");
    sink.end().expect("committed");
    beside.apply(&batch(Some(3), 6)).expect("it waits");
    assert_eq!(beside.end(), Err(SinkError::Moved));
    assert_eq!(offsets(&mut sink), [0, 1, 2, 3, 4, 5]);
    assert_eq!(next(&mut beside), Some(6), "it stands where the table does");
}

#[test]
fn what_a_crash_left_beside_the_table_is_removed_and_what_is_in_it_stays() {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut sink = opened(&runtime, folder.path());
    sink.apply(&batch(None, 3)).expect("it waits");
    sink.end().expect("committed");
    let left = sink.table.path_of("dead", 0);
    runtime.block_on(sink.table.put_rows(&left, Bytes::from_static(b"rows"))).expect("put");
    let left = left.strip_prefix("file://").expect("a file").to_owned();
    assert!(Path::new(&left).exists());
    let mut next = opened(&runtime, folder.path());
    assert!(!Path::new(&left).exists());
    assert_eq!(offsets(&mut next), [0, 1, 2]);
}

#[test]
fn many_commits_stay_readable_and_their_lists_short() {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut sink = opened(&runtime, folder.path());
    for offset in 0..80_u64 {
        let data = json!({ "workflow_id": "w" });
        let mut batch = Batch::default();
        let from = (offset > 0).then_some(offset);
        batch.push(record("mcp.calls", (offset.into(), offset), "call.intent", &data, NOW_US), || {
            ("one".to_owned(), from)
        });
        sink.apply(&batch).expect("applied");
        sink.end().expect("committed");
    }
    let mut again = opened(&runtime, folder.path());
    assert_eq!(offsets(&mut again), (0..80).collect::<Vec<_>>());
    let manifests = std::fs::read_dir(folder.path().join("metadata")).expect("a folder").count();
    // Fifty snapshots, each with a list, a manifest and its metadata.
    assert!(manifests < 250, "{manifests} objects");
}

#[test]
fn small_files_become_one_without_changing_a_row_and_say_what_they_hold() {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut sink = opened(&runtime, folder.path());
    for offset in 0..20_u64 {
        let mut batch = Batch::default();
        let from = (offset > 0).then_some(offset);
        let one = record(
            "mcp.calls",
            (offset.into(), offset),
            "call.intent",
            &json!({ "workflow_id": "w" }),
            NOW_US + offset,
        );
        batch.push(one, || ("one".to_owned(), from));
        sink.apply(&batch).expect("applied");
        sink.end().expect("committed");
    }
    // What waits is not touched.
    let mut more = Batch::default();
    let one = record("mcp.calls", (20, 20), "call.intent", &json!({ "workflow_id": "w" }), NOW_US + DAY_US);
    more.push(one, || ("one".to_owned(), Some(20)));
    sink.apply(&more).expect("it waits");
    sink.tidy(NOW).expect("tidied");
    assert_eq!(offsets(&mut sink), (0..20).collect::<Vec<_>>());
    let files = runtime.block_on(sink.table.files()).expect("files");
    let file = &files[0].file;
    assert_eq!((files.len(), file.rows, file.newest_us()), (1, 20, Some(NOW_US as i64 + 19)));
    let bytes = runtime.block_on(sink.table.rows_of(&file.path)).expect("rows");
    let covers = rows::covered(bytes).expect("it says");
    assert_eq!((covers.len(), covers[0].from, covers[0].to), (1, 0, 20));
    sink.end().expect("committed");
    assert_eq!(offsets(&mut sink), (0..21).collect::<Vec<_>>());
    assert!(!runtime.block_on(joining::join(&mut sink.table)).expect("looked"), "there is nothing left to do");
}

#[test]
fn rows_go_when_their_contracts_say_but_not_of_the_held() {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut sink = opened(&runtime, folder.path());
    let handle = sink.handle.clone();
    let old = NOW_US - 401 * DAY_US;
    let call = |who: &str| json!({ "workflow_id": "w", "principal": who });
    let mut next = HashMap::<&str, u64>::new();
    let mut tell = |sink: &mut LakeSink, topic: &'static str, kind: &str, data: &Value, at: u64| {
        let offset = *next.get(topic).unwrap_or(&0);
        next.insert(topic, offset + 1);
        let mut batch = Batch::default();
        let id = u128::from(offset) + if topic == "mcp.calls" { 0 } else { 1_000 };
        batch.push(record(topic, (id, offset), kind, data, at), || ("one".to_owned(), (offset > 0).then_some(offset)));
        sink.apply(&batch).expect("applied");
        sink.end().expect("committed");
    };
    tell(&mut sink, "mcp.calls", "call.intent", &call("ann"), old);
    tell(&mut sink, "mcp.calls", "call.intent", &call("bob"), old);
    tell(&mut sink, "mcp.calls", "call.intent", &call("bob"), NOW_US);
    tell(&mut sink, "mcp.operators", "subject.held", &json!({ "subject": "ann", "operator": "o", "reason": "r" }), old);
    let expire = |sink: &mut LakeSink| handle.block_on(retention::expire(&mut sink.table, NOW)).expect("expired");
    assert_eq!(expire(&mut sink), 1);
    // The hold itself, ann's call, and bob's younger one.
    assert_eq!(offsets(&mut sink), [0, 0, 2]);
    assert_eq!(expire(&mut sink), 0);
    tell(&mut sink, "mcp.operators", "subject.released", &json!({ "subject": "ann", "operator": "o" }), NOW_US);
    assert_eq!(expire(&mut sink), 1);
    assert_eq!(offsets(&mut sink), [0, 1, 2]);
}

#[test]
fn dead_letters_are_put_aside_without_what_they_hold() {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let mut sink = opened(&runtime, folder.path());
    sink.apply(&batch(None, 10)).expect("it waits");
    sink.end().expect("committed");
    let dead: Vec<_> = std::fs::read_dir(folder.path().join("dead")).expect("a folder").collect();
    let text = std::fs::read_to_string(dead[0].as_ref().expect("a file").path()).expect("text");
    assert!(text.contains("\"offset\":7") && text.contains("no value") && dead.len() == 1, "{text}");
    assert_eq!(offsets(&mut sink), ALL);
}

#[test]
fn a_table_lives_in_a_bucket_and_shuts_writers_out_there_too() {
    let Some(moto) = server::moto_or_skip(&[]) else { return };
    moto.make_bucket("lake");
    let options = S3Options {
        bucket: "lake".to_owned(),
        prefix: "some/prefix".to_owned(),
        endpoint: Some(moto.endpoint()),
        region: Some("us-east-1".to_owned()),
        access_key_id: Some("test".to_owned()),
        secret_access_key: Some("s3cret-of-the-test".to_owned()),
        session_token: None,
    };
    let runtime = Runtime::new().expect("a runtime");
    let store = || -> Arc<dyn Store> { Arc::new(BucketStore::s3(&options).expect("usable options")) };
    let location = "s3://lake/some/prefix";
    let sink = |table: Table| LakeSink::new(table, runtime.handle().clone(), AT_ONCE).expect("a sink");
    let mut stalled = sink(taken(&runtime, store(), location).expect("taken"));
    stalled.apply(&batch(None, 3)).expect("it waits");
    assert!(consumed(&runtime, store(), location));
    assert!(matches!(stalled.end(), Err(SinkError::Taken { .. })));
    let mut last = sink(taken(&runtime, store(), location).expect("taken"));
    assert_eq!((offsets(&mut last), next(&mut last)), (ALL.to_vec(), Some(10)));
    let file = runtime.block_on(last.table.files()).expect("files").remove(0).file.path;
    assert!(file.starts_with("s3://lake/some/prefix/data/"), "{file}");
}
