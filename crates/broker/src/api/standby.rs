//! What a broker that stands by answers: who is active, and nothing else. Called by `server/standby`.
//!
//! It does not know which topics there are: the active one is asked. Where that does not answer, it says so by a code after which clients
//! ask again, and whoever wants all of them gets no answer rather than a wrong one. Who writes or reads here took it for the leader, which it may have been: it is told who leads now, and
//! where that is (KIP-951). Who takes it for a coordinator is told that it is none.

mod elsewhere;

use bytes::Bytes;
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, DescribeClusterRequest, DescribeClusterResponse, FetchRequest, FetchResponse, FindCoordinatorRequest,
        FindCoordinatorResponse, MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse,
        describe_cluster_response::DescribeClusterBroker,
        fetch_response::{self, FetchableTopicResponse, PartitionData},
        find_coordinator_response::Coordinator,
        metadata_response::{MetadataResponseBroker, MetadataResponseTopic},
        produce_response::{self, PartitionProduceResponse, TopicProduceResponse},
    },
};

use super::{Request, RequestError, clients, text};
use crate::options::Peer;

const NOBODY: i32 = -1;
/// The first version of FindCoordinator that asks for many.
const MANY_FIRST: i16 = 4;
/// The first versions whose answers can say who leads.
const PRODUCE_HINTS_FIRST: i16 = 10;
const FETCH_HINTS_FIRST: i16 = 12;
/// The first version of Fetch whose answer can say where that is.
const FETCH_ENDPOINTS_FIRST: i16 = 16;

/// Which broker has the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Active {
    /// Its node.
    pub id: i32,
    /// The epoch in which it leads.
    pub epoch: u32,
}

/// What becomes of a request.
pub(crate) enum Told {
    /// Its answer.
    Answer(Bytes),
    /// The active broker knows the answer; where that gives none, this is it, or the connection ends.
    Asks(Option<Bytes>),
    /// Only the active broker can do it.
    Nothing,
}

/// Answers one request; `active` has the log, as far as is known.
pub(crate) fn answer(peers: &[Peer], active: Option<Active>, request: &Request) -> Result<Told, RequestError> {
    let node = active.and_then(|active| peers.iter().find(|peer| peer.id == active.id));
    let leader = active.zip(node).map(|(active, peer)| Leader { peer, epoch: active.epoch });
    match request.key {
        ApiKey::ApiVersions => Ok(Told::Answer(request.respond(&clients::api_versions(request))?)),
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
                return Ok(Told::Asks(None));
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
            Ok(if asks { Told::Asks(Some(frame)) } else { Told::Answer(frame) })
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
            Ok(Told::Answer(request.respond(&response)?))
        }
        ApiKey::FindCoordinator => {
            let asked = request.decode::<FindCoordinatorRequest>()?.of_standby();
            Ok(Told::Answer(request.respond(&coordinator(asked, node, request.version))?))
        }
        ApiKey::Produce if !request.is_old_produce() => {
            let asked = request.decode::<ProduceRequest>()?.of_standby();
            if asked.acks == 0 {
                return Ok(Told::Nothing); // who waits for no answer learns it from the end of the connection
            }
            Ok(Told::Answer(request.respond(&not_written(asked, leader, request.version))?))
        }
        ApiKey::Fetch => {
            let asked = request.decode::<FetchRequest>()?.of_standby();
            Ok(Told::Answer(request.respond(&not_read(asked, leader, request.version))?))
        }
        _ => Ok(elsewhere::told(request)?.map_or(Told::Nothing, Told::Answer)),
    }
}

/// The active broker, and where it is.
#[derive(Debug, Clone, Copy)]
struct Leader<'p> {
    peer: &'p Peer,
    epoch: u32,
}

impl Leader<'_> {
    fn epoch(&self) -> i32 {
        i32::try_from(self.epoch).unwrap_or(i32::MAX)
    }
}

fn not_written(asked: ProduceRequest, leader: Option<Leader<'_>>, version: i16) -> ProduceResponse {
    let leader = leader.filter(|_| version >= PRODUCE_HINTS_FIRST);
    let hint = leader.map(|leader| {
        let hint = produce_response::LeaderIdAndEpoch::default();
        hint.with_leader_id(leader.peer.id.into()).with_leader_epoch(leader.epoch())
    });
    let topics = asked.topic_data.into_iter().map(|topic| {
        let partitions = topic.partition_data.iter().map(|partition| {
            PartitionProduceResponse::default()
                .with_index(partition.index)
                .with_error_code(ResponseError::NotLeaderOrFollower.code())
                .with_base_offset(-1)
                .with_current_leader(hint.clone().unwrap_or_default())
        });
        let partitions = partitions.collect();
        let told = TopicProduceResponse::default().with_name(topic.name).with_topic_id(topic.topic_id);
        told.with_partition_responses(partitions)
    });
    let endpoints = leader.map(|leader| {
        let endpoint = produce_response::NodeEndpoint::default().with_node_id(leader.peer.id.into());
        endpoint.with_host(text(leader.peer.address.host.clone())).with_port(leader.peer.address.port.into())
    });
    ProduceResponse::default().with_responses(topics.collect()).with_node_endpoints(endpoints.into_iter().collect())
}

fn not_read(asked: FetchRequest, leader: Option<Leader<'_>>, version: i16) -> FetchResponse {
    if asked.session_id > 0 && asked.session_epoch > 0 {
        // Of a session with whoever was here before: the client asks again, for all of it.
        return FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
    }
    let leader = leader.filter(|_| version >= FETCH_HINTS_FIRST);
    let hint = leader.map(|leader| {
        let hint = fetch_response::LeaderIdAndEpoch::default();
        hint.with_leader_id(leader.peer.id.into()).with_leader_epoch(leader.epoch())
    });
    let topics = asked.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition)
                .with_error_code(ResponseError::NotLeaderOrFollower.code())
                .with_high_watermark(-1)
                .with_current_leader(hint.clone().unwrap_or_default())
        });
        let partitions = partitions.collect();
        FetchableTopicResponse::default()
            .with_topic(topic.topic)
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions)
    });
    let endpoints = leader.filter(|_| version >= FETCH_ENDPOINTS_FIRST).map(|leader| {
        let endpoint = fetch_response::NodeEndpoint::default().with_node_id(leader.peer.id.into());
        endpoint.with_host(text(leader.peer.address.host.clone())).with_port(leader.peer.address.port.into())
    });
    FetchResponse::default().with_responses(topics.collect()).with_node_endpoints(endpoints.into_iter().collect())
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

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::{
        messages::{
            RequestHeader, ResponseHeader, TopicName,
            fetch_request::{FetchPartition, FetchTopic},
            produce_request::{PartitionProduceData, TopicProduceData},
        },
        protocol::{Decodable, Encodable},
    };

    use super::*;
    use crate::{api::ADVERTISED, options::BrokerLimits};

    pub(super) fn request(key: ApiKey, version: i16, body: &impl Encodable) -> Request {
        let mut frame = BytesMut::new();
        let header = RequestHeader::default().with_request_api_key(key as i16).with_request_api_version(version);
        header.with_correlation_id(7).encode(&mut frame, key.request_header_version(version)).expect("encoded");
        body.encode(&mut frame, version).expect("encoded");
        Request::parse(frame.freeze(), &BrokerLimits::default()).expect("a request")
    }

    pub(super) fn told<R: Decodable>(key: ApiKey, version: i16, told: Told) -> R {
        let (Told::Answer(mut frame) | Told::Asks(Some(mut frame))) = told else { panic!("no answer") };
        let _ = frame.split_to(4);
        let header = ResponseHeader::decode(&mut frame, key.response_header_version(version)).expect("a header");
        assert_eq!(header.correlation_id, 7);
        let body = R::decode(&mut frame, version).expect("an answer");
        assert!(frame.is_empty(), "{key:?} {version}");
        body
    }

    pub(super) fn versions(key: ApiKey) -> impl Iterator<Item = i16> {
        let (_, versions) = ADVERTISED.iter().find(|(offered, _)| *offered == key).expect("offered");
        versions.clone()
    }

    pub(super) fn name() -> TopicName {
        TopicName(text("t".to_owned()))
    }

    pub(super) const ACTIVE: Option<Active> = Some(Active { id: 2, epoch: 9 });

    pub(super) fn peers() -> Vec<Peer> {
        ["1@one:9092", "2@two:9093"].iter().map(|peer| peer.parse().expect("a peer")).collect()
    }

    #[test]
    fn who_writes_here_is_told_who_leads_and_where_that_is_in_every_version_that_can_say_it() {
        let partition = PartitionProduceData::default().with_index(3);
        let asked = |version, acks| {
            let topic = TopicProduceData::default().with_partition_data(vec![partition.clone()]);
            let topic =
                if version < 13 { topic.with_name(name()) } else { topic.with_topic_id(uuid::Uuid::from_u128(4)) };
            request(ApiKey::Produce, version, &ProduceRequest::default().with_acks(acks).with_topic_data(vec![topic]))
        };
        for version in versions(ApiKey::Produce).filter(|version| *version >= 3) {
            for active in [ACTIVE, None] {
                let said = answer(&peers(), active, &asked(version, -1)).expect("answered");
                let said: ProduceResponse = told(ApiKey::Produce, version, said);
                let partition = &said.responses[0].partition_responses[0];
                assert_eq!((partition.index, partition.error_code), (3, ResponseError::NotLeaderOrFollower.code()));
                let (leader, node) = (&partition.current_leader, said.node_endpoints.first());
                if version >= 10 && active.is_some() {
                    assert_eq!((leader.leader_id.0, leader.leader_epoch), (2, 9), "{version}");
                    let node = node.expect("it says where");
                    assert_eq!((node.node_id.0, &*node.host, node.port), (2, "two", 9093));
                } else {
                    assert_eq!((leader.leader_id.0, node), (NOBODY, None), "{version}");
                }
            }
        }
        assert!(matches!(answer(&peers(), ACTIVE, &asked(13, 0)), Ok(Told::Nothing)), "nobody waits for an answer");
    }

    #[test]
    fn who_reads_here_is_told_so_too_and_begins_its_session_again() {
        let partition = FetchPartition::default().with_partition(3);
        let asked = |version: i16, session| {
            let topic = FetchTopic::default().with_partitions(vec![partition.clone()]);
            let topic =
                if version < 13 { topic.with_topic(name()) } else { topic.with_topic_id(uuid::Uuid::from_u128(4)) };
            let asked = FetchRequest::default().with_topics(vec![topic]);
            let asked = if version < 7 { asked } else { asked.with_session_id(session).with_session_epoch(session) };
            request(ApiKey::Fetch, version, &asked)
        };
        for version in versions(ApiKey::Fetch) {
            let said = answer(&peers(), ACTIVE, &asked(version, 0)).expect("answered");
            let said: FetchResponse = told(ApiKey::Fetch, version, said);
            let partition = &said.responses[0].partitions[0];
            assert_eq!(
                (partition.partition_index, partition.error_code),
                (3, ResponseError::NotLeaderOrFollower.code())
            );
            let leader = &partition.current_leader;
            let wanted = if version >= 12 { (2, 9) } else { (NOBODY, -1) };
            assert_eq!((leader.leader_id.0, leader.leader_epoch), wanted, "{version}");
            let node = said.node_endpoints.first().map(|node| (node.node_id.0, &*node.host, node.port));
            assert_eq!(node, (version >= 16).then_some((2, "two", 9093)), "{version}");
        }
        let said: FetchResponse = told(ApiKey::Fetch, 18, answer(&peers(), ACTIVE, &asked(18, 5)).expect("answered"));
        assert_eq!(said.error_code, ResponseError::FetchSessionIdNotFound.code());
    }
}
