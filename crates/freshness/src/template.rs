//! Resource URIs and versions as templates over a call's arguments and result.
//!
//! `{arguments/order_id}` stands for what the JSON pointer `/order_id` finds in the arguments, `{result/…}` for the same in
//! the result, `{text/…}` in the result's first text block, read as JSON. What is filled in is percent-encoded but for unreserved characters, as in simple expansion of RFC 6570; so
//! `1/2` and `1%2F2` cannot be two spellings of one thing. `{+…}` fills in as it is, for a value that is a URI itself. A `*` in
//! place of an index means each element; URI and version of one mention stand for the same element. `{{` is a brace.

use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Most resources that one mention may stand for in one call.
pub const MENTIONS_MAX: usize = 1_000;
/// Longest text that a template may become.
const FILLED_BYTES_MAX: usize = 1_024;
/// RFC 3986's unreserved characters stay.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What a template is filled from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Roots<'a> {
    /// The call's arguments.
    pub arguments: Option<&'a Value>,
    /// Its result, once there is one.
    pub result: Option<&'a Value>,
    /// What the first text block of the result holds, where that is JSON.
    pub text: Option<&'a Value>,
}

/// Why a template cannot be used.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TemplateError {
    /// A brace without its other half.
    #[error("{text:?} opens a brace and does not close it; write {{{{ for a brace itself")]
    Open {
        /// The template.
        text: String,
    },
    /// Something that a call has not.
    #[error(
        "{text:?} names {root:?}: write {{arguments/…}}, {{result/…}} or {{text/…}}, with a JSON pointer behind it"
    )]
    Root {
        /// The template.
        text: String,
        /// What stands there.
        root: String,
    },
    /// An empty template names nothing.
    #[error("a URI or version cannot be empty")]
    Empty,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Root {
    Arguments,
    Result,
    Text,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Part {
    Text(String),
    Value { root: Root, pointer: String, raw: bool },
}

/// A text with places that a call fills in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        if text.is_empty() {
            return Err(TemplateError::Empty);
        }
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            plain.push_str(before);
            if let Some(after) = after.strip_prefix('{') {
                plain.push('{');
                rest = after;
                continue;
            }
            let (inside, after) = after.split_once('}').ok_or_else(|| TemplateError::Open { text: text.to_owned() })?;
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(value(text, inside)?);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

fn value(text: &str, inside: &str) -> Result<Part, TemplateError> {
    let (raw, path) = inside.strip_prefix('+').map_or((false, inside), |path| (true, path));
    let (root, pointer) = match path.find('/') {
        Some(slash) => path.split_at(slash),
        None => (path, ""),
    };
    let root = match root {
        "arguments" => Root::Arguments,
        "result" => Root::Result,
        "text" => Root::Text,
        other => return Err(TemplateError::Root { text: text.to_owned(), root: other.to_owned() }),
    };
    Ok(Part::Value { root, pointer: pointer.to_owned(), raw })
}

impl Template {
    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it can be filled before there is a result.
    #[must_use]
    pub fn needs_result(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value { root: Root::Result | Root::Text, .. }))
    }

    /// The list that a `*` of this template runs over, and how long it is.
    pub(crate) fn each(&self, roots: Roots<'_>) -> Option<usize> {
        self.parts.iter().find_map(|part| match part {
            Part::Value { root, pointer, .. } => {
                let (list, _) = pointer.split_once("/*")?;
                let found = find(*root, list, roots)?.as_array()?;
                Some(found.len().min(MENTIONS_MAX))
            }
            Part::Text(_) => None,
        })
    }

    /// Whether it holds a `*`.
    pub(crate) fn has_each(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Value { pointer, .. } if pointer.contains("/*")))
    }

    /// Filled for element `index`; `None` where something is missing, is no text, number or boolean, or is too long.
    pub(crate) fn fill(&self, roots: Roots<'_>, index: usize, encode: bool) -> Option<String> {
        let mut out = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Value { root, pointer, raw } => {
                    let pointer = pointer.replacen("/*", &format!("/{index}"), 1);
                    let text = match find(*root, &pointer, roots)? {
                        Value::String(text) => text.clone(),
                        Value::Number(number) => number.to_string(),
                        Value::Bool(flag) => flag.to_string(),
                        Value::Null | Value::Array(_) | Value::Object(_) => return None,
                    };
                    if text.len() > FILLED_BYTES_MAX {
                        return None;
                    }
                    if *raw || !encode {
                        out.push_str(&text);
                    } else {
                        out.extend(utf8_percent_encode(&text, ESCAPED));
                    }
                }
            }
            if out.len() > FILLED_BYTES_MAX {
                return None;
            }
        }
        Some(out)
    }
}

fn find<'a>(root: Root, pointer: &str, roots: Roots<'a>) -> Option<&'a Value> {
    let value = match root {
        Root::Arguments => roots.arguments,
        Root::Result => roots.result,
        Root::Text => roots.text,
    }?;
    value.pointer(pointer)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str, arguments: &Value) -> Option<String> {
        let roots = Roots { arguments: Some(arguments), ..Roots::default() };
        template.parse::<Template>().expect("a template").fill(roots, 0, true)
    }

    #[test]
    fn values_are_encoded_so_that_no_other_spelling_means_the_same() {
        let arguments = json!({"id": "1/../2 é", "n": 7, "deep": [{"a~b": true}], "uri": "file:///x y"});
        assert_eq!(filled("order://{arguments/id}", &arguments).as_deref(), Some("order://1%2F..%2F2%20%C3%A9"));
        assert_eq!(filled("o://{arguments/n}/x", &arguments).as_deref(), Some("o://7/x"));
        assert_eq!(filled("o:{arguments/deep/0/a~0b}", &arguments).as_deref(), Some("o:true"));
        assert_eq!(filled("{+arguments/uri}", &arguments).as_deref(), Some("file:///x y"));
        assert_eq!(filled("a{{b}", &arguments).as_deref(), Some("a{b}"));
    }

    #[test]
    fn what_is_missing_or_no_plain_value_names_nothing() {
        for arguments in [json!({}), json!({"id": null}), json!({"id": ["1"]}), json!({"id": {"a": 1}}), json!(3)] {
            assert_eq!(filled("order://{arguments/id}", &arguments), None, "{arguments}");
        }
        assert_eq!(filled("order://{arguments/id}", &json!({"id": "x".repeat(FILLED_BYTES_MAX + 1)})), None);
    }

    #[test]
    fn a_template_that_cannot_work_says_why() {
        for (text, says) in [("a{b", "close"), ("{argument/x}", "argument"), ("", "empty"), ("{}", "arguments")] {
            let words = text.parse::<Template>().expect_err("refused").to_string();
            assert!(words.contains(says), "{words}");
        }
    }
}
