//! What there is, page by page: topics and their partitions, what they hold, what has configs, and who was replaced.

use std::{collections::BTreeMap, time::Duration};

use cairn_broker::{BrokerOptions, Principal, TopicSpec};
use cairn_clock::{Clock, Entropy};
use cairn_log::{Log, PartitionIndex};
use kafka_protocol::messages::{
    ApiKey, DescribeLogDirsRequest, DescribeTopicPartitionsRequest, ListConfigResourcesRequest, MetadataRequest,
    RequestKind, ResponseKind,
    describe_log_dirs_request::DescribableLogDirTopic,
    describe_topic_partitions_request::{Cursor, TopicRequest},
};

use super::{PATIENCE, TOPIC, batch, fetch, name, produce, start};
use crate::support::{Served, Wire, eager, open_log, quick, until};

/// Topics and their partitions.
type Asked<'a> = &'a [(&'a str, &'a [i32])];

pub(super) fn log_dirs(topics: Option<Asked<'_>>) -> RequestKind {
    let topic = |(topic, partitions): &(&str, &[i32])| {
        DescribableLogDirTopic::default().with_topic(name(topic)).with_partitions(partitions.to_vec())
    };
    let topics = topics.map(|topics| topics.iter().map(topic).collect());
    RequestKind::DescribeLogDirs(DescribeLogDirsRequest::default().with_topics(topics))
}

pub(super) fn resources(kinds: &[i8]) -> RequestKind {
    RequestKind::ListConfigResources(ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec()))
}

pub(super) fn partitions(topics: &[&str], most: i32, cursor: Option<(&str, i32)>) -> RequestKind {
    let topics = topics.iter().map(|topic| TopicRequest::default().with_name(name(topic))).collect();
    let request = DescribeTopicPartitionsRequest::default().with_topics(topics).with_response_partition_limit(most);
    let cursor = cursor.map(|(topic, at)| Cursor::default().with_topic_name(name(topic)).with_partition_index(at));
    RequestKind::DescribeTopicPartitions(request.with_cursor(cursor))
}

async fn make(served: &Served, topic: &str, partitions: u32) {
    let spec = TopicSpec { name: topic.into(), partitions: Some(partitions), ..TopicSpec::default() };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
}

type Page = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

async fn page(wire: &mut Wire, topics: &[&str], most: i32, cursor: Option<(&str, i32)>) -> Page {
    let answer = wire.ask(ApiKey::DescribeTopicPartitions, 0, &partitions(topics, most, cursor)).await;
    let ResponseKind::DescribeTopicPartitions(answer) = answer else { panic!() };
    let topics = answer.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().inspect(|one| {
            assert_eq!((one.error_code, one.leader_id.0, one.isr_nodes.len()), (0, 1, 1));
        });
        let partitions = partitions.map(|one| one.partition_index).collect();
        (topic.name.as_ref().unwrap().to_string(), topic.error_code, partitions)
    });
    let next = answer.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index));
    (topics.collect(), next)
}

#[tokio::test]
async fn partitions_are_described_page_by_page_and_each_once() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    for (topic, partitions) in [("b", 5), ("a", 2), ("c", 1), ("d", 2)] {
        make(&served, topic, partitions).await;
    }
    let mut wire = Wire::connect(&served).await;
    let one = |topic: &str, partitions: &[i32]| (topic.to_owned(), 0, partitions.to_vec());
    let next = |topic: &str, at| Some((topic.to_owned(), at));
    let named = &["d", "b", "a", "none", "b"];
    let first = page(&mut wire, named, 4, None).await;
    assert_eq!(first, (vec![one("a", &[0, 1]), one("b", &[0, 1])], next("b", 2)));
    let second = page(&mut wire, named, 3, Some(("b", 2))).await;
    assert_eq!(second, (vec![one("b", &[2, 3, 4])], next("d", 0)), "the next begins with the next topic");
    let third = page(&mut wire, named, 100, Some(("d", 0))).await;
    assert_eq!(third, (vec![one("d", &[0, 1]), ("none".to_owned(), 3, vec![])], None));
    // Nothing named: all there are, the broker's own too; a limit that says nothing gives one at a time.
    let (mut all, mut cursor) = (BTreeMap::new(), None::<(String, i32)>);
    loop {
        let from = cursor.as_ref().map(|(topic, at)| (topic.as_str(), *at));
        let (topics, next) = page(&mut wire, &[], 0, from).await;
        let (topic, code, partitions) = &topics[0];
        assert_eq!((topics.len(), *code, partitions.len()), (1, 0, 1));
        all.entry(topic.clone()).or_insert_with(Vec::new).extend(partitions.clone());
        cursor = next;
        if cursor.is_none() {
            break;
        }
    }
    let numbers: Vec<(&str, usize)> = all.iter().map(|(topic, of)| (topic.as_str(), of.len())).collect();
    assert_eq!(numbers, [("__consumer_offsets", 8), ("a", 2), ("b", 5), ("c", 1), ("d", 2)]);
    assert!(all.values().all(|partitions| partitions.is_sorted()));
    assert_eq!(page(&mut wire, &["a"], 5, Some(("a", -7))).await.0, [("a".to_owned(), 42, vec![])]);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partitions_size_is_all_that_is_kept_of_it_wherever_that_lies() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::serve(open_log(eager(folder.path()), quick()).await).await;
    let configs = [("retention.ms".to_owned(), "-1".to_owned())].into();
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(3), configs };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
    let mut expected = [0_i64; 3];
    for at in 0..60_u32 {
        let records = batch(&["v".repeat(at as usize * 20).as_str()]);
        expected[at as usize % 2] += records.len() as i64;
        served.broker.produce(&Principal::Anonymous, TOPIC, PartitionIndex::new(at % 2), records).await.unwrap();
    }
    let mut wire = Wire::connect(&served).await;
    for stored in [false, true] {
        if stored {
            until(|| served.broker.log().stats().wal_depth_bytes == 0).await;
        }
        let asked: [(Option<Asked<'_>>, usize); 3] = [
            (None, 3),
            (Some(&[(TOPIC, &[0, 1, 2, 9]), (TOPIC, &[0]), ("none", &[0])]), 3),
            (Some(&[(TOPIC, &[1])]), 1),
        ];
        for (asked, partitions) in asked {
            let answer = wire.ask(ApiKey::DescribeLogDirs, 4, &log_dirs(asked)).await;
            let ResponseKind::DescribeLogDirs(answer) = answer else { panic!() };
            let place = &answer.results[0];
            assert_eq!((answer.error_code, place.error_code, answer.results.len()), (0, 0, 1));
            assert_eq!(&*place.log_dir, folder.path().to_str().unwrap());
            assert!(place.total_bytes >= place.usable_bytes && place.usable_bytes > 0);
            let topics: Vec<_> = place.topics.iter().filter(|topic| &*topic.name.0 == TOPIC).collect();
            assert_eq!((topics.len(), topics[0].partitions.len()), (1, partitions));
            for partition in &topics[0].partitions {
                let size = expected[partition.partition_index as usize];
                assert_eq!((partition.partition_size, partition.offset_lag), (size, 0), "{stored}");
            }
        }
    }
    served.end().await;
}

#[tokio::test]
async fn what_has_configs_is_listed_by_kind() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let mut list = async |version, kinds: &[i8]| {
        let answer = wire.ask(ApiKey::ListConfigResources, version, &resources(kinds)).await;
        let ResponseKind::ListConfigResources(answer) = answer else { panic!() };
        let all = answer.config_resources.iter().map(|one| (one.resource_type, one.resource_name.to_string()));
        (answer.error_code, all.collect::<Vec<_>>())
    };
    let topics = vec![(2, "__consumer_offsets".to_owned()), (2, TOPIC.to_owned())];
    assert_eq!(list(1, &[2]).await, (0, topics.clone()));
    let all = [vec![(4, "1".to_owned())], topics].concat();
    assert_eq!(list(1, &[]).await, (0, all));
    assert_eq!(list(1, &[8, 16, 32]).await, (0, vec![]));
    assert_eq!(list(1, &[2, 99]).await, (35, vec![]));
    assert_eq!(list(0, &[]).await, (0, vec![]), "before, it was about client metrics alone");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_broker_that_was_replaced_are_told_to_begin_again() {
    let folder = tempfile::tempdir().unwrap();
    let peers = ["1@one.example:9092", "2@two.example:9093"].map(|peer| peer.parse().unwrap()).to_vec();
    let served = Served::serve(open_log(eager(folder.path()), BrokerOptions { peers, ..quick() }).await).await;
    make(&served, TOPIC, 1).await;
    let id = served.broker.topic(TOPIC).unwrap().id;
    let mut wire = Wire::connect(&served).await;
    let code = async |wire: &mut Wire, version| {
        let request = RequestKind::Metadata(MetadataRequest::default().with_topics(None));
        let answer = tokio::time::timeout(PATIENCE, wire.ask(ApiKey::Metadata, version, &request)).await.unwrap();
        let ResponseKind::Metadata(answer) = answer else { panic!() };
        answer.error_code
    };
    assert_eq!(code(&mut wire, 13).await, 0);
    // Another opens the same store from a folder of its own, as after the loss of this machine.
    let mut other = eager(&folder.path().join("other"));
    (other.store, other.recover, other.owner) = (eager(folder.path()).store, true, 2);
    let other = async {
        loop {
            // It may lose to what the first has just stored, and then tries again, as one that is started again does.
            if let Ok(log) = Log::open(other.clone(), Clock::system(), Entropy::system()).await {
                return log;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let other = tokio::time::timeout(PATIENCE * 2, other).await.expect("it takes the store");
    let replaced = async {
        while !served.broker.log().is_fenced() {
            let _ = served.broker.produce(&Principal::Anonymous, TOPIC, PartitionIndex::new(0), batch(&["v"])).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE * 2, replaced).await.expect("it hears of it");
    let codes = (code(&mut wire, 13).await, code(&mut wire, 12).await);
    assert_eq!(codes, (129, 0), "from the first version that can say so");
    // And who has the log now, so that nobody need ask (KIP-951).
    let now = i32::try_from(other.epoch().get()).unwrap();
    for (version, hinted) in [(9, false), (10, true), (13, true)] {
        let request = produce(TOPIC, id, version, -1, batch(&["v"]).freeze());
        let ResponseKind::Produce(answer) = wire.ask(ApiKey::Produce, version, &request).await else { panic!() };
        let partition = &answer.responses[0].partition_responses[0];
        let leader = (partition.current_leader.leader_id.0, partition.current_leader.leader_epoch);
        assert_eq!((partition.error_code, leader), (6, if hinted { (2, now) } else { (-1, -1) }), "{version}");
        let nodes: Vec<_> = answer.node_endpoints.iter().map(|one| (one.node_id.0, &*one.host, one.port)).collect();
        assert_eq!(nodes, if hinted { vec![(2, "two.example", 9093)] } else { vec![] });
    }
    for (version, hinted) in [(15, false), (16, true), (18, true)] {
        let request = fetch(TOPIC, id, version, 0, 0);
        let ResponseKind::Fetch(answer) = wire.ask(ApiKey::Fetch, version, &request).await else { panic!() };
        let partition = &answer.responses[0].partitions[0];
        let leader = (partition.current_leader.leader_id.0, partition.current_leader.leader_epoch);
        assert_eq!((partition.error_code, leader), (6, if hinted { (2, now) } else { (-1, -1) }), "{version}");
        let nodes: Vec<_> = answer.node_endpoints.iter().map(|one| (one.node_id.0, &*one.host, one.port)).collect();
        assert_eq!(nodes, if hinted { vec![(2, "two.example", 9093)] } else { vec![] });
    }
    served.end().await;
    other.close().await;
}
