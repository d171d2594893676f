//! A registry over an embedded log in this process, and its API without a socket.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request};
use cairn_broker::{Broker, BrokerOptions, batch};
use cairn_clock::{Clock, Entropy};
use cairn_mcp::headers::OriginPolicy;
use cairn_registry::{Bounds, Guard, Names, Registry, TopicOptions, router};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower_service::Service;

/// An embedded log with its Kafka port.
pub(crate) struct Running {
    pub(crate) bootstrap: String,
    log: cairn_log::Log,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Running {
    pub(crate) async fn start(folder: &Path) -> Self {
        let options = cairn_log::LogOptions::new(folder.join("log"), batch::stamp);
        let mut tries = 0;
        let log = loop {
            match cairn_log::Log::open(options.clone(), Clock::system(), Entropy::system()).await {
                Ok(log) => break log,
                Err(error) => assert!(tries < 100, "the log does not open: {error}"),
            }
            tries += 1;
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let broker = Broker::open(BrokerOptions::default(), log.clone(), Clock::system(), Entropy::system()).await;
        let broker = broker.expect("a broker");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let bootstrap = listener.local_addr().expect("bound").to_string();
        let stop = CancellationToken::new();
        let served = tokio::spawn({
            let stop = stop.clone();
            async move { drop(broker.serve(listener, stop).await) }
        });
        Self { bootstrap, log, stop, served }
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.served.await.expect("served");
        self.log.close().await;
    }

    pub(crate) async fn registry(&self) -> Registry {
        self.bounded(Bounds::default()).await
    }

    pub(crate) async fn bounded(&self, bounds: Bounds) -> Registry {
        let options = TopicOptions {
            bootstrap: self.bootstrap.clone(),
            properties: BTreeMap::new(),
            name: "_schemas".to_owned(),
            replication: -1,
            ready_within: Duration::from_secs(30),
        };
        Registry::open(options, bounds, Entropy::system()).await.expect("a registry")
    }
}

/// Loopback only.
pub(crate) fn names() -> Names {
    let policy = OriginPolicy::default();
    Arc::new(move |headers, authority| policy.check(headers, authority).map_err(|fault| fault.to_string()))
}

/// Asks an API.
pub(crate) struct Api(pub(crate) Router);

impl Api {
    pub(crate) fn of(registry: &Registry) -> Self {
        Self(router(registry.clone(), Guard::new(names(), BTreeMap::new())))
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:8081");
        if body.is_some() {
            request = request.header("content-type", "application/vnd.schemaregistry.v1+json");
        }
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.send(request.body(Body::from(body)).expect("a request")).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> (u16, Value) {
        let response = self.0.clone().call(request).await.expect("an answer");
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, value) = self.ask("GET", path, None).await;
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    pub(crate) async fn done(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, value) = self.ask(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {value}");
        value
    }

    pub(crate) async fn refused(&self, method: &str, path: &str, body: Option<Value>) -> (u16, u64) {
        let (status, value) = self.ask(method, path, body).await;
        (status, value["error_code"].as_u64().unwrap_or_else(|| panic!("{method} {path}: {value}")))
    }
}

pub(crate) fn avro(text: &str) -> Value {
    json!({ "schema": text })
}

pub(crate) fn record(fields: &str) -> Value {
    avro(&format!(r#"{{"type": "record", "name": "R", "fields": [{fields}]}}"#))
}

pub(crate) const A: &str = r#"{"name": "a", "type": "int"}"#;
pub(crate) const B: &str = r#"{"name": "b", "type": "int", "default": 0}"#;
pub(crate) const C: &str = r#"{"name": "c", "type": "int"}"#;
