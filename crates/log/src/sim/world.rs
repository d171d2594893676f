//! One run: the parts of the log, stepped in an order that the seed decides, against the model. Used by the simulation.

use std::{
    collections::BTreeMap,
    num::NonZeroU32,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use cairn_clock::{Clock, Entropy, Timestamp};
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{
    at_rest,
    disk::SimDisk,
    keyed::{self, SimKeys},
    model::{Batch, StreamModel},
    uploading::{Next, Uploading, poll_upload},
};
use crate::{
    Append, AppendError, Compaction, InTransaction, Isolation, LeaderEpoch, LogOptions, Offset, OpenError,
    PartitionIndex, ProducerEpoch, ProducerId, ProducerMark, ReadError, Retention, SealedStore, Sequence, StoreError,
    StreamId, WriteAhead,
    frame::Entry,
    open::{self, Opened, Shared},
    store::memory::{Faults, MemoryStore},
    writer::{Call, Results, Writer},
};

/// Polls that a future may take before it counts as stuck.
pub(super) const POLLS_MAX: usize = 100_000;
const SEGMENT_BYTES: u64 = (1 << 16) + 64;
/// More than a run gives out without an upload.
const RESERVED: u64 = 10_000;

pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Writer,
    pub(super) uploading: Uploading,
    /// Where the store is the write-ahead log.
    pub(super) landing: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// Appends on their way, in order.
    pub(super) pending: Vec<Pending>,
}

/// A call that was not answered yet, and what it must be answered.
pub(super) struct Pending {
    pub(super) answer: oneshot::Receiver<Results>,
    pub(super) expected: Vec<(StreamId, Batch, bool)>,
}

impl Running {
    fn new(opened: Opened) -> Self {
        let Opened { shared, writer, uploader, lander } = opened;
        let landing = lander.map(|lander| Box::pin(lander.land()) as Pin<Box<dyn Future<Output = ()>>>);
        Self { shared, writer, uploading: Uploading::Rests(Box::new(uploader)), landing, pending: Vec::new() }
    }

    /// One poll of what puts objects.
    fn land(&mut self) {
        if let Some(landing) = &mut self.landing
            && landing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
        {
            self.landing = None;
        }
    }
}

pub(super) struct World {
    pub(super) entropy: Entropy,
    pub(super) clock: Clock,
    pub(super) disk: SimDisk,
    store: MemoryStore,
    pub(super) streams: BTreeMap<StreamId, StreamModel>,
    pub(super) log: Option<Running>,
    /// Openers whose store was taken, and who do not know it yet; with where each stream went on.
    pub(super) zombies: Vec<(Running, BTreeMap<StreamId, u64>)>,
    /// Ends of transactions that were not acknowledged when the process died: whose, and where the markers would be.
    pub(super) maybe_ended: Vec<(i64, Vec<(StreamId, u64)>)>,
    /// What the store is known to have of each stream of a log whose folder was lost.
    pub(super) lost: Option<BTreeMap<StreamId, u64>>,
    batches: u64,
    /// The process dies at the end of this step.
    pub(super) is_doomed: bool,
    trace: Vec<String>,
}

impl World {
    /// Runs a seed; what happened, line by line.
    pub(super) fn run(seed: u64, steps: usize) -> Vec<String> {
        let mut world = Self {
            entropy: Entropy::seeded(seed),
            clock: Clock::manual(Timestamp::from_micros(1_000_000_000_000)),
            disk: SimDisk::new(seed ^ 1),
            store: MemoryStore::new(seed ^ 2),
            streams: BTreeMap::new(),
            log: None,
            zombies: Vec::new(),
            maybe_ended: Vec::new(),
            lost: None,
            batches: 0,
            is_doomed: false,
            trace: vec![format!("seed {seed}")],
        };
        // A failed assertion says which seed it was.
        let guard = SeedOnPanic(seed);
        world.open();
        for _ in 0..steps {
            world.step();
            world.after_step();
        }
        world.calm();
        world.power_loss(false);
        world.verify();
        if seed.is_multiple_of(2) {
            world.compact_all();
            world.lose_folder();
        }
        drop(guard);
        std::mem::take(&mut world.trace)
    }

    pub(super) fn roll(&self, below: u64) -> u64 {
        self.entropy.next_u64() % below.max(1)
    }

    pub(super) fn tell(&mut self, line: String) {
        self.trace.push(line);
    }

    pub(super) fn options(&self) -> LogOptions {
        // Encryption is switched on and off, and its key changed, between one opening and the next.
        let at_rest = match self.roll(4) {
            0 => at_rest(0, &[1, 2]),
            1 => at_rest(2, &[1]),
            _ => at_rest(1, &[2]),
        };
        let wal = if self.roll(2) == 0 { WriteAhead::Object } else { WriteAhead::Local };
        LogOptions {
            wal,
            wal_segment_bytes: SEGMENT_BYTES,
            wal_bytes_max: 1 << 30,
            upload_bytes: 20_000,
            merge_objects: 3,
            // Sometimes fewer than one batch has.
            compaction_keys_max: if self.roll(2) == 0 { 2 } else { 1_000 },
            tail_bytes_max: 10_000,
            cache_bytes_max: 8_000,
            small_object_bytes: [0, 10_000, 1 << 20][self.roll(3) as usize],
            offsets_reserved: RESERVED,
            recover: self.lost.is_some(),
            disk: Arc::new(self.disk.clone()),
            store: Arc::new(SealedStore::new(Arc::new(self.store.clone()), at_rest.clone())),
            at_rest,
            ..LogOptions::new(PathBuf::from("/log"), stamp)
        }
    }

    fn step(&mut self) {
        match self.roll(100) {
            0..36 => self.append(),
            36..40 => self.end_transaction(),
            40..68 => self.upload(),
            68..80 => self.read(),
            80..83 => self.delete_before(),
            83..86 => self.retention(),
            86..88 => self.create_or_delete(),
            88..92 => self.weather(),
            92..94 => {
                let operations = self.roll(12) as i64;
                self.disk.die_after(operations.max(1));
            }
            94..96 => self.power_loss(true),
            96..97 => self.kill(),
            97 => self.lose_folder(),
            98 => self.take_over(),
            _ => self.zombie(),
        }
    }

    /// A process whose disk died goes on reading for a moment, and must not show what is not durable. Then it dies.
    fn after_step(&mut self) {
        if std::mem::take(&mut self.is_doomed) {
            self.kill();
        }
        if self.disk.is_dead() {
            self.read();
            if self.roll(2) == 0 { self.power_loss(true) } else { self.kill() }
        }
    }

    // ── what happens ────────────────────────────────────────────────────────────────────────────────────────────────

    fn a_stream(&self) -> Option<StreamId> {
        let at = self.roll(self.streams.len() as u64) as usize;
        self.streams.keys().nth(at).copied()
    }

    /// One group of calls, each with some batches; a few of them are sent a second time.
    fn append(&mut self) {
        self.land();
        if self.log.as_ref().is_none_or(|log| !log.writer.has_room()) {
            self.tell("full".to_owned());
            return;
        }
        let mut calls = Vec::new();
        let mut waiting = Vec::new();
        let mut ends = self.ends();
        for _ in 0..=self.roll(3) {
            let (mut entries, mut expected) = (Vec::new(), Vec::new());
            for _ in 0..=self.roll(4) {
                let Some(id) = self.a_stream() else { return };
                // The log knows the last five: what this very group has sent would push older ones out.
                let again = self.roll(8) == 0 && ends[&id].1 == self.streams[&id].next_sequence;
                let last = &self.streams[&id].last;
                if let Some(old) = last.get(self.roll(last.len() as u64) as usize).filter(|_| again).cloned() {
                    entries.push(entry(id, &old, 0));
                    expected.push((id, old, true));
                    continue;
                }
                let (end, sequence) = ends.get_mut(&id).expect("every stream is there");
                let keys: Vec<_> = (0..=self.roll(3)).map(|_| (self.roll(6) as u8, self.roll(5) == 0)).collect();
                let (base, records) = (*end, keys.len() as u32);
                let idempotent = self.roll(2) == 0;
                let part = (!idempotent && self.roll(2) == 0).then(|| (self.a_producer(), InTransaction::Yes));
                let sequence = idempotent.then(|| std::mem::replace(sequence, *sequence + records as i32));
                *end += u64::from(records);
                let now = self.clock.now().as_millis();
                let bytes = self.bytes(base, now, part, &keys);
                let batch = Batch { base, records, bytes, sequence, part };
                entries.push(entry(id, &batch, now));
                expected.push((id, batch, false));
            }
            let (reply, answer) = oneshot::channel();
            calls.push(Call::Append { entries, bytes: 0, reply });
            waiting.push((answer, expected));
        }
        let Some(log) = &mut self.log else { return };
        log.shared.counters.queued.fetch_add(calls.len() as u64, std::sync::atomic::Ordering::Relaxed);
        let done = log.writer.group(calls).is_ok();
        let lengths: Vec<_> = waiting.iter().map(|(_, expected)| expected.len()).collect();
        log.pending.extend(waiting.into_iter().map(|(answer, expected)| Pending { answer, expected }));
        let lands = log.landing.is_some();
        self.tell(format!("append {lengths:?} {done}"));
        if lands {
            self.tell("put".to_owned());
            self.land();
        } else {
            self.answered();
            self.unanswered();
        }
    }

    /// Where each stream will go on, with the sequence of its producer.
    fn ends(&self) -> BTreeMap<StreamId, (u64, i32)> {
        let ends = self.streams.iter().map(|(id, stream)| (*id, (stream.end, stream.next_sequence)));
        let mut ends: BTreeMap<_, _> = ends.collect();
        let pending = self.log.iter().flat_map(|log| &log.pending).flat_map(|pending| &pending.expected);
        for (id, batch, _) in pending.filter(|(_, _, again)| !again) {
            let (end, next) = ends.get_mut(id).expect("every stream is there");
            *end = batch.next();
            *next = batch.sequence.map_or(*next, |sequence| sequence + batch.records as i32);
        }
        ends
    }

    /// A few polls of what puts objects, and what they were good for.
    fn land(&mut self) {
        for _ in 0..self.roll(8) {
            if let Some(log) = &mut self.log {
                log.land();
            }
            self.answered();
        }
    }

    /// Takes in what was answered.
    pub(super) fn answered(&mut self) {
        while let Some(log) = &mut self.log
            && let Some(first) = log.pending.first_mut()
            && let Ok(results) = first.answer.try_recv()
        {
            let Pending { expected, .. } = log.pending.remove(0);
            self.acknowledged(results, expected);
        }
    }

    /// What was not answered may have happened: its process is gone.
    pub(super) fn unanswered(&mut self) {
        self.answered();
        let Some(log) = &mut self.log else { return };
        let expected: Vec<_> = log.pending.drain(..).flat_map(|pending| pending.expected).collect();
        self.may_have(expected);
    }

    fn may_have(&mut self, expected: Vec<(StreamId, Batch, bool)>) {
        for (id, batch, again) in expected {
            if !again && let Some(stream) = self.streams.get_mut(&id) {
                stream.may_have(batch);
            }
        }
    }

    fn acknowledged(&mut self, results: Results, expected: Vec<(StreamId, Batch, bool)>) {
        let results = match results {
            // Its object may have landed all the same.
            Err(AppendError::Fenced { .. }) => return self.may_have(expected),
            results => results.expect("the writer had no reason to refuse the call"),
        };
        for ((id, batch, again), result) in expected.into_iter().zip(results) {
            let appended = result.expect("the writer had no reason to refuse the batch");
            assert_eq!((appended.base_offset.get(), appended.duplicate), (batch.base, again), "of {id}");
            if !again {
                self.streams.get_mut(&id).expect("known").acknowledge(batch);
            }
        }
    }

    pub(super) fn bytes(
        &mut self,
        base: u64,
        now_ms: i64,
        part: Option<(i64, InTransaction)>,
        keys: &[(u8, bool)],
    ) -> Bytes {
        self.batches += 1;
        let length = if self.roll(20) == 0 { self.roll(20_000) } else { self.roll(1_500) };
        keyed::fresh((base, self.batches, now_ms), part, keys, length as usize)
    }

    /// One poll of what the uploader is at, or its next task.
    fn upload(&mut self) {
        let next = match self.roll(7) {
            0 | 1 => Next::Collect,
            2 => Next::Merge,
            3 => Next::Compact,
            _ => Next::Upload,
        };
        let lists = self.roll(4) == 0;
        self.land();
        let Some(log) = &mut self.log else { return };
        let line = poll_upload(&mut log.uploading, lists, next, false);
        self.tell(line);
    }

    /// Reads somewhere, or everything of a stream while uploads go on.
    fn read(&mut self) {
        let Some(id) = self.a_stream() else { return };
        let (start, end) = (self.streams[&id].start, self.streams[&id].end);
        let from = start + self.roll(end - start + 1);
        let most = self.roll(20_000) as usize;
        let Some(log) = &self.log else { return };
        let shared = log.shared.clone();
        if self.roll(2) == 0 {
            return self.read_committed(id, from, most);
        }
        let read = drive(shared.read(id, Offset::new(from), most, Isolation::Durable));
        match read {
            Ok(read) => {
                let now_ms = self.clock.now().as_millis();
                let to = self.streams[&id].compare(from, &read.batches, now_ms);
                assert!(to > from || !self.streams[&id].has_from(from), "nothing was read at {from}, before {end}");
                assert_eq!(read.durable_end.get(), end, "more is visible than was acknowledged");
                self.tell(format!("read {from}..{to}"));
            }
            // The store fails in bad weather; data never does.
            Err(ReadError::Failed { .. }) => self.tell(format!("read-failed {from}")),
            Err(error) => panic!("reading {id} at {from} of {start}..{end}: {error}"),
        }
    }

    fn change(&mut self, entry: Entry) -> bool {
        self.settle_puts();
        let dies = self.roll(12) == 0;
        let Some(log) = &mut self.log else { return false };
        let (reply, mut answer) = oneshot::channel();
        let _ = log.writer.group(vec![Call::Change { entry, reply }]);
        if log.landing.is_some() {
            if dies {
                self.is_doomed = true;
                return false;
            }
            self.settle_puts();
        }
        matches!(answer.try_recv(), Ok(Ok(_)))
    }

    /// Until all that is on its way has landed.
    pub(super) fn settle_puts(&mut self) {
        if self.log.as_ref().is_none_or(|log| log.landing.is_none()) {
            return;
        }
        self.calm();
        for _ in 0..40 {
            if let Some(log) = &mut self.log {
                log.land();
            }
            self.answered();
        }
    }

    fn delete_before(&mut self) {
        let Some(id) = self.a_stream() else { return };
        let (start, end) = (self.streams[&id].start, self.streams[&id].end);
        let to = start + self.roll((end - start) / 2 + 1);
        self.forget(id, to);
    }

    fn forget(&mut self, id: StreamId, to: u64) {
        let done = self.change(Entry::DeleteBefore(id, Offset::new(to)));
        self.tell(format!("delete-before {to} {done}"));
        let stream = self.streams.get_mut(&id).expect("known");
        if done { stream.delete_before(to) } else { stream.may_delete_before(to) }
    }

    /// Time passes, and what is too old or too much goes.
    fn retention(&mut self) {
        self.clock.advance(Duration::from_secs(self.roll(200)));
        let Some(log) = &self.log else { return };
        let expired = log.shared.expired();
        self.tell(format!("retention {}", expired.len()));
        for (id, to) in expired {
            // One whose creation was never acknowledged is nobody's.
            let Some(end) = self.streams.get(&id).map(|stream| stream.end) else { continue };
            assert!(to.get() <= end);
            self.forget(id, to.get());
            if self.disk.is_dead() {
                return;
            }
        }
    }

    fn create_or_delete(&mut self) {
        if self.streams.len() > 2 {
            let Some(id) = self.a_stream() else { return };
            let done = self.change(Entry::Delete(id));
            self.tell(format!("delete {done}"));
            if done {
                self.streams.remove(&id);
            } else {
                self.streams.get_mut(&id).expect("known").maybe_deleted = true;
            }
        } else {
            self.create();
        }
    }

    fn create(&mut self) {
        let id = StreamId::new(Uuid::from_u128(u128::from(self.entropy.next_u64())), PartitionIndex::new(0));
        let limit = |chance: u64, value: u64| (chance == 0).then_some(value);
        let retention = Retention { ms: limit(self.roll(3), 300_000), bytes: limit(self.roll(3), 60_000) };
        let done = self.change(Entry::Create(id, retention));
        let compaction = (self.roll(2) == 0).then(|| Compaction {
            min_lag_ms: limit(self.roll(3), 100_000).unwrap_or(0),
            max_lag_ms: limit(self.roll(3), 200_000),
            delete_retention_ms: 120_000,
            dirty_per_mille: if self.roll(2) == 0 { 0 } else { 500 },
        });
        self.tell(format!("create {done} {}", compaction.is_some()));
        if done {
            self.streams.insert(id, StreamModel::new(compaction));
            self.say_compactions();
        }
    }

    /// The store becomes good, bad, or goes away.
    fn weather(&mut self) {
        let kind = self.roll(4);
        self.store.set_away(kind == 0);
        let bad = Faults { fails: self.roll(30), loses: self.roll(30), delays: 40 };
        self.store.set_faults(if kind == 1 { bad } else { Faults { delays: 40, ..Faults::default() } });
        self.tell(format!("weather {kind}"));
    }

    pub(super) fn calm(&mut self) {
        self.store.set_away(false);
        self.store.set_faults(Faults::default());
    }

    fn power_loss(&mut self, dying_opens: bool) {
        self.unanswered();
        self.log = None;
        self.disk.lose_power();
        self.tell("power loss".to_owned());
        self.reopen(dying_opens);
    }

    fn kill(&mut self) {
        self.unanswered();
        self.log = None;
        self.disk.revive();
        self.tell("kill".to_owned());
        self.reopen(true);
    }

    /// Opens, sometimes dying once on the way.
    fn reopen(&mut self, dying: bool) {
        if dying && self.roll(4) == 0 {
            let operations = 1 + self.roll(4) as i64;
            self.disk.die_after(operations);
            let opened = drive(open::open(self.options(), self.clock.clone(), self.entropy.clone()));
            self.tell(format!("open-dying {}", opened.is_ok()));
            if let Err(error) = &opened {
                assert!(
                    matches!(error, OpenError::Disk { .. } | OpenError::Store(StoreError::Failed { .. })),
                    "{error}"
                );
            }
            drop(opened);
            self.disk.lose_power();
        }
        self.open();
        if self.roll(3) == 0 {
            self.verify();
        }
    }

    pub(super) fn open(&mut self) {
        let opened = drive(open::open(self.options(), self.clock.clone(), self.entropy.clone()));
        let opened = match opened {
            Err(OpenError::Store(StoreError::Failed { .. })) => {
                self.calm();
                drive(open::open(self.options(), self.clock.clone(), self.entropy.clone()))
            }
            other => other,
        };
        self.adopt(opened.unwrap_or_else(|error| panic!("it does not open: {error}")));
    }

    /// Goes on with what an opener found.
    fn adopt(&mut self, opened: Opened) {
        let shared = opened.shared.clone();
        self.tell(format!("open {} {:?}", shared.epoch, shared.options.wal));
        let _ = shared.keys.set(Arc::new(SimKeys));
        self.log = Some(Running::new(opened));
        self.settle_loss(&shared);
        let state = shared.state.read();
        self.streams.retain(|id, stream| {
            let found = state.streams.get(id);
            assert!(found.is_some() || stream.maybe_deleted, "stream {id} is gone");
            stream.maybe_deleted = false;
            found.is_some_and(|found| {
                stream.settle(found.start.get(), found.durable_end().get());
                true
            })
        });
        drop(state);
        self.settle_ends();
        self.say_compactions();
        if self.streams.is_empty() {
            self.create();
        }
    }

    /// Another opens the store while this one goes on: appends, puts, uploads. What this one acknowledges, at whatever moment, is
    /// there.
    fn take_over(&mut self) {
        self.disk.revive();
        let Some(log) = &self.log else { return };
        let alone = log.shared.state.read().segments.values().all(|segment| segment.object.is_some());
        if log.landing.is_none() || !alone {
            return;
        }
        self.tell("take-over".to_owned());
        let old_disk = std::mem::replace(&mut self.disk, SimDisk::new(self.entropy.next_u64()));
        self.store.set_away(false);
        self.store.set_faults(Faults { delays: 60, ..Faults::default() });
        let mut opening = Box::pin(open::open(self.options(), self.clock.clone(), self.entropy.clone()));
        let opened = loop {
            if let Poll::Ready(opened) = opening.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                break opened;
            }
            match self.roll(6) {
                0 => self.append(),
                1 => self.upload(),
                2 => self.land(),
                _ => {}
            }
        };
        drop(opening);
        let opened = match opened {
            // The other committed between two steps of ours: as many times as are tried.
            Err(OpenError::Store(StoreError::Fenced { .. })) => {
                self.tell("lost the race".to_owned());
                self.disk = old_disk;
                return;
            }
            opened => opened.unwrap_or_else(|error| panic!("it does not take over: {error}")),
        };
        self.answered();
        let old = self.log.take().expect("it was there");
        self.may_have(old.pending.iter().flat_map(|pending| pending.expected.clone()).collect());
        self.zombies.push((old, BTreeMap::new()));
        self.adopt(opened);
        if self.roll(2) == 0 {
            self.zombie();
        }
    }

    /// Reads every stream from start to end, in good weather.
    pub(super) fn verify(&mut self) {
        self.calm();
        let Some(log) = &self.log else { return };
        let shared = log.shared.clone();
        for (id, stream) in &self.streams {
            let mut at = stream.start;
            while at < stream.end && stream.has_from(at) {
                let read = drive(shared.read(*id, Offset::new(at), 30_000, Isolation::Durable));
                let read = read.unwrap_or_else(|error| panic!("{id} at {at} of {}: {error}", stream.end));
                let to = stream.compare(at, &read.batches, self.clock.now().as_millis());
                assert!(to > at, "nothing was read at {at} of {}", stream.end);
                at = to;
            }
            stream.verify_committed(&shared, *id);
        }
        self.tell("verified".to_owned());
    }

    /// One that lost its store writes and uploads on: nobody may ever see it, and nothing that is needed may go.
    fn zombie(&mut self) {
        let Some((mut zombie, bounds)) = self.zombies.pop() else { return };
        self.calm();
        let Some(id) = zombie.shared.state.read().streams.keys().next().copied() else { return };
        let (reply, mut answer) = oneshot::channel();
        let bytes = Bytes::from_static(&[0xee; 900]);
        let entries = vec![entry(id, &Batch { base: 0, records: 1, bytes, sequence: None, part: None }, 0)];
        for _ in 0..20 {
            zombie.land();
        }
        if zombie.writer.has_room() {
            let _ = zombie.writer.group(vec![Call::Append { entries, bytes: 0, reply }]);
        }
        if !zombie.shared.is_diskless()
            && let (Ok(Ok(results)), Some(bound)) = (answer.try_recv(), bounds.get(&id))
        {
            let given = results[0].as_ref().expect("it does not know yet").base_offset.get();
            assert!(given < *bound, "it gave out {given}, and its successor went on at {bound}");
        }
        for n in 0..200 {
            let line = {
                let next = if n % 5 == 0 { Next::Collect } else { Next::Upload };
                poll_upload(&mut zombie.uploading, n % 3 == 0, next, true)
            };
            assert!(line != "committed", "a fenced opener changed the store");
            if line.starts_with("fenced") {
                self.tell(line);
            }
            zombie.land();
        }
        // What it had put before it was fenced is there, and it may say so however late. Nothing else.
        for Pending { mut answer, expected } in std::mem::take(&mut zombie.pending) {
            if let Ok(Ok(_)) = answer.try_recv() {
                for (id, batch, again) in expected {
                    let there = self.streams.get(&id).is_none_or(|stream| again || stream.has(&batch));
                    assert!(there, "a fenced opener acknowledged what is not in the log");
                    self.tell("late".to_owned());
                }
            }
        }
        if zombie.shared.is_diskless() {
            assert!(!matches!(answer.try_recv(), Ok(Ok(_))), "a fenced opener acknowledged an append");
        }
        assert!(zombie.shared.fenced().is_some(), "it never learnt that it is fenced");
        self.verify();
    }
}

fn stamp(bytes: &mut [u8], base: Offset, _: LeaderEpoch) {
    bytes[..8].copy_from_slice(&base.get().to_be_bytes());
}

pub(super) fn entry(stream: StreamId, batch: &Batch, max_timestamp: i64) -> Append {
    let mark = |id, first| ProducerMark {
        id: ProducerId::new(id),
        epoch: ProducerEpoch::new(0),
        first_sequence: Sequence::new(first),
    };
    let numbered = batch.sequence.map(|first| mark(7, first));
    let producer = numbered.or_else(|| batch.part.map(|(id, _)| mark(id, -1)));
    let transaction = batch.part.map(|(_, part)| part).unwrap_or_default();
    let records = NonZeroU32::new(batch.records).expect("at least one");
    Append { stream, records, max_timestamp, producer, transaction, bytes: BytesMut::from(&batch.bytes[..]) }
}

/// Polls a future to its end.
pub(crate) fn drive<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    for _ in 0..POLLS_MAX {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
    panic!("it never ends");
}

struct SeedOnPanic(u64);

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[allow(clippy::print_stderr)] // what led to it
            self.trace.iter().rev().take(30).rev().for_each(|line| eprintln!("  {line}"));
        }
    }
}

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            #[allow(clippy::print_stderr)] // the one thing that whoever reads a failure needs
            {
                eprintln!("failed with CAIRN_SIM_SEEDS={}..{}", self.0, self.0 + 1);
            }
        }
    }
}
