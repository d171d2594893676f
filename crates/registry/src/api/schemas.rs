//! `/schemas`: by id, by GUID, and all of them.

use axum::{
    Router,
    extract::{Path, State},
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Answer, Within, answer,
    query::Asked,
    subjects::{described, formed, listed},
};
use crate::{
    Refusal, Registry, Subject, Version,
    digest::Digest,
    model::{RuleSet, SchemaType},
    names::Prefix,
};

pub(super) fn routes() -> Router<Registry> {
    Router::new()
        .route("/schemas", get(list))
        .route("/schemas/types", get(types))
        .route("/schemas/ids/{id}", get(by_id))
        .route("/schemas/ids/{id}/schema", get(text))
        .route("/schemas/ids/{id}/subjects", get(subjects))
        .route("/schemas/ids/{id}/versions", get(versions))
        .route("/schemas/guids/{guid}", get(by_guid))
        .route("/schemas/guids/{guid}/ids", get(ids))
}

async fn types() -> Answer {
    answer(&json!(SchemaType::ALL.map(SchemaType::name)))
}

/// Whether a schema has a rule of that type.
fn has_rule(rules: Option<&RuleSet>, engine: &str) -> bool {
    let lists =
        rules.into_iter().flat_map(|rules| [&rules.migration_rules, &rules.domain_rules, &rules.encoding_rules]);
    lists.flatten().flatten().any(|rule| rule.engine.as_deref() == Some(engine))
}

async fn list(State(registry): Within, asked: Asked) -> Answer {
    let prefix = Prefix::parse(asked.text("subjectPrefix").unwrap_or_default());
    let engine = asked.text("ruleType").filter(|engine| !engine.is_empty());
    let (deleted, latest) = (asked.flag("deleted"), asked.flag("latestOnly"));
    let state = registry.0.state.read();
    let wanted = state.all().filter(|value| prefix.takes(&value.subject) && (deleted || !value.deleted));
    let wanted = wanted.filter(|value| engine.is_none_or(|engine| has_rule(value.content.rule_set.as_ref(), engine)));
    let is_last = |value: &&std::sync::Arc<crate::store::records::SchemaValue>| {
        let mut there = state.versions(&value.subject).rev().filter(|value| deleted || !value.deleted);
        there.next().is_some_and(|last| last.version == value.version)
    };
    let wanted = wanted.filter(|value| !latest || is_last(value));
    let page = asked.page(wanted.map(|value| listed(&Version::from(&**value))))?;
    answer(&Value::Array(page))
}

/// Where an id is looked for: in the context of the subject that is named.
fn context_of(asked: &Asked) -> String {
    Subject::parse(asked.text("subject").unwrap_or_default()).context().to_owned()
}

fn number(id: &str) -> Result<u32, Refusal> {
    id.parse::<i32>().ok().and_then(|id| u32::try_from(id).ok()).ok_or_else(Refusal::no_route)
}

/// A version that has the id: one of the subject that is named, where there is one.
fn held(registry: &Registry, context: &str, id: u32, subject: Option<&str>) -> Result<Version, Refusal> {
    let state = registry.0.state.read();
    let held = state.held(context, id).ok_or_else(|| Refusal::no_schema_of(id))?;
    let named = subject.filter(|subject| !subject.is_empty()).map(Subject::parse);
    let own = held.versions.iter().find(|(subject, _)| Some(subject) == named.as_ref());
    let (subject, version) = own.or_else(|| held.versions.first()).ok_or_else(|| Refusal::no_schema_of(id))?;
    let value = state.version(subject, *version).ok_or_else(|| Refusal::no_schema_of(id))?;
    Ok((&*value).into())
}

async fn shown(
    registry: &Registry,
    version: &Version,
    asked: &Asked,
) -> Result<serde_json::Map<String, Value>, Refusal> {
    let text = formed(registry, version, asked.form()).await?;
    let mut members = described(&version.content, &text);
    members.insert("guid".to_owned(), json!(version.digest.guid()));
    Ok(members)
}

async fn by_id(State(registry): Within, Path(id): Path<String>, asked: Asked) -> Answer {
    let context = context_of(&asked);
    let version = held(&registry, &context, number(&id)?, asked.text("subject"))?;
    let mut members = shown(&registry, &version, &asked).await?;
    if asked.flag("fetchMaxId") {
        let highest = registry.0.state.read().highest_ids().get(&context).copied().unwrap_or(0);
        members.insert("maxId".to_owned(), json!(highest));
    }
    answer(&Value::Object(members))
}

async fn text(State(registry): Within, Path(id): Path<String>, asked: Asked) -> Answer {
    let version = held(&registry, &context_of(&asked), number(&id)?, asked.text("subject"))?;
    Ok(formed(&registry, &version, asked.form()).await?.into_response())
}

/// The versions that have an id, in order.
fn places(registry: &Registry, id: &str, asked: &Asked) -> Result<Vec<(Subject, u32)>, Refusal> {
    let id = number(id)?;
    let named = asked.text("subject").filter(|subject| !subject.is_empty()).map(Subject::parse);
    let state = registry.0.state.read();
    let held = state.held(&context_of(asked), id).ok_or_else(|| Refusal::no_schema_of(id))?;
    let deleted = asked.flag("deleted");
    let wanted = held.versions.iter().filter(|(subject, version)| {
        let there = state.version(subject, *version).is_some_and(|value| deleted || !value.deleted);
        there && named.as_ref().is_none_or(|named| named.name().is_empty() || named == subject)
    });
    Ok(wanted.cloned().collect())
}

async fn subjects(State(registry): Within, Path(id): Path<String>, asked: Asked) -> Answer {
    let mut names: Vec<String> =
        places(&registry, &id, &asked)?.iter().map(|(subject, _)| subject.to_string()).collect();
    names.dedup();
    answer(&json!(asked.page(names.into_iter())?))
}

async fn versions(State(registry): Within, Path(id): Path<String>, asked: Asked) -> Answer {
    let places = places(&registry, &id, &asked)?;
    let shown = places.iter().map(|(subject, version)| json!({ "subject": subject.to_string(), "version": version }));
    answer(&Value::Array(asked.page(shown)?))
}

fn digest(guid: &str) -> Result<Digest, Refusal> {
    let parsed = Uuid::parse_str(guid).map_err(|_| Refusal::no_schema_of(guid.chars().take(40).collect::<String>()))?;
    Ok(Digest::from_bytes(*parsed.as_bytes()))
}

async fn by_guid(State(registry): Within, Path(guid): Path<String>, asked: Asked) -> Answer {
    let digest = digest(&guid)?;
    let place = registry.0.state.read().places_of(digest).next().cloned();
    let (context, id) = place.ok_or_else(|| Refusal::no_schema_of(&guid))?;
    let version = held(&registry, &context, id, None)?;
    answer(&Value::Object(shown(&registry, &version, &asked).await?))
}

async fn ids(State(registry): Within, Path(guid): Path<String>) -> Answer {
    let digest = digest(&guid)?;
    let state = registry.0.state.read();
    let places: Vec<Value> =
        state.places_of(digest).map(|(context, id)| json!({ "context": context, "id": id })).collect();
    if places.is_empty() {
        return Err(Refusal::no_schema_of(guid));
    }
    answer(&Value::Array(places))
}
