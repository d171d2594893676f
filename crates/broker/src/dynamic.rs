//! What brokers are told while they run: configs of a broker, or of all of them (KIP-226). Called by the requests that change and tell
//! configs, and by the catalogue, whose topics have them in place of defaults.
//!
//! Most stand for what a topic does not say itself, and take effect at once. The others tune what does not exist here: they are taken and
//! shown, because tools set them. Anything else a broker is told where it is started.
//!
//! It guarantees: topics that Cairn alone writes, and those of the broker itself, keep what they were made with, whatever is told here:
//! a trail does not end because somebody shortens what other topics keep.

use std::{collections::BTreeMap, sync::Arc};

use crate::topics::configs::{self, Kind};

/// The names of topics' configs, and those by which brokers know what stands for a topic that does not say.
const OF_TOPICS: &[(&str, &str)] = &[
    ("cleanup.policy", "log.cleanup.policy"),
    ("compression.gzip.level", "compression.gzip.level"),
    ("compression.lz4.level", "compression.lz4.level"),
    ("compression.type", "compression.type"),
    ("compression.zstd.level", "compression.zstd.level"),
    ("delete.retention.ms", "log.cleaner.delete.retention.ms"),
    ("file.delete.delay.ms", "log.segment.delete.delay.ms"),
    ("flush.messages", "log.flush.interval.messages"),
    ("flush.ms", "log.flush.interval.ms"),
    ("index.interval.bytes", "log.index.interval.bytes"),
    ("local.retention.bytes", "log.local.retention.bytes"),
    ("local.retention.ms", "log.local.retention.ms"),
    ("max.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"),
    ("max.message.bytes", "message.max.bytes"),
    ("message.timestamp.after.max.ms", "log.message.timestamp.after.max.ms"),
    ("message.timestamp.before.max.ms", "log.message.timestamp.before.max.ms"),
    ("message.timestamp.type", "log.message.timestamp.type"),
    ("min.cleanable.dirty.ratio", "log.cleaner.min.cleanable.ratio"),
    ("min.compaction.lag.ms", "log.cleaner.min.compaction.lag.ms"),
    ("min.insync.replicas", "min.insync.replicas"),
    ("preallocate", "log.preallocate"),
    ("retention.bytes", "log.retention.bytes"),
    ("retention.ms", "log.retention.ms"),
    ("segment.bytes", "log.segment.bytes"),
    ("segment.index.bytes", "log.index.size.max.bytes"),
    ("segment.jitter.ms", "log.roll.jitter.ms"),
    ("segment.ms", "log.roll.ms"),
    ("unclean.leader.election.enable", "unclean.leader.election.enable"),
];

/// What tunes threads, cleaners and logins that do not exist here: name, type, and Kafka's default.
pub(crate) const WITHOUT_EFFECT: &[(&str, Kind, &str)] = &[
    ("background.threads", Kind::Int, "10"),
    ("log.cleaner.backoff.ms", Kind::Long, "15000"),
    ("log.cleaner.dedupe.buffer.size", Kind::Long, "134217728"),
    ("log.cleaner.io.buffer.load.factor", Kind::Double, "0.9"),
    ("log.cleaner.io.buffer.size", Kind::Int, "524288"),
    ("log.cleaner.io.max.bytes.per.second", Kind::Double, "1.7976931348623157E308"),
    ("log.cleaner.threads", Kind::Int, "1"),
    ("num.io.threads", Kind::Int, "8"),
    ("num.network.threads", Kind::Int, "3"),
    ("num.recovery.threads.per.data.dir", Kind::Int, "2"),
    ("num.replica.fetchers", Kind::Int, "1"),
    ("sasl.kerberos.min.time.before.relogin", Kind::Long, "60000"),
];

/// The name by which brokers know a topic's config.
pub(crate) fn of_broker(topic_config: &str) -> Option<&'static str> {
    OF_TOPICS.iter().find(|(of_topic, _)| *of_topic == topic_config).map(|(_, of_broker)| *of_broker)
}

/// The topic's config that a broker's stands for.
fn of_topic(broker_config: &str) -> Option<&'static str> {
    OF_TOPICS.iter().find(|(_, of_broker)| *of_broker == broker_config).map(|(of_topic, _)| *of_topic)
}

pub(crate) fn is_list(name: &str) -> bool {
    of_topic(name).is_some_and(configs::is_list)
}

/// What stands where nobody says: to a list of it something is added, and taken from.
pub(crate) fn default_of(name: &str) -> &'static str {
    let other = || WITHOUT_EFFECT.iter().find(|(known, ..)| *known == name).map_or("", |(_, _, default)| *default);
    of_topic(name).map_or_else(other, configs::default_of)
}

/// A value as it is kept; the error says what would be right. Nothing where the name is not one that can be changed.
pub(crate) fn check(name: &str, value: &str) -> Option<Result<String, String>> {
    if let Some(of_topic) = of_topic(name) {
        return Some(configs::check_as(name, of_topic, value.to_owned()));
    }
    let (_, kind, _) = WITHOUT_EFFECT.iter().find(|(known, ..)| *known == name)?;
    let value = value.trim();
    let right = match kind {
        Kind::Double => value.parse::<f64>().is_ok_and(|value| value >= 0.0),
        Kind::Int => value.parse::<i32>().is_ok_and(|value| value >= 0),
        _ => value.parse::<i64>().is_ok_and(|value| value >= 0),
    };
    let wrong = || format!("config `{name}` cannot be `{value}`: say a number from 0 up");
    Some(if right { Ok(value.to_owned()) } else { Err(wrong()) })
}

/// What stands for a topic that does not say: what is given of this broker, before what is given of all.
pub(crate) fn defaults(of_all: &BTreeMap<String, String>, of_one: &BTreeMap<String, String>) -> Defaults {
    let named = of_all.iter().chain(of_one);
    Arc::new(named.filter_map(|(name, value)| Some((of_topic(name)?, value.clone()))).collect())
}

/// Values of topics' configs by name.
pub(crate) type Defaults = Arc<BTreeMap<&'static str, String>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_one_broker_goes_before_what_is_told_of_all() {
        let given = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>()
        };
        let all = given(&[("log.retention.ms", "1000"), ("message.max.bytes", "5"), ("num.io.threads", "9")]);
        let one = given(&[("log.retention.ms", "2000")]);
        let found = defaults(&all, &one);
        let told: Vec<_> = found.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(told, [("max.message.bytes", "5"), ("retention.ms", "2000")]);
    }

    #[test]
    fn what_is_told_is_checked_as_a_topic_would_and_names_its_own_config() {
        assert_eq!(check("log.retention.ms", " 5000 "), Some(Ok("5000".to_owned())));
        let refused = check("log.retention.ms", "-2").expect("it can be told").expect_err("not below -1");
        assert!(refused.contains("`log.retention.ms` cannot be `-2`"), "{refused}");
        assert_eq!(check("log.cleaner.backoff.ms", "7"), Some(Ok("7".to_owned())));
        assert!(check("num.io.threads", "-1").expect("it can be told").is_err());
        assert_eq!(check("listeners", "PLAINTEXT://0.0.0.0:1"), None);
        assert!(is_list("log.cleanup.policy") && !is_list("log.retention.ms"));
        assert_eq!(["log.cleanup.policy", "num.io.threads", "interval.ms"].map(default_of), ["delete", "8", ""]);
    }
}
