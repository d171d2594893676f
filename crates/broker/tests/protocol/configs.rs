//! What DescribeConfigs tells: every setting with its source and what could stand in its place, and nothing of what there is not.

use cairn_broker::{Principal, TopicSpec};
use kafka_protocol::messages::{
    ApiKey, CreateTopicsRequest, DescribeConfigsRequest, RequestKind, ResponseKind,
    create_topics_request::CreatableTopic, describe_configs_request::DescribeConfigsResource,
    describe_configs_response::DescribeConfigsResult,
};

use super::{name, start, text};
use crate::support::{Served, Wire, quick};

const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const INVALID_REQUEST: i16 = 42;
const UNKNOWN_TOPIC: i16 = 3;

async fn describe(wire: &mut Wire, kind: i8, resource: &str, keys: Option<&[&str]>) -> DescribeConfigsResult {
    let keys = keys.map(|keys| keys.iter().map(|key| text(key)).collect());
    let resource = DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(text(resource));
    let request = DescribeConfigsRequest::default().with_include_synonyms(true).with_include_documentation(true);
    let request = request.with_resources(vec![resource.with_configuration_keys(keys)]);
    let answer = wire.ask(ApiKey::DescribeConfigs, 4, &RequestKind::DescribeConfigs(request)).await;
    let ResponseKind::DescribeConfigs(mut answer) = answer else { panic!() };
    answer.results.pop().unwrap()
}

/// Value, source, synonyms, and whether it is said to have no effect.
type Told = (String, i8, Vec<(String, String, i8)>, bool);

fn told(result: &DescribeConfigsResult, name: &str) -> Told {
    let config = result.configs.iter().find(|config| &*config.name == name).expect(name);
    let synonyms = config.synonyms.iter();
    let synonyms = synonyms.map(|s| (s.name.to_string(), s.value.as_deref().unwrap().to_owned(), s.source)).collect();
    let value = config.value.as_deref().unwrap().to_owned();
    (value, config.config_source, synonyms, config.documentation.is_some())
}

fn expect(value: &str, source: i8, synonyms: &[(&str, &str, i8)], without_effect: bool) -> Told {
    let synonyms = synonyms.iter().map(|(name, value, source)| ((*name).to_owned(), (*value).to_owned(), *source));
    (value.to_owned(), source, synonyms.collect(), without_effect)
}

#[tokio::test]
async fn a_topics_configs_are_told_with_their_source_and_what_could_stand_in_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.limits.message_bytes_max = 5_000;
    let served = Served::start(folder.path(), options).await;
    let given = [("retention.ms", "5000"), ("max.message.bytes", "700")];
    let configs = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let spec = TopicSpec { name: "given".into(), partitions: Some(1), configs };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
    let spec = TopicSpec { name: "plain".into(), partitions: Some(1), ..TopicSpec::default() };
    served.broker.create_topic(&Principal::Internal, spec).await.unwrap();
    let mut wire = Wire::connect(&served).await;
    let result = describe(&mut wire, TOPIC_RESOURCE, "given", None).await;
    let synonyms = [("retention.ms", "5000", 1), ("log.retention.ms", "604800000", 5)];
    assert_eq!(told(&result, "retention.ms"), expect("5000", 1, &synonyms, false));
    let synonyms =
        [("max.message.bytes", "700", 1), ("message.max.bytes", "5000", 4), ("message.max.bytes", "1048588", 5)];
    assert_eq!(told(&result, "max.message.bytes"), expect("700", 1, &synonyms, false));
    let synonyms = [("log.segment.bytes", "1073741824", 5)];
    assert_eq!(told(&result, "segment.bytes"), expect("1073741824", 5, &synonyms, true));
    let plain = describe(&mut wire, TOPIC_RESOURCE, "plain", None).await;
    let synonyms = [("message.max.bytes", "5000", 4), ("message.max.bytes", "1048588", 5)];
    assert_eq!(told(&plain, "max.message.bytes"), expect("5000", 4, &synonyms, false), "what is enforced is told");
    for config in &plain.configs {
        assert!(!config.read_only && !config.is_sensitive && config.config_type > 0, "{config:?}");
        let (value, source, synonyms, _) = told(&plain, &config.name);
        assert!(synonyms.first().is_none_or(|first| (&first.1, first.2) == (&value, source)), "{config:?}");
    }
    let two = describe(&mut wire, TOPIC_RESOURCE, "given", Some(&["retention.ms", "no.such"])).await;
    assert_eq!(two.configs.iter().map(|config| &*config.name).collect::<Vec<_>>(), ["retention.ms"]);
    assert_eq!(describe(&mut wire, TOPIC_RESOURCE, "none", None).await.error_code, UNKNOWN_TOPIC);
    // What is told when a topic is made is what is told afterwards.
    let topic = CreatableTopic::default().with_name(name("made")).with_num_partitions(1).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    let answer = wire.ask(ApiKey::CreateTopics, 7, &RequestKind::CreateTopics(request)).await;
    let ResponseKind::CreateTopics(answer) = answer else { panic!() };
    let made = answer.topics[0].configs.as_ref().unwrap().iter();
    let made: Vec<_> = made.map(|config| (config.name.clone(), config.value.clone(), config.config_source)).collect();
    let plain = plain.configs.into_iter().map(|config| (config.name, config.value, config.config_source));
    assert_eq!(made, plain.collect::<Vec<_>>());
    served.end().await;
}

#[tokio::test]
async fn a_brokers_configs_are_told_and_those_of_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.node_id = 7;
    options.default_partitions = 4;
    options.limits.message_bytes_max = 5_000;
    let served = Served::start(folder.path(), options).await;
    let mut wire = Wire::connect(&served).await;
    let mine = describe(&mut wire, BROKER_RESOURCE, "7", None).await;
    assert_eq!((mine.error_code, mine.error_message.is_none()), (0, true));
    assert!(mine.configs.iter().all(|config| !config.synonyms.is_empty()));
    let is_read_only = |name: &str| mine.configs.iter().find(|config| &*config.name == name).unwrap().read_only;
    for (name, read_only) in [("node.id", true), ("num.partitions", true), ("log.retention.ms", false)] {
        assert_eq!(is_read_only(name), read_only, "{name}: others are set where it is started");
    }
    assert!(mine.configs.is_sorted_by_key(|config| config.name.to_string()));
    let synonyms = [("message.max.bytes", "5000", 4), ("message.max.bytes", "1048588", 5)];
    assert_eq!(told(&mine, "message.max.bytes"), expect("5000", 4, &synonyms, false));
    assert_eq!(told(&mine, "num.partitions"), expect("4", 5, &[("num.partitions", "4", 5)], false));
    assert_eq!(told(&mine, "node.id").0, "7");
    assert_eq!(told(&mine, "log.retention.ms").0, "604800000");
    assert_eq!(told(&mine, "delete.topic.enable").0, "true");
    assert!(describe(&mut wire, BROKER_RESOURCE, "", None).await.configs.is_empty(), "nothing is set for all");
    for (kind, resource) in [(BROKER_RESOURCE, "8"), (BROKER_RESOURCE, "seven"), (BROKER_LOGGER, "7"), (99, "x")] {
        let refused = describe(&mut wire, kind, resource, None).await;
        assert_eq!(refused.error_code, INVALID_REQUEST, "{kind} {resource}");
        assert!(refused.error_message.is_some() && refused.configs.is_empty());
    }
    served.end().await;
}

#[tokio::test]
async fn synonyms_and_documentation_are_told_only_where_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let (served, _) = start(folder.path()).await;
    let mut wire = Wire::connect(&served).await;
    let resource = DescribeConfigsResource::default().with_resource_type(TOPIC_RESOURCE);
    let resource = resource.with_resource_name(text(super::TOPIC)).with_configuration_keys(None);
    let request = RequestKind::DescribeConfigs(DescribeConfigsRequest::default().with_resources(vec![resource]));
    let ResponseKind::DescribeConfigs(answer) = wire.ask(ApiKey::DescribeConfigs, 4, &request).await else { panic!() };
    let configs = &answer.results[0].configs;
    assert!(configs.len() > 20);
    assert!(configs.iter().all(|config| config.synonyms.is_empty() && config.documentation.is_none()));
    served.end().await;
}
