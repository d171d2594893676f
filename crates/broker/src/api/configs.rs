//! DescribeConfigs, for topics and for this broker.

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
use crate::{broker::Broker, topics::configs::Kind};

pub(super) const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const GIVEN_ON_TOPIC: i8 = 1;
const STATIC: i8 = 4;
const DEFAULT: i8 = 5;

/// Where a topic's value comes from, as Kafka numbers it.
pub(super) const fn source(given: bool) -> i8 {
    if given { GIVEN_ON_TOPIC } else { DEFAULT }
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
        match describe(broker, &resource, synonyms, documented) {
            Ok(mut configs) => {
                if let Some(keys) = &resource.configuration_keys {
                    configs.retain(|config| keys.contains(&config.name));
                }
                result.with_configs(configs)
            }
            Err((code, why)) => result.with_error_code(code.code()).with_error_message(Some(reason(why))),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe(
    broker: &Broker,
    resource: &DescribeConfigsResource,
    synonyms: bool,
    documented: bool,
) -> Result<Vec<DescribeConfigsResourceResult>, (ResponseError, &'static str)> {
    match resource.resource_type {
        TOPIC => {
            let topic = broker.inner.topics.get(&resource.resource_name);
            let topic = topic.ok_or((ResponseError::UnknownTopicOrPartition, "the topic does not exist"))?;
            Ok(topic
                .configs
                .shown()
                .map(|shown| {
                    let mut result = one(shown.name, &shown.value, shown.kind, source(shown.given));
                    if documented && !shown.has_effect {
                        let why = "taken and shown for tools that set it; it tunes files that do not exist here";
                        result = result.with_documentation(Some(text(why)));
                    }
                    if !synonyms {
                        return result;
                    }
                    let synonym = |value: &str, source| {
                        let named = DescribeConfigsSynonym::default().with_name(text(shown.name));
                        named.with_value(Some(text(value))).with_source(source)
                    };
                    let mut all = vec![synonym(shown.default, DEFAULT)];
                    if shown.given {
                        all.insert(0, synonym(&shown.value, GIVEN_ON_TOPIC));
                    }
                    result.with_synonyms(all)
                })
                .collect())
        }
        BROKER => Ok(of_broker(broker)),
        _ => Err((ResponseError::InvalidRequest, "only topics and brokers have configs here")),
    }
}

fn of_broker(broker: &Broker) -> Vec<DescribeConfigsResourceResult> {
    let options = &broker.inner.options;
    let limits = &options.limits;
    let number = |name, value: u128| one(name, &value.to_string(), Kind::Long, STATIC).with_read_only(true);
    vec![
        one("auto.create.topics.enable", &options.auto_create_topics.to_string(), Kind::Boolean, STATIC)
            .with_read_only(true),
        number("broker.id", u128::from(options.node_id.unsigned_abs())),
        number("default.replication.factor", 1),
        number("group.initial.rebalance.delay.ms", limits.initial_rebalance_delay.as_millis()),
        number("group.max.session.timeout.ms", limits.session_timeout_max.as_millis()),
        number("group.min.session.timeout.ms", limits.session_timeout_min.as_millis()),
        number("message.max.bytes", limits.message_bytes_max as u128),
        number("num.partitions", u128::from(options.default_partitions)),
        number("offsets.topic.num.partitions", u128::from(options.offsets_partitions)),
        number("socket.request.max.bytes", limits.request_bytes_max as u128),
    ]
}

fn one(name: &str, value: &str, kind: Kind, source: i8) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult::default()
        .with_name(text(name))
        .with_value(Some(text(value)))
        .with_config_source(source)
        .with_config_type(kind as i8)
        .with_documentation(None)
}
