//! ApiVersions and InitProducerId: what a client asks before it works.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
};

use super::{ADVERTISED, Request, text};
use crate::broker::Broker;

/// Features of Kafka's that this broker has, and at which level: the new group protocol (KIP-848).
const FEATURES: &[(&str, i16)] = &[("group.version", 1)];
/// The first version that tells of features, and the first that can say that one may be switched off.
const FEATURES_FIRST: i16 = 3;
const LEVEL_ZERO_FIRST: i16 = 4;

pub(super) fn api_versions(request: &Request) -> ApiVersionsResponse {
    let keys = ADVERTISED.iter().map(|(key, versions)| {
        let key = ApiVersion::default().with_api_key(*key as i16);
        key.with_min_version(*versions.start()).with_max_version(*versions.end())
    });
    let code = if request.known_version { 0 } else { ResponseError::UnsupportedVersion.code() };
    let supported = FEATURES.iter().map(|(name, level)| {
        SupportedFeatureKey::default().with_name(text(*name)).with_min_version(0).with_max_version(*level)
    });
    // Up to version 3 a client could not read that a feature may be at level 0 (KAFKA-17011): it is not told of them.
    let told = request.version >= LEVEL_ZERO_FIRST;
    let finalized = FEATURES.iter().map(|(name, level)| {
        FinalizedFeatureKey::default()
            .with_name(text(*name))
            .with_min_version_level(*level)
            .with_max_version_level(*level)
    });
    let response = ApiVersionsResponse::default().with_error_code(code).with_api_keys(keys.collect());
    if request.version < FEATURES_FIRST {
        return response;
    }
    response
        .with_supported_features(supported.filter(|_| told).collect())
        .with_finalized_features_epoch(0)
        .with_finalized_features(finalized.collect())
}

pub(super) async fn init_producer_id(broker: &Broker, request: InitProducerIdRequest) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default();
    if request.transactional_id.is_some() {
        // Fatal for every client, unlike codes that would make it try again for ever.
        return response
            .with_error_code(ResponseError::TransactionalIdAuthorizationFailed.code())
            .with_producer_id((-1).into());
    }
    match broker.inner.topics.next_producer_id() {
        // An id of its own for each request, also where the client names an older one: its sequence starts anew.
        Some(id) => response.with_producer_id(id.into()).with_producer_epoch(0),
        None => response.with_error_code(ResponseError::CoordinatorNotAvailable.code()).with_producer_id((-1).into()),
    }
}
