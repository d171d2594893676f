//! A token as it is used: a header value, and for how long. Made by sources, held by a credential. Must never show itself.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use http::HeaderValue;
use tokio::time::Instant;

use crate::CredentialError;

/// A token is renewed while it is still good when less than this is left of it.
const SOON: Duration = Duration::from_secs(60);
/// A token with less than this left is not used: it would run out on its way.
const SHORT: Duration = Duration::from_secs(5);
/// Longest life that is believed.
const LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3_600);

/// A token of one upstream.
#[derive(Debug)]
pub(crate) struct Token {
    /// `Bearer …`, marked as sensitive.
    header: HeaderValue,
    /// What it is good for; empty where nobody said.
    pub(crate) scopes: Vec<String>,
    expires: Option<Instant>,
    life: Option<Duration>,
    /// Whether the server has taken it once.
    accepted: AtomicBool,
}

/// How good a token still is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Worth {
    /// As good as new.
    Good,
    /// Good, and to be renewed meanwhile.
    Soon,
    /// Not to be used any more.
    Spent,
}

impl Token {
    /// A token that lives so long from now on; for ever where nobody says.
    pub(crate) fn new(secret: &str, life: Option<Duration>, scopes: Vec<String>) -> Result<Self, CredentialError> {
        let unfit = || CredentialError::unavailable("what came as a token cannot stand in a header");
        let fits = !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic());
        let mut header = HeaderValue::from_str(&format!("Bearer {secret}")).map_err(|_| unfit())?;
        if !fits {
            return Err(unfit());
        }
        header.set_sensitive(true);
        let life = life.map(|life| life.min(LIFE_MAX));
        let expires = life.map(|life| Instant::now() + life);
        Ok(Self { header, scopes, expires, life, accepted: AtomicBool::new(false) })
    }

    /// What goes into `Authorization`.
    pub(crate) const fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Whether this is the token that was sent.
    pub(crate) fn is(&self, sent: &HeaderValue) -> bool {
        self.header == sent
    }

    /// The server took it.
    pub(crate) fn accept(&self) {
        self.accepted.store(true, Ordering::Relaxed);
    }

    /// Whether the server took it once, so that a refusal means that something has changed.
    pub(crate) fn is_accepted(&self) -> bool {
        self.accepted.load(Ordering::Relaxed)
    }

    /// The same, nearer to its end.
    #[cfg(test)]
    pub(crate) fn ending_in(self, left: Duration) -> Self {
        Self { expires: Some(Instant::now() + left), ..self }
    }

    /// Whether it ends by then.
    #[cfg(test)]
    pub(crate) fn lives_at_most(&self, life: Duration) -> bool {
        self.expires.is_some_and(|expires| expires <= Instant::now() + life)
    }

    /// How good it is now. A short life leaves a margin of its own, so that it is not renewed on every call.
    pub(crate) fn worth(&self) -> Worth {
        let (Some(expires), Some(life)) = (self.expires, self.life) else { return Worth::Good };
        let left = expires.saturating_duration_since(Instant::now());
        match left {
            _ if left.is_zero() || left < SHORT.min(life / 10) => Worth::Spent,
            _ if left < SOON.min(life / 4) => Worth::Soon,
            _ => Worth::Good,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_ends_and_not_used_at_its_end() {
        let left = |seconds| {
            let token = Token::new("abc", Some(Duration::from_secs(3_600)), vec![]).expect("a token");
            token.ending_in(Duration::from_secs(seconds)).worth()
        };
        assert_eq!((left(3_600), left(70)), (Worth::Good, Worth::Good));
        assert_eq!((left(59), left(30)), (Worth::Soon, Worth::Soon));
        assert_eq!((left(4), left(0)), (Worth::Spent, Worth::Spent));
        let short = Token::new("abc", Some(Duration::from_secs(2)), vec![]).expect("a token");
        assert_eq!(short.worth(), Worth::Good, "a token that lives for two seconds can be used for most of them");
        assert_eq!(Token::new("abc", Some(Duration::ZERO), vec![]).expect("a token").worth(), Worth::Spent);
    }

    #[test]
    fn a_token_cannot_bring_another_header_and_does_not_show_itself() {
        for wrong in ["", "a b", "a\r\nx: y", "a\u{e9}"] {
            assert!(Token::new(wrong, None, vec![]).is_err(), "{wrong:?}");
        }
        assert!(!format!("{:?}", Token::new("s3cret", None, vec![]).expect("a token")).contains("s3cret"));
    }
}
