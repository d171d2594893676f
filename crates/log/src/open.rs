//! Opening a log, and what its parts share. Called by `log`, and by the simulation, which drives the parts itself.
//!
//! The order: hold the folder; read head and index; read the write-ahead log onto it; take the next epoch in the head. From
//! then on this opener owns the store, and whoever owned it before is refused at its next commit. Where the store was the
//! write-ahead log the head is taken first, then the epochs before are closed (`closing`), and only then their log is read: what
//! they acknowledge until then is in it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_clock::{Clock, Entropy, Moment, Settled};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, Semaphore, mpsc};
use uuid::Uuid;

use crate::{
    AppendError, Beginning, ErrorKind, Keys, LogOptions, OpenError, Room, StoreError, StreamId, WriteAhead,
    closing::{self, Closed},
    fetch::Fetcher,
    frame::Shape,
    index::{self, Change, HeadRecord, Index, Loaded, Note},
    lander::{FLIGHTS_MAX, Lander},
    ledger::Ledger,
    read::FILE_READS_MAX,
    recover::recover,
    spares::Spares,
    state::State,
    store::counted::{Counted, Requests},
    succession::{Recovery, Standing, set_aside, skip, standing, write_owner},
    upload::Uploader,
    wal::{HEAD_BYTES, SEALED_HEAD_BYTES, Segment},
    wal_object::WalId,
    writer::{Ground, Writer},
};

/// How often a call of the store is sent again while the log opens; afterwards it is tried for ever.
const OPEN_TRIES_MAX: usize = 10;
/// After so long without a word from the store, who appends asks first whether it is still ours.
const UNSEEN_MAX: Duration = Duration::from_secs(2);
/// How long that may take.
const ASK_LIMIT: Duration = Duration::from_secs(1);
/// So many write-ahead objects are uploaded though they are small.
const WRITE_AHEAD_OBJECTS_MAX: usize = 256;
/// The least bytes of a write-ahead file.
const SEGMENT_BYTES_MIN: u64 = (1 << 16) + HEAD_BYTES as u64;

/// Counters that all parts share.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) fsyncs: AtomicU64,
    pub(crate) appends: AtomicU64,
    pub(crate) appended_bytes: AtomicU64,
    pub(crate) queued: AtomicU64,
    pub(crate) queued_bytes: AtomicU64,
    pub(crate) uploads: AtomicU64,
    pub(crate) merges: AtomicU64,
    pub(crate) merged_bytes: AtomicU64,
    pub(crate) compactions: AtomicU64,
    pub(crate) compacted_bytes: AtomicU64,
    pub(crate) compaction_freed_bytes: AtomicU64,
    pub(crate) uploaded_bytes: AtomicU64,
    pub(crate) index_bytes: AtomicU64,
    pub(crate) upload_failures: AtomicU64,
    pub(crate) objects_removed: AtomicU64,
    pub(crate) appends_refused: AtomicU64,
    pub(crate) read_failures: AtomicU64,
}

impl Counters {
    /// An append call left the queue, done or refused.
    pub(crate) fn left_queue(&self, bytes: usize) {
        self.queued.fetch_sub(1, Ordering::Relaxed);
        self.queued_bytes.fetch_sub(bytes as u64, Ordering::Relaxed);
    }
}

/// What writer, uploader and readers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: LogOptions,
    /// The write-ahead log's folder.
    pub(crate) folder: PathBuf,
    pub(crate) log: Uuid,
    pub(crate) epoch: u32,
    pub(crate) beginning: Beginning,
    /// What a recovery has done.
    pub(crate) recovery: Option<Recovery>,
    pub(crate) state: RwLock<State>,
    pub(crate) counters: Counters,
    /// What was asked of the store.
    pub(crate) requests: Arc<Requests>,
    pub(crate) fetcher: Fetcher,
    /// Turns of who reads files of the write-ahead log.
    pub(crate) file_reads: Semaphore,
    pub(crate) clock: Clock,
    /// The hour, for what forgets by age.
    pub(crate) settled: Settled,
    /// Reads and rebuilds batches, once their writer said how: until then nothing is compacted.
    pub(crate) keys: OnceLock<Arc<dyn Keys>>,
    /// Woken when enough waits for upload.
    pub(crate) uploads: Notify,
    /// Write-ahead files to be used again.
    pub(crate) spares: Spares,
    /// Why the write-ahead log failed, once it did.
    pub(crate) failure: Mutex<Option<String>>,
    /// Why the last upload failed, while it does.
    pub(crate) trouble: Mutex<Option<String>>,
    /// The moment at which the store was last seen to be ours, in microseconds; 0 for never.
    pub(crate) seen_ours_us: AtomicU64,
    /// Held by who asks the store whether it is.
    pub(crate) asking: tokio::sync::Mutex<()>,
    /// The epoch of who took over; 0 while nobody did.
    fenced_by: AtomicU32,
    /// The writer has ended: nothing more will be acknowledged.
    pub(crate) has_ended: AtomicBool,
    /// Held by every part: the folder is free when all of them have ended.
    _lock: FolderLock,
}

struct FolderLock(#[allow(dead_code)] Box<dyn std::any::Any + Send + Sync>);

impl std::fmt::Debug for FolderLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FolderLock")
    }
}

impl Shared {
    /// Depth of the write-ahead log that starts an upload.
    pub(crate) fn upload_at(&self) -> u64 {
        self.options.upload_bytes.min(self.options.wal_bytes_max / 2).max(1)
    }

    /// Whether enough waits for upload: in bytes, or in write-ahead objects, each of which costs whoever takes over a request.
    pub(crate) fn is_upload_due(&self, state: &State) -> bool {
        let many = self.is_diskless() && state.segments.len() >= WRITE_AHEAD_OBJECTS_MAX;
        many || state.depth() >= self.upload_at()
    }

    /// Whether more may be appended.
    pub(crate) fn room(&self, room: Room) -> Result<(), AppendError> {
        if let Some(fenced) = self.fenced() {
            return Err(fenced);
        }
        let most = room.of(self.options.wal_bytes_max);
        if self.state.read().depth() <= most {
            return Ok(());
        }
        self.uploads.notify_one();
        let reason =
            format!("more than {most} bytes wait for the object store (wal_bytes_max): {}", self.why_waiting());
        Err(AppendError::Full { reason })
    }

    /// Why bytes wait for the store.
    pub(crate) fn why_waiting(&self) -> String {
        self.trouble.lock().clone().unwrap_or_else(|| "uploads are slower than appends".to_owned())
    }

    /// The error of an append once another owns the store.
    pub(crate) fn fenced(&self) -> Option<AppendError> {
        match self.fenced_by.load(Ordering::Acquire) {
            0 => None,
            epoch => Some(AppendError::Fenced { epoch }),
        }
    }

    /// Notes that the store is ours at this moment.
    pub(crate) fn is_ours_now(&self) {
        self.seen_ours_us.store(self.clock.moment().as_micros(), Ordering::Relaxed);
    }

    /// Whether nobody has looked for a while whether the store is ours.
    fn is_long_unseen(&self) -> bool {
        self.unseen_for() > UNSEEN_MAX
    }

    /// For how long nobody has. Moments go on while the machine sleeps, which is when others take over, and nobody sets them.
    pub(crate) fn unseen_for(&self) -> Duration {
        self.clock.moment().since(Moment::from_micros(self.seen_ours_us.load(Ordering::Relaxed)))
    }

    /// Asks the store whether it is still ours, and stops the log where it is not.
    pub(crate) async fn contact(&self) -> Result<bool, StoreError> {
        let head = self.options.store.head().await?.and_then(|head| HeadRecord::decode(&head.bytes));
        // One of our own epoch may be ahead of what we know: its answer was lost.
        match head.map(|head| head.epoch).filter(|epoch| *epoch > self.epoch) {
            Some(epoch) => {
                self.fence(epoch);
                Ok(false)
            }
            None => {
                self.is_ours_now();
                Ok(true)
            }
        }
    }

    /// Before the first acknowledgement after a pause: asks, for a moment. A store that does not answer holds up nobody: the
    /// uploader asks again, and an acknowledgement rests on the local disk. Where it rests on the store, the store is asked anyway.
    pub(crate) async fn contact_after_pause(&self) {
        if self.is_diskless() || !self.is_long_unseen() || self.trouble.lock().is_some() {
            return;
        }
        let _one_at_a_time = self.asking.lock().await;
        if self.is_long_unseen() && !matches!(tokio::time::timeout(ASK_LIMIT, self.contact()).await, Ok(Ok(_))) {
            self.is_ours_now(); // as far as anybody can tell, until it is asked again
        }
    }

    /// Whether the store is the write-ahead log.
    pub(crate) fn is_diskless(&self) -> bool {
        self.options.wal == WriteAhead::Object
    }

    /// Waits between attempts. In the simulation there is no time to wait for: others come first, once.
    pub(crate) async fn pause(&self, wait: Duration) {
        if tokio::runtime::Handle::try_current().is_ok() {
            return tokio::time::sleep(wait).await;
        }
        let mut has_waited = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut has_waited, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
    }

    /// Stops the log: another owns the store.
    pub(crate) fn fence(&self, epoch: u32) {
        tracing::error!(epoch, "another broker has taken over the object store; nothing is accepted any more");
        self.fenced_by.store(epoch.max(1), Ordering::Release);
        self.uploads.notify_one();
    }

    /// Sets the write-ahead log aside, where it holds what the store does not have: whoever took the store goes on without it. Files
    /// that are open stay so.
    pub(crate) fn set_aside(&self) {
        let (depth, at) = {
            let state = self.state.read();
            // What lies in the store is read by whoever took it.
            let files = state.segments.values().filter(|segment| segment.object.is_none());
            let depth: u64 = files.map(|file| file.end().saturating_sub(file.base.max(state.covered))).sum();
            (depth.min(state.depth()), state.covered)
        };
        if depth == 0 {
            return;
        }
        match set_aside(self.options.disk.as_ref(), &self.folder, self.epoch, at) {
            Ok(path) => tracing::error!(
                "{depth} bytes were never uploaded, and the new owner went on without them: they were set aside in {}, and \
                 `cairn broker salvage` reads them",
                path.display()
            ),
            Err(error) => {
                tracing::error!(%error, "the write-ahead log could not be set aside; the next start does that")
            }
        }
    }
}

/// An opened log, nothing of it running yet.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) shared: Arc<Shared>,
    pub(crate) writer: Writer,
    pub(crate) uploader: Uploader,
    /// Where the store is the write-ahead log.
    pub(crate) lander: Option<Lander>,
}

/// Opens the log.
pub(crate) async fn open(mut options: LogOptions, clock: Clock, entropy: Entropy) -> Result<Opened, OpenError> {
    check(&options)?;
    let requests = Arc::new(Requests::default());
    options.store = Arc::new(Counted::new(options.store, requests.clone()));
    let folder = options.folder.join("wal");
    let failed = |source| OpenError::Disk { path: folder.clone(), source };
    let disk = options.disk.clone();
    disk.create_folder(&folder).map_err(failed)?;
    let lock = disk.lock(&options.folder).map_err(failed)?;
    let store = options.store.clone();
    persistently(async || store.prepare().await).await?;
    let (loaded, standing, closed) = read_store(&options, &folder, &entropy).await?;
    let is_taken = !closed.changes.is_empty();
    let mut id = [0; 16];
    entropy.fill(&mut id);
    let known = loaded.as_ref().map(|loaded| &loaded.index);
    let mut found = recover(disk.as_ref(), &folder, &options.at_rest, known, Uuid::from_bytes(id), closed.segments)?;
    let (mut changes, mut notes, mut recovery, mut before) = (closed.changes, Vec::new(), None, 0);
    let beginning = match standing {
        None if found.state.segments.is_empty() => Beginning::New,
        None => Beginning::Whole,
        Some(Standing::Whole { before: word }) => {
            before = word;
            Beginning::Whole
        }
        Some(Standing::Ended { epoch }) => Beginning::StoreAlone { epoch },
        Some(Standing::Lost { epoch }) => {
            let index = known.expect("somebody had the store");
            let (done, skipped) = skip(index, epoch, options.offsets_reserved, &mut found);
            notes.extend(skipped);
            recovery = Some(done);
            Beginning::Recovered { epoch }
        }
    };
    let (version, files, index) = match loaded {
        Some(loaded) => (Some(loaded.version), loaded.head.files, loaded.index),
        None => (None, Vec::new(), Index { log: found.log, ..Index::default() }),
    };
    let epoch = if is_taken { index.epoch } else { found.epoch.max(index.epoch) + 1 };
    let by = entropy.next_u64().max(1);
    notes.push(Change::Note(Note::Taken { by, reserved: options.offsets_reserved }));
    write_owner(disk.as_ref(), &options.folder, found.log, before, by).map_err(failed)?;
    let at = found.state.durable;
    let segment = found.state.segments.values().next_back().filter(|segment| segment.end() > at).cloned();
    let fetcher = Fetcher::new(store, options.cache_bytes_max, options.small_object_bytes, options.readers.clone());
    let shared = Arc::new(Shared {
        options,
        folder,
        log: found.log,
        epoch,
        beginning,
        recovery,
        state: RwLock::new(found.state),
        counters: Counters::default(),
        requests,
        fetcher,
        settled: Settled::new(clock.clone()),
        file_reads: Semaphore::new(FILE_READS_MAX),
        clock,
        keys: OnceLock::new(),
        uploads: Notify::new(),
        spares: Spares::new(found.spares),
        failure: Mutex::default(),
        trouble: Mutex::default(),
        seen_ours_us: AtomicU64::new(0),
        asking: tokio::sync::Mutex::default(),
        fenced_by: AtomicU32::new(0),
        has_ended: AtomicBool::new(false),
        _lock: FolderLock(lock),
    });
    let (mut writer, lander) = begin(&shared, segment, at, entropy.clone(), found.ledgers)?;
    changes.push(Change::Epoch { epoch, at });
    if shared.is_diskless() {
        notes.push(Change::WriteAhead { epoch, from: 0, to: None });
    }
    let mut uploader = Uploader::new(shared.clone(), entropy, version, files, index);
    claim(&mut uploader, changes, notes, uploads_first(&shared)).await?;
    if writer.segment.as_ref().is_some_and(|segment| !segment.is_as_new(&shared.options.at_rest)) {
        // From before encryption, or its key, was changed: what comes from now on goes into a file of its own.
        let failed = |source| OpenError::Disk { path: shared.folder.clone(), source };
        writer.persist(writer.next, &mut Vec::new(), true).map_err(failed)?;
    }
    Ok(Opened { shared, writer, uploader, lander })
}

/// Takes the store for this epoch; where something must be uploaded before `notes` may be true, that comes in between.
async fn claim(
    uploader: &mut Uploader,
    mut changes: Vec<Change>,
    mut notes: Vec<Change>,
    uploads_first: bool,
) -> Result<(), OpenError> {
    if !uploads_first {
        changes.append(&mut notes);
    }
    uploader.begin_epoch(changes);
    settle(uploader).await?;
    if uploads_first {
        while uploader.gather()? {
            settle(uploader).await?;
        }
        uploader.go_on(notes);
        settle(uploader).await?;
    }
    Ok(())
}

/// Brings a step of the uploader to its end.
async fn settle(uploader: &mut Uploader) -> Result<(), StoreError> {
    let mut tries = 1;
    loop {
        match uploader.settle().await {
            Err(error) if error.kind() == ErrorKind::Retry && tries < OPEN_TRIES_MAX => tries += 1,
            settled => return settled,
        }
    }
}

/// Whether the store must have all that was found before the index hears who took it and how it goes on. Where the log goes over from
/// files to the store: no object may stand on what one machine alone has. And where offsets are passed over behind records that lie in
/// write-ahead objects: whoever read those back later would go on behind them. Until then a start elsewhere, or after a crash here,
/// finds all as it was.
fn uploads_first(shared: &Shared) -> bool {
    let state = shared.state.read();
    let holds = |objects: bool| state.segments.values().any(|segment| segment.object.is_some() == objects);
    (shared.is_diskless() && holds(false)) || (shared.recovery.is_some() && holds(true))
}

/// Reads head and index; where the store was the write-ahead log, takes the head first and closes what is open. Who has the store may
/// commit between two steps of this: then it is begun anew.
async fn read_store(
    options: &LogOptions,
    wal: &Path,
    entropy: &Entropy,
) -> Result<(Option<Loaded>, Option<Standing>, Closed), OpenError> {
    let store = options.store.as_ref();
    let mut tries = 1;
    loop {
        let loaded = persistently(async || index::load(store).await).await?;
        let owner = loaded.as_ref().map(|found| found.head.epoch);
        if !options.takes.allows(owner) {
            return Err(StoreError::Fenced { epoch: owner.unwrap_or_default() }.into());
        }
        let Some(found) = loaded else { return Ok((None, None, Closed::default())) };
        // Before anything is taken: a start that is refused takes nothing.
        let standing = Some(standing(options, wal, &found)?);
        if found.index.write_ahead.is_empty() {
            return Ok((Some(found), standing, Closed::default()));
        }
        match closing::take(store, entropy, found, options.owner).await {
            Ok(taken) => {
                let closed = closing::close(store, &taken.index, taken.index.epoch).await?;
                return Ok((Some(taken), standing, closed));
            }
            Err(StoreError::Fenced { .. }) if tries < OPEN_TRIES_MAX => tries += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

/// The writer, from `at` on: in `segment`, the file that has room behind what was found, or where the options want it.
fn begin(
    shared: &Arc<Shared>,
    segment: Option<Segment>,
    at: u64,
    entropy: Entropy,
    ledgers: BTreeMap<StreamId, Ledger>,
) -> Result<(Writer, Option<Lander>), OpenError> {
    let failed = |source| OpenError::Disk { path: shared.folder.clone(), source };
    let mut writer = Writer {
        shared: shared.clone(),
        ledgers,
        next: at,
        synced: at,
        segment,
        ground: Ground::Disk,
        entropy,
        full: None,
        ahead: None,
        written: Vec::new(),
    };
    if !shared.is_diskless() {
        // Before the store knows this opener: from then on a store without a write-ahead log beside it means that one is lost.
        if writer.segment.is_none() {
            let segment = shared.next_segment(at).map_err(failed)?;
            shared.state.write().segments.insert(at, segment.clone());
            writer.next = segment.first();
            writer.synced = writer.next;
            writer.segment = Some(segment);
        }
        return Ok((writer, None));
    }
    let mut base = at;
    if let Some(segment) = writer.segment.take() {
        // From when the log was a file: it says that it goes on elsewhere.
        base = segment.end();
        writer.segment = Some(segment);
        writer.leave(at).map_err(failed)?;
        shared.state.write().durable = base;
    }
    let (flights, receiver) = mpsc::channel(FLIGHTS_MAX);
    writer.next = base + HEAD_BYTES as u64;
    writer.synced = base;
    writer.ground = Ground::Store { flights, next: WalId { epoch: shared.epoch, number: 0 }, launched: None };
    Ok((writer, Some(Lander { shared: shared.clone(), flights: receiver })))
}

/// Calls the store a few times: it may answer the next time.
pub(crate) async fn persistently<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut tries = 1;
    loop {
        match call().await {
            Err(error) if error.kind() == ErrorKind::Retry && tries < OPEN_TRIES_MAX => tries += 1,
            other => return other,
        }
    }
}

fn check(options: &LogOptions) -> Result<(), OpenError> {
    let wrong = |option, reason: String| Err(OpenError::Option { option, reason });
    let bytes = options.wal_segment_bytes;
    if !(SEGMENT_BYTES_MIN..1 << 32).contains(&bytes) || !bytes.is_multiple_of(8) {
        let reason = format!("it is {bytes}: set it to a multiple of 8, at least {SEGMENT_BYTES_MIN} and below 4 GiB");
        return wrong("wal_segment_bytes", reason);
    }
    if options.upload_bytes == 0 || options.upload_bytes >= 1 << 32 {
        return wrong("upload_bytes", format!("it is {}: set it to at least 1 and below 4 GiB", options.upload_bytes));
    }
    if options.wal_bytes_max < SEGMENT_BYTES_MIN {
        let reason = format!("it is {}: set it to at least {SEGMENT_BYTES_MIN}", options.wal_bytes_max);
        return wrong("wal_bytes_max", reason);
    }
    for (option, interval) in
        [("upload_interval", options.upload_interval), ("retention_interval", options.retention_interval)]
    {
        if interval.is_zero() {
            return wrong(option, "it is 0: set it to at least 1 ms".to_owned());
        }
    }
    Ok(())
}

/// How the frames of new files lie in them.
pub(crate) fn new_shape(options: &LogOptions) -> Shape {
    if options.at_rest.current().is_some() { Shape::Sealed } else { Shape::Plain }
}

/// The most bytes of one append call.
pub(crate) fn append_bytes_max(options: &LogOptions) -> u64 {
    let shape = new_shape(options);
    let head = if shape == Shape::Sealed { SEALED_HEAD_BYTES } else { HEAD_BYTES };
    options.wal_segment_bytes - (head + 2 * shape.frame_bytes(0)) as u64
}
