//! Whether whoever brings a bound token is the one that it was bound to.
//!
//! A token alone then lets nobody in: whoever saw it still lacks the certificate (RFC 8705) or the key (RFC 9449).

use http::HeaderMap;
use subtle::ConstantTimeEq;

use crate::{
    certificate::PeerCertificate,
    dpop::{Asked, Proofs},
    rejection::Reason,
    token::Verified,
};

use cairn_clock::Timestamp;

/// How a token came.
#[derive(Debug)]
pub(crate) struct Brought<'a> {
    pub(crate) token: &'a str,
    /// As `DPoP`, not as `Bearer`.
    pub(crate) as_dpop: bool,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) certificate: Option<&'a PeerCertificate>,
    pub(crate) method: &'a str,
    pub(crate) uri: &'a str,
}

/// Holds a token's bindings to what came with it; a proof is spent thereby.
pub(crate) fn hold(verified: &Verified, brought: &Brought<'_>, proofs: &Proofs, now: Timestamp) -> Result<(), Reason> {
    if let Some(wanted) = &verified.certificate {
        let has = brought.certificate.map(PeerCertificate::thumbprint).unwrap_or_default();
        if !bool::from(has.as_bytes().ct_eq(wanted.as_bytes())) {
            return Err(Reason::CertificateOther);
        }
    }
    let Some(key) = &verified.key else {
        // A token that is bound to no key proves nothing by a proof (RFC 9449, section 7.1).
        return if brought.as_dpop { Err(Reason::ProofInvalid) } else { Ok(()) };
    };
    let mut sent = brought.headers.get_all("dpop").iter();
    let (Some(proof), None, true) = (sent.next(), sent.next(), brought.as_dpop) else {
        return Err(Reason::ProofMissing);
    };
    let proof = proof.to_str().map_err(|_| Reason::ProofInvalid)?;
    let asked = Asked { method: brought.method, uri: brought.uri, token: brought.token, key };
    proofs.spend(proof, &asked, now)
}
