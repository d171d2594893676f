//! Talking to the admin address of a running `up`: `cairn approve`, `cairn deny`, `cairn policy promote`, `cairn login`, and
//! what `custody` asks.

use std::path::PathBuf;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};

use crate::{ending::Ending, folder, say, token};

/// Largest answer of the admin address that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The admin address: given, else that of the running `up`, else the default.
pub(crate) fn admin(given: Option<String>, data: Option<PathBuf>) -> anyhow::Result<String> {
    if let Some(given) = given {
        return Ok(given);
    }
    let data = data.map_or_else(folder::default_path, Ok)?;
    Ok(folder::endpoints(&data).map_or_else(|| "127.0.0.1:7071".to_owned(), |endpoints| endpoints.admin))
}

pub(crate) async fn send(admin: &str, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
    let answer = send_bytes(admin, method, path, body).await?;
    Ok(serde_json::from_slice(&answer).unwrap_or_default())
}

/// One request with the operator's token; the answer's body as it is.
pub(crate) async fn send_bytes(admin: &str, method: &str, path: &str, body: Option<Value>) -> anyhow::Result<Vec<u8>> {
    let token = std::env::var(token::VARIABLE).map_err(|_| {
        anyhow::anyhow!(
            "set {} to the token that `cairn up` printed once, or make a new one with `cairn operator new`",
            token::VARIABLE
        )
    })?;
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://{admin}{path}"))
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.map(|body| body.to_string()).unwrap_or_default())))
        .context("the operator token or the address cannot stand in a request")?;
    let nobody =
        |_| Ending::NobodyThere(format!("nobody answers at {admin}: start `cairn up`, or name another with --admin"));
    let response = client.request(request).await.map_err(nobody)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the answer of {admin} could not be read: {error}"))?
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

/// Tells that a resource changed past Cairn.
pub(crate) async fn changed(
    admin: &str,
    server: &str,
    uri: &str,
    version: Option<&str>,
    tenant: Option<&str>,
) -> anyhow::Result<()> {
    let body = json!({ "server": server, "uri": uri, "version": version, "tenant": tenant });
    send(admin, "POST", "/changes", Some(body)).await?;
    say::line(format_args!("{uri} of {server} counts as changed"));
    Ok(())
}

/// What servers have listed, as text or JSON.
pub(crate) async fn catalogue(admin: &str, as_json: bool) -> anyhow::Result<String> {
    let value = send(admin, "GET", "/catalogue", None).await?;
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
pub(crate) async fn approve_definition(admin: &str, body: Value) -> anyhow::Result<()> {
    let value = send(admin, "POST", "/catalogue/approve", Some(body)).await?;
    let digest = value.get("digest").and_then(Value::as_str).unwrap_or_default();
    say::line(format_args!("approved {digest}"));
    Ok(())
}

/// What waits, as text or JSON.
pub(crate) async fn list(admin: &str, as_json: bool) -> anyhow::Result<String> {
    let value = send(admin, "GET", "/approvals", None).await?;
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
    admin: &str,
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
    let settled = send(admin, "POST", &format!("/approvals/{id}/{verb}"), Some(body)).await?;
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
pub(crate) async fn replace_policies(admin: &str, verb: &str) -> anyhow::Result<Value> {
    let who = std::env::var("USER").unwrap_or_else(|_| "operator".to_owned());
    send(admin, "POST", &format!("/policy/{verb}"), Some(json!({ "who": who }))).await
}
