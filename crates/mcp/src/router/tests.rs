//! The router's rules without a channel.
use proptest::prelude::*;

use super::*;
use crate::{Reach, testing::message};

fn prepared(router: &Router, id: &str, token: Option<&str>, method: &str) -> Prepared {
    let meta = token.map(|token| format!(r#","params":{{"_meta":{{"progressToken":{token}}}}}"#)).unwrap_or_default();
    let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"{meta}}}"#);
    router.prepare(&message(&text)).expect("a request")
}

fn answer(id: &RawId) -> Frame {
    Message::result(id, b"{}").expect("valid").into()
}

#[test]
fn a_slow_reader_loses_progress_but_never_the_answer() {
    let router = Router::new(Limits { frames_queued_max: 2, ..Limits::default() }, false);
    let call = prepared(&router, "1", Some("7"), "x");
    let mut frames = router.register(&call).expect("room");
    for _ in 0..10 {
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7}}"#;
        router.route(message(progress).into());
    }
    router.route(answer(&RawId::integer(1)));
    let got: Vec<_> = std::iter::from_fn(|| frames.try_recv().ok()).collect();
    assert_eq!(got.len(), 3);
    let last = got.into_iter().last().expect("three").expect("no error").message.expect("a message");
    assert_eq!(last.kind(), Kind::Response);
}

#[test]
fn a_late_answer_is_unsolicited_under_the_callers_name() {
    let router = Router::new(Limits::default(), true);
    let call = prepared(&router, "\"mine\"", None, "x");
    drop(router.register(&call).expect("room"));
    router.route(answer(call.route.wire_id.as_ref().expect("an id")));
    let late = router.unsolicited().expect("first").try_recv().expect("late").message.expect("a message");
    assert_eq!(late.id().map(RawId::as_str), Some("\"mine\""));
}

#[test]
fn a_request_that_nobody_takes_is_answered() {
    let router = Router::new(Limits { frames_queued_max: 1, ..Limits::default() }, false);
    let ask = message(r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#);
    assert!(matches!(router.route(ask.clone().into()), Routed::Done));
    assert!(matches!(router.route(ask.into()), Routed::Answer(_)), "the queue is full");
}

#[test]
fn the_end_reaches_every_call_and_later_ones_are_not_sent() {
    let router = Router::new(Limits::default(), true);
    let mut waiting = router.register(&prepared(&router, "1", None, "x")).expect("room");
    router.end(&LinkFault::Closed, Some("tail"));
    assert_eq!(waiting.try_recv().expect("told").expect_err("lost").reach(), Reach::Lost);
    let later = router.register(&prepared(&router, "2", None, "x")).expect_err("ended");
    assert_eq!(later.reach(), Reach::NotSent);
}

#[test]
fn a_subscription_that_the_server_cancels_ends() {
    let router = Router::new(Limits::default(), true);
    let call = prepared(&router, "\"L\"", None, "subscriptions/listen");
    let mut frames = router.register(&call).expect("room");
    let wire = call.route.wire_id.expect("an id");
    router.route(cancellation(&wire, None).into());
    let heard = frames.try_recv().expect("told").expect("no error").message.expect("a message");
    assert_eq!(heard.cancelled_id(), Some(RawId::text("L")));
    assert!(matches!(frames.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
}

proptest! {
    #[test]
    fn names_come_back_exactly_as_they_were_written(
        calls in proptest::collection::vec(("[a-c]|\\\\u0061", 0u8..3, proptest::option::of("[a-c\"]{1,2}")), 1..12),
    ) {
        let router = Router::new(Limits::default(), true);
        let mut open = Vec::new();
        for (text, form, token) in calls {
            let id = match form { 0 => format!("\"{text}\""), 1 => "1".to_owned(), _ => "1.0e0".to_owned() };
            let token = token.map(|token| serde_json::json!(token).to_string());
            let call = prepared(&router, &id, token.as_deref(), "x");
            let wire = Message::parse(call.bytes.clone(), &Limits::default()).expect("valid");
            let frames = router.register(&call).expect("room");
            open.push((id, token, wire, frames));
        }
        for (id, token, wire, mut frames) in open.into_iter().rev() {
            prop_assert_eq!(wire.progress_token().is_some(), token.is_some());
            if let (Some(token), Some(on_wire)) = (&token, wire.progress_token()) {
                let text = format!(r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{on_wire}}}}}"#);
                router.route(message(&text).into());
                let got = frames.try_recv().expect("progress").expect("no error").message.expect("a message");
                prop_assert_eq!(got.param_raw("progressToken"), Some(Bytes::from(token.clone())));
            }
            router.route(answer(wire.id().expect("an id")));
            let got = frames.try_recv().expect("answer").expect("no error").message.expect("a message");
            prop_assert_eq!(got.id().map(RawId::as_str), Some(&*id));
        }
        prop_assert_eq!(router.pending(), 0);
    }
}
