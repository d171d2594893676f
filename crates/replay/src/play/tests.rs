//! What is played, refused, passed over and told: the guarantees of `cairn play`, without a wire.

use cairn_contract::{Decision, Effect};

use super::*;
use crate::recording::{
    Approved, Decided, Gone,
    tests::{call, recording},
};

fn asked<'a>(tool: &'a str, arguments: &'a str) -> Asked<'a> {
    Asked { server: "orders", method: "tools/call", target: Some(tool), arguments: Some(arguments), takes_rounds: true }
}

fn result(text: &str) -> Given {
    Given::Result(text.to_owned())
}

fn code(given: &Given) -> i64 {
    match given {
        Given::Own { code, .. } => *code,
        other => panic!("no error of Cairn's: {other:?}"),
    }
}

fn words(given: &Given) -> &str {
    match given {
        Given::Own { message, .. } => message,
        other => panic!("no error of Cairn's: {other:?}"),
    }
}

fn two_and_one() -> Recording {
    recording(vec![
        call(1, "get", r#"{"id":1}"#, r#"{"r":1}"#),
        call(2, "get", r#"{"id":2}"#, r#"{"r":2}"#),
        call(3, "put", r#"{"id":1,"to":"a"}"#, r#"{"r":3}"#),
    ])
}

#[test]
fn strict_play_holds_each_tool_to_its_order_and_its_arguments() {
    let player = Player::new(two_and_one(), Mode::Strict);
    // Between tools any order will do, and so does any form of the same arguments.
    assert_eq!(player.play(asked("put", r#"{ "to": "a", "id": 1 }"#)), result(r#"{"r":3}"#));
    let early = player.play(asked("get", r#"{"id":2}"#));
    assert_eq!(code(&early), NOT_AS_RECORDED);
    assert!(
        words(&early).contains("at /id: recorded 1, came 2") && words(&early).contains("mcp.calls/0@1"),
        "{early:?}"
    );
    // What was expected is still expected.
    assert_eq!(player.play(asked("get", r#"{"id":1}"#)), result(r#"{"r":1}"#));
    assert_eq!(player.play(asked("get", r#"{"id":2}"#)), result(r#"{"r":2}"#));
    let more = player.play(asked("get", r#"{"id":2}"#));
    assert!(code(&more) == NOT_AS_RECORDED && words(&more).contains("called 2 times"), "{more:?}");
    let never = player.play(asked("drop", "{}"));
    assert!(words(&never).contains("never called") && words(&never).contains("orders/get (2 times)"), "{never:?}");
    let played = player.played();
    assert_eq!((played.asked, played.as_recorded, played.differed, played.never_asked), (6, 3, 3, 0));
    assert!(!played.is_whole(), "three times it was not as recorded");
    let how: Vec<How> = played.calls.iter().map(|call| call.how).collect();
    assert_eq!(how, [How::AsRecorded, How::Differed, How::AsRecorded, How::AsRecorded, How::Differed, How::Differed]);
    assert_eq!(played.calls[0].asked, "tools/call orders/put");
    assert_eq!(played.calls[0].recorded.as_deref(), Some("mcp.calls/0@3"));
}

#[test]
fn only_a_play_of_all_that_was_recorded_is_whole() {
    let player = Player::new(two_and_one(), Mode::Strict);
    let _ = player.play(asked("get", r#"{"id":1}"#));
    let _ = player.play(asked("put", r#"{"id":1,"to":"a"}"#));
    let played = player.played();
    assert_eq!((played.differed, played.never_asked, played.is_whole()), (0, 1, false));
    assert_eq!(played.unasked, ["tools/call orders/get (mcp.calls/0@2)"]);
    let _ = player.play(asked("get", r#"{"id":2}"#));
    assert!(player.played().is_whole());
}

#[test]
fn lenient_play_takes_the_nearest_that_is_left_and_tells_of_it() {
    let player = Player::new(two_and_one(), Mode::Lenient);
    assert_eq!(player.play(asked("get", r#"{"id":2}"#)), result(r#"{"r":2}"#), "out of order");
    assert_eq!(player.play(asked("get", r#"{"id":7}"#)), result(r#"{"r":1}"#), "what is left");
    assert_eq!(code(&player.play(asked("get", r#"{"id":1}"#))), NOT_AS_RECORDED, "each once");
    let played = player.played();
    assert_eq!((played.as_recorded, played.differed), (1, 2));
    assert_eq!(played.differences[0].differences[0].pointer, "/id");
}

#[test]
fn what_did_not_go_well_does_not_go_well_again() {
    let mut denied = call(1, "drop", "{}", "{}");
    denied.decision = Some(Decided {
        decision: Decision::Deny,
        policy_version: "sha256:2".to_owned(),
        policies: vec!["no-drops".to_owned()],
        obligations: Vec::new(),
    });
    let ended = |outcome, effect, code, word: &str| crate::recording::Ended {
        outcome,
        effect,
        error_type: Some(word.to_owned()),
        code,
        http_status: None,
        is_error: None,
        result: None,
        screened: None,
    };
    denied.outcome = Some(ended(Outcome::Denied, Effect::None, Some(-31_001), "denied"));
    let mut unapproved = call(2, "ask", "{}", "{}");
    let state = cairn_contract::ApprovalState::Denied;
    unapproved.approval =
        Some(Approved { state, approval_id: "ap-1".to_owned(), reason: Some("not today".to_owned()) });
    unapproved.outcome = Some(ended(Outcome::Denied, Effect::None, Some(-31_002), "approval_denied"));
    let mut failed = call(3, "fail", "{}", r#"{"code":-32602,"message":"no such order"}"#);
    failed.outcome.as_mut().expect("it ended").code = Some(-32_602);
    let mut late = call(4, "late", "{}", "{}");
    late.outcome = Some(ended(Outcome::TimedOut, Effect::Unknown, Some(-31_009), "timed_out"));
    let mut doubt = call(5, "doubt", "{}", "{}");
    doubt.outcome = Some(ended(Outcome::InDoubt, Effect::Unknown, None, "upstream_lost"));
    let mut open = call(6, "open", "{}", "{}");
    open.outcome = None;
    let mut blocked = call(7, "blocked", "{}", r#"{"secret":1}"#);
    let end = blocked.outcome.as_mut().expect("it ended");
    (end.screened, end.code) = (Some(ScreenAction::Blocked), Some(-31_021));
    end.error_type = Some("output_blocked".to_owned());
    let mut redacted = call(8, "redacted", "{}", r#"{"secret":1}"#);
    redacted.outcome.as_mut().expect("it ended").screened = Some(ScreenAction::Redacted);

    let player =
        Player::new(recording(vec![denied, unapproved, failed, late, doubt, open, blocked, redacted]), Mode::Strict);
    assert_eq!(player.not_playable().len(), 2, "what is open, and what was redacted");
    let play = |tool: &str| player.play(asked(tool, "{}"));
    let Given::Own { code: -31_001, message, data } = play("drop") else { panic!("it is denied") };
    assert_eq!(message, "denied by policy no-drops (policy version sha256:2)");
    assert_eq!((&data["cairn"], &data["determining_policies"][0]), (&json!("denied"), &json!("no-drops")));
    let ask = play("ask");
    assert_eq!((code(&ask), words(&ask)), (-31_002, "approval ap-1 was denied: not today"));
    assert_eq!(play("fail"), Given::Error(r#"{"code":-32602,"message":"no such order"}"#.to_owned()));
    assert_eq!(code(&play("late")), -31_009);
    let doubt = play("doubt");
    assert!(code(&doubt) == IN_DOUBT && words(&doubt).contains("in doubt"), "{doubt:?}");
    assert_eq!(code(&play("open")), NOT_PLAYABLE);
    let blocked = play("blocked");
    assert!(code(&blocked) == -31_021 && !format!("{blocked:?}").contains("secret"), "{blocked:?}");
    let redacted = play("redacted");
    assert!(code(&redacted) == NOT_PLAYABLE && !format!("{redacted:?}").contains("secret"), "{redacted:?}");
    let played = player.played();
    assert_eq!((played.as_recorded, played.not_playable, played.never_asked), (6, 2, 0));
    assert!(!played.is_whole());
}

#[test]
fn who_does_not_know_rounds_is_not_given_one() {
    let mut asks = call(1, "ask", "{}", r#"{"resultType":"input_required","requestState":"s"}"#);
    asks.outcome.as_mut().expect("it ended").outcome = Outcome::InputRequired;
    let player = Player::new(recording(vec![asks.clone(), asks]), Mode::Strict);
    assert!(matches!(player.play(asked("ask", "{}")), Given::Result(_)));
    let legacy = player.play(Asked { takes_rounds: false, ..asked("ask", "{}") });
    assert!(code(&legacy) == NOT_PLAYABLE && words(&legacy).contains("input"), "{legacy:?}");
}

#[test]
fn what_is_gone_is_said_and_never_made_up() {
    let mut answer = call(1, "get", r#"{"id":1}"#, "{}");
    let result = answer.outcome.as_mut().and_then(|ended| ended.result.as_mut()).expect("a result");
    (result.text, result.gone) = (None, Some(Gone::Erased));
    let mut question = call(2, "put", "{}", r#"{"r":2}"#);
    let sent = question.arguments.as_mut().expect("sent");
    (sent.text, sent.gone) = (None, Some(Gone::NotKept));
    let all = recording(vec![answer, question]);
    let strict = Player::new(all.clone(), Mode::Strict);
    let told: Vec<String> = strict.not_playable().into_iter().map(|one| one.why).collect();
    assert!(told[0].contains("was erased") && told[1].contains("lenient"), "{told:?}");
    assert_eq!(code(&strict.play(asked("get", r#"{"id":1}"#))), NOT_PLAYABLE);
    assert_eq!(code(&strict.play(asked("put", "{}"))), NOT_PLAYABLE);
    assert_eq!((strict.played().not_playable, strict.played().is_whole()), (2, false));
    let lenient = Player::new(all, Mode::Lenient);
    assert_eq!(lenient.not_playable().len(), 1);
    assert_eq!(lenient.play(asked("put", r#"{"any":1}"#)), Given::Result(r#"{"r":2}"#.to_owned()));
}

#[test]
fn a_resource_is_found_by_what_was_sent_and_metadata_is_no_difference() {
    let mut read =
        call(1, "x", r#"{"uri":"order://ann@example.org","_meta":{"progressToken":1}}"#, r#"{"contents":[]}"#);
    (read.method, read.target) = ("resources/read".to_owned(), Some("order://[masked:email]#hmac".to_owned()));
    let player = Player::new(recording(vec![read]), Mode::Strict);
    let sent = r#"{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"},"uri":"order://ann@example.org"}"#;
    let asked = Asked {
        server: "orders",
        method: "resources/read",
        target: Some("order://ann@example.org"),
        arguments: Some(sent),
        takes_rounds: true,
    };
    assert_eq!(player.play(asked), result(r#"{"contents":[]}"#));
    assert!(player.played().is_whole());
}
