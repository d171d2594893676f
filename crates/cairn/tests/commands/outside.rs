//! An outside decision point: one Cairn asks another, and what is no clear yes is a no.

use std::{fs, net::TcpStream, path::Path, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    obligations::Tools,
    played::{Asked, GoesOn, Played, respond},
    support::{Agent, TOKEN, Up, cairn, events, http, run, text, wait_for},
};

/// What nobody may show: the token of the decision point.
const SECRET: &str = "pdp-t0ken-of-the-tests";

fn start(folder: &Path, tools: &Tools, url: &str, more: &str) -> Up {
    let config = folder.join("cairn.toml");
    let server = format!("[servers.t]\nurl = \"{}\"\n", tools.server.url());
    fs::write(&config, format!("{server}[decision_point]\nurl = \"{url}\"\n{more}\n")).expect("written");
    Up::start(&folder.join("data"), &["--config", &config.display().to_string()])
}

/// The decisions about that tool, once there is one.
fn decisions(folder: &Path, tool: &str) -> Vec<Value> {
    wait_for("a decision", || {
        let of = |event: &Value| event["type"] == "call.decision" && event["data"]["gen_ai_tool_name"] == tool;
        let found: Vec<Value> =
            events(&folder.join("data")).into_iter().filter(of).map(|e| e["data"].clone()).collect();
        (!found.is_empty()).then_some(found)
    })
}

#[test]
fn one_cairn_decides_for_another_and_its_demands_are_met() {
    let far = tempfile::tempdir().expect("a folder");
    fs::create_dir(far.path().join("policies")).expect("a folder");
    let policies = r#"@id("rest") permit(principal, action, resource) when { action != Action::"tools/call" };
@id("look") @mask("arguments/card") @rewrite("set /limit = 100") @screen_output("redact")
permit(principal is User, action == Action::"tools/call", resource == Tool::"t/text")
when { context.direction == "to_server" && context has identity && context.identity.kind == "local"
  && context has arguments && context.arguments has card };
@id("asks") @obligation("approval") @expires("10m")
permit(principal, action == Action::"tools/call", resource == Tool::"t/asked");"#;
    fs::write(far.path().join("policies/p.cedar"), policies).expect("written");
    fs::write(far.path().join("cairn.toml"), "").expect("written");
    let config = far.path().join("cairn.toml").display().to_string();
    let point = Up::start(&far.path().join("data"), &["--config", &config]);

    let (folder, tools) = (tempfile::tempdir().expect("a folder"), Tools::start());
    let more = format!("token = \"{TOKEN}\"\ntimeout_ms = 30000");
    let up = start(folder.path(), &tools, &format!("http://{}/access/v1/evaluation", point.admin), &more);
    let agent = Agent::connect(&up.gateway, "t");
    let looked = agent.call("text", &json!({ "card": "4711", "limit": 7 }));
    assert!(looked["result"].to_string().contains("[masked:"), "its screening counts here: {looked}");
    assert_eq!(tools.last()["arguments"], json!({ "card": "4711", "limit": 100 }), "and its rewriting");
    let decided = decisions(folder.path(), "text");
    assert_eq!(decided.len(), 2, "the rewritten call was asked about once more");
    assert_eq!(decided[0]["policy_version"], "observe", "nobody decides here");
    assert_eq!(decided[0]["obligations"], json!(["mask", "rewrite", "screen_output"]));
    let outside = &decided[1]["outside"];
    assert_eq!((&outside["decision"], &outside["id"]), (&json!("permit"), &json!(point.admin)));
    assert_eq!(outside["determining_policies"], json!(["look"]));
    assert!(outside["policy_version"].as_str().is_some_and(|version| version.starts_with("sha256:")), "{outside}");
    assert!(outside["elapsed_us"].as_u64().is_some_and(|elapsed| elapsed > 0), "{outside}");
    let digest = decided[1]["arguments"]["digest"].as_str().expect("a digest").to_owned();
    let read = run(cairn()
        .args(["vault", "read", &digest, "--reason", "a test", "--data"])
        .arg(folder.path().join("data"))
        .env("CAIRN_OPERATOR_TOKEN", TOKEN));
    assert!(!text(&read.stdout).contains("4711") && text(&read.stdout).contains("[masked:"), "{}", text(&read.stdout));

    let denied = agent.call("other", &json!({}));
    assert_eq!(denied["error"]["data"]["determining_policies"], json!(["cairn:decision_point"]), "{denied}");
    let call_id = decisions(folder.path(), "other")[0]["call_id"].as_str().expect("an id").to_owned();
    let explained = run(cairn().args(["policy", "explain", &call_id, "--data"]).arg(folder.path().join("data")));
    assert!(text(&explained.stdout).contains("the decision point"), "{}", text(&explained.stdout));

    // People here approve what is demanded there.
    let waiting = agent.ask("asked", &json!({}));
    let bearer = format!("Bearer {TOKEN}");
    let shown = wait_for("the question", || {
        let listed = http(&up.admin, "GET /approvals", &[("authorization", bearer.as_str())], "").json().to_string();
        listed.contains("decision_point:asks").then_some(listed)
    });
    let id = shown.split("\"ap-").nth(1).and_then(|rest| rest.split('"').next()).expect("an id");
    let approved = run(cairn()
        .args(["approve", &format!("ap-{id}"), "--data"])
        .arg(folder.path().join("data"))
        .env("CAIRN_OPERATOR_TOKEN", TOKEN));
    assert!(approved.status.success(), "{}", text(&approved.stderr));
    assert!(crate::support::answer(waiting).json().get("result").is_some());

    // Without it nothing goes on.
    let before = tools.server.calls();
    point.end();
    let refused = agent.call("text", &json!({ "card": "1" }));
    assert_eq!(refused["error"]["code"], -31_023, "{refused}");
    assert_eq!(tools.server.calls(), before, "nothing was sent");
    let last = decisions(folder.path(), "text").pop().expect("one");
    assert_eq!((&last["decision"], &last["outside"]["error_type"]), (&json!("deny"), &json!("unreachable")));
    up.end();
}

/// Answers as the resource is called.
fn hostile(asked: &Asked, stream: &mut TcpStream, seen: &Mutex<Vec<String>>) -> GoesOn {
    seen.lock().push(format!("{} {}", asked.path, asked.header("authorization").unwrap_or_default()));
    let say = |stream: &mut TcpStream, body: &str| respond(stream, 200, "application/json", body.as_bytes());
    match asked.body.pointer("/resource/id").and_then(Value::as_str).unwrap_or_default() {
        "yes" | "t" => say(stream, r#"{"decision": true}"#),
        "no" => say(stream, r#"{"decision": false, "context": {"reason": "mail ann@example.org"}}"#),
        "word" => say(stream, r#"{"decision": "true"}"#),
        "twice" => say(stream, r#"{"decision": false, "decision": true}"#),
        "unknown" => say(stream, r#"{"decision": true, "context": {"obligations": ["encrypt"]}}"#),
        "elsewhere" => say(
            stream,
            r#"{"decision": true, "context": {"demands": [{"policy": "p", "annotations": {"teleport": "now"}}]}}"#,
        ),
        "broken" => respond(stream, 500, "application/json", br#"{"decision": true}"#),
        "long" => say(stream, &format!(r#"{{"decision": true, "context": {{"x": "{}"}}}}"#, "x".repeat(70_000))),
        "moved" => {
            use std::io::Write;
            let head = "HTTP/1.1 307 Moved\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(head.as_bytes()).is_ok()
        }
        "silent" => true, // until the client has had enough
        _ => false,
    }
}

#[test]
fn what_is_no_clear_yes_is_a_no() {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let kept = seen.clone();
    let point = Played::start(move |asked, stream| hostile(asked, stream, &kept));
    let (folder, tools) = (tempfile::tempdir().expect("a folder"), Tools::start());
    let url = format!("http://{}/access/v1/evaluation", point.address);
    let more = format!("token = \"{SECRET}\"\ntimeout_ms = 8000\nmethods = [\"tools/call\"]");
    let up = start(folder.path(), &tools, &url, &more);
    let agent = Agent::connect(&up.gateway, "t");
    assert!(seen.lock().is_empty(), "it is asked about those methods alone");
    assert!(agent.call("yes", &json!({})).get("result").is_some());
    assert_eq!(seen.lock()[0], format!("/access/v1/evaluation Bearer {SECRET}"));
    let denied = agent.call("no", &json!({}));
    assert_eq!((&denied["error"]["code"], tools.server.calls()), (&json!(-31_001), 1), "{denied}");
    let faults = [
        ("word", "no_decision"),
        ("twice", "no_decision"),
        ("unknown", "unknown_obligation"),
        ("elsewhere", "unknown_obligation"),
        ("broken", "http_status"),
        ("long", "too_long"),
        ("moved", "http_status"),
        ("silent", "timed_out"),
        ("gone", "unreachable"),
    ];
    for (tool, word) in faults {
        let refused = agent.call(tool, &json!({}));
        assert_eq!(refused["error"]["code"], -31_023, "{tool}: {refused}");
        assert!(!refused.to_string().contains(SECRET) && !refused.to_string().contains("/access"), "{refused}");
        let decided = &decisions(folder.path(), tool)[0];
        assert_eq!((&decided["decision"], &decided["outside"]["error_type"]), (&json!("deny"), &json!(word)), "{tool}");
        assert_eq!(decided["determining_policies"], json!(["cairn:decision_point"]));
    }
    assert_eq!(tools.server.calls(), 1, "nothing of these was sent");
    assert!(!seen.lock().iter().any(|asked| asked.starts_with("/elsewhere")), "redirects are not followed");
    let told = &decisions(folder.path(), "no")[0]["outside"];
    assert!(told["reason"].as_str().is_some_and(|reason| reason.contains("[masked:")), "{told}");
    let metrics = http(&up.admin, "GET /metrics", &[], "").body;
    assert!(metrics.contains("cairn_decision_point_total{state=\"failed\"} 9"), "{metrics}");
    crate::guarded::nowhere(&up, &folder.path().join("data"), &[SECRET]);
    up.end();
}

#[test]
fn policies_decide_alone_only_where_that_is_said_and_there_are_some() {
    let (folder, tools) = (tempfile::tempdir().expect("a folder"), Tools::start());
    let nobody = "http://127.0.0.1:9/access/v1/evaluation";
    let more = "on_failure = \"policies\"\ntimeout_ms = 8000";
    let observes = start(folder.path(), &tools, nobody, more);
    let refused = std::panic::catch_unwind(|| Agent::connect(&observes.gateway, "t"));
    assert!(refused.is_err(), "without policies nobody decides");
    observes.end();
    fs::create_dir(folder.path().join("policies")).expect("a folder");
    let policies = r#"@id("all") permit(principal, action, resource);
@id("no") forbid(principal, action == Action::"tools/call", resource == Tool::"t/no");"#;
    fs::write(folder.path().join("policies/p.cedar"), policies).expect("written");
    let up = start(folder.path(), &tools, nobody, more);
    let agent = Agent::connect(&up.gateway, "t");
    assert!(agent.call("text", &json!({})).get("result").is_some());
    let decided = &decisions(folder.path(), "text")[0];
    assert_eq!((&decided["decision"], &decided["outside"]["error_type"]), (&json!("permit"), &json!("unreachable")));
    assert_eq!(agent.call("no", &json!({}))["error"]["data"]["determining_policies"], json!(["no"]));
    assert!(decisions(folder.path(), "no")[0].get("outside").is_none(), "a no here needs nobody's word");
    up.end();

    // What would send arguments in the clear does not start.
    let config = folder.path().join("cairn.toml");
    fs::write(&config, "[decision_point]\nurl = \"http://pdp.example/x\"\n").expect("written");
    let failed = run(cairn().args(["up", "--config"]).arg(&config).arg("--data").arg(folder.path().join("data")));
    assert!(!failed.status.success() && text(&failed.stderr).contains("use https"), "{}", text(&failed.stderr));
}
