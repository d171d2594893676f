//! Talking to the admin address of a running `up`: `cairn approve`, `cairn deny`, `cairn policy promote`, `cairn login`, and
//! what `custody` asks.

use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use http::Response;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};

use crate::{ending::Ending, folder, read, say, token, trust::TrustArguments};

/// Largest answer of the admin address that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// Where an `up` listens that was told nothing.
const DEFAULT_URL: &str = "http://127.0.0.1:7071";

/// Whom an operator's command asks.
#[derive(Args, Clone, Debug)]
pub(crate) struct AdminArguments {
    /// The admin address: HOST:PORT, or https://HOST:PORT; that of the running `up` where absent.
    #[arg(long, global = true)]
    admin: Option<String>,
    /// The data folder of the running `up`.
    #[arg(long, env = "CAIRN_DATA", global = true)]
    data: Option<PathBuf>,
    #[command(flatten)]
    tls: TrustArguments,
}

impl AdminArguments {
    /// Those of a command that has them beside others.
    pub(crate) const fn of(admin: Option<String>, data: Option<PathBuf>, tls: TrustArguments) -> Self {
        Self { admin, data, tls }
    }

    /// The trail of the running `up`.
    pub(crate) fn trail(&self) -> anyhow::Result<read::Source> {
        read::Source::find(None, None, self.data.clone(), &self.tls)
    }

    /// Whether an address is named.
    pub(crate) const fn is_named(&self) -> bool {
        self.admin.is_some()
    }

    /// Whose certificates are believed.
    #[cfg(feature = "audit")]
    pub(crate) const fn trust(&self) -> &TrustArguments {
        &self.tls
    }

    /// The data folder.
    pub(crate) fn data(&self) -> anyhow::Result<PathBuf> {
        self.data.clone().map_or_else(folder::default_path, Ok)
    }

    /// The admin address: given, else that of the running `up`, else the default.
    pub(crate) fn find(&self) -> anyhow::Result<Admin> {
        let data = self.data.clone().map_or_else(folder::default_path, Ok);
        let running = match data {
            Ok(data) => folder::endpoints(&data),
            // Whoever names an address needs no folder.
            Err(_) if self.admin.is_some() => None,
            Err(error) => return Err(error),
        };
        let tls = self.tls.with(running.as_ref().map(|running| &running.commands));
        let base = match (&self.admin, running) {
            (Some(given), _) if given.starts_with("http://") || given.starts_with("https://") => given.clone(),
            (Some(given), _) if given.contains("://") => {
                bail!("--admin {given}: write HOST:PORT, http://HOST:PORT or https://HOST:PORT")
            }
            // The same address as it announces it, so that its scheme need not be typed.
            (Some(given), Some(running)) if *given == running.admin && !running.admin_url.is_empty() => {
                running.admin_url
            }
            (Some(given), _) => format!("http://{given}"),
            (None, Some(running)) if !running.admin_url.is_empty() => running.admin_url,
            (None, Some(running)) => format!("http://{}", running.admin),
            (None, None) => DEFAULT_URL.to_owned(),
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls.config().context("--ca, --cert or --cert-key")?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Admin { base: base.trim_end_matches('/').to_owned(), client })
    }
}

/// Whom an operator's command asks, and how it shows the answer.
#[derive(Args, Clone, Debug)]
pub(crate) struct Asking {
    #[command(flatten)]
    pub(crate) admin: AdminArguments,
    /// JSON for machines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The admin address of a running `up`.
pub(crate) struct Admin {
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Admin {
    pub(crate) async fn send(&self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let answer = self.send_bytes(method, path, body).await?;
        Ok(serde_json::from_slice(&answer).unwrap_or_default())
    }

    /// One request with the operator's token; the answer's body as it is.
    pub(crate) async fn send_bytes(&self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Vec<u8>> {
        let response = self.request(method, path, body).await?;
        whole(response, &self.base).await
    }

    /// One request whose answer is lines, each handed over as it comes.
    pub(crate) async fn lines(&self, path: &str, body: Value, mut heard: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let response = self.request("POST", path, Some(body)).await?;
        if !response.status().is_success() {
            return whole(response, &self.base).await.map(drop);
        }
        let (mut body, mut left) = (response.into_body(), Vec::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.with_context(|| format!("the answer of {} could not be read", self.base))?;
            left.extend_from_slice(frame.data_ref().map(|data| &data[..]).unwrap_or_default());
            while let Some(end) = left.iter().position(|byte| *byte == b'\n') {
                heard(&left[..end]);
                left.drain(..=end);
            }
            if left.len() > ANSWER_BYTES_MAX {
                bail!("{} answers with a line that is longer than {ANSWER_BYTES_MAX} bytes", self.base);
            }
        }
        Ok(())
    }

    async fn request(&self, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Response<Incoming>> {
        let base = &self.base;
        let token = std::env::var(token::VARIABLE).map_err(|_| {
            anyhow::anyhow!(
                "set {} to the token that `cairn up` printed once, or make a new one with `cairn operator new`",
                token::VARIABLE
            )
        })?;
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{base}{path}"))
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.map(|body| body.to_string()).unwrap_or_default())))
            .context("the operator token or the address cannot stand in a request")?;
        self.exchange(request).await
    }

    /// The metrics, which need no token.
    pub(crate) async fn metrics(&self) -> anyhow::Result<String> {
        let request = http::Request::get(format!("{}/metrics", self.base)).body(Full::default())?;
        let answer = whole(self.exchange(request).await?, &self.base).await?;
        String::from_utf8(answer).context("metrics are text")
    }

    async fn exchange(&self, request: http::Request<Full<Bytes>>) -> anyhow::Result<Response<Incoming>> {
        let base = &self.base;
        self.client.request(request).await.map_err(|error| match tls_fault(&error) {
            Some(why) => anyhow::anyhow!(
                "no TLS with {base}: {why}; --ca names whose certificates are good, --cert and --cert-key show one's own"
            ),
            None => {
                let words = format!("nobody answers at {base}: start `cairn up`, or name another with --admin");
                Ending::NobodyThere(words).into()
            }
        })
    }
}

/// The body of an answer, or what it says went wrong.
async fn whole(response: Response<Incoming>, base: &str) -> anyhow::Result<Vec<u8>> {
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the answer of {base} could not be read: {error}"))?
        .to_bytes();
    if !status.is_success() {
        let value: Value = serde_json::from_slice(&body).unwrap_or_default();
        let words = value.get("error").and_then(Value::as_str).unwrap_or("the admin address refused");
        if status == http::StatusCode::NOT_FOUND {
            return Err(Ending::NoSuch(words.to_owned()).into());
        }
        bail!("{words}");
    }
    Ok(body.to_vec())
}

/// What TLS said, where it is why a request failed.
fn tls_fault(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
    if let Some(inner) = inner {
        return tls_fault(inner);
    }
    match error.downcast_ref::<rustls::Error>() {
        Some(fault) => Some(fault.to_string()),
        None => tls_fault(error.source()?),
    }
}

/// Tells that a resource changed past Cairn.
pub(crate) async fn changed(
    admin: &Admin,
    server: &str,
    uri: &str,
    version: Option<&str>,
    tenant: Option<&str>,
) -> anyhow::Result<()> {
    let body = json!({ "server": server, "uri": uri, "version": version, "tenant": tenant });
    admin.send("POST", "/changes", Some(body)).await?;
    say::line(format_args!("{uri} of {server} counts as changed"));
    Ok(())
}

/// What servers have listed, as text or JSON.
pub(crate) async fn catalogue(admin: &Admin, as_json: bool) -> anyhow::Result<String> {
    let value = admin.send("GET", "/catalogue", None).await?;
    if as_json {
        return Ok(value.to_string());
    }
    let all = value.get("definitions").and_then(Value::as_array).cloned().unwrap_or_default();
    if all.is_empty() {
        return Ok("no server has listed anything since the start".to_owned());
    }
    let lines = all.iter().map(|one| {
        let of = |key: &str| say::plain(one.get(key).and_then(Value::as_str).unwrap_or_default());
        let alerts = one.get("alerts").and_then(Value::as_array).cloned().unwrap_or_default();
        let alerts: String =
            alerts.iter().filter_map(Value::as_str).map(|alert| format!("\n  {}", say::plain(alert))).collect();
        format!("{} {} {}/{}\n  {}{alerts}", of("standing"), of("kind"), of("server"), of("name"), of("digest"))
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Approves a definition.
pub(crate) async fn approve_definition(admin: &Admin, body: Value) -> anyhow::Result<()> {
    let value = admin.send("POST", "/catalogue/approve", Some(body)).await?;
    let digest = value.get("digest").and_then(Value::as_str).unwrap_or_default();
    say::line(format_args!("approved {digest}"));
    Ok(())
}

/// What waits, as text or JSON.
pub(crate) async fn list(admin: &Admin, as_json: bool) -> anyhow::Result<String> {
    let value = admin.send("GET", "/approvals", None).await?;
    if as_json {
        return Ok(value.to_string());
    }
    let waiting = value.get("waiting").and_then(Value::as_array).cloned().unwrap_or_default();
    if waiting.is_empty() {
        return Ok("nothing waits for approval".to_owned());
    }
    let lines = waiting.iter().map(|hold| {
        let of = |key: &str| say::plain(hold.get(key).and_then(Value::as_str).unwrap_or_default());
        let count = |key: &str| hold.get(key).and_then(Value::as_u64).unwrap_or(1);
        let quorum = match count("quorum") {
            0 | 1 => String::new(),
            quorum => format!("\n  {} of {quorum} have approved", count("given")),
        };
        format!(
            "{}\n  {} asks for {} {}/{}\n  arguments {}\n  workflow {}, policy {}\n  expires {}{quorum}",
            of("id"),
            of("principal"),
            of("method"),
            of("server"),
            of("target"),
            of("arguments"),
            of("workflow_id"),
            of("policy_version"),
            of("expires_at")
        )
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Settles one hold.
pub(crate) async fn settle(
    admin: &Admin,
    id: &str,
    approve: bool,
    reason: Option<String>,
    as_json: bool,
) -> anyhow::Result<String> {
    if !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        bail!("{id:?} is no approval id: `cairn approve` lists what waits");
    }
    let verb = if approve { "approve" } else { "deny" };
    let approver = std::env::var("USER").unwrap_or_else(|_| "operator".to_owned());
    let body = json!({ "approver": approver, "reason": reason });
    let settled = admin.send("POST", &format!("/approvals/{id}/{verb}"), Some(body)).await?;
    if as_json {
        return Ok(settled.to_string());
    }
    let count = |key: &str| settled.get(key).and_then(Value::as_u64).unwrap_or_default();
    Ok(match settled.get("state").and_then(Value::as_str) {
        Some("requested") => {
            format!("{id} approved by {} of {}: more must look at it", count("given"), count("quorum"))
        }
        _ => format!("{id} {}", if approve { "approved" } else { "denied" }),
    })
}

/// Puts another set of policies in force.
pub(crate) async fn replace_policies(admin: &Admin, verb: &str) -> anyhow::Result<Value> {
    let who = std::env::var("USER").unwrap_or_else(|_| "operator".to_owned());
    admin.send("POST", &format!("/policy/{verb}"), Some(json!({ "who": who }))).await
}
