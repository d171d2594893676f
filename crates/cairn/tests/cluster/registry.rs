//! The schema registry on a real Apache Kafka broker: what it acknowledged is there after kills and after the topic was compacted,
//! and of two on one topic the later one writes.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};
use serde_json::{Value, json};

use crate::{
    Place,
    broker::Broker,
    process::{Cairn, PATIENCE},
};

const LISTENS: &str = "[registry]\nlisten = \"127.0.0.1:0\"\ncontracts = false\n";

/// The registry of a running Cairn.
struct Schemas {
    client: Client<HttpConnector, Full<Bytes>>,
    url: String,
}

impl Schemas {
    fn of(cairn: &Cairn) -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), url: cairn.endpoint("registry_url") }
    }

    /// With a cluster it serves once its topic was read: until then the connection waits.
    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let request = http::Request::builder().method(method).uri(format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json").body(Full::new(Bytes::from(body)));
        let response = self.client.request(request.expect("a request"));
        let response = tokio::time::timeout(PATIENCE, response).await.expect("in time").expect("an answer");
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn done(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, value) = self.ask(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {value}");
        value
    }

    /// Registers an enumeration of that name; gives its id.
    async fn register(&self, subject: &str, name: &str) -> u64 {
        let schema = json!({"type": "enum", "name": name, "symbols": ["A"]}).to_string();
        let made = self.done("POST", &format!("/subjects/{subject}/versions"), Some(json!({"schema": schema}))).await;
        made["id"].as_u64().expect("an id")
    }

    async fn delete_for_good(&self, subject: &str) {
        self.done("DELETE", &format!("/subjects/{subject}"), None).await;
        self.done("DELETE", &format!("/subjects/{subject}?permanent=true"), None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_on_apache_kafka_outlive_kills_and_the_later_registry_writes() {
    let Some(cluster) = Broker::start().await else { return };
    let (one, two) = (Place::new(&cluster.bootstrap(), LISTENS), Place::new(&cluster.bootstrap(), LISTENS));
    let first = one.start("up").await;
    let asked = Schemas::of(&first);
    assert_eq!((asked.register("s", "One").await, asked.register("t", "Two").await), (1, 2));
    asked.done("PUT", "/config/s", Some(json!({"compatibility": "NONE"}))).await;
    first.kill().await;
    let first = one.start("up").await;
    let asked = Schemas::of(&first);
    assert_eq!(asked.done("GET", "/subjects", None).await, json!(["s", "t"]));
    assert_eq!(asked.done("GET", "/config/s", None).await["compatibilityLevel"], "NONE");
    assert_eq!(asked.register("s", "One").await, 1, "what is there stays as it is");

    // Another one on the same topic.
    let second = two.start("up").await;
    let later = Schemas::of(&second);
    assert_eq!(later.register("u", "Three").await, 3);
    let body = json!({"schema": "\"int\""});
    let (status, said) = asked.ask("POST", "/subjects/v/versions", Some(body)).await;
    assert!(status == 503 && said["error_code"] == 50004, "{status} {said}");
    assert_eq!(asked.done("GET", "/master_available", None).await["master_available"], false);
    let followed = async {
        while asked.ask("GET", "/schemas/ids/3", None).await.0 != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, followed).await.expect("the first one still reads");
    assert_eq!(later.register("v", "Four").await, 4, "nothing of what was refused counts");
    first.stop().await;
    second.kill().await;
    let first = one.start("up").await;
    let asked = Schemas::of(&first);
    assert_eq!(asked.done("GET", "/subjects", None).await, json!(["s", "t", "u", "v"]));
    assert_eq!(asked.register("w", "Five").await, 5);
    first.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_on_apache_kafka_outlive_compaction_and_no_id_comes_back() {
    let Some(cluster) = Broker::start().await else { return };
    let admin: AdminClient<DefaultClientContext> = client(&cluster).create().expect("a client");
    // Compacted as fast as a broker does.
    let topic = [("cleanup.policy", "compact"), ("segment.ms", "500"), ("min.cleanable.dirty.ratio", "0.01")];
    let topic = topic.into_iter().chain([("delete.retention.ms", "100"), ("min.compaction.lag.ms", "0")]);
    let topic = topic
        .fold(NewTopic::new("_schemas", 1, TopicReplication::Fixed(1)), |made, (name, value)| made.set(name, value));
    let made = admin.create_topics([&topic], &AdminOptions::new()).await.expect("created");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let place = Place::new(&cluster.bootstrap(), LISTENS);
    let up = place.start("up").await;
    let asked = Schemas::of(&up);
    assert_eq!((asked.register("s", "One").await, asked.register("gone", "Two").await), (1, 2));
    asked.delete_for_good("gone").await;
    let compacted = async {
        let mut round = 0_u64;
        loop {
            // A segment is compacted once another one follows it.
            let level = if round.is_multiple_of(2) { "NONE" } else { "FULL" };
            asked.done("PUT", "/config/other", Some(json!({"compatibility": level}))).await;
            let keys = keys(&cluster).await;
            if !keys.iter().any(|key| key.contains("\"SCHEMA\"") && key.contains("gone")) {
                return keys;
            }
            round += 1;
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
    };
    let kept = tokio::time::timeout(PATIENCE, compacted).await.expect("it is compacted in time");
    assert!(kept.iter().any(|key| key.contains("\"s\"")), "{kept:?}");
    up.kill().await;
    let up = place.start("up").await;
    let asked = Schemas::of(&up);
    assert_eq!(asked.done("GET", "/subjects?deleted=true", None).await, json!(["s"]));
    assert_eq!(asked.register("s", "One").await, 1);
    assert_eq!(asked.register("new", "Three").await, 3, "the second was handed out");
    up.stop().await;
}

fn client(cluster: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", cluster.bootstrap());
    config
}

/// The keys that the topic still holds.
async fn keys(cluster: &Broker) -> BTreeSet<String> {
    let mut config = client(cluster);
    config.set("group.id", "reads-keys").set("enable.auto.commit", "false").set("enable.partition.eof", "true");
    let reading = move || {
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset("_schemas", 0, Offset::Beginning).expect("a partition");
        consumer.assign(&list).expect("assigned");
        let mut keys = BTreeSet::new();
        loop {
            match consumer.poll(PATIENCE).expect("something in time") {
                Ok(message) => {
                    let key = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
                    keys.insert(key);
                }
                Err(KafkaError::PartitionEOF(_)) => return keys,
                Err(error) => panic!("{error}"),
            }
        }
    };
    tokio::task::spawn_blocking(reading).await.expect("read")
}
