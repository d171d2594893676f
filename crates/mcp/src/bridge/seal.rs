//! Request state of Cairn's own: a handle that only the one who got it can use, for the request that it was given for,
//! and for a while. Called by the gateway where a legacy server's call waits for a modern client's retry.
//!
//! | bytes | what |
//! | --- | --- |
//! | 0 | layout version, 1 |
//! | 1–16 | handle: random |
//! | 17–24 | expiry: milliseconds of the Unix epoch, big endian |
//! | 25–56 | HMAC-SHA-256 over all before and, each with its length, what it is bound to |
//!
//! The text is base64url without padding. What it is bound to is not in it. A seal's key lives as long as the process,
//! as what waits behind a handle does. Must never say why a state was refused more exactly than [`StateFault`].

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde_json::Value;
use sha2::Sha256;

use super::canonical;
use crate::Message;

const VERSION: u8 = 1;
const BODY_BYTES: usize = 25;
const TAG_BYTES: usize = 32;

/// What a state is bound to: who asked for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound(Vec<String>);

impl Bound {
    /// A caller's request at a server; its `inputResponses`, state and `_meta` are left out, as they differ in a
    /// retry.
    #[must_use]
    pub fn new(caller: &str, server: &str, request: &Message) -> Self {
        let raw = request.params_raw().unwrap_or_default();
        let mut params: serde_json::Map<String, Value> = serde_json::from_slice(&raw).unwrap_or_default();
        for key in ["_meta", "inputResponses", "requestState"] {
            params.shift_remove(key);
        }
        Self(vec![
            caller.to_owned(),
            server.to_owned(),
            request.method().unwrap_or_default().to_owned(),
            canonical(&Value::Object(params)),
        ])
    }
}

/// Why a state was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateFault {
    /// It is not one of this process's, or belongs to another principal, server or request.
    #[error("this requestState was not given for this request")]
    Foreign,
    /// Its time is over.
    #[error("this requestState has expired; send the request again without it")]
    Expired,
}

/// Makes and checks states.
pub struct Seal(Hmac<Sha256>);

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seal")
    }
}

impl Seal {
    /// A seal with a random key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self(Hmac::new_from_slice(key).expect("HMAC takes keys of any length"))
    }

    /// The state for a handle.
    #[must_use]
    pub fn close(&self, handle: [u8; 16], expires_ms: u64, bound: &Bound) -> String {
        let mut bytes = Vec::with_capacity(BODY_BYTES + TAG_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&handle);
        bytes.extend_from_slice(&expires_ms.to_be_bytes());
        let tag = self.mac(&bytes, bound).finalize().into_bytes();
        bytes.extend_from_slice(&tag);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The handle of a state that was given for this, and whose time is not over.
    ///
    /// # Errors
    /// [`StateFault`]; the tag is compared in constant time, and before anything else is believed.
    pub fn open(&self, state: &str, now_ms: u64, bound: &Bound) -> Result<[u8; 16], StateFault> {
        let bytes = URL_SAFE_NO_PAD.decode(state).map_err(|_| StateFault::Foreign)?;
        if bytes.len() != BODY_BYTES + TAG_BYTES || bytes[0] != VERSION {
            return Err(StateFault::Foreign);
        }
        let (body, tag) = bytes.split_at(BODY_BYTES);
        self.mac(body, bound).verify_slice(tag).map_err(|_| StateFault::Foreign)?;
        let expires_ms = u64::from_be_bytes(body[17..25].try_into().expect("eight bytes"));
        if now_ms >= expires_ms {
            return Err(StateFault::Expired);
        }
        Ok(body[1..17].try_into().expect("sixteen bytes"))
    }

    fn mac(&self, body: &[u8], bound: &Bound) -> Hmac<Sha256> {
        let mut mac = self.0.clone();
        mac.update(b"cairn request state\0");
        mac.update(body);
        for part in &bound.0 {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac
    }
}
