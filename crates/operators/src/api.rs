//! The admin address: health, metrics, and what waits for approval.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /healthz` | 200 `{"status":"ok"}` once it serves, else 503 |
//! | `GET /metrics` | Prometheus text |
//! | `GET /approvals`, `/approvals/<id>` | the calls that wait, with exact arguments; wants the token |
//! | `GET /catalogue` | what servers have listed, how it stands, what is suspicious in it; wants the token |
//! | `POST /catalogue/approve` | approves a definition, body `{"server","kind","name","digest","approver"}`; wants the token |
//! | `GET /limits` | the limits, and what is used of them; wants the token |
//! | `POST /changes` | a resource has changed past Cairn, body `{"server","uri","version"}`; wants the token |
//! | `GET /credentials` | how Cairn stands with the servers that want one; wants the token |
//! | `POST /credentials/<server>/login` | begins a login of a person, gives its URL; wants the token |
//! | `GET /credentials/<server>/login/<id>` | how far it has come; wants the token |
//! | `POST /approvals/<id>/approve`, `…/deny` | settles one, body `{"approver","reason"}`; wants the token |
//! | `GET`, `POST /console/approvals/<id>` | the same for a person with a browser, who types the token |
//! | `POST /access/v1/evaluation`, `…/evaluations` | what the policies in force say (AuthZEN); wants the token |
//! | `/consumers…`, `/replays…`, `/query` | consumers: see `consumers_api` |
//! | `GET /context/…` | freshest versions, changes, who has seen what, workflows: see `context_api`; wants the token |
//! | `/vault/…` | payloads: see `vault_api` |
//! | `POST /recording` | one workflow with its payloads: see `recording_api`; wants the token |
//! | `POST /whatif` | recorded decisions made again under other policies: see `whatif_api`; wants the token |
//! | `POST /policy/promote`, `/policy/rollback` | puts the shadow, or what decided before, in force, body `{"who"}`; wants the token |

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::{HeaderMap, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cairn_gateway::{Approval, ApproveError, Gateway, IngestError, OriginPolicy};

use prometheus_client::registry::Registry;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Credential, CredentialError, Custody, acts, approvals, authzen, console,
    consumers_api::{self, Consumers},
    context_api, exposition, limits_api, logins,
    people::{Operator, People, Role},
    recording_api::{self, Recordings},
    vault_api,
    whatif_api::{self, Trials},
};

/// Largest body of an admin request, in bytes.
pub(crate) const BODY_BYTES_MAX: usize = 16 * 1024;

/// Largest body of a request to that path.
pub(crate) fn body_bytes_max(path: &str) -> usize {
    if path.trim_end_matches('/') == "/whatif" { whatif_api::TRIAL_BYTES_MAX } else { BODY_BYTES_MAX }
}

/// Why an operator was not let in.
pub(crate) enum NotAdmitted {
    /// Nobody has that token.
    Unknown,
    /// They may do other things than this.
    Role { name: String, role: Role },
    /// Nobody can be let in at the moment.
    Unreadable(CredentialError),
}

impl NotAdmitted {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Unknown => StatusCode::UNAUTHORIZED,
            Self::Role { .. } => StatusCode::FORBIDDEN,
            Self::Unreadable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl fmt::Display for NotAdmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => {
                f.write_str("this is not the operator's token, nor one of `cairn operator list`: make a new one with `cairn operator new`")
            }
            Self::Role { name, role } => {
                let role = role.word();
                write!(f, "{name} has not the role {role:?}: give it with `cairn operator add {name} --roles …,{role}`")
            }
            Self::Unreadable(error) => error.fmt(f),
        }
    }
}

impl IntoResponse for NotAdmitted {
    fn into_response(self) -> Response {
        problem(self.status(), &self)
    }
}

/// What the admin address asks the rest of the process.
pub trait Probe: Send + Sync + 'static {
    /// Whether it serves.
    fn ready(&self) -> bool;
}

/// What the admin address may do to policies.
pub trait Policies: Send + Sync + 'static {
    /// Puts another set in force and records that `who` did; gives the versions. An error says why nothing changed.
    fn replace(&self, how: Replacement, who: String) -> Replacing;
}

/// Which set to put in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replacement {
    /// The shadow.
    Promote,
    /// What decided before.
    Rollback,
}

/// A replacement on its way.
pub type Replacing = std::pin::Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;

/// The admin API.
#[derive(Clone)]
pub struct Admin(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    probe: Box<dyn Probe>,
    registry: Registry,
    credential: Credential,
    people: People,
    pub(crate) gateway: Option<Gateway>,
    origins: OnceLock<OriginPolicy>,
    policies: OnceLock<Arc<dyn Policies>>,
    custody: OnceLock<Custody>,
    trials: OnceLock<Arc<dyn Trials>>,
    consumers: OnceLock<Arc<dyn Consumers>>,
    recordings: OnceLock<Arc<dyn Recordings>>,
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admin")
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeBody {
    server: String,
    uri: String,
    version: Option<String>,
    tenant: Option<String>,
}

impl Admin {
    /// An admin API over what it may show and settle.
    #[must_use]
    pub fn new(
        probe: impl Probe,
        registry: Registry,
        (credential, people): (Credential, People),
        gateway: Option<Gateway>,
    ) -> Self {
        Self(Arc::new(Inner {
            probe: Box::new(probe),
            registry,
            credential,
            people,
            gateway,
            origins: OnceLock::new(),
            policies: OnceLock::new(),
            custody: OnceLock::new(),
            trials: OnceLock::new(),
            consumers: OnceLock::new(),
            recordings: OnceLock::new(),
        }))
    }

    /// The same, reached under these origins and hosts besides loopback.
    #[must_use]
    pub fn with_origins(self, origins: OriginPolicy) -> Self {
        // Nobody gives them twice; the first ones would stay.
        let _ = self.0.origins.set(origins);
        self
    }

    /// The same, with policies that may be replaced.
    #[must_use]
    pub fn with_policies(self, policies: Arc<dyn Policies>) -> Self {
        // Nobody gives them twice; the first ones would stay.
        let _ = self.0.policies.set(policies);
        self
    }

    /// The same, with a vault whose payloads operators may read, hold and erase.
    #[must_use]
    pub fn with_custody(self, custody: Custody) -> Self {
        // Nobody gives it twice; the first one would stay.
        let _ = self.0.custody.set(custody);
        self
    }

    /// The same, with a trail whose decisions may be made again.
    #[must_use]
    pub fn with_trials(self, trials: Arc<dyn Trials>) -> Self {
        // Nobody gives them twice; the first ones would stay.
        let _ = self.0.trials.set(trials);
        self
    }

    /// The same, with a trail and a vault whose workflows may be read whole.
    #[must_use]
    pub fn with_recordings(self, recordings: Arc<dyn Recordings>) -> Self {
        // Nobody gives them twice; the first ones would stay.
        let _ = self.0.recordings.set(recordings);
        self
    }

    pub(crate) fn recordings(&self) -> Option<&Arc<dyn Recordings>> {
        self.0.recordings.get()
    }

    pub(crate) fn trials(&self) -> Option<&Arc<dyn Trials>> {
        self.0.trials.get()
    }

    /// The same, with consumers that operators may ask and move.
    #[must_use]
    pub fn with_consumers(self, consumers: Arc<dyn Consumers>) -> Self {
        // Nobody gives them twice; the first ones would stay.
        let _ = self.0.consumers.set(consumers);
        self
    }

    /// Who holds that token, where they have the role. What is refused leaves an event.
    pub(crate) fn admitted(&self, token: &str, role: Role) -> Result<Operator, NotAdmitted> {
        let found = self.0.people.who(token).and_then(|found| match found {
            Some(operator) => Ok(Some(operator)),
            None => Ok(self.0.credential.admits(token)?.then(Operator::owner)),
        });
        let refused = match found {
            Ok(Some(operator)) if operator.may(role) => return Ok(operator),
            Ok(Some(operator)) => NotAdmitted::Role { name: operator.name, role },
            Ok(None) => NotAdmitted::Unknown,
            Err(error) => NotAdmitted::Unreadable(error),
        };
        if let Some(gateway) = &self.0.gateway {
            match &refused {
                NotAdmitted::Unknown => gateway.note_refused_operator(None),
                NotAdmitted::Role { name, role } => gateway.note_refused_operator(Some((name, role.word()))),
                NotAdmitted::Unreadable(_) => {}
            }
        }
        Err(refused)
    }

    pub(crate) fn custody(&self) -> Option<&Custody> {
        self.0.custody.get()
    }

    pub(crate) fn consumers(&self) -> Option<&Arc<dyn Consumers>> {
        self.0.consumers.get()
    }

    pub(crate) fn gateway(&self) -> Option<&Gateway> {
        self.0.gateway.as_ref()
    }

    /// The routes, for whoever serves them.
    pub fn router(&self) -> Router {
        let closed = Router::new()
            .route("/approvals", get(approvals::waiting))
            .route("/approvals/{id}", get(approvals::one))
            .route("/approvals/{id}/{verb}", post(approvals::settle))
            .route("/changes", post(changed))
            .route("/catalogue", get(catalogue))
            .route("/catalogue/approve", post(approve_definition))
            .route("/policy/{verb}", post(replace))
            .merge(limits_api::routes())
            .merge(logins::routes())
            .merge(authzen::routes())
            .merge(vault_api::routes())
            .merge(whatif_api::routes())
            .merge(consumers_api::routes())
            .merge(context_api::routes())
            .merge(recording_api::routes())
            .layer(middleware::from_fn_with_state(self.clone(), authorize));
        Router::new()
            .route("/healthz", get(healthz))
            .route("/metrics", get(metrics))
            .route("/.well-known/authzen-configuration", get(authzen::configuration))
            // Open, because whoever looks types a token into it.
            .route("/console/approvals/{id}", get(console::form).post(console::settle))
            .merge(closed)
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(middleware::from_fn_with_state(self.clone(), same_machine))
            .with_state(self.clone())
    }
}

pub(crate) fn problem(status: StatusCode, words: impl fmt::Display) -> Response {
    (status, Json(json!({ "error": words.to_string() }))).into_response()
}

/// A page in a browser must not reach this address, whatever name it was rebound to.
async fn same_machine(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    match admin.0.origins.get_or_init(OriginPolicy::default).check(request.headers(), authority.as_deref()) {
        Ok(()) => next.run(request).await,
        Err(fault) => problem(StatusCode::FORBIDDEN, fault),
    }
}

/// The role that a request needs.
fn needed(method: &Method, path: &str) -> Role {
    match path.trim_start_matches('/').split('/').next() {
        Some("policy") => Role::Policy,
        // They look at policies, and change nothing.
        Some("access" | "authzen") => Role::View,
        // Whoever logs in lends an account to every agent that may call the server.
        Some("credentials") if method != Method::GET => Role::Policy,
        Some("changes") => Role::Offsets,
        Some("consumers") if method != Method::GET => Role::Offsets,
        Some("replays") => Role::Offsets,
        // It asks, and leaves an act all the same.
        Some("query") => Role::View,
        // Which subjects are held is for whoever may hold them.
        Some("vault") if path.trim_end_matches('/') == "/vault/read" => Role::Payloads,
        Some("vault") => Role::Erase,
        // It says what a refused event is to hold.
        Some("rejected") => Role::Payloads,
        // Policies of one's own tell what is in the arguments that they look at.
        Some("whatif") => Role::Payloads,
        Some("recording") => Role::Payloads,
        _ if method == Method::GET || method == Method::HEAD => Role::View,
        _ => Role::Approve,
    }
}

async fn authorize(State(admin): State<Admin>, headers: HeaderMap, mut request: Request, next: Next) -> Response {
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let Some(token) = token else {
        return problem(StatusCode::UNAUTHORIZED, "send the operator token: Authorization: Bearer <token>");
    };
    let role = needed(request.method(), request.uri().path());
    match admin.admitted(token, role) {
        Ok(operator) => {
            request.extensions_mut().insert(operator.clone());
            acts::recorded(admin.gateway(), &operator, role, request, next).await
        }
        Err(refused) => refused.into_response(),
    }
}

async fn healthz(State(admin): State<Admin>) -> Response {
    if admin.0.probe.ready() {
        Json(json!({ "status": "ok" })).into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "starting" }))).into_response()
    }
}

/// OpenMetrics for whoever asks for it, as Prometheus does; the older text format for all others.
async fn metrics(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    let mut text = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode(&mut text, &admin.0.registry) {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, error);
    }
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (kind, text) = if accepted.contains("application/openmetrics-text") {
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", text)
    } else {
        ("text/plain; version=0.0.4; charset=utf-8", exposition::plain(&text))
    };
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn changed(State(admin): State<Admin>, Json(body): Json<ChangeBody>) -> Response {
    let Some(gateway) = &admin.0.gateway else {
        return problem(StatusCode::NOT_FOUND, "no gateway runs here, so nobody reads anything");
    };
    let ChangeBody { server, uri, version, tenant } = body;
    match gateway.ingest_change(tenant, &server, &uri, version).await {
        Ok(()) => Json(json!({ "server": server, "uri": uri })).into_response(),
        Err(error @ IngestError::NoServer { .. }) => problem(StatusCode::NOT_FOUND, error),
        Err(error @ IngestError::NotRecorded(_)) => problem(StatusCode::SERVICE_UNAVAILABLE, error),
    }
}

async fn catalogue(State(admin): State<Admin>) -> Json<Value> {
    let views = admin.0.gateway.as_ref().map(Gateway::definitions).unwrap_or_default();
    let list = views.into_iter().map(|view| {
        json!({
            "server": view.server,
            "kind": view.kind,
            "name": view.name,
            "digest": view.digest,
            "standing": view.standing,
            "alerts": view.alerts,
        })
    });
    Json(json!({ "definitions": list.collect::<Vec<_>>() }))
}

async fn approve_definition(
    State(admin): State<Admin>,
    Extension(operator): Extension<Operator>,
    Json(approval): Json<Approval>,
) -> Response {
    let approver = operator.named.then(|| operator.name.clone()).or(approval.approver);
    let approval = Approval { approver, ..approval };
    let Some(gateway) = &admin.0.gateway else {
        return problem(StatusCode::NOT_FOUND, "no gateway runs here, so nothing is listed");
    };
    match gateway.approve_definition(approval).await {
        Ok(digest) => Json(json!({ "digest": digest })).into_response(),
        Err(error @ ApproveError::Book(_)) => problem(StatusCode::CONFLICT, error),
        Err(error @ ApproveError::NotRecorded(_)) => problem(StatusCode::SERVICE_UNAVAILABLE, error),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct ReplaceBody {
    who: Option<String>,
}

async fn replace(
    State(admin): State<Admin>,
    Extension(operator): Extension<Operator>,
    Path(verb): Path<String>,
    body: Option<Json<ReplaceBody>>,
) -> Response {
    let how = match verb.as_str() {
        "promote" => Replacement::Promote,
        "rollback" => Replacement::Rollback,
        _ => return problem(StatusCode::NOT_FOUND, "policies are replaced by promote or rollback"),
    };
    let Some(policies) = admin.0.policies.get() else {
        return problem(StatusCode::NOT_FOUND, "no gateway runs here, so no policies decide");
    };
    let said = body.and_then(|Json(body)| body.who).filter(|_| !operator.named);
    let who = said.unwrap_or(operator.name);
    match policies.replace(how, who).await {
        Ok(done) => Json(done).into_response(),
        Err(error) => problem(StatusCode::CONFLICT, error),
    }
}
