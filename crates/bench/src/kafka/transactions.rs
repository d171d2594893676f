//! Transactions of 100 records over three partitions: by a client that does nothing else, one producer and sixteen side by side, and by
//! librdkafka, which makes about ten a second whoever answers: the client is then what is measured.

use std::time::Duration;

use anyhow::Context;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use tokio::time::Instant;

use super::{
    Ground,
    broker::{Broker, able},
    turns,
    wire::Transactional,
};
use crate::{
    children::Alone,
    produce::{config, payload},
    report::{Report, Row},
    samples::median,
};

const CLIENT: &str = "Transactions, 100 records of 1 KiB over 3 partitions, librdkafka";
const PREPARED: &str = "Transactions, 100 records of 1 KiB over 3 partitions, a client that does nothing else";
const RECORDS: usize = 100;
const PARTITIONS: i32 = 3;
/// How long one step may take.
const STEP_MAX: Duration = Duration::from_secs(30);

/// Who commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    /// So many producers side by side, whose requests are all that takes time.
    Prepared(usize),
    Librdkafka,
}

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
            commits(&peer, Client::Prepared(1), &topic, Duration::from_secs(5)).await.map(|_| ())
        }
    });
    let brokers: Vec<_> = std::iter::once(own).chain(able.await).collect();
    for client in [Client::Prepared(1), Client::Prepared(16), Client::Librdkafka] {
        let mut rounds = Vec::new();
        for round in 1..=ground.effort.rounds {
            eprintln!("transactions, {client:?}: round {round} of {}", ground.effort.rounds);
            let mut found = vec![0.0; brokers.len()];
            for at in turns(brokers.len(), round) {
                found[at] = commits(&brokers[at], client, &topic, ground.effort.slice).await?;
            }
            rounds.push(found);
        }
        tell(client, &brokers, &rounds, report);
    }
    for broker in &brokers {
        broker.delete(&topic).await?;
    }
    alone.end().await
}

fn tell(client: Client, brokers: &[Broker], rounds: &[Vec<f64>], report: &mut Report) {
    let (section, side_by_side) = match client {
        Client::Prepared(1) | Client::Librdkafka => {
            (if client == Client::Librdkafka { CLIENT } else { PREPARED }, String::new())
        }
        Client::Prepared(producers) => (PREPARED, format!("{producers} producers: ")),
    };
    let of = |at: usize| median(rounds.iter().map(|round| round[at]));
    for (at, broker) in brokers.iter().enumerate() {
        let row = Row::new(section, format!("{side_by_side}{}", broker.name), of(at), "commits/s").plotted();
        report.add(if at == 0 {
            row
        } else {
            let ratio = median(rounds.iter().map(|round| round[at] / round[0]));
            row.against_by_round(brokers[0].name.as_str(), of(0), ratio)
        });
    }
}

/// Commits a second.
async fn commits(broker: &Broker, client: Client, topic: &str, lasts: Duration) -> anyhow::Result<f64> {
    let (broker, topic) = (broker.clone(), topic.to_owned());
    let run = tokio::task::spawn_blocking(move || {
        let commits = match client {
            Client::Prepared(producers) => prepared(&broker.at, producers, &topic, lasts),
            Client::Librdkafka => commits_of(&broker.at, &topic, lasts),
        };
        commits.with_context(|| format!("transactions of {}", broker.name))
    });
    run.await?
}

fn prepared(at: &str, producers: usize, topic: &str, lasts: Duration) -> anyhow::Result<f64> {
    let mut all = Vec::new();
    for producer in 0..producers {
        all.push(Transactional::begin(at, &format!("bench-{producer}"), topic, PARTITIONS as usize)?);
    }
    let began = Instant::now();
    let one = |mut producer: Transactional| {
        let value = payload();
        let mut done = 0_u32;
        while began.elapsed() < lasts {
            producer.commit(RECORDS, &value)?;
            done += 1;
        }
        Ok(done)
    };
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = all.into_iter().map(|producer| scope.spawn(|| one(producer))).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).sum::<anyhow::Result<u32>>()
    })?;
    Ok(f64::from(done) / began.elapsed().as_secs_f64())
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
