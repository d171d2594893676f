//! Who a request comes from, and the secrets of named users. Used by every write and by SASL.

use std::{collections::BTreeMap, fmt, sync::Arc};

use parking_lot::RwLock;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Cairn itself, in this process. Nothing that arrives over TCP is ever this.
    Internal,
    /// A user of the configuration that proved its secret.
    User(String),
    /// Somebody who proved who they are in another way. Whoever makes such users, and whatever they are called, none is one of those
    /// that may write protected topics.
    Guest(String),
    /// Anybody.
    Anonymous,
}

impl Principal {
    /// The name behind `User:`, as Kafka has it.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Internal => "",
            Self::User(name) | Self::Guest(name) => name,
            Self::Anonymous => "ANONYMOUS",
        }
    }
}

/// Bytes of salt before a secret is hashed.
pub const SALT_BYTES: usize = 16;

/// SHA-256 over a salt and a secret. Secrets are generated, at least 128 random bits, so that a plain hash cannot be
/// searched; the salt keeps two users with one secret from showing it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretHash {
    salt: [u8; SALT_BYTES],
    digest: [u8; 32],
}

impl SecretHash {
    /// The hash of a secret under a salt, which is random and used once.
    #[must_use]
    pub fn of(salt: [u8; SALT_BYTES], secret: &[u8]) -> Self {
        Self { salt, digest: digest(&salt, secret) }
    }

    /// A hash that was kept.
    #[must_use]
    pub const fn from_parts(salt: [u8; SALT_BYTES], digest: [u8; 32]) -> Self {
        Self { salt, digest }
    }

    /// Its salt, to keep.
    #[must_use]
    pub const fn salt(&self) -> &[u8; SALT_BYTES] {
        &self.salt
    }

    /// Its digest, to keep.
    #[must_use]
    pub const fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether `secret` is the one; takes as long whether it is or not.
    #[must_use]
    pub fn matches(&self, secret: &[u8]) -> bool {
        digest(&self.salt, secret).ct_eq(&self.digest).into()
    }
}

fn digest(salt: &[u8; SALT_BYTES], secret: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(salt).chain_update(secret).finalize().into()
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// A user that may log in by SASL PLAIN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The hash of its secret.
    pub secret: SecretHash,
    /// Whether it may write protected topics.
    pub writes_protected: bool,
}

/// The users there are. Cheap to clone; a change counts at once, also for what open connections may write.
#[derive(Debug, Clone, Default)]
pub struct Users(Arc<RwLock<BTreeMap<String, User>>>);

impl Users {
    /// Takes the place of all there were.
    pub fn replace(&self, users: BTreeMap<String, User>) {
        *self.0.write() = users;
    }

    /// Whether that user may write protected topics now.
    pub(crate) fn writes_protected(&self, name: &str) -> bool {
        self.0.read().get(name).is_some_and(|user| user.writes_protected)
    }

    /// Whether `secret` is that user's; takes as long where there is no such user.
    pub(crate) fn admit(&self, name: &str, secret: &[u8]) -> bool {
        const NOBODY: SecretHash = SecretHash::from_parts([0; SALT_BYTES], [0; 32]);
        let kept = self.0.read().get(name).map(|user| user.secret.clone());
        let is_known = kept.is_some();
        kept.unwrap_or(NOBODY).matches(secret) && is_known
    }
}

impl<N: Into<String>> FromIterator<(N, User)> for Users {
    fn from_iter<I: IntoIterator<Item = (N, User)>>(users: I) -> Self {
        Self(Arc::new(RwLock::new(users.into_iter().map(|(name, user)| (name.into(), user)).collect())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(secret: &str, writes_protected: bool) -> User {
        User { secret: SecretHash::of([7; SALT_BYTES], secret.as_bytes()), writes_protected }
    }

    #[test]
    fn only_the_kept_secret_of_a_known_user_is_admitted() {
        let users: Users = [("gateway", user("s3cret", true)), ("reader", user("other", false))].into_iter().collect();
        assert!(users.admit("gateway", b"s3cret") && users.admit("reader", b"other"));
        for (name, secret) in [("gateway", "other"), ("gateway", ""), ("nobody", "s3cret"), ("", "")] {
            assert!(!users.admit(name, secret.as_bytes()), "{name} {secret}");
        }
        assert!(users.writes_protected("gateway") && !users.writes_protected("reader"));
        assert_ne!(SecretHash::of([1; SALT_BYTES], b"s"), SecretHash::of([2; SALT_BYTES], b"s"), "salted");
        users.replace(BTreeMap::new());
        assert!(!users.admit("gateway", b"s3cret") && !users.writes_protected("gateway"));
    }
}
