//! A Kafka cluster as backbone: whatever is appended is durable in a local spool first, then delivered.
//!
//! The wiring opens one for `backbone.kind = "kafka"`. An append is acknowledged when the spool has synced it, so that a
//! cluster that is away stops nothing before the spool is full. Where the cluster answers at the start, what an earlier run
//! left in the spool is delivered first, each event once, and the topics are the truth that the recorder reads back. Where it
//! does not, and this folder's topics were checked once before, the spool and its [`history`] stand in, and delivery checks
//! the topics before it sends. It must never reorder what one caller appended to a partition.

mod checked;
mod cluster;
mod deliver;
pub(crate) mod frame;
pub(crate) mod history;
mod options;
mod plan;
mod sealed;
mod spool;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use cairn_contract::{EventRecord, Topic, TopicPrefix, TopicSpec, topics};
use cairn_keys::AtRest;
use parking_lot::Mutex;
use rdkafka::{ClientConfig, error::KafkaError};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::{
    checked::Checked,
    cluster::Cluster,
    frame::{Frame, PAYLOAD_BYTES_MAX},
    history::History,
    spool::{Position, Spool},
};
use crate::{AppendError, Appended, Backbone, BackboneStats, Bounds, Kept, ReadError, Slice, TopicError};

pub use cluster::Silence;
pub(crate) use cluster::reading;
pub use options::{KafkaOptions, PropertyError, client_config};
pub use plan::{Plan, plan};
pub use spool::SpoolError;

/// Appends that wait for the spool's writer.
const APPENDS_WAITING_MAX: usize = 1_024;
/// Appends that share one sync.
const GROUP_MAX: usize = 256;
/// How long a start waits for a cluster that it can do without.
const KNOWN_WITHIN_MAX: Duration = Duration::from_secs(5);
/// How long closing waits for delivery.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// Why a cluster does not serve as backbone.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A property is wrong.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// librdkafka refused the configuration.
    #[error("the cluster at {bootstrap} cannot be used: {source}; check backbone.properties")]
    Client {
        /// Where.
        bootstrap: String,
        /// What librdkafka said.
        source: KafkaError,
    },
    /// The cluster did not answer, and nothing stands in for it.
    #[error(
        "the cluster at {bootstrap} does not answer: {source}; {why}: check backbone.bootstrap and its properties, and that the cluster runs"
    )]
    Away {
        /// Where.
        bootstrap: String,
        /// What librdkafka said last.
        source: Silence,
        /// Why the spool cannot stand in.
        why: &'static str,
    },
    /// The spool does not open.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What an earlier run left could not be delivered.
    #[error(
        "{events} events of an earlier run wait in the spool and none was delivered within {within:?}{why}: start again when the cluster takes them"
    )]
    Undelivered {
        /// How many are left.
        events: u64,
        /// How long was waited without any progress.
        within: Duration,
        /// What delivery said last, where it said something.
        why: String,
    },
}

/// A Kafka cluster behind a spool.
#[derive(Debug)]
pub struct KafkaBackbone {
    shared: Arc<Shared>,
    appends: mpsc::Sender<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    topic: Topic,
    partition: u32,
    bytes: Bytes,
    events: u64,
    floor: u64,
    reply: oneshot::Sender<Result<Appended, AppendError>>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    config: ClientConfig,
    prefix: TopicPrefix,
    folder: PathBuf,
    at_rest: AtRest,
    bytes_max: u64,
    spool: Mutex<Spool>,
    cluster: Arc<Mutex<Cluster>>,
    partitions: Mutex<HashMap<Topic, u32>>,
    /// The place up to which frames are durable.
    grown: watch::Sender<Position>,
    delivered: Mutex<Position>,
    /// For each partition, an offset that no later event lies before.
    reached: Mutex<HashMap<(Topic, u32), u64>>,
    away: AtomicBool,
    /// Whether this run has seen that the topics are as they must be.
    topics_checked: AtomicBool,
    /// Why delivery stopped last.
    stopped: Mutex<Option<String>>,
    bootstrap: String,
    /// What was delivered and is needed by a start without the cluster.
    history: Mutex<History>,
    /// What stands in for the topics where the cluster was away at the start.
    kept: Option<Vec<Kept>>,
    /// Events in the spool that the cluster has not acknowledged.
    waiting_events: AtomicU64,
    closed: CancellationToken,
}

impl KafkaBackbone {
    /// Opens the spool and reaches the cluster. Where it answers, what an earlier run left in the spool is delivered before
    /// this returns; where it does not, and the spool can stand in, this returns all the same.
    ///
    /// # Errors
    /// Wrong properties, a cluster that does not answer and cannot be done without, a damaged spool, or one that is not taken.
    pub async fn open(options: KafkaOptions) -> Result<Self, OpenError> {
        let config = options.config()?;
        let (setup, client) = (options.clone(), config.clone());
        let opened = tokio::task::spawn_blocking(move || Opened::new(&setup, &client));
        let Opened { cluster, spool, history, kept, partitions } = opened.await.expect("opening does not panic")?;
        let (start, end) = (spool.start(), spool.end());
        let is_away = kept.is_some();
        let reached = partitions.iter().flat_map(|(topic, count)| (0..*count).map(|partition| (*topic, partition)));
        let reached = match &kept {
            Some(kept) => reached.map(|place| (place, floor_of(kept, place))).collect(),
            None => HashMap::new(),
        };
        let shared = Arc::new(Shared {
            config,
            prefix: options.prefix.clone(),
            folder: spool.folder(),
            at_rest: options.at_rest.clone(),
            bytes_max: options.spool_bytes_max,
            grown: watch::Sender::new(end),
            delivered: Mutex::new(start),
            waiting_events: AtomicU64::new(spool.events_at_open()),
            spool: Mutex::new(spool),
            cluster: Arc::new(Mutex::new(cluster)),
            partitions: Mutex::new(if is_away { partitions } else { HashMap::new() }),
            reached: Mutex::new(reached),
            away: AtomicBool::new(is_away),
            topics_checked: AtomicBool::new(false),
            stopped: Mutex::default(),
            bootstrap: options.bootstrap.clone(),
            history: Mutex::new(history),
            kept,
            closed: CancellationToken::new(),
        });
        let (appends, waiting) = mpsc::channel(APPENDS_WAITING_MAX);
        let writer = shared.clone();
        tokio::task::spawn_blocking(move || write(&writer, waiting));
        tokio::spawn(deliver::run(shared.clone()));
        let backbone = Self { shared, appends };
        if !is_away {
            backbone.drained(options.ready_within).await?;
        }
        Ok(backbone)
    }

    /// Whether the cluster was away when this was opened, so that the spool stands in for it.
    #[must_use]
    pub fn opened_without_cluster(&self) -> bool {
        self.shared.kept.is_some()
    }

    /// Waits until everything that is durable in the spool is in its topics.
    ///
    /// # Errors
    /// [`OpenError::Undelivered`] where nothing more was delivered for so long.
    pub async fn drained(&self, within: Duration) -> Result<(), OpenError> {
        let mut seen = self.shared.delivered();
        let mut since = Instant::now();
        while self.shared.delivered() < *self.shared.grown.borrow() {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let delivered = self.shared.delivered();
            if delivered > seen {
                (seen, since) = (delivered, Instant::now());
            } else if since.elapsed() >= within {
                let events = self.shared.waiting_events.load(Ordering::Relaxed);
                let why = self.shared.stopped.lock().as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
                return Err(OpenError::Undelivered { events, within, why });
            }
        }
        Ok(())
    }
}

/// What opening finds on disk and on the network.
struct Opened {
    cluster: Cluster,
    spool: Spool,
    history: History,
    kept: Option<Vec<Kept>>,
    partitions: HashMap<Topic, u32>,
}

impl Opened {
    /// Blocks until the cluster answers or has been waited for.
    fn new(options: &KafkaOptions, config: &ClientConfig) -> Result<Self, OpenError> {
        let bootstrap = options.bootstrap.clone();
        let client = |source| OpenError::Client { bootstrap: bootstrap.clone(), source };
        let cluster = Cluster::new(config, options).map_err(client)?;
        let spool = Spool::open(&options.spool, options.spool_bytes_max, options.at_rest.clone())?;
        let history = History::load(&options.spool, &options.at_rest)?;
        let checked = Checked::load(&options.spool);
        let stand_in = match &checked {
            None => Err("this data folder has not seen its topics yet, so nothing stands in for it"),
            Some(checked) if checked.bootstrap != options.bootstrap => {
                Err("this data folder knows another cluster only, so nothing stands in for this one")
            }
            Some(_) if history.is_none() && spool.was_trimmed() => {
                Err("the spool's history is missing, so the own events must be read from it")
            }
            Some(checked) => Ok(checked.partitions()),
        };
        let history = history.unwrap_or_default();
        let within = match &stand_in {
            Ok(_) => options.ready_within.min(KNOWN_WITHIN_MAX),
            Err(_) => options.ready_within,
        };
        let Err(source) = cluster.wait(within) else {
            return Ok(Self { cluster, spool, history, kept: None, partitions: HashMap::new() });
        };
        let partitions = stand_in.map_err(|why| OpenError::Away { bootstrap, source: source.clone(), why })?;
        let mut whole = history.clone();
        let (mut at, end) = (spool.start(), spool.end());
        while at < end {
            let frames = spool::read(&spool.folder(), &options.at_rest, at, end, spool::READ_BYTES)?;
            let Some((_, after)) = frames.last() else { break };
            at = *after;
            frames.iter().for_each(|(frame, _)| whole.fold(frame));
        }
        tracing::warn!(bootstrap = options.bootstrap, reason = %source, "the cluster is away: strict calls go to the spool");
        Ok(Self { cluster, spool, history, kept: Some(whole.kept()), partitions })
    }
}

/// The offset that nothing appended from now on lies before.
fn floor_of(kept: &[Kept], (topic, partition): (Topic, u32)) -> u64 {
    let of_partition = kept.iter().filter(|kept| kept.topic == topic && kept.partition == partition);
    of_partition.map(|kept| kept.floor).max().unwrap_or(0)
}

/// The spool's one writer: gathers, writes, syncs once, answers. Ends when the backbone is dropped.
fn write(shared: &Shared, mut waiting: mpsc::Receiver<Waiting>) {
    while let Some(first) = waiting.blocking_recv() {
        let mut group = vec![first];
        while group.len() < GROUP_MAX
            && let Ok(next) = waiting.try_recv()
        {
            group.push(next);
        }
        let frames: Vec<Bytes> = group.iter().map(|append| append.bytes.clone()).collect();
        let mut spool = shared.spool.lock();
        let written = spool.append(&frames);
        let end = spool.end();
        drop(spool);
        // One that does not fit must not refuse the smaller ones beside it.
        if group.len() > 1 && matches!(written, Err(SpoolError::Full { .. })) {
            for append in group {
                let written = shared.spool.lock().append(std::slice::from_ref(&append.bytes));
                let end = shared.spool.lock().end();
                answer(shared, vec![append], &written, end);
            }
        } else {
            answer(shared, group, &written, end);
        }
    }
}

fn answer(shared: &Shared, group: Vec<Waiting>, written: &Result<(), SpoolError>, end: Position) {
    if written.is_ok() {
        // Counted before delivery can see them.
        let events = group.iter().map(|append| append.events).sum();
        shared.waiting_events.fetch_add(events, Ordering::Relaxed);
        shared.grown.send_replace(end);
    }
    for append in group {
        let result = match written {
            Ok(()) => Ok(Appended { offset: None, floor: append.floor }),
            Err(error @ SpoolError::Full { .. }) => Err(AppendError::Full { reason: error.to_string() }),
            Err(error) => Err(AppendError::Failed { reason: error.to_string() }),
        };
        if append.reply.send(result).is_err() {
            tracing::debug!(topic = %append.topic, partition = append.partition, "nobody waits for this append any more");
        }
    }
}

impl Shared {
    fn delivered(&self) -> Position {
        *self.delivered.lock()
    }

    fn advance(&self, to: Position) {
        let mut delivered = self.delivered.lock();
        if to <= *delivered {
            return;
        }
        *delivered = to;
        drop(delivered);
        let trims = self.spool.lock().trims(to);
        // The history is durable before what it stands for is removed.
        if trims && let Err(error) = self.history.lock().save(&self.folder, &self.at_rest) {
            tracing::warn!(%error, "a delivered part of the spool is kept because its history could not be written");
            return;
        }
        let mut spool = self.spool.lock();
        match spool.trim(to) {
            Ok(()) => {
                self.grown.send_if_modified(|end| {
                    let moved = *end < spool.end() && to == *end;
                    if moved {
                        *end = spool.end();
                    }
                    moved
                });
            }
            Err(error) => tracing::warn!(%error, "a delivered part of the spool could not be removed"),
        }
    }

    fn reached(&self, topic: Topic, partition: u32, offset: u64) {
        let mut reached = self.reached.lock();
        let at = reached.entry((topic, partition)).or_default();
        *at = offset.max(*at);
    }

    /// Topics that cannot be looked at now are believed to be as they were.
    fn were_checked(&self, specs: &[TopicSpec]) -> Result<(), TopicError> {
        let known = self.partitions.lock();
        for spec in specs {
            match known.get(&spec.topic) {
                Some(found) if *found == spec.partitions => {}
                Some(found) => {
                    let (topic, found, needed) = (spec.name, *found, spec.partitions);
                    return Err(TopicError::Partitions { topic, found, needed });
                }
                None => {
                    let reason = "the cluster is away, and it was not checked before".to_owned();
                    return Err(TopicError::Failed { topic: spec.name, reason });
                }
            }
        }
        Ok(())
    }

    /// Notes that the topics are as they must be, so that a later start can do without the cluster.
    fn remember_checked(&self) {
        self.topics_checked.store(true, Ordering::Relaxed);
        let checked = Checked::new(&self.bootstrap, &self.partitions.lock());
        if let Err(error) = checked.save(&self.folder) {
            tracing::warn!(%error, "a later start will need the cluster: the note that its topics are right was not written");
        }
    }

    /// Creates or checks the topics before anything is sent, where the start could not.
    async fn check_topics(&self) -> Result<(), TopicError> {
        self.ask(|cluster| cluster.ensure(&topics())).await?;
        let mut partitions = self.partitions.lock();
        partitions.extend(topics().iter().map(|spec| (spec.topic, spec.partitions)));
        drop(partitions);
        self.remember_checked();
        Ok(())
    }

    /// Whether the cluster answers within that time.
    async fn answers(&self, within: Duration) -> bool {
        self.ask(move |cluster| cluster.wait(within)).await.is_ok()
    }

    async fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Cluster) -> T + Send + 'static) -> T {
        let cluster = self.cluster.clone();
        tokio::task::spawn_blocking(move || question(&mut cluster.lock()))
            .await
            .expect("asking a cluster does not panic")
    }

    async fn read(&self, topic: Topic, partition: u32, from: u64, max_bytes: usize) -> Result<Slice, ReadError> {
        self.ask(move |cluster| cluster.read(topic, partition, from, max_bytes)).await
    }
}

#[async_trait]
impl Backbone for KafkaBackbone {
    async fn ensure_topics(&self, specs: &[TopicSpec]) -> Result<(), TopicError> {
        let wanted = specs.to_vec();
        if self.opened_without_cluster() && !self.shared.topics_checked.load(Ordering::Relaxed) {
            return self.shared.were_checked(specs);
        }
        self.shared.ask(move |cluster| cluster.ensure(&wanted)).await?;
        self.shared.partitions.lock().extend(specs.iter().map(|spec| (spec.topic, spec.partitions)));
        // From here on, each partition's end is a floor for what this process appends.
        for spec in topics().into_iter().filter(|spec| specs.contains(spec)) {
            for partition in 0..spec.partitions {
                let topic = spec.topic;
                let end = self.shared.ask(move |cluster| cluster.bounds(topic, partition)).await;
                if let Ok(Bounds { start, end }) = end {
                    self.shared.reached(topic, partition, end);
                    if start == end {
                        self.shared.history.lock().forget(topic, partition);
                    }
                }
            }
        }
        self.shared.remember_checked();
        Ok(())
    }

    async fn partitions(&self, topic: Topic) -> Result<u32, TopicError> {
        let known = self.shared.partitions.lock().get(&topic).copied();
        match known {
            Some(partitions) => Ok(partitions),
            None => self.shared.ask(move |cluster| cluster.partitions(topic)).await,
        }
    }

    async fn append(&self, topic: Topic, partition: u32, records: Vec<EventRecord>) -> Result<Appended, AppendError> {
        let known = self.shared.partitions.lock().get(&topic).copied();
        if known.is_none_or(|partitions| partition >= partitions) {
            return Err(AppendError::Failed {
                reason: format!("{topic} has no partition {partition}: ensure topics first"),
            });
        }
        let floor = self.shared.reached.lock().get(&(topic, partition)).copied().unwrap_or(0);
        let events = records.len() as u64;
        let bytes = Frame { topic, partition, floor, records }.encode();
        if bytes.len() > PAYLOAD_BYTES_MAX {
            return Err(AppendError::Failed { reason: format!("an append of {} bytes is too large", bytes.len()) });
        }
        let (reply, wait) = oneshot::channel();
        let waiting = Waiting { topic, partition, bytes, events, floor, reply };
        self.appends.send(waiting).await.map_err(|_| AppendError::Closed)?;
        wait.await.map_err(|_| AppendError::Closed)?
    }

    async fn read(&self, topic: Topic, partition: u32, from: u64, max_bytes: usize) -> Result<Slice, ReadError> {
        self.shared.read(topic, partition, from, max_bytes).await
    }

    async fn bounds(&self, topic: Topic, partition: u32) -> Result<Bounds, ReadError> {
        self.shared.ask(move |cluster| cluster.bounds(topic, partition)).await
    }

    fn why_no_headroom(&self) -> String {
        let stats = self.stats();
        format!(
            "the spool holds {} of {} bytes and the rest is kept for outcomes: bring the cluster back or raise the spool's bound",
            stats.spool_bytes, stats.spool_bytes_max
        )
    }

    fn headroom(&self) -> Option<u64> {
        Some(self.shared.spool.lock().headroom())
    }

    fn append_is_atomic(&self) -> bool {
        true
    }

    fn kept(&self) -> Option<Vec<Kept>> {
        self.shared.kept.clone()
    }

    fn stats(&self) -> BackboneStats {
        let used = self.shared.spool.lock().used();
        BackboneStats {
            spool_events: self.shared.waiting_events.load(Ordering::Relaxed),
            spool_bytes: used,
            spool_bytes_max: self.shared.bytes_max,
            away: self.shared.away.load(Ordering::Relaxed),
        }
    }

    async fn close(&self) {
        if !self.shared.away.load(Ordering::Relaxed) {
            // What is left is delivered at the next start.
            let _ = tokio::time::timeout(CLOSE_WITHIN, self.drained(CLOSE_WITHIN)).await;
        }
        self.shared.closed.cancel();
    }
}

impl Drop for KafkaBackbone {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}
