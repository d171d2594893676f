//! The coordinator at work: one task owns the core, gives it the time, stores what it says, and answers who waits.
//! Called by the group requests. Committed offsets are kept beside it, keyed by group.
//!
//! It guarantees: what a reply depends on is durable before the reply; offsets are visible only once durable.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cairn_clock::Clock;
use cairn_log::{Log, Offset, PartitionIndex, StreamId};
use parking_lot::RwLock;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};
use uuid::Uuid;

use super::{
    Core, Effect, GroupError, GroupLimits, GroupSnapshot, GroupState, Identity, Input, Reply, Ticket,
    offsets::{OffsetEntry, Offsets},
    records::{self, GroupRecord, OffsetValue},
};
use crate::{
    batch::{BatchBuilder, Record},
    streams::{self, StreamError},
};

const COMMANDS_MAX: usize = 1_024;
/// A partition of `__consumer_offsets` is rewritten at start when it holds more records than this, and more than so many
/// times those that are live.
const COMPACT_RECORDS: usize = 10_000;
const COMPACT_RATIO: usize = 4;
const COMPACT_BATCH_BYTES: usize = 256 << 10;
const TICK: Duration = Duration::from_secs(60);

/// A group as DescribeGroups shows it.
#[derive(Debug, Clone)]
pub(crate) struct GroupView {
    pub(crate) state: GroupState,
    pub(crate) snapshot: GroupSnapshot,
}

#[derive(Debug)]
enum Command {
    Input(Box<dyn FnOnceInput>, oneshot::Sender<Reply>),
    Describe(String, oneshot::Sender<Option<GroupView>>),
    List(oneshot::Sender<Vec<(String, GroupState, String)>>),
    Close(oneshot::Sender<()>),
}

/// Makes an input once its ticket is known.
trait FnOnceInput: Send {
    fn make(self: Box<Self>, ticket: Ticket) -> Input;
}

impl<F: FnOnce(Ticket) -> Input + Send> FnOnceInput for F {
    fn make(self: Box<Self>, ticket: Ticket) -> Input {
        self(ticket)
    }
}

impl std::fmt::Debug for dyn FnOnceInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Input")
    }
}

/// Handle to the coordinator; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Coordinator {
    commands: mpsc::Sender<Command>,
    offsets: Arc<RwLock<Offsets>>,
    /// Bytes that these may take in memory.
    offsets_bytes_max: usize,
    store: Store,
}

/// Where group records go.
#[derive(Debug, Clone)]
struct Store {
    log: Log,
    topic: Uuid,
    partitions: u32,
    clock: Clock,
}

impl Coordinator {
    /// Reads `__consumer_offsets` back and starts the task.
    pub(crate) async fn open(
        log: Log,
        topic: Uuid,
        partitions: u32,
        limits: GroupLimits,
        clock: Clock,
    ) -> Result<Self, StreamError> {
        let store = Store { log, topic, partitions, clock };
        let (offsets, groups) = store.load().await?;
        let offsets_bytes_max = limits.offsets_bytes_max;
        let mut core = Core::new(limits);
        for group in groups.into_values() {
            core.restore(0, group);
        }
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let task = Task {
            core,
            inbox,
            waiting: HashMap::new(),
            next_ticket: 0,
            started: Instant::now(),
            store: store.clone(),
        };
        tokio::spawn(task.run());
        Ok(Self { commands, offsets: Arc::new(RwLock::new(offsets)), offsets_bytes_max, store })
    }

    /// Puts one input through the core and waits for its reply.
    pub(crate) async fn ask(&self, input: impl FnOnce(Ticket) -> Input + Send + 'static) -> Reply {
        let (sender, receiver) = oneshot::channel();
        if self.commands.send(Command::Input(Box::new(input), sender)).await.is_err() {
            return Reply::Refused(GroupError::Unavailable);
        }
        receiver.await.unwrap_or(Reply::Refused(GroupError::Unavailable))
    }

    /// Ends the task, and with it its hold on the log; who waits is told that the coordinator is away.
    pub(crate) async fn close(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.commands.send(Command::Close(sender)).await.is_ok() {
            let _ = receiver.await;
        }
    }

    /// The group as it is, if it is known.
    pub(crate) async fn describe(&self, group: &str) -> Option<GroupView> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Command::Describe(group.to_owned(), sender)).await.ok()?;
        receiver.await.ok().flatten()
    }

    /// All groups, those that only have offsets included.
    pub(crate) async fn list(&self) -> Vec<(String, GroupState, String)> {
        let (sender, receiver) = oneshot::channel();
        let sent = self.commands.send(Command::List(sender)).await;
        let mut all = if sent.is_ok() { receiver.await.unwrap_or_default() } else { Vec::new() };
        let known: std::collections::HashSet<String> = all.iter().map(|(name, ..)| name.clone()).collect();
        let offsets = self.offsets.read();
        let only_offsets = offsets.groups().map(|(name, _)| name).filter(|name| !known.contains(*name));
        all.extend(only_offsets.map(|name| (name.clone(), GroupState::Empty, String::new())));
        all
    }

    /// Commits offsets: asks the core, makes them durable, then makes them visible.
    pub(crate) async fn commit(
        &self,
        group: String,
        who: Identity,
        generation: i32,
        entries: Vec<(String, i32, OffsetValue)>,
    ) -> Result<(), GroupError> {
        let name = group.clone();
        let reply = self.ask(move |ticket| Input::Commit { ticket, group: name, who, generation }).await;
        if let Reply::Refused(error) = reply {
            return Err(error);
        }
        if self.offsets.read().bytes_with(&group, &entries) > self.offsets_bytes_max {
            tracing::warn!(
                group,
                "committed offsets take as much memory as they may: delete groups, or raise the limit"
            );
            return Err(GroupError::OffsetsFull);
        }
        let mut batch = BatchBuilder::new();
        let now_ms = self.store.clock.now().as_millis();
        for (topic, partition, value) in &entries {
            let key = records::offset_key(&group, topic, *partition);
            batch.push(now_ms, Some(&key), Some(&records::offset_value(value)), &[]);
        }
        let Some(base) = self.store.append(&group, batch).await? else { return Ok(()) };
        let mut offsets = self.offsets.write();
        for (topic, partition, value) in entries {
            offsets.put(&group, topic, partition, OffsetEntry { value, stored_at: base });
        }
        Ok(())
    }

    /// Forgets what groups committed for topics that are no more, so that no offset comes to mean another topic's data.
    pub(crate) async fn forget_topics(&self, gone: impl Fn(&str) -> bool) -> Result<(), GroupError> {
        let found = self.offsets.read().of_topics(gone);
        for (group, entries) in found {
            let now_ms = self.store.clock.now().as_millis();
            let mut batch = BatchBuilder::new();
            for (topic, partition) in &entries {
                batch.push(now_ms, Some(&records::offset_key(&group, topic, *partition)), None, &[]);
            }
            self.store.append(&group, batch).await?;
            let mut offsets = self.offsets.write();
            entries.iter().for_each(|(topic, partition)| offsets.remove(&group, topic, *partition));
        }
        Ok(())
    }

    /// The committed offset of one partition.
    pub(crate) fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<OffsetValue> {
        self.offsets.read().get(group, topic, partition).cloned()
    }

    /// Every committed offset of a group.
    pub(crate) fn committed_all(&self, group: &str) -> Vec<(String, i32, OffsetValue)> {
        let offsets = self.offsets.read();
        let of_group = offsets.of_group(group).into_iter().flatten();
        of_group.map(|((topic, partition), entry)| (topic.clone(), *partition, entry.value.clone())).collect()
    }

    /// Deletes a group without members, and its offsets.
    pub(crate) async fn delete(&self, group: &str) -> Result<(), GroupError> {
        let name = group.to_owned();
        let reply = self.ask(move |ticket| Input::Delete { ticket, group: name }).await;
        let known = match reply {
            Reply::Refused(GroupError::GroupNotFound) => false,
            Reply::Refused(error) => return Err(error),
            _ => true,
        };
        let committed = self.committed_all(group);
        if !known && committed.is_empty() {
            return Err(GroupError::GroupNotFound);
        }
        let now_ms = self.store.clock.now().as_millis();
        let mut batch = BatchBuilder::new();
        batch.push(now_ms, Some(&records::group_key(group)), None, &[]);
        for (topic, partition, _) in &committed {
            batch.push(now_ms, Some(&records::offset_key(group, topic, *partition)), None, &[]);
        }
        self.store.append(group, batch).await?;
        self.offsets.write().remove_group(group);
        Ok(())
    }
}

impl Store {
    fn stream(&self, group: &str) -> StreamId {
        let partition = java_hash(group).unsigned_abs() % self.partitions;
        StreamId::new(self.topic, PartitionIndex::new(partition))
    }

    async fn append(&self, group: &str, batch: BatchBuilder) -> Result<Option<Offset>, GroupError> {
        streams::append(&self.log, self.stream(group), batch).await.map_err(|error| {
            tracing::warn!(group, %error, "group state could not be stored");
            GroupError::Unavailable
        })
    }

    /// Reads every partition back, and rewrites those where most records are out of date.
    async fn load(&self) -> Result<(Offsets, HashMap<String, GroupSnapshot>), StreamError> {
        let mut offsets = Offsets::default();
        let mut groups = HashMap::new();
        for partition in 0..self.partitions {
            let stream = StreamId::new(self.topic, PartitionIndex::new(partition));
            let mut read = Loaded::default();
            streams::replay(&self.log, stream, |record| read.take(record)).await?;
            if read.records > COMPACT_RECORDS && read.records > COMPACT_RATIO * read.live() {
                self.compact(stream, &read).await?;
            }
            // A group's records lie in one partition only.
            offsets.extend(read.offsets);
            groups.extend(read.groups);
        }
        Ok((offsets, groups))
    }

    /// Writes what is live once more, then forgets what lies before. A crash between the two leaves both, which reads the same.
    async fn compact(&self, stream: StreamId, read: &Loaded) -> Result<(), StreamError> {
        let now_ms = self.clock.now().as_millis();
        let mut first = None;
        let mut batch = BatchBuilder::new();
        for (group, of_group) in read.offsets.groups() {
            for ((topic, partition), entry) in of_group {
                let key = records::offset_key(group, topic, *partition);
                batch.push(now_ms, Some(&key), Some(&records::offset_value(&entry.value)), &[]);
                if batch.bytes() > COMPACT_BATCH_BYTES {
                    let written = streams::append(&self.log, stream, std::mem::take(&mut batch)).await?;
                    first = first.or(written);
                }
            }
        }
        for (group, snapshot) in &read.groups {
            let value = records::group_value(snapshot, now_ms);
            batch.push(now_ms, Some(&records::group_key(group)), Some(&value), &[]);
            if batch.bytes() > COMPACT_BATCH_BYTES {
                let written = streams::append(&self.log, stream, std::mem::take(&mut batch)).await?;
                first = first.or(written);
            }
        }
        let written = streams::append(&self.log, stream, batch).await?;
        let end = match first.or(written) {
            Some(first) => first,
            // Nothing is live.
            None => self.log.bounds(stream).map_err(|source| StreamError::Read { stream, at: 0, source })?.durable_end,
        };
        self.log.delete_before(stream, end).await.map_err(|source| StreamError::Append { stream, source })
    }
}

/// What one partition of `__consumer_offsets` says.
#[derive(Default)]
struct Loaded {
    offsets: Offsets,
    groups: HashMap<String, GroupSnapshot>,
    records: usize,
}

impl Loaded {
    fn live(&self) -> usize {
        self.groups.len() + self.offsets.len()
    }

    fn take(&mut self, record: Record) {
        self.records += 1;
        let Some(key) = &record.key else { return };
        match records::decode(key, record.value.as_ref()) {
            Some(GroupRecord::Offset { group, topic, partition, value: Some(value) }) => {
                let entry = OffsetEntry { value, stored_at: Offset::new(record.offset) };
                self.offsets.put(&group, topic, partition, entry);
            }
            Some(GroupRecord::Offset { group, topic, partition, value: None }) => {
                self.offsets.remove(&group, &topic, partition);
            }
            Some(GroupRecord::Group { group, value: Some(value) }) => {
                self.groups.insert(group, value);
            }
            Some(GroupRecord::Group { group, value: None }) => {
                self.groups.remove(&group);
            }
            Some(GroupRecord::Unknown) => {}
            None => tracing::warn!(offset = record.offset, "a record of __consumer_offsets cannot be read"),
        }
    }
}

/// Java's `String.hashCode`, which places a group among the partitions of `__consumer_offsets` as Kafka does.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

struct Task {
    core: Core,
    inbox: mpsc::Receiver<Command>,
    waiting: HashMap<Ticket, oneshot::Sender<Reply>>,
    next_ticket: u64,
    started: Instant,
    store: Store,
}

impl Task {
    async fn run(mut self) {
        loop {
            let wait = match self.core.next_deadline_ms() {
                Some(at) => self.started + Duration::from_millis(at),
                None => Instant::now() + TICK,
            };
            tokio::select! {
                command = self.inbox.recv() => match command {
                    Some(Command::Close(closed)) => {
                        // The log's folder is free for the next only when nobody holds the log.
                        drop(self);
                        let _ = closed.send(());
                        return;
                    }
                    Some(command) => self.take(command).await,
                    None => return,
                },
                () = tokio::time::sleep_until(wait) => self.put(Input::Tick).await,
            }
        }
    }

    async fn take(&mut self, command: Command) {
        match command {
            Command::Input(input, sender) => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.waiting.insert(ticket, sender);
                self.put(input.make(ticket)).await;
            }
            Command::Describe(group, sender) => {
                let view = self.core.describe(&group).map(|(state, snapshot)| GroupView { state, snapshot });
                drop(sender.send(view));
            }
            Command::List(sender) => drop(sender.send(self.core.list())),
            Command::Close(sender) => drop(sender),
        }
    }

    async fn put(&mut self, input: Input) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut unstored = false;
        for effect in self.core.handle(now_ms, input) {
            match effect {
                Effect::Store(snapshot) => {
                    let now_ms = self.store.clock.now().as_millis();
                    let mut batch = BatchBuilder::new();
                    let key = records::group_key(&snapshot.group);
                    batch.push(now_ms, Some(&key), Some(&records::group_value(&snapshot, now_ms)), &[]);
                    if self.store.append(&snapshot.group, batch).await.is_err() {
                        unstored = true;
                    }
                }
                Effect::Reply(ticket, reply) => {
                    let Some(sender) = self.waiting.remove(&ticket) else { continue };
                    // What could not be stored is not promised: the member asks again.
                    let promises = matches!(reply, Reply::Synced(_) | Reply::Joined(_));
                    let reply = if unstored && promises { Reply::Refused(GroupError::Unavailable) } else { reply };
                    drop(sender.send(reply));
                }
            }
        }
    }
}
