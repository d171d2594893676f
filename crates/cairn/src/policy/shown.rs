//! Decisions as a person reads them, and as JSON.

use cairn_policy::{Ruling, Verdict};
use serde_json::{Value, json};

use crate::say;

/// A verdict on a question of the command line.
pub(crate) fn verdict(verdict: &Verdict, as_json: bool) -> String {
    let near = verdict.nearest.as_ref();
    let value = json!({
        "decision": if matches!(verdict.outcome, Ruling::Permit(_)) { "permit" } else { "deny" },
        "policy_version": verdict.policy_version,
        "determining_policies": verdict.determining,
        "obligations": verdict.obligations.iter().map(|obligation| obligation.name()).collect::<Vec<_>>(),
        "errors": verdict.errors,
        "nearest": near.map(|near| json!({ "policy": near.policy, "failed": near.failed, "failing": near.failing })),
        "inputs": serde_json::from_slice::<Value>(&verdict.inputs).unwrap_or_default(),
    });
    if as_json { value.to_string() } else { words(&value) }
}

/// The decisions about one call, as the trail holds them.
pub(crate) fn decisions(events: &[Value], as_json: bool) -> String {
    if as_json {
        return Value::from(events.to_vec()).to_string();
    }
    let told = events.iter().map(|event| {
        let text = |key: &str| say::plain(event[key].as_str().unwrap_or_default());
        let target = ["gen_ai_tool_name", "mcp_resource_uri", "prompt_name"].map(text).concat();
        let of = if target.is_empty() { text("server") } else { format!("{}/{target}", text("server")) };
        format!("{} asked for {} {of}\n{}", text("principal"), text("mcp_method_name"), words(event))
    });
    told.collect::<Vec<_>>().join("\n\n")
}

fn words(decision: &Value) -> String {
    let list = |key: &str| {
        let items = decision[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(say::plain);
        items.collect::<Vec<_>>()
    };
    let decided = decision["decision"].as_str().unwrap_or_default();
    let by = list("determining_policies");
    let by = match (by.is_empty(), decided) {
        (false, _) => format!(" by {}", by.join(", ")),
        (true, "deny") => ": no policy permits it".to_owned(),
        (true, _) => String::new(),
    };
    let mut lines = vec![format!("{decided}{by}")];
    let outside = &decision["outside"];
    if let Some(id) = outside["id"].as_str() {
        let id = say::plain(id);
        let said = match (outside["decision"].as_str(), outside["error_type"].as_str()) {
            (_, Some(error)) => format!("gave no decision that counts ({})", say::plain(error)),
            (said, None) => format!("said {}", said.unwrap_or_default()),
        };
        let reason = outside["reason"].as_str().map(|reason| format!(": {}", say::plain(reason)));
        lines.push(format!("the decision point {id} {said}{}", reason.unwrap_or_default()));
    }
    let near = &decision["nearest"];
    if let (Some(policy), Some(failed)) = (near["policy"].as_str(), near["failed"].as_str()) {
        lines.push(format!("nearest permit: {}; it wants {}", say::plain(policy), say::plain(failed)));
    }
    let obligations = list("obligations");
    if !obligations.is_empty() {
        lines.push(format!("demands {}", obligations.join(", ")));
    }
    lines.extend(list("errors").into_iter().map(|error| format!("error in {error}")));
    lines.push(format!("policy version {}", say::plain(decision["policy_version"].as_str().unwrap_or_default())));
    lines.join("\n")
}
