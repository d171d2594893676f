//! Contracts at work: a bad version is shipped, found and rolled back; what it refused is kept, told of, and put back.

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};

use crate::{
    obligations::Tools,
    support::{Agent, TOKEN, Up, answer, cairn, events, http, run, text, wait_for},
};

/// A next version that wants a key which nobody writes.
fn ship(folder: &Path, event: &str, version: u32) {
    let newest =
        fs::read_to_string(format!("{}/../../contracts/{event}/v{}.json", env!("CARGO_MANIFEST_DIR"), version - 1));
    let mut next: Value = serde_json::from_str(&newest.expect("published")).expect("JSON");
    next["$id"] = json!(format!("urn:cairn:contracts/{event}/v{version}.json"));
    next["properties"]["contract"]["properties"]["version"]["const"] = json!(version);
    next["properties"]["cost_center"] =
        json!({ "description": "Who pays.", "type": "string", "x-sensitivity": "internal", "x-inline": "inline" });
    next["required"].as_array_mut().expect("a list").push(json!("cost_center"));
    for example in next["examples"].as_array_mut().expect("examples") {
        example["contract"]["version"] = json!(version);
        example["cost_center"] = json!("4711");
    }
    fs::create_dir_all(folder.join(event)).expect("a folder");
    fs::write(folder.join(event).join(format!("v{version}.json")), next.to_string()).expect("written");
}

fn contract(data: &Path, arguments: &[&str]) -> Output {
    run(cairn().arg("contract").args(arguments).arg("--data").arg(data).env("CAIRN_OPERATOR_TOKEN", TOKEN))
}

#[test]
fn a_bad_contract_is_found_before_it_is_shipped_and_can_be_rolled_back_after() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, shipped) = (folder.path().join("data"), folder.path().join("contracts"));
    ship(&shipped, "call.intent", 3);
    ship(&shipped, "context.read", 3);
    let checked = run(cairn().args(["contract", "check"]).arg(&shipped));
    let said = text(&checked.stdout);
    assert!(!checked.status.success() && said.contains("call.intent v3 /cost_center: must be there"), "{said}");
    let diff = run(cairn().args(["contract", "diff", "call.intent", "--json", "--folder"]).arg(&shipped));
    let diff: Value = serde_json::from_slice(&diff.stdout).expect("JSON");
    assert_eq!((&diff["old"], &diff["new"]), (&json!(2), &json!(3)), "{diff}");

    // Shipped all the same.
    let server = Tools::start();
    let config = |more: &str| {
        let path = folder.path().join("cairn.toml");
        fs::write(&path, format!("[servers.tools]\nurl = \"{}\"\n{more}", server.server.url())).expect("written");
        Up::start(&data, &["--config", &path.display().to_string()])
    };
    let up = config(&format!("[contracts]\nfolder = {shipped:?}\n"));
    let agent = Agent::connect(&up.gateway, "tools");
    let refused = agent.call("clean", &json!({ "told": "a word of its own" }));
    assert!(refused["error"]["message"].as_str().is_some_and(|said| said.contains("call.intent")), "{refused}");
    assert_eq!(server.last(), Value::Null, "what cannot be recorded reaches no server");
    let read = json!({ "jsonrpc": "2.0", "id": 700, "method": "resources/read", "params": { "uri": "x://a" } });
    assert!(answer(agent.post(&read)).json().get("result").is_some(), "a relaxed call waits for no event");
    let rejected = wait_for("the refused events", || {
        let all: Vec<_> = events(&data).into_iter().filter(|event| event["type"] == "event.rejected").collect();
        (all.len() >= 2).then_some(all)
    });
    let one = &rejected[0];
    assert_eq!((&one["topic"], &one["data"]["rejected_version"]), (&json!("mcp.rejected"), &json!(3)));
    assert_eq!(one["data"]["reason"], "/ has no \"cost_center\"");
    assert!(one["data"]["event"]["location"].as_str().is_some_and(|at| at.starts_with("vault:")), "{one}");
    let outcomes = events(&data).into_iter().filter(|event| event["type"] == "call.outcome");
    let failed: Vec<_> = outcomes.filter(|event| event["data"]["outcome"] == "failed").collect();
    assert!(failed.len() == 1 && failed[0]["data"]["effect"] == "none", "{failed:?}");
    let metrics = http(&up.admin, "GET /metrics", &[], "").body;
    assert!(metrics.contains("cairn_recorder_events_rejected_total"), "{metrics}");
    up.end();

    // A version that wants it of what is read alone: calls go on, the event does not.
    fs::remove_dir_all(shipped.join("call.intent")).expect("removed");
    let up = config(&format!("[contracts]\nfolder = {shipped:?}\n"));
    let agent = Agent::connect(&up.gateway, "tools");
    assert!(answer(agent.post(&read)).json().get("result").is_some());
    let lost = wait_for("the refused event", || {
        let all = events(&data).into_iter();
        all.into_iter().find(|event| event["data"]["rejected_type"] == "context.read")
    });
    let id = lost["data"]["rejected_id"].as_str().expect("an id").to_owned();
    let listed = contract(&data, &["rejected"]);
    assert!(text(&listed.stdout).contains(&id), "{listed:?}");
    let still = contract(&data, &["repair", &id]);
    assert!(!still.status.success() && text(&still.stderr).contains("cost_center"), "{still:?}");
    let unknown = contract(&data, &["repair", &id, "--set", "/data/cost_center=\"4711\""]);
    assert!(!unknown.status.success() && text(&unknown.stderr).contains("writes no \"cost_center\""), "{unknown:?}");
    up.end();

    // Rolled back: new events are written by the version before, and what was refused can be put back as it was.
    let up = config("");
    let agent = Agent::connect(&up.gateway, "tools");
    assert!(agent.call("clean", &json!({})).get("result").is_some());
    let back =
        contract(&data, &["repair", &id, "--set", "/data/task=\"put back\"", "--reason", "rolled back", "--json"]);
    assert!(back.status.success(), "{back:?}");
    let place: Value = serde_json::from_slice(&back.stdout).expect("JSON");
    assert_eq!((&place["id"], &place["topic"]), (&json!(id), &json!("mcp.context")));
    let all = events(&data);
    let found: Vec<_> =
        all.iter().filter(|event| event["type"] == "context.read" && event["data"]["task"] == "put back").collect();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["offset"], &found[0]["data"]["contract"]["version"]), (&place["offset"], &json!(2)));
    let told = |event: &Value| event["data"]["act"] == "rejected.repair" && event["data"]["reason"] == "rolled back";
    assert!(all.iter().any(told), "who put what back stands in the trail");
    // An intent says that something is about to be sent; nothing was.
    let intent = all.iter().find(|event| event["data"]["rejected_type"] == "call.intent").expect("refused");
    let refused = contract(&data, &["repair", intent["data"]["rejected_id"].as_str().expect("an id")]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("was not"), "{refused:?}");
    let verified = run(cairn().args(["verify", "--data"]).arg(&data));
    assert!(verified.status.success(), "a refused event is no gap: {}", text(&verified.stdout));
    up.end();
}

#[test]
fn a_published_contract_cannot_be_another_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let shipped = folder.path().join("contracts");
    ship(&shipped, "call.outcome", 3);
    fs::rename(shipped.join("call.outcome/v3.json"), shipped.join("call.outcome/v2.json")).expect("renamed");
    let config = folder.path().join("cairn.toml");
    fs::write(&config, format!("[contracts]\nfolder = {shipped:?}\n")).expect("written");
    let mut up = cairn();
    up.args(["up", "--config"]).arg(&config).arg("--data").arg(folder.path().join("data"));
    let ended = run(up.args(["--kafka", "127.0.0.1:0", "--gateway", "127.0.0.1:0", "--admin", "127.0.0.1:0"]));
    assert!(!ended.status.success() && text(&ended.stderr).contains("publish a next version"), "{ended:?}");
}
