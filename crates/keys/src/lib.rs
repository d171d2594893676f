//! Key-encryption keys from outside, keys that they wrap, and files that are encrypted under those.
//!
//! A [`KeyEncryption`] is a key from a file ([`FileKey`]), from the environment ([`GivenKey`]) or in a key management service
//! ([`KmsKey`]). The vault wraps its master key with one; whoever writes files that must not lie in the clear takes a
//! [`FileSeal`] for each from [`AtRest`]. [`filled`] is how configurations name secrets instead of holding them. This crate must never show a key, and never know what is encrypted.

mod at_rest;
mod fill;
mod kek;
mod kms;
mod seal;

pub use at_rest::{AtRest, AtRestError, ENVELOPE_BYTES_MAX, FileSeal, TRAILER_BYTES};
pub use fill::{FillError, filled};
pub use kek::{FileKey, GivenKey, KeyEncryption, KeyEncryptionError, Purpose};
pub use kms::{KmsKey, KmsOptions};
pub use seal::{SEAL_BYTES, Secret};
