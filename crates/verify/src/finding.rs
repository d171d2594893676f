//! What a verification comes to: findings, losses, and how far the proofs reach.
//!
//! Each kind of tampering has a name that scripts may rely on. What is kept is bounded: past the bound findings are only counted.

use std::fmt;

use serde::Serialize;

use crate::checkpoint::CHECKPOINTS;

/// Findings that are kept one by one.
const FINDINGS_MAX: usize = 1_000;

/// Sightings of producers that are kept over all partitions.
const SIGHTINGS_MAX: usize = 1_000_000;

/// A kind of tampering, or what stands in the way of excluding it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A record is not the one that was written.
    Changed,
    /// Records are missing between others.
    Removed,
    /// There are records that nobody wrote at that place.
    Inserted,
    /// Records lie in another order than they were written in.
    Swapped,
    /// A record is there again.
    Replayed,
    /// Records are missing at the end.
    Truncated,
    /// Two checkpoints of one log do not extend each other.
    Forked,
    /// The topic was made anew under the same name.
    Recreated,
    /// A producer left a number of its sequence out, in a topic where it must not.
    Skipped,
    /// A record is no event of Cairn's.
    Foreign,
    /// Nobody who is trusted signed it.
    Untrusted,
    /// Fewer witnesses than wanted cosigned it.
    Unwitnessed,
    /// What should prove something cannot be read, or proves nothing.
    Unproven,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "changed",
            Self::Removed => "removed",
            Self::Inserted => "inserted",
            Self::Swapped => "swapped",
            Self::Replayed => "replayed",
            Self::Truncated => "truncated",
            Self::Forked => "forked",
            Self::Recreated => "recreated",
            Self::Skipped => "skipped",
            Self::Foreign => "foreign",
            Self::Untrusted => "untrusted",
            Self::Unwitnessed => "unwitnessed",
            Self::Unproven => "unproven",
        })
    }
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: Kind,
    /// The topic, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// The partition, likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<u32>,
    /// The offset where it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// In words.
    pub text: String,
}

/// Where a producer was seen first in an epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sighting {
    /// The topic.
    pub(crate) topic: String,
    /// The partition.
    pub(crate) partition: u32,
    /// The offset.
    pub(crate) offset: u64,
    /// The producer.
    pub(crate) id: String,
    /// Its epoch.
    pub(crate) epoch: u64,
}

/// How far the proofs of one partition reach.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Covered {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Records that were read.
    pub records: u64,
    /// Records that are only shown by their digests.
    #[serde(skip_serializing_if = "is_zero")]
    pub hidden: u64,
    /// Of all these, those that a signed checkpoint covers.
    pub proven: u64,
    /// The first offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// The last offset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
    /// The last offset that a checkpoint covers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven_to: Option<u64>,
    /// The last offset that a checkpoint covers which enough witnesses cosigned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub witnessed_to: Option<u64>,
    /// Events that producers of a relaxed topic dropped or lost, as their sequences show.
    pub lost: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The result of a verification.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Nothing was found.
    pub ok: bool,
    /// What was verified, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// Records that were read.
    pub records: u64,
    /// Checkpoints that were believed.
    pub checkpoints: u64,
    /// Partition by partition.
    pub partitions: Vec<Covered>,
    /// What was found.
    pub findings: Vec<Finding>,
    /// How many more findings there were than are listed.
    pub findings_more: u64,
    /// What it does not show, in words.
    pub limits: Vec<String>,
    /// A checkpoint came by another way than the trail.
    #[serde(skip)]
    pub(crate) is_kept: bool,
    /// Who wrote, until it is settled whether somebody vouches for them.
    #[serde(skip)]
    pub(crate) sightings: Vec<Sighting>,
}

impl Report {
    /// Adds a finding.
    pub fn add(&mut self, finding: Finding) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        } else {
            self.findings_more += 1;
        }
    }

    /// A finding that is about no place.
    pub(crate) fn general(&mut self, kind: Kind, text: impl Into<String>) {
        self.add(Finding { kind, topic: None, partition: None, offset: None, text: text.into() });
    }

    /// Takes over what another one found.
    pub(crate) fn join(&mut self, other: Self) {
        self.records += other.records;
        self.checkpoints += other.checkpoints;
        self.partitions.extend(other.partitions);
        self.see(other.sightings);
        self.findings_more += other.findings_more;
        other.findings.into_iter().for_each(|finding| self.add(finding));
    }

    /// Takes who wrote.
    pub(crate) fn see(&mut self, sightings: Vec<Sighting>) {
        let room = SIGHTINGS_MAX.saturating_sub(self.sightings.len());
        self.sightings.extend(sightings.into_iter().take(room));
    }

    /// Says whether all is well; call it last.
    pub(crate) fn settle(mut self) -> Self {
        self.partitions.sort_by(|a, b| (&a.topic, a.partition, a.from).cmp(&(&b.topic, b.partition, b.from)));
        self.limits = self.what_is_not_shown();
        self.ok = self.findings.is_empty() && self.findings_more == 0;
        self
    }

    fn what_is_not_shown(&self) -> Vec<String> {
        let mut limits = vec![
            "evidence begins at capture: that what was recorded is unchanged, not that what was recorded is all that happened"
                .to_owned(),
        ];
        let trees = || self.partitions.iter().filter(|covered| covered.topic != CHECKPOINTS);
        let is_witnessed = trees().any(|covered| covered.witnessed_to.is_some());
        limits.push(
            match (is_witnessed, self.is_kept) {
                (true, _) => "behind the last witnessed checkpoint of each partition it is the operator's word",
                (false, true) => "behind the checkpoints that you kept it is the operator's word",
                (false, false) => {
                    "no witness was named and no checkpoint kept: that this is the only history is the operator's word"
                }
            }
            .to_owned(),
        );
        let unproven: u64 =
            trees().map(|covered| (covered.records + covered.hidden).saturating_sub(covered.proven)).sum();
        if unproven > 0 {
            limits.push(format!(
                "{unproven} of the records lie behind the last signed checkpoint: only their producers' chains speak for them"
            ));
        }
        limits
    }

    /// Whether something of that kind was found.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.findings.iter().any(|finding| finding.kind == kind)
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(what) = &self.what {
            writeln!(f, "{what}")?;
        }
        for covered in self.partitions.iter().filter(|covered| covered.records + covered.hidden > 0) {
            let Covered { topic, partition, records, hidden, proven, lost, .. } = covered;
            write!(f, "{topic}/{partition}  {records} records")?;
            if let (Some(from), Some(to)) = (covered.from, covered.to) {
                write!(f, ", offsets {from} to {to}")?;
            }
            if *hidden > 0 {
                write!(f, ", {hidden} of other keys shown by digest")?;
            }
            match covered.proven_to {
                Some(to) => write!(f, "; {proven} proven by a signed checkpoint, up to offset {to}")?,
                None if topic == CHECKPOINTS => write!(f, "; each is signed by itself")?,
                None => write!(f, "; no signed checkpoint covers them")?,
            }
            if let Some(to) = covered.witnessed_to {
                write!(f, ", witnessed up to {to}")?;
            }
            if *lost > 0 {
                write!(f, "; {lost} relaxed events were dropped or lost by their producer")?;
            }
            writeln!(f)?;
        }
        for Finding { kind, topic, partition, offset, text } in &self.findings {
            write!(f, "{kind}: ")?;
            if let (Some(topic), Some(partition)) = (topic, partition) {
                write!(f, "{topic}/{partition}")?;
                if let Some(offset) = offset {
                    write!(f, " offset {offset}")?;
                }
                write!(f, ": ")?;
            }
            writeln!(f, "{text}")?;
        }
        if self.findings_more > 0 {
            writeln!(f, "and {} more findings", self.findings_more)?;
        }
        let (records, checkpoints) = (self.records, self.checkpoints);
        for limit in &self.limits {
            writeln!(f, "not shown: {limit}")?;
        }
        if self.ok {
            write!(f, "verified: {records} records, {checkpoints} checkpoints, nothing found")
        } else {
            let count = self.findings.len() as u64 + self.findings_more;
            write!(f, "NOT verified: {count} findings in {records} records, {checkpoints} checkpoints")
        }
    }
}
