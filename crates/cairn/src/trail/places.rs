//! Where the events of workflows lie, and reading them from there.
//!
//! An index names offsets; what it does not cover is read whole. A record is shown because it is of the workflow, never because the
//! index said so: an index that is wrong can at most leave something out, and one of another log is known by the topics' ids.

use std::{collections::HashMap, ops::Range};

use cairn_contract::{Topic, partition_for};

use crate::read::{Bounds, Placed, Reading, Source, Stretches};

/// Whether a topic's key is the workflow.
pub(crate) fn is_by_workflow(topic: &str) -> bool {
    Topic::of_anybody(topic).is_some_and(Topic::is_by_workflow)
}

/// Offsets that lie no further apart are read in one go.
const APART_MAX: i64 = 64;

/// What an index says of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Indexed {
    /// The offsets of which it lacks none.
    whole: Range<i64>,
    /// Where events lie, in order.
    offsets: Vec<i64>,
}

type Index = HashMap<(String, i32), Indexed>;

/// All events of these workflows in the topics that are wanted, in the order of each partition.
pub(crate) fn events_of(
    reading: &Reading<'_>,
    workflows: &[&str],
    wanted: impl Fn(&str) -> bool,
    whole: bool,
) -> anyhow::Result<Vec<Placed>> {
    let index = if whole { Index::new() } else { index(reading.source, workflows) };
    let (stretches, gone) = plan(&reading.bounds, workflows, &index, wanted);
    if gone > 0 {
        eprintln!(
            "cairn: the log keeps {gone} of these events no longer; the audit database has what they said: cairn query"
        );
    }
    let mut events = reading.stretches(stretches)?;
    tracing::debug!(records = events.len(), indexed = index.len(), "the trail was read");
    events.retain(|placed| workflows.contains(&placed.event.common.workflow_id.as_str()));
    Ok(events)
}

/// What is read, and how many of the events that the index knows the log keeps no longer.
fn plan(bounds: &[Bounds], workflows: &[&str], index: &Index, wanted: impl Fn(&str) -> bool) -> (Stretches, usize) {
    let mut counts: HashMap<&str, u32> = HashMap::new();
    bounds.iter().for_each(|(topic, ..)| *counts.entry(topic).or_default() += 1);
    let (mut stretches, mut gone) = (Stretches::new(), 0);
    for (topic, partition, low, high) in bounds.iter().filter(|(topic, ..)| wanted(topic)) {
        let of = |workflow: &&str| {
            u32::try_from(*partition) == Ok(partition_for(workflow.as_bytes(), counts[topic.as_str()]))
        };
        let may_hold = !is_by_workflow(topic) || workflows.iter().any(of);
        let place = (topic.clone(), *partition);
        // Past the end: the log was made anew, or lost it.
        let indexed = index.get(&place).filter(|indexed| indexed.whole.end <= *high);
        let mut reads = Vec::new();
        match indexed {
            None if may_hold => reads.push(*low..*high),
            None => {}
            Some(Indexed { whole, offsets }) => {
                let covered = whole.start.clamp(*low, *high)..whole.end.clamp(*low, *high);
                if may_hold {
                    reads.push(*low..covered.start);
                }
                gone += offsets.iter().filter(|offset| *offset < low).count();
                reads
                    .extend(offsets.iter().filter(|offset| covered.contains(offset)).map(|offset| *offset..offset + 1));
                if may_hold {
                    reads.push(covered.end..*high);
                }
            }
        }
        let reads = joined(reads);
        if !reads.is_empty() {
            stretches.insert(place, reads);
        }
    }
    (stretches, gone)
}

/// Stretches in order, those that lie near each other as one.
fn joined(reads: Vec<Range<i64>>) -> Vec<Range<i64>> {
    let mut joined: Vec<Range<i64>> = Vec::new();
    for read in reads.into_iter().filter(|read| !read.is_empty()) {
        match joined.last_mut() {
            Some(last) if read.start - last.end <= APART_MAX => last.end = last.end.max(read.end),
            _ => joined.push(read),
        }
    }
    joined
}

/// What the audit database of the data folder says, of the topics that it shares with the source.
#[cfg(feature = "audit")]
fn index(source: &Source, workflows: &[&str]) -> Index {
    use cairn_consumers::audit;

    let Some(data) = source.data.as_deref() else { return Index::new() };
    let store = crate::audit::section(data, None).and_then(|section| crate::audit::store(&section, data));
    let found = match store.map(|store| store.find(workflows)) {
        Ok(Ok(found)) => found,
        Ok(Err(audit::query::QueryError::Missing { .. })) => return Index::new(),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the trail is read without an index");
            return Index::new();
        }
        Err(error) => {
            tracing::warn!("the trail is read without an index: {error:#}");
            return Index::new();
        }
    };
    // Nothing else tells whether the database is of this log.
    let ids = source.records().map(|records| records.topic_ids()).unwrap_or_default();
    let number = |offset: u64| i64::try_from(offset).unwrap_or(i64::MAX);
    let is_here =
        |covered: &audit::index::Covered| ids.get(&covered.topic).is_some_and(|id| id.to_string() == covered.topic_id);
    found
        .into_iter()
        .filter(is_here)
        .filter_map(|covered| {
            let place = (covered.topic, i32::try_from(covered.partition).ok()?);
            let whole = number(covered.whole.start)..number(covered.whole.end);
            Some((place, Indexed { whole, offsets: covered.offsets.into_iter().map(number).collect() }))
        })
        .collect()
}

#[cfg(not(feature = "audit"))]
fn index(_: &Source, _: &[&str]) -> Index {
    Index::new()
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "a list of one stretch")]
mod tests {
    use super::*;

    const WORKFLOW: &str = "w";

    /// Two partitions of `mcp.calls`: the workflow's own, and another.
    fn bounds(low: i64, high: i64) -> (Vec<Bounds>, (String, i32), (String, i32)) {
        let own = i32::try_from(partition_for(WORKFLOW.as_bytes(), 2)).expect("small");
        let place = |partition| ("mcp.calls".to_owned(), partition);
        let all = (0..2).map(|partition| ("mcp.calls".to_owned(), partition, low, high)).collect();
        (all, place(own), place(1 - own))
    }

    fn planned(bounds: &[Bounds], index: &Index) -> (Stretches, usize) {
        plan(bounds, &[WORKFLOW], index, |_| true)
    }

    #[test]
    fn without_an_index_the_partition_that_may_hold_it_is_read_whole() {
        let (bounds, own, _) = bounds(5, 900);
        assert_eq!(planned(&bounds, &Index::new()), (Stretches::from([(own, vec![5..900])]), 0));
    }

    #[test]
    fn what_the_index_does_not_cover_is_read_whole() {
        let (bounds, own, other) = bounds(100, 5_000);
        let offsets = vec![20, 40, 300, 310, 1_000, 3_999];
        let index = Index::from([
            (own.clone(), Indexed { whole: 200..4_000, offsets }),
            (other, Indexed { whole: 0..5_000, offsets: vec![] }),
        ]);
        let reads = vec![100..200, 300..311, 1_000..1_001, 3_999..5_000];
        assert_eq!(planned(&bounds, &index), (Stretches::from([(own, reads)]), 2));
    }

    #[test]
    fn an_index_that_knows_more_than_the_log_holds_is_of_another_log() {
        let (bounds, own, _) = bounds(0, 50);
        let index = Index::from([(own.clone(), Indexed { whole: 0..51, offsets: vec![3] })]);
        assert_eq!(planned(&bounds, &index), (Stretches::from([(own, vec![0..50])]), 0));
    }

    #[test]
    fn stretches_that_lie_near_each_other_are_one() {
        assert_eq!(joined(vec![0..0, 3..4, 67..68, 133..134, 134..200]), [3..68, 133..200]);
    }
}
