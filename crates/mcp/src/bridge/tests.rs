//! The rules of bridging, held to the schemas of both eras.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    Kind, Limits, Message, RawId,
    era::{LEGACY, Probe, judge},
    message::meta,
    testing::message,
};

fn schema(revision: &str) -> Value {
    let text = match revision {
        "2024-11-05" => include_str!("../../schemas/2024-11-05.json"),
        "2025-03-26" => include_str!("../../schemas/2025-03-26.json"),
        "2025-06-18" => include_str!("../../schemas/2025-06-18.json"),
        "2025-11-25" => include_str!("../../schemas/2025-11-25.json"),
        _ => include_str!("../../schemas/2026-07-28.json"),
    };
    serde_json::from_str(text).expect("a schema is JSON")
}

/// Whether `value` is what a revision calls `name`.
fn assert_is(value: &Value, name: &str, revision: &str) {
    let mut schema = schema(revision);
    let defs = if schema.get("$defs").is_some() { "$defs" } else { "definitions" };
    assert!(schema[defs].get(name).is_some(), "{revision} has no {name}");
    schema["$ref"] = json!(format!("#/{defs}/{name}"));
    let validator = jsonschema::options().build(&schema).expect("a valid schema");
    let faults: Vec<String> = validator.iter_errors(value).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{revision} {name}: {faults:?} in {value}");
}

fn value(message: &Message) -> Value {
    serde_json::from_slice(message.bytes()).expect("a message is JSON")
}

fn raw(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

fn offer() -> Offer {
    let discovered = message(
        r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","supportedVersions":["2026-07-28"],
        "capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{},
        "extensions":{"io.modelcontextprotocol/tasks":{},"com.example/x":{}}},"instructions":"mind the gap",
        "_meta":{"io.modelcontextprotocol/serverInfo":{"name":"s","version":"3"}},"ttlMs":0,"cacheScope":"public"}}"#,
    );
    Offer::of(&judge(&discovered), "configured").expect("a common version")
}

fn initialize_of(version: &str) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"initialize","params":{{"protocolVersion":"{version}",
        "capabilities":{{"elicitation":{{}},"roots":{{"listChanged":true}},"tasks":{{}}}},
        "clientInfo":{{"name":"old","version":"1"}}}}}}"#
    ))
}

fn opened(version: &str) -> LegacyClient {
    let mut client = LegacyClient::default();
    client.open(&initialize_of(version), &offer());
    client
}

#[test]
fn the_handshake_is_answered_in_every_legacy_revision() {
    for revision in LEGACY {
        let mut client = LegacyClient::default();
        let result = raw(&client.open(&initialize_of(revision), &offer()));
        assert_eq!(result["protocolVersion"], *revision);
        assert_eq!(result["instructions"], "mind the gap");
        assert_eq!(result["serverInfo"], json!({"name": "s", "version": "3"}));
        assert_eq!(result["capabilities"]["extensions"], json!({"com.example/x": {}}), "tasks are not bridged");
        assert_is(&result, "InitializeResult", revision);
    }
    let mut client = LegacyClient::default();
    let result = raw(&client.open(&initialize_of("2031-01-01"), &offer()));
    assert_eq!(result["protocolVersion"], "2025-11-25", "the newest that has a handshake");
}

#[test]
fn a_server_that_does_not_name_itself_still_gets_a_name() {
    let probe = Probe::Modern { versions: vec!["2026-07-28".to_owned()], discovered: Some((&b"{}"[..]).into()) };
    let offer = Offer::of(&probe, "configured").expect("a common version");
    let result = raw(&LegacyClient::default().open(&initialize_of("2025-06-18"), &offer));
    assert_is(&result, "InitializeResult", "2025-06-18");
    assert_eq!(result["serverInfo"]["name"], "configured");
    let future = Probe::Modern { versions: vec!["2031-01-01".to_owned()], discovered: None };
    let refused = Offer::of(&future, "s").expect_err("no common version");
    assert!(refused.to_string().contains("2031-01-01"));
}

#[test]
fn requests_gain_what_the_modern_era_demands_and_keep_the_rest() {
    let mut client = opened("2025-06-18");
    client.set_level((&b"\"warning\""[..]).into());
    let call = message(
        r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"t","arguments":{"n":1.0e3 },"_meta":{"progressToken":7,"x/y":[1]}}}"#,
    );
    let out = client.outbound(&call, &RawId::integer(5), &offer(), &Limits::default()).expect("within bounds");
    assert!(out.is_modern());
    assert_is(&value(&out), "CallToolRequest", "2026-07-28");
    assert_eq!(out.id(), Some(&RawId::integer(5)));
    assert_eq!(out.arguments_raw().as_deref(), Some(&br#"{"n":1.0e3 }"#[..]), "as written");
    assert_eq!(out.meta_str(meta::LOG_LEVEL).as_deref(), Some("warning"));
    assert_eq!(raw(&out.client_info_raw().expect("who asks")), json!({"name": "old", "version": "1"}));
    let capabilities = raw(&out.client_capabilities_raw().expect("what it can do"));
    assert_eq!(capabilities, json!({"elicitation": {}, "roots": {"listChanged": true}}), "tasks are not bridged");
    let bare = message(r#"{"jsonrpc":"2.0","id":2,"method":"tools/list"}"#);
    let out = client.outbound(&bare, &RawId::integer(6), &offer(), &Limits::default()).expect("within bounds");
    assert_is(&value(&out), "ListToolsRequest", "2026-07-28");
}

#[test]
fn what_the_modern_era_lacks_is_answered_here_or_refused_by_name() {
    let client = opened("2025-11-25");
    let take = |method: &str, params: &str| {
        client.take(&message(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#)), &offer())
    };
    assert_eq!(take("ping", "{}"), FromLegacy::Empty);
    assert_eq!(take("logging/setLevel", r#"{"level":"info"}"#), FromLegacy::SetLevel((&b"\"info\""[..]).into()));
    assert_eq!(take("resources/subscribe", r#"{"uri":"a:b"}"#), FromLegacy::Subscribe("a:b".to_owned()));
    assert_eq!(take("resources/unsubscribe", r#"{"uri":"a:b"}"#), FromLegacy::Unsubscribe("a:b".to_owned()));
    assert_eq!(take("tasks/get", r#"{"taskId":"1"}"#), FromLegacy::Refuse(NotBridged::Tasks));
    assert_eq!(take("tools/call", r#"{"name":"t","task":{}}"#), FromLegacy::Refuse(NotBridged::Tasks));
    assert_eq!(take("tools/call", r#"{"name":"t"}"#), FromLegacy::Forward);
    assert_eq!(take("x/unknown", "{}"), FromLegacy::Forward);
}

#[test]
fn answers_lose_what_older_clients_cannot_read() {
    let client = opened("2025-06-18");
    let answer = message(
        r#"{"jsonrpc":"2.0","id":5,"result":{"resultType":"complete","ttlMs":0,"cacheScope":"private","tools":[
        {"name":"a","inputSchema":{"type":"object"},"outputSchema":{"type":"array"}},
        {"name":"b","inputSchema":{"type":"object"},"outputSchema":{"type":"object"}}]}}"#,
    );
    let told = client.answer("tools/list", &answer, &RawId::text("x"), &Limits::default()).expect("within bounds");
    assert_eq!(told.id(), Some(&RawId::text("x")));
    assert_is(&value(&told)["result"], "ListToolsResult", "2025-06-18");
    assert!(told.result_type().is_none());
    assert_eq!(value(&told)["result"]["tools"][1]["outputSchema"], json!({"type": "object"}));
    let answer = message(
        r#"{"jsonrpc":"2.0","id":5,"result":{"resultType":"complete","content":[],"structuredContent":[1.50]}}"#,
    );
    let told = client.answer("tools/call", &answer, &RawId::integer(1), &Limits::default()).expect("within bounds");
    assert_is(&value(&told)["result"], "CallToolResult", "2025-06-18");
    let error = message(r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32602,"message":"no"}}"#);
    let told = client.answer("tools/call", &error, &RawId::integer(1), &Limits::default()).expect("within bounds");
    assert_eq!(&told.bytes()[..], br#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}"#);
}

const ASKS: &str = r#"{"jsonrpc":"2.0","id":5,"result":{"resultType":"input_required","inputRequests":{
    "who":{"method":"elicitation/create","params":{"mode":"form","message":"who?","requestedSchema":{"type":"object","properties":{}}}},
    "where":{"method":"roots/list"}},"requestState":"s\u0074ate"}}"#;

#[test]
fn a_round_asks_what_the_server_needs_and_gives_its_state_back_as_it_came() {
    let call = message(r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"t","arguments":{"a":1}}}"#);
    for revision in ["2025-06-18", "2025-11-25"] {
        let client = opened(revision);
        let input = client.input(&message(ASKS)).expect("readable").expect("input is needed");
        assert_eq!(input.requests.iter().map(|asked| asked.key.as_str()).collect::<Vec<_>>(), ["where", "who"]);
        let id = RawId::text("cairn-1");
        let roots = client.ask(&input.requests[0], &id, &Limits::default()).expect("within bounds");
        assert_is(&value(&roots), "ListRootsRequest", revision);
        let who = client.ask(&input.requests[1], &id, &Limits::default()).expect("within bounds");
        assert_is(&value(&who), "ElicitRequest", revision);
        let answers = vec![("who".to_owned(), (&br#"{"action":"accept","content":{"n": 1.0}}"#[..]).into())];
        let retry = client.retry(&call, &answers, input.state.as_ref(), &Limits::default()).expect("within bounds");
        assert_eq!(retry.request_state_raw().as_deref(), Some(&br#""s\u0074ate""#[..]), "byte for byte");
        let out = client.outbound(&retry, &RawId::integer(6), &offer(), &Limits::default()).expect("within bounds");
        assert_is(&value(&out), "CallToolRequest", "2026-07-28");
        assert_eq!(
            out.input_responses_raw().as_deref(),
            Some(&br#"{"who":{"action":"accept","content":{"n": 1.0}}}"#[..]),
            "as written"
        );
        // The next round replaces both.
        let again = client.retry(&retry, &[], None, &Limits::default()).expect("within bounds");
        assert!(again.request_state_raw().is_none() && again.input_responses_raw().is_none());
        assert_eq!(again.arguments_raw().as_deref(), Some(&br#"{"a":1}"#[..]));
    }
}

#[test]
fn elicitation_by_url_has_a_name_in_the_revision_that_wants_one() {
    let mut client = LegacyClient::default();
    client.open(
        &message(
            r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25",
            "capabilities":{"elicitation":{"url":{}}},"clientInfo":{"name":"c","version":"1"}}}"#,
        ),
        &offer(),
    );
    let asks = message(
        r#"{"jsonrpc":"2.0","id":5,"result":{"resultType":"input_required","inputRequests":{"k":{"method":"elicitation/create",
        "params":{"mode":"url","message":"go","url":"https://example.com/"}}}}}"#,
    );
    let input = client.input(&asks).expect("readable").expect("input is needed");
    let asked = client.ask(&input.requests[0], &RawId::text("cairn-1"), &Limits::default()).expect("within bounds");
    assert_is(&value(&asked), "ElicitRequest", "2025-11-25");
    assert_eq!(asked.param_str("elicitationId").as_deref(), Some("cairn-1"));
}

#[test]
fn nothing_is_asked_that_the_client_did_not_declare() {
    let client = LegacyClient::default();
    assert_eq!(
        client.input(&message(ASKS)).expect_err("undeclared"),
        NotBridged::Undeclared { method: "roots/list".to_owned() }
    );
    let wild = message(
        r#"{"jsonrpc":"2.0","id":5,"result":{"resultType":"input_required","inputRequests":{"k":{"method":"tools/call"}}}}"#,
    );
    assert!(opened("2025-11-25").input(&wild).is_err(), "a server may ask for three things only");
    let nothing = message(r#"{"jsonrpc":"2.0","id":5,"result":{"resultType":"input_required"}}"#);
    assert!(client.input(&nothing).is_err());
    let task = message(r#"{"jsonrpc":"2.0","id":5,"result":{"resultType":"task","taskId":"1"}}"#);
    assert_eq!(client.input(&task).expect_err("a task"), NotBridged::Tasks);
    let done = message(r#"{"jsonrpc":"2.0","id":5,"result":{"resultType":"complete"}}"#);
    assert!(client.input(&done).expect("readable").is_none());
}

fn modern_call(rest: &str) -> Message {
    message(&format!(
        r#"{{"jsonrpc":"2.0","id":"m1","method":"tools/call","params":{{"name":"t","arguments":{{"a":1.0}}{rest},"_meta":{{
        "io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{{"name":"new","version":"2"}},
        "io.modelcontextprotocol/clientCapabilities":{{"sampling":{{}},"elicitation":{{}}}},
        "io.modelcontextprotocol/logLevel":"warning","progressToken":"p","x/y":1}}}}}}"#
    ))
}

fn legacy_server() -> LegacyServer {
    let (request, _) = initialize(&RawId::integer(0), &modern_call("")).expect("a request");
    let answer = message(
        r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18","instructions":"old ways",
        "capabilities":{"tools":{"listChanged":true},"resources":{"subscribe":true},"logging":{},"tasks":{}},
        "serverInfo":{"name":"s","version":"1"}}}"#,
    );
    LegacyServer::of(&request, &answer).expect("a handshake")
}

#[test]
fn a_legacy_session_is_opened_with_what_the_modern_client_declares() {
    let (request, key) = initialize(&RawId::integer(0), &modern_call("")).expect("a request");
    assert_is(&value(&request), "InitializeRequest", "2025-11-25");
    assert_eq!(key, r#"{"elicitation":{},"sampling":{}}"#, "the order in which a client writes does not matter");
    let bare = message(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#,
    );
    let (request, key) = initialize(&RawId::integer(0), &bare).expect("a request");
    assert_is(&value(&request), "InitializeRequest", "2025-11-25");
    assert_eq!(key, "{}");
}

#[test]
fn a_handshake_that_failed_says_why() {
    let (request, _) = initialize(&RawId::integer(0), &modern_call("")).expect("a request");
    let error = message(r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32601,"message":"what?"}}"#);
    let words = LegacyServer::of(&request, &error).expect_err("an error").to_string();
    assert!(words.contains("-32601") && words.contains("what?"), "{words}");
    let modern = message(r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2026-07-28"}}"#);
    assert!(LegacyServer::of(&request, &modern).is_err());
}

#[test]
fn discovery_is_answered_from_the_handshake() {
    let server = legacy_server();
    let asked = message(r#"{"jsonrpc":"2.0","id":1,"method":"server/discover","params":{}}"#);
    let FromModern::Answer(result) = server.take(&asked) else { panic!("it is answered here") };
    let result = raw(&result);
    assert_is(&result, "DiscoverResult", "2026-07-28");
    assert_eq!(result["instructions"], "old ways");
    assert_eq!(result["capabilities"].get("tasks"), None);
    assert!(matches!(
        judge(&Message::result(&RawId::integer(1), result.to_string().as_bytes()).expect("valid")),
        Probe::Modern { .. }
    ));
}

#[test]
fn requests_lose_what_is_modern_and_answers_gain_it() {
    let server = legacy_server();
    let call = modern_call("");
    assert_eq!(server.take(&call), FromModern::Forward);
    let wire = RawId::integer(12);
    let out = server.outbound(&call, &wire, &Limits::default()).expect("within bounds");
    assert_is(&value(&out), "CallToolRequest", "2025-06-18");
    assert_eq!(out.id(), Some(&wire));
    assert_eq!(out.progress_token(), Some(wire.clone()), "several clients' tokens may be equal");
    assert_eq!(out.arguments_raw().as_deref(), Some(&br#"{"a":1.0}"#[..]));
    assert_eq!(out.meta_keys(), ["progressToken", "x/y"]);
    let modern = ModernCall::of(&call);
    let answer = message(r#"{"jsonrpc":"2.0","id":12,"result":{"content":[{"type":"text","text":"1.0"}]}}"#);
    let told = server.answer(&modern, &answer, &Limits::default()).expect("within bounds");
    assert_is(&value(&told)["result"], "CallToolResult", "2026-07-28");
    assert_eq!(told.id(), Some(&RawId::text("m1")));
    let list = message(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#);
    let answer = message(r#"{"jsonrpc":"2.0","id":12,"result":{"tools":[]}}"#);
    let told = server.answer(&ModernCall::of(&list), &answer, &Limits::default()).expect("within bounds");
    assert_is(&value(&told)["result"], "ListToolsResult", "2026-07-28");
    let lost = message(r#"{"jsonrpc":"2.0","id":12,"error":{"code":-32002,"message":"no","data":{"uri":"a:b"}}}"#);
    let told = server.answer(&modern, &lost, &Limits::default()).expect("within bounds");
    assert_eq!(told.error_code(), Some(-32602), "the old code must not be sent any more");
    assert_eq!(value(&told)["error"]["data"]["uri"], "a:b");
}

#[test]
fn notifications_of_a_call_are_restored_and_filtered() {
    let modern = ModernCall::of(&modern_call(""));
    let told = |text: &str| modern.notification(&message(text), &Limits::default()).expect("within bounds");
    let progress =
        told(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":12,"progress":0.50}}"#);
    assert_eq!(
        &progress.expect("it belongs to the call").bytes()[..],
        br#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p","progress":0.50}}"#
    );
    let log = |level: &str| {
        told(&format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/message","params":{{"level":"{level}","data":1}}}}"#
        ))
    };
    assert!(log("warning").is_some() && log("emergency").is_some());
    assert!(log("notice").is_none(), "less than was asked for");
    let unasked = ModernCall::of(&message(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#));
    let log = message(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"emergency","data":1}}"#);
    assert!(unasked.notification(&log, &Limits::default()).expect("within bounds").is_none());
}

#[test]
fn a_question_within_a_call_becomes_an_input_required_result() {
    let modern = ModernCall::of(&modern_call(""));
    let asked = message(
        r#"{"jsonrpc":"2.0","id":3,"method":"elicitation/create","params":{"mode":"url","elicitationId":"e","message":"go","url":"https://example.com/"}}"#,
    );
    let result = modern.input_required("request", &asked, "sealed").expect("a message");
    assert_eq!(result.kind(), Kind::Response);
    assert_is(&value(&result)["result"], "InputRequiredResult", "2026-07-28");
    let retry =
        modern_call(r#","requestState":"sealed","inputResponses":{"request":{"action":"accept","content":{"n":1.0}}}"#);
    let answer = response(&retry, "request", &RawId::integer(3)).expect("it is there");
    assert_eq!(
        &answer.bytes()[..],
        br#"{"jsonrpc":"2.0","id":3,"result":{"action":"accept","content":{"n":1.0}}}"#,
        "as written"
    );
    assert!(response(&retry, "another", &RawId::integer(3)).is_none());
    assert!(response(&modern_call(r#","inputResponses":{"request":1}"#), "request", &RawId::integer(3)).is_none());
}

#[test]
fn a_listen_stream_gets_what_it_asked_for_and_the_server_supports() {
    let server = legacy_server();
    let asked = message(
        r#"{"jsonrpc":"2.0","id":"l","method":"subscriptions/listen","params":{"notifications":{
        "toolsListChanged":true,"promptsListChanged":true,"resourceSubscriptions":["a:b","a:b","c:d"]}}}"#,
    );
    let FromModern::Listen(filter) = server.take(&asked) else { panic!("it is served here") };
    let id = RawId::text("l");
    let acknowledged = filter.acknowledgement(&id);
    assert_is(&value(&acknowledged), "SubscriptionsAcknowledgedNotification", "2026-07-28");
    assert_eq!(
        raw(&acknowledged.param_raw("notifications").expect("what is honoured")),
        json!({"toolsListChanged": true, "resourceSubscriptions": ["a:b", "c:d"]})
    );
    let told = |method: &str, params: &str| {
        let notice = message(&format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#));
        filter.notification(&notice, &id, &Limits::default()).expect("within bounds")
    };
    let updated = told("notifications/resources/updated", r#"{"uri":"a:b/c"}"#).expect("below what was asked for");
    assert_is(&value(&updated), "ResourceUpdatedNotification", "2026-07-28");
    assert_eq!(updated.subscription_id(), Some(id.clone()));
    assert!(told("notifications/tools/list_changed", "{}").is_some());
    assert!(told("notifications/prompts/list_changed", "{}").is_none());
    assert!(told("notifications/resources/updated", r#"{"uri":"x:y"}"#).is_none());
    assert_is(&value(&Filter::end(&id))["result"], "SubscriptionsListenResult", "2026-07-28");
    let many: Vec<String> = (0..=SUBSCRIPTIONS_MAX).map(|n| format!("a:{n}")).collect();
    let greedy = Message::request(
        &id,
        "subscriptions/listen",
        Some(json!({"notifications": {"resourceSubscriptions": many}}).to_string().as_bytes()),
    );
    assert!(matches!(server.take(&greedy.expect("valid")), FromModern::Refuse(NotBridged::BadFilter { .. })));
}

#[test]
fn a_state_is_good_for_who_got_it_for_what_it_was_given_and_for_its_time() {
    let seal = Seal::new(&[7; 32]);
    let call = modern_call("");
    let bound = |tenant: Option<&str>, principal: &str, server: &str, call: &Message| {
        Bound::new(&format!("{tenant:?}{principal:?}"), server, call)
    };
    let whose = bound(None, "ada", "orders", &call);
    let state = seal.close([1; 16], 1_000, &whose);
    let retry = modern_call(r#","requestState":"x","inputResponses":{}"#);
    assert_eq!(seal.open(&state, 999, &bound(None, "ada", "orders", &retry)), Ok([1; 16]));
    assert_eq!(seal.open(&state, 1_000, &whose), Err(StateFault::Expired));
    let other = message(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t","arguments":{"a":2}}}"#);
    for wrong in [
        bound(None, "eve", "orders", &call),
        bound(Some("t"), "ada", "orders", &call),
        bound(None, "ada", "tickets", &call),
        bound(None, "ada", "orders", &other),
    ] {
        assert_eq!(seal.open(&state, 0, &wrong), Err(StateFault::Foreign));
    }
    assert_eq!(Seal::new(&[8; 32]).open(&state, 0, &whose), Err(StateFault::Foreign), "of another process");
}

proptest! {
    #[test]
    fn no_changed_state_opens(at in 0usize..76, to in "[A-Za-z0-9_-]") {
        let seal = Seal::new(&[7; 32]);
        let bound = Bound::new("ada", "orders", &modern_call(""));
        let state = seal.close([1; 16], u64::MAX, &bound);
        let mut changed = state.clone();
        changed.replace_range(at..=at, &to);
        let opens = seal.open(&changed, 0, &bound).is_ok();
        prop_assert_eq!(opens, changed == state);
    }

    #[test]
    fn no_text_makes_it_panic(state in ".{0,120}", id in "[a-z]{0,4}") {
        let seal = Seal::new(&[7; 32]);
        prop_assert!(seal.open(&state, 0, &Bound::new(&id, "s", &modern_call(""))).is_err());
    }

    #[test]
    fn arguments_cross_in_both_directions_as_they_were_written(n in any::<f64>(), text in "[ -~]{0,20}", id in 0u64..9) {
        let arguments = format!("{{\"n\": {n:e} , \"t\":{}}}", json!(text));
        let params = format!("{{\"name\":\"t\",\"arguments\":{arguments}}}");
        if let Ok(call) = Message::request(&RawId::integer(id), "tools/call", Some(params.as_bytes())) {
            let limits = Limits::default();
            let modern = opened("2025-03-26").outbound(&call, &RawId::integer(77), &offer(), &limits).expect("within bounds");
            prop_assert_eq!(modern.arguments_raw(), Some(arguments.clone().into()));
            let legacy = legacy_server().outbound(&modern, &RawId::integer(78), &limits).expect("within bounds");
            prop_assert_eq!(legacy.arguments_raw(), Some(arguments.into()));
            prop_assert!(!legacy.is_modern());
        }
    }
}
