//! What must hold of a trail, as named pure predicates (DESIGN's invariants, as far as events alone can show them).
//!
//! Tests hold the gateway to them, `cairn trail` shows what they find. Each takes a workflow's or a call's events in the
//! order in which their partition holds them, and gives `Ok` or the first [`Finding`]. They must never look at anything
//! but the events: no clock, no configuration, no store.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;
use uuid::Uuid;

use crate::{Durability, EventType, StoredEvent};

/// A place where an invariant does not hold.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{invariant}: {what} (event {event})")]
pub struct Finding {
    /// Which one.
    pub invariant: Invariant,
    /// The event where it shows.
    pub event: Uuid,
    /// What is wrong.
    pub what: String,
}

/// The invariants that a trail can show.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invariant {
    /// I1: a call has at most one intent.
    ForwardedAtMostOnce,
    /// I2: a decided call has exactly one outcome.
    ExactlyOneOutcome,
    /// I2, I5: decision, intent and outcome come in that order.
    OrderedLife,
    /// I2, I9: a call that ended `denied` has no intent, and effect `none`.
    DeniedHasNoIntent,
    /// I2: an outcome's effect agrees with whether there was an intent.
    EffectAgrees,
    /// I5: the hybrid clock of one producer rises within a partition.
    ClockRises,
    /// I8: each event names the one before it.
    ChainUnbroken,
}

impl Invariant {
    /// The name of the predicate.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ForwardedAtMostOnce => "forwarded_at_most_once",
            Self::ExactlyOneOutcome => "exactly_one_outcome",
            Self::OrderedLife => "decision_before_intent_before_outcome",
            Self::DeniedHasNoIntent => "denied_has_no_intent",
            Self::EffectAgrees => "effect_agrees_with_intent",
            Self::ClockRises => "clock_rises",
            Self::ChainUnbroken => "chain_unbroken",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Every predicate over one partition's `mcp.calls` events; every finding, one for each predicate at most.
/// `open` are calls that may still be without an outcome, because they are under way.
#[must_use]
pub fn check_calls(events: &[StoredEvent], open: &BTreeSet<Uuid>) -> Vec<Finding> {
    [
        forwarded_at_most_once(events),
        exactly_one_outcome(events, open),
        decision_before_intent_before_outcome(events),
        denied_has_no_intent(events),
        effect_agrees_with_intent(events),
        clock_rises(events),
        chain_unbroken(events, Start::Anywhere),
    ]
    .into_iter()
    .filter_map(Result::err)
    .collect()
}

/// I1: no call has two intents.
///
/// # Errors
/// The second intent of a call.
pub fn forwarded_at_most_once(events: &[StoredEvent]) -> Result<(), Finding> {
    let mut seen = BTreeSet::new();
    for (call, event) in of_type(events, EventType::CallIntent) {
        if !seen.insert(call) {
            return found(Invariant::ForwardedAtMostOnce, event, format!("call {call} has a second intent"));
        }
    }
    Ok(())
}

/// I2: every decided call, except those in `open`, has an outcome, and no call has two.
///
/// # Errors
/// The second outcome of a call, or the first decision of a call that has none.
pub fn exactly_one_outcome(events: &[StoredEvent], open: &BTreeSet<Uuid>) -> Result<(), Finding> {
    let mut ended = BTreeSet::new();
    for (call, event) in of_type(events, EventType::CallOutcome) {
        if !ended.insert(call) {
            return found(Invariant::ExactlyOneOutcome, event, format!("call {call} has a second outcome"));
        }
    }
    for (call, event) in of_type(events, EventType::CallDecision) {
        if !ended.contains(&call) && !open.contains(&call) {
            return found(Invariant::ExactlyOneOutcome, event, format!("call {call} is decided and has no outcome"));
        }
    }
    Ok(())
}

/// I2, I5: an intent comes after a decision of its call, an outcome after a decision and after the intent if there is
/// one, and nothing but `call.answered`, `call.late`, `call.settled` and how an approval ended comes after the outcome.
///
/// # Errors
/// The first event out of order.
pub fn decision_before_intent_before_outcome(events: &[StoredEvent]) -> Result<(), Finding> {
    let mut lives: BTreeMap<Uuid, Life> = BTreeMap::new();
    for event in events {
        let (Some(call), Some(event_type)) = (event.common.call_id, event.event_type()) else { continue };
        let life = lives.entry(call).or_default();
        let out_of_order = |what: &str| found(Invariant::OrderedLife, event, format!("call {call} has {what}"));
        match event_type {
            EventType::CallDecision if life.ended => return out_of_order("a decision after its outcome"),
            EventType::CallDecision if life.intended => return out_of_order("a decision after its intent"),
            EventType::CallDecision => life.decided = true,
            // People may answer after the call that asked has ended: another one goes on then.
            EventType::CallApproval if life.ended && text(event, "state") == "requested" => {
                return out_of_order("a request for approval after its outcome");
            }
            EventType::CallApproval if life.intended && !life.ended => {
                return out_of_order("an approval after its intent");
            }
            EventType::CallApproval if !life.decided => return out_of_order("an approval without a decision before"),
            EventType::CallIntent if life.ended => return out_of_order("an intent after its outcome"),
            EventType::CallIntent if !life.decided => return out_of_order("an intent without a decision before"),
            EventType::CallIntent => life.intended = true,
            EventType::CallOutcome if !life.decided => return out_of_order("an outcome without a decision before"),
            EventType::CallOutcome => life.ended = true,
            EventType::CallAnswered | EventType::CallLate | EventType::CallSettled if !life.ended => {
                return out_of_order("what follows an outcome before its outcome");
            }
            _ => {}
        }
    }
    Ok(())
}

#[derive(Default)]
struct Life {
    decided: bool,
    intended: bool,
    ended: bool,
}

/// I2, I9: a call whose outcome is `denied` has no intent and effect `none`, and a call whose last decision is `deny`
/// ends `denied`.
///
/// # Errors
/// The first event that says otherwise.
pub fn denied_has_no_intent(events: &[StoredEvent]) -> Result<(), Finding> {
    let mut denied: BTreeMap<Uuid, bool> = BTreeMap::new();
    let intended: BTreeSet<Uuid> = of_type(events, EventType::CallIntent).map(|(call, _)| call).collect();
    for (call, event) in of_type(events, EventType::CallDecision) {
        denied.insert(call, text(event, "decision") == "deny");
    }
    for (call, event) in of_type(events, EventType::CallIntent) {
        if denied.get(&call) == Some(&true) {
            return found(
                Invariant::DeniedHasNoIntent,
                event,
                format!("call {call} is denied by policy and has an intent"),
            );
        }
    }
    for (call, event) in of_type(events, EventType::CallOutcome) {
        let is_denied = text(event, "outcome") == "denied";
        if is_denied && intended.contains(&call) {
            return found(Invariant::DeniedHasNoIntent, event, format!("call {call} ended denied and has an intent"));
        }
        if is_denied && text(event, "effect") != "none" {
            return found(Invariant::DeniedHasNoIntent, event, format!("call {call} ended denied with an effect"));
        }
        if denied.get(&call) == Some(&true) && !is_denied {
            return found(Invariant::DeniedHasNoIntent, event, format!("call {call} is denied and ended otherwise"));
        }
    }
    Ok(())
}

/// I2: an outcome with effect `answered` or `unknown` has an intent before it, and one that is `in_doubt` has effect
/// `unknown`. (Effect `none` may follow an intent: the forward can fail before a byte is sent.) Nothing waits for the
/// intent of a relaxed call, so a crash may take it: its recovered outcome is `in_doubt` without one.
///
/// # Errors
/// The first outcome that disagrees.
pub fn effect_agrees_with_intent(events: &[StoredEvent]) -> Result<(), Finding> {
    let (mut intended, mut strict) = (BTreeSet::new(), BTreeSet::new());
    for event in events {
        let Some(call) = event.common.call_id else { continue };
        match event.event_type() {
            Some(EventType::CallDecision) if demands_durability(event) => {
                strict.insert(call);
            }
            Some(EventType::CallIntent) => {
                intended.insert(call);
            }
            Some(EventType::CallOutcome) => {
                let effect = text(event, "effect");
                let is_doubt = text(event, "outcome") == "in_doubt";
                let may_lack = is_doubt && is_recovered(event) && is_relaxed(event) && !strict.contains(&call);
                if effect != "none" && !intended.contains(&call) && !may_lack {
                    let what = format!("call {call} ended with effect {effect} and has no intent");
                    return found(Invariant::EffectAgrees, event, what);
                }
                if is_doubt && effect != "unknown" {
                    let what = format!("call {call} is in doubt with effect {effect}");
                    return found(Invariant::EffectAgrees, event, what);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn demands_durability(decision: &StoredEvent) -> bool {
    let obligations = decision.value.get("obligations").and_then(Value::as_array);
    obligations.is_some_and(|names| names.iter().any(|name| name == "durability"))
}

fn is_recovered(outcome: &StoredEvent) -> bool {
    outcome.value.get("recovered") == Some(&Value::Bool(true))
}

fn is_relaxed(event: &StoredEvent) -> bool {
    let method = event.common.mcp_method_name.as_deref().unwrap_or_default();
    Durability::of_method(method) == Durability::Relaxed
}

/// I5: within a partition the hybrid clock of each producer rises from event to event.
///
/// # Errors
/// The first event whose reading is not greater than its producer's last.
pub fn clock_rises(events: &[StoredEvent]) -> Result<(), Finding> {
    let mut last: BTreeMap<&str, &str> = BTreeMap::new();
    for event in events {
        match last.insert(&event.producer.id, &event.hlc) {
            Some(before) if before >= event.hlc.as_str() => {
                return found(Invariant::ClockRises, event, format!("{} comes after {before}", event.hlc));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Where the events given to [`chain_unbroken`] begin.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Start {
    /// At the partition's first record ever: each producer's chain begins at sequence 0 without a `previous`.
    Beginning,
    /// Somewhere later, because older records are past their retention.
    Anywhere,
}

/// I8: within one partition, each producer's events have sequences without a gap in each epoch, each names the link of
/// the one before, and a new epoch begins at 0 and names the last of the epoch before. Give every record of the
/// partition from the start on: a filtered list is a broken chain.
///
/// # Errors
/// The first event that does not follow.
pub fn chain_unbroken(events: &[StoredEvent], start: Start) -> Result<(), Finding> {
    let mut last: BTreeMap<&str, &StoredEvent> = BTreeMap::new();
    for event in events {
        let broken = |what: String| found(Invariant::ChainUnbroken, event, what);
        let place = &event.producer;
        let Some(before) = last.insert(&place.id, event) else {
            if start == Start::Beginning && (place.sequence != 0 || place.previous.is_some()) {
                return broken(format!("the chain of {} begins in the middle", place.id));
            }
            continue;
        };
        let next_of_epoch = place.epoch == before.producer.epoch && place.sequence == before.producer.sequence + 1;
        let new_epoch = place.epoch > before.producer.epoch && place.sequence == 0;
        if !next_of_epoch && !new_epoch {
            return broken(format!(
                "epoch {} sequence {} of {} follows epoch {} sequence {}",
                place.epoch, place.sequence, place.id, before.producer.epoch, before.producer.sequence
            ));
        }
        if place.previous.as_deref() != Some(hex::encode(before.link).as_str()) {
            return broken(format!("it does not name the event before it, {}", before.id));
        }
    }
    Ok(())
}

/// Which calls have an intent that says `strict`: those that must never end `in_doubt` once their answer was given.
#[must_use]
pub fn strict_calls(events: &[StoredEvent]) -> BTreeSet<Uuid> {
    let strict = serde_json::to_value(Durability::Strict).expect("an enum without data is a string");
    of_type(events, EventType::CallIntent)
        .filter(|(_, event)| event.value.get("durability") == Some(&strict))
        .map(|(call, _)| call)
        .collect()
}

fn of_type(events: &[StoredEvent], event_type: EventType) -> impl Iterator<Item = (Uuid, &StoredEvent)> {
    events
        .iter()
        .filter(move |event| event.event_type() == Some(event_type))
        .filter_map(|event| event.common.call_id.map(|call| (call, event)))
}

fn text<'a>(event: &'a StoredEvent, key: &str) -> &'a str {
    event.value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn found(invariant: Invariant, event: &StoredEvent, what: String) -> Result<(), Finding> {
    Err(Finding { invariant, event: event.id, what })
}

#[cfg(test)]
mod tests;
