//! What events become: calls with their first outcome, rounds that are one, lists as they were.

use bytes::Bytes;
use serde_json::json;

use super::*;

/// An event as a consumer reads it; `number` also orders it.
fn event(number: u32, kind: &str, call: u32, more: &Value) -> (Place, StoredEvent) {
    let uuid = |number: u32| format!("01920000-0000-7000-8000-{number:012}");
    let mut value = json!({
        "workflow_id": "w", "principal": "ada", "server": "s", "hlc": format!("{number:020}-00000"),
        "direction": "to_server", "era": "modern", "mcp_method_name": "tools/call",
        "producer": { "id": uuid(900), "epoch": 1, "sequence": number }, "contract": { "name": kind, "version": 1 },
    });
    if call > 0 {
        value["call_id"] = json!(uuid(call));
    }
    value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    let headers = [
        ("ce_id", uuid(number)),
        ("ce_type", format!("io.cairn.{kind}")),
        ("ce_source", "test".to_owned()),
        ("ce_time", format!("2026-11-24T09:00:{number:02}.000000Z")),
    ];
    let headers: Vec<_> = headers.into_iter().map(|(key, value)| (key.to_owned(), Bytes::from(value))).collect();
    let event = StoredEvent::parse(Bytes::from("w"), &headers, value.to_string().as_bytes()).expect("an event");
    (Place { topic: "mcp.calls".to_owned(), partition: 0, offset: u64::from(number) }, event)
}

fn reference(name: &str) -> Value {
    json!({ "digest": format!("hmac-sha256:k:{name}"), "bytes": 2, "media_type": "application/json", "location": "vault:k/1" })
}

fn decision(number: u32, call: u32, arguments: &str, more: &Value) -> (Place, StoredEvent) {
    let mut body = json!({
        "decision": "permit", "policy_version": "v", "determining_policies": ["p"], "obligations": [], "errors": [],
        "inputs": reference("in"), "elapsed_us": 1, "gen_ai_tool_name": "t", "arguments": reference(arguments),
    });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    event(number, "call.decision", call, &body)
}

fn outcome(number: u32, call: u32, outcome: &str, more: &Value) -> (Place, StoredEvent) {
    let mut body = json!({ "outcome": outcome, "effect": "answered", "result": reference(&format!("r{number}")) });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    event(number, "call.outcome", call, &body)
}

fn gathered(events: Vec<(Place, StoredEvent)>) -> Result<Recording, GatherError> {
    let mut gathering = Gathering::new("w", None);
    // In whatever order they are read.
    events.into_iter().rev().for_each(|(at, event)| gathering.take(at, event));
    gathering.finish()
}

fn result(call: &RecordedCall) -> Option<&str> {
    Some(&call.outcome.as_ref()?.result.as_ref()?.digest)
}

#[test]
fn a_call_is_what_the_client_sent_what_was_decided_last_and_its_first_outcome() {
    let all = gathered(vec![
        decision(1, 1, "sent", &json!({})),
        decision(2, 2, "other", &json!({})),
        decision(3, 1, "rewritten", &json!({ "determining_policies": ["q"] })),
        outcome(4, 2, "failed", &json!({})),
        outcome(5, 1, "completed", &json!({})),
        outcome(6, 1, "in_doubt", &json!({})),
        // What a server asks of its client is no call to it.
        decision(7, 3, "asked", &json!({ "direction": "to_client" })),
        // Nor is what every client begins with.
        decision(8, 4, "hello", &json!({ "mcp_method_name": "initialize" })),
        outcome(9, 4, "completed", &json!({ "mcp_method_name": "initialize" })),
        decision(10, 5, "elsewhere", &json!({ "workflow_id": "x" })),
    ])
    .expect("a recording");
    assert_eq!(all.calls.len(), 2, "{all:?}");
    let first = &all.calls[0];
    assert_eq!(first.arguments.as_ref().expect("sent").digest, "hmac-sha256:k:sent");
    assert_eq!(first.decision.as_ref().expect("decided").policies, ["q"]);
    assert_eq!((result(first), result(&all.calls[1])), (Some("hmac-sha256:k:r5"), Some("hmac-sha256:k:r4")));
    let greeting = all.servers["s"].greeting.as_ref().expect("it was greeted");
    assert_eq!(greeting.digest, "hmac-sha256:k:r9");
}

#[test]
fn rounds_that_the_client_knows_nothing_of_are_one_call() {
    let rounds = |era: &str| {
        let of = |number: u32| json!({ "operation_id": "o", "round": number, "era": era });
        vec![
            decision(1, 1, "question", &of(1)),
            outcome(2, 1, "input_required", &of(1)),
            decision(3, 2, "with answers", &of(2)),
            outcome(4, 2, "completed", &of(2)),
        ]
    };
    let legacy = gathered(rounds("legacy")).expect("a recording");
    assert_eq!(legacy.calls.len(), 1, "{legacy:?}");
    assert_eq!(legacy.calls[0].arguments.as_ref().expect("sent").digest, "hmac-sha256:k:question");
    assert_eq!(result(&legacy.calls[0]), Some("hmac-sha256:k:r4"));
    assert_eq!(gathered(rounds("modern")).expect("a recording").calls.len(), 2, "a modern client makes them itself");
}

#[test]
fn lists_are_what_was_fetched_page_by_page_and_else_what_the_catalogue_held() {
    let defined = |number: u32, name: &str, digest: &str, more: &Value| {
        let mut body =
            json!({ "kind": "tool", "name": name, "digest": digest, "alerts": [], "workflow_id": "another" });
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let kind = if body.get("previous_digest").is_some() { "catalog.changed" } else { "catalog.defined" };
        event(number, kind, 0, &body)
    };
    let catalogue = || {
        vec![
            defined(1, "a", "sha256:a1", &json!({ "definition": { "name": "a", "v": 1 } })),
            defined(2, "b", "sha256:b1", &json!({ "definition": { "name": "b" } })),
            defined(
                3,
                "a",
                "sha256:a2",
                &json!({ "previous_digest": "sha256:a1", "definition": { "name": "a", "v": 2 } }),
            ),
            defined(4, "b", "sha256:none", &json!({ "previous_digest": "sha256:b1" })),
            defined(90, "late", "sha256:l", &json!({ "definition": { "name": "late" } })),
        ]
    };
    let names =
        |list: &RecordedList| -> Vec<Value> { list.items.iter().filter_map(|item| item.definition.clone()).collect() };
    let mut events = catalogue();
    events.extend([decision(5, 1, "sent", &json!({})), outcome(6, 1, "completed", &json!({}))]);
    let all = gathered(events).expect("a recording");
    let lists = &all.servers["s"].lists;
    assert_eq!((lists.len(), names(&lists[0])), (1, vec![json!({ "name": "a", "v": 2 })]), "{lists:?}");

    let page = |number: u32, name: &str, digest: &str, more: bool| {
        let mut body = json!({
            "list_kind": "tools", "digests": [{ "name": name, "digest": digest }], "count": 1, "content": reference(name),
        });
        if more {
            body["more"] = json!(true);
        }
        event(number, "context.listed", number, &body)
    };
    let mut events = catalogue();
    events.extend([
        page(5, "a", "sha256:a1", true),
        page(6, "b", "sha256:b1", false),
        page(7, "a", "sha256:a2", false),
    ]);
    let all = gathered(events).expect("a recording");
    let lists = &all.servers["s"].lists;
    assert_eq!(lists.len(), 2, "two pages are one list: {lists:?}");
    assert_eq!(names(&lists[0]), [json!({ "name": "a", "v": 1 }), json!({ "name": "b" })], "as it was then");
    assert_eq!((lists[0].pages.len(), names(&lists[1])), (2, vec![json!({ "name": "a", "v": 2 })]));
}

#[test]
fn a_workflow_of_two_tenants_is_nobodys_and_one_that_is_not_there_is_said() {
    let of = |tenant: &str| json!({ "tenant": tenant });
    let both = || vec![decision(1, 1, "x", &of("acme")), decision(2, 2, "y", &of("globex"))];
    let said = gathered(both()).expect_err("two").to_string();
    assert!(said.contains("--tenant") && said.contains("acme, globex"), "{said}");
    let mut gathering = Gathering::new("w", Some("globex".to_owned()));
    both().into_iter().for_each(|(at, event)| gathering.take(at, event));
    let one = gathering.finish().expect("one");
    assert_eq!((one.tenant.as_deref(), one.calls.len()), (Some("globex"), 1));
    assert!(matches!(gathered(Vec::new()), Err(GatherError::NoSuch { .. })));
}
