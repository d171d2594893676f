//! A server that wants a token, with the place that gives them: one listener, which keeps every byte that reaches it. For the
//! tests of how Cairn proves itself.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::support::{Up, events, files, http, text};

/// A legacy server that wants a token, and the place that gives them.
#[derive(Default)]
pub(crate) struct Guarded {
    pub(crate) address: String,
    /// Every request, head and body.
    pub(crate) seen: Mutex<Vec<String>>,
    /// The token that it takes now, and how many were given.
    taken: Mutex<String>,
    given: Mutex<u32>,
    /// Whether calls of tools are refused whatever comes.
    pub(crate) refuses: Mutex<bool>,
    /// The tokens that were given in exchange for others, all of them good.
    exchanged: Mutex<Vec<String>>,
    /// Keys of an issuer, for whoever asks.
    pub(crate) keys: Mutex<Vec<Value>>,
}

impl Guarded {
    pub(crate) fn start() -> Arc<Self> {
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
            "/keys" => ok(json!({ "keys": *self.keys.lock().expect("a lock") })),
            "/exchange" => self.exchange(body),
            "/mcp" => {
                let taken = format!("Bearer {}", self.taken.lock().expect("a lock"));
                let message: Value = serde_json::from_str(body).unwrap_or_default();
                let is_call = message["method"] == "tools/call";
                let refused = is_call && *self.refuses.lock().expect("a lock");
                let is_taken = authorization.as_deref() == Some(taken.as_str()) && taken != "Bearer ";
                let shown =
                    authorization.as_deref().and_then(|shown| shown.strip_prefix("Bearer ")).unwrap_or_default();
                let is_exchanged = self.exchanged.lock().expect("a lock").iter().any(|token| token == shown);
                if !(is_taken || is_exchanged) || refused {
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

    /// Gives a token for one of somebody's (RFC 8693), but for mallory's.
    fn exchange(&self, body: &str) -> (u16, String, String) {
        let form = |name: &str| {
            let mut pairs = body.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let shown = form("subject_token");
        let claims = shown.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok()).unwrap_or_default();
        let claims: Value = serde_json::from_slice(&claims).unwrap_or_default();
        let whose = claims["sub"].as_str().unwrap_or_default();
        if whose.is_empty() || whose == "mallory" || !form("grant_type").ends_with("token-exchange") {
            // It repeats what it was shown, as some do.
            let error = json!({ "error": "access_denied", "error_description": shown });
            return (400, String::new(), error.to_string());
        }
        let mut exchanged = self.exchanged.lock().expect("a lock");
        let token = format!("upstr3am-token-for-{whose}-{}", exchanged.len());
        exchanged.push(token.clone());
        let answer = json!({
            "access_token": token,
            "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "token_type": "Bearer",
            "expires_in": 3600,
        });
        (200, String::new(), answer.to_string())
    }

    /// The requests for that path, as they came.
    pub(crate) fn asked(&self, path: &str) -> Vec<String> {
        let seen = self.seen.lock().expect("a lock");
        let of = |request: &&String| request.split(' ').nth(1) == Some(path);
        seen.iter().filter(of).cloned().collect()
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
        // Each session has an id of its own: as many requests have come.
        let opens = message["method"] == "initialize";
        let number = self.seen.lock().expect("a lock").len();
        let more = if opens { format!("mcp-session-id: s{number}\r\n") } else { String::new() };
        (200, more, answer.to_string())
    }

    /// No token is taken any more but the next one that is given.
    pub(crate) fn forget(&self) {
        "revoked-by-the-server".clone_into(&mut self.taken.lock().expect("a lock"));
    }

    /// How many calls of tools reached it, taken or not.
    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().expect("a lock").iter().filter(|request| request.contains("\"tools/call\"")).count()
    }
}

pub(crate) fn configured(folder: &Path, guarded: &Guarded, auth: &str) -> std::path::PathBuf {
    let path = folder.join("cairn.toml");
    let text = format!("[servers.web]\nurl = \"http://{}/mcp\"\n[servers.web.auth]\n{auth}\n", guarded.address);
    std::fs::write(&path, text).expect("written");
    path
}

pub(crate) fn start(folder: &Path, guarded: &Guarded, auth: &str) -> (Up, std::path::PathBuf) {
    let data = folder.join("data");
    let config = configured(folder, guarded, auth);
    let up = Up::start(&data, &["--config", config.to_str().expect("text")]);
    (up, data)
}

/// Nothing of these stands in the trail, in any file, in what was logged, in the metrics.
pub(crate) fn nowhere(up: &Up, data: &Path, secrets: &[&str]) {
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
