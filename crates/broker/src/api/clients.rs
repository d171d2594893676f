//! ApiVersions and InitProducerId: what a client asks before it works.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
};

use super::{ADVERTISED, Request, codes, text};
use crate::{
    broker::Broker,
    txn::{TxnError, VERSION_BUMPS},
};

/// Features of Kafka's that this broker has, and at which level: the new group protocol (KIP-848), and transactions whose end bumps
/// the epoch of their producer (KIP-890).
const FEATURES: &[(&str, i16)] = &[("group.version", 1), ("transaction.version", VERSION_BUMPS)];
/// The first version that tells of features, and the first that can say that one may be switched off.
const FEATURES_FIRST: i16 = 3;
const LEVEL_ZERO_FIRST: i16 = 4;
/// The first version of InitProducerId whose answer can say that somebody else has the transactional id (KIP-588).
const FENCED_FIRST: i16 = 4;

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

pub(super) async fn init_producer_id(
    broker: &Broker,
    request: InitProducerIdRequest,
    version: i16,
) -> InitProducerIdResponse {
    let response = InitProducerIdResponse::default();
    if let Some(id) = &request.transactional_id {
        let named = match (request.producer_id.0, request.producer_epoch) {
            (-1, -1) => Ok(None),
            (producer, epoch) if producer >= 0 && epoch >= 0 => Ok(Some((producer, epoch))),
            _ => Err(TxnError::HalfNamed),
        };
        let begun = match named {
            Ok(named) => broker.initialise_producer(id, request.transaction_timeout_ms, named).await,
            Err(error) => Err(error),
        };
        return match begun {
            Ok((producer, epoch)) => response.with_producer_id(producer.into()).with_producer_epoch(epoch),
            Err(error) => {
                let code = codes::of_transaction(error, version >= FENCED_FIRST);
                response.with_error_code(code).with_producer_id((-1).into()).with_producer_epoch(-1)
            }
        };
    }
    match broker.inner.topics.next_producer_id() {
        // An id of its own for each request, also where the client names an older one: its sequence starts anew.
        Some(id) => response.with_producer_id(id.into()).with_producer_epoch(0),
        None => response.with_error_code(ResponseError::CoordinatorNotAvailable.code()).with_producer_id((-1).into()),
    }
}
