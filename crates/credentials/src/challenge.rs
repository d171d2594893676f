//! What a server says when it does not take a token: HTTP 401, or 403 with `insufficient_scope` (RFC 6750 section 3,
//! RFC 9728 section 5). Read from the links' answers, used by logins and renewals. Its text is the server's, so it is
//! never shown.

use std::fmt;

use http::{HeaderMap, StatusCode, header::WWW_AUTHENTICATE};
use rmcp::transport::auth::WWWAuthenticateParams;
use url::Url;

/// Longest challenge that is kept, in bytes.
const CHALLENGE_BYTES_MAX: usize = 4_096;
/// Most scopes that a challenge may ask for.
const SCOPES_MAX: usize = 64;

/// A refused token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Challenge {
    /// The `WWW-Authenticate` header, for discovery.
    pub(crate) header: Option<String>,
    /// What the server says that the token lacks.
    pub(crate) scopes: Vec<String>,
    /// Whether the token is good but not good enough.
    pub(crate) wants_scopes: bool,
}

impl Challenge {
    /// What an answer says of the token; none where it says nothing of it: then a 403 is the server's last word.
    pub(crate) fn of(status: StatusCode, headers: &HeaderMap, server: &Url) -> Option<Self> {
        if !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return None;
        }
        let bearer = headers.get_all(WWW_AUTHENTICATE).iter().find_map(|value| {
            let text = value.to_str().ok().filter(|text| text.len() <= CHALLENGE_BYTES_MAX)?;
            let scheme = text.trim_start().split([' ', ',']).next()?;
            scheme.eq_ignore_ascii_case("bearer").then(|| text.to_owned())
        });
        let said = bearer.as_deref().map(|text| WWWAuthenticateParams::parse(text, server)).unwrap_or_default();
        if status == StatusCode::FORBIDDEN && !said.is_insufficient_scope() {
            return None;
        }
        let scopes = said.scope.as_deref().unwrap_or_default().split_whitespace();
        let scopes = scopes.take(SCOPES_MAX).filter(|scope| is_scope(scope)).map(str::to_owned).collect();
        Some(Self { header: bearer, scopes, wants_scopes: said.is_insufficient_scope() })
    }
}

impl fmt::Debug for Challenge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Challenge").field("wants_scopes", &self.wants_scopes).finish_non_exhaustive()
    }
}

/// A scope as RFC 6749 section 3.3 writes it.
pub(crate) fn is_scope(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    (1..=256).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn challenge(status: u16, header: &str) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        if !header.is_empty() {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_str(header).expect("a header"));
        }
        let server = Url::parse("https://mcp.example.com/mcp").expect("a URL");
        Challenge::of(StatusCode::from_u16(status).expect("a status"), &headers, &server)
    }

    #[test]
    fn a_401_always_speaks_of_the_token_and_a_403_where_it_says_so() {
        assert!(challenge(401, "").is_some());
        assert!(challenge(403, "").is_none(), "a server may forbid something whatever the token");
        assert!(challenge(403, "Bearer error=\"invalid_request\"").is_none());
        assert!(challenge(200, "Bearer scope=\"a\"").is_none());
        let more = challenge(403, "Bearer error=\"insufficient_scope\", scope=\"a b\"").expect("a challenge");
        assert!(more.wants_scopes);
        assert_eq!(more.scopes, ["a", "b"]);
    }

    #[test]
    fn a_scope_cannot_carry_another_parameter() {
        let said = challenge(401, "Bearer scope=\"ok a\\\"b\"").expect("a challenge");
        assert_eq!(said.scopes, ["ok"]);
        assert!(!format!("{said:?}").contains("ok"));
    }
}
