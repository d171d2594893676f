//! The context as an MCP server: tools that ask, and resources that can be read.
//!
//! Who is served decides what is there: an operator may ask about everybody, everybody else sees their own. Whatever is wrong with
//! a tool's arguments is that tool's error, so that the agent reads it. It only ever reads.

use std::sync::Arc;

use cairn_consumers::context::Scope;
use cairn_gateway::Inside;
use cairn_mcp::{
    Message, code,
    serving::{Fault, Served},
};
use cairn_operators::ConsumerFault;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;

use super::{
    Answers,
    question::{Asked, Asker},
};
use crate::ask::Admin;

/// What this era has for a resource that is not there.
const RESOURCE_NOT_FOUND: i64 = -32_002;
/// How far back the resource of changes goes.
const CHANGES_SINCE: &str = "1h";
const WORKFLOW_URI: &str = "cairn://workflow/";
const CONTEXT_URI: &str = "cairn://context/";
const CHANGES_URI: &str = "cairn://context/changes";
const INSTRUCTIONS: &str = "Cairn stands between you and your MCP servers and keeps a trail of what you did. Ask what_changed before you rely on \
something that you read a while ago, why_refused when a call was denied, show_workflow for what happened in a workflow. Answers lag what \
happens by a moment; as_of says how far they go. They hold no payloads, only digests and references.";

/// Whom the answers come from.
pub(super) enum Source {
    /// The database of a data folder.
    Here(Answers),
    /// The admin address of a running `up`.
    There(Box<Admin>, Handle),
}

impl Source {
    fn ask(&self, name: &str, members: Map<String, Value>, who: &Asker) -> Result<Value, ConsumerFault> {
        // Read here too, so that what is wrong is said in the same words.
        let asked = Asked::read(name, members.clone(), who).map_err(ConsumerFault::Refused)?;
        match self {
            Self::Here(answers) => answers.answer(asked),
            Self::There(admin, handle) => {
                let mut query = url::form_urlencoded::Serializer::new(String::new());
                for (key, value) in &members {
                    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    query.append_pair(key, &text);
                }
                if let Asker::Within(Scope { tenant, principal }) = who {
                    let narrow = [("tenant", tenant), ("principal", principal)];
                    narrow.iter().filter_map(|(key, value)| Some((key, value.as_ref()?))).for_each(|(key, value)| {
                        query.append_pair(key, value);
                    });
                }
                let path = format!("/context/{name}?{}", query.finish());
                // On a thread that may block: whoever serves sees to that.
                let answer = handle.block_on(admin.send("GET", &path, None));
                answer.map_err(|error| match error.downcast_ref::<crate::ending::Ending>() {
                    Some(crate::ending::Ending::NoSuch(words)) => ConsumerFault::NoSuch(words.clone()),
                    _ => ConsumerFault::Refused(format!("{error:#}")),
                })
            }
        }
    }
}

/// Cairn's own MCP server, for one who asks.
pub(crate) struct Own {
    source: Source,
    who: Asker,
}

impl std::fmt::Debug for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Own").field("who", &self.who).finish_non_exhaustive()
    }
}

impl Inside for Answers {
    fn serve(&self, who: &cairn_gateway::Asker) -> Arc<dyn Served> {
        let who = Asker::Within(Scope::of(who.tenant.as_deref(), &who.principal));
        Arc::new(Own::new(Source::Here(self.clone()), who))
    }
}

/// A tool: its name, the question that it asks, what it is for, and its arguments.
struct Tool {
    name: &'static str,
    question: &'static str,
    words: &'static str,
    needs: &'static [&'static str],
    takes: &'static [&'static str],
}

const TOOLS: [Tool; 5] = [
    Tool {
        name: "what_changed",
        question: "changes",
        words: "What is known to have changed since a time, oldest first: resources of the servers behind Cairn, how that is known, and the new version where it is known.",
        needs: &["since"],
        takes: &["server", "uri", "uri_prefix", "limit", "cursor"],
    },
    Tool {
        name: "freshest",
        question: "resources",
        words: "The freshest known version of a resource: since when, how that is known, and by which event. No version means that it changed and nobody has read it since.",
        needs: &["uri"],
        takes: &["server", "limit", "cursor"],
    },
    Tool {
        name: "what_was_seen",
        question: "seen",
        words: "Which version of which resource was seen last, and whether something newer is known.",
        needs: &[],
        takes: &["server", "uri", "uri_prefix", "agent", "limit", "cursor"],
    },
    Tool {
        name: "why_refused",
        question: "refusals",
        words: "Why a call was refused, by its id or for a whole workflow: the decision, the policies that made it, the permit that came nearest, and what to do.",
        needs: &[],
        takes: &["call_id", "workflow_id"],
    },
    Tool {
        name: "show_workflow",
        question: "workflow",
        words: "One workflow's decision path: each call with its decision, approval, intent and outcome, and where each event lies in the trail.",
        needs: &["workflow_id"],
        takes: &["limit", "cursor"],
    },
];

/// What each argument is.
fn argument(name: &str) -> Value {
    let words = match name {
        "since" => "A time such as 2026-11-24T09:00:00Z, or so long ago: 90s, 10m, 2h, 1d.",
        "server" => "Only of this server, by its name in Cairn.",
        "uri" => "The resource's URI.",
        "uri_prefix" => "Only resources whose URI begins so.",
        "agent" => "Only of this agent.",
        "call_id" => "The call's id, as the trail has it.",
        "workflow_id" => "The workflow's id.",
        "cursor" => "Where the next page begins: `next` of the page before.",
        "tenant" => "Only of this tenant.",
        "principal" => "Only of this principal.",
        _ => return json!({ "type": "integer", "minimum": 1, "maximum": 200, "description": "Answers in one page." }),
    };
    json!({ "type": "string", "description": words })
}

impl Own {
    pub(super) const fn new(source: Source, who: Asker) -> Self {
        Self { source, who }
    }

    fn tools(&self) -> Value {
        let narrows: &[&str] = if self.who == Asker::Operator { &["tenant", "principal"] } else { &[] };
        let tools = TOOLS.iter().map(|tool| {
            let arguments = tool.needs.iter().chain(tool.takes).chain(narrows);
            let properties: Map<String, Value> =
                arguments.map(|name| ((*name).to_owned(), argument(name))).collect();
            json!({
                "name": tool.name,
                "description": tool.words,
                "inputSchema": {
                    "type": "object", "properties": properties, "required": tool.needs, "additionalProperties": false,
                },
                "annotations": { "readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false },
            })
        });
        json!({ "tools": tools.collect::<Vec<_>>() })
    }

    fn called(&self, request: &Message) -> Result<Value, Fault> {
        let name = request.param_str("name").unwrap_or_default();
        let Some(tool) = TOOLS.iter().find(|tool| tool.name == name) else {
            let shown: String = name.chars().take(64).collect();
            return Err(Fault::new(code::INVALID_PARAMS, format!("there is no tool {shown:?}: tools/list has them")));
        };
        let arguments = request.arguments_raw().map_or(Ok(Value::Null), |raw| serde_json::from_slice(&raw));
        let arguments = match arguments {
            Ok(Value::Object(arguments)) => arguments,
            Ok(Value::Null) => Map::new(),
            _ => return Err(Fault::new(code::INVALID_PARAMS, "arguments is an object")),
        };
        let missing = tool.needs.iter().find(|key| arguments.get(**key).is_none_or(Value::is_null));
        let answered = match missing {
            Some(key) => Err(ConsumerFault::Refused(format!(
                "say {key}: {}",
                argument(key)["description"].as_str().unwrap_or_default()
            ))),
            None => self.source.ask(tool.question, arguments, &self.who),
        };
        Ok(match answered {
            Ok(answer) => json!({
                "content": [{ "type": "text", "text": answer.to_string() }], "structuredContent": answer, "isError": false,
            }),
            Err(fault) => json!({ "content": [{ "type": "text", "text": fault.to_string() }], "isError": true }),
        })
    }

    fn resources(&self) -> Result<Value, Fault> {
        let answer = self.source.ask("workflows", Map::new(), &self.who);
        let changes = json!({
            "uri": CHANGES_URI, "name": "changes", "mimeType": "application/json",
            "description": "What is known to have changed within the last hour.",
        });
        let mut all = vec![changes];
        // Without a database there are none yet, and whoever asks a tool hears why.
        for one in answer.ok().as_ref().and_then(|answer| answer["workflows"].as_array()).into_iter().flatten() {
            let of = |key: &str| one[key].as_str().unwrap_or_default();
            all.push(json!({
                "uri": format!("{WORKFLOW_URI}{}", encoded(of("workflow_id"))), "name": of("workflow_id"), "mimeType": "application/json",
                "description": format!("A workflow of {}, last decided at {}: {}", of("principal"), of("at"), of("last")),
            }));
        }
        Ok(json!({ "resources": all }))
    }

    fn read(&self, request: &Message) -> Result<Value, Fault> {
        let uri = request.param_str("uri").unwrap_or_default();
        let shown: String = uri.chars().take(256).collect();
        let no_such = || {
            let words = format!(
                "there is no resource {shown:?}: {WORKFLOW_URI}ID, {CONTEXT_URI}SERVER/URI and {CHANGES_URI} are served"
            );
            let data = json!({ "uri": shown }).to_string();
            Fault { data: Some(data), ..Fault::new(RESOURCE_NOT_FOUND, words) }
        };
        let answer = if uri == CHANGES_URI {
            self.asked("changes", &[("since", CHANGES_SINCE)])
        } else if let Some(id) = uri.strip_prefix(WORKFLOW_URI).filter(|id| !id.is_empty()) {
            self.asked("workflow", &[("workflow_id", &decoded(id))])
        } else if let Some((server, of)) = uri.strip_prefix(CONTEXT_URI).and_then(|rest| rest.split_once('/')) {
            self.freshest(&decoded(server), of)
        } else {
            return Err(no_such());
        };
        let answer = answer.map_err(|fault| match &fault {
            ConsumerFault::NoSuch(_) => Fault::new(RESOURCE_NOT_FOUND, fault.to_string()),
            ConsumerFault::Refused(_) => Fault::new(code::INVALID_PARAMS, fault.to_string()),
            ConsumerFault::Away(_) => Fault::new(code::INTERNAL_ERROR, fault.to_string()),
        })?;
        Ok(json!({ "contents": [{ "uri": uri, "mimeType": "application/json", "text": answer.to_string() }] }))
    }

    /// By the URI as it came, else as it is meant where it was encoded.
    fn freshest(&self, server: &str, uri: &str) -> Result<Value, ConsumerFault> {
        for uri in [uri.to_owned(), decoded(uri)] {
            let answer = self.asked("resources", &[("server", server), ("uri", &uri)])?;
            if answer["resources"].as_array().is_some_and(|found| !found.is_empty()) {
                return Ok(answer);
            }
        }
        let words = "nothing of that resource is known among what is kept and may be seen here";
        Err(ConsumerFault::NoSuch(words.to_owned()))
    }

    fn asked(&self, name: &str, members: &[(&str, &str)]) -> Result<Value, ConsumerFault> {
        let members = members.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        self.source.ask(name, members, &self.who)
    }
}

impl Served for Own {
    fn welcome(&self) -> Value {
        json!({
            "serverInfo": { "name": "cairn", "title": "Cairn", "version": env!("CARGO_PKG_VERSION") },
            "capabilities": { "tools": {}, "resources": {} },
            "instructions": INSTRUCTIONS,
        })
    }

    fn given(&self, method: &str, request: &Message) -> Option<Result<String, Fault>> {
        let result = match method {
            "tools/list" => Ok(self.tools()),
            "tools/call" => self.called(request),
            "resources/list" => self.resources(),
            "resources/templates/list" => Ok(templates()),
            "resources/read" => self.read(request),
            _ => return None,
        };
        Some(result.map(|result| result.to_string()))
    }
}

fn templates() -> Value {
    let of = |uri: String, name: &str, words: &str| json!({ "uriTemplate": uri, "name": name, "description": words, "mimeType": "application/json" });
    json!({ "resourceTemplates": [
        of(format!("{WORKFLOW_URI}{{workflow_id}}"), "workflow", "One workflow's decision path."),
        of(format!("{CONTEXT_URI}{{server}}/{{+uri}}"), "freshest", "The freshest known version of a resource of a server."),
    ] })
}

/// As one part of a URI.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// What an encoded part means; as it is where it means nothing else.
fn decoded(text: &str) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, left @ ..] = rest {
        let digits = left.get(..2).filter(|_| *first == b'%').and_then(|two| std::str::from_utf8(two).ok());
        match digits.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &left[2..];
            }
            None => {
                out.push(*first);
                rest = left;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_a_uri() {
        for id in ["wf-1", "order-4711/refund", "100%", "a b#c?d", "é"] {
            assert_eq!(decoded(&encoded(id)), id);
        }
        assert_eq!(decoded("100%"), "100%");
        assert_eq!(decoded("%zz%41"), "%zzA");
    }

    #[test]
    fn what_a_tool_takes_is_what_its_question_has() {
        for tool in TOOLS {
            for name in tool.needs.iter().chain(tool.takes) {
                // What is missing is another matter than what is not known.
                let members = Map::from_iter([((*name).to_owned(), json!("1"))]);
                let read = Asked::read(tool.question, members, &Asker::Operator);
                assert!(
                    read.as_ref().err().is_none_or(|words| !words.contains("there is no")),
                    "{}: {read:?}",
                    tool.name
                );
            }
        }
    }
}
