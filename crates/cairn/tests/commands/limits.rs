//! Limits and budgets, end to end: what is over one reaches no server, says when to try again, and leaves an event; what is
//! spent stays spent when Cairn is killed.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::{Agent, Orders, TOKEN, answer, cairn, events, http, run, text, wait_for};

const ALL: &str = "permit(principal, action, resource);\n";

fn refund(cents: &str) -> Value {
    serde_json::from_str(&format!("{{\"order_id\":\"order-1\",\"amount_cents\":{cents}}}")).expect("JSON")
}

fn look() -> Value {
    json!({ "order_id": "order-1" })
}

fn exceeded(gateway: &Orders, limit: &str) -> Vec<Value> {
    let all = events(&gateway.data()).into_iter();
    all.filter(|event| event["type"] == "limit.exceeded" && event["data"]["limit"] == limit).collect()
}

/// Ends what spins, also where a test fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The events of one limit, when there are any.
fn told(gateway: &Orders, limit: &str) -> Vec<Value> {
    wait_for("the event of a limit", || Some(exceeded(gateway, limit)).filter(|all| !all.is_empty()))
}

#[test]
fn a_rate_is_for_each_agent_and_a_flood_is_refused_before_anything_is_kept_of_it() {
    let more = "[[limits]]\nname = \"refunds\"\nserver = \"orders\"\ntool = \"refund_order\"\nrate = \"2/1h\"\nper = [\"principal\", \"workflow\"]\n";
    let gateway = Orders::new(ALL, more);
    let up = gateway.up();
    let agent = Agent::connect_in("one", &up.gateway, "orders");
    for _ in 0..2 {
        assert!(agent.call("refund_order", &refund("1")).get("result").is_some());
    }
    for _ in 0..20 {
        let refused = agent.call("refund_order", &refund("1"));
        let error = &refused["error"];
        assert_eq!((&error["code"], &error["data"]["cairn"]), (&json!(-31_019), &json!("limit_exceeded")), "{refused}");
        assert_eq!((&error["data"]["limit"], &error["data"]["allowed"]), (&json!("refunds"), &json!("2/1h")));
        let wait = error["data"]["retry_after_ms"].as_u64().expect("when");
        assert!(wait > 0 && wait <= 1_800_000, "{refused}");
    }
    assert!(agent.call("get_order", &look()).get("result").is_some(), "another tool is not counted");
    let other = Agent::connect_in("two", &up.gateway, "orders");
    assert!(other.call("refund_order", &refund("1")).get("result").is_some(), "another workflow has its own");
    assert_eq!(gateway.journal().iter().filter(|line| line.contains("refund")).count(), 3);

    let first = told(&gateway, "refunds");
    assert_eq!(first.len(), 1, "one event for now, whatever comes: {first:?}");
    let data = &first[0]["data"];
    assert_eq!((&data["dimension"], &data["source"]), (&json!("rate"), &json!("configuration")));
    assert_eq!((&data["gen_ai_tool_name"], &data["count"]), (&json!("refund_order"), &json!(1)));
    assert_eq!((&data["workflow_id"], &data["server"]), (&json!("one"), &json!("orders")));
    assert_eq!(first[0]["topic"], "mcp.operators");
    let all = events(&gateway.data());
    let decided = all
        .iter()
        .filter(|event| event["type"] == "call.decision" && event["data"]["gen_ai_tool_name"] == "refund_order");
    assert_eq!(decided.count(), 3, "what is over a rate is not even decided");
    let counted = wait_for("the count of the rest", || {
        let all = exceeded(&gateway, "refunds");
        (all.iter().filter_map(|event| event["data"]["count"].as_u64()).sum::<u64>() == 20).then_some(all)
    });
    assert!(counted.len() <= 3, "{counted:?}");
    let metrics = http(&up.admin, "GET /metrics", &[], "").body;
    assert!(metrics.contains("cairn_limits_exceeded_total{dimension=\"rate\"} 20"), "{metrics}");
    up.end();
}

#[test]
fn a_budget_survives_a_kill_and_is_exact_to_the_last_unit() {
    let more = "[[limits]]\nname = \"cents\"\ntool = \"refund_order\"\nbudget = \"100\"\ncost = \"arguments:/amount_cents\"\nper = [\"principal\"]\n";
    let gateway = Orders::new(ALL, more);
    let mut up = gateway.up();
    let agent = Agent::connect(&up.gateway, "orders");
    assert!(agent.call("refund_order", &refund("60")).get("result").is_some());
    up.process.signal("-KILL");
    up.process.wait();

    let up = gateway.up();
    let agent = Agent::connect(&up.gateway, "orders");
    let refused = agent.call("refund_order", &refund("41"));
    assert_eq!(refused["error"]["code"], -31_019, "{refused}");
    assert!(refused["error"]["data"].get("retry_after_ms").is_none(), "it is never renewed: {refused}");
    for (cents, why) in [("-5", "below zero"), ("\"5\"", "no number"), ("null", "no number")] {
        let refused = agent.call("refund_order", &refund(cents));
        assert_eq!(refused["error"]["data"]["cairn"], "no_cost", "{refused}");
        assert!(refused["error"]["message"].as_str().expect("words").contains(why), "{refused}");
    }
    assert!(agent.call("refund_order", &refund("40")).get("result").is_some(), "to the last one");
    assert_eq!(agent.call("refund_order", &refund("1"))["error"]["code"], -31_019);
    assert_eq!(gateway.journal().len(), 2);

    let data = told(&gateway, "cents")[0]["data"].clone();
    assert_eq!((&data["dimension"], &data["used"], &data["allowed"]), (&json!("budget"), &json!("60"), &json!("100")));
    // The story of a call that was over: decided, ended, never forwarded.
    let all = events(&gateway.data());
    let of_call = |kind: &str| {
        all.iter().find(|event| event["type"] == kind && event["data"]["call_id"] == data["call_id"]).cloned()
    };
    assert_eq!(of_call("call.decision").expect("decided")["data"]["decision"], "permit");
    let outcome = of_call("call.outcome").expect("ended")["data"].clone();
    assert_eq!((&outcome["outcome"], &outcome["error_type"]), (&json!("denied"), &json!("limit_exceeded")));
    assert_eq!((of_call("call.intent"), &outcome["effect"]), (None, &json!("none")));

    let shown = run(cairn().args(["limits", "--admin", &up.admin]).env("CAIRN_OPERATOR_TOKEN", TOKEN));
    let shown = text(&shown.stdout);
    assert!(shown.contains("cents budget 100 for each principal"), "{shown}");
    assert!(shown.contains("cents budget used 100 of 100 principal="), "{shown}");
    up.end();
}

#[test]
fn what_cannot_be_written_is_not_spent_and_nothing_is_forwarded() {
    let more = "[[limits]]\nname = \"calls\"\nbudget = \"2\"\n";
    let gateway = Orders::new(ALL, more);
    let up = gateway.up();
    // Where the file should be is something else.
    let file = gateway.data().join("gateway/spend.redb");
    std::fs::create_dir(&file).expect("made");
    let agent = Agent::connect(&up.gateway, "orders");
    for _ in 0..3 {
        let refused = agent.call("refund_order", &refund("1"));
        assert_eq!(refused["error"]["data"]["cairn"], "not_recorded", "{refused}");
        assert!(refused["error"]["message"].as_str().expect("words").contains("what was spent"), "{refused}");
    }
    assert!(gateway.journal().is_empty());
    std::fs::remove_dir(&file).expect("removed");
    for _ in 0..2 {
        assert!(agent.call("refund_order", &refund("1")).get("result").is_some(), "the refused ones cost nothing");
    }
    assert_eq!(agent.call("refund_order", &refund("1"))["error"]["code"], -31_019);
    assert_eq!(gateway.journal().len(), 2);
    up.end();
}

#[test]
fn what_was_not_used_is_given_back() {
    let more = "[[limits]]\nname = \"calls\"\nbudget = \"2\"\n\n[servers.gone]\nurl = \"http://127.0.0.1:9/mcp\"\n\n[gateway.limits]\nserver_connect_ms_max = 50\n";
    let policies = "permit(principal, action, resource);\n@id(\"ask\") @obligation(\"approval\") @expires(\"10m\")\npermit(principal, action, resource == Tool::\"orders/refund_order\");\n";
    let gateway = Orders::new(policies, more);
    let up = gateway.up();
    // A server that cannot be reached, and people who say no.
    let modern = |server: &str, tool: &str| {
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {} });
        let params = json!({ "name": tool, "arguments": refund("1"), "_meta": meta });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", tool),
        ];
        http(&up.gateway, &format!("POST /mcp/{server}"), &headers, &body).json()
    };
    for _ in 0..4 {
        let refused = modern("gone", "any");
        assert_eq!(refused["error"]["data"]["cairn"], "upstream_unavailable", "{refused}");
    }
    let agent = Agent::connect(&up.gateway, "orders");
    for _ in 0..2 {
        assert!(agent.call("get_order", &look()).get("result").is_some());
    }
    assert_eq!(agent.call("get_order", &look())["error"]["code"], -31_019);
    // Nobody is asked for what cannot be afforded anyway.
    assert_eq!(agent.call("refund_order", &refund("1"))["error"]["code"], -31_019);
    let bearer = format!("Bearer {TOKEN}");
    let waiting = http(&up.admin, "GET /approvals", &[("authorization", &bearer)], "").json();
    assert_eq!(waiting["waiting"], json!([]));
    up.end();
}

#[test]
fn a_policy_gives_limits_with_a_permit_and_sees_what_is_spent() {
    let policies = r#"
@id("look") @budget("2") @per("workflow")
permit(principal, action == Action::"tools/call", resource == Tool::"orders/get_order");
@id("refund") @rate("1/1h")
permit(principal, action == Action::"tools/call", resource == Tool::"orders/refund_order");
@id("half")
permit(principal, action == Action::"tools/call", resource == Tool::"orders/list_orders")
when { context has budget && context.budget.limit == "lists" && context.budget.spent_percent < 50 };
@id("rest")
permit(principal, action, resource) unless { action == Action::"tools/call" };
"#;
    let more = "[[limits]]\nname = \"lists\"\ntool = \"list_orders\"\nbudget = \"4/1d\"\n";
    let gateway = Orders::new(policies, more);
    let up = gateway.up();
    let agent = Agent::connect_in("one", &up.gateway, "orders");
    for _ in 0..2 {
        assert!(agent.call("get_order", &look()).get("result").is_some());
        assert!(agent.call("list_orders", &json!({})).get("result").is_some());
    }
    let refused = agent.call("get_order", &look());
    assert_eq!((&refused["error"]["code"], &refused["error"]["data"]["limit"]), (&json!(-31_019), &json!("look")));
    let other = Agent::connect_in("two", &up.gateway, "orders");
    assert!(other.call("get_order", &look()).get("result").is_some(), "another workflow");
    assert!(other.call("refund_order", &refund("1")).get("result").is_some());
    let refused = agent.call("refund_order", &refund("1"));
    assert_eq!(refused["error"]["data"]["limit"], "refund", "one principal, whatever the workflow: {refused}");
    let refused = agent.call("list_orders", &json!({}));
    assert_eq!(refused["error"]["data"]["cairn"], "denied", "half of it is spent: {refused}");
    let data = told(&gateway, "look")[0]["data"].clone();
    assert_eq!((&data["source"], &data["per"]), (&json!("policy"), &json!(["workflow"])));
    let all = events(&gateway.data());
    let obliged = all
        .iter()
        .filter(|event| event["type"] == "call.decision" && event["data"]["obligations"] == json!(["limits"]));
    assert_eq!(obliged.count(), 6);
    up.end();
}

#[test]
fn a_place_is_taken_while_a_call_is_held_and_free_when_it_has_ended() {
    let more = "[[limits]]\nname = \"one\"\ntool = \"refund_order\"\nconcurrency = 1\n\n[[limits]]\nname = \"looks\"\ntool = \"get_order\"\nconcurrency = 1\n\n[gateway.limits]\nhold_ms_max = 60000\n";
    let policies = "permit(principal, action, resource);\n@id(\"ask\") @obligation(\"approval\") @expires(\"10m\")\npermit(principal, action, resource == Tool::\"orders/refund_order\");\n";
    let gateway = Orders::new(policies, more);
    let up = gateway.up();
    let bearer = format!("Bearer {TOKEN}");
    let waiting = || http(&up.admin, "GET /approvals", &[("authorization", &bearer)], "").json()["waiting"].clone();
    let agent = Agent::connect(&up.gateway, "orders");
    let held = agent.ask("refund_order", &refund("1"));
    wait_for("a call that is held", || waiting().as_array().filter(|all| all.len() == 1).map(drop));
    let refused = agent.call("refund_order", &refund("2"));
    assert_eq!(refused["error"]["data"]["dimension"], "concurrency", "{refused}");
    assert_eq!(refused["error"]["data"]["retry_after_ms"], 1_000);
    let id = waiting()[0]["id"].as_str().expect("an id").to_owned();
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let said = http(&up.admin, &format!("POST /approvals/{id}/deny"), &headers, "{\"approver\":\"ann\"}");
    assert_eq!(said.status, 200, "{said:?}");
    let denied = answer(held).json();
    assert_eq!(denied["error"]["data"]["cairn"], "approval_denied", "{denied}");
    let next = agent.ask("refund_order", &refund("3"));
    wait_for("the next one", || waiting().as_array().filter(|all| all.len() == 1).map(drop));
    drop(next);
    // Whoever has its answer has its place back, also where the gateway gets little of the processor.
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let ends = Ends(&is_over);
        let looked: Vec<Value> = (0..200).map(|_| agent.call("get_order", &look())).collect();
        drop(ends);
        // A disk that is busy for seconds may stop a call too; that is not what is asked here.
        let is_recorded = |looked: &&Value| looked["error"]["data"]["cairn"] != "not_recorded";
        let mut refused = looked.iter().filter(|looked| looked.get("result").is_none()).filter(is_recorded);
        assert_eq!(refused.next(), None);
    });
    up.end();
}
