//! An MCP server over HTTP that lives in the test's process, so that it outlives every Cairn that is killed.
//!
//! Speaks both eras. Each call of a tool, and each read, that reaches it becomes one line in its own journal, synced
//! before the answer: the id that the client chose. The tests compare the trail with that file. What a tool does says the argument
//! `how`: it fails, answers with an error, wants input for some rounds, or becomes a task. Must never repeat a line,
//! and never look at anything but the request and the tasks that it made.

use std::{
    collections::HashMap,
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
        let kept = Kept { journal: Arc::new(Mutex::new(file)), tasks: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let kept = kept.clone();
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request| {
                        let kept = kept.clone();
                        async move { Ok::<_, Infallible>(answer(request, kept).await) }
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

/// What the server keeps: its journal, and how often each task was looked at.
#[derive(Clone)]
struct Kept {
    journal: Arc<Mutex<File>>,
    tasks: Arc<Mutex<HashMap<String, u32>>>,
}

/// The error of a tool that answers with one.
pub(crate) const ERROR_CODE: i64 = 4_077;

async fn answer(request: Request<Incoming>, kept: Kept) -> Response<Full<Bytes>> {
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
            "capabilities": { "tools": {}, "resources": {},
                "tasks": { "requests": { "tools": { "call": {} } } } },
            "serverInfo": { "name": "outliving", "version": "1" },
        }),
        "server/discover" => json!({
            "resultType": "complete",
            "supportedVersions": ["2026-07-28", "2025-11-25"],
            "capabilities": { "tools": {}, "resources": {} },
            "serverInfo": { "name": "outliving", "version": "1" },
        }),
        "tools/call" => {
            let id = id_of(&message);
            note(&kept.journal, &id).await;
            let ms = message["params"]["arguments"]["ms"].as_u64().unwrap_or(0);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            match called(&message["params"], &id, &kept) {
                Some(result) => result,
                None => return said(&message, &json!({ "error": { "code": ERROR_CODE, "message": "as asked" } })),
            }
        }
        "tasks/get" | "tasks/result" => {
            note(&kept.journal, &id_of(&message)).await;
            looked_at(method, &message["params"], &kept)
        }
        "resources/read" => {
            let uri = message["params"]["uri"].as_str().unwrap_or_default().to_owned();
            note(&kept.journal, uri.trim_start_matches("test://")).await;
            json!({ "resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                "contents": [{ "uri": uri, "mimeType": "text/plain", "text": "content" }] })
        }
        "tools/list" => json!({ "resultType": "complete", "ttlMs": 0, "cacheScope": "private", "tools": [] }),
        _ => json!({ "resultType": "complete" }),
    };
    let mut response = said(&message, &json!({ "result": result }));
    if method == "initialize" {
        response.headers_mut().insert("mcp-session-id", http::HeaderValue::from_static("one-session"));
    }
    response
}

/// A result or an error as the answer.
fn said(message: &Value, what: &Value) -> Response<Full<Bytes>> {
    let mut answer = json!({ "jsonrpc": "2.0", "id": message["id"] });
    answer.as_object_mut().expect("an object").extend(what.as_object().expect("an object").clone());
    let mut response = Response::new(Full::new(Bytes::from(answer.to_string())));
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

/// What the client calls the request: in the arguments, or where the arguments of several are the same in `_meta`.
fn id_of(message: &Value) -> String {
    let params = &message["params"];
    params["_meta"]["test/request"].as_str().or(params["arguments"]["id"].as_str()).unwrap_or("?").to_owned()
}

/// What a tool answers; nothing where that is an error.
fn called(params: &Value, id: &str, kept: &Kept) -> Option<Value> {
    let plain = || json!({ "resultType": "complete", "content": [{ "type": "text", "text": id }] });
    match params["arguments"]["how"].as_str() {
        Some("errs") => None,
        Some("fails") => Some(json!({ "resultType": "complete", "isError": true, "content": [] })),
        Some("rounds") => {
            let done = params["requestState"].as_str().and_then(|state| state.rsplit('/').next()?.parse().ok());
            let done: u64 = done.unwrap_or(0);
            if done + 1 >= params["arguments"]["rounds"].as_u64().unwrap_or(1) {
                return Some(plain());
            }
            let ask = json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "go on?",
                "requestedSchema": { "type": "object", "properties": {} } } });
            let state = format!("{}/{}", params["arguments"]["id"].as_str().unwrap_or_default(), done + 1);
            Some(json!({ "resultType": "input_required", "requestState": state, "inputRequests": { "more": ask } }))
        }
        Some("task") => {
            kept.tasks.lock().expect("no holder panics").insert(format!("task-{id}"), 0);
            Some(json!({ "task": task(&format!("task-{id}"), "working") }))
        }
        _ => Some(plain()),
    }
}

/// A task is done when it is looked at for the second time.
fn looked_at(method: &str, params: &Value, kept: &Kept) -> Value {
    let id = params["taskId"].as_str().unwrap_or_default();
    if method == "tasks/result" {
        return json!({ "content": [{ "type": "text", "text": id }],
            "_meta": { "io.modelcontextprotocol/related-task": { "taskId": id } } });
    }
    let mut tasks = kept.tasks.lock().expect("no holder panics");
    let looks = tasks.entry(id.to_owned()).or_default();
    *looks += 1;
    task(id, if *looks > 1 { "completed" } else { "working" })
}

fn task(id: &str, status: &str) -> Value {
    json!({ "taskId": id, "status": status, "ttl": 600_000, "pollInterval": 10,
        "createdAt": "2026-11-24T09:00:00Z", "lastUpdatedAt": "2026-11-24T09:00:00Z" })
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
