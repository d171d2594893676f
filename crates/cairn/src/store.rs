//! `[store]` of the configuration: where the embedded log keeps its objects. Called by `config` and `up`.
//!
//! Values may be secrets: `${NAME}` is filled from the environment, `${file:PATH}` from a file, and nothing here prints a key.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use cairn_keys::AtRest;
use cairn_log::{FolderStore, LogOptions, S3Options, S3Store, SealedStore, Store, WriteAhead};
use serde::Deserialize;

/// `[store]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreSection {
    kind: StoreKind,
    /// The folder, where it is not `objects/` in the data folder.
    path: Option<PathBuf>,
    bucket: Option<String>,
    prefix: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    upload_bytes: Option<u64>,
    upload_interval_ms: Option<u64>,
    wal: Wal,
    wal_interval_ms: Option<u64>,
    wal_bytes_max: Option<u64>,
    wal_segment_bytes: Option<u64>,
    retention_interval_ms: Option<u64>,
    cache_bytes_max: Option<u64>,
}

/// What makes an append durable.
#[derive(Clone, Copy, Deserialize, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum Wal {
    /// A synced file of this machine.
    #[default]
    Local,
    /// An object in the store.
    Object,
}

/// What may wait for its upload where the store is the write-ahead log: it waits in memory.
const OBJECT_WAL_BYTES_MAX: u64 = 256 << 20;

/// What keeps the objects.
#[derive(Clone, Copy, Deserialize, Default, PartialEq, Eq, Debug)]
#[serde(rename_all = "lowercase")]
enum StoreKind {
    /// A folder of this machine.
    #[default]
    Folder,
    /// An S3 bucket, or what speaks S3.
    S3,
}

impl StoreSection {
    /// Whether another machine can take over with all that was acknowledged.
    pub(crate) fn is_shared(&self) -> bool {
        self.wal == Wal::Object && self.kind == StoreKind::S3
    }

    /// Every value that may name environment variables.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut String> {
        let Self { bucket, prefix, endpoint, region, access_key_id, secret_access_key, session_token, .. } = self;
        [bucket, prefix, endpoint, region, access_key_id, secret_access_key, session_token].into_iter().flatten()
    }

    /// The log's options for a data folder.
    pub(crate) fn log_options(&self, data: &Path, at_rest: &AtRest) -> anyhow::Result<LogOptions> {
        let mut options = LogOptions::new(data.join("log"), cairn_broker::batch::stamp);
        options.store = self.store(data, at_rest)?;
        options.at_rest = at_rest.clone();
        let ms = |value: Option<u64>, or: Duration| value.map_or(or, Duration::from_millis);
        options.upload_bytes = self.upload_bytes.unwrap_or(options.upload_bytes);
        options.upload_interval = ms(self.upload_interval_ms, options.upload_interval);
        if self.wal == Wal::Object {
            options.wal = WriteAhead::Object;
            options.wal_bytes_max = OBJECT_WAL_BYTES_MAX;
        } else if self.wal_interval_ms.is_some() {
            bail!("store.wal_interval_ms is for wal = \"object\": a local write-ahead log is synced at once");
        }
        options.wal_interval = ms(self.wal_interval_ms, options.wal_interval);
        options.wal_bytes_max = self.wal_bytes_max.unwrap_or(options.wal_bytes_max);
        options.wal_segment_bytes = self.wal_segment_bytes.unwrap_or(options.wal_segment_bytes);
        options.retention_interval = ms(self.retention_interval_ms, options.retention_interval);
        options.cache_bytes_max = self.cache_bytes_max.unwrap_or(options.cache_bytes_max);
        Ok(options)
    }

    fn store(&self, data: &Path, at_rest: &AtRest) -> anyhow::Result<Arc<dyn Store>> {
        let Self { bucket, prefix, endpoint, region, access_key_id, secret_access_key, session_token, .. } = self;
        if self.kind == StoreKind::Folder {
            let others = [bucket, prefix, endpoint, region, access_key_id, secret_access_key, session_token];
            if others.into_iter().any(Option::is_some) {
                bail!("[store] has keys of an S3 bucket and kind \"folder\": set kind = \"s3\", or leave them out");
            }
            // A relative one lies in the data folder, never in the working directory.
            let path = data.join(self.path.as_deref().unwrap_or(Path::new("objects")));
            return Ok(Arc::new(SealedStore::new(Arc::new(FolderStore::new(path)), at_rest.clone())));
        }
        if self.path.is_some() {
            bail!("store.path is for kind = \"folder\": an S3 store has bucket and prefix");
        }
        let bucket = bucket.clone().filter(|bucket| !bucket.is_empty());
        let options = S3Options {
            bucket: bucket.context("store.kind is \"s3\" and there is no store.bucket: name the bucket")?,
            prefix: prefix.clone().unwrap_or_default(),
            endpoint: endpoint.clone(),
            region: region.clone(),
            access_key_id: access_key_id.clone(),
            secret_access_key: secret_access_key.clone(),
            session_token: session_token.clone(),
        };
        let bucket: Arc<dyn Store> = Arc::new(S3Store::new(&options).context("[store]")?);
        // A folder that was encrypted may have been copied there; what is new is the provider's to encrypt.
        Ok(match at_rest.reading() {
            None => bucket,
            Some(reading) => Arc::new(SealedStore::new(bucket, reading)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> anyhow::Result<LogOptions> {
        let section: StoreSection = toml::from_str(text)?;
        section.log_options(Path::new("/data"), &AtRest::default())
    }

    fn fault(text: &str) -> String {
        format!("{:#}", section(text).expect_err("it must not be accepted"))
    }

    #[test]
    fn a_store_is_a_folder_beside_the_log_unless_said_otherwise() {
        assert!(format!("{:?}", section("").expect("nothing is enough").store).contains("/data/objects"));
        assert!(format!("{:?}", section("path = \"/mnt/o\"").expect("a folder").store).contains("\"/mnt/o\""));
        assert!(format!("{:?}", section("path = \"o\"").expect("a folder").store).contains("\"/data/o\""));
        let options = section("upload_interval_ms = 5").expect("an interval");
        assert_eq!(options.upload_interval, Duration::from_millis(5));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_to_do_and_without_the_secret() {
        assert!(fault("kind = \"s3\"").contains("name the bucket"));
        assert!(fault("bucket = \"b\"").contains("kind = \"s3\""));
        assert!(fault("kind = \"s3\"\nbucket = \"b\"\npath = \"/x\"").contains("store.path"));
        assert!(fault("wal_interval_ms = 5").contains("wal = \"object\""));
        assert!(fault("wal = \"nowhere\"").contains("unknown variant"));
        assert!(fault("kind = \"gcs\"").contains("unknown variant"));
        assert!(fault("buckt = \"b\"").contains("buckt"));
        let said = fault("kind = \"s3\"\nbucket = \"b\"\nsecret_access_key = \"s3cret\"");
        assert!(said.contains("go together") && !said.contains("s3cret"), "{said}");
    }

    #[test]
    fn a_bucket_is_opened_as_one_and_never_shows_its_secret() {
        let text = "kind = \"s3\"\nbucket = \"b\"\nprefix = \"p\"\nregion = \"r\"\naccess_key_id = \"id\"\n\
                    secret_access_key = \"s3cret\"\nendpoint = \"http://127.0.0.1:1\"";
        let shown = format!("{:?}", section(text).expect("a bucket"));
        assert!(shown.contains("s3://b/p") && !shown.contains("s3cret"), "{shown}");
    }
}
