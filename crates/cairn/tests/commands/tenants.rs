//! Tenants with topics of their own: what one does stands in its topics and nowhere else, over a crash too.

use std::collections::BTreeSet;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use crate::{
    identity::{hello, key, look, send},
    support::{LONG, Orders, Up, cairn, events, open, run, text, wait_for},
};

const ALL: &str = "permit(principal, action, resource);\n";
const SEPARATE: &str =
    "[identity]\napi_keys = true\n[tenants]\nseparate = [\"acme\", \"globex\"]\n[evidence]\ninterval_ms = 200\n";

fn call(up: &Up, key: &str) -> Value {
    let session = send(up, "POST", key, "", &hello()).header("mcp-session-id").expect("a session");
    send(up, "POST", key, &session, &look()).json()
}

fn topics_of(all: &[Value], principal: &str) -> BTreeSet<String> {
    let its = all.iter().filter(|event| event["data"]["principal"] == principal);
    its.map(|event| event["topic"].as_str().expect("a topic").to_owned()).collect()
}

#[test]
fn what_a_tenant_does_stands_in_its_own_topics_and_nowhere_else() {
    let gateway = Orders::new(ALL, SEPARATE);
    let data = gateway.data();
    let up = gateway.up();
    let (_, ada) = key(&data, &["--principal", "ada", "--tenant", "acme"]);
    let (_, bob) = key(&data, &["--principal", "bob", "--tenant", "globex"]);
    let (_, cleo) = key(&data, &["--principal", "cleo", "--tenant", "small"]);
    let (_, dora) = key(&data, &["--principal", "dora"]);
    for key in [&ada, &bob, &cleo, &dora] {
        assert!(call(&up, key).get("result").is_some());
    }
    let all = wait_for("what everybody did", || {
        let all = events(&data);
        let ended = all
            .iter()
            .filter(|event| event["type"] == "call.answered" && event["data"]["mcp_method_name"] == "tools/call");
        (ended.count() == 4).then_some(all)
    });
    for (who, prefix) in [("key/ada", "acme."), ("key/bob", "globex."), ("key/cleo", ""), ("key/dora", "")] {
        let topics = topics_of(&all, who);
        let own: Vec<String> = ["mcp.calls", "mcp.sessions"].iter().map(|name| format!("{prefix}{name}")).collect();
        assert!(own.iter().all(|name| topics.contains(name)), "{who}: {topics:?}");
        let known = |name: &String| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("mcp."));
        assert!(topics.iter().all(known), "{who}: {topics:?}");
    }

    // Nobody but Cairn writes them, as with its own.
    let config = |name: &str| {
        rdkafka::ClientConfig::new().set("bootstrap.servers", name).set("message.timeout.ms", "20000").clone()
    };
    let producer: BaseProducer = config(&up.kafka).create().expect("a producer");
    for (topic, goes) in [("acme.mcp.calls", false), ("new.mcp.calls", false), ("acme.orders", true)] {
        // A topic that cannot be made is refused at once.
        let _ = producer.send(BaseRecord::<str, str>::to(topic).key("w").payload("{}"));
        let flushed = producer.flush(LONG);
        assert_eq!(holds(&up, topic, "{}"), goes, "{topic} {flushed:?}");
    }

    let shown = run(cairn().args(["verify", "--json", "--data"]).arg(&data));
    let report = text(&shown.stdout);
    assert!(shown.status.success(), "{report} {}", text(&shown.stderr));
    assert!(report.contains("acme.mcp.calls") && report.contains("globex.mcp.calls"), "{report}");
    up.end();
}

/// Whether a topic holds a record with that value.
fn holds(up: &Up, topic: &str, value: &str) -> bool {
    use rdkafka::{
        Message, Offset, TopicPartitionList,
        consumer::{BaseConsumer, Consumer},
    };
    let consumer: BaseConsumer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &up.kafka)
        .set("group.id", "tests")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), LONG).expect("it answers");
    let count = metadata.topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(count).expect("few") {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("added");
    }
    consumer.assign(&list).expect("assigned");
    let mut ended = 0;
    while ended < count {
        match consumer.poll(LONG).expect("an answer") {
            Ok(message) if message.payload() == Some(value.as_bytes()) => return true,
            Ok(_) => {}
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => ended += 1,
            Err(_) => {}
        }
    }
    false
}

#[test]
fn a_tenants_calls_that_a_crash_left_open_are_closed_in_its_own_topics() {
    let gateway = Orders::new(ALL, SEPARATE);
    let data = gateway.data();
    let config = gateway.folder.path().join("cairn.toml").display().to_string();
    let mut command = cairn();
    command.args([
        "up",
        "--kafka",
        "127.0.0.1:0",
        "--gateway",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--config",
        &config,
    ]);
    command.arg("--data").arg(&data).env("CAIRN_CRASH_AT", "after-intent:1");
    let mut up = Up::spawn(&mut command, &data);
    let (_, ada) = key(&data, &["--principal", "ada", "--tenant", "acme"]);
    let session = send(&up, "POST", &ada, "", &hello()).header("mcp-session-id").expect("a session");
    let body = look().to_string();
    let authorization = format!("Bearer {ada}");
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("authorization", &authorization),
        ("mcp-session-id", &session),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    let unanswered = open(&up.gateway, "POST /mcp/orders", &headers, &body);
    up.process.wait();
    drop(unanswered);

    let up = gateway.up();
    let all = events(&data);
    let ends: Vec<&Value> =
        all.iter().filter(|event| event["type"] == "call.outcome" && event["data"]["recovered"] == true).collect();
    assert_eq!(ends.len(), 1, "{ends:?}");
    assert_eq!((&ends[0]["topic"], &ends[0]["data"]["outcome"]), (&json!("acme.mcp.calls"), &json!("in_doubt")));
    assert!(call(&up, &ada).get("result").is_some());
    up.end();
}
