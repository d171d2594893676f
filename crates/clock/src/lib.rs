//! Time and seeded randomness: the only place that asks the system for either.
//!
//! Everything that needs the hour takes a [`Clock`], everything that needs chance takes an [`Entropy`], so that
//! log, broker and gateway run in a simulation from a seed. Waiting is `tokio::time`, which a test can pause.
//! This crate must never know what the time or the chance is for.

mod entropy;
mod time;

pub use entropy::Entropy;
pub use time::{Clock, NoTimestamp, Timestamp};
