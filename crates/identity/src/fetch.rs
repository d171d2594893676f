//! Asking an issuer: one GET, bounded in time and bytes, over HTTPS, or over HTTP to this machine only.
//!
//! Redirects are not followed and no proxy is used: only an address that the configuration leads to is ever asked.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject};

/// Longest answer, in bytes.
const BYTES_MAX: usize = 256 * 1_024;
/// How long one answer may take in all.
const WITHIN: Duration = Duration::from_secs(5);

/// Why an issuer could not be asked. Says nothing of what it answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FetchError(pub String);

/// Gets what lies at an address. An implementation MUST be bounded in time and bytes and MUST NOT follow redirects.
#[async_trait]
pub trait Fetch: Send + Sync + fmt::Debug {
    /// The body of a successful answer.
    ///
    /// # Errors
    /// Where there is none.
    async fn get(&self, url: &str) -> Result<Bytes, FetchError>;
}

/// Refuses an address that may not be asked.
///
/// # Errors
/// What it must look like.
pub fn check_url(url: &str) -> Result<Uri, FetchError> {
    let fault =
        || FetchError("it must be an https address, or http on this machine, without user or fragment".to_owned());
    let parsed: Uri = url.parse().map_err(|_| fault())?;
    let host = parsed.host().ok_or_else(fault)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_here = bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    let is_plain = !url.contains(['@', '#']);
    match parsed.scheme_str() {
        Some("https") if is_plain => Ok(parsed),
        Some("http") if is_plain && is_here => Ok(parsed),
        _ => Err(fault()),
    }
}

/// The real one.
#[derive(Clone)]
pub struct HttpsFetch(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>);

impl fmt::Debug for HttpsFetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpsFetch")
    }
}

impl HttpsFetch {
    /// One that trusts Mozilla's certificate authorities, and those in a PEM file.
    ///
    /// # Errors
    /// Where the file cannot be read or holds no certificate.
    pub fn new(authorities: Option<&Path>) -> Result<Self, FetchError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = authorities {
            let fault = |why: String| FetchError(format!("the certificate authorities in {}: {why}", path.display()));
            let read = CertificateDer::pem_file_iter(path).map_err(|error| fault(error.to_string()))?;
            let before = roots.len();
            for certificate in read {
                let certificate = certificate.map_err(|error| fault(error.to_string()))?;
                roots.add(certificate).map_err(|error| fault(error.to_string()))?;
            }
            if roots.len() == before {
                return Err(fault("there is no certificate in it".to_owned()));
            }
        }
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring offers the default protocol versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        let connector =
            HttpsConnectorBuilder::new().with_tls_config(config).https_or_http().enable_http1().wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self(client))
    }
}

#[async_trait]
impl Fetch for HttpsFetch {
    async fn get(&self, url: &str) -> Result<Bytes, FetchError> {
        let uri = check_url(url)?;
        let fault = |why: String| FetchError(format!("{}: {why}", uri.host().unwrap_or_default()));
        let request = Request::get(uri.clone()).header(header::ACCEPT, "application/json").body(Empty::new());
        let request = request.map_err(|error| fault(error.to_string()))?;
        let asked = async {
            let response = self.0.request(request).await.map_err(|error| fault(innermost(&error)))?;
            if response.status() != StatusCode::OK {
                return Err(fault(format!("it answered {}", response.status().as_u16())));
            }
            let body = Limited::new(response.into_body(), BYTES_MAX).collect().await;
            Ok(body.map_err(|_| fault(format!("its answer broke off or is longer than {BYTES_MAX} bytes")))?.to_bytes())
        };
        tokio::time::timeout(WITHIN, asked)
            .await
            .map_err(|_| fault(format!("it did not answer within {} s", WITHIN.as_secs())))?
    }
}

/// The words of the first cause, which alone say something.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_https_or_this_machine_may_be_asked() {
        for good in ["https://idp.example/a", "http://127.0.0.1:8080", "http://localhost:1/x", "http://[::1]:1/"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://idp.example",
            "http://127.0.0.1.evil.example",
            "http://localhost.evil.example",
            "http://localhost@evil.example/",
            "https://me:secret@idp.example/",
            "https://idp.example/#x",
            "file:///etc/passwd",
            "idp.example",
            "",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }
}
