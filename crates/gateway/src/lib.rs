//! The life of a call: everything between a client's message and a server's answer.
//!
//! [`Gateway`] is what the wiring holds. A message comes in through a door (`door/http.rs` behind `door/listener.rs`, or
//! `door/pipe.rs`), finds its `session`, and lives in `life.rs`, which reads like the list of its steps; `stage.rs` holds
//! the steps that lead to an armed call, `forward.rs` the one that spends it. Where client and server speak different
//! eras (`eras.rs`), `bridge/` plays each to the other. Everything else is beside that path: requests and notices of the
//! server (`notices.rs`, `pump.rs`), what answers teach (`observe.rs`), what a predecessor left open (`recovery.rs`).
//!
//! This crate must not know Kafka, Cedar or the disk: it records through a `Recorder` and decides through a `PolicyStore`.

mod access;
mod acts;
mod approval;
mod arrival;
mod authzen;
mod bridge;
mod call;
mod catalogue;
mod correlate;
mod door;
mod eras;
mod flood;
mod forward;
mod guard;
mod inline;
mod inputs;
mod joining;
mod life;
mod limiting;
mod masking;
mod metrics;
mod notices;
mod observe;
mod open;
mod operations;
mod options;
mod outside;
mod payloads;
mod proving;
mod pump;
mod recent;
mod recovery;
mod refusal;
mod repeats;
mod reply;
mod resume;
mod rewriting;
mod screening;
mod server_tasks;
mod session;
mod sessions;
mod shared_workflow;
mod stage;
mod steps;
mod unfinished;
mod upstream;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use cairn_approvals::Approvals;
use cairn_backbone::Recorder;
use cairn_catalogue::Book;
use cairn_clock::{Clock, Entropy};
use cairn_contract::{DigestKey, Outcome};
use cairn_credentials::Credentials;
use cairn_freshness::Views;
use cairn_limits::Limits as Allowances;
pub use cairn_mcp::headers::OriginPolicy;
use cairn_mcp::{HttpClient, Limits as WireLimits};
use cairn_policy::PolicyStore;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use access::{Access, ScopeRules};
pub use approval::{SettleError, Settled, Settlement};
pub use catalogue::{Approval, ApproveError, DefinitionView};
pub use door::{pipe::PipeClient, unserved::refuse_pipe};
pub use guard::IngestError;
pub use inline::INLINE_BYTES_MAX;
pub use joining::HandsCalls;
pub use metrics::Metrics;
pub use options::{Asker, GatewayOptions, Inside, Limits, Reach, ServerSpec};
pub use outside::{DecisionPoint, DecisionPointError, DecisionPointOptions};
pub use payloads::{Keeping, PayloadField, PayloadMode, PayloadRule, PayloadRules};
pub use refusal::Refusal;
pub use shared_workflow::SharedWorkflow;
pub use steps::{NoWitness, Step, Witness};
pub use upstream::ServerError;

use access::Refusals;
use approval::{Covered, Returning, Tasks};
use bridge::Waiting;
use call::Call;
use eras::EraBook;
use inputs::Inputs;
use joining::Traces;
use limiting::Overs;
use operations::Operations;
use repeats::Repeats;
use server_tasks::ServerTasks;
use session::{Caller, Session};
use sessions::Sessions;
use unfinished::{Places, Unfinished};
use upstream::Server;

/// How long sessions and their servers may take to end when the gateway stops.
const SESSIONS_END_MAX: Duration = Duration::from_secs(5);
/// How long calls may then take to record their outcomes.
const CALLS_END_MAX: Duration = Duration::from_secs(2);

/// The keys under which payloads, resource versions and secrets are digested. Three, so that erasing the first leaves the
/// others usable, and so that a session id's digest says nothing about any payload.
#[derive(Clone, Debug)]
pub struct Keys {
    /// For payloads.
    pub payload: DigestKey,
    /// For resource versions.
    pub version: DigestKey,
    /// For session ids, task ids and request state.
    pub secret: DigestKey,
}

/// What a gateway stands on.
#[derive(Debug)]
pub struct Parts {
    /// Where events go.
    pub recorder: Recorder,
    /// Who decides.
    pub policy: Arc<PolicyStore>,
    /// Who has read which version of what.
    pub views: Views,
    /// Which definitions are known and approved.
    pub book: Book,
    /// What waits for people.
    pub approvals: Approvals,
    /// What calls may take, and have taken.
    pub allowances: Allowances,
    /// The digest keys.
    pub keys: Keys,
    /// What of payloads and texts goes into the record.
    pub keeping: Keeping,
    /// Time.
    pub clock: Clock,
    /// Chance.
    pub entropy: Entropy,
    /// How Cairn proves itself to the configured servers.
    pub credentials: Credentials,
    /// Counters.
    pub metrics: Metrics,
    /// Makes handles of calls for servers that report what they did; nobody where nothing takes reports.
    pub hands: Option<Arc<dyn HandsCalls>>,
    /// Is told of each step.
    pub witness: Arc<dyn Witness>,
}

/// The gateway. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    options: GatewayOptions,
    wire_limits: WireLimits,
    origins: OriginPolicy,
    client: HttpClient,
    servers: BTreeMap<String, Arc<Server>>,
    sessions: Sessions,
    covered: Covered,
    returning: Returning,
    tasks: Tasks,
    settling: tokio::sync::Mutex<()>,
    console: OnceLock<String>,
    places: Arc<Semaphore>,
    session_places: Arc<Semaphore>,
    body_bytes: Arc<Semaphore>,
    unfinished: Unfinished,
    operations: Operations,
    inputs: Inputs,
    server_tasks: ServerTasks,
    repeats: Repeats,
    traces: Traces,
    waiting: Waiting,
    refusals: Refusals,
    overs: Overs,
    eras: EraBook,
    parts: Parts,
    pipes: TaskTracker,
    stop: CancellationToken,
    calls_end: CancellationToken,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("servers", &self.0.servers.keys()).finish_non_exhaustive()
    }
}

impl Gateway {
    /// A gateway that is ready to serve once [`Gateway::close_predecessor`] has run.
    ///
    /// # Errors
    /// Where a server cannot be reached as it is described.
    pub fn new(options: GatewayOptions, parts: Parts) -> Result<Self, ServerError> {
        let wire_limits = WireLimits {
            message_bytes_max: options.limits.message_bytes_max,
            depth_max: options.limits.nesting_depth_max,
            frames_queued_max: options.limits.client_queue_max,
            connect_wait_max: options.limits.server_connect_max,
            start_wait_max: options.limits.server_restart_max,
            ..WireLimits::default()
        };
        let client = HttpClient::new(&wire_limits);
        let per_client = options.limits.calls_per_client_max;
        let mut servers = BTreeMap::new();
        for spec in &options.servers {
            let credential = parts.credentials.of(&spec.name).cloned();
            let server = Server::new(spec, wire_limits, &client, per_client, Arc::default(), credential)?;
            servers.insert(spec.name.clone(), Arc::new(server));
        }
        let origins = OriginPolicy::new(options.origins.clone(), options.hosts.clone());
        let places = Arc::new(Semaphore::new(options.limits.calls_max));
        let session_places = Arc::new(Semaphore::new(options.limits.sessions_max));
        let body_bytes = Arc::new(Semaphore::new(options.limits.bodies_bytes_max.min(Semaphore::MAX_PERMITS)));
        let waiting = Waiting::new(&parts.entropy);
        let returning = Returning::new(&parts.keys.secret);
        Ok(Self(Arc::new(Inner {
            options,
            wire_limits,
            origins,
            client,
            servers,
            places,
            session_places,
            body_bytes,
            unfinished: Unfinished::default(),
            operations: Operations::default(),
            inputs: Inputs::default(),
            server_tasks: ServerTasks::default(),
            repeats: Repeats::default(),
            traces: Traces::default(),
            waiting,
            refusals: Refusals::default(),
            overs: Overs::default(),
            eras: EraBook::default(),
            parts,
            sessions: Sessions::default(),
            covered: Covered::default(),
            returning,
            tasks: Tasks::default(),
            settling: tokio::sync::Mutex::default(),
            console: OnceLock::new(),
            pipes: TaskTracker::new(),
            stop: CancellationToken::new(),
            calls_end: CancellationToken::new(),
        })))
    }

    /// What waits for people.
    #[must_use]
    pub fn approvals(&self) -> &Approvals {
        &self.0.parts.approvals
    }

    /// Says where people can look at what waits: `http://` or `https://`, a host and a port. Clients that can open
    /// addresses are told it; without one they wait like all others.
    pub fn set_console(&self, address: impl Into<String>) {
        // Nobody says it twice; the first one would stay.
        let _ = self.0.console.set(address.into());
    }

    /// That address, where one was said.
    #[must_use]
    pub fn address_of_people(&self) -> Option<&str> {
        self.console()
    }

    pub(crate) fn console(&self) -> Option<&str> {
        self.0.console.get().map(String::as_str)
    }

    pub(crate) fn covered(&self) -> &Covered {
        &self.0.covered
    }

    pub(crate) fn returning(&self) -> &Returning {
        &self.0.returning
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// Held while a person's word is recorded and counted.
    pub(crate) fn settling(&self) -> &tokio::sync::Mutex<()> {
        &self.0.settling
    }

    /// The gateway's metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.0.parts.metrics
    }

    /// How many legacy sessions are open over HTTP.
    #[must_use]
    pub fn sessions_open(&self) -> usize {
        self.0.sessions.len()
    }

    /// How many pipes are served.
    #[must_use]
    pub fn pipes_open(&self) -> usize {
        self.0.pipes.len()
    }

    /// The names of the configured servers.
    pub fn server_names(&self) -> impl Iterator<Item = &str> {
        self.0.servers.keys().map(String::as_str)
    }

    /// Ends every session and call: what is in flight is cancelled and gets its outcome.
    pub async fn close(&self) {
        self.0.stop.cancel();
        self.0.pipes.close();
        // Together, because each may wait for a server that does not want to end.
        let sessions = self.0.sessions.all();
        let ended = futures::future::join_all(sessions.iter().map(|s| self.end_session(s, "the gateway stops")));
        let _ = tokio::time::timeout(SESSIONS_END_MAX, futures::future::join(ended, self.0.pipes.wait())).await;
        self.waiting().clear();
        let _ = tokio::time::timeout(CALLS_END_MAX, self.record_refusals()).await;
        self.0.calls_end.cancel();
        // Every call gives its place back once its outcome is recorded.
        let all = u32::try_from(self.limits().calls_max).unwrap_or(u32::MAX);
        let drained = self.0.places.acquire_many(all);
        if tokio::time::timeout(CALLS_END_MAX, drained).await.is_err() {
            tracing::warn!("calls were still in flight when the gateway stopped; the next start closes them");
        }
        futures::future::join_all(self.0.servers.values().map(|server| server.close())).await;
    }

    pub(crate) fn options(&self) -> &GatewayOptions {
        &self.0.options
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.options.limits
    }

    pub(crate) fn wire_limits(&self) -> &WireLimits {
        &self.0.wire_limits
    }

    pub(crate) fn origins(&self) -> &OriginPolicy {
        &self.0.origins
    }

    pub(crate) fn http_client(&self) -> &HttpClient {
        &self.0.client
    }

    pub(crate) fn server(&self, name: &str) -> Option<Arc<Server>> {
        self.0.servers.get(name).cloned()
    }

    pub(crate) fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.0.servers.values()
    }

    pub(crate) fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    pub(crate) fn inputs(&self) -> &Inputs {
        &self.0.inputs
    }

    pub(crate) fn server_tasks(&self) -> &ServerTasks {
        &self.0.server_tasks
    }

    pub(crate) fn repeats(&self) -> &Repeats {
        &self.0.repeats
    }

    pub(crate) fn traces(&self) -> &Traces {
        &self.0.traces
    }

    pub(crate) fn hands_calls(&self) -> Option<&Arc<dyn HandsCalls>> {
        self.0.parts.hands.as_ref()
    }

    pub(crate) fn operations(&self) -> &Operations {
        &self.0.operations
    }

    pub(crate) fn waiting(&self) -> &Waiting {
        &self.0.waiting
    }

    pub(crate) fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    pub(crate) fn overs(&self) -> &Overs {
        &self.0.overs
    }

    /// What calls may take, and have taken.
    #[must_use]
    pub fn allowances(&self) -> &Allowances {
        &self.0.parts.allowances
    }

    pub(crate) fn eras(&self) -> &EraBook {
        &self.0.eras
    }

    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Fires when calls that are still in flight must end.
    pub(crate) fn calls_end(&self) -> &CancellationToken {
        &self.0.calls_end
    }

    pub(crate) fn pipes(&self) -> &TaskTracker {
        &self.0.pipes
    }

    pub(crate) fn recorder(&self) -> &Recorder {
        &self.0.parts.recorder
    }

    /// How Cairn proves itself to its servers.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.0.parts.credentials
    }

    pub(crate) fn policy(&self) -> &PolicyStore {
        &self.0.parts.policy
    }

    pub(crate) fn book(&self) -> &Book {
        &self.0.parts.book
    }

    pub(crate) fn views(&self) -> &Views {
        &self.0.parts.views
    }

    pub(crate) fn keys(&self) -> &Keys {
        &self.0.parts.keys
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.parts.clock
    }

    pub(crate) fn entropy(&self) -> &Entropy {
        &self.0.parts.entropy
    }

    pub(crate) fn reached(&self, step: Step, call: &Call) {
        self.0.parts.witness.reached(step, &call.method);
    }

    /// A place for one more legacy session over HTTP; given back when the session is gone.
    pub(crate) fn admit_session(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let limit = self.limits().sessions_max as u64;
        let place = self.0.session_places.clone().try_acquire_owned();
        place.map_err(|_| Refusal::Busy { setting: "sessions_max", limit })
    }

    /// What request bodies that are still being read may hold in all.
    pub(crate) fn body_bytes(&self) -> &Arc<Semaphore> {
        &self.0.body_bytes
    }

    /// Places for one more call: one in all, one of the client's.
    pub(crate) fn admit(&self, session: &Session) -> Result<Places, Refusal> {
        if self.stop().is_cancelled() {
            return Err(Refusal::stopping());
        }
        let limits = self.limits();
        let busy = |setting, limit: usize| Refusal::Busy { setting, limit: limit as u64 };
        let of_client = session
            .places
            .clone()
            .try_acquire_owned()
            .map_err(|_| busy("calls_per_client_max", limits.calls_per_client_max))?;
        let of_all = self.0.places.clone().try_acquire_owned().map_err(|_| busy("calls_max", limits.calls_max))?;
        let counted = self.0.unfinished.count(&session.caller);
        Ok(Places::new(of_client, of_all, counted, self.metrics()))
    }

    /// How many calls of that caller have not ended.
    pub(crate) fn unfinished(&self, caller: &Caller) -> u64 {
        self.0.unfinished.of(caller)
    }

    pub(crate) fn count(&self, call: &Call, outcome: Outcome) {
        self.metrics().ended(&call.session.server.name, outcome);
    }

    /// A new session id: 128 random bits, as hexadecimal digits.
    pub(crate) fn new_secret(&self) -> String {
        format!("{:016x}{:016x}", self.entropy().next_u64(), self.entropy().next_u64())
    }
}
