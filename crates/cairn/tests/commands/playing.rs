//! `cairn play` and `cairn compare`: a workflow that real agents of both eras made through a real `up` is played again
//! without it, and held to other runs.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::Path,
    process::{Command, ExitStatus, Output, Stdio},
};

use serde_json::{Value, json};

use crate::{
    approvals::modern,
    played::{Asked, GoesOn, Played, respond, well},
    support::{Agent, Client, Orders, Process, TOKEN, answer, cairn, events, http, run, text, wait_for},
};

const POLICIES: &str = r#"
    @id("all") permit(principal, action, resource);
    @id("no-deletes") forbid(principal, action == Action::"tools/call", resource == Tool::"orders/delete_order");
"#;

/// The calls of a run: tool and arguments.
fn steps() -> Vec<(&'static str, Value)> {
    vec![
        ("get_order", json!({ "order_id": "order-1" })),
        ("refund_order", json!({ "order_id": "order-1", "amount_cents": 100 })),
        ("get_order", json!({ "order_id": "order-1" })),
        ("delete_order", json!({ "order_id": "order-1" })),
        ("refund_order", json!({ "order_id": "order-1", "amount_cents": 9_000_000 })),
    ]
}

/// A JSON-RPC answer without its id and what stands beside every modern result.
fn said(answer: &Value) -> Value {
    match answer.get("error") {
        Some(error) => json!({ "error": error }),
        None => json!({ "content": answer["result"]["content"], "isError": answer["result"]["isError"] }),
    }
}

fn listed(agent: &Agent) -> Vec<Value> {
    let asked = agent.post(&json!({ "jsonrpc": "2.0", "id": 700, "method": "tools/list", "params": {} }));
    answer(asked).json()["result"]["tools"].as_array().expect("a list").clone()
}

/// Records the steps under a workflow; what the agent heard.
fn record(gateway: &str, workflow: &str) -> (Vec<Value>, Vec<Value>) {
    let agent = Agent::connect_in(workflow, gateway, "orders");
    let tools = listed(&agent);
    (tools, steps().iter().map(|(tool, arguments)| said(&agent.call(tool, arguments))).collect())
}

fn play(data: &Path, workflow: &str, token: &str, more: &[&str]) -> Command {
    let mut command = cairn();
    command.args(["play", "--workflow", workflow]).args(more).arg("--data").arg(data);
    command.env("CAIRN_OPERATOR_TOKEN", token);
    command
}

/// Writes a workflow into a file, once its last outcome can be read.
fn export(data: &Path, workflow: &str, path: &Path) {
    let exported = run(&mut play(data, workflow, TOKEN, &["--export", &path.display().to_string()]));
    assert!(exported.status.success(), "{}", text(&exported.stderr));
}

/// Waits until the trail has that many outcomes of tools of a workflow.
fn settled(data: &Path, workflow: &str, calls: usize) {
    wait_for("the outcomes", || {
        let of = |event: &&Value| {
            event["type"] == "call.outcome"
                && event["data"]["workflow_id"] == workflow
                && event["data"]["mcp_method_name"] == "tools/call"
        };
        (events(data).iter().filter(of).count() >= calls).then_some(())
    });
}

fn stdio(recording: &Path, more: &[&str]) -> Client {
    Client::start(cairn().arg("play").arg("--recording").arg(recording).args(more))
}

/// A played server over HTTP, with its address.
struct Http {
    process: Process,
    address: String,
}

impl Http {
    fn start(recording: &Path) -> Self {
        let mut command = cairn();
        command.arg("play").arg("--recording").arg(recording).args(["--http", "127.0.0.1:0", "--json"]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says where");
        let address = line.trim().strip_prefix("plays http://").and_then(|rest| rest.strip_suffix("/mcp/orders"));
        let address = address.unwrap_or_else(|| panic!("no address: {line}")).to_owned();
        Self { process: Process { child }, address }
    }

    /// Ends it; what came of the play.
    fn end(mut self) -> (ExitStatus, Value) {
        self.process.signal("-TERM");
        let status = self.process.wait();
        let mut errors = String::new();
        let stderr = self.process.child.stderr.as_mut().expect("piped");
        std::io::Read::read_to_string(stderr, &mut errors).expect("text");
        let played = errors.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no JSON: {errors}"));
        (status, serde_json::from_str(played).expect("JSON"))
    }
}

#[test]
fn a_workflow_is_played_again_as_it_was_to_agents_of_both_eras_without_any_gateway() {
    let gateway = Orders::new(POLICIES, "");
    let (data, folder) = (gateway.data(), gateway.folder.path().to_owned());
    let up = gateway.up();
    let (tools, heard) = record(&up.gateway, "wf-played");
    settled(&data, "wf-played", steps().len());
    assert!(heard[3]["error"]["code"] == -31_001 && heard[4]["error"]["code"] == -32_602, "{heard:?}");
    assert_ne!(heard[0], heard[2], "the second look sees the refund");
    let path = folder.join("run.json");
    export(&data, "wf-played", &path);
    assert!(!run(&mut play(&data, "wf-played", TOKEN, &["--export", &path.display().to_string()])).status.success());
    let none = run(&mut play(&data, "wf-none", TOKEN, &[]));
    assert_eq!(none.status.code(), Some(3), "{}", text(&none.stderr));
    // Each payload that was read left its event, and that the recording was opened another.
    let all = events(&data);
    let recording: Value = serde_json::from_slice(&fs::read(&path).expect("written")).expect("JSON");
    let mut digests = std::collections::BTreeSet::new();
    collect(&recording, &mut digests);
    let mut read: Vec<&str> = all
        .iter()
        .filter(|event| event["type"] == "vault.read")
        .filter_map(|event| event["data"]["digest"].as_str())
        .collect();
    read.sort_unstable();
    read.dedup();
    assert!(
        digests.len() > 8 && read == digests.iter().map(String::as_str).collect::<Vec<_>>(),
        "{digests:?} {read:?}"
    );
    let opened =
        all.iter().filter(|event| event["data"]["act"] == "recording.open" && event["data"]["outcome"] == "allowed");
    assert_eq!(
        opened.filter(|event| event["data"]["about"] == "wf-played").count(),
        2,
        "twice, though the second file was not written"
    );
    // Whoever may not read payloads gets none.
    let made = run(cairn().args(["operator", "add", "eve", "--roles", "view,policy,approve", "--data"]).arg(&data));
    let eve = text(&made.stdout).split_whitespace().last().expect("a token").to_owned();
    let refused = run(&mut play(&data, "wf-played", &eve, &[]));
    assert!(!refused.status.success() && text(&refused.stderr).contains("payloads"), "{refused:?}");
    up.end();

    // Nothing runs now. Strictly, on standard input and output.
    let mut client = stdio(&path, &[]);
    let welcome = client.initialize();
    assert_eq!(welcome["result"]["protocolVersion"], "2025-11-25", "{welcome}");
    assert_eq!(client.request("tools/list", json!({}))["result"]["tools"], json!(tools));
    for ((tool, arguments), heard) in steps().into_iter().zip(&heard) {
        assert_eq!(said(&client.call(tool, arguments)), *heard, "{tool}");
    }
    let (status, errors) = client.close();
    assert!(status.success() && errors.contains("5 played as recorded, 0 differed"), "{errors}");
    assert_eq!(errors.matches("\nasked: tools/call orders/").count(), 5, "{errors}");
    assert_eq!(gateway.journal().len(), 3, "the server did nothing since");

    // Over HTTP to both eras.
    let legacy = Http::start(&path);
    let agent = Agent::connect(&legacy.address, "orders");
    assert_eq!(listed(&agent), tools);
    for ((tool, arguments), heard) in steps().iter().zip(&heard) {
        assert_eq!(said(&agent.call(tool, arguments)), *heard, "{tool}");
    }
    let strange = http(&legacy.address, "POST /mcp/orders", &[("origin", "https://evil.example")], "{}");
    assert_eq!(strange.status, 403, "{strange:?}");
    let (status, played) = legacy.end();
    assert!(status.success(), "{played}");
    assert_eq!((&played["asked"], &played["as_recorded"], &played["never_asked"]), (&json!(5), &json!(5), &json!(0)));

    let served = Http::start(&path);
    let ask = |method: &str, params: Value| modern(&served.address, "orders", method, &params, &json!({}), &[]);
    assert_eq!(ask("server/discover", json!({}))["result"]["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(ask("tools/list", json!({}))["result"]["resultType"], "complete");
    for ((tool, arguments), heard) in steps().into_iter().zip(&heard) {
        assert_eq!(said(&ask("tools/call", json!({ "name": tool, "arguments": arguments }))), *heard, "{tool}");
    }
    let more = ask("tools/call", json!({ "name": "create_ticket", "arguments": { "title": "x" } }));
    assert_eq!(more["error"]["code"], -31_050, "{more}");
    let (status, played) = served.end();
    assert_eq!((status.code(), &played["as_recorded"], &played["differed"]), (Some(5), &json!(5), &json!(1)));
}

/// Every digest of a payload with its text.
fn collect(value: &Value, digests: &mut std::collections::BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let (Some(Value::String(digest)), Some(Value::String(_))) = (members.get("digest"), members.get("text"))
            {
                digests.insert(digest.clone());
            }
            members.values().for_each(|value| collect(value, digests));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, digests)),
        _ => {}
    }
}

#[test]
fn what_an_agent_does_otherwise_is_refused_or_played_to_the_nearest_and_told_in_the_end() {
    let gateway = Orders::new(POLICIES, "");
    let (data, path) = (gateway.data(), gateway.folder.path().join("run.json"));
    let up = gateway.up();
    // This one is recorded by a modern agent, and played to legacy ones.
    let can = json!({});
    for (tool, arguments) in steps() {
        let params = json!({ "name": tool, "arguments": arguments, "_meta": { "io.cairn/workflow": "wf-modern" } });
        modern(&up.gateway, "orders", "tools/call", &params, &can, &[]);
    }
    settled(&data, "wf-modern", steps().len());
    export(&data, "wf-modern", &path);
    up.end();

    let mut strict = stdio(&path, &[]);
    strict.initialize();
    let other = strict.call("get_order", json!({ "order_id": "order-2" }));
    assert_eq!(
        (&other["error"]["code"], &other["error"]["data"]["cairn"]),
        (&json!(-31_050), &json!("not_as_recorded"))
    );
    let parts = &other["error"]["data"]["differences"][0];
    assert_eq!((&parts["pointer"], &parts["recorded"]), (&json!("/order_id"), &json!("\"order-1\"")), "{other}");
    // What was expected still is.
    let first = strict.call("get_order", json!({ "order_id": "order-1" }));
    assert!(first["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains("0 refunded")), "{first}");
    let (status, errors) = strict.close();
    assert_eq!(status.code(), Some(5), "{errors}");
    assert!(
        errors.contains("1 differed") && errors.contains("4 never asked for") && errors.contains("/order_id"),
        "{errors}"
    );

    let mut lenient = stdio(&path, &["--lenient"]);
    lenient.initialize();
    let near = lenient.call("refund_order", json!({ "order_id": "order-1", "amount_cents": 8_999_999 }));
    assert!(near["result"]["content"][0]["text"].as_str().is_some_and(|text| text.contains("refunded 100")), "{near}");
    assert_eq!(
        lenient.call("refund_order", json!({ "order_id": "order-1" }))["error"]["code"],
        -32_602,
        "the one that is left"
    );
    let (status, errors) = lenient.close();
    assert!(status.code() == Some(5) && errors.contains("2 differed"), "{errors}");

    // A file that somebody changed is not what was recorded.
    let spoiled = fs::read_to_string(&path).expect("written").replace("order-1", "order-9");
    let changed = path.with_file_name("changed.json");
    fs::write(&changed, spoiled).expect("written");
    let refused = run(cairn().args(["play", "--recording"]).arg(&changed));
    assert!(!refused.status.success() && text(&refused.stderr).contains("not what was exported"), "{refused:?}");
}

#[test]
fn what_was_erased_is_told_at_the_start_and_on_the_call() {
    let gateway = Orders::new(POLICIES, "");
    let data = gateway.data();
    let up = gateway.up();
    record(&up.gateway, "wf-erased");
    settled(&data, "wf-erased", steps().len());
    let principal = std::env::var("USER").unwrap_or_else(|_| "local".to_owned());
    let mut erase = cairn();
    erase.args(["erase", "--yes", "--subject", &principal, "--data"]).arg(&data).env("CAIRN_OPERATOR_TOKEN", TOKEN);
    assert!(run(&mut erase).status.success());
    let mut client = Client::start(&mut play(&data, "wf-erased", TOKEN, &["--lenient"]));
    client.initialize();
    let listed = client.request("tools/list", json!({}));
    assert_eq!(listed["result"]["tools"].as_array().map(Vec::len), Some(6), "the catalogue is nobody's: {listed}");
    let gone = client.call("get_order", json!({ "order_id": "order-1" }));
    assert_eq!(gone["error"]["code"], -31_051, "{gone}");
    assert!(gone["error"]["message"].as_str().is_some_and(|words| words.contains("was erased")), "{gone}");
    // A denial needs no payload.
    assert_eq!(client.call("delete_order", json!({ "order_id": "order-1" }))["error"]["code"], -31_001);
    let (status, errors) = client.close();
    assert_eq!(status.code(), Some(5), "{errors}");
    assert_eq!(errors.matches("cairn: cannot play").count(), 4, "{errors}");
    assert!(!errors.contains("cannot play tools/call orders/delete_order"), "{errors}");
    up.end();
}

/// A server of 2025-11-25 with one resource, one prompt, and a URI in which something is masked in events.
fn documents(asked: &Asked, stream: &mut TcpStream) -> GoesOn {
    let id = &asked.body["id"];
    let result = match asked.rpc() {
        "initialize" => json!({
            "protocolVersion": "2025-11-25", "capabilities": { "resources": { "subscribe": true }, "prompts": {} },
            "serverInfo": { "name": "documents", "version": "3" }, "instructions": "read before you write",
        }),
        "resources/list" => json!({ "resources": [{ "uri": URI, "name": "mail" }] }),
        "resources/read" => json!({ "contents": [{ "uri": URI, "text": "dear ann" }] }),
        "prompts/get" => json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": "greet" } }] }),
        _ => return well(asked, stream),
    };
    let body = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
    if asked.rpc() != "initialize" {
        return respond(stream, 200, "application/json", body.as_bytes());
    }
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: d-1\r\n";
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes()).is_ok()
}

const URI: &str = "mail://ann@example.org/1";

#[test]
fn resources_and_prompts_are_played_each_server_for_itself() {
    let server = Played::start(documents);
    let gateway = Orders::new(POLICIES, &format!("[servers.documents]\nurl = \"{}\"\n", server.url()));
    let (data, path) = (gateway.data(), gateway.folder.path().join("run.json"));
    let up = gateway.up();
    let orders = Agent::connect_in("wf-two", &up.gateway, "orders");
    orders.call("list_orders", &json!({}));
    let agent = Agent::connect_in("wf-two", &up.gateway, "documents");
    let asks = [
        ("resources/list", json!({})),
        ("resources/read", json!({ "uri": URI, "_meta": { "progressToken": 1 } })),
        ("prompts/get", json!({ "name": "greet", "arguments": { "who": "ann" } })),
    ];
    let mut heard = Vec::new();
    for (id, (method, params)) in (70..).zip(&asks) {
        let asked = agent.post(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        heard.push(answer(asked).json()["result"].clone());
    }
    assert_eq!(heard[1]["contents"][0]["text"], "dear ann", "{heard:?}");
    settled(&data, "wf-two", 1);
    wait_for("the prompt's outcome", || {
        let of = |event: &Value| event["type"] == "call.outcome" && event["data"]["mcp_method_name"] == "prompts/get";
        events(&data).iter().any(of).then_some(())
    });
    export(&data, "wf-two", &path);
    up.end();
    drop(server);

    let unsure = run(cairn().arg("play").arg("--recording").arg(&path));
    assert!(!unsure.status.success() && text(&unsure.stderr).contains("--server (documents, orders)"), "{unsure:?}");
    let open = run(cairn().arg("play").arg("--recording").arg(&path).args(["--http", "0.0.0.0:0"]));
    assert!(!open.status.success() && text(&open.stderr).contains("127.0.0.1"), "{open:?}");
    let mut client = stdio(&path, &["--server", "documents"]);
    let welcome = client.initialize();
    assert_eq!(welcome["result"]["instructions"], "read before you write", "{welcome}");
    assert_eq!(welcome["result"]["capabilities"], json!({ "resources": {}, "prompts": {} }), "nobody tells of changes");
    for ((method, params), heard) in asks.into_iter().zip(&heard) {
        let mut params = params;
        if method == "resources/read" {
            params["_meta"]["progressToken"] = json!(2);
        }
        assert_eq!(client.request(method, params)["result"], *heard, "{method}");
    }
    // Whoever ends it early hears what was not asked: the other server's call.
    client.process.signal("-TERM");
    let (status, errors) = client.end();
    assert_eq!(status.code(), Some(5), "{errors}");
    assert!(
        errors.contains("2 played as recorded, 0 differed")
            && errors.contains("never asked for: tools/call orders/list_orders"),
        "{errors}"
    );
}

fn compare(data: &Path, a: &str, b: &str, more: &[&str]) -> Output {
    let mut command = cairn();
    command.args(["compare", a, b]).args(more).arg("--data").arg(data).env("CAIRN_OPERATOR_TOKEN", TOKEN);
    run(&mut command)
}

#[test]
fn two_runs_are_equal_or_part_where_they_part() {
    let gateway = Orders::new(POLICIES, "");
    let (data, path) = (gateway.data(), gateway.folder.path().join("a.json"));
    let up = gateway.up();
    let run_of = |workflow: &str, steps: &[(&str, Value)]| {
        let agent = Agent::connect_in(workflow, &up.gateway, "orders");
        steps.iter().for_each(|(tool, arguments)| drop(agent.call(tool, arguments)));
        settled(&data, workflow, steps.len());
    };
    let look = |order: &str| ("get_order", json!({ "order_id": order }));
    let all = [look("order-1"), look("order-2"), ("delete_order", json!({ "order_id": "order-1" })), look("order-3")];
    run_of("wf-a", &all);
    run_of("wf-b", &all);
    // One call is left out, and one asks for something else.
    run_of("wf-c", &[look("order-1"), ("delete_order", json!({ "order_id": "order-2" })), look("order-3")]);
    let same = compare(&data, "wf-a", "wf-b", &["--json"]);
    assert!(same.status.success(), "{}", text(&same.stderr));
    let same: Value = serde_json::from_slice(&same.stdout).expect("JSON");
    assert_eq!((&same["is_equal"], &same["equal"]), (&json!(true), &json!(4)), "{same}");
    let other = compare(&data, "wf-a", "wf-c", &["--json"]);
    assert_eq!(other.status.code(), Some(5), "{}", text(&other.stderr));
    let other: Value = serde_json::from_slice(&other.stdout).expect("JSON");
    assert_eq!((&other["equal"], &other["different"], &other["only_a"]), (&json!(2), &json!(1), &json!(1)), "{other}");
    assert_eq!(other["pairs"][0]["parts"][0]["aspect"], "call", "{other}");
    assert_eq!(other["pairs"][1]["parts"][0]["aspect"], "arguments", "{other}");
    assert_eq!(other["pairs"][1]["parts"][0]["differences"], json!([]), "digests do not tell where");
    let none = events(&data).into_iter().filter(|event| event["type"] == "vault.read").count();
    assert_eq!(none, 0, "no payload was read");
    // With payloads it is said where; a file will do for one of them.
    export(&data, "wf-a", &path);
    let shown = compare(&data, &path.display().to_string(), "wf-c", &["--payloads"]);
    assert_eq!(shown.status.code(), Some(5), "{}", text(&shown.stderr));
    let shown = text(&shown.stdout);
    assert!(shown.contains("arguments: at /order_id: \"order-1\" | \"order-2\""), "{shown}");
    assert!(shown.contains("they part here:\ntools/call orders/get_order"), "{shown}");
    let missing = compare(&data, "wf-a", "wf-none", &[]);
    assert_eq!(missing.status.code(), Some(3), "{}", text(&missing.stderr));
    up.end();
}
