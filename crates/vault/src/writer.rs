//! The writer: one thread that makes records and objects durable, many with one sync.
//!
//! Order matters: a subject's keys are durable before any object under them. What fails is told to everybody who waits,
//! and the pack is given up; the next write begins another. A payload of a subject that was erased meanwhile is dropped.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Condvar, Mutex};

use crate::{Ticket, packs};

/// Most that is written with one sync, in bytes.
const GROUP_BYTES_MAX: usize = 8 << 20;

/// Something to make durable.
#[derive(Debug)]
pub(crate) enum Item {
    /// A subject's record.
    Record { path: PathBuf, text: Vec<u8>, ticket: Ticket },
    /// An object's frame.
    Object { subject: [u8; 8], frame: Vec<u8>, ticket: Ticket, urgent: bool },
    /// Close the pack, so that it can be written again.
    Roll { ticket: Ticket },
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    urgent: bool,
    ended: bool,
}

/// What waits for the writer.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    /// Whether the last write failed.
    pub(crate) failing: AtomicBool,
    /// Why it did.
    pub(crate) reason: Mutex<String>,
    /// The pack that is being written.
    pub(crate) pack: AtomicU64,
    /// Objects and bytes written, and writes that failed.
    pub(crate) written: AtomicU64,
    pub(crate) written_bytes: AtomicU64,
    pub(crate) failed: AtomicU64,
}

impl Queue {
    /// `false` where there is no room.
    pub(crate) fn push(&self, item: Item, bytes_max: usize) -> bool {
        let mut state = self.state.lock();
        let (bytes, urgent) = match &item {
            Item::Object { frame, urgent, .. } => (frame.len(), *urgent),
            Item::Record { .. } | Item::Roll { .. } => (0, false),
        };
        if state.ended || state.bytes + bytes > bytes_max {
            return false;
        }
        let was_empty = state.items.is_empty();
        state.bytes += bytes;
        let wake = was_empty || urgent && !state.urgent;
        state.urgent |= urgent;
        state.items.push_back(item);
        drop(state);
        if wake {
            self.filled.notify_one();
        }
        true
    }

    /// Somebody waits for what is queued.
    pub(crate) fn hurry(&self) {
        self.state.lock().urgent = true;
        self.filled.notify_one();
    }

    pub(crate) fn end(&self) {
        let mut state = self.state.lock();
        state.ended = true;
        state.urgent = true;
        drop(state);
        self.filled.notify_one();
    }

    pub(crate) fn waiting_bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// The next group; nothing once the queue has ended and is empty.
    fn take(&self, flush: Duration) -> Option<Vec<Item>> {
        let mut state = self.state.lock();
        while state.items.is_empty() {
            if state.ended {
                return None;
            }
            self.filled.wait(&mut state);
        }
        if !state.urgent {
            self.filled.wait_for(&mut state, flush);
        }
        let (mut group, mut bytes) = (Vec::new(), 0);
        while let Some(item) = state.items.pop_front() {
            if let Item::Object { frame, .. } = &item {
                bytes += frame.len();
            }
            group.push(item);
            if bytes >= GROUP_BYTES_MAX {
                break;
            }
        }
        state.bytes -= bytes;
        state.urgent &= !state.items.is_empty();
        Some(group)
    }
}

/// Whether a subject is erased, as the writer asks.
pub(crate) type IsErased = Arc<dyn Fn([u8; 8]) -> bool + Send + Sync>;

/// The writing end.
pub(crate) struct Writer {
    pub(crate) queue: Arc<Queue>,
    pub(crate) objects: PathBuf,
    pub(crate) pack_bytes_max: u64,
    pub(crate) flush: Duration,
    pub(crate) next_pack: u64,
    pub(crate) is_erased: IsErased,
}

impl Writer {
    /// Runs until the queue ends.
    pub(crate) fn run(mut self) {
        let mut pack: Option<(File, u64)> = None;
        // Records that could not be written stay here: no object goes before its keys.
        let mut records: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
        while let Some(group) = self.queue.take(self.flush) {
            let rolls = group.iter().any(|item| matches!(item, Item::Roll { .. }));
            let (mut bytes, mut tickets, mut objects) = (Vec::new(), Vec::new(), 0);
            for item in group {
                match item {
                    Item::Record { path, text, ticket } => {
                        records.insert(path, text);
                        tickets.push(ticket);
                    }
                    Item::Object { subject, ticket, .. } if (self.is_erased)(subject) => {
                        ticket.fail("its subject was erased in the same moment");
                    }
                    Item::Object { mut frame, ticket, .. } => {
                        objects += 1;
                        bytes.append(&mut frame);
                        tickets.push(ticket);
                    }
                    Item::Roll { ticket } => tickets.push(ticket),
                }
            }
            let wrote = self.write(&mut records, &mut pack, &bytes);
            match wrote {
                Ok(()) => {
                    self.queue.written.fetch_add(objects, Ordering::Relaxed);
                    self.queue.written_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    self.queue.failing.store(false, Ordering::Release);
                    tickets.iter().for_each(Ticket::done);
                }
                Err(error) => {
                    // How much of it is on the disk nobody knows, so this pack is not written to any more.
                    pack = None;
                    let reason = format!("{}: {error}", self.objects.display());
                    if !self.queue.failing.swap(true, Ordering::AcqRel) {
                        tracing::error!(%error, folder = %self.objects.display(), "the vault cannot write");
                    }
                    self.queue.failed.fetch_add(objects.max(1), Ordering::Relaxed);
                    reason.clone_into(&mut self.queue.reason.lock());
                    tickets.iter().for_each(|ticket| ticket.fail(&reason));
                }
            }
            if rolls || pack.as_ref().is_some_and(|(_, len)| *len >= self.pack_bytes_max) {
                pack = None;
            }
        }
    }

    fn write(
        &mut self,
        records: &mut BTreeMap<PathBuf, Vec<u8>>,
        pack: &mut Option<(File, u64)>,
        bytes: &[u8],
    ) -> io::Result<()> {
        while let Some(record) = records.first_entry() {
            packs::replace(record.key(), record.get())?;
            record.remove();
        }
        if bytes.is_empty() {
            return Ok(());
        }
        if pack.is_none() {
            let path = packs::path(&self.objects, self.next_pack);
            let file = File::options().create_new(true).append(true).mode(0o600).open(&path)?;
            packs::sync_folder(&path)?;
            self.queue.pack.store(self.next_pack, Ordering::Release);
            self.next_pack += 1;
            *pack = Some((file, 0));
        }
        let (file, len) = pack.as_mut().expect("it was opened above");
        file.write_all(bytes)?;
        file.sync_data()?;
        *len += bytes.len() as u64;
        Ok(())
    }
}
