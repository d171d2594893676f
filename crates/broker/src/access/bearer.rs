//! OAUTHBEARER (RFC 7628; Kafka's KIP-255 and KIP-768): the client's message, and who says whose a token is. Called by SASL.
//!
//! Tokens are checked by somebody else, who knows their issuer; one that nobody signed is never good. Kafka's extensions are read and
//! passed over.

use std::fmt;

use cairn_clock::Timestamp;
use futures::future::BoxFuture;

/// What a refused token is answered with; the client then says that it has understood, and the login fails.
pub(crate) const REFUSAL: &[u8] = br#"{"status":"invalid_token"}"#;

/// Who shows a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Their name, without `User:`.
    pub name: String,
    /// When the token is good no longer.
    pub ends_at: Timestamp,
}

/// Says whose a token is. An implementation MUST refuse what its issuer did not sign for this broker, and MUST be bounded in time.
pub trait Tokens: fmt::Debug + Send + Sync {
    /// Who shows it; none where it is not good. Why is logged, and not told.
    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Option<Bearer>>;
}

/// The token in a client's message, and for whom it wants to act where it says that.
pub(crate) fn read(message: &[u8]) -> Option<(&str, Option<&str>)> {
    let text = std::str::from_utf8(message).ok()?;
    let (header, rest) = text.split_once('\u{1}')?;
    let acts_for = header.strip_prefix("n,").or_else(|| header.strip_prefix("y,"))?.strip_suffix(',')?;
    let acts_for = match acts_for {
        "" => None,
        named => Some(named.strip_prefix("a=").filter(|name| !name.is_empty())?),
    };
    // Pairs end with the separator, and all of them with one more.
    let pairs = rest.strip_suffix("\u{1}\u{1}")?;
    let mut token = None;
    for pair in pairs.split('\u{1}') {
        let (key, value) = pair.split_once('=')?;
        if key == "auth" && token.replace(value).is_some() {
            return None;
        }
    }
    let (scheme, token) = token?.split_once(' ')?;
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    (scheme.eq_ignore_ascii_case("bearer") && is_token).then_some((token, acts_for))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_holds_one_token_in_the_form_of_the_rfc_or_none() {
        let good = |message: &str| {
            read(message.as_bytes()).map(|(token, acts_for)| (token.to_owned(), acts_for.map(str::to_owned)))
        };
        assert_eq!(good("n,,\u{1}auth=Bearer a.b.c\u{1}\u{1}"), Some(("a.b.c".to_owned(), None)));
        let extended = "n,a=ada,\u{1}host=x\u{1}auth=bearer a.b.c\u{1}traceId=1\u{1}\u{1}";
        assert_eq!(good(extended), Some(("a.b.c".to_owned(), Some("ada".to_owned()))));
        for wrong in [
            "",
            "\u{1}",
            "n,,\u{1}\u{1}",
            "n,,\u{1}auth=Bearer a\u{1}",
            "n,,auth=Bearer a\u{1}\u{1}",
            "p=x,,\u{1}auth=Bearer a\u{1}\u{1}",
            "n,a=,\u{1}auth=Bearer a\u{1}\u{1}",
            "n,,\u{1}auth=Basic a\u{1}\u{1}",
            "n,,\u{1}auth=Bearer \u{1}\u{1}",
            "n,,\u{1}auth=Bearer a b\u{1}\u{1}",
            "n,,\u{1}auth=Bearer a\u{1}auth=Bearer b\u{1}\u{1}",
            "n,,\u{1}pair\u{1}\u{1}",
        ] {
            assert_eq!(good(wrong), None, "{wrong:?}");
        }
        assert_eq!(read(b"n,,\x01auth=Bearer \xff\x01\x01"), None);
    }
}
