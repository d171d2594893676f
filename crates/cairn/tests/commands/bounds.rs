//! The bounds of the gateway, from outside: each has a default, a setting, an error that names the setting, and harms
//! nothing else: the next call works.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use crate::{
    played::{Played, well},
    support::{Agent, Answer, Client, LONG, TOKEN, Up, answer, cairn, http, outcomes, sample, wait_for},
};

/// More than a client's and a server's socket buffers hold together: who writes it is read, or hears a broken pipe.
const MUCH_BYTES: usize = 24 << 20;

/// A `cairn.toml` with these limits, the sample server as `orders`, and whatever else.
pub(crate) fn configured(folder: &Path, limits: &str, rest: &str) -> PathBuf {
    let words = sample(&folder.join("journal.txt"));
    let (command, args) = (json!(words[0]), json!(words[1..]));
    let path = folder.join("cairn.toml");
    let orders = format!("[servers.orders]\ncommand = {command}\nargs = {args}\n");
    fs::write(&path, format!("[gateway.limits]\n{limits}\n{orders}{rest}")).expect("written");
    path
}

/// An `up` with such a configuration.
pub(crate) fn bounded(folder: &Path, limits: &str, rest: &str) -> Up {
    let config = configured(folder, limits, rest);
    Up::start(&folder.join("data"), &["--config", &config.display().to_string()])
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(LONG)).expect("a limit");
    stream.set_write_timeout(Some(LONG)).expect("a limit");
    stream
}

/// Writes all of it before it reads anything, as most clients do.
fn written_first(address: &str, head: &str, parts: impl IntoIterator<Item = Vec<u8>>) -> Answer {
    let mut stream = connect(address);
    let head = format!("{head}\r\nHost: {address}\r\nContent-Type: application/json\r\n");
    stream.write_all(head.as_bytes()).expect("the head is taken");
    for part in parts {
        stream.write_all(&part).expect("the body is taken to its end");
    }
    answer(stream)
}

fn announced(body: &[u8]) -> [Vec<u8>; 2] {
    [format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes(), body.to_vec()]
}

/// The number of a series on the admin address.
pub(crate) fn gauge(up: &Up, series: &str) -> f64 {
    let page = http(&up.admin, "GET /metrics", &[], "").body;
    let line = page.lines().find(|line| line.split(' ').next() == Some(series));
    let line = line.unwrap_or_else(|| panic!("no {series}"));
    line.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("a number: {line}"))
}

/// What must still work whatever was refused.
pub(crate) fn works(up: &Up) {
    let agent = Agent::connect(&up.gateway, "orders");
    let answer = agent.call("get_order", &json!({ "order_id": "order-1" }));
    assert!(answer.get("result").is_some(), "{answer}");
}

#[track_caller]
fn says(answer: &Answer, status: u16, words: &[&str]) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(words.iter().all(|word| answer.body.contains(word)), "{words:?} in {answer:?}");
}

#[test]
fn a_client_that_writes_everything_first_hears_why_it_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = bounded(folder.path(), "message_bytes_max = 65536", "");
    let body = vec![b' '; MUCH_BYTES];
    let too_large = ["-31010", "65536", "message_bytes_max"];
    let refused = written_first(&up.gateway, "POST /mcp/orders HTTP/1.1", announced(&body));
    says(&refused, 200, &too_large);
    assert_eq!(refused.header("connection").as_deref(), Some("close"), "{refused:?}");
    // The same where nobody knows the length before the end.
    let chunk = [format!("{:x}\r\n", 1 << 20).as_bytes(), &vec![b' '; 1 << 20], b"\r\n"].concat();
    let chunks = std::iter::once(b"Transfer-Encoding: chunked\r\n\r\n".to_vec())
        .chain(std::iter::repeat_n(chunk, MUCH_BYTES >> 20))
        .chain([b"0\r\n\r\n".to_vec()]);
    says(&written_first(&up.gateway, "POST /mcp/orders HTTP/1.1", chunks), 200, &too_large);

    let other_host = "POST /mcp/orders HTTP/1.1\r\nOrigin: https://evil.example";
    says(&written_first(&up.gateway, other_host, announced(&body)), 403, &["evil.example", "gateway.origins"]);
    says(&written_first(&up.gateway, "POST /mcp/other HTTP/1.1", announced(&body)), 404, &["other", "[servers]"]);
    says(&written_first(&up.gateway, "POST / HTTP/1.1", announced(&body)), 404, &["/mcp/<server>"]);
    says(&written_first(&up.gateway, "PUT /mcp/orders HTTP/1.1", announced(&body)), 405, &["POST, GET and DELETE"]);
    let head = format!("POST /mcp/orders HTTP/1.1\r\nX-Much: {}", "x".repeat(MUCH_BYTES));
    assert_eq!(written_first(&up.gateway, &head, announced(b"")).status, 431, "the rest of a long head is read too");
    works(&up);

    // A client that asks first is told before it sends anything.
    let expects = "POST /mcp/orders HTTP/1.1\r\nExpect: 100-continue";
    let length = format!("Content-Length: {MUCH_BYTES}\r\n\r\n").into_bytes();
    let told = written_first(&up.gateway, expects, [length]);
    assert!(told.head.starts_with("HTTP/1.1 200 ") && told.body.contains("message_bytes_max"), "{told:?}");
    // One whose body is read keeps its connection, however it is framed.
    let ping = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string();
    let mut stream = connect(&up.gateway);
    for last in [false, true] {
        let close = if last { "Connection: close\r\n" } else { "" };
        let head = format!("POST /mcp/orders HTTP/1.1\r\nHost: {}\r\n{close}Transfer-Encoding: chunked", up.gateway);
        write!(stream, "{head}\r\n\r\n{:x}\r\n{ping}\r\n0\r\n\r\n", ping.len()).expect("the connection is open");
    }
    assert_eq!(answer(stream).body.matches("HTTP/1.1 ").count(), 1, "the second is answered on the same connection");
    up.end();
}

#[test]
fn what_comes_too_slowly_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = bounded(folder.path(), "request_read_ms_max = 300", "");
    let named = ["300 ms", "request_read_ms_max"];
    // A head that never ends, a byte now and then; a body that never comes; a connection that says nothing at all.
    let mut slow = connect(&up.gateway);
    slow.write_all(b"POST /mcp/orders HTTP/1.1\r\nHost: loc").expect("taken");
    let head_only = format!("POST /mcp/orders HTTP/1.1\r\nHost: {}\r\nContent-Length: 10\r\n\r\n{{", up.gateway);
    let mut without_body = connect(&up.gateway);
    without_body.write_all(head_only.as_bytes()).expect("taken");
    let silent = connect(&up.gateway);
    says(&answer(slow), 408, &named);
    let late = answer(without_body);
    says(&late, 408, &named);
    assert_eq!(late.header("connection").as_deref(), Some("close"));
    let silent = answer(silent);
    assert_eq!((silent.status, silent.head.as_str()), (0, ""), "nothing was asked, so nothing is answered");
    works(&up);
    up.end();
}

fn order(agent: &Agent) -> Value {
    agent.call("get_order", &json!({ "order_id": "order-1" }))
}

/// A call that the server takes a minute for.
fn export(agent: &Agent) -> TcpStream {
    agent.ask("export_orders", &json!({ "seconds": 60 }))
}

#[track_caller]
fn busy(answer: &Value, setting: &str, limit: u64) {
    assert_eq!(answer["error"]["code"], -31004, "{answer}");
    let data = &answer["error"]["data"];
    assert_eq!((&data["cairn"], &data["setting"], &data["limit"]), (&json!("busy"), &json!(setting), &json!(limit)));
    let words = answer["error"]["message"].as_str().expect("words");
    assert!(words.contains(setting) && words.contains(&limit.to_string()) && words.contains("raise"), "{words}");
}

/// A call of this many bytes, its padding inside the arguments.
fn long_call(bytes: usize) -> String {
    let call = |padding: usize| {
        let arguments = json!({ "order_id": "order-1", "padding": "x".repeat(padding) });
        let params = json!({ "name": "get_order", "arguments": arguments });
        json!({ "jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params }).to_string()
    };
    let rest = call(0).len();
    call(bytes - rest)
}

fn posted(agent: &Agent, body: &str) -> Answer {
    let session = [("mcp-session-id", agent.session.as_str()), ("accept", "application/json, text/event-stream")];
    http(&agent.gateway, &format!("POST /mcp/{}", agent.server), &session, body)
}

#[test]
fn a_message_may_be_as_long_and_as_deep_as_the_settings_and_no_more() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = bounded(folder.path(), "message_bytes_max = 100000\nnesting_depth_max = 20", "");
    let agent = Agent::connect(&up.gateway, "orders");
    let fits = posted(&agent, &long_call(100_000));
    assert!(fits.body.contains("\"result\""), "{fits:?}");
    says(&posted(&agent, &long_call(100_001)), 200, &["-31010", "100000", "message_bytes_max"]);
    // The message, its params and its arguments are three levels of these.
    let deep = |levels: usize| {
        let nested = format!("{}1{}", "[".repeat(levels - 3), "]".repeat(levels - 3));
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":8,\"method\":\"tools/call\",\"params\":{{\"name\":\"get_order\",\"arguments\":{{\"order_id\":\"order-1\",\"deep\":{nested}}}}}}}"
        )
    };
    assert!(posted(&agent, &deep(20)).body.contains("\"result\""));
    says(&posted(&agent, &deep(21)), 200, &["-31010", "20 levels", "nesting_depth_max"]);
    says(&posted(&agent, &deep(40_000)), 200, &["-31010", "nesting_depth_max"]);

    // A pipe goes on behind a message that is too long or too deep.
    let mut wrap = cairn();
    wrap.arg("wrap").arg("--data").arg(folder.path().join("data")).args(["--name", "piped", "--"]);
    let mut client = Client::start(wrap.args(sample(&folder.path().join("piped.txt"))));
    client.initialize();
    for (line, setting) in [(long_call(300_000), "message_bytes_max"), (deep(21), "nesting_depth_max")] {
        client.send_line(&line);
        let refused = client.line().expect("an answer");
        assert_eq!(refused["error"]["code"], -31010, "{refused}");
        assert!(refused["error"]["message"].as_str().expect("words").contains(setting), "{refused}");
    }
    assert!(client.call("get_order", json!({ "order_id": "order-1" }))["result"].is_object());
    client.close();
    works(&up);
    up.end();
}

#[test]
fn the_defaults_are_those_of_the_document() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configured(folder.path(), "", "");
    let data = folder.path().join("data");
    let mut command = cairn();
    // No address is named but that other tests may be at the same port.
    command.args(["up", "--any-port", "--config", &config.display().to_string()]).arg("--data").arg(&data);
    let up = Up::spawn(command.env("CAIRN_OPERATOR_TOKEN", TOKEN), &data);
    for address in [&up.gateway, &up.kafka, &up.admin] {
        let address: std::net::SocketAddr = address.parse().expect("an address");
        assert!(address.ip().is_loopback(), "{address} is not loopback");
    }
    let agent = Agent::connect(&up.gateway, "orders");
    says(&posted(&agent, &long_call((4 << 20) + 1)), 200, &["-31010", "4194304", "message_bytes_max"]);
    assert!(posted(&agent, &long_call(3 << 20)).body.contains("\"result\""));
    let head = |bytes: usize| http(&up.gateway, "POST /mcp/orders", &[("x-much", &"x".repeat(bytes))], "{}");
    says(&head(66_000), 431, &["65536", "header_bytes_max"]);
    assert_eq!(head(60_000).status, 400, "its head passes, and its body is no message");

    // 64 calls of one client at once, and not one more.
    let open: Vec<_> = (0..64).map(|_| export(&agent)).collect();
    wait_for("64 calls", || (gauge(&up, "cairn_calls_in_flight") >= 64.0).then_some(()));
    busy(&order(&agent), "calls_per_client_max", 64);
    works(&up);
    let session = [("mcp-session-id", agent.session.as_str())];
    assert_eq!(http(&up.gateway, "DELETE /mcp/orders", &session, "").status, 204);
    drop(open);
    wait_for("their end", || (gauge(&up, "cairn_calls_in_flight") == 0.0).then_some(()));
    works(&up);
    assert!(gauge(&up, "cairn_refusals_total{reason=\"busy\"}") >= 1.0);
    up.end();
}

#[test]
fn a_head_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = bounded(folder.path(), "header_bytes_max = 8192", "");
    let head = |bytes: usize| http(&up.gateway, "POST /mcp/orders", &[("x-much", &"x".repeat(bytes))], "{}");
    assert_eq!(head(7_000).status, 400);
    says(&head(9_000), 431, &["8192", "header_bytes_max"]);
    assert_eq!(head(1 << 20).status, 431);
    let many: Vec<(String, String)> = (0..500).map(|n| (format!("x-{n}"), "x".to_owned())).collect();
    let many: Vec<_> = many.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(http(&up.gateway, "POST /mcp/orders", &many, "{}").status, 431);
    works(&up);
    up.end();
}

#[test]
fn calls_and_sessions_are_bounded_in_all() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = bounded(folder.path(), "calls_max = 3\ncalls_per_client_max = 2\nsessions_max = 3", "");
    let agents: Vec<_> = (0..3).map(|_| Agent::connect(&up.gateway, "orders")).collect();
    // A fourth session is refused, and places come back when one ends.
    let hello =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello });
    let nobody = Agent::new(&up.gateway, "orders");
    busy(&answer(nobody.post(&hello)).json(), "sessions_max", 3);

    // A call gives its place back a moment after its answer.
    let in_flight =
        |calls: f64| wait_for("calls in flight", || (gauge(&up, "cairn_calls_in_flight") == calls).then_some(()));
    in_flight(0.0);
    let open = [export(&agents[0]), export(&agents[0])];
    in_flight(2.0);
    busy(&order(&agents[0]), "calls_per_client_max", 2);
    assert!(order(&agents[1])["result"].is_object(), "another client has places of its own");
    in_flight(2.0);
    let third = export(&agents[1]);
    in_flight(3.0);
    busy(&order(&agents[2]), "calls_max", 3);
    for agent in &agents[..2] {
        let session = [("mcp-session-id", agent.session.as_str())];
        assert_eq!(http(&up.gateway, "DELETE /mcp/orders", &session, "").status, 204);
    }
    in_flight(0.0);
    drop((open, third));
    assert!(order(&agents[2])["result"].is_object());
    works(&up);
    up.end();
}

#[test]
fn a_call_that_takes_too_long_ends_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = bounded(folder.path(), "call_timeout_ms = 700", "");
    let agent = Agent::connect(&up.gateway, "orders");
    let late = answer(export(&agent)).json();
    assert_eq!((&late["error"]["code"], &late["error"]["data"]["cairn"]), (&json!(-31009), &json!("timed_out")));
    let words = late["error"]["message"].as_str().expect("words");
    assert!(words.contains("700 ms") && words.contains("call_timeout_ms"), "{words}");
    let outcomes = outcomes(&folder.path().join("data"));
    let timed_out: Vec<_> = outcomes.iter().filter(|outcome| outcome["outcome"] == "timed_out").collect();
    assert!(timed_out.len() == 1 && timed_out[0]["effect"] == "unknown", "{outcomes:?}");
    assert!(order(&agent)["result"].is_object(), "the session goes on");
    up.end();
}

/// Whether the process at the other end of a connection of this machine has taken all that was sent.
fn is_read(stream: &TcpStream) -> bool {
    let (near, far) = (stream.local_addr().expect("bound").port(), stream.peer_addr().expect("connected").port());
    let table = fs::read_to_string("/proc/net/tcp").expect("the system's connections");
    table.lines().any(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [_, local, remote, _, queues, ..] = fields[..] else { return false };
        let is = |address: &str, port: u16| address.ends_with(&format!(":{port:04X}"));
        is(local, far) && is(remote, near) && queues.ends_with(":00000000")
    })
}

#[test]
fn bodies_that_are_being_read_share_one_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let limits = "message_bytes_max = 65536\nbodies_bytes_max = 65536\nrequest_read_ms_max = 600000";
    let up = bounded(folder.path(), limits, "");
    let agent = Agent::connect(&up.gateway, "orders");
    let part = |bytes: usize| {
        let mut stream = connect(&up.gateway);
        let head = format!("POST /mcp/orders HTTP/1.1\r\nHost: {}\r\nContent-Length: 65000\r\n\r\n", up.gateway);
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&vec![b' '; bytes])).expect("taken");
        stream
    };
    // What is left is not enough for the next, which gives up what it holds, and says so. Whoever comes first is served,
    // so it is tried until the slow one was.
    let body = long_call(60_000);
    let (slow, refused) = wait_for("the slow one to be first", || {
        let slow = part(40_000);
        wait_for("its part to be read", || is_read(&slow).then_some(()));
        let answer = posted(&agent, &body).json();
        answer["error"].is_object().then_some((slow, answer))
    });
    busy(&refused, "bodies_bytes_max", 65_536);
    works(&up);
    drop(slow);
    wait_for("room", || posted(&agent, &body).body.contains("\"result\"").then_some(()));
    // Many that hold what they have do not wait for each other for ever, though their clients have gone.
    let many: Vec<_> = (0..20).map(|_| part(20_000)).collect();
    drop(many);
    works(&up);
    wait_for("room", || posted(&agent, &body).body.contains("\"result\"").then_some(()));
    up.end();
}

/// One exchange on a connection that stays open.
fn exchange(stream: &mut TcpStream, up: &Up) -> String {
    write!(stream, "GET /nowhere HTTP/1.1\r\nHost: {}\r\n\r\n", up.gateway).expect("taken");
    let mut reader = BufReader::new(&mut *stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).expect("an answer") > 0, "it ended: {head}");
    }
    let length = head.to_ascii_lowercase().lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let mut body = vec![0; length.expect("a length")];
    reader.read_exact(&mut body).expect("a body");
    head
}

#[test]
fn one_connection_more_than_the_setting_waits() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = bounded(folder.path(), "connections_max = 2", "");
    let (mut one, mut two) = (connect(&up.gateway), connect(&up.gateway));
    assert!(exchange(&mut one, &up).starts_with("HTTP/1.1 404"));
    assert!(exchange(&mut two, &up).starts_with("HTTP/1.1 404"));
    let mut three = connect(&up.gateway);
    let ask = format!("GET /nowhere HTTP/1.1\r\nHost: {}\r\n\r\n", up.gateway);
    three.write_all(ask.as_bytes()).expect("the system takes it");
    assert!(exchange(&mut one, &up).starts_with("HTTP/1.1 404"), "those that are open are served");
    three.set_nonblocking(true).expect("set");
    assert_eq!(three.peek(&mut [0; 1]).expect_err("nobody serves it").kind(), ErrorKind::WouldBlock);
    three.set_nonblocking(false).expect("set");
    drop(two);
    let mut first = [0; 12];
    three.read_exact(&mut first).expect("it is served now");
    assert_eq!(&first, b"HTTP/1.1 404");
    drop((one, three));
    works(&up);
    up.end();
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    const PART_BYTES: usize = 256 << 10;
    let folder = tempfile::tempdir().expect("a folder");
    // It streams far more than any socket holds, and then its answer.
    let talkative = Played::start(|asked, stream| {
        if asked.rpc() != "tools/call" {
            return well(asked, stream);
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";
        let params = json!({ "level": "info", "data": "x".repeat(PART_BYTES) });
        let notice = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": params });
        let notice = format!("data: {notice}\n\n");
        let answer = json!({ "jsonrpc": "2.0", "id": asked.body["id"], "result": { "content": [] } });
        let mut written = stream.write_all(head.as_bytes());
        for _ in 0..256 {
            written = written.and_then(|()| stream.write_all(notice.as_bytes()));
        }
        let _ = written.and_then(|()| stream.write_all(format!("data: {answer}\n\n").as_bytes()));
        false
    });
    let server = format!("[servers.talkative]\nurl = \"{}\"\n", talkative.url());
    let up = bounded(folder.path(), "client_stall_ms_max = 500\nclient_queue_max = 4", &server);
    let agent = Agent::new(&up.gateway, "talkative");
    let mut untaken = agent.ask("echo", &json!({}));
    let data = folder.path().join("data");
    // On legacy HTTP a client that goes does not cancel: its call ends, and so do its places.
    wait_for("the outcome", || {
        let of = |outcome: &Value| outcome["server"] == "talkative" && outcome["mcp_method_name"] == "tools/call";
        outcomes(&data).into_iter().find(of)
    });
    wait_for("its place", || (gauge(&up, "cairn_calls_in_flight") == 0.0).then_some(()));
    let mut rest = Vec::new();
    let _ = untaken.read_to_end(&mut rest);
    assert!(rest.len() < 250 * PART_BYTES, "the connection was closed before all was taken: {}", rest.len());
    works(&up);
    up.end();
}

#[test]
fn a_page_that_rebinds_a_name_gets_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let listed = "[gateway]\norigins = [\"https://app.example\"]\nhosts = [\"cairn.internal\"]\n";
    let config = configured(folder.path(), "", "");
    let text = fs::read_to_string(&config).expect("there");
    fs::write(&config, format!("{listed}{text}")).expect("written");
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let port = up.gateway.rsplit(':').next().expect("a port").to_owned();
    let asked = |host: &str, origin: Option<&str>| {
        let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
        let head = format!(
            "POST /mcp/orders HTTP/1.1\r\nHost: {host}\r\n{origin}Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        let mut stream = connect(&up.gateway);
        stream.write_all(head.as_bytes()).expect("taken");
        answer(stream)
    };
    let local = format!("127.0.0.1:{port}");
    for host in
        [local.as_str(), "localhost", &format!("localhost:{port}"), "[::1]:80", "cairn.internal", "CAIRN.internal:9"]
    {
        assert_eq!(asked(host, None).status, 400, "{host} is let in, and what it sends is no message");
    }
    for host in [
        "evil.example",
        &format!("evil.example:{port}"),
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "evilcairn.internal",
        "127.0.0.2",
        "",
    ] {
        says(&asked(host, None), 403, &["gateway.hosts", host]);
    }
    for origin in ["http://localhost:3000", "https://127.0.0.1", "https://app.example"] {
        assert_eq!(asked(&local, Some(origin)).status, 400, "{origin} is let in");
    }
    for origin in [
        "http://evil.example",
        "https://app.example.evil.example",
        "http://app.example",
        "null",
        "http://localhost.evil.example",
    ] {
        says(&asked(&local, Some(origin)), 403, &["gateway.origins", origin]);
    }
    assert_eq!(gauge(&up, "cairn_sessions_open"), 0.0);
    works(&up);
    up.end();
}

#[test]
fn a_hold_ends_by_itself_and_tells_of_itself_until_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = configured(folder.path(), "hold_ms_max = 2000\nhold_progress_ms = 200", "");
    fs::create_dir(folder.path().join("policies")).expect("a folder");
    let policy = "@id(\"all\") permit(principal, action, resource);\n@id(\"ask\") @obligation(\"approval\")\n\
                  permit(principal, action, resource == Tool::\"orders/refund_order\");\n";
    fs::write(folder.path().join("policies/p.cedar"), policy).expect("written");
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let agent = Agent::connect(&up.gateway, "orders");
    let refund = json!({ "order_id": "order-1", "amount_cents": 1 });
    let params = json!({ "name": "refund_order", "arguments": refund, "_meta": { "progressToken": "tok-7" } });
    let held = answer(agent.post(&json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": params })));
    assert_eq!(held.header("content-type").as_deref(), Some("text/event-stream"), "{held:?}");
    let events = held.body.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = events.map(|data| serde_json::from_str(data).expect("JSON")).collect();
    let (last, progress) = events.split_last().expect("an answer");
    assert!(progress.len() >= 2, "{events:?}");
    let mut before = -1.0;
    for notice in progress {
        assert_eq!(
            (&notice["method"], &notice["params"]["progressToken"]),
            (&json!("notifications/progress"), &json!("tok-7"))
        );
        assert!(notice["params"]["message"].as_str().expect("words").starts_with("waiting for approval ap-"));
        let now = notice["params"]["progress"].as_f64().expect("a number");
        assert!(now > before, "progress increases: {events:?}");
        before = now;
    }
    assert_eq!((&last["id"], &last["error"]["code"]), (&json!(5), &json!(-31003)), "{last}");
    let words = last["error"]["message"].as_str().expect("words");
    assert!(
        words.contains("2000 ms") && words.contains("hold_ms_max") && words.contains("nothing was sent"),
        "{words}"
    );
    // Without a token it only ends.
    let plain = agent.call("refund_order", &refund);
    assert_eq!(plain["error"]["data"]["cairn"], "approval_expired", "{plain}");
    let journal = fs::read_to_string(folder.path().join("journal.txt")).unwrap_or_default();
    assert!(!journal.contains("refund"), "{journal}");
    let ended = outcomes(&data);
    let ended: Vec<_> = ended.iter().filter(|outcome| outcome["mcp_method_name"] == "tools/call").collect();
    assert!(
        ended.len() == 2 && ended.iter().all(|o| o["outcome"] == "timed_out" && o["effect"] == "none"),
        "{ended:?}"
    );
    works(&up);
    up.end();
}
