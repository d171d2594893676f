//! Where two JSON texts part: by JSON pointer, numbers as they are written.
//!
//! Both are brought into canonical form first, so order of members and white space are no difference. What was masked in
//! the recorded one fits whatever stands in that place.

use std::collections::BTreeMap;

use cairn_contract::canonical_json;
use serde::Serialize;
use serde_json::value::RawValue;

/// Longest value that is shown, in characters.
const SHOWN_MAX: usize = 200;
/// Deepest place that is told apart.
const DEPTH_MAX: usize = 64;

/// One place where they part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// JSON pointer (RFC 6901); empty for the whole.
    pub pointer: String,
    /// What was recorded there, shortened; nothing where nothing stood.
    pub recorded: Option<String>,
    /// What is there now, shortened.
    pub came: Option<String>,
}

/// All places where they part, at most that many. Texts that are no JSON part as a whole.
#[must_use]
pub fn differences(recorded: &str, came: &str, most: usize) -> Vec<Difference> {
    let mut found = Found { all: Vec::new(), most };
    match (canonical_json(recorded.as_bytes()), canonical_json(came.as_bytes())) {
        (Ok(recorded), Ok(came)) => found.walk(&recorded, &came, "", 0),
        _ if recorded == came => {}
        _ => found.note("", Some(recorded), Some(came)),
    }
    found.all
}

struct Found {
    all: Vec<Difference>,
    most: usize,
}

impl Found {
    fn note(&mut self, pointer: &str, recorded: Option<&str>, came: Option<&str>) {
        if self.all.len() < self.most {
            let shown = |text: &str| text.chars().take(SHOWN_MAX).collect();
            let pointer = pointer.to_owned();
            self.all.push(Difference { pointer, recorded: recorded.map(shown), came: came.map(shown) });
        }
    }

    fn walk(&mut self, recorded: &str, came: &str, pointer: &str, depth: usize) {
        if recorded == came || self.all.len() >= self.most || is_masked(recorded, came) {
            return;
        }
        if depth < DEPTH_MAX {
            if let (Some(recorded), Some(came)) = (object(recorded), object(came)) {
                let names: std::collections::BTreeSet<&String> = recorded.keys().chain(came.keys()).collect();
                for name in names {
                    let at = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                    match (recorded.get(name), came.get(name)) {
                        (Some(recorded), Some(came)) => self.walk(recorded.get(), came.get(), &at, depth + 1),
                        (recorded, came) => {
                            self.note(&at, recorded.map(|value| value.get()), came.map(|value| value.get()));
                        }
                    }
                }
                return;
            }
            if let (Some(recorded), Some(came)) = (array(recorded), array(came)) {
                for index in 0..recorded.len().max(came.len()) {
                    let at = format!("{pointer}/{index}");
                    match (recorded.get(index), came.get(index)) {
                        (Some(recorded), Some(came)) => self.walk(recorded.get(), came.get(), &at, depth + 1),
                        (recorded, came) => {
                            self.note(&at, recorded.map(|value| value.get()), came.map(|value| value.get()));
                        }
                    }
                }
                return;
            }
        }
        self.note(pointer, Some(recorded), Some(came));
    }
}

fn object(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    if text.starts_with('{') { serde_json::from_str(text).ok() } else { None }
}

fn array(text: &str) -> Option<Vec<&RawValue>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

/// Whether the recorded value is a text in which something was masked, and what came fits it around the masks. A value that
/// was masked whole may have been anything.
fn is_masked(recorded: &str, came: &str) -> bool {
    let Ok(recorded) = serde_json::from_str::<String>(recorded) else { return false };
    let Some(first) = recorded.find("[masked:") else { return false };
    let Some(end) = recorded[first..].find(']') else { return false };
    if first == 0 && first + end + 1 == recorded.len() {
        return true;
    }
    let Ok(came) = serde_json::from_str::<String>(came) else { return false };
    // What stands before the first mask and behind the last one must be there; what is between two of them may have moved.
    let behind = recorded.rfind("[masked:").and_then(|last| recorded[last..].find(']').map(|end| last + end + 1));
    let behind = &recorded[behind.unwrap_or(recorded.len())..];
    came.len() >= first + behind.len() && came.starts_with(&recorded[..first]) && came.ends_with(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_same(recorded: &str, came: &str) -> bool {
        differences(recorded, came, 1).is_empty()
    }

    fn pointers(recorded: &str, came: &str) -> Vec<String> {
        differences(recorded, came, 10).into_iter().map(|found| found.pointer).collect()
    }

    #[test]
    fn the_form_is_no_difference_and_numbers_are_as_written() {
        assert!(is_same(r#"{"a":1,"b":[1,2]}"#, r#"{ "b": [1, 2], "a": 1 }"#));
        assert!(!is_same(r#"{"n":9007199254740993}"#, r#"{"n":9007199254740992}"#));
        assert!(!is_same("1", "1.0"));
        assert!(is_same("no JSON", "no JSON") && !is_same("no JSON", "none"));
    }

    #[test]
    fn each_place_is_named_as_far_as_is_wanted() {
        let recorded = r#"{"a":{"b/c":[1,{"d":"x"}]},"gone":true}"#;
        let came = r#"{"a":{"b/c":[1,{"d":"y"},3]},"new":null}"#;
        assert_eq!(pointers(recorded, came), ["/a/b~1c/1/d", "/a/b~1c/2", "/gone", "/new"]);
        let first = &differences(recorded, came, 1)[0];
        assert_eq!((first.recorded.as_deref(), first.came.as_deref()), (Some("\"x\""), Some("\"y\"")));
        assert_eq!(differences(recorded, came, 1).len(), 1);
        assert_eq!(pointers(r#"{"a":[]}"#, r#"{"a":{}}"#), ["/a"]);
    }

    #[test]
    fn what_was_masked_fits_and_what_stands_beside_it_must_be_the_same() {
        assert!(is_same(r#"{"to":"[masked:email]"}"#, r#"{"to":"ann@example.org"}"#));
        assert!(is_same(r#"{"pin":"[masked:secret]"}"#, r#"{"pin":1234}"#), "masked whole: nobody knows what it was");
        assert!(is_same(r#""to [masked:email] today""#, r#""to ann@example.org today""#));
        assert!(!is_same(r#""to [masked:email] today""#, r#""to ann@example.org tomorrow""#));
        assert!(!is_same(r#""to [masked:email] today""#, "7"));
        assert!(!is_same(r#"{"to":"ann"}"#, r#"{"to":"[masked:email]"}"#), "only what was recorded is a mask");
    }
}
