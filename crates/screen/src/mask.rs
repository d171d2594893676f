//! The mask, `[masked:<rule>]`, and putting it in the place of what was found.

use std::{collections::HashSet, ops::Range, sync::Arc};

use crate::detector::Match;

const OPEN: &[u8] = b"[masked:";
/// Longest mask.
const MASK_BYTES_MAX: usize = 64;

/// The mask of a rule.
pub(crate) fn of(rule: &str) -> String {
    format!("[masked:{rule}]")
}

/// Rules that no file has.
const OWN: [&str; 8] = [
    "named-secret",
    "named-chance",
    "class-public",
    "class-internal",
    "class-personal",
    "class-secret",
    "overlapping",
    "not-decodable",
];

/// The rules whose masks are known: what only looks like a mask hides nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known(HashSet<Arc<str>>);

impl Known {
    pub(crate) fn of(rules: impl IntoIterator<Item = Arc<str>>) -> Self {
        Self(OWN.into_iter().map(Arc::from).chain(rules).collect())
    }

    /// Whether that is one mask and nothing else.
    fn is_mask(&self, text: &[u8]) -> bool {
        let rule = text.strip_prefix(OPEN).and_then(|rest| rest.strip_suffix(b"]"));
        rule.and_then(|rule| std::str::from_utf8(rule).ok()).is_some_and(|rule| self.0.contains(rule))
    }

    /// Whether a match lies within a mask.
    fn is_within(&self, text: &[u8], range: &Range<usize>) -> bool {
        let from = range.start.saturating_sub(MASK_BYTES_MAX);
        let Some(open) = memchr::memmem::rfind(&text[from..range.start], OPEN).map(|open| from + open) else {
            return self.is_mask(&text[range.clone()]);
        };
        let close = memchr::memchr(b']', &text[range.end.saturating_sub(1)..]).map(|close| range.end + close);
        close.is_some_and(|close| self.is_mask(&text[open..close])) || self.is_mask(&text[range.clone()])
    }
}

/// Joins what overlaps or touches, widens it to whole characters and escapes, and leaves out what is a mask already.
pub(crate) fn settled(known: &Known, text: &[u8], mut found: Vec<Match>) -> Vec<Match> {
    found.retain(|found| found.range.start < found.range.end && found.range.end <= text.len());
    let edges = found.iter().flat_map(|found| [found.range.start, found.range.end]).collect();
    let edges = Edges::of(text, edges);
    for found in &mut found {
        found.range = edges.before(found.range.start)..edges.after(found.range.end);
    }
    found.sort_by(|a, b| a.range.start.cmp(&b.range.start).then(b.range.end.cmp(&a.range.end)));
    let mut joined: Vec<Match> = Vec::new();
    for next in found {
        match joined.last_mut() {
            Some(last) if next.range.start < last.range.end => last.range.end = last.range.end.max(next.range.end),
            _ => joined.push(next),
        }
    }
    joined.retain(|found| !known.is_within(text, &found.range));
    joined
}

/// The text with a mask in the place of each; `found` is settled.
pub(crate) fn put(text: &[u8], found: &[Match]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    for found in found {
        out.extend_from_slice(&text[at..found.range.start]);
        out.extend_from_slice(of(&found.rule).as_bytes());
        at = found.range.end;
    }
    out.extend_from_slice(&text[at..]);
    out
}

/// A match that is the whole text.
pub(crate) fn whole(text: &[u8], rule: &str) -> Match {
    Match { range: 0..text.len(), rule: Arc::from(rule) }
}

/// Where characters and escapes begin and end, as far as edges of matches ask.
struct Edges {
    /// For each edge within an escape, where that begins and ends.
    escapes: Vec<Range<usize>>,
    text_ends: usize,
    starts_char: Vec<(usize, usize, usize)>,
}

impl Edges {
    fn of(text: &[u8], mut edges: Vec<usize>) -> Self {
        edges.sort_unstable();
        edges.dedup();
        let mut escapes = Vec::new();
        if let Some(first) = memchr::memchr(b'\\', text) {
            let (mut at, mut next) = (first, 0);
            while at < text.len() && next < edges.len() {
                let len = if text[at] == b'\\' { crate::encoded::escape_len(text, at) } else { 1 };
                while next < edges.len() && edges[next] < at + len {
                    if edges[next] > at {
                        escapes.push(at..at + len);
                    }
                    next += 1;
                }
                at += len;
            }
        }
        let continues = |at: usize| text.get(at).is_some_and(|byte| (0x80..0xC0).contains(byte));
        let starts_char = edges
            .into_iter()
            .filter(|edge| continues(*edge))
            .map(|edge| {
                let start = (0..edge).rev().find(|at| !continues(*at)).unwrap_or(0);
                let end = (edge..text.len()).find(|at| !continues(*at)).unwrap_or(text.len());
                (edge, start, end)
            })
            .collect();
        Self { escapes, text_ends: text.len(), starts_char }
    }

    fn before(&self, edge: usize) -> usize {
        let edge = self.starts_char.iter().find(|(at, ..)| *at == edge).map_or(edge, |(_, start, _)| *start);
        self.escapes.iter().find(|escape| escape.start < edge && edge < escape.end).map_or(edge, |escape| escape.start)
    }

    fn after(&self, edge: usize) -> usize {
        let edge = self.starts_char.iter().find(|(at, ..)| *at == edge).map_or(edge, |(.., end)| *end);
        let escape = self.escapes.iter().find(|escape| escape.start < edge && edge < escape.end);
        escape.map_or(edge, |escape| escape.end).min(self.text_ends)
    }
}
