//! JSON to Cedar: how a call's arguments become values that policies compare.
//!
//! | JSON | Cedar |
//! | --- | --- |
//! | object, array | record, set |
//! | string, `true`, `false` | string, boolean |
//! | a whole number within ±2^63, also written `1.0` or `1e3` (up to ±2^53) | long |
//! | a whole number beyond | string of its digits, and listed |
//! | any other number | left out, and listed |
//! | `null` | left out, and listed |
//! | nested deeper than 32, more than 10,000 values, more than 256 KiB of text | left out, and listed |
//!
//! "Listed" is `context.unmapped`: JSON pointers (RFC 6901) into the arguments. The mapping is pure and bounded.

use std::mem;

use cedar_policy::RestrictedExpression;
use serde_json::{Map, Value};

/// Deepest nesting of arguments that policies see.
pub const ARGUMENT_DEPTH_MAX: usize = 32;
/// Most values that policies see of one call.
pub const ARGUMENT_VALUES_MAX: usize = 10_000;
/// Most bytes of names and strings that policies see of one call.
pub const ARGUMENT_BYTES_MAX: usize = 256 * 1024;
/// Most pointers that `context.unmapped` lists; one more entry, `…`, says that there are others.
const UNMAPPED_MAX: usize = 100;
const WHOLE_DOUBLE_MAX: f64 = 9_007_199_254_740_992.0;

/// What policies see of some JSON.
#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) struct Mapped {
    /// The value with everything that Cedar cannot hold taken out.
    pub(crate) value: Option<Value>,
    /// Pointers to what is left out or shown as a string, in the order in which it was met.
    pub(crate) unmapped: Vec<String>,
    /// Whether policies cannot see something that is not null.
    pub(crate) hides: bool,
}

/// Maps `value`, whose pointers begin with `at`.
pub(crate) fn map(value: &Value, at: &str) -> Mapped {
    let mut mapper = Mapper { path: at.to_owned(), ..Mapper::default() };
    let value = mapper.value(value, 0);
    Mapped { value, unmapped: mapper.unmapped, hides: mapper.hides }
}

#[derive(Default)]
struct Mapper {
    path: String,
    values: usize,
    bytes: usize,
    unmapped: Vec<String>,
    hides: bool,
}

impl Mapper {
    fn value(&mut self, value: &Value, depth: usize) -> Option<Value> {
        self.values += 1;
        if depth > ARGUMENT_DEPTH_MAX || self.values > ARGUMENT_VALUES_MAX {
            return self.hide();
        }
        match value {
            Value::Null => {
                self.list();
                None
            }
            Value::Bool(_) => Some(value.clone()),
            Value::Number(number) => self.number(number),
            Value::String(text) => {
                self.bytes += text.len();
                if self.bytes > ARGUMENT_BYTES_MAX { self.hide() } else { Some(value.clone()) }
            }
            Value::Array(items) => {
                let mut out = Vec::with_capacity(items.len().min(64));
                for (i, item) in items.iter().enumerate() {
                    if self.full() {
                        self.hide();
                        break;
                    }
                    let mapped = self.within(&i.to_string(), |mapper| mapper.value(item, depth + 1));
                    out.extend(mapped);
                }
                Some(Value::Array(out))
            }
            Value::Object(members) => {
                let mut out = Map::new();
                for (name, member) in members {
                    self.bytes += name.len();
                    if self.full() {
                        self.hide();
                        break;
                    }
                    if let Some(mapped) = self.within(name, |mapper| mapper.value(member, depth + 1)) {
                        out.insert(name.clone(), mapped);
                    }
                }
                Some(Value::Object(out))
            }
        }
    }

    fn number(&mut self, number: &serde_json::Number) -> Option<Value> {
        if number.is_i64() {
            return Some(Value::Number(number.clone()));
        }
        if number.is_u64() {
            self.list();
            self.hides = true;
            return Some(Value::String(number.to_string()));
        }
        match number.as_f64() {
            // A whole number written with a point or exponent is the same number to a server, so also to a policy.
            #[allow(clippy::cast_possible_truncation)] // checked to be whole and within 2^53
            Some(double) if double.fract() == 0.0 && double.abs() <= WHOLE_DOUBLE_MAX => {
                Some(Value::from(double as i64))
            }
            _ => self.hide(),
        }
    }

    const fn full(&self) -> bool {
        self.values >= ARGUMENT_VALUES_MAX || self.bytes > ARGUMENT_BYTES_MAX
    }

    fn within<T>(&mut self, name: &str, run: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.path.len();
        self.path.push('/');
        self.path.push_str(&name.replace('~', "~0").replace('/', "~1"));
        let out = run(self);
        self.path.truncate(before);
        out
    }

    fn hide(&mut self) -> Option<Value> {
        self.hides = true;
        self.list();
        None
    }

    fn list(&mut self) {
        match self.unmapped.len() {
            n if n < UNMAPPED_MAX => self.unmapped.push(self.path.chars().take(256).collect()),
            n if n == UNMAPPED_MAX => self.unmapped.push("\u{2026}".to_owned()),
            _ => {}
        }
    }
}

/// A mapped value as Cedar takes it. Records are built as such: a member named `__entity` is only a member.
pub(crate) fn to_cedar(value: Value) -> RestrictedExpression {
    match value {
        Value::Bool(flag) => RestrictedExpression::new_bool(flag),
        Value::Number(number) => {
            RestrictedExpression::new_long(number.as_i64().expect("the mapping leaves only numbers of 64 bits"))
        }
        Value::String(text) => RestrictedExpression::new_string(text),
        Value::Array(items) => RestrictedExpression::new_set(items.into_iter().map(to_cedar)),
        Value::Object(mut members) => {
            let pairs = mem::take(&mut members).into_iter().map(|(name, member)| (name, to_cedar(member)));
            RestrictedExpression::new_record(pairs).expect("a JSON object in memory has each name once")
        }
        Value::Null => unreachable!("the mapping leaves no null"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_cedar_cannot_hold_is_left_out_and_listed() {
        let mapped = map(
            &json!({"a": 1, "b": 1.5, "c": null, "d": 18_446_744_073_709_551_615_u64, "e": [1, 2.5, "x"], "f": 1e3,
                    "a/b~": {"g": null}, "h": true}),
            "",
        );
        assert_eq!(
            mapped.value,
            Some(json!({"a": 1, "d": "18446744073709551615", "e": [1, "x"], "f": 1000, "a/b~": {}, "h": true}))
        );
        assert_eq!(mapped.unmapped, ["/b", "/c", "/d", "/e/1", "/a~1b~0/g"]);
        assert!(mapped.hides);
    }

    #[test]
    fn a_null_is_listed_but_hides_nothing() {
        let mapped = map(&json!({"a": null}), "");
        assert_eq!((mapped.unmapped.len(), mapped.hides), (1, false));
    }

    #[test]
    fn the_mapping_is_bounded() {
        let long = map(&Value::Array(vec![json!(1); ARGUMENT_VALUES_MAX * 3]), "");
        assert!(long.value.unwrap().as_array().unwrap().len() <= ARGUMENT_VALUES_MAX);
        assert!(long.hides && long.unmapped.len() == 1);
        let nulls = map(&Value::Array(vec![Value::Null; 5_000]), "");
        assert_eq!(nulls.unmapped.len(), UNMAPPED_MAX + 1);
        let large = map(&json!({"text": "x".repeat(ARGUMENT_BYTES_MAX)}), "");
        assert_eq!((large.value, large.unmapped, large.hides), (Some(json!({})), vec!["/text".to_owned()], true));
        let mut deep = json!(1);
        for _ in 0..100 {
            deep = json!([deep]);
        }
        assert!(map(&deep, "").hides);
    }

    proptest! {
        #[test]
        fn whatever_is_mapped_cedar_takes(text in "\\PC{0,40}", n in any::<i64>(), d in any::<f64>(), u in any::<u64>()) {
            let mapped = map(&json!({text.clone(): [n, d, u, null, text]}), "");
            drop(to_cedar(mapped.value.expect("an object")));
        }
    }
}
