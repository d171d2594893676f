//! All share groups of this broker: what was written is read back at start, what a member says of its records is durable before it is
//! answered. Called by the share requests, and by those of groups and topics.
//!
//! One lock for each partition of a group. Who hands out records holds it while it decides, never while it reads them; who changes what
//! became of them holds it until that is durable. A change that is not stored is as if it had not been asked for.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use cairn_log::{Bounds, Isolation, Log, Offset, PartitionIndex, StreamId};
use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::{Mutex as WaitingMutex, MutexGuard, watch},
    time::{Instant, timeout},
};

use super::{
    Key, STATE_TOPIC,
    group::{self, Beat, MemberView, Members, Told},
    records,
    sessions::{ShareSessions, Who},
    settings::{Reset, Settings},
    window::{Acquired, JudgeError, Judged, Returned, Verdict, Window},
};
use crate::{
    batch::{BatchBuilder, BatchHeader},
    broker::{Broker, FetchError, Fetched},
    group::{GroupError, java_hash},
    streams::{self, StreamError},
    topics::{Topic, configs::TopicConfigs},
};

/// Partitions of all share groups together.
const SLOTS_MAX: usize = 100_000;
/// Spans of offsets of all of them that are kept in memory, about 100 bytes each: while there are more, nothing is handed out that would
/// make another.
const WEIGHT_MAX: usize = 1_000_000;
/// Reads that one request makes of a partition, where what it finds is with others.
const READS_MAX: usize = 8;

/// Why a partition of a share group cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShareError {
    #[error(transparent)]
    Judge(#[from] JudgeError),
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("what became of the records could not be stored")]
    Storage,
    #[error("share groups read as many partitions as they may: delete groups")]
    Full,
}

/// What one request asks of one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) bytes_max: usize,
    pub(crate) records_max: u64,
    /// Not one record more, also where a batch has more.
    pub(crate) exact: bool,
}

/// What a member gets of a partition.
#[derive(Debug, Default)]
pub(crate) struct Portion {
    /// Whole batches that hold what it has from now on, and perhaps more.
    pub(crate) batches: Vec<Bytes>,
    pub(crate) acquired: Vec<Acquired>,
}

/// A group as it is described.
#[derive(Debug, Clone)]
pub(crate) struct ShareView {
    pub(crate) epoch: i32,
    pub(crate) members: Vec<MemberView>,
}

impl ShareView {
    /// Kafka's name of where it is in its life.
    pub(crate) fn state(&self) -> &'static str {
        state_of(self.members.is_empty())
    }
}

const fn state_of(is_empty: bool) -> &'static str {
    if is_empty { "Empty" } else { "Stable" }
}

/// One partition of one group.
#[derive(Debug)]
struct Slot {
    /// Nothing until it was decided where the group begins.
    window: WaitingMutex<Option<Window>>,
    /// Changes when something may have come free.
    freed: watch::Sender<u64>,
}

impl Slot {
    fn new(window: Option<Window>) -> Arc<Self> {
        Arc::new(Self { window: WaitingMutex::new(window), freed: watch::Sender::new(0) })
    }
}

/// All share groups.
#[derive(Debug)]
pub(crate) struct Shares {
    members: Mutex<HashMap<Arc<str>, Members>>,
    slots: RwLock<BTreeMap<Key, Arc<Slot>>>,
    pub(crate) sessions: ShareSessions,
    /// How many connections there were that opened sessions.
    connections: AtomicU64,
    /// Spans of all windows.
    weight: AtomicUsize,
    started: Instant,
}

impl Shares {
    /// Reads `__share_group_state` back.
    pub(crate) async fn open(log: &Log, topic: Option<&Topic>) -> Result<Self, StreamError> {
        let mut found = BTreeMap::new();
        for stream in topic.into_iter().flat_map(Topic::streams) {
            streams::replay(log, stream, |record| {
                let Some(key) = &record.key else { return };
                match records::decode(key, record.value.as_ref()) {
                    Some((of, Some(window))) => drop(found.insert(of, window)),
                    Some((of, None)) => drop(found.remove(&of)),
                    None => tracing::warn!(offset = record.offset, "a record of {STATE_TOPIC} cannot be read"),
                }
            })
            .await?;
        }
        let weight = AtomicUsize::new(found.values().map(Window::weight).sum());
        let slots = found.into_iter().map(|(key, window)| (key, Slot::new(Some(window)))).collect();
        let (members, sessions, connections) = (Mutex::default(), ShareSessions::default(), AtomicU64::new(0));
        let started = Instant::now();
        Ok(Self { members, slots: RwLock::new(slots), sessions, connections, weight, started })
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether a group is one of these.
    pub(crate) fn has(&self, group: &str) -> bool {
        self.members.lock().contains_key(group) || !self.keys_of(group).is_empty()
    }

    fn keys_of(&self, group: &str) -> Vec<Key> {
        let first = Key { group: group.into(), topic: uuid::Uuid::nil(), partition: 0 };
        let slots = self.slots.read();
        slots.range(first..).take_while(|(key, _)| *key.group == *group).map(|(key, _)| key.clone()).collect()
    }

    fn slot(&self, key: &Key) -> Option<Arc<Slot>> {
        self.slots.read().get(key).cloned()
    }

    fn slot_or_new(&self, key: &Key) -> Result<Arc<Slot>, ShareError> {
        if let Some(slot) = self.slot(key) {
            return Ok(slot);
        }
        let mut slots = self.slots.write();
        if slots.len() >= SLOTS_MAX && !slots.contains_key(key) {
            return Err(ShareError::Full);
        }
        Ok(Arc::clone(slots.entry(key.clone()).or_insert_with(|| Slot::new(None))))
    }

    /// Puts a window in its place.
    fn replace(&self, held: &mut MutexGuard<'_, Option<Window>>, next: Option<Window>) {
        let weight = |window: &Option<Window>| window.as_ref().map_or(0, Window::weight);
        self.weight.fetch_add(weight(&next), Ordering::Relaxed);
        self.weight.fetch_sub(weight(held), Ordering::Relaxed);
        **held = next;
    }

    /// Groups by name, and Kafka's name of where each is in its life.
    pub(crate) fn list(&self) -> Vec<(String, &'static str)> {
        let members = self.members.lock();
        let known = members.iter().map(|(name, of)| (name.to_string(), state_of(of.is_empty())));
        let mut all: BTreeMap<String, &'static str> =
            self.slots.read().keys().map(|key| (key.group.to_string(), state_of(true))).collect();
        all.extend(known);
        all.into_iter().collect()
    }

    /// Receives a change when something of this partition may have come free.
    pub(crate) fn watch(&self, key: &Key) -> Option<watch::Receiver<u64>> {
        self.slot_or_new(key).ok().map(|slot| slot.freed.subscribe())
    }
}

impl Broker {
    fn shares(&self) -> &Shares {
        &self.inner.shares
    }

    /// Takes in that a member of a share group is there, or leaves.
    pub(crate) fn share_beat(&self, group: &str, beat: Beat) -> Result<Told, GroupError> {
        if group.is_empty() {
            return Err(GroupError::InvalidRequest);
        }
        let (shares, limits) = (self.shares(), &self.inner.options.limits);
        let settings = Settings::of(self, group);
        let bounds = group::Bounds {
            members_max: limits.members_max,
            bytes_max: limits.group_bytes_max,
            session_ms: settings.session_ms,
        };
        let (now_ms, topics) = (shares.now_ms(), self.inner.topics.sight());
        let mut all = shares.members.lock();
        let is_new = !all.contains_key(group);
        if is_new && all.len() >= limits.groups_max {
            all.retain(|_, members| {
                members.expire(now_ms, &topics);
                !members.is_empty()
            });
            if all.len() >= limits.groups_max {
                return Err(GroupError::Unavailable);
            }
        }
        let members = all.entry(group.into()).or_default();
        let told = members.beat(now_ms, beat, bounds, &topics);
        if is_new && members.is_empty() {
            all.remove(group); // nobody came
        }
        told
    }

    /// Makes a group be there, without members.
    pub(crate) fn share_begin(&self, group: &str) -> Result<(), GroupError> {
        let mut all = self.shares().members.lock();
        if !all.contains_key(group) && all.len() >= self.inner.options.limits.groups_max {
            return Err(GroupError::Unavailable);
        }
        all.entry(group.into()).or_default();
        Ok(())
    }

    /// A share group as it is, if there is one of that name.
    pub(crate) fn share_view(&self, group: &str) -> Option<ShareView> {
        let shares = self.shares();
        let (now_ms, topics) = (shares.now_ms(), self.inner.topics.sight());
        if let Some(members) = shares.members.lock().get_mut(group) {
            members.expire(now_ms, &topics);
            return Some(ShareView { epoch: members.epoch, members: members.view() });
        }
        shares.has(group).then(|| ShareView { epoch: 0, members: Vec::new() })
    }

    /// Deletes a share group without members.
    pub(crate) async fn share_delete(&self, group: &str) -> Result<(), GroupError> {
        let view = self.share_view(group).ok_or(GroupError::GroupNotFound)?;
        if !view.members.is_empty() {
            return Err(GroupError::NotEmpty);
        }
        for key in self.shares().keys_of(group) {
            self.share_forget(&key).await?;
        }
        self.shares().members.lock().remove(group);
        Ok(())
    }

    /// Forgets what a group did with a partition.
    pub(crate) async fn share_forget(&self, key: &Key) -> Result<(), GroupError> {
        let Some(slot) = self.shares().slot(key) else { return Ok(()) };
        let mut held = slot.window.lock().await;
        if held.is_some() {
            self.share_store(key, None).await.map_err(|_| GroupError::Unavailable)?;
        }
        self.shares().replace(&mut held, None);
        self.shares().slots.write().remove(key);
        Ok(())
    }

    /// The same of all topics that are no more.
    pub(crate) async fn share_forget_topics(&self) -> Result<(), GroupError> {
        let is_gone = |key: &&Key| self.inner.topics.get_by_id(key.topic).is_none();
        let gone: Vec<Key> = self.shares().slots.read().keys().filter(is_gone).cloned().collect();
        for key in gone {
            self.share_forget(&key).await?;
        }
        Ok(())
    }

    /// Sets where a group goes on in a partition; nobody may be in the group.
    pub(crate) async fn share_move(&self, key: &Key, start: u64) -> Result<(), ShareError> {
        let slot = self.shares().slot_or_new(key)?;
        let mut held = slot.window.lock().await;
        let window = Window::new(start);
        self.share_store(key, Some(&window)).await?;
        self.shares().replace(&mut held, Some(window));
        Ok(())
    }

    /// What a group has done with the partitions that it has read: key, and the first offset that is not done with.
    pub(crate) async fn share_starts(&self, group: &str) -> Vec<(Key, u64)> {
        let mut all = Vec::new();
        for key in self.shares().keys_of(group) {
            let Some(slot) = self.shares().slot(&key) else { continue };
            let start = slot.window.lock().await.as_ref().map(Window::start);
            all.extend(start.map(|start| (key, start)));
        }
        all
    }

    /// Makes durable what became of a partition's records.
    async fn share_store(&self, key: &Key, window: Option<&Window>) -> Result<(), ShareError> {
        let topic = match self.inner.topics.get(STATE_TOPIC) {
            Some(topic) => topic,
            None => self.make_share_topic().await?,
        };
        let place = format!("{}:{}:{}", key.group, key.topic, key.partition);
        let partition = java_hash(&place).unsigned_abs() % topic.partitions;
        let (mut batch, now_ms) = (BatchBuilder::new(), self.inner.clock.now().as_millis());
        let epoch = self.inner.log.epoch().get();
        let value = window.map(|window| records::value(window, epoch, now_ms));
        batch.push(now_ms, Some(&records::key(key)), value.as_deref(), &[]);
        let stream = StreamId::new(topic.id, PartitionIndex::new(partition));
        streams::append(&self.inner.log, stream, batch).await.map(drop).map_err(|error| {
            tracing::warn!(group = &*key.group, %error, "what a share group said could not be stored");
            ShareError::Storage
        })
    }

    async fn make_share_topic(&self) -> Result<Arc<Topic>, ShareError> {
        let given = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
        let configs = TopicConfigs::new(given).map_err(|_| ShareError::Storage)?;
        let partitions = self.inner.options.offsets_partitions.max(1);
        match self.inner.topics.create(STATE_TOPIC, partitions, configs).await {
            Ok(topic) => Ok(topic),
            // Another was quicker.
            Err(error) => self.inner.topics.get(STATE_TOPIC).ok_or_else(|| {
                tracing::warn!(%error, "{STATE_TOPIC} could not be made");
                ShareError::Storage
            }),
        }
    }

    /// Hands out records of a partition to a member: what is free and comes first.
    pub(crate) async fn share_take(
        &self,
        key: &Key,
        stream: StreamId,
        member: &Arc<str>,
        ask: Ask,
        settings: &Settings,
    ) -> Result<Portion, ShareError> {
        let slot = self.shares().slot_or_new(key)?;
        let mut portion = Portion::default();
        for _ in 0..READS_MAX {
            let bounds = self.inner.log.bounds(stream).map_err(FetchError::from)?;
            let end = end_of(&bounds, settings.isolation);
            let Some(from) = self.share_next(key, &slot, stream, &bounds, settings).await?.filter(|from| *from < end)
            else {
                break;
            };
            // Nobody waits for this but who asked, and not for ever: what comes later is there when it asks again.
            let reading = self.read(stream, Offset::new(from), ask.bytes_max, settings.isolation);
            let read = match timeout(self.inner.options.limits.store_wait_max, reading).await {
                Err(_) => break,
                Ok(Err(FetchError::OutOfRange { .. })) => continue,
                Ok(read) => read?,
            };
            let Some(found) = found(from, read) else { break };
            let mut held = slot.window.lock().await;
            let Some(mut window) = held.clone() else { break };
            found.nothing.iter().for_each(|(first, last)| window.archive(*first, *last));
            let (most, now_ms) = ((ask.records_max, ask.exact), self.shares().now_ms());
            portion.acquired = window.acquire(member, &found.ranges, most, &settings.rules, now_ms);
            let is_stuck = portion.acquired.is_empty() && window.next(end, &settings.rules) == Some(from);
            self.shares().replace(&mut held, Some(window));
            drop(held);
            if !portion.acquired.is_empty() {
                portion.batches = found.batches_of(&portion.acquired);
                break;
            }
            if is_stuck {
                break;
            }
        }
        Ok(portion)
    }

    /// Where a record is free, once what is over is taken back; a group that was never here begins.
    async fn share_next(
        &self,
        key: &Key,
        slot: &Slot,
        stream: StreamId,
        bounds: &Bounds,
        settings: &Settings,
    ) -> Result<Option<u64>, ShareError> {
        let mut held = slot.window.lock().await;
        let now_ms = self.shares().now_ms();
        let mut window = match held.as_ref() {
            Some(window) => window.clone(),
            None => {
                let window = Window::new(self.share_first(stream, bounds, settings).await?);
                self.share_store(key, Some(&window)).await?;
                window
            }
        };
        let is_moved = window.begin_at(bounds.log_start.get());
        if window.expire(now_ms, &settings.rules) || is_moved {
            // So that what was handed out too often is not again after a restart either.
            self.share_store(key, Some(&window)).await?;
        }
        let next = window.next(end_of(bounds, settings.isolation), &settings.rules);
        let is_heavy = self.shares().weight.load(Ordering::Relaxed) >= WEIGHT_MAX;
        self.shares().replace(&mut held, Some(window));
        Ok(next.filter(|_| !is_heavy))
    }

    /// Where a group begins in a partition.
    async fn share_first(&self, stream: StreamId, bounds: &Bounds, settings: &Settings) -> Result<u64, ShareError> {
        let end = end_of(bounds, settings.isolation);
        Ok(match settings.reset {
            Reset::Earliest => bounds.log_start.get(),
            Reset::Latest => end,
            Reset::Age(ms) => {
                let from_ms = self.inner.clock.now().as_millis().saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX));
                let found = self.inner.log.find_time(stream, bounds.log_start, from_ms).await;
                found.map_err(FetchError::from)?.map_or(end, Offset::get)
            }
        })
    }

    /// Takes in what a member says of records that it has, and makes it durable.
    pub(crate) async fn share_judge(
        &self,
        key: &Key,
        member: &str,
        judged: &[Judged],
        settings: &Settings,
    ) -> Result<(), ShareError> {
        let slot = self.shares().slot(key).ok_or(JudgeError::NotAcquired)?;
        let mut held = slot.window.lock().await;
        let now_ms = self.shares().now_ms();
        let mut window = held.clone().ok_or(JudgeError::NotAcquired)?;
        window.expire(now_ms, &settings.rules);
        window.judge(member, judged, &settings.rules, now_ms)?;
        let only_renews = judged.iter().flat_map(|judged| &judged.verdicts).all(|said| *said == Verdict::Renew);
        if !only_renews {
            self.share_store(key, Some(&window)).await?;
        }
        self.shares().replace(&mut held, Some(window));
        slot.freed.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Takes back what a member has of any partition of its group.
    pub(crate) async fn share_take_back(&self, (group, member): &Who, is_lost: bool) {
        let settings = Settings::of(self, group);
        let returned = if is_lost { Returned::Lost } else { Returned::Unseen };
        for key in self.shares().keys_of(group) {
            let Some(slot) = self.shares().slot(&key) else { continue };
            let mut held = slot.window.lock().await;
            let Some(mut window) = held.clone() else { continue };
            if window.take_back(member, returned, &settings.rules) {
                self.shares().replace(&mut held, Some(window));
                slot.freed.send_modify(|count| *count += 1);
            }
        }
    }

    /// When something of this partition comes free because somebody's time is over.
    pub(crate) async fn share_deadline(&self, key: &Key) -> Option<Instant> {
        let slot = self.shares().slot(key)?;
        let at_ms = slot.window.lock().await.as_ref()?.deadline_ms()?;
        Some(self.shares().started + std::time::Duration::from_millis(at_ms))
    }
}

/// A connection by which sessions were opened: they end with it, and what their members have comes back.
#[derive(Debug)]
pub(crate) struct ShareLink {
    broker: Broker,
    connection: u64,
}

impl ShareLink {
    pub(crate) fn new(broker: &Broker) -> Self {
        let connection = broker.shares().connections.fetch_add(1, Ordering::Relaxed);
        Self { broker: broker.clone(), connection }
    }

    pub(crate) const fn connection(&self) -> u64 {
        self.connection
    }
}

impl Drop for ShareLink {
    fn drop(&mut self) {
        let gone = self.broker.shares().sessions.hang_up(self.connection);
        if gone.is_empty() {
            return;
        }
        let broker = self.broker.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for who in gone {
                    broker.share_take_back(&who, true).await;
                }
            });
        }
    }
}

fn end_of(bounds: &Bounds, isolation: Isolation) -> u64 {
    match isolation {
        Isolation::Durable => bounds.durable_end.get(),
        Isolation::Committed => bounds.stable_end.get(),
    }
}

/// What was read, for who hands it out.
struct Found {
    batches: Vec<Bytes>,
    /// First and last offset of each.
    ranges: Vec<(u64, u64)>,
    /// Offsets that hold no record for anybody.
    nothing: Vec<(u64, u64)>,
}

impl Found {
    /// Those that hold something of this.
    fn batches_of(self, acquired: &[Acquired]) -> Vec<Bytes> {
        let holds = |(first, last): &(u64, u64)| acquired.iter().any(|of| of.first <= *last && *first <= of.last);
        self.batches.into_iter().zip(self.ranges).filter(|(_, range)| holds(range)).map(|(batch, _)| batch).collect()
    }
}

/// Looks at what was read: which offsets have records, and which have none: those of markers and of aborted transactions, and those that
/// compaction left out. Nothing where nothing was read.
fn found(from: u64, read: Fetched) -> Option<Found> {
    let mut found = Found { batches: Vec::new(), ranges: Vec::new(), nothing: Vec::new() };
    let mut next = from;
    for batch in read.batches {
        let header = BatchHeader::parse(&batch).ok()?;
        let first = u64::try_from(header.base_offset).ok()?;
        let last = first.saturating_add(u64::try_from(header.last_offset_delta).ok()?);
        if first > next {
            found.nothing.push((next, first - 1));
        }
        next = last.saturating_add(1);
        let is_aborted = header.is_transactional()
            && read.aborted.iter().any(|aborted| {
                let within = aborted.first.get() <= first && first <= aborted.last.get();
                within && aborted.producer.get() == header.producer_id
            });
        if header.is_control() || is_aborted {
            found.nothing.push((first, last));
        } else {
            found.ranges.push((first, last));
            found.batches.push(batch);
        }
    }
    (next > from).then_some(found)
}
