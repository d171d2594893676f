//! `cairn policy`: what it says without a running Cairn, and that it is what the gateway decides.

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};

use crate::support::{Agent, TOKEN, Up, cairn, events, http, orders, run, text, wait_for};

const POLICIES: &str = r#"@id("all") permit(principal, action, resource) when { action != Action::"tools/call" };
@id("looking")
permit(principal, action == Action::"tools/call", resource in Server::"orders")
when { context has hints && context.hints has readOnlyHint && context.hints.readOnlyHint && context has tool_digest };
@id("small-refunds") @durability("strict")
permit(principal in Group::"support", action == Action::"tools/call", resource == Tool::"orders/refund_order")
when { context has arguments && context.arguments has amount_cents && context.arguments.amount_cents < 1000 };
@id("strict-lists") @durability("strict") permit(principal, action == Action::"tools/list", resource);
"#;

const CASES: &str = r#"
[[case]]
name = "a small refund"
principal = "ada"
action = "tools/call"
resource = 'Tool::"orders/refund_order"'
arguments = { amount_cents = 700 }
expect = { decision = "permit", determining = ["small-refunds"], obligations = ["durability"] }

[[case]]
principal = 'Agent::"bot"'
action = "tools/call"
resource = 'Tool::"orders/refund_order"'
arguments = { amount_cents = 700 }
expect = { decision = "deny", determining = [] }
"#;

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).expect("a folder");
    fs::write(policies.join("p.cedar"), POLICIES).expect("written");
    let ada = json!([{ "uid": { "type": "User", "id": "ada" }, "parents": [{ "type": "Group", "id": "support" }] }]);
    fs::write(policies.join("entities.json"), ada.to_string()).expect("written");
    fs::write(folder.path().join("cases.toml"), CASES).expect("written");
    folder
}

fn policy(folder: &Path, arguments: &[&str]) -> Output {
    run(cairn().arg("policy").args(arguments).current_dir(folder))
}

#[test]
fn cases_are_run_and_a_wrong_one_says_why() {
    let folder = folder();
    let passed = policy(folder.path(), &["test", "--policies", "policies", "cases.toml"]);
    assert!(passed.status.success(), "{}{}", text(&passed.stdout), text(&passed.stderr));
    assert!(text(&passed.stdout).contains("2 passed, 0 failed"));

    let json = json!({ "case": [{
        "name": "a large one", "principal": "ada", "action": "tools/call", "resource": "Tool::\"orders/refund_order\"",
        "arguments": { "amount_cents": 7000 }, "expect": { "decision": "permit" },
    }] });
    fs::write(folder.path().join("wrong.json"), json.to_string()).expect("written");
    let failed = policy(folder.path(), &["test", "--policies", "policies", "cases.toml", "wrong.json"]);
    let said = text(&failed.stdout);
    assert_eq!(failed.status.code(), Some(1), "{said}");
    for part in ["a large one", "expected permit, decided deny", "nearest is small-refunds", "2 passed, 1 failed"] {
        assert!(said.contains(part), "{part} is missing: {said}");
    }

    fs::write(folder.path().join("typo.toml"), CASES.replace("decision", "decison")).expect("written");
    let typo = policy(folder.path(), &["test", "--policies", "policies", "typo.toml"]);
    assert!(!typo.status.success() && text(&typo.stderr).contains("typo.toml"), "{}", text(&typo.stderr));
}

#[test]
fn a_folder_is_checked_as_up_would_and_the_schema_is_the_published_one() {
    let folder = folder();
    let good = policy(folder.path(), &["check", "policies"]);
    assert!(good.status.success() && text(&good.stdout).contains("sha256:"), "{}", text(&good.stderr));
    fs::write(folder.path().join("policies/q.cedar"), "permit(principal, action == Action::\"tools/cal\", resource);")
        .expect("written");
    let bad = policy(folder.path(), &["check", "policies"]);
    let said = text(&bad.stderr);
    assert!(!bad.status.success() && said.contains("q.cedar:1") && said.contains("tools/call"), "{said}");
    let schema = policy(folder.path(), &["schema"]);
    assert_eq!(
        text(&schema.stdout).trim_end(),
        include_str!("../../../../contracts/policy/cairn.cedarschema").trim_end()
    );
}

#[test]
fn what_is_explained_is_what_the_gateway_decided() {
    let folder = folder();
    let config = orders(folder.path());
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let agent = Agent::connect(&up.gateway, "orders");
    let look = || agent.call("get_order", &json!({ "order_id": "order-1" }));
    assert_eq!(look()["error"]["code"], -31_001, "nothing is known of the tool yet");
    let listed =
        crate::support::answer(agent.post(&json!({ "jsonrpc": "2.0", "id": 77, "method": "tools/list" }))).json();
    assert!(listed["result"]["tools"].is_array(), "{listed}");
    wait_for("the catalogue", || look().get("result").is_some().then_some(()));

    let all = wait_for("the decisions", || {
        let found = events(&data);
        let decided = |decision: &str| {
            found.iter().find(|event| {
                event["type"] == "call.decision"
                    && event["data"]["decision"] == decision
                    && event["data"]["gen_ai_tool_name"] == "get_order"
            })
        };
        Some((decided("deny")?.clone(), decided("permit")?.clone(), found.clone()))
    });
    let (denied, permitted, all) = all;
    let strict =
        all.iter().find(|event| event["type"] == "call.intent" && event["data"]["mcp_method_name"] == "tools/list");
    assert_eq!(
        strict.expect("an intent")["data"]["durability"],
        "strict",
        "a policy asks for more than the method has"
    );
    assert_eq!(permitted["data"]["determining_policies"], json!(["looking"]));

    let call_id = |event: &Value| event["data"]["call_id"].as_str().expect("an id").to_owned();
    let explain = |id: &str| run(cairn().args(["policy", "explain", id, "--data"]).arg(&data));
    let said = explain(&call_id(&denied));
    assert!(said.status.success(), "{}", text(&said.stderr));
    let said = text(&said.stdout);
    assert_eq!(denied["data"]["nearest"]["policy"], "looking");
    assert!(said.contains("nearest permit: looking"), "{said}");
    assert!(said.contains("deny: no policy permits it") && said.contains("orders/get_order"), "{said}");
    assert!(text(&explain(&call_id(&permitted)).stdout).contains("permit by looking"));
    assert_eq!(explain("01996b5e-7c00-7000-8000-000000000001").status.code(), Some(3));
    up.end();

    let question = [
        "explain",
        "--policies",
        "policies",
        "--principal",
        "ada",
        "--action",
        "tools/call",
        "--resource",
        "Tool::\"orders/get_order\"",
        "--json",
    ];
    let said: Value = serde_json::from_slice(&policy(folder.path(), &question).stdout).expect("JSON");
    assert_eq!(said["decision"], "deny");
    assert_eq!(said["policy_version"], denied["data"]["policy_version"], "it is the same set");
    assert_eq!(said["nearest"]["policy"], "looking");
}

#[test]
fn a_shadow_is_tried_promoted_and_rolled_back_by_an_operator_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = orders(folder.path());
    let policies = folder.path().join("policies");
    fs::create_dir_all(policies.join("shadow")).expect("a folder");
    fs::write(policies.join("p.cedar"), "@id(\"all\") permit(principal, action, resource);").expect("written");
    let tried = "@id(\"no\") forbid(principal, action == Action::\"tools/call\", resource);\n\
                 @id(\"all\") permit(principal, action, resource);";
    fs::write(policies.join("shadow/p.cedar"), tried).expect("written");
    let data = folder.path().join("data");
    let up = Up::start(&data, &["--config", &config.display().to_string()]);
    let agent = Agent::connect(&up.gateway, "orders");
    let look = || agent.call("get_order", &json!({ "order_id": "order-1" }));
    assert!(look().get("result").is_some(), "a shadow decides nothing");
    let change =
        |verb: &str| run(cairn().args(["policy", verb, "--data"]).arg(&data).env("CAIRN_OPERATOR_TOKEN", TOKEN));

    let nobody =
        run(cairn().args(["policy", "promote", "--data"]).arg(&data).env("CAIRN_OPERATOR_TOKEN", "x".repeat(20)));
    assert!(!nobody.status.success() && look().get("result").is_some(), "only the operator promotes");
    let promoted = change("promote");
    assert!(promoted.status.success(), "{}", text(&promoted.stderr));
    assert_eq!(look()["error"]["data"]["determining_policies"], json!(["no"]));
    assert!(!change("promote").status.success(), "nothing is tried any more");
    assert!(change("rollback").status.success() && look().get("result").is_some());

    let of = |kind: &str| events(&data).into_iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    let causes: Vec<_> = of("policy.activated").iter().map(|event| event["data"]["cause"].clone()).collect();
    assert_eq!(causes, ["start", "promoted", "rolled_back"]);
    assert_eq!(of("policy.shadowed").len(), 2, "what was rolled back is tried again");
    let decisions = of("call.decision");
    let first = decisions.iter().find(|event| event["data"]["gen_ai_tool_name"] == "get_order").expect("a decision");
    let shadow = &first["data"]["shadow"];
    assert_eq!((&shadow["decision"], &shadow["differs"]), (&json!("deny"), &json!(true)));
    let metrics = crate::support::http(&up.admin, "GET /metrics", &[], "").body;
    assert!(metrics.contains("cairn_policy_shadow_decisions_total{differs=\"true\"}"), "{metrics}");
    up.end();
}

#[test]
fn others_ask_the_policies_in_force_by_authzen() {
    let folder = tempfile::tempdir().expect("a folder");
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).expect("a folder");
    let text = r#"@id("look") permit(principal, action == Action::"tools/call", resource == Tool::"orders/get_order");
@id("list") permit(principal, action == Action::"tools/list", resource == Server::"orders");
@id("small") @obligation("approval")
permit(principal == User::"ada \"q\"", action == Action::"tools/call", resource == Tool::"orders/refund_order")
when { context has arguments && context.arguments has cents && context.arguments.cents < 100 };
@id("of-the-bot") permit(principal is Agent, action == Action::"prompts/get", resource == Prompt::"orders/reply")
when { context has identity && context.identity has tenant && context.identity.tenant == "acme" };
"#;
    fs::write(policies.join("p.cedar"), text).expect("written");
    let config = folder.path().join("cairn.toml");
    fs::write(&config, "").expect("written");
    let up = Up::start(&folder.path().join("data"), &["--config", &config.display().to_string()]);
    let bearer = format!("Bearer {TOKEN}");
    let post = |path: &str, body: &Value| {
        let headers =
            [("authorization", bearer.as_str()), ("content-type", "application/json"), ("x-request-id", "r-1")];
        http(&up.admin, &format!("POST {path}"), &headers, &body.to_string())
    };
    let of = |kind: &str, id: &str| json!({ "type": kind, "id": id });
    let ask = |subject: &Value, action: &str, resource: &Value, context: &Value| json!({ "subject": subject, "action": { "name": action }, "resource": resource, "context": context });
    let ada = of("identity", "ada \"q\"");
    let got = of("tool", "orders/get_order");
    let one = post("/access/v1/evaluation", &ask(&ada, "tools/call", &got, &json!({ "agent": "a" })));
    assert_eq!(one.header("x-request-id").as_deref(), Some("r-1"));
    let one = one.json();
    assert_eq!((&one["decision"], &one["context"]["determining_policies"]), (&json!(true), &json!(["look"])), "{one}");
    assert!(one["context"]["policy_version"].as_str().is_some_and(|version| version.starts_with("sha256:")));

    // As the binding for MCP names things, at one server.
    let at = "/authzen/orders/access/v1/evaluation";
    let refund = of("tool", "refund_order");
    let small = post(at, &ask(&ada, "tools/call", &refund, &json!({ "arguments": { "cents": 99 } }))).json();
    assert_eq!((&small["decision"], &small["context"]["obligations"]), (&json!(true), &json!(["approval"])), "{small}");
    let large = post(at, &ask(&ada, "tools/call", &refund, &json!({ "arguments": { "cents": 100 } }))).json();
    assert_eq!(
        (&large["decision"], &large["context"]["nearest"]["policy"]),
        (&json!(false), &json!("small")),
        "{large}"
    );
    let server = of("mcp_server", "https://gateway.example.org/mcp/orders");
    assert_eq!(post(at, &ask(&ada, "tools/list", &server, &json!({}))).json()["decision"], true);
    let mut bot = of("agent", "bot");
    let reply = of("prompt", "reply");
    assert_eq!(post(at, &ask(&bot, "prompts/get", &reply, &json!({}))).json()["decision"], false);
    bot["properties"] = json!({ "tenant": "acme" });
    assert_eq!(post(at, &ask(&bot, "prompts/get", &reply, &json!({}))).json()["decision"], true);

    // Several at once, with what they share said once.
    let of_tool = |name: &str| json!({ "resource": of("tool", name) });
    let entries = json!([of_tool("delete_order"), of_tool("get_order"), { "resource": of("what", "x") }]);
    let mut all = json!({ "subject": ada, "action": { "name": "tools/call" }, "evaluations": entries });
    let several = post("/authzen/orders/access/v1/evaluations", &all).json();
    let answers = several["evaluations"].as_array().expect("a list");
    let decisions: Vec<&Value> = answers.iter().map(|one| &one["decision"]).collect();
    assert_eq!(decisions, [false, true, false], "{several}");
    assert!(answers[2]["context"]["error"]["message"].as_str().expect("words").contains("resource.type"));
    all["options"] = json!({ "evaluations_semantic": "permit_on_first_permit" });
    let first = post("/authzen/orders/access/v1/evaluations", &all).json();
    assert_eq!(first["evaluations"].as_array().expect("a list").len(), 2);

    // What cannot be understood is said, and nobody without a token asks.
    let bad = post(at, &json!({ "subject": ada, "action": { "name": "tools/call" } }));
    assert!(bad.status == 400 && bad.body.contains("resource"), "{bad:?}");
    assert_eq!(post(at, &json!([])).status, 400);
    assert_eq!(http(&up.admin, &format!("POST {at}"), &[("content-type", "application/json")], "{}").status, 401);
    let found = http(&up.admin, "GET /.well-known/authzen-configuration", &[], "").json();
    assert_eq!(found["access_evaluation_endpoint"], format!("http://{}/access/v1/evaluation", up.admin));
    up.end();
}
