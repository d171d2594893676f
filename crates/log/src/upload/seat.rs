//! Who owns the store, as its owner says it: the head that is ours, and the beats by which it changes while nothing else does.
//! Called by `upload`, which has the only one.
//!
//! With others standing by (`beat_interval`) the head changes at least that often: `standby` takes a head that stands still for one
//! whose owner is gone. A beat whose answer was lost is sent again as it was before anything else changes the head.

use tokio::time::Instant;

use crate::{StoreError, index::HeadRecord, open::Shared, store::HeadVersion};

/// The head that is ours.
#[derive(Debug)]
pub(crate) struct Seat {
    version: Option<HeadVersion>,
    /// What it says; nothing before the first step of this epoch.
    head: Option<HeadRecord>,
    /// A beat that was not answered.
    beating: Option<HeadRecord>,
    changed: Option<Instant>,
}

impl Seat {
    /// The head that was there when we came.
    pub(crate) const fn new(version: Option<HeadVersion>) -> Self {
        Self { version, head: None, beating: None, changed: None }
    }

    /// Replaces the head by what a step wants.
    pub(crate) async fn replace(&mut self, shared: &Shared, head: &HeadRecord) -> Result<(), StoreError> {
        self.finish_beat(shared).await?;
        self.write(shared, head).await
    }

    /// Says that the owner ended and left nothing behind.
    pub(crate) async fn release(&mut self, shared: &Shared) -> Result<(), StoreError> {
        self.finish_beat(shared).await?;
        let Some(head) = &self.head else { return Ok(()) };
        let head = HeadRecord { is_closed: true, beat: head.beat + 1, ..head.clone() };
        self.write(shared, &head).await
    }

    /// When the next beat is due; never, where nobody stands by.
    pub(crate) fn due(&self, shared: &Shared) -> Option<Instant> {
        let every = shared.options.beat_interval?;
        Some(self.changed.map_or_else(Instant::now, |changed| changed + every))
    }

    /// Does something that takes a while, and beats meanwhile.
    pub(crate) async fn keep<T>(&mut self, shared: &Shared, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            let Some(due) = self.due(shared) else { return work.await };
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep_until(due) => self.beat(shared).await,
            }
        }
    }

    /// Changes the head and nothing in it. One that fails is tried again soon; who is fenced hears of it.
    pub(crate) async fn beat(&mut self, shared: &Shared) {
        let Some(head) = &self.head else { return };
        if self.beating.is_none() {
            self.beating = Some(HeadRecord { beat: head.beat + 1, ..head.clone() });
        }
        if let Err(error) = self.finish_beat(shared).await {
            tracing::debug!(%error, "a beat did not reach the object store");
            // Soon again, and not at once.
            let every = shared.options.beat_interval.unwrap_or_default();
            self.changed = Some(Instant::now().checked_sub(every / 2).unwrap_or_else(Instant::now));
        }
    }

    async fn finish_beat(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let Some(head) = self.beating.clone() else { return Ok(()) };
        self.write(shared, &head).await?;
        self.beating = None;
        Ok(())
    }

    async fn write(&mut self, shared: &Shared, head: &HeadRecord) -> Result<(), StoreError> {
        let store = shared.options.store.as_ref();
        match store.replace_head(self.version.as_ref(), head.encode()).await {
            Ok(version) => {
                self.version = Some(version);
                self.head = Some(head.clone());
                self.changed = Some(Instant::now());
                shared.is_ours_now();
                Ok(())
            }
            Err(StoreError::HeadChanged) => {
                let now = store.head().await?.and_then(|head| HeadRecord::decode(&head.bytes));
                let epoch = now.map_or(shared.epoch, |head| head.epoch);
                shared.fence(epoch);
                Err(StoreError::Fenced { epoch })
            }
            Err(error) => Err(error),
        }
    }
}
