//! DescribeClientQuotas and AlterClientQuotas (KIP-546): who may send and be sent how much.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
        alter_client_quotas_request::{EntryData, OpData},
        alter_client_quotas_response::{EntityData as AlteredEntity, EntryData as AlteredEntry},
        describe_client_quotas_request::ComponentData,
        describe_client_quotas_response::{EntityData, EntryData as DescribedEntry, ValueData},
    },
};

use super::{reason, text};
use crate::{
    broker::Broker,
    quotas::{CLIENT_ID, Entity, QuotaError, RECEIVED, REQUESTS, SENT, USER},
};

/// How DescribeClientQuotas names whom it asks about, as Kafka numbers it.
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;
/// Addresses: Kafka has quotas of their connections, and there are none here.
const IP: &str = "ip";
/// The longest name that a quota may be for.
const NAME_BYTES_MAX: usize = 1_000;

type Refusal = (ResponseError, String);

fn invalid(why: impl Into<String>) -> Refusal {
    (ResponseError::InvalidRequest, why.into())
}

pub(super) async fn describe(broker: &Broker, request: DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    let response = DescribeClientQuotasResponse::default();
    let asked = match check(&request.components) {
        Ok(asked) => asked,
        Err((code, why)) => {
            return response.with_error_code(code.code()).with_error_message(Some(reason(why))).with_entries(None);
        }
    };
    let fits = |entity: &Entity| {
        (!request.strict || entity.len() == asked.len())
            && asked.iter().all(|(kind, component)| {
                entity.get(*kind).is_some_and(|name| match component.match_type {
                    ANY => true,
                    DEFAULT => name.is_none(),
                    _ => name.as_deref() == component._match.as_deref(),
                })
            })
    };
    let all = broker.inner.quotas.all();
    let entries = all.iter().filter(|(entity, _)| fits(entity)).map(|(entity, values)| {
        let entity = entity.iter().map(|(kind, name)| {
            let name = name.as_ref().map(text);
            EntityData::default().with_entity_type(text(kind)).with_entity_name(name)
        });
        let values = values.iter().map(|(key, value)| ValueData::default().with_key(text(key)).with_value(*value));
        DescribedEntry::default().with_entity(entity.collect()).with_values(values.collect())
    });
    response.with_error_message(None).with_entries(Some(entries.collect()))
}

/// The kinds of name that are asked about, each once.
fn check(components: &[ComponentData]) -> Result<BTreeMap<&str, &ComponentData>, Refusal> {
    let mut asked = BTreeMap::new();
    for component in components {
        let kind = component.entity_type.as_str();
        if ![USER, CLIENT_ID, IP].contains(&kind) {
            let why = format!("there are no quotas for `{kind}`: ask about `{USER}` or `{CLIENT_ID}`");
            return Err((ResponseError::UnsupportedVersion, why));
        }
        match (component.match_type, &component._match) {
            (EXACT, Some(_)) | (DEFAULT | ANY, None) => {}
            (EXACT..=ANY, _) => return Err(invalid("an exact match names somebody, and no other does")),
            (other, _) => return Err(invalid(format!("{other} is no way to match a name"))),
        }
        if asked.insert(kind, component).is_some() {
            return Err(invalid(format!("`{kind}` is asked about twice")));
        }
    }
    if asked.contains_key(IP) && asked.len() > 1 {
        return Err(invalid("an address is asked about alone"));
    }
    Ok(asked)
}

pub(super) async fn alter(broker: &Broker, request: AlterClientQuotasRequest) -> AlterClientQuotasResponse {
    let check_only = request.validate_only;
    let mut entries = Vec::new();
    for entry in request.entries {
        let done = match read(&entry) {
            Ok((entity, changes)) => {
                let changed = broker.inner.quotas.change(&broker.inner.topics, entity, &changes, check_only).await;
                changed.map_err(|error| {
                    let code = match error {
                        QuotaError::TooMany => ResponseError::PolicyViolation,
                        QuotaError::Record { .. } | QuotaError::Catalogue(_) => ResponseError::KafkaStorageError,
                    };
                    (code, error.to_string())
                })
            }
            Err(refusal) => Err(refusal),
        };
        let entity = entry
            .entity
            .into_iter()
            .map(|part| AlteredEntity::default().with_entity_type(part.entity_type).with_entity_name(part.entity_name));
        let answer = AlteredEntry::default().with_entity(entity.collect());
        entries.push(match done {
            Ok(()) => answer.with_error_message(None),
            Err((code, why)) => answer.with_error_code(code.code()).with_error_message(Some(reason(why))),
        });
    }
    AlterClientQuotasResponse::default().with_entries(entries)
}

type Changes = Vec<(String, Option<f64>)>;

/// Whom an entry is for, and what it changes.
fn read(entry: &EntryData) -> Result<(Entity, Changes), Refusal> {
    let mut entity = Entity::new();
    for part in &entry.entity {
        let (kind, name) = (part.entity_type.as_str(), part.entity_name.as_ref().map(ToString::to_string));
        if ![USER, CLIENT_ID].contains(&kind) {
            return Err(invalid(format!(
                "there are no quotas for `{kind}`: name a `{USER}`, a `{CLIENT_ID}`, or both"
            )));
        }
        if name.as_ref().is_some_and(|name| name.is_empty() || name.len() > NAME_BYTES_MAX) {
            return Err(invalid(format!("the name of a `{kind}` has 1 to {NAME_BYTES_MAX} bytes here")));
        }
        if entity.insert(kind.to_owned(), name).is_some() {
            return Err(invalid(format!("`{kind}` is named twice")));
        }
    }
    if entity.is_empty() {
        return Err(invalid(format!("name a `{USER}`, a `{CLIENT_ID}`, or both")));
    }
    let mut named = BTreeSet::new();
    let changes = entry.ops.iter().map(|op| {
        if named.insert(op.key.as_str()) {
            change(op)
        } else {
            Err(invalid(format!("`{}` is changed twice", &*op.key)))
        }
    });
    Ok((entity, changes.collect::<Result<_, _>>()?))
}

fn change(op: &OpData) -> Result<(String, Option<f64>), Refusal> {
    let (key, value) = (op.key.to_string(), op.value);
    let right = match key.as_str() {
        SENT | RECEIVED => value >= 1.0 && value.fract() == 0.0 && value <= i64::MAX as f64,
        REQUESTS => value > 0.0 && value.is_finite(),
        _ => {
            let why = format!("`{key}` is no quota here: there are `{SENT}`, `{RECEIVED}` and `{REQUESTS}`");
            return Err(invalid(why));
        }
    };
    if op.remove {
        return Ok((key, None));
    }
    if right { Ok((key, Some(value))) } else { Err(invalid(format!("`{key}` cannot be {value}"))) }
}
