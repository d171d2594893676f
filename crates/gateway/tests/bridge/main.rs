//! Bridging between the protocol eras, through a whole gateway: real child processes as servers, pipes as clients, the
//! trail in memory. What the SDKs of other people do with it is in `clients/mcp/bridging`.

mod bench;
mod server;

use std::{collections::BTreeSet, time::Duration};

use cairn_contract::StoredEvent;
use serde_json::{Value, json};

use bench::{Bench, MODERN, body, modern};

fn initialize(revision: &str, capabilities: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": "open", "method": "initialize", "params": {
        "protocolVersion": revision, "capabilities": capabilities, "clientInfo": {"name": "old", "version": "1"}}})
}

fn call(id: u64, tool: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": {"n": 1}}})
}

/// The events of one type, of calls of one method, in order.
fn of<'e>(events: &'e [StoredEvent], type_name: &str, method: &str) -> Vec<&'e StoredEvent> {
    let found =
        |event: &&StoredEvent| event.type_name == type_name && event.common.mcp_method_name.as_deref() == Some(method);
    events.iter().filter(found).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_client_of_any_revision_is_served_by_a_modern_server() {
    let bench = Bench::new(|_| {}).await;
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let mut client = bench.pipe("modern", "ada").await;
        client.send(&initialize(revision, &json!({}))).await;
        let opened = client.answer("open").await;
        assert_eq!(opened["result"]["protocolVersion"], revision);
        assert_eq!(opened["result"]["serverInfo"]["name"], "modern");
        client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
        client.send(&json!({"jsonrpc": "2.0", "id": 2, "method": "ping"})).await;
        assert_eq!(client.answer(2).await["result"], json!({}));
        client.send(&call(3, "echo")).await;
        let told = client.answer(3).await;
        assert_eq!(told["result"]["content"][0]["text"], r#"{"n":1}"#);
        assert_eq!(told["result"].get("resultType"), None);
        for (id, task) in [
            (4, call(4, "echo")),
            (5, json!({"jsonrpc": "2.0", "id": 5, "method": "tasks/get", "params": {"taskId": "t"}})),
        ] {
            let mut task = task;
            if id == 4 {
                task["params"]["task"] = json!({"ttl": 1});
            }
            client.send(&task).await;
            let refused = client.answer(id).await;
            assert_eq!(refused["error"]["code"], -31011, "{refused}");
            assert_eq!(refused["error"]["data"]["cairn"], "not_bridged");
        }
        client.close().await;
    }
    let events = bench.calls().await;
    for intent in of(&events, "call.intent", "tools/call") {
        assert_eq!(intent.common.era, Some(cairn_contract::Era::Legacy), "the client's");
        assert_eq!(body(intent)["upstream"], "modern", "the server's");
    }
    assert!(of(&events, "call.intent", "initialize").is_empty(), "Cairn answers the handshake");
    assert_eq!(of(&events, "call.outcome", "initialize").len(), 4);
    assert!(of(&events, "call.decision", "server/discover").is_empty(), "probes leave no call");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_round_is_a_call_of_its_own_and_so_is_each_question() {
    let bench = Bench::new(|_| {}).await;
    let mut client = bench.pipe("modern", "ada").await;
    client.send(&initialize("2025-06-18", &json!({"elicitation": {}}))).await;
    client.answer("open").await;
    client.send(&call(7, "book")).await;
    for (words, field) in [("who?", "name"), ("when?", "day")] {
        let asked = client.request("elicitation/create").await;
        assert_eq!(asked["params"]["message"], words);
        assert_eq!(asked["params"].get("mode"), None, "this revision has no modes");
        let answer = json!({"action": "accept", "content": {field: field}});
        client.send(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": answer})).await;
    }
    let told = client.answer(7).await;
    assert_eq!(told["result"]["content"][0]["text"], "name on day", "{told}");
    client.close().await;

    let events = bench.calls().await;
    let intents = of(&events, "call.intent", "tools/call");
    let outcomes = of(&events, "call.outcome", "tools/call");
    assert_eq!(intents.len(), 3, "one for each round");
    let ends: Vec<_> = outcomes.iter().map(|outcome| body(outcome)["outcome"].clone()).collect();
    assert_eq!(ends, [json!("input_required"), json!("input_required"), json!("completed")]);
    let operations: BTreeSet<_> = outcomes.iter().map(|outcome| outcome.common.operation_id.clone()).collect();
    assert_eq!(operations.len(), 1);
    assert_eq!(operations.first(), Some(&outcomes[0].common.call_id.map(|id| id.to_string())));
    let rounds: Vec<_> = outcomes.iter().map(|outcome| outcome.common.round).collect();
    assert_eq!(rounds, [Some(1), Some(2), Some(3)]);
    assert!(intents[1..].iter().all(|intent| intent.common.linked_by == Some(cairn_contract::LinkedBy::RequestState)));
    let workflows: BTreeSet<_> = events.iter().map(|event| event.common.workflow_id.clone()).collect();
    assert_eq!(workflows.len(), 1, "all of it is one workflow");
    for kind in ["call.decision", "call.intent", "call.outcome"] {
        let asked = of(&events, kind, "elicitation/create");
        assert_eq!(asked.len(), 2, "{kind} for each question");
        assert!(asked.iter().all(|event| event.common.direction == Some(cairn_contract::Direction::ToClient)));
    }
    // What was digested is what arrived.
    let arrived: BTreeSet<_> = bench.journal().iter().map(|line| bench.digest(line.as_bytes())).collect();
    for intent in intents {
        let forwarded = body(intent)["forwarded"].as_str().unwrap_or_default().to_owned();
        assert!(arrived.contains(&forwarded), "an intent names bytes that the server did not get");
    }
    // The server's state went back byte for byte.
    assert!(bench.journal().iter().any(|line| line.contains(r#""requestState":"s\u0074ate 1""#)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_gives_an_error_for_input_ends_the_operation() {
    let bench = Bench::new(|_| {}).await;
    let mut client = bench.pipe("modern", "ada").await;
    client.send(&initialize("2025-11-25", &json!({"elicitation": {}}))).await;
    client.answer("open").await;
    client.send(&call(1, "book")).await;
    let asked = client.request("elicitation/create").await;
    client.send(&json!({"jsonrpc": "2.0", "id": asked["id"], "error": {"code": -1, "message": "not now"}})).await;
    let told = client.answer(1).await;
    assert_eq!(told["error"]["data"]["cairn"], "input_refused");
    assert!(told["error"]["message"].as_str().unwrap_or_default().contains("not now"));
    client.send(&call(2, "greet")).await;
    let told = client.answer(2).await;
    assert_eq!(told["error"]["data"]["cairn"], "not_bridged", "sampling was not declared: {told}");
    client.send(&call(3, "endless")).await;
    let told = loop {
        let message = client.next().await;
        if message["id"] == 3 {
            break message;
        }
        client.send(&json!({"jsonrpc": "2.0", "id": message["id"], "result": {"action": "decline"}})).await;
    };
    assert_eq!(told["error"]["data"]["cairn"], "too_many_rounds");
    client.close().await;
    let events = bench.calls().await;
    let endless = of(&events, "call.intent", "tools/call");
    let endless = endless.iter().filter(|intent| body(intent)["gen_ai_tool_name"] == "endless").count();
    assert_eq!(endless, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_client_answers_a_legacy_servers_question_by_a_retry() {
    let bench = Bench::new(|_| {}).await;
    let mut client = bench.pipe("legacy", "ada").await;
    client.send(&modern(1, "server/discover", json!({}))).await;
    let found = client.answer(1).await;
    assert_eq!(found["result"]["supportedVersions"], json!([MODERN]));
    assert_eq!(found["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "legacy");
    client.send(&modern(2, "tools/list", json!({}))).await;
    let listed = client.answer(2).await;
    assert_eq!(listed["result"]["resultType"], "complete");
    assert_eq!((&listed["result"]["ttlMs"], &listed["result"]["cacheScope"]), (&json!(0), &json!("private")));

    let params = json!({"name": "book", "arguments": {"n": 1}});
    client.send(&modern(3, "tools/call", params.clone())).await;
    let asks = client.answer(3).await;
    assert_eq!(asks["result"]["resultType"], "input_required", "{asks}");
    let (key, asked) = first(&asks["result"]["inputRequests"]);
    assert_eq!(asked["method"], "elicitation/create");
    let state = asks["result"]["requestState"].clone();

    // Somebody else, another request, and a changed state get nothing out of it.
    let mut eve = bench.pipe("legacy", "eve").await;
    let with = |id: u64, tool: &str, state: &Value| {
        let answers = json!({&key: {"action": "accept", "content": {"name": "Ada"}}});
        let params = json!({"name": tool, "arguments": {"n": 1}, "inputResponses": answers, "requestState": state});
        modern(id, "tools/call", params)
    };
    eve.send(&with(3, "book", &state)).await;
    assert_eq!(eve.answer(3).await["error"]["data"]["cairn"], "bad_request_state");
    eve.close().await;
    client.send(&with(4, "echo", &state)).await;
    assert_eq!(client.answer(4).await["error"]["data"]["cairn"], "bad_request_state");
    client.send(&with(5, "book", &json!("AAAA"))).await;
    assert_eq!(client.answer(5).await["error"]["data"]["cairn"], "bad_request_state");
    client.send(&modern(6, "tools/call", json!({"name": "book", "arguments": {"n": 1}, "requestState": state}))).await;
    let told = client.answer(6).await;
    assert!(told["error"]["message"].as_str().unwrap_or_default().contains("inputResponses"), "{told}");

    // Other calls go on beside the one that waits.
    client.send(&modern(7, "tools/call", json!({"name": "echo", "arguments": {"n": 2}}))).await;
    assert_eq!(client.answer(7).await["result"]["content"][0]["text"], r#"{"n":2}"#);

    client.send(&with(8, "book", &state)).await;
    let told = client.answer(8).await;
    assert_eq!(told["result"]["content"][0]["text"], "Ada", "{told}");
    assert_eq!(told["result"]["resultType"], "complete");
    client.send(&with(9, "book", &state)).await;
    assert_eq!(client.answer(9).await["error"]["data"]["cairn"], "bad_request_state", "a state is good once");
    client.close().await;

    let events = bench.calls().await;
    assert!(of(&events, "call.intent", "server/discover").is_empty(), "Cairn answers it");
    assert!(of(&events, "call.decision", "initialize").is_empty(), "the handshake is Cairn's own");
    let outcomes = of(&events, "call.outcome", "tools/call");
    let rounds: Vec<_> = outcomes.iter().filter(|outcome| outcome.common.operation_id.is_some()).collect();
    let ends: Vec<_> =
        rounds.iter().map(|outcome| (body(outcome)["outcome"].clone(), body(outcome)["effect"].clone())).collect();
    assert_eq!(ends.first(), Some(&(json!("input_required"), json!("answered"))));
    assert!(ends.contains(&(json!("completed"), json!("answered"))));
    let asked = of(&events, "call.outcome", "elicitation/create");
    assert_eq!(asked.iter().map(|event| body(event)["outcome"].clone()).collect::<Vec<_>>(), [json!("completed")]);
    assert_eq!(asked[0].common.era, Some(cairn_contract::Era::Modern), "the client's");
    let arrived: BTreeSet<_> = bench.journal().iter().map(|line| bench.digest(line.as_bytes())).collect();
    for intent in of(&events, "call.intent", "tools/call") {
        let forwarded = body(intent)["forwarded"].as_str().unwrap_or_default().to_owned();
        assert!(arrived.contains(&forwarded), "an intent names bytes that the server did not get");
        assert_eq!(body(intent)["upstream"], "legacy");
    }
}

fn first(requests: &Value) -> (String, Value) {
    let (key, asked) = requests.as_object().and_then(|requests| requests.iter().next()).expect("a request");
    (key.clone(), asked.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_nobody_answers_ends_and_so_does_the_call_at_the_server() {
    let bench = Bench::new(|limits| limits.input_wait_max = Duration::from_millis(300)).await;
    let mut client = bench.pipe("legacy", "ada").await;
    let params = json!({"name": "book", "arguments": {}});
    client.send(&modern(1, "tools/call", params.clone())).await;
    let asks = client.answer(1).await;
    let state = asks["result"]["requestState"].clone();
    bench.journal_has("notifications/cancelled").await;
    let (key, _) = first(&asks["result"]["inputRequests"]);
    let late =
        json!({"name": "book", "arguments": {}, "inputResponses": {key: {"action": "decline"}}, "requestState": state});
    client.send(&modern(2, "tools/call", late)).await;
    let told = client.answer(2).await;
    assert_eq!(told["error"]["code"], -31014);
    client.close().await;
    let events = bench.calls().await;
    let asked = of(&events, "call.outcome", "elicitation/create");
    assert_eq!(asked.len(), 1);
    assert_eq!(body(asked[0])["outcome"], "timed_out");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_away_leaves_nothing_open() {
    let bench = Bench::new(|_| {}).await;
    let mut client = bench.pipe("legacy", "ada").await;
    client.send(&modern(1, "tools/call", json!({"name": "book", "arguments": {}}))).await;
    client.answer(1).await;
    client.send(&modern(2, "tools/call", json!({"name": "sleep", "arguments": {}}))).await;
    bench.journal_has("\"sleep\"").await;
    client.close().await;
    let mut client = bench.pipe("modern", "ada").await;
    client.send(&initialize("2025-06-18", &json!({"elicitation": {}}))).await;
    client.answer("open").await;
    client.send(&call(1, "book")).await;
    client.request("elicitation/create").await;
    client.close().await;
    // `calls` waits until every decided call has its outcome.
    let events = bench.calls().await;
    for outcome in of(&events, "call.outcome", "elicitation/create") {
        assert_eq!(body(outcome)["outcome"], "cancelled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_call_is_cancelled_at_the_server_in_either_era() {
    let bench = Bench::new(|_| {}).await;
    let mut client = bench.pipe("legacy", "ada").await;
    client.send(&modern(1, "tools/call", json!({"name": "sleep", "arguments": {}}))).await;
    bench.journal_has("\"sleep\"").await;
    let cancel = |id: u64| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
    client.send(&cancel(1)).await;
    bench.journal_has("notifications/cancelled").await;
    client.send(&modern(2, "tools/list", json!({}))).await;
    assert!(client.answer(2).await["result"]["tools"].is_array(), "calls go on");
    client.close().await;
    bench.clear_journal();
    let mut client = bench.pipe("modern", "ada").await;
    client.send(&initialize("2025-06-18", &json!({}))).await;
    client.answer("open").await;
    client.send(&call(5, "sleep")).await;
    bench.journal_has("\"sleep\"").await;
    client.send(&cancel(5)).await;
    bench.journal_has("notifications/cancelled").await;
    client.close().await;
    let events = bench.calls().await;
    let ends: Vec<_> =
        of(&events, "call.outcome", "tools/call").iter().map(|event| body(event)["outcome"].clone()).collect();
    assert_eq!(ends, [json!("cancelled"), json!("cancelled")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_legacy_server_asks_outside_of_a_call_gets_an_error() {
    let bench = Bench::new(|_| {}).await;
    let mut client = bench.pipe("forward", "ada").await;
    client.send(&modern(1, "tools/list", json!({}))).await;
    let answer = client.answer(1).await;
    assert_eq!(answer["result"]["tools"], json!([]), "{answer}");
    bench.journal_has("-31011").await;
    client.close().await;
    let events = bench.calls().await;
    assert!(of(&events, "call.intent", "roots/list").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_both_eras_is_used_in_the_clients_and_not_one_byte_changes() {
    let bench = Bench::new(|_| {}).await;
    let mut client = bench.pipe("both", "ada").await;
    let open = r#"{"jsonrpc":"2.0", "id":"open","method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"old","version":"1"}}}"#;
    client.send_text(open).await;
    assert_eq!(client.answer("open").await["result"]["protocolVersion"], "2025-03-26");
    client.close().await;
    assert!(bench.journal().iter().any(|line| line == open));
    let mut client = bench.pipe("both", "ada").await;
    let list = r#"{"jsonrpc":"2.0", "id":1.0,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{ }}}}"#;
    client.send_text(list).await;
    assert_eq!(client.next().await["id"], 1.0);
    client.close().await;
    assert!(bench.journal().iter().any(|line| line == list));
    // The second pipe of the same command was not probed again.
    let probes = bench.journal().iter().filter(|line| line.contains("cairn-probe")).count();
    assert_eq!(probes, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_and_list_changes_reach_a_legacy_client() {
    let bench = Bench::new(|_| {}).await;
    let mut client = bench.pipe("modern", "ada").await;
    client.send(&initialize("2025-06-18", &json!({}))).await;
    let opened = client.answer("open").await;
    assert!(opened["result"].is_object(), "{opened}");
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    let changed = client.notification("notifications/tools/list_changed").await;
    assert_eq!(
        changed["params"].get("_meta").and_then(|meta| meta.get("io.modelcontextprotocol/subscriptionId")),
        None
    );
    client
        .send(&json!({"jsonrpc": "2.0", "id": 2, "method": "resources/subscribe", "params": {"uri": "test://a"}}))
        .await;
    assert_eq!(client.answer(2).await["result"], json!({}));
    let updated = client.notification("notifications/resources/updated").await;
    assert_eq!(updated["params"]["uri"], "test://a");
    client
        .send(&json!({"jsonrpc": "2.0", "id": 3, "method": "resources/unsubscribe", "params": {"uri": "test://a"}}))
        .await;
    assert_eq!(client.answer(3).await["result"], json!({}));
    bench.journal_has("notifications/cancelled").await;
    client.close().await;
    let events = bench.calls().await;
    let listens = of(&events, "call.intent", "subscriptions/listen");
    assert_eq!(listens.len(), 2, "a subscription is a call: decided, meant, ended");
    assert_eq!(of(&events, "call.outcome", "subscriptions/listen").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listen_stream_of_a_modern_client_subscribes_at_a_legacy_server() {
    let bench = Bench::new(|_| {}).await;
    let mut client = bench.pipe("legacy", "ada").await;
    let filter = json!({"notifications": {"toolsListChanged": true, "resourceSubscriptions": ["test://a"]}});
    client.send(&modern(1, "subscriptions/listen", filter)).await;
    let honoured = client.notification("notifications/subscriptions/acknowledged").await;
    assert_eq!(honoured["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);
    let updated = client.notification("notifications/resources/updated").await;
    assert_eq!(updated["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);
    client.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})).await;
    bench.journal_has("resources/unsubscribe").await;
    client.close().await;
    let events = bench.calls().await;
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        assert_eq!(of(&events, "call.intent", method).len(), 1, "{method} is a call like any other");
    }
    assert!(of(&events, "call.intent", "subscriptions/listen").is_empty(), "Cairn serves it");
}
