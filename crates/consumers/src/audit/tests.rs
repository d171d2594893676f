//! The audit database as its consumer, its operators and its readers use it.

use std::{path::PathBuf, time::Duration};

use bytes::Bytes;
use cairn_backbone::{group::Place, records::RawRecord};
use cairn_clock::{Entropy, Timestamp};
use serde_json::{Value, json};

use super::{
    AuditSink, Store,
    index::Covered,
    query::{self, Limits, QueryError},
};
use crate::{
    Batch, Position, Sink, SinkError,
    database::Holder,
    fixture::{self, DAY_US, NOW_US, batch},
};

/// One audit database; what holds of every one is tried on all of [`Bench::all`].
struct Bench {
    folder: Option<tempfile::TempDir>,
    path: PathBuf,
    store: Store,
    sink: Box<dyn Sink>,
    ids: u128,
}

impl Bench {
    /// A file.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = super::path(folder.path());
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let sink = Box::new(AuditSink::open(&path, &Entropy::seeded(1)).expect("a database"));
        Self { folder: Some(folder), store: Store::File(path.clone()), path, sink, ids: 0 }
    }

    /// A file, and a schema of a server where there is one.
    fn all() -> Vec<Self> {
        let mut all = vec![Self::new()];
        #[cfg(feature = "postgres")]
        all.extend(crate::postgres::tests::options().map(|options| {
            let sink = Box::new(crate::postgres::tests::sink(&options));
            let store = Store::Postgres(Box::new(options));
            Self { folder: None, path: PathBuf::new(), store, sink, ids: 0 }
        }));
        all
    }

    /// The same database, opened by the next process.
    fn reopened(self) -> Self {
        let Self { folder, path, store, sink, ids } = self;
        drop(sink);
        let sink: Box<dyn Sink> = match &store {
            Store::File(path) => Box::new(AuditSink::open(path, &Entropy::seeded(2)).expect("a database")),
            #[cfg(feature = "postgres")]
            Store::Postgres(options) => Box::new(crate::postgres::tests::sink(options)),
        };
        Self { folder, path, store, sink, ids }
    }

    fn record(&mut self, offset: u64, type_name: &str, data: &Value) -> RawRecord {
        self.ids += 1;
        record(self.ids, offset, type_name, data, NOW_US)
    }

    fn ask(&self, sql: &str) -> Vec<Vec<Value>> {
        self.store.ask(sql, &Limits::default()).unwrap_or_else(|error| panic!("{:?} {sql}: {error}", self.store)).rows
    }

    fn number(&self, sql: &str) -> i64 {
        self.ask(sql)[0][0].as_i64().expect("a number")
    }

    fn refusal(&self, sql: &str) -> QueryError {
        query::ask(&self.path, sql, &Limits::default()).expect_err(sql)
    }
}

fn record(id: u128, offset: u64, type_name: &str, data: &Value, time_us: u64) -> RawRecord {
    fixture::record("mcp.calls", (id, offset), type_name, data, time_us)
}

#[test]
fn events_and_positions_are_applied_together_and_from_where_it_stands_alone() {
    for mut bench in Bench::all() {
        let records: Vec<_> =
            (0..3).map(|offset| bench.record(offset, "call.intent", &json!({ "workflow_id": "w" }))).collect();
        bench.sink.apply(&batch(None, records.clone())).expect("applied");
        assert_eq!(bench.number("SELECT count(*) FROM events WHERE workflow_id = 'w'"), 3);
        let stands = bench.sink.positions().expect("positions");
        let place = Place { topic: "mcp.calls".to_owned(), partition: 0 };
        assert_eq!(stands, [Position { place, topic_id: "topic-1".to_owned(), next: 3 }]);
        // A zombie that did not see that, and one that comes too early.
        assert_eq!(bench.sink.apply(&batch(None, records)), Err(SinkError::Moved));
        let late = bench.record(9, "call.intent", &json!({}));
        assert_eq!(bench.sink.apply(&batch(Some(9), [late])), Err(SinkError::Moved));
        assert_eq!(bench.number("SELECT count(*) FROM events"), 3);
        // Opened again it stands where it stood.
        bench = bench.reopened();
        assert_eq!(bench.sink.positions().expect("positions")[0].next, 3);
        // The same topic made anew is another one.
        let fresh = bench.record(0, "call.intent", &json!({}));
        let mut anew = Batch::default();
        anew.push(fresh, || ("topic-2".to_owned(), None));
        bench.sink.apply(&anew).expect("applied");
        assert_eq!(bench.number("SELECT count(*) FROM events WHERE \"offset\" = 0"), 2);
    }
}

#[test]
fn an_event_that_comes_twice_counts_once() {
    for mut bench in Bench::all() {
        let first = record(7, 0, "call.outcome", &json!({ "outcome": "completed" }), NOW_US);
        let again = RawRecord { offset: 1, ..first.clone() };
        bench.sink.apply(&batch(None, [first, again.clone()])).expect("applied");
        assert_eq!(bench.ask("SELECT \"offset\" FROM events"), [[json!(0)]]);
        let later = RawRecord { offset: 2, ..again };
        bench.sink.apply(&batch(Some(2), [later])).expect("applied");
        assert_eq!((bench.number("SELECT count(*) FROM events"), bench.number("SELECT next FROM places")), (1, 3));
    }
}

#[test]
fn what_is_no_event_is_a_dead_letter_and_what_follows_is_applied() {
    for mut bench in Bench::all() {
        let good = bench.record(0, "call.intent", &json!({}));
        let broken = RawRecord { offset: 1, value: Some(Bytes::from_static(b"{\"s3cret\":")), ..good.clone() };
        let last = bench.record(2, "call.intent", &json!({}));
        bench.sink.apply(&batch(None, [good, broken, last])).expect("applied");
        assert_eq!(bench.number("SELECT count(*) FROM events"), 2);
        let dead = bench.ask("SELECT topic, partition, \"offset\", bytes, reason FROM dead_letters");
        assert_eq!(dead[0][..4], [json!("mcp.calls"), json!(0), json!(1), json!(10)]);
        assert!(dead[0][4].as_str().is_some_and(|why| why.contains("no JSON") && !why.contains("s3cret")), "{dead:?}");
    }
}

#[test]
fn a_replay_replaces_what_was_wrong_and_says_what_changed() {
    for mut bench in Bench::all() {
        let right: Vec<_> = (0..4)
            .map(|offset| {
                bench.record(
                    offset,
                    "call.outcome",
                    &json!({ "outcome": if offset == 2 { "failed" } else { "completed" } }),
                )
            })
            .collect();
        // As a fault had it: one outcome wrong, one event left out, one that never was.
        let mut wrong = right.clone();
        wrong[2].value = Some(Bytes::from(
            json!({ "outcome": "completed", "contract": { "name": "call.outcome", "version": 1 } }).to_string(),
        ));
        wrong.remove(1);
        bench.sink.apply(&batch(None, wrong)).expect("applied");
        assert_eq!(bench.number("SELECT count(*) FROM events WHERE outcome = 'failed'"), 0);
        let moved = bench.record(4, "call.intent", &json!({}));
        bench.sink.apply(&batch(Some(4), [moved])).expect("applied");
        let replayed = bench.sink.replace(&batch(Some(0), right.clone())).expect("replaced");
        assert_eq!((replayed.records, replayed.replaced, replayed.changed), (4, 3, 2));
        assert_eq!(bench.ask("SELECT \"offset\" FROM events WHERE outcome = 'failed'"), [[json!(2)]]);
        assert_eq!((bench.number("SELECT count(*) FROM events"), bench.number("SELECT next FROM places")), (5, 5));
        let again = bench.sink.replace(&batch(Some(0), right)).expect("replaced");
        assert_eq!((again.replaced, again.changed), (4, 0));
    }
}

#[test]
fn going_back_replaces_as_it_goes() {
    for mut bench in Bench::all() {
        let records: Vec<_> =
            (0..3).map(|offset| bench.record(offset, "call.intent", &json!({ "tool": "a" }))).collect();
        bench.sink.apply(&batch(None, records.clone())).expect("applied");
        let before = bench.sink.control().expect("control");
        let mut stands = bench.sink.positions().expect("positions");
        stands[0].next = 1;
        bench.sink.move_to(&stands).expect("moved");
        assert_eq!(bench.sink.control().expect("control").moves, before.moves + 1);
        assert_eq!(bench.number("SELECT count(*) FROM events"), 3, "nothing is missing meanwhile");
        bench.sink.apply(&batch(Some(1), records[1..].to_vec())).expect("applied");
        assert_eq!(bench.number("SELECT count(*) FROM events"), 3);
        bench.sink.pause(true).expect("paused");
        assert!(bench.sink.control().expect("control").is_paused);
    }
}

#[test]
fn a_call_is_one_row_with_the_decision_that_counts() {
    for mut bench in Bench::all() {
        let of = |call: &str, more: Value| {
            let mut data = json!({ "workflow_id": "w", "call_id": call, "server": "orders" });
            more.as_object().expect("an object").iter().for_each(|(key, value)| data[key] = value.clone());
            data
        };
        let story = [
            ("call.decision", of("c1", json!({ "decision": "deny", "gen_ai_tool_name": "refund" }))),
            ("call.decision", of("c1", json!({ "decision": "permit", "gen_ai_tool_name": "refund" }))),
            ("call.intent", of("c1", json!({ "gen_ai_tool_name": "refund" }))),
            ("call.outcome", of("c1", json!({ "outcome": "completed", "effect": "answered", "elapsed_us": 5 }))),
            ("call.decision", of("c2", json!({ "decision": "deny", "gen_ai_tool_name": "drop" }))),
            ("call.outcome", of("c2", json!({ "outcome": "denied", "effect": "none" }))),
            ("call.decision", of("c3", json!({ "decision": "permit" }))),
            ("call.approval", of("c3", json!({ "state": "requested", "approval_id": "ap-1" }))),
        ];
        let records: Vec<_> =
            (0..).zip(&story).map(|(offset, (name, data))| bench.record(offset, name, data)).collect();
        bench.sink.apply(&batch(None, records)).expect("applied");
        let calls =
            bench.ask("SELECT call_id, tool, decision, outcome, CASE WHEN forwarded IS NULL THEN 1 ELSE 0 END FROM calls WHERE workflow_id = 'w' ORDER BY call_id");
        let expected = [
            [json!("c1"), json!("refund"), json!("permit"), json!("completed"), json!(0)],
            [json!("c2"), json!("drop"), json!("deny"), json!("denied"), json!(1)],
            [json!("c3"), Value::Null, json!("permit"), Value::Null, json!(1)],
        ];
        assert_eq!(calls, expected);
        assert_eq!(bench.number("SELECT count(*) FROM decisions WHERE decision = 'deny'"), 2);
        assert_eq!(bench.ask("SELECT state, approval_id FROM approvals"), [[json!("requested"), json!("ap-1")]]);
    }
}

#[test]
fn one_workflow_is_found_by_its_index() {
    let bench = Bench::new();
    let connection = rusqlite::Connection::open(&bench.path).expect("open");
    for sql in ["SELECT * FROM events WHERE workflow_id = 'w'", "SELECT * FROM calls WHERE workflow_id = 'w'"] {
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("SQL");
        let lines: Vec<String> =
            plan.query_map([], |row| row.get(3)).expect("a plan").map(|line| line.expect("a line")).collect();
        assert!(lines.iter().any(|line| line.contains("events_workflow")), "{sql}: {lines:?}");
        assert!(!lines.iter().any(|line| line.starts_with("SCAN")), "{sql}: {lines:?}");
    }
}

#[test]
fn questions_read_and_nothing_else() {
    let mut bench = Bench::new();
    let one = bench.record(0, "call.intent", &json!({ "a": { "b": 1 } }));
    bench.sink.apply(&batch(None, [one])).expect("applied");
    let other = bench.path.with_file_name("other.sqlite");
    for sql in [
        "DELETE FROM events",
        "INSERT INTO state VALUES ('a', 'b')",
        "UPDATE places SET next = 0",
        "DROP TABLE events",
        "CREATE TABLE a (b)",
        "CREATE TEMP TABLE a AS SELECT 1",
        &format!("ATTACH '{}' AS other", other.display()),
        &format!("VACUUM INTO '{}'", other.display()),
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = 1",
        "PRAGMA query_only = 0",
        "PRAGMA user_version = 7",
        "SELECT load_extension('x')",
        "BEGIN IMMEDIATE",
        "REINDEX",
        "ANALYZE",
        "WITH x AS (SELECT 1) DELETE FROM events",
    ] {
        let refusal = bench.refusal(sql);
        let is_no = matches!(refusal, QueryError::Refused { .. } | QueryError::Sql { .. });
        assert!(is_no, "{sql}: {refusal:?}");
    }
    assert!(!other.exists());
    assert!(matches!(bench.refusal("SELECT 1; DELETE FROM events"), QueryError::Refused { .. }));
    assert_eq!(
        bench.refusal("SELECT 1; SELECT 2"),
        QueryError::Sql { reason: "Multiple statements provided".to_owned() }
    );
    assert_eq!(bench.ask("SELECT count(*), json_extract(data, '$.a.b') FROM events"), [[json!(1), json!(1)]]);
    assert_eq!(bench.number("SELECT user_version FROM pragma_user_version"), super::schema::VERSION);
    assert!(!bench.ask("PRAGMA table_info(events)").is_empty());
}

#[test]
fn questions_are_bounded_in_time_rows_and_bytes() {
    let bench = Bench::new();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";
    let limits = Limits { rows_max: 3, bytes_max: 10_000, time_max: Duration::from_millis(200) };
    let begun = tokio::time::Instant::now();
    let slow = query::ask(&bench.path, &format!("{endless} SELECT count(*) FROM n"), &limits);
    assert!(matches!(slow, Err(QueryError::Slow { .. })), "{slow:?}");
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    let cut = query::ask(&bench.path, &format!("{endless} SELECT i FROM n"), &limits).expect("rows");
    assert_eq!((cut.rows.len(), cut.is_cut), (3, true));
    let wide = query::ask(&bench.path, &format!("{endless} SELECT hex(zeroblob(4000)) FROM n"), &limits).expect("rows");
    assert_eq!((wide.rows.len(), wide.is_cut), (1, true));
    let huge = query::ask(&bench.path, "SELECT zeroblob(100000000)", &limits);
    assert!(matches!(huge, Err(QueryError::Sql { .. })), "{huge:?}");
    let nowhere = query::ask(&bench.path.with_file_name("none.sqlite"), "SELECT 1", &limits);
    assert!(matches!(nowhere, Err(QueryError::Missing { .. })), "{nowhere:?}");
}

#[test]
fn retention_is_the_contracts_and_a_legal_hold_stops_it() {
    for mut bench in Bench::all() {
        let old = NOW_US - 401 * DAY_US;
        let of =
            |id: u128, type_name: &str, data: Value, time_us: u64| record(id, id as u64, type_name, &data, time_us);
        let records = [
            of(0, "call.intent", json!({ "principal": "ann", "tenant": "acme" }), old),
            of(1, "call.intent", json!({ "principal": "ben" }), old),
            of(2, "call.intent", json!({ "principal": "ann" }), old),
            // For ever, by its contract.
            of(3, "catalog.defined", json!({ "principal": "ben" }), old),
            of(4, "subject.held", json!({ "subject": "ann", "tenant": "acme" }), old),
            of(5, "subject.held", json!({ "subject": "ben" }), old),
            of(6, "subject.released", json!({ "subject": "ben" }), old),
            of(7, "call.intent", json!({ "principal": "ben" }), NOW_US - 399 * DAY_US),
        ];
        bench.sink.apply(&batch(None, records)).expect("applied");
        let now = Timestamp::from_micros(NOW_US);
        // What is kept for ever ends the round: behind it, all is younger. So twice.
        while bench.sink.tend(now).expect("tended") {}
        let left = bench.ask("SELECT \"offset\" FROM events ORDER BY \"offset\"");
        assert_eq!(left, [[json!(0)], [json!(3)], [json!(4)], [json!(5)], [json!(6)], [json!(7)]]);
        // The hold ends, and so does what it kept.
        let released = record(8, 8, "subject.released", &json!({ "subject": "ann", "tenant": "acme" }), NOW_US);
        bench.sink.apply(&batch(Some(8), [released])).expect("applied");
        while bench.sink.tend(now).expect("tended") {}
        assert_eq!(bench.number("SELECT count(*) FROM events WHERE \"offset\" = 0"), 0);
    }
}

#[test]
fn one_process_applies_at_a_time_and_nobody_else_reads_its_files() {
    use std::os::unix::fs::PermissionsExt;

    let bench = Bench::new();
    let held = Holder::take(&bench.path).expect("held");
    let second = Holder::take(&bench.path).expect_err("it is held");
    assert_eq!(second.kind(), std::io::ErrorKind::WouldBlock);
    drop(held);
    Holder::take(&bench.path).expect("it is free again");
    for entry in std::fs::read_dir(bench.path.parent().expect("a folder")).expect("a folder") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("a file").permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", entry.path());
    }
    let connection = rusqlite::Connection::open(&bench.path).expect("open");
    let database = AuditSink::open(&bench.path, &Entropy::seeded(1)).expect("a database");
    let again = AuditSink::open(&bench.path, &Entropy::seeded(2)).expect("a database");
    assert_eq!(database.instance(), again.instance(), "the same member of its group");
    connection.pragma_update(None, "user_version", 99).expect("set");
    let newer = AuditSink::open(&bench.path, &Entropy::seeded(1)).expect_err("it is newer");
    assert!(matches!(newer, SinkError::Broken { reason } if reason.contains("layout 99")));
}

fn index_of(bench: &Bench) -> Covered {
    let mut found = bench.store.find(&["w"]).expect("an index");
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn the_index_tells_where_events_lie_and_what_it_does_not_cover() {
    for mut bench in Bench::all() {
        let workflow = |offset: u64| json!({ "workflow_id": if offset.is_multiple_of(3) { "w" } else { "v" } });
        let records: Vec<_> = (0..10).map(|offset| bench.record(offset, "call.intent", &workflow(offset))).collect();
        bench.sink.apply(&batch(None, records[..7].to_vec())).expect("applied");
        let place = Place { topic: "mcp.calls".to_owned(), partition: 0 };
        let found = index_of(&bench);
        assert_eq!((found.topic.as_str(), found.topic_id.as_str(), found.partition), ("mcp.calls", "topic-1", 0));
        assert_eq!((found.whole, found.offsets), (0..7, vec![0, 3, 6]));

        let to = |next| [Position { place: place.clone(), topic_id: "topic-1".to_owned(), next }];
        // Back: what is behind it comes anew, and may be other than it was.
        bench.sink.move_to(&to(2)).expect("moved");
        assert_eq!(index_of(&bench).whole, 0..2);
        bench.sink.apply(&batch(Some(2), records[2..5].to_vec())).expect("applied");
        assert_eq!(index_of(&bench).whole, 0..5);
        // Forward leaves out what lies between, for good.
        bench.sink.move_to(&to(8)).expect("moved");
        bench.sink.apply(&batch(Some(8), records[8..].to_vec())).expect("applied");
        assert_eq!(index_of(&bench).whole, 8..10);
        // Until it is taken after all.
        bench.sink.move_to(&to(0)).expect("moved");
        bench.sink.apply(&batch(Some(0), records)).expect("applied");
        let found = index_of(&bench);
        assert_eq!((found.whole, found.offsets), (0..10, vec![0, 3, 6, 9]));
    }
}

#[test]
fn the_index_does_not_cover_what_retention_removed() {
    for mut bench in Bench::all() {
        let old = NOW_US - 500 * DAY_US;
        let data = json!({ "workflow_id": "w" });
        let records = (0..6).map(|offset| {
            let time = if offset < 4 { old } else { NOW_US };
            record(u128::from(offset) + 1, offset, "call.intent", &data, time)
        });
        bench.sink.apply(&batch(None, records)).expect("applied");
        bench.sink.tend(Timestamp::from_micros(NOW_US)).expect("tended");
        let found = index_of(&bench);
        assert_eq!((found.whole, found.offsets), (4..6, vec![4, 5]));
    }
}
