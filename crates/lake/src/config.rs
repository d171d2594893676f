//! `[lake]` of the configuration, and what of the rest `cairn-lake` needs: where the trail is read, and where the table lies.
//!
//! Values may be secrets: `${NAME}` is filled from the environment, `${file:PATH}` from a file, and nothing here prints one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_keys::filled;
use cairn_log::{BucketStore, FolderStore, S3Options, Store};
use serde::Deserialize;

use crate::sink::Pace;

/// Where the embedded log listens by default.
const DEFAULT_ADDRESS: &str = "127.0.0.1:9092";
/// A commit more often than this makes more files than anybody wants to read.
const COMMIT_MS_MIN: u64 = 100;
/// Files below this are hardly worth their names.
const FILE_BYTES_MIN: usize = 64 << 10;

/// The parts of `cairn.toml` that are read here; the rest is `cairn`'s to check.
#[derive(Clone, Deserialize, Default)]
#[serde(default)]
pub struct Config {
    backbone: Backbone,
    lake: Lake,
}

#[derive(Clone, Deserialize, Default)]
#[serde(default)]
struct Backbone {
    bootstrap: Option<String>,
    properties: BTreeMap<String, toml::Value>,
}

/// `[lake]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Lake {
    namespace: Option<String>,
    table: Option<String>,
    group: Option<String>,
    commit_interval_ms: Option<u64>,
    file_bytes: Option<usize>,
    tidy_interval_ms: Option<u64>,
    store: StoreSection,
    catalog: CatalogSection,
}

/// `[lake.store]`: the same keys as `[store]`.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct StoreSection {
    kind: StoreKind,
    path: Option<PathBuf>,
    bucket: Option<String>,
    prefix: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
}

#[derive(Clone, Copy, Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum StoreKind {
    #[default]
    Folder,
    S3,
}

/// `[lake.catalog]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct CatalogSection {
    listen: Option<String>,
    token: Option<String>,
    allow_plaintext: bool,
}

/// Where the trail is read.
#[derive(Clone)]
pub struct Source {
    /// The Kafka address.
    pub bootstrap: String,
    /// librdkafka's properties.
    pub properties: BTreeMap<String, String>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("bootstrap", &self.bootstrap).finish_non_exhaustive()
    }
}

/// Where the table lies.
#[derive(Clone, Debug)]
pub struct Place {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The URI that everything in it lies below.
    pub location: String,
    /// What engines need to know to read there: no secrets.
    pub config: Vec<(String, String)>,
}

impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Config").finish_non_exhaustive()
    }
}

impl Config {
    /// Reads a file, or takes what holds without one.
    ///
    /// # Errors
    /// What is wrong in it.
    pub fn read(path: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = path else { return Ok(Self::default()) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a configuration that can be used", path.display()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        // The error's own words quote the line, which may hold a secret.
        let config: Self = toml::from_str(text).map_err(|error| anyhow::anyhow!("{}", error.message()))?;
        if config.lake.commit_interval_ms.is_some_and(|every| every < COMMIT_MS_MIN) {
            bail!("lake.commit_interval_ms: set it to at least {COMMIT_MS_MIN}");
        }
        if config.lake.file_bytes.is_some_and(|bytes| bytes < FILE_BYTES_MIN) {
            bail!("lake.file_bytes: set it to at least {FILE_BYTES_MIN}");
        }
        for name in [&config.lake.namespace, &config.lake.table].into_iter().flatten() {
            if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                bail!("lake.namespace and lake.table are names of letters, digits and '_'");
            }
        }
        Ok(config)
    }

    /// Where the trail is read; what is given goes before the configuration's.
    #[must_use]
    pub fn source(&self, bootstrap: Option<String>) -> Source {
        let text = |value: &toml::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Source {
            bootstrap: bootstrap
                .or_else(|| self.backbone.bootstrap.clone())
                .unwrap_or_else(|| DEFAULT_ADDRESS.to_owned()),
            properties: self.backbone.properties.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
        }
    }

    /// The namespace and the table's name.
    #[must_use]
    pub fn name(&self) -> (String, String) {
        let or = |name: &Option<String>, default: &str| name.clone().unwrap_or_else(|| default.to_owned());
        (or(&self.lake.namespace, "cairn"), or(&self.lake.table, "events"))
    }

    /// The consumer group.
    #[must_use]
    pub fn group(&self) -> String {
        self.lake.group.clone().unwrap_or_else(|| "cairn-lake".to_owned())
    }

    /// When a commit is due.
    #[must_use]
    pub fn pace(&self) -> Pace {
        let default = Pace::default();
        Pace {
            every: self.lake.commit_interval_ms.map_or(default.every, Duration::from_millis),
            bytes: self.lake.file_bytes.unwrap_or(default.bytes),
            tidies: self.lake.tidy_interval_ms.map_or(default.tidies, Duration::from_millis),
        }
    }

    /// Where the catalog is served, and with what token; what is given goes before the configuration's.
    ///
    /// # Errors
    /// A token that cannot be filled, or an address that other machines reach without what that takes.
    pub fn catalog(&self, listen: Option<String>) -> anyhow::Result<Option<(String, Option<String>)>> {
        let CatalogSection { listen: configured, token, allow_plaintext } = &self.lake.catalog;
        let Some(listen) = listen.or_else(|| configured.clone()) else { return Ok(None) };
        let token = token.as_deref().map(filled).transpose().context("lake.catalog.token")?;
        let host = listen.rsplit_once(':').map_or(listen.as_str(), |(host, _)| host).trim_matches(['[', ']']);
        let is_here =
            host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        if !is_here && (token.is_none() || !allow_plaintext) {
            bail!(
                "lake.catalog.listen is {listen}, which other machines reach: set lake.catalog.token, put TLS before it, and say so with lake.catalog.allow_plaintext = true"
            );
        }
        Ok(Some((listen, token)))
    }

    /// Where the table lies; a folder that is given goes before the configuration's.
    ///
    /// # Errors
    /// What is missing or makes no sense.
    pub fn place(&self, folder: Option<&Path>) -> anyhow::Result<Place> {
        let StoreSection {
            kind,
            path,
            bucket,
            prefix,
            endpoint,
            region,
            access_key_id,
            secret_access_key,
            session_token,
        } = &self.lake.store;
        if *kind == StoreKind::Folder || folder.is_some() {
            if folder.is_none() && bucket.is_some() {
                bail!("[lake.store] has a bucket and kind \"folder\": set kind = \"s3\", or leave it out");
            }
            let path = folder.or(path.as_deref()).context(
                "nobody says where the table is to lie: give --folder, or set path or a bucket in [lake.store]",
            )?;
            let path = std::path::absolute(path).with_context(|| format!("{} is no path", path.display()))?;
            let name = path.to_str().context("the folder's path is no UTF-8, and Iceberg's paths are")?;
            let location = format!("file://{}", name.trim_end_matches('/'));
            return Ok(Place { store: Arc::new(FolderStore::new(path.clone())), location, config: Vec::new() });
        }
        if path.is_some() {
            bail!("lake.store.path is for kind = \"folder\": an S3 store has bucket and prefix");
        }
        let fill = |value: &Option<String>| value.as_deref().map(filled).transpose().context("[lake.store]");
        let bucket = fill(bucket)?.filter(|bucket| !bucket.is_empty());
        let bucket = bucket.context("lake.store.kind is \"s3\" and there is no lake.store.bucket: name the bucket")?;
        let prefix = fill(prefix)?.unwrap_or_default().trim_matches('/').to_owned();
        let (endpoint, region) = (fill(endpoint)?, fill(region)?);
        let options = S3Options {
            bucket: bucket.clone(),
            prefix: prefix.clone(),
            endpoint: endpoint.clone(),
            region: region.clone(),
            access_key_id: fill(access_key_id)?,
            secret_access_key: fill(secret_access_key)?,
            session_token: fill(session_token)?,
        };
        let location = format!("s3://{bucket}/{prefix}").trim_end_matches('/').to_owned();
        let told = [
            ("s3.endpoint", endpoint.clone()),
            ("s3.path-style-access", endpoint.map(|_| "true".to_owned())),
            ("s3.region", region.clone()),
            ("client.region", region),
        ];
        let config = told.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect();
        Ok(Place { store: Arc::new(BucketStore::s3(&options).context("[lake.store]")?), location, config })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_a_configuration_and_names_every_key() {
        let document = include_str!("../../../docs/lake.md");
        let blocks: Vec<_> =
            document.split("```toml\n").skip(1).filter_map(|part| part.split("\n```").next()).collect();
        for block in &blocks {
            Config::parse(block).expect("the document is accepted");
        }
        assert!(!blocks.is_empty());
        for section in ["[lake]", "[lake.store]", "[lake.catalog]"] {
            // An unknown key makes the reader say which ones it knows.
            let error = Config::parse(&format!("{section}\nno-such-key = 1\n")).expect_err("unknown").to_string();
            let (_, known) = error.split_once("expected").expect("it says what it knows");
            for key in known.split('`').skip(1).step_by(2) {
                let names =
                    [format!("\n{key} = "), format!("\n# {key} = "), format!("[lake.{key}]"), format!("`{key}`")];
                assert!(names.iter().any(|name| document.contains(name)), "{section} {key} is not in docs/lake.md");
            }
        }
    }

    #[test]
    fn a_table_lies_where_somebody_says_and_its_location_is_a_uri() {
        let place = |text: &str| Config::parse(text).and_then(|config| config.place(None));
        assert_eq!(place("[lake.store]\npath = \"/srv/lake/\"").expect("a folder").location, "file:///srv/lake");
        let bucket = "[lake.store]\nkind = \"s3\"\nbucket = \"b\"\nprefix = \"a/lake/\"\nregion = \"r\"\nendpoint = \"http://127.0.0.1:1\"\n\
                      access_key_id = \"id\"\nsecret_access_key = \"s3cret\"";
        let bucket = place(bucket).expect("a bucket");
        assert_eq!(bucket.location, "s3://b/a/lake");
        assert!(!format!("{bucket:?}").contains("s3cret"));
        for (wrong, said) in [
            ("", "--folder"),
            ("[lake.store]\nbucket = \"b\"", "kind = \"s3\""),
            ("[lake.store]\nkind = \"s3\"", "name the bucket"),
            // Half a key would leave the machine's own credentials in force.
            ("[lake.store]\nkind = \"s3\"\nbucket = \"b\"\naccess_key_id = \"id\"", "go together"),
            ("[lake.store]\nkind = \"s3\"\nbucket = \"b\"\nendpoint = \"minio:9000\"", "no URL"),
            ("[lake]\ncommit_interval_ms = 1", "at least"),
            ("[lake]\nnamespace = \"a.b\"", "letters"),
        ] {
            let error = format!("{:#}", place(wrong).expect_err("it must not be accepted"));
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn other_machines_need_a_token_to_ask_the_catalog() {
        let catalog = |text: &str| Config::parse(text).and_then(|config| config.catalog(None));
        assert!(catalog("[lake.catalog]\nlisten = \"127.0.0.1:8181\"").is_ok());
        assert!(catalog("[lake.catalog]\nlisten = \"0.0.0.0:8181\"").is_err());
        assert!(catalog("[lake.catalog]\nlisten = \"0.0.0.0:8181\"\ntoken = \"x\"").is_err());
        assert!(catalog("[lake.catalog]\nlisten = \"0.0.0.0:8181\"\ntoken = \"x\"\nallow_plaintext = true").is_ok());
    }
}
