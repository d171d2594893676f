//! Building a batch, uncompressed. Called by in-process writers and by the broker for its own streams.

use bytes::{BufMut, Bytes, BytesMut};

use super::{CONTROL, CRC_AT, HEADER_BYTES, LENGTH_OVERHEAD_BYTES, TRANSACTIONAL, varint};

/// Collects records and writes them as one batch. An empty builder makes no batch.
///
/// ```
/// # use cairn_broker::batch::{BatchBuilder, decode, DECOMPRESSED_BYTES_MAX};
/// let mut builder = BatchBuilder::new();
/// builder.push(1_000, Some(b"key"), Some(b"value"), &[]);
/// let batch = builder.build().expect("there is a record");
/// assert_eq!(decode(&batch, DECOMPRESSED_BYTES_MAX).expect("just built").len(), 1);
/// ```
#[derive(Debug, Default)]
pub struct BatchBuilder {
    records: BytesMut,
    scratch: BytesMut,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    producer: Option<(i64, i16, i32)>,
    attributes: i16,
}

impl BatchBuilder {
    /// A batch without a producer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Marks the batch for duplicate detection: producer id, epoch, sequence of the first record.
    #[must_use]
    pub const fn producer(mut self, id: i64, epoch: i16, first_sequence: i32) -> Self {
        self.producer = Some((id, epoch, first_sequence));
        self
    }

    /// Makes the batch a part of its producer's transaction.
    #[must_use]
    pub const fn transactional(mut self) -> Self {
        self.attributes |= TRANSACTIONAL;
        self
    }

    /// Adds a record; `timestamp` in milliseconds.
    pub fn push(&mut self, timestamp: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(String, Bytes)]) {
        if self.count == 0 {
            self.base_timestamp = timestamp;
            self.max_timestamp = timestamp;
        }
        self.max_timestamp = self.max_timestamp.max(timestamp);
        let body = &mut self.scratch;
        body.clear();
        body.put_u8(0);
        varint::put(body, timestamp.wrapping_sub(self.base_timestamp));
        varint::put(body, i64::from(self.count));
        put_blob(body, key);
        put_blob(body, value);
        varint::put(body, headers.len() as i64);
        for (name, value) in headers {
            put_blob(body, Some(name.as_bytes()));
            put_blob(body, Some(value));
        }
        varint::put(&mut self.records, body.len() as i64);
        self.records.extend_from_slice(body);
        self.count += 1;
    }

    /// Records so far.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether no record was added.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that [`build`](Self::build) would make.
    #[must_use]
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The batch, with base offset 0 and leader epoch -1 until the log stamps them; `None` without records.
    #[must_use]
    pub fn build(self) -> Option<BytesMut> {
        if self.count == 0 {
            return None;
        }
        let (id, epoch, sequence) = self.producer.unwrap_or((-1, -1, -1));
        let mut out = BytesMut::with_capacity(self.bytes());
        out.put_i64(0);
        out.put_i32((self.bytes() - LENGTH_OVERHEAD_BYTES) as i32);
        out.put_i32(-1);
        out.put_i8(2);
        out.put_u32(0);
        out.put_i16(self.attributes);
        out.put_i32(self.count - 1);
        out.put_i64(self.base_timestamp);
        out.put_i64(self.max_timestamp);
        out.put_i64(id);
        out.put_i16(epoch);
        out.put_i32(sequence);
        out.put_i32(self.count);
        out.extend_from_slice(&self.records);
        let crc = crc32c::crc32c(&out[super::ATTRIBUTES_AT..]);
        out[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
        Some(out)
    }
}

/// The marker that ends a producer's transaction in one partition: a control batch of one record (KIP-98).
#[must_use]
pub(crate) fn marker(producer: i64, epoch: i16, commits: bool, coordinator_epoch: i32, now_ms: i64) -> BytesMut {
    let (mut key, mut value) = ([0; 4], [0; 6]);
    key[3] = u8::from(commits);
    value[2..].copy_from_slice(&coordinator_epoch.to_be_bytes());
    let mut builder = BatchBuilder::new().producer(producer, epoch, -1).transactional();
    builder.attributes |= CONTROL;
    builder.push(now_ms, Some(&key), Some(&value), &[]);
    builder.build().expect("there is a record")
}

fn put_blob(into: &mut BytesMut, blob: Option<&[u8]>) {
    match blob {
        None => varint::put(into, -1),
        Some(blob) => {
            varint::put(into, blob.len() as i64);
            into.extend_from_slice(blob);
        }
    }
}
