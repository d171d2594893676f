//! What policies demand besides yes and no, end to end: masks in the record alone, rewritten arguments, results that are looked
//! at before anybody gets them.

use std::{fs, net::TcpStream, path::PathBuf, process::Output, sync::Arc};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    played::{Asked, GoesOn, Played, respond, well_with_sessions},
    support::{Agent, TOKEN, Up, answer, cairn, events, files, http, run, text, wait_for},
};

/// What nobody may see where it is masked. Its form is a cloud key's.
const SECRET: &str = "AKIAQ7XDEMO3CANARY44";

/// A server whose tools say what they were told, and secrets; it keeps the parameters of every call.
pub(crate) struct Tools {
    pub(crate) server: Played,
    seen: Arc<Mutex<Vec<Value>>>,
}

impl Tools {
    pub(crate) fn start() -> Self {
        let seen = Arc::<Mutex<Vec<Value>>>::default();
        let kept = seen.clone();
        let server = Played::start(move |asked, stream| serve(asked, stream, &kept));
        Self { server, seen }
    }

    pub(crate) fn last(&self) -> Value {
        self.seen.lock().last().cloned().unwrap_or_default()
    }
}

fn serve(asked: &Asked, stream: &mut TcpStream, seen: &Mutex<Vec<Value>>) -> GoesOn {
    let params = &asked.body["params"];
    let content = |text: &str| json!([{ "type": "text", "text": text }]);
    let result = match (asked.rpc(), params["name"].as_str().unwrap_or_default()) {
        ("tools/list", _) => {
            let narrow = json!({ "type": "object", "properties": { "key": { "type": "string", "maxLength": 20 } } });
            let wide = json!({ "type": "object", "properties": { "key": { "type": "string" } } });
            let tool = |name: &str, schema: &Value| json!({ "name": name, "inputSchema": { "type": "object" }, "outputSchema": schema });
            json!({ "tools": [tool("narrow", &narrow), tool("wide", &wide)] })
        }
        ("resources/read", _) => json!({ "contents": [{ "uri": params["uri"], "text": format!("key {SECRET}") }] }),
        ("tools/call", name) => {
            seen.lock().push(params.clone());
            let key = json!({ "key": SECRET, "n": 9_007_199_254_740_993_u64 });
            match name {
                "wide" | "narrow" => json!({ "content": content(&key.to_string()), "structuredContent": key }),
                "picture" => json!({ "content": [{ "type": "image", "data": SECRET, "mimeType": "image/png" }] }),
                "clean" => json!({ "content": content("nothing at all") }),
                "pay" => {
                    json!({ "content": content("iban: DE02"), "structuredContent": { "iban": "DE02", "ok": true } })
                }
                _ => json!({ "content": content(SECRET) }),
            }
        }
        _ => return well_with_sessions(asked, stream),
    };
    let said = json!({ "jsonrpc": "2.0", "id": asked.body["id"], "result": result });
    respond(stream, 200, "application/json", said.to_string().as_bytes())
}

/// A gateway before these tools, under these policies.
struct Governed {
    folder: tempfile::TempDir,
    tools: Tools,
    up: Up,
    agent: Agent,
}

impl Governed {
    fn start(policies: &str) -> Self {
        let (folder, tools) = (tempfile::tempdir().expect("a folder"), Tools::start());
        fs::create_dir(folder.path().join("policies")).expect("a folder");
        let all = "@id(\"rest\") permit(principal, action, resource) when { action != Action::\"tools/call\" };\n";
        fs::write(folder.path().join("policies/p.cedar"), format!("{all}{policies}")).expect("written");
        let config = folder.path().join("cairn.toml");
        fs::write(&config, format!("[servers.t]\nurl = \"{}\"\n", tools.server.url())).expect("written");
        let up = Up::start(&folder.path().join("data"), &["--config", &config.display().to_string()]);
        let agent = Agent::connect(&up.gateway, "t");
        Self { folder, tools, up, agent }
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn operator(&self, arguments: &[&str]) -> Output {
        run(cairn().args(arguments).arg("--data").arg(self.data()).env("CAIRN_OPERATOR_TOKEN", TOKEN))
    }

    /// What the vault holds of a payload.
    fn read(&self, reference: &Value) -> Value {
        let digest = reference["digest"].as_str().expect("a digest");
        let read = self.operator(&["vault", "read", digest, "--reason", "a test"]);
        assert!(read.status.success(), "{}", text(&read.stderr));
        serde_json::from_slice(&read.stdout).expect("JSON")
    }

    /// The events about calls of that tool, once there is an outcome.
    fn about(&self, tool: &str) -> Vec<(String, Value)> {
        wait_for("the outcome", || {
            let of = |event: &Value| {
                let data = &event["data"];
                let id = data["call_id"].clone();
                (data["gen_ai_tool_name"] == tool).then_some(id)
            };
            let all = events(&self.data());
            let ids: Vec<Value> = all.iter().filter_map(of).collect();
            let mine = all.iter().filter(|event| ids.contains(&event["data"]["call_id"]));
            let mine = mine.map(|event| (event["type"].as_str().unwrap_or_default().to_owned(), event["data"].clone()));
            let mine: Vec<_> = mine.collect();
            mine.iter().any(|(kind, _)| kind == "call.outcome").then_some(mine)
        })
    }
}

fn of(all: &[(String, Value)], kind: &str) -> Vec<Value> {
    all.iter().filter(|(of, _)| of == kind).map(|(_, data)| data.clone()).collect()
}

#[test]
fn a_mask_hides_in_the_record_and_nowhere_else() {
    let policies = r#"
@id("pay") @mask("arguments/card/number, result/structuredContent/iban")
permit(principal, action == Action::"tools/call", resource == Tool::"t/pay");
@id("also") @mask("arguments/list/0, detected")
permit(principal, action == Action::"tools/call", resource == Tool::"t/pay");
@id("quiet") @mask("none") permit(principal, action == Action::"tools/call", resource == Tool::"t/quiet");
@id("no") @mask("digest") forbid(principal, action == Action::"tools/call", resource == Tool::"t/no");
"#;
    let governed = Governed::start(policies);
    let arguments = json!({ "card": { "number": 4_000_000_000_000_002_u64, "name": "Ann" }, "list": ["first", "second"], "note": SECRET });
    let paid = governed.agent.call("pay", &arguments);
    assert_eq!(paid["result"]["structuredContent"]["iban"], "DE02", "the traffic is as it was: {paid}");
    assert_eq!(governed.tools.last()["arguments"], arguments, "the traffic is as it was");
    let all = governed.about("pay");
    let decision = &of(&all, "call.decision")[0];
    assert_eq!(decision["obligations"], json!(["mask"]));
    let mask = "[masked:class-secret]";
    let kept = governed.read(&decision["arguments"]);
    let expected = json!({ "card": { "number": mask, "name": "Ann" }, "list": [mask, "second"], "note": kept["note"] });
    assert_eq!(kept, expected);
    assert!(!kept.to_string().contains(SECRET), "{kept}");
    let inputs = governed.read(&decision["inputs"]);
    assert_eq!(inputs["context"]["arguments"]["card"]["number"], mask);
    assert!(!inputs.to_string().contains("4000000000000002") && !inputs.to_string().contains("first"), "{inputs}");
    let result = governed.read(&of(&all, "call.outcome")[0]["result"]);
    assert_eq!(result["structuredContent"], json!({ "iban": mask, "ok": true }));
    assert!(!result.to_string().contains("DE02"), "nor in the text that says it once more: {result}");

    governed.agent.call("quiet", &arguments);
    let quiet = governed.about("quiet");
    for (kind, data) in &quiet {
        assert!(data.get("arguments").is_none() && data.get("result").is_none(), "{kind}: {data}");
        assert!(data.get("inputs").is_none_or(|inputs| inputs.get("location").is_none()), "{kind}: {data}");
    }
    let denied = governed.agent.call("no", &arguments);
    assert_eq!(denied["error"]["code"], -31_001, "{denied}");
    let decision = &of(&governed.about("no"), "call.decision")[0];
    assert_eq!(decision["obligations"], json!(["mask"]), "what is denied has a record too");
    assert!(decision["arguments"].get("digest").is_some() && decision["arguments"].get("location").is_none());
    governed.up.end();
}

#[test]
fn arguments_are_rewritten_once_decided_once_more_and_nothing_else_is_touched() {
    let policies = r#"
@id("search") @rewrite("set /limit = 100; remove /debug; redact /note")
permit(principal, action == Action::"tools/call", resource == Tool::"t/search");
@id("capped") @rewrite("set /limit = 100")
permit(principal, action == Action::"tools/call", resource == Tool::"t/capped");
@id("never-a-hundred")
forbid(principal, action == Action::"tools/call", resource == Tool::"t/capped")
when { context has arguments && context.arguments has limit && context.arguments.limit == 100 };
@id("restless") @rewrite("remove /list/0")
permit(principal, action == Action::"tools/call", resource == Tool::"t/restless");
@id("homeless") @rewrite("set /a/b = 1")
permit(principal, action == Action::"tools/call", resource == Tool::"t/homeless");
@id("asked") @rewrite("set /limit = 100") @obligation("approval")
permit(principal, action == Action::"tools/call", resource == Tool::"t/asked");
"#;
    let governed = Governed::start(policies);
    let raw = format!(
        r#"{{"jsonrpc":"2.0","id":71,"method":"tools/call","params":{{"name":"search","arguments":{{"debug":true,"big":9007199254740993.50,"limit":7,"note":"{SECRET}","cursor":"c"}},"_meta":{{"progressToken":"{SECRET}","limit":7}}}}}}"#
    );
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-session-id", governed.agent.session.as_str()),
        ("mcp-protocol-version", "2025-11-25"),
    ];
    let answered = http(&governed.up.gateway, "POST /mcp/t", &headers, &raw);
    assert!(answered.json().get("result").is_some(), "{answered:?}");
    let sent = governed.tools.last();
    assert_eq!(sent["_meta"], json!({ "progressToken": SECRET, "limit": 7 }), "only arguments are rewritten");
    let arguments = &sent["arguments"];
    assert_eq!((&arguments["limit"], &arguments["cursor"]), (&json!(100), &json!("c")));
    assert!(arguments.get("debug").is_none() && !arguments["note"].to_string().contains(SECRET), "{arguments}");

    let all = governed.about("search");
    let (decisions, intent) = (of(&all, "call.decision"), &of(&all, "call.intent")[0]);
    assert_eq!(decisions.len(), 2, "decided before and after");
    assert_eq!(decisions[0]["obligations"], json!(["rewrite"]));
    assert!(decisions[0].get("rewritten").is_none(), "{}", decisions[0]);
    let rewritten = &decisions[1]["rewritten"];
    assert_eq!((&rewritten["policies"], rewritten), (&json!(["search"]), &intent["rewritten"]));
    assert_eq!(rewritten["original"], decisions[0]["arguments"]["digest"], "what the client sent");
    assert_eq!(rewritten["forwarded"], intent["arguments"]["digest"], "what went on");
    assert_ne!(rewritten["original"], rewritten["forwarded"]);
    let kept = governed.read(&intent["arguments"]);
    assert_eq!(&kept, arguments, "the record covers what was forwarded");

    // The rewritten call is decided like any other, and what does not come to rest goes nowhere.
    let before = governed.tools.server.calls();
    let capped = governed.agent.call("capped", &json!({ "limit": 7 }));
    assert_eq!(capped["error"]["data"]["determining_policies"], json!(["never-a-hundred"]), "{capped}");
    for (tool, arguments) in [("restless", json!({ "list": [1, 2, 3] })), ("homeless", json!({ "a": SECRET }))] {
        let refused = governed.agent.call(tool, &arguments);
        assert_eq!(refused["error"]["code"], -31_020, "{refused}");
        assert_eq!(refused["error"]["data"]["determining_policies"], json!([tool]));
        assert!(!refused.to_string().contains(SECRET), "{refused}");
        let all = governed.about(tool);
        let last = of(&all, "call.decision").last().cloned().unwrap_or_default();
        assert_eq!((&last["decision"], &last["determining_policies"]), (&json!("deny"), &json!([tool])));
        assert!(of(&all, "call.intent").is_empty());
    }
    assert_eq!(governed.tools.server.calls(), before, "nothing of these was sent");

    // People see what will be forwarded, and what they approve is that.
    let waiting = governed.agent.ask("asked", &json!({ "limit": 7 }));
    let bearer = format!("Bearer {TOKEN}");
    let authorization = [("authorization", bearer.as_str())];
    let shown = wait_for("the question", || {
        let listed = http(&governed.up.admin, "GET /approvals", &authorization, "").json();
        listed.to_string().contains("asked").then_some(listed)
    });
    assert!(shown.to_string().contains("limit\\\":100"), "{shown}");
    assert!(!shown.to_string().contains("limit\\\":7"), "{shown}");
    let id = shown.to_string();
    let id = id.split("\"ap-").nth(1).and_then(|rest| rest.split('"').next()).expect("an id");
    let approved = governed.operator(&["approve", &format!("ap-{id}")]);
    assert!(approved.status.success(), "{}", text(&approved.stderr));
    let answered = answer(waiting).json();
    assert!(answered.get("result").is_some(), "{answered}");
    assert_eq!(governed.tools.last()["arguments"], json!({ "limit": 100 }));
    governed.up.end();
}

#[test]
fn a_result_is_looked_at_before_anybody_gets_it() {
    let policies = r#"
@id("block") @screen_output("block")
permit(principal, action == Action::"tools/call", resource) when { resource.name == "blocked" || resource.name == "clean" };
@id("redact") @screen_output("redact")
permit(principal, action == Action::"tools/call", resource)
when { ["wide", "narrow", "picture", "text", "blocked"].contains(resource.name) };
@id("flag") @screen_output("flag") permit(principal, action == Action::"tools/call", resource == Tool::"t/flagged");
@id("reads") @screen_output("redact") permit(principal, action == Action::"resources/read", resource);
"#;
    let governed = Governed::start(policies);
    let call = |tool: &str| governed.agent.call(tool, &json!({}));
    let screened = |tool: &str| of(&governed.about(tool), "call.outcome")[0].clone();

    assert!(call("clean").get("result").is_some());
    assert_eq!(screened("clean")["screened"]["action"], "passed");
    let flagged = call("flagged");
    assert!(flagged.to_string().contains(SECRET), "it is only said: {flagged}");
    let outcome = screened("flagged");
    let said = &outcome["screened"];
    assert_eq!((&said["action"], &said["found"], &said["policies"]), (&json!("flagged"), &json!(1), &json!(["flag"])));
    assert!(said["rules"][0].is_string() && said["detectors"].is_string(), "{said}");

    // Two permits: the stricter one counts. The client learns which rules, and nothing of the content.
    for (tool, policy) in
        [("blocked", json!(["block", "redact"])), ("picture", json!(["redact"])), ("narrow", json!(["redact"]))]
    {
        let blocked = call(tool);
        assert_eq!(blocked["error"]["code"], -31_021, "{tool}: {blocked}");
        assert_eq!(blocked["error"]["data"]["determining_policies"], policy, "{tool}");
        assert!(blocked["error"]["data"]["rules"][0].is_string() && !blocked.to_string().contains(SECRET), "{blocked}");
        let outcome = screened(tool);
        assert_eq!((&outcome["outcome"], &outcome["effect"]), (&json!("failed"), &json!("answered")), "{tool}");
        assert_eq!(
            (&outcome["error_type"], &outcome["screened"]["action"]),
            (&json!("output_blocked"), &json!("blocked"))
        );
        assert!(governed.read(&outcome["result"]).to_string().contains(SECRET), "what the server sent is kept");
    }

    for tool in ["wide", "text"] {
        let redacted = call(tool);
        let result = redacted["result"].to_string();
        assert!(result.contains("[masked:") && !result.contains(SECRET), "{tool}: {redacted}");
        let outcome = screened(tool);
        assert_eq!((&outcome["outcome"], &outcome["screened"]["action"]), (&json!("completed"), &json!("redacted")));
    }
    assert_eq!(call("wide")["result"]["structuredContent"]["n"], 9_007_199_254_740_993_u64, "all else is as it was");

    let read = json!({ "jsonrpc": "2.0", "id": 900, "method": "resources/read", "params": { "uri": "x://a" } });
    let read = answer(governed.agent.post(&read)).json();
    assert!(read["result"].to_string().contains("[masked:") && !read.to_string().contains(SECRET), "{read}");
    let data = governed.data();
    let trail = Value::from(events(&data)).to_string();
    assert!(!trail.contains(SECRET), "{trail}");
    governed.up.end();
    for file in files(&data) {
        let bytes = fs::read(&file).unwrap_or_default();
        assert!(!bytes.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{}", file.display());
    }
}
