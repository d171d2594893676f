//! The `_schemas` topic and what is built from it.
//!
//! [`records`] are the bytes, [`state`] is what they mean, [`topic`] reads and writes them by the Kafka protocol.

pub(crate) mod records;
pub(crate) mod state;
pub(crate) mod topic;

#[cfg(test)]
mod tests;

use crate::{Subject, model::Reference};

/// The subject that a reference means: one without a context is in the context of the schema that refers to it.
pub(crate) fn referenced(by: &Subject, reference: &Reference) -> Subject {
    let named = Subject::parse(&reference.subject);
    if reference.subject.starts_with(":.") { named } else { named.within(by.context()) }
}
