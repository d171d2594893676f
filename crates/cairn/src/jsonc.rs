//! JSON with comments and trailing commas, as clients write it, with the place of each value in the text.
//!
//! `cairn adopt` changes single values and leaves every other byte; the configuration is read through here too, because
//! editors allow comments in these files. Nesting is bounded. It must never repeat a value in an error: it may be a secret.

use std::ops::Range;

#[cfg(test)]
use serde_json::Value;
use serde_json::value::RawValue;

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 128;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Bytes of the text.
    pub(crate) span: Range<usize>,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Object(Vec<Member>),
    Array(Vec<Node>),
    String(String),
    /// A number, `true`, `false`, `null`, as written.
    Other(String),
}

/// A member of an object.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) key: String,
    pub(crate) key_span: Range<usize>,
    pub(crate) value: Node,
}

/// Why a text is not JSON.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line}: {what}")]
pub(crate) struct Fault {
    line: usize,
    what: &'static str,
}

impl Node {
    pub(crate) fn members(&self) -> &[Member] {
        match &self.kind {
            Kind::Object(members) => members,
            _ => &[],
        }
    }

    pub(crate) fn member(&self, key: &str) -> Option<&Member> {
        self.members().iter().find(|member| member.key == key)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn items(&self) -> Option<&[Node]> {
        match &self.kind {
            Kind::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The value without its places.
    #[cfg(test)]
    pub(crate) fn value(&self) -> Value {
        match &self.kind {
            Kind::Object(members) => {
                let members = members.iter().map(|member| (member.key.clone(), member.value.value()));
                Value::Object(members.collect::<serde_json::Map<_, _>>())
            }
            Kind::Array(items) => items.iter().map(Self::value).collect(),
            Kind::String(text) => Value::from(text.as_str()),
            // A number beyond what this reader holds is nothing that a configuration needs.
            Kind::Other(text) => serde_json::from_str(text).unwrap_or(Value::Null),
        }
    }
}

/// Reads a whole text.
pub(crate) fn parse(text: &str) -> Result<Node, Fault> {
    let at = if text.starts_with('\u{feff}') { 3 } else { 0 };
    let mut parser = Parser { text, at };
    parser.space()?;
    let node = parser.value(0)?;
    parser.space()?;
    if parser.at == text.len() { Ok(node) } else { Err(parser.fault("something follows the end of the document")) }
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
}

impl Parser<'_> {
    fn fault(&self, what: &'static str) -> Fault {
        Fault {
            line: self.text.as_bytes()[..self.at.min(self.text.len())].iter().filter(|byte| **byte == b'\n').count()
                + 1,
            what,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// White space and comments.
    fn space(&mut self) -> Result<(), Fault> {
        loop {
            let rest = &self.text[self.at..];
            if rest.starts_with([' ', '\t', '\r', '\n']) {
                self.at += 1;
            } else if rest.starts_with("//") {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if rest.starts_with("/*") {
                self.at += rest.find("*/").ok_or_else(|| self.fault("a comment has no end"))? + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn value(&mut self, depth: usize) -> Result<Node, Fault> {
        if depth > DEPTH_MAX {
            return Err(self.fault("it is nested too deeply"));
        }
        let start = self.at;
        let kind = match self.peek() {
            Some(b'{') => self.object(depth)?,
            Some(b'[') => self.array(depth)?,
            Some(b'"') => Kind::String(self.string()?),
            _ => self.other()?,
        };
        Ok(Node { span: start..self.at, kind })
    }

    fn object(&mut self, depth: usize) -> Result<Kind, Fault> {
        self.at += 1;
        let mut members: Vec<Member> = Vec::new();
        loop {
            self.space()?;
            if self.take(b'}') {
                return Ok(Kind::Object(members));
            }
            let key_start = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.fault("a member's name in double quotes, or }, was expected"));
            }
            let key = self.string()?;
            let key_span = key_start..self.at;
            if members.iter().any(|member| member.key == key) {
                return Err(self.fault("a name stands twice in one object: keep one"));
            }
            self.space()?;
            if !self.take(b':') {
                return Err(self.fault("a colon was expected"));
            }
            self.space()?;
            let value = self.value(depth + 1)?;
            members.push(Member { key, key_span, value });
            self.space()?;
            if !self.take(b',') && self.peek() != Some(b'}') {
                return Err(self.fault("a comma or } was expected"));
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Kind, Fault> {
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.space()?;
            if self.take(b']') {
                return Ok(Kind::Array(items));
            }
            items.push(self.value(depth + 1)?);
            self.space()?;
            if !self.take(b',') && self.peek() != Some(b']') {
                return Err(self.fault("a comma or ] was expected"));
            }
        }
    }

    fn string(&mut self) -> Result<String, Fault> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(b'\n') | None => return Err(self.fault("a string has no end")),
                Some(_) => self.at += 1,
            }
        }
        self.at += 1;
        let literal = self.text.get(start..self.at);
        literal.and_then(|text| serde_json::from_str(text).ok()).ok_or_else(|| self.fault("a string is not valid"))
    }

    fn other(&mut self) -> Result<Kind, Fault> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))).unwrap_or(rest.len());
        let raw: &RawValue = serde_json::from_str(&rest[..end]).map_err(|_| self.fault("a value was expected"))?;
        let kind = Kind::Other(raw.get().to_owned());
        self.at += end;
        Ok(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_trailing_commas_are_read_and_places_are_exact() {
        let text = "// a\n{ \"a\": [1, /* b */ \"x\\\"//\",], \"c\": { \"d\": null, } }\n";
        let node = parse(text).expect("JSON with comments");
        assert_eq!(node.value(), serde_json::json!({ "a": [1, "x\"//"], "c": { "d": null } }));
        let array = &node.member("a").expect("there").value;
        assert_eq!(&text[array.span.clone()], "[1, /* b */ \"x\\\"//\",]");
    }

    #[test]
    fn what_is_not_json_says_where_and_never_what() {
        for (text, line) in
            [("{\n \"a\": s3cret }", 2), ("{\"a\": \"s3cret", 1), ("{} x", 1), ("", 1), ("{\"a\":1,\n\n\"a\":2}", 3)]
        {
            let fault = parse(text).expect_err(text).to_string();
            assert!(fault.starts_with(&format!("line {line}: ")) && !fault.contains("s3cret"), "{fault}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse("\"\\").is_err() && parse("\"é\\").is_err());
    }
}
