//! Holds the Rust types to the files under `contracts/`, both ways.
//!
//! Every event type is sealed twice, once with every key and once with none that may be absent. Both must validate, the
//! first must have exactly the schema's properties, the second exactly the required ones. A field added to a type
//! without its schema, or the other way round, fails here; so does a struct literal below, because none uses `..`.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use std::collections::BTreeSet;

use cairn_clock::Timestamp;
use cairn_contract::*;
use serde_json::{Value, json};
use uuid::Uuid;

mod events;

use events::{full_bodies, full_common, minimal_bodies, minimal_common};

fn stamp(previous: bool) -> Stamp {
    Stamp {
        source: "cairn://gateway/gw-1".into(),
        producer: Producer { id: "gw-1".into(), epoch: 1, sequence: 2, previous: previous.then(|| "ab".repeat(32)) },
        hlc: "1795521600000000-00000".into(),
        id: Uuid::from_u128(1),
        time: Timestamp::from_micros(1_795_521_600_000_000),
    }
}

fn seal(common: Common, body: Body, previous: bool) -> Value {
    let draft = Draft { key: "k".into(), subject: None, traceparent: None, tracestate: None, common, body };
    let record = draft.seal(&stamp(previous)).unwrap();
    serde_json::from_slice(&record.value).unwrap()
}

fn schema(event_type: EventType) -> Value {
    serde_json::from_str(event_type.contract().schema).unwrap()
}

fn validator(schema: &Value) -> jsonschema::Validator {
    jsonschema::draft202012::options().should_validate_formats(true).build(schema).unwrap()
}

fn check(event_type: EventType, event: &Value) {
    let schema = schema(event_type);
    let errors: Vec<String> =
        validator(&schema).iter_errors(event).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{event_type}: {errors:#?}\n{event:#}");
}

fn keys(object: &Value) -> BTreeSet<String> {
    object.as_object().unwrap().keys().cloned().collect()
}

fn strings(array: &Value) -> BTreeSet<String> {
    array.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_full_event_validates_and_has_exactly_the_properties_of_its_schema() {
    for event_type in EventType::ALL {
        let bodies: Vec<Body> = full_bodies().into_iter().filter(|body| body.event_type() == event_type).collect();
        assert!(!bodies.is_empty(), "{event_type} has no full body");
        let mut seen = BTreeSet::new();
        for body in bodies {
            let event = seal(full_common(), body.clone(), true);
            check(event_type, &event);
            assert_eq!(Body::from_value(event_type, &event).unwrap(), body, "{event_type} is not read back as it was");
            seen.extend(keys(&event));
        }
        assert_eq!(seen, keys(&schema(event_type)["properties"]), "{event_type}");
    }
}

#[test]
fn a_minimal_event_validates_and_has_exactly_the_required_keys() {
    let bodies = minimal_bodies();
    assert_eq!(bodies.iter().map(Body::event_type).collect::<Vec<_>>(), EventType::ALL);
    for body in bodies {
        let event_type = body.event_type();
        let event = seal(minimal_common(event_type.topic()), body.clone(), false);
        check(event_type, &event);
        assert_eq!(Body::from_value(event_type, &event).unwrap(), body);
        assert_eq!(keys(&event), strings(&schema(event_type)["required"]), "{event_type}");
        assert!(!event.to_string().contains(":null"), "{event_type} holds a null");
    }
}

/// Objects within events are held both ways too: every property of a definition occurs in some full event.
#[test]
fn nested_objects_have_exactly_the_properties_of_their_definitions() {
    for body in full_bodies() {
        let event_type = body.event_type();
        let schema = schema(event_type);
        let event = seal(full_common(), body, true);
        for (name, property) in schema["properties"].as_object().unwrap() {
            let Some(value) = event.get(name) else { continue };
            let (property, value) = match property["items"].get("$ref") {
                Some(_) => (&property["items"], &value[0]),
                None => (property, value),
            };
            let definition = match property["$ref"].as_str() {
                Some(reference) => schema.pointer(reference.trim_start_matches('#')).unwrap(),
                None if property.get("properties").is_some() => property,
                None => continue,
            };
            assert_eq!(keys(value), keys(&definition["properties"]), "{event_type}: {name}");
        }
    }
}

#[test]
fn a_wrong_event_does_not_validate() {
    let event_type = EventType::CallOutcome;
    let body = minimal_bodies().into_iter().find(|body| body.event_type() == event_type).unwrap();
    let good = seal(minimal_common(Topic::Calls), body, false);
    let schema = schema(event_type);
    let validator = validator(&schema);
    assert!(validator.is_valid(&good));
    for (key, value) in [
        ("outcome", json!("done")),
        ("effect", Value::Null),
        ("call_id", json!("no uuid")),
        ("trace_id", json!("ABC")),
        ("result", json!({"digest": "sha256:00", "bytes": 1, "media_type": "text/plain"})),
        ("result", json!("the payload itself")),
        ("elapsed_us", json!("12")),
        ("contract", json!({"name": "call.intent", "version": 1})),
    ] {
        let mut bad = good.clone();
        bad[key] = value;
        assert!(!validator.is_valid(&bad), "{key}");
    }
    for key in strings(&schema["required"]) {
        let mut bad = good.clone();
        bad.as_object_mut().unwrap().remove(&key);
        assert!(!validator.is_valid(&bad), "{key}");
    }
}

/// Every value of every enumeration, as the type writes it, is what the schema lists, in number and in name.
#[test]
fn enumerations_have_the_same_values_on_both_sides() {
    fn same<T: serde::Serialize>(event_type: EventType, key: &str, values: &[T]) {
        let ours: BTreeSet<String> =
            values.iter().map(|value| serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()).collect();
        assert_eq!(ours, strings(&schema(event_type)["properties"][key]["enum"]), "{event_type}: {key}");
    }
    use EventType as T;
    for event_type in EventType::ALL {
        same(event_type, "direction", &[Direction::ToServer, Direction::ToClient]);
        same(event_type, "era", &[Era::Legacy, Era::Modern]);
        same(event_type, "network_transport", &[Transport::Pipe, Transport::Tcp]);
        same(event_type, "linked_by", &[LinkedBy::RequestState, LinkedBy::TaskId, LinkedBy::Inferred]);
    }
    same(T::CallDecision, "decision", &[Decision::Permit, Decision::Deny]);
    let states = [ApprovalState::Requested, ApprovalState::Approved, ApprovalState::Denied, ApprovalState::Expired];
    same(T::CallApproval, "state", &states);
    same(T::CallIntent, "durability", &[Durability::Strict, Durability::Relaxed]);
    same(T::CallIntent, "upstream", &[Era::Legacy, Era::Modern]);
    same(T::CallIntent, "upstream_network_transport", &[Transport::Pipe, Transport::Tcp]);
    let outcomes = [
        Outcome::Completed,
        Outcome::Failed,
        Outcome::Denied,
        Outcome::Cancelled,
        Outcome::TimedOut,
        Outcome::InputRequired,
        Outcome::Accepted,
        Outcome::InDoubt,
    ];
    same(T::CallOutcome, "outcome", &outcomes);
    same(T::CallOutcome, "effect", &[Effect::None, Effect::Answered, Effect::Unknown]);
    let settled = [SettledState::Completed, SettledState::Failed, SettledState::Cancelled, SettledState::Unknown];
    same(T::CallSettled, "state", &settled);
    same(
        T::ContextRead,
        "version_source",
        &[VersionSource::Etag, VersionSource::LastModified, VersionSource::Digest, VersionSource::Declared],
    );
    same(T::ContextRead, "cache_scope", &[CacheScope::Public, CacheScope::Private]);
    same(
        T::ContextChanged,
        "cause",
        &[
            ChangeCause::Notification,
            ChangeCause::Read,
            ChangeCause::Write,
            ChangeCause::InDoubt,
            ChangeCause::Ingested,
        ],
    );
    let lists = [ListKind::Tools, ListKind::Prompts, ListKind::Resources, ListKind::ResourceTemplates, ListKind::Roots];
    same(T::ContextListed, "list_kind", &lists);
    let kinds = [CatalogKind::Tool, CatalogKind::Prompt, CatalogKind::Resource, CatalogKind::ResourceTemplate];
    same(T::CatalogDefined, "kind", &kinds);
    same(T::CatalogChanged, "kind", &kinds);
    same(T::CatalogApproved, "kind", &kinds);
    let credentials =
        [CredentialKind::None, CredentialKind::Token, CredentialKind::ApiKey, CredentialKind::Certificate];
    same(T::AccessRefused, "credential", &credentials);
    same(T::LimitExceeded, "source", &[LimitSource::Configuration, LimitSource::Policy]);
    let causes = [PolicyCause::Start, PolicyCause::FileChange, PolicyCause::Promoted, PolicyCause::RolledBack];
    same(T::PolicyActivated, "cause", &causes);
    same(T::ConsumerMoved, "change", &[ConsumerChange::Paused, ConsumerChange::Resumed, ConsumerChange::Moved]);
    same(T::ReplayEnded, "outcome", &[ReplayOutcome::Completed, ReplayOutcome::Stopped, ReplayOutcome::Failed]);
    same(T::ModelCalled, "reported_as", &[ReportedAs::Span, ReportedAs::Logs]);
    same(T::PolicyShadowed, "state", &[ShadowState::Tried, ShadowState::Ended]);
}

#[test]
fn every_contract_says_who_why_how_long_and_how_sensitive() {
    for event_type in EventType::ALL {
        let schema = schema(event_type);
        jsonschema::draft202012::meta::validate(&schema).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
        assert_eq!(schema["$id"].as_str().unwrap(), event_type.contract().uri());
        assert_eq!(schema["title"].as_str().unwrap(), event_type.name());
        assert_eq!(schema["x-topic"].as_str().unwrap(), event_type.topic().name());
        assert_eq!(schema["additionalProperties"], true);
        let retention = match event_type.topic().spec().retention {
            Some(kept) => format!("P{}D", kept.as_secs() / 86_400),
            None => "forever".to_owned(),
        };
        assert_eq!(schema["x-retention"].as_str().unwrap(), retention, "{event_type}");
        for annotation in ["description", "x-owner", "x-purpose", "x-key", "x-durability", "x-compatibility"] {
            assert!(schema[annotation].as_str().is_some_and(|text| !text.is_empty()), "{event_type}: {annotation}");
        }
        for (name, property) in schema["properties"].as_object().unwrap() {
            let sensitivity = property["x-sensitivity"].as_str().unwrap();
            let inline = property["x-inline"].as_str().unwrap();
            assert!(["public", "internal", "confidential", "personal", "secret"].contains(&sensitivity), "{name}");
            assert!(["inline", "permitted", "reference", "digest", "none"].contains(&inline), "{name}");
            assert!(sensitivity != "secret" || inline == "digest", "{event_type}: {name} would show a secret");
            let is_reference = property["$ref"] == "#/$defs/reference";
            assert_eq!(is_reference, ["permitted", "reference"].contains(&inline), "{event_type}: {name}");
            assert_eq!(event_type.contract().permits_inline(name), inline == "permitted", "{event_type}: {name}");
            assert!(!property["description"].as_str().unwrap().is_empty(), "{name}");
        }
        for example in schema["examples"].as_array().unwrap() {
            check(event_type, example);
            Body::from_value(event_type, example).unwrap();
        }
    }
}

/// A published contract never changes. A new one is a new file; then it is added here.
#[test]
fn published_contracts_are_as_they_were_published() {
    let published = include_str!("published.txt");
    let now: String = EventType::ALL
        .iter()
        .flat_map(|event_type| contracts(*event_type))
        .map(|contract| format!("{} {} {}\n", contract.name, contract.version, contract.guid))
        .collect();
    assert_eq!(now, published, "publish another version instead of changing one that may be in use");
}
