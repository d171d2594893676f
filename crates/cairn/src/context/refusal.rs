//! Why a call was refused, from its events: what was decided, by which policies, and what whoever asked may do about it.
//!
//! The words say what the events say and no more; what made the decision stands in the policies.

use cairn_consumers::context::Kept;
use indexmap::IndexMap;
use serde_json::{Map, Value, json};

/// A call's events: the last decision, the last approval, the first outcome.
#[derive(Default)]
struct Ended {
    decision: Option<(Value, Value)>,
    approval: Option<Value>,
    outcome: Option<Value>,
    about: Option<String>,
    workflow_id: Option<String>,
    at: Option<String>,
}

/// How each call among those events ended, in their order.
pub(super) fn all(events: &[Kept]) -> Vec<Value> {
    let mut calls: IndexMap<&str, Ended> = IndexMap::new();
    for event in events {
        let Some(id) = &event.call_id else { continue };
        let call = calls.entry(id).or_default();
        let value: Value = serde_json::from_str(&event.value).unwrap_or_default();
        match event.type_name.as_str() {
            "call.decision" => {
                let place = json!({ "topic": event.topic, "partition": event.partition, "offset": event.offset, "id": event.id });
                (call.about, call.workflow_id) = (event.about.clone(), event.workflow_id.clone());
                call.at = Some(event.time.clone());
                call.decision = Some((value, place));
            }
            "call.approval" => call.approval = Some(value),
            "call.outcome" if call.outcome.is_none() => call.outcome = Some(value),
            _ => {}
        }
    }
    let decided = calls.into_iter().filter(|(_, call)| call.decision.is_some() || call.outcome.is_some());
    decided.map(|(id, call)| call.told(id)).collect()
}

impl Ended {
    fn told(&self, id: &str) -> Value {
        let none = (Value::Null, Value::Null);
        let (decision, place) = self.decision.as_ref().unwrap_or(&none);
        let outcome = self.outcome.as_ref().unwrap_or(&Value::Null);
        let mut out = Map::new();
        let mut put = |key: &str, value: &Value| {
            if !value.is_null() {
                out.insert(key.to_owned(), value.clone());
            }
        };
        put("call_id", &json!(id));
        put("workflow_id", &json!(self.workflow_id));
        put("about", &json!(self.about));
        put("at", &json!(self.at));
        for key in [
            "mcp_method_name",
            "decision",
            "policy_version",
            "determining_policies",
            "obligations",
            "errors",
            "nearest",
            "outside",
        ] {
            put(key, &decision[key]);
        }
        put("freshness", &not_fresh(decision));
        for key in ["outcome", "effect", "error_type"] {
            put(key, &outcome[key]);
        }
        if let Some(approval) = &self.approval {
            let keys = ["approval_id", "state", "approver", "reason", "expires_at"];
            let told: Map<String, Value> = keys
                .into_iter()
                .filter(|key| !approval[*key].is_null())
                .map(|key| (key.to_owned(), approval[key].clone()))
                .collect();
            put("approval", &told.into());
        }
        put("event", place);
        let (is_refused, why, what_to_do) = self.words();
        put("is_refused", &json!(is_refused));
        put("why", &json!(why));
        put("what_to_do", &json!(what_to_do));
        Value::Object(out)
    }

    /// Whether it was refused, why, and what to do about it.
    fn words(&self) -> (bool, String, String) {
        let (decision, outcome) = (self.decision.as_ref().map(|(decision, _)| decision), self.outcome.as_ref());
        let text = |value: Option<&Value>, key: &str| {
            value.and_then(|value| value[key].as_str()).unwrap_or_default().to_owned()
        };
        let (effect, ended) = (text(outcome, "effect"), text(outcome, "outcome"));
        let word = text(outcome, "error_type");
        let is_denied = text(decision, "decision") == "deny";
        let Some(_) = outcome else {
            return match (is_denied, self.approval.as_ref()) {
                (true, _) => (true, self.denied(), self.permitted()),
                (false, Some(_)) => (false, "it waits for people".to_owned(), "wait for them, or ask them".to_owned()),
                (false, None) => (false, "it has not ended yet".to_owned(), "wait for its answer".to_owned()),
            };
        };
        let approval = |key: &str| text(self.approval.as_ref(), key);
        let said = |why: &str, what: &str| (true, why.to_owned(), what.to_owned());
        match word.as_str() {
            "denied" => (true, self.denied(), self.permitted()),
            "approval_denied" => {
                let (who, reason) = (approval("approver"), approval("reason"));
                let why = if reason.is_empty() { format!("{who} said no") } else { format!("{who} said no: {reason}") };
                said(&why, "do not repeat it as it is; ask whoever said no")
            }
            "approval_expired" => said("nobody approved it in time", "call again to ask again"),
            "approval_pending" => said("it waits for people", "make the same call again once they have approved it"),
            "not_approved" => said(
                "what the server offers under that name is not what was approved",
                "have it looked at: `cairn catalogue`, then `cairn catalogue approve`",
            ),
            "limit_exceeded" | "no_cost" => {
                said("it was over a limit", "wait, or ask whoever set the limit: `cairn limits`")
            }
            "busy" => said("too much was under way at once", "call again in a moment"),
            "no_decision" => said("nobody could decide about it", "call again when the decision point answers"),
            "not_recorded" => said("it could not be recorded, so it was not sent", "call again when recording works"),
            "login_required" | "upstream_unproven" => {
                said("Cairn could not prove itself to the server", "log in to it: `cairn login`")
            }
            "output_blocked" => {
                said("its answer held what must not be passed on", "ask for less, or ask whoever keeps the policies")
            }
            "not_rewritten" => {
                said("a policy wants it rewritten, and that could not be done", "ask whoever keeps the policies")
            }
            "upstream_unavailable" => {
                said("the server could not be reached; nothing was sent", "call again when it is there")
            }
            _ if ended == "denied" => (true, self.denied(), self.permitted()),
            _ if ended == "completed" => (false, "it was not refused".to_owned(), String::new()),
            _ if effect == "none" => {
                said(&format!("it ended {ended} before anything was sent"), "call again if it is still wanted")
            }
            _ => {
                (false, format!("it was not refused: it ended {ended}"), "look at its events: show_workflow".to_owned())
            }
        }
    }

    fn denied(&self) -> String {
        let decision = self.decision.as_ref().map(|(decision, _)| decision).unwrap_or(&Value::Null);
        let version = decision["policy_version"].as_str().unwrap_or("-");
        let names: Vec<&str> =
            decision["determining_policies"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let by = if names.is_empty() {
            format!("no policy permits it (policy version {version})")
        } else {
            format!("denied by policy {} (policy version {version})", names.join(", "))
        };
        match not_fresh(decision).as_array().map(Vec::as_slice) {
            Some([_, ..]) => format!("{by}; what it stands on is not fresh"),
            _ => by,
        }
    }

    /// What would have it permitted, as far as that is known.
    fn permitted(&self) -> String {
        let decision = self.decision.as_ref().map(|(decision, _)| decision).unwrap_or(&Value::Null);
        let uris: Vec<String> = not_fresh(decision)
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["mcp_resource_uri"].as_str().map(str::to_owned))
            .filter(|uri| !uri.is_empty())
            .collect();
        if !uris.is_empty() {
            return format!("read {} again, then call again", uris.join(", "));
        }
        match (decision["nearest"]["policy"].as_str(), decision["nearest"]["failed"].as_str()) {
            (Some(policy), Some(failed)) => {
                format!(
                    "the permit {policy} comes nearest and fails on {failed}: meet that, or ask whoever keeps the policies"
                )
            }
            _ => "ask whoever keeps the policies".to_owned(),
        }
    }
}

/// What a decision stood on that was not fresh.
fn not_fresh(decision: &Value) -> Value {
    let all = decision["freshness"].as_array().into_iter().flatten().filter(|one| one["state"] != "fresh");
    let all: Vec<Value> = all.cloned().collect();
    if all.is_empty() { Value::Null } else { all.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(call: &str, name: &str, value: Value) -> Kept {
        Kept {
            topic: "mcp.calls".to_owned(),
            partition: 1,
            offset: 7,
            id: "id".to_owned(),
            type_name: name.to_owned(),
            time: "2026-11-24T09:00:00.000000Z".to_owned(),
            source: "cairn://gateway/gw-1".to_owned(),
            about: Some("orders/refund".to_owned()),
            workflow_id: Some("w".to_owned()),
            call_id: Some(call.to_owned()),
            value: value.to_string(),
        }
    }

    #[test]
    fn a_refusal_names_its_policies_the_nearest_permit_and_what_to_do() {
        let near = json!({ "policy": "small-refunds", "failed": "context.amount < 100", "failing": 1 });
        let stale = json!([{ "mcp_resource_uri": "order://1", "state": "stale" }, { "mcp_resource_uri": "order://2", "state": "fresh" }]);
        let deny = |more: Value| {
            let mut value = json!({ "decision": "deny", "policy_version": "v1", "determining_policies": [] });
            value.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            value
        };
        let denied = json!({ "outcome": "denied", "effect": "none", "error_type": "denied" });
        let all = all(&[
            kept("a", "call.decision", deny(json!({ "nearest": near }))),
            kept("a", "call.outcome", denied.clone()),
            kept("b", "call.decision", deny(json!({ "determining_policies": ["guard"], "freshness": stale }))),
            kept("b", "call.outcome", denied),
            kept("c", "call.decision", json!({ "decision": "permit" })),
            kept(
                "c",
                "call.approval",
                json!({ "state": "denied", "approver": "ann", "reason": "no", "approval_id": "ap-1" }),
            ),
            kept(
                "c",
                "call.outcome",
                json!({ "outcome": "denied", "effect": "none", "error_type": "approval_denied" }),
            ),
            kept("d", "call.decision", json!({ "decision": "permit" })),
            kept("d", "call.outcome", json!({ "outcome": "completed", "effect": "answered" })),
        ]);
        let of = |index: usize, key: &str| all[index][key].as_str().unwrap_or_default().to_owned();
        assert_eq!(all.len(), 4);
        assert_eq!(of(0, "why"), "no policy permits it (policy version v1)");
        assert!(of(0, "what_to_do").contains("small-refunds comes nearest and fails on context.amount < 100"));
        assert_eq!(all[0]["event"]["offset"], 7);
        assert!(
            of(1, "why").contains("by policy guard") && of(1, "what_to_do").contains("read order://1 again"),
            "{all:?}"
        );
        assert_eq!(all[1]["freshness"].as_array().map(Vec::len), Some(1));
        assert_eq!(of(2, "why"), "ann said no: no");
        assert_eq!((&all[2]["is_refused"], &all[3]["is_refused"]), (&json!(true), &json!(false)));
    }
}
