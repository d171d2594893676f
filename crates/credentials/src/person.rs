//! A token that a person gave by logging in once: authorization code with PKCE (OAuth 2.1), then refresh tokens. `rmcp` is
//! the OAuth client; here is what lasts longer than one login: the registration, the refresh token, and who may begin.
//!
//! A refresh token is kept before the access token that came with it is used: servers that rotate them take each once.
//! Must never send a client's registration, or a token, to another authorization server than the one that gave it.

use rmcp::transport::auth::{
    AuthError, AuthorizationManager, AuthorizationRequest, AuthorizationSession, CredentialStore,
    InMemoryCredentialStore, OAuthClientConfig, StoredCredentials,
};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::{
    Callback, CredentialError, Login, LoginState,
    challenge::Challenge,
    grant::Grants,
    login::{LOGIN_MAX, Logins},
    options::{AuthOptions, Client, ClientProof, Kind},
    sealed::Sealed,
    sources::{Discovery, Wanted, of_auth_error},
    token::{Token, Worth},
};

/// Cairn's name where it registers itself.
const CLIENT_NAME: &str = "Cairn";

/// The login of one server.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) server: String,
    pub(crate) redirect_uri: String,
    pub(crate) sealed: Option<Sealed>,
    pub(crate) logins: Logins<Begun>,
    pub(crate) kept: tokio::sync::Mutex<Kept>,
}

/// What the last login gave.
#[derive(Default)]
pub(crate) struct Kept {
    /// Whether the file was looked at.
    was_read: bool,
    record: Option<Record>,
    /// The OAuth client that gave it, while this process runs.
    active: Option<Active>,
}

struct Active {
    manager: AuthorizationManager,
    store: InMemoryCredentialStore,
}

/// What is kept on disk, sealed.
#[derive(Clone, Serialize, Deserialize)]
struct Record {
    credentials: StoredCredentials,
    client_secret: Option<String>,
    redirect_uri: String,
}

/// A login on its way.
pub(crate) struct Begun {
    session: AuthorizationSession,
    store: InMemoryCredentialStore,
    client_secret: Option<String>,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Begun")
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("is_logged_in", &self.record.is_some()).finish_non_exhaustive()
    }
}

/// What a login stands on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground<'a> {
    pub(crate) options: &'a AuthOptions,
    pub(crate) discovery: &'a Discovery,
    pub(crate) grants: &'a Grants,
}

impl Ground<'_> {
    fn client(&self) -> Option<&Client> {
        match &self.options.kind {
            Kind::Oauth { client, .. } => client.as_ref(),
            _ => None,
        }
    }

    fn metadata_url(&self) -> Option<&str> {
        match &self.options.kind {
            Kind::Oauth { client_metadata_url, .. } => client_metadata_url.as_deref(),
            _ => None,
        }
    }

    /// The configured secret as it is now.
    async fn secret(&self) -> Result<Option<String>, CredentialError> {
        match self.client().map(|client| &client.proof) {
            Some(ClientProof::Secret { secret, .. }) => secret.reveal().await.map(Some),
            _ => Ok(None),
        }
    }
}

impl Person {
    /// The token of the last login, renewed where it has to be.
    pub(crate) async fn obtain(&self, ground: Ground<'_>, wanted: &Wanted<'_>) -> Result<Token, CredentialError> {
        let mut kept = self.kept.lock().await;
        let is_first = !kept.was_read;
        self.read(&mut kept).await;
        let Some(record) = kept.record.clone() else { return Err(self.login_required()) };
        if wanted.refused.is_some_and(|challenge| challenge.wants_scopes) {
            return Err(CredentialError::ScopesRequired { server: self.server.clone() });
        }
        if is_first && wanted.refused.is_none() && record.credentials.token_response.is_some() {
            let token = self.token(&record.credentials, ground)?;
            let renewable = has_refresh_token(&record.credentials);
            if token.worth() == Worth::Good || (token.worth() == Worth::Soon && !renewable) {
                return Ok(token);
            }
        }
        if !has_refresh_token(&record.credentials) {
            return Err(self.login_required());
        }
        if wanted.refused.is_some() {
            // The server may speak for another authorization server by now, to which nothing of this one may go.
            kept.active = None;
        }
        let header = wanted.refused.and_then(|challenge| challenge.header.as_deref());
        let active = self.active(&mut kept, &record, ground, header).await?;
        let renewed = active.manager.refresh_token().await;
        let store = active.store.clone();
        match renewed {
            Ok(_) => {}
            Err(AuthError::TokenRefreshRejected(_) | AuthError::AuthorizationRequired) => {
                self.forget_tokens(&mut kept);
                return Err(self.login_required());
            }
            Err(_) => return Err(CredentialError::unavailable("the authorization server did not renew the token")),
        }
        let credentials = stored(&store).await?;
        let token = self.token(&credentials, ground)?;
        self.keep(&mut kept, Record { credentials, ..record });
        Ok(token)
    }

    /// Begins a login. The URL is for an operator.
    pub(crate) async fn begin(
        &self,
        ground: Ground<'_>,
        challenge: Option<&Challenge>,
    ) -> Result<Login, CredentialError> {
        let header = challenge.and_then(|challenge| challenge.header.as_deref());
        let (mut manager, metadata) = ground.discovery.manager(header).await?;
        let store = InMemoryCredentialStore::new();
        manager.set_credential_store(store.clone());
        let before = {
            let mut kept = self.kept.lock().await;
            self.read(&mut kept).await;
            let same = |record: &Record| record.credentials.issuer == metadata.issuer;
            kept.record.clone().filter(|record| same(record) && record.redirect_uri == self.redirect_uri)
        };
        let granted = before.as_ref().map(|record| record.credentials.granted_scopes.clone()).unwrap_or_default();
        let scopes = scopes_for(&manager, ground.options, challenge, &granted).await;
        let takes_documents = metadata.additional_fields.get("client_id_metadata_document_supported");
        let takes_documents = takes_documents.and_then(serde_json::Value::as_bool).unwrap_or(false);
        let mut request =
            AuthorizationRequest::new(&self.redirect_uri).with_client_name(CLIENT_NAME).with_scopes(scopes.clone());
        if scopes.is_empty() {
            request = request.with_initial_scope_selection(); // none are named, so none are asked for
        }
        let client_secret = match (ground.client(), ground.metadata_url().filter(|_| takes_documents), before) {
            (Some(client), _, _) => {
                request = request.with_preregistered_client(&client.id);
                ground.secret().await?
            }
            (None, Some(url), _) => {
                request = request.with_client_metadata_url(url);
                None
            }
            // Registered there already: a second registration would leave the first one lying about.
            (None, None, Some(record)) => {
                request = request.with_preregistered_client(record.credentials.client_id);
                record.client_secret
            }
            (None, None, None) => {
                let scopes: Vec<_> = scopes.iter().map(String::as_str).collect();
                let registered = manager.register_client(CLIENT_NAME, &self.redirect_uri, &scopes).await;
                let registered = registered.map_err(of_auth_error)?;
                request = request.with_preregistered_client(registered.client_id);
                registered.client_secret
            }
        };
        if let Some(secret) = &client_secret {
            request = request.with_client_secret(secret);
        }
        let session = AuthorizationSession::new(manager, request).await.map_err(|(_, error)| of_auth_error(error))?;
        let url = session.get_authorization_url().to_owned();
        let state = Url::parse(&url)
            .ok()
            .and_then(|url| url.query_pairs().find(|(name, _)| name == "state").map(|(_, state)| state.into_owned()));
        let state = state.ok_or_else(|| CredentialError::unavailable("the login has no state"))?;
        let id = ground.grants.entropy.uuid_v7(ground.grants.clock.now()).to_string();
        self.logins.begin(&id, &state, Begun { session, store, client_secret });
        Ok(Login { id, url, within: LOGIN_MAX })
    }

    /// Ends the login that this callback belongs to.
    pub(crate) async fn finish(&self, ground: Ground<'_>, callback: Callback) -> Result<Token, CredentialError> {
        let unknown = || CredentialError::untrusted("no login waits for this answer: begin another with `cairn login`");
        let (id, begun) = self.logins.take(&callback.state).ok_or_else(unknown)?;
        let ended = self.exchange(ground, begun, callback).await;
        let state = ended.as_ref().map_or_else(|error| LoginState::Failed(error.clone()), |_| LoginState::Done);
        self.logins.end(&id, state);
        ended
    }

    async fn exchange(&self, ground: Ground<'_>, begun: Begun, callback: Callback) -> Result<Token, CredentialError> {
        let Begun { session, store, client_secret } = begun;
        let denied = || CredentialError::Refused { by: "the authorization server", code: "access_denied".to_owned() };
        let code = callback.code.ok_or_else(denied)?;
        let exchanged = session.handle_callback_with_issuer(&code, &callback.state, callback.issuer.as_deref()).await;
        exchanged.map_err(of_auth_error)?;
        let credentials = stored(&store).await?;
        let token = self.token(&credentials, ground)?;
        let mut kept = self.kept.lock().await;
        kept.was_read = true;
        kept.active = Some(Active { manager: session.auth_manager, store });
        let redirect_uri = self.redirect_uri.clone();
        self.keep(&mut kept, Record { credentials, client_secret, redirect_uri });
        Ok(token)
    }

    fn login_required(&self) -> CredentialError {
        CredentialError::LoginRequired { server: self.server.clone() }
    }

    /// Looks into the file, once.
    async fn read(&self, kept: &mut Kept) {
        if std::mem::replace(&mut kept.was_read, true) {
            return;
        }
        let Some(sealed) = self.sealed.clone() else { return };
        let read = tokio::task::spawn_blocking(move || sealed.load()).await.ok().flatten();
        kept.record = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    }

    fn keep(&self, kept: &mut Kept, record: Record) {
        if let Some(sealed) = &self.sealed {
            let bytes = serde_json::to_vec(&record).expect("strings and numbers are JSON");
            if let Err(error) = sealed.save(&bytes) {
                tracing::warn!(server = %self.server, %error, "what the login gave is not kept on disk: after a restart somebody must log in again");
            }
        }
        kept.record = Some(record);
    }

    /// The tokens are spent; the registration stays.
    fn forget_tokens(&self, kept: &mut Kept) {
        kept.active = None;
        let Some(mut record) = kept.record.take() else { return };
        record.credentials.token_response = None;
        self.keep(kept, record);
    }

    /// The OAuth client that can renew. After a restart it is made anew, and only for the same authorization server.
    async fn active<'a>(
        &self,
        kept: &'a mut Kept,
        record: &Record,
        ground: Ground<'_>,
        challenge: Option<&str>,
    ) -> Result<&'a mut Active, CredentialError> {
        if kept.active.is_none() {
            let (manager, metadata) = ground.discovery.manager(challenge).await?;
            if metadata.issuer != record.credentials.issuer {
                tracing::warn!(server = %self.server, "the server has another authorization server now: somebody must log in again");
                kept.record = None;
                if let Some(sealed) = &self.sealed {
                    sealed.clear();
                }
                return Err(self.login_required());
            }
            let store = InMemoryCredentialStore::new();
            store.save(record.credentials.clone()).await.map_err(of_auth_error)?;
            let mut active = Active { manager, store };
            active.manager.set_credential_store(active.store.clone());
            configure(&mut active.manager, record, record.client_secret.clone())?;
            kept.active = Some(active);
        }
        let active = kept.active.as_mut().expect("it was just made");
        if let Some(secret) = ground.secret().await? {
            configure(&mut active.manager, record, Some(secret))?;
        }
        Ok(active)
    }

    fn token(&self, credentials: &StoredCredentials, ground: Ground<'_>) -> Result<Token, CredentialError> {
        let given = read_token(credentials).ok_or_else(|| self.login_required())?;
        let now = ground.grants.clock.now().as_micros() / 1_000_000;
        let age = credentials.token_received_at.map_or(0, |received| now.saturating_sub(received));
        let left = given.expires_in.map(|life| std::time::Duration::from_secs(life.saturating_sub(age)));
        Token::new(&given.access_token, left, credentials.granted_scopes.clone())
    }
}

/// The members of a token response that count here.
#[derive(Deserialize)]
struct Given {
    access_token: String,
    expires_in: Option<u64>,
    refresh_token: Option<String>,
}

fn read_token(credentials: &StoredCredentials) -> Option<Given> {
    serde_json::from_value(serde_json::to_value(credentials.token_response.as_ref()?).ok()?).ok()
}

fn has_refresh_token(credentials: &StoredCredentials) -> bool {
    read_token(credentials).is_some_and(|given| given.refresh_token.is_some())
}

async fn stored(store: &InMemoryCredentialStore) -> Result<StoredCredentials, CredentialError> {
    let stored = store.load().await.map_err(of_auth_error)?;
    stored.ok_or_else(|| CredentialError::unavailable("the authorization server gave no token"))
}

fn configure(
    manager: &mut AuthorizationManager,
    record: &Record,
    secret: Option<String>,
) -> Result<(), CredentialError> {
    let mut client = OAuthClientConfig::new(&record.credentials.client_id, &record.redirect_uri);
    if let Some(secret) = secret {
        client = client.with_client_secret(secret);
    }
    manager.configure_client(client).map_err(of_auth_error)
}

/// Configured scopes, else those that the server names; where it said that some are missing, those too, with what the
/// last login had.
async fn scopes_for(
    manager: &AuthorizationManager,
    options: &AuthOptions,
    challenge: Option<&Challenge>,
    granted: &[String],
) -> Vec<String> {
    let named = manager.select_initial_scopes(&[]).await;
    let mut scopes = if options.scopes.is_empty() { named } else { options.scopes.clone() };
    if let Some(challenge) = challenge.filter(|challenge| challenge.wants_scopes) {
        scopes.extend(granted.iter().chain(&challenge.scopes).cloned());
    }
    let mut seen = std::collections::HashSet::new();
    scopes.retain(|scope| seen.insert(scope.clone()));
    scopes
}
