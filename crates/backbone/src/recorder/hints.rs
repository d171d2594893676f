//! Where the next start may begin to read: a hint for each partition, that saves reading from the beginning.
//!
//! Written every few seconds and at close, from what the lanes recorded. A hint is a lower bound: at or before the last own
//! event and before the first event of every own call without outcome, so an old hint costs time and no truth. A file that
//! is missing, damaged or another gateway's is as good as none.
//!
//! `recorder-hints.json`: `{"gateway_id": …, "from": [[topic, partition, offset], …]}`

use std::{collections::HashMap, path::Path, sync::Arc};

use cairn_contract::{Body, Draft, Topic};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Inner, settles};
use crate::identity::replace_file;

const FILE: &str = "recorder-hints.json";
/// Calls without outcome that are remembered one by one; with more, the hint stays where it is.
const OPEN_MAX: usize = 65_536;

#[derive(Serialize, Deserialize)]
struct File {
    gateway_id: String,
    from: Vec<(String, u32, u64)>,
}

/// Where a partition's own open calls and last own event lie, at the earliest.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    last: Option<u64>,
    open: HashMap<Uuid, u64>,
    /// Set when there were too many open calls to remember.
    pinned: Option<u64>,
}

/// What an event means for the hint.
#[derive(Debug)]
pub(super) enum Note {
    Opens(Uuid),
    Closes(Uuid),
    Other,
}

impl Note {
    pub(super) fn of(draft: &Draft) -> Self {
        match (&draft.body, draft.common.call_id) {
            (Body::CallOutcome(_), Some(call)) => Self::Closes(call),
            // People may settle an approval whose call has ended: that opens nothing.
            (body, _) if settles(body) => Self::Other,
            (Body::CallDecision(_) | Body::CallApproval(_) | Body::CallIntent(_), Some(call)) => Self::Opens(call),
            _ => Self::Other,
        }
    }
}

impl Places {
    pub(super) fn new(last: Option<u64>, open: impl Iterator<Item = (Uuid, u64)>) -> Self {
        Self { last, open: open.collect(), pinned: None }
    }

    pub(super) fn note(&mut self, note: &Note, at: u64) {
        self.last = Some(at);
        match note {
            Note::Opens(call) if self.open.len() < OPEN_MAX => {
                self.open.entry(*call).or_insert(at);
            }
            Note::Opens(_) => self.pinned = self.from().or(Some(at)),
            Note::Closes(call) => {
                self.open.remove(call);
            }
            Note::Other => {}
        }
    }

    fn from(&self) -> Option<u64> {
        self.open.values().copied().chain(self.last).chain(self.pinned).min()
    }
}

pub(super) fn load(folder: &Path, gateway_id: &str) -> HashMap<(Topic, u32), u64> {
    let file = std::fs::read(folder.join(FILE)).ok().and_then(|bytes| serde_json::from_slice::<File>(&bytes).ok());
    let Some(file) = file.filter(|file| file.gateway_id == gateway_id) else { return HashMap::new() };
    let place = |(topic, partition, from): (String, u32, u64)| Some(((Topic::named(&topic)?, partition), from));
    file.from.into_iter().filter_map(place).collect()
}

/// Writes the file now.
pub(super) fn write(inner: &Inner) {
    let mut from = Vec::new();
    for lane in inner.lanes.values().flatten() {
        let (topic, partition) = lane.key();
        if let Some(offset) = lane.places.lock().from() {
            from.push((topic.name().to_owned(), partition, offset));
        }
    }
    from.sort();
    let file = File { gateway_id: inner.options.gateway_id.clone(), from };
    let bytes = serde_json::to_vec(&file).expect("strings and numbers are always JSON");
    if let Err(error) = replace_file(&inner.options.folder.join(FILE), &bytes) {
        tracing::warn!(%error, "the hints file was not written; the next start reads from an older place");
    }
}

/// Writes the file every few seconds while something was recorded, until the recorder is closed.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut seen = 0;
    loop {
        tokio::select! {
            () = inner.closed.cancelled() => return,
            () = tokio::time::sleep(inner.options.hints_every) => {}
        }
        let recorded = inner.counters.recorded.load(std::sync::atomic::Ordering::Relaxed);
        if recorded != seen {
            seen = recorded;
            let writer = inner.clone();
            let _ = tokio::task::spawn_blocking(move || write(&writer)).await;
        }
    }
}
