//! The records of `_schemas`, as Confluent's and Karapace's registries write them: JSON keys and JSON values.
//!
//! | key | value |
//! | --- | --- |
//! | `{"keytype":"SCHEMA","subject":…,"version":…,"magic":1}` | the schema with subject, version, id, `md5`, `deleted`; none: gone |
//! | `{"keytype":"DELETE_SUBJECT","subject":…,"magic":0}` | `{"subject":…,"version":…}`: all up to that version are soft-deleted |
//! | `{"keytype":"CLEAR_SUBJECT","subject":…,"magic":0}` | `{"subject":…}`: what was soft-deleted of it is gone |
//! | `{"keytype":"CONFIG","subject":…,"magic":0}` | a configuration; none: the wider one counts |
//! | `{"keytype":"MODE","subject":…,"magic":0}` | `{"subject":…,"mode":…}` |
//! | `{"keytype":"CONTEXT","tenant":"default","context":…,"magic":0}` | `{"tenant":"default","context":…}` |
//! | `{"keytype":"NOOP","magic":0}` | `{"magic":0}`, so that compaction keeps the last one with its headers; others pass it over |
//!
//! A subject is left out of the key where the configuration or mode is everybody's. Members that this reader does not know
//! are passed over; a record that is no JSON, or of a key type that it does not know, is kept out and counted.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

use crate::{
    Subject,
    digest::Digest,
    model::{Config, Content, Mode},
};

const TENANT: &str = "default";

/// What a record is about. Two records with equal keys supersede each other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Key {
    Schema { subject: Subject, version: u32 },
    DeleteSubject { subject: Subject },
    ClearSubject { subject: Subject },
    Config { subject: Option<Subject> },
    Mode { subject: Option<Subject> },
    Context { context: String },
    Noop,
}

/// A registered version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SchemaValue {
    pub(crate) subject: Subject,
    pub(crate) version: u32,
    pub(crate) id: u32,
    pub(crate) digest: Digest,
    pub(crate) content: Content,
    pub(crate) deleted: bool,
    /// When the record was written, in milliseconds since 1970; the log says it, not the record.
    pub(crate) written_ms: Option<i64>,
}

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Record {
    Schema(Box<SchemaValue>),
    SchemaGone { subject: Subject, version: u32 },
    DeleteSubject { subject: Subject, version: u32 },
    ClearSubject { subject: Subject },
    Config { subject: Option<Subject>, config: Option<Box<Config>> },
    Mode { subject: Option<Subject>, mode: Option<Mode> },
    Context { context: String, present: bool },
    Noop,
}

/// Why a record means nothing here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("it is not the JSON of a registry's record: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it lacks {0}")]
    Lacks(&'static str),
    #[error("its key type is {0:?}")]
    KeyType(String),
}

#[derive(Serialize, Deserialize)]
struct RawKey {
    keytype: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
    #[serde(default)]
    magic: u8,
}

#[derive(Serialize, Deserialize)]
struct RawSchema {
    subject: String,
    version: u32,
    id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    md5: Option<String>,
    #[serde(flatten)]
    content: Content,
    #[serde(default)]
    deleted: bool,
}

#[derive(Serialize, Deserialize)]
struct RawSubject {
    subject: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u32>,
}

#[derive(Serialize, Deserialize)]
struct RawConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(flatten)]
    config: Config,
}

#[derive(Serialize, Deserialize)]
struct RawMode {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    mode: Mode,
}

#[derive(Serialize, Deserialize)]
struct RawContext {
    tenant: String,
    context: String,
}

impl Key {
    fn raw(&self) -> RawKey {
        let of = |keytype: &str, subject: Option<&Subject>| RawKey {
            keytype: keytype.to_owned(),
            tenant: None,
            subject: subject.map(Subject::to_string),
            context: None,
            version: None,
            magic: 0,
        };
        match self {
            Self::Schema { subject, version } => {
                RawKey { version: Some(*version), magic: 1, ..of("SCHEMA", Some(subject)) }
            }
            Self::DeleteSubject { subject } => of("DELETE_SUBJECT", Some(subject)),
            Self::ClearSubject { subject } => of("CLEAR_SUBJECT", Some(subject)),
            Self::Config { subject } => of("CONFIG", subject.as_ref()),
            Self::Mode { subject } => of("MODE", subject.as_ref()),
            Self::Context { context } => {
                RawKey { tenant: Some(TENANT.to_owned()), context: Some(context.clone()), ..of("CONTEXT", None) }
            }
            Self::Noop => of("NOOP", None),
        }
    }

    fn parse(bytes: &[u8]) -> Result<Self, RecordError> {
        let raw: RawKey = serde_json::from_slice(bytes)?;
        let subject = raw.subject.as_deref().filter(|name| !name.is_empty()).map(Subject::parse);
        let need = |subject: Option<Subject>| subject.ok_or(RecordError::Lacks("a subject"));
        Ok(match raw.keytype.as_str() {
            "SCHEMA" => {
                let version = raw.version.ok_or(RecordError::Lacks("a version"))?;
                Self::Schema { subject: need(subject)?, version }
            }
            "DELETE_SUBJECT" => Self::DeleteSubject { subject: need(subject)? },
            "CLEAR_SUBJECT" => Self::ClearSubject { subject: need(subject)? },
            "CONFIG" => Self::Config { subject },
            "MODE" => Self::Mode { subject },
            "CONTEXT" => Self::Context { context: raw.context.ok_or(RecordError::Lacks("a context"))? },
            "NOOP" => Self::Noop,
            _ => return Err(RecordError::KeyType(raw.keytype)),
        })
    }
}

impl Record {
    /// What it is about.
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Schema(value) => Key::Schema { subject: value.subject.clone(), version: value.version },
            Self::SchemaGone { subject, version } => Key::Schema { subject: subject.clone(), version: *version },
            Self::DeleteSubject { subject, .. } => Key::DeleteSubject { subject: subject.clone() },
            Self::ClearSubject { subject } => Key::ClearSubject { subject: subject.clone() },
            Self::Config { subject, .. } => Key::Config { subject: subject.clone() },
            Self::Mode { subject, .. } => Key::Mode { subject: subject.clone() },
            Self::Context { context, .. } => Key::Context { context: context.clone() },
            Self::Noop => Key::Noop,
        }
    }

    /// Key and value as they are written.
    pub(crate) fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let key = json(&self.key().raw());
        let value = match self {
            Self::Schema(value) => Some(json(&RawSchema {
                subject: value.subject.to_string(),
                version: value.version,
                id: value.id,
                md5: Some(STANDARD.encode(value.digest.bytes())),
                content: value.content.clone(),
                deleted: value.deleted,
            })),
            Self::DeleteSubject { subject, version } => {
                Some(json(&RawSubject { subject: subject.to_string(), version: Some(*version) }))
            }
            Self::ClearSubject { subject } => Some(json(&RawSubject { subject: subject.to_string(), version: None })),
            Self::Config { subject, config: Some(config) } => {
                Some(json(&RawConfig { subject: subject.as_ref().map(Subject::to_string), config: (**config).clone() }))
            }
            Self::Mode { subject, mode: Some(mode) } => {
                Some(json(&RawMode { subject: subject.as_ref().map(Subject::to_string), mode: *mode }))
            }
            Self::Context { context, present: true } => {
                Some(json(&RawContext { tenant: TENANT.to_owned(), context: context.clone() }))
            }
            // With no value it would be deleted one day, and the claim in its headers with it.
            Self::Noop => Some(br#"{"magic":0}"#.to_vec()),
            Self::SchemaGone { .. }
            | Self::Config { config: None, .. }
            | Self::Mode { mode: None, .. }
            | Self::Context { present: false, .. } => None,
        };
        (key, value)
    }

    /// Reads a record, whoever wrote it.
    pub(crate) fn parse(key: &[u8], value: Option<&[u8]>) -> Result<Self, RecordError> {
        Ok(match Key::parse(key)? {
            Key::Schema { subject, version } => match value {
                None => Self::SchemaGone { subject, version },
                Some(value) => Self::Schema(Box::new(schema(value, subject, version)?)),
            },
            Key::DeleteSubject { subject } => {
                let raw: RawSubject = serde_json::from_slice(value.ok_or(RecordError::Lacks("a value"))?)?;
                Self::DeleteSubject { subject, version: raw.version.ok_or(RecordError::Lacks("a version"))? }
            }
            Key::ClearSubject { subject } => Self::ClearSubject { subject },
            Key::Config { subject } => {
                let raw: Option<RawConfig> = value.map(serde_json::from_slice).transpose()?;
                Self::Config { subject, config: raw.map(|raw| Box::new(raw.config)) }
            }
            Key::Mode { subject } => {
                let raw: Option<RawMode> = value.map(serde_json::from_slice).transpose()?;
                Self::Mode { subject, mode: raw.map(|raw| raw.mode) }
            }
            Key::Context { context } => Self::Context { context, present: value.is_some() },
            Key::Noop => Self::Noop,
        })
    }
}

/// The key says where it belongs: a value that names another subject is read as the key's.
fn schema(value: &[u8], subject: Subject, version: u32) -> Result<SchemaValue, RecordError> {
    let raw: RawSchema = serde_json::from_slice(value)?;
    let written = raw.md5.and_then(|text| STANDARD.decode(text).ok()).and_then(|bytes| bytes.try_into().ok());
    let digest = written.map_or_else(|| Digest::of(&raw.content), Digest::from_bytes);
    let (id, content, deleted) = (raw.id, raw.content, raw.deleted);
    Ok(SchemaValue { subject, version, id, digest, content, deleted, written_ms: None })
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("names and numbers are JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(record: &Record) -> (String, Option<String>) {
        let (key, value) = record.encode();
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (text(key), value.map(text))
    }

    #[test]
    fn keys_and_values_have_the_bytes_that_other_registries_write() {
        let subject = Subject::parse("orders-value");
        let content = Content { schema: "\"string\"".to_owned(), ..Content::default() };
        let digest = Digest::of(&content);
        let value = SchemaValue {
            subject: subject.clone(),
            version: 2,
            id: 7,
            digest,
            content,
            deleted: false,
            written_ms: None,
        };
        let md5 = STANDARD.encode(digest.bytes());
        let pairs = [
            (
                Record::Schema(Box::new(value)),
                r#"{"keytype":"SCHEMA","subject":"orders-value","version":2,"magic":1}"#.to_owned(),
                Some(format!(
                    r#"{{"subject":"orders-value","version":2,"id":7,"md5":"{md5}","schema":"\"string\"","deleted":false}}"#
                )),
            ),
            (
                Record::SchemaGone { subject: subject.clone(), version: 2 },
                r#"{"keytype":"SCHEMA","subject":"orders-value","version":2,"magic":1}"#.to_owned(),
                None,
            ),
            (
                Record::DeleteSubject { subject: subject.clone(), version: 2 },
                r#"{"keytype":"DELETE_SUBJECT","subject":"orders-value","magic":0}"#.to_owned(),
                Some(r#"{"subject":"orders-value","version":2}"#.to_owned()),
            ),
            (
                Record::ClearSubject { subject: Subject::parse(":.eu:orders") },
                r#"{"keytype":"CLEAR_SUBJECT","subject":":.eu:orders","magic":0}"#.to_owned(),
                Some(r#"{"subject":":.eu:orders"}"#.to_owned()),
            ),
            (
                Record::Config {
                    subject: None,
                    config: Some(Box::new(Config {
                        compatibility_level: Some(crate::model::Level::Full),
                        ..Config::default()
                    })),
                },
                r#"{"keytype":"CONFIG","magic":0}"#.to_owned(),
                Some(r#"{"compatibilityLevel":"FULL"}"#.to_owned()),
            ),
            (
                Record::Mode { subject: Some(subject), mode: Some(Mode::Readonly) },
                r#"{"keytype":"MODE","subject":"orders-value","magic":0}"#.to_owned(),
                Some(r#"{"subject":"orders-value","mode":"READONLY"}"#.to_owned()),
            ),
            (
                Record::Context { context: ".eu".to_owned(), present: true },
                r#"{"keytype":"CONTEXT","tenant":"default","context":".eu","magic":0}"#.to_owned(),
                Some(r#"{"tenant":"default","context":".eu"}"#.to_owned()),
            ),
            (Record::Noop, r#"{"keytype":"NOOP","magic":0}"#.to_owned(), Some(r#"{"magic":0}"#.to_owned())),
        ];
        for (record, key, value) in pairs {
            assert_eq!(written(&record), (key, value));
            let (key, value) = record.encode();
            assert_eq!(Record::parse(&key, value.as_deref()).expect("read back"), record);
        }
    }

    #[test]
    fn what_older_registries_wrote_is_read() {
        let key = br#"{"keytype":"SCHEMA","subject":"s","version":1,"magic":1}"#;
        let value = br#"{"subject":"s","version":1,"id":1,"schema":"\"int\"","deleted":true,"offset":4,"ts":5}"#;
        let Record::Schema(value) = Record::parse(key, Some(value)).expect("a schema") else {
            panic!("another record")
        };
        assert_eq!((value.id, value.deleted, value.digest), (1, true, Digest::of(&value.content)));
        let config = Record::parse(
            br#"{"keytype":"CONFIG","subject":null,"magic":0}"#,
            Some(br#"{"subject":null,"compatibilityLevel":"NONE"}"#),
        );
        assert!(matches!(config, Ok(Record::Config { subject: None, config: Some(_) })));
        assert!(matches!(Record::parse(br#"{"keytype":"DEK","magic":0}"#, None), Err(RecordError::KeyType(_))));
        assert!(Record::parse(b"\x00", None).is_err());
    }
}
