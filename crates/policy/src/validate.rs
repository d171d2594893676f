//! Policies held to the schema, before they decide anything.
//!
//! Cedar's own validator does it, in its strict mode. What calls bring along (`context.arguments`) has no type that
//! anybody could know, and strict mode knows no such type. So the validator is shown each policy with every expression
//! over such an open value replaced by a plain truth value, after the rest of that expression has been kept for it to
//! check. What is evaluated is the policy as written. Must never let a name through that the schema does not know.

use cedar_policy::{
    Policy, PolicyId, PolicySet, Schema, ValidationError, ValidationMode, ValidationWarning, Validator,
};
use miette::Diagnostic;
use serde_json::{Value, json};

/// What is open in the context.
const OPEN: [&str; 2] = ["arguments", "input_responses"];

/// A mistake in a policy: its id, what is wrong, and the names that the words quote.
#[derive(Debug)]
pub(crate) struct Mistake {
    pub(crate) policy: String,
    pub(crate) what: String,
    pub(crate) names: Vec<String>,
}

/// Every mistake in the policies, which are given by id as Cedar's JSON.
pub(crate) fn mistakes<'a>(schema: Schema, policies: impl Iterator<Item = (&'a String, &'a Value)>) -> Vec<Mistake> {
    let mut set = PolicySet::new();
    let mut found = Vec::new();
    for (id, policy) in policies {
        let shown = Policy::from_json(Some(PolicyId::new(id)), closed(policy)).map_err(|error| error.to_string());
        if let Err(what) = shown.and_then(|policy| set.add(policy).map_err(|error| error.to_string())) {
            found.push(Mistake { policy: id.clone(), what, names: Vec::new() });
        }
    }
    let result = Validator::new(schema).validate(&set, ValidationMode::Strict);
    for error in result.validation_errors() {
        // Evaluation copes with what is absent: a permit does not permit, a forbid says so itself.
        if !matches!(error, ValidationError::UnsafeOptionalAttributeAccess(_)) {
            found.push(mistake(error.policy_id(), error));
        }
    }
    for warning in result.validation_warnings() {
        if matches!(warning, ValidationWarning::InvalidActionApplication(_)) {
            found.push(mistake(warning.policy_id(), warning));
        }
    }
    found.sort_by(|a, b| (&a.policy, &a.what).cmp(&(&b.policy, &b.what)));
    // One that holds in every request environment is reported for each of them.
    found.dedup_by(|a, b| a.policy == b.policy && a.what == b.what);
    found
}

fn mistake(id: &PolicyId, error: &(impl Diagnostic + std::fmt::Display)) -> Mistake {
    let words = error.to_string();
    let words = words.strip_prefix(&format!("for policy `{id}`, ")).unwrap_or(&words);
    let names = words.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect();
    let help = error.help().map(|help| format!(" ({help})")).unwrap_or_default();
    Mistake { policy: id.to_string(), what: format!("{words}{help}"), names }
}

/// The policy without what is open.
fn closed(policy: &Value) -> Value {
    let mut policy = policy.clone();
    for condition in policy["conditions"].as_array_mut().into_iter().flatten() {
        let mut kept = Vec::new();
        let mut body = truth(&condition["body"], &mut kept);
        for kept in kept {
            body = json!({ "&&": { "left": { "==": { "left": kept, "right": kept } }, "right": body } });
        }
        condition["body"] = body;
    }
    policy
}

/// Some truth value, which the validator knows nothing more of.
fn some_truth() -> Value {
    json!({ "has": { "left": { "Var": "context" }, "attr": "unmapped" } })
}

/// An expression that stands where a truth value must.
fn truth(expression: &Value, kept: &mut Vec<Value>) -> Value {
    known(expression, kept).unwrap_or_else(some_truth)
}

/// The expression without what is open; `None` where its own value is open. What is dropped beside it goes to `kept`.
fn known(expression: &Value, kept: &mut Vec<Value>) -> Option<Value> {
    let Some((operator, parts)) = expression.as_object().and_then(|node| node.iter().next()) else {
        return Some(expression.clone());
    };
    if matches!(operator.as_str(), "Value" | "Var" | "Slot" | "Unknown") {
        return Some(expression.clone());
    }
    if operator == "." && parts["left"] == json!({ "Var": "context" }) && OPEN.iter().any(|open| parts["attr"] == *open)
    {
        return None;
    }
    let mut parts = parts.clone();
    if matches!(operator.as_str(), "&&" | "||") {
        for side in ["left", "right"] {
            parts[side] = truth(&parts[side], kept);
        }
        return Some(json!({ operator: parts }));
    }
    if operator == "if-then-else" {
        parts["if"] = truth(&parts["if"], kept);
    }
    let places: Vec<&mut Value> = match &mut parts {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(members) => {
            let is_part = |name: &str| operator == "Record" || PARTS.contains(&name);
            members.iter_mut().filter(|(name, _)| is_part(name)).map(|(_, part)| part).collect()
        }
        _ => Vec::new(),
    };
    let mut closed = Vec::new();
    let mut is_open = false;
    for place in places {
        match known(place, kept) {
            Some(part) => {
                *place = part.clone();
                closed.push(part);
            }
            None => is_open = true,
        }
    }
    if !is_open {
        return Some(json!({ operator: parts }));
    }
    kept.extend(closed.into_iter().filter(mentions_a_variable));
    GIVES_TRUTH.contains(&operator.as_str()).then(some_truth)
}

/// Members of a node that are expressions.
const PARTS: [&str; 7] = ["left", "right", "arg", "if", "then", "else", "in"];

/// Operators whose value is a truth value whatever they are given.
const GIVES_TRUTH: [&str; 16] = [
    "!",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "in",
    "is",
    "has",
    "like",
    "contains",
    "containsAll",
    "containsAny",
    "isEmpty",
    "hasTag",
];

fn mentions_a_variable(expression: &Value) -> bool {
    match expression {
        Value::Object(members) => members.contains_key("Var") || members.values().any(mentions_a_variable),
        Value::Array(items) => items.iter().any(mentions_a_variable),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::{Actions, extended};

    fn words(policy: &str) -> Vec<String> {
        let entities = [json!({ "uid": { "type": "User", "id": "ada" }, "attrs": { "level": 3, "team": "a" } })];
        let schema = extended(&Actions::default(), &entities).expect("a schema");
        let json = Policy::parse(None, policy).expect("a policy").to_json().expect("JSON");
        mistakes(schema, [(&"p".to_owned(), &json)].into_iter()).into_iter().map(|mistake| mistake.what).collect()
    }

    #[test]
    fn what_is_right_passes() {
        for policy in [
            "permit(principal, action, resource);",
            "permit(principal, action, resource) when { action != Action::\"tools/call\" };",
            "permit(principal, action in Action::\"to_client\", resource is Server);",
            "permit(principal in Group::\"g\", action == Action::\"tools/call\", resource in Server::\"s\") when { resource.name like \"git_*\" };",
            "forbid(principal, action, resource) when { context has arguments && context.arguments has n && context.arguments.n > 3 };",
            "forbid(principal, action, resource) when { context.arguments.to == principal.name || [1, 2].contains(context.arguments.n) };",
            "forbid(principal, action, resource) when { context.arguments.list.contains(resource.name) && !context.arguments.dry };",
            "forbid(principal, action, resource) when { (if context.arguments.flag then principal.level else 3) > context.arguments.n + 1 };",
            "forbid(principal, action, resource) unless { principal has level && principal.level > 2 };",
            "permit(principal, action, resource) when { context has hints && context.hints has readOnlyHint && context.hints.readOnlyHint };",
            "permit(principal, action, resource) when { context.now < datetime(\"2030-01-01\") && context.unfinished < 3 };",
            "permit(principal, action, resource) when { decimal(context.arguments.price).lessThan(decimal(\"1.0\")) };",
        ] {
            assert_eq!(words(policy), Vec::<String>::new(), "{policy}");
        }
    }

    #[test]
    fn a_name_that_is_not_known_is_told_with_the_one_that_was_meant() {
        for (policy, said) in [
            ("permit(principal == Usr::\"ada\", action, resource);", "User"),
            ("permit(principal, action == Action::\"tools/cal\", resource);", "tools/call"),
            ("permit(principal, action, resource == Tol::\"a/b\");", "Tool"),
            ("permit(principal, action, resource) when { context.servr == \"a\" };", "server"),
            ("permit(principal, action, resource) when { principal.levl == 3 };", "level"),
            ("permit(principal, action, resource) when { context.arguments.n == principal.levl };", "level"),
            (
                "permit(principal, action, resource) when { context.arguments.n > 1 && context.hints.readOnly };",
                "readOnlyHint",
            ),
        ] {
            let words = words(policy).join("; ");
            assert!(words.contains(&format!("`{said}`")) || words.contains(said), "{policy}: {words}");
        }
    }

    #[test]
    fn what_can_never_be_is_told() {
        for policy in [
            "permit(principal, action == Action::\"tools/call\", resource is Prompt);",
            "permit(principal, action, resource) when { resource.name > 3 };",
            "permit(principal, action, resource) when { context.arguments.x == (principal.level + \"a\") };",
            "permit(principal, action, resource) when { context.arguments.x && principal.level };",
            "permit(principal, action, resource) when { context.tool_digest == 7 };",
        ] {
            assert!(!words(policy).is_empty(), "{policy}");
        }
    }
}
