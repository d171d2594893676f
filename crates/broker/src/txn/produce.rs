//! The way of what is written into a transaction: a batch, or offsets of a group. Called by Produce and TxnOffsetCommit.
//!
//! A batch is ordered while the lock of its transactional id is held, so that it cannot come behind the markers of its own
//! transaction. Who speaks version 2 of transactions need not add partitions before: the record that adds one is in the same frame as
//! the first batch.

use cairn_log::{Append, AppendError, Appended, Room};

use super::{
    VERSION_BUMPS,
    coordinator::{Known, apart},
    state::{Place, TxnError},
};
use crate::{
    broker::{Admitted, Broker, ProduceError},
    group::PendingCommit,
    topics::OFFSETS_TOPIC,
    turn::Turn,
};

type Stored = Vec<Result<Appended, ProduceError>>;

/// Whether each of some batches may be written now; those outside of transactions always may.
fn judge(known: &Known, admitted: &[Admitted]) -> Vec<Result<(), TxnError>> {
    let one = |batch: &Admitted| {
        let Some(place) = batch.place() else { return Ok(()) };
        let known = known.as_ref().ok_or(TxnError::Mapping)?;
        let (producer, epoch) = batch.producer();
        known.check(producer, epoch)?;
        if known.has(place) { Ok(()) } else { Err(TxnError::NotInTransaction) }
    };
    admitted.iter().map(one).collect()
}

/// Whether one result of the log says that its frame was written, with or without this batch.
const fn was_written(result: &Result<Appended, ProduceError>) -> bool {
    matches!(
        result,
        Ok(_)
            | Err(ProduceError::Append(
                AppendError::OutOfOrderSequence { .. }
                    | AppendError::StaleProducerEpoch { .. }
                    | AppendError::UnknownStream { .. }
                    | AppendError::OffsetsExhausted { .. }
            ))
    )
}

impl Broker {
    /// Appends what was admitted, in order, in one group; one result each. What belongs to a transaction must be that of `id`;
    /// partitions that are not part of it yet become so where `adds`. It waits for its turn, and passes it on once all of it is queued.
    pub(crate) async fn append_produced(
        &self,
        id: Option<&str>,
        adds: bool,
        admitted: Vec<Admitted>,
        mut turn: Turn,
    ) -> Stored {
        turn.come().await;
        if admitted.iter().all(|batch| batch.place().is_none()) {
            return self.append_behind(None, admitted, Room::Guest, &mut turn).await;
        }
        let Some(slot) = id.and_then(|id| self.inner.transactions.slot(id)) else {
            let verdicts = judge(&None, &admitted);
            return self.append_judged(None, admitted, verdicts, turn).await;
        };
        let id = id.unwrap_or_default();
        let known = slot.clone().read_owned().await;
        let verdicts = judge(&known, &admitted);
        if !adds || !verdicts.contains(&Err(TxnError::NotInTransaction)) {
            let stored = self.append_judged(None, admitted, verdicts, turn).await;
            drop(known);
            return stored;
        }
        drop(known);
        let mut known = slot.write_owned().await;
        let mut verdicts = judge(&known, &admitted);
        let missing =
            admitted.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == Err(TxnError::NotInTransaction));
        let missing: Vec<Place> = missing.filter_map(|(batch, _)| batch.place().cloned()).collect();
        let entry = match known.as_ref() {
            Some(was) if !missing.is_empty() => self.grown(was, missing, VERSION_BUMPS).map(Some),
            _ => Ok(None),
        };
        let next = match entry {
            Ok(next) => next,
            Err(error) => {
                verdicts.iter_mut().filter(|verdict| verdict.is_err()).for_each(|verdict| *verdict = Err(error));
                return self.append_judged(None, admitted, verdicts, turn).await;
            }
        };
        verdicts.iter_mut().filter(|verdict| **verdict == Err(TxnError::NotInTransaction)).for_each(|v| *v = Ok(()));
        let (broker, id, count) = (self.clone(), id.to_owned(), admitted.len());
        let stored = apart(async move {
            let state = match &next {
                Some(next) => Some(broker.state_entry(&id, Some(next)).await?),
                None => None,
            };
            let stored = broker.append_judged(state, admitted, verdicts, turn).await;
            if let Some(next) = next.filter(|_| stored.iter().any(was_written)) {
                broker.inner.transactions.put(&id, &mut known, next);
            }
            Ok(stored)
        });
        stored.await.unwrap_or_else(|error| (0..count).map(|_| Err(error.into())).collect())
    }

    /// Appends those that may be, behind the state; one result for each of all.
    async fn append_judged(
        &self,
        state: Option<Append>,
        admitted: Vec<Admitted>,
        verdicts: Vec<Result<(), TxnError>>,
        mut turn: Turn,
    ) -> Stored {
        let may = admitted.into_iter().zip(&verdicts).filter(|(_, verdict)| verdict.is_ok());
        let may = may.map(|(batch, _)| batch).collect();
        let mut stored = self.append_behind(state, may, Room::Guest, &mut turn).await.into_iter();
        let mut next = || stored.next().expect("one result for each that may be appended");
        verdicts.into_iter().map(|verdict| verdict.map_err(ProduceError::from).and_then(|()| next())).collect()
    }

    /// Makes offsets that a transaction would commit durable, as a part of it. `adds` as above.
    pub(crate) async fn commit_in_transaction(
        &self,
        id: &str,
        (producer, epoch): (i64, i16),
        adds: bool,
        (append, commit): (Append, PendingCommit),
    ) -> Result<(), TxnError> {
        let place = (OFFSETS_TOPIC.to_owned(), i32::try_from(append.stream.partition.get()).unwrap_or(i32::MAX));
        let mut guard = self.inner.transactions.write(id).await?;
        let known = guard.as_ref().ok_or(TxnError::Mapping)?;
        known.check(producer, epoch)?;
        let next = match (known.has(&place), adds) {
            (true, _) => None,
            (false, true) => Some(self.grown(known, vec![place], VERSION_BUMPS)?),
            (false, false) => return Err(TxnError::NotInTransaction),
        };
        let (broker, id) = (self.clone(), id.to_owned());
        apart(async move {
            let mut entries = Vec::new();
            if let Some(next) = &next {
                entries.push(broker.state_entry(&id, Some(next)).await?);
            }
            entries.push(append);
            let stored = broker.append_own(entries).await?.pop().expect("one result for each entry");
            if let Some(next) = next {
                broker.inner.transactions.put(&id, &mut guard, next);
            }
            let stored = stored.map_err(|_| TxnError::Fenced)?;
            broker.inner.groups.put_pending(commit, stored.base_offset);
            Ok(())
        })
        .await
    }
}
