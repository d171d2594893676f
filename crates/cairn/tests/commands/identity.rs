//! Who may come in, from outside: API keys, sessions that belong to somebody, scopes, and what a refusal leaves behind.
//!
//! Tokens and certificates are tried with a real provider by `cargo xtask test --only identity`.

use std::fs;

use serde_json::{Value, json};

use crate::{
    bounds::configured,
    support::{Answer, Up, cairn, events, http, run, text, wait_for},
};

const IDENTITY: &str = "scopes = [\"orders:read\"]\nmethod_scopes = { \"tools/call\" = [\"orders:write\"] }\n[identity]\napi_keys = true\n";

pub(crate) fn hello() -> Value {
    let client = json!({ "name": "test", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params })
}

pub(crate) fn look() -> Value {
    let params = json!({ "name": "get_order", "arguments": { "order_id": "order-1" } });
    json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params })
}

/// One request of whoever has that key, in that session.
pub(crate) fn send(up: &Up, method: &str, key: &str, session: &str, message: &Value) -> Answer {
    let authorization = format!("Bearer {key}");
    let mut headers = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    if !key.is_empty() {
        headers.push(("authorization", &authorization));
    }
    if !session.is_empty() {
        headers.extend([("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")]);
    }
    http(&up.gateway, &format!("{method} /mcp/orders"), &headers, &message.to_string())
}

pub(crate) fn key(data: &std::path::Path, words: &[&str]) -> (String, String) {
    let output = run(cairn().args(["key", "new", "--json", "--data"]).arg(data).args(words));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let made: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let of = |name: &str| made[name].as_str().expect("a text").to_owned();
    (of("id"), of("key"))
}

fn reason(answer: &Answer) -> String {
    answer.json()["reason"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_session_is_nobody_elses_and_every_refusal_leaves_an_event() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let config = configured(folder.path(), "", IDENTITY);
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let scopes = ["--scopes", "orders:read,orders:write"];
    let (id, ada) = key(&data, &[&["--principal", "ada", "--tenant", "acme"], &scopes[..]].concat());
    let (_, eve) = key(&data, &[&["--principal", "eve", "--tenant", "acme"], &scopes[..]].concat());
    let (_, twin) = key(&data, &[&["--principal", "ada", "--tenant", "other"], &scopes[..]].concat());
    let (_, reader) = key(&data, &["--principal", "reader", "--scopes", "orders:read"]);

    let nobody = send(&up, "POST", "", "", &hello());
    assert_eq!((nobody.status, reason(&nobody).as_str()), (401, "no_credentials"));
    assert!(nobody.header("www-authenticate").is_some_and(|says| says.starts_with("Bearer ")), "{nobody:?}");
    let forged = send(&up, "POST", &format!("{}0000", &ada[..ada.len() - 4]), "", &hello());
    assert_eq!((forged.status, reason(&forged).as_str()), (401, "api_key_unknown"));

    let session = send(&up, "POST", &ada, "", &hello()).header("mcp-session-id").expect("a session");
    assert!(send(&up, "POST", &ada, &session, &look()).json().get("result").is_some());
    for other in [&eve, &twin] {
        assert_eq!(send(&up, "POST", other, &session, &look()).status, 404, "as if it did not exist");
        assert_eq!(send(&up, "DELETE", other, &session, &json!({})).status, 404);
    }
    assert!(send(&up, "POST", &ada, &session, &look()).json().get("result").is_some(), "it is still there");

    let read = send(&up, "POST", &reader, "", &hello()).header("mcp-session-id").expect("a session");
    let lacking = send(&up, "POST", &reader, &read, &look());
    assert_eq!((lacking.status, reason(&lacking).as_str()), (403, "insufficient_scope"));
    let challenge = lacking.header("www-authenticate").expect("a challenge");
    assert!(challenge.contains("scope=\"orders:read orders:write\""), "{challenge}");

    assert!(run(cairn().args(["key", "revoke", &id, "--data"]).arg(&data)).status.success());
    let revoked = send(&up, "POST", &ada, &session, &look());
    assert_eq!((revoked.status, reason(&revoked).as_str()), (401, "api_key_revoked"), "at once");

    let expected = ["no_credentials", "api_key_unknown", "session_other", "insufficient_scope", "api_key_revoked"];
    let all = wait_for("an event for each refusal", || {
        let all = events(&data);
        let has = |reason: &&str| {
            all.iter().any(|event| event["type"] == "access.refused" && event["data"]["reason"] == *reason)
        };
        expected.iter().all(has).then_some(all)
    });
    let refused = |reason: &str, who: &str| {
        let mut of = all.iter().filter(|event| event["type"] == "access.refused" && event["data"]["reason"] == reason);
        of.any(|event| event["topic"] == "mcp.operators" && event["data"]["principal"] == who)
    };
    assert!(refused("session_other", "key/eve") && refused("session_other", "key/ada"), "both tenants' are told apart");
    let whose = |event: &&Value| event["data"]["principal"] == "key/ada" && event["data"]["tenant"] == "acme";
    assert!(all.iter().filter(|event| event["type"] == "call.intent").any(|event| whose(&event)));
    let everything = json!(all).to_string();
    for secret in [&ada, &eve, &twin, &reader, &session] {
        assert!(!everything.contains(secret.as_str()), "a credential is in the trail");
    }
    assert!(!up.errors().contains(&ada), "or on standard error");
    up.end();
}

#[test]
fn a_gateway_that_others_would_reach_does_not_start_without_identity() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let mut command = cairn();
    command.args(["up", "--kafka", "127.0.0.1:0", "--gateway", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--data"]);
    let output = run(command.arg(&data));
    assert!(!output.status.success());
    let says = text(&output.stderr);
    assert!(says.contains("[identity]") && says.contains("local = true"), "{says}");
    fs::write(data.join("cairn.toml"), "[identity]\nlocal = true\n").expect("written");
    let up = Up::spawn(
        cairn()
            .args(["up", "--kafka", "127.0.0.1:0", "--gateway", "0.0.0.0:0", "--admin", "127.0.0.1:0", "--data"])
            .arg(&data),
        &data,
    );
    up.end();
}
