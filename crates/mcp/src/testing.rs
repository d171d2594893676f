//! Servers for this crate's tests: a child process that is this very test binary, told by a variable what to play, and
//! an HTTP server on loopback. Called by tests only.

use std::{
    collections::BTreeMap,
    io::{BufRead, Write},
};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{Content, Exchange, LinkError, Message, StdioCommand};

const ROLE: &str = "TEST_SERVER_ROLE";

/// A command that runs this test binary in a role.
pub(crate) fn server(role: &str) -> StdioCommand {
    let command = std::env::current_exe().expect("a test has a binary").into_os_string();
    let args = ["testing::play_the_server", "--exact", "--nocapture", "--test-threads=1"].map(Into::into).to_vec();
    let env = BTreeMap::from([(ROLE.into(), role.into()), ("CAIRN_FROM_CONFIG".into(), "secret".into())]);
    StdioCommand { command, args, env, ..StdioCommand::default() }
}

/// Not a test: where the variable is set, this process is a server.
#[test]
fn play_the_server() {
    if let Ok(role) = std::env::var(ROLE) {
        play(&role);
        std::process::exit(0);
    }
}

fn say(value: &Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}").expect("the parent reads");
    out.flush().expect("the parent reads");
}

fn play(role: &str) {
    // The test harness has begun a line of its own.
    println!();
    if role == "stubborn" {
        eprintln!("I do not heed a closed stdin");
        say(&json!({"jsonrpc": "2.0", "method": "notifications/ready"}));
        loop {
            std::thread::park();
        }
    }
    if role == "failing" {
        eprintln!("cannot find the database");
        std::process::exit(3);
    }
    let mut open = role != "session";
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("the parent writes text");
        let request: Value = serde_json::from_str(&line).expect("the parent writes JSON");
        let (id, params) = (request["id"].clone(), &request["params"]);
        match request["method"].as_str().unwrap_or_default() {
            "initialize" => say(&json!({"jsonrpc": "2.0", "id": id, "result": {}})),
            "notifications/initialized" => open = true,
            _ => {}
        }
        if !open {
            continue;
        }
        match request["method"].as_str().unwrap_or_default() {
            "echo" => {
                if !params["_meta"]["progressToken"].is_null() {
                    let token = &params["_meta"]["progressToken"];
                    say(&json!({"jsonrpc": "2.0", "method": "notifications/progress",
                        "params": {"progressToken": token, "progress": 1}}));
                }
                say(&json!({"jsonrpc": "2.0", "id": id, "result": {"line": line}}));
            }
            "env" => {
                let own: Vec<String> =
                    std::env::vars().map(|(name, _)| name).filter(|n| n.starts_with("CAIRN_")).collect();
                say(&json!({"jsonrpc": "2.0", "id": id, "result": {"own": own, "pid": std::process::id()}}));
            }
            "subscriptions/listen" => {
                let meta = json!({"io.modelcontextprotocol/subscriptionId": id});
                say(
                    &json!({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": {"_meta": meta}}),
                );
                say(
                    &json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": {"_meta": meta}}),
                );
                say(&json!({"jsonrpc": "2.0", "id": id, "result": {"_meta": meta}}));
            }
            "noise" => {
                println!("starting up {{not json");
                say(&json!({"jsonrpc": "2.0", "id": id, "result": {}}));
            }
            "twice" => println!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"a":1,"a":2}}}}"#),
            "long" => println!(r#"{{"jsonrpc":"2.0","id":{id},"result":"{}"}}"#, "x".repeat(100_000)),
            "die" => {
                eprintln!("out of cheese");
                std::process::exit(7);
            }
            "last words" => {
                say(&json!({"jsonrpc": "2.0", "id": id, "result": {}}));
                std::process::exit(0);
            }
            "ask" => say(&json!({"jsonrpc": "2.0", "id": 1, "method": "roots/list"})),
            "notifications/cancelled" => {
                say(&json!({"jsonrpc": "2.0", "method": "notifications/heard", "params": {"line": line}}));
            }
            _ => {}
        }
    }
}

/// A message from text.
pub(crate) fn message(text: &str) -> Message {
    Message::parse(Bytes::from(text.to_owned()), &crate::Limits::default()).expect("a valid message")
}

/// All messages of an exchange, and the error that ended it.
pub(crate) async fn all(exchange: Exchange) -> (Vec<Message>, Option<LinkError>) {
    match exchange.content {
        Content::Json(message) => (vec![message], None),
        Content::Stream(mut frames) => {
            let mut messages = Vec::new();
            while let Some(frame) = frames.recv().await {
                match frame {
                    Ok(frame) => messages.extend(frame.message),
                    Err(error) => return (messages, Some(error)),
                }
            }
            (messages, None)
        }
        Content::Empty | Content::Other { .. } => (Vec::new(), None),
    }
}
