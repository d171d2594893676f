//! Which authorization server speaks for a server, and where it gives tokens: what the server's metadata says (RFC 9728,
//! RFC 8414), or what the configuration says instead. `rmcp` does the reading and the checks of issuer and resource; here
//! are the checks of addresses, and the memory of what was found.

use std::{sync::Arc, time::Duration};

use rmcp::transport::auth::{AuthError, AuthorizationManager, AuthorizationMetadata, AuthorizationMetadataSource};
use tokio::time::Instant;
use url::Url;

use crate::{CredentialError, challenge::Challenge, grant::Endpoint, guarded::GuardedClient};

/// What was found is believed for so long.
const FRESH_FOR: Duration = Duration::from_secs(3_600);

/// What is known of a server's authorization server.
#[derive(Debug)]
pub(crate) struct Discovery {
    server: Url,
    resource: String,
    issuer: Option<Url>,
    token_endpoint: Option<Url>,
    client: GuardedClient,
    found: tokio::sync::Mutex<Option<(Found, Instant)>>,
}

/// Where tokens are given, and which scopes the server says that it wants.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) endpoint: Endpoint,
    pub(crate) scopes: Vec<String>,
}

impl Discovery {
    pub(crate) fn new(
        server: Url,
        resource: Option<String>,
        issuer: Option<Url>,
        token_endpoint: Option<Url>,
        client: GuardedClient,
    ) -> Self {
        let resource = resource.unwrap_or_else(|| {
            let mut plain = server.clone();
            plain.set_fragment(None);
            plain.to_string()
        });
        Self { server, resource, issuer, token_endpoint, client, found: tokio::sync::Mutex::default() }
    }

    /// What a token is asked for.
    pub(crate) fn resource(&self) -> &str {
        &self.resource
    }

    /// An OAuth client that knows the authorization server, as it is now.
    pub(crate) async fn manager(
        &self,
        challenge: Option<&str>,
    ) -> Result<(AuthorizationManager, AuthorizationMetadata), CredentialError> {
        let mut manager = self.fresh(&self.server).await?;
        let resolved = manager.resolve_metadata_from_challenge(challenge).await;
        let metadata = match &self.issuer {
            // What the server says of its scopes counts; which authorization server is asked, the configuration says.
            Some(issuer) => self.metadata_of(issuer).await?,
            None => resolved.map_err(of_auth_error)?.metadata,
        };
        let endpoints = [Some(&metadata.token_endpoint), Some(&metadata.authorization_endpoint)];
        for endpoint in endpoints.into_iter().flatten().chain(&metadata.registration_endpoint) {
            self.admit(endpoint)?;
        }
        manager.set_metadata(metadata.clone());
        Ok((manager, metadata))
    }

    /// The token endpoint. It is looked for again after a refusal: the server may have another authorization server by now.
    pub(crate) async fn endpoint(&self, refused: Option<&Challenge>) -> Result<Found, CredentialError> {
        if let Some(url) = &self.token_endpoint {
            let issuer = self.issuer.as_ref().map(|issuer| issuer.as_str().trim_end_matches('/').to_owned());
            return Ok(Found { endpoint: Endpoint { url: url.clone(), issuer, methods: None }, scopes: vec![] });
        }
        let mut found = self.found.lock().await;
        let known = found.as_ref().filter(|(_, at)| at.elapsed() < FRESH_FOR && refused.is_none());
        if let Some((known, _)) = known {
            return Ok(known.clone());
        }
        let (manager, metadata) = self.manager(refused.and_then(|challenge| challenge.header.as_deref())).await?;
        let url = self.admit(&metadata.token_endpoint)?;
        let methods = metadata.additional_fields.get("token_endpoint_auth_methods_supported");
        let methods = methods.and_then(|methods| serde_json::from_value(methods.clone()).ok());
        let endpoint = Endpoint { url, issuer: metadata.issuer, methods };
        let fresh = Found { endpoint, scopes: manager.select_initial_scopes(&[]).await };
        *found = Some((fresh.clone(), Instant::now()));
        Ok(fresh)
    }

    async fn fresh(&self, base: &Url) -> Result<AuthorizationManager, CredentialError> {
        let client = Arc::new(self.client.clone());
        AuthorizationManager::new_with_oauth_http_client(base.as_str(), client).await.map_err(of_auth_error)
    }

    /// The metadata of an authorization server that the configuration names.
    async fn metadata_of(&self, issuer: &Url) -> Result<AuthorizationMetadata, CredentialError> {
        let resolved = self.fresh(issuer).await?.resolve_metadata().await.map_err(of_auth_error)?;
        let same = |said: &str| said.trim_end_matches('/') == issuer.as_str().trim_end_matches('/');
        if resolved.source == AuthorizationMetadataSource::LegacyEndpointFallback {
            return Err(CredentialError::unavailable("the configured issuer publishes no metadata"));
        }
        if !resolved.metadata.issuer.as_deref().is_some_and(same) {
            return Err(CredentialError::untrusted("the metadata of the configured issuer names another one"));
        }
        Ok(resolved.metadata)
    }

    fn admit(&self, endpoint: &str) -> Result<Url, CredentialError> {
        let reason = "its metadata names an address that is not allowed for this server: where it is meant, name the \
                      host in servers.<name>.auth.hosts";
        let url = Url::parse(endpoint).ok().filter(|url| self.client.admits(url));
        url.ok_or_else(|| CredentialError::untrusted(reason))
    }
}

/// What went wrong, without a word of the other side's.
pub(crate) fn of_auth_error(error: AuthError) -> CredentialError {
    let refused = |code: &str| CredentialError::Refused { by: "the authorization server", code: code.to_owned() };
    match error {
        AuthError::DiscoveryRequestFailed { source, .. } => {
            let own = crate::guarded::own_words(&*source);
            CredentialError::unavailable(own.unwrap_or_else(|| "its metadata could not be read".to_owned()))
        }
        AuthError::ProtectedResourceMetadataInvalid { .. } => {
            CredentialError::untrusted("the server's protected resource metadata is not about this server's URL")
        }
        AuthError::AuthorizationServersUnavailable { .. } => CredentialError::untrusted(
            "none of those that the server names publishes metadata that can be used, or may be asked: where one is \
             meant, name its host in servers.<name>.auth.hosts",
        ),
        AuthError::AuthorizationServerMismatch { .. } | AuthError::AuthorizationServerMissingIssuer { .. } => {
            CredentialError::untrusted("its issuer is not the one that was asked (RFC 8414, RFC 9207)")
        }
        AuthError::PkceUnsupported => CredentialError::untrusted("it does not take PKCE with S256"),
        AuthError::RegistrationFailed(_) => refused("registration failed: give client_id"),
        AuthError::TokenExchangeFailed(_) => refused("the code was not taken"),
        AuthError::InvalidScope(_) => CredentialError::untrusted("it does not offer logins with a code"),
        AuthError::NoAuthorizationSupport => CredentialError::unavailable("the server names no authorization server"),
        _ => CredentialError::unavailable("the authorization server did not answer as OAuth wants"),
    }
}
