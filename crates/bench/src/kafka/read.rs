//! Catching up, by clients that decode nothing: they count the bytes that come and ask for the next.
//!
//! From Cairn's tail in memory, from its write-ahead log (a Cairn that uploads nothing), and from its object store (one that has
//! uploaded everything and was started anew), with what the kernel holds of the files and without. Beside them the loopback with as
//! many connections and nothing behind it, and the same files of the object store, read from the disk by nobody else.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context, ensure};
use tokio::time::{Instant, sleep};

use super::{
    Counted, Ground,
    broker::{Broker, able},
    produce::send_prepared,
    turns,
    wire::{self, Wire},
};
use crate::{
    children::Alone,
    report::{Report, Row},
    samples::median,
};

const SECTION: &str = "Catch-up read, clients that do not decode";
const PARTITIONS: i32 = 8;
const CONNECTIONS: usize = 4;
/// What a client asks for of one partition at a time: the default of Kafka's clients.
const PARTITION_BYTES: i32 = 1 << 20;
/// Bytes that stay in Cairn's tail, which holds 64 MiB.
const TAIL_BYTES: u64 = 40 << 20;
/// Bytes to read elsewhere: sixteen times the tail, and the cache, so that reading them from a disk takes most of a second.
const BYTES: u64 = 1 << 30;
const QUICK_BYTES: u64 = 128 << 20;
/// How long writing them may take.
const FILL_MAX: Duration = Duration::from_secs(60);
/// How long the upload may take to be done.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// One write to the loopback, and one read from it.
const CHUNK_BYTES: usize = 256 << 10;
/// Of the lesser of loopback and disk.
const RATIO_MIN: f64 = 0.8;
/// Keeps everything in the write-ahead log.
const NO_UPLOAD: &str =
    "[store]\nupload_bytes = 2147483648\nupload_interval_ms = 3600000\nwal_bytes_max = 4294967296\n";
/// Uploads whatever there is.
const SOON: &str = "[store]\nupload_interval_ms = 200\n";

/// Something to read from.
struct Source {
    what: String,
    broker: Broker,
    topic: String,
    /// Whether the kernel forgets the files before each round, and each byte is read once.
    cold: bool,
}

pub(super) async fn measure(ground: Ground<'_>, report: &mut Report) -> anyhow::Result<()> {
    let bytes = if ground.quick { QUICK_BYTES } else { BYTES };
    let topic = format!("bench.read.{}", std::process::id());
    let tail = Alone::start(ground.folder, "").await?;
    let log = Alone::start(ground.folder, NO_UPLOAD).await?;
    let store = Alone::start(ground.folder, SOON).await?;
    for (alone, bytes) in [(&tail, TAIL_BYTES), (&log, bytes), (&store, bytes)] {
        fill(&Broker::own(alone), &topic, bytes).await?;
    }
    uploaded(&store).await?;
    // So that nothing of it is in memory any more.
    let (store, _) = store.again().await?;
    let mut sources = Vec::new();
    let mut add = |what: &str, broker: Broker, cold| {
        sources.push(Source { what: what.to_owned(), broker, topic: topic.clone(), cold });
    };
    add("Cairn, tail", Broker::own(&tail), false);
    add("Cairn, write-ahead log", Broker::own(&log), false);
    add("Cairn, object store, files in the page cache", Broker::own(&store), false);
    add("Cairn, object store, files on the disk", Broker::own(&store), true);
    let able = able(ground.peers, "catch-up read", |peer| {
        let topic = topic.clone();
        async move { fill(&peer, &topic, bytes).await }
    });
    let able = able.await;
    for peer in &able {
        add(&format!("{}, files in the page cache", peer.name), peer.clone(), false);
        if peer.folder.is_some() {
            add(&format!("{}, files on the disk", peer.name), peer.clone(), true);
        }
    }
    let disk = Broker::own(&store);
    let mut rounds = Vec::new();
    for round in 1..=ground.effort.rounds {
        eprintln!("catch-up: round {round} of {}", ground.effort.rounds);
        rounds.push(one_round(&sources, (round, ground.effort.slice), &disk).await?);
    }
    tell(&sources, &rounds, report);
    for peer in &able {
        peer.delete(&topic).await?;
    }
    for alone in [tail, log, store] {
        alone.end().await?;
    }
    Ok(())
}

/// What one round found, in MB a second.
struct Round {
    loopback: f64,
    disk: f64,
    sources: Vec<f64>,
}

async fn one_round(sources: &[Source], (round, lasts): (usize, Duration), disk: &Broker) -> anyhow::Result<Round> {
    let within = lasts.min(Duration::from_secs(1));
    let loopback = tokio::task::spawn_blocking(move || loopback(within)).await??;
    let disk = disk.clone();
    let disk = tokio::task::spawn_blocking(move || disk.read_files()).await??;
    let mut found = vec![0.0; sources.len()];
    for at in turns(sources.len(), round) {
        let Source { broker, topic, cold, what } = &sources[at];
        let (broker, topic, once) = (broker.clone(), topic.clone(), *cold);
        let read = tokio::task::spawn_blocking(move || {
            if once {
                broker.make_cold()?;
            }
            catch_up(&broker.at, &topic, lasts, once)
        });
        found[at] = read.await?.with_context(|| what.clone())?;
    }
    Ok(Round { loopback, disk, sources: found })
}

fn tell(sources: &[Source], rounds: &[Round], report: &mut Report) {
    let of = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of));
    let loopback = of(&|round| round.loopback);
    report.add(Row::new(SECTION, format!("loopback, {CONNECTIONS} connections"), loopback, "MB/s").plotted());
    report.add(Row::new(
        SECTION,
        "disk: the files of Cairn's object store, one after the other",
        of(&|round| round.disk),
        "MB/s",
    ));
    for (at, source) in sources.iter().enumerate() {
        let wall = |round: &Round| round.loopback.min(round.disk);
        let ratio = of(&|round| round.sources[at] / wall(round));
        let row = || Row::new(SECTION, source.what.as_str(), of(&|round| round.sources[at]), "MB/s");
        let lesser = row().against_by_round("the lesser of loopback and disk", of(&wall), ratio).plotted();
        let is_own = source.broker.name == super::broker::CAIRN;
        report.add(if is_own { lesser.aim(format!("at least {RATIO_MIN}"), ratio >= RATIO_MIN) } else { lesser });
        // What is in memory has to wait for no disk: this says how much more there would be.
        if !source.cold {
            let ratio = of(&|round| round.sources[at] / round.loopback);
            report.add(row().against_by_round("loopback", loopback, ratio));
        }
    }
    let peer = |cold: bool| {
        sources.iter().position(|source| source.cold == cold && source.broker.name != super::broker::CAIRN)
    };
    for (at, source) in sources.iter().enumerate().filter(|(_, source)| source.broker.name == super::broker::CAIRN) {
        let Some(peer) = peer(source.cold) else { continue };
        let ratio = of(&|round| round.sources[at] / round.sources[peer]);
        let row = Row::new(SECTION, source.what.as_str(), of(&|round| round.sources[at]), "MB/s");
        report.add(row.against_by_round(sources[peer].what.as_str(), of(&|round| round.sources[peer]), ratio));
    }
}

/// Writes so many bytes into a new topic.
pub(super) async fn fill(broker: &Broker, topic: &str, bytes: u64) -> anyhow::Result<()> {
    broker.create(topic, PARTITIONS).await?;
    let (at, topic) = (broker.at.clone(), topic.to_owned());
    let filled = tokio::task::spawn_blocking(move || send_prepared(&at, &topic, PARTITIONS, FILL_MAX, bytes));
    filled.await?.map(|_| ())
}

/// Waits until the store has everything and nothing is being put together any more.
pub(super) async fn uploaded(alone: &Alone) -> anyhow::Result<Counted> {
    let until = Instant::now() + SETTLE_MAX;
    let mut before = f64::NAN;
    loop {
        let counted = Counted::now(alone.admin_at).await?;
        let (depth, put) = (
            counted.of("cairn_log_wal_depth_bytes"),
            counted.of("cairn_log_uploaded_bytes") + counted.of("cairn_log_merged_bytes"),
        );
        // The frames that leave a file behind hold nothing.
        if depth < f64::from(1 << 10) && (put - before).abs() < 1.0 {
            return Ok(counted);
        }
        ensure!(Instant::now() < until, "{depth} bytes are not uploaded within {SETTLE_MAX:?}");
        before = put;
        sleep(Duration::from_secs(1)).await;
    }
}

/// Megabytes a second over all connections. Where each byte is read `once`, it ends with the last one.
pub(super) fn catch_up(at: &str, topic: &str, lasts: Duration, once: bool) -> anyhow::Result<f64> {
    let began = Instant::now();
    let each = PARTITIONS as usize / CONNECTIONS;
    let readers: Vec<_> = (0..CONNECTIONS)
        .map(|reader| {
            let partitions: Vec<_> =
                (reader * each..(reader + 1) * each).map(|partition| (partition as i32, 0)).collect();
            let (wire, topic) = (Wire::connect(at), topic.to_owned());
            std::thread::spawn(move || read_all(wire?, &topic, partitions, (began, lasts, once)))
        })
        .collect();
    let mut bytes = 0;
    for reader in readers {
        bytes += reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))??;
    }
    Ok(bytes as f64 / 1e6 / began.elapsed().as_secs_f64())
}

fn read_all(
    mut wire: Wire,
    topic: &str,
    mut from: Vec<(i32, i64)>,
    (began, lasts, once): (Instant, Duration, bool),
) -> anyhow::Result<usize> {
    let mut total = 0;
    while began.elapsed() < lasts || once && began.elapsed() < SETTLE_MAX {
        wire.send(&wire::fetch(topic, &from, PARTITION_BYTES))?;
        let (answer, bytes) = wire.receive()?;
        total += bytes;
        let mut left = false;
        wire::fetched(answer, |index, end, records| {
            let Some((_, at)) = from.iter_mut().find(|(partition, _)| *partition == index) else { return };
            if let Some((next, _)) = wire::batches(records).last() {
                *at = next;
            }
            left |= *at < end;
            if !once && *at >= end {
                *at = 0;
            }
        })?;
        if once && !left {
            break;
        }
    }
    Ok(total)
}

/// Megabytes a second through sockets of this machine with nothing behind them.
fn loopback(within: Duration) -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    let began = Instant::now();
    let readers: Vec<_> = (0..CONNECTIONS)
        .map(|_| -> anyhow::Result<_> {
            let mut reader = TcpStream::connect(at)?;
            let (mut writer, _) = listener.accept()?;
            std::thread::spawn(move || {
                let chunk = vec![0x5a; CHUNK_BYTES];
                while began.elapsed() < within && writer.write_all(&chunk).is_ok() {}
            });
            Ok(std::thread::spawn(move || {
                let (mut chunk, mut total) = (vec![0; CHUNK_BYTES], 0);
                while let Ok(bytes @ 1..) = reader.read(&mut chunk) {
                    total += bytes;
                }
                total
            }))
        })
        .collect::<Result<_, _>>()?;
    let bytes: usize = readers.into_iter().map(|reader| reader.join().unwrap_or(0)).sum();
    Ok(bytes as f64 / 1e6 / began.elapsed().as_secs_f64())
}
