//! What a sealed record looks like, header by header, and what cannot be sealed.

use super::*;
use crate::{CallOutcome, Effect, Era, Outcome, SessionClosed, StoredEvent};

fn stamp() -> Stamp {
    Stamp {
        source: "cairn://gateway/gw-1".into(),
        producer: Producer { id: "gw-1".into(), epoch: 3, sequence: 7, previous: Some("ab".repeat(32)) },
        hlc: "1795521600000000-00000".into(),
        id: Uuid::from_u128(0x0199_6b5e_7c00_7000_8000_0000_0000_0001),
        time: Timestamp::from_micros(1_795_521_600_123_456),
    }
}

fn outcome() -> Draft {
    let common = Common {
        workflow_id: "refund-4711".into(),
        call_id: Some(Uuid::from_u128(2)),
        trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736".into()),
        principal: Some("local".into()),
        server: Some("orders".into()),
        era: Some(Era::Legacy),
        mcp_method_name: Some("tools/call".into()),
        ..Common::default()
    };
    let body = CallOutcome {
        outcome: Outcome::TimedOut,
        effect: Effect::None,
        http_response_status_code: None,
        rpc_response_status_code: Some(-32602),
        is_error: None,
        error_type: None,
        result: None,
        elapsed_us: Some(12),
        upstream_elapsed_us: None,
        progress_notifications: None,
        recovered: None,
        screened: None,
    };
    Draft {
        key: "refund-4711".into(),
        subject: Some("orders/refund".into()),
        traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
        tracestate: Some("a=b".into()),
        common,
        body: body.into(),
    }
}

#[test]
fn a_sealed_record_is_this_byte_for_byte() {
    let record = outcome().seal(&stamp()).unwrap();
    assert_eq!(record.topic, Topic::Calls);
    assert_eq!(record.key, "refund-4711");
    assert_eq!(record.timestamp_ms, 1_795_521_600_123);
    let text: Vec<(&str, &str)> = record
        .headers
        .iter()
        .filter(|(name, _)| name != "__value_schema_id")
        .map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()))
        .collect();
    assert_eq!(
        text,
        [
            ("ce_specversion", "1.0"),
            ("ce_id", "01996b5e-7c00-7000-8000-000000000001"),
            ("ce_type", "io.cairn.call.outcome"),
            ("ce_source", "cairn://gateway/gw-1"),
            ("ce_time", "2026-11-24T12:00:00.123456Z"),
            ("ce_subject", "orders/refund"),
            ("ce_dataschema", "urn:cairn:contracts/call.outcome/v2.json"),
            ("content-type", "application/json"),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
            ("tracestate", "a=b"),
        ]
    );
    assert_eq!(
        std::str::from_utf8(&record.value).unwrap(),
        concat!(
            r#"{"workflow_id":"refund-4711","call_id":"00000000-0000-0000-0000-000000000002","#,
            r#""trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","principal":"local","server":"orders","era":"legacy","#,
            r#""mcp_method_name":"tools/call","outcome":"timed_out","effect":"none","#,
            r#""rpc_response_status_code":-32602,"elapsed_us":12,"hlc":"1795521600000000-00000","#,
            r#""producer":{"id":"gw-1","epoch":3,"sequence":7,"previous":""#,
            "abababababababababababababababababababababababababababababababab",
            r#""},"contract":{"name":"call.outcome","version":2}}"#,
        )
    );
}

#[test]
fn a_sealed_record_is_read_back_as_it_was() {
    let draft = outcome();
    let record = draft.clone().seal(&stamp()).unwrap();
    let stored = StoredEvent::parse(record.key.clone(), &record.headers, &record.value).unwrap();
    assert_eq!(stored.common, draft.common);
    assert_eq!(stored.body().unwrap(), Some(draft.body));
    assert_eq!(stored.producer, stamp().producer);
    assert_eq!(stored.link, crate::link(&record));
    assert_eq!(
        (stored.subject, stored.traceparent, stored.tracestate),
        (draft.subject, draft.traceparent, draft.tracestate)
    );
}

#[test]
fn a_reader_keeps_a_type_and_keys_that_it_does_not_know() {
    let mut record = outcome().seal(&stamp()).unwrap();
    for (name, value) in &mut record.headers {
        if name == "ce_type" {
            *value = Bytes::from_static(b"io.cairn.call.reviewed");
        }
    }
    let text = String::from_utf8(record.value.to_vec()).unwrap().replace("\"effect\"", "\"later\":1,\"effect\"");
    let stored = StoredEvent::parse(record.key, &record.headers, text.as_bytes()).unwrap();
    assert_eq!(stored.type_name, "call.reviewed");
    assert_eq!(stored.body().unwrap(), None);
    assert_eq!(stored.value["later"], 1);
}

#[test]
fn a_call_event_without_what_each_carries_is_refused() {
    type Strip = fn(&mut Common);
    let strips: [(&str, Strip); 7] = [
        ("workflow_id", |common| common.workflow_id.clear()),
        ("call_id", |common| common.call_id = None),
        ("trace_id", |common| common.trace_id = None),
        ("principal", |common| common.principal = None),
        ("server", |common| common.server = None),
        ("era", |common| common.era = None),
        ("mcp_method_name", |common| common.mcp_method_name = None),
    ];
    for (expected, strip) in strips {
        let mut draft = outcome();
        strip(&mut draft.common);
        assert!(matches!(draft.seal(&stamp()), Err(SealError::Missing { key, .. }) if key == expected), "{expected}");
    }
    let keyless = Draft { key: String::new(), ..outcome() };
    assert!(matches!(keyless.seal(&stamp()), Err(SealError::Missing { key: "key", .. })));
}

#[test]
fn an_event_that_is_too_large_or_breaks_a_header_is_refused() {
    let body = SessionClosed { reason: "x".repeat(EVENT_BYTES_MAX), ..SessionClosed::default() };
    assert!(matches!(Draft { body: body.into(), ..outcome() }.seal(&stamp()), Err(SealError::TooLarge { .. })));
    let subject = Some("orders/\n".to_owned());
    assert!(matches!(
        Draft { subject, ..outcome() }.seal(&stamp()),
        Err(SealError::Header { header: "ce_subject", .. })
    ));
}

#[test]
fn a_record_that_is_no_event_is_refused() {
    let record = outcome().seal(&stamp()).unwrap();
    for missing in ["ce_id", "ce_type", "ce_source", "ce_time"] {
        let headers: Vec<_> = record.headers.iter().filter(|(name, _)| name != missing).cloned().collect();
        assert!(StoredEvent::parse(record.key.clone(), &headers, &record.value).is_err(), "{missing}");
    }
    for value in ["", "{}", "[]", "{\"hlc\":1}"] {
        assert!(StoredEvent::parse(record.key.clone(), &record.headers, value.as_bytes()).is_err(), "{value}");
    }
}
