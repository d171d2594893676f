//! A registry of somebody else's: Cairn's contracts are registered there, and nothing is served here.
//!
//! It is asked in the background and again while it is away, so that Cairn records whether or not it answers. What it says to
//! a contract that it does not take is said once.

use std::time::Duration;

use anyhow::{Context, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cairn_contract::{EventType, contracts};
use cairn_tls::ClientTls;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::RegistrySection;

/// Largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// How long one request may take.
const ASK_WITHIN: Duration = Duration::from_secs(30);
/// How long to wait before it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// Another registry.
pub(crate) struct Elsewhere {
    base: String,
    authorization: Option<String>,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Elsewhere {
    /// A client of the registry at `registry.url`.
    pub(super) fn open(section: &RegistrySection) -> anyhow::Result<Self> {
        let base = section.url.clone().context("registry.url is missing")?;
        if !base.starts_with("http://") && !base.starts_with("https://") {
            bail!("registry.url is {base:?}: write http:// or https://, a host, and a port");
        }
        let authorization = match (&section.user, &section.secret) {
            (Some(user), Some(secret)) => Some(format!("Basic {}", STANDARD.encode(format!("{user}:{secret}")))),
            (None, Some(secret)) => Some(format!("Bearer {secret}")),
            _ => None,
        };
        let tls = ClientTls { authorities: section.authorities.clone(), own: None };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.config().context("registry.authorities")?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { base: base.trim_end_matches('/').to_owned(), authorization, client })
    }

    /// Registers Cairn's contracts; again while nobody answers.
    pub(super) async fn publish(self, stop: CancellationToken) {
        let mut said = None;
        loop {
            let tried = tokio::select! {
                () = stop.cancelled() => return,
                tried = self.publish_all() => tried,
            };
            match tried {
                Ok(()) => return,
                Err(error) => {
                    let words = format!("{error:#}");
                    if said.as_ref() != Some(&words) {
                        eprintln!(
                            "cairn: the contracts are not in the registry at {}: {words}; it is tried again",
                            self.base
                        );
                        said = Some(words);
                    }
                }
            }
            if tokio::time::timeout(AGAIN_AFTER, stop.cancelled()).await.is_ok() {
                return;
            }
        }
    }

    async fn publish_all(&self) -> anyhow::Result<()> {
        for event_type in EventType::ALL {
            let subject = cairn_registry::contract_subject(event_type);
            let known = self.ask("GET", &format!("/subjects/{subject}/versions"), None).await;
            let known = known.ok().and_then(|value| value.as_array().map(Vec::len)).unwrap_or(0);
            if known >= contracts(event_type).len() {
                continue;
            }
            // A contract names its own version, which a registry takes for a change that breaks.
            self.ask("PUT", &format!("/config/{subject}"), Some(json!({ "compatibility": "NONE" }))).await?;
            for contract in contracts(event_type) {
                let body = json!({ "schemaType": "JSON", "schema": cairn_registry::contract_text(contract) });
                let path = format!("/subjects/{subject}/versions");
                self.ask("POST", &path, Some(body))
                    .await
                    .with_context(|| format!("{subject} version {}", contract.version))?;
            }
            self.ask("PUT", &format!("/config/{subject}"), Some(json!({ "compatibility": "FULL_TRANSITIVE" }))).await?;
        }
        Ok(())
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let media = "application/vnd.schemaregistry.v1+json";
        let mut request =
            http::Request::builder().method(method).uri(format!("{}{path}", self.base)).header("accept", media);
        if body.is_some() {
            request = request.header("content-type", media);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let body = Full::new(Bytes::from(body.map(|body| body.to_string()).unwrap_or_default()));
        let asked = self
            .client
            .request(request.body(body).context("registry.user or registry.secret cannot stand in a request")?);
        let response = tokio::time::timeout(ASK_WITHIN, asked).await.context("it does not answer in time")?;
        let response = response.map_err(|_| anyhow::anyhow!("nobody answers there"))?;
        let status = response.status();
        let bytes = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = bytes.map_err(|error| anyhow::anyhow!("its answer could not be read: {error}"))?.to_bytes();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if !status.is_success() {
            let words = value.get("message").and_then(Value::as_str).unwrap_or("it gave no reason");
            bail!("{method} {path} is refused with {status}: {words}");
        }
        Ok(value)
    }
}
