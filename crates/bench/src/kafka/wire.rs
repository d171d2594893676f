//! Kafka's protocol as far as a client needs it that neither encodes nor decodes records: what is sent was made before, what
//! comes is counted. So the figures are the broker's, not the client's.
//!
//! Produce 7 and Fetch 11: the last versions before fields got tags, which every broker of today still answers. Blocking. Only
//! what is asked of a broker on this machine is read, and an answer that does not look like one ends the run.

mod transactions;

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use bytes::{Buf, BufMut};

pub(super) use transactions::Transactional;

/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(60);
/// Bytes of one answer, at most.
const ANSWER_BYTES_MAX: usize = 128 << 20;
/// What a request waits for at the broker at most, in milliseconds.
const PRODUCE_WAIT_MS: i32 = 30_000;
/// How long a fetch waits for data, in milliseconds.
const FETCH_WAIT_MS: i32 = 500;
/// Bytes of a batch before its records.
const BATCH_HEADER_BYTES: usize = 61;

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Wire {
    pub(super) fn connect(at: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(at).with_context(|| format!("connect to {at}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(ANSWER_MAX))?;
        stream.set_write_timeout(Some(ANSWER_MAX))?;
        Ok(Self { stream, answer: Vec::new() })
    }

    /// The same connection for another thread: one sends, the other receives.
    pub(super) fn again(&self) -> anyhow::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, answer: Vec::new() })
    }

    pub(super) fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(request)?)
    }

    /// The next answer behind its correlation id, and how many bytes came for it.
    pub(super) fn receive(&mut self) -> anyhow::Result<(&[u8], usize)> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).context("read an answer")?;
        let length = usize::try_from(i32::from_be_bytes(length)).unwrap_or(0);
        ensure!((4..=ANSWER_BYTES_MAX).contains(&length), "an answer of {length} bytes");
        if self.answer.len() < length {
            self.answer.resize(length, 0);
        }
        self.stream.read_exact(&mut self.answer[..length]).context("read an answer")?;
        Ok((&self.answer[4..length], length + 4))
    }
}

/// What a batch says of its producer.
#[derive(Debug, Clone, Copy)]
struct Marks {
    producer: i64,
    epoch: i16,
    sequence: i32,
    in_transaction: bool,
}

/// A batch of records of `bytes` each, as a producer without an id sends it, and where the first value lies in it.
pub(super) fn batch(records: usize, value: &[u8]) -> (Vec<u8>, usize) {
    batch_of(records, value, Marks { producer: -1, epoch: -1, sequence: -1, in_transaction: false })
}

fn batch_of(records: usize, value: &[u8], marks: Marks) -> (Vec<u8>, usize) {
    let mut batch = vec![0; BATCH_HEADER_BYTES];
    let mut first_value = 0;
    for at in 0..records {
        let mut record = vec![0_u8, 0]; // attributes, timestamp delta
        put_varint(&mut record, i64::try_from(at).unwrap_or(0));
        put_varint(&mut record, -1); // no key
        put_varint(&mut record, i64::try_from(value.len()).unwrap_or(0));
        let value_at = record.len();
        record.extend_from_slice(value);
        record.push(0); // no headers
        put_varint(&mut batch, i64::try_from(record.len()).unwrap_or(0));
        if at == 0 {
            first_value = batch.len() + value_at;
        }
        batch.extend_from_slice(&record);
    }
    let length = i32::try_from(batch.len() - 12).unwrap_or(i32::MAX);
    let count = i32::try_from(records).unwrap_or(i32::MAX);
    let mut header = Vec::with_capacity(BATCH_HEADER_BYTES);
    header.put_i64(0);
    header.put_i32(length);
    header.put_i32(-1);
    header.put_i8(2);
    header.put_u32(0);
    header.put_i16(if marks.in_transaction { 0x10 } else { 0 });
    header.put_i32(count - 1);
    header.put_i64(now_ms());
    header.put_i64(now_ms());
    header.put_i64(marks.producer);
    header.put_i16(marks.epoch);
    header.put_i32(marks.sequence);
    header.put_i32(count);
    batch[..BATCH_HEADER_BYTES].copy_from_slice(&header);
    seal(&mut batch);
    (batch, first_value)
}

/// Writes the checksum anew, after something in the batch was changed.
pub(super) fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// What a record says of its time: now, so that no broker takes it for old.
#[expect(clippy::disallowed_methods, reason = "the clients of a benchmark have real clocks")]
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn put_varint(into: &mut Vec<u8>, value: i64) {
    let mut left = ((value << 1) ^ (value >> 63)) as u64;
    while left >= 0x80 {
        into.push(left as u8 | 0x80);
        left >>= 7;
    }
    into.push(left as u8);
}

fn request(key: i16, version: i16, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut request = vec![0; 4];
    request.put_i16(key);
    request.put_i16(version);
    request.put_i32(1);
    put_string(&mut request, "bench");
    body(&mut request);
    let length = u32::try_from(request.len() - 4).unwrap_or(u32::MAX);
    request[..4].copy_from_slice(&length.to_be_bytes());
    request
}

fn put_string(into: &mut Vec<u8>, text: &str) {
    into.put_i16(i16::try_from(text.len()).unwrap_or(0));
    into.extend_from_slice(text.as_bytes());
}

fn put_count(into: &mut Vec<u8>, count: usize) {
    into.put_i32(i32::try_from(count).unwrap_or(i32::MAX));
}

/// Produce with acks=all, one batch for each partition.
pub(super) fn produce(topic: &str, batches: &[(i32, &[u8])]) -> Vec<u8> {
    produce_in(None, topic, batches)
}

fn produce_in(transaction: Option<&str>, topic: &str, batches: &[(i32, &[u8])]) -> Vec<u8> {
    request(0, 7, |body| {
        match transaction {
            Some(id) => put_string(body, id),
            None => body.put_i16(-1),
        }
        body.put_i16(-1);
        body.put_i32(PRODUCE_WAIT_MS);
        put_count(body, 1);
        put_string(body, topic);
        put_count(body, batches.len());
        for (partition, batch) in batches {
            body.put_i32(*partition);
            put_count(body, batch.len());
            body.extend_from_slice(batch);
        }
    })
}

/// Whether everything in a Produce answer was stored.
pub(super) fn produced(answer: &[u8]) -> anyhow::Result<()> {
    let code = refusal(answer)?;
    ensure!(code == 0, "a batch was refused with error {code}");
    Ok(())
}

/// The first error in a Produce answer; zero where there is none.
pub(super) fn refusal(answer: &[u8]) -> anyhow::Result<i16> {
    let mut answer = answer;
    for _ in 0..count(&mut answer)? {
        string(&mut answer)?;
        for _ in 0..count(&mut answer)? {
            let mut partition = &take(&mut answer, 4 + 2 + 8 + 8 + 8)?[4..];
            let code = partition.get_i16();
            if code != 0 {
                return Ok(code);
            }
        }
    }
    Ok(0)
}

/// Asks for the versions that are there: the smallest request that there is.
pub(super) fn versions() -> Vec<u8> {
    request(18, 0, |_| {})
}

/// Fetch from these offsets, without a session, as soon as there is anything.
pub(super) fn fetch(topic: &str, from: &[(i32, i64)], partition_bytes: i32) -> Vec<u8> {
    request(1, 11, |body| {
        body.put_i32(-1);
        body.put_i32(FETCH_WAIT_MS);
        body.put_i32(1);
        body.put_i32(50 << 20);
        body.put_i8(0);
        body.put_i32(0);
        body.put_i32(-1);
        put_count(body, 1);
        put_string(body, topic);
        put_count(body, from.len());
        for (partition, offset) in from {
            body.put_i32(*partition);
            body.put_i32(-1);
            body.put_i64(*offset);
            body.put_i64(-1);
            body.put_i32(partition_bytes);
        }
        put_count(body, 0);
        put_string(body, "");
    })
}

/// Goes through a Fetch answer: `each` gets a partition, the end that its readers see, and its batches as they are.
pub(super) fn fetched(answer: &[u8], mut each: impl FnMut(i32, i64, &[u8])) -> anyhow::Result<()> {
    let mut answer = answer;
    let code = take(&mut answer, 4 + 2 + 4)?[4..6].try_into().map(i16::from_be_bytes)?;
    ensure!(code == 0, "a fetch was refused with error {code}");
    for _ in 0..count(&mut answer)? {
        string(&mut answer)?;
        for _ in 0..count(&mut answer)? {
            let mut head = take(&mut answer, 4 + 2 + 8 + 8 + 8)?;
            let (index, code, end) = (head.get_i32(), head.get_i16(), head.get_i64());
            ensure!(code == 0, "partition {index} refused a fetch with error {code}");
            let aborted = count(&mut answer)?;
            take(&mut answer, aborted * 16 + 4)?;
            let bytes = count(&mut answer)?;
            each(index, end, take(&mut answer, bytes)?);
        }
    }
    Ok(())
}

/// Whole batches of a Fetch answer, each with the offset behind its last record.
pub(super) fn batches(mut records: &[u8]) -> impl Iterator<Item = (i64, &[u8])> {
    std::iter::from_fn(move || {
        let mut header = records.get(..BATCH_HEADER_BYTES)?;
        let base = header.get_i64();
        let length = usize::try_from(header.get_i32()).ok()? + 12;
        let last = i32::from_be_bytes(records[23..27].try_into().ok()?);
        // The last one may be cut short.
        let batch = records.get(..length)?;
        records = &records[length..];
        Some((base + i64::from(last) + 1, batch))
    })
}

fn count(from: &mut &[u8]) -> anyhow::Result<usize> {
    Ok(usize::try_from(take(from, 4)?.get_i32()).unwrap_or(0))
}

fn string(from: &mut &[u8]) -> anyhow::Result<()> {
    let length = usize::try_from(take(from, 2)?.get_i16()).unwrap_or(0);
    take(from, length).map(|_| ())
}

fn take<'a>(from: &mut &'a [u8], bytes: usize) -> anyhow::Result<&'a [u8]> {
    let Some((taken, left)) = from.split_at_checked(bytes) else { bail!("an answer is cut short") };
    *from = left;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_found_again_in_an_answer_with_the_offset_behind_it() {
        let (one, at) = batch(3, &[7; 100]);
        assert_eq!(&one[at..at + 100], &[7; 100]);
        let mut records = one.clone();
        records.extend_from_slice(&one);
        records.extend_from_slice(&one[..80]);
        let ends: Vec<_> = batches(&records).map(|(next, bytes)| (next, bytes.len())).collect();
        assert_eq!(ends, [(3, one.len()), (3, one.len())], "the one that is cut short is left out");
    }

    #[test]
    fn an_answer_is_gone_through_and_an_error_in_it_is_one() {
        let answer = |code: i16| {
            let mut answer = vec![0; 10];
            put_count(&mut answer, 1);
            put_string(&mut answer, "t");
            put_count(&mut answer, 1);
            answer.put_i32(4);
            answer.put_i16(code);
            answer.put_i64(9);
            answer.extend_from_slice(&[0; 16]);
            put_count(&mut answer, 0);
            answer.put_i32(-1);
            put_count(&mut answer, 2);
            answer.extend_from_slice(&[1, 2]);
            answer
        };
        let mut found = Vec::new();
        fetched(&answer(0), |index, end, bytes| found.push((index, end, bytes.to_vec()))).expect("an answer");
        assert_eq!(found, [(4, 9, vec![1, 2])]);
        assert!(fetched(&answer(3), |_, _, _| {}).is_err());
        assert!(fetched(&answer(0)[..40], |_, _, _| {}).is_err());
    }
}
