//! One log on disk: its leaves, the nodes above them, and the last checkpoint that was signed.
//!
//! A folder for each log (a partition of one topic), in `evidence/logs/` of the data folder:
//!
//! | file | content |
//! | --- | --- |
//! | `state.json` | identity, last signed checkpoint, what was published and cosigned; replaced as a whole |
//! | `leaves-<n>` | 65,536 leaves each: offset (8 bytes, big-endian) and hash (32 bytes), at the leaf's place |
//! | `nodes-8`, `nodes-16`, … | hashes of the complete nodes of that level, each at its place |
//!
//! Leaves wait in memory until [`LogStore::commit`] writes them, syncs, and only then signs and saves the state: no signature
//! leaves this machine before what it is about is kept. What lies behind the state's size in a file is overwritten.
//! Leaves of records that the backbone no longer keeps are removed in whole files; a node is 1/256 of the leaves below it, so that
//! what is kept for ever is small. It must never sign a tree that does not extend the one before.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use cairn_contract::EvidenceCheckpoint;
use serde::{Deserialize, Serialize};

use crate::{
    keys::write_durably,
    leaf::{Commitment, log_hash},
    note::{Note, SigningKey, checkpoint_text},
    tree::{Frontier, Hash, Nodes, consistency, empty_root, frontier, inclusion},
};

const SEGMENT_LEAVES: u64 = 65_536;
const LEAF_BYTES: usize = 40;
/// Levels whose nodes are kept are multiples of this.
const KEPT_LEVELS: u32 = 8;
/// Leaves that wait in memory: a commit is due long before.
pub const WAITING_MAX: usize = 262_144;

/// Which log it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: String,
    /// The topic.
    pub topic: String,
    /// Which topic of that name.
    pub topic_id: String,
    /// The partition.
    pub partition: u32,
}

impl Identity {
    /// The origin line of its checkpoints.
    #[must_use]
    pub fn origin(&self) -> String {
        let Self { cluster_id, topic, topic_id, partition } = self;
        format!("cairn/{}/{topic}/{topic_id}/{partition}", plain(cluster_id))
    }
}

/// A cluster's id may hold what an origin should not.
fn plain(id: &str) -> String {
    id.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' }).collect()
}

/// Why a log's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk.
    #[error("cannot {what} {}: {source}", .path.display())]
    Disk {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What is on disk is not what was signed.
    #[error(
        "{} is damaged: {what}. Put the folder back from a copy; without one, move it away and verify the topic with `cairn verify`",
        .path.display()
    )]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// A node's leaves were removed with the records that they stand for.
    #[error("the proof needs leaves that were removed with their records")]
    Gone,
    /// The record is not in the log, or not yet in a checkpoint.
    #[error(
        "offset {offset} is not in the last checkpoint of {origin}: wait for the next one, or name an offset below {end}"
    )]
    NotThere {
        /// The offset.
        offset: u64,
        /// The log.
        origin: String,
        /// The offset behind the checkpoint.
        end: u64,
    },
}

/// What `state.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    /// Which log.
    #[serde(flatten)]
    pub identity: Identity,
    /// Leaves in the last signed checkpoint.
    pub size: u64,
    /// Its root, in base64.
    pub root: String,
    /// The offset behind its last record.
    pub offset_next: u64,
    /// The checkpoint as a note; empty before the first.
    pub note: String,
    /// The size of the last checkpoint that was published; 0 before the first.
    pub published: u64,
    /// Each witness's key with the size that it cosigned last.
    #[serde(default)]
    pub witnessed: BTreeMap<String, u64>,
}

/// A log that grows.
#[derive(Debug)]
pub struct LogStore {
    folder: PathBuf,
    log: Hash,
    state: State,
    edge: Frontier,
    offset_next: u64,
    /// Leaves that are in the files.
    written: u64,
    waiting: Vec<u8>,
    nodes: BTreeMap<u32, Vec<u8>>,
}

impl LogStore {
    /// Opens a log's folder, or makes it.
    ///
    /// # Errors
    /// The disk, or files that are not what was signed.
    pub fn open(folder: PathBuf, identity: Identity) -> Result<Self, StoreError> {
        let log = log_hash(&identity.origin());
        let path = folder.join("state.json");
        let state = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| damaged(&folder, "its state cannot be read"))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State {
                identity: identity.clone(),
                size: 0,
                root: STANDARD.encode(empty_root()),
                offset_next: 0,
                note: String::new(),
                published: 0,
                witnessed: BTreeMap::new(),
            },
            Err(source) => return Err(StoreError::Disk { what: "read", path, source }),
        };
        if state.identity != identity {
            return Err(damaged(&folder, "it holds another log"));
        }
        let offset_next = state.offset_next;
        let (waiting, nodes) = (Vec::new(), BTreeMap::new());
        let written = state.size;
        let edge = Frontier::default();
        let mut store = Self { folder, log, state, edge, offset_next, written, waiting, nodes };
        store.edge = match frontier(&store, store.state.size) {
            Err(StoreError::Disk { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(damaged(&store.folder, "leaves that were signed are missing"));
            }
            edge => edge?,
        };
        if STANDARD.encode(store.edge.root()) != store.state.root {
            return Err(damaged(&store.folder, "its leaves do not make the root that was signed"));
        }
        Ok(store)
    }

    /// What was signed last.
    #[must_use]
    pub const fn state(&self) -> &State {
        &self.state
    }

    /// What stands for the log in its leaves.
    #[must_use]
    pub const fn log(&self) -> &Hash {
        &self.log
    }

    /// The offset behind the last record that was taken, signed or not.
    #[must_use]
    pub const fn offset_next(&self) -> u64 {
        self.offset_next
    }

    /// Records that wait for a checkpoint.
    #[must_use]
    pub const fn waiting(&self) -> usize {
        self.waiting.len() / LEAF_BYTES
    }

    /// Adds a record, which must lie behind all before.
    pub fn push(&mut self, commitment: &Commitment) {
        debug_assert!(commitment.offset >= self.offset_next, "records come in their order");
        let leaf = commitment.leaf(&self.log);
        self.waiting.extend_from_slice(&commitment.offset.to_be_bytes());
        self.waiting.extend_from_slice(&leaf);
        let nodes = &mut self.nodes;
        self.edge.push(leaf, |level, hash| {
            if level > 0 && level.is_multiple_of(KEPT_LEVELS) {
                nodes.entry(level).or_default().extend_from_slice(&hash);
            }
        });
        self.offset_next = commitment.offset + 1;
    }

    /// The root of all records that were taken, signed or not, and how many they are.
    #[must_use]
    pub fn tree(&self) -> (u64, Hash) {
        (self.edge.size(), self.edge.root())
    }

    /// Writes what waits and syncs it; nothing is signed.
    ///
    /// # Errors
    /// The disk; what waits still waits.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        if !self.folder.exists() {
            make_durable(&self.folder)?;
        }
        let old = self.written;
        let mut at = old;
        let mut rest = self.waiting.as_slice();
        while !rest.is_empty() {
            let room = (SEGMENT_LEAVES - at % SEGMENT_LEAVES) as usize * LEAF_BYTES;
            let (part, more) = rest.split_at(room.min(rest.len()));
            let path = self.segment(at / SEGMENT_LEAVES);
            write_at(&path, part, at % SEGMENT_LEAVES * LEAF_BYTES as u64)?;
            at += (part.len() / LEAF_BYTES) as u64;
            rest = more;
        }
        for (level, hashes) in &self.nodes {
            write_at(&self.folder.join(format!("nodes-{level}")), hashes, (old >> level) * 32)?;
        }
        self.written = at;
        self.waiting.clear();
        self.nodes.clear();
        Ok(())
    }

    /// Writes what waits, then signs the tree and saves the state.
    ///
    /// # Errors
    /// The disk; then nothing was signed.
    pub fn commit(&mut self, key: &SigningKey) -> Result<(), StoreError> {
        self.flush()?;
        let root = self.edge.root();
        let text = checkpoint_text(&self.state.identity.origin(), self.edge.size(), &root);
        self.save(State {
            size: self.edge.size(),
            root: STANDARD.encode(root),
            offset_next: self.offset_next,
            note: format!("{text}\n{}", key.sign(&text)),
            ..self.state.clone()
        })
    }

    /// A tree of that size was published before this folder was: the next one shows that it extends it.
    pub fn owes(&mut self, published: u64) {
        self.state.published = published;
    }

    /// Remembers that the last checkpoint was published.
    ///
    /// # Errors
    /// The disk.
    pub fn published(&mut self) -> Result<(), StoreError> {
        self.save(State { published: self.state.size, ..self.state.clone() })
    }

    /// Adds a witness's signature to the last checkpoint.
    ///
    /// # Errors
    /// The disk.
    pub fn witnessed(&mut self, witness: &str, lines: &[String]) -> Result<(), StoreError> {
        let Ok(mut note) = Note::parse(&self.state.note) else {
            return Err(damaged(&self.folder, "its note cannot be read"));
        };
        lines.iter().for_each(|line| note.add(line));
        let mut state = State { note: note.to_string(), ..self.state.clone() };
        state.witnessed.insert(witness.to_owned(), state.size);
        self.save(state)
    }

    /// The event that publishes the last checkpoint.
    ///
    /// # Errors
    /// The disk.
    pub fn event(&self) -> Result<EvidenceCheckpoint, StoreError> {
        let State { size, offset_next, note, published, .. } = &self.state;
        self.event_at(note.clone(), *size, *offset_next, *published)
    }

    /// The event that publishes an earlier checkpoint once more, with `lines` besides the log's own signatures; nothing where
    /// the note is no checkpoint of this tree.
    ///
    /// # Errors
    /// The disk, or leaves that are gone.
    pub fn event_of<'l>(
        &self,
        note: &Note,
        lines: impl Iterator<Item = &'l str>,
    ) -> Result<Option<EvidenceCheckpoint>, StoreError> {
        let size = note.text.lines().nth(1).and_then(|size| size.parse::<u64>().ok()).unwrap_or_default();
        if size == 0 || size > self.state.size {
            return Ok(None);
        }
        let root = frontier(self, size)?.root();
        if note.text != checkpoint_text(&self.state.identity.origin(), size, &root) {
            return Ok(None);
        }
        let mut whole = note.clone();
        lines.for_each(|line| whole.add(line));
        let offset_next = self.leaf(size - 1)?.0 + 1;
        self.event_at(whole.to_string(), size, offset_next, size).map(Some)
    }

    fn event_at(
        &self,
        note: String,
        size: u64,
        offset_next: u64,
        previous: u64,
    ) -> Result<EvidenceCheckpoint, StoreError> {
        let identity = &self.state.identity;
        let encoded = |hashes: &[Hash]| hashes.iter().map(|hash| STANDARD.encode(hash)).collect();
        let edge = frontier(self, size)?;
        Ok(EvidenceCheckpoint {
            note,
            topic: identity.topic.clone(),
            topic_id: identity.topic_id.clone(),
            partition: identity.partition,
            size,
            root: STANDARD.encode(edge.root()),
            offset_next,
            frontier: encoded(edge.peaks()),
            previous_size: (previous > 0).then_some(previous),
            consistency: encoded(&consistency(self, previous, size)?),
        })
    }

    /// The proof that the last checkpoint extends the tree of the first `old` leaves.
    ///
    /// # Errors
    /// The disk, or leaves that are gone.
    pub fn extends(&self, old: u64) -> Result<Vec<Hash>, StoreError> {
        consistency(self, old.min(self.state.size), self.state.size)
    }

    /// The index of the first leaf of the last checkpoint whose offset is not below `offset`.
    ///
    /// # Errors
    /// The disk, or leaves that are gone.
    pub fn index_at(&self, offset: u64) -> Result<u64, StoreError> {
        let (mut low, mut high) = (self.first_kept()?, self.state.size);
        while low < high {
            let middle = low + (high - low) / 2;
            if self.leaf(middle)?.0 < offset {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    /// The proof of one leaf of the last checkpoint in the tlog-proof form, checkpoint included.
    ///
    /// # Errors
    /// The disk, or leaves that are gone.
    pub fn proof(&self, index: u64) -> Result<String, StoreError> {
        self.proof_with(index, "")
    }

    /// The same, with the entry of the leaf as what stands beside it; nothing where the record is not the one that was signed.
    ///
    /// # Errors
    /// As [`Self::proof`].
    pub fn proof_of(&self, index: u64, commitment: &Commitment) -> Result<Option<String>, StoreError> {
        if self.leaf(index)? != (commitment.offset, commitment.leaf(&self.log)) {
            return Ok(None);
        }
        let extra = format!("extra {}\n", STANDARD.encode(commitment.entry(&self.log)));
        self.proof_with(index, &extra).map(Some)
    }

    fn proof_with(&self, index: u64, extra: &str) -> Result<String, StoreError> {
        let path = inclusion(self, index, self.state.size)?;
        let hashes: String = path.iter().map(|hash| STANDARD.encode(hash) + "\n").collect();
        Ok(format!("c2sp.org/tlog-proof@v1\n{extra}index {index}\n{hashes}\n{}", self.state.note))
    }

    /// Offset and hash of a leaf of the last checkpoint.
    ///
    /// # Errors
    /// The disk, or a leaf that is gone.
    pub fn leaf(&self, index: u64) -> Result<(u64, Hash), StoreError> {
        let mut bytes = [0; LEAF_BYTES];
        read_at(&self.segment(index / SEGMENT_LEAVES), &mut bytes, index % SEGMENT_LEAVES * LEAF_BYTES as u64)?;
        let (offset, hash) = bytes.split_first_chunk::<8>().expect("a leaf has 40 bytes");
        Ok((u64::from_be_bytes(*offset), hash.try_into().expect("the rest is a hash")))
    }

    /// The first leaf that is kept.
    ///
    /// # Errors
    /// The disk.
    pub fn first_kept(&self) -> Result<u64, StoreError> {
        let mut segment = 0;
        let last = self.state.size / SEGMENT_LEAVES;
        while segment < last && !self.segment(segment).exists() {
            segment += 1;
        }
        Ok(segment * SEGMENT_LEAVES)
    }

    /// Removes the leaves of records that lie before `start`, in whole files. Nodes stay, so that proofs of the others do.
    ///
    /// # Errors
    /// The disk.
    pub fn prune(&self, start: u64) -> Result<(), StoreError> {
        let mut first = self.first_kept()?;
        while first + SEGMENT_LEAVES < self.state.size && self.leaf(first + SEGMENT_LEAVES - 1)?.0 < start {
            let path = self.segment(first / SEGMENT_LEAVES);
            fs::remove_file(&path).map_err(|source| StoreError::Disk { what: "remove", path, source })?;
            first += SEGMENT_LEAVES;
        }
        Ok(())
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.folder.join(format!("leaves-{number:08}"))
    }

    fn save(&mut self, state: State) -> Result<(), StoreError> {
        let path = self.folder.join("state.json");
        let bytes = serde_json::to_vec_pretty(&state).expect("a state is plain JSON");
        write_durably(&path, &bytes).map_err(|source| StoreError::Disk { what: "write", path, source })?;
        self.state = state;
        Ok(())
    }
}

impl Nodes for LogStore {
    type Error = StoreError;

    fn node(&self, level: u32, index: u64) -> Result<Hash, StoreError> {
        if level == 0 {
            return self.leaf(index).map(|(_, hash)| hash);
        }
        if level.is_multiple_of(KEPT_LEVELS) {
            let mut hash = [0; 32];
            read_at(&self.folder.join(format!("nodes-{level}")), &mut hash, index * 32)?;
            return Ok(hash);
        }
        Ok(crate::tree::node_hash(&self.node(level - 1, 2 * index)?, &self.node(level - 1, 2 * index + 1)?))
    }
}

fn damaged(path: &Path, what: &'static str) -> StoreError {
    StoreError::Damaged { path: path.to_owned(), what }
}

/// Makes a folder whose name survives power loss, with those above it.
fn make_durable(path: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |source| StoreError::Disk { what: "make", path: path.to_owned(), source };
    let parent = path.parent().unwrap_or(Path::new("."));
    if !parent.exists() {
        make_durable(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(failed(error)),
        _ => {}
    }
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)
}

fn write_at(path: &Path, bytes: &[u8], at: u64) -> Result<(), StoreError> {
    let opened = File::options().create(true).truncate(false).write(true).mode(0o600).open(path);
    let written = opened.and_then(|file| file.write_all_at(bytes, at).and_then(|()| file.sync_data()));
    written.map_err(|source| StoreError::Disk { what: "write", path: path.to_owned(), source })
}

fn read_at(path: &Path, bytes: &mut [u8], at: u64) -> Result<(), StoreError> {
    match File::open(path).and_then(|file| file.read_exact_at(bytes, at)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Gone),
        read => read.map_err(|source| StoreError::Disk { what: "read", path: path.to_owned(), source }),
    }
}

#[cfg(test)]
mod tests;
