//! From producer to consumer: at the rate of an audited system, and at half of what the slowest of the brokers takes.
//!
//! At 500 a second by two clients: one that makes one request of each record and waits for nothing (what a broker can do), and
//! librdkafka with `linger.ms=0`. At half of the maximum by librdkafka, which then batches by itself. p50 and p99 are medians of the
//! rounds, p999 is that of all rounds together: one round has too few samples for it.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Ground,
    broker::{Broker, able},
    turns,
    wire::{self, Wire},
};
use crate::{
    children::Alone,
    disk::Scratch,
    produce::{QUEUE_PAUSE, config, payload, produce, reading},
    report::{Report, Row},
    samples::{Samples, median},
};

const SLOW: &str = "End to end, 500 records a second of 1 KiB, one request each";
const SLOW_CLIENT: &str = "End to end, 500 records a second of 1 KiB, librdkafka with linger.ms=0";
const FAST_CLIENT: &str = "End to end, half of the maximum, librdkafka with linger.ms=0";
const RECORDS_A_SECOND: usize = 500;
const RECORD_BYTES: usize = 1 << 10;
/// Time at the beginning that does not count: connections are made, metadata is fetched, code is compiled.
const WARM: Duration = Duration::from_millis(400);
/// How long a consumer waits for a record before it gives up.
const SILENCE_MAX: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 8;
/// What a producer is tried with for its maximum.
const PROBE: Duration = Duration::from_secs(2);
const PROBE_BYTES_MAX: u64 = 256 << 20;
const SHARES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];

/// All rounds of every broker, and of the disk beside them.
struct Rounds {
    brokers: Vec<Broker>,
    syncs: Vec<Samples>,
    /// What comes as often as records do, where that was asked for.
    paced: Vec<Samples>,
    found: Vec<Vec<Samples>>,
}

pub(super) async fn measure(ground: Ground<'_>, report: &mut Report) -> anyhow::Result<()> {
    let alone = Alone::start(ground.folder, "").await?;
    let topic = format!("bench.delay.{}", std::process::id());
    let own = Broker::own(&alone);
    own.create(&topic, PARTITIONS).await?;
    let able = able(ground.peers, "end to end", |peer| {
        let topic = topic.clone();
        async move {
            peer.create(&topic, PARTITIONS).await?;
            by_client(&peer.at, &topic, RECORDS_A_SECOND, Duration::from_millis(500)).await.map(|_| ())
        }
    });
    let brokers: Vec<_> = std::iter::once(own).chain(able.await).collect();
    let rounds = all(ground, &brokers, ("500 a second", true), async |broker| {
        by_hand(&broker.at, &topic, ground.effort.slice).await
    });
    let rounds = rounds.await?;
    tell(SLOW, &rounds, report);
    against_the_disk(SLOW, &rounds, report);
    let slice = ground.effort.slice;
    let rounds = all(ground, &brokers, ("500 a second, librdkafka", true), async |broker| {
        by_client(&broker.at, &topic, RECORDS_A_SECOND, slice).await
    });
    let rounds = rounds.await?;
    tell(SLOW_CLIENT, &rounds, report);
    stalls(SLOW_CLIENT, &rounds, report);
    let mut most = f64::INFINITY;
    for broker in &brokers {
        let (broker, topic) = (broker.clone(), topic.clone());
        let probed =
            tokio::task::spawn_blocking(move || produce(&broker.name, &broker.at, &topic, PROBE, PROBE_BYTES_MAX));
        most = most.min(probed.await?? * 1e6 / RECORD_BYTES as f64);
    }
    report.add(Row::new(FAST_CLIENT, "the slowest takes, without a consumer", most, "records/s"));
    let rate = (most / 2.0) as usize;
    let rounds = all(ground, &brokers, ("half of the maximum", false), async |broker| {
        by_client(&broker.at, &topic, rate, slice).await
    });
    tell(FAST_CLIENT, &rounds.await?, report);
    for broker in &brokers {
        broker.delete(&topic).await?;
    }
    alone.end().await
}

/// Every round of every broker. A peer that fails is left out, and what it said is printed.
async fn all(
    ground: Ground<'_>,
    brokers: &[Broker],
    (what, beside_the_disk): (&str, bool),
    run: impl AsyncFn(&Broker) -> anyhow::Result<Samples>,
) -> anyhow::Result<Rounds> {
    let scratch = Arc::new(Scratch::create(ground.folder)?);
    let (mut syncs, mut paced, mut found) = (Vec::new(), Vec::new(), vec![Vec::<Samples>::new(); brokers.len()]);
    for round in 1..=ground.effort.rounds {
        eprintln!("end to end, {what}: round {round} of {}", ground.effort.rounds);
        let disk = scratch.clone();
        let within = ground.effort.slice.min(Duration::from_secs(1));
        syncs.push(tokio::task::spawn_blocking(move || disk.syncs(within)).await??);
        if beside_the_disk {
            let (disk, lasts) = (scratch.clone(), ground.effort.slice);
            paced.push(tokio::task::spawn_blocking(move || disk.paced(RECORDS_A_SECOND as u32, lasts)).await??);
        }
        for at in turns(brokers.len(), round) {
            if found[at].len() + 1 < round {
                continue; // it failed before
            }
            match run(&brokers[at]).await {
                Ok(samples) => found[at].push(samples),
                Err(error) if at > 0 => eprintln!("  left out of {what}: {}: {error:#}", brokers[at].name),
                Err(error) => return Err(error),
            }
        }
    }
    let whole = brokers.iter().cloned().zip(found).filter(|(_, found)| found.len() == ground.effort.rounds);
    let (brokers, found) = whole.unzip();
    Ok(Rounds { brokers, syncs, paced, found })
}

impl Rounds {
    fn of(rounds: &[Samples], share: f64) -> f64 {
        if share > 0.99 {
            let mut together = Samples::default();
            rounds.iter().for_each(|round| together.extend(round.clone()));
            return together.percentile(share);
        }
        median(rounds.iter().map(|round| round.percentile(share)))
    }

    /// Cairn's to that of a peer.
    fn ratio(&self, peer: usize, share: f64) -> f64 {
        if share > 0.99 {
            return Self::of(&self.found[0], share) / Self::of(&self.found[peer], share);
        }
        let rounds = self.found[0].iter().zip(&self.found[peer]);
        median(rounds.map(|(own, peer)| own.percentile(share) / peer.percentile(share)))
    }
}

fn tell(section: &'static str, rounds: &Rounds, report: &mut Report) {
    for (word, share) in SHARES {
        let of = |at: usize| Rounds::of(&rounds.found[at], share);
        let what = |name: &str| format!("{name}, {word}");
        let own = || Row::new(section, what(&rounds.brokers[0].name), of(0), "µs");
        if rounds.brokers.len() == 1 {
            report.add(own().plotted());
        }
        for (at, peer) in rounds.brokers.iter().enumerate().skip(1) {
            let ratio = rounds.ratio(at, share);
            let row = own().against_by_round(what(&peer.name), of(at), ratio).aim("below", ratio < 1.0);
            report.add(if at == 1 { row.plotted() } else { row });
        }
        for (at, peer) in rounds.brokers.iter().enumerate().skip(1) {
            report.add(Row::new(section, what(&peer.name), of(at), "µs").plotted());
        }
    }
}

/// What of it is the disk's, at the median and in the tail.
fn against_the_disk(section: &'static str, rounds: &Rounds, report: &mut Report) {
    let (p50, p99) = (Rounds::of(&rounds.found[0], 0.5), Rounds::of(&rounds.found[0], 0.99));
    let (sync_p50, sync_p99) = (Rounds::of(&rounds.syncs, 0.5), Rounds::of(&rounds.syncs, 0.99));
    let row = |what: &str, value: f64| Row::new(section, format!("Cairn, {what}, beside the disk"), value, "µs");
    let most = sync_p50 + 500.0;
    let half = row("p50", p50).against("one fdatasync of 4 KiB, p50", sync_p50);
    report.add(half.aim(format!("at most that + 500 µs = {most:.0} µs"), p50 <= most));
    let most = 1.5 * sync_p99 + 1_000.0;
    let tail = row("p99", p99).against("one fdatasync of 4 KiB, p99", sync_p99);
    report.add(tail.aim(format!("at most 1.5 times that + 1 ms = {most:.0} µs"), p99 <= most));
    stalls(section, rounds, report);
}

/// How much of the longest waits is a disk that stands still.
fn stalls(section: &'static str, rounds: &Rounds, report: &mut Report) {
    let (own, disk) = (Rounds::of(&rounds.found[0], 0.999), Rounds::of(&rounds.paced, 0.999));
    let row = Row::new(section, "Cairn, p999, beside the disk", own, "µs");
    report.add(row.against(format!("a sync for what comes {RECORDS_A_SECOND} times a second, p999"), disk));
}

/// Nanoseconds since the run began, into a record.
fn stamp(value: &mut [u8], began: Instant) {
    value[..8].copy_from_slice(&(began.elapsed().as_nanos() as u64).to_be_bytes());
}

/// How long a record took, by what it says; nothing where it was sent before the run was warm.
fn took(value: Option<&[u8]>, began: Instant) -> anyhow::Result<Option<Duration>> {
    let sent = value.and_then(|value| value.get(..8)?.try_into().ok()).map(u64::from_be_bytes);
    let sent = Duration::from_nanos(sent.context("a record of somebody else")?);
    Ok((sent > WARM).then(|| began.elapsed().saturating_sub(sent)))
}

/// One request for each record, none of which waits for the one before.
async fn by_hand(at: &str, topic: &str, lasts: Duration) -> anyhow::Result<Samples> {
    let records = ((lasts + WARM).as_secs_f64() * RECORDS_A_SECOND as f64) as usize;
    let (mut batch, value_at) = wire::batch(1, &payload());
    let mut sender = Wire::connect(at)?;
    let mut answers = sender.again()?;
    let began = Instant::now();
    let reading = {
        let (reader, topic, from) = (Wire::connect(at)?, topic.to_owned(), end(at, topic)?);
        tokio::task::spawn_blocking(move || read_by_hand(reader, &topic, (from, value_at), records, began))
    };
    let acknowledged =
        tokio::task::spawn_blocking(move || (0..records).try_for_each(|_| wire::produced(answers.receive()?.0)));
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RECORDS_A_SECOND as u32);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..records {
        ticks.tick().await;
        stamp(&mut batch[value_at..], began);
        wire::seal(&mut batch);
        sender.send(&wire::produce(topic, &[(0, &batch)]))?;
    }
    acknowledged.await??;
    reading.await?
}

/// Where the first partition of a topic ends now.
fn end(at: &str, topic: &str) -> anyhow::Result<i64> {
    let consumer: BaseConsumer = config(at).create()?;
    Ok(consumer.fetch_watermarks(topic, 0, SILENCE_MAX).context("find the end of the topic")?.1)
}

fn read_by_hand(
    mut reader: Wire,
    topic: &str,
    (mut from, value_at): (i64, usize),
    records: usize,
    began: Instant,
) -> anyhow::Result<Samples> {
    let (mut samples, mut seen) = (Samples::default(), 0);
    let until = Instant::now() + SILENCE_MAX + Duration::from_secs(60);
    while seen < records {
        anyhow::ensure!(Instant::now() < until, "only {seen} of {records} records came");
        reader.send(&wire::fetch(topic, &[(0, from)], 1 << 20))?;
        let mut values = Vec::new();
        wire::fetched(reader.receive()?.0, |_, _, records| {
            for (next, batch) in wire::batches(records) {
                from = next;
                values.push(batch.get(value_at..value_at + 8).map(<[u8]>::to_vec));
            }
        })?;
        for value in values {
            seen += 1;
            took(value.as_deref(), began)?.into_iter().for_each(|took| samples.push(took));
        }
    }
    Ok(samples)
}

/// So many records a second by librdkafka, over all partitions.
async fn by_client(at: &str, topic: &str, rate: usize, lasts: Duration) -> anyhow::Result<Samples> {
    let lasts = lasts + WARM;
    let records = (lasts.as_secs_f64() * rate as f64) as usize;
    let consumer: BaseConsumer = reading(at).create().context("make a consumer")?;
    let mut from = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let end = consumer.fetch_watermarks(topic, partition, SILENCE_MAX).context("find the end of the topic")?.1;
        from.add_partition_offset(topic, partition, Offset::Offset(end))?;
    }
    consumer.assign(&from)?;
    let began = Instant::now();
    let reading = tokio::task::spawn_blocking(move || read_by_client(&consumer, records, began));
    let producer: ThreadedProducer<DefaultProducerContext> =
        config(at).set("linger.ms", "0").create().context("make a producer")?;
    let mut ticks = tokio::time::interval(Duration::from_millis(1).max(Duration::from_secs(1) / rate.max(1) as u32));
    let (mut value, mut sent) = (payload(), 0);
    while sent < records {
        ticks.tick().await;
        let due = ((began.elapsed().as_secs_f64() * rate as f64) as usize + 1).min(records);
        while sent < due {
            stamp(&mut value, began);
            send(&producer, topic, (sent % PARTITIONS as usize) as i32, &value)?;
            sent += 1;
        }
    }
    let samples = reading.await??;
    producer.flush(SILENCE_MAX)?;
    Ok(samples)
}

fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    partition: i32,
    value: &[u8],
) -> anyhow::Result<()> {
    loop {
        match producer.send(BaseRecord::<(), _>::to(topic).partition(partition).payload(value)) {
            Ok(()) => return Ok(()),
            // The broker sets the pace, and the record's time runs.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::park_timeout(QUEUE_PAUSE)
            }
            Err((error, _)) => return Err(error).context("produce"),
        }
    }
}

fn read_by_client(consumer: &BaseConsumer, records: usize, began: Instant) -> anyhow::Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..records {
        let message = consumer.poll(SILENCE_MAX).context("no record came")??;
        took(message.payload(), began)?.into_iter().for_each(|took| samples.push(took));
    }
    Ok(samples)
}
