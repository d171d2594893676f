//! A question to the context, read from whatever it came in: a request's query, or a tool's arguments.
//!
//! Both have the same names and bounds. What is not understood is refused, and the words say what there is.

use cairn_clock::Timestamp;
use cairn_consumers::context::{Changes, Resources, Scope, Seen};
use serde_json::{Map, Value};

use crate::since;

/// Answers in one page, where nothing is said, and at most.
const LIMIT: usize = 50;
const LIMIT_MAX: usize = 200;
/// The longest text of a question, in bytes.
const TEXT_BYTES_MAX: usize = 4_096;

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Asker {
    /// An operator, who may narrow it down.
    Operator,
    /// Somebody who sees this and nothing else.
    Within(Scope),
}

/// A question, who asks it, and which part of the answer is wanted.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Asked {
    pub(crate) scope: Scope,
    pub(crate) question: Question,
    pub(crate) paging: Paging,
}

/// Which part of an answer is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Paging {
    pub(crate) cursor: Option<String>,
    pub(crate) limit: usize,
}

/// What is asked.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Question {
    Resources(Resources),
    Changes(Changes),
    Seen(Seen),
    /// The recent ones.
    Workflows,
    Workflow(String),
    Refusals(Which),
}

/// Which calls are asked about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Call(String),
    Workflow(String),
}

/// What can be asked about.
pub(crate) const NAMES: [&str; 6] = ["resources", "changes", "seen", "workflows", "workflow", "refusals"];

/// Members of a question that are left to read, and those that were.
struct Members {
    left: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Members {
    fn take(&mut self, key: &'static str) -> Result<Option<String>, String> {
        self.known.push(key);
        let text = match self.left.shift_remove(key) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::String(text)) => text,
            // A query has texts alone, and a count is a number elsewhere.
            Some(Value::Number(number)) if key == "limit" => number.to_string(),
            Some(_) => return Err(format!("{key} is a text")),
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(format!("{key} is longer than {TEXT_BYTES_MAX} bytes"));
        }
        Ok(Some(text).filter(|text| !text.is_empty()))
    }

    fn need(&mut self, key: &'static str, example: &str) -> Result<String, String> {
        self.take(key)?.ok_or_else(|| format!("say {key}, such as {example}"))
    }

    fn resources(&mut self) -> Result<Resources, String> {
        Ok(Resources { server: self.take("server")?, uri: self.take("uri")?, prefix: self.take("uri_prefix")? })
    }

    fn paging(&mut self) -> Result<Paging, String> {
        let limit = match self.take("limit")? {
            None => LIMIT,
            Some(text) => {
                let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                limit.ok_or_else(|| format!("limit is a number from 1 to {LIMIT_MAX}"))?
            }
        };
        Ok(Paging { cursor: self.take("cursor")?, limit })
    }

    fn scope(&mut self, who: &Asker) -> Result<Scope, String> {
        match who {
            Asker::Within(scope) => Ok(scope.clone()),
            Asker::Operator => Ok(Scope { tenant: self.take("tenant")?, principal: self.take("principal")? }),
        }
    }
}

impl Asked {
    /// Reads a question of that name.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub(crate) fn read(name: &str, members: Map<String, Value>, who: &Asker) -> Result<Self, String> {
        let mut members = Members { left: members, known: Vec::new() };
        let question = match name {
            "resources" => Question::Resources(members.resources()?),
            "changes" => {
                let text = members.need("since", "10m, or 2026-11-24T09:00:00Z")?;
                let millis = since::millis(&text).map_err(|words| format!("since: {words}"))?;
                let since = Timestamp::from_micros(millis.unsigned_abs().saturating_mul(1_000));
                Question::Changes(Changes { since, of: members.resources()? })
            }
            "seen" => Question::Seen(Seen { agent: members.take("agent")?, of: members.resources()? }),
            "workflows" => Question::Workflows,
            "workflow" => {
                Question::Workflow(members.need("workflow_id", "the one that a refusal or `cairn trail` names")?)
            }
            "refusals" => match (members.take("call_id")?, members.take("workflow_id")?) {
                (Some(call), None) => Question::Refusals(Which::Call(call)),
                (None, Some(workflow)) => Question::Refusals(Which::Workflow(workflow)),
                _ => return Err("say call_id or workflow_id, one of them".to_owned()),
            },
            other => {
                let other: String = other.chars().take(64).collect();
                return Err(format!("nothing is known of {other:?}: ask for {}", NAMES.join(", ")));
            }
        };
        let paging = members.paging()?;
        let scope = members.scope(who)?;
        if let Some(other) = members.left.keys().next() {
            let other: String = other.chars().take(64).collect();
            return Err(format!("there is no {other:?} in this question: it has {}", members.known.join(", ")));
        }
        Ok(Self { scope, question, paging })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(name: &str, members: Value, who: &Asker) -> Result<Asked, String> {
        Asked::read(name, members.as_object().expect("an object").clone(), who)
    }

    #[test]
    fn what_is_asked_is_understood_or_refused_with_what_there_is() {
        let asked =
            read("changes", json!({ "since": "1970-01-01T00:00:01Z", "server": "", "limit": "7" }), &Asker::Operator);
        let asked = asked.expect("a question");
        let Question::Changes(changes) = &asked.question else { panic!("{asked:?}") };
        assert_eq!((changes.since.as_micros(), &changes.of.server, asked.paging.limit), (1_000_000, &None, 7));
        for (name, members, words) in [
            ("changes", json!({}), "say since"),
            ("changes", json!({ "since": "yesterday" }), "since: write 90s"),
            ("resources", json!({ "limit": 0 }), "limit is a number from 1 to 200"),
            ("resources", json!({ "limit": 100_000 }), "limit is a number from 1 to 200"),
            ("resources", json!({ "sql": "x" }), "there is no \"sql\""),
            ("resources", json!({ "uri": ["x"] }), "uri is a text"),
            ("resources", json!({ "uri": 5 }), "uri is a text"),
            ("resources", json!({ "uri": "x".repeat(5_000) }), "longer than"),
            ("refusals", json!({}), "call_id or workflow_id"),
            ("refusals", json!({ "call_id": "a", "workflow_id": "b" }), "one of them"),
            ("everything", json!({}), "ask for resources"),
        ] {
            let refused = read(name, members.clone(), &Asker::Operator).expect_err("refused");
            assert!(refused.contains(words), "{name} {members}: {refused}");
        }
    }

    #[test]
    fn whoever_sees_their_own_cannot_ask_for_anybody_elses() {
        let own = Asker::Within(Scope::of(Some("acme"), "ann"));
        for members in [json!({ "principal": "ben" }), json!({ "tenant": "globex" })] {
            assert!(read("seen", members.clone(), &own).expect_err("refused").contains("there is no"), "{members}");
        }
        assert_eq!(read("seen", json!({}), &own).expect("a question").scope, Scope::of(Some("acme"), "ann"));
        let wide = read("seen", json!({ "principal": "ben" }), &Asker::Operator).expect("a question");
        assert_eq!(wide.scope, Scope { tenant: None, principal: Some("ben".to_owned()) });
    }
}
