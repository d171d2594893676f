//! A token for one that stands for the caller (RFC 8693). The caller's own token goes to the configured token endpoint,
//! whose answer is meant for the server; it never goes to the server itself.

use std::time::Duration;

use super::{Source, Wanted, with_scopes};
use crate::{
    CredentialError,
    options::{Client, Exchanged},
    token::Token,
};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// How long a token is used whose end nobody says. It stands for somebody who may lose what the exchange looked at.
const LIFE_UNSAID: Duration = Duration::from_secs(300);

impl Source {
    pub(super) async fn by_exchange(
        &self,
        client: &Client,
        audience: Option<&str>,
        exchanged: &Exchanged,
        wanted: &Wanted<'_>,
    ) -> Result<Token, CredentialError> {
        let (token, token_type) = subject(exchanged, wanted).await?;
        let found = self.discovery.endpoint(wanted.refused).await?;
        let scopes = self.scopes(&found.scopes, wanted);
        let mut parameters = vec![
            ("grant_type", GRANT.to_owned()),
            ("subject_token", token),
            ("subject_token_type", token_type),
            ("requested_token_type", ACCESS_TOKEN.to_owned()),
            ("resource", self.discovery.resource().to_owned()),
        ];
        if let Some(audience) = audience {
            parameters.push(("audience", audience.to_owned()));
        }
        let parameters = with_scopes(parameters, &scopes);
        let granted = self.grants.ask(&found.endpoint, &client.id, &client.proof, &parameters).await?;
        granted.living_if_unsaid(LIFE_UNSAID).into_token(&scopes)
    }
}

/// Who the token stands for, and the type of what says so: as configured, else the caller.
pub(super) async fn subject(exchanged: &Exchanged, wanted: &Wanted<'_>) -> Result<(String, String), CredentialError> {
    match exchanged {
        Exchanged::Given(subject) => Ok((subject.token.reveal().await?.trim().to_owned(), subject.token_type.clone())),
        Exchanged::Callers { token_type } => {
            let caller = wanted.caller.ok_or(CredentialError::NoSubject)?;
            Ok((caller.reveal().to_owned(), token_type.clone()))
        }
    }
}
