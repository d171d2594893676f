//! An issuer whose tokens let in by OAUTHBEARER: its key, what it signs, and whoever checks that. Holds no assertion of its own.

use std::{path::Path, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use cairn_broker::{Bearer, Tokens};
use cairn_clock::Clock;
use cairn_identity::{Bearers, IssuerOptions, KeySource};
use futures::future::BoxFuture;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde_json::{Value, json};

pub const ISSUER: &str = "https://idp.example";

/// What the process that embeds a broker does: an issuer's tokens, checked as anywhere.
#[derive(Debug)]
pub struct Issuers(Bearers);

impl Tokens for Issuers {
    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Option<Bearer>> {
        Box::pin(async move {
            let bearer = self.0.admit(token).await.ok()?;
            Some(Bearer { name: bearer.name, ends_at: bearer.ends_at })
        })
    }
}

/// A key and its name.
pub struct Signer(EcdsaKeyPair, &'static str);

impl Signer {
    pub fn new() -> Self {
        Self::named("one")
    }

    pub fn named(name: &'static str) -> Self {
        let random = SystemRandom::new();
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref(), &random).unwrap(), name)
    }

    pub fn keys(&self) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": self.1, "use": "sig"}]})
    }

    pub fn token(&self, claims: &Value) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(json!({"alg": "ES256", "kid": self.1})), part(claims.clone()));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Whoever checks what that signer signs, by a file of its keys.
pub fn issuers(folder: &Path, signer: &Signer, clock: &Clock) -> Arc<dyn Tokens> {
    let path = folder.join("keys.json");
    std::fs::write(&path, signer.keys().to_string()).unwrap();
    let issuer = IssuerOptions { keys: KeySource::File(path), ..IssuerOptions::new(ISSUER) };
    let issuer = IssuerOptions { audiences: vec!["kafka".to_owned()], ..issuer };
    Arc::new(Issuers(Bearers::new(issuer, Duration::ZERO, clock.clone()).unwrap()))
}
