//! Transports towards servers besides the common ones: HTTP+SSE of 2024-11-05, and streams that are resumed. The servers
//! are real ones on sockets; the clients are an agent over HTTP, a wrap, and a client's file that was adopted.

use std::{
    collections::HashMap,
    fs,
    io::Write,
    net::{Shutdown, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};

use crate::{
    bounds::{bounded, works},
    played::{Asked, GoesOn, Played, respond, result_of, well},
    support::{Agent, Client, Up, answer, cairn, events, http, outcomes, run, text, wait_for},
};

const EVENTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n";

/// A server of 2024-11-05: one stream for each session, and an address of its own to post to.
#[derive(Clone, Default)]
struct Sse {
    streams: Arc<Mutex<HashMap<String, TcpStream>>>,
    /// Calls that wait for what another call brings.
    held: Arc<Mutex<Vec<Value>>>,
}

impl Sse {
    fn start(&self) -> Played {
        let server = self.clone();
        Played::start(move |asked, stream| server.answer(asked, stream))
    }

    fn say(&self, session: &str, message: &Value) {
        let streams = self.streams.lock().expect("nobody panicked");
        if let Some(mut stream) = streams.get(session) {
            let _ = stream.write_all(format!("event: message\r\ndata: {message}\r\n\r\n").as_bytes());
        }
    }

    /// Breaks every stream.
    fn hang_up(&self) {
        for (_, stream) in self.streams.lock().expect("nobody panicked").drain() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn answer(&self, asked: &Asked, stream: &mut TcpStream) -> GoesOn {
        if asked.header("authorization") != Some("Bearer s3cret") {
            return respond(stream, 401, "text/plain", b"who are you?");
        }
        if asked.method == "GET" && asked.path == "/sse" {
            let mut streams = self.streams.lock().expect("nobody panicked");
            let session = format!("s{}", streams.len() + 1);
            let named = format!(": welcome\n\nevent: endpoint\ndata: /messages?session={session}\n\n");
            let opened = stream.write_all(format!("{EVENTS}{named}").as_bytes()).is_ok();
            streams.insert(session, stream.try_clone().expect("a handle"));
            return opened;
        }
        let Some(session) = asked.path.strip_prefix("/messages?session=").filter(|_| asked.method == "POST") else {
            return respond(stream, 404, "text/plain", b"");
        };
        // As the transport has it: accepted at once, answered on the other stream.
        let accepted = respond(stream, 202, "text/plain", b"Accepted");
        if asked.body["method"].is_null() {
            // The client's answer to what was asked of it ends the call that asked.
            let text = asked.body["result"]["roots"][0]["uri"].as_str().unwrap_or("nothing").to_owned();
            for id in self.held.lock().expect("nobody panicked").drain(..) {
                let content = json!([{ "type": "text", "text": text }]);
                self.say(session, &json!({ "jsonrpc": "2.0", "id": id, "result": { "content": content } }));
            }
            return accepted;
        }
        let Some(mut result) = result_of(asked) else { return accepted };
        let id = &asked.body["id"];
        match (asked.rpc(), asked.body["params"]["name"].as_str()) {
            ("initialize", _) => result["result"]["protocolVersion"] = json!("2024-11-05"),
            ("tools/call", Some("progress")) => {
                let token = &asked.body["params"]["_meta"]["progressToken"];
                for step in 1..=3 {
                    let params = json!({ "progressToken": token, "progress": step, "total": 3 });
                    self.say(
                        session,
                        &json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params }),
                    );
                }
            }
            // Answered when another call comes: the second is answered first.
            ("tools/call", Some("held")) => {
                self.held.lock().expect("nobody panicked").push(id.clone());
                return accepted;
            }
            ("tools/call", Some("release")) => {
                self.say(session, &result);
                for id in self.held.lock().expect("nobody panicked").drain(..) {
                    let content = json!([{ "type": "text", "text": "released" }]);
                    self.say(session, &json!({ "jsonrpc": "2.0", "id": id, "result": { "content": content } }));
                }
                return accepted;
            }
            ("tools/call", Some("roots")) => {
                self.held.lock().expect("nobody panicked").push(id.clone());
                self.say(session, &json!({ "jsonrpc": "2.0", "id": "ask-1", "method": "roots/list" }));
                return accepted;
            }
            ("tools/call", Some("hangs-up")) => {
                self.hang_up();
                return accepted;
            }
            _ => {}
        }
        self.say(session, &result);
        accepted
    }
}

fn said(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

/// The messages of an answer that came as events.
fn messages(body: &str) -> Vec<Value> {
    let events = body.lines().filter_map(|line| line.strip_prefix("data: "));
    events.map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"))).collect()
}

/// One outcome for each intent of that server; how many there are.
fn settled(data: &Path, server: &str) -> usize {
    let of = |kind: &str| {
        let found = events(data).into_iter().filter(|event| event["type"] == kind && event["data"]["server"] == server);
        found.map(|event| event["data"]["call_id"].to_string()).collect::<std::collections::BTreeSet<_>>()
    };
    wait_for("the outcomes", || Some(of("call.outcome")).filter(|outcomes| *outcomes == of("call.intent"))).len()
}

#[test]
fn a_server_of_2024_11_05_works_over_http() {
    let folder = tempfile::tempdir().expect("a folder");
    let sse = Sse::default();
    let server = sse.start();
    let old = format!(
        "[servers.old]\ntype = \"sse\"\nurl = \"http://{}/sse\"\nheaders = {{ authorization = \"Bearer s3cret\" }}\n",
        server.address
    );
    let up = bounded(folder.path(), "", &old);
    let agent = Agent::connect(&up.gateway, "old");
    assert_eq!(said(&agent.call("echo", &json!({}))), "echoed");
    // Progress comes on the stream of the call that gave the token, before its answer.
    let params = json!({ "name": "progress", "arguments": {}, "_meta": { "progressToken": 99 } });
    let body =
        answer(agent.post(&json!({ "jsonrpc": "2.0", "id": "p", "method": "tools/call", "params": params }))).body;
    let seen = messages(&body);
    assert_eq!(seen.len(), 4, "{body}");
    assert!(
        seen[..3]
            .iter()
            .enumerate()
            .all(|(n, notice)| notice["params"]["progress"] == json!(n + 1) && notice["params"]["progressToken"] == 99),
        "{body}"
    );
    assert_eq!((&seen[3]["id"], said(&seen[3])), (&json!("p"), "echoed"));
    // Two at once, answered in another order than asked.
    let first = agent.ask("held", &json!({}));
    wait_for("the first call", || (server.calls() == 3).then_some(()));
    assert_eq!(said(&agent.call("release", &json!({}))), "echoed");
    assert_eq!(said(&answer(first).json()), "released");
    // A modern client is bridged to it.
    let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" } });
    let params = json!({ "name": "echo", "arguments": {}, "_meta": meta });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
    ];
    let modern = http(&up.gateway, "POST /mcp/old", &headers, &call);
    assert!(modern.body.contains("echoed") && modern.body.contains("resultType"), "{modern:?}");

    // The stream ends under a call: nobody knows what became of it, and a new session goes on.
    let lost = agent.call("hangs-up", &json!({}));
    assert_eq!(lost["error"]["data"]["cairn"], "upstream_lost", "{lost}");
    let over = answer(agent.ask("echo", &json!({})));
    assert!(over.status == 404 && over.body.contains("send initialize again"), "clients know what to do: {over:?}");
    let again = Agent::connect(&up.gateway, "old");
    assert_eq!(said(&again.call("echo", &json!({}))), "echoed");
    works(&up);
    let data = folder.path().join("data");
    assert_eq!(settled(&data, "old"), 2 + 1 + 1 + 2 + 1 + 1 + 1, "each call is in the trail");
    let unknown = outcomes(&data).into_iter().filter(|o| o["server"] == "old" && o["effect"] == "unknown").count();
    assert_eq!(unknown, 1);
    up.end();
}

#[test]
fn a_server_of_2024_11_05_works_wrapped_and_adopted() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let sse = Sse::default();
    let server = sse.start();
    let up = Up::start(&data, &[]);
    let url = format!("http://{}/sse", server.address);
    let mut wrap = cairn();
    wrap.arg("wrap").arg("--data").arg(&data).args(["--name", "old", "--sse", "--url", &url]);
    let mut client = Client::start(wrap.args(["--header", "Authorization: Bearer s3cret"]));
    assert_eq!(client.initialize()["result"]["protocolVersion"], "2024-11-05");
    assert_eq!(said(&client.call("echo", json!({}))), "echoed");
    // What the server asks within a call reaches the client, and its answer the server.
    let call = client.ask("tools/call", json!({ "name": "roots", "arguments": {} }));
    let asked = client.line().expect("a request");
    assert_eq!((&asked["method"], &asked["id"]), (&json!("roots/list"), &json!("ask-1")), "{asked}");
    client.send(&json!({ "jsonrpc": "2.0", "id": "ask-1", "result": { "roots": [{ "uri": "file:///home" }] } }));
    let answered = client.line().expect("an answer");
    assert_eq!((&answered["id"], said(&answered)), (&json!(call), "file:///home"));
    let (status, errors) = client.close();
    assert!(status.success() && errors.is_empty(), "{status}: {errors}");
    wait_for("the end of its session", || (settled(&data, "old") == 4).then_some(()));

    // The same by way of a client's own file.
    let file = folder.path().join("mcp.json");
    let entry = json!({ "type": "sse", "url": url, "headers": { "Authorization": "Bearer s3cret" } });
    fs::write(&file, json!({ "mcpServers": { "remote": entry } }).to_string()).expect("written");
    let adopted = run(cairn().arg("adopt").arg(&file).arg("--data").arg(&data).arg("--yes"));
    assert!(adopted.status.success(), "{}", text(&adopted.stderr));
    let adopted: Value = serde_json::from_slice(&fs::read(&file).expect("there")).expect("JSON");
    let remote = &adopted["mcpServers"]["remote"];
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().expect("a list").iter().map(|word| word.as_str().expect("a text").to_owned()).collect()
    };
    let mut command = std::process::Command::new(remote["command"].as_str().expect("a program"));
    command.args(strings(&remote["args"])).env_remove("CAIRN_DATA");
    for (name, value) in remote["env"].as_object().expect("variables") {
        command.env(name, value.as_str().expect("a text"));
    }
    let mut client = Client::start(&mut command);
    assert_eq!(client.initialize()["result"]["serverInfo"]["name"], "played");
    assert_eq!(said(&client.call("echo", json!({}))), "echoed");
    client.close();
    assert_eq!(settled(&data, "remote"), 2);
    up.end();
}

/// Closes the stream of a call before its answer, which comes on one that is resumed.
fn resumable(asked: &Asked, stream: &mut TcpStream, id: &Mutex<Value>) -> GoesOn {
    if asked.method == "GET" {
        if asked.header("last-event-id") != Some("e-1") {
            return respond(stream, 405, "text/plain", b"");
        }
        let id = id.lock().expect("nobody panicked").clone();
        let content = json!([{ "type": "text", "text": "resumed" }]);
        let message = json!({ "jsonrpc": "2.0", "id": id, "result": { "content": content } });
        let _ = stream.write_all(format!("{EVENTS}id: e-2\ndata: {message}\n\n").as_bytes());
        return false;
    }
    if asked.rpc() == "initialize" {
        let result = result_of(asked).expect("a request").to_string();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: session-1\r\n";
        return stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{result}", result.len()).as_bytes()).is_ok();
    }
    if asked.rpc() != "tools/call" || asked.body["params"]["name"] != "later" {
        return well(asked, stream);
    }
    *id.lock().expect("nobody panicked") = asked.body["id"].clone();
    let head = EVENTS.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(format!("{head}id: e-1\nretry: 10\ndata: \n\n").as_bytes());
    false
}

#[test]
fn a_stream_that_ends_before_its_answer_is_resumed_and_the_call_has_one_outcome() {
    let folder = tempfile::tempdir().expect("a folder");
    let id = Arc::new(Mutex::new(Value::Null));
    let server = Played::start(move |asked, stream| resumable(asked, stream, &id));
    let up = bounded(folder.path(), "", &format!("[servers.far]\nurl = \"{}\"\n", server.url()));
    let data = folder.path().join("data");
    // On a pipe nobody could ask for the rest, so the gateway does.
    let mut wrap = cairn();
    wrap.arg("wrap").arg("--data").arg(&data).args(["--name", "piped", "--url", &server.url()]);
    let mut client = Client::start(&mut wrap);
    client.initialize();
    assert_eq!(said(&client.call("later", json!({}))), "resumed");
    client.close();
    assert_eq!(settled(&data, "piped"), 2);

    // Over HTTP the client asks, with the server's own event id; the answer is joined to the call.
    let agent = Agent::connect(&up.gateway, "far");
    assert_eq!(agent.session, "session-1", "the server's own");
    let ended = answer(agent.ask("later", &json!({})));
    assert!(ended.body.contains("id: e-1") && !ended.body.contains("\"id\""), "{ended:?}");
    let session = [("mcp-session-id", "session-1"), ("accept", "text/event-stream")];
    let rest = [&session[..], &[("last-event-id", "e-1")]].concat();
    let rest = http(&up.gateway, "GET /mcp/far", &rest, "");
    let seen = messages(&rest.body);
    assert!(rest.body.contains("id: e-2") && seen.len() == 1, "{rest:?}");
    assert_eq!(said(&seen[0]), "resumed");
    // Whoever asks once more gets it once more, and the trail has it once.
    let again = http(&up.gateway, "GET /mcp/far", &[&session[..], &[("last-event-id", "e-1")]].concat(), "");
    assert_eq!(messages(&again.body), seen);
    assert_eq!(settled(&data, "far"), 2);
    up.end();
}
