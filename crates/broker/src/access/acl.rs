//! An access rule, and what selects some of them, in Kafka's terms (`AclBinding`, `AclBindingFilter`). Called by the rules and by the
//! request files, which know Kafka's numbers from here.

use serde::{Deserialize, Serialize};

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Topic = 2,
    Group = 3,
    Cluster = 4,
    TransactionalId = 5,
    DelegationToken = 6,
    User = 7,
}

/// The one name of [`Kind::Cluster`].
pub(crate) const CLUSTER: &str = "kafka-cluster";
/// In place of a name or a host: any.
pub(crate) const ANY: &str = "*";
/// In place of a principal: anybody.
pub(super) const ANYBODY: &str = "User:*";

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    All = 2,
    Read = 3,
    Write = 4,
    Create = 5,
    Delete = 6,
    Alter = 7,
    Describe = 8,
    ClusterAction = 9,
    DescribeConfigs = 10,
    AlterConfigs = 11,
    IdempotentWrite = 12,
    CreateTokens = 13,
    DescribeTokens = 14,
    TwoPhaseCommit = 15,
}

/// Whether it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effect {
    Deny = 2,
    Allow = 3,
}

/// How a rule names what it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Pattern {
    Literal = 3,
    Prefixed = 4,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Acl {
    pub(crate) kind: Kind,
    pub(crate) pattern: Pattern,
    pub(crate) name: String,
    /// `User:` and a name, or `User:*`.
    pub(crate) principal: String,
    /// An address, or `*`.
    pub(crate) host: String,
    pub(crate) operation: Operation,
    pub(crate) effect: Effect,
}

macro_rules! numbered {
    ($name:ident: $($variant:ident),*) => {
        impl $name {
            /// Kafka's number of it.
            pub(crate) const fn code(self) -> i8 {
                self as i8
            }

            pub(crate) fn of_code(code: i8) -> Option<Self> {
                [$(Self::$variant),*].into_iter().find(|one| one.code() == code)
            }
        }
    };
}

numbered!(Kind: Topic, Group, Cluster, TransactionalId, DelegationToken, User);
numbered!(Effect: Deny, Allow);
numbered!(Pattern: Literal, Prefixed);
numbered!(Operation: All, Read, Write, Create, Delete, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs,
    IdempotentWrite, CreateTokens, DescribeTokens, TwoPhaseCommit);

impl Kind {
    /// What can be done to it (`AclEntry.supportedOperations`).
    pub(crate) const fn operations(self) -> &'static [Operation] {
        use Operation::{
            Alter, AlterConfigs, ClusterAction, Create, CreateTokens, Delete, Describe, DescribeConfigs,
            DescribeTokens, IdempotentWrite, Read, TwoPhaseCommit, Write,
        };
        match self {
            Self::Topic => &[Read, Write, Create, Describe, Delete, Alter, DescribeConfigs, AlterConfigs],
            Self::Group => &[Read, Describe, Delete, DescribeConfigs, AlterConfigs],
            Self::Cluster => &[Create, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite, Alter, Describe],
            Self::TransactionalId => &[Describe, Write, TwoPhaseCommit],
            Self::DelegationToken => &[Describe],
            Self::User => &[CreateTokens, DescribeTokens],
        }
    }
}

impl Operation {
    /// Whether who may do this may do that too.
    pub(super) fn implies(self, asked: Self) -> bool {
        self == asked
            || self == Self::All
            || match asked {
                Self::Describe => matches!(self, Self::Read | Self::Write | Self::Delete | Self::Alter),
                Self::DescribeConfigs => self == Self::AlterConfigs,
                _ => false,
            }
    }
}

impl Acl {
    /// Whether it is about that resource.
    pub(super) fn covers(&self, kind: Kind, name: &str) -> bool {
        let by_name = match self.pattern {
            Pattern::Literal => self.name == name || self.name == ANY,
            Pattern::Prefixed => name.starts_with(&self.name),
        };
        self.kind == kind && by_name
    }
}

/// Which names a filter wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Names {
    /// Exactly that name in a rule of any pattern, or of that one.
    Exactly(Option<Pattern>),
    /// Whatever rule covers the name.
    Covering,
}

/// What selects rules; what is absent selects any.
#[derive(Debug, Clone)]
pub(crate) struct Filter {
    pub(crate) kind: Option<Kind>,
    pub(crate) names: Names,
    pub(crate) name: Option<String>,
    pub(crate) principal: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) operation: Option<Operation>,
    pub(crate) effect: Option<Effect>,
}

impl Filter {
    pub(super) fn selects(&self, acl: &Acl) -> bool {
        let by_name = match (&self.name, self.names) {
            (Some(name), Names::Covering) => acl.covers(acl.kind, name),
            (None, Names::Covering) => true,
            (name, Names::Exactly(pattern)) => {
                is_or_any(pattern, acl.pattern) && name.as_ref().is_none_or(|name| *name == acl.name)
            }
        };
        by_name
            && is_or_any(self.kind, acl.kind)
            && is_or_any(self.operation, acl.operation)
            && is_or_any(self.effect, acl.effect)
            && self.principal.as_ref().is_none_or(|wanted| *wanted == acl.principal)
            && self.host.as_ref().is_none_or(|wanted| *wanted == acl.host)
    }
}

fn is_or_any<T: PartialEq>(wanted: Option<T>, found: T) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}
