//! `POST /recording`: what one workflow's calls asked and got, payloads and all, for `cairn play` and `cairn compare`.
//!
//! It wants the role `payloads`. That the recording is opened is an event before it begins, and each payload leaves its
//! `vault.read` before it is shown. The answer is lines of JSON: `{"recording": …}` with digests, then a `{"payload": …}` for
//! each, then `{"end": …}` or `{"error": …}`. One runs at a time.

use std::convert::Infallible;

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::{Admin, Asked, Operator, Running, api::problem};

/// Lines that wait for the reader.
const LINES_MAX: usize = 4;

/// What is asked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordingAsked {
    /// The workflow.
    pub workflow_id: String,
    /// Its tenant, where several have one of that name.
    pub tenant: Option<String>,
    /// Who asks, where the token stands for nobody.
    pub operator: Option<String>,
    /// Why.
    pub reason: Option<String>,
}

/// What the admin address may read whole.
pub trait Recordings: Send + Sync + 'static {
    /// Begins; each line goes to `lines`, which is waited for. What it gives in the end stands in the last line.
    ///
    /// # Errors
    /// One runs already.
    fn begin(&self, asked: RecordingAsked, who: Asked, lines: mpsc::Sender<Value>) -> Result<Running, RecordingFault>;
}

/// Why it does not begin.
#[derive(Debug, thiserror::Error)]
pub enum RecordingFault {
    /// One is enough for a machine that serves calls meanwhile.
    #[error("another recording is being read: wait until it ends")]
    Busy,
}

/// The route.
pub(crate) fn routes() -> Router<Admin> {
    Router::new().route("/recording", post(recording))
}

async fn recording(
    State(admin): State<Admin>,
    Extension(who): Extension<Operator>,
    Json(asked): Json<RecordingAsked>,
) -> Response {
    let Some(recordings) = admin.recordings() else {
        return problem(StatusCode::NOT_FOUND, "no gateway runs here, so there is no vault with payloads");
    };
    let (sender, said) = mpsc::channel(LINES_MAX);
    let operator = asked.operator.clone().filter(|_| !who.named).unwrap_or(who.name);
    let who = Asked { operator, reason: asked.reason.clone() };
    let running = match recordings.begin(asked, who, sender.clone()) {
        Ok(running) => running,
        Err(fault @ RecordingFault::Busy) => return problem(StatusCode::CONFLICT, fault),
    };
    // The last line goes the way of all others, so that none is left behind it.
    let running: std::pin::Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        let last = running.await.map_or_else(|error| json!({ "error": error }), |end| json!({ "end": end }));
        // Whoever has gone needs no last line.
        let _ = sender.send(last).await;
    });
    let lines = futures::stream::unfold((said, Some(running)), |(mut said, mut running)| async move {
        loop {
            let Some(current) = &mut running else {
                let line = said.recv().await?;
                return Some((Ok::<_, Infallible>(format!("{line}\n")), (said, None)));
            };
            tokio::select! {
                biased;
                Some(line) = said.recv() => return Some((Ok(format!("{line}\n")), (said, running))),
                () = current => running = None,
            }
        }
    });
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    (headers, Body::from_stream(lines)).into_response()
}
