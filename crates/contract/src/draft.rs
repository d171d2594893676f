//! From a draft to the record that a topic holds.
//!
//! The gateway fills in what happened ([`Draft`]); whoever writes the event knows its place in the producer's chain
//! ([`Stamp`]). [`Draft::write`] makes the data of the one, [`Written::seal`] joins the other to it, [`Draft::seal`] does both. A sealed record is final: its bytes are what the chain links, so nothing may
//! change it afterwards.
//!
//! | header | value |
//! | --- | --- |
//! | `ce_specversion` | `1.0` |
//! | `ce_id` | the stamp's id, a hyphenated UUID |
//! | `ce_type` | `io.cairn.` and the event type's name |
//! | `ce_source` | the stamp's source |
//! | `ce_time` | RFC 3339, UTC, six digits of fraction |
//! | `ce_subject` | `<server>/<tool>`, where the draft has one |
//! | `ce_dataschema` | the contract's URI, which ends in its version |
//! | `content-type` | `application/json` |
//! | `traceparent`, `tracestate` | W3C, where the draft has them |
//! | `__value_schema_id` | byte 1, then the 16 bytes of the schema's GUID (Confluent's header form) |

use bytes::Bytes;
use cairn_clock::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{Body, Common, EventType, Fault, Topic, event_type::CE_TYPE_PREFIX, schema::validator};

/// Largest value of an event, in bytes. Payloads stand as references, so that a larger one is a mistake.
pub const EVENT_BYTES_MAX: usize = 900 * 1024;
/// Bytes that most events' data has, place included: one allocation is then enough.
const WRITTEN_BYTES: usize = 2 * 1024;
/// Bytes that place and headers add, about.
const PLACE_BYTES: usize = 1024;

/// An event before it has a place in a producer's chain.
#[derive(Clone, PartialEq, Debug)]
pub struct Draft {
    /// The record's key: what its topic is keyed by.
    pub key: String,
    /// `<server>/<tool>`, or the like.
    pub subject: Option<String>,
    /// W3C trace context of the event.
    pub traceparent: Option<String>,
    /// W3C vendor state, only where there is a `traceparent`.
    pub tracestate: Option<String>,
    /// What events share.
    pub common: Common,
    /// The event's own keys.
    pub body: Body,
}

/// An event's place: whose it is, where in the chain, and when.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// `ce_source`: who writes, as an URI reference such as `cairn://gateway/<id>`.
    pub source: String,
    /// The place in the producer's chain.
    pub producer: Producer,
    /// Hybrid logical clock, as [`crate::Hlc`] gives it.
    pub hlc: String,
    /// `ce_id`.
    pub id: Uuid,
    /// `ce_time`, and the record's timestamp.
    pub time: Timestamp,
}

/// A place in a producer's chain. There is one chain for each producer, epoch and topic-partition.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Producer {
    /// The gateway's durable id.
    pub id: String,
    /// Its epoch: one higher at each start.
    pub epoch: u64,
    /// From 0, without gaps, in each topic-partition.
    pub sequence: u64,
    /// The link of the event before, as 64 hexadecimal digits; at sequence 0, that of the last event of the epoch
    /// before. Absent in the very first event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
}

/// A record as its topic holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EventRecord {
    /// Which topic.
    pub topic: Topic,
    /// The record's key.
    pub key: Bytes,
    /// The record's headers, in order.
    pub headers: Vec<(String, Bytes)>,
    /// The event's data: a JSON object.
    pub value: Bytes,
    /// The record's timestamp, in milliseconds since 1970.
    pub timestamp_ms: i64,
}

/// Why a draft could not be sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A key that every event of the topic must have is missing.
    #[error("a {event} needs {key}, and it is missing: fill it in before recording")]
    Missing {
        /// The event's type.
        event: &'static str,
        /// The key.
        key: &'static str,
    },
    /// The event holds more than an event may.
    #[error("a {event} of {bytes} bytes is larger than {EVENT_BYTES_MAX}: refer to its payload instead of inlining it")]
    TooLarge {
        /// The event's type.
        event: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// The event breaks its contract.
    #[error("a {event} breaks version {version} of its contract: {}", list(faults))]
    Contract {
        /// The event's type.
        event: &'static str,
        /// The contract's version.
        version: u32,
        /// How, with places and without values.
        faults: Vec<Fault>,
        /// What was to be recorded.
        refused: Box<Refused>,
    },
    /// A header would not survive: it holds control characters.
    #[error("the header {header} of a {event} holds control characters: clean it before recording")]
    Header {
        /// The event's type.
        event: &'static str,
        /// The header.
        header: &'static str,
    },
    /// The event could not be written as JSON.
    #[error("a {event} could not be written as JSON: {source}")]
    Json {
        /// The event's type.
        event: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// An event that broke its contract: whole, to be kept where only whoever may read payloads sees it.
#[derive(Clone, PartialEq)]
pub struct Refused {
    /// What events share.
    pub common: Common,
    /// Key, headers and data as JSON.
    pub whole: Vec<u8>,
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refused").field("bytes", &self.whole.len()).finish_non_exhaustive()
    }
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// A draft whose data is written, but for its place in the chain. Whoever queues events writes them first: their size is
/// then known, and the one task that seals has little left to do.
#[derive(Clone, PartialEq, Debug)]
pub struct Written {
    event_type: EventType,
    key: String,
    subject: Option<String>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    /// A JSON object without its closing brace.
    data: Vec<u8>,
}

/// What a draft says by itself.
#[derive(Serialize)]
struct Data<'a> {
    #[serde(flatten)]
    common: &'a Common,
    #[serde(flatten)]
    body: &'a Body,
}

/// What its place adds, behind that.
#[derive(Serialize)]
struct Place<'a> {
    hlc: &'a str,
    producer: &'a Producer,
    contract: ContractKey,
}

#[derive(Serialize)]
struct ContractKey {
    name: &'static str,
    version: u32,
}

impl Draft {
    /// Writes everything that does not depend on the place in the chain.
    ///
    /// # Errors
    /// A `call.*` without what each of them carries, an event larger than [`EVENT_BYTES_MAX`], or one that breaks its contract.
    pub fn write(self) -> Result<Written, SealError> {
        let event_type = self.body.event_type();
        let event = event_type.name();
        self.check_keys(event)?;
        let mut data = Vec::with_capacity(WRITTEN_BYTES);
        let shared = Data { common: &self.common, body: &self.body };
        serde_json::to_writer(&mut data, &shared).map_err(|source| SealError::Json { event, source })?;
        check_size(event, data.len())?;
        self.hold(event_type, &data)?;
        data.pop();
        let Self { key, subject, traceparent, tracestate, .. } = self;
        Ok(Written { event_type, key, subject, traceparent, tracestate, data })
    }

    /// Makes the record: value, headers, key and timestamp.
    ///
    /// # Errors
    /// As [`Draft::write`] and [`Written::seal`].
    pub fn seal(self, stamp: &Stamp) -> Result<EventRecord, SealError> {
        self.write()?.seal(stamp)
    }

    /// Holds the data to the newest contract.
    fn hold(&self, event_type: EventType, data: &[u8]) -> Result<(), SealError> {
        let event = event_type.name();
        let value: Value = serde_json::from_slice(data).map_err(|source| SealError::Json { event, source })?;
        let faults = validator(event_type).faults_of_draft(&value);
        if faults.is_empty() {
            return Ok(());
        }
        let Self { key, subject, traceparent, tracestate, common, .. } = self;
        let whole = json!({
            "type": event, "key": key, "subject": subject, "traceparent": traceparent, "tracestate": tracestate, "data": value,
        });
        let refused = Refused { common: common.clone(), whole: whole.to_string().into_bytes() };
        let version = event_type.contract().version;
        Err(SealError::Contract { event, version, faults, refused: Box::new(refused) })
    }

    fn check_keys(&self, event: &'static str) -> Result<(), SealError> {
        let missing = |key| Err(SealError::Missing { event, key });
        if self.key.is_empty() {
            return missing("key");
        }
        if self.body.event_type().topic() != Topic::Calls {
            return Ok(());
        }
        let common = &self.common;
        match () {
            () if common.workflow_id.is_empty() => missing("workflow_id"),
            () if common.call_id.is_none() => missing("call_id"),
            () if common.trace_id.is_none() => missing("trace_id"),
            () if common.principal.is_none() => missing("principal"),
            () if common.server.is_none() => missing("server"),
            () if common.era.is_none() => missing("era"),
            () if common.mcp_method_name.is_none() => missing("mcp_method_name"),
            () => Ok(()),
        }
    }
}

impl Written {
    /// About how many bytes the record will have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.len() + PLACE_BYTES + 2 * self.key.len()
    }

    /// Makes the record: value, headers, key and timestamp.
    ///
    /// # Errors
    /// An event larger than [`EVENT_BYTES_MAX`], or a header with control characters.
    pub fn seal(self, stamp: &Stamp) -> Result<EventRecord, SealError> {
        let Self { event_type, key, subject, traceparent, tracestate, data: mut value } = self;
        let event = event_type.name();
        let contract = event_type.contract();
        let place = Place {
            hlc: &stamp.hlc,
            producer: &stamp.producer,
            contract: ContractKey { name: contract.name, version: contract.version },
        };
        let joint = value.len();
        serde_json::to_writer(&mut value, &place).map_err(|source| SealError::Json { event, source })?;
        // The place's own opening brace becomes the comma between the two parts, where the first has any members.
        if joint > 1 {
            value[joint] = b',';
        } else {
            value.remove(0);
        }
        check_size(event, value.len())?;
        let mut headers = Headers { event, list: Vec::with_capacity(12) };
        headers.list.push(("ce_specversion".to_owned(), Bytes::from_static(b"1.0")));
        headers.text("ce_id", stamp.id.to_string())?;
        headers.text("ce_type", format!("{CE_TYPE_PREFIX}{event}"))?;
        headers.text("ce_source", stamp.source.clone())?;
        headers.text("ce_time", stamp.time.to_string())?;
        if let Some(subject) = subject {
            headers.text("ce_subject", subject)?;
        }
        headers.text("ce_dataschema", contract.uri())?;
        headers.list.push(("content-type".to_owned(), Bytes::from_static(b"application/json")));
        if let Some(traceparent) = traceparent {
            headers.text("traceparent", traceparent)?;
            if let Some(tracestate) = tracestate {
                headers.text("tracestate", tracestate)?;
            }
        }
        headers.list.push(("__value_schema_id".to_owned(), contract.schema_id_header()));
        Ok(EventRecord {
            topic: event_type.topic(),
            key: Bytes::from(key),
            headers: headers.list,
            value: Bytes::from(value),
            timestamp_ms: stamp.time.as_millis(),
        })
    }
}

const fn check_size(event: &'static str, bytes: usize) -> Result<(), SealError> {
    if bytes > EVENT_BYTES_MAX { Err(SealError::TooLarge { event, bytes }) } else { Ok(()) }
}

struct Headers {
    event: &'static str,
    list: Vec<(String, Bytes)>,
}

impl Headers {
    fn text(&mut self, header: &'static str, value: String) -> Result<(), SealError> {
        if value.chars().any(char::is_control) {
            return Err(SealError::Header { event: self.event, header });
        }
        self.list.push((header.to_owned(), Bytes::from(value)));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
