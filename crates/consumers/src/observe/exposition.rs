//! The figures for `/metrics`.
//!
//! Asked at each scrape by the wiring, which holds the registry. Histograms carry exemplars with the trace of one call in each bucket.

use std::fmt;

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use super::figures::{COUNTERS, DURATIONS, Figures, GAUGES};

impl Figures {
    /// Writes all of them.
    ///
    /// # Errors
    /// The page takes nothing more.
    pub fn show(&self, page: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for ((name, _, _, help), value) in GAUGES.iter().zip(self.gauges()) {
            let gauge = ConstGauge::new(value);
            gauge.encode(page.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let (calls, counters) = self.read(|state| {
            let calls: Vec<_> = state.calls.iter().map(|(labels, of)| (labels.clone(), of.shown.clone())).collect();
            (calls, state.counters.clone())
        });
        for (counter, name, _, _, help) in COUNTERS {
            let mut family = page.encode_descriptor(name, help, None, MetricType::Counter)?;
            for ((_, labels), value) in counters.iter().filter(|((of, _), _)| *of == counter) {
                let value = ConstCounter::new(*value);
                if labels.is_empty() {
                    value.encode(family.encode_family(&NONE)?)?;
                } else {
                    value.encode(family.encode_family(labels)?)?;
                }
            }
        }
        let mut family = page.encode_descriptor(DURATIONS.0, DURATIONS.3, None, MetricType::Histogram)?;
        for (labels, durations) in calls {
            let labels = [
                ("server", labels.server),
                ("tool", labels.tool),
                ("method", labels.method),
                ("decision", labels.decision),
                ("outcome", labels.outcome),
            ];
            durations.encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// No labels.
const NONE: [(&str, &str); 0] = [];
