//! Cairn opens no connection that its configuration does not name.
//!
//! Shown in a network namespace that holds loopback and nothing else, where the kernel counts what finds no way out: over a
//! whole life of `cairn up` nothing is sent that leads anywhere else, no name is looked up, and nothing on loopback is tried
//! where nobody listens. A server that the configuration does name is tried, which shows that the counters would tell.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::support::{Agent, Up, answer, cairn, events, http, orders, run, sample, text, wait_for};

/// Set for the test's second life, inside of the namespace.
const INSIDE: &str = "CAIRN_TEST_ALONE";
const NAME: &str = "alone::cairn_opens_no_connection_that_its_configuration_does_not_name";

#[test]
#[allow(clippy::print_stderr)] // what is not tested is said
fn cairn_opens_no_connection_that_its_configuration_does_not_name() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    if let Err(why) = alone(&["true"]) {
        assert!(std::env::var_os("CI").is_none(), "a network namespace cannot be had: {why}");
        eprintln!("SKIPPED: that Cairn opens no other connection is not tested: {why}");
        return;
    }
    let program = std::env::current_exe().expect("a path");
    let said = alone(&[program.to_str().expect("text"), "--exact", NAME, "--nocapture"]);
    let said = said.unwrap_or_else(|said| panic!("{said}"));
    assert!(said.contains("1 passed"), "{said}");
}

/// Runs a program in a namespace of its own, which has loopback and nothing else.
fn alone(words: &[&str]) -> Result<String, String> {
    let mut command = Command::new("unshare");
    command.args(["-rn", "--", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]).args(words).env(INSIDE, "1");
    let output = command.output().map_err(|error| format!("unshare: {error}"))?;
    let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(said) }
}

/// What the kernel has counted in this namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Counted {
    /// Packets and connections that lead nowhere, of both families.
    no_route: u64,
    /// Datagrams, of both families: looking up a name takes one.
    datagrams: u64,
    /// Connections that nobody took.
    refused: u64,
}

impl Counted {
    fn now() -> Self {
        let four = fs::read_to_string("/proc/self/net/snmp").expect("it is there");
        let six = fs::read_to_string("/proc/self/net/snmp6").unwrap_or_default();
        let of_four = |layer: &str, name: &str| {
            let mut lines = four.lines().filter_map(|line| line.strip_prefix(layer)?.strip_prefix(": "));
            let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
            let mut pairs = names.split(' ').zip(values.split(' '));
            let value = pairs.find(|(key, _)| *key == name).unwrap_or_else(|| panic!("no {name}: {four}")).1;
            value.parse::<u64>().expect("a number")
        };
        let of_six = |name: &str| {
            let mut pairs = six.lines().filter_map(|line| line.split_once(char::is_whitespace));
            pairs.find(|(key, _)| *key == name).map_or(0, |(_, value)| value.trim().parse::<u64>().expect("a number"))
        };
        Self {
            no_route: of_four("Ip", "OutNoRoutes") + of_six("Ip6OutNoRoutes"),
            datagrams: of_four("Udp", "OutDatagrams") + of_six("Udp6OutDatagrams"),
            refused: of_four("Tcp", "AttemptFails"),
        }
    }
}

fn inside() {
    let interfaces = fs::read_to_string("/proc/self/net/dev").expect("it is there");
    let count = interfaces.lines().filter(|line| line.contains(':')).count();
    assert_eq!(count, 1, "loopback and nothing else: {interfaces}");
    assert_eq!(Counted::now(), Counted::default(), "nothing has happened here yet");
    let folder = tempfile::tempdir().expect("a folder");
    serves_and_asks_nobody(folder.path());
    let before = Counted::now();
    assert_eq!(before, Counted::default(), "something was tried that the configuration does not name");
    tries_what_is_named(folder.path());
    assert!(Counted::now().no_route > 0, "the counters tell nothing: {:?}", Counted::now());
}

/// A whole life: start, calls over HTTP and by a pipe, the trail, the admin address, the end.
fn serves_and_asks_nobody(folder: &std::path::Path) {
    let data = folder.join("data");
    let up = Up::start(&data, &["--config", &orders(folder).display().to_string()]);
    let agent = Agent::connect(&up.gateway, "orders");
    for _ in 0..3 {
        let said = agent.call("get_order", &json!({ "order_id": "order-1" }));
        assert!(said["result"].is_object(), "{said}");
    }
    let recorded = wait_for("outcomes", || {
        let all: Vec<Value> = events(&data);
        (all.iter().filter(|event| event["type"] == "call.outcome").count() >= 4).then_some(all)
    });
    assert!(recorded.iter().any(|event| event["type"] == "policy.loaded" || event["type"] == "call.decision"));
    assert_eq!(http(&up.admin, "GET /metrics", &[], "").status, 200);
    let workflow = recorded.iter().find_map(|event| event["data"]["workflow_id"].as_str()).expect("a workflow");
    let trail = run(cairn().args(["trail", workflow, "--data"]).arg(&data));
    assert!(trail.status.success(), "{}", text(&trail.stderr));
    drop(agent);
    up.end();
}

/// A server at an address that no route leads to from here.
fn tries_what_is_named(folder: &std::path::Path) {
    let words = sample(&folder.join("journal.txt"));
    let servers = json!({ "mcpServers": {
        "orders": { "command": words[0], "args": words[1..] },
        "away": { "type": "http", "url": "http://192.0.2.1/mcp" },
    } });
    let config = folder.join("named.json");
    fs::write(&config, servers.to_string()).expect("written");
    let up = Up::start(&folder.join("other"), &["--config", &config.display().to_string()]);
    let agent = Agent::new(&up.gateway, "away");
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let said = answer(agent.post(&json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params })));
    assert!(said.json()["error"].is_object(), "{said:?}");
    up.end();
}
