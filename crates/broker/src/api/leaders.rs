//! Hints of a broker that was replaced: who leads now, so that a client need not ask first (KIP-951). Called by Produce and Fetch.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        FetchResponse, ProduceResponse,
        fetch_response::{LeaderIdAndEpoch as FetchLeader, NodeEndpoint as FetchEndpoint},
        produce_response::{LeaderIdAndEpoch as ProduceLeader, NodeEndpoint as ProduceEndpoint},
    },
};

use super::text;
use crate::broker::Broker;

/// The first versions that have room for it.
const PRODUCE_FIRST: i16 = 10;
const FETCH_FIRST: i16 = 16;
const NOT_LEADER: i16 = ResponseError::NotLeaderOrFollower.code();

pub(super) async fn of_produce(broker: &Broker, response: &mut ProduceResponse, version: i16) {
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partition_responses);
    if version < PRODUCE_FIRST || !partitions.any(|partition| partition.error_code == NOT_LEADER) {
        return;
    }
    let Some((peer, epoch)) = broker.successor().await else { return };
    let leader = ProduceLeader::default().with_leader_id(peer.id.into()).with_leader_epoch(epoch);
    let partitions = response.responses.iter_mut().flat_map(|topic| &mut topic.partition_responses);
    for partition in partitions.filter(|partition| partition.error_code == NOT_LEADER) {
        partition.current_leader = leader.clone();
    }
    let (host, port) = (text(peer.address.host), i32::from(peer.address.port));
    let endpoint = ProduceEndpoint::default().with_node_id(peer.id.into()).with_host(host).with_port(port);
    response.node_endpoints = vec![endpoint];
}

pub(super) async fn of_fetch(broker: &Broker, response: &mut FetchResponse, version: i16) {
    let mut partitions = response.responses.iter().flat_map(|topic| &topic.partitions);
    if version < FETCH_FIRST || !partitions.any(|partition| partition.error_code == NOT_LEADER) {
        return;
    }
    let Some((peer, epoch)) = broker.successor().await else { return };
    let leader = FetchLeader::default().with_leader_id(peer.id.into()).with_leader_epoch(epoch);
    let partitions = response.responses.iter_mut().flat_map(|topic| &mut topic.partitions);
    for partition in partitions.filter(|partition| partition.error_code == NOT_LEADER) {
        partition.current_leader = leader.clone();
    }
    let (host, port) = (text(peer.address.host), i32::from(peer.address.port));
    let endpoint = FetchEndpoint::default().with_node_id(peer.id.into()).with_host(host).with_port(port);
    response.node_endpoints = vec![endpoint];
}
