//! What a start with `--recover` says: what the store had when a write-ahead log was lost, and where each partition goes on.
//! Called once the broker stands. The whole of it is written to a file, because a terminal forgets.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use anyhow::Context;
use cairn_broker::Broker;
use cairn_clock::Timestamp;
use cairn_log::Recovery;
use serde_json::{Value, json};

use crate::say;

/// Partitions that are said on standard error; the file has all of them.
const SAID_MAX: usize = 20;

/// Says what a recovery did, where this start was one.
pub(crate) fn tell(broker: &Broker, data: &Path) -> anyhow::Result<()> {
    let log = broker.log();
    let Some(recovery) = log.recovery() else { return Ok(()) };
    let path = data.join(format!("recovered-{}.json", log.epoch()));
    let report = report(recovery, broker);
    let text = serde_json::to_string_pretty(&report)?;
    std::fs::write(&path, text + "\n").with_context(|| format!("cannot write {}", path.display()))?;
    lines(recovery, &report, &path).iter().for_each(|line| eprintln!("cairn: {}", say::plain(line)));
    Ok(())
}

/// A time for people and machines.
fn shown(ms: i64) -> String {
    Timestamp::from_micros(u64::try_from(ms).unwrap_or_default().saturating_mul(1_000)).to_string()
}

fn report(recovery: &Recovery, broker: &Broker) -> Value {
    let names: BTreeMap<_, _> = broker.topics().into_iter().map(|topic| (topic.id, topic.name)).collect();
    let partitions: Vec<Value> = recovery
        .streams
        .iter()
        .map(|stream| {
            let (topic, id) = (names.get(&stream.stream.topic), stream.stream.topic);
            json!({
                "topic": topic, "topic_id": id, "partition": stream.stream.partition,
                "start": stream.start, "stored_to": stream.end, "goes_on_at": stream.next,
            })
        })
        .collect();
    let committed: Vec<Value> = broker
        .committed()
        .into_iter()
        .map(|one| {
            let time = shown(one.committed_ms);
            json!({
                "group": one.group, "topic": one.topic, "partition": one.partition, "offset": one.offset,
                "committed_at": time,
            })
        })
        .collect();
    json!({
        "lost_epoch": recovery.epoch, "last_upload": recovery.uploaded_ms.map(shown),
        "partitions": partitions, "committed_offsets": committed,
    })
}

fn lines(recovery: &Recovery, report: &Value, path: &Path) -> Vec<String> {
    let when =
        report["last_upload"].as_str().map_or_else(|| "before this version".to_owned(), |time| format!("at {time}"));
    let mut lines = vec![
        format!(
            "recovered: the write-ahead log of epoch {} is lost, and the object store is gone on with",
            recovery.epoch
        ),
        format!(
            "its last upload was {when}; lost is what was acknowledged after it: records at and behind the offsets below, commits of \
             groups, topics that were made, and changes and deletions of others"
        ),
    ];
    let partitions = report["partitions"].as_array().into_iter().flatten();
    let named: Vec<&Value> = partitions.filter(|one| one["topic"].is_string()).collect();
    for one in named.iter().take(SAID_MAX) {
        let topic = one["topic"].as_str().unwrap_or_default();
        lines.push(format!(
            "  {topic}-{}: offsets {} to {} are there, it goes on at {}",
            one["partition"], one["start"], one["stored_to"], one["goes_on_at"]
        ));
    }
    if named.len() > SAID_MAX {
        lines.push(format!("  … and {} partitions more", named.len() - SAID_MAX));
    }
    let committed = report["committed_offsets"].as_array().map_or(0, Vec::len);
    let groups: BTreeSet<_> =
        report["committed_offsets"].as_array().into_iter().flatten().filter_map(|one| one["group"].as_str()).collect();
    lines.push(format!("{committed} committed offsets of {} groups are as they were then", groups.len()));
    lines.push(format!("offsets in between are never given again; all of it is in {}", path.display()));
    lines.push("where the lost log turns up, cairn broker salvage reads what the store lacks".to_owned());
    lines
}
