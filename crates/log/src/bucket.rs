//! The store in a bucket: S3 and what speaks it, Google Cloud Storage, Azure Blob Storage. Made by `[store]` of the configuration.
//!
//! One implementation over the traits of the crate `object_store`; what services differ in is in [`Service`], and each has a file of its
//! own for its options (`s3`, `gcs`, `azure`). The head is one object, replaced only if it still is the version that was read; objects
//! are created only if there is none. Neither answer is believed when it is a refusal: a service says conflict where nothing may
//! have landed, and a request that timed out or was repeated below us may have been our own success. So every refusal is settled by
//! reading.

mod azure;
mod gcs;
#[cfg(test)]
mod losing;
mod s3;

use std::{fmt, ops::Range, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use cairn_clock::Entropy;
use object_store::{
    ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, PutResult, RetryConfig,
    UpdateVersion,
    client::SpawnedReqwestConnector,
    list::{PaginatedListOptions, PaginatedListStore},
    path::Path,
};

use tokio::runtime::Handle;

pub use self::{azure::AzureOptions, gcs::GcsOptions, s3::S3Options};
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
/// Names that one request of a list asks for: what every service gives at most.
const PAGE_NAMES_MAX: usize = 1_000;
/// Where object_store looks for credentials when nothing else has any: the machine's own, which only a cloud's machine has.
const INSTANCE_CREDENTIALS: [&str; 2] = ["169.254.", "metadata.google.internal"];
const HEAD: &str = "head";

/// What services differ in.
#[derive(Debug)]
struct Service {
    /// What a condition names a version of an object by.
    versions: Versions,
    /// A version that no object ever has.
    stranger: &'static str,
    /// What of a request makes it conditional.
    conditions: &'static str,
    /// Who heeds that.
    heeded_by: &'static str,
    /// What of the configuration may be wrong where nothing answers, and its verb.
    whereabouts: &'static str,
    /// What credentials are taken from.
    keys: &'static str,
    /// What holds objects: bucket or container.
    holder: &'static str,
    /// The service's code where that is not there.
    no_holder: &'static str,
}

/// What a condition names a version of an object by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Versions {
    /// Its `ETag`.
    Tag,
    /// Its generation, which each write raises.
    Generation,
}

impl Service {
    /// The condition that an object is still this version.
    fn still(&self, version: &str) -> PutMode {
        let word = Some(version.to_owned());
        PutMode::Update(match self.versions {
            Versions::Tag => UpdateVersion { e_tag: word, version: None },
            Versions::Generation => UpdateVersion { e_tag: None, version: word },
        })
    }

    /// Which of an object's words is the version.
    fn version(&self, e_tag: Option<String>, generation: Option<String>) -> Option<HeadVersion> {
        let word = match self.versions {
            Versions::Tag => e_tag,
            Versions::Generation => generation,
        };
        word.map(HeadVersion::new)
    }
}

/// What a service's client can do.
trait Client: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Client for T {}

/// A store in a bucket.
#[derive(Clone)]
pub struct BucketStore {
    client: Arc<dyn Client>,
    service: &'static Service,
    prefix: String,
    place: String,
    page_names_max: usize,
}

impl fmt::Debug for BucketStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketStore").field("place", &self.place).finish_non_exhaustive()
    }
}

/// Repetitions and limits, the same for all services.
fn request_options(endpoint: Option<&str>) -> (ClientOptions, RetryConfig) {
    // The first caller in the process wins; every one of ours chooses the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = ClientOptions::new()
        .with_timeout(REQUEST_LIMIT)
        .with_connect_timeout(CONNECT_LIMIT)
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")));
    (client, RetryConfig { max_retries: RETRIES_MAX, retry_timeout: CALL_LIMIT, ..RetryConfig::default() })
}

/// Sees to it that connections are driven by the threads of whoever makes the store, whoever asks: readers' threads give way to others,
/// and a connection that a reader opened may carry the next write.
fn connector() -> Option<SpawnedReqwestConnector> {
    Handle::try_current().ok().map(SpawnedReqwestConnector::new)
}

fn is_url(endpoint: Option<&str>) -> Result<(), StoreError> {
    match endpoint {
        Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
            refused("endpoint is no URL: begin it with https:// or http://")
        }
        _ => Ok(()),
    }
}

fn refused<T>(reason: &str) -> Result<T, StoreError> {
    Err(StoreError::Unsupported { reason: reason.to_owned() })
}

impl BucketStore {
    /// A client made by one of the services' files; nothing is asked before [`Store::prepare`].
    fn new(
        scheme: &str,
        bucket: &str,
        prefix: &str,
        service: &'static Service,
        built: object_store::Result<impl Client>,
    ) -> Result<Self, StoreError> {
        let prefix = prefix.trim_matches('/').to_owned();
        let place = format!("{scheme}://{bucket}/{prefix}");
        match built {
            Ok(client) => Ok(Self { client: Arc::new(client), service, prefix, place, page_names_max: PAGE_NAMES_MAX }),
            Err(error) => Err(StoreError::Unsupported { reason: format!("{place}: {}", words(&error)) }),
        }
    }

    fn path(&self, name: &str) -> Path {
        if self.prefix.is_empty() { Path::from(name) } else { Path::from(format!("{}/{name}", self.prefix)) }
    }

    async fn put_if(&self, name: &str, mode: PutMode, bytes: Bytes) -> object_store::Result<PutResult> {
        let options = PutOptions { mode, ..PutOptions::default() };
        self.client.put_opts(&self.path(name), PutPayload::from_bytes(bytes), options).await
    }

    fn error(&self, name: &str, error: &Error) -> StoreError {
        let (place, words, keys) = (&self.place, words(error), self.service.keys);
        match error {
            Error::NotFound { source, .. } if source.to_string().contains(self.service.no_holder) => self.no_holder(),
            Error::NotFound { .. } => StoreError::Missing { name: name.to_owned() },
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                let reason = format!(
                    "{place}: the service refuses these credentials ({words}): check {keys}, and that they may get, put, list \
                     and delete objects there"
                );
                StoreError::Denied { reason }
            }
            _ if INSTANCE_CREDENTIALS.iter().any(|place| words.contains(place)) => {
                let reason =
                    format!("{place}: there are no credentials, and this machine has none of its own: set {keys}");
                StoreError::Denied { reason }
            }
            _ => StoreError::Failed { reason: format!("{place}: {words}") },
        }
    }

    /// A bucket that is not there is no empty bucket.
    fn no_holder(&self) -> StoreError {
        let (place, holder) = (&self.place, self.service.holder);
        StoreError::Unsupported { reason: format!("{place}: the {holder} does not exist: create it, or name another") }
    }

    /// Sees whether the service writes only if: it must refuse a name that is taken and a version that is not the one meant, and take
    /// the one that is.
    async fn probe(&self) -> Result<(), StoreError> {
        let name = format!("probe/{:016x}", Entropy::system().next_u64());
        let bytes = Bytes::from_static(b"probe");
        let done = match self.put_if(&name, PutMode::Create, bytes.clone()).await {
            Ok(done) => done,
            Err(Error::NotFound { .. }) => return Err(self.no_holder()),
            Err(error) => return Err(self.error(&name, &error)),
        };
        let mut heeds = true;
        for mode in [PutMode::Create, self.service.still(self.service.stranger)] {
            heeds &= match self.put_if(&name, mode, bytes.clone()).await {
                Ok(_) => false,
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => true,
                Err(error) => return Err(self.error(&name, &error)),
            };
        }
        heeds = heeds
            && match self.service.version(done.e_tag, done.version) {
                None => false,
                Some(version) => {
                    let put = self.put_if(&name, self.service.still(version.as_str()), bytes).await;
                    match put {
                        Ok(_) => true,
                        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => false,
                        Err(error) => return Err(self.error(&name, &error)),
                    }
                }
            };
        self.delete(&name).await?;
        if heeds {
            return Ok(());
        }
        let Service { conditions, heeded_by, .. } = self.service;
        let reason = format!(
            "{}: the service does not heed {conditions}, by which the log knows that the bucket is its own: use one that does \
             ({heeded_by}), or kind = \"folder\"",
            self.place
        );
        Err(StoreError::Unsupported { reason })
    }

    async fn there(&self, name: &str) -> Result<bool, StoreError> {
        match self.client.head(&self.path(name)).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.error(name, &error)),
        }
    }
}

/// An error's words without what a service says about who asked: of a page of XML only the code.
fn words(error: &Error) -> String {
    let text = error.to_string();
    let own = text.split('<').next().unwrap_or_default().trim_end_matches([' ', ':', '\n', '\u{feff}']);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    match code {
        Some((code, _)) => format!("{own}: {code}"),
        None => own.to_owned(),
    }
}

#[async_trait]
impl Store for BucketStore {
    async fn prepare(&self) -> Result<(), StoreError> {
        // Proves reach, rights and bucket at once; the error of a wrong key is clearer here than at the first upload.
        let whereabouts = self.service.whereabouts;
        let advice = format!("see that {whereabouts} right, and that the service can be reached from here");
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
        match self.put_if(name, PutMode::Create, bytes).await {
            Ok(_) => Ok(()),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
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
        let failed = |error: Error| self.error(name, &error);
        self.client.get(&self.path(name)).await.map_err(failed)?.bytes().await.map_err(failed)
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>, StoreError> {
        let prefix = format!("{}/", self.path(folder.trim_end_matches('/')));
        let cut = if self.prefix.is_empty() { 0 } else { self.prefix.len() + 1 };
        let (mut found, mut page_token) = (Vec::new(), None);
        loop {
            let (max_keys, token) = (Some(self.page_names_max), page_token.clone());
            let options = PaginatedListOptions { max_keys, page_token: token, ..PaginatedListOptions::default() };
            let page = self.client.list_paginated(Some(&prefix), options).await;
            let page = page.map_err(|error| self.error(folder, &error))?;
            found.extend(page.result.objects.into_iter().map(|meta| {
                let name = meta.location.as_ref().get(cut..).unwrap_or_default().to_owned();
                Listed { name, bytes: meta.size }
            }));
            match page.page_token {
                None => break,
                same if same == page_token => {
                    let reason = format!("{}: the service gives the same part of a list again and again", self.place);
                    return Err(StoreError::Failed { reason });
                }
                next => page_token = next,
            }
        }
        found.sort();
        Ok(found)
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        match self.client.delete(&self.path(name)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.error(name, &error)),
        }
    }

    async fn head(&self) -> Result<Option<Head>, StoreError> {
        let found = match self.client.get(&self.path(HEAD)).await {
            Ok(found) => found,
            Err(error) => match self.error(HEAD, &error) {
                StoreError::Missing { .. } => return Ok(None),
                error => return Err(error),
            },
        };
        let (e_tag, generation) = (found.meta.e_tag.clone(), found.meta.version.clone());
        let Some(version) = self.service.version(e_tag, generation) else {
            return refused(&format!(
                "{}: the service does not say which version it gives, so the head cannot be owned",
                self.place
            ));
        };
        let bytes = found.bytes().await.map_err(|error| self.error(HEAD, &error))?;
        Ok(Some(Head { version, bytes }))
    }

    async fn replace_head(&self, was: Option<&HeadVersion>, bytes: Bytes) -> Result<HeadVersion, StoreError> {
        let mode = was.map_or(PutMode::Create, |was| self.service.still(was.as_str()));
        let refusal = match self.put_if(HEAD, mode, bytes.clone()).await {
            Ok(done) => match self.service.version(done.e_tag, done.version) {
                Some(version) => return Ok(version),
                None => "the service does not say which version was written".to_owned(),
            },
            Err(error) => words(&error),
        };
        match self.head().await? {
            Some(head) if head.bytes == bytes => Ok(head.version),
            now if now.as_ref().map(|head| &head.version) == was => {
                Err(StoreError::Failed { reason: format!("{}: {refusal}", self.place) })
            }
            _ => Err(StoreError::HeadChanged),
        }
    }
}

#[cfg(test)]
mod tests;
