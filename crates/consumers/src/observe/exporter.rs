//! Sends OTLP over HTTP to a collector, and says what became of it.
//!
//! One request at a time, bounded in time and bytes. What a collector may take later is told from what it will never take; what it says is
//! cut and never kept. It follows no redirect, because headers may hold a credential. Called by the sink and by what pushes figures.

use std::{fmt, io::Write as _, time::Duration};

use flate2::{Compression, write::GzEncoder};
use reqwest::{
    StatusCode, Url,
    header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT},
};

use super::otlp::{LeftOut, left_out, shown};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1_024;
/// A collector may ask to be left alone no longer than this.
const AFTER_MAX: Duration = Duration::from_secs(300);
const PROTOBUF: &str = "application/x-protobuf";

/// Where to send, and how.
#[derive(Clone)]
pub struct ExporterOptions {
    /// Where spans go: the whole address.
    pub traces: String,
    /// Where figures go.
    pub metrics: String,
    /// Headers of each request: they may hold a credential.
    pub headers: Vec<(String, String)>,
    /// How long one request may take.
    pub timeout: Duration,
    /// Whether bodies are packed.
    pub is_gzip: bool,
}

impl fmt::Debug for ExporterOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Addresses and headers may hold credentials.
        f.debug_struct("ExporterOptions").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// Why a collector cannot be sent to.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The address.
    #[error("the collector's address is no http or https URL: write http://HOST:4318")]
    Address,
    /// A header.
    #[error("the header {0:?} for the collector is none that HTTP can carry")]
    Header(String),
    /// The HTTP client.
    #[error("no HTTP client for the collector: {0}")]
    Client(#[from] reqwest::Error),
}

/// Sends requests. Cheap to clone.
#[derive(Clone)]
pub struct Exporter {
    client: reqwest::Client,
    traces: Url,
    metrics: Url,
    headers: HeaderMap,
    is_gzip: bool,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("host", &self.traces.host_str()).finish_non_exhaustive()
    }
}

/// Why a request was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Untaken {
    /// It may be taken later: nobody answers, there is too much, or who asks is not let in.
    Later { reason: String, after: Option<Duration> },
    /// It will not, for what it holds.
    Never { reason: String },
}

impl Exporter {
    /// To that collector.
    ///
    /// # Errors
    /// [`ExporterError`]
    pub fn new(options: &ExporterOptions) -> Result<Self, ExporterError> {
        let url = |text: &str| {
            let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
            url.ok_or(ExporterError::Address)
        };
        let mut headers = HeaderMap::new();
        for (name, value) in &options.headers {
            let bad = || ExporterError::Header(name.clone());
            let mut value = HeaderValue::from_str(value).map_err(|_| bad())?;
            value.set_sensitive(true);
            headers.append(name.parse::<HeaderName>().map_err(|_| bad())?, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("cairn-observe/", env!("CARGO_PKG_VERSION"))));
        // Whoever set up the process's TLS first is the same ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let none = reqwest::redirect::Policy::none();
        let client = reqwest::Client::builder().timeout(options.timeout).no_proxy().redirect(none).build()?;
        let (traces, metrics) = (url(&options.traces)?, url(&options.metrics)?);
        Ok(Self { client, traces, metrics, headers, is_gzip: options.is_gzip })
    }

    /// Sends spans; what the collector left out of them.
    pub(super) async fn send_traces(&self, body: Vec<u8>) -> Result<Option<LeftOut>, Untaken> {
        self.send(&self.traces, body).await
    }

    /// Sends figures; what the collector left out of them.
    pub(super) async fn send_metrics(&self, body: Vec<u8>) -> Result<Option<LeftOut>, Untaken> {
        self.send(&self.metrics, body).await
    }

    async fn send(&self, url: &Url, body: Vec<u8>) -> Result<Option<LeftOut>, Untaken> {
        let mut request = self.client.post(url.clone()).headers(self.headers.clone());
        if self.is_gzip {
            request = request.header(CONTENT_ENCODING, "gzip").body(packed(&body));
        } else {
            request = request.body(body);
        }
        // The address may hold a secret, so it stands in no message.
        let away = |error: reqwest::Error| {
            let reason = format!("the collector does not answer: {}", told(&error.without_url()));
            Untaken::Later { reason, after: None }
        };
        let mut answer = request.send().await.map_err(away)?;
        let (status, after) = (answer.status(), after(answer.headers()));
        let is_protobuf =
            answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(PROTOBUF.as_bytes()));
        let mut said = Vec::new();
        // What it took it has taken, also where its words do not come.
        while let Ok(Some(part)) = answer.chunk().await {
            if said.len() + part.len() > ANSWER_BYTES_MAX {
                break;
            }
            said.extend_from_slice(&part);
        }
        if status.is_success() {
            return Ok(left_out(&said).filter(|_| is_protobuf));
        }
        let words = shown(&String::from_utf8_lossy(if is_protobuf { &[] } else { &said }));
        let reason =
            format!("the collector answers with HTTP status {} {words}", status.as_u16()).trim_end().to_owned();
        Err(if is_later(status) { Untaken::Later { reason, after } } else { Untaken::Never { reason } })
    }
}

/// Whether a status says nothing of what was sent: OTLP's four, and those that would be the same for anything.
fn is_later(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        300..=399 | 401 | 402 | 403 | 404 | 405 | 407 | 408 | 421 | 426 | 429 | 502 | 503 | 504 | 511
    )
}

/// How long it wants to be left alone.
fn after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(AFTER_MAX))
}

fn packed(body: &[u8]) -> Vec<u8> {
    let mut packing = GzEncoder::new(Vec::new(), Compression::fast());
    let _ = packing.write_all(body);
    packing.finish().expect("memory takes everything")
}

/// An error with what caused it.
fn told(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    shown(&words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_same_for_anything_is_waited_for() {
        let later: Vec<u16> =
            (300..600).filter(|code| is_later(StatusCode::from_u16(*code).expect("a code"))).collect();
        for code in [301, 401, 403, 404, 429, 502, 503, 504] {
            assert!(later.contains(&code), "{code}");
        }
        for code in [400, 413, 415, 422, 500, 501] {
            assert!(!later.contains(&code), "{code}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("7"));
        assert_eq!(after(&headers), Some(Duration::from_secs(7)));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("99999999"));
        assert_eq!(after(&headers), Some(AFTER_MAX));
        headers.insert(RETRY_AFTER, HeaderValue::from_static("Fri, 31 Dec 1999 23:59:59 GMT"));
        assert_eq!(after(&headers), None);
    }

    #[test]
    fn an_address_or_a_header_that_cannot_be_used_is_refused_and_none_is_shown() {
        let options = |traces: &str, header: &str| ExporterOptions {
            traces: traces.to_owned(),
            metrics: "http://127.0.0.1:1/v1/metrics".to_owned(),
            headers: vec![("authorization".to_owned(), header.to_owned())],
            timeout: Duration::from_secs(1),
            is_gzip: false,
        };
        assert!(matches!(Exporter::new(&options("ftp://x", "a")), Err(ExporterError::Address)));
        assert!(
            matches!(Exporter::new(&options("http://x", "a\nb")), Err(ExporterError::Header(name)) if name == "authorization")
        );
        let good = options("https://s3cret@127.0.0.1/v1/traces", "s3cret");
        let exporter = Exporter::new(&good).expect("an exporter");
        assert!(!format!("{good:?} {exporter:?}").contains("s3cret"));
    }
}
