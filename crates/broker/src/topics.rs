//! The catalogue: which topics there are, with ids and configs. Called by the broker.
//!
//! It is kept as records of an internal stream (topic id nil, partition 0) of the same log, one JSON object a record:
//!
//! | key | value |
//! | --- | --- |
//! | `format` | `{"version":1}` |
//! | `cluster` | `{"id":"<uuid>"}` |
//! | `epoch` | `{"epoch":<n>}`: higher at each start; producer ids are this epoch and a counter, so none is given twice |
//! | `topic/<uuid>` | `{"name":…,"partitions":…,"configs":{…}}`, or nothing when it was deleted |
//! | `scram…`, `acl…` | as `access` says |
//! | `quota/…` | as `quotas` says |
//! | `config/…` | as `resources` says |
//!
//! A change is durable before anybody sees it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, atomic::AtomicU32, atomic::Ordering},
};

use cairn_clock::{Clock, Entropy};
use cairn_log::{Compaction, Log, PartitionIndex, Retention, StreamId};
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    batch::BatchBuilder,
    dynamic::{self, Defaults},
    options::BrokerOptions,
    quotas, resources, share,
    streams::{self, StreamError},
    txn::STATE_TOPIC,
};

pub(crate) mod configs;
mod sight;

use configs::TopicConfigs;
pub(crate) use sight::Sight;

const FORMAT_VERSION: u32 = 1;

/// A topic as the broker uses it.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    pub(crate) partitions: u32,
    pub(crate) configs: TopicConfigs,
}

impl Topic {
    /// The stream of a partition, if there is such a partition.
    pub(crate) fn stream(&self, partition: i32) -> Option<StreamId> {
        let partition = u32::try_from(partition).ok().filter(|partition| *partition < self.partitions)?;
        Some(StreamId::new(self.id, PartitionIndex::new(partition)))
    }

    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        (0..self.partitions).map(|partition| StreamId::new(self.id, PartitionIndex::new(partition)))
    }

    /// Whether clients must not write it, whatever their rights.
    pub(crate) fn is_internal(&self) -> bool {
        is_internal(&self.name)
    }
}

fn is_internal(topic: &str) -> bool {
    [OFFSETS_TOPIC, STATE_TOPIC, share::STATE_TOPIC].contains(&topic)
}

/// Whether a topic is one of those that only some may write: by its own name, or a tenant's behind the tenant's name.
pub(crate) fn is_protected(topic: &str, prefix: &str) -> bool {
    let of_tenant = || topic.split_once('.').is_some_and(|(_, rest)| rest.starts_with(prefix));
    !prefix.is_empty() && (topic.starts_with(prefix) || of_tenant())
}

/// Whether a topic may be called that.
pub(crate) fn is_topic_name(name: &str) -> bool {
    let right = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name != "." && name != ".." && name.chars().all(right)
}

/// How long the name of a topic may be, as in Kafka.
const NAME_BYTES_MAX: usize = 249;

/// Kafka's name of the topic that holds committed offsets and groups.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

#[derive(Debug, Default)]
struct Known {
    by_name: BTreeMap<String, Arc<Topic>>,
    by_id: HashMap<Uuid, Arc<Topic>>,
    /// Of all topics.
    partitions: usize,
    /// Rises with each topic that comes, goes or changes.
    version: u64,
}

#[derive(Serialize, Deserialize)]
struct StoredTopic {
    name: String,
    partitions: u32,
    configs: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct StoredFormat {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct StoredCluster {
    id: Uuid,
}

#[derive(Serialize, Deserialize)]
struct StoredEpoch {
    epoch: u32,
}

/// Why the catalogue cannot be opened or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatalogueError {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("record `{key}` of the catalogue cannot be read: {source}")]
    Record { key: String, source: serde_json::Error },
    #[error("record `{key}` of the catalogue holds what is not base64")]
    Bytes { key: String },
    #[error("the catalogue has format version {found}, this program knows {FORMAT_VERSION}: use a newer one")]
    Format { found: u32 },
    #[error("cannot create or change stream {stream:?}: {reason}")]
    Log { stream: StreamId, reason: String },
    #[error("topic `{name}` exists already")]
    Exists { name: String },
    #[error("topic `{name}` does not exist")]
    Unknown { name: String },
}

#[derive(Debug)]
pub(crate) struct Catalogue {
    log: Log,
    clock: Clock,
    entropy: Entropy,
    known: Arc<RwLock<Known>>,
    /// Held while a change is made durable, so that changes have one order.
    changing: tokio::sync::Mutex<()>,
    cluster: Uuid,
    epoch: u32,
    next_producer: AtomicU32,
    /// What brokers were told for topics that do not say.
    defaults: RwLock<Defaults>,
    node: i32,
    /// What the names of topics begin with that Cairn alone writes: these take no such thing.
    sheltered: String,
    /// What was read back for `access`, until that takes it.
    access: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The same for `quotas`.
    quotas: Mutex<BTreeMap<String, Vec<u8>>>,
    /// The same for `resources`.
    resources: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Catalogue {
    /// Reads the catalogue back, and begins a new broker epoch.
    pub(crate) async fn open(
        log: Log,
        options: &BrokerOptions,
        clock: Clock,
        entropy: Entropy,
    ) -> Result<Self, CatalogueError> {
        let stream = own_stream();
        ensure_stream(&log, stream, Retention { ms: None, bytes: None }).await?;
        // Of each key the newest record is all that is read here.
        let set = log.set_compaction(stream, Some(Compaction::default()));
        set.map_err(|error| CatalogueError::Log { stream, reason: error.to_string() })?;
        let mut stored = Stored::default();
        let mut failure = None;
        streams::replay(&log, stream, |record| {
            let key = record.key.as_deref().and_then(|key| std::str::from_utf8(key).ok()).unwrap_or_default();
            if let (None, Err(error)) = (&failure, stored.take(key, record.value.as_deref())) {
                failure = Some(error);
            }
        })
        .await?;
        if let Some(failure) = failure {
            return Err(failure);
        }
        // The log's epoch is given by the store's owner and never again, also where records of ours were lost.
        let epoch = stored.epoch.saturating_add(1).max(log.epoch().get());
        let cluster = stored.cluster.unwrap_or_else(|| entropy.uuid_v7(clock.now()));
        let catalogue = Self {
            log,
            clock,
            entropy,
            known: Arc::default(),
            changing: tokio::sync::Mutex::default(),
            cluster,
            epoch,
            next_producer: AtomicU32::new(0),
            // Known before any topic is: what a stream may drop does not change for a moment while a broker starts.
            defaults: RwLock::new(resources::defaults_kept(&stored.resources, options.node_id)),
            node: options.node_id,
            sheltered: options.protected_prefix.clone(),
            access: Mutex::new(stored.access),
            quotas: Mutex::new(stored.quotas),
            resources: Mutex::new(stored.resources),
        };
        let mut records = vec![("epoch".to_owned(), Some(json(&StoredEpoch { epoch })))];
        if stored.cluster.is_none() {
            records.push(("format".to_owned(), Some(json(&StoredFormat { version: FORMAT_VERSION }))));
            records.push(("cluster".to_owned(), Some(json(&StoredCluster { id: cluster }))));
        }
        catalogue.store(records).await?;
        for (id, topic) in stored.topics {
            let configs = TopicConfigs::restore(topic.configs);
            let topic = catalogue.told(Topic { name: topic.name, id, partitions: topic.partitions, configs });
            for stream in topic.streams() {
                ensure_stream(&catalogue.log, stream, topic.configs.retention()).await?;
            }
            // A crash may have come between a change of the configs and what follows from it.
            catalogue.retain(&topic).await?;
            catalogue.publish(Arc::new(topic));
        }
        Ok(catalogue)
    }

    pub(crate) const fn cluster(&self) -> Uuid {
        self.cluster
    }

    pub(crate) fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.known.read().by_name.get(name).cloned()
    }

    pub(crate) fn get_by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.known.read().by_id.get(&id).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Topic>> {
        self.known.read().by_name.values().cloned().collect()
    }

    /// A topic whose name differs from this one in dots and underscores only: in the names of metrics they are the same.
    pub(crate) fn colliding(&self, name: &str) -> Option<String> {
        if !name.contains(['.', '_']) {
            return None;
        }
        let plain = |name: &str| name.replace('.', "_");
        let wanted = plain(name);
        self.known.read().by_name.keys().find(|known| **known != *name && plain(known) == wanted).cloned()
    }

    /// What groups see of it.
    pub(crate) fn sight(&self) -> Sight {
        Sight::of(&self.known)
    }

    /// Partitions of all topics.
    pub(crate) fn partitions(&self) -> usize {
        self.known.read().partitions
    }

    /// The records that were read back for `access`, once.
    pub(crate) fn take_access(&self) -> BTreeMap<String, Vec<u8>> {
        std::mem::take(&mut self.access.lock())
    }

    /// The records that were read back for `quotas`, once.
    pub(crate) fn take_quotas(&self) -> BTreeMap<String, Vec<u8>> {
        std::mem::take(&mut self.quotas.lock())
    }

    /// The records that were read back for `resources`, once.
    pub(crate) fn take_resources(&self) -> BTreeMap<String, Vec<u8>> {
        std::mem::take(&mut self.resources.lock())
    }

    /// Makes records of others durable: `access`, `quotas` and `resources` have their own in the same stream.
    pub(crate) async fn record(&self, records: Vec<(String, Option<Vec<u8>>)>) -> Result<(), CatalogueError> {
        Ok(self.store(records).await?)
    }

    pub(crate) fn len(&self) -> usize {
        self.known.read().by_name.len()
    }

    /// A producer id that was never given before: the broker's epoch, then a counter. `None` once 2^32 were given.
    pub(crate) fn next_producer_id(&self) -> Option<i64> {
        let counter =
            self.next_producer.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_add(1)).ok()?;
        Some(i64::from(self.epoch) << 32 | i64::from(counter))
    }

    /// Creates a topic: its streams first, then the record that makes it exist, then sight.
    pub(crate) async fn create(
        &self,
        name: &str,
        partitions: u32,
        configs: TopicConfigs,
    ) -> Result<Arc<Topic>, CatalogueError> {
        let _one_at_a_time = self.changing.lock().await;
        if self.get(name).is_some() {
            return Err(CatalogueError::Exists { name: name.to_owned() });
        }
        let id = self.entropy.uuid_v7(self.clock.now());
        let topic = Arc::new(self.told(Topic { name: name.to_owned(), id, partitions, configs }));
        for stream in topic.streams() {
            ensure_stream(&self.log, stream, topic.configs.retention()).await?;
        }
        let stored = StoredTopic { name: name.to_owned(), partitions, configs: topic.configs.given().clone() };
        self.store(vec![(topic_key(id), Some(json(&stored)))]).await?;
        self.publish(Arc::clone(&topic));
        self.retain(&topic).await?;
        Ok(topic)
    }

    /// Gives a topic more partitions or other configs: streams first, then the record that makes the change, then sight. `make` is
    /// given the topic as it is then, and nobody changes it meanwhile.
    pub(crate) async fn change<E: From<CatalogueError>>(
        &self,
        name: &str,
        make: impl FnOnce(&Topic) -> Result<Topic, E>,
    ) -> Result<(), E> {
        let _one_at_a_time = self.changing.lock().await;
        let old = self.get(name).ok_or_else(|| CatalogueError::Unknown { name: name.to_owned() })?;
        let topic = Arc::new(self.told(make(&old)?));
        for stream in topic.streams().skip(old.partitions as usize) {
            ensure_stream(&self.log, stream, topic.configs.retention()).await?;
        }
        let (name, configs) = (topic.name.clone(), topic.configs.given().clone());
        let stored = StoredTopic { name, partitions: topic.partitions, configs };
        let record = (topic_key(topic.id), Some(json(&stored)));
        self.store(vec![record]).await.map_err(CatalogueError::from)?;
        self.publish(Arc::clone(&topic));
        Ok(self.retain(&topic).await?)
    }

    /// What stands now for a topic of that name where it does not say.
    pub(crate) fn defaults_of(&self, name: &str) -> Defaults {
        let is_sheltered = is_internal(name) || is_protected(name, &self.sheltered);
        if is_sheltered { Defaults::default() } else { self.defaults.read().clone() }
    }

    fn told(&self, topic: Topic) -> Topic {
        let otherwise = self.defaults_of(&topic.name);
        Topic { configs: topic.configs.over(otherwise), ..topic }
    }

    /// Takes in what brokers are told, for every topic that there is.
    pub(crate) async fn tell(&self, brokers: &resources::Table) -> Result<(), CatalogueError> {
        let _one_at_a_time = self.changing.lock().await;
        let of = |name: &str| brokers.get(name).map(|given| given.0.clone()).unwrap_or_default();
        let defaults = dynamic::defaults(&of(""), &of(&self.node.to_string()));
        *self.defaults.write() = defaults;
        for topic in self.all() {
            let told = Arc::new(self.told(Topic::clone(&topic)));
            // What failed halfway is taken up where it is told again.
            if told.configs != topic.configs {
                self.retain(&told).await?;
                self.publish(told);
            }
        }
        Ok(())
    }

    /// Lets each stream keep what the topic's configs say, and be compacted as they say: of that the log remembers nothing.
    async fn retain(&self, topic: &Topic) -> Result<(), CatalogueError> {
        let retention = topic.configs.retention();
        for stream in topic.streams() {
            let set = self.log.set_compaction(stream, topic.configs.compaction());
            set.map_err(|error| CatalogueError::Log { stream, reason: error.to_string() })?;
            if self.log.retention(stream).is_ok_and(|now| now == retention) {
                continue;
            }
            let set = self.log.set_retention(stream, retention).await;
            set.map_err(|error| CatalogueError::Log { stream, reason: error.to_string() })?;
        }
        Ok(())
    }

    /// Deletes a topic: out of the catalogue first, so that a crash can leave unused streams but never a topic without them.
    pub(crate) async fn delete(&self, topic: &Topic) -> Result<(), CatalogueError> {
        let _one_at_a_time = self.changing.lock().await;
        self.store(vec![(topic_key(topic.id), None)]).await?;
        {
            let mut known = self.known.write();
            known.version += 1;
            known.by_name.remove(&topic.name);
            if known.by_id.remove(&topic.id).is_some() {
                known.partitions -= topic.partitions as usize;
            }
        }
        for stream in topic.streams() {
            self.log
                .delete_stream(stream)
                .await
                .map_err(|error| CatalogueError::Log { stream, reason: error.to_string() })?;
        }
        Ok(())
    }

    fn publish(&self, topic: Arc<Topic>) {
        let mut known = self.known.write();
        known.version += 1;
        known.partitions += topic.partitions as usize;
        if let Some(before) = known.by_id.insert(topic.id, Arc::clone(&topic)) {
            known.partitions -= before.partitions as usize;
        }
        known.by_name.insert(topic.name.clone(), topic);
    }

    async fn store(&self, records: Vec<(String, Option<Vec<u8>>)>) -> Result<(), StreamError> {
        let mut batch = BatchBuilder::new();
        let now_ms = self.clock.now().as_millis();
        for (key, value) in &records {
            batch.push(now_ms, Some(key.as_bytes()), value.as_deref(), &[]);
        }
        streams::append(&self.log, own_stream(), batch).await.map(|_| ())
    }
}

#[derive(Default)]
struct Stored {
    epoch: u32,
    cluster: Option<Uuid>,
    topics: BTreeMap<Uuid, StoredTopic>,
    access: BTreeMap<String, Vec<u8>>,
    quotas: BTreeMap<String, Vec<u8>>,
    resources: BTreeMap<String, Vec<u8>>,
}

impl Stored {
    fn take(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), CatalogueError> {
        let bad = |source| CatalogueError::Record { key: key.to_owned(), source };
        match (key, value) {
            ("format", Some(value)) => {
                let found = serde_json::from_slice::<StoredFormat>(value).map_err(bad)?.version;
                if found != FORMAT_VERSION {
                    return Err(CatalogueError::Format { found });
                }
            }
            ("cluster", Some(value)) => {
                self.cluster = Some(serde_json::from_slice::<StoredCluster>(value).map_err(bad)?.id);
            }
            ("epoch", Some(value)) => {
                self.epoch = serde_json::from_slice::<StoredEpoch>(value).map_err(bad)?.epoch;
            }
            _ if key.starts_with(quotas::RECORD_PREFIX) => {
                match value {
                    Some(value) => self.quotas.insert(key.to_owned(), value.to_vec()),
                    None => self.quotas.remove(key),
                };
            }
            _ if key.starts_with(resources::RECORD_PREFIX) => {
                match value {
                    Some(value) => self.resources.insert(key.to_owned(), value.to_vec()),
                    None => self.resources.remove(key),
                };
            }
            _ if ["scram", "acl"].iter().any(|of| key.starts_with(of)) => {
                match value {
                    Some(value) => self.access.insert(key.to_owned(), value.to_vec()),
                    None => self.access.remove(key),
                };
            }
            _ => {
                let Some(id) = key.strip_prefix("topic/").and_then(|id| id.parse().ok()) else { return Ok(()) };
                match value {
                    Some(value) => self.topics.insert(id, serde_json::from_slice(value).map_err(bad)?),
                    None => self.topics.remove(&id),
                };
            }
        }
        Ok(())
    }
}

pub(crate) fn own_stream() -> StreamId {
    StreamId::new(Uuid::nil(), PartitionIndex::new(0))
}

/// The topic that a record of the catalogue names.
pub(crate) fn named(key: &[u8], value: Option<&[u8]>) -> Option<(Uuid, String)> {
    let id = std::str::from_utf8(key).ok()?.strip_prefix("topic/")?.parse().ok()?;
    Some((id, serde_json::from_slice::<StoredTopic>(value?).ok()?.name))
}

fn topic_key(id: Uuid) -> String {
    format!("topic/{id}")
}

fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("these types have string keys only")
}

async fn ensure_stream(log: &Log, stream: StreamId, retention: Retention) -> Result<(), CatalogueError> {
    if log.bounds(stream).is_ok() {
        return Ok(());
    }
    let made = log.create_stream(stream, retention).await;
    made.map_err(|error| CatalogueError::Log { stream, reason: error.to_string() })
}
