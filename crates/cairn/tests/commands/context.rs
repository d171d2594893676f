//! What the context consumer knows, as its users ask it: operators at the admin address, agents by MCP, behind the gateway and on
//! standard streams. Nobody sees anybody else's, a crash changes nothing, and no answer holds a payload.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    approvals,
    freshness::Orders,
    identity::{hello, key},
    support::{Agent, Answer, Client, TOKEN, Up, cairn, events, http, run, text, wait_for},
};

const POLICIES: &str = r#"
@id("all") permit (principal, action, resource);
@id("no-drops") forbid (principal, action == Action::"tools/call", resource == Tool::"orders/drop_order");
@id("not-for-mallory") forbid (principal == Workload::"key/mallory", action, resource in Server::"cairn");
"#;
/// What a payload holds and no answer may.
const PAYLOAD: &str = "pAyl0ad-that-stays-out";
const KEYS: &str = "[identity]\napi_keys = true\n[tenants]\nseparate = [\"globex\"]\n";
const OWN: &str = "[servers.cairn]\ntype = \"cairn\"\n";

struct Stage {
    folder: tempfile::TempDir,
    orders: Orders,
    up: Up,
}

impl Stage {
    fn start(more: &str) -> Self {
        let (folder, orders) = (tempfile::tempdir().expect("a folder"), Orders::start());
        fs::create_dir_all(folder.path().join("policies")).expect("a folder");
        fs::write(folder.path().join("policies/p.cedar"), POLICIES).expect("written");
        fs::write(folder.path().join("cairn.toml"), orders.config(more)).expect("written");
        let up = started(folder.path());
        Self { folder, orders, up }
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    /// What the admin address says of that.
    fn asked(&self, path: &str) -> Answer {
        let authorization = format!("Bearer {TOKEN}");
        http(&self.up.admin, &format!("GET /context/{path}"), &[("authorization", &authorization)], "")
    }

    fn list(&self, path: &str, member: &str) -> Option<Vec<Value>> {
        let answer = self.asked(path);
        (answer.status == 200).then(|| answer.json()[member].as_array().expect("a list").clone())
    }

    /// The context once it holds that many changes.
    fn settled(&self, changes: usize) -> [Vec<Value>; 3] {
        wait_for("the context", || {
            let all = self.list("changes?since=1h", "changes")?;
            let reads = events(&self.data()).iter().filter(|event| event["type"] == "context.read").count();
            let known = self.list("seen", "seen")?;
            (all.len() == changes && reads > 0 && !known.is_empty())
                .then(|| [all, known, self.list("resources", "resources").expect("resources")])
        })
    }
}

fn started(folder: &Path) -> Up {
    Up::start(&folder.join("data"), &["--config", &folder.join("cairn.toml").display().to_string()])
}

/// Somebody with a key, at one server behind the gateway.
struct Keyed<'s> {
    up: &'s Up,
    server: &'s str,
    key: &'s str,
    workflow: &'s str,
    session: String,
}

impl<'s> Keyed<'s> {
    fn connect(up: &'s Up, server: &'s str, key: &'s str, workflow: &'s str) -> Self {
        let mut keyed = Self { up, server, key, workflow, session: String::new() };
        let welcome = keyed.post(&hello());
        keyed.session = welcome.header("mcp-session-id").unwrap_or_else(|| panic!("no session: {welcome:?}"));
        keyed
    }

    fn post(&self, message: &Value) -> Answer {
        let authorization = format!("Bearer {}", self.key);
        let mut headers = vec![
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("authorization", authorization.as_str()),
        ];
        if !self.workflow.is_empty() {
            headers.push(("cairn-workflow-id", self.workflow));
        }
        if !self.session.is_empty() {
            headers.extend([("mcp-session-id", self.session.as_str()), ("mcp-protocol-version", "2025-11-25")]);
        }
        http(&self.up.gateway, &format!("POST /mcp/{}", self.server), &headers, &message.to_string())
    }

    fn ask(&self, method: &str, params: &Value) -> Value {
        self.post(&json!({ "jsonrpc": "2.0", "id": 5, "method": method, "params": params })).json()
    }

    fn call(&self, tool: &str, arguments: &Value) -> Value {
        self.ask("tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// What a tool of Cairn's answers, or its error in words.
    fn told(&self, tool: &str, arguments: &Value) -> Result<Value, String> {
        told(&self.call(tool, arguments))
    }
}

fn told(answer: &Value) -> Result<Value, String> {
    let result = &answer["result"];
    let words = result["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {answer}"));
    assert!(!answer.to_string().contains(PAYLOAD), "{answer}");
    if result["isError"] == true {
        return Err(words.to_owned());
    }
    assert_eq!(serde_json::from_str::<Value>(words).expect("JSON"), result["structuredContent"]);
    Ok(result["structuredContent"].clone())
}

#[test]
fn operators_see_the_freshest_versions_who_has_seen_them_and_what_changed() {
    let stage = Stage::start("");
    let one = Agent::named("one", &stage.up.gateway, "orders");
    let two = Agent::named("two", &stage.up.gateway, "orders");
    one.call("get_order", &json!({ "id": "1", "note": PAYLOAD }));
    two.call("get_order", &json!({ "id": "1" }));
    one.call("set_order", &json!({ "id": "1" }));
    two.call("get_order", &json!({ "id": "2" }));
    let seen = wait_for("what was seen", || stage.list("seen?limit=100", "seen").filter(|seen| seen.len() == 3));
    let view =
        |agent: &str, uri: &str| seen.iter().find(|one| one["agent"] == agent && one["uri"] == uri).expect("seen");
    assert_eq!(view("one", "order://1")["how"], "wrote");
    assert_eq!(
        (&view("one", "order://1")["version"], &view("one", "order://1")["is_stale"]),
        (&json!("2"), &json!(false))
    );
    let stale = view("two", "order://1");
    assert_eq!((&stale["version"], &stale["freshest"], &stale["is_stale"]), (&json!("1"), &json!("2"), &json!(true)));
    let freshest = stage.list("resources?server=orders&uri=order%3A%2F%2F1", "resources").expect("resources");
    let told = &freshest[0];
    assert_eq!(
        (freshest.len(), &told["version"], &told["how"], &told["cause"]),
        (1, &json!("2"), &json!("changed"), &json!("write"))
    );
    // By which event, as a Kafka consumer finds it.
    let place = |event: &Value| json!([event["topic"], event["partition"], event["offset"]]);
    let trail = events(&stage.data());
    let event = trail.iter().find(|event| place(event) == place(&told["event"])).expect("it lies there");
    assert_eq!((&event["type"], &event["data"]["version"]), (&json!("context.changed"), &json!("2")));
    let changes = stage.list("changes?since=1h&uri_prefix=order", "changes").expect("changes");
    assert_eq!((changes.len(), &changes[0]["cause"], &changes[0]["uri"]), (1, &json!("write"), &json!("order://1")));
    assert_eq!(stage.list("changes?since=1h&server=other", "changes").expect("changes").len(), 0);

    // A page at a time.
    let first = stage.asked("seen?limit=1").json();
    let next = first["next"].as_str().expect("there are more");
    let next: String = next.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let second = stage.asked(&format!("seen?limit=1&cursor={next}")).json();
    assert_eq!((second["seen"].as_array().map(Vec::len), first["seen"] == second["seen"]), (Some(1), false));

    for (path, status, words) in [
        ("changes", 400, "say since"),
        ("changes?since=yesterday", 400, "since: write"),
        ("resources?limit=100000", 400, "limit is a number"),
        ("resources?sql=x", 400, "there is no"),
        ("resources?cursor=x", 400, "cursor"),
        ("resources?server=a&server=b", 400, "twice"),
        ("refusals", 400, "call_id or workflow_id"),
        ("everything", 400, "ask for resources"),
        ("workflow?workflow_id=nothing", 404, "there is no workflow"),
    ] {
        let refused = stage.asked(path);
        let said = refused.json()["error"].as_str().unwrap_or_default().to_owned();
        assert!(refused.status == status && said.contains(words), "{path}: {refused:?}");
    }
    assert_eq!(http(&stage.up.admin, "GET /context/resources", &[], "").status, 401);
    let made = run(cairn().args(["operator", "add", "ann", "--roles", "approve", "--data"]).arg(stage.data()));
    let said = text(&made.stdout);
    let token = said.split_whitespace().find(|word| word.starts_with("cairn-op-")).expect("a token");
    let authorization = format!("Bearer {token}");
    let refused = http(&stage.up.admin, "GET /context/resources", &[("authorization", &authorization)], "");
    assert!(refused.status == 403 && refused.body.contains("view"), "{refused:?}");

    // It is a consumer as any other.
    let lag = wait_for("no lag", || {
        let said = run(cairn().args(["lag", "--json", "--data"]).arg(stage.data()));
        let said: Value = serde_json::from_slice(&said.stdout).ok()?;
        said["groups"].as_array()?.iter().find(|group| group["group"] == "cairn-context").cloned()
    });
    assert_eq!(lag["members"], 1);
    let consumer = |words: &[&str]| {
        let output =
            run(cairn().arg("consumer").args(words).arg("--data").arg(stage.data()).env("CAIRN_OPERATOR_TOKEN", TOKEN));
        assert!(output.status.success(), "{words:?}: {}", text(&output.stderr));
    };
    consumer(&["pause", "context"]);
    consumer(&["resume", "context"]);
    consumer(&["seek", "context", "--to", "1h"]);
    one.call("set_order", &json!({ "id": "2" }));
    wait_for("what comes after it was moved", || {
        let changes = stage.list("changes?since=1h", "changes")?;
        (changes.len() == 2).then_some(())
    });
    let replayed = run(cairn()
        .args(["replay", "--group", "context", "--json", "--data"])
        .arg(stage.data())
        .env("CAIRN_OPERATOR_TOKEN", TOKEN));
    let said: Value = serde_json::from_slice(&replayed.stdout).unwrap_or_else(|_| panic!("{}", text(&replayed.stderr)));
    assert_eq!((&said["outcome"], &said["changed"]), (&json!("completed"), &json!(0)), "{said}");
    assert!(said["replaced"].as_u64() > Some(0), "{said}");
    assert_eq!(stage.orders.calls(), 5);
    stage.up.end();
}

#[test]
fn an_agent_asks_cairn_itself_is_governed_and_sees_nothing_of_anybody_elses() {
    let stage = Stage::start(&format!("{KEYS}{OWN}"));
    let made = |who: &str, tenant: &str| key(&stage.data(), &["--principal", who, "--tenant", tenant]).1;
    let (ada, eve, bob) = (made("ada", "acme"), made("eve", "acme"), made("ada", "globex"));
    let mallory = made("mallory", "acme");
    let at = |key: &str, workflow: &str| {
        let orders = Keyed::connect(&stage.up, "orders", key, workflow);
        orders.call("get_order", &json!({ "id": "1", "note": PAYLOAD }));
        let denied = orders.call("drop_order", &json!({ "id": "1", "note": PAYLOAD }));
        assert!(denied["error"]["message"].as_str().is_some_and(|words| words.contains("no-drops")), "{denied}");
    };
    at(&ada, "wf-ada");
    let asks = Keyed::connect(&stage.up, "cairn", &ada, "");
    let refusal = wait_for("the refusal", || {
        let told = asks.told("why_refused", &json!({ "workflow_id": "wf-ada" })).ok()?;
        told["refusals"].as_array().and_then(|all| all.iter().find(|one| one["outcome"] == "denied")).cloned()
    });
    assert_eq!(refusal["determining_policies"], json!(["no-drops"]));
    assert!(refusal["why"].as_str().is_some_and(|why| why.contains("denied by policy no-drops")), "{refusal}");
    let call_id = refusal["call_id"].as_str().expect("an id").to_owned();
    let by_call = asks.told("why_refused", &json!({ "call_id": call_id })).expect("an answer");
    assert_eq!(by_call["refusals"][0]["event"], refusal["event"]);
    let shown = wait_for("the whole workflow", || {
        let shown = asks.told("show_workflow", &json!({ "workflow_id": "wf-ada" })).expect("an answer");
        let calls = shown["calls"].as_array().expect("calls");
        (calls.len() >= 2 && calls.iter().all(|call| !call["outcome"].is_null())).then_some(shown)
    });
    let dropped =
        shown["calls"].as_array().expect("calls").iter().find(|call| call["call_id"] == *call_id).expect("it");
    assert_eq!((&dropped["decision"]["decision"], &dropped["intent"]), (&json!("deny"), &Value::Null));
    assert!(dropped["events"][0]["offset"].is_u64() && dropped["events"][0].get("data").is_none(), "{dropped}");
    let freshest = wait_for("what she read", || {
        let told = asks.told("freshest", &json!({ "uri": "order://1" })).expect("an answer");
        (told["resources"].as_array().map(Vec::len) == Some(1)).then_some(told)
    });
    assert_eq!(freshest["resources"][0]["version"], "1");

    // So does a client of the other era, whose requests describe themselves.
    let authorization = format!("Bearer {ada}");
    let late = approvals::modern(
        &stage.up.gateway,
        "cairn",
        "tools/call",
        &json!({ "name": "freshest", "arguments": { "uri": "order://1" } }),
        &json!({}),
        &[("authorization", &authorization)],
    );
    let told = told(&late).expect("an answer");
    assert_eq!((&told["resources"], &late["result"]["resultType"]), (&freshest["resources"], &json!("complete")));

    // Resources say the same.
    let read = |asks: &Keyed<'_>, uri: &str| asks.ask("resources/read", &json!({ "uri": uri }));
    let listed = asks.ask("resources/list", &json!({}));
    let uris: Vec<&str> = listed["result"]["resources"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["uri"].as_str())
        .collect();
    assert!(uris.contains(&"cairn://workflow/wf-ada"), "{uris:?}");
    let whole = read(&asks, "cairn://workflow/wf-ada");
    assert!(whole["result"]["contents"][0]["text"].as_str().is_some_and(|text| text.contains(&call_id)), "{whole}");
    let version = read(&asks, "cairn://context/orders/order://1");
    assert!(
        version["result"]["contents"][0]["text"].as_str().is_some_and(|text| text.contains("\"version\":\"1\"")),
        "{version}"
    );
    let templates = asks.ask("resources/templates/list", &json!({}));
    assert_eq!(templates["result"]["resourceTemplates"].as_array().map(Vec::len), Some(2), "{templates}");

    // Nobody else: of the same tenant, of the same name in another tenant.
    for key in [&eve, &bob] {
        let other = Keyed::connect(&stage.up, "cairn", key, "");
        for (tool, arguments) in [
            ("why_refused", json!({ "workflow_id": "wf-ada" })),
            ("why_refused", json!({ "call_id": call_id })),
            ("show_workflow", json!({ "workflow_id": "wf-ada" })),
        ] {
            let refused = other.told(tool, &arguments).expect_err("it is not theirs");
            assert!(refused.starts_with("there is no "), "{tool}: {refused}");
        }
        for (tool, arguments, member) in [
            ("freshest", json!({ "uri": "order://1" }), "resources"),
            ("what_changed", json!({ "since": "1h" }), "changes"),
            ("what_was_seen", json!({ "server": "orders" }), "seen"),
        ] {
            let told = other.told(tool, &arguments).expect("an answer");
            assert_eq!(told[member], json!([]), "{tool}: {told}");
        }
        let refused = other.told("what_was_seen", &json!({ "principal": "key/ada" })).expect_err("not theirs to ask");
        assert!(refused.contains("there is no \"principal\""), "{refused}");
        for uri in ["cairn://workflow/wf-ada", "cairn://context/orders/order://1"] {
            assert!(read(&other, uri).get("error").is_some(), "{uri}");
        }
        let listed = other.ask("resources/list", &json!({}));
        let all = listed["result"]["resources"].as_array().expect("a list");
        // What is told of their own questions may hold the word; they asked for it.
        let is_hers = |one: &Value| [&one["uri"], &one["name"]].iter().any(|told| told.to_string().contains("wf-ada"));
        assert!(!all.iter().any(is_hers), "{listed}");
    }
    // Of a workflow of the same name each sees their own part.
    at(&bob, "wf-ada");
    let bobs = Keyed::connect(&stage.up, "cairn", &bob, "");
    wait_for("the other's own", || bobs.told("show_workflow", &json!({ "workflow_id": "wf-ada" })).ok());
    let theirs = bobs.told("why_refused", &json!({ "workflow_id": "wf-ada" })).expect("an answer");
    assert!(!theirs.to_string().contains(&call_id), "{theirs}");

    // That it was asked is decided and recorded as any other call.
    let kept_out = Keyed::connect(&stage.up, "orders", &mallory, "");
    assert!(kept_out.call("get_order", &json!({ "id": "2" })).get("result").is_some());
    let out = Keyed { session: String::new(), server: "cairn", ..kept_out };
    let refused = out.post(&hello()).json();
    assert!(refused["error"]["message"].as_str().is_some_and(|words| words.contains("not-for-mallory")), "{refused}");
    let recorded = wait_for("the questions", || {
        let all = events(&stage.data());
        let is = |event: &&Value| event["type"] == "call.outcome" && event["data"]["server"] == "cairn";
        let asked = all.iter().filter(is).filter(|event| {
            event["data"]["gen_ai_tool_name"] == "why_refused" || event["data"]["mcp_method_name"] == "tools/call"
        });
        let of = asked.filter(|event| event["data"]["principal"] == "key/eve").count();
        (of >= 6).then_some(of)
    });
    assert!(recorded >= 6);
    stage.up.end();
}

/// A request of 2026-07-28.
fn modern(mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": { "name": "t", "version": "1" },
    });
    params
}

#[test]
fn on_standard_streams_clients_of_both_eras_ask_and_bad_input_gets_a_clear_error() {
    let stage = Stage::start("");
    let agent = Agent::connect_in("wf-1", &stage.up.gateway, "orders");
    agent.call("get_order", &json!({ "id": "1", "note": PAYLOAD }));
    agent.call("drop_order", &json!({ "id": "1", "note": PAYLOAD }));
    let client = |more: &[&str]| {
        let mut command = cairn();
        command.arg("mcp").args(more).arg("--data").arg(stage.data()).env("CAIRN_OPERATOR_TOKEN", TOKEN);
        Client::start(&mut command)
    };
    let mut here = client(&[]);
    let welcome = here.initialize();
    assert_eq!(welcome["result"]["serverInfo"]["name"], "cairn");
    let tools = here.request("tools/list", json!({}));
    let names: Vec<&str> =
        tools["result"]["tools"].as_array().expect("tools").iter().filter_map(|tool| tool["name"].as_str()).collect();
    assert_eq!(names, ["what_changed", "freshest", "what_was_seen", "why_refused", "show_workflow"]);
    wait_for("the refusal", || {
        let told = told(&here.call("why_refused", json!({ "workflow_id": "wf-1" }))).ok()?;
        (told["refusals"][0]["error_type"] == "denied").then_some(())
    });
    // The same by the admin address.
    let admin = stage.up.admin.clone();
    let mut there = client(&["--admin", &admin]);
    there.initialize();
    for (tool, arguments) in [
        ("why_refused", json!({ "workflow_id": "wf-1" })),
        ("show_workflow", json!({ "workflow_id": "wf-1", "limit": 1 })),
        ("freshest", json!({ "uri": "order://1", "server": "orders" })),
    ] {
        let alike = wait_for("the same", || {
            let (near, far) = (told(&here.call(tool, arguments.clone())), told(&there.call(tool, arguments.clone())));
            (near == far).then_some(near)
        });
        assert!(alike.is_ok(), "{tool}: {alike:?}");
    }
    // Whoever is named sees their own, and nobody else's.
    for more in [&["--principal", "nobody"][..], &["--tenant", "acme"], &["--principal", "nobody", "--admin", &admin]] {
        let mut narrow = client(more);
        narrow.initialize();
        let refused = told(&narrow.call("show_workflow", json!({ "workflow_id": "wf-1" }))).expect_err("not theirs");
        assert!(refused.starts_with("there is no workflow"), "{more:?}: {refused}");
    }
    // Requests that describe themselves, without a handshake.
    let mut late = client(&[]);
    let found = late.request("server/discover", modern(json!({})));
    assert_eq!(found["result"]["supportedVersions"], json!(["2026-07-28"]), "{found}");
    let called =
        late.request("tools/call", modern(json!({ "name": "show_workflow", "arguments": { "workflow_id": "wf-1" } })));
    assert_eq!((told(&called).is_ok(), &called["result"]["resultType"]), (true, &json!("complete")), "{called}");
    let read = late.request("resources/read", modern(json!({ "uri": "cairn://workflow/nothing" })));
    assert_eq!(read["error"]["code"], -32602, "{read}");

    for (tool, arguments, words) in [
        ("what_changed", json!({}), "say since"),
        ("what_changed", json!({ "since": "soon" }), "since: write"),
        ("freshest", json!({ "uri": 7 }), "uri is a text"),
        ("freshest", json!({ "uri": ["x"] }), "uri is a text"),
        ("show_workflow", json!({ "workflow_id": "wf-1", "more": 1 }), "there is no \"more\""),
        ("why_refused", json!({}), "call_id or workflow_id"),
    ] {
        let said = match told(&here.call(tool, arguments.clone())) {
            Ok(answer) => answer.to_string(),
            Err(words) => words,
        };
        assert!(said.contains(words), "{tool} {arguments}: {said}");
    }
    assert_eq!(here.call("drop_table", json!({}))["error"]["code"], -32602);
    assert_eq!(here.request("tasks/list", json!({}))["error"]["code"], -32601);
    assert_eq!(here.request("resources/read", json!({ "uri": "file:///etc/passwd" }))["error"]["code"], -32002);
    here.send_line("{\"jsonrpc\":");
    assert_eq!(here.line().expect("an answer")["error"]["code"], -32700);
    let (status, errors) = here.close();
    assert!(status.success(), "{errors}");
    stage.up.end();
    // Without an `up` the database still answers.
    let mut alone = Client::start(cairn().arg("mcp").arg("--data").arg(stage.folder.path().join("data")));
    alone.initialize();
    assert!(told(&alone.call("show_workflow", json!({ "workflow_id": "wf-1" }))).is_ok());
    let mut nothing = Client::start(cairn().arg("mcp").arg("--data").arg(stage.folder.path().join("none")));
    nothing.initialize();
    let words = told(&nothing.call("freshest", json!({ "uri": "x:y" }))).expect_err("nothing is there");
    assert!(words.contains("there is no context at"), "{words}");
}

#[test]
fn a_resource_whose_name_is_masked_is_found_by_its_own_and_shown_by_the_other() {
    let stage = Stage::start(OWN);
    let agent = Agent::connect(&stage.up.gateway, "orders");
    for who in ["ann@example.com", "bob@example.com"] {
        agent.call("get_order", &json!({ "id": who }));
        agent.call("set_order", &json!({ "id": who }));
    }
    let path = "resources?uri=order%3A%2F%2Fann%2540example.com";
    let found = wait_for("the resource", || stage.list(path, "resources").filter(|found| found.len() == 1));
    let shown = found[0]["uri"].as_str().expect("a text");
    assert!(shown.contains("[masked:email]") && !shown.contains("ann"), "{shown}");
    let asks = Agent::connect(&stage.up.gateway, "cairn");
    for uri in ["order://ann%40example.com", shown] {
        let told = told(&asks.call("freshest", &json!({ "uri": uri }))).expect("an answer");
        assert_eq!(
            (told["resources"].as_array().map(Vec::len), &told["resources"][0]["uri"]),
            (Some(1), &json!(shown))
        );
    }
    let all = wait_for("both changes", || {
        let all = stage.asked("changes?since=1h").body;
        (all.matches("\"cause\":\"write\"").count() == 2).then_some(all)
    });
    assert!(!all.contains("ann@") && !all.contains("ann%40"), "{all}");
    stage.up.end();
}

#[test]
fn a_kill_changes_nothing_and_what_is_made_again_from_the_trail_is_the_same() {
    let mut stage = Stage::start("");
    let agent = Agent::connect_in("wf-1", &stage.up.gateway, "orders");
    for _ in 0..3 {
        agent.call("get_order", &json!({ "id": "1" }));
        agent.call("set_order", &json!({ "id": "1" }));
    }
    agent.call("get_order", &json!({ "id": "1" }));
    let quiet = |stage: &Stage| {
        wait_for("everything", || {
            let trail = events(&stage.data());
            let reads = trail.iter().filter(|event| event["type"] == "context.read").count();
            let now = stage.settled(3);
            (reads == 4 && now[2][0]["how"] == "read" && now[1][0]["how"] == "read").then_some(now)
        })
    };
    let before = quiet(&stage);
    stage.up.process.signal("-KILL");
    stage.up.process.wait();
    stage.up = started(stage.folder.path());
    assert_eq!(quiet(&stage), before, "a kill neither misses nor repeats");
    stage.up.process.signal("-KILL");
    stage.up.process.wait();
    let database = stage.data().join("consumers/context.sqlite");
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{end}", database.display()));
    }
    stage.up = started(stage.folder.path());
    assert_eq!(quiet(&stage), before, "it is made again from the trail");
    stage.up.end();
}

#[test]
fn the_check_of_consumers_finds_context_ready() {
    let mut command = cairn();
    command.args(["consumer", "check", "context", "--events", "3000", "--rate", "100", "--json"]);
    let output = run(&mut command);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    assert_eq!((output.status.code(), &said["ready"]), (Some(0), &json!(true)), "{said}");
}

#[test]
fn a_server_of_cairns_own_takes_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("cairn.toml");
    for (more, words) in [
        ("command = \"x\"\n", "remove one of them"),
        ("url = \"http://127.0.0.1:1/\"\n", "remove one of them"),
        ("tools = { x = {} }\n", "remove one of them"),
    ] {
        fs::write(&config, format!("{OWN}{more}")).expect("written");
        let output = run(cairn().arg("up").arg("--config").arg(&config).arg("--data").arg(folder.path().join("data")));
        assert!(!output.status.success() && text(&output.stderr).contains(words), "{more}: {}", text(&output.stderr));
    }
    fs::write(&config, "[consumers]\naudit = { group = \"g\" }\ncontext = { group = \"g\", events_max = 10 }\n")
        .expect("written");
    let output = run(cairn().arg("up").arg("--config").arg(&config).arg("--data").arg(folder.path().join("data")));
    assert!(text(&output.stderr).contains("are the same"), "{}", text(&output.stderr));
}
