//! What the configuration says about identity. Filled by the command line, checked by [`Options::check`].

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use crate::{fetch::check_url, jws::Algorithm, who::Kind};

/// Names that stand before a principal's slash and belong to other ways of being somebody.
const NAMES_TAKEN: [&str; 2] = ["key", "cert"];
/// The longest clock difference that may be forgiven.
pub(crate) const LEEWAY_MAX: Duration = Duration::from_secs(300);

/// How clients are identified.
#[derive(Clone, Debug)]
pub struct Options {
    /// How clients reach the gateway, without a slash at its end: `https://cairn.example`. Tokens are for what lies under it.
    pub base: String,
    /// The local user's name, where whoever brings no credentials is that: see [`Options::admits_local_only`].
    pub local: Option<String>,
    /// OAuth issuers by the names that stand before their principals.
    pub issuers: BTreeMap<String, IssuerOptions>,
    /// Client certificates as identities.
    pub certificates: Option<CertificateOptions>,
    /// The folder with the API keys, where these are accepted.
    pub api_keys: Option<PathBuf>,
    /// The clock difference that is forgiven.
    pub leeway: Duration,
    /// How old a DPoP proof may be.
    pub proof_age_max: Duration,
    /// Proofs that are remembered; past it further ones are refused, not forgotten.
    pub proofs_max: usize,
}

impl Options {
    /// Nobody but the local user, over loopback.
    #[must_use]
    pub fn local_only(name: &str) -> Self {
        Self {
            base: "http://127.0.0.1:7070".to_owned(),
            local: Some(name.to_owned()),
            issuers: BTreeMap::new(),
            certificates: None,
            api_keys: None,
            leeway: Duration::from_secs(30),
            proof_age_max: Duration::from_secs(60),
            proofs_max: 1 << 18,
        }
    }

    /// Whether nothing but the local user is configured: then every connection is that, as on one's own machine.
    #[must_use]
    pub fn admits_local_only(&self) -> bool {
        self.issuers.is_empty() && self.certificates.is_none() && self.api_keys.is_none()
    }

    /// Refuses what could not work or would not be safe.
    ///
    /// # Errors
    /// What to change.
    pub fn check(&self) -> Result<(), OptionsError> {
        let fault = |words: String| Err(OptionsError(words));
        let is_base = |base: &http::Uri| base.path() == "/" && base.query().is_none() && base.authority().is_some();
        let base = self.base.parse::<http::Uri>().ok().filter(is_base);
        let scheme = base.as_ref().and_then(|base| base.scheme_str()).unwrap_or_default();
        if !matches!(scheme, "http" | "https") || self.base.ends_with('/') || self.base.contains(['@', '#']) {
            return fault("identity.resource must be like https://cairn.example or http://127.0.0.1:7070: scheme, host, port, and nothing behind it".to_owned());
        }
        if self.leeway > LEEWAY_MAX {
            return fault(format!("identity.leeway_seconds must be at most {}", LEEWAY_MAX.as_secs()));
        }
        if self.local.is_none() && self.admits_local_only() {
            return fault("[identity] names nobody who could come in: add an issuer, certificates or api_keys, or set local = true".to_owned());
        }
        for (name, issuer) in &self.issuers {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) || NAMES_TAKEN.contains(&name.as_str()) {
                return fault(format!(
                    "the issuer name {name:?} must have 1 to 64 letters, digits, '-', '_' or '.', and not be \"key\" or \"cert\""
                ));
            }
            issuer.check().map_err(|words| OptionsError(format!("identity.issuers.{name}: {words}")))?;
        }
        let mut names: Vec<&str> = self.issuers.values().map(|issuer| issuer.issuer.as_str()).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return fault(
                "two of identity.issuers have the same issuer: its principals would have two names".to_owned(),
            );
        }
        Ok(())
    }
}

impl OptionsError {
    pub(crate) fn about(words: &str) -> Self {
        Self(words.to_owned())
    }
}

/// What is wrong with the options, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionsError(String);

/// Where an issuer's keys are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// By its metadata (RFC 8414, OpenID Connect Discovery).
    Discovered,
    /// At this address.
    Url(String),
    /// In this file, which is read again as an address would be asked again.
    File(PathBuf),
}

/// An OAuth issuer.
#[derive(Clone, Debug)]
pub struct IssuerOptions {
    /// The issuer identifier, compared as it is written.
    pub issuer: String,
    /// Where its keys are found.
    pub keys: KeySource,
    /// A file with the certificate authorities to trust for it, besides Mozilla's list.
    pub authorities: Option<PathBuf>,
    /// The algorithms that are accepted.
    pub algorithms: Vec<Algorithm>,
    /// What `aud` must hold one of, in place of the server's own URI.
    pub audiences: Vec<String>,
    /// The claim that names the principal.
    pub principal_claim: String,
    /// The tenant of all its principals.
    pub tenant: Option<String>,
    /// The claim that names the tenant; a token without it is refused.
    pub tenant_claim: Option<String>,
    /// What kind of actors its principals are; else users, and workloads where the client acts for itself.
    pub kind: Option<Kind>,
    /// Whether only tokens bound to a certificate or a key are accepted.
    pub bound_only: bool,
    /// Keys older than this are asked for again, in the background.
    pub refresh_after: Duration,
    /// Keys older than this are not used: so long may the issuer be away.
    pub keys_age_max: Duration,
    /// So many refreshes at once,
    pub refreshes_max: u32,
    /// and one more after each of these.
    pub refresh_every: Duration,
    /// Requests that wait for a refresh.
    pub waiting_max: usize,
}

impl IssuerOptions {
    /// An issuer with the defaults.
    #[must_use]
    pub fn new(issuer: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            keys: KeySource::Discovered,
            authorities: None,
            algorithms: Algorithm::ALL.to_vec(),
            audiences: Vec::new(),
            principal_claim: "sub".to_owned(),
            tenant: None,
            tenant_claim: None,
            kind: None,
            bound_only: false,
            refresh_after: Duration::from_secs(300),
            keys_age_max: Duration::from_secs(3_600),
            refreshes_max: 6,
            refresh_every: Duration::from_secs(10),
            waiting_max: 256,
        }
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        check_url(&self.issuer).map_err(|error| format!("issuer: {error}"))?;
        if let KeySource::Url(url) = &self.keys {
            check_url(url).map_err(|error| format!("jwks_url: {error}"))?;
        }
        if self.algorithms.is_empty() {
            return Err("algorithms is empty: name one, or leave it out for all".to_owned());
        }
        if self.tenant.is_some() && self.tenant_claim.is_some() {
            return Err("has both tenant and tenant_claim: keep one".to_owned());
        }
        if self.principal_claim.is_empty() {
            return Err("principal_claim is empty: leave it out for \"sub\"".to_owned());
        }
        Ok(())
    }
}

/// What of a client certificate names the principal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CertificateName {
    /// The one URI of its subject alternative names, as SPIFFE has it.
    Uri,
    /// The one DNS name of its subject alternative names.
    Dns,
    /// The subject, whole.
    Subject,
}

/// How client certificates are identities.
#[derive(Clone, Debug)]
pub struct CertificateOptions {
    /// What names the principal.
    pub principal: CertificateName,
    /// The tenant of all of them.
    pub tenant: Option<String>,
    /// The scopes of all of them.
    pub scopes: Vec<String>,
}
