//! Callers' tokens in exchange for the server's (RFC 8693): each caller has one of its own, its own token goes to the token
//! endpoint and nowhere else, and whoever has none, or is refused there, reaches no server.
//!
//! The issuer, the token endpoint and the server are `guarded`'s.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

use crate::{
    guarded::{Guarded, nowhere},
    support::{Answer, Up, cairn, events, http, run, text, wait_for},
};

const RESOURCE: &str = "https://cairn.example";

/// An issuer whose keys `guarded` publishes.
struct Issuer {
    pair: Ed25519KeyPair,
    guarded: Arc<Guarded>,
    given: AtomicU64,
}

impl Issuer {
    fn of(guarded: &Arc<Guarded>) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let key = json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": "one", "use": "sig", "alg": "EdDSA" });
        guarded.keys.lock().expect("a lock").push(key);
        Self { pair, guarded: guarded.clone(), given: AtomicU64::new(0) }
    }

    fn token(&self, whose: &str, scope: &str) -> String {
        let claims = json!({
            "iss": format!("http://{}", self.guarded.address),
            "aud": format!("{RESOURCE}/mcp/web"),
            "sub": whose,
            "client_id": "app",
            "scope": scope,
            "jti": self.given.fetch_add(1, Ordering::SeqCst).to_string(),
            "iat": 1_700_000_000,
            "exp": 4_100_000_000_u64,
        });
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "one" })), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }
}

fn up(folder: &std::path::Path, guarded: &Guarded) -> Up {
    let path = folder.join("cairn.toml");
    let here = format!("http://{}", guarded.address);
    let words = format!(
        "[identity]\nresource = \"{RESOURCE}\"\napi_keys = true\nlocal = true\n\
         [identity.issuers.home]\nissuer = \"{here}\"\njwks_url = \"{here}/keys\"\n\
         [servers.web]\nurl = \"{here}/mcp\"\n\
         [servers.web.auth]\nkind = \"token_exchange\"\nclient_id = \"cairn\"\nclient_secret = \"cl1ent-secret\"\n\
         token_endpoint = \"{here}/exchange\"\naudience = \"web\"\n"
    );
    std::fs::write(&path, words).expect("written");
    Up::start(&folder.join("data"), &["--config", path.to_str().expect("text")])
}

/// One request of whoever shows that token, in that session.
fn send(up: &Up, token: &str, session: &str, message: &Value) -> Answer {
    let authorization = format!("Bearer {token}");
    let mut headers = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    if !token.is_empty() {
        headers.push(("authorization", &authorization));
    }
    if !session.is_empty() {
        headers.extend([("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25")]);
    }
    http(&up.gateway, "POST /mcp/web", &headers, &message.to_string())
}

fn hello() -> Value {
    let client = json!({ "name": "test", "version": "1" });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params })
}

fn act(id: u64) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "t", "arguments": {} } })
}

fn open(up: &Up, token: &str) -> String {
    let welcome = send(up, token, "", &hello());
    welcome.header("mcp-session-id").unwrap_or_else(|| panic!("no session: {welcome:?}"))
}

/// A request that is refused with that word before anything reached a server.
fn refused(up: &Up, guarded: &Guarded, token: &str) -> Value {
    let before = guarded.asked("/mcp").len();
    let said = send(up, token, "", &hello());
    assert_eq!(
        (said.status, said.json()["error"]["data"]["cairn"].as_str()),
        (200, Some("upstream_unproven")),
        "{said:?}"
    );
    assert!(said.header("mcp-session-id").is_none(), "and no session is open: {said:?}");
    assert_eq!(guarded.asked("/mcp").len(), before, "nothing was forwarded");
    said.json()["error"]["message"].clone()
}

#[test]
fn each_caller_has_a_token_in_exchange_for_its_own_which_goes_nowhere_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let guarded = Guarded::start();
    let issuer = Issuer::of(&guarded);
    let up = up(folder.path(), &guarded);
    let (ann, bob) = (issuer.token("ann", "read"), issuer.token("bob", "read"));
    let (hers, his) = (open(&up, &ann), open(&up, &bob));
    for id in 2..4 {
        for (token, session) in [(&ann, &hers), (&bob, &his)] {
            let said = send(&up, token, session, &act(id));
            assert_eq!(said.json()["result"]["content"][0]["text"], "done", "{said:?}");
        }
    }
    // A token that was renewed is another text for the same caller.
    let renewed = issuer.token("ann", "read");
    assert!(send(&up, &renewed, &hers, &act(9)).json()["result"].is_object());
    let exchanges = guarded.asked("/exchange");
    assert_eq!(exchanges.len(), 2, "one for each caller: {exchanges:?}");
    assert!(exchanges[0].contains(&ann) && exchanges[1].contains(&bob) && exchanges[0].contains("audience=web"));
    let of = |whose: &str| {
        let token = format!("Bearer upstr3am-token-for-{whose}");
        guarded.asked("/mcp").iter().filter(|request| request.contains(&token)).count()
    };
    let calls = |whose: &str| {
        let token = format!("Bearer upstr3am-token-for-{whose}");
        let is_call = |request: &&String| request.contains(&token) && request.contains("\"tools/call\"");
        guarded.asked("/mcp").iter().filter(is_call).count()
    };
    assert_eq!((calls("ann"), calls("bob")), (3, 2));
    assert!(of("ann") > 3 && of("bob") > 2, "handshakes and probes are made for a caller, too");
    // Another reach, another exchange; what was exchanged for more is not used for less.
    let more = issuer.token("ann", "read write");
    assert!(send(&up, &more, &hers, &act(10)).json()["result"].is_object());
    assert_eq!(guarded.asked("/exchange").len(), 3);
    let shown = guarded.asked("/mcp");
    for token in [&ann, &bob, &more] {
        let parts = [token.as_str(), token.rsplit('.').next().expect("a signature")];
        let passed = shown.iter().any(|request| parts.iter().any(|part| request.contains(part)));
        assert!(!passed, "a caller's token reached the server");
    }
    let secrets = [ann.as_str(), &bob, &more, "upstr3am-token", "cl1ent-secret"];
    nowhere(&up, &folder.path().join("data"), &secrets);
    up.end();
}

#[test]
fn whoever_has_no_token_to_exchange_or_is_refused_reaches_no_server() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let guarded = Guarded::start();
    let issuer = Issuer::of(&guarded);
    let up = up(folder.path(), &guarded);
    let made = run(cairn().args(["key", "new", "--json", "--principal", "nightly", "--data"]).arg(&data));
    assert!(made.status.success(), "{}", text(&made.stderr));
    let made: Value = serde_json::from_slice(&made.stdout).expect("JSON");
    let key = made["key"].as_str().expect("a key").to_owned();
    for nobody in ["", &key] {
        let words = refused(&up, &guarded, nobody);
        assert!(words.as_str().is_some_and(|words| words.contains("[identity.issuers]")), "{words}");
    }
    assert!(guarded.asked("/exchange").is_empty(), "a key is not shown to be exchanged");
    let mallory = issuer.token("mallory", "read");
    let words = refused(&up, &guarded, &mallory);
    assert!(words.as_str().is_some_and(|words| words.contains("access_denied")), "{words}");
    assert_eq!(guarded.asked("/exchange").len(), 1);
    // A token of somebody who may is worth nothing to the others.
    let ann = issuer.token("ann", "read");
    let session = open(&up, &ann);
    assert!(send(&up, &ann, &session, &act(2)).json()["result"].is_object());
    refused(&up, &guarded, &mallory);
    refused(&up, &guarded, &key);
    let ended = wait_for("the refusals in the trail", || {
        let refused: Vec<Value> = events(&data)
            .into_iter()
            .filter(|event| event["type"] == "call.outcome" && event["data"]["error_type"] == "upstream_unproven")
            .collect();
        (refused.len() >= 5).then_some(refused)
    });
    let mut whose: Vec<_> = ended.iter().filter_map(|event| event["data"]["principal"].as_str()).collect();
    whose.sort_unstable();
    whose.dedup();
    assert!(whose.contains(&"home/mallory") && whose.contains(&"key/nightly") && whose.len() == 3, "{whose:?}");
    for event in &ended {
        assert_eq!((&event["data"]["outcome"], &event["data"]["effect"]), (&json!("failed"), &json!("none")));
        let call = &event["data"]["call_id"];
        let intent =
            events(&data).iter().any(|other| other["type"] == "call.intent" && other["data"]["call_id"] == *call);
        assert!(!intent, "nothing was about to be forwarded");
    }
    nowhere(&up, &data, &[&mallory, &ann, &key, "upstr3am-token"]);
    up.end();
}
