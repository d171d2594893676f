//! Buckets of Google Cloud Storage.
//!
//! Every PUT has `x-goog-if-generation-match`: 0 creates, and the head is replaced if it still is the generation that was read. An
//! `ETag` is of no use there: it is not what a condition of a write can name.

use std::fmt;

use object_store::gcp::GoogleCloudStorageBuilder;

use super::{BucketStore, Service, Versions, connector, is_url, request_options};
use crate::StoreError;

pub(super) const SERVICE: Service = Service {
    versions: Versions::Generation,
    // Generations are times in microseconds.
    stranger: "1",
    conditions: "x-goog-if-generation-match",
    heeded_by: "Google Cloud Storage",
    whereabouts: "endpoint is",
    keys: "service_account_key in [store], or GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
    holder: "bucket",
    no_holder: "NoSuchBucket",
};

/// Where the bucket is, and who asks.
#[derive(Clone, Default)]
pub struct GcsOptions {
    /// Bucket.
    pub bucket: String,
    /// Names begin with this and a `/`; empty for the whole bucket.
    pub prefix: String,
    /// URL of the service; none is Google's.
    pub endpoint: Option<String>,
    /// The key file of a service account, its text; none takes what Google's tools take: environment, their own file, instance.
    pub service_account_key: Option<String>,
}

impl fmt::Debug for GcsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, prefix, endpoint, .. } = self;
        f.debug_struct("GcsOptions")
            .field("bucket", bucket)
            .field("prefix", prefix)
            .field("endpoint", endpoint)
            .finish_non_exhaustive()
    }
}

impl BucketStore {
    /// A store in a bucket of Google Cloud Storage.
    ///
    /// # Errors
    /// Where the options cannot be used.
    pub fn gcs(options: &GcsOptions) -> Result<Self, StoreError> {
        is_url(options.endpoint.as_deref())?;
        let (client, retry) = request_options(options.endpoint.as_deref());
        // A key that is given stands alone: object_store refuses one beside what the environment names.
        let builder = match &options.service_account_key {
            Some(key) => GoogleCloudStorageBuilder::new().with_service_account_key(key),
            None => GoogleCloudStorageBuilder::from_env(),
        };
        let mut builder = builder.with_bucket_name(&options.bucket).with_client_options(client).with_retry(retry);
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_base_url(endpoint.trim_end_matches('/'));
        }
        if let Some(connector) = connector() {
            builder = builder.with_http_connector(connector);
        }
        Self::new("gs", &options.bucket, &options.prefix, &SERVICE, builder.build())
    }
}
