//! The admin address's part for payloads. Reading one back wants the role `payloads`, everything else `erase`.
//!
//! | request | body | answer |
//! | --- | --- | --- |
//! | `POST /vault/read` | `{"digest","operator","reason"}` | the payload; `vault.read` is recorded before |
//! | `POST /vault/erase` | `{"subject","tenant","operator","reason"}` | what was destroyed |
//! | `POST /vault/hold`, `/vault/release` | the same | the subject |
//! | `GET /vault/holds` | | the subjects under hold |
//! | `POST /rejected/repair` | `{"id","digest","changes":[{"at","value"}]}` | where the repaired event is; wants `payloads` |
//! | `POST /vault/rotate` | | how many subjects have their keys under another master key |

use axum::{
    Extension, Json, Router,
    extract::FromRequestParts,
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cairn_vault::{ErrorKind, Subject};
use serde::Deserialize;
use serde_json::json;

use crate::{
    api::{Admin, problem},
    custody::{Asked, Custody, CustodyError, RefusedChange},
    people::Operator,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadBody {
    digest: String,
    operator: Option<String>,
    reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectBody {
    subject: String,
    tenant: Option<String>,
    operator: Option<String>,
    reason: Option<String>,
}

impl SubjectBody {
    fn parts(self, who: Operator) -> (Subject, Asked) {
        (Subject { tenant: self.tenant, name: self.subject }, asked(who, self.operator, self.reason))
    }
}

/// Who asks: whoever the token names; where it names nobody, who they say they are.
fn asked(who: Operator, said: Option<String>, reason: Option<String>) -> Asked {
    Asked { operator: said.filter(|_| !who.named).unwrap_or(who.name), reason }
}

/// The vault, where there is one in this process.
struct Kept(Custody);

impl FromRequestParts<Admin> for Kept {
    type Rejection = Response;

    async fn from_request_parts(_: &mut Parts, admin: &Admin) -> Result<Self, Response> {
        let nothing = || problem(StatusCode::NOT_FOUND, "no gateway runs here, so no payloads are kept");
        admin.custody().cloned().map(Self).ok_or_else(nothing)
    }
}

/// The routes, for whoever checks the token before them.
pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/vault/read", post(read))
        .route("/vault/erase", post(erase))
        .route("/vault/hold", post(hold))
        .route("/vault/release", post(release))
        .route("/vault/holds", get(holds))
        .route("/vault/rotate", post(rotate))
        .route("/rejected/repair", post(repair))
}

impl IntoResponse for CustodyError {
    fn into_response(self) -> Response {
        let status = match self.kind() {
            ErrorKind::Missing => StatusCode::NOT_FOUND,
            ErrorKind::Erased => StatusCode::GONE,
            ErrorKind::Held => StatusCode::CONFLICT,
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::Disk => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::Key | ErrorKind::Corrupt => StatusCode::INTERNAL_SERVER_ERROR,
        };
        problem(status, self)
    }
}

async fn read(
    Kept(custody): Kept,
    Extension(who): Extension<Operator>,
    Json(body): Json<ReadBody>,
) -> Result<Response, CustodyError> {
    let payload = custody.read(&body.digest, &asked(who, body.operator, body.reason)).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, payload).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RepairBody {
    id: String,
    digest: String,
    #[serde(default)]
    changes: Vec<RefusedChange>,
    // Both stand in the act that is recorded before.
    #[allow(dead_code, reason = "read from the body by whoever records the act")]
    operator: Option<String>,
    #[allow(dead_code, reason = "read from the body by whoever records the act")]
    reason: Option<String>,
}

async fn repair(Kept(custody): Kept, Json(body): Json<RepairBody>) -> Result<Response, CustodyError> {
    let recorded = custody.repair(&body.id, &body.digest, &body.changes).await?;
    let place = json!({ "id": recorded.event_id, "topic": recorded.topic.name(), "partition": recorded.partition, "offset": recorded.offset });
    Ok(Json(place).into_response())
}

async fn erase(
    Kept(custody): Kept,
    Extension(who): Extension<Operator>,
    Json(body): Json<SubjectBody>,
) -> Result<Response, CustodyError> {
    let (subject, asked) = body.parts(who);
    let erased = custody.erase(&subject, &asked).await?;
    Ok(Json(erased).into_response())
}

async fn hold(
    Kept(custody): Kept,
    Extension(who): Extension<Operator>,
    Json(body): Json<SubjectBody>,
) -> Result<Response, CustodyError> {
    let (subject, asked) = body.parts(who);
    custody.hold(&subject, &asked).await?;
    Ok(Json(json!({ "subject": subject, "state": "held" })).into_response())
}

async fn release(
    Kept(custody): Kept,
    Extension(who): Extension<Operator>,
    Json(body): Json<SubjectBody>,
) -> Result<Response, CustodyError> {
    let (subject, asked) = body.parts(who);
    let holds = custody.release(&subject, &asked).await?;
    Ok(Json(json!({ "subject": subject, "state": "released", "holds": holds })).into_response())
}

async fn holds(Kept(custody): Kept) -> Response {
    let held = custody.vault().held().into_iter().map(|(subject, holds)| json!({ "subject": subject, "holds": holds }));
    Json(json!({ "held": held.collect::<Vec<_>>() })).into_response()
}

async fn rotate(Kept(custody): Kept) -> Result<Response, CustodyError> {
    let subjects = custody.vault().rotate(None).await?;
    Ok(Json(json!({ "subjects": subjects })).into_response())
}
