//! Avro schemas, by the Avro specification 1.12.
//!
//! `apache-avro` says whether a schema is one. The kept form has the members in the order in which Avro's Java library prints
//! them, so that a schema has the same digest as in registries that use it; the normal form sorts what that order leaves open.

mod node;
mod print;
mod resolution;

use serde_json::Value;

use self::node::{Definitions, Node};
pub(super) use self::resolution::differences;
use super::Resolved;
use crate::budget::{Budget, Exhausted};

/// A parsed Avro schema.
#[derive(Debug)]
pub struct Schema {
    value: Value,
    references: Vec<Value>,
    root: Node,
    definitions: Definitions,
}

impl Schema {
    pub(super) fn parse(text: &str, references: &[Resolved]) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let parsed = references.iter().map(|reference| {
            serde_json::from_str::<Value>(&reference.text).map_err(|error| format!("{}: {error}", reference.name))
        });
        let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
        // Read here first: this reader is bounded in depth, and names what it does not know.
        let mut definitions = Definitions::default();
        for reference in &parsed {
            definitions.read(reference)?;
        }
        let root = definitions.read(&value)?;
        definitions.check()?;
        let texts = references.iter().map(|reference| reference.text.as_str());
        apache_avro::Schema::parse_str_with_list(text, texts).map_err(|error| error.to_string())?;
        Ok(Self { value, references: parsed, root, definitions })
    }

    pub(super) fn text(&self) -> String {
        print::kept(&self.value)
    }

    pub(super) fn normal(&self) -> String {
        print::normal(&self.value)
    }

    /// With the definitions of what it refers to in the place of each first mention.
    pub(super) fn resolved(&self, budget: &Budget) -> Result<String, Exhausted> {
        print::resolved(&self.value, &self.references, budget)
    }
}

#[cfg(test)]
mod tests;
