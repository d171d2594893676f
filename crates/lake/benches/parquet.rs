//! How fast events become rows of Parquet, beside the same values as bare Parquet of two columns in the same run.
//!
//! `cargo bench -p cairn-lake --bench parquet`, with `CAIRN_BENCH_EVENTS` for another number than 500,000. What is measured is what the
//! consumer does with records on its one thread, between the Kafka client and the store: parsing, what lies twice, columns, compression.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark talks to the person who started it")]
#![allow(missing_docs)]

use std::{io::Write, time::Duration};

use bytes::Bytes;
use cairn_backbone::records::RawRecord;
use cairn_clock::{Entropy, Timestamp};
use cairn_consumers::Event;
use cairn_evaluate::{EventOf, Format, ModelCall, Offered, Row};
use cairn_lake::{
    calls::Parquet,
    columns::{Field, Kind, Table},
    near::Near,
    sink::Gathered,
};
use serde_json::json;
use tokio::time::Instant;

const START_US: u64 = 1_795_521_600_000_000;
const PARTITIONS: u64 = 8;
const EVENTS_A_WORKFLOW: u64 = 20;
/// Events that are held at once.
const ROUND: u64 = 100_000;
/// As the sink cuts its files.
const FILE_BYTES: usize = 128 << 20;

fn main() -> anyhow::Result<()> {
    let wanted = std::env::var("CAIRN_BENCH_EVENTS").unwrap_or_else(|_| "500000".to_owned());
    let events: u64 = wanted.trim().parse()?;
    let entropy = Entropy::seeded(7);
    println!("bytes of one event's value: {}", record(0, &entropy).value.as_ref().map_or(0, Bytes::len));
    let (mut parsed, mut rows, mut bare, mut at) = (Duration::ZERO, Duration::ZERO, Duration::ZERO, 0);
    let (mut gathered, mut bytes) = (Gathered::default(), 0);
    let mut near: Vec<Near> = (0..PARTITIONS).map(|_| Near::default()).collect();
    while at < events {
        let next = (at + ROUND).min(events);
        let records: Vec<RawRecord> = (at..next).map(|number| record(number, &entropy)).collect();
        bare += plain(&records)?;
        let begun = Instant::now();
        let read: Vec<Event> = records.into_iter().map(|record| Event::read(record).expect("an event")).collect();
        parsed += begun.elapsed();
        let begun = Instant::now();
        for event in &read {
            if near[event.partition as usize].is_new(event.offset, event.id) {
                gathered.add(event, "topic");
            }
        }
        if gathered.bytes() >= FILE_BYTES || next == events {
            let files = std::mem::take(&mut gathered).files(&[], |number| number.to_string(), 0)?;
            bytes += files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
        }
        rows += begun.elapsed();
        at = next;
    }
    let rate = |spent: Duration| events as f64 / spent.as_secs_f64();
    println!("{:>34}  {:>12}", "", "a second");
    println!("{:>34}  {:>12.0}", "events to rows of Parquet", rate(rows));
    println!("{:>34}  {:>12.0}", "records to rows, parsing included", rate(rows + parsed));
    println!("{:>34}  {:>12.0}", "bare Parquet of two columns", rate(bare));
    println!(
        "ratio to bare Parquet: {:.2}; {:.0} bytes a row in the file",
        bare.as_secs_f64() / rows.as_secs_f64(),
        bytes as f64 / events as f64
    );
    let calls: Vec<Row> = (0..events / 10).map(call).collect();
    let begun = Instant::now();
    Parquet.write(&calls, &mut std::io::sink().by_ref())?;
    println!("{:>34}  {:>12.0}", "rows of a data set", calls.len() as f64 / begun.elapsed().as_secs_f64());
    Ok(())
}

/// The same values with their offsets, and nothing else.
fn plain(records: &[RawRecord]) -> anyhow::Result<Duration> {
    const FIELDS: [Field; 2] = [
        Field { id: 1, name: "offset", kind: Kind::Long, required: true, doc: "" },
        Field { id: 2, name: "data", kind: Kind::LongText, required: true, doc: "" },
    ];
    let begun = Instant::now();
    let mut table = Table::new(&FIELDS);
    for record in records {
        let value = std::str::from_utf8(record.value.as_ref().unwrap())?;
        table.add().long(Some(record.offset as i64)).text(Some(value)).end();
    }
    let mut bytes = Vec::new();
    table.write(&mut bytes, Vec::new())?;
    Ok(begun.elapsed())
}

/// Ids of workflows are of chance, as agents choose them.
fn workflow_of(number: u64) -> String {
    let mixed = (number / EVENTS_A_WORKFLOW).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{mixed:016x}{:016x}", mixed.rotate_left(17))
}

/// A row of a data set.
fn call(number: u64) -> Row {
    let reference = |of: &str| json!({ "digest": format!("hmac-sha256:k1:{of}{}", workflow_of(number)), "bytes": 48, "media_type": "application/json" });
    Row {
        call_id: format!("01996b5e-7c00-7000-8000-{number:012}"),
        workflow_id: workflow_of(number),
        trace_id: workflow_of(number),
        principal: "corp/ann".to_owned(),
        server: "orders".to_owned(),
        time: Timestamp::from_micros(START_US + number * 250).to_string(),
        model: Some(ModelCall {
            provider: Some("openai".to_owned()),
            prompt: Some(reference("p")),
            ..ModelCall::default()
        }),
        tools_offered: Some(vec![Offered { name: "refund_order".to_owned(), digest: Some("sha256:1d".to_owned()) }]),
        tool: Some("refund_order".to_owned()),
        arguments: Some(reference("a")),
        decision: "permit".to_owned(),
        outcome: Some("completed".to_owned()),
        result: Some(reference("r")),
        elapsed_us: Some(2_100),
        events: vec![EventOf {
            type_name: "call.decision".to_owned(),
            topic: "mcp.calls".to_owned(),
            partition: 1,
            offset: number,
        }],
        ..Row::default()
    }
}

/// One of a call's events, as the gateway writes them.
fn record(number: u64, entropy: &Entropy) -> RawRecord {
    let time = Timestamp::from_micros(START_US + number * 250);
    let call = uuid::Uuid::from_u128(u128::from(0x0199_6b5e_7c00_7000_u64) << 64 | u128::from(number / 4));
    let (name, own) = match number % 4 {
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
        _ => ("call.answered", r#""written":true"#),
    };
    let workflow = workflow_of(number);
    let mut previous = [0; 32];
    entropy.fill(&mut previous);
    let previous: String = previous.iter().map(|byte| format!("{byte:02x}")).collect();
    let value = format!(
        r#"{{"workflow_id":"{workflow}","call_id":"{call}","operation_id":"{call}","direction":"to_server","trace_id":"{workflow}","span_id":"00f067aa0ba902b7","principal":"corp/ann","agent_name":"claude-code","agent_version":"2.1.0","server":"orders","era":"modern","mcp_protocol_version":"2026-07-28","network_transport":"tcp","mcp_method_name":"tools/call","gen_ai_tool_name":"refund_order",{own},"hlc":"{:016}-00000","producer":{{"id":"gw-1","epoch":1,"sequence":{number},"previous":"{previous}"}},"contract":{{"name":"{name}","version":1}}}}"#,
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
