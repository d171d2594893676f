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
use cairn_log::{
    AzureOptions, BucketStore, FolderStore, GcsOptions, LogOptions, Readers, S3Options, SealedStore, Store, WriteAhead,
};
use serde::Deserialize;

/// `[store]`
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StoreSection {
    kind: StoreKind,
    /// The folder, where it is not `objects/` in the data folder.
    path: Option<PathBuf>,
    bucket: Option<String>,
    container: Option<String>,
    prefix: Option<String>,
    endpoint: Option<String>,
    region: Option<String>,
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    session_token: Option<String>,
    service_account_key: Option<String>,
    account: Option<String>,
    account_key: Option<String>,
    sas_token: Option<String>,
    upload_bytes: Option<u64>,
    upload_interval_ms: Option<u64>,
    wal: Wal,
    wal_interval_ms: Option<u64>,
    wal_bytes_max: Option<u64>,
    wal_segment_bytes: Option<u64>,
    retention_interval_ms: Option<u64>,
    cache_bytes_max: Option<u64>,
    tail_bytes_max: Option<u64>,
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
    /// A bucket of Google Cloud Storage.
    Gcs,
    /// A container of Azure Blob Storage.
    Azure,
}

impl StoreKind {
    /// As it is written.
    const fn word(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
        }
    }

    /// The keys that it has.
    const fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Folder => &["path"],
            Self::S3 => {
                &["bucket", "prefix", "endpoint", "region", "access_key_id", "secret_access_key", "session_token"]
            }
            Self::Gcs => &["bucket", "prefix", "endpoint", "service_account_key"],
            Self::Azure => &["container", "prefix", "endpoint", "account", "account_key", "sas_token"],
        }
    }
}

impl StoreSection {
    /// Whether another machine can take over with all that was acknowledged.
    pub(crate) fn is_shared(&self) -> bool {
        self.wal == Wal::Object && self.kind != StoreKind::Folder
    }

    /// Every value that may name environment variables.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut String> {
        self.words_mut().into_iter().filter_map(|(_, value)| value.as_mut())
    }

    /// What says where a bucket is and who asks, by key.
    fn words_mut(&mut self) -> [(&'static str, &mut Option<String>); 12] {
        [
            ("bucket", &mut self.bucket),
            ("container", &mut self.container),
            ("prefix", &mut self.prefix),
            ("endpoint", &mut self.endpoint),
            ("region", &mut self.region),
            ("access_key_id", &mut self.access_key_id),
            ("secret_access_key", &mut self.secret_access_key),
            ("session_token", &mut self.session_token),
            ("service_account_key", &mut self.service_account_key),
            ("account", &mut self.account),
            ("account_key", &mut self.account_key),
            ("sas_token", &mut self.sas_token),
        ]
    }

    /// The log's options for a data folder.
    pub(crate) fn log_options(&self, data: &Path, at_rest: &AtRest) -> anyhow::Result<LogOptions> {
        let mut options = LogOptions::new(data.join("log"), cairn_broker::batch::stamp);
        options.readers = Readers::apart().context("the system gives no threads for readers of the log")?;
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
        options.tail_bytes_max = self.tail_bytes_max.unwrap_or(options.tail_bytes_max);
        Ok(options)
    }

    fn store(&self, data: &Path, at_rest: &AtRest) -> anyhow::Result<Arc<dyn Store>> {
        self.refuse_keys_of_other_kinds()?;
        let bucket = match self.kind {
            StoreKind::Folder => {
                // A relative one lies in the data folder, never in the working directory.
                let path = data.join(self.path.as_deref().unwrap_or(Path::new("objects")));
                return Ok(Arc::new(SealedStore::new(Arc::new(FolderStore::new(path)), at_rest.clone())));
            }
            StoreKind::S3 => BucketStore::s3(&S3Options {
                bucket: self.named("bucket", self.bucket.as_deref())?,
                prefix: self.prefix.clone().unwrap_or_default(),
                endpoint: self.endpoint.clone(),
                region: self.region.clone(),
                access_key_id: self.access_key_id.clone(),
                secret_access_key: self.secret_access_key.clone(),
                session_token: self.session_token.clone(),
            }),
            StoreKind::Gcs => BucketStore::gcs(&GcsOptions {
                bucket: self.named("bucket", self.bucket.as_deref())?,
                prefix: self.prefix.clone().unwrap_or_default(),
                endpoint: self.endpoint.clone(),
                service_account_key: self.service_account_key.clone(),
            }),
            StoreKind::Azure => BucketStore::azure(&AzureOptions {
                container: self.named("container", self.container.as_deref())?,
                prefix: self.prefix.clone().unwrap_or_default(),
                endpoint: self.endpoint.clone(),
                account: self.account.clone(),
                account_key: self.account_key.clone(),
                sas_token: self.sas_token.clone(),
            }),
        };
        let bucket: Arc<dyn Store> = Arc::new(bucket.context("[store]")?);
        // A folder that was encrypted may have been copied there; what is new is the provider's to encrypt.
        Ok(match at_rest.reading() {
            None => bucket,
            Some(reading) => Arc::new(SealedStore::new(bucket, reading)),
        })
    }

    fn refuse_keys_of_other_kinds(&self) -> anyhow::Result<()> {
        let mut copy = self.clone();
        let words = copy.words_mut();
        let given = words.iter().filter(|(_, value)| value.is_some()).map(|(key, _)| *key);
        let given = given.chain(self.path.as_ref().map(|_| "path"));
        for key in given {
            if !self.kind.keys().contains(&key) {
                let kinds = [StoreKind::Folder, StoreKind::S3, StoreKind::Gcs, StoreKind::Azure];
                let its: Vec<_> =
                    kinds.iter().filter(|kind| kind.keys().contains(&key)).map(|kind| kind.word()).collect();
                let (kind, its) = (self.kind.word(), its.join("\" or kind = \""));
                bail!("store.{key} is for kind = \"{its}\", and kind is \"{kind}\": change one of the two");
            }
        }
        Ok(())
    }

    fn named(&self, key: &str, value: Option<&str>) -> anyhow::Result<String> {
        let value = value.filter(|value| !value.is_empty());
        let kind = self.kind.word();
        Ok(value
            .with_context(|| format!("store.kind is \"{kind}\" and there is no store.{key}: name the {key}"))?
            .to_owned())
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
        assert!(fault("kind = \"gcs\"").contains("name the bucket"));
        assert!(fault("kind = \"azure\"").contains("name the container"));
        assert!(
            fault("kind = \"azure\"\nbucket = \"b\"").contains("store.bucket is for kind = \"s3\" or kind = \"gcs\"")
        );
        assert!(fault("kind = \"swift\"").contains("unknown variant"));
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
        let key = "{\"private_key\": \"s3cret\", \"private_key_id\": \"i\", \"client_email\": \"e\", \"disable_oauth\": true}";
        let shown = format!(
            "{:?}",
            section(&format!("kind = \"gcs\"\nbucket = \"b\"\nservice_account_key = '{key}'")).expect("usable")
        );
        assert!(shown.contains("gs://b/") && !shown.contains("s3cret"), "{shown}");
        let text = "kind = \"azure\"\ncontainer = \"c\"\nprefix = \"p\"\naccount = \"a\"\naccount_key = \"czNjcmV0\"";
        let shown = format!("{:?}", section(text).expect("a container"));
        assert!(shown.contains("az://c/p") && !shown.contains("czNjcmV0"), "{shown}");
    }
}
