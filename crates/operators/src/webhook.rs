//! Tells a tool of the approvers' own that something waits (Standard Webhooks).
//!
//! One POST for each approval, signed, with what `GET /approvals/<id>` shows; sent again with growing pauses until it is
//! taken, and once more after a restart, always with the same `webhook-id`. The tool answers by `POST
//! /approvals/<id>/approve` or `…/deny` with an operator's token. Must never hold up a call: it follows what waits.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use cairn_approvals::{Approval, Standing};
use cairn_clock::Clock;
use cairn_gateway::Gateway;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use tokio_util::sync::CancellationToken;

use crate::approvals::shown;

/// How long one POST may take.
const POST_MAX: Duration = Duration::from_secs(10);
/// The first pause after a POST that was not taken; it doubles.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// The prefix that secrets of Standard Webhooks have.
const SECRET_PREFIX: &str = "whsec_";

/// Where approvals are told, and the key that signs what is told.
#[derive(Clone)]
pub struct Webhook {
    url: reqwest::Url,
    key: Arc<[u8]>,
    client: reqwest::Client,
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhook").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// What is wrong with a webhook.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The address.
    #[error("approvals.webhook is no http or https address")]
    Url,
    /// What it tells could be read on the way.
    #[error("approvals.webhook is http to another machine, and arguments would travel in the clear: use https")]
    Clear,
    /// The secret.
    #[error(
        "approvals.webhook_secret is `whsec_` and 24 to 64 random bytes in base64: make one with `openssl rand -base64 32`"
    )]
    Secret,
    /// The HTTP client.
    #[error("approvals.webhook: {0}")]
    Client(#[from] reqwest::Error),
}

impl Webhook {
    /// A webhook at that address, signed with that secret.
    ///
    /// # Errors
    /// [`WebhookError`]
    pub fn new(url: &str, secret: &str) -> Result<Self, WebhookError> {
        let url = reqwest::Url::parse(url).map_err(|_| WebhookError::Url)?;
        let near = url.host_str().is_some_and(|host| {
            host == "localhost"
                || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        });
        match url.scheme() {
            "https" => {}
            "http" if near => {}
            "http" => return Err(WebhookError::Clear),
            _ => return Err(WebhookError::Url),
        }
        let encoded = secret.strip_prefix(SECRET_PREFIX).ok_or(WebhookError::Secret)?;
        let key = STANDARD.decode(encoded).map_err(|_| WebhookError::Secret)?;
        if !(24..=64).contains(&key.len()) {
            return Err(WebhookError::Secret);
        }
        // Whoever set up the process's TLS first is the same ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let none = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().timeout(POST_MAX).no_proxy().redirect(none).build()?;
        Ok(Self { url, key: key.into(), client })
    }

    /// Tells of what waits until `stop`.
    pub async fn follow(self, gateway: Gateway, clock: Clock, stop: CancellationToken) {
        let mut changes = gateway.approvals().changes();
        let mut told: BTreeSet<String> = BTreeSet::new();
        let mut pause = PAUSE_MIN;
        loop {
            let wait = |approval: &Approval| approval.standing() == Standing::Waiting;
            let waiting: Vec<Approval> = gateway.approvals().all().into_iter().filter(wait).collect();
            told.retain(|id| waiting.iter().any(|approval| approval.request.id == *id));
            let mut failed = false;
            for approval in waiting.iter().filter(|approval| !told.contains(&approval.request.id)).collect::<Vec<_>>() {
                tokio::select! {
                    taken = self.tell(approval, &clock) => match taken {
                        Ok(()) => {
                            pause = PAUSE_MIN;
                            told.insert(approval.request.id.clone());
                        }
                        Err(reason) => {
                            tracing::warn!(%reason, approval = %approval.request.id, "the approvers' tool was not told; it is tried again");
                            failed = true;
                            break;
                        }
                    },
                    () = stop.cancelled() => return,
                }
            }
            let next = if failed { pause } else { Duration::MAX };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(next.min(Duration::from_secs(24 * 3_600))) => {}
                changed = changes.changed(), if !failed => if changed.is_err() { return },
            }
            if failed {
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }

    async fn tell(&self, approval: &Approval, clock: &Clock) -> Result<(), String> {
        self.post(&approval.request.id, "approval.requested", &shown(approval), clock).await
    }

    /// Tells of something under its id, once.
    ///
    /// # Errors
    /// What the tool said, or that it did not.
    pub async fn post(&self, id: &str, kind: &str, data: &Value, clock: &Clock) -> Result<(), String> {
        let at = clock.now();
        let body = json!({ "type": kind, "timestamp": at.to_string(), "data": data }).to_string();
        let seconds = at.as_micros() / 1_000_000;
        let signature = self.signature(id, seconds, &body);
        let request = self
            .client
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .header("webhook-signature", signature)
            .body(body);
        // The address may hold a secret, so it stands in no message.
        let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
        let status = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("it answered with HTTP status {status}")) }
    }

    fn signature(&self, id: &str, seconds: u64, body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes keys of any length");
        mac.update(format!("{id}.{seconds}.{body}").as_bytes());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        // The example of the specification's reference libraries.
        let hook = Webhook::new("https://example.org/hook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a hook");
        let signature = hook.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn what_would_tell_others_is_refused() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        assert!(matches!(Webhook::new("http://example.org/hook", secret), Err(WebhookError::Clear)));
        assert!(matches!(Webhook::new("file:///etc/passwd", secret), Err(WebhookError::Url)));
        assert!(matches!(Webhook::new("https://example.org", "whsec_aGk="), Err(WebhookError::Secret)));
        assert!(matches!(Webhook::new("https://example.org", "hunter2"), Err(WebhookError::Secret)));
        Webhook::new("http://127.0.0.1:9/hook", secret).expect("one's own machine");
        Webhook::new("http://[::1]:9/hook", secret).expect("one's own machine");
    }
}
