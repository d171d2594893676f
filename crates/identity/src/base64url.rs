//! Base64 as tokens have it: the URL alphabet, no padding, no bits left over.
//!
//! One spelling for one value, so that two readers of a token cannot see different bytes.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// SHA-256 of `bytes` in that alphabet, as `x5t#S256`, `jkt` and `ath` have it.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    encode(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}
