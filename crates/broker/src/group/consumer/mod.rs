//! Consumer groups of the new protocol (KIP-848): the broker decides who gets what, and each member is told by its heartbeats.
//!
//! [`core`](Core) is the protocol without sockets or clocks: one door, [`Core::handle`]. [`group`] is one group, [`member`] how one
//! of its members comes to what it is meant to have, [`assign`] what that is, [`classic`](Request) are members of the older protocol
//! among them. [`records`] is the byte layout of
//! `__consumer_offsets`.

mod assign;
mod classic;
mod core;
mod embedded;
mod group;
mod member;
#[cfg(test)]
mod model;
mod partitions;
pub(crate) mod records;
#[cfg(test)]
mod tests;
mod topics;

pub(crate) use self::core::{Core, Input};
pub(crate) use classic::{Moving, PROTOCOL_TYPE, Request};
#[cfg(test)]
pub(in crate::group) use embedded::encode_subscription;
pub(crate) use group::{Beat, ConsumerState, ConsumerView, MemberView, Told};
use member::{AWAY, LEAVES};
pub(crate) use member::{About, Classic};
pub(crate) use partitions::Partitions;
pub(crate) use records::{Change, Stored};
pub(crate) use topics::{Named, Topics, compile};
