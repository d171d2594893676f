//! The hot paths one by one: encode, append, fetch, decide, forward. Each is shown as a ratio to the least that its work
//! can cost, measured in the same run: `cargo bench -p cairn-bench`, or with names to run only those.
//!
//! Path and baseline take turns; the median over rounds is shown. What a ratio leaves is Cairn's own part.
#![allow(clippy::print_stdout, reason = "a benchmark talks to the person who started it")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on must stop")]

use std::{
    collections::BTreeMap, fs::File, hint::black_box, num::NonZeroU32, os::unix::fs::FileExt, sync::Arc, time::Duration,
};

use bytes::{Bytes, BytesMut};
use cairn_broker::{
    Broker, BrokerOptions, Principal, TopicSpec,
    batch::{BatchBuilder, stamp},
};
use cairn_clock::{Clock, Entropy, Timestamp};
use cairn_contract::{
    Body, CallIntent, Common, Direction, Draft, Durability, Era, Producer, Reference, Stamp, Target, Transport, link,
};
use cairn_log::{Append, Log, LogOptions, Offset, PartitionIndex, Retention, StreamId};
use cairn_mcp::{ForwardHeaders, HttpClient, HttpLink, HttpTarget, Limits, Link, Message};
use cairn_policy::{PolicyStore, Question, Trial, folder_texts};
use cedar_policy::{Authorizer, Context, Entities, EntityUid, PolicySet, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::{net::TcpStream, time::Instant};
use uuid::Uuid;

/// How long one side runs in a round.
const SLICE: Duration = Duration::from_millis(400);
/// Rounds.
const ROUNDS: usize = 5;
/// Runs between two looks at the clock.
const BURST: u32 = 16;
/// Bytes of a record, as in the table of the log.
const RECORD_BYTES: usize = 1 << 10;
/// Bytes of one fetch.
const FETCH_BYTES: usize = 1 << 20;

const POLICIES: &str = r#"@id("reads")
permit(principal, action == Action::"resources/read", resource);
@id("tools")
permit(principal, action == Action::"tools/call", resource);
@id("removing-needs-a-person")
@obligation("approval")
permit(principal, action == Action::"tools/call", resource == Tool::"canned/remove");
@id("no-storing")
forbid(principal, action == Action::"tools/call", resource == Tool::"canned/store");
"#;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    println!("| path | µs | baseline | µs | ratio |\n| --- | ---: | --- | ---: | ---: |");
    if wants("encode") {
        runtime.block_on(encode());
    }
    if wants("append") {
        runtime.block_on(append());
    }
    if wants("fetch") {
        runtime.block_on(fetch());
    }
    if wants("decide") {
        runtime.block_on(decide());
    }
    if wants("decide") {
        decide_among_many();
    }
    if wants("forward") {
        runtime.block_on(forward());
    }
}

/// Runs both sides in turns and prints the medians of what one run takes.
async fn compare<A, B>(path: &str, mut run: impl AsyncFnMut() -> A, baseline: &str, mut base: impl AsyncFnMut() -> B) {
    let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (a, b) = (timed(&mut run).await, timed(&mut base).await);
        ours.push(a);
        theirs.push(b);
        ratios.push(a / b);
    }
    let (a, b, ratio) = (median(ours), median(theirs), median(ratios));
    println!("| {path} | {a:.2} | {baseline} | {b:.2} | {ratio:.2} |");
}

async fn timed<T>(run: &mut impl AsyncFnMut() -> T) -> f64 {
    let began = Instant::now();
    let mut runs = 0_u32;
    while began.elapsed() < SLICE {
        for _ in 0..BURST {
            black_box(run().await);
        }
        runs += BURST;
    }
    began.elapsed().as_secs_f64() * 1e6 / f64::from(runs)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn draft() -> Draft {
    let digest = format!("hmac-sha256:k1:{}", "3a".repeat(32));
    let common = Common {
        workflow_id: "refund-4711".to_owned(),
        call_id: Some(Uuid::from_u128(2)),
        causation_id: Some(Uuid::from_u128(3)),
        direction: Some(Direction::ToServer),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
        span_id: Some("00f067aa0ba902b7".to_owned()),
        principal: Some("local".to_owned()),
        agent_name: Some("bench".to_owned()),
        agent_version: Some("1".to_owned()),
        server: Some("canned".to_owned()),
        era: Some(Era::Legacy),
        mcp_protocol_version: Some("2025-11-25".to_owned()),
        network_transport: Some(Transport::Tcp),
        mcp_method_name: Some("tools/call".to_owned()),
        mcp_session_id: Some(digest.clone()),
        jsonrpc_request_id: Some("7".to_owned()),
        ..Common::default()
    };
    let media_type = "application/json".to_owned();
    let body = Body::CallIntent(CallIntent {
        target: Target::tool("echo"),
        arguments: Some(Reference { digest: digest.clone(), bytes: 48, media_type, location: None, inline: None }),
        durability: Durability::Strict,
        forwarded: digest.clone(),
        policy_version: format!("sha256:{}", "9c".repeat(32)),
        upstream: Some(Era::Legacy),
        upstream_protocol_version: Some("2025-11-25".to_owned()),
        upstream_network_transport: Some(Transport::Tcp),
        repeats: None,
        writes: Vec::new(),
        invocation: None,
        rewritten: None,
    });
    Draft {
        key: "refund-4711".to_owned(),
        subject: Some("canned/echo".to_owned()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned()),
        tracestate: None,
        common,
        body,
    }
}

/// From a draft to a batch that the log takes: seal, link, encode. Against hashing and copying the same bytes.
async fn encode() {
    let stamp = Stamp {
        source: "cairn://gateway/bench".to_owned(),
        producer: Producer { id: "bench".to_owned(), epoch: 1, sequence: 1, previous: Some("00".repeat(32)) },
        hlc: "1795521600000000-00000".to_owned(),
        id: Uuid::from_u128(7),
        time: Timestamp::from_micros(1_795_521_600_000_000),
    };
    let (draft, sealed) = (draft(), draft().seal(&stamp).unwrap());
    let mut builder = BatchBuilder::new();
    builder.push(sealed.timestamp_ms, Some(&sealed.key), Some(&sealed.value), &sealed.headers);
    let bytes = builder.build().unwrap();
    let run = async || {
        let record = draft.clone().seal(&stamp).unwrap();
        let linked = link(&record);
        let mut builder = BatchBuilder::new();
        builder.push(record.timestamp_ms, Some(&record.key), Some(&record.value), &record.headers);
        (linked, builder.build())
    };
    let base = async || (Sha256::digest(&bytes), bytes.to_vec());
    compare(&format!("encode one event of {} bytes", bytes.len()), run, "SHA-256 and a copy of the batch", base).await;
}

fn batch(records: usize) -> BytesMut {
    let value = vec![0x5a_u8; RECORD_BYTES];
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        builder.push(1_795_521_600_000, None, Some(&value), &[]);
    }
    builder.build().unwrap()
}

async fn open_log(folder: &std::path::Path) -> Log {
    let options = LogOptions::new(folder.join("log"), stamp);
    Log::open(options, Clock::system(), Entropy::system()).await.unwrap()
}

/// One batch into the log, durable. Against writing and syncing the same bytes.
async fn append() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_log(folder.path()).await;
    let stream = StreamId { topic: Uuid::from_u128(1), partition: PartitionIndex::new(0) };
    log.create_stream(stream, Retention::default()).await.unwrap();
    let bytes = batch(1);
    let run = async || {
        let entry = Append {
            stream,
            records: NonZeroU32::MIN,
            max_timestamp: 1_795_521_600_000,
            producer: None,
            transaction: cairn_log::InTransaction::No,
            bytes: bytes.clone(),
        };
        log.append(vec![entry]).await.unwrap()
    };
    let path = folder.path().join("raw");
    let raw = Arc::new(File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap());
    raw.write_all_at(&vec![0; 64 << 20], 0).unwrap();
    raw.sync_all().unwrap();
    let mut at = 0;
    let base = async || {
        at = (at + bytes.len() as u64) % (32 << 20);
        raw.write_all_at(&bytes, at).unwrap();
        raw.sync_data().unwrap();
    };
    compare("append one record of 1 KiB, durable", run, "write and fdatasync", base).await;
    log.close().await;
}

/// A mebibyte from the log through the broker. Against reading the same bytes from a file.
async fn fetch() {
    let folder = tempfile::tempdir().unwrap();
    let log = open_log(folder.path()).await;
    let broker = Broker::open(BrokerOptions::default(), log, Clock::system(), Entropy::system()).await.unwrap();
    let spec = TopicSpec { name: "bench".to_owned(), partitions: Some(1), ..TopicSpec::default() };
    broker.create_topic(&Principal::Internal, spec).await.unwrap();
    let partition = PartitionIndex::new(0);
    let bytes = batch(16);
    for _ in 0..128 {
        broker.produce(&Principal::Internal, "bench", partition, bytes.clone()).await.unwrap();
    }
    let run = async || {
        let from = Offset::new(160);
        broker.fetch("bench", partition, from, FETCH_BYTES, Duration::ZERO).await.unwrap()
    };
    let path = folder.path().join("raw");
    std::fs::write(&path, vec![0x5a; 2 * FETCH_BYTES]).unwrap();
    let raw = File::open(path).unwrap();
    let base = async || {
        let mut into = vec![0; FETCH_BYTES];
        raw.read_exact_at(&mut into, 4096).unwrap();
        into
    };
    compare("fetch 1 MiB in batches of 16 KiB", run, "read of a file", base).await;
    broker.clone().close().await;
}

/// One decision of four policies, with the record of its inputs. Against the bare policy engine on a request made before.
async fn decide() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bench.cedar"), POLICIES).unwrap();
    let store = PolicyStore::open(Some(folder.path().to_owned())).unwrap();
    let question = Question {
        principal: "local".to_owned(),
        action: "tools/call".to_owned(),
        direction: Direction::ToServer,
        server: "canned".to_owned(),
        target: Target::tool("echo"),
        arguments: Some(serde_json::json!({ "text": "What is the state of order 4711?" })),
        context: serde_json::Map::new(),
    };
    let run = async || store.decide(&question);
    let uid = |text: &str| text.parse::<EntityUid>().unwrap();
    let policies: PolicySet = POLICIES.parse().unwrap();
    let (user, action, tool) = (uid(r#"User::"local""#), uid(r#"Action::"tools/call""#), uid(r#"Tool::"canned/echo""#));
    let request = Request::new(user, action, tool, Context::empty(), None).unwrap();
    let (authorizer, entities) = (Authorizer::new(), Entities::empty());
    let base = async || authorizer.is_authorized(&request, &policies, &entities);
    compare("decide one call, 4 policies", run, "Cedar alone on a ready request", base).await;
}

/// Policies of the large set.
const MANY_POLICIES: usize = 1_000;
/// Entities beside it.
const MANY_ENTITIES: usize = 10_000;
/// Decisions that are timed one by one.
const MANY_DECISIONS: usize = 20_000;

/// A set as a large company might have it: most policies name a tool, some a server, a group or only a condition.
fn many_policies() -> String {
    (0..MANY_POLICIES)
        .map(|i| match i % 20 {
            0 => format!(
                "@id(\"p{i}\") permit(principal in Group::\"g{}\", action == Action::\"tools/call\", resource in Server::\"s{}\");\n",
                i % 100,
                i % 50
            ),
            1 if i < 100 => format!(
                "@id(\"p{i}\") forbid(principal, action == Action::\"tools/call\", resource) when {{ context has arguments && context.arguments has n{i} }};\n"
            ),
            k => format!(
                "@id(\"p{i}\") {}(principal, action == Action::\"tools/call\", resource == Tool::\"s{}/t{}\");\n",
                if k == 2 { "forbid" } else { "permit" },
                i % 50,
                i / 50
            ),
        })
        .collect()
}

/// One decision after another, by many users on many tools, with a thousand policies and ten thousand entities: how long
/// the middle one takes, and the hundredth slowest. Beside it Cedar on all policies at once.
fn decide_among_many() {
    let folder = tempfile::tempdir().unwrap();
    let policies = many_policies();
    std::fs::write(folder.path().join("bench.cedar"), &policies).unwrap();
    let people: Vec<_> = (0..MANY_ENTITIES)
        .map(|i| {
            let group = serde_json::json!({ "type": "Group", "id": format!("g{}", i % 100) });
            serde_json::json!({ "uid": { "type": "User", "id": format!("u{i}") }, "attrs": { "level": i % 5 }, "parents": [group] })
        })
        .collect();
    std::fs::write(folder.path().join("entities.json"), serde_json::to_vec(&people).unwrap()).unwrap();
    let store = PolicyStore::open(Some(folder.path().to_owned())).unwrap();
    let questions: Vec<Question> = (0..2_000)
        .map(|i| Question {
            principal: format!("u{}", i * 37 % 500),
            action: "tools/call".to_owned(),
            direction: Direction::ToServer,
            server: format!("s{}", i % 50),
            target: Target::tool(format!("t{}", i % 20)),
            arguments: Some(serde_json::json!({ "text": "What is the state of order 4711?" })),
            context: serde_json::Map::new(),
        })
        .collect();
    let mut taken: Vec<f64> = (0..MANY_DECISIONS)
        .map(|i| {
            let began = Instant::now();
            black_box(store.decide(&questions[i * 7 % questions.len()]));
            began.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    let set: PolicySet = policies.parse().unwrap();
    let uid = |text: &str| text.parse::<EntityUid>().unwrap();
    let (user, action, tool) = (uid(r#"User::"u7""#), uid(r#"Action::"tools/call""#), uid(r#"Tool::"s7/t7""#));
    let request = Request::new(user, action, tool, Context::empty(), None).unwrap();
    let (authorizer, entities) = (Authorizer::new(), Entities::empty());
    let whole = (0..200).map(|_| {
        let began = Instant::now();
        black_box(authorizer.is_authorized(&request, &set, &entities));
        began.elapsed().as_secs_f64() * 1e6
    });
    let whole = median(whole.collect());
    taken.sort_by(f64::total_cmp);
    for (name, at) in [("p50", taken.len() / 2), ("p99", taken.len() * 99 / 100)] {
        let path = format!("decide among {MANY_POLICIES} policies and {MANY_ENTITIES} entities, {name}");
        println!("| {path} | {:.2} | Cedar alone on all policies | {whole:.2} | {:.2} |", taken[at], taken[at] / whole);
    }
    decide_again(&folder_texts(folder.path()).unwrap(), &store, &questions);
}

/// What `cairn whatif` does with one decision on one processor: reads its inputs and decides. Against reading them as JSON.
fn decide_again(texts: &BTreeMap<String, String>, store: &PolicyStore, questions: &[Question]) {
    let trial = Trial::open(texts).unwrap();
    let inputs: Vec<Bytes> = questions.iter().map(|question| store.decide(question).inputs).collect();
    let timed = |run: &dyn Fn(&Bytes)| {
        let taken = (0..MANY_DECISIONS).map(|i| {
            let began = Instant::now();
            run(&inputs[i * 7 % inputs.len()]);
            began.elapsed().as_secs_f64() * 1e6
        });
        taken.sum::<f64>() / MANY_DECISIONS as f64
    };
    let again = timed(&|inputs| drop(black_box(trial.decide(inputs).unwrap())));
    let read = timed(&|inputs| drop(black_box(serde_json::from_slice::<serde_json::Value>(inputs).unwrap())));
    let path = format!("decide recorded inputs again, {:.0} a second", 1e6 / again);
    println!("| {path} | {again:.2} | reading them as JSON | {read:.2} | {:.2} |", again / read);
}

/// One call to an HTTP server through the link. Against the bare HTTP client on a connection of its own.
async fn forward() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(cairn_bench::canned(listener));
    let limits = Limits::default();
    let target = HttpTarget::new(&format!("http://{at}/mcp"), [] as [(&str, &str); 0]).unwrap();
    let link = HttpLink::new(HttpClient::new(&limits), Arc::new(target), limits);
    let text = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"echo","arguments":{"text":"x"}}}"#;
    let message = Message::parse(Bytes::from_static(text.as_bytes()), &limits).unwrap();
    let run = async || {
        let prepared = link.prepare(&message, &ForwardHeaders::default()).unwrap();
        link.forward(prepared).await.unwrap()
    };
    let stream = TcpStream::connect(at).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let base = async || {
        let request = http::Request::post("/mcp").header("host", "bench").header("content-type", "application/json");
        sender.ready().await.unwrap();
        let response = sender.send_request(request.body(Full::new(Bytes::from_static(text.as_bytes()))).unwrap()).await;
        response.unwrap().into_body().collect().await.unwrap().to_bytes()
    };
    compare("forward one call over HTTP", run, "bare HTTP client", base).await;
}
