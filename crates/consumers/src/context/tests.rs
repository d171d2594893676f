//! The context database as its consumer, its operators and its readers use it.

use std::path::PathBuf;

use cairn_backbone::records::RawRecord;
use cairn_clock::{Entropy, Timestamp};
use serde_json::{Value, json};

use super::{AskError, Changes, Context, ContextSink, Page, Reader, Resources, Scope, Seen};
use crate::{
    Sink,
    fixture::{self, DAY_US, NOW_US, batch},
};

const ALL: usize = 100;

/// An event to be: its type, when it was made, and what it says.
#[derive(Clone)]
struct Told(&'static str, u64, Value);

struct Bench {
    _folder: tempfile::TempDir,
    path: PathBuf,
    sink: ContextSink,
}

impl Bench {
    fn new() -> Self {
        Self::keeping(Context::default())
    }

    fn keeping(context: Context) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = super::path(folder.path());
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        let sink = ContextSink::open_for(&path, &Entropy::seeded(1), context).expect("a database");
        Self { _folder: folder, path, sink }
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.path).expect("a database")
    }

    fn resources(&self, scope: &Scope) -> Vec<Value> {
        self.reader().resources(scope, &Resources::default(), (None, ALL)).expect("resources").items
    }

    fn changes(&self, scope: &Scope) -> Vec<Value> {
        self.reader().changes(scope, &Changes::default(), (None, ALL)).expect("changes").items
    }

    fn seen(&self, scope: &Scope) -> Vec<Value> {
        self.reader().seen(scope, &Seen::default(), (None, ALL)).expect("views").items
    }

    /// All that follows from events, without where they lie.
    fn derived(&self) -> (Vec<Value>, Vec<Value>) {
        let bare = |mut all: Vec<Value>| {
            all.iter_mut().for_each(|one| one["event"] = one["event"]["id"].clone());
            all
        };
        (bare(self.resources(&Scope::default())), bare(self.seen(&Scope::default())))
    }

    fn number(&self, sql: &str) -> i64 {
        let connection = rusqlite::Connection::open(&self.path).expect("open");
        connection.query_row(sql, [], |row| row.get(0)).expect(sql)
    }
}

fn record(id: u128, offset: u64, told: &Told) -> RawRecord {
    let Told(name, time_us, data) = told;
    let topic = if name.starts_with("context.") { "mcp.context" } else { "mcp.calls" };
    fixture::record(topic, (id, offset), name, data, *time_us)
}

fn at(second: u64) -> u64 {
    NOW_US + second * 1_000_000
}

fn written(second: u64) -> String {
    Timestamp::from_micros(at(second)).to_string()
}

fn read(who: &str, uri: &str, version: &str, asked: u64, told: u64) -> Told {
    let data = json!({
        "principal": who, "server": "orders", "mcp_resource_uri": uri, "version": version, "asked_at": written(asked),
        "workflow_id": format!("wf-{who}"),
    });
    Told("context.read", at(told), data)
}

fn changed(who: &str, uri: &str, version: Option<&str>, cause: &str, second: u64) -> Told {
    let mut data = json!({ "principal": who, "server": "orders", "mcp_resource_uri": uri, "cause": cause, "workflow_id": format!("wf-{who}") });
    if let Some(version) = version {
        data["version"] = json!(version);
    }
    Told("context.changed", at(second), data)
}

/// Two readers and a writer; the slow read was asked for before the write and answered after it.
fn story() -> Vec<Told> {
    vec![
        read("ann", "order://1", "v1", 1, 2),
        read("ben", "order://1", "v1", 3, 4),
        changed("ben", "order://1", Some("v2"), "write", 10),
        read("cleo", "order://1", "v1", 9, 12),
        read("ann", "order://2", "a", 13, 14),
        changed("ann", "order://2", None, "notification", 20),
        read("ann", "order://3", "x", 21, 22),
    ]
}

fn records(story: &[Told]) -> Vec<RawRecord> {
    (0..).zip(story).map(|(index, told)| record(u128::from(index) + 1, index, told)).collect()
}

#[test]
fn the_freshest_is_the_newest_by_when_a_read_was_asked_for_and_a_change_seen() {
    let mut bench = Bench::new();
    bench.sink.apply(&batch(None, records(&story()))).expect("applied");
    let all = bench.resources(&Scope::default());
    let brief: Vec<Value> =
        all.iter().map(|one| json!([one["uri"], one["version"], one["how"], one["cause"]])).collect();
    let expected = [
        json!(["order://1", "v2", "changed", "write"]),
        json!(["order://2", null, "changed", "notification"]),
        json!(["order://3", "x", "read", null]),
    ];
    assert_eq!(brief, expected, "a slow read does not take back what a write made");
    let place =
        json!({ "id": uuid::Uuid::from_u128(3).to_string(), "topic": "mcp.context", "partition": 0, "offset": 2 });
    assert_eq!((&all[0]["event"], &all[0]["at"]), (&place, &json!(written(10))));
    let seen = bench.seen(&Scope::default());
    let stale = |who: &str, uri: &str| {
        let one = seen.iter().find(|one| one["principal"] == who && one["uri"] == uri).expect("a view");
        (one["version"].clone(), one["is_stale"] == true)
    };
    assert_eq!(stale("ann", "order://1"), (json!("v1"), true));
    assert_eq!(stale("ben", "order://1"), (json!("v2"), false), "whoever wrote knows what was written");
    assert_eq!(stale("cleo", "order://1"), (json!("v1"), true));
    assert_eq!(stale("ann", "order://2"), (json!("a"), true), "it is only known that it changed");
    assert_eq!(stale("ann", "order://3"), (json!("x"), false));
    assert_eq!(
        bench.number("SELECT (SELECT count(*) FROM touched_resources) + (SELECT count(*) FROM touched_views)"),
        0
    );
}

#[test]
fn whatever_the_order_in_which_events_come_the_same_follows() {
    let mut bench = Bench::new();
    bench.sink.apply(&batch(None, records(&story()))).expect("applied");
    let expected = bench.derived();
    // Each from another partition, in every rotation, a batch each.
    for turn in 1..story().len() {
        let mut other = Bench::new();
        let mut all = records(&story());
        all.rotate_left(turn);
        for (partition, record) in (0..).zip(all) {
            let record = RawRecord { partition, offset: 0, ..record };
            other.sink.apply(&batch(None, [record])).expect("applied");
        }
        assert_eq!(other.derived(), expected, "turned by {turn}");
    }
}

#[test]
fn an_event_that_comes_twice_counts_once_and_a_replay_changes_nothing() {
    let mut bench = Bench::new();
    let all = records(&story());
    bench.sink.apply(&batch(None, all.clone())).expect("applied");
    let expected =
        (bench.resources(&Scope::default()), bench.seen(&Scope::default()), bench.changes(&Scope::default()));
    let now = |bench: &Bench| {
        (bench.resources(&Scope::default()), bench.seen(&Scope::default()), bench.changes(&Scope::default()))
    };
    let again: Vec<RawRecord> =
        all.iter().map(|record| RawRecord { offset: record.offset + 7, ..record.clone() }).collect();
    bench.sink.apply(&batch(Some(7), again)).expect("applied");
    assert_eq!((now(&bench), bench.number("SELECT count(*) FROM events")), (expected.clone(), 7));
    let replayed = bench.sink.replace(&batch(Some(0), all)).expect("replaced");
    assert_eq!((replayed.records, replayed.replaced, replayed.changed), (7, 7, 0));
    assert_eq!(now(&bench), expected);
}

#[test]
fn a_replay_puts_right_what_was_wrong_in_what_follows_too() {
    let mut bench = Bench::new();
    let right = records(&story());
    // As a fault had it: the write made another version, the notification was left out, and there is one that never was.
    let mut wrong = right.clone();
    wrong[2] = record(3, 2, &changed("ben", "order://1", Some("v9"), "write", 10));
    wrong[5] = record(77, 5, &read("eve", "order://9", "z", 1, 2));
    bench.sink.apply(&batch(None, wrong)).expect("applied");
    let eve = Scope { principal: Some("eve".to_owned()), ..Scope::default() };
    assert_eq!((bench.resources(&Scope::default())[0]["version"].clone(), bench.seen(&eve).len()), (json!("v9"), 1));
    let replayed = bench.sink.replace(&batch(Some(0), right.clone())).expect("replaced");
    assert_eq!((replayed.replaced, replayed.changed), (7, 2));
    let mut fresh = Bench::new();
    fresh.sink.apply(&batch(None, right)).expect("applied");
    assert_eq!(bench.derived(), fresh.derived());
    assert!(bench.seen(&eve).is_empty() && bench.resources(&Scope::default()).len() == 3);
}

#[test]
fn within_a_principals_scope_nothing_else_is_seen() {
    let mut bench = Bench::new();
    let mut all = story();
    // The same names in other tenants are others.
    for (tenant, version) in [("acme", "t1"), ("globex", "t2")] {
        let Told(name, time, mut data) = read("ann", "order://1", version, 30, 31);
        data["tenant"] = json!(tenant);
        all.push(Told(name, time, data));
    }
    let mut decision = json!({ "principal": "ann", "workflow_id": "wf-ann", "call_id": "c1", "decision": "deny" });
    all.push(Told("call.decision", at(40), decision.clone()));
    decision["tenant"] = json!("acme");
    all.push(Told("call.decision", at(41), decision));
    let (contexts, calls): (Vec<_>, Vec<_>) = all.into_iter().partition(|told| told.0.starts_with("context."));
    bench.sink.apply(&batch(None, records(&contexts))).expect("applied");
    let calls = (0..).zip(&calls).map(|(index, told)| record(u128::from(index) + 500, index, told));
    bench.sink.apply(&batch(None, calls)).expect("applied");

    let uris = |scope: &Scope| -> Vec<String> {
        bench.resources(scope).iter().map(|one| one["uri"].as_str().expect("a text").to_owned()).collect()
    };
    let (ann, cleo) = (Scope::of(None, "ann"), Scope::of(None, "cleo"));
    assert_eq!(uris(&cleo), ["order://1"]);
    assert_eq!(uris(&ann), ["order://1", "order://2", "order://3"]);
    assert_eq!(bench.resources(&Scope::of(Some("acme"), "ann"))[0]["version"], "t1");
    assert_eq!(bench.resources(&Scope::of(Some("globex"), "ann"))[0]["version"], "t2");
    assert!(uris(&Scope::of(Some("acme"), "cleo")).is_empty() && uris(&Scope::of(None, "eve")).is_empty());
    // What somebody else did to what one has seen is told, and not who did it.
    let changes = bench.changes(&cleo);
    assert_eq!((changes.len(), &changes[0]["version"]), (1, &json!("v2")));
    assert!(changes[0].get("principal").is_none() && changes[0].get("workflow_id").is_none(), "{changes:?}");
    assert_eq!(bench.changes(&Scope::of(None, "ben"))[0]["workflow_id"], "wf-ben");
    assert!(bench.changes(&Scope::of(None, "eve")).is_empty() && bench.seen(&Scope::of(None, "eve")).is_empty());
    let events = |scope: &Scope| bench.reader().workflow(scope, "wf-ann").expect("events").0.len();
    assert_eq!((events(&ann), events(&cleo), events(&Scope::of(Some("acme"), "ann"))), (5, 0, 2));
    let call = |scope: &Scope| bench.reader().call(scope, "c1").expect("events").0.len();
    assert_eq!((call(&ann), call(&cleo), call(&Scope::of(Some("globex"), "ann"))), (1, 0, 0));
    let recent = |scope: &Scope| bench.reader().recent_workflows(scope, 10).expect("workflows").len();
    assert_eq!((recent(&ann), recent(&cleo)), (1, 0));
}

#[test]
fn answers_come_in_pages_and_a_cursor_of_anything_else_is_refused() {
    let mut bench = Bench::new();
    let all: Vec<Told> = (0..25).map(|n| changed("ann", &format!("order://{n:02}"), None, "ingested", n)).collect();
    let reads = (0..25).map(|n| read("ann", &format!("order://{n:02}"), "v", n, n));
    bench.sink.apply(&batch(None, records(&all.into_iter().chain(reads).collect::<Vec<_>>()))).expect("applied");
    let reader = bench.reader();
    let scope = Scope::default();
    let whole = |ask: &dyn Fn(Option<&str>) -> Page| {
        let (mut after, mut uris, mut pages) = (None, Vec::new(), 0);
        loop {
            let page = ask(after.as_deref());
            assert!(page.items.len() <= 10);
            uris.extend(page.items.iter().map(|one| one["uri"].clone()));
            pages += 1;
            after = page.next;
            if after.is_none() {
                return (uris.len(), uris.into_iter().collect::<std::collections::HashSet<_>>().len(), pages);
            }
        }
    };
    assert_eq!(whole(&|after| reader.changes(&scope, &Changes::default(), (after, 10)).expect("a page")), (25, 25, 3));
    assert_eq!(
        whole(&|after| reader.resources(&scope, &Resources::default(), (after, 10)).expect("a page")),
        (25, 25, 3)
    );
    assert_eq!(whole(&|after| reader.seen(&scope, &Seen::default(), (after, 10)).expect("a page")), (25, 25, 3));
    let since = Changes { since: Timestamp::from_micros(at(20)), ..Changes::default() };
    assert_eq!(reader.changes(&scope, &since, (None, ALL)).expect("a page").items.len(), 5);
    let of = Resources { prefix: Some("order://1".to_owned()), ..Resources::default() };
    assert_eq!(reader.resources(&scope, &of, (None, ALL)).expect("a page").items.len(), 10);
    for wrong in ["", "[1]", "[\"a\"]", "{}"] {
        let refused = reader.resources(&scope, &Resources::default(), (Some(wrong), 10));
        assert!(
            matches!(&refused, Err(AskError::Refused { reason }) if reason.contains("cursor")),
            "{wrong}: {refused:?}"
        );
    }
}

#[test]
fn retention_is_the_contracts_and_what_followed_goes_too() {
    let mut bench = Bench::new();
    let old = |told: Told| Told(told.0, told.1 - 31 * DAY_US, told.2);
    let mut held = read("held", "order://3", "v", 1, 2);
    held.2["asked_at"] = json!(Timestamp::from_micros(at(1) - 31 * DAY_US).to_string());
    let all = [
        old(changed("ann", "order://1", Some("v1"), "write", 1)),
        old(changed("ann", "order://2", Some("v1"), "write", 1)),
        old(held),
        changed("ann", "order://2", Some("v2"), "write", 5),
    ];
    bench.sink.apply(&batch(None, records(&all))).expect("applied");
    let hold = record(900, 0, &Told("subject.held", at(0), json!({ "subject": "held" })));
    let hold = RawRecord { topic: "mcp.operators".to_owned(), ..hold };
    bench.sink.apply(&batch(None, [hold])).expect("applied");
    while bench.sink.tend(Timestamp::from_micros(at(10))).expect("tended") {}
    let left: Vec<Value> =
        bench.resources(&Scope::default()).iter().map(|one| json!([one["uri"], one["version"]])).collect();
    assert_eq!(left, [json!(["order://2", "v2"]), json!(["order://3", "v"])], "thirty days, and a legal hold");
    assert_eq!(bench.seen(&Scope::default()).len(), 2);
}

#[test]
fn no_more_events_are_kept_than_the_bound_and_the_oldest_go_first() {
    let mut bench = Bench::keeping(Context { events_max: 10 });
    let all: Vec<Told> = (0..25).map(|n| read("ann", &format!("order://{n}"), "v", n, n)).collect();
    bench.sink.apply(&batch(None, records(&all))).expect("applied");
    while bench.sink.tend(Timestamp::from_micros(at(100))).expect("tended") {}
    let uris: Vec<Value> = bench.seen(&Scope::default()).iter().map(|one| one["uri"].clone()).collect();
    assert_eq!((uris.len(), bench.number("SELECT count(*) FROM events")), (10, 10));
    assert!(uris.contains(&json!("order://24")) && !uris.contains(&json!("order://14")), "{uris:?}");
}

#[test]
fn what_is_looked_for_is_found_by_an_index() {
    let bench = Bench::new();
    let connection = rusqlite::Connection::open(&bench.path).expect("open");
    for sql in [
        "SELECT 1 FROM events WHERE tenant IS nullif(?1, '') AND server = ?2 AND resource = ?3 AND at_us >= 0 AND type = 'context.read' AND version IS NOT NULL ORDER BY at_us DESC, id DESC LIMIT 1",
        "SELECT 1 FROM events WHERE sees = 1 AND principal = ?2 AND tenant IS nullif(?1, '') AND server = ?3 AND resource = ?4 AND agent IS nullif(?5, '') ORDER BY at_us DESC, id DESC LIMIT 1",
        "SELECT 1 FROM events WHERE cause IS NOT NULL AND (time_us, id) > (?1, ?2) ORDER BY time_us, id LIMIT 5",
        "SELECT 1 FROM events WHERE workflow_id IN (SELECT d.workflow_id FROM events d WHERE d.type = 'call.decision' AND d.call_id = ?1) AND call_id = ?1",
    ] {
        let sql = (1..=5).fold(sql.to_owned(), |sql, index| sql.replace(&format!("?{index}"), "'x'"));
        let mut plan = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect("SQL");
        let lines: Vec<String> =
            plan.query_map([], |row| row.get(3)).expect("a plan").map(|line| line.expect("a line")).collect();
        let is_good = |line: &String| !line.starts_with("SCAN") && !line.contains("TEMP B-TREE");
        assert!(lines.iter().all(is_good), "{sql}: {lines:?}");
    }
}
