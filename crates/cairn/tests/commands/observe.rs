//! What people who run things have of the trail: spans and metrics with a collector, figures on `/metrics`, and alerts in the trail.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpListener,
    process::Stdio,
    sync::Arc,
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    collector::{Collector, Span},
    support::{Agent, Orders, Process, TOKEN, Up, answer, cairn, events, http, run, text, wait_for},
};

const PERMIT_ALL: &str = "@id(\"all\") permit(principal, action, resource);\n";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b6";
const OPEN_METRICS: (&str, &str) = ("accept", "application/openmetrics-text; version=1.0.0");

fn observing(collector: &Collector, more: &str) -> String {
    format!("[consumers.observe]\nendpoint = {:?}\n{more}", collector.url)
}

/// A call within the client's trace.
fn traced(agent: &Agent, tool: &str) -> Value {
    let meta = json!({ "traceparent": format!("00-{TRACE}-{PARENT}-01") });
    let params = json!({ "name": tool, "arguments": { "order_id": "order-1" }, "_meta": meta });
    answer(agent.post(&json!({ "jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": params }))).json()
}

fn tool_calls(collector: &Collector) -> Vec<Span> {
    collector.spans().into_iter().filter(|span| span.name.starts_with("tools/call")).collect()
}

#[test]
fn a_call_is_a_span_with_the_collector_a_figure_with_its_trace_and_one_trace_for_each_workflow() {
    let collector = Collector::start(|_| 200);
    let more = "headers = { authorization = \"Bearer ${COLLECTOR_TOKEN:-t0ken}\" }\nmetrics_interval_ms = 200\ncompression = \"none\"\n";
    let orders = Orders::new(PERMIT_ALL, &observing(&collector, more));
    let up = orders.up();
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    traced(&agent, "get_order");
    agent.call("get_order", &json!({ "order_id": "order-1" }));
    agent.call("no_such_tool", &json!({}));
    let spans = wait_for("three spans", || Some(tool_calls(&collector)).filter(|spans| spans.len() == 3));
    let brought = spans.iter().find(|span| span.trace_id == TRACE).expect("the client's trace");
    assert_eq!((brought.parent.as_str(), brought.name.as_str()), (PARENT, "tools/call get_order"));
    // The ids are those of the trail.
    let decided = events(&orders.data())
        .into_iter()
        .find(|event| event["type"] == "call.decision" && event["data"]["trace_id"] == TRACE);
    let decided = decided.expect("it is in the trail")["data"].clone();
    assert_eq!(
        (decided["span_id"].as_str(), decided["parent_span_id"].as_str()),
        (Some(brought.span_id.as_str()), Some(PARENT))
    );
    for (name, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.tool.name", "get_order"),
        ("network.transport", "tcp"),
        ("cairn.server", "orders"),
        ("cairn.decision", "permit"),
        ("cairn.outcome", "completed"),
        ("cairn.workflow", "wf-1"),
    ] {
        assert_eq!(brought.of(name), value, "{name}: {brought:?}");
    }
    assert_eq!(brought.of("cairn.policy.version"), decided["policy_version"].as_str().expect("a version"));
    let own: Vec<&Span> = spans.iter().filter(|span| span.trace_id != TRACE).collect();
    assert_eq!(
        (own[0].trace_id.as_str(), own[0].parent.as_str()),
        (own[1].trace_id.as_str(), ""),
        "a workflow is one trace"
    );
    assert!(own.iter().any(|span| span.is_error), "there is no such tool: {own:?}");
    assert!(!format!("{:?}", collector.spans()).contains("order-1"), "no span holds an argument");
    assert_eq!(collector.authorization(), "Bearer t0ken");
    wait_for("metrics", || {
        collector.metrics().iter().any(|name| name == "mcp.server.operation.duration").then_some(())
    });

    // The same on the page, with the trace of a call where the scraper can read that, and without where it cannot.
    let labels = "server=\"orders\",tool=\"get_order\",method=\"tools/call\",decision=\"permit\",outcome=\"completed\"";
    let is_bucket = |line: &str| line.starts_with("cairn_call_duration_seconds_bucket{") && line.contains(labels);
    let one = wait_for("an exemplar", || {
        let page = http(&up.admin, "GET /metrics", &[OPEN_METRICS], "").body;
        let is_one = |line: &&str| is_bucket(line) && line.contains("# {trace_id=\"");
        page.lines().find(is_one).map(ToOwned::to_owned)
    });
    assert!(one.contains(TRACE) || one.contains(&own[0].trace_id), "{one}");
    let count = "cairn_trail_decisions_total{server=\"orders\",method=\"tools/call\",decision=\"permit\"} 3";
    wait_for("three decisions", || http(&up.admin, "GET /metrics", &[], "").body.contains(count).then_some(()));
    let plain = http(&up.admin, "GET /metrics", &[], "").body;
    assert!(plain.lines().any(is_bucket) && !plain.contains("# {"), "{plain}");
    for name in [
        "cairn_trail_in_doubt_total{server=\"orders\"} 0",
        "cairn_trail_approvals_waiting 0",
        "cairn_export_spans_total ",
        "cairn_consumer_lag_seconds{consumer=\"observe\"}",
    ] {
        assert!(plain.contains(name), "{name} is not in {plain}");
    }
    up.end();
}

#[test]
#[allow(clippy::disallowed_methods)] // when it is killed is the machine's own time
fn killed_anywhere_before_a_collector_that_fails_it_misses_no_call_and_repeats_it_as_it_was() {
    const CALLS: usize = 60;
    let orders = Orders::new(PERMIT_ALL, "");
    let up = orders.up();
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    // Two of three requests are not taken, as from a collector that has too much to do.
    let collector = Collector::start(|request| if request % 3 == 0 { 200 } else { 503 });
    let config = orders.folder.path().join("observe.toml");
    std::fs::write(&config, observing(&collector, "")).expect("written");
    let data = orders.folder.path().join("observe");
    let consume = || {
        let mut command = cairn();
        command
            .args(["consume", "observe", "--bootstrap", &up.kafka, "--data"])
            .arg(&data)
            .arg("--config")
            .arg(&config);
        Process {
            child: command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"),
        }
    };
    let kinds = |collector: &Collector| {
        let mut all: BTreeMap<String, Vec<Span>> = BTreeMap::new();
        for span in tool_calls(collector) {
            all.entry(span.span_id.clone()).or_default().push(span);
        }
        all
    };
    let calling = std::thread::spawn({
        let gateway = up.gateway.clone();
        move || {
            let agent = Agent::connect_in("wf-2", &gateway, "orders");
            for _ in 0..CALLS / 2 {
                agent.call("get_order", &json!({ "order_id": "order-1" }));
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    });
    for _ in 0..CALLS / 2 {
        agent.call("get_order", &json!({ "order_id": "order-1" }));
    }
    let mut seen = 0;
    for kill in 0..5_u64 {
        let process = consume();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while kinds(&collector).len() <= seen && std::time::Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        // Right behind a request that was taken, and a little later.
        std::thread::sleep(std::time::Duration::from_millis(kill * 3));
        process.signal("-KILL");
        seen = kinds(&collector).len();
    }
    calling.join().expect("all calls are made");
    let _last = consume();
    let all = wait_for("every call", || Some(kinds(&collector)).filter(|all| all.len() == CALLS));
    for (id, spans) in &all {
        assert!(spans.iter().all(|span| span == &spans[0]), "{id} is not what it was: {spans:?}");
    }
    let trail: Vec<String> = events(&orders.data())
        .into_iter()
        .filter(|event| event["type"] == "call.outcome" && event["data"]["mcp_method_name"] == "tools/call")
        .map(|event| event["data"]["span_id"].as_str().expect("an id").to_owned())
        .collect();
    assert!(trail.iter().all(|id| all.contains_key(id)) && trail.len() == CALLS, "those of the trail, each");
    up.end();
}

#[test]
#[allow(clippy::disallowed_methods)] // a collector that hangs does so in the machine's own time
fn a_collector_that_hangs_holds_up_neither_calls_nor_the_end() {
    let collector = Collector::start(|_| {
        std::thread::sleep(std::time::Duration::from_secs(60));
        200
    });
    let orders = Orders::new(PERMIT_ALL, &observing(&collector, "timeout_ms = 60000\n"));
    let up = orders.up();
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    for _ in 0..5 {
        assert!(agent.call("get_order", &json!({ "order_id": "order-1" }))["result"].is_object());
    }
    assert!(collector.spans().is_empty());
    up.end();
}

#[test]
fn a_call_that_a_crash_leaves_in_doubt_is_a_span_that_says_so_and_an_alert() {
    let collector = Collector::start(|_| 200);
    let orders = Orders::new(PERMIT_ALL, &observing(&collector, ""));
    let config = orders.folder.path().join("cairn.toml").display().to_string();
    let mut command = cairn();
    command.args(["up", "--kafka", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.arg("--data").arg(orders.data()).args(["--config", &config]);
    command.env("CAIRN_OPERATOR_TOKEN", TOKEN).env("CAIRN_CRASH_AT", "forwarded");
    let mut up = Up::spawn(&mut command, &orders.data());
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    // A client that hung up at once might take it back.
    let asked = agent.ask("refund_order", &json!({ "order_id": "order-1" }));
    assert!(!up.process.wait().success(), "it is killed");
    drop(asked);
    let up = orders.up();
    let doubt = wait_for("its span", || tool_calls(&collector).first().cloned());
    assert!(doubt.is_error, "{doubt:?}");
    assert_eq!(
        (doubt.of("cairn.outcome"), doubt.of("cairn.effect"), doubt.of("cairn.decision")),
        ("in_doubt", "unknown", "permit")
    );
    let alert = wait_for("the alert", || {
        let all = events(&orders.data()).into_iter().filter(|event| event["type"] == "alert.raised");
        all.map(|event| event["data"].clone()).find(|data| data["alert"] == "in_doubt")
    });
    assert!(alert["found"].as_str().is_some_and(|found| found.starts_with("1 calls ended in doubt")), "{alert}");
    up.end();
}

/// A tool of the approvers' that keeps what it is told.
fn tool() -> (String, Arc<Mutex<Vec<Value>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook", listener.local_addr().expect("bound"));
    let told = Arc::<Mutex<Vec<Value>>>::default();
    let keeps = told.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let (mut bytes, mut part) = (Vec::new(), [0; 4_096]);
            let body = loop {
                let read = stream.read(&mut part).unwrap_or_default();
                bytes.extend_from_slice(&part[..read]);
                let all = text(&bytes);
                let body = all.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
                if read == 0 || serde_json::from_str::<Value>(&body).is_ok() {
                    break body;
                }
            };
            keeps.lock().extend(serde_json::from_str::<Value>(&body).ok());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    (url, told)
}

#[test]
fn an_alert_is_recorded_once_for_as_long_as_it_holds_and_others_hear_of_it_after_that() {
    let (hook, told) = tool();
    let more = format!(
        "[approvals]\nwebhook = {hook:?}\nwebhook_secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n\
         [consumers.observe]\nenabled = true\n[consumers.observe.alerts]\nrefusals_max = 2\napproval_wait_seconds_max = 1\nwebhook = true\noff = [\"consumer_lag\"]\n"
    );
    let policies = format!(
        "{PERMIT_ALL}@id(\"no\") forbid(principal, action == Action::\"tools/call\", resource == Tool::\"orders/refund_order\");\n\
         @id(\"ask\") @obligation(\"approval\") permit(principal, action == Action::\"tools/call\", resource == Tool::\"orders/get_order\");\n"
    );
    let orders = Orders::new(&policies, &more);
    let raised = || {
        let all = events(&orders.data()).into_iter().filter(|event| event["type"] == "alert.raised");
        all.map(|event| event["data"].clone()).filter(|data| data["alert"] == "refusals").collect::<Vec<_>>()
    };
    let up = orders.up();
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    let refused = |agent: &Agent| drop(agent.call("refund_order", &json!({ "order_id": "order-1" })));
    (0..2).for_each(|_| refused(&agent));
    let counted = |up: &Up, what: &str| {
        let page = http(&up.admin, "GET /metrics", &[], "").body;
        page.lines().find_map(|line| line.strip_prefix(what)?.trim().parse::<f64>().ok())
    };
    let of = "cairn_trail_decisions_total{server=\"orders\",method=\"tools/call\",decision=\"deny\"}";
    wait_for("both refusals", || (counted(&up, of)? >= 2.0).then_some(()));
    refused(&agent);
    let alert = wait_for("the alert", || raised().first().cloned());
    assert_eq!(alert["about"], "calls", "{alert}");
    assert!(alert["found"].as_str().is_some_and(|found| found.starts_with("3 calls were refused")), "{alert}");
    let told =
        wait_for("the approvers' tool", || told.lock().iter().find(|one| one["type"] == "alert.raised").cloned());
    assert_eq!((&told["data"]["alert"], &told["data"]["about"]), (&json!("refusals"), &json!("calls")));
    // It goes on to hold, over more refusals and a restart, and is not raised again.
    (0..3).for_each(|_| refused(&agent));
    wait_for("more refusals", || (counted(&up, of)? >= 6.0).then_some(()));
    wait_for("its count", || (counted(&up, "cairn_alerts_total{alert=\"refusals\"}")? >= 1.0).then_some(()));
    up.end();
    let up = orders.up();
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    (0..3).for_each(|_| refused(&agent));
    wait_for("refusals after the restart", || (counted(&up, of)? >= 3.0).then_some(()));
    // Another alert shows that the rules were asked since.
    let held = agent.ask("get_order", &json!({ "order_id": "order-1" }));
    wait_for("an approval that waits", || {
        let is_waiting =
            |event: &Value| event["type"] == "alert.raised" && event["data"]["alert"] == "approval_waiting";
        events(&orders.data()).iter().any(is_waiting).then_some(())
    });
    drop(held);
    assert_eq!(raised().len(), 1);
    up.end();
}

#[test]
fn observe_is_paused_and_replayed_as_other_consumers_and_a_replay_sends_the_same_spans() {
    let collector = Collector::start(|_| 200);
    let orders = Orders::new(PERMIT_ALL, &observing(&collector, ""));
    let up = orders.up();
    let agent = Agent::connect_in("wf-1", &up.gateway, "orders");
    agent.call("get_order", &json!({ "order_id": "order-1" }));
    let first = wait_for("a span", || tool_calls(&collector).first().cloned());
    let config = orders.folder.path().join("cairn.toml");
    let output = run(cairn()
        .args(["replay", "--from", "1h", "--group", "observe", "--topic", "mcp.calls", "--json", "--config"])
        .arg(&config)
        .arg("--data")
        .arg(orders.data())
        .env("CAIRN_OPERATOR_TOKEN", TOKEN));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let again = wait_for("it again", || tool_calls(&collector).get(1).cloned());
    assert_eq!(again, first);
    let checked = run(cairn().args(["consumer", "check", "observe"]));
    assert!(text(&checked.stderr).contains("docs/observe.md"), "{}", text(&checked.stderr));
    up.end();
}
