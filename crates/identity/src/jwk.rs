//! Public keys as JSON (RFC 7517), and the check of a signature with one.
//!
//! A key that could be used for something else, is too short, or is not understood is as good as absent. A key never
//! verifies an algorithm that is not its own: RSA keys do RS and PS, P-256 does ES256, P-384 does ES384, Ed25519 does EdDSA,
//! and where a key names its algorithm only that.

use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde_json::{Map, Value};

use crate::{base64url, jws::Algorithm, object::object};

/// Keys in one set.
pub(crate) const KEYS_MAX: usize = 64;
/// Longest modulus of an RSA key, in bytes.
const RSA_BYTES_MAX: usize = 1_024;
/// Shortest, in bytes.
const RSA_BYTES_MIN: usize = 256;

/// What a key is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Material {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

/// A public key that checks signatures.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Key {
    pub(crate) kid: Option<String>,
    algorithm: Option<Algorithm>,
    material: Material,
}

impl Key {
    /// The key that this object is, if it is one for checking signatures.
    pub(crate) fn read(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |key: &str| jwk.get(key).and_then(Value::as_str);
        let bytes = |key: &str| base64url::decode(text(key)?);
        if text("use").is_some_and(|used| used != "sig") {
            return None;
        }
        if let Some(operations) = jwk.get("key_ops")
            && !operations.as_array()?.iter().any(|operation| operation == "verify")
        {
            return None;
        }
        // Whoever shows a private key has no key any more.
        if ["d", "p", "q", "k"].iter().any(|private| jwk.contains_key(*private)) {
            return None;
        }
        let point = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            (x.len() == length && y.len() == length).then(|| [&[4], x.as_slice(), y.as_slice()].concat())
        };
        let material = match (text("kty")?, text("crv")) {
            ("RSA", None) => {
                let stripped = |number: Vec<u8>| number.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<_>>();
                let (n, e) = (stripped(bytes("n")?), stripped(bytes("e")?));
                (RSA_BYTES_MIN..=RSA_BYTES_MAX).contains(&n.len()).then_some(Material::Rsa { n, e })?
            }
            ("EC", Some("P-256")) => Material::P256(point(32)?),
            ("EC", Some("P-384")) => Material::P384(point(48)?),
            ("OKP", Some("Ed25519")) => Material::Ed25519(bytes("x").filter(|x| x.len() == 32)?),
            _ => return None,
        };
        let algorithm = match text("alg") {
            Some(name) => Some(Algorithm::named(name)?),
            None => None,
        };
        let kid = text("kid").map(ToOwned::to_owned);
        let key = Self { kid, algorithm, material };
        // A key that names an algorithm of another family is a mistake or a trap.
        key.algorithm.is_none_or(|algorithm| key.fits(algorithm)).then_some(key)
    }

    /// Whether the key may check signatures of that algorithm.
    pub(crate) fn fits(&self, algorithm: Algorithm) -> bool {
        use Algorithm as A;
        let family = match self.material {
            Material::Rsa { .. } => {
                matches!(algorithm, A::RS256 | A::RS384 | A::RS512 | A::PS256 | A::PS384 | A::PS512)
            }
            Material::P256(_) => algorithm == A::ES256,
            Material::P384(_) => algorithm == A::ES384,
            Material::Ed25519(_) => algorithm == A::EdDSA,
        };
        family && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// Whether `signature` is this key's over `message`.
    pub(crate) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if !self.fits(algorithm) {
            return false;
        }
        let unparsed = |how: &'static dyn signature::VerificationAlgorithm, bytes: &[u8]| {
            UnparsedPublicKey::new(how, bytes).verify(message, signature).is_ok()
        };
        match &self.material {
            Material::Rsa { n, e } => {
                let how = match algorithm {
                    Algorithm::RS256 => &signature::RSA_PKCS1_2048_8192_SHA256,
                    Algorithm::RS384 => &signature::RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::RS512 => &signature::RSA_PKCS1_2048_8192_SHA512,
                    Algorithm::PS256 => &signature::RSA_PSS_2048_8192_SHA256,
                    Algorithm::PS384 => &signature::RSA_PSS_2048_8192_SHA384,
                    Algorithm::PS512 => &signature::RSA_PSS_2048_8192_SHA512,
                    Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => return false,
                };
                RsaPublicKeyComponents { n, e }.verify(how, message, signature).is_ok()
            }
            Material::P256(point) => unparsed(&signature::ECDSA_P256_SHA256_FIXED, point),
            Material::P384(point) => unparsed(&signature::ECDSA_P384_SHA384_FIXED, point),
            Material::Ed25519(x) => unparsed(&signature::ED25519, x),
        }
    }

    /// The key's thumbprint (RFC 7638): SHA-256 over the members that make it, in their one order.
    pub(crate) fn thumbprint(&self) -> String {
        let b64 = base64url::encode;
        let curve = |name: &str, point: &[u8]| {
            let (x, y) = point[1..].split_at(point.len() / 2);
            format!(r#"{{"crv":"{name}","kty":"EC","x":"{}","y":"{}"}}"#, b64(x), b64(y))
        };
        let members = match &self.material {
            Material::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, b64(e), b64(n)),
            Material::P256(point) => curve("P-256", point),
            Material::P384(point) => curve("P-384", point),
            Material::Ed25519(x) => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, b64(x)),
        };
        base64url::sha256(members.as_bytes())
    }
}

/// An issuer's keys.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a set; keys that cannot be used are left out.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, &'static str> {
        let set = object(bytes).ok_or("its key set is not a JSON object")?;
        let keys = set.get("keys").and_then(Value::as_array).ok_or("its key set has no list of keys")?;
        if keys.len() > KEYS_MAX {
            return Err("its key set has more than 64 keys");
        }
        Ok(Self(keys.iter().filter_map(Value::as_object).filter_map(Key::read).collect()))
    }

    /// The key for a token: the one of that `kid`, or the only one that fits where the token names none.
    pub(crate) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<&Key> {
        let fitting = || self.0.iter().filter(move |key| key.fits(algorithm));
        match kid {
            Some(kid) => fitting().find(|key| key.kid.as_deref() == Some(kid)),
            None => fitting().next().filter(|_| fitting().count() == 1),
        }
    }

    /// Whether it has a key of that name, fitting or not.
    pub(crate) fn names(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.kid.as_deref() == Some(kid))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(jwk: Value) -> Option<Key> {
        Key::read(jwk.as_object().expect("an object"))
    }

    /// The example of RFC 7638, section 3.1.
    #[test]
    fn a_thumbprint_is_as_the_rfc_computes_it() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let read = key(json!({"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"})).expect("a key");
        assert_eq!(read.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
        assert!(read.fits(Algorithm::RS256) && !read.fits(Algorithm::PS256), "it names its algorithm");
    }

    /// The example of RFC 8037, appendix A.
    #[test]
    fn a_signature_of_the_rfc_is_verified_and_a_changed_one_is_not() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let read = key(json!({"kty": "OKP", "crv": "Ed25519", "x": x})).expect("a key");
        assert_eq!(read.thumbprint(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let signed = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature =
            base64url::decode("hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg");
        let mut signature = signature.expect("base64url");
        assert!(read.verifies(Algorithm::EdDSA, signed, &signature));
        assert!(!read.verifies(Algorithm::ES256, signed, &signature));
        signature[3] ^= 1;
        assert!(!read.verifies(Algorithm::EdDSA, signed, &signature));
    }

    /// Signed with OpenSSL; the private key is gone.
    #[test]
    fn rsa_signatures_are_verified_with_their_own_padding_only() {
        let n = concat!(
            "rmA6g2l8C_otNtpXO0q12DUvR0zhv8HJPlIVq2GqGM1VqzP0oAIa85pKhiY8ijiTnFeRg1l6b2epmwZ54APYPcnQctLgC7AL",
            "gosrtJvhoIbYTIsRGTg-jVrqfT-ngZfQPj9xLxvmMRPHvHKGT64vNpa-7wiI3OtOW_2FEnjiP4IM8dl1UNLbNGB0SFqws0wl",
            "RtHu3tzKAQwsyCcLNQQq6LlQUrqdUdE7rQIvhBcKrJlul0wzdyerVceZnor-GY_f1cU2JW3rNOjBmU202zfKNp9a1Xwmvyv1",
            "hGh7685IWJHCvHecfuVNXnzz4akrPV6YzfVEfm71B7OH9DQdre1t7Q",
        );
        let rs256 = concat!(
            "FjhJl6gKAKMmaPEzwxRnKeKWs_hAKDqQlTK1-qAtnnJ6QFYgryw5TDBuRqDRkULZfaANtQjDByzVA64CBCaDwV9WkXuxEifX",
            "QHW1Nd9iBxbir1OEBzoM6B7JaGUr495xId_jDdf6f6RK6Ywtj-OpYnofVjmNgr7t8ICznnodgy9R-wk33fM8l2bNEHxb5irf",
            "Ief_-S_wBMV-XLtnd8v9MVAnXk_smSsTix0F7uZAmNMoZDrnLKUfpMimV2conIsS4-Gv4i55w_w-svcq3oxDAXX1V67Vkzxw",
            "VGaIq6osKR2GONxclcbG8ni4tLp3oR0xJpyw9W28GelwdsK-FrMasA",
        );
        let ps256 = concat!(
            "LoKoGmTc8zoHY-YKxnp317TFAbVt71S2HkbiDcsK-v6mbCiDzqTvL9KBzp-4usPz09n1d4Sp7T9YU5tWj4FyG2guR2bikAvx",
            "IAqpTdf0jss0A40UG7R4U4elEInZfUG6qUtb5hoOV4mQ5hl1cEgDl4Tx8Gy21SENb0L9BDYQStSjgsLw6pToWqIp4HoVKWJr",
            "7ZOR-RcP8pKLspfHr4NI5GP2FiqYHNo8DJtY26nDFEdWVAbdFOXVcnC3d368AKAZcQuvmBBWBg7dmz4CeOBKH7weSRscUoXi",
            "vJZqMNhzQ4QHSTA2L8JJU3hvpJ0CALqkDt7tqGNvR8GRE_tULAasHA",
        );
        let read = key(json!({"kty": "RSA", "n": n, "e": "AQAB"})).expect("a key");
        let message = b"a message of the test";
        let (rs256, ps256) =
            (base64url::decode(rs256).expect("base64url"), base64url::decode(ps256).expect("base64url"));
        for (algorithm, signature, holds) in [
            (Algorithm::RS256, &rs256, true),
            (Algorithm::PS256, &ps256, true),
            (Algorithm::RS256, &ps256, false),
            (Algorithm::PS256, &rs256, false),
            (Algorithm::RS512, &rs256, false),
            (Algorithm::ES256, &rs256, false),
        ] {
            assert_eq!(read.verifies(algorithm, message, signature), holds, "{algorithm:?}");
        }
        assert!(!read.verifies(Algorithm::RS256, b"another message", &rs256));
    }

    #[test]
    fn keys_that_must_not_be_used_are_left_out() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        for unusable in [
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": x, "use": "enc"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": x, "key_ops": ["sign"]}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": x, "d": x}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": x, "alg": "RS256"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": x, "alg": "HS256"}),
            json!({"kty": "OKP", "crv": "X25519", "x": x}),
            json!({"kty": "EC", "crv": "P-256", "x": x, "y": "AAAA"}),
            json!({"kty": "RSA", "n": x, "e": "AQAB"}),
            json!({"kty": "RSA"}),
            json!({}),
        ] {
            assert_eq!(key(unusable.clone()), None, "{unusable}");
        }
    }
}
