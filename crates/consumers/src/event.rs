//! A record as a consumer takes it: an event of Cairn's, by whichever version of its contract it was written.
//!
//! What makes a record no event is decided here, once for all consumers: headers without which nobody knows what it is, or a value
//! that is no JSON object. An event of a type or version that is newer than this program is an event: it is kept and passed on,
//! with those of the known keys that have the form that they always had.

use bytes::Bytes;
use cairn_backbone::records::RawRecord;
use cairn_clock::Timestamp;
use cairn_contract::{ContractName, EventType};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

const TYPE_PREFIX: &str = "io.cairn.";

/// How the event's contract stands to those that this program knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Standing {
    /// The newest version that is known.
    Current,
    /// An older one.
    Prior,
    /// A newer version of a known type.
    Newer,
    /// A type that is not known.
    Unknown,
}

/// An event.
#[derive(Clone, PartialEq, Debug)]
pub struct Event {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The record's key.
    pub key: Option<Bytes>,
    /// `ce_id`.
    pub id: Uuid,
    /// `ce_type` without `io.cairn.`.
    pub type_name: String,
    /// `ce_source`.
    pub source: String,
    /// `ce_subject`.
    pub subject: Option<String>,
    /// `ce_time`, as it was written.
    pub time: String,
    /// The same as a time.
    pub at: Timestamp,
    /// Which contract it was written by.
    pub contract: ContractName,
    /// How that stands to those that are known.
    pub standing: Standing,
    /// The keys that consumers look at.
    pub fields: Fields,
    /// The whole value as it came: a JSON object.
    pub value: String,
}

/// Keys of events that consumers look at; absent where the event has none, or none of that form.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "each is the event's key of that name, which its contract describes")]
pub struct Fields {
    pub workflow_id: Option<String>,
    pub call_id: Option<String>,
    pub causation_id: Option<String>,
    pub operation_id: Option<String>,
    pub task: Option<String>,
    pub direction: Option<String>,
    pub trace_id: Option<String>,
    pub tenant: Option<String>,
    pub principal: Option<String>,
    pub agent: Option<String>,
    pub agent_name: Option<String>,
    pub server: Option<String>,
    pub mcp_method_name: Option<String>,
    pub gen_ai_tool_name: Option<String>,
    pub mcp_resource_uri: Option<String>,
    pub prompt_name: Option<String>,
    pub decision: Option<String>,
    pub policy_version: Option<String>,
    pub outcome: Option<String>,
    pub effect: Option<String>,
    pub error_type: Option<String>,
    pub elapsed_us: Option<u64>,
    pub state: Option<String>,
    pub approval_id: Option<String>,
    pub approver: Option<String>,
    pub operator: Option<String>,
    pub act: Option<String>,
    pub reason: Option<String>,
    pub subject: Option<String>,
    pub hlc: Option<String>,
    pub version: Option<String>,
    pub cause: Option<String>,
    pub asked_at: Option<String>,
    contract: Option<ContractName>,
}

impl Fields {
    /// Key by key from an object in which some may have another form than this program knows.
    fn lenient(value: &Value) -> Self {
        let mut kept = serde_json::Map::new();
        for (key, value) in value.as_object().into_iter().flatten() {
            let alone = serde_json::Map::from_iter([(key.clone(), value.clone())]);
            if Self::deserialize(Value::Object(alone)).is_ok() {
                kept.insert(key.clone(), value.clone());
            }
        }
        Self::deserialize(Value::Object(kept)).unwrap_or_default()
    }
}

impl Event {
    /// Reads a record.
    ///
    /// # Errors
    /// Why it is no event, without anything of what it holds: a record that is none may hold anything.
    pub fn read(record: RawRecord) -> Result<Self, String> {
        let RawRecord { topic, partition, offset, timestamp_ms: _, key, headers, value } = record;
        let find = |name: &str| {
            let (_, bytes) = headers.iter().find(|(header, _)| header == name)?;
            std::str::from_utf8(bytes).ok()
        };
        let need = |name: &str| find(name).ok_or_else(|| format!("it has no readable header {name}"));
        let id = Uuid::parse_str(need("ce_id")?).map_err(|_| "its header ce_id is no UUID".to_owned())?;
        let type_name = need("ce_type")?
            .strip_prefix(TYPE_PREFIX)
            .ok_or_else(|| format!("its header ce_type does not begin with {TYPE_PREFIX}"))?
            .to_owned();
        let time = need("ce_time")?.to_owned();
        let at = time.parse::<Timestamp>().map_err(|_| "its header ce_time is no time".to_owned())?;
        let source = need("ce_source")?.to_owned();
        let subject = find("ce_subject").map(str::to_owned);
        let value = value.ok_or("it has no value")?;
        let value = std::str::from_utf8(&value).map_err(|_| "its value is no UTF-8".to_owned())?.to_owned();
        let mut fields = match serde_json::from_str::<Fields>(&value) {
            // A list would be read as the fields in their order.
            Ok(fields) if value.trim_start().starts_with('{') => fields,
            Ok(_) => return Err("its value is no JSON object".to_owned()),
            Err(_) => {
                let parsed: Value = serde_json::from_str(&value).map_err(|error| {
                    format!("its value is no JSON: line {} column {}", error.line(), error.column())
                })?;
                if !parsed.is_object() {
                    return Err("its value is no JSON object".to_owned());
                }
                Fields::lenient(&parsed)
            }
        };
        let contract = fields.contract.take().ok_or("its value does not say which contract it follows")?;
        let standing = standing(&type_name, contract.version);
        Ok(Self {
            topic,
            partition,
            offset,
            key,
            id,
            type_name,
            source,
            subject,
            time,
            at,
            contract,
            standing,
            fields,
            value,
        })
    }

    /// The bytes that it takes in memory, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        // Headers and fields are copies of parts of the value, or as short as those.
        512 + self.value.len() * 2
    }
}

fn standing(type_name: &str, version: u32) -> Standing {
    let Some(event_type) = EventType::named(type_name) else { return Standing::Unknown };
    match version.cmp(&event_type.contract().version) {
        std::cmp::Ordering::Less => Standing::Prior,
        std::cmp::Ordering::Equal => Standing::Current,
        std::cmp::Ordering::Greater => Standing::Newer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn record(type_name: &str, value: &str) -> RawRecord {
        let headers = [
            ("ce_id", "01996b5e-7c00-7000-8000-000000000001"),
            ("ce_type", &format!("io.cairn.{type_name}")),
            ("ce_source", "cairn://gateway/gw-1"),
            ("ce_time", "2026-11-24T09:00:00.000000Z"),
        ];
        let owned = headers.map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value.as_bytes())));
        RawRecord {
            topic: "mcp.calls".to_owned(),
            partition: 3,
            offset: 7,
            timestamp_ms: 1,
            key: None,
            headers: owned.to_vec(),
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
        }
    }

    #[test]
    fn every_published_version_of_every_contract_is_read() {
        for event_type in EventType::ALL {
            for contract in cairn_contract::contracts(event_type) {
                let schema: Value = serde_json::from_str(contract.schema).expect("a schema");
                for example in schema["examples"].as_array().expect("examples") {
                    let event = Event::read(record(event_type.name(), &example.to_string())).expect("an event");
                    let expected = if contract.version == event_type.contract().version {
                        Standing::Current
                    } else {
                        Standing::Prior
                    };
                    assert_eq!((event.standing, event.contract.version), (expected, contract.version));
                    assert_eq!(event.fields.workflow_id.as_deref(), example["workflow_id"].as_str());
                }
            }
        }
    }

    #[test]
    fn what_is_newer_is_kept_even_where_a_known_key_has_another_form() {
        let value = r#"{"workflow_id":"w","decision":{"effect":"permit"},"outcome":"held","contract":{"name":"call.decision","version":99}}"#;
        let event = Event::read(record("call.decision", value)).expect("an event");
        assert_eq!(event.standing, Standing::Newer);
        assert_eq!((event.fields.workflow_id.as_deref(), event.fields.decision.as_deref()), (Some("w"), None));
        assert_eq!((event.fields.outcome.as_deref(), event.value.as_str()), (Some("held"), value));
        let unknown = r#"{"contract":{"name":"a.thing","version":1}}"#;
        assert_eq!(Event::read(record("a.thing", unknown)).expect("an event").standing, Standing::Unknown);
    }

    #[test]
    fn what_is_no_event_is_refused_without_a_word_of_what_it_holds() {
        let contract = r#""contract":{"name":"call.intent","version":1}"#;
        for (value, why) in [
            ("{\"a\": s3cret", "no JSON"),
            ("\"s3cret\"", "no JSON object"),
            ("[1]", "no JSON object"),
            ("{\"s3cret\":1}", "contract"),
            (&format!("{{{contract},\"s3cret\""), "no JSON"),
        ] {
            let said = Event::read(record("call.intent", value)).expect_err("no event");
            assert!(said.contains(why) && !said.contains("s3cret"), "{value}: {said}");
        }
        let mut headless = record("call.intent", &format!("{{{contract}}}"));
        assert!(Event::read(headless.clone()).is_ok());
        headless.headers.retain(|(name, _)| name != "ce_id");
        assert!(Event::read(headless).expect_err("no event").contains("ce_id"));
    }
}
