//! Reading records out of a batch, within bounds. Called by Produce to check and by readers to decode.
//!
//! It reserves nothing from a count in the bytes: every record must be there before it is counted.

use std::borrow::Cow;

use bytes::Bytes;

use super::{BatchError, BatchHeader, Compression, HEADER_BYTES, RECORD_BYTES_MIN, check_crc, varint};

/// The timestamp of a record that has none.
const NO_TIMESTAMP: i64 = -1;

/// Records at fault that a refusal names at most.
const AT_FAULT_TOLD_MAX: usize = 10_000;

/// One record, with its absolute offset and timestamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Offset in the partition.
    pub offset: u64,
    /// Milliseconds since the Unix epoch.
    pub timestamp: i64,
    /// Key, if there is one.
    pub key: Option<Bytes>,
    /// Value; none is a tombstone on a compacted topic.
    pub value: Option<Bytes>,
    /// Headers in order.
    pub headers: Vec<(String, Option<Bytes>)>,
}

/// One record as it lies in the unpacked bytes.
pub(super) struct RawRecord<'a> {
    /// All of it, its length included.
    pub(super) whole: &'a [u8],
    pub(super) attributes: u8,
    pub(super) timestamp_delta: i64,
    /// What follows the timestamp.
    pub(super) behind_timestamp: &'a [u8],
    pub(super) offset_delta: i64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: Option<&'a [u8]>,
    headers: &'a [u8],
    header_count: usize,
}

/// What a check has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Checked {
    /// The header, as it is in the bytes.
    pub header: BatchHeader,
    /// The least timestamp of a record that has one, ms.
    pub oldest_ms: Option<i64>,
    /// The greatest timestamp, ms; -1 where no record has one.
    pub newest_ms: i64,
}

/// Checks that `bytes` are exactly one whole batch whose records are what its header promises: magic, checksum, codec,
/// count, offset deltas; and that each record has a key where `keyed`. Returns the header,
/// and the span of time that the records give.
pub fn check(bytes: &[u8], keyed: bool, unpacked_bytes_max: usize) -> Result<Checked, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    if bytes.len() > header.total_bytes {
        return Err(BatchError::Trailing { extra: bytes.len() - header.total_bytes });
    }
    check_crc(bytes, &header)?;
    if header.base_offset != 0 {
        return Err(BatchError::Header { what: "offsets are given by the broker: the base offset is zero" });
    }
    if header.record_count < 1 {
        return Err(BatchError::Header { what: "record count is below one" });
    }
    if header.last_offset_delta != header.record_count - 1 {
        return Err(BatchError::Header { what: "last offset delta does not match the record count" });
    }
    let marked = header.producer_id >= 0;
    if marked && (header.producer_epoch < 0 || header.base_sequence < 0) {
        return Err(BatchError::Header { what: "producer epoch or sequence is negative" });
    }
    let records = unpack(bytes, &header, unpacked_bytes_max)?;
    let (mut oldest_ms, mut newest_ms) = (None, NO_TIMESTAMP);
    let mut keyless = Vec::new();
    walk(&records, &header, |index, record| {
        let timestamp = header.base_timestamp.checked_add(record.timestamp_delta);
        let timestamp = timestamp.filter(|timestamp| *timestamp >= NO_TIMESTAMP);
        let timestamp = timestamp.ok_or(BatchError::Record { index, what: "timestamp is out of range" })?;
        newest_ms = newest_ms.max(timestamp);
        if timestamp != NO_TIMESTAMP {
            oldest_ms = Some(oldest_ms.map_or(timestamp, |oldest: i64| oldest.min(timestamp)));
        }
        if record.offset_delta != index as i64 {
            return Err(BatchError::Record { index, what: "offsets do not count up from zero" });
        }
        if keyed && record.key.is_none() && keyless.len() < AT_FAULT_TOLD_MAX {
            keyless.extend(i32::try_from(index));
        }
        Ok(())
    })?;
    if !keyless.is_empty() {
        return Err(BatchError::Keyless { records: keyless });
    }
    Ok(Checked { header, oldest_ms, newest_ms })
}

/// The places of records that are further from the broker's time than they may be: older than `oldest_ms`, but for those that
/// have no time, or newer than `newest_ms`. The bytes were checked.
pub(crate) fn out_of_time(bytes: &[u8], (oldest_ms, newest_ms): (i64, i64), unpacked_bytes_max: usize) -> Vec<i32> {
    let Ok(records) = decode(bytes, unpacked_bytes_max) else { return Vec::new() };
    let places = (0..).zip(&records).filter(|(_, record)| {
        (record.timestamp != NO_TIMESTAMP && record.timestamp < oldest_ms) || record.timestamp > newest_ms
    });
    places.map(|(place, _)| place).take(AT_FAULT_TOLD_MAX).collect()
}

/// Decodes every record of the batch at the start of `bytes`, after checking its checksum.
pub fn decode(bytes: &[u8], unpacked_bytes_max: usize) -> Result<Vec<Record>, BatchError> {
    let header = BatchHeader::parse(bytes)?;
    check_crc(bytes, &header)?;
    let unpacked = unpack(bytes, &header, unpacked_bytes_max)?;
    // One copy that all records of the batch then share.
    let shared = Bytes::copy_from_slice(&unpacked);
    let mut out = Vec::new();
    walk(&shared, &header, |index, record| {
        let offset = header.base_offset.checked_add(record.offset_delta).and_then(|at| u64::try_from(at).ok());
        let timestamp = if header.is_append_time() {
            header.max_timestamp
        } else {
            header.base_timestamp.wrapping_add(record.timestamp_delta)
        };
        out.push(Record {
            offset: offset.ok_or(BatchError::Record { index, what: "offset is out of range" })?,
            timestamp,
            key: record.key.map(|key| shared.slice_ref(key)),
            value: record.value.map(|value| shared.slice_ref(value)),
            headers: headers(&shared, index, &record)?,
        });
        Ok(())
    })?;
    Ok(out)
}

pub(super) fn unpack<'a>(bytes: &'a [u8], header: &BatchHeader, limit: usize) -> Result<Cow<'a, [u8]>, BatchError> {
    let packed = &bytes[HEADER_BYTES..header.total_bytes];
    match header.compression()? {
        Compression::None => Ok(Cow::Borrowed(packed)),
        codec => Ok(Cow::Owned(codec.unpack(packed, limit)?)),
    }
}

pub(super) fn walk(
    mut rest: &[u8],
    header: &BatchHeader,
    mut each: impl FnMut(usize, RawRecord<'_>) -> Result<(), BatchError>,
) -> Result<(), BatchError> {
    let promised = usize::try_from(header.record_count).map_err(|_| BatchError::Header { what: "record count" })?;
    if promised > rest.len() / RECORD_BYTES_MIN {
        return Err(BatchError::Header { what: "record count is more than the bytes can hold" });
    }
    for index in 0..promised {
        let short = BatchError::Record { index, what: "it is cut short" };
        let from = rest;
        let length = varint::take(&mut rest).and_then(|n| usize::try_from(n).ok()).ok_or(short.clone())?;
        let (body, tail) = rest.split_at_checked(length).ok_or(short)?;
        rest = tail;
        let whole = &from[..from.len() - tail.len()];
        each(index, raw_record(whole, body, index)?)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(BatchError::Header { what: "bytes follow the last record" }) }
}

fn raw_record<'a>(whole: &'a [u8], body: &'a [u8], index: usize) -> Result<RawRecord<'a>, BatchError> {
    let bad = |what| BatchError::Record { index, what };
    let (attributes, mut body) = body.split_first().ok_or(bad("it is empty"))?;
    let timestamp_delta = varint::take(&mut body).ok_or(bad("timestamp"))?;
    let behind_timestamp = body;
    let offset_delta = varint::take(&mut body).ok_or(bad("offset delta"))?;
    let key = blob(&mut body).ok_or(bad("key"))?;
    let value = blob(&mut body).ok_or(bad("value"))?;
    let header_count = varint::take(&mut body).and_then(|n| usize::try_from(n).ok()).ok_or(bad("header count"))?;
    if header_count > body.len() / 2 {
        return Err(bad("header count is more than the bytes can hold"));
    }
    let headers = body;
    for _ in 0..header_count {
        let name = blob(&mut body).flatten().ok_or(bad("header key"))?;
        std::str::from_utf8(name).map_err(|_| bad("header key is not UTF-8"))?;
        blob(&mut body).ok_or(bad("header value"))?;
    }
    if !body.is_empty() {
        return Err(bad("bytes follow its headers"));
    }
    let attributes = *attributes;
    Ok(RawRecord {
        whole,
        attributes,
        timestamp_delta,
        behind_timestamp,
        offset_delta,
        key,
        value,
        headers,
        header_count,
    })
}

/// A length, -1 for null, and that many bytes. The outer `None` says that they are not there.
fn blob<'a>(from: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::take(from)?;
    if length == -1 {
        return Some(None);
    }
    let (blob, tail) = from.split_at_checked(usize::try_from(length).ok()?)?;
    *from = tail;
    Some(Some(blob))
}

fn headers(shared: &Bytes, index: usize, record: &RawRecord<'_>) -> Result<Vec<(String, Option<Bytes>)>, BatchError> {
    let bad = || BatchError::Record { index, what: "headers" };
    let mut rest = record.headers;
    let mut out = Vec::new();
    for _ in 0..record.header_count {
        let name = blob(&mut rest).flatten().ok_or_else(bad)?;
        let name = std::str::from_utf8(name).map_err(|_| bad())?.to_owned();
        let value = blob(&mut rest).ok_or_else(bad)?;
        out.push((name, value.map(|value| shared.slice_ref(value))));
    }
    Ok(out)
}
