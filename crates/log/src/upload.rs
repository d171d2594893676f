//! Carries the write-ahead log to the store, in the background. Driven by [`Uploader::run`], or step by step by the simulation.
//!
//! The order is what keeps records: the object is durable, then the index names it, then the range of the write-ahead log
//! may be used again. Every name and every byte of a step is decided before its first call, and kept until the store has
//! answered: so a call whose answer was lost is sent again as it was. The store decides ownership in the head and nowhere
//! else: where the head is another's, this log stops. While it acknowledges it asks every second, and after a pause before the
//! first acknowledgement; idle, it asks nothing.
//!
//! Objects are removed by their names alone, no clock is asked: those that the committed index does not name, of lower
//! epochs, or of this one and not in flight, and that no running read holds. Higher epochs are another's business.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_clock::Entropy;
use tokio::{sync::watch, time::Instant};

use crate::{
    ErrorKind, StoreError,
    index::{Change, Compacted, Delta, HeadRecord, Index, IndexName, Note, Past, Range},
    object::{self, ObjectId},
    open::Shared,
    store::{HeadVersion, Store},
    upload::seat::Seat,
    wal_object::{self, Found, WalId},
};

mod compact;
mod gather;
mod merge;
mod seat;
mod source;
mod tidy;

/// Files of the index before the next one is a snapshot.
const FILES_MAX: usize = 64;
/// What waits to be removed; past it, it is found again by listing.
const GARBAGE_MAX: usize = 10_000;
/// Write-ahead objects that are removed beside each other.
const DELETES_MAX: usize = 16;
/// A write-ahead object that is larger is no fence, however the store encrypts it.
pub(crate) const FENCE_BYTES_MAX: u64 = 4 << 10;
/// Waits between attempts while the store is away.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// How often who acknowledges asks whether the store is still its own: what is acknowledged after another took it is lost.
const CONTACT_INTERVAL: Duration = Duration::from_secs(1);
/// How long a call that is on its way may take once the log is closed.
const END_MAX: Duration = Duration::from_secs(5);

/// One step on its way to the store.
#[derive(Debug)]
struct InFlight {
    object: Option<(ObjectId, Bytes)>,
    file: (IndexName, Bytes),
    delta: Delta,
    head: HeadRecord,
    makes: Makes,
}

/// What a step is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Makes {
    /// It carries what was written, or says whose the store is.
    Upload,
    /// Its object takes the place of others.
    Merge,
    /// It holds what compaction left, of so many bytes more.
    Compaction { freed: u64 },
}

/// What the index does not name any more.
#[derive(Debug, Default)]
struct Garbage {
    objects: Vec<ObjectId>,
    files: Vec<IndexName>,
    write_ahead: Vec<WalId>,
    /// Whether there may be more that only a list finds: after a start, and after too much was forgotten.
    unknown: bool,
}

/// The uploader's own state; nothing else touches it.
#[derive(Debug)]
pub(crate) struct Uploader {
    shared: Arc<Shared>,
    entropy: Entropy,
    /// The head that is ours, or that was there when we came.
    seat: Seat,
    /// The snapshot and the deltas that the head names.
    files: Vec<IndexName>,
    /// The index as committed.
    index: Index,
    /// Up to where the write-ahead log was looked at; empty frames need no commit.
    position: u64,
    objects: u64,
    in_flight: Option<InFlight>,
    garbage: Garbage,
    tidying: tidy::Tidying,
}

impl Uploader {
    pub(crate) fn new(
        shared: Arc<Shared>,
        entropy: Entropy,
        version: Option<HeadVersion>,
        files: Vec<IndexName>,
        index: Index,
    ) -> Self {
        let garbage = Garbage { unknown: true, ..Garbage::default() };
        let position = index.covered;
        let (seat, tidying) = (Seat::new(version), tidy::Tidying::default());
        Self { shared, entropy, seat, files, index, position, objects: 0, in_flight: None, garbage, tidying }
    }

    /// Prepares the step that makes this epoch the owner.
    pub(crate) fn begin_epoch(&mut self, changes: Vec<Change>) {
        self.prepare(Makes::Upload, None, self.index.covered, changes);
    }

    /// Prepares the step that says how this epoch goes on. All before it was uploaded.
    pub(crate) fn go_on(&mut self, changes: Vec<Change>) {
        self.prepare(Makes::Upload, None, self.position, changes);
    }

    /// Decides every name and byte of a step.
    fn prepare(&mut self, makes: Makes, object: Option<(ObjectId, Bytes)>, covered: u64, changes: Vec<Change>) {
        let (log, epoch) = (self.shared.log, self.shared.epoch);
        let sequence = self.index.sequence + 1;
        let delta = Delta { log, snapshot: false, epoch, sequence, covered, changes };
        let name = IndexName { epoch, sequence, nonce: self.entropy.next_u64() };
        let whole = self.files.is_empty() || self.files.len() >= FILES_MAX;
        let (files, bytes) = if whole {
            let mut next = self.index.clone();
            next.apply(&delta);
            (vec![name], next.snapshot().encode())
        } else {
            (self.files.iter().copied().chain([name]).collect(), delta.encode())
        };
        let head =
            HeadRecord { log, epoch, sequence, files, beat: 0, owner: self.shared.options.owner, is_closed: false };
        self.in_flight = Some(InFlight { object, file: (name, bytes), delta, head, makes });
    }

    /// Takes what is durable and not uploaded, up to `upload_bytes`. Says whether there is a step to settle.
    pub(crate) fn gather(&mut self) -> Result<bool, StoreError> {
        if self.in_flight.is_some() {
            return Ok(true);
        }
        let id = ObjectId { epoch: self.shared.epoch, number: self.objects };
        while let Some(gathered) = gather::gather(&self.shared, &self.index, self.position, id)? {
            self.position = gathered.end;
            if gathered.changes.is_empty() {
                // Empty frames only: nothing that the store must know.
                let mut state = self.shared.state.write();
                state.covered = state.covered.max(gathered.end);
                continue;
            }
            if gathered.object.is_some() {
                self.objects += 1;
            }
            let mut changes = gathered.changes;
            changes.extend(self.covered_objects(gathered.end));
            changes.push(Change::Note(Note::Uploaded { at_ms: self.shared.clock.now().as_millis() }));
            let object = gathered.object.map(|bytes| (id, bytes));
            self.prepare(Makes::Upload, object, gathered.end, changes);
            return Ok(true);
        }
        Ok(false)
    }

    /// Which write-ahead objects are needed no more once the store has all before `end` in its index.
    fn covered_objects(&self, end: u64) -> Vec<Change> {
        let state = self.shared.state.read();
        let mut needed = BTreeMap::new();
        for segment in state.segments.values().take_while(|segment| segment.end() <= end) {
            if let Some(id) = segment.object {
                needed.insert(id.epoch, id.number + 1);
            }
        }
        let needed = needed.into_iter().filter_map(|(epoch, from)| {
            let (_, to) = self.index.write_ahead.get(&epoch)?;
            Some(Change::WriteAhead { epoch, from, to: *to })
        });
        needed.collect()
    }

    /// Brings the step in flight to its end, or fails and keeps it for another try.
    pub(crate) async fn settle(&mut self) -> Result<(), StoreError> {
        let Some(step) = &self.in_flight else { return Ok(()) };
        let (shared, store) = (&self.shared, self.shared.options.store.as_ref());
        let put = async {
            if let Some((id, bytes)) = &step.object {
                put(store, &id.name(), bytes.clone()).await?;
            }
            put(store, &step.file.0.name(), step.file.1.clone()).await
        };
        self.seat.keep(shared, put).await?;
        self.seat.replace(shared, &step.head).await?;
        self.committed();
        Ok(())
    }

    /// The store has it: the index first, then what readers see, then the write-ahead log may be used again.
    fn committed(&mut self) {
        let Some(step) = self.in_flight.take() else { return };
        self.count(&step);
        let gone = self.index.apply(&step.delta);
        let replaced = self.files.iter().filter(|file| !step.head.files.contains(file));
        self.garbage.files.extend(replaced.copied());
        self.garbage.objects.extend(gone);
        // Retention may have overtaken all that the object holds.
        let needed = |id: &ObjectId| self.index.objects.contains_key(id);
        self.garbage.objects.extend(step.object.map(|(id, _)| id).filter(|id| !needed(id)));
        self.files = step.head.files;
        {
            let mut state = self.shared.state.write();
            state.commit(&step.delta);
            state.objects = self.index.objects.len() as u64;
        }
        self.trim();
    }

    fn count(&self, step: &InFlight) {
        let counters = &self.shared.counters;
        let object = step.object.as_ref().map(|(_, bytes)| bytes.len() as u64);
        let add = |counter: &AtomicU64, by: u64| {
            counter.fetch_add(by, Ordering::Relaxed);
        };
        let (times, bytes) = match step.makes {
            Makes::Upload => (&counters.uploads, &counters.uploaded_bytes),
            Makes::Merge => (&counters.merges, &counters.merged_bytes),
            Makes::Compaction { freed } => {
                add(&counters.compaction_freed_bytes, freed);
                (&counters.compactions, &counters.compacted_bytes)
            }
        };
        if object.is_some() || step.makes != Makes::Upload {
            add(times, 1);
        }
        add(bytes, object.unwrap_or(0));
        add(&counters.index_bytes, step.file.1.len() as u64);
    }

    /// Gives back write-ahead files that the store has, the oldest first. One that a reader holds is removed, not reused. Objects
    /// of the write-ahead log become garbage.
    fn trim(&mut self) {
        let covered = self.index.covered;
        loop {
            let segment = {
                let mut state = self.shared.state.write();
                let oldest = state.segments.first_key_value();
                // The newest file is the writer's.
                let free = oldest.filter(|(_, segment)| {
                    segment.end() <= covered && (state.segments.len() > 1 || segment.object.is_some())
                });
                let Some(base) = free.map(|(base, _)| *base) else { return };
                state.segments.remove(&base).expect("it was just seen")
            };
            if let Some(id) = segment.object {
                self.garbage.write_ahead.push(id);
                continue;
            }
            self.shared.retire(segment);
        }
    }

    /// Removes what the committed index does not name.
    pub(crate) async fn collect(&mut self) -> Result<(), StoreError> {
        let Garbage { objects, files, write_ahead, .. } = &self.garbage;
        if objects.len() + files.len() + write_ahead.len() > GARBAGE_MAX {
            self.garbage = Garbage { unknown: true, ..Garbage::default() };
        }
        if self.garbage.unknown {
            self.find_garbage().await?;
        }
        let (shared, mut at) = (self.shared.clone(), 0);
        let store = shared.options.store.as_ref();
        while let Some(object) = self.garbage.objects.get(at).copied() {
            if self.shared.fetcher.pins.holds(object) {
                at += 1; // a read needs it: next time
                continue;
            }
            self.seat.keep(&shared, store.delete(&object.name())).await?;
            self.garbage.objects.swap_remove(at);
            self.shared.counters.objects_removed.fetch_add(1, Ordering::Relaxed);
        }
        while !self.garbage.write_ahead.is_empty() {
            let from = self.garbage.write_ahead.len().saturating_sub(DELETES_MAX);
            let names: Vec<_> = self.garbage.write_ahead[from..].iter().map(|id| id.name()).collect();
            let deletes = futures::future::try_join_all(names.iter().map(|name| store.delete(name)));
            self.seat.keep(&shared, deletes).await?;
            self.garbage.write_ahead.truncate(from);
        }
        while let Some(file) = self.garbage.files.last() {
            self.seat.keep(&shared, store.delete(&file.name())).await?;
            self.garbage.files.pop();
        }
        Ok(())
    }

    async fn find_garbage(&mut self) -> Result<(), StoreError> {
        let (shared, ours) = (self.shared.clone(), self.shared.epoch);
        let store = shared.options.store.as_ref();
        let in_flight = self.in_flight.as_ref();
        let object_in_flight = in_flight.and_then(|step| step.object.as_ref()).map(|(id, _)| *id);
        let file_in_flight = in_flight.map(|step| step.file.0);
        let objects = self.seat.keep(&shared, store.list(object::FOLDER)).await?;
        let objects = objects.iter().filter_map(|listed| ObjectId::parse(&listed.name));
        let objects = objects.filter(|id| id.epoch <= ours && !self.index.objects.contains_key(id));
        let objects: Vec<_> = objects.filter(|id| Some(*id) != object_in_flight).collect();
        let files = self.seat.keep(&shared, store.list(IndexName::FOLDER)).await?;
        let files = files.iter().filter_map(|listed| IndexName::parse(&listed.name));
        let files = files.filter(|file| file.epoch <= ours && !self.files.contains(file));
        let files = files.filter(|file| Some(*file) != file_in_flight).collect();
        let write_ahead = self.find_write_ahead().await?;
        self.garbage = Garbage { objects, files, write_ahead, unknown: false };
        Ok(())
    }

    /// Write-ahead objects that no epoch needs: what was uploaded, and what was put beyond a fence. Fences stay for ever. Of this
    /// epoch only what was uploaded may go; of those before, all that the index does not name. What is not known to be no fence
    /// is read first; the only object of an epoch is its fence, or may stay as well.
    async fn find_write_ahead(&mut self) -> Result<Vec<WalId>, StoreError> {
        let (shared, mut by_epoch) = (self.shared.clone(), BTreeMap::<u32, Vec<(WalId, u64)>>::new());
        let store = shared.options.store.as_ref();
        for listed in self.seat.keep(&shared, store.list(wal_object::FOLDER)).await? {
            let Some(id) = WalId::parse(&listed.name).filter(|id| id.epoch <= shared.epoch) else { continue };
            by_epoch.entry(id.epoch).or_default().push((id, listed.bytes));
        }
        let mut found = Vec::new();
        for (epoch, objects) in by_epoch {
            let (needed, fence) = match self.index.write_ahead.get(&epoch) {
                Some((from, to)) => (*from..to.unwrap_or(u64::MAX), *to),
                // All that it had was uploaded, or it wrote nothing.
                None if objects.len() == 1 => continue,
                None => (0..0, None),
            };
            for (id, bytes) in objects {
                let is_kept = needed.contains(&id.number) || Some(id.number) == fence;
                let may_be_fence = epoch < shared.epoch && fence.is_none() && bytes <= FENCE_BYTES_MAX;
                if is_kept || (may_be_fence && self.is_fence(store, id).await?) {
                    continue;
                }
                found.push(id);
            }
        }
        Ok(found)
    }

    async fn is_fence(&mut self, store: &dyn Store, id: WalId) -> Result<bool, StoreError> {
        let shared = self.shared.clone();
        match self.seat.keep(&shared, store.get_all(&id.name())).await {
            Err(StoreError::Missing { .. }) => Ok(true), // who wrote it removes it too
            got => Ok(matches!(wal_object::inspect(&got?, shared.log, id), Some(Found::Fence(_)))),
        }
    }

    /// Looks for garbage by listing at the next collection.
    #[cfg(test)]
    pub(crate) fn doubt(&mut self) {
        self.garbage.unknown = true;
    }

    /// Uploads until `stop` says so, or another owns the store; then what is left, as long as that may take. What the store
    /// has not taken by then stays in the write-ahead log. No call is left on its way: it could change the head under who
    /// opens next.
    pub(crate) async fn run(self, mut stop: watch::Receiver<bool>) {
        let (mut stopped, shared) = (stop.clone(), self.shared.clone());
        let too_long = async {
            let _ = stopped.wait_for(|stop| *stop).await;
            tokio::time::sleep(END_MAX).await;
        };
        let work = async {
            if let Some(uploader) = self.work(&mut stop).await {
                uploader.finish().await;
            }
        };
        tokio::select! {
            () = work => {}
            () = too_long => {}
        }
        if shared.fenced().is_some() {
            shared.set_aside();
        }
    }

    /// Gathers and settles one step; `false` where there was nothing to upload.
    async fn step(mut self) -> Option<(Self, Result<bool, StoreError>)> {
        let gathered = tokio::task::spawn_blocking(move || {
            let gathered = self.gather();
            (self, gathered)
        });
        match gathered.await {
            Ok((mut uploader, Ok(true))) => {
                let settled = uploader.settle().await.map(|()| true);
                Some((uploader, settled))
            }
            Ok(done) => Some(done),
            Err(error) => {
                tracing::error!(%error, "uploads ended");
                None
            }
        }
    }

    /// Uploads what is left, and gives up at the first failure; where nothing is left, the head says so.
    async fn finish(mut self) {
        loop {
            match self.step().await {
                Some((uploader, Ok(true))) => self = uploader,
                Some((uploader, Ok(false))) => return uploader.release().await,
                Some((_, Err(error))) => return tracing::warn!(%error, "what is left could not be uploaded"),
                None => return,
            }
        }
    }

    /// Says in the head that all there ever was is in the store, where that is so.
    pub(crate) async fn release(mut self) {
        let shared = self.shared.clone();
        let left_nothing = shared.has_ended.load(Ordering::Acquire) && shared.state.read().depth() == 0;
        if left_nothing
            && shared.fenced().is_none()
            && let Err(error) = self.seat.release(&shared).await
        {
            tracing::warn!(%error, "the object store does not know that this log ended well");
        }
    }

    /// Gives the uploader back where it was stopped, and nothing where there is no more to do for it.
    async fn work(mut self, stop: &mut watch::Receiver<bool>) -> Option<Self> {
        let (interval, shared) = (self.shared.options.upload_interval, self.shared.clone());
        let (mut due, mut seen) = (Instant::now() + interval, shared.counters.fsyncs.load(Ordering::Relaxed));
        loop {
            if shared.fenced().is_some() {
                return None;
            }
            let by_size = tokio::select! {
                () = shared.uploads.notified() => Some(true),
                () = tokio::time::sleep_until(due) => Some(false),
                () = tokio::time::sleep(CONTACT_INTERVAL) => None,
                () = beat(self.seat.due(&shared)) => {
                    self.seat.beat(&shared).await;
                    if shared.fenced().is_some() {
                        return None;
                    }
                    continue;
                }
                stopped = is_stopped(stop) => return stopped.then_some(self),
            };
            let Some(by_size) = by_size else {
                let now = shared.counters.fsyncs.load(Ordering::Relaxed);
                let acknowledges = std::mem::replace(&mut seen, now) != now && !shared.is_diskless();
                if acknowledges && matches!(shared.contact().await, Ok(false)) {
                    return None;
                }
                continue;
            };
            if !by_size {
                due = Instant::now() + interval;
            }
            // An interval uploads all that there was when it ended, and not what comes meanwhile: records that never stop coming would
            // each get an object of their own. Size alone leaves what is too little for one.
            let until = if by_size { 0 } else { shared.state.read().durable };
            let enough = |shared: &Shared| {
                let state = shared.state.read();
                state.covered < until || shared.is_upload_due(&state)
            };
            let mut wait = RETRY_FIRST;
            while enough(&shared) {
                if *stop.borrow() || stop.has_changed().is_err() {
                    return stop.has_changed().is_ok().then_some(self);
                }
                let (uploader, done) = self.step().await?;
                self = uploader;
                match done {
                    Ok(false) => break,
                    Ok(true) => {
                        wait = RETRY_FIRST;
                        *shared.trouble.lock() = None;
                    }
                    Err(error) if error.kind() == ErrorKind::Fenced => return None,
                    Err(error) => {
                        shared.counters.upload_failures.fetch_add(1, Ordering::Relaxed);
                        if shared.trouble.lock().replace(error.to_string()).is_none() {
                            tracing::warn!(%error, "an upload failed and is tried again");
                        }
                        tokio::select! {
                            () = tokio::time::sleep(wait) => {}
                            stopped = is_stopped(stop) => return stopped.then_some(self),
                        }
                        wait = (wait * 2).min(RETRY_LAST);
                    }
                }
            }
            match self.tidy(due, stop).await {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Fenced => return None,
                Err(error) => {
                    tracing::warn!(%error, "objects could not be put together or compacted; it is tried again")
                }
            }
            let collected = tokio::select! {
                collected = self.collect() => collected,
                stopped = is_stopped(stop) => return stopped.then_some(self),
            };
            if let Err(error) = collected {
                tracing::warn!(%error, "objects that nothing needs could not be removed and are tried again");
            }
        }
    }
}

/// Waits until a beat is due.
async fn beat(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Waits for the word to stop; `false` where nobody is left to say it.
async fn is_stopped(stop: &mut watch::Receiver<bool>) -> bool {
    stop.wait_for(|stop| *stop).await.is_ok()
}

/// Creates an object of ours; one that is there already is ours too, because nobody else writes names of this epoch.
async fn put(store: &dyn Store, name: &str, bytes: Bytes) -> Result<(), StoreError> {
    match store.put(name, bytes).await {
        Err(StoreError::Exists { .. }) => Ok(()),
        other => other,
    }
}
