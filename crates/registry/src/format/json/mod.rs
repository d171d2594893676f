//! JSON Schema: 2020-12 and draft-07, and what lies between them as far as both have it.
//!
//! `jsonschema` says whether a schema is one and whether its references lead somewhere. The kept form is the text without
//! layout, its members in the order in which they were written; the normal form sorts them, and the lists whose order says
//! nothing.

mod containment;
mod document;
mod parts;
mod view;

use serde_json::{Map, Value};

pub(super) use self::containment::differences;
use self::document::Documents;
use super::Resolved;

/// How deep a text may be nested.
const DEPTH_MAX: usize = 120;

/// A parsed JSON Schema.
#[derive(Debug)]
pub struct Schema {
    documents: Documents,
}

impl Schema {
    pub(super) fn parse(text: &str, references: &[Resolved]) -> Result<Self, String> {
        let root: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if !root.is_object() && !root.is_boolean() {
            return Err("a JSON Schema is an object, true or false".to_owned());
        }
        bounded(&root, 0)?;
        let mut others = Vec::new();
        for reference in references {
            let value: Value =
                serde_json::from_str(&reference.text).map_err(|error| format!("{}: {error}", reference.name))?;
            others.push((reference.name.clone(), value));
        }
        let documents = Documents::new(root, others)?;
        documents.check()?;
        Ok(Self { documents })
    }

    pub(super) fn text(&self) -> String {
        self.documents.root().to_string()
    }

    pub(super) fn normal(&self) -> String {
        normal(self.documents.root(), false).to_string()
    }

    /// With the schemas that it refers to among its definitions.
    pub(super) fn resolved(&self) -> String {
        self.documents.bundled().to_string()
    }
}

fn bounded(value: &Value, depth: usize) -> Result<(), String> {
    if depth > DEPTH_MAX {
        return Err(format!("the schema is nested deeper than {DEPTH_MAX} levels"));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| bounded(item, depth + 1)),
        Value::Object(members) => members.values().try_for_each(|member| bounded(member, depth + 1)),
        _ => Ok(()),
    }
}

/// Lists that are sets.
const SETS: [&str; 3] = ["required", "enum", "type"];
/// Members that hold a value as it is, or schemas by names that are the author's.
const AS_IS: [&str; 4] = ["const", "default", "examples", "enum"];

/// Sorts members, and lists that are sets. `named` where the members are names, not keywords.
fn normal(value: &Value, named: bool) -> Value {
    match value {
        Value::Object(members) => {
            let mut names: Vec<&String> = members.keys().collect();
            names.sort();
            let sorted = names.into_iter().map(|name| {
                let member = &members[name];
                let names_within = !named
                    && ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"]
                        .contains(&name.as_str());
                let as_is = !named && AS_IS.contains(&name.as_str());
                let mut member = if as_is { member.clone() } else { normal(member, names_within) };
                if let Some(items) = member.as_array_mut().filter(|_| !named && SETS.contains(&name.as_str())) {
                    items.sort_by_key(ToString::to_string);
                }
                (name.clone(), member)
            });
            Value::Object(sorted.collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(|item| normal(item, false)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
