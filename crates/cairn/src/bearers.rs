//! `[kafka.tokens]`: whose OAuth tokens let clients in by the Kafka port, as SASL OAUTHBEARER has them.
//!
//! Read with the configuration, opened by [`crate::up`] for the broker. Tokens are checked by `identity`, as those of the gateway are.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_broker::{Bearer, Tokens};
use cairn_clock::Clock;
use cairn_identity::{Algorithm, Bearers, IssuerOptions, KeySource};
use futures::future::BoxFuture;
use serde::Deserialize;

/// How much an issuer's clock may differ where nothing else is said.
const LEEWAY: Duration = Duration::from_secs(30);

/// `[kafka.tokens]`
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokensSection {
    issuer: String,
    jwks_url: Option<String>,
    jwks_file: Option<PathBuf>,
    authorities: Option<PathBuf>,
    algorithms: Option<Vec<String>>,
    audiences: Vec<String>,
    principal_claim: Option<String>,
    leeway_seconds: Option<u64>,
}

impl TokensSection {
    /// Makes files that are named without their folder lie in this one.
    pub(crate) fn lie_in(&mut self, folder: &Path) {
        for path in [&mut self.jwks_file, &mut self.authorities].into_iter().flatten() {
            *path = folder.join(&path);
        }
    }

    /// Whoever checks them.
    pub(crate) fn open(&self, clock: &Clock) -> anyhow::Result<Arc<dyn Tokens>> {
        let leeway = self.leeway_seconds.map_or(LEEWAY, Duration::from_secs);
        let bearers = self.options().and_then(|options| Ok(Bearers::new(options, leeway, clock.clone())?));
        Ok(Arc::new(Checked(bearers.context("kafka.tokens")?)))
    }

    fn options(&self) -> anyhow::Result<IssuerOptions> {
        let mut options = IssuerOptions { audiences: self.audiences.clone(), ..IssuerOptions::new(&self.issuer) };
        options.keys = match (&self.jwks_url, &self.jwks_file) {
            (Some(_), Some(_)) => bail!("has both jwks_url and jwks_file: keep one"),
            (Some(url), None) => KeySource::Url(url.clone()),
            (None, Some(path)) => KeySource::File(path.clone()),
            (None, None) => KeySource::Discovered,
        };
        if let Some(names) = &self.algorithms {
            let known = Algorithm::ALL.map(Algorithm::name).join(", ");
            let named = names.iter().map(|name| {
                Algorithm::named(name)
                    .with_context(|| format!("an algorithm is none of {known}; symmetric ones are not accepted"))
            });
            options.algorithms = named.collect::<anyhow::Result<_>>()?;
        }
        if let Some(claim) = &self.principal_claim {
            options.principal_claim.clone_from(claim);
        }
        options.authorities.clone_from(&self.authorities);
        Ok(options)
    }
}

#[derive(Debug)]
struct Checked(Bearers);

impl Tokens for Checked {
    fn bearer<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Option<Bearer>> {
        Box::pin(async move {
            match self.0.admit(token).await {
                Ok(bearer) => Some(Bearer { name: bearer.name, ends_at: bearer.ends_at }),
                Err(reason) => {
                    tracing::warn!(reason = reason.word(), "a Kafka client's token is refused");
                    None
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(text: &str) -> Result<(), String> {
        let section: TokensSection = toml::from_str(text).map_err(|error| error.to_string())?;
        section.open(&Clock::system()).map(|_| ()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn what_could_let_in_too_many_or_nobody_is_refused_and_says_what_to_do() {
        let right = "issuer = \"https://idp.example\"\naudiences = [\"kafka\"]\n";
        assert_eq!(opened(right), Ok(()));
        assert_eq!(opened(&format!("{right}jwks_file = \"keys.json\"\nalgorithms = [\"ES256\"]\n")), Ok(()));
        for (text, says) in [
            ("issuer = \"https://idp.example\"\n".to_owned(), "audiences"),
            ("issuer = \"https://idp.example\"\naudiences = []\n".to_owned(), "audiences is empty"),
            ("issuer = \"http://idp.example\"\naudiences = [\"kafka\"]\n".to_owned(), "https"),
            (format!("{right}algorithms = [\"HS256\"]\n"), "symmetric"),
            (format!("{right}jwks_file = \"a\"\njwks_url = \"https://idp.example/k\"\n"), "keep one"),
            (format!("{right}leeway_seconds = 3600\n"), "at most"),
        ] {
            let words = opened(&text).expect_err("it must not be accepted");
            assert!(words.contains(says), "{text}: {words}");
        }
    }
}
