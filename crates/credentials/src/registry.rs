//! All credentials of a gateway by server, and what they stand on. Made by the wiring; asked by the gateway, by its callback
//! and by the admin API.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use cairn_clock::{Clock, Entropy};

use crate::{Callback, Credential, CredentialError, OptionsError, SealKey, options::AuthOptions};

/// What all credentials stand on.
#[derive(Clone, Debug)]
pub struct Environment {
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub entropy: Entropy,
    /// Where browsers come back to where a server's configuration names no other place.
    pub redirect_uri: String,
    /// Where what logins gave is kept, and the key that seals it; in memory only where there is none.
    pub kept: Option<(PathBuf, SealKey)>,
}

/// The credentials of a gateway. Cheap to clone.
#[derive(Clone, Default)]
pub struct Credentials(Arc<BTreeMap<String, Credential>>);

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Credentials {
    /// Credentials for servers: name, URL, options.
    ///
    /// # Errors
    /// Where one cannot work as it is configured.
    pub fn new<'a>(
        servers: impl IntoIterator<Item = (&'a str, &'a str, AuthOptions)>,
        environment: &Environment,
    ) -> Result<Self, OptionsError> {
        let made = servers.into_iter().map(|(name, url, options)| {
            let credential = Credential::new(name, url, options, environment);
            credential
                .map(|made| (name.to_owned(), made))
                .map_err(|error| OptionsError(format!("servers.{name}.auth: {error}")))
        });
        Ok(Self(Arc::new(made.collect::<Result<_, _>>()?)))
    }

    /// The credential of a server, where it has one.
    #[must_use]
    pub fn of(&self, server: &str) -> Option<&Credential> {
        self.0.get(server)
    }

    /// All of them, by server.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Credential)> {
        self.0.iter().map(|(name, credential)| (name.as_str(), credential))
    }

    /// Forgets the tokens of callers that have ended.
    pub fn tend(&self) {
        self.0.values().for_each(Credential::tend);
    }

    /// Finishes the login that a browser came back from; gives the server's name. The exchange runs to its end even where
    /// the browser does not wait.
    ///
    /// # Errors
    /// Where no login waits for it, or the authorization server gave no token.
    pub async fn finish(&self, callback: Callback) -> Result<String, CredentialError> {
        let found = self.0.iter().find(|(_, credential)| credential.awaits(&callback.state));
        let Some((name, credential)) = found else {
            return Err(CredentialError::untrusted("no login waits for this answer: begin another with `cairn login`"));
        };
        let (name, credential) = (name.clone(), credential.clone());
        let finishing = tokio::spawn(async move { credential.finish(callback).await });
        let finished = finishing.await.unwrap_or_else(|_| Err(CredentialError::unavailable("the login was cut off")));
        finished.map(|()| name)
    }
}
