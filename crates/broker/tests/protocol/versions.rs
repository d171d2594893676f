//! The newest versions of Kafka 4: topics by their ids, and clients that say whom they mean.

use bytes::{BufMut, Bytes, BytesMut};
use cairn_broker::{Principal, TopicSpec};
use kafka_protocol::messages::{
    ApiKey, MetadataRequest, OffsetCommitRequest, OffsetFetchRequest, RequestKind, ResponseKind,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
    offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics},
};
use uuid::Uuid;

use super::{TOPIC, start, text};
use crate::support::{Served, Wire};

const UNKNOWN_ID: i16 = 100;
const UNKNOWN_PARTITION: i16 = 3;
const INVALID: i16 = 42;
const REBOOTSTRAP: i16 = 129;

async fn commit(wire: &mut Wire, id: Uuid, partition: i32, offset: i64) -> (Uuid, i16) {
    let one = OffsetCommitRequestPartition::default().with_partition_index(partition).with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default().with_topic_id(id).with_partitions(vec![one]);
    let request = OffsetCommitRequest::default().with_group_id(text("g").into()).with_topics(vec![topic]);
    let ResponseKind::OffsetCommit(answer) =
        wire.ask(ApiKey::OffsetCommit, 10, &RequestKind::OffsetCommit(request)).await
    else {
        panic!()
    };
    (answer.topics[0].topic_id, answer.topics[0].partitions[0].error_code)
}

/// Id, code and offset of each partition that is told of.
async fn fetch(wire: &mut Wire, ids: Option<&[Uuid]>) -> Vec<(Uuid, i16, i64)> {
    let topic = |id: &Uuid| OffsetFetchRequestTopics::default().with_topic_id(*id).with_partition_indexes(vec![0]);
    let group = OffsetFetchRequestGroup::default().with_group_id(text("g").into());
    let group = group.with_topics(ids.map(|ids| ids.iter().map(topic).collect()));
    let request = RequestKind::OffsetFetch(OffsetFetchRequest::default().with_groups(vec![group]));
    let ResponseKind::OffsetFetch(answer) = wire.ask(ApiKey::OffsetFetch, 10, &request).await else { panic!() };
    let topics = answer.groups[0].topics.iter();
    topics.map(|of| (of.topic_id, of.partitions[0].error_code, of.partitions[0].committed_offset)).collect()
}

#[tokio::test]
async fn offsets_go_by_the_id_of_their_topic_and_an_id_that_is_gone_names_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(commit(&mut wire, id, 0, 7).await, (id, 0));
    assert_eq!(commit(&mut wire, id, 9, 7).await, (id, UNKNOWN_PARTITION));
    let other = Uuid::from_u128(77);
    assert_eq!(commit(&mut wire, other, 0, 8).await, (other, UNKNOWN_ID));
    assert_eq!(fetch(&mut wire, Some(&[id, other])).await, [(id, 0, 7), (other, UNKNOWN_ID, -1)]);
    assert_eq!(fetch(&mut wire, None).await, [(id, 0, 7)]);
    // Of the same name, and another topic.
    served.broker.delete_topic(&Principal::Internal, TOPIC).await.unwrap();
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(1), ..TopicSpec::default() };
    let again = served.broker.create_topic(&Principal::Internal, spec).await.unwrap().id;
    assert_eq!(commit(&mut wire, id, 0, 9).await, (id, UNKNOWN_ID));
    assert_eq!(fetch(&mut wire, Some(&[again, id])).await, [(again, 0, -1), (id, UNKNOWN_ID, -1)]);
    served.end().await;
}

/// Asks ApiVersions 5; the code, and how many requests it names.
async fn greet(served: &Served, software: &str, cluster: Option<&str>, node: i32) -> (i16, usize) {
    let mut wire = Wire::connect(served).await;
    let mut body = BytesMut::new();
    body.put_i16(ApiKey::ApiVersions as i16);
    body.put_i16(5);
    body.put_i32(1);
    body.put_slice(&[0, 1, b'c', 0]);
    for text in [Some(software), Some("1.0"), cluster] {
        body.put_u8(text.map_or(0, |text| text.len() as u8 + 1));
        body.put_slice(text.unwrap_or_default().as_bytes());
    }
    body.put_i32(node);
    body.put_u8(0);
    wire.send_raw(&body).await;
    let frame: Bytes = wire.receive_raw().await.unwrap();
    (i16::from_be_bytes([frame[4], frame[5]]), usize::from(frame[6]).saturating_sub(1))
}

#[tokio::test]
async fn who_means_another_cluster_or_node_is_told_to_begin_again() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let request = RequestKind::Metadata(MetadataRequest::default().with_topics(Some(Vec::new())));
    let ResponseKind::Metadata(about) = wire.ask(ApiKey::Metadata, 13, &request).await else { panic!() };
    let (cluster, node) = (about.cluster_id.unwrap(), about.brokers[0].node_id.0);
    let (code, named) = greet(&served, "apache-kafka-java", None, -1).await;
    assert!(code == 0 && named > 40, "{code} {named}");
    assert_eq!(greet(&served, "apache-kafka-java", Some(&cluster), node).await, (0, named));
    assert_eq!(greet(&served, "apache-kafka-java", Some("another"), node).await, (REBOOTSTRAP, 0));
    assert_eq!(greet(&served, "apache-kafka-java", Some(&cluster), node + 1).await, (REBOOTSTRAP, 0));
    assert_eq!(greet(&served, "apache-kafka-java", Some(&cluster), -1).await, (INVALID, 0), "half of it");
    assert_eq!(greet(&served, "apache-kafka-java", None, node).await, (INVALID, 0), "half of it");
    assert_eq!(greet(&served, "-no name-", None, -1).await, (INVALID, 0));
    served.end().await;
}
