//! A schema registry with Confluent's REST API, over a `_schemas` topic by the Kafka protocol.
//!
//! [`Registry`] holds what is registered and decides; [`router`] is the API. [`format`] knows the three languages. The topic is the only store: its records have the shape that other registries read and write, so it can be
//! taken over from one, and by one. This crate knows nothing of MCP, of policy, or of the events that are written by its schemas.

mod api;
pub mod budget;
mod contracts;
pub mod digest;
pub mod format;
pub mod model;
mod names;
mod prepared;
mod refusal;
mod registry;
mod store;

pub use api::{Guard, Names, Secret, router};
pub use contracts::{Published, contract_subject, contract_text, publish_contracts};
pub use names::{DEFAULT_CONTEXT, Subject};
pub use refusal::Refusal;
pub use registry::{Bounds, Offer, Registry, Version};
pub use store::topic::{OpenError, TopicOptions};
