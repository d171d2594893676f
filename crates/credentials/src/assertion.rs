//! Signed statements with which a client proves itself at a token endpoint (`private_key_jwt`, RFC 7523 section 2.2).
//! Called by `grant.rs`. A statement is good for one endpoint, for a minute, once.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cairn_clock::{Clock, Entropy};
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use rustls_pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::json;

use crate::CredentialError;

/// How long a statement holds. Clocks may differ by some of it.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// A key that signs.
enum Key {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

impl Key {
    /// A key from its PEM text: EC (P-256, P-384), Ed25519 or RSA.
    fn of(pem: &str) -> Result<Self, CredentialError> {
        let wrong = || CredentialError::Misconfigured {
            reason: "private_key is no key that can sign: give a PEM of PKCS#8 with an EC key (P-256, P-384), an \
                     Ed25519 key or an RSA key of 2048 bits or more; `openssl pkcs8 -topk8 -nocrypt` makes one"
                .to_owned(),
        };
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong())?;
        let random = SystemRandom::new();
        if let PrivateKeyDer::Pkcs1(key) = &key {
            return RsaKeyPair::from_der(key.secret_pkcs1_der()).map(Self::Rsa).map_err(|_| wrong());
        }
        let PrivateKeyDer::Pkcs8(key) = &key else { return Err(wrong()) };
        let key = key.secret_pkcs8_der();
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &random) {
            return Ok(Self::P256(key));
        }
        if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key, &random) {
            return Ok(Self::P384(key));
        }
        if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key) {
            return Ok(Self::Ed25519(key));
        }
        RsaKeyPair::from_pkcs8(key).map(Self::Rsa).map_err(|_| wrong())
    }

    const fn algorithm(&self) -> &'static str {
        match self {
            Self::P256(_) => "ES256",
            Self::P384(_) => "ES384",
            Self::Ed25519(_) => "EdDSA",
            Self::Rsa(_) => "RS256",
        }
    }

    fn sign(&self, bytes: &[u8]) -> Result<Vec<u8>, CredentialError> {
        let random = SystemRandom::new();
        let failed = |_| CredentialError::unavailable("signing failed");
        Ok(match self {
            Self::P256(key) | Self::P384(key) => key.sign(&random, bytes).map_err(failed)?.as_ref().to_vec(),
            Self::Ed25519(key) => key.sign(bytes).as_ref().to_vec(),
            Self::Rsa(key) => {
                let mut signature = vec![0; key.public().modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature).map_err(failed)?;
                signature
            }
        })
    }
}

/// A statement of this client for this audience.
pub(crate) fn assertion(
    pem: &str,
    key_id: Option<&str>,
    client_id: &str,
    audience: &str,
    clock: &Clock,
    entropy: &Entropy,
) -> Result<String, CredentialError> {
    let key = Key::of(pem)?;
    let now = clock.now();
    let seconds = |at: cairn_clock::Timestamp| at.as_micros() / 1_000_000;
    let mut header = json!({ "alg": key.algorithm(), "typ": "JWT" });
    if let Some(key_id) = key_id {
        header["kid"] = json!(key_id);
    }
    let claims = json!({
        "iss": client_id,
        "sub": client_id,
        "aud": audience,
        "jti": entropy.uuid_v7(now).to_string(),
        "iat": seconds(now),
        "exp": seconds(now.plus(GOOD_FOR)),
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, KeyPair, UnparsedPublicKey};

    use super::*;

    fn pem(der: &[u8]) -> String {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n")
    }

    #[test]
    fn a_statement_is_signed_by_the_key_and_names_its_audience_and_an_end() {
        let random = SystemRandom::new();
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let (clock, entropy) = (Clock::system(), Entropy::system());
        let made = |audience: &str| assertion(&pem(der.as_ref()), Some("k1"), "me", audience, &clock, &entropy);
        let one = made("https://as.example").expect("signed");
        let (signed, signature) = one.rsplit_once('.').expect("three parts");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref(), &random).expect("a key");
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).expect("it verifies");
        let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.').expect("two parts").1).expect("base64");
        let claims: serde_json::Value = serde_json::from_slice(&claims).expect("JSON");
        assert_eq!((claims["iss"].as_str(), claims["aud"].as_str()), (Some("me"), Some("https://as.example")));
        assert_eq!(claims["exp"].as_u64().expect("a time") - claims["iat"].as_u64().expect("a time"), 60);
        assert_ne!(one, made("https://as.example").expect("signed"), "each is good once");
    }

    #[test]
    fn what_is_no_key_says_what_to_do_and_not_what_it_is() {
        let error = Key::of("-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----").err().expect("no key");
        assert!(error.to_string().contains("openssl") && !error.to_string().contains("s3cret"));
    }
}
