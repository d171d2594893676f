//! One topic-partition's ordered queue, and the one task that seals and appends what is in it.
//!
//! The recorder pushes; [`Lane::run`] takes whatever has gathered, seals it in order into the producer's chain and appends
//! it in one go. A sealed batch is final: after an error the lane reads back what became of it and appends the rest, with
//! the same bytes, before anything else. It must never seal out of order and never hold its lock over an await.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use cairn_clock::{Clock, Timestamp};
use cairn_contract::{EventRecord, Hlc, Producer, SealError, Stamp, Topic, Written, link};
use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Inner, Planned, RecordError, Recorded, hints::Places, record_error};
use crate::{AppendError, Appended, ReadError};

/// Bytes of one append, about: below the `max.message.bytes` of every Kafka's default.
const APPEND_BYTES_MAX: usize = 900 * 1024;
const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
const READ_BACK_BYTES: usize = 1 << 20;

/// Where a chain goes on.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    pub(super) topic: Topic,
    pub(super) partition: u32,
    /// The link of the last own event, in hexadecimal.
    pub(super) previous: Option<String>,
    /// No later event lies before this offset.
    pub(super) floor: u64,
    pub(super) places: Places,
}

#[derive(Debug)]
pub(super) struct Lane {
    topic: Topic,
    partition: u32,
    queue: Mutex<Queue>,
    work: Notify,
    chain: Mutex<State>,
    pub(super) places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Entry>,
    urgent: usize,
    in_flight: usize,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all of them are events")]
enum Entry {
    Event(Item),
    /// Sequence numbers of events that found no room.
    Gap(u64),
}

/// An event that waits to be sealed.
#[derive(Debug)]
pub(super) struct Item {
    event: Unstamped,
    hlc: String,
    time: Timestamp,
}

/// An event before it has a place in a queue: its clock readings are those of the moment when it gets one.
#[derive(Debug)]
pub(super) struct Unstamped {
    id: uuid::Uuid,
    note: super::hints::Note,
    /// The event's data, or why there is none: its place in the sequence then stays empty.
    written: Result<Written, SealError>,
    reply: Reply,
}

#[derive(Debug)]
pub(super) enum Reply {
    Waiting { reply: Option<oneshot::Sender<Result<Recorded, RecordError>>>, _permit: OwnedSemaphorePermit },
    Relaxed { bytes: usize },
}

#[derive(Debug)]
struct State {
    previous: Option<String>,
    sequence: u64,
    floor: u64,
}

/// A sealed event, and who waits for it.
#[derive(Debug)]
struct Sealed {
    record: EventRecord,
    note: super::hints::Note,
    id: uuid::Uuid,
    reply: Reply,
}

impl Unstamped {
    /// Writes the event, on the caller's time and before any lock.
    pub(super) fn new(planned: Planned, reply: impl FnOnce(usize) -> Reply) -> Self {
        let Planned { id, draft } = planned;
        let note = super::hints::Note::of(&draft);
        let written = draft.write();
        let reply = reply(written.as_ref().map_or(0, Written::bytes));
        Self { id, note, written, reply }
    }

    /// The event; where it breaks its contract its id, how, and who waits.
    pub(super) fn refused(self) -> Result<Self, (uuid::Uuid, SealError, Reply)> {
        match self.written {
            Err(error @ SealError::Contract { .. }) => Err((self.id, error, self.reply)),
            written => Ok(Self { written, ..self }),
        }
    }

    /// About how many bytes its record will have.
    pub(super) fn bytes(&self) -> usize {
        self.written.as_ref().map_or(0, Written::bytes)
    }

    fn is_urgent(&self) -> bool {
        matches!(self.reply, Reply::Waiting { .. })
    }

    fn stamp(self, hlc: &Hlc, clock: &Clock) -> Item {
        Item { hlc: hlc.now(clock), time: clock.now(), event: self }
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        !self.entries.iter().any(|entry| matches!(entry, Entry::Event(_)))
    }
}

impl Reply {
    pub(super) fn tell(&mut self, result: Result<Recorded, RecordError>) {
        if let Self::Waiting { reply, .. } = self
            && let Some(reply) = reply.take()
        {
            let _ = reply.send(result); // a caller that has gone needs no answer
        }
    }
}

impl Lane {
    pub(super) fn new(chain: Chain) -> Self {
        Self {
            topic: chain.topic,
            partition: chain.partition,
            queue: Mutex::default(),
            work: Notify::new(),
            chain: Mutex::new(State { previous: chain.previous, sequence: 0, floor: chain.floor }),
            places: Mutex::new(chain.places),
        }
    }

    pub(super) fn key(&self) -> (Topic, u32) {
        (self.topic, self.partition)
    }

    /// Queues events, all before the lane takes any: what is pushed together is sealed together, and rides one append where
    /// it fits. They are made under the lock, so that clock readings rise in the queue's order.
    pub(super) fn push(
        &self,
        batch_events_max: usize,
        items: impl IntoIterator<Item = Unstamped>,
        hlc: &Hlc,
        clock: &Clock,
    ) {
        let mut queue = self.queue.lock();
        let (idle, urgent) = (queue.is_empty(), queue.urgent);
        for item in items {
            queue.urgent += usize::from(item.is_urgent());
            queue.entries.push_back(Entry::Event(item.stamp(hlc, clock)));
        }
        // A lane that gathers relaxed events has its timer: it is woken by the first, by one that somebody waits for, and by
        // enough of them. Waking it for each would cost more than the events.
        let wakes = idle || queue.urgent > urgent || queue.entries.len() >= batch_events_max;
        drop(queue);
        if wakes {
            self.work.notify_one();
        }
    }

    /// Leaves a place in the sequence empty. Gaps that follow each other are one entry: dropping costs no memory.
    pub(super) fn push_gap(&self) {
        let mut queue = self.queue.lock();
        if let Some(Entry::Gap(places)) = queue.entries.back_mut() {
            *places += 1;
        } else {
            queue.entries.push_back(Entry::Gap(1));
        }
    }

    pub(super) fn wake(&self) {
        self.work.notify_one();
    }

    pub(super) fn depth(&self) -> usize {
        let queue = self.queue.lock();
        queue.in_flight + queue.entries.iter().filter(|entry| matches!(entry, Entry::Event(_))).count()
    }

    /// Works until the recorder is closed.
    pub(super) async fn run(self: Arc<Self>, inner: Arc<Inner>) {
        loop {
            let Some(batch) = self.gather(&inner).await else { return };
            if batch.is_empty() {
                continue;
            }
            tokio::select! {
                () = inner.closed.cancelled() => return,
                () = self.record(&inner, batch) => {}
            }
        }
    }

    /// Waits for events, gives relaxed ones a moment for company, and seals what there is.
    async fn gather(&self, inner: &Inner) -> Option<Vec<Sealed>> {
        let mut flush_at = None;
        loop {
            let (some, now) = {
                let queue = self.queue.lock();
                let full = queue.entries.len() >= inner.options.batch_events_max;
                (!queue.is_empty(), queue.urgent > 0 || full)
            };
            if some && (now || inner.closing.load(Ordering::SeqCst)) {
                return Some(self.seal(inner));
            }
            let at = *flush_at.get_or_insert_with(|| Instant::now() + inner.options.flush_within);
            tokio::select! {
                () = inner.closed.cancelled() => return None,
                () = self.work.notified() => if !some { flush_at = None },
                () = sleep_until(at), if some => return Some(self.seal(inner)),
            }
        }
    }

    /// Takes what fits into one append, and seals it. The queue is free meanwhile: hashing must not hold up callers.
    fn seal(&self, inner: &Inner) -> Vec<Sealed> {
        let taken = self.take(inner.options.batch_events_max);
        let mut chain = self.chain.lock();
        let mut batch = Vec::with_capacity(taken.len());
        for entry in taken {
            match entry {
                Entry::Gap(places) => chain.sequence += places,
                Entry::Event(item) => batch.extend(seal_one(inner, &mut chain, item)),
            }
        }
        self.queue.lock().in_flight = batch.len();
        batch
    }

    fn take(&self, events_max: usize) -> Vec<Entry> {
        let mut queue = self.queue.lock();
        let (mut taken, mut events, mut bytes, mut urgent) = (Vec::new(), 0, 0, 0);
        while events < events_max {
            match queue.entries.front() {
                Some(Entry::Event(Item { event, .. })) if events == 0 || bytes + event.bytes() <= APPEND_BYTES_MAX => {
                    events += 1;
                    bytes += event.bytes();
                    urgent += usize::from(event.is_urgent());
                }
                Some(Entry::Gap(_)) => {}
                _ => break,
            }
            taken.extend(queue.entries.pop_front());
        }
        // Set in the same breath, so that nobody sees the events neither queued nor in flight.
        queue.in_flight = events;
        queue.urgent -= urgent;
        taken
    }

    /// Appends a batch, however often that takes.
    async fn record(&self, inner: &Inner, mut batch: Vec<Sealed>) {
        let mut backoff = BACKOFF_MIN;
        let mut after_error = false;
        while !batch.is_empty() {
            let attempt = self.attempt(inner, &mut batch, after_error).await;
            match attempt {
                Ok(()) => {}
                Err(error) => {
                    inner.counters.failed_appends.fetch_add(1, Ordering::Relaxed);
                    self.fail(inner, &mut batch, error);
                    after_error = true;
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
        if inner.failing.lock().remove(&self.key()).is_some() {
            tracing::info!(topic = %self.topic, partition = self.partition, "recording works again");
        }
    }

    /// One append; after an error, what is already there is found first.
    async fn attempt(&self, inner: &Inner, batch: &mut Vec<Sealed>, after_error: bool) -> Result<(), AppendError> {
        if after_error && !inner.backbone.append_is_atomic() {
            let found =
                self.find(inner, batch).await.map_err(|error| AppendError::Retry { reason: error.to_string() })?;
            if let Some((offset, count)) = found {
                self.recorded(inner, batch, count, Appended { offset: Some(offset), floor: offset });
                if batch.is_empty() {
                    return Ok(());
                }
            }
        }
        let records = batch.iter().map(|sealed| sealed.record.clone()).collect();
        let mut append = inner.backbone.append(self.topic, self.partition, records);
        let appended = tokio::select! {
            appended = &mut append => appended?,
            () = sleep(inner.options.stall_after) => {
                // The append may still land, so it is waited for; nobody else needs to wait with it.
                let after_s = inner.options.stall_after.as_secs();
                let reason = format!("{} partition {} gave no answer for {after_s} s", self.topic, self.partition);
                self.fail(inner, batch, AppendError::Retry { reason });
                self.outwait(inner, batch, append).await?
            }
        };
        let count = batch.len();
        self.recorded(inner, batch, count, appended);
        Ok(())
    }

    async fn outwait(
        &self,
        inner: &Inner,
        batch: &mut [Sealed],
        mut append: impl Future<Output = Result<Appended, AppendError>> + Unpin,
    ) -> Result<Appended, AppendError> {
        loop {
            tokio::select! {
                appended = &mut append => return appended,
                () = sleep(BACKOFF_MAX) => {
                    let error = AppendError::Retry { reason: format!("{} gives no answer", self.topic) };
                    self.fail(inner, batch, error); // whoever slipped in between check and queue
                }
            }
        }
    }

    /// Marks recording as failing, and answers everybody who waits: their events stay queued.
    fn fail(&self, inner: &Inner, batch: &mut [Sealed], error: AppendError) {
        let told = record_error(&error);
        if inner.failing.lock().insert(self.key(), error).is_none() {
            tracing::error!(topic = %self.topic, partition = self.partition, error = %told, "strict calls stop until recording works");
        }
        for sealed in batch {
            sealed.reply.tell(Err(told.clone()));
        }
        for entry in &mut self.queue.lock().entries {
            if let Entry::Event(Item { event, .. }) = entry {
                event.reply.tell(Err(told.clone()));
            }
        }
    }

    /// How many of the batch's records are in the topic, from its first on, and where.
    async fn find(&self, inner: &Inner, batch: &[Sealed]) -> Result<Option<(u64, usize)>, ReadError> {
        let mut from = self.chain.lock().floor;
        let mut found: Option<(u64, usize)> = None;
        let first = link(&batch[0].record);
        loop {
            let slice = inner.backbone.read(self.topic, self.partition, from, READ_BACK_BYTES).await?;
            for (offset, record) in &slice.records {
                match &mut found {
                    None if link(record) == first => found = Some((*offset, 1)),
                    Some((_, count)) if *count < batch.len() && link(record) == link(&batch[*count].record) => {
                        *count += 1
                    }
                    _ => {}
                }
            }
            if slice.next >= slice.end {
                return Ok(found);
            }
            from = slice.next;
        }
    }

    fn recorded(&self, inner: &Inner, batch: &mut Vec<Sealed>, count: usize, appended: Appended) {
        // Before anybody is told, so that whoever was told finds it counted.
        inner.counters.appends.fetch_add(1, Ordering::Relaxed);
        inner.counters.recorded.fetch_add(count as u64, Ordering::Relaxed);
        self.chain.lock().floor = appended.offset.map_or(appended.floor, |offset| offset + count as u64);
        let mut places = self.places.lock();
        for (index, sealed) in batch.drain(..count).enumerate() {
            let offset = appended.offset.map(|first| first + index as u64);
            places.note(&sealed.note, offset.unwrap_or(appended.floor));
            let mut reply = sealed.reply;
            if let Reply::Relaxed { bytes } = reply {
                inner.release(bytes);
            }
            let (topic, partition) = self.key();
            reply.tell(Ok(Recorded { event_id: sealed.id, topic, partition, offset }));
        }
        self.queue.lock().in_flight = batch.len();
    }
}

/// Gives an event its place in the chain. An event that cannot be sealed takes a sequence number with it: the gap shows.
fn seal_one(inner: &Inner, chain: &mut State, item: Item) -> Option<Sealed> {
    let Item { event: Unstamped { id, note, written, mut reply }, hlc, time } = item;
    let producer = Producer {
        id: inner.options.gateway_id.clone(),
        epoch: inner.options.epoch,
        sequence: chain.sequence,
        previous: chain.previous.clone(),
    };
    let stamp = Stamp { source: inner.source.clone(), producer, hlc, id, time };
    chain.sequence += 1;
    match written.and_then(|written| written.seal(&stamp)) {
        Ok(record) => {
            chain.previous = Some(super::recovery::hexadecimal(&link(&record)));
            Some(Sealed { record, note, id, reply })
        }
        Err(error) => {
            inner.counters.invalid.fetch_add(1, Ordering::Relaxed);
            if let Reply::Relaxed { bytes } = reply {
                inner.release(bytes);
            }
            tracing::error!(%error, "an event could not be recorded");
            reply.tell(Err(RecordError::Invalid(Arc::new(error))));
            None
        }
    }
}
