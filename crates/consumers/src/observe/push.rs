//! Sends the figures to the collector from time to time.
//!
//! They are cumulative: one sending that fails is made up for by the next, so nothing is kept for it. Runs beside the consumer until `stop`.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{Exporter, Figures, Resource, exporter::Untaken, otlp_metrics};

/// Sends them every `every`, and once more at the end.
pub async fn push(exporter: Exporter, figures: Figures, resource: Resource, every: Duration, stop: CancellationToken) {
    let mut is_failing = false;
    loop {
        let is_over = tokio::time::timeout(every, stop.cancelled()).await.is_ok();
        match exporter.send_metrics(otlp_metrics::metrics(&resource, &figures)).await {
            Ok(None) => is_failing = false,
            Ok(Some(left)) => tracing::warn!("the collector left out {} figures: {}", left.items, left.says),
            Err(Untaken::Later { reason, .. } | Untaken::Never { reason }) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::warn!("figures are not sent at the moment, and will be with the next: {reason}");
                }
            }
        }
        if is_over {
            return;
        }
    }
}
