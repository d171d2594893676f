//! Batches of the simulation: records with keys, and how they are compacted. Used by the world, which writes them, and by the model,
//! which reads them. As simple as can be: Kafka's own are the broker's business.
//!
//! | at | bytes | a batch, big-endian |
//! | --- | --- | --- |
//! | 0 | 8 | base offset, set by `stamp` |
//! | 8 | 8 | number of the batch |
//! | 16 | 8 | horizon of its tombstones, ms; 2^64-1 where there is none yet |
//! | 24 | 8 | time of its records, ms |
//! | 32 | 1 | 1 where it belongs to a transaction, 2 where it is a marker, else 0 |
//! | 33 | 8 | whose that is |
//! | 41 | | records: delta 1, key 1, 0 for a tombstone 1, length of the value 4, value |

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{
    InTransaction, Offset, ProducerId,
    compaction::{Keep, KeyHash, Keys, Rebuilt, Rule},
};

const HEAD_BYTES: usize = 41;
const NEVER: u64 = u64::MAX;

/// One record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) delta: u8,
    pub(crate) key: u8,
    /// None is a tombstone.
    pub(crate) value: Option<Bytes>,
}

/// What a batch begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Head {
    pub(crate) base: u64,
    pub(crate) number: u64,
    horizon: u64,
    pub(crate) at_ms: i64,
    part: u8,
    producer: i64,
}

/// A batch with these records.
pub(crate) fn batch(head: Head, records: &[Record]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u64(head.base);
    bytes.put_u64(head.number);
    bytes.put_u64(head.horizon);
    bytes.put_i64(head.at_ms);
    bytes.put_u8(head.part);
    bytes.put_i64(head.producer);
    for record in records {
        bytes.put_u8(record.delta);
        bytes.put_u8(record.key);
        bytes.put_u8(u8::from(record.value.is_some()));
        let value = record.value.as_deref().unwrap_or_default();
        bytes.put_u32(value.len() as u32);
        bytes.put_slice(value);
    }
    bytes.freeze()
}

/// A batch as it comes in, with records of some keys and about that many bytes.
pub(crate) fn fresh(
    (base, number, at_ms): (u64, u64, i64),
    transaction: Option<(i64, InTransaction)>,
    keys: &[(u8, bool)],
    bytes: usize,
) -> Bytes {
    let records = (0..).zip(keys).map(|(delta, (key, is_gone))| {
        let length = bytes / keys.len().max(1);
        let value = (!is_gone).then(|| Bytes::from(vec![number as u8; length]));
        Record { delta, key: *key, value }
    });
    let (producer, part) = match transaction {
        None => (-1, 0),
        Some((producer, InTransaction::Yes)) => (producer, 1),
        Some((producer, _)) => (producer, 2),
    };
    batch(Head { base, number, horizon: NEVER, at_ms, part, producer }, &records.collect::<Vec<_>>())
}

/// What it begins with, and its records; nothing where it is no batch.
pub(crate) fn read(bytes: &[u8]) -> Option<(Head, Vec<Record>)> {
    let (mut head, mut rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let head = Head {
        base: head.get_u64(),
        number: head.get_u64(),
        horizon: head.get_u64(),
        at_ms: head.get_i64(),
        part: head.get_u8(),
        producer: head.get_i64(),
    };
    let mut found = Vec::new();
    while !rest.is_empty() {
        let (mut fields, tail) = rest.split_at_checked(7)?;
        let (delta, key, is_there) = (fields.get_u8(), fields.get_u8(), fields.get_u8() != 0);
        let (value, tail) = tail.split_at_checked(fields.get_u32() as usize)?;
        found.push(Record { delta, key, value: is_there.then(|| Bytes::copy_from_slice(value)) });
        rest = tail;
    }
    Some((head, found))
}

/// How the log reads them.
#[derive(Debug)]
pub(crate) struct SimKeys;

fn hash(key: u8) -> KeyHash {
    [key; 16]
}

impl Keys for SimKeys {
    fn transaction(&self, batch: &[u8]) -> Option<ProducerId> {
        read(batch).filter(|(head, _)| head.part == 1).map(|(head, _)| ProducerId::new(head.producer))
    }

    fn each_key(&self, batch: &[u8], each: &mut dyn FnMut(Offset, KeyHash)) {
        let Some((head, records)) = read(batch) else { return };
        for record in records.into_iter().filter(|_| head.part < 2) {
            each(Offset::new(head.base + u64::from(record.delta)), hash(record.key));
        }
    }

    fn rebuild(&self, bytes: &[u8], rule: Rule, keep: Keep<'_>) -> Rebuilt {
        let Some((head, found)) = read(bytes).filter(|(head, _)| head.part < 2) else {
            return Rebuilt { records: 1, ..Rebuilt::default() };
        };
        let horizon = head.horizon;
        let is_past = horizon <= rule.now_ms as u64;
        let stays = |record: &&Record| {
            let offset = Offset::new(head.base + u64::from(record.delta));
            matches!(keep, Keep::Newest(keep) if keep(offset, &hash(record.key)))
                && !(record.value.is_none() && horizon != NEVER && is_past)
        };
        let kept: Vec<_> = found.iter().filter(stays).cloned().collect();
        let has_tombstones = kept.iter().any(|record| record.value.is_none());
        let horizon_now = if horizon == NEVER && has_tombstones { rule.horizon_ms as u64 } else { horizon };
        let is_same = kept.len() == found.len() && horizon_now == horizon;
        Rebuilt {
            bytes: (!is_same).then(|| batch(Head { horizon: horizon_now, ..head }, &kept)),
            records: kept.len() as u32,
            max_timestamp: if kept.is_empty() { -1 } else { head.at_ms },
            horizon_ms: has_tombstones.then_some(horizon_now as i64),
        }
    }
}
