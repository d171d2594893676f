//! Payloads that stand in the events themselves: where a contract permits it, and with what the server calls sensitive masked.

use std::{fs, net::TcpStream};

use serde_json::{Value, json};

use crate::{
    played::{Asked, GoesOn, Played, respond, well_with_sessions},
    support::{Agent, Up, answer, events, text},
};

fn pays(asked: &Asked, stream: &mut TcpStream) -> GoesOn {
    let result = match asked.rpc() {
        "tools/list" => json!({ "tools": [
            { "name": "pay", "inputSchema": { "type": "object", "properties": {
                "to": { "type": "string" }, "pin": { "type": "string", "format": "password" },
              } }, "outputSchema": { "type": "object", "properties": { "owner": { "type": "string", "x-classification": "personal" } } } },
            { "name": "note", "inputSchema": { "type": "object" } },
        ] }),
        "tools/call" if asked.body["params"]["name"] == "pay" => json!({
            "content": [{ "type": "text", "text": "{\"owner\":\"Grace Hopper\"}" }],
            "structuredContent": { "owner": "Grace Hopper", "paid": 7 },
        }),
        _ => return well_with_sessions(asked, stream),
    };
    let said = json!({ "jsonrpc": "2.0", "id": asked.body["id"], "result": result });
    respond(stream, 200, "application/json", said.to_string().as_bytes())
}

#[test]
fn a_payload_stands_in_its_event_where_that_is_permitted_and_wanted_and_masked() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Played::start(pays);
    let config = format!(
        "[servers.bank]\nurl = \"{}\"\n[vault]\nmode = \"inline\"\ninline_bytes_max = 4000\n\
         [[vault.rules]]\ncontract = \"call.outcome\"\nname = \"note\"\nmode = \"digest\"\n",
        server.url()
    );
    fs::write(folder.path().join("cairn.toml"), config).expect("written");
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &folder.path().join("cairn.toml").display().to_string()]);
    let agent = Agent::connect(&up.gateway, "bank");
    // Nobody has listed the tools yet, so nobody knows what is sensitive in them.
    assert!(agent.call("pay", &json!({ "to": "first", "pin": "violet-8341" })).get("result").is_some());
    answer(agent.post(&json!({ "jsonrpc": "2.0", "id": 800, "method": "tools/list" })));
    let arguments = json!({ "to": "second", "pin": "violet-8342", "key": "AKIAQ7XDEMO3CANARY22", "amount": 9_007_199_254_740_993_u64 });
    assert!(agent.call("pay", &arguments).get("result").is_some());
    assert!(agent.call("note", &json!({ "text": "x".repeat(5_000) })).get("result").is_some());
    assert!(agent.call("note", &json!({ "text": "short" })).get("result").is_some());
    let events = events(&data);
    let of = |kind: &str, key: &str| -> Vec<Value> {
        let wanted =
            events.iter().filter(|event| event["type"] == kind && event["data"]["mcp_method_name"] == "tools/call");
        wanted.map(|event| event["data"][key].clone()).collect()
    };
    let (intents, decisions, outcomes) =
        (of("call.intent", "arguments"), of("call.decision", "arguments"), of("call.outcome", "result"));
    assert_eq!(intents, decisions, "what was decided on is what was meant");
    let first = &intents[0];
    assert!(
        first.get("inline").is_none() && first["location"].as_str().is_some_and(|at| at.starts_with("vault:")),
        "{first}"
    );
    let inline: Value = serde_json::from_str(intents[1]["inline"].as_str().expect("inline")).expect("JSON");
    assert_eq!(inline["to"], "second");
    assert_eq!(inline["amount"], arguments["amount"], "a number is as it was written");
    assert_eq!(inline["pin"], "[masked:class-secret]", "{inline}");
    assert!(inline["key"].as_str().is_some_and(|key| key.starts_with("[masked:")), "{inline}");
    assert!(intents[1].get("location").is_none(), "it is kept once");
    assert_eq!(intents[1]["bytes"], arguments.to_string().len());
    assert!(intents[2].get("inline").is_none(), "it is longer than the bound");
    assert_eq!(intents[3]["inline"], json!({ "text": "short" }).to_string());
    let paid: Value = serde_json::from_str(outcomes[1]["inline"].as_str().expect("inline")).expect("JSON");
    assert_eq!(paid["structuredContent"], json!({ "owner": "[masked:class-personal]", "paid": 7 }));
    assert!(!outcomes[1].to_string().contains("Hopper"), "{}", outcomes[1]);
    assert!(outcomes[2].get("inline").is_none() && outcomes[2].get("location").is_none(), "{}", outcomes[2]);
    let inputs = of("call.decision", "inputs");
    assert!(inputs[3]["bytes"].as_u64().is_some_and(|bytes| bytes < 4_000), "there would be room: {}", inputs[3]);
    for inputs in inputs {
        assert!(inputs.get("inline").is_none(), "what is known of a principal stands in no event");
    }
    assert!(!text(&serde_json::to_vec(&events).expect("JSON")).contains("violet-83"), "no event shows a PIN");
    up.end();
}
