//! Rates, concurrency and budgets of calls.
//!
//! A [`Rule`] says which calls are counted, apart from whom, and what their bound is. Configuration gives some for good,
//! policies give others with a permit. [`Limits`] counts: what a call takes of several rules it takes of all of them or of
//! none. What was spent of a budget is on disk before whoever spent it goes on, so that a restart gives nothing back.
//!
//! Called by the gateway. This crate must not know MCP, events or policies, and must never hold more than a bounded
//! number of counters: who chooses names cannot use up what others need.

mod amount;
mod counters;
mod key;
mod ledger;
mod limits;
mod rule;

pub use amount::{Amount, AmountError};
pub use counters::{COUNTERS_MAX, Exceeded, Use};
pub use ledger::{LedgerError, OpenError};
pub use limits::{Charged, Entered, Limits, Refused, Standing};
pub use rule::{Applies, Bound, Budget, Cost, Dimension, Part, Rate, Rule, Source, Subject};
