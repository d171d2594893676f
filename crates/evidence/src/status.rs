//! What the collector did and holds, for metrics and alerts. Written by the collector, read by whoever asks; never waits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use parking_lot::Mutex;

/// Findings that are kept in words.
const FINDINGS_MAX: usize = 64;

/// A handle to the collector's figures.
#[derive(Clone, Debug, Default)]
pub struct Status(Arc<Figures>);

#[derive(Debug, Default)]
struct Figures {
    logs: AtomicU64,
    records: AtomicU64,
    waiting: AtomicU64,
    behind: AtomicU64,
    read_until_ms: AtomicI64,
    is_vouched: AtomicBool,
    checkpoints: AtomicU64,
    cosignatures: AtomicU64,
    witness_failures: AtomicU64,
    findings: AtomicU64,
    said: Mutex<Vec<String>>,
    failing: Mutex<Option<String>>,
}

/// The figures at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Snapshot {
    /// Partitions that have a tree.
    pub logs: u64,
    /// Records taken since the start.
    pub records: u64,
    /// Records that no checkpoint covers yet.
    pub waiting: u64,
    /// Checkpoints published since the start.
    pub checkpoints: u64,
    /// Records of the trail that were not read when it was looked last.
    pub behind: u64,
    /// The time of the newest record that was read, or when there was nothing to read, in milliseconds since 1970.
    pub read_until_ms: i64,
    /// Cosignatures of witnesses since the start.
    pub cosignatures: u64,
    /// Times that a witness did not cosign.
    pub witness_failures: u64,
    /// What was found wrong with the trail since the start.
    pub findings: u64,
    /// The newest of them, in words.
    pub said: Vec<String>,
    /// Why no evidence is made at the moment.
    pub failing: Option<String>,
}

impl Status {
    /// The figures now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let of = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
        let figures = &*self.0;
        Snapshot {
            logs: of(&figures.logs),
            records: of(&figures.records),
            waiting: of(&figures.waiting),
            checkpoints: of(&figures.checkpoints),
            behind: of(&figures.behind),
            read_until_ms: figures.read_until_ms.load(Ordering::Relaxed),
            cosignatures: of(&figures.cosignatures),
            witness_failures: of(&figures.witness_failures),
            findings: of(&figures.findings),
            said: figures.said.lock().clone(),
            failing: figures.failing.lock().clone(),
        }
    }

    pub(crate) fn taken(&self, records: u64) {
        self.0.records.fetch_add(records, Ordering::Relaxed);
    }

    pub(crate) fn depths(&self, logs: usize, waiting: usize) {
        self.0.logs.store(logs as u64, Ordering::Relaxed);
        self.0.waiting.store(waiting as u64, Ordering::Relaxed);
    }

    pub(crate) fn behind(&self, records: u64) {
        self.0.behind.store(records, Ordering::Relaxed);
    }

    pub(crate) fn read_until(&self, at_ms: i64) {
        self.0.read_until_ms.fetch_max(at_ms, Ordering::Relaxed);
    }

    pub(crate) fn vouched(&self) {
        self.0.is_vouched.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_vouched(&self) -> bool {
        self.0.is_vouched.load(Ordering::Relaxed)
    }

    pub(crate) fn published(&self) {
        self.0.checkpoints.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn cosigned(&self) {
        self.0.cosignatures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn witness_failed(&self) {
        self.0.witness_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Something is wrong with the trail itself.
    pub(crate) fn found(&self, text: String) {
        self.0.findings.fetch_add(1, Ordering::Relaxed);
        tracing::error!("evidence: {text}");
        let mut said = self.0.said.lock();
        if said.len() == FINDINGS_MAX {
            said.remove(0);
        }
        said.push(text);
    }

    /// Whether evidence is made at the moment; says a change of that once.
    pub(crate) fn failing(&self, why: Option<String>) {
        let mut failing = self.0.failing.lock();
        match (&*failing, &why) {
            (None, Some(why)) => tracing::error!("no evidence is made at the moment: {why}"),
            (Some(_), None) => tracing::warn!("evidence is made again"),
            _ => {}
        }
        *failing = why;
    }
}
