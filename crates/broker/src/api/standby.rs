//! What a broker that stands by answers: who is active, and nothing else. Called by `server/standby`.
//!
//! It does not know which topics there are. It says so by a code after which clients ask again, and whoever wants all of them gets
//! no answer rather than a wrong one.

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest, FindCoordinatorResponse,
        MetadataRequest, MetadataResponse,
        describe_cluster_response::DescribeClusterBroker,
        find_coordinator_response::Coordinator,
        metadata_response::{MetadataResponseBroker, MetadataResponseTopic},
    },
};

use super::{Request, RequestError, clients, text};
use crate::options::Peer;

const NOBODY: i32 = -1;
/// The first version of FindCoordinator that asks for many.
const MANY_FIRST: i16 = 4;

/// An answer, and whether the connection ends behind it.
pub(crate) enum Told {
    /// It goes on.
    Stays(Bytes),
    /// Who asked for topics is better served elsewhere, and would not look there while it has a connection here.
    Leaves(Bytes),
    /// Only the active broker can answer.
    Nothing,
}

/// Answers one request; `active` is the node that has the log, as far as is known.
pub(crate) fn answer(peers: &[Peer], active: Option<i32>, request: &Request) -> Result<Told, RequestError> {
    let node = active.and_then(|id| peers.iter().find(|peer| peer.id == id));
    match request.key {
        ApiKey::ApiVersions => Ok(Told::Stays(request.respond(&clients::api_versions(request))?)),
        ApiKey::Metadata => {
            let asked = request.decode::<MetadataRequest>()?.of_standby();
            let brokers = peers.iter().map(|peer| {
                MetadataResponseBroker::default()
                    .with_node_id(peer.id.into())
                    .with_host(text(peer.address.host.clone()))
                    .with_port(i32::from(peer.address.port))
            });
            // Version 0 has no null: an empty list means all.
            let Some(topics) = asked.topics.filter(|topics| request.version > 0 || !topics.is_empty()) else {
                return Ok(Told::Nothing);
            };
            let asks = !topics.is_empty();
            let topics = topics.into_iter().map(|topic| {
                let code = ResponseError::LeaderNotAvailable.code();
                let told = MetadataResponseTopic::default().with_error_code(code);
                told.with_name(topic.name).with_topic_id(topic.topic_id)
            });
            let response = MetadataResponse::default()
                .with_brokers(brokers.collect())
                .with_cluster_id(None)
                .with_controller_id(node.map_or(NOBODY, |node| node.id).into())
                .with_topics(topics.collect());
            let frame = request.respond(&response)?;
            Ok(if asks { Told::Leaves(frame) } else { Told::Stays(frame) })
        }
        ApiKey::DescribeCluster => {
            let asked = request.decode::<DescribeClusterRequest>()?.of_standby();
            let brokers = peers.iter().map(|peer| {
                DescribeClusterBroker::default()
                    .with_broker_id(peer.id.into())
                    .with_host(text(peer.address.host.clone()))
                    .with_port(i32::from(peer.address.port))
            });
            let response = DescribeClusterResponse::default()
                .with_endpoint_type(asked.endpoint_type)
                .with_controller_id(node.map_or(NOBODY, |node| node.id).into())
                .with_brokers(brokers.collect());
            Ok(Told::Stays(request.respond(&response)?))
        }
        ApiKey::FindCoordinator => {
            let asked = request.decode::<FindCoordinatorRequest>()?.of_standby();
            Ok(Told::Stays(request.respond(&coordinator(asked, node, request.version))?))
        }
        _ => Ok(Told::Nothing),
    }
}

fn coordinator(asked: FindCoordinatorRequest, node: Option<&Peer>, version: i16) -> FindCoordinatorResponse {
    let code = if node.is_some() { 0 } else { ResponseError::CoordinatorNotAvailable.code() };
    let id = node.map_or(NOBODY, |node| node.id);
    let (host, port) =
        node.map_or((String::new(), NOBODY), |node| (node.address.host.clone(), node.address.port.into()));
    if version < MANY_FIRST {
        let response = FindCoordinatorResponse::default().with_error_message(None).with_error_code(code);
        return response.with_node_id(id.into()).with_host(text(host)).with_port(port);
    }
    let coordinators = asked.coordinator_keys.into_iter().map(|key| {
        let one = Coordinator::default().with_key(key).with_error_message(None).with_error_code(code);
        one.with_node_id(id.into()).with_host(text(host.clone())).with_port(port)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}
