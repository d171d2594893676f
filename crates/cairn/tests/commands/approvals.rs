//! Approvals that bind, end to end: for exactly what was looked at, once, by others than who asked, over restarts, and told
//! to each client in the best way that it knows.

use std::{
    fs,
    net::TcpStream,
    path::Path,
    sync::{Arc, atomic::AtomicUsize, atomic::Ordering},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    played::{Asked, GoesOn, Played, respond, well},
    support::{Agent, Answer, Orders, TOKEN, Up, answer, cairn, events, http, run, text, wait_for},
};

const ASK: &str = r#"permit(principal, action, resource);
@id("ask") @obligation("approval") @expires("10m")
permit(principal, action == Action::"tools/call", resource);
"#;

fn refund(cents: &str) -> Value {
    serde_json::from_str(&format!("{{\"order_id\":\"order-1\",\"amount_cents\":{cents}}}")).expect("JSON")
}

fn admin(up: &Up, token: &str, request: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    http(&up.admin, request, &headers, &if body.is_null() { String::new() } else { body.to_string() })
}

fn waiting(up: &Up) -> Vec<Value> {
    let listed = admin(up, TOKEN, "GET /approvals", &Value::Null).json();
    listed["waiting"].as_array().expect("a list").clone()
}

fn approve(up: &Up, id: &str, token: &str, body: &Value) -> Answer {
    admin(up, token, &format!("POST /approvals/{id}/approve"), body)
}

fn id_of(approval: &Value) -> String {
    approval["id"].as_str().expect("an id").to_owned()
}

fn reasons(data: &Path) -> Vec<String> {
    let refused = events(data).into_iter().filter(|event| event["type"] == "access.refused");
    refused.map(|event| event["data"]["reason"].as_str().expect("a reason").to_owned()).collect()
}

#[test]
fn an_approval_outlives_a_restart_and_counts_once_for_exactly_that_call() {
    let gateway = Orders::new(ASK, "[gateway.limits]\nhold_ms_max = 300\n");
    let mut up = gateway.up();
    let agent = Agent::connect(&up.gateway, "orders");
    let pending = agent.call("refund_order", &refund("700"));
    assert_eq!(pending["error"]["code"], -31_018, "{pending}");
    assert_eq!(pending["error"]["data"]["cairn"], "approval_pending");
    let id = pending["error"]["data"]["approval_id"].as_str().expect("an id").to_owned();
    let token = pending["error"]["data"]["retry_token"].as_str().expect("a token").to_owned();
    assert_eq!(agent.call("refund_order", &refund("700"))["error"]["data"]["approval_id"], id.as_str(), "it is one");

    up.process.signal("-KILL");
    up.process.wait();
    let up = gateway.up();
    let held = waiting(&up);
    assert_eq!((held.len(), held[0]["id"].as_str()), (1, Some(id.as_str())), "{held:?}");
    assert_eq!(held[0]["arguments"], r#"{"order_id":"order-1","amount_cents":700}"#);
    assert_eq!(approve(&up, &id, TOKEN, &json!({ "approver": "grace" })).json()["state"], "approved");
    assert!(gateway.journal().is_empty(), "nobody has called since");

    // Another amount is another call, and so is the same one with a token that was given for this.
    let agent = Agent::connect(&up.gateway, "orders");
    let other = agent.call("refund_order", &refund("701"));
    assert_eq!(other["error"]["code"], -31_018, "{other}");
    assert_ne!(other["error"]["data"]["approval_id"], id.as_str());
    let params = json!({ "name": "refund_order", "arguments": refund("702"), "_meta": { "io.cairn/approval": token } });
    let foreign = answer(agent.post(&json!({ "jsonrpc": "2.0", "id": 77, "method": "tools/call", "params": params })));
    assert_eq!(foreign.json()["error"]["code"], -31_014, "{foreign:?}");

    // The same call, written otherwise and with its token, goes on; and only once.
    let arguments = json!({ "amount_cents": 700, "order_id": "order-1" });
    let params = json!({ "name": "refund_order", "arguments": arguments, "_meta": { "io.cairn/approval": token } });
    let done = answer(agent.post(&json!({ "jsonrpc": "2.0", "id": 78, "method": "tools/call", "params": params })));
    assert!(done.json().get("result").is_some(), "{done:?}");
    assert_eq!(gateway.journal().len(), 1);
    assert!(!gateway.journal()[0].contains("io.cairn/approval"), "what is Cairn's stays here");
    let again = agent.call("refund_order", &refund("700"));
    assert_eq!(again["error"]["code"], -31_018, "an approval counts once: {again}");
    assert_eq!(gateway.journal().len(), 1);

    let all = events(&gateway.data());
    let approvals: Vec<&Value> = all.iter().filter(|event| event["data"]["approval_id"] == id.as_str()).collect();
    let mut approvals = approvals;
    approvals.sort_by_key(|event| event["data"]["hlc"].to_string()); // two workflows may be in two partitions
    let states: Vec<&str> = approvals.iter().map(|event| event["data"]["state"].as_str().expect("a state")).collect();
    assert_eq!(states, ["requested", "approved", "approved"], "asked, said, taken: {approvals:?}");
    assert!(approvals.iter().skip(1).all(|event| event["data"]["approver"] == "grace"));
    let of_calls = |event: &&Value| event["type"] == "call.intent" && event["data"]["mcp_method_name"] == "tools/call";
    let forwarded: Vec<&Value> = all.iter().filter(of_calls).map(|event| &event["data"]["call_id"]).collect();
    assert_eq!(forwarded, [&approvals[2]["data"]["call_id"]], "the one that took it");
    assert!(all.iter().any(|e| e["type"] == "access.refused" && e["data"]["reason"] == "request_state_other"));
    // Nothing of the arguments lies in the clear beside the trail.
    for entry in fs::read_dir(gateway.data().join("approvals")).expect("a folder") {
        let bytes = fs::read(entry.expect("an entry").path()).expect("a file");
        assert!(!bytes.windows(7).any(|part| part == b"order-1"), "sealed");
    }
    up.end();
}

#[test]
fn numbers_count_as_they_are_written() {
    let gateway = Orders::new(ASK, "[gateway.limits]\nhold_ms_max = 200\n");
    let up = gateway.up();
    let agent = Agent::connect(&up.gateway, "orders");
    let ask = |cents: &str| {
        let text = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"tools/call\",\"params\":{{\"name\":\"refund_order\",\
             \"arguments\":{{\"order_id\":\"order-1\",\"amount_cents\":{cents}}}}}}}"
        );
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-session-id", agent.session.as_str()),
            ("mcp-protocol-version", "2025-11-25"),
        ];
        http(&up.gateway, "POST /mcp/orders", &headers, &text).json()
    };
    let first = ask("9007199254740993");
    let id = first["error"]["data"]["approval_id"].as_str().expect("it waits").to_owned();
    assert!(waiting(&up)[0]["arguments"].as_str().expect("text").contains("9007199254740993"));
    assert_eq!(approve(&up, &id, TOKEN, &Value::Null).status, 200);
    for other in ["9007199254740992", "9007199254740993.0", "9.007199254740993e15"] {
        assert_eq!(ask(other)["error"]["code"], -31_018, "{other} was not looked at");
    }
    assert!(gateway.journal().is_empty());
    let done = ask("9007199254740993");
    assert_eq!(done["error"]["code"], -32_602, "that one was, and the server says that it is too much: {done}");
    up.end();
}

#[test]
fn a_changed_policy_needs_another_approval_and_a_denial_stays_one() {
    let gateway = Orders::new(ASK, "[gateway.limits]\nhold_ms_max = 200\n");
    let up = gateway.up();
    let agent = Agent::connect(&up.gateway, "orders");
    let id = |answer: &Value| answer["error"]["data"]["approval_id"].as_str().unwrap_or_default().to_owned();
    let first = id(&agent.call("refund_order", &refund("700")));
    assert_eq!(approve(&up, &first, TOKEN, &Value::Null).status, 200);
    let version = |up: &Up| waiting(up).first().map(|one| one["policy_version"].to_string());
    let gateway = gateway.with(&format!("{ASK}@id(\"more\") permit(principal, action, resource);\n"));
    let second = wait_for("the other policies", || {
        let asked = agent.call("refund_order", &refund("700"));
        // The old approval may be taken as long as the old policies decide; then it has to be given anew.
        assert_eq!(asked["error"]["code"].as_i64().unwrap_or(-31_018), -31_018, "{asked}");
        let other = id(&asked);
        (!other.is_empty() && other != first && version(&up).is_some()).then_some(other)
    });
    assert_eq!(approve(&up, &second, TOKEN, &Value::Null).status, 200);
    let before = gateway.journal().len();
    let gateway = gateway.with("@id(\"no\") forbid(principal, action == Action::\"tools/call\", resource);\n");
    wait_for("the denial", || (agent.call("refund_order", &refund("1"))["error"]["code"] == -31_001).then_some(()));
    assert_eq!(
        agent.call("refund_order", &refund("700"))["error"]["code"],
        -31_001,
        "approved, and denied all the same"
    );
    assert_eq!(gateway.journal().len(), before);
    up.end();
}

#[test]
fn it_takes_as_many_people_as_the_policy_says_and_none_of_them_is_who_asks() {
    let policies = r#"permit(principal, action, resource);
@id("two") @obligation("approval") @expires("10m") @quorum("2") @approvers("ann, ben, nightly, eve")
permit(principal, action == Action::"tools/call", resource);
"#;
    let gateway = Orders::new(policies, "[identity]\napi_keys = true\n[gateway.limits]\nhold_ms_max = 200\n");
    let up = gateway.up();
    let data = gateway.data();
    let cairn_says = |arguments: &[&str]| {
        let output = run(cairn().args(arguments).arg("--data").arg(&data));
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout).trim().to_owned()
    };
    let person = |name: &str, roles: &str| cairn_says(&["operator", "add", name, "--roles", roles]);
    let (ann, ben, nightly) = (person("ann", "view,approve"), person("ben", "approve"), person("nightly", "approve"));
    let (eve, carl) = (person("eve", "view"), person("carl", "approve"));
    assert!(cairn_says(&["operator", "list"]).contains("ann  view,approve"));
    let key = cairn_says(&["key", "new", "--principal", "nightly"]);
    let agent = KeyAgent { up: &up, key: &key };
    let pending = agent.call(&refund("700"));
    let id = pending["error"]["data"]["approval_id"].as_str().unwrap_or_else(|| panic!("{pending}")).to_owned();
    let by = |token: &str, body: &Value| approve(&up, &id, token, body);

    assert_eq!(by("cairn-op-0000", &Value::Null).status, 401, "an agent without a token");
    assert_eq!(by(&key, &Value::Null).status, 401, "its own key opens nothing here");
    assert_eq!(by(&nightly, &Value::Null).status, 403, "its own call");
    assert_eq!(by(TOKEN, &json!({ "approver": "nightly" })).status, 403, "under its own name");
    assert_eq!(by(&eve, &Value::Null).status, 403, "she may look");
    assert_eq!(by(&carl, &Value::Null).status, 403, "the policy names others");
    assert_eq!(by(TOKEN, &json!({ "approver": "ann" })).status, 403, "a name in a request is nobody");
    let first = by(&ann, &json!({ "approver": "ben", "reason": "seen" })).json();
    assert_eq!(
        (first["state"].as_str(), first["given"].as_u64(), first["quorum"].as_u64()),
        (Some("requested"), Some(1), Some(2))
    );
    assert_eq!(by(&ann, &json!({ "approver": "ben" })).status, 409, "one person, whatever she says");
    assert_eq!(agent.call(&refund("700"))["error"]["code"], -31_018, "one of two is not enough");
    assert!(gateway.journal().is_empty());
    let shown = text(&run(cairn().args(["approve", "--data"]).arg(&data).env("CAIRN_OPERATOR_TOKEN", &eve)).stdout);
    assert!(shown.contains("1 of 2 have approved"), "{shown}");
    let second = run(cairn().args(["approve", &id, "--data"]).arg(&data).env("CAIRN_OPERATOR_TOKEN", &ben));
    assert!(text(&second.stdout).contains("approved"), "{}", text(&second.stderr));
    assert!(agent.call(&refund("700")).get("result").is_some());
    assert_eq!(gateway.journal().len(), 1);

    // Who is removed opens nothing; who has not the role for policies does not put them in force.
    cairn_says(&["operator", "remove", "ben"]);
    assert_eq!(admin(&up, &ben, "GET /approvals", &Value::Null).status, 401);
    assert_eq!(admin(&up, &ann, "POST /policy/promote", &Value::Null).status, 403);
    let all = events(&data);
    let is_yes = |event: &&Value| event["type"] == "call.approval" && event["data"]["state"] == "approved";
    let mut given: Vec<&Value> = all.iter().filter(is_yes).map(|event| &event["data"]).collect();
    // In the order in which they happened, whichever partition was read first.
    given.sort_by_key(|data| data["hlc"].as_str().expect("a clock"));
    let approvers: Vec<&str> = given.iter().map(|data| data["approver"].as_str().expect("a name")).collect();
    assert_eq!(&approvers[..2], ["ann", "ben"], "who the tokens say, not who the requests do");
    assert!(all.iter().any(|e| e["type"] == "call.approval" && e["data"]["quorum"] == 2));
    let reasons = reasons(&data);
    for reason in ["own_approval", "not_approver", "role_missing", "operator_unknown"] {
        assert!(reasons.iter().any(|found| found == reason), "{reason} left no event: {reasons:?}");
    }
    up.end();
}

/// A modern client with an API key.
struct KeyAgent<'a> {
    up: &'a Up,
    key: &'a str,
}

impl KeyAgent<'_> {
    fn call(&self, arguments: &Value) -> Value {
        let bearer = format!("Bearer {}", self.key);
        modern(
            &self.up.gateway,
            "orders",
            "tools/call",
            &json!({ "name": "refund_order", "arguments": arguments }),
            &json!({}),
            &[("authorization", bearer.as_str())],
        )
    }
}

/// A request of 2026-07-28, from a client with those capabilities.
pub(crate) fn modern(
    gateway: &str,
    server: &str,
    method: &str,
    params: &Value,
    can: &Value,
    more: &[(&str, &str)],
) -> Value {
    let mut params = params.clone();
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2026-07-28".into();
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = can.clone();
    params["_meta"]["io.modelcontextprotocol/clientInfo"] = json!({ "name": "t", "version": "1" });
    let name = params["name"].as_str().or(params["taskId"].as_str()).unwrap_or_default().to_owned();
    let mut headers = vec![
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", method),
    ];
    if !name.is_empty() {
        headers.push(("mcp-name", name.as_str()));
    }
    headers.extend(more);
    let body = json!({ "jsonrpc": "2.0", "id": 9, "method": method, "params": params }).to_string();
    let answer = http(gateway, &format!("POST /mcp/{server}"), &headers, &body);
    match answer.header("content-type") {
        Some(kind) if kind.starts_with("text/event-stream") => {
            let last = answer.body.lines().filter_map(|line| line.strip_prefix("data:")).next_back();
            serde_json::from_str(last.unwrap_or_else(|| panic!("{answer:?}"))).expect("JSON")
        }
        _ => answer.json(),
    }
}

/// A modern server whose tool asks for input first, with a state of its own.
struct Asking {
    server: Played,
    /// The second rounds, as they came.
    rounds: Arc<Mutex<Vec<Value>>>,
}

/// No JSON library writes it this way, so whoever read it and wrote it again would be found out.
const STATE: &str = r#"up\u0073tream \u00e9/\/ state"#;

impl Asking {
    fn start() -> Self {
        let rounds = Arc::<Mutex<Vec<Value>>>::default();
        let seen = rounds.clone();
        let server = Played::start(move |asked, stream| serve(asked, stream, &seen));
        Self { server, rounds }
    }
}

fn serve(asked: &Asked, stream: &mut TcpStream, seen: &Mutex<Vec<Value>>) -> GoesOn {
    let id = &asked.body["id"];
    let result = match asked.rpc() {
        "server/discover" => json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": { "tools": {} }, "serverInfo": { "name": "asking", "version": "1" }, "ttlMs": 0, "cacheScope": "private" })
        .to_string(),
        "tools/call" if asked.body["params"]["inputResponses"].is_null() => format!(
            r#"{{"resultType":"input_required","inputRequests":{{"sure":{{"method":"elicitation/create","params":{{"message":"sure?","requestedSchema":{{"type":"object","properties":{{}}}}}}}}}},"requestState":"{STATE}"}}"#
        ),
        "tools/call" => {
            seen.lock().push(asked.body["params"].clone());
            json!({ "resultType": "complete", "content": [{ "type": "text", "text": "done" }] }).to_string()
        }
        _ => return well(asked, stream),
    };
    respond(stream, 200, "application/json", format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#).as_bytes())
}

#[test]
fn a_client_that_opens_addresses_is_asked_by_input_required_and_its_servers_state_comes_back_unchanged() {
    let asking = Asking::start();
    let policies = r#"permit(principal, action, resource);
@id("answers") @obligation("approval") permit(principal, action == Action::"tools/call", resource)
when { context has input_responses };
"#;
    let gateway = Orders::new(policies, &format!("[servers.asking]\nurl = \"{}\"\n", asking.server.url()));
    let up = gateway.up();
    let can = json!({ "elicitation": { "url": {}, "form": {} } });
    let call = |more: Value| {
        let mut params = json!({ "name": "echo", "arguments": { "a": 1 } });
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        modern(&up.gateway, "asking", "tools/call", &params, &can, &[])
    };
    let first = call(json!({}));
    assert_eq!(first["result"]["resultType"], "input_required", "{first}");
    let theirs = first["result"]["requestState"].clone();
    let answers = json!({ "sure": { "action": "accept", "content": {} } });
    let second = call(json!({ "inputResponses": answers, "requestState": theirs }));
    let asked = &second["result"]["inputRequests"]["cairn-approval"];
    assert_eq!(asked["method"], "elicitation/create", "{second}");
    assert_eq!(asked["params"]["mode"], "url");
    let url = asked["params"]["url"].as_str().expect("an address").to_owned();
    let ours = second["result"]["requestState"].as_str().expect("a state").to_owned();
    assert!(!ours.contains("tream"), "it is sealed");
    let id = id_of(&waiting(&up)[0]);
    assert!(url.starts_with(&format!("http://{}/console/approvals/", up.admin)) && url.ends_with(&id), "{url}");
    assert_eq!(asking.rounds.lock().len(), 0);

    // A state that was changed, or that belongs to another request, is refused and never reaches the server.
    let opened = json!({ "cairn-approval": { "action": "accept" } });
    let mut forged = ours.clone();
    let at = forged.len() - 8;
    forged.replace_range(at..=at, if &forged[at..=at] == "A" { "B" } else { "A" });
    for (what, state, arguments) in
        [("forged", &forged, json!({ "a": 1 })), ("of another call", &ours, json!({ "a": 2 }))]
    {
        let refused = call(json!({ "requestState": state, "inputResponses": opened, "arguments": arguments }));
        assert_eq!(refused["error"]["code"], -31_014, "{what}: {refused}");
    }
    assert_eq!(asking.rounds.lock().len(), 0);

    // The page shows nothing to whoever has no token, and lets those who have one look and settle.
    let page = http(&up.admin, &format!("GET /console/approvals/{id}"), &[], "");
    assert!(page.status == 200 && page.body.contains("<form") && !page.body.contains("echo"), "{page:?}");
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let post = |body: &str| http(&up.admin, &format!("POST /console/approvals/{id}"), &form, body);
    let wrong = post("token=cairn-op-wrong&what=show&reason=");
    assert!(wrong.status == 401 && !wrong.body.contains("echo"), "{wrong:?}");
    let shown = post(&format!("token={TOKEN}&what=show&reason="));
    assert!(shown.body.contains("echo") && shown.body.contains("&quot;sure&quot;"), "the answers, too: {shown:?}");
    assert!(shown.header("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'")));
    assert!(post(&format!("token={TOKEN}&what=approve&reason=fine")).body.contains("Approved"));

    let done = call(json!({ "requestState": ours, "inputResponses": opened }));
    assert_eq!(done["result"]["resultType"], "complete", "{done}");
    let rounds = asking.rounds.lock().clone();
    assert_eq!(rounds.len(), 1);
    assert_eq!(rounds[0]["inputResponses"], answers, "what the client had said to the server, and nothing of Cairn's");
    assert_eq!(rounds[0]["requestState"], "upstream \u{e9}// state");
    // Replayed, it asks anew.
    let replayed = call(json!({ "requestState": ours, "inputResponses": opened }));
    assert_eq!(asking.rounds.lock().len(), 1, "{replayed}");

    // A user who declines ends it.
    let third = call(json!({ "inputResponses": answers, "requestState": theirs }));
    let ours = third["result"]["requestState"].as_str().unwrap_or_else(|| panic!("{third}")).to_owned();
    let declined =
        call(json!({ "requestState": ours, "inputResponses": { "cairn-approval": { "action": "decline" } } }));
    assert_eq!(declined["error"]["code"], -31_002, "{declined}");
    assert!(waiting(&up).is_empty());
    assert_eq!(asking.rounds.lock().len(), 1);
    let operations: Vec<Value> = events(&gateway.data())
        .iter()
        .filter(|e| e["type"] == "call.outcome" && !e["data"]["operation_id"].is_null())
        .map(|e| e["data"]["operation_id"].clone())
        .collect();
    assert!(
        operations.len() >= 3 && operations.iter().all(|one| *one == operations[0]),
        "one operation: {operations:?}"
    );
    up.end();
}

#[test]
fn one_approval_covers_the_rounds_of_its_operation() {
    let asking = Asking::start();
    let gateway = Orders::new(ASK, &format!("[servers.asking]\nurl = \"{}\"\n", asking.server.url()));
    let up = gateway.up();
    let can = json!({ "elicitation": { "url": {} } });
    let call = |more: Value| {
        let mut params = json!({ "name": "echo", "arguments": { "a": 1 } });
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        modern(&up.gateway, "asking", "tools/call", &params, &can, &[])
    };
    let asked = call(json!({}));
    let ours = asked["result"]["requestState"].clone();
    assert_eq!(approve(&up, &id_of(&waiting(&up)[0]), TOKEN, &Value::Null).status, 200);
    let opened = json!({ "cairn-approval": { "action": "accept" } });
    let first = call(json!({ "requestState": ours, "inputResponses": opened }));
    assert!(first["result"]["inputRequests"]["sure"].is_object(), "the server asks now: {first}");
    let answers = json!({ "sure": { "action": "accept", "content": {} } });
    let theirs = first["result"]["requestState"].clone();
    let done = call(json!({ "inputResponses": answers, "requestState": theirs }));
    assert_eq!(done["result"]["resultType"], "complete", "{done}");
    assert!(waiting(&up).is_empty(), "the second round asked nobody");
    // What is over is not covered any more, and other arguments never were.
    for arguments in [json!({ "a": 1 }), json!({ "a": 2 })] {
        let other = call(json!({ "inputResponses": answers, "requestState": theirs, "arguments": arguments }));
        assert!(other["result"]["inputRequests"]["cairn-approval"].is_object(), "{other}");
    }
    assert_eq!(asking.rounds.lock().len(), 1);
    up.end();
}

#[test]
fn a_client_that_knows_tasks_gets_a_handle_and_the_call_is_made_when_it_asks_again() {
    let gateway = Orders::new(ASK, "");
    let mut up = gateway.up();
    let can = json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } });
    let call = |up: &Up, method: &str, params: Value| modern(&up.gateway, "orders", method, &params, &can, &[]);
    let made = call(&up, "tools/call", json!({ "name": "refund_order", "arguments": refund("700") }));
    assert_eq!(
        (made["result"]["resultType"].as_str(), made["result"]["status"].as_str()),
        (Some("task"), Some("working")),
        "{made}"
    );
    let task = made["result"]["taskId"].as_str().expect("an id").to_owned();
    let get = |up: &Up, task: &str| call(up, "tasks/get", json!({ "taskId": task }));
    assert_eq!(get(&up, &task)["result"]["status"], "working");

    up.process.signal("-KILL");
    up.process.wait();
    let up = gateway.up();
    assert_eq!(get(&up, &task)["result"]["status"], "working", "a restart loses nothing");
    let id = id_of(&waiting(&up)[0]);
    assert_eq!(approve(&up, &id, TOKEN, &Value::Null).status, 200);
    assert!(call(&up, "tools/list", json!({}))["result"].is_object());
    assert!(gateway.journal().is_empty(), "nobody asks for the task, so nothing happens");
    let done = wait_for("the task", || {
        let shown = get(&up, &task);
        assert_eq!(shown["result"]["resultType"], "complete", "{shown}");
        (shown["result"]["status"] == "completed").then_some(shown)
    });
    assert!(done["result"]["result"]["content"].is_array(), "{done}");
    assert_eq!(gateway.journal().len(), 1);
    get(&up, &task);
    assert_eq!(gateway.journal().len(), 1, "it was made once");

    // Denied, cancelled, and not there.
    let ask = |cents: &str| call(&up, "tools/call", json!({ "name": "refund_order", "arguments": refund(cents) }));
    let task_of = |made: &Value| made["result"]["taskId"].as_str().expect("an id").to_owned();
    let denied = task_of(&ask("800"));
    let id = id_of(&waiting(&up)[0]);
    assert_eq!(admin(&up, TOKEN, &format!("POST /approvals/{id}/deny"), &json!({ "reason": "no" })).status, 200);
    let shown = get(&up, &denied);
    assert_eq!(
        (shown["result"]["status"].as_str(), &shown["result"]["error"]["code"]),
        (Some("failed"), &json!(-31_002))
    );
    let cancelled = task_of(&ask("900"));
    assert!(call(&up, "tasks/cancel", json!({ "taskId": cancelled }))["result"].is_object());
    assert_eq!(get(&up, &cancelled)["result"]["status"], "cancelled");
    assert!(waiting(&up).is_empty());
    let unknown = format!("{}{}", &task[..task.len() - 4], "0000");
    assert_eq!(get(&up, &unknown)["error"]["code"], -32_602);
    assert_eq!(gateway.journal().len(), 1);
    let all = events(&gateway.data());
    let settled: Vec<&Value> = all.iter().filter(|event| event["type"] == "call.settled").collect();
    assert_eq!((settled.len(), settled[0]["data"]["state"].as_str()), (1, Some("completed")));
    let id = &settled[0]["data"]["call_id"];
    let asked = all.iter().find(|e| e["type"] == "call.outcome" && e["data"]["call_id"] == *id).expect("it ended");
    assert_eq!((&asked["data"]["outcome"], &asked["data"]["effect"]), (&json!("accepted"), &json!("none")));
    up.end();
}

#[test]
fn a_client_of_2025_11_25_that_opens_addresses_gets_the_error_that_says_so() {
    let gateway = Orders::new(ASK, "");
    let up = gateway.up();
    let mut agent = Agent::new(&up.gateway, "orders");
    let can = json!({ "elicitation": { "url": {} } });
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": can, "clientInfo": { "name": "t", "version": "1" } });
    let welcome = answer(agent.post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params })));
    agent.session = welcome.header("mcp-session-id").expect("a session");
    answer(agent.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })));
    let told = agent.call("refund_order", &refund("700"));
    assert_eq!(told["error"]["code"], -32_042, "{told}");
    let asked = &told["error"]["data"]["elicitations"][0];
    assert_eq!(asked["mode"], "url");
    let id = asked["elicitationId"].as_str().expect("an id").to_owned();
    assert!(asked["url"].as_str().expect("an address").ends_with(&format!("/console/approvals/{id}")));
    // It hears when its user's part is done.
    let listening = crate::support::open(
        &up.gateway,
        "GET /mcp/orders",
        &[("accept", "text/event-stream"), ("mcp-session-id", &agent.session), ("mcp-protocol-version", "2025-11-25")],
        "",
    );
    let heard = std::thread::spawn(move || {
        use std::io::{BufRead, BufReader};
        let lines = BufReader::new(listening).lines();
        lines.map_while(Result::ok).find(|line| line.contains("notifications/elicitation/complete"))
    });
    assert_eq!(approve(&up, &id, TOKEN, &Value::Null).status, 200);
    assert!(agent.call("refund_order", &refund("700")).get("result").is_some());
    assert_eq!(gateway.journal().len(), 1);
    let line = heard.join().expect("no panic").expect("it heard");
    assert!(line.contains(&id), "{line}");
    up.end();
}

#[test]
fn the_approvers_own_tool_is_told_signed_and_until_it_listens() {
    let told = Arc::<Mutex<Vec<(String, Value)>>>::default();
    let (seen, refused) = (told.clone(), Arc::new(AtomicUsize::new(0)));
    let count = refused.clone();
    let tool = Played::start(move |asked, stream| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            return respond(stream, 500, "text/plain", b"not now");
        }
        let signed = asked.header("webhook-signature").unwrap_or_default().to_owned();
        assert_eq!(asked.header("webhook-id"), asked.body["data"]["id"].as_str());
        seen.lock().push((signed, asked.body.clone()));
        respond(stream, 200, "text/plain", b"")
    });
    let more = format!(
        "[gateway.limits]\nhold_ms_max = 60000\n[approvals]\nwebhook = \"{}\"\nwebhook_secret = \"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"\n",
        tool.url()
    );
    let gateway = Orders::new(ASK, &more);
    let up = gateway.up();
    let agent = Agent::connect(&up.gateway, "orders");
    let asked = agent.ask("refund_order", &refund("700"));
    let (signed, body) = wait_for("the tool", || told.lock().first().cloned());
    assert!(signed.starts_with("v1,") && refused.load(Ordering::SeqCst) >= 2, "told again after it had refused");
    assert_eq!(body["type"], "approval.requested");
    assert_eq!(body["data"]["arguments"], r#"{"order_id":"order-1","amount_cents":700}"#);
    // It answers by the API.
    let id = id_of(&body["data"]);
    assert_eq!(approve(&up, &id, TOKEN, &json!({ "approver": "tool" })).status, 200);
    assert!(answer(asked).json().get("result").is_some());
    up.end();
    let bad = gateway.config.replace("webhook_secret", "#");
    fs::write(gateway.folder.path().join("cairn.toml"), bad).expect("written");
    let config = gateway.folder.path().join("cairn.toml");
    let output = run(cairn().args(["up", "--config"]).arg(&config).arg("--data").arg(gateway.data()));
    assert!(!output.status.success() && text(&output.stderr).contains("webhook_secret"), "{}", text(&output.stderr));
}
