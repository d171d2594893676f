//! Kafka's RecordBatch, version 2 ("magic 2", KIP-98): header, checksum, encoder and a bounded decoder.
//!
//! Called by Produce (check), by the in-process writers (encode) and by whoever reads batches back (decode).
//! Guarantees: no number that a peer sent decides how much memory is reserved; a batch that passes [`check`] holds
//! exactly the records its header promises. It must never change the bytes of a batch but by [`stamp`],
//! [`stamp_append_time`] and [`stamp_max_timestamp`], where a batch is compacted by key ([`RecordKeys`]), and where its topic says how it
//! is packed ([`repack`]).
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | base offset, set by [`stamp`] |
//! | 8 | 4 | length of what follows this field |
//! | 12 | 4 | partition leader epoch, set by [`stamp`] |
//! | 16 | 1 | magic, 2 |
//! | 17 | 4 | CRC32C of everything from offset 21 |
//! | 21 | 2 | attributes: 0-2 compression, 3 log append time, 4 transactional, 5 control, 6 delete horizon |
//! | 23 | 4 | last offset delta |
//! | 27 | 8 | base timestamp, ms |
//! | 35 | 8 | max timestamp, ms |
//! | 43 | 8 | producer id, -1 for none |
//! | 51 | 2 | producer epoch |
//! | 53 | 4 | base sequence |
//! | 57 | 4 | record count |
//! | 61 | … | records, compressed as one block where attributes say so |

mod compact;
mod compression;
mod decode;
mod encode;
mod repack;
#[cfg(test)]
mod tests;
mod varint;

pub use compact::RecordKeys;
pub use compression::Compression;
pub(crate) use decode::out_of_time;
pub use decode::{Checked, Record, check, decode};
pub use encode::BatchBuilder;
pub(crate) use encode::marker;
pub(crate) use repack::{Packing, repack};

use cairn_log::{LeaderEpoch, Offset};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the length field's own count begins.
pub const LENGTH_OVERHEAD_BYTES: usize = 12;
/// The smallest possible record: six one-byte varints and the attributes.
pub const RECORD_BYTES_MIN: usize = 7;
/// What one batch may grow to when it is decompressed, unless the caller says otherwise.
pub const DECOMPRESSED_BYTES_MAX: usize = 64 << 20;

const CODEC_BITS: i16 = 0x07;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

const ATTRIBUTES_AT: usize = 21;
const CRC_AT: usize = 17;
const MAX_TIMESTAMP_AT: usize = 35;

/// Why bytes are not a batch that may be stored or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than the header or its length field asks for.
    #[error("batch is cut short: {have} bytes where {need} are needed")]
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes the batch asks for.
        need: usize,
    },
    /// A message format of before Kafka 0.11.
    #[error(
        "message format {magic} is not supported: use a client that writes record batches (magic 2, Kafka 0.11 or newer)"
    )]
    OldFormat {
        /// The magic byte.
        magic: i8,
    },
    /// The checksum does not match.
    #[error("batch checksum is {found:#010x} where {expected:#010x} is promised: the bytes were damaged on the way")]
    Checksum {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// A length that no batch has.
    #[error("batch says that it has {length} bytes behind its length")]
    Length {
        /// What it says.
        length: i32,
    },
    /// A header field that cannot be.
    #[error("batch header is not valid: {what}")]
    Header {
        /// Which field.
        what: &'static str,
    },
    /// Records that cannot be read.
    #[error("record {index} of the batch is not valid: {what}")]
    Record {
        /// Its place in the batch.
        index: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Records without a key on a topic that needs one.
    #[error("a compacted topic needs a key on every record: {} of the batch have none, record {} first", .records.len(), .records[0])]
    Keyless {
        /// The places in the batch of the first of them, at least one.
        records: Vec<i32>,
    },
    /// Compressed data that cannot be read.
    #[error("batch does not decompress as {codec}: {reason}")]
    Compressed {
        /// The codec of the header.
        codec: &'static str,
        /// What the decompressor said.
        reason: String,
    },
    /// A compressed batch that grows past the limit.
    #[error("batch grows past {limit} bytes when decompressed: send smaller batches")]
    TooLarge {
        /// The limit in bytes.
        limit: usize,
    },
    /// Two batches where one is allowed, or bytes behind the last.
    #[error("{extra} bytes follow the batch: send exactly one batch for each partition")]
    Trailing {
        /// How many.
        extra: usize,
    },
}

/// The fixed part of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record; what a producer sends here means nothing.
    pub base_offset: i64,
    /// Bytes of the whole batch, header included.
    pub total_bytes: usize,
    /// Leader epoch.
    pub leader_epoch: i32,
    /// CRC32C as promised.
    pub crc: u32,
    /// Attribute bits.
    pub attributes: i16,
    /// Offset of the last record less that of the first.
    pub last_offset_delta: i32,
    /// Timestamp that record deltas count from, ms.
    pub base_timestamp: i64,
    /// Greatest timestamp, ms.
    pub max_timestamp: i64,
    /// Producer id, -1 for none.
    pub producer_id: i64,
    /// Producer epoch, -1 for none.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 for none.
    pub base_sequence: i32,
    /// Records promised.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes` and checks that the whole batch is there. Does not read the checksum.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        if bytes.len() > 16 && bytes[16] != 2 {
            return Err(BatchError::OldFormat { magic: bytes[16] as i8 });
        }
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Short { have: bytes.len(), need: HEADER_BYTES });
        }
        let length = i32::from_be_bytes(field(bytes, 8));
        let total_bytes = usize::try_from(length)
            .ok()
            .and_then(|length| length.checked_add(LENGTH_OVERHEAD_BYTES))
            .filter(|total| *total >= HEADER_BYTES)
            .ok_or(BatchError::Length { length })?;
        if total_bytes > bytes.len() {
            return Err(BatchError::Short { have: bytes.len(), need: total_bytes });
        }
        Ok(Self {
            base_offset: i64::from_be_bytes(field(bytes, 0)),
            total_bytes,
            leader_epoch: i32::from_be_bytes(field(bytes, 12)),
            crc: u32::from_be_bytes(field(bytes, CRC_AT)),
            attributes: i16::from_be_bytes(field(bytes, ATTRIBUTES_AT)),
            last_offset_delta: i32::from_be_bytes(field(bytes, 23)),
            base_timestamp: i64::from_be_bytes(field(bytes, 27)),
            max_timestamp: i64::from_be_bytes(field(bytes, MAX_TIMESTAMP_AT)),
            producer_id: i64::from_be_bytes(field(bytes, 43)),
            producer_epoch: i16::from_be_bytes(field(bytes, 51)),
            base_sequence: i32::from_be_bytes(field(bytes, 53)),
            record_count: i32::from_be_bytes(field(bytes, 57)),
        })
    }

    /// The codec of the records.
    pub fn compression(&self) -> Result<Compression, BatchError> {
        Compression::from_attributes(self.attributes)
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether the batch is a transaction marker.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// Whether record timestamps are the broker's.
    #[must_use]
    pub const fn is_append_time(&self) -> bool {
        self.attributes & 0x08 != 0
    }
}

/// Checks the CRC32C of the batch at the start of `bytes`.
pub fn check_crc(bytes: &[u8], header: &BatchHeader) -> Result<(), BatchError> {
    let found = crc32c::crc32c(&bytes[ATTRIBUTES_AT..header.total_bytes]);
    if found == header.crc { Ok(()) } else { Err(BatchError::Checksum { expected: header.crc, found }) }
}

/// Writes base offset and leader epoch into a batch's header: the one change the log makes. Neither is under the checksum.
pub fn stamp(batch: &mut [u8], base: Offset, epoch: LeaderEpoch) {
    batch[0..8].copy_from_slice(&base.get().to_be_bytes());
    batch[12..16].copy_from_slice(&epoch.get().to_be_bytes());
}

/// Makes `now_ms` the timestamp of every record, as `message.timestamp.type=LogAppendTime` asks, and renews the checksum.
pub fn stamp_append_time(batch: &mut [u8], header: &BatchHeader, now_ms: i64) {
    let attributes = header.attributes | 0x08;
    batch[ATTRIBUTES_AT..ATTRIBUTES_AT + 2].copy_from_slice(&attributes.to_be_bytes());
    stamp_max_timestamp(batch, header, now_ms);
}

/// Writes the greatest timestamp into a batch's header, and renews the checksum.
pub fn stamp_max_timestamp(batch: &mut [u8], header: &BatchHeader, timestamp_ms: i64) {
    batch[MAX_TIMESTAMP_AT..MAX_TIMESTAMP_AT + 8].copy_from_slice(&timestamp_ms.to_be_bytes());
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..header.total_bytes]);
    batch[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the caller has checked that the header is whole")
}
