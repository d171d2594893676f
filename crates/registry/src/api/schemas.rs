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
    subjects::{dated, described, formed, listed, qualified},
};
use crate::{
    Refusal, Registry, Subject, Version,
    digest::Digest,
    model::{RuleSet, SchemaType},
    names::Prefix,
    store::state::State as Held,
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

/// The subject that is named, which may be a context alone; without any the default one.
fn named(asked: &Asked) -> Subject {
    Subject::parse(asked.text("subject").unwrap_or_default())
}

/// A version that has an id: one of the subject that is named, in its context or, where it names none, in another; else
/// whatever has the id in its context.
fn held(state: &Held, named: &Subject, id: u32) -> Option<Version> {
    let of = |subject: &Subject| {
        let held = state.held(subject.context(), id)?;
        held.versions.iter().find(|(other, _)| other == subject)
    };
    let own = || Some(named).filter(|named| !named.name().is_empty()).and_then(of);
    let elsewhere = || state.elsewhere(named).into_iter().find_map(|other| of(&other).cloned());
    let any = || state.held(named.context(), id)?.versions.first().cloned();
    let (subject, version) = own().cloned().or_else(elsewhere).or_else(any)?;
    state.version(&subject, version).map(|value| (&*value).into())
}

fn find(registry: &Registry, named: &Subject, id: u32) -> Result<Version, Refusal> {
    held(&registry.0.state.read(), named, id).ok_or_else(|| Refusal::no_schema_of(id))
}

fn number(id: &str) -> Result<u32, Refusal> {
    id.parse::<i32>().ok().and_then(|id| u32::try_from(id).ok()).ok_or_else(Refusal::no_route)
}

async fn shown(
    registry: &Registry,
    version: &Version,
    asked: &Asked,
) -> Result<serde_json::Map<String, Value>, Refusal> {
    let text = formed(registry, version, asked.form()).await?;
    let mut members = described(&version.content, &text);
    members.insert("guid".to_owned(), json!(version.digest.guid()));
    dated(version, &mut members);
    qualified(version, asked, &mut members);
    Ok(members)
}

async fn by_id(State(registry): Within, Path(id): Path<String>, asked: Asked) -> Answer {
    let version = find(&registry, &named(&asked), number(&id)?)?;
    let mut members = shown(&registry, &version, &asked).await?;
    if asked.text("subject").is_some() {
        members.insert("subject".to_owned(), json!(version.subject.to_string()));
        members.insert("version".to_owned(), json!(version.version));
    }
    let state = registry.0.state.read();
    if asked.flag("fetchMaxId") {
        let highest = state.highest_ids().get(version.subject.context()).copied().unwrap_or(0);
        members.insert("maxId".to_owned(), json!(highest));
    }
    // Karapace's clients ask so.
    if asked.flag("includeSubjects") {
        let names = subjects_of(&places(&state, &version.subject, version.id, false));
        members.insert("subjects".to_owned(), json!(names));
    }
    answer(&Value::Object(members))
}

async fn text(State(registry): Within, Path(id): Path<String>, asked: Asked) -> Answer {
    let version = find(&registry, &named(&asked), number(&id)?)?;
    Ok(formed(&registry, &version, asked.form()).await?.into_response())
}

/// The versions that have an id in the context of a subject, in order.
fn places(state: &Held, subject: &Subject, id: u32, deleted: bool) -> Vec<(Subject, u32)> {
    let held = state.held(subject.context(), id).into_iter().flat_map(|held| &held.versions);
    let there = held
        .filter(|(subject, version)| state.version(subject, *version).is_some_and(|value| deleted || !value.deleted));
    there.cloned().collect()
}

/// Their subjects, each once.
fn subjects_of(places: &[(Subject, u32)]) -> Vec<String> {
    let mut names: Vec<String> = places.iter().map(|(subject, _)| subject.to_string()).collect();
    names.dedup();
    names
}

/// The versions that are asked for by an id.
fn asked_for(registry: &Registry, id: &str, asked: &Asked) -> Result<Vec<(Subject, u32)>, Refusal> {
    let state = registry.0.state.read();
    let version = held(&state, &named(asked), number(id)?).ok_or_else(Refusal::no_schema)?;
    let mut places = places(&state, &version.subject, version.id, asked.flag("deleted"));
    let wanted = named(asked);
    if !wanted.name().is_empty() {
        places.retain(|(subject, _)| subject.name() == wanted.name());
    }
    Ok(places)
}

async fn subjects(State(registry): Within, Path(id): Path<String>, asked: Asked) -> Answer {
    let names = subjects_of(&asked_for(&registry, &id, &asked)?);
    answer(&json!(asked.page(names.into_iter())?))
}

async fn versions(State(registry): Within, Path(id): Path<String>, asked: Asked) -> Answer {
    let places = asked_for(&registry, &id, &asked)?;
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
    let version = find(&registry, &Subject::context_only(&context), id)?;
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
