//! Names that say that a secret follows: `password`, `api_key`, `refreshToken`.
//!
//! Names are compared without regard to case and to what stands between their words. Called by `patterns`.

use std::{collections::HashSet, sync::Arc};

use crate::{checks::entropy, detector::Match};

/// Shortest value that can be chance.
const CHANCE_BYTES_MIN: usize = 12;
/// Bits for each character that a value of chance has at least.
const CHANCE_BITS_MIN: f64 = 3.2;
/// Longest name that is looked at.
const NAME_BYTES_MAX: usize = 64;

/// The telling names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    always: HashSet<Box<[u8]>>,
    entropy: Vec<Box<[u8]>>,
    ends: Ends,
}

/// The last two characters of every telling name, five bits each: nearly no other name ends like one of them.
#[derive(Clone, Copy, Debug, Default)]
struct Ends([u64; 16]);

impl Ends {
    /// Names of one character are not told apart from others.
    fn of<'n>(names: impl Iterator<Item = &'n Box<[u8]>>) -> Self {
        let mut ends = Self::default();
        for name in names {
            match Self::end(name) {
                Some((word, bit)) => ends.0[word] |= bit,
                None => return Self([u64::MAX; 16]),
            }
        }
        ends
    }

    fn end(name: &[u8]) -> Option<(usize, u64)> {
        let mut last = name.iter().rev().filter(|byte| byte.is_ascii_alphanumeric()).map(|byte| usize::from(byte & 31));
        let end = last.next()? | last.next()? << 5;
        Some((end / 64, 1 << (end % 64)))
    }

    fn may_be(&self, name: &[u8]) -> bool {
        Self::end(name).is_none_or(|(word, bit)| self.0[word] & bit != 0)
    }
}

/// A name without case and joints, in place.
struct Plain([u8; NAME_BYTES_MAX], usize);

impl Plain {
    fn of(name: &[u8]) -> Option<Self> {
        // A name that was masked tells nothing any more: what stood under it was judged by the name that it had.
        if name.len() > NAME_BYTES_MAX
            || memchr::memchr(b'[', name).is_some_and(|at| name[at..].starts_with(b"[masked:"))
        {
            return None;
        }
        let (mut plain, mut len) = ([0; NAME_BYTES_MAX], 0);
        for byte in name.iter().filter(|byte| byte.is_ascii_alphanumeric()) {
            plain[len] = byte.to_ascii_lowercase();
            len += 1;
        }
        (len > 0).then_some(Self(plain, len))
    }

    fn as_bytes(&self) -> &[u8] {
        &self.0[..self.1]
    }
}

impl Names {
    pub(crate) fn new(always: &[String], entropy: &[String]) -> Self {
        let plain = |name: &String| Plain::of(name.as_bytes()).map(|plain| Box::from(plain.as_bytes()));
        let always: HashSet<_> = always.iter().filter_map(plain).collect();
        let entropy: Vec<_> = entropy.iter().filter_map(plain).collect();
        let ends = Ends::of(always.iter().chain(&entropy));
        Self { always, entropy, ends }
    }

    /// Whether a value under that name may have to be masked for its name alone.
    pub(crate) fn tell(&self, name: &[u8]) -> bool {
        self.ends.may_be(name)
            && Plain::of(name).is_some_and(|name| self.is_always(name.as_bytes()) || self.is_entropy(name.as_bytes()))
    }

    fn is_always(&self, plain: &[u8]) -> bool {
        self.always.contains(plain)
    }

    fn is_entropy(&self, plain: &[u8]) -> bool {
        self.entropy.iter().any(|end| plain.ends_with(end))
    }

    /// The whole value, where its name says that it is a secret.
    pub(crate) fn find(&self, text: &[u8], name: &str, found: &mut Vec<Match>) {
        let Some(name) = Plain::of(name.as_bytes()) else { return };
        let rule = if self.is_always(name.as_bytes()) {
            "named-secret"
        } else if self.is_entropy(name.as_bytes()) && looks_like_chance(text) {
            "named-chance"
        } else {
            return;
        };
        if !text.is_empty() {
            found.push(Match { range: 0..text.len(), rule: Arc::from(rule) });
        }
    }
}

fn looks_like_chance(text: &[u8]) -> bool {
    text.len() >= CHANCE_BYTES_MIN
        && !text.iter().any(u8::is_ascii_whitespace)
        && text.iter().any(u8::is_ascii_digit)
        && text.iter().any(u8::is_ascii_alphabetic)
        && entropy(text) >= CHANCE_BITS_MIN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_whatever_their_case_and_joints() {
        let names = Names::new(&["api_key".to_owned()], &["token".to_owned()]);
        for name in ["api_key", "apiKey", "API-KEY", "apikey"] {
            assert!(names.tell(name.as_bytes()), "{name}");
        }
        let short = Names::new(&["k".to_owned()], &[]);
        assert!(short.tell(b"K") && short.tell(b"_k_") && !short.tell(b"ok"));
        assert!(names.tell(b"refreshToken") && !names.tell(b"tokens_used") && !names.tell(b"keyboard"));
        let mut found = Vec::new();
        names.find(b"four words and nothing", "refreshToken", &mut found);
        assert!(found.is_empty());
        names.find(b"k3J9x_Qz81LmNp2R", "refreshToken", &mut found);
        assert_eq!(found.len(), 1);
    }
}
