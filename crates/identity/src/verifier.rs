//! The one door: who sent this request.
//!
//! Order: a header that says who asks counts before anything else, and where it is wrong nothing else saves the request;
//! then the connection's certificate; then, where that is allowed, the local user.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use cairn_clock::Clock;
use http::{HeaderMap, header};

use crate::{
    api_keys::{ApiKeys, KEY_PREFIX},
    binding::{self, Brought},
    certificate::PeerCertificate,
    dpop::Proofs,
    fetch::{Fetch, FetchError, HttpsFetch},
    issuer::Issuer,
    jws::Jws,
    options::{Options, OptionsError},
    rejection::{Reason, Rejection},
    token,
    who::{Credential, Identity},
};

/// A request, as far as it says who sent it.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// Its HTTP method.
    pub method: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// The client certificate of its connection, as the handshake verified it.
    pub certificate: Option<&'a PeerCertificate>,
    /// Where the connection comes from.
    pub peer: IpAddr,
    /// The server that it is for, by name.
    pub server: &'a str,
}

/// The token that `Authorization` shows, good or not: only [`Verifier::identify`] says that, and of whom it is.
#[must_use]
pub fn shown_token(headers: &HeaderMap) -> Option<&str> {
    authorization(headers).ok().flatten().map(|(_, token)| token)
}

/// The scheme of `Authorization` and what stands after it, where there is one.
fn authorization(headers: &HeaderMap) -> Result<Option<(&str, &str)>, Reason> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key(header::AUTHORIZATION) { Err(Reason::RequestMalformed) } else { Ok(None) };
    };
    let text = value.to_str().map_err(|_| Reason::RequestMalformed)?;
    let (scheme, rest) = text.split_once(' ').ok_or(Reason::RequestMalformed)?;
    let token = rest.trim_matches(' ');
    if token.is_empty() || token.contains([' ', ',']) {
        return Err(Reason::RequestMalformed);
    }
    Ok(Some((scheme, token)))
}

/// Says who sends requests.
#[derive(Debug)]
pub struct Verifier {
    options: Options,
    clock: Clock,
    /// By issuer identifier.
    issuers: BTreeMap<String, Arc<Issuer>>,
    keys: Option<ApiKeys>,
    proofs: Proofs,
}

impl Verifier {
    /// A verifier that asks issuers over the network when it must.
    ///
    /// # Errors
    /// What to change in the options.
    pub fn new(options: Options, clock: Clock) -> Result<Self, OptionsError> {
        Self::with(options, clock, |authorities| Ok(Arc::new(HttpsFetch::new(authorities)?)))
    }

    /// The same, asking by other means.
    ///
    /// # Errors
    /// What to change in the options.
    pub fn with(
        options: Options,
        clock: Clock,
        fetch: impl Fn(Option<&std::path::Path>) -> Result<Arc<dyn Fetch>, FetchError>,
    ) -> Result<Self, OptionsError> {
        options.check()?;
        let mut issuers = BTreeMap::new();
        for (name, issuer) in &options.issuers {
            let fetch = fetch(issuer.authorities.as_deref())
                .map_err(|error| OptionsError::about(&format!("identity.issuers.{name}: {error}")))?;
            let made = Issuer::new(name, issuer.clone(), fetch, clock.clone());
            issuers.insert(issuer.issuer.clone(), made);
        }
        let proofs = Proofs::new(clock.now(), options.proof_age_max, options.leeway, options.proofs_max);
        let keys = options.api_keys.as_deref().map(ApiKeys::of);
        Ok(Self { options, clock, issuers, keys, proofs })
    }

    pub(crate) const fn options(&self) -> &Options {
        &self.options
    }

    /// Whether nobody but the local user can come in.
    #[must_use]
    pub fn is_local_only(&self) -> bool {
        self.options.admits_local_only()
    }

    /// Who sent the request.
    ///
    /// # Errors
    /// Why nobody is let in by it.
    pub async fn identify(&self, presented: &Presented<'_>) -> Result<Identity, Rejection> {
        // On one's own machine clients send what they like in these headers, as ever.
        if self.is_local_only() {
            return self.local(presented.peer);
        }
        let shown = authorization(presented.headers).map_err(|reason| Rejection::new(reason, Credential::None))?;
        match shown {
            None => self.by_connection(presented),
            Some((scheme, token)) => {
                let as_dpop = scheme.eq_ignore_ascii_case("dpop");
                if !as_dpop && !scheme.eq_ignore_ascii_case("bearer") {
                    return Err(Rejection::new(Reason::SchemeUnknown, Credential::None));
                }
                if token.starts_with(KEY_PREFIX) && !as_dpop {
                    return self.by_key(token);
                }
                self.by_token(token, as_dpop, presented).await
            }
        }
    }

    fn by_connection(&self, presented: &Presented<'_>) -> Result<Identity, Rejection> {
        match (&self.options.certificates, presented.certificate) {
            (Some(options), Some(certificate)) => {
                certificate.identity(options).map_err(|reason| Rejection::new(reason, Credential::Certificate))
            }
            _ => self.local(presented.peer),
        }
    }

    /// The local user. Beside other ways to be somebody only who comes over loopback is that.
    fn local(&self, peer: IpAddr) -> Result<Identity, Rejection> {
        match &self.options.local {
            Some(name) if self.is_local_only() || peer.to_canonical().is_loopback() => Ok(Identity::local(name)),
            _ => Err(Rejection::new(Reason::NoCredentials, Credential::None)),
        }
    }

    fn by_key(&self, key: &str) -> Result<Identity, Rejection> {
        let refused = |reason| Rejection::new(reason, Credential::ApiKey);
        let keys = self.keys.as_ref().ok_or_else(|| refused(Reason::ApiKeyUnknown))?;
        keys.admit(key, self.clock.now()).map_err(refused)
    }

    async fn by_token(&self, token: &str, as_dpop: bool, presented: &Presented<'_>) -> Result<Identity, Rejection> {
        let refused = |reason: Reason, issuer: Option<&str>, who: Option<&Identity>| Rejection {
            issuer: issuer.map(ToOwned::to_owned),
            dpop: as_dpop || matches!(reason, Reason::ProofMissing | Reason::ProofInvalid | Reason::ProofReplayed),
            who: who.cloned().map(Box::new),
            ..Rejection::new(reason, Credential::Token)
        };
        let jws = Jws::read(token).map_err(|reason| refused(reason, None, None))?;
        let claims = jws.claims().map_err(|reason| refused(reason, None, None))?;
        let named = token::issuer_named(&claims).map_err(|reason| refused(reason, None, None))?;
        let issuer = self.issuers.get(named).ok_or_else(|| refused(Reason::IssuerUnknown, None, None))?;
        let name = Some(issuer.name.as_str());
        let (uri, leeway, now) = (self.resource(presented.server), self.options.leeway, self.clock.now());
        let verified = token::verify(&jws, &claims, issuer, &uri, leeway, now).await;
        let verified = verified.map_err(|reason| refused(reason, name, None))?;
        let Presented { method, headers, certificate, .. } = *presented;
        let brought = Brought { token, as_dpop, headers, certificate, method, uri: &uri };
        // Waiting for keys may have taken a while.
        binding::hold(&verified, &brought, &self.proofs, self.clock.now())
            .map_err(|reason| refused(reason, name, Some(&verified.identity)))?;
        Ok(verified.identity)
    }
}
