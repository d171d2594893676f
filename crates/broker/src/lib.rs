//! The Kafka protocol over the log: topics, groups, idempotent and transactional producers.
//!
//! A [`Broker`] is used in two ways that share every check: in process ([`Broker::produce`], [`Broker::fetch`],
//! [`Broker::create_topic`]), and over TCP by any Kafka client ([`Broker::serve`], [`Broker::serve_port`]). It guarantees that nothing is
//! visible or acknowledged before the log made it durable, and that only those who may write `mcp.*` do.
//! It must never know what an event of Cairn is, nor how the log stores bytes.

mod access;
mod alter;
mod api;
pub mod batch;
mod broker;
mod budget;
mod dynamic;
mod fields;
#[cfg(fuzzing)]
pub mod fuzzing;
mod group;
mod offline;
mod options;
mod pressure;
mod principal;
mod quotas;
mod resources;
mod server;
mod share;
mod standing;
mod streams;
mod successor;
mod telemetry;
mod topics;
mod turn;
mod txn;
mod wire;

pub use access::{Bearer, NameRule, Tokens};
pub use api::standby::Active;
pub use broker::{
    Broker, BrokerStats, FetchError, Fetched, OpenError, ProduceError, TopicDescription, TopicError, TopicSpec,
};
pub use offline::Names;
pub use options::{Authorization, BrokerLimits, BrokerOptions, HostPort, Peer, Port};
pub use principal::{Principal, SALT_BYTES, SecretHash, User, Users};
pub use server::Standby;
pub use standing::{Committed, GroupStanding, PartitionStanding, STANDINGS_MAX, Standings};
pub use telemetry::{ClientMetrics, ClientPoint};
pub use txn::TxnError;
