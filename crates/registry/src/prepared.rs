//! What was offered, on its way into the registry: parsed, in the form that is kept, with what it inherits.

use std::collections::BTreeMap;

use crate::{
    digest::Digest,
    format::Parsed,
    model::{Config, Content, Metadata, Rule, RuleSet},
    store::records::SchemaValue,
};

/// What was offered, in the form that is kept.
pub(crate) struct Prepared {
    pub(crate) content: Content,
    pub(crate) identity: String,
    pub(crate) parsed: Parsed,
    pub(crate) config: Config,
}

impl Prepared {
    pub(crate) fn digest(&self) -> Digest {
        Digest::of(&self.content)
    }

    /// Metadata and rules that were not sent are those of the version before; then come the configuration's defaults, which
    /// what was sent goes before, and its overrides, which go before what was sent.
    pub(crate) fn inherit(&mut self, latest: Option<&SchemaValue>) {
        let before = latest.map(|value| &value.content);
        let own = self.content.metadata.take().or_else(|| before?.metadata.clone());
        let merged = merge_metadata(self.config.default_metadata.clone(), own);
        self.content.metadata = merge_metadata(merged, self.config.override_metadata.clone());
        let own = self.content.rule_set.take().or_else(|| before?.rule_set.clone());
        let merged = merge_rules(self.config.default_rule_set.clone(), own);
        self.content.rule_set = merge_rules(merged, self.config.override_rule_set.clone());
    }
}

/// The second goes before the first, member by member.
fn merge_metadata(first: Option<Metadata>, second: Option<Metadata>) -> Option<Metadata> {
    let (Some(first), Some(second)) = (first.clone(), second.clone()) else { return second.or(first) };
    fn merged<V>(
        first: Option<BTreeMap<String, V>>,
        second: Option<BTreeMap<String, V>>,
    ) -> Option<BTreeMap<String, V>> {
        match (first, second) {
            (Some(mut first), Some(second)) => {
                first.extend(second);
                Some(first)
            }
            (first, second) => second.or(first),
        }
    }
    let sensitive = match (first.sensitive, second.sensitive) {
        (Some(first), Some(second)) => Some(first.into_iter().chain(second).collect()),
        (first, second) => second.or(first),
    };
    Some(Metadata {
        tags: merged(first.tags, second.tags),
        properties: merged(first.properties, second.properties),
        sensitive,
    })
}

fn merge_rules(first: Option<RuleSet>, second: Option<RuleSet>) -> Option<RuleSet> {
    let (Some(first), Some(second)) = (first.clone(), second.clone()) else { return second.or(first) };
    let merged = |first: Option<Vec<Rule>>, second: Option<Vec<Rule>>| match (first, second) {
        (Some(first), Some(second)) => {
            let kept = first.into_iter().filter(|rule| second.iter().all(|other| other.name != rule.name));
            Some(kept.chain(second.iter().cloned()).collect())
        }
        (first, second) => second.or(first),
    };
    Some(RuleSet {
        migration_rules: merged(first.migration_rules, second.migration_rules),
        domain_rules: merged(first.domain_rules, second.domain_rules),
        encoding_rules: merged(first.encoding_rules, second.encoding_rules),
        enable_at: second.enable_at.or(first.enable_at),
    })
}
