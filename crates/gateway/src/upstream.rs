//! The servers behind the gateway: how each is reached, which links are open, what it was seen to offer.
//!
//! A legacy session has a link of its own: a child, or an HTTP session. Modern requests of one principal share a child.
//! A child that ends is started again when the next call needs it, later and later while it keeps failing; calls wait
//! for it within bounds. What a call had already sent is never sent again.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    sync::Arc,
    time::Duration,
};

use cairn_clock::Entropy;
use cairn_contract::Transport;
use cairn_credentials::Credential;
use cairn_freshness::Declared;
use cairn_mcp::{
    HttpClient, HttpLink, HttpTarget, InsideLink, KeptLink, Limits as WireLimits, Link, LinkError, Patience, SseLink,
    Start, StdioCommand, StdioLink,
};
use parking_lot::Mutex;
use tokio::{sync::Semaphore, time::Instant};

use crate::{
    bridge::Bridges,
    catalogue::Catalogue,
    eras::Eras,
    options::{Asker, Inside, Reach, ServerSpec},
    proving::target,
    session::Caller,
};

/// Callers whose scope is kept though they ask nothing at the moment: each may have a child.
const SCOPES_MAX: usize = 64;
/// The longest pause before a failing child is started again.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The first pause.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// A child that lived this long was well: its next end is a first failure again.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// A server that could not be described to the links.
#[derive(Debug, thiserror::Error)]
#[error("server {name:?}: {reason}")]
pub struct ServerError {
    /// Its name.
    pub name: String,
    /// What to change.
    pub reason: String,
}

/// One configured server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: String,
    way: Way,
    limits: WireLimits,
    places: usize,
    scopes: Mutex<HashMap<Caller, Scope>>,
    starter: Arc<Starter>,
    pub(crate) catalogue: Catalogue,
    /// What its tools read, write and depend on.
    pub(crate) declared: BTreeMap<String, Declared>,
    /// Whether it gets handles of calls.
    pub(crate) reports: bool,
    pub(crate) eras: Arc<Eras>,
    pub(crate) bridges: Bridges,
    /// What Cairn proves itself with. A wrapped server has none: whoever wraps one chooses its name and its address.
    pub(crate) credential: Option<Credential>,
}

#[derive(Debug)]
enum Way {
    Stdio(StdioCommand),
    Http { client: HttpClient, target: Arc<HttpTarget> },
    Sse { client: HttpClient, target: Arc<HttpTarget> },
    Inside(Arc<dyn Inside>),
}

impl Way {
    /// A connection of one's own to a server on the network, or to one in this process.
    async fn connect(
        &self,
        limits: WireLimits,
        credential: Option<&Credential>,
        caller: &Caller,
    ) -> Result<Arc<dyn Link>, LinkError> {
        match self {
            Self::Http { client, target: to } => {
                Ok(Arc::new(HttpLink::new(client.clone(), target(to, credential, caller), limits)))
            }
            Self::Sse { client, target: to } => {
                Ok(Arc::new(SseLink::connect(client.clone(), target(to, credential, caller), limits).await?))
            }
            Self::Inside(server) => {
                let Caller { tenant, principal, agent, .. } = caller.clone();
                Ok(Arc::new(InsideLink::new(server.serve(&Asker { tenant, principal, agent }), limits)))
            }
            Self::Stdio(_) => unreachable!("a child is started, under its back-off, by its server"),
        }
    }
}

/// What the modern requests of one principal share.
#[derive(Clone, Debug)]
struct Scope {
    child: Option<Arc<StdioLink>>,
    /// When the child was started.
    began: Option<Instant>,
    places: Arc<Semaphore>,
}

impl Scope {
    fn new(places: usize) -> Self {
        Self { child: None, began: None, places: Arc::new(Semaphore::new(places)) }
    }

    /// Whether no call uses it, nor is about to.
    fn is_idle(&self, places: usize) -> bool {
        let unused = Arc::strong_count(&self.places) == 1 && self.places.available_permits() == places;
        unused && self.child.as_ref().is_none_or(|child| Arc::strong_count(child) == 1)
    }
}

/// Starts the children of one server, later and later while they fail.
#[derive(Debug, Default)]
struct Starter {
    backoff: Mutex<Backoff>,
    /// Held while a shared child is started.
    one_at_a_time: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
}

impl Backoff {
    fn fail(&mut self, chance: u64) {
        self.failures = self.failures.saturating_add(1);
        let doubled = BACKOFF_MIN.saturating_mul(1 << self.failures.min(10)).min(BACKOFF_MAX);
        self.not_before = Some(Instant::now() + doubled + Duration::from_millis(chance % 50));
    }
}

impl Starter {
    /// Starts a child after the pause that is due. `lived` is how long the one had lived in whose place it comes.
    async fn start(
        &self,
        command: &StdioCommand,
        limits: WireLimits,
        shared: bool,
        lived: Option<Duration>,
        entropy: &Entropy,
    ) -> Result<StdioLink, LinkError> {
        let pause = {
            let mut backoff = self.backoff.lock();
            match lived {
                Some(lived) if lived > WELL_AFTER => *backoff = Backoff::default(),
                Some(_) => backoff.fail(entropy.next_u64()),
                None => {}
            }
            backoff.not_before.map_or(Duration::ZERO, |when| when.saturating_duration_since(Instant::now()))
        };
        tokio::time::sleep(pause).await;
        let spawned = StdioLink::spawn(command, limits, shared);
        if spawned.is_err() {
            self.backoff.lock().fail(entropy.next_u64());
        }
        spawned
    }
}

impl Server {
    pub(crate) fn new(
        spec: &ServerSpec,
        limits: WireLimits,
        client: &HttpClient,
        places: usize,
        eras: Arc<Eras>,
        credential: Option<Credential>,
    ) -> Result<Self, ServerError> {
        let to = |url: &str, headers: &_| {
            let fault =
                |error: cairn_mcp::TargetError| ServerError { name: spec.name.clone(), reason: error.to_string() };
            HttpTarget::new(url, headers).map(Arc::new).map_err(fault)
        };
        let way = match &spec.reach {
            Reach::Stdio { command, args, env, cwd, env_clear } => Way::Stdio(StdioCommand {
                command: command.into(),
                args: args.iter().map(OsString::from).collect(),
                env: env.iter().map(|(key, value)| (key.into(), value.into())).collect(),
                env_clear: *env_clear,
                cwd: cwd.clone(),
            }),
            Reach::Http { url, headers } => Way::Http { client: client.clone(), target: to(url, headers)? },
            Reach::Sse { url, headers } => Way::Sse { client: client.clone(), target: to(url, headers)? },
            Reach::Inside(server) => Way::Inside(server.clone()),
        };
        Ok(Self {
            name: spec.name.clone(),
            way,
            limits,
            places,
            scopes: Mutex::default(),
            starter: Arc::default(),
            catalogue: Catalogue::default(),
            declared: spec.declared.clone(),
            reports: spec.reports,
            eras,
            bridges: Bridges::default(),
            credential,
        })
    }

    /// Whether the server is reached over Streamable HTTP, and so keeps its sessions itself and gives HTTP its status.
    pub(crate) const fn is_http(&self) -> bool {
        matches!(self.way, Way::Http { .. })
    }

    /// What carries messages to it.
    pub(crate) const fn transport(&self) -> Transport {
        match self.way {
            // No network either way.
            Way::Stdio(_) | Way::Inside(_) => Transport::Pipe,
            Way::Http { .. } | Way::Sse { .. } => Transport::Tcp,
        }
    }

    /// Whether the transport itself says the era: HTTP+SSE ended before the modern one began.
    pub(crate) const fn is_legacy_by_transport(&self) -> bool {
        matches!(self.way, Way::Sse { .. })
    }

    /// A link for a probe, which nothing else uses. It does not wait for a server that refuses connections.
    pub(crate) async fn probe_link(&self, caller: &Caller) -> Result<Arc<dyn Link>, LinkError> {
        match &self.way {
            Way::Stdio(command) => Ok(Arc::new(StdioLink::spawn(command, self.limits, false)?)),
            Way::Http { client, target: to } => {
                let to = target(to, self.credential.as_ref(), caller);
                Ok(Arc::new(HttpLink::impatient(client.clone(), to, self.limits)))
            }
            way @ (Way::Sse { .. } | Way::Inside(_)) => {
                way.connect(self.limits, self.credential.as_ref(), caller).await
            }
        }
    }

    /// How long a server that refuses connections is waited for.
    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.limits.connect_wait_max)
    }

    /// A link to one child, which ends with it: whoever holds it makes the next handshake by itself.
    pub(crate) async fn single_link(&self, caller: &Caller, entropy: &Entropy) -> Result<Arc<dyn Link>, LinkError> {
        match &self.way {
            Way::Stdio(command) => Ok(Arc::new(self.starter.start(command, self.limits, false, None, entropy).await?)),
            way => way.connect(self.limits, self.credential.as_ref(), caller).await,
        }
    }

    /// A link of one session's own.
    pub(crate) async fn own_link(&self, caller: &Caller, entropy: &Entropy) -> Result<Arc<dyn Link>, LinkError> {
        match &self.way {
            Way::Stdio(command) => {
                let (starter, command) = (self.starter.clone(), command.clone());
                let (limits, entropy) = (self.limits, entropy.clone());
                let start: Start = Arc::new(move |lived| {
                    let (starter, command, entropy) = (starter.clone(), command.clone(), entropy.clone());
                    Box::pin(async move { starter.start(&command, limits, false, lived, &entropy).await })
                });
                Ok(Arc::new(KeptLink::start(start, self.limits).await?))
            }
            way => way.connect(self.limits, self.credential.as_ref(), caller).await,
        }
    }

    /// The link and the places that all modern requests of one principal share.
    pub(crate) async fn shared_link(
        &self,
        caller: &Caller,
        entropy: &Entropy,
    ) -> Result<(Arc<dyn Link>, Arc<Semaphore>), LinkError> {
        let Way::Stdio(command) = &self.way else {
            let link = self.way.connect(self.limits, self.credential.as_ref(), caller).await?;
            return Ok((link, self.scope(caller).places));
        };
        let scope = self.scope(caller);
        if let Some(child) = scope.child.filter(|child| child.ended().is_none()) {
            return Ok((child, scope.places));
        }
        // Calls that find the child gone start one together.
        let _one_at_a_time = self.starter.one_at_a_time.lock().await;
        let scope = self.scope(caller);
        if let Some(child) = scope.child.filter(|child| child.ended().is_none()) {
            return Ok((child, scope.places));
        }
        let lived = scope.began.map(|began| began.elapsed());
        let child = Arc::new(self.starter.start(command, self.limits, true, lived, entropy).await?);
        let mut scopes = self.scopes.lock();
        let scope = scopes.entry(caller.clone()).or_insert_with(|| Scope::new(self.places));
        scope.child = Some(child.clone());
        scope.began = Some(Instant::now());
        Ok((child, scope.places.clone()))
    }

    /// The places that all modern requests of one principal share.
    pub(crate) fn places(&self, caller: &Caller) -> Arc<Semaphore> {
        self.scope(caller).places
    }

    fn scope(&self, caller: &Caller) -> Scope {
        let mut scopes = self.scopes.lock();
        if scopes.len() >= SCOPES_MAX && !scopes.contains_key(caller) {
            // Those that are in use are as many as there are calls, which is bounded elsewhere.
            let idle: Vec<_> = scopes.extract_if(|_, scope| scope.is_idle(self.places)).collect();
            for child in idle.into_iter().filter_map(|(_, scope)| scope.child) {
                tokio::spawn(async move { child.close().await });
            }
        }
        scopes.entry(caller.clone()).or_insert_with(|| Scope::new(self.places)).clone()
    }

    /// Ends the shared children and the sessions that Cairn holds with the server.
    pub(crate) async fn close(&self) {
        self.bridges.close().await;
        let children: Vec<_> = self.scopes.lock().values_mut().filter_map(|scope| scope.child.take()).collect();
        // Together: each may take its grace period.
        futures::future::join_all(children.iter().map(|child| child.close())).await;
    }
}
