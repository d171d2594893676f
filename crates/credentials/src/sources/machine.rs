//! A token that the configuration gives, and one for which Cairn itself is the account (RFC 6749 section 4.4).

use std::time::Duration;

use super::{Source, Wanted, with_scopes};
use crate::{CredentialError, Secret, options::Client, token::Token};

/// How long a configured token is used before it is read again, so that a changed file counts.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// The configured token, as it is now.
pub(super) async fn given(token: &Secret) -> Result<Token, CredentialError> {
    let unfit = |_| CredentialError::Misconfigured { reason: "token is empty, or cannot stand in a header".to_owned() };
    Token::new(token.reveal().await?.trim(), Some(READ_AGAIN), vec![]).map_err(unfit)
}

impl Source {
    pub(super) async fn by_credentials(&self, client: &Client, wanted: &Wanted<'_>) -> Result<Token, CredentialError> {
        let found = self.discovery.endpoint(wanted.refused).await?;
        let scopes = self.scopes(&found.scopes, wanted);
        let parameters =
            vec![("grant_type", "client_credentials".to_owned()), ("resource", self.discovery.resource().to_owned())];
        let parameters = with_scopes(parameters, &scopes);
        let granted = self.grants.ask(&found.endpoint, &client.id, &client.proof, &parameters).await?;
        granted.into_token(&scopes)
    }
}
