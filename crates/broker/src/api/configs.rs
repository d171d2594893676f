//! DescribeConfigs, for topics and for this broker: every value with where it comes from, and what would be in force without it.

use std::collections::HashSet;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym},
    },
};

use super::{reason, text};
use crate::{
    broker::{Broker, TopicError},
    dynamic,
    options::{BrokerLimits, BrokerOptions},
    resources::ResourceKind,
    telemetry::PUSH_BYTES_MAX,
    topics::{
        configs::{Kind, TopicConfigs},
        is_topic_name,
    },
};

pub(super) const TOPIC: i8 = 2;
pub(super) const BROKER: i8 = 4;
pub(super) const CLIENT_METRICS: i8 = 16;
pub(super) const GROUP: i8 = 32;
/// A topic that is neither Cairn's nor the broker's: it has what brokers were told.
const ANY_TOPIC: &str = "";
/// Where a value comes from, as Kafka numbers it.
const GIVEN_ON_TOPIC: i8 = 1;
const GIVEN_TO_BROKER: i8 = 2;
const GIVEN_TO_ALL_BROKERS: i8 = 3;
const STATIC: i8 = 4;
const DEFAULT: i8 = 5;
const GIVEN_TO_CLIENTS: i8 = 7;
const GIVEN_TO_GROUP: i8 = 8;

/// One setting, and all that could stand in its place, what is in force first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) name: &'static str,
    pub(super) value: String,
    pub(super) source: i8,
    kind: Kind,
    read_only: bool,
    has_effect: bool,
    synonyms: Vec<Synonym>,
}

/// Its name, value and source.
type Synonym = (&'static str, String, i8);

impl Told {
    /// One that can be changed, from all that could stand in its place.
    fn of(name: &'static str, kind: Kind, synonyms: Vec<Synonym>) -> Self {
        let (_, value, source) = synonyms.first().cloned().unwrap_or((name, String::new(), DEFAULT));
        Self { name, value, source, kind, read_only: false, has_effect: true, synonyms }
    }
}

/// The settings of a topic.
pub(super) fn of_topic(broker: &Broker, configs: &TopicConfigs) -> Vec<Told> {
    let limit = broker.inner.options.limits.message_bytes_max.to_string();
    let shown = configs.shown();
    shown
        .map(|shown| {
            let mut synonyms = Vec::new();
            if shown.given {
                synonyms.push((shown.name, shown.value.clone(), GIVEN_ON_TOPIC));
            }
            if let Some(of_broker) = dynamic::of_broker(shown.name) {
                if configs.has_otherwise(shown.name) {
                    synonyms.extend(told_brokers(broker, of_broker));
                }
                if shown.name == "max.message.bytes" && limit != shown.default {
                    synonyms.push((of_broker, limit.clone(), STATIC));
                }
                synonyms.push((of_broker, shown.default.to_owned(), DEFAULT));
            }
            let default = || (shown.name, shown.default.to_owned(), DEFAULT);
            let (_, value, source) = synonyms.first().cloned().unwrap_or_else(default);
            let (name, kind, has_effect) = (shown.name, shown.kind, shown.has_effect);
            Told { name, value, source, kind, read_only: false, has_effect, synonyms }
        })
        .collect()
}

/// What this broker was told while it ran, and all brokers were.
fn told_brokers(broker: &Broker, name: &'static str) -> Vec<Synonym> {
    let node = broker.inner.options.node_id.to_string();
    let levels = [(node.as_str(), GIVEN_TO_BROKER), ("", GIVEN_TO_ALL_BROKERS)];
    let told = levels.into_iter().filter_map(|(of, source)| {
        let given = broker.inner.resources.get(ResourceKind::Broker, of);
        given.0.get(name).map(|value| (name, value.clone(), source))
    });
    told.collect()
}

/// What all brokers were told while they ran.
fn of_all_brokers(broker: &Broker) -> Vec<Told> {
    let given = broker.inner.resources.get(ResourceKind::Broker, "");
    let of_one = of_broker(broker).into_iter().filter_map(|told| {
        let value = given.0.get(told.name)?.clone();
        let synonyms = vec![(told.name, value.clone(), GIVEN_TO_ALL_BROKERS)];
        Some(Told { value, source: GIVEN_TO_ALL_BROKERS, synonyms, ..told })
    });
    of_one.collect()
}

/// The settings of this broker: what topics have that say nothing, what tunes nothing here, and its own. The last are set where it is started.
fn of_broker(broker: &Broker) -> Vec<Told> {
    let told = |name, kind, value: String, default: String| {
        let mut synonyms = vec![(name, default.clone(), DEFAULT)];
        if value != default {
            synonyms.insert(0, (name, value.clone(), STATIC));
        }
        Told { name, value, source: synonyms[0].2, kind, read_only: true, has_effect: true, synonyms }
    };
    let topics = TopicConfigs::default().over(broker.inner.topics.defaults_of(ANY_TOPIC));
    let topics = of_topic(broker, &topics).into_iter().filter_map(|of_topic| {
        let name = dynamic::of_broker(of_topic.name)?;
        Some(Told { name, ..of_topic })
    });
    let tuned = dynamic::WITHOUT_EFFECT.iter().map(|(name, kind, default)| {
        let synonyms = told_brokers(broker, name).into_iter().chain([(*name, (*default).to_owned(), DEFAULT)]);
        Told { has_effect: false, ..Told::of(name, *kind, synonyms.collect()) }
    });
    let (now, default) = (own(&broker.inner.options), own(&BrokerOptions::default()));
    let own = now.into_iter().zip(default).map(|((name, kind, value), (.., default))| told(name, kind, value, default));
    let mut all: Vec<_> = topics.chain(tuned).chain(own).collect();
    all.sort_by_key(|told| told.name);
    all
}

/// A subscription to metrics of clients.
fn of_subscription(broker: &Broker, name: &str) -> Vec<Told> {
    let (kind, given) = (ResourceKind::ClientMetrics, broker.inner.resources.get(ResourceKind::ClientMetrics, name));
    let known = kind.known().iter().map(|(name, kind, default)| {
        let default = (*name, (*default).to_owned(), DEFAULT);
        let given = given.0.get(*name).map(|value| (*name, value.clone(), GIVEN_TO_CLIENTS));
        Told::of(name, *kind, given.into_iter().chain([default]).collect())
    });
    known.collect()
}

/// The settings of a group of KIP-848, and what stands for those that have none.
fn of_group(broker: &Broker, name: &str) -> Vec<Told> {
    let (kind, given) = (ResourceKind::Group, broker.inner.resources.get(ResourceKind::Group, name));
    let of_brokers = of_broker(broker);
    let known = kind.known().iter().map(|(name, kind, default)| {
        let given = given.0.get(*name).map(|value| (*name, value.clone(), GIVEN_TO_GROUP));
        let of_broker = of_brokers.iter().filter(|told| told.name.strip_prefix("group.") == Some(*name));
        let otherwise = of_broker.flat_map(|told| told.synonyms.iter().cloned());
        let otherwise = otherwise.chain((!default.is_empty()).then(|| (*name, (*default).to_owned(), DEFAULT)));
        Told::of(name, *kind, given.into_iter().chain(otherwise).collect())
    });
    known.collect()
}

/// What a broker is set to, by Kafka's names.
fn own(options: &BrokerOptions) -> Vec<(&'static str, Kind, String)> {
    let BrokerLimits { connections_max, fetch_bytes_max, request_bytes_max, members_max, .. } = &options.limits;
    let limits = &options.limits;
    let long = |name, value: u128| (name, Kind::Long, value.to_string());
    let advertised = options.advertised.as_ref().map(ToString::to_string).unwrap_or_default();
    vec![
        ("advertised.listeners", Kind::List, advertised),
        ("auto.create.topics.enable", Kind::Boolean, options.auto_create_topics.to_string()),
        ("broker.id", Kind::Int, options.node_id.to_string()),
        long("connections.max.idle.ms", limits.idle_timeout.as_millis()),
        long("default.replication.factor", 1),
        ("delete.topic.enable", Kind::Boolean, "true".to_owned()),
        long("fetch.max.bytes", *fetch_bytes_max as u128),
        ("group.consumer.assignors", Kind::List, "uniform,range".to_owned()),
        long("group.consumer.heartbeat.interval.ms", limits.consumer_heartbeat_interval.as_millis()),
        long("group.consumer.max.heartbeat.interval.ms", limits.consumer_heartbeat_interval_max.as_millis()),
        long("group.consumer.max.session.timeout.ms", limits.consumer_session_timeout_max.as_millis()),
        long("group.consumer.max.size", *members_max as u128),
        ("group.consumer.migration.policy", Kind::Text, "bidirectional".to_owned()),
        long("group.consumer.min.heartbeat.interval.ms", limits.consumer_heartbeat_interval_min.as_millis()),
        long("group.consumer.min.session.timeout.ms", limits.consumer_session_timeout_min.as_millis()),
        long("group.consumer.session.timeout.ms", limits.consumer_session_timeout.as_millis()),
        long("group.initial.rebalance.delay.ms", limits.initial_rebalance_delay.as_millis()),
        long("group.max.session.timeout.ms", limits.session_timeout_max.as_millis()),
        long("group.max.size", *members_max as u128),
        long("group.min.session.timeout.ms", limits.session_timeout_min.as_millis()),
        long("group.share.delivery.count.limit", u128::from(limits.share_deliveries_max)),
        long("group.share.heartbeat.interval.ms", limits.consumer_heartbeat_interval.as_millis()),
        long("group.share.max.heartbeat.interval.ms", limits.consumer_heartbeat_interval_max.as_millis()),
        long("group.share.max.record.lock.duration.ms", limits.share_record_lock_max.as_millis()),
        long("group.share.max.session.timeout.ms", limits.consumer_session_timeout_max.as_millis()),
        long("group.share.max.size", *members_max as u128),
        long("group.share.min.heartbeat.interval.ms", limits.consumer_heartbeat_interval_min.as_millis()),
        long("group.share.min.record.lock.duration.ms", limits.share_record_lock_min.as_millis()),
        long("group.share.min.session.timeout.ms", limits.consumer_session_timeout_min.as_millis()),
        long("group.share.partition.max.record.locks", u128::from(limits.share_locks_max)),
        long("group.share.record.lock.duration.ms", limits.share_record_lock.as_millis()),
        long("group.share.session.timeout.ms", limits.consumer_session_timeout.as_millis()),
        long("max.connections", *connections_max as u128),
        ("node.id", Kind::Int, options.node_id.to_string()),
        long("num.partitions", u128::from(options.default_partitions)),
        long("offset.metadata.max.bytes", limits.offset_metadata_bytes_max as u128),
        long("offsets.retention.check.interval.ms", options.offsets_look_interval.as_millis()),
        long(
            "offsets.retention.minutes",
            options.offsets_retention.map_or(u128::MAX, |kept| kept.as_millis() / 60_000),
        ),
        long("offsets.topic.num.partitions", u128::from(options.offsets_partitions)),
        long("offsets.topic.replication.factor", 1),
        long("socket.request.max.bytes", *request_bytes_max as u128),
        long("telemetry.max.bytes", PUSH_BYTES_MAX as u128),
    ]
}

pub(super) async fn answer(broker: &Broker, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let (synonyms, documented) = (request.include_synonyms, request.include_documentation);
    // Each is told once, so that a request cannot multiply its answer.
    let mut told = HashSet::new();
    let asked = request.resources.into_iter();
    let asked = asked.filter(|resource| told.insert((resource.resource_type, resource.resource_name.clone())));
    let results = asked.map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_error_message(None)
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match describe(broker, &resource) {
            Ok(mut told) => {
                // No names stand for all of them, as null does.
                if let Some(keys) = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty()) {
                    told.retain(|told| keys.iter().any(|key| key.as_str() == told.name));
                }
                let configs = told.into_iter().map(|told| self::result(told, synonyms, documented));
                result.with_configs(configs.collect())
            }
            Err((code, why)) => result.with_error_code(code.code()).with_error_message(Some(reason(why))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(broker: &Broker, resource: &DescribeConfigsResource) -> Result<Vec<Told>, (ResponseError, String)> {
    let name = &resource.resource_name;
    match resource.resource_type {
        TOPIC => {
            if !is_topic_name(name) {
                let error = TopicError::Name { name: name.to_string() };
                return Err((ResponseError::InvalidTopicException, error.to_string()));
            }
            let unknown = || (ResponseError::UnknownTopicOrPartition, "the topic does not exist".to_owned());
            let topic = broker.inner.topics.get(name).ok_or_else(unknown)?;
            Ok(of_topic(broker, &topic.configs))
        }
        // No name stands for all brokers.
        BROKER if name.is_empty() => Ok(of_all_brokers(broker)),
        BROKER if name.parse() == Ok(broker.inner.options.node_id) => Ok(of_broker(broker)),
        BROKER => {
            let why = format!("there is no broker `{}` here, only {}", name.as_str(), broker.inner.options.node_id);
            Err((ResponseError::InvalidRequest, why))
        }
        CLIENT_METRICS | GROUP if name.is_empty() => Err((ResponseError::InvalidRequest, "name one".to_owned())),
        CLIENT_METRICS => Ok(of_subscription(broker, name)),
        GROUP => Ok(of_group(broker, name)),
        _ => {
            let why = "only topics, brokers, groups and client metrics have configs here";
            Err((ResponseError::InvalidRequest, why.to_owned()))
        }
    }
}

fn result(told: Told, synonyms: bool, documented: bool) -> DescribeConfigsResourceResult {
    let why = "taken and shown for tools that set it; it tunes what does not exist here";
    let result = DescribeConfigsResourceResult::default()
        .with_name(text(told.name))
        .with_value(Some(text(told.value)))
        .with_read_only(told.read_only)
        .with_config_source(told.source)
        .with_config_type(told.kind as i8)
        .with_documentation((documented && !told.has_effect).then(|| text(why)));
    if !synonyms {
        return result;
    }
    let all = told.synonyms.into_iter().map(|(name, value, source)| {
        DescribeConfigsSynonym::default().with_name(text(name)).with_value(Some(text(value))).with_source(source)
    });
    result.with_synonyms(all.collect())
}
