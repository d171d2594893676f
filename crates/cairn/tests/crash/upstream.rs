//! An MCP server over HTTP that lives in the test's process, so that it outlives every Cairn that is killed.
//!
//! Speaks both eras. Each call of a tool, and each read, that reaches it becomes one line in its own journal, synced
//! before the answer: the id that the client chose. The tests compare the trail with that file. Must never repeat a line,
//! and never look at anything but the request.

use std::{
    convert::Infallible,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// The server.
pub(crate) struct Upstream {
    pub(crate) url: String,
    journal: PathBuf,
    serving: JoinHandle<()>,
}

impl Upstream {
    /// Serves on a free port of the loopback.
    pub(crate) async fn start(folder: &Path) -> Self {
        let path = folder.join("upstream-journal.txt");
        let file = File::options().create(true).append(true).open(&path).expect("a journal");
        let journal = Arc::new(Mutex::new(file));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let journal = journal.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let journal = journal.clone();
                        async move { Ok::<_, Infallible>(answer(request, journal).await) }
                    });
                    // A Cairn that is killed breaks its connections; that is no failure of this server.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, journal: path, serving }
    }

    /// What reached it, by the ids that the clients chose, in order.
    pub(crate) fn reached(&self) -> Vec<String> {
        lines(&self.journal)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The whole lines of a journal.
pub(crate) fn lines(journal: &Path) -> Vec<String> {
    std::fs::read_to_string(journal).unwrap_or_default().lines().map(ToOwned::to_owned).collect()
}

async fn answer(request: Request<Incoming>, journal: Arc<Mutex<File>>) -> Response<Full<Bytes>> {
    if request.method() != http::Method::POST {
        return status(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Ok(body) = request.into_body().collect().await else { return status(StatusCode::BAD_REQUEST) };
    let Ok(message) = serde_json::from_slice::<Value>(&body.to_bytes()) else {
        return status(StatusCode::BAD_REQUEST);
    };
    let method = message["method"].as_str().unwrap_or_default();
    if message.get("id").is_none() {
        return status(StatusCode::ACCEPTED);
    }
    let result = match method {
        "initialize" => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": { "tools": {}, "resources": {} },
            "serverInfo": { "name": "outliving", "version": "1" },
        }),
        "server/discover" => json!({
            "resultType": "complete",
            "supportedVersions": ["2026-07-28", "2025-11-25"],
            "capabilities": { "tools": {}, "resources": {} },
            "serverInfo": { "name": "outliving", "version": "1" },
        }),
        "tools/call" => {
            let id = message["params"]["arguments"]["id"].as_str().unwrap_or("?").to_owned();
            note(&journal, &id).await;
            let ms = message["params"]["arguments"]["ms"].as_u64().unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            json!({ "resultType": "complete", "content": [{ "type": "text", "text": id }] })
        }
        "resources/read" => {
            let uri = message["params"]["uri"].as_str().unwrap_or_default().to_owned();
            note(&journal, uri.trim_start_matches("test://")).await;
            json!({ "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "contents": [{ "uri": uri, "mimeType": "text/plain", "text": "content" }] })
        }
        "tools/list" => json!({ "resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": [] }),
        _ => json!({ "resultType": "complete" }),
    };
    let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    if method == "initialize" {
        response.headers_mut().insert("mcp-session-id", http::HeaderValue::from_static("one-session"));
    }
    response
}

/// One line, on stable storage when this returns.
async fn note(journal: &Arc<Mutex<File>>, id: &str) {
    let (journal, line) = (journal.clone(), format!("{id}\n"));
    let noted = tokio::task::spawn_blocking(move || {
        let mut journal = journal.lock().expect("no holder panics");
        journal.write_all(line.as_bytes()).and_then(|()| journal.sync_data())
    });
    noted.await.expect("noting does not panic").expect("the journal takes a line");
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
