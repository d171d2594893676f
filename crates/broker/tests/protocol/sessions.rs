//! Fetch sessions (KIP-227) and where the leader is (KIP-951), over the wire.

use std::time::Duration;

use cairn_broker::{Principal, TopicSpec};
use cairn_log::{PartitionIndex, StreamId};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, RequestKind, ResponseKind,
    fetch_request::{FetchPartition, FetchTopic, ForgottenTopic},
};
use uuid::Uuid;

use super::{PATIENCE, batch, name};
use crate::support::{Served, Wire, quick};

const TOPIC: &str = "kept";
const UNKNOWN_TOPIC_ID: i16 = 100;
const NO_SESSION: i16 = 70;
const WRONG_EPOCH: i16 = 71;
const OTHER_NAMES: i16 = 106;
const FENCED: i16 = 74;

struct Client {
    wire: Wire,
    id: Uuid,
    version: i16,
}

impl Client {
    fn topic(&self, partitions: &[(i32, i64)]) -> FetchTopic {
        let partition = |(at, from): &(i32, i64)| {
            let partition = FetchPartition::default().with_partition(*at).with_fetch_offset(*from);
            partition.with_partition_max_bytes(1 << 20)
        };
        let topic = FetchTopic::default().with_partitions(partitions.iter().map(partition).collect());
        if self.version >= 13 { topic.with_topic_id(self.id) } else { topic.with_topic(name(TOPIC)) }
    }

    fn forgotten(&self, partitions: &[i32]) -> ForgottenTopic {
        let topic = ForgottenTopic::default().with_partitions(partitions.to_vec());
        if self.version >= 13 { topic.with_topic_id(self.id) } else { topic.with_topic(name(TOPIC)) }
    }

    fn request(&self, session: (i32, i32), wait: Duration, partitions: &[(i32, i64)]) -> FetchRequest {
        let request = FetchRequest::default().with_max_wait_ms(wait.as_millis() as i32).with_min_bytes(1);
        let request = request.with_max_bytes(1 << 20).with_session_id(session.0).with_session_epoch(session.1);
        let topics = if partitions.is_empty() { Vec::new() } else { vec![self.topic(partitions)] };
        request.with_topics(topics)
    }

    async fn ask(&mut self, request: FetchRequest) -> FetchResponse {
        let request = RequestKind::Fetch(request);
        let answer = self.wire.ask(ApiKey::Fetch, self.version, &request);
        let ResponseKind::Fetch(answer) = tokio::time::timeout(PATIENCE, answer).await.unwrap() else { panic!() };
        answer
    }

    async fn go_on(&mut self, session: (i32, i32), partitions: &[(i32, i64)]) -> FetchResponse {
        let request = self.request(session, Duration::ZERO, partitions);
        self.ask(request).await
    }
}

/// Each partition that is told: its index, whether there are records, and its code.
fn told(answer: &FetchResponse) -> Vec<(i32, bool, i16)> {
    let all = answer.responses.iter().flat_map(|topic| &topic.partitions);
    all.map(|one| (one.partition_index, one.records.as_ref().is_some_and(|r| !r.is_empty()), one.error_code)).collect()
}

async fn put(served: &Served, partition: u32) {
    let value = batch(&["v"]);
    served.broker.produce(&Principal::Anonymous, TOPIC, PartitionIndex::new(partition), value).await.unwrap();
}

async fn make(served: &Served) -> Uuid {
    let spec = TopicSpec { name: TOPIC.into(), partitions: Some(4), ..TopicSpec::default() };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap().id
}

#[tokio::test]
async fn a_session_is_told_what_is_new_and_waits_for_it() {
    for version in [7, 12, 13, 18] {
        let folder = tempfile::tempdir().unwrap();
        let served = Served::start(folder.path(), quick()).await;
        let id = make(&served).await;
        put(&served, 1).await;
        let mut client = Client { wire: Wire::connect(&served).await, id, version };
        let all = [(0, 0), (1, 0), (2, 0), (3, 0)];
        let opened = client.go_on((0, 0), &all).await;
        let session = opened.session_id;
        assert!(session > 0 && opened.error_code == 0, "version {version}");
        assert_eq!(told(&opened), [(0, false, 0), (1, true, 0), (2, false, 0), (3, false, 0)]);
        // Where it reads on is all that it says of a partition.
        let nothing = client.go_on((session, 1), &[(1, 1)]).await;
        assert_eq!((nothing.session_id, nothing.error_code, nothing.responses.len()), (session, 0, 0));
        // It names nothing, and is answered when something of what it named before becomes durable.
        let waits = client.request((session, 2), Duration::from_secs(60), &[]);
        client.wire.send(ApiKey::Fetch, version, &RequestKind::Fetch(waits)).await;
        put(&served, 3).await;
        let answer = tokio::time::timeout(PATIENCE, client.wire.receive(ApiKey::Fetch, version)).await.unwrap();
        let Some(ResponseKind::Fetch(answer)) = answer else { panic!() };
        assert_eq!(told(&answer), [(3, true, 0)]);
        assert_eq!(client.go_on((session, 2), &[]).await.error_code, WRONG_EPOCH, "an epoch is used once");
        let request = client.request((session, 3), Duration::ZERO, &[]);
        let request = request.with_forgotten_topics_data(vec![client.forgotten(&[3, 0])]);
        assert_eq!(client.ask(request).await.responses.len(), 0);
        put(&served, 0).await;
        put(&served, 2).await;
        assert_eq!(told(&client.go_on((session, 4), &[]).await), [(2, true, 0)], "what was forgotten is not told");
        let stats = served.broker.stats();
        assert_eq!((stats.fetch_sessions, stats.fetch_session_partitions), (1, 2));
        // A connection of its own goes on with it, and ends it.
        client.wire = Wire::connect(&served).await;
        assert_eq!(told(&client.go_on((session, 5), &[(0, 0)]).await), [(2, true, 0), (0, true, 0)]);
        let last = client.go_on((session, -1), &[(1, 0)]).await;
        assert_eq!((last.session_id, told(&last)), (0, vec![(1, true, 0)]));
        let gone = client.go_on((session, 6), &[]).await;
        assert_eq!((gone.error_code, gone.session_id, gone.responses.len()), (NO_SESSION, 0, 0));
        assert_eq!(served.broker.stats().fetch_sessions, 0);
        served.end().await;
    }
}

#[tokio::test]
async fn a_topic_made_again_is_unknown_to_the_session_that_knew_the_old_one() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    let id = make(&served).await;
    let mut client = Client { wire: Wire::connect(&served).await, id, version: 18 };
    let session = client.go_on((0, 0), &[(0, 0)]).await.session_id;
    served.broker.delete_topic(&Principal::Internal, TOPIC).await.unwrap();
    assert_eq!(told(&client.go_on((session, 1), &[]).await), [(0, false, UNKNOWN_TOPIC_ID)]);
    make(&served).await;
    put(&served, 0).await;
    assert_eq!(told(&client.go_on((session, 2), &[]).await), [(0, false, UNKNOWN_TOPIC_ID)], "it is said again");
    // A session of topic ids is none of topic names.
    client.version = 12;
    assert_eq!(client.go_on((session, 3), &[]).await.error_code, OTHER_NAMES);
    client.version = 4;
    let request = client.request((0, -1), Duration::ZERO, &[(0, 0)]);
    assert_eq!(told(&client.ask(request).await), [(0, true, 0)], "before sessions there were none");
    served.end().await;
}

#[tokio::test]
async fn who_finds_no_room_for_a_session_reads_without() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    (options.limits.fetch_sessions_max, options.limits.fetch_session_partitions_max) = (2, 5);
    let served = Served::start(folder.path(), options).await;
    let id = make(&served).await;
    put(&served, 0).await;
    let mut ids = Vec::new();
    for partitions in [&[(0, 0), (1, 0), (2, 0)][..], &[(0, 0), (1, 0), (3, 0)], &[(0, 0)], &[(0, 0)]] {
        let mut client = Client { wire: Wire::connect(&served).await, id, version: 17 };
        let answer = client.go_on((0, 0), partitions).await;
        assert_eq!((told(&answer).len(), told(&answer)[0]), (partitions.len(), (0, true, 0)));
        ids.push(answer.session_id > 0);
    }
    assert_eq!(ids, [true, false, true, false], "more partitions than may be, then more sessions");
    served.end().await;
}

#[tokio::test]
async fn who_knows_an_old_leader_epoch_is_told_the_one_that_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    let id = make(&served).await;
    let epoch = |served: &Served| {
        let stream = StreamId::new(id, PartitionIndex::new(0));
        served.broker.log().bounds(stream).unwrap().leader_epoch.get() as i32
    };
    let old = epoch(&served);
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    let now = epoch(&served);
    for (version, hinted) in [(15, false), (16, true), (18, true)] {
        let mut client = Client { wire: Wire::connect(&served).await, id, version };
        let mut request = client.request((0, -1), Duration::ZERO, &[(0, 0), (1, 0)]);
        request.topics[0].partitions[0].current_leader_epoch = old;
        let answer = client.ask(request).await;
        assert_eq!(told(&answer), [(0, false, FENCED), (1, false, 0)]);
        let leader = &answer.responses[0].partitions[0].current_leader;
        let expected = if hinted { (1, now) } else { (-1, -1) };
        assert_eq!((leader.leader_id.0, leader.leader_epoch), expected, "version {version}");
        let nodes: Vec<_> = answer.node_endpoints.iter().map(|node| (node.node_id.0, node.port)).collect();
        let me = (1, i32::from(served.address.port()));
        assert_eq!(nodes, if hinted { vec![me] } else { vec![] });
    }
    served.end().await;
}

#[tokio::test]
async fn records_stand_with_their_partition_in_whatever_order_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    let places = [("one", 0), ("two", 0), ("one", 1), ("two", 1), ("one", 2)];
    for topic in ["one", "two"] {
        let spec = TopicSpec { name: topic.into(), partitions: Some(3), ..TopicSpec::default() };
        served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
    }
    let value = |topic: &str, partition: i32| format!("{topic} {partition} ").repeat(500);
    for (topic, partition) in places {
        let value = batch(&[&value(topic, partition)]);
        let at = PartitionIndex::new(partition as u32);
        served.broker.produce(&Principal::Anonymous, topic, at, value).await.unwrap();
    }
    let topics = places.map(|(topic, partition)| {
        let partition = FetchPartition::default().with_partition(partition).with_partition_max_bytes(1 << 20);
        FetchTopic::default().with_topic(name(topic)).with_partitions(vec![partition])
    });
    let mut wire = Wire::connect(&served).await;
    for version in [4, 11, 12] {
        let request = FetchRequest::default().with_max_bytes(1 << 20).with_topics(topics.to_vec());
        let request = request.with_session_epoch(-1);
        let ResponseKind::Fetch(answer) = wire.ask(ApiKey::Fetch, version, &RequestKind::Fetch(request)).await else {
            panic!()
        };
        let mut told = 0;
        for topic in &answer.responses {
            for data in &topic.partitions {
                let records = data.records.as_ref().unwrap();
                let expected = value(&topic.topic, data.partition_index);
                let found = records.windows(expected.len()).any(|window| window == expected.as_bytes());
                assert!(found, "version {version}, {} {}", &*topic.topic, data.partition_index);
                told += 1;
            }
        }
        assert_eq!(told, places.len());
    }
    served.end().await;
}
