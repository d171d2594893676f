//! The store in an S3 bucket, or in anything that speaks S3 with conditional writes (AWS since 2024, MinIO, R2, Ceph).
//!
//! The head is one object, replaced by a PUT with `If-Match`; objects are created with `If-None-Match: *`. Neither answer
//! is believed when it is a refusal: S3 says 409 where nothing may have landed, and a request that timed out or was
//! repeated below us may have been our own success. So every refusal is settled by reading.

use std::{fmt, ops::Range, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use cairn_clock::Entropy;
use futures::TryStreamExt;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig, UpdateVersion,
    aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut},
    path::Path,
};

use crate::{
    StoreError,
    store::{Head, HeadVersion, Listed, Store},
};

/// Repetitions below us; above, the uploader tries again for as long as it takes.
const RETRIES_MAX: usize = 3;
/// How long one call may take with its repetitions.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// How long one request may take; an object of 32 MiB needs a line of 1 MB/s.
const REQUEST_LIMIT: Duration = Duration::from_secs(40);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long the service may take to answer at the start.
const PREPARE_LIMIT: Duration = Duration::from_secs(20);
/// Where object_store looks for credentials when nothing else has any: the machine's own, which only a cloud's machine has.
const INSTANCE_CREDENTIALS: &str = "169.254.";

/// Where the bucket is, and who asks.
#[derive(Clone, Default)]
pub struct S3Options {
    /// Bucket.
    pub bucket: String,
    /// Names begin with this and a `/`; empty for the whole bucket.
    pub prefix: String,
    /// URL of the service; none is AWS.
    pub endpoint: Option<String>,
    /// Region; none takes `AWS_REGION`, else `us-east-1`.
    pub region: Option<String>,
    /// Access key; none takes what the AWS tools take: environment, web identity, instance.
    pub access_key_id: Option<String>,
    /// Its secret.
    pub secret_access_key: Option<String>,
    /// Token of a temporary key.
    pub session_token: Option<String>,
}

impl S3Options {
    /// Refuses what would be taken for something else: half a key would leave the machine's own credentials in force.
    fn check(&self) -> Result<(), StoreError> {
        let refused = |reason: &str| Err(StoreError::Unsupported { reason: reason.to_owned() });
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            return refused("access_key_id and secret_access_key go together: give both, or neither");
        }
        if self.endpoint.as_ref().is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            return refused("endpoint is no URL: begin it with https:// or http://");
        }
        Ok(())
    }
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, prefix, endpoint, region, .. } = self;
        f.debug_struct("S3Options")
            .field("bucket", bucket)
            .field("prefix", prefix)
            .field("endpoint", endpoint)
            .field("region", region)
            .finish_non_exhaustive()
    }
}

/// A store in a bucket.
#[derive(Clone)]
pub struct S3Store {
    client: AmazonS3,
    prefix: String,
    place: String,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Store").field("place", &self.place).finish_non_exhaustive()
    }
}

impl S3Store {
    /// A client of the bucket; nothing is asked before [`Store::prepare`].
    ///
    /// # Errors
    /// Where the options cannot be used.
    pub fn new(options: &S3Options) -> Result<Self, StoreError> {
        options.check()?;
        // The first caller in the process wins; every one of ours chooses the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let retry = RetryConfig { max_retries: RETRIES_MAX, retry_timeout: CALL_LIMIT, ..RetryConfig::default() };
        let client = ClientOptions::new().with_timeout(REQUEST_LIMIT).with_connect_timeout(CONNECT_LIMIT);
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&options.bucket)
            .with_client_options(client)
            .with_retry(retry)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_disable_bulk_delete(true);
        if let Some(region) = &options.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let (Some(id), Some(secret)) = (&options.access_key_id, &options.secret_access_key) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        if let Some(token) = &options.session_token {
            builder = builder.with_token(token);
        }
        let prefix = options.prefix.trim_matches('/').to_owned();
        let place = format!("s3://{}/{prefix}", options.bucket);
        let built = builder.build();
        let client = built.map_err(|error| StoreError::Unsupported { reason: format!("{place}: {error}") })?;
        Ok(Self { client, prefix, place })
    }

    fn path(&self, name: &str) -> Path {
        if self.prefix.is_empty() { Path::from(name) } else { Path::from(format!("{}/{name}", self.prefix)) }
    }

    fn error(&self, name: &str, error: &object_store::Error) -> StoreError {
        use object_store::Error;
        let (place, words) = (&self.place, words(error));
        match error {
            Error::NotFound { .. } => StoreError::Missing { name: name.to_owned() },
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                let reason = format!(
                    "{place}: the service refuses these credentials ({words}): check access_key_id and secret_access_key, or \
                     AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and that they may get, put, list and delete objects there"
                );
                StoreError::Denied { reason }
            }
            _ if words.contains(INSTANCE_CREDENTIALS) => {
                let reason = format!(
                    "{place}: there are no credentials, and this machine has none of its own: set access_key_id and \
                     secret_access_key in [store], or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                );
                StoreError::Denied { reason }
            }
            _ => StoreError::Failed { reason: format!("{place}: {words}") },
        }
    }

    /// Sees whether the service writes only if: it must refuse a name that is taken, and a head that is not the one meant.
    async fn probe(&self) -> Result<(), StoreError> {
        let name = format!("probe/{:016x}", Entropy::system().next_u64());
        self.put(&name, Bytes::from_static(b"probe")).await?;
        let stranger = UpdateVersion { e_tag: Some("\"00000000000000000000000000000000\"".to_owned()), version: None };
        let mut kept = true;
        for mode in [PutMode::Create, PutMode::Update(stranger)] {
            let options = PutOptions { mode, ..PutOptions::default() };
            kept &= self.client.put_opts(&self.path(&name), PutPayload::from_static(b"again"), options).await.is_err();
        }
        self.delete(&name).await?;
        if kept {
            return Ok(());
        }
        let reason = format!(
            "{}: the service does not heed If-None-Match and If-Match, by which the log knows that the bucket is its own: \
             use one that does (AWS, MinIO, R2 and Ceph of 2024 or newer), or kind = \"folder\"",
            self.place
        );
        Err(StoreError::Unsupported { reason })
    }

    async fn there(&self, name: &str) -> Result<bool, StoreError> {
        match self.client.head(&self.path(name)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.error(name, &error)),
        }
    }
}

const HEAD: &str = "head";

/// An error's words without what a service says about who asked: of a page of XML only the code.
fn words(error: &object_store::Error) -> String {
    let text = error.to_string();
    let own = text.split('<').next().unwrap_or_default().trim_end_matches([' ', ':', '\n']);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    match code {
        Some((code, _)) => format!("{own}: {code}"),
        None => own.to_owned(),
    }
}

#[async_trait]
impl Store for S3Store {
    async fn prepare(&self) -> Result<(), StoreError> {
        // Proves reach, rights and bucket at once; the error of a wrong key is clearer here than at the first upload.
        let advice = "see that endpoint and region are right, and that the service can be reached from here";
        let found = match tokio::time::timeout(PREPARE_LIMIT, self.head()).await {
            Ok(Err(StoreError::Failed { reason })) => {
                return Err(StoreError::Unsupported { reason: format!("{reason}: {advice}") });
            }
            Ok(found) => found?,
            Err(_) => {
                let limit = PREPARE_LIMIT.as_secs();
                let reason = format!("{} does not answer within {limit} s: {advice}", self.place);
                return Err(StoreError::Unsupported { reason });
            }
        };
        // Where there is a head, an opener before us has seen that.
        if found.is_none() { self.probe().await } else { Ok(()) }
    }

    async fn put(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.client.put_opts(&self.path(name), PutPayload::from_bytes(bytes), options).await {
            Ok(_) => Ok(()),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                if self.there(name).await? {
                    Err(StoreError::Exists { name: name.to_owned() })
                } else {
                    Err(StoreError::Failed { reason: format!("{}: a conflict that left nothing", self.place) })
                }
            }
            Err(error) => Err(self.error(name, &error)),
        }
    }

    async fn get(&self, name: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let wanted = range.end.saturating_sub(range.start);
        let bytes = match self.client.get_range(&self.path(name), range).await {
            Ok(bytes) => bytes,
            Err(error) => return Err(self.error(name, &error)),
        };
        if bytes.len() as u64 == wanted {
            return Ok(bytes);
        }
        Err(StoreError::Damaged { name: name.to_owned(), what: "it is shorter than it was".to_owned() })
    }

    async fn get_all(&self, name: &str) -> Result<Bytes, StoreError> {
        let failed = |error: object_store::Error| self.error(name, &error);
        self.client.get(&self.path(name)).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let prefix = self.path(folder.trim_end_matches('/'));
        let cut = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let found: Vec<_> = self.client.list(Some(&prefix)).try_collect().await.map_err(|e| self.error(folder, &e))?;
        let listed = |meta: object_store::ObjectMeta| {
            let name = meta.location.as_ref().get(cut..).unwrap_or_default().to_owned();
            Listed { name, bytes: meta.size }
        };
        let mut found: Vec<_> = found.into_iter().map(listed).collect();
        found.sort();
        Ok(found)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.client.delete(&self.path(name)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(name, &error)),
        }
    }

    async fn head(&self) -> Result<Option<Head>, StoreError> {
        let failed = |error: object_store::Error| self.error(HEAD, &error);
        let found = match self.client.get(&self.path(HEAD)).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { source, .. }) => {
                // A bucket that is not there is no empty bucket.
                if source.to_string().contains("NoSuchBucket") {
                    let reason = format!("{}: the bucket does not exist: create it, or name another", self.place);
                    return Err(StoreError::Unsupported { reason });
                }
                return Ok(None);
            }
            Err(error) => return Err(failed(error)),
        };
        let Some(tag) = found.meta.e_tag.clone() else {
            let reason = format!("{}: the service gives no ETag, so the head cannot be owned", self.place);
            return Err(StoreError::Unsupported { reason });
        };
        let bytes = found.bytes().await.map_err(failed)?;
        Ok(Some(Head { version: HeadVersion::new(tag), bytes }))
    }

    async fn replace_head(&self, was: Option<&HeadVersion>, bytes: Bytes) -> Result<HeadVersion, StoreError> {
        let mode = match was {
            None => PutMode::Create,
            Some(was) => PutMode::Update(UpdateVersion { e_tag: Some(was.as_str().to_owned()), version: None }),
        };
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = self.client.put_opts(&self.path(HEAD), PutPayload::from_bytes(bytes.clone()), options).await;
        let refused = match put {
            Ok(done) => match done.e_tag {
                Some(tag) => return Ok(HeadVersion::new(tag)),
                None => "the service gives no ETag".to_owned(),
            },
            Err(error) => words(&error),
        };
        let now = self.head().await?;
        match now {
            Some(head) if head.bytes == bytes => Ok(head.version),
            now if now.as_ref().map(|head| &head.version) == was => {
                Err(StoreError::Failed { reason: format!("{}: {refused}", self.place) })
            }
            _ => Err(StoreError::HeadChanged),
        }
    }
}

#[cfg(test)]
mod tests;
