//! A token for one that stands for the caller (RFC 8693). The caller's own token goes to the configured token endpoint,
//! whose answer is meant for the server; it never goes to the server itself.

use super::{Source, Wanted, with_scopes};
use crate::{
    CredentialError,
    options::{Client, Subject},
    token::Token,
};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";

impl Source {
    pub(super) async fn by_exchange(
        &self,
        client: &Client,
        audience: Option<&str>,
        configured: Option<&Subject>,
        wanted: &Wanted<'_>,
    ) -> Result<Token, CredentialError> {
        let subject = subject(configured, wanted)?;
        let found = self.discovery.endpoint(wanted.refused).await?;
        let scopes = self.scopes(&found.scopes, wanted);
        let mut parameters = vec![
            ("grant_type", GRANT.to_owned()),
            ("subject_token", subject.token.reveal().await?),
            ("subject_token_type", subject.token_type.clone()),
            ("requested_token_type", ACCESS_TOKEN.to_owned()),
            ("resource", self.discovery.resource().to_owned()),
        ];
        if let Some(audience) = audience {
            parameters.push(("audience", audience.to_owned()));
        }
        let parameters = with_scopes(parameters, &scopes);
        self.grants.ask(&found.endpoint, &client.id, &client.proof, &parameters).await?.into_token(&scopes)
    }
}

/// Who the token stands for: as configured, else the caller.
pub(super) fn subject<'a>(
    configured: Option<&'a Subject>,
    wanted: &Wanted<'a>,
) -> Result<&'a Subject, CredentialError> {
    configured.or(wanted.asker.subject.as_ref()).ok_or(CredentialError::NoSubject)
}
