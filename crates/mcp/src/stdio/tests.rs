//! Tests with real children.
use std::time::Duration;

use futures::FutureExt;

use super::*;
use crate::{
    RawId, Reach,
    testing::{all, message, server},
};

fn start(role: &str, shared: bool) -> StdioLink {
    StdioLink::spawn(&server(role), Limits::default(), shared).expect("the test binary starts")
}

async fn call(link: &StdioLink, text: &str) -> Result<(Vec<Message>, Option<LinkError>), LinkError> {
    let prepared = link.prepare(&message(text), &ForwardHeaders::default())?;
    Ok(all(link.forward(prepared).await?).await)
}

fn is_alive(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("not zero");
    rustix::process::test_kill_process(pid).is_ok()
}

#[tokio::test]
async fn an_unshared_child_gets_every_byte_as_it_came() {
    let link = start("echo", false);
    let text =
        r#"{ "id":"\u0061b", "jsonrpc":"2.0","method":"echo","params":{"x":1.50,"_meta":{"progressToken":"p"}}}"#;
    let (messages, error) = call(&link, text).await.expect("sent");
    assert!(error.is_none());
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[0].progress_token(), Some(RawId::text("p")));
    assert_eq!(
        messages[1].result_member_raw("line").map(|raw| serde_json::from_slice::<String>(&raw).expect("text")),
        Some(text.to_owned())
    );
    link.close().await;
}

#[tokio::test]
async fn line_breaks_between_tokens_do_not_break_the_framing() {
    let link = start("echo", false);
    let (messages, _) = call(&link, "{\"jsonrpc\":\"2.0\",\r\n\"id\":1,\n\"method\":\"echo\"}").await.expect("sent");
    assert_eq!(messages.len(), 1);
    link.close().await;
}

#[tokio::test]
async fn callers_of_a_shared_child_may_use_the_same_names_at_once() {
    let link = Arc::new(start("echo", true));
    let mut calls = Vec::new();
    for caller in 0..20 {
        let link = Arc::clone(&link);
        calls.push(tokio::spawn(async move {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":"same","method":"echo","params":{{"caller":{caller},"_meta":{{"progressToken":7.0}}}}}}"#
            );
            (caller, call(&link, &text).await.expect("sent"))
        }));
    }
    for call in calls {
        let (caller, (messages, error)) = call.await.expect("no panic");
        assert!(error.is_none());
        assert_eq!(messages.len(), 2, "progress and answer");
        assert_eq!(messages[0].param_raw("progressToken").as_deref(), Some(&b"7.0"[..]));
        assert_eq!(messages[1].id().map(RawId::as_str), Some("\"same\""));
        let line = String::from_utf8(messages[1].result_raw().expect("a result").to_vec()).expect("text");
        assert!(line.contains(&format!("\\\"caller\\\":{caller},")), "{line}");
    }
    link.close().await;
}

#[tokio::test]
async fn a_subscription_on_a_shared_child_has_its_own_id_back() {
    let link = start("echo", true);
    call(&link, r#"{"jsonrpc":"2.0","id":"first","method":"echo"}"#).await.expect("sent");
    let (messages, error) =
        call(&link, r#"{"jsonrpc":"2.0","id":"L","method":"subscriptions/listen","params":{}}"#).await.expect("sent");
    assert!(error.is_none());
    assert_eq!(messages.len(), 3);
    assert!(messages.iter().all(|message| message.subscription_id() == Some(RawId::text("L"))));
    link.close().await;
}

#[tokio::test]
async fn cancelling_names_the_call_as_the_server_knows_it() {
    let link = start("echo", true);
    let mut unsolicited = link.unsolicited().expect("taken for the first time");
    assert!(link.unsolicited().is_none());
    let quiet = message(r#"{"jsonrpc":"2.0","id":"q","method":"quiet"}"#);
    let prepared = link.prepare(&quiet, &ForwardHeaders::default()).expect("prepared");
    let wire = prepared.route.wire_id.clone().expect("an id");
    let exchange = link.forward(prepared).await.expect("sent");
    exchange.canceller.cancel(Some("enough".to_owned())).await;
    let heard = unsolicited.recv().await.and_then(|frame| frame.message).expect("heard");
    let line = heard.param_str("line").expect("the line");
    assert_eq!(message(&line).cancelled_id(), Some(wire.clone()));
    let notice = message(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q"}}"#);
    link.notify(&notice, &ForwardHeaders::default()).await.expect("sent");
    let heard = unsolicited.recv().await.and_then(|frame| frame.message).expect("heard");
    assert_eq!(message(&heard.param_str("line").expect("the line")).cancelled_id(), Some(wire));
    let unknown = message(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"z"}}"#);
    let refused = link.notify(&unknown, &ForwardHeaders::default()).await.expect_err("no such call");
    assert!(matches!(refused.cause(), LinkFault::NoSuchCall { matches: 0 }));
    link.close().await;
}

#[tokio::test]
async fn a_call_that_is_given_up_once_it_is_written_is_cancelled_and_one_that_never_was_is_not() {
    let link = start("echo", true);
    let mut unsolicited = link.unsolicited().expect("taken for the first time");
    let begin = |id: &str| {
        let quiet = message(&format!(r#"{{"jsonrpc":"2.0","id":"{id}","method":"quiet"}}"#));
        let prepared = link.prepare(&quiet, &ForwardHeaders::default()).expect("prepared");
        let wire = prepared.route.wire_id.clone();
        let mut sending = link.forward(prepared);
        assert!((&mut sending).now_or_never().is_none(), "nobody has written yet");
        (sending, wire)
    };
    let (unwritten, _) = begin("a");
    drop(unwritten);
    let (written, wire) = begin("b");
    // Lines are written in their order: the child has read the one before.
    call(&link, r#"{"jsonrpc":"2.0","id":"c","method":"echo"}"#).await.expect("sent");
    drop(written);
    let heard = tokio::time::timeout(Duration::from_secs(30), unsolicited.recv()).await.expect("it is told");
    let heard = heard.and_then(|frame| frame.message).expect("heard");
    assert_eq!(message(&heard.param_str("line").expect("the line")).cancelled_id(), wire);
    link.close().await;
}

#[tokio::test]
async fn cairns_own_variables_never_reach_a_child() {
    let link = start("echo", false);
    let (messages, _) = call(&link, r#"{"jsonrpc":"2.0","id":1,"method":"env"}"#).await.expect("sent");
    assert_eq!(messages[0].result_member_raw("own").as_deref(), Some(&b"[]"[..]));
    link.close().await;
}

#[tokio::test]
async fn a_call_that_dies_with_the_child_is_lost_and_a_later_one_not_sent() {
    let link = start("echo", false);
    let (messages, error) = call(&link, r#"{"jsonrpc":"2.0","id":1,"method":"die"}"#).await.expect("sent");
    let error = error.expect("no answer");
    assert!(messages.is_empty());
    assert_eq!(error.reach(), Reach::Lost);
    assert!(error.to_string().contains("exit status: 7") && error.to_string().contains("out of cheese"), "{error}");
    link.wait().await;
    let later = call(&link, r#"{"jsonrpc":"2.0","id":2,"method":"echo"}"#).await.expect_err("the child is gone");
    assert_eq!(later.reach(), Reach::NotSent);
    assert!(later.to_string().contains("out of cheese"));
}

#[tokio::test]
async fn an_answer_written_before_the_end_is_delivered() {
    let link = start("echo", false);
    let (messages, error) = call(&link, r#"{"jsonrpc":"2.0","id":1,"method":"last words"}"#).await.expect("sent");
    assert_eq!((messages.len(), error.is_none()), (1, true));
}

#[tokio::test]
async fn noise_is_skipped_and_an_ambiguous_answer_ends_its_call() {
    let link = start("echo", false);
    let (messages, error) = call(&link, r#"{"jsonrpc":"2.0","id":1,"method":"noise"}"#).await.expect("sent");
    assert_eq!((messages.len(), error.is_none()), (1, true));
    let (_, error) = call(&link, r#"{"jsonrpc":"2.0","id":2,"method":"twice"}"#).await.expect("sent");
    assert!(matches!(error.expect("refused").cause(), LinkFault::BadAnswer(_)));
    link.close().await;
}

#[tokio::test]
async fn a_line_beyond_the_bound_ends_the_link() {
    let limits = Limits { message_bytes_max: 50_000, ..Limits::default() };
    let link = StdioLink::spawn(&server("echo"), limits, false).expect("the test binary starts");
    let (_, error) = call(&link, r#"{"jsonrpc":"2.0","id":1,"method":"long"}"#).await.expect("sent");
    assert!(matches!(error.expect("too long").cause(), LinkFault::TooLong { limit: 50_000 }));
    link.wait().await;
}

#[tokio::test]
async fn requests_of_the_server_are_unsolicited_and_answered() {
    let link = start("echo", false);
    let mut unsolicited = link.unsolicited().expect("taken for the first time");
    let prepared = link.prepare(&message(r#"{"jsonrpc":"2.0","id":9,"method":"ask"}"#), &ForwardHeaders::default());
    let _exchange = link.forward(prepared.expect("prepared")).await.expect("sent");
    let asked = unsolicited.recv().await.and_then(|frame| frame.message).expect("asked");
    assert_eq!(asked.method(), Some("roots/list"));
    let answer = Message::result(asked.id().expect("an id"), br#"{"roots":[]}"#).expect("valid");
    link.notify(&answer, &ForwardHeaders::default()).await.expect("sent");
    link.close().await;
}

#[tokio::test]
async fn an_id_in_use_and_too_many_calls_are_refused_before_anything_is_sent() {
    let limits = Limits { calls_pending_max: 2, ..Limits::default() };
    let link = StdioLink::spawn(&server("echo"), limits, false).expect("the test binary starts");
    let mut exchanges = Vec::new();
    for id in [1, 2] {
        let quiet = message(&format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"quiet"}}"#));
        let prepared = link.prepare(&quiet, &ForwardHeaders::default()).expect("prepared");
        exchanges.push(link.forward(prepared).await.expect("sent"));
    }
    let same = call(&link, r#"{"jsonrpc":"2.0","id":1.0,"method":"quiet"}"#).await.expect_err("in use");
    assert!(matches!(same, LinkError::NotSent { cause: LinkFault::IdInUse { .. }, .. }));
    let third = call(&link, r#"{"jsonrpc":"2.0","id":3,"method":"quiet"}"#).await.expect_err("too many");
    assert!(matches!(third, LinkError::NotSent { cause: LinkFault::TooManyCalls { limit: 2 }, .. }));
    drop(exchanges);
    call(&link, r#"{"jsonrpc":"2.0","id":3,"method":"echo"}"#).await.expect("abandoned calls make room");
    link.close().await;
}

#[tokio::test]
async fn a_command_that_does_not_exist_is_an_error_that_says_so() {
    let command = StdioCommand { command: "no-such-program-here".into(), ..StdioCommand::default() };
    let error = StdioLink::spawn(&command, Limits::default(), false).expect_err("no such program");
    assert!(matches!(error, LinkError::NotSent { cause: LinkFault::Spawn { .. }, .. }));
}

#[tokio::test]
async fn a_child_that_ignores_its_closed_stdin_is_ended_all_the_same() {
    let limits = Limits { exit_wait_max: Duration::from_millis(10), ..Limits::default() };
    let link = StdioLink::spawn(&server("stubborn"), limits, false).expect("the test binary starts");
    let mut unsolicited = link.unsolicited().expect("taken for the first time");
    unsolicited.recv().await.expect("it runs");
    let pid = link.pid();
    assert!(is_alive(pid));
    let mut gone = link.gone.clone();
    drop(link);
    gone.wait_for(|gone| *gone).await.expect("the keeper says so");
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_call_given_up_before_its_line_was_begun_was_never_made() {
    let (writer, mut lines) = Writer::new(&Limits::default());
    let told = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let flag = Arc::clone(&told);
    let writing = writer.write("x".into(), move || flag.store(true, std::sync::atomic::Ordering::SeqCst));
    tokio::time::timeout(Duration::ZERO, writing).await.expect_err("nobody writes");
    assert!(told.load(std::sync::atomic::Ordering::SeqCst));
    lines.close();
    let mut out = Vec::new();
    write_lines(&mut out, lines, CancellationToken::new()).await;
    assert!(out.is_empty(), "a withdrawn line is not written");
}

#[tokio::test]
async fn a_broken_pipe_says_whether_anything_was_written() {
    let (writer, lines) = Writer::new(&Limits::default());
    let (near, far) = tokio::io::duplex(4);
    let ending = CancellationToken::new();
    let task = tokio::spawn(write_lines(near, lines, ending.clone()));
    let cut = tokio::spawn({
        let writer = writer.clone();
        async move { writer.write("longer than the pipe".into(), || {}).await }
    });
    let mut far = far;
    let mut byte = [0];
    tokio::io::AsyncReadExt::read_exact(&mut far, &mut byte).await.expect("the first byte");
    drop(far);
    assert_eq!(cut.await.expect("no panic").expect_err("cut").reach(), Reach::Lost);
    task.await.expect("no panic");
    assert_eq!(writer.write("x".into(), || {}).await.expect_err("closed").reach(), Reach::NotSent);
    let (writer, lines) = Writer::new(&Limits::default());
    let (near, far) = tokio::io::duplex(4);
    drop(far);
    tokio::spawn(write_lines(near, lines, ending));
    assert_eq!(writer.write("x".into(), || {}).await.expect_err("broken").reach(), Reach::NotSent);
}
