//! Client quotas: kept, told as they are asked for, and felt by who has one.

use std::time::Duration;

use bytes::Bytes;
use cairn_broker::{Principal, batch::BatchBuilder};
use cairn_log::PartitionIndex;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, ApiKey, DescribeClientQuotasRequest, RequestKind, ResponseKind,
    alter_client_quotas_request::{EntityData, EntryData, OpData},
    describe_client_quotas_request::ComponentData,
};
use tokio::time::Instant;

use super::{PATIENCE, TOPIC, fetch, produce, start, text};
use crate::support::{Served, Wire, quick};

const SENT: &str = "producer_byte_rate";
const RECEIVED: &str = "consumer_byte_rate";
const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;
const INVALID: i16 = 42;
const UNSUPPORTED: i16 = 35;
/// The client id of [`Wire`].
const WIRE: &[(&str, Option<&str>)] = &[("client-id", Some("wire"))];

pub(super) fn describe(components: &[(&str, i8, Option<&str>)], strict: bool) -> RequestKind {
    let component = |(kind, how, name): &(&str, i8, Option<&str>)| {
        ComponentData::default().with_entity_type(text(kind)).with_match_type(*how).with_match(name.map(text))
    };
    let request = DescribeClientQuotasRequest::default().with_strict(strict);
    RequestKind::DescribeClientQuotas(request.with_components(components.iter().map(component).collect()))
}

pub(super) fn alter(entity: &[(&str, Option<&str>)], ops: &[(&str, Option<f64>)], check_only: bool) -> RequestKind {
    let part = |(kind, name): &(&str, Option<&str>)| {
        EntityData::default().with_entity_type(text(kind)).with_entity_name(name.map(text))
    };
    let op = |(key, value): &(&str, Option<f64>)| {
        OpData::default().with_key(text(key)).with_value(value.unwrap_or(0.0)).with_remove(value.is_none())
    };
    let entry = EntryData::default().with_entity(entity.iter().map(part).collect());
    let entry = entry.with_ops(ops.iter().map(op).collect());
    let request = AlterClientQuotasRequest::default().with_entries(vec![entry]);
    RequestKind::AlterClientQuotas(request.with_validate_only(check_only))
}

/// The code, and the reason where there is one.
async fn altered(wire: &mut Wire, entity: &[(&str, Option<&str>)], ops: &[(&str, Option<f64>)]) -> (i16, String) {
    let answer = wire.ask(ApiKey::AlterClientQuotas, 1, &alter(entity, ops, false)).await;
    let ResponseKind::AlterClientQuotas(answer) = answer else { panic!() };
    let entry = &answer.entries[0];
    assert_eq!((entry.error_code == 0, entry.entity.len()), (entry.error_message.is_none(), entity.len()));
    (entry.error_code, entry.error_message.as_ref().map(ToString::to_string).unwrap_or_default())
}

/// Entities as `kind=name` and values as `key=value`, or the code.
async fn described(wire: &mut Wire, asked: &[(&str, i8, Option<&str>)], strict: bool) -> Result<Vec<String>, i16> {
    let answer = wire.ask(ApiKey::DescribeClientQuotas, 1, &describe(asked, strict)).await;
    let ResponseKind::DescribeClientQuotas(answer) = answer else { panic!() };
    let Some(entries) = answer.entries else { return Err(answer.error_code) };
    let entry = entries.iter().map(|entry| {
        let entity = entry.entity.iter();
        let entity =
            entity.map(|part| format!("{}={}", &*part.entity_type, part.entity_name.as_deref().unwrap_or("*")));
        let values = entry.values.iter().map(|value| format!("{}={}", &*value.key, value.value));
        entity.chain(values).collect::<Vec<_>>().join(" ")
    });
    Ok(entry.collect())
}

#[tokio::test]
async fn quotas_are_told_as_they_are_asked_for_and_outlive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    for (entity, ops) in [
        (&[("user", Some("ann")), ("client-id", Some("app"))][..], &[(SENT, Some(1000.0))][..]),
        (&[("user", Some("ann"))], &[(SENT, Some(2000.0)), ("request_percentage", Some(12.5))]),
        (&[("user", None)], &[(RECEIVED, Some(3000.0))]),
        (&[("client-id", None)], &[(SENT, Some(4000.0))]),
        (&[("user", Some("gone"))], &[(SENT, Some(1.0))]),
        (&[("user", Some("gone"))], &[(SENT, None)]),
        (&[("user", None)], &[(SENT, Some(5.0))]),
        (&[("user", None)], &[(SENT, None)]),
    ] {
        assert_eq!(altered(&mut wire, entity, ops).await, (0, String::new()), "{entity:?}");
    }
    let tried = alter(&[("user", Some("tried"))], &[(SENT, Some(1.0))], true);
    wire.ask(ApiKey::AlterClientQuotas, 0, &tried).await;
    let (app, ann) =
        ("client-id=app user=ann producer_byte_rate=1000", "user=ann producer_byte_rate=2000 request_percentage=12.5");
    let (every, clients) = ("user=* consumer_byte_rate=3000", "client-id=* producer_byte_rate=4000");
    for _ in 0..2 {
        for (asked, strict, expected) in [
            (&[][..], false, vec![clients, app, every, ann]),
            (&[("user", ANY, None)], false, vec![app, every, ann]),
            (&[("user", ANY, None)], true, vec![every, ann]),
            (&[("user", EXACT, Some("ann"))], false, vec![app, ann]),
            (&[("user", EXACT, Some("ann")), ("client-id", ANY, None)], true, vec![app]),
            (&[("user", DEFAULT, None)], true, vec![every]),
            (&[("client-id", DEFAULT, None)], false, vec![clients]),
            (&[("user", EXACT, Some("tried"))], false, vec![]),
            (&[("ip", ANY, None)], false, vec![]),
        ] {
            let mut found = described(&mut wire, asked, strict).await.unwrap();
            let mut expected = expected;
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{asked:?} {strict}");
        }
        served.end().await;
        served = Served::start(folder.path(), quick()).await;
        wire = Wire::connect(&served).await;
    }
    served.end().await;
}

#[tokio::test]
async fn what_cannot_be_a_quota_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let long = "n".repeat(1_001);
    for (entity, ops, says) in [
        (&[][..], &[(SENT, Some(1.0))][..], "name a `user`"),
        (&[("ip", Some("::1"))], &[("connection_creation_rate", Some(1.0))], "no quotas for `ip`"),
        (&[("user", Some("a")), ("user", Some("b"))], &[(SENT, Some(1.0))], "named twice"),
        (&[("user", Some(""))], &[(SENT, Some(1.0))], "1 to 1000 bytes"),
        (&[("user", Some(&long))], &[(SENT, Some(1.0))], "1 to 1000 bytes"),
        (&[("user", Some("a"))], &[(SENT, Some(0.0))], "cannot be 0"),
        (&[("user", Some("a"))], &[(SENT, Some(1.5))], "cannot be 1.5"),
        (&[("user", Some("a"))], &[(RECEIVED, Some(f64::NAN))], "cannot be NaN"),
        (&[("user", Some("a"))], &[("request_percentage", Some(f64::INFINITY))], "cannot be inf"),
        (&[("user", Some("a"))], &[("controller_mutation_rate", Some(1.0))], "is no quota here"),
        (&[("user", Some("a"))], &[(SENT, Some(1.0)), (SENT, None)], "changed twice"),
    ] {
        let (code, why) = altered(&mut wire, entity, ops).await;
        assert!(code == INVALID && why.contains(says), "{entity:?} {ops:?}: {code} {why}");
    }
    for (asked, code) in [
        (&[("planet", EXACT, Some("earth"))][..], UNSUPPORTED),
        (&[("user", EXACT, None)], INVALID),
        (&[("user", ANY, Some("a"))], INVALID),
        (&[("user", 9, None)], INVALID),
        (&[("user", ANY, None), ("user", DEFAULT, None)], INVALID),
        (&[("ip", ANY, None), ("user", ANY, None)], INVALID),
    ] {
        assert_eq!(described(&mut wire, asked, false).await, Err(code), "{asked:?}");
    }
    assert_eq!(described(&mut wire, &[], false).await, Ok(vec![]));
    served.end().await;
}

/// A batch of about so many bytes.
fn bulk(bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.push(1, Some(b"k"), Some(&vec![b'x'; bytes]), &[]);
    builder.build().unwrap().freeze()
}

#[tokio::test]
async fn who_sends_past_a_quota_is_told_to_wait_and_not_read_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(altered(&mut wire, WIRE, &[(SENT, Some(40_000.0))]).await.0, 0);
    let send = async |wire: &mut Wire| {
        let request = produce(TOPIC, id, 9, -1, bulk(60_000));
        let answer = tokio::time::timeout(PATIENCE, wire.ask(ApiKey::Produce, 9, &request)).await.unwrap();
        let ResponseKind::Produce(answer) = answer else { panic!() };
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0);
        Duration::from_millis(answer.throttle_time_ms as u64)
    };
    // Each sends more than there can be in a second, however long it was quiet.
    let began = Instant::now();
    let mut told = Duration::ZERO;
    for _ in 0..3 {
        let waits = send(&mut wire).await;
        assert!(waits >= Duration::from_millis(499), "{waits:?}");
        assert!(began.elapsed() >= told, "it was read too early: {:?} of {told:?}", began.elapsed());
        told += waits;
    }
    assert!(served.broker.stats().quota_throttled_us >= told.as_micros() as u64);
    // Nothing that it asks is read before its time.
    let code = altered(&mut wire, &[("user", Some("other"))], &[(SENT, Some(1.0))]).await.0;
    assert_eq!((code, began.elapsed() >= told), (0, true), "{:?} of {told:?}", began.elapsed());
    // What it owes is owed by its name, however it is connected.
    assert!(send(&mut Wire::connect(&served).await).await >= Duration::from_millis(499));
    // Without the quota it goes on at once.
    assert_eq!(altered(&mut Wire::connect(&served).await, WIRE, &[(SENT, None)]).await.0, 0);
    assert_eq!(send(&mut Wire::connect(&served).await).await, Duration::ZERO);
    served.end().await;
}

#[tokio::test]
async fn whose_requests_take_longer_than_they_may_is_told_to_wait_and_not_read_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let all = super::all_offered(&served).await;
    // A thousandth of a hundredth of a core: 10 µs a second, which any request takes.
    assert_eq!(altered(&mut wire, WIRE, &[("request_percentage", Some(0.001))]).await.0, 0);
    let mut wire = Wire::connect(&served).await;
    let request = super::samples(ApiKey::Metadata, 9, id);
    let ask = async |wire: &mut Wire| {
        let answer = tokio::time::timeout(PATIENCE, wire.ask(ApiKey::Metadata, 9, &request)).await.unwrap();
        let ResponseKind::Metadata(answer) = answer else { panic!() };
        Duration::from_millis(answer.throttle_time_ms as u64)
    };
    ask(&mut wire).await;
    let told = ask(&mut wire).await;
    let began = Instant::now();
    assert!((Duration::from_millis(1)..=Duration::from_secs(1)).contains(&told), "one window at most: {told:?}");
    // The same for who writes; its answer comes only when it was read.
    let request = produce(TOPIC, id, 9, -1, bulk(10));
    let ResponseKind::Produce(answer) = wire.ask(ApiKey::Produce, 9, &request).await else { panic!() };
    assert!(began.elapsed() >= told, "it was read too early: {:?} of {told:?}", began.elapsed());
    assert!(answer.throttle_time_ms > 0 && served.broker.stats().quota_throttled_us > 0);
    // Every version can be told so, or has no room for it.
    assert_eq!(altered(&mut Wire::connect(&served).await, WIRE, &[("request_percentage", None)]).await.0, 0);
    let everybody = &[("client-id", None)];
    assert_eq!(altered(&mut Wire::connect(&served).await, everybody, &[("request_percentage", Some(1e-9))]).await.0, 0);
    let mut versions: Vec<_> = all.into_iter().flat_map(|(key, all)| all.map(move |version| (key, version))).collect();
    versions.retain(|(key, version)| *key != ApiKey::Produce || *version >= 3);
    let asked = versions.into_iter().map(|(key, version)| {
        let (served, request) = (&served, super::samples(key, version, id));
        async move {
            let mut wire = Wire::connect(served).await;
            wire.send(key, version, &request).await;
            let answer = tokio::time::timeout(PATIENCE, wire.receive(key, version)).await;
            assert!(matches!(answer, Ok(Some(_))), "{key:?} {version}");
        }
    });
    futures::future::join_all(asked).await;
    served.end().await;
}

#[tokio::test]
async fn who_reads_past_a_quota_gets_a_windows_worth_and_is_told_to_wait() {
    let folder = tempfile::tempdir().unwrap();
    let (served, id) = start(folder.path()).await;
    for _ in 0..10 {
        let records = bytes::BytesMut::from(&bulk(20_000)[..]);
        served.broker.produce(&Principal::Anonymous, TOPIC, PartitionIndex::new(0), records).await.unwrap();
    }
    let mut wire = Wire::connect(&served).await;
    let everybody = &[("user", None), ("client-id", None)];
    assert_eq!(altered(&mut wire, everybody, &[(RECEIVED, Some(50_000.0))]).await.0, 0);
    let (began, mut bytes, mut told) = (Instant::now(), 0, Duration::ZERO);
    for from in [0, 2, 4, 6] {
        let request = fetch(TOPIC, id, 12, from, 0);
        let answer = tokio::time::timeout(PATIENCE, wire.ask(ApiKey::Fetch, 12, &request)).await.unwrap();
        let ResponseKind::Fetch(answer) = answer else { panic!() };
        let owed = Duration::from_secs_f64((f64::from(bytes) / 50_000.0 - 1.0).max(0.0));
        assert!(began.elapsed() >= owed, "it was read too early: {:?} of {owed:?}", began.elapsed());
        let records = answer.responses[0].partitions[0].records.as_ref().unwrap().len();
        assert!((40_000..=50_000).contains(&records), "as much as a second gives: {records}");
        bytes += records as i32;
        told += Duration::from_millis(answer.throttle_time_ms as u64);
    }
    // One batch that is more than a second gives is told whole, and owed for.
    assert_eq!(altered(&mut Wire::connect(&served).await, everybody, &[(RECEIVED, Some(10_000.0))]).await.0, 0);
    let request = fetch(TOPIC, id, 12, 8, 0);
    let answer = Wire::connect(&served).await.ask(ApiKey::Fetch, 12, &request).await;
    let ResponseKind::Fetch(answer) = answer else { panic!() };
    assert!(answer.throttle_time_ms >= 1_000, "{} after {told:?}", answer.throttle_time_ms);
    served.end().await;
}
