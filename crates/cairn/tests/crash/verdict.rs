//! The trail against the upstream's journal and the clients' book: what must hold after any crash (I1 to I5, I9).
//!
//! A pure function over what three witnesses say; the rounds call it when a new Cairn is `ready` and before it is given
//! anything to do. So a call that is still open is a finding: its predecessor's calls are closed before it serves.

use std::collections::{BTreeMap, BTreeSet};

use cairn_contract::{EventType, StoredEvent, invariants};

use crate::{
    book::{Entry, Kind, Saw},
    trail::Trail,
};

/// What the trail says of one call.
#[derive(Clone, Debug, Default)]
struct Life {
    decided_at: Option<usize>,
    intended: bool,
    ended_at: Option<usize>,
    outcome: String,
    effect: String,
    recovered: bool,
}

/// What was counted on the way.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Counts {
    pub(crate) asked: usize,
    pub(crate) reached: usize,
    pub(crate) answered: usize,
    pub(crate) in_doubt: usize,
    pub(crate) closed_without_effect: usize,
}

/// Holds the three witnesses against each other; gives what does not agree.
pub(crate) fn judge(trail: &Trail, reached: &[String], book: &[Entry]) -> (Counts, Vec<String>) {
    let mut findings = Vec::new();
    let lives = read(trail, &mut findings);
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    for id in reached {
        *times.entry(id).or_default() += 1;
    }
    let known: BTreeSet<_> = book.iter().map(|entry| entry.id.as_str()).collect();
    for (id, times) in &times {
        if !known.contains(id) {
            findings.push(format!("I1: {id} reached the upstream and nobody asked for it"));
        }
        if *times > 1 {
            findings.push(format!("I1: {id} reached the upstream {times} times"));
        }
    }
    for entry in book {
        let life = lives.get(&entry.id);
        findings.extend(one(entry, life, times.contains_key(entry.id.as_str())));
    }
    order(book, &lives, &mut findings);
    let counts = Counts {
        asked: book.len(),
        reached: times.len(),
        answered: book.iter().filter(|entry| entry.saw != Saw::Nothing).count(),
        in_doubt: lives.values().filter(|life| life.outcome == "in_doubt").count(),
        closed_without_effect: lives.values().filter(|life| life.recovered && life.effect == "none").count(),
    };
    (counts, findings)
}

/// Every chain of every topic, every predicate of `mcp.calls`, and each call's life by the client's id.
fn read(trail: &Trail, findings: &mut Vec<String>) -> BTreeMap<String, Life> {
    let mut lives = BTreeMap::new();
    for topic in trail.topics() {
        let partitions = match trail.events(&topic) {
            Ok(partitions) => partitions,
            Err(error) => {
                findings.push(error);
                continue;
            }
        };
        for events in partitions {
            let unbroken = invariants::chain_unbroken(&events, invariants::Start::Beginning);
            findings.extend(unbroken.err().map(|finding| format!("I5, I8: {topic}: {finding}")));
            if topic == "mcp.calls" {
                let found = invariants::check_calls(&events, &BTreeSet::new());
                findings.extend(found.iter().map(|finding| format!("I1, I2, I5: {finding}")));
                gather(&events, &mut lives, findings);
            } else {
                findings
                    .extend(invariants::clock_rises(&events).err().map(|finding| format!("I5: {topic}: {finding}")));
            }
        }
    }
    lives
}

fn gather(events: &[StoredEvent], lives: &mut BTreeMap<String, Life>, findings: &mut Vec<String>) {
    let mut calls: BTreeMap<String, uuid::Uuid> = BTreeMap::new();
    for (position, event) in events.iter().enumerate() {
        let Some(id) = event.common.jsonrpc_request_id.as_deref().map(|id| id.trim_matches('"').to_owned()) else {
            continue;
        };
        let Some(call) = event.common.call_id else { continue };
        if *calls.entry(id.clone()).or_insert(call) != call {
            findings.push(format!("I1: {id} was sent once and is two calls"));
        }
        let text = |key: &str| event.value.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        let life = lives.entry(id).or_default();
        match event.event_type() {
            Some(EventType::CallDecision) => life.decided_at = life.decided_at.or(Some(position)),
            Some(EventType::CallIntent) => life.intended = true,
            Some(EventType::CallOutcome) => {
                life.ended_at = Some(position);
                life.outcome = text("outcome");
                life.effect = text("effect");
                life.recovered = event.value.get("recovered") == Some(&serde_json::Value::Bool(true));
            }
            _ => {}
        }
    }
}

/// One call: trail, journal and client must tell one story.
fn one(entry: &Entry, life: Option<&Life>, reached: bool) -> Vec<String> {
    let mut findings = Vec::new();
    let Entry { id, kind, saw, .. } = entry;
    let mut find = |words: String| findings.push(format!("{words} ({entry:?}, trail {life:?}, reached: {reached})"));
    if reached && *kind == Kind::Forbidden {
        find(format!("I9: {id} is forbidden and reached the upstream"));
    }
    if kind.is_strict() && reached && !life.is_some_and(|life| life.intended) {
        find(format!("I1: {id} reached the upstream and has no intent"));
    }
    if let Some(life) = life {
        let Life { outcome, effect, recovered, .. } = life;
        if reached && effect == "none" {
            find(format!("I2: {id} reached the upstream, and its outcome says that nothing was sent"));
        }
        if !reached && effect == "answered" {
            find(format!("I2: {id} never reached the upstream, and its outcome says that it answered"));
        }
        if outcome == "in_doubt" && !*recovered {
            find(format!("I2: {id} is in doubt although its gateway lived"));
        }
        if life.decided_at.is_some() && life.ended_at.is_none() {
            find(format!("I2: {id} is decided, and has no outcome although its successor serves"));
        }
        if kind.is_strict() && *saw == Saw::Result && (outcome != "completed" || effect != "answered" || *recovered) {
            find(format!("I2: the client has the result of {id}, and its outcome is {outcome}, {effect}"));
        }
        if *kind == Kind::Forbidden && !outcome.is_empty() && outcome != "denied" && *saw != Saw::Nothing {
            find(format!("I9: {id} is forbidden and ended {outcome}"));
        }
    } else if kind.is_strict() && *saw != Saw::Nothing && !is_turned_away(saw) {
        find(format!("I3: the client has an answer to {id}, and the trail knows nothing of it"));
    }
    if *kind == Kind::Forbidden && *saw == Saw::Result {
        find(format!("I9: {id} is forbidden and the client has a result"));
    }
    findings
}

/// Whether the client was told that nothing was recorded, or that the call was not even taken: then nothing need be.
fn is_turned_away(saw: &Saw) -> bool {
    matches!(saw, Saw::Error { code: -31_004 | -31_005, .. })
}

/// I5: what one client did one after another stands in that order, without a hole.
fn order(book: &[Entry], lives: &BTreeMap<String, Life>, findings: &mut Vec<String>) {
    let mut workflows: BTreeMap<&str, Vec<&Entry>> = BTreeMap::new();
    for entry in book {
        workflows.entry(&entry.workflow).or_default().push(entry);
    }
    for (workflow, entries) in workflows {
        let mut before: Option<(usize, &str)> = None;
        let mut hole: Option<&str> = None;
        for entry in entries {
            let life = lives.get(&entry.id).filter(|life| life.decided_at.is_some());
            let Some(life) = life else {
                let is_hole = entry.saw != Saw::Nothing && !is_turned_away(&entry.saw);
                hole = hole.or(is_hole.then_some(entry.id.as_str()));
                continue;
            };
            if let Some(hole) = hole {
                findings.push(format!("I5: {workflow}: {} is recorded and {hole} before it is not", entry.id));
            }
            if before.is_some_and(|(position, _)| life.decided_at < Some(position)) {
                findings.push(format!("I5: {workflow}: {} stands before the end of {before:?}", entry.id));
            }
            if let (Some(position), true) = (life.ended_at, entry.saw != Saw::Nothing) {
                before = Some((position, &entry.id));
            }
        }
    }
}
