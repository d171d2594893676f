//! The token that a caller came in with, to be exchanged for one of the server. Made by the gateway's HTTP door from a
//! request whose token it has verified; held by the calls and the session that the token came with, and by nobody else:
//! a credential knows it only as long as one of these lives. Must never be shown, kept on disk, or sent to a server.

use std::fmt;

use ring::digest::{SHA256, digest};

/// A verified token of a caller.
pub struct CallerToken {
    token: String,
    /// What it was granted, in one order: tokens of different reach are not exchanged for each other's.
    scopes: Vec<String>,
    fingerprint: [u8; 32],
}

impl CallerToken {
    /// A token that was verified, and the scopes that it was granted.
    #[must_use]
    pub fn new(token: &str, scopes: &[String]) -> Self {
        let mut scopes = scopes.to_vec();
        scopes.sort_unstable();
        scopes.dedup();
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        Self { token: token.to_owned(), scopes, fingerprint }
    }

    /// The token itself, for a token endpoint.
    pub(crate) fn reveal(&self) -> &str {
        &self.token
    }

    /// What it was granted.
    pub(crate) fn scopes(&self) -> &[String] {
        &self.scopes
    }

    /// Tells it from other tokens, once it is gone too.
    pub(crate) const fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

impl fmt::Debug for CallerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallerToken(..)")
    }
}
