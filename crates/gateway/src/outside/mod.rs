//! An outside decision point: asked what the policies here permit, before a call goes on. A no of either is a no.
//!
//! Speaks OpenID AuthZEN's Authorization API 1.0 (`/access/v1/evaluation`), with the names of `authzen.rs`, so one Cairn can ask
//! another. Called by the step that decides. Nothing is remembered: each decision is asked anew. What is no clear yes, is no:
//! silence, an error, an answer that cannot be understood, an obligation that nobody here knows. Must never follow a
//! redirect, use a proxy that nobody configured, or show its credential.

mod answer;
mod request;

use std::{collections::BTreeSet, error::Error, fmt, path::PathBuf, sync::Arc, time::Duration};

use cairn_contract::{Decision, Outside};
use cairn_policy::{Permit, Question};
use http::HeaderValue;
use tokio::{sync::Semaphore, time::Instant};

use crate::{Gateway, Refusal, metrics::StateLabels};
use answer::Answered;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Idle connections that are kept.
const IDLE_MAX: usize = 16;
/// What stands in the place of a policy where the decision point denies.
const DECISION_POINT: &str = "cairn:decision_point";

/// How a decision point is asked.
#[derive(Clone)]
pub struct DecisionPointOptions {
    /// The address of its evaluation endpoint.
    pub url: String,
    /// What is shown as a bearer token; a secret.
    pub token: Option<String>,
    /// The only certificate authorities that it may have its certificate from: a PEM file. The system's where absent.
    pub authorities: Option<PathBuf>,
    /// How long an answer may take, everything included.
    pub timeout: Duration,
    /// How many questions may be under way.
    pub concurrent_max: usize,
    /// Whether the policies here decide alone where it gives no answer. Where there are none it denies all the same.
    pub falls_back: bool,
    /// The methods that it is asked about; all where empty.
    pub methods: BTreeSet<String>,
}

impl fmt::Debug for DecisionPointOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionPointOptions").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// What is wrong with a decision point as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum DecisionPointError {
    /// The address.
    #[error("decision_point.url is no http or https address: write https://pdp.example/access/v1/evaluation")]
    Url,
    /// What is asked could be read on the way.
    #[error("decision_point.url is http to another machine, and arguments would travel in the clear: use https")]
    Clear,
    /// The token.
    #[error("decision_point.token cannot stand in a header")]
    Token,
    /// The bounds.
    #[error("decision_point: timeout_ms and concurrent_max are at least 1")]
    Bounds,
    /// The certificate authorities.
    #[error("decision_point.ca: {0}")]
    Authorities(String),
    /// The HTTP client.
    #[error("decision_point: {0}")]
    Client(#[from] reqwest::Error),
}

/// A decision point. Cheap to clone.
#[derive(Clone)]
pub struct DecisionPoint(Arc<Inner>);

struct Inner {
    url: reqwest::Url,
    /// What events call it: host and port.
    id: String,
    authorization: Option<HeaderValue>,
    client: reqwest::Client,
    places: Semaphore,
    timeout: Duration,
    falls_back: bool,
    methods: BTreeSet<String>,
}

impl fmt::Debug for DecisionPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DecisionPoint").field("id", &self.0.id).finish_non_exhaustive()
    }
}

/// Why there is no answer. Shows neither the address nor anything that was said.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("too many questions are under way (concurrent_max)")]
    Busy,
    #[error("it did not answer in time (timeout_ms)")]
    TimedOut,
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    #[error("it answered with HTTP status {0}")]
    Status(u16),
    #[error("its answer has more than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("its answer is no decision: {0}")]
    NoDecision(String),
    #[error("it permits with a demand that cannot be met: {0}")]
    Demand(String),
}

impl Fault {
    /// The word in the event.
    const fn word(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::TimedOut => "timed_out",
            Self::Unreachable(_) => "unreachable",
            Self::Status(_) => "http_status",
            Self::TooLong => "too_long",
            Self::NoDecision(_) => "no_decision",
            Self::Demand(_) => "unknown_obligation",
        }
    }
}

impl DecisionPoint {
    /// One that is asked as the options say. Nothing is sent yet.
    ///
    /// # Errors
    /// [`DecisionPointError`]
    pub fn new(options: DecisionPointOptions) -> Result<Self, DecisionPointError> {
        let url = reqwest::Url::parse(&options.url).map_err(|_| DecisionPointError::Url)?;
        let host = url.host_str().ok_or(DecisionPointError::Url)?;
        let is_near = host == "localhost"
            || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if is_near => {}
            "http" => return Err(DecisionPointError::Clear),
            _ => return Err(DecisionPointError::Url),
        }
        if options.timeout.is_zero() || options.concurrent_max == 0 || options.concurrent_max > Semaphore::MAX_PERMITS {
            return Err(DecisionPointError::Bounds);
        }
        let authorization = options.token.as_ref().map(|token| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| DecisionPointError::Token)?;
            value.set_sensitive(true);
            Ok::<_, DecisionPointError>(value)
        });
        let authorization = authorization.transpose()?;
        let id = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        // Whoever set up the process's TLS first is the same ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let none = reqwest::redirect::Policy::none();
        let mut client =
            reqwest::Client::builder().no_proxy().redirect(none).pool_max_idle_per_host(IDLE_MAX).referer(false);
        if let Some(path) = &options.authorities {
            let fault = |why: String| DecisionPointError::Authorities(format!("{}: {why}", path.display()));
            let pem = std::fs::read(path).map_err(|error| fault(error.to_string()))?;
            let trusted = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| fault(error.to_string()))?;
            if trusted.is_empty() {
                return Err(fault("there is no certificate in it".to_owned()));
            }
            client = client.tls_certs_only(trusted);
        }
        Ok(Self(Arc::new(Inner {
            id,
            authorization,
            client: client.build()?,
            places: Semaphore::new(options.concurrent_max),
            timeout: options.timeout,
            falls_back: options.falls_back,
            methods: options.methods,
            url,
        })))
    }

    fn decides(&self, method: &str) -> bool {
        self.0.methods.is_empty() || self.0.methods.contains(method)
    }

    /// Asks once.
    async fn ask(&self, question: &Question) -> Result<Answered, Fault> {
        let body = request::of(question).to_string();
        let asked = async {
            let _place = self.0.places.try_acquire().map_err(|_| Fault::Busy)?;
            let mut request = self.0.client.post(self.0.url.clone()).header("content-type", "application/json");
            if let Some(authorization) = &self.0.authorization {
                request = request.header("authorization", authorization.clone());
            }
            let unreachable = |error: reqwest::Error| Fault::Unreachable(innermost(&error.without_url()));
            let mut answer = request.body(body).send().await.map_err(unreachable)?;
            if answer.status() != reqwest::StatusCode::OK {
                return Err(Fault::Status(answer.status().as_u16()));
            }
            let mut bytes = Vec::new();
            while let Some(chunk) = answer.chunk().await.map_err(unreachable)? {
                if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                    return Err(Fault::TooLong);
                }
                bytes.extend_from_slice(&chunk);
            }
            answer::read(&bytes).map_err(Fault::NoDecision)
        };
        tokio::time::timeout(self.0.timeout, asked).await.unwrap_or(Err(Fault::TimedOut))
    }
}

impl Gateway {
    /// Asks the decision point about what the policies here permit, where one is configured for that method: the permit with
    /// everything that is demanded there too, or why there is none. Says in `outside` what came of it.
    pub(crate) async fn ask_outside(
        &self,
        question: &Question,
        permit: Permit,
        outside: &mut Option<Outside>,
    ) -> Result<Permit, Refusal> {
        let Some(point) = self.options().decision_point.as_ref().filter(|point| point.decides(&question.action)) else {
            return Ok(permit);
        };
        let started = Instant::now();
        let asked = point.ask(question).await;
        let elapsed = started.elapsed();
        self.metrics().outside_seconds.observe(elapsed.as_secs_f64());
        let mut record = Outside {
            id: point.0.id.clone(),
            decision: None,
            elapsed_us: u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX),
            policy_version: None,
            determining_policies: Vec::new(),
            reason: None,
            error_type: None,
        };
        let policy_version = permit.version().to_owned();
        let decided = match asked {
            Ok(answered) => {
                record.policy_version = answered.policy_version.map(|version| self.screen(&version));
                record.determining_policies = answered.determining.iter().map(|policy| self.screen(policy)).collect();
                record.reason = answered.reason.map(|reason| self.screen(&reason));
                record.decision = Some(if answered.permit { Decision::Permit } else { Decision::Deny });
                match (answered.permit, answered.demands) {
                    (false, _) => {
                        let policies = vec![DECISION_POINT.to_owned()];
                        Ok(Err(Refusal::Denied { policy_version, policies, not_fresh: Vec::new() }))
                    }
                    (true, Ok(demands)) => permit.join(demands, &question.action).map(Ok).map_err(Fault::Demand),
                    (true, Err(unknown)) => Err(Fault::Demand(unknown)),
                }
            }
            // Where nothing else decides there is nothing to fall back on.
            Err(fault) if point.0.falls_back && policy_version != cairn_policy::OBSERVE => {
                record.error_type = Some(fault.word().to_owned());
                tracing::warn!(%fault, "the decision point gave no answer: the policies decide alone");
                Ok(Ok(permit))
            }
            Err(fault) => Err(fault),
        };
        let decided = decided.unwrap_or_else(|fault| {
            record.error_type = Some(fault.word().to_owned());
            tracing::warn!(%fault, "a call is denied for want of a decision");
            Err(Refusal::NoDecision { reason: fault.to_string() })
        });
        let state = match (&record.error_type, record.decision) {
            (Some(_), _) | (None, None) => "failed",
            (None, Some(Decision::Permit)) => "permit",
            (None, Some(Decision::Deny)) => "deny",
        };
        self.metrics().outside.get_or_create(&StateLabels { state }).inc();
        *outside = Some(record);
        decided
    }
}

/// What stands in the place of policies where the decision point denied, or gave no decision.
pub(crate) fn determining(refusal: &Refusal) -> Vec<String> {
    match refusal {
        Refusal::Denied { policies, .. } => policies.clone(),
        _ => vec![DECISION_POINT.to_owned()],
    }
}

/// The words of the first cause, which alone say something.
fn innermost(error: &(dyn Error + 'static)) -> String {
    let mut at = error;
    while let Some(source) = at.source() {
        at = source;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(url: &str) -> DecisionPointOptions {
        DecisionPointOptions {
            url: url.to_owned(),
            token: Some("s3cret".to_owned()),
            authorities: None,
            timeout: Duration::from_secs(1),
            concurrent_max: 1,
            falls_back: false,
            methods: BTreeSet::new(),
        }
    }

    #[test]
    fn what_would_tell_others_is_refused_and_nothing_shows_the_token() {
        let made = |url: &str| DecisionPoint::new(options(url));
        assert!(matches!(made("http://pdp.example/x"), Err(DecisionPointError::Clear)));
        assert!(matches!(made("file:///etc/passwd"), Err(DecisionPointError::Url)));
        let token = Some("a\nb".to_owned());
        let broken = DecisionPointOptions { token, ..options("https://pdp.example/x") };
        assert!(matches!(DecisionPoint::new(broken), Err(DecisionPointError::Token)));
        let none = DecisionPointOptions { concurrent_max: 0, ..options("https://pdp.example/x") };
        assert!(matches!(DecisionPoint::new(none), Err(DecisionPointError::Bounds)));
        let point = made("http://127.0.0.1:9/access/v1/evaluation").expect("one's own machine");
        let shown = format!("{point:?} {:?}", options("https://pdp.example/x"));
        assert!(shown.contains("127.0.0.1:9") && !shown.contains("s3cret"), "{shown}");
    }
}
