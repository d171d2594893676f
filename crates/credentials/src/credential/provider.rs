//! A small authorization server with a protected resource, for the tests: what it was asked is in its journal, and each
//! way in which it can misbehave is a switch.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Form, Json, Router,
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// What a token endpoint was asked.
pub(super) type Asked = HashMap<String, String>;

/// The switches, and what happened.
#[derive(Default)]
pub(super) struct Provider {
    pub(super) base: Mutex<String>,
    pub(super) asked: Mutex<Vec<Asked>>,
    pub(super) basic: Mutex<Vec<String>>,
    pub(super) registered: AtomicUsize,
    pub(super) life_seconds: AtomicUsize,
    pub(super) slow: AtomicBool,
    /// Refuses, and repeats everything that it was sent.
    pub(super) echoes: AtomicBool,
    /// Names an issuer that it is not.
    pub(super) lies: AtomicBool,
    /// Another authorization server that the resource names in its place.
    pub(super) moved: Mutex<Option<String>>,
    /// Its metadata sends whoever asks for a token elsewhere.
    pub(super) token_endpoint: Mutex<Option<String>>,
    refresh_token: Mutex<Option<String>>,
    tokens: AtomicUsize,
}

impl Provider {
    /// Starts one.
    pub(super) async fn start() -> Arc<Self> {
        let provider = Arc::new(Self::default());
        provider.life_seconds.store(3_600, Ordering::SeqCst);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        *provider.base.lock() = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new()
            .route("/.well-known/oauth-protected-resource/mcp", get(resource))
            .route("/.well-known/oauth-authorization-server", get(metadata))
            .route("/mcp", get(challenge).post(challenge))
            .route("/register", post(register))
            .route("/token", post(token))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base.lock())
    }

    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }
}

async fn challenge(State(provider): State<Arc<Provider>>) -> Response {
    let header = format!(
        "Bearer resource_metadata=\"{}\", scope=\"read\"",
        provider.url("/.well-known/oauth-protected-resource/mcp")
    );
    (StatusCode::UNAUTHORIZED, [("www-authenticate", header)]).into_response()
}

async fn resource(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let server = provider.moved.lock().clone().unwrap_or_else(|| provider.url(""));
    Json(json!({ "resource": provider.url("/mcp"), "authorization_servers": [server] }))
}

async fn metadata(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let issuer =
        if provider.lies.load(Ordering::SeqCst) { "https://other.example".to_owned() } else { provider.url("") };
    let token_endpoint = provider.token_endpoint.lock().clone().unwrap_or_else(|| provider.url("/token"));
    Json(json!({
        "issuer": issuer,
        "authorization_endpoint": provider.url("/authorize"),
        "token_endpoint": token_endpoint,
        "registration_endpoint": provider.url("/register"),
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
    }))
}

async fn register(State(provider): State<Arc<Provider>>) -> Json<Value> {
    let count = provider.registered.fetch_add(1, Ordering::SeqCst);
    Json(json!({ "client_id": format!("client-{count}"), "redirect_uris": [] }))
}

async fn token(
    State(provider): State<Arc<Provider>>,
    Query(_): Query<HashMap<String, String>>,
    headers: HeaderMap,
    Form(form): Form<Asked>,
) -> Response {
    if let Some(basic) = headers.get("authorization") {
        provider.basic.lock().push(basic.to_str().expect("text").to_owned());
    }
    provider.asked.lock().push(form.clone());
    if provider.slow.load(Ordering::SeqCst) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let refused = |code: &str| (StatusCode::BAD_REQUEST, Json(json!({ "error": code }))).into_response();
    if provider.echoes.load(Ordering::SeqCst) {
        let all = format!("{form:?} {:?}", headers.get("authorization").map(|basic| basic.to_str().expect("text")));
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": all, "error_description": all }))).into_response();
    }
    if form.get("grant_type").is_some_and(|grant| grant == "refresh_token") {
        // Each is good once.
        if form.get("refresh_token") != provider.refresh_token.lock().as_ref() {
            return refused("invalid_grant");
        }
    }
    let count = provider.tokens.fetch_add(1, Ordering::SeqCst);
    let mut said = json!({
        "access_token": format!("t0ken-{count}"),
        "token_type": "Bearer",
        "scope": form.get("scope").cloned().unwrap_or_else(|| "read".to_owned()),
    });
    // Without a number that can be said it says nothing.
    if let Ok(life) = u32::try_from(provider.life_seconds.load(Ordering::SeqCst)) {
        said["expires_in"] = json!(life);
    }
    if form.get("grant_type").is_some_and(|grant| grant == "authorization_code" || grant == "refresh_token") {
        let fresh = format!("r3fresh-{count}");
        *provider.refresh_token.lock() = Some(fresh.clone());
        said["refresh_token"] = json!(fresh);
    }
    if form.get("requested_token_type").is_some_and(|kind| kind.ends_with("id-jag")) {
        said["issued_token_type"] = json!("urn:ietf:params:oauth:token-type:id-jag");
        said["token_type"] = json!("N_A");
    }
    Json(said).into_response()
}
