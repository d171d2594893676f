//! Requests as bytes and as texts: both forms say the same, and what is over a bound is refused by itself.

use proptest::prelude::*;
use serde_json::json;

use super::{wire::*, *};

/// A message of fields.
pub(crate) fn message(fields: &[(u32, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    fields.iter().for_each(|(number, bytes)| put_bytes(&mut out, *number, bytes));
    out
}

/// An `AnyValue` of JSON.
fn any_value(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    match value {
        Value::String(text) => put_bytes(&mut out, 1, text.as_bytes()),
        Value::Bool(flag) => put_number(&mut out, 2, u64::from(*flag)),
        Value::Number(number) => put_number(&mut out, 3, number.as_u64().unwrap()),
        Value::Array(list) => {
            let items: Vec<_> = list.iter().map(any_value).collect();
            let items: Vec<(u32, &[u8])> = items.iter().map(|item| (1, &item[..])).collect();
            put_bytes(&mut out, 5, &message(&items));
        }
        Value::Object(members) => put_bytes(&mut out, 6, &pairs(members.iter(), 1)),
        Value::Null => {}
    }
    out
}

fn pairs<'a>(members: impl Iterator<Item = (&'a String, &'a Value)>, number: u32) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in members {
        put_bytes(&mut out, number, &message(&[(1, key.as_bytes()), (2, &any_value(value))]));
    }
    out
}

fn fixed(number: u32, value: u64) -> Vec<u8> {
    let mut out = vec![(number << 3 | 1) as u8];
    out.extend(value.to_le_bytes());
    out
}

const TRACE: [u8; 16] = [0x4b; 16];
const SPAN: [u8; 8] = [7; 8];

/// A span with these attributes and one event with them too.
pub(crate) fn span(attributes: &Value) -> Vec<u8> {
    let members = attributes.as_object().unwrap();
    let mut out = message(&[(1, &TRACE), (2, &SPAN), (4, &[6; 8]), (5, b"chat gpt")]);
    out.extend(fixed(7, 1_795_521_600_000_000_000));
    out.extend(fixed(8, 1_795_521_600_840_000_000));
    out.extend(pairs(members.iter(), 9));
    let mut event = message(&[(2, b"e")]);
    event.extend(pairs(members.iter(), 3));
    put_bytes(&mut out, 11, &event);
    let mut status = message(&[(2, b"it broke")]);
    put_number(&mut status, 3, 2);
    put_bytes(&mut out, 15, &status);
    // A field of a version that is not there yet.
    put_bytes(&mut out, 99, b"new");
    out
}

/// A request with these spans of one scope.
pub(crate) fn request(spans: &[Vec<u8>]) -> Vec<u8> {
    let resource = message(&[(1, &pairs(json!({ "service.name": "agent" }).as_object().unwrap().iter(), 1))]);
    let mut scoped = message(&[(1, &message(&[(1, b"scope"), (2, b"1.2")]))]);
    spans.iter().for_each(|span| put_bytes(&mut scoped, 2, span));
    let mut within = resource;
    put_bytes(&mut within, 2, &scoped);
    message(&[(1, &within)])
}

type Read = Vec<(Source, Result<Span, Excess>)>;

fn by_protobuf(body: &[u8]) -> Result<Read, Malformed> {
    let mut read = Vec::new();
    protobuf::traces(body, &mut |source, span| read.push((source.clone(), span)))?;
    Ok(read)
}

fn by_json(body: &str) -> Result<Read, Malformed> {
    let mut read = Vec::new();
    json::traces(body.as_bytes(), &mut |source, span| read.push((source.clone(), span)))?;
    Ok(read)
}

#[test]
fn both_forms_say_the_same() {
    let attributes = json!({
        "text": "t", "flag": true, "number": 7, "list": ["a", ["b"]], "object": { "k": { "l": 1 } },
    });
    let read = by_protobuf(&request(&[span(&attributes)])).unwrap();
    let [(source, Ok(found))] = &read[..] else { panic!("{read:?}") };
    assert_eq!((source.scope.as_str(), source.scope_version.as_str()), ("scope", "1.2"));
    assert_eq!(source.resource["service.name"], "agent");
    assert_eq!(Value::Object(found.attributes.clone().into_iter().collect()), attributes);
    assert_eq!((found.trace_id, found.span_id, found.parent_span_id), (TRACE, SPAN, Some([6; 8])));
    assert_eq!((found.error.as_deref(), found.events.len()), (Some("it broke"), 1));

    let text_of = |value: Value| json!({ "stringValue": value });
    let told = json!([
        { "key": "text", "value": text_of(json!("t")) },
        { "key": "flag", "value": { "boolValue": true } },
        { "key": "number", "value": { "intValue": "7" } },
        { "key": "list", "value": { "arrayValue": { "values": [
            text_of(json!("a")), { "arrayValue": { "values": [text_of(json!("b"))] } } ] } } },
        { "key": "object", "value": { "kvlistValue": { "values": [
            { "key": "k", "value": { "kvlistValue": { "values": [{ "key": "l", "value": { "intValue": 1 } }] } } } ] } } },
    ]);
    let text = json!({ "resourceSpans": [{
        // The resource may stand behind what is of it.
        "scopeSpans": [{ "spans": [{
            "traceId": "4b".repeat(16).to_uppercase(), "spanId": "07".repeat(8), "parentSpanId": "06".repeat(8), "name": "chat gpt",
            "startTimeUnixNano": "1795521600000000000", "endTimeUnixNano": 1_795_521_600_840_000_000_u64,
            "attributes": told, "events": [{ "name": "e", "attributes": told, "timeUnixNano": "1" }],
            "status": { "code": 2, "message": "it broke" }, "somethingNew": { "a": [1] },
        }], "scope": { "name": "scope", "version": "1.2" } }],
        "resource": { "attributes": [{ "key": "service.name", "value": text_of(json!("agent")) }] },
    }] });
    assert_eq!(by_json(&text.to_string()).unwrap(), read);
}

#[test]
fn what_is_over_a_bound_is_refused_by_itself() {
    let good = span(&json!({ "a": 1 }));
    let many: serde_json::Map<String, Value> = (0..=ATTRIBUTES_MAX).map(|n| (n.to_string(), json!(1))).collect();
    let wide = json!({ "a": vec![1; VALUES_MAX + 1] });
    let deep = (0..DEPTH_MAX + 1).fold(json!(1), |value, _| json!([value]));
    let nobody = message(&[(1, &[0; 16]), (2, &SPAN)]);
    let short = message(&[(1, &TRACE[..8]), (2, &SPAN)]);
    let all = [span(&Value::Object(many)), span(&wide), span(&json!({ "a": deep })), nobody, short, good];
    let found = by_protobuf(&request(&all)).unwrap();
    let excess: Vec<_> = found.iter().map(|(_, span)| span.as_ref().err().copied()).collect();
    use Excess::{Depth, Ids, Values};
    assert_eq!(excess, [Some(Values), Some(Values), Some(Depth), Some(Ids), Some(Ids), None]);

    let tiny = message(&[(1, &TRACE), (2, &SPAN)]);
    let found = by_protobuf(&request(&vec![tiny; ITEMS_MAX + 3])).unwrap();
    assert_eq!(found.iter().filter(|(_, span)| *span == Err(Excess::Items)).count(), 3);

    let deep =
        (0..DEPTH_MAX + 1).fold(json!({ "intValue": 1 }), |value, _| json!({ "arrayValue": { "values": [value] } }));
    let one =
        json!({ "traceId": "4b".repeat(16), "spanId": "07".repeat(8), "attributes": [{ "key": "a", "value": deep }] });
    let text = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [one, { "traceId": "zz", "spanId": "" }] }] }] });
    let excess: Vec<_> = by_json(&text.to_string()).unwrap().into_iter().map(|(_, span)| span.err()).collect();
    assert_eq!(excess, [Some(Depth), Some(Ids)]);
}

#[test]
fn what_is_no_request_is_malformed() {
    assert!(by_protobuf(b"\x0a\x05abc").is_err());
    assert!(by_protobuf(&request(&[b"\x0b\x0b".to_vec()])).is_err());
    for bad in ["", "[]", "{", "{\"resourceSpans\":7}", "{\"resourceSpans\":[{\"scopeSpans\":[{\"spans\":[7]}]}]}"] {
        assert!(by_json(bad).is_err(), "{bad}");
    }
    assert_eq!(by_protobuf(b"").unwrap(), []);
    assert_eq!(by_json("{}").unwrap(), []);
    // A tree that is as deep as a body is long must not be walked down.
    let hostile = format!("{{\"resourceSpans\":[{}", "[".repeat(200_000));
    assert!(by_json(&hostile).is_err());
}

#[test]
fn log_records_come_both_ways() {
    let mut record = message(&[
        (5, &any_value(&json!({ "content": "hi" }))),
        (6, &message(&[(1, b"gen_ai.system"), (2, &any_value(&json!("openai")))])),
        (9, &TRACE),
        (10, &SPAN),
        (12, b"gen_ai.user.message"),
    ]);
    record.extend(fixed(1, 5_000));
    let mut found = Vec::new();
    protobuf::logs(&request(&[record]), &mut |_, record| found.push(record.unwrap())).unwrap();
    let text = json!({ "resourceLogs": [{ "scopeLogs": [{ "logRecords": [{
        "traceId": "4b".repeat(16), "spanId": "07".repeat(8), "timeUnixNano": "5000", "eventName": "gen_ai.user.message",
        "body": { "kvlistValue": { "values": [{ "key": "content", "value": { "stringValue": "hi" } }] } },
        "attributes": [{ "key": "gen_ai.system", "value": { "stringValue": "openai" } }],
    }] }] }] });
    json::logs(text.to_string().as_bytes(), &mut |_, record| found.push(record.unwrap())).unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0], found[1]);
    assert_eq!((found[0].event.body["content"].as_str(), found[0].time_ns), (Some("hi"), 5_000));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..2_048)) {
        let _ = by_protobuf(&bytes);
        let _ = by_json(&String::from_utf8_lossy(&bytes));
    }

    /// A good request with one byte changed.
    #[test]
    fn a_changed_byte_breaks_nothing(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = request(&[span(&json!({ "a": ["b", { "c": 1 }], "d": "e" })), span(&json!({}))]);
        let place = place.index(body.len());
        body[place] = byte;
        let _ = by_protobuf(&body);
        let mut text = json!({ "resourceSpans": [{ "scopeSpans": [{ "spans": [{ "traceId": "4b4b", "attributes": [
            { "key": "a", "value": { "arrayValue": { "values": [{ "stringValue": "b" }] } } } ] }] }] }] }).to_string().into_bytes();
        let place = place % text.len();
        text[place] = byte;
        let _ = by_json(&String::from_utf8_lossy(&text));
    }
}
