//! Consumer groups, classic protocol: who is in a group, who leads it, who got what.
//!
//! [`core`](Core) is the protocol without sockets or clocks: one door, [`Core::handle`]. [`records`] is the byte layout
//! of `__consumer_offsets`. [`driver`](Coordinator) joins both to the log and to waiting requests.

mod core;
mod driver;
mod member;
mod offsets;
pub(crate) mod records;
#[cfg(test)]
mod tests;

pub(crate) use self::core::{Core, Effect, GroupState, Input, Reply, Ticket};
pub(crate) use driver::{Coordinator, GroupView};
pub(crate) use member::{GroupError, GroupLimits, GroupSnapshot, Identity, Join, Joined};
