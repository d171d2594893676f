//! Which model call chose a call, and from which offer.
//!
//! Where the sender told the call's id, that says it. Elsewhere both must be of one tenant and one trace, and the name must fit; where a tool
//! was chosen several times, a call belongs to the newest choice that was made before it and led to no other call; where clocks
//! disagree, to the oldest that led to none. What several reports tell of one span is put together.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::{
    EventOf, ModelCall, Prices,
    gather::Call,
    said::{Chosen, Said},
};

/// One model call, by who reported it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Span {
    pub(crate) tenant: Option<String>,
    pub(crate) trace: String,
    pub(crate) principal: Option<String>,
    pub(crate) span: Option<String>,
}

/// What one or several reports tell of a model call.
#[derive(Debug, Default)]
pub(crate) struct Model {
    /// Where each lies, when it came, and what it says; in order.
    pub(crate) reports: Vec<(EventOf, String, Said)>,
}

/// A choice, and whether a call came of it.
struct Choice {
    chosen: Chosen,
    is_led: bool,
}

/// A model call with its choices.
struct Asked<'m> {
    span: &'m Span,
    model: &'m Model,
    at: String,
    choices: Vec<Choice>,
}

impl Model {
    /// The first that any report says.
    fn first<T>(&self, of: impl Fn(&Said) -> Option<T>) -> Option<T> {
        self.reports.iter().find_map(|(_, _, said)| of(said))
    }

    /// When it was asked, as the reports say, else when they came.
    fn at(&self) -> String {
        let asked = self.reports.iter().filter_map(|(_, _, said)| said.started_at.as_ref()).min();
        asked.or_else(|| self.reports.first().map(|(_, time, _)| time)).cloned().unwrap_or_default()
    }

    /// Reports as a span and as logs tell of the same choices, each in its way.
    fn choices(&self) -> Vec<Choice> {
        let fullest = self.reports.iter().map(|(_, _, said)| &said.tools_chosen).rev().max_by_key(|list| list.len());
        let choice = |chosen: &Chosen| Choice { chosen: chosen.clone(), is_led: false };
        fullest.into_iter().flatten().map(choice).collect()
    }
}

/// Adds to each call the model call that chose it. Calls come in the order in which they were decided.
pub(crate) fn join(models: &mut BTreeMap<Span, Model>, calls: &mut [Call], prices: &Prices) {
    for model in models.values_mut() {
        model
            .reports
            .sort_by(|(a, ..), (b, ..)| (&a.topic, a.partition, a.offset).cmp(&(&b.topic, b.partition, b.offset)));
    }
    let asked = |(span, model)| Asked { span, model, at: Model::at(model), choices: Model::choices(model) };
    let mut all: Vec<Asked<'_>> = models.iter().map(asked).collect();
    all.sort_by(|a, b| (&a.at, a.span).cmp(&(&b.at, b.span)));
    let mut of_trace: HashMap<(Option<&str>, &str), Vec<usize>> = HashMap::new();
    let mut told: HashMap<String, (usize, usize)> = HashMap::new();
    for (index, one) in all.iter().enumerate() {
        of_trace.entry((one.span.tenant.as_deref(), one.span.trace.as_str())).or_default().push(index);
        for (choice, chosen) in one.choices.iter().enumerate() {
            if let Some(call) = &chosen.chosen.call_id {
                told.entry(call.clone()).or_insert((index, choice));
            }
        }
    }
    let found: Vec<Option<(usize, usize, bool)>> = calls
        .iter()
        .map(|call| {
            let row = &call.row;
            let near = of_trace.get(&(row.tenant.as_deref(), row.trace_id.as_str()))?;
            if let Some((model, choice)) = told.get(&row.call_id).copied().filter(|(model, _)| near.contains(model)) {
                all[model].choices[choice].is_led = true;
                return Some((model, choice, true));
            }
            let (model, choice) = newest(&all, near, call, true).or_else(|| newest(&all, near, call, false))?;
            all[model].choices[choice].is_led = true;
            Some((model, choice, false))
        })
        .collect();
    for (call, found) in calls.iter_mut().zip(found) {
        if let Some((model, choice, is_told)) = found {
            add(call, &all[model], &all[model].choices[choice].chosen, is_told, prices);
        }
    }
}

/// The newest open choice of the call's tool before it, or of all the oldest.
fn newest(all: &[Asked<'_>], near: &[usize], call: &Call, before: bool) -> Option<(usize, usize)> {
    let (row, tool) = (&call.row, call.row.tool.as_deref()?);
    let open = |index: &usize| {
        let one = &all[*index];
        let fits = |choice: &Choice| {
            // One that names its call is that call's alone.
            !choice.is_led && choice.chosen.call_id.is_none() && is_named(&choice.chosen.name, &row.server, tool)
        };
        let is_in_time = !before || one.at.as_str() <= row.time.as_str();
        is_in_time.then(|| one.choices.iter().position(fits)).flatten().map(|choice| (*index, choice))
    };
    if before { near.iter().rev().find_map(open) } else { near.iter().find_map(open) }
}

fn add(call: &mut Call, asked: &Asked<'_>, chosen: &Chosen, is_told: bool, prices: &Prices) {
    let model = asked.model;
    let text = |of: fn(&Said) -> &Option<String>| model.first(|said| of(said).clone());
    let reference = |of: fn(&Said) -> &Option<Value>| model.first(|said| of(said).clone());
    let (input_tokens, output_tokens) =
        (model.first(|said| said.gen_ai_usage_input_tokens), model.first(|said| said.gen_ai_usage_output_tokens));
    let (request_model, response_model) =
        (text(|said| &said.gen_ai_request_model), text(|said| &said.gen_ai_response_model));
    let cost = prices.cost([response_model.as_deref(), request_model.as_deref()], input_tokens, output_tokens);
    let row = &mut call.row;
    if let Some(offered) = model.first(|said| said.tools_offered.clone()) {
        row.tools_offered = Some(offered);
        row.tools_offered_more = model.first(|said| said.tools_offered_more);
        row.offered_by = Some("model".to_owned());
    }
    row.events.extend(model.reports.iter().map(|(place, ..)| place.clone()));
    row.model = Some(ModelCall {
        joined_by: if is_told { "call id" } else { "trace and name" }.to_owned(),
        span_id: asked.span.span.clone(),
        reported_by: asked.span.principal.clone(),
        provider: text(|said| &said.gen_ai_provider_name),
        request_model,
        response_model,
        prompt: reference(|said| &said.prompt),
        output: reference(|said| &said.output),
        tools: reference(|said| &said.tools),
        choice_id: chosen.gen_ai_tool_call_id.clone(),
        input_tokens,
        output_tokens,
        currency: cost.as_ref().and(prices.currency.clone()),
        cost,
        tools_chosen: asked.choices.len() as u64,
        started_at: model.first(|said| said.started_at.clone()),
        elapsed_us: model.first(|said| said.elapsed_us),
    });
}

/// Whether a model that says `said` means that tool of that server: by its name, or with the server's before it, as frameworks write it
/// (`orders_get`, `orders.get`, `mcp__orders__get`).
#[must_use]
pub fn is_named(said: &str, server: &str, tool: &str) -> bool {
    let Some(before) = said.strip_suffix(tool) else { return false };
    if before.is_empty() {
        return true;
    }
    let bare = before.trim_end_matches(['_', '-', '.', '/', ':']);
    let plain = |name: &str| name.replace(|c: char| !c.is_ascii_alphanumeric(), "_").to_ascii_lowercase();
    bare.len() < before.len() && plain(bare).ends_with(&plain(server))
}
