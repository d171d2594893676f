//! The fixture file and its words.
//!
//! What it is: the parsed `fixture.json` and the replacement of `$words` in it. Who calls it: `server` and `rounds`.
//! It guarantees that a word nobody gave stays as it is. It must never know a scenario by name.

use std::sync::Arc;

use anyhow::Context;
use serde_json::{Map, Value};

/// The fixture, shared by all sessions.
#[derive(Clone, Debug)]
pub(crate) struct Fixture(Arc<Value>);

impl Fixture {
    /// Parses the file that is built in.
    pub(crate) fn load() -> anyhow::Result<Self> {
        let document = serde_json::from_str(include_str!("../../fixture.json")).context("parse fixture.json")?;
        Ok(Self(Arc::new(document)))
    }

    /// A text at the top of the document.
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_default()
    }

    /// How long a client may keep what a list said, in milliseconds.
    pub(crate) fn cache_ttl_ms(&self) -> u64 {
        self.0["cacheTtlMs"].as_u64().unwrap_or_default()
    }

    /// The one resource template.
    pub(crate) fn template(&self) -> &Value {
        &self.0["template"]
    }

    /// Each entry of a list, without the keys that are ours.
    pub(crate) fn public(&self, list: &str, hidden: &[&str]) -> Vec<Value> {
        self.0[list].as_array().into_iter().flatten().map(|entry| without(entry, hidden)).collect()
    }

    /// The entry of a list whose `key` is `value`.
    pub(crate) fn find(&self, list: &str, key: &str, value: &str) -> Option<&Value> {
        self.0[list].as_array()?.iter().find(|entry| entry[key] == value)
    }
}

/// An object less some keys.
pub(crate) fn without(entry: &Value, hidden: &[&str]) -> Value {
    let kept = entry.as_object().into_iter().flatten().filter(|(key, _)| !hidden.contains(&key.as_str()));
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// Replaces each `$word` in the strings of `value`, JSON where the word is not a string.
pub(crate) fn fill(value: &Value, words: &Map<String, Value>) -> Value {
    match value {
        Value::String(text) => Value::String(fill_text(text, words)),
        Value::Array(entries) => entries.iter().map(|entry| fill(entry, words)).collect(),
        Value::Object(entries) => entries.iter().map(|(key, entry)| (key.clone(), fill(entry, words))).collect(),
        other => other.clone(),
    }
}

fn fill_text(text: &str, words: &Map<String, Value>) -> String {
    let mut parts = text.split('$');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(part.len());
        let (word, rest) = part.split_at(end);
        match words.get(word) {
            Some(Value::String(value)) => filled.push_str(value),
            Some(value) => filled.push_str(&value.to_string()),
            None => filled.extend(["$", word]),
        }
        filled.push_str(rest);
    }
    filled
}

/// The words that a client's answer brings: form fields, the completion's text, the action.
pub(crate) fn words_of(answer: &Value, words: &mut Map<String, Value>) {
    if let Some(text) = answer["content"]["text"].as_str() {
        words.insert("text".to_owned(), text.into());
    }
    if let Some(action) = answer.get("action") {
        words.insert("action".to_owned(), action.clone());
        words.insert("content".to_owned(), answer.get("content").cloned().unwrap_or_else(|| Map::new().into()));
        words.extend(answer["content"].as_object().cloned().unwrap_or_default());
    }
}
