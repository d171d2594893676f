//! Published checkpoints, and the histories that they must make.
//!
//! A published checkpoint is an `evidence.checkpoint` event: a signed note, and beside it what lets a verifier go on from there.
//! Nothing beside the note is believed before it hashes to what the note signs.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    chain::Place,
    finding::{Finding, Kind, Report, Sighting},
    merkle::{Edge, extends},
    note::{Signed, Trust, hash, hashes, head},
    partition::{Kept, Plan},
    record::Record,
};

/// Checkpoints of one log that are remembered; past that every second one is forgotten.
const REMEMBERED_MAX: usize = 16_384;
/// Logs that are followed.
const LOGS_MAX: usize = 65_536;
/// The topic of the checkpoints themselves.
pub const CHECKPOINTS: &str = "mcp.checkpoints";
/// Topics in which a producer must leave nothing out.
const STRICT: [&str; 5] = ["mcp.calls", "mcp.actions", "mcp.policies", "mcp.operators", CHECKPOINTS];

const CHECKPOINT: &[u8] = b"io.cairn.evidence.checkpoint";
const ROTATED: &[u8] = b"io.cairn.evidence.rotated";
const PRODUCER: &[u8] = b"io.cairn.evidence.producer";
/// Producers that are vouched for,
const VOUCHED_MAX: usize = 10_000;
/// and stretches of epochs of each.
const RANGES_MAX: usize = 1_000;

/// The keys of an `evidence.checkpoint` event.
#[derive(Clone, Debug, Deserialize)]
pub struct Published {
    note: String,
    topic: String,
    topic_id: String,
    partition: u32,
    size: u64,
    root: String,
    offset_next: u64,
    frontier: Vec<String>,
    #[serde(default)]
    previous_size: Option<u64>,
    #[serde(default)]
    consistency: Vec<String>,
}

/// A checkpoint that is believed, with the edge of its tree.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) signed: Signed,
    pub(crate) offset_next: u64,
    pub(crate) edge: Edge,
}

/// Everything that checkpoints say, and whom they are believed from.
#[derive(Debug)]
pub struct Trail {
    trust: Trust,
    /// By origin, in the order in which they were published.
    logs: BTreeMap<String, Vec<Checkpoint>>,
    /// The origin that was published last for a topic and partition, with those before.
    places: BTreeMap<(String, u32), Vec<String>>,
    kept: Vec<Signed>,
    vouched: Vouched,
    pub(crate) report: Report,
}

impl Trail {
    /// A verifier that believes these.
    #[must_use]
    pub fn new(trust: Trust) -> Self {
        Self {
            trust,
            logs: BTreeMap::new(),
            places: BTreeMap::new(),
            kept: Vec::new(),
            vouched: Vouched::default(),
            report: Report::default(),
        }
    }

    /// Whom it believes.
    #[must_use]
    pub const fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Takes a checkpoint that came by another way than the trail: kept from before, or from a witness. The trail must
    /// extend it.
    pub fn keep(&mut self, note: &str) {
        match self.trust.checkpoint(note) {
            Ok(signed) if signed.place().is_some() => self.kept.push(signed),
            Ok(signed) => {
                self.report.general(Kind::Unproven, format!("{:?} is no log of Cairn's", head(&signed.origin)))
            }
            Err(text) => self.report.general(Kind::Untrusted, text),
        }
    }

    /// Takes a rotation of keys.
    pub fn rotation(&mut self, note: &str) {
        if let Err(text) = self.trust.follow(note) {
            self.report.general(Kind::Untrusted, text);
        }
    }

    /// Takes a note by which a trusted key vouches for a producer.
    pub fn producer(&mut self, note: &str) {
        match self.trust.producer(note) {
            Ok((id, first, last)) => self.vouched.add(id, first, last),
            Err(text) => self.report.general(Kind::Untrusted, text),
        }
    }

    /// Takes of a record of `mcp.checkpoints` that was read too late for its checkpoint only whom it vouches for.
    pub fn late(&mut self, record: &Record<'_>) {
        if let Some((PRODUCER, note)) = noted(record) {
            self.producer(&note);
        }
    }

    /// Takes a record of `mcp.checkpoints`, in its order.
    pub fn record(&mut self, record: &Record<'_>) {
        // What is no event is found where the topic's own chain is followed.
        let Some(value) = record.value.filter(|value| Place::of(value).is_some()) else { return };
        match type_of(record) {
            Some(CHECKPOINT) => match serde_json::from_slice(value) {
                Ok(published) => self.published(&published),
                Err(_) => self.checkpoints(Kind::Unproven, record.offset, "this checkpoint cannot be read"),
            },
            Some(ROTATED | PRODUCER) => match noted(record) {
                Some((ROTATED, note)) => self.rotation(&note),
                Some((_, note)) => self.producer(&note),
                None => self.checkpoints(Kind::Unproven, record.offset, "this signed note cannot be read"),
            },
            _ => {}
        }
    }

    fn checkpoints(&mut self, kind: Kind, offset: u64, text: &str) {
        let (topic, partition, offset) = (Some(CHECKPOINTS.to_owned()), Some(0), Some(offset));
        self.report.add(Finding { kind, topic, partition, offset, text: text.to_owned() });
    }

    /// Takes a published checkpoint.
    pub fn published(&mut self, published: &Published) {
        let (topic, partition) = (published.topic.clone(), published.partition);
        let mut said = Vec::new();
        match self.believe(published) {
            Ok(checkpoint) => self.add(published, checkpoint, &mut said),
            Err(found) => said.push(found),
        }
        for (kind, text) in said {
            self.report.add(Finding {
                kind,
                topic: Some(topic.clone()),
                partition: Some(partition),
                offset: None,
                text,
            });
        }
    }

    fn believe(&self, published: &Published) -> Result<Checkpoint, (Kind, String)> {
        let signed = self.trust.checkpoint(&published.note).map_err(|text| (Kind::Untrusted, text))?;
        let odd = |what: &str| {
            (Kind::Unproven, format!("a checkpoint of {} records says {what} beside its note", signed.size))
        };
        let place = (published.topic.as_str(), published.topic_id.as_str(), published.partition);
        if signed.place() != Some(place) {
            return Err(odd("another log"));
        }
        if signed.size != published.size || Some(signed.root) != hash(&published.root) {
            return Err(odd("another tree"));
        }
        let edge = hashes(&published.frontier).and_then(|peaks| Edge::new(signed.size, peaks));
        let edge =
            edge.filter(|edge| edge.root() == signed.root).ok_or_else(|| odd("an edge that is not its tree's"))?;
        Ok(Checkpoint { signed, offset_next: published.offset_next, edge })
    }

    fn add(&mut self, published: &Published, checkpoint: Checkpoint, said: &mut Vec<(Kind, String)>) {
        let signed = &checkpoint.signed;
        let (origin, size) = (signed.origin.clone(), signed.size);
        if self.logs.len() >= LOGS_MAX && !self.logs.contains_key(&origin) {
            said.push((Kind::Unproven, "there are more logs than can be followed".to_owned()));
            return;
        }
        self.report.checkpoints += 1;
        let origins = self.places.entry((published.topic.clone(), published.partition)).or_default();
        if !origins.contains(&origin) {
            if !origins.is_empty() {
                let text =
                    format!("the topic was made anew: the records before are another log's, {}", origins.join(", "));
                said.push((Kind::Recreated, text));
            }
            origins.push(origin.clone());
        }
        let log = self.logs.entry(origin).or_default();
        // Another signer reads the same records: it makes the same trees, at other sizes.
        if let Some(same) = log.iter_mut().find(|known| known.signed.size == size) {
            if same.signed.root == signed.root {
                same.signed.is_witnessed |= signed.is_witnessed;
            } else {
                said.push((
                    Kind::Forked,
                    format!("two checkpoints of {size} records have different roots, and both are signed"),
                ));
            }
            return;
        }
        let of_line = |known: &&Checkpoint| known.signed.line == signed.line;
        if let Some(last) = log.iter().rfind(of_line) {
            let path = hashes(&published.consistency);
            // Of one size all signers have the same tree.
            let known = |size: u64| log.iter().find(|known| known.signed.size == size);
            let holds = path.zip(published.previous_size.and_then(known)).is_some_and(|(path, before)| {
                extends((before.signed.size, &before.signed.root), (size, &signed.root), &path)
            });
            if size < last.signed.size || !holds || checkpoint.offset_next < last.offset_next {
                let text = format!(
                    "the checkpoint of {size} records does not extend the one of {} before it",
                    last.signed.size
                );
                said.push((Kind::Forked, text));
                return;
            }
        }
        let at = log.partition_point(|known| known.signed.size < size);
        let (before, behind) =
            (at.checked_sub(1).map(|at| log[at].offset_next), log.get(at).map(|next| next.offset_next));
        let (before, behind) = (before.unwrap_or_default(), behind.unwrap_or(u64::MAX));
        if !(before..=behind).contains(&checkpoint.offset_next) {
            let text =
                format!("the checkpoint of {size} records ends at another offset than those of another signer allow");
            said.push((Kind::Forked, text));
            return;
        }
        log.insert(at, checkpoint);
        if log.len() > REMEMBERED_MAX {
            let last = log.len() - 1;
            let mut at = 0;
            log.retain(|_| {
                at += 1;
                at % 2 == 1 || at > last
            });
        }
    }

    /// What a partition is held against; `topic_id` is what the backbone says the topic is now, where it does.
    pub fn plan(&mut self, topic: &str, partition: u32, topic_id: Option<&str>) -> Plan {
        let place = (topic.to_owned(), partition);
        let origin = self.places.get(&place).and_then(|origins| origins.last()).cloned();
        let of_place =
            |signed: &&Signed| signed.place().is_some_and(|(name, _, number)| name == topic && number == partition);
        let kept: Vec<Signed> = self.kept.iter().filter(of_place).cloned().collect();
        let origin = origin.or_else(|| kept.last().map(|signed| signed.origin.clone())).unwrap_or_default();
        let id_of = |origin: &str| origin.rsplit('/').nth(1).unwrap_or_default().to_owned();
        let mut found = |kind, text| {
            let (topic, partition) = (Some(topic.to_owned()), Some(partition));
            self.report.add(Finding { kind, topic, partition, offset: None, text });
        };
        if let Some(id) =
            topic_id.filter(|id| !origin.is_empty() && id_of(&origin) != *id && !is_made_up(&id_of(&origin)))
        {
            found(
                Kind::Recreated,
                format!(
                    "the topic is {id} now, and its checkpoints are of {}: it was made anew, or it is a copy",
                    id_of(&origin)
                ),
            );
        }
        let checkpoints = self.logs.get(&origin).cloned().unwrap_or_default();
        let mut own = Vec::new();
        for signed in kept {
            if signed.origin != origin {
                found(
                    Kind::Recreated,
                    format!("a checkpoint that you keep is of another log: {}", head(&signed.origin)),
                );
                continue;
            }
            let published = checkpoints.iter().find(|known| known.signed.size == signed.size);
            if published.is_some_and(|known| known.signed.root != signed.root) {
                found(
                    Kind::Forked,
                    format!(
                        "a checkpoint of {} records that you keep has another root than the published one, and both are signed",
                        signed.size
                    ),
                );
                continue;
            }
            own.push(Kept { size: signed.size, root: signed.root });
        }
        own.sort_by_key(|kept| kept.size);
        let is_strict = STRICT.iter().any(|strict| topic == *strict || topic.ends_with(&format!(".{strict}")));
        Plan { topic: topic.to_owned(), partition, origin, checkpoints, kept: own, is_strict }
    }

    /// Partitions that checkpoints speak of.
    #[must_use]
    pub fn places(&self) -> Vec<(String, u32)> {
        let kept = self.kept.iter().filter_map(|signed| signed.place().map(|(topic, _, at)| (topic.to_owned(), at)));
        let mut all: Vec<_> = self.places.keys().cloned().chain(kept).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Joins what the partitions came to.
    #[must_use]
    pub fn finish(mut self, what: impl Into<String>, partitions: impl IntoIterator<Item = Report>) -> Report {
        partitions.into_iter().for_each(|report| self.report.join(report));
        for sighting in std::mem::take(&mut self.report.sightings) {
            if !self.vouched.allows(&sighting.id, sighting.epoch) {
                let Sighting { topic, partition, offset, id, epoch } = sighting;
                let text = format!(
                    "no trusted key vouches for the producer {} in its epoch {epoch}: somebody else wrote this, or a gateway that evidence.producers does not name",
                    head(&id)
                );
                let (topic, partition, offset) = (Some(topic), Some(partition), Some(offset));
                self.report.add(Finding { kind: Kind::Foreign, topic, partition, offset, text });
            }
        }
        self.report.what = Some(what.into());
        self.report.is_kept = !self.kept.is_empty();
        let covered = |covered: &crate::finding::Covered| covered.proven_to.is_some() && covered.witnessed_to.is_none();
        if self.trust.has_witnesses()
            && let Some(place) = self.report.partitions.iter().find(|place| covered(place))
        {
            let text =
                format!("too few of the named witnesses cosigned a checkpoint of {}/{}", place.topic, place.partition);
            self.report.general(Kind::Unwitnessed, text);
        }
        self.report.settle()
    }
}

/// Who writes the trail by the word of trusted keys: epochs by producer.
#[derive(Debug, Default)]
struct Vouched(BTreeMap<String, Vec<(u64, u64)>>);

impl Vouched {
    fn add(&mut self, id: String, first: u64, last: u64) {
        if self.0.len() >= VOUCHED_MAX && !self.0.contains_key(&id) {
            return;
        }
        let ranges = self.0.entry(id).or_default();
        if let Some(range) = ranges.iter_mut().find(|range| range.0 == first) {
            range.1 = range.1.max(last);
        } else if ranges.len() < RANGES_MAX {
            ranges.push((first, last));
        }
    }

    /// Before its first epoch that is vouched for no evidence was made of it.
    fn allows(&self, id: &str, epoch: u64) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let Some(ranges) = self.0.get(id) else { return false };
        let is_before = ranges.iter().all(|(first, _)| epoch < *first);
        is_before || ranges.iter().any(|(first, last)| (first..=last).contains(&&epoch))
    }
}

/// What a record of `mcp.checkpoints` is.
fn type_of<'r>(record: &Record<'r>) -> Option<&'r [u8]> {
    record.headers.iter().find(|(name, _)| *name == "ce_type").map(|(_, value)| *value)
}

/// A record's type and the note that it carries.
fn noted<'r>(record: &Record<'r>) -> Option<(&'r [u8], String)> {
    #[derive(Deserialize)]
    struct Noted {
        note: String,
    }
    let noted: Noted = serde_json::from_slice(record.value?).ok()?;
    Some((type_of(record)?, noted.note))
}

/// An id that Cairn gave because the backbone has none: it says nothing about what the topic is now.
fn is_made_up(id: &str) -> bool {
    id.starts_with("seen-")
}
