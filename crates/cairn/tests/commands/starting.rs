//! Servers that are not there (yet): a call to one that still starts waits, within bounds, and nothing is sent twice.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    bounds::{bounded, configured},
    played::{Played, Reserved, well},
    support::{Agent, Client, TOKEN, Up, answer, cairn, events, wait_for},
};

fn hello() -> Value {
    let client = json!({ "name": "test", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params })
}

fn agent(up: &Up, server: &str) -> Agent {
    Agent::new(&up.gateway, server)
}

/// An `up` whose log says when it has been refused.
fn watched(folder: &Path, limits: &str, rest: &str) -> Up {
    let config = configured(folder, limits, rest);
    let data = folder.join("data");
    let mut command = cairn();
    command.args(["up", "--kafka", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.args(["--config", &config.display().to_string()]).arg("--data").arg(&data);
    command.env("CAIRN_OPERATOR_TOKEN", TOKEN).env("CAIRN_LOG", "cairn_gateway=debug");
    Up::spawn(&mut command, &data)
}

fn refused(up: &Up) {
    wait_for("the first try", || up.errors().contains("could not be probed").then_some(()));
}

/// The outcomes of so many calls to a server of that name, and no more than one for each.
fn of_server(data: &Path, server: &str, calls: usize) -> Vec<Value> {
    let of = |kind: &str| -> Vec<Value> {
        let found = events(data).into_iter().filter(|event| event["type"] == kind && event["data"]["server"] == server);
        found.map(|event| event["data"].clone()).collect()
    };
    let outcomes = wait_for("the outcomes", || Some(of("call.outcome")).filter(|outcomes| outcomes.len() >= calls));
    let ids: std::collections::BTreeSet<_> = outcomes.iter().map(|outcome| outcome["call_id"].to_string()).collect();
    assert!(outcomes.len() == calls && ids.len() == calls, "one call, one outcome: {outcomes:?}");
    assert_eq!(of("call.intent").len(), calls, "one intent for each");
    outcomes
}

#[test]
fn a_call_to_a_server_that_is_still_starting_waits_for_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = Reserved::new();
    let late = format!("[servers.late]\nurl = \"http://{}/mcp\"\n", port.address);
    let up = watched(folder.path(), "server_connect_ms_max = 90000", &late);
    let agent = agent(&up, "late");
    let asked = agent.post(&hello());
    // One that goes away while it waits: a modern client that takes its call back thereby.
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
    let params = json!({ "name": "echo", "arguments": {}, "_meta": meta });
    let gone = agent.post(&json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params }));
    refused(&up);
    drop(gone);
    let server = Played::on(port.listen(), well);
    let answered = answer(asked);
    assert_eq!(answered.json()["result"]["serverInfo"]["name"], "played", "{answered:?}");
    assert_eq!(agent.call("echo", &json!({}))["result"]["content"][0]["text"], "echoed");
    assert_eq!(server.calls(), 1, "the call of the client that went away was never sent");
    up.end();
}

#[test]
fn a_server_that_never_starts_is_an_error_that_says_what_to_do_and_an_outcome() {
    let folder = tempfile::tempdir().expect("a folder");
    let (http, sse) = (Reserved::new(), Reserved::new());
    let servers = format!(
        "[servers.http]\nurl = \"http://{}/mcp\"\n[servers.sse]\ntype = \"sse\"\nurl = \"http://{}/sse\"\n\
         [servers.none]\ncommand = \"/no/such/program\"\n",
        http.address, sse.address
    );
    let up = bounded(folder.path(), "server_connect_ms_max = 300", &servers);
    let connecting =
        |address: &str| [address.to_owned(), " ms".into(), "start the server".into(), "server_connect_ms_max".into()];
    let cases = [
        ("http", connecting(&http.address).to_vec()),
        ("sse", connecting(&sse.address).to_vec()),
        ("none", vec!["/no/such/program".to_owned(), "PATH".to_owned()]),
    ];
    for (server, says) in cases {
        let refused = answer(agent(&up, server).post(&hello())).json();
        let words = refused["error"]["message"].as_str().unwrap_or_else(|| panic!("{refused}"));
        assert!(says.iter().all(|word| words.contains(word)) && words.contains("nothing was sent"), "{words}");
        assert_eq!(refused["error"]["code"], -31007, "{words}");
        let outcomes = of_server(&folder.path().join("data"), server, 1);
        assert_eq!(outcomes[0]["outcome"], "failed");
        assert_eq!(outcomes[0]["effect"], "none");
        assert_eq!(outcomes[0]["error_type"], "upstream_unavailable");
    }
    assert!(
        Agent::connect(&up.gateway, "orders").call("get_order", &json!({ "order_id": "order-1" }))["result"]
            .is_object()
    );
    up.end();
}

#[test]
fn a_pipe_to_a_server_that_never_starts_hears_it_and_can_try_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configured(folder.path(), "server_connect_ms_max = 300", "");
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let port = Reserved::new();
    let mut wrap = cairn();
    wrap.arg("wrap").arg("--data").arg(&data).args(["--name", "far", "--url", &format!("http://{}/mcp", port.address)]);
    let mut client = Client::start(&mut wrap);
    let refused = client.initialize();
    let words = refused["error"]["message"].as_str().unwrap_or_else(|| panic!("{refused}"));
    assert!(words.contains(&port.address) && words.contains("server_connect_ms_max"), "{words}");
    let _server = Played::on(port.listen(), well);
    assert_eq!(client.initialize()["result"]["serverInfo"]["name"], "played", "the same pipe goes on");
    assert_eq!(client.call("echo", json!({}))["result"]["content"][0]["text"], "echoed");
    of_server(&data, "far", 3);
    client.close();
    up.end();
}

#[test]
fn a_server_that_went_away_is_waited_for_and_what_was_sent_is_not_sent_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Played::start(well);
    let address = server.address.clone();
    let up =
        bounded(folder.path(), "server_connect_ms_max = 500", &format!("[servers.far]\nurl = \"{}\"\n", server.url()));
    let agent = agent(&up, "far");
    assert!(answer(agent.post(&hello())).json()["result"].is_object());
    assert!(agent.call("echo", &json!({}))["result"].is_object());
    drop(server);
    let gone = agent.call("echo", &json!({}));
    assert!(
        ["upstream_unavailable", "upstream_lost"].contains(&gone["error"]["data"]["cairn"].as_str().unwrap_or("")),
        "{gone}"
    );
    let gone = agent.call("echo", &json!({}));
    assert_eq!(gone["error"]["data"]["cairn"], "upstream_unavailable", "{gone}");
    // Now it takes the request, and dies over it.
    let listener = std::net::TcpListener::bind(&address).expect("the port is free again");
    let dying = Played::on(listener, |asked, stream| asked.rpc() != "tools/call" && well(asked, stream));
    let lost = agent.call("echo", &json!({}));
    assert_eq!(lost["error"]["data"]["cairn"], "upstream_lost", "{lost}");
    assert_eq!(dying.calls(), 1, "what may have been sent is never sent again");
    let data = folder.path().join("data");
    let outcomes = of_server(&data, "far", 5);
    let unknown = outcomes.iter().filter(|outcome| outcome["effect"] == "unknown").count();
    assert!((1..=2).contains(&unknown), "{outcomes:?}");
    up.end();
}

#[test]
fn waiting_for_a_server_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let port = Reserved::new();
    let late = format!("[servers.late]\nurl = \"http://{}/mcp\"\n", port.address);
    let up = watched(folder.path(), "server_connect_ms_max = 600000", &late);
    let asked = agent(&up, "late").post(&hello());
    let mut wrap = cairn();
    wrap.arg("wrap").arg("--data").arg(folder.path().join("data"));
    let mut client = Client::start(wrap.args(["--name", "far", "--url", &format!("http://{}/mcp", port.address)]));
    let id = client.ask("initialize", hello()["params"].clone());
    refused(&up);
    up.end();
    assert_eq!(answer(asked).json()["error"]["data"]["cairn"], "not_recorded", "whoever waits is told");
    if let Some(told) = client.line() {
        assert!(told["id"] == json!(id) && told["error"].is_object(), "{told}");
    }
    let left = fs::read_to_string(folder.path().join("data.stderr")).expect("there");
    assert!(!left.contains("not everything ended"), "{left}");
}
