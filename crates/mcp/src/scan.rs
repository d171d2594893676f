//! The strict JSON scanner. Called by [`crate::Message`] and the editor; it answers where things are, never what they
//! mean.
//!
//! Guarantees: one pass over the structure without recursion; a document that two parsers could read differently is
//! refused (invalid UTF-8, duplicate keys at any depth compared after unescaping, lone surrogates, anything after the
//! value); memory is bounded by the input, time by its length times the logarithm of its widest object. It must never
//! change or copy a value.

use std::borrow::Cow;

use memchr::memchr2;

use crate::scan_text::{TextFault, scan_number, scan_string, unescape};

/// A half-open range of bytes within a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

impl Span {
    pub(crate) fn of(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start..self.end]
    }
}

/// One member of a recorded object.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The key with its quotes.
    pub(crate) key: Span,
    pub(crate) value: Span,
    /// The key's text where escapes make it differ from its bytes.
    pub(crate) unescaped: Option<Box<str>>,
}

impl Member {
    /// The key's text after unescaping.
    pub(crate) fn name<'a>(&'a self, bytes: &'a [u8]) -> &'a [u8] {
        match &self.unescaped {
            Some(text) => text.as_bytes(),
            None => &bytes[self.key.start + 1..self.key.end - 1],
        }
    }
}

/// An object whose members were written down because the protocol gives them a meaning.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// From the opening to past the closing brace.
    pub(crate) span: Span,
    pub(crate) members: Vec<Member>,
}

impl Object {
    pub(crate) fn find(&self, bytes: &[u8], key: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name(bytes) == key.as_bytes())
    }
}

/// Which object of an envelope was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Slot {
    Root,
    Params,
    ParamsMeta,
    Result,
    ResultMeta,
    Error,
}

const SLOTS: usize = 6;

impl Slot {
    /// The slot of the object that is the value of `key` in this one.
    fn child(self, key: &[u8]) -> Option<Self> {
        match (self, key) {
            (Self::Root, b"params") => Some(Self::Params),
            (Self::Root, b"result") => Some(Self::Result),
            (Self::Root, b"error") => Some(Self::Error),
            (Self::Params, b"_meta") => Some(Self::ParamsMeta),
            (Self::Result, b"_meta") => Some(Self::ResultMeta),
            _ => None,
        }
    }
}

/// What a scan found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    objects: [Option<Object>; SLOTS],
    /// The elements of the outermost array, where the document is one.
    pub(crate) elements: Vec<Span>,
    /// The first ambiguity; the scan went on behind it so that the id can be named in the refusal.
    pub(crate) ambiguity: Option<ScanFault>,
}

impl Shape {
    pub(crate) fn object(&self, slot: Slot) -> Option<&Object> {
        self.objects[slot as usize].as_ref()
    }
}

/// Why a document was refused; offsets count bytes from its beginning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScanFault {
    /// The bytes are not UTF-8.
    #[error("invalid UTF-8 at byte {at}")]
    Utf8 {
        /// Where.
        at: usize,
    },
    /// The bytes are not JSON (RFC 8259).
    #[error("invalid JSON at byte {at}: expected {expected}")]
    Syntax {
        /// Where.
        at: usize,
        /// What would have been right.
        expected: &'static str,
    },
    /// A `\u` escape names half of a surrogate pair.
    #[error("lone surrogate at byte {at}")]
    Surrogate {
        /// Where.
        at: usize,
    },
    /// Something follows the document.
    #[error("unexpected bytes after the document at byte {at}")]
    Trailing {
        /// Where.
        at: usize,
    },
    /// One object holds the same key twice.
    #[error("duplicate key {key:?} in the object that ends at byte {at}")]
    DuplicateKey {
        /// The key, shortened.
        key: String,
        /// Where the object ends.
        at: usize,
    },
    /// Arrays and objects nest too deeply.
    #[error("nested deeper than {limit} levels")]
    TooDeep {
        /// The bound.
        limit: usize,
    },
}

impl ScanFault {
    fn syntax(at: usize, expected: &'static str) -> Self {
        Self::Syntax { at, expected }
    }
}

impl From<TextFault> for ScanFault {
    fn from(fault: TextFault) -> Self {
        match fault {
            TextFault::Syntax { at, expected } => Self::Syntax { at, expected },
            TextFault::Surrogate { at } => Self::Surrogate { at },
        }
    }
}

/// Scans an envelope and records the objects that [`Slot`] names.
pub(crate) fn scan_envelope(bytes: &[u8], depth_max: usize) -> Result<Shape, ScanFault> {
    Scanner::new(bytes, depth_max)?.run(true)
}

/// Scans any one value; nothing is recorded.
pub(crate) fn scan_value(bytes: &[u8], depth_max: usize) -> Result<(), ScanFault> {
    let shape = Scanner::new(bytes, depth_max)?.run(false)?;
    shape.ambiguity.map_or(Ok(()), Err)
}

struct Level {
    is_object: bool,
    opened: usize,
    /// Where this object's keys begin in `Scanner::keys`.
    keys_from: usize,
    /// The slot that records this object's members.
    slot: Option<Slot>,
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    depth_max: usize,
    levels: Vec<Level>,
    keys: Vec<Cow<'a, str>>,
    shape: Shape,
    /// The slot that the next value, if it is an object, fills.
    next_slot: Option<Slot>,
    records: bool,
}

impl<'a> Scanner<'a> {
    fn new(bytes: &'a [u8], depth_max: usize) -> Result<Self, ScanFault> {
        std::str::from_utf8(bytes).map_err(|error| ScanFault::Utf8 { at: error.valid_up_to() })?;
        let (levels, keys) = (Vec::with_capacity(8), Vec::with_capacity(32));
        Ok(Self { bytes, at: 0, depth_max, levels, keys, shape: Shape::default(), next_slot: None, records: false })
    }

    fn run(mut self, records: bool) -> Result<Shape, ScanFault> {
        self.records = records;
        self.next_slot = records.then_some(Slot::Root);
        self.skip_space();
        loop {
            if self.value_goes_on()? {
                continue;
            }
            if self.value_ended()? {
                break;
            }
        }
        self.skip_space();
        if self.at < self.bytes.len() {
            return Err(ScanFault::Trailing { at: self.at });
        }
        Ok(self.shape)
    }

    /// Reads the beginning of a value; true where another value begins inside it.
    fn value_goes_on(&mut self) -> Result<bool, ScanFault> {
        let slot = self.next_slot.take();
        match self.bytes.get(self.at) {
            Some(b'{' | b'[') if self.levels.len() >= self.depth_max => {
                self.shape.ambiguity.get_or_insert(ScanFault::TooDeep { limit: self.depth_max });
                self.skip_nested()?;
                Ok(false)
            }
            Some(b'{') => {
                self.open(true, slot);
                if self.bytes.get(self.at) == Some(&b'}') {
                    self.close()?;
                    return Ok(false);
                }
                self.member()?;
                Ok(true)
            }
            Some(b'[') => {
                self.open(false, None);
                if self.bytes.get(self.at) == Some(&b']') {
                    self.close()?;
                    return Ok(false);
                }
                self.element();
                Ok(true)
            }
            Some(b'"') => {
                self.at = scan_string(self.bytes, self.at)?.0;
                Ok(false)
            }
            Some(b'-' | b'0'..=b'9') => {
                self.at = scan_number(self.bytes, self.at)?;
                Ok(false)
            }
            _ => self.literal().map(|()| false),
        }
    }

    /// Reads what follows a value; true at the end of the document, false where another value begins.
    fn value_ended(&mut self) -> Result<bool, ScanFault> {
        loop {
            let end = self.at;
            let Some(level) = self.levels.last() else { return Ok(true) };
            let is_object = level.is_object;
            match level.slot {
                Some(slot) => {
                    let member = self.shape.objects[slot as usize].as_mut().and_then(|o| o.members.last_mut());
                    member.expect("a value in a recorded object follows its key").value.end = end;
                }
                None if self.levels.len() == 1 && self.records && !is_object => {
                    self.shape.elements.last_mut().expect("an element was begun before it ended").end = end;
                }
                None => {}
            }
            self.skip_space();
            match (is_object, self.bytes.get(self.at)) {
                (true, Some(b',')) => {
                    self.at += 1;
                    self.skip_space();
                    self.member()?;
                    return Ok(false);
                }
                (false, Some(b',')) => {
                    self.at += 1;
                    self.skip_space();
                    self.element();
                    return Ok(false);
                }
                (true, Some(b'}')) | (false, Some(b']')) => self.close()?,
                (true, _) => return Err(ScanFault::syntax(self.at, "a comma or a closing brace")),
                (false, _) => return Err(ScanFault::syntax(self.at, "a comma or a closing bracket")),
            }
        }
    }

    /// Passes over what is nested too deeply, to find the end of it and the id behind: the document is refused in any
    /// case, so what is inside need not be right.
    fn skip_nested(&mut self) -> Result<(), ScanFault> {
        let mut depth = 0_usize;
        loop {
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at = scan_string(self.bytes, self.at)?.0;
                    continue;
                }
                Some(b'{' | b'[') => depth += 1,
                Some(b'}' | b']') => depth -= 1,
                Some(_) => {}
                None => return Err(ScanFault::syntax(self.at, "a closing brace or bracket")),
            }
            self.at += 1;
            if depth == 0 {
                return Ok(());
            }
        }
    }

    fn open(&mut self, is_object: bool, slot: Option<Slot>) {
        if let Some(slot) = slot {
            let span = Span { start: self.at, end: self.at };
            self.shape.objects[slot as usize] = Some(Object { span, members: Vec::with_capacity(8) });
        }
        self.levels.push(Level { is_object, opened: self.at, keys_from: self.keys.len(), slot });
        self.at += 1;
        self.skip_space();
    }

    fn close(&mut self) -> Result<(), ScanFault> {
        let level = self.levels.pop().expect("only an open array or object is closed");
        self.at += 1;
        if let Some(slot) = level.slot {
            let object = self.shape.objects[slot as usize].as_mut().expect("recorded since it was opened");
            object.span = Span { start: level.opened, end: self.at };
        }
        if level.is_object {
            let keys = &mut self.keys[level.keys_from..];
            if let Some(key) = duplicate(keys) {
                let key = key.chars().take(80).collect();
                self.shape.ambiguity.get_or_insert(ScanFault::DuplicateKey { key, at: self.at });
            }
            self.keys.truncate(level.keys_from);
        }
        Ok(())
    }

    /// Reads a key, its colon and the space up to the value.
    fn member(&mut self) -> Result<(), ScanFault> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(ScanFault::syntax(self.at, "a key in quotes"));
        }
        let (end, escaped) = scan_string(self.bytes, self.at)?;
        let key = Span { start: self.at, end };
        let text = unescape(key.of(self.bytes), escaped);
        self.at = end;
        self.skip_space();
        if self.bytes.get(self.at) != Some(&b':') {
            return Err(ScanFault::syntax(self.at, "a colon"));
        }
        self.at += 1;
        self.skip_space();
        if let Some(slot) = self.levels.last().and_then(|level| level.slot) {
            let value = Span { start: self.at, end: self.at };
            let unescaped = escaped.then(|| Box::from(&*text));
            let object = self.shape.objects[slot as usize].as_mut().expect("recorded since it was opened");
            object.members.push(Member { key, value, unescaped });
            self.next_slot = slot.child(text.as_bytes());
        }
        self.keys.push(text);
        Ok(())
    }

    fn element(&mut self) {
        if self.levels.len() == 1 && self.records {
            self.shape.elements.push(Span { start: self.at, end: self.at });
        }
    }

    fn literal(&mut self) -> Result<(), ScanFault> {
        let rest = &self.bytes[self.at..];
        let word = [&b"true"[..], b"false", b"null"].into_iter().find(|word| rest.starts_with(word));
        self.at += word.ok_or(ScanFault::syntax(self.at, "a value"))?.len();
        Ok(())
    }

    fn skip_space(&mut self) {
        while matches!(self.bytes.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }
}

/// A key that occurs twice. Small objects are compared pair by pair, large ones sorted, so that no peer can make this
/// quadratic.
fn duplicate<'k>(keys: &'k mut [Cow<'_, str>]) -> Option<&'k str> {
    if keys.len() > 16 {
        keys.sort_unstable();
        return keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &*pair[0]);
    }
    let repeated = |index: usize| keys[..index].contains(&keys[index]);
    (1..keys.len()).find(|index| repeated(*index)).map(|index| &*keys[index])
}

/// Whether the first thing in these bytes is an array: a batch of JSON-RPC messages.
pub(crate) fn begins_array(bytes: &[u8]) -> bool {
    bytes.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) == Some(&b'[')
}

/// Whether a line holds a raw line feed or carriage return, which stdio framing cannot carry.
pub(crate) fn has_line_break(bytes: &[u8]) -> bool {
    memchr2(b'\n', b'\r', bytes).is_some()
}

#[cfg(test)]
mod tests;
