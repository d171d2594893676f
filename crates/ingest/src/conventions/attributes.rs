//! Attributes by their names: one of several, and lists that were written with numbers in the names.

use serde_json::{Map, Value};

use crate::otlp::Attributes;

/// Parts of a numbered name that are read; a longer one is passed over.
const PARTS_MAX: usize = 16;

/// The first text under one of these names. Enumerations come as texts, numbers as none.
pub(super) fn text(attributes: &Attributes, names: &[&str]) -> Option<String> {
    let found = names.iter().find_map(|name| attributes.get(*name).and_then(Value::as_str));
    found.filter(|text| !text.is_empty()).map(ToOwned::to_owned)
}

/// The first count under one of these names.
pub(super) fn number(attributes: &Attributes, names: &[&str]) -> Option<u64> {
    let count = |value: &Value| value.as_u64().or_else(|| value.as_f64().filter(|f| *f >= 0.0).map(|f| f as u64));
    names.iter().find_map(|name| attributes.get(*name).and_then(count))
}

/// The texts of a list.
pub(super) fn texts(attributes: &Attributes, name: &str) -> Vec<String> {
    let list = attributes.get(name).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).take(64).map(ToOwned::to_owned).collect()
}

/// What stands under `prefix.`: names are taken apart at their dots, and members that are all numbers are a list.
pub(super) fn numbered(attributes: &Attributes, prefix: &str) -> Value {
    let before = format!("{prefix}.");
    let mut root = Map::new();
    let under = attributes.range(before.clone()..).take_while(|(name, _)| name.starts_with(&before));
    for (name, value) in under {
        let parts: Vec<&str> = name[before.len()..].split('.').collect();
        if parts.len() <= PARTS_MAX {
            put(&mut root, &parts, value);
        }
    }
    lists(Value::Object(root))
}

fn put(within: &mut Map<String, Value>, parts: &[&str], value: &Value) {
    match parts {
        [] => {}
        [last] => {
            within.entry(*last).or_insert_with(|| value.clone());
        }
        [first, rest @ ..] => {
            let next = within.entry(*first).or_insert_with(|| Value::Object(Map::new()));
            // A name that is both a value and the beginning of others stays a value.
            if let Value::Object(next) = next {
                put(next, rest, value);
            }
        }
    }
}

fn lists(value: Value) -> Value {
    let Value::Object(members) = value else { return value };
    let numbers: Option<Vec<u64>> = members.keys().map(|key| key.parse().ok()).collect();
    match numbers.filter(|numbers| !numbers.is_empty()) {
        Some(numbers) => {
            let mut items: Vec<(u64, Value)> =
                numbers.into_iter().zip(members.into_iter().map(|(_, item)| item)).collect();
            items.sort_by_key(|(number, _)| *number);
            Value::Array(items.into_iter().map(|(_, item)| lists(item)).collect())
        }
        None => Value::Object(members.into_iter().map(|(key, item)| (key, lists(item))).collect()),
    }
}
