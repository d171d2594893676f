//! OTLP in JSON: the same messages by their names in lowerCamelCase, ids in hexadecimal digits, 64-bit numbers as texts or numbers.
//!
//! Lists of resources and scopes are passed item by item, so that no tree of the whole request is built. A resource may stand behind the
//! scopes that it is of, so what is within is looked at when both are there. Unknown members are passed over.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use super::{Attributes, Budget, EVENTS_MAX, Event, Excess, ITEMS_MAX, LogRecord, Malformed, Sink, Source, Span, ids};

fn malformed(error: &serde_json::Error) -> Malformed {
    // What the error shows of the body is not repeated.
    Malformed { format: "JSON", what: format!("line {}, column {}", error.line(), error.column()) }
}

/// Reads an `ExportTraceServiceRequest`.
pub(crate) fn traces(body: &[u8], sink: Sink<'_, Span>) -> Result<(), Malformed> {
    each(body, ["resourceSpans", "scopeSpans", "spans"], sink, |item: &RawValue| {
        let item: SpanText<'_> = serde_json::from_str(item.get())?;
        Ok(item.span())
    })
}

/// Reads an `ExportLogsServiceRequest`.
pub(crate) fn logs(body: &[u8], sink: Sink<'_, LogRecord>) -> Result<(), Malformed> {
    each(body, ["resourceLogs", "scopeLogs", "logRecords"], sink, |item: &RawValue| {
        let item: RecordText<'_> = serde_json::from_str(item.get())?;
        Ok(item.record())
    })
}

type Read<T> = fn(&RawValue) -> Result<Result<T, Excess>, serde_json::Error>;

fn each<T>(body: &[u8], names: [&str; 3], sink: Sink<'_, T>, read: Read<T>) -> Result<(), Malformed> {
    let mut seen = 0;
    let mut of_resource = |resource: &RawValue| -> Result<(), serde_json::Error> {
        let attributes = member(resource, "resource")?.map(attributes_of).transpose()?.unwrap_or_default();
        items(resource, names[1], &mut |scoped| {
            let mut source = Source { resource: attributes.clone(), ..Source::default() };
            if let Some(scope) = member(scoped, "scope")? {
                let ScopeText { name, version } = serde_json::from_str(scope.get())?;
                (source.scope, source.scope_version) = (name, version);
            }
            items(scoped, names[2], &mut |item| {
                seen += 1;
                let found = if seen > ITEMS_MAX { Err(Excess::Items) } else { read(item)? };
                sink(&source, found);
                Ok(())
            })
        })
    };
    let whole: &RawValue = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    items(whole, names[0], &mut of_resource).map_err(|error| malformed(&error))
}

/// Hands each item of the list under `name` on; an object without it has none.
fn items(
    object: &RawValue,
    name: &str,
    each: &mut dyn FnMut(&RawValue) -> Result<(), serde_json::Error>,
) -> Result<(), serde_json::Error> {
    let Some(list) = member(object, name)? else { return Ok(()) };
    let mut reader = serde_json::Deserializer::from_str(list.get());
    Items(each).deserialize(&mut reader)
}

struct Items<'f>(&'f mut dyn FnMut(&RawValue) -> Result<(), serde_json::Error>);

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element::<&'de RawValue>()? {
            (self.0)(item).map_err(serde::de::Error::custom)?;
        }
        Ok(())
    }
}

/// The member of that name, the last where there are several.
fn member<'r>(object: &'r RawValue, name: &str) -> Result<Option<&'r RawValue>, serde_json::Error> {
    struct Wanted<'n>(&'n str);

    impl<'de> Visitor<'de> for Wanted<'_> {
        type Value = Option<&'de RawValue>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = None;
            while let Some(key) = map.next_key::<String>()? {
                if key == self.0 {
                    found = Some(map.next_value::<&'de RawValue>()?).filter(|value| value.get() != "null");
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok(found)
        }
    }

    let mut reader = serde_json::Deserializer::from_str(object.get());
    reader.deserialize_map(Wanted(name))
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ScopeText {
    name: String,
    version: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SpanText<'a> {
    trace_id: String,
    span_id: String,
    parent_span_id: String,
    name: String,
    start_time_unix_nano: Nanos,
    end_time_unix_nano: Nanos,
    #[serde(borrow)]
    attributes: Option<&'a RawValue>,
    #[serde(borrow)]
    events: Option<&'a RawValue>,
    status: Option<StatusText>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusText {
    code: Value,
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct RecordText<'a> {
    trace_id: String,
    span_id: String,
    time_unix_nano: Nanos,
    observed_time_unix_nano: Nanos,
    event_name: String,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    #[serde(borrow)]
    attributes: Option<&'a RawValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct EventText<'a> {
    name: String,
    #[serde(borrow)]
    attributes: Option<&'a RawValue>,
}

/// A 64-bit number: as a text, as the mapping of Protocol Buffers to JSON writes it, or as a number.
#[derive(Default, Clone, Copy)]
struct Nanos(u64);

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Value::deserialize(deserializer)? {
            Value::String(text) => Self(text.parse().unwrap_or_default()),
            Value::Number(number) => Self(number.as_u64().unwrap_or_default()),
            _ => Self(0),
        })
    }
}

impl SpanText<'_> {
    fn span(self) -> Result<Span, Excess> {
        let mut budget = Budget::new();
        let (trace_id, span_id) = ids_of(&self.trace_id, &self.span_id)?;
        let mut span = Span {
            trace_id,
            span_id,
            parent_span_id: hex::decode(&self.parent_span_id).ok().and_then(|id| super::parent(&id)),
            name: self.name,
            start_ns: self.start_time_unix_nano.0,
            end_ns: self.end_time_unix_nano.0,
            ..Span::default()
        };
        if let Some(status) = self.status {
            let is_error = status.code == 2 || status.code == "STATUS_CODE_ERROR";
            span.error = is_error.then_some(status.message);
        }
        if let Some(list) = self.attributes {
            span.attributes = read_attributes(list, &mut budget)?;
        }
        let mut excess = None;
        if let Some(list) = self.events {
            let listed = each_of(list, &mut |event| {
                if excess.is_none() && span.events.len() < EVENTS_MAX {
                    let EventText { name, attributes } = serde_json::from_str(event.get())?;
                    match attributes.map_or(Ok(Attributes::new()), |list| read_attributes(list, &mut budget)) {
                        Ok(attributes) => span.events.push(Event { name, attributes, body: Value::Null }),
                        Err(found) => excess = Some(found),
                    }
                }
                Ok(())
            });
            if listed.is_err() {
                return Err(Excess::Values);
            }
        }
        excess.map_or(Ok(span), Err)
    }
}

impl RecordText<'_> {
    fn record(self) -> Result<LogRecord, Excess> {
        let mut budget = Budget::new();
        let (trace_id, span_id) = ids_of(&self.trace_id, &self.span_id)?;
        let body = self.body.map_or(Ok(Value::Null), |body| read_value(body, 0, &mut budget))?;
        let attributes = self.attributes.map_or(Ok(Attributes::new()), |list| read_attributes(list, &mut budget))?;
        let time_ns = self.time_unix_nano.0.max(self.observed_time_unix_nano.0);
        Ok(LogRecord { trace_id, span_id, time_ns, event: Event { name: self.event_name, attributes, body } })
    }
}

fn ids_of(trace: &str, span: &str) -> Result<([u8; 16], [u8; 8]), Excess> {
    let bytes = |text: &str| hex::decode(text).map_err(|_| Excess::Ids);
    ids(&bytes(trace)?, &bytes(span)?)
}

fn each_of(
    list: &RawValue,
    each: &mut dyn FnMut(&RawValue) -> Result<(), serde_json::Error>,
) -> Result<(), serde_json::Error> {
    Items(each).deserialize(&mut serde_json::Deserializer::from_str(list.get()))
}

/// A resource's attributes. One that has too many is as good as one without.
fn attributes_of(resource: &RawValue) -> Result<Attributes, serde_json::Error> {
    let Some(list) = member(resource, "attributes")? else { return Ok(Attributes::new()) };
    Ok(read_attributes(list, &mut Budget::new()).unwrap_or_default())
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Pair<'a> {
    key: String,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
}

fn read_attributes(list: &RawValue, budget: &mut Budget) -> Result<Attributes, Excess> {
    let (mut all, mut excess) = (Attributes::new(), None);
    let listed = each_of(list, &mut |item| {
        if excess.is_none() {
            let Pair { key, value } = serde_json::from_str(item.get())?;
            let read = budget.attribute().and_then(|()| value.map_or(Ok(Value::Null), |v| read_value(v, 0, budget)));
            match read {
                Ok(value) => drop(all.insert(key, value)),
                Err(found) => excess = Some(found),
            }
        }
        Ok(())
    });
    match (excess, listed) {
        (Some(excess), _) => Err(excess),
        (None, Err(_)) => Err(Excess::Values),
        (None, Ok(())) => Ok(all),
    }
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct AnyText<'a> {
    string_value: Option<String>,
    bool_value: Option<bool>,
    int_value: Option<Value>,
    double_value: Option<Value>,
    bytes_value: Option<String>,
    #[serde(borrow)]
    array_value: Option<&'a RawValue>,
    #[serde(borrow)]
    kvlist_value: Option<&'a RawValue>,
}

/// An `AnyValue`. What is none is null.
fn read_value(raw: &RawValue, depth: usize, budget: &mut Budget) -> Result<Value, Excess> {
    budget.value(depth)?;
    let Ok(any) = serde_json::from_str::<AnyText<'_>>(raw.get()) else { return Ok(Value::Null) };
    let number = |value: Value| match value {
        Value::String(text) => text.parse::<i64>().map_or(Value::Null, Value::from),
        number => number,
    };
    Ok(match any {
        AnyText { string_value: Some(text), .. } | AnyText { bytes_value: Some(text), .. } => Value::String(text),
        AnyText { bool_value: Some(flag), .. } => Value::Bool(flag),
        AnyText { int_value: Some(value), .. } | AnyText { double_value: Some(value), .. } => number(value),
        AnyText { array_value: Some(list), .. } => {
            let (mut items, mut excess) = (Vec::new(), None);
            values(list, &mut |item| {
                if excess.is_none() {
                    match read_value(item, depth + 1, budget) {
                        Ok(value) => items.push(value),
                        Err(found) => excess = Some(found),
                    }
                }
            });
            excess.map_or(Ok(Value::Array(items)), Err)?
        }
        AnyText { kvlist_value: Some(list), .. } => {
            let (mut members, mut excess) = (Map::new(), None);
            values(list, &mut |item| {
                let Ok(Pair { key, value }) = serde_json::from_str::<Pair<'_>>(item.get()) else { return };
                if excess.is_none() {
                    match value.map_or(Ok(Value::Null), |value| read_value(value, depth + 1, budget)) {
                        Ok(value) => drop(members.insert(key, value)),
                        Err(found) => excess = Some(found),
                    }
                }
            });
            excess.map_or(Ok(Value::Object(members)), Err)?
        }
        AnyText { .. } => Value::Null,
    })
}

/// The items under `values`.
fn values(list: &RawValue, each: &mut dyn FnMut(&RawValue)) {
    // What is no list has no items.
    let _ = items(list, "values", &mut |item| {
        each(item);
        Ok(())
    });
}
