//! What operators do stands on `mcp.operators` before it takes effect, with who, in which role, and what became of it; and is
//! not done where that cannot be recorded.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    bounds::configured,
    support::{Agent, TOKEN, Up, answer, cairn, events, http, run, text, wait_for},
};

fn acted(data: &Path, act: &str) -> Vec<Value> {
    let is = |event: &Value| event["type"] == "operator.acted" && event["data"]["act"] == act;
    let mut found: Vec<Value> = events(data).into_iter().filter(is).collect();
    found.sort_by_key(|event| event["data"]["hlc"].as_str().map(str::to_owned));
    found.into_iter().map(|event| event["data"].clone()).collect()
}

fn outcomes(acts: &[Value]) -> Vec<&str> {
    acts.iter().map(|act| act["outcome"].as_str().unwrap_or_default()).collect()
}

fn post(up: &Up, token: &str, path: &str, body: &Value) -> (u16, String) {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let answer = http(&up.admin, &format!("POST {path}"), &headers, &body.to_string());
    (answer.status, answer.body)
}

#[test]
fn every_act_of_an_operator_leaves_an_event_with_who_in_which_role_and_what() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let config = configured(folder.path(), "", "");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let here = data.display().to_string();
    let person = |name: &str, roles: &str| {
        let made =
            run(cairn().args(["operator", "add", name, "--roles", roles, "--data", &here]).env("USER", "root-ann"));
        assert!(made.status.success(), "{}", text(&made.stderr));
        text(&made.stdout).trim().to_owned()
    };
    let ann = person("ann", "view,approve,policy,offsets,erase");
    let ben = person("ben", "view");

    // On the machine itself: kept first, and recorded by the running `up`.
    let added = wait_for("both", || Some(acted(&data, "operator.add")).filter(|acts| acts.len() == 2));
    assert_eq!(outcomes(&added), ["allowed", "allowed"]);
    assert_eq!(
        (added[0]["via"].as_str(), added[0]["about"].as_str()),
        (Some("command"), Some("ann view,approve,policy,offsets,erase"))
    );
    assert!(added[0]["operator"].as_str().is_some_and(|who| who.starts_with("root-ann (uid ")), "{added:?}");
    assert!(added[0].get("role").is_none() && added[0]["acted_at"].is_string());
    let removed = run(cairn().args(["operator", "remove", "nobody", "--data", &here]));
    assert!(!removed.status.success());
    let acts = wait_for("both of one", || Some(acted(&data, "operator.remove")).filter(|acts| acts.len() == 2));
    assert_eq!((outcomes(&acts), acts[0]["act_id"] == acts[1]["act_id"]), (vec!["allowed", "failed"], true));
    assert!(acts[1]["error"].as_str().is_some_and(|error| error.contains("nobody")), "{acts:?}");
    let key = run(cairn().args(["key", "new", "--principal", "ada", "--scopes", "a,b", "--data", &here]));
    assert!(key.status.success());
    let acts = wait_for("the key", || acted(&data, "key.new").first().cloned());
    assert_eq!(acts["about"], "key/ada a,b");
    wait_for("nothing waits", || fs::read_dir(data.join("acts")).expect("there").next().is_none().then_some(()));

    // At the admin address: in a role, before it takes effect.
    let agent = Agent::connect(&up.gateway, "orders");
    assert!(answer(agent.ask("get_order", &json!({ "order_id": "order-1" }))).json().get("result").is_some());
    let intent = |event: &Value| event["type"] == "call.intent";
    let principal = events(&data).iter().find(|event| intent(event)).expect("an intent")["data"]["principal"].clone();
    let whose = json!({ "subject": principal, "reason": "case 12", "operator": "somebody else" });
    assert_eq!(post(&up, &ann, "/vault/hold", &whose).0, 200);
    assert_eq!(post(&up, &ann, "/vault/erase", &whose).0, 409, "it is under hold");
    assert_eq!(post(&up, &ann, "/vault/release", &whose).0, 200);
    assert_eq!(post(&up, &ann, "/vault/erase", &whose).0, 200);
    assert_eq!(post(&up, TOKEN, "/vault/rotate", &json!({ "operator": "me" })).0, 200);
    let erasures = acted(&data, "vault.erase");
    let of = |key: &str| erasures[0][key].as_str().unwrap_or_default();
    assert_eq!((of("operator"), of("role"), of("via"), of("reason")), ("ann", "erase", "admin_api", "case 12"));
    assert_eq!(erasures[0]["about"], principal);
    assert_eq!(outcomes(&erasures), ["allowed", "failed", "allowed"]);
    assert!(erasures[1]["error"].as_str().is_some_and(|error| error.starts_with("409 ") && error.contains("case 12")));
    let erased = events(&data).into_iter().find(|event| event["type"] == "subject.erased").expect("it is erased");
    assert!(erasures[2]["hlc"].as_str() < erased["data"]["hlc"].as_str(), "recorded before it was done");
    assert_eq!(acted(&data, "vault.rotate")[0]["operator"], "me");
    // What another event tells whole is not told twice.
    assert_eq!((acted(&data, "vault.release"), acted(&data, "vault.hold")), (vec![], vec![]));
    let held = events(&data).into_iter().find(|event| event["type"] == "subject.held").expect("it was held");
    assert_eq!((&held["topic"], &held["data"]["operator"]), (&json!("mcp.operators"), &json!("ann")));
    assert_eq!(post(&up, &ann, "/vault/release", &whose).0, 400, "nobody is held");
    assert_eq!(outcomes(&acted(&data, "vault.release")), ["failed"]);
    assert_eq!(post(&up, &ann, "/approvals/ap-none/approve", &json!({})).0, 404);
    assert_eq!(outcomes(&acted(&data, "approval.approve")), ["failed"]);
    assert_eq!(post(&up, &ann, "/policy/promote", &json!({})).0, 409, "there is no shadow");
    assert_eq!(outcomes(&acted(&data, "policy.promote")), ["allowed", "failed"]);
    let changed = json!({ "server": "orders", "uri": "order://4711" });
    assert_eq!(post(&up, &ann, "/changes", &changed).0, 200);
    assert_eq!(acted(&data, "resource.changed")[0]["about"], "orders order://4711");
    assert_eq!(post(&up, &ann, "/credentials/orders/login", &json!({})).0, 404);
    assert_eq!(outcomes(&acted(&data, "credential.login")), ["allowed", "failed"]);
    let definition = json!({ "server": "orders", "kind": "tool", "name": "none" });
    assert_eq!(post(&up, &ann, "/catalogue/approve", &definition).0, 409);
    assert_eq!(outcomes(&acted(&data, "catalogue.approve")), ["allowed", "failed"]);

    // Who lacks the role is told with the role, and did nothing.
    assert_eq!(post(&up, &ben, "/vault/hold", &whose).0, 403);
    let is_refusal = |event: &Value| event["type"] == "access.refused" && event["data"]["reason"] == "role_missing";
    let refused = wait_for("the refusal", || events(&data).into_iter().find(|event| is_refusal(event)));
    let refused = &refused["data"];
    assert_eq!((&refused["principal"], &refused["scopes_missing"]), (&json!("ben"), &json!(["erase"])));
    assert_eq!(events(&data).iter().filter(|event| event["type"] == "subject.held").count(), 1);
    let everything = json!(events(&data)).to_string();
    for secret in [&ann, &ben, &TOKEN.to_owned(), &text(&key.stdout).trim().to_owned()] {
        assert!(!everything.contains(secret.as_str()), "a token is in the trail");
    }
    up.end();
}

#[test]
fn what_cannot_be_recorded_is_not_done() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    let little = "[store]\nwal_bytes_max = 131072\nwal_segment_bytes = 131072\nupload_interval_ms = 100\n";
    let config = configured(folder.path(), "", little);
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let whose = json!({ "subject": "ann", "reason": "case 12" });
    // The store is away, and the write-ahead log fills.
    fs::rename(data.join("objects"), data.join("away")).expect("moved");
    fs::write(data.join("objects"), "no folder").expect("written");
    let change = |n: usize| json!({ "server": "orders", "uri": format!("order://{n}") });
    let mut n = 0;
    wait_for("a full log", || {
        n += 1;
        (post(&up, TOKEN, "/changes", &change(n)).0 == 503).then_some(())
    });
    let master = || fs::read(data.join("vault/master.json")).expect("there");
    let before = master();
    for (path, body) in [("/vault/rotate", json!({})), ("/vault/hold", whose.clone()), ("/changes", change(0))] {
        let (status, said) = post(&up, TOKEN, path, &body);
        let refused = status == 503 && said.contains("it is not done, because it cannot be recorded");
        assert!(refused, "{path}: {status} {said}");
    }
    let held = || http(&up.admin, "GET /vault/holds", &[("authorization", &format!("Bearer {TOKEN}"))], "").body;
    assert_eq!(held(), "{\"held\":[]}", "it is not done");
    assert!(master() == before, "it is not done");
    // It is back.
    fs::remove_file(data.join("objects")).expect("removed");
    fs::rename(data.join("away"), data.join("objects")).expect("moved back");
    wait_for("a hold", || (post(&up, TOKEN, "/vault/hold", &whose).0 == 200).then_some(()));
    assert!(held().contains("ann"));
    wait_for("a rotation", || (post(&up, TOKEN, "/vault/rotate", &json!({})).0 == 200).then_some(()));
    assert!(master() != before);
    up.end();
}
