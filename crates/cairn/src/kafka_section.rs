//! `[kafka]` of the configuration: the embedded log's port, who comes in by it, and the brokers that take over from each other.
//! Called by `config`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::bail;
use cairn_broker::{Authorization, BrokerLimits, NameRule};
use serde::Deserialize;

use crate::{bearers::TokensSection, listen::TlsSection};

/// As Kafka's `offsets.retention.minutes`.
const OFFSETS_RETENTION_DAYS: u32 = 7;

/// `[kafka]`: the embedded log's listener.
#[derive(Clone, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct KafkaSection {
    pub(crate) listen: Option<String>,
    pub(crate) advertised: Option<String>,
    /// This broker's node id.
    pub(crate) node_id: Option<i32>,
    /// Every broker that may take over the store, this one included, as `ID@HOST:PORT`.
    pub(crate) brokers: Vec<String>,
    /// Secrets of those who may write Cairn's topics by this port, by name.
    pub(crate) writers: BTreeMap<String, String>,
    /// Secrets of other users, by name.
    pub(crate) users: BTreeMap<String, String>,
    /// Users that may do everything but write Cairn's topics.
    pub(crate) super_users: BTreeSet<String>,
    /// Whose tokens let in.
    pub(crate) tokens: Option<TokensSection>,
    /// What client certificates call their owners.
    certificate_names: Vec<String>,
    authorization: KafkaAuthorization,
    /// Whether everybody may do what no rule is about.
    allow_everyone_if_no_acl: bool,
    /// Partitions of a topic that is made without saying how many.
    pub(crate) partitions: Option<u32>,
    /// Whether a topic is made when somebody asks for one that does not exist.
    pub(crate) auto_create_topics: Option<bool>,
    /// Days for which committed offsets are kept that nobody uses; 0 for ever.
    pub(crate) offsets_retention_days: Option<u32>,
    /// How long a login counts until it is made again.
    pub(crate) login_seconds_max: Option<u64>,
    pub(crate) tls: Option<TlsSection>,
    /// Whether other machines may be served without TLS.
    pub(crate) allow_plaintext: bool,
}

/// Who says what may be done by the Kafka port.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Default, Debug)]
#[serde(rename_all = "lowercase")]
enum KafkaAuthorization {
    /// Nobody: everything may be done but to write Cairn's topics.
    #[default]
    Open,
    /// Kafka's access rules.
    Acl,
}

impl KafkaSection {
    pub(crate) const fn authorization(&self) -> Authorization {
        match self.authorization {
            KafkaAuthorization::Open => Authorization::Open,
            KafkaAuthorization::Acl => Authorization::Rules { everyone_if_none: self.allow_everyone_if_no_acl },
        }
    }

    /// The rules that name owners of client certificates.
    pub(crate) fn certificate_names(&self) -> anyhow::Result<Vec<NameRule>> {
        let rules = self.certificate_names.iter().map(|rule| rule.parse::<NameRule>());
        rules.collect::<Result<_, _>>().map_err(|why| anyhow::anyhow!("kafka.certificate_names: {why}"))
    }

    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.certificate_names()?;
        let most = BrokerLimits::default().partitions_max;
        if self.partitions.is_some_and(|partitions| !(1..=most).contains(&partitions)) {
            bail!("kafka.partitions is between 1 and {most}");
        }
        if self.allow_everyone_if_no_acl && self.authorization == KafkaAuthorization::Open {
            bail!("kafka.allow_everyone_if_no_acl says what holds beside rules: set kafka.authorization = \"acl\" too");
        }
        Ok(())
    }

    /// How long committed offsets are kept that nobody uses; none for ever.
    pub(crate) fn offsets_retention(&self) -> Option<Duration> {
        let days = self.offsets_retention_days.unwrap_or(OFFSETS_RETENTION_DAYS);
        (days > 0).then(|| Duration::from_secs(u64::from(days) * 24 * 3_600))
    }
}

#[cfg(test)]
mod tests {
    use super::KafkaSection;

    #[test]
    fn a_topic_has_at_least_one_partition_and_no_more_than_may_be() {
        let section = |text: &str| toml::from_str::<KafkaSection>(text).expect("a section").check();
        assert!(section("partitions = 1").is_ok());
        assert!(section("partitions = 0").is_err());
        assert!(section("partitions = 4000000000").is_err());
    }
}
