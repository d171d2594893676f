//! What a GiB costs: processor time of the broker, bytes to the device, requests to the object store; and what idling costs.
//!
//! The bytes are four times what may wait for the store, so that the upload has to keep up.

use std::time::Duration;

use tokio::time::sleep;

use super::{
    Counted, Ground,
    broker::{Broker, able},
    process::Used,
    read::{catch_up, fill, uploaded},
};
use crate::{
    children::Alone,
    report::{Report, Row},
};

const SECTION: &str = "Cost of a GiB, 8 partitions";
const GIB: f64 = (1_u64 << 30) as f64;
/// Bytes that are written.
const BYTES: u64 = 1 << 30;
const QUICK_BYTES: u64 = 256 << 20;
/// How long idling is watched: longer than anything that a log does now and then.
const IDLE: Duration = Duration::from_secs(40);
const QUICK_IDLE: Duration = Duration::from_secs(5);
/// How long one pass over the bytes may take.
const READ_MAX: Duration = Duration::from_secs(60);
/// Of upload and merges to what was appended.
const AMPLIFICATION_MAX: f64 = 2.0;

pub(super) async fn measure(ground: Ground<'_>, report: &mut Report) -> anyhow::Result<()> {
    let (bytes, idle) = if ground.quick { (QUICK_BYTES, QUICK_IDLE) } else { (BYTES, IDLE) };
    let alone =
        Alone::start(ground.folder, &format!("[store]\nwal_bytes_max = {}\nupload_interval_ms = 1000\n", bytes / 4))
            .await?;
    let topic = format!("bench.cost.{}", std::process::id());
    let own = Broker::own(&alone);
    let (before, used) = (Counted::now(alone.admin_at).await?, own.used()?);
    fill(&own, &topic, bytes).await?;
    let after = uploaded(&alone).await?;
    tell(&own, "written, with its upload", own.used()?.since(used), bytes, report);
    let grown = |name: &str| after.of(name) - before.of(name);
    let gib = bytes as f64 / GIB;
    let requests = after.requests() - before.requests();
    report.add(Row::new(SECTION, "Cairn: requests to the object store, written", requests / gib, "a GiB"));
    let put = grown("cairn_log_uploaded_bytes") + grown("cairn_log_merged_bytes") + grown("cairn_log_index_bytes");
    let ratio = put / grown("cairn_log_appended_bytes").max(1.0);
    let row = Row::new(SECTION, "Cairn: uploaded, merged and indexed", put / gib / 1e6, "MB a GiB");
    let row = row.against_by_round("appended", grown("cairn_log_appended_bytes") / gib / 1e6, ratio);
    report.add(row.aim(format!("at most {AMPLIFICATION_MAX}"), ratio <= AMPLIFICATION_MAX));
    let (alone, _) = alone.again().await?;
    let own = Broker::own(&alone);
    let before = Counted::now(alone.admin_at).await?;
    read(&own, &topic, bytes, report).await?;
    let requests = Counted::now(alone.admin_at).await?.requests() - before.requests();
    report.add(Row::new(SECTION, "Cairn: requests to the object store, read", requests / gib, "a GiB"));
    idle_after(&alone, idle, report).await?;
    alone.end().await?;
    let able = able(ground.peers, "cost", |peer| async move {
        anyhow::ensure!(peer.pid.is_some(), "its process is not known");
        Ok(())
    });
    for peer in able.await {
        let used = peer.used()?;
        fill(&peer, &topic, bytes).await?;
        tell(&peer, "written", peer.used()?.since(used), bytes, report);
        read(&peer, &topic, bytes, report).await?;
        peer.delete(&topic).await?;
    }
    Ok(())
}

fn tell(broker: &Broker, what: &str, used: Used, bytes: u64, report: &mut Report) {
    let gib = bytes as f64 / GIB;
    let name = &broker.name;
    let row = Row::new(SECTION, format!("{name}: processor, {what}"), used.processor_seconds / gib, "s a GiB");
    report.add(row.plotted());
    if used.written_bytes > 0.0 {
        let row =
            Row::new(SECTION, format!("{name}: to the device, {what}"), used.written_bytes / gib / 1e6, "MB a GiB");
        report.add(row);
    }
}

/// Reads everything once.
async fn read(broker: &Broker, topic: &str, bytes: u64, report: &mut Report) -> anyhow::Result<()> {
    let used = broker.used()?;
    let (at, topic) = (broker.at.clone(), topic.to_owned());
    tokio::task::spawn_blocking(move || catch_up(&at, &topic, READ_MAX, true)).await??;
    let read = Used { written_bytes: 0.0, ..broker.used()?.since(used) };
    tell(broker, "read", read, bytes, report);
    Ok(())
}

/// Nothing is asked of the object store while nobody asks anything of Cairn.
async fn idle_after(alone: &Alone, idle: Duration, report: &mut Report) -> anyhow::Result<()> {
    // What a start leaves to tidy up is done by then.
    sleep(Duration::from_secs(3)).await;
    let (before, own) = (Counted::now(alone.admin_at).await?, Broker::own(alone));
    let used = own.used()?;
    sleep(idle).await;
    let after = Counted::now(alone.admin_at).await?;
    let requests = after.requests() - before.requests();
    let seconds = idle.as_secs();
    let row = Row::new(SECTION, format!("Cairn: requests to the object store in {seconds} idle seconds"), requests, "");
    let row = if requests < 1.0 { row } else { row.note(after.kinds_since(&before)) };
    report.add(row.aim("none", requests < 1.0));
    let processor = own.used()?.since(used).processor_seconds * 1e3 / idle.as_secs_f64();
    report.add(Row::new(SECTION, "Cairn: processor while idle", processor, "ms a second"));
    Ok(())
}
