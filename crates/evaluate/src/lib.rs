//! Data sets for evaluating models: one row for each call of a tool, with what led to it and what became of it.
//!
//! [`make`](fn@make) reads the trail by the Kafka protocol, joins its events into [`Row`]s and writes files and a [`Manifest`] that names the
//! offsets, filters and digests they came of; [`rebuild`] makes the same files again from a manifest and says what differs, and why. Called by
//! `cairn dataset` and `cairn-lake dataset`. A row holds what the events hold, masked texts and references, and never a payload. What
//! a data set is follows from the trail and the manifest alone: no clock, no order of arrival. Memory is bounded by the calls that may be
//! chosen. This crate must never write to the trail, and never know how calls live.
//!
//! Reading order: `options` (what is chosen), `prices`, `row` (one row), `said` (what is read of an event), `gather` (events into calls),
//! `choosing` (which model call chose a call), `reading` (ranges of the trail), `manifest`, `make`.

mod choosing;
mod gather;
mod make;
mod manifest;
mod options;
mod prices;
mod reading;
mod row;
mod said;

pub use choosing::is_named;
pub use make::{Difference, Format, Jsonl, Made, MakeError, Rebuilt, make, rebuild, rows_of};
pub use manifest::{Counts, FileOf, LAYOUT, MANIFEST, Manifest, Range};
pub use options::{CALLS_MAX, Filters, Options};
pub use prices::{Price, PriceError, Prices};
pub use row::{Action, Approval, EventOf, ModelCall, Offered, Row, Settled};
