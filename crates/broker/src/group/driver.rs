//! The coordinator at work: one task owns the core, gives it the time, stores what it says, and answers who waits.
//! Called by the group requests. Committed offsets are kept beside it, keyed by group.
//!
//! It guarantees: what a reply depends on is durable before the reply; what could not be stored is stored before the group is heard
//! again; offsets are visible only once durable.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use cairn_clock::{Clock, Settled};
use cairn_log::Log;
use parking_lot::RwLock;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::Instant,
};
use uuid::Uuid;

pub(super) mod pending;

use self::pending::Pending;
use super::{
    Ask, Effect, GroupError, GroupLimits, GroupSnapshot, GroupState, Groups, Identity, Input, Reply, Ticket,
    consumer::{self, Beat, ConsumerView, Named, Topics},
    offsets::{OffsetEntry, Offsets},
    records::{self, OffsetValue},
    store::Store,
};
use crate::{batch::BatchBuilder, standing::Committed, streams::StreamError, topics::Sight};

const COMMANDS_MAX: usize = 1_024;
/// How long the topics may be gone through for one expression.
const ASKING_MAX: Duration = Duration::from_secs(5);
const TICK: Duration = Duration::from_secs(60);

mod forgetting;

pub(crate) use forgetting::Place;

/// A group as DescribeGroups and ConsumerGroupDescribe show it.
#[derive(Debug, Clone)]
pub(crate) enum GroupView {
    Classic(GroupState, GroupSnapshot),
    Consumer(ConsumerView),
}

/// A group as ListGroups shows it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) state: &'static str,
    pub(crate) protocol_type: String,
    pub(crate) group_type: &'static str,
}

impl Listed {
    fn classic(name: String, state: GroupState, protocol_type: String) -> Self {
        Self { name, state: state.name(), protocol_type, group_type: "classic" }
    }
}

#[derive(Debug)]
enum Command {
    Input(Box<dyn FnOnceInput>, oneshot::Sender<Reply>),
    /// What an expression of a group names.
    Named {
        group: String,
        regex: String,
        version: u64,
        named: Option<Named>,
    },
    Describe(String, oneshot::Sender<Option<GroupView>>),
    DeleteOffsets(String, Vec<Place>, oneshot::Sender<Result<Vec<Result<(), GroupError>>, GroupError>>),
    List(oneshot::Sender<Vec<Listed>>),
    Close(oneshot::Sender<()>),
}

/// Makes an input once its ticket is known.
trait FnOnceInput: Send {
    fn make(self: Box<Self>, ticket: Ticket) -> Ask;
}

impl<I: Into<Ask>, F: FnOnce(Ticket) -> I + Send> FnOnceInput for F {
    fn make(self: Box<Self>, ticket: Ticket) -> Ask {
        self(ticket).into()
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
    /// What open transactions would commit.
    pending: Arc<RwLock<Pending>>,
    /// Bytes that these may take in memory.
    offsets_bytes_max: usize,
    store: Store,
    names: Names,
}

/// Which topics an expression names: found out on a thread of its own, one at a time, so that nobody's expression holds up the
/// groups of others.
#[derive(Debug, Clone)]
struct Names {
    topics: Sight,
    turn: Arc<Semaphore>,
}

impl Names {
    /// The version of the topics, then what is named.
    async fn find(&self, regex: String) -> Result<(u64, Named), GroupError> {
        let _turn = self.turn.acquire().await.map_err(|_| GroupError::Unavailable)?;
        let topics = self.topics.clone();
        let found = tokio::task::spawn_blocking(move || {
            let compiled = consumer::compile(&regex)?;
            let (version, ends) = (topics.version(), Instant::now() + ASKING_MAX);
            let mut named = Named::new();
            for name in topics.names() {
                if compiled.is_match(name.as_bytes()) {
                    named.insert(name);
                }
                if Instant::now() > ends {
                    tracing::warn!(regex, "an expression takes too long for the topics there are: it is refused");
                    return Err(GroupError::InvalidRegex);
                }
            }
            Ok((version, named))
        });
        found.await.map_err(|_| GroupError::Unavailable)?
    }
}

impl Coordinator {
    /// Reads `__consumer_offsets` back and starts the task.
    pub(crate) async fn open(
        log: Log,
        topic: Uuid,
        partitions: u32,
        limits: GroupLimits,
        (clock, settled): (Clock, Settled),
        topics: Sight,
    ) -> Result<Self, StreamError> {
        let store = Store { log, topic, partitions, clock };
        let loaded = store.load().await?;
        let offsets_bytes_max = limits.offsets_bytes_max;
        let (kept_ms, look_every) = (limits.offsets_kept_ms, Duration::from_millis(limits.offsets_look_ms.max(1)));
        let (offsets, pending) = (Arc::new(RwLock::new(loaded.offsets)), Arc::new(RwLock::new(loaded.pending)));
        let mut core = Groups::new(limits);
        for group in loaded.groups.into_values() {
            core.classic.restore(0, group);
        }
        for (name, group) in loaded.consumers {
            core.consumer.restore(0, name, group);
        }
        let names = Names { topics, turn: Arc::new(Semaphore::new(1)) };
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let task = Task {
            core,
            inbox,
            waiting: HashMap::new(),
            next_ticket: 0,
            started: Instant::now(),
            store: store.clone(),
            unstored: HashMap::new(),
            names: names.clone(),
            itself: commands.downgrade(),
            offsets: Arc::clone(&offsets),
            pending: Arc::clone(&pending),
            kept_ms,
            settled,
            look_every,
            look_at: Instant::now() + look_every,
            empty_since: loaded.empty_since,
        };
        tokio::spawn(task.run());
        Ok(Self { commands, offsets, pending, offsets_bytes_max, store, names })
    }

    /// Puts one input through the core and waits for its reply.
    pub(crate) async fn ask<I: Into<Ask>>(&self, input: impl FnOnce(Ticket) -> I + Send + 'static) -> Reply {
        let (sender, receiver) = oneshot::channel();
        if self.commands.send(Command::Input(Box::new(input), sender)).await.is_err() {
            return Reply::Refused(GroupError::Unavailable);
        }
        receiver.await.unwrap_or(Reply::Refused(GroupError::Unavailable))
    }

    /// A heartbeat of the new protocol. What its expression names is found out first.
    pub(crate) async fn beat(&self, group: String, mut beat: Beat) -> Reply {
        if let Some(regex) = beat.regex.clone().filter(|regex| !regex.is_empty()) {
            match self.names.find(regex).await {
                Ok(named) => beat.named = Some(named),
                Err(error) => return Reply::Refused(error),
            }
        }
        let beat = Box::new(beat);
        self.ask(move |ticket| consumer::Input::Beat { ticket, group, beat }).await
    }

    /// Whether a member of the new protocol may see what is committed with this epoch.
    pub(crate) async fn may_fetch(&self, group: String, member: Option<String>, epoch: i32) -> Result<(), GroupError> {
        match self.ask(move |ticket| consumer::Input::Fetch { ticket, group, member, epoch }).await {
            Reply::Refused(error) => Err(error),
            _ => Ok(()),
        }
    }

    /// Ends the task, and with it its hold on the log; who waits is told that the coordinator is away.
    pub(crate) async fn close(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.commands.send(Command::Close(sender)).await.is_ok() {
            let _ = receiver.await;
        }
    }

    /// Whether there is a group of that name, with members or only with offsets.
    pub(crate) async fn knows(&self, group: &str) -> bool {
        self.offsets.read().of_group(group).is_some() || self.describe(group).await.is_some()
    }

    /// The group as it is, if it is known.
    pub(crate) async fn describe(&self, group: &str) -> Option<GroupView> {
        let (sender, receiver) = oneshot::channel();
        self.commands.send(Command::Describe(group.to_owned(), sender)).await.ok()?;
        receiver.await.ok().flatten()
    }

    /// Forgets offsets that a group committed, of topics that its members do not read; one result each.
    pub(crate) async fn delete_offsets(
        &self,
        group: &str,
        wanted: Vec<Place>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let (sender, receiver) = oneshot::channel();
        let sent = self.commands.send(Command::DeleteOffsets(group.to_owned(), wanted, sender)).await;
        sent.map_err(|_| GroupError::Unavailable)?;
        receiver.await.unwrap_or(Err(GroupError::Unavailable))
    }

    /// All groups, those that only have offsets included.
    pub(crate) async fn list(&self) -> Vec<Listed> {
        let (sender, receiver) = oneshot::channel();
        let sent = self.commands.send(Command::List(sender)).await;
        let mut all = if sent.is_ok() { receiver.await.unwrap_or_default() } else { Vec::new() };
        let known: std::collections::HashSet<String> = all.iter().map(|listed| listed.name.clone()).collect();
        let offsets = self.offsets.read();
        let only_offsets = offsets.groups().map(|(name, _)| name).filter(|name| !known.contains(*name));
        all.extend(only_offsets.map(|name| Listed::classic(name.clone(), GroupState::Empty, String::new())));
        all
    }

    /// Commits offsets: asks the core, makes them durable, then makes them visible.
    pub(crate) async fn commit(
        &self,
        group: String,
        who: Identity,
        generation: i32,
        version: i16,
        entries: Vec<(String, i32, OffsetValue)>,
    ) -> Result<(), GroupError> {
        let name = group.clone();
        let reply = self.ask(move |ticket| Input::Commit { ticket, group: name, who, generation, version }).await;
        if let Reply::Refused(error) = reply {
            return Err(error);
        }
        self.check_room(&group, &entries)?;
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

    /// Whether committed offsets may take that much more memory.
    fn check_room(&self, group: &str, entries: &[(String, i32, OffsetValue)]) -> Result<(), GroupError> {
        let committed = self.offsets.read().bytes_with(group, entries);
        let pending = self.pending.read().bytes();
        if committed + pending <= self.offsets_bytes_max {
            return Ok(());
        }
        tracing::warn!(group, "committed offsets take as much memory as they may: delete groups, or raise the limit");
        Err(GroupError::OffsetsFull)
    }

    /// Forgets what groups committed for topics that are no more, so that no offset comes to mean another topic's data.
    pub(crate) async fn forget_topics(&self, gone: impl Fn(&str) -> bool) -> Result<(), GroupError> {
        self.pending.write().retain(|_, topic| !gone(topic));
        let found = self.offsets.read().of_topics(&gone);
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

    /// Every committed offset of every group.
    pub(crate) fn committed_everywhere(&self) -> Vec<Committed> {
        let offsets = self.offsets.read();
        let mut found = Vec::new();
        for (group, of_group) in offsets.groups() {
            found.extend(of_group.iter().map(|((topic, partition), entry)| Committed {
                group: group.clone(),
                topic: topic.clone(),
                partition: *partition,
                offset: entry.value.offset,
                committed_ms: entry.value.committed_ms,
            }));
        }
        found
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
        self.pending.write().retain(|of, _| of != group);
        Ok(())
    }
}

struct Task {
    core: Groups,
    inbox: mpsc::Receiver<Command>,
    waiting: HashMap<Ticket, oneshot::Sender<Reply>>,
    next_ticket: u64,
    started: Instant,
    store: Store,
    /// By group, records that could not be written: the newest of each key, so that they are no more than the group is large.
    unstored: HashMap<String, Records>,
    names: Names,
    /// The way to itself for what is found out elsewhere; it does not keep the task alive.
    itself: mpsc::WeakSender<Command>,
    offsets: Arc<RwLock<Offsets>>,
    pending: Arc<RwLock<Pending>>,
    /// How long offsets are kept that nobody uses.
    kept_ms: Option<u64>,
    /// The hour by which they are old.
    settled: Settled,
    look_every: Duration,
    /// When they are looked at next.
    look_at: Instant,
    /// When classic groups lost their last member.
    empty_since: HashMap<String, i64>,
}

/// Key and value of records of one group.
type Records = BTreeMap<Bytes, Option<Bytes>>;

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
                () = tokio::time::sleep_until(wait) => self.put(Input::Tick.into()).await,
                () = tokio::time::sleep_until(self.look_at) => {
                    self.expire().await;
                    self.look_at = Instant::now() + self.look_every;
                }
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
            Command::Named { group, regex, version, named } => {
                self.put(consumer::Input::Named { group, regex, version, named }.into()).await;
            }
            Command::Describe(group, sender) => {
                let classic = || self.core.classic.describe(&group);
                let view = match self.core.consumer.describe(&group) {
                    Some(view) => Some(GroupView::Consumer(view)),
                    None => classic().map(|(state, snapshot)| GroupView::Classic(state, snapshot)),
                };
                drop(sender.send(view));
            }
            Command::DeleteOffsets(group, wanted, sender) => {
                drop(sender.send(self.delete_offsets(&group, wanted).await));
            }
            Command::List(sender) => {
                let classic = self.core.classic.list().into_iter();
                let mut all: Vec<Listed> = classic.map(|(name, state, of)| Listed::classic(name, state, of)).collect();
                all.extend(self.core.consumer.list().map(|(name, state)| Listed {
                    name: name.clone(),
                    state: state.name(),
                    protocol_type: "consumer".to_owned(),
                    group_type: "consumer",
                }));
                drop(sender.send(all));
            }
            Command::Close(sender) => drop(sender),
        }
    }

    async fn put(&mut self, ask: Ask) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // What could not be stored before comes first: the group is further than its records.
        let mut unstored = match ask.group() {
            Some(group) if self.unstored.contains_key(group) => {
                let group = group.to_owned();
                !self.write(&group, Records::new()).await
            }
            _ => false,
        };
        let topics = self.names.topics.clone();
        for effect in self.core.handle(now_ms, ask, &topics) {
            match effect {
                Effect::Store(snapshot) => {
                    let now_ms = self.store.clock.now().as_millis();
                    if snapshot.members.is_empty() {
                        self.empty_since.insert(snapshot.group.clone(), now_ms);
                    } else {
                        self.empty_since.remove(&snapshot.group);
                    }
                    let value = records::group_value(&snapshot, now_ms);
                    let record = (records::group_key(&snapshot.group).freeze(), Some(value.freeze()));
                    unstored |= !self.write(&snapshot.group, [record].into()).await;
                }
                Effect::Change { group, changes } => {
                    let (now_ms, version) = (self.store.clock.now().as_millis(), topics.version());
                    let mut written = Records::new();
                    for change in changes {
                        let (key, value) = consumer::records::encode(&group, &change, now_ms, version);
                        written.insert(key.freeze(), value.map(BytesMut::freeze));
                    }
                    unstored |= !self.write(&group, written).await;
                }
                Effect::Ask { group, regexes } => self.find_names(group, regexes),
                Effect::Reply(ticket, reply) => {
                    let Some(sender) = self.waiting.remove(&ticket) else { continue };
                    // What could not be stored is not promised: the member asks again.
                    let promises = matches!(reply, Reply::Synced(_) | Reply::Joined(_) | Reply::Told(_));
                    let reply = if unstored && promises { Reply::Refused(GroupError::Unavailable) } else { reply };
                    drop(sender.send(reply));
                }
            }
        }
    }

    /// Makes records of a group durable in one batch, with those that could not be written before; whether they are.
    async fn write(&mut self, group: &str, records: Records) -> bool {
        let mut all = self.unstored.remove(group).unwrap_or_default();
        all.extend(records);
        let now_ms = self.store.clock.now().as_millis();
        let mut batch = BatchBuilder::new();
        for (key, value) in &all {
            batch.push(now_ms, Some(key), value.as_deref(), &[]);
        }
        let written = self.store.append(group, batch).await.is_ok();
        if !written {
            self.unstored.insert(group.to_owned(), all);
        }
        written
    }

    /// Has expressions asked beside the task, which goes on.
    fn find_names(&self, group: String, regexes: Vec<String>) {
        let (names, itself) = (self.names.clone(), self.itself.clone());
        tokio::spawn(async move {
            for regex in regexes {
                let found = names.find(regex.clone()).await;
                let (version, named) = found.map_or((0, None), |(version, named)| (version, Some(named)));
                let Some(commands) = itself.upgrade() else { return };
                let told = Command::Named { group: group.clone(), regex, version, named };
                if commands.send(told).await.is_err() {
                    return;
                }
            }
        });
    }
}
