//! A credential as a link uses it: the token for each request, and an ear for what the server says of it. Made by the
//! gateway for each link. Must never make a call wait: getting its token happens before, in
//! [`Credential::ready`].

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::{Asker, Credential};

/// What a link proves itself with.
#[derive(Clone, Debug)]
pub struct Proof {
    credential: Credential,
    asker: Asker,
}

impl Proof {
    /// The credential of a server, on behalf of that asker.
    #[must_use]
    pub const fn new(credential: Credential, asker: Asker) -> Self {
        Self { credential, asker }
    }
}

#[async_trait]
impl cairn_mcp::Authorize for Proof {
    async fn ready(&self) {
        if let Err(error) = self.credential.ready(&self.asker).await {
            tracing::debug!(%error, "no credential for what is no call");
        }
    }

    fn authorization(&self) -> Option<HeaderValue> {
        self.credential.header(&self.asker)
    }

    fn answered(&self, sent: Option<&HeaderValue>, status: StatusCode, headers: &HeaderMap) {
        self.credential.heard(&self.asker, sent, status, headers);
    }
}
