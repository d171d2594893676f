//! An event as a reader sees it, whatever wrote it.
//!
//! `cairn tail`, `cairn trail` and the recorder's own reading-back parse records into it. A reader is older or newer
//! than the writer: unknown types and keys are kept, and only what makes a record no event of Cairn's is an error.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{Body, BodyError, Common, EventType, Link, Producer, chain::link_parts, event_type::CE_TYPE_PREFIX};

/// An event read back.
#[derive(Clone, PartialEq, Debug)]
pub struct StoredEvent {
    /// `ce_id`.
    pub id: Uuid,
    /// `ce_type` without `io.cairn.`; maybe one that this reader does not know.
    pub type_name: String,
    /// `ce_source`.
    pub source: String,
    /// `ce_time`, RFC 3339.
    pub time: String,
    /// `ce_subject`.
    pub subject: Option<String>,
    /// `traceparent`.
    pub traceparent: Option<String>,
    /// `tracestate`.
    pub tracestate: Option<String>,
    /// The record's key.
    pub key: Bytes,
    /// What events share.
    pub common: Common,
    /// The reading of the hybrid logical clock.
    pub hlc: String,
    /// The place in its producer's chain.
    pub producer: Producer,
    /// Which contract it was written by.
    pub contract: ContractName,
    /// The whole value, with every key as it came.
    pub value: Value,
    /// The record's link, for its successor's `previous`.
    pub link: Link,
}

/// The contract that an event was written by.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct ContractName {
    /// The contract's name: the event type's.
    pub name: String,
    /// Its version.
    pub version: u32,
}

/// Why a record is no event.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    /// A header that every event has is missing or no UTF-8.
    #[error("the record has no readable header {header}: it is no event of Cairn's")]
    Header {
        /// The header.
        header: &'static str,
    },
    /// A header holds what it cannot.
    #[error("the record's header {header} holds {value:?}: it is no event of Cairn's")]
    HeaderValue {
        /// The header.
        header: &'static str,
        /// What it holds, its beginning.
        value: String,
    },
    /// The value is not the JSON object that events are.
    #[error("the record's value is no event: {source}")]
    Value {
        /// What is wrong.
        #[from]
        source: serde_json::Error,
    },
}

#[derive(Deserialize)]
struct Shared {
    #[serde(flatten)]
    common: Common,
    hlc: String,
    producer: Producer,
    contract: ContractName,
}

impl StoredEvent {
    /// Reads a record. Unknown event types, headers and keys are kept.
    ///
    /// # Errors
    /// A record without the headers or shared keys that every event has.
    pub fn parse(key: Bytes, headers: &[(String, Bytes)], value: &[u8]) -> Result<Self, StoredError> {
        let find = |name: &str| {
            let bytes = headers.iter().find(|(header, _)| header == name).map(|(_, bytes)| bytes)?;
            std::str::from_utf8(bytes).ok().map(ToOwned::to_owned)
        };
        let need = |header: &'static str| find(header).ok_or(StoredError::Header { header });
        let wrong =
            |header, value: String| StoredError::HeaderValue { header, value: value.chars().take(64).collect() };
        let id = need("ce_id")?;
        let id = Uuid::parse_str(&id).map_err(|_| wrong("ce_id", id))?;
        let ce_type = need("ce_type")?;
        let type_name = match ce_type.strip_prefix(CE_TYPE_PREFIX) {
            Some(name) => name.to_owned(),
            None => return Err(wrong("ce_type", ce_type)),
        };
        let parsed: Value = serde_json::from_slice(value)?;
        let shared = Shared::deserialize(&parsed)?;
        Ok(Self {
            id,
            type_name,
            source: need("ce_source")?,
            time: need("ce_time")?,
            subject: find("ce_subject"),
            traceparent: find("traceparent"),
            tracestate: find("tracestate"),
            link: link_parts(&key, value, headers.iter().map(|(name, bytes)| (name.as_str(), bytes.as_ref()))),
            key,
            common: shared.common,
            hlc: shared.hlc,
            producer: shared.producer,
            contract: shared.contract,
            value: parsed,
        })
    }

    /// The event's type, where this reader knows it.
    #[must_use]
    pub fn event_type(&self) -> Option<EventType> {
        EventType::named(&self.type_name)
    }

    /// The event's own keys; `None` for a type that this reader does not know.
    ///
    /// # Errors
    /// Keys that the type needs are missing or have another type.
    pub fn body(&self) -> Result<Option<Body>, BodyError> {
        self.event_type().map(|event_type| Body::from_value(event_type, &self.value)).transpose()
    }
}
