//! The topics that hold events, and what each is worth: partitions, durability, retention, key.
//!
//! The backbone creates or checks them at start. Partitions of topics keyed by workflow cannot be added later, because
//! then a workflow's events would lie in two partitions and their order would be lost.

use std::{borrow::Cow, fmt, sync::Arc, time::Duration};

/// A class of events, and the Kafka topic that holds it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Topic {
    /// `mcp.calls`: decisions, approvals, intents, outcomes.
    Calls,
    /// `mcp.context`: reads, changes, lists, prompts.
    Context,
    /// `mcp.sessions`: sessions and notifications.
    Sessions,
    /// `mcp.models`: model calls, as agents report them.
    Models,
    /// `mcp.actions`: what servers report that they did downstream.
    Actions,
    /// `mcp.catalog`: each definition seen.
    Catalog,
    /// `mcp.policies`: each policy set.
    Policies,
    /// `mcp.operators`: what people and limits did.
    Operators,
    /// `mcp.checkpoints`: signed roots of the trees over the other topics.
    Checkpoints,
    /// `mcp.rejected`: events that broke their contract.
    Rejected,
}

impl Topic {
    /// Every topic, in the order in which they are created.
    pub const ALL: [Self; 10] = [
        Self::Calls,
        Self::Context,
        Self::Sessions,
        Self::Models,
        Self::Actions,
        Self::Catalog,
        Self::Policies,
        Self::Operators,
        Self::Checkpoints,
        Self::Rejected,
    ];

    /// The Kafka topic's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Calls => "mcp.calls",
            Self::Context => "mcp.context",
            Self::Sessions => "mcp.sessions",
            Self::Models => "mcp.models",
            Self::Actions => "mcp.actions",
            Self::Catalog => "mcp.catalog",
            Self::Policies => "mcp.policies",
            Self::Operators => "mcp.operators",
            Self::Checkpoints => "mcp.checkpoints",
            Self::Rejected => "mcp.rejected",
        }
    }

    /// The topic of that Kafka name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|topic| topic.name() == name)
    }

    /// The topic of that Kafka name, whether it is common or a tenant's own.
    #[must_use]
    pub fn of_anybody(name: &str) -> Option<Self> {
        let own = |(tenant, rest): (&str, &str)| TopicPrefix::of(tenant).ok().and_then(|_| Self::named(rest));
        Self::named(name).or_else(|| name.split_once('.').and_then(own))
    }

    /// Whether its records are keyed by the workflow: all events of one lie in one partition of it.
    #[must_use]
    pub const fn is_by_workflow(self) -> bool {
        matches!(self, Self::Calls | Self::Context | Self::Sessions | Self::Models | Self::Actions)
    }

    /// What the topic is worth.
    #[must_use]
    pub const fn spec(self) -> TopicSpec {
        let (partitions, strict, retention_days, key) = match self {
            Self::Calls => (WORKFLOW_PARTITIONS, true, Some(400), "workflow id"),
            Self::Context => (WORKFLOW_PARTITIONS, false, Some(30), "workflow id"),
            Self::Sessions => (WORKFLOW_PARTITIONS, false, Some(90), "workflow id"),
            Self::Models => (WORKFLOW_PARTITIONS, false, Some(30), "workflow id"),
            Self::Actions => (WORKFLOW_PARTITIONS, true, Some(400), "workflow id"),
            Self::Catalog => (1, false, None, "<server>/<kind>/<name>"),
            Self::Policies => (1, true, None, "policy version"),
            Self::Operators => (1, true, Some(400), "subject, group or operator"),
            Self::Checkpoints => (1, true, None, "<topic>/<partition>"),
            Self::Rejected => (1, true, Some(90), "event type"),
        };
        let retention = match retention_days {
            Some(days) => Some(Duration::from_secs(days * SECONDS_PER_DAY)),
            None => None,
        };
        TopicSpec { topic: self, name: self.name(), partitions, strict, retention, key }
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What stands before the names of topics: nothing before those that all share, `<tenant>.` before a tenant's own.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct TopicPrefix(Option<Arc<str>>);

/// A tenant's name that no topic can have before its own.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{name:?} cannot stand before the name of a topic: a tenant with topics of its own has 1 to 64 letters, digits, '-' or '_', and is not \"mcp\""
)]
pub struct TopicPrefixError {
    /// The name.
    pub name: String,
}

impl TopicPrefix {
    /// That of a tenant.
    ///
    /// # Errors
    /// Where the name has other characters than topics may, or a dot.
    pub fn of(tenant: &str) -> Result<Self, TopicPrefixError> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if tenant.is_empty() || tenant.len() > 64 || !tenant.bytes().all(fits) || tenant == "mcp" {
            return Err(TopicPrefixError { name: tenant.to_owned() });
        }
        Ok(Self(Some(format!("{tenant}.").into())))
    }

    /// The name of a topic with it.
    #[must_use]
    pub fn name(&self, topic: Topic) -> Cow<'static, str> {
        match &self.0 {
            Some(prefix) => Cow::Owned(format!("{prefix}{}", topic.name())),
            None => Cow::Borrowed(topic.name()),
        }
    }
}

const WORKFLOW_PARTITIONS: u32 = 8;
const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// What a topic is worth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicSpec {
    /// Which topic.
    pub topic: Topic,
    /// Its Kafka name.
    pub name: &'static str,
    /// How many partitions it is created with.
    pub partitions: u32,
    /// Whether a gap in a producer's sequence is always a finding; elsewhere it is a loss that is shown.
    pub strict: bool,
    /// How long its records are kept; `None` is for ever.
    pub retention: Option<Duration>,
    /// What its records are keyed by, for people.
    pub key: &'static str,
}

/// Every topic's worth, in the order in which they are created.
#[must_use]
pub const fn topics() -> [TopicSpec; 10] {
    [
        Topic::Calls.spec(),
        Topic::Context.spec(),
        Topic::Sessions.spec(),
        Topic::Models.spec(),
        Topic::Actions.spec(),
        Topic::Catalog.spec(),
        Topic::Policies.spec(),
        Topic::Operators.spec(),
        Topic::Checkpoints.spec(),
        Topic::Rejected.spec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_holds_every_topic_under_its_name() {
        assert_eq!(topics().map(|spec| spec.topic), Topic::ALL);
        for spec in topics() {
            assert_eq!(Topic::named(spec.name), Some(spec.topic));
            assert_eq!(spec.topic.is_by_workflow(), spec.key == "workflow id");
        }
        assert_eq!(Topic::named("mcp.call"), None);
    }

    #[test]
    fn a_tenants_topics_have_its_name_before_theirs() {
        let acme = TopicPrefix::of("acme").expect("a name");
        assert_eq!(acme.name(Topic::Calls), "acme.mcp.calls");
        assert_eq!(TopicPrefix::default().name(Topic::Calls), "mcp.calls");
        for (name, topic) in [
            ("mcp.calls", Some(Topic::Calls)),
            ("acme.mcp.calls", Some(Topic::Calls)),
            ("a.b.mcp.calls", None),
            (".mcp.calls", None),
            ("acme.mcp.call", None),
        ] {
            assert_eq!(Topic::of_anybody(name), topic, "{name}");
        }
        for name in ["", "a.b", "a/b", "mcp", "\u{e9}", &"x".repeat(65)] {
            assert!(TopicPrefix::of(name).is_err(), "{name}");
        }
    }
}
