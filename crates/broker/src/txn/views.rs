//! What operators see of transactions, and the one thing that they may mend: a transaction that hangs in a partition because nobody
//! knows of it any more (KIP-664). Called by the request files.

use cairn_log::{AppendError, ProducerView, ReadError, StreamId};

use super::state::{Place, Status, Transaction};
use crate::{broker::Broker, streams};

/// Why a transaction that hangs is not aborted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AbortError {
    /// Nothing of that producer is open there.
    #[error("the producer has no open transaction in the partition")]
    Nothing,
    /// It does not hang: its producer, or its time, ends it.
    #[error("the transaction is known to its coordinator, which ends it: initialise the producer to abort it")]
    Alive,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Append(#[from] AppendError),
}

impl Broker {
    /// One transactional id as it is now.
    pub(crate) async fn describe_transaction(&self, id: &str) -> Option<Transaction> {
        self.inner.transactions.read(id).await.ok()?.clone()
    }

    /// All transactional ids that `wanted` picks, in order: id, producer and state.
    pub(crate) async fn list_transactions(
        &self,
        wanted: impl Fn(&str, &Transaction) -> bool,
    ) -> Vec<(String, i64, Status)> {
        let mut found = Vec::new();
        for (id, slot) in self.inner.transactions.all() {
            let known = slot.read().await;
            if let Some(known) = known.as_ref().filter(|known| wanted(&id, known)) {
                found.push((id.clone(), known.producer, known.status));
            }
        }
        found.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        found
    }

    /// What is remembered of the producers of a stream.
    pub(crate) async fn describe_producers(&self, stream: StreamId) -> Result<Vec<ProducerView>, ReadError> {
        self.inner.log.producers(stream).await
    }

    /// Aborts what a producer has open in one partition and no coordinator knows of.
    pub(crate) async fn abort_hanging(
        &self,
        stream: StreamId,
        place: &Place,
        (producer, epoch): (i64, i16),
    ) -> Result<(), AbortError> {
        let producers = self.inner.log.producers(stream).await?;
        if !producers.iter().any(|found| found.id.get() == producer && found.open_since.is_some()) {
            return Err(AbortError::Nothing);
        }
        let alive = |_: &str, known: &Transaction| known.producer == producer && known.has(place);
        if !self.list_transactions(alive).await.is_empty() {
            return Err(AbortError::Alive);
        }
        let now_ms = self.inner.clock.now().as_millis();
        let marker = streams::marker(stream, (producer, epoch), false, self.coordinator_epoch(), now_ms);
        for result in self.inner.log.append(vec![marker]).await? {
            result?;
        }
        if place.0 == crate::topics::OFFSETS_TOPIC {
            self.inner.groups.end_pending(producer, false);
        }
        Ok(())
    }
}
