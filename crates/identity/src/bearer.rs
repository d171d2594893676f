//! Tokens that are shown with nothing beside them, by a protocol that is not HTTP: who shows one, and until when.
//!
//! Called by whoever serves such a protocol. A token is checked as one of HTTP is (`token.rs`), for the audiences that its issuer's
//! options name. One that is bound to a certificate or a key is refused: nothing is shown here that it could be bound to.

use std::{path::Path, sync::Arc, time::Duration};

use cairn_clock::{Clock, Timestamp};

use crate::{
    fetch::{Fetch, FetchError, HttpsFetch},
    issuer::Issuer,
    jws::Jws,
    options::{IssuerOptions, LEEWAY_MAX, OptionsError},
    rejection::Reason,
    token,
};

/// Who shows a token, in the issuer's own words, and until when it is good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bearer {
    /// What the principal's claim holds.
    pub name: String,
    /// When it is good no longer.
    pub ends_at: Timestamp,
}

/// Says who shows tokens of one issuer.
#[derive(Debug)]
pub struct Bearers {
    issuer: Arc<Issuer>,
    leeway: Duration,
    clock: Clock,
}

impl Bearers {
    /// Those of that issuer, whose clock may differ by `leeway`. It is asked for its keys over the network when it must be, or
    /// they are in a file.
    ///
    /// # Errors
    /// What to change in the options.
    pub fn new(options: IssuerOptions, leeway: Duration, clock: Clock) -> Result<Self, OptionsError> {
        Self::with(options, leeway, clock, |authorities| Ok(Arc::new(HttpsFetch::new(authorities)?)))
    }

    /// The same, asking by other means.
    ///
    /// # Errors
    /// What to change in the options.
    pub fn with(
        options: IssuerOptions,
        leeway: Duration,
        clock: Clock,
        fetch: impl Fn(Option<&Path>) -> Result<Arc<dyn Fetch>, FetchError>,
    ) -> Result<Self, OptionsError> {
        options.check().map_err(|words| OptionsError::about(&words))?;
        if options.audiences.is_empty() {
            return Err(OptionsError::about("audiences is empty: name what tokens for this server have in `aud`"));
        }
        if leeway > LEEWAY_MAX {
            return Err(OptionsError::about(&format!("leeway_seconds must be at most {}", LEEWAY_MAX.as_secs())));
        }
        let fetch = fetch(options.authorities.as_deref()).map_err(|error| OptionsError::about(&error.to_string()))?;
        let issuer = Issuer::new("tokens", options, fetch, clock.clone());
        Ok(Self { issuer, leeway, clock })
    }

    /// Who shows that token.
    ///
    /// # Errors
    /// Why nobody is let in by it.
    pub async fn admit(&self, token: &str) -> Result<Bearer, Reason> {
        let jws = Jws::read(token)?;
        let claims = jws.claims()?;
        if token::issuer_named(&claims)? != self.issuer.options.issuer {
            return Err(Reason::IssuerUnknown);
        }
        // Without a resource of its own, only what the options name is an audience.
        let verified = token::verify(&jws, &claims, &self.issuer, "", self.leeway, self.clock.now()).await?;
        if verified.certificate.is_some() || verified.key.is_some() {
            return Err(Reason::ProofMissing);
        }
        let name = token::subject(&claims, &self.issuer.options).ok_or(Reason::ClaimUnusable)?;
        Ok(Bearer { name, ends_at: token::expiry(&claims)?.plus(self.leeway) })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        KeySource,
        signing::{Signer, Site},
    };

    const ISSUER: &str = "https://idp.example";
    const START: Timestamp = Timestamp::from_micros(1_795_521_600_000_000);
    const SECOND: u64 = 1_795_521_600;

    fn claims() -> Value {
        json!({"iss": ISSUER, "sub": "ada", "aud": "kafka", "exp": SECOND + 300, "iat": SECOND})
    }

    fn options(keys: KeySource) -> IssuerOptions {
        IssuerOptions { audiences: vec!["kafka".to_owned()], keys, ..IssuerOptions::new(ISSUER) }
    }

    fn bearers(options: IssuerOptions, clock: &Clock) -> Result<Bearers, OptionsError> {
        let site = Arc::new(Site::default());
        Bearers::with(options, Duration::from_secs(30), clock.clone(), move |_| Ok(Arc::new(site.clone())))
    }

    #[tokio::test]
    async fn a_token_names_who_shows_it_and_when_that_ends_by_keys_in_a_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("keys.json");
        let (signer, clock) = (Signer::new("one"), Clock::manual(START));
        std::fs::write(&path, json!({"keys": [signer.jwk()]}).to_string()).expect("written");
        let bearers = bearers(options(KeySource::File(path.clone())), &clock).expect("options that can be used");
        let shown = bearers.admit(&signer.token(&claims())).await.expect("let in");
        let ends_at = START.plus(Duration::from_secs(330));
        assert_eq!(shown, Bearer { name: "ada".to_owned(), ends_at });
        let with = |key: &str, value: Value| {
            let mut claims = claims();
            claims[key] = value;
            signer.token(&claims)
        };
        for (token, reason) in [
            (with("aud", json!("other")), Reason::AudienceWrong),
            (with("aud", json!("")), Reason::AudienceWrong),
            (with("iss", json!("https://else.example")), Reason::IssuerUnknown),
            (with("exp", json!(SECOND - 31)), Reason::TokenExpired),
            (with("nbf", json!(SECOND + 31)), Reason::TokenNotYetValid),
            (with("cnf", json!({"jkt": "x"})), Reason::ProofMissing),
            (with("sub", json!("")), Reason::ClaimUnusable),
            (Signer::new("one").token(&claims()), Reason::SignatureInvalid),
            (signer.sign(&json!({"alg": "none"}), &claims()), Reason::AlgorithmRefused),
            (signer.sign(&json!({"alg": "HS256"}), &claims()), Reason::AlgorithmRefused),
            ("a.b".to_owned(), Reason::TokenMalformed),
        ] {
            assert_eq!(bearers.admit(&token).await, Err(reason), "{token}");
        }
        // Keys that are put into the file later count too.
        let other = Signer::new("two");
        assert_eq!(bearers.admit(&other.token(&claims())).await, Err(Reason::KeyUnknown));
        std::fs::write(&path, json!({"keys": [other.jwk()]}).to_string()).expect("written");
        assert!(bearers.admit(&other.token(&claims())).await.is_ok());
    }

    #[tokio::test]
    async fn options_that_would_let_in_too_many_are_refused() {
        let clock = Clock::manual(START);
        let right = options(KeySource::Url("https://idp.example/keys".to_owned()));
        assert!(bearers(right.clone(), &clock).is_ok());
        for wrong in [
            IssuerOptions { audiences: Vec::new(), ..right.clone() },
            IssuerOptions { algorithms: Vec::new(), ..right.clone() },
            IssuerOptions { issuer: "http://idp.example".to_owned(), ..right.clone() },
        ] {
            assert!(bearers(wrong, &clock).is_err());
        }
    }
}
