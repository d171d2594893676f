//! A schema as a conjunction of parts, and what follows from all of them together.
//!
//! `$ref` and `allOf` are taken apart, so that each part has keywords only; everything is asked of the parts, never merged,
//! because `additionalProperties` means the properties of its own part.

use std::{collections::BTreeSet, sync::LazyLock};

use serde_json::{Map, Value, json};

use super::document::{Documents, Place};
use crate::budget::{Budget, Exhausted};

/// The types of values; `integer` is within `number`.
pub(super) const TYPES: [&str; 6] = ["null", "boolean", "number", "string", "array", "object"];

static FALSE: Value = Value::Bool(false);
static OF_TYPE: LazyLock<Vec<Value>> =
    LazyLock::new(|| TYPES.iter().chain(&["integer"]).map(|name| json!({ "type": name })).collect());

/// One part of a conjunction.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    pub(super) documents: &'a Documents,
    /// None of what the comparison made up itself.
    pub(super) place: Option<Place>,
    pub(super) value: &'a Value,
    /// Whether its `anyOf` and `oneOf` stand in the list by one of their branches already.
    pub(super) is_split: bool,
}

/// What a part is known by.
pub(super) type PartKey = (usize, Option<Place>, String, bool);

impl<'a> Part<'a> {
    pub(super) fn key(&self) -> PartKey {
        let made_up = if self.place.is_none() { self.value.to_string() } else { String::new() };
        (std::ptr::from_ref(self.documents).addr(), self.place.clone(), made_up, self.is_split)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.value.get(name)
    }

    fn members(&self) -> Option<&'a Map<String, Value>> {
        self.value.as_object()
    }

    /// The schema under a path of this part, taken apart.
    pub(super) fn below(&self, path: &[&str], budget: &Budget) -> Result<Vec<Part<'a>>, Exhausted> {
        match &self.place {
            Some(place) => expanded(self.documents, &place.part(path), budget),
            None => Ok(Vec::new()),
        }
    }

    /// The names of its properties.
    pub(super) fn properties(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.get("properties").and_then(Value::as_object).into_iter().flatten().map(|(name, _)| name.as_str())
    }

    pub(super) fn has_property(&self, name: &str) -> bool {
        self.get("properties").is_some_and(|properties| properties.get(name).is_some())
    }

    pub(super) fn required(&self) -> BTreeSet<&'a str> {
        self.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// What it says of a property of that name. A pattern that cannot be tried counts as matching where `assumes`.
    pub(super) fn property(&self, name: &str, assumes: bool, budget: &Budget) -> Result<Vec<Part<'a>>, Exhausted> {
        let mut parts = Vec::new();
        let mut is_named = self.has_property(name);
        if is_named {
            parts.extend(self.below(&["properties", name], budget)?);
        }
        for (pattern, _) in self.get("patternProperties").and_then(Value::as_object).into_iter().flatten() {
            if matches(pattern, name).unwrap_or(assumes) {
                is_named = true;
                parts.extend(self.below(&["patternProperties", pattern], budget)?);
            }
        }
        if !is_named && self.get("additionalProperties").is_some() {
            parts.extend(self.below(&["additionalProperties"], budget)?);
        }
        Ok(parts)
    }

    /// How many first items have schemas of their own, and under which keyword they and the rest lie.
    pub(super) fn tuple(&self) -> (usize, &'static str, &'static str) {
        match self.get("items") {
            Some(Value::Array(items)) => (items.len(), "items", "additionalItems"),
            _ => {
                let first = self.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
                (first, "prefixItems", "items")
            }
        }
    }

    /// What it says of the item at an index; beyond the first ones, of the rest.
    pub(super) fn item(&self, at: usize, budget: &Budget) -> Result<Vec<Part<'a>>, Exhausted> {
        let (first, own, rest) = self.tuple();
        if at < first {
            return self.below(&[own, &at.to_string()], budget);
        }
        if self.get(rest).is_some() { self.below(&[rest], budget) } else { Ok(Vec::new()) }
    }

    /// The types that it lets in, by its `type`, `enum` and `const`; none where it says nothing of it.
    fn types(&self) -> Option<BTreeSet<&'a str>> {
        let named = match self.get("type") {
            Some(Value::String(name)) => Some(BTreeSet::from([name.as_str()])),
            Some(Value::Array(names)) => Some(names.iter().filter_map(Value::as_str).collect()),
            _ => None,
        };
        named.or_else(|| self.values().map(|values| values.into_iter().map(type_of).collect()))
    }

    /// The values that it lets in, where it lists them.
    fn values(&self) -> Option<Vec<&'a Value>> {
        if let Some(value) = self.get("const") {
            return Some(vec![value]);
        }
        self.get("enum").and_then(Value::as_array).map(|values| values.iter().collect())
    }
}

/// The parts of the schema at a place. No parts let everything in.
pub(super) fn expanded<'a>(
    documents: &'a Documents,
    place: &Place,
    budget: &Budget,
) -> Result<Vec<Part<'a>>, Exhausted> {
    let mut parts = Vec::new();
    expand(documents, place, &mut Vec::new(), &mut parts, budget)?;
    Ok(parts)
}

fn expand<'a>(
    documents: &'a Documents,
    place: &Place,
    above: &mut Vec<Place>,
    parts: &mut Vec<Part<'a>>,
    budget: &Budget,
) -> Result<(), Exhausted> {
    let _level = budget.deeper()?;
    // A schema that refers to itself says nothing by that.
    if above.contains(place) {
        return Ok(());
    }
    let Some(value) = documents.at(place) else { return Ok(()) };
    let Some(members) = value.as_object() else {
        if *value == Value::Bool(false) {
            parts.push(nothing(documents));
        }
        return Ok(());
    };
    above.push(place.clone());
    let references = ["$ref", "$dynamicRef", "$recursiveRef"];
    let referred = references.iter().find_map(|name| members.get(*name)?.as_str());
    if let Some(target) = referred.and_then(|reference| documents.referred(place, reference)) {
        expand(documents, &target, above, parts, budget)?;
    }
    if referred.is_none() || !documents.passes_over_siblings() {
        let all = members.get("allOf").and_then(Value::as_array).map_or(0, Vec::len);
        for at in 0..all {
            expand(documents, &place.part(&["allOf", &at.to_string()]), above, parts, budget)?;
        }
        if !members.is_empty() {
            parts.push(Part { documents, place: Some(place.clone()), value, is_split: false });
        }
    }
    above.pop();
    Ok(())
}

/// A part that lets nothing in.
pub(super) fn nothing(documents: &Documents) -> Part<'_> {
    Part { documents, place: None, value: &FALSE, is_split: true }
}

/// A part that lets one type in.
pub(super) fn of_type<'a>(documents: &'a Documents, name: &str) -> Part<'a> {
    let value = OF_TYPE.iter().find(|value| value["type"] == *name).unwrap_or(&FALSE);
    Part { documents, place: None, value, is_split: true }
}

/// Whether nothing at all is let in.
pub(super) fn is_nothing(parts: &[Part<'_>]) -> bool {
    parts.iter().any(|part| *part.value == Value::Bool(false)) || types(parts).is_empty()
}

/// The types that all parts let in. `number` stands for `integer` too, unless only integers are let in.
pub(super) fn types<'a>(parts: &[Part<'a>]) -> BTreeSet<&'a str> {
    let mut left: BTreeSet<&str> = TYPES.into_iter().collect();
    for wanted in parts.iter().filter_map(Part::types) {
        let both = |name: &&str| wanted.contains(name) || (*name == "integer" && wanted.contains("number"));
        let mut next: BTreeSet<&str> = left.iter().copied().filter(both).collect();
        if left.contains("number") && wanted.contains("integer") && !wanted.contains("number") {
            next.insert("integer");
        }
        left = next;
    }
    left
}

/// The values that are let in, where some part lists them.
pub(super) fn values<'a>(parts: &[Part<'a>]) -> Option<Vec<&'a Value>> {
    let mut lists = parts.iter().filter_map(Part::values);
    let mut left = match lists.next() {
        Some(first) => first,
        None => return small(parts),
    };
    for list in lists {
        left.retain(|value| list.iter().any(|other| same(value, other)));
    }
    let types = types(parts);
    left.retain(|value| types.contains(type_of(value)) || (type_of(value) == "integer" && types.contains("number")));
    Some(left)
}

/// The values of types that have few.
fn small<'a>(parts: &[Part<'a>]) -> Option<Vec<&'a Value>> {
    static ALL: LazyLock<[Value; 3]> = LazyLock::new(|| [Value::Null, Value::Bool(false), Value::Bool(true)]);
    let types = types(parts);
    let few = types.iter().all(|name| ["null", "boolean"].contains(name));
    few.then(|| ALL.iter().filter(|value| types.contains(type_of(value))).collect())
}

/// The type of a value; a whole number is an integer.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() && number.as_f64().is_none_or(|value| value.fract() != 0.0) => {
            "number"
        }
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Equal as JSON Schema has it: 1 and 1.0 are the same number.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one.iter().all(|(name, value)| other.get(name).is_some_and(|other| same(value, other)))
        }
        _ => one == other,
    }
}

/// Whether a text matches a pattern; none where the pattern cannot be tried.
pub(super) fn matches(pattern: &str, text: &str) -> Option<bool> {
    regex::RegexBuilder::new(pattern).size_limit(1 << 18).build().ok().map(|pattern| pattern.is_match(text))
}

/// Whether a schema refers to others.
pub(super) fn refers(value: &Value) -> bool {
    match value {
        Value::Object(members) => {
            members.iter().any(|(name, member)| name.ends_with("Ref") || name == "$ref" || refers(member))
        }
        Value::Array(items) => items.iter().any(refers),
        _ => false,
    }
}

impl PartialEq for Part<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

/// The members of a part, whatever it is.
pub(super) fn members<'a>(part: &Part<'a>) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    part.members().into_iter().flatten()
}
