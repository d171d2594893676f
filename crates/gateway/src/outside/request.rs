//! A question to policy as an Access Evaluation request: the other way round than `authzen.rs`, name for name.

use cairn_contract::Target;
use cairn_policy::Question;
use serde_json::{Map, Value, json};

/// The request.
pub(super) fn of(question: &Question) -> Value {
    let identity = question.context.get("identity").cloned().unwrap_or_default();
    let other = identity["kind"].as_str().filter(|kind| matches!(*kind, "agent" | "workload"));
    let kind = other.unwrap_or("identity");
    let mut subject = json!({ "type": kind, "id": question.principal });
    for name in ["tenant", "scopes"] {
        if let Some(value) = identity.get(name) {
            subject["properties"][name] = value.clone();
        }
    }
    let (kind, id) = match &question.target {
        Target::Tool { gen_ai_tool_name: name } => ("tool", name),
        Target::Resource { mcp_resource_uri: uri } => ("resource", uri),
        Target::Prompt { prompt_name: name } => ("prompt", name),
        Target::None => ("mcp_server", &question.server),
    };
    let mut context: Map<String, Value> = question.context.clone();
    context.insert("direction".to_owned(), question.direction.name().into());
    context.extend(identity.get("agent").map(|agent| ("agent".to_owned(), agent.clone())));
    context.extend(question.arguments.as_ref().map(|arguments| ("arguments".to_owned(), arguments.clone())));
    json!({
        "subject": subject,
        "action": { "name": question.action },
        "resource": { "type": kind, "id": id, "properties": { "server": question.server } },
        "context": context,
    })
}
