//! `cairn up` and `cairn gateway` with a cluster as backbone, end to end: calls through the gateway, the trail read back, the
//! cluster stopped and started in the middle, kill -9 in the middle. One test runs on a real Apache Kafka broker, one on a
//! `cairn broker` of another process.

#![allow(clippy::print_stderr, clippy::unwrap_used)]

#[path = "../../../backbone/tests/kafka/broker.rs"]
mod broker;
mod consumers;
mod evidence;
mod process;
#[cfg(feature = "registry")]
mod registry;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use broker::Broker;
use cairn_backbone::reader::{Reader, ReaderOptions};
use cairn_contract::{
    StoredEvent,
    invariants::{Start, chain_unbroken, check_calls, clock_rises},
};
use process::{Agent, Cairn, PATIENCE, run};
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use serde_json::Value;

const ADDRESSES: [&str; 4] = ["--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0"];

/// A folder with a configuration that names a cluster and the sample server.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new(bootstrap: &str, more: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = folder.path().join("journal.txt");
        let text = format!(
            "[backbone]\nkind = \"kafka\"\nbootstrap = \"{bootstrap}\"\nspool_bytes_max = 2097152\n{more}\n\
             [servers.orders]\ncommand = {:?}\nargs = [\"sample-server\", \"--journal\", {journal:?}]\n",
            env!("CARGO_BIN_EXE_cairn")
        );
        fs::write(folder.path().join("cairn.toml"), text).expect("written");
        Self { folder }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn config(&self) -> String {
        self.folder.path().join("cairn.toml").display().to_string()
    }

    async fn start(&self, command: &str) -> Cairn {
        let config = self.config();
        let mut arguments = vec![command, "--config", &config];
        arguments.extend(ADDRESSES);
        Cairn::start(&arguments, &self.data()).await
    }

    /// What the server executed, by its own word.
    fn executed(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("journal.txt")).unwrap_or_default();
        text.lines().filter_map(|line| line.strip_prefix("create_ticket ")).map(ToOwned::to_owned).collect()
    }
}

fn is_answer(value: &Value) -> bool {
    value["result"]["content"].is_array()
}

/// The whole trail, by partition.
async fn trail(bootstrap: &str) -> BTreeMap<(String, u32), Vec<StoredEvent>> {
    let mut reader = Reader::open(ReaderOptions::all(bootstrap)).await.expect("a reader");
    let mut trail: BTreeMap<_, Vec<_>> = BTreeMap::new();
    while let Some(entry) = reader.next().await {
        let entry = entry.expect("readable");
        trail.entry((entry.topic, entry.partition)).or_default().push(entry.event.expect("an event"));
    }
    reader.close().await;
    trail
}

/// No gap, no duplicate, one outcome for each call, and nothing executed twice or without an intent.
async fn check(bootstrap: &str, place: &Place, answered: usize) {
    let trail = trail(bootstrap).await;
    let mut ids = BTreeSet::new();
    let (mut intents, mut completed) = (0, 0);
    for ((topic, partition), events) in &trail {
        chain_unbroken(events, Start::Beginning).unwrap_or_else(|finding| panic!("{topic}/{partition}: {finding}"));
        clock_rises(events).unwrap_or_else(|finding| panic!("{topic}/{partition}: {finding}"));
        assert!(events.iter().all(|event| ids.insert(event.id)), "an event is there twice");
        if topic == "mcp.calls" {
            let findings = check_calls(events, &BTreeSet::new());
            assert!(findings.is_empty(), "{findings:?}");
            intents += events.iter().filter(|event| event.type_name == "call.intent").count();
            let ended =
                |event: &&StoredEvent| event.type_name == "call.outcome" && event.value["outcome"] == "completed";
            completed += events.iter().filter(ended).count();
        }
    }
    let executed = place.executed();
    let unique: BTreeSet<_> = executed.iter().collect();
    assert_eq!(unique.len(), executed.len(), "nothing was executed twice");
    assert!(executed.len() <= intents, "{} executed, {intents} intents", executed.len());
    assert!(answered <= completed && answered <= executed.len(), "{answered} answered, {completed} completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn up_on_apache_kafka_outlives_the_cluster_and_itself() {
    let Some(mut cluster) = Broker::start().await else { return };
    let place = Place::new(&cluster.bootstrap(), "properties = { \"linger.ms\" = 1 }");
    let mut up = place.start("up").await;
    assert!(up.ready.contains(&format!("ready cluster {}", cluster.bootstrap())), "{}", up.ready);
    assert!(!up.ready.contains("kafka "), "it has no Kafka port of its own: {}", up.ready);
    assert_eq!(up.get("/healthz").await.0, 200);
    assert_eq!(up.metric("cairn_spool_limit_bytes").await, 2 << 20);
    assert_eq!(up.metric("cairn_backbone_away").await, 0);
    let mut agent = Agent::connect(&up, "e2e").await;
    let (mut titles, mut answered) = (0.., 0);
    for _ in 0..20 {
        assert!(agent.ticket(&titles.next().unwrap().to_string()).await.is_some_and(|value| is_answer(&value)));
        answered += 1;
    }
    up.until("cairn_spool_events", |events| events == 0).await;
    reads_back(&place, &cluster.bootstrap()).await;

    // The cluster goes away: calls go on until the spool's bound, and are refused past it.
    cluster.stop();
    let refused = loop {
        let answer = agent.ticket(&titles.next().unwrap().to_string()).await.expect("an answer");
        if !is_answer(&answer) {
            break answer;
        }
        answered += 1;
    };
    assert!(answered > 100, "{answered} calls fitted");
    let words = refused["error"]["message"].as_str().expect("an error").to_owned();
    assert_eq!(refused["error"]["code"], -31005, "{refused}");
    assert!(words.contains("spool") && words.contains("cluster"), "{words}");
    up.until("cairn_backbone_away", |away| away == 1).await;
    assert!(up.metric("cairn_spool_events").await > 100);
    assert!(up.metric("cairn_spool_bytes").await <= 2 << 20);

    // kill -9 while it is away, and a start without it.
    up.kill().await;
    up = place.start("up").await;
    assert_eq!(up.metric("cairn_backbone_away").await, 1);
    assert_eq!(up.get("/healthz").await.0, 200);
    up.kill().await;

    // The cluster is back, and Cairn is killed in the middle of delivery and of calls.
    cluster.resume().await;
    for round in 0..3 {
        up = place.start("up").await;
        let mut agent = Agent::connect(&up, &format!("round-{round}")).await;
        let killed = async {
            tokio::time::sleep(Duration::from_millis(150 * (round + 1))).await;
            up.kill().await;
        };
        let calls = async {
            while let Some(answer) = agent.ticket(&titles.next().unwrap().to_string()).await {
                answered += usize::from(is_answer(&answer));
            }
        };
        tokio::join!(killed, calls);
    }
    up = place.start("up").await;
    up.until("cairn_spool_events", |events| events == 0).await;
    up.until("cairn_backbone_away", |away| away == 0).await;
    let mut agent = Agent::connect(&up, "e2e").await;
    assert!(agent.ticket("the last").await.is_some_and(|value| is_answer(&value)), "strict calls go on");
    up.stop().await;
    check(&cluster.bootstrap(), &place, answered + 1).await;
}

/// `trail` and `tail`, by what the running `up` says and by what the configuration says.
async fn reads_back(place: &Place, bootstrap: &str) {
    let data = place.data();
    let (good, text, fault) = run(&["trail", "e2e", "--json"], &data).await;
    assert!(good, "{fault}");
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let calls: Vec<_> = value["calls"].as_array().expect("calls").iter().collect();
    let of_tickets = calls.iter().filter(|call| call.to_string().contains("create_ticket")).count();
    assert_eq!(of_tickets, 20, "{text}");
    assert!(text.contains("\"offset\"") && text.contains("\"partition\""), "{text}");
    let (good, text, _) = run(&["trail"], &data).await;
    assert!(good && text.contains("e2e"), "{text}");
    let elsewhere = tempfile::tempdir().expect("a folder");
    for reading in [["--config", &place.config()], ["--bootstrap", bootstrap]] {
        let mut arguments = vec!["tail", "--from-start", "--count", "5", "--json"];
        arguments.extend(reading);
        let (good, text, fault) = run(&arguments, elsewhere.path()).await;
        assert!(good && text.lines().count() == 5, "{text}{fault}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_writes_to_the_broker_of_another_process_and_both_may_be_killed() {
    let home = tempfile::tempdir().expect("a folder");
    let log = home.path().join("broker");
    let bootstrap = format!("127.0.0.1:{}", Broker::free_port());
    let broker = async || Cairn::start(&["broker", "--kafka", &bootstrap, "--admin", "127.0.0.1:0"], &log).await;
    let mut served = broker().await;
    let secret_file = home.path().join("secret");
    let properties = format!(
        "ready_within_ms = 20000\nproperties = {{ \"security.protocol\" = \"sasl_plaintext\", \"sasl.mechanism\" = \"PLAIN\", \
         \"sasl.username\" = \"gateway-1\", \"sasl.password\" = \"file:{}\" }}",
        secret_file.display()
    );
    let place = Place::new(&bootstrap, &properties);
    let stranger = Place::new(&bootstrap, "ready_within_ms = 3000");
    let config = stranger.config();
    let arguments = ["gateway", "--config", &config, "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let (good, _, words) = run(&arguments, &stranger.data()).await;
    assert!(!good && words.contains("does not let Cairn"), "{words}");

    // The broker takes in a new writer while it runs.
    let (good, secret, fault) = run(&["writer", "new", "gateway-1"], &log).await;
    assert!(good, "{fault}");
    fs::write(&secret_file, &secret).expect("written");
    let (_, listed, _) = run(&["writer", "list"], &log).await;
    assert_eq!(listed, "gateway-1\n");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (mut titles, mut answered) = (0.., 0);
    for round in 0..4 {
        let gateway = place.start("gateway").await;
        assert!(gateway.ready.contains(&format!("ready cluster {bootstrap}")), "{}", gateway.ready);
        let mut agent = Agent::connect(&gateway, &format!("round-{round}")).await;
        for _ in 0..20 {
            answered +=
                usize::from(agent.ticket(&titles.next().unwrap().to_string()).await.is_some_and(|v| is_answer(&v)));
        }
        // kill -9 of the broker with calls going on, then of the gateway in the middle of delivery.
        served.kill().await;
        for _ in 0..20 {
            answered +=
                usize::from(agent.ticket(&titles.next().unwrap().to_string()).await.is_some_and(|v| is_answer(&v)));
        }
        served = broker().await;
        if round % 2 == 0 {
            gateway.kill().await;
        } else {
            gateway.until("cairn_spool_events", |events| events == 0).await;
            gateway.stop().await;
        }
    }
    assert_eq!(answered, 160, "the broker's absence is nobody's business");
    let gateway = place.start("gateway").await;
    gateway.until("cairn_spool_events", |events| events == 0).await;
    let (good, text, fault) = run(&["trail", "round-0"], &place.data()).await;
    assert!(good && text.contains("create_ticket"), "{text}{fault}");
    gateway.stop().await;
    check(&bootstrap, &place, answered).await;
    outsiders_read_and_do_not_write(&bootstrap).await;
    served.stop().await;
    for (folder, name) in [(&log, "writers.json"), (&place.data(), "endpoints.json")] {
        let text = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(!text.contains(secret.trim()), "{name} holds the secret");
    }
}

async fn outsiders_read_and_do_not_write(bootstrap: &str) {
    let outsider: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("message.timeout.ms", "30000")
        .create()
        .expect("a producer");
    let record = |topic| FutureRecord::<(), _>::to(topic).payload("v");
    let (error, _) = outsider.send(record("mcp.calls"), PATIENCE).await.expect_err("it is protected");
    assert!(error.to_string().contains("authorization"), "{error}");
    outsider.send(record("a-topic-of-theirs"), PATIENCE).await.expect("anybody may write what is not protected");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_topics_on_a_cluster_outlive_its_absence_and_a_kill() {
    let Some(mut cluster) = Broker::start().await else { return };
    let more = "[identity]\napi_keys = true\nlocal = true\n[tenants]\nseparate = [\"acme\"]\n";
    let place = Place::new(&cluster.bootstrap(), more);
    let mut up = place.start("up").await;
    let (good, made, fault) =
        run(&["key", "new", "--json", "--principal", "ada", "--tenant", "acme"], &place.data()).await;
    assert!(good, "{fault}");
    let key = serde_json::from_str::<Value>(&made).expect("JSON")["key"].as_str().expect("a key").to_owned();
    let mut titles = 0..;
    let mut ten = async |up: &Cairn| {
        let mut ada = Agent::with_key(up, "of-acme", Some(&key)).await;
        let mut nobody = Agent::connect(up, "of-nobody").await;
        for _ in 0..10 {
            for agent in [&mut ada, &mut nobody] {
                let answer = agent.ticket(&titles.next().unwrap().to_string()).await;
                assert!(answer.as_ref().is_some_and(is_answer), "{answer:?}");
            }
        }
    };
    ten(&up).await;
    // Away, a kill with both spools full of events, a start without the cluster, and the cluster is back.
    cluster.stop();
    ten(&up).await;
    up.kill().await;
    up = place.start("up").await;
    ten(&up).await;
    cluster.resume().await;
    up.until("cairn_spool_events", |events| events == 0).await;
    up.stop().await;
    for (topic, tenant) in [("mcp.calls", None), ("acme.mcp.calls", Some("acme"))] {
        let options = ReaderOptions { topics: vec![topic.to_owned()], ..ReaderOptions::all(cluster.bootstrap()) };
        let mut reader = Reader::open(options).await.expect("a reader");
        let mut partitions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        while let Some(entry) = reader.next().await {
            let entry = entry.expect("readable");
            partitions.entry(entry.partition).or_default().push(entry.event.expect("an event"));
        }
        reader.close().await;
        let mut completed = 0;
        for (partition, events) in &partitions {
            chain_unbroken(events, Start::Beginning).unwrap_or_else(|finding| panic!("{topic}/{partition}: {finding}"));
            assert!(check_calls(events, &BTreeSet::new()).is_empty());
            assert!(events.iter().all(|event| event.common.tenant.as_deref() == tenant), "{topic}");
            let ended = |event: &&StoredEvent| {
                event.type_name == "call.outcome" && event.value["mcp_method_name"] == "tools/call"
            };
            completed += events.iter().filter(ended).count();
        }
        assert_eq!(completed, 30, "{topic}");
    }
}

#[tokio::test]
async fn what_cannot_work_is_said_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let written = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let cluster = "[backbone]\nkind = \"kafka\"\nbootstrap = \"127.0.0.1:1\"\n";
    let unknown =
        written("unknown.toml", &format!("{cluster}properties = {{ \"sasl.pasword\" = \"hunter2hunter2\" }}\n"));
    let missing = written(
        "missing.toml",
        &format!("{cluster}properties = {{ \"sasl.password\" = \"${{NOT_SET_ANYWHERE}}\" }}\n"),
    );
    let reserved = written("reserved.toml", &format!("{cluster}properties = {{ acks = 1 }}\n"));
    let away = written("away.toml", &format!("{cluster}ready_within_ms = 500\n"));
    let port = written("port.toml", &format!("{cluster}[kafka]\nlisten = \"127.0.0.1:0\"\n"));
    let plain = written("plain.toml", "");
    for (command, config, words) in [
        ("up", &unknown, "sasl.pasword"),
        ("up", &missing, "NOT_SET_ANYWHERE"),
        ("up", &reserved, "acks cannot be changed"),
        ("up", &away, "does not answer"),
        ("up", &port, "no Kafka port of its own"),
        ("broker", &away, "remove backbone.kind"),
        ("gateway", &plain, "needs a cluster"),
    ] {
        let mut arguments = vec![command, "--config", config, "--admin", "127.0.0.1:0"];
        if command != "broker" {
            arguments.extend(["--gateway", "127.0.0.1:0"]);
        }
        let (good, _, fault) = run(&arguments, &folder.path().join("data")).await;
        assert!(!good && fault.contains(words) && !fault.contains("hunter2"), "{command} {config}: {fault}");
    }
    plan_is_printed(folder.path(), &away).await;
}

async fn plan_is_printed(folder: &Path, config: &str) {
    let planned = |more: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_cairn"));
        command.args(["topics", "plan", "--config", config, "--principal", "User:gw"]).args(more).current_dir(folder);
        command
    };
    let output = planned(&[]).output().await.expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("kafka-topics.sh --bootstrap-server 127.0.0.1:1 --create"), "{text}");
    assert!(text.contains("kafka-acls.sh") && text.contains("--allow-principal User:gw"), "{text}");
    let output = planned(&["--json"]).output().await.expect("it runs");
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["topics"][0]["name"], "mcp.calls");
    assert_eq!(value["topics"][0]["partitions"], 8);
}
