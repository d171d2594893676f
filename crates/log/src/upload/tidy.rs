//! What is done with objects once they are uploaded: they are put together (`merge`), and streams that want it are compacted by key
//! (`compact`). Both by the steps of an upload: the object is durable, then the index names it, then what it replaced may go.
//!
//! It is done a piece at a time, each as large as an upload at most, and only while nothing waits for upload. Nothing of it must be
//! remembered: what is left to do is seen from the index.

use std::collections::{BTreeMap, BTreeSet};

use tokio::{sync::watch, time::Instant};

use super::{
    Change, Makes, Uploader,
    compact::{self, Wanted},
    merge,
};
use crate::{
    ErrorKind, StoreError, StreamId,
    object::{ObjectBuilder, ObjectId, PartPlace, SectionId},
    sealed::apart,
};

/// How often it is looked for objects to put together until as many came as are put together.
const MERGE_LOOKS: usize = 4;
/// Pieces of work before what is not needed any more is removed.
const PIECES_MAX: usize = 64;
/// How long a stream is left alone after something in it could not be read.
const REFUSED_MS: i64 = 10 * 60 * 1_000;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Tidying {
    /// With so many objects it is looked again whether some can be put together.
    merge_at: usize,
    job: Option<merge::Job>,
    pass: Option<compact::Pass>,
    /// Who had the last pass: others have their turn.
    last: Option<StreamId>,
    /// Streams that could not be read, and until when they are left alone.
    refused: BTreeMap<StreamId, i64>,
}

impl Uploader {
    /// Does what there is to do, until something waits for upload, `until` has come, or it is stopped.
    pub(super) async fn tidy(&mut self, until: Instant, stop: &watch::Receiver<bool>) -> Result<(), StoreError> {
        for piece in 0..PIECES_MAX {
            let waits = self.shared.state.read().depth() >= self.shared.upload_at();
            // One piece is done each time, however long the upload before it took.
            let is_late = piece > 0 && Instant::now() >= until;
            if waits || *stop.borrow() || is_late {
                break;
            }
            // What a pass has begun with stays where it is until it is done.
            let goes_on = (self.tidying.pass.is_none() && self.merge().await?) || self.compact().await?;
            if !goes_on {
                break;
            }
            self.settle().await?;
        }
        Ok(())
    }

    /// Prepares to put objects together, where enough lie side by side. Says whether there is a step to settle.
    pub(crate) async fn merge(&mut self) -> Result<bool, StoreError> {
        if self.in_flight.is_some() {
            return Ok(true);
        }
        let (shared, count) = (self.shared.clone(), self.index.objects.len());
        let (many, bytes_max) = (shared.options.merge_objects.max(2), shared.options.upload_bytes);
        let lags: BTreeMap<StreamId, u64> = {
            let state = shared.state.read();
            state.streams.iter().filter_map(|(id, stream)| Some((*id, stream.compaction?.max_lag_ms?))).collect()
        };
        for _ in 0..2 {
            let mut job = match self.tidying.job.take() {
                Some(job) => job,
                None if count < self.tidying.merge_at => return Ok(false),
                None => {
                    let chosen = merge::due(&self.index.objects, many, bytes_max);
                    if chosen.is_empty() {
                        // To look is to go through all of them.
                        self.tidying.merge_at = count + (many / MERGE_LOOKS).max(1);
                        return Ok(false);
                    }
                    merge::Job::new(chosen)
                }
            };
            let id = self.next_object();
            // One that cannot be read is not tried again at once.
            self.tidying.merge_at = count + many;
            let store = shared.options.store.as_ref();
            let next = job.next(store, &self.index, &lags, id, bytes_max);
            let merged = self.seat.keep(&shared, next).await?;
            self.tidying.merge_at = 0;
            let Some(mut merged) = merged else { continue };
            let object = std::mem::take(&mut merged.object);
            self.make(Makes::Merge, object, id, |places| merged.changes(places)).await?;
            self.tidying.job = Some(job);
            return Ok(true);
        }
        Ok(false)
    }

    /// Goes on with compaction by key. Says whether there is more to do, or a step to settle.
    pub(crate) async fn compact(&mut self) -> Result<bool, StoreError> {
        if self.in_flight.is_some() {
            return Ok(true);
        }
        let shared = self.shared.clone();
        let Some(keys) = shared.keys.get() else { return Ok(false) };
        let now_ms = shared.settled.now().as_millis();
        let mut waiting = self.waiting(now_ms).into_iter();
        let (object, bytes_max) = (self.next_object(), shared.options.upload_bytes);
        let (mut work, mut did) = (compact::Work::default(), false);
        while !work.is_enough(bytes_max) {
            let Some(pass) = self.tidying.pass.take().or_else(|| waiting.next()) else { break };
            let stream = pass.stream();
            (self.tidying.last, did) = (Some(stream), true);
            let needs = compact::Needs {
                store: shared.options.store.as_ref(),
                keys,
                index: &self.index,
                keys_max: shared.options.compaction_keys_max,
                bytes_max,
                object,
            };
            match self.seat.keep(&shared, pass.step(&needs, &mut work)).await {
                Ok(goes_on) => self.tidying.pass = goes_on,
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    tracing::error!(%error, %stream, "a stream cannot be compacted; it is tried again in ten minutes");
                    self.tidying.refused.insert(stream, now_ms.saturating_add(REFUSED_MS));
                    return Ok(true);
                }
                Err(error) => return Err(error),
            }
        }
        work.close();
        if work.is_empty() {
            return Ok(did);
        }
        let builder = std::mem::take(&mut work.object);
        let makes = Makes::Compaction { freed: work.freed };
        let made = self.make(makes, builder, object, |places| work.changes(places)).await;
        if made.is_err() {
            self.tidying.pass = None; // it went on as if this were done
        }
        made.map(|()| true)
    }

    /// Makes the object and decides the step.
    async fn make(
        &mut self,
        makes: Makes,
        builder: ObjectBuilder,
        id: ObjectId,
        changes: impl FnOnce(&BTreeMap<SectionId, PartPlace>) -> Vec<Change>,
    ) -> Result<(), StoreError> {
        if builder.is_empty() {
            self.prepare(makes, None, self.index.covered, changes(&BTreeMap::new()));
            return Ok(());
        }
        let log = self.shared.log;
        let shared = self.shared.clone();
        let (bytes, places) = self.seat.keep(&shared, apart(move || builder.finish(log))).await?;
        self.objects += 1;
        self.prepare(makes, Some((id, bytes)), self.index.covered, changes(&places));
        Ok(())
    }

    fn next_object(&self) -> ObjectId {
        ObjectId { epoch: self.shared.epoch, number: self.objects }
    }

    fn wanted(&self) -> Vec<(StreamId, Wanted)> {
        let state = self.shared.state.read();
        let wanted = state.streams.iter().filter_map(|(id, stream)| {
            let (policy, settled) = (stream.compaction?, stream.stable_end());
            Some((*id, Wanted { policy, settled, aborted: stream.aborted(stream.start, settled) }))
        });
        wanted.collect()
    }

    /// Passes that are due, the one whose turn it is first. A pass that is under way goes before all of them, and its stream has no
    /// other.
    fn waiting(&mut self, now_ms: i64) -> Vec<compact::Pass> {
        let wanted = self.wanted();
        let known: BTreeSet<StreamId> = wanted.iter().map(|(id, ..)| *id).collect();
        self.tidying.refused.retain(|id, until| known.contains(id) && *until > now_ms);
        let under_way = self.tidying.pass.as_ref().map(compact::Pass::stream);
        if under_way.is_some_and(|stream| !known.contains(&stream)) {
            self.tidying.pass = None; // it is not wanted any more
        }
        let Tidying { last, refused, .. } = &self.tidying;
        let mut due: Vec<compact::Pass> = Vec::new();
        let mut turn = 0;
        for (id, wanted) in wanted {
            let Some(indexed) = self.index.streams.get(&id) else { continue };
            if Some(id) == under_way || refused.contains_key(&id) {
                continue;
            }
            if let Some(found) = compact::due(indexed, &wanted, now_ms) {
                due.push(compact::Pass::new(id, found, wanted, now_ms, indexed));
                turn += usize::from(last.is_some_and(|last| id <= last));
            }
        }
        let length = due.len().max(1);
        due.rotate_left(turn % length);
        due
    }
}

#[cfg(test)]
mod tests;
