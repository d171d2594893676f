//! The servers that these tests talk to: this test binary, told by a variable what to play. Each line that reaches one
//! goes to a journal first.

use std::io::{BufRead, Write};

use serde_json::{Value, json};

pub(crate) const ROLE: &str = "TEST_SERVER_ROLE";
pub(crate) const JOURNAL: &str = "TEST_SERVER_JOURNAL";

/// Not a test: where the variable is set, this process is a server.
#[test]
fn play_the_server() {
    if let Ok(role) = std::env::var(ROLE) {
        say_nothing(); // the test harness has begun a line of its own
        Server { role, asked: None, next: 100 }.serve();
        std::process::exit(0);
    }
}

struct Server {
    role: String,
    /// The call that waits for the answer to a question.
    asked: Option<Value>,
    next: u64,
}

/// Ends the line that the test harness has begun.
fn say_nothing() {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(b"\n").and_then(|()| out.flush());
}

fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    // The parent may be gone already.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

fn journal(line: &str) {
    let Some(path) = std::env::var_os(JOURNAL) else { return };
    let mut file = std::fs::File::options().append(true).create(true).open(path).expect("a journal");
    file.write_all(format!("{line}\n").as_bytes()).expect("a journal");
}

fn text(words: &str) -> Value {
    json!({"content": [{"type": "text", "text": words}]})
}

impl Server {
    fn serve(&mut self) {
        for line in std::io::stdin().lock().lines() {
            let Ok(line) = line else { return };
            journal(&line);
            let message: Value = serde_json::from_str(&line).expect("the parent writes JSON");
            let modern = message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].is_string();
            match (self.role.as_str(), modern) {
                ("modern", _) | ("both", true) => self.modern(&message, modern),
                _ => self.legacy(&message, modern),
            }
        }
    }

    fn answer(&self, message: &Value, result: Value) {
        say(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}));
    }

    fn refuse(&self, message: &Value, code: i64) {
        say(&json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": code, "message": "no"}}));
    }

    fn legacy(&mut self, message: &Value, modern: bool) {
        let params = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            _ if modern => self.refuse(message, -32601),
            "initialize" => self.answer(
                message,
                json!({"protocolVersion": params["protocolVersion"], "serverInfo": {"name": "legacy", "version": "1"},
                "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}}}),
            ),
            "tools/list" => {
                self.answer(message, json!({"tools": []}));
                if self.role == "forward" {
                    say(&json!({"jsonrpc": "2.0", "id": 99, "method": "roots/list"}));
                }
            }
            "resources/subscribe" => {
                self.answer(message, json!({}));
                say(
                    &json!({"jsonrpc": "2.0", "method": "notifications/resources/updated", "params": {"uri": params["uri"]}}),
                );
            }
            "resources/unsubscribe" => self.answer(message, json!({})),
            "tools/call" => match params["name"].as_str().unwrap_or_default() {
                "book" => {
                    self.asked = Some(message.clone());
                    self.next += 1;
                    let schema = json!({"type": "object", "properties": {"name": {"type": "string"}}});
                    say(&json!({"jsonrpc": "2.0", "id": self.next, "method": "elicitation/create",
                        "params": {"message": "who?", "requestedSchema": schema}}));
                }
                "sleep" => {}
                _ => self.answer(message, text(&params["arguments"].to_string())),
            },
            "" if message["result"].is_object() => {
                let name = message["result"]["content"]["name"].as_str().unwrap_or("nobody");
                if let Some(asked) = self.asked.take() {
                    self.answer(&asked, text(name));
                }
            }
            _ => {}
        }
    }

    fn modern(&mut self, message: &Value, modern: bool) {
        let params = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "" | "notifications/cancelled" => {}
            _ if !modern => self.refuse(message, -32602),
            "server/discover" => self.answer(
                message,
                json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "public",
                "capabilities": {"tools": {"listChanged": true}, "resources": {"subscribe": true}},
                "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "modern", "version": "2"}}}),
            ),
            "subscriptions/listen" => {
                let meta = json!({"io.modelcontextprotocol/subscriptionId": message["id"]});
                let notify = |method: &str, mut params: Value| {
                    params["_meta"] = meta.clone();
                    say(&json!({"jsonrpc": "2.0", "method": method, "params": params}));
                };
                let wanted = &params["notifications"];
                notify("notifications/subscriptions/acknowledged", json!({"notifications": wanted}));
                if wanted["toolsListChanged"] == true {
                    notify("notifications/tools/list_changed", json!({}));
                }
                for uri in wanted["resourceSubscriptions"].as_array().into_iter().flatten() {
                    notify("notifications/resources/updated", json!({"uri": uri}));
                }
            }
            "tools/list" => self.answer(message, json!({"resultType": "complete", "tools": [], "ttlMs": 5, "cacheScope": "public"})),
            "tools/call" => self.modern_tool(message),
            _ => self.refuse(message, -32601),
        }
    }

    fn modern_tool(&self, message: &Value) {
        let params = &message["params"];
        let form = |words: &str, field: &str| {
            json!({"method": "elicitation/create", "params": {"mode": "form", "message": words,
                "requestedSchema": {"type": "object", "properties": {field: {"type": "string"}}}}})
        };
        // Written by hand, because the state is not as a serializer would write it.
        let asks = |asked: &Value, state: &str| {
            let (id, asked) = (&message["id"], json!({"asked": asked}));
            let mut out = std::io::stdout().lock();
            let line = format!(
                r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{asked},"requestState":"{state}"}}}}"#
            );
            let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        };
        let state = params["requestState"].as_str().unwrap_or_default();
        let given = &params["inputResponses"]["asked"]["content"];
        match params["name"].as_str().unwrap_or_default() {
            "book" if state.is_empty() => asks(&form("who?", "name"), r"s\u0074ate 1"),
            "book" if state == "state 1" => {
                asks(&form("when?", "day"), &format!("2 {}", given["name"].as_str().unwrap_or_default()))
            }
            "book" => {
                let mut result = text(&format!("{} on {}", &state[2..], given["day"].as_str().unwrap_or_default()));
                result["resultType"] = json!("complete");
                self.answer(message, result);
            }
            "greet" => {
                asks(&json!({"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}}), "s")
            }
            "endless" => asks(&form("again?", "name"), "s"),
            "sleep" => {}
            _ => {
                let mut result = text(&params["arguments"].to_string());
                result["resultType"] = json!("complete");
                self.answer(message, result);
            }
        }
    }
}
