//! The policies in force, for others to ask: OpenID AuthZEN's Authorization API 1.0, with the names of its binding for MCP
//! (COAZ-MCP, draft 1).
//!
//! | AuthZEN | here |
//! | --- | --- |
//! | `subject` of type `identity`, `user`, `agent`, `workload` | the principal, of that kind |
//! | `action.name` | the MCP method |
//! | `resource` of type `tool`, `resource`, `prompt`, `mcp_server` | that of a server, which the path or `properties.server` names, or what stands before the first `/` of the id |
//! | `context` | what policies see as context; `agent` is the agent, `arguments` are the call's |
//! | `context.obligations`, `context.demands` of the answer | names of what is demanded besides, and the annotations that say it in full |
//!
//! Called by the operators' API. Answers about nothing that happens: no call, no permit, no event.

use cairn_policy::{Question, Verdict};
use serde_json::{Map, Value, json};

use crate::Gateway;

/// Evaluations in one request.
const EVALUATIONS_MAX: usize = 256;

impl Gateway {
    /// Answers an Access Evaluation request; `server` is the one that the path names.
    ///
    /// # Errors
    /// A request that cannot be understood, in words that say what to write.
    pub fn evaluate(&self, server: Option<&str>, request: &Value) -> Result<Value, String> {
        let verdict = self.policy().decide(&question(server, request)?);
        Ok(answer(&verdict))
    }

    /// Answers an Access Evaluations request: each entry takes from the whole what it does not say itself.
    ///
    /// # Errors
    /// A request that cannot be understood; an entry that cannot is denied and says why.
    pub fn evaluate_all(&self, server: Option<&str>, request: &Value) -> Result<Value, String> {
        let Some(entries) = request["evaluations"].as_array().filter(|entries| !entries.is_empty()) else {
            return self.evaluate(server, request);
        };
        if entries.len() > EVALUATIONS_MAX {
            return Err(format!("{} evaluations are too many: send at most {EVALUATIONS_MAX} at once", entries.len()));
        }
        let stops_at = match request["options"]["evaluations_semantic"].as_str() {
            None | Some("execute_all") => None,
            Some("deny_on_first_deny") => Some(false),
            Some("permit_on_first_permit") => Some(true),
            Some(other) => {
                return Err(format!(
                    "options.evaluations_semantic is {other:?}: write execute_all, deny_on_first_deny or permit_on_first_permit"
                ));
            }
        };
        let mut answers = Vec::with_capacity(entries.len());
        for entry in entries {
            let mut whole = json!({});
            for part in ["subject", "action", "resource", "context"] {
                let said = entry.get(part).or_else(|| request.get(part));
                if let Some(said) = said {
                    whole[part] = said.clone();
                }
            }
            let answer = self.evaluate(server, &whole).unwrap_or_else(
                |error| json!({ "decision": false, "context": { "error": { "status": 400, "message": error } } }),
            );
            let decision = answer["decision"] == true;
            answers.push(answer);
            if stops_at == Some(decision) {
                break;
            }
        }
        Ok(json!({ "evaluations": answers }))
    }
}

/// What an evaluation asks of policies.
fn question(server: Option<&str>, request: &Value) -> Result<Question, String> {
    let text = |part: &str, key: &str| {
        let found = request[part][key].as_str().filter(|text| !text.is_empty());
        found.ok_or_else(|| format!("{part}.{key} is no text: write one"))
    };
    let kind = match text("subject", "type")? {
        "identity" | "user" | "User" => "User",
        "agent" | "Agent" => "Agent",
        "workload" | "Workload" => "Workload",
        other => return Err(format!("subject.type is {other:?}: write identity, user, agent or workload")),
    };
    let subject = named(kind, text("subject", "id")?);
    let id = text("resource", "id")?;
    let server = server.or_else(|| request["resource"]["properties"]["server"].as_str());
    let within = |of: &str| match server {
        Some(server) => named(of, &format!("{server}/{id}")),
        None => named(of, id),
    };
    let resource = match text("resource", "type")? {
        "tool" | "Tool" => within("Tool"),
        "resource" | "Resource" => within("Resource"),
        "prompt" | "Prompt" => within("Prompt"),
        // Of a task, policies know only whose server it is.
        "task" | "mcp_server" | "server" | "Server" => named("Server", server.unwrap_or(id)),
        other => {
            return Err(format!("resource.type is {other:?}: write tool, resource, prompt, task or mcp_server"));
        }
    };
    let mut question = Question::named(&subject, &named("Action", text("action", "name")?), &resource)?;
    let mut context = match request.get("context") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(context)) => context.clone(),
        Some(_) => return Err("context is no object: write one, or leave it out".to_owned()),
    };
    question.arguments = context.remove("arguments").or(question.arguments);
    let mut identity = match context.remove("identity") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(identity)) => identity,
        Some(_) => return Err("context.identity is no object: write one, or leave it out".to_owned()),
    };
    let is_other = |kind: &Value| matches!(kind.as_str(), Some("agent" | "workload"));
    if kind == "User" && identity.get("kind").is_some_and(is_other) {
        return Err("context.identity.kind says otherwise than subject.type: leave it out".to_owned());
    }
    if kind != "User" {
        identity.insert("kind".to_owned(), kind.to_lowercase().into());
    }
    if let Some(agent) = context.remove("agent") {
        identity.insert("agent".to_owned(), agent);
    }
    for (name, value) in request["subject"]["properties"].as_object().into_iter().flatten() {
        if matches!(name.as_str(), "tenant" | "scopes") {
            identity.insert(name.clone(), value.clone());
        }
    }
    if !identity.is_empty() {
        identity.entry("kind").or_insert_with(|| kind.to_lowercase().into());
        context.insert("identity".to_owned(), Value::Object(identity));
    }
    question.with_context(context)
}

/// A name as policies write it, whatever is in it.
fn named(kind: &str, id: &str) -> String {
    let mut quoted = String::with_capacity(id.len() + 2);
    for c in id.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => quoted.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    format!("{kind}::\"{quoted}\"")
}

fn answer(verdict: &Verdict) -> Value {
    let mut context = json!({
        "policy_version": verdict.policy_version,
        "determining_policies": verdict.determining,
    });
    if !verdict.obligations.is_empty() {
        context["obligations"] = verdict.obligations.iter().map(ToString::to_string).collect::<Vec<_>>().into();
    }
    if !verdict.demands.is_empty() {
        let demand = |demand: &cairn_policy::PolicyDemand| {
            let annotations: Map<String, Value> =
                demand.annotations.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
            json!({ "policy": demand.policy, "annotations": annotations })
        };
        context["demands"] = verdict.demands.iter().map(demand).collect();
    }
    if !verdict.errors.is_empty() {
        context["errors"] = json!(verdict.errors);
    }
    if let Some(near) = &verdict.nearest {
        context["nearest"] = json!({ "policy": near.policy, "failed": near.failed });
    }
    json!({ "decision": verdict.is_permit(), "context": context })
}
