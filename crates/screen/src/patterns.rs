//! The built-in detector: a rules file, compiled.
//!
//! Keywords and shapes are searched for together in one pass; a rule's regular expression runs only near what
//! those found, over each byte once at most. The `regex` crate keeps each search linear in the text.

use std::{fmt, ops::Range, sync::Arc};

use regex::bytes::{Regex, RegexBuilder};

use crate::{
    checks::Check,
    detector::{Detector, Match},
    encoded::decodings,
    find::{READABLE_BYTES_MIN, readable_bytes},
    keywords::{self, Keywords},
    names::Names,
    rules::{CheckName, NamesSection, RuleSection, RulesError, ShapeName},
    shapes::{Group, Shape, group_at, may_begin, runs, shapes_at},
};

/// How far around a keyword a rule looks where it does not say.
const BEFORE: usize = 48;
const AFTER: usize = 160;
/// The most that a rule may look at around one keyword.
const AROUND_BYTES_MAX: usize = 64 * 1024;
/// Largest compiled regular expression of one rule.
const REGEX_BYTES_MAX: usize = 16 << 20;

#[derive(Clone)]
struct Rule {
    id: Arc<str>,
    regex: Regex,
    /// The group that is masked; 0 is all of it.
    group: usize,
    check: Option<Check>,
    before: usize,
    after: usize,
    shape: Option<ShapeName>,
    digits: u8,
    dots: u8,
    leads: Option<Box<[u8]>>,
    apart: bool,
}

/// Rules, ready to search.
#[derive(Clone)]
pub(crate) struct Patterns {
    rules: Arc<[Rule]>,
    keywords: Keywords,
    /// For each keyword, the rules that want it.
    wanted_by: Arc<[Vec<u16>]>,
    shaped: Arc<[u16]>,
    /// For groups of digits that stand apart, and for others: the first digits with which any rule wants them, as bits.
    leads: [u16; 2],
    names: Names,
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patterns").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

impl Patterns {
    pub(crate) fn compile(names: &NamesSection, sections: &[RuleSection]) -> Result<Self, RulesError> {
        let rules = sections.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        let mut keywords: Vec<String> = Vec::new();
        let mut wanted_by: Vec<Vec<u16>> = Vec::new();
        for (index, section) in sections.iter().enumerate() {
            for keyword in &section.keywords {
                let keyword = keyword.to_ascii_lowercase();
                let at = keywords.iter().position(|known| *known == keyword).unwrap_or_else(|| {
                    keywords.push(keyword);
                    wanted_by.push(Vec::new());
                    keywords.len() - 1
                });
                if !wanted_by[at].contains(&(index as u16)) {
                    wanted_by[at].push(index as u16);
                }
            }
        }
        let leads = [true, false].map(|is_apart| {
            let wants = |lead: &u8| rules.iter().any(|rule| rule.wants_lead(*lead, is_apart));
            (b'0'..=b'9').filter(wants).fold(0, |leads, lead| leads | 1 << (lead - b'0'))
        });
        let shaped = rules.iter().enumerate().filter(|(_, rule)| rule.shape.is_some()).map(|(at, _)| at as u16);
        Ok(Self {
            shaped: shaped.collect(),
            leads,
            rules: rules.into(),
            keywords: Keywords::new(&keywords),
            wanted_by: wanted_by.into(),
            names: Names::new(&names.always, &names.entropy),
        })
    }

    /// Calls `near` with each rule and a place where it has to look.
    fn candidates(&self, text: &[u8], mut near: impl FnMut(u16, Range<usize>)) {
        let mut gram = 0;
        for (at, byte) in text.iter().enumerate() {
            gram = keywords::step(gram, *byte);
            if self.keywords.may_end(gram) {
                self.keywords.at(text, gram, at, |id, range| {
                    for rule in &self.wanted_by[id] {
                        near(*rule, range.clone());
                    }
                });
            }
            if may_begin(*byte) {
                shapes_at(text, at, |shape| {
                    for index in &*self.shaped {
                        if self.rules[usize::from(*index)].fits(shape) {
                            near(*index, at..at + 1);
                        }
                    }
                });
            }
        }
    }
}

/// What a byte can be part of, as bits.
const DIGIT: u8 = 1;
const ENCODED: u8 = 2;
const SHAPED: u8 = 4;
const MARKS: [u8; 256] = {
    let mut marks = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_digit() {
            marks[byte] |= DIGIT;
        }
        if b == b'\\' || b == b'%' {
            marks[byte] |= ENCODED;
        }
        if b == b'@' || b == b'+' || b == b':' {
            marks[byte] |= SHAPED;
        }
        byte += 1;
    }
    marks
};
/// Fewer digits in all of a text have no shape.
const DIGITS_MIN: u32 = 4;
/// So many bytes are looked at before it is asked whether that is enough.
const STRIDE: usize = 64;

impl Patterns {
    /// Whether a text has so little in it that nothing could be found: no keyword, no shape that a rule wants, nothing encoded that
    /// can be read. It says no too often rather than too rarely.
    pub(crate) fn is_plain(&self, text: &[u8]) -> bool {
        let (mut gram, mut digits, mut at, mut marks) = (0, 0_u32, 0, 0_u8);
        for chunk in text.chunks(STRIDE) {
            for byte in chunk {
                gram = keywords::step(gram, *byte);
                if self.keywords.may_end(gram) {
                    let mut found = false;
                    self.keywords.at(text, gram, at, |_, _| found = true);
                    if found {
                        return false;
                    }
                }
                let mark = MARKS[usize::from(*byte)];
                marks |= mark;
                digits += u32::from(mark & DIGIT);
                at += 1;
            }
            if marks & ENCODED != 0 {
                return false;
            }
        }
        // JSON within the text has names of its own.
        if matches!(text.iter().find(|byte| !byte.is_ascii_whitespace()), Some(b'{' | b'[')) {
            return false;
        }
        let has_shape = (marks & SHAPED != 0 || digits >= DIGITS_MIN) && self.has_shape(text);
        !has_shape && !may_decode(text)
    }

    /// Whether a rule wants a shape that is in the text.
    fn has_shape(&self, text: &[u8]) -> bool {
        text.iter().enumerate().filter(|(_, byte)| may_begin(**byte)).any(|(at, byte)| {
            let is_wanted =
                |group: Group| group.is_country || self.leads[usize::from(!group.is_apart)] >> (byte - b'0') & 1 != 0;
            if byte.is_ascii_digit() && !group_at(text, at).is_some_and(is_wanted) {
                return false;
            }
            let mut wanted = false;
            shapes_at(text, at, |shape| {
                wanted |= self.shaped.iter().any(|index| self.rules[usize::from(*index)].fits(shape));
            });
            wanted
        })
    }
}

/// Whether a run of the text stands for something that can be read, or may do so together with the next line.
fn may_decode(text: &[u8]) -> bool {
    let mut found = false;
    runs(text, |run| {
        found = found
            || memchr::memchr(b'\n', text).is_some()
            || decodings(&text[run], |decoded| readable_bytes(&decoded) >= READABLE_BYTES_MIN);
    });
    found
}

impl Rule {
    /// Whether it may want groups of digits that begin so.
    fn wants_lead(&self, lead: u8, is_apart: bool) -> bool {
        self.shape == Some(ShapeName::Digits)
            && (is_apart || !self.apart)
            && self.leads.as_ref().is_none_or(|leads| leads.contains(&lead))
    }

    fn fits(&self, shape: Shape) -> bool {
        match (self.shape, shape) {
            (Some(ShapeName::At), Shape::At)
            | (Some(ShapeName::Plus), Shape::Plus)
            | (Some(ShapeName::Colons), Shape::Colons)
            | (Some(ShapeName::Country), Shape::Country) => true,
            (Some(ShapeName::Digits), Shape::Digits { digits, dots, lead, apart }) => {
                digits >= self.digits
                    && dots >= self.dots
                    && (apart || !self.apart)
                    && self.leads.as_ref().is_none_or(|leads| leads.contains(&lead))
            }
            _ => false,
        }
    }

    /// Everything within `window` that satisfies the rule; context before it is seen, not searched.
    fn search(&self, text: &[u8], window: Range<usize>, found: &mut Vec<Match>) {
        let text = &text[..window.end];
        let mut at = window.start;
        while at <= text.len() {
            // Where nothing is found, which is nearly always, this is several times faster than to ask for groups.
            let Some(whole) = self.regex.find_at(text, at) else { return };
            let value = match self.group {
                0 => whole,
                group => match self.regex.captures_at(text, whole.start()).and_then(|captures| captures.get(group)) {
                    Some(value) => value,
                    None => return,
                },
            };
            let holds = self.check.is_none_or(|check| check.holds(value.as_bytes()));
            if holds && !value.is_empty() {
                found.push(Match { range: value.range(), rule: self.id.clone() });
                // The end of one may be the beginning of the next, so what follows the value is looked at again.
                at = value.end();
            } else {
                at = whole.start() + 1;
            }
        }
    }
}

fn compile(section: &RuleSection) -> Result<Rule, RulesError> {
    let refused = |what: String| RulesError::Rule { id: section.id.clone(), what };
    let regex = RegexBuilder::new(&section.regex)
        .unicode(false)
        .size_limit(REGEX_BYTES_MAX)
        .build()
        .map_err(|error| refused(format!("its regex is not one: {error}")))?;
    if regex.is_match(b"") {
        return Err(refused("its regex matches nothing, that is to say everywhere: demand a character".to_owned()));
    }
    let group = regex.capture_names().position(|name| name == Some("value")).unwrap_or(0);
    let check = section.check.map(|check| match check {
        CheckName::Luhn => Check::Luhn,
        CheckName::Iban => Check::Iban,
        CheckName::Ipv4 => Check::Ipv4,
        CheckName::Ipv6 => Check::Ipv6,
        CheckName::Ssn => Check::Ssn,
        CheckName::Entropy => Check::Entropy(section.entropy.unwrap_or_default()),
    });
    let (before, after) = (section.before.unwrap_or(BEFORE), section.after.unwrap_or(AFTER));
    if before + after > AROUND_BYTES_MAX {
        return Err(refused(format!("before and after are {AROUND_BYTES_MAX} bytes at the most")));
    }
    let (digits, dots) = (section.digits.unwrap_or(0), section.dots.unwrap_or(0));
    Ok(Rule {
        id: Arc::from(&*section.id),
        regex,
        group,
        check,
        before,
        after,
        shape: section.shape,
        digits,
        dots,
        leads: section.leads.as_ref().map(|leads| Box::from(leads.as_bytes())),
        apart: section.apart,
    })
}

impl Detector for Patterns {
    fn rules(&self) -> Vec<Arc<str>> {
        self.rules.iter().map(|rule| rule.id.clone()).collect()
    }

    fn find(&self, text: &[u8], name: Option<&str>, found: &mut Vec<Match>) {
        if let Some(name) = name {
            self.names.find(text, name, found);
        }
        // For each rule, what it still has to look at: windows that touch become one, so that no byte is searched twice.
        let mut open: Vec<(u16, Range<usize>)> = Vec::new();
        self.candidates(text, |index, place| {
            let rule = &self.rules[usize::from(index)];
            let window = place.start.saturating_sub(rule.before)..(place.end + rule.after).min(text.len());
            match open.iter_mut().find(|(known, _)| *known == index) {
                Some((_, pending)) if window.start <= pending.end => {
                    *pending = pending.start.min(window.start)..pending.end.max(window.end);
                }
                Some((_, pending)) => rule.search(text, std::mem::replace(pending, window), found),
                None => open.push((index, window)),
            }
        });
        for (index, window) in open {
            self.rules[usize::from(index)].search(text, window, found);
        }
    }
}

impl Patterns {
    /// Whether a value under that name may have to be masked for its name alone.
    pub(crate) fn tells(&self, name: &[u8]) -> bool {
        self.names.tell(name)
    }
}
