//! What is asked of clients and of groups: kept, told, listed, and taken back; and what clients push.

use bytes::Bytes;
use kafka_protocol::messages::{
    ApiKey, DescribeConfigsRequest, GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse,
    IncrementalAlterConfigsRequest, PushTelemetryRequest, RequestKind, ResponseKind,
    describe_configs_request::DescribeConfigsResource,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};
use uuid::Uuid;

use super::{ApiVersionsRequest, TOPIC, consumer_groups::joins, describing::resources, start, text};
use crate::support::{Served, Wire, quick};

const CLIENT_METRICS: i8 = 16;
const GROUP: i8 = 32;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const INVALID_REQUEST: i16 = 42;
const INVALID_CONFIG: i16 = 40;

pub(super) fn asking(id: Uuid) -> RequestKind {
    RequestKind::GetTelemetrySubscriptions(GetTelemetrySubscriptionsRequest::default().with_client_instance_id(id))
}

pub(super) fn pushing(id: Uuid, subscription: i32, codec: i8, metrics: Bytes) -> RequestKind {
    let request = PushTelemetryRequest::default().with_client_instance_id(id).with_subscription_id(subscription);
    RequestKind::PushTelemetry(request.with_compression_type(codec).with_metrics(metrics))
}

async fn ask(wire: &mut Wire, id: Uuid) -> GetTelemetrySubscriptionsResponse {
    let answer = wire.ask(ApiKey::GetTelemetrySubscriptions, 0, &asking(id)).await;
    let ResponseKind::GetTelemetrySubscriptions(answer) = answer else { panic!() };
    answer
}

async fn push(wire: &mut Wire, id: Uuid, subscription: i32, codec: i8, metrics: Vec<u8>) -> i16 {
    let request = pushing(id, subscription, codec, metrics.into());
    let ResponseKind::PushTelemetry(answer) = wire.ask(ApiKey::PushTelemetry, 0, &request).await else { panic!() };
    answer.error_code
}

type Changes<'a> = &'a [(&'static str, i8, Option<&'static str>)];

async fn alter(wire: &mut Wire, kind: i8, name: &str, changes: Changes<'_>) -> (i16, String) {
    let change = |(name, operation, value): &(&'static str, i8, Option<&'static str>)| {
        let change = AlterableConfig::default().with_name(text(name)).with_config_operation(*operation);
        change.with_value(value.map(text))
    };
    let resource = AlterConfigsResource::default().with_resource_type(kind).with_resource_name(text(name));
    let resource = resource.with_configs(changes.iter().map(change).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let request = RequestKind::IncrementalAlterConfigs(request);
    let ResponseKind::IncrementalAlterConfigs(answer) = wire.ask(ApiKey::IncrementalAlterConfigs, 1, &request).await
    else {
        panic!()
    };
    let told = &answer.responses[0];
    (told.error_code, told.error_message.as_ref().map(ToString::to_string).unwrap_or_default())
}

/// Names, values and sources of a resource's configs.
async fn described(wire: &mut Wire, kind: i8, name: &str) -> Vec<(String, String, i8)> {
    let resource = DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(text(name));
    let resource = resource.with_configuration_keys(None);
    let request = RequestKind::DescribeConfigs(DescribeConfigsRequest::default().with_resources(vec![resource]));
    let ResponseKind::DescribeConfigs(answer) = wire.ask(ApiKey::DescribeConfigs, 4, &request).await else { panic!() };
    assert_eq!(answer.results[0].error_code, 0, "{:?}", answer.results[0].error_message);
    let configs = answer.results[0].configs.iter();
    configs.map(|one| (one.name.to_string(), one.value.clone().unwrap().to_string(), one.config_source)).collect()
}

async fn listed(wire: &mut Wire, kind: i8) -> Vec<String> {
    let answer = wire.ask(ApiKey::ListConfigResources, 1, &resources(&[kind])).await;
    let ResponseKind::ListConfigResources(answer) = answer else { panic!() };
    assert!(answer.config_resources.iter().all(|one| one.resource_type == kind));
    answer.config_resources.iter().map(|one| one.resource_name.to_string()).collect()
}

/// A gauge `org.apache.kafka.test` of 42, as OTLP.
fn gauge() -> Vec<u8> {
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, bytes.len() as u8], bytes].concat();
    let point = [&[4 << 3 | 1][..], &42_f64.to_le_bytes()].concat();
    let metric = [field(1, b"org.apache.kafka.test"), field(5, &field(1, &point))].concat();
    field(1, &field(2, &field(2, &metric)))
}

async fn greet(wire: &mut Wire) {
    let request = ApiVersionsRequest::default().with_client_software_name(text("wires"));
    let request = RequestKind::ApiVersions(request.with_client_software_version(text("7.1")));
    wire.ask(ApiKey::ApiVersions, 4, &request).await;
}

#[tokio::test]
async fn clients_are_asked_for_what_subscriptions_want_and_what_they_push_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    greet(&mut wire).await;
    let told = ask(&mut wire, Uuid::nil()).await;
    assert!(told.error_code == 0 && !told.client_instance_id.is_nil() && told.requested_metrics.is_empty());
    assert_eq!((told.push_interval_ms, told.accepted_compression_types), (300_000, vec![4, 3, 1, 2]));
    let set = [("metrics", SET, Some("org.apache.kafka")), ("interval.ms", SET, Some("100"))];
    assert_eq!(alter(&mut wire, CLIENT_METRICS, "ours", &set).await, (0, String::new()));
    let only = [("match", SET, Some("client_software_name=wires,client_software_version=7.*"))];
    assert_eq!(alter(&mut wire, CLIENT_METRICS, "ours", &only).await.0, 0);
    assert_eq!(alter(&mut wire, CLIENT_METRICS, "ours", &[("metrics", APPEND, Some("extra"))]).await.0, 0);
    let id = told.client_instance_id;
    let now = ask(&mut wire, id).await;
    assert_eq!((now.error_code, now.client_instance_id), (0, id), "who is asked for something else may ask at once");
    assert_eq!(now.requested_metrics, [text("extra"), text("org.apache.kafka")]);
    assert_eq!((now.push_interval_ms, now.telemetry_max_bytes), (100, 1 << 20));
    assert_ne!(now.subscription_id, told.subscription_id);
    assert_eq!(push(&mut wire, id, told.subscription_id, 0, gauge()).await, 117, "of the subscription before");
    assert_eq!(ask(&mut wire, id).await.error_code, 0);
    let packed = zstd::bulk::compress(&gauge(), 0).unwrap();
    assert_eq!(push(&mut wire, id, now.subscription_id, 4, packed).await, 0);
    assert_eq!(push(&mut wire, Uuid::nil(), now.subscription_id, 0, gauge()).await, INVALID_REQUEST);
    let shown = served.broker.client_metrics();
    let point = &shown.points[0];
    assert_eq!((point.metric.as_str(), point.value, point.instance), ("org.apache.kafka.test", 42.0, id));
    assert_eq!((point.client_id.as_str(), point.software.as_str()), ("wire", "wires 7.1"));
    assert_eq!((shown.clients, shown.pushes, shown.refused), (1, 1, 1));
    // Another program, for whom that subscription is not.
    let mut other = Wire::connect(&served).await;
    assert!(ask(&mut other, Uuid::nil()).await.requested_metrics.is_empty());
    served.end().await;
}

#[tokio::test]
async fn subscriptions_are_kept_until_their_last_config_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    for (change, code) in [
        (("interval.ms", SET, Some("99")), INVALID_REQUEST),
        (("retention.ms", SET, Some("99")), INVALID_REQUEST),
        (("match", SET, Some("colour=red")), INVALID_CONFIG),
        (("interval.ms", APPEND, Some("1")), INVALID_CONFIG),
    ] {
        let (found, why) = alter(&mut wire, CLIENT_METRICS, "ours", &[change]).await;
        assert_eq!(found, code, "{change:?}: {why}");
        assert!(!why.is_empty());
    }
    assert_eq!(alter(&mut wire, CLIENT_METRICS, "", &[("interval.ms", SET, Some("1000"))]).await.0, INVALID_REQUEST);
    assert!(listed(&mut wire, CLIENT_METRICS).await.is_empty());
    let set = [("metrics", SET, Some("*")), ("interval.ms", SET, Some("1000"))];
    assert_eq!(alter(&mut wire, CLIENT_METRICS, "ours", &set).await.0, 0);
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(listed(&mut wire, CLIENT_METRICS).await, ["ours"]);
    let told = |name: &str, value: &str, source| (name.to_owned(), value.to_owned(), source);
    assert_eq!(
        described(&mut wire, CLIENT_METRICS, "ours").await,
        [told("interval.ms", "1000", 7), told("match", "", 5), told("metrics", "*", 7)]
    );
    assert_eq!(ask(&mut wire, Uuid::nil()).await.requested_metrics, [text("*")]);
    let gone = [("metrics", DELETE, None), ("interval.ms", DELETE, None)];
    assert_eq!(alter(&mut wire, CLIENT_METRICS, "ours", &gone).await.0, 0);
    assert!(listed(&mut wire, CLIENT_METRICS).await.is_empty());
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    assert!(listed(&mut Wire::connect(&served).await, CLIENT_METRICS).await.is_empty());
    served.end().await;
}

#[tokio::test]
async fn a_group_may_have_a_pace_of_its_own_within_the_brokers_bounds() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let told = |name: &str, value: &str, source| (name.to_owned(), value.to_owned(), source);
    let (heartbeat, session) = ("consumer.heartbeat.interval.ms", "consumer.session.timeout.ms");
    let own = async |wire: &mut Wire| described(wire, GROUP, "g").await[..2].to_vec();
    assert_eq!(own(&mut wire).await, [told(heartbeat, "5000", 5), told(session, "45000", 5)]);
    let of_shares = [
        told("share.auto.offset.reset", "latest", 5),
        told("share.heartbeat.interval.ms", "5000", 5),
        told("share.isolation.level", "read_uncommitted", 5),
        told("share.record.lock.duration.ms", "30000", 5),
        told("share.session.timeout.ms", "45000", 5),
    ];
    assert_eq!(described(&mut wire, GROUP, "g").await[2..], of_shares);
    for (name, value) in [(session, "44999"), (session, "60001"), (heartbeat, "4999"), ("metrics", "a")] {
        assert_ne!(alter(&mut wire, GROUP, "g", &[(name, SET, Some(value))]).await.0, 0, "{name} {value}");
    }
    let set = [(heartbeat, SET, Some("7000")), (session, SET, Some("50000"))];
    assert_eq!(alter(&mut wire, GROUP, "g", &set).await, (0, String::new()));
    assert_eq!(own(&mut wire).await, [told(heartbeat, "7000", 8), told(session, "50000", 8)]);
    assert_eq!(listed(&mut wire, GROUP).await, ["g"]);
    served.end().await;
    let served = Served::start(folder.path(), quick()).await;
    let mut wire = Wire::connect(&served).await;
    let mut interval = async |group: &str| {
        let answer = wire.ask(ApiKey::ConsumerGroupHeartbeat, 1, &joins(group, "m", &[TOPIC])).await;
        let ResponseKind::ConsumerGroupHeartbeat(answer) = answer else { panic!() };
        answer.heartbeat_interval_ms
    };
    assert_eq!((interval("g").await, interval("h").await), (7_000, 5_000));
    assert_eq!(alter(&mut wire, GROUP, "g", &[(heartbeat, DELETE, None)]).await.0, 0);
    assert_eq!(described(&mut wire, GROUP, "g").await[0], told(heartbeat, "5000", 5));
    served.end().await;
}
