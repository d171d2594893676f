//! What is kept of a schema and of a configuration: the shapes that records and requests share.
//!
//! Every member that Confluent's clients send is here by name, and an unknown one is refused, so that nothing is dropped in
//! silence. Sets and maps are sorted, because a schema's digest runs over them in that order.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::Refusal;

/// The language of a schema.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SchemaType {
    /// Apache Avro; what a schema is that names no type.
    #[default]
    Avro,
    /// JSON Schema.
    Json,
    /// Protocol Buffers.
    Protobuf,
}

impl SchemaType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::Json, Self::Protobuf, Self::Avro];

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Json => "JSON",
            Self::Protobuf => "PROTOBUF",
        }
    }

    /// The type of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self, Refusal> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| {
            Refusal::invalid_schema(format_args!("Invalid schema type {name}: it is AVRO, JSON or PROTOBUF"))
        })
    }

    fn is_avro(&self) -> bool {
        *self == Self::Avro
    }
}

/// Another schema that this one stands on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// As what the schema names it: an Avro name, a URI, or the path of an import.
    pub name: String,
    /// Where it is registered.
    pub subject: String,
    /// In which version; -1 in a request is the latest.
    pub version: i32,
}

/// What is said about a schema.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Tags of parts, by path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeMap<String, BTreeSet<String>>>,
    /// Free properties.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub properties: Option<BTreeMap<String, String>>,
    /// Which properties are sensitive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitive: Option<BTreeSet<String>>,
}

/// Rules that clients carry out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RuleSet {
    /// Between versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration_rules: Option<Vec<Rule>>,
    /// When a value is written or read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain_rules: Option<Vec<Rule>>,
    /// Around the encoded value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding_rules: Option<Vec<Rule>>,
    /// Where they are carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enable_at: Option<EnableAt>,
}

/// Where rules are carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "Confluent's words")]
pub enum EnableAt {
    All,
    Client,
    Gateway,
    Server,
    None,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[allow(missing_docs, reason = "Confluent's members, which clients read")]
pub struct Rule {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<RuleKind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<RuleMode>,
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub params: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expr: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_success: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
    #[serde(default)]
    pub disabled: bool,
}

/// What a rule does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "Confluent's words")]
pub enum RuleKind {
    Transform,
    Condition,
}

/// When a rule is carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "Confluent's words")]
pub enum RuleMode {
    Upgrade,
    Downgrade,
    UpDown,
    Write,
    Read,
    WriteRead,
}

impl RuleMode {
    const fn is_migration(self) -> bool {
        matches!(self, Self::Upgrade | Self::Downgrade | Self::UpDown)
    }
}

impl RuleSet {
    /// Whether clients could follow it.
    ///
    /// # Errors
    /// Two rules of one name, a rule without a name, or one whose mode belongs to other rules.
    pub fn check(&self) -> Result<(), Refusal> {
        let lists = [(&self.migration_rules, true), (&self.domain_rules, false), (&self.encoding_rules, false)];
        for (rules, migration) in lists {
            let mut names = BTreeSet::new();
            for rule in rules.iter().flatten() {
                if rule.name.is_empty() || !names.insert(&rule.name) {
                    return Err(Refusal::invalid_rules(format_args!("Found rule with duplicate name '{}'", rule.name)));
                }
                if rule.mode.is_some_and(|mode| mode.is_migration() != migration) {
                    let words = if migration {
                        "Migration rules can only be UPGRADE, DOWNGRADE, UPDOWN"
                    } else {
                        "Domain rules can only be WRITE, READ, WRITEREAD"
                    };
                    return Err(Refusal::invalid_rules(format_args!("{words}: rule '{}'", rule.name)));
                }
            }
        }
        Ok(())
    }
}

/// A schema with all that belongs to it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// The language.
    #[serde(default, skip_serializing_if = "SchemaType::is_avro")]
    pub schema_type: SchemaType,
    /// What it stands on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<Reference>,
    /// What is said about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
    /// Its rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule_set: Option<RuleSet>,
    /// The text.
    pub schema: String,
}

/// What is compared when a schema is registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Level {
    /// Nothing.
    None,
    /// The new one reads what the last one wrote.
    #[default]
    Backward,
    /// The new one reads what any earlier one wrote.
    BackwardTransitive,
    /// The last one reads what the new one writes.
    Forward,
    /// Every earlier one reads what the new one writes.
    ForwardTransitive,
    /// Both, with the last one.
    Full,
    /// Both, with every one.
    FullTransitive,
}

impl Level {
    /// The level of that name, in either case.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self, Refusal> {
        let upper = serde_json::Value::String(name.to_uppercase());
        serde_json::from_value(upper).map_err(|_| Refusal::invalid_level())
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Backward => "BACKWARD",
            Self::BackwardTransitive => "BACKWARD_TRANSITIVE",
            Self::Forward => "FORWARD",
            Self::ForwardTransitive => "FORWARD_TRANSITIVE",
            Self::Full => "FULL",
            Self::FullTransitive => "FULL_TRANSITIVE",
        }
    }

    /// Whether the new schema must read what earlier ones wrote.
    #[must_use]
    pub const fn is_backward(self) -> bool {
        matches!(self, Self::Backward | Self::BackwardTransitive | Self::Full | Self::FullTransitive)
    }

    /// Whether earlier schemas must read what the new one writes.
    #[must_use]
    pub const fn is_forward(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardTransitive | Self::Full | Self::FullTransitive)
    }

    /// Whether all earlier ones count, not only the last.
    #[must_use]
    pub const fn is_transitive(self) -> bool {
        matches!(self, Self::BackwardTransitive | Self::ForwardTransitive | Self::FullTransitive)
    }
}

/// How strictly JSON Schema is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Policy {
    /// Whatever one schema lets in, the other must.
    #[default]
    Strict,
    /// Readers ignore properties that they do not know, and nobody wrote them before with another meaning.
    Lenient,
    /// Compared as [`Self::Strict`].
    Logical,
}

/// A configuration: of a subject, of a context, or of everything. What is absent is asked of the next wider one.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs, reason = "Confluent's members")]
pub struct Config {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias_for_deks: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub normalize: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_fields: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_new_schemas: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validate_rules: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatibility_level: Option<Level>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatibility_policy: Option<Policy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compatibility_group: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_metadata: Option<Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_metadata: Option<Metadata>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_rule_set: Option<RuleSet>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub override_rule_set: Option<RuleSet>,
}

/// Whether a subject may be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    /// By everybody.
    #[default]
    Readwrite,
    /// By nobody.
    Readonly,
    /// By nobody, whatever a subject says.
    ReadonlyOverride,
    /// With ids and versions that the client brings.
    Import,
}

impl Mode {
    /// The mode of that name, in either case.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Self, Refusal> {
        serde_json::from_value(serde_json::Value::String(name.to_uppercase())).map_err(|_| Refusal::invalid_mode())
    }

    /// Whether nothing may be written.
    #[must_use]
    pub const fn is_read_only(self) -> bool {
        matches!(self, Self::Readonly | Self::ReadonlyOverride)
    }
}
