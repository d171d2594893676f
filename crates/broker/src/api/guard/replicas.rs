//! What may be done with leaders, replicas and their places: to the cluster as a whole, as in Kafka.

use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse, ElectLeadersRequest, ElectLeadersResponse, ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
    alter_replica_log_dirs_response::{AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult},
    elect_leaders_response::{PartitionResult, ReplicaElectionResult},
};

use super::{CLUSTER_DENIED, Gate, WHY, whole};
use crate::{access::Operation, api::reason};

/// The first version whose answer has a code of its own.
const ELECTION_CODE_FIRST: i16 = 1;

whole!(
    ElectLeadersRequest => ElectLeadersResponse,
    |gate: &Gate<'_>, _: &_| gate.cluster(Operation::Alter),
    |request: ElectLeadersRequest, version| {
        let each = request.topic_partitions.unwrap_or_default().into_iter().map(|asked| {
            let denied = |index| PartitionResult::default().with_partition_id(index).with_error_code(CLUSTER_DENIED);
            let partitions = asked.partitions.into_iter().map(denied).collect();
            ReplicaElectionResult::default().with_topic(asked.topic).with_partition_result(partitions)
        });
        let told = ElectLeadersResponse::default().with_replica_election_results(each.collect());
        if version >= ELECTION_CODE_FIRST { told.with_error_code(CLUSTER_DENIED) } else { told }
    }
);

whole!(
    AlterPartitionReassignmentsRequest => AlterPartitionReassignmentsResponse,
    |gate: &Gate<'_>, _: &_| gate.cluster(Operation::Alter),
    |_, _| {
        let told = AlterPartitionReassignmentsResponse::default().with_error_code(CLUSTER_DENIED);
        told.with_error_message(Some(reason(WHY)))
    }
);

whole!(
    ListPartitionReassignmentsRequest => ListPartitionReassignmentsResponse,
    |gate: &Gate<'_>, _: &_| gate.cluster(Operation::Describe),
    |_, _| {
        let told = ListPartitionReassignmentsResponse::default().with_error_code(CLUSTER_DENIED);
        told.with_error_message(Some(reason(WHY)))
    }
);

whole!(
    AlterReplicaLogDirsRequest => AlterReplicaLogDirsResponse,
    |gate: &Gate<'_>, _: &_| gate.cluster(Operation::Alter),
    |request: AlterReplicaLogDirsRequest, _| {
        let each = request.dirs.into_iter().flat_map(|dir| dir.topics).map(|asked| {
            let denied = |index| {
                AlterReplicaLogDirPartitionResult::default().with_partition_index(index).with_error_code(CLUSTER_DENIED)
            };
            let partitions = asked.partitions.into_iter().map(denied).collect();
            AlterReplicaLogDirTopicResult::default().with_topic_name(asked.name).with_partitions(partitions)
        });
        AlterReplicaLogDirsResponse::default().with_results(each.collect())
    }
);
