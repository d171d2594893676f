//! For tests: an issuer in memory whose keys rotate, and whoever signs tokens and proofs with them.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use cairn_clock::Timestamp;
use parking_lot::Mutex;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};

use crate::{
    base64url,
    fetch::{Fetch, FetchError},
};

/// A P-256 key under a name.
pub(crate) struct Signer {
    pub(crate) kid: String,
    pair: EcdsaKeyPair,
}

impl Signer {
    pub(crate) fn new(kid: &str) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random);
        Self { kid: kid.to_owned(), pair: pair.expect("a key") }
    }

    pub(crate) fn jwk(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({"kty": "EC", "crv": "P-256", "x": base64url::encode(x), "y": base64url::encode(y), "kid": self.kid, "use": "sig"})
    }

    pub(crate) fn thumbprint(&self) -> String {
        crate::jwk::Key::read(self.jwk().as_object().expect("an object")).expect("a key").thumbprint()
    }

    /// Signs these claims under that header.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    pub(crate) fn sign_text(&self, header: &str, claims: &str) -> String {
        let signed = format!("{}.{}", base64url::encode(header.as_bytes()), base64url::encode(claims.as_bytes()));
        let signature = self.pair.sign(&SystemRandom::new(), signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", base64url::encode(signature.as_ref()))
    }

    /// An access token.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "ES256", "typ": "at+jwt", "kid": self.kid}), claims)
    }

    /// A proof of this key for a request and token.
    pub(crate) fn proof(&self, jti: &str, uri: &str, token: &str, now: Timestamp) -> String {
        let header = json!({"alg": "ES256", "typ": "dpop+jwt", "jwk": self.jwk()});
        let iat = now.as_micros() / 1_000_000;
        let ath = base64url::sha256(token.as_bytes());
        self.sign(&header, &json!({"jti": jti, "htm": "POST", "htu": uri, "ath": ath, "iat": iat}))
    }
}

/// What lies at addresses, and how often it was asked for.
#[derive(Debug, Default)]
pub(crate) struct Site {
    pages: Mutex<HashMap<String, Bytes>>,
    pub(crate) asked: AtomicU32,
    pub(crate) away: AtomicBool,
}

impl Site {
    pub(crate) fn put(&self, url: &str, page: &Value) {
        self.pages.lock().insert(url.to_owned(), Bytes::from(page.to_string()));
    }
}

#[async_trait]
impl Fetch for Arc<Site> {
    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        if self.away.load(Ordering::SeqCst) {
            return Err(FetchError("away".to_owned()));
        }
        self.pages.lock().get(url).cloned().ok_or_else(|| FetchError("404".to_owned()))
    }
}
