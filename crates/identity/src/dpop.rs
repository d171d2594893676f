//! Proofs of possession (RFC 9449): a token that is bound to a key is good only with a fresh signature of that key over
//! this request, and each signature is good once.
//!
//! What was used is remembered by this process: a proof from before its start is refused, so a restart forgets nothing
//! that could be used again. Where several gateways share a name, each remembers for itself. Bounded: where no more can be
//! remembered, further proofs are refused.

use std::{
    collections::{HashSet, VecDeque},
    time::Duration,
};

use cairn_clock::Timestamp;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use serde_json::Value;
use subtle::ConstantTimeEq;

use crate::{
    base64url,
    jwk::Key,
    jws::{Algorithm, Jws},
    rejection::Reason,
};

/// Longest `jti`, in bytes.
const JTI_BYTES_MAX: usize = 256;

/// The request that a proof is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) method: &'a str,
    pub(crate) uri: &'a str,
    pub(crate) token: &'a str,
    /// The thumbprint of the key that the token is bound to.
    pub(crate) key: &'a str,
}

/// The proofs that were used.
#[derive(Debug)]
pub(crate) struct Proofs {
    began: Timestamp,
    age_max: Duration,
    leeway: Duration,
    places: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    known: HashSet<[u8; 32]>,
    oldest_first: VecDeque<(Timestamp, [u8; 32])>,
}

impl Proofs {
    pub(crate) fn new(began: Timestamp, age_max: Duration, leeway: Duration, places: usize) -> Self {
        Self { began, age_max, leeway, places, used: Mutex::default() }
    }

    /// Spends a proof.
    pub(crate) fn spend(&self, proof: &str, asked: &Asked<'_>, now: Timestamp) -> Result<(), Reason> {
        let jws = Jws::read(proof).map_err(|_| Reason::ProofInvalid)?;
        let jti = self.check(&jws, asked, now).ok_or(Reason::ProofInvalid)?;
        let mut used = self.used.lock();
        // Past this nothing of that proof's age is accepted, so it need not be remembered.
        let keep = self.age_max + self.leeway * 2;
        while used.oldest_first.front().is_some_and(|(at, _)| now.since(*at) > keep) {
            if let Some((_, oldest)) = used.oldest_first.pop_front() {
                used.known.remove(&oldest);
            }
        }
        if used.known.contains(&jti) {
            return Err(Reason::ProofReplayed);
        }
        if used.known.len() >= self.places {
            return Err(Reason::Busy);
        }
        used.known.insert(jti);
        used.oldest_first.push_back((now, jti));
        Ok(())
    }

    /// What names the proof, where it holds for this request (RFC 9449, section 4.3).
    fn check(&self, jws: &Jws<'_>, asked: &Asked<'_>, now: Timestamp) -> Option<[u8; 32]> {
        if jws.kind.as_deref() != Some("dpop+jwt") {
            return None;
        }
        let key = Key::read(jws.jwk.as_ref()?)?;
        if !bool::from(key.thumbprint().as_bytes().ct_eq(asked.key.as_bytes())) {
            return None;
        }
        if !key.verifies(jws.algorithm, jws.signed, &jws.signature) {
            return None;
        }
        let claims = jws.claims().ok()?;
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let jti = text("jti").filter(|jti| !jti.is_empty() && jti.len() <= JTI_BYTES_MAX)?;
        let issued = claims.get("iat").and_then(Value::as_f64).filter(|iat| iat.is_finite())?;
        let (now, began) = (now.as_micros() as f64 / 1e6, self.began.as_micros() as f64 / 1e6);
        let leeway = self.leeway.as_secs_f64();
        let is_fresh = issued <= now + leeway && issued + self.age_max.as_secs_f64() + leeway >= now;
        let holds = text("htm") == Some(asked.method)
            && text("htu").is_some_and(|uri| is_same(uri, asked.uri))
            && text("ath") == Some(&base64url::sha256(asked.token.as_bytes()))
            && is_fresh
            && issued >= began.floor();
        let named = digest(&SHA256, &[asked.key.as_bytes(), b"\n", jti.as_bytes()].concat());
        holds.then(|| named.as_ref().try_into().ok()).flatten()
    }
}

/// Whether two addresses are the same, but for query and fragment, the case of scheme and host, and a port that goes without saying.
fn is_same(given: &str, own: &str) -> bool {
    let read = |text: &str| -> Option<(String, String, u16, String)> {
        let uri: http::Uri = text.split('#').next()?.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        if uri.authority()?.as_str().contains('@') {
            return None;
        }
        Some((scheme, uri.host()?.to_ascii_lowercase(), port, uri.path().to_owned()))
    };
    read(given).is_some_and(|given| Some(given) == read(own))
}

/// The algorithms in which a proof may be signed, for metadata and challenges.
pub(crate) fn algorithms() -> Vec<&'static str> {
    Algorithm::ALL.iter().map(|algorithm| algorithm.name()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_whatever_goes_without_saying() {
        let own = "https://cairn.example/mcp/a";
        for same in [own, "HTTPS://Cairn.example:443/mcp/a", "https://cairn.example/mcp/a?x=1#y"] {
            assert!(is_same(same, own), "{same}");
        }
        for other in [
            "http://cairn.example/mcp/a",
            "https://cairn.example/mcp/b",
            "https://cairn.example/mcp/a/",
            "https://cairn.example:8443/mcp/a",
            "https://x@cairn.example/mcp/a",
            "/mcp/a",
            "",
        ] {
            assert!(!is_same(other, own), "{other}");
        }
    }
}
