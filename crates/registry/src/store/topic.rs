//! Reading and writing `_schemas` by the Kafka protocol, on the embedded log as on any cluster.
//!
//! One thread reads the topic's only partition from its beginning and feeds the state; nothing else does. A write is done once
//! that thread has read it back and it counted: so what is acknowledged is in the log, and every registry that reads the log
//! sees it. Where it is not known whether a record was written, the next write begins with a new claim under a new name, so
//! that the record is void if it still comes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cairn_backbone::{
    kafka::{PropertyError, client_config},
    reader::is_transient,
};
use cairn_clock::Entropy;
use parking_lot::{Mutex, RwLock};
use rdkafka::{
    ClientConfig, ClientContext, Message, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Header, Headers, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use tokio::sync::{mpsc, watch};

use super::{
    records::{Key, Record},
    state::{Applied, Origin, State},
};

/// The header that names the instance.
const INSTANCE: &str = "cairn_registry";
/// The header of a claim: its number.
const CLAIM: &str = "cairn_registry_claim";
/// The header of a claim: the highest ids, as JSON.
const IDS: &str = "cairn_registry_ids";

const ASK_WITHIN: Duration = Duration::from_secs(10);
/// How long a record may take to be written, and then to be read back.
const WRITE_WITHIN: Duration = Duration::from_secs(15);
/// How often a claim is tried.
const CLAIMS_MAX: usize = 8;
/// Verdicts that nobody fetched, because whoever wrote had given up.
const VERDICTS_MAX: usize = 1024;
/// Records that wait to be put right.
const REPAIRS_MAX: usize = 1024;
/// Largest record, below what brokers take by default.
pub(crate) const RECORD_BYTES_MAX: usize = 900_000;

/// How the topic is reached.
#[derive(Clone)]
pub struct TopicOptions {
    /// `host:port`, several with commas.
    pub bootstrap: String,
    /// librdkafka properties.
    pub properties: BTreeMap<String, String>,
    /// The topic's name.
    pub name: String,
    /// Replicas, where it is created; -1 is the cluster's default.
    pub replication: i32,
    /// How long opening waits for the topic to be read.
    pub ready_within: Duration,
}

impl std::fmt::Debug for TopicOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopicOptions")
            .field("bootstrap", &self.bootstrap)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Why the topic cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A property is wrong.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// The cluster does not answer, or refuses.
    #[error("the topic {topic} at {bootstrap} cannot be used: {reason}")]
    Kafka {
        /// The topic.
        topic: String,
        /// Where.
        bootstrap: String,
        /// What was said.
        reason: String,
    },
    /// Records in several partitions have no order.
    #[error(
        "the topic {topic} has {found} partitions and a registry needs exactly one: name another with registry.topic"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: usize,
    },
    /// Schemas would be lost.
    #[error(
        "the topic {topic} drops records after retention.ms = {found}, and schemas would be lost: set cleanup.policy=compact"
    )]
    Retention {
        /// The topic.
        topic: String,
        /// Its setting.
        found: String,
    },
    /// Another registry claims the topic again and again.
    #[error("another registry keeps claiming the topic {topic}: run one at a time, or give each a topic of its own")]
    Contended {
        /// The topic.
        topic: String,
    },
}

/// Why a record was not written.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the record was not written: {0}")]
    Kafka(String),
    #[error("the record is {bytes} bytes long, above {RECORD_BYTES_MAX}")]
    TooLarge { bytes: usize },
    #[error("the record was not read back within {} s, so it is not known whether it counts: ask again", WRITE_WITHIN.as_secs())]
    NotReadBack,
    #[error("another registry has taken over the topic: this one only reads now; restart it to take the topic back")]
    TakenOver,
    #[error(
        "something that is no registry of Cairn's wrote to the topic at offset {0}, and both could hand out the same id: stop it, and restart this one"
    )]
    Intruder(u64),
    #[error("the topic cannot be read any more: {0}; restart the registry")]
    Reader(String),
}

/// librdkafka's words, kept quiet.
#[derive(Clone, Debug)]
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        tracing::debug!(?level, fac, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
    }
}

impl ConsumerContext for Quiet {}

/// How far the reader is.
#[derive(Clone, Default, Debug)]
struct Progress {
    next: u64,
    failed: Option<String>,
}

/// What the reading thread and the others share.
#[derive(Debug)]
struct Shared {
    state: Arc<RwLock<State>>,
    /// Under which name records are written.
    instance: Mutex<String>,
    verdicts: Mutex<HashMap<u64, Applied>>,
    progress: watch::Sender<Progress>,
    closed: AtomicBool,
    unsure: AtomicBool,
}

/// The topic, open for reading and writing.
pub(crate) struct Topic {
    options: TopicOptions,
    producer: FutureProducer<Quiet>,
    shared: Arc<Shared>,
    entropy: Entropy,
}

impl std::fmt::Debug for Topic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topic").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Topic {
    /// Creates the topic where it is missing, reads it to its end and claims it. The receiver gives the keys of records that
    /// were void and must be put right.
    pub(crate) async fn open(
        options: TopicOptions,
        state: Arc<RwLock<State>>,
        entropy: Entropy,
    ) -> Result<(Self, mpsc::Receiver<Key>), OpenError> {
        let failed = |reason: String| OpenError::Kafka {
            topic: options.name.clone(),
            bootstrap: options.bootstrap.clone(),
            reason,
        };
        let config = client_config(&options.bootstrap, &options.properties)?;
        ensure(&config, &options).await?;
        let shared = Arc::new(Shared {
            state,
            instance: Mutex::new(name(&entropy)),
            verdicts: Mutex::default(),
            progress: watch::Sender::default(),
            closed: AtomicBool::new(false),
            unsure: AtomicBool::new(false),
        });
        let (repairs, to_repair) = mpsc::channel(REPAIRS_MAX);
        let reading = {
            let (config, name, shared) = (config.clone(), options.name.clone(), shared.clone());
            tokio::task::spawn_blocking(move || begin(&config, &name, shared, repairs))
        };
        let end = reading.await.expect("opening a reader does not panic").map_err(|error| match error {
            Begin::Kafka(error) => failed(error.to_string()),
            Begin::Partitions(found) => OpenError::Partitions { topic: options.name.clone(), found },
        })?;
        let producer = producer(&config).map_err(|error| failed(error.to_string()))?;
        let topic = Self { options, producer, shared, entropy };
        let read = topic.read_to(end, topic.options.ready_within).await;
        read.map_err(|error| topic.failed(error.to_string()))?;
        topic.claim().await?;
        Ok((topic, to_repair))
    }

    fn failed(&self, reason: String) -> OpenError {
        OpenError::Kafka { topic: self.options.name.clone(), bootstrap: self.options.bootstrap.clone(), reason }
    }

    /// Becomes the only instance whose records count, until another does the same.
    async fn claim(&self) -> Result<(), OpenError> {
        for _ in 0..CLAIMS_MAX {
            self.shared.unsure.store(false, Ordering::Release);
            match self.append(&Record::Noop).await {
                Ok(()) => return Ok(()),
                Err(WriteError::TakenOver) => {}
                Err(error) => return Err(self.failed(error.to_string())),
            }
        }
        Err(OpenError::Contended { topic: self.options.name.clone() })
    }

    /// Writes a record, and waits until it was read back and counts.
    pub(crate) async fn write(&self, record: &Record) -> Result<(), WriteError> {
        let instance = self.shared.instance.lock().clone();
        {
            let state = self.shared.state.read();
            if !state.is_owner(&instance) {
                return Err(WriteError::TakenOver);
            }
            if let Some(offset) = state.intruder() {
                return Err(WriteError::Intruder(offset));
            }
        }
        if self.shared.unsure.load(Ordering::Acquire) {
            // A record may still be on its way. Under a new name it is void when it comes.
            *self.shared.instance.lock() = name(&self.entropy);
            self.claim().await.map_err(|error| WriteError::Kafka(error.to_string()))?;
        }
        self.append(record).await
    }

    async fn append(&self, record: &Record) -> Result<(), WriteError> {
        let (key, value) = record.encode();
        let bytes = key.len() + value.as_ref().map_or(0, Vec::len);
        if bytes > RECORD_BYTES_MAX {
            return Err(WriteError::TooLarge { bytes });
        }
        let headers = self.headers(record);
        let mut message = FutureRecord::<[u8], [u8]>::to(&self.options.name).partition(0).key(&key).headers(headers);
        if let Some(value) = &value {
            message = message.payload(value);
        }
        self.shared.unsure.store(true, Ordering::Release);
        let delivered = self.producer.send(message, WRITE_WITHIN).await;
        let delivered = delivered.map_err(|(error, _)| WriteError::Kafka(error.to_string()))?;
        let offset = u64::try_from(delivered.offset).map_err(|_| WriteError::NotReadBack)?;
        self.read_to(offset + 1, WRITE_WITHIN).await?;
        self.shared.unsure.store(false, Ordering::Release);
        match self.shared.verdicts.lock().remove(&offset) {
            Some(Applied::Effective) => Ok(()),
            Some(Applied::Void) => Err(WriteError::TakenOver),
            None => Err(WriteError::NotReadBack),
        }
    }

    fn headers(&self, record: &Record) -> OwnedHeaders {
        let instance = self.shared.instance.lock().clone();
        let mut headers = OwnedHeaders::new().insert(Header { key: INSTANCE, value: Some(&instance) });
        if *record == Record::Noop {
            let state = self.shared.state.read();
            let number = if state.is_owner(&instance) { state.claim() } else { state.claim() + 1 };
            let ids = serde_json::to_string(&state.highest_ids()).expect("names and numbers are JSON");
            headers = headers
                .insert(Header { key: CLAIM, value: Some(&number.to_string()) })
                .insert(Header { key: IDS, value: Some(&ids) });
        }
        headers
    }

    /// Waits until everything below that offset was read.
    async fn read_to(&self, offset: u64, within: Duration) -> Result<(), WriteError> {
        let mut progress = self.shared.progress.subscribe();
        let reached = progress.wait_for(|progress| progress.failed.is_some() || progress.next >= offset);
        let reached = tokio::time::timeout(within, reached).await.map_err(|_| WriteError::NotReadBack)?;
        let reached = reached.expect("the sender lives as long as this");
        match &reached.failed {
            Some(reason) if reached.next < offset => Err(WriteError::Reader(reason.clone())),
            _ => Ok(()),
        }
    }

    /// Whether records of this instance count at the moment.
    pub(crate) fn is_owner(&self) -> bool {
        let instance = self.shared.instance.lock().clone();
        self.shared.state.read().is_owner(&instance)
    }
}

impl Drop for Topic {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::Release);
    }
}

/// A name that no other instance has.
fn name(entropy: &Entropy) -> String {
    let mut random = [0; 16];
    entropy.fill(&mut random);
    hex::encode(random)
}

fn producer(config: &ClientConfig) -> Result<FutureProducer<Quiet>, KafkaError> {
    let mut config = config.clone();
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("message.timeout.ms", WRITE_WITHIN.as_millis().to_string());
    FutureProducer::from_config_and_context(&config, Quiet)
}

/// Creates the topic where it is missing; refuses one that would lose schemas.
async fn ensure(config: &ClientConfig, options: &TopicOptions) -> Result<(), OpenError> {
    let failed =
        |reason: String| OpenError::Kafka { topic: options.name.clone(), bootstrap: options.bootstrap.clone(), reason };
    let admin = AdminClient::from_config_and_context(config, Quiet).map_err(|error| failed(error.to_string()))?;
    let timeouts = AdminOptions::new().operation_timeout(Some(ASK_WITHIN)).request_timeout(Some(ASK_WITHIN));
    let topic = NewTopic::new(&options.name, 1, TopicReplication::Fixed(options.replication))
        .set("cleanup.policy", "compact")
        .set("retention.ms", "-1");
    let created = admin.create_topics([&topic], &timeouts).await.map_err(|error| failed(error.to_string()))?;
    match created.into_iter().next() {
        Some(Ok(_)) => return Ok(()),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {}
        // Whoever may not create it may still use it.
        Some(Err((_, RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed))) => {}
        Some(Err((_, code))) => return Err(failed(code.to_string())),
        None => return Err(failed("the cluster gave no answer".to_owned())),
    }
    let found = admin.describe_configs([&ResourceSpecifier::Topic(&options.name)], &timeouts).await;
    let Some(Ok(found)) = found.ok().and_then(|mut found| found.pop()) else { return Ok(()) };
    let entries = found.entry_map();
    let value = |name: &str| entries.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
    let kept = value("retention.ms");
    let drops = kept.parse::<i64>().is_ok_and(|kept| kept >= 0);
    if value("cleanup.policy").split(',').any(|policy| policy.trim() == "delete") && drops {
        return Err(OpenError::Retention { topic: options.name.clone(), found: kept });
    }
    Ok(())
}

/// Why reading did not begin.
enum Begin {
    Kafka(KafkaError),
    Partitions(usize),
}

impl From<KafkaError> for Begin {
    fn from(error: KafkaError) -> Self {
        Self::Kafka(error)
    }
}

/// Assigns the partition and starts the thread that reads it. Gives where the partition ended.
fn begin(config: &ClientConfig, name: &str, shared: Arc<Shared>, repairs: mpsc::Sender<Key>) -> Result<u64, Begin> {
    let mut config = config.clone();
    config
        .set("group.id", "cairn-registry")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("allow.auto.create.topics", "false")
        .set("fetch.wait.max.ms", "50");
    let consumer: BaseConsumer<Quiet> = config.create_with_context(Quiet)?;
    // Metadata follows the creation after a moment.
    let mut tries = 0;
    let partitions = loop {
        let metadata = consumer.fetch_metadata(Some(name), ASK_WITHIN)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        tries += 1;
        if partitions > 0 || tries > 50 {
            break partitions;
        }
        let _ = consumer.poll(Duration::from_millis(100));
    };
    if partitions != 1 {
        return Err(Begin::Partitions(partitions));
    }
    let (start, end) = consumer.fetch_watermarks(name, 0, ASK_WITHIN)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(name, 0, Offset::Offset(start))?;
    consumer.assign(&list)?;
    shared.progress.send_replace(Progress { next: start.max(0).unsigned_abs(), failed: None });
    let thread = std::thread::Builder::new().name("schemas".to_owned());
    thread.spawn(move || pump(&consumer, &shared, &repairs)).expect("a thread can be started");
    Ok(end.max(0).unsigned_abs())
}

fn pump(consumer: &BaseConsumer<Quiet>, shared: &Shared, repairs: &mpsc::Sender<Key>) {
    while !shared.closed.load(Ordering::Acquire) {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Ok(message)) => take(&message, shared, repairs),
            // Behind a last record that was compacted away there is nothing, but offsets.
            Some(Err(KafkaError::PartitionEOF(_))) => {
                let at = consumer.position().ok();
                let at = at.and_then(|list| list.elements().first().and_then(|place| place.offset().to_raw()));
                if let Some(at) = at.and_then(|at| u64::try_from(at).ok()) {
                    shared.progress.send_modify(|progress| progress.next = progress.next.max(at));
                }
            }
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(passes) => {}
            Some(Err(error)) => {
                tracing::error!(%error, "the registry's topic cannot be read any more");
                shared.progress.send_modify(|progress| progress.failed = Some(error.to_string()));
                return;
            }
        }
    }
}

/// What passes by itself: no broker, or another leader.
fn passes(code: RDKafkaErrorCode) -> bool {
    is_transient(code) || matches!(code, RDKafkaErrorCode::NotLeaderForPartition | RDKafkaErrorCode::LeaderNotAvailable)
}

fn take(message: &BorrowedMessage<'_>, shared: &Shared, repairs: &mpsc::Sender<Key>) {
    let offset = message.offset().max(0).unsigned_abs();
    let origin = origin_of(message);
    match Record::parse(message.key().unwrap_or_default(), message.payload()) {
        Ok(record) => {
            let key = record.key();
            let own = shared.instance.lock().clone();
            let mut state = shared.state.write();
            let applied = state.apply(offset, &origin, record);
            let (is_own, repairing) = (origin.instance.as_ref() == Some(&own), state.is_owner(&own));
            drop(state);
            if is_own {
                let mut verdicts = shared.verdicts.lock();
                if verdicts.len() >= VERDICTS_MAX {
                    verdicts.clear();
                }
                verdicts.insert(offset, applied);
            } else if applied == Applied::Void && repairing && repairs.try_send(key).is_err() {
                tracing::error!(offset, "a void record of another registry is not put right: restart this registry");
            }
        }
        Err(error) => tracing::warn!(offset, %error, "a record of the registry's topic is passed over"),
    }
    shared.progress.send_modify(|progress| progress.next = offset + 1);
}

fn origin_of(message: &BorrowedMessage<'_>) -> Origin {
    let mut origin = Origin { written_ms: message.timestamp().to_millis(), ..Origin::default() };
    for header in message.headers().into_iter().flat_map(Headers::iter) {
        let Some(text) = header.value.and_then(|value| std::str::from_utf8(value).ok()) else { continue };
        match header.key {
            INSTANCE => origin.instance = Some(text.to_owned()),
            CLAIM => origin.claim = text.parse().ok(),
            IDS => origin.ids = serde_json::from_str(text).unwrap_or_default(),
            _ => {}
        }
    }
    origin
}
