//! The door: texts and JSON documents in, what may stand in the record out.

use std::{borrow::Cow, ops::Range, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    classes::{Class, Classes},
    detector::{Detector, Match},
    find::{Finder, UNSEEN},
    json::{TokenKind, Walker, unescaped},
    mask, pointer,
    rules::Rules,
};

/// How often a text is masked again because masking made something new; after that it is masked whole.
const ROUNDS_MAX: usize = 4;
/// Findings that are named one by one; more are counted.
const FINDINGS_MAX: usize = 16;

/// Shorter numbers are nobody's.
const SCALAR_BYTES_MIN: usize = 7;

/// What was found: where and by which rule, never the value.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// JSON pointer of the value; empty for a text. Names in it are masked too.
    pub pointer: String,
    /// The rule.
    pub rule: String,
}

/// A document as it may stand in the record.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Masked {
    /// The masked document; nothing where the original may stand as it is.
    pub changed: Option<Vec<u8>>,
    /// What was found, the first 16.
    pub found: Vec<Finding>,
    /// How much was found in all.
    pub count: usize,
}

impl Masked {
    fn note(&mut self, pointer: impl FnOnce() -> String, rule: &str) {
        self.count += 1;
        if self.found.len() < FINDINGS_MAX {
            self.found.push(Finding { pointer: pointer(), rule: rule.to_owned() });
        }
    }
}

/// Finds and masks. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Screener(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    rules: Rules,
    detectors: Vec<Arc<dyn Detector>>,
    known: mask::Known,
}

impl Screener {
    /// A screener by these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        let own: Arc<dyn Detector> = Arc::new(rules.patterns.clone());
        Self::of(rules, vec![own])
    }

    fn of(rules: Rules, detectors: Vec<Arc<dyn Detector>>) -> Self {
        let known = mask::Known::of(detectors.iter().flat_map(|detector| detector.rules()));
        Self(Arc::new(Inner { rules, detectors, known }))
    }

    /// The same with one detector more.
    #[must_use]
    pub fn with(&self, detector: Arc<dyn Detector>) -> Self {
        let mut detectors = self.0.detectors.clone();
        detectors.push(detector);
        Self::of(self.0.rules.clone(), detectors)
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.0.rules
    }

    /// A free text as it may stand in the record.
    #[must_use]
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self.masked(text.as_bytes(), None, false).0 {
            Some(masked) => Cow::Owned(utf8(masked)),
            None => Cow::Borrowed(text),
        }
    }

    /// The same for a text that stands under a name.
    #[must_use]
    pub fn text_under<'t>(&self, name: &str, text: &'t str) -> Cow<'t, str> {
        match self.masked(text.as_bytes(), Some(name), false).0 {
            Some(masked) => Cow::Owned(utf8(masked)),
            None => Cow::Borrowed(text),
        }
    }

    /// Whether a text may stand in the record as it is.
    #[must_use]
    pub fn is_clean(&self, text: &str) -> bool {
        self.finder(text.len()).find(text.as_bytes(), None).is_empty()
    }

    /// A JSON document as it may stand in the record. What is no JSON is taken as text.
    #[must_use]
    pub fn json(&self, document: &[u8], classes: &Classes) -> Masked {
        self.walk(document, classes, true, true)
    }

    /// A JSON document in which what `classes` classify is masked whole, and nothing else is looked at. What is no JSON is
    /// masked as a whole.
    #[must_use]
    pub fn classified(&self, document: &[u8], classes: &Classes) -> Masked {
        self.walk(document, classes, true, false)
    }

    /// What [`json`](Screener::json) would find, without making the masked document.
    #[must_use]
    pub fn look(&self, document: &[u8], classes: &Classes) -> Masked {
        self.walk(document, classes, false, true)
    }

    /// A JSON value as it may stand in the record.
    #[must_use]
    pub fn value(&self, value: &Value) -> Value {
        let text = value.to_string();
        match self.json(text.as_bytes(), &Classes::new()).changed {
            // A mask is a text like any other, so what was JSON still is.
            Some(masked) => serde_json::from_slice(&masked).unwrap_or_else(|_| Value::String(mask::of(UNSEEN))),
            None => value.clone(),
        }
    }

    fn finder(&self, input: usize) -> Finder<'_> {
        Finder::new(&self.0.detectors, &self.0.known, input)
    }

    /// The masked text, or nothing where it may stand as it is; with the rules that found something at first.
    /// `in_string` says that the text stands between the quotes of a JSON string.
    fn masked(&self, text: &[u8], name: Option<&str>, in_string: bool) -> (Option<Vec<u8>>, Vec<Match>) {
        // Nearly every text has nothing in it that a rule could find; where there are other detectors, they are asked.
        if name.is_none() && self.0.detectors.len() == 1 && self.0.rules.patterns.is_plain(text) {
            return (None, Vec::new());
        }
        let find = |text: &[u8]| {
            let mut finder = self.finder(text.len());
            if in_string { finder.find_in_string(text, name) } else { finder.find(text, name) }
        };
        let first = find(text);
        if first.is_empty() {
            return (None, first);
        }
        // Until nothing is found any more: then masking the result again changes nothing, by its own definition.
        let mut masked = mask::put(text, &first);
        for _ in 1..ROUNDS_MAX {
            let found = find(&masked);
            if found.is_empty() {
                return (Some(masked), first);
            }
            masked = mask::put(&masked, &found);
        }
        (Some(mask::of("overlapping").into_bytes()), first)
    }

    fn walk(&self, document: &[u8], classes: &Classes, make: bool, detect: bool) -> Masked {
        let mut masked = Masked::default();
        let mut changes: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
        let mut walker = Walker::new(document);
        // For each level, whether the name that its newest value stands under tells.
        let mut telling = Vec::new();
        let mut public_until = 0;
        while let Some(token) = walker.next() {
            let Ok(token) = token else { return self.unread(document, make, detect) };
            if token.kind != TokenKind::Name && !classes.is_empty() {
                match self.by_class(document, classes, &mut walker, &token, &mut masked) {
                    Ok(Some(Classified::Masked(range, text))) => {
                        changes.push((range, text));
                        continue;
                    }
                    Ok(Some(Classified::Public(end))) => public_until = end,
                    Ok(None) => {}
                    Err(_) => return self.unread(document, make, detect),
                }
            }
            if !detect || token.range.end <= public_until {
                continue;
            }
            match token.kind {
                TokenKind::Open => {}
                TokenKind::Name => {
                    let level = walker.levels().len();
                    telling.resize(level, false);
                    let content = &document[token.range.clone()];
                    let tell = |name: &[u8]| self.0.rules.patterns.tells(name);
                    telling[level - 1] = match memchr::memchr(b'\\', content) {
                        None => tell(content),
                        Some(_) => tell(unescaped(content).as_bytes()),
                    };
                    if let (Some(text), found) = self.masked(content, None, true) {
                        masked.note(|| self.pointer(document, &walker), &found[0].rule);
                        changes.push((token.range, text));
                    }
                }
                TokenKind::Text | TokenKind::Scalar => {
                    let tells = walker.name_level().is_some_and(|level| telling.get(level) == Some(&true));
                    let content = &document[token.range.clone()];
                    if token.kind == TokenKind::Scalar
                        && (content.len() < SCALAR_BYTES_MIN && !tells || content[0].is_ascii_lowercase())
                    {
                        continue;
                    }
                    let name = if tells { walker.name() } else { None };
                    let (Some(text), found) = self.masked(content, name.as_deref(), true) else { continue };
                    for found in &found {
                        masked.note(|| self.pointer(document, &walker), &found.rule);
                    }
                    match token.kind {
                        // A number cannot hold a mask, so a string takes its place.
                        TokenKind::Scalar => {
                            changes.push((token.range, format!("\"{}\"", mask::of(&found[0].rule)).into_bytes()));
                        }
                        _ => changes.push((token.range, text)),
                    }
                }
            }
        }
        if make && !changes.is_empty() {
            masked.changed = Some(changed(document, &changes));
        }
        masked
    }

    /// What classification says of a value: masked whole, or passed by.
    fn by_class(
        &self,
        document: &[u8],
        classes: &Classes,
        walker: &mut Walker<'_>,
        token: &crate::json::Token,
        masked: &mut Masked,
    ) -> Result<Option<Classified>, crate::json::NotWalked> {
        let levels = walker.levels();
        let above = if token.kind == TokenKind::Open { &levels[..levels.len() - 1] } else { levels };
        let segments = pointer::segments(document, above);
        let class = classes.of(&segments);
        if class == Class::Internal {
            return Ok(None);
        }
        let range = match token.kind {
            TokenKind::Open if class == Class::Public => {
                let mut ahead = Walker::new(&document[token.range.start..]);
                let _ = ahead.next();
                token.range.start..token.range.start + ahead.pass()?
            }
            TokenKind::Open => token.range.start..walker.pass()?,
            TokenKind::Text => token.range.start - 1..token.range.end + 1,
            _ => token.range.clone(),
        };
        if class == Class::Public {
            return Ok(Some(Classified::Public(range.end)));
        }
        let text = format!("\"{}\"", mask::of(class.rule())).into_bytes();
        if document[range.clone()] == text || &document[range.clone()] == b"null" {
            return Ok(Some(Classified::Public(range.end)));
        }
        masked.note(|| self.shown(&segments), class.rule());
        Ok(Some(Classified::Masked(range, text)))
    }

    /// What is no JSON, so that nobody can say where in it a field is.
    fn unread(&self, document: &[u8], make: bool, detect: bool) -> Masked {
        if detect {
            return self.as_text(document, make);
        }
        let mut masked = Masked::default();
        masked.note(String::new, Class::Secret.rule());
        masked.changed = make.then(|| format!("\"{}\"", mask::of(Class::Secret.rule())).into_bytes());
        masked
    }

    fn as_text(&self, document: &[u8], make: bool) -> Masked {
        let mut masked = Masked::default();
        let (text, found) = self.masked(document, None, false);
        for found in &found {
            masked.note(String::new, &found.rule);
        }
        masked.changed = text.filter(|_| make);
        masked
    }

    fn pointer(&self, document: &[u8], walker: &Walker<'_>) -> String {
        self.shown(&pointer::segments(document, walker.levels()))
    }

    fn shown(&self, segments: &[Cow<'_, str>]) -> String {
        pointer::text(segments, |segment| self.text(segment).into_owned())
    }
}

enum Classified {
    Masked(Range<usize>, Vec<u8>),
    Public(usize),
}

fn changed(document: &[u8], changes: &[(Range<usize>, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(document.len());
    let mut at = 0;
    for (range, text) in changes {
        out.extend_from_slice(&document[at..range.start]);
        out.extend_from_slice(text);
        at = range.end;
    }
    out.extend_from_slice(&document[at..]);
    out
}

/// Masks are put between whole characters, so what was UTF-8 still is.
fn utf8(masked: Vec<u8>) -> String {
    String::from_utf8(masked).unwrap_or_else(|_| mask::of(UNSEEN))
}
