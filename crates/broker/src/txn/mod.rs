//! Transactions: who may write in the name of a transactional id, which partitions its transaction has, and how it ends (KIP-98, 360,
//! 447, 890).
//!
//! [`state`](Transaction) is the protocol without sockets, clocks or storage: what is, what is asked, what is then. [`records`] is the
//! byte layout of `__transaction_state`. [`coordinator`](Transactions) joins both to the log; [`produce`] is the way of a
//! transactional batch, [`views`] what operators see and mend.
//!
//! The end of a transaction, the coordinator's state and all markers in all partitions, is one frame of the log: it happened as a
//! whole or not at all, and there is no state in which it is half ended. Which partitions a transaction has is durable with or before
//! the first batch in each, in the same way.

mod coordinator;
mod produce;
mod records;
mod state;
mod views;

pub(crate) use coordinator::Transactions;
pub use state::TxnError;
pub(crate) use state::{Place, Status};
pub(crate) use views::AbortError;

/// Kafka's name of the topic that holds the state of transactional ids.
pub(crate) const STATE_TOPIC: &str = "__transaction_state";
/// The version of transactions in which the end of each bumps the epoch of its producer (KIP-890).
pub(crate) const VERSION_BUMPS: i16 = 2;
