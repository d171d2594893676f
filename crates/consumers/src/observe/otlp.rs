//! Spans as an `ExportTraceServiceRequest`, and what a collector answers.
//!
//! Field numbers are those of opentelemetry-proto 1.9 (`trace/v1/trace.proto`, `common/v1/common.proto`, `resource/v1/resource.proto`,
//! `collector/trace/v1`). Figures are in [`otlp_metrics`](super::otlp_metrics).

use super::{
    span::{Attributes, Happened, Link, Span, Value},
    wire::{Message, Read, fields},
};

/// What OTLP calls what makes spans.
pub(super) const SCOPE: &str = "cairn.observe";
/// The status of a span that went wrong.
const STATUS_ERROR: u64 = 2;
/// Longest text of a collector's that is told further, in characters.
const SAYS_CHARS_MAX: usize = 200;

/// Who sends: the resource's attributes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resource(pub Vec<(String, String)>);

impl Resource {
    pub(super) fn message(&self) -> Message {
        let attribute = |(name, value): &(String, String)| {
            Message::default().text(1, name).within(2, &Message::default().bytes(1, value.as_bytes()))
        };
        Message::default().each(1, &self.0, attribute)
    }
}

pub(super) fn scope() -> Message {
    Message::default().text(1, SCOPE).text(2, env!("CARGO_PKG_VERSION"))
}

/// A request with these spans.
pub(super) fn traces(resource: &Resource, spans: &[Message]) -> Vec<u8> {
    let scoped = spans.iter().fold(Message::default().within(1, &scope()), |scoped, span| scoped.within(2, span));
    let within = Message::default().within(1, &resource.message()).within(2, &scoped);
    Message::default().within(1, &within).into_bytes()
}

/// A `Span`.
pub(super) fn span(span: &Span) -> Message {
    let nanos = |us: u64| us.saturating_mul(1_000);
    let mut message = Message::default().bytes(1, &span.trace_id).bytes(2, &span.span_id);
    if let Some(parent) = &span.parent {
        message = message.bytes(4, parent);
    }
    message = message.text(5, &span.name).number(6, span.kind as u64);
    message = message.fixed64(7, nanos(span.start_us)).fixed64(8, nanos(span.end_us));
    message = with_attributes(message, 9, &span.attributes);
    message = message.each(11, &span.events, |Happened { name, at_us, attributes }| {
        with_attributes(Message::default().fixed64(1, nanos(*at_us)).text(2, name), 3, attributes)
    });
    message = message.each(13, &span.links, |Link { trace_id, span_id, by }| {
        let link = Message::default().bytes(1, trace_id).bytes(2, span_id);
        link.within(4, &attribute("cairn.link", &Value::text(by)))
    });
    if span.is_error { message.within(15, &Message::default().number(3, STATUS_ERROR)) } else { message }
}

/// Adds `KeyValue`s under a field's number.
fn with_attributes(message: Message, field: u32, attributes: &Attributes) -> Message {
    message.each(field, attributes, |(name, value)| attribute(name, value))
}

pub(super) fn attribute(name: &str, value: &Value) -> Message {
    Message::default().text(1, name).within(2, &any(value))
}

/// An `AnyValue`: which form it has shows, so that none is left out.
fn any(value: &Value) -> Message {
    let message = Message::default();
    match value {
        Value::Text(text) => message.bytes(1, text.as_bytes()),
        Value::Flag(flag) => message.number_always(2, u64::from(*flag)),
        Value::Number(number) => message.number_always(3, number.cast_unsigned()),
        Value::Texts(texts) => {
            let list = Message::default().each(1, texts, |text| Message::default().bytes(1, text.as_bytes()));
            message.within(5, &list)
        }
    }
}

/// What a collector left out of a request that it took.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct LeftOut {
    pub(super) items: u64,
    pub(super) says: String,
}

/// The partial success of an `Export…ServiceResponse`; nothing where it took all.
pub(super) fn left_out(body: &[u8]) -> Option<LeftOut> {
    let (_, Read::Bytes(partial)) = fields(body).find(|(field, _)| *field == 1)? else { return None };
    let mut left = LeftOut::default();
    for field in fields(partial) {
        match field {
            (1, Read::Number(items)) => left.items = items,
            (2, Read::Bytes(says)) => left.says = shown(&String::from_utf8_lossy(says)),
            _ => {}
        }
    }
    (left.items > 0).then_some(left)
}

/// What a collector says, as it may be told further.
pub(super) fn shown(says: &str) -> String {
    says.chars().filter(|c| !c.is_control()).take(SAYS_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::span::Kind;

    #[test]
    fn a_span_is_written_field_by_field() {
        let of = Span {
            trace_id: [1; 16],
            span_id: [2; 8],
            parent: Some([3; 8]),
            name: "tools/call refund".to_owned(),
            kind: Kind::Server,
            start_us: 5,
            end_us: 6,
            attributes: vec![("a", Value::Number(-1)), ("b", Value::Texts(vec![String::new()]))],
            events: vec![Happened { name: "e", at_us: 5, attributes: vec![("f", Value::Flag(false))] }],
            links: vec![Link { trace_id: [4; 16], span_id: [5; 8], by: "round".to_owned() }],
            is_error: true,
        };
        let bytes = span(&of).into_bytes();
        let all: Vec<_> = fields(&bytes).collect();
        let numbers: Vec<u32> = all.iter().map(|(field, _)| *field).collect();
        assert_eq!(numbers, [1, 2, 4, 5, 6, 7, 8, 9, 9, 11, 13, 15]);
        assert_eq!(all[5].1, Read::Number(5_000), "nanoseconds");
        let Read::Bytes(attribute) = all[7].1 else { panic!("{all:?}") };
        let (_, Read::Bytes(value)) = fields(attribute).last().expect("a value") else { panic!() };
        assert_eq!(fields(value).collect::<Vec<_>>(), [(3, Read::Number(u64::MAX))]);
        let Read::Bytes(status) = all[11].1 else { panic!("{all:?}") };
        assert_eq!(fields(status).collect::<Vec<_>>(), [(3, Read::Number(2))]);
        let whole = traces(&Resource(vec![("service.name".to_owned(), "cairn".to_owned())]), &[span(&of), span(&of)]);
        let (1, Read::Bytes(within)) = fields(&whole).next().expect("resource spans") else { panic!() };
        let (2, Read::Bytes(scoped)) = fields(within).nth(1).expect("scope spans") else { panic!() };
        assert_eq!(fields(scoped).filter(|(field, _)| *field == 2).count(), 2);
    }

    #[test]
    fn what_a_collector_leaves_out_is_told_in_few_plain_words() {
        let partial = Message::default().number(1, 3).text(2, &format!("too\n{}", "old".repeat(500)));
        let answer = Message::default().within(1, &partial).into_bytes();
        let left = left_out(&answer).expect("three spans");
        assert_eq!((left.items, left.says.starts_with("tooold"), left.says.len()), (3, true, SAYS_CHARS_MAX));
        assert_eq!(left_out(&[]), None);
        assert_eq!(left_out(&Message::default().within(1, &Message::default()).into_bytes()), None);
        assert_eq!(left_out(b"<html>"), None);
    }
}
