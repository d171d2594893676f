//! The audit database on a PostgreSQL server, as a user has it: named in the configuration, killed on both sides, shared by two processes,
//! asked by whoever means harm, and never shown its password.

#[path = "../../../../clients/postgres/postgres.rs"]
mod server;

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde_json::{Value, json};

use self::server::{PASSWORD, Postgres, shared_or_skip, started_or_skip};
use crate::{
    consumers::{CALLS, PERMIT_ALL, Stream, Told, path_of},
    support::{Agent, Orders, Process, TOKEN, cairn, events, files, http, run, text, wait_for},
    tls::Authority,
};

/// The variable that the configurations name.
const VARIABLE: &str = "AUDIT_PASSWORD";

/// A database of one's own, whose owner is no superuser.
fn database(server: &Postgres, name: &str) {
    let role =
        format!("DO $$ BEGIN CREATE ROLE cairn LOGIN PASSWORD '{PASSWORD}'; EXCEPTION WHEN OTHERS THEN NULL; END $$");
    server.run("postgres", &role);
    server.run("postgres", &format!("CREATE DATABASE {name} OWNER cairn"));
}

fn section(server: &Postgres, name: &str) -> String {
    format!("[consumers.audit]\ndatabase = \"{}\"\npassword = \"${{{VARIABLE}}}\"\n", server.url("cairn", name))
}

/// Sets the password for this process and those that it starts: they are configured by the same name.
fn with_password(command: &mut std::process::Command) -> &mut std::process::Command {
    command.env(VARIABLE, PASSWORD)
}

/// What `cairn query` says; nothing where it fails.
fn query(data: &Path, sql: &str) -> Option<Vec<Value>> {
    let mut command = cairn();
    command.args(["query", sql, "--json", "--rows-max", "100000", "--data"]).arg(data);
    let output = run(with_password(&mut command));
    output
        .status
        .success()
        .then(|| text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect())
}

fn number(data: &Path, sql: &str) -> Option<i64> {
    query(data, sql)?.first()?.as_object()?.values().next()?.as_i64()
}

/// A data folder with a configuration beside it, for `cairn consume`.
struct Place {
    data: PathBuf,
    config: PathBuf,
    said: PathBuf,
}

impl Place {
    fn new(folder: &Path, name: &str, section: &str) -> Self {
        let config = folder.join(name).with_extension("toml");
        std::fs::write(&config, section).expect("written");
        Self { data: folder.join(name), config, said: folder.join(name).with_extension("said") }
    }

    fn consume(&self, kafka: &str, more: &[(&str, &str)]) -> Process {
        let said = std::fs::File::options().create(true).append(true).open(&self.said).expect("a file");
        let mut command = cairn();
        command
            .args(["consume", "audit", "--bootstrap", kafka, "--data"])
            .arg(&self.data)
            .arg("--config")
            .arg(&self.config);
        command.envs(more.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        Process { child: with_password(&mut command).spawn().expect("it starts") }
    }

    fn said(&self) -> String {
        text(&std::fs::read(&self.said).unwrap_or_default())
    }
}

/// An `up` before orders, whose audit is on a server.
fn up(orders: &Orders) -> crate::support::Up {
    let mut command = cairn();
    command.args(["up", "--kafka", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]);
    command.arg(orders.data()).arg("--config").arg(orders.folder.path().join("cairn.toml"));
    command.env("CAIRN_OPERATOR_TOKEN", TOKEN);
    crate::support::Up::spawn(with_password(&mut command), &orders.data())
}

#[test]
fn what_agents_do_is_asked_of_a_server_in_sql_and_nobody_sees_its_password() {
    let Some(server) = shared_or_skip() else { return };
    database(server, "whole");
    let orders = Orders::new(PERMIT_ALL, &section(server, "whole"));
    let up = up(&orders);
    let data = orders.data();
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    for _ in 0..3 {
        agent.call("get_order", &json!({ "order_id": "order-1" }));
    }
    let calls = "SELECT tool, decision, outcome FROM calls WHERE workflow_id = 'wf-1' AND method = 'tools/call' AND outcome IS NOT NULL";
    let rows = wait_for("three calls", || query(&data, calls).filter(|rows| rows.len() == 3));
    assert_eq!(rows[0], json!({ "tool": "get_order", "decision": "permit", "outcome": "completed" }));
    wait_for("all of the trail", || {
        let places = |rows: Vec<Value>| -> std::collections::BTreeSet<String> {
            rows.iter().map(|row| format!("{}/{}/{}", row["topic"], row["partition"], row["offset"])).collect()
        };
        let table = query(&data, "SELECT topic, partition, \"offset\" FROM events")?;
        (places(events(&data)) == places(table)).then_some(())
    });
    assert!(!data.join("consumers/audit.sqlite").exists());
    // By the admin address too, and only reading.
    let authorization = format!("Bearer {TOKEN}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let ask = |sql: &str| http(&up.admin, "POST /query", &headers, &json!({ "sql": sql }).to_string());
    let answer = ask("SELECT count(*) AS n FROM calls");
    assert_eq!((answer.status, &answer.json()["columns"]), (200, &json!(["n"])), "{answer:?}");
    for harm in ["DELETE FROM events", "SET TRANSACTION READ WRITE", "SELECT pg_terminate_backend(backend) FROM holder"]
    {
        assert_eq!(ask(harm).status, 400, "{harm}");
        assert!(query(&data, harm).is_none(), "{harm}");
    }
    wait_for("no lag", || {
        let said = run(cairn().args(["lag", "--json", "--data"]).arg(&data));
        let said: Value = serde_json::from_slice(&said.stdout).ok()?;
        let audit = said["groups"].as_array()?.iter().find(|group| group["group"] == "cairn-audit")?.clone();
        (audit["lag_records"] == 0 && audit["members"] == 1).then_some(())
    });
    // Paused, gone on, and moved back: nothing is there twice.
    let consumer = |words: &[&str]| {
        let output =
            run(cairn().arg("consumer").args(words).arg("--data").arg(&data).env("CAIRN_OPERATOR_TOKEN", TOKEN));
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        serde_json::from_str::<Value>(text(&output.stdout).trim()).expect("JSON")
    };
    let stands = || consumer(&["list", "--json"])["consumers"][0].clone();
    consumer(&["pause", "audit", "--json"]);
    wait_for("the pause", || (stands()["is_paused"] == json!(true)).then_some(()));
    agent.call("get_order", &json!({ "order_id": "order-1" }));
    wait_for("a lag", || (stands()["lag_records"].as_u64() >= Some(3)).then_some(()));
    consumer(&["resume", "audit", "--json"]);
    wait_for("the fourth call", || query(&data, calls).filter(|rows| rows.len() == 4));
    let before = stands()["events"].as_i64().expect("a number");
    let moved = consumer(&["seek", "audit", "--to", "1h", "--json"]);
    assert!(moved["moves"].as_array().is_some_and(|moves| moves.iter().any(|one| one["to"] == 0)), "{moved}");
    wait_for("all of it again", || (stands()["events"].as_i64()? >= before + 12).then_some(()));
    assert_eq!(query(&data, calls).map(|rows| rows.len()), Some(4));
    // No file, no word and no answer holds the password.
    let mut words = up.errors() + &up.lines.join("\n") + &stands().to_string();
    words += &http(&up.admin, "GET /metrics", &[], "").body;
    for path in files(&data) {
        words += &text(&std::fs::read(path).unwrap_or_default());
    }
    assert!(!words.contains(PASSWORD), "the password is somewhere");
    let without = run(cairn().args(["query", "SELECT 1", "--data"]).arg(&data).env_remove(VARIABLE));
    assert!(text(&without.stderr).contains(VARIABLE), "{}", text(&without.stderr));
    up.end();
}

#[test]
#[allow(clippy::disallowed_methods)] // when it is killed is the machine's own time
fn killed_on_either_side_it_neither_misses_nor_repeats() {
    const EVENTS: u128 = 12_000;
    let Some(server) = started_or_skip("") else { return };
    database(&server, "killed");
    let folder = tempfile::tempdir().expect("a folder");
    let place = Place::new(folder.path(), "audit", &section(&server, "killed"));
    let stream = Stream::start(folder.path());
    let kafka = stream.cluster.kafka.clone();
    let sending = std::thread::spawn(move || {
        for id in 0..EVENTS {
            let data = json!({ "workflow_id": format!("wf-{}", id % 100), "call_id": uuid::Uuid::from_u128(id / 4) });
            let partition = i32::try_from(id % 8).expect("small");
            stream.tell(partition, &Told { id, name: "call.intent", version: 2, data });
            if id % 500 == 0 {
                stream.flush();
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        stream.flush();
        stream
    });
    let count = || {
        let rows = server.try_run("killed", "SELECT coalesce(sum(next), 0) FROM cairn.places").ok()?;
        rows.first()?.first()?.as_ref()?.parse::<i64>().ok()
    };
    let (mut seen, mut in_between) = (0, 0);
    let total = i64::try_from(EVENTS).expect("small");
    for kill in 0..6 {
        let process = place.consume(&kafka, &[]);
        let deadline = std::time::Instant::now() + Duration::from_secs(15);
        let now = loop {
            let now = count().unwrap_or_default();
            if now > seen || std::time::Instant::now() > deadline {
                break now;
            }
            std::thread::sleep(Duration::from_millis(3 + 5 * kill));
        };
        in_between += u32::from(now > seen && now < total);
        // The server, and then whoever writes to it, or that one alone.
        if kill % 2 == 0 {
            server.crash();
            server.up().expect("it comes back");
            wait_for("the consumer to go on", || count().filter(|now| *now > 0));
        }
        process.signal("-KILL");
        seen = count().unwrap_or_default();
    }
    assert!(in_between > 0, "nothing was killed in the middle");
    let stream = sending.join().expect("all are sent");
    let _last = place.consume(&stream.cluster.kafka, &[]);
    wait_for("everything", || (count()? >= total).then_some(()));
    let one = |sql: &str| server.run("killed", sql)[0][0].clone().expect("a value");
    assert_eq!(one("SELECT count(*) FROM cairn.events"), total.to_string(), "each event once");
    assert_eq!(one("SELECT count(DISTINCT id) FROM cairn.events"), total.to_string());
    let gaps = "SELECT count(*) FROM (SELECT max(\"offset\") + 1 - count(*) AS gap FROM cairn.events GROUP BY partition) g WHERE gap <> 0";
    assert_eq!(one(gaps), "0", "no offset is missing");
    assert!(!place.said().contains(PASSWORD));
}

#[test]
fn of_two_processes_one_applies_and_one_that_was_stalled_ends() {
    let Some(server) = shared_or_skip() else { return };
    database(server, "shared");
    let folder = tempfile::tempdir().expect("a folder");
    let stream = Stream::start(folder.path());
    let [first, second] = ["first", "second"].map(|name| Place::new(folder.path(), name, &section(server, "shared")));
    let tell = |ids: std::ops::Range<u128>| {
        for id in ids {
            let data = json!({ "workflow_id": "w" });
            stream.tell(i32::try_from(id % 8).expect("small"), &Told { id, name: "call.intent", version: 2, data });
        }
        stream.flush();
    };
    tell(0..100);
    let kafka = &stream.cluster.kafka;
    let mut stalled = first.consume(kafka, &[]);
    let count = "SELECT count(*) FROM events";
    wait_for("the first hundred", || (number(&first.data, count)? == 100).then_some(()));
    let _other = second.consume(kafka, &[]);
    wait_for("the other one to stand by", || second.said().contains("stands by").then_some(()));
    tell(100..200);
    wait_for("the second hundred", || (number(&first.data, count)? == 200).then_some(()));
    // It is stalled for long: a minute is what the database is told.
    stalled.signal("-STOP");
    tell(200..300);
    let long_ago = "UPDATE cairn.holder SET seen = seen - interval '1 minute' WHERE who LIKE 'process %'";
    server.run("shared", long_ago);
    wait_for("the other one to take over", || (number(&second.data, count)? == 300).then_some(()));
    stalled.signal("-CONT");
    let status = stalled.wait();
    assert!(!status.success() && first.said().contains("another process"), "{status}: {}", first.said());
    tell(300..400);
    wait_for("all", || (number(&second.data, count)? == 400).then_some(()));
    assert_eq!(number(&second.data, "SELECT count(DISTINCT id) FROM events"), Some(400));
}

#[test]
fn a_replay_puts_right_what_a_fault_made_wrong_on_a_server() {
    let Some(server) = shared_or_skip() else { return };
    database(server, "replayed");
    let section = section(server, "replayed") + "enabled = false\n";
    let orders = Orders::new(PERMIT_ALL, &section);
    let up = up(&orders);
    let data = orders.data();
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    agent.call("get_order", &json!({ "order_id": "order-1" }));
    agent.call("no_such_tool", &json!({}));
    let outcomes = "SELECT outcome FROM events WHERE type = 'call.outcome' AND method = 'tools/call' ORDER BY seq";
    let wrong = |rows: &Vec<Value>| rows.iter().filter(|row| row["outcome"] == "completed").count();
    let place = Place { data: data.clone(), config: orders.folder.path().join("cairn.toml"), said: data.join("said") };
    let faulty = place.consume(&up.kafka, &[("CAIRN_AUDIT_FAULT", "outcomes")]);
    let rows = wait_for("both outcomes", || query(&data, outcomes).filter(|rows| rows.len() == 2));
    assert_eq!(wrong(&rows), 2, "{rows:?}");
    drop(faulty);
    let _mended = place.consume(&up.kafka, &[]);
    let replay = |words: &[&str]| {
        let mut command = cairn();
        command.arg("replay").args(words).args(["--topic", "mcp.calls", "--json", "--data"]).arg(&data);
        let output = run(with_password(command.env("CAIRN_OPERATOR_TOKEN", TOKEN)));
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
        serde_json::from_str::<Value>(text(&output.stdout).trim()).expect("JSON")
    };
    let done = replay(&["--from", "1h", "--reason", "the fault was mended"]);
    assert_eq!((&done["outcome"], &done["changed"]), (&json!("completed"), &json!(1)), "{done}");
    assert_eq!(query(&data, outcomes).map(|rows| wrong(&rows)), Some(1));
    assert_eq!(replay(&["--from", "1h"])["changed"], json!(0));
    up.end();
}

#[test]
fn a_trail_reads_where_a_server_says() {
    let Some(server) = shared_or_skip() else { return };
    database(server, "indexed");
    let folder = tempfile::tempdir().expect("a folder");
    let place =
        Place::new(folder.path(), "reader", &section(server, "indexed").replace(&format!("${{{VARIABLE}}}"), PASSWORD));
    let stream = Stream::start(folder.path());
    let partition = cairn_contract::partition_for(b"w", CALLS.unsigned_abs());
    let partition = i32::try_from(partition).expect("small");
    for id in 1..=1_000_u128 {
        let workflow = if id.is_multiple_of(250) { "w" } else { "another" };
        let data = json!({ "workflow_id": workflow, "call_id": uuid::Uuid::from_u128(id).to_string() });
        stream.tell(partition, &Told { id, name: "call.intent", version: 1, data });
    }
    stream.flush();
    let kafka = stream.cluster.kafka.clone();
    let _consumer = place.consume(&kafka, &[]);
    wait_for("the index", || number(&place.data, "SELECT count(*) FROM events").filter(|count| *count == 1_000));
    let (whole, all) = path_of(&kafka, &place.data, &["--whole"]);
    assert_eq!((whole.len(), all), (4, 1_000));
    assert_eq!(path_of(&kafka, &place.data, &[]), (whole, 4));
}

#[test]
fn tls_is_checked_and_errors_say_what_to_do() {
    let Some(server) = shared_or_skip() else { return };
    database(server, "secured");
    let folder = tempfile::tempdir().expect("a folder");
    let (good, other) = (Authority::new("good"), Authority::new("other"));
    good.issue(folder.path(), "server");
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
    server.write("server.crt", &read("server.pem"));
    server.write("server.key", &read("server.key"));
    let rules = std::fs::read_to_string(server.data().join("pg_hba.conf")).expect("a file");
    server.write("pg_hba.conf", &format!("hostnossl secured all 127.0.0.1/32 reject\n{rules}"));
    server.append("postgresql.conf", "ssl = on");
    server.run("postgres", "SELECT pg_reload_conf()");
    let (good, other) = (good.publish(folder.path().join("good.pem")), other.publish(folder.path().join("other.pem")));
    let url = server.url("cairn", "secured");
    let stream = Stream::start(folder.path());
    let place = |name: &str, database: &str, password: &str| {
        let section = format!("[consumers.audit]\ndatabase = \"{database}\"\npassword = \"{password}\"\n");
        let place = Place::new(folder.path(), name, &section);
        (place.consume(&stream.cluster.kafka, &[]), place)
    };
    let by = |roots: &Path| format!("{url}?sslmode=verify-full&sslrootcert={}", roots.display());
    let (_works, works) = place("works", &by(&good), PASSWORD);
    wait_for("the tables", || number(&works.data, "SELECT count(*) FROM events").filter(|count| *count == 0));
    let absent = server.url("cairn", "absent");
    let wrong = [
        ("plain", url.clone(), PASSWORD, "sslmode=verify-full"),
        ("unknown", by(&other), PASSWORD, "sslrootcert"),
        ("wrong", by(&good), "s3cret-but-wrong", "consumers.audit.password"),
        ("absent", absent, PASSWORD, "CREATE DATABASE"),
    ];
    for (name, database, password, what_to_do) in wrong {
        let (_process, place) = place(name, &database, password);
        wait_for(name, || place.said().contains(what_to_do).then_some(()));
        let asked = run(cairn().args(["query", "SELECT 1", "--data"]).arg(&place.data));
        let said = place.said() + &text(&asked.stderr);
        assert!(text(&asked.stderr).contains(what_to_do), "{said}");
        assert!(!said.contains(password), "{said}");
    }
}
