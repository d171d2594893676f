//! What becomes of events that are no call's beginning or end: a span of their own, most often below a call's.
//!
//! Late answers, the ends of tasks, notifications, actions downstream, limits that were reached, and model calls where these are wanted.

use cairn_clock::Timestamp;

use super::{
    attributes::{COMMON, Include, OTHERS},
    calls::Told,
    span::{Kind, Span, SpanId, TraceId, bytes_of, derived, span_of, trace_of},
};

/// Whether events of that type may become a span of their own.
pub(super) fn is_told(type_name: &str) -> bool {
    OTHERS.iter().any(|(name, _)| *name == type_name)
}

/// The span of an event. `call` is where the span of its call is, as far as that is known.
pub(super) fn of(told: &Told, call: Option<(TraceId, SpanId)>, include: &Include) -> Option<Span> {
    let (name, own) = OTHERS.iter().find(|(name, _)| *name == told.type_name)?;
    if *name == "call.answered" && told.data["written"] != false {
        return None;
    }
    // What stands for many callers belongs to nobody's trace.
    told.text("trace_id").or_else(|| told.text("workflow_id"))?;
    let attributes = include.of(&told.data, &[COMMON, own]);
    let (trace_id, named) = (trace_of(&told.data), span_of(&told.data));
    if *name == "model.called" {
        return Some(model(told, (trace_id, named?), attributes));
    }
    let id = derived("event", &[&told.id.hyphenated().to_string()]);
    let (trace_id, span_id, parent) = match (call, told.text("call_id")) {
        (Some((trace_id, call)), _) => (trace_id, id, Some(call)),
        // Refused when it came, the call has left nothing else.
        (None, _) if *name == "limit.exceeded" => (trace_id, id, None),
        (None, Some(_)) => (trace_id, id, named),
        // A notification that belongs to no call has a span of its own.
        (None, None) => (trace_id, named.unwrap_or(id), None),
    };
    let method = || told.text("mcp_method_name").unwrap_or("notification");
    let called = match *name {
        "notice.passed" => method(),
        "action.reported" => "cairn.action",
        "limit.exceeded" => "cairn.limit",
        "call.answered" => "cairn.unanswered",
        "call.late" => "cairn.late",
        _ => "cairn.settled",
    };
    let mut span = Span::moment((trace_id, span_id, parent), called, told.at_us, attributes);
    span.is_error = matches!(*name, "call.answered" | "limit.exceeded")
        || (*name == "call.settled" && told.text("state") == Some("failed"));
    Some(span)
}

/// A model call as its agent reported it, under the ids that it has there.
fn model(told: &Told, (trace_id, span_id): (TraceId, SpanId), attributes: super::span::Attributes) -> Span {
    let started = told.text("started_at").and_then(|time| time.parse::<Timestamp>().ok());
    let start_us = started.map_or(told.at_us, Timestamp::as_micros);
    let parent = told.text("parent_span_id").and_then(bytes_of);
    let words =
        [told.text("gen_ai_operation_name").unwrap_or("chat"), told.text("gen_ai_request_model").unwrap_or_default()];
    let mut span = Span::moment((trace_id, span_id, parent), words.join(" ").trim_end(), start_us, attributes);
    span.kind = Kind::Client;
    span.end_us = start_us.saturating_add(told.data["elapsed_us"].as_u64().unwrap_or_default());
    span.is_error = told.text("error_type").is_some();
    span
}
