//! Evidence over Apache Kafka: offsets with gaps, records that retention removed, a topic that was made anew.

use std::time::Duration;

use cairn_contract::StoredEvent;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;

use crate::{
    Place,
    broker::Broker,
    process::{Agent, Cairn, PATIENCE, run},
    trail,
};

/// Writes to every partition of `mcp.calls` what a reader of committed records never sees.
fn aborted(bootstrap: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("transactional.id", "somebody");
    let producer: BaseProducer = config.create().expect("a producer");
    producer.init_transactions(PATIENCE).expect("it is taken");
    producer.begin_transaction().expect("begun");
    for partition in 0..8 {
        assert!(producer.send(BaseRecord::to("mcp.calls").partition(partition).key("k").payload("x")).is_ok());
    }
    producer.flush(PATIENCE).expect("all are taken");
    producer.abort_transaction(PATIENCE).expect("aborted");
}

async fn verified(place: &Place, more: &[&str]) -> (bool, Value) {
    let (good, text, fault) = run(&[&["verify", "--json"], more].concat(), &place.data()).await;
    (good, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}{fault}")))
}

fn partitions(report: &Value) -> impl Iterator<Item = &Value> {
    report["partitions"].as_array().expect("partitions").iter().filter(|place| place["topic"] != "mcp.checkpoints")
}

/// Waits until signed checkpoints cover all that is there.
async fn settled(place: &Place) -> Value {
    let settled = async {
        loop {
            let (good, report) = verified(place, &[]).await;
            assert!(good, "{report}");
            if partitions(&report).all(|place| place["proven"] == place["records"]) {
                return report;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, settled).await.expect("checkpoints over all")
}

async fn calls(up: &Cairn, count: usize) {
    for workflow in ["first", "second", "third"] {
        let mut agent = Agent::connect(up, workflow).await;
        for number in 0..count {
            assert!(agent.ticket(&format!("{workflow}-{number}")).await.is_some());
        }
    }
    up.until("cairn_spool_events", |events| events == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_on_apache_kafka_holds_through_gaps_and_retention_and_finds_a_topic_made_anew() {
    let Some(cluster) = Broker::start().await else { return };
    let bootstrap = cluster.bootstrap();
    let place = Place::new(&bootstrap, "[evidence]\ninterval_ms = 200");
    let up = place.start("up").await;
    calls(&up, 5).await;
    settled(&place).await;
    aborted(&bootstrap);
    calls(&up, 5).await;
    let report = settled(&place).await;
    let number = |place: &Value, key: &str| place[key].as_u64().unwrap_or_else(|| panic!("{key}: {place}"));
    let has_gap = |place: &&Value| number(place, "to") - number(place, "from") + 1 > number(place, "records");
    let gaps = partitions(&report).filter(|place| place["records"] != 0).filter(has_gap).count();
    assert!(gaps > 0, "{report}");

    // Retention removes the beginning of a partition: the rest is still proven.
    let mut config = ClientConfig::new();
    let admin: AdminClient<DefaultClientContext> =
        config.set("bootstrap.servers", &bootstrap).create().expect("a client");
    let events: Vec<(u32, u64)> = {
        let all = trail(&bootstrap).await;
        let of_calls = all.iter().filter(|((topic, _), events)| topic == "mcp.calls" && events.len() > 8);
        of_calls.map(|((_, partition), events): (_, &Vec<StoredEvent>)| (*partition, events.len() as u64 / 2)).collect()
    };
    assert!(!events.is_empty(), "a partition has events to lose");
    let mut before = TopicPartitionList::new();
    for (partition, offset) in &events {
        let offset = Offset::Offset(*offset as i64);
        before.add_partition_offset("mcp.calls", *partition as i32, offset).expect("added");
    }
    admin.delete_records(&before, &AdminOptions::new()).await.expect("they go");
    calls(&up, 2).await;
    let (good, report) = verified(&place, &[]).await;
    assert!(good, "{report}");
    for (partition, _) in &events {
        let left = partitions(&report).find(|place| place["topic"] == "mcp.calls" && place["partition"] == *partition);
        let left = left.unwrap_or_else(|| panic!("{partition}: {report}"));
        assert!(number(left, "from") > 0 && number(left, "records") > 0, "{left}");
    }

    // Made anew under its name and with as many partitions, it is another topic.
    assert_eq!(up.metric("cairn_evidence_findings_total").await, 0);
    let deleted = admin.delete_topics(&["mcp.sessions"], &AdminOptions::new()).await.expect("an answer");
    assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
    let anew = async {
        loop {
            let topic = NewTopic::new("mcp.sessions", 8, TopicReplication::Fixed(1));
            let made = admin.create_topics(&[topic], &AdminOptions::new()).await.expect("an answer");
            if made.iter().all(Result::is_ok) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, anew).await.expect("the topic is made anew");
    up.until("cairn_evidence_findings_total", |findings| findings > 0).await;
    let (good, report) = verified(&place, &["--topic", "mcp.sessions"]).await;
    let kinds: Vec<_> = report["findings"].as_array().expect("findings").iter().map(|one| &one["kind"]).collect();
    assert!(!good && kinds.iter().any(|kind| *kind == "recreated"), "{report}");
    up.kill().await;
}
