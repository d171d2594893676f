//! HTTP servers that a test plays, on threads of its own, so that each test can say what its server does wrong. Written
//! on plain sockets: nothing here keeps to HTTP unless the test wants it to.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

/// A port that is taken, and refuses connections until somebody listens there.
pub(crate) struct Reserved {
    socket: std::os::fd::OwnedFd,
    pub(crate) address: String,
}

impl Reserved {
    pub(crate) fn new() -> Self {
        use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = std::net::SocketAddr::try_from(getsockname(&socket).expect("bound")).expect("an address");
        Self { socket, address: address.to_string() }
    }

    pub(crate) fn listen(self) -> TcpListener {
        rustix::net::listen(&self.socket, 128).expect("it listens");
        TcpListener::from(self.socket)
    }
}

/// What a client asks.
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: Value,
}

impl Asked {
    /// The JSON-RPC method, or nothing.
    pub(crate) fn rpc(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }

    fn read(reader: &mut BufReader<TcpStream>) -> Option<Self> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let mut words = head.split(' ');
        let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
        let asked = Self { method, path, head, body: Value::Null };
        let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        Some(Self { body: serde_json::from_slice(&body).unwrap_or_default(), ..asked })
    }
}

/// Whether the connection takes another request.
pub(crate) type GoesOn = bool;

/// A server that runs until it is dropped.
pub(crate) struct Played {
    pub(crate) address: String,
    /// How many `tools/call` came.
    pub(crate) calls: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

impl Played {
    pub(crate) fn start(answer: impl Fn(&Asked, &mut TcpStream) -> GoesOn + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port"), answer)
    }

    pub(crate) fn on(
        listener: TcpListener,
        answer: impl Fn(&Asked, &mut TcpStream) -> GoesOn + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().expect("bound").to_string();
        let (calls, stop, answer) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default(), Arc::new(answer));
        let accepting = std::thread::spawn({
            let (calls, stop) = (calls.clone(), stop.clone());
            move || {
                for stream in listener.incoming() {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let Ok(mut stream) = stream else { continue };
                    let (calls, stop, answer) = (calls.clone(), stop.clone(), answer.clone());
                    std::thread::spawn(move || {
                        let mut reader = BufReader::new(stream.try_clone().expect("a handle"));
                        while let Some(asked) = Asked::read(&mut reader) {
                            if stop.load(Ordering::SeqCst) {
                                return;
                            }
                            calls.fetch_add(usize::from(asked.rpc() == "tools/call"), Ordering::SeqCst);
                            if !answer(&asked, &mut stream) {
                                return;
                            }
                        }
                    });
                }
            }
        });
        Self { address, calls, stop, accepting: Some(accepting) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(&self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Writes an answer; a client that has gone takes none.
pub(crate) fn respond(stream: &mut TcpStream, status: u16, kind: &str, body: &[u8]) -> GoesOn {
    let head = format!("HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_ok()
}

/// The result of a well-behaved server of 2025-11-25 that has one tool.
pub(crate) fn result_of(asked: &Asked) -> Option<Value> {
    let id = &asked.body["id"];
    if id.is_null() {
        return None;
    }
    let result = match asked.rpc() {
        "initialize" => json!({
            "protocolVersion": "2025-11-25",
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "played", "version": "1" },
        }),
        "tools/list" => json!({ "tools": [{ "name": "echo", "inputSchema": { "type": "object" } }] }),
        "tools/call" => json!({ "content": [{ "type": "text", "text": "echoed" }] }),
        "ping" => json!({}),
        _ => {
            let error = json!({ "code": -32601, "message": "no such method" });
            return Some(json!({ "jsonrpc": "2.0", "id": id, "error": error }));
        }
    };
    Some(json!({ "jsonrpc": "2.0", "id": id, "result": result }))
}

/// The same from a server that keeps sessions: each client has one of its own.
pub(crate) fn well_with_sessions(asked: &Asked, stream: &mut TcpStream) -> GoesOn {
    static SESSIONS: AtomicUsize = AtomicUsize::new(0);
    let Some(result) = result_of(asked).filter(|_| asked.rpc() == "initialize") else { return well(asked, stream) };
    let (session, body) = (SESSIONS.fetch_add(1, Ordering::SeqCst), result.to_string());
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMcp-Session-Id: played-{session}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).is_ok()
}

/// Answers as a well-behaved Streamable HTTP server does.
pub(crate) fn well(asked: &Asked, stream: &mut TcpStream) -> GoesOn {
    if (asked.method.as_str(), asked.path.as_str()) != ("POST", "/mcp") {
        return respond(stream, 405, "text/plain", b"");
    }
    match result_of(asked) {
        Some(result) => respond(stream, 200, "application/json", result.to_string().as_bytes()),
        None => respond(stream, 202, "text/plain", b""),
    }
}
