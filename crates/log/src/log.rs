//! The handle: what the broker calls. Admits appends into the writer's bounded queue, reads what is durable, and keeps
//! writer, uploader and retention running until it is closed or dropped.

use std::{
    fmt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use cairn_clock::{Clock, Entropy};
use parking_lot::Mutex;
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::{
    Append, AppendError, Beginning, Bounds, Compaction, Isolation, Keys, LeaderEpoch, LogOptions, LogStats, Offset,
    OpenError, Ownership, ProducerView, Read, ReadError, Readers, Recovery, Retention, Room, StreamId, Tiers,
    frame::Entry,
    open::{self, Opened, Shared, append_bytes_max, new_shape},
    ownership,
    writer::{Call, Results, frame_size},
};

/// How long opening waits for a predecessor in this process that was dropped and has not ended.
const LOCK_TRIES_MAX: usize = 50;
const LOCK_RETRY: Duration = Duration::from_millis(20);
/// How long closing waits for appends that are on their way to the store.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// The log. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    calls: mpsc::SyncSender<Call>,
    stop: watch::Sender<bool>,
    uploads: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("folder", &self.0.shared.options.folder).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log in the options' folder: reads the store's index and the write-ahead log back, erases a torn tail, takes
    /// the next epoch. Who had the store before is refused from then on.
    ///
    /// # Errors
    /// [`OpenError`]: damage, another process, a store that does not answer, an option that makes no sense.
    pub async fn open(options: LogOptions, clock: Clock, entropy: Entropy) -> Result<Self, OpenError> {
        let mut tries = 1;
        let opened = loop {
            let (options, clock, entropy) = (options.clone(), clock.clone(), entropy.clone());
            let runtime = tokio::runtime::Handle::current();
            let work = move || runtime.block_on(open::open(options, clock, entropy));
            let opened = tokio::task::spawn_blocking(work).await;
            let opened = opened.map_err(|error| OpenError::Option { option: "folder", reason: error.to_string() })?;
            match opened {
                Err(OpenError::Disk { source, .. })
                    if source.kind() == std::io::ErrorKind::WouldBlock && tries < LOCK_TRIES_MAX =>
                {
                    tries += 1;
                    tokio::time::sleep(LOCK_RETRY).await;
                }
                other => break other?,
            }
        };
        Self::start(opened)
    }

    /// Sets the parts going.
    fn start(opened: Opened) -> Result<Self, OpenError> {
        let Opened { shared, writer, uploader, lander } = opened;
        let (calls, receiver) = mpsc::sync_channel(shared.options.queue_calls_max.max(1));
        let failed = |source| OpenError::Disk { path: shared.options.folder.clone(), source };
        let thread = std::thread::Builder::new().name("cairn-log".to_owned());
        thread.spawn(move || writer.run(&receiver)).map_err(failed)?;
        let (stop, stopped) = watch::channel(false);
        if let Some(lander) = lander {
            tokio::spawn(lander.run(stopped.clone()));
        }
        let uploads = Mutex::new(Some(tokio::spawn(uploader.run(stopped))));
        let log = Self(Arc::new(Inner { shared, calls, stop, uploads }));
        tokio::spawn(retain(Arc::downgrade(&log.0)));
        Ok(log)
    }

    /// Creates a stream; does nothing where it exists.
    ///
    /// # Errors
    /// Where the change cannot be made durable.
    pub async fn create_stream(&self, id: StreamId, retention: Retention) -> Result<(), AppendError> {
        if self.0.shared.state.read().streams.contains_key(&id) {
            return Ok(());
        }
        self.0.shared.room(Room::Own)?;
        self.change(Entry::Create(id, retention)).await
    }

    /// Sets how long and how much a stream keeps.
    ///
    /// # Errors
    /// Where the stream is unknown or the change cannot be made durable.
    pub async fn set_retention(&self, id: StreamId, retention: Retention) -> Result<(), AppendError> {
        self.known(id)?;
        self.change(Entry::SetRetention(id, retention)).await
    }

    /// Says how batches are read and rebuilt: from then on streams can be compacted. What was said first holds.
    pub fn compact_with(&self, keys: Arc<dyn Keys>) {
        let _ = self.0.shared.keys.set(keys);
    }

    /// Sets how a stream is compacted by key, or that it is not. Who opens the log says it again: it is not kept.
    ///
    /// # Errors
    /// Where the stream is unknown.
    pub fn set_compaction(&self, id: StreamId, compaction: Option<Compaction>) -> Result<(), AppendError> {
        let mut state = self.0.shared.state.write();
        let stream = state.streams.get_mut(&id).ok_or(AppendError::UnknownStream { stream: id })?;
        stream.compaction = compaction;
        Ok(())
    }

    /// Deletes a stream.
    ///
    /// # Errors
    /// Where the stream is unknown or the change cannot be made durable.
    pub async fn delete_stream(&self, id: StreamId) -> Result<(), AppendError> {
        self.known(id)?;
        self.change(Entry::Delete(id)).await
    }

    /// Forgets what lies before `offset`.
    ///
    /// # Errors
    /// Where the stream is unknown or the change cannot be made durable.
    pub async fn delete_before(&self, id: StreamId, offset: Offset) -> Result<(), AppendError> {
        self.known(id)?;
        self.change(Entry::DeleteBefore(id, offset)).await
    }

    fn known(&self, stream: StreamId) -> Result<(), AppendError> {
        if self.0.shared.state.read().streams.contains_key(&stream) {
            Ok(())
        } else {
            Err(AppendError::UnknownStream { stream })
        }
    }

    async fn change(&self, entry: Entry) -> Result<(), AppendError> {
        let (reply, answer) = oneshot::channel();
        self.send(Call::Change { entry, reply }, answer).await.map(|_| ())
    }

    /// Appends entries, all of them in one frame; returns when they are durable.
    ///
    /// # Errors
    /// The whole call's, or one entry's.
    pub async fn append(&self, entries: Vec<Append>) -> Results {
        self.append_within(entries, Room::Own).await
    }

    /// Bytes that may still be appended before [`AppendError::Full`].
    #[must_use]
    pub fn headroom(&self) -> u64 {
        let shared = &self.0.shared;
        let queued = shared.counters.queued_bytes.load(Ordering::Relaxed);
        shared.options.wal_bytes_max.saturating_sub(shared.state.read().depth() + queued)
    }

    /// How much of what guests may fill is filled, in thousandths; more than a thousand where they are refused.
    #[must_use]
    pub fn fill_milli(&self) -> u64 {
        let shared = &self.0.shared;
        let queued = shared.counters.queued_bytes.load(Ordering::Relaxed);
        let filled = shared.state.read().depth() + queued;
        filled.saturating_mul(1_000) / Room::Guest.of(shared.options.wal_bytes_max).max(1)
    }

    /// Why there is no more of it, for people.
    #[must_use]
    pub fn why_no_headroom(&self) -> String {
        let most = self.0.shared.options.wal_bytes_max;
        let depth = most.saturating_sub(self.headroom());
        let why = self.0.shared.why_waiting();
        format!("{depth} of {most} bytes wait for the object store (wal_bytes_max): {why}")
    }

    /// As [`append`](Self::append), within the room of who asks.
    ///
    /// # Errors
    /// The whole call's, or one entry's.
    pub async fn append_within(&self, entries: Vec<Append>, room: Room) -> Results {
        self.enqueue(entries, room).await?.durable().await
    }

    /// Puts entries into the writer's queue; returns when they are in it. What is queued later is written later.
    ///
    /// # Errors
    /// The whole call's.
    pub async fn enqueue(&self, entries: Vec<Append>, room: Room) -> Result<Queued, AppendError> {
        let shared = &self.0.shared;
        let bytes = frame_size(&entries, new_shape(&shared.options));
        let most = append_bytes_max(&shared.options);
        if bytes as u64 > most {
            return Err(AppendError::TooLarge { bytes: bytes as u64, most });
        }
        let counters = &shared.counters;
        let room = if counters.queued_bytes.load(Ordering::Relaxed) > shared.options.queue_bytes_max as u64 {
            Err(AppendError::Full { reason: "too many bytes wait for the disk (queue_bytes_max)".to_owned() })
        } else {
            shared.room(room)
        };
        if let Err(error) = room {
            counters.appends_refused.fetch_add(1, Ordering::Relaxed);
            return Err(error);
        }
        shared.contact_after_pause().await;
        counters.queued.fetch_add(1, Ordering::Relaxed);
        counters.queued_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.queue(Call::Append { entries, bytes, reply }).await?;
        Ok(Queued(answer))
    }

    async fn send(&self, call: Call, answer: oneshot::Receiver<Results>) -> Results {
        self.queue(call).await?;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    async fn queue(&self, call: Call) -> Result<(), AppendError> {
        let mut call = call;
        loop {
            match self.0.calls.try_send(call) {
                Ok(()) => return Ok(()),
                Err(mpsc::TrySendError::Full(back)) => {
                    call = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(AppendError::Closed),
            }
        }
    }

    /// Reads whole batches from the one that holds `from`, at least one where there is any, else up to `max_bytes`.
    ///
    /// # Errors
    /// Where the stream is unknown, the offset out of range, or the disk fails.
    pub async fn read(&self, stream: StreamId, from: Offset, max_bytes: usize) -> Result<Read, ReadError> {
        self.0.shared.read(stream, from, max_bytes, Isolation::Durable).await
    }

    /// As [`read`](Self::read), up to where the isolation allows.
    ///
    /// # Errors
    /// As there.
    pub async fn read_isolated(
        &self,
        stream: StreamId,
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Read, ReadError> {
        self.0.shared.read(stream, from, max_bytes, isolation).await
    }

    /// Whether a read from there on asks the store, and so may take as long as that takes.
    #[must_use]
    pub fn is_in_store(&self, stream: StreamId, from: Offset) -> bool {
        self.0.shared.is_in_store(stream, from)
    }

    /// What is remembered of a stream's producers, by id.
    ///
    /// # Errors
    /// Where the stream is unknown, or the log is closed.
    pub async fn producers(&self, stream: StreamId) -> Result<Vec<ProducerView>, ReadError> {
        let (reply, answer) = oneshot::channel();
        let closed = || ReadError::Failed { reason: AppendError::Closed.to_string() };
        self.queue(Call::Producers { stream, reply }).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// A stream's extent.
    ///
    /// # Errors
    /// Where the stream is unknown.
    pub fn bounds(&self, stream: StreamId) -> Result<Bounds, ReadError> {
        let shared = &self.0.shared;
        let state = shared.state.read();
        let found = state.streams.get(&stream).ok_or(ReadError::UnknownStream { stream })?;
        let (log_start, durable_end) = (found.start, found.durable_end());
        let (stable_end, leader_epoch) = (found.stable_end(), LeaderEpoch::new(shared.epoch));
        Ok(Bounds { log_start, durable_end, stable_end, leader_epoch, bytes: found.bytes() })
    }

    /// How long and how much the stream keeps.
    ///
    /// # Errors
    /// Where the stream is unknown.
    pub fn retention(&self, stream: StreamId) -> Result<Retention, ReadError> {
        let state = self.0.shared.state.read();
        state.streams.get(&stream).map(|found| found.retention).ok_or(ReadError::UnknownStream { stream })
    }

    /// The stream's durable end; changes the moment that something becomes durable.
    ///
    /// # Errors
    /// Where the stream is unknown.
    pub fn watch(&self, stream: StreamId) -> Result<watch::Receiver<Offset>, ReadError> {
        let state = self.0.shared.state.read();
        let found = state.streams.get(&stream).ok_or(ReadError::UnknownStream { stream })?;
        Ok(found.end.subscribe())
    }

    /// Of the batches that hold `from` or a later offset, the first whose newest record is at `timestamp_ms` or later: its base
    /// offset, or `from` (or the log's start) where that is later. Then the newest record may be one that lies before.
    ///
    /// # Errors
    /// Where the stream is unknown, or the store fails.
    pub async fn find_time(
        &self,
        stream: StreamId,
        from: Offset,
        timestamp_ms: i64,
    ) -> Result<Option<Offset>, ReadError> {
        self.0.shared.find_time(stream, from, timestamp_ms).await
    }

    /// The greatest timestamp of these batches, and the first of them that has it, as with [`find_time`](Self::find_time).
    ///
    /// # Errors
    /// Where the stream is unknown, or the store fails.
    pub async fn latest_time(&self, stream: StreamId, from: Offset) -> Result<Option<(i64, Offset)>, ReadError> {
        self.0.shared.latest_time(stream, from).await
    }

    /// Where the stream's local part begins, and where that ends which the store has. They overlap: what was uploaded is
    /// still read from here until its place is needed.
    ///
    /// # Errors
    /// Where the stream is unknown.
    pub fn tiers(&self, stream: StreamId) -> Result<Tiers, ReadError> {
        let state = self.0.shared.state.read();
        let found = state.streams.get(&stream).ok_or(ReadError::UnknownStream { stream })?;
        let local = found.batches.front().map_or_else(|| found.durable_end(), |first| first.base.max(found.start));
        Ok(Tiers { local, stored: found.uploaded.max(found.start) })
    }

    /// When the record at an offset was written, ms, as far as that is known without reading it.
    #[must_use]
    pub fn time_of(&self, stream: StreamId, offset: Offset) -> Option<i64> {
        self.0.shared.time_of(stream, offset)
    }

    /// The epoch of this opener: higher than that of any before it, lost ones included.
    #[must_use]
    pub fn epoch(&self) -> LeaderEpoch {
        LeaderEpoch::new(self.0.shared.epoch)
    }

    /// What was found when it was opened.
    #[must_use]
    pub fn beginning(&self) -> Beginning {
        self.0.shared.beginning
    }

    /// Whether another opener has the store now, so that nothing more is acknowledged here.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.0.shared.fenced().is_some()
    }

    /// Who has the store now, where another opener took it, as the store says.
    pub async fn successor(&self) -> Option<Ownership> {
        let by = self.fenced_by()?;
        let owner = ownership(self.0.shared.options.store.as_ref()).await.ok()??;
        (owner.epoch >= by.get() && !owner.is_closed).then_some(owner)
    }

    /// The folder of what is local.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.0.shared.options.folder
    }

    /// Bytes of the volume that the folder is on, and those of them that can be used; none where the system does not say.
    #[must_use]
    pub fn space(&self) -> Option<(i64, i64)> {
        let about = rustix::fs::statvfs(self.folder()).ok()?;
        let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(about.f_frsize)).unwrap_or(i64::MAX);
        Some((bytes(about.f_blocks), bytes(about.f_bavail)))
    }

    /// The epoch of who took the store, once somebody did: nothing is accepted any more.
    #[must_use]
    pub fn fenced_by(&self) -> Option<LeaderEpoch> {
        match self.0.shared.fenced() {
            Some(AppendError::Fenced { epoch }) => Some(LeaderEpoch::new(epoch)),
            _ => None,
        }
    }

    /// Why the write-ahead log failed, once it did: nothing is accepted any more, and only another start helps.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.0.shared.failure.lock().clone()
    }

    /// For how long the store was not seen to be ours. By a clock that goes on while the machine sleeps.
    #[must_use]
    pub fn unseen_for(&self) -> Duration {
        self.0.shared.unseen_for()
    }

    /// What a recovery has done, where this opening was one.
    #[must_use]
    pub fn recovery(&self) -> Option<&Recovery> {
        self.0.shared.recovery.as_ref()
    }

    /// What lies on this machine alone.
    #[must_use]
    pub fn local_bytes(&self) -> u64 {
        if self.0.shared.is_diskless() { 0 } else { self.0.shared.state.read().depth() }
    }

    /// Where what is done for readers who lag behind is to be done.
    #[must_use]
    pub fn readers(&self) -> &Readers {
        &self.0.shared.options.readers
    }

    /// Counters and depths.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let counters = &self.0.shared.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (state, requests) = (self.0.shared.state.read(), &self.0.shared.requests);
        LogStats {
            store_puts: read(&requests.puts),
            store_gets: read(&requests.gets),
            store_lists: read(&requests.lists),
            store_deletes: read(&requests.deletes),
            fsyncs: read(&counters.fsyncs),
            appends: read(&counters.appends),
            appended_bytes: read(&counters.appended_bytes),
            queue_calls: read(&counters.queued),
            wal_depth_bytes: state.depth(),
            uploads: read(&counters.uploads),
            upload_failures: read(&counters.upload_failures),
            upload_backlog: state.streams.values().map(|stream| stream.waiting().count() as u64).sum(),
            streams: state.streams.len() as u64,
            objects: state.objects,
            object_bytes: state.streams.values().map(|stream| stream.range_bytes()).sum(),
            objects_removed: read(&counters.objects_removed),
            merges: read(&counters.merges),
            merged_bytes: read(&counters.merged_bytes),
            compactions: read(&counters.compactions),
            compacted_bytes: read(&counters.compacted_bytes),
            compaction_freed_bytes: read(&counters.compaction_freed_bytes),
            uploaded_bytes: read(&counters.uploaded_bytes),
            index_bytes: read(&counters.index_bytes),
            object_reads: read(&self.0.shared.fetcher.reads),
            read_failures: read(&counters.read_failures),
            appends_refused: read(&counters.appends_refused),
            wal_limit_bytes: self.0.shared.options.wal_bytes_max,
            store_away: self.0.shared.trouble.lock().is_some(),
            is_fenced: self.0.shared.fenced().is_some(),
        }
    }

    /// Ends the writer after what is queued, and the uploader after what is left, within some seconds; later appends are
    /// refused. What the store has not taken by then stays in the write-ahead log.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        // Where the store is the log and is away, what waits for it was not acknowledged and never will be.
        let limit = if self.0.shared.is_diskless() { CLOSE_MAX } else { Duration::MAX };
        let mut call = Call::Close { reply };
        // What the uploader says at its end rests on this: nothing is acknowledged behind it.
        while let Err(mpsc::TrySendError::Full(back)) = self.0.calls.try_send(call) {
            call = back;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let _ = tokio::time::timeout(limit, answer).await;
        let _ = self.0.stop.send(true);
        let uploads = self.0.uploads.lock().take();
        if let Some(uploads) = uploads {
            let _ = uploads.await;
        }
    }
}

/// Entries in the writer's queue.
#[derive(Debug)]
pub struct Queued(oneshot::Receiver<Results>);

impl Queued {
    /// Waits until they are durable.
    ///
    /// # Errors
    /// The whole call's, or one entry's.
    pub async fn durable(self) -> Results {
        self.0.await.unwrap_or(Err(AppendError::Closed))
    }
}

/// Applies retention until the log is dropped.
async fn retain(inner: std::sync::Weak<Inner>) {
    loop {
        let Some(every) = inner.upgrade().map(|inner| inner.shared.options.retention_interval) else { return };
        tokio::time::sleep(every).await;
        let Some(log) = inner.upgrade().map(Log) else { return };
        for (id, offset) in log.0.shared.expired() {
            if let Err(error) = log.delete_before(id, offset).await {
                tracing::warn!(%error, stream = %id, "retention could not be applied and is tried again");
            }
        }
    }
}

#[cfg(test)]
mod at_rest_tests;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod diskless_tests;
#[cfg(test)]
mod isolation_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod tests;
