//! Clocks that are set forward and back by days: what lasts goes on lasting as long as it should, nothing is forgotten, nobody is shut
//! out; what is said to be of the hour is of the hour.

use std::{path::Path, time::Duration};

use cairn_broker::{Broker, Principal, TopicSpec, batch};
use cairn_clock::{Clock, Entropy, Timestamp};
use cairn_log::{Log, LogOptions};
use kafka_protocol::messages::{ApiKey, HeartbeatRequest, MetadataRequest, RequestKind, ResponseKind};

use super::{
    BatchBuilder, PATIENCE, TOPIC, Uuid,
    forgetting::{commit, committed, join, subscription},
    logins::{administered, handshake, say},
    produce, produced, text, transactions,
};
use crate::support::{Served, Wire, until};

const DAY_MS: i64 = 86_400_000;
const NOON_MS: i64 = 1_800_000_000_000;
/// Several of the intervals at which the broker looks for what is over.
const SOME_LOOKS: Duration = Duration::from_millis(150);
const INVALID_TIMESTAMP: i16 = 32;
const FENCED: i16 = 90;

async fn serve(folder: &Path, clock: &Clock) -> Served {
    let mut options = administered();
    options.offsets_look_interval = Duration::from_millis(10);
    options.limits.transaction_interval = Duration::from_millis(10);
    options.login_age_max = Some(Duration::from_secs(60));
    let log = LogOptions {
        retention_interval: Duration::from_millis(10),
        ..LogOptions::new(folder.join("log"), batch::stamp)
    };
    let log = Log::open(log, clock.clone(), Entropy::system()).await.unwrap();
    Served::serve(Broker::open(options, log, clock.clone(), Entropy::system()).await.unwrap()).await
}

async fn create(served: &Served, topic: &str, configs: &[(&str, &str)]) {
    let configs = configs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let spec = TopicSpec { name: topic.into(), partitions: Some(2), configs };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
}

fn at_noon() -> Clock {
    Clock::manual(Timestamp::from_micros(NOON_MS as u64 * 1_000))
}

/// Puts one record of a time; the code, and where it is.
async fn put(wire: &mut Wire, topic: &str, at_ms: i64) -> (i16, i64) {
    let mut builder = BatchBuilder::new();
    builder.push(at_ms, Some(b"k"), Some(b"v"), &[]);
    let request = produce(topic, Uuid::nil(), 9, -1, builder.build().unwrap().freeze());
    produced(wire.ask(ApiKey::Produce, 9, &request).await)
}

async fn beat(wire: &mut Wire, group: &str, (member, generation): (&str, i32)) -> i16 {
    let request = HeartbeatRequest::default().with_group_id(text(group).into()).with_member_id(text(member));
    let request = RequestKind::Heartbeat(request.with_generation_id(generation));
    let ResponseKind::Heartbeat(answer) = wire.ask(ApiKey::Heartbeat, 3, &request).await else { panic!() };
    answer.error_code
}

async fn login(served: &Served) -> Wire {
    let mut wire = Wire::connect(served).await;
    assert_eq!(handshake(&mut wire, "PLAIN").await, 0);
    assert_eq!(say(&mut wire, b"\0root\0root-secret").await.0, 0);
    wire
}

#[tokio::test]
async fn a_clock_that_is_set_ends_no_transaction_session_or_login_and_forgets_nothing() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), at_noon());
    let served = serve(folder.path(), &clock).await;
    create(&served, TOPIC, &[("retention.ms", "86400000")]).await;
    create(&served, "read", &[]).await;
    let (mut wire, mut known) = (Wire::connect(&served).await, login(&served).await);
    assert_eq!(put(&mut wire, "read", NOON_MS).await, (0, 0));
    let producer = transactions::begin(&mut wire).await;
    transactions::put(&mut wire, 12, producer, 0, (0, "in time")).await;
    let (member, generation) = join(&mut wire, "works", "consumer", subscription(&["read"])).await;
    commit(&mut wire, "simple", None, &["read"]).await;
    let metadata = RequestKind::Metadata(MetadataRequest::default().with_topics(None));
    for by_ms in [8 * DAY_MS, -16 * DAY_MS, 300 * DAY_MS] {
        clock.set_by(by_ms);
        tokio::time::sleep(SOME_LOOKS).await;
        let state = transactions::described(&mut wire, transactions::ID).await.transaction_state.to_string();
        assert_eq!(state, "Ongoing", "set by {by_ms} ms");
        assert_eq!(beat(&mut wire, "works", (&member, generation)).await, 0);
        assert_eq!(committed(&mut wire, "simple").await, ["read-0", "read-1"]);
        known.ask(ApiKey::Metadata, 9, &metadata).await;
        let stream =
            cairn_log::StreamId::new(served.broker.topic("read").unwrap().id, cairn_log::PartitionIndex::new(0));
        assert_eq!(served.broker.log().bounds(stream).unwrap().log_start.get(), 0, "retention took a record");
    }
    assert_eq!(transactions::end(&mut wire, 5, producer, true).await.0, 0);
    served.end().await;
}

#[tokio::test]
async fn time_that_passes_ends_what_it_should_whatever_the_clock_was_set_to() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), at_noon());
    let served = serve(folder.path(), &clock).await;
    create(&served, TOPIC, &[]).await;
    create(&served, "read", &[]).await;
    let (mut wire, mut known) = (Wire::connect(&served).await, login(&served).await);
    let producer = transactions::begin(&mut wire).await;
    transactions::put(&mut wire, 12, producer, 0, (0, "too late")).await;
    commit(&mut wire, "simple", None, &["read"]).await;
    // Back by a day and more: by the hour alone, nothing would be over for as long.
    clock.set_by(-DAY_MS - 60_000);
    clock.advance(Duration::from_secs(60));
    let stream = cairn_log::StreamId::new(served.broker.topic(TOPIC).unwrap().id, cairn_log::PartitionIndex::new(0));
    until(|| served.broker.log().bounds(stream).is_ok_and(|bounds| bounds.stable_end.get() == 2)).await;
    assert_eq!(transactions::end(&mut wire, 5, producer, true).await.0, FENCED);
    known.send(ApiKey::Metadata, 9, &RequestKind::Metadata(MetadataRequest::default().with_topics(None))).await;
    let ended = tokio::time::timeout(PATIENCE, known.receive_raw()).await.unwrap();
    assert!(ended.is_none(), "a login counts for its time");
    // A clock that stays as it was set is right in the end.
    clock.set_by(9 * DAY_MS);
    tokio::time::sleep(SOME_LOOKS).await;
    assert_eq!(committed(&mut wire, "simple").await, ["read-0", "read-1"]);
    clock.advance(Duration::from_secs(2 * 3_600));
    let come = async {
        while !committed(&mut wire, "simple").await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, come).await.expect("nobody used them for more than seven days");
    served.end().await;
}

#[tokio::test]
async fn times_of_records_are_of_the_hour_that_the_clock_says() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), at_noon());
    let served = serve(folder.path(), &clock).await;
    create(&served, "stamped", &[("message.timestamp.type", "LogAppendTime"), ("retention.ms", "-1")]).await;
    create(&served, "checked", &[("message.timestamp.after.max.ms", "3600000"), ("retention.ms", "-1")]).await;
    let mut wire = Wire::connect(&served).await;
    let stamped = async |wire: &mut Wire| {
        let mut builder = BatchBuilder::new();
        builder.push(5, Some(b"k"), Some(b"v"), &[]);
        let request = produce("stamped", Uuid::nil(), 9, -1, builder.build().unwrap().freeze());
        let ResponseKind::Produce(answer) = wire.ask(ApiKey::Produce, 9, &request).await else { panic!() };
        answer.responses[0].partition_responses[0].log_append_time_ms
    };
    assert_eq!(stamped(&mut wire).await, NOON_MS);
    clock.set_by(DAY_MS);
    assert_eq!(stamped(&mut wire).await, NOON_MS + DAY_MS);
    clock.set_by(-2 * DAY_MS);
    assert_eq!(stamped(&mut wire).await, NOON_MS - DAY_MS);
    assert_eq!(
        put(&mut wire, "checked", NOON_MS).await.0,
        INVALID_TIMESTAMP,
        "a day ahead of a clock that was set back"
    );
    clock.set_by(DAY_MS);
    assert_eq!(put(&mut wire, "checked", NOON_MS).await.0, 0);
    served.end().await;
}
