//! Time and seeded randomness: the only place that asks the system for either.
//!
//! Everything that needs the hour takes a [`Clock`], everything that needs chance takes an [`Entropy`], so that
//! log, broker and gateway run in a simulation from a seed. Waiting is `tokio::time`, which a test can pause. The hour may be set by
//! anybody at any time: what lasts is measured in [`Moment`]s, and what forgets by age asks [`Settled`].
//! This crate must never know what the time or the chance is for.

mod entropy;
mod settled;
mod time;

pub use entropy::Entropy;
pub use settled::Settled;
pub use time::{Clock, Moment, NoTimestamp, Timestamp};
