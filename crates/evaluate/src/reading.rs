//! Which offsets a data set is made of, and reading them: one partition after the other, so that the order is always the same.

use std::{collections::BTreeMap, time::Duration};

use cairn_backbone::records::{Bounded, RawRecord, Records};
use cairn_contract::Topic;
use tokio::time::Instant;

use crate::{Filters, MakeError, Range};

const POLL: Duration = Duration::from_millis(100);
/// After so long without a record the backbone counts as away.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// What led to a call may lie so long before it: offers, model calls, and clocks that disagree.
const EARLIER_MS: i64 = 3_600_000;
/// What became of a call is looked for so long after it.
const LATER_MS: i64 = 24 * 3_600_000;

/// The topics that are read, in the order in which they are: calls first, because of the others only what belongs to one is kept.
const TOPICS: [Topic; 5] = [Topic::Calls, Topic::Models, Topic::Context, Topic::Actions, Topic::Operators];

/// Where a topic stands in the order of reading; nothing where it is not read.
fn rank(topic: &str) -> Option<usize> {
    let class = Topic::of_anybody(topic)?;
    TOPICS.iter().position(|known| *known == class)
}

/// Whether a topic has events of people and erasures.
pub(crate) fn is_of_operators(topic: &str) -> bool {
    Topic::of_anybody(topic) == Some(Topic::Operators)
}

/// What is kept of the topics that are read, in the order of reading.
fn kept(records: &Records) -> Result<Vec<Bounded>, MakeError> {
    let mut bounded = records.partitions(|topic| rank(topic).is_some())?;
    bounded.sort_by_key(|one| (rank(&one.topic), one.topic.clone(), one.partition));
    Ok(bounded)
}

/// The offsets to read for these filters, as far as they are kept now.
pub(crate) fn ranges(records: &Records, filters: &Filters) -> Result<Vec<Range>, MakeError> {
    let bounded = kept(records)?;
    let ids = records.topic_ids();
    let at = |time_ms: Option<i64>| time_ms.map(|time_ms| records.offsets_at(&bounded, time_ms)).transpose();
    let begins = at(filters.since_ms.map(|since| since.saturating_sub(EARLIER_MS)))?;
    let ends = at(filters.until_ms.map(|until| until.saturating_add(LATER_MS)))?;
    let range = |(index, Bounded { topic, partition, start, end }): (usize, &Bounded)| {
        // Somebody may be erased long after the call.
        let is_whole = is_of_operators(topic);
        let of = |found: &Option<Vec<u64>>| found.as_ref().filter(|_| !is_whole).map(|found| found[index]);
        let to = of(&ends).unwrap_or(*end).min(*end);
        Range {
            topic_id: ids.get(topic).map(ToString::to_string).unwrap_or_default(),
            topic: topic.clone(),
            partition: *partition,
            from: of(&begins).unwrap_or(*start).clamp(*start, to),
            to,
        }
    };
    Ok(bounded.iter().enumerate().map(range).collect())
}

/// A part of a range that cannot be read any more, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Lost {
    /// The topic is gone, or another one has its name.
    Topic(Range),
    /// Records were removed.
    Removed(Range),
    /// The partition ends before the range does.
    Ended(Range),
}

/// What of these ranges is kept now, with what came to the operators' topics since, and what is not.
pub(crate) fn still(records: &Records, ranges: &[Range]) -> Result<(Vec<Range>, Vec<Lost>), MakeError> {
    let ids = records.topic_ids().into_iter().map(|(topic, id)| (topic, id.to_string())).collect();
    Ok(left_of(&kept(records)?, &ids, ranges))
}

fn left_of(bounded: &[Bounded], ids: &BTreeMap<String, String>, ranges: &[Range]) -> (Vec<Range>, Vec<Lost>) {
    let (mut found, mut lost) = (Vec::new(), Vec::new());
    for range in ranges {
        let now = bounded.iter().find(|now| now.topic == range.topic && now.partition == range.partition);
        let id = ids.get(&range.topic).cloned().unwrap_or_default();
        let is_another = !range.topic_id.is_empty() && !id.is_empty() && range.topic_id != id;
        let Some(now) = now.filter(|_| !is_another) else {
            if range.from < range.to {
                lost.push(Lost::Topic(range.clone()));
            }
            continue;
        };
        let from = range.from.max(now.start);
        if from > range.from {
            lost.push(Lost::Removed(Range { to: from.min(range.to), ..range.clone() }));
        }
        if now.end < range.to {
            lost.push(Lost::Ended(Range { from: now.end.max(range.from), ..range.clone() }));
        }
        let to = if is_of_operators(&range.topic) { now.end } else { range.to.min(now.end) };
        found.push(Range { from: from.min(to), to, ..range.clone() });
    }
    (found, lost)
}

/// Reads all of these offsets, and gives each record.
pub(crate) fn read(
    records: &Records,
    ranges: &[Range],
    mut each: impl FnMut(RawRecord) -> Result<(), MakeError>,
) -> Result<(), MakeError> {
    for range in ranges.iter().filter(|range| range.from < range.to) {
        records.assign([(range.topic.as_str(), range.partition, range.from)])?;
        let mut heard = Instant::now();
        loop {
            match records.poll(POLL)? {
                Some(record) if record.topic != range.topic || record.partition != range.partition => {}
                Some(record) if record.offset >= range.to => break,
                Some(record) => {
                    heard = Instant::now();
                    let is_last = record.offset + 1 >= range.to;
                    if record.offset >= range.from {
                        each(record)?;
                    }
                    if is_last {
                        break;
                    }
                }
                // The last offsets may have no records.
                None if records.position(&range.topic, range.partition).is_some_and(|at| at >= range.to) => break,
                None if heard.elapsed() > SILENT_MAX => return Err(MakeError::Silent),
                None => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(topic: &str, from: u64, to: u64) -> Range {
        Range { topic: topic.to_owned(), topic_id: "one".to_owned(), partition: 0, from, to }
    }

    #[test]
    fn what_is_not_there_any_more_is_told_apart_and_the_rest_is_read() {
        let kept = |start: u64, end: u64, topic: &str| Bounded { topic: topic.to_owned(), partition: 0, start, end };
        let ids = |id: &str| BTreeMap::from([("mcp.calls".to_owned(), id.to_owned())]);
        let calls = |bounded: &[Bounded], id: &str| left_of(bounded, &ids(id), &[range("mcp.calls", 10, 20)]);
        assert_eq!(calls(&[kept(0, 30, "mcp.calls")], "one"), (vec![range("mcp.calls", 10, 20)], vec![]));
        assert_eq!(calls(&[kept(0, 30, "mcp.calls")], "two"), (vec![], vec![Lost::Topic(range("mcp.calls", 10, 20))]));
        assert_eq!(calls(&[], "one"), (vec![], vec![Lost::Topic(range("mcp.calls", 10, 20))]));
        let removed = (vec![range("mcp.calls", 15, 20)], vec![Lost::Removed(range("mcp.calls", 10, 15))]);
        assert_eq!(calls(&[kept(15, 30, "mcp.calls")], "one"), removed);
        let all = (vec![range("mcp.calls", 20, 20)], vec![Lost::Removed(range("mcp.calls", 10, 20))]);
        assert_eq!(calls(&[kept(25, 30, "mcp.calls")], "one"), all);
        let ended = (vec![range("mcp.calls", 10, 12)], vec![Lost::Ended(range("mcp.calls", 12, 20))]);
        assert_eq!(calls(&[kept(0, 12, "mcp.calls")], "one"), ended);
        // Erasures since are looked for.
        let since =
            left_of(&[kept(0, 30, "acme.mcp.operators")], &BTreeMap::new(), &[range("acme.mcp.operators", 0, 20)]);
        assert_eq!(since, (vec![range("acme.mcp.operators", 0, 30)], vec![]));
    }
}
