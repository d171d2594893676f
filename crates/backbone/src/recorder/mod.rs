//! Writing events: every event of a gateway goes through its one recorder.
//!
//! The gateway drafts what happened and calls [`Recorder::strict`], [`Recorder::relaxed`] or [`Recorder::outcome`]. Each
//! topic-partition has one ordered queue ([`lane`]), so that strict and relaxed events of one workflow keep their order and
//! ride one append together. Guarantees: a strict call resolves when its event is durable; a sealed event is retried with the
//! same bytes until it is recorded or the recorder is closed, so that the chain has neither fork nor duplicate; what could
//! not be queued leaves a gap in the sequence. It must never block in [`Recorder::relaxed`], and never grow past its bounds.

mod hints;
mod lane;
mod open_call;
mod recovery;
mod rejecting;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use cairn_clock::{Clock, Entropy};
use cairn_contract::{Draft, Hlc, SealError, Topic, partition_for, topics};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{AppendError, Backbone, BackboneStats, ReadError, TopicError};
use lane::{Lane, Reply, Unstamped};

pub use open_call::OpenCall;
pub(crate) use open_call::settles;
pub use rejecting::KeepsRejected;

/// How a recorder is set up.
#[derive(Clone, Debug)]
pub struct RecorderOptions {
    /// The gateway's durable id.
    pub gateway_id: String,
    /// Its epoch: higher than at any start before.
    pub epoch: u64,
    /// Where the hints file lies.
    pub folder: PathBuf,
    /// Relaxed events in the queues before more are dropped.
    pub relaxed_events_max: usize,
    /// Their bytes, likewise.
    pub relaxed_bytes_max: usize,
    /// Strict events in the queues before more wait.
    pub strict_events_max: usize,
    /// Outcomes that room may be reserved for at once.
    pub outcomes_max: usize,
    /// How long a relaxed event may wait for company. At most 50 ms.
    pub flush_within: Duration,
    /// After this long without an answer the backbone counts as failing, and strict calls fail fast.
    pub stall_after: Duration,
    /// Events in one append.
    pub batch_events_max: usize,
    /// Time between writes of the hints file.
    pub hints_every: Duration,
}

impl RecorderOptions {
    /// Defaults for a gateway.
    #[must_use]
    pub fn new(gateway_id: impl Into<String>, epoch: u64, folder: impl Into<PathBuf>) -> Self {
        Self {
            gateway_id: gateway_id.into(),
            epoch,
            folder: folder.into(),
            relaxed_events_max: 16_384,
            relaxed_bytes_max: 64 << 20,
            strict_events_max: 4_096,
            outcomes_max: 8_192,
            flush_within: Duration::from_millis(25),
            stall_after: Duration::from_secs(5),
            batch_events_max: 256,
            hints_every: Duration::from_secs(2),
        }
    }
}

/// A draft with the id that its event will have, so that later events can name it as their cause.
#[derive(Clone, PartialEq, Debug)]
pub struct Planned {
    /// `ce_id`.
    pub id: Uuid,
    /// What happened.
    pub draft: Draft,
}

/// Where an event was recorded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recorded {
    /// `ce_id`.
    pub event_id: Uuid,
    /// The topic.
    pub topic: Topic,
    /// The partition.
    pub partition: u32,
    /// The offset; `None` where the event is durable in the spool and not yet in its topic.
    pub offset: Option<u64>,
}

/// Room for one outcome, taken before the intent. Dropped unused, it is free again.
#[derive(Debug)]
pub struct OutcomeRoom(OwnedSemaphorePermit);

/// Events that were accepted and are on their way.
#[derive(Debug)]
pub struct Submitted(Vec<Wait>);

impl Submitted {
    /// Waits until all of them are durable.
    ///
    /// # Errors
    /// As soon as recording stops working; they are retried all the same.
    pub async fn durable(self) -> Result<Vec<Recorded>, RecordError> {
        let mut recorded = Vec::with_capacity(self.0.len());
        for wait in self.0 {
            recorded.push(wait.await.map_err(|_| RecordError::Closed)??);
        }
        Ok(recorded)
    }
}

/// Why an event is not recorded, or not known to be.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordError {
    /// There is no room for it, or for what must follow it.
    #[error("no room to record: {reason}")]
    Full {
        /// What is full, and what to do.
        reason: String,
    },
    /// The backbone does not record at the moment. An event that was accepted before is retried.
    #[error("recording does not work now: {reason}")]
    Unavailable {
        /// What the backbone said.
        reason: String,
    },
    /// The event itself cannot be recorded. One that breaks its contract is kept in the vault, and `mcp.rejected` says so.
    #[error("the event cannot be recorded: {0}")]
    Invalid(Arc<SealError>),
    /// The recorder is closed.
    #[error("the recorder is closed: nothing more is recorded in this process")]
    Closed,
}

/// Why a recorder did not open.
#[derive(Debug, thiserror::Error)]
pub enum RecorderError {
    /// The topics are not as they must be.
    #[error(transparent)]
    Topics(#[from] TopicError),
    /// The own chain could not be read back.
    #[error("the gateway's own events could not be read back: {0}")]
    ReadBack(#[from] ReadError),
    /// Another process writes with this id, or the epoch file was set back.
    #[error(
        "the backbone holds events of gateway {gateway_id} with epoch {found}, and this start has {epoch}: its data folder is an old copy or is used twice"
    )]
    Fenced {
        /// The gateway's id.
        gateway_id: String,
        /// The epoch found.
        found: u64,
        /// This start's epoch.
        epoch: u64,
    },
}

/// What a recorder did and holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RecorderStats {
    /// Events in the queues.
    pub queued: usize,
    /// Bytes of the relaxed ones, about.
    pub relaxed_bytes: usize,
    /// Events recorded.
    pub recorded: u64,
    /// Appends that recorded them.
    pub appends: u64,
    /// Appends that failed.
    pub failed_appends: u64,
    /// Relaxed events dropped for want of room.
    pub dropped: u64,
    /// Events that could not be sealed.
    pub invalid: u64,
    /// Events that broke their contract.
    pub rejected: u64,
    /// Strict events refused because recording did not work or had no room.
    pub refused: u64,
    /// Time that callers waited because as many strict events as may be were in the queues, in microseconds.
    pub throttled_us: u64,
    /// Outcomes that room is reserved for.
    pub outcomes_reserved: usize,
    /// Why recording does not work at the moment.
    pub failing: Option<String>,
    /// The backbone's own.
    pub backbone: BackboneStats,
}

impl RecorderStats {
    /// Both together.
    fn plus(self, other: Self) -> Self {
        let backbone = BackboneStats {
            spool_events: self.backbone.spool_events + other.backbone.spool_events,
            spool_bytes: self.backbone.spool_bytes + other.backbone.spool_bytes,
            spool_bytes_max: self.backbone.spool_bytes_max + other.backbone.spool_bytes_max,
            away: self.backbone.away || other.backbone.away,
        };
        Self {
            queued: self.queued + other.queued,
            relaxed_bytes: self.relaxed_bytes + other.relaxed_bytes,
            recorded: self.recorded + other.recorded,
            appends: self.appends + other.appends,
            failed_appends: self.failed_appends + other.failed_appends,
            dropped: self.dropped + other.dropped,
            invalid: self.invalid + other.invalid,
            rejected: self.rejected + other.rejected,
            refused: self.refused + other.refused,
            throttled_us: self.throttled_us + other.throttled_us,
            outcomes_reserved: self.outcomes_reserved + other.outcomes_reserved,
            failing: self.failing.or(other.failing),
            backbone,
        }
    }
}

/// The one writer of a gateway's events. Cheap to clone.
///
/// Events of a tenant that has topics of its own go there, all others to those that all share: by what the event itself says,
/// so that nobody who records can mistake one for the other.
#[derive(Clone, Debug)]
pub struct Recorder(Arc<Inner>, Arc<BTreeMap<String, Recorder>>);

#[derive(Debug)]
pub(crate) struct Inner {
    options: RecorderOptions,
    source: String,
    backbone: Arc<dyn Backbone>,
    clock: Clock,
    entropy: Entropy,
    hlc: Hlc,
    lanes: HashMap<Topic, Vec<Arc<Lane>>>,
    strict: Arc<Semaphore>,
    outcomes: Arc<Semaphore>,
    relaxed_events: AtomicUsize,
    relaxed_bytes: AtomicUsize,
    failing: Mutex<HashMap<(Topic, u32), AppendError>>,
    counters: Counters,
    /// What keeps events that broke their contract.
    rejected: OnceLock<Arc<dyn KeepsRejected>>,
    closing: AtomicBool,
    closed: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Counters {
    recorded: AtomicU64,
    appends: AtomicU64,
    failed_appends: AtomicU64,
    dropped: AtomicU64,
    invalid: AtomicU64,
    rejected: AtomicU64,
    refused: AtomicU64,
    throttled_us: AtomicU64,
}

/// Resolves when an event is durable, or is known not to be.
type Wait = tokio::sync::oneshot::Receiver<Result<Recorded, RecordError>>;

/// What an outcome, with everything around it, may take in a bounded spool.
const OUTCOME_BYTES: u64 = 16 * 1024;

impl Recorder {
    /// Ensures the topics, reads the own chain back, and returns the calls of earlier epochs that have no outcome.
    ///
    /// # Errors
    /// Topics that are not as they must be, a chain that cannot be read, or one with a higher epoch.
    pub async fn open(
        options: RecorderOptions,
        backbone: Arc<dyn Backbone>,
        clock: Clock,
        entropy: Entropy,
    ) -> Result<(Self, Vec<OpenCall>), RecorderError> {
        backbone.ensure_topics(&topics()).await?;
        let hlc = Hlc::new();
        let (chains, open_calls) = recovery::read_back(&options, backbone.as_ref(), &hlc, &clock).await?;
        let lanes = chains
            .into_iter()
            .map(|(topic, chains)| (topic, chains.into_iter().map(|chain| Arc::new(Lane::new(chain))).collect()))
            .collect();
        let inner = Arc::new(Inner {
            source: format!("cairn://gateway/{}", options.gateway_id),
            strict: Arc::new(Semaphore::new(options.strict_events_max)),
            outcomes: Arc::new(Semaphore::new(options.outcomes_max)),
            options,
            backbone,
            clock,
            entropy,
            hlc,
            lanes,
            relaxed_events: AtomicUsize::new(0),
            relaxed_bytes: AtomicUsize::new(0),
            failing: Mutex::default(),
            counters: Counters::default(),
            rejected: OnceLock::new(),
            closing: AtomicBool::new(false),
            closed: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        for lane in inner.lanes.values().flatten() {
            inner.tasks.spawn(lane.clone().run(inner.clone()));
        }
        inner.tasks.spawn(hints::keep(inner.clone()));
        inner.tasks.close();
        Ok((Self(inner, Arc::default()), open_calls))
    }

    /// The same, with a recorder for each tenant that has topics of its own.
    #[must_use]
    pub fn with_tenants(self, tenants: BTreeMap<String, Self>) -> Self {
        Self(self.0, Arc::new(tenants))
    }

    /// The one that writes the events of a tenant.
    fn of(&self, tenant: Option<&str>) -> &Arc<Inner> {
        tenant.and_then(|tenant| self.1.get(tenant)).map_or(&self.0, |own| &own.0)
    }

    fn of_event(&self, planned: &Planned) -> &Arc<Inner> {
        self.of(planned.draft.common.tenant.as_deref())
    }

    /// All of them, the common one first.
    fn all(&self) -> impl Iterator<Item = &Arc<Inner>> {
        std::iter::once(&self.0).chain(self.1.values().map(|own| &own.0))
    }

    /// Gives a draft an id.
    #[must_use]
    pub fn plan(&self, draft: Draft) -> Planned {
        Planned { id: self.0.entropy.uuid_v7(self.0.clock.now()), draft }
    }

    /// Records one event and returns when it is durable.
    ///
    /// # Errors
    /// See [`Recorder::strict_all`].
    pub async fn strict(&self, planned: Planned) -> Result<Recorded, RecordError> {
        let mut recorded = self.strict_all(vec![planned]).await?;
        Ok(recorded.pop().expect("one event was recorded"))
    }

    /// Records events in order and returns when all are durable. Those of one partition ride one append where they fit.
    ///
    /// # Errors
    /// At once where recording does not work or has no room; else as soon as it stops working. In that second case the
    /// events stay accepted and are retried: an intent may then be durable although its caller must not forward.
    pub async fn strict_all(&self, planned: Vec<Planned>) -> Result<Vec<Recorded>, RecordError> {
        self.submit(planned).await?.durable().await
    }

    /// Accepts events in order, all of them or none. Whoever submits what begins a call must see to its outcome, whatever
    /// [`Submitted::durable`] says: they are retried until they are recorded.
    ///
    /// # Errors
    /// Where recording does not work or has no room: none of them will be recorded.
    ///
    /// They are of one tenant: events of two are an error, and none of them is accepted.
    pub async fn submit(&self, planned: Vec<Planned>) -> Result<Submitted, RecordError> {
        let Some(first) = planned.first() else { return Ok(Submitted(Vec::new())) };
        let inner = self.of_event(first);
        if planned.iter().any(|other| !Arc::ptr_eq(self.of_event(other), inner)) {
            return Err(RecordError::Full { reason: "events of two tenants cannot be recorded in one go".to_owned() });
        }
        inner.may_record(planned.len()).inspect_err(|_| {
            inner.counters.refused.fetch_add(planned.len() as u64, Ordering::Relaxed);
        })?;
        let wanted = u32::try_from(planned.len()).unwrap_or(u32::MAX);
        if planned.len() > inner.options.strict_events_max {
            return Err(RecordError::Full {
                reason: format!("{wanted} events at once are too many: record fewer at a time"),
            });
        }
        // All permits in one go: callers that each hold some and wait for more would wait for each other.
        let mut permits = inner.admit(wanted).await?;
        let permitted = planned
            .into_iter()
            .map(|planned| (planned, permits.split(1).expect("as many permits were acquired as there are events")));
        Ok(Submitted(inner.enqueue_waiting(permitted.collect())?))
    }

    /// Queues an event that may lag behind, and returns its id. Never blocks; without room the event is dropped, counted,
    /// and its place in the sequence stays empty.
    pub fn relaxed(&self, planned: Planned) -> Uuid {
        let id = planned.id;
        self.of_event(&planned).enqueue_relaxed(planned);
        id
    }

    /// Takes room for one outcome of a tenant's. An intent must not be recorded without.
    ///
    /// # Errors
    /// [`RecordError::Full`] at the bound, and whatever stops recording at the moment.
    // A caller waits for nothing today; the signature leaves room for a backbone that must be asked.
    #[allow(clippy::unused_async)]
    pub async fn reserve(&self, tenant: Option<&str>) -> Result<OutcomeRoom, RecordError> {
        let inner = self.of(tenant);
        let refused = |error| {
            inner.counters.refused.fetch_add(1, Ordering::Relaxed);
            error
        };
        inner.may_record(1).map_err(refused)?;
        inner.outcomes.clone().try_acquire_owned().map(OutcomeRoom).map_err(|_| {
            let max = inner.options.outcomes_max;
            refused(RecordError::Full {
                reason: format!("{max} calls wait for their outcome: wait until some have ended"),
            })
        })
    }

    /// Records the outcome of a call that has room for it. It is accepted even while recording does not work, and then
    /// retried until it is recorded or the recorder is closed.
    ///
    /// # Errors
    /// Where the outcome is not durable yet: the client must be told `executed, not recorded`.
    pub async fn outcome(&self, room: OutcomeRoom, planned: Planned) -> Result<Recorded, RecordError> {
        let inner = self.of_event(&planned);
        let failing = inner.failing_now();
        let wait = inner.enqueue_waiting(vec![(planned, room.0)])?.pop().expect("one event, one answer");
        if let Some(error) = failing {
            return Err(error);
        }
        wait.await.map_err(|_| RecordError::Closed)?
    }

    /// What the recorder did and holds, for all tenants together.
    #[must_use]
    pub fn stats(&self) -> RecorderStats {
        self.all().map(|inner| inner.stats()).fold(RecorderStats::default(), RecorderStats::plus)
    }

    /// Records what is queued, as long as `within` allows, and ends. Returns how many events were left unrecorded.
    pub async fn close(&self, within: Duration) -> usize {
        let left = futures::future::join_all(self.all().map(|inner| inner.close(within))).await;
        left.into_iter().sum()
    }
}

impl Inner {
    fn stats(&self) -> RecorderStats {
        let inner = self;
        let counters = &inner.counters;
        RecorderStats {
            queued: inner.lanes.values().flatten().map(|lane| lane.depth()).sum(),
            relaxed_bytes: inner.relaxed_bytes.load(Ordering::Relaxed),
            recorded: counters.recorded.load(Ordering::Relaxed),
            appends: counters.appends.load(Ordering::Relaxed),
            failed_appends: counters.failed_appends.load(Ordering::Relaxed),
            dropped: counters.dropped.load(Ordering::Relaxed),
            invalid: counters.invalid.load(Ordering::Relaxed),
            rejected: counters.rejected.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            throttled_us: counters.throttled_us.load(Ordering::Relaxed),
            outcomes_reserved: inner.outcomes_taken(),
            failing: inner.failing.lock().values().next().map(ToString::to_string),
            backbone: inner.backbone.stats(),
        }
    }

    async fn close(self: &Arc<Self>, within: Duration) -> usize {
        let inner = self;
        inner.closing.store(true, Ordering::SeqCst);
        for lane in inner.lanes.values().flatten() {
            lane.wake();
        }
        let drained = tokio::time::timeout(within, async {
            while inner.lanes.values().flatten().any(|lane| lane.depth() > 0) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        let _ = drained.await;
        let left = inner.lanes.values().flatten().map(|lane| lane.depth()).sum();
        inner.closed.cancel();
        // A lane that waits in a stalled append is not waited for: its events are in `left`.
        let _ = tokio::time::timeout(Duration::from_secs(1), inner.tasks.wait()).await;
        hints::write(inner);
        left
    }

    /// Whether `events` strict events may be taken: recording works, and outcomes keep their room.
    fn may_record(&self, events: usize) -> Result<(), RecordError> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(RecordError::Closed);
        }
        if let Some(error) = self.failing_now() {
            return Err(error);
        }
        if self.has_headroom(events) {
            return Ok(());
        }
        Err(RecordError::Full { reason: self.backbone.why_no_headroom() })
    }

    /// Places for strict events; waiting for them is back-pressure, and is counted.
    async fn admit(&self, events: u32) -> Result<OwnedSemaphorePermit, RecordError> {
        if let Ok(permits) = self.strict.clone().try_acquire_many_owned(events) {
            return Ok(permits);
        }
        let began = Instant::now();
        let permits = self.strict.clone().acquire_many_owned(events).await.map_err(|_| RecordError::Closed);
        let waited_us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counters.throttled_us.fetch_add(waited_us, Ordering::Relaxed);
        permits
    }

    fn has_headroom(&self, events: usize) -> bool {
        let Some(headroom) = self.backbone.headroom() else { return true };
        headroom >= (self.outcomes_taken() + events) as u64 * OUTCOME_BYTES
    }

    fn outcomes_taken(&self) -> usize {
        self.options.outcomes_max - self.outcomes.available_permits()
    }

    fn failing_now(&self) -> Option<RecordError> {
        self.failing.lock().values().next().map(record_error)
    }

    fn lane_of(&self, draft: &Draft) -> &Arc<Lane> {
        let lanes = &self.lanes[&draft.body.event_type().topic()];
        &lanes[partition_for(draft.key.as_bytes(), lanes.len() as u32) as usize]
    }

    /// Queues events that somebody waits for. Neighbours of one lane enter it together: a decision and its intent must
    /// not be torn into two appends, which would be two syncs.
    fn enqueue_waiting(&self, planned: Vec<(Planned, OwnedSemaphorePermit)>) -> Result<Vec<Wait>, RecordError> {
        if self.closed.is_cancelled() {
            return Err(RecordError::Closed);
        }
        let mut waits = Vec::with_capacity(planned.len());
        let mut together: Option<(Arc<Lane>, Vec<Unstamped>)> = None;
        for (planned, permit) in planned {
            let (reply, wait) = tokio::sync::oneshot::channel();
            waits.push(wait);
            let lane = self.lane_of(&planned.draft);
            let item = Unstamped::new(planned, |_| Reply::Waiting { reply: Some(reply), _permit: permit });
            let Some(item) = self.unless_rejected(item) else { continue };
            match &mut together {
                Some((same, items)) if Arc::ptr_eq(same, lane) => items.push(item),
                _ => {
                    let before = together.replace((lane.clone(), vec![item]));
                    self.push(before);
                }
            }
        }
        self.push(together);
        Ok(waits)
    }

    fn push(&self, together: Option<(Arc<Lane>, Vec<Unstamped>)>) {
        if let Some((lane, items)) = together {
            lane.push(self.options.batch_events_max, items, &self.hlc, &self.clock);
        }
    }

    fn enqueue_relaxed(&self, planned: Planned) {
        let lane = self.lane_of(&planned.draft).clone();
        let item = Unstamped::new(planned, |bytes| Reply::Relaxed { bytes });
        let Some(item) = self.unless_rejected(item) else { return };
        let bytes = item.bytes();
        let events = self.relaxed_events.fetch_add(1, Ordering::Relaxed);
        let held = self.relaxed_bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = events < self.options.relaxed_events_max && held + bytes <= self.options.relaxed_bytes_max;
        if room && self.has_headroom(1) && !self.closed.is_cancelled() {
            self.push(Some((lane, vec![item])));
            return;
        }
        self.release(bytes);
        let dropped = self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        if dropped.is_power_of_two() || dropped == 0 {
            tracing::warn!(
                dropped = dropped + 1,
                "a relaxed event was dropped for want of room; the trail shows the gap"
            );
        }
        lane.push_gap();
    }

    fn release(&self, bytes: usize) {
        self.relaxed_events.fetch_sub(1, Ordering::Relaxed);
        self.relaxed_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

fn record_error(error: &AppendError) -> RecordError {
    match error {
        AppendError::Full { reason } => RecordError::Full { reason: reason.clone() },
        AppendError::Closed => RecordError::Closed,
        AppendError::Retry { reason } | AppendError::Failed { reason } => {
            RecordError::Unavailable { reason: reason.clone() }
        }
    }
}
