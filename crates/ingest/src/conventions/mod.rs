//! What a span says of a model call, by whichever convention it was written.
//!
//! Understood are the conventions of OpenTelemetry for generative AI, those in force and those before them (messages as attributes, as
//! span events, as log records), what OpenLLMetry wrote as numbered attributes, and OpenInference. Called by [`record`](crate::record);
//! must never decide what of it may be kept.

mod attributes;
mod messages;
mod tools;

use serde_json::Value;

use self::attributes::{number, numbered, text, texts};
use crate::otlp::{Attributes, Event, LogRecord, Source, Span};

/// Operations that ask a model for an answer; others (embeddings, tools, agents) choose nothing.
const ASKS: [&str; 6] = ["chat", "text_completion", "generate_content", "completion", "responses", "message"];
/// What OpenLLMetry calls them.
const ASKS_BEFORE: [&str; 2] = ["chat", "completion"];
/// The event that holds what a span may hold too.
const DETAILS: &str = "gen_ai.client.inference.operation.details";
/// Who asks, as it calls itself.
const AGENT: [&str; 3] = ["gen_ai.agent.name", "llm.agent.name", "agent.name"];

/// A model call, as it was reported.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Report {
    pub(crate) is_of_logs: bool,
    pub(crate) trace_id: String,
    pub(crate) span_id: String,
    pub(crate) parent_span_id: Option<String>,
    /// Microseconds since 1970; 0 where nobody says.
    pub(crate) started_us: u64,
    pub(crate) elapsed_us: Option<u64>,
    pub(crate) operation: Option<String>,
    pub(crate) provider: Option<String>,
    pub(crate) request_model: Option<String>,
    pub(crate) response_model: Option<String>,
    pub(crate) response_id: Option<String>,
    pub(crate) finish_reasons: Vec<String>,
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
    pub(crate) conversation_id: Option<String>,
    pub(crate) agent_name: Option<String>,
    /// The workflow that the sender names.
    pub(crate) workflow: Option<String>,
    pub(crate) error_type: Option<String>,
    pub(crate) instrumentation: String,
    /// JSON: an object with `messages`, and `system_instructions` where they are apart.
    pub(crate) prompt: Option<Vec<u8>>,
    /// JSON: an object with `messages`.
    pub(crate) output: Option<Vec<u8>>,
    /// JSON: the definitions of the tools that were offered, as they came.
    pub(crate) definitions: Option<Vec<u8>>,
    pub(crate) offered: Vec<Offered>,
    pub(crate) offered_more: u64,
    pub(crate) chosen: Vec<Chosen>,
}

/// A tool that the model could choose.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Offered {
    pub(crate) name: String,
    /// Its name, description and input schema; nothing where only the name is told.
    pub(crate) definition: Option<Value>,
}

/// A tool that the model chose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chosen {
    pub(crate) name: String,
    pub(crate) id: Option<String>,
}

/// The report that a span is; nothing where it is of no model call.
pub(crate) fn of_span(source: &Source, span: &Span) -> Option<Report> {
    if !is_model_call(&span.attributes) {
        return None;
    }
    let mut report = Report {
        trace_id: hex::encode(span.trace_id),
        span_id: hex::encode(span.span_id),
        parent_span_id: span.parent_span_id.map(hex::encode),
        started_us: span.start_ns / 1_000,
        elapsed_us: span.end_ns.checked_sub(span.start_ns).filter(|_| span.end_ns > 0).map(|ns| ns / 1_000),
        ..Report::default()
    };
    report.take(source, &span.attributes);
    if report.error_type.is_none() {
        report.error_type.clone_from(&span.error);
    }
    let mut told = messages::Told::of_attributes(&span.attributes);
    for event in &span.events {
        if event.name == DETAILS {
            report.take(source, &event.attributes);
            told.also(messages::Told::of_attributes(&event.attributes));
        } else {
            told.event(event);
        }
    }
    report.tell(told);
    let offered = span.events.iter().filter(|event| event.name == DETAILS).map(|event| &event.attributes);
    report.offer(std::iter::once(&span.attributes).chain(offered));
    Some(report)
}

/// The report that the log records of one span are; nothing where they are of no model call. They are of one source and one span.
pub(crate) fn of_logs(source: &Source, records: &[LogRecord]) -> Option<Report> {
    let first = records.first()?;
    let mut told = messages::Told::default();
    let mut report = Report {
        is_of_logs: true,
        trace_id: hex::encode(first.trace_id),
        span_id: hex::encode(first.span_id),
        started_us: records.iter().map(|record| record.time_ns).min().unwrap_or_default() / 1_000,
        ..Report::default()
    };
    let mut details = Vec::new();
    for LogRecord { event, .. } in records {
        if named(event) == DETAILS {
            report.take(source, &event.attributes);
            told.also(messages::Told::of_attributes(&event.attributes));
            details.push(&event.attributes);
        } else if told.event(event) {
            report.take(source, &event.attributes);
        }
    }
    if told.is_empty() && details.is_empty() {
        return None;
    }
    report.tell(told);
    report.offer(details.into_iter());
    Some(report)
}

/// Whether a log record is of a model call.
pub(crate) fn is_of_model_call(record: &LogRecord) -> bool {
    let name = named(&record.event);
    name == DETAILS || messages::is_message(name)
}

/// An event's name: the field's, or the attribute's where it came before there was a field.
fn named(event: &Event) -> &str {
    match event.attributes.get("event.name").and_then(Value::as_str) {
        Some(name) if event.name.is_empty() => name,
        _ => &event.name,
    }
}

fn is_model_call(attributes: &Attributes) -> bool {
    if let Some(kind) = text(attributes, &["openinference.span.kind"]) {
        return kind.eq_ignore_ascii_case("LLM");
    }
    if let Some(operation) = text(attributes, &["gen_ai.operation.name"]) {
        return ASKS.contains(&operation.as_str());
    }
    if let Some(kind) = text(attributes, &["llm.request.type"]) {
        return ASKS_BEFORE.contains(&kind.as_str());
    }
    let names = ["gen_ai.request.model", "gen_ai.response.model", "llm.request.model"];
    text(attributes, &names).is_some()
}

impl Report {
    /// Takes what attributes say, where nothing has said it before.
    fn take(&mut self, source: &Source, attributes: &Attributes) {
        let fill = |known: &mut Option<String>, names: &[&str]| {
            if known.is_none() {
                *known = text(attributes, names);
            }
        };
        fill(&mut self.operation, &["gen_ai.operation.name", "llm.request.type"]);
        fill(
            &mut self.provider,
            &["gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system", "llm.vendor"],
        );
        fill(&mut self.request_model, &["gen_ai.request.model", "llm.request.model", "llm.model_name"]);
        fill(&mut self.response_model, &["gen_ai.response.model", "llm.response.model"]);
        fill(&mut self.response_id, &["gen_ai.response.id"]);
        fill(&mut self.conversation_id, &["gen_ai.conversation.id", "session.id"]);
        fill(&mut self.agent_name, &AGENT);
        fill(&mut self.workflow, &["cairn.workflow"]);
        fill(&mut self.error_type, &["error.type"]);
        let count = |known: &mut Option<u64>, names: &[&str]| {
            if known.is_none() {
                *known = number(attributes, names);
            }
        };
        let read = [
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.prompt_tokens",
            "llm.usage.prompt_tokens",
            "llm.token_count.prompt",
        ];
        let written = [
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.completion_tokens",
            "llm.usage.completion_tokens",
            "llm.token_count.completion",
        ];
        count(&mut self.input_tokens, &read);
        count(&mut self.output_tokens, &written);
        if self.finish_reasons.is_empty() {
            self.finish_reasons = texts(attributes, "gen_ai.response.finish_reasons");
        }
        if self.agent_name.is_none() {
            self.agent_name =
                text(&source.resource, &["service.name"]).filter(|name| !name.starts_with("unknown_service"));
        }
        if self.instrumentation.is_empty() {
            self.instrumentation = format!("{} {}", source.scope, source.scope_version).trim().to_owned();
        }
    }

    fn tell(&mut self, told: messages::Told) {
        self.chosen = told.chosen();
        if self.finish_reasons.is_empty() {
            self.finish_reasons = told.finish_reasons();
        }
        self.prompt = told.prompt();
        self.output = told.output();
    }

    /// Takes the offer of the first that has one.
    fn offer<'a>(&mut self, mut all: impl Iterator<Item = &'a Attributes>) {
        if let Some(offer) = all.find_map(tools::Offer::of) {
            (self.offered, self.offered_more) = (offer.tools, offer.more);
            self.definitions = Some(offer.definitions);
        }
    }
}

/// The messages under a numbered prefix, as one list.
fn listed(attributes: &Attributes, prefix: &str) -> Option<Value> {
    Some(numbered(attributes, prefix)).filter(|value| value.as_array().is_some_and(|list| !list.is_empty()))
}

#[cfg(test)]
mod tests;
