//! Cairn's own contracts in a registry: a subject for each event type, each contract a version of it.
//!
//! The subject is `<topic>-<event type>`, as Confluent's TopicRecordNameStrategy has it, because a topic holds events of several
//! types. The text that is registered is the contract without layout, whose digest is the GUID in the header
//! `__value_schema_id` of every event; so nothing is added to it, neither metadata nor rules. The subjects are FULL_TRANSITIVE
//! and LENIENT, and read-only for everybody but Cairn: a contract was compared with those before it when Cairn was built.

use cairn_contract::{Contract, EventType, contracts};

use crate::{
    Offer, Refusal, Registry, Subject,
    model::{Config, Content, Level, Mode, Policy, SchemaType},
};

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Published {
    /// Subjects of Cairn's.
    pub subjects: usize,
    /// Contracts, all versions counted.
    pub contracts: usize,
}

/// The subject of an event type.
#[must_use]
pub fn contract_subject(event_type: EventType) -> String {
    format!("{}-{}", event_type.topic().name(), event_type.name())
}

/// The text of a contract without layout.
///
/// # Panics
/// Never: every contract is JSON.
#[must_use]
pub fn contract_text(contract: &Contract) -> String {
    let parsed: serde_json::Value = serde_json::from_str(contract.schema).expect("every contract is JSON");
    parsed.to_string()
}

/// Registers every contract that is not there yet.
///
/// # Errors
/// The registry cannot write.
pub async fn publish_contracts(registry: &Registry) -> Result<Published, Refusal> {
    let mut published = Published::default();
    for event_type in EventType::ALL {
        let name = Subject::parse(&contract_subject(event_type));
        for contract in contracts(event_type) {
            let content =
                Content { schema_type: SchemaType::Json, schema: contract_text(contract), ..Content::default() };
            registry.publish(name.clone(), Offer { content, ..Offer::default() }).await?;
            published.contracts += 1;
        }
        let (config, mode) = {
            let state = registry.0.state.read();
            (state.config(Some(&name)).cloned(), state.mode(Some(&name)))
        };
        let wanted = Config {
            compatibility_level: Some(Level::FullTransitive),
            compatibility_policy: Some(Policy::Lenient),
            ..Config::default()
        };
        if config.as_ref() != Some(&wanted) {
            registry.set_config_of_contracts(name.clone(), wanted).await?;
        }
        if mode != Some(Mode::Readonly) {
            registry.set_mode(Some(name), Some(Mode::Readonly), false).await?;
        }
        published.subjects += 1;
    }
    Ok(published)
}
