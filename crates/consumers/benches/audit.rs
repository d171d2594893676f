//! How fast the audit database takes events, as a file and on a PostgreSQL server on loopback, beside plain rows into SQLite on the same
//! disk in the same run; and how long it takes to find one workflow among all of them.
//!
//! `cargo bench -p cairn-consumers --bench audit`, with `CAIRN_BENCH_EVENTS` for other numbers than 50,000 and 500,000 (commas between),
//! and `CAIRN_BENCH_FOLDER` for another disk. What is measured is what a consumer does with records: parsing, rows, indices, commit.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark talks to the person who started it")]
#![allow(missing_docs)]

#[cfg(feature = "postgres")]
#[path = "../../../clients/postgres/postgres.rs"]
mod server;

use std::{path::Path, time::Duration};

use bytes::Bytes;
use cairn_backbone::records::RawRecord;
use cairn_clock::{Entropy, Timestamp};
use cairn_consumers::{
    BATCH_RECORDS_MAX, Batch, Sink,
    audit::{
        AuditSink,
        query::{self, Limits},
    },
};
use rusqlite::{Connection, params};
use tokio::time::Instant;

const START_US: u64 = 1_795_521_600_000_000;
const PARTITIONS: u64 = 8;
const EVENTS_A_WORKFLOW: u64 = 20;

fn main() -> anyhow::Result<()> {
    let wanted = std::env::var("CAIRN_BENCH_EVENTS").unwrap_or_else(|_| "50000,500000".to_owned());
    let folder = match std::env::var_os("CAIRN_BENCH_FOLDER") {
        Some(folder) => tempfile::tempdir_in(folder)?,
        None => tempfile::tempdir()?,
    };
    let entropy = Entropy::seeded(7);
    println!("bytes of one event's value: {}", record(0, &entropy).value.as_ref().map_or(0, Bytes::len));
    println!(
        "{:>9}  {:>12}  {:>12}  {:>6}  {:>14}  {:>14}",
        "events", "audit /s", "plain /s", "ratio", "workflow", "its calls"
    );
    for events in wanted.split(',').map(|number| number.trim().parse::<u64>()) {
        let events = events?;
        let path = folder.path().join(format!("{events}.sqlite"));
        let audit = applied(&mut AuditSink::open(&path, &entropy)?, events, &entropy)?;
        let plain = plain(&folder.path().join("plain.sqlite"), events.min(500_000), &entropy)?;
        let (found, calls) = lookups(&path, events)?;
        println!(
            "{events:>9}  {audit:>12.0}  {plain:>12.0}  {:>6.2}  {:>11.2} ms  {:>11.2} ms",
            audit / plain,
            found.as_secs_f64() * 1e3,
            calls.as_secs_f64() * 1e3
        );
        std::fs::remove_file(&path)?;
        #[cfg(feature = "postgres")]
        on_server(events, audit, &entropy)?;
    }
    Ok(())
}

/// The same on a server, beside the file of the same run.
#[cfg(feature = "postgres")]
fn on_server(events: u64, file: f64, entropy: &Entropy) -> anyhow::Result<()> {
    use cairn_consumers::postgres::{Options, PostgresSink, Role, Settings, ask};

    let Some(server) = server::started_or_skip("fsync = on\nfull_page_writes = on") else { return Ok(()) };
    let (url, password) = (server.url("postgres", "postgres"), Some(server::PASSWORD.to_owned()));
    let options = Options::read(&Settings { url, password, ..Settings::default() })?;
    let mut sink = PostgresSink::new(options.clone(), entropy, Role::Applies);
    sink.positions()?;
    let audit = applied(&mut sink, events, entropy)?;
    // As a consumer does twice a minute.
    sink.tend(Timestamp::from_micros(START_US))?;
    let mut slowest = [Duration::ZERO; 2];
    for number in 0..20 {
        let workflow = workflow_of(number * (events / EVENTS_A_WORKFLOW) / 20 * EVENTS_A_WORKFLOW);
        for (index, table) in ["events", "calls"].into_iter().enumerate() {
            let begun = Instant::now();
            let sql = format!("SELECT * FROM {table} WHERE workflow_id = '{workflow}'");
            let answer = ask(&options, &sql, &Limits::default())?;
            slowest[index] = slowest[index].max(begun.elapsed());
            anyhow::ensure!(!answer.rows.is_empty(), "{sql} finds nothing");
        }
    }
    println!(
        "{events:>9}  {audit:>12.0}  on PostgreSQL: {:.2} of the file  {:>11.2} ms  {:>11.2} ms",
        audit / file,
        slowest[0].as_secs_f64() * 1e3,
        slowest[1].as_secs_f64() * 1e3
    );
    Ok(())
}

/// Events a second into the audit database.
fn applied(sink: &mut dyn Sink, events: u64, entropy: &Entropy) -> anyhow::Result<f64> {
    let (mut at, mut spent) = (0, Duration::ZERO);
    while at < events {
        let next = (at + BATCH_RECORDS_MAX as u64).min(events);
        let records: Vec<RawRecord> = (at..next).map(|number| record(number, entropy)).collect();
        let begun = Instant::now();
        let mut batch = Batch::default();
        for record in records {
            let from = at.div_ceil(PARTITIONS);
            // Where the partition stood: as many as came before of those that are its own.
            let before = (at + PARTITIONS - 1 - u64::from(record.partition)) / PARTITIONS;
            debug_assert!(before <= from);
            batch.push(record, || ("topic".to_owned(), (at > 0).then_some(before)));
        }
        sink.apply(&batch)?;
        spent += begun.elapsed();
        at = next;
    }
    Ok(events as f64 / spent.as_secs_f64())
}

/// The same values as plain rows: a number and a text, no index, the same commits.
fn plain(path: &Path, events: u64, entropy: &Entropy) -> anyhow::Result<f64> {
    let _ = std::fs::remove_file(path);
    let mut connection = Connection::open(path)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.execute("CREATE TABLE plain (seq INTEGER PRIMARY KEY, data TEXT NOT NULL)", [])?;
    let (mut at, mut spent) = (0, Duration::ZERO);
    while at < events {
        let next = (at + BATCH_RECORDS_MAX as u64).min(events);
        let records: Vec<RawRecord> = (at..next).map(|number| record(number, entropy)).collect();
        let begun = Instant::now();
        let begun_rows = connection.transaction()?;
        for (number, record) in (at..next).zip(&records) {
            let value = std::str::from_utf8(record.value.as_ref().unwrap())?;
            begun_rows.prepare_cached("INSERT INTO plain VALUES (?1, ?2)")?.execute(params![number as i64, value])?;
        }
        begun_rows.commit()?;
        spent += begun.elapsed();
        at = next;
    }
    Ok(events as f64 / spent.as_secs_f64())
}

/// How long one workflow takes, its events and its calls: the slowest of twenty, each another one, opened anew each time.
fn lookups(path: &Path, events: u64) -> anyhow::Result<(Duration, Duration)> {
    let mut slowest = [Duration::ZERO; 2];
    let workflows = events / EVENTS_A_WORKFLOW;
    for number in 0..20 {
        let workflow = workflow_of(number * workflows / 20 * EVENTS_A_WORKFLOW);
        for (index, table) in ["events", "calls"].into_iter().enumerate() {
            let sql = format!("SELECT * FROM {table} WHERE workflow_id = '{workflow}'");
            let begun = Instant::now();
            let answer = query::ask(path, &sql, &Limits::default())?;
            slowest[index] = slowest[index].max(begun.elapsed());
            anyhow::ensure!(!answer.rows.is_empty(), "{sql} finds nothing");
        }
    }
    Ok((slowest[0], slowest[1]))
}

/// Ids of workflows are of chance, as agents choose them.
fn workflow_of(number: u64) -> String {
    let mixed = (number / EVENTS_A_WORKFLOW).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{mixed:016x}{:016x}", mixed.rotate_left(17))
}

/// One of a call's five events, as the gateway writes them.
fn record(number: u64, entropy: &Entropy) -> RawRecord {
    let time = Timestamp::from_micros(START_US + number * 250);
    let call = uuid::Uuid::from_u128(u128::from(0x0199_6b5e_7c00_7000_u64) << 64 | u128::from(number / 5));
    let (name, own) = match number % 5 {
        0 => (
            "call.decision",
            r#""decision":"permit","policy_version":"sha256:3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a3a","determining_policies":["refunds-need-a-person"],"elapsed_us":180"#,
        ),
        1 => (
            "call.intent",
            r#""durability":"strict","forwarded":"sha256:5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b","upstream":"legacy""#,
        ),
        2 => (
            "call.outcome",
            r#""outcome":"completed","effect":"answered","is_error":false,"elapsed_us":2100,"upstream_elapsed_us":1400"#,
        ),
        3 => ("call.answered", r#""written":true"#),
        _ => ("context.read", r#""mcp_resource_uri":"order://4711","version":"7","version_source":"etag""#),
    };
    let workflow = workflow_of(number);
    let value = format!(
        r#"{{"workflow_id":"{workflow}","call_id":"{call}","operation_id":"{call}","direction":"to_server","trace_id":"{workflow}","span_id":"00f067aa0ba902b7","principal":"corp/ann","agent_name":"claude-code","agent_version":"2.1.0","server":"orders","era":"modern","mcp_protocol_version":"2026-07-28","network_transport":"tcp","mcp_method_name":"tools/call","gen_ai_tool_name":"refund_order",{own},"hlc":"{:016}-00000","producer":{{"id":"gw-1","epoch":1,"sequence":{number},"previous":"9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c9c"}},"contract":{{"name":"{name}","version":1}}}}"#,
        time.as_micros()
    );
    let header = |name: &str, value: String| (name.to_owned(), Bytes::from(value));
    RawRecord {
        topic: "mcp.calls".to_owned(),
        partition: (number % PARTITIONS) as u32,
        offset: number / PARTITIONS,
        timestamp_ms: time.as_millis(),
        key: Some(Bytes::from(workflow)),
        headers: vec![
            header("ce_specversion", "1.0".to_owned()),
            header("ce_id", entropy.uuid_v7(time).to_string()),
            header("ce_type", format!("io.cairn.{name}")),
            header("ce_source", "cairn://gateway/gw-1".to_owned()),
            header("ce_time", time.to_string()),
            header("ce_subject", "orders/refund_order".to_owned()),
        ],
        value: Some(Bytes::from(value)),
    }
}
