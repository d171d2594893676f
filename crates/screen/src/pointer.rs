//! JSON pointers (RFC 6901) of values on a walk: as text for a finding, and as patterns for classes.

use std::borrow::Cow;

use crate::json::{Level, unescaped};

/// Longest pointer that a finding shows.
const SHOWN_BYTES_MAX: usize = 256;

/// The segments of where a walk is, as names and indexes.
pub(crate) fn segments<'d>(document: &'d [u8], levels: &[Level]) -> Vec<Cow<'d, str>> {
    let segment = |level: &Level| match &level.name {
        Some(name) => unescaped(&document[name.clone()]),
        None => Cow::Owned(level.index.to_string()),
    };
    levels.iter().map(segment).collect()
}

/// The pointer as text. `shown` says how a name may be shown: a name can be a secret itself.
pub(crate) fn text(segments: &[Cow<'_, str>], mut shown: impl FnMut(&str) -> String) -> String {
    let mut out = String::new();
    for segment in segments {
        let escaped = shown(segment).replace('~', "~0").replace('/', "~1");
        if out.len() + escaped.len() >= SHOWN_BYTES_MAX {
            out.push_str("/…");
            break;
        }
        out.push('/');
        out.push_str(&escaped);
    }
    out
}

/// A pointer whose segments may be `*`, for any name or index.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Pattern(Vec<Box<str>>);

impl Pattern {
    /// From text: empty, or beginning with `/`.
    pub(crate) fn read(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        let rest = text.strip_prefix('/')?;
        let segment = |segment: &str| segment.replace("~1", "/").replace("~0", "~").into_boxed_str();
        Some(Self(rest.split('/').map(segment).collect()))
    }

    pub(crate) fn of(segments: &[&str]) -> Self {
        Self(segments.iter().map(|segment| Box::from(*segment)).collect())
    }

    pub(crate) fn fits(&self, segments: &[Cow<'_, str>]) -> bool {
        self.0.len() == segments.len()
            && self.0.iter().zip(segments).all(|(pattern, segment)| &**pattern == "*" || **pattern == **segment)
    }
}
