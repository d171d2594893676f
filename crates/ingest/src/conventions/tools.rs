//! Which tools a model was offered.
//!
//! A definition is told in many forms (those of providers, MCP's own, names with numbers). What is compared is one: name, description and
//! input schema, so that the same offer has the same digest whoever tells of it.

use serde_json::{Value, json};

use super::{Offered, listed, messages::raw};
use crate::otlp::Attributes;

/// Tools of one offer that are told by name.
const OFFERED_MAX: usize = 256;
/// Longest text of definitions that is looked into, in bytes.
const LOOKED_INTO_BYTES_MAX: usize = 1 << 20;
/// Under which names definitions stand, whole or numbered.
const NAMES: [&str; 5] =
    ["gen_ai.tool.definitions", "gen_ai.request.tools", "llm.tools", "llm.request.functions", "gen_ai.tools"];

/// An offer.
pub(super) struct Offer {
    pub(super) tools: Vec<Offered>,
    /// How many more there were.
    pub(super) more: u64,
    /// All of it as it came, JSON.
    pub(super) definitions: Vec<u8>,
}

impl Offer {
    /// The offer that attributes tell of.
    pub(super) fn of(attributes: &Attributes) -> Option<Self> {
        let told = NAMES.iter().find_map(|name| match attributes.get(*name) {
            Some(value) if !value.is_null() => Some(value.clone()),
            _ => listed(attributes, name),
        })?;
        let mut definitions = Vec::new();
        raw(&mut definitions, &told);
        let list = match &told {
            Value::String(text) if text.len() > LOOKED_INTO_BYTES_MAX => Value::Null,
            Value::String(text) => serde_json::from_str(text).unwrap_or_default(),
            other => other.clone(),
        };
        let list = match list {
            Value::Array(list) => list,
            Value::Object(one) => vec![Value::Object(one)],
            _ => Vec::new(),
        };
        let all = list.len();
        let tools: Vec<Offered> = list.into_iter().take(OFFERED_MAX).filter_map(offered).collect();
        Some(Self { more: all.saturating_sub(OFFERED_MAX) as u64, tools, definitions })
    }
}

/// One definition.
fn offered(told: Value) -> Option<Offered> {
    let parsed = |value: &Value| match value {
        Value::String(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        other => other.clone(),
    };
    // A list of texts, each a definition.
    let told = if told.is_string() { parsed(&told) } else { told };
    let outer = told.get("tool").unwrap_or(&told).clone();
    let schema = outer.get("json_schema").map(parsed);
    let whole = schema.clone().unwrap_or_else(|| outer.clone());
    let inner = whole.get("function").filter(|function| function.is_object()).unwrap_or(&whole);
    let of = |name: &str| outer.get(name).or_else(|| inner.get(name)).and_then(Value::as_str);
    let name = of("name")?.to_owned();
    let input = ["parameters", "inputSchema", "input_schema"].into_iter().find_map(|key| inner.get(key)).map(parsed);
    // OpenInference may have the schema of the input alone.
    let input = input.or_else(|| schema.filter(|schema| schema.get("type").is_some_and(|kind| kind == "object")));
    let description = of("description");
    let definition = (input.is_some() || description.is_some()).then(|| {
        let mut definition = json!({ "name": name });
        if let Some(description) = description {
            definition["description"] = description.into();
        }
        if let Some(input) = input.filter(|input| !input.is_null()) {
            definition["inputSchema"] = input;
        }
        definition
    });
    Some(Offered { name, definition })
}
