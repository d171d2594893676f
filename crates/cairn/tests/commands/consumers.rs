//! Consumers as their users have them: inside `up` and as processes of their own, killed, paused, moved, given what is no event,
//! and made to put right what a fault made wrong.

use std::{
    collections::BTreeSet,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::{Value, json};

use crate::{
    evidence::Cluster,
    support::{Agent, LONG, Orders, Process, TOKEN, cairn, events, http, run, text, wait_for},
};

pub(crate) const PERMIT_ALL: &str = "@id(\"all\") permit(principal, action, resource);\n";
pub(crate) const CALLS: i32 = 8;

/// What `cairn query` says of that data folder; nothing while there is no database.
fn query(data: &Path, sql: &str) -> Option<Vec<Value>> {
    let output = run(cairn().args(["query", sql, "--json", "--rows-max", "100000", "--data"]).arg(data));
    if !output.status.success() {
        return None;
    }
    Some(text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

fn number(data: &Path, sql: &str) -> Option<i64> {
    query(data, sql)?.first()?.as_object()?.values().next()?.as_i64()
}

/// A process that consumes from there into that folder.
fn consume(kafka: &str, data: &Path, more: &[(&str, &str)]) -> Process {
    let mut command: Command = cairn();
    command.args(["consume", "audit", "--bootstrap", kafka, "--data"]).arg(data);
    command.envs(more.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process { child: command.spawn().expect("it starts") }
}

/// One event as a record.
pub(crate) struct Told {
    pub(crate) id: u128,
    pub(crate) name: &'static str,
    pub(crate) version: u32,
    pub(crate) data: Value,
}

impl Told {
    fn value(&self) -> String {
        let mut data = self.data.clone();
        data["contract"] = json!({ "name": self.name, "version": self.version });
        data["hlc"] = json!("1795521600000000-00000");
        data["producer"] = json!({ "id": "gw-1", "epoch": 1, "sequence": self.id });
        data.to_string()
    }

    fn headers(&self) -> OwnedHeaders {
        let id = uuid::Uuid::from_u128(self.id).to_string();
        let name = format!("io.cairn.{}", self.name);
        let all = [
            ("ce_id", id.as_str()),
            ("ce_type", &name),
            ("ce_source", "cairn://gateway/gw-1"),
            ("ce_time", "2026-11-24T09:00:00.000000Z"),
        ];
        all.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value.as_bytes()) })
        })
    }
}

/// A log with the topic of calls, and who may write it.
pub(crate) struct Stream {
    pub(crate) cluster: Cluster,
    producer: BaseProducer,
}

impl Stream {
    pub(crate) fn start(folder: &Path) -> Self {
        let cluster = Cluster::start(folder, "log");
        let mut config = cluster.config();
        let admin: AdminClient<DefaultClientContext> = config.create().expect("a client");
        let topic = NewTopic::new("mcp.calls", CALLS, TopicReplication::Fixed(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let made = runtime.block_on(admin.create_topics(&[topic], &AdminOptions::new())).expect("an answer");
        assert!(made.iter().all(Result::is_ok), "{made:?}");
        let producer = config.set("acks", "all").set("linger.ms", "1").create().expect("a producer");
        Self { cluster, producer }
    }

    fn send(&self, partition: i32, headers: OwnedHeaders, value: &str) {
        let record = BaseRecord::to("mcp.calls").partition(partition).headers(headers).key("w").payload(value);
        self.producer.send(record).map_err(|(error, _)| error).expect("it is taken");
        self.producer.poll(Duration::ZERO);
    }

    pub(crate) fn tell(&self, partition: i32, told: &Told) {
        self.send(partition, told.headers(), &told.value());
    }

    pub(crate) fn flush(&self) {
        self.producer.flush(LONG).expect("all are taken");
    }
}

#[test]
fn what_agents_do_can_be_asked_in_sql_a_moment_later_and_asking_is_recorded() {
    let orders = Orders::new(PERMIT_ALL, "");
    let up = orders.up();
    let data = orders.data();
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    for _ in 0..3 {
        agent.call("get_order", &json!({ "order_id": "order-1" }));
    }
    let calls = "SELECT tool, decision, outcome FROM calls WHERE workflow_id = 'wf-1' AND method = 'tools/call' AND outcome IS NOT NULL";
    let rows = wait_for("three calls", || query(&data, calls).filter(|rows| rows.len() == 3));
    assert_eq!(rows[0], json!({ "tool": "get_order", "decision": "permit", "outcome": "completed" }));
    // Whatever is in the trail is in the database, once, at its place.
    let places = |rows: Vec<Value>| -> BTreeSet<String> {
        rows.iter().map(|row| format!("{}/{}/{}", row["topic"], row["partition"], row["offset"])).collect()
    };
    wait_for("all of the trail", || {
        let (trail, table) = (events(&data), query(&data, "SELECT topic, partition, offset FROM events")?);
        (trail.len() == table.len() && places(trail) == places(table)).then_some(())
    });
    // The admin address answers who may view, and says so in the trail before.
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let ask = |sql: &str| http(&up.admin, "POST /query", &headers, &json!({ "sql": sql }).to_string());
    let answer = ask("SELECT count(*) AS n FROM calls");
    assert_eq!((answer.status, &answer.json()["columns"]), (200, &json!(["n"])), "{answer:?}");
    assert_eq!(ask("DELETE FROM events").status, 400);
    assert_eq!(http(&up.admin, "POST /query", &[("content-type", "application/json")], "{}").status, 401);
    let acts = wait_for("the acts", || {
        let acts = query(
            &data,
            "SELECT json_extract(data, '$.about') AS about, json_extract(data, '$.outcome') AS o FROM events WHERE act = 'query' ORDER BY hlc",
        )?;
        (acts.len() == 3).then_some(acts)
    });
    assert_eq!(acts[0], json!({ "about": "SELECT count(*) AS n FROM calls", "o": "allowed" }));
    assert_eq!((&acts[1]["o"], &acts[2]["o"]), (&json!("allowed"), &json!("failed")));
    // Lag by Kafka, by metrics, and by the admin address.
    wait_for("no lag", || {
        let said = run(cairn().args(["lag", "--json", "--data"]).arg(&data));
        let said: Value = serde_json::from_slice(&said.stdout).ok()?;
        let audit = said["groups"].as_array()?.iter().find(|group| group["group"] == "cairn-audit")?.clone();
        let fresh = audit["freshness_p99_seconds"].as_f64().is_some_and(|p99| p99 > 0.0);
        (audit["lag_records"] == 0 && audit["members"] == 1 && fresh).then_some(())
    });
    let metrics = http(&up.admin, "GET /metrics", &[], "").body;
    for name in [
        "kafka_consumergroup_lag{consumergroup=\"cairn-audit\",topic=\"mcp.calls\",partition=\"0\"}",
        "kafka_consumergroup_current_offset{",
        "cairn_consumer_lag_seconds{consumer=\"audit\"}",
        "cairn_consumer_freshness_seconds_bucket{",
        "cairn_consumer_events_total{consumer=\"audit\"}",
    ] {
        assert!(metrics.contains(name), "{name} is not in {metrics}");
    }
    let stand = http(&up.admin, "GET /consumers", &headers, "").json();
    assert_eq!(
        (&stand["consumers"][0]["consumer"], &stand["consumers"][0]["is_assigned"]),
        (&json!("audit"), &json!(true))
    );
    up.end();
}

#[test]
fn pausing_and_moving_are_recorded_before_they_take_effect() {
    let orders = Orders::new(PERMIT_ALL, "");
    let up = orders.up();
    let data = orders.data();
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    agent.call("get_order", &json!({ "order_id": "order-1" }));
    let count = "SELECT count(*) AS n FROM events WHERE type = 'call.outcome' AND method = 'tools/call'";
    wait_for("the first call", || (number(&data, count)? == 1).then_some(()));
    let consumer = |words: &[&str]| {
        let output = run(cairn()
            .arg("consumer")
            .args(words)
            .arg("--data")
            .arg(&data)
            .env("CAIRN_OPERATOR_TOKEN", TOKEN)
            .env("USER", "ann"));
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        text(&output.stdout)
    };
    consumer(&["pause", "audit", "--reason", "case 12"]);
    let paused = |is: bool| {
        let list = consumer(&["list", "--json"]);
        let list: Value = serde_json::from_str(&list).expect("JSON");
        (list["consumers"][0]["is_paused"] == json!(is)).then(|| list["consumers"][0].clone())
    };
    wait_for("the pause", || paused(true));
    agent.call("get_order", &json!({ "order_id": "order-1" }));
    wait_for("a lag", || paused(true).filter(|one| one["lag_records"].as_u64() >= Some(3)));
    assert_eq!(number(&data, count), Some(1), "it rests");
    consumer(&["resume", "audit"]);
    wait_for("the second call", || (number(&data, count)? == 2).then_some(()));
    // Back to the beginning: everything is taken again, and nothing is there twice.
    let before = number(&data, "SELECT count(*) AS n FROM events WHERE topic = 'mcp.calls'");
    let applied = || {
        let list: Value = serde_json::from_str(&consumer(&["list", "--json"])).expect("JSON");
        list["consumers"][0]["events"].as_i64().expect("a number")
    };
    let applied_before = applied();
    let moved = consumer(&["seek", "audit", "--to", "1h"]);
    assert!(moved.contains("mcp.calls/") && moved.contains("to 0"), "{moved}");
    wait_for("all of it again", || (applied() >= applied_before + before?).then_some(()));
    assert_eq!(number(&data, "SELECT count(*) AS n FROM events WHERE topic = 'mcp.calls'"), before);
    let moves: Vec<Value> = events(&data)
        .into_iter()
        .filter(|event| event["type"] == "consumer.moved")
        .map(|e| e["data"].clone())
        .collect();
    let changes: Vec<_> = moves.iter().map(|moved| moved["change"].as_str().expect("a change")).collect();
    assert_eq!(changes, ["paused", "resumed", "moved"]);
    assert_eq!((&moves[0]["operator"], &moves[0]["reason"]), (&json!("ann"), &json!("case 12")));
    assert!(moves[2]["moves"].as_array().is_some_and(|moves| moves.iter().any(|one| one["to"] == 0)), "{:?}", moves[2]);
    let unknown =
        run(cairn().args(["consumer", "pause", "nothing", "--data"]).arg(&data).env("CAIRN_OPERATOR_TOKEN", TOKEN));
    assert_eq!(unknown.status.code(), Some(3), "{}", text(&unknown.stderr));
    up.end();
}

#[test]
#[allow(clippy::disallowed_methods)] // when it is killed is the machine's own time
fn killed_anywhere_it_neither_misses_nor_repeats() {
    const EVENTS: u128 = 30_000;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("audit");
    let stream = Stream::start(folder.path());
    let kafka = stream.cluster.kafka.clone();
    let sending = std::thread::spawn(move || {
        for id in 0..EVENTS {
            let data = json!({ "workflow_id": format!("wf-{}", id % 100), "call_id": uuid::Uuid::from_u128(id / 4) });
            let partition = i32::try_from(id % 8).expect("small");
            stream.tell(partition, &Told { id, name: "call.intent", version: 2, data });
            if id % 500 == 0 {
                stream.flush();
                std::thread::sleep(Duration::from_millis(40));
            }
        }
        stream.flush();
        stream
    });
    let (mut kills, mut seen) = (0, 0);
    while kills < 12 {
        let process = consume(&kafka, &data, &[]);
        // It gets a little further each time, and is killed at another moment.
        let deadline = std::time::Instant::now() + Duration::from_secs(8);
        let now = loop {
            let now = number(&data, "SELECT count(*) AS n FROM events").unwrap_or_default();
            if now > seen || std::time::Instant::now() > deadline {
                break now;
            }
            std::thread::sleep(Duration::from_millis(10 + 7 * kills));
        };
        process.signal("-KILL");
        seen = now;
        kills += 1;
    }
    let stream = sending.join().expect("all are sent");
    assert!(seen > 0, "it applied something between the kills");
    let _last = consume(&stream.cluster.kafka, &data, &[]);
    let total = i64::try_from(EVENTS).expect("small");
    wait_for("everything", || (number(&data, "SELECT sum(next) AS n FROM places")? >= total).then_some(()));
    let counted = "SELECT count(*) AS n FROM events";
    assert_eq!(number(&data, counted), Some(total), "each event once");
    assert_eq!(number(&data, "SELECT count(DISTINCT id) AS n FROM events"), Some(total));
    let gaps = "SELECT count(*) AS n FROM (SELECT partition, max(offset) + 1 - count(*) AS gap FROM events GROUP BY partition) WHERE gap <> 0";
    assert_eq!(number(&data, gaps), Some(0), "no offset is missing");
}

#[test]
fn what_is_no_event_is_put_aside_and_what_is_newer_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("audit");
    let stream = Stream::start(folder.path());
    let good = |id: u128| Told { id, name: "call.outcome", version: 2, data: json!({ "workflow_id": "w" }) };
    stream.tell(0, &good(1));
    stream.send(0, OwnedHeaders::new(), "no headers");
    stream.send(0, good(2).headers(), "{\"broken\":");
    // One more reading of an event that is there already.
    stream.tell(0, &good(1));
    let newer = json!({ "workflow_id": "w", "outcome": { "word": "held" }, "novel": [1] });
    stream.tell(0, &Told { id: 3, name: "call.outcome", version: 99, data: newer });
    stream.tell(0, &Told { id: 4, name: "call.unheard", version: 1, data: json!({ "workflow_id": "w" }) });
    stream.tell(0, &good(5));
    stream.flush();
    let process = consume(&stream.cluster.kafka, &data, &[]);
    wait_for("the last", || (number(&data, "SELECT next AS n FROM places WHERE partition = 0")? == 7).then_some(()));
    let rows = query(&data, "SELECT offset, type, contract_version AS v, known, outcome FROM events ORDER BY offset");
    let row = |offset: u64, name: &str, v: u64, known: u64| json!({ "offset": offset, "type": name, "v": v, "known": known, "outcome": null });
    let expected = [
        row(0, "call.outcome", 2, 1),
        row(4, "call.outcome", 99, 0),
        row(5, "call.unheard", 1, 0),
        row(6, "call.outcome", 2, 1),
    ];
    assert_eq!(rows.expect("rows"), expected);
    let kept = query(&data, "SELECT json_extract(data, '$.novel[0]') AS n FROM events WHERE offset = 4").expect("rows");
    assert_eq!(kept, [json!({ "n": 1 })]);
    let dead = query(&data, "SELECT offset, reason FROM dead_letters ORDER BY offset").expect("rows");
    assert_eq!(dead.iter().map(|one| one["offset"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    assert!(dead[0]["reason"].as_str().is_some_and(|why| why.contains("ce_id")), "{dead:?}");
    // A second process keeps its hands off.
    let second = run(cairn().args(["consume", "audit", "--bootstrap", &stream.cluster.kafka, "--data"]).arg(&data));
    assert!(!second.status.success() && text(&second.stderr).contains("already"), "{}", text(&second.stderr));
    drop(process);
}

#[test]
fn a_replay_puts_right_what_a_fault_made_wrong() {
    let orders = Orders::new(PERMIT_ALL, "[consumers.audit]\nenabled = false\n");
    let up = orders.up();
    let data = orders.data();
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    agent.call("get_order", &json!({ "order_id": "order-1" }));
    // The tool of that name is not there: its outcome is a failure.
    agent.call("no_such_tool", &json!({}));
    let outcomes = "SELECT outcome FROM events WHERE type = 'call.outcome' AND method = 'tools/call' ORDER BY offset";
    let right = |rows: &Vec<Value>| rows.iter().filter(|row| row["outcome"] != "completed").count();
    // A consumer with a fault: it writes every outcome as completed.
    let faulty = consume(&up.kafka, &data, &[("CAIRN_AUDIT_FAULT", "outcomes")]);
    let wrong = wait_for("both outcomes", || query(&data, outcomes).filter(|rows| rows.len() == 2));
    assert_eq!(right(&wrong), 0, "{wrong:?}");
    drop(faulty);
    // The fault is mended. What was applied counts as applied, so nothing changes by itself.
    let _mended = consume(&up.kafka, &data, &[]);
    agent.call("get_order", &json!({ "order_id": "order-1" }));
    wait_for("the third outcome", || query(&data, outcomes).filter(|rows| rows.len() == 3));
    assert_eq!(right(&query(&data, outcomes).expect("rows")), 0);
    let replay = |words: &[&str]| {
        let output = run(cairn()
            .arg("replay")
            .args(words)
            .args(["--topic", "mcp.calls", "--json", "--data"])
            .arg(&data)
            .env("CAIRN_OPERATOR_TOKEN", TOKEN));
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        serde_json::from_str::<Value>(text(&output.stdout).trim()).expect("JSON")
    };
    let planned = replay(&["--from", "1h", "--dry-run"]);
    assert!(planned["offsets"].as_u64() >= Some(9), "{planned}");
    assert_eq!(right(&query(&data, outcomes).expect("rows")), 0, "nothing is done");
    let done = replay(&["--from", "1h", "--rate", "1000", "--reason", "the fault was mended"]);
    assert_eq!((&done["outcome"], &done["changed"]), (&json!("completed"), &json!(1)), "{done}");
    let rows = query(&data, outcomes).expect("rows");
    assert_eq!((rows.len(), right(&rows)), (3, 1), "{rows:?}");
    let told: Vec<Value> = events(&data)
        .into_iter()
        .filter(|event| event["type"].as_str().is_some_and(|name| name.starts_with("replay.")))
        .map(|event| event["data"].clone())
        .collect();
    assert_eq!(told.len(), 2);
    assert_eq!((&told[0]["replay_id"], &told[0]["reason"]), (&told[1]["replay_id"], &json!("the fault was mended")));
    assert_eq!((&told[1]["changed"], &told[1]["outcome"]), (&json!(1), &json!("completed")));
    // Once more changes nothing.
    assert_eq!(replay(&["--from", "1h"])["changed"], json!(0));
    up.end();
}

#[test]
fn a_check_tells_a_consumer_that_is_ready_from_one_that_is_not() {
    let check = |fault: Option<&str>| {
        let mut command = cairn();
        command.args(["consumer", "check", "audit", "--events", "3000", "--rate", "100", "--json"]);
        if let Some(fault) = fault {
            command.env("CAIRN_AUDIT_FAULT", fault);
        }
        let output = run(&mut command);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
        (output.status.code(), said)
    };
    let (code, said) = check(None);
    assert_eq!((code, &said["ready"]), (Some(0), &json!(true)), "{said}");
    assert_eq!(said["checks"].as_array().map(Vec::len), Some(5), "{said}");
    let fresh = said["checks"][4]["words"].as_str().unwrap_or_default();
    assert!(fresh.contains("burst, 1000 a second: p50 ") && fresh.contains(" times real time"), "{said}");
    // One that leaves outcomes out.
    let (code, said) = check(Some("missing"));
    assert_eq!((code, &said["ready"], &said["checks"][0]["ok"]), (Some(5), &json!(false), &json!(false)), "{said}");
    assert!(said["checks"][0]["words"].as_str().is_some_and(|words| words.contains("missing")), "{said}");
}

/// What `cairn trail w --json` of that log says, and how many records it read.
pub(crate) fn path_of(kafka: &str, data: &Path, more: &[&str]) -> (Vec<Value>, u64) {
    let mut command = cairn();
    command.args(["trail", "w", "--json", "--bootstrap", kafka, "--data"]).arg(data).args(more);
    let output = run(command.env("CAIRN_LOG", "cairn::trail=debug"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let path: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let said = text(&output.stderr);
    let read = said.split("records=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let events = path["calls"].as_array().expect("calls").iter().flat_map(|call| call["events"].as_array());
    (events.flatten().cloned().collect(), read.unwrap_or_else(|| panic!("{said}")))
}

#[test]
fn a_trail_reads_where_the_audit_database_says_and_shows_what_the_log_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let stream = Stream::start(folder.path());
    let partition = cairn_contract::partition_for(b"w", CALLS.unsigned_abs());
    let partition = i32::try_from(partition).expect("small");
    let event = |id: u128| {
        let workflow = if id.is_multiple_of(500) { "w" } else { "another" };
        let call = uuid::Uuid::from_u128(id).to_string();
        Told { id, name: "call.intent", version: 1, data: json!({ "workflow_id": workflow, "call_id": call }) }
    };
    (1..=2_000).for_each(|id| stream.tell(partition, &event(id)));
    stream.flush();
    let data = folder.path().join("reader");
    let kafka = stream.cluster.kafka.clone();
    let consumer = consume(&kafka, &data, &[]);
    wait_for("the index", || number(&data, "SELECT count(*) FROM events").filter(|count| *count == 2_000));
    drop(consumer);
    let (whole, all) = path_of(&kafka, &data, &["--whole"]);
    assert_eq!((whole.len(), all), (4, 2_000));
    let (indexed, few) = path_of(&kafka, &data, &[]);
    assert_eq!((&indexed, few), (&whole, 4));
    // What came since is read as well.
    (2_001..=2_500).for_each(|id| stream.tell(partition, &event(id)));
    stream.flush();
    let (later, few) = path_of(&kafka, &data, &[]);
    assert_eq!((later.len(), few), (5, 504));
    // The database of one log says nothing of another.
    let elsewhere = tempfile::tempdir().expect("a folder");
    let other = Stream::start(elsewhere.path());
    (1..=3_000).for_each(|id| other.tell(partition, &event(id + 250)));
    other.flush();
    let (others, all) = path_of(&other.cluster.kafka, &data, &[]);
    assert_eq!((others.len(), all), (6, 3_000));
}
