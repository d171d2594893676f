//! What a contract or a schema says of fields: their class, by pointer.
//!
//! The gateway builds [`Classes`] for a tool from the operator's rules and the server's own schema. A schema is the
//! server's word: it may raise a field's class and never lower it, so where several speak the highest class counts, and
//! a schema that says `public` says nothing.

use std::{borrow::Cow, collections::BTreeMap};

use serde_json::Value;

use crate::pointer::Pattern;

/// How sensitive a field is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// The operator knows that nothing in it needs a mask: detectors pass it by.
    Public,
    /// Detectors look at it. What nothing is said of is this.
    Internal,
    /// Of a person: masked whole.
    Personal,
    /// A secret: masked whole.
    Secret,
}

impl Class {
    /// The class of that name; `confidential` and `restricted` are other people's words for these.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "public" => Self::Public,
            "internal" => Self::Internal,
            "personal" | "pii" | "confidential" => Self::Personal,
            "secret" | "restricted" | "credential" => Self::Secret,
            _ => return None,
        })
    }

    /// The rule that a finding names.
    pub(crate) const fn rule(self) -> &'static str {
        match self {
            Self::Public => "class-public",
            Self::Internal => "class-internal",
            Self::Personal => "class-personal",
            Self::Secret => "class-secret",
        }
    }
}

/// Why a pointer was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{pointer:?} is no JSON pointer: begin it with '/', as in /card/number; * stands for any name or index")]
pub struct ClassesError {
    /// The pointer given.
    pub pointer: String,
}

/// Fields with their classes. What is in none of them is [`Class::Internal`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Classes {
    /// The operator's word.
    ruled: BTreeMap<Pattern, Class>,
    /// The server's: never below `Personal`.
    raised: BTreeMap<Pattern, Class>,
}

/// Deepest schema that is read.
const SCHEMA_DEPTH_MAX: usize = 32;
/// Most fields that a schema may raise; a larger one raises everything.
const RAISED_MAX: usize = 1_024;

impl Classes {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The operator says that the values at `pointer` are of `class`.
    ///
    /// # Errors
    /// It is no pointer.
    pub fn rule(&mut self, pointer: &str, class: Class) -> Result<(), ClassesError> {
        let pattern = Pattern::read(pointer).ok_or_else(|| ClassesError { pointer: pointer.to_owned() })?;
        let known = self.ruled.entry(pattern).or_insert(class);
        *known = class.max(*known);
        Ok(())
    }

    /// Takes what a JSON Schema of the server's says: `format: password`, `writeOnly`, `x-classification`.
    pub fn raise_by_schema(&mut self, schema: &Value) {
        self.raise_by_schema_under(&[], schema);
    }

    /// The same of a schema that describes the value at that place of the document.
    pub fn raise_by_schema_under(&mut self, place: &[&str], schema: &Value) {
        let mut path = place.to_vec();
        self.raise(schema, schema, &mut path, 0);
    }

    /// Whether nothing is said of any field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ruled.is_empty() && self.raised.is_empty()
    }

    /// For how many fields something is said.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ruled.len() + self.raised.len()
    }

    fn raise<'s>(&mut self, root: &'s Value, schema: &'s Value, path: &mut Vec<&'s str>, depth: usize) {
        if depth > SCHEMA_DEPTH_MAX || self.raised.len() > RAISED_MAX {
            // What cannot be read to its end is taken at its worst: everything below is personal.
            self.raised.insert(Pattern::of(path), Class::Personal);
            return;
        }
        if let Some(class) = said(schema) {
            let known = self.raised.entry(Pattern::of(path)).or_insert(class);
            *known = class.max(*known);
        }
        let local = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.strip_prefix('#'));
        if let Some(target) = local.and_then(|pointer| root.pointer(pointer)) {
            self.raise(root, target, path, depth + 1);
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            for part in schema.get(key).and_then(Value::as_array).into_iter().flatten() {
                self.raise(root, part, path, depth + 1);
            }
        }
        for key in ["if", "then", "else"] {
            if let Some(part) = schema.get(key) {
                self.raise(root, part, path, depth + 1);
            }
        }
        for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            path.push(name);
            self.raise(root, property, path, depth + 1);
            path.pop();
        }
        let any = ["items", "additionalProperties", "contains", "unevaluatedProperties"].map(|key| schema.get(key));
        let listed = schema.get("prefixItems").and_then(Value::as_array).into_iter().flatten();
        let named = schema.get("patternProperties").and_then(Value::as_object).into_iter().flatten();
        let parts = any.into_iter().flatten().chain(listed).chain(named.map(|(_, part)| part));
        for part in parts.filter(|part| part.is_object()).collect::<Vec<_>>() {
            path.push("*");
            self.raise(root, part, path, depth + 1);
            path.pop();
        }
    }

    /// The class of the value at that place.
    pub(crate) fn of(&self, segments: &[Cow<'_, str>]) -> Class {
        let highest = |classes: &BTreeMap<Pattern, Class>| {
            classes.iter().filter(|(pattern, _)| pattern.fits(segments)).map(|(_, class)| *class).max()
        };
        match (highest(&self.ruled), highest(&self.raised)) {
            (Some(ruled), Some(raised)) => ruled.max(raised),
            (Some(ruled), None) => ruled,
            (None, Some(raised)) => raised,
            (None, None) => Class::Internal,
        }
    }
}

/// What a schema says of its own value, where it raises it.
fn said(schema: &Value) -> Option<Class> {
    let text = |key: &str| schema.get(key).and_then(Value::as_str);
    let secret = text("format") == Some("password") || schema.get("writeOnly") == Some(&Value::Bool(true));
    let named = ["x-classification", "x-sensitivity"].into_iter().filter_map(text).filter_map(Class::named).max();
    let said = if secret { Some(Class::Secret).max(named) } else { named };
    said.filter(|class| *class >= Class::Personal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn class(classes: &Classes, pointer: &str) -> Class {
        let segments: Vec<Cow<'_, str>> = pointer.split('/').skip(1).map(Cow::Borrowed).collect();
        classes.of(&segments)
    }

    #[test]
    fn a_schema_raises_and_never_lowers() {
        let mut classes = Classes::new();
        classes.rule("/a", Class::Secret).expect("a pointer");
        classes.rule("/b", Class::Public).expect("a pointer");
        classes.raise_by_schema(&json!({
            "properties": {
                "a": { "x-classification": "public" },
                "b": { "format": "password" },
                "c": { "type": "array", "items": { "$ref": "#/$defs/person" } },
                "d": { "anyOf": [{ "writeOnly": true }, {}] },
                "e": { "x-classification": "public" }
            },
            "$defs": { "person": { "properties": { "name": { "x-classification": "personal" } } } }
        }));
        assert_eq!(class(&classes, "/a"), Class::Secret);
        assert_eq!(class(&classes, "/b"), Class::Secret);
        assert_eq!(class(&classes, "/c/7/name"), Class::Personal);
        assert_eq!(class(&classes, "/d"), Class::Secret);
        assert_eq!(class(&classes, "/e"), Class::Internal);
        assert!(classes.rule("a", Class::Secret).is_err());
    }

    #[test]
    fn a_schema_that_never_ends_is_taken_at_its_worst() {
        let mut classes = Classes::new();
        classes.raise_by_schema(&json!({ "$ref": "#" }));
        assert_eq!(class(&classes, ""), Class::Personal);
    }
}
