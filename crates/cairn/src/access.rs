//! `[identity]` and the scopes of servers: what the configuration says about who may come in over HTTP.
//!
//! Read with the configuration, turned into the gateway's [`Access`] once it is known where the gateway listens. A gateway
//! that other machines reach and that would let everybody in is refused here.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_clock::Clock;
use cairn_gateway::{Access, ScopeRules};
use cairn_identity::{
    Algorithm, CertificateName, CertificateOptions, IssuerOptions, KeySource, Kind, Options, Verifier,
};
use serde::Deserialize;

use crate::{config::Config, listen::HTTP};

/// `[identity]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IdentitySection {
    local: Option<bool>,
    resource: Option<String>,
    api_keys: bool,
    leeway_seconds: Option<u64>,
    proof_age_seconds: Option<u64>,
    issuers: BTreeMap<String, IssuerSection>,
    certificates: Option<CertificatesSection>,
}

/// `[identity.issuers.<name>]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerSection {
    issuer: String,
    jwks_url: Option<String>,
    authorities: Option<PathBuf>,
    algorithms: Option<Vec<String>>,
    #[serde(default)]
    audiences: Vec<String>,
    principal_claim: Option<String>,
    tenant: Option<String>,
    tenant_claim: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    bound_only: bool,
    refresh_seconds: Option<u64>,
    keys_age_seconds_max: Option<u64>,
    refreshes_per_minute_max: Option<u32>,
}

/// `[identity.certificates]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificatesSection {
    principal: String,
    tenant: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

impl IdentitySection {
    /// Makes files that are named without their folder lie in this one.
    pub(crate) fn lie_in(&mut self, folder: &Path) {
        for path in self.issuers.values_mut().filter_map(|issuer| issuer.authorities.as_mut()) {
            *path = folder.join(&path);
        }
    }

    /// What makes no sense whatever the gateway listens on.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (name, issuer) in &self.issuers {
            issuer.options().with_context(|| format!("identity.issuers.{name}"))?;
        }
        if let Some(certificates) = &self.certificates {
            certificates.options()?;
        }
        Ok(())
    }

    fn names_somebody(&self) -> bool {
        self.api_keys || self.certificates.is_some() || !self.issuers.is_empty()
    }
}

impl IssuerSection {
    fn options(&self) -> anyhow::Result<IssuerOptions> {
        let mut options = IssuerOptions::new(&self.issuer);
        if let Some(url) = &self.jwks_url {
            options.keys = KeySource::Url(url.clone());
        }
        if let Some(names) = &self.algorithms {
            let known = Algorithm::ALL.map(Algorithm::name).join(", ");
            let named = names.iter().map(|name| {
                Algorithm::named(name)
                    .with_context(|| format!("an algorithm is none of {known}; symmetric ones are not accepted"))
            });
            options.algorithms = named.collect::<anyhow::Result<_>>()?;
        }
        if let Some(word) = &self.kind {
            options.kind = Some(Kind::named(word).context("kind must be \"user\", \"agent\" or \"workload\"")?);
        }
        if let Some(claim) = &self.principal_claim {
            options.principal_claim.clone_from(claim);
        }
        options.authorities.clone_from(&self.authorities);
        options.audiences.clone_from(&self.audiences);
        options.tenant.clone_from(&self.tenant);
        options.tenant_claim.clone_from(&self.tenant_claim);
        options.bound_only = self.bound_only;
        let seconds = |given: Option<u64>, default| given.map_or(default, Duration::from_secs);
        options.refresh_after = seconds(self.refresh_seconds, options.refresh_after);
        options.keys_age_max = seconds(self.keys_age_seconds_max, options.keys_age_max);
        if let Some(times) = self.refreshes_per_minute_max {
            if times == 0 {
                bail!("refreshes_per_minute_max is 0, so no keys could be had: set it to at least 1");
            }
            options.refreshes_max = times;
            options.refresh_every = Duration::from_secs(60) / times;
        }
        Ok(options)
    }
}

impl CertificatesSection {
    fn options(&self) -> anyhow::Result<CertificateOptions> {
        let principal = match self.principal.as_str() {
            "uri" => CertificateName::Uri,
            "dns" => CertificateName::Dns,
            "subject" => CertificateName::Subject,
            _ => bail!("identity.certificates.principal must be \"uri\", \"dns\" or \"subject\""),
        };
        Ok(CertificateOptions { principal, tenant: self.tenant.clone(), scopes: self.scopes.clone() })
    }
}

/// Refuses scopes that could not stand in a challenge (RFC 6749, section 3.3).
pub(crate) fn check_scopes<'a>(scopes: impl IntoIterator<Item = &'a String>) -> anyhow::Result<()> {
    for scope in scopes {
        if scope.is_empty() || !scope.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"\\".contains(&byte)) {
            bail!("a scope must be one word of printable ASCII without quotes or backslashes");
        }
    }
    Ok(())
}

/// Who may come in over HTTP where the gateway listens on that address.
pub(crate) fn access(
    config: &Config,
    address: SocketAddr,
    data: &Path,
    user: &str,
    clock: &Clock,
) -> anyhow::Result<Access> {
    let section = config.identity.clone().unwrap_or_default();
    let tls = config.gateway.tls.as_ref().map(|tls| tls.open("gateway", HTTP)).transpose()?;
    let is_here = address.ip().is_loopback();
    let is_local = section.local.unwrap_or(config.identity.is_none());
    if !is_here && section.local != Some(true) && !section.names_somebody() {
        bail!(
            "the gateway listens on {address}, which other machines reach, and whoever comes would be let in as {user}: \
             configure [identity] (docs/identity.md), or listen on 127.0.0.1, or say that this is meant with [identity] local = true"
        );
    }
    let asks_for_certificates = config.gateway.tls.as_ref().is_some_and(|tls| tls.client_authorities.is_some());
    if section.certificates.is_some() && !asks_for_certificates {
        bail!("[identity.certificates] needs gateway.tls.client_authorities: whose certificates are good?");
    }
    let scheme = if tls.is_some() { "https" } else { "http" };
    let base = match &section.resource {
        Some(resource) => resource.trim_end_matches('/').to_owned(),
        None if is_here || section.issuers.is_empty() => format!("{scheme}://{address}"),
        None => bail!(
            "identity.resource is missing: how do clients reach this gateway, such as https://cairn.example? Tokens must be for that"
        ),
    };
    if !is_here && tls.is_none() && section.names_somebody() && !base.starts_with("https://") {
        eprintln!(
            "cairn: credentials come to {address} in the clear: set [gateway.tls], or put something before it that has TLS"
        );
    }
    let mut options = Options::local_only(user);
    options.base = base;
    options.local = is_local.then(|| user.to_owned());
    options.api_keys = section.api_keys.then(|| data.to_owned());
    options.certificates = section.certificates.as_ref().map(CertificatesSection::options).transpose()?;
    for (name, issuer) in &section.issuers {
        options.issuers.insert(name.clone(), issuer.options().with_context(|| format!("identity.issuers.{name}"))?);
    }
    if let Some(seconds) = section.leeway_seconds {
        options.leeway = Duration::from_secs(seconds);
    }
    if let Some(seconds) = section.proof_age_seconds {
        options.proof_age_max = Duration::from_secs(seconds);
    }
    let scopes = config.servers.iter().map(|(name, server)| (name.clone(), server.scope_rules()));
    let scopes: BTreeMap<String, ScopeRules> = scopes.collect();
    let verifier = Arc::new(Verifier::new(options, clock.clone())?);
    Ok(Access { verifier, scopes, tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(text: &str, address: &str) -> Result<Access, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("cairn.toml");
        std::fs::write(&path, text).expect("written");
        let config = Config::read(&path).map_err(|error| format!("{error:#}"))?;
        let address = address.parse().expect("an address");
        access(&config, address, folder.path(), "me", &Clock::system()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_gateway_that_others_reach_lets_nobody_in_by_mistake() {
        assert!(opened("", "127.0.0.1:7070").expect("as ever").verifier.is_local_only());
        assert!(opened("", "[::1]:7070").is_ok());
        for text in ["", "[identity]\nlocal = false\n"] {
            let words = opened(text, "0.0.0.0:7070").expect_err("everybody would be let in");
            assert!(words.contains("[identity]") && words.contains("local = true"), "{words}");
        }
        assert!(opened("[identity]\nlocal = true\n", "0.0.0.0:7070").is_ok(), "it was meant");
        assert!(opened("[identity]\napi_keys = true\n", "0.0.0.0:7070").is_ok());
        assert!(opened("[identity]\nlocal = false\n", "127.0.0.1:1").expect_err("nobody").contains("nobody"));
    }

    #[test]
    fn what_could_not_work_says_what_to_do() {
        let issuer = "[identity.issuers.corp]\nissuer = \"https://idp.example\"\n";
        for (text, says) in [
            (issuer.to_owned(), "identity.resource"),
            (format!("[identity]\nresource = \"https://x/y\"\n{issuer}"), "identity.resource"),
            (issuer.replace("https", "http"), "https"),
            (format!("{issuer}algorithms = [\"HS256\"]\n"), "symmetric"),
            (format!("{issuer}kind = \"god\"\n"), "workload"),
            (format!("{issuer}refreshes_per_minute_max = 0\n"), "at least 1"),
            (format!("[identity]\nresource = \"https://x\"\n{issuer}").replace("corp", "key"), "issuer name"),
            ("[identity.certificates]\nprincipal = \"uri\"\n".to_owned(), "client_authorities"),
            ("[identity.certificates]\nprincipal = \"name\"\n".to_owned(), "\"subject\""),
            (
                "[gateway.tls]\ncertificate = \"no.pem\"\nkey = \"no.key\"\n[identity]\nlocal = true\n".to_owned(),
                "no.pem",
            ),
            ("[servers.a]\ncommand = \"x\"\nscopes = [\"a b\"]\n".to_owned(), "one word"),
        ] {
            let words = opened(&text, "0.0.0.0:7070").expect_err("it could not work");
            assert!(words.contains(says), "{text}: {words}");
        }
    }
}
