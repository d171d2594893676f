//! A key-encryption key in AWS KMS, or in what speaks its API: `Encrypt` and `Decrypt`, signed with Signature Version 4.
//!
//! The service sees keys that wrap others and nothing else, at the start and at a rotation. The encryption context binds
//! what it wraps to its purpose.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cairn_clock::Clock;
use ring::hmac;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::{KeyEncryption, KeyEncryptionError, Purpose, Secret};

/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(15);
/// How often a request is made before it counts as failed.
const TRIES: u32 = 3;
/// How much of what a service says is shown.
const SAID_CHARS_MAX: usize = 300;

/// Which key of which service.
#[derive(Clone)]
pub struct KmsOptions {
    /// The key's id, ARN or alias.
    pub key_id: String,
    /// Such as `eu-central-1`.
    pub region: String,
    /// Where the service is, where it is not AWS's own.
    pub endpoint: Option<String>,
    /// Who asks.
    pub access_key_id: String,
    /// With which secret.
    pub secret_access_key: String,
    /// Of a temporary key.
    pub session_token: Option<String>,
}

impl fmt::Debug for KmsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KmsOptions").field("key_id", &self.key_id).field("region", &self.region).finish_non_exhaustive()
    }
}

/// A key in a key management service.
#[derive(Debug)]
pub struct KmsKey {
    options: KmsOptions,
    endpoint: reqwest::Url,
    http: reqwest::Client,
    clock: Clock,
    purpose: Purpose,
}

impl KmsKey {
    /// The same key for another purpose; it is the vault's at first.
    #[must_use]
    pub fn of(self, purpose: Purpose) -> Self {
        Self { purpose, ..self }
    }

    /// The key that `options` name. Nothing is asked yet.
    ///
    /// # Errors
    /// The endpoint is no URL.
    pub fn new(options: KmsOptions, clock: Clock) -> Result<Self, KeyEncryptionError> {
        let endpoint =
            options.endpoint.clone().unwrap_or_else(|| format!("https://kms.{}.amazonaws.com", options.region));
        let service = |what: String| KeyEncryptionError::Service { what };
        let endpoint = endpoint.parse().map_err(|error| service(format!("its endpoint is no URL: {error}")))?;
        // The process may have chosen its TLS provider already; then that one is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http =
            reqwest::Client::builder().timeout(REQUEST_MAX).no_proxy().redirect(reqwest::redirect::Policy::none());
        let http = http.build().map_err(|error| service(error.to_string()))?;
        Ok(Self { options, endpoint, http, clock, purpose: Purpose::Vault })
    }

    /// One action of the service, with its answer.
    ///
    /// # Errors
    /// The service refused, or does not answer.
    pub async fn ask(&self, action: &str, body: &Value) -> Result<Value, KeyEncryptionError> {
        let mut tried = 0;
        loop {
            tried += 1;
            match self.ask_once(action, body).await {
                Err((_, true)) if tried < TRIES => tokio::time::sleep(Duration::from_millis(200 << tried)).await,
                Err((what, _)) => return Err(KeyEncryptionError::Service { what }),
                Ok(said) => return Ok(said),
            }
        }
    }

    /// One request; with whether it may work later.
    async fn ask_once(&self, action: &str, body: &Value) -> Result<Value, (String, bool)> {
        let body = body.to_string();
        let host = match (self.endpoint.host_str(), self.endpoint.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (host, _) => host.unwrap_or_default().to_owned(),
        };
        let now = self.clock.now().to_string();
        let at: String = now.chars().take(19).filter(|c| !matches!(c, '-' | ':')).chain(['Z']).collect();
        let mut headers = vec![
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("host", host),
            ("x-amz-date", at.clone()),
            ("x-amz-target", format!("TrentService.{action}")),
        ];
        if let Some(token) = &self.options.session_token {
            headers.push(("x-amz-security-token", token.clone()));
            headers.sort_unstable();
        }
        let authorization = sign(&self.options, &headers, &at, body.as_bytes());
        let mut request = self.http.post(self.endpoint.clone()).header("authorization", authorization);
        for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
            request = request.header(name, value);
        }
        let answer = request.body(body).send().await.map_err(|error| (reach(&error), true))?;
        let status = answer.status();
        let said = answer.bytes().await.map_err(|error| (reach(&error), true))?;
        if status.is_success() {
            return serde_json::from_slice(&said).map_err(|error| (format!("its answer is no JSON: {error}"), false));
        }
        let words: Value = serde_json::from_slice(&said).unwrap_or_default();
        let word = |key: &str| words.get(key).and_then(Value::as_str).unwrap_or_default();
        let mut what =
            format!("{action} with key {}: {status} {} {}", self.options.key_id, word("__type"), word("message"));
        what = what.chars().take(SAID_CHARS_MAX).collect();
        Err((what, status.is_server_error()))
    }
}

fn reach(error: &reqwest::Error) -> String {
    let mut words = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        words = format!("{words}: {cause}");
        source = cause.source();
    }
    words
}

/// The `Authorization` header of Signature Version 4; `headers` are in order of name.
fn sign(options: &KmsOptions, headers: &[(&str, String)], at: &str, body: &[u8]) -> String {
    let day = &at[..8];
    let signed: Vec<&str> = headers.iter().map(|(name, _)| *name).collect();
    let signed = signed.join(";");
    let listed: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let request = format!("POST\n/\n\n{listed}\n{signed}\n{}", hex::encode(Sha256::digest(body)));
    let scope = format!("{day}/{}/kms/aws4_request", options.region);
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex::encode(Sha256::digest(request.as_bytes())));
    let mac = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
    let key = mac(format!("AWS4{}", options.secret_access_key).as_bytes(), day);
    let key = mac(key.as_ref(), &options.region);
    let key = mac(key.as_ref(), "kms");
    let key = mac(key.as_ref(), "aws4_request");
    let signature = hex::encode(mac(key.as_ref(), &text));
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={signed}, Signature={signature}",
        options.access_key_id
    )
}

#[async_trait]
impl KeyEncryption for KmsKey {
    fn id(&self) -> String {
        format!("aws-kms:{}", self.options.key_id)
    }

    async fn wrap(&self, key: &Secret) -> Result<Vec<u8>, KeyEncryptionError> {
        let body = json!({
            "KeyId": self.options.key_id,
            "Plaintext": STANDARD.encode(key.bytes()),
            "EncryptionContext": { "purpose": self.purpose.word() },
        });
        let said = self.ask("Encrypt", &body).await?;
        let blob = said.get("CiphertextBlob").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
        blob.ok_or_else(|| KeyEncryptionError::Service {
            what: "its answer to Encrypt has no CiphertextBlob".to_owned(),
        })
    }

    async fn unwrap(&self, wrapped: &[u8]) -> Result<Secret, KeyEncryptionError> {
        let body = json!({
            "KeyId": self.options.key_id,
            "CiphertextBlob": STANDARD.encode(wrapped),
            "EncryptionContext": { "purpose": self.purpose.word() },
        });
        let said = self.ask("Decrypt", &body).await?;
        let key = said.get("Plaintext").and_then(Value::as_str).and_then(|text| STANDARD.decode(text).ok());
        key.and_then(|key| Secret::read(&key)).ok_or_else(|| KeyEncryptionError::Wrong { id: self.id() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_the_one_that_aws_computes() {
        // Computed apart from this code, by the steps that AWS documents.
        let options = KmsOptions {
            key_id: "k".to_owned(),
            region: "us-east-1".to_owned(),
            endpoint: None,
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
        };
        let headers = [
            ("content-type", "application/x-amz-json-1.1".to_owned()),
            ("host", "kms.us-east-1.amazonaws.com".to_owned()),
            ("x-amz-date", "20150830T123600Z".to_owned()),
            ("x-amz-target", "TrentService.Encrypt".to_owned()),
        ];
        let said = sign(&options, &headers, "20150830T123600Z", b"{}");
        assert!(said.starts_with(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/kms/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature="
        ));
        assert!(said.ends_with("3bf264285472dd613263ae8c8ac212c4d4222d5a4c982f37d8acc994231aaf45"), "{said}");
        assert!(!format!("{options:?}").contains("wJalr"));
    }
}
