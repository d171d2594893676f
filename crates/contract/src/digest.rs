//! Digests that stand for payloads, and the reference that holds one.
//!
//! Keyed (HMAC-SHA-256), so that equal contents of two tenants do not look equal and small contents cannot be guessed.
//! The gateway and the vault make references. A key's secret must never be printed, serialized or compared in the open.

use std::fmt;

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Stands for a payload in an event.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Reference {
    /// `hmac-sha256:<key id>:<hex>`
    pub digest: String,
    /// The payload's size in bytes.
    pub bytes: u64,
    /// What the payload is, such as `application/json`.
    pub media_type: String,
    /// Where it lies, once something keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// The payload itself, masked, where the contract permits that and an operator wants it. The digest is of the payload
    /// before anything was masked in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
}

/// Where a payload lies: an URI that its keeper understands.
pub type Location = String;

/// A key for digests: an id that events show, and a secret that nothing shows.
#[derive(Clone)]
pub struct DigestKey {
    id: String,
    state: Hmac<Sha256>,
}

/// Why a digest key was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DigestKeyError {
    /// The id would break the digest's form.
    #[error("a digest key's id is 1 to 64 letters, digits, '-', '_' or '.', not {id:?}: choose another")]
    Id {
        /// The id given.
        id: String,
    },
    /// The secret can be guessed.
    #[error("a digest key's secret has at least 32 bytes, not {bytes}: make a longer one")]
    Short {
        /// The secret's length.
        bytes: usize,
    },
}

const SECRET_BYTES_MIN: usize = 32;
const ID_BYTES_MAX: usize = 64;

impl DigestKey {
    /// A key from its id (shown in every digest) and its secret (32 bytes or more, never shown).
    ///
    /// # Errors
    /// An id that is not 1 to 64 of `[A-Za-z0-9._-]`, or a short secret.
    pub fn new(id: impl Into<String>, secret: &[u8]) -> Result<Self, DigestKeyError> {
        let id = id.into();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(plain) {
            return Err(DigestKeyError::Id { id });
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err(DigestKeyError::Short { bytes: secret.len() });
        }
        let state = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes keys of any length");
        Ok(Self { id, state })
    }

    /// The id that digests show.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// `hmac-sha256:<key id>:<hex>` over `bytes`.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> String {
        let mut mac = self.state.clone();
        mac.update(bytes);
        format!("hmac-sha256:{}:{}", self.id, hex::encode(mac.finalize().into_bytes()))
    }

    /// A reference to `bytes`, kept nowhere yet.
    #[must_use]
    pub fn reference(&self, bytes: &[u8], media_type: &str) -> Reference {
        Reference {
            digest: self.digest(bytes),
            bytes: bytes.len() as u64,
            media_type: media_type.to_owned(),
            location: None,
            inline: None,
        }
    }
}

impl fmt::Debug for DigestKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DigestKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// `sha256:<hex>` over public bytes: definitions, policies. Payloads take a [`DigestKey`].
#[must_use]
pub fn sha256_text(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_hmac_sha_256_with_its_key_id() {
        // RFC 4231, test case 6, with a 131-byte key.
        let key = DigestKey::new("k1", &[0xaa; 131]).unwrap();
        assert_eq!(
            key.digest(b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "hmac-sha256:k1:60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn equal_contents_under_two_keys_do_not_look_equal() {
        let (a, b) = (DigestKey::new("a", &[1; 32]).unwrap(), DigestKey::new("a", &[2; 32]).unwrap());
        assert_ne!(a.digest(b"x"), b.digest(b"x"));
    }

    #[test]
    fn nothing_prints_the_secret() {
        let key = DigestKey::new("a", b"0123456789abcdef0123456789abcdef").unwrap();
        assert_eq!(format!("{key:?}"), r#"DigestKey { id: "a", .. }"#);
    }

    #[test]
    fn an_id_that_breaks_the_form_and_a_short_secret_are_refused() {
        assert!(matches!(DigestKey::new("a:b", &[0; 32]), Err(DigestKeyError::Id { .. })));
        assert!(matches!(DigestKey::new("", &[0; 32]), Err(DigestKeyError::Id { .. })));
        assert_eq!(DigestKey::new("a", &[0; 31]).unwrap_err(), DigestKeyError::Short { bytes: 31 });
    }
}
