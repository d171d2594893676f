//! `cairn lag`: how far every consumer group is that reads Cairn's topics, in records and in seconds.
//!
//! Asked by the Kafka protocol, so it shows other teams' groups too and works on any backbone; no group is joined or moved.

use cairn_backbone::group::{GroupStanding, Standing, standings};
use cairn_clock::Clock;
use serde_json::{Value, json};

use crate::{ending::Ending, read::Source, say};

/// Prints how far every group is.
pub(crate) fn run(source: &Source, as_json: bool) -> anyhow::Result<()> {
    let groups = standings(&source.bootstrap, source.properties()).map_err(|error| {
        anyhow::Error::from(Ending::NobodyThere(format!(
            "{error}; start `cairn up`, or name another broker with --bootstrap"
        )))
    })?;
    let now_ms = Clock::system().now().as_millis();
    if as_json {
        let list: Vec<Value> = groups.iter().map(|group| shown(group, now_ms)).collect();
        say::line(format_args!("{}", json!({ "groups": list })));
        return Ok(());
    }
    if groups.is_empty() {
        eprintln!("cairn: no consumer group has read Cairn's topics yet");
    }
    for group in &groups {
        let name = say::plain(&group.group);
        let state = say::plain(&group.state);
        say::line(format_args!(
            "{name}  {} records, {:.1} s behind  {state}, {} members",
            behind(group),
            seconds(group, now_ms),
            group.members
        ));
        for standing in group.partitions.iter().filter(|standing| standing.next < standing.end) {
            let Standing { place, next, end, .. } = standing;
            say::line(format_args!(
                "  {}/{}  {} records  at {next} of {end}",
                say::plain(&place.topic),
                place.partition,
                end - next
            ));
        }
    }
    Ok(())
}

fn behind(group: &GroupStanding) -> u64 {
    group.partitions.iter().map(|standing| standing.end - standing.next).sum()
}

/// Age of the oldest record that it has not read.
fn seconds(group: &GroupStanding, now_ms: i64) -> f64 {
    let oldest = group.partitions.iter().filter_map(|standing| standing.unread_since_ms).min();
    oldest.map_or(0.0, |oldest| (now_ms - oldest).max(0) as f64 / 1e3)
}

fn shown(group: &GroupStanding, now_ms: i64) -> Value {
    let partitions = group.partitions.iter().map(|standing| {
        let since = standing.unread_since_ms.map(|since| (now_ms - since).max(0) as f64 / 1e3);
        json!({
            "topic": standing.place.topic,
            "partition": standing.place.partition,
            "next": standing.next,
            "end": standing.end,
            "lag_records": standing.end - standing.next,
            "lag_seconds": since.unwrap_or_default(),
        })
    });
    json!({
        "group": group.group,
        "state": group.state,
        "members": group.members,
        "lag_records": behind(group),
        "lag_seconds": seconds(group, now_ms),
        "partitions": partitions.collect::<Vec<_>>(),
    })
}
