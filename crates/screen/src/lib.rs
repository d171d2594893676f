//! Classification and masking for the record: what must not stand in an event is found and replaced before it is written.
//!
//! The gateway asks a [`Screener`] for every free text and every payload that goes into the record. Order: what a contract
//! or a server's own schema classifies ([`Classes`]) is masked whole; everything else goes through detectors
//! ([`Detector`]): rules as data ([`Rules`]), over the text itself and over what it holds in JSON escapes, JSON strings,
//! percent-encoding, base64 and hexadecimal digits. Masking is idempotent, bounded in time and memory, and says what was
//! found as [`Finding`]s: pointer, rule and digest of the rules, never the value.
//!
//! This crate must never do I/O, and never change traffic: it sees copies.

mod budget;
mod checks;
mod classes;
mod detector;
mod encoded;
mod find;
mod json;
mod keywords;
mod mask;
mod names;
mod patterns;
mod pointer;
mod rules;
mod screener;
mod shapes;

pub use classes::{Class, Classes, ClassesError};
pub use detector::{Detector, Match};
pub use rules::{Rules, RulesError};
pub use screener::{Finding, Masked, Screener};

#[cfg(test)]
mod tests;
