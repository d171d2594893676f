//! `cairn whatif`: the calls of the trail decided again under other policies, without a payload being shown.

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};

use crate::support::{Agent, Orders, TOKEN, cairn, events, run, text};

const LIVE: &str = r#"
    @id("all") permit(principal, action, resource);
    @id("no-deletes") forbid(principal, action == Action::"tools/call", resource == Tool::"orders/delete_order");
    @id("quiet") @mask("arguments=digest") permit(principal, action == Action::"tools/call", resource == Tool::"orders/get_order");
"#;
const NEXT: &str = r#"
    @id("all") permit(principal, action, resource);
    @id("small-refunds") forbid(principal, action == Action::"tools/call", resource == Tool::"orders/refund_order")
    when { context.arguments.amount_cents > 500 };
    @id("tickets") @obligation("approval")
    permit(principal, action == Action::"tools/call", resource == Tool::"orders/create_ticket");
    @id("quiet") @mask("arguments=digest") permit(principal, action == Action::"tools/call", resource == Tool::"orders/get_order");
"#;

fn policies(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::create_dir_all(&path).expect("a folder");
    fs::write(path.join("p.cedar"), text).expect("written");
    path.display().to_string()
}

fn whatif(data: &Path, folder: &str, token: &str, more: &[&str]) -> Output {
    let mut command = cairn();
    command.args(["whatif", "--policy", folder, "--since", "1h"]).args(more).arg("--data").arg(data);
    run(command.env("CAIRN_OPERATOR_TOKEN", token))
}

fn report(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn other_policies_decide_the_calls_of_the_trail_again_and_nobody_sees_a_payload() {
    let gateway = Orders::new(LIVE, "");
    let (data, folder) = (gateway.data(), gateway.folder.path().to_owned());
    let up = gateway.up();
    let agent = Agent::connect(&up.gateway, "orders");
    for cents in [100, 700, 800] {
        agent.call("refund_order", &json!({ "order_id": "order-1", "amount_cents": cents }));
    }
    agent.call("delete_order", &json!({ "order_id": "order-1" }));
    agent.call("create_ticket", &json!({ "title": "a word of its own" }));
    agent.call("get_order", &json!({ "order_id": "order-1" }));
    // The policies in force agree with themselves.
    let same = report(&whatif(&data, &policies(&folder, "same", LIVE), TOKEN, &["--json"]));
    let decisions = same["decisions"].as_u64().expect("a count");
    assert!(decisions >= 7, "{same}");
    assert_eq!(same["flips"], 0, "{same}");
    assert_eq!(same["undecidable"]["not_kept"], 1, "the masked one is no agreement: {same}");
    assert_eq!(same["agree"], decisions - 1, "{same}");
    // Others do not.
    let next = policies(&folder, "next", NEXT);
    let output = whatif(&data, &next, TOKEN, &["--json"]);
    let other = report(&output);
    assert_eq!((&other["decisions"], &other["flips"]), (&json!(decisions), &json!(4)), "{other}");
    let tool = |name: &str| {
        let parts = other["by_tool"].as_array().expect("a list");
        let part = parts.iter().find(|part| part["name"] == format!("orders/{name}"));
        let part = part.unwrap_or_else(|| panic!("no {name}: {other}"));
        ["decisions", "to_deny", "to_permit", "other_demands", "undecidable"]
            .map(|key| part[key].as_u64().expect("a count"))
    };
    assert_eq!(tool("refund_order"), [3, 2, 0, 0, 0]);
    assert_eq!(tool("delete_order"), [1, 0, 1, 0, 0]);
    assert_eq!(tool("create_ticket"), [1, 0, 0, 1, 0]);
    assert_eq!(tool("get_order"), [1, 0, 0, 0, 1]);
    let listed = other["listed"].as_array().expect("a list");
    let denied = listed.iter().find(|flip| flip["kind"] == "to_deny").expect("listed");
    assert_eq!((&denied["was"], &denied["would"]), (&json!(["all"]), &json!(["small-refunds"])));
    let event = events(&data).into_iter().find(|event| {
        event["topic"] == denied["topic"]
            && event["partition"] == denied["partition"]
            && event["offset"] == denied["offset"]
    });
    assert_eq!(event.expect("it is where it says")["data"]["call_id"], denied["call_id"]);
    assert!(!text(&output.stdout).contains("a word of its own"), "no payload comes back");
    let shown = whatif(&data, &next, TOKEN, &["--list", "1"]);
    let shown = text(&shown.stdout);
    assert!(shown.contains("4 otherwise") && shown.contains("of 3 decisions 2 would be denied"), "{shown}");
    assert_eq!(shown.lines().filter(|line| line.contains(" → ") && line.contains("workflow")).count(), 1, "{shown}");
    // Policies tell what is in the arguments, so whoever may not read those may not ask.
    let made = run(cairn().args(["operator", "add", "eve", "--roles", "view,policy", "--data"]).arg(&data));
    let eve = text(&made.stdout).split_whitespace().last().expect("a token").to_owned();
    let refused = whatif(&data, &next, &eve, &["--json"]);
    assert!(!refused.status.success() && text(&refused.stderr).contains("payloads"), "{refused:?}");
    // What does not compile is said, with where.
    let wrong = whatif(&data, &policies(&folder, "wrong", "permit(principal, action, resorce);"), TOKEN, &[]);
    assert!(!wrong.status.success() && text(&wrong.stderr).contains("p.cedar:1"), "{wrong:?}");
    let acts: Vec<_> = events(&data).into_iter().filter(|event| event["data"]["act"] == "policy.whatif").collect();
    assert_eq!(acts.len(), 3, "{acts:?}");
    // Whoever is erased is undecidable, not an agreement.
    let principal = std::env::var("USER").unwrap_or_else(|_| "local".to_owned());
    let mut erase = cairn();
    erase.args(["erase", "--yes", "--subject", &principal, "--data"]).arg(&data).env("CAIRN_OPERATOR_TOKEN", TOKEN);
    assert!(run(&mut erase).status.success());
    let gone = report(&whatif(&data, &next, TOKEN, &["--json"]));
    assert_eq!((&gone["flips"], &gone["agree"]), (&json!(0), &json!(0)), "{gone}");
    assert_eq!(gone["undecidable"]["erased"], decisions - 1, "{gone}");
    up.end();
}
