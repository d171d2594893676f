//! How Cairn proves itself to a server: with tokens of its own, never the client's, and none of them anywhere else.
//!
//! The server and its authorization server are one listener of this test's, which keeps every byte that reaches it.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::support::{Agent, TOKEN, Up, answer, cairn, events, files, http, outcomes, run, text, wait_for};

/// A legacy server that wants a token, and the place that gives them.
#[derive(Default)]
struct Guarded {
    address: String,
    /// Every request, head and body.
    seen: Mutex<Vec<String>>,
    /// The token that it takes now, and how many were given.
    taken: Mutex<String>,
    given: Mutex<u32>,
    /// Whether calls of tools are refused whatever comes.
    refuses: Mutex<bool>,
}

impl Guarded {
    fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let guarded = Arc::new(Self { address, ..Self::default() });
        let shared = guarded.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || shared.serve(stream));
            }
        });
        guarded
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    return;
                }
            }
            let header = |name: &str| {
                let lines = head.lines().filter_map(|line| line.split_once(':'));
                lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
            };
            let length = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            let body = text(&body);
            self.seen.lock().expect("a lock").push(format!("{head}{body}"));
            let line = head.lines().next().unwrap_or_default().to_owned();
            let (status, more, answer) = self.answer(&line, header("authorization"), &body);
            let said = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}content-length: {}\r\n\r\n{answer}",
                answer.len()
            );
            if stream.write_all(said.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, line: &str, authorization: Option<String>, body: &str) -> (u16, String, String) {
        let here = |path: &str| format!("http://{}{path}", self.address);
        let ok = |value: Value| (200, String::new(), value.to_string());
        let path = line.split(' ').nth(1).unwrap_or_default();
        match path.split('?').next().unwrap_or_default() {
            "/.well-known/oauth-protected-resource/mcp" => {
                ok(json!({ "resource": here("/mcp"), "authorization_servers": [here("")] }))
            }
            "/.well-known/oauth-authorization-server" => ok(json!({
                "issuer": here(""),
                "authorization_endpoint": here("/authorize"),
                "token_endpoint": here("/token"),
                "registration_endpoint": here("/register"),
                "response_types_supported": ["code"],
                "code_challenge_methods_supported": ["S256"],
            })),
            "/register" => ok(json!({ "client_id": "registered", "redirect_uris": [] })),
            "/token" => {
                let mut given = self.given.lock().expect("a lock");
                *given += 1;
                let token = format!("upstr3am-token-{given}");
                *self.taken.lock().expect("a lock") = token.clone();
                ok(json!({
                    "access_token": token,
                    "token_type": "Bearer",
                    "expires_in": 3600,
                    "refresh_token": format!("r3fresh-token-{given}"),
                }))
            }
            "/mcp" => {
                let taken = format!("Bearer {}", self.taken.lock().expect("a lock"));
                let message: Value = serde_json::from_str(body).unwrap_or_default();
                let is_call = message["method"] == "tools/call";
                let refused = is_call && *self.refuses.lock().expect("a lock");
                if authorization.as_deref() != Some(taken.as_str()) || taken == "Bearer " || refused {
                    let metadata = here("/.well-known/oauth-protected-resource/mcp");
                    let more = format!("www-authenticate: Bearer resource_metadata=\"{metadata}\"\r\n");
                    let echo = json!({ "error": authorization });
                    return (401, more, echo.to_string());
                }
                self.speak(line, &message)
            }
            _ => (404, String::new(), "{}".to_owned()),
        }
    }

    fn speak(&self, line: &str, message: &Value) -> (u16, String, String) {
        if !line.starts_with("POST") {
            return (405, String::new(), "{}".to_owned());
        }
        let result = match message["method"].as_str().unwrap_or_default() {
            "initialize" => json!({
                "protocolVersion": "2025-11-25",
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "guarded", "version": "1" },
            }),
            "tools/call" => json!({ "content": [{ "type": "text", "text": "done" }] }),
            method if method.starts_with("notifications/") => return (202, String::new(), String::new()),
            "tools/list" => json!({ "tools": [] }),
            _ => {
                let error = json!({ "code": -32601, "message": "no such method" });
                let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "error": error });
                return (200, String::new(), answer.to_string());
            }
        };
        let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
        (200, "mcp-session-id: s1\r\n".to_owned(), answer.to_string())
    }

    /// No token is taken any more but the next one that is given.
    fn forget(&self) {
        "revoked-by-the-server".clone_into(&mut self.taken.lock().expect("a lock"));
    }

    /// How many calls of tools reached it, taken or not.
    fn calls(&self) -> usize {
        self.seen.lock().expect("a lock").iter().filter(|request| request.contains("\"tools/call\"")).count()
    }
}

fn configured(folder: &Path, guarded: &Guarded, auth: &str) -> std::path::PathBuf {
    let path = folder.join("cairn.toml");
    let text = format!("[servers.web]\nurl = \"http://{}/mcp\"\n[servers.web.auth]\n{auth}\n", guarded.address);
    std::fs::write(&path, text).expect("written");
    path
}

fn start(folder: &Path, guarded: &Guarded, auth: &str) -> (Up, std::path::PathBuf) {
    let data = folder.join("data");
    let config = configured(folder, guarded, auth);
    let up = Up::start(&data, &["--config", config.to_str().expect("text")]);
    (up, data)
}

/// Nothing of these stands in the trail, in any file, in what was logged, in the metrics.
fn nowhere(up: &Up, data: &Path, secrets: &[&str]) {
    let trail = serde_json::to_string(&events(data)).expect("JSON");
    let metrics = http(&up.admin, "GET /metrics", &[], "").body;
    let logged = up.errors();
    for secret in secrets {
        assert!(!trail.contains(secret), "{secret} stands in the trail");
        assert!(!metrics.contains(secret) && !logged.contains(secret), "{secret} stands in metrics or log: {logged}");
        for file in files(data) {
            let bytes = std::fs::read(&file).unwrap_or_default();
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{secret} stands in {}", file.display());
        }
    }
}

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
