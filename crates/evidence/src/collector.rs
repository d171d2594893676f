//! The evidence consumer: reads the trail by the Kafka protocol, grows a tree for each partition, signs and publishes checkpoints.
//!
//! `up` starts one beside the gateway, on a thread of its own. It reads like anybody else, so it works on any backbone, and it
//! never stops or slows a call: what goes wrong here is shown in [`Status`] and tried again. After a start it reads the newest
//! records that it has signed once more; where they differ, or the partition ends before them, that is a finding and the log is
//! not signed on. It must never sign what it has not read, and never publish what it has not kept.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cairn_backbone::{
    Recorder,
    reader::ReaderError,
    records::{Bounded, RawRecord, Records},
};
use cairn_clock::{Clock, Entropy};
use cairn_contract::{Body, Common, Draft, EvidenceCheckpoint, EvidenceProducer, EvidenceRotated, Topic, topics};
use serde::{Deserialize, Serialize};
use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    keys::{KeyError, KeyFolder, Keys, write_durably},
    leaf::Commitment,
    note::{Note, epochs_of, rotation_of},
    status::Status,
    store::{Identity, LogStore, StoreError},
    witness::{Checkpoint, Witness, WitnessClient, cosignatures},
};

/// Signed records that are read once more after a start.
const READ_AGAIN: u64 = 256;
const POLL: Duration = Duration::from_millis(100);
/// How often new partitions, cosigned notes and removed records are looked for, and how much is not read yet.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long recording a checkpoint may take.
const PUBLISH_WITHIN: Duration = Duration::from_secs(10);
/// How long after a failure it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A witness that failed is left alone for so long.
const WITNESS_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// How long the end may take to read and sign what is still there.
const END_MAX: Duration = Duration::from_secs(2);
/// After so long without a record everything that was there is read.
const QUIET: Duration = Duration::from_millis(300);
/// A read of the published checkpoints gives up after so many polls without a record.
const SILENT_POLLS_MAX: u32 = 100;
/// Cosigned notes taken at once.
const INBOX_MAX: usize = 256;

/// How a collector is set up.
#[derive(Clone)]
pub struct Options {
    /// The folder `evidence` of the data folder.
    pub folder: PathBuf,
    /// The signing key's file; `key` in the folder where absent.
    pub key_file: Option<PathBuf>,
    /// The name of a key that is made.
    pub name: Option<String>,
    /// The backbone's address.
    pub bootstrap: String,
    /// librdkafka properties.
    pub properties: BTreeMap<String, String>,
    /// A checkpoint is due after so many records,
    pub records_max: usize,
    /// or after this time where there is any.
    pub interval: Duration,
    /// Who is asked to cosign.
    pub witnesses: Vec<Witness>,
    /// The producer of this process's events, and its epoch.
    pub producer: (String, u64),
    /// Other producers whose events belong to the trail, in all their epochs.
    pub others: Vec<String>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("folder", &self.folder)
            .field("bootstrap", &self.bootstrap)
            .field("records_max", &self.records_max)
            .field("interval", &self.interval)
            .field("witnesses", &self.witnesses)
            .finish_non_exhaustive()
    }
}

/// Why no evidence is made.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The log's files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The backbone.
    #[error(transparent)]
    Read(#[from] ReaderError),
    /// A checkpoint is not recorded.
    #[error("a checkpoint could not be recorded: {0}")]
    Publish(String),
    /// The client for witnesses.
    #[error("witnesses cannot be asked: {0}")]
    Witness(#[from] reqwest::Error),
}

/// A running collector.
#[derive(Debug)]
pub struct Collector {
    stop: CancellationToken,
    thread: tokio::task::JoinHandle<()>,
}

impl Collector {
    /// Begins to collect, and shows in `status` what it does; must be called within a runtime.
    #[must_use]
    pub fn start(options: Options, recorder: Recorder, (clock, entropy): (Clock, Entropy), status: Status) -> Self {
        let stop = CancellationToken::new();
        let handle = Handle::current();
        status.read_until(millis(&clock));
        let worker = Worker { options, recorder, clock, entropy, status, stop: stop.clone(), handle };
        let thread = tokio::task::spawn_blocking(move || worker.run());
        Self { stop, thread }
    }

    /// Signs and publishes what was read, and ends.
    pub async fn close(self) {
        self.stop.cancel();
        let _ = self.thread.await;
    }
}

struct Worker {
    options: Options,
    recorder: Recorder,
    clock: Clock,
    entropy: Entropy,
    status: Status,
    stop: CancellationToken,
    handle: Handle,
}

/// Which topic is which, as it was seen.
#[derive(Default, Serialize, Deserialize)]
struct Seen {
    /// The cluster that was read last.
    cluster_id: String,
    /// Ids of topics by name, by cluster.
    clusters: BTreeMap<String, BTreeMap<String, String>>,
}

struct Log {
    store: LogStore,
    /// The index of the next signed leaf that is read once more.
    again: Option<u64>,
    /// Size and root that were published before this folder was made: nothing is signed before the tree has them.
    owed: Option<(u64, String)>,
    /// It is not what was signed: nothing more is signed.
    is_halted: bool,
    since: Instant,
}

type Logs = HashMap<(String, u32), Log>;

fn millis(clock: &Clock) -> i64 {
    i64::try_from(clock.now().as_micros() / 1_000).unwrap_or(i64::MAX)
}

/// Publishes whose events belong to the trail, by the word of the signing key, which is made where there is none.
///
/// Called before the first event of an epoch is recorded, so that no reader sees an event that nobody vouches for; the collector
/// does it where that failed.
///
/// # Errors
/// The key, or the backbone.
pub async fn vouch(
    options: &Options,
    recorder: &Recorder,
    (clock, entropy): (&Clock, &Entropy),
    status: &Status,
) -> Result<(), CollectError> {
    if status.is_vouched() {
        return Ok(());
    }
    let folder = KeyFolder::new(&options.folder, options.key_file.clone());
    folder.load_or_make(options.name.as_deref(), entropy)?;
    let (own, epoch) = &options.producer;
    let others = options.others.iter().filter(|id| *id != own).map(|id| (id, (0, u64::MAX)));
    for (id, epochs) in std::iter::once((own, (*epoch, *epoch))).chain(others) {
        let note = folder.vouch(id, epochs, clock)?;
        let (epoch_first, epoch_last) = epochs_of(&note).unwrap_or(epochs);
        let event = EvidenceProducer { note, producer_id: id.clone(), epoch_first, epoch_last };
        record(recorder, event.into(), id.clone(), None).await?;
    }
    status.vouched();
    Ok(())
}

async fn record(recorder: &Recorder, body: Body, key: String, subject: Option<String>) -> Result<(), CollectError> {
    let common = Common::default();
    let planned = recorder.plan(Draft { key, subject, traceparent: None, tracestate: None, common, body });
    match tokio::time::timeout(PUBLISH_WITHIN, recorder.strict(planned)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(CollectError::Publish(error.to_string())),
        Err(_) => Err(CollectError::Publish(format!("it took more than {} s", PUBLISH_WITHIN.as_secs()))),
    }
}

/// Whether the trees grow over that topic; a tenant's topics have a prefix.
#[must_use]
pub fn is_covered(topic: &str) -> bool {
    topics()
        .iter()
        .filter(|spec| spec.topic != Topic::Checkpoints)
        .any(|spec| topic.strip_suffix(spec.name).is_some_and(|tenant| tenant.is_empty() || tenant.ends_with('.')))
}

/// The largest tree that was published of each log: size and root, by origin.
fn published_sizes(records: &Records) -> Result<HashMap<String, (u64, String)>, CollectError> {
    let mut found = HashMap::new();
    for Bounded { topic, partition, start, end } in records.partitions(|topic| topic == Topic::Checkpoints.name())? {
        records.assign([(topic.as_str(), partition, start)])?;
        let mut silent = 0;
        while records.position(&topic, partition).unwrap_or(start) < end && silent < SILENT_POLLS_MAX {
            let Some(record) = records.poll(POLL)? else {
                silent += 1;
                continue;
            };
            silent = 0;
            let event = serde_json::from_slice::<EvidenceCheckpoint>(record.value.as_deref().unwrap_or_default());
            let Ok(EvidenceCheckpoint { note, size, root, .. }) = event else { continue };
            let origin = note.lines().next().unwrap_or_default().to_owned();
            let largest = found.entry(origin).or_insert((0, String::new()));
            if size > largest.0 {
                *largest = (size, root);
            }
        }
    }
    Ok(found)
}

/// The folder of a log.
#[must_use]
pub fn log_folder(evidence: &Path, identity: &Identity) -> PathBuf {
    let name = format!("{}-{}-{}", identity.topic, identity.partition, identity.topic_id);
    evidence.join("logs").join(name.replace(['/', '\\'], "_"))
}

impl Worker {
    fn run(&self) {
        while !self.stop.is_cancelled() {
            match self.collect() {
                Ok(()) => self.status.failing(None),
                Err(error) => {
                    self.status.failing(Some(error.to_string()));
                    self.handle.block_on(async {
                        tokio::select! {
                            () = self.stop.cancelled() => {}
                            () = tokio::time::sleep(AGAIN_AFTER) => {}
                        }
                    });
                }
            }
        }
    }

    /// Collects until the end, until the partitions change, or until something fails.
    fn collect(&self) -> Result<(), CollectError> {
        let key_folder = KeyFolder::new(&self.options.folder, self.options.key_file.clone());
        let mut keys = key_folder.load_or_make(self.options.name.as_deref(), &self.entropy)?;
        let client = WitnessClient::new()?;
        let records = Records::open(&self.options.bootstrap, &self.options.properties)?;
        let partitions = records.partitions(is_covered)?;
        let told = records.topic_ids();
        let mut logs = self.open_logs(&records, &partitions, &told)?;
        self.announce(&keys)?;
        self.handle.block_on(vouch(&self.options, &self.recorder, (&self.clock, &self.entropy), &self.status))?;
        self.status.failing(None);
        let mut resting = HashMap::new();
        let mut looked = Instant::now();
        loop {
            let is_ending = self.stop.is_cancelled();
            if is_ending {
                self.read_to_the_end(&records, &mut logs)?;
            } else if let Some(record) = records.poll(POLL)? {
                self.take(&mut logs, &record)?;
                self.status.read_until(record.timestamp_ms);
            } else {
                self.status.read_until(millis(&self.clock));
            }
            let due = |log: &Log| {
                let waiting = log.store.waiting();
                let is_late = is_ending || log.since.elapsed() >= self.options.interval;
                !log.is_halted
                    && log.owed.is_none()
                    && (waiting >= self.options.records_max || (waiting > 0 && is_late))
            };
            if logs.values().any(&due) {
                let now = key_folder.load()?;
                if now.rotations.len() > keys.rotations.len() {
                    keys = now;
                    self.announce(&keys)?;
                }
                for log in logs.values_mut().filter(|log| due(log)) {
                    log.store.commit(&keys.signing)?;
                    log.since = Instant::now();
                    if !is_ending {
                        self.ask_witnesses(&client, log, &mut resting);
                    }
                }
            }
            for log in logs.values_mut().filter(|log| log.store.state().size > log.store.state().published) {
                self.publish(log.store.event()?.into(), &log.store.state().identity)?;
                log.store.published()?;
                self.status.published();
            }
            let waiting = logs.values().map(|log| log.store.waiting()).sum();
            self.status.depths(logs.len(), waiting);
            if is_ending {
                return Ok(());
            }
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.take_cosigned(&mut logs)?;
                let now = records.partitions(is_covered)?;
                let place = |bounded: &Bounded| (bounded.topic.clone(), bounded.partition);
                // A topic that was made anew has the partitions that it had.
                if now.iter().map(place).ne(partitions.iter().map(place)) || records.topic_ids() != told {
                    return Ok(());
                }
                let mut behind = 0;
                for bounded in &now {
                    if let Some(log) = logs.get(&place(bounded)) {
                        log.store.prune(bounded.start)?;
                        // The position moves past what a transaction left unreadable, too.
                        let at = records.position(&bounded.topic, bounded.partition).unwrap_or_default();
                        behind += bounded.end.saturating_sub(at.max(log.store.offset_next()).max(bounded.start));
                    }
                }
                self.status.behind(behind);
            }
        }
    }

    /// Opens the log of each partition, compares what can be compared, and begins to read.
    fn open_logs(
        &self,
        records: &Records,
        partitions: &[Bounded],
        told: &BTreeMap<String, Uuid>,
    ) -> Result<Logs, CollectError> {
        let cluster_id = records.cluster_id().unwrap_or_else(|| "unknown".to_owned());
        let ids = self.topic_ids(&cluster_id, told, partitions)?;
        let (mut logs, mut begins) = (Logs::new(), Vec::new());
        let mut published = None;
        for Bounded { topic, partition, start, end } in partitions {
            let identity = Identity {
                cluster_id: cluster_id.clone(),
                topic: topic.clone(),
                topic_id: ids.get(topic).cloned().unwrap_or_default(),
                partition: *partition,
            };
            let store = LogStore::open(log_folder(&self.options.folder, &identity), identity)?;
            let mut log = Log { again: None, owed: None, is_halted: false, since: Instant::now(), store };
            let (size, next) = (log.store.state().size, log.store.offset_next());
            let mut from = next.max(*start);
            if size > 0 && *end < next {
                self.halt(
                    &mut log,
                    &format!(
                        "it ends at offset {end}, and records up to {} were signed: the tail is missing",
                        next - 1
                    ),
                );
            } else if size > 0 && *start > next {
                self.status.found(format!(
                    "{topic}/{partition}: records {next} to {} were removed before evidence of them was made",
                    start - 1
                ));
            } else if size > 0 {
                let kept = log.store.first_kept()?;
                let index = size.saturating_sub(READ_AGAIN).max(kept).max(log.store.index_at(*start)?);
                if index < size {
                    log.again = Some(index);
                    from = log.store.leaf(index)?.0;
                }
            }
            if size == 0 && *end > 0 {
                let published = match &published {
                    Some(published) => published,
                    None => published.insert(published_sizes(records)?),
                };
                log.owed = published.get(&log.store.state().identity.origin()).cloned();
                if log.owed.is_some() && *start > 0 {
                    self.halt(
                        &mut log,
                        "its evidence folder was lost, and so were the records that its tree begins with",
                    );
                }
            }
            begins.push((topic.as_str(), *partition, from));
            logs.insert((topic.clone(), *partition), log);
        }
        records.assign(begins)?;
        Ok(logs)
    }

    /// The id of each topic: the backbone's, else one that was made up when the topic was seen first.
    fn topic_ids(
        &self,
        cluster_id: &str,
        told: &BTreeMap<String, Uuid>,
        partitions: &[Bounded],
    ) -> Result<BTreeMap<String, String>, CollectError> {
        let path = self.options.folder.join("topics.json");
        let mut seen: Seen =
            std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let before = std::mem::replace(&mut seen.cluster_id, cluster_id.to_owned());
        let mut is_new = before != cluster_id;
        if is_new && !before.is_empty() {
            self.status.found(format!(
                "the trail lies on the cluster {cluster_id} now, and lay on {before}: the log was made anew, or another backbone is configured"
            ));
        }
        let known = seen.clusters.entry(cluster_id.to_owned()).or_default();
        for topic in partitions.iter().map(|bounded| &bounded.topic) {
            let id = told.get(topic).map(ToString::to_string);
            match (known.get(topic), id) {
                (Some(before), Some(id)) if *before != id && !before.starts_with("seen-") => {
                    self.status.found(format!("the topic {topic} was made anew: it was {before} and is {id}"));
                    known.insert(topic.clone(), id);
                    is_new = true;
                }
                (Some(_), _) => {}
                (None, id) => {
                    let mut random = [0; 16];
                    self.entropy.fill(&mut random);
                    known.insert(topic.clone(), id.unwrap_or_else(|| format!("seen-{}", hex::encode(random))));
                    is_new = true;
                }
            }
        }
        let known = known.clone();
        if is_new {
            let bytes = serde_json::to_vec_pretty(&seen).expect("names are plain JSON");
            write_durably(&path, &bytes).map_err(|source| KeyError::File { what: "write", path, source })?;
        }
        Ok(known)
    }

    fn take(&self, logs: &mut Logs, record: &RawRecord) -> Result<(), CollectError> {
        let Some(log) = logs.get_mut(&(record.topic.clone(), record.partition)) else { return Ok(()) };
        if log.is_halted {
            return Ok(());
        }
        let commitment = Commitment::of(record);
        if let Some(index) = log.again {
            let signed = log.store.leaf(index)?;
            if signed != (record.offset, commitment.leaf(log.store.log())) {
                self.halt(
                    log,
                    &format!(
                        "the record at offset {} is not the one that was signed at offset {}",
                        record.offset, signed.0
                    ),
                );
                return Ok(());
            }
            log.again = Some(index + 1).filter(|next| *next < log.store.state().size);
            return Ok(());
        }
        if record.offset < log.store.offset_next() {
            return Ok(());
        }
        if log.store.waiting() == 0 {
            log.since = Instant::now();
        }
        log.store.push(&commitment);
        self.status.taken(1);
        if let Some((size, root)) = log.owed.clone() {
            let (now, here) = log.store.tree();
            if now == size && STANDARD.encode(here) == root {
                log.owed = None;
                log.store.owes(size);
            } else if now >= size {
                self.halt(log, &format!("its first {size} records are not those of a checkpoint that was published"));
            } else if log.store.waiting() >= self.options.records_max {
                log.store.flush()?;
            }
        }
        Ok(())
    }

    fn halt(&self, log: &mut Log, what: &str) {
        let Identity { topic, partition, .. } = &log.store.state().identity;
        self.status
            .found(format!("{topic}/{partition}: {what}; nothing more of it is signed, `cairn verify` shows the rest"));
        log.is_halted = true;
    }

    /// What was there when the end was asked for is still read, within bounds.
    fn read_to_the_end(&self, records: &Records, logs: &mut Logs) -> Result<(), CollectError> {
        let begun = Instant::now();
        let mut heard = begun;
        while heard.elapsed() < QUIET && begun.elapsed() < END_MAX {
            if let Some(record) = records.poll(POLL)? {
                heard = Instant::now();
                self.take(logs, &record)?;
            }
        }
        Ok(())
    }

    fn ask_witnesses(&self, client: &WitnessClient, log: &mut Log, resting: &mut HashMap<String, Instant>) {
        for witness in self.options.witnesses.iter().filter(|witness| witness.url.is_some()) {
            let key = witness.key.to_string();
            if resting.get(&key).is_some_and(|since| since.elapsed() < WITNESS_AGAIN_AFTER) {
                continue;
            }
            let state = log.store.state();
            let Ok(note) = Note::parse(&state.note) else { continue };
            let origin = state.identity.origin();
            let checkpoint = Checkpoint { origin: &origin, size: state.size, text: &note.text, note: &state.note };
            let old = state.witnessed.get(&key).copied().unwrap_or_default();
            let asking = client.cosign(witness, &checkpoint, old, |old| log.store.extends(old));
            let answer = self
                .handle
                .block_on(asking)
                .map_err(|error| error.to_string())
                .and_then(|lines| log.store.witnessed(&key, &lines).map_err(|error| error.to_string()));
            match answer {
                Ok(()) => self.status.cosigned(),
                Err(error) => {
                    self.status.witness_failed();
                    tracing::warn!("{error}");
                    resting.insert(key, Instant::now());
                }
            }
        }
    }

    /// Takes the cosigned notes that `cairn evidence cosigned` laid down, and publishes them.
    fn take_cosigned(&self, logs: &mut Logs) -> Result<(), CollectError> {
        let Ok(entries) = std::fs::read_dir(self.options.folder.join("inbox")) else { return Ok(()) };
        for entry in
            entries.flatten().take(INBOX_MAX).filter(|entry| entry.path().extension().is_some_and(|end| end == "note"))
        {
            let note = std::fs::read_to_string(entry.path()).ok().and_then(|text| Note::parse(&text).ok());
            let origin = note.as_ref().and_then(|note| note.text.lines().next());
            let log = logs.values_mut().find(|log| Some(log.store.state().identity.origin().as_str()) == origin);
            match note.as_ref().zip(log) {
                Some((note, log)) => self.add_cosigned(note, &mut log.store)?,
                None => tracing::warn!("a cosigned note is of no log that is collected here; it is put aside"),
            }
            let _ = std::fs::remove_file(entry.path());
        }
        Ok(())
    }

    fn add_cosigned(&self, note: &Note, store: &mut LogStore) -> Result<(), CollectError> {
        let lines = cosignatures(note, &self.options.witnesses);
        let Some(event) = store.event_of(note, lines.iter().map(|(_, line)| *line))?.filter(|_| !lines.is_empty())
        else {
            tracing::warn!("a cosigned note has no signature of a witness of the configuration, or is of another tree");
            return Ok(());
        };
        if event.size == store.state().size {
            for (key, line) in &lines {
                store.witnessed(key, &[(*line).to_owned()])?;
                self.status.cosigned();
            }
        }
        let identity = store.state().identity.clone();
        self.publish(event.into(), &identity)
    }

    /// Publishes rotations that nobody was told of yet.
    fn announce(&self, keys: &Keys) -> Result<(), CollectError> {
        let path = self.options.folder.join("rotations").join("published");
        let told = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        for (number, note) in keys.rotations.iter().enumerate().skip(told) {
            let Ok((old, new)) = rotation_of(note) else { continue };
            let event = EvidenceRotated { note: note.clone(), old_key: old.to_string(), new_key: new.to_string() };
            self.record(event.into(), "rotation".to_owned(), None)?;
            let count = (number + 1).to_string();
            let path = path.clone();
            write_durably(&path, count.as_bytes()).map_err(|source| KeyError::File { what: "write", path, source })?;
        }
        Ok(())
    }

    fn publish(&self, body: Body, identity: &Identity) -> Result<(), CollectError> {
        let place = format!("{}/{}", identity.topic, identity.partition);
        self.record(body, place.clone(), Some(place))
    }

    fn record(&self, body: Body, key: String, subject: Option<String>) -> Result<(), CollectError> {
        self.handle.block_on(record(&self.recorder, body, key, subject))
    }
}
