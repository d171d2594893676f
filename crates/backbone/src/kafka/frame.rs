//! One frame of the spool: the records of one append, with a checksum.
//!
//! [`super::spool`] writes and reads them. It must never reserve memory from a number that it has read and not checked.
//!
//! | bytes | field |
//! | --- | --- |
//! | 4 | length of the payload, big-endian |
//! | 4 | CRC32C of the payload |
//! | … | payload: topic (blob), partition `u32`, floor `u64`, record count `u32`, then each record |
//!
//! A record is: timestamp `i64`, key (blob), value (blob), header count `u32`, then each header's name and value (blobs).
//! A blob is a length `u32` and the bytes. All numbers are big-endian.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cairn_contract::{EventRecord, Topic};

/// Bytes before the payload.
pub(super) const FRAME_HEADER_BYTES: usize = 8;
/// Largest payload.
pub(super) const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// The records of one append.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Frame {
    pub(crate) topic: Topic,
    pub(crate) partition: u32,
    /// None of the records lies before this offset in its topic.
    pub(crate) floor: u64,
    pub(crate) records: Vec<EventRecord>,
}

/// What the next bytes are.
#[derive(Debug)]
pub(super) enum Parsed {
    Frame(Frame, usize),
    /// Not all of it is there.
    Short,
    /// It is no frame.
    Bad,
    /// It is whole, and was changed since it was encrypted.
    Changed,
}

impl Frame {
    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_bytes(0, FRAME_HEADER_BYTES);
        put(&mut out, self.topic.name().as_bytes());
        out.put_u32(self.partition);
        out.put_u64(self.floor);
        out.put_u32(self.records.len() as u32);
        for record in &self.records {
            out.put_i64(record.timestamp_ms);
            put(&mut out, &record.key);
            put(&mut out, &record.value);
            out.put_u32(record.headers.len() as u32);
            for (name, value) in &record.headers {
                put(&mut out, name.as_bytes());
                put(&mut out, value);
            }
        }
        let payload = out.len() - FRAME_HEADER_BYTES;
        let crc = crc32c::crc32c(&out[FRAME_HEADER_BYTES..]);
        out[0..4].copy_from_slice(&(payload as u32).to_be_bytes());
        out[4..8].copy_from_slice(&crc.to_be_bytes());
        out.freeze()
    }

    pub(super) fn parse(bytes: &[u8]) -> Parsed {
        let Some(mut header) = bytes.get(..FRAME_HEADER_BYTES) else { return Parsed::Short };
        let (payload, crc) = (header.get_u32() as usize, header.get_u32());
        if payload == 0 || payload > PAYLOAD_BYTES_MAX {
            return Parsed::Bad;
        }
        let end = FRAME_HEADER_BYTES + payload;
        let Some(body) = bytes.get(FRAME_HEADER_BYTES..end) else { return Parsed::Short };
        if crc32c::crc32c(body) != crc {
            return Parsed::Bad;
        }
        let mut body = Bytes::copy_from_slice(body);
        Self::decode(&mut body).map_or(Parsed::Bad, |frame| Parsed::Frame(frame, end))
    }

    /// The frame of a payload.
    pub(super) fn decode(payload: &mut Bytes) -> Option<Self> {
        decode(payload)
    }
}

fn put(out: &mut BytesMut, blob: &[u8]) {
    out.put_u32(blob.len() as u32);
    out.put_slice(blob);
}

fn decode(body: &mut Bytes) -> Option<Frame> {
    let topic = Topic::named(std::str::from_utf8(&blob(body)?).ok()?)?;
    let partition = body.try_get_u32().ok()?;
    let floor = body.try_get_u64().ok()?;
    let count = body.try_get_u32().ok()?;
    let mut records = Vec::new();
    for _ in 0..count {
        let timestamp_ms = body.try_get_i64().ok()?;
        let (key, value) = (blob(body)?, blob(body)?);
        let mut headers = Vec::new();
        for _ in 0..body.try_get_u32().ok()? {
            let name = String::from_utf8(blob(body)?.to_vec()).ok()?;
            headers.push((name, blob(body)?));
        }
        records.push(EventRecord { topic, key, headers, value, timestamp_ms });
    }
    body.is_empty().then_some(Frame { topic, partition, floor, records })
}

fn blob(body: &mut Bytes) -> Option<Bytes> {
    let length = body.try_get_u32().ok()? as usize;
    (length <= body.len()).then(|| body.split_to(length))
}
