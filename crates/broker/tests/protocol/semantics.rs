//! What answers say, value by value.

use cairn_broker::{Principal, TopicSpec, batch, batch::BatchBuilder};
use cairn_log::PartitionIndex;
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, ListOffsetsRequest, OffsetFetchRequest, OffsetForLeaderEpochRequest, RequestKind,
    ResponseKind,
    create_topics_request::{CreatableTopic, CreatableTopicConfig},
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
    offset_fetch_request::OffsetFetchRequestTopic,
    offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic},
};
use uuid::Uuid;

use super::{TOPIC, name, produce, produced, samples, start, text};
use crate::support::{Served, Wire, quick};

const ZERO: PartitionIndex = PartitionIndex::new(0);

fn batch_at(times: &[i64]) -> bytes::BytesMut {
    let mut builder = BatchBuilder::new();
    times.iter().for_each(|time| builder.push(*time, Some(b"k"), Some(b"v"), &[]));
    builder.build().unwrap()
}

async fn put(served: &Served, topic: &str, times: &[i64]) {
    served.broker.produce(&Principal::Anonymous, topic, ZERO, batch_at(times)).await.unwrap();
}

async fn create(served: &Served, topic: &str, configs: &[(&str, &str)]) -> Uuid {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let spec = TopicSpec { name: topic.into(), partitions: Some(1), configs };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap().id
}

#[tokio::test]
async fn offsets_are_found_by_time_even_where_timestamps_lie_years_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let year_ms = 365 * 24 * 3_600_000_i64;
    // Deltas within one batch far past the 24.8 days that 31 bits of milliseconds hold.
    put(&served, TOPIC, &[1_000, year_ms, 2 * year_ms]).await;
    put(&served, TOPIC, &[40 * year_ms, 3 * year_ms]).await;
    put(&served, TOPIC, &[4 * year_ms]).await;
    let mut wire = Wire::connect(&served).await;
    let mut find = async |timestamp, epoch| {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(epoch);
        let topic = ListOffsetsTopic::default().with_name(name(TOPIC)).with_partitions(vec![partition]);
        let request = RequestKind::ListOffsets(ListOffsetsRequest::default().with_topics(vec![topic]));
        let ResponseKind::ListOffsets(answer) = wire.ask(ApiKey::ListOffsets, 8, &request).await else { panic!() };
        let partition = &answer.topics[0].partitions[0];
        (partition.error_code, partition.timestamp, partition.offset)
    };
    assert_eq!(find(-2, -1).await, (0, -1, 0));
    assert_eq!(find(-1, -1).await, (0, -1, 6));
    assert_eq!(find(0, -1).await, (0, 1_000, 0));
    assert_eq!(find(1_001, -1).await, (0, year_ms, 1));
    assert_eq!(find(2 * year_ms, -1).await, (0, 2 * year_ms, 2));
    assert_eq!(find(2 * year_ms + 1, -1).await, (0, 40 * year_ms, 3));
    assert_eq!(find(40 * year_ms + 1, -1).await, (0, -1, -1));
    assert_eq!(find(-3, -1).await, (0, 40 * year_ms, 3), "the record with the greatest timestamp");
    assert_eq!(find(-1, 99).await.0, 75, "a leader epoch that is not yet");
    let all = served.broker.fetch(TOPIC, ZERO, cairn_log::Offset::new(0), 1 << 20, std::time::Duration::ZERO).await;
    let records: Vec<_> =
        all.unwrap().batches.iter().flat_map(|bytes| batch::decode(bytes, 1 << 20).unwrap()).collect();
    let times: Vec<_> = records.iter().map(|record| record.timestamp).collect();
    assert_eq!(times, [1_000, year_ms, 2 * year_ms, 40 * year_ms, 3 * year_ms, 4 * year_ms]);
    served.end().await;
}

#[tokio::test]
async fn the_header_says_what_the_records_say_whatever_the_producer_wrote_there() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut bytes = batch_at(&[5_000, 6_000]);
    // A far future, which would keep the batch from retention for ever.
    bytes[35..43].copy_from_slice(&(i64::MAX / 2).to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    let mut wire = Wire::connect(&served).await;
    assert_eq!(produced(wire.ask(ApiKey::Produce, 9, &produce(TOPIC, id, 9, -1, bytes.freeze())).await), (0, 0));
    let fetched = served.broker.fetch(TOPIC, ZERO, cairn_log::Offset::new(0), 1 << 20, std::time::Duration::ZERO).await;
    let fetched = fetched.unwrap();
    batch::check(&fetched.batches[0], false, 1 << 20).expect("the checksum is right");
    assert_eq!(batch::BatchHeader::parse(&fetched.batches[0]).unwrap().max_timestamp, 6_000);
    served.end().await;
}

#[tokio::test]
async fn time_configs_of_a_topic_are_enforced_and_the_append_time_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let mut code = async |topic: &str, id, times: &[i64]| {
        let request = produce(topic, id, 9, -1, batch_at(times).freeze());
        let ResponseKind::Produce(answer) = wire.ask(ApiKey::Produce, 9, &request).await else { panic!() };
        let partition = &answer.responses[0].partition_responses[0];
        (partition.error_code, partition.log_append_time_ms)
    };
    let id = create(&served, "recent", &[("message.timestamp.before.max.ms", "1000")]).await;
    assert_eq!(code("recent", id, &[1_000]).await, (32, -1));
    assert_eq!(code("recent", id, &[-1]).await, (0, -1), "no timestamp at all is none that is too old");
    let id = create(&served, "past", &[("message.timestamp.after.max.ms", "1000")]).await;
    assert_eq!(code("past", id, &[1_000, i64::MAX / 2]).await, (32, -1));
    assert_eq!(code("past", id, &[1_000]).await, (0, -1));
    let id = create(&served, "stamped", &[("message.timestamp.type", "LogAppendTime")]).await;
    let (none, time) = code("stamped", id, &[1_000]).await;
    assert_eq!(none, 0);
    assert!(time > 1_000_000_000_000, "{time}");
    served.end().await;
}

#[tokio::test]
async fn where_a_leader_epoch_ended_is_known_after_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let (mut served, _) = start(folder.path()).await;
    let mut ends = Vec::new();
    for round in 0..4_i64 {
        // Nothing is stored in the second epoch.
        if round != 1 {
            for _ in 0..=round {
                put(&served, TOPIC, &[1, 2, 3]).await;
            }
        }
        let stream = cairn_log::StreamId::new(served.broker.topic(TOPIC).unwrap().id, ZERO);
        let bounds = served.broker.log().bounds(stream).unwrap();
        ends.push((bounds.leader_epoch.get() as i32, bounds.durable_end.get() as i64));
        served.end().await;
        served = Served::start(folder.path(), quick()).await;
    }
    assert!(ends.windows(2).all(|pair| pair[0].0 < pair[1].0), "each start is an epoch: {ends:?}");
    let mut wire = Wire::connect(&served).await;
    let mut end_of = async |epoch| {
        let partition = OffsetForLeaderPartition::default().with_leader_epoch(epoch);
        let topic = OffsetForLeaderTopic::default().with_topic(name(TOPIC)).with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        let request = RequestKind::OffsetForLeaderEpoch(request);
        let answer = wire.ask(ApiKey::OffsetForLeaderEpoch, 4, &request).await;
        let ResponseKind::OffsetForLeaderEpoch(answer) = answer else { panic!() };
        let partition = &answer.topics[0].partitions[0];
        (partition.error_code, partition.leader_epoch, partition.end_offset)
    };
    let [(zero, first), (one, _), (two, third), (three, last)] = ends[..] else { panic!() };
    assert_eq!((first, third, last), (3, 12, 24));
    assert_eq!(end_of(zero).await, (0, zero, 3));
    assert_eq!(end_of(one).await, (0, zero, 3), "an epoch in which nothing was stored ends with the one before");
    assert_eq!(end_of(two).await, (0, two, 12));
    assert_eq!(end_of(three).await, (0, three, 24));
    assert_eq!(end_of(1_000).await, (0, -1, -1));
    served.end().await;
}

#[tokio::test]
async fn a_topic_is_created_as_it_was_asked_for_or_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let mut ask = async |topic: &str, partitions, factor, config: Option<(&str, &str)>, only_check| {
        let configs = config
            .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))));
        let topic = CreatableTopic::default().with_name(name(topic)).with_num_partitions(partitions);
        let topic = topic.with_replication_factor(factor).with_configs(configs.into_iter().collect());
        let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_validate_only(only_check);
        let answer = wire.ask(ApiKey::CreateTopics, 7, &RequestKind::CreateTopics(request)).await;
        let ResponseKind::CreateTopics(answer) = answer else { panic!() };
        let topic = &answer.topics[0];
        assert_eq!(topic.error_code == 0, topic.error_message.is_none());
        (topic.error_code, topic.num_partitions, topic.replication_factor)
    };
    assert_eq!(ask("a", 3, 7, None, true).await, (0, 3, 1));
    assert_eq!(served.broker.topic("a"), None, "it was only to be checked");
    assert_eq!(ask("a", 3, 7, None, false).await, (0, 3, 1));
    assert_eq!(ask("a", 3, 1, None, false).await.0, 36, "it exists");
    assert_eq!(ask("a", 3, 1, None, true).await.0, 36, "it exists");
    assert_eq!(ask("b", -1, -1, None, false).await, (0, 4, 1));
    assert_eq!(ask("c", 0, 1, None, false).await.0, 37);
    assert_eq!(ask("c", 1, 0, None, false).await.0, 38);
    assert_eq!(ask("c", 1, 1, Some(("no.such", "1")), false).await.0, 40);
    assert_eq!(ask("c", 1, 1, Some(("retention.ms", "soon")), true).await.0, 40);
    assert_eq!(ask("c/d", 1, 1, None, false).await.0, 17);
    assert_eq!(ask("mcp.c", 1, 1, None, true).await.0, 29);
    assert_eq!(ask("all", 1_000_000, 1, None, false).await.0, 37);
    served.end().await;
}

#[tokio::test]
async fn an_offset_never_comes_to_mean_another_topics_data() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    wire.ask(ApiKey::OffsetCommit, 8, &samples(ApiKey::OffsetCommit, 8, id)).await;
    let committed = async |wire: &mut Wire| {
        let topic = OffsetFetchRequestTopic::default().with_name(name(TOPIC)).with_partition_indexes(vec![0]);
        let request = OffsetFetchRequest::default().with_group_id(text("alone").into()).with_topics(Some(vec![topic]));
        let answer = wire.ask(ApiKey::OffsetFetch, 5, &RequestKind::OffsetFetch(request)).await;
        let ResponseKind::OffsetFetch(answer) = answer else { panic!() };
        let partition = &answer.topics[0].partitions[0];
        (partition.committed_offset, partition.metadata.clone().unwrap().to_string())
    };
    assert_eq!(committed(&mut wire).await, (3, "note".to_owned()));
    served.broker.delete_topic(&Principal::Internal, TOPIC).await.unwrap();
    create(&served, TOPIC, &[]).await;
    assert_eq!(committed(&mut wire).await, (-1, String::new()));
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(committed(&mut wire).await, (-1, String::new()));
    served.end().await;
}

/// Requests by what they could do to a topic that is protected. A request that is newly offered belongs into one of these
/// lists, and if it changes topics or their records into the tests of protected topics too.
#[tokio::test]
async fn no_request_that_could_change_a_protected_topic_is_offered_but_those_that_ask_who_it_is() {
    const CHECKED: &[ApiKey] = &[
        ApiKey::Produce,
        ApiKey::CreateTopics,
        ApiKey::DeleteTopics,
        ApiKey::Metadata,
        ApiKey::AlterConfigs,
        ApiKey::IncrementalAlterConfigs,
        ApiKey::CreatePartitions,
        ApiKey::DeleteRecords,
        ApiKey::AddPartitionsToTxn,
        ApiKey::WriteTxnMarkers,
    ];
    const HARMLESS: &[ApiKey] = &[
        ApiKey::Fetch,
        ApiKey::ListOffsets,
        ApiKey::OffsetCommit,
        ApiKey::OffsetFetch,
        ApiKey::FindCoordinator,
        ApiKey::JoinGroup,
        ApiKey::Heartbeat,
        ApiKey::LeaveGroup,
        ApiKey::SyncGroup,
        ApiKey::DescribeGroups,
        ApiKey::ListGroups,
        ApiKey::SaslHandshake,
        ApiKey::ApiVersions,
        ApiKey::InitProducerId,
        ApiKey::OffsetForLeaderEpoch,
        ApiKey::DescribeConfigs,
        ApiKey::SaslAuthenticate,
        ApiKey::DescribeCluster,
        ApiKey::OffsetDelete,
        ApiKey::DescribeLogDirs,
        ApiKey::ElectLeaders,
        ApiKey::AlterPartitionReassignments,
        ApiKey::ListPartitionReassignments,
        ApiKey::AlterReplicaLogDirs,
        ApiKey::ListConfigResources,
        ApiKey::DescribeTopicPartitions,
        ApiKey::GetTelemetrySubscriptions,
        ApiKey::PushTelemetry,
        ApiKey::DescribeClientQuotas,
        ApiKey::AlterClientQuotas,
        ApiKey::DeleteGroups,
        ApiKey::DescribeAcls,
        ApiKey::CreateAcls,
        ApiKey::DeleteAcls,
        ApiKey::AddOffsetsToTxn,
        ApiKey::EndTxn,
        ApiKey::TxnOffsetCommit,
        ApiKey::DescribeProducers,
        ApiKey::DescribeTransactions,
        ApiKey::ListTransactions,
        ApiKey::DescribeUserScramCredentials,
        ApiKey::AlterUserScramCredentials,
        ApiKey::ConsumerGroupHeartbeat,
        ApiKey::ConsumerGroupDescribe,
        ApiKey::ShareGroupHeartbeat,
        ApiKey::ShareGroupDescribe,
        ApiKey::ShareFetch,
        ApiKey::ShareAcknowledge,
        ApiKey::DescribeShareGroupOffsets,
        ApiKey::AlterShareGroupOffsets,
        ApiKey::DeleteShareGroupOffsets,
    ];
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let ResponseKind::ApiVersions(offered) =
        wire.ask(ApiKey::ApiVersions, 3, &samples(ApiKey::ApiVersions, 3, id)).await
    else {
        panic!()
    };
    for api in offered.api_keys {
        let key = ApiKey::try_from(api.api_key).unwrap();
        assert!(CHECKED.contains(&key) || HARMLESS.contains(&key), "{key:?} is in no list");
    }
    for key in [ApiKey::CreateDelegationToken, ApiKey::DescribeQuorum] {
        let mut wire = Wire::connect(&served).await;
        wire.send_raw(&[0, key as i16 as u8, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0, 0, 0]).await;
        assert!(wire.receive_raw().await.is_none(), "{key:?} is not offered");
    }
    served.end().await;
}
