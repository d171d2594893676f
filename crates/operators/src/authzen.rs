//! The policies in force over HTTP, for other enforcement points (OpenID AuthZEN's Authorization API 1.0).
//!
//! | request | answer |
//! | --- | --- |
//! | `POST /access/v1/evaluation`, `/authzen/<server>/access/v1/evaluation` | one decision |
//! | `POST /access/v1/evaluations`, `/authzen/<server>/access/v1/evaluations` | several |
//! | `GET /.well-known/authzen-configuration` | where they are; open |
//!
//! Whoever asks wants an operator's token with the role `view`. What the names mean is the gateway's affair.

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use cairn_gateway::Gateway;
use serde_json::{Value, json};

use crate::{Admin, api::problem};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/access/v1/evaluation", post(one))
        .route("/access/v1/evaluations", post(several))
        .route("/authzen/{server}/access/v1/evaluation", post(one_at))
        .route("/authzen/{server}/access/v1/evaluations", post(several_at))
}

type Evaluate = fn(&Gateway, Option<&str>, &Value) -> Result<Value, String>;

async fn one(State(admin): State<Admin>, headers: HeaderMap, body: Bytes) -> Response {
    answered(&admin, &headers, &body, None, Gateway::evaluate)
}

async fn several(State(admin): State<Admin>, headers: HeaderMap, body: Bytes) -> Response {
    answered(&admin, &headers, &body, None, Gateway::evaluate_all)
}

async fn one_at(State(admin): State<Admin>, Path(server): Path<String>, headers: HeaderMap, body: Bytes) -> Response {
    answered(&admin, &headers, &body, Some(&server), Gateway::evaluate)
}

async fn several_at(
    State(admin): State<Admin>,
    Path(server): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    answered(&admin, &headers, &body, Some(&server), Gateway::evaluate_all)
}

fn answered(admin: &Admin, headers: &HeaderMap, body: &[u8], server: Option<&str>, evaluate: Evaluate) -> Response {
    let Some(gateway) = admin.gateway() else {
        return problem(StatusCode::NOT_FOUND, "no gateway runs here, so no policies decide");
    };
    let request: Value = match serde_json::from_slice(body) {
        Ok(request @ Value::Object(_)) => request,
        Ok(_) => return problem(StatusCode::BAD_REQUEST, "the body is no JSON object"),
        Err(error) => return problem(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}")),
    };
    let mut response = match evaluate(gateway, server, &request) {
        Ok(answer) => Json(answer).into_response(),
        Err(error) => problem(StatusCode::BAD_REQUEST, error),
    };
    if let Some(id) = headers.get(&REQUEST_ID) {
        response.headers_mut().insert(REQUEST_ID, id.clone());
    }
    response
}

/// Where the endpoints are.
pub(crate) async fn configuration(State(admin): State<Admin>) -> Response {
    let Some(base) = admin.gateway().and_then(Gateway::address_of_people) else {
        return problem(StatusCode::NOT_FOUND, "no gateway runs here, so no policies decide");
    };
    Json(json!({
        "policy_decision_point": base,
        "access_evaluation_endpoint": format!("{base}/access/v1/evaluation"),
        "access_evaluations_endpoint": format!("{base}/access/v1/evaluations"),
    }))
    .into_response()
}
