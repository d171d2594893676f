//! What becomes of a call's events: one span, and one below it for each approval that it waited for.
//!
//! It begins with the decision and ends with the outcome. Its ids are those that the call's events name, so that what a server does for the
//! call under the `traceparent` that it was given lies below it. Pure: the sink gathers the events.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use uuid::Uuid;

use super::{
    attributes::{APPROVAL, COMMON, DECISION, INTENT, Include, OUTCOME, Table},
    span::{Attributes, Happened, Kind, Link, Span, SpanId, TraceId, Value, bytes_of, derived, span_of, trace_of},
};

/// Things that happened within one call that are told.
const HAPPENED_MAX: usize = 64;

/// One event of a call.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Told {
    pub(super) id: Uuid,
    pub(super) type_name: String,
    pub(super) at_us: u64,
    pub(super) data: Json,
}

impl Told {
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.data[key].as_str()
    }
}

/// The events of one call, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'c>(pub(super) &'c [Told]);

impl<'c> Call<'c> {
    fn all(self, type_name: &'static str) -> impl DoubleEndedIterator<Item = &'c Told> {
        self.0.iter().filter(move |told| told.type_name == type_name)
    }

    /// The decision that counts.
    pub(super) fn decision(self) -> Option<&'c Told> {
        self.all("call.decision").next_back()
    }

    fn intent(self) -> Option<&'c Told> {
        self.all("call.intent").next_back()
    }

    /// The first outcome counts.
    pub(super) fn outcome(self) -> Option<&'c Told> {
        self.all("call.outcome").next()
    }

    /// A key of whichever of its events has it, the last one first.
    pub(super) fn text(self, key: &str) -> Option<&'c str> {
        self.0.iter().rev().find_map(|told| told.text(key))
    }

    /// The call that it repeats.
    pub(super) fn repeats(self) -> Option<&'c str> {
        self.intent()?.text("repeats")
    }

    /// Where its span is.
    pub(super) fn ids(self) -> Option<(TraceId, SpanId)> {
        let first = self.0.first()?;
        let own = || derived("call", &[first.text("call_id").unwrap_or_default()]);
        Some((trace_of(&first.data), span_of(&first.data).unwrap_or_else(own)))
    }

    /// How long it took, in microseconds; nothing while it is open.
    pub(super) fn elapsed_us(self) -> Option<u64> {
        let outcome = self.outcome()?;
        let lasted = || outcome.at_us.saturating_sub(self.0.first().map_or(outcome.at_us, |first| first.at_us));
        Some(outcome.data["elapsed_us"].as_u64().unwrap_or_else(lasted))
    }

    /// Its spans. One without an outcome is shown as open, up to its last event.
    pub(super) fn spans(self, include: &Include, links: Vec<Link>) -> Vec<Span> {
        let (Some(first), Some(last), Some((trace_id, span_id))) = (self.0.first(), self.0.last(), self.ids()) else {
            return Vec::new();
        };
        let outcome = self.outcome();
        let ended = outcome.unwrap_or(last);
        // Without its decision it began when the outcome says.
        let start_us = match self.decision() {
            Some(_) => first.at_us,
            None => first.at_us.min(ended.at_us.saturating_sub(ended.data["elapsed_us"].as_u64().unwrap_or_default())),
        };
        let method = self.text("mcp_method_name").unwrap_or("call");
        let target = self.text("gen_ai_tool_name").or_else(|| self.text("prompt_name"));
        let parent = self.all("call.decision").find_map(|told| told.text("parent_span_id")).and_then(bytes_of);
        let is_back = self.text("direction") == Some("to_client");
        let call = Span {
            trace_id,
            span_id,
            parent,
            name: target.map_or_else(|| method.to_owned(), |target| format!("{method} {target}")),
            kind: if is_back { Kind::Client } else { Kind::Server },
            start_us,
            end_us: ended.at_us.max(start_us),
            attributes: self.attributes(include, method),
            events: self.happened(include),
            links,
            is_error: outcome.is_some_and(is_error),
        };
        let approvals = self.approvals(include, (trace_id, span_id));
        std::iter::once(call).chain(approvals).collect()
    }

    fn attributes(self, include: &Include, method: &str) -> Attributes {
        let mut all = Attributes::new();
        let mut add = |found: Attributes| {
            for (name, value) in found {
                match all.iter_mut().find(|(known, _)| *known == name) {
                    Some(known) => known.1 = value,
                    None => all.push((name, value)),
                }
            }
        };
        let parts: [(Option<&Told>, Table); 3] =
            [(self.decision(), DECISION), (self.intent(), INTENT), (self.outcome(), OUTCOME)];
        for (told, own) in parts {
            add(told.map(|told| include.of(&told.data, &[COMMON, own])).unwrap_or_default());
        }
        if parts.iter().all(|(told, _)| told.is_none()) {
            add(self.0.last().map(|told| include.of(&told.data, &[COMMON])).unwrap_or_default());
        }
        if method == "tools/call" {
            add(vec![("gen_ai.operation.name", Value::text("execute_tool"))]);
        }
        if let Some(gateway) = self.0.first().and_then(|told| told.data["producer"]["id"].as_str()) {
            add(vec![("cairn.gateway", Value::text(gateway))]);
        }
        if self.outcome().is_none() {
            add(vec![("cairn.open", Value::Flag(true))]);
        } else if self.decision().is_none() {
            // Its beginning is not in the trail any more, or went out as open.
            add(vec![("cairn.partial", Value::Flag(true))]);
        }
        if let Some(outcome) = self.outcome().filter(|told| is_error(told) && told.text("error_type").is_none()) {
            add(vec![("error.type", Value::text(outcome.text("outcome").unwrap_or("_OTHER")))]);
        }
        all
    }

    /// Decisions, what was recorded before it was forwarded, and how approvals went.
    fn happened(self, include: &Include) -> Vec<Happened> {
        let told = |told: &Told| {
            let (name, own): (_, Table) = match told.type_name.as_str() {
                "call.decision" if told.text("decision") == Some("deny") => ("cairn.refused", DECISION),
                "call.decision" => ("cairn.decided", DECISION),
                "call.approval" => ("cairn.approval", APPROVAL),
                "call.intent" => ("cairn.forwarded", INTENT),
                _ => return None,
            };
            Some(Happened { name, at_us: told.at_us, attributes: include.of(&told.data, &[own]) })
        };
        self.0.iter().filter_map(told).take(HAPPENED_MAX).collect()
    }

    /// From the request until somebody has said, or time has.
    fn approvals(self, include: &Include, (trace_id, call): (TraceId, SpanId)) -> Vec<Span> {
        let mut by_id: BTreeMap<&str, Vec<&Told>> = BTreeMap::new();
        for told in self.all("call.approval") {
            by_id.entry(told.text("approval_id").unwrap_or_default()).or_default().push(told);
        }
        let of = |(id, told): (&str, Vec<&Told>)| {
            let (first, last) = (told.first()?, told.last()?);
            let id = derived("approval", &[first.text("call_id").unwrap_or_default(), id]);
            let attributes = include.of(&last.data, &[APPROVAL]);
            let mut span = Span::moment((trace_id, id, Some(call)), "cairn.approval", first.at_us, attributes);
            span.end_us = last.at_us.max(first.at_us);
            span.is_error = matches!(last.text("state"), Some("denied" | "expired"));
            Some(span)
        };
        by_id.into_iter().filter_map(of).take(HAPPENED_MAX).collect()
    }
}

/// Whether whoever called got nothing of what was asked for.
fn is_error(outcome: &Told) -> bool {
    matches!(outcome.text("outcome"), Some("failed" | "denied" | "timed_out" | "in_doubt"))
        || outcome.data["is_error"] == true
}
