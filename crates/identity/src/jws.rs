//! A signed token in its compact form (RFC 7515): three parts, a header that is understood whole, one of the algorithms below.
//!
//! Reads and never trusts: what a header says chooses among the issuer's keys and nothing else. `jku`, `x5u`, `x5c` and,
//! outside DPoP proofs, `jwk` are passed over; `crit` and `none` are refused, and so is every symmetric algorithm.

use serde_json::{Map, Value};

use crate::{base64url, object::object, rejection::Reason};

/// Longest token, in bytes.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 * 1_024;
/// Longest `kid`, in bytes.
const KID_BYTES_MAX: usize = 512;

/// A signature algorithm, by its name in RFC 7518 and RFC 8037. All of them are asymmetric.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs, reason = "each is its own name")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];

    /// Its name in a token's header.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }

    /// The algorithm of that name. RFC 9864's `Ed25519` is the EdDSA that is spoken here.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let name = if name == "Ed25519" { "EdDSA" } else { name };
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// A token whose signature is still to be checked.
#[derive(Debug)]
pub(crate) struct Jws<'a> {
    pub(crate) algorithm: Algorithm,
    pub(crate) kid: Option<String>,
    /// In lower case, without `application/`.
    pub(crate) kind: Option<String>,
    /// The key that the header brings: only DPoP proofs may be checked by it.
    pub(crate) jwk: Option<Map<String, Value>>,
    pub(crate) signed: &'a [u8],
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    /// Reads the parts.
    pub(crate) fn read(token: &'a str) -> Result<Self, Reason> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Reason::TokenTooLong);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Reason::TokenMalformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Reason::TokenMalformed)?;
        let decoded = |part: &str| base64url::decode(part).ok_or(Reason::TokenMalformed);
        let mut header = object(&decoded(header)?).ok_or(Reason::TokenMalformed)?;
        let algorithm = header.get("alg").and_then(Value::as_str).ok_or(Reason::TokenMalformed)?;
        let algorithm = Algorithm::named(algorithm).ok_or(Reason::AlgorithmRefused)?;
        if header.contains_key("crit") {
            return Err(Reason::CriticalHeader);
        }
        let text = |key: &str| match header.get(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= KID_BYTES_MAX => Ok(Some(text.clone())),
            Some(_) => Err(Reason::TokenMalformed),
        };
        let (kid, kind) = (text("kid")?, text("typ")?);
        let kind = kind.map(|kind| kind.to_ascii_lowercase());
        let kind = kind.map(|kind| kind.strip_prefix("application/").map_or(kind.clone(), ToOwned::to_owned));
        let jwk = match header.remove("jwk") {
            Some(Value::Object(jwk)) => Some(jwk),
            _ => None,
        };
        let (payload, signature) = (decoded(payload)?, decoded(signature)?);
        Ok(Self { algorithm, kid, kind, jwk, signed: signed.as_bytes(), payload, signature })
    }

    /// The claims; to be read only once the signature is checked, but for the issuer's name, which says whose key to use.
    pub(crate) fn claims(&self) -> Result<Map<String, Value>, Reason> {
        object(&self.payload).ok_or(Reason::TokenMalformed)
    }
}
