//! Request ids, progress tokens and subscription ids: kept as written, compared by meaning. Called by everything that
//! must find an answer's call. Must never rewrite what a peer wrote.

use std::fmt;

use bytes::Bytes;

use crate::scan_text::string_of;

/// A string, an integer or null, in the bytes in which it came.
///
/// Two ids are equal if they mean the same: `"a"` and `"\u0061"`, `1` and `1.0`; never `1` and `"1"`.
#[derive(Clone)]
pub struct RawId {
    raw: Bytes,
    meaning: Meaning,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Meaning {
    Null,
    Text(Box<str>),
    /// The canonical decimal form.
    Integer(Box<str>),
}

impl RawId {
    /// An id from one raw JSON value; none where it is neither string nor integer nor null.
    #[must_use]
    pub fn parse(raw: Bytes) -> Option<Self> {
        let meaning = match raw.first()? {
            b'n' if &raw[..] == b"null" => Meaning::Null,
            b'"' => Meaning::Text(string_of(&raw)?.into()),
            b'-' | b'0'..=b'9' => Meaning::Integer(integer(std::str::from_utf8(&raw).ok()?)?.into()),
            _ => return None,
        };
        Some(Self { raw, meaning })
    }

    /// An integer id.
    #[must_use]
    pub fn integer(value: u64) -> Self {
        let text = value.to_string();
        Self { raw: Bytes::from(text.clone()), meaning: Meaning::Integer(text.into()) }
    }

    /// A string id.
    #[must_use]
    pub fn text(value: &str) -> Self {
        let raw = serde_json::to_vec(value).expect("a string always has a JSON form");
        Self { raw: raw.into(), meaning: Meaning::Text(value.into()) }
    }

    /// The id `null`, which only an error response may have.
    #[must_use]
    pub const fn null() -> Self {
        Self { raw: Bytes::from_static(b"null"), meaning: Meaning::Null }
    }

    /// The bytes as they came, quotes included.
    #[must_use]
    pub const fn raw(&self) -> &Bytes {
        &self.raw
    }

    /// The bytes as they came, as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.raw).expect("an id is cut from checked text")
    }

    /// Whether this is `null`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.meaning == Meaning::Null
    }
}

/// The canonical form of an integer as JSON writes it; a fraction of zero (`1.0`, `1e3`) still names an integer, as
/// some runtimes have one number type only.
fn integer(text: &str) -> Option<String> {
    const EXACT_MAX: f64 = 9_007_199_254_740_991.0;
    if text.contains(['.', 'e', 'E']) {
        let value: f64 = text.parse().ok()?;
        return (value.fract() == 0.0 && value.abs() <= EXACT_MAX).then(|| format!("{}", value as i64));
    }
    Some(if text == "-0" { "0".to_owned() } else { text.to_owned() })
}

impl PartialEq for RawId {
    fn eq(&self, other: &Self) -> bool {
        self.meaning == other.meaning
    }
}

impl Eq for RawId {}

impl std::hash::Hash for RawId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.meaning.hash(state);
    }
}

/// As written.
impl fmt::Display for RawId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RawId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawId({})", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(raw: &'static str) -> Option<RawId> {
        RawId::parse(Bytes::from_static(raw.as_bytes()))
    }

    #[test]
    fn ids_are_compared_by_meaning_and_kept_as_written() {
        assert_eq!(id(r#""a""#), id(r#""\u0061""#));
        assert_eq!(id("1"), id("1.0"));
        assert_eq!(id("1000"), id("1e3"));
        assert_ne!(id("1"), id(r#""1""#));
        assert_ne!(id("12345678901234567890"), id("12345678901234567891"));
        assert_eq!(id("1e3").expect("an integer").to_string(), "1e3");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for raw in ["1.5", "true", "{}", "[]", "1e400", "nul"] {
            assert!(id(raw).is_none(), "{raw}");
        }
    }

    #[test]
    fn made_ids_equal_parsed_ones() {
        assert_eq!(RawId::integer(7), id("7").expect("an integer"));
        assert_eq!(RawId::text("a\"b"), id(r#""a\"b""#).expect("a string"));
        assert_eq!(RawId::null(), id("null").expect("null"));
    }
}
