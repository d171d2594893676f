//! How Cairn proves itself to a server: with tokens of its own, never the client's, and none of them anywhere else.
//!
//! The server and its authorization server are `guarded`'s.

use serde_json::{Value, json};

use crate::{
    guarded::{Guarded, nowhere, start},
    support::{Agent, TOKEN, Up, answer, cairn, events, http, outcomes, run, text, wait_for},
};

fn login(up: &Up) -> std::process::Output {
    let mut command = cairn();
    command.args(["login", "web", "--json", "--no-wait", "--admin", &up.admin]).env("CAIRN_OPERATOR_TOKEN", TOKEN);
    run(&mut command)
}

/// Comes back from the authorization server with a code, as a browser does.
fn come_back(url: &str) -> u16 {
    let value = |name: &str| {
        let query = url.split_once('?').expect("a query").1;
        let pair = query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
        pair.map(|(_, value)| value.replace("%3A", ":").replace("%2F", "/")).unwrap_or_default()
    };
    let back = value("redirect_uri");
    let gateway = back.trim_start_matches("http://").split('/').next().expect("an address").to_owned();
    let path = format!("GET /oauth/callback?code=l0gin-code&state={}", value("state"));
    http(&gateway, &path, &[], "").status
}

#[test]
fn the_clients_token_goes_nowhere_and_cairns_own_stands_nowhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let guarded = Guarded::start();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "cl1ent-secret-1").expect("written");
    let auth = format!(
        "kind = \"client_credentials\"\nclient_id = \"me\"\nclient_secret_way = \"post\"\nclient_secret = \"${{file:{}}}\"",
        secret.display()
    );
    let (up, data) = start(folder.path(), &guarded, &auth);
    let agent = Agent::connect(&up.gateway, "web");
    let call = json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": { "name": "t", "arguments": {} } });
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-session-id", agent.session.as_str()),
        ("mcp-protocol-version", "2025-11-25"),
        ("authorization", "Bearer inb0und-token"),
        ("cookie", "session=inb0und-cookie"),
        ("proxy-authorization", "Basic inb0und-proxy"),
        ("x-api-key", "inb0und-key"),
    ];
    let said = http(&up.gateway, "POST /mcp/web", &headers, &call.to_string());
    assert_eq!(said.json()["result"]["content"][0]["text"], "done", "{said:?}");
    assert!(!guarded.seen.lock().expect("a lock").iter().any(|request| request.contains("inb0und")));
    // The secret changes, and the server takes the old token no more: the next call is played again with a new one.
    std::fs::write(&secret, "cl1ent-secret-2").expect("written");
    guarded.forget();
    let before = guarded.calls();
    assert_eq!(agent.call("t", &json!({}))["result"]["content"][0]["text"], "done");
    assert_eq!(guarded.calls(), before + 2, "refused once, taken once");
    let asked: Vec<_> = guarded.seen.lock().expect("a lock").clone();
    let last = asked.iter().rfind(|request| request.starts_with("POST /token")).expect("it asked");
    assert!(last.contains("cl1ent-secret-2"));
    drop(agent);
    nowhere(&up, &data, &["upstr3am-token", "cl1ent-secret", "inb0und", "r3fresh"]);
    up.end();
}

#[test]
fn a_call_that_was_not_let_in_is_played_again_as_a_call_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let guarded = Guarded::start();
    let auth = "kind = \"client_credentials\"\nclient_id = \"me\"\nclient_secret = \"s\"";
    let (up, data) = start(folder.path(), &guarded, auth);
    let agent = Agent::connect(&up.gateway, "web");
    assert!(agent.call("t", &json!({}))["result"].is_object());
    guarded.forget();
    assert!(agent.call("t", &json!({}))["result"].is_object());
    let calls = || {
        let found = events(&data).into_iter().filter(|event| event["data"]["mcp_method_name"] == "tools/call");
        found.collect::<Vec<_>>()
    };
    // One that is never let in is tried a bounded number of times.
    *guarded.refuses.lock().expect("a lock") = true;
    let before = guarded.calls();
    let said = agent.call("t", &json!({}));
    assert_eq!(said["error"]["data"]["cairn"], "upstream_unproven", "{said}");
    assert!(guarded.calls() - before <= 3, "it is bounded");
    assert!(!said.to_string().contains("upstr3am"), "the server's echo of the token does not come out: {said}");
    let all = wait_for("all outcomes", || {
        let all = calls();
        let count = |kind: &str| all.iter().filter(|event| event["type"] == kind).count();
        (count("call.intent") > 0 && count("call.intent") == count("call.outcome")).then_some(all)
    });
    let of = |kind: &str| all.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    assert_eq!(of("call.intent").len(), guarded.calls(), "each that went out has an intent of its own");
    assert_eq!(of("call.decision").len(), of("call.intent").len(), "and a decision");
    let refused = outcomes(&data).into_iter().filter(|outcome| outcome["error_type"] == "http_401").count();
    assert!(refused >= 2, "what was not let in failed, and says so: {all:#?}");
    up.end();
}

#[test]
fn nobody_is_logged_in_until_an_operator_has_a_person_do_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let guarded = Guarded::start();
    let (up, data) = start(folder.path(), &guarded, "kind = \"oauth\"");
    let agent = Agent::new(&up.gateway, "web");
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
    let said = answer(agent.post(&hello));
    let error = said.json()["error"].clone();
    assert_eq!((said.status, error["code"].as_i64()), (200, Some(-31_040)), "{said:?}");
    let words = error["message"].as_str().unwrap_or_default();
    assert!(words.contains("cairn login web") && !words.contains("http"), "no URL for agents: {words}");
    let asked = guarded.seen.lock().expect("a lock").iter().any(|request| request.contains("\"initialize\""));
    assert!(!asked, "nothing goes to a server without the token that it needs");
    // Nobody without the operator's token gets a URL, and a guessed state opens nothing.
    let refused = http(&up.admin, "POST /credentials/web/login", &[], "");
    assert_eq!(refused.status, 401);
    assert_eq!(http(&up.gateway, "GET /oauth/callback?code=a&state=b", &[], "").status, 400);
    let begun = login(&up);
    assert!(begun.status.success(), "{}", text(&begun.stderr));
    let begun: Value = serde_json::from_slice(&begun.stdout).expect("JSON");
    let url = begun["url"].as_str().expect("a URL");
    assert_eq!(come_back(url), 200);
    assert_eq!(come_back(url), 400, "a state is good once");
    let agent = Agent::connect(&up.gateway, "web");
    assert!(agent.call("t", &json!({}))["result"].is_object());
    drop(agent);
    // Without a key nothing of the login is on disk.
    nowhere(&up, &data, &["upstr3am-token", "r3fresh", "l0gin-code"]);
    up.end();
}
