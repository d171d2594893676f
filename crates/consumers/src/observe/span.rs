//! A span as it is sent, and the ids that it has.
//!
//! Ids are the events' own where they have some, else digests of what they stand for: whoever sends a span again, sends the same span.
//! Called by whatever makes spans of events.

use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

/// Longest text of an attribute, in characters.
const TEXT_CHARS_MAX: usize = 1_024;
/// Most texts in one attribute.
const TEXTS_MAX: usize = 64;

/// The id of a trace.
pub(super) type TraceId = [u8; 16];
/// The id of a span.
pub(super) type SpanId = [u8; 8];

/// What an attribute holds.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    Text(String),
    Texts(Vec<String>),
    Number(i64),
    Flag(bool),
}

impl Value {
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.chars().take(TEXT_CHARS_MAX).collect())
    }
}

/// Attributes by name.
pub(super) type Attributes = Vec<(&'static str, Value)>;

/// OTLP's span kinds, as far as they occur.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// Something that happened within a span.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Happened {
    pub(super) name: &'static str,
    pub(super) at_us: u64,
    pub(super) attributes: Attributes,
}

/// Another span that one has to do with.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Link {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    /// How they belong together.
    pub(super) by: String,
}

/// A span.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Span {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
    pub(super) parent: Option<SpanId>,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) start_us: u64,
    pub(super) end_us: u64,
    pub(super) attributes: Attributes,
    pub(super) events: Vec<Happened>,
    pub(super) links: Vec<Link>,
    pub(super) is_error: bool,
}

impl Span {
    /// What happened at once, below another span.
    pub(super) fn moment(
        of: (TraceId, SpanId, Option<SpanId>),
        name: &str,
        at_us: u64,
        attributes: Attributes,
    ) -> Self {
        let (trace_id, span_id, parent) = of;
        Self {
            trace_id,
            span_id,
            parent,
            name: name.to_owned(),
            kind: Kind::Internal,
            start_us: at_us,
            end_us: at_us,
            attributes,
            events: Vec::new(),
            links: Vec::new(),
            is_error: false,
        }
    }
}

/// The trace that an event's data belongs to: the one that it names, else that of its workflow.
pub(super) fn trace_of(data: &Json) -> TraceId {
    let named = data["trace_id"].as_str().and_then(bytes_of::<16>);
    named.unwrap_or_else(|| {
        let of = |key: &str| data[key].as_str().unwrap_or_default();
        derived("trace", &[of("tenant"), of("principal"), of("workflow_id")])
    })
}

/// The span that an event's data belongs to, where it names one.
pub(super) fn span_of(data: &Json) -> Option<SpanId> {
    data["span_id"].as_str().and_then(bytes_of::<8>)
}

/// Hexadecimal digits that are no id of zeros.
pub(super) fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != N * 2 || !text.is_ascii() {
        return None;
    }
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    (bytes != [0; N]).then_some(bytes)
}

/// As they stand in events.
pub(super) fn text_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An id that follows from these parts.
pub(super) fn derived<const N: usize>(what: &str, parts: &[&str]) -> [u8; N] {
    let mut hash = Sha256::new();
    for part in std::iter::once(&what).chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut id = [0; N];
    id.copy_from_slice(&hash.finalize()[..N]);
    // Never all zeros, which the specification forbids.
    id[0] |= 1;
    id
}

/// What stands in an event under a key, as an attribute; nothing where it has another form.
pub(super) fn held(found: &Json) -> Option<Value> {
    match found {
        Json::String(text) => Some(Value::text(text)),
        Json::Bool(flag) => Some(Value::Flag(*flag)),
        Json::Number(number) => number.as_i64().map(Value::Number),
        Json::Array(all) => {
            let texts: Option<Vec<String>> = all
                .iter()
                .take(TEXTS_MAX)
                .map(|one| one.as_str().map(|text| text.chars().take(TEXT_CHARS_MAX).collect()))
                .collect();
            texts.filter(|texts| !texts.is_empty()).map(Value::Texts)
        }
        Json::Null | Json::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ids_are_the_events_own_else_they_follow_from_what_they_stand_for() {
        let data = json!({ "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736", "span_id": "00f067aa0ba902b7" });
        assert_eq!(text_of(&trace_of(&data)), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(span_of(&data).map(|id| text_of(&id)).as_deref(), Some("00f067aa0ba902b7"));
        let of = |principal: &str| trace_of(&json!({ "workflow_id": "w", "principal": principal }));
        assert_eq!(of("ann"), of("ann"), "a workflow is one trace");
        assert_ne!(of("ann"), of("ben"), "of the same name, and of somebody else");
        for bad in ["", "xyz", "00000000000000000000000000000000", "4bf92f3577b34da6a3ce929d0e0e473é"] {
            assert_eq!(trace_of(&json!({ "trace_id": bad })), trace_of(&json!({})), "{bad}");
        }
    }

    #[test]
    fn an_attribute_is_short_and_holds_no_object() {
        assert_eq!(held(&json!("ä".repeat(2_000))), Some(Value::Text("ä".repeat(TEXT_CHARS_MAX))));
        assert_eq!(held(&json!({ "digest": "x" })), None);
        assert_eq!(held(&json!(["a", "b"])), Some(Value::Texts(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!((held(&json!([])), held(&json!([1])), held(&json!(null))), (None, None, None));
    }
}
