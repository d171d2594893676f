//! DescribeCluster.

use kafka_protocol::{
    error::ResponseError,
    messages::{DescribeClusterRequest, DescribeClusterResponse, describe_cluster_response::DescribeClusterBroker},
};

use super::{Session, reason, text};
use crate::broker::Broker;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(super) async fn answer(
    broker: &Broker,
    session: &Session,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    let response = DescribeClusterResponse::default().with_endpoint_type(request.endpoint_type);
    if request.endpoint_type != BROKERS {
        let why = "there are no controllers to talk to: ask for brokers";
        let is_known = request.endpoint_type == CONTROLLERS;
        let error =
            if is_known { ResponseError::MismatchedEndpointType } else { ResponseError::UnsupportedEndpointType };
        let code = error.code();
        return response.with_error_code(code).with_error_message(Some(reason(why)));
    }
    let node = broker.inner.options.node_id;
    let brokers = session.nodes(broker).into_iter().map(|peer| {
        DescribeClusterBroker::default()
            .with_broker_id(peer.id.into())
            .with_host(text(peer.address.host))
            .with_port(i32::from(peer.address.port))
    });
    response
        .with_cluster_id(text(broker.inner.topics.cluster().to_string()))
        .with_controller_id(node.into())
        .with_brokers(brokers.collect())
}
