//! The contracts: each event type's JSON Schema, embedded, with its version and GUID.
//!
//! The files under `contracts/` are the contracts; this crate's tests hold the Rust types to them. A contract that is
//! published never changes: a new one gets the next version.

use std::sync::LazyLock;

use bytes::Bytes;
use md5::{Digest, Md5};
use uuid::Uuid;

use crate::EventType;

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
    fn new(event_type: EventType, schema: &'static str) -> Self {
        Self { name: event_type.name(), version: 1, schema, guid: guid(schema) }
    }

    /// The URI in `ce_dataschema`, which is the schema's `$id`.
    #[must_use]
    pub fn uri(&self) -> String {
        format!("https://cairn.io/contracts/{}/v{}.json", self.name, self.version)
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

fn guid(schema: &str) -> Uuid {
    Uuid::from_bytes(Md5::digest(schema.as_bytes()).into())
}

static CONTRACTS: LazyLock<[Contract; EventType::ALL.len()]> =
    LazyLock::new(|| EventType::ALL.map(|event_type| Contract::new(event_type, text(event_type))));

/// The newest contract of an event type.
#[must_use]
pub fn contract(event_type: EventType) -> &'static Contract {
    &CONTRACTS[event_type as usize]
}

const fn text(event_type: EventType) -> &'static str {
    macro_rules! file {
        ($name:literal) => {
            include_str!(concat!("../../../contracts/", $name, "/v1.json"))
        };
    }
    match event_type {
        EventType::CallDecision => file!("call.decision"),
        EventType::CallApproval => file!("call.approval"),
        EventType::CallIntent => file!("call.intent"),
        EventType::CallOutcome => file!("call.outcome"),
        EventType::CallAnswered => file!("call.answered"),
        EventType::CallLate => file!("call.late"),
        EventType::CallSettled => file!("call.settled"),
        EventType::NoticePassed => file!("notice.passed"),
        EventType::ContextRead => file!("context.read"),
        EventType::ContextChanged => file!("context.changed"),
        EventType::ContextListed => file!("context.listed"),
        EventType::ContextPrompt => file!("context.prompt"),
        EventType::SessionOpened => file!("session.opened"),
        EventType::SessionClosed => file!("session.closed"),
        EventType::CatalogDefined => file!("catalog.defined"),
        EventType::CatalogChanged => file!("catalog.changed"),
        EventType::PolicyLoaded => file!("policy.loaded"),
        EventType::PolicyActivated => file!("policy.activated"),
        EventType::PolicyRejected => file!("policy.rejected"),
    }
}
