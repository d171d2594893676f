//! The bounds of the gateway, from outside: each has a default, a setting, an error that names the setting, and harms
//! nothing else: the next call works.

use std::{
    fs,
    io::Write,
    net::TcpStream,
    path::{Path, PathBuf},
};

use serde_json::json;

use crate::support::{Agent, Answer, LONG, Up, answer, sample};

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

/// What must still work whatever was refused.
fn works(up: &Up) {
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
