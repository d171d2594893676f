//! The contracts: each event type's JSON Schema, embedded, with its version and GUID.
//!
//! The files under `contracts/` are the contracts; this crate's tests hold the Rust types to them. A contract that is
//! published never changes: a new one gets the next version.

use std::sync::{LazyLock, OnceLock};

use bytes::Bytes;
use md5::{Digest, Md5};
use uuid::Uuid;

use crate::{EventType, Validator};

/// A published contract.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Contract {
    /// The event type's name.
    pub name: &'static str,
    /// The version, from 1.
    pub version: u32,
    /// The JSON Schema as published, byte for byte.
    pub schema: &'static str,
    /// The schema's GUID, computed from its text.
    pub guid: Uuid,
}

impl Contract {
    fn new(event_type: EventType, version: u32, schema: &'static str) -> Self {
        Self { name: event_type.name(), version, schema, guid: guid(schema) }
    }

    /// The URI in `ce_dataschema`, which is the schema's `$id`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("urn:cairn:contracts/{}/v{}.json", self.name, self.version)
    }

    /// Whether the payload that this key's reference stands for may stand in the event itself.
    #[must_use]
    pub fn permits_inline(&self, key: &str) -> bool {
        let parsed: serde_json::Value =
            serde_json::from_str(self.schema).expect("the tests parse every embedded contract");
        parsed["properties"][key]["x-inline"] == "permitted"
    }

    /// The value of the record header `__value_schema_id`: byte 1, then the 16 bytes of the GUID.
    #[must_use]
    pub fn schema_id_header(&self) -> Bytes {
        let mut header = Vec::with_capacity(17);
        header.push(1);
        header.extend_from_slice(self.guid.as_bytes());
        Bytes::from(header)
    }
}

/// Confluent's rule for a schema without references, metadata and rules: the MD5 of its canonical text, read as a UUID
/// as it is, with no version bits set. For JSON Schema that text is the schema without white space between tokens, its
/// members in the order in which they were written.
fn guid(schema: &str) -> Uuid {
    let parsed: serde_json::Value = serde_json::from_str(schema).expect("the tests parse every embedded contract");
    Uuid::from_bytes(Md5::digest(parsed.to_string()).into())
}

static CONTRACTS: OnceLock<[Vec<Contract>; EventType::ALL.len()]> = OnceLock::new();

/// The newest contract of each type at work.
static VALIDATORS: LazyLock<[Validator; EventType::ALL.len()]> = LazyLock::new(|| {
    EventType::ALL.map(|event_type| {
        let schema = serde_json::from_str(contract(event_type).schema).expect("contracts are JSON");
        Validator::compile(&schema).expect("the tests compile every embedded contract, and `add_contracts` every other")
    })
});

/// The contracts of an event type that come with this version, oldest first.
#[must_use]
pub fn embedded(event_type: EventType) -> Vec<Contract> {
    (1..).zip(texts(event_type)).map(|(version, schema)| Contract::new(event_type, version, schema)).collect()
}

/// Every published contract of an event type, oldest first.
#[must_use]
pub fn contracts(event_type: EventType) -> &'static [Contract] {
    &CONTRACTS.get_or_init(|| EventType::ALL.map(embedded))[event_type as usize]
}

/// Why a contract cannot be added.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AddError {
    /// Events were written before.
    #[error("contracts are in use already: they are added before anything is recorded")]
    InUse,
    /// Versions are missing in between.
    #[error("{event} has versions up to {newest}: the next one is {next}, not {given}", next = newest + 1)]
    Version {
        /// The event type.
        event: &'static str,
        /// The newest that there is.
        newest: u32,
        /// The one that was given.
        given: u32,
    },
    /// The schema is not one that producers can enforce.
    #[error("{event} v{version}: {what}")]
    Schema {
        /// The event type.
        event: &'static str,
        /// The version.
        version: u32,
        /// What is wrong.
        what: String,
    },
}

/// Adds newer contracts to those that come with this version, before the first event is written: from then on producers hold
/// events to them. Each is its event type, its version and its text, in order of version.
///
/// # Errors
/// [`AddError`]: then none is added.
pub fn add_contracts(more: &[(EventType, u32, String)]) -> Result<(), AddError> {
    let mut all = EventType::ALL.map(embedded);
    for (event_type, version, text) in more {
        let (event, version) = (event_type.name(), *version);
        let known = &mut all[*event_type as usize];
        let newest = known.len() as u32;
        if version != newest + 1 {
            return Err(AddError::Version { event, newest, given: version });
        }
        let wrong = |what: String| AddError::Schema { event, version, what };
        let schema = serde_json::from_str(text).map_err(|error| wrong(format!("is no JSON: {error}")))?;
        Validator::compile(&schema).map_err(|error| wrong(error.to_string()))?;
        // It stays as long as the process does: one for each file, at the start.
        known.push(Contract::new(*event_type, version, Box::leak(text.clone().into_boxed_str())));
    }
    CONTRACTS.set(all).map_err(|_| AddError::InUse)
}

/// The newest contract of an event type, as producers enforce it.
pub(crate) fn validator(event_type: EventType) -> &'static Validator {
    &VALIDATORS[event_type as usize]
}

/// The newest contract of an event type.
#[must_use]
pub fn contract(event_type: EventType) -> &'static Contract {
    contracts(event_type).last().expect("every event type has a contract")
}

/// The schemas of an event type, the first one first.
const fn texts(event_type: EventType) -> &'static [&'static str] {
    macro_rules! files {
        ($name:literal, $($version:literal),+) => {
            &[$(include_str!(concat!("../../../contracts/", $name, "/v", $version, ".json"))),+]
        };
    }
    match event_type {
        EventType::CallDecision => files!("call.decision", 1, 2, 3, 4),
        EventType::CallApproval => files!("call.approval", 1, 2),
        EventType::CallIntent => files!("call.intent", 1, 2),
        EventType::CallOutcome => files!("call.outcome", 1, 2),
        EventType::CallAnswered => files!("call.answered", 1, 2),
        EventType::CallLate => files!("call.late", 1, 2),
        EventType::CallSettled => files!("call.settled", 1, 2),
        EventType::NoticePassed => files!("notice.passed", 1, 2),
        EventType::ContextRead => files!("context.read", 1, 2),
        EventType::ContextChanged => files!("context.changed", 1, 2),
        EventType::ContextListed => files!("context.listed", 1, 2),
        EventType::ContextPrompt => files!("context.prompt", 1, 2),
        EventType::SessionOpened => files!("session.opened", 1, 2),
        EventType::SessionClosed => files!("session.closed", 1, 2),
        EventType::CatalogDefined => files!("catalog.defined", 1, 2),
        EventType::CatalogChanged => files!("catalog.changed", 1, 2),
        EventType::CatalogApproved => files!("catalog.approved", 1),
        EventType::PolicyLoaded => files!("policy.loaded", 1, 2),
        EventType::PolicyActivated => files!("policy.activated", 1, 2, 3),
        EventType::PolicyRejected => files!("policy.rejected", 1, 2),
        EventType::AccessRefused => files!("access.refused", 1),
        EventType::AlertRaised => files!("alert.raised", 1),
        EventType::LimitExceeded => files!("limit.exceeded", 1),
        EventType::PolicyShadowed => files!("policy.shadowed", 1),
        EventType::EvidenceCheckpoint => files!("evidence.checkpoint", 1),
        EventType::EvidenceRotated => files!("evidence.rotated", 1),
        EventType::EvidenceProducer => files!("evidence.producer", 1),
        EventType::VaultRead => files!("vault.read", 1),
        EventType::SubjectErased => files!("subject.erased", 1),
        EventType::SubjectHeld => files!("subject.held", 1),
        EventType::SubjectReleased => files!("subject.released", 1),
        EventType::OperatorActed => files!("operator.acted", 1),
        EventType::EventRejected => files!("event.rejected", 1),
        EventType::ConsumerMoved => files!("consumer.moved", 1),
        EventType::ReplayStarted => files!("replay.started", 1),
        EventType::ReplayEnded => files!("replay.ended", 1),
        EventType::ModelCalled => files!("model.called", 1),
        EventType::ActionReported => files!("action.reported", 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_the_md5_of_the_text_without_layout() {
        let expected = Uuid::from_bytes(Md5::digest(b"{\"type\":\"object\"}").into());
        assert_eq!(guid("{\n  \"type\": \"object\"\n}\n"), expected);
        assert_eq!(expected.to_string().replace('-', ""), hex::encode(Md5::digest(b"{\"type\":\"object\"}")));
        assert_ne!(guid("{\"type\":\"array\"}"), expected);
    }

    #[test]
    fn the_header_is_byte_one_and_the_guid() {
        let contract = contract(EventType::CallIntent);
        let header = contract.schema_id_header();
        assert_eq!((header.len(), header[0], &header[1..]), (17, 1, contract.guid.as_bytes().as_slice()));
    }

    #[test]
    fn every_type_has_its_own_contract() {
        let guids: std::collections::BTreeSet<Uuid> = EventType::ALL.iter().map(|t| contract(*t).guid).collect();
        assert_eq!(guids.len(), EventType::ALL.len());
        for event_type in EventType::ALL {
            assert_eq!(contract(event_type).name, event_type.name());
        }
    }
}
