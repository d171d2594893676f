//! Canonical JSON: one text for one meaning, so that digests agree.
//!
//! The rules of RFC 8785, with one exception: numbers stay as written. MCP servers send numbers that no double holds,
//! and a digest must not change what it stands for; `1.0` and `1` are therefore different. Members are sorted by the
//! UTF-16 code units of their names, there is no white space, and strings have the shortest escapes.
//! Catalogue digests and policy versions use it. Duplicate names are refused: two readers could read them differently.

use std::fmt::Write as _;

use serde_json::Value;

/// Deepest nesting that is read.
const DEPTH_MAX: usize = 128;

/// Why a text has no canonical form.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CanonicalError {
    /// It is no JSON.
    #[error("no JSON at byte {at}: expected {expected}")]
    Syntax {
        /// Where, from 0.
        at: usize,
        /// What could stand there.
        expected: &'static str,
    },
    /// An object names a member twice.
    #[error("the member {name:?} occurs twice in the object that ends at byte {at}")]
    Duplicate {
        /// The name.
        name: String,
        /// Where its object ends.
        at: usize,
    },
    /// It is nested too deeply.
    #[error("nested more than {DEPTH_MAX} levels deep at byte {at}")]
    Depth {
        /// Where.
        at: usize,
    },
}

/// The canonical form of a JSON text.
///
/// # Errors
/// Text that is no JSON, duplicate names, more than 128 levels.
pub fn canonical_json(text: &[u8]) -> Result<String, CanonicalError> {
    let text = std::str::from_utf8(text)
        .map_err(|error| CanonicalError::Syntax { at: error.valid_up_to(), expected: "UTF-8" })?;
    let mut reader = Reader { text, at: 0 };
    let mut out = String::with_capacity(text.len());
    reader.value(&mut out, 0)?;
    reader.space();
    if reader.at == text.len() { Ok(out) } else { Err(reader.expected("the end")) }
}

/// The canonical form of a value in memory. Its numbers are written as `serde_json` writes them.
#[must_use]
pub fn canonical_value(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

/// The same, at the end of a text that is being built.
pub fn write_canonical(out: &mut String, value: &Value) {
    write_value(out, value);
}

fn write_value(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(number) => write!(out, "{number}").expect("a string takes all that is written"),
        Value::String(text) => write_string(out, text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(out, item);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
            out.push('{');
            for (i, (name, member)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(out, name);
                out.push(':');
                write_value(out, member);
            }
            out.push('}');
        }
    }
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c if c < ' ' => write!(out, "\\u{:04x}", c as u32).expect("a string takes all that is written"),
            c => out.push(c),
        }
    }
    out.push('"');
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn expected(&self, expected: &'static str) -> CanonicalError {
        CanonicalError::Syntax { at: self.at, expected }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    fn value(&mut self, out: &mut String, depth: usize) -> Result<(), CanonicalError> {
        if depth > DEPTH_MAX {
            return Err(CanonicalError::Depth { at: self.at });
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(out, depth),
            Some(b'[') => self.array(out, depth),
            Some(b'"') => {
                let text = self.string()?;
                write_string(out, &text);
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => self.number(out),
            _ => {
                let rest = &self.text[self.at..];
                let word = ["true", "false", "null"].into_iter().find(|word| rest.starts_with(word));
                let word = word.ok_or_else(|| self.expected("a value"))?;
                self.at += word.len();
                out.push_str(word);
                Ok(())
            }
        }
    }

    fn object(&mut self, out: &mut String, depth: usize) -> Result<(), CanonicalError> {
        self.at += 1;
        let mut members: Vec<(String, String)> = Vec::new();
        self.space();
        if !self.take(b'}') {
            loop {
                self.space();
                if self.peek() != Some(b'"') {
                    return Err(self.expected("a member's name"));
                }
                let name = self.string()?;
                self.space();
                if !self.take(b':') {
                    return Err(self.expected("':'"));
                }
                let mut member = String::new();
                self.value(&mut member, depth + 1)?;
                members.push((name, member));
                self.space();
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.expected("',' or '}'"));
                }
            }
        }
        members.sort_by(|a, b| a.0.encode_utf16().cmp(b.0.encode_utf16()));
        if let Some(pair) = members.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(CanonicalError::Duplicate { name: pair[0].0.clone(), at: self.at });
        }
        out.push('{');
        for (i, (name, member)) in members.iter().enumerate() {
            if i > 0 {
                out.push(',');
            }
            write_string(out, name);
            out.push(':');
            out.push_str(member);
        }
        out.push('}');
        Ok(())
    }

    fn array(&mut self, out: &mut String, depth: usize) -> Result<(), CanonicalError> {
        self.at += 1;
        out.push('[');
        self.space();
        if !self.take(b']') {
            loop {
                self.value(out, depth + 1)?;
                self.space();
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.expected("',' or ']'"));
                }
                out.push(',');
            }
        }
        out.push(']');
        Ok(())
    }

    /// A string is decoded by `serde_json`, which knows escapes and lone surrogates; here only its end is found.
    fn string(&mut self) -> Result<String, CanonicalError> {
        let start = self.at;
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => self.at += 2,
                Some(_) => self.at += 1,
                None => return Err(self.expected("'\"'")),
            }
        }
        self.at += 1;
        serde_json::from_str(&self.text[start..self.at]).map_err(|_| CanonicalError::Syntax {
            at: start,
            expected: "a string without lone surrogates or control characters",
        })
    }

    fn digits(&mut self) -> Result<(), CanonicalError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn number(&mut self, out: &mut String) -> Result<(), CanonicalError> {
        let start = self.at;
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            if !self.take(b'+') {
                self.take(b'-');
            }
            self.digits()?;
        }
        out.push_str(&self.text[start..self.at]);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
