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
//! | `/contexts/{context}/…` | the rest of the path within that context |
//! | `/v1/metadata/id`, `/v1/metadata/version` | GET |
//! | `/master_available` | GET: whether this registry may write, in Karapace's words |
//!
//! Bodies are bounded before they are read. What is not there is 404; what would be dropped in silence is refused.

mod bodies;
mod guard;
mod media;
mod query;
mod schemas;
mod settings;
mod subjects;
mod within;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get, post},
};
use serde_json::{Value, json};

pub use self::guard::{Guard, Names, Secret};
use crate::{Refusal, Registry};

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
    let served = Router::new()
        .route("/", get(empty).post(empty))
        .route("/master_available", get(writes))
        .route("/v1/metadata/id", get(identity))
        .route("/v1/metadata/version", get(version))
        .merge(subjects::routes())
        .merge(schemas::routes())
        .merge(settings::routes())
        .fallback(nowhere)
        .method_not_allowed_fallback(other_method)
        .with_state(registry)
        .layer(DefaultBodyLimit::max(bytes_max));
    let inner = served.clone();
    served
        .route("/contexts/{context}/{*rest}", any(move |request: Request| within::serve(inner.clone(), request)))
        .layer(middleware::from_fn(media::negotiate))
        .layer(middleware::from_fn_with_state(guard, guard::admit))
}

/// Whether writes are answered here, asked by probes. Nobody keeps the answer.
async fn writes(State(registry): Within) -> Response {
    let said = answer(&json!({ "master_available": registry.is_owner() })).into_response();
    ([(header::CACHE_CONTROL, "no-store, no-cache, must-revalidate")], said).into_response()
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
