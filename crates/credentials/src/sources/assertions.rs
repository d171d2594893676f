//! Statements as grants (RFC 7523 section 2.1): of a workload's identity, and of a company's identity provider about a
//! person (identity assertion authorization grant, MCP's enterprise-managed authorization).

use url::Url;

use super::{Source, Wanted, exchange::subject, with_scopes};
use crate::{
    CredentialError, Secret,
    grant::Endpoint,
    options::{Client, Exchanged},
    token::Token,
};

const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ID_JAG: &str = "urn:ietf:params:oauth:token-type:id-jag";

impl Source {
    pub(super) async fn by_assertion(
        &self,
        client: &Client,
        assertion: &Secret,
        wanted: &Wanted<'_>,
    ) -> Result<Token, CredentialError> {
        let assertion = assertion.reveal().await?;
        self.grant_for(client, assertion.trim().to_owned(), wanted).await
    }

    pub(super) async fn by_provider(
        &self,
        client: &Client,
        provider: &Url,
        provider_client: &Client,
        exchanged: &Exchanged,
        wanted: &Wanted<'_>,
    ) -> Result<Token, CredentialError> {
        let (token, token_type) = subject(exchanged, wanted).await?;
        let found = self.discovery.endpoint(wanted.refused).await?;
        let scopes = self.scopes(&found.scopes, wanted);
        let audience = found.endpoint.issuer.ok_or_else(|| {
            CredentialError::untrusted("it does not say its issuer, which the identity provider must be told")
        })?;
        let parameters = vec![
            ("grant_type", EXCHANGE.to_owned()),
            ("requested_token_type", ID_JAG.to_owned()),
            ("subject_token", token),
            ("subject_token_type", token_type),
            ("audience", audience),
            ("resource", self.discovery.resource().to_owned()),
        ];
        let at_provider = Endpoint { url: provider.clone(), issuer: None, methods: None };
        let parameters = with_scopes(parameters, &scopes);
        let granted = self.grants.ask(&at_provider, &provider_client.id, &provider_client.proof, &parameters).await?;
        self.grant_for(client, granted.into_subject(ID_JAG)?, wanted).await
    }

    async fn grant_for(
        &self,
        client: &Client,
        assertion: String,
        wanted: &Wanted<'_>,
    ) -> Result<Token, CredentialError> {
        let found = self.discovery.endpoint(None).await?;
        let scopes = self.scopes(&found.scopes, wanted);
        let parameters = vec![
            ("grant_type", JWT_BEARER.to_owned()),
            ("assertion", assertion),
            ("resource", self.discovery.resource().to_owned()),
        ];
        let parameters = with_scopes(parameters, &scopes);
        self.grants.ask(&found.endpoint, &client.id, &client.proof, &parameters).await?.into_token(&scopes)
    }
}
