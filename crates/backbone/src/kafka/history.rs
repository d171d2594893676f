//! What of the delivered events a start without the cluster needs: each partition's last one, and all those of calls that
//! have no outcome yet.
//!
//! Everything that this gateway appends goes through the spool, so its own disk knows the chain's ends. Delivery folds each
//! frame in once it is acknowledged, and writes the file before a part of the spool is removed; a start folds the frames that
//! are still spooled on top. Folding a frame again changes nothing as long as those behind it follow again too.
//! It must never be trusted where the topics themselves can be read.
//!
//! `history.frames` has the form of a spool file of the number 0, encrypted where those are: its frames hold one record each.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use cairn_contract::{Body, EventRecord, StoredEvent, Topic};
use cairn_keys::AtRest;
use uuid::Uuid;

use super::{
    frame::{Frame, Parsed},
    sealed::{Head, HeadError},
    spool::SpoolError,
};
use crate::{Kept, identity::replace_file, recorder::settles};

const FILE: &str = "history.frames";
/// Its number as a spool file: those begin with 1.
const NUMBER: u64 = 0;

/// The events that a start needs to go on.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    folded: u64,
    last: BTreeMap<(Topic, u32), Entry>,
    open: BTreeMap<Uuid, Vec<Entry>>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// The order in which entries were folded in.
    nth: u64,
    partition: u32,
    floor: u64,
    record: EventRecord,
}

impl History {
    /// Takes in what was appended next.
    pub(crate) fn fold(&mut self, frame: &Frame) {
        for record in &frame.records {
            self.folded += 1;
            let (nth, partition, floor) = (self.folded, frame.partition, frame.floor);
            let entry = Entry { nth, partition, floor, record: record.clone() };
            self.last.insert((frame.topic, partition), entry.clone());
            if frame.topic == Topic::Calls {
                self.follow(entry);
            }
        }
    }

    /// Keeps the events of a call until its outcome.
    fn follow(&mut self, entry: Entry) {
        let EventRecord { key, headers, value, .. } = &entry.record;
        let Ok(event) = StoredEvent::parse(key.clone(), headers, value) else { return };
        let Some(call) = event.common.call_id else { return };
        match event.body() {
            Ok(Some(Body::CallOutcome(_))) => {
                self.open.remove(&call);
            }
            // People may settle an approval whose call has ended: that opens nothing.
            Ok(Some(body)) if settles(&body) && !self.open.contains_key(&call) => {}
            Ok(Some(Body::CallDecision(_) | Body::CallApproval(_) | Body::CallIntent(_))) => {
                let entries = self.open.entry(call).or_default();
                match entries.iter_mut().find(|known| known.record == entry.record) {
                    Some(again) => again.nth = entry.nth,
                    None => entries.push(entry),
                }
            }
            _ => {}
        }
    }

    /// Forgets a partition: its topic holds nothing, so nothing that is appended can join what was there.
    pub(crate) fn forget(&mut self, topic: Topic, partition: u32) {
        self.last.remove(&(topic, partition));
        if topic == Topic::Calls {
            self.open.retain(|_, entries| entries.iter().all(|entry| entry.partition != partition));
        }
    }

    /// The kept events, each partition's in order and once.
    pub(crate) fn kept(&self) -> Vec<Kept> {
        let mut entries: BTreeMap<(Topic, u32, u64), &Entry> = BTreeMap::new();
        let of_open = self.open.values().flatten().map(|entry| (Topic::Calls, entry));
        for (topic, entry) in self.last.iter().map(|((topic, _), entry)| (*topic, entry)).chain(of_open) {
            entries.insert((topic, entry.partition, entry.nth), entry);
        }
        let kept = |((topic, partition, _), entry): ((Topic, u32, u64), &Entry)| Kept {
            topic,
            partition,
            floor: entry.floor,
            record: entry.record.clone(),
        };
        entries.into_iter().map(kept).collect()
    }

    /// Writes the file: durable on return.
    pub(crate) fn save(&self, folder: &Path, at_rest: &AtRest) -> Result<(), SpoolError> {
        let (head, mut bytes) = Head::new(at_rest);
        for Kept { topic, partition, floor, record } in self.kept() {
            let frame = Frame { topic, partition, floor, records: vec![record] }.encode();
            let at = bytes.len() as u64;
            bytes.extend_from_slice(&head.put(&frame, NUMBER, at));
        }
        let path = path_of(folder);
        replace_file(&path, &bytes).map_err(|source| SpoolError::Io { path, source })
    }

    /// Reads the file; `None` where there is none, and for a damaged one, which is as good as none.
    pub(crate) fn load(folder: &Path, at_rest: &AtRest) -> Result<Option<Self>, SpoolError> {
        let path = path_of(folder);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(SpoolError::Io { path, source }),
        };
        let mut history = Self::default();
        let head = match Head::read(&bytes, at_rest) {
            Ok(head) => head,
            Err(HeadError::Key(source)) => return Err(SpoolError::Sealed { path, source }),
            Err(HeadError::Bad) => {
                tracing::warn!(path = %path.display(), "the spool's history is damaged: a start needs the cluster");
                return Ok(None);
            }
        };
        let mut at = usize::try_from(head.bytes).expect("a head is short");
        while at < bytes.len() {
            let Parsed::Frame(frame, used) = head.parse(&bytes[at..], NUMBER, at as u64) else {
                tracing::warn!(path = %path.display(), at, "the spool's history is damaged: a start needs the cluster");
                return Ok(None);
            };
            at += used;
            history.fold(&frame);
        }
        Ok(Some(history))
    }
}

fn path_of(folder: &Path) -> PathBuf {
    folder.join(FILE)
}
