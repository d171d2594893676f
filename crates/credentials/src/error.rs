//! Why there is no token. Read by the gateway, which makes refusals of it, and by operators. Must never hold a word that
//! came from a server or an authorization server, except the codes that OAuth itself defines: it may echo a secret.

/// Why a credential is not ready. Cheap to clone: calls that wait for one renewal share its failure.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// A person must log in.
    #[error("nobody has logged in to the server {server:?} yet, or the login has ended: run `cairn login {server}`")]
    LoginRequired {
        /// The server.
        server: String,
    },
    /// The server wants more than the person's login gave.
    #[error("the server {server:?} asks for more scopes than the login gave: run `cairn login {server}` again")]
    ScopesRequired {
        /// The server.
        server: String,
    },
    /// The caller has nothing that could be exchanged.
    #[error(
        "the caller brought no token that could be exchanged for one of this server: come in with a token of an issuer in [identity.issuers], over HTTP; API keys, certificates and the local user have none"
    )]
    NoSubject,
    /// The token endpoint, or the server, refused what Cairn showed.
    #[error("{by} refused Cairn's credential ({code}): check servers.<name>.auth and what is registered there")]
    Refused {
        /// Who: the authorization server or the server.
        by: &'static str,
        /// An error code of OAuth, or an HTTP status.
        code: String,
    },
    /// Nobody could be asked.
    #[error("no token could be obtained: {reason}")]
    Unavailable {
        /// Why, in words of Cairn's own.
        reason: String,
    },
    /// The authorization server cannot be trusted with it.
    #[error("the authorization server was not used: {reason}")]
    Untrusted {
        /// Why, in words of Cairn's own.
        reason: String,
    },
    /// The configuration cannot work.
    #[error("{reason}")]
    Misconfigured {
        /// What to change.
        reason: String,
    },
}

impl CredentialError {
    /// Whether a person can mend it by logging in.
    #[must_use]
    pub const fn wants_login(&self) -> bool {
        matches!(self, Self::LoginRequired { .. } | Self::ScopesRequired { .. })
    }

    pub(crate) fn unavailable(reason: impl Into<String>) -> Self {
        Self::Unavailable { reason: reason.into() }
    }

    pub(crate) fn untrusted(reason: impl Into<String>) -> Self {
        Self::Untrusted { reason: reason.into() }
    }
}

/// Why `[servers.NAME.auth]` cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OptionsError(pub(crate) String);
