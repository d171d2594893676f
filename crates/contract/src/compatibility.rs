//! The rule that contracts keep: what the next version of one may change, and who would notice if it changed more.
//!
//! A version may add optional keys and enumerated values. Everything else breaks somebody: readers of newer events that rely
//! on a key, or newer readers of events that were written before. Who reads which key stands in `contracts/readers.json`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// Deepest nesting that is compared.
const DEPTH_MAX: usize = 16;
/// Keywords whose change changes which values there may be.
const LIMITS: [&str; 8] = ["const", "pattern", "format", "minimum", "maximum", "minLength", "maxLength", "maxItems"];
/// Annotations of a whole contract that readers rely on.
const PROMISES: [&str; 3] = ["x-topic", "x-key", "x-compatibility"];
/// From the most open to the most closed.
const SENSITIVITY: [&str; 5] = ["public", "internal", "confidential", "personal", "secret"];

/// Something that differs between two versions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// JSON pointer into the event: which key.
    pub at: String,
    /// What differs, in words.
    pub what: String,
    /// Whether the rule forbids it.
    pub breaks: bool,
}

/// What differs between two versions of a contract.
#[must_use]
pub fn differences(old: &Value, new: &Value) -> Vec<Difference> {
    let mut found = Found { old, new, all: Vec::new() };
    for promise in PROMISES {
        if old[promise] != new[promise] {
            found.say("", format!("{promise} was {} and is {}", old[promise], new[promise]), true);
        }
    }
    if old["x-retention"] != new["x-retention"] {
        let shortened = days(&new["x-retention"]) < days(&old["x-retention"]);
        found.say("", format!("x-retention was {} and is {}", old["x-retention"], new["x-retention"]), shortened);
    }
    found.objects("", old, new, 0);
    found.all
}

/// For how many days events are kept; for ever is the most.
fn days(retention: &Value) -> u64 {
    let text = retention.as_str().unwrap_or_default();
    text.strip_prefix('P').and_then(|text| text.strip_suffix('D')?.parse().ok()).unwrap_or(u64::MAX)
}

struct Found<'v> {
    old: &'v Value,
    new: &'v Value,
    all: Vec<Difference>,
}

fn members<'v>(schema: &'v Value, key: &str) -> Option<&'v Map<String, Value>> {
    schema.get(key).and_then(Value::as_object)
}

fn names(schema: &Value, key: &str) -> BTreeSet<String> {
    let list = schema.get(key).and_then(Value::as_array).into_iter().flatten();
    list.map(|value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned)).collect()
}

fn resolved<'v>(root: &'v Value, schema: &'v Value) -> &'v Value {
    let reference = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
    reference.and_then(|pointer| root.pointer(pointer)).unwrap_or(schema)
}

impl Found<'_> {
    fn say(&mut self, at: &str, what: impl Into<String>, breaks: bool) {
        self.all.push(Difference { at: at.to_owned(), what: what.into(), breaks });
    }

    fn objects(&mut self, at: &str, old: &Value, new: &Value, depth: usize) {
        if depth > DEPTH_MAX {
            return self.say(at, "is nested deeper than is compared", true);
        }
        let (was, is) = (names(old, "required"), names(new, "required"));
        for name in was.difference(&is) {
            self.say(&format!("{at}/{name}"), "was always there, and need not be any more", true);
        }
        for name in is.difference(&was) {
            self.say(
                &format!("{at}/{name}"),
                "must be there, and need not be in events that were written before",
                true,
            );
        }
        if old.get("additionalProperties") != new.get("additionalProperties") {
            self.say(at, "additionalProperties changes: readers must be able to ignore what they do not know", true);
        }
        let empty = Map::new();
        let (was, is) = (members(old, "properties").unwrap_or(&empty), members(new, "properties").unwrap_or(&empty));
        for (name, before) in was {
            let here = format!("{at}/{name}");
            match is.get(name) {
                None => self.say(&here, "is there no more", true),
                Some(after) => self.values(&here, before, after, depth + 1),
            }
        }
        for name in is.keys().filter(|name| !was.contains_key(*name)) {
            self.say(&format!("{at}/{name}"), "is new", false);
        }
    }

    fn values(&mut self, at: &str, before: &Value, after: &Value, depth: usize) {
        self.annotations(at, before, after);
        let (root_before, root_after) = (self.old, self.new);
        let (before, after) = (resolved(root_before, before), resolved(root_after, after));
        if before.get("type") != after.get("type") {
            let of = |schema: &Value| schema.get("type").map_or_else(|| "anything".to_owned(), Value::to_string);
            return self.say(at, format!("was {} and is {}", of(before), of(after)), true);
        }
        // A contract names its own version.
        if at != "/contract/version" {
            for limit in LIMITS.iter().filter(|limit| before.get(**limit) != after.get(**limit)) {
                let of = |schema: &Value| schema.get(*limit).map_or_else(|| "absent".to_owned(), Value::to_string);
                self.say(at, format!("{limit} was {} and is {}", of(before), of(after)), true);
            }
        }
        let (was, is) = (names(before, "enum"), names(after, "enum"));
        for value in was.difference(&is) {
            self.say(at, format!("may be {value:?} no more"), true);
        }
        for value in is.difference(&was) {
            self.say(at, format!("may be {value:?} too"), was.is_empty());
        }
        self.objects(at, before, after, depth);
        match (before.get("items"), after.get("items")) {
            (Some(before), Some(after)) => self.values(&format!("{at}/*"), before, after, depth + 1),
            (None, None) => {}
            _ => self.say(at, "says of its items what it did not say, or no more", true),
        }
    }

    fn annotations(&mut self, at: &str, before: &Value, after: &Value) {
        let place = |schema: &Value| {
            let said = schema.get("x-sensitivity").and_then(Value::as_str)?;
            SENSITIVITY.iter().position(|known| *known == said)
        };
        match (place(before), place(after)) {
            (Some(was), Some(is)) if was > is => {
                let what = format!(
                    "is {} and was {}: whoever may see less would be shown more",
                    SENSITIVITY[is], SENSITIVITY[was]
                );
                self.say(at, what, true);
            }
            (Some(was), Some(is)) if was < is => {
                self.say(at, format!("is {} and was {}", SENSITIVITY[is], SENSITIVITY[was]), false);
            }
            _ => {}
        }
        if before.get("x-inline") != after.get("x-inline") {
            self.say(at, format!("x-inline was {} and is {}", before["x-inline"], after["x-inline"]), false);
        }
    }
}

/// Who reads which keys of which event: names of readers, then event types (`*`: every one), then keys.
#[derive(Clone, Debug, Default, serde::Deserialize)]
#[serde(transparent)]
pub struct Readers(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl Readers {
    /// Those of this version.
    #[must_use]
    pub fn known() -> Self {
        serde_json::from_str(include_str!("../../../contracts/readers.json")).expect("the tests read it")
    }

    /// Whoever reads that key of that event. `at` is a pointer; its first segment counts.
    #[must_use]
    pub fn of(&self, event: &str, at: &str) -> Vec<&str> {
        let key = at.trim_start_matches('/').split('/').next().unwrap_or_default();
        let reads = |keys: &BTreeMap<String, BTreeSet<String>>| {
            ["*", event].iter().any(|name| keys.get(*name).is_some_and(|keys| key.is_empty() || keys.contains(key)))
        };
        self.0.iter().filter(|(_, keys)| reads(keys)).map(|(name, _)| name.as_str()).collect()
    }

    /// Every key that is named, with the event types that it is named for.
    #[must_use]
    pub fn named(&self) -> Vec<(&str, &str)> {
        let all = self.0.values().flatten();
        all.flat_map(|(event, keys)| keys.iter().map(move |key| (event.as_str(), key.as_str()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{EventType, contracts};

    fn schema(text: &str) -> Value {
        serde_json::from_str(text).expect("JSON")
    }

    #[test]
    fn every_published_version_keeps_the_rule() {
        for event_type in EventType::ALL {
            for pair in contracts(event_type).windows(2) {
                let found = differences(&schema(pair[0].schema), &schema(pair[1].schema));
                let broken: Vec<_> = found.into_iter().filter(|difference| difference.breaks).collect();
                assert_eq!(broken, [], "{} {}", event_type, pair[1].version);
            }
        }
    }

    fn breaks(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let old = schema(EventType::CallOutcome.contract().schema);
        let mut new = old.clone();
        change(&mut new);
        let found = differences(&old, &new).into_iter().filter(|difference| difference.breaks);
        found.map(|difference| format!("{} {}", difference.at, difference.what)).collect()
    }

    #[test]
    fn whatever_a_reader_could_notice_breaks_the_rule() {
        assert!(breaks(|_| {}).is_empty());
        assert!(breaks(|new| new["properties"]["fresh"] = json!({ "type": "string" })).is_empty(), "an optional key");
        let more = |new: &mut Value| new["properties"]["outcome"]["enum"].as_array_mut().unwrap().push(json!("x"));
        assert!(breaks(more).is_empty(), "one more value");
        type Change = fn(&mut Value);
        let changes: [(&str, Change); 11] = [
            ("/effect is there no more", |new| drop(new["properties"].as_object_mut().unwrap().remove("effect"))),
            ("/elapsed_us was \"integer\" and is \"string\"", |new| {
                new["properties"]["elapsed_us"]["type"] = json!("string");
            }),
            ("/outcome was always there, and need not be any more", |new| {
                new["required"].as_array_mut().unwrap().retain(|name| name != "outcome");
            }),
            ("/result must be there, and need not be in events that were written before", |new| {
                new["required"].as_array_mut().unwrap().push(json!("result"));
            }),
            ("/outcome may be \"in_doubt\" no more", |new| {
                new["properties"]["outcome"]["enum"].as_array_mut().unwrap().retain(|name| name != "in_doubt");
            }),
            ("/error_type maxLength was absent and is 3", |new| {
                new["properties"]["error_type"]["maxLength"] = json!(3)
            }),
            ("/result/digest is there no more", |new| {
                drop(new["$defs"]["reference"]["properties"].as_object_mut().unwrap().remove("digest"));
            }),
            (" additionalProperties changes: readers must be able to ignore what they do not know", |new| {
                new["additionalProperties"] = json!(false);
            }),
            (" x-topic was \"mcp.calls\" and is \"mcp.other\"", |new| new["x-topic"] = json!("mcp.other")),
            (" x-retention was \"P400D\" and is \"P30D\"", |new| new["x-retention"] = json!("P30D")),
            ("/result is internal and was confidential: whoever may see less would be shown more", |new| {
                new["properties"]["result"]["x-sensitivity"] = json!("internal");
            }),
        ];
        for (told, change) in changes {
            assert!(breaks(change).iter().any(|said| said == told), "{told}: {:?}", breaks(change));
        }
    }

    #[test]
    fn readers_name_keys_that_there_are() {
        let readers = Readers::known();
        for (event, key) in readers.named() {
            let types: Vec<_> = match EventType::named(event) {
                Some(event_type) => vec![event_type],
                None if event == "*" => EventType::ALL.to_vec(),
                None => panic!("no event {event}"),
            };
            for event_type in types {
                let schema = schema(event_type.contract().schema);
                assert!(schema["properties"].get(key).is_some(), "{event_type} has no {key}");
            }
        }
        assert!(readers.of("call.outcome", "/effect").contains(&"cairn trail"));
        assert!(readers.of("call.outcome", "/nobody").is_empty());
    }
}
