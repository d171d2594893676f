//! Leaders, replicas and their places: ElectLeaders, AlterPartitionReassignments, ListPartitionReassignments, AlterReplicaLogDirs.
//!
//! One broker is active, leads every partition, and keeps it in one folder. So these tell the truth about what can be asked for:
//! nothing is elected because every partition has the leader that it should have, nothing is ever on its way from one broker to another, and what
//! is asked to be where it is already is there. All else is refused.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterReplicaLogDirsRequest,
        AlterReplicaLogDirsResponse, BrokerId, ElectLeadersRequest, ElectLeadersResponse,
        ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
        alter_partition_reassignments_response::{ReassignablePartitionResponse, ReassignableTopicResponse},
        alter_replica_log_dirs_response::{AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult},
        elect_leaders_response::{PartitionResult, ReplicaElectionResult},
    },
};

use super::{codes::NONE, reason};
use crate::broker::Broker;

/// An election among all replicas, in sync or not, is the greatest kind that there is.
const ELECTION_TYPE_MAX: i8 = 1;

fn exists(broker: &Broker, topic: &TopicName, partition: i32) -> bool {
    broker.inner.topics.get(topic).is_some_and(|topic| topic.stream(partition).is_some())
}

pub(super) async fn elect(broker: &Broker, request: ElectLeadersRequest) -> ElectLeadersResponse {
    if !(0..=ELECTION_TYPE_MAX).contains(&request.election_type) {
        return ElectLeadersResponse::default().with_error_code(ResponseError::InvalidRequest.code());
    }
    // Who asks for all is told, as by Kafka, of those that got another leader: none.
    let results = request.topic_partitions.unwrap_or_default().into_iter().map(|asked| {
        let partitions = asked.partitions.into_iter().map(|index| {
            let known = exists(broker, &asked.topic, index);
            let code = if known { ResponseError::ElectionNotNeeded } else { ResponseError::UnknownTopicOrPartition };
            PartitionResult::default().with_partition_id(index).with_error_code(code.code())
        });
        let partitions = partitions.collect();
        ReplicaElectionResult::default().with_topic(asked.topic).with_partition_result(partitions)
    });
    ElectLeadersResponse::default().with_replica_election_results(results.collect())
}

pub(super) async fn reassign(
    broker: &Broker,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let node = broker.inner.options.node_id;
    let topics = request.topics.into_iter().map(|asked| {
        let partitions = asked.partitions.into_iter().map(|partition| {
            let told = ReassignablePartitionResponse::default().with_partition_index(partition.partition_index);
            let (code, why) = match partition.replicas.as_deref() {
                _ if !exists(broker, &asked.name, partition.partition_index) => {
                    (ResponseError::UnknownTopicOrPartition.code(), None)
                }
                None => (ResponseError::NoReassignmentInProgress.code(), None),
                Some([BrokerId(only)]) if *only == node => (NONE, None),
                Some(_) => {
                    let why = format!("every partition is with broker {node} alone");
                    (ResponseError::InvalidReplicaAssignment.code(), Some(reason(why)))
                }
            };
            told.with_error_code(code).with_error_message(why)
        });
        let partitions = partitions.collect();
        ReassignableTopicResponse::default().with_name(asked.name).with_partitions(partitions)
    });
    AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_error_message(None)
        .with_responses(topics.collect())
}

/// Names those that are on their way: none.
pub(super) async fn list_reassignments(_: ListPartitionReassignmentsRequest) -> ListPartitionReassignmentsResponse {
    ListPartitionReassignmentsResponse::default().with_error_message(None)
}

pub(super) async fn move_dirs(broker: &Broker, request: AlterReplicaLogDirsRequest) -> AlterReplicaLogDirsResponse {
    let folder = broker.inner.log.folder().display().to_string();
    let topics = request.dirs.into_iter().flat_map(|dir| {
        let is_ours = *dir.path == *folder;
        dir.topics.into_iter().map(move |topic| (is_ours, topic))
    });
    let results = topics.map(|(is_ours, asked)| {
        let partitions = asked.partitions.into_iter().map(|index| {
            let code = match (is_ours, exists(broker, &asked.name, index)) {
                (false, _) => ResponseError::LogDirNotFound.code(),
                (true, false) => ResponseError::UnknownTopicOrPartition.code(),
                (true, true) => NONE,
            };
            AlterReplicaLogDirPartitionResult::default().with_partition_index(index).with_error_code(code)
        });
        let partitions = partitions.collect();
        AlterReplicaLogDirTopicResult::default().with_topic_name(asked.name).with_partitions(partitions)
    });
    AlterReplicaLogDirsResponse::default().with_results(results.collect())
}
