//! `cairn trail`: the newest workflows, and the decision path of one.
//!
//! The events are read from the trail itself. Where they lie tells the audit database of the data folder, as far as it covers the
//! same topics ([`places`]); without one, or past what it covers, the partitions in which the workflow can lie are read whole. It
//! must never show what it did not read from the trail.

mod newest;
mod places;

use std::path::PathBuf;

use anyhow::Context;
use serde_json::{Value, json};

use crate::{
    ending::Ending,
    path,
    read::{Placed, Reading, Source, class},
    say,
};

use newest::{Listed, Seen};
pub(crate) use places::{events_of, is_by_workflow};

/// What `cairn trail` is asked.
pub(crate) struct Asked {
    /// The workflow; the newest ones are listed where absent.
    pub(crate) id: Option<String>,
    /// Reads partitions whole, whatever an index says.
    pub(crate) whole: bool,
    /// Where its page is written.
    pub(crate) html: Option<PathBuf>,
    pub(crate) as_json: bool,
}

/// Prints the newest workflows or the path of one, or writes its page.
pub(crate) async fn run(source: Source, asked: Asked) -> anyhow::Result<()> {
    let Asked { id, whole, html, as_json } = asked;
    let shape = match (&html, as_json) {
        (Some(_), _) => Shape::Page,
        (None, true) => Shape::Json,
        (None, false) => Shape::Tree,
    };
    let text = tokio::task::spawn_blocking(move || match id {
        Some(id) => workflow(&source, &id, shape, whole),
        None => workflows(&source, as_json, whole),
    });
    let text = text.await??;
    if let Some(path) = html {
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        say::line(format_args!("wrote {}", path.display()));
    } else if !text.is_empty() {
        say::line(format_args!("{text}"));
    }
    Ok(())
}

/// Workflows that are listed.
const WORKFLOWS_MAX: usize = 20;
/// Checkpoints that are looked at, from the newest back: a few, and where these do not cover all, many.
const CHECKPOINTS: [i64; 2] = [100, 2_000];

/// The newest workflows, one a line; `whole` reads partitions whole, whatever an index says.
pub(crate) fn workflows(source: &Source, as_json: bool, whole: bool) -> anyhow::Result<String> {
    let newest = newest_in(&Reading::open(source)?, whole)?;
    if as_json {
        let list = newest.iter().map(|Listed { id, last, calls, events }| {
            json!({ "workflow_id": id, "last": last, "calls": calls, "events": events })
        });
        return Ok(Value::from(list.collect::<Vec<_>>()).to_string());
    }
    if newest.is_empty() {
        eprintln!("cairn: no workflows yet: nothing has been called through Cairn");
    }
    let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    let lines = newest.iter().map(|Listed { id, last, calls, events }| {
        format!("{last}  {id}  {}, {}", many(*calls, "call"), many(*events, "event"))
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

fn newest_in(reading: &Reading<'_>, whole: bool) -> anyhow::Result<Vec<Listed>> {
    let of_calls = |topic: &str| class(topic) == "mcp.calls";
    let bounds: Vec<_> = reading.bounds.iter().filter(|(topic, ..)| of_calls(topic)).collect();
    let mut looked = newest::FIRST;
    loop {
        let events = reading.newest_in(of_calls, looked)?;
        let listed = newest::listed(&events, WORKFLOWS_MAX);
        match newest::seen(&bounds, looked, &events, &listed, WORKFLOWS_MAX) {
            Seen::All => return Ok(listed),
            // Which they are is known; what more there is of them lies further back.
            Seen::Enough => {
                let ids: Vec<&str> = listed.iter().map(|listed| listed.id.as_str()).collect();
                return Ok(newest::listed(&events_of(reading, &ids, of_calls, whole)?, WORKFLOWS_MAX));
            }
            Seen::TooLittle => looked = looked.saturating_mul(newest::FURTHER),
        }
    }
}

/// One workflow's decision path; `whole` reads partitions whole, whatever an index says.
pub(crate) fn workflow(source: &Source, id: &str, shape: Shape, whole: bool) -> anyhow::Result<String> {
    let reading = Reading::open(source)?;
    let mut events = events_of(&reading, &[id], |_| true, whole)?;
    events.extend(models_of(&reading, id, &events, whole)?);
    if events.is_empty() {
        let words = format!(
            "no event of workflow {id} is in the trail at {}: `cairn trail` lists recent workflows",
            source.bootstrap
        );
        return Err(Ending::NoSuch(words).into());
    }
    let signed = signed(&reading, &events)?;
    Ok(match shape {
        Shape::Tree => path::tree(id, &events, &signed),
        Shape::Json => path::json(id, &events, &signed).to_string(),
        Shape::Page => path::page(id, &events, &signed),
    })
}

/// The model calls of a workflow's traces that were reported under the trace's own id, because nobody told the workflow's.
fn models_of(reading: &Reading<'_>, id: &str, events: &[Placed], whole: bool) -> anyhow::Result<Vec<Placed>> {
    let traces = path::traces(events);
    let mut ids: Vec<&str> = traces.iter().map(|(_, trace)| *trace).filter(|trace| *trace != id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let reports = events_of(reading, &ids, |topic| class(topic) == "mcp.models", whole)?;
    let is_of = |placed: &Placed| {
        let trace = path::text(placed, "trace_id").map(|trace| (path::text(placed, "tenant"), trace));
        trace.is_some_and(|(tenant, trace)| {
            placed.event.common.workflow_id == trace && traces.contains(&(tenant, trace))
        })
    };
    Ok(reports.into_iter().filter(is_of).collect())
}

/// How far the partitions are covered, as the newest published checkpoints say.
fn signed(reading: &Reading<'_>, events: &[Placed]) -> anyhow::Result<path::Signed> {
    let mut signed = path::Signed::default();
    for newest in CHECKPOINTS {
        for placed in reading.newest_in(|topic| class(topic) == "mcp.checkpoints", newest)? {
            let value = &placed.event.value;
            let of = |key: &str| value.get(key).and_then(Value::as_i64);
            if let (Some(topic), Some(partition), Some(next)) =
                (path::text(&placed, "topic"), of("partition"), of("offset_next"))
            {
                let place = (topic.to_owned(), i32::try_from(partition).unwrap_or(-1));
                let known = signed.0.entry(place).or_default();
                *known = next.max(*known);
            }
        }
        // A partition in which nothing happens has its last checkpoint far back.
        let is_covered = |placed: &Placed| {
            signed.0.get(&(placed.topic.clone(), placed.partition)).is_some_and(|until| placed.offset < *until)
        };
        if events.iter().all(is_covered) {
            break;
        }
    }
    Ok(signed)
}

/// How a decision path is shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// For people at a terminal.
    Tree,
    /// For machines.
    Json,
    /// As a page of its own.
    Page,
}
