//! The freshness guard, end to end: what is known to be stale is not acted on, and the refusal says how to go on.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    bounds::gauge,
    played::{Asked, GoesOn, Played, respond, well_with_sessions},
    support::{Agent, Process, TOKEN, Up, cairn, events, http, run, text, wait_for},
};

/// What its tools do, as an operator declares it.
const DECLARED: &str = r#"
[servers.orders.tools.get_order]
reads = [{ uri = "order://{arguments/id}", version = "{result/structuredContent/version}" }]

[servers.orders.tools.list_orders]
reads = [{ uri = "order://{result/structuredContent/orders/*/id}", version = "{result/structuredContent/orders/*/version}" }]

[servers.orders.tools.set_order]
depends = ["order://{arguments/id}"]
writes = [{ uri = "order://{arguments/id}", version = "{result/structuredContent/version}" }]
"#;

const POLICIES: &str = r#"
@id("all")
permit (principal, action, resource);

@id("nobody-acts-on-the-past")
forbid (principal, action == Action::"tools/call", resource)
when { context has freshness && context.freshness.state != "fresh" };
"#;

/// A server with orders that have versions; `stop` lets the next write wait and then end without an answer.
pub(crate) struct Orders {
    server: Played,
    versions: Arc<Mutex<BTreeMap<String, u64>>>,
    lost: Arc<AtomicBool>,
}

impl Orders {
    pub(crate) fn start() -> Self {
        let versions = Arc::new(Mutex::new(BTreeMap::from([("1".to_owned(), 1), ("2".to_owned(), 1)])));
        let lost = Arc::new(AtomicBool::new(false));
        let (state, loses) = (versions.clone(), lost.clone());
        let server = Played::start(move |asked, stream| serve(asked, stream, &state, &loses));
        Self { server, versions, lost }
    }

    /// How many calls came.
    pub(crate) fn calls(&self) -> usize {
        self.server.calls()
    }

    pub(crate) fn config(&self, more: &str) -> String {
        format!("[servers.orders]\nurl = \"{}\"\n{DECLARED}\n{more}", self.server.url())
    }
}

fn serve(asked: &Asked, stream: &mut TcpStream, state: &Mutex<BTreeMap<String, u64>>, loses: &AtomicBool) -> GoesOn {
    if asked.rpc() != "tools/call" {
        return well_with_sessions(asked, stream);
    }
    let params = &asked.body["params"];
    let id = params["arguments"]["id"].as_str().unwrap_or_default().to_owned();
    let mut versions = state.lock();
    let structured = match params["name"].as_str() {
        Some("list_orders") => {
            let one = |(id, version): (&String, &u64)| json!({ "id": id, "version": version });
            json!({ "orders": versions.iter().map(one).collect::<Vec<_>>() })
        }
        Some("set_order") => {
            if loses.swap(false, Ordering::SeqCst) {
                return false;
            }
            let version = versions.entry(id.clone()).or_default();
            *version += 1;
            json!({ "id": id, "version": *version })
        }
        _ => json!({ "id": id, "version": versions.get(&id) }),
    };
    let result = json!({ "content": [], "structuredContent": structured });
    let answer = json!({ "jsonrpc": "2.0", "id": asked.body["id"], "result": result });
    respond(stream, 200, "application/json", answer.to_string().as_bytes())
}

fn written(folder: &Path, config: &str) -> String {
    fs::create_dir_all(folder.join("policies")).expect("a folder");
    fs::write(folder.join("policies/guard.cedar"), POLICIES).expect("written");
    fs::write(folder.join("cairn.toml"), config).expect("written");
    folder.join("cairn.toml").display().to_string()
}

/// A gateway whose guard has read what there is.
fn up(folder: &Path, orders: &Orders) -> Up {
    let config = written(folder, &orders.config(""));
    let up = Up::start(&folder.join("data"), &["--config", &config]);
    wait_for("the guard to catch up", || (gauge(&up, "cairn_guard_lag_seconds") < 2.0).then_some(()));
    up
}

fn order(id: &str) -> Value {
    json!({ "id": id })
}

/// The states of a refusal, by resource; nothing where the call went through.
fn refused(answer: &Value) -> Vec<(String, String)> {
    let all = answer["error"]["data"]["freshness"].as_array().cloned().unwrap_or_default();
    let text = |one: &Value, key: &str| one[key].as_str().unwrap_or_default().to_owned();
    all.iter().map(|one| (text(one, "mcp_resource_uri"), text(one, "state"))).collect()
}

fn state(uri: &str, state: &str) -> Vec<(String, String)> {
    vec![(uri.to_owned(), state.to_owned())]
}

#[test]
fn a_stale_write_is_stopped_and_succeeds_after_a_fresh_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let orders = Orders::start();
    let up = up(folder.path(), &orders);
    let one = Agent::named("one", &up.gateway, "orders");
    let two = Agent::named("two", &up.gateway, "orders");
    // What was never read is unknown, and the refusal says what to do.
    let unread = one.call("set_order", &order("1"));
    assert_eq!(refused(&unread), state("order://1", "unknown"), "{unread}");
    assert!(unread["error"]["message"].as_str().is_some_and(|words| words.contains("read it first")), "{unread}");
    one.call("get_order", &order("1"));
    two.call("list_orders", &json!({}));
    // One changes it; the other's knowledge is old by then.
    let written = one.call("set_order", &order("1"));
    assert_eq!(written["result"]["structuredContent"]["version"], 2, "{written}");
    let stopped = two.call("set_order", &order("1"));
    let mut told = stopped["error"]["data"]["freshness"][0].clone();
    assert!(told["age_ms"].is_u64(), "{told}");
    told.as_object_mut().expect("an object").remove("age_ms");
    let expected = json!({ "mcp_resource_uri": "order://1", "state": "stale", "seen": "1", "known": "2" });
    assert_eq!((&told, orders.versions.lock()["1"]), (&expected, 2), "{stopped}");
    let words = stopped["error"]["message"].as_str().expect("words").to_owned();
    assert!(words.contains("you have 1") && words.contains("it is 2 by now"), "{words}");
    // The other order is none of this, and whoever wrote knows what was written.
    assert!(two.call("set_order", &order("2")).get("result").is_some());
    assert!(one.call("set_order", &order("1")).get("result").is_some());
    // A fresh session and workflow of the same agent reset nothing.
    let again = Agent::named("two", &up.gateway, "orders");
    assert_eq!(refused(&again.call("set_order", &order("1"))), state("order://1", "stale"));
    again.call("get_order", &order("1"));
    let done = again.call("set_order", &order("1"));
    assert_eq!(done["result"]["structuredContent"]["version"], 4, "{done}");
    // What cannot be named is unknown, however much was read.
    let nameless = two.call("set_order", &json!({}));
    assert_eq!(refused(&nameless), state("", "unknown"), "{nameless}");
    // What is relaxed comes a moment later.
    let recorded = wait_for("all that was written", || {
        let all = events(&folder.path().join("data"));
        let writes = all.iter().filter(|event| event["data"]["cause"] == "write").count();
        (writes == 4).then_some(all)
    });
    let of = |kind: &str| -> Vec<Value> {
        recorded.iter().filter(|event| event["type"] == kind).map(|event| event["data"].clone()).collect()
    };
    let stale = of("call.decision");
    let mut stale = stale.iter().filter(|decision| decision["freshness"][0]["state"] == "stale");
    assert!(stale.any(|one| one["decision"] == "deny" && one["freshness"][0]["known"] == "2"), "{recorded:?}");
    let writes: Vec<_> = of("call.intent").iter().filter_map(|intent| intent.get("writes").cloned()).collect();
    assert_eq!(writes.len(), 4, "{writes:?}");
    up.end();
}

#[test]
fn a_permit_that_demands_freshness_refuses_what_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let orders = Orders::start();
    let config = written(folder.path(), &orders.config(""));
    let policies = r#"
@id("rest")
permit (principal, action, resource)
unless { action == Action::"tools/call" && ["set_order", "drop_order"].contains(resource.name) };
@id("fresh-writes")
@freshness("fresh")
permit (principal, action == Action::"tools/call", resource in Server::"orders")
when { ["set_order", "drop_order"].contains(resource.name) };
@id("and-not-old")
@freshness("1h")
permit (principal, action == Action::"tools/call", resource == Tool::"orders/set_order");
"#;
    fs::write(folder.path().join("policies/guard.cedar"), policies).expect("written");
    let up = Up::start(&folder.path().join("data"), &["--config", &config]);
    wait_for("the guard to catch up", || (gauge(&up, "cairn_guard_lag_seconds") < 2.0).then_some(()));
    let agent = Agent::connect(&up.gateway, "orders");
    let unread = agent.call("set_order", &order("1"));
    assert_eq!(refused(&unread), state("order://1", "unknown"), "{unread}");
    assert_eq!(unread["error"]["data"]["determining_policies"], json!(["and-not-old", "fresh-writes"]));
    // Of what declares nothing nobody can say that it is fresh.
    let undeclared = agent.call("drop_order", &order("1"));
    assert_eq!(refused(&undeclared), state("", "unknown"), "{undeclared}");
    assert!(
        undeclared["error"]["message"].as_str().is_some_and(|words| words.contains("declares none")),
        "{undeclared}"
    );
    assert_eq!(orders.versions.lock()["1"], 1, "nothing was sent");
    agent.call("get_order", &order("1"));
    let done = agent.call("set_order", &order("1"));
    assert_eq!(done["result"]["structuredContent"]["version"], 2, "{done}");
    let recorded = wait_for("the decision", || {
        let all = events(&folder.path().join("data"));
        all.into_iter()
            .find(|event| event["type"] == "call.decision" && event["data"]["gen_ai_tool_name"] == "set_order")
    });
    assert_eq!(recorded["data"]["decision"], "deny");
    assert_eq!(recorded["data"]["obligations"], json!(["freshness"]));
    up.end();
}

#[test]
fn two_resources_whose_names_are_masked_stay_two() {
    let folder = tempfile::tempdir().expect("a folder");
    let orders = Orders::start();
    let up = up(folder.path(), &orders);
    let (ann, bob) = (order("ann@example.com"), order("bob@example.com"));
    let one = Agent::named("one", &up.gateway, "orders");
    let two = Agent::named("two", &up.gateway, "orders");
    for agent in [&one, &two] {
        agent.call("get_order", &ann);
        agent.call("get_order", &bob);
    }
    assert!(one.call("set_order", &ann).get("result").is_some());
    let other = two.call("set_order", &bob);
    assert!(other.get("result").is_some(), "{other}");
    let stopped = refused(&two.call("set_order", &ann));
    // The client is told the name that it knows; the record is not.
    assert!(matches!(&stopped[..], [(uri, state)] if uri.contains("ann") && state == "stale"), "{stopped:?}");
    let data = folder.path().join("data");
    wait_for("both writes", || {
        let all = Value::from(events(&data)).to_string();
        assert!(!all.contains("ann@example") && !all.contains("ann%40example"), "{all}");
        (all.matches("\"cause\":\"write\"").count() == 2 && all.contains("[masked:email]#hmac-sha256:")).then_some(())
    });
    up.end();
}

#[test]
fn a_write_whose_end_nobody_knows_makes_everybody_look_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let orders = Orders::start();
    let up = up(folder.path(), &orders);
    let agent = Agent::named("one", &up.gateway, "orders");
    agent.call("get_order", &order("1"));
    orders.lost.store(true, Ordering::SeqCst);
    let lost = agent.call("set_order", &order("1"));
    assert_eq!(lost["error"]["data"]["cairn"], "upstream_lost", "{lost}");
    assert_eq!(refused(&agent.call("set_order", &order("1"))), state("order://1", "stale"));
    agent.call("get_order", &order("1"));
    assert!(agent.call("set_order", &order("1")).get("result").is_some());
    up.end();
}

#[test]
fn what_was_read_before_a_restart_is_known_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let orders = Orders::start();
    let first = up(folder.path(), &orders);
    let agent = Agent::named("one", &first.gateway, "orders");
    agent.call("get_order", &order("1"));
    wait_for("the read in the trail", || {
        let read = events(&folder.path().join("data")).into_iter().any(|event| event["type"] == "context.read");
        read.then_some(())
    });
    first.end();
    let second = up(folder.path(), &orders);
    let agent = Agent::named("one", &second.gateway, "orders");
    let done = agent.call("set_order", &order("1"));
    assert!(done.get("result").is_some(), "{done}");
    second.end();
}

#[test]
fn a_change_past_cairn_counts_once_an_operator_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let orders = Orders::start();
    let up = up(folder.path(), &orders);
    let agent = Agent::named("one", &up.gateway, "orders");
    agent.call("get_order", &order("1"));
    let tell = |server: &str, token: &str| {
        let mut command = cairn();
        command.args(["changed", server, "order://1", "--version", "9", "--data"]).arg(folder.path().join("data"));
        run(command.env("CAIRN_OPERATOR_TOKEN", token))
    };
    assert!(!tell("orders", "cairn-op-somebody-else-000000").status.success());
    let unknown = tell("no-such-server", TOKEN);
    assert!(text(&unknown.stderr).contains("no-such-server"), "{unknown:?}");
    assert!(tell("orders", TOKEN).status.success());
    let stopped = agent.call("set_order", &order("1"));
    let told = &stopped["error"]["data"]["freshness"][0];
    assert_eq!((&told["state"], &told["seen"], &told["known"]), (&json!("stale"), &json!("1"), &json!("9")));
    let recorded = events(&folder.path().join("data"));
    assert!(recorded.iter().any(|event| event["data"]["cause"] == "ingested" && event["topic"] == "mcp.context"));
    up.end();
}

/// A log of its own process, and gateways that write to it.
struct Apart {
    broker: Process,
    properties: String,
    kafka: String,
}

impl Apart {
    fn start(folder: &Path) -> Self {
        let secret = "a-secret-for-the-gateways";
        let config = folder.join("broker.toml");
        let writers = format!("writers = {{ one = \"{secret}\", two = \"{secret}\" }}");
        fs::write(&config, format!("[kafka]\n{writers}\n")).expect("written");
        let data = folder.join("broker");
        let mut command = cairn();
        command.args(["broker", "--kafka", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--data"]).arg(&data);
        command.arg("--config").arg(&config);
        let log = fs::File::create(folder.join("broker.log")).expect("a file");
        command.stdout(log.try_clone().expect("a handle")).stderr(log).stdin(std::process::Stdio::null());
        let broker = Process { child: command.spawn().expect("it starts") };
        let kafka = wait_for("the broker", || {
            let said: Value = serde_json::from_slice(&fs::read(data.join("endpoints.json")).ok()?).ok()?;
            said["kafka"].as_str().map(str::to_owned)
        });
        let properties = format!(
            "\"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \"PLAIN\", \"sasl.password\" = \"{secret}\""
        );
        Self { broker, properties, kafka }
    }

    fn gateway(&self, folder: &Path, name: &str, orders: &Orders) -> Up {
        let place = folder.join(name);
        let backbone = format!(
            "[backbone]\nkind = \"kafka\"\nbootstrap = \"{}\"\nproperties = {{ {}, \"sasl.username\" = \"{name}\" }}\n",
            self.kafka, self.properties
        );
        let config = written(&place, &orders.config(&backbone));
        let data = place.join("data");
        let mut command = cairn();
        command.args(["gateway", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config", &config]);
        Up::spawn(command.arg("--data").arg(&data), &data)
    }
}

#[test]
fn a_change_that_another_gateway_saw_counts_and_a_stalled_stream_is_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let orders = Orders::start();
    let apart = Apart::start(folder.path());
    let here = apart.gateway(folder.path(), "one", &orders);
    let there = apart.gateway(folder.path(), "two", &orders);
    let one = Agent::named("one", &here.gateway, "orders");
    let two = Agent::named("two", &there.gateway, "orders");
    let reads_and_writes = |agent: &Agent| {
        wait_for("a fresh read", || {
            agent.call("get_order", &order("1"));
            agent.call("set_order", &order("1")).get("result").is_some().then_some(())
        });
    };
    reads_and_writes(&one);
    reads_and_writes(&two);
    one.call("get_order", &order("1"));
    let known = |agent: &Agent| refused(&agent.call("set_order", &order("1")));
    wait_for("what the other gateway wrote", || {
        // Another write of the second gateway's; the first hears of it by the stream alone.
        two.call("get_order", &order("1"));
        two.call("set_order", &order("1"));
        (known(&one) == state("order://1", "stale")).then_some(())
    });
    // The stream stops: what is fresh is not known any more, and that is said.
    reads_and_writes(&one);
    apart.broker.signal("-STOP");
    wait_for("the guard to notice", || (known(&one) == state("order://1", "behind")).then_some(()));
    let words = one.call("set_order", &order("1"))["error"]["message"].as_str().expect("words").to_owned();
    assert!(words.contains("behind what has happened"), "{words}");
    apart.broker.signal("-CONT");
    reads_and_writes(&one);
    let metrics = http(&here.admin, "GET /metrics", &[], "").body;
    assert!(metrics.contains("cairn_freshness_total{state=\"behind\"}"), "{metrics}");
    here.end();
    there.end();
}
