//! A gateway over a trail in memory, clients at the end of pipes, and what the servers wrote down.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use cairn_backbone::{Recorder, RecorderOptions, testing::MemoryBackbone};
use cairn_catalogue::{Book, Mode};
use cairn_clock::{Clock, Entropy};
use cairn_contract::{DigestKey, StoredEvent, Topic, invariants};
use cairn_freshness::Views;
use cairn_gateway::{
    Access, Gateway, GatewayOptions, Keeping, Keys, Limits, Metrics, NoWitness, Parts, PayloadRules, PipeClient, Reach,
    ServerSpec, SharedWorkflow,
};
use cairn_policy::PolicyStore;
use cairn_screen::{Rules, Screener};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::server::{JOURNAL, ROLE};

pub(crate) const MODERN: &str = "2026-07-28";
/// How long anything may take on a machine that is busy with other things.
const PATIENCE: Duration = Duration::from_secs(60);

/// A request of a modern client that can be asked for a form.
pub(crate) fn modern(id: u64, method: &str, mut params: Value) -> Value {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "new", "version": "2"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "roots": {}},
    });
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// An event's own keys.
pub(crate) fn body(event: &StoredEvent) -> &Value {
    &event.value
}

pub(crate) struct Bench {
    gateway: Gateway,
    backbone: MemoryBackbone,
    key: DigestKey,
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) async fn new(set: impl FnOnce(&mut Limits)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let backbone = MemoryBackbone::new();
        let (clock, entropy) = (Clock::system(), Entropy::system());
        let key = DigestKey::new("k", b"a secret of thirty-two bytes or more!").expect("a key");
        let options = RecorderOptions::new("gw", 1, folder.path());
        let opened = Recorder::open(options, Arc::new(backbone.clone()), clock.clone(), entropy.clone()).await;
        let mut limits = Limits::default();
        set(&mut limits);
        let options = GatewayOptions {
            servers: Vec::new(),
            limits,
            origins: Vec::new(),
            hosts: Vec::new(),
            local_principal: "local".to_owned(),
            access: Access::local_only("local", &clock).expect("nothing else is said"),
            decision_point: None,
        };
        let parts = Parts {
            recorder: opened.expect("a recorder").0,
            policy: Arc::new(PolicyStore::open(None).expect("no policies")),
            views: Views::default(),
            approvals: cairn_approvals::Approvals::default(),
            allowances: cairn_limits::Limits::open(Vec::new(), folder.path(), clock.clone()).expect("nothing is spent"),
            book: Book::open(Mode::Observe, None).expect("a book"),
            keys: Keys { payload: key.clone(), version: key.clone(), secret: key.clone() },
            keeping: Keeping {
                screener: Screener::new(Rules::embedded()),
                vault: None,
                required: true,
                rules: PayloadRules::default(),
            },
            clock,
            entropy,
            credentials: cairn_credentials::Credentials::default(),
            metrics: Metrics::default(),
            hands: None,
            witness: Arc::new(NoWitness),
        };
        Self { gateway: Gateway::new(options, parts).expect("a gateway"), backbone, key, folder }
    }

    /// A client at the end of a pipe, in front of a server in a role.
    pub(crate) async fn pipe(&self, role: &str, principal: &str) -> Client {
        let command = std::env::current_exe().expect("a test has a binary").to_string_lossy().into_owned();
        let args = ["server::play_the_server", "--exact", "--nocapture", "--test-threads=1"];
        let env = [(ROLE, role.to_owned()), (JOURNAL, self.journal_path().to_string_lossy().into_owned())];
        let reach = Reach::Stdio {
            command,
            args: args.map(ToOwned::to_owned).to_vec(),
            env: env.map(|(key, value)| (key.to_owned(), value)).into_iter().collect::<BTreeMap<_, _>>(),
            cwd: None,
            env_clear: false,
        };
        let spec = ServerSpec { name: role.to_owned(), reach, declared: BTreeMap::new(), reports: false };
        let (near, far) = tokio::io::duplex(1 << 16);
        let (read, write) = tokio::io::split(far);
        let gateway = self.gateway.clone();
        let who = PipeClient { principal: Some(principal.to_owned()), workflow: Some(SharedWorkflow::new(PATIENCE)) };
        let served = tokio::spawn(async move { gateway.serve_pipe(spec, who, read, write).await.expect("a pipe") });
        let (read, write) = tokio::io::split(near);
        Client { read: BufReader::new(read), write, served, early: VecDeque::new() }
    }

    fn journal_path(&self) -> PathBuf {
        self.folder.path().join("journal")
    }

    /// Every line that reached a server.
    pub(crate) fn journal(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.journal_path()).unwrap_or_default();
        text.lines().map(ToOwned::to_owned).collect()
    }

    pub(crate) fn clear_journal(&self) {
        std::fs::write(self.journal_path(), "").expect("a journal");
    }

    /// Waits until a line with these words reached a server.
    pub(crate) async fn journal_has(&self, words: &str) {
        let found = async {
            while !self.journal().iter().any(|line| line.contains(words)) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("no server got {words:?}: {:#?}", self.journal()));
    }

    pub(crate) fn digest(&self, bytes: &[u8]) -> String {
        self.key.digest(bytes)
    }

    /// The trail of calls, once every decided call has ended; it must hold what a trail must.
    pub(crate) async fn calls(&self) -> Vec<StoredEvent> {
        let settled = async {
            loop {
                let events = self.backbone.events(Topic::Calls);
                if invariants::exactly_one_outcome(&events, &BTreeSet::new()).is_ok() && !events.is_empty() {
                    sleep(Duration::from_millis(200)).await; // what is queued relaxed comes with the next flush
                    return self.backbone.events(Topic::Calls);
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let Ok(events) = timeout(PATIENCE, settled).await else {
            let events = self.backbone.events(Topic::Calls);
            panic!("calls without an end: {:?}", invariants::exactly_one_outcome(&events, &BTreeSet::new()));
        };
        // Clock and chain are a partition's; here all partitions come as one list.
        let of_partition = [invariants::Invariant::ChainUnbroken, invariants::Invariant::ClockRises];
        let mut found = invariants::check_calls(&events, &BTreeSet::new());
        found.retain(|finding| !of_partition.contains(&finding.invariant));
        assert!(found.is_empty(), "{found:?}");
        let kinds = |kind: &str| {
            let of_kind = events.iter().filter(|event| event.type_name == kind);
            of_kind.filter_map(|event| event.common.call_id).collect::<BTreeSet<_>>()
        };
        assert!(kinds("call.intent").is_subset(&kinds("call.decision")));
        events
    }
}

/// One client.
pub(crate) struct Client {
    read: BufReader<ReadHalf<DuplexStream>>,
    write: WriteHalf<DuplexStream>,
    served: JoinHandle<()>,
    /// Notifications that came before an answer which was waited for.
    early: VecDeque<Value>,
}

impl Client {
    pub(crate) async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.write.write_all(format!("{text}\n").as_bytes()).await.expect("the gateway reads");
    }

    /// The next message, whatever it is.
    pub(crate) async fn next(&mut self) -> Value {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.read.read_line(&mut line)).await.expect("a message in time");
        assert!(read.expect("the gateway writes") > 0, "the gateway closed the pipe");
        serde_json::from_str(&line).expect("the gateway writes JSON")
    }

    /// The answer to a request; notifications that come before it are kept.
    pub(crate) async fn answer(&mut self, id: impl Into<Value>) -> Value {
        let id = id.into();
        loop {
            let message = self.next().await;
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
            self.early.push_back(message);
        }
    }

    /// The next request of the server.
    pub(crate) async fn request(&mut self, method: &str) -> Value {
        loop {
            let message = self.next().await;
            if message["method"] == method && !message["id"].is_null() {
                return message;
            }
            assert!(message.get("method").is_some(), "an answer came in place of {method}: {message}");
        }
    }

    pub(crate) async fn notification(&mut self, method: &str) -> Value {
        loop {
            let message = match self.early.pop_front() {
                Some(message) => message,
                None => self.next().await,
            };
            if message["method"] == method {
                return message;
            }
        }
    }

    /// Goes away, and waits until the gateway has noticed.
    pub(crate) async fn close(mut self) {
        let _ = self.write.shutdown().await;
        drop(self.read);
        timeout(PATIENCE, self.served).await.expect("the pipe ends").expect("no panic");
    }
}
