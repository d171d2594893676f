//! MCP servers that do what they must not. Whatever they do: the client gets one clear answer, the next call works, other
//! servers go on, memory stays bounded, and the trail has exactly one outcome for each intent.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use crate::{
    bounds::{bounded, gauge, works},
    played::{Asked, GoesOn, Played, respond, result_of, well},
    support::{Agent, Answer, Up, answer, events, wait_for},
};

/// What one message may have in these tests, in bytes.
const MESSAGE_BYTES_MAX: usize = 200_000;
/// What a hostile server may make `up` hold at most, in KiB: far less than what it sends.
const GROWTH_KIB_MAX: u64 = 96 << 10;

/// A server on standard streams whose tools are named after what they do.
const SCRIPT: &str = r#"
answer() { printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$1" "$2"; }
said() { answer "$1" "{\"content\":[{\"type\":\"text\",\"text\":\"$2\"}]}"; }
echo started >> "$1/starts.txt"
if [ -e "$1/broken" ]; then echo "the licence has run out" >&2; exit 3; fi
while IFS= read -r line; do
  rest=${line#*\"id\":}; id=${rest%%[,\}]*}
  case "$line" in
  *'"initialize"'*) answer "$id" '{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"bad","version":"1"}}' ;;
  *'"notifications/'*) ;;
  *'"well"'*) said "$id" fine ;;
  *'"silent"'*) ;;
  *'"endless"'*) tr '\0' x < /dev/zero ;;
  *'"twice"'*) said "$id" first; said "$id" second; said "$id" third ;;
  *'"others"'*) said 4711 stolen; said '"x"' stolen; answer null '{}'; said "$id" own ;;
  *'"garbage"'*)
    echo 'listening on port 3000'; echo; echo '{'; echo '[]'; echo 'null'; printf '\377\376\n'; echo '{"jsonrpc":"1.0"}'
    echo '[{"jsonrpc":"2.0","method":"x"}]'; printf '\0\0\0\n'; said "$id" found ;;
  *'"lies"'*) printf '{"jsonrpc":"2.0","id":%s,"result":{},"result":{"content":[]}}\n' "$id" ;;
  *'"deep"'*) printf '{"jsonrpc":"2.0","id":%s,"result":' "$id"; head -c 50000 /dev/zero | tr '\0' '['; head -c 50000 /dev/zero | tr '\0' ']'; echo '}' ;;
  *'"flood"'*)
    n=0; while [ $n -lt 3000 ]; do n=$((n + 1)); echo '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"more and more"}}'; done
    said "$id" above ;;
  *'"asks"'*)
    n=0; while [ $n -lt 3000 ]; do n=$((n + 1)); echo "{\"jsonrpc\":\"2.0\",\"id\":\"ask-$n\",\"method\":\"ping\"}"; done
    said "$id" asked ;;
  *'"shouts"'*) head -c 60000000 /dev/zero | tr '\0' y >&2; said "$id" heard ;;
  *'"shouts-and-dies"'*) head -c 60000000 /dev/zero | tr '\0' y >&2; echo 'my last words' >&2; exit 3 ;;
  *'"dies"'*) echo 'my last words' >&2; exit 3 ;;
  *'"deaf"'*) exec 0<&-; sleep 1000 ;;
  *) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no such method"}}\n' "$id" ;;
  esac
done
"#;

/// The configuration of the server `bad` that plays the script.
fn scripted(folder: &Path) -> String {
    let script = folder.join("bad.sh");
    fs::write(&script, SCRIPT).expect("written");
    format!("[servers.bad]\ncommand = \"sh\"\nargs = {}\n", json!([script, folder]))
}

fn resident_kib(up: &Up) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", up.process.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The outcomes of a server's calls, once each intent has one; never more than that.
fn settled(data: &Path, server: &str) -> Vec<Value> {
    let of = |events: &[Value], kind: &str| -> Vec<Value> {
        let found = events.iter().filter(|event| event["type"] == kind && event["data"]["server"] == server);
        found.map(|event| event["data"].clone()).collect()
    };
    let outcomes = wait_for("an outcome for each intent", || {
        let events = events(data);
        let outcomes = of(&events, "call.outcome");
        (of(&events, "call.intent").len() == outcomes.len()).then_some(outcomes)
    });
    let ids: BTreeSet<_> = outcomes.iter().map(|outcome| outcome["call_id"].to_string()).collect();
    assert_eq!(ids.len(), outcomes.len(), "exactly one for each: {outcomes:?}");
    outcomes
}

fn said(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

#[track_caller]
fn fails(answer: &Value, word: &str, says: &[&str]) {
    assert_eq!(answer["error"]["data"]["cairn"], word, "{answer}");
    let words = answer["error"]["message"].as_str().expect("words");
    assert!(says.iter().all(|part| words.contains(part)), "{says:?} in {words}");
    assert!(words.len() < 20_000, "{} bytes of words", words.len());
}

/// The answer to a call, whatever came before it on its stream.
fn last(answer: &Answer) -> Value {
    let events = answer.body.lines().filter_map(|line| line.strip_prefix("data: "));
    let answers = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let answers: Vec<_> =
        answers.filter(|message| message.get("id").is_some() && message.get("method").is_none()).collect();
    match answers.as_slice() {
        [] => answer.json(),
        [one] => one.clone(),
        more => panic!("a call has one answer: {more:?}"),
    }
}

#[test]
fn a_child_that_misbehaves_harms_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = scripted(folder.path());
    // So many calls that what the server asks fills every queue between it and the client.
    let limits =
        format!("message_bytes_max = {MESSAGE_BYTES_MAX}\ncall_timeout_ms = 6000\ncalls_per_client_max = 1000");
    let up = bounded(folder.path(), &format!("{limits}\nclient_queue_max = 64"), &bad);
    let data = folder.path().join("data");
    let agent = Agent::connect(&up.gateway, "bad");
    let call = |tool: &str| last(&answer(agent.ask(tool, &json!({}))));
    assert_eq!(said(&call("well")), "fine");
    works(&up);
    let before = resident_kib(&up);

    assert_eq!(said(&call("twice")), "first");
    assert_eq!(said(&call("others")), "own");
    assert_eq!(said(&call("garbage")), "found");
    assert_eq!(said(&call("flood")), "above");
    assert_eq!(said(&call("asks")), "asked");
    assert_eq!(said(&call("shouts")), "heard");
    fails(&call("lies"), "upstream_lost", &["refused"]);
    fails(&call("deep"), "upstream_lost", &["nested deeper", "nesting_depth_max"]);
    fails(&call("silent"), "timed_out", &["6000 ms", "call_timeout_ms"]);
    assert_eq!(said(&call("well")), "fine", "the same child goes on after all of these");
    let starts = || fs::read_to_string(folder.path().join("starts.txt")).expect("written").lines().count();
    let started = starts();
    fails(&call("endless"), "upstream_lost", &["200000 bytes", "message_bytes_max"]);
    assert_eq!(said(&call("well")), "fine", "a new child, with the handshake made anew");
    fails(&call("dies"), "upstream_lost", &["exit status: 3", "my last words"]);
    assert_eq!(said(&call("well")), "fine");
    fails(&call("shouts-and-dies"), "upstream_lost", &["my last words"]);
    assert_eq!(said(&call("well")), "fine");
    assert_eq!(starts(), started + 3, "one start for each end");
    assert!(call("deaf")["error"].is_object());
    wait_for("another child", || (call("well")["result"].is_object()).then_some(()));

    works(&up);
    let grown = resident_kib(&up).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "it grew by {grown} KiB");
    let outcomes = settled(&data, "bad");
    let lost = outcomes.iter().filter(|outcome| outcome["error_type"] == "upstream_lost");
    assert!(lost.clone().count() >= 5 && lost.clone().all(|outcome| outcome["effect"] == "unknown"), "{outcomes:?}");
    up.end();
}

#[test]
fn a_child_that_keeps_dying_is_started_less_and_less_often_and_its_last_words_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let bad = scripted(folder.path());
    let up = bounded(folder.path(), "server_restart_ms_max = 700", &bad);
    let agent = Agent::connect(&up.gateway, "bad");
    assert_eq!(said(&agent.call("well", &json!({}))), "fine");
    fs::write(folder.path().join("broken"), "").expect("written");
    fails(&agent.call("dies", &json!({})), "upstream_lost", &["my last words"]);
    let starts = || fs::read_to_string(folder.path().join("starts.txt")).expect("written").lines().count();
    let before = starts();
    for _ in 0..12 {
        fails(
            &agent.call("well", &json!({})),
            "upstream_unavailable",
            &["the licence has run out", "nothing was sent"],
        );
    }
    assert!((1..12).contains(&(starts() - before)), "{} starts for 12 calls", starts() - before);
    // Somebody new hears the same, and others nothing of it.
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
    let refused = answer(Agent::new(&up.gateway, "bad").post(&hello)).json();
    assert!(refused["error"]["message"].as_str().expect("words").contains("the licence has run out"), "{refused}");
    works(&up);
    fs::remove_file(folder.path().join("broken")).expect("removed");
    wait_for("the server", || agent.call("well", &json!({}))["result"].is_object().then_some(()));
    settled(&folder.path().join("data"), "bad");
    up.end();
}

/// Reads until the other side has had enough.
fn until_gone(stream: &mut TcpStream) -> GoesOn {
    let mut rest = [0; 1024];
    while matches!(stream.read(&mut rest), Ok(1..)) {}
    false
}

fn pour(stream: &mut TcpStream, part: &[u8]) -> GoesOn {
    while stream.write_all(part).is_ok() {}
    false
}

fn event(message: &Value) -> String {
    format!("data: {message}\n\n")
}

/// What a tool of the HTTP server does; each named after it.
fn misbehave(asked: &Asked, stream: &mut TcpStream, elsewhere: &str) -> GoesOn {
    let Some(tool) = asked.body["params"]["name"].as_str() else { return well(asked, stream) };
    let part = vec![b'x'; 64 << 10];
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
    let json_head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let own = result_of(asked).expect("it is a call");
    let other =
        json!({ "jsonrpc": "2.0", "id": 4711, "result": { "content": [{ "type": "text", "text": "stolen" }] } });
    let notice =
        json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": "more" } });
    let write = |stream: &mut TcpStream, texts: &[&str]| {
        let _ = texts.iter().try_for_each(|text| stream.write_all(text.as_bytes()));
        false
    };
    match tool {
        "no-body" => {
            write(stream, &[json_head, "Content-Length: 100\r\n\r\n{"]);
            until_gone(stream)
        }
        "no-head" => until_gone(stream),
        "huge" => {
            write(stream, &[json_head, "Content-Length: 1000000000000\r\n\r\n"]);
            pour(stream, &part)
        }
        "endless" => {
            write(stream, &[json_head, "\r\n"]);
            pour(stream, &part)
        }
        "endless-head" => {
            write(stream, &["HTTP/1.1 200 OK\r\nX-Much: "]);
            pour(stream, &part)
        }
        "endless-event" => {
            write(stream, &[events, "data: "]);
            pour(stream, &part)
        }
        "endless-notices" => {
            write(stream, &[events]);
            pour(stream, event(&notice).as_bytes())
        }
        "flood" => write(stream, &[events, &event(&notice).repeat(3_000), &event(&own)]),
        "stream-ends" => write(stream, &[events, &event(&notice)]),
        "twice" => write(stream, &[events, &event(&own), &event(&own), &event(&other)]),
        "others" => write(stream, &[events, &event(&other), "data: garbage\n\n"]),
        "other-first" => write(stream, &[events, &event(&other), &event(&own)]),
        "other" => respond(stream, 200, "application/json", other.to_string().as_bytes()),
        "html" => respond(stream, 200, "text/html", b"<h1>welcome</h1>"),
        "broken" => respond(stream, 200, "application/json", b"{\"jsonrpc\":\"2.0\","),
        "error" => respond(stream, 500, "text/html", b"<h1>oops</h1>"),
        "elsewhere" => {
            let head = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{elsewhere}/mcp\r\nContent-Length: 0\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).is_ok()
        }
        "no-http" => write(stream, &["what do you want?\r\n\r\n"]),
        "hangs-up" => false,
        "asks" => {
            let asks =
                (0..150).map(|n| event(&json!({ "jsonrpc": "2.0", "id": format!("ask-{n}"), "method": "ping" })));
            write(stream, &[events, &asks.collect::<String>(), &event(&own)])
        }
        "null" => write(
            stream,
            &[events, &event(&json!({ "jsonrpc": "2.0", "id": null, "error": { "code": -1, "message": "no" } }))],
        ),
        _ => well(asked, stream),
    }
}

#[test]
fn an_http_server_that_misbehaves_harms_nobody_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let visits = Arc::new(AtomicUsize::new(0));
    let elsewhere = Played::start({
        let visits = visits.clone();
        move |asked, stream| {
            visits.fetch_add(1, Ordering::SeqCst);
            well(asked, stream)
        }
    });
    let address = elsewhere.address.clone();
    let server = Played::start(move |asked, stream| misbehave(asked, stream, &address));
    let bad = format!("[servers.bad]\nurl = \"{}\"\nheaders = {{ authorization = \"Bearer s3cret\" }}\n", server.url());
    let limits = format!("message_bytes_max = {MESSAGE_BYTES_MAX}\ncall_timeout_ms = 6000\nclient_queue_max = 64");
    let up = bounded(folder.path(), &limits, &bad);
    let data = folder.path().join("data");
    let agent = Agent::new(&up.gateway, "bad");
    let ask = |tool: &str| answer(agent.ask(tool, &json!({})));
    let call = |tool: &str| last(&ask(tool));
    assert_eq!(said(&call("well")), "echoed");
    works(&up);
    let before = resident_kib(&up);

    fails(&call("no-body"), "timed_out", &["call_timeout_ms"]);
    fails(&call("no-head"), "timed_out", &["call_timeout_ms"]);
    for tool in ["huge", "endless", "endless-event"] {
        fails(&call(tool), "upstream_lost", &["200000 bytes", "message_bytes_max"]);
    }
    for tool in ["endless-head", "broken", "no-http", "hangs-up", "other", "stream-ends", "others"] {
        fails(&call(tool), "upstream_lost", &["not known"]);
    }
    fails(&call("endless-notices"), "timed_out", &["call_timeout_ms"]);
    for tool in ["flood", "twice", "other-first", "asks"] {
        assert_eq!(said(&call(tool)), "echoed", "{tool}");
    }
    let refusals = gauge(&up, "cairn_refusals_total{reason=\"busy\"}");
    assert!(refusals > 50.0, "the server may ask as much as a client may call: {refusals} were refused");
    assert_eq!(call("null")["error"]["message"], "no", "an error that names nobody is for the only one who asks");
    let html = ask("html");
    assert_eq!((html.status, html.body.as_str()), (200, "<h1>welcome</h1>"), "what is no MCP comes as it came");
    let error = ask("error");
    assert_eq!((error.status, error.body.as_str()), (500, "<h1>oops</h1>"));
    assert_eq!(ask("elsewhere").status, 307);
    assert_eq!(visits.load(Ordering::SeqCst), 0, "no redirect is followed, least of all with credentials");

    assert_eq!(said(&call("well")), "echoed");
    works(&up);
    let grown = resident_kib(&up).saturating_sub(before);
    assert!(grown < GROWTH_KIB_MAX, "it grew by {grown} KiB");
    let outcomes = settled(&data, "bad");
    let calls = outcomes.iter().filter(|outcome| outcome["mcp_method_name"] == "tools/call").count();
    assert_eq!(calls, server.calls(), "each was sent once");
    up.end();
}
