//! Buckets of S3, or of anything that speaks S3 with conditional writes (AWS since 2024, MinIO, R2, Ceph).
//!
//! The head is replaced by a PUT with `If-Match`; objects are created with `If-None-Match: *`.

use std::fmt;

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};

use super::{BucketStore, Service, Versions, connector, is_url, refused, request_options};
use crate::StoreError;

pub(super) const SERVICE: Service = Service {
    versions: Versions::Tag,
    stranger: "\"00000000000000000000000000000000\"",
    conditions: "If-None-Match and If-Match",
    heeded_by: "AWS, MinIO, R2 and Ceph of 2024 or newer",
    whereabouts: "endpoint and region are",
    keys: "access_key_id and secret_access_key in [store], or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    holder: "bucket",
    no_holder: "NoSuchBucket",
};

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
        if self.access_key_id.is_some() != self.secret_access_key.is_some() {
            return refused("access_key_id and secret_access_key go together: give both, or neither");
        }
        is_url(self.endpoint.as_deref())
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

impl BucketStore {
    /// A store in a bucket of S3.
    ///
    /// # Errors
    /// Where the options cannot be used.
    pub fn s3(options: &S3Options) -> Result<Self, StoreError> {
        options.check()?;
        let (client, retry) = request_options(options.endpoint.as_deref());
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
            builder = builder.with_endpoint(endpoint);
        }
        if let (Some(id), Some(secret)) = (&options.access_key_id, &options.secret_access_key) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret);
        }
        if let Some(token) = &options.session_token {
            builder = builder.with_token(token);
        }
        if let Some(connector) = connector() {
            builder = builder.with_http_connector(connector);
        }
        Self::new("s3", &options.bucket, &options.prefix, &SERVICE, builder.build())
    }
}
