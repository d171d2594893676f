//! Records into the log by librdkafka, against what the disk gives and against another Kafka in the same run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use rdkafka::{
    ClientConfig, ClientContext,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::DeliveryResult,
    producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer},
};
use tokio::time::Instant;

use crate::{
    Effort,
    children::Stage,
    gateway::{metrics, value},
    report::{Report, Row},
    samples::median,
};

const SECTION: &str = "Log, records of 1 KiB, acks=all with fsync";
const RECORD_BYTES: usize = 1 << 10;
/// Bytes that one round writes at most, so that no run fills a disk.
const ROUND_BYTES_MAX: u64 = 256 << 20;
/// How long the last records may take after the load ended.
const FLUSH_MAX: Duration = Duration::from_secs(60);
/// What a full queue of the client is given to drain: spinning would take the processor from the broker.
pub(crate) const QUEUE_PAUSE: Duration = Duration::from_micros(200);
/// Time for the disk alone in a round.
const DISK_WITHIN: Duration = Duration::from_secs(1);

/// One broker that is measured.
#[derive(Clone, Debug)]
struct Broker {
    name: String,
    bootstrap: String,
}

/// Counts what was delivered.
#[derive(Debug, Default)]
struct Delivered {
    bytes: AtomicU64,
    failed: AtomicU64,
    first_error: std::sync::OnceLock<String>,
}

#[derive(Clone)]
struct Count(Arc<Delivered>);

impl ClientContext for Count {}

impl ProducerContext for Count {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                self.0.bytes.fetch_add(message.payload_len() as u64, Ordering::Relaxed);
            }
            Err((error, _)) => {
                self.0.failed.fetch_add(1, Ordering::Relaxed);
                let _ = self.0.first_error.set(error.to_string());
            }
        }
    }
}

/// Measures 1 and 8 partitions, in turns with the disk and with peers.
pub(crate) async fn measure(
    stage: &Stage,
    peers: &[(&str, &str)],
    effort: Effort,
    report: &mut Report,
) -> anyhow::Result<()> {
    let own = Broker { name: "Cairn".to_owned(), bootstrap: stage.kafka_at.clone() };
    let peers = peers.iter().map(|(name, at)| Broker { name: (*name).to_owned(), bootstrap: (*at).to_owned() });
    let brokers: Vec<_> = std::iter::once(own).chain(peers).collect();
    let scratch = Arc::new(stage.scratch()?);
    for partitions in [1, 8] {
        let topic = format!("bench.log.{partitions}.{}", std::process::id());
        for broker in &brokers {
            create_topic(&broker.bootstrap, &topic, partitions).await?;
        }
        let mut rounds = Vec::new();
        for at in 1..=effort.rounds {
            eprintln!("log, {partitions} partitions: round {at} of {}", effort.rounds);
            let disk = scratch.clone();
            let raw = tokio::task::spawn_blocking(move || disk.rate(DISK_WITHIN)).await??;
            let mut rates = Vec::new();
            for broker in &brokers {
                let (broker, topic) = (broker.clone(), topic.clone());
                let produced = tokio::task::spawn_blocking(move || {
                    produce(&broker.name, &broker.bootstrap, &topic, effort.slice, ROUND_BYTES_MAX)
                });
                rates.push(produced.await??);
            }
            rounds.push((raw, rates));
        }
        let raw = median(rounds.iter().map(|(raw, _)| *raw));
        for (index, broker) in brokers.iter().enumerate() {
            let rate = median(rounds.iter().map(|(_, rates)| rates[index]));
            let ratio = median(rounds.iter().map(|(raw, rates)| rates[index] / raw));
            let row = Row::new(SECTION, format!("{partitions} partitions: {}", broker.name), rate, "MB/s");
            report.add(row.against_by_round("disk, 1 MiB writes each with fdatasync", raw, ratio));
            if index > 0 {
                let own = median(rounds.iter().map(|(_, rates)| rates[0]));
                let ratio = median(rounds.iter().map(|(_, rates)| rates[0] / rates[index]));
                let row = Row::new(SECTION, format!("{partitions} partitions: Cairn, again"), own, "MB/s");
                report.add(row.against_by_round(format!("{}, its default of no fsync", broker.name), rate, ratio));
            }
        }
    }
    Ok(())
}

/// Full load for long: the rate in the first and in the last quarter, and whether the upload keeps up.
pub(crate) async fn steady(stage: &Stage, lasts: Duration, report: &mut Report) -> anyhow::Result<()> {
    const QUARTERS: u32 = 4;
    let own = Broker { name: "Cairn".to_owned(), bootstrap: stage.kafka_at.clone() };
    let topic = format!("bench.steady.{}", std::process::id());
    create_topic(&own.bootstrap, &topic, 8).await?;
    let mut rates = Vec::new();
    let mut depths = Vec::new();
    for quarter in 1..=QUARTERS {
        eprintln!("log, steady state: quarter {quarter} of {QUARTERS}");
        let (broker, topic) = (own.clone(), topic.clone());
        let produced = tokio::task::spawn_blocking(move || {
            produce(&broker.name, &broker.bootstrap, &topic, lasts / QUARTERS, u64::MAX)
        });
        rates.push(produced.await??);
        let text = metrics(stage.admin_at).await?;
        depths.push(value(&text, "cairn_log_wal_depth_bytes").unwrap_or_default() / f64::from(1 << 20));
    }
    let seconds = lasts.as_secs();
    let (first, last) = (rates[0], rates[rates.len() - 1]);
    let row = Row::new(SECTION, format!("{seconds} s of full load, 8 partitions: last quarter"), last, "MB/s");
    report.add(row.against("first quarter", first));
    let (first, last) = (depths[0], depths[depths.len() - 1]);
    let row = Row::new(SECTION, format!("{seconds} s of full load: not uploaded yet at the end"), last, "MiB");
    report.add(row.against("after the first quarter", first));
    Ok(())
}

pub(crate) async fn create_topic(bootstrap: &str, topic: &str, partitions: i32) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create()?;
    let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let made = admin.create_topics([&wanted], &AdminOptions::new()).await.context("create a topic")?;
    for result in made {
        result.map_err(|(name, code)| anyhow::anyhow!("topic {name} cannot be created at {bootstrap}: {code}"))?;
    }
    Ok(())
}

pub(crate) fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

/// For who reads what it was assigned. It commits nothing: the client's `poll` returns without a record when a commit is done.
pub(crate) fn reading(bootstrap: &str) -> ClientConfig {
    let mut config = config(bootstrap);
    config.set("group.id", "bench").set("enable.auto.commit", "false");
    config
}

/// Megabytes a second that were acknowledged, from the first record to the last acknowledgement.
pub(crate) fn produce(name: &str, at: &str, topic: &str, lasts: Duration, bytes_max: u64) -> anyhow::Result<f64> {
    let delivered = Arc::new(Delivered::default());
    let mut config = config(at);
    let producer: ThreadedProducer<Count> =
        config.set("acks", "all").create_with_context(Count(delivered.clone())).context("make a producer")?;
    let payload = payload();
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < lasts && sent < bytes_max {
        match producer.send(BaseRecord::<(), _>::to(topic).payload(&payload[..])) {
            Ok(()) => sent += RECORD_BYTES as u64,
            // The client's queue is full: the broker sets the pace.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::park_timeout(QUEUE_PAUSE)
            }
            Err((error, _)) => return Err(error).context("produce"),
        }
    }
    producer.flush(FLUSH_MAX).context("wait for the last acknowledgements")?;
    let took = began.elapsed().as_secs_f64();
    let failed = delivered.failed.load(Ordering::Relaxed);
    if failed > 0 {
        let reason = delivered.first_error.get().map_or("", String::as_str);
        bail!("{name} refused {failed} records: {reason}");
    }
    Ok(delivered.bytes.load(Ordering::Relaxed) as f64 / 1e6 / took)
}

/// Bytes that no compression would shrink; none is asked for.
pub(crate) fn payload() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
    .take(RECORD_BYTES)
    .collect()
}
