//! Walks a JSON document as bytes: its names, texts and other values in order, with where each stands.
//!
//! It does not check all of JSON's grammar: what passes by was parsed before, and what is nearly JSON is walked as far as
//! it goes. It never goes deeper than [`DEPTH_MAX`]. Called by `screener` and `find`.

use std::{borrow::Cow, ops::Range};

use crate::encoded::Way;

/// Deepest nesting that is walked.
pub(crate) const DEPTH_MAX: usize = 256;

/// It is no JSON, or too deep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotWalked;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum TokenKind {
    /// A member's name, without its quotes.
    Name,
    /// A string, without its quotes.
    Text,
    /// A number, `true`, `false` or `null`.
    Scalar,
    /// An object or array begins; the range is empty.
    Open,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) range: Range<usize>,
}

/// Where within an object or array the walk is.
#[derive(Clone, Debug)]
pub(crate) struct Level {
    /// The member's name as it is written; nothing within an array.
    pub(crate) name: Option<Range<usize>>,
    /// The element's index.
    pub(crate) index: usize,
    is_object: bool,
}

/// A walk through a document.
#[derive(Debug)]
pub(crate) struct Walker<'d> {
    document: &'d [u8],
    at: usize,
    levels: Vec<Level>,
    ended: bool,
}

impl<'d> Walker<'d> {
    pub(crate) const fn new(document: &'d [u8]) -> Self {
        Self { document, at: 0, levels: Vec::new(), ended: false }
    }

    /// The levels above the newest value, outermost first.
    pub(crate) fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The name that the newest value stands under: its own, or that of the array that holds it.
    pub(crate) fn name(&self) -> Option<Cow<'d, str>> {
        let level = self.levels.iter().rev().find(|level| level.is_object)?;
        let document: &'d [u8] = self.document;
        Some(unescaped(&document[level.name.clone()?]))
    }

    /// The level that the newest value's name stands at.
    pub(crate) fn name_level(&self) -> Option<usize> {
        self.levels.iter().rposition(|level| level.is_object)
    }

    /// Goes on behind the object or array that just opened; where it ends.
    pub(crate) fn pass(&mut self) -> Result<usize, NotWalked> {
        let depth = self.levels.len();
        while self.levels.len() >= depth {
            match self.step()? {
                Some(_) => {}
                None if self.ended => return Err(NotWalked),
                None => {}
            }
        }
        Ok(self.at)
    }

    pub(crate) fn next(&mut self) -> Option<Result<Token, NotWalked>> {
        loop {
            match self.step() {
                Ok(Some(token)) => return Some(Ok(token)),
                Ok(None) if self.ended => return None,
                Ok(None) => {}
                Err(error) => {
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }

    /// One token, or one mark of punctuation.
    fn step(&mut self) -> Result<Option<Token>, NotWalked> {
        while self.document.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        let Some(byte) = self.document.get(self.at) else {
            self.ended = true;
            return if self.levels.is_empty() { Ok(None) } else { Err(NotWalked) };
        };
        match byte {
            b'{' | b'[' => {
                if self.levels.len() >= DEPTH_MAX {
                    return Err(NotWalked);
                }
                let start = self.at;
                self.at += 1;
                self.levels.push(Level { name: None, index: 0, is_object: *byte == b'{' });
                Ok(Some(Token { kind: TokenKind::Open, range: start..start }))
            }
            b'}' | b']' => {
                self.at += 1;
                let level = self.levels.pop().ok_or(NotWalked)?;
                if level.is_object == (*byte == b'}') { Ok(None) } else { Err(NotWalked) }
            }
            b',' => {
                self.at += 1;
                let level = self.levels.last_mut().ok_or(NotWalked)?;
                level.index += 1;
                level.name = None;
                Ok(None)
            }
            b':' => {
                self.at += 1;
                Ok(None)
            }
            b'"' => self.text().map(Some),
            b'0'..=b'9' | b'-' | b'a'..=b'z' => {
                let start = self.at;
                let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
                while self.document.get(self.at).is_some_and(plain) {
                    self.at += 1;
                }
                Ok(Some(Token { kind: TokenKind::Scalar, range: start..self.at }))
            }
            _ => Err(NotWalked),
        }
    }

    fn text(&mut self) -> Result<Token, NotWalked> {
        let start = self.at + 1;
        let mut end = start;
        loop {
            end += memchr::memchr2(b'"', b'\\', self.document.get(end..).ok_or(NotWalked)?).ok_or(NotWalked)?;
            if self.document[end] == b'"' {
                break;
            }
            end += 2;
        }
        self.at = end + 1;
        let range = start..end;
        match self.levels.last_mut() {
            Some(level) if level.is_object && level.name.is_none() => {
                level.name = Some(range.clone());
                Ok(Token { kind: TokenKind::Name, range })
            }
            _ => Ok(Token { kind: TokenKind::Text, range }),
        }
    }
}

/// A JSON string's content as text.
pub(crate) fn unescaped(content: &[u8]) -> Cow<'_, str> {
    match Way::Escapes.decode(content) {
        Some(decoded) => Cow::Owned(String::from_utf8_lossy(&decoded).into_owned()),
        None => String::from_utf8_lossy(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walked(text: &str) -> Vec<String> {
        let mut walker = Walker::new(text.as_bytes());
        let mut all = Vec::new();
        while let Some(token) = walker.next() {
            let Ok(token) = token else {
                all.push("!".to_owned());
                break;
            };
            let name = walker.name().unwrap_or_default();
            all.push(format!("{:?} {} under {name}", token.kind, &text[token.range]));
        }
        all
    }

    #[test]
    fn every_name_and_value_comes_once_in_order() {
        assert_eq!(
            walked(r#"{"a":"x","b\u0041":[1,"q\"r",{"c":null}]}"#),
            [
                "Open  under ",
                "Name a under a",
                "Text x under a",
                "Name b\\u0041 under bA",
                "Open  under bA",
                "Scalar 1 under bA",
                "Text q\\\"r under bA",
                "Open  under ",
                "Name c under c",
                "Scalar null under c",
            ]
        );
    }

    #[test]
    fn what_is_no_json_ends_the_walk() {
        for bad in ["{\"a", "[1", "}", "[1}", "hello \u{1}", "\"a\\"] {
            assert_eq!(walked(bad).last().map(String::as_str), Some("!"), "{bad}");
        }
        let deep = "[".repeat(DEPTH_MAX + 1);
        assert_eq!(walked(&deep).last().map(String::as_str), Some("!"));
    }

    #[test]
    fn a_value_can_be_passed_whole() {
        let text = r#"[{"a":[1,2]},3]"#;
        let mut walker = Walker::new(text.as_bytes());
        walker.next();
        walker.next();
        assert_eq!(walker.pass(), Ok(12));
        assert_eq!(walker.next(), Some(Ok(Token { kind: TokenKind::Scalar, range: 13..14 })));
    }
}
