//! What ingest counts, for Prometheus. No label holds what a sender wrote.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

/// What became of something.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Became {
    became: &'static str,
}

/// Counters. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    spans: Family<Became, Counter>,
    actions: Family<Became, Counter>,
    refused: Family<Became, Counter>,
}

impl Metrics {
    /// Makes them part of what is shown.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Spans and log records that came by OTLP: recorded, repeated, of no model call, or over a bound";
        registry.register("cairn_ingest_spans", help, self.spans.clone());
        registry.register("cairn_ingest_actions", "Actions that servers reported", self.actions.clone());
        registry.register(
            "cairn_ingest_refused",
            "Requests to the ingest address that were refused",
            self.refused.clone(),
        );
    }

    pub(crate) fn spans(&self, became: &'static str, count: u64) {
        if count > 0 {
            self.spans.get_or_create(&Became { became }).inc_by(count);
        }
    }

    pub(crate) fn actions(&self, became: &'static str, count: u64) {
        if count > 0 {
            self.actions.get_or_create(&Became { became }).inc_by(count);
        }
    }

    pub(crate) fn refused(&self, why: &'static str) {
        self.refused.get_or_create(&Became { became: why }).inc();
    }
}
