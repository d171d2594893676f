//! An Access Evaluation response, read strictly: only `"decision": true` is a yes, and only demands that are known are met.
//!
//! | in `context` | is |
//! | --- | --- |
//! | `obligations` | names of what is demanded; `approval` and `durability` mean something by themselves |
//! | `demands` | the same in full, as Cairn says it: `[{"policy": "…", "annotations": {"mask": "none"}}]` |
//! | `policy_version`, `determining_policies` | what decided there |
//! | `reason`, `reason_admin` | why, in words |

use cairn_policy::PolicyDemand;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Before the names of policies that decided elsewhere.
const ELSEWHERE: &str = "decision_point:";
/// Demands and names that are read of one answer.
const READ_MAX: usize = 64;

/// What it said.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) permit: bool,
    pub(super) policy_version: Option<String>,
    pub(super) determining: Vec<String>,
    pub(super) reason: Option<String>,
    /// What it demands besides; an error where it demands something that is not understood.
    pub(super) demands: Result<Vec<PolicyDemand>, String>,
}

/// As it stands on the wire. A member that comes twice is an error.
#[derive(Deserialize)]
struct Response {
    decision: bool,
    context: Option<Map<String, Value>>,
}

/// Reads an answer.
pub(super) fn read(bytes: &[u8]) -> Result<Answered, String> {
    let words = |error: serde_json::Error| match error.classify() {
        // The words may repeat a value.
        serde_json::error::Category::Data => "it has no member \"decision\" that is true or false".to_owned(),
        _ => format!("it is no JSON, at line {} column {}", error.line(), error.column()),
    };
    let Response { decision, context } = serde_json::from_slice(bytes).map_err(words)?;
    let context = context.unwrap_or_default();
    let text = |name: &str| context.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let determining = context.get("determining_policies").and_then(Value::as_array).into_iter().flatten();
    let first = |name: &str| {
        let said = context.get(name)?.as_object()?.values().next()?;
        said.as_str().map(ToOwned::to_owned)
    };
    Ok(Answered {
        permit: decision,
        policy_version: text("policy_version"),
        determining: determining.filter_map(Value::as_str).take(READ_MAX).map(ToOwned::to_owned).collect(),
        reason: text("reason").or_else(|| first("reason_admin")).or_else(|| first("reason_user")),
        demands: demands(&context),
    })
}

/// What is demanded, each by the policy that demands it.
fn demands(context: &Map<String, Value>) -> Result<Vec<PolicyDemand>, String> {
    let mut demands = Vec::new();
    if let Some(said) = context.get("demands") {
        let said = said.as_array().ok_or("demands is no list")?;
        for one in said {
            let policy = one["policy"].as_str().unwrap_or_default();
            let annotations = one["annotations"].as_object().ok_or("a demand has no annotations")?;
            let annotation = |(name, value): (&String, &Value)| {
                let value = value.as_str().ok_or_else(|| format!("{name} is no text"))?;
                Ok::<_, String>((name.clone(), value.to_owned()))
            };
            let annotations = annotations.iter().map(annotation).collect::<Result<_, String>>()?;
            demands.push(PolicyDemand { policy: format!("{ELSEWHERE}{policy}"), annotations });
        }
    }
    let names = match context.get("obligations") {
        None => &[],
        Some(names) => names.as_array().map(Vec::as_slice).ok_or("obligations is no list")?,
    };
    for name in names {
        let name = name.as_str().ok_or("an obligation is no name")?;
        let is_told = |demand: &PolicyDemand| {
            let is_limit = |of: &str| name == "limits" && matches!(of, "rate" | "concurrency" | "budget");
            let says = |of: &str, value: &str| of == name || is_limit(of) || (of == "obligation" && value == name);
            demand.annotations.iter().any(|(of, value)| says(of, value))
        };
        if demands.iter().any(is_told) {
            continue;
        }
        let annotation = match name {
            "approval" => ("obligation", "approval"),
            "durability" => ("durability", "strict"),
            other => return Err(format!("the obligation {other:?} is not known, or is not told in full")),
        };
        let annotations = vec![(annotation.0.to_owned(), annotation.1.to_owned())];
        demands.push(PolicyDemand { policy: format!("{ELSEWHERE}{name}"), annotations });
    }
    if demands.len() > READ_MAX {
        return Err(format!("there are more than {READ_MAX} demands"));
    }
    Ok(demands)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for (answer, permits) in [
            (r#"{"decision": true}"#, Some(true)),
            (r#"{"decision": false, "context": null}"#, Some(false)),
            (r#"{"decision": "true"}"#, None),
            (r#"{"decision": 1}"#, None),
            (r#"{"decision": false, "decision": true}"#, None),
            (r#"{"Decision": true}"#, None),
            (r#"{"decision": true, "context": 7}"#, None),
            (r#"[{"decision": true}]"#, None),
            (r#"{"decision": true}{"#, None),
            ("", None),
        ] {
            assert_eq!(read(answer.as_bytes()).ok().map(|answered| answered.permit), permits, "{answer}");
        }
    }

    #[test]
    fn what_is_demanded_is_understood_or_it_is_no_yes() {
        let read = |context: &str| {
            read(format!(r#"{{"decision": true, "context": {context}}}"#).as_bytes()).expect("an answer").demands
        };
        assert_eq!(read("{}"), Ok(Vec::new()));
        let names = read(r#"{"obligations": ["approval", "durability"]}"#).expect("known");
        assert_eq!(
            names.iter().map(|demand| demand.annotations[0].1.as_str()).collect::<Vec<_>>(),
            ["approval", "strict"]
        );
        let full = r#"{"obligations": ["mask"], "demands": [{"policy": "p", "annotations": {"mask": "none"}}]}"#;
        assert_eq!(read(full).expect("known")[0].policy, "decision_point:p");
        let limits = r#"{"obligations": ["limits"], "demands": [{"policy": "p", "annotations": {"rate": "5/1m"}}]}"#;
        assert_eq!(read(limits).expect("known").len(), 1);
        for unknown in [
            r#"{"obligations": ["mask"]}"#,
            r#"{"obligations": ["encrypt"]}"#,
            r#"{"obligations": "approval"}"#,
            r#"{"obligations": [{"id": "approval"}]}"#,
            r#"{"demands": {}}"#,
            r#"{"demands": [{"policy": "p"}]}"#,
            r#"{"demands": [{"policy": "p", "annotations": {"mask": 1}}]}"#,
        ] {
            assert!(read(unknown).is_err(), "{unknown}");
        }
    }

    #[test]
    fn words_of_errors_repeat_nothing() {
        let error = read(br#"{"decision": "s3cret"}"#).expect_err("no decision");
        assert!(!error.contains("s3cret"), "{error}");
    }
}
