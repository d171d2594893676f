//! One partition against its signed checkpoints and its producers' chains.
//!
//! Records are given once, in the order of their offsets. Between two checkpoints the tree grows from the edge of the first and
//! must have the root of the second; where it has not, the finding says which offsets, and the next stretch begins at the
//! second checkpoint's own edge, so that one wrong record does not hide another. Records are gathered for a moment, because many are
//! hashed faster together; they are judged in their order. Memory does not grow with the records.

use std::ops::Range;

use crate::{
    chain::Chains,
    checkpoint::Checkpoint,
    finding::{Covered, Finding, Kind, Report},
    lanes::Messages,
    merkle::Edge,
    record::{Commitment, Hash, Record, linked, log_hash},
};

/// Records that are gathered,
const GATHERED_MAX: usize = 256;
/// and their bytes.
const GATHERED_BYTES_MAX: usize = 512 << 10;

/// A checkpoint that the verifier kept itself: only the tree counts, not where it says that records lie.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Kept {
    pub(crate) size: u64,
    pub(crate) root: Hash,
}

/// What a partition is held against.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    /// The log whose checkpoints they are; empty where there is none.
    pub(crate) origin: String,
    /// Believed checkpoints, the smallest first; each extends the one before.
    pub(crate) checkpoints: Vec<Checkpoint>,
    /// Those that came by another way, the smallest first.
    pub(crate) kept: Vec<Kept>,
    pub(crate) is_strict: bool,
}

impl Plan {
    /// The offset to read from, so that what is wanted from `from` on can be proven; `start` is the first record that is
    /// kept. The checker must be made with the same two.
    #[must_use]
    pub fn begin(&self, from: u64, start: u64) -> u64 {
        self.anchor(from, start).map_or(start, |anchor| anchor.offset_next.max(start))
    }

    /// The offset to read to, so that what is wanted before `to` can be proven; `end` is the partition's.
    #[must_use]
    pub fn until(&self, to: u64, end: u64) -> u64 {
        let covers = self.checkpoints.iter().map(|checkpoint| checkpoint.offset_next).find(|next| *next >= to);
        covers.unwrap_or(end).min(end)
    }

    /// The last checkpoint that nothing wanted or kept lies before; none where the tree's own beginning is still there.
    fn anchor(&self, from: u64, start: u64) -> Option<&Checkpoint> {
        let kept = self.kept.first().map_or(u64::MAX, |kept| kept.size);
        let is_before =
            |checkpoint: &&Checkpoint| checkpoint.offset_next <= from.max(start) && checkpoint.signed.size <= kept;
        let last = self.checkpoints.iter().rfind(is_before);
        // From the first record on nothing need be taken on trust.
        if start == 0 && from == 0 { None } else { last }
    }

    /// A checker that is given records from [`Self::begin`] on.
    #[must_use]
    pub fn checker(self, from: u64, start: u64) -> PartitionCheck {
        let anchor = self.anchor(from, start).cloned();
        let is_whole = start == 0 && from == 0;
        // Without an anchor the tree can be followed from its first leaf only.
        let edge = match &anchor {
            Some(anchor) => (anchor.offset_next >= start).then(|| anchor.edge.clone()),
            None => (start == 0).then(Edge::default),
        };
        let done = anchor.as_ref().map_or(0, |anchor| anchor.signed.size);
        let next = self.checkpoints.iter().position(|checkpoint| checkpoint.signed.size > done);
        let covered = Covered { topic: self.topic.clone(), partition: self.partition, ..Covered::default() };
        PartitionCheck {
            log: log_hash(&self.origin),
            chains: Chains::new(self.is_strict, is_whole),
            next: next.unwrap_or(self.checkpoints.len()),
            next_kept: 0,
            stretch: Stretch { from_size: done, at_kept: Vec::new(), records: 0 },
            edge,
            covered,
            report: Report::default(),
            gathered: Vec::new(),
            messages: Messages::default(),
            leaves: Vec::new(),
            nodes: Messages::default(),
            last_offset: None,
            plan: self,
        }
    }
}

/// What was read since the last checkpoint.
#[derive(Debug)]
struct Stretch {
    from_size: u64,
    /// Checkpoints of the verifier's own that lie within, with whether the tree had their root.
    at_kept: Vec<(u64, bool)>,
    records: u64,
}

/// A record that waits to be hashed: its key's and its link's message were gathered.
#[derive(Debug)]
struct Gathered {
    offset: u64,
    timestamp_ms: i64,
    presence: u8,
    /// Where its value lies in the messages.
    value: Option<Range<usize>>,
}

/// Checks one partition.
#[derive(Debug)]
pub struct PartitionCheck {
    plan: Plan,
    log: Hash,
    chains: Chains,
    /// The tree so far; none where it cannot be known.
    edge: Option<Edge>,
    /// The checkpoint that ends the present stretch.
    next: usize,
    next_kept: usize,
    stretch: Stretch,
    covered: Covered,
    report: Report,
    gathered: Vec<Gathered>,
    messages: Messages,
    /// Leaves that are not in the tree yet.
    leaves: Vec<Hash>,
    nodes: Messages,
    last_offset: Option<u64>,
}

impl PartitionCheck {
    /// Takes the next record.
    pub fn record(&mut self, record: &Record<'_>) {
        self.messages.add(record.key.unwrap_or_default());
        self.messages.begin();
        let (mut part, mut value) = (0, 0..0);
        linked(record, |bytes| {
            let place = self.messages.put(bytes);
            // Domain, key with its length, the value's length, then the value.
            if part == 4 {
                value = place;
            }
            part += 1;
        });
        self.messages.end();
        self.gathered.push(Gathered {
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            presence: u8::from(record.key.is_some()) + 2 * u8::from(record.value.is_some()),
            value: record.value.map(|_| value),
        });
        if self.gathered.len() >= GATHERED_MAX || self.messages.bytes().len() >= GATHERED_BYTES_MAX {
            self.judge();
        }
    }

    /// Hashes what was gathered, and judges it in its order.
    fn judge(&mut self) {
        let mut messages = std::mem::take(&mut self.messages);
        let gathered = std::mem::take(&mut self.gathered);
        let hashes = messages.hashes().to_vec();
        let (hashes, _) = hashes.as_chunks::<2>();
        let commitments =
            gathered.iter().zip(hashes).map(|(Gathered { offset, timestamp_ms, presence, .. }, hashes)| {
                let ([key, link], offset) = (*hashes, *offset);
                Commitment { offset, timestamp_ms: *timestamp_ms, presence: *presence, key, link }
            });
        let commitments: Vec<_> = commitments.collect();
        let mut leaves = Messages::default();
        commitments.iter().for_each(|commitment| leaves.add(&commitment.leaf_bytes(&self.log)));
        for ((commitment, leaf), Gathered { value, .. }) in commitments.iter().zip(leaves.hashes()).zip(&gathered) {
            if !self.takes(commitment.offset) {
                continue;
            }
            self.covered.records += 1;
            self.grow(*leaf);
            let Self { chains, report, plan, .. } = self;
            let value = value.clone().map(|range| &messages.bytes()[range]);
            chains.follow(value, commitment.offset, &commitment.link, &mut |kind, offset, text| {
                report.add(finding(plan, kind, Some(offset), text));
            });
        }
        messages.clear();
        (self.messages, self.gathered) = (messages, gathered);
        self.gathered.clear();
    }

    fn takes(&mut self, offset: u64) -> bool {
        if self.last_offset.is_some_and(|last| offset <= last) {
            self.found(Kind::Swapped, Some(offset), "it was given behind a record of a higher offset".to_owned());
            return false;
        }
        self.last_offset = Some(offset);
        self.covered.from.get_or_insert(offset);
        self.covered.to = Some(offset);
        while self.plan.checkpoints.get(self.next).is_some_and(|checkpoint| checkpoint.offset_next <= offset) {
            self.close();
        }
        true
    }

    fn grow(&mut self, leaf: Hash) {
        self.stretch.records += 1;
        let Some(edge) = &self.edge else { return };
        self.leaves.push(leaf);
        let size = edge.size() + self.leaves.len() as u64;
        while let Some(kept) = self.plan.kept.get(self.next_kept).filter(|kept| kept.size <= size) {
            let (size_kept, root) = (kept.size, kept.root);
            if size_kept == size {
                let is_same = self.grown().is_some_and(|edge| edge.root() == root);
                self.stretch.at_kept.push((size_kept, is_same));
            }
            self.next_kept += 1;
        }
    }

    /// The tree with every leaf in it.
    fn grown(&mut self) -> Option<&Edge> {
        let edge = self.edge.as_mut()?;
        edge.extend(&mut self.leaves, &mut self.nodes);
        Some(edge)
    }

    /// Ends a stretch at its checkpoint.
    fn close(&mut self) {
        let checkpoint = self.plan.checkpoints[self.next].clone();
        self.next += 1;
        let (from_size, size) = (self.stretch.from_size, checkpoint.signed.size);
        self.grown();
        let known = self.edge.take();
        let is_good = known.as_ref().is_some_and(|edge| edge.size() == size && edge.root() == checkpoint.signed.root);
        let end = checkpoint.offset_next.saturating_sub(1);
        if is_good {
            self.covered.proven += self.stretch.records;
            self.covered.proven_to = Some(end);
            if checkpoint.signed.is_witnessed {
                self.covered.witnessed_to = Some(end);
            }
            for (size, _) in self.stretch.at_kept.iter().filter(|(_, is_same)| !is_same) {
                let text = format!(
                    "a checkpoint that you keep says another tree of {size} records than the one that the published checkpoint of {} extends: both are signed",
                    checkpoint.signed.size
                );
                self.report.add(finding(&self.plan, Kind::Forked, None, text));
            }
        } else if known.is_some() {
            let (expected, there) = (size - from_size, self.stretch.records);
            let (kind, what) = match there.cmp(&expected) {
                std::cmp::Ordering::Less => (Kind::Removed, format!("{} are missing", expected - there)),
                std::cmp::Ordering::Greater => (Kind::Inserted, format!("{} are too many", there - expected)),
                std::cmp::Ordering::Equal => {
                    (Kind::Changed, "one or more are other records, or in another order".to_owned())
                }
            };
            let text = format!(
                "the records before offset {} are not those that the checkpoint of {size} signed: {expected} signed since the one before, {there} there, {what}",
                checkpoint.offset_next
            );
            self.found(kind, Some(end), text);
        }
        self.stretch = Stretch { from_size: size, at_kept: Vec::new(), records: 0 };
        self.edge = Some(checkpoint.edge);
    }

    /// The records end here: the partition's end is `end`, or the range that was wanted. What it comes to.
    #[must_use]
    pub fn finish(mut self, end: u64, is_partial: bool) -> Report {
        self.judge();
        // Nothing more comes: what lies before the end is judged, what a checkpoint covers behind it is missing.
        let reached = self.last_offset.map_or(0, |last| last + 1).max(end);
        while self.plan.checkpoints.get(self.next).is_some_and(|checkpoint| checkpoint.offset_next <= reached) {
            self.close();
        }
        if !is_partial {
            self.find_truncation(end);
        }
        let Self { chains, report, plan, .. } = &mut self;
        chains.finish(&mut |kind, offset, text| report.add(finding(plan, kind, Some(offset), text)));
        self.covered.lost = self.chains.lost;
        self.report.sightings = self.chains.sightings(&self.plan.topic, self.plan.partition);
        self.report.records = self.covered.records;
        self.report.partitions.push(self.covered);
        self.report
    }

    fn find_truncation(&mut self, end: u64) {
        if let Some(last) = self.plan.checkpoints.last().filter(|_| self.next < self.plan.checkpoints.len()) {
            let text = format!(
                "a signed checkpoint covers {} records up to offset {}, and the partition ends at {end}",
                last.signed.size,
                last.offset_next.saturating_sub(1)
            );
            self.found(Kind::Truncated, Some(end), text);
        }
        let Some(size) = self.grown().map(Edge::size) else { return };
        for (_, is_same) in std::mem::take(&mut self.stretch.at_kept) {
            if !is_same {
                let text =
                    "the records behind the last published checkpoint are not those of a checkpoint that you keep"
                        .to_owned();
                self.found(Kind::Changed, Some(end), text);
            }
        }
        let beyond = self.plan.kept[self.next_kept.min(self.plan.kept.len())..].iter().map(|kept| kept.size).max();
        if let Some(beyond) = beyond.filter(|beyond| *beyond > size) {
            let text = format!("a checkpoint that you keep covers {beyond} records, and there are {size}");
            self.found(Kind::Truncated, Some(end), text);
        }
    }

    fn found(&mut self, kind: Kind, offset: Option<u64>, text: String) {
        self.report.add(finding(&self.plan, kind, offset, text));
    }
}

fn finding(plan: &Plan, kind: Kind, offset: Option<u64>, text: String) -> Finding {
    Finding { kind, topic: Some(plan.topic.clone()), partition: Some(plan.partition), offset, text }
}
