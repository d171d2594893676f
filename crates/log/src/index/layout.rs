//! Bytes of the index's files and of the head. Used by `index` and `upload`. Decoding trusts nothing.
//!
//! | at | bytes | a file of the index, little-endian |
//! | --- | --- | --- |
//! | 0 | 8 | magic and format version `CIDX0003`; `CIDX0001` and `CIDX0002` are read too |
//! | 8 | 16 | log id |
//! | 24 | 1 | 0 delta, 1 snapshot |
//! | 25 | 4 | epoch of the writer |
//! | 29 | 8 | sequence |
//! | 37 | 8 | covered: position before which the store has the write-ahead log |
//! | 45 | 4 | number of changes |
//! | 49 | | changes |
//! | end-4 | 4 | CRC32C over all before |
//!
//! | change | fields after its kind byte |
//! | --- | --- |
//! | 1 epoch | epoch 4, position 8 |
//! | 2 stream | stream, retention ms 8, retention bytes 8 (2^64-1 is none), start 8, next 8 |
//! | 3 deleted | stream |
//! | 4 range | stream, object's epoch 4, object's number 8, part's place 8, part's bytes 4, base 8, next 8, bytes 8, batches 4, max timestamp 8, number 4 of leader epochs (epoch 4, start 8), number 4 of aborted transactions (producer 8, first 8, last 8, from version 3 on the stable end behind it 8), object's position 8 (not in version 1) |
//! | 6 moved | as range, and takes the place of the ranges within its offsets (not in version 1) |
//! | 9 ranges with a past | stream, 0 added or 1 in the place of those within their offsets 1, number 4 of ranges (1 where added), each as range and then: 1 where its object took the place of others 1, 1 where it was compacted 1, when its first tombstone may go 8 (2^63-1 is never), records that are left 8 (from version 3 on). Ranges without a past are written as 4, one that was put together only as 6 |
//! | 7 write-ahead objects | epoch 4, first number that the store needs 8, one past the last 8 (2^64-1 while the epoch writes); nothing is needed where both are the same (from version 3 on) |
//! | 5 producers | stream, number 4 of producers (id 8, epoch 2, number 4 of last batches (first sequence 4, records 4, base 8)); up to version 2 |
//! | 10 open transactions | stream, number 4 of them (producer 8, first offset 8); from version 3 on |
//! | 11 producers | as 5, with the offset 8 and the greatest timestamp 8 of the last batch or marker behind the epoch; from version 3 on |
//! | 12 note | in `index/notes.rs` (from version 3 on) |
//!
//! A stream is topic 16, partition 4. A file is named `index/<epoch>/<sequence>-<nonce>`, hexadecimal; the nonce keeps two
//! that want the same epoch apart.
//!
//! | at | bytes | the head, little-endian |
//! | --- | --- | --- |
//! | 0 | 8 | magic and format version `CHEA0002`; `CHEA0001` is read too |
//! | 8 | 16 | log id |
//! | 24 | 4 | epoch of the owner |
//! | 28 | 8 | sequence of the last file |
//! | 36 | 4 | number of files, the snapshot first |
//! | 40 | | files: epoch 4, sequence 8, nonce 8 |
//! | | 8 | beat: how often the owner said that it is there (not in version 1) |
//! | | 4 | who the owner is, in its own words (not in version 1) |
//! | | 1 | 1 where the owner ended and left nothing behind (not in version 1) |
//! | end-4 | 4 | CRC32C over all before |

use std::{collections::VecDeque, sync::Arc};

use bytes::{BufMut, Bytes};
use uuid::Uuid;

use super::{Change, Compacted, Delta, Past, Range, notes};
use crate::{
    Aborted, Offset, ProducerEpoch, ProducerId, Retention, Sequence, StreamId,
    fields::Fields,
    ledger::{Producer, Seen},
    object::{ObjectId, PartPlace},
};

const MAGIC: [u8; 8] = *b"CIDX0003";
/// Files without write-ahead objects.
const MAGIC_2: [u8; 8] = *b"CIDX0002";
/// Files in which ranges have no position.
const MAGIC_1: [u8; 8] = *b"CIDX0001";
const HEAD_MAGIC: [u8; 8] = *b"CHEA0002";
/// Heads that name files and nothing else.
const HEAD_MAGIC_1: [u8; 8] = *b"CHEA0001";
const NONE: u64 = u64::MAX;
const NEVER: i64 = i64::MAX;
/// Bytes of a range with its past, at least.
const RANGE_BYTES_MIN: usize = 94;
/// The past of a range that was put together with others and not compacted.
const MERGED: Past = Past { merged: true, compacted: None };
/// The folder of all index files.
pub(crate) const FOLDER: &str = "index/";

/// The name of one file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct IndexName {
    pub(crate) epoch: u32,
    pub(crate) sequence: u64,
    pub(crate) nonce: u64,
}

impl IndexName {
    /// The folder of all of them.
    pub(crate) const FOLDER: &'static str = FOLDER;

    pub(crate) fn name(self) -> String {
        format!("{FOLDER}{:08x}/{:016x}-{:016x}", self.epoch, self.sequence, self.nonce)
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (epoch, rest) = name.strip_prefix(FOLDER)?.split_once('/')?;
        let (sequence, nonce) = rest.split_once('-')?;
        let number = |text| u64::from_str_radix(text, 16).ok();
        let found =
            Self { epoch: u32::from_str_radix(epoch, 16).ok()?, sequence: number(sequence)?, nonce: number(nonce)? };
        (found.name() == name).then_some(found)
    }
}

/// What the head says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct HeadRecord {
    pub(crate) log: Uuid,
    pub(crate) epoch: u32,
    pub(crate) sequence: u64,
    /// The snapshot and the deltas behind it.
    pub(crate) files: Vec<IndexName>,
    /// How often the owner said that it is there since it took the store.
    pub(crate) beat: u64,
    /// Who it is, in its own words.
    pub(crate) owner: u32,
    /// Whether it ended, and the store has all that it ever acknowledged.
    pub(crate) is_closed: bool,
}

impl HeadRecord {
    pub(crate) fn encode(&self) -> Bytes {
        let mut into = Vec::with_capacity(57 + self.files.len() * 20);
        into.put_slice(&HEAD_MAGIC);
        into.put_slice(self.log.as_bytes());
        into.put_u32_le(self.epoch);
        into.put_u64_le(self.sequence);
        into.put_u32_le(count(self.files.len()));
        for file in &self.files {
            into.put_u32_le(file.epoch);
            into.put_u64_le(file.sequence);
            into.put_u64_le(file.nonce);
        }
        into.put_u64_le(self.beat);
        into.put_u32_le(self.owner);
        into.put_u8(u8::from(self.is_closed));
        sealed(into)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let first = opened(bytes, HEAD_MAGIC_1);
        let is_first = first.is_some();
        let mut fields = first.or_else(|| opened(bytes, HEAD_MAGIC))?;
        let (log, epoch, sequence) = (fields.uuid()?, fields.u32()?, fields.u64()?);
        let count = fields.count(20)?;
        let mut files = Vec::with_capacity(count);
        for _ in 0..count {
            files.push(IndexName { epoch: fields.u32()?, sequence: fields.u64()?, nonce: fields.u64()? });
        }
        let (mut beat, mut owner, mut is_closed) = (0, 0, false);
        if !is_first {
            (beat, owner, is_closed) = (fields.u64()?, fields.u32()?, fields.flag()?);
        }
        let whole = fields.0.is_empty() && !files.is_empty();
        whole.then_some(Self { log, epoch, sequence, files, beat, owner, is_closed })
    }
}

impl Delta {
    pub(crate) fn encode(&self) -> Bytes {
        let mut into = Vec::with_capacity(64 + self.changes.len() * 96);
        into.put_slice(&MAGIC);
        into.put_slice(self.log.as_bytes());
        into.put_u8(u8::from(self.snapshot));
        into.put_u32_le(self.epoch);
        into.put_u64_le(self.sequence);
        into.put_u64_le(self.covered);
        into.put_u32_le(count(self.changes.len()));
        for change in &self.changes {
            put_change(&mut into, change);
        }
        sealed(into)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut fields, version) = match opened(bytes, MAGIC) {
            Some(fields) => (fields, Version::Three),
            None => match opened(bytes, MAGIC_2) {
                Some(fields) => (fields, Version::Two),
                None => (opened(bytes, MAGIC_1)?, Version::One),
            },
        };
        let (log, snapshot) = (fields.uuid()?, fields.flag()?);
        let (epoch, sequence, covered) = (fields.u32()?, fields.u64()?, fields.u64()?);
        let count = fields.count(10)?;
        let mut changes = Vec::with_capacity(count);
        for _ in 0..count {
            changes.push(change(&mut fields, version)?);
        }
        fields.0.is_empty().then_some(Self { log, snapshot, epoch, sequence, covered, changes })
    }
}

/// What a file can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Version {
    One,
    Two,
    Three,
}

fn count(length: usize) -> u32 {
    u32::try_from(length).expect("far fewer than 2^32")
}

fn sealed(mut into: Vec<u8>) -> Bytes {
    let crc = crc32c::crc32c(&into);
    into.put_u32_le(crc);
    into.into()
}

fn opened(bytes: &[u8], magic: [u8; 8]) -> Option<Fields<'_>> {
    let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    if Fields(crc).u32()? != crc32c::crc32c(body) {
        return None;
    }
    let mut fields = Fields(body);
    (fields.take(8)? == magic).then_some(fields)
}

fn put_stream(into: &mut Vec<u8>, kind: u8, id: &StreamId) {
    into.put_u8(kind);
    into.put_slice(id.topic.as_bytes());
    into.put_u32_le(id.partition.get());
}

fn put_change(into: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Epoch { epoch, at } => {
            into.put_u8(1);
            into.put_u32_le(*epoch);
            into.put_u64_le(*at);
        }
        Change::Stream { id, retention, start, next } => {
            put_stream(into, 2, id);
            into.put_u64_le(retention.ms.unwrap_or(NONE));
            into.put_u64_le(retention.bytes.unwrap_or(NONE));
            into.put_u64_le(start.get());
            into.put_u64_le(next.get());
        }
        Change::WriteAhead { epoch, from, to } => {
            into.put_u8(7);
            into.put_u32_le(*epoch);
            into.put_u64_le(*from);
            into.put_u64_le(to.unwrap_or(NONE));
        }
        Change::Deleted { id } => put_stream(into, 3, id),
        Change::Note(note) => {
            into.put_u8(12);
            notes::put(into, note);
        }
        Change::Range { id, range } if range.past == Past::default() => {
            put_stream(into, 4, id);
            put_range(into, range);
        }
        Change::Range { id, range } => put_with_past(into, id, false, std::slice::from_ref(range)),
        Change::Moved { id, ranges } => match &ranges[..] {
            [range] if range.past == MERGED => {
                put_stream(into, 6, id);
                put_range(into, range);
            }
            ranges => put_with_past(into, id, true, ranges),
        },
        Change::Producers { id, producers } => {
            put_stream(into, 11, id);
            into.put_u32_le(count(producers.len()));
            for (id, producer) in producers {
                into.put_i64_le(*id);
                into.put_i16_le(producer.epoch.get());
                into.put_u64_le(producer.at.get());
                into.put_i64_le(producer.at_ms);
                into.put_u32_le(count(producer.last.len()));
                for seen in &producer.last {
                    into.put_i32_le(seen.first.get());
                    into.put_u32_le(seen.records);
                    into.put_u64_le(seen.base.get());
                }
            }
        }
        Change::Open { id, open } => {
            put_stream(into, 10, id);
            into.put_u32_le(count(open.len()));
            for (producer, first) in open {
                into.put_i64_le(*producer);
                into.put_u64_le(first.get());
            }
        }
    }
}

fn put_with_past(into: &mut Vec<u8>, id: &StreamId, moved: bool, ranges: &[Arc<Range>]) {
    put_stream(into, 9, id);
    into.put_u8(u8::from(moved));
    into.put_u32_le(count(ranges.len()));
    for range in ranges {
        put_range(into, range);
        let Past { merged, compacted } = range.past;
        into.put_u8(u8::from(merged));
        into.put_u8(u8::from(compacted.is_some()));
        into.put_i64_le(compacted.and_then(|compacted| compacted.horizon).unwrap_or(NEVER));
        into.put_u64_le(compacted.map_or(0, |compacted| compacted.records));
    }
}

fn put_range(into: &mut Vec<u8>, range: &Range) {
    into.put_u32_le(range.object.epoch);
    into.put_u64_le(range.object.number);
    into.put_u64_le(range.part.at);
    into.put_u32_le(range.part.bytes);
    into.put_u64_le(range.base.get());
    into.put_u64_le(range.next.get());
    into.put_u64_le(range.bytes);
    into.put_u32_le(range.batches);
    into.put_i64_le(range.max_timestamp);
    into.put_u32_le(count(range.epochs.len()));
    for (epoch, start) in &range.epochs {
        into.put_u32_le(*epoch);
        into.put_u64_le(start.get());
    }
    into.put_u32_le(count(range.aborted.len()));
    for aborted in &range.aborted {
        into.put_i64_le(aborted.producer.get());
        into.put_u64_le(aborted.first.get());
        into.put_u64_le(aborted.last.get());
        into.put_u64_le(aborted.stable.get());
    }
    into.put_u64_le(range.position);
}

fn change(fields: &mut Fields<'_>, version: Version) -> Option<Change> {
    Some(match fields.u8()? {
        1 => Change::Epoch { epoch: fields.u32()?, at: fields.u64()? },
        2 => {
            let id = fields.stream()?;
            let limit = |value: u64| (value != NONE).then_some(value);
            let retention = Retention { ms: limit(fields.u64()?), bytes: limit(fields.u64()?) };
            Change::Stream { id, retention, start: fields.offset()?, next: fields.offset()? }
        }
        3 => Change::Deleted { id: fields.stream()? },
        12 if version == Version::Three => Change::Note(notes::take(fields)?),
        7 if version == Version::Three => {
            let (epoch, from, to) = (fields.u32()?, fields.u64()?, fields.u64()?);
            let to = (to != NONE).then_some(to);
            to.is_none_or(|to| from <= to).then_some(Change::WriteAhead { epoch, from, to })?
        }
        4 => Change::Range { id: fields.stream()?, range: Arc::new(range(fields, version)?) },
        6 if version != Version::One => {
            let (id, range) = (fields.stream()?, range(fields, version)?);
            Change::Moved { id, ranges: vec![Arc::new(Range { past: MERGED, ..range })] }
        }
        9 if version == Version::Three => with_past(fields, version)?,
        10 if version == Version::Three => {
            let (id, mut open) = (fields.stream()?, Vec::new());
            for _ in 0..fields.count(16)? {
                open.push((fields.i64()?, fields.offset()?));
            }
            Change::Open { id, open }
        }
        kind @ (5 | 11) if (kind == 11) == (version == Version::Three) => {
            let id = fields.stream()?;
            let count = fields.count(if version == Version::Three { 30 } else { 14 })?;
            let mut producers = Vec::with_capacity(count);
            for _ in 0..count {
                producers.push((fields.i64()?, producer(fields, version)?));
            }
            Change::Producers { id, producers }
        }
        _ => return None,
    })
}

/// Only what is written so: the same meaning has the same bytes.
fn with_past(fields: &mut Fields<'_>, version: Version) -> Option<Change> {
    let (id, moved) = (fields.stream()?, fields.flag()?);
    let mut ranges = Vec::new();
    for _ in 0..fields.count(RANGE_BYTES_MIN)? {
        let range = range(fields, version)?;
        let (merged, is_compacted) = (fields.flag()?, fields.flag()?);
        let (horizon, records) = (fields.i64()?, fields.u64()?);
        if !is_compacted && (horizon != NEVER || records != 0) {
            return None;
        }
        let horizon = (horizon != NEVER).then_some(horizon);
        let compacted = is_compacted.then_some(Compacted { horizon, records });
        ranges.push(Arc::new(Range { past: Past { merged, compacted }, ..range }));
    }
    let follow = ranges.windows(2).all(|two| two[0].next == two[1].base);
    match (moved, &ranges[..]) {
        (false, [range]) if range.past != Past::default() => Some(Change::Range { id, range: range.clone() }),
        (false, _) | (true, []) => None,
        (true, [range]) if range.past == MERGED => None,
        (true, _) => follow.then_some(Change::Moved { id, ranges }),
    }
}

fn range(fields: &mut Fields<'_>, version: Version) -> Option<Range> {
    let object = ObjectId { epoch: fields.u32()?, number: fields.u64()? };
    let part = PartPlace { at: fields.u64()?, bytes: fields.u32()? };
    part.at.checked_add(u64::from(part.bytes))?;
    let (base, next, bytes) = (fields.offset()?, fields.offset()?, fields.u64()?);
    let (batches, max_timestamp) = (fields.u32()?, fields.i64()?);
    let mut epochs = Vec::new();
    for _ in 0..fields.count(12)? {
        epochs.push((fields.u32()?, fields.offset()?));
    }
    let mut aborted = Vec::new();
    for _ in 0..fields.count(if version == Version::Three { 32 } else { 24 })? {
        let (producer, first, last) = (ProducerId::new(fields.i64()?), fields.offset()?, fields.offset()?);
        let stable = if version == Version::Three { fields.offset()? } else { Offset::default() };
        aborted.push(Aborted { producer, first, last, stable });
    }
    let position = if version == Version::One { 0 } else { fields.u64()? };
    let past = Past::default();
    let found = Range { object, part, base, next, bytes, batches, max_timestamp, epochs, position, aborted, past };
    (base < next).then_some(found)
}

fn producer(fields: &mut Fields<'_>, version: Version) -> Option<Producer> {
    let epoch = ProducerEpoch::new(fields.i16()?);
    let told = if version == Version::Three { Some((fields.offset()?, fields.i64()?)) } else { None };
    let mut last: VecDeque<Seen> = VecDeque::new();
    for _ in 0..fields.count(16)? {
        last.push_back(Seen { first: Sequence::new(fields.i32()?), records: fields.u32()?, base: fields.offset()? });
    }
    let (at, at_ms) = told.unwrap_or_else(|| (last.back().map(|seen| seen.base).unwrap_or_default(), -1));
    Some(Producer { epoch, last, at, at_ms })
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::{super::Note, *};
    use crate::PartitionIndex;

    fn stream() -> impl Strategy<Value = StreamId> {
        (0u32..3).prop_map(|n| StreamId::new(Uuid::from_u128(1), PartitionIndex::new(n)))
    }

    fn offset() -> impl Strategy<Value = Offset> {
        (0u64..1 << 40).prop_map(Offset::new)
    }

    fn aborted(first: Offset, last: Offset) -> Aborted {
        Aborted { producer: ProducerId::new(1), first, last, stable: last }
    }

    fn note() -> impl Strategy<Value = Note> {
        prop_oneof![
            (any::<u64>(), any::<u64>()).prop_map(|(by, reserved)| Note::Taken { by, reserved }),
            (stream(), offset(), 1u64..99).prop_map(|(id, from, more)| Note::Skipped {
                id,
                from,
                to: Offset::new(from.get() + more)
            }),
            any::<i64>().prop_map(|at_ms| Note::Uploaded { at_ms }),
        ]
    }

    fn seen() -> impl Strategy<Value = Seen> {
        (any::<i32>(), any::<u32>(), offset()).prop_map(|(first, records, base)| Seen {
            first: Sequence::new(first),
            records,
            base,
        })
    }

    /// Any changes that this version can write.
    pub(crate) fn changes() -> impl Strategy<Value = Vec<Change>> {
        let compacted = (proptest::option::of(0i64..9), 0u64..9);
        let compacted = compacted.prop_map(|(horizon, records)| Compacted { horizon, records });
        let past = (any::<bool>(), proptest::option::of(compacted));
        let past = past.prop_map(|(merged, compacted)| Past { merged, compacted });
        let starts = proptest::collection::vec(offset(), 0..3);
        let range = (0u32..4, 0u64..4, offset(), 1u64..99, any::<i64>(), starts, past);
        let range = range.prop_map(|(epoch, number, base, records, max_timestamp, starts, past)| {
            Arc::new(Range {
                object: ObjectId { epoch, number },
                part: PartPlace { at: 9, bytes: 60 },
                base,
                next: Offset::new(base.get() + records),
                bytes: records,
                batches: 1,
                max_timestamp,
                epochs: starts.iter().map(|start| (epoch, *start)).collect(),
                position: number * 8,
                aborted: starts.iter().map(|first| aborted(*first, base)).collect(),
                past,
            })
        });
        let producer = (any::<i16>(), proptest::collection::vec(seen(), 0..5), offset(), any::<i64>());
        let producer = producer.prop_map(|(epoch, last, at, at_ms)| Producer {
            epoch: ProducerEpoch::new(epoch),
            last: last.into(),
            at,
            at_ms,
        });
        let limits = (proptest::option::of(0u64..9), proptest::option::of(0u64..9));
        let limits = limits.prop_map(|(ms, bytes)| Retention { ms, bytes });
        let change = prop_oneof![
            (any::<u32>(), any::<u64>()).prop_map(|(epoch, at)| Change::Epoch { epoch, at }),
            (0u32..4, 0u64..9, proptest::option::of(9u64..12)).prop_map(|(epoch, from, to)| Change::WriteAhead {
                epoch,
                from,
                to
            }),
            (stream(), limits, offset(), offset()).prop_map(|(id, retention, start, next)| Change::Stream {
                id,
                retention,
                start,
                next
            }),
            stream().prop_map(|id| Change::Deleted { id }),
            note().prop_map(Change::Note),
            (stream(), range, 0u8..3).prop_map(|(id, range, how)| match how {
                0 => Change::Moved { id, ranges: vec![range] },
                1 => Change::Range { id, range },
                _ => {
                    let next = Offset::new(range.next.get() + 7);
                    let behind = Arc::new(Range { base: range.next, next, past: Past::default(), ..(*range).clone() });
                    Change::Moved { id, ranges: vec![range, behind] }
                }
            }),
            (stream(), proptest::collection::btree_map(0i64..9, producer, 1..4))
                .prop_map(|(id, producers)| Change::Producers { id, producers: producers.into_iter().collect() }),
            (stream(), proptest::collection::btree_map(0i64..9, offset(), 0..4))
                .prop_map(|(id, open)| Change::Open { id, open: open.into_iter().collect() }),
        ];
        proptest::collection::vec(change, 0..12)
    }

    proptest! {
        #[test]
        fn a_file_comes_back_as_it_was_written_and_no_flipped_bit_goes_unseen(
            changes in changes(), snapshot in any::<bool>(), epoch in any::<u32>(), flip in any::<usize>(),
        ) {
            let delta = Delta { log: Uuid::from_u128(4), snapshot, epoch, sequence: 8, covered: 16, changes };
            let bytes = delta.encode();
            prop_assert_eq!(Delta::decode(&bytes), Some(delta));
            let mut damaged = bytes.to_vec();
            let at = flip % damaged.len();
            damaged[at] ^= 16;
            prop_assert_eq!(Delta::decode(&damaged), None);
        }

        #[test]
        fn a_head_comes_back_as_it_was_written(
            files in proptest::collection::vec(any::<(u32, u64, u64)>(), 1..9), beat in any::<u64>(),
            owner in any::<u32>(), is_closed in any::<bool>(),
        ) {
            let file = |(epoch, sequence, nonce)| IndexName { epoch, sequence, nonce };
            let files: Vec<_> = files.into_iter().map(file).collect();
            prop_assert_eq!(IndexName::parse(&files[0].name()), Some(files[0]));
            let head = HeadRecord { log: Uuid::from_u128(4), epoch: 5, sequence: 8, files, beat, owner, is_closed };
            prop_assert_eq!(HeadRecord::decode(&head.encode()), Some(head));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u8..12) {
            let _ = Delta::decode(&bytes);
            let _ = HeadRecord::decode(&bytes);
            // Past magic and checksum, so that the fields behind them are reached.
            for magic in [MAGIC, HEAD_MAGIC] {
                let mut whole = magic.to_vec();
                whole.extend_from_slice(&[0; 37]);
                whole.extend_from_slice(&[1, 0, 0, 0, kind]);
                whole.extend_from_slice(&bytes);
                let whole = sealed(whole);
                let _ = Delta::decode(&whole);
                let _ = HeadRecord::decode(&whole);
            }
        }
    }

    #[test]
    fn a_file_of_version_1_is_read_and_its_ranges_have_no_position() {
        let range = Range {
            object: ObjectId { epoch: 1, number: 4 },
            part: PartPlace { at: 9, bytes: 60 },
            base: Offset::new(3),
            next: Offset::new(5),
            bytes: 2,
            batches: 1,
            max_timestamp: 7,
            epochs: vec![(1, Offset::new(3))],
            position: 800,
            aborted: Vec::new(),
            past: Past::default(),
        };
        let id = StreamId::new(Uuid::from_u128(1), PartitionIndex::new(0));
        let file = |range: Range| {
            let changes = vec![Change::Range { id, range: Arc::new(range) }];
            Delta { log: Uuid::nil(), snapshot: true, epoch: 1, sequence: 1, covered: 64, changes }
        };
        let bytes = file(range.clone()).encode();
        let mut first = bytes[..bytes.len() - 12].to_vec();
        first[..8].copy_from_slice(&MAGIC_1);
        assert_eq!(Delta::decode(&sealed(first)), Some(file(Range { position: 0, ..range })));
    }

    #[test]
    fn the_bytes_of_a_file_and_a_head_are_these() {
        let log = Uuid::from_u128(2);
        let changes = vec![Change::Epoch { epoch: 3, at: 64 }];
        let delta = Delta { log, snapshot: true, epoch: 3, sequence: 1, covered: 64, changes };
        let id = "00000000000000000000000000000002";
        let text = format!(
            "4349445830303033{id}01030000000100000000000000400000000000000001000000010300000040000000 00000000"
        );
        let bytes = delta.encode();
        assert_eq!(hex::encode(&bytes[..bytes.len() - 4]), text.replace(' ', ""));
        let files = vec![IndexName { epoch: 3, sequence: 1, nonce: 5 }];
        let head = HeadRecord { log, epoch: 3, sequence: 1, files: files.clone(), beat: 9, owner: 2, is_closed: true }
            .encode();
        let fields = "0300000001000000000000000100000003000000 01000000000000000500000000000000";
        let text = format!("4348454130303032{id}{fields}0900000000000000 02000000 01");
        assert_eq!(hex::encode(&head[..head.len() - 4]), text.replace(' ', ""));
        let first = hex::decode(format!("4348454130303031{id}{fields}").replace(' ', "")).unwrap();
        let first = HeadRecord::decode(&sealed(first)).expect("a head of version 1 is read");
        assert_eq!(first, HeadRecord { log, epoch: 3, sequence: 1, files, beat: 0, owner: 0, is_closed: false });
    }
}
