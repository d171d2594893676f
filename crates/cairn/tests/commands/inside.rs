//! What a server asks of a client inside a result: a call of its own, decided before the client sees it.

use std::net::TcpStream;

use serde_json::{Value, json};

use crate::{
    approvals::modern,
    played::{Asked, GoesOn, Played, respond, well},
    support::{Orders, events, wait_for},
};

/// The text that a client must not see.
const WORDS: &str = "say what else you know";

fn asks(asked: &Asked, stream: &mut TcpStream) -> GoesOn {
    let sure = json!({ "method": "elicitation/create",
        "params": { "mode": "form", "message": "sure?", "requestedSchema": { "type": "object", "properties": {} } } });
    let params = &asked.body["params"];
    let inside = |requests: Value| json!({ "resultType": "input_required", "inputRequests": requests });
    let result = match (asked.rpc(), params["name"].as_str().unwrap_or_default()) {
        ("server/discover", _) => json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": { "tools": {} }, "serverInfo": { "name": "asks", "version": "1" }, "ttlMs": 0, "cacheScope": "private" }),
        ("tools/call", _) if !params["inputResponses"].is_null() => {
            json!({ "resultType": "complete", "content": [{ "type": "text", "text": "done" }] })
        }
        ("tools/call", "asks") => {
            let mut result = inside(json!({ "sure": sure }));
            result["requestState"] = json!("theirs");
            result
        }
        ("tools/call", "samples") => {
            inside(json!({ "sure": sure, "think": { "method": "sampling/createMessage", "params":
            { "messages": [{ "role": "user", "content": { "type": "text", "text": WORDS } }], "maxTokens": 10 } } }))
        }
        ("tools/call", "roots") => inside(json!({ "where": { "method": "roots/list" } })),
        ("tools/call", "broken") => inside(json!({ "what": { "params": { "message": WORDS } } })),
        ("tools/call", "many") => {
            inside((0..17).map(|at| (at.to_string(), sure.clone())).collect::<serde_json::Map<_, _>>().into())
        }
        _ => return well(asked, stream),
    };
    let said = json!({ "jsonrpc": "2.0", "id": asked.body["id"], "result": result });
    respond(stream, 200, "application/json", said.to_string().as_bytes())
}

#[test]
fn what_a_server_asks_inside_a_result_is_decided_before_the_client_sees_it() {
    let server = Played::start(asks);
    let policies = r#"
        @id("all") permit(principal, action, resource);
        @id("no-sampling") forbid(principal, action == Action::"sampling/createMessage", resource);
        @id("roots-by-people") @obligation("approval") permit(principal, action == Action::"roots/list", resource);
    "#;
    let gateway = Orders::new(policies, &format!("[servers.asks]\nurl = \"{}\"\n", server.url()));
    let up = gateway.up();
    let can = json!({ "elicitation": { "form": {} }, "sampling": {}, "roots": {} });
    let call = |tool: &str, more: Value| {
        let mut params = json!({ "name": tool, "arguments": {} });
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        modern(&up.gateway, "asks", "tools/call", &params, &can, &[])
    };
    // Permitted: it passes as it is, and the answer ends it.
    let first = call("asks", json!({}));
    assert_eq!(first["result"]["inputRequests"]["sure"]["params"]["message"], "sure?", "{first}");
    let back = json!({ "inputResponses": { "sure": { "action": "accept", "content": {} } }, "requestState": "theirs" });
    assert_eq!(call("asks", back)["result"]["content"][0]["text"], "done");
    // One of two is denied: the client sees neither.
    let denied = call("samples", json!({}));
    assert_eq!(denied["error"]["data"]["determining_policies"], json!(["no-sampling"]), "{denied}");
    assert!(!denied.to_string().contains(WORDS) && !denied.to_string().contains("sure?"), "{denied}");
    // What only a person may allow, nobody holds for a server.
    let unheld = call("roots", json!({}));
    assert!(unheld["error"]["code"].is_i64() && unheld.get("result").is_none(), "{unheld}");
    // What cannot be decided on does not pass.
    for tool in ["broken", "many"] {
        let refused = call(tool, json!({}));
        assert_eq!(refused["error"]["code"], -31015, "{refused}");
        assert!(!refused.to_string().contains(WORDS), "{refused}");
    }
    let of = |events: &[Value], kind: &str, method: &str, key: &str| -> Vec<Value> {
        let wanted = events.iter().filter(|event| {
            event["type"] == kind
                && event["data"]["mcp_method_name"] == method
                && event["data"]["direction"] == "to_client"
        });
        // Each call is a workflow of its own here, so the order between them says nothing.
        let mut found: Vec<_> = wanted.map(|event| event["data"][key].clone()).collect();
        found.sort_by_key(ToString::to_string);
        found
    };
    let all = wait_for("the outcomes", || {
        let all = events(&gateway.data());
        (of(&all, "call.outcome", "elicitation/create", "outcome").len() == 2).then_some(all)
    });
    assert_eq!(of(&all, "call.decision", "elicitation/create", "decision"), ["permit", "permit"]);
    assert_eq!(of(&all, "call.intent", "elicitation/create", "mcp_method_name").len(), 2);
    assert_eq!(of(&all, "call.outcome", "elicitation/create", "outcome"), ["accepted", "cancelled"]);
    assert_eq!(
        of(&all, "call.outcome", "elicitation/create", "effect"),
        ["none", "unknown"],
        "one was shown to nobody"
    );
    wait_for("that the client came back", || {
        (of(&events(&gateway.data()), "call.settled", "elicitation/create", "state") == ["completed"]).then_some(())
    });
    assert_eq!(of(&all, "call.decision", "sampling/createMessage", "decision"), ["deny"]);
    assert_eq!(of(&all, "call.outcome", "sampling/createMessage", "outcome"), ["denied"]);
    assert!(of(&all, "call.intent", "sampling/createMessage", "call_id").is_empty());
    assert_eq!(of(&all, "call.outcome", "roots/list", "outcome"), ["denied"]);
    let asked = all.iter().filter(|event| event["type"] == "call.outcome" && event["data"]["direction"] == "to_server");
    let ends: Vec<_> = asked.filter(|event| event["data"]["mcp_method_name"] == "tools/call").collect();
    let end_of = |tool: &str| {
        let found = ends.iter().filter(|event| {
            let call = &event["data"]["call_id"];
            all.iter().any(|other| {
                other["type"] == "call.intent"
                    && other["data"]["call_id"] == *call
                    && other["data"]["gen_ai_tool_name"] == tool
            })
        });
        found.map(|event| event["data"]["outcome"].as_str().expect("a text").to_owned()).collect::<Vec<_>>()
    };
    let mut asks = end_of("asks");
    asks.sort();
    assert_eq!(asks, ["completed", "input_required"]);
    assert_eq!(end_of("samples"), ["failed"]);
    up.end();
}
