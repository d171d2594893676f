//! ListConfigResources (KIP-1142): what DescribeConfigs can be asked about, by kind.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        ListConfigResourcesRequest, ListConfigResourcesResponse, list_config_resources_response::ConfigResource,
    },
};

use super::{
    configs::{BROKER, CLIENT_METRICS, GROUP, TOPIC},
    text,
};
use crate::{broker::Broker, resources::ResourceKind};

/// What Kafka knows and has no configs here: loggers of brokers.
const LOGGERS: i8 = 8;
/// The first version that names kinds; before, it was about client metrics alone.
const KINDS_FIRST: i16 = 1;

pub(super) async fn answer(
    broker: &Broker,
    request: ListConfigResourcesRequest,
    version: i16,
) -> ListConfigResourcesResponse {
    let response = ListConfigResourcesResponse::default();
    let kinds = if version < KINDS_FIRST { vec![CLIENT_METRICS] } else { request.resource_types };
    if kinds.iter().any(|kind| ![TOPIC, BROKER, LOGGERS, CLIENT_METRICS, GROUP].contains(kind)) {
        return response.with_error_code(ResponseError::UnsupportedVersion.code());
    }
    let is_asked = |kind| kinds.is_empty() || kinds.contains(&kind);
    let one = |name: String, kind| ConfigResource::default().with_resource_name(text(name)).with_resource_type(kind);
    let mut resources = Vec::new();
    if is_asked(BROKER) {
        resources.push(one(broker.inner.options.node_id.to_string(), BROKER));
    }
    if is_asked(TOPIC) {
        resources.extend(broker.inner.topics.all().iter().map(|topic| one(topic.name.clone(), TOPIC)));
    }
    for (kind, of) in [(CLIENT_METRICS, ResourceKind::ClientMetrics), (GROUP, ResourceKind::Group)] {
        if is_asked(kind) {
            resources.extend(broker.inner.resources.all(of).keys().map(|name| one(name.clone(), kind)));
        }
    }
    response.with_config_resources(resources)
}
