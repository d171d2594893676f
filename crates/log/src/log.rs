//! The handle: what the broker calls. Admits appends into the writer's bounded queue, reads what is durable.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use bytes::Bytes;
use cairn_clock::{Clock, Entropy};
use parking_lot::RwLock;
use tokio::sync::{oneshot, watch};
use uuid::Uuid;

use crate::{
    Append, AppendError, Bounds, LeaderEpoch, LogOptions, LogStats, Offset, OpenError, Read, ReadError, Retention,
    StreamId,
    frame::{Entry, HEADER_BYTES},
    recover::recover,
    state::State,
    wal::HEAD_BYTES,
    writer::{Call, Results, Writer, frame_size},
};

/// Counters that the writer and the handle share.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) fsyncs: AtomicU64,
    pub(crate) appends: AtomicU64,
    pub(crate) appended_bytes: AtomicU64,
    pub(crate) queued: AtomicU64,
    pub(crate) queued_bytes: AtomicU64,
}

/// The log. Cheap to clone.
#[derive(Clone)]
pub struct Log(Arc<Inner>);

struct Inner {
    options: LogOptions,
    epoch: LeaderEpoch,
    state: Arc<RwLock<State>>,
    counters: Arc<Counters>,
    calls: mpsc::SyncSender<Call>,
    clock: Clock,
    _lock: Box<dyn std::any::Any + Send + Sync>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("folder", &self.0.options.folder).finish_non_exhaustive()
    }
}

impl Log {
    /// Opens the log in the options' folder: reads the write-ahead log back, erases a torn tail, takes the next epoch.
    ///
    /// # Errors
    /// [`OpenError`]: damage, another process, an option that makes no sense.
    pub async fn open(options: LogOptions, clock: Clock, entropy: Entropy) -> Result<Self, OpenError> {
        let opened = tokio::task::spawn_blocking(move || Self::open_now(options, clock, &entropy)).await;
        let log = opened.map_err(|error| OpenError::Option { option: "folder", reason: error.to_string() })??;
        tokio::spawn(retain(Arc::downgrade(&log.0)));
        Ok(log)
    }

    fn open_now(options: LogOptions, clock: Clock, entropy: &Entropy) -> Result<Self, OpenError> {
        let least = (1 << 16) + HEAD_BYTES as u64;
        if options.wal_segment_bytes < least
            || options.wal_segment_bytes >= 1 << 32
            || options.wal_segment_bytes % 8 != 0
        {
            let reason = format!("a multiple of 8, at least {least} and below 4 GiB");
            return Err(OpenError::Option { option: "wal_segment_bytes", reason });
        }
        let folder = options.folder.join("wal");
        let failed = |source| OpenError::Disk { path: folder.clone(), source };
        let disk = options.disk.clone();
        disk.create_folder(&folder).map_err(failed)?;
        let lock = disk.lock(&options.folder).map_err(failed)?;
        let mut id = [0; 16];
        entropy.fill(&mut id);
        let found = recover(disk.as_ref(), &folder, Uuid::from_bytes(id))?;
        let epoch = found.epoch + 1;
        let next = found.next.unwrap_or(0);
        let segment = found.state.segments.values().next_back().filter(|segment| segment.end() > next).cloned();
        let state = Arc::new(RwLock::new(found.state));
        let counters = Arc::new(Counters::default());
        let (calls, receiver) = mpsc::sync_channel(options.queue_calls_max.max(1));
        let writer = Writer {
            options: options.clone(),
            folder,
            log: found.log,
            epoch,
            ledgers: found.ledgers,
            state: state.clone(),
            counters: counters.clone(),
            next,
            synced: next,
            segment,
        };
        std::thread::Builder::new()
            .name("cairn-log".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(|source| OpenError::Disk { path: options.folder.clone(), source })?;
        Ok(Self(Arc::new(Inner {
            options,
            epoch: LeaderEpoch::new(epoch),
            state,
            counters,
            calls,
            clock,
            _lock: lock,
        })))
    }

    /// Creates a stream; does nothing where it exists.
    ///
    /// # Errors
    /// Where the change cannot be made durable.
    pub async fn create_stream(&self, id: StreamId, retention: Retention) -> Result<(), AppendError> {
        if self.0.state.read().streams.contains_key(&id) {
            return Ok(());
        }
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
        if self.0.state.read().streams.contains_key(&stream) {
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
        let inner = &self.0;
        let bytes = frame_size(&entries);
        let most = inner.options.wal_segment_bytes - (HEAD_BYTES + 2 * HEADER_BYTES) as u64;
        if bytes as u64 > most {
            return Err(AppendError::TooLarge { bytes: bytes as u64, most });
        }
        if inner.counters.queued_bytes.load(Ordering::Relaxed) > inner.options.queue_bytes_max as u64 {
            return Err(AppendError::Full { reason: "too many bytes wait for the disk (queue_bytes_max)".to_owned() });
        }
        if self.depth() > inner.options.wal_bytes_max {
            let reason = format!("it holds more than {} bytes (wal_bytes_max)", inner.options.wal_bytes_max);
            return Err(AppendError::Full { reason });
        }
        inner.counters.queued.fetch_add(1, Ordering::Relaxed);
        inner.counters.queued_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let (reply, answer) = oneshot::channel();
        self.send(Call::Append { entries, bytes, reply }, answer).await
    }

    async fn send(&self, call: Call, answer: oneshot::Receiver<Results>) -> Results {
        let mut call = call;
        loop {
            match self.0.calls.try_send(call) {
                Ok(()) => break,
                Err(mpsc::TrySendError::Full(back)) => {
                    call = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(mpsc::TrySendError::Disconnected(_)) => return Err(AppendError::Closed),
            }
        }
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Reads whole batches from the one that holds `from`, at least one where there is any, else up to `max_bytes`.
    ///
    /// # Errors
    /// Where the stream is unknown, the offset out of range, or the disk fails.
    pub async fn read(&self, stream: StreamId, from: Offset, max_bytes: usize) -> Result<Read, ReadError> {
        let (places, log_start, durable_end) = {
            let state = self.0.state.read();
            let found = state.streams.get(&stream).ok_or(ReadError::UnknownStream { stream })?;
            let (start, end) = (found.start, found.durable_end());
            if from < start || from > end {
                return Err(ReadError::OutOfRange { offset: from, start, end });
            }
            let mut places = Vec::new();
            let mut bytes = 0;
            for batch in found.batches.range(found.find(from)..) {
                bytes += batch.length as usize;
                if !places.is_empty() && bytes > max_bytes {
                    break;
                }
                let segment = state.segment(batch.position).expect("a batch lies in a file of the log").clone();
                places.push((segment, *batch));
            }
            (places, start, end)
        };
        let mut batches = Vec::with_capacity(places.len());
        for (segment, place) in places {
            let mut bytes = vec![0; place.length as usize];
            segment
                .file
                .read_at(place.position - segment.base, &mut bytes)
                .map_err(|error| ReadError::Failed { reason: error.to_string() })?;
            batches.push(Bytes::from(bytes));
        }
        Ok(Read { batches, log_start, durable_end })
    }

    /// A stream's extent.
    ///
    /// # Errors
    /// Where the stream is unknown.
    pub fn bounds(&self, stream: StreamId) -> Result<Bounds, ReadError> {
        let state = self.0.state.read();
        let found = state.streams.get(&stream).ok_or(ReadError::UnknownStream { stream })?;
        let (log_start, durable_end) = (found.start, found.durable_end());
        Ok(Bounds { log_start, durable_end, leader_epoch: self.0.epoch, bytes: found.bytes })
    }

    /// The stream's durable end; changes the moment that something becomes durable.
    ///
    /// # Errors
    /// Where the stream is unknown.
    pub fn watch(&self, stream: StreamId) -> Result<watch::Receiver<Offset>, ReadError> {
        let state = self.0.state.read();
        let found = state.streams.get(&stream).ok_or(ReadError::UnknownStream { stream })?;
        Ok(found.end.subscribe())
    }

    /// Base offset of the first batch whose newest record is at `timestamp_ms` or later.
    ///
    /// # Errors
    /// Where the stream is unknown.
    pub async fn find_time(&self, stream: StreamId, timestamp_ms: i64) -> Result<Option<Offset>, ReadError> {
        let state = self.0.state.read();
        let found = state.streams.get(&stream).ok_or(ReadError::UnknownStream { stream })?;
        let batch = found.batches.iter().find(|batch| batch.max_timestamp >= timestamp_ms);
        Ok(batch.map(|batch| batch.base.max(found.start)))
    }

    fn depth(&self) -> u64 {
        let state = self.0.state.read();
        state.segments.values().map(|segment| segment.bytes).sum()
    }

    /// Counters and depths.
    #[must_use]
    pub fn stats(&self) -> LogStats {
        let counters = &self.0.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LogStats {
            fsyncs: read(&counters.fsyncs),
            appends: read(&counters.appends),
            appended_bytes: read(&counters.appended_bytes),
            queue_calls: read(&counters.queued),
            wal_depth_bytes: self.depth(),
            streams: self.0.state.read().streams.len() as u64,
            ..LogStats::default()
        }
    }

    /// Ends the writer after what is queued; later appends are refused.
    pub async fn close(&self) {
        let (reply, answer) = oneshot::channel();
        if self.0.calls.try_send(Call::Close { reply }).is_ok() {
            let _ = answer.await;
        }
    }

    /// What each stream may forget by now.
    fn expired(&self) -> Vec<(StreamId, Offset)> {
        let now = self.0.clock.now().as_millis();
        let state = self.0.state.read();
        let mut found = Vec::new();
        for (id, stream) in &state.streams {
            let oldest = stream.retention.ms.map(|ms| now.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)));
            let mut excess = stream.retention.bytes.map_or(0, |most| stream.bytes.saturating_sub(most));
            let mut keep_from = stream.start;
            for batch in &stream.batches {
                let old = oldest.is_some_and(|oldest| batch.max_timestamp >= 0 && batch.max_timestamp < oldest);
                if !old && excess < u64::from(batch.length) {
                    break;
                }
                excess = excess.saturating_sub(u64::from(batch.length));
                keep_from = batch.next();
            }
            if keep_from > stream.start {
                found.push((*id, keep_from));
            }
        }
        found
    }
}

/// Applies retention until the log is dropped.
async fn retain(inner: std::sync::Weak<Inner>) {
    loop {
        let Some(every) = inner.upgrade().map(|inner| inner.options.retention_interval) else { return };
        tokio::time::sleep(every).await;
        let Some(log) = inner.upgrade().map(Log) else { return };
        for (id, offset) in log.expired() {
            if let Err(error) = log.delete_before(id, offset).await {
                tracing::warn!(%error, stream = %id, "retention could not be applied and is tried again");
            }
        }
    }
}

#[cfg(test)]
mod tests;
