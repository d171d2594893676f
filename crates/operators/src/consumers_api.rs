//! The admin address's part for consumers: how they stand, pausing and moving them, replays, and questions to the audit database.
//!
//! | request | body | answer | role |
//! | --- | --- | --- | --- |
//! | `GET /consumers` | | how each consumer of this data folder stands | `view` |
//! | `POST /consumers/<name>/pause`, `/resume` | `{"reason"}` | what was done; `consumer.moved` is recorded before | `offsets` |
//! | `POST /consumers/<name>/seek` | `{"to_ms","reason"}` | likewise | `offsets` |
//! | `POST /replays/<name>/start` | what [`ReplayBody`] says | `{"replay_id"}`; `replay.started` is recorded before | `offsets` |
//! | `POST /replays/<name>/end` | likewise | `replay.ended` is recorded | `offsets` |
//! | `POST /query` | `{"sql","rows_max"}` | columns and rows; `operator.acted` is recorded before | `view` |

use std::{fmt, pin::Pin, sync::Arc};

use axum::{
    Extension, Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cairn_contract::{OffsetRange, ReplayOutcome};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    Operator, Role,
    api::{Admin, problem},
};

/// Who does it, in which role, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DoneBy {
    /// Who.
    pub operator: String,
    /// In which role.
    pub role: String,
    /// Why, as they say.
    pub reason: Option<String>,
}

/// What is done to a consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConsumerChangeAsked {
    /// It shall rest.
    Pause,
    /// It shall go on.
    Resume,
    /// It shall go on at the first record that is not older than this, in milliseconds since 1970.
    Seek(i64),
}

/// What is said of a replay, at its start or at its end.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "each is the key of `replay.started` or `replay.ended` of that name")]
pub struct ReplayBody {
    pub replay_id: Option<String>,
    pub group: Option<String>,
    pub from_time: Option<String>,
    pub to_time: Option<String>,
    pub ranges: Vec<OffsetRange>,
    pub rate_max: Option<u64>,
    pub reason: Option<String>,
    pub outcome: Option<ReplayOutcome>,
    pub records: u64,
    pub replaced: u64,
    pub changed: u64,
    pub dead_letters: u64,
    pub elapsed_ms: u64,
    pub error: Option<String>,
    pub operator: Option<String>,
}

/// Why it was not done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ConsumerFault {
    /// There is no such consumer here.
    NoSuch(String),
    /// It is refused for what it asks.
    Refused(String),
    /// It cannot be done at the moment, or not be recorded.
    Away(String),
}

impl fmt::Display for ConsumerFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::NoSuch(words) | Self::Refused(words) | Self::Away(words)) = self;
        f.write_str(words)
    }
}

impl IntoResponse for ConsumerFault {
    fn into_response(self) -> Response {
        let status = match &self {
            Self::NoSuch(_) => StatusCode::NOT_FOUND,
            Self::Refused(_) => StatusCode::BAD_REQUEST,
            Self::Away(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        problem(status, self)
    }
}

/// Something on its way.
pub type Answering = Pin<Box<dyn Future<Output = Result<Value, ConsumerFault>> + Send>>;

/// What the admin address asks of the consumers of this data folder.
pub trait Consumers: Send + Sync + 'static {
    /// How they stand.
    fn stand(&self) -> Value;
    /// Pauses, resumes or moves one, after that is recorded.
    fn change(&self, name: String, how: ConsumerChangeAsked, by: DoneBy) -> Answering;
    /// Records that a replay begins.
    fn replay_starts(&self, name: String, body: ReplayBody, by: DoneBy) -> Answering;
    /// Records that a replay has ended.
    fn replay_ends(&self, name: String, body: ReplayBody, by: DoneBy) -> Answering;
    /// Asks the audit database.
    fn query(&self, sql: String, rows_max: Option<usize>) -> Answering;
    /// Asks the context, as `context_api` has it.
    fn context(&self, what: String, members: Map<String, Value>) -> Answering;
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct ChangeBody {
    to_ms: Option<i64>,
    reason: Option<String>,
    operator: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct QueryBody {
    sql: String,
    rows_max: Option<usize>,
}

/// The routes, for whoever checks the token before them.
pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/consumers", get(stand))
        .route("/consumers/{name}/{verb}", post(change))
        .route("/replays/{name}/{verb}", post(replay))
        .route("/query", post(query))
}

fn here(admin: &Admin) -> Result<Arc<dyn Consumers>, ConsumerFault> {
    let nothing =
        || ConsumerFault::NoSuch("no gateway runs here, so nobody records what is done to consumers".to_owned());
    admin.consumers().cloned().ok_or_else(nothing)
}

fn done_by(who: Operator, said: Option<String>, reason: Option<String>) -> DoneBy {
    let operator = said.filter(|_| !who.named).unwrap_or(who.name);
    DoneBy { operator, role: Role::Offsets.word().to_owned(), reason }
}

async fn stand(State(admin): State<Admin>) -> Json<Value> {
    Json(admin.consumers().map_or_else(|| json!({ "consumers": [] }), |consumers| consumers.stand()))
}

async fn change(
    State(admin): State<Admin>,
    Extension(who): Extension<Operator>,
    Path((name, verb)): Path<(String, String)>,
    body: Option<Json<ChangeBody>>,
) -> Result<Json<Value>, ConsumerFault> {
    let ChangeBody { to_ms, reason, operator } = body.map(|Json(body)| body).unwrap_or_default();
    let how = match (verb.as_str(), to_ms) {
        ("pause", None) => ConsumerChangeAsked::Pause,
        ("resume", None) => ConsumerChangeAsked::Resume,
        ("seek", Some(to_ms)) => ConsumerChangeAsked::Seek(to_ms),
        ("seek", None) => return Err(ConsumerFault::Refused("say where to: to_ms".to_owned())),
        _ => return Err(ConsumerFault::NoSuch("a consumer is changed by pause, resume or seek".to_owned())),
    };
    here(&admin)?.change(name, how, done_by(who, operator, reason)).await.map(Json)
}

async fn replay(
    State(admin): State<Admin>,
    Extension(who): Extension<Operator>,
    Path((name, verb)): Path<(String, String)>,
    Json(body): Json<ReplayBody>,
) -> Result<Json<Value>, ConsumerFault> {
    let by = done_by(who, body.operator.clone(), body.reason.clone());
    let consumers = here(&admin)?;
    match verb.as_str() {
        "start" => consumers.replay_starts(name, body, by).await.map(Json),
        "end" => consumers.replay_ends(name, body, by).await.map(Json),
        _ => Err(ConsumerFault::NoSuch("a replay starts and ends".to_owned())),
    }
}

async fn query(State(admin): State<Admin>, Json(body): Json<QueryBody>) -> Result<Json<Value>, ConsumerFault> {
    here(&admin)?.query(body.sql, body.rows_max).await.map(Json)
}
