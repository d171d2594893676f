//! What the batches of one request have grown by, because their topics want them packed otherwise than they came
//! (`compression.type`). Called by Produce.
//!
//! A hundred bytes may become a mebibyte, for each partition of a request. What is there more than what came is claimed from the
//! same budget, and is no more than a request itself may bring.

use crate::{
    broker::{Admitted, Broker, ProduceError},
    budget::Claim,
};

/// The growth of one request so far; what it claims is free when it goes.
pub(super) struct Growth {
    claim: Claim,
    bytes: usize,
    most: usize,
}

impl Growth {
    pub(super) fn new(broker: &Broker) -> Self {
        let claim = broker.inner.requests_budget.claim();
        Self { claim, bytes: 0, most: broker.inner.options.limits.request_bytes_max }
    }

    /// Counts one more batch, or says why it may not be kept.
    pub(super) async fn take(&mut self, admitted: &Admitted) -> Result<(), ProduceError> {
        if admitted.grown() == 0 {
            return Ok(());
        }
        let bytes = self.bytes.saturating_add(admitted.grown());
        if bytes > self.most {
            return Err(ProduceError::Grown { most: self.most });
        }
        self.claim.cover(bytes).await?;
        self.bytes = bytes;
        Ok(())
    }
}
