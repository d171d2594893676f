//! Topic configuration: the names of Kafka's `TopicConfig`, which of them mean something here, and what they must look like.
//! Called by the catalogue, CreateTopics and DescribeConfigs.

use std::collections::BTreeMap;

use cairn_log::{Compaction, Retention};

use crate::{
    batch::{Compression, Packing},
    dynamic::Defaults,
};

/// How DescribeConfigs types a value (`ConfigType` of Kafka's admin client).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean = 1,
    Text = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// Name, type, default, and whether it has an effect on this broker. Others are accepted, kept and shown, as clients
/// and tools that set them expect, because they tune files that do not exist here.
const KNOWN: &[(&str, Kind, &str, bool)] = &[
    ("cleanup.policy", Kind::List, "delete", true),
    ("compression.gzip.level", Kind::Int, "-1", true),
    ("compression.lz4.level", Kind::Int, "9", false),
    ("compression.type", Kind::Text, "producer", true),
    ("compression.zstd.level", Kind::Int, "3", true),
    ("delete.retention.ms", Kind::Long, "86400000", true),
    ("file.delete.delay.ms", Kind::Long, "60000", false),
    ("flush.messages", Kind::Long, "1", false),
    ("flush.ms", Kind::Long, "0", false),
    ("follower.replication.throttled.replicas", Kind::List, "", false),
    ("index.interval.bytes", Kind::Int, "4096", false),
    ("leader.replication.throttled.replicas", Kind::List, "", false),
    ("local.retention.bytes", Kind::Long, "-2", false),
    ("local.retention.ms", Kind::Long, "-2", false),
    ("max.compaction.lag.ms", Kind::Long, "9223372036854775807", true),
    ("max.message.bytes", Kind::Int, "1048588", true),
    ("message.timestamp.after.max.ms", Kind::Long, "9223372036854775807", true),
    ("message.timestamp.before.max.ms", Kind::Long, "9223372036854775807", true),
    ("message.timestamp.type", Kind::Text, "CreateTime", true),
    ("min.cleanable.dirty.ratio", Kind::Double, "0.5", true),
    ("min.compaction.lag.ms", Kind::Long, "0", true),
    ("min.insync.replicas", Kind::Int, "1", false),
    ("preallocate", Kind::Boolean, "true", false),
    ("remote.log.copy.disable", Kind::Boolean, "false", false),
    ("remote.log.delete.on.disable", Kind::Boolean, "false", false),
    ("remote.storage.enable", Kind::Boolean, "false", false),
    ("retention.bytes", Kind::Long, "-1", true),
    ("retention.ms", Kind::Long, "604800000", true),
    ("segment.bytes", Kind::Int, "1073741824", false),
    ("segment.index.bytes", Kind::Int, "10485760", false),
    ("segment.jitter.ms", Kind::Long, "0", false),
    ("segment.ms", Kind::Long, "604800000", false),
    ("unclean.leader.election.enable", Kind::Boolean, "false", false),
];

/// How the batches of a topic may be packed.
const COMPRESSION_TYPES: [&str; 6] = ["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"];

/// One setting as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) default: &'static str,
    pub(crate) given: bool,
    pub(crate) kind: Kind,
    /// Whether it changes anything on this broker.
    pub(crate) has_effect: bool,
}

/// What has settings that requests change.
pub(crate) trait Configured {
    /// Those that were given.
    fn given(&self) -> &BTreeMap<String, String>;
    /// Whether one is a list, so that something can be added to it.
    fn is_list(&self, name: &str) -> bool;
    /// The value in force.
    fn value(&self, name: &str) -> &str;
}

impl Configured for TopicConfigs {
    fn given(&self) -> &BTreeMap<String, String> {
        &self.given
    }

    fn is_list(&self, name: &str) -> bool {
        is_list(name)
    }

    fn value(&self, name: &str) -> &str {
        self.value(name)
    }
}

/// Whether one is a list.
pub(crate) fn is_list(name: &str) -> bool {
    KNOWN.iter().any(|known| known.0 == name && known.1 == Kind::List)
}

/// What stands where nobody says.
pub(crate) fn default_of(name: &str) -> &'static str {
    KNOWN.iter().find(|known| known.0 == name).map_or("", |known| known.2)
}

/// The settings of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TopicConfigs {
    given: BTreeMap<String, String>,
    /// What brokers were told for topics that do not say.
    otherwise: Defaults,
}

impl TopicConfigs {
    /// Checks names and values; the error says which is wrong and what would be right. Numbers, switches and lists are kept as
    /// they are shown: without blanks around them, switches in small letters.
    pub(crate) fn new(given: BTreeMap<String, String>) -> Result<Self, String> {
        let checked = given.into_iter().map(|(name, value)| {
            let value = check(&name, value)?;
            Ok((name, value))
        });
        Ok(Self { given: checked.collect::<Result<_, String>>()?, otherwise: Defaults::default() })
    }

    /// Takes in what was checked when it was stored.
    pub(crate) fn restore(given: BTreeMap<String, String>) -> Self {
        Self { given, otherwise: Defaults::default() }
    }

    /// The same where brokers were told this.
    pub(crate) fn over(self, otherwise: Defaults) -> Self {
        Self { otherwise, ..self }
    }

    /// Whether the value in force is one that brokers were told.
    pub(crate) fn has_otherwise(&self, name: &str) -> bool {
        self.otherwise.contains_key(name)
    }

    pub(crate) const fn given(&self) -> &BTreeMap<String, String> {
        &self.given
    }

    /// The value in force: as given, as brokers were told, or the default.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.told(name).map_or_else(|| default_of(name), String::as_str)
    }

    fn told(&self, name: &str) -> Option<&String> {
        self.given.get(name).or_else(|| self.otherwise.get(name))
    }

    pub(crate) fn is_compacted(&self) -> bool {
        self.value("cleanup.policy").split(',').any(|policy| policy.trim() == "compact")
    }

    /// Whether records may go by age, size or order.
    pub(crate) fn is_deleted(&self) -> bool {
        self.value("cleanup.policy").split(',').any(|policy| policy.trim() == "delete")
    }

    pub(crate) fn is_append_time(&self) -> bool {
        self.value("message.timestamp.type") == "LogAppendTime"
    }

    /// How far a record's timestamp may lie before and after the broker's time, in ms.
    pub(crate) fn timestamp_limits(&self) -> (i64, i64) {
        let limit = |name| self.value(name).parse().unwrap_or(i64::MAX);
        (limit("message.timestamp.before.max.ms"), limit("message.timestamp.after.max.ms"))
    }

    pub(crate) fn message_bytes_max(&self, otherwise: usize) -> usize {
        self.told("max.message.bytes").and_then(|value| value.parse().ok()).unwrap_or(otherwise)
    }

    /// How batches are packed, where that is not as their producers packed them.
    pub(crate) fn packing(&self) -> Option<Packing> {
        let level = |name| self.value(name).parse().ok();
        let (codec, level) = match self.value("compression.type") {
            "uncompressed" => (Compression::None, None),
            // Its default, -1, is the library's own.
            "gzip" => (Compression::Gzip, level("compression.gzip.level").filter(|level| *level >= 0)),
            "snappy" => (Compression::Snappy, None),
            "lz4" => (Compression::Lz4, None),
            "zstd" => (Compression::Zstd, level("compression.zstd.level")),
            _ => return None,
        };
        Some(Packing { codec, level })
    }

    /// What the log may drop. A topic that is compacted only drops nothing by age or size.
    pub(crate) fn retention(&self) -> Retention {
        if !self.is_deleted() {
            return Retention { ms: None, bytes: None };
        }
        let limit = |name| self.value(name).parse::<u64>().ok();
        Retention { ms: limit("retention.ms"), bytes: limit("retention.bytes") }
    }

    /// How the log compacts by key, if it does.
    pub(crate) fn compaction(&self) -> Option<Compaction> {
        let ms = |name| self.value(name).parse::<u64>().unwrap_or(0);
        let ratio = self.value("min.cleanable.dirty.ratio").parse::<f64>().unwrap_or(0.5);
        self.is_compacted().then(|| Compaction {
            min_lag_ms: ms("min.compaction.lag.ms"),
            max_lag_ms: Some(ms("max.compaction.lag.ms")).filter(|lag| *lag < i64::MAX as u64),
            delete_retention_ms: ms("delete.retention.ms"),
            dirty_per_mille: (ratio.clamp(0.0, 1.0) * 1_000.0).round() as u16,
        })
    }

    /// Every setting, in order of name.
    pub(crate) fn shown(&self) -> impl Iterator<Item = Shown> + '_ {
        KNOWN.iter().map(|(name, kind, default, has_effect)| Shown {
            name,
            value: self.value(name).to_owned(),
            default,
            given: self.given.contains_key(*name),
            kind: *kind,
            has_effect: *has_effect,
        })
    }
}

/// A value as it is shown, and compared with what may be.
fn shown(kind: Kind, value: String) -> String {
    match kind {
        Kind::Text => value,
        Kind::Boolean => value.trim().to_ascii_lowercase(),
        Kind::Int | Kind::Long => value.trim().parse::<i64>().map_or(value, |number| number.to_string()),
        Kind::Double => value.trim().parse::<f64>().map_or(value, |number| format!("{number:?}")),
        Kind::List => value.split(',').map(str::trim).collect::<Vec<_>>().join(","),
    }
}

/// The least that a number may be, where that is not what its type allows, as Kafka 4 has it.
fn least(name: &str) -> i64 {
    match name {
        "retention.bytes" | "retention.ms" => -1,
        "local.retention.bytes" | "local.retention.ms" => -2,
        "compression.gzip.level" => -1,
        "compression.lz4.level" => 1,
        "compression.zstd.level" => -131_072,
        "segment.bytes" => 1 << 20,
        "segment.index.bytes" => 4,
        "flush.messages" | "max.compaction.lag.ms" | "min.insync.replicas" | "segment.ms" => 1,
        "delete.retention.ms"
        | "file.delete.delay.ms"
        | "flush.ms"
        | "index.interval.bytes"
        | "max.message.bytes"
        | "message.timestamp.after.max.ms"
        | "message.timestamp.before.max.ms"
        | "min.compaction.lag.ms"
        | "segment.jitter.ms" => 0,
        _ => i64::MIN,
    }
}

/// The greatest that a number may be, likewise.
fn most(name: &str) -> i64 {
    match name {
        "compression.gzip.level" => 9,
        "compression.lz4.level" => 17,
        "compression.zstd.level" => 22,
        _ => i64::MAX,
    }
}

/// Whether something is a list of `partition:broker`, or stands for all of them.
fn is_throttled(value: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let one = |item: &str| item.split_once(':').is_some_and(|(partition, broker)| number(partition) && number(broker));
    matches!(value, "" | "*") || value.split(',').all(one)
}

/// What somebody is told to say instead of what is wrong.
fn wanted(name: &str, kind: Kind) -> String {
    let one_of = |words: &[&str]| format!("say one of {}", words.join(", "));
    match (name, kind) {
        ("cleanup.policy", _) => "say delete, compact, or both with a comma between".to_owned(),
        ("compression.type", _) => one_of(&COMPRESSION_TYPES),
        ("message.timestamp.type", _) => one_of(&["CreateTime", "LogAppendTime"]),
        ("min.cleanable.dirty.ratio", _) => "say a number from 0 to 1".to_owned(),
        ("compression.gzip.level", _) => "say a number from 1 to 9, or -1 to leave it to gzip".to_owned(),
        ("remote.storage.enable", _) => {
            "it stays false, because all of a topic lies in the object store already".to_owned()
        }
        ("follower.replication.throttled.replicas" | "leader.replication.throttled.replicas", _) => {
            "say * for all, or partition:broker for each, with commas between".to_owned()
        }
        (_, Kind::Boolean) => one_of(&["true", "false"]),
        (_, Kind::Int | Kind::Long) => match (least(name), most(name)) {
            (i64::MIN, _) => "say a whole number".to_owned(),
            (least, i64::MAX) => format!("say a number from {least} up"),
            (least, most) => format!("say a number from {least} to {most}"),
        },
        (_, Kind::Double) => "say a number".to_owned(),
        (_, Kind::Text | Kind::List) => "say another".to_owned(),
    }
}

fn check(name: &str, value: String) -> Result<String, String> {
    check_as(name, name, value)
}

/// The same for a config that somebody knows as `called`.
pub(crate) fn check_as(called: &str, name: &str, value: String) -> Result<String, String> {
    let Some((_, kind, ..)) = KNOWN.iter().find(|known| known.0 == name) else {
        return Err(format!("topic config `{called}` is unknown: ask DescribeConfigs for those that there are"));
    };
    let value = shown(*kind, value);
    let (least, most) = (least(name), most(name));
    let right = match (name, kind) {
        ("cleanup.policy", _) => value.split(',').all(|policy| matches!(policy.trim(), "delete" | "compact")),
        ("compression.type", _) => COMPRESSION_TYPES.contains(&value.as_str()),
        ("message.timestamp.type", _) => matches!(value.as_str(), "CreateTime" | "LogAppendTime"),
        ("min.cleanable.dirty.ratio", _) => value.parse::<f64>().is_ok_and(|value| (0.0..=1.0).contains(&value)),
        ("compression.gzip.level", _) if value == "0" => false,
        // There is one place for all of it, and nothing to turn on.
        ("remote.storage.enable", _) => value == "false",
        ("follower.replication.throttled.replicas" | "leader.replication.throttled.replicas", _) => {
            is_throttled(&value)
        }
        (_, Kind::Boolean) => matches!(value.as_str(), "true" | "false"),
        (_, Kind::Int) => value.parse::<i32>().is_ok_and(|value| (least..=most).contains(&i64::from(value))),
        (_, Kind::Long) => value.parse::<i64>().is_ok_and(|value| (least..=most).contains(&value)),
        (_, Kind::Double) => value.parse::<f64>().is_ok(),
        (_, Kind::Text | Kind::List) => true,
    };
    if right {
        return Ok(value);
    }
    let what = if called == name { "topic config" } else { "config" };
    Err(format!("{what} `{called}` cannot be `{value}`: {}", wanted(name, *kind)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(pairs: &[(&str, &str)]) -> Result<TopicConfigs, String> {
        TopicConfigs::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn unknown_names_and_bad_values_are_refused() {
        assert!(configs(&[("retention.millis", "1")]).is_err());
        assert!(configs(&[("retention.ms", "-2")]).is_err());
        let refused = configs(&[("compression.type", "none")]).expect_err("Kafka's word for it is another");
        assert!(refused.contains("uncompressed, gzip"), "{refused}");
        assert!(configs(&[("min.cleanable.dirty.ratio", "1.5")]).is_err());
        assert!(configs(&[("max.compaction.lag.ms", "0")]).is_err());
        for (name, value, wanted) in [
            ("segment.bytes", "1048575", "say a number from 1048576 up"),
            ("flush.messages", "0", "from 1 up"),
            ("compression.gzip.level", "10", "from 1 to 9, or -1"),
            ("compression.gzip.level", "0", "from 1 to 9, or -1"),
            ("compression.zstd.level", "23", "from -131072 to 22"),
            ("leader.replication.throttled.replicas", "1:x", "say * for all, or partition:broker"),
            ("remote.storage.enable", "true", "it stays false"),
            ("cleanup.policy", "remove", "say delete, compact, or both"),
            ("message.timestamp.type", "createtime", "say one of CreateTime, LogAppendTime"),
            ("preallocate", "yes", "say one of true, false"),
        ] {
            let refused = configs(&[(name, value)]).expect_err(name);
            assert!(refused.contains(&format!("topic config `{name}` cannot be `{value}`: ")), "{refused}");
            assert!(refused.contains(wanted), "{refused}");
        }
        assert!(configs(&[("leader.replication.throttled.replicas", "1:2,3:4")]).is_ok());
        assert!(configs(&[("segment.bytes", "1048576"), ("cleanup.policy", "compact,delete")]).is_ok());
    }

    #[test]
    fn values_are_kept_without_blanks_and_switches_in_small_letters() {
        let given = [("retention.ms", " 5000 "), ("preallocate", "TRUE"), ("cleanup.policy", " compact, delete")];
        let kept = configs(&given).expect("valid");
        let value = |name| kept.value(name);
        let all = (value("retention.ms"), value("preallocate"), value("cleanup.policy"));
        assert_eq!(all, ("5000", "true", "compact,delete"));
        assert!(kept.is_compacted() && kept.retention().ms == Some(5000));
        assert!(configs(&[("preallocate", "yes")]).is_err());
    }

    #[test]
    fn a_topic_says_how_its_batches_are_packed_and_how_hard() {
        let packing = |pairs: &[(&str, &str)]| {
            let packing = configs(pairs).expect("valid").packing()?;
            Some((packing.codec, packing.level))
        };
        assert_eq!(packing(&[]), None);
        assert_eq!(packing(&[("compression.type", "uncompressed")]), Some((Compression::None, None)));
        assert_eq!(packing(&[("compression.type", "gzip")]), Some((Compression::Gzip, None)));
        let hard = [("compression.type", "gzip"), ("compression.gzip.level", "9")];
        assert_eq!(packing(&hard), Some((Compression::Gzip, Some(9))));
        assert_eq!(packing(&[("compression.type", "zstd")]), Some((Compression::Zstd, Some(3))));
        assert_eq!(packing(&[("compression.zstd.level", "9")]), None, "a level alone packs nothing");
    }

    #[test]
    fn minus_one_keeps_for_ever_and_a_compacted_topic_drops_nothing_by_age() {
        let kept = configs(&[("retention.ms", "-1")]).expect("valid").retention();
        assert_eq!((kept.ms, kept.bytes), (None, None));
        let compacted = configs(&[("cleanup.policy", "compact")]).expect("valid");
        assert!(compacted.is_compacted());
        assert_eq!(compacted.compaction(), Some(Compaction::default()), "Kafka's defaults");
        assert_eq!(TopicConfigs::default().compaction(), None);
        assert_eq!(compacted.retention().ms, None);
        assert_eq!(TopicConfigs::default().retention().ms, Some(604_800_000));
    }
}
