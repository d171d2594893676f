//! A secret of the configuration, read anew each time it is needed, so that a changed file counts without a restart.
//! Made by the wiring, used by the sources of tokens. Must never show itself.

use std::{fmt, sync::Arc};

use crate::CredentialError;

type Reading = Arc<dyn Fn() -> Result<String, String> + Send + Sync>;

/// How to come by a secret.
#[derive(Clone)]
pub struct Secret(Reading);

impl Secret {
    /// A secret that `read` gives; its error must say what to do and must not hold the secret.
    pub fn new(read: impl Fn() -> Result<String, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// A secret that stays as it is.
    #[must_use]
    pub fn fixed(text: &str) -> Self {
        let text = text.to_owned();
        Self::new(move || Ok(text.clone()))
    }

    /// The secret as it is now. It may come from a file, so it is read where blocking harms nobody.
    ///
    /// # Errors
    /// [`CredentialError::Misconfigured`] where it cannot be read.
    pub(crate) async fn reveal(&self) -> Result<String, CredentialError> {
        let read = self.0.clone();
        let read =
            tokio::task::spawn_blocking(move || read()).await.unwrap_or_else(|_| Err("reading it failed".into()));
        read.map_err(|reason| CredentialError::Misconfigured { reason })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
