//! Somebody whom Cairn has verified.

use std::{fmt, sync::Arc};

/// What kind of actor a principal is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Kind {
    /// A person.
    User,
    /// An agent that acts in its own name.
    Agent,
    /// A machine.
    Workload,
    /// Whoever uses this machine.
    Local,
}

impl Kind {
    /// The word for it, in configuration, policy and events.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Agent => "agent",
            Self::Workload => "workload",
            Self::Local => "local",
        }
    }

    /// The kind that a configuration names; the local one is none of them.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        [Self::User, Self::Agent, Self::Workload].into_iter().find(|kind| kind.word() == word)
    }
}

/// What somebody is known by.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Credential {
    /// Nothing: nobody, or the local user.
    None,
    /// A token of an issuer.
    Token,
    /// An API key.
    ApiKey,
    /// A client certificate.
    Certificate,
}

/// Somebody verified. Two are the same exactly where tenant, principal and agent are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The tenant, where tenants are separate.
    pub tenant: Option<String>,
    /// Who: `<issuer>/<subject>`, `key/<principal>`, `cert/<name>`, or the local user's name. The word before the slash
    /// is the configuration's, never the credential's, so no two issuers can name the same principal.
    pub principal: String,
    /// What kind of actor that is.
    pub kind: Kind,
    /// Through which OAuth client: `<issuer>/<client id>`.
    pub agent: Option<String>,
    /// What was granted; none where scopes do not apply, as to the local user.
    pub scopes: Option<Arc<[String]>>,
    /// What it is known by.
    pub credential: Credential,
}

impl Identity {
    /// The local user of that name.
    #[must_use]
    pub fn local(name: &str) -> Self {
        Self {
            tenant: None,
            // A slash would let a user's name look like another way's principal.
            principal: name.replace('/', "_"),
            kind: Kind::Local,
            agent: None,
            scopes: None,
            credential: Credential::None,
        }
    }

    /// Those of `needed` that were not granted. Scopes are compared as they are written: none implies another.
    pub fn lacks<'a>(&self, needed: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        let Some(granted) = &self.scopes else { return Vec::new() };
        needed.into_iter().filter(|scope| !granted.contains(scope)).cloned().collect()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "{} of {tenant}", self.principal),
            None => f.write_str(&self.principal),
        }
    }
}
