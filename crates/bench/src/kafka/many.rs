//! Many small producers: 1,000 connections that write single records to 10,000 partitions, and what all of them cost while idle.

use std::time::Duration;

use anyhow::Context;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{Ground, broker::Broker, process::resident_kib, wire};
use crate::{
    children::Alone,
    produce::{create_topic, payload},
    report::{Report, Row},
    samples::{Samples, median},
};

const SECTION: &str = "Many: 1,000 connections, 10,000 partitions";
const TOPICS: usize = 10;
const PARTITIONS: i32 = 1_000;
const CONNECTIONS: usize = 1_000;
/// The same with few of both, to compare with.
const FEW: usize = 10;
/// A start with all partitions.
const START_MAX: Duration = Duration::from_secs(2);
/// Of the rate of few connections.
const COLLAPSE_RATIO_MIN: f64 = 1.0;

pub(super) async fn measure(ground: Ground<'_>, report: &mut Report) -> anyhow::Result<()> {
    let alone = Alone::start(ground.folder, "").await?;
    let (name, all) = (format!("bench.many.{}", std::process::id()), TOPICS as f64 * f64::from(PARTITIONS));
    let before = resident_kib(alone.pid())?;
    for topic in 0..TOPICS {
        create_topic(&alone.kafka_at, &format!("{name}.{topic}"), PARTITIONS).await?;
    }
    let with_partitions = resident_kib(alone.pid())?;
    report.add(Row::new(SECTION, "memory of an idle partition", (with_partitions - before) / all, "KiB"));
    let mut idle = Vec::with_capacity(CONNECTIONS);
    for at in 0..CONNECTIONS {
        idle.push(Producer::connect(&alone.kafka_at, &name, at).await?);
    }
    let with_connections = resident_kib(alone.pid())?;
    let each = (with_connections - with_partitions) / CONNECTIONS as f64;
    report.add(Row::new(SECTION, "memory of an idle connection", each, "KiB"));
    load(&alone, &name, (ground.effort.rounds, ground.effort.slice), idle, report).await?;
    report.add(Row::new(SECTION, "resident after that", resident_kib(alone.pid())? / 1024.0, "MiB"));
    let (mut alone, mut starts) = (alone, Vec::new());
    for _ in 0..3 {
        let (next, took) = alone.again().await?;
        alone = next;
        starts.push(took.as_secs_f64());
    }
    let start = median(starts);
    let row = Row::new(SECTION, "start until ready, with all of them", start, "s");
    report.add(row.aim(format!("below {} s", START_MAX.as_secs()), start < START_MAX.as_secs_f64()));
    alone.end().await
}

/// Few and many take turns.
async fn load(
    alone: &Alone,
    name: &str,
    (rounds, lasts): (usize, Duration),
    mut many: Vec<Producer>,
    report: &mut Report,
) -> anyhow::Result<()> {
    let broker = Broker::own(alone);
    let mut few = Vec::new();
    for at in 0..FEW {
        few.push(Producer::connect(&broker.at, name, at).await?);
    }
    let (mut ratios, mut rates, mut waits) =
        (Vec::new(), [Vec::new(), Vec::new()], [Samples::default(), Samples::default()]);
    for round in 1..=rounds {
        eprintln!("many: round {round} of {rounds}");
        for at in super::turns(2, round) {
            let clients = std::mem::take(if at == 0 { &mut few } else { &mut many });
            let (clients, samples, rate) = all(clients, lasts).await?;
            *(if at == 0 { &mut few } else { &mut many }) = clients;
            rates[at].push(rate);
            waits[at].extend(samples);
        }
        ratios.push(rates[1][round - 1] / rates[0][round - 1]);
    }
    let ratio = median(ratios);
    let [few, many] = rates.map(median);
    let row = Row::new(SECTION, "single records of 1 KiB, each waited for", many, "records/s").plotted();
    let row = row.against_by_round(format!("{FEW} connections"), few, ratio);
    report.add(row.aim("no collapse: at least that", ratio >= COLLAPSE_RATIO_MIN));
    for (word, share) in [("p50", 0.5), ("p99", 0.99)] {
        let row = Row::new(SECTION, format!("acknowledged, {word}"), waits[1].percentile(share) / 1e3, "ms");
        report.add(row.against(format!("{FEW} connections"), waits[0].percentile(share) / 1e3));
    }
    Ok(())
}

/// A small client, which writes to ten partitions in turn and waits for each answer.
#[derive(Debug)]
struct Producer {
    stream: TcpStream,
    requests: Vec<Vec<u8>>,
    answer: Vec<u8>,
}

impl Producer {
    async fn connect(at: &str, name: &str, number: usize) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(at).await.context("connect")?;
        stream.set_nodelay(true)?;
        let (batch, _) = wire::batch(1, &payload());
        let partition = (number % PARTITIONS as usize) as i32;
        let requests =
            (0..TOPICS).map(|topic| wire::produce(&format!("{name}.{topic}"), &[(partition, &batch)])).collect();
        let mut producer = Self { stream, requests, answer: Vec::new() };
        producer.ask(&wire::versions()).await?;
        Ok(producer)
    }

    async fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        let length = usize::try_from(self.stream.read_i32().await?)?;
        self.answer.resize(length, 0);
        self.stream.read_exact(&mut self.answer).await?;
        Ok(())
    }

    async fn run(mut self, until: Instant) -> anyhow::Result<(Self, Samples)> {
        let (requests, mut samples) = (std::mem::take(&mut self.requests), Samples::default());
        for request in requests.iter().cycle() {
            let began = Instant::now();
            if began >= until {
                break;
            }
            self.ask(request).await?;
            wire::produced(&self.answer[4..])?;
            samples.push(began.elapsed());
        }
        self.requests = requests;
        Ok((self, samples))
    }
}

async fn all(producers: Vec<Producer>, lasts: Duration) -> anyhow::Result<(Vec<Producer>, Samples, f64)> {
    let began = Instant::now();
    let running: Vec<_> = producers.into_iter().map(|producer| tokio::spawn(producer.run(began + lasts))).collect();
    let (mut producers, mut samples) = (Vec::new(), Samples::default());
    for one in running {
        let (producer, waited) = one.await??;
        producers.push(producer);
        samples.extend(waited);
    }
    let rate = samples.len() as f64 / began.elapsed().as_secs_f64();
    Ok((producers, samples, rate))
}
