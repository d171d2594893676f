//! An Iceberg REST catalog of one table, read-only: what engines attach. By the OpenAPI definition of apache/iceberg.
//!
//! It answers with the newest metadata as it lies in the store, and says no to everything that would change something: only `cairn-lake
//! run` writes. Rows are read by the engine from the store itself, with its own credentials; none are handed out here. Without a token it
//! is served on loopback alone.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    http::{Method, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use cairn_log::Store;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;

use crate::table;

/// What the catalog serves.
#[derive(Clone)]
pub struct Catalog {
    /// The table's store.
    pub store: Arc<dyn Store>,
    /// Where the table lies, as a URI.
    pub location: String,
    /// The namespace and the table's name.
    pub name: (String, String),
    /// What clients must bring; whoever asks on loopback needs nothing where there is none.
    pub token: Option<String>,
    /// What engines need to know of the store, such as its endpoint: no secrets.
    pub config: Vec<(String, String)>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Catalog").field("location", &self.location).field("name", &self.name).finish_non_exhaustive()
    }
}

/// What can be asked; engines look at this before they ask for more.
const ENDPOINTS: [&str; 7] = [
    "GET /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics",
];

/// The catalog's routes.
pub fn router(catalog: Catalog) -> Router {
    let table = "/v1/namespaces/{namespace}/tables/{table}";
    Router::new()
        .route("/v1/config", get(config))
        .route("/v1/namespaces", get(namespaces))
        .route("/v1/namespaces/{namespace}", get(namespace).head(has_namespace))
        .route("/v1/namespaces/{namespace}/tables", get(tables))
        .route("/v1/namespaces/{namespace}/views", get(views))
        .route(table, get(load).head(has_table))
        // What an engine measured of its scan is nobody's here.
        .route(&format!("{table}/metrics"), axum::routing::post(|| async { StatusCode::NO_CONTENT }))
        .fallback(nothing)
        .method_not_allowed_fallback(read_only)
        .layer(from_fn_with_state(catalog.clone(), let_in))
        .with_state(catalog)
}

/// An error as the definition wants it.
fn refused(status: StatusCode, kind: &str, message: &str) -> Response {
    let error = json!({ "error": { "message": message, "type": kind, "code": status.as_u16() } });
    (status, Json(error)).into_response()
}

async fn let_in(State(catalog): State<Catalog>, request: Request, next: Next) -> Response {
    let Some(token) = &catalog.token else { return next.run(request).await };
    let said = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let said = said.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
    if bool::from(said.as_bytes().ct_eq(token.as_bytes())) {
        return next.run(request).await;
    }
    refused(StatusCode::UNAUTHORIZED, "NotAuthorizedException", "this catalog wants its token: Authorization: Bearer …")
}

async fn nothing(method: Method) -> Response {
    if method == Method::GET || method == Method::HEAD {
        return refused(StatusCode::NOT_FOUND, "NoSuchEndpointException", "there is nothing at that path");
    }
    read_only().await
}

async fn read_only() -> Response {
    let message = "this catalog is read-only: `cairn-lake run` alone writes its table";
    refused(StatusCode::FORBIDDEN, "ForbiddenException", message)
}

async fn config() -> Json<Value> {
    Json(json!({ "defaults": {}, "overrides": {}, "endpoints": ENDPOINTS }))
}

async fn namespaces(State(catalog): State<Catalog>, request: Request) -> Json<Value> {
    // There is one, and nothing in it but tables.
    let is_below = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair.starts_with("parent=") && pair != "parent="));
    let found = if is_below { json!([]) } else { json!([[catalog.name.0]]) };
    Json(json!({ "namespaces": found }))
}

impl Catalog {
    /// What is said of a namespace that is not there.
    fn refuses(&self, namespace: &str) -> Option<Response> {
        let message = format!("there is one namespace: {}", self.name.0);
        let refusal = || refused(StatusCode::NOT_FOUND, "NoSuchNamespaceException", &message);
        (namespace != self.name.0).then(refusal)
    }
}

async fn namespace(State(catalog): State<Catalog>, Path(namespace): Path<String>) -> Response {
    let found = || Json(json!({ "namespace": [namespace], "properties": {} })).into_response();
    catalog.refuses(&namespace).unwrap_or_else(found)
}

async fn has_namespace(State(catalog): State<Catalog>, Path(namespace): Path<String>) -> StatusCode {
    if namespace == catalog.name.0 { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn has_table(State(catalog): State<Catalog>, Path(asked): Path<(String, String)>) -> StatusCode {
    match table::newest(&*catalog.store).await {
        Ok(Some(_)) if asked == catalog.name => StatusCode::NO_CONTENT,
        Ok(_) => StatusCode::NOT_FOUND,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn tables(State(catalog): State<Catalog>, Path(namespace): Path<String>) -> Response {
    let told = json!({ "identifiers": [{ "namespace": [namespace], "name": catalog.name.1 }] });
    catalog.refuses(&namespace).unwrap_or_else(|| Json(told).into_response())
}

async fn views(State(catalog): State<Catalog>, Path(namespace): Path<String>) -> Response {
    catalog.refuses(&namespace).unwrap_or_else(|| Json(json!({ "identifiers": [] })).into_response())
}

async fn load(State(catalog): State<Catalog>, Path((namespace, name)): Path<(String, String)>) -> Response {
    if let Some(refusal) = catalog.refuses(&namespace) {
        return refusal;
    }
    let no_table = || {
        let message = format!("there is one table: {}.{}", catalog.name.0, catalog.name.1);
        refused(StatusCode::NOT_FOUND, "NoSuchTableException", &message)
    };
    if name != catalog.name.1 {
        return no_table();
    }
    let found = match table::newest(&*catalog.store).await {
        Ok(Some(found)) => found,
        Ok(None) => return no_table(),
        Err(error) => {
            return refused(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailableException", &error.to_string());
        }
    };
    let (place, bytes) = found;
    let Ok(metadata) = serde_json::from_slice::<Value>(&bytes) else {
        return refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", "the table's metadata is damaged");
    };
    let config: serde_json::Map<String, Value> =
        catalog.config.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    Json(json!({
        "metadata-location": format!("{}/{place}", catalog.location), "metadata": metadata, "config": config,
    }))
    .into_response()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use cairn_clock::{Clock, Entropy};
    use cairn_log::FolderStore;

    use super::*;
    use crate::table::Table;

    /// One exchange: the status, and the body.
    fn ask(address: &str, request: &str, token: &str) -> (u16, String) {
        let mut stream = std::net::TcpStream::connect(address).expect("somebody listens");
        let token = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{token}Content-Length: 0\r\n\r\n"
        )
        .expect("it is read");
        let mut said = String::new();
        stream.read_to_string(&mut said).expect("an answer");
        let status = said.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, said.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    #[test]
    fn it_shows_the_newest_table_to_who_brings_the_token_and_changes_nothing() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let store: Arc<dyn Store> = Arc::new(FolderStore::new(folder.path().to_owned()));
        runtime.block_on(store.prepare()).expect("a store");
        let catalog = Catalog {
            store: store.clone(),
            location: "file:///t".to_owned(),
            name: ("cairn".to_owned(), "events".to_owned()),
            token: Some("the-token".to_owned()),
            config: vec![("s3.region".to_owned(), "r".to_owned())],
        };
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let serving = runtime.spawn(async move { axum::serve(listener, router(catalog)).await });
        let ask = |request: &str| ask(&address, request, "the-token");
        let table = "/v1/namespaces/cairn/tables/events";
        assert_eq!(ask(&format!("HEAD {table}")).0, 404, "nobody has made it yet");
        let made = Table::take(store, "file:///t", (Clock::system(), Entropy::system()));
        runtime.block_on(made).expect("taken");
        let (status, body) = ask(&format!("GET {table}"));
        let loaded: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((status, &loaded["metadata"]["format-version"]), (200, &json!(2)));
        assert!(loaded["metadata-location"].as_str().is_some_and(|place| place.starts_with("file:///t/metadata/")));
        assert_eq!(loaded["config"], json!({ "s3.region": "r" }));
        assert_eq!((ask(&format!("HEAD {table}")).0, ask("GET /v1/namespaces/other/tables").0), (204, 404));
        assert!(ask("GET /v1/config").1.contains("GET /v1/{prefix}/namespaces"));
        for change in
            ["POST /v1/namespaces/cairn/tables", "DELETE /v1/namespaces/cairn/tables/events", "POST /v1/namespaces"]
        {
            assert_eq!(ask(change).0, 403, "{change}");
        }
        for token in ["", "the-toke", "the-tokens"] {
            assert_eq!(super::tests::ask(&address, "GET /v1/config", token).0, 401, "{token:?}");
        }
        serving.abort();
    }
}
