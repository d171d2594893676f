//! `POST /whatif`: recorded decisions made again under policies that an operator sends.
//!
//! It wants the role `payloads`: a policy that looks at arguments tells by its flips what was in them. The answer is lines of
//! JSON, one after another: `{"progress": …}` while it runs, then `{"report": …}` or `{"error": …}`. One runs at a time.

use std::{collections::BTreeMap, convert::Infallible};

use axum::{
    Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{Admin, api::problem};

/// Largest body: a set of policies with its entities, in bytes.
pub(crate) const TRIAL_BYTES_MAX: usize = 48 << 20;
/// Lines of progress that wait for the reader.
const LINES_MAX: usize = 16;

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrialAsked {
    /// The texts of the policies' files, by name.
    pub files: BTreeMap<String, String>,
    /// From when, in milliseconds since 1970.
    pub since_ms: i64,
    /// Until when; the present end where absent.
    pub until_ms: Option<i64>,
    /// Most flips that are listed.
    pub list: Option<usize>,
}

/// What decides again. One that is dropped stops.
pub type Running = std::pin::Pin<Box<dyn Future<Output = Result<Value, String>> + Send>>;

/// What the admin address may have decided again.
pub trait Trials: Send + Sync + 'static {
    /// Begins; progress goes to `progress`, and is left out where nobody takes it.
    ///
    /// # Errors
    /// The policies do not compile, or one runs already, in words.
    fn begin(&self, asked: TrialAsked, progress: mpsc::Sender<Value>) -> Result<Running, TrialFault>;
}

/// Why it does not begin.
#[derive(Debug, thiserror::Error)]
pub enum TrialFault {
    /// The policies are wrong.
    #[error("{0}")]
    Policies(String),
    /// One is enough for a machine that serves calls meanwhile.
    #[error("one runs already: wait until it ends")]
    Busy,
}

/// The route.
pub(crate) fn routes() -> Router<Admin> {
    Router::new().route("/whatif", post(whatif)).layer(DefaultBodyLimit::max(TRIAL_BYTES_MAX))
}

async fn whatif(State(admin): State<Admin>, Json(asked): Json<TrialAsked>) -> Response {
    let Some(trials) = admin.trials() else {
        return problem(StatusCode::NOT_FOUND, "no gateway runs here, so there is no vault with inputs");
    };
    let (sender, said) = mpsc::channel(LINES_MAX);
    let running = match trials.begin(asked, sender) {
        Ok(running) => running,
        Err(fault @ TrialFault::Busy) => return problem(StatusCode::CONFLICT, fault),
        Err(fault) => return problem(StatusCode::BAD_REQUEST, fault),
    };
    let lines = futures::stream::unfold(Some((said, running)), |state| async move {
        let (mut said, mut running) = state?;
        tokio::select! {
            biased;
            Some(progress) = said.recv() => Some((line(&json!({ "progress": progress })), Some((said, running)))),
            ended = &mut running => {
                let last = ended.map_or_else(|error| json!({ "error": error }), |report| json!({ "report": report }));
                Some((line(&last), None))
            }
        }
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

fn line(value: &Value) -> Result<String, Infallible> {
    Ok(format!("{value}\n"))
}
