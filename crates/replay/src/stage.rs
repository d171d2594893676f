//! A recorded server as MCP clients of both eras meet it: who it is, what it lists, and what it answers.
//!
//! One message in, at most one out; the transports are the command's, and what each era wants is `cairn_mcp::serving`'s. Nothing is
//! ever asked of a client, and nothing is sent unasked: what a server asked within a call is part of what was recorded, not of what
//! is played. An answer of a server of the other era is put into the client's as the gateway does it.

use std::collections::HashMap;

use bytes::Bytes;
use cairn_contract::ListKind;
use cairn_mcp::{
    Limits, Message, code, meta,
    serving::{self, Fault, Served},
};
use parking_lot::Mutex;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    play::{Asked, Given, Player},
    recording::{RecordedList, RecordedServer},
};

/// What a server calls itself where nothing of that was recorded.
const UNKNOWN_VERSION: &str = "recorded";
/// Methods that are played even where nothing of them was recorded: what came is then none of it.
const PLAYED: [&str; 4] = ["tools/call", "resources/read", "prompts/get", "completion/complete"];

/// One recorded server. All its clients share what is played.
#[derive(Debug)]
pub struct Stage {
    server: String,
    player: Player,
    limits: Limits,
    /// How many lists of a kind were given.
    given: Mutex<HashMap<&'static str, usize>>,
}

/// A kind of list: its method, the member that holds it, and the capability that goes with it.
struct Listing {
    kind: ListKind,
    member: &'static str,
    capability: &'static str,
}

fn listing(method: &str) -> Option<Listing> {
    let of = |kind, member, capability| Some(Listing { kind, member, capability });
    match method {
        "tools/list" => of(ListKind::Tools, "tools", "tools"),
        "prompts/list" => of(ListKind::Prompts, "prompts", "prompts"),
        "resources/list" => of(ListKind::Resources, "resources", "resources"),
        "resources/templates/list" => of(ListKind::ResourceTemplates, "resourceTemplates", "resources"),
        _ => None,
    }
}

impl Stage {
    /// A server of the recording that is played.
    #[must_use]
    pub fn new(server: impl Into<String>, player: Player, limits: Limits) -> Self {
        Self { server: server.into(), player, limits, given: Mutex::default() }
    }

    fn recorded(&self) -> Option<&RecordedServer> {
        self.player.recording().servers.get(&self.server)
    }

    /// The answer to a message; none to what wants none.
    pub fn answer(&self, message: &Message) -> Option<Message> {
        serving::answer(self, message, &self.limits)
    }

    /// What was recorded for a request; none where its method never was.
    fn recorded_of(&self, message: &Message, method: &str) -> Option<Given> {
        if let Some(listing) = listing(method) {
            return Some(Given::Result(self.list(method, &listing)));
        }
        if !PLAYED.contains(&method) && !self.player.knows(&self.server, method) {
            return None;
        }
        let sent = sent(message);
        let sent = sent.as_deref().map(String::from_utf8_lossy);
        // Tasks have ids, which stand in no event: they are among what is sent.
        let target = message.target().filter(|target| !matches!(target, cairn_mcp::Target::Task(_)));
        Some(self.player.play(Asked {
            server: &self.server,
            method,
            target: target.as_ref().map(cairn_mcp::Target::as_str),
            arguments: sent.as_deref(),
            takes_rounds: message.is_modern(),
        }))
    }

    /// The next list of that kind; the last one again where no more were fetched.
    fn list(&self, method: &str, listing: &Listing) -> String {
        let lists: Vec<&RecordedList> = self
            .recorded()
            .map(|server| server.lists.iter().filter(|list| list.kind == listing.kind).collect())
            .unwrap_or_default();
        let mut given = self.given.lock();
        let next = given.entry(listing.member).or_default();
        let list = lists.get(*next).or(lists.last());
        *next += 1;
        let items = list.map(|list| items(list, listing.member)).unwrap_or_default();
        tracing::debug!(server = %self.server, method, items = items.len(), "listed");
        format!("{{\"{}\":[{}]}}", listing.member, items.join(","))
    }

    /// What the server said of itself, where that was read.
    fn greeting(&self) -> Map<String, Value> {
        let text = self.recorded().and_then(|server| server.greeting.as_ref()?.text.as_deref());
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    fn info(&self, greeting: &Map<String, Value>) -> Value {
        let said = greeting.get("serverInfo").or_else(|| greeting.get("_meta")?.get(meta::SERVER_INFO));
        if let Some(said) = said.filter(|said| said["name"].is_string() && said["version"].is_string()) {
            return said.clone();
        }
        let recorded = self.recorded();
        let name = recorded.and_then(|server| server.name.clone()).unwrap_or_else(|| self.server.clone());
        let version = recorded.and_then(|server| server.version.clone());
        json!({ "name": name, "version": version.as_deref().unwrap_or(UNKNOWN_VERSION) })
    }

    /// What the server could do, without what nobody does here: telling of changes.
    fn capabilities(&self, greeting: &Map<String, Value>) -> Map<String, Value> {
        let said = greeting.get("capabilities").and_then(Value::as_object).cloned();
        let recorded = self.recorded();
        let mut all = said.or_else(|| recorded?.capabilities.clone()).unwrap_or_default();
        for capability in ["tools", "prompts", "resources"] {
            if let Some(found) = all.get_mut(capability).and_then(Value::as_object_mut) {
                found.shift_remove("listChanged");
                found.shift_remove("subscribe");
            }
        }
        let lists = recorded.map(|server| server.lists.as_slice()).unwrap_or_default();
        for (method, call) in [
            ("tools/list", "tools/call"),
            ("prompts/list", "prompts/get"),
            ("resources/list", "resources/read"),
            ("resources/templates/list", "resources/read"),
        ] {
            let listing = listing(method).expect("it is one");
            if lists.iter().any(|list| list.kind == listing.kind) || self.player.knows(&self.server, call) {
                all.entry(listing.capability).or_insert_with(|| json!({}));
            }
        }
        all
    }
}

impl Served for Stage {
    fn welcome(&self) -> Value {
        let greeting = self.greeting();
        let mut result = json!({ "capabilities": self.capabilities(&greeting), "serverInfo": self.info(&greeting) });
        if let Some(instructions) = greeting.get("instructions").filter(|found| found.is_string()) {
            result["instructions"] = instructions.clone();
        }
        result
    }

    fn given(&self, method: &str, request: &Message) -> Option<Result<String, Fault>> {
        match self.recorded_of(request, method) {
            Some(Given::Result(result)) => Some(Ok(result)),
            Some(other) => Some(Err(unwell(other))),
            None => {
                if method != "subscriptions/listen" {
                    self.player.note_unknown(&self.server, method);
                }
                None
            }
        }
    }

    fn unknown(&self, method: &str) -> String {
        format!("nothing of {method:?} was recorded of this server")
    }
}

/// What a request sends, as its events hold it.
fn sent(message: &Message) -> Option<Bytes> {
    match (message.method(), message.input_responses_raw()) {
        (Some("tools/call" | "prompts/get"), Some(answers)) => {
            let arguments = message.arguments_raw().unwrap_or_else(|| Bytes::from_static(b"{}"));
            Some([b"{\"arguments\":", &arguments[..], b",\"inputResponses\":", &answers, b"}"].concat().into())
        }
        (Some("tools/call" | "prompts/get"), None) => message.arguments_raw(),
        _ => message.params_raw(),
    }
}

/// The definitions of a list: as they came where that was kept, else as the catalogue has them.
pub(crate) fn items(list: &RecordedList, member: &str) -> Vec<String> {
    let page = |text: &str| -> Option<Vec<String>> {
        let members: HashMap<String, &RawValue> = serde_json::from_str(text).ok()?;
        let items: Vec<&RawValue> = serde_json::from_str(members.get(member)?.get()).ok()?;
        Some(items.into_iter().map(|item| item.get().to_owned()).collect())
    };
    let pages: Option<Vec<Vec<String>>> = list.pages.iter().map(|found| page(found.text.as_deref()?)).collect();
    match pages.filter(|pages| !pages.is_empty()) {
        Some(pages) => pages.concat(),
        None => list.items.iter().filter_map(|item| item.definition.as_ref()).map(Value::to_string).collect(),
    }
}

/// An error, as it was recorded or of Cairn's own.
fn unwell(given: Given) -> Fault {
    match given {
        Given::Own { code, message, data } => Fault { code, message, data: Some(data.to_string()) },
        Given::Error(raw) | Given::Result(raw) => {
            let members: HashMap<String, &RawValue> = serde_json::from_str(&raw).unwrap_or_default();
            let code = members.get("code").and_then(|code| code.get().parse().ok()).unwrap_or(code::INTERNAL_ERROR);
            let words = members.get("message").and_then(|words| serde_json::from_str::<String>(words.get()).ok());
            let data = members.get("data").map(|data| data.get().to_owned());
            Fault { code, message: words.unwrap_or_default(), data }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Mode,
        recording::{
            RecordedItem,
            tests::{call, payload, recording},
        },
    };

    fn stage() -> Stage {
        let mut failed = call(2, "fail", "{}", r#"{"code":-32002,"message":"no such order","data":{"id":7}}"#);
        failed.outcome.as_mut().expect("it ended").code = Some(-32_002);
        let mut all =
            recording(vec![call(1, "get", r#"{"id":1}"#, r#"{"content":[{"type":"text","text":"one"}]}"#), failed]);
        let server = all.servers.get_mut("orders").expect("it was called");
        server.greeting = Some(payload(
            r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{"listChanged":true},"logging":{}},"serverInfo":{"name":"shop","version":"7"},"instructions":"be kind"}"#,
        ));
        let definition = json!({ "name": "get", "inputSchema": { "type": "object" } });
        let item = RecordedItem { name: "get".to_owned(), digest: "sha256:0".to_owned(), definition: Some(definition) };
        server.lists = vec![
            RecordedList { kind: ListKind::Tools, pages: Vec::new(), items: vec![item] },
            RecordedList {
                kind: ListKind::Tools,
                pages: vec![
                    payload(r#"{"tools":[{"name":"a"}],"nextCursor":"2"}"#),
                    payload(r#"{"tools":[{"name":"b"}]}"#),
                ],
                items: Vec::new(),
            },
        ];
        Stage::new("orders", Player::new(all, Mode::Strict), Limits::default())
    }

    fn ask(stage: &Stage, method: &str, params: &Value) -> Value {
        let text = json!({ "jsonrpc": "2.0", "id": 5, "method": method, "params": params }).to_string();
        let message = Message::parse(text.into(), &Limits::default()).expect("a message");
        let answer = stage.answer(&message).expect("a request has an answer");
        serde_json::from_slice(answer.bytes()).expect("JSON")
    }

    fn modern(params: Value) -> Value {
        let mut params = params;
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        params
    }

    #[test]
    fn a_legacy_client_meets_the_server_that_was_recorded() {
        let stage = stage();
        let hello = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
        let welcome = &ask(&stage, "initialize", &hello)["result"];
        assert_eq!(
            (&welcome["protocolVersion"], &welcome["serverInfo"]["name"]),
            (&json!("2025-06-18"), &json!("shop"))
        );
        assert_eq!(welcome["instructions"], "be kind");
        assert_eq!(welcome["capabilities"], json!({ "tools": {}, "logging": {} }), "nobody tells of changes here");
        let first = ask(&stage, "tools/list", &json!({}));
        assert_eq!(first["result"]["tools"][0]["name"], "get", "from the catalogue: {first}");
        for _ in 0..2 {
            let next = ask(&stage, "tools/list", &json!({}));
            assert_eq!(
                next["result"],
                json!({ "tools": [{ "name": "a" }, { "name": "b" }] }),
                "both pages, to the end"
            );
        }
        let called = ask(&stage, "tools/call", &json!({ "name": "get", "arguments": { "id": 1 } }));
        assert_eq!(called["result"], json!({ "content": [{ "type": "text", "text": "one" }] }));
        let failed = ask(&stage, "tools/call", &json!({ "name": "fail" }));
        assert_eq!(failed["error"], json!({ "code": -32002, "message": "no such order", "data": { "id": 7 } }));
        assert_eq!(ask(&stage, "ping", &json!({}))["result"], json!({}));
        assert!(stage.player.played().is_whole());
        assert_eq!(ask(&stage, "tasks/list", &json!({}))["error"]["code"], -32601);
        assert!(!stage.player.played().is_whole(), "that was never asked");
    }

    #[test]
    fn a_modern_client_meets_the_same_server() {
        let stage = stage();
        let found = &ask(&stage, "server/discover", &modern(json!({})))["result"];
        assert_eq!((&found["supportedVersions"], &found["resultType"]), (&json!(["2026-07-28"]), &json!("complete")));
        assert_eq!(found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "shop");
        let listed = &ask(&stage, "tools/list", &modern(json!({})))["result"];
        assert_eq!((&listed["resultType"], &listed["ttlMs"]), (&json!("complete"), &json!(0)));
        let called = &ask(&stage, "tools/call", &modern(json!({ "name": "get", "arguments": { "id": 1 } })))["result"];
        assert_eq!((&called["resultType"], &called["content"][0]["text"]), (&json!("complete"), &json!("one")));
        let failed = &ask(&stage, "tools/call", &modern(json!({ "name": "fail" })))["error"];
        assert_eq!(failed["code"], -32602, "a code that this era does not have: {failed}");
        assert!(stage.player.played().is_whole());
        let mut other = modern(json!({}));
        other["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2099-01-01");
        assert_eq!(ask(&stage, "tools/list", &other)["error"]["code"], -32022);
        other["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        assert_eq!(ask(&stage, "tools/list", &other)["error"]["code"], -32602, "it does not describe itself");
    }

    #[test]
    fn what_wants_no_answer_gets_none() {
        let text = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        let message = Message::parse(Bytes::from(text), &Limits::default()).expect("a message");
        assert!(stage().answer(&message).is_none());
    }
}
