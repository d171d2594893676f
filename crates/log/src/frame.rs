//! Bytes of one write-ahead frame: what one append call, or one change to a stream, leaves on disk. Used by `wal`,
//! `writer` and `recover`. Decoding trusts nothing: every length is checked against what is there.
//!
//! | at | bytes | header, little-endian |
//! | --- | --- | --- |
//! | 0 | 4 | magic `CFR1` |
//! | 4 | 4 | body length |
//! | 8 | 4 | CRC32C over log id (16 bytes), bytes 4 to 8, bytes 12 to 32, body |
//! | 12 | 4 | epoch of the writer |
//! | 16 | 8 | position of the frame in the log |
//! | 24 | 8 | position up to which the log was synced when the frame was written |
//! | 32 | | body: entries; in an encrypted file nonce and tag behind it (28 bytes); then zeros up to a multiple of 8 |
//!
//! In an encrypted file the magic is `CFE1`, the body is encrypted with AES-256-GCM under the file's key, bound to log id and
//! bytes 4 to 8 and 12 to 32, and the checksum covers what is on the disk, nonce and tag included: so a torn frame is told
//! from a whole one without the key, as in a file in the clear, and whoever changes a frame and mends its checksum is found
//! by the tag. Positions within a body are the same as in the clear.
//!
//! | entry | fields after its kind byte |
//! | --- | --- |
//! | 1 batch | topic 16, partition 4, base offset 8, records 4, max timestamp 8, producer id 8 (-1 none), producer epoch 2, first sequence 4, length 4, bytes |
//! | 2 create stream | topic 16, partition 4, retention ms 8, retention bytes 8 (2^64-1 is none) |
//! | 3 set retention | as create |
//! | 4 delete stream | topic 16, partition 4 |
//! | 5 delete before | topic 16, partition 4, offset 8 |
//! | 6 batch of a transaction | topic 16, partition 4, 1 byte: 1 a batch of it, 2 its marker where it was committed, 3 where aborted; the rest as batch |

use std::borrow::Cow;

use bytes::{Buf, BufMut};
use cairn_clock::Entropy;
use cairn_keys::{FileSeal, TRAILER_BYTES};
use uuid::Uuid;

use crate::{
    InTransaction, Offset, PartitionIndex, ProducerEpoch, ProducerId, ProducerMark, Retention, Sequence, StreamId,
};

const MAGIC: [u8; 4] = *b"CFR1";
const MAGIC_SEALED: [u8; 4] = *b"CFE1";
pub(crate) const HEADER_BYTES: usize = 32;
/// Bytes of a batch entry besides the batch, at most.
pub(crate) const BATCH_OVERHEAD_BYTES: usize = 60;
/// Bytes that a change takes in a body, at most.
pub(crate) const CHANGE_BYTES_MAX: usize = 64;
/// Bytes of a batch entry between its stream and the batch.
const BATCH_FIELDS_BYTES: usize = 38;
const NONE: u64 = u64::MAX;

/// What a frame says happened to one stream. A batch is named by where its bytes lie in the frame's body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Entry {
    Batch(BatchEntry),
    Create(StreamId, Retention),
    SetRetention(StreamId, Retention),
    Delete(StreamId),
    DeleteBefore(StreamId, Offset),
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BatchEntry {
    pub(crate) stream: StreamId,
    pub(crate) base: Offset,
    pub(crate) records: u32,
    pub(crate) max_timestamp: i64,
    pub(crate) producer: Option<ProducerMark>,
    pub(crate) transaction: InTransaction,
    /// Start in the body.
    pub(crate) at: u32,
    pub(crate) length: u32,
}

/// A frame's header, checked with its body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Header {
    pub(crate) epoch: u32,
    pub(crate) position: u64,
    pub(crate) synced: u64,
    pub(crate) body_bytes: usize,
    shape: Shape,
}

impl Header {
    /// Bytes of the whole frame, padding included.
    pub(crate) const fn frame_bytes(&self) -> usize {
        self.shape.frame_bytes(self.body_bytes)
    }
}

/// How the frames of a file lie in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shape {
    /// In the clear.
    Plain,
    /// Encrypted.
    Sealed,
}

impl Shape {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::Plain => MAGIC,
            Self::Sealed => MAGIC_SEALED,
        }
    }

    /// Bytes behind the body.
    const fn trailer_bytes(self) -> usize {
        match self {
            Self::Plain => 0,
            Self::Sealed => TRAILER_BYTES,
        }
    }

    /// Bytes of a frame with that body.
    pub(crate) const fn frame_bytes(self, body: usize) -> usize {
        (HEADER_BYTES + body + self.trailer_bytes()).next_multiple_of(8)
    }

    /// Bytes of a frame that begins with this header, if it is one.
    pub(crate) fn frame_length(self, header: &[u8]) -> Option<usize> {
        let body = header.get(4..8)?;
        Some(self.frame_bytes(u32::from_le_bytes(body.try_into().ok()?) as usize))
    }
}

fn put_stream(into: &mut Vec<u8>, kind: u8, stream: &StreamId) {
    into.put_u8(kind);
    into.put_slice(stream.topic.as_bytes());
    into.put_u32_le(stream.partition.get());
}

/// Appends a batch entry to a body.
pub(crate) fn put_batch(body: &mut Vec<u8>, from: usize, entry: &mut BatchEntry, bytes: &[u8]) {
    let part = match entry.transaction {
        InTransaction::No => None,
        InTransaction::Yes => Some(1),
        InTransaction::Commit => Some(2),
        InTransaction::Abort => Some(3),
    };
    put_stream(body, if part.is_some() { 6 } else { 1 }, &entry.stream);
    body.extend(part);
    body.put_u64_le(entry.base.get());
    body.put_u32_le(entry.records);
    body.put_i64_le(entry.max_timestamp);
    body.put_i64_le(entry.producer.map_or(-1, |p| p.id.get()));
    body.put_i16_le(entry.producer.map_or(-1, |p| p.epoch.get()));
    body.put_i32_le(entry.producer.map_or(-1, |p| p.first_sequence.get()));
    body.put_u32_le(entry.length);
    let at = u32::try_from(body.len() - from);
    entry.at = at.expect("a frame is no larger than a write-ahead file, which is below 4 GiB");
    body.put_slice(bytes);
}

/// Appends an entry that carries no batch.
pub(crate) fn put_change(body: &mut Vec<u8>, entry: &Entry) {
    let put_retention = |body: &mut Vec<u8>, retention: &Retention| {
        body.put_u64_le(retention.ms.unwrap_or(NONE));
        body.put_u64_le(retention.bytes.unwrap_or(NONE));
    };
    match entry {
        Entry::Batch(_) => unreachable!("batches are put with their bytes"),
        Entry::Create(stream, retention) => {
            put_stream(body, 2, stream);
            put_retention(body, retention);
        }
        Entry::SetRetention(stream, retention) => {
            put_stream(body, 3, stream);
            put_retention(body, retention);
        }
        Entry::Delete(stream) => put_stream(body, 4, stream),
        Entry::DeleteBefore(stream, offset) => {
            put_stream(body, 5, stream);
            body.put_u64_le(offset.get());
        }
    }
}

/// Which log, and who writes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hand {
    pub(crate) log: Uuid,
    pub(crate) epoch: u32,
}

/// Puts header, body and padding at the end of `into`, in the clear, as it lies in a file of that shape.
pub(crate) fn put_frame(into: &mut Vec<u8>, hand: Hand, shape: Shape, position: u64, synced: u64, body: &[u8]) {
    let start = begin(into);
    into.put_slice(body);
    end(into, start, hand, shape, position, synced);
}

/// Leaves room for a header, behind which the body is put then. Returns where the frame begins.
pub(crate) fn begin(into: &mut Vec<u8>) -> usize {
    let start = into.len();
    into.resize(start + HEADER_BYTES, 0);
    start
}

/// Ends a frame whose body lies behind its header: puts that, and padding.
pub(crate) fn end(into: &mut Vec<u8>, start: usize, hand: Hand, shape: Shape, position: u64, synced: u64) {
    let Hand { log, epoch } = hand;
    let body = into.len() - start - HEADER_BYTES;
    let mut header = &mut into[start..start + HEADER_BYTES];
    header.put_slice(&MAGIC);
    header.put_u32_le(u32::try_from(body).expect("a frame is no larger than a write-ahead file"));
    header.put_u32_le(0);
    header.put_u32_le(epoch);
    header.put_u64_le(position);
    header.put_u64_le(synced);
    let crc = checksum(log, &into[start..]);
    into[start + 8..start + 12].copy_from_slice(&crc.to_le_bytes());
    into.resize(start + shape.frame_bytes(body), 0);
}

/// Encrypts whole frames that were put in the clear for an encrypted file.
pub(crate) fn seal(frames: &mut [u8], log: Uuid, seal: &FileSeal, entropy: &Entropy) {
    let mut at = 0;
    while at < frames.len() {
        let length = Shape::Sealed.frame_length(&frames[at..]).expect("frames are put whole");
        let frame = &mut frames[at..at + length];
        let body = u32::from_le_bytes(frame[4..8].try_into().expect("four bytes")) as usize;
        frame[..4].copy_from_slice(&MAGIC_SEALED);
        let about = about(log, frame);
        let end = HEADER_BYTES + body;
        let trailer = seal.seal(entropy, &about, &mut frame[HEADER_BYTES..end]);
        frame[end..end + TRAILER_BYTES].copy_from_slice(&trailer);
        let crc = checksum(log, &frame[..end + TRAILER_BYTES]);
        frame[8..12].copy_from_slice(&crc.to_le_bytes());
        at += length;
    }
}

/// What a body is bound to.
fn about(log: Uuid, frame: &[u8]) -> [u8; 40] {
    let mut about = [0; 40];
    about[..16].copy_from_slice(log.as_bytes());
    about[16..20].copy_from_slice(&frame[4..8]);
    about[20..40].copy_from_slice(&frame[12..HEADER_BYTES]);
    about
}

/// The body of a frame whose checksum is right; nothing where it was encrypted under another key, or changed since.
pub(crate) fn body<'a>(frame: &'a [u8], header: &Header, log: Uuid, seal: Option<&FileSeal>) -> Option<Cow<'a, [u8]>> {
    let end = HEADER_BYTES + header.body_bytes;
    let body = frame.get(HEADER_BYTES..end)?;
    let Some(seal) = seal else { return Some(Cow::Borrowed(body)) };
    let trailer = frame.get(end..end + TRAILER_BYTES)?;
    seal.open(&about(log, frame), body, trailer).map(Cow::Owned)
}

fn checksum(log: Uuid, frame: &[u8]) -> u32 {
    let crc = crc32c::crc32c(log.as_bytes());
    let crc = crc32c::crc32c_append(crc, &frame[4..8]);
    crc32c::crc32c_append(crc, &frame[12..])
}

/// The frame at the start of `bytes` if it is whole, of this log, and written for this position.
pub(crate) fn check(bytes: &[u8], log: Uuid, shape: Shape, position: u64) -> Option<Header> {
    let mut header = bytes.get(..HEADER_BYTES)?;
    if header[..4] != shape.magic() {
        return None;
    }
    header.advance(4);
    let body_bytes = usize::try_from(header.get_u32_le()).ok()?;
    let crc = header.get_u32_le();
    let epoch = header.get_u32_le();
    let found = header.get_u64_le();
    let synced = header.get_u64_le();
    let frame = bytes.get(..(HEADER_BYTES + shape.trailer_bytes()).checked_add(body_bytes)?)?;
    (found == position && checksum(log, frame) == crc).then_some(Header { epoch, position, synced, body_bytes, shape })
}

/// Whether these first bytes could be those of a frame written for this position.
pub(crate) fn begins(header: &[u8; HEADER_BYTES], shape: Shape, position: u64) -> bool {
    header[..4] == shape.magic() && header[16..24] == position.to_le_bytes()
}

/// The entries of a checked body, or nothing if it is not one that this version writes.
pub(crate) fn entries(body: &[u8]) -> Option<Vec<Entry>> {
    let mut rest = body;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let kind = take(&mut rest, 1)?[0];
        let topic = Uuid::from_slice(take(&mut rest, 16)?).ok()?;
        let stream = StreamId::new(topic, PartitionIndex::new(take(&mut rest, 4)?.get_u32_le()));
        found.push(match kind {
            1 => Entry::Batch(batch(body.len(), stream, InTransaction::No, &mut rest)?),
            2 => Entry::Create(stream, retention(&mut rest)?),
            3 => Entry::SetRetention(stream, retention(&mut rest)?),
            4 => Entry::Delete(stream),
            5 => Entry::DeleteBefore(stream, Offset::new(take(&mut rest, 8)?.get_u64_le())),
            6 => {
                let part = match take(&mut rest, 1)?[0] {
                    1 => InTransaction::Yes,
                    2 => InTransaction::Commit,
                    3 => InTransaction::Abort,
                    _ => return None,
                };
                // Who has no producer has no transaction.
                Entry::Batch(batch(body.len(), stream, part, &mut rest).filter(|batch| batch.producer.is_some())?)
            }
            _ => return None,
        });
    }
    Some(found)
}

fn batch(body: usize, stream: StreamId, transaction: InTransaction, rest: &mut &[u8]) -> Option<BatchEntry> {
    let mut fields = take(rest, BATCH_FIELDS_BYTES)?;
    let base = Offset::new(fields.get_u64_le());
    let records = fields.get_u32_le();
    let max_timestamp = fields.get_i64_le();
    let id = ProducerId::new(fields.get_i64_le());
    let epoch = ProducerEpoch::new(fields.get_i16_le());
    let first_sequence = Sequence::new(fields.get_i32_le());
    let producer = (id.get() >= 0).then_some(ProducerMark { id, epoch, first_sequence });
    let length = fields.get_u32_le();
    let _ = base.checked_add(u64::from(records))?;
    let at = u32::try_from(body - rest.len()).ok()?;
    take(rest, usize::try_from(length).ok()?)?;
    Some(BatchEntry { stream, base, records, max_timestamp, producer, transaction, at, length })
}

fn retention(rest: &mut &[u8]) -> Option<Retention> {
    let mut fields = take(rest, 16)?;
    let limit = |value: u64| (value != NONE).then_some(value);
    Some(Retention { ms: limit(fields.get_u64_le()), bytes: limit(fields.get_u64_le()) })
}

fn take<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(bytes)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn a_seal() -> FileSeal {
        crate::sim::at_rest(1, &[]).new_file().expect("it is on").0
    }

    proptest! {
        #[test]
        fn a_frame_comes_back_as_it_was_put_and_only_at_its_own_place(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), base in 0u64..1 << 60, records in 1u32..1000,
            id in -1i64..5, position in any::<u64>(), flip in 0usize..64, ms in proptest::option::of(0u64..9), part in 0usize..4,
        ) {
            let stream = StreamId::new(Uuid::from_u128(9), PartitionIndex::new(3));
            let producer = (id >= 0).then_some(ProducerMark {
                id: ProducerId::new(id), epoch: ProducerEpoch::new(2), first_sequence: Sequence::new(4),
            });
            let parts = [InTransaction::No, InTransaction::Yes, InTransaction::Commit, InTransaction::Abort];
            let transaction = if id < 0 { InTransaction::No } else { parts[part] };
            let mut entry = BatchEntry {
                stream, base: Offset::new(base), records, max_timestamp: 5, producer, transaction, at: 0,
                length: u32::try_from(bytes.len()).unwrap(),
            };
            let mut body = Vec::new();
            put_batch(&mut body, 0, &mut entry, &bytes);
            let change = Entry::Create(stream, Retention { ms, bytes: None });
            put_change(&mut body, &change);
            let log = Uuid::from_u128(1);
            for sealed in [None, Some(a_seal())] {
                let shape = if sealed.is_some() { Shape::Sealed } else { Shape::Plain };
                let mut frame = Vec::new();
                put_frame(&mut frame, Hand { log, epoch: 6 }, shape, position, 1, &body);
                if let Some(key) = &sealed {
                    seal(&mut frame, log, key, &Entropy::seeded(3));
                }
                let header = check(&frame, log, shape, position).unwrap();
                prop_assert_eq!(header.frame_bytes(), frame.len());
                let read = super::body(&frame, &header, log, sealed.as_ref()).unwrap();
                prop_assert_eq!(entries(&read).unwrap(), vec![Entry::Batch(entry.clone()), change.clone()]);
                prop_assert!(check(&frame, Uuid::from_u128(2), shape, position).is_none());
                prop_assert!(check(&frame, log, shape, position ^ 8).is_none());
                let other = if sealed.is_some() { Shape::Plain } else { Shape::Sealed };
                prop_assert!(check(&frame, log, other, position).is_none());
                let at = flip % (HEADER_BYTES + body.len());
                frame[at] ^= 1;
                prop_assert!(check(&frame, log, shape, position).is_none());
                if let Some(key) = &sealed && at >= 4 && !(8..12).contains(&at) {
                    // Whoever changes it may mend the checksum, and is found by the tag.
                    let length = u32::from_le_bytes(frame[4..8].try_into().unwrap()) as usize;
                    if let Some(whole) = frame.get(..HEADER_BYTES + length + TRAILER_BYTES) {
                        let crc = checksum(log, whole);
                        frame[8..12].copy_from_slice(&crc.to_le_bytes());
                        let found = u64::from_le_bytes(frame[16..24].try_into().unwrap());
                        if let Some(header) = check(&frame, log, shape, found) {
                            prop_assert!(super::body(&frame, &header, log, Some(key)).is_none(), "byte {}", at);
                        }
                    }
                }
            }
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = entries(&bytes);
            for shape in [Shape::Plain, Shape::Sealed] {
                if let Some(header) = check(&bytes, Uuid::nil(), shape, 0) {
                    let _ = super::body(&bytes, &header, Uuid::nil(), None);
                }
            }
        }
    }
}
