//! `/subjects`: listing, looking up, registering, reading and deleting versions.

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};

use super::{
    Answer, Within, answer, bodies,
    query::{Asked, Which},
};
use crate::{
    Refusal, Registry, Subject, Version,
    budget::Budget,
    format::Form,
    model::{Content, SchemaType},
    names::Prefix,
    store::{records::SchemaValue, referenced, state::State as Held},
};

pub(super) fn routes() -> Router<Registry> {
    Router::new()
        .route("/subjects", get(list))
        .route("/subjects/{subject}", super::posts(look_up).delete(delete))
        .route("/subjects/{subject}/metadata", get(by_metadata))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version).delete(delete_version))
        .route("/subjects/{subject}/versions/{version}/schema", get(text))
        .route("/subjects/{subject}/versions/{version}/referencedby", get(referenced_by))
}

/// What belongs to a schema, as answers have it.
pub(super) fn described(content: &Content, text: &str) -> serde_json::Map<String, Value> {
    let mut members = serde_json::Map::new();
    if content.schema_type != SchemaType::Avro {
        members.insert("schemaType".to_owned(), json!(content.schema_type));
    }
    if !content.references.is_empty() {
        members.insert("references".to_owned(), json!(content.references));
    }
    if let Some(metadata) = &content.metadata {
        members.insert("metadata".to_owned(), json!(metadata));
    }
    if let Some(rules) = &content.rule_set {
        members.insert("ruleSet".to_owned(), json!(rules));
    }
    members.insert("schema".to_owned(), json!(text));
    members
}

/// What is known of a version beside the schema.
pub(super) fn dated(version: &Version, members: &mut serde_json::Map<String, Value>) {
    if let Some(written) = version.written_ms {
        members.insert("ts".to_owned(), json!(written));
    }
    members.insert("deleted".to_owned(), json!(version.deleted));
}

/// The references of a schema as subjects that name their context, where that was asked for.
pub(super) fn qualified(version: &Version, asked: &Asked, members: &mut serde_json::Map<String, Value>) {
    if asked.text("referenceFormat") != Some("qualified") || version.subject.is_default() {
        return;
    }
    let mut references = version.content.references.clone();
    for reference in &mut references {
        reference.subject = referenced(&version.subject, reference).to_string();
    }
    if !references.is_empty() {
        members.insert("references".to_owned(), json!(references));
    }
}

/// A version as answers have it.
fn shown(version: &Version, text: &str) -> serde_json::Map<String, Value> {
    let mut members = serde_json::Map::new();
    members.insert("subject".to_owned(), json!(version.subject.to_string()));
    members.insert("version".to_owned(), json!(version.version));
    members.insert("id".to_owned(), json!(version.id));
    members.insert("guid".to_owned(), json!(version.digest.guid()));
    members.extend(described(&version.content, text));
    dated(version, &mut members);
    members
}

/// A version's text in the form that was asked for.
pub(super) async fn formed(registry: &Registry, version: &Version, form: Form) -> Result<String, Refusal> {
    if form == Form::Kept {
        return Ok(version.content.schema.clone());
    }
    let version = version.clone();
    registry
        .busy(move |registry| {
            let parsed = registry.parsed(&version)?;
            let formed = parsed.formed(form, &Budget::default());
            let formed = formed.map_err(|error| Refusal::invalid_schema(format_args!("{error}")))?;
            Ok(formed.unwrap_or_else(|| version.content.schema.clone()))
        })
        .await
}

/// A version of exactly that subject. The latest is one that is not deleted, whatever is asked for.
pub(super) fn held(state: &Held, subject: &Subject, which: Which, deleted: bool) -> Option<Version> {
    let found = match which {
        Which::Latest => state.latest(subject),
        Which::Number(number) => state.version(subject, number).filter(|value| deleted || !value.deleted),
    };
    found.map(|value| (&*value).into())
}

/// Why a version is not there.
fn missing(state: &Held, subject: &Subject, which: Which, deleted: bool) -> Refusal {
    if !state.versions(subject).any(|value| deleted || !value.deleted) {
        return Refusal::no_subject(&subject.to_string());
    }
    match which {
        Which::Number(number) => Refusal::no_version(number),
        Which::Latest => Refusal::no_version(-1),
    }
}

/// A version of a subject; one that names no context is looked for in the others too.
fn find(registry: &Registry, subject: Subject, which: Which, deleted: bool) -> Result<Version, Refusal> {
    let subject = registry.meant(subject);
    let state = registry.0.state.read();
    let found = held(&state, &subject, which, deleted);
    let elsewhere = || state.elsewhere(&subject).iter().find_map(|other| held(&state, other, which, deleted));
    found.or_else(elsewhere).ok_or_else(|| missing(&state, &subject, which, deleted))
}

/// Every version, in order of name and number.
pub(super) fn listed(version: &Version) -> Value {
    Value::Object(shown(version, &version.content.schema))
}

async fn list(State(registry): Within, asked: Asked) -> Answer {
    let prefix = Prefix::parse(asked.text("subjectPrefix").unwrap_or(":*:"));
    let (deleted, only) = (asked.flag("deleted"), asked.flag("deletedOnly"));
    let state = registry.0.state.read();
    let wanted = state
        .subjects()
        .filter(|(subject, present)| prefix.takes(subject) && if only { !present } else { deleted || *present });
    let names = asked.page(wanted.map(|(subject, _)| subject.to_string()))?;
    answer(&json!(names))
}

async fn look_up(State(registry): Within, Path(subject): Path<String>, asked: Asked, body: Bytes) -> Answer {
    let offer = bodies::offer(&body, &asked)?;
    let found =
        registry.look_up(Subject::parse(&subject), offer, asked.flag("deleted") || asked.flag("lookupDeletedSchema"));
    let found = found.await?;
    let text = formed(&registry, &found, asked.form()).await?;
    answer(&Value::Object(shown(&found, &text)))
}

async fn delete(State(registry): Within, Path(subject): Path<String>, asked: Asked) -> Answer {
    let versions = registry.delete_subject(Subject::parse(&subject), asked.flag("permanent")).await?;
    answer(&json!(versions))
}

async fn by_metadata(State(registry): Within, Path(subject): Path<String>, asked: Asked) -> Answer {
    let wanted: Vec<(&str, &str)> = asked.all("key").into_iter().zip(asked.all("value")).collect();
    let subject = registry.meant(Subject::parse(&subject));
    let found = {
        let state = registry.0.state.read();
        if !state.versions(&subject).any(|value| asked.flag("deleted") || !value.deleted) {
            return Err(Refusal::no_subject(&subject.to_string()));
        }
        let has_all = |content: &Content| {
            let properties = content.metadata.as_ref().and_then(|metadata| metadata.properties.as_ref());
            wanted.iter().all(|(key, value)| {
                properties.and_then(|properties| properties.get(*key)).is_some_and(|held| held == value)
            })
        };
        let mut there = state.versions(&subject).rev().filter(|value| asked.flag("deleted") || !value.deleted);
        there.find(|value| has_all(&value.content)).map(|value| Version::from(&**value))
    };
    let found = found.ok_or_else(Refusal::no_schema)?;
    let text = formed(&registry, &found, asked.form()).await?;
    answer(&Value::Object(shown(&found, &text)))
}

async fn versions(State(registry): Within, Path(subject): Path<String>, asked: Asked) -> Answer {
    let subject = registry.meant(Subject::parse(&subject));
    let (deleted, only) = (asked.flag("deleted"), asked.flag("deletedOnly"));
    let negative = asked.flag("deletedAsNegative");
    let state = registry.0.state.read();
    if !state.versions(&subject).any(|value| deleted || only || !value.deleted) {
        return Err(Refusal::no_subject(&subject.to_string()));
    }
    let wanted = state.versions(&subject);
    let wanted = wanted.filter(|value| negative || if only { value.deleted } else { deleted || !value.deleted });
    let signed = |value: &std::sync::Arc<SchemaValue>| {
        let version = i64::from(value.version);
        if value.deleted && negative { -version } else { version }
    };
    answer(&json!(asked.page(wanted.map(signed))?))
}

async fn register(State(registry): Within, Path(subject): Path<String>, asked: Asked, body: Bytes) -> Answer {
    let offer = bodies::offer(&body, &asked)?;
    let sent = offer.content.schema.clone();
    let registered = registry.register(Subject::checked(&subject)?, offer).await?;
    // Clients go on with the text that they get back: it stays in the form in which they sent it.
    let text = match asked.form() {
        Form::Kept if sent.trim().is_empty() => registered.content.schema.clone(),
        Form::Kept => sent,
        form => formed(&registry, &registered, form).await?,
    };
    let mut members = serde_json::Map::new();
    members.insert("id".to_owned(), json!(registered.id));
    members.insert("version".to_owned(), json!(registered.version));
    members.insert("guid".to_owned(), json!(registered.digest.guid()));
    members.extend(described(&registered.content, &text));
    answer(&Value::Object(members))
}

async fn version(State(registry): Within, Path((subject, version)): Path<(String, String)>, asked: Asked) -> Answer {
    let found = find(&registry, Subject::parse(&subject), Which::parse(&version)?, asked.flag("deleted"))?;
    let text = formed(&registry, &found, asked.form()).await?;
    let mut members = shown(&found, &text);
    qualified(&found, &asked, &mut members);
    answer(&Value::Object(members))
}

async fn text(State(registry): Within, Path((subject, version)): Path<(String, String)>, asked: Asked) -> Answer {
    let found = find(&registry, Subject::parse(&subject), Which::parse(&version)?, asked.flag("deleted"))?;
    Ok(formed(&registry, &found, asked.form()).await?.into_response())
}

async fn delete_version(
    State(registry): Within,
    Path((subject, version)): Path<(String, String)>,
    asked: Asked,
) -> Answer {
    let which = Which::parse(&version)?;
    let subject = registry.meant(Subject::parse(&subject));
    let found = {
        let state = registry.0.state.read();
        held(&state, &subject, which, true).ok_or_else(|| missing(&state, &subject, which, true))?
    };
    let deleted = registry.delete_version(subject, found.version, asked.flag("permanent")).await?;
    answer(&json!(deleted))
}

async fn referenced_by(
    State(registry): Within,
    Path((subject, version)): Path<(String, String)>,
    asked: Asked,
) -> Answer {
    let found = find(&registry, Subject::parse(&subject), Which::parse(&version)?, true)?;
    let state = registry.0.state.read();
    let referrers = state.referrers(&found.subject, found.version);
    let mut ids: Vec<u32> =
        referrers.into_iter().filter(|value| asked.flag("deleted") || !value.deleted).map(|value| value.id).collect();
    ids.sort_unstable();
    ids.dedup();
    answer(&json!(asked.page(ids.into_iter())?))
}
