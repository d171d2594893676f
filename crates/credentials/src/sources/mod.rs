//! Where tokens come from, one file for each way without a person. Called by a credential, one at a time for each of its
//! tokens. A source asks once and gives what came: renewing, waiting and giving up belong to the credential.

mod assertions;
mod discovery;
mod exchange;
mod machine;

pub(crate) use discovery::{Discovery, of_auth_error};

use crate::{
    CallerToken, CredentialError,
    challenge::Challenge,
    grant::Grants,
    options::{AuthOptions, Exchanged, Kind},
    person::{Ground, Person},
    token::Token,
};

/// What is asked for.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    /// The token that the caller came in with, where a call or a session of its still holds it.
    pub(crate) caller: Option<&'a CallerToken>,
    /// Why the last token was not taken, where that is why another is wanted.
    pub(crate) refused: Option<&'a Challenge>,
    /// What the last token was good for.
    pub(crate) scopes: &'a [String],
}

/// One server's source.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) options: AuthOptions,
    pub(crate) grants: Grants,
    pub(crate) discovery: Discovery,
    /// The login, where the token comes from a person.
    pub(crate) person: Option<Person>,
}

impl Source {
    /// Whether each principal has a token of its own.
    pub(crate) fn is_per_principal(&self) -> bool {
        let callers = |subject: &Exchanged| matches!(subject, Exchanged::Callers { .. });
        matches!(&self.options.kind, Kind::TokenExchange { subject, .. } | Kind::Enterprise { subject, .. } if callers(subject))
    }

    /// What a login stands on.
    pub(crate) const fn ground(&self) -> Ground<'_> {
        Ground { options: &self.options, discovery: &self.discovery, grants: &self.grants }
    }

    /// A new token.
    pub(crate) async fn obtain(&self, wanted: &Wanted<'_>) -> Result<Token, CredentialError> {
        match &self.options.kind {
            Kind::Bearer { token } => machine::given(token).await,
            Kind::Oauth { .. } => {
                let person = self.person.as_ref().expect("this kind is made with a login");
                person.obtain(self.ground(), wanted).await
            }
            Kind::ClientCredentials { client } => self.by_credentials(client, wanted).await,
            Kind::JwtBearer { client, assertion } => self.by_assertion(client, assertion, wanted).await,
            Kind::TokenExchange { client, audience, subject } => {
                self.by_exchange(client, audience.as_deref(), subject, wanted).await
            }
            Kind::Enterprise { client, provider, provider_client, subject } => {
                self.by_provider(client, provider, provider_client, subject, wanted).await
            }
        }
    }

    /// The scopes to ask for: the configured ones, else those that the server names; with what it said is missing.
    fn scopes(&self, named: &[String], wanted: &Wanted<'_>) -> Vec<String> {
        let base = if self.options.scopes.is_empty() { named } else { &self.options.scopes };
        let mut scopes: Vec<String> = base.to_vec();
        if let Some(challenge) = wanted.refused.filter(|challenge| challenge.wants_scopes) {
            scopes.extend(wanted.scopes.iter().chain(&challenge.scopes).cloned());
        }
        let mut seen = std::collections::HashSet::new();
        scopes.retain(|scope| scope != "offline_access" && seen.insert(scope.clone()));
        scopes
    }
}

/// Parameters of a request, with `scope` and `resource` where there is something to say.
fn with_scopes<'a>(mut parameters: Vec<(&'a str, String)>, scopes: &[String]) -> Vec<(&'a str, String)> {
    if !scopes.is_empty() {
        parameters.push(("scope", scopes.join(" ")));
    }
    parameters
}
