//! One server's credential: which token is used, when it is renewed, and what a refusal means.
//!
//! | what happens | what follows |
//! | --- | --- |
//! | a call comes and there is a good token | it is used |
//! | it will run out soon | it is used, and renewed meanwhile |
//! | it has run out, or the server refused it | the call waits for one renewal, which all such calls share |
//! | the renewal fails | those calls fail; for a while that grows, later ones fail at once, without asking again |
//! | a new token is refused before the server took it once | the same: another one would be refused as well |
//!
//! A renewal runs in a task of its own: a client that goes away must not cut it off between the authorization server's
//! answer and its safekeeping, because refresh tokens are good for one time.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode};
use parking_lot::Mutex;
use tokio::time::Instant;
use url::Url;

use crate::{
    Callback, CallerToken, CredentialError, Environment, Hosts, Login, LoginState, OptionsError,
    challenge::Challenge,
    grant::Grants,
    guarded::GuardedClient,
    login::Logins,
    options::{AuthOptions, Kind},
    person::{Ground, Kept, Person},
    sealed::Sealed,
    sources::{Discovery, Source, Wanted},
    token::{Token, Worth},
};

/// Principals with a token of their own at once; past it, those of the longest unused ones are dropped.
const PRINCIPALS_MAX: usize = 1_024;
/// After a failure nobody is asked for so long,
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// doubled with each further one up to this.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// On whose behalf a token is wanted.
#[derive(Clone, Debug, Default)]
pub struct Asker {
    /// Tenant, principal and agent, where each has a token of its own.
    pub principal: Option<String>,
}

impl Asker {
    /// A principal: one text for one of them.
    #[must_use]
    pub const fn new(principal: String) -> Self {
        Self { principal: Some(principal) }
    }
}

/// How a credential stands, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// There is a token.
    Ready,
    /// A person must log in.
    LoginRequired,
    /// The last try failed.
    Failing(CredentialError),
    /// Nobody has asked yet.
    Idle,
}

/// One server's credential. Cheap to clone.
#[derive(Clone)]
pub struct Credential(Arc<Inner>);

struct Inner {
    server: String,
    url: Url,
    source: Source,
    slots: Mutex<HashMap<String, Slot>>,
}

/// The token of one principal, or of all.
#[derive(Clone)]
struct Slot {
    held: Arc<Mutex<Held>>,
    renewing: Arc<tokio::sync::Mutex<()>>,
    used: Instant,
}

#[derive(Default)]
struct Held {
    token: Option<Arc<Token>>,
    /// What the server said of the token, or of the lack of one.
    refused: Option<Challenge>,
    failed: Option<Failure>,
    failures: u32,
    /// The token that the caller came in with last, as long as its call or its session holds it.
    brought: Weak<CallerToken>,
    /// Which one that was.
    fingerprint: Option<[u8; 32]>,
    /// What it was granted, and so what `token` was exchanged for.
    granted: Vec<String>,
}

#[derive(Clone)]
struct Failure {
    error: CredentialError,
    until: Instant,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("server", &self.0.server).finish_non_exhaustive()
    }
}

impl Slot {
    /// The least is the first to go: callers who are here stay before those who are gone.
    fn age(&self) -> (bool, Instant) {
        (self.held.lock().brought.strong_count() > 0, self.used)
    }
}

impl Held {
    fn usable(&self) -> Option<&Arc<Token>> {
        self.token.as_ref().filter(|token| self.refused.is_none() && token.worth() != Worth::Spent)
    }

    fn fail(&mut self, error: CredentialError) {
        let pause = PAUSE_MIN.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.failed = Some(Failure { error, until: Instant::now() + pause });
    }

    /// The caller came in with this token.
    fn bring(&mut self, brought: &Arc<CallerToken>) {
        let refused = |failure: &Failure| matches!(failure.error, CredentialError::Refused { .. });
        if self.fingerprint.replace(brought.fingerprint()) != Some(brought.fingerprint()) {
            // What another token was refused for says nothing of this one.
            self.failed.take_if(|failure| refused(failure));
        }
        if self.granted != brought.scopes() {
            // Nobody reaches farther, or less far, by what another token was exchanged for.
            self.token = None;
            self.refused = None;
            self.granted = brought.scopes().to_vec();
        }
        self.brought = Arc::downgrade(brought);
    }

    /// Whether anything here may be needed again.
    fn is_needed(&self) -> bool {
        let pauses = self.failed.as_ref().is_some_and(|failure| failure.until > Instant::now());
        self.usable().is_some() || self.brought.strong_count() > 0 || pauses
    }

    fn set(&mut self, token: Token) {
        if self.token.as_ref().is_some_and(|old| old.is_accepted() && old.is(token.header())) {
            token.accept(); // the same one, read again
        }
        self.token = Some(Arc::new(token));
        self.refused = None;
        self.failed = None;
    }
}

impl Credential {
    /// A credential; nothing is asked before it is needed.
    ///
    /// # Errors
    /// What to change in the configuration.
    pub(crate) fn new(
        server: &str,
        url: &str,
        options: AuthOptions,
        environment: &Environment,
    ) -> Result<Self, OptionsError> {
        options.check()?;
        let url = Url::parse(url.trim()).map_err(|_| OptionsError("the server's url is no URL".to_owned()))?;
        let client = GuardedClient::new(Hosts::new(&url, options.named_hosts()));
        let (clock, entropy) = (environment.clock.clone(), environment.entropy.clone());
        let (issuer, endpoint) = (options.issuer.clone(), options.token_endpoint.clone());
        let discovery = Discovery::new(url.clone(), options.resource.clone(), issuer, endpoint, client.clone());
        let person = match &options.kind {
            Kind::Oauth { redirect_uri, .. } => {
                let sealed = environment.kept.as_ref();
                let sealed =
                    sealed.map(|(folder, key)| Sealed::new(folder, server, key.clone(), environment.entropy.clone()));
                let redirect_uri =
                    redirect_uri.as_ref().map_or_else(|| environment.redirect_uri.clone(), ToString::to_string);
                let kept = tokio::sync::Mutex::new(Kept::default());
                Some(Person { server: server.to_owned(), redirect_uri, sealed, logins: Logins::default(), kept })
            }
            _ => None,
        };
        let source = Source { options, grants: Grants { client, clock, entropy }, discovery, person };
        Ok(Self(Arc::new(Inner { server: server.to_owned(), url, source, slots: Mutex::default() })))
    }

    /// Whether a caller's own token is exchanged for the server's.
    #[must_use]
    pub fn wants_callers(&self) -> bool {
        self.0.source.is_per_principal()
    }

    /// The asker came in with this token, which is verified. It can be exchanged as long as somebody else holds it.
    pub fn bring(&self, asker: &Asker, brought: &Arc<CallerToken>) {
        if self.wants_callers() {
            self.slot(asker).held.lock().bring(brought);
        }
    }

    /// Forgets the tokens of callers that have ended.
    pub fn tend(&self) {
        if self.wants_callers() {
            // One that a call looks at right now is held by it, too.
            self.0.slots.lock().retain(|_, slot| Arc::strong_count(&slot.held) > 1 || slot.held.lock().is_needed());
        }
    }

    /// Sees to it that the next request of this asker carries a token that is good as far as anybody knows. Waits where
    /// one must be got first.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn ready(&self, asker: &Asker) -> Result<(), CredentialError> {
        let slot = self.slot(asker);
        let worth = {
            let held = slot.held.lock();
            match held.usable() {
                Some(token) => token.worth(),
                None => Worth::Spent,
            }
        };
        match worth {
            Worth::Good => Ok(()),
            Worth::Soon => {
                if let Ok(alone) = slot.renewing.clone().try_lock_owned() {
                    let (credential, slot) = (self.clone(), slot.clone());
                    tokio::spawn(async move { credential.renew(&slot, alone).await });
                }
                Ok(())
            }
            Worth::Spent => {
                let alone = slot.renewing.clone().lock_owned().await;
                if slot.held.lock().usable().is_some() {
                    return Ok(()); // whoever was here before has seen to it
                }
                let (credential, slot) = (self.clone(), slot.clone());
                let renewing = tokio::spawn(async move { credential.renew(&slot, alone).await });
                renewing.await.unwrap_or_else(|_| Err(CredentialError::unavailable("the renewal was cut off")))
            }
        }
    }

    /// Asks the source, unless it failed a moment ago.
    async fn renew(&self, slot: &Slot, _alone: tokio::sync::OwnedMutexGuard<()>) -> Result<(), CredentialError> {
        let (refused, scopes, caller, granted) = {
            let held = slot.held.lock();
            if let Some(failure) = held.failed.as_ref().filter(|failure| failure.until > Instant::now()) {
                return Err(failure.error.clone());
            }
            let scopes = held.token.as_ref().map(|token| token.scopes.clone()).unwrap_or_default();
            let refused = held.refused.clone().filter(|_| held.token.is_some());
            (refused, scopes, held.brought.upgrade(), held.granted.clone())
        };
        let wanted = Wanted { caller: caller.as_deref(), refused: refused.as_ref(), scopes: &scopes };
        let obtained = self.0.source.obtain(&wanted).await;
        let mut held = slot.held.lock();
        if held.granted != granted {
            return Err(CredentialError::unavailable("the caller came in with another token meanwhile: call again"));
        }
        match obtained {
            // The same one again is not shown again at once; after the pause the server may have come to its senses.
            Ok(token)
                if refused.is_some()
                    && held.failed.is_none()
                    && held.token.as_ref().is_some_and(|old| token.is(old.header())) =>
            {
                let error = CredentialError::Refused { by: "the server", code: "HTTP 401".to_owned() };
                held.fail(error.clone());
                Err(error)
            }
            Ok(token) => {
                held.set(token);
                Ok(())
            }
            Err(error) => {
                // A token that still is good outlives a renewal that failed.
                if held.usable().is_none() {
                    tracing::warn!(server = %self.0.server, %error, "no credential for the server");
                }
                // A person may log in at any moment, and whether somebody did costs nothing to find out.
                if !error.wants_login() && error != CredentialError::NoSubject {
                    held.fail(error.clone());
                }
                Err(error)
            }
        }
    }

    /// Whether the server does not take what this asker has, as far as it said.
    #[must_use]
    pub fn is_refused(&self, asker: &Asker) -> bool {
        self.slot(asker).held.lock().refused.is_some()
    }

    /// The header for a request of this asker, where there is a token.
    pub(crate) fn header(&self, asker: &Asker) -> Option<HeaderValue> {
        let slot = self.slot(asker);
        let held = slot.held.lock();
        held.usable().map(|token| token.header().clone())
    }

    /// What the server answered to a request that carried `sent`.
    pub(crate) fn heard(&self, asker: &Asker, sent: Option<&HeaderValue>, status: StatusCode, headers: &HeaderMap) {
        let challenge = Challenge::of(status, headers, &self.0.url);
        let slot = self.slot(asker);
        let mut held = slot.held.lock();
        match (held.token.clone(), sent, challenge) {
            // Anything else than a challenge means that the token was looked at and taken.
            (Some(token), Some(sent), None) if token.is(sent) && !token.is_accepted() && !status.is_server_error() => {
                token.accept();
                held.failures = 0;
            }
            (Some(token), Some(sent), Some(challenge)) if token.is(sent) && held.refused.is_none() => {
                if !token.is_accepted() && !challenge.wants_scopes {
                    let code = format!("HTTP {}", status.as_u16());
                    held.fail(CredentialError::Refused { by: "the server", code });
                }
                held.refused = Some(challenge);
            }
            (None, None, Some(challenge)) => held.refused = Some(challenge),
            _ => {} // about another token than the one that is used now
        }
    }

    /// Begins a login of a person. For operators.
    ///
    /// # Errors
    /// Where this server has no login, or its authorization server cannot be asked.
    pub async fn begin_login(&self) -> Result<Login, CredentialError> {
        let (person, ground) = self.person()?;
        let slot = self.slot(&Asker::default());
        let known = slot.held.lock().refused.clone();
        let challenge = match known {
            Some(challenge) => Some(challenge),
            None => self.ask_for_challenge().await,
        };
        person.begin(ground, challenge.as_ref()).await
    }

    /// How far a login has come.
    #[must_use]
    pub fn login_state(&self, id: &str) -> LoginState {
        self.0.source.person.as_ref().map_or(LoginState::Unknown, |person| person.logins.state(id))
    }

    /// Whether a login of that state is open here.
    pub(crate) fn awaits(&self, state: &str) -> bool {
        self.0.source.person.as_ref().is_some_and(|person| person.logins.knows(state))
    }

    pub(crate) async fn finish(&self, callback: Callback) -> Result<(), CredentialError> {
        let (person, ground) = self.person()?;
        let token = person.finish(ground, callback).await?;
        let slot = self.slot(&Asker::default());
        let mut held = slot.held.lock();
        held.failures = 0;
        held.set(token);
        Ok(())
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        let slots = self.0.slots.lock();
        let mut standing = Standing::Idle;
        for slot in slots.values() {
            let held = slot.held.lock();
            if held.usable().is_some() {
                return Standing::Ready;
            }
            if let Some(failure) = &held.failed {
                standing = Standing::Failing(failure.error.clone());
            }
        }
        if standing == Standing::Idle && self.0.source.person.is_some() { Standing::LoginRequired } else { standing }
    }

    /// Whether a person logs in to this server.
    #[must_use]
    pub fn has_login(&self) -> bool {
        self.0.source.person.is_some()
    }

    fn person(&self) -> Result<(&Person, Ground<'_>), CredentialError> {
        let source = &self.0.source;
        let ground = source.ground();
        let none = || CredentialError::Misconfigured {
            reason: format!("nobody logs in to the server {:?}: that is for kind = \"oauth\"", self.0.server),
        };
        source.person.as_ref().map(|person| (person, ground)).ok_or_else(none)
    }

    /// What the server says to a request without a token: its challenge names its metadata and scopes. The request is the
    /// question that Cairn asks every server anyway.
    async fn ask_for_challenge(&self) -> Option<Challenge> {
        let id = cairn_mcp::RawId::text("cairn-login");
        let question = cairn_mcp::era::discover_request(&id, "cairn", env!("CARGO_PKG_VERSION"));
        let request = http::Request::post(self.0.url.as_str())
            .header(http::header::CONTENT_TYPE, "application/json")
            .header(http::header::ACCEPT, "application/json, text/event-stream")
            .header("mcp-protocol-version", cairn_mcp::era::LATEST)
            .header("mcp-method", "server/discover")
            .body(question.bytes().clone())
            .ok()?;
        let answer = self.0.source.grants.client.send(request).await.ok()?;
        Challenge::of(answer.status(), answer.headers(), &self.0.url)
    }

    fn slot(&self, asker: &Asker) -> Slot {
        let key = match &asker.principal {
            Some(principal) if self.0.source.is_per_principal() => principal.as_str(),
            _ => "",
        };
        let mut slots = self.0.slots.lock();
        if let Some(slot) = slots.get_mut(key) {
            slot.used = Instant::now();
            return slot.clone();
        }
        if slots.len() >= PRINCIPALS_MAX
            && let Some(oldest) = slots.iter().min_by_key(|(_, slot)| slot.age()).map(|(key, _)| key.clone())
        {
            slots.remove(&oldest);
        }
        let slot = Slot { held: Arc::default(), renewing: Arc::default(), used: Instant::now() };
        slots.insert(key.to_owned(), slot.clone());
        slot
    }
}

#[cfg(test)]
mod provider;
#[cfg(test)]
mod tests;
