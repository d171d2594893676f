//! The coordinator at work: what is known of each transactional id, read back at start and made durable before anybody is told; and a
//! watch over transactions whose time is over. Called by the transaction requests and by Produce.
//!
//! One lock for each id: who changes what is known holds it alone, who writes into the open transaction holds it with others until its
//! batch is ordered. So no batch can follow the markers of its own transaction. A change that was begun is brought to its end whether
//! or not its client still waits.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cairn_clock::Clock;
use cairn_log::{Append, AppendError, Appended, Log, PartitionIndex, Room, StreamId};
use parking_lot::RwLock;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard};

use super::{
    STATE_TOPIC, records,
    state::{Marker, Now, Place, Step, Transaction, TxnError},
};
use crate::{
    batch::BatchBuilder,
    broker::Broker,
    group::java_hash,
    streams::{self, StreamError},
    topics::{Topic, configs::TopicConfigs},
};

/// Bytes of a transactional id.
const ID_BYTES_MAX: usize = 1_024;
/// A partition of `__transaction_state` is rewritten at start when it holds more records than this, and more than so many times those
/// that are live.
const COMPACT_RECORDS: usize = 10_000;
const COMPACT_RATIO: usize = 4;
const COMPACT_BATCH_BYTES: usize = 256 << 10;

/// What is known of one id; nothing before its first record is durable, and after its last.
pub(super) type Known = Option<Transaction>;
pub(super) type Slot = Arc<tokio::sync::RwLock<Known>>;

/// All transactional ids.
#[derive(Debug, Default)]
pub(crate) struct Transactions {
    slots: RwLock<HashMap<String, Slot>>,
    /// What they take in memory, about.
    bytes: AtomicUsize,
}

impl Transactions {
    /// Reads `__transaction_state` back, and rewrites the partitions where most records are out of date.
    pub(crate) async fn open(log: &Log, clock: &Clock, topic: Option<&Topic>) -> Result<Self, StreamError> {
        let found = Self::default();
        for stream in topic.into_iter().flat_map(Topic::streams) {
            let (mut live, mut count) = (BTreeMap::new(), 0);
            streams::replay(log, stream, |record| {
                count += 1;
                let Some(key) = &record.key else { return };
                match records::decode(key, record.value.as_ref()) {
                    Some((id, Some(transaction))) => drop(live.insert(id, transaction)),
                    Some((id, None)) => drop(live.remove(&id)),
                    None => tracing::warn!(offset = record.offset, "a record of {STATE_TOPIC} cannot be read"),
                }
            })
            .await?;
            if count > COMPACT_RECORDS && count > COMPACT_RATIO * live.len() {
                compact(log, clock, stream, &live).await?;
            }
            let mut slots = found.slots.write();
            for (id, mut transaction) in live {
                transaction.resume(Now::by(clock));
                found.bytes.fetch_add(transaction.bytes() + id.len(), Ordering::Relaxed);
                slots.insert(id, Arc::new(tokio::sync::RwLock::new(Some(transaction))));
            }
        }
        Ok(found)
    }

    pub(super) fn all(&self) -> Vec<(String, Slot)> {
        self.slots.read().iter().map(|(id, slot)| (id.clone(), Arc::clone(slot))).collect()
    }

    pub(super) fn slot(&self, id: &str) -> Option<Slot> {
        self.slots.read().get(id).cloned()
    }

    /// Held with others.
    pub(super) async fn read(&self, id: &str) -> Result<OwnedRwLockReadGuard<Known>, TxnError> {
        let slot = self.slot(id).ok_or_else(|| unknown(id))?;
        Ok(slot.read_owned().await)
    }

    /// Held alone.
    pub(super) async fn write(&self, id: &str) -> Result<OwnedRwLockWriteGuard<Known>, TxnError> {
        let slot = self.slot(id).ok_or_else(|| unknown(id))?;
        Ok(slot.write_owned().await)
    }

    /// Held alone; made where there is none.
    async fn write_or_make(&self, id: &str, most: usize) -> Result<OwnedRwLockWriteGuard<Known>, TxnError> {
        loop {
            let slot = {
                let mut slots = self.slots.write();
                if !slots.contains_key(id) && slots.len() >= most {
                    return Err(TxnError::Full);
                }
                Arc::clone(slots.entry(id.to_owned()).or_default())
            };
            let guard = Arc::clone(&slot).write_owned().await;
            // It may have been forgotten while we waited.
            if self.slot(id).is_some_and(|now| Arc::ptr_eq(&now, &slot)) {
                return Ok(guard);
            }
        }
    }

    /// Forgets an id whose lock is held alone.
    fn forget(&self, id: &str, guard: &mut Known) {
        if let Some(gone) = guard.take() {
            self.bytes.fetch_sub(gone.bytes() + id.len(), Ordering::Relaxed);
        }
        self.slots.write().remove(id);
    }

    /// Puts what is durable in the place of what was.
    pub(super) fn put(&self, id: &str, guard: &mut Known, next: Transaction) {
        let (more, less) = (next.bytes() + id.len(), guard.as_ref().map_or(0, |was| was.bytes() + id.len()));
        self.bytes.fetch_add(more, Ordering::Relaxed);
        self.bytes.fetch_sub(less, Ordering::Relaxed);
        *guard = Some(next);
    }
}

/// Why there is nothing for an id.
const fn unknown(id: &str) -> TxnError {
    if id.is_empty() { TxnError::Id } else { TxnError::Mapping }
}

/// Writes what is live once more, then forgets what lies before. A crash between the two leaves both, which reads the same.
async fn compact(
    log: &Log,
    clock: &Clock,
    stream: StreamId,
    live: &BTreeMap<String, Transaction>,
) -> Result<(), StreamError> {
    let (now_ms, mut first, mut batch) = (clock.now().as_millis(), None, BatchBuilder::new());
    for (id, transaction) in live {
        batch.push(now_ms, Some(&records::key(id)), Some(&records::value(transaction)), &[]);
        if batch.bytes() > COMPACT_BATCH_BYTES {
            first = first.or(streams::append(log, stream, std::mem::take(&mut batch)).await?);
        }
    }
    let first = first.or(streams::append(log, stream, batch).await?);
    let end = match first {
        Some(first) => first,
        None => log.bounds(stream).map_err(|source| StreamError::Read { stream, at: 0, source })?.durable_end,
    };
    log.delete_before(stream, end).await.map_err(|source| StreamError::Append { stream, source })
}

/// Work that goes on when nobody waits for it any more.
pub(super) async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, TxnError>> + Send + 'static,
) -> Result<T, TxnError> {
    tokio::spawn(work).await.unwrap_or(Err(TxnError::Unavailable))
}

impl Broker {
    /// A producer with a transactional id begins: the id and epoch that it has from now on. `named` is what it says that it was.
    pub(crate) async fn initialise_producer(
        &self,
        id: &str,
        timeout_ms: i32,
        named: Option<(i64, i16)>,
    ) -> Result<(i64, i16), TxnError> {
        let limits = &self.inner.options.limits;
        if id.is_empty() || id.len() > ID_BYTES_MAX {
            return Err(TxnError::Id);
        }
        let most = i128::from(u64::try_from(limits.transaction_timeout_max.as_millis()).unwrap_or(u64::MAX));
        if timeout_ms <= 0 || i128::from(timeout_ms) > most {
            return Err(TxnError::Timeout);
        }
        self.check_room(1)?;
        let guard = self.inner.transactions.write_or_make(id, limits.transactional_ids_max).await?;
        let now_ms = self.inner.clock.now().as_millis();
        let fresh = || self.inner.topics.next_producer_id();
        let step = match guard.as_ref() {
            Some(known) => known.initialise(named, timeout_ms, now_ms, fresh)?,
            None => {
                let producer = fresh().ok_or(TxnError::Unavailable)?;
                Step::Next(Transaction::fresh(producer, timeout_ms, now_ms), None)
            }
        };
        self.settle(id, guard, step).await
    }

    /// More partitions are part of a transaction; it begins with the first.
    pub(crate) async fn add_to_transaction(
        &self,
        id: &str,
        (producer, epoch): (i64, i16),
        places: Vec<Place>,
        version: i16,
    ) -> Result<(), TxnError> {
        {
            let known = self.inner.transactions.read(id).await?;
            let known = known.as_ref().ok_or(TxnError::Mapping)?;
            known.check(producer, epoch)?;
            if places.iter().all(|place| known.has(place)) {
                return Ok(());
            }
        }
        let guard = self.inner.transactions.write(id).await?;
        let known = guard.as_ref().ok_or(TxnError::Mapping)?;
        known.check(producer, epoch)?;
        let next = self.grown(known, places, version)?;
        self.settle(id, guard, Step::Next(next, None)).await.map(|_| ())
    }

    /// What is known with more partitions, within bounds.
    pub(super) fn grown(&self, known: &Transaction, places: Vec<Place>, version: i16) -> Result<Transaction, TxnError> {
        let next = known.with(places, version, Now::by(&self.inner.clock));
        if next.partitions.len() > self.inner.options.limits.transaction_partitions_max {
            return Err(TxnError::Full);
        }
        self.check_room(next.bytes().saturating_sub(known.bytes()))?;
        Ok(next)
    }

    /// Whether transactional ids may take that much more memory.
    fn check_room(&self, more: usize) -> Result<(), TxnError> {
        let taken = self.inner.transactions.bytes.load(Ordering::Relaxed);
        if taken.saturating_add(more) <= self.inner.options.limits.transactions_bytes_max {
            return Ok(());
        }
        tracing::warn!("transactional ids and their partitions take as much memory as they may: raise the limit");
        Err(TxnError::Full)
    }

    /// Whether partitions are part of the open transaction of an id, one by one.
    pub(crate) async fn verify_in_transaction(
        &self,
        id: &str,
        (producer, epoch): (i64, i16),
        places: &[Place],
    ) -> Result<Vec<bool>, TxnError> {
        let known = self.inner.transactions.read(id).await?;
        let known = known.as_ref().ok_or(TxnError::Mapping)?;
        known.check(producer, epoch)?;
        Ok(places.iter().map(|place| known.has(place)).collect())
    }

    /// Ends the transaction of an id. Returns the producer id and epoch that go on.
    pub(crate) async fn end_transaction(
        &self,
        id: &str,
        (producer, epoch): (i64, i16),
        commits: bool,
        version: i16,
    ) -> Result<(i64, i16), TxnError> {
        let guard = self.inner.transactions.write(id).await?;
        let known = guard.as_ref().ok_or(TxnError::Mapping)?;
        let now_ms = self.inner.clock.now().as_millis();
        let fresh = || self.inner.topics.next_producer_id();
        let step = known.end(producer, epoch, commits, version, now_ms, fresh)?;
        self.settle(id, guard, step).await
    }

    /// Makes a step durable, markers and all in one frame, and only then known.
    async fn settle(
        &self,
        id: &str,
        mut guard: OwnedRwLockWriteGuard<Known>,
        step: Step,
    ) -> Result<(i64, i16), TxnError> {
        let (next, marker) = match step {
            Step::Known => {
                let known = guard.as_ref().ok_or(TxnError::Mapping)?;
                return Ok((known.producer, known.epoch));
            }
            Step::Next(next, marker) => (next, marker),
        };
        let (broker, id) = (self.clone(), id.to_owned());
        apart(async move {
            let markers = marker.zip(guard.as_ref()).map(|(marker, known)| broker.markers(known, marker));
            broker.store(&id, Some(&next), markers.unwrap_or_default()).await?;
            if let Some(marker) = marker {
                broker.inner.groups.end_pending(marker.producer, marker.commits);
            }
            let told = (next.producer, next.epoch);
            broker.inner.transactions.put(&id, &mut guard, next);
            Ok(told)
        })
        .await
    }

    /// A marker for each partition of a transaction; one that was deleted meanwhile needs none.
    fn markers(&self, known: &Transaction, marker: Marker) -> Vec<Append> {
        let now_ms = self.inner.clock.now().as_millis();
        let places = known.partitions.iter();
        let streams = places.filter_map(|(topic, partition)| self.inner.topics.get(topic)?.stream(*partition));
        let of = (marker.producer, marker.epoch);
        streams.map(|stream| streams::marker(stream, of, marker.commits, self.coordinator_epoch(), now_ms)).collect()
    }

    /// What markers say of who wrote them.
    pub(super) fn coordinator_epoch(&self) -> i32 {
        i32::try_from(self.inner.log.epoch().get()).unwrap_or(i32::MAX)
    }

    /// The record of an id, for the log.
    pub(super) async fn state_entry(&self, id: &str, known: Option<&Transaction>) -> Result<Append, TxnError> {
        let topic = match self.inner.topics.get(STATE_TOPIC) {
            Some(topic) => topic,
            None => self.make_state_topic().await?,
        };
        let partition = java_hash(id).unsigned_abs() % topic.partitions;
        let (mut batch, now_ms) = (BatchBuilder::new(), self.inner.clock.now().as_millis());
        let value = known.map(records::value);
        batch.push(now_ms, Some(&records::key(id)), value.as_deref(), &[]);
        let stream = StreamId::new(topic.id, PartitionIndex::new(partition));
        Ok(streams::entry(stream, batch).expect("there is a record"))
    }

    async fn make_state_topic(&self) -> Result<Arc<Topic>, TxnError> {
        let given = [("cleanup.policy".to_owned(), "compact".to_owned())].into();
        let configs = TopicConfigs::new(given).map_err(|_| TxnError::Unavailable)?;
        let partitions = self.inner.options.transactions_partitions.max(1);
        match self.inner.topics.create(STATE_TOPIC, partitions, configs).await {
            Ok(topic) => Ok(topic),
            // Another was quicker.
            Err(error) => self.inner.topics.get(STATE_TOPIC).ok_or_else(|| {
                tracing::warn!(%error, "{STATE_TOPIC} could not be made");
                TxnError::Unavailable
            }),
        }
    }

    /// Stores the record of an id and what goes with it, in one frame.
    async fn store(&self, id: &str, known: Option<&Transaction>, more: Vec<Append>) -> Result<(), TxnError> {
        let mut entries = vec![self.state_entry(id, known).await?];
        entries.extend(more);
        self.append_own(entries).await.map(|_| ())
    }

    /// Appends entries in one frame, out of the room that guests leave.
    pub(super) async fn append_own(
        &self,
        entries: Vec<Append>,
    ) -> Result<Vec<Result<Appended, AppendError>>, TxnError> {
        let results = self.inner.log.append_within(entries, Room::Own).await.map_err(|error| {
            tracing::warn!(%error, "the state of a transaction could not be stored");
            TxnError::Unavailable
        })?;
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            // Its stream went, or a newer incarnation of the producer has written there: nothing of it is open then.
            tracing::debug!(%error, "a partition takes no part in the end of a transaction");
        }
        Ok(results)
    }

    /// Looks for transactions whose time is over, and for ids that nobody uses, until the broker is dropped.
    pub(crate) fn watch_transactions(&self) {
        let inner = Arc::downgrade(&self.inner);
        let interval = self.inner.options.limits.transaction_interval.max(Duration::from_millis(1));
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(inner) = inner.upgrade() else { return };
                (Self { inner }).expire_transactions().await;
            }
        });
    }

    async fn expire_transactions(&self) {
        let kept = self.inner.options.limits.transactional_id_expiration.as_millis();
        let kept = i64::try_from(kept).unwrap_or(i64::MAX);
        let is_idle = |known: &Transaction| {
            let settled_ms = self.inner.settled.now().as_millis();
            known.partitions.is_empty() && settled_ms.saturating_sub(known.updated_ms) >= kept
        };
        for (id, slot) in self.inner.transactions.all() {
            let now = Now::by(&self.inner.clock);
            let is_due =
                |known: &Known| known.as_ref().is_none_or(|known| is_idle(known) || known.expire(now).is_some());
            // Who holds it is at work: next time.
            if !slot.try_read().is_ok_and(|known| is_due(&known)) {
                continue;
            }
            let Ok(mut guard) = slot.try_write_owned() else { continue };
            if let Some((next, marker)) = guard.as_ref().and_then(|known| known.expire(now)) {
                tracing::info!(id, "a transaction took too long and is aborted");
                // What could not be stored is tried again the next time.
                let _ = self.settle(&id, guard, Step::Next(next, Some(marker))).await;
                continue;
            }
            let is_gone = match guard.as_ref() {
                None => true,
                Some(known) => is_idle(known) && self.store(&id, None, Vec::new()).await.is_ok(),
            };
            if is_gone {
                self.inner.transactions.forget(&id, &mut guard);
            }
        }
    }
}
