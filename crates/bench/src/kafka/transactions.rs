//! Transactions of 100 records over three partitions, one after the other, by librdkafka.

use std::time::Duration;

use anyhow::Context;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio::time::Instant;

use super::{
    Ground,
    broker::{Broker, able},
    turns,
};
use crate::{
    children::Alone,
    produce::{config, payload},
    report::{Report, Row},
    samples::median,
};

const SECTION: &str = "Transactions, 100 records of 1 KiB over 3 partitions, librdkafka";
const RECORDS: usize = 100;
const PARTITIONS: i32 = 3;
/// How long one step may take.
const STEP_MAX: Duration = Duration::from_secs(30);

pub(super) async fn measure(ground: Ground<'_>, report: &mut Report) -> anyhow::Result<()> {
    let alone = Alone::start(ground.folder, "").await?;
    let topic = format!("bench.transactions.{}", std::process::id());
    let own = Broker::own(&alone);
    own.create(&topic, PARTITIONS).await?;
    let able = able(ground.peers, "transactions", |peer| {
        let topic = topic.clone();
        async move {
            peer.create(&topic, PARTITIONS).await?;
            // Also makes the topic that keeps their state, and lets a virtual machine compile.
            commits(&peer, &topic, Duration::from_secs(2)).await.map(|_| ())
        }
    });
    let brokers: Vec<_> = std::iter::once(own).chain(able.await).collect();
    let mut rounds = Vec::new();
    for round in 1..=ground.effort.rounds {
        eprintln!("transactions: round {round} of {}", ground.effort.rounds);
        let mut found = vec![0.0; brokers.len()];
        for at in turns(brokers.len(), round) {
            found[at] = commits(&brokers[at], &topic, ground.effort.slice).await?;
        }
        rounds.push(found);
    }
    let of = |at: usize| median(rounds.iter().map(|round| round[at]));
    for (at, broker) in brokers.iter().enumerate() {
        let row = Row::new(SECTION, broker.name.as_str(), of(at), "commits/s").plotted();
        report.add(if at == 0 {
            row
        } else {
            let ratio = median(rounds.iter().map(|round| round[at] / round[0]));
            row.against_by_round(brokers[0].name.as_str(), of(0), ratio)
        });
    }
    for broker in &brokers {
        broker.delete(&topic).await?;
    }
    alone.end().await
}

/// Commits a second.
async fn commits(broker: &Broker, topic: &str, lasts: Duration) -> anyhow::Result<f64> {
    let (broker, topic) = (broker.clone(), topic.to_owned());
    let run = tokio::task::spawn_blocking(move || {
        commits_of(&broker.at, &topic, lasts).with_context(|| format!("transactions of {}", broker.name))
    });
    run.await?
}

fn commits_of(at: &str, topic: &str, lasts: Duration) -> anyhow::Result<f64> {
    let mut config = config(at);
    config.set("transactional.id", "bench").set("message.timeout.ms", "30000");
    let producer: ThreadedProducer<DefaultProducerContext> = config.create().context("make a producer")?;
    producer.init_transactions(STEP_MAX).context("begin")?;
    let value = payload();
    let (began, mut done) = (Instant::now(), 0);
    while began.elapsed() < lasts {
        producer.begin_transaction()?;
        for record in 0..RECORDS {
            let record = BaseRecord::<(), _>::to(topic).partition(record as i32 % PARTITIONS).payload(&value);
            producer.send(record).map_err(|(error, _)| error)?;
        }
        producer.commit_transaction(STEP_MAX).context("commit")?;
        done += 1;
    }
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
}
