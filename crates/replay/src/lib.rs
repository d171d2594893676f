//! The trail played again: what other policies would have decided.
//!
//! Reads events by the Kafka protocol and payloads from the vault; changes nothing. Must never show a payload: what comes
//! out names calls, policies and counts.

mod judge;
mod report;
mod whatif;

pub use report::{Counts, Flip, FlipKind, Part, Report, Undecidable};
pub use whatif::{WhatIf, WhatIfError};
