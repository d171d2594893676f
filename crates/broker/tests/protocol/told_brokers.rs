//! What brokers are told while they run: it stands for what topics do not say, at once and after a restart, and never for those that Cairn
//! alone writes.

use cairn_broker::{BrokerOptions, Principal, TopicSpec};
use cairn_log::{PartitionIndex, StreamId};
use kafka_protocol::messages::{
    ApiKey, DescribeConfigsRequest, IncrementalAlterConfigsRequest, RequestKind, ResponseKind,
    describe_configs_request::DescribeConfigsResource,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};

use super::{batch, produce, produced, text};
use crate::support::{Served, Wire, quick};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Sets a config, or takes it back; the answer's error.
async fn tell(wire: &mut Wire, broker: &str, name: &str, value: Option<&str>) -> i16 {
    change(wire, broker, name, i8::from(value.is_none()), value).await
}

async fn change(wire: &mut Wire, broker: &str, name: &str, operation: i8, value: Option<&str>) -> i16 {
    let change = AlterableConfig::default().with_name(text(name)).with_config_operation(operation);
    let change = change.with_value(value.map(text));
    let resource = AlterConfigsResource::default().with_resource_type(BROKER).with_resource_name(text(broker));
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource.with_configs(vec![change])]);
    let request = RequestKind::IncrementalAlterConfigs(request);
    let answer = wire.ask(ApiKey::IncrementalAlterConfigs, 1, &request).await;
    let ResponseKind::IncrementalAlterConfigs(answer) = answer else { panic!() };
    answer.responses[0].error_code
}

/// All names with their values and sources, or only some.
async fn told(wire: &mut Wire, kind: i8, of: &str, keys: &[&str]) -> Vec<(String, String, i8)> {
    let resource = DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(text(of));
    let keys = keys.iter().map(|key| text(key)).collect();
    let resource = resource.with_configuration_keys(Some(keys));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
    let answer = wire.ask(ApiKey::DescribeConfigs, 4, &RequestKind::DescribeConfigs(request)).await;
    let ResponseKind::DescribeConfigs(answer) = answer else { panic!() };
    let configs = answer.results[0].configs.iter();
    configs.map(|c| (c.name.to_string(), c.value.as_deref().unwrap().to_owned(), c.config_source)).collect()
}

fn sheltering() -> BrokerOptions {
    BrokerOptions { protected_prefix: "mcp.".into(), ..quick() }
}

fn is(name: &str, value: &str, source: i8) -> Vec<(String, String, i8)> {
    vec![(name.to_owned(), value.to_owned(), source)]
}

#[tokio::test]
async fn what_brokers_are_told_stands_for_topics_that_do_not_say_and_for_no_trail() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), sheltering()).await;
    let mut streams = Vec::new();
    for (topic, configs) in [("plain", None), ("own", Some("7777")), ("mcp.calls", None), ("acme.mcp.calls", None)] {
        let configs = configs.map(|ms| ("retention.ms".to_owned(), ms.to_owned())).into_iter().collect();
        let spec = TopicSpec { name: topic.into(), partitions: Some(1), configs };
        let made = served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
        streams.push((topic, StreamId::new(made.id, PartitionIndex::new(0))));
    }
    let mut wire = Wire::connect(&served).await;
    let name = "log.retention.ms";
    assert_eq!(tell(&mut wire, "", name, Some("60000")).await, 0);
    assert_eq!(told(&mut wire, TOPIC, "plain", &["retention.ms"]).await, is("retention.ms", "60000", 3));
    assert_eq!(told(&mut wire, TOPIC, "own", &["retention.ms"]).await, is("retention.ms", "7777", 1));
    assert_eq!(told(&mut wire, BROKER, "1", &[name]).await, is(name, "60000", 3));
    assert_eq!(told(&mut wire, BROKER, "", &[]).await, is(name, "60000", 3), "and nothing else");
    // Of this broker goes before of all.
    assert_eq!(tell(&mut wire, "1", name, Some("50000")).await, 0);
    assert_eq!(told(&mut wire, TOPIC, "plain", &["retention.ms"]).await, is("retention.ms", "50000", 2));
    let kept = |served: &Served| {
        let log = served.broker.log();
        streams.iter().map(|(_, stream)| log.retention(*stream).unwrap().ms).collect::<Vec<_>>()
    };
    let week = Some(604_800_000);
    assert_eq!(kept(&served), [Some(50_000), Some(7_777), week, week]);
    for trail in ["mcp.calls", "acme.mcp.calls", "__consumer_offsets"] {
        let found = told(&mut wire, TOPIC, trail, &["retention.ms"]).await;
        assert_eq!(found, is("retention.ms", "604800000", 5), "{trail}");
    }
    served.end().await;

    let served = Served::start(folder.path(), sheltering()).await;
    let mut wire = Wire::connect(&served).await;
    assert_eq!(kept(&served), [Some(50_000), Some(7_777), week, week], "after a restart");
    let later = TopicSpec { name: "later".into(), partitions: Some(1), ..TopicSpec::default() };
    served.broker.create_topic(&Principal::Internal, later).await.unwrap();
    assert_eq!(told(&mut wire, TOPIC, "later", &["retention.ms"]).await, is("retention.ms", "50000", 2));
    assert_eq!(tell(&mut wire, "1", name, None).await, 0);
    assert_eq!(told(&mut wire, TOPIC, "plain", &["retention.ms"]).await, is("retention.ms", "60000", 3));
    assert_eq!(tell(&mut wire, "", name, None).await, 0);
    assert_eq!(told(&mut wire, TOPIC, "later", &["retention.ms"]).await, is("retention.ms", "604800000", 5));
    assert_eq!(kept(&served), [week, Some(7_777), week, week], "it is taken back");
    assert!(told(&mut wire, BROKER, "", &[]).await.is_empty());
    served.end().await;
}

#[tokio::test]
async fn what_brokers_are_told_is_enforced_and_what_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(folder.path(), quick()).await;
    let spec = TopicSpec { name: "plain".into(), partitions: Some(1), ..TopicSpec::default() };
    let id = served.broker.create_topic(&Principal::Internal, spec).await.unwrap().id;
    let mut wire = Wire::connect(&served).await;
    let sent = produce("plain", id, 9, -1, batch(&["a record that is longer than the others"]).freeze());
    assert_eq!(produced(wire.ask(ApiKey::Produce, 9, &sent).await).0, 0);
    assert_eq!(tell(&mut wire, "", "message.max.bytes", Some("80")).await, 0);
    assert_eq!(produced(wire.ask(ApiKey::Produce, 9, &sent).await).0, 10, "too large now");
    assert_eq!(tell(&mut wire, "", "message.max.bytes", None).await, 0);
    assert_eq!(produced(wire.ask(ApiKey::Produce, 9, &sent).await).0, 0);
    // What is added to a list is added to what stands there, and can be taken from it again.
    for (operation, policy, source) in [(2, "delete,compact", 3), (3, "delete", 3), (1, "delete", 5)] {
        let changed = change(&mut wire, "", "log.cleanup.policy", operation, (operation > 1).then_some("compact"));
        assert_eq!(changed.await, 0, "operation {operation}");
        let found = told(&mut wire, TOPIC, "plain", &["cleanup.policy"]).await;
        assert_eq!(found, is("cleanup.policy", policy, source));
    }
    // What tunes nothing here is taken and shown.
    assert_eq!(tell(&mut wire, "1", "log.cleaner.backoff.ms", Some("7")).await, 0);
    let found = told(&mut wire, BROKER, "1", &["log.cleaner.backoff.ms"]).await;
    assert_eq!(found, is("log.cleaner.backoff.ms", "7", 2));
    for (broker, name, value, code) in [
        ("", "listeners", "PLAINTEXT://:1", 42),
        ("1", "node.id", "2", 42),
        ("2", "log.retention.ms", "1", 42),
        ("+1", "log.retention.ms", "1", 42),
        ("1", "log.retention.ms", "-2", 40),
        ("1", "num.io.threads", "many", 40),
    ] {
        assert_eq!(tell(&mut wire, broker, name, Some(value)).await, code, "{broker} {name}={value}");
    }
    served.end().await;
}
