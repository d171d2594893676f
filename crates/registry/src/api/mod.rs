//! Confluent's REST API, as its serializers and tools use it.
//!
//! | path | methods |
//! | --- | --- |
//! | `/subjects`, `/subjects/{subject}` | GET; POST looks a schema up, DELETE |
//! | `/subjects/{subject}/versions`, `…/{version}`, `…/{version}/schema`, `…/{version}/referencedby` | GET, POST registers, DELETE |
//! | `/subjects/{subject}/metadata` | GET: the latest version with those properties |
//! | `/schemas`, `/schemas/types` | GET |
//! | `/schemas/ids/{id}`, `…/schema`, `…/subjects`, `…/versions` | GET |
//! | `/schemas/guids/{guid}`, `…/ids` | GET |
//! | `/compatibility/subjects/{subject}/versions`, `…/{version}` | POST |
//! | `/config`, `/config/{subject}`, `/mode`, `/mode/{subject}` | GET, PUT, DELETE |
//! | `/contexts`, `/contexts/{context}` | GET, DELETE |
//! | `/v1/metadata/id`, `/v1/metadata/version` | GET |
//!
//! Bodies are bounded before they are read. What is not there is 404; what would be dropped in silence is refused.

mod bodies;
mod guard;
mod query;
mod schemas;
mod settings;
mod subjects;

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};

pub use self::guard::{Guard, Names, Secret};
use crate::{Refusal, Registry};

/// What answers are called.
const MEDIA: [&str; 3] =
    ["application/vnd.schemaregistry.v1+json", "application/vnd.schemaregistry+json", "application/json"];

/// Bytes of a request's body: a schema may be that long, each character escaped, with as much around it.
const fn body_bytes_max(schema_bytes_max: usize) -> usize {
    schema_bytes_max * 2 + 256 * 1024
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error_code": self.code, "message": self.message });
        (self.status, body.to_string()).into_response()
    }
}

/// An answer in JSON; its media type is set on the way out.
type Answer = Result<Response, Refusal>;

fn answer(value: &Value) -> Answer {
    Ok(value.to_string().into_response())
}

/// The routes, behind a guard.
pub fn router(registry: Registry, guard: Guard) -> Router {
    let bytes_max = body_bytes_max(registry.0.bounds.schema_bytes_max);
    Router::new()
        .route("/", get(empty).post(empty))
        .route("/v1/metadata/id", get(identity))
        .route("/v1/metadata/version", get(version))
        .merge(subjects::routes())
        .merge(schemas::routes())
        .merge(settings::routes())
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method)
        .with_state(registry)
        .layer(DefaultBodyLimit::max(bytes_max))
        .layer(middleware::from_fn(media))
        .layer(middleware::from_fn_with_state(guard, guard::admit))
}

async fn empty() -> Answer {
    answer(&json!({}))
}

async fn nowhere() -> Refusal {
    Refusal::no_route()
}

async fn other_method() -> Refusal {
    Refusal { status: StatusCode::METHOD_NOT_ALLOWED, code: 405, message: "HTTP 405 Method Not Allowed".to_owned() }
}

async fn identity() -> Answer {
    answer(&json!({
        "scope": { "path": [], "clusters": { "kafka-cluster": "cairn", "schema-registry-cluster": "schema-registry" } },
        "id": ""
    }))
}

async fn version() -> Answer {
    answer(&json!({ "version": env!("CARGO_PKG_VERSION"), "commitId": "cairn" }))
}

/// Takes bodies that are JSON only, and calls answers what the client asked for.
async fn media(request: Request, next: Next) -> Response {
    let has_body = [Method::POST, Method::PUT].contains(request.method());
    let sent = request.headers().get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default().to_owned());
    let known = |sent: &str| {
        let bare = sent.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        MEDIA.contains(&bare.as_str()) || ["application/octet-stream", "*/*", ""].contains(&bare.as_str())
    };
    let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("*/*");
    let chosen = MEDIA.into_iter().filter(|_| !accepted.contains("*/*")).find(|media| accepted.contains(media));
    let chosen = chosen.unwrap_or(MEDIA[0]);
    let mut response = if has_body && sent.is_some_and(|sent| !known(&sent)) {
        let message = "HTTP 415 Unsupported Media Type: send application/vnd.schemaregistry.v1+json".to_owned();
        Refusal { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, code: 415, message }.into_response()
    } else {
        next.run(request).await
    };
    let plain =
        response.headers().get(header::CONTENT_TYPE).is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    if plain {
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(chosen));
    }
    // What axum itself refuses has no code of Confluent's.
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        *response.body_mut() =
            Body::from(json!({ "error_code": 413, "message": "The request's body is too large" }).to_string());
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// Reads POST routes beside GET ones.
fn posts<H, T>(handler: H) -> axum::routing::MethodRouter<Registry>
where
    H: axum::handler::Handler<T, Registry>,
    T: 'static,
{
    post(handler)
}

/// The state of every handler.
type Within = State<Registry>;
