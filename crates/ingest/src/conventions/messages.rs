//! What was asked and what was answered, and which tools the answer chose.
//!
//! Messages are kept as they came: a text that is JSON as that JSON, so that nothing is written anew. Only answers are looked into, and only
//! up to a bound, because a text of a few bytes may become a tree of many.

use serde_json::{Value, value::RawValue};

use super::{Chosen, listed, named};
use crate::otlp::{Attributes, Event};

/// Longest answer that is looked into, in bytes.
const LOOKED_INTO_BYTES_MAX: usize = 1 << 20;
/// Tools that one answer may choose, as far as they are told.
const CHOSEN_MAX: usize = 128;
/// Events of older conventions that are messages of the prompt; the answer's is `gen_ai.choice`.
const ASKED: [(&str, &str); 4] = [
    ("gen_ai.system.message", "system"),
    ("gen_ai.user.message", "user"),
    ("gen_ai.assistant.message", "assistant"),
    ("gen_ai.tool.message", "tool"),
];
const CHOICE: &str = "gen_ai.choice";

/// Whether an event of that name is a message.
pub(super) fn is_message(name: &str) -> bool {
    name == CHOICE || ASKED.iter().any(|(asked, _)| *asked == name)
}

/// Messages as they were told.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Told {
    instructions: Option<Value>,
    asked: Option<Value>,
    answered: Option<Value>,
}

impl Told {
    /// What attributes tell.
    pub(super) fn of_attributes(attributes: &Attributes) -> Self {
        let of = |names: &[&str]| names.iter().find_map(|name| attributes.get(*name)).filter(|v| !v.is_null()).cloned();
        let under = |prefixes: &[&str]| prefixes.iter().find_map(|prefix| listed(attributes, prefix));
        Self {
            instructions: of(&["gen_ai.system_instructions"]),
            asked: of(&["gen_ai.input.messages"])
                .or_else(|| under(&["llm.input_messages", "gen_ai.prompt", "llm.prompts"]))
                .or_else(|| of(&["gen_ai.prompt", "input.value"])),
            answered: of(&["gen_ai.output.messages"])
                .or_else(|| under(&["llm.output_messages", "gen_ai.completion", "llm.completions"]))
                .or_else(|| of(&["gen_ai.completion", "output.value"])),
        }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.instructions.is_none() && self.asked.is_none() && self.answered.is_none()
    }

    /// Takes what another tells and this one does not.
    pub(super) fn also(&mut self, other: Self) {
        let Self { instructions, asked, answered } = other;
        self.instructions = self.instructions.take().or(instructions);
        self.asked = self.asked.take().or(asked);
        self.answered = self.answered.take().or(answered);
    }

    /// Takes the message that an event is; whether it is one.
    pub(super) fn event(&mut self, event: &Event) -> bool {
        let name = named(event);
        match name {
            "gen_ai.content.prompt" => self.asked = event.attributes.get("gen_ai.prompt").cloned(),
            "gen_ai.content.completion" => self.answered = event.attributes.get("gen_ai.completion").cloned(),
            CHOICE => push(&mut self.answered, said(event, None)),
            _ => match ASKED.iter().find(|(asked, _)| *asked == name) {
                Some((_, role)) => push(&mut self.asked, said(event, Some(role))),
                None => return false,
            },
        }
        true
    }

    /// What was asked, as JSON.
    pub(super) fn prompt(&self) -> Option<Vec<u8>> {
        document(&[("system_instructions", self.instructions.as_ref()), ("messages", self.asked.as_ref())])
    }

    /// What was answered, as JSON.
    pub(super) fn output(&self) -> Option<Vec<u8>> {
        document(&[("messages", self.answered.as_ref())])
    }

    fn answers(&self) -> Vec<Value> {
        let answered = match &self.answered {
            Some(Value::String(text)) if text.len() <= LOOKED_INTO_BYTES_MAX => serde_json::from_str(text).ok(),
            Some(Value::String(_)) | None => None,
            Some(value) => Some(value.clone()),
        };
        match answered {
            Some(Value::Array(list)) => list,
            // A whole answer of the provider's.
            Some(Value::Object(mut object)) => match object.remove("choices") {
                Some(Value::Array(choices)) => choices,
                _ => vec![Value::Object(object)],
            },
            _ => Vec::new(),
        }
    }

    /// Which tools were chosen, in order.
    pub(super) fn chosen(&self) -> Vec<Chosen> {
        let mut chosen = Vec::new();
        for answer in self.answers() {
            for message in [Some(&answer), answer.get("message")].into_iter().flatten() {
                let list = |key: &str| message.get(key).and_then(Value::as_array).into_iter().flatten();
                let is_choice = |part: &&Value| {
                    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
                    ["tool_call", "tool_use", "function_call"].contains(&kind)
                };
                chosen.extend(list("parts").chain(list("content")).filter(is_choice).filter_map(choice));
                chosen.extend(list("tool_calls").filter_map(choice));
                chosen.extend(message.get("function_call").and_then(choice));
            }
        }
        chosen.truncate(CHOSEN_MAX);
        chosen
    }

    /// Why it stopped, where only the answers say so.
    pub(super) fn finish_reasons(&self) -> Vec<String> {
        let reason = |answer: &Value| answer.get("finish_reason")?.as_str().map(ToOwned::to_owned);
        self.answers().iter().take(64).filter_map(reason).collect()
    }
}

/// One choice of a tool, in any of the forms that providers and conventions have.
fn choice(call: &Value) -> Option<Chosen> {
    let call = call.get("tool_call").unwrap_or(call);
    let function = call.get("function").unwrap_or(call);
    let name = [function, call].into_iter().find_map(|within| within.get("name")?.as_str())?;
    let id = call.get("id").and_then(Value::as_str).map(ToOwned::to_owned);
    Some(Chosen { name: name.to_owned(), id })
}

fn push(list: &mut Option<Value>, message: Value) {
    match list {
        Some(Value::Array(list)) => list.push(message),
        _ => *list = Some(Value::Array(vec![message])),
    }
}

/// What an event says: its body, or what span events have in the place of one.
fn said(event: &Event, role: Option<&str>) -> Value {
    let mut said = match &event.body {
        Value::Object(_) => event.body.clone(),
        Value::Null => match event.attributes.get("gen_ai.event.content") {
            Some(Value::String(text)) => match serde_json::from_str(text) {
                Ok(parsed) if text.len() <= LOOKED_INTO_BYTES_MAX => parsed,
                _ => serde_json::json!({ "content": text }),
            },
            _ => Value::Object(event.attributes.iter().map(|(name, value)| (name.clone(), value.clone())).collect()),
        },
        other => serde_json::json!({ "content": other }),
    };
    if let (Value::Object(said), Some(role)) = (&mut said, role) {
        said.entry("role").or_insert_with(|| Value::from(role));
    }
    said
}

/// An object of these members; nothing where there is none.
pub(super) fn document(members: &[(&str, Option<&Value>)]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    for (name, value) in members.iter().filter_map(|(name, value)| Some((name, (*value)?))) {
        out.extend_from_slice(if out.is_empty() { b"{\"" } else { b",\"" });
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
        raw(&mut out, value);
    }
    if out.is_empty() {
        return None;
    }
    out.push(b'}');
    Some(out)
}

/// A value; a text that holds a list or an object is that.
pub(super) fn raw(out: &mut Vec<u8>, value: &Value) {
    if let Value::String(text) = value
        && text.trim_start().starts_with(['[', '{'])
        && serde_json::from_str::<&RawValue>(text).is_ok()
    {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    serde_json::to_writer(out, value).expect("a value in memory is written to memory");
}
