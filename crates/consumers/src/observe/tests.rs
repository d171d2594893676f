//! The sink before a collector that takes, is away, refuses and leaves out: what it is sent, and what is kept when.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use cairn_clock::{Clock, Entropy};
use parking_lot::Mutex;
use serde_json::{Value as Json, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use super::{
    Exporter, ExporterOptions, Figures, Include, ObserveOptions, ObserveSink, Resource,
    span::text_of,
    wire::{Message, Read, fields},
};
use crate::{
    Batch, Sink, SinkError,
    fixture::{NOW_US, batch, record},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALL: &str = "01996b5e-7c00-7000-8000-000000000001";

/// A span as a collector reads it.
#[derive(Clone, PartialEq, Debug, Default)]
struct Seen {
    trace_id: String,
    span_id: String,
    parent: String,
    name: String,
    start_ns: u64,
    end_ns: u64,
    attributes: BTreeMap<String, String>,
    events: Vec<String>,
    links: Vec<String>,
    is_error: bool,
}

fn bytes(message: &[u8], number: u32) -> impl Iterator<Item = &[u8]> {
    fields(message).filter_map(move |(field, read)| match read {
        Read::Bytes(bytes) if field == number => Some(bytes),
        _ => None,
    })
}

fn text(message: &[u8], number: u32) -> String {
    bytes(message, number).map(|text| String::from_utf8_lossy(text).into_owned()).next().unwrap_or_default()
}

/// The spans of a request.
fn read(body: &[u8]) -> Vec<Seen> {
    let scoped = bytes(body, 1).flat_map(|within| bytes(within, 2));
    scoped.flat_map(|scoped| bytes(scoped, 2)).map(seen).collect()
}

fn seen(span: &[u8]) -> Seen {
    let number = |wanted: u32| {
        fields(span).find_map(|(field, read)| match read {
            Read::Number(number) if field == wanted => Some(number),
            _ => None,
        })
    };
    let id = |number: u32| bytes(span, number).map(text_of).next().unwrap_or_default();
    let attribute = |pair: &[u8]| {
        let value = bytes(pair, 2).next().expect("a value");
        let shown = match fields(value).next().expect("a form") {
            (1, Read::Bytes(text)) => String::from_utf8_lossy(text).into_owned(),
            (_, Read::Number(number)) => number.to_string(),
            (_, Read::Bytes(list)) => bytes(list, 1).map(|one| text(one, 1)).collect::<Vec<_>>().join(","),
        };
        (text(pair, 1), shown)
    };
    Seen {
        trace_id: id(1),
        span_id: id(2),
        parent: id(4),
        name: text(span, 5),
        start_ns: number(7).unwrap_or_default(),
        end_ns: number(8).unwrap_or_default(),
        attributes: bytes(span, 9).map(attribute).collect(),
        events: bytes(span, 11).map(|event| text(event, 2)).collect(),
        links: bytes(span, 13).map(|link| bytes(link, 2).map(text_of).next().unwrap_or_default()).collect(),
        is_error: bytes(span, 15).count() > 0,
    }
}

type Answers = dyn Fn(&[Seen]) -> (u16, Vec<u8>) + Send + Sync;

/// A collector on loopback that answers as it is told.
struct Collector {
    address: String,
    taken: Arc<Mutex<Vec<Seen>>>,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Collector {
    fn start(answers: impl Fn(&[Seen]) -> (u16, Vec<u8>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (taken, requests) = (Arc::<Mutex<Vec<Seen>>>::default(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let (keeps, logs, answers) = (taken.clone(), requests.clone(), Arc::new(answers) as Arc<Answers>);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (keeps, logs, answers) = (keeps.clone(), logs.clone(), answers.clone());
                std::thread::spawn(move || serve(stream, &keeps, &logs, &*answers));
            }
        });
        Self { address, taken, requests }
    }

    fn takes_all() -> Self {
        Self::start(|_| (200, Vec::new()))
    }
}

fn serve(stream: TcpStream, taken: &Mutex<Vec<Seen>>, requests: &Mutex<Vec<Vec<u8>>>, answers: &Answers) {
    let mut reader = BufReader::new(stream.try_clone().expect("one more"));
    let mut stream = stream;
    loop {
        let (mut length, mut line) = (0, String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line).unwrap_or_default() == 0 {
                return;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a number");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let spans = read(&body);
        let (status, said) = answers(&spans);
        if status == 200 {
            taken.lock().extend(spans);
        }
        requests.lock().push(body);
        let head = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/x-protobuf\r\ncontent-length: {}\r\n\r\n",
            said.len()
        );
        if stream.write_all(&[head.as_bytes(), &said].concat()).is_err() {
            return;
        }
    }
}

/// A sink before a collector.
struct Stage {
    folder: tempfile::TempDir,
    runtime: Runtime,
    figures: Figures,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { folder, runtime: Runtime::new().expect("a runtime"), figures: Figures::new(Clock::system()) }
    }

    fn options(collector: &Collector) -> ObserveOptions {
        let url = |signal: &str| format!("http://{}/v1/{signal}", collector.address);
        let exporter = Exporter::new(&ExporterOptions {
            traces: url("traces"),
            metrics: url("metrics"),
            headers: Vec::new(),
            timeout: Duration::from_secs(20),
            is_gzip: false,
        });
        ObserveOptions { exporter: Some(exporter.expect("an exporter")), ..ObserveOptions::default() }
    }

    fn open(&self, options: ObserveOptions) -> ObserveSink {
        let _within = self.runtime.enter();
        let path = self.folder.path().join("observe.sqlite");
        let (figures, stop) = (self.figures.clone(), CancellationToken::new());
        ObserveSink::open(&path, &Entropy::seeded(1), options, figures, stop).expect("it opens")
    }
}

fn span_id(call: &str) -> String {
    call[call.len() - 16..].replace('-', "a")
}

fn common(call: &str) -> Json {
    json!({
        "workflow_id": "refund-4711", "call_id": call, "trace_id": TRACE, "span_id": span_id(call),
        "principal": "ann@example.org", "server": "orders", "era": "modern", "mcp_method_name": "tools/call",
        "gen_ai_tool_name": "refund", "network_transport": "tcp", "mcp_protocol_version": "2026-07-28",
        "mcp_session_id": "hmac-sha256:k1:00", "task": "what nobody outside may read",
        "producer": { "id": "gw-1", "epoch": 1, "sequence": 0 },
    })
}

/// An event of a call: `(offset, type, its own keys, seconds after the first)`.
type Told<'t> = (u64, &'t str, Json, u64);

fn records(from: Option<u64>, call: &str, all: &[Told<'_>]) -> Batch {
    let of = |(offset, name, own, second): &Told<'_>| {
        let mut data = common(call);
        let own = own.as_object().expect("an object");
        data.as_object_mut().expect("an object").extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        record("mcp.calls", (u128::from(*offset) + 1, *offset), name, &data, NOW_US + second * 1_000_000)
    };
    batch(from, all.iter().map(of))
}

fn decision() -> Json {
    json!({
        "decision": "permit", "policy_version": "observe", "determining_policies": ["a", "b"], "obligations": [],
        "parent_span_id": "00f067aa0ba902b7", "arguments": { "digest": "hmac-sha256:k1:s3cret" },
    })
}

fn outcome() -> Json {
    json!({ "outcome": "completed", "effect": "answered", "rpc_response_status_code": -1, "elapsed_us": 3_000_000 })
}

/// A whole call at these offsets.
fn whole(from: Option<u64>, at: u64, call: &str) -> Batch {
    let all = [
        (at, "call.decision", decision(), 0),
        (at + 1, "call.intent", json!({ "durability": "strict" }), 1),
        (at + 2, "call.outcome", outcome(), 3),
    ];
    records(from, call, &all)
}

fn stands(sink: &mut ObserveSink) -> Option<u64> {
    sink.positions().expect("positions").first().map(|position| position.next)
}

#[test]
fn a_call_is_one_span_within_the_clients_trace_and_an_approval_one_below_it() {
    let (stage, collector) = (Stage::new(), Collector::takes_all());
    let mut sink = stage.open(Stage::options(&collector));
    let approval =
        |state: &str| json!({ "state": state, "approval_id": "a7f3k2", "approver": "ben", "reason": "amount checked" });
    let first = [(0, "call.decision", decision(), 0), (1, "call.approval", approval("requested"), 1)];
    sink.apply(&records(None, CALL, &first)).expect("applied");
    assert!(collector.requests.lock().is_empty(), "it has no outcome yet");
    assert_eq!(stage.figures.gauges()[..2], [1.0, 1.0], "one call is open and waits");
    drop(sink);
    // Another process goes on.
    let mut sink = stage.open(Stage::options(&collector));
    let rest = [
        (2, "call.approval", approval("approved"), 5),
        (3, "call.intent", json!({ "durability": "strict" }), 6),
        (4, "call.outcome", outcome(), 9),
    ];
    sink.apply(&records(Some(2), CALL, &rest)).expect("applied");
    assert_eq!(stands(&mut sink), Some(5));
    let taken = collector.taken.lock().clone();
    let [call, approved] = &taken[..] else { panic!("{taken:?}") };
    assert_eq!((call.trace_id.as_str(), call.span_id.as_str()), (TRACE, span_id(CALL).as_str()));
    assert_eq!((call.parent.as_str(), call.name.as_str()), ("00f067aa0ba902b7", "tools/call refund"));
    assert_eq!((call.end_ns - call.start_ns, call.is_error), (9_000_000_000, false));
    assert_eq!(call.events, ["cairn.decided", "cairn.approval", "cairn.approval", "cairn.forwarded"]);
    for (name, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.tool.name", "refund"),
        ("gen_ai.operation.name", "execute_tool"),
        ("mcp.protocol.version", "2026-07-28"),
        ("network.transport", "tcp"),
        ("rpc.response.status_code", "-1"),
        ("cairn.decision", "permit"),
        ("cairn.policy.version", "observe"),
        ("cairn.policy.determining", "a,b"),
        ("cairn.effect", "answered"),
        ("cairn.outcome", "completed"),
        ("cairn.workflow", "refund-4711"),
        ("cairn.gateway", "gw-1"),
    ] {
        assert_eq!(call.attributes.get(name).map(String::as_str), Some(value), "{name}: {call:?}");
    }
    assert_eq!((approved.parent.as_str(), approved.name.as_str()), (call.span_id.as_str(), "cairn.approval"));
    assert_eq!((approved.end_ns - approved.start_ns, approved.is_error), (4_000_000_000, false));
    let all = format!("{taken:?}");
    for close in ["ann@example.org", "nobody outside", "hmac-sha256", "s3cret", "ben", "amount checked"] {
        assert!(!all.contains(close), "{close}: {all}");
    }
    assert_eq!(stage.figures.gauges()[..2], [0.0, 0.0]);
}

#[test]
fn what_is_asked_for_goes_out_besides() {
    let (stage, collector) = (Stage::new(), Collector::takes_all());
    let include = Include::named(["principal"]).expect("it may be");
    let mut sink = stage.open(ObserveOptions { include, ..Stage::options(&collector) });
    sink.apply(&whole(None, 0, CALL)).expect("applied");
    assert_eq!(collector.taken.lock()[0].attributes["cairn.principal"], "ann@example.org");
}

#[test]
fn the_same_events_make_the_same_spans_byte_for_byte() {
    let bodies = [0, 1].map(|_| {
        let (stage, collector) = (Stage::new(), Collector::takes_all());
        let mut sink = stage.open(Stage::options(&collector));
        sink.apply(&whole(None, 0, CALL)).expect("applied");
        collector.requests.lock().clone()
    });
    assert_eq!((bodies[0].len(), &bodies[0]), (1, &bodies[1]));
}

#[test]
fn a_position_is_kept_only_when_the_collector_has_taken_what_lies_before_it() {
    let stage = Stage::new();
    let is_away = Arc::new(Mutex::new(true));
    let away = is_away.clone();
    let collector = Collector::start(move |_| (if *away.lock() { 503 } else { 200 }, Vec::new()));
    let mut sink = stage.open(Stage::options(&collector));
    let batch = whole(None, 0, CALL);
    let Err(SinkError::Away { reason }) = sink.apply(&batch) else { panic!("it was not taken") };
    assert!(reason.contains("503"), "{reason}");
    assert_eq!((stands(&mut sink), collector.requests.lock().len()), (None, 1));
    assert!(stage.figures.gauges()[3] > 0.5, "it shows");
    // It rests, and asks nobody meanwhile.
    assert!(matches!(sink.apply(&batch), Err(SinkError::Away { .. })));
    assert_eq!(collector.requests.lock().len(), 1);
    *is_away.lock() = false;
    drop(sink);
    let mut sink = stage.open(Stage::options(&collector));
    sink.apply(&batch).expect("applied");
    assert_eq!((stands(&mut sink), collector.taken.lock().len()), (Some(3), 1));
    // What stands elsewhere is refused, and counts nothing.
    assert_eq!(sink.apply(&batch), Err(SinkError::Moved));
}

#[test]
fn a_delivery_that_is_cut_off_goes_on_where_it_was() {
    const CALLS: u64 = 600;
    let stage = Stage::new();
    let asked = Mutex::new(0);
    let collector = Collector::start(move |_| {
        let mut asked = asked.lock();
        *asked += 1;
        (if *asked == 2 { 503 } else { 200 }, Vec::new())
    });
    let mut sink = stage.open(Stage::options(&collector));
    let mut all = whole(None, 0, CALL);
    all.events.clear();
    for call in 0..CALLS {
        all.events.extend(whole(None, call * 3, &format!("01996b5e-7c00-7000-8000-000000001{call:03}")).events);
    }
    all.advances[0].next = CALLS * 3;
    assert!(matches!(sink.apply(&all), Err(SinkError::Away { .. })), "its second request is not taken");
    while sink.apply(&all).is_err() {
        stage.runtime.block_on(async { tokio::time::sleep(Duration::from_millis(50)).await });
    }
    assert_eq!((collector.requests.lock().len(), collector.taken.lock().len()), (3, CALLS as usize));
    assert_eq!(stands(&mut sink), Some(CALLS * 3));
}

#[test]
fn only_the_span_that_is_refused_is_put_aside() {
    let stage = Stage::new();
    let collector = Collector::start(|spans| {
        let is_bad = |seen: &Seen| seen.attributes["cairn.call"].ends_with("13");
        (if spans.iter().any(is_bad) { 400 } else { 200 }, Vec::new())
    });
    let mut sink = stage.open(Stage::options(&collector));
    let mut all = Batch::default();
    for call in 0..40_u64 {
        let id = format!("01996b5e-7c00-7000-8000-0000000001{call:02}");
        all.advances.clear();
        all.events.extend(whole(None, call * 3, &id).events);
    }
    all.advances = whole(None, 0, CALL).advances;
    all.advances[0].next = 120;
    sink.apply(&all).expect("applied");
    assert_eq!((stands(&mut sink), collector.taken.lock().len()), (Some(120), 39));
    assert!(collector.requests.lock().len() <= 14, "{}", collector.requests.lock().len());
    drop(sink);
    let database = rusqlite::Connection::open(stage.folder.path().join("observe.sqlite")).expect("it opens");
    let dead: Vec<(i64, String)> = database
        .prepare("SELECT offset, reason FROM dead_letters")
        .and_then(|mut select| select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect())
        .expect("rows");
    assert_eq!((dead.len(), dead[0].0), (1, 13 * 3 + 2), "{dead:?}");
    assert!(dead[0].1.contains("400"), "{dead:?}");
}

#[test]
fn what_a_collector_leaves_out_is_counted_and_not_sent_again() {
    let stage = Stage::new();
    let partial = Message::default().number(1, 1).text(2, "too old");
    let said = Message::default().within(1, &partial).into_bytes();
    let collector = Collector::start(move |_| (200, said.clone()));
    let mut sink = stage.open(Stage::options(&collector));
    sink.apply(&whole(None, 0, CALL)).expect("applied");
    assert_eq!((stands(&mut sink), collector.requests.lock().len()), (Some(3), 1));
    let refused = super::figures::Counter::SpansRefused;
    assert_eq!(stage.figures.read(|state| state.counters[&(refused, Vec::new())]), 1);
}

#[test]
fn calls_that_stay_open_are_bounded_and_go_out_as_open() {
    let (stage, collector) = (Stage::new(), Collector::takes_all());
    let options = ObserveOptions { open_calls_max: 2, ..Stage::options(&collector) };
    let mut sink = stage.open(options.clone());
    let id = |call: u64| format!("01996b5e-7c00-7000-8000-00000000000{call}");
    for call in 1..=3 {
        let from = (call > 1).then_some(call - 1);
        sink.apply(&records(from, &id(call), &[(call - 1, "call.decision", decision(), call)])).expect("applied");
    }
    let taken = collector.taken.lock().clone();
    assert_eq!((taken.len(), taken[0].attributes["cairn.open"].as_str()), (1, "1"), "the oldest: {taken:?}");
    assert_eq!(taken[0].attributes["cairn.call"], id(1));
    // Its outcome comes after all: the same span once more, with what is known.
    sink.apply(&records(Some(3), &id(1), &[(3, "call.outcome", outcome(), 9)])).expect("applied");
    let taken = collector.taken.lock().clone();
    assert_eq!(taken[1].span_id, taken[0].span_id);
    assert_eq!(taken[1].attributes.get("cairn.partial").map(String::as_str), Some("1"), "{taken:?}");
    // Those that are kept too long go out with time.
    let later = cairn_clock::Timestamp::from_micros(NOW_US + 25 * 3_600_000_000);
    sink.tend(later).expect("tended");
    assert_eq!((collector.taken.lock().len(), stage.figures.gauges()[0]), (4, 0.0));
}

#[test]
fn an_outcome_that_comes_again_does_not_take_the_place_of_the_whole() {
    let (stage, collector) = (Stage::new(), Collector::takes_all());
    let mut sink = stage.open(Stage::options(&collector));
    sink.apply(&whole(None, 0, CALL)).expect("applied");
    sink.apply(&records(Some(3), CALL, &[(3, "call.outcome", outcome(), 3)])).expect("applied");
    assert_eq!(collector.taken.lock().len(), 1);
    // A replay sends what it holds whole once more, as it was, and leaves nothing open.
    let done = sink.replace(&whole(Some(0), 0, CALL)).expect("replaced");
    let taken = collector.taken.lock().clone();
    assert_eq!((done.records, taken.len(), &taken[0]), (3, 2, &taken[1]));
    sink.replace(&records(Some(1), CALL, &[(1, "call.intent", json!({}), 1), (2, "call.outcome", outcome(), 3)]))
        .expect("replaced");
    assert_eq!(collector.taken.lock().len(), 2, "it holds the call only in part");
    drop(sink);
    let sink = stage.open(Stage::options(&collector));
    drop(sink);
    assert_eq!(stage.figures.gauges()[0], 0.0);
    assert_eq!(stage.figures.read(|state| state.calls.values().map(super::figures::Durations::count).sum::<u64>()), 1);
}

#[test]
fn rounds_and_repetitions_are_linked_and_what_comes_later_lies_below() {
    let (stage, collector) = (Stage::new(), Collector::takes_all());
    let mut sink = stage.open(Stage::options(&collector));
    sink.apply(&whole(None, 0, CALL)).expect("applied");
    let other = "01996b5e-7c00-7000-8000-000000000002";
    let joined = |mut own: Json| {
        own["operation_id"] = json!(CALL);
        own["linked_by"] = json!("request_state");
        own
    };
    let second = [
        (3, "call.decision", joined(decision()), 10),
        (4, "call.intent", joined(json!({ "repeats": CALL })), 11),
        (5, "call.outcome", joined(json!({ "outcome": "in_doubt", "effect": "unknown" })), 12),
        (6, "call.late", json!({}), 13),
        (7, "call.answered", json!({ "written": true }), 13),
        (8, "call.answered", json!({ "written": false, "error_type": "client_gone" }), 13),
        (
            9,
            "action.reported",
            json!({ "span_id": null, "system": "zendesk", "kind": "ticket", "id": "T-4711", "state": "created" }),
            14,
        ),
        (10, "notice.passed", json!({ "mcp_method_name": "notifications/message" }), 15),
    ];
    sink.apply(&records(Some(3), other, &second)).expect("applied");
    let taken = collector.taken.lock().clone();
    let (first, second) = (&taken[0], &taken[1]);
    assert_eq!(second.links, [first.span_id.clone(), first.span_id.clone()], "the round before, and what is repeated");
    assert!(second.is_error && second.attributes["error.type"] == "in_doubt", "{second:?}");
    let below: Vec<&str> = taken[2..].iter().map(|span| span.name.as_str()).collect();
    assert_eq!(below, ["cairn.late", "cairn.unanswered", "cairn.action", "notifications/message"]);
    assert!(taken[2..].iter().all(|span| span.parent == second.span_id && span.trace_id == TRACE), "{taken:?}");
    assert_eq!(taken[4].attributes["cairn.action.system"], "zendesk");
    assert!(!format!("{taken:?}").contains("T-4711"), "an id there is confidential");
}

#[test]
fn a_database_that_is_made_passes_over_what_is_older_until_somebody_moves_it_back() {
    let (stage, collector) = (Stage::new(), Collector::takes_all());
    let begin_at = cairn_clock::Timestamp::from_micros(NOW_US + 60_000_000);
    let options = || ObserveOptions { begin_at, ..Stage::options(&collector) };
    let mut sink = stage.open(options());
    sink.apply(&whole(None, 0, CALL)).expect("applied");
    assert_eq!((stands(&mut sink), collector.taken.lock().len(), stage.figures.gauges()[0]), (Some(3), 0, 0.0));
    drop(sink);
    // It was said once and for all: a later start with another bound changes nothing.
    let mut sink = stage.open(Stage::options(&collector));
    assert_eq!(stage.figures.gauges()[0], 0.0, "nothing of it is kept");
    sink.apply(&whole(Some(3), 3, CALL)).expect("applied");
    assert_eq!(collector.taken.lock().len(), 0);
    let mut back = sink.positions().expect("positions");
    back[0].next = 0;
    sink.move_to(&back).expect("moved");
    sink.apply(&whole(Some(0), 0, CALL)).expect("applied");
    assert_eq!(collector.taken.lock().len(), 1);
}

#[test]
fn model_calls_and_limits_have_spans_where_these_are_wanted() {
    let (stage, collector) = (Stage::new(), Collector::takes_all());
    let model = json!({
        "workflow_id": "w", "trace_id": TRACE, "span_id": "00f067aa0ba902c1", "parent_span_id": "00f067aa0ba902c0",
        "gen_ai_operation_name": "chat", "gen_ai_request_model": "gpt-5-mini", "gen_ai_provider_name": "openai",
        "gen_ai_usage_input_tokens": 12, "gen_ai_usage_output_tokens": 5, "started_at": "2026-11-24T09:00:00.000000Z",
        "elapsed_us": 7, "prompt": { "digest": "hmac-sha256:k1:s3cret" },
    });
    let limit = json!({ "workflow_id": "w", "call_id": CALL, "span_id": "00f067aa0ba902d1", "limit": "refunds", "dimension": "rate", "allowed": "30/1m", "used": "30", "count": 4 });
    let all = |from| {
        batch(
            from,
            [
                record("mcp.models", (1, 0), "model.called", &model, NOW_US),
                record("mcp.models", (2, 1), "limit.exceeded", &limit, NOW_US),
                record("mcp.models", (3, 2), "limit.exceeded", &json!({ "limit": "all" }), NOW_US),
            ],
        )
    };
    let mut sink = stage.open(Stage::options(&collector));
    sink.apply(&all(None)).expect("applied");
    let names = |collector: &Collector| collector.taken.lock().iter().map(|span| span.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&collector), ["cairn.limit"]);
    let seen = collector.taken.lock()[0].clone();
    assert!(seen.parent.is_empty() && seen.span_id != "00f067aa0ba902d1", "its call has no span: {seen:?}");
    drop(sink);
    let stage = Stage::new();
    let mut sink = stage.open(ObserveOptions { with_models: true, ..Stage::options(&collector) });
    sink.apply(&all(None)).expect("applied");
    assert_eq!(names(&collector)[1..], ["chat gpt-5-mini", "cairn.limit"]);
    let seen = collector.taken.lock()[1].clone();
    assert_eq!((seen.span_id.as_str(), seen.parent.as_str()), ("00f067aa0ba902c1", "00f067aa0ba902c0"));
    assert_eq!((seen.end_ns - seen.start_ns, seen.attributes["gen_ai.usage.input_tokens"].as_str()), (7_000, "12"));
    assert!(!format!("{seen:?}").contains("s3cret"));
    let tokens = |kind: &str| {
        let labels = [("provider", "openai"), ("model", "gpt-5-mini"), ("type", kind)].map(|(k, v)| (k, v.to_owned()));
        stage.figures.read(|state| state.counters[&(super::figures::Counter::Tokens, labels.to_vec())])
    };
    assert_eq!((tokens("input"), tokens("output")), (12, 5));
}

#[test]
fn without_a_collector_there_are_figures_alone() {
    let stage = Stage::new();
    let mut sink = stage.open(ObserveOptions { resource: Resource::default(), ..ObserveOptions::default() });
    sink.apply(&whole(None, 0, CALL)).expect("applied");
    assert_eq!(stands(&mut sink), Some(3));
    let body = super::otlp_metrics::metrics(&Resource::default(), &stage.figures);
    let scoped = bytes(&body, 1).flat_map(|within| bytes(within, 2)).next().expect("metrics").to_vec();
    let names: Vec<String> = bytes(&scoped, 2).map(|metric| text(metric, 1)).collect();
    for name in ["mcp.server.operation.duration", "cairn.decisions", "cairn.calls.open", "cairn.calls.in_doubt"] {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    let durations = bytes(&scoped, 2).find(|metric| text(metric, 1) == "mcp.server.operation.duration").expect("it");
    let point = bytes(durations, 9).flat_map(|histogram| bytes(histogram, 1)).next().expect("a point");
    let exemplar = bytes(point, 8).next().expect("an exemplar");
    assert_eq!(bytes(exemplar, 5).map(text_of).next().as_deref(), Some(TRACE));
}
