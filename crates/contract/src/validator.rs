//! Contracts at work: a JSON Schema of this folder, compiled, and what of an event breaks it.
//!
//! Producers hold every event to its newest contract before it is written ([`crate::Draft::write`]); `cairn contract check`
//! holds examples to theirs. Compiled are the keywords that contracts use, of JSON Schema 2020-12; a contract with another
//! one does not compile, because a keyword that nobody enforces is a promise that nobody keeps. What is said of a fault names
//! places and rules, never values: an event that is refused may hold anything.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::{Map, Value};

/// Faults that are told of one event.
const FAULTS_MAX: usize = 8;
/// Keywords that say something to people and nothing to a validator.
const ANNOTATIONS: [&str; 8] = ["$schema", "$id", "$defs", "$comment", "title", "description", "examples", "default"];
/// What the writer adds last: not there yet when a draft is checked.
const PLACE: [&str; 3] = ["hlc", "producer", "contract"];

/// A contract that cannot be compiled.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("at {at}: {what}")]
pub struct CompileError {
    /// JSON pointer into the schema.
    pub at: String,
    /// What is wrong.
    pub what: String,
}

/// One way in which an event breaks its contract.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// JSON pointer into the event.
    pub at: String,
    /// The rule that is broken.
    pub what: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", if self.at.is_empty() { "/" } else { &self.at }, self.what)
    }
}

/// A compiled contract.
#[derive(Debug)]
pub struct Validator {
    root: Node,
    definitions: Vec<Node>,
}

#[derive(Debug, Default)]
struct Node {
    /// The definition that holds besides.
    definition: Option<usize>,
    kind: Option<Kind>,
    constant: Option<Value>,
    listed: Vec<Value>,
    minimum: Option<i64>,
    maximum: Option<u64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    max_items: Option<usize>,
    pattern: Option<Regex>,
    format: Option<Format>,
    required: Vec<String>,
    properties: BTreeMap<String, Node>,
    is_closed: bool,
    items: Option<Box<Node>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    String,
    Integer,
    Number,
    Boolean,
    Object,
    Array,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Uuid,
    DateTime,
}

impl Validator {
    /// Compiles a schema.
    ///
    /// # Errors
    /// A keyword or a value that is not enforced here.
    pub fn compile(schema: &Value) -> Result<Self, CompileError> {
        let named = schema.get("$defs").and_then(Value::as_object).cloned().unwrap_or_default();
        let names: Vec<&String> = named.keys().collect();
        let mut definitions = Vec::with_capacity(named.len());
        for (name, definition) in &named {
            definitions.push(Node::compile(definition, &format!("/$defs/{name}"), &names)?);
        }
        Ok(Self { root: Node::compile(schema, "", &names)?, definitions })
    }

    /// How an event breaks the contract: nothing where it does not.
    #[must_use]
    pub fn faults(&self, event: &Value) -> Vec<Fault> {
        self.look(event, &[])
    }

    /// The same of an event that has no place in a chain yet.
    pub(crate) fn faults_of_draft(&self, event: &Value) -> Vec<Fault> {
        self.look(event, &PLACE)
    }

    fn look(&self, event: &Value, passed_over: &[&str]) -> Vec<Fault> {
        let mut look = Look { definitions: &self.definitions, passed_over, at: String::new(), faults: Vec::new() };
        look.node(&self.root, event);
        look.faults
    }
}

impl Node {
    fn compile(schema: &Value, at: &str, names: &[&String]) -> Result<Self, CompileError> {
        let fault = |what: String| CompileError { at: at.to_owned(), what };
        let keywords = schema.as_object().ok_or_else(|| fault("a schema is an object".to_owned()))?;
        let mut node = Self::default();
        for (keyword, value) in keywords {
            let wrong = || fault(format!("{keyword} has a value that it cannot have"));
            let count = || value.as_u64().and_then(|count| usize::try_from(count).ok()).ok_or_else(wrong);
            match keyword.as_str() {
                "type" => node.kind = Some(kind(value).ok_or_else(wrong)?),
                "const" => node.constant = Some(value.clone()),
                "enum" => node.listed.clone_from(value.as_array().ok_or_else(wrong)?),
                "minimum" => node.minimum = Some(value.as_i64().ok_or_else(wrong)?),
                "maximum" => node.maximum = Some(value.as_u64().ok_or_else(wrong)?),
                "minLength" => node.min_length = Some(count()?),
                "maxLength" => node.max_length = Some(count()?),
                "maxItems" => node.max_items = Some(count()?),
                "pattern" => {
                    let pattern = value.as_str().ok_or_else(wrong)?;
                    node.pattern = Some(Regex::new(pattern).map_err(|error| fault(format!("pattern: {error}")))?);
                }
                "format" => {
                    node.format = Some(match value.as_str() {
                        Some("uuid") => Format::Uuid,
                        Some("date-time") => Format::DateTime,
                        _ => return Err(wrong()),
                    });
                }
                "required" => {
                    let names = value.as_array().ok_or_else(wrong)?.iter();
                    let names = names.map(|name| name.as_str().map(ToOwned::to_owned).ok_or_else(wrong));
                    node.required = names.collect::<Result<_, _>>()?;
                }
                "properties" => {
                    for (name, property) in value.as_object().ok_or_else(wrong)? {
                        let property = Self::compile(property, &format!("{at}/properties/{name}"), names)?;
                        node.properties.insert(name.clone(), property);
                    }
                }
                "additionalProperties" => node.is_closed = !value.as_bool().ok_or_else(wrong)?,
                "items" => node.items = Some(Box::new(Self::compile(value, &format!("{at}/items"), names)?)),
                "$ref" => {
                    let name = value.as_str().and_then(|reference| reference.strip_prefix("#/$defs/"));
                    let place = name.and_then(|name| names.iter().position(|known| *known == name));
                    node.definition = Some(place.ok_or_else(wrong)?);
                }
                other if ANNOTATIONS.contains(&other) || other.starts_with("x-") => {}
                other => return Err(fault(format!("the keyword {other:?} is none that producers enforce"))),
            }
        }
        Ok(node)
    }
}

fn kind(value: &Value) -> Option<Kind> {
    let name = match value {
        Value::Array(one) if one.len() == 1 => one[0].as_str(),
        other => other.as_str(),
    };
    Some(match name? {
        "string" => Kind::String,
        "integer" => Kind::Integer,
        "number" => Kind::Number,
        "boolean" => Kind::Boolean,
        "object" => Kind::Object,
        "array" => Kind::Array,
        _ => return None,
    })
}

impl Kind {
    fn is(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Integer => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Object => value.is_object(),
            Self::Array => value.is_array(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Integer => "a whole number",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::Object => "an object",
            Self::Array => "an array",
        }
    }
}

/// Whether two values are one: numbers are, however they are written.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

struct Look<'v> {
    definitions: &'v [Node],
    passed_over: &'v [&'v str],
    at: String,
    faults: Vec<Fault>,
}

impl Look<'_> {
    fn fault(&mut self, what: impl FnOnce() -> String) {
        if self.faults.len() < FAULTS_MAX {
            self.faults.push(Fault { at: self.at.clone(), what: what() });
        }
    }

    fn within(&mut self, segment: &str, look: impl FnOnce(&mut Self)) {
        let before = self.at.len();
        self.at.push('/');
        self.at.push_str(&segment.replace('~', "~0").replace('/', "~1"));
        look(self);
        self.at.truncate(before);
    }

    fn node(&mut self, node: &Node, value: &Value) {
        if let Some(place) = node.definition {
            let definition = &self.definitions[place];
            self.node(definition, value);
        }
        if let Some(kind) = node.kind.filter(|kind| !kind.is(value)) {
            // Everything else that could be said follows from that.
            return self.fault(|| format!("is not {}", kind.name()));
        }
        if node.constant.as_ref().is_some_and(|constant| !is_same(constant, value)) {
            self.fault(|| "is not the one value that it may be".to_owned());
        }
        if !node.listed.is_empty() && !node.listed.iter().any(|listed| is_same(listed, value)) {
            self.fault(|| "is none of the values that it may be".to_owned());
        }
        match value {
            Value::String(text) => self.text(node, text),
            Value::Number(number) => self.number(node, number),
            Value::Array(items) => self.items(node, items),
            Value::Object(members) => self.members(node, members),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn text(&mut self, node: &Node, text: &str) {
        // Bytes are never fewer than characters, so most texts need not be counted.
        let is_over = |max: usize| text.len() > max && text.chars().count() > max;
        if let Some(max) = node.max_length.filter(|max| is_over(*max)) {
            self.fault(|| format!("is longer than {max} characters"));
        }
        if let Some(min) = node.min_length.filter(|min| text.chars().take(*min).count() < *min) {
            self.fault(|| format!("is shorter than {min} characters"));
        }
        if let Some(pattern) = node.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            let pattern = pattern.as_str().to_owned();
            self.fault(|| format!("does not match {pattern}"));
        }
        let fits = match node.format {
            None => true,
            Some(Format::Uuid) => text.len() == 36 && uuid::Uuid::try_parse(text).is_ok(),
            Some(Format::DateTime) => text.parse::<cairn_clock::Timestamp>().is_ok(),
        };
        if !fits {
            let name = if node.format == Some(Format::Uuid) { "a UUID" } else { "a time of RFC 3339" };
            self.fault(|| format!("is not {name}"));
        }
    }

    fn number(&mut self, node: &Node, number: &serde_json::Number) {
        let below = |minimum: i64| match (number.as_i64(), number.as_u64()) {
            (Some(signed), _) => signed < minimum,
            (None, Some(_)) => false,
            (None, None) => number.as_f64().is_some_and(|double| double < minimum as f64),
        };
        let above = |maximum: u64| match (number.as_u64(), number.as_i64()) {
            (Some(unsigned), _) => unsigned > maximum,
            (None, Some(_)) => false,
            (None, None) => number.as_f64().is_some_and(|double| double > maximum as f64),
        };
        if let Some(minimum) = node.minimum.filter(|minimum| below(*minimum)) {
            self.fault(|| format!("is less than {minimum}"));
        }
        if let Some(maximum) = node.maximum.filter(|maximum| above(*maximum)) {
            self.fault(|| format!("is more than {maximum}"));
        }
    }

    fn items(&mut self, node: &Node, items: &[Value]) {
        if let Some(max) = node.max_items.filter(|max| items.len() > *max) {
            self.fault(|| format!("has more than {max} items"));
        }
        let Some(each) = &node.items else { return };
        for (at, item) in items.iter().enumerate() {
            self.within(&at.to_string(), |look| look.node(each, item));
        }
    }

    fn members(&mut self, node: &Node, members: &Map<String, Value>) {
        for name in node.required.iter().filter(|name| !members.contains_key(*name)) {
            // Only the event itself gets its place last.
            if !(self.at.is_empty() && self.passed_over.contains(&name.as_str())) {
                self.fault(|| format!("has no {name:?}"));
            }
        }
        for (name, member) in members {
            match node.properties.get(name) {
                Some(property) => self.within(name, |look| look.node(property, member)),
                None if node.is_closed => self.fault(|| "has a member that nobody knows".to_owned()),
                None => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{EventType, contracts};

    fn schema(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn every_contract_compiles_and_its_examples_fit() {
        for contract in EventType::ALL.iter().flat_map(|event_type| contracts(*event_type)) {
            let schema = schema(contract.schema);
            let validator = Validator::compile(&schema).unwrap_or_else(|error| panic!("{}: {error}", contract.uri()));
            for example in schema["examples"].as_array().expect("examples") {
                assert_eq!(validator.faults(example), [], "{}", contract.uri());
            }
        }
    }

    #[test]
    fn what_nobody_enforces_does_not_compile() {
        for (text, at) in [
            (r#"{"type": "object", "properties": {"a": {"multipleOf": 3}}}"#, "/properties/a"),
            (r##"{"$defs": {"d": {"type": "null"}}}"##, "/$defs/d"),
            (r##"{"items": {"$ref": "#/$defs/none"}}"##, "/items"),
            (r#"{"format": "email"}"#, ""),
            (r#"{"pattern": "("}"#, ""),
            (r#"{"additionalProperties": {"type": "string"}}"#, ""),
            ("true", ""),
        ] {
            assert_eq!(Validator::compile(&schema(text)).expect_err(text).at, at, "{text}");
        }
    }

    #[test]
    fn a_fault_names_its_place_and_no_value() {
        let validator = Validator::compile(&schema(
            r#"{"type": "object", "required": ["a"], "properties": {"l": {"items": {"maxLength": 3}}, "x/y": {"enum": ["p"]}}}"#,
        ))
        .expect("it compiles");
        let faults = validator.faults(&json!({ "l": ["ok", "secret"], "x/y": "secret" }));
        let told: Vec<String> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            ["/ has no \"a\"", "/l/1 is longer than 3 characters", "/x~1y is none of the values that it may be"]
        );
        let many = json!({ "l": vec!["secret"; 100] });
        assert_eq!(validator.faults(&many).len(), FAULTS_MAX);
    }

    /// An event that was spoiled at one place.
    fn spoiled() -> impl Strategy<Value = (usize, Value)> {
        let odd = prop_oneof![
            Just(json!(null)),
            Just(json!(-1)),
            Just(json!(1.5)),
            Just(json!(1.0)),
            Just(json!(18_446_744_073_709_551_615_u64)),
            Just(json!("")),
            Just(json!("x")),
            Just(json!("01996b5e-7c00-7000-8000-000000000001")),
            Just(json!("2026-11-24T09:03:00.000001Z")),
            Just(json!("é".repeat(70_000))),
            Just(json!([])),
            Just(json!(["x", 1])),
            Just(json!({})),
            Just(json!({ "digest": "x" })),
        ];
        let all = EventType::ALL.len();
        (0..all, any::<prop::sample::Index>(), any::<prop::sample::Index>(), odd, 0..4_u8).prop_map(
            |(event_type, example, member, odd, how)| {
                let schema = schema(EventType::ALL[event_type].contract().schema);
                let examples = schema["examples"].as_array().expect("examples");
                let mut event = examples[example.index(examples.len())].clone();
                let members = event.as_object_mut().expect("an object");
                let names: Vec<String> = members.keys().cloned().collect();
                let name = &names[member.index(names.len())];
                match (how, members.get_mut(name)) {
                    (0, _) => drop(members.remove(name)),
                    (1, _) => drop(members.insert("unknown".to_owned(), odd)),
                    (2, Some(Value::Object(inner))) if !inner.is_empty() => {
                        let names: Vec<String> = inner.keys().cloned().collect();
                        inner.insert(names[member.index(names.len())].clone(), odd);
                    }
                    _ => drop(members.insert(name.clone(), odd)),
                }
                (event_type, event)
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        /// Another implementation of JSON Schema says the same of every event.
        #[test]
        fn the_verdict_is_that_of_another_implementation((event_type, event) in spoiled()) {
            let schema = schema(EventType::ALL[event_type].contract().schema);
            let theirs = jsonschema::draft202012::options().should_validate_formats(true).build(&schema).expect("a schema");
            let ours = Validator::compile(&schema).expect("it compiles");
            let faults = ours.faults(&event);
            prop_assert_eq!(faults.is_empty(), theirs.is_valid(&event), "{} {:?}", event, faults);
        }
    }
}
