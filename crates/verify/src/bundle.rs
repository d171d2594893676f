//! A bundle: records with their proofs in one file, checked without any network.
//!
//! JSON Lines, each line an object with one member that says what it is; `contracts/evidence.md` describes them. The file may
//! come from anybody: it is read line by line, each bounded, and nothing in it makes this code panic or keep more than it must.

use std::io::{BufRead, Read};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{
    chain::Chains,
    checkpoint::{Published, Trail},
    finding::{Covered, Finding, Kind, Report},
    merkle::{Edge, inclusion},
    note::{NOTE_BYTES_MAX, PROOF_TITLE, Proof, Signed, Trust, hash, head},
    partition::Plan,
    proof::check_proof,
    record::{Commitment, Hash, Record, log_hash, sha256},
};

/// Bytes of a line: an event of the largest size fits, in base64.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// The format that is read here.
const VERSION: u32 = 1;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Bundle {
        version: u32,
        #[serde(default)]
        workflow: Option<String>,
        #[serde(default)]
        what: String,
    },
    Rotation(String),
    Producer(String),
    Checkpoint(Box<Published>),
    Segment {
        topic: String,
        partition: u32,
        first: u64,
        count: u64,
        proofs: Vec<String>,
    },
    Record(RecordLine),
    Hidden {
        offset: u64,
        timestamp_ms: i64,
        presence: u8,
        key_sha256: String,
        link: String,
    },
    End {
        records: u64,
    },
}

#[derive(Deserialize)]
struct RecordLine {
    offset: u64,
    timestamp_ms: i64,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    #[serde(default)]
    value: Option<String>,
}

/// A stretch of one partition that is being read.
struct Segment {
    plan: Plan,
    /// The checkpoint of both proofs; none where they cannot be believed.
    signed: Option<Signed>,
    log: Hash,
    first: u64,
    count: u64,
    proofs: Option<(Proof, Proof)>,
    edge: Option<Edge>,
    at_kept: Vec<(u64, bool)>,
    taken: u64,
    is_proven: bool,
    chains: Chains,
    covered: Covered,
    last_offset: Option<u64>,
}

/// Reads bundles.
struct Reader {
    trail: Trail,
    workflow: Option<String>,
    what: String,
    segment: Option<Segment>,
    lines: u64,
    is_begun: bool,
    is_ended: bool,
    scratch: Vec<u8>,
}

/// Checks a bundle. `kept` are checkpoints that came by another way, which its logs must extend.
///
/// # Errors
/// The file cannot be read. What is wrong in it is in the report.
pub fn check_bundle(bundle: impl BufRead, trust: Trust, kept: &[String]) -> std::io::Result<Report> {
    let mut trail = Trail::new(trust);
    kept.iter().for_each(|note| trail.keep(note));
    let mut reader = Reader {
        trail,
        workflow: None,
        what: String::new(),
        segment: None,
        lines: 0,
        is_begun: false,
        is_ended: false,
        scratch: Vec::new(),
    };
    reader.read(bundle)?;
    reader.close();
    let Reader { mut trail, what, lines, is_begun, is_ended, .. } = reader;
    if !is_begun {
        trail.report.general(Kind::Unproven, "this is no bundle of evidence: write one with `cairn evidence export`");
    } else if !is_ended {
        trail
            .report
            .general(Kind::Truncated, format!("the bundle breaks off after {lines} records: its last line is missing"));
    }
    Ok(trail.finish(what, []))
}

/// Checks a file that is a bundle or a proof of one record.
///
/// # Errors
/// As [`check_bundle`].
pub fn check_file(mut file: impl BufRead, trust: Trust, kept: &[String]) -> std::io::Result<Report> {
    if !file.fill_buf()?.starts_with(PROOF_TITLE.as_bytes()) {
        return check_bundle(file, trust, kept);
    }
    let mut text = Vec::new();
    file.take(NOTE_BYTES_MAX as u64).read_to_end(&mut text)?;
    Ok(check_proof(&String::from_utf8_lossy(&text), trust, kept))
}

impl Reader {
    fn read(&mut self, mut bundle: impl BufRead) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let read = bundle.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
            if read == 0 {
                return Ok(());
            }
            let Ok(line) = serde_json::from_slice::<Line>(&bytes) else {
                let text = format!("a line of the bundle cannot be read: {:?}", head(&String::from_utf8_lossy(&bytes)));
                self.trail.report.general(Kind::Unproven, text);
                // What follows may be anything.
                return Ok(());
            };
            if !self.is_begun && !matches!(line, Line::Bundle { .. }) {
                return Ok(());
            }
            self.line(line);
        }
    }

    fn line(&mut self, line: Line) {
        if self.is_ended {
            self.trail.report.general(Kind::Inserted, "the bundle goes on behind its last line");
            return;
        }
        match line {
            Line::Bundle { version, .. } if version != VERSION || self.is_begun => {
                self.trail
                    .report
                    .general(Kind::Unproven, "the bundle is of a version that is not known here, or begins twice");
            }
            Line::Bundle { workflow, what, .. } => {
                self.is_begun = true;
                self.what = match &workflow {
                    Some(workflow) => format!("workflow {}", head(workflow)),
                    None => head(&what),
                };
                self.workflow = workflow;
            }
            Line::Rotation(note) => self.trail.rotation(&note),
            Line::Producer(note) => self.trail.producer(&note),
            Line::Checkpoint(published) => self.trail.published(&published),
            Line::Segment { topic, partition, first, count, proofs } => {
                self.close();
                self.open(&topic, partition, (first, count), &proofs);
            }
            Line::Record(record) => self.record(&record),
            Line::Hidden { offset, timestamp_ms, presence, key_sha256, link } => {
                let Some((key, link)) = hash(&key_sha256).zip(hash(&link)) else {
                    self.trail.report.general(Kind::Unproven, "a hidden record of the bundle has no digests");
                    return;
                };
                self.lines += 1;
                let is_own = self.workflow.as_ref().is_some_and(|workflow| sha256(workflow.as_bytes()) == key);
                if let Some(segment) = self.take(&Commitment { offset, timestamp_ms, presence, key, link }) {
                    segment.covered.hidden += 1;
                    segment.chains.hidden(&link);
                    if is_own {
                        self.found(Kind::Removed, Some(offset), "an event of the workflow is hidden here");
                    }
                }
            }
            Line::End { records } => {
                self.close();
                self.is_ended = true;
                if records != self.lines {
                    let text = format!("the bundle should hold {records} records, and holds {}", self.lines);
                    let kind = if records > self.lines { Kind::Removed } else { Kind::Inserted };
                    self.trail.report.general(kind, text);
                }
            }
        }
    }

    fn open(&mut self, topic: &str, partition: u32, (first, count): (u64, u64), proofs: &[String]) {
        let plan = self.trail.plan(topic, partition, None);
        let covered = Covered { topic: topic.to_owned(), partition, ..Covered::default() };
        let chains = Chains::new(plan.is_strict, first == 0);
        let parsed = match proofs {
            [one, other] => Proof::parse(one).zip(Proof::parse(other)),
            _ => None,
        };
        let mut segment = Segment {
            plan,
            signed: None,
            log: [0; 32],
            first,
            count,
            proofs: parsed,
            edge: None,
            at_kept: Vec::new(),
            taken: 0,
            is_proven: false,
            chains,
            covered,
            last_offset: None,
        };
        let mut wrong = None;
        match &segment.proofs {
            None => wrong = Some((Kind::Unproven, "the proofs of this stretch cannot be read".to_owned())),
            Some((one, other)) => {
                let last = first.checked_add(count).and_then(|end| end.checked_sub(1));
                match self.trail.trust().checkpoint(&one.checkpoint) {
                    Err(text) => wrong = Some((Kind::Untrusted, text)),
                    Ok(signed) => {
                        let is_here = signed.place().is_some_and(|(name, _, at)| name == topic && at == partition);
                        if !is_here
                            || one.checkpoint != other.checkpoint
                            || one.index != first
                            || Some(other.index) != last
                        {
                            wrong =
                                Some((Kind::Unproven, "the proofs of this stretch are of other records".to_owned()));
                        } else {
                            segment.log = log_hash(&signed.origin);
                            segment.signed = Some(signed);
                        }
                    }
                }
            }
        }
        if let (Some(signed), Some(_)) = (&segment.signed, &self.workflow)
            && first + count < signed.size
        {
            let text = format!(
                "the checkpoint covers {} records and the bundle ends at {}: events of the workflow may be left out",
                signed.size,
                first + count
            );
            wrong = Some((Kind::Truncated, text));
        }
        if let Some(signed) = &segment.signed {
            let is_other = |kept: &&crate::partition::Kept| kept.size == signed.size && kept.root != signed.root;
            if segment.plan.kept.iter().any(|kept| is_other(&kept)) {
                wrong = Some((
                    Kind::Forked,
                    "a checkpoint that you keep has another root than this bundle's, and both are signed".to_owned(),
                ));
            }
            if segment.plan.origin != signed.origin && !segment.plan.origin.is_empty() {
                wrong = Some((
                    Kind::Recreated,
                    format!("the records are of the log {}, and the checkpoints of another", head(&signed.origin)),
                ));
            }
            let beyond = segment.plan.kept.iter().filter(|kept| kept.size > signed.size).map(|kept| kept.size).max();
            if let Some(size) = beyond {
                let text = format!(
                    "a checkpoint that you keep covers {size} records, and the bundle's covers {}: what is newer is not shown",
                    signed.size
                );
                wrong = Some((Kind::Truncated, text));
            }
        }
        self.segment = Some(segment);
        if let Some((kind, text)) = wrong {
            self.found(kind, None, &text);
        }
    }

    fn record(&mut self, line: &RecordLine) {
        let decoded = |text: &String| STANDARD.decode(text).ok();
        let key = line.key.as_ref().map(decoded);
        let value = line.value.as_ref().map(decoded);
        let headers: Option<Vec<_>> =
            line.headers.iter().map(|(name, value)| Some((name.as_str(), STANDARD.decode(value).ok()?))).collect();
        let (Some(headers), false, false) = (headers, key == Some(None), value == Some(None)) else {
            self.found(Kind::Changed, Some(line.offset), "this record is not in base64");
            return;
        };
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        let (key, value) = (key.flatten(), value.flatten());
        let record = Record {
            offset: line.offset,
            timestamp_ms: line.timestamp_ms,
            key: key.as_deref(),
            headers: &headers,
            value: value.as_deref(),
        };
        self.lines += 1;
        let commitment = Commitment::of(&record, &mut self.scratch);
        let Some(segment) = self.take(&commitment) else { return };
        segment.covered.records += 1;
        let mut said = Vec::new();
        let value = record.value;
        segment
            .chains
            .follow(value, record.offset, &commitment.link, &mut |kind, offset, text| said.push((kind, offset, text)));
        self.trail.report.records += 1;
        for (kind, offset, text) in said {
            self.found(kind, Some(offset), &text);
        }
    }

    /// Takes the next leaf; the segment that it belongs to.
    fn take(&mut self, commitment: &Commitment) -> Option<&mut Segment> {
        let Some(segment) = &mut self.segment else {
            self.trail.report.general(Kind::Unproven, "a record of the bundle belongs to no stretch");
            return None;
        };
        let offset = commitment.offset;
        let is_disordered = segment.last_offset.is_some_and(|last| offset <= last);
        segment.last_offset = Some(offset.max(segment.last_offset.unwrap_or_default()));
        segment.covered.from.get_or_insert(offset);
        segment.covered.to = Some(offset);
        segment.taken += 1;
        segment.grow(commitment);
        if is_disordered {
            self.found(Kind::Swapped, Some(offset), "it lies behind a record of a higher offset");
        }
        self.segment.as_mut()
    }

    fn close(&mut self) {
        let Some(segment) = &mut self.segment else { return };
        let (taken, count, is_proven) =
            (segment.taken, segment.count, segment.is_proven && segment.taken == segment.count);
        let mut said = Vec::new();
        segment.chains.finish(&mut |kind, offset, text| said.push((kind, Some(offset), text)));
        if taken < count {
            let text = format!("{} records of this stretch are missing", count - taken);
            said.push((Kind::Removed, segment.last_offset, text));
        } else if taken > count {
            said.push((Kind::Inserted, segment.last_offset, format!("{} records are too many", taken - count)));
        } else if !is_proven && segment.signed.is_some() {
            let text = "the records are not those that the checkpoint signed: one or more were changed, or their order"
                .to_owned();
            said.push((Kind::Changed, None, text));
        }
        if is_proven {
            segment.covered.proven = taken;
            segment.covered.proven_to = segment.last_offset;
            if segment.signed.as_ref().is_some_and(|signed| signed.is_witnessed) {
                segment.covered.witnessed_to = segment.last_offset;
            }
            for (size, _) in segment.at_kept.iter().filter(|(_, is_same)| !is_same) {
                let text =
                    format!("a checkpoint of {size} records that you keep is of another tree, and both are signed");
                said.push((Kind::Forked, None, text));
            }
        }
        segment.covered.lost = segment.chains.lost;
        let seen = segment.chains.sightings(&segment.covered.topic, segment.covered.partition);
        self.trail.report.see(seen);
        for (kind, offset, text) in said {
            self.found(kind, offset, &text);
        }
        if let Some(segment) = self.segment.take() {
            self.trail.report.partitions.push(segment.covered);
        }
    }

    fn found(&mut self, kind: Kind, offset: Option<u64>, text: &str) {
        let place = self.segment.as_ref().map(|segment| (segment.covered.topic.clone(), segment.covered.partition));
        let (topic, partition) = place.unzip();
        self.trail.report.add(Finding { kind, topic, partition, offset, text: text.to_owned() });
    }
}

impl Segment {
    /// The first leaf gives the edge before it, by its proof; the last one must be proven and give the edge that grew.
    fn grow(&mut self, commitment: &Commitment) {
        let (Some(signed), Some((one, other))) = (&self.signed, &self.proofs) else { return };
        let leaf = commitment.leaf(&self.log);
        let at = self.first.saturating_add(self.taken - 1);
        if self.taken == 1 {
            self.edge = inclusion(&leaf, at, signed.size, &one.path, &signed.root);
        }
        let Some(edge) = &mut self.edge else { return };
        if self.taken == self.count {
            let before = inclusion(&leaf, at, signed.size, &other.path, &signed.root);
            self.is_proven = before.as_ref() == Some(edge);
        }
        edge.push(leaf);
        if let Some(kept) = self.plan.kept.iter().find(|kept| kept.size == edge.size()) {
            self.at_kept.push((kept.size, kept.root == edge.root()));
        }
    }
}
