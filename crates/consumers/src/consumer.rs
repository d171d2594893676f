//! The loop of every consumer: fetch, read, gather, apply, tell.
//!
//! It runs on a thread of its own and is stopped by its handle, or by a kill: what is not applied then is read again. Where the
//! backbone or the sink is away it waits and goes on; it ends by itself only where another process has taken its place. Bounds: one
//! batch in memory, one queue of the Kafka client's, and no fetch while the sink does not take.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use cairn_backbone::{
    group::{self, Group, GroupOptions, Heard, Place},
    reader::ReaderError,
};
use cairn_clock::{Clock, Timestamp};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{Batch, Control, Position, Sink, SinkError, Standing, Status, status::PartitionLag};

/// A batch that is not full waits so long for more: so few commits carry much, and nobody notices.
const LINGER: Duration = Duration::from_millis(5);
const POLL: Duration = Duration::from_millis(100);
/// How often it is asked what operators want.
const CONTROL_EVERY: Duration = Duration::from_millis(250);
/// How often it is looked how far the partitions go, and told how far this is.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the sink's own work is looked after.
const TEND_EVERY: Duration = Duration::from_secs(30);
/// How long after a failure it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// How a consumer is set up.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Its name, such as `audit`.
    pub name: String,
    /// Its group, and where.
    pub group: GroupOptions,
}

/// A running consumer.
#[derive(Debug)]
pub struct Consumer {
    stop: CancellationToken,
    thread: tokio::task::JoinHandle<()>,
}

impl Consumer {
    /// Begins to consume into that sink, and shows in `status` what it does; must be called within a runtime.
    #[must_use]
    pub fn start(options: ConsumerOptions, sink: Box<dyn Sink>, clock: Clock, status: Status) -> Self {
        let stop = CancellationToken::new();
        let worker = Worker { options, sink, clock, status, stop: stop.clone(), handle: Handle::current() };
        let thread = tokio::task::spawn_blocking(move || worker.run());
        Self { stop, thread }
    }

    /// Whether it has ended by itself.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Applies what was read, and ends.
    pub async fn close(self) {
        self.stop.cancel();
        let _ = self.thread.await;
    }
}

#[derive(Debug, thiserror::Error)]
enum ConsumeError {
    #[error(transparent)]
    Read(#[from] ReaderError),
    #[error(transparent)]
    Sink(#[from] SinkError),
}

struct Worker {
    options: ConsumerOptions,
    sink: Box<dyn Sink>,
    clock: Clock,
    status: Status,
    stop: CancellationToken,
    handle: Handle,
}

/// One partition that is this consumer's.
struct Held {
    topic_id: String,
    /// What the sink takes next; `None` where it has nothing of the partition.
    next: Option<u64>,
    /// The time of the newest record that was applied, or when there was nothing to apply.
    until: Timestamp,
}

/// One membership in the group.
struct Membership {
    group: Group,
    held: BTreeMap<Place, Held>,
    batch: Batch,
    since: Instant,
    control: Control,
    /// How far each partition went when it was looked last.
    ends: BTreeMap<Place, u64>,
    told: HashMap<Place, u64>,
}

impl Worker {
    fn run(mut self) {
        while !self.stop.is_cancelled() {
            let Err(error) = self.consume() else { return };
            self.status.change(|now| now.is_assigned = false);
            if is_fenced(&error) {
                let why = "another process consumes in its place; this one ends".to_owned();
                return self.status.failing(&self.options.name, Some(why));
            }
            self.status.failing(&self.options.name, Some(error.to_string()));
            self.rest(AGAIN_AFTER);
        }
    }

    fn rest(&self, time: Duration) {
        let _ = self.handle.block_on(async { tokio::time::timeout(time, self.stop.cancelled()).await });
    }

    /// Consumes until the end is asked for.
    fn consume(&mut self) -> Result<(), ConsumeError> {
        let control = self.sink.control()?;
        let mut at = Membership {
            group: Group::join(&self.options.group)?,
            held: BTreeMap::new(),
            batch: Batch::default(),
            since: Instant::now(),
            control,
            ends: BTreeMap::new(),
            told: HashMap::new(),
        };
        let (mut asked, mut looked, mut tended) = (Instant::now(), Instant::now(), None::<Instant>);
        while !self.stop.is_cancelled() {
            let wait = if at.batch.is_empty() { POLL } else { LINGER.saturating_sub(at.since.elapsed()) };
            match at.group.poll(wait)? {
                Heard::Record(record) => {
                    if at.batch.is_empty() {
                        at.since = Instant::now();
                    }
                    let place = Place { topic: record.topic.clone(), partition: record.partition };
                    // A record of a partition that is somebody else's by now.
                    let Some(held) = at.held.get(&place) else { continue };
                    // It was applied already: the assignment begins before it.
                    if held.next.is_some_and(|next| record.offset < next) {
                        continue;
                    }
                    at.batch.push(record, || (held.topic_id.clone(), held.next));
                }
                Heard::Assigned(places) => self.take(&mut at, &places)?,
                Heard::Revoked => {
                    at.batch = Batch::default();
                    at.held.clear();
                    self.status.change(|now| {
                        now.is_assigned = false;
                        now.partitions.clear();
                    });
                }
                Heard::Nothing => {}
            }
            if !at.batch.is_empty() && (at.batch.is_full() || at.since.elapsed() >= LINGER) {
                self.apply(&mut at)?;
            }
            if asked.elapsed() >= CONTROL_EVERY {
                asked = Instant::now();
                self.obey(&mut at)?;
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.look(&mut at);
            }
            if tended.is_none_or(|at| at.elapsed() >= TEND_EVERY) {
                let is_more = self.sink.tend(self.clock.now())?;
                tended = (!is_more).then(Instant::now);
            }
        }
        if !at.batch.is_empty() && !at.control.is_paused {
            self.apply(&mut at)?;
        }
        self.sink.end()?;
        at.commit(true);
        Ok(())
    }

    /// Begins each partition where the sink stands.
    fn take(&mut self, at: &mut Membership, places: &[Place]) -> Result<(), ConsumeError> {
        let ids = at.group.topic_ids();
        let stands = self.sink.positions()?;
        let now = self.clock.now();
        at.batch = Batch::default();
        at.held.clear();
        for place in places {
            let topic_id = ids.get(&place.topic).map(ToString::to_string).unwrap_or_default();
            let of = |position: &&Position| position.place == *place && position.topic_id == topic_id;
            let mut next = stands.iter().find(of).map(|position| position.next);
            let (start, end) = at.group.bounds(place)?;
            if next.is_some_and(|next| next > end) {
                // Without ids a topic that was made anew is known by what it lacks.
                tracing::error!(
                    consumer = self.options.name,
                    "{}/{} ends at {end}, and records up to {} were applied: the log was made anew, or has lost its end",
                    place.topic,
                    place.partition,
                    next.unwrap_or_default()
                );
                if topic_id.is_empty() {
                    let from = Position { place: place.clone(), topic_id: topic_id.clone(), next: start };
                    self.sink.move_to(&[from])?;
                    at.control = self.sink.control()?;
                    next = Some(start);
                }
            }
            if let Some(next) = next.filter(|next| *next < start) {
                tracing::error!(
                    consumer = self.options.name,
                    "{}/{}: records {next} to {} were removed before they were applied",
                    place.topic,
                    place.partition,
                    start - 1
                );
            }
            at.held.insert(place.clone(), Held { topic_id, next, until: now });
            at.ends.insert(place.clone(), end);
        }
        self.begin(at)?;
        self.status.failing(&self.options.name, None);
        self.status.change(|now| {
            now.is_assigned = true;
            now.is_paused = at.control.is_paused;
        });
        self.look(at);
        Ok(())
    }

    fn begin(&self, at: &Membership) -> Result<(), ConsumeError> {
        at.group.wake()?;
        at.group.begin(at.held.iter().map(|(place, held)| (place, held.next)))?;
        if at.control.is_paused {
            at.group.rest()?;
        }
        Ok(())
    }

    /// Does what operators asked for since it was asked last.
    fn obey(&mut self, at: &mut Membership) -> Result<(), ConsumeError> {
        let wanted = self.sink.control()?;
        if wanted == at.control {
            return Ok(());
        }
        at.control = wanted;
        self.status.change(|now| now.is_paused = wanted.is_paused);
        if at.held.is_empty() { Ok(()) } else { self.stand(at) }
    }

    /// Forgets what was read and not applied, and begins again where the sink stands now.
    fn stand(&mut self, at: &mut Membership) -> Result<(), ConsumeError> {
        let places: Vec<Place> = at.held.keys().cloned().collect();
        let untils: Vec<Timestamp> = at.held.values().map(|held| held.until).collect();
        self.take(at, &places)?;
        for (held, until) in at.held.values_mut().zip(untils) {
            held.until = until;
        }
        Ok(())
    }

    fn apply(&mut self, at: &mut Membership) -> Result<(), ConsumeError> {
        if at.control.is_paused {
            // Read before the pause: it is read again.
            at.batch = Batch::default();
            return Ok(());
        }
        let mut batch = std::mem::take(&mut at.batch);
        let mut has_waited = false;
        loop {
            match self.sink.apply(&batch) {
                Ok(()) => break,
                Err(SinkError::Refused { index, reason }) if index < batch.events.len() => batch.bury(index, reason),
                Err(SinkError::Moved) => {
                    at.control = self.sink.control()?;
                    return self.stand(at);
                }
                Err(SinkError::Away { reason }) => {
                    self.status.failing(&self.options.name, Some(reason));
                    if !self.wait_for_sink(at)? {
                        return Ok(());
                    }
                    has_waited = true;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.status.failing(&self.options.name, None);
        self.applied(at, &batch);
        // What came meanwhile was not taken.
        if has_waited { self.begin(at) } else { Ok(()) }
    }

    /// Keeps its place in the group while the sink is away; whether the batch is still this consumer's to apply.
    fn wait_for_sink(&mut self, at: &mut Membership) -> Result<bool, ConsumeError> {
        at.group.rest()?;
        let begun = Instant::now();
        while begun.elapsed() < AGAIN_AFTER && !self.stop.is_cancelled() {
            match at.group.poll(POLL)? {
                // Nothing is read while it rests, but what lay in the queue; that is read again.
                Heard::Record(_) | Heard::Nothing => {}
                Heard::Assigned(places) => {
                    self.take(at, &places)?;
                    return Ok(false);
                }
                Heard::Revoked => {
                    at.held.clear();
                    return Ok(false);
                }
            }
        }
        if self.stop.is_cancelled() {
            return Ok(false);
        }
        Ok(true)
    }

    fn applied(&mut self, at: &mut Membership, batch: &Batch) {
        let now = self.clock.now();
        for advance in &batch.advances {
            if let Some(held) = at.held.get_mut(&advance.place) {
                held.next = Some(advance.next);
            }
        }
        let newer = batch.events.iter().filter(|event| matches!(event.standing, Standing::Newer | Standing::Unknown));
        let newer = newer.count() as u64;
        for event in &batch.events {
            self.status.delayed(now.since(event.at));
            let place = Place { topic: event.topic.clone(), partition: event.partition };
            if let Some(held) = at.held.get_mut(&place) {
                held.until = held.until.max(event.at);
            }
        }
        self.status.change(|now| {
            now.events += batch.events.len() as u64;
            now.dead_letters += batch.dead.len() as u64;
            now.newer += newer;
            now.batches += 1;
        });
    }

    /// How far the partitions go, and how far this is in them.
    fn look(&mut self, at: &mut Membership) {
        if let Some(ends) = at.group.ends() {
            at.ends.extend(ends);
        }
        let now = self.clock.now();
        let (mut partitions, mut lag) = (BTreeMap::new(), Duration::ZERO);
        for (place, held) in &mut at.held {
            let end = at.ends.get(place).copied().unwrap_or_default();
            let next = held.next.unwrap_or_default();
            let behind = end.saturating_sub(next);
            if behind == 0 {
                held.until = now;
            } else {
                lag = lag.max(now.since(held.until));
            }
            partitions.insert(place.clone(), PartitionLag { next, behind });
        }
        self.status.change(|status| (status.partitions, status.lag) = (partitions, lag));
        at.commit(false);
    }
}

impl Membership {
    fn commit(&mut self, is_last: bool) {
        let Self { group, held, told, .. } = self;
        let stands = held.iter().filter_map(|(place, held)| Some((place, held.next?)));
        let news: Vec<(&Place, u64)> = stands.filter(|(place, next)| told.get(*place) != Some(next)).collect();
        group.commit(news.iter().copied(), is_last);
        let news: Vec<(Place, u64)> = news.into_iter().map(|(place, next)| (place.clone(), next)).collect();
        told.extend(news);
    }
}

/// Whether another member of the same instance has taken over, or another process the sink.
fn is_fenced(error: &ConsumeError) -> bool {
    match error {
        ConsumeError::Read(error) => group::is_fenced(error),
        ConsumeError::Sink(error) => matches!(error, SinkError::Taken { .. }),
    }
}
