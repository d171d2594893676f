//! The one thread that orders, writes, syncs and publishes. Called through `log` by a bounded queue.
//!
//! Where the store is the write-ahead log, a group is not written and synced here but handed to `lander`, which puts it and then does
//! what this file does after a sync; the thread orders on meanwhile, within a bound.
//!
//! While one sync runs, appends gather in the queue; the next group takes all of them into one write and one sync.
//! The values say where an append stands: a [`Call`] was admitted to the queue, an [`Ordered`] has its offsets and its
//! place, and only what [`Writer::persist`] returned is acknowledged. A failed write or sync stops the log for good:
//! what its pages hold cannot be trusted. A disk without room for the next file stops nothing: it is looked for before anything of a
//! call is ordered, and the call is refused where there is none.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, atomic::Ordering, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use cairn_clock::Entropy;
use tokio::{sync::oneshot, time::Instant};

use crate::{
    Append, AppendError, Appended, InTransaction, LeaderEpoch, ProducerId, ProducerView, ReadError, StreamId,
    disk::SYNCED_BYTES,
    frame::{self, BATCH_OVERHEAD_BYTES, BatchEntry, Entry, HEADER_BYTES, Hand, Shape},
    lander::Flight,
    ledger::{Entered, Ledger},
    open::Shared,
    spares::Haste,
    state::{Placed, Stream},
    wal::{HEAD_BYTES, Segment},
    wal_object::{self, WalId},
};

/// Bytes of one group: a larger one would only delay its first member.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// For how long nothing is taken once the disk had no room: longer than the requests that a producer has under way, so that none of
/// them is taken before one that was refused, and a file is not tried to be made for each.
const FULL_PAUSE: Duration = Duration::from_secs(1);

pub(crate) type Results = Result<Vec<Result<Appended, AppendError>>, AppendError>;

/// What the writer is asked.
#[derive(Debug)]
pub(crate) enum Call {
    Append { entries: Vec<Append>, bytes: usize, reply: oneshot::Sender<Results> },
    Change { entry: Entry, reply: oneshot::Sender<Results> },
    Producers { stream: StreamId, reply: oneshot::Sender<Result<Vec<ProducerView>, ReadError>> },
    Close { reply: oneshot::Sender<()> },
}

/// A call with its offsets and its place in the group, not durable yet.
#[derive(Debug)]
pub(crate) struct Ordered {
    pub(crate) results: Vec<Result<Appended, AppendError>>,
    pub(crate) reply: oneshot::Sender<Results>,
}

/// What becomes visible when the group is durable.
#[derive(Debug)]
pub(crate) enum Visible {
    Batch(StreamId, Placed, Option<(ProducerId, InTransaction)>),
    Change(Entry),
}

/// What became durable: bytes of the log at their positions, the object that holds them where it is one, and where the log goes on.
#[derive(Debug)]
pub(crate) struct Landed {
    pub(crate) groups: Vec<(u64, Bytes)>,
    pub(crate) segment: Option<Segment>,
    pub(crate) end: u64,
}

/// Where frames go.
#[derive(Debug)]
pub(crate) enum Ground {
    /// Into files of this machine.
    Disk,
    /// Into objects of the store; the next one has this name.
    Store { flights: tokio::sync::mpsc::Sender<Flight>, next: WalId, launched: Option<Instant> },
}

/// The writer's own state; nothing else touches it.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) ledgers: BTreeMap<StreamId, Ledger>,
    /// Where the next frame goes.
    pub(crate) next: u64,
    pub(crate) synced: u64,
    pub(crate) segment: Option<Segment>,
    pub(crate) ground: Ground,
    /// Draws the nonces of what is encrypted.
    pub(crate) entropy: Entropy,
    /// What was written and is not shown yet.
    pub(crate) written: Vec<(u64, Bytes)>,
    /// Until when nothing is taken, because the disk had no room, and what it said.
    pub(crate) full: Option<(Instant, AppendError)>,
    /// The file behind which one is made ahead, and who makes it.
    pub(crate) ahead: Option<(u64, JoinHandle<()>)>,
}

impl Writer {
    /// Serves calls until the queue closes or the disk fails.
    pub(crate) fn run(mut self, calls: &mpsc::Receiver<Call>) {
        self.serve(calls);
        self.shared.spares.progress.end();
        if let Some((_, making)) = self.ahead.take() {
            // It holds the log's folder.
            let _ = making.join();
        }
    }

    fn serve(&mut self, calls: &mpsc::Receiver<Call>) {
        let mut failed: Option<AppendError> = None;
        while let Ok(first) = calls.recv() {
            let mut group = vec![first];
            let mut bytes = 0;
            while bytes < GROUP_BYTES_MAX {
                let Ok(call) = calls.try_recv() else { break };
                if let Call::Append { bytes: more, .. } = &call {
                    bytes += more;
                }
                group.push(call);
            }
            self.linger(calls, &mut group, bytes);
            if let Some(error) = self.shared.fenced().or_else(|| failed.clone()) {
                group.into_iter().for_each(|call| self.refuse(call, &error));
                continue;
            }
            match self.group(group) {
                Ok(None) => self.make_ahead(),
                Ok(Some(closing)) => {
                    self.shared.has_ended.store(true, Ordering::Release);
                    let _ = closing.send(());
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "the write-ahead log failed; nothing is accepted until restart");
                    let reason = format!("{error}; mend the disk, then restart cairn");
                    *self.shared.failure.lock() = Some(reason.clone());
                    failed = Some(AppendError::Failed { reason });
                }
            }
        }
    }

    /// Where the store is the log: so much comes together in one object that no more of them are put than `wal_interval` allows.
    /// Who comes after a pause waits for nobody.
    fn linger(&self, calls: &mpsc::Receiver<Call>, group: &mut Vec<Call>, mut bytes: usize) {
        let Ground::Store { launched: Some(launched), .. } = &self.ground else { return };
        let due = *launched + self.shared.options.wal_interval;
        while bytes < GROUP_BYTES_MAX && !matches!(group.last(), Some(Call::Close { .. })) {
            let left = due.saturating_duration_since(Instant::now());
            let Ok(call) = calls.recv_timeout(left) else { break };
            if let Call::Append { bytes: more, .. } = &call {
                bytes += more;
            }
            group.push(call);
        }
    }

    /// Orders a group, makes it durable with one sync, shows it, and only then acknowledges it.
    pub(crate) fn group(&mut self, group: Vec<Call>) -> io::Result<Option<oneshot::Sender<()>>> {
        // What the group takes at most, so that its bytes stay where they are first put.
        let most = group.iter().map(|call| Shape::Sealed.frame_bytes(body_of(call))).sum::<usize>();
        let (mut buffer, mut start) = (Vec::with_capacity(most + Shape::Sealed.frame_bytes(0)), self.next);
        let (mut ordered, mut visible, mut asked, mut closing) = (Vec::new(), Vec::new(), Vec::new(), None);
        for call in group {
            if let Some(error) = self.lacks_room(start, buffer.len(), &call)? {
                self.shared.counters.appends_refused.fetch_add(1, Ordering::Relaxed);
                self.refuse(call, &error);
                continue;
            }
            let body = body_of(&call);
            if body > 0 && !self.fits(start, buffer.len(), body) {
                self.persist(start, &mut buffer, true)?;
                start = self.next;
            }
            let frame = frame::begin(&mut buffer);
            let (shown, results, reply) = match call {
                Call::Close { reply } => {
                    closing = Some(reply);
                    buffer.truncate(frame);
                    continue;
                }
                Call::Producers { stream, reply } => {
                    asked.push((self.producers(stream), reply));
                    buffer.truncate(frame);
                    continue;
                }
                Call::Change { entry, reply } => {
                    frame::put_change(&mut buffer, &entry);
                    self.change(&entry);
                    (vec![Visible::Change(entry)], Vec::new(), reply)
                }
                Call::Append { entries, bytes, reply } => {
                    self.shared.counters.left_queue(bytes);
                    let (shown, results) = self.order(entries, &mut buffer);
                    (shown, results, reply)
                }
            };
            if shown.is_empty() {
                buffer.truncate(frame);
            } else {
                let position = start + frame as u64;
                let body_at = position + HEADER_BYTES as u64;
                frame::end(&mut buffer, frame, self.hand(), self.shape(), position, self.synced);
                visible.extend(shown.into_iter().map(|shown| match shown {
                    Visible::Batch(id, placed, part) => {
                        let position_of_batch = body_at + placed.position;
                        Visible::Batch(id, Placed { position: position_of_batch, frame: position, ..placed }, part)
                    }
                    change @ Visible::Change(_) => change,
                }));
            }
            ordered.push(Ordered { results, reply });
        }
        if let Ground::Store { .. } = self.ground {
            let has_ended = closing.is_some();
            self.shared.has_ended.fetch_or(has_ended, Ordering::AcqRel);
            self.launch(start, &mut buffer, (visible, ordered, closing));
            // The lander says that it is done.
            return Ok(has_ended.then(|| oneshot::channel().0));
        }
        self.persist(start, &mut buffer, false)?;
        let groups = self.written.drain(..).collect();
        show(&self.shared, Some(Landed { groups, segment: None, end: self.next }), visible);
        for Ordered { results, reply } in ordered {
            // A caller that went away has its batch durable all the same.
            let _ = reply.send(Ok(results));
        }
        for (producers, reply) in asked {
            let _ = reply.send(producers);
        }
        Ok(closing)
    }

    /// What is remembered of a stream's producers.
    fn producers(&self, stream: StreamId) -> Result<Vec<ProducerView>, ReadError> {
        let ledger = self.ledgers.get(&stream).ok_or(ReadError::UnknownStream { stream })?;
        let views = ledger.producers.iter().map(|(id, known)| ProducerView {
            id: ProducerId::new(*id),
            epoch: known.epoch,
            last_sequence: known.last.back().map(|seen| seen.first.wrapping_plus(seen.records.saturating_sub(1))),
            last_timestamp: known.at_ms,
            open_since: ledger.open.since(*id),
        });
        Ok(views.collect())
    }

    /// Gives each entry its offsets, or says why not. Positions are within the body, which begins at the end of `buffer`.
    fn order(
        &mut self,
        entries: Vec<Append>,
        buffer: &mut Vec<u8>,
    ) -> (Vec<Visible>, Vec<Result<Appended, AppendError>>) {
        let (from, mut shown, mut results) = (buffer.len(), Vec::new(), Vec::with_capacity(entries.len()));
        for entry in entries {
            results.push(self.order_one(entry, (buffer, from), &mut shown));
        }
        (shown, results)
    }

    fn order_one(
        &mut self,
        entry: Append,
        (buffer, from): (&mut Vec<u8>, usize),
        shown: &mut Vec<Visible>,
    ) -> Result<Appended, AppendError> {
        let Append { stream, records, max_timestamp, producer, transaction, mut bytes } = entry;
        let records = records.get();
        let (log_start, indexed) = {
            let state = self.shared.state.read();
            state.streams.get(&stream).map_or_else(Default::default, |stream| (stream.start, stream.indexed))
        };
        let ledger = self.ledgers.get_mut(&stream).ok_or(AppendError::UnknownStream { stream })?;
        if let Some(mark) = &producer
            && let Some(base_offset) = ledger.check(mark, records)?
        {
            return Ok(Appended { base_offset, log_start, duplicate: true });
        }
        let base = ledger.next;
        let next = base.checked_add(u64::from(records)).ok_or(AppendError::OffsetsExhausted { stream })?;
        if next.get() - indexed.get() > self.shared.options.offsets_reserved {
            // Where this log is lost, its successor passes over as many and no more.
            self.shared.uploads.notify_one();
            let reason = format!("stream {stream} is too far ahead of the object store: {}", self.shared.why_waiting());
            return Err(AppendError::Full { reason });
        }
        (self.shared.options.stamp)(&mut bytes, base, LeaderEpoch::new(self.shared.epoch));
        let length = u32::try_from(bytes.len()).expect("an append is no larger than a write-ahead file");
        let mut batch = BatchEntry { stream, base, records, max_timestamp, producer, transaction, at: 0, length };
        frame::put_batch(buffer, from, &mut batch, &bytes);
        ledger.record(base, Entered::of(&batch));
        self.shared.counters.appends.fetch_add(1, Ordering::Relaxed);
        self.shared.counters.appended_bytes.fetch_add(u64::from(length), Ordering::Relaxed);
        shown.push(Visible::Batch(
            stream,
            Placed { base, records, max_timestamp, position: u64::from(batch.at), frame: 0, length },
            producer.map(|mark| (mark.id, transaction)),
        ));
        Ok(Appended { base_offset: base, log_start, duplicate: false })
    }

    fn change(&mut self, entry: &Entry) {
        match entry {
            Entry::Create(id, _) => {
                self.ledgers.entry(*id).or_default();
            }
            Entry::Delete(id) => {
                self.ledgers.remove(id);
            }
            Entry::SetRetention(..) | Entry::DeleteBefore(..) | Entry::Batch(_) => {}
        }
    }

    /// Begins to make the next file once half of this one is used, where none waits, and has it ready when three quarters are: the disk
    /// is asked for no more at a time than that takes.
    fn make_ahead(&mut self) {
        let (Ground::Disk, Some(segment)) = (&self.ground, &self.segment) else { return };
        let (base, end) = (segment.base, segment.end());
        let Some(used) = self.next.checked_sub(base + segment.bytes / 2) else { return };
        self.shared.spares.progress.want(4 * used + SYNCED_BYTES as u64);
        if self.ahead.as_ref().is_some_and(|(behind, _)| *behind == base) {
            return;
        }
        let shared = self.shared.clone();
        let making = move || {
            if let Err(error) = shared.have_spare(end, Haste::Ahead) {
                // Tried again when it is needed, and told then.
                tracing::debug!(%error, "the next file of the write-ahead log cannot be made yet");
            }
        };
        self.ahead = thread::Builder::new().name("cairn-log-next".to_owned()).spawn(making).ok().map(|it| (base, it));
    }

    fn hand(&self) -> Hand {
        Hand { log: self.shared.log, epoch: self.shared.epoch }
    }

    /// How frames lie in the file that is written.
    fn shape(&self) -> Shape {
        self.segment.as_ref().map_or(Shape::Plain, Segment::shape)
    }

    /// Why a call cannot be written for now: it needs the next file, and the disk has no room for one. Nothing of it is ordered yet.
    fn lacks_room(&mut self, start: u64, gathered: usize, call: &Call) -> io::Result<Option<AppendError>> {
        let now = Instant::now();
        let pausing = self.full.as_ref().filter(|(until, _)| now < *until).map(|(_, error)| error.clone());
        let body = match call {
            Call::Append { .. } if pausing.is_some() => return Ok(pausing),
            Call::Producers { .. } | Call::Close { .. } => return Ok(None),
            call => body_of(call),
        };
        let (Ground::Disk, Some(segment)) = (&self.ground, &self.segment) else { return Ok(None) };
        let base = segment.end();
        if self.fits(start, gathered, body) {
            return Ok(None);
        }
        if pausing.is_some() {
            return Ok(pausing);
        }
        match self.shared.have_spare(base, Haste::Now) {
            Ok(()) => {
                if self.full.take().is_some() {
                    tracing::warn!("the disk of the write-ahead log has room again");
                }
                Ok(None)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                let reason =
                    format!("{}: {error}: make room there, and it goes on by itself", self.shared.folder.display());
                if self.full.is_none() {
                    tracing::warn!(%reason, "the disk of the write-ahead log is full; appends are refused");
                }
                let error = AppendError::Full { reason };
                self.full = Some((now + FULL_PAUSE, error.clone()));
                Ok(Some(error))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether one more frame, and the empty one that leaves the file, fit behind what is gathered.
    fn fits(&self, start: u64, gathered: usize, body: usize) -> bool {
        if let Ground::Store { .. } = self.ground {
            return gathered == 0 || gathered + body <= GROUP_BYTES_MAX;
        }
        let Some(segment) = &self.segment else { return false };
        let shape = segment.shape();
        start + (gathered + shape.frame_bytes(body) + shape.frame_bytes(0)) as u64 <= segment.end()
    }

    /// Whether a group would be taken without waiting for others to land.
    #[cfg(test)]
    pub(crate) fn has_room(&self) -> bool {
        match &self.ground {
            Ground::Disk => true,
            Ground::Store { flights, .. } => flights.capacity() > 0,
        }
    }

    /// Says in the file, at `position`, that the log goes on elsewhere; durable when this returns.
    pub(crate) fn leave(&mut self, position: u64) -> io::Result<()> {
        let Some(segment) = self.segment.take() else { return Ok(()) };
        let mut buffer = Vec::new();
        if position + segment.shape().frame_bytes(0) as u64 <= segment.end() {
            frame::put_frame(&mut buffer, self.hand(), segment.shape(), position, self.synced, &[]);
            if let Some(seal) = &segment.seal {
                frame::seal(&mut buffer, self.shared.log, seal, &self.entropy);
            }
            segment.file.write_at(position - segment.base, &buffer)?;
            return segment.file.sync();
        }
        Ok(())
    }

    /// Writes what is gathered, syncs it, and, where asked, leaves the file for a new one.
    pub(crate) fn persist(&mut self, start: u64, buffer: &mut Vec<u8>, leave: bool) -> io::Result<()> {
        if let Ground::Store { .. } = self.ground {
            // What it makes visible comes with the rest of its group.
            self.launch(start, buffer, (Vec::new(), Vec::new(), None));
            return Ok(());
        }
        if leave && let Some(segment) = &self.segment {
            let position = start + buffer.len() as u64;
            let shape = segment.shape();
            if position + shape.frame_bytes(0) as u64 <= segment.end() {
                frame::put_frame(buffer, self.hand(), shape, position, self.synced, &[]);
            }
        }
        if !buffer.is_empty() {
            let segment = self.segment.as_ref().expect("frames are gathered only for a file that they fit into");
            match &segment.seal {
                None => segment.file.write_at(start - segment.base, buffer)?,
                Some(seal) => {
                    // Readers of the tail get what is in the clear.
                    let mut sealed = buffer.clone();
                    frame::seal(&mut sealed, self.shared.log, seal, &self.entropy);
                    segment.file.write_at(start - segment.base, &sealed)?;
                }
            }
            segment.file.sync()?;
            self.shared.counters.fsyncs.fetch_add(1, Ordering::Relaxed);
            self.next = start + buffer.len() as u64;
            self.synced = self.next;
            if buffer.capacity() - buffer.len() > buffer.len() / 8 {
                buffer.shrink_to_fit(); // much of it was refused
            }
            self.written.push((start, std::mem::take(buffer).into()));
        }
        if leave {
            let base = self.segment.as_ref().map_or(self.next, Segment::end);
            let segment = self.shared.next_segment(base)?;
            self.next = segment.first();
            self.shared.state.write().segments.insert(base, segment.clone());
            self.segment = Some(segment);
        }
        Ok(())
    }

    /// Hands what is gathered to the lander, and waits while enough is on its way.
    fn launch(
        &mut self,
        start: u64,
        buffer: &mut Vec<u8>,
        (visible, ordered, closing): (Vec<Visible>, Vec<Ordered>, Option<oneshot::Sender<()>>),
    ) {
        let Ground::Store { flights, next, launched } = &mut self.ground else { return };
        let object = (!buffer.is_empty()).then(|| {
            let base = start - HEAD_BYTES as u64;
            let bytes = wal_object::object(self.shared.log, base, *next, buffer);
            self.next = base + bytes.len() as u64 + HEAD_BYTES as u64;
            let id = std::mem::replace(next, next.next());
            *launched = Some(Instant::now());
            (id, base, bytes)
        });
        buffer.clear();
        let flight = Flight { object, visible, ordered, closing };
        // Who waits for an answer hears that the log is closed where nobody lands any more.
        if let Err(tokio::sync::mpsc::error::TrySendError::Full(flight)) = flights.try_send(flight) {
            let _ = flights.blocking_send(flight);
        }
    }

    fn refuse(&self, call: Call, error: &AppendError) {
        match call {
            Call::Append { bytes, reply, .. } => {
                self.shared.counters.left_queue(bytes);
                let _ = reply.send(Err(error.clone()));
            }
            Call::Change { reply, .. } => {
                let _ = reply.send(Err(error.clone()));
            }
            Call::Producers { stream, reply } => {
                let _ = reply.send(self.producers(stream));
            }
            Call::Close { reply } => {
                let _ = reply.send(());
            }
        }
    }
}

/// Makes a durable group visible, all of it at once, and wakes who waits for it.
pub(crate) fn show(shared: &Shared, landed: Option<Landed>, visible: Vec<Visible>) {
    let mut state = shared.state.write();
    if let Some(Landed { groups, segment, end }) = landed {
        for (position, group) in groups {
            state.tail.push(position, group, shared.options.tail_bytes_max);
        }
        if let Some(segment) = segment {
            state.segments.insert(segment.base, segment);
        }
        state.durable = end;
    }
    let mut touched = Vec::new();
    for shown in visible {
        match shown {
            Visible::Batch(id, placed, part) => {
                if let Some(stream) = state.streams.get_mut(&id) {
                    stream.push(placed);
                    if let Some((producer, part)) = part {
                        stream.follow(producer, part, placed.base);
                    }
                    touched.push(id);
                }
            }
            Visible::Change(Entry::Create(id, retention)) => {
                state.streams.entry(id).or_insert_with(|| Stream::new(retention));
            }
            Visible::Change(Entry::SetRetention(id, retention)) => {
                if let Some(stream) = state.streams.get_mut(&id) {
                    stream.retention = retention;
                }
            }
            Visible::Change(Entry::Delete(id)) => {
                state.streams.remove(&id);
            }
            Visible::Change(Entry::DeleteBefore(id, offset)) => {
                if let Some(stream) = state.streams.get_mut(&id) {
                    stream.delete_before(offset);
                }
            }
            Visible::Change(Entry::Batch(_)) => {}
        }
    }
    touched.dedup();
    for id in touched {
        if let Some(stream) = state.streams.get(&id) {
            stream.publish();
        }
    }
    let is_due = shared.is_upload_due(&state);
    drop(state);
    if is_due {
        shared.uploads.notify_one();
    }
}

/// Bytes that an append call takes in a frame, at most.
pub(crate) fn frame_size(entries: &[Append], shape: Shape) -> usize {
    shape.frame_bytes(body_size(entries))
}

/// Bytes of a call's body at most.
fn body_of(call: &Call) -> usize {
    match call {
        Call::Append { entries, .. } => body_size(entries),
        Call::Change { .. } => frame::CHANGE_BYTES_MAX,
        Call::Producers { .. } | Call::Close { .. } => 0,
    }
}

/// The same without the frame around it.
fn body_size(entries: &[Append]) -> usize {
    entries.iter().map(|entry| BATCH_OVERHEAD_BYTES + BytesMut::len(&entry.bytes)).sum()
}
