//! The audit consumer on a real Apache Kafka broker: inside `up`, as a process of its own, through an absence of the cluster and
//! through kills, it comes to the same as the trail.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::{
    Place,
    broker::Broker,
    process::{Agent, PATIENCE, cairn, run},
    trail,
};

async fn rows(place: &Place, sql: &str) -> Vec<Value> {
    let (good, text, _) = run(&["query", sql, "--json", "--rows-max", "100000"], &place.data()).await;
    if !good {
        return Vec::new();
    }
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Waits until the database holds what the trail holds, each event once, at its place.
async fn agrees(place: &Place, bootstrap: &str) -> usize {
    let agreed = async {
        loop {
            let told: BTreeSet<String> = trail(bootstrap)
                .await
                .iter()
                .flat_map(|((topic, partition), events)| {
                    events.iter().map(move |one| format!("{topic}/{partition} {}", one.id))
                })
                .collect();
            let found = rows(place, "SELECT topic || '/' || partition || ' ' || id AS place FROM events").await;
            let kept: BTreeSet<String> =
                found.iter().filter_map(|row| row["place"].as_str().map(str::to_owned)).collect();
            assert_eq!(kept.len(), found.len(), "an event is there twice");
            if kept == told {
                return kept.len();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, agreed).await.expect("they agree in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn audit_on_apache_kafka_comes_to_the_same_as_the_trail() {
    let Some(mut cluster) = Broker::start().await else { return };
    let bootstrap = cluster.bootstrap();
    let place = Place::new(&bootstrap, "[consumers.audit]\nenabled = true\n");
    let mut up = place.start("up").await;
    let mut agent = Agent::connect(&up, "audited").await;
    for title in 0..20 {
        assert!(agent.ticket(&title.to_string()).await.is_some());
    }
    up.until("cairn_spool_events", |events| events == 0).await;
    let first = agrees(&place, &bootstrap).await;
    assert!(first > 60, "{first}");
    // Away and back, and killed.
    cluster.stop();
    assert!(agent.ticket("while it is away").await.is_some());
    cluster.resume().await;
    up.until("cairn_spool_events", |events| events == 0).await;
    up.kill().await;
    up = place.start("up").await;
    let mut agent = Agent::connect(&up, "audited").await;
    assert!(agent.ticket("after it").await.is_some());
    up.stop().await;
    // As a process of its own, killed on its way.
    let config = place.config();
    let words = ["consume", "audit", "--config", &config];
    for _ in 0..2 {
        let mut consumer = cairn(&words, &place.data()).spawn().expect("it starts");
        tokio::time::sleep(Duration::from_millis(700)).await;
        consumer.kill().await.expect("killed");
    }
    let mut consumer = cairn(&words, &place.data()).spawn().expect("it starts");
    let all = agrees(&place, &bootstrap).await;
    assert!(all > first);
    let caught_up = async {
        loop {
            let (good, text, fault) = run(&["lag", "--json", "--bootstrap", &bootstrap], &place.data()).await;
            assert!(good, "{fault}");
            let said: Value = serde_json::from_str(&text).expect("JSON");
            let groups = said["groups"].as_array().cloned().unwrap_or_default();
            if groups.iter().any(|group| group["group"] == "cairn-audit" && group["lag_records"] == 0) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(PATIENCE, caught_up).await.expect("its group has committed it");
    consumer.kill().await.expect("ended");
}
