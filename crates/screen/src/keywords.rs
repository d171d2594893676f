//! Finds keywords in text, no matter the case, in one cheap step for each byte.
//!
//! Three letters of each keyword, folded to five bits each, are one bit of a set that stays in the nearest cache; only
//! where the last three letters are in the set are keywords compared. Called by `patterns`.

use std::ops::Range;

const GRAMS: usize = 1 << 15;

/// A set of keywords.
#[derive(Clone)]
pub(crate) struct Keywords {
    set: Box<[u64; GRAMS / 64]>,
    /// Keywords by their gram, ordered by it.
    by_gram: Vec<(u16, Keyword)>,
}

#[derive(Clone)]
struct Keyword {
    text: Box<[u8]>,
    /// Where in it its gram ends.
    gram_end: usize,
    id: usize,
}

/// Letters that are rare in text, so that a gram that holds them is rarely met.
const RARE: &[u8] = b"jqxzkvwy0123456789_-=:/.";

#[inline(always)]
pub(crate) const fn step(gram: u16, byte: u8) -> u16 {
    (gram << 5 | (byte & 31) as u16) & (GRAMS as u16 - 1)
}

impl Keywords {
    /// A set of keywords of three letters or more, in lower case; each is known by its place.
    pub(crate) fn new(keywords: &[String]) -> Self {
        let mut set = Box::new([0_u64; GRAMS / 64]);
        let mut by_gram = Vec::new();
        for (id, keyword) in keywords.iter().enumerate() {
            let bytes = keyword.as_bytes();
            let rare = |end: &usize| bytes[end - 3..*end].iter().filter(|byte| RARE.contains(byte)).count();
            // The first of the rarest.
            let gram_end = (3..=bytes.len()).rev().max_by_key(rare).unwrap_or(bytes.len());
            let gram = bytes[gram_end.saturating_sub(3)..gram_end].iter().fold(0, |gram, byte| step(gram, *byte));
            set[usize::from(gram) / 64] |= 1 << (gram % 64);
            by_gram.push((gram, Keyword { text: Box::from(bytes), gram_end, id }));
        }
        by_gram.sort_by_key(|(gram, _)| *gram);
        Self { set, by_gram }
    }

    #[inline(always)]
    pub(crate) fn may_end(&self, gram: u16) -> bool {
        self.set[usize::from(gram) / 64] >> (gram % 64) & 1 != 0
    }

    /// Calls `seen` with each keyword whose gram ends with the byte at `at`.
    pub(crate) fn at(&self, text: &[u8], gram: u16, at: usize, mut seen: impl FnMut(usize, Range<usize>)) {
        let first = self.by_gram.partition_point(|(known, _)| *known < gram);
        for (_, keyword) in self.by_gram[first..].iter().take_while(|(known, _)| *known == gram) {
            let Some(start) = (at + 1).checked_sub(keyword.gram_end) else { continue };
            let range = start..start + keyword.text.len();
            if text.get(range.clone()).is_some_and(|found| found.eq_ignore_ascii_case(&keyword.text)) {
                seen(keyword.id, range);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_keyword_is_found_wherever_it_stands() {
        let words = ["password", "akia", "://", "-----begin", "sk-", "key"].map(str::to_owned);
        let keywords = Keywords::new(&words);
        let text = b"A PassWord, AKIA://sk-key -----BEGIN";
        let (mut gram, mut found) = (0, Vec::new());
        for (at, byte) in text.iter().enumerate() {
            gram = step(gram, *byte);
            if keywords.may_end(gram) {
                keywords.at(text, gram, at, |id, range| found.push((id, range.start)));
            }
        }
        found.sort_unstable();
        assert_eq!(found, [(0, 2), (1, 12), (2, 16), (3, 26), (4, 19), (5, 22)]);
    }
}
