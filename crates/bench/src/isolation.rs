//! What a replay from the beginning, and upload, merging and compaction, cost those who write and read at the end; and what these
//! cost the replay.
//!
//! Three brokers with small caches, each in a process of its own. One holds eight times what its caches hold, uploaded, and is
//! replayed; one uploads, merges and compacts what is written to it all the time; one gets the same and uploads nothing, so that
//! the two differ in that work alone. All take turns within each round.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, ensure};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, sleep},
};

use crate::{
    Effort,
    children::{Beside, Stage},
    gateway::{metrics, value},
    latency, memory,
    produce::{config, create_topic, produce},
    replay::Replay,
    report::{Report, Row},
    samples::{Samples, median},
};

const SECTION: &str = "Isolation, 500 records a second of 1 KiB at the end, producer without linger";
/// Of the tail's p99 to its undisturbed one.
const TAIL_RATIO_MAX: f64 = 1.5;
/// Of the replay's rate to its undisturbed one.
const REPLAY_RATIO_MIN: f64 = 0.5;
/// Bytes of each of the two caches.
const CACHE_BYTES: u64 = 16 << 20;
/// What is replayed, over both caches together.
const TIMES: u64 = 8;
const PARTITIONS: u8 = 4;
/// What is written beside: bytes of a record, records a second, and how many keys they have.
const BULK_BYTES: usize = 16 << 10;
const BULK_A_SECOND: u32 = 1_280;
const BULK_KEYS: usize = 512;
/// Replays at once, when memory is looked at, and for how long.
const MANY: usize = 32;
const MANY_FOR: Duration = Duration::from_secs(3);
/// How long what is replayed may take to be written, and to be uploaded.
const PREPARED_MAX: Duration = Duration::from_secs(120);

/// Measures all of it.
pub(crate) async fn measure(stage: &Stage, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let read = Place::set(stage, "read", "upload_interval_ms = 1000\n").await?;
    let busy = Place::set(stage, "busy", "upload_interval_ms = 250\n").await?;
    let still = Place::set(stage, "still", "upload_interval_ms = 3600000\nupload_bytes = 2147483648\n").await?;
    read.prepare().await?;
    let work = ["uploads", "merges", "compactions"].map(|kind| format!("cairn_log_{kind}"));
    let mut before = Vec::new();
    for metric in &work {
        before.push(busy.metric(metric).await?);
    }
    let mut rounds = Vec::new();
    for at in 1..=effort.rounds {
        eprintln!("isolation: round {at} of {}", effort.rounds);
        rounds.push(Round::take(&read, &still, &busy, effort).await?);
    }
    let mut did = Vec::new();
    for ((metric, kind), before) in work.iter().zip(["uploads", "merges", "compactions"]).zip(before) {
        did.push(format!("{:.0} {kind}", busy.metric(metric).await? - before));
    }
    tell(&rounds, &did.join(", "), report);
    many(&read, report).await?;
    for place in [read, busy, still] {
        place.process.end().await?;
    }
    Ok(())
}

/// What one round gave.
#[derive(Debug)]
struct Round {
    alone: Samples,
    beside_replay: Samples,
    beside_all: Samples,
    /// Beside the same writes, without upload and with it.
    still: Samples,
    busy: Samples,
    replay_alone: f64,
    replay_beside_tail: f64,
    replay_beside_all: f64,
}

impl Round {
    async fn take(read: &Place, still: &Place, busy: &Place, effort: Effort) -> anyhow::Result<Self> {
        let alone = read.tail(effort).await?;
        let replay = read.replay()?;
        sleep(effort.slice).await;
        let replay_alone = replay.end().await?;
        let replay = read.replay()?;
        let beside_replay = read.tail(effort).await?;
        let replay_beside_tail = replay.end().await?;
        let (writes, replay) = (read.bulk(), read.replay()?);
        let beside_all = read.tail(effort).await?;
        let replay_beside_all = replay.end().await?;
        writes.end().await?;
        let mut found = Vec::new();
        for place in [still, busy] {
            let writes = place.bulk();
            found.push(place.tail(effort).await?);
            writes.end().await?;
        }
        let [still, busy] = found.try_into().map_err(|_| anyhow::anyhow!("two were measured"))?;
        Ok(Self { alone, beside_replay, beside_all, still, busy, replay_alone, replay_beside_tail, replay_beside_all })
    }
}

fn tell(rounds: &[Round], did: &str, report: &mut Report) {
    let (p50, p99) = (("p50", 0.5), ("p99", 0.99));
    let tail = |what: &str, (word, share): (&str, f64), of: fn(&Round) -> &Samples, to: fn(&Round) -> &Samples| {
        let value = |of: fn(&Round) -> &Samples| median(rounds.iter().map(|round| of(round).percentile(share)));
        let ratio = median(rounds.iter().map(|round| of(round).percentile(share) / to(round).percentile(share)));
        let row = Row::new(SECTION, format!("tail {what}, {word}"), value(of), "µs");
        (row.against_by_round(format!("undisturbed, {word}"), value(to), ratio), ratio)
    };
    let aim = "at most 1.5 of it";
    report.add(tail("beside a replay", p50, |r| &r.beside_replay, |r| &r.alone).0);
    let (row, ratio) = tail("beside a replay", p99, |r| &r.beside_replay, |r| &r.alone);
    report.add(row.aim(aim, ratio <= TAIL_RATIO_MAX));
    let of_replay = |what: &str, of: fn(&Round) -> f64| {
        let (value, alone) = (median(rounds.iter().map(of)), median(rounds.iter().map(|round| round.replay_alone)));
        let ratio = median(rounds.iter().map(|round| of(round) / round.replay_alone));
        let row = Row::new(SECTION, format!("replay {what}"), value, "MB/s");
        row.against_by_round("undisturbed", alone, ratio).aim("at least 0.5 of it", ratio >= REPLAY_RATIO_MIN)
    };
    report.add(of_replay("beside the tail", |round| round.replay_beside_tail));
    let writes = format!("{} MB/s of writes", BULK_BYTES as u64 * u64::from(BULK_A_SECOND) / 1_000_000);
    report.add(of_replay(&format!("beside the tail and {writes}"), |round| round.replay_beside_all));
    report.add(tail(&format!("beside a replay and {writes}"), p50, |r| &r.beside_all, |r| &r.alone).0);
    report.add(tail(&format!("beside a replay and {writes}"), p99, |r| &r.beside_all, |r| &r.alone).0);
    let what = format!("beside {writes}, uploaded, merged, compacted");
    for (share, aimed) in [(p50, false), (p99, true)] {
        let (row, ratio) = tail(&what, share, |r| &r.busy, |r| &r.still);
        let row = row.note(format!("undisturbed: the same writes, nothing uploaded; meanwhile {did}"));
        report.add(if aimed { row.aim(aim, ratio <= TAIL_RATIO_MAX) } else { row });
    }
}

/// Memory while many replay at once.
async fn many(read: &Place, report: &mut Report) -> anyhow::Result<()> {
    let pid = read.process.pid();
    let before = memory::resident(pid, "VmRSS:")?;
    let mut replays = Vec::new();
    for _ in 0..MANY {
        replays.push(read.replay()?);
    }
    sleep(MANY_FOR).await;
    let now = memory::resident(pid, "VmRSS:")?;
    let mut rate = 0.0;
    for replay in replays {
        rate += replay.end().await?;
    }
    let row = Row::new(SECTION, format!("resident beside {MANY} replays at once"), now, "MiB");
    report.add(row.against("before them", before));
    report.add(Row::new(SECTION, format!("{MANY} replays at once, together"), rate, "MB/s"));
    Ok(())
}

/// A broker.
struct Place {
    process: Beside,
    objects: PathBuf,
}

impl Place {
    async fn set(stage: &Stage, name: &str, store: &str) -> anyhow::Result<Self> {
        let server = format!("[servers.canned]\ntype = \"http\"\nurl = \"http://{}/mcp\"\n", stage.upstream_at);
        let caches = format!("[store]\ncache_bytes_max = {CACHE_BYTES}\ntail_bytes_max = {CACHE_BYTES}\n");
        let process = stage.beside(name, &[&server, &caches, store].concat(), None).await?;
        let place = Self { process, objects: stage.folder().join(name).join("data/objects/data") };
        create_topic(place.at(), "tail", 1).await?;
        let bulk = NewTopic::new("bulk", i32::from(PARTITIONS), TopicReplication::Fixed(1));
        let bulk = bulk.set("cleanup.policy", "compact").set("min.cleanable.dirty.ratio", "0.1");
        let admin: AdminClient<DefaultClientContext> = config(place.at()).create()?;
        for made in admin.create_topics([&bulk], &AdminOptions::new()).await? {
            made.map_err(|(name, code)| anyhow::anyhow!("topic {name} cannot be created: {code}"))?;
        }
        Ok(place)
    }

    /// Writes what is replayed, and waits until the store alone has it.
    async fn prepare(&self) -> anyhow::Result<()> {
        create_topic(self.at(), "old", i32::from(PARTITIONS)).await?;
        let bytes = TIMES * 2 * CACHE_BYTES;
        eprintln!("isolation: writing {} MiB to be replayed", bytes >> 20);
        let at = self.at().to_owned();
        let writing = tokio::task::spawn_blocking(move || produce("Cairn", &at, "old", PREPARED_MAX, bytes));
        writing.await?.context("write what is replayed")?;
        let began = Instant::now();
        while self.metric("cairn_log_wal_depth_bytes").await? > 0.0 {
            ensure!(began.elapsed() < PREPARED_MAX, "what was written is not uploaded within {PREPARED_MAX:?}");
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn at(&self) -> &str {
        &self.process.kafka_at
    }

    async fn tail(&self, effort: Effort) -> anyhow::Result<Samples> {
        latency::run(self.at(), "tail", effort.slice, &[("linger.ms", "0")]).await
    }

    fn replay(&self) -> anyhow::Result<Running<f64>> {
        let replay = Replay::open(self.at(), "old", usize::from(PARTITIONS), &self.objects)?;
        Ok(Running::start(|stop| tokio::task::spawn_blocking(move || replay.run(&stop))))
    }

    fn bulk(&self) -> Running<()> {
        let bootstrap = self.at().to_owned();
        Running::start(|stop| tokio::spawn(async move { bulk(&bootstrap, &stop).await }))
    }

    async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        Ok(value(&metrics(self.process.admin_at).await?, name).unwrap_or_default())
    }
}

/// Load that goes on until it is ended.
struct Running<T> {
    stop: Arc<AtomicBool>,
    task: JoinHandle<anyhow::Result<T>>,
}

impl<T> Running<T> {
    fn start(task: impl FnOnce(Arc<AtomicBool>) -> JoinHandle<anyhow::Result<T>>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        Self { task: task(stop.clone()), stop }
    }

    async fn end(self) -> anyhow::Result<T> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?
    }
}

/// Writes at an even rate.
async fn bulk(bootstrap: &str, stop: &AtomicBool) -> anyhow::Result<()> {
    let producer: ThreadedProducer<DefaultProducerContext> = config(bootstrap).create().context("make a producer")?;
    let (payload, mut ticks) =
        (vec![0x5a_u8; BULK_BYTES], tokio::time::interval(Duration::from_secs(1) / BULK_A_SECOND));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let keys: Vec<_> = (0..BULK_KEYS).map(|key| key.to_string()).collect();
    for key in keys.iter().cycle().take_while(|_| !stop.load(Ordering::Relaxed)) {
        ticks.tick().await;
        // One that finds the queue full is left out: the broker is behind already.
        let _ = producer.send(BaseRecord::to("bulk").key(key).payload(&payload[..]));
    }
    producer.flush(PREPARED_MAX).context("wait for the last writes")
}
