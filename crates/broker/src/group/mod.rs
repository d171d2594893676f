//! Consumer groups: who is in a group, and who got what.
//!
//! [`core`](Core) is the classic protocol without sockets or clocks: one door, [`Core::handle`]. [`consumer`] is the new one
//! (KIP-848), built alike. [`table`](Groups) knows which of the two a group speaks. [`records`] is the byte layout of
//! `__consumer_offsets`. [`driver`](Coordinator) joins all to the log and to waiting requests.

pub(crate) mod consumer;
mod core;
mod driver;
mod member;
mod offsets;
pub(crate) mod records;
mod store;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use self::core::{Core, Effect, GroupState, Input, Reply, Ticket};
pub(crate) use driver::{Coordinator, GroupView, Listed, pending::PendingCommit};
pub(crate) use member::{GroupError, GroupLimits, GroupSnapshot, Identity, Join, Joined, Pace, Paces, Synced};
pub(crate) use store::java_hash;
pub(crate) use table::{Ask, Groups};
