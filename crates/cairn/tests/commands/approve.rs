//! `cairn approve` and `cairn deny`, as the person at the other side of a held call uses them.

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};

use crate::support::{Agent, TOKEN, Up, answer, cairn, events, orders, run, text, wait_for};

const POLICY: &str = r#"permit(principal, action, resource);
@id("ask") @obligation("approval")
permit(principal, action, resource == Tool::"orders/refund_order");
"#;

fn operator(data: &Path, arguments: &[&str]) -> Output {
    run(cairn().args(arguments).arg("--data").arg(data).env("CAIRN_OPERATOR_TOKEN", TOKEN))
}

/// The one call that waits.
fn waiting(data: &Path) -> Value {
    wait_for("the hold", || {
        let listed = operator(data, &["approve", "--json"]);
        assert!(listed.status.success(), "{}", text(&listed.stderr));
        let value: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
        value["waiting"].as_array().expect("a list").first().cloned()
    })
}

#[test]
fn a_held_call_goes_on_when_approved_ends_when_denied_and_expires_by_itself() {
    let folder = tempfile::tempdir().expect("a folder");
    let servers: Value = serde_json::from_slice(&fs::read(orders(folder.path())).expect("there")).expect("JSON");
    let orders = &servers["mcpServers"]["orders"];
    let config = folder.path().join("cairn.toml");
    let toml = format!(
        "[gateway.limits]\nhold_ms_max = 30000\n\n[servers.orders]\ncommand = {}\nargs = {}\n",
        orders["command"], orders["args"]
    );
    fs::write(&config, &toml).expect("written");
    fs::create_dir(folder.path().join("policies")).expect("a folder");
    fs::write(folder.path().join("policies/p.cedar"), POLICY).expect("written");
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let journal = || fs::read_to_string(folder.path().join("journal.txt")).unwrap_or_default();
    let agent = Agent::connect_in("w-approvals", &up.gateway, "orders");
    let refund = |cents: u64| {
        agent.ask("refund_order", &json!({ "order_id": "order-1", "amount_cents": cents, "note": "\u{202e}" }))
    };

    // Approved: who looks sees the exact arguments, and until when.
    let asked = refund(700);
    let hold = waiting(&data);
    let id = hold["id"].as_str().expect("an id").to_owned();
    let shown = text(&operator(&data, &["approve"]).stdout);
    for part in
        [id.as_str(), "orders/refund_order", "\"amount_cents\":700", "w-approvals", "policy sha256:", "expires 2"]
    {
        assert!(shown.contains(part), "{part} is missing: {shown}");
    }
    assert!(shown.contains("\\u{202e}") && !shown.contains('\u{202e}'), "nothing hides in what is approved: {shown}");
    assert!(journal().is_empty(), "nothing reaches the server before the approval");
    let approved = operator(&data, &["approve", &id]);
    assert!(approved.status.success(), "{}", text(&approved.stderr));
    assert!(answer(asked).json().get("result").is_some());
    assert_eq!(journal().lines().count(), 1);
    let again = operator(&data, &["approve", &id]);
    assert_eq!(again.status.code(), Some(3), "an approval counts once: {}", text(&again.stderr));

    // Denied, with a reason.
    let asked = refund(800);
    let id = waiting(&data)["id"].as_str().expect("an id").to_owned();
    assert!(operator(&data, &["deny", &id, "--reason", "not today"]).status.success());
    let refused = answer(asked).json();
    assert_eq!(refused["error"]["code"], -31_002, "{refused}");
    assert!(refused["error"]["message"].as_str().expect("words").contains("not today"));

    // Only with the operator's token.
    let asked = refund(900);
    let id = waiting(&data)["id"].as_str().expect("an id").to_owned();
    let none = run(cairn().args(["approve", &id, "--data"]).arg(&data));
    assert!(!none.status.success() && text(&none.stderr).contains("CAIRN_OPERATOR_TOKEN"), "{}", text(&none.stderr));
    let wrong = run(cairn()
        .args(["approve", &id, "--data"])
        .arg(&data)
        .env("CAIRN_OPERATOR_TOKEN", "cairn-op-wrong-wrong-wrong"));
    assert!(
        !wrong.status.success() && text(&wrong.stderr).contains("not the operator's token"),
        "{}",
        text(&wrong.stderr)
    );
    // A new token counts at once, and the old one no more.
    let new = run(cairn().args(["operator", "new", "--data"]).arg(&data));
    let token = text(&new.stdout).trim().to_owned();
    assert!(!operator(&data, &["approve", &id]).status.success());
    let settled = run(cairn().args(["deny", &id, "--data"]).arg(&data).env("CAIRN_OPERATOR_TOKEN", &token));
    assert!(settled.status.success(), "{}", text(&settled.stderr));
    assert_eq!(answer(asked).json()["error"]["code"], -31_002);
    up.end();

    // Nobody answers: it expires, and the trail says so.
    fs::write(&config, toml.replace("30000", "400")).expect("written");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let agent = Agent::connect(&up.gateway, "orders");
    let expired = agent.call("refund_order", &json!({ "order_id": "order-1", "amount_cents": 1 }));
    assert_eq!(expired["error"]["code"], -31_003, "{expired}");
    assert_eq!(journal().lines().count(), 1, "of all these only the approved one was executed");
    let all = events(&data);
    let mut states: Vec<_> = all
        .iter()
        .filter(|event| event["type"] == "call.approval")
        .map(|event| event["data"]["state"].to_string())
        .collect();
    states.sort();
    let expected = ["approved", "denied", "denied", "expired", "requested", "requested", "requested", "requested"]
        .map(|s| format!("{s:?}"));
    assert_eq!(states, expected);
    up.end();
    let nobody = run(cairn().args(["approve", "--admin", "127.0.0.1:9"]).env("CAIRN_OPERATOR_TOKEN", TOKEN));
    assert_eq!(nobody.status.code(), Some(4), "{}", text(&nobody.stderr));
}
