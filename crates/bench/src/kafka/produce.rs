//! Records of 1 KiB with acks=all: by librdkafka, as anybody writes them, and by a client that sends batches which it made before.
//!
//! The second shows what the broker can do where the first shows what fits onto the machine beside its client.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Counted, Ground,
    broker::{Broker, able},
    turns,
    wire::{self, Wire},
};
use crate::{
    children::Alone,
    disk::Scratch,
    produce::{payload, produce},
    report::{Report, Row},
    samples::median,
};

const PREPARED: &str = "Produce, 1 KiB, acks=all, batches made before";
const CLIENT: &str = "Produce, 1 KiB, acks=all, librdkafka";
const RECORD_BYTES: usize = 1 << 10;
/// Bytes that one turn writes at most, so that no run fills a disk.
const TURN_BYTES_MAX: u64 = 256 << 20;
/// Requests of the client without an encoder that are on their way at once: what Kafka's clients have by default.
const IN_FLIGHT: usize = 5;
/// Errors after which a client sends again: no time, not now, too few replicas, storage, throttled.
const AGAIN: [i16; 5] = [7, 9, 19, 56, 89];
const REFUSALS_MAX: usize = 10_000;
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
/// Records of one request, over all partitions: near the most that a batch holds by default.
const REQUEST_RECORDS: usize = 1_000;
/// Time for the disk alone in a round.
const DISK_WITHIN: Duration = Duration::from_millis(500);
/// Of the raw disk, in bytes that reach the device: then the disk is the wall.
const DEVICE_RATIO_MIN: f64 = 0.7;

/// One turn of one broker.
#[derive(Clone, Copy, Debug)]
struct Turn {
    records_a_second: f64,
    /// Bytes that reached the device, in MB a second.
    device: f64,
    /// Bytes of one write to the log, where that is counted.
    write_bytes: f64,
    /// What the disk does alone with writes of that size, in MB a second.
    raw: f64,
}

/// How records are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    Prepared,
    Librdkafka,
}

pub(super) async fn measure(ground: Ground<'_>, report: &mut Report) -> anyhow::Result<()> {
    let alone = Alone::start(ground.folder, "").await?;
    let scratch = Arc::new(Scratch::create(ground.folder)?);
    let trial = format!("bench.trial.{}", std::process::id());
    let able = able(ground.peers, "produce", |peer| {
        let trial = trial.clone();
        async move {
            peer.create(&trial, 8).await?;
            warm(&peer, &trial).await?;
            peer.delete(&trial).await
        }
    });
    let own = Broker::own(&alone);
    let brokers: Vec<_> = std::iter::once(own).chain(able.await).collect();
    for client in [Client::Prepared, Client::Librdkafka] {
        for partitions in [1, 8, 64] {
            let topic = format!("bench.produce.{client:?}.{partitions}.{}", std::process::id());
            for broker in &brokers {
                broker.create(&topic, partitions).await?;
            }
            let mut rounds = Vec::new();
            for round in 1..=ground.effort.rounds {
                eprintln!("produce, {client:?}, {partitions} partitions: round {round} of {}", ground.effort.rounds);
                let mut found = vec![None; brokers.len()];
                for at in turns(brokers.len(), round) {
                    let admin = (at == 0).then_some(alone.admin_at);
                    found[at] = Some(
                        turn(&brokers[at], (client, &topic, partitions), ground.effort.slice, admin, &scratch).await?,
                    );
                }
                rounds.push(found.into_iter().flatten().collect::<Vec<_>>());
            }
            for broker in &brokers {
                broker.delete(&topic).await?;
            }
            tell(client, partitions, &brokers, &rounds, report);
        }
    }
    alone.end().await
}

/// A virtual machine compiles what it runs often: that is not what is measured.
async fn warm(broker: &Broker, topic: &str) -> anyhow::Result<()> {
    let (broker, topic) = (broker.clone(), topic.to_owned());
    let warmed = tokio::task::spawn_blocking(move || {
        send_prepared(&broker.at, &topic, 8, Duration::from_secs(2), TURN_BYTES_MAX)
    });
    warmed.await?.map(|_| ())
}

async fn turn(
    broker: &Broker,
    (client, topic, partitions): (Client, &str, i32),
    lasts: Duration,
    admin: Option<std::net::SocketAddr>,
    scratch: &Arc<Scratch>,
) -> anyhow::Result<Turn> {
    let counted = |admin: Option<std::net::SocketAddr>| async move {
        match admin {
            Some(admin) => Counted::now(admin).await.map(Some),
            None => Ok(None),
        }
    };
    let (used, before, began) = (broker.used()?, counted(admin).await?, Instant::now());
    let (to, name) = (broker.clone(), topic.to_owned());
    let sent = tokio::task::spawn_blocking(move || match client {
        Client::Librdkafka => produce(&to.name, &to.at, &name, lasts, TURN_BYTES_MAX),
        Client::Prepared => send_prepared(&to.at, &name, partitions, lasts, TURN_BYTES_MAX),
    });
    let megabytes = sent.await??;
    let took = began.elapsed().as_secs_f64();
    let device = broker.used()?.since(used).written_bytes / 1e6 / took;
    let (mut write_bytes, mut raw) = (0.0, 0.0);
    if let (Some(before), Some(after)) = (before, counted(admin).await?) {
        let of = |name: &str| after.of(name) - before.of(name);
        write_bytes = of("cairn_log_appended_bytes") / of("cairn_log_fsyncs").max(1.0);
        let (disk, bytes) = (scratch.clone(), write_bytes as usize);
        raw = tokio::task::spawn_blocking(move || disk.rate_of(bytes, DISK_WITHIN)).await??;
    }
    Ok(Turn { records_a_second: megabytes * 1e6 / RECORD_BYTES as f64, device, write_bytes, raw })
}

/// Megabytes a second that were acknowledged.
pub(super) fn send_prepared(
    at: &str,
    topic: &str,
    partitions: i32,
    lasts: Duration,
    bytes_max: u64,
) -> anyhow::Result<f64> {
    let each = (REQUEST_RECORDS / usize::try_from(partitions)?).max(1);
    let (batch, _) = wire::batch(each, &payload());
    let batches: Vec<_> = (0..partitions).map(|partition| (partition, batch.as_slice())).collect();
    let request = wire::produce(topic, &batches);
    let bytes = (each * RECORD_BYTES) as u64 * u64::try_from(partitions)?;
    let mut wire = Wire::connect(at)?;
    let began = Instant::now();
    let (mut sent, mut stored, mut refused) = (0, 0, 0);
    loop {
        let more = began.elapsed() < lasts && sent * bytes < bytes_max;
        if more {
            wire.send(&request)?;
            sent += 1;
        }
        if sent == stored {
            break;
        }
        if !more || sent - stored >= IN_FLIGHT as u64 {
            match wire::refusal(wire.receive()?.0)? {
                0 => stored += 1,
                // As a client does: it is sent again, after a pause.
                code if AGAIN.contains(&code) && refused < REFUSALS_MAX => {
                    (sent, refused) = (sent - 1, refused + 1);
                    std::thread::park_timeout(REFUSED_PAUSE);
                }
                code => anyhow::bail!("a batch was refused with error {code}"),
            }
        }
    }
    Ok((stored * bytes) as f64 / 1e6 / began.elapsed().as_secs_f64())
}

fn tell(client: Client, partitions: i32, brokers: &[Broker], rounds: &[Vec<Turn>], report: &mut Report) {
    let section = if client == Client::Prepared { PREPARED } else { CLIENT };
    let of = |at: usize| median(rounds.iter().map(|round| round[at].records_a_second));
    let words = |at: usize| format!("{:.0} MiB/s", of(at) * RECORD_BYTES as f64 / f64::from(1 << 20));
    let what = |name: &str| format!("{partitions} partitions: {name}");
    let own = || Row::new(section, what(&brokers[0].name), of(0), "records/s").note(words(0));
    if brokers.len() == 1 {
        report.add(own().plotted());
    }
    for (at, peer) in brokers.iter().enumerate().skip(1) {
        let ratio = median(rounds.iter().map(|round| round[0].records_a_second / round[at].records_a_second));
        let row = own().against_by_round(peer.name.as_str(), of(at), ratio);
        report.add(match at {
            1 => row.plotted().aim("at least that", ratio >= 1.0),
            _ => row,
        });
    }
    for (at, peer) in brokers.iter().enumerate().skip(1) {
        report.add(Row::new(section, what(&peer.name), of(at), "records/s").note(words(at)).plotted());
    }
    let each = |of: fn(&Turn) -> f64| median(rounds.iter().map(|round| of(&round[0])));
    let ratio = median(rounds.iter().map(|round| round[0].device / round[0].raw.max(1.0)));
    let row = Row::new(section, what("Cairn, bytes to the device"), each(|turn| turn.device), "MB/s");
    let disk = format!("disk, writes of {:.0} KiB each with fdatasync", each(|turn| turn.write_bytes) / 1024.0);
    let row = row.against_by_round(disk, each(|turn| turn.raw), ratio);
    report.add(row.aim(format!("at least {DEVICE_RATIO_MIN}, or the aim above"), ratio >= DEVICE_RATIO_MIN));
}
