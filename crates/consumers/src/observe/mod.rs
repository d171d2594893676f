//! The observe consumer: the trail as traces and metrics for people who run things, and what of it they should look at.
//!
//! [`ObserveSink`] is the sink of the consumer `observe`: it sends each call's span to a collector (OTLP over HTTP), and keeps a position
//! only when the collector has taken what lies before it. [`Figures`] are what it counted, for `/metrics` and, by [`push`], for the same
//! collector; [`alerts`] says when somebody should look. Nothing here holds a payload: attributes are keys that contracts let out.

pub mod alerts;
mod attributes;
mod calls;
mod chains;
mod delivery;
mod exporter;
mod exposition;
mod figures;
mod kept;
mod moments;
mod observed;
mod otlp;
mod otlp_metrics;
mod push;
mod sink;
mod span;
mod wire;

#[cfg(test)]
mod tests;

pub use attributes::Include;
pub use exporter::{Exporter, ExporterError, ExporterOptions};
pub use figures::Figures;
pub use otlp::Resource;
pub use push::push;
pub use sink::{ObserveOptions, ObserveSink};

/// The consumer's name.
pub const NAME: &str = "observe";
/// The group that it is in by default.
pub const GROUP: &str = "cairn-observe";
