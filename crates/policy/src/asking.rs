//! Questions from names, for whoever asks without a call: cases in files and the command line.
//!
//! The names are those of policies. What a name leaves out is filled in as the gateway would; a name that the gateway
//! could never ask with is an error.

use cairn_contract::{Direction, Target};
use cedar_policy::EntityUid;
use serde_json::{Map, Value, json};

use crate::Question;

/// Methods that servers ask of clients and clients never of servers.
const TO_CLIENT: [&str; 3] = ["elicitation/create", "roots/list", "sampling/createMessage"];

impl Question {
    /// A question from the names that policies use: principal `ada`, `User::"ada"` or `Agent::"bot"`; resource
    /// `Tool::"orders/refund_order"`, `Server::"orders"` or only `orders`.
    ///
    /// # Errors
    /// A name that is none of these, in words that say what to write.
    pub fn named(principal: &str, action: &str, resource: &str) -> Result<Self, String> {
        let (kind, principal) = typed(principal, "User")?;
        if !["User", "Agent", "Workload"].contains(&kind.as_str()) {
            return Err(format!("{kind}::{principal:?} is no principal: write User, Agent or Workload"));
        }
        let action = typed(action, "Action")?;
        if action.0 != "Action" {
            return Err(format!("{}::{:?} is no action: write the method, such as tools/call", action.0, action.1));
        }
        let (of, id) = typed(resource, "Server")?;
        let split = |what: &str| {
            let (server, name) = id.split_once('/').ok_or_else(|| {
                format!("{of}::{id:?} names no {what} of a server: write {of}::\"<server>/<{what}>\"")
            })?;
            Ok::<_, String>((server.to_owned(), name.to_owned()))
        };
        let (server, target) = match of.as_str() {
            "Server" => (id.clone(), Target::None),
            "Tool" => split("tool").map(|(server, name)| (server, Target::tool(name)))?,
            "Resource" => split("uri").map(|(server, uri)| (server, Target::resource(uri)))?,
            "Prompt" => split("prompt").map(|(server, prompt_name)| (server, Target::Prompt { prompt_name }))?,
            _ => return Err(format!("{of}::{id:?} is no resource: write Tool, Prompt, Resource or Server")),
        };
        let direction = if TO_CLIENT.contains(&action.1.as_str()) { Direction::ToClient } else { Direction::ToServer };
        let mut context = Map::new();
        if kind != "User" {
            context.insert("identity".to_owned(), json!({ "kind": kind.to_lowercase() }));
        }
        Ok(Self { principal, action: action.1, direction, server, target, arguments: None, context })
    }

    /// Takes the parts of a context that a case gives: `direction` sets the direction, everything else is as the gateway
    /// would add it.
    ///
    /// # Errors
    /// A direction that is none, or a time that Cedar does not read.
    pub fn with_context(mut self, context: Map<String, Value>) -> Result<Self, String> {
        for (name, value) in context {
            match (name.as_str(), &value) {
                ("direction", _) if value == "to_server" => self.direction = Direction::ToServer,
                ("direction", _) if value == "to_client" => self.direction = Direction::ToClient,
                ("direction", _) => return Err("context.direction is \"to_server\" or \"to_client\"".to_owned()),
                ("now", Value::String(time)) if crate::question::is_time(time) => {
                    drop(self.context.insert(name, value))
                }
                ("now", _) => return Err("context.now is a time such as \"2026-11-24T12:00:00Z\"".to_owned()),
                ("method" | "server" | "unmapped" | "arguments", _) => {
                    return Err(format!("context.{name} follows from the call: leave it out"));
                }
                ("identity", Value::Object(said)) => {
                    let identity = self.context.entry(name).or_insert_with(|| json!({}));
                    if let Some(identity) = identity.as_object_mut() {
                        identity.extend(said.clone());
                    }
                }
                _ => drop(self.context.insert(name, value)),
            }
        }
        Ok(self)
    }
}

/// Type and id of `Type::"id"`; anything else is an id of the type that stands for it.
fn typed(text: &str, plain: &str) -> Result<(String, String), String> {
    if text.is_empty() {
        return Err(format!("an empty name is no {}", plain.to_lowercase()));
    }
    if !text.contains("::\"") {
        return Ok((plain.to_owned(), text.to_owned()));
    }
    let uid: EntityUid = text.parse().map_err(|_| format!("{text} is no name: write {plain}::\"<name>\""))?;
    Ok((uid.type_name().to_string(), uid.id().unescaped().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_the_question_that_the_gateway_would_ask() {
        let asked = Question::named("Agent::\"bot\"", "tools/call", "Tool::\"orders/a/b\"").expect("names");
        assert_eq!((asked.principal.as_str(), asked.server.as_str()), ("bot", "orders"));
        assert_eq!(asked.target, Target::tool("a/b"));
        assert_eq!(asked.context["identity"], json!({ "kind": "agent" }));
        let asked = Question::named("ada", "sampling/createMessage", "orders").expect("names");
        assert_eq!((asked.direction, asked.target), (Direction::ToClient, Target::None));
    }

    #[test]
    fn what_is_no_name_is_told() {
        for (who, what, on) in [
            ("Tool::\"x\"", "ping", "s"),
            ("ada", "Tool::\"x\"", "s"),
            ("ada", "tools/call", "Tool::\"x\""),
            ("ada", "tools/call", "Group::\"x\""),
            ("ada", "tools/call", "Tool::\"x"),
            ("", "ping", "s"),
        ] {
            assert!(Question::named(who, what, on).is_err(), "{who} {what} {on}");
        }
        let asked = || Question::named("ada", "ping", "s").expect("names");
        let with = |text: &str| asked().with_context(serde_json::from_str(text).expect("JSON"));
        assert!(with(r#"{"now": "yesterday"}"#).is_err());
        assert!(with(r#"{"direction": "up"}"#).is_err());
        assert!(with(r#"{"method": "x"}"#).is_err());
        assert!(with(r#"{"now": "2026-11-24T12:00:00Z", "hints": {"readOnlyHint": true}}"#).is_ok());
    }
}
