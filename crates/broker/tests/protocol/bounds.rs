//! What peers can make the broker hold or do, and that others go on meanwhile.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use cairn_broker::{Principal, TopicSpec};
use cairn_log::PartitionIndex;
use kafka_protocol::messages::{
    ApiKey, JoinGroupRequest, MetadataRequest, OffsetCommitRequest, RequestKind, ResponseKind,
    join_group_request::JoinGroupRequestProtocol,
    metadata_request::MetadataRequestTopic,
    offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic},
};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use uuid::Uuid;

use super::{PATIENCE, TOPIC, batch, fetch, name, produce, produced, samples, start, text};
use crate::support::{Served, Wire, quick};

fn metadata(id: Uuid) -> RequestKind {
    samples(ApiKey::Metadata, 9, id)
}

#[tokio::test]
async fn thousands_of_silent_connections_lock_nobody_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.limits.connections_max = 40;
    let served = Served::start(folder.path(), options).await;
    let mut old = Wire::connect(&served).await;
    let mut silent = Vec::new();
    for round in 0..30 {
        for _ in 0..100 {
            silent.push(TcpStream::connect(served.address).await.unwrap());
            if silent.len() > 300 {
                silent.remove(0);
            }
            if silent.len() % 20 == 0 {
                // Who works is never the one that has been quiet for longest.
                let answer = tokio::time::timeout(PATIENCE, old.ask(ApiKey::Metadata, 9, &metadata(Uuid::nil()))).await;
                assert!(answer.is_ok(), "round {round}");
            }
        }
        let mut newcomer = Wire::connect(&served).await;
        let answer = tokio::time::timeout(PATIENCE, newcomer.ask(ApiKey::Metadata, 9, &metadata(Uuid::nil()))).await;
        assert!(answer.is_ok(), "round {round}");
        assert!(served.broker.stats().connections <= 40);
    }
    served.end().await;
}

#[tokio::test]
async fn lengths_that_are_promised_and_never_sent_hold_up_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.limits.request_bytes_max = 2 << 20;
    options.limits.requests_bytes_max = 2 << 20;
    let served = Served::start(folder.path(), options).await;
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(1), ..TopicSpec::default() };
    let id = served.broker.create_topic(&Principal::Internal, spec).await.unwrap().id;
    let mut stalled = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(served.address).await.unwrap();
        stream.write_all(&(2_i32 << 20).to_be_bytes()).await.unwrap();
        stream.write_all(&[0, 0, 0, 9]).await.unwrap();
        stalled.push(stream);
    }
    let big = "x".repeat(900_000);
    let mut wire = Wire::connect(&served).await;
    for at in 0..5 {
        let request = produce(TOPIC, id, 9, -1, batch(&[&big]).freeze());
        let answer = tokio::time::timeout(PATIENCE, wire.ask(ApiKey::Produce, 9, &request)).await;
        assert_eq!(produced(answer.expect("it goes on")), (0, at));
    }
    drop(stalled);
    served.end().await;
}

#[tokio::test]
async fn peers_that_do_not_read_their_answers_are_sent_away_and_others_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.limits.answers_bytes_max = 4 << 20;
    options.limits.bytes_wait_max = Duration::from_millis(200);
    options.limits.answer_stall_timeout = Duration::from_millis(500);
    let served = Served::start(folder.path(), options).await;
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(1), ..TopicSpec::default() };
    let id = served.broker.create_topic(&Principal::Internal, spec).await.unwrap().id;
    let big = "x".repeat(900_000);
    for _ in 0..4 {
        served.broker.produce(&Principal::Anonymous, TOPIC, PartitionIndex::new(0), batch(&[&big])).await.unwrap();
    }
    let mut deaf = Vec::new();
    for _ in 0..6 {
        let mut wire = Wire::connect(&served).await;
        for _ in 0..20 {
            wire.send(ApiKey::Fetch, 12, &fetch(TOPIC, id, 12, 0, 100)).await;
        }
        deaf.push(wire);
    }
    let mut wire = Wire::connect(&served).await;
    let reads = async {
        loop {
            let ResponseKind::Fetch(answer) = wire.ask(ApiKey::Fetch, 12, &fetch(TOPIC, id, 12, 3, 100)).await else {
                panic!()
            };
            let partition = &answer.responses[0].partitions[0];
            assert_eq!((partition.error_code, partition.high_watermark), (0, 4));
            if partition.records.as_ref().is_some_and(|records| !records.is_empty()) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, reads).await.expect("it reads at last");
    let gone = async {
        while served.broker.stats().connections > 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the deaf are sent away");
    drop(deaf);
    served.end().await;
}

#[tokio::test]
async fn an_answer_holds_no_more_than_it_could_claim() {
    const CLAIMABLE: usize = 4 << 20;
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.limits.answers_bytes_max = CLAIMABLE;
    let served = Served::start(folder.path(), options).await;
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(1), ..TopicSpec::default() };
    let id = served.broker.create_topic(&Principal::Internal, spec).await.unwrap().id;
    let big = "x".repeat(900_000);
    for _ in 0..12 {
        served.broker.produce(&Principal::Anonymous, TOPIC, PartitionIndex::new(0), batch(&[&big])).await.unwrap();
    }
    let mut wire = Wire::connect(&served).await;
    let RequestKind::Fetch(mut all) = fetch(TOPIC, id, 12, 0, 100) else { panic!() };
    all.max_bytes = i32::MAX;
    all.topics[0].partitions[0].partition_max_bytes = i32::MAX;
    let ResponseKind::Fetch(answer) = wire.ask(ApiKey::Fetch, 12, &RequestKind::Fetch(all)).await else { panic!() };
    let records = answer.responses[0].partitions[0].records.as_ref().map_or(0, bytes::Bytes::len);
    assert!((900_000..=CLAIMABLE).contains(&records), "{records} bytes");
    served.end().await;
}

fn join(group: &str, instance: Option<&str>) -> RequestKind {
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    let request = JoinGroupRequest::default().with_group_id(text(group).into()).with_protocol_type(text("consumer"));
    let request = request.with_session_timeout_ms(10_000).with_rebalance_timeout_ms(10_000);
    RequestKind::JoinGroup(request.with_group_instance_id(instance.map(text)).with_protocols(vec![protocol]))
}

#[tokio::test]
async fn texts_that_kafka_could_not_carry_are_refused_and_the_longest_it_can_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let too_long = "i".repeat(40_000);
    let mut wire = Wire::connect(&served).await;
    wire.send(ApiKey::JoinGroup, 9, &join("g", Some(&too_long))).await;
    assert!(tokio::time::timeout(PATIENCE, wire.receive_raw()).await.unwrap().is_none(), "disconnected");
    let longest = "i".repeat(i16::MAX as usize);
    let mut wire = Wire::connect(&served).await;
    for version in [5, 9] {
        let answer = wire.ask(ApiKey::JoinGroup, version, &join(&longest, Some(&longest))).await;
        let ResponseKind::JoinGroup(answer) = answer else { panic!() };
        assert_eq!((answer.error_code, answer.leader), (0, answer.member_id));
    }
    let create = samples(ApiKey::CreateTopics, 2, Uuid::nil());
    let RequestKind::CreateTopics(mut create) = create else { panic!() };
    create.topics[2].name = name(&longest);
    let answer = wire.ask(ApiKey::CreateTopics, 2, &RequestKind::CreateTopics(create)).await;
    let ResponseKind::CreateTopics(answer) = answer else { panic!() };
    assert_eq!(answer.topics[2].error_code, 17);
    served.end().await;
}

#[tokio::test]
async fn a_topic_named_ten_thousand_times_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let topics = vec![MetadataRequestTopic::default().with_name(Some(name(TOPIC))); 10_000];
    let request = RequestKind::Metadata(MetadataRequest::default().with_topics(Some(topics)));
    let ResponseKind::Metadata(answer) = wire.ask(ApiKey::Metadata, 9, &request).await else { panic!() };
    assert_eq!(answer.topics.len(), 1);
    served.end().await;
}

#[tokio::test]
async fn what_groups_commit_is_bounded_and_what_is_there_can_still_move() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.limits.offsets_bytes_max = 3_000;
    let served = Served::start(folder.path(), options).await;
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(1), ..TopicSpec::default() };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
    let mut wire = Wire::connect(&served).await;
    let mut commit = async |group: &str, offset| {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let topic = OffsetCommitRequestTopic::default().with_name(name(TOPIC)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default().with_group_id(text(group).into()).with_topics(vec![topic]);
        let request = RequestKind::OffsetCommit(request.with_generation_id_or_member_epoch(-1));
        let ResponseKind::OffsetCommit(answer) = wire.ask(ApiKey::OffsetCommit, 8, &request).await else { panic!() };
        answer.topics[0].partitions[0].error_code
    };
    assert_eq!(commit("first", 1).await, 0);
    let mut codes = Vec::new();
    for at in 0..20 {
        codes.push(commit(&format!("g{at}"), 1).await);
    }
    assert_eq!((codes[0], codes[19]), (0, 28));
    assert_eq!(commit("first", 2).await, 0);
    served.end().await;
}

#[tokio::test]
async fn produce_of_before_record_batches_is_answered_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    for version in 0..=2 {
        let mut body = BytesMut::new();
        body.put_i16(0);
        body.put_i16(version);
        body.put_i32(77);
        body.put_slice(&[0, 1, b'c', 0xff, 0xff, 0, 0, 3, 0xe8, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
        body.put_slice(&[0, 0, 0, 2, 8, 8]);
        wire.send_raw(&body).await;
        let frame: Bytes = tokio::time::timeout(PATIENCE, wire.receive_raw()).await.unwrap().expect("an answer");
        assert_eq!(frame[..4], 77_i32.to_be_bytes());
        assert_eq!(frame[19..21], 43_i16.to_be_bytes(), "version {version}");
    }
    served.end().await;
}
