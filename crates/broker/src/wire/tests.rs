//! The shapes agree with the codec, and lies are refused.

use bytes::{Bytes, BytesMut};
use kafka_protocol::{
    messages::{
        AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, AlterClientQuotasRequest,
        AlterPartitionReassignmentsRequest, AlterReplicaLogDirsRequest, ApiKey, CreateTopicsRequest,
        DescribeClientQuotasRequest, DescribeLogDirsRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest,
        EndTxnRequest, FetchRequest, JoinGroupRequest, ListConfigResourcesRequest, ListPartitionReassignmentsRequest,
        ListTransactionsRequest, MetadataRequest, OffsetCommitRequest, OffsetDeleteRequest, OffsetFetchRequest,
        ProduceRequest, SyncGroupRequest, TxnOffsetCommitRequest, WriteTxnMarkersRequest,
        add_partitions_to_txn_request::*, alter_client_quotas_request::*, alter_partition_reassignments_request::*,
        alter_replica_log_dirs_request::*, create_topics_request::*, describe_client_quotas_request::*,
        describe_log_dirs_request::*, describe_topic_partitions_request::*,
        elect_leaders_request::TopicPartitions as ElectedPartitions, fetch_request::*, join_group_request::*,
        list_partition_reassignments_request::*, metadata_request::*, offset_commit_request::*,
        offset_delete_request::*, offset_fetch_request::*, produce_request::*, sync_group_request::*,
        txn_offset_commit_request::*, write_txn_markers_request::*,
    },
    protocol::{Decodable, Encodable, StrBytes},
};
use proptest::prelude::*;

use super::{newer, shape::walked, *};
use crate::api::{ADVERTISED, decode_only};

fn text(value: &'static str) -> StrBytes {
    StrBytes::from_static_str(value)
}

fn encoded<T: Encodable>(request: &T, version: i16) -> BytesMut {
    let mut out = BytesMut::new();
    request.encode(&mut out, version).expect("encodes");
    out
}

fn sample(key: ApiKey, version: i16) -> Option<BytesMut> {
    if newer::request_coded(key) < version {
        return None;
    }
    Some(match key {
        // Refused by version, before its shape.
        ApiKey::Produce if version < 3 => return None,
        ApiKey::Produce => {
            let data = PartitionProduceData::default().with_records(Some(Bytes::from_static(b"abc")));
            let topic = TopicProduceData::default().with_partition_data(vec![data.clone(), data]);
            encoded(&ProduceRequest::default().with_topic_data(vec![topic]), version)
        }
        ApiKey::Fetch => {
            let topic = FetchTopic::default().with_partitions(vec![FetchPartition::default(); 3]);
            let forgotten = ForgottenTopic::default().with_partitions(vec![1, 2]);
            let mut request = FetchRequest::default().with_topics(vec![topic]);
            if version >= 7 {
                request = request.with_forgotten_topics_data(vec![forgotten]);
            }
            encoded(&request, version)
        }
        ApiKey::Metadata => {
            let topic = MetadataRequestTopic::default().with_name(Some(text("t").into()));
            encoded(&MetadataRequest::default().with_topics(Some(vec![topic.clone(), topic])), version)
        }
        ApiKey::OffsetCommit => {
            let partition = OffsetCommitRequestPartition::default().with_committed_metadata(Some(text("m")));
            let topic =
                OffsetCommitRequestTopic::default().with_name(text("t").into()).with_partitions(vec![partition]);
            encoded(&OffsetCommitRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::OffsetFetch if version >= 8 => {
            let topics = OffsetFetchRequestTopics::default().with_partition_indexes(vec![1, 2, 3]);
            let group = OffsetFetchRequestGroup::default().with_topics(Some(vec![topics]));
            encoded(&OffsetFetchRequest::default().with_groups(vec![group]), version)
        }
        ApiKey::OffsetFetch => {
            let topics = OffsetFetchRequestTopic::default().with_partition_indexes(vec![1, 2, 3]);
            encoded(&OffsetFetchRequest::default().with_topics(Some(vec![topics])), version)
        }
        ApiKey::JoinGroup => {
            let protocol = JoinGroupRequestProtocol::default().with_metadata(Bytes::from_static(b"meta"));
            encoded(&JoinGroupRequest::default().with_protocols(vec![protocol]), version)
        }
        ApiKey::SyncGroup => {
            let assignment = SyncGroupRequestAssignment::default().with_assignment(Bytes::from_static(b"all"));
            encoded(&SyncGroupRequest::default().with_assignments(vec![assignment]), version)
        }
        ApiKey::CreateTopics => {
            let topic = CreatableTopic::default()
                .with_assignments(vec![CreatableReplicaAssignment::default().with_broker_ids(vec![1.into()])])
                .with_configs(vec![CreatableTopicConfig::default()]);
            encoded(&CreateTopicsRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::DescribeLogDirs => {
            let topic = DescribableLogDirTopic::default().with_partitions(vec![1, 2]);
            encoded(&DescribeLogDirsRequest::default().with_topics(Some(vec![topic])), version)
        }
        ApiKey::ElectLeaders => {
            let topic = ElectedPartitions::default().with_partitions(vec![1, 2]);
            encoded(&ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic])), version)
        }
        ApiKey::AlterPartitionReassignments => {
            let partition = ReassignablePartition::default().with_replicas(Some(vec![1.into(), 2.into()]));
            let topic = ReassignableTopic::default().with_partitions(vec![partition; 2]);
            encoded(&AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::ListPartitionReassignments => {
            let topic = ListPartitionReassignmentsTopics::default().with_partition_indexes(vec![1, 2]);
            encoded(&ListPartitionReassignmentsRequest::default().with_topics(Some(vec![topic])), version)
        }
        ApiKey::AlterReplicaLogDirs => {
            let topic = AlterReplicaLogDirTopic::default().with_partitions(vec![1, 2]);
            let dir = AlterReplicaLogDir::default().with_topics(vec![topic; 2]);
            encoded(&AlterReplicaLogDirsRequest::default().with_dirs(vec![dir]), version)
        }
        ApiKey::ListConfigResources if version >= 1 => {
            encoded(&ListConfigResourcesRequest::default().with_resource_types(vec![2, 4]), version)
        }
        ApiKey::DescribeTopicPartitions => {
            let request = DescribeTopicPartitionsRequest::default().with_topics(vec![TopicRequest::default()]);
            let cursor = Cursor::default().with_topic_name(text("t").into());
            assert!(check(key, version, &encoded(&request, version), 100).is_ok(), "without a cursor");
            encoded(&request.with_cursor(Some(cursor)), version)
        }
        ApiKey::OffsetDelete => {
            let partitions = vec![OffsetDeleteRequestPartition::default(); 2];
            let topic = OffsetDeleteRequestTopic::default().with_partitions(partitions);
            encoded(&OffsetDeleteRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::DescribeClientQuotas => {
            let components = vec![ComponentData::default().with_entity_type(text("user")); 2];
            encoded(&DescribeClientQuotasRequest::default().with_components(components), version)
        }
        ApiKey::AlterClientQuotas => {
            let entity = vec![EntityData::default().with_entity_type(text("user")).with_entity_name(None)];
            let entry = EntryData::default().with_entity(entity).with_ops(vec![OpData::default(); 2]);
            encoded(&AlterClientQuotasRequest::default().with_entries(vec![entry]), version)
        }
        ApiKey::AddPartitionsToTxn if version < 4 => {
            let topic = AddPartitionsToTxnTopic::default().with_partitions(vec![1, 2]);
            encoded(&AddPartitionsToTxnRequest::default().with_v3_and_below_topics(vec![topic]), version)
        }
        ApiKey::AddPartitionsToTxn => {
            let topic = AddPartitionsToTxnTopic::default().with_partitions(vec![1, 2]);
            let one = AddPartitionsToTxnTransaction::default().with_topics(vec![topic]);
            encoded(&AddPartitionsToTxnRequest::default().with_transactions(vec![one]), version)
        }
        ApiKey::TxnOffsetCommit => {
            let partition = TxnOffsetCommitRequestPartition::default().with_committed_metadata(Some(text("m")));
            let topic = TxnOffsetCommitRequestTopic::default().with_partitions(vec![partition]);
            encoded(&TxnOffsetCommitRequest::default().with_topics(vec![topic]), version)
        }
        ApiKey::WriteTxnMarkers => {
            let topic = WritableTxnMarkerTopic::default().with_partition_indexes(vec![1, 2]);
            let marker = WritableTxnMarker::default().with_topics(vec![topic]);
            encoded(&WriteTxnMarkersRequest::default().with_markers(vec![marker]), version)
        }
        ApiKey::ListTransactions => {
            let request = ListTransactionsRequest::default().with_producer_id_filters(vec![4.into()]);
            encoded(&request.with_state_filters(vec![text("Ongoing")]), version)
        }
        ApiKey::EndTxn => encoded(&EndTxnRequest::default(), version),
        ApiKey::AddOffsetsToTxn => encoded(&AddOffsetsToTxnRequest::default(), version),
        _ => return None,
    })
}

#[test]
fn every_shape_is_that_of_the_codec() {
    for (key, versions) in ADVERTISED {
        for version in versions.clone() {
            if let Some(bytes) = sample(*key, version) {
                let left = walked(*key, version, &bytes, 100).map(|(_, left)| left);
                assert_eq!(left, Ok(0), "{key:?} {version}");
                let more = [&bytes[..], b"more"].concat();
                assert!(check(*key, version, &more, 100).is_ok(), "what is left is nobody's: {key:?} {version}");
                assert_eq!(
                    check(*key, version, &bytes[..bytes.len() - 1], 100),
                    Err(ShapeError::Short),
                    "{key:?} {version}"
                );
            }
        }
    }
}

#[test]
fn a_count_without_bytes_is_refused_before_the_codec_reserves_for_it() {
    // Metadata version 1: two billion topics in four bytes.
    assert_eq!(check(ApiKey::Metadata, 1, &i32::MAX.to_be_bytes(), usize::MAX), Err(ShapeError::Short));
    // The same as a varint, version 9.
    assert_eq!(check(ApiKey::Metadata, 9, &[0xff, 0xff, 0xff, 0xff, 0x07, 0, 0], usize::MAX), Err(ShapeError::Short));
}

#[test]
fn the_sum_of_all_elements_is_bounded() {
    let topic = MetadataRequestTopic::default().with_name(Some(text("t").into()));
    let bytes = encoded(&MetadataRequest::default().with_topics(Some(vec![topic; 11])), 9);
    assert_eq!(check(ApiKey::Metadata, 9, &bytes, 10), Err(ShapeError::Elements { most: 10 }));
}

proptest! {
    #[test]
    fn whatever_passes_the_walk_the_codec_can_be_given(bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0..ADVERTISED.len(), pick in 0..20_i16) {
        let (key, versions) = &ADVERTISED[at];
        let version = (*versions.start() + pick).min(*versions.end());
        if check(*key, version, &bytes, 100).is_ok() {
            let older = older(*key, version, Bytes::from(bytes)).expect("a checked shape");
            let _ = decode_only(*key, older.version, older.body);
        }
    }
}

#[test]
fn every_version_that_the_codec_lacks_is_written_as_one_that_it_has() {
    for (key, versions) in ADVERTISED {
        let is_newer = *versions.end() > key.valid_versions().max;
        assert!(!is_newer || newer::request_coded(*key) < *versions.end(), "{key:?} is newer: name it in CODED");
    }
}

#[test]
fn a_commit_by_topic_id_is_read_as_one_by_name_with_the_ids_beside_it() {
    let (one, other) = ([7; 16], [9; 16]);
    let partition = [&[0, 0, 0, 3][..], &5_i64.to_be_bytes(), &[0xff, 0xff, 0xff, 0xff, 2, b'm', 0]].concat();
    let head = [&[2, b'g'][..], &[0, 0, 0, 4], &[2, b'i', 0], &[3]].concat();
    let topics = [&one[..], &[2], &partition, &[0], &other, &[1, 0], &[0]].concat();
    let body = Bytes::from([head, topics].concat());
    assert_eq!(check(ApiKey::OffsetCommit, 10, &body, 100), Ok(3));
    let older = older(ApiKey::OffsetCommit, 10, body).expect("a checked shape");
    assert_eq!((older.version, &older.rest[..]), (9, &[one, other].concat()[..]));
    let mut body = older.body;
    let request = OffsetCommitRequest::decode(&mut body, 9).expect("decodes");
    assert!(body.is_empty());
    assert_eq!((request.group_id.as_str(), request.member_id.as_str(), request.topics.len()), ("g", "i", 2));
    let partition = &request.topics[0].partitions[0];
    assert_eq!((partition.partition_index, partition.committed_offset), (3, 5));
}

#[test]
fn an_answer_gets_what_only_its_newest_version_has() {
    let body = [&[0, 0, 0, 0][..], &[3], &[2, b'g', 0, 68, 0], &[2, b'h', 0, 0, 0], &[0]].concat();
    let made = newer(ApiKey::DeleteGroups, 3, &body, &[4, b'w', b'h', b'y', 0]).expect("fits").expect("is newer");
    let expected = [&[0, 0, 0, 0][..], &[3], &[2, b'g', 0, 68, 4, b'w', b'h', b'y', 0], &[2, b'h', 0, 0, 0, 0], &[0]];
    assert_eq!(made, expected.concat());
    assert_eq!(newer(ApiKey::DeleteGroups, 2, &body, &[]), Ok(None));
    assert_eq!(newer(ApiKey::DeleteGroups, 3, &body[..9], &[]), Err(ShapeError::Short));
}
