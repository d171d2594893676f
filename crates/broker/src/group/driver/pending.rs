//! Offsets that transactions would commit: durable in `__consumer_offsets`, and seen by nobody until their transaction is committed
//! (KIP-98, 447). Called by the driver when it reads the topic back, and by the transaction coordinator.

use std::collections::{BTreeMap, HashMap};

use cairn_log::{Append, Offset, StreamId};

use super::{Coordinator, records};
use crate::{
    batch::{BatchBuilder, BatchHeader, Record},
    group::{
        GroupError, Identity, Input, Reply,
        offsets::{OffsetEntry, Offsets},
        records::{GroupRecord, OffsetValue},
        store::Loaded,
    },
    streams,
};

/// What an entry takes besides its texts, about: it is named in two places.
const ENTRY_BYTES: usize = 320;

/// The version of OffsetCommit that knows as much of the new group protocol as TxnOffsetCommit does.
const VERSION: i16 = 9;

/// Group, topic and partition.
type Key = (String, String, i32);

/// What open transactions would commit, by producer.
#[derive(Debug, Default)]
pub(in crate::group) struct Pending {
    by_producer: HashMap<i64, BTreeMap<Key, OffsetEntry>>,
    /// How many transactions would change each.
    times: HashMap<Key, usize>,
    bytes: usize,
}

fn cost((group, topic, _): &Key, entry: &OffsetEntry) -> usize {
    ENTRY_BYTES + 2 * (group.len() + topic.len()) + entry.value.metadata.len()
}

impl Pending {
    fn put(&mut self, producer: i64, key: Key, entry: OffsetEntry) {
        self.bytes += cost(&key, &entry);
        match self.by_producer.entry(producer).or_default().insert(key.clone(), entry) {
            Some(old) => self.bytes -= cost(&key, &old),
            None => *self.times.entry(key).or_default() += 1,
        }
    }

    /// The transaction ended: what it would have committed, and pending no more.
    fn end(&mut self, producer: i64) -> BTreeMap<Key, OffsetEntry> {
        let ended = self.by_producer.remove(&producer).unwrap_or_default();
        for (key, entry) in &ended {
            self.bytes -= cost(key, entry);
            if let Some(times) = self.times.get_mut(key) {
                *times -= 1;
                if *times == 0 {
                    self.times.remove(key);
                }
            }
        }
        ended
    }

    /// Forgets what is not to be kept, by group and topic.
    pub(in crate::group) fn retain(&mut self, keep: impl Fn(&str, &str) -> bool) {
        for (producer, mut entries) in std::mem::take(self).by_producer {
            entries.retain(|(group, topic, _), _| keep(group, topic));
            entries.into_iter().for_each(|(key, entry)| self.put(producer, key, entry));
        }
    }

    pub(in crate::group) fn forget(&mut self, group: &str, topic: &str, partition: i32) {
        let key = (group.to_owned(), topic.to_owned(), partition);
        if self.times.remove(&key).is_none() {
            return;
        }
        for entries in self.by_producer.values_mut() {
            if let Some(entry) = entries.remove(&key) {
                self.bytes -= cost(&key, &entry);
            }
        }
    }

    /// The same, of what was written before that place of `__consumer_offsets`.
    pub(super) fn forget_before(&mut self, group: &str, topic: &str, partition: i32, at: Offset) {
        let key = (group.to_owned(), topic.to_owned(), partition);
        if !self.times.contains_key(&key) {
            return;
        }
        for entries in self.by_producer.values_mut() {
            if entries.get(&key).is_some_and(|entry| entry.stored_at < at) {
                let entry = entries.remove(&key).expect("it was just looked at");
                self.bytes -= cost(&key, &entry);
                if let Some(times) = self.times.get_mut(&key) {
                    *times -= 1;
                }
            }
        }
        self.times.retain(|_, times| *times > 0);
    }

    pub(super) fn has(&self, group: &str, topic: &str, partition: i32) -> bool {
        !self.is_empty() && self.times.contains_key(&(group.to_owned(), topic.to_owned(), partition))
    }

    pub(in crate::group) fn is_empty(&self) -> bool {
        self.times.is_empty()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes in those of another partition of the topic.
    pub(in crate::group) fn extend(&mut self, other: Self) {
        for (producer, entries) in other.by_producer {
            entries.into_iter().for_each(|(key, entry)| self.put(producer, key, entry));
        }
    }

    /// Ends a transaction, and commits into `offsets` where it was committed.
    fn settle(&mut self, producer: i64, commits: bool, offsets: &mut Offsets) {
        for ((group, topic, partition), entry) in self.end(producer) {
            if commits {
                offsets.put(&group, topic, partition, entry);
            }
        }
    }
}

impl Loaded {
    /// Takes in a batch as it was stored: markers end what the batches of transactions before them began.
    pub(in crate::group) fn take_batch(&mut self, header: &BatchHeader, records: Vec<Record>) {
        if header.is_control() {
            let commits =
                records.first().and_then(|record| record.key.as_deref()).is_some_and(|key| key == [0, 0, 0, 1]);
            self.pending.settle(header.producer_id, commits, &mut self.offsets);
        } else if header.is_transactional() {
            for record in records {
                let found = record.key.as_deref().and_then(|key| records::decode(key, record.value.as_ref()));
                if let Some(GroupRecord::Offset { group, topic, partition, value: Some(value) }) = found {
                    let entry = OffsetEntry { value, stored_at: Offset::new(record.offset) };
                    self.pending.put(header.producer_id, (group, topic, partition), entry);
                }
            }
        } else {
            records.into_iter().for_each(|record| self.take(record));
        }
    }
}

/// Offsets of a transaction on their way into the log.
#[derive(Debug)]
pub(crate) struct PendingCommit {
    producer: i64,
    group: String,
    entries: Vec<(String, i32, OffsetValue)>,
}

impl Coordinator {
    /// The stream of `__consumer_offsets` that holds what a group commits.
    pub(crate) fn stream_of(&self, group: &str) -> StreamId {
        self.store.stream(group)
    }

    /// Checks what a transaction would commit, and makes the batch of it. A member is asked for only where the request names one.
    pub(crate) async fn prepare_pending(
        &self,
        group: String,
        who: Identity,
        generation: i32,
        (producer, epoch): (i64, i16),
        entries: Vec<(String, i32, OffsetValue)>,
    ) -> Result<Option<(Append, PendingCommit)>, GroupError> {
        if generation >= 0 || !who.member.is_empty() || who.instance.is_some() {
            let name = group.clone();
            let reply =
                self.ask(move |ticket| Input::Commit { ticket, group: name, who, generation, version: VERSION }).await;
            if let Reply::Refused(error) = reply {
                return Err(error);
            }
        }
        self.check_room(&group, &entries)?;
        let mut batch = BatchBuilder::new().producer(producer, epoch, -1).transactional();
        let now_ms = self.store.clock.now().as_millis();
        for (topic, partition, value) in &entries {
            let key = records::offset_key(&group, topic, *partition);
            batch.push(now_ms, Some(&key), Some(&records::offset_value(value)), &[]);
        }
        let append = streams::entry_of_producer(self.store.stream(&group), batch, (producer, epoch));
        Ok(append.map(|append| (append, PendingCommit { producer, group, entries })))
    }

    /// What was prepared is durable from this offset on.
    pub(crate) fn put_pending(&self, commit: PendingCommit, base: Offset) {
        let PendingCommit { producer, group, entries } = commit;
        let mut pending = self.pending.write();
        for (at, (topic, partition, value)) in (base.get()..).zip(entries) {
            let entry = OffsetEntry { value, stored_at: Offset::new(at) };
            pending.put(producer, (group.clone(), topic, partition), entry);
        }
    }

    /// A transaction ended, and that is durable: what it committed is seen from now on.
    pub(crate) fn end_pending(&self, producer: i64, commits: bool) {
        let mut pending = self.pending.write();
        pending.settle(producer, commits, &mut self.offsets.write());
    }

    /// Whether an open transaction may change the committed offset.
    pub(crate) fn is_pending(&self, group: &str, topic: &str, partition: i32) -> bool {
        self.pending.read().has(group, topic, partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(offset: i64, at: u64) -> OffsetEntry {
        let value = OffsetValue { offset, leader_epoch: -1, metadata: "note".to_owned(), committed_ms: 0 };
        OffsetEntry { value, stored_at: Offset::new(at) }
    }

    fn key(topic: &str) -> Key {
        ("g".to_owned(), topic.to_owned(), 0)
    }

    #[test]
    fn only_what_is_committed_is_seen_and_nothing_is_left_behind() {
        let (mut pending, mut offsets) = (Pending::default(), Offsets::default());
        pending.put(1, key("t"), entry(5, 0));
        pending.put(1, key("t"), entry(6, 1));
        pending.put(2, key("t"), entry(7, 2));
        pending.settle(2, false, &mut offsets);
        assert_eq!((offsets.len(), pending.times.get(&key("t"))), (0, Some(&1)));
        pending.settle(1, true, &mut offsets);
        assert_eq!(offsets.get("g", "t", 0).map(|value| value.offset), Some(6));
        assert!(pending.is_empty() && pending.bytes() == 0 && pending.by_producer.is_empty());
        pending.put(3, key("t"), entry(8, 3));
        pending.put(3, key("u"), entry(9, 4));
        pending.forget_before("g", "t", 0, Offset::new(3));
        assert!(pending.has("g", "t", 0), "it was written there, not before");
        pending.put(4, key("t"), entry(1, 1));
        pending.forget_before("g", "t", 0, Offset::new(3));
        assert_eq!(pending.times.get(&key("t")), Some(&1));
        pending.forget("g", "t", 0);
        pending.retain(|_, topic| topic != "u");
        assert!(pending.is_empty() && pending.bytes() == 0);
    }

    #[test]
    fn a_later_commit_outside_the_transaction_is_not_overwritten_by_its_end() {
        let (mut pending, mut offsets) = (Pending::default(), Offsets::default());
        pending.put(1, key("t"), entry(5, 0));
        offsets.put("g", "t".to_owned(), 0, entry(9, 1));
        pending.settle(1, true, &mut offsets);
        assert_eq!(offsets.get("g", "t", 0).map(|value| value.offset), Some(9));
    }
}
