//! Model calls beside the calls of tools: which of them chose a call, and from which offer.
//!
//! Nobody tells that outright: a model names a tool, and later a call of that tool comes through Cairn. They are joined where both are of one
//! tenant and one trace and the name fits; where a tool was chosen several times, a call belongs to the newest choice that was made before it
//! and led to no other call. What several reports tell of one span is put together. Called by `path`, which shows it.

use std::collections::{BTreeMap, HashSet};

use cairn_evaluate::is_named;
use serde_json::{Value, json};

use super::{Call, Signed, json_with, place, text};
use crate::read::Placed;

/// Tools of an offer that are named to people.
const NAMED_MAX: usize = 8;

/// One model call, as one or several reports tell of it.
#[derive(Debug)]
pub(super) struct Model<'e> {
    /// Its reports, in order.
    pub(super) events: Vec<&'e Placed>,
    /// The tools that it chose: each name, the model's id for the choice, and the call that came of it.
    pub(super) chosen: Vec<Choice<'e>>,
}

/// A tool that was chosen.
#[derive(Debug)]
pub(super) struct Choice<'e> {
    pub(super) name: &'e str,
    id: Option<&'e str>,
    /// The index of the call that came of it.
    pub(super) call: Option<usize>,
}

impl<'e> Model<'e> {
    fn first(&self) -> &'e Placed {
        self.events[0]
    }

    /// When it was asked, as the reports say, else when they came.
    pub(super) fn time(&self) -> &'e str {
        let asked = self.events.iter().filter_map(|placed| text(placed, "started_at")).min();
        asked.unwrap_or(&self.first().event.time)
    }

    /// The first that any report says under a key.
    fn of(&self, key: &str) -> Option<&'e Value> {
        self.events.iter().find_map(|placed| placed.event.value.get(key))
    }

    fn word(&self, key: &str) -> Option<&'e str> {
        self.of(key).and_then(Value::as_str)
    }

    /// The names of what was offered, and of how many.
    fn offer(&self) -> (Vec<&'e str>, u64) {
        let list = self.of("tools_offered").and_then(Value::as_array).into_iter().flatten();
        let names: Vec<&str> = list.filter_map(|tool| tool.get("name")?.as_str()).collect();
        let more = self.of("tools_offered_more").and_then(Value::as_u64).unwrap_or_default();
        let count = names.len() as u64 + more;
        (names, count)
    }

    /// The model, and whose.
    fn named(&self) -> String {
        let model =
            self.word("gen_ai_request_model").or_else(|| self.word("gen_ai_response_model")).unwrap_or("a model");
        self.word("gen_ai_provider_name").map_or_else(|| model.to_owned(), |whose| format!("{model} of {whose}"))
    }

    /// What it did, in a few words. `principal` is whose the workflow is: another's report says so.
    pub(super) fn words(&self, principal: &str) -> String {
        let mut words = self.named();
        let chosen: Vec<&str> = self.chosen.iter().map(|choice| choice.name).collect();
        if !chosen.is_empty() {
            words += &format!(", chose {}", chosen.join(", "));
        }
        words += &self.offered();
        let count = |key: &str| self.of(key).and_then(Value::as_u64);
        if let (Some(read), Some(written)) = (count("gen_ai_usage_input_tokens"), count("gen_ai_usage_output_tokens")) {
            words += &format!(", {read} tokens in, {written} out");
        }
        if let Some(error) = self.word("error_type") {
            words += &format!(", failed: {error}");
        }
        let by = text(self.first(), "principal").unwrap_or("nobody");
        if by != principal {
            words += &format!(", as {by} reports");
        }
        words
    }

    fn offered(&self) -> String {
        let (names, count) = self.offer();
        if count == 0 {
            return String::new();
        }
        let dots = if count > NAMED_MAX as u64 { ", …" } else { "" };
        let named: Vec<&str> = names.into_iter().take(NAMED_MAX).collect();
        format!(", offered {count}: {}{dots}", named.join(", "))
    }

    /// Who chose a call, and from what.
    pub(super) fn chose(&self) -> String {
        let span = text(self.first(), "span_id").map(|span| format!(" (span {span})")).unwrap_or_default();
        format!("{}{span}{}", self.named(), self.offered().replacen(", offered", ", from", 1))
    }

    /// The same for machines.
    pub(super) fn chose_json(&self, call: usize) -> Value {
        let choice = self.chosen.iter().find(|choice| choice.call == Some(call));
        json!({
            "span_id": text(self.first(), "span_id"),
            "model": self.of("gen_ai_request_model"),
            "provider": self.of("gen_ai_provider_name"),
            "gen_ai_tool_call_id": choice.and_then(|choice| choice.id),
            "tools_offered": self.of("tools_offered"),
            "joined_by": "trace id and tool name",
            "topic": self.first().topic, "partition": self.first().partition, "offset": self.first().offset,
        })
    }

    pub(super) fn json(&self, calls: &[Call<'_>], signed: &Signed) -> Value {
        let chosen = self.chosen.iter().map(|choice| {
            json!({
                "name": choice.name, "gen_ai_tool_call_id": choice.id,
                "call_id": choice.call.map(|index| &calls[index].id),
            })
        });
        let mut out = json!({
            "span_id": text(self.first(), "span_id"), "trace_id": text(self.first(), "trace_id"),
            "reported_by": text(self.first(), "principal"), "started_at": self.of("started_at"),
        });
        for key in [
            "gen_ai_operation_name",
            "gen_ai_provider_name",
            "gen_ai_request_model",
            "gen_ai_usage_input_tokens",
            "gen_ai_usage_output_tokens",
            "prompt",
            "output",
            "tools",
            "tools_offered",
            "error_type",
        ] {
            if let Some(value) = self.of(key) {
                out[key] = value.clone();
            }
        }
        out["tools_chosen"] = chosen.collect();
        out["events"] = self.events.iter().map(|placed| json_with(placed, signed)).collect();
        out
    }

    /// Where its first report lies.
    pub(super) fn place(&self) -> String {
        place(self.first())
    }
}

/// The model calls that these reports tell of, in the order in which they were asked, joined to the calls that they chose.
pub(super) fn joined<'e>(reports: &[&'e Placed], calls: &[Call<'e>]) -> Vec<Model<'e>> {
    let mut spans: BTreeMap<[Option<&str>; 4], Vec<&'e Placed>> = BTreeMap::new();
    for placed in reports.iter().copied() {
        let span = ["tenant", "principal", "trace_id", "span_id"].map(|key| text(placed, key));
        spans.entry(span).or_default().push(placed);
    }
    let model = |events: Vec<&'e Placed>| {
        // Reports as a span and as logs tell of the same choices, each in its way.
        let fullest = events.iter().map(|placed| choices(placed)).max_by_key(Vec::len);
        Model { chosen: fullest.unwrap_or_default(), events }
    };
    let mut models: Vec<Model<'e>> = spans.into_values().map(model).collect();
    models.sort_by(|a, b| a.time().cmp(b.time()));
    for (index, call) in calls.iter().enumerate() {
        let found = newest(&models, call, true).or_else(|| newest(&models, call, false));
        if let Some((model, choice)) = found {
            models[model].chosen[choice].call = Some(index);
        }
    }
    models
}

fn choices(placed: &Placed) -> Vec<Choice<'_>> {
    let list = placed.event.value.get("tools_chosen").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|tool| {
        let id = tool.get("gen_ai_tool_call_id").and_then(Value::as_str);
        Some(Choice { name: tool.get("name")?.as_str()?, id, call: None })
    })
    .collect()
}

/// The choice that a call came of: the newest before it, or where clocks disagree the oldest of all that led to no call yet.
fn newest(models: &[Model<'_>], call: &Call<'_>, before: bool) -> Option<(usize, usize)> {
    let first = call.events[0];
    let (server, tool) = (text(first, "server")?, tool_of(call)?);
    let fits = |model: &Model<'_>| {
        let same = |key: &str| text(model.first(), key) == text(first, key);
        same("trace_id") && same("tenant") && (!before || model.time() <= first.event.time.as_str())
    };
    let open = |model: &Model<'_>| {
        model.chosen.iter().position(|choice| choice.call.is_none() && is_named(choice.name, server, tool))
    };
    let mut found =
        models.iter().enumerate().filter(|(_, model)| fits(model)).filter_map(|(at, model)| Some((at, open(model)?)));
    if before { found.next_back() } else { found.next() }
}

/// The tool that a call is of.
fn tool_of<'e>(call: &Call<'e>) -> Option<&'e str> {
    if text(call.events[0], "mcp_method_name") != Some("tools/call") {
        return None;
    }
    call.events.iter().find_map(|placed| text(placed, "gen_ai_tool_name"))
}

/// The trace ids of calls.
pub(crate) fn traces(events: &[Placed]) -> HashSet<(Option<&str>, &str)> {
    let calls = events.iter().filter(|placed| placed.event.type_name.starts_with("call."));
    calls.filter_map(|placed| Some((text(placed, "tenant"), text(placed, "trace_id")?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::{Path, tests::placed};

    fn model(id: u32, span: &str, asked: &str, chose: &[&str]) -> Placed {
        let chosen: Vec<Value> =
            chose.iter().map(|name| json!({ "name": name, "gen_ai_tool_call_id": "c1" })).collect();
        let mut placed = placed(
            id,
            "model.called",
            0,
            &json!({ "trace_id": "4b", "span_id": span, "started_at": asked, "gen_ai_request_model": "gpt", "reported_as": "span",
                     "tools_offered": [{ "name": "get" }, { "name": "refund" }], "tools_chosen": chosen }),
        );
        placed.event.value.as_object_mut().expect("an object").remove("call_id");
        placed
    }

    fn call(id: u32, call: u32, tool: &str) -> Placed {
        let mut placed = placed(
            id,
            "call.intent",
            call,
            &json!({ "trace_id": "4b", "mcp_method_name": "tools/call", "gen_ai_tool_name": tool }),
        );
        placed.event.time = format!("2026-11-24T09:00:{id:02}.000000Z");
        placed
    }

    fn at(second: u32) -> String {
        format!("2026-11-24T09:00:{second:02}.000000Z")
    }

    fn chosen(events: &[Placed]) -> Vec<Vec<Option<usize>>> {
        let path = Path::of(events);
        path.models.iter().map(|model| model.chosen.iter().map(|choice| choice.call).collect()).collect()
    }

    #[test]
    fn a_call_belongs_to_the_newest_choice_before_it() {
        let events = [
            model(1, "a1", &at(1), &["get", "get"]),
            call(2, 21, "get"),
            call(3, 22, "get"),
            model(4, "a2", &at(4), &["refund"]),
            // Chosen, and never called.
            model(5, "a3", &at(5), &["s_get"]),
            model(6, "a4", &at(6), &["mcp__s__get"]),
            call(7, 23, "get"),
        ];
        assert_eq!(chosen(&events), [vec![Some(0), Some(1)], vec![None], vec![None], vec![Some(2)]]);
    }

    #[test]
    fn nothing_is_joined_across_traces_tenants_or_names() {
        let mut elsewhere = model(1, "a1", &at(1), &["get"]);
        elsewhere.event.value["trace_id"] = json!("other");
        assert_eq!(chosen(&[elsewhere, call(2, 21, "get")]), [[None]]);
        let mut anothers = model(1, "a1", &at(1), &["get"]);
        anothers.event.value["tenant"] = json!("globex");
        assert_eq!(chosen(&[anothers, call(2, 21, "get")]), [[None]]);
        assert_eq!(chosen(&[model(1, "a1", &at(1), &["forget"]), call(2, 21, "get")]), [[None]]);
        for (said, fits) in
            [("get", true), ("s_get", true), ("s.get", true), ("t_get", false), ("target", false), ("_get", false)]
        {
            assert_eq!(is_named(said, "s", "get"), fits, "{said}");
        }
    }

    #[test]
    fn reports_of_one_span_are_one_model_call_and_a_report_that_lies_twice_counts_once() {
        let mut logs = model(2, "a1", &at(1), &["get"]);
        logs.event.value["reported_as"] = json!("logs");
        let mut again = model(1, "a1", &at(1), &[]);
        again.offset = 77;
        let events = [model(1, "a1", &at(1), &[]), again, logs, call(3, 21, "get")];
        let path = Path::of(&events);
        assert_eq!((path.models.len(), path.models[0].events.len()), (1, 2));
        assert_eq!(path.models[0].chosen[0].call, Some(0));
        assert_eq!(path.models[0].words("ada"), "gpt, chose get, offered 2: get, refund");
        assert!(path.models[0].words("ben").ends_with(", as ada reports"));
    }

    #[test]
    fn where_clocks_disagree_the_trace_is_enough() {
        assert_eq!(chosen(&[model(1, "a1", &at(59), &["get"]), call(2, 21, "get")]), [[Some(0)]]);
    }
}
