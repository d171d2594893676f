//! What agents and servers report, end to end: model calls by OTLP, actions by the handle of their call, and the trail that joins both.

use std::{net::TcpStream, path::Path, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    identity::key,
    played::{Asked, GoesOn, Played, respond, well_with_sessions},
    support::{Agent, Answer, Up, answer, cairn, events, http, run, text, trail, wait_for},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const JSON: (&str, &str) = ("content-type", "application/json");

/// A server that keeps the `_meta` of every call.
struct Orders {
    server: Played,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Orders {
    fn start() -> Self {
        let seen = Arc::<Mutex<Vec<Value>>>::default();
        let kept = seen.clone();
        Self { server: Played::start(move |asked, stream| serve(asked, stream, &kept)), seen }
    }

    /// The handle of the last call.
    fn handle(&self) -> String {
        let seen = self.seen.lock();
        seen.last().expect("a call")["io.cairn/call"].as_str().expect("a handle").to_owned()
    }
}

fn serve(asked: &Asked, stream: &mut TcpStream, seen: &Mutex<Vec<Value>>) -> GoesOn {
    if asked.rpc() != "tools/call" {
        return well_with_sessions(asked, stream);
    }
    seen.lock().push(asked.body["params"]["_meta"].clone());
    let result = json!({ "content": [{ "type": "text", "text": "done" }] });
    let said = json!({ "jsonrpc": "2.0", "id": asked.body["id"], "result": result });
    respond(stream, 200, "application/json", said.to_string().as_bytes())
}

fn up(folder: &Path, config: &str) -> Up {
    let path = folder.join("cairn.toml");
    std::fs::write(&path, config).expect("written");
    Up::start(&folder.join("data"), &["--config", &path.display().to_string(), "--ingest", "127.0.0.1:0"])
}

fn ingest(folder: &Path) -> String {
    let endpoints: Value =
        serde_json::from_slice(&std::fs::read(folder.join("data/endpoints.json")).expect("announced")).expect("JSON");
    endpoints["ingest_url"].as_str().expect("an address").trim_start_matches("http://").to_owned()
}

/// A call of a tool within the trace.
fn call(agent: &Agent, tool: &str) -> Value {
    let meta = json!({ "traceparent": format!("00-{TRACE}-00f067aa0ba902b6-01") });
    let params = json!({ "name": tool, "arguments": {}, "_meta": meta });
    answer(agent.post(&json!({ "jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": params }))).json()
}

/// A request with one span of a model call that chose `tool`.
fn span(id: &str, tool: &str) -> String {
    let attribute = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let attributes = [
        attribute("gen_ai.operation.name", "chat"),
        attribute("gen_ai.provider.name", "openai"),
        attribute("gen_ai.request.model", "gpt-5-mini"),
        attribute(
            "gen_ai.input.messages",
            r#"[{"role":"user","parts":[{"type":"text","content":"refund what I wrote of"}]}]"#,
        ),
        attribute(
            "gen_ai.tool.definitions",
            r#"[{"name":"get","description":"Reads."},{"name":"refund","description":"Refunds."}]"#,
        ),
        attribute(
            "gen_ai.output.messages",
            &json!([{ "role": "assistant", "parts": [{ "type": "tool_call", "id": "c1", "name": tool }] }]).to_string(),
        ),
    ];
    let span = json!({ "traceId": TRACE, "spanId": id, "name": "chat", "attributes": attributes });
    json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [span] }] }] }).to_string()
}

fn report(address: &str, handle: &str, id: &str, more: &[(&str, &str)]) -> Answer {
    let action = json!({ "call": handle, "system": "zendesk", "kind": "ticket", "id": id, "state": "created" });
    let headers = [&[JSON], more].concat();
    http(address, "POST /v1/actions", &headers, &json!({ "actions": [action] }).to_string())
}

#[test]
fn a_trail_shows_which_model_chose_a_tool_from_what_and_what_came_of_it() {
    let (folder, orders) = (tempfile::tempdir().expect("a folder"), Orders::start());
    let config = format!("[ingest]\n[servers.orders]\nurl = {:?}\nactions = true\n", orders.server.url());
    let up = up(folder.path(), &config);
    let (data, address) = (folder.path().join("data"), ingest(folder.path()));
    assert!(up.lines.last().is_some_and(|line| line.contains("ingest http://127.0.0.1:")), "{:?}", up.lines);
    let agent = Agent::connect(&up.gateway, "orders");
    for (number, tool) in ["get", "refund"].into_iter().enumerate() {
        let sent = http(&address, "POST /v1/traces", &[JSON], &span(&format!("00f067aa0ba902c{number}"), tool));
        assert_eq!((sent.status, sent.body.as_str()), (200, "{}"), "{sent:?}");
        assert!(call(&agent, tool)["result"].is_object());
        // An exporter that heard no answer sends again.
        http(&address, "POST /v1/traces", &[JSON], &span(&format!("00f067aa0ba902c{number}"), tool));
    }
    let told = report(&address, &orders.handle(), "T-4711", &[]);
    assert_eq!(told.status, 200, "{told:?}");
    // It is in the trail when it is answered.
    let action = events(&data).into_iter().find(|event| event["type"] == "action.reported").expect("it is durable");
    assert_eq!((&action["topic"], &action["data"]["id"]), (&json!("mcp.actions"), &json!("T-4711")));
    assert_eq!(report(&address, &orders.handle(), "T-4711", &[]).json()["actions"][0]["repeated"], true);

    let path = wait_for("both model calls", || {
        let path = trail(&data, Some(TRACE));
        (path["models"].as_array()?.len() == 2 && path["calls"].as_array()?.len() == 2).then_some(path)
    });
    let refund =
        path["calls"].as_array().expect("calls").iter().find(|call| call["subject"] == "orders/refund").expect("it");
    assert_eq!(refund["actions"][0]["id"], "T-4711");
    assert_eq!(refund["chosen_by"]["span_id"], "00f067aa0ba902c1");
    assert_eq!(refund["chosen_by"]["tools_offered"][0]["name"], "get");
    assert_eq!(path["models"][1]["tools_chosen"][0]["call_id"], refund["call_id"]);
    let shown = run(cairn().args(["trail", TRACE, "--data"]).arg(&data));
    let shown = text(&shown.stdout);
    for words in [
        "model      gpt-5-mini of openai, chose get, offered 2: get, refund",
        "chosen     by gpt-5-mini of openai (span 00f067aa0ba902c1), from 2: get, refund",
        "zendesk ticket T-4711 created",
    ] {
        assert!(shown.contains(words), "{words}: {shown}");
    }
    // Messages are in the vault and in no event.
    let all = events(&data);
    assert!(!json!(all).to_string().contains("refund what I wrote of"), "{all:?}");
    assert!(
        all.iter().any(|event| event["data"]["prompt"]["location"].as_str().is_some_and(|at| at.starts_with("vault:")))
    );
    assert!(!json!(all).to_string().contains(&orders.handle()), "a handle is a secret");
    up.end();
}

#[test]
fn a_handle_holds_over_a_restart_and_only_servers_that_report_get_one() {
    let (folder, orders) = (tempfile::tempdir().expect("a folder"), Orders::start());
    let url = orders.server.url();
    let config = format!("[ingest]\n[servers.orders]\nurl = {url:?}\nactions = true\n[servers.mute]\nurl = {url:?}\n");
    let first = up(folder.path(), &config);
    call(&Agent::connect(&first.gateway, "mute"), "get");
    assert!(orders.seen.lock()[0].get("io.cairn/call").is_none(), "a message goes on as it came");
    call(&Agent::connect(&first.gateway, "orders"), "get");
    let handle = orders.handle();
    first.end();
    let second = up(folder.path(), &config);
    let address = ingest(folder.path());
    assert_eq!(report(&address, &handle, "T-1", &[]).status, 200);
    let mut forged = handle.clone().into_bytes();
    let last = forged.len() - 5;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("ASCII");
    for bad in [forged.as_str(), "01996b5e-7c00-7000-8000-000000000001", ""] {
        assert_eq!(report(&address, bad, "T-2", &[]).status, 400, "{bad}");
    }
    let told: Vec<_> = events(&folder.path().join("data"));
    assert_eq!(told.iter().filter(|event| event["type"] == "action.reported").count(), 1);
    second.end();
}

#[test]
fn a_sender_reports_within_its_own_tenant_and_nobody_without_a_credential() {
    let (folder, orders) = (tempfile::tempdir().expect("a folder"), Orders::start());
    let data = folder.path().join("data");
    let config = format!(
        "[ingest]\n[identity]\nlocal = true\napi_keys = true\n[servers.orders]\nurl = {:?}\nactions = true\n",
        orders.server.url()
    );
    let up = up(folder.path(), &config);
    let address = ingest(folder.path());
    let bearer = |tenant: &str| {
        let (_, key) = key(&data, &["--principal", "bot", "--tenant", tenant]);
        format!("Bearer {key}")
    };
    let (acme, globex) = (bearer("acme"), bearer("globex"));
    for key in [&acme, &globex] {
        let headers = [JSON, ("authorization", key.as_str())];
        assert_eq!(http(&address, "POST /v1/traces", &headers, &span("00f067aa0ba902c1", "get")).status, 200);
    }
    let found = wait_for("both reports", || {
        let found: Vec<_> = events(&data).into_iter().filter(|event| event["type"] == "model.called").collect();
        (found.len() == 2).then_some(found)
    });
    let mut tenants: Vec<_> = found.iter().filter_map(|event| event["data"]["tenant"].as_str()).collect();
    tenants.sort_unstable();
    assert_eq!(tenants, ["acme", "globex"], "each in its own, as two events");
    assert_eq!(http(&address, "POST /v1/traces", &[JSON, ("authorization", "Bearer no")], "{}").status, 401);

    call(&Agent::connect(&up.gateway, "orders"), "get");
    // The call is of the local user, who is of no tenant.
    let refused = report(&address, &orders.handle(), "T-1", &[("authorization", &acme)]);
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(report(&address, &orders.handle(), "T-1", &[]).status, 200);
    let refusals = wait_for("the refusal", || {
        let all = events(&data);
        all.into_iter().find(|event| event["type"] == "access.refused")
    });
    assert_eq!(refusals["data"]["server"], "ingest");
    up.end();
}

#[test]
fn what_would_let_strangers_write_does_not_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = |config: &str| {
        let path = folder.path().join("cairn.toml");
        std::fs::write(&path, config).expect("written");
        let mut command = cairn();
        command.args([
            "up",
            "--kafka",
            "127.0.0.1:0",
            "--gateway",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--config",
        ]);
        let ended = run(command.arg(&path).arg("--data").arg(folder.path().join("data")));
        assert!(!ended.status.success());
        text(&ended.stderr)
    };
    let open = started("[ingest]\nlisten = \"0.0.0.0:0\"\nallow_plaintext = true\n");
    assert!(open.contains("[identity]"), "{open}");
    assert!(started("[ingest]\nlisten = \"0.0.0.0:0\"\n").contains("[ingest.tls]"));
    assert!(started("[servers.a]\ncommand = \"x\"\nactions = true\n").contains("[ingest]"));
    assert!(started("[ingest]\nactions_days_max = 0\n").contains("at least 1"));
}
