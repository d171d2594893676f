//! Leaders, replicas and their places, where there is one broker.

use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, ApiKey, ElectLeadersRequest,
    ListPartitionReassignmentsRequest, RequestKind, ResponseKind,
    alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic},
    alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic},
    elect_leaders_request::TopicPartitions,
    list_partition_reassignments_request::ListPartitionReassignmentsTopics,
};

use super::{TOPIC, describing, name, start, text};
use crate::support::Wire;

pub(super) fn elects(kind: i8, topic: Option<(&str, &[i32])>) -> RequestKind {
    let topics = topic.map(|(topic, partitions)| {
        vec![TopicPartitions::default().with_topic(name(topic)).with_partitions(partitions.to_vec())]
    });
    RequestKind::ElectLeaders(ElectLeadersRequest::default().with_election_type(kind).with_topic_partitions(topics))
}

pub(super) fn reassigns(topic: &str, replicas: &[Option<&[i32]>]) -> RequestKind {
    let partitions = (0..).zip(replicas).map(|(index, replicas)| {
        let replicas = replicas.map(|replicas| replicas.iter().map(|id| (*id).into()).collect());
        ReassignablePartition::default().with_partition_index(index).with_replicas(replicas)
    });
    let topic = ReassignableTopic::default().with_name(name(topic)).with_partitions(partitions.collect());
    RequestKind::AlterPartitionReassignments(AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]))
}

pub(super) fn lists(topic: Option<&str>) -> RequestKind {
    let topics = topic.map(|topic| {
        vec![ListPartitionReassignmentsTopics::default().with_name(name(topic)).with_partition_indexes(vec![0, 9])]
    });
    RequestKind::ListPartitionReassignments(ListPartitionReassignmentsRequest::default().with_topics(topics))
}

pub(super) fn moves(folder: &str, topic: &str, partitions: &[i32]) -> RequestKind {
    let topic = AlterReplicaLogDirTopic::default().with_name(name(topic)).with_partitions(partitions.to_vec());
    let dir = AlterReplicaLogDir::default().with_path(text(folder)).with_topics(vec![topic]);
    RequestKind::AlterReplicaLogDirs(AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]))
}

#[tokio::test]
async fn every_partition_has_the_leader_that_it_should_have() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    for version in 0..=2 {
        // The oldest knows one kind of election.
        for kind in 0..=version.min(1) as i8 {
            let asked = elects(kind, Some((TOPIC, &[0, 7])));
            let answer = wire.ask(ApiKey::ElectLeaders, version, &asked).await;
            let ResponseKind::ElectLeaders(answer) = answer else { panic!() };
            let told = &answer.replica_election_results[0];
            let codes: Vec<i16> = told.partition_result.iter().map(|one| one.error_code).collect();
            assert_eq!((answer.error_code, &codes[..]), (0, &[84, 3][..]), "version {version}");
            let all = wire.ask(ApiKey::ElectLeaders, version, &elects(kind, None)).await;
            let ResponseKind::ElectLeaders(all) = all else { panic!() };
            assert!(all.error_code == 0 && all.replica_election_results.is_empty(), "of all, those that were elected");
        }
    }
    let answer = wire.ask(ApiKey::ElectLeaders, 2, &elects(2, None)).await;
    assert!(matches!(answer, ResponseKind::ElectLeaders(answer) if answer.error_code == 42), "no such election");
    served.end().await;
}

#[tokio::test]
async fn a_partition_may_be_put_where_it_is_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let key = ApiKey::AlterPartitionReassignments;
    let mut codes = async |topic: &str, replicas: Option<&[i32]>| {
        let answer = wire.ask(key, 1, &reassigns(topic, &[replicas])).await;
        let ResponseKind::AlterPartitionReassignments(answer) = answer else { panic!() };
        assert_eq!(answer.error_code, 0);
        answer.responses[0].partitions[0].error_code
    };
    assert_eq!(codes(TOPIC, Some(&[1])).await, 0);
    for elsewhere in [&[][..], &[2], &[1, 2], &[1, 1]] {
        assert_eq!(codes(TOPIC, Some(elsewhere)).await, 39, "{elsewhere:?}");
    }
    assert_eq!(codes(TOPIC, None).await, 85, "there is nothing to give up");
    assert_eq!(codes("none", Some(&[1])).await, 3);
    for asked in [None, Some(TOPIC), Some("none")] {
        let answer = wire.ask(ApiKey::ListPartitionReassignments, 0, &lists(asked)).await;
        let ResponseKind::ListPartitionReassignments(answer) = answer else { panic!() };
        assert!(answer.error_code == 0 && answer.topics.is_empty(), "nothing is on its way");
    }
    let told = wire.ask(ApiKey::DescribeLogDirs, 4, &describing::log_dirs(None)).await;
    let ResponseKind::DescribeLogDirs(told) = told else { panic!() };
    let place = told.results[0].log_dir.to_string();
    let mut codes = async |folder: &str, topic: &str| {
        let answer = wire.ask(ApiKey::AlterReplicaLogDirs, 2, &moves(folder, topic, &[0, 7])).await;
        let ResponseKind::AlterReplicaLogDirs(answer) = answer else { panic!() };
        answer.results[0].partitions.iter().map(|one| one.error_code).collect::<Vec<_>>()
    };
    assert_eq!(codes(&place, TOPIC).await, [0, 3]);
    assert_eq!(codes("elsewhere", TOPIC).await, [57, 57]);
    assert_eq!(codes(&place, "none").await, [3, 3]);
    served.end().await;
}
