//! The table on its store: who writes it, what a commit is, and what can never be committed.
//!
//! | name | what it is |
//! | --- | --- |
//! | the store's head | [`Head`]: the epoch of the writer, the newest commit, and where the table's metadata lies |
//! | `metadata/<epoch>-<nonce>.metadata.json` | a state of the table, as Iceberg has it |
//! | `metadata/<epoch>-<nonce>-list.avro`, `…-m<n>.avro` | a snapshot's list of manifests, and manifests |
//! | `data/<epoch>-<nonce>-<n>.parquet` | rows |
//!
//! A commit writes new objects and then replaces the head, if it is still the one that the commit was made of (the store does that for
//! one caller only). So a crash anywhere leaves the table as before or as after. Two fences stop a writer that was stalled: whoever opens the
//! table for writing gives the head a new epoch, and a commit of another epoch is refused; and a commit says where the table must stand,
//! in each partition, and is refused where it stands elsewhere. Somebody who joins (a replay) commits within the writer's epoch, and
//! both make their commit anew on each other's. What nobody refers to is removed when a writer opens the table, older epochs' objects
//! alone: a newer writer refers to no object of an older epoch that was not in the table when it took over.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use cairn_clock::{Clock, Entropy};
use cairn_log::{HeadVersion, Store, StoreError};
use serde::{Deserialize, Serialize};

use crate::iceberg::{
    manifest::{self, DataFile, Entry, ManifestError, ManifestFile, Status},
    metadata::{self, Metadata, Operation, Snapshot, Stand},
};

/// How often a commit is made anew because somebody else committed.
const TRIES_MAX: usize = 16;
/// How often a call to the store is sent again,
const SENDS_MAX: u32 = 5;
/// and after how long first.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
/// Small manifests that are put together when there are more.
const SMALL_MANIFESTS_MAX: usize = 32;
/// A manifest with fewer files is small.
const SMALL_BELOW: i32 = 1_000;
/// The version of the head.
const LAYOUT: u32 = 1;
/// What a snapshot's summary calls its commit.
const COMMIT: &str = "cairn.commit";

/// Why something was not done to the table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TableError {
    /// The store may answer later. The commit may have happened: the same one again settles it.
    #[error("{reason}")]
    Away {
        /// What it said.
        reason: String,
    },
    /// Another writer has the table.
    #[error("another writer has taken the table over (epoch {theirs} after {ours}): this one writes nothing any more")]
    Fenced {
        /// This one's epoch.
        ours: u64,
        /// The other's.
        theirs: u64,
    },
    /// The table does not stand where the commit begins, or what it removes is not there any more.
    #[error("the table stands elsewhere: {reason}")]
    Elsewhere {
        /// Where.
        reason: String,
    },
    /// It is broken until somebody acts.
    #[error("{reason}")]
    Broken {
        /// What is wrong, and what to do.
        reason: String,
    },
}

impl From<ManifestError> for TableError {
    fn from(error: ManifestError) -> Self {
        Self::Broken { reason: format!("a manifest of the table cannot be read or written: {error}") }
    }
}

/// The head of the store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Head {
    layout: u32,
    /// One higher with each writer.
    pub epoch: u64,
    /// The newest commit.
    pub commit: String,
    /// Where the metadata lies.
    pub metadata: String,
    /// Who the table is in its consumer group.
    pub instance: String,
}

/// A partition's part of a commit: rows of `from..next`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Moved {
    /// The topic.
    pub topic: String,
    /// Its id.
    pub topic_id: String,
    /// The partition.
    pub partition: u32,
    /// Where the table must stand; `None` where it must have nothing of the partition.
    pub from: Option<u64>,
    /// Where it stands afterwards.
    pub next: u64,
}

/// What is to be committed.
#[derive(Clone, Debug)]
pub struct Change {
    /// Its own name, by which it is known whether it was committed.
    pub id: String,
    /// What it is.
    pub operation: Operation,
    /// How far it moves.
    pub moved: Vec<Moved>,
    /// Files that come.
    pub added: Vec<DataFile>,
    /// The paths of those that go.
    pub removed: BTreeSet<String>,
    /// More for the snapshot's summary.
    pub about: Vec<(String, String)>,
}

/// What is known of the table.
#[derive(Clone, Debug)]
struct At {
    version: HeadVersion,
    head: Head,
    metadata: Metadata,
    manifests: Vec<ManifestFile>,
}

/// A table, for writing.
#[derive(Debug)]
pub struct Table {
    store: Arc<dyn Store>,
    clock: Clock,
    entropy: Entropy,
    at: At,
    epoch: u64,
    /// Manifests that were read or written.
    known: HashMap<String, Arc<Vec<Entry>>>,
    /// Objects that no snapshot behind that number refers to.
    unused: Vec<(i64, String)>,
}

impl Table {
    /// Opens a table as its writer: makes it where there is none, and shuts every earlier writer out.
    ///
    /// # Errors
    /// As [`TableError`] says.
    pub async fn take(
        store: Arc<dyn Store>,
        location: &str,
        (clock, entropy): (Clock, Entropy),
    ) -> Result<Self, TableError> {
        store.prepare().await.map_err(|error| away(&error))?;
        for _ in 0..TRIES_MAX {
            let found = read_head(&*store).await?;
            let (version, head, metadata) = match &found {
                Some((version, head)) => {
                    let metadata = read_metadata(&*store, &head.metadata).await?;
                    let head = Head { epoch: head.epoch + 1, commit: nonce(&entropy), ..head.clone() };
                    (Some(version), head, metadata)
                }
                None => {
                    let uuid = entropy.uuid_v7(clock.now()).to_string();
                    let metadata = Metadata::new(uuid, location.to_owned(), clock.now().as_millis());
                    let name = format!("metadata/{:08x}-{}.metadata.json", 1, nonce(&entropy));
                    put(&*store, &name, json(&metadata)?).await?;
                    let instance = format!("lake-{}", nonce(&entropy));
                    let commit = nonce(&entropy);
                    let head = Head { layout: LAYOUT, epoch: 1, commit, metadata: name, instance };
                    (None, head, metadata)
                }
            };
            check(&metadata, location)?;
            match replace(&*store, version, json(&head)?).await {
                Ok(version) => {
                    let manifests = read_list(&*store, &metadata).await?;
                    let epoch = head.epoch;
                    let at = At { version, head, metadata, manifests };
                    let mut table =
                        Self { store, clock, entropy, at, epoch, known: HashMap::new(), unused: Vec::new() };
                    table.sweep().await?;
                    return Ok(table);
                }
                // Another writer took it at the same time.
                Err(TableError::Elsewhere { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(TableError::Away { reason: "other writers take the table over all the time: run one of them".to_owned() })
    }

    /// Joins a table to change it beside its writer.
    ///
    /// # Errors
    /// There is none, or as [`TableError`] says.
    pub async fn join(store: Arc<dyn Store>, clock: Clock, entropy: Entropy) -> Result<Self, TableError> {
        let at = read_all(&*store).await?;
        check(&at.metadata, &at.metadata.location)?;
        let epoch = at.head.epoch;
        Ok(Self { store, clock, entropy, at, epoch, known: HashMap::new(), unused: Vec::new() })
    }

    /// Where the table stands.
    #[must_use]
    pub fn stands(&self) -> Vec<Stand> {
        self.at.metadata.stands()
    }

    /// Its head, as it was seen last.
    #[must_use]
    pub const fn head(&self) -> &Head {
        &self.at.head
    }

    /// The URI that names of objects lie below.
    #[must_use]
    pub fn location(&self) -> &str {
        &self.at.metadata.location
    }

    /// A name that nothing has.
    #[must_use]
    pub fn nonce(&self) -> String {
        nonce(&self.entropy)
    }

    /// Puts rows beside the table; they are not in it before they are committed.
    ///
    /// # Errors
    /// As [`TableError`] says.
    pub async fn put_rows(&self, path: &str, bytes: Bytes) -> Result<(), TableError> {
        put(&*self.store, self.name_of(path)?, bytes).await
    }

    /// Where a file of rows is to lie.
    #[must_use]
    pub fn path_of(&self, nonce: &str, number: usize) -> String {
        format!("{}/data/{:08x}-{nonce}-{number}.parquet", self.location(), self.epoch)
    }

    /// Puts something else there.
    ///
    /// # Errors
    /// As [`TableError`] says.
    pub async fn put_beside(&self, name: &str, bytes: Bytes) -> Result<(), TableError> {
        put(&*self.store, name, bytes).await
    }

    /// All bytes of a data file.
    ///
    /// # Errors
    /// As [`TableError`] says.
    pub async fn rows_of(&self, path: &str) -> Result<Bytes, TableError> {
        let name = self.name_of(path)?;
        again(|| self.store.get_all(name)).await
    }

    /// Every data file of the table.
    ///
    /// # Errors
    /// As [`TableError`] says.
    pub async fn files(&mut self) -> Result<Vec<Entry>, TableError> {
        let mut found = Vec::new();
        for manifest in self.at.manifests.clone() {
            let entries = self.entries(&manifest.path).await?;
            found.extend(entries.iter().filter(|entry| entry.status != Status::Deleted).cloned());
        }
        Ok(found)
    }

    /// Commits a change, once: the same one again, after [`TableError::Away`], is known by its name.
    ///
    /// # Errors
    /// As [`TableError`] says.
    pub async fn commit(&mut self, change: &Change) -> Result<(), TableError> {
        for round in 0..TRIES_MAX {
            if round > 0 {
                self.at = read_all(&*self.store).await?;
            }
            if self.at.metadata.snapshots.iter().any(|snapshot| snapshot.summary.get(COMMIT) == Some(&change.id)) {
                return Ok(());
            }
            let next = self.prepared(change).await?;
            let gone: Vec<String> = self.gone_with(&next);
            match replace(&*self.store, Some(&self.at.version), json(&next.head)?).await {
                Ok(version) => {
                    let sequence = next.metadata.last_sequence_number;
                    self.at = At { version, ..next };
                    self.unused.extend(gone.into_iter().map(|path| (sequence, path)));
                    self.forget().await;
                    return Ok(());
                }
                Err(TableError::Elsewhere { .. }) => {}
                Err(error) => {
                    // Whether it happened is seen next time.
                    if let Ok(at) = read_all(&*self.store).await {
                        self.at = at;
                    }
                    return Err(error);
                }
            }
        }
        Err(TableError::Away { reason: "others commit to the table all the time".to_owned() })
    }

    fn name_of<'p>(&self, path: &'p str) -> Result<&'p str, TableError> {
        let below = path.strip_prefix(self.location()).and_then(|name| name.strip_prefix('/'));
        below.ok_or_else(|| TableError::Broken { reason: format!("{path} does not lie in the table: was it moved?") })
    }

    async fn entries(&mut self, path: &str) -> Result<Arc<Vec<Entry>>, TableError> {
        if let Some(known) = self.known.get(path) {
            return Ok(known.clone());
        }
        let name = self.name_of(path)?;
        let bytes = again(|| self.store.get_all(name)).await?;
        let entries = Arc::new(manifest::read_manifest(&bytes)?);
        self.known.insert(path.to_owned(), entries.clone());
        Ok(entries)
    }

    /// Writes everything of a commit but the head.
    async fn prepared(&mut self, change: &Change) -> Result<At, TableError> {
        if self.at.head.epoch != self.epoch {
            return Err(TableError::Fenced { ours: self.epoch, theirs: self.at.head.epoch });
        }
        let stands = stands_after(self.stands(), &change.moved)?;
        let base = format!("metadata/{:08x}-{}", self.epoch, self.nonce());
        let sequence = self.at.metadata.last_sequence_number + 1;
        let number = (self.entropy.next_u64() >> 1) as i64;
        let mut making =
            Making { base: base.clone(), snapshot: (number, sequence), manifests: Vec::new(), put: Vec::new() };
        self.without_removed(change, &mut making).await?;
        if !change.added.is_empty() {
            let entry =
                |file: &DataFile| Entry { status: Status::Added, snapshot_id: number, sequence, file: file.clone() };
            making.add(change.added.iter().map(entry).collect(), self.location())?;
        }
        self.put_together(&mut making).await?;
        let Making { manifests, put: objects, .. } = making;
        let parent = self.at.metadata.current().map(|snapshot| snapshot.snapshot_id);
        let list = format!("{base}-list.avro");
        let bytes = manifest::list((number, parent, sequence), &manifests)?;
        for (name, bytes, entries) in objects {
            put(&*self.store, &name, bytes).await?;
            self.known.insert(format!("{}/{name}", self.location()), Arc::new(entries));
        }
        put(&*self.store, &list, bytes.into()).await?;
        let snapshot = Snapshot {
            snapshot_id: number,
            parent_snapshot_id: parent,
            sequence_number: sequence,
            // Never before the one before, whatever the clock says.
            timestamp_ms: self
                .clock
                .now()
                .as_millis()
                .max(self.at.metadata.current().map_or(0, |last| last.timestamp_ms)),
            manifest_list: format!("{}/{list}", self.location()),
            summary: summary(change, &manifests, self.epoch),
            schema_id: 0,
        };
        let metadata = self.at.metadata.clone().with(snapshot, &stands, self.epoch);
        let name = format!("{base}.metadata.json");
        put(&*self.store, &name, json(&metadata)?).await?;
        let head = Head { commit: change.id.clone(), metadata: name, ..self.at.head.clone() };
        Ok(At { version: self.at.version.clone(), head, metadata, manifests })
    }

    /// The manifests without the files that go.
    async fn without_removed(&mut self, change: &Change, making: &mut Making) -> Result<(), TableError> {
        let mut left: BTreeSet<&str> = change.removed.iter().map(String::as_str).collect();
        for manifest in self.at.manifests.clone() {
            if manifest.live() == 0 {
                continue;
            }
            if left.is_empty() {
                making.manifests.push(manifest);
                continue;
            }
            let entries = self.entries(&manifest.path).await?;
            let live = entries.iter().filter(|entry| entry.status != Status::Deleted);
            if !live.clone().any(|entry| left.contains(entry.file.path.as_str())) {
                making.manifests.push(manifest);
                continue;
            }
            let kept = live.map(|entry| {
                if left.remove(entry.file.path.as_str()) {
                    Entry { status: Status::Deleted, snapshot_id: making.snapshot.0, ..entry.clone() }
                } else {
                    Entry { status: Status::Existing, ..entry.clone() }
                }
            });
            making.add(kept.collect(), self.location())?;
        }
        match left.first() {
            None => Ok(()),
            Some(path) => Err(TableError::Elsewhere { reason: format!("{path} is not in it any more") }),
        }
    }

    /// Puts small manifests together where there are many: a snapshot's list stays short.
    async fn put_together(&mut self, making: &mut Making) -> Result<(), TableError> {
        let is_small = |manifest: &ManifestFile| {
            manifest.live() < SMALL_BELOW && manifest.deleted.0 == 0 && manifest.snapshot_id != making.snapshot.0
        };
        if making.manifests.iter().filter(|manifest| is_small(manifest)).count() <= SMALL_MANIFESTS_MAX {
            return Ok(());
        }
        let (small, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut making.manifests).into_iter().partition(is_small);
        making.manifests = kept;
        let mut entries = Vec::new();
        for manifest in small {
            let live = self.entries(&manifest.path).await?;
            let live = live.iter().filter(|entry| entry.status != Status::Deleted);
            entries.extend(live.map(|entry| Entry { status: Status::Existing, ..entry.clone() }));
        }
        making.add(entries, self.location())
    }

    /// What the present snapshots refer to and the next ones do not: manifests that were replaced, files that went.
    fn gone_with(&self, next: &At) -> Vec<String> {
        let kept: HashSet<&str> = next.manifests.iter().map(|manifest| manifest.path.as_str()).collect();
        let manifests =
            self.at.manifests.iter().map(|manifest| &manifest.path).filter(|path| !kept.contains(path.as_str()));
        let deleted = next.manifests.iter().filter(|manifest| manifest.deleted.0 > 0);
        let entries = deleted.filter_map(|manifest| self.known.get(&manifest.path)).flat_map(|entries| entries.iter());
        let files = entries.filter(|entry| entry.status == Status::Deleted && !kept.contains(entry.file.path.as_str()));
        let mut gone: Vec<String> = manifests.cloned().chain(files.map(|entry| entry.file.path.clone())).collect();
        gone.extend(self.at.metadata.snapshots.last().map(|snapshot| snapshot.manifest_list.clone()));
        gone.push(format!("{}/{}", self.location(), self.at.head.metadata));
        gone
    }

    /// Removes what no snapshot that is kept refers to. What cannot be removed now is removed at the next start.
    async fn forget(&mut self) {
        let oldest = self.at.metadata.snapshots.first().map_or(0, |snapshot| snapshot.sequence_number);
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unused).into_iter().partition(|(until, _)| *until <= oldest);
        self.unused = later;
        for (_, path) in due {
            self.known.remove(&path);
            if let Ok(name) = self.name_of(&path) {
                let _ = self.store.delete(name).await;
            }
        }
    }

    /// Removes objects of earlier epochs that no snapshot refers to: what crashes left, and what writers left that were shut out.
    async fn sweep(&mut self) -> Result<(), TableError> {
        let mut used: HashSet<String> = HashSet::from([self.at.head.metadata.clone()]);
        let mut seen = HashSet::new();
        for snapshot in self.at.metadata.snapshots.clone() {
            let list = self.name_of(&snapshot.manifest_list)?.to_owned();
            let bytes = again(|| self.store.get_all(&list)).await?;
            used.insert(list);
            for manifest in manifest::read_list(&bytes)? {
                if !seen.insert(manifest.path.clone()) {
                    continue;
                }
                for entry in self.entries(&manifest.path).await?.iter() {
                    used.insert(self.name_of(&entry.file.path)?.to_owned());
                }
                used.insert(self.name_of(&manifest.path)?.to_owned());
            }
        }
        let now: HashSet<&str> = self.at.manifests.iter().map(|manifest| manifest.path.as_str()).collect();
        self.known.retain(|path, _| now.contains(path.as_str()));
        // Nothing is removed by somebody who was shut out meanwhile.
        if read_head(&*self.store).await?.is_none_or(|(version, _)| version != self.at.version) {
            return Ok(());
        }
        for folder in ["data/", "metadata/"] {
            for listed in again(|| self.store.list(folder)).await? {
                if epoch_of(&listed.name).is_some_and(|epoch| epoch < self.epoch) && !used.contains(&listed.name) {
                    let _ = self.store.delete(&listed.name).await;
                }
            }
        }
        Ok(())
    }
}

/// The epoch in the name of an object.
fn epoch_of(name: &str) -> Option<u64> {
    let file = name.rsplit('/').next()?;
    u64::from_str_radix(file.split('-').next()?, 16).ok()
}

/// A commit's manifests on their way.
struct Making {
    base: String,
    snapshot: (i64, i64),
    manifests: Vec<ManifestFile>,
    put: Vec<(String, Bytes, Vec<Entry>)>,
}

impl Making {
    fn add(&mut self, entries: Vec<Entry>, location: &str) -> Result<(), TableError> {
        let name = format!("{}-m{}.avro", self.base, self.put.len());
        let bytes = manifest::manifest(&metadata::schema(), &entries)?;
        self.manifests.push(manifest::counted(format!("{location}/{name}"), bytes.len(), self.snapshot, &entries));
        self.put.push((name, bytes.into(), entries));
        Ok(())
    }
}

/// Where the table stands after a commit; refused where it does not stand where that begins.
fn stands_after(mut stands: Vec<Stand>, moved: &[Moved]) -> Result<Vec<Stand>, TableError> {
    for Moved { topic, topic_id, partition, from, next } in moved {
        let found =
            stands.iter_mut().find(|at| at.topic == *topic && at.topic_id == *topic_id && at.partition == *partition);
        if found.as_ref().map(|at| at.next) != *from {
            let at = found.map_or_else(|| "nothing".to_owned(), |at| at.next.to_string());
            let from = from.map_or_else(|| "nothing".to_owned(), |from| from.to_string());
            return Err(TableError::Elsewhere { reason: format!("at {at} of {topic}/{partition}, and not at {from}") });
        }
        match found {
            Some(at) => at.next = *next,
            None => stands.push(Stand {
                topic: topic.clone(),
                topic_id: topic_id.clone(),
                partition: *partition,
                next: *next,
            }),
        }
    }
    Ok(stands)
}

/// What engines and people read of a snapshot.
fn summary(change: &Change, manifests: &[ManifestFile], epoch: u64) -> std::collections::BTreeMap<String, String> {
    let rows = |files: &[DataFile]| files.iter().map(|file| file.rows).sum::<i64>();
    let total = manifests.iter().fold((0, 0), |(files, rows), manifest| {
        (files + i64::from(manifest.live()), rows + manifest.added.1 + manifest.existing.1)
    });
    let removed = manifests.iter().map(|manifest| manifest.deleted.1).sum::<i64>();
    let offsets: Vec<String> = change
        .moved
        .iter()
        .map(|moved| format!("{}/{}:{}-{}", moved.topic, moved.partition, moved.from.unwrap_or_default(), moved.next))
        .collect();
    let told = [
        ("operation", change.operation.name().to_owned()),
        ("added-data-files", change.added.len().to_string()),
        ("added-records", rows(&change.added).to_string()),
        ("deleted-data-files", change.removed.len().to_string()),
        ("deleted-records", if change.removed.is_empty() { 0 } else { removed }.to_string()),
        ("total-data-files", total.0.to_string()),
        ("total-records", total.1.to_string()),
        ("cairn.epoch", epoch.to_string()),
        ("cairn.offsets", offsets.join(" ")),
        (COMMIT, change.id.clone()),
    ];
    let told = told.into_iter().map(|(key, value)| (key.to_owned(), value));
    told.chain(change.about.iter().cloned()).collect()
}

fn nonce(entropy: &Entropy) -> String {
    format!("{:016x}", entropy.next_u64())
}

fn json<T: Serialize>(value: &T) -> Result<Bytes, TableError> {
    let bytes = serde_json::to_vec(value).map_err(|error| TableError::Broken { reason: error.to_string() })?;
    Ok(bytes.into())
}

fn gone() -> TableError {
    TableError::Broken { reason: "there is no table there: run `cairn-lake run` first".to_owned() }
}

fn away(error: &StoreError) -> TableError {
    match error {
        StoreError::Failed { reason } => TableError::Away { reason: reason.clone() },
        StoreError::HeadChanged => TableError::Elsewhere { reason: "somebody else has committed".to_owned() },
        other => TableError::Broken { reason: other.to_string() },
    }
}

fn check(metadata: &Metadata, location: &str) -> Result<(), TableError> {
    if !metadata.is_ours() {
        let reason = "the table has other columns than this program writes: use the version of cairn-lake that made it, or a new table";
        return Err(TableError::Broken { reason: reason.to_owned() });
    }
    if metadata.location != location {
        let reason = format!(
            "the table was made at {} and lies at {location}: its files name where they lie, so leave it there or make it anew",
            metadata.location
        );
        return Err(TableError::Broken { reason });
    }
    Ok(())
}

/// Sends a call again while it fails for reasons of its own.
async fn again<T, F: Future<Output = Result<T, StoreError>>>(mut call: impl FnMut() -> F) -> Result<T, TableError> {
    let mut wait = AGAIN_AFTER;
    for send in 1.. {
        match call().await {
            Err(StoreError::Failed { .. }) if send < SENDS_MAX => {
                tokio::time::sleep(wait).await;
                wait *= 2;
            }
            answer => return answer.map_err(|error| away(&error)),
        }
    }
    unreachable!("the loop ends with an answer")
}

async fn put(store: &dyn Store, name: &str, bytes: Bytes) -> Result<(), TableError> {
    let put = again(|| async {
        match store.put(name, bytes.clone()).await {
            // Nobody else has that name: a first answer was lost.
            Err(StoreError::Exists { .. }) => Ok(()),
            other => other,
        }
    });
    put.await
}

async fn replace(store: &dyn Store, was: Option<&HeadVersion>, bytes: Bytes) -> Result<HeadVersion, TableError> {
    again(|| store.replace_head(was, bytes.clone())).await
}

async fn read_head(store: &dyn Store) -> Result<Option<(HeadVersion, Head)>, TableError> {
    let Some(found) = again(|| store.head()).await? else { return Ok(None) };
    let head: Head = serde_json::from_slice(&found.bytes).map_err(|_| TableError::Broken {
        reason: "what lies there is no table of cairn-lake: name another path or prefix".to_owned(),
    })?;
    if head.layout != LAYOUT {
        let reason =
            format!("the table has layout {}, and this program knows {LAYOUT}: use the newer one", head.layout);
        return Err(TableError::Broken { reason });
    }
    Ok(Some((found.version, head)))
}

async fn read_metadata(store: &dyn Store, name: &str) -> Result<Metadata, TableError> {
    let bytes = again(|| store.get_all(name)).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| TableError::Broken { reason: format!("{name} is no metadata of a table: {error}") })
}

async fn read_list(store: &dyn Store, metadata: &Metadata) -> Result<Vec<ManifestFile>, TableError> {
    let Some(snapshot) = metadata.current() else { return Ok(Vec::new()) };
    let below = snapshot.manifest_list.strip_prefix(&metadata.location).and_then(|name| name.strip_prefix('/'));
    let name = below.ok_or_else(|| TableError::Broken { reason: "the table was moved".to_owned() })?;
    Ok(manifest::read_list(&again(|| store.get_all(name)).await?)?)
}

async fn read_all(store: &dyn Store) -> Result<At, TableError> {
    for _ in 0..TRIES_MAX {
        let (version, head) = read_head(store).await?.ok_or_else(gone)?;
        let read = async {
            let metadata = read_metadata(store, &head.metadata).await?;
            let manifests = read_list(store, &metadata).await?;
            Ok(At { version: version.clone(), head: head.clone(), metadata, manifests })
        };
        match read.await {
            Ok(at) => return Ok(at),
            // Replaced and removed since the head was read.
            Err(error) if read_head(store).await?.is_some_and(|(now, _)| now == version) => return Err(error),
            Err(_) => {}
        }
    }
    Err(TableError::Away { reason: "the table changes faster than it can be read".to_owned() })
}

/// The newest metadata as it lies in the store, and where; nothing where there is no table.
///
/// # Errors
/// As [`TableError`] says.
pub async fn newest(store: &dyn Store) -> Result<Option<(String, Bytes)>, TableError> {
    for _ in 0..TRIES_MAX {
        let Some((version, head)) = read_head(store).await? else { return Ok(None) };
        match again(|| store.get_all(&head.metadata)).await {
            Ok(bytes) => return Ok(Some((head.metadata, bytes))),
            Err(error) if read_head(store).await?.is_some_and(|(now, _)| now == version) => return Err(error),
            Err(_) => {}
        }
    }
    Err(TableError::Away { reason: "the table changes faster than it can be read".to_owned() })
}
