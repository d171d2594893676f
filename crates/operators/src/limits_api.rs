//! `GET /limits`: the limits of the configuration, and what is used of all limits, for operators who may view.

use axum::{Json, Router, extract::State, routing::get};
use cairn_limits::{Limits, Rule, Source, Use};
use serde_json::{Map, Value, json};

use crate::Admin;

/// The route.
pub(crate) fn routes() -> Router<Admin> {
    Router::new().route("/limits", get(limits))
}

async fn limits(State(admin): State<Admin>) -> Json<Value> {
    let Some(gateway) = admin.gateway() else { return Json(json!({ "limits": [], "used": [] })) };
    let all = gateway.allowances();
    let uses = all.uses();
    let used: Vec<Value> = uses.iter().map(|one| shown(all, one)).collect();
    Json(json!({ "limits": all.rules().map(rule).collect::<Vec<_>>(), "used": used }))
}

fn rule(rule: &Rule) -> Value {
    json!({
        "limit": &*rule.name,
        "dimension": rule.bound.dimension().word(),
        "allowed": rule.bound.to_string(),
        "per": rule.per.iter().map(|part| part.word()).collect::<Vec<_>>(),
    })
}

fn shown(all: &Limits, one: &Use) -> Value {
    let source = if one.source == Source::Configuration { "configuration" } else { "policy" };
    let of: Map<String, Value> =
        one.of.iter().map(|(part, names)| (part.word().to_owned(), json!(names.last().cloned().flatten()))).collect();
    let mut shown = json!({
        "limit": one.name,
        "source": source,
        "dimension": one.dimension,
        "of": of,
        "used": one.used.to_string(),
    });
    let of_rule = |rule: &&Rule| {
        one.source == Source::Configuration && *rule.name == *one.name && rule.bound.dimension().word() == one.dimension
    };
    if let Some(rule) = all.rules().find(of_rule) {
        shown["allowed"] = json!(rule.bound.to_string());
    }
    if let Some(at) = one.renews_at {
        shown["renews_at"] = json!(at.to_string());
    }
    shown
}
