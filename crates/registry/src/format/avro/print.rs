//! Avro schemas as text: in the order of members that Avro's Java library has, in the normal form, and with references filled in.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::node::{PRIMITIVES, full_name, named};
use crate::budget::{Budget, Exhausted};

/// What stands before the other members of each kind, in order.
const RECORD: [&str; 5] = ["type", "name", "namespace", "doc", "fields"];
const ENUM: [&str; 6] = ["type", "name", "namespace", "doc", "symbols", "default"];
const FIXED: [&str; 5] = ["type", "name", "namespace", "doc", "size"];
const FIELD: [&str; 5] = ["name", "type", "doc", "default", "order"];

/// The text that is kept.
pub(super) fn kept(value: &Value) -> String {
    Printer { sorts: false }.node(value, "").to_string()
}

/// The same with the members that have no fixed place in the order of their names.
pub(super) fn normal(value: &Value) -> String {
    Printer { sorts: true }.node(value, "").to_string()
}

struct Printer {
    sorts: bool,
}

impl Printer {
    fn node(&self, value: &Value, namespace: &str) -> Value {
        match value {
            Value::String(name) => json!(shortened(&full_name(name, namespace), namespace)),
            Value::Array(branches) => branches.iter().map(|branch| self.node(branch, namespace)).collect(),
            Value::Object(object) => self.object(object, namespace),
            other => other.clone(),
        }
    }

    fn object(&self, object: &Map<String, Value>, namespace: &str) -> Value {
        let kind = object.get("type").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "record" | "error" => self.definition(object, namespace, &RECORD),
            "enum" => self.definition(object, namespace, &ENUM),
            "fixed" => self.definition(object, namespace, &FIXED),
            "array" => self.container(object, namespace, "items"),
            "map" => self.container(object, namespace, "values"),
            // An object around a name says no more than the name.
            _ if object.len() == 1 => self.node(&object["type"], namespace),
            _ => {
                let mut printed = Map::new();
                printed.insert("type".to_owned(), self.node(&object["type"], namespace));
                self.rest(&mut printed, object, &["type"]);
                Value::Object(printed)
            }
        }
    }

    fn container(&self, object: &Map<String, Value>, namespace: &str, part: &str) -> Value {
        let mut printed = Map::new();
        printed.insert("type".to_owned(), object["type"].clone());
        printed.insert(part.to_owned(), self.node(&object[part], namespace));
        self.rest(&mut printed, object, &["type", part]);
        Value::Object(printed)
    }

    fn definition(&self, object: &Map<String, Value>, namespace: &str, order: &[&str]) -> Value {
        let Some((full, within)) = named(object, namespace) else { return Value::Object(object.clone()) };
        let mut printed = Map::new();
        for member in order {
            match *member {
                "name" => {
                    let name = full.rsplit('.').next().unwrap_or(&full);
                    printed.insert("name".to_owned(), json!(name));
                }
                "namespace" if within != namespace => drop(printed.insert("namespace".to_owned(), json!(within))),
                "namespace" => {}
                "fields" => {
                    let fields = object.get("fields").and_then(Value::as_array).into_iter().flatten();
                    let fields = fields.map(|field| self.field(field, &within)).collect();
                    printed.insert("fields".to_owned(), fields);
                }
                member => {
                    if let Some(value) = object.get(member) {
                        printed.insert(member.to_owned(), value.clone());
                    }
                }
            }
        }
        let placed: Vec<&str> = order.iter().copied().chain(["aliases"]).collect();
        self.rest(&mut printed, object, &placed);
        self.aliases(&mut printed, object);
        Value::Object(printed)
    }

    fn field(&self, field: &Value, namespace: &str) -> Value {
        let Some(object) = field.as_object() else { return field.clone() };
        let mut printed = Map::new();
        for member in FIELD {
            match (member, object.get(member)) {
                ("type", Some(kind)) => drop(printed.insert("type".to_owned(), self.node(kind, namespace))),
                // What is so anyway is not said.
                ("order", Some(order)) if order.as_str() == Some("ascending") => {}
                (_, Some(value)) => drop(printed.insert(member.to_owned(), value.clone())),
                (_, None) => {}
            }
        }
        self.aliases(&mut printed, object);
        let placed: Vec<&str> = FIELD.into_iter().chain(["aliases"]).collect();
        self.rest(&mut printed, object, &placed);
        Value::Object(printed)
    }

    fn aliases(&self, printed: &mut Map<String, Value>, object: &Map<String, Value>) {
        let Some(aliases) = object.get("aliases").and_then(Value::as_array).filter(|aliases| !aliases.is_empty())
        else {
            return;
        };
        let mut aliases = aliases.clone();
        if self.sorts {
            aliases.sort_by_key(ToString::to_string);
        }
        printed.insert("aliases".to_owned(), Value::Array(aliases));
    }

    fn rest(&self, printed: &mut Map<String, Value>, object: &Map<String, Value>, placed: &[&str]) {
        let left = object.iter().filter(|(name, _)| !placed.contains(&name.as_str()));
        if self.sorts {
            let sorted: BTreeMap<_, _> = left.collect();
            printed.extend(sorted.into_iter().map(|(name, value)| (name.clone(), value.clone())));
        } else {
            printed.extend(left.map(|(name, value)| (name.clone(), value.clone())));
        }
    }
}

/// A full name as it is mentioned within a namespace.
fn shortened(full: &str, namespace: &str) -> String {
    match full.rsplit_once('.') {
        Some((space, name)) if space == namespace && !PRIMITIVES.contains(&name) => name.to_owned(),
        _ => full.to_owned(),
    }
}

/// The text with the definitions of references in the place of their first mention.
pub(super) fn resolved(value: &Value, references: &[Value], budget: &Budget) -> Result<String, Exhausted> {
    let mut filler = Filler { known: BTreeMap::new(), seen: BTreeSet::new(), budget };
    references.iter().for_each(|reference| filler.collect(reference, ""));
    let filled = filler.node(value, "")?;
    Ok(kept(&filled))
}

struct Filler<'a> {
    known: BTreeMap<String, Value>,
    seen: BTreeSet<String>,
    budget: &'a Budget,
}

impl Filler<'_> {
    /// Every definition in a reference, with its name in full.
    fn collect(&mut self, value: &Value, namespace: &str) {
        match value {
            Value::Array(branches) => branches.iter().for_each(|branch| self.collect(branch, namespace)),
            Value::Object(object) => {
                let within = match named(object, namespace) {
                    Some((full, within)) => {
                        let mut whole = object.clone();
                        whole.insert("name".to_owned(), json!(full));
                        whole.remove("namespace");
                        self.known.insert(full, Value::Object(whole));
                        within
                    }
                    None => namespace.to_owned(),
                };
                for part in ["type", "items", "values"] {
                    object.get(part).into_iter().for_each(|part| self.collect(part, &within));
                }
                for field in object.get("fields").and_then(Value::as_array).into_iter().flatten() {
                    field.get("type").into_iter().for_each(|kind| self.collect(kind, &within));
                }
            }
            _ => {}
        }
    }

    fn node(&mut self, value: &Value, namespace: &str) -> Result<Value, Exhausted> {
        let budget = self.budget;
        let _level = budget.deeper()?;
        Ok(match value {
            Value::String(name) => {
                let full = full_name(name, namespace);
                match self.known.get(&full).filter(|_| !self.seen.contains(&full)).cloned() {
                    Some(definition) => self.node(&definition, "")?,
                    None => json!(full),
                }
            }
            Value::Array(branches) => {
                branches.iter().map(|branch| self.node(branch, namespace)).collect::<Result<Value, _>>()?
            }
            Value::Object(object) => {
                let mut filled = object.clone();
                let within = match named(object, namespace) {
                    Some((full, within)) => {
                        if !self.seen.insert(full.clone()) {
                            return Ok(json!(full));
                        }
                        filled.insert("name".to_owned(), json!(full));
                        filled.remove("namespace");
                        within
                    }
                    None => namespace.to_owned(),
                };
                for part in ["items", "values"] {
                    if let Some(inner) = object.get(part) {
                        filled.insert(part.to_owned(), self.node(inner, &within)?);
                    }
                }
                if let Some(inner) = object.get("type").filter(|inner| !inner.is_string()) {
                    filled.insert("type".to_owned(), self.node(inner, &within)?);
                }
                if let Some(fields) = filled.get_mut("fields").and_then(Value::as_array_mut) {
                    for field in fields {
                        if let Some(kind) = field.get("type").cloned() {
                            field["type"] = self.node(&kind, &within)?;
                        }
                    }
                }
                Value::Object(filled)
            }
            other => other.clone(),
        })
    }
}
