//! A Kafka cluster as backbone: whatever is appended is durable in a local spool first, then delivered.
//!
//! The wiring opens one for `backbone.kind = "kafka"`. An append is acknowledged when the spool has synced it, so that a
//! cluster that is away stops nothing before the spool is full. Opening needs the cluster: a gateway must read its own events
//! back before it writes more, and what an earlier run left in the spool is delivered first, each event once.
//! It must never reorder what one caller appended to a partition.

mod cluster;
mod deliver;
mod frame;
mod options;
mod plan;
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
use cairn_contract::{EventRecord, Topic, TopicSpec, topics};
use parking_lot::Mutex;
use rdkafka::{ClientConfig, error::KafkaError};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use self::{
    cluster::Cluster,
    frame::{Frame, PAYLOAD_BYTES_MAX},
    spool::{Position, Spool},
};
use crate::{AppendError, Appended, Backbone, BackboneStats, Bounds, ReadError, Slice, TopicError};

pub(crate) use cluster::reading;
pub use options::{KafkaOptions, PropertyError, client_config};
pub use plan::plan;
pub use spool::SpoolError;

/// Appends that wait for the spool's writer.
const APPENDS_WAITING_MAX: usize = 1_024;
/// Appends that share one sync.
const GROUP_MAX: usize = 256;

/// Why a cluster does not serve as backbone.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A property is wrong.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// librdkafka refused the configuration, or the cluster did not answer.
    #[error(
        "the cluster at {bootstrap} cannot be used: {source}; check backbone.bootstrap and its properties, and that the cluster runs"
    )]
    Cluster {
        /// Where.
        bootstrap: String,
        /// What librdkafka said.
        source: KafkaError,
    },
    /// The spool does not open.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// What an earlier run left could not be delivered.
    #[error(
        "{bytes} bytes of an earlier run could not be delivered within {within:?}: start again when the cluster takes them"
    )]
    Undelivered {
        /// What is left.
        bytes: u64,
        /// How long was waited.
        within: Duration,
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
    folder: PathBuf,
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
    /// Events in the spool that the cluster has not acknowledged.
    waiting_events: AtomicU64,
    closed: CancellationToken,
}

impl KafkaBackbone {
    /// Reaches the cluster, opens the spool, and delivers what an earlier run left in it.
    ///
    /// # Errors
    /// Wrong properties, a cluster that does not answer in time, a damaged spool, or one that cannot be delivered in time.
    pub async fn open(options: KafkaOptions) -> Result<Self, OpenError> {
        let config = options.config()?;
        let (setup, within) = (options.clone(), options.ready_within);
        let bootstrap = options.bootstrap.clone();
        let cluster_config = config.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let of = |source| OpenError::Cluster { bootstrap: bootstrap.clone(), source };
            let cluster = Cluster::new(&cluster_config, &setup).map_err(of)?;
            cluster.wait(setup.ready_within).map_err(of)?;
            Ok::<_, OpenError>((cluster, Spool::open(&setup.spool, setup.spool_bytes_max)?))
        });
        let (cluster, spool) = opened.await.expect("opening does not panic")?;
        let (start, end) = (spool.start(), spool.end());
        let shared = Arc::new(Shared {
            config,
            folder: spool.folder(),
            bytes_max: options.spool_bytes_max,
            grown: watch::Sender::new(end),
            delivered: Mutex::new(start),
            waiting_events: AtomicU64::new(spool.events_at_open()),
            spool: Mutex::new(spool),
            cluster: Arc::new(Mutex::new(cluster)),
            partitions: Mutex::default(),
            reached: Mutex::default(),
            away: AtomicBool::new(false),
            closed: CancellationToken::new(),
        });
        let (appends, waiting) = mpsc::channel(APPENDS_WAITING_MAX);
        let writer = shared.clone();
        tokio::task::spawn_blocking(move || write(&writer, waiting));
        tokio::spawn(deliver::run(shared.clone()));
        let backbone = Self { shared, appends };
        backbone.drained(within).await?;
        Ok(backbone)
    }

    /// Waits until everything that is durable in the spool is in its topics.
    ///
    /// # Errors
    /// [`OpenError::Undelivered`] where that takes longer.
    pub async fn drained(&self, within: Duration) -> Result<(), OpenError> {
        let all = async {
            while self.shared.delivered() < *self.shared.grown.borrow() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let bytes = || self.shared.spool.lock().used();
        tokio::time::timeout(within, all).await.map_err(|_| OpenError::Undelivered { bytes: bytes(), within })
    }
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
        self.shared.ask(move |cluster| cluster.ensure(&wanted)).await?;
        self.shared.partitions.lock().extend(specs.iter().map(|spec| (spec.topic, spec.partitions)));
        // From here on, each partition's end is a floor for what this process appends.
        for spec in topics().into_iter().filter(|spec| specs.contains(spec)) {
            for partition in 0..spec.partitions {
                let topic = spec.topic;
                let end = self.shared.ask(move |cluster| cluster.bounds(topic, partition)).await;
                if let Ok(Bounds { end, .. }) = end {
                    self.shared.reached(topic, partition, end);
                }
            }
        }
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

    fn headroom(&self) -> Option<u64> {
        Some(self.shared.spool.lock().headroom())
    }

    fn append_is_atomic(&self) -> bool {
        true
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
        let _ = self.drained(Duration::from_secs(5)).await; // what is left is delivered at the next start
        self.shared.closed.cancel();
    }
}

impl Drop for KafkaBackbone {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}
