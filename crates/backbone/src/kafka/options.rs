//! How a Kafka cluster is reached: bootstrap, any librdkafka property, and secrets that come from elsewhere.
//!
//! A property value `${env:NAME}` is read from the environment, `${file:PATH}` from a file (its last line end is cut).
//! Values are never printed: [`KafkaOptions`]'s `Debug` shows names only.

use std::{collections::BTreeMap, fmt, path::PathBuf, time::Duration};

use rdkafka::ClientConfig;

/// How a cluster is reached, and how much may be spooled while it is away.
#[derive(Clone)]
pub struct KafkaOptions {
    /// `host:port`, several with commas.
    pub bootstrap: String,
    /// librdkafka properties, passed through. Idempotence and `acks=all` cannot be switched off.
    pub properties: BTreeMap<String, String>,
    /// Where the spool's files lie; used by this process only.
    pub spool: PathBuf,
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
}

const RESERVED: [&str; 6] =
    ["acks", "request.required.acks", "enable.idempotence", "transactional.id", "group.id", "bootstrap.servers"];

/// A client configuration from a bootstrap list and properties, with secrets read.
///
/// # Errors
/// A secret that is not there, or a property that is Cairn's to set.
pub fn client_config(bootstrap: &str, properties: &BTreeMap<String, String>) -> Result<ClientConfig, PropertyError> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("client.id", "cairn");
    for (property, value) in properties {
        if RESERVED.contains(&property.as_str()) {
            return Err(PropertyError::Reserved { property: property.clone() });
        }
        config.set(property, resolve(property, value)?);
    }
    Ok(config)
}

fn resolve(property: &str, value: &str) -> Result<String, PropertyError> {
    let within = |prefix: &str| value.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('}'));
    let property = property.to_owned();
    if let Some(name) = within("${env:") {
        return std::env::var(name).map_err(|_| PropertyError::Environment { property, name: name.to_owned() });
    }
    if let Some(path) = within("${file:") {
        let text = std::fs::read_to_string(path).map_err(|source| PropertyError::File {
            property,
            path: path.to_owned(),
            source,
        })?;
        return Ok(text.trim_end_matches(['\r', '\n']).to_owned());
    }
    Ok(value.to_owned())
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

    #[test]
    fn durability_cannot_be_switched_off() {
        let mut options = KafkaOptions::new("localhost:1", "spool");
        options.properties.insert("acks".to_owned(), "0".to_owned());
        assert!(matches!(options.config(), Err(PropertyError::Reserved { .. })));
    }
}
