//! Tests of the module beside it.
use proptest::prelude::*;

use super::*;
use crate::ScanFault;

fn parse(text: &str) -> Result<Message, Refusal> {
    Message::parse(Bytes::from(text.to_owned()), &Limits::default())
}

#[test]
fn each_kind_is_recognised() {
    for (text, kind) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"a"}"#, Kind::Request),
        (r#"{"method":"a","jsonrpc":"2.0"}"#, Kind::Notification),
        (r#"{"result":null,"jsonrpc":"2.0","id":"x"}"#, Kind::Response),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":""}}"#, Kind::Error),
        (r#"{"jsonrpc":"2.0","error":{"code":1,"message":""}}"#, Kind::Error),
    ] {
        assert_eq!(parse(text).expect(text).kind(), kind, "{text}");
    }
}

#[test]
fn what_is_no_message_is_refused() {
    for text in [
        "[]",
        "7",
        "{}",
        r#"{"id":1,"method":"a"}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","result":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","result":1}"#,
    ] {
        assert!(parse(text).is_err(), "{text}");
    }
}

#[test]
fn keys_that_another_parser_would_take_for_protocol_keys_are_refused() {
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","Name":"evil"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"NAME":"evil"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","na\u0000me":"evil"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"name":"safe","ｎame":"evil"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"_meta":{"progresstoken":1}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"isError":false,"iserror":true}}"#,
    ] {
        let refused = parse(text).expect_err(text);
        assert!(matches!(refused.fault, ParseFault::LookAlike { .. }), "{text}: {refused}");
        assert!(refused.id.is_some(), "it can be answered");
    }
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"name":1,"Name":2,"ID":3}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"vendor/x","params":{"Name":"mine"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"Content":"mine"}}"#,
    ] {
        parse(text).expect(text);
    }
}

#[test]
fn a_refused_request_can_be_answered_unless_its_id_is_in_doubt() {
    let refused = parse(r#"{"jsonrpc":"2.0","id":7,"method":"a","params":{"x":1,"x":2}}"#).expect_err("duplicate");
    assert!(matches!(refused.fault, ParseFault::Scan(ScanFault::DuplicateKey { .. })));
    assert_eq!(refused.id, Some(RawId::integer(7)));
    let refused = parse(r#"{"jsonrpc":"2.0","id":7,"id":8,"method":"a"}"#).expect_err("duplicate");
    assert_eq!(refused.id, None);
}

#[test]
fn the_parts_of_a_modern_call_are_found() {
    let text = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"s\u00e9",
        "arguments":{"x":1.0},"requestState":"o\"paque","inputResponses":{"a":1},
        "_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","progressToken":5,"traceparent":"00-x"}}}"#;
    let message = parse(text).expect("valid");
    assert!(message.is_modern());
    assert_eq!(message.target(), Some(Target::Tool("sé".to_owned())));
    assert_eq!(message.arguments_raw().as_deref(), Some(&br#"{"x":1.0}"#[..]));
    assert_eq!(message.request_state_raw().as_deref(), Some(&br#""o\"paque""#[..]));
    assert_eq!(message.progress_token(), Some(RawId::integer(5)));
    assert_eq!(message.protocol_version().as_deref(), Some("2026-07-28"));
    assert_eq!(message.meta_str("traceparent").as_deref(), Some("00-x"));
    assert_eq!(message.meta_keys().len(), 3);
    let result = parse(r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"input_required","isError":true}}"#);
    let result = result.expect("valid");
    assert_eq!((result.result_type().as_deref(), result.is_error()), (Some("input_required"), true));
}

#[test]
fn a_message_may_be_as_long_as_the_bound_and_no_longer() {
    let text = r#"{"jsonrpc":"2.0","method":"a"}"#;
    let limits = |max| Limits { message_bytes_max: max, ..Limits::default() };
    assert!(Message::parse(Bytes::from(text), &limits(text.len())).is_ok());
    assert!(Message::parse(Bytes::from(text), &limits(text.len() - 1)).is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Message::parse(bytes.into(), &Limits::default());
    }
}

#[test]
fn an_answer_that_is_nested_too_deeply_still_names_its_call() {
    let deep = format!("{}{{\"]\": 1}}{}", "[".repeat(200), "]".repeat(200));
    for text in [
        format!(r#"{{"jsonrpc":"2.0","id":7,"result":{{"a":{deep}}}}}"#),
        format!(r#"{{"jsonrpc":"2.0","result":{deep},"id":7}}"#),
    ] {
        let refusal = Message::parse(text.into_bytes().into(), &Limits::default()).expect_err("too deep");
        assert_eq!(refusal.id, Some(RawId::integer(7)));
        assert_eq!(refusal.code(), None, "{refusal}");
    }
    let open = format!(r#"{{"jsonrpc":"2.0","id":7,"result":{}"#, "[".repeat(200));
    let refusal = Message::parse(open.into_bytes().into(), &Limits::default()).expect_err("it never ends");
    assert_eq!(refusal.id, None);
}
