//! One small file for each request of Kafka's protocol, and the table that says which there are. Called by the server.
//!
//! Each file turns a decoded request into a response by asking the broker; none touches a socket. Every request passes
//! [`Request::parse`] first, which checks its shape and bounds.

mod acls;
mod alter;
mod clients;
mod cluster;
mod codes;
mod config_resources;
mod configs;
mod consumer_groups;
mod coordinator;
mod epochs;
mod fetch;
mod frame;
mod groups;
mod guard;
mod leaders;
mod log_dirs;
mod login;
mod metadata;
mod offset_delete;
mod offset_list;
mod offsets;
mod old_produce;
mod produce;
mod producers;
mod quotas;
mod replicas;
mod scram;
mod session;
mod share_fetch;
mod share_groups;
mod share_offsets;
pub(crate) mod standby;
mod telemetry;
mod topic_partitions;
mod topics;
mod transactions;
mod worked;

use std::{ops::RangeInclusive, time::Duration};

use bytes::Bytes;
use kafka_protocol::{
    messages::{
        AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterClientQuotasRequest, AlterConfigsRequest,
        AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, AlterShareGroupOffsetsRequest,
        AlterUserScramCredentialsRequest, ApiKey, ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest,
        CreateAclsRequest, CreatePartitionsRequest, CreateTopicsRequest, DeleteAclsRequest, DeleteGroupsRequest,
        DeleteRecordsRequest, DeleteShareGroupOffsetsRequest, DeleteTopicsRequest, DescribeAclsRequest,
        DescribeClientQuotasRequest, DescribeClusterRequest, DescribeConfigsRequest, DescribeGroupsRequest,
        DescribeLogDirsRequest, DescribeProducersRequest, DescribeShareGroupOffsetsRequest,
        DescribeTopicPartitionsRequest, DescribeTransactionsRequest, DescribeUserScramCredentialsRequest,
        ElectLeadersRequest, EndTxnRequest, FetchRequest, FindCoordinatorRequest, GetTelemetrySubscriptionsRequest,
        HeartbeatRequest, IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest, LeaveGroupRequest,
        ListConfigResourcesRequest, ListGroupsRequest, ListOffsetsRequest, ListPartitionReassignmentsRequest,
        ListTransactionsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
        OffsetForLeaderEpochRequest, ProduceRequest, PushTelemetryRequest, SaslAuthenticateRequest,
        SaslHandshakeRequest, ShareAcknowledgeRequest, ShareFetchRequest, ShareGroupDescribeRequest,
        ShareGroupHeartbeatRequest, SyncGroupRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
    },
    protocol::StrBytes,
};

pub(crate) use fetch::sessions::FetchSessions;
pub(crate) use frame::{Request, RequestError};
pub(crate) use session::Session;

use guard::{Gate, Guarded, Verdict};
use worked::worked;

use crate::{broker::Broker, budget::Claim, telemetry::UNPACKED_BYTES_MAX, turn::Turn, wire::Pieces};

/// Bytes of an error's message.
const REASON_BYTES_MAX: usize = 1_000;
/// What an answer may take without a share of the budget.
const ANSWER_FREE_BYTES: usize = 64 << 10;
/// About what Metadata says of a topic.
const TOPIC_BYTES: usize = 128;
/// About what Metadata says of a partition.
const PARTITION_BYTES: usize = 64;
/// About what DescribeConfigs says of a topic.
const TOPIC_CONFIG_BYTES: usize = 8 << 10;

/// What is offered, and nothing that is not done. Produce 0 to 2 are named though they are refused: librdkafka takes a
/// broker without them for one that cannot produce at all (KAFKA-18659).
pub(crate) const ADVERTISED: &[(ApiKey, RangeInclusive<i16>)] = &[
    (ApiKey::Produce, 0..=13),
    (ApiKey::Fetch, 4..=18),
    (ApiKey::ListOffsets, 1..=11),
    (ApiKey::Metadata, 0..=13),
    (ApiKey::OffsetCommit, 2..=10),
    (ApiKey::OffsetFetch, 1..=10),
    (ApiKey::FindCoordinator, 0..=6),
    (ApiKey::JoinGroup, 0..=9),
    (ApiKey::Heartbeat, 0..=4),
    (ApiKey::LeaveGroup, 0..=5),
    (ApiKey::SyncGroup, 0..=5),
    (ApiKey::DescribeGroups, 0..=6),
    (ApiKey::ListGroups, 0..=5),
    (ApiKey::SaslHandshake, 0..=1),
    (ApiKey::ApiVersions, 0..=5),
    (ApiKey::CreateTopics, 2..=7),
    (ApiKey::DeleteTopics, 1..=6),
    (ApiKey::DeleteRecords, 0..=2),
    (ApiKey::InitProducerId, 0..=5),
    (ApiKey::OffsetForLeaderEpoch, 2..=4),
    (ApiKey::AddPartitionsToTxn, 0..=5),
    (ApiKey::AddOffsetsToTxn, 0..=4),
    (ApiKey::EndTxn, 0..=5),
    (ApiKey::WriteTxnMarkers, 1..=2),
    (ApiKey::TxnOffsetCommit, 0..=6),
    (ApiKey::DescribeAcls, 1..=3),
    (ApiKey::CreateAcls, 1..=3),
    (ApiKey::DeleteAcls, 1..=3),
    (ApiKey::DescribeConfigs, 1..=4),
    (ApiKey::AlterConfigs, 0..=2),
    (ApiKey::AlterReplicaLogDirs, 1..=2),
    (ApiKey::DescribeLogDirs, 1..=5),
    (ApiKey::SaslAuthenticate, 0..=2),
    (ApiKey::CreatePartitions, 0..=3),
    (ApiKey::DeleteGroups, 0..=3),
    (ApiKey::ElectLeaders, 0..=2),
    (ApiKey::IncrementalAlterConfigs, 0..=1),
    (ApiKey::AlterPartitionReassignments, 0..=1),
    (ApiKey::ListPartitionReassignments, 0..=0),
    (ApiKey::OffsetDelete, 0..=0),
    (ApiKey::DescribeClientQuotas, 0..=1),
    (ApiKey::AlterClientQuotas, 0..=1),
    (ApiKey::DescribeUserScramCredentials, 0..=0),
    (ApiKey::AlterUserScramCredentials, 0..=0),
    (ApiKey::DescribeCluster, 0..=2),
    (ApiKey::ListConfigResources, 0..=1),
    (ApiKey::DescribeTopicPartitions, 0..=0),
    (ApiKey::ConsumerGroupHeartbeat, 0..=1),
    (ApiKey::ConsumerGroupDescribe, 0..=1),
    (ApiKey::DescribeProducers, 0..=0),
    (ApiKey::DescribeTransactions, 0..=0),
    (ApiKey::ListTransactions, 0..=2),
    (ApiKey::GetTelemetrySubscriptions, 0..=0),
    (ApiKey::PushTelemetry, 0..=0),
    (ApiKey::ShareGroupHeartbeat, 1..=1),
    (ApiKey::ShareGroupDescribe, 1..=1),
    (ApiKey::ShareFetch, 1..=2),
    (ApiKey::ShareAcknowledge, 1..=2),
    (ApiKey::DescribeShareGroupOffsets, 0..=0),
    (ApiKey::AlterShareGroupOffsets, 0..=0),
    (ApiKey::DeleteShareGroupOffsets, 0..=0),
];

/// Answers Produce; `None` where the client wants no answer (acks 0). And how long its connection must rest for the time that took.
pub(crate) async fn produce(
    broker: &Broker,
    session: &Session,
    request: Request,
    turn: Turn,
) -> Result<(Option<Bytes>, Duration), RequestError> {
    if request.is_old_produce() {
        return old_produce::refuse(&request).map(|answer| (answer, Duration::ZERO));
    }
    let mut waits = Duration::ZERO;
    let gate = Gate::of(broker, session);
    let response = match request.decode::<ProduceRequest>()?.decide(&gate, request.version) {
        Verdict::None(response) => response,
        Verdict::Some(decoded, kept) => {
            let silent = decoded.acks == 0;
            let (mut response, took) = worked(produce::answer(broker, session, decoded, request.version, turn)).await;
            waits = broker.inner.quotas.charge_time(&session.principal, &request.client_id, took);
            if silent {
                return Ok((None, waits));
            }
            response.throttle_time_ms = response.throttle_time_ms.max(told_ms(waits));
            ProduceRequest::complete(&gate, kept, &mut response);
            response
        }
    };
    Ok((Some(request.respond(&response)?), waits))
}

/// A time as answers tell it.
fn told_ms(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// Answers any other request: the frame, and the share of the answers' budget that it holds until it is written.
pub(crate) async fn answer(
    broker: &Broker,
    session: &mut Session,
    request: Request,
) -> Result<(Pieces, Claim), RequestError> {
    session.client_id.clone_from(&request.client_id);
    let mut claim = broker.inner.answers_budget.claim();
    if request.key == ApiKey::Fetch {
        let gate = Gate::of(broker, session);
        let (answer, throttled) = match request.decode::<FetchRequest>()?.decide(&gate, request.version) {
            Verdict::None(response) => (response.into(), Duration::ZERO),
            Verdict::Some(decoded, ()) => {
                let answer = fetch::answer(broker, &gate, decoded, request.version, &mut claim);
                let ((mut answer, throttled), took) = worked(answer).await;
                let waits = broker.inner.quotas.charge_time(&session.principal, &session.client_id, took);
                let told = &mut answer.response.throttle_time_ms;
                *told = (*told).max(told_ms(waits));
                (answer, throttled.max(waits))
            }
        };
        (session.throttled, session.reads_behind) = (throttled, answer.is_behind);
        return Ok((request.respond_fetch(answer)?, claim));
    }
    if request.key == ApiKey::ShareFetch {
        let frame = fetch_shared(broker, session, &request, &mut claim).await?;
        return Ok((frame.into(), claim));
    }
    // What is told of every topic and group can be much; what a request names costs about as much as naming it.
    claim.cover(answer_bytes(broker, &request).saturating_sub(ANSWER_FREE_BYTES)).await?;
    let (frame, waits) = table(broker, session, request).await?;
    session.throttled = waits;
    claim.cover(frame.len().saturating_sub(ANSWER_FREE_BYTES)).await?;
    Ok((frame.into(), claim))
}

/// Answers ShareFetch, whose session is the connection's.
async fn fetch_shared(
    broker: &Broker,
    session: &mut Session,
    request: &Request,
    claim: &mut Claim,
) -> Result<Bytes, RequestError> {
    let mut link = session.share_link.take();
    let gate = Gate::of(broker, session);
    let (answer, throttled) = match request.decode::<ShareFetchRequest>()?.decide(&gate, request.version) {
        Verdict::None(response) => (response, Duration::ZERO),
        Verdict::Some(decoded, ()) => {
            let newer = share_fetch::Newer::of_fetch(request.rest());
            let answer = share_fetch::fetch(broker, &gate, &mut link, decoded, newer, claim);
            let ((mut answer, throttled), took) = worked(answer).await;
            let waits = broker.inner.quotas.charge_time(&session.principal, &session.client_id, took);
            answer.throttle_time_ms = answer.throttle_time_ms.max(told_ms(waits));
            (answer, throttled.max(waits))
        }
    };
    (session.throttled, session.share_link) = (throttled, link);
    request.respond(&answer)
}

/// Answers ShareAcknowledge, whose newer version has something besides; and how long its connection must rest.
async fn acknowledge_shared(
    broker: &Broker,
    session: &Session,
    request: &Request,
) -> Result<(Bytes, Duration), RequestError> {
    let gate = Gate::of(broker, session);
    let (answer, lock_ms, waits) = match request.decode::<ShareAcknowledgeRequest>()?.decide(&gate, request.version) {
        Verdict::None(answer) => (answer, 0, Duration::ZERO),
        Verdict::Some(decoded, ()) => {
            let newer = share_fetch::Newer::of_acknowledge(request.rest());
            let ((mut answer, lock_ms), took) = worked(share_fetch::acknowledge(broker, &gate, decoded, newer)).await;
            let waits = broker.inner.quotas.charge_time(&session.principal, &session.client_id, took);
            answer.throttle_time_ms = answer.throttle_time_ms.max(told_ms(waits));
            (answer, lock_ms, waits)
        }
    };
    Ok((request.respond_adding(&answer, &lock_ms.to_be_bytes())?, waits))
}

/// What the largest answer to this request takes now.
fn answer_bytes(broker: &Broker, request: &Request) -> usize {
    let topics = &broker.inner.topics;
    match request.key {
        ApiKey::ListConfigResources => topics.len() * TOPIC_BYTES,
        ApiKey::Metadata | ApiKey::DescribeLogDirs => {
            topics.len() * TOPIC_BYTES + topics.partitions() * PARTITION_BYTES
        }
        // What is pushed, unpacked, and read.
        ApiKey::PushTelemetry => 2 * UNPACKED_BYTES_MAX,
        ApiKey::DescribeConfigs => topics.len().min(request.elements) * TOPIC_CONFIG_BYTES,
        ApiKey::DescribeGroups | ApiKey::ConsumerGroupDescribe | ApiKey::ShareGroupDescribe => {
            broker.inner.options.limits.group_bytes_max
        }
        _ => 0,
    }
}

#[allow(clippy::too_many_lines)] // a table: one line for each request
async fn table(broker: &Broker, session: &mut Session, request: Request) -> Result<(Bytes, Duration), RequestError> {
    let version = request.version;
    let session_ref = &*session;
    let mut waits = Duration::ZERO;
    let tell = |throttle_ms: &mut i32, waits| *throttle_ms = (*throttle_ms).max(told_ms(waits));
    macro_rules! answer {
        ($kind:ty, $answer:expr) => {
            answer!($kind, $answer, throttle_time_ms)
        };
        // Most answers can say that their client is to wait.
        ($kind:ty, $answer:expr, $($throttle:ident)?) => {{
            let gate = Gate::of(broker, session_ref);
            match request.decode::<$kind>()?.decide(&gate, version) {
                Verdict::None(answer) => request.respond_to::<$kind>(&answer),
                Verdict::Some(decoded, kept) => {
                    let (mut answer, took) = worked($answer(decoded)).await;
                    waits = broker.inner.quotas.charge_time(&session_ref.principal, &session_ref.client_id, took);
                    $(tell(&mut answer.$throttle, waits);)?
                    <$kind>::complete(&gate, kept, &mut answer);
                    request.respond_to::<$kind>(&answer)
                }
            }
        }};
    }
    let frame = match request.key {
        ApiKey::ApiVersions => {
            let asked = clients::greeting(&request)?;
            let answer = clients::greet(broker, &asked, &request);
            session.software = asked.software;
            request.respond(&answer)
        }
        ApiKey::SaslHandshake => {
            let decoded = request.decode_login::<SaslHandshakeRequest>()?;
            request.respond(&session.handshake(broker, &decoded, version))
        }
        ApiKey::SaslAuthenticate => {
            let decoded = request.decode_login::<SaslAuthenticateRequest>()?;
            request.respond(&session.authenticate(broker, &decoded, version).await)
        }
        ApiKey::DescribeClientQuotas => answer!(DescribeClientQuotasRequest, |r| quotas::describe(broker, r)),
        ApiKey::AlterClientQuotas => answer!(AlterClientQuotasRequest, |r| quotas::alter(broker, r)),
        ApiKey::DescribeUserScramCredentials => {
            answer!(DescribeUserScramCredentialsRequest, |r| scram::describe(broker, r))
        }
        ApiKey::AlterUserScramCredentials => {
            answer!(AlterUserScramCredentialsRequest, |r| scram::alter(broker, r))
        }
        ApiKey::DescribeAcls => answer!(DescribeAclsRequest, |r| acls::describe(broker, r)),
        ApiKey::CreateAcls => answer!(CreateAclsRequest, |r| acls::create(broker, r)),
        ApiKey::DeleteAcls => answer!(DeleteAclsRequest, |r| acls::delete(broker, r)),
        ApiKey::Metadata => answer!(MetadataRequest, |r| metadata::answer(broker, session_ref, r, version)),
        ApiKey::DescribeCluster => answer!(DescribeClusterRequest, |r| cluster::answer(broker, session_ref, r)),
        ApiKey::ListOffsets => answer!(ListOffsetsRequest, |r| offset_list::answer(broker, r, version)),
        ApiKey::OffsetForLeaderEpoch => answer!(OffsetForLeaderEpochRequest, |r| epochs::answer(broker, r)),
        ApiKey::CreateTopics => answer!(CreateTopicsRequest, |r| topics::create(broker, session_ref, r, version)),
        ApiKey::DeleteTopics => answer!(DeleteTopicsRequest, |r| topics::delete(broker, session_ref, r, version)),
        ApiKey::AlterConfigs => answer!(AlterConfigsRequest, |r| alter::configs(broker, session_ref, r)),
        ApiKey::IncrementalAlterConfigs => {
            answer!(IncrementalAlterConfigsRequest, |r| alter::incremental(broker, session_ref, r))
        }
        ApiKey::CreatePartitions => answer!(CreatePartitionsRequest, |r| alter::partitions(broker, session_ref, r)),
        ApiKey::DeleteRecords => answer!(DeleteRecordsRequest, |r| alter::records(broker, session_ref, r)),
        ApiKey::DescribeLogDirs => answer!(DescribeLogDirsRequest, |r| log_dirs::answer(broker, r)),
        ApiKey::ElectLeaders => answer!(ElectLeadersRequest, |r| replicas::elect(broker, r)),
        ApiKey::AlterPartitionReassignments => {
            answer!(AlterPartitionReassignmentsRequest, |r| replicas::reassign(broker, r))
        }
        ApiKey::ListPartitionReassignments => {
            answer!(ListPartitionReassignmentsRequest, replicas::list_reassignments)
        }
        ApiKey::AlterReplicaLogDirs => answer!(AlterReplicaLogDirsRequest, |r| replicas::move_dirs(broker, r)),
        ApiKey::ListConfigResources => {
            answer!(ListConfigResourcesRequest, |r| config_resources::answer(broker, r, version))
        }
        ApiKey::DescribeTopicPartitions => {
            answer!(DescribeTopicPartitionsRequest, |r| topic_partitions::answer(broker, r))
        }
        ApiKey::DescribeConfigs => answer!(DescribeConfigsRequest, |r| configs::answer(broker, r)),
        ApiKey::InitProducerId => answer!(InitProducerIdRequest, |r| clients::init_producer_id(broker, r, version)),
        ApiKey::AddPartitionsToTxn => {
            answer!(AddPartitionsToTxnRequest, |r| transactions::add_partitions(broker, session_ref, r, version))
        }
        ApiKey::AddOffsetsToTxn => {
            answer!(AddOffsetsToTxnRequest, |r| transactions::add_offsets(broker, r, version))
        }
        ApiKey::EndTxn => answer!(EndTxnRequest, |r| transactions::end(broker, r, version)),
        ApiKey::TxnOffsetCommit => {
            answer!(TxnOffsetCommitRequest, |r| transactions::commit_offsets(broker, r, version))
        }
        ApiKey::WriteTxnMarkers => answer!(WriteTxnMarkersRequest, |r| producers::abort(broker, session_ref, r),),
        ApiKey::DescribeProducers => answer!(DescribeProducersRequest, |r| producers::describe(broker, r)),
        ApiKey::DescribeTransactions => {
            answer!(DescribeTransactionsRequest, |r| producers::describe_transactions(broker, r))
        }
        ApiKey::ListTransactions => answer!(ListTransactionsRequest, |r| producers::list_transactions(broker, r)),
        ApiKey::FindCoordinator => {
            answer!(FindCoordinatorRequest, |r| coordinator::answer(broker, session_ref, r, version))
        }
        ApiKey::JoinGroup => answer!(JoinGroupRequest, |r| groups::join(broker, session_ref, r, version)),
        ApiKey::SyncGroup => answer!(SyncGroupRequest, |r| groups::sync(broker, r, version)),
        ApiKey::Heartbeat => answer!(HeartbeatRequest, |r| groups::heartbeat(broker, r)),
        ApiKey::LeaveGroup => answer!(LeaveGroupRequest, |r| groups::leave(broker, r, version)),
        ApiKey::DescribeGroups => answer!(DescribeGroupsRequest, |r| groups::describe(broker, r, version)),
        ApiKey::ListGroups => answer!(ListGroupsRequest, |r| groups::list(broker, r)),
        ApiKey::DeleteGroups => answer!(DeleteGroupsRequest, |r| groups::delete(broker, r)),
        ApiKey::ConsumerGroupHeartbeat => {
            answer!(ConsumerGroupHeartbeatRequest, |r| consumer_groups::heartbeat(broker, session_ref, r, version))
        }
        ApiKey::ConsumerGroupDescribe => {
            answer!(ConsumerGroupDescribeRequest, |r| consumer_groups::describe(broker, r))
        }
        ApiKey::OffsetCommit => {
            answer!(OffsetCommitRequest, |r| offsets::commit(broker, r, version))
        }
        ApiKey::GetTelemetrySubscriptions => {
            answer!(GetTelemetrySubscriptionsRequest, |r| telemetry::subscriptions(broker, session_ref, r))
        }
        ApiKey::ShareGroupHeartbeat => {
            answer!(ShareGroupHeartbeatRequest, |r| share_groups::heartbeat(broker, session_ref, r))
        }
        ApiKey::ShareGroupDescribe => answer!(ShareGroupDescribeRequest, |r| share_groups::describe(broker, r)),
        ApiKey::ShareAcknowledge => return acknowledge_shared(broker, session_ref, &request).await,
        ApiKey::DescribeShareGroupOffsets => {
            answer!(DescribeShareGroupOffsetsRequest, |r| share_offsets::describe(broker, r))
        }
        ApiKey::AlterShareGroupOffsets => {
            answer!(AlterShareGroupOffsetsRequest, |r| share_offsets::alter(broker, r))
        }
        ApiKey::DeleteShareGroupOffsets => {
            answer!(DeleteShareGroupOffsetsRequest, |r| share_offsets::delete(broker, r))
        }
        ApiKey::PushTelemetry => answer!(PushTelemetryRequest, |r| telemetry::push(broker, session_ref, r)),
        ApiKey::OffsetDelete => answer!(OffsetDeleteRequest, |r| offset_delete::answer(broker, r)),
        ApiKey::OffsetFetch => answer!(OffsetFetchRequest, |r| offsets::fetch(broker, r, version)),
        key => Err(RequestError::Unknown { key: key as i16 }),
    }?;
    Ok((frame, waits))
}

fn text(value: impl Into<String>) -> StrBytes {
    StrBytes::from_string(value.into())
}

/// Why something is refused, cut to a length that every version can carry.
fn reason(why: impl Into<String>) -> StrBytes {
    let mut why = why.into();
    let mut end = REASON_BYTES_MAX.min(why.len());
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    why.truncate(end);
    StrBytes::from_string(why)
}

/// Refuses an old Produce; whether it could be read.
#[cfg(fuzzing)]
pub(crate) fn refuse_old(request: &Request) -> bool {
    old_produce::refuse(request).is_ok()
}

/// Gives bytes to the codec and drops what comes out.
#[cfg(any(test, fuzzing))]
pub(crate) fn decode_only(key: ApiKey, version: i16, mut body: Bytes) -> bool {
    kafka_protocol::messages::RequestKind::decode(key, &mut body, version).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_names_every_version_that_is_offered() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/kafka-compatibility.md");
        let document = std::fs::read_to_string(path).expect("docs/kafka-compatibility.md");
        for (key, versions) in ADVERTISED {
            let row = format!("| {key:?} | {}–{} |", versions.start(), versions.end());
            assert!(document.contains(&row), "`{row}` is missing: run `cargo xtask kafka`");
        }
        let rows = document.lines().filter(|line| line.contains('–') && line.starts_with("| ")).count();
        assert_eq!(rows, ADVERTISED.len(), "a request is named that is not offered");
    }
}
