//! How a Kafka cluster is reached: bootstrap, any librdkafka property, and secrets that come from elsewhere.
//!
//! In a property's value `${NAME}` and `${env:NAME}` stand for that environment variable and `${file:PATH}` for what is in that
//! file; a value `file:PATH` is the file's content. A file's last line end is cut. Values are never printed: [`KafkaOptions`]'s
//! `Debug` shows names only, and an error says which property was refused, not what it held.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use cairn_contract::TopicPrefix;
use cairn_keys::AtRest;
use rdkafka::{ClientConfig, error::KafkaError};

/// How a cluster is reached, and how much may be spooled while it is away.
#[derive(Clone)]
pub struct KafkaOptions {
    /// `host:port`, several with commas.
    pub bootstrap: String,
    /// librdkafka properties, passed through. Idempotence and `acks=all` cannot be switched off.
    pub properties: BTreeMap<String, String>,
    /// Where the spool's files lie; used by this process only.
    pub spool: PathBuf,
    /// What new files of the spool are encrypted under.
    pub at_rest: AtRest,
    /// What stands before the names of the topics.
    pub prefix: TopicPrefix,
    /// The spool's bound in bytes.
    pub spool_bytes_max: u64,
    /// Replicas of topics that are created; -1 is the cluster's default.
    pub replication: i32,
    /// `min.insync.replicas` of topics: set at creation, and checked as a lower bound.
    pub min_insync_replicas: Option<u32>,
    /// How long start waits for the cluster.
    pub ready_within: Duration,
}

impl KafkaOptions {
    /// Defaults for a cluster and a spool's folder.
    #[must_use]
    pub fn new(bootstrap: impl Into<String>, spool: impl Into<PathBuf>) -> Self {
        Self {
            bootstrap: bootstrap.into(),
            properties: BTreeMap::new(),
            spool: spool.into(),
            at_rest: AtRest::default(),
            prefix: TopicPrefix::default(),
            spool_bytes_max: 1 << 30,
            replication: -1,
            min_insync_replicas: None,
            ready_within: Duration::from_secs(30),
        }
    }

    /// The client's configuration, with secrets read.
    pub(crate) fn config(&self) -> Result<ClientConfig, PropertyError> {
        client_config(&self.bootstrap, &self.properties)
    }
}

impl fmt::Debug for KafkaOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaOptions")
            .field("bootstrap", &self.bootstrap)
            .field("properties", &self.properties.keys().collect::<Vec<_>>())
            .field("prefix", &self.prefix)
            .field("spool", &self.spool)
            .field("spool_bytes_max", &self.spool_bytes_max)
            .finish_non_exhaustive()
    }
}

/// Why a property has no value.
#[derive(Debug, thiserror::Error)]
pub enum PropertyError {
    /// The environment variable is not set.
    #[error("the Kafka property {property} wants the environment variable {name}, which is not set")]
    Environment {
        /// The property.
        property: String,
        /// The variable.
        name: String,
    },
    /// The file cannot be read.
    #[error("the Kafka property {property} wants the file {path}: {source}")]
    File {
        /// The property.
        property: String,
        /// The file.
        path: String,
        /// What it said.
        source: std::io::Error,
    },
    /// The property is Cairn's to set.
    #[error("the Kafka property {property} cannot be changed: durability and order hang on it; remove it")]
    Reserved {
        /// The property.
        property: String,
    },
    /// The value opens a reference and does not close it.
    #[error(
        "the Kafka property {property} holds \"${{\" without \"}}\": write ${{NAME}}, ${{env:NAME}} or ${{file:PATH}}"
    )]
    Reference {
        /// The property.
        property: String,
    },
    /// librdkafka knows no such property, or not this value.
    #[error("the Kafka property {property} is refused: {reason}; librdkafka's CONFIGURATION.md lists what there is")]
    Refused {
        /// The property.
        property: String,
        /// What librdkafka said, without the value.
        reason: String,
    },
}

/// What order, durability and completeness hang on, under every name that librdkafka has for it.
const RESERVED: [&str; 15] = [
    "acks",
    "bootstrap.servers",
    "delivery.timeout.ms",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.gapless.guarantee",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "message.send.max.retries",
    "message.timeout.ms",
    "metadata.broker.list",
    "request.required.acks",
    "retries",
    "transactional.id",
];

/// A client configuration from a bootstrap list and properties, with secrets read. Each property is known to librdkafka.
///
/// # Errors
/// A secret that is not there, a property that is Cairn's to set, or one that librdkafka refuses.
pub fn client_config(bootstrap: &str, properties: &BTreeMap<String, String>) -> Result<ClientConfig, PropertyError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("client.id", "cairn").set("reconnect.backoff.max.ms", "2000");
    for (property, written) in properties {
        if RESERVED.contains(&property.as_str()) {
            return Err(PropertyError::Reserved { property: property.clone() });
        }
        let value = resolve(property, written)?;
        let mut alone = ClientConfig::new();
        alone.set(property, &value);
        if let Err(error) = alone.create_native_config() {
            let reason = match error {
                KafkaError::ClientConfig(_, reason, ..) => reason,
                other => other.to_string(),
            };
            // What came from elsewhere may be a secret; what stands in the file helps to find the mistake.
            let mut reason = if value == *written { reason } else { reason.replace(&value, "…") };
            if cfg!(not(feature = "tls")) && reason.contains("build time") {
                reason
                    .push_str("; this build has no TLS: cargo install --locked --path crates/cairn makes one that has");
            }
            return Err(PropertyError::Refused { property: property.clone(), reason });
        }
        config.set(property, value);
    }
    Ok(config)
}

fn resolve(property: &str, written: &str) -> Result<String, PropertyError> {
    if let Some(path) = written.strip_prefix("file:") {
        return from_file(property, path);
    }
    let mut value = String::new();
    let mut rest = written;
    while let Some((before, opened)) = rest.split_once("${") {
        let (name, after) =
            opened.split_once('}').ok_or_else(|| PropertyError::Reference { property: property.to_owned() })?;
        value.push_str(before);
        match name.strip_prefix("file:") {
            Some(path) => value.push_str(&from_file(property, path)?),
            None => value.push_str(&from_environment(property, name.strip_prefix("env:").unwrap_or(name))?),
        }
        rest = after;
    }
    value.push_str(rest);
    Ok(value)
}

fn from_environment(property: &str, name: &str) -> Result<String, PropertyError> {
    std::env::var(name).map_err(|_| PropertyError::Environment { property: property.to_owned(), name: name.to_owned() })
}

fn from_file(property: &str, path: &str) -> Result<String, PropertyError> {
    let text = std::fs::read_to_string(path).map_err(|source| PropertyError::File {
        property: property.to_owned(),
        path: path.to_owned(),
        source,
    })?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_files_and_are_never_printed() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "s3cret\n").expect("written");
        let mut options = KafkaOptions::new("localhost:1", "spool");
        options.properties.insert("sasl.password".to_owned(), format!("${{file:{}}}", file.path().display()));
        assert_eq!(options.config().expect("a configuration").get("sasl.password"), Some("s3cret"));
        options.properties.insert("sasl.password".to_owned(), "s3cret".to_owned());
        assert!(!format!("{options:?}").contains("s3cret"));
    }

    fn fault(property: &str, value: &str) -> PropertyError {
        let properties = BTreeMap::from([(property.to_owned(), value.to_owned())]);
        client_config("localhost:1", &properties).expect_err("it must be refused")
    }

    #[test]
    fn references_stand_anywhere_in_a_value_and_a_missing_one_is_named() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "s3cret\n").expect("written");
        let path = file.path().display();
        let value = |written: &str| {
            let properties = BTreeMap::from([("sasl.password".to_owned(), written.to_owned())]);
            client_config("localhost:1", &properties).expect("a configuration").get("sasl.password").map(str::to_owned)
        };
        assert_eq!(value(&format!("file:{path}")).as_deref(), Some("s3cret"));
        assert_eq!(value(&format!("a${{file:{path}}}z")).as_deref(), Some("as3cretz"));
        assert_eq!(value("${PATH}"), std::env::var("PATH").ok());
        assert_eq!(value("${env:PATH}"), std::env::var("PATH").ok());
        let words = fault("sasl.password", "${CAIRN_TEST_NOT_SET}").to_string();
        assert!(words.contains("sasl.password") && words.contains("CAIRN_TEST_NOT_SET"), "{words}");
        assert!(matches!(fault("sasl.password", "${PATH"), PropertyError::Reference { .. }));
        assert!(matches!(fault("sasl.password", "file:/nowhere/x"), PropertyError::File { .. }));
    }

    #[test]
    fn what_librdkafka_refuses_is_named_without_its_secret() {
        let words = fault("sasl.pasword", "hunter2").to_string();
        assert!(words.contains("sasl.pasword") && !words.contains("hunter2"), "{words}");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "s3cret\n").expect("written");
        let words = fault("security.protocol", &format!("file:{}", file.path().display())).to_string();
        assert!(words.contains("security.protocol") && !words.contains("s3cret"), "{words}");
        assert!(fault("security.protocol", "sasl").to_string().contains("sasl"));
    }

    #[test]
    fn durability_cannot_be_switched_off() {
        let mut options = KafkaOptions::new("localhost:1", "spool");
        options.properties.insert("acks".to_owned(), "0".to_owned());
        assert!(matches!(options.config(), Err(PropertyError::Reserved { .. })));
    }
}
