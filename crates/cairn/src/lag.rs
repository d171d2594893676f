//! `cairn lag`: how far every consumer group is that reads Cairn's topics, in records and in seconds.
//!
//! Asked by the Kafka protocol, so it shows other teams' groups too and works on any backbone; no group is joined or moved. How fresh
//! Cairn's own consumers are, from an event until it is applied, say the metrics of the running `up`.

use std::collections::BTreeMap;

use cairn_backbone::group::{GroupStanding, Standing, standings};
use cairn_clock::Clock;
use serde_json::{Value, json};

use crate::{ask::AdminArguments, ending::Ending, read::Source, say};

/// How fresh the newest events were when a group had applied them, in seconds: the middle, and what one in a hundred exceeds.
pub(crate) type Fresh = BTreeMap<String, [f64; 2]>;

/// How fresh the consumers of the running `up` are; nothing where none runs.
pub(crate) async fn fresh(admin: &AdminArguments) -> Fresh {
    match admin.find() {
        Ok(admin) => admin.metrics().await.map(|text| read_fresh(&text)).unwrap_or_default(),
        Err(_) => Fresh::new(),
    }
}

fn read_fresh(text: &str) -> Fresh {
    let mut fresh = Fresh::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("cairn_consumer_freshness_recent_seconds{")) {
        let label = |name: &str| line.split_once(&format!("{name}=\""))?.1.split('"').next();
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        if let (Some(group), Some(quantile), Some(value)) = (label("consumergroup"), label("quantile"), value) {
            let at = usize::from(quantile != "0.5");
            fresh.entry(group.to_owned()).or_default()[at] = value;
        }
    }
    fresh
}

/// Prints how far every group is.
pub(crate) fn run(source: &Source, fresh: &Fresh, as_json: bool) -> anyhow::Result<()> {
    let groups = standings(&source.bootstrap, source.properties()).map_err(|error| {
        anyhow::Error::from(Ending::NobodyThere(format!(
            "{error}; start `cairn up`, or name another broker with --bootstrap"
        )))
    })?;
    let now_ms = Clock::system().now().as_millis();
    if as_json {
        let list: Vec<Value> = groups.iter().map(|group| shown(group, fresh, now_ms)).collect();
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
            "{name}  {} records, {:.1} s behind{}  {state}, {} members",
            behind(group),
            seconds(group, now_ms),
            fresh.get(&group.group).map(words).unwrap_or_default(),
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

/// From an event until it is applied.
fn words([p50, p99]: &[f64; 2]) -> String {
    format!(", fresh to {:.1} ms (p50), {:.1} ms (p99)", p50 * 1e3, p99 * 1e3)
}

fn shown(group: &GroupStanding, fresh: &Fresh, now_ms: i64) -> Value {
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
    let mut out = json!({
        "group": group.group,
        "state": group.state,
        "members": group.members,
        "lag_records": behind(group),
        "lag_seconds": seconds(group, now_ms),
        "partitions": partitions.collect::<Vec<_>>(),
    });
    if let Some([p50, p99]) = fresh.get(&group.group) {
        out["freshness_p50_seconds"] = json!(p50);
        out["freshness_p99_seconds"] = json!(p99);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freshness_is_read_from_metrics() {
        let text = "# TYPE cairn_consumer_freshness_recent_seconds gauge\n\
            cairn_consumer_freshness_recent_seconds{consumer=\"audit\",consumergroup=\"cairn-audit\",quantile=\"0.5\"} 0.0042\n\
            cairn_consumer_freshness_recent_seconds{consumer=\"audit\",consumergroup=\"cairn-audit\",quantile=\"0.99\"} 0.0185\n\
            cairn_consumer_events_total{consumer=\"audit\"} 7\n";
        let fresh = read_fresh(text);
        assert_eq!(fresh, Fresh::from([("cairn-audit".to_owned(), [0.0042, 0.0185])]));
        assert_eq!(words(&fresh["cairn-audit"]), ", fresh to 4.2 ms (p50), 18.5 ms (p99)");
    }
}
