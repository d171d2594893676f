//! ApiVersions and InitProducerId: what a client asks before it works.

use kafka_protocol::{
    error::ResponseError,
    messages::{ApiVersionsResponse, InitProducerIdRequest, InitProducerIdResponse, api_versions_response::ApiVersion},
};

use super::{ADVERTISED, Request};
use crate::broker::Broker;

pub(super) fn api_versions(request: &Request) -> ApiVersionsResponse {
    let keys = ADVERTISED.iter().map(|(key, versions)| {
        let key = ApiVersion::default().with_api_key(*key as i16);
        key.with_min_version(*versions.start()).with_max_version(*versions.end())
    });
    let code = if request.known_version { 0 } else { ResponseError::UnsupportedVersion.code() };
    ApiVersionsResponse::default().with_error_code(code).with_api_keys(keys.collect())
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
