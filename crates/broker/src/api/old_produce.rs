//! Produce of versions 0 to 2, which carry message formats of before Kafka 0.11: refused, partition by partition, with the
//! code that names the reason. The codec does not know these versions, so the few fields are read and written here.
//!
//! | request | answer |
//! | --- | --- |
//! | i16 acks, i32 timeout, topics: name, partitions: i32 index, i32 length, bytes | topics: name, partitions: i32 index, i16 code, i64 offset -1, from version 2 i64 time -1; from version 1 i32 throttle time |

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;

use super::{Request, RequestError};

/// The first version whose answer tells the append time.
const APPEND_TIME_FIRST: i16 = 2;
/// The first version whose answer tells a throttle time.
const THROTTLE_FIRST: i16 = 1;

/// The refusal; `None` where the client wants no answer (acks 0). The request's shape was checked.
pub(super) fn refuse(request: &Request) -> Result<Option<Bytes>, RequestError> {
    tracing::warn!(
        version = request.version,
        client = request.client_id,
        "a client produces message formats of before Kafka 0.11: use a newer one, or set its broker version to 0.11 or more"
    );
    let (silent, body) = answer(request.version, request.body())
        .ok_or_else(|| RequestError::Codec { reason: "a Produce request is cut short".to_owned() })?;
    Ok((!silent).then(|| request.respond_raw(&body)))
}

fn answer(version: i16, mut from: &[u8]) -> Option<(bool, BytesMut)> {
    let mut out = BytesMut::new();
    let silent = take::<2>(&mut from)? == [0, 0];
    take::<4>(&mut from)?;
    for _ in 0..count(&mut from, &mut out)? {
        let length = take::<2>(&mut from)?;
        let (name, rest) = from.split_at_checked(usize::try_from(i16::from_be_bytes(length)).ok()?)?;
        from = rest;
        out.put_slice(&length);
        out.put_slice(name);
        for _ in 0..count(&mut from, &mut out)? {
            out.put_slice(&take::<4>(&mut from)?);
            let length = i32::from_be_bytes(take(&mut from)?);
            from = from.get(usize::try_from(length).unwrap_or(0)..)?;
            out.put_i16(ResponseError::UnsupportedForMessageFormat.code());
            out.put_i64(-1);
            if version >= APPEND_TIME_FIRST {
                out.put_i64(-1);
            }
        }
    }
    if version >= THROTTLE_FIRST {
        out.put_i32(0);
    }
    Some((silent, out))
}

/// A number of elements, which the answer repeats.
fn count(from: &mut &[u8], out: &mut BytesMut) -> Option<i32> {
    let count = i32::from_be_bytes(take(from)?);
    out.put_i32(count);
    Some(count)
}

fn take<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = from.split_first_chunk::<N>()?;
    *from = tail;
    Some(*head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_partition_is_refused_by_name_in_the_layout_of_its_version() {
        let request = b"\0\x01\0\0\x03\xe8\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x07\0\0\0\x02xx";
        let head = b"\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x07\0\x2b\xff\xff\xff\xff\xff\xff\xff\xff";
        let (silent, zero) = answer(0, request).expect("whole");
        assert!(!silent);
        assert_eq!(&zero[..], head);
        assert_eq!(&answer(1, request).expect("whole").1[..], [&head[..], &[0; 4]].concat());
        assert_eq!(&answer(2, request).expect("whole").1[..], [&head[..], &[0xff; 8], &[0; 4]].concat());
        assert!(answer(2, &[&[0, 0], &request[2..]].concat()).expect("whole").0, "acks 0 wants no answer");
        for cut in 0..request.len() {
            assert_eq!(answer(2, &request[..cut]), None);
        }
    }
}
