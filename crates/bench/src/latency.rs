//! From producer to consumer, at a rate that an audited system has, with the settings that a client has by default.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    Effort,
    children::Stage,
    produce::{config, create_topic, reading},
    report::{Report, Row},
    samples::{Samples, median},
};

const SECTION: &str = "End to end, 500 records a second of 1 KiB, default client settings";
const RECORDS_A_SECOND: u32 = 500;
const RECORD_BYTES: usize = 1 << 10;
/// Records at the beginning that are not counted: connections are made and metadata fetched.
const WARM_RECORDS: usize = 200;
/// How long the consumer waits for a record before it gives up.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// Measures Cairn, the disk, and peers in turns.
pub(crate) async fn measure(
    stage: &Stage,
    peers: &[(&str, &str)],
    effort: Effort,
    report: &mut Report,
) -> anyhow::Result<()> {
    let brokers: Vec<(String, String)> = std::iter::once(("Cairn", stage.kafka_at.as_str()))
        .chain(peers.iter().copied())
        .map(|(name, at)| (name.to_owned(), at.to_owned()))
        .collect();
    let scratch = Arc::new(stage.scratch()?);
    let topic = format!("bench.latency.{}", std::process::id());
    for (_, bootstrap) in &brokers {
        create_topic(bootstrap, &topic, 1).await?;
    }
    let (mut syncs, mut found) = (Vec::new(), vec![Vec::new(); brokers.len()]);
    for at in 1..=effort.rounds {
        eprintln!("end to end: round {at} of {}", effort.rounds);
        let disk = scratch.clone();
        let within = effort.slice.min(Duration::from_secs(1));
        syncs.push(tokio::task::spawn_blocking(move || disk.syncs(within)).await??);
        for (index, (_, bootstrap)) in brokers.iter().enumerate() {
            found[index].push(run(bootstrap, &topic, effort.slice, &[]).await?);
        }
    }
    for (word, share) in [("p50", 0.5), ("p99", 0.99)] {
        let of = |rounds: &[Samples]| median(rounds.iter().map(|samples| samples.percentile(share)));
        let sync = of(&syncs);
        for (index, (name, _)) in brokers.iter().enumerate() {
            let row = Row::new(SECTION, format!("{name}, {word}"), of(&found[index]), "µs");
            let row = row.against(format!("one fdatasync of 4 KiB, {word}"), sync);
            report.add(row.note("the client itself lingers for 5 ms"));
        }
    }
    Ok(())
}

/// Writes at the rate, with these settings of the producer, and reads at once; how long each record took.
pub(crate) async fn run(
    bootstrap: &str,
    topic: &str,
    lasts: Duration,
    settings: &[(&str, &str)],
) -> anyhow::Result<Samples> {
    let records = WARM_RECORDS + (lasts.as_secs_f64() * f64::from(RECORDS_A_SECOND)) as usize;
    let consumer: BaseConsumer = reading(bootstrap).create().context("make a consumer")?;
    let end = consumer.fetch_watermarks(topic, 0, SILENCE_MAX).context("find the end of the topic")?.1;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Offset(end))?;
    consumer.assign(&from)?;
    let began = Instant::now();
    let reading = tokio::task::spawn_blocking(move || read(&consumer, records, began));
    let mut producing = config(bootstrap);
    producing.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let producer: ThreadedProducer<DefaultProducerContext> = producing.create().context("make a producer")?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RECORDS_A_SECOND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut payload = vec![0_u8; RECORD_BYTES];
    for _ in 0..records {
        ticks.tick().await;
        let sent = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        payload[..8].copy_from_slice(&sent.to_be_bytes());
        producer.send(BaseRecord::<(), _>::to(topic).payload(&payload)).map_err(|(error, _)| error)?;
    }
    let samples = reading.await??;
    producer.flush(SILENCE_MAX)?;
    Ok(samples)
}

fn read(consumer: &BaseConsumer, records: usize, began: Instant) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    for at in 0..records {
        let message = consumer.poll(SILENCE_MAX).context("no record came")??;
        let arrived = began.elapsed();
        let sent = message.payload().and_then(|bytes| bytes.get(..8)?.try_into().ok()).map(u64::from_be_bytes);
        let sent =
            Duration::from_nanos(sent.ok_or(KafkaError::NoMessageReceived).context("a record of somebody else")?);
        if at >= WARM_RECORDS {
            samples.push(arrived.saturating_sub(sent));
        }
    }
    Ok(samples)
}
