//! How the log compacts batches by key, which it does not know: the keys of a batch, and a batch without some of its records. Given
//! to the log when the broker opens; called from a thread of its own.
//!
//! A batch keeps its offsets: base offset and last offset delta stay what they were, and so do the deltas of its records, its producer
//! and the first sequence, as in Kafka. A tombstone that is compacted first gives its batch a horizon: attribute bit 6, and the
//! base timestamp is then the time at which tombstones may go (KIP-534). What is left is packed with the codec that it came with.
//!
//! What cannot be read, or does not have the checksum that it promises, has no keys and stays as it is: nobody is served bytes under a
//! checksum that was made for damage. Markers of transactions stay: a reader needs them to tell where what it skips ends.

use bytes::{BufMut, Bytes, BytesMut};
use cairn_log::{Keep, KeyHash, Keys, Offset, ProducerId, Rebuilt, Rule};
use sha2::{Digest, Sha256};

use super::{
    ATTRIBUTES_AT, BatchError, BatchHeader, CODEC_BITS, CRC_AT, DECOMPRESSED_BYTES_MAX, HEADER_BYTES,
    LENGTH_OVERHEAD_BYTES, MAX_TIMESTAMP_AT, check_crc, compression,
    decode::{RawRecord, unpack, walk},
    varint,
};

const HAS_HORIZON: i16 = 0x40;
const BASE_TIMESTAMP_AT: usize = 27;
const RECORD_COUNT_AT: usize = 57;

/// Kafka's batches, for the log.
#[derive(Debug, Clone, Copy)]
pub struct RecordKeys;

impl Keys for RecordKeys {
    fn transaction(&self, batch: &[u8]) -> Option<ProducerId> {
        let header = BatchHeader::parse(batch).ok()?;
        (header.is_transactional() && !header.is_control()).then_some(ProducerId::new(header.producer_id))
    }

    fn each_key(&self, batch: &[u8], each: &mut dyn FnMut(Offset, KeyHash)) {
        let Ok(header) = BatchHeader::parse(batch) else { return };
        if header.is_control() {
            return;
        }
        // All of it is read before any of it counts: a batch is known whole or not at all.
        let mut keys = Vec::new();
        let whole = read(batch, &header, |offset, record| {
            keys.extend(record.key.map(|key| (offset, hash(key))));
        });
        if whole.is_ok() {
            keys.into_iter().for_each(|(offset, key)| each(offset, key));
        }
    }

    fn rebuild(&self, batch: &[u8], rule: Rule, keep: Keep<'_>) -> Rebuilt {
        let as_is = |records: i32| Rebuilt { records: u32::try_from(records).unwrap_or(1), ..Rebuilt::default() };
        let Ok(header) = BatchHeader::parse(batch) else { return as_is(1) };
        if header.is_control() {
            return as_is(1);
        }
        // What cannot be read holds something, for all that anybody knows.
        rebuild(batch, &header, rule, keep).unwrap_or_else(|_| as_is(1))
    }
}

fn hash(key: &[u8]) -> KeyHash {
    let whole: [u8; 32] = Sha256::digest(key).into();
    *whole.first_chunk().expect("a half of it")
}

fn read(batch: &[u8], header: &BatchHeader, mut each: impl FnMut(Offset, &RawRecord<'_>)) -> Result<(), BatchError> {
    check_crc(batch, header)?;
    let unpacked = unpack(batch, header, DECOMPRESSED_BYTES_MAX)?;
    walk(&unpacked, header, |index, record| {
        let offset = header.base_offset.checked_add(record.offset_delta).and_then(|at| u64::try_from(at).ok());
        let within = (0..=i64::from(header.last_offset_delta)).contains(&record.offset_delta);
        let offset = offset.filter(|_| within).ok_or(BatchError::Record { index, what: "offset is out of range" })?;
        each(Offset::new(offset), &record);
        Ok(())
    })
}

/// Which records stay.
struct Kept {
    is_kept: Vec<bool>,
    count: i32,
    max_timestamp: i64,
    tombstones: bool,
}

fn rebuild(batch: &[u8], header: &BatchHeader, rule: Rule, keep: Keep<'_>) -> Result<Rebuilt, BatchError> {
    let horizon = (header.attributes & HAS_HORIZON != 0).then_some(header.base_timestamp);
    let is_past = horizon.is_some_and(|horizon| horizon <= rule.now_ms);
    let mut kept = Kept { is_kept: Vec::new(), count: 0, max_timestamp: -1, tombstones: false };
    read(batch, header, |offset, record| {
        let stays = match (keep, record.key) {
            (Keep::Nothing, _) => false,
            (Keep::Newest(_), None) => true,
            (Keep::Newest(_), Some(_)) if record.value.is_none() && is_past => false,
            (Keep::Newest(keep), Some(key)) => keep(offset, &hash(key)),
        };
        kept.take(stays, header, record);
    })?;
    let horizon_now = horizon.or(kept.tombstones.then_some(rule.horizon_ms));
    let horizon_ms = horizon_now.filter(|_| kept.tombstones);
    let records = u32::try_from(kept.count).unwrap_or(0);
    if kept.count == header.record_count && horizon_now == horizon {
        return Ok(Rebuilt { bytes: None, records, max_timestamp: header.max_timestamp, horizon_ms });
    }
    let bytes = write(batch, header, &kept, horizon_now)?;
    Ok(Rebuilt { bytes: Some(bytes), records, max_timestamp: kept.max_timestamp, horizon_ms })
}

impl Kept {
    fn take(&mut self, stays: bool, header: &BatchHeader, record: &RawRecord<'_>) {
        self.is_kept.push(stays);
        if !stays {
            return;
        }
        self.count += 1;
        self.tombstones |= record.key.is_some() && record.value.is_none();
        let timestamp = match header.is_append_time() {
            true => header.max_timestamp,
            false => header.base_timestamp.wrapping_add(record.timestamp_delta),
        };
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }
}

fn write(batch: &[u8], header: &BatchHeader, kept: &Kept, horizon: Option<i64>) -> Result<Bytes, BatchError> {
    let base_timestamp = horizon.unwrap_or(header.base_timestamp);
    let moved_by = header.base_timestamp.wrapping_sub(base_timestamp);
    let unpacked = unpack(batch, header, DECOMPRESSED_BYTES_MAX)?;
    let mut records = BytesMut::new();
    let mut body = BytesMut::new();
    walk(&unpacked, header, |index, record| {
        if !kept.is_kept[index] {
            return Ok(());
        }
        if moved_by == 0 {
            records.extend_from_slice(record.whole);
            return Ok(());
        }
        body.clear();
        body.put_u8(record.attributes);
        varint::put(&mut body, record.timestamp_delta.wrapping_add(moved_by));
        body.extend_from_slice(record.behind_timestamp);
        varint::put(&mut records, body.len() as i64);
        records.extend_from_slice(&body);
        Ok(())
    })?;
    let mut attributes = header.attributes | if horizon.is_some() { HAS_HORIZON } else { 0 };
    let packed = if kept.count == 0 {
        attributes &= !CODEC_BITS; // nothing is not packed
        Bytes::new()
    } else {
        let was = &batch[HEADER_BYTES..header.total_bytes];
        header.compression()?.pack(records.freeze(), compression::is_xerial(header.compression()?, was), None)?
    };
    let max_timestamp = match header.is_append_time() || kept.count == 0 {
        true => header.max_timestamp,
        false => kept.max_timestamp,
    };
    let mut out = BytesMut::with_capacity(HEADER_BYTES + packed.len());
    out.extend_from_slice(&batch[..HEADER_BYTES]);
    out.extend_from_slice(&packed);
    let length = i32::try_from(out.len() - LENGTH_OVERHEAD_BYTES);
    let length = length.map_err(|_| BatchError::TooLarge { limit: DECOMPRESSED_BYTES_MAX })?;
    let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
    put(8, &length.to_be_bytes());
    put(ATTRIBUTES_AT, &attributes.to_be_bytes());
    put(BASE_TIMESTAMP_AT, &base_timestamp.to_be_bytes());
    put(MAX_TIMESTAMP_AT, &max_timestamp.to_be_bytes());
    put(RECORD_COUNT_AT, &kept.count.to_be_bytes());
    let crc = crc32c::crc32c(&out[ATTRIBUTES_AT..]);
    out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
    Ok(out.freeze())
}

#[cfg(test)]
mod tests;
