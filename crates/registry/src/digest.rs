//! A schema's digest and its GUID, computed from what it holds.
//!
//! Confluent's rule: MD5 over the text, then each reference's name, subject and version (four bytes, the highest first), then
//! where there is metadata the byte 1 and its members, then the same for rules. Sets and maps go in sorted order. The GUID
//! is the digest read as a UUID as it is. Known vectors are in this file's tests; a contract of Cairn's has the GUID that its
//! events carry.

use md5::{Digest as _, Md5};
use uuid::Uuid;

use crate::model::{Content, EnableAt, Metadata, Reference, Rule, RuleKind, RuleMode, RuleSet};

/// The digest of a schema with all that belongs to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Digest([u8; 16]);

impl Digest {
    /// The digest of that text with those belongings.
    #[must_use]
    pub fn of(content: &Content) -> Self {
        Self::of_text(&content.schema, content)
    }

    /// The same with another text in the place of the kept one.
    #[must_use]
    pub fn of_text(text: &str, content: &Content) -> Self {
        let mut hash = Md5::new();
        hash.update(text);
        content.references.iter().for_each(|reference| referenced(&mut hash, reference));
        if let Some(metadata) = &content.metadata {
            hash.update([1]);
            described(&mut hash, metadata);
        }
        if let Some(rules) = &content.rule_set {
            hash.update([1]);
            ruled(&mut hash, rules);
        }
        Self(hash.finalize().into())
    }

    /// What a record holds of it.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The GUID.
    #[must_use]
    pub const fn guid(self) -> Uuid {
        Uuid::from_bytes(self.0)
    }
}

fn referenced(hash: &mut Md5, reference: &Reference) {
    hash.update(&reference.name);
    hash.update(&reference.subject);
    hash.update(reference.version.to_be_bytes());
}

fn described(hash: &mut Md5, metadata: &Metadata) {
    for (path, tags) in metadata.tags.iter().flatten() {
        hash.update(path);
        tags.iter().for_each(|tag| hash.update(tag));
    }
    for (name, value) in metadata.properties.iter().flatten() {
        hash.update(name);
        hash.update(value);
    }
    metadata.sensitive.iter().flatten().for_each(|name| hash.update(name));
}

fn ruled(hash: &mut Md5, rules: &RuleSet) {
    let lists = [&rules.migration_rules, &rules.domain_rules, &rules.encoding_rules];
    lists.into_iter().flatten().flatten().for_each(|rule| rule_of(hash, rule));
    if let Some(place) = rules.enable_at {
        hash.update(match place {
            EnableAt::All => "ALL",
            EnableAt::Client => "CLIENT",
            EnableAt::Gateway => "GATEWAY",
            EnableAt::Server => "SERVER",
            EnableAt::None => "NONE",
        });
    }
}

fn rule_of(hash: &mut Md5, rule: &Rule) {
    hash.update(&rule.name);
    let text = |hash: &mut Md5, text: &Option<String>| text.iter().for_each(|text| hash.update(text));
    text(hash, &rule.doc);
    if let Some(kind) = rule.kind {
        hash.update(match kind {
            RuleKind::Transform => "TRANSFORM",
            RuleKind::Condition => "CONDITION",
        });
    }
    if let Some(mode) = rule.mode {
        hash.update(match mode {
            RuleMode::Upgrade => "UPGRADE",
            RuleMode::Downgrade => "DOWNGRADE",
            RuleMode::UpDown => "UPDOWN",
            RuleMode::Write => "WRITE",
            RuleMode::Read => "READ",
            RuleMode::WriteRead => "WRITEREAD",
        });
    }
    text(hash, &rule.engine);
    rule.tags.iter().flatten().for_each(|tag| hash.update(tag));
    for (name, value) in rule.params.iter().flatten() {
        hash.update(name);
        hash.update(value);
    }
    text(hash, &rule.expr);
    text(hash, &rule.on_success);
    text(hash, &rule.on_failure);
    if rule.disabled {
        hash.update([1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn md5(bytes: &[u8]) -> [u8; 16] {
        Md5::digest(bytes).into()
    }

    #[test]
    fn a_plain_schema_has_the_digest_of_its_text() {
        let content = Content { schema: "\"string\"".to_owned(), ..Content::default() };
        assert_eq!(Digest::of(&content).bytes(), &md5(b"\"string\""));
    }

    #[test]
    fn references_metadata_and_rules_count_in_that_order() {
        let content: Content = serde_json::from_str(
            r#"{"schema": "S", "references": [{"name": "n", "subject": "s", "version": 258}],
                "metadata": {"sensitive": ["z"], "properties": {"b": "2", "a": "1"}, "tags": {"p": ["y", "x"]}},
                "ruleSet": {"domainRules": [{"name": "r", "kind": "CONDITION", "mode": "WRITE", "type": "CEL", "expr": "e",
                            "params": {"k": "v"}, "disabled": true}]}}"#,
        )
        .expect("a schema");
        let bytes = b"Sns\x00\x00\x01\x02\x01pxya1b2z\x01rCONDITIONWRITECELkve\x01";
        assert_eq!(Digest::of(&content).bytes(), &md5(bytes));
        let empty = Content { metadata: Some(Metadata::default()), schema: "S".to_owned(), ..Content::default() };
        assert_eq!(Digest::of(&empty).bytes(), &md5(b"S\x01"), "empty metadata is not none");
    }

    #[test]
    fn a_contract_of_cairns_has_the_guid_that_its_events_carry() {
        let contract = cairn_contract::EventType::CallIntent.contract();
        let parsed: serde_json::Value = serde_json::from_str(contract.schema).expect("a schema");
        let content = Content { schema: parsed.to_string(), ..Content::default() };
        assert_eq!(Digest::of(&content).guid(), contract.guid);
    }
}
