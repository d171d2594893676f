//! OTLP in Protocol Buffers.
//!
//! Field numbers are those of opentelemetry-proto 1.9 (`trace/v1/trace.proto`, `logs/v1/logs.proto`, `common/v1/common.proto`); unknown
//! fields are passed over, as the format wants it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Number, Value};

use super::{
    Attributes, Budget, EVENTS_MAX, Event, Excess, LogRecord, Malformed, Sink, Source, Span, ids, parent,
    wire::{Field, Fields, Unreadable},
};

/// Why a span was not read.
enum Fault {
    Excess(Excess),
    Unreadable(Unreadable),
}

impl From<Excess> for Fault {
    fn from(excess: Excess) -> Self {
        Self::Excess(excess)
    }
}

impl From<Unreadable> for Fault {
    fn from(unreadable: Unreadable) -> Self {
        Self::Unreadable(unreadable)
    }
}

fn malformed(unreadable: Unreadable) -> Malformed {
    Malformed { format: "protobuf", what: unreadable.to_string() }
}

/// Reads an `ExportTraceServiceRequest`.
pub(crate) fn traces(body: &[u8], sink: Sink<'_, Span>) -> Result<(), Malformed> {
    each(body, sink, span)
}

/// Reads an `ExportLogsServiceRequest`.
pub(crate) fn logs(body: &[u8], sink: Sink<'_, LogRecord>) -> Result<(), Malformed> {
    each(body, sink, record)
}

/// Both requests have the same form: resources, scopes within them, and items within those.
fn each<T>(body: &[u8], sink: Sink<'_, T>, read: fn(&[u8]) -> Result<T, Fault>) -> Result<(), Malformed> {
    let mut seen = 0;
    for within in messages(body, 1) {
        let within = within.map_err(malformed)?;
        let resource = resource(within).map_err(malformed)?;
        for scoped in messages(within, 2) {
            let scoped = scoped.map_err(malformed)?;
            let mut source = Source { resource: resource.clone(), ..Source::default() };
            for scope in messages(scoped, 1) {
                for field in Fields::of(scope.map_err(malformed)?) {
                    match field.map_err(malformed)? {
                        (1, Field::Bytes(name)) => source.scope = text(name),
                        (2, Field::Bytes(version)) => source.scope_version = text(version),
                        _ => {}
                    }
                }
            }
            for item in messages(scoped, 2) {
                let item = item.map_err(malformed)?;
                seen += 1;
                if seen > super::ITEMS_MAX {
                    sink(&source, Err(Excess::Items));
                    continue;
                }
                match read(item) {
                    Ok(item) => sink(&source, Ok(item)),
                    Err(Fault::Excess(excess)) => sink(&source, Err(excess)),
                    Err(Fault::Unreadable(unreadable)) => return Err(malformed(unreadable)),
                }
            }
        }
    }
    Ok(())
}

/// The messages under a field's number.
fn messages(message: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], Unreadable>> {
    Fields::of(message).filter_map(move |field| match field {
        Ok((found, Field::Bytes(bytes))) if found == number => Some(Ok(bytes)),
        Ok(_) => None,
        Err(unreadable) => Some(Err(unreadable)),
    })
}

/// A resource's attributes. One that has too many is as good as one without.
fn resource(within: &[u8]) -> Result<Attributes, Unreadable> {
    let (mut all, mut budget) = (Attributes::new(), Budget::new());
    for found in messages(within, 1) {
        for field in messages(found?, 1) {
            match attribute(field?, &mut all, &mut budget) {
                Ok(()) => {}
                Err(Fault::Excess(_)) => return Ok(Attributes::new()),
                Err(Fault::Unreadable(unreadable)) => return Err(unreadable),
            }
        }
    }
    Ok(all)
}

fn span(message: &[u8]) -> Result<Span, Fault> {
    let (mut span, mut budget) = (Span::default(), Budget::new());
    let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields::of(message) {
        match field? {
            (1, Field::Bytes(id)) => trace_id = id,
            (2, Field::Bytes(id)) => span_id = id,
            (4, Field::Bytes(id)) => span.parent_span_id = parent(id),
            (5, Field::Bytes(name)) => span.name = text(name),
            (7, Field::Fixed64(time)) => span.start_ns = time,
            (8, Field::Fixed64(time)) => span.end_ns = time,
            (9, Field::Bytes(found)) => attribute(found, &mut span.attributes, &mut budget)?,
            (11, Field::Bytes(found)) if span.events.len() < EVENTS_MAX => {
                span.events.push(event(found, &mut budget)?);
            }
            (15, Field::Bytes(found)) => span.error = status(found)?,
            _ => {}
        }
    }
    (span.trace_id, span.span_id) = ids(trace_id, span_id)?;
    Ok(span)
}

/// What an error says; nothing where the status is another.
fn status(message: &[u8]) -> Result<Option<String>, Unreadable> {
    let (mut says, mut is_error) = (String::new(), false);
    for field in Fields::of(message) {
        match field? {
            (2, Field::Bytes(found)) => says = text(found),
            (3, Field::Varint(code)) => is_error = code == 2,
            _ => {}
        }
    }
    Ok(is_error.then_some(says))
}

fn event(message: &[u8], budget: &mut Budget) -> Result<Event, Fault> {
    let mut event = Event::default();
    for field in Fields::of(message) {
        match field? {
            (2, Field::Bytes(name)) => event.name = text(name),
            (3, Field::Bytes(found)) => attribute(found, &mut event.attributes, budget)?,
            _ => {}
        }
    }
    Ok(event)
}

fn record(message: &[u8]) -> Result<LogRecord, Fault> {
    let (mut record, mut budget) = (LogRecord::default(), Budget::new());
    let (mut trace_id, mut span_id): (&[u8], &[u8]) = (&[], &[]);
    for field in Fields::of(message) {
        match field? {
            (1 | 11, Field::Fixed64(time)) => record.time_ns = record.time_ns.max(time),
            (5, Field::Bytes(body)) => record.event.body = value(body, 0, &mut budget)?,
            (6, Field::Bytes(found)) => attribute(found, &mut record.event.attributes, &mut budget)?,
            (9, Field::Bytes(id)) => trace_id = id,
            (10, Field::Bytes(id)) => span_id = id,
            (12, Field::Bytes(name)) => record.event.name = text(name),
            _ => {}
        }
    }
    (record.trace_id, record.span_id) = ids(trace_id, span_id)?;
    Ok(record)
}

/// A `KeyValue`.
fn attribute(message: &[u8], into: &mut Attributes, budget: &mut Budget) -> Result<(), Fault> {
    budget.attribute()?;
    let (key, value) = pair(message, 0, budget)?;
    into.insert(key, value);
    Ok(())
}

fn pair(message: &[u8], depth: usize, budget: &mut Budget) -> Result<(String, Value), Fault> {
    let (mut key, mut found) = (String::new(), Value::Null);
    for field in Fields::of(message) {
        match field? {
            (1, Field::Bytes(name)) => key = text(name),
            (2, Field::Bytes(bytes)) => found = value(bytes, depth, budget)?,
            _ => {}
        }
    }
    Ok((key, found))
}

/// An `AnyValue`.
fn value(message: &[u8], depth: usize, budget: &mut Budget) -> Result<Value, Fault> {
    budget.value(depth)?;
    let mut found = Value::Null;
    for field in Fields::of(message) {
        found = match field? {
            (1, Field::Bytes(bytes)) => Value::String(text(bytes)),
            (2, Field::Varint(flag)) => Value::Bool(flag != 0),
            (3, Field::Varint(number)) => Value::from(number.cast_signed()),
            (4, Field::Fixed64(bits)) => Number::from_f64(f64::from_bits(bits)).map_or(Value::Null, Value::Number),
            (5, Field::Bytes(list)) => {
                let mut items = Vec::new();
                for item in messages(list, 1) {
                    items.push(value(item?, depth + 1, budget)?);
                }
                Value::Array(items)
            }
            (6, Field::Bytes(list)) => {
                let mut members = Map::new();
                for member in messages(list, 1) {
                    let (key, value) = pair(member?, depth + 1, budget)?;
                    members.insert(key, value);
                }
                Value::Object(members)
            }
            (7, Field::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
            _ => continue,
        };
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
