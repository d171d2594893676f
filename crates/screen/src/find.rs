//! Everything that detectors find in one text, also in what the text stands for: escapes, percent-encoding, JSON in a
//! string, base64, hexadecimal digits, each within each other.
//!
//! What is nested deeper or grows larger than the budget allows is one match of the whole text: what cannot be looked at
//! must not pass. Called by `screener` with text of a record.

use std::sync::Arc;

use crate::{
    budget::{Budget, NESTING_MAX},
    detector::{Detector, Match},
    encoded::{Way, decodings, joined_lines},
    json::{TokenKind, Walker},
    mask,
    shapes::{RUN_BYTES_MIN, runs},
};

/// The rule for what could not be looked at whole.
pub(crate) const UNSEEN: &str = "not-decodable";

/// What was decoded and has fewer readable bytes than this holds nothing that a rule could find.
pub(crate) const READABLE_BYTES_MIN: usize = 6;

/// How many of these bytes somebody could read.
pub(crate) fn readable_bytes(decoded: &[u8]) -> usize {
    decoded.iter().filter(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()).count()
}

pub(crate) struct Finder<'d> {
    detectors: &'d [Arc<dyn Detector>],
    known: &'d mask::Known,
    budget: Budget,
}

impl<'d> Finder<'d> {
    pub(crate) const fn new(detectors: &'d [Arc<dyn Detector>], known: &'d mask::Known, input: usize) -> Self {
        Self { detectors, known, budget: Budget::of(input) }
    }

    /// What is found in `text`, in ranges of it, joined and in order.
    pub(crate) fn find(&mut self, text: &[u8], name: Option<&str>) -> Vec<Match> {
        let found = self.look(text, name, 0);
        if found.is_empty() { found } else { mask::settled(self.known, text, found) }
    }

    /// The same for what stands between the quotes of a JSON string: its escapes are escapes, so it is looked at decoded only.
    pub(crate) fn find_in_string(&mut self, content: &[u8], name: Option<&str>) -> Vec<Match> {
        let Some(decoded) = Way::Escapes.decode(content) else { return self.find(content, name) };
        if !self.budget.take(decoded.len()) {
            return vec![mask::whole(content, UNSEEN)];
        }
        let within = self.look(&decoded, name, 1);
        if within.is_empty() {
            return within;
        }
        let ranges: Vec<_> = within.iter().map(|found| found.range.clone()).collect();
        let back = Way::Escapes.map_back(content, &ranges);
        let found = back.into_iter().zip(within).map(|(range, found)| Match { range, ..found }).collect();
        mask::settled(self.known, content, found)
    }

    fn look(&mut self, text: &[u8], name: Option<&str>, depth: u32) -> Vec<Match> {
        let mut found = Vec::new();
        for detector in self.detectors {
            detector.find(text, name, &mut found);
        }
        let encoded = memchr::memchr2(b'\\', b'%', text).is_some();
        for way in [Way::Escapes, Way::Percent].into_iter().filter(|_| encoded) {
            let Some(decoded) = way.decode(text) else { continue };
            match self.deeper(&decoded, depth) {
                Some(within) if within.is_empty() => {}
                Some(within) => {
                    let ranges: Vec<_> = within.iter().map(|found| found.range.clone()).collect();
                    let back = way.map_back(text, &ranges);
                    found.extend(back.into_iter().zip(within).map(|(range, found)| Match { range, ..found }));
                }
                None => return vec![mask::whole(text, UNSEEN)],
            }
        }
        if !self.look_into_json(text, depth, &mut found) || !self.look_into_runs(text, depth, &mut found) {
            return vec![mask::whole(text, UNSEEN)];
        }
        found
    }

    /// What is found in something that was decoded; nothing to say where it cannot be looked at any more.
    fn deeper(&mut self, decoded: &[u8], depth: u32) -> Option<Vec<Match>> {
        if depth >= NESTING_MAX || !self.budget.take(decoded.len()) {
            return None;
        }
        Some(self.look(decoded, None, depth + 1))
    }

    /// A text that is JSON itself has names that tell.
    fn look_into_json(&mut self, text: &[u8], depth: u32, found: &mut Vec<Match>) -> bool {
        let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
        if !matches!(first, Some(b'{' | b'[')) || depth >= NESTING_MAX {
            return true;
        }
        let mut walker = Walker::new(text);
        let mut within = Vec::new();
        while let Some(token) = walker.next() {
            let Ok(token) = token else { return true };
            if !matches!(token.kind, TokenKind::Text | TokenKind::Scalar) {
                continue;
            }
            let Some(name) = walker.name() else { continue };
            let mut under = Vec::new();
            for detector in self.detectors {
                detector.find(&text[token.range.clone()], Some(&name), &mut under);
            }
            let start = token.range.start;
            within.extend(
                under
                    .into_iter()
                    .map(|found| Match { range: start + found.range.start..start + found.range.end, rule: found.rule }),
            );
        }
        found.append(&mut within);
        true
    }

    fn look_into_runs(&mut self, text: &[u8], depth: u32, found: &mut Vec<Match>) -> bool {
        if text.len() < RUN_BYTES_MIN {
            return true;
        }
        let mut all = Vec::new();
        runs(text, |run| all.push(run));
        let (mut line, mut done, mut seen) = (Vec::new(), 0, true);
        for run in all {
            if run.start < done {
                continue;
            }
            let run = joined_lines(text, run, &mut line);
            done = run.end;
            decodings(&line, |decoded| {
                let readable = readable_bytes(&decoded);
                if readable < READABLE_BYTES_MIN {
                    return false;
                }
                if readable * 2 < decoded.len() {
                    // Mostly no text: only what stands in it as it is can be a secret that somebody reads.
                    let mut plain = Vec::new();
                    for detector in self.detectors {
                        detector.find(&decoded, None, &mut plain);
                    }
                    return note(plain, &run, found);
                }
                match self.deeper(&decoded, depth) {
                    Some(within) => note(within, &run, found),
                    None => {
                        seen = false;
                        true
                    }
                }
            });
            if !seen {
                return false;
            }
        }
        true
    }
}

/// What was found in an encoded run makes all of the run a match.
fn note(within: Vec<Match>, run: &std::ops::Range<usize>, found: &mut Vec<Match>) -> bool {
    let Some(first) = within.into_iter().next() else { return false };
    found.push(Match { range: run.clone(), rule: first.rule });
    true
}
