//! Processes, folders, and questions over HTTP, for the tests of the commands.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    message::Headers,
};
use serde_json::{Value, json};

/// How long anything may take on a machine that does much else.
pub(crate) const LONG: Duration = Duration::from_secs(90);

/// The program under test, without the surroundings of whoever runs the test.
pub(crate) fn cairn() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn"));
    for variable in ["CAIRN_DATA", "CAIRN_OPERATOR_TOKEN", "CAIRN_LOG"] {
        command.env_remove(variable);
    }
    command
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs to its end and gives standard output, whatever the exit code.
pub(crate) fn run(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("it runs")
}

/// Waits until `condition` gives something.
#[allow(clippy::disallowed_methods)] // a test of processes waits for the machine's own time
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A child that is ended with the test, by its own pid.
pub(crate) struct Process {
    pub(crate) child: Child,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill runs").success());
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        wait_for("the end of a process", || self.child.try_wait().expect("it can be waited for"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `cairn up` on free ports.
pub(crate) struct Up {
    pub(crate) process: Process,
    pub(crate) lines: Vec<String>,
    pub(crate) kafka: String,
    pub(crate) gateway: String,
    pub(crate) admin: String,
    pub(crate) stderr: PathBuf,
}

/// The token of every `up` that [`Up::start`] starts.
pub(crate) const TOKEN: &str = "cairn-op-for-the-tests-0123456789";

impl Up {
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut command = cairn();
        command.args(["up", "--kafka", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.arg("--data").arg(data).args(arguments).env("CAIRN_OPERATOR_TOKEN", TOKEN);
        Self::spawn(&mut command, data)
    }

    pub(crate) fn spawn(command: &mut Command, data: &Path) -> Self {
        let stderr = data.with_extension("stderr");
        let errors = std::fs::File::create(&stderr).expect("a file");
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let process = Process { child };
        let mut seen = Vec::new();
        loop {
            match lines.next() {
                Some(Ok(line)) => seen.push(line),
                _ => panic!("cairn up ended before it was ready: {}", text(&std::fs::read(&stderr).expect("a file"))),
            }
            if seen.last().is_some_and(|line| line.starts_with("ready")) {
                break;
            }
        }
        let endpoints = std::fs::read(data.join("endpoints.json")).expect("it is ready, so it is announced");
        let endpoints: Value = serde_json::from_slice(&endpoints).expect("JSON");
        let of = |key: &str| endpoints[key].as_str().expect("an address").to_owned();
        // Whatever else it prints is read, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, lines: seen, kafka: of("kafka"), gateway: of("gateway"), admin: of("admin"), stderr }
    }

    pub(crate) fn errors(&self) -> String {
        text(&std::fs::read(&self.stderr).expect("a file"))
    }

    /// Asks it to end; it must, cleanly and within the time that it promises.
    #[allow(clippy::disallowed_methods)] // the promise is about the machine's own time
    pub(crate) fn end(mut self) {
        let asked = Instant::now();
        self.process.signal("-TERM");
        let status = self.process.wait();
        assert!(status.success(), "{status}: {}", self.errors());
        assert!(asked.elapsed() < Duration::from_secs(15), "it took {:?}", asked.elapsed());
    }
}

/// An HTTP answer, whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).next()
    }
}

/// Sends one HTTP request and leaves the connection open.
pub(crate) fn open(address: &str, request: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(LONG)).expect("a limit");
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
    .expect("it is written");
    stream
}

/// Reads an answer to the end of the connection.
pub(crate) fn answer(mut stream: TcpStream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let all = text(&bytes);
    let status = all.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or((&all, ""));
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// One HTTP exchange.
pub(crate) fn http(address: &str, request: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    answer(open(address, request, headers, body))
}

/// An MCP client over HTTP, of 2025-11-25.
#[derive(Default)]
pub(crate) struct Agent {
    pub(crate) gateway: String,
    pub(crate) server: String,
    pub(crate) session: String,
    /// The workflow that it names, if any.
    pub(crate) workflow: String,
    /// What it calls itself, if not `test`.
    pub(crate) name: &'static str,
    /// How many calls it has made: each has an id of its own.
    pub(crate) asked: AtomicU64,
}

impl Agent {
    pub(crate) fn connect(gateway: &str, server: &str) -> Self {
        Self::connect_in("", gateway, server)
    }

    /// A client that has not said anything yet.
    pub(crate) fn new(gateway: &str, server: &str) -> Self {
        Self { gateway: gateway.to_owned(), server: server.to_owned(), ..Self::default() }
    }

    pub(crate) fn connect_in(workflow: &str, gateway: &str, server: &str) -> Self {
        let mut agent = Self { workflow: workflow.to_owned(), ..Self::new(gateway, server) };
        agent.open();
        agent
    }

    /// A client of that name.
    pub(crate) fn named(name: &'static str, gateway: &str, server: &str) -> Self {
        let mut agent = Self { name, ..Self::new(gateway, server) };
        agent.open();
        agent
    }

    fn open(&mut self) {
        let name = if self.name.is_empty() { "test" } else { self.name };
        let client = json!({ "name": name, "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params });
        let welcome = answer(self.post(&hello));
        self.session = welcome.header("mcp-session-id").unwrap_or_else(|| panic!("no session: {welcome:?}"));
        // A client that hung up at once might take it back.
        let confirmed = answer(self.post(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })));
        assert_eq!(confirmed.status, 202, "{confirmed:?}");
    }

    /// Sends a message and leaves its answer unread.
    pub(crate) fn post(&self, message: &Value) -> TcpStream {
        let mut headers = vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
        if !self.workflow.is_empty() {
            headers.push(("cairn-workflow-id", self.workflow.as_str()));
        }
        if !self.session.is_empty() {
            headers.extend([("mcp-session-id", self.session.as_str()), ("mcp-protocol-version", "2025-11-25")]);
        }
        open(&self.gateway, &format!("POST /mcp/{}", self.server), &headers, &message.to_string())
    }

    pub(crate) fn ask(&self, tool: &str, arguments: &Value) -> TcpStream {
        let params = json!({ "name": tool, "arguments": arguments });
        let id = 2 + self.asked.fetch_add(1, Ordering::SeqCst);
        self.post(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }))
    }

    pub(crate) fn call(&self, tool: &str, arguments: &Value) -> Value {
        answer(self.ask(tool, arguments)).json()
    }
}

/// A gateway in front of the sample server of orders, with policies.
pub(crate) struct Orders {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) config: String,
}

impl Orders {
    pub(crate) fn new(policies: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let servers: Value =
            serde_json::from_slice(&std::fs::read(orders(folder.path())).expect("there")).expect("JSON");
        let orders = &servers["mcpServers"]["orders"];
        let config = format!("[servers.orders]\ncommand = {}\nargs = {}\n{more}", orders["command"], orders["args"]);
        Self { folder, config }.with(policies)
    }

    pub(crate) fn with(self, policies: &str) -> Self {
        let path = self.folder.path().join("policies");
        std::fs::create_dir_all(&path).expect("a folder");
        std::fs::write(path.join("p.cedar"), policies).expect("written");
        std::fs::write(self.folder.path().join("cairn.toml"), &self.config).expect("written");
        self
    }

    pub(crate) fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn up(&self) -> Up {
        Up::start(&self.data(), &["--config", &self.folder.path().join("cairn.toml").display().to_string()])
    }

    pub(crate) fn journal(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.path().join("journal.txt")).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }
}

/// One MCP client on the standard streams of a process.
pub(crate) struct Client {
    pub(crate) process: Process,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    next_id: u64,
}

impl Client {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::sync_channel(1_024);
        std::thread::spawn(move || {
            for line in output.lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { process: Process { child }, input, lines, next_id: 0 }
    }

    pub(crate) fn send(&mut self, message: &Value) {
        let input = self.input.as_mut().expect("not closed yet");
        writeln!(input, "{message}").and_then(|()| input.flush()).expect("it is read");
    }

    /// Sends a line as it is.
    pub(crate) fn send_line(&mut self, line: &str) {
        let input = self.input.as_mut().expect("not closed yet");
        writeln!(input, "{line}").and_then(|()| input.flush()).expect("it is read");
    }

    /// Sends a request without waiting for its answer; its id.
    pub(crate) fn ask(&mut self, method: &str, params: Value) -> u64 {
        self.next_id += 1;
        self.send(&json!({ "jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params }));
        self.next_id
    }

    /// The next line of the server's, which must be a message; `None` at the end.
    pub(crate) fn line(&mut self) -> Option<Value> {
        match self.lines.recv_timeout(LONG) {
            Ok(line) => Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("no MCP on stdout: {line}"))),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no line came"),
        }
    }

    pub(crate) fn request(&mut self, method: &str, params: Value) -> Value {
        let id = self.ask(method, params);
        loop {
            let message = self.line().expect("an answer");
            if message["id"] == json!(id) {
                return message;
            }
        }
    }

    /// The handshake of 2025-11-25.
    pub(crate) fn initialize(&mut self) -> Value {
        let client = json!({ "name": "test", "version": "1" });
        let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client });
        let answer = self.request("initialize", params);
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        answer
    }

    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments }))
    }

    /// Closes its input; what it said on standard error, and how it ended.
    pub(crate) fn close(mut self) -> (ExitStatus, String) {
        self.input = None;
        self.end()
    }

    /// Waits for its end.
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        let status = self.process.wait();
        let mut errors = String::new();
        if let Some(stderr) = &mut self.process.child.stderr {
            let _ = stderr.read_to_string(&mut errors);
        }
        (status, errors)
    }
}

/// The sample server's command line.
pub(crate) fn sample(journal: &Path) -> Vec<String> {
    [env!("CARGO_BIN_EXE_cairn"), "sample-server", "--journal", &journal.display().to_string()]
        .map(ToOwned::to_owned)
        .into()
}

/// A folder with a client's configuration for the sample server `orders`; gives the file.
pub(crate) fn orders(folder: &Path) -> PathBuf {
    let words = sample(&folder.join("journal.txt"));
    let servers = json!({ "mcpServers": { "orders": { "command": words[0], "args": words[1..] } } });
    let path = folder.join("mcp.json");
    std::fs::write(&path, servers.to_string()).expect("written");
    path
}

/// What `cairn trail … --json` says.
pub(crate) fn trail(data: &Path, id: Option<&str>) -> Value {
    let mut command = cairn();
    command.arg("trail").args(id).arg("--json").arg("--data").arg(data);
    let output = run(&mut command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Every event of the trail as a Kafka consumer reads it: `{topic, partition, offset, type, data}`.
pub(crate) fn events(data: &Path) -> Vec<Value> {
    let endpoints: Value =
        wait_for("the announcement", || serde_json::from_slice(&std::fs::read(data.join("endpoints.json")).ok()?).ok());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", endpoints["kafka"].as_str().expect("an address"))
        .set("group.id", "tests")
        // A commit that is due ends a poll with nothing.
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "50")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(None, LONG).expect("it answers");
    let (mut assignment, mut left) = (TopicPartitionList::new(), std::collections::BTreeMap::new());
    for topic in
        metadata.topics().iter().filter(|topic| topic.name().starts_with("mcp.") || topic.name().contains(".mcp."))
    {
        for partition in topic.partitions() {
            let (low, high) = consumer.fetch_watermarks(topic.name(), partition.id(), LONG).expect("it answers");
            if high > low {
                assignment.add_partition_offset(topic.name(), partition.id(), Offset::Offset(low)).expect("added");
                left.insert((topic.name().to_owned(), partition.id()), high);
            }
        }
    }
    consumer.assign(&assignment).expect("assigned");
    let mut found = Vec::new();
    while !left.is_empty() {
        let message = consumer.poll(LONG).expect("a record").expect("no error");
        let headers = message.headers().expect("events have headers");
        let kind = headers.iter().find(|header| header.key == "ce_type").and_then(|header| header.value);
        let kind = text(kind.expect("a type")).trim_start_matches("io.cairn.").to_owned();
        let value: Value = serde_json::from_slice(message.payload().expect("a value")).expect("JSON");
        let (topic, partition, offset) = (message.topic().to_owned(), message.partition(), message.offset());
        if left.get(&(topic.clone(), partition)).is_some_and(|end| offset + 1 >= *end) {
            left.remove(&(topic.clone(), partition));
        }
        found.push(json!({ "topic": topic, "partition": partition, "offset": offset, "type": kind, "data": value }));
    }
    found
}

/// The data of every outcome in the trail.
pub(crate) fn outcomes(data: &Path) -> Vec<Value> {
    events(data)
        .into_iter()
        .filter(|event| event["type"] == "call.outcome")
        .map(|event| event["data"].clone())
        .collect()
}

/// Creates a topic as any client may.
pub(crate) fn create_topic(kafka: &str, name: &str, partitions: i32, configs: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().expect("a client");
    let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(1));
    let topic = configs.iter().fold(topic, |topic, (name, value)| topic.set(name, value));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let made = runtime.block_on(admin.create_topics(&[topic], &AdminOptions::new())).expect("an answer");
    assert_eq!(made, [Ok(name.to_owned())]);
}

/// Every regular file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        match entry.file_type().expect("a type") {
            kind if kind.is_dir() => found.extend(files(&entry.path())),
            kind if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}
