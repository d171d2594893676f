//! What operators do at the admin address, on `mcp.operators`: recorded before it takes effect, and not done where it cannot
//! be recorded. Called by the router for every request that a token let in.
//!
//! An act whose own event says who did it, and is durable before the act, is not told twice: `call.approval`, `vault.read`,
//! `subject.held`, `subject.released`, `consumer.moved` and `replay.started`. Of those only a failure is told here. Who is not let in leaves `access.refused`.

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::{Method, StatusCode},
    middleware::Next,
    response::{IntoResponse, Response},
};
use cairn_contract::{ActOutcome, ActVia, OperatorActed};
use cairn_gateway::Gateway;
use serde_json::Value;

use crate::{
    Operator, Role,
    api::{body_bytes_max, problem},
};

/// The longest answer whose error is read.
const ERROR_BYTES_MAX: usize = 64 << 10;
/// The longest text of an act, in characters.
const WORDS_MAX: usize = 512;

/// Something that an operator may do.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Act {
    name: String,
    about: Option<String>,
    /// Whether another event says all of it, and is durable before it is done.
    is_told: bool,
}

/// What a request does; nothing where it only asks.
fn act(method: &Method, path: &str, body: &Value) -> Option<Act> {
    if method == Method::GET || method == Method::HEAD {
        return None;
    }
    let word = |key: &str| body.get(key).and_then(Value::as_str);
    let joined = |keys: &[&str]| {
        let words: Vec<&str> = keys.iter().filter_map(|key| word(key)).collect();
        (!words.is_empty()).then(|| words.join(" "))
    };
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let (name, about, is_told) = match parts.as_slice() {
        // They ask what would be decided, and change nothing.
        ["access" | "authzen", ..] => return None,
        ["approvals", id, verb] => (format!("approval.{verb}"), Some((*id).to_owned()), true),
        ["catalogue", verb] => (format!("catalogue.{verb}"), joined(&["server", "kind", "name", "digest"]), false),
        ["rejected", verb] => (format!("rejected.{verb}"), joined(&["id"]), false),
        ["whatif"] => ("policy.whatif".to_owned(), Some(span(body)), false),
        // Its payloads leave an event each besides.
        ["recording"] => ("recording.open".to_owned(), joined(&["tenant", "workflow_id"]), false),
        ["policy", verb] => (format!("policy.{verb}"), None, false),
        ["changes"] => ("resource.changed".to_owned(), joined(&["tenant", "server", "uri"]), false),
        ["credentials", server, "login"] => ("credential.login".to_owned(), Some((*server).to_owned()), false),
        ["consumers", name, verb] => (format!("consumer.{verb}"), Some((*name).to_owned()), true),
        ["replays", name, verb] => (format!("replay.{verb}"), Some((*name).to_owned()), true),
        ["query"] => ("query".to_owned(), joined(&["sql"]), false),
        ["vault", "read"] => ("vault.read".to_owned(), joined(&["digest"]), true),
        ["vault", verb] => {
            (format!("vault.{verb}"), joined(&["tenant", "subject"]), matches!(*verb, "hold" | "release"))
        }
        // Whatever comes to be: told whole, and never passed over.
        _ => (format!("{method} {path}"), None, false),
    };
    Some(Act { name: short(&name), about: about.as_deref().map(short), is_told })
}

/// The time that is asked about, as milliseconds since 1970.
fn span(body: &Value) -> String {
    let of = |key: &str| body.get(key).and_then(Value::as_i64).map_or_else(String::new, |at| at.to_string());
    format!("{}..{}", of("since_ms"), of("until_ms"))
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(WORDS_MAX).collect()
}

/// Who it is: the name that the token stands for; where it stands for nobody, the one that the body gives.
fn who(operator: &Operator, body: &Value) -> String {
    let said = ["operator", "approver", "who"].into_iter().find_map(|key| body.get(key)?.as_str());
    said.filter(|_| !operator.named).map_or_else(|| operator.name.clone(), short)
}

/// Records the act, has it done, and records where it failed.
pub(crate) async fn recorded(
    gateway: Option<&Gateway>,
    operator: &Operator,
    role: Role,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let bytes_max = body_bytes_max(parts.uri.path());
    let Ok(bytes) = to_bytes(body, bytes_max).await else {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {bytes_max} bytes"));
    };
    let said: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let act = act(&parts.method, parts.uri.path(), &said);
    let request = Request::from_parts(parts, Body::from(bytes));
    // Where no gateway runs there is nothing that could be done.
    let (Some(act), Some(gateway)) = (act, gateway) else { return next.run(request).await };
    let event = OperatorActed {
        act_id: gateway.new_id(),
        operator: who(operator, &said),
        role: Some(role.word().to_owned()),
        act: act.name,
        about: act.about,
        via: ActVia::AdminApi,
        outcome: ActOutcome::Allowed,
        reason: said.get("reason").and_then(Value::as_str).map(short),
        error: None,
        acted_at: None,
    };
    if !act.is_told
        && let Err(error) = gateway.record_act(event.clone()).await
    {
        let words = format!("it is not done, because it cannot be recorded: {error}");
        return problem(StatusCode::SERVICE_UNAVAILABLE, words);
    }
    let response = next.run(request).await;
    let status = response.status();
    // Whose vote is not wanted leaves `access.refused`.
    if status.is_success() || act.is_told && status == StatusCode::FORBIDDEN {
        return response;
    }
    let (head, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, ERROR_BYTES_MAX).await else {
        return problem(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made");
    };
    let failed = OperatorActed { outcome: ActOutcome::Failed, error: Some(fault(status, &bytes)), ..event };
    if let Err(error) = gateway.record_act(failed).await {
        tracing::warn!(%error, "that an operator's act failed could not be recorded");
    }
    (head, Body::from(bytes)).into_response()
}

fn fault(status: StatusCode, body: &Bytes) -> String {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    let words = said.get("error").and_then(Value::as_str).unwrap_or_default();
    short(format!("{} {words}", status.as_u16()).trim_end())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_request_that_changes_something_is_an_act() {
        let of = |path: &str, body: Value| act(&Method::POST, path, &body);
        let told = |path: &str| of(path, json!({})).expect("an act").is_told;
        assert!(told("/approvals/ap-1/approve") && told("/vault/read"));
        assert!(told("/vault/hold") && told("/vault/release"));
        assert!(told("/consumers/audit/pause") && told("/replays/audit/start"));
        let asked = of("/query", json!({ "sql": "SELECT 1" })).expect("an act");
        assert_eq!((asked.name.as_str(), asked.about.as_deref(), asked.is_told), ("query", Some("SELECT 1"), false));
        for path in ["/vault/erase", "/vault/rotate", "/policy/promote", "/catalogue/approve", "/changes"] {
            assert!(!told(path), "{path}");
        }
        let erase = of("/vault/erase/", json!({ "subject": "ann\n", "tenant": "acme" })).expect("an act");
        assert_eq!((erase.name.as_str(), erase.about.as_deref()), ("vault.erase", Some("acme ann")));
        let login = of("/credentials/web/login", Value::Null).expect("an act");
        assert_eq!((login.name.as_str(), login.about.as_deref()), ("credential.login", Some("web")));
        let recording = of("/recording", json!({ "workflow_id": "w-1" })).expect("an act");
        assert_eq!((recording.name.as_str(), recording.about.as_deref()), ("recording.open", Some("w-1")));
        assert!(!recording.is_told, "that the whole of it was opened is told by nothing else");
        assert_eq!(of("/something/new", Value::Null).expect("an act").name, "POST /something/new");
        for path in ["/access/v1/evaluation", "/access/v1/evaluations", "/authzen/orders/access/v1/evaluation"] {
            assert_eq!(of(path, Value::Null), None, "{path}");
        }
        assert_eq!(act(&Method::GET, "/vault/holds", &Value::Null), None);
    }

    #[test]
    fn whoever_has_a_name_is_called_by_it() {
        let ann = Operator { name: "ann".to_owned(), named: true, roles: vec![Role::Erase] };
        let said = json!({ "operator": "somebody else" });
        assert_eq!(who(&ann, &said), "ann");
        assert_eq!(who(&Operator::owner(), &said), "somebody else");
        assert_eq!(who(&Operator::owner(), &Value::Null), crate::OWNER);
    }
}
