//! Parameters of requests: those behind the `?`, versions, and which part of a list is wanted.

use axum::extract::{FromRequestParts, Query, rejection::QueryRejection};
use axum::http::request::Parts;

use crate::{Refusal, format::Form};

/// With it a client says that it lives with members that one side does not know; Confluent's Java client sends it always.
const TAKES_UNKNOWN: &str = "confluent-accept-unknown-properties";

/// Parameters, in the order in which they came; a name may stand more than once.
#[derive(Clone, Default, Debug)]
pub(super) struct Asked {
    pub(super) pairs: Vec<(String, String)>,
    /// Whether members of the body that are not known are passed over, because the client says so.
    pub(super) takes_unknown: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let read: Result<Query<Vec<(String, String)>>, QueryRejection> = Query::from_request_parts(parts, state).await;
        let said = parts.headers.get(TAKES_UNKNOWN);
        let takes_unknown = said.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
        read.map(|Query(pairs)| Self { pairs, takes_unknown }).map_err(Refusal::malformed)
    }
}

impl Asked {
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn all(&self, name: &str) -> Vec<&str> {
        self.pairs.iter().filter(|(given, _)| given == name).map(|(_, value)| value.as_str()).collect()
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    pub(super) fn form(&self) -> Form {
        self.text("format").map_or(Form::Kept, Form::named)
    }

    /// From `offset` on, at most `limit`; a negative limit is none.
    pub(super) fn page<T>(&self, items: impl Iterator<Item = T>) -> Result<Vec<T>, Refusal> {
        let number = |name: &str, default: i64| {
            let value = self.text(name).filter(|value| !value.is_empty());
            value.map_or(Ok(default), |value| {
                value.parse().map_err(|_| Refusal::malformed(format_args!("{name} is no whole number: {value:?}")))
            })
        };
        let (offset, limit) = (number("offset", 0)?.max(0), number("limit", -1)?);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(items.skip(usize::try_from(offset).unwrap_or(usize::MAX)).take(limit).collect())
    }
}

/// A version in a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Which {
    Latest,
    Number(u32),
}

impl Which {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        if text == "latest" || text == "-1" {
            return Ok(Self::Latest);
        }
        let number =
            text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok()).filter(|number| *number > 0);
        number.map(Self::Number).ok_or_else(|| Refusal::invalid_version(text.chars().take(32).collect::<String>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_above_zero_or_the_latest() {
        assert_eq!(Which::parse("latest"), Ok(Which::Latest));
        assert_eq!(Which::parse("-1"), Ok(Which::Latest));
        assert_eq!(Which::parse("7"), Ok(Which::Number(7)));
        for text in ["0", "-2", "x", "", "2147483648", "1.0"] {
            assert_eq!(Which::parse(text).map_err(|refusal| refusal.code), Err(42202), "{text}");
        }
    }

    #[test]
    fn a_page_is_from_an_offset_on_and_a_negative_limit_is_none() {
        let page = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            let asked = Asked { pairs, takes_unknown: false };
            asked.page(1..=5)
        };
        assert_eq!(page(&[]).expect("all"), [1, 2, 3, 4, 5]);
        assert_eq!(page(&[("offset", "1"), ("limit", "2")]).expect("some"), [2, 3]);
        assert!(page(&[("limit", "-1"), ("offset", "9")]).expect("none").is_empty());
        assert!(page(&[("limit", "x")]).is_err());
    }
}
