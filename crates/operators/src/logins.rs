//! Logins of persons to servers, over the admin API: begun by `cairn login`, which shows the URL to whoever runs it.
//!
//! Everything here wants the operator's token: whoever logs in lends an account to every agent that may call the server.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cairn_credentials::{Credential, CredentialError, LoginState, Standing};
use serde_json::{Value, json};

use crate::api::{Admin, problem};

pub(crate) fn routes() -> Router<Admin> {
    Router::new()
        .route("/credentials", get(list))
        .route("/credentials/{server}/login", post(begin))
        .route("/credentials/{server}/login/{id}", get(state))
}

async fn list(State(admin): State<Admin>) -> Json<Value> {
    let all = admin.0.gateway.iter().flat_map(|gateway| gateway.credentials().iter()).map(|(server, credential)| {
        let (state, error) = match credential.standing() {
            Standing::Ready => ("ready", None),
            Standing::LoginRequired => ("login_required", None),
            Standing::Failing(error) => ("failing", Some(error.to_string())),
            Standing::Idle => ("idle", None),
        };
        json!({ "server": server, "state": state, "error": error, "login": credential.has_login() })
    });
    Json(json!({ "credentials": all.collect::<Vec<_>>() }))
}

async fn begin(State(admin): State<Admin>, Path(server): Path<String>) -> Response {
    let Some(credential) = find(&admin, &server) else { return unknown(&server) };
    match credential.begin_login().await {
        Ok(login) => {
            let within_ms = u64::try_from(login.within.as_millis()).unwrap_or(u64::MAX);
            Json(json!({ "id": login.id, "url": login.url, "within_ms": within_ms })).into_response()
        }
        Err(error @ CredentialError::Misconfigured { .. }) => problem(StatusCode::CONFLICT, error),
        Err(error) => problem(StatusCode::BAD_GATEWAY, error),
    }
}

async fn state(State(admin): State<Admin>, Path((server, id)): Path<(String, String)>) -> Response {
    let Some(credential) = find(&admin, &server) else { return unknown(&server) };
    let (state, error) = match credential.login_state(&id) {
        LoginState::Open => ("open", None),
        LoginState::Done => ("done", None),
        LoginState::Failed(error) => ("failed", Some(error.to_string())),
        LoginState::Unknown => ("unknown", None),
    };
    Json(json!({ "id": id, "state": state, "error": error })).into_response()
}

fn find<'a>(admin: &'a Admin, server: &str) -> Option<&'a Credential> {
    admin.0.gateway.as_ref()?.credentials().of(server)
}

fn unknown(server: &str) -> Response {
    let words = format!("no server {server:?} has [servers.{server}.auth] in the configuration");
    problem(StatusCode::NOT_FOUND, words)
}
